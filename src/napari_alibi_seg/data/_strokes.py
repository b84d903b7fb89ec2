"""Sparse annotations as a hand would paint them.

Only this module knows how a stroke moves: it starts where the class has room, bends
a little, turns before it leaves the class, and where the class ends goes on as a dab
in the next piece. Used to make samples, benchmarks and tests; it knows nothing of
images.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_alibi_seg._base import SettingsError, UInt8Array, Window

__all__ = ["draw_scribbles"]

_Mask: TypeAlias = npt.NDArray[np.bool_]

# Masks use 0 for "not labelled" and 255 for "ignore".
_NOT_A_CLASS = (0, 255)
_MAX_DABS = 8
_TURNS = np.deg2rad([0, 20, -20, 40, -40, 65, -65, 90, -90])


def draw_scribbles(
    mask: npt.NDArray[np.integer],
    *,
    strokes_per_class: int = 3,
    width: int = 3,
    seed: int = 0,
    region: Window | None = None,
) -> UInt8Array:
    """Paint a few short strokes on every class of a mask.

    Parameters
    ----------
    mask : (Y, X) array of int
        Class ids 1 to 254; 0 and 255 get no stroke.
    strokes_per_class : int
        Strokes on each class, far from one another.
    width : int
        Brush diameter, pixels. A class narrower than the brush is painted over its
        own width only.
    seed : int
        Equal arguments give equal strokes.
    region : Window, optional
        Only here. A class that does not occur in it gets no stroke.

    Returns
    -------
    (Y, X) uint8
        Class id under a stroke, 0 elsewhere. Every painted pixel equals `mask`.

    Raises
    ------
    SettingsError
        If `mask` is not a 2-D array of such ids, a count is not positive or `region`
        does not overlap the mask.

    Examples
    --------
    >>> mask = np.ones((64, 64), np.uint8)
    >>> mask[:, 32:] = 2
    >>> painted = draw_scribbles(mask, region=Window(0, 64, 0, 40))
    >>> sorted(int(i) for i in np.unique(painted))
    [0, 1, 2]
    >>> bool(painted[:, 40:].any())
    False
    """
    window = _validated_window(mask, strokes_per_class, width, region)
    out = np.zeros(mask.shape, dtype=np.uint8)
    view, classes = out[window.slices], mask[window.slices]
    length = max(4 * width, min(mask.shape) // 9)
    for class_id in np.unique(classes):
        if class_id in _NOT_A_CLASS:
            continue
        # A class keeps its strokes when another class comes or goes.
        rng = np.random.default_rng([seed, int(class_id)])
        inside = classes == class_id
        painted = np.zeros(inside.shape, dtype=bool)
        starts: list[tuple[int, int]] = []
        for _ in range(strokes_per_class):
            painted |= _stroke(inside, starts, (length, width), rng)
        view[painted & inside] = class_id
    return out


def _validated_window(
    mask: npt.NDArray[np.integer],
    strokes_per_class: int,
    width: int,
    region: Window | None,
) -> Window:
    """Return the part of the mask that may be painted."""
    if mask.ndim != 2 or mask.dtype.kind not in "iu":
        raise SettingsError(
            "`mask` must be a (Y, X) array of integers, "
            f"got shape {mask.shape} and dtype {mask.dtype}."
        )
    if mask.size and (mask.min() < 0 or mask.max() > 255):
        raise SettingsError(
            "`mask` must hold ids 0 to 255, "
            f"got {int(mask.min())} to {int(mask.max())}."
        )
    for name, value in (("strokes_per_class", strokes_per_class), ("width", width)):
        if value < 1:
            raise SettingsError(f"`{name}` must be 1 or more, got {value!r}.")
    whole = Window(0, mask.shape[0], 0, mask.shape[1])
    if region is None:
        return whole
    cut = Window(
        max(region.y0, 0),
        min(region.y1, whole.y1),
        max(region.x0, 0),
        min(region.x1, whole.x1),
    )
    if min(cut.shape) < 1:
        raise SettingsError(
            f"`region` must overlap the mask of shape {mask.shape}, got {region!r}."
        )
    return cut


def _stroke(
    inside: _Mask,
    starts: list[tuple[int, int]],
    size: tuple[int, int],
    rng: np.random.Generator,
) -> _Mask:
    """Paint one stroke of (length, width), lifting the brush where a piece ends."""
    length, width = size
    room = _room(inside, width)
    start = _far_start(room, starts, rng)
    starts.append(start)
    path: list[tuple[int, int]] = []
    for _ in range(_MAX_DABS):
        piece = _walk(room, start, length - len(path), rng)
        path += piece
        if len(path) >= length:
            break
        start = _next_piece(room, path, length, rng)
    return _brush(inside.shape, path, width)


def _room(inside: _Mask, width: int) -> _Mask:
    """Where the centre of the brush may go: all of it inside, if that is possible."""
    for w in range(width, 1, -1):
        room = ndimage.minimum_filter(inside, size=w, mode="constant", cval=0)
        if room.any():
            return np.asarray(room)
    return inside


def _far_start(
    room: _Mask, starts: list[tuple[int, int]], rng: np.random.Generator
) -> tuple[int, int]:
    """Of a few random places take the one farthest from the strokes so far."""
    flat = np.flatnonzero(room)
    picks = np.column_stack(
        np.unravel_index(flat[rng.integers(0, flat.size, 8)], room.shape)
    )
    if not starts:
        return int(picks[0, 0]), int(picks[0, 1])
    gaps = picks[:, None, :] - np.array(starts)[None, :, :]
    best = int(np.hypot(gaps[..., 0], gaps[..., 1]).min(axis=1).argmax())
    return int(picks[best, 0]), int(picks[best, 1])


def _next_piece(
    room: _Mask, path: list[tuple[int, int]], length: int, rng: np.random.Generator
) -> tuple[int, int]:
    """Pick a place near the end of `path`, off what it has painted if possible."""
    y, x = path[-1]
    reach = 2 * length
    y0, x0 = max(y - reach, 0), max(x - reach, 0)
    near = room[y0 : y + reach, x0 : x + reach].copy()
    done = np.array(path) - (y0, x0)
    fits = ((done >= 0) & (done < near.shape)).all(axis=1)
    fresh = near & ~ndimage.binary_dilation(
        _brush(near.shape, [(int(r), int(c)) for r, c in done[fits]], 1), iterations=3
    )
    rows, columns = np.nonzero(fresh if fresh.any() else near)
    pick = int(rng.integers(rows.size))
    return int(rows[pick]) + y0, int(columns[pick]) + x0


def _walk(
    room: _Mask, start: tuple[int, int], length: int, rng: np.random.Generator
) -> list[tuple[int, int]]:
    """Walk up to `length` pixels on a bent line, turning away from the edge."""
    y, x = float(start[0]), float(start[1])
    heading, bend = rng.uniform(0, 2 * np.pi), 0.0
    path = [start]
    while len(path) < length:
        bend = 0.8 * bend + rng.normal(0.0, 0.06)
        for turn in _TURNS:
            angle = heading + bend + turn
            ny, nx = y + np.sin(angle), x + np.cos(angle)
            row, column = round(ny), round(nx)
            if (
                0 <= row < room.shape[0]
                and 0 <= column < room.shape[1]
                and room[row, column]
            ):
                break
        else:
            return path
        y, x, heading = ny, nx, angle
        path.append((row, column))
    return path


def _brush(shape: tuple[int, ...], path: list[tuple[int, int]], width: int) -> _Mask:
    """Draw a round brush along a path."""
    out = np.zeros(shape, dtype=bool)
    offsets = np.arange(width) - (width - 1) // 2
    dy, dx = np.meshgrid(offsets, offsets, indexing="ij")
    centre = offsets.mean()
    disc = (dy - centre) ** 2 + (dx - centre) ** 2 <= (width / 2) ** 2
    yx = np.array(path)
    rows = (yx[:, :1] + dy[disc]).ravel()
    columns = (yx[:, 1:] + dx[disc]).ravel()
    fits = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
    out[rows[fits], columns[fits]] = True
    return out
