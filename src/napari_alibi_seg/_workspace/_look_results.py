"""What a look at the features of an image gives: samples, and where they lie on it."""

from __future__ import annotations

from dataclasses import dataclass

from napari_alibi_seg._base import FloatArray, UInt8Array

__all__ = ["ClusterLook", "Look"]


@dataclass(frozen=True, eq=False, slots=True)
class Look:
    """A picture of the features of a whole image.

    Attributes
    ----------
    values : (h, w, 3) uint8, (h, w) uint8 or (h, w) float32
        Colours, brightness, or cosines.
    step : int
        Pixels per sample: sample (i, j) stands for the block of `step` pixels a side
        from ``(i * step, j * step)`` on.
    """

    values: UInt8Array | FloatArray
    step: int

    @property
    def offset(self) -> float:
        """Row and column, in pixels, of the middle of the first block."""
        return (self.step - 1) / 2


@dataclass(frozen=True, eq=False, slots=True)
class ClusterLook:
    """Clusters of the features of a whole image.

    Attributes
    ----------
    labels_yx : (h, w) uint8
        0 to K - 1, ordered along the first component.
    step : int
        Pixels per sample, as for `Look`.
    colours : (K, 3) float32
        What the components make of each cluster, 0 to 1.
    shares : (K,) float32
        Of the area of this image; 0 for a cluster that only other images have.
    """

    labels_yx: UInt8Array
    step: int
    colours: FloatArray
    shares: FloatArray

    @property
    def offset(self) -> float:
        """Row and column, in pixels, of the middle of the first block."""
        return (self.step - 1) / 2
