"""Coarser copies of an image that has none, made once and kept on disk.

A viewer draws a huge image from a level about as fine as the screen. Only this module
knows how ours are stored: a zarr group with an array for each level, in chunks of one
tile, which are there whole or not at all, so that making them can be stopped and gone
on with. What a file holds itself is opened by `open_levels`; coarser results are
`_results`', and which stores are deleted to save space is `_level_cache`'s.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_alibi_seg._base import OutputError, StoreError, Window
from napari_alibi_seg.data._atomic import explained
from napari_alibi_seg.data._io import open_image
from napari_alibi_seg.data._level_cache import LEVELS_SUFFIX, Use, trim_levels
from napari_alibi_seg.data._pyramid import level_shapes, window_above
from napari_alibi_seg.data._source import ImageSource
from napari_alibi_seg.data._tiling import pixel_tiles

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["coarse_store", "iter_coarse_levels", "open_coarse_levels"]

# A screen full: nothing coarser is of use.
_COARSEST_PX = 1024
_TILE_PX = 512
_DONE = "alibi_seg_levels"


def coarse_store(source: ImageSource, folder: Path) -> Path:
    """Return where the coarser levels of a file belong.

    Named after the file, its size and its time, so that nothing has to be read to find
    them, and those of a file that was changed are not.

    Parameters
    ----------
    source : ImageSource
        From a file.
    folder : Path
        Of all such stores.

    Raises
    ------
    StoreError
        If the image is in no file.
    """
    if source.path is None:
        raise StoreError(
            f"{source.name}: expected an image in a file, got an array. Save it first."
        )
    meta = source.path / "zarr.json" if source.path.is_dir() else source.path
    stat = (meta if meta.exists() else source.path).stat()
    about = [
        str(source.path.resolve()), source.name, source.shape,
        source.plane, source.time, stat.st_size, stat.st_mtime_ns,
    ]  # fmt: skip
    key = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]
    return folder / f"{key}{LEVELS_SUFFIX}"


def iter_coarse_levels(source: ImageSource, store: Path) -> Iterator[tuple[int, int]]:
    """Make the levels below an image, each half of the one before it.

    Parameters
    ----------
    source : ImageSource
        The image, or the coarsest level that is there.
    store : Path
        Ends in ``.zarr``. What is there of it is kept. Other stores of levels beside it
        are deleted, the least recently used first, while all together are larger than
        10 GB; none that is in use.

    Yields
    ------
    tuple of int
        Tiles done, and in all. Memory is that of some tiles.

    Raises
    ------
    OutputError
        If the disk is full or cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> source = open_image(np.full((2100, 700), 7, np.uint8))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = Path(folder) / "a.zarr"
    ...     *_, last = iter_coarse_levels(source, store)
    ...     [level.shape for level in open_coarse_levels(source, store)]
    [(1050, 350), (525, 175)]
    >>> last
    (5, 5)
    """
    with explained(store, 4096):
        use = Use.of_new(store)
    try:
        yield from _iter_made(source, store)
        trim_levels(store.parent)
    finally:
        use.release()


def _iter_made(source: ImageSource, store: Path) -> Iterator[tuple[int, int]]:
    import zarr

    shapes = level_shapes(source.shape, _COARSEST_PX)
    tiles = [
        (level, window)
        for level in range(1, len(shapes))
        for window in pixel_tiles(shapes[level], _TILE_PX)
    ]
    with explained(store, 4096):
        group = zarr.open_group(store, mode="a")
        arrays: dict[int, Any] = {
            level: _level(group, level, shapes[level], source)
            for level in range(1, len(shapes))
        }
        for done, (level, window) in enumerate(tiles, 1):
            if not _chunk(store, level, window).exists():
                above = window_above(window, shapes[level - 1])
                fine = (
                    source.read(above)
                    if level == 1
                    else arrays[level - 1][above.slices]
                )
                arrays[level][window.slices] = _halved(np.asarray(fine))
            yield done, len(tiles)
        group.attrs[_DONE] = len(shapes) - 1


def open_coarse_levels(source: ImageSource, store: Path) -> list[ImageSource] | None:
    """Return the levels that `iter_coarse_levels` made, None unless all are there.

    As long as one of them is in use, in this process or another, none is deleted to
    save space.
    """
    import zarr

    if not store.exists():
        return None
    use = Use(store)
    try:
        if not use.holds(store):  # deleted while we waited
            return None
        group = zarr.open_group(store, mode="r")
        n = group.attrs.asdict().get(_DONE)
        arrays = (
            [group[str(level)] for level in range(1, int(n) + 1)]
            if n is not None
            else None
        )
    except (ValueError, OSError, KeyError, TypeError) as err:
        raise StoreError(
            f"{store} is no store of coarser levels, or is damaged ({err}). Delete it; "
            f"it is made again."
        ) from err
    else:
        if arrays is None:
            return None
        axes = "YXS" if source.meaning == "rgb" else "YXC"
        levels = [open_image(array, axes=axes) for array in arrays]
        use.hold_for(levels)
        return levels
    finally:
        use.release()


def _level(group: Any, level: int, shape: tuple[int, int], source: ImageSource) -> Any:
    import zarr

    n = source.n_channels
    if str(level) not in group:
        group.create_array(
            str(level),
            shape=(*shape, n),
            chunks=(_TILE_PX, _TILE_PX, n),
            dtype=source.dtype,
            fill_value=0,
        )
    array = group[str(level)]
    if array.shape != (*shape, n):
        raise OutputError(
            f"{group.store_path}: expected levels of {shape}, got {array.shape}. "
            f"Delete the folder; it is made again."
        )
    # what is black everywhere is done too
    return zarr.Array(
        zarr.AsyncArray(array.metadata, array.store_path, {"write_empty_chunks": True})
    )


def _chunk(store: Path, level: int, window: Window) -> Path:
    at = (window.y0 // _TILE_PX, window.x0 // _TILE_PX, 0)
    return store.joinpath(str(level), "c", *map(str, at))


def _halved(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the means of 2 x 2 pixels, (h, w, C), rounded where they are integers."""
    edges = [(0, n % 2) for n in pixels.shape[:2]]
    pixels = np.pad(pixels, [*edges, (0, 0)], mode="edge")
    is_real = pixels.dtype.kind == "f"
    wide = pixels.astype(
        np.float64 if pixels.dtype.itemsize > 4 or is_real else np.int64
    )
    total = wide[0::2, 0::2] + wide[1::2, 0::2] + wide[0::2, 1::2] + wide[1::2, 1::2]
    mean = total / 4 if is_real or wide.dtype.kind == "f" else (total + 2) // 4
    return mean.astype(pixels.dtype)
