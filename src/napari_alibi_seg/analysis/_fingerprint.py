"""Where in a backbone position sits: every channel of every layer by itself.

All channels are regressed at once, by sums. Which layers there are and how their
features are computed is left to the backbones.

References
----------
Pawlowsky et al. (2026), "What DINO saw", arXiv:2603.16840, figure 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import SettingsError
from napari_alibi_seg.analysis._probe import transfer_probe
from napari_alibi_seg.analysis._ramps import ramp
from napari_alibi_seg.analysis._regression import Float, r2_alone, scaling, stacked
from napari_alibi_seg.analysis._tokens import whole

__all__ = ["Fingerprint", "fingerprint"]

_MIN_TRANSFER = 3
# White in the published figure.
_FULL_R2 = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Fingerprint:
    """How well each channel of each layer tells place.

    Attributes
    ----------
    r2 : (L, C) float64
        Within an image, mean over images. Smooth content gives more than 0 too.
    transfer_r2 : (L, C) float64 or None
        In images that were not fitted: of position alone. None with fewer than 3.
    target : str
        See `ramp`.
    n_images : int
        Of each layer.
    """

    r2: Float
    transfer_r2: Float | None
    target: str
    n_images: int

    def picture(self, *, is_sorted: bool = False) -> npt.NDArray[np.float32]:
        """Return R2 as brightness, (L, C) float32: 0 to 1 for 0 to 0.5, as published.

        Sorted by what the last layer's channels tell, the most positional first, if
        asked for.
        """
        shown = np.clip(self.r2 / _FULL_R2, 0, 1).astype(np.float32)
        order = np.argsort(-self.r2[-1], kind="stable")
        return shown[:, order] if is_sorted else shown


def fingerprint(
    layers: Iterable[Sequence[npt.ArrayLike]],
    *,
    target: str = "lr",
    n_tokens: int = 38,
    alpha: float = 1.0,
    seed: int = 0,
) -> Fingerprint:
    """Measure the position in every channel of every layer.

    Parameters
    ----------
    layers : iterable of sequence of (h, w, C) arrays
        For each layer the features of the same images; a generator is taken a layer
        at a time. See `ViTBackbone.layer_features`.
    target : str
        See `ramp`.
    n_tokens : int
        Drawn in each image to fit on.
    alpha : float
        Strength of the ridge penalty.
    seed : int
        Of the tokens; the same for all layers.

    Returns
    -------
    Fingerprint

    Raises
    ------
    SettingsError
        If there is no layer, or layers differ in images or channels.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> layers = [[rng.normal(size=(9, 9, 4)) for _ in range(4)] for _ in range(2)]
    >>> for image in layers[1]:
    ...     image[..., 2] += 10 * ramp("lr", (9, 9))[..., 0]
    >>> found = fingerprint(layers, n_tokens=20)
    >>> found.r2.shape, found.r2[1].argmax(), bool(found.r2[0].max() < 0.2)
    ((2, 4), np.int64(2), True)
    """
    whole(n_tokens, "n_tokens", 2, None)
    own: list[Float] = []
    others: list[Float] = []
    n_images = 0
    for maps in layers:
        if own and (len(maps) != n_images or np.shape(maps[0])[-1] != len(own[0])):
            raise SettingsError(
                f"Every layer must hold {n_images} images of {len(own[0])} channels, "
                f"as the first, got {len(maps)} images, the first of shape "
                f"{np.shape(maps[0]) if len(maps) else None}."
            )
        n_images = len(maps)
        own.append(_layer(maps, target, n_tokens, alpha, seed))
        if n_images >= _MIN_TRANSFER:
            probe = transfer_probe(
                maps, target=target, n_tokens=n_tokens, alpha=alpha, seed=seed
            )
            others.append(probe.r2_per_channel)
    if not own:
        raise SettingsError("Expected the features of at least one layer, got none.")
    transfer = np.stack(others) if others else None
    return Fingerprint(np.stack(own), transfer, target, n_images)


def _layer(
    maps: Sequence[npt.ArrayLike], target: str, n_tokens: int, alpha: float, seed: int
) -> Float:
    """Return the R2 of every channel within images, mean over images, (C,)."""
    x = stacked(maps)
    n, h, w, c = x.shape
    y = ramp(target, (h, w), seed=seed).reshape(h * w, -1)
    rng = np.random.default_rng(seed)
    total = np.zeros(c)
    for tokens in x.reshape(n, h * w, c):
        chosen = rng.choice(h * w, min(n_tokens, h * w), replace=False)
        mean, scale = scaling(tokens[chosen], standardise=True)
        seen = (tokens - mean) / scale
        total += r2_alone(seen[chosen], y[chosen], seen, y, alpha).mean(axis=1)
    return total / n
