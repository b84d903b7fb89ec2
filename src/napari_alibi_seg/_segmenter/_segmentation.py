"""A whole image segmented, in memory, and how it is put together from tiles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import FloatArray, PixelSize, TileResult

__all__ = ["Segmentation", "assembled"]


@dataclass(frozen=True)
class Segmentation:
    """A segmented image.

    Attributes
    ----------
    labels : (Y, X) array of unsigned int
        Class ids as painted.
    probabilities : (K, Y, X) float32
        By ascending class id.
    uncertainty : (Y, X) float32
        Normalised entropy, 0 to 1.
    class_ids : tuple of int
        Ascending.
    pixel_size : PixelSize or None
        Of the image.
    """

    labels: npt.NDArray[np.unsignedinteger[Any]]
    probabilities: FloatArray
    uncertainty: FloatArray
    class_ids: tuple[int, ...]
    pixel_size: PixelSize | None

    def fractions(self) -> dict[int, float]:
        """Return the area fraction of every id that occurs or was trained."""
        ids, counts = np.unique(self.labels, return_counts=True)
        found = dict(zip(ids.tolist(), counts.tolist(), strict=True))
        keys = sorted({*self.class_ids, *found})
        return {i: found.get(i, 0) / self.labels.size for i in keys}


def assembled(
    tiles: Iterable[TileResult],
    shape: tuple[int, int],
    class_ids: Sequence[int],
    pixel_size: PixelSize | None,
) -> Segmentation:
    """Return the segmentation of an image from tiles that cover all of it."""
    labels: npt.NDArray[Any] | None = None
    proba = np.empty((len(class_ids), *shape), np.float32)
    uncertainty = np.empty(shape, np.float32)
    for tile in tiles:
        if labels is None:
            labels = np.empty(shape, tile.labels_yx.dtype)
        at = tile.window.slices
        labels[at] = tile.labels_yx
        proba[(slice(None), *at)] = tile.proba_kyx
        uncertainty[at] = tile.uncertainty_yx
    assert labels is not None
    return Segmentation(labels, proba, uncertainty, tuple(class_ids), pixel_size)
