"""Maps over token centres that are made tile by tile, when a window asks for them.

`TokenMap` projects stored tokens, `CellMap` computes classical features at token
centres. Both keep the tiles used last, up to so many bytes, so that memory does not
grow with the image; a value is the same whatever window or order it was asked for in.
Only this module knows how windows of tokens are put together from tiles.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import FloatArray, Window
from napari_alibi_seg.data import BlockCache, pixel_tiles, touched_blocks

if TYPE_CHECKING:
    from napari_alibi_seg.data import TokenGrid, TokenStore, WorkingImage
    from napari_alibi_seg.features import ClassicalFeatures
    from napari_alibi_seg.learn import Projection

__all__ = ["MAP_BYTES", "CellMap", "TokenMap", "cells_around", "overlap"]

# Of one map. A frontier of tiles around what was done is enough to make each tile once;
# this holds that of 400 megapixels in any order that goes from neighbour to neighbour.
MAP_BYTES = 256 << 20


def cells_around(grid: TokenGrid, window: Window) -> Window:
    """Return the tokens between which the pixels of a window lie.

    Examples
    --------
    >>> from napari_alibi_seg.data import TokenGrid
    >>> cells_around(TokenGrid((100, 100), patch_px=10), Window(0, 20, 30, 41))
    Window(y0=0, y1=3, x0=2, x1=5)
    """
    rows = grid.row_positions(window.y0, window.y1)
    cols = grid.col_positions(window.x0, window.x1)
    return Window(
        math.floor(rows[0]),
        min(math.floor(rows[-1]) + 2, grid.shape[0]),
        math.floor(cols[0]),
        min(math.floor(cols[-1]) + 2, grid.shape[1]),
    )


class TokenMap:
    """Tokens of an image, projected tile by tile.

    May be used from several threads at once.

    Parameters
    ----------
    store : TokenStore
        With all tiles that are asked for.
    projection : Projection or None
        None gives all channels.
    max_bytes : int
        Most that is kept of projected tiles.

    Examples
    --------
    >>> from napari_alibi_seg.data import MemoryStore, TokenGrid
    >>> grid = TokenGrid((28, 56), patch_px=14, tile_px=28)
    >>> store = MemoryStore(grid, n_channels=2)
    >>> for tile in grid.tiles:
    ...     store.write(tile, np.full((2, 2, 2), tile.index))
    >>> TokenMap(store, None).window(Window(0, 1, 1, 4))[..., 0].tolist()
    [[0.0, 1.0, 1.0]]
    """

    def __init__(
        self,
        store: TokenStore,
        projection: Projection | None,
        max_bytes: int = MAP_BYTES,
    ) -> None:
        self._store = store
        self._projection = projection
        self._tiles: BlockCache[int] = BlockCache(max_bytes)
        grid, d = store.grid, store.grid.density
        self._row_edges = [*sorted({t.keep.y0 * d for t in grid.tiles}), grid.shape[0]]
        self._col_edges = [*sorted({t.keep.x0 * d for t in grid.tiles}), grid.shape[1]]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, columns and features."""
        p = self._projection
        n = self._store.n_channels if p is None else p.n_components
        return (*self._store.grid.shape, n)

    @property
    def n_bytes(self) -> int:
        """What is kept."""
        return self._tiles.n_bytes

    def window(self, cells: Window | None = None, every: int = 1) -> FloatArray:
        """Return a window of the map.

        Parameters
        ----------
        cells : Window, optional
            Tokens; all by default, which takes memory for all.
        every : int
            Take every n-th row and column, from the window's corner on.

        Returns
        -------
        (r, c, F) float32
            A fresh array.
        """
        rows, cols, n_features = self.shape
        cells = cells or Window(0, rows, 0, cols)
        height, width = cells.shape
        out = np.empty(
            (-(-height // every), -(-width // every), n_features), np.float32
        )
        across = len(self._col_edges) - 1
        for r, rows_in, rows_out in _spans(self._row_edges, cells.y0, cells.y1, every):
            for c, cols_in, cols_out in _spans(
                self._col_edges, cells.x0, cells.x1, every
            ):
                out[rows_out, cols_out] = self._tile(r * across + c)[rows_in, cols_in]
        return out

    def iter_fill(self, cells: Window) -> Iterator[tuple[int, int]]:
        """Project the tiles of a window that are missing, as long as there is room.

        Yields
        ------
        tuple of int
            Tiles done and in all.
        """
        across = len(self._col_edges) - 1
        missing = [
            r * across + c
            for r, _ in touched_blocks(self._row_edges, cells.y0, cells.y1)
            for c, _ in touched_blocks(self._col_edges, cells.x0, cells.x1)
            if r * across + c not in self._tiles
        ]
        for done, index in enumerate(missing, 1):
            if self._tiles.is_full:
                return
            self._tile(index)
            yield done, len(missing)

    def _tile(self, index: int) -> npt.NDArray[np.float32]:
        return self._tiles.get(index, lambda: self._made(index))

    def _made(self, index: int) -> FloatArray:
        tokens = self._store.read(self._store.grid.tiles[index])
        if self._projection is None:
            return tokens.astype(np.float32)
        return self._projection.apply(tokens)


class CellMap:
    """Classical features of the pixel at each token centre, by output tile.

    May be used from several threads at once.

    Parameters
    ----------
    image : WorkingImage
        The image.
    classical : ClassicalFeatures
        The filter set.
    grid : TokenGrid
        Where the centres are.
    max_bytes : int
        Most that is kept of finished tiles.

    Examples
    --------
    >>> from napari_alibi_seg.data import IntensityRange, TokenGrid, WorkingImage
    >>> from napari_alibi_seg.data import open_image
    >>> from napari_alibi_seg.features import ClassicalFeatures
    >>> source = open_image(np.eye(64, dtype=np.uint8))
    >>> image = WorkingImage(source, "grey", IntensityRange((0,), (1,), (0,)))
    >>> cells = CellMap(image, ClassicalFeatures(), TokenGrid((64, 64), patch_px=8))
    >>> cells.window(Window(0, 2, 3, 8)).shape
    (28, 2, 5)
    """

    def __init__(
        self,
        image: WorkingImage,
        classical: ClassicalFeatures,
        grid: TokenGrid,
        max_bytes: int = MAP_BYTES,
    ) -> None:
        self._image = image
        self._classical = classical
        self._grid = grid
        self._blocks: BlockCache[Window] = BlockCache(max_bytes)

    @property
    def n_bytes(self) -> int:
        """What is kept."""
        return self._blocks.n_bytes

    @property
    def is_full(self) -> bool:
        """Whether another tile would push one out."""
        return self._blocks.is_full

    def missing(self, pixels: Window | None = None) -> list[Window]:
        """Return the output tiles that are not there, all or those of some pixels."""
        return [
            w
            for w in pixel_tiles(self._image.shape)
            if w not in self._blocks and (pixels is None or overlap(w, pixels))
        ]

    def fill(self, tile: Window) -> FloatArray:
        """Return the (F, r, c) centres in an output tile, computed or waited for."""
        return self._blocks.get(tile, lambda: self._made(tile))

    def window(self, cells: Window, every: int = 1) -> FloatArray:
        """Return the features at some token centres; what is missing is computed.

        Parameters
        ----------
        cells : Window
            Tokens.
        every : int
            Take every n-th row and column, from the window's corner on.

        Returns
        -------
        (F, r, c) float32
            A fresh array.
        """
        height, width = cells.shape
        n = self._classical.n_features
        out = np.empty((n, -(-height // every), -(-width // every)), np.float32)
        tiles, (row_edges, col_edges) = self._tiles
        across = len(col_edges) - 1
        for r, rows_in, rows_out in _spans(row_edges, cells.y0, cells.y1, every):
            for c, cols_in, cols_out in _spans(col_edges, cells.x0, cells.x1, every):
                block = self.fill(tiles[r * across + c])
                out[:, rows_out, cols_out] = block[:, rows_in, cols_in]
        return out

    def _made(self, w: Window) -> FloatArray:
        rows, cols = self._centres
        r = slice(*np.searchsorted(rows, (w.y0, w.y1)))
        c = slice(*np.searchsorted(cols, (w.x0, w.x1)))
        block = self._classical.compute(self._image.read, self._image.shape, w)
        return np.ascontiguousarray(block[:, rows[r] - w.y0][:, :, cols[c] - w.x0])

    @cached_property
    def _centres(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Row and column of the pixel nearest to each token centre."""
        rows, cols = (
            np.array([self._grid.pixel_of_token(i, i)[axis] for i in range(n)])
            for axis, n in enumerate(self._grid.shape)
        )
        shape = self._image.shape
        return (
            np.clip(np.floor(rows + 0.5), 0, shape[0] - 1).astype(np.int64),
            np.clip(np.floor(cols + 0.5), 0, shape[1] - 1).astype(np.int64),
        )

    @cached_property
    def _tiles(self) -> tuple[list[Window], tuple[list[int], list[int]]]:
        """Output tiles with a centre in them, and the tokens at which they begin."""
        rows, cols = self._centres
        tiles = [
            w
            for w in pixel_tiles(self._image.shape)
            if np.diff(np.searchsorted(rows, (w.y0, w.y1)))[0]
            and np.diff(np.searchsorted(cols, (w.x0, w.x1)))[0]
        ]
        row_edges = np.searchsorted(rows, sorted({w.y0 for w in tiles})).tolist()
        col_edges = np.searchsorted(cols, sorted({w.x0 for w in tiles})).tolist()
        return tiles, ([*row_edges, len(rows)], [*col_edges, len(cols)])


def overlap(one: Window, other: Window) -> bool:
    """Return whether two windows share a pixel."""
    return (
        one.y0 < other.y1
        and other.y0 < one.y1
        and one.x0 < other.x1
        and other.x0 < one.x1
    )


def _spans(
    edges: Sequence[int], start: int, stop: int, every: int
) -> list[tuple[int, slice, slice]]:
    """Return for each block that is hit: its number, where in it, where in the result.

    Hit are `start`, ``start + every`` and so on below `stop`.
    """
    out = []
    for i, part in touched_blocks(edges, start, stop):
        first = -(-(part.start - start) // every)
        last = -(-(part.stop - start) // every)
        if first < last:
            begin = start + first * every - edges[i]
            inside = slice(begin, part.stop - edges[i], every)
            out.append((i, inside, slice(first, last)))
    return out
