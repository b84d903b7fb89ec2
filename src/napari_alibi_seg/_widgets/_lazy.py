"""A level of a file as an array for napari: decoded where it is looked at, and kept.

Only this module knows which part of an array-like napari asks for, and how much of
what was decoded is remembered: panning to and fro decodes nothing twice. Reading is
`ImageSource`'s.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from napari_alibi_seg._base import Window
from napari_alibi_seg.data import BlockCache, ImageSource

__all__ = ["LazyPlane", "lazy_levels"]

_BLOCK_PX = 512
_CACHE_BYTES = 384 << 20


class LazyPlane:
    """One resolution of an image plane, (Y, X) or (Y, X, 3).

    Parameters
    ----------
    source : ImageSource
        Its pixels. Of several channels that are no colours the first is shown.
    number : int
        Of the level, to tell its blocks from those of others.
    cache : BlockCache
        Shared by all levels.

    Examples
    --------
    >>> from napari_alibi_seg.data import open_image
    >>> plane = LazyPlane(
    ...     open_image(np.arange(12).reshape(3, 4)), 0, BlockCache(1 << 20)
    ... )
    >>> plane.shape, plane[1, 1:3].tolist()
    ((3, 4), [5, 6])
    """

    def __init__(
        self, source: ImageSource, number: int, cache: BlockCache[Any]
    ) -> None:
        self.source = source
        self._number = number
        self._cache = cache
        self.is_rgb = source.meaning == "rgb"
        self.shape = (*source.shape, 3) if self.is_rgb else source.shape
        self.dtype = source.dtype
        self.ndim = len(self.shape)
        self.size = math.prod(self.shape)
        # napari reads whole chunks: moves inside them need nothing new
        self.chunks = tuple(
            _cuts(n, _BLOCK_PX) if i < 2 else (n,) for i, n in enumerate(self.shape)
        )

    def __getitem__(self, key: Any) -> Any:
        """Return a part; only the blocks that it touches are decoded."""
        full = _full_key(key, self.ndim)
        (y0, y1, rows), (x0, x1, cols) = (
            _around(k, n) for k, n in zip(full[:2], self.shape[:2], strict=True)
        )
        return self._read(Window(y0, y1, x0, x1))[(rows, cols, *full[2:])]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """Return all of it; napari asks that of small levels only."""
        return np.asarray(self[:, :], dtype=dtype)

    def _read(self, window: Window) -> Any:
        out = np.empty((*window.shape, *self.shape[2:]), self.dtype)
        for y in range(window.y0 // _BLOCK_PX, -(-window.y1 // _BLOCK_PX)):
            for x in range(window.x0 // _BLOCK_PX, -(-window.x1 // _BLOCK_PX)):
                at = Window(
                    y * _BLOCK_PX,
                    min((y + 1) * _BLOCK_PX, self.shape[0]),
                    x * _BLOCK_PX,
                    min((x + 1) * _BLOCK_PX, self.shape[1]),
                )
                block = self._cache.get(
                    (self._number, y, x), partial(self._decoded, at)
                )
                top, left = max(at.y0, window.y0), max(at.x0, window.x0)
                end, right = min(at.y1, window.y1), min(at.x1, window.x1)
                out[
                    top - window.y0 : end - window.y0,
                    left - window.x0 : right - window.x0,
                ] = block[top - at.y0 : end - at.y0, left - at.x0 : right - at.x0]
        return out

    def _decoded(self, window: Window) -> Any:
        pixels = self.source.read(window)
        return pixels[..., :3] if self.is_rgb else np.ascontiguousarray(pixels[..., 0])


def lazy_levels(sources: list[ImageSource]) -> list[LazyPlane]:
    """Return the levels of an image, full resolution first, for a multiscale layer."""
    cache: BlockCache[Any] = BlockCache(_CACHE_BYTES)
    return [LazyPlane(source, i, cache) for i, source in enumerate(sources)]


def _cuts(n: int, block: int) -> tuple[int, ...]:
    return tuple(min(block, n - at) for at in range(0, n, block))


def _full_key(key: Any, ndim: int) -> tuple[Any, ...]:
    keys = key if isinstance(key, tuple) else (key,)
    if any(k is Ellipsis for k in keys):
        at = next(i for i, k in enumerate(keys) if k is Ellipsis)
        more = ndim - len(keys) + 1
        keys = (*keys[:at], *[slice(None)] * more, *keys[at + 1 :])
    return (*keys, *[slice(None)] * (ndim - len(keys)))


def _around(key: Any, n: int) -> tuple[int, int, Any]:
    """Return a range that holds what an index asks for, and the index within it."""
    if isinstance(key, slice):
        start, stop, step = key.indices(n)
        if step < 0 or start >= stop:
            return 0, n, key
        return start, stop, slice(0, stop - start, step)
    at = np.asarray(key)
    at = np.where(at < 0, at + n, at)
    low, high = int(at.min()), int(at.max()) + 1
    return low, high, at - low if at.ndim else int(at) - low
