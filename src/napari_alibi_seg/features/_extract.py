"""The one path from a working image to stored tokens: tile by tile, in any order.

Knows how a tile becomes a batch for the backbone (three channels, its normalisation,
one image a pass), how passes interleave, and that neither the number of threads nor the
shape of a batch depends on where a tile is computed: tokens are the same bytes on one
core, on many, and on a cluster of such machines. Geometry is `TokenGrid`'s, memory and
resuming the store's, devices and out-of-memory `_device`'s. Progress, cancelling and
partial display all hang on this generator: stop iterating and what is done is kept.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_alibi_seg._base import FloatArray
from napari_alibi_seg.data import TokenGrid, TokenTile

if TYPE_CHECKING:
    from napari_alibi_seg._base import Backbone
    from napari_alibi_seg.data import TokenStore, WorkingImage

__all__ = ["CPU_THREADS_PER_TILE", "GPU_BATCH", "ExtractedTile", "iter_extract"]

_logger = logging.getLogger(__name__)

# torch threads of one tile on a CPU. Cores are filled with tiles instead, which is as
# fast, and sums are split in one way only.
CPU_THREADS_PER_TILE = 1
# Images a GPU sees at once. Which tiles share a batch is decided by the grid, not by
# what is missing: another shape may pick another kernel. Out of memory halves it.
GPU_BATCH = 16


@dataclass(frozen=True, slots=True)
class ExtractedTile:
    """One tile whose tokens are now in the store.

    Attributes
    ----------
    done, total : int
        Tiles in the store, and of the image.
    tile : TokenTile
        Which one.
    """

    done: int
    total: int
    tile: TokenTile


def iter_extract(
    backbone: Backbone,
    image: WorkingImage,
    store: TokenStore,
    *,
    order: Sequence[int] | None = None,
    only: Sequence[int] | None = None,
    workers: int | None = None,
    batch_size: int = GPU_BATCH,
) -> Iterator[ExtractedTile]:
    """Compute the tiles that a store lacks and yield each once it is stored.

    Parameters
    ----------
    backbone : Backbone
        From `load_backbone`.
    image : WorkingImage
        The image, as the features see it.
    store : TokenStore
        Receives the tokens; tiles it has already are not computed again.
    order : sequence of int, optional
        Tile indices in the order wanted, for example from `centre_out`; those left
        out follow in reading order. The result does not depend on it.
    only : sequence of int, optional
        Leave out all other tiles.
    workers : int, optional
        Tiles that a CPU computes at once; all cores by default. The result does not
        depend on it.
    batch_size : int, optional
        Images per forward pass on a GPU. A CPU computes them one by one.

    Yields
    ------
    ExtractedTile
        In the order asked for; on a GPU with the other tiles of its batch.

    Raises
    ------
    DeviceMemoryError
        If the device cannot hold one tile.
    OutputError
        If the store cannot be written.
    """
    grid = store.grid
    missing = store.missing()
    total, done = len(grid.tiles), len(grid.tiles) - len(missing)
    if only is not None:
        missing = sorted(set(missing).intersection(only))
    wanted = _in_order(missing, order or ())
    _logger.info(
        "Extracting %d of %d tiles (%d px, density %d) with %s on %s",
        *(len(wanted), total, grid.tile_tokens * grid.patch_px, grid.density),
        *(backbone.name, backbone.device),
    )
    prepare = _Preparer(backbone, image, grid)
    forward = _forwarder(backbone)

    def keep(index: int, passes: FloatArray) -> None:
        tile = grid.tiles[index]
        store.write(tile, _interleave(passes, tile, grid))

    if str(backbone.device) == "cpu":
        n = min(workers or _n_cores(), max(1, len(wanted)))
        stored = _iter_on_cpu(lambda i: keep(i, forward(prepare([i]))), wanted, n)
    else:
        stored = _iter_on_gpu(prepare, forward, keep, wanted, batch_size)
    for index in stored:
        done += 1
        yield ExtractedTile(done, total, grid.tiles[index])


def _in_order(missing: Sequence[int], order: Sequence[int]) -> list[int]:
    absent = set(missing)
    first = [i for i in dict.fromkeys(order) if i in absent]
    return first + sorted(absent.difference(first))


def _n_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _iter_on_cpu(
    job: Callable[[int], None], wanted: Sequence[int], workers: int
) -> Iterator[int]:
    """Do tiles, each in one thread and `workers` at once; yield them in order."""
    import torch

    before = torch.get_num_threads()
    waiting: deque[tuple[int, Future[None]]] = deque()
    pool = ThreadPoolExecutor(
        workers,
        initializer=torch.set_num_threads,
        initargs=(CPU_THREADS_PER_TILE,),
    )
    try:
        for index in wanted:
            waiting.append((index, pool.submit(job, index)))
            if len(waiting) >= workers:
                done, future = waiting.popleft()
                future.result()
                yield done
        for done, future in waiting:
            future.result()
            yield done
    finally:
        # those that run are stored, whoever still listens
        pool.shutdown(wait=True, cancel_futures=True)
        # torch hands the number on to threads that start later: not ours to change
        torch.set_num_threads(before)


def _iter_on_gpu(
    prepare: _Preparer,
    forward: Callable[[FloatArray], FloatArray],
    keep: Callable[[int, FloatArray], None],
    wanted: Sequence[int],
    batch_size: int,
) -> Iterator[int]:
    """Do tiles batch by batch; one is read while the one before it runs."""
    passes = prepare.grid.density**2
    side = max(1, batch_size // passes)
    n_tiles = len(prepare.grid.tiles)
    groups = [
        range(g * side, min((g + 1) * side, n_tiles))
        for g in dict.fromkeys(i // side for i in wanted)
    ]
    lacking = set(wanted)
    with ThreadPoolExecutor(1) as reader:
        upcoming = reader.submit(prepare, groups[0]) if groups else None
        for k, group in enumerate(groups):
            assert upcoming is not None
            batch = upcoming.result()
            if k + 1 < len(groups):
                upcoming = reader.submit(prepare, groups[k + 1])
            tokens = forward(batch)
            for j, index in enumerate(group):
                if index in lacking:
                    keep(index, tokens[j * passes : (j + 1) * passes])
                    yield index


@dataclass(frozen=True, slots=True)
class _Preparer:
    """Read tiles and turn them into the backbone's normalised input."""

    backbone: Backbone
    image: WorkingImage
    grid: TokenGrid

    def __call__(self, indices: Sequence[int]) -> FloatArray:
        images = [
            self._three_channels(
                self.image.read_scaled(
                    self.grid.tile_window(self.grid.tiles[i], shift), self.grid
                )
            )
            for i in indices
            for shift in self.grid.passes()
        ]
        return np.stack(images)

    def _three_channels(self, block: FloatArray) -> FloatArray:
        if len(block) == 1:
            block = np.repeat(block, 3, axis=0)
        elif len(block) == 2:
            # the third channel carries both, so neither is favoured
            block = np.concatenate([block, block.mean(axis=0, keepdims=True)])
        shape = (3, 1, 1)
        mean = np.asarray(self.backbone.mean, np.float32).reshape(shape)
        std = np.asarray(self.backbone.std, np.float32).reshape(shape)
        return (np.clip(block, 0.0, 1.0) - mean) / std


def _forwarder(backbone: Backbone) -> Callable[[FloatArray], FloatArray]:
    """Return a function from (B, 3, H, W) to (B, C, h, w), both on the host.

    A backbone that runs out of device memory halves the batch by itself.
    """
    import torch

    def forward(batch: FloatArray) -> FloatArray:
        images = torch.from_numpy(batch).to(backbone.device)
        tokens: FloatArray = backbone.patch_features(images).float().cpu().numpy()
        return tokens

    return forward


def _interleave(passes: FloatArray, tile: TokenTile, grid: TokenGrid) -> FloatArray:
    """Weave (d*d, C, t, t) passes into the (rows, columns, C) tokens of a tile."""
    d, keep = grid.density, tile.keep
    inner = passes[
        :,
        :,
        keep.y0 - tile.row : keep.y1 - tile.row,
        keep.x0 - tile.col : keep.x1 - tile.col,
    ]
    rows, cols = keep.shape
    woven = np.empty((rows * d, cols * d, passes.shape[1]), np.float32)
    for k, (i, j) in enumerate(grid.passes()):
        woven[i::d, j::d] = np.moveaxis(inner[k], 0, -1)
    return woven
