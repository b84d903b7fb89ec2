"""What a probe reads where there is nothing to read: noise as smooth as the features.

A regression with more channels than tokens reads something from any features, and the
more the smoother they are. Only this module knows how smooth features are, and makes
Gaussian noise of the same smoothness; what is read from it is left to the probes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import FloatArray
from napari_alibi_seg.analysis._probe import linear_probe
from napari_alibi_seg.analysis._ramps import ramp
from napari_alibi_seg.analysis._regression import Float, stacked
from napari_alibi_seg.analysis._tokens import whole

__all__ = ["Floor", "Smoothness", "measure_smoothness", "noise_floor"]

# A mean over so few maps still holds much of what each of them shows.
_MIN_MAPS_FOR_FRAME = 4
# More do not change an average over channels and maps.
_MAX_CHANNELS, _MAX_MAPS = 64, 12


@dataclass(frozen=True, slots=True)
class Floor:
    """What was read from features that hold no position.

    Attributes
    ----------
    mean, sd : float
        Over draws.
    """

    mean: float
    sd: float

    @classmethod
    def of(cls, values: npt.ArrayLike) -> Floor:
        """Return mean and standard deviation of draws."""
        drawn = np.asarray(values, dtype=np.float64)
        return cls(float(drawn.mean()), float(drawn.std()))


@dataclass(frozen=True, slots=True)
class Smoothness:
    """How alike tokens are by their distance.

    Tokens r rows and c columns apart correlate by
    ``(1 - nugget) * exp(-hypot(r / rows, c / cols) ** power)``.

    Attributes
    ----------
    rows, cols : float
        Tokens over which the correlation falls by the factor e.
    power : float
        1 is a rough field, 2 a smooth one.
    nugget : float
        Share of the variance that no neighbour knows of; 1 is white noise.

    Examples
    --------
    >>> smooth = Smoothness(rows=4.0, cols=4.0, power=2.0, nugget=0.0)
    >>> noise = smooth.draw((16, 16), 5, np.random.default_rng(0))
    >>> noise.shape, float(np.abs(np.diff(noise, axis=0)).mean()) < 0.5
    ((16, 16, 5), True)
    """

    rows: float
    cols: float
    power: float
    nugget: float

    def correlation(
        self, rows: npt.NDArray[Any], cols: npt.NDArray[Any]
    ) -> npt.NDArray[np.float64]:
        """Return the correlation of tokens so many rows and columns apart."""
        away = np.hypot(rows / self.rows, cols / self.cols)
        alike = (1 - self.nugget) * np.exp(-(away**self.power))
        return np.where(away == 0, 1.0, alike)

    def draw(
        self, shape: tuple[int, int], n_channels: int, rng: np.random.Generator
    ) -> FloatArray:
        """Return noise of this smoothness and unit variance, (h, w, n) float32."""
        h, w = shape
        # a torus of twice the size: its opposite edges are neighbours, ours are not
        rows, cols = (np.abs(np.fft.fftfreq(2 * n)) * 2 * n for n in shape)
        power = np.fft.rfft2(self.correlation(rows[:, None], cols)).real
        # on a torus a slow decay need not belong to any field; the nearest one does
        gain = np.sqrt(np.maximum(power, 0))[..., None].astype(np.float32)
        white = rng.standard_normal((2 * h, 2 * w, n_channels), dtype=np.float32)
        waves = np.fft.rfft2(white, axes=(0, 1))
        field = np.fft.irfft2(waves * gain, s=(2 * h, 2 * w), axes=(0, 1))[:h, :w]
        out: FloatArray = (field / field.std()).astype(np.float32)
        return out


def measure_smoothness(maps: Sequence[npt.ArrayLike]) -> Smoothness:
    """Measure how alike tokens are by their distance.

    Half the mean squared difference of tokens is measured at every distance up to half
    the grid, mean over channels, and the form of `Smoothness` fitted to it. With 4
    maps or more, what they have in common at each place is taken off first, so that
    position bias does not count as smoothness; with fewer it does, and floors come out
    too high rather than too low.

    Parameters
    ----------
    maps : sequence of (h, w, C) arrays
        Token features of images, all of one shape.

    Returns
    -------
    Smoothness

    Raises
    ------
    SettingsError
        If there is no map or their shapes differ.

    Examples
    --------
    >>> white = np.random.default_rng(0).normal(size=(16, 16, 32))
    >>> measure_smoothness([white]).nugget > 0.9
    True
    >>> measure_smoothness([np.repeat(white, 3, axis=1)]).cols > 1
    True
    """
    x = stacked([np.asarray(m)[..., :: _step(m)] for m in maps[:_MAX_MAPS]])
    if len(x) >= _MIN_MAPS_FOR_FRAME:
        x = x - x.mean(axis=0)
    x = x / np.maximum(x.std(axis=(1, 2)).mean(axis=0), np.finfo(np.float64).tiny)
    _, h, w, _ = x.shape
    along = [(r, 0) for r in range(1, h // 2 + 1)]
    lags = along + [(0, c) for c in range(1, w // 2 + 1)]
    found = np.array([_half_square(x, *lag) for lag in lags])
    if not lags or not found.any():  # nothing varies, or one token
        return Smoothness(1.0, 1.0, 1.0, 1.0)
    return _fitted(np.array(lags, np.float64), found, (h, w))


def _step(tokens: npt.ArrayLike) -> int:
    """Return the step through the channels of a map that takes few enough."""
    return max(1, np.shape(tokens)[-1] // _MAX_CHANNELS) if np.ndim(tokens) == 3 else 1


def _half_square(x: Float, r: int, c: int) -> float:
    """Return half the mean squared difference of tokens r rows and c columns apart."""
    h, w = x.shape[1:3]
    return float(((x[:, r:, c:] - x[:, : h - r, : w - c]) ** 2).mean() / 2)


def _fitted(lags: Float, found: Float, shape: tuple[int, int]) -> Smoothness:
    from scipy.optimize import least_squares

    def expected(values: Float) -> Float:
        sill, *form = values
        one = Smoothness(*form)
        return np.asarray(sill * (1 - one.correlation(lags[:, 0], lags[:, 1])))

    # neighbours say most about how smooth a field is, and are known best
    weight = 1 / ((found + 0.02 * found.max()) * np.sqrt(lags.sum(axis=1)))
    h, w = shape
    start = [found.max(), 2.0, 2.0, 1.5, 0.1]
    low = [0.0, 0.2, 0.2, 0.3, 0.0]
    high = [50 * found.max(), 4.0 * h, 4.0 * w, 2.0, 1.0]
    fit = least_squares(
        lambda v: (expected(v) - found) * weight, start, bounds=(low, high)
    )
    return Smoothness(*(float(v) for v in fit.x[1:]))


def noise_floor(
    shape: tuple[int, int],
    n_channels: int,
    *,
    n_tokens: int = 38,
    target: str = "lr+ud",
    smoothness: Smoothness | None = None,
    n_draws: int = 12,
    alpha: float = 1.0,
    seed: int = 0,
) -> Floor:
    """Return what the single-image probe reads from noise.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns of tokens.
    n_channels : int
        Of the features.
    n_tokens : int
        Drawn at random, to fit on; at least 2.
    target : str
        See `ramp`.
    smoothness : Smoothness, optional
        Of the features. Default: tokens that know nothing of each other.
    n_draws, seed : int
        Repetitions, each with its own noise and tokens.
    alpha : float
        Strength of the ridge penalty.

    Returns
    -------
    Floor

    Raises
    ------
    SettingsError
        If a number is out of its range.

    Examples
    --------
    >>> floor = noise_floor((37, 37), 384)
    >>> -0.19 < floor.mean < -0.03
    True
    """
    whole(n_channels, "n_channels", 1, None)
    whole(n_draws, "n_draws", 1, None)
    whole(n_tokens, "n_tokens", 2, shape[0] * shape[1])
    y = ramp(target, shape, seed=seed)
    found = []
    for draw in range(n_draws):
        rng = np.random.default_rng([seed, draw])
        x: npt.NDArray[Any]
        if smoothness is None:
            x = rng.standard_normal((*shape, n_channels))
        else:
            x = smoothness.draw(shape, n_channels, rng)
        mask = np.zeros(shape, bool)
        mask.flat[rng.choice(mask.size, n_tokens, replace=False)] = True
        found.append(linear_probe(x, y, mask, alpha=alpha).r2)
    return Floor.of(found)
