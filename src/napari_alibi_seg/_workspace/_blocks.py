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
from napari_alibi_seg.data import Annotations

__all__ = ["BLOCK_PX", "Patch", "ScribbleBlocks"]

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


@dataclass(frozen=True, slots=True)
class Patch:
    """What one stroke made of the blocks it touched; its halves are shared, not copied.

    Attributes
    ----------
    before, after : mapping
        The blocks by position, None where nothing is painted.
    """

    before: Mapping[_Key, _Block | None]
    after: Mapping[_Key, _Block | None]

    @property
    def reverse(self) -> Patch:
        """What takes the stroke back."""
        return Patch(self.after, self.before)


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

    def read(self, window: Window, step: int = 1) -> npt.NDArray[Any]:
        """Return what is painted in a window, every `step` pixels a side as one sample.

        Parameters
        ----------
        window : Window
            Begins at multiples of `step`; may exceed the plane, where nothing is.
        step : int
            A power of two up to 256.

        Returns
        -------
        (h, w) array of uint8 or uint16
            The highest id among the pixels of a sample, so that thin strokes stay
            visible.

        Examples
        --------
        >>> blocks = ScribbleBlocks((600, 600))
        >>> _ = blocks.paint(0, 8, 4, np.full((1, 2), 3), np.array([[True, False]]))
        >>> blocks.read(Window(0, 8, 0, 16), 4).tolist()
        [[0, 0, 3, 0], [0, 0, 0, 0]]
        """
        largest = max(self.counts(), default=0)
        out = np.zeros(_samples(window, step), np.uint8 if largest < 256 else np.uint16)
        for key in self._keys_in(window):
            at = _window(key, self.shape)
            part = _overlap(at, window)
            rows, cols = (
                slice((a - b) // step, -(-(c - b) // step))
                for a, b, c in (
                    (part.y0, window.y0, part.y1),
                    (part.x0, window.x0, part.x1),
                )
            )
            own = self._blocks[key].pixels()[
                part.y0 - at.y0 : part.y1 - at.y0, part.x0 - at.x0 : part.x1 - at.x0
            ]
            out[rows, cols] = _highest(own, step)
        return out

    def paint(self, y0: int, x0: int, step: int, ids: Any, changed: Any) -> Patch:
        """Paint samples, each of `step` pixels a side.

        Parameters
        ----------
        y0, x0 : int
            First pixel of the first sample, multiples of `step`.
        step : int
            A power of two up to 256.
        ids : (h, w) array of int
            Id of each sample, 0 to erase.
        changed : (h, w) array of bool
            Which samples are painted; the pixels of the others stay as they are.

        Returns
        -------
        Patch
            For `apply`, reversed, to take it back. Without blocks if nothing changed.
        """
        rows, cols = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        if not rows.size:
            return Patch({}, {})
        around = Window(
            y0 + int(rows[0]) * step,
            y0 + (int(rows[-1]) + 1) * step,
            x0 + int(cols[0]) * step,
            x0 + (int(cols[-1]) + 1) * step,
        )
        after: dict[_Key, _Block | None] = {}
        for part in self._parts(clipped(around, self.shape)):
            spot = _overlap(part, around)
            samples = (
                slice((spot.y0 - y0) // step, -(-(spot.y1 - y0) // step)),
                slice((spot.x0 - x0) // step, -(-(spot.x1 - x0) // step)),
            )
            if changed[samples].any():
                key = (part.y0 // BLOCK_PX, part.x0 // BLOCK_PX)
                inside = (
                    slice(spot.y0 - part.y0, spot.y1 - part.y0),
                    slice(spot.x0 - part.x0, spot.x1 - part.x0),
                )
                after[key] = self._painted(
                    key,
                    inside,
                    _enlarged(ids[samples], step, spot.shape),
                    _enlarged(changed[samples], step, spot.shape),
                )
        after = {k: b for k, b in after.items() if not _same(self._blocks.get(k), b)}
        patch = Patch({k: self._blocks.get(k) for k in after}, after)
        self.apply(patch)
        return patch

    def _painted(
        self, key: _Key, inside: tuple[slice, slice], ids: Any, changed: Any
    ) -> _Block | None:
        """Return what becomes of a block where some of its pixels change."""
        there, shape = self._blocks.get(key), _window(key, self.shape).shape
        raw = np.zeros(shape, "<u2") if there is None else there.pixels().copy()
        np.copyto(raw[inside], ids, where=changed, casting="unsafe")
        return _Block(_counts(raw), shape, raw) if raw.any() else None

    def apply(self, patch: Patch) -> None:
        """Put the blocks of a patch in place."""
        for key, block in patch.after.items():
            if block is None:
                self._blocks.pop(key, None)
            else:
                self._blocks[key] = block

    def remap(self, mapping: Mapping[int, int]) -> Patch:
        """Replace ids by others, all at once; 0 erases."""
        after: dict[_Key, _Block | None] = {}
        for key, block in self._blocks.items():
            if not block.counts.keys().isdisjoint(mapping):
                before = block.pixels()
                raw = before.copy()
                for old, new in mapping.items():
                    raw[before == old] = new
                is_there = raw.any()
                after[key] = (
                    _Block(_counts(raw), block.shape, raw) if is_there else None
                )
        patch = Patch({k: self._blocks.get(k) for k in after}, after)
        self.apply(patch)
        return patch

    def annotations(self) -> Annotations:
        """Return the painted pixels in reading order, without an array of the plane.

        Examples
        --------
        >>> blocks = ScribbleBlocks((600, 600))
        >>> _ = blocks.paint(255, 255, 1, np.array([[4, 5]]), np.ones((1, 2), bool))
        >>> found = blocks.annotations()
        >>> found.rows.tolist(), found.cols.tolist(), found.ids.tolist()
        ([255, 255], [255, 256], [4, 5])
        """
        flats, ids = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for key, block in self._blocks.items():
            at, raw = _window(key, self.shape), block.pixels()
            rows, cols = np.nonzero(raw)
            flats.append((rows + at.y0) * self.shape[1] + (cols + at.x0))
            ids.append(raw[rows, cols].astype(np.int64))
        flat = np.concatenate(flats)
        order = np.argsort(flat)
        rows, cols = np.divmod(flat[order], self.shape[1])
        return Annotations(rows, cols, np.concatenate(ids)[order])

    def __getitem__(self, key: tuple[slice, slice]) -> npt.NDArray[Any]:
        """Return a part of the plane, so that blocks can be given as labels."""
        return self.read(Window(key[0].start, key[0].stop, key[1].start, key[1].stop))

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

    def as_patch(self) -> Patch:
        """Return what painted all of it on nothing."""
        return Patch(dict.fromkeys(self._blocks), dict(self._blocks))

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

    def _keys_in(self, window: Window) -> list[_Key]:
        """Return the painted blocks that meet a window."""
        if len(self._blocks) * BLOCK_PX**2 < window.shape[0] * window.shape[1]:
            keys = [*self._blocks]
        else:
            parts = self._parts(clipped(window, self.shape))
            keys = [(p.y0 // BLOCK_PX, p.x0 // BLOCK_PX) for p in parts]
        meets = (k for k in keys if k in self._blocks)
        return [k for k in meets if min(_sides(k, self.shape, window)) > 0]

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


def _overlap(one: Window, other: Window) -> Window:
    """Return what two windows share; of negative size if that is nothing."""
    return Window(
        max(one.y0, other.y0),
        min(one.y1, other.y1),
        max(one.x0, other.x0),
        min(one.x1, other.x1),
    )


def _sides(key: _Key, shape: tuple[int, int], window: Window) -> tuple[int, int]:
    part = _overlap(_window(key, shape), window)
    return part.y1 - part.y0, part.x1 - part.x0


def _samples(window: Window, step: int) -> tuple[int, int]:
    height, width = window.shape
    return -(-height // step), -(-width // step)


def _highest(ids: npt.NDArray[Any], step: int) -> npt.NDArray[Any]:
    """Return the highest id of every `step` pixels a side; the last may be cut."""
    if step == 1:
        return ids
    rows = np.maximum.reduceat(ids, np.arange(0, ids.shape[0], step), axis=0)
    return np.maximum.reduceat(rows, np.arange(0, ids.shape[1], step), axis=1)


def _enlarged(samples: Any, step: int, shape: tuple[int, int]) -> Any:
    """Repeat samples to the pixels they stand for, cut to a shape."""
    if step > 1:
        samples = samples.repeat(step, axis=0).repeat(step, axis=1)
    return samples[: shape[0], : shape[1]]


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
