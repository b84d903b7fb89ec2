"""Features of one image: stored tokens, classical filters, and both at any pixel.

An `Embedding` is what is dear (the tokens of an image); `PixelFeatures` is what is
cheap: it joins projected tokens and classical features for windows of pixels, for
every n-th pixel of a window and at token centres. Training and prediction both go
through it, so they sample in exactly the same way.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import FloatArray, Window
from napari_alibi_seg._segmenter._tokens import CellMap, TokenMap, cells_around
from napari_alibi_seg.data import (
    TokenGrid,
    TokenStore,
    WorkingImage,
    iter_bands,
    pixel_tiles,
    sample_grid,
)
from napari_alibi_seg.features import ClassicalFeatures

if TYPE_CHECKING:
    from napari_alibi_seg.learn import Projection

__all__ = [
    "STRIP_BYTES",
    "Embedding",
    "PixelFeatures",
    "cell_grid",
    "default_workers",
    "iter_threaded",
    "lattice",
    "sample_tokens",
]

_T = TypeVar("_T")
_R = TypeVar("_R")

# Cell of the `patch` pass where there is no ViT to give one.
_CLASSICAL_CELL_PX = 8
# Features of a strip of pixels that are in memory at once, per worker.
STRIP_BYTES = 48 << 20


def default_workers() -> int:
    """Return the number of cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cell_grid(shape: tuple[int, int]) -> TokenGrid:
    """Return the grid that stands in for tokens where there is no ViT."""
    side = _CLASSICAL_CELL_PX * max(1, math.ceil(max(shape) / _CLASSICAL_CELL_PX))
    return TokenGrid(shape, patch_px=_CLASSICAL_CELL_PX, tile_px=side)


