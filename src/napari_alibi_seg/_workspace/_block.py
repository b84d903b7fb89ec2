"""One block of painted pixels: where it lies, what it holds, samples of it.

Blocks have 256 x 256 pixels, but for those that the edge of the plane cuts. Only this
module knows how one is compressed in memory and in a file.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import Window
from napari_alibi_seg._workspace._painting import check_ids

__all__ = [
    "BLOCK_PX",
    "Block",
    "Key",
    "block_of",
    "block_window",
    "counts_of",
    "enlarged",
    "highest",
    "is_same",
    "meet",
    "n_samples",
    "overlap",
    "unpacked",
]

BLOCK_PX = 256
# Level 1: strokes are mostly zeros, and a higher level gains bytes nobody misses.
_LEVEL = 1

Ids: TypeAlias = "npt.NDArray[np.uint16]"
# Row and column of a block among the blocks.
Key: TypeAlias = tuple[int, int]


@dataclass(slots=True)
class Block:
    """Pixels of one block, raw until they were first compressed."""

    counts: dict[int, int]
    shape: tuple[int, int]
    raw: Ids | None = None
    packed: bytes = b""

    def compressed(self) -> bytes:
        raw = self.raw
        if raw is not None:
            # a reader in another thread finds either, never neither
            self.packed = zlib.compress(raw.tobytes(), _LEVEL)
            self.raw = None
        return self.packed

    def pixels(self) -> Ids:
        raw = self.raw
        if raw is not None:
            return raw
        return unpacked(self.packed, self.shape)


def block_window(key: Key, shape: tuple[int, int]) -> Window:
    """Return the pixels of the block at a position, cut at the plane's edge."""
    y, x = key[0] * BLOCK_PX, key[1] * BLOCK_PX
    return Window(y, min(y + BLOCK_PX, shape[0]), x, min(x + BLOCK_PX, shape[1]))


def overlap(one: Window, other: Window) -> Window:
    """Return what two windows share; of negative size if that is nothing."""
    return Window(
        max(one.y0, other.y0),
        min(one.y1, other.y1),
        max(one.x0, other.x0),
        min(one.x1, other.x1),
    )


def meet(one: Window, other: Window) -> bool:
    """Return whether two windows share a pixel."""
    return min(overlap(one, other).shape) > 0


def n_samples(window: Window, step: int) -> tuple[int, int]:
    """Return how many samples of `step` pixels a side a window has."""
    height, width = window.shape
    return -(-height // step), -(-width // step)


def highest(ids: npt.NDArray[Any], step: int) -> npt.NDArray[Any]:
    """Return the highest id of every `step` pixels a side; the last may be cut."""
    if step == 1:
        return ids
    rows = np.maximum.reduceat(ids, np.arange(0, ids.shape[0], step), axis=0)
    return np.maximum.reduceat(rows, np.arange(0, ids.shape[1], step), axis=1)


def enlarged(samples: Any, step: int, shape: tuple[int, int]) -> Any:
    """Repeat samples to the pixels they stand for, cut to a shape."""
    if step > 1:
        samples = samples.repeat(step, axis=0).repeat(step, axis=1)
    return samples[: shape[0], : shape[1]]


def block_of(labels: Any, window: Window) -> Block | None:
    """Return a block of a label array, None where nothing is painted."""
    ids = np.asarray(labels[window.slices])
    if not ids.any():
        return None
    # always a copy: the caller goes on painting
    raw = np.array(check_ids(ids), "<u2", order="C")
    return Block(counts_of(raw), window.shape, raw)


def counts_of(raw: Ids) -> dict[int, int]:
    """Return the painted pixels of every id."""
    n = np.bincount(raw.ravel())
    return {int(i): int(n[i]) for i in np.flatnonzero(n) if i}


def is_same(one: Block | None, other: Block | None) -> bool:
    """Return whether two blocks hold the same paint; None holds none."""
    if one is None or other is None or one is other:
        return one is other
    return one.counts == other.counts and np.array_equal(one.pixels(), other.pixels())


def unpacked(packed: bytes, shape: tuple[int, int]) -> Ids:
    """Return the pixels of a compressed block, or raise a `ValueError`."""
    n = shape[0] * shape[1] * 2
    # one byte more than fits tells a block that would not end
    content = zlib.decompressobj().decompress(packed, n + 1)
    if len(content) != n:
        raise ValueError(f"a block of {len(content)} bytes where {n} belong")
    return np.frombuffer(content, "<u2").reshape(shape)
