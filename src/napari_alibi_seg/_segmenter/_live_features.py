"""Which features a live segmentation lacks, and computing no others.

Of an image larger than memory only what is painted and seen is extracted. Only this
module knows which tiles of tokens some pixels need.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np

from napari_alibi_seg._base import Window
from napari_alibi_seg._segmenter._embedding import Embedding
from napari_alibi_seg._segmenter._events import Beat
from napari_alibi_seg._segmenter._segmenter import Segmenter
from napari_alibi_seg._segmenter._tokens import cells_around, overlap
from napari_alibi_seg.data import Annotations

__all__ = [
    "as_generator",
    "iter_completed",
    "iter_filled",
    "painted_tiles",
    "token_tiles",
]

# Painted pixels are gathered in squares to find what they need, as there are many.
_STROKE_PX = 64


def iter_completed(
    segmenter: Segmenter, embedding: Embedding, only: set[int] | None = None
) -> Iterator[Beat]:
    """Extract the tiles that are missing; with `only`, of these."""
    if embedding.store is None:
        return
    missing = set(embedding.store.missing())
    if only is not None:
        missing &= only
    if not missing:
        return
    wanted = None if only is None else sorted(missing)
    run = as_generator(segmenter.iter_complete(embedding, only=wanted))
    with closing(run) as tiles:
        for done, _ in enumerate(tiles, 1):
            yield Beat("features", done, len(missing))


def token_tiles(embedding: Embedding, pixels: Window) -> set[int]:
    """Return the tiles of tokens that some pixels need."""
    grid, cells = embedding.grid, cells_around(embedding.grid, pixels)
    d = grid.density
    return {
        t.index
        for t in grid.tiles
        if overlap(
            Window(t.keep.y0 * d, t.keep.y1 * d, t.keep.x0 * d, t.keep.x1 * d), cells
        )
    }


def painted_tiles(embedding: Embedding, strokes: Annotations) -> set[int]:
    """Return the tiles of tokens that painted pixels need."""
    at = np.stack([strokes.rows // _STROKE_PX, strokes.cols // _STROKE_PX], axis=1)
    tiles: set[int] = set()
    height, width = embedding.shape
    for row, col in np.unique(at, axis=0).tolist():
        y, x = row * _STROKE_PX, col * _STROKE_PX
        block = Window(y, min(y + _STROKE_PX, height), x, min(x + _STROKE_PX, width))
        tiles |= token_tiles(embedding, block)
    return tiles


def as_generator(items: Iterator[Any]) -> Any:
    """Return `items`, a generator that is typed as an iterator."""
    return items


def iter_filled(embedding: Embedding, window: Window | None) -> Iterator[Beat]:
    with closing(embedding.iter_classical_cells(window)) as tiles:
        for done, total in tiles:
            yield Beat("preview", done, total)
