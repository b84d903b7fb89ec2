"""Small operations on label arrays: count, find and remap painted pixels.

Everything takes a window, so that a stroke costs what it touches and not what the
image holds. Works on arrays (Y, X) that slice like numpy. Which ids exist and what
they become is `_classes`' business; keeping pixels is `_blocks`' and `_project`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import AnnotationError, IntArray, Window
from napari_alibi_seg._workspace._classes import MAX_CLASS_ID

__all__ = [
    "check_ids",
    "clipped",
    "find_pixels",
    "painted_pixels",
    "remap_ids",
]

_Pixels: TypeAlias = "npt.NDArray[np.intp]"

# Labels that napari makes are int32 or int64: counted in pieces, not copied whole.
_BAND_PIXELS = 2**22


def painted_pixels(labels: Any, window: Window | None = None) -> dict[int, int]:
    """Count the painted pixels of every id.

    Parameters
    ----------
    labels : (Y, X) array of int or bool
        0 = unlabelled.
    window : Window, optional
        Where to look; everywhere by default.

    Returns
    -------
    dict of int to int
        Pixels by id, ascending, without 0.

    Raises
    ------
    AnnotationError
        If ids are not integers from 0 to 65535.

    Examples
    --------
    >>> painted_pixels(np.array([[0, 7, 7], [1, 0, 0]]))
    {1: 1, 7: 2}
    """
    total = np.zeros(1, np.int64)
    for part in _bands(clipped(window, labels.shape)):
        block = check_ids(np.asarray(labels[part.slices]))
        if block.any():
            counts = np.bincount(block.ravel())
            longer = max(len(total), len(counts))
            total = np.pad(total, (0, longer - len(total)))
            total[: len(counts)] += counts
    return {int(i): int(total[i]) for i in np.flatnonzero(total) if i}


def find_pixels(
    labels: Any, class_ids: Iterable[int], window: Window | None = None
) -> tuple[_Pixels, _Pixels]:
    """Return rows and columns of the pixels painted with some ids.

    Parameters
    ----------
    labels : (Y, X) array of int
        Ids.
    class_ids : iterable of int
        Wanted.
    window : Window, optional
        Where to look; everywhere by default.

    Returns
    -------
    rows, cols : (N,) arrays of int
        In reading order; an index into `labels` that napari's undo understands.

    Examples
    --------
    >>> find_pixels(np.array([[0, 7], [7, 2]]), [7])
    (array([0, 1]), array([1, 0]))
    """
    wanted = sorted(class_ids)
    rows: list[_Pixels] = [np.zeros(0, np.intp)]
    cols: list[_Pixels] = [np.zeros(0, np.intp)]
    for part in _bands(clipped(window, labels.shape)):
        y, x = np.nonzero(np.isin(np.asarray(labels[part.slices]), wanted))
        rows.append(y + part.y0)
        cols.append(x + part.x0)
    return np.concatenate(rows), np.concatenate(cols)


def remap_ids(
    labels: Any, mapping: Mapping[int, int], window: Window | None = None
) -> Window | None:
    """Replace ids in place, all at once, so that two can change places.

    Parameters
    ----------
    labels : (Y, X) array of int
        Changed. Only pixels of the ids in `mapping` are written.
    mapping : mapping of int to int
        New id of old ids, for example from `ClassTable.delete`.
    window : Window, optional
        Where these ids are, for example from `ScribbleBlocks.window_of`; everywhere
        by default.

    Returns
    -------
    Window or None
        The smallest that holds all changes; None if there were none.

    Raises
    ------
    AnnotationError
        If `labels` cannot hold a new id.

    Examples
    --------
    >>> labels = np.array([[0, 1, 3], [0, 3, 7]])
    >>> remap_ids(labels, {1: 3, 3: 0})
    Window(y0=0, y1=2, x0=1, x1=3)
    >>> labels.tolist()
    [[0, 3, 0], [0, 0, 7]]
    """
    largest = np.iinfo(labels.dtype).max
    too_large = [i for i in mapping.values() if not 0 <= i <= largest]
    if too_large:
        raise AnnotationError(
            f"Expected ids from 0 to {largest}, which {labels.dtype} labels can hold, "
            f"got {too_large}. Convert the labels to a larger type."
        )
    rows, cols = find_pixels(labels, mapping, window)
    if not rows.size:
        return None
    before = labels[rows, cols]
    after = before.copy()
    for old, new in mapping.items():
        after[before == old] = new
    labels[rows, cols] = after
    return Window(
        int(rows.min()), int(rows.max()) + 1, int(cols.min()), int(cols.max()) + 1
    )


def clipped(window: Window | None, shape: tuple[int, ...]) -> Window:
    """Return the part of a window that lies inside an image; all of it for None."""
    height, width = shape
    if window is None:
        return Window(0, height, 0, width)
    y0, x0 = (min(max(0, a), n) for a, n in ((window.y0, height), (window.x0, width)))
    y1, x1 = min(max(y0, window.y1), height), min(max(x0, window.x1), width)
    return Window(y0, y1, x0, x1)


def check_ids(block: npt.NDArray[Any]) -> IntArray:
    """Return an array of ids, or raise what is wrong with it."""
    if block.dtype.kind == "b":
        return block.view(np.uint8)
    if block.dtype.kind not in "iu":
        raise AnnotationError(
            f"Expected integer class ids, got {block.dtype}. Paint in a Labels layer, "
            "or convert the array."
        )
    fits = block.dtype.itemsize <= 2 and block.dtype.kind == "u"
    if not fits and block.size and not 0 <= block.min() <= block.max() <= MAX_CLASS_ID:
        raise AnnotationError(
            f"Expected class ids from 0 (unlabelled) to {MAX_CLASS_ID}, got "
            f"{block.min()} to {block.max()}. Give every class a small positive id."
        )
    return block


def _bands(window: Window) -> list[Window]:
    height, width = window.shape
    if not height or not width:
        return []
    step = max(1, _BAND_PIXELS // width)
    rows = range(window.y0, window.y1, step)
    return [Window(y, min(y + step, window.y1), window.x0, window.x1) for y in rows]
