"""One image of the dock: its pixels, its project, its features, what is left out.

An `OpenImage` is one plane of one layer. What is slow about it (hash, project, tokens)
is done by `Session`, in a worker. Only this module decides which images are large.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from napari_alibi_seg._base import PixelSize, Window
from napari_alibi_seg._segmenter import Embedding
from napari_alibi_seg._workspace._blocks import ScribbleBlocks
from napari_alibi_seg._workspace._places import ImageIdentity
from napari_alibi_seg._workspace._planes import Plane
from napari_alibi_seg._workspace._project import Project
from napari_alibi_seg._workspace._state import ExcludedArea
from napari_alibi_seg.data import Annotations, ImageSource

__all__ = ["Mask", "OpenImage", "excluded_mask", "is_large"]

Mask = npt.NDArray[np.bool_]

# Longer sides do not fit a texture of OpenGL: napari would shrink what it shows.
_MAX_SIDE = 16_384
# A dock holds several layers of an image's size, and sends them to the screen.
_MAX_PIXELS = 64_000_000


def is_large(shape: tuple[int, ...]) -> bool:
    """Return whether an image, (Y, X), is shown and segmented in parts only.

    Examples
    --------
    >>> is_large((8_000, 8_000)), is_large((8_001, 8_000)), is_large((10, 20_000))
    (False, True, True)
    """
    height, width = shape
    return max(height, width) > _MAX_SIDE or height * width > _MAX_PIXELS


@dataclass(eq=False)
class OpenImage:
    """One plane of one image layer.

    Attributes
    ----------
    key : hashable
        The dock's name for it: layer and plane.
    source : ImageSource
        Its pixels.
    name : str
        For people.
    plane : int, tuple of int or None
        Of a stack, as `Project` counts planes.
    identity : ImageIdentity or None
        Known after it was opened.
    project : Project or None
        Where scribbles are kept; None until something is painted.
    embedding : Embedding or None
        Its features, perhaps incomplete.
    excluded : tuple of ExcludedArea
        Parts left out.
    first : ImageSource or None
        The first plane of the stack, by which it is known; None for single pictures.
    pending : (Y, X) array of int, ScribbleBlocks or None
        What was painted before there was a project to keep it in.
    is_dropped : bool
        Whether nobody works on it any more.
    layer : hashable
        The dock's name for its layer, the same for all its planes.
    typed_size : PixelSize or None
        As the user typed it; None if it is the file's or unknown.
    """

    key: Hashable
    source: ImageSource
    name: str
    plane: Plane = None
    identity: ImageIdentity | None = None
    project: Project | None = None
    embedding: Embedding | None = None
    excluded: tuple[ExcludedArea, ...] = ()
    first: ImageSource | None = None
    pending: npt.NDArray[Any] | ScribbleBlocks | None = None
    is_dropped: bool = False
    layer: Hashable = None
    typed_size: PixelSize | None = None
    _mask: tuple[Any, Mask | None] | None = field(default=None, repr=False)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.source.shape

    def is_same(self, other: OpenImage) -> bool:
        """Return whether two are of one image, perhaps of two planes or layers of it.

        Names do not count: a layer is renamed, or opened twice under two names.
        """
        a, b = self.identity, other.identity
        if a is None or b is None:
            return False
        return (a.path, a.shape, a.content_hash) == (b.path, b.shape, b.content_hash)

    @property
    def is_extracted(self) -> bool:
        """Whether all features that are worth keeping are there."""
        e = self.embedding
        return e is not None and (e.store is None or not e.store.missing())

    @property
    def painted(self) -> dict[int, int]:
        """Painted pixels by class id."""
        return {} if self.project is None else self.project.painted(self.plane)

    def take_size(self, typed: PixelSize | None) -> None:
        """Take over a pixel size that was typed earlier, unless the file has its own.

        Examples
        --------
        >>> from napari_alibi_seg.data import open_image
        >>> image = OpenImage(1, open_image(np.zeros((4, 5), np.uint8)), "steel")
        >>> image.take_size(PixelSize(0.5, 0.5, "um"))
        >>> image.source.pixel_size
        PixelSize(y=0.5, x=0.5, unit='um')
        """
        has_own = self.source.path is not None and self.source.pixel_size is not None
        if typed is not None and (self.typed_size is not None or not has_own):
            self.typed_size = typed
            self.source = replace(self.source, pixel_size=typed)

    @property
    def is_large(self) -> bool:
        """Whether it is shown and segmented in parts; see `is_large`."""
        return is_large(self.shape)

    def strokes(self) -> Annotations:
        """Return what to learn from: strokes where nothing is left out."""
        if self.project is None:
            return ScribbleBlocks(self.shape).annotations()
        found = self.project.scribbles(self.plane).annotations()
        if not self.excluded:
            return found
        kept = ~self._left_out_at(found.rows, found.cols)
        return Annotations(found.rows[kept], found.cols[kept], found.ids[kept])

    def mask(self) -> Mask | None:
        """Return where pixels are left out, (Y, X), or None if none are.

        Not to be asked of a large image: it is as large.
        """
        if self._mask is None or self._mask[0] is not self.excluded:
            self._mask = (self.excluded, excluded_mask(self.excluded, self.shape))
        return self._mask[1]

    def left_out(self, window: Window, step: int = 1) -> Mask | None:
        """Return the mask of the samples of a window, or None if none is left out.

        Sample (i, j) of a window stands for the pixel in the middle of its block.
        """
        if not self.excluded:
            return None
        rows, cols = (
            np.minimum(np.arange(a, b, step) + step // 2, n - 1)
            for a, b, n in (
                (window.y0, window.y1, self.shape[0]),
                (window.x0, window.x1, self.shape[1]),
            )
        )
        found = self._left_out_at(rows[:, None], cols[None])
        return found if found.any() else None

    def _left_out_at(self, rows: Any, cols: Any) -> Mask:
        if self.is_large:
            return _inside(self.excluded, rows, cols)
        mask = self.mask()
        if mask is None:
            return np.zeros(np.broadcast_shapes(rows.shape, cols.shape), bool)
        return mask[rows, cols]


def excluded_mask(areas: Sequence[ExcludedArea], shape: tuple[int, int]) -> Mask | None:
    """Return the union of areas as a (Y, X) mask, None if it is empty.

    Examples
    --------
    >>> area = ExcludedArea(kind="box", corners=((2, 0), (2, 3), (4, 3), (4, 0)))
    >>> excluded_mask([area], (4, 3)).astype(int).tolist()
    [[0, 0, 0], [0, 0, 0], [1, 1, 1], [1, 1, 1]]
    """
    if not areas:
        return None
    picture = Image.new("1", (shape[1], shape[0]))
    pen = ImageDraw.Draw(picture)
    out = np.zeros(shape, bool)
    for area in areas:
        if area.kind == "box":
            y, x = np.array(area.corners).T
            # a pixel is left out if its centre lies inside
            rows = slice(_first(y.min()), _first(y.max()))
            cols = slice(_first(x.min()), _first(x.max()))
            out[rows, cols] = True
        else:
            pen.polygon([(x, y) for y, x in area.corners], fill=1)
    out |= np.asarray(picture, bool)
    return out if out.any() else None


def _first(edge: float) -> int:
    """Return the first pixel whose centre lies beyond an edge between pixels."""
    return max(0, int(np.ceil(edge - 1e-9)))


def _inside(areas: Sequence[ExcludedArea], rows: Any, cols: Any) -> Mask:
    """Return which pixels have their centre in an area, for rows and columns of them.

    Examples
    --------
    >>> area = ExcludedArea(kind="polygon", corners=((0, 0), (0, 4), (4, 0)))
    >>> _inside([area], np.array([[1], [3]]), np.array([[1, 2, 3]])).astype(
    ...     int
    ... ).tolist()
    [[1, 1, 0], [0, 0, 0]]
    """
    out = np.zeros(np.broadcast_shapes(rows.shape, cols.shape), bool)
    for area in areas:
        inside = np.zeros_like(out)
        corners = np.array(area.corners, float)
        # pixel centres have whole coordinates; a ray crosses the outline an odd number
        # of times if it begins inside
        for (y0, x0), (y1, x1) in zip(corners, np.roll(corners, -1, 0), strict=True):
            if y0 != y1:
                spans = (rows >= min(y0, y1)) & (rows < max(y0, y1))
                inside ^= spans & (cols < x0 + (rows - y0) * ((x1 - x0) / (y1 - y0)))
        out |= inside
    return out
