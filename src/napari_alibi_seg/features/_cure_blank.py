"""The cure that sets channels to 0, and which channels those are.

Only this module knows when a channel follows position. Channels that are given are
taken as they are; those of backbones that were measured stand in the registry; others
are found on synthetic micrographs.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_alibi_seg._base import Backbone, SettingsError
from napari_alibi_seg.data import synthesize
from napari_alibi_seg.features._registry import list_backbones

__all__ = ["Blank", "chosen_channels", "positional_channels"]

_logger = logging.getLogger(__name__)

# A channel above this share of variance explained by place counts as positional; of
# those the first are blanked, as too many would take the content with them.
_POSITIONAL_R2 = 0.25
_MOST_BLANKED = 1 / 8
_PROBE_IMAGES, _PROBE_TOKENS = 24, 24
_PROBE_KINDS = ("spinodal", "grains", "precipitates")


class Blank:
    """Channels that are set to 0."""

    def __init__(self, channels: tuple[int, ...], embed_dim: int) -> None:
        outside = [i for i in channels if not 0 <= i < embed_dim]
        if outside or not channels:
            raise SettingsError(
                f"`+blank` takes channels from 0 to {embed_dim - 1}, got "
                f"{outside or 'none'}."
            )
        self._channels = [*channels]
        self.record = {"kind": "blank", "channels": self._channels}

    def __call__(self, inner: Backbone, images: Tensor) -> Tensor:
        features: Tensor = inner.patch_features(images).clone()
        features[:, self._channels] = 0
        return features


def chosen_channels(given: tuple[int, ...] | None, backbone: Any) -> tuple[int, ...]:
    """Return the channels given, those known of the backbone, or those found."""
    if given is not None:
        return given
    rows = {row.name: row for row in list_backbones()}
    name = backbone.identity.get("cures", {}).get("base", backbone.name)
    if name in rows and rows[name].positional:
        return rows[name].positional
    r2 = _channel_r2(_probe_maps(backbone))
    found = _strongest(r2, _POSITIONAL_R2, _MOST_BLANKED)
    if not found:
        raise SettingsError(
            f"`+blank` finds nothing to blank in {backbone.name!r}: no channel follows "
            f"position (highest R2 {r2.max():.3f}, needed {_POSITIONAL_R2}). Leave it "
            "out, or give channels: +blank=N,N."
        )
    _logger.info("Positional channels of %s: %s", backbone.name, found)
    return found


def _probe_maps(backbone: Any) -> list[npt.NDArray[np.float32]]:
    """Return the features of synthetic micrographs of different content."""
    side = _PROBE_TOKENS * backbone.patch_size
    mean, std = (
        torch.tensor(v).reshape(1, 3, 1, 1) for v in (backbone.mean, backbone.std)
    )
    maps = []
    for seed in range(_PROBE_IMAGES):
        kind: Any = _PROBE_KINDS[seed % len(_PROBE_KINDS)]
        image = synthesize(kind, (side, side), seed=seed).image.astype(np.float32)
        grey = (image - image.min()) / max(float(np.ptp(image)), 1e-6)
        batch = torch.from_numpy(grey).expand(1, 3, side, side)
        tokens = backbone.patch_features((batch - mean) / std)[0]
        maps.append(tokens.permute(1, 2, 0).float().cpu().numpy())
    return maps


def positional_channels(
    maps: Sequence[npt.ArrayLike],
    *,
    above: float = _POSITIONAL_R2,
    at_most: float = _MOST_BLANKED,
) -> tuple[int, ...]:
    """Return the channels that follow position in images of different content.

    Parameters
    ----------
    maps : sequence of (h, w, C) arrays
        Features of tiles or crops, all of one shape; at least 8, better 24, or what
        they show by chance counts as position.
    above : float
        Share of a channel's variance, over all maps together, that one straight line
        along columns, rows or the distance from the middle explains.
    at_most : float
        Share of the channels that is returned, the most positional ones.

    Returns
    -------
    tuple of int
        Ascending; what ``+blank=`` takes.

    Raises
    ------
    SettingsError
        If there are fewer than 8 maps, or their shapes differ.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> maps = [rng.normal(size=(12, 12, 8)) for _ in range(8)]
    >>> for one in maps:
    ...     one[..., 2] += 5 * np.linspace(0, 1, 12)
    >>> positional_channels(maps)
    (2,)
    """
    return _strongest(_channel_r2(maps), above, at_most)


def _strongest(
    r2: npt.NDArray[np.float64], above: float, at_most: float
) -> tuple[int, ...]:
    n = min(int((r2 > above).sum()), max(1, round(at_most * len(r2))))
    return tuple(sorted(int(i) for i in np.argsort(-r2, kind="stable")[:n]))


def _channel_r2(maps: Sequence[npt.ArrayLike]) -> npt.NDArray[np.float64]:
    """Return for every channel the highest squared correlation with a ramp."""
    arrays = [np.asarray(m, np.float64) for m in maps]
    shapes = {a.shape for a in arrays}
    if len(arrays) < 8 or len(shapes) != 1 or arrays[0].ndim != 3:
        raise SettingsError(
            "`maps` must be at least 8 (h, w, C) arrays of one shape, got "
            f"{len(arrays)} of {sorted(shapes)}."
        )
    stack = np.stack(arrays)  # (n, h, w, C)
    _, h, w, c = stack.shape
    y, x = np.meshgrid(np.linspace(-1, 1, h), np.linspace(-1, 1, w), indexing="ij")
    ramps = np.stack([x, y, np.hypot(x, y)], axis=-1).reshape(-1, 3)  # (hw, 3)
    ramps = (ramps - ramps.mean(0)) / ramps.std(0)
    flat = stack.reshape(-1, c)
    # of a ramp that is the same in every map, only the mean map matters
    covariance = stack.mean(0).reshape(-1, c).T @ ramps / (h * w)  # (C, 3)
    variance = flat.var(0)
    # of a constant channel rounding alone is left, which follows nothing
    is_constant = variance <= (1e-9 * np.abs(flat).max(0)) ** 2
    variance[is_constant] = np.inf
    return (covariance**2 / variance[:, None]).max(axis=1)
