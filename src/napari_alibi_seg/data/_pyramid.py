"""Coarser copies of a plane: how many, how large, and what a coarse pixel is.

Every level halves the one before it until the image fits one output tile. Maps are
averaged. Labels keep their ids: of four pixels the most frequent id wins, and of equal
counts the one met first in reading order. Where the levels are stored is left to
others.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_alibi_seg._base import Window
from napari_alibi_seg.data._tiling import PIXEL_TILE_PX

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["halve_labels", "halve_map", "level_shapes", "window_above"]


def level_shapes(
    shape: tuple[int, int], tile_px: int = PIXEL_TILE_PX
) -> list[tuple[int, int]]:
    """Return the shape of every level until one tile holds it, full resolution first.

    Examples
    --------
    >>> level_shapes((1500, 700)), level_shapes((512, 512))
    ([(1500, 700), (750, 350), (375, 175)], [(512, 512)])
    """
    shapes = [shape]
    while max(shapes[-1]) > tile_px:
        y, x = shapes[-1]
        shapes.append((math.ceil(y / 2), math.ceil(x / 2)))
    return shapes


def window_above(window: Window, shape: tuple[int, int]) -> Window:
    """Return the pixels of the finer level, of `shape`, that a window is made of.

    Examples
    --------
    >>> window_above(Window(0, 3, 2, 4), (5, 8))
    Window(y0=0, y1=5, x0=4, x1=8)
    """
    return Window(
        2 * window.y0,
        min(2 * window.y1, shape[0]),
        2 * window.x0,
        min(2 * window.x1, shape[1]),
    )


def halve_labels(labels_yx: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return (ceil(Y / 2), ceil(X / 2)) ids: the most frequent of every four.

    Examples
    --------
    >>> halve_labels(np.array([[1, 2, 7], [2, 3, 7], [5, 6, 9]]))
    array([[2, 7],
           [5, 9]])
    """
    a, b, c, d = _quarters(labels_yx)
    # `a` wins with any second vote, and where all four differ
    is_alone = (a != b) & (a != c) & (a != d)
    out = np.where(is_alone & (c == d), c, a)
    return np.where(is_alone & ((b == c) | (b == d)), b, out)


def halve_map(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the (..., ceil(Y / 2), ceil(X / 2)) means of the pixels there are.

    Examples
    --------
    >>> halve_map(np.array([[0, 1, 4], [2, 3, 8]], np.float32))
    array([[1.5, 6. ]], dtype=float32)
    """
    a, b, c, d = _quarters(values)
    return ((a + b) + (c + d)) * values.dtype.type(0.25)


def _quarters(pixels: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], ...]:
    """Return the four pixels of each square; the last row or column is doubled."""
    height, width = pixels.shape[-2:]
    if height % 2 or width % 2:
        # a doubled edge changes neither a mean nor which id comes first among the most
        edges = [(0, 0)] * (pixels.ndim - 2) + [(0, height % 2), (0, width % 2)]
        pixels = np.pad(pixels, edges, mode="edge")
    return (
        pixels[..., 0::2, 0::2],
        pixels[..., 0::2, 1::2],
        pixels[..., 1::2, 0::2],
        pixels[..., 1::2, 1::2],
    )