def iter_threaded(
    job: Callable[[_T], _R], items: Iterable[_T], workers: int
) -> Generator[_R, None, None]:
    """Map in threads, in order, with at most `workers` + 1 results in memory.

    A caller that stops early waits for the jobs that run, and for no other.
    """
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[_R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(job, item))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def lattice(
    window: Window, step: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the rows and columns that stand for blocks of `step` pixels a side.

    A block stands from each multiple of `step` on, counted from the window's corner;
    its middle pixel is taken, or the window's last one where the block is cut.

    Examples
    --------
    >>> rows, cols = lattice(Window(0, 8, 10, 15), 4)
    >>> rows.tolist(), cols.tolist()
    ([2, 6], [12, 14])
    """
    return (
        np.minimum(np.arange(window.y0, window.y1, step) + step // 2, window.y1 - 1),
        np.minimum(np.arange(window.x0, window.x1, step) + step // 2, window.x1 - 1),
    )


@dataclass
class Embedding:
    """The features of one image that are worth keeping.

    Attributes
    ----------
    image : WorkingImage
        The image as the features see it.
    store : TokenStore or None
        ViT tokens; None for classical features only.
    uses_classical : bool
        Whether classical features join in.
    """

    image: WorkingImage
    store: TokenStore | None
    uses_classical: bool
    _projected: tuple[Any, TokenMap] | None = field(default=None, repr=False)
    _lock: Any = field(default_factory=Lock, repr=False)
    # flat positions (ascending) and features of the pixels that were last trained on
    _sampled: tuple[Any, npt.NDArray[np.int64], FloatArray] | None = field(
        default=None, repr=False
    )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the image, in pixels."""
        return self.image.shape

    @cached_property
    def grid(self) -> TokenGrid:
        """Geometry of the tokens, or of the cells that stand in for them."""
        return self.store.grid if self.store is not None else cell_grid(self.shape)

    @cached_property
    def classical(self) -> ClassicalFeatures | None:
        """The filter set, or None."""
        return ClassicalFeatures(self.image.n_channels) if self.uses_classical else None

    @cached_property
    def classical_cells(self) -> CellMap:
        """Classical features of the pixel at each token centre."""
        assert self.classical is not None
        return CellMap(self.image, self.classical, self.grid)

    def iter_classical_cells(
        self, window: Window | None = None
    ) -> Generator[tuple[int, int], None, None]:
        """Compute what is missing of `classical_cells`, as long as there is room.

        Parameters
        ----------
        window : Window, optional
            Pixels whose tiles are wanted; the whole image by default.

        Yields
        ------
        tuple of int
            Tiles done and in all, of those that were missing.
        """
        cells = self.classical_cells
        missing = cells.missing(window)
        room = (w for w in missing if not cells.is_full)
        with closing(iter_threaded(cells.fill, room, default_workers())) as filled:
            for done, _ in enumerate(filled, 1):
                yield done, len(missing)

    def tokens(self, projection: Projection | None) -> TokenMap:
        """Return the token map, projected if asked; that of the last call is kept."""
        assert self.store is not None
        with self._lock:
            if self._projected is None or self._projected[0] is not projection:
                self._projected = (projection, TokenMap(self.store, projection))
            return self._projected[1]

    def samples(
        self,
        projection: Projection | None,
        rows: npt.NDArray[np.int64],
        cols: npt.NDArray[np.int64],
    ) -> FloatArray:
        """Return the features of some pixels, (N, F) float32.

        Those of the last call are remembered: after another stroke only its own tiles
        are computed.

        Parameters
        ----------
        projection : Projection or None
            As for `tokens`.
        rows, cols : (N,) int64
            Distinct pixels in reading order.
        """
        for _ in self.iter_samples(projection, rows, cols):
            pass
        assert self._sampled is not None
        return self._sampled[2]

    def iter_samples(
        self,
        projection: Projection | None,
        rows: npt.NDArray[np.int64],
        cols: npt.NDArray[np.int64],
    ) -> Generator[tuple[int, int], None, None]:
        """Compute what `samples` will return, and remember it.

        Yields
        ------
        tuple of int
            Tiles done and in all, of those with new pixels.
        """
        features = PixelFeatures(self, projection)
        flat = rows * self.shape[1] + cols
        out = np.empty((len(flat), features.n_features), np.float32)
        wanted = np.ones(len(flat), bool)
        last, known, remembered = self._sampled or (None, flat[:0], out[:0])
        if last is projection and known.size:
            at = np.minimum(np.searchsorted(known, flat), len(known) - 1)
            wanted = known[at] != flat
            out[~wanted] = remembered[at[~wanted]]

        def fill(inside: npt.NDArray[np.int64]) -> None:
            r, c = rows[inside], cols[inside]
            # a stroke is small beside its tile, and features know no window
            box = Window(int(r.min()), int(r.max()) + 1, int(c.min()), int(c.max()) + 1)
            out[inside] = features.at_pixels(r, c, box)

        groups = _by_tile(
            rows, cols, np.flatnonzero(wanted), pixel_tiles(self.shape)[0]
        )
        with closing(iter_threaded(fill, groups, default_workers())) as filled:
            for done, _ in enumerate(filled, 1):
                yield done, len(groups)
        self._sampled = (projection, flat, out)


def _by_tile(
    rows: npt.NDArray[np.int64],
    cols: npt.NDArray[np.int64],
    chosen: npt.NDArray[np.int64],
    first: Window,
) -> list[npt.NDArray[np.int64]]:
    """Split positions by the output tile their pixels lie in; `first` is the first."""
    if not chosen.size:
        return []
    across = int(cols.max()) // first.x1 + 1
    tile = rows[chosen] // first.y1 * across + cols[chosen] // first.x1
    order = np.argsort(tile, kind="stable")
    cuts = np.flatnonzero(np.diff(tile[order])) + 1
    return np.split(chosen[order], cuts)


@dataclass(frozen=True)
class PixelFeatures:
    """Features of any pixel of an embedded image.

    Parameters
    ----------
    embedding : Embedding
        Complete.
    projection : Projection or None
        From tokens to the features of a pixel; None keeps all channels.
    """

    embedding: Embedding
    projection: Projection | None

    @cached_property
    def n_vit(self) -> int:
        """Features that come from tokens; they are the first."""
        if self.embedding.store is None:
            return 0
        if self.projection is not None:
            return self.projection.n_components
        return self.embedding.store.n_channels

    @cached_property
    def n_features(self) -> int:
        """Features per pixel."""
        classical = self.embedding.classical
        return self.n_vit + (classical.n_features if classical else 0)

    def strips(self, window: Window) -> Iterator[tuple[Window, FloatArray]]:
        """Yield horizontal strips of a window with their features.

        Yields
        ------
        (Window, (F, h, w) float32)
            Strips from top to bottom; the array may be reused by the next one.
        """
        e = self.embedding
        classical = None
        if e.classical is not None:
            classical = e.classical.compute(e.image.read, e.shape, window)
        if not self.n_vit:
            assert classical is not None
            yield window, classical
            return
        height, width = window.shape
        step = max(1, min(height, STRIP_BYTES // (4 * self.n_features * width)))
        around = cells_around(e.grid, window)
        tokens = e.tokens(self.projection).window(around)
        # positions less an integer are exact: no window changes a bit of the result
        cols = e.grid.col_positions(window.x0, window.x1) - around.x0
        for y in range(0, height, step):
            strip = Window(
                window.y0 + y,
                min(window.y0 + y + step, window.y1),
                window.x0,
                window.x1,
            )
            out = np.empty((self.n_features, *strip.shape), np.float32)
            rows = e.grid.row_positions(strip.y0, strip.y1) - around.y0
            sample_grid(tokens, rows, cols, out[: self.n_vit])
            if classical is not None:
                out[self.n_vit :] = classical[:, y : y + step]
            yield strip, out

    def cells_in(self, cells: Window, every: int = 1) -> FloatArray:
        """Return the features at some token centres, (F, r, c) float32.

        Parameters
        ----------
        cells : Window
            Tokens.
        every : int
            Take every n-th row and column.
        """
        e = self.embedding
        parts = []
        if self.n_vit:
            tokens = e.tokens(self.projection).window(cells, every)
            parts.append(np.moveaxis(tokens, -1, 0))
        if e.classical is not None:
            parts.append(e.classical_cells.window(cells, every))
        return np.ascontiguousarray(np.concatenate(parts))

    def at_lattice(self, window: Window, step: int) -> FloatArray:
        """Return the features of the `lattice` of a window, (F, h, w) float32.

        The same bytes as `strips` gives there. Tokens are interpolated at these
        pixels only; filters are computed on the whole window, which the caller keeps
        small.
        """
        e = self.embedding
        rows, cols = lattice(window, step)
        out = np.empty((self.n_features, len(rows), len(cols)), np.float32)
        y, x = rows - window.y0, cols - window.x0
        if self.n_vit:
            around = cells_around(e.grid, window)
            row_at = e.grid.row_positions(window.y0, window.y1)[y] - around.y0
            col_at = e.grid.col_positions(window.x0, window.x1)[x] - around.x0
            tokens = e.tokens(self.projection).window(around)
            sample_grid(tokens, row_at, col_at, out[: self.n_vit])
        if e.classical is not None:
            own = out[self.n_vit :]
            if step == 1:
                e.classical.compute(e.image.read, e.shape, window, out=own)
            else:
                block = e.classical.compute(e.image.read, e.shape, window)
                own[:] = block[:, y[:, None], x]
        return out

    def at_pixels(self, rows: Any, cols: Any, window: Window) -> FloatArray:
        """Return the features of some pixels of a window, (N, F) float32."""
        out = np.empty((len(rows), self.n_features), np.float32)
        for strip, block in self.strips(window):
            inside = (rows >= strip.y0) & (rows < strip.y1)
            out[inside] = block[:, rows[inside] - strip.y0, cols[inside] - strip.x0].T
        return out


def sample_tokens(embeddings: list[Embedding], max_samples: int) -> FloatArray:
    """Return an even, repeatable subset of the tokens that are there, (N, C)."""
    stores = [e.store for e in embeddings if e.store is not None]
    total = sum(_n_tokens(store) for store in stores)
    stride = max(1, math.ceil(total / max_samples))
    parts, position = [], 0
    for store in stores:
        for band in _iter_tokens(store):
            flat = band.reshape(-1, band.shape[-1])
            parts.append(flat[-position % stride :: stride].astype(np.float32))
            position += len(flat)
    return np.concatenate(parts)


def _n_tokens(store: TokenStore) -> int:
    missing, grid = set(store.missing()), store.grid
    if not missing:
        return math.prod(grid.shape)
    d = grid.density
    kept = (t.keep.shape for t in grid.tiles if t.index not in missing)
    return sum(rows * cols * d * d for rows, cols in kept)


def _iter_tokens(store: TokenStore) -> Iterator[npt.NDArray[np.float16]]:
    """Yield all tokens in reading order, or tile by tile what is there of them."""
    missing = set(store.missing())
    if not missing:
        yield from (band for _, band in iter_bands(store))
        return
    for tile in store.grid.tiles:
        if tile.index not in missing:
            yield store.read(tile)
