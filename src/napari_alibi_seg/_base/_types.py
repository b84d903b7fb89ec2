"""Values that pass between rooms, and the shape of a backbone.

Arrays are named with their axes: Y, X pixels; `rc` rows and columns of the token
grid; F features; K classes; N samples; B images of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = [
    "Backbone",
    "FloatArray",
    "IntArray",
    "PixelSize",
    "TileResult",
    "UInt8Array",
    "Window",
]

FloatArray: TypeAlias = npt.NDArray[np.float32]
IntArray: TypeAlias = npt.NDArray[np.integer[Any]]
UInt8Array: TypeAlias = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Window:
    """A half-open rectangle of pixels or tokens: rows y0 to y1, columns x0 to x1.

    Examples
    --------
    >>> Window(0, 4, 2, 8).shape
    (4, 6)
    >>> np.zeros((10, 10))[Window(0, 4, 2, 8).slices].shape
    (4, 6)
    """

    y0: int
    y1: int
    x0: int
    x1: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index that cuts the window out of a (Y, X, ...) array."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)


@dataclass(frozen=True, slots=True)
class PixelSize:
    """Physical side of a pixel, rows then columns, in `unit`.

    `z` is the distance of planes, None where it is not known or there are none.

    Examples
    --------
    >>> PixelSize(0.5, 0.5, "um")
    PixelSize(y=0.5, x=0.5, unit='um')
    >>> PixelSize(5, 5, "nm", z=20)
    PixelSize(y=5, x=5, unit='nm', z=20)
    """

    y: float
    x: float
    unit: str
    z: float | None = None

    def __repr__(self) -> str:
        z = "" if self.z is None else f", z={self.z!r}"
        return f"PixelSize(y={self.y!r}, x={self.x!r}, unit={self.unit!r}{z})"


@dataclass(frozen=True, slots=True)
class TileResult:
    """One finished piece of a segmentation.

    Attributes
    ----------
    index, total : int
        Position in the run and number of tiles of the run.
    window : Window
        Pixels of the image that this tile holds.
    labels_yx : (h, w) array of unsigned int
        Class ids as painted.
    proba_kyx : (K, h, w) float32
        Probability of each class, by ascending id.
    uncertainty_yx : (h, w) float32
        Entropy of the probabilities over its maximum, 0 to 1.
    """

    index: int
    total: int
    window: Window
    labels_yx: npt.NDArray[np.unsignedinteger[Any]]
    proba_kyx: FloatArray
    uncertainty_yx: FloatArray


class Backbone(Protocol):
    """What the rest of the package needs of a ViT backbone.

    `patch_features` maps (B, 3, H, W) normalised float images to (B, C, H/p, W/p)
    float32 tensors on `device`; `identity` is the JSON description that a store and
    a classifier pin (name, weights hash, ALiBi settings, denoiser).
    """

    name: str
    patch_size: int
    embed_dim: int
    alibi: Any
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    device: Any

    def patch_features(self, images: Any) -> Any:
        """Return the final-normed patch tokens of `images`."""

    @property
    def identity(self) -> dict[str, Any]:
        """JSON description of weights and settings."""
