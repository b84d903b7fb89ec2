"""Linear probes: how well a position can be read from features.

Numpy only. The single-image probe is the published one; the transfer probe asks the
question that matters for segmentation, whether what was learned about position in some
images holds in others.

References
----------
Pawlowsky et al. (2026), "What DINO saw", arXiv:2603.16840, for `linear_probe`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import SettingsError
from napari_alibi_seg.analysis._ramps import ramp
from napari_alibi_seg.analysis._regression import (
    Float,
    fit_reader,
    r2_alone,
    r2_columns,
    stacked,
)

__all__ = ["ProbeResult", "TransferResult", "linear_probe", "transfer_probe"]

_MIN_FIT, _MIN_HELD_OUT = 2, 1


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What a probe read.

    Attributes
    ----------
    r2 : float
        Over all tokens, mean over targets; negative where it is worse than a constant.
    prediction : (h, w, t) float64
        What was read at every token.
    r2_per_channel : (C,) float64 or None
        Of probes that see one channel each.
    """

    r2: float
    prediction: Float
    r2_per_channel: Float | None


@dataclass(frozen=True, slots=True)
class TransferResult:
    """What a probe read in images that it was not fitted on.

    Attributes
    ----------
    r2 : float
        Over all tokens of the held-out images, mean over targets.
    r2_per_channel : (C,) float64
        Of probes that see one channel each.
    n_fit, n_held_out : int
        Images fitted and scored.
    """

    r2: float
    r2_per_channel: Float
    n_fit: int
    n_held_out: int


def linear_probe(
    features: npt.ArrayLike,
    target: npt.ArrayLike,
    sample_mask: npt.ArrayLike,
    *,
    standardise: bool = True,
    alpha: float = 1.0,
    per_channel: bool = False,
) -> ProbeResult:
    """Read a target from the features of one image by ridge regression.

    Parameters
    ----------
    features : (h, w, C) array
        Token features. NaN and infinities count as 0.
    target : (h, w, t) array
        What is to be read, see `ramp`.
    sample_mask : (h, w) bool array
        Tokens the regression is fitted on; it is scored on all.
    standardise : bool
        Give every channel mean 0 and variance 1 over the chosen tokens first.
    alpha : float
        Strength of the ridge penalty; the intercept is not penalised.
    per_channel : bool
        Also fit and score every channel by itself.

    Returns
    -------
    ProbeResult

    Raises
    ------
    SettingsError
        If shapes do not agree, fewer than 2 tokens are chosen, or `alpha` is negative.

    Notes
    -----
    With fewer tokens than channels the fit is under-determined: on smooth features
    without any position R2 reaches 0.4 by chance, and a low R2 does not prove that
    there is none. See `transfer_probe`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> features = rng.normal(size=(12, 12, 3))
    >>> features[..., 1] = ramp("lr", (12, 12))[..., 0]
    >>> mask = rng.random((12, 12)) < 0.5
    >>> result = linear_probe(features, ramp("lr", (12, 12)), mask, per_channel=True)
    >>> result.r2 > 0.99, int(result.r2_per_channel.argmax())
    (True, 1)
    """
    x, y, mask = _checked(features, target, sample_mask, alpha)
    h, w, c = x.shape
    t = y.shape[-1]
    flat_x, flat_y = x.reshape(-1, c), y.reshape(-1, t)
    chosen = mask.reshape(-1)
    reader = fit_reader(flat_x[chosen], flat_y[chosen], alpha, standardise=standardise)
    prediction = reader.read(flat_x)
    r2 = float(r2_columns(flat_y, prediction).mean())
    alone = None
    if per_channel:
        x = reader.standardised(flat_x)
        own = r2_alone(x[chosen], flat_y[chosen], x, flat_y, alpha)
        alone = own.mean(axis=1)
    return ProbeResult(r2, prediction.reshape(h, w, t), alone)


