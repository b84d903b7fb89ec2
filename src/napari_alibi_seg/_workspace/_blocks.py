"""Scribbles as blocks: what is painted, without the image around it.

An image of 20,000 x 20,000 pixels has 400 million labels, of which strokes paint a
thousandth. `ScribbleBlocks` mirrors a label array in blocks and keeps those with paint:
a stroke updates the blocks under it, and counts come from the blocks. What a block is
stands in `_block`, their file in `_block_file`; where that lies and when it is written
is left to `_project`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import AnnotationError, Window
from napari_alibi_seg._workspace._block import (
    BLOCK_PX,
    Block,
    Key,
    block_of,
    block_window,
    counts_of,
    enlarged,
    highest,
    is_same,
    meet,
    n_samples,
    overlap,
)
from napari_alibi_seg._workspace._block_file import file_of, parsed
from napari_alibi_seg._workspace._painting import clipped
from napari_alibi_seg.data import Annotations

__all__ = ["Patch", "ScribbleBlocks"]


@dataclass(frozen=True, slots=True)
class Patch:
    """What one stroke made of the blocks it touched; its halves are shared, not copied.

    Attributes
    ----------
    before, after : mapping
        The blocks by position, None where nothing is painted.
    """

    before: Mapping[Key, Block | None]
    after: Mapping[Key, Block | None]

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
    _blocks: dict[Key, Block] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self._blocks)

    def update(self, labels: Any, window: Window | None = None) -> bool:
        """Take over what is painted in a window.

        Parameters
        ----------
        labels : (Y, X) array of int or ScribbleBlocks
            The whole plane; only blocks that meet the window are read. Blocks are
            shared, not copied.
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
            (part.y0 // BLOCK_PX, part.x0 // BLOCK_PX): _taken(labels, part)
            for part in self._parts(clipped(window, self.shape))
        }
        is_changed = False
        for key, block in fresh.items():
            if not is_same(self._blocks.get(key), block):
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
        dtype = np.uint8 if largest < 256 else np.uint16
        out = np.zeros(n_samples(window, step), dtype)
        for key in self._keys_in(window):
            at = block_window(key, self.shape)
            part = overlap(at, window)
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
            out[rows, cols] = highest(own, step)
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
        after: dict[Key, Block | None] = {}
        for part in self._parts(clipped(around, self.shape)):
            spot = overlap(part, around)
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
                    enlarged(ids[samples], step, spot.shape),
                    enlarged(changed[samples], step, spot.shape),
                )
        after = {k: b for k, b in after.items() if not is_same(self._blocks.get(k), b)}
        patch = Patch({k: self._blocks.get(k) for k in after}, after)
        self.apply(patch)
        return patch

    def _painted(
        self, key: Key, inside: tuple[slice, slice], ids: Any, changed: Any
    ) -> Block | None:
        """Return what becomes of a block where some of its pixels change."""
        there, shape = self._blocks.get(key), block_window(key, self.shape).shape
        raw = np.zeros(shape, "<u2") if there is None else there.pixels().copy()
        np.copyto(raw[inside], ids, where=changed, casting="unsafe")
        return Block(counts_of(raw), shape, raw) if raw.any() else None

    def apply(self, patch: Patch) -> None:
        """Put the blocks of a patch in place."""
        for key, block in patch.after.items():
            if block is None:
                self._blocks.pop(key, None)
            else:
                self._blocks[key] = block

    def remap(self, mapping: Mapping[int, int]) -> Patch:
        """Replace ids by others, all at once; 0 erases."""
        after: dict[Key, Block | None] = {}
        for key, block in self._blocks.items():
            if not block.counts.keys().isdisjoint(mapping):
                before = block.pixels()
                raw = before.copy()
                for old, new in mapping.items():
                    raw[before == old] = new
                is_there = raw.any()
                after[key] = (
                    Block(counts_of(raw), block.shape, raw) if is_there else None
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
            at, raw = block_window(key, self.shape), block.pixels()
            rows, cols = np.nonzero(raw)
            flats.append((rows + at.y0) * self.shape[1] + (cols + at.x0))
            ids.append(raw[rows, cols].astype(np.int64))
        flat = np.concatenate(flats)
        order = np.argsort(flat)
        rows, cols = np.divmod(flat[order], self.shape[1])
        return Annotations(rows, cols, np.concatenate(ids)[order])

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
            labels[block_window(key, self.shape).slices] = block.pixels()
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
        return file_of(self.shape, self._blocks, about or {})

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
        shape, found, about = parsed(content, where)
        return cls(shape, found), about

    def _keys_in(self, window: Window) -> list[Key]:
        """Return the painted blocks that meet a window."""
        if len(self._blocks) * BLOCK_PX**2 < window.shape[0] * window.shape[1]:
            keys = [*self._blocks]
        else:
            parts = self._parts(clipped(window, self.shape))
            keys = [(p.y0 // BLOCK_PX, p.x0 // BLOCK_PX) for p in parts]
        meets = (k for k in keys if k in self._blocks)
        return [k for k in meets if meet(block_window(k, self.shape), window)]

    def _parts(self, window: Window) -> Iterator[Window]:
        """Yield whole blocks that meet a window."""
        if 0 in window.shape:
            return
        for by in range(window.y0 // BLOCK_PX, (window.y1 - 1) // BLOCK_PX + 1):
            for bx in range(window.x0 // BLOCK_PX, (window.x1 - 1) // BLOCK_PX + 1):
                yield block_window((by, bx), self.shape)


def _taken(labels: Any, part: Window) -> Block | None:
    """Return a block of an array of labels, or of other blocks."""
    if isinstance(labels, ScribbleBlocks):
        return labels._blocks.get((part.y0 // BLOCK_PX, part.x0 // BLOCK_PX))
    return block_of(labels, part)
