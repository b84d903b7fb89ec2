"""The one path from a working image to stored tokens: tile by tile, in any order.

Knows how a tile becomes a batch for the backbone (three channels, its normalisation,
one image a pass) and how passes interleave. Geometry is `TokenGrid`'s, memory and
resuming the store's, devices and out-of-memory `_device`'s. Progress, cancelling and
partial display all hang on this generator: stop iterating and what is done is kept.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_alibi_seg._base import FloatArray
from napari_alibi_seg.data import TokenGrid, TokenTile

if TYPE_CHECKING:
    from napari_alibi_seg._base import Backbone
    from napari_alibi_seg.data import TokenStore, WorkingImage

__all__ = ["ExtractedTile", "iter_extract"]

_logger = logging.getLogger(__name__)

# Images a GPU sees at once; out of memory halves it.
_GPU_BATCH = 16


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
    batch_size: int | None = None,
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
    batch_size : int, optional
        Images per forward pass on a GPU. A CPU computes them one by one whatever it
        says, so that results are the same bytes.

    Yields
    ------
    ExtractedTile

    Raises
    ------
    DeviceMemoryError
        If the device cannot hold one tile.
    OutputError
        If the store cannot be written.
    """
    grid = store.grid
    missing = set(store.missing())
    wanted = [i for i in dict.fromkeys(order or ()) if i in missing]
    wanted += [i for i in sorted(missing) if i not in set(wanted)]
    total, done = len(grid.tiles), len(grid.tiles) - len(missing)
    _logger.info(
        "Extracting %d of %d tiles (%d px, density %d) with %s on %s",
        *(len(wanted), total, grid.tile_tokens * grid.patch_px, grid.density),
        *(backbone.name, backbone.device),
    )
    passes = grid.density**2
    gpu = str(backbone.device) != "cpu"
    per_batch = max(1, (batch_size or _GPU_BATCH) // passes) if gpu else 1
    groups = [wanted[i : i + per_batch] for i in range(0, len(wanted), per_batch)]
    prepare = _Preparer(backbone, image, grid)
    forward = _forwarder(backbone)
    # one batch is read and resized while the one before it is computed
    with ThreadPoolExecutor(1) as reader:
        upcoming = reader.submit(prepare, groups[0]) if groups else None
        for k, group in enumerate(groups):
            assert upcoming is not None
            batch = upcoming.result()
            if k + 1 < len(groups):
                upcoming = reader.submit(prepare, groups[k + 1])
            tokens = forward(batch)
            for j, index in enumerate(group):
                tile = grid.tiles[index]
                part = tokens[j * passes : (j + 1) * passes]
                store.write(tile, _interleave(part, tile, grid))
                done += 1
                yield ExtractedTile(done, total, tile)


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
