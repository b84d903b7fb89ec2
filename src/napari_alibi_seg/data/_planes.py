"""Readers of one plane: they differ in what a window costs.

`SlicedPlane` cuts it out of an array, `MappedPlane` out of raw pixels in a file,
`BlockedPlane` decodes the blocks that it touches and keeps the latest, and
`ColouredPlane` looks up the colours of another reader's values. All may be used from
several threads at once, and none holds a file open between two reads. Which file gets
which reader is left to the formats.
"""

from __future__ import annotations

import threading
from contextlib import nullcontext
from itertools import product
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from napari_alibi_seg._base import ImageFileError, Window
from napari_alibi_seg.data._blocks import BlockCache, touched_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    import numpy.typing as npt

    from napari_alibi_seg.data._axes import Selection

__all__ = [
    "BlockedPlane",
    "ColouredPlane",
    "MappedPlane",
    "PlaneReader",
    "SlicedPlane",
    "chunk_edges",
]

_Pixels: TypeAlias = "npt.NDArray[Any]"

# A row of tiles is read left to right, so a band of decoded blocks is kept: as many
# rows as the tallest tile asked for (518 px at working scale 0.5, and its halo).
_KEPT_ROWS = 1536
_KEPT_BYTES = 64 * 2**20
_BLOCK_PX = 512


class PlaneReader(Protocol):
    """Reads windows of one plane; safe to call from several threads."""

    def read(self, window: Window) -> _Pixels:
        """Return the (h, w, C) pixels of `window`, in any memory layout."""


class SlicedPlane:
    """Cuts windows out of anything that has a shape and takes slices."""

    def __init__(
        self, array: Any, selection: Selection, *, has_own_lock: bool = False
    ) -> None:
        self._array = array
        self._selection = selection
        # Thread safety of an unknown array is unknown.
        self._lock: AbstractContextManager[Any] = (
            nullcontext() if has_own_lock else threading.Lock()
        )

    def read(self, window: Window) -> _Pixels:
        """Return the (h, w, C) pixels of `window`."""
        with self._lock:
            block = np.asarray(self._array[self._selection.index(*window.slices)])
        return self._selection.to_yxc(block)


class MappedPlane:
    """Cuts windows out of raw pixels in a file, mapped for each read.

    Mapping takes some 30 µs, keeps no file open and notices a file that has become too
    short, where a lasting map would end the process.
    """

    def __init__(
        self,
        path: Path,
        selection: Selection,
        *,
        dtype: np.dtype,
        offset: int,
        order: str = "C",
    ) -> None:
        self._path = path
        self._selection = selection
        self._dtype = dtype
        self._offset = offset
        self._order: Any = order

    def read(self, window: Window) -> _Pixels:
        """Return the (h, w, C) pixels of `window`."""
        chosen = self._selection
        mapped = np.memmap(
            self._path, self._dtype, "r", self._offset, chosen.shape, self._order
        )
        block = np.array(mapped[chosen.index(*window.slices)], order="C", copy=True)
        return chosen.to_yxc(block)


class BlockedPlane:
    """Decodes the blocks that a window touches and keeps the latest.

    Kept are about 1,536 rows of the plane and at least 64 MB, so that tiles read in
    order decode each block once; a plane stored as one block is decoded once and kept.
    A block asked for by two threads is decoded by one of them.

    Parameters
    ----------
    row_edges, column_edges : sequence of int
        Where blocks begin, then the end of the plane.
    n_channels, dtype : int, dtype
        Of the blocks.
    load : callable
        (row, column) of a block to its (h, w, C) array.
    """

    def __init__(
        self,
        row_edges: Sequence[int],
        column_edges: Sequence[int],
        *,
        n_channels: int,
        dtype: np.dtype,
        load: Callable[[int, int], _Pixels],
    ) -> None:
        self._edges = list(row_edges), list(column_edges)
        self._n_channels = n_channels
        self._dtype = dtype
        self._load = load
        tallest = max(np.diff(self._edges[0]))
        kept = min(self._edges[0][-1], _KEPT_ROWS + 2 * int(tallest))
        row_bytes = self._edges[1][-1] * n_channels * dtype.itemsize
        self._blocks: BlockCache[tuple[int, int]] = BlockCache(
            max(_KEPT_BYTES, kept * row_bytes)
        )

    def read(self, window: Window) -> _Pixels:
        """Return the (h, w, C) pixels of `window`."""
        out = np.empty((*window.shape, self._n_channels), self._dtype)
        rows = touched_blocks(self._edges[0], window.y0, window.y1)
        columns = touched_blocks(self._edges[1], window.x0, window.x1)
        for (r, ys), (c, xs) in product(rows, columns):
            y, x = self._edges[0][r], self._edges[1][c]
            part = self._block(r, c)[
                ys.start - y : ys.stop - y, xs.start - x : xs.stop - x
            ]
            out[
                ys.start - window.y0 : ys.stop - window.y0,
                xs.start - window.x0 : xs.stop - window.x0,
            ] = part
        return out

    def _block(self, row: int, column: int) -> _Pixels:
        return self._blocks.get((row, column), lambda: self._load(row, column))


class ColouredPlane:
    """Colours of a plane that stores positions in a colour table."""

    def __init__(self, reader: PlaneReader, table: npt.NDArray[np.uint8]) -> None:
        self._reader = reader
        self._table = table

    def read(self, window: Window) -> _Pixels:
        positions = self._reader.read(window)[..., 0]
        if positions.max() >= len(self._table):
            raise ImageFileError(
                f"expected values below {len(self._table)}, the length of the colour "
                f"table, got {positions.max()}. Save the image as grey or RGB."
            )
        return self._table[positions]


def chunk_edges(chunks: int | Sequence[int], length: int) -> list[int]:
    """Return where blocks of whole chunks begin, and the end of the axis.

    Chunks below 512 pixels are joined: reading many at once is what chunked stores are
    fast at, and a block must be worth its bookkeeping.

    Examples
    --------
    >>> chunk_edges(300, 1000)
    [0, 600, 1000]
    >>> chunk_edges((700, 300), 1000)
    [0, 700, 1000]
    """
    if isinstance(chunks, int | np.integer):
        ends = [*range(int(chunks), length, int(chunks)), length]
    else:
        ends = np.cumsum(chunks).tolist()
    edges = [0]
    for end in ends:
        if end - edges[-1] >= _BLOCK_PX or end == length:
            edges.append(end)
    return edges