def transfer_probe(
    maps: Sequence[npt.ArrayLike],
    *,
    target: str = "lr+ud",
    n_held_out: int | None = None,
    n_tokens: int = 38,
    alpha: float = 1.0,
    seed: int = 0,
) -> TransferResult:
    """Read position in some images, after learning it from others.

    Position bias follows the frame and so transfers; what an image shows does not.
    Without position R2 is below 0, with two planted position channels of 192 about
    0.87.

    Parameters
    ----------
    maps : sequence of (h, w, C) arrays
        Token features of crops of different content, all of one shape. At least 32
        are advised: 24 to fit, 8 to score.
    target : str
        In frame coordinates, see `ramp`.
    n_held_out : int, optional
        Images scored, the last ones. Default: a quarter.
    n_tokens : int
        Tokens drawn from every fitted image.
    alpha : float
        Strength of the ridge penalty.
    seed : int
        Of the tokens drawn.

    Returns
    -------
    TransferResult

    Raises
    ------
    SettingsError
        If there are too few maps or their shapes differ.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> maps = [rng.normal(size=(12, 12, 8)) for _ in range(32)]
    >>> transfer_probe(maps).r2 < 0.05
    True
    """
    x = stacked(maps)
    n, h, w, c = x.shape
    n_fit = split(n, n_held_out)
    y = ramp(target, (h, w), seed=seed).reshape(h * w, -1)
    flat = x.reshape(n, h * w, c)
    tokens = drawn_tokens(n_fit, h * w, n_tokens, seed)
    fit_x = np.concatenate([flat[i, chosen] for i, chosen in enumerate(tokens)])
    fit_y = np.concatenate([y[chosen] for chosen in tokens])
    reader = fit_reader(fit_x, fit_y, alpha)
    new_x = flat[n_fit:].reshape(-1, c)
    new_y = np.tile(y, (n - n_fit, 1))
    alone = r2_alone(
        reader.standardised(fit_x), fit_y, reader.standardised(new_x), new_y, alpha
    )
    return TransferResult(
        r2=float(r2_columns(new_y, reader.read(new_x)).mean()),
        r2_per_channel=alone.mean(axis=1),
        n_fit=n_fit,
        n_held_out=n - n_fit,
    )


def split(n: int, n_held_out: int | None) -> int:
    """Return how many of n maps a transfer probe fits; the others are scored."""
    held_out = max(1, n // 4) if n_held_out is None else n_held_out
    n_fit = n - held_out
    if n_fit < _MIN_FIT or held_out < _MIN_HELD_OUT:
        raise SettingsError(
            f"A transfer probe needs at least {_MIN_FIT} maps to fit and "
            f"{_MIN_HELD_OUT} to score, got {n} with `n_held_out` = {held_out}."
        )
    return n_fit


def drawn_tokens(
    n_maps: int, n: int, n_tokens: int, seed: int
) -> list[npt.NDArray[np.intp]]:
    """Return the tokens, of n, that each map is fitted on."""
    rng = np.random.default_rng(seed)
    k = min(n_tokens, n)
    return [rng.choice(n, k, replace=False) for _ in range(n_maps)]


def _checked(
    features: npt.ArrayLike,
    target: npt.ArrayLike,
    sample_mask: npt.ArrayLike,
    alpha: float,
) -> tuple[Float, Float, npt.NDArray[np.bool_]]:
    x = np.asarray(features, dtype=np.float64)
    y = np.asarray(target, dtype=np.float64)
    mask = np.asarray(sample_mask)
    if x.ndim != 3 or y.ndim != 3 or x.shape[:2] != y.shape[:2]:
        raise SettingsError(
            f"`features` must be (h, w, C) and `target` (h, w, t) on the same grid, "
            f"got {x.shape} and {y.shape}."
        )
    if mask.shape != x.shape[:2] or mask.dtype != bool:
        raise SettingsError(
            f"`sample_mask` must be a bool array of shape {x.shape[:2]}, got "
            f"{mask.dtype} of shape {mask.shape}."
        )
    if mask.sum() < 2:
        raise SettingsError(
            f"`sample_mask` must choose at least 2 tokens, got {int(mask.sum())}."
        )
    if not alpha >= 0:
        raise SettingsError(f"`alpha` must be 0 or more, got {alpha!r}.")
    return np.nan_to_num(x, nan=0.0, posinf=0.0, neginf=0.0), y, mask
