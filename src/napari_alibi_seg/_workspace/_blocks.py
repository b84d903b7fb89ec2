"""Scribbles as blocks: what is painted, without the image around it.

An image of 20,000 x 20,000 pixels has 400 million labels, of which strokes paint a
thousandth. `ScribbleBlocks` mirrors a label array in blocks of 256 x 256 pixels and
keeps those with paint: a stroke updates the blocks under it, counts come from the
blocks, and a file holds them compressed. Only this module knows the layout of that
file; where it lies and when it is written is left to `_project`.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from napari_alibi_seg._base import AnnotationError, StoreError, Window
from napari_alibi_seg._workspace._painting import check_ids, clipped

__all__ = ["BLOCK_PX", "ScribbleBlocks"]

BLOCK_PX = 256
_FORMAT = "alibi-seg-scribbles"
_VERSION = 1
# Level 1: strokes are mostly zeros, and a higher level gains bytes nobody misses.
_LEVEL = 1
_MAX_SIDE = 2**31 - 1

_Ids: TypeAlias = "npt.NDArray[np.uint16]"
_Key: TypeAlias = tuple[int, int]


@dataclass(slots=True)
class _Block:
    """Pixels of one block, raw until they were first compressed."""

    counts: dict[int, int]
    shape: tuple[int, int]
    raw: _Ids | None = None
    packed: bytes = b""

    def compressed(self) -> bytes:
        raw = self.raw
        if raw is not None:
            # a reader in another thread finds either, never neither
            self.packed = zlib.compress(raw.tobytes(), _LEVEL)
            self.raw = None
        return self.packed

    def pixels(self) -> _Ids:
        raw = self.raw
        if raw is not None:
            return raw
        return _unpacked(self.packed, self.shape)


@dataclass(eq=False)
class ScribbleBlocks:
    """The painted blocks of one plane.

    Not for use from several threads at once; `Project` guards its own.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the plane.

    Examples
    --------
    >>> labels = np.zeros((600, 600), np.uint8)
    >>> labels[10, :20], labels[500, 500] = 3, 7
    >>> blocks = ScribbleBlocks((600, 600))
    >>> blocks.update(labels)
    True
    >>> blocks.counts(), len(blocks)
    ({3: 20, 7: 1}, 2)
    >>> blocks.window_of([7])
    Window(y0=256, y1=512, x0=256, x1=512)
    """

    shape: tuple[int, int]
    _blocks: dict[_Key, _Block] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self._blocks)

    def update(self, labels: Any, window: Window | None = None) -> bool:
        """Take over what is painted in a window.

        Parameters
        ----------
        labels : (Y, X) array of int
            The whole plane; only blocks that meet the window are read.
        window : Window, optional
            Where something may have changed; everywhere by default.

        Returns
        -------
        bool
            Whether anything did change.

        Raises
        ------
        AnnotationError
            If the shape is another, or ids are not from 0 to 65535.
        """
        if tuple(labels.shape) != self.shape:
            raise AnnotationError(
                f"Expected labels of the shape of the image, {self.shape}, got "
                f"{tuple(labels.shape)}. Paint on the image at full resolution."
            )
        # read and checked before anything is kept: all of it or nothing
        fresh = {
            (part.y0 // BLOCK_PX, part.x0 // BLOCK_PX): _block(labels, part)
            for part in self._parts(clipped(window, self.shape))
        }
        is_changed = False
        for key, block in fresh.items():
            if not _same(self._blocks.get(key), block):
                is_changed = True
                if block is None:
                    del self._blocks[key]
                else:
                    self._blocks[key] = block
        return is_changed

    def counts(self) -> dict[int, int]:
        """Return the painted pixels of every id, ascending."""
        total: Counter[int] = Counter()
        for block in self._blocks.values():
            total.update(block.counts)
        return dict(sorted(total.items()))

    def window_of(self, class_ids: Iterable[int]) -> Window | None:
        """Return a window of whole blocks around all pixels of some ids, or None."""
        wanted = set(class_ids)
        keys = [k for k, b in self._blocks.items() if not wanted.isdisjoint(b.counts)]
        if not keys:
            return None
        rows, cols = zip(*keys, strict=True)
        around = (
            *(min(rows) * BLOCK_PX, (max(rows) + 1) * BLOCK_PX),
            *(min(cols) * BLOCK_PX, (max(cols) + 1) * BLOCK_PX),
        )
        return clipped(Window(*around), self.shape)

    def to_array(self) -> npt.NDArray[Any]:
        """Return the whole plane, (Y, X) of uint8, or uint16 where ids need it."""
        largest = max(self.counts(), default=0)
        labels = np.zeros(self.shape, np.uint8 if largest < 256 else np.uint16)
        for key, block in self._blocks.items():
            labels[_window(key, self.shape).slices] = block.pixels()
        return labels

    def copy(self) -> ScribbleBlocks:
        """Return a copy that later updates do not change; pixels are shared."""
        return ScribbleBlocks(self.shape, dict(self._blocks))

    def to_bytes(self, about: Mapping[str, str] | None = None) -> bytes:
        """Return the content of a file, the same for the same paint.

        Parameters
        ----------
        about : mapping of str to str, optional
            Kept with the pixels, for example which image they belong to.
        """
        keys = sorted(self._blocks)
        packed = [self._blocks[k].compressed() for k in keys]
        arrays: dict[str, npt.NDArray[Any]] = {
            "keys": np.array(keys, np.int32).reshape(-1, 2),
            "sizes": np.array([len(p) for p in packed], np.int64),
            "pixels": np.frombuffer(b"".join(packed), np.uint8),
        }
        meta = {
            "format": _FORMAT,
            "version": _VERSION,
            "shape": list(self.shape),
            "block": BLOCK_PX,
            "about": dict(about or {}),
            "digest": _digest(arrays),
        }
        text = json.dumps(meta, sort_keys=True, ensure_ascii=False).encode()
        return save({"meta": np.frombuffer(text, np.uint8), **arrays})

    @classmethod
    def from_bytes(
        cls, content: bytes, where: str = "scribbles"
    ) -> tuple[ScribbleBlocks, dict[str, str]]:
        """Read the content of a file.

        Parameters
        ----------
        content : bytes
            From `to_bytes`.
        where : str
            For messages.

        Returns
        -------
        blocks : ScribbleBlocks
        about : dict of str to str
            What was kept with the pixels.

        Raises
        ------
        StoreError
            If it is damaged, foreign or of a later version.
        """
        try:
            return _parsed(content)
        except (
            *(SafetensorError, zlib.error, ValueError, KeyError, TypeError),
            *(AttributeError, OverflowError, RecursionError, MemoryError),
        ) as err:
            reason = " ".join(str(err).split())[:200] or type(err).__name__
            raise StoreError(
                f"{where}: expected scribbles of this program, got a file that is "
                f"damaged or of another kind ({reason})."
            ) from err

    def _parts(self, window: Window) -> Iterator[Window]:
        """Yield whole blocks that meet a window."""
        if 0 in window.shape:
            return
        for by in range(window.y0 // BLOCK_PX, (window.y1 - 1) // BLOCK_PX + 1):
            for bx in range(window.x0 // BLOCK_PX, (window.x1 - 1) // BLOCK_PX + 1):
                yield _window((by, bx), self.shape)


def _window(key: _Key, shape: tuple[int, int]) -> Window:
    y, x = key[0] * BLOCK_PX, key[1] * BLOCK_PX
    return Window(y, min(y + BLOCK_PX, shape[0]), x, min(x + BLOCK_PX, shape[1]))


def _block(labels: Any, window: Window) -> _Block | None:
    """Return a block of a label array, None where nothing is painted."""
    ids = np.asarray(labels[window.slices])
    if not ids.any():
        return None
    # always a copy: the caller goes on painting
    raw = np.array(check_ids(ids), "<u2", order="C")
    return _Block(_counts(raw), window.shape, raw)


def _counts(raw: _Ids) -> dict[int, int]:
    n = np.bincount(raw.ravel())
    return {int(i): int(n[i]) for i in np.flatnonzero(n) if i}


def _same(one: _Block | None, other: _Block | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.counts == other.counts and np.array_equal(one.pixels(), other.pixels())


def _digest(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in ("keys", "sizes", "pixels"):
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()


def _unpacked(packed: bytes, shape: tuple[int, int]) -> _Ids:
    n = shape[0] * shape[1] * 2
    # one byte more than fits tells a block that would not end
    content = zlib.decompressobj().decompress(packed, n + 1)
    if len(content) != n:
        raise ValueError(f"a block of {len(content)} bytes where {n} belong")
    return np.frombuffer(content, "<u2").reshape(shape)


def _parsed(content: bytes) -> tuple[ScribbleBlocks, dict[str, str]]:
    arrays = load(content)
    meta = json.loads(arrays.pop("meta").tobytes())
    if meta["format"] != _FORMAT or meta["version"] != _VERSION:
        raise ValueError(f"format {meta['format']!r}, version {meta['version']!r}")
    if meta["block"] != BLOCK_PX or meta["digest"] != _digest(arrays):
        raise ValueError("its checksum does not fit")
    height, width = (int(n) for n in meta["shape"])
    if not 1 <= min(height, width) <= max(height, width) <= _MAX_SIDE:
        raise ValueError(f"shape {height} x {width}")
    blocks = ScribbleBlocks((height, width))
    ends = np.cumsum(arrays["sizes"])
    pixels = arrays["pixels"].tobytes()
    for key, end, size in zip(
        arrays["keys"].tolist(), ends.tolist(), arrays["sizes"].tolist(), strict=True
    ):
        at = (int(key[0]), int(key[1]))
        window = _window(at, blocks.shape)
        if min(at) < 0 or min(window.shape) < 1:
            raise ValueError(f"a block at {at}, outside")
        packed = pixels[end - size : end]
        counts = _counts(_unpacked(packed, window.shape))
        blocks._blocks[at] = _Block(counts, window.shape, None, packed)
    about = {str(k): str(v) for k, v in dict(meta["about"]).items()}
    return blocks, about
