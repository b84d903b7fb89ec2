"""Planes of npy files, HDF5 files and arrays in memory.

Only this module knows where HDF5 keeps its images and how containers name axes: by
dimension names, by ilastik's axis tags, or not at all. Which of several datasets
is meant is decided by name: a dataset called image, data or raw is the obvious one if
no other is as near to the root.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from napari_alibi_seg._base import ImageFileError, SettingsError, Window
from napari_alibi_seg.data._guard import check_dtype, check_length
from napari_alibi_seg.data._pixel_size import pixel_size
from napari_alibi_seg.data._planes import (
    BlockedPlane,
    MappedPlane,
    PlaneReader,
    SlicedPlane,
    chunk_edges,
)
from napari_alibi_seg.data._source import Stored

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from napari_alibi_seg._base import PixelSize
    from napari_alibi_seg.data._axes import Selection

__all__ = [
    "array_plane",
    "choose_dataset",
    "is_image",
    "named_axes",
    "stored_array",
    "stored_hdf5",
    "stored_npy",
]

_OBVIOUS = ("image", "data", "raw")
_MAX_NAMED = 12
_NPY_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_THREAD_SAFE = ("numpy", "zarr", "dask", "h5py")


def stored_array(array: Any) -> Stored:
    """Describe an array in memory or anything that looks like one.

    Raises
    ------
    SettingsError
        If it has no `shape` or `dtype`.
    ImageFileError
        If its dtype holds no pixel values.
    """
    shape = getattr(array, "shape", None)
    try:
        dtype = np.dtype(array.dtype)
    except (AttributeError, TypeError):
        dtype = None
    if not isinstance(shape, tuple) or dtype is None or not _is_sized(shape):
        raise SettingsError(
            "Expected a path, an array (numpy, zarr, dask, h5py) or an ImageSource as "
            f"`image`, got {type(array).__name__}"
            + (f" of shape {shape}." if shape is not None else ".")
            + " Convert it with numpy.asarray first."
        )
    name = "array"
    known = check_dtype(dtype, name)
    notes: tuple[str, ...] = ()
    if isinstance(array, np.ma.MaskedArray):
        notes = ("Masked pixels are read as if they were not masked.",)
    return Stored(
        name=name,
        path=None,
        axes=named_axes(getattr(array, "dims", None), shape),
        shape=tuple(int(n) for n in shape),
        dtype=known,
        open_plane=lambda chosen: array_plane(array, chosen, known),
        notes=notes,
    )


def _is_sized(shape: tuple[Any, ...]) -> bool:
    # dask does not know every length before it computes
    return all(not isinstance(n, float) or math.isfinite(n) for n in shape)


def array_plane(array: Any, chosen: Selection, dtype: np.dtype) -> PlaneReader:
    """Make the reader of an array: by blocks where it is chunked."""
    is_known = type(array).__module__.split(".")[0] in _THREAD_SAFE
    sliced = SlicedPlane(array, chosen, has_own_lock=is_known)
    chunks = getattr(array, "chunks", None)
    if not isinstance(chunks, tuple) or len(chunks) != len(chosen.axes):
        return sliced
    return _blocked(sliced.read, chunks, chosen, dtype)


def _blocked(
    read: Callable[[Window], Any],
    chunks: Sequence[Any],
    chosen: Selection,
    dtype: np.dtype,
) -> BlockedPlane:
    # A window of a store with huge chunks would decode them again and again.
    height, width = chosen.plane_shape
    rows = chunk_edges(chunks[chosen.axes.index("Y")], height)
    columns = chunk_edges(chunks[chosen.axes.index("X")], width)

    def load(row: int, column: int) -> Any:
        return read(
            Window(rows[row], rows[row + 1], columns[column], columns[column + 1])
        )

    return BlockedPlane(
        rows, columns, n_channels=chosen.n_channels, dtype=dtype, load=load
    )


def stored_npy(path: Path) -> Stored:
    """Describe an npy file; it is mapped, and never unpickled.

    Raises
    ------
    ImageFileError
        If it is of a newer version, cut short, or holds no numbers.
    """
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        if version not in _NPY_HEADERS:  # 3.0 is only for named fields
            raise ImageFileError(
                f"{path}: expected an npy file of version 1.0 or 2.0, got {version}. "
                "Save a plain array with numpy.save."
            )
        shape, is_fortran, dtype = _NPY_HEADERS[version](file)
        offset = file.tell()
    known = check_dtype(dtype, str(path))
    check_length(path, offset + math.prod(shape) * dtype.itemsize)
    return Stored(
        name=path.name,
        path=path,
        axes=None,
        shape=shape,
        dtype=known,
        open_plane=lambda chosen: MappedPlane(
            path, chosen, dtype=dtype, offset=offset, order="F" if is_fortran else "C"
        ),
    )


def stored_hdf5(path: Path, dataset: str | None) -> Stored:
    """Describe a dataset of an HDF5 file, named or obvious.

    Raises
    ------
    SettingsError
        If several datasets may be meant, or the named one is not there.
    ImageFileError
        If there is no image-like dataset.
    """
    with h5py.File(path, "r") as file:
        held: dict[str, h5py.Dataset] = {}

        def visit(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                held[name] = item

        file.visititems(visit)
        shapes = {n: d.shape for n, d in held.items() if is_image(d.shape, d.dtype)}
        name = choose_dataset(path, dataset, list(held), shapes)
        found = held[name]
        where = f"{path}:{name}"
        known = check_dtype(found.dtype, where)
        shape = tuple(found.shape or ())
        axes = _hdf5_axes(found, shape)
        size = _hdf5_pixel_size(found.attrs, axes)
        chunks = found.chunks

    def open_plane(chosen: Selection) -> PlaneReader:
        reader = _Hdf5Plane(path, name, chosen)
        return (
            reader if chunks is None else _blocked(reader.read, chunks, chosen, known)
        )

    return Stored(
        name=f"{path.name}:{name}",
        path=path,
        axes=axes,
        shape=shape,
        dtype=known,
        open_plane=open_plane,
        pixel_size=size,
    )


@dataclass(frozen=True, slots=True)
class _Hdf5Plane:
    """Cuts windows out of a dataset, opened for each read (h5py locks by itself)."""

    path: Path
    name: str
    chosen: Selection

    def read(self, window: Window) -> Any:
        with h5py.File(self.path, "r") as file:
            block = file[self.name][self.chosen.index(*window.slices)]
        return self.chosen.to_yxc(block)


def _hdf5_axes(dataset: h5py.Dataset, shape: tuple[int, ...]) -> str | None:
    labels = [dim.label for dim in dataset.dims]
    tags = dataset.attrs.get("axistags")  # vigra's, written by ilastik
    if isinstance(tags, str | bytes):
        try:
            labels = [axis["key"] for axis in json.loads(tags)["axes"]]
        except (ValueError, KeyError, TypeError):
            labels = []
    return named_axes(labels, shape)


def _hdf5_pixel_size(
    attributes: Mapping[str, Any], axes: str | None
) -> PixelSize | None:
    for key in ("element_size_um", "pixel_size_um"):
        if key in attributes:
            sides = np.atleast_1d(attributes[key]).ravel()
            if axes is not None and len(sides) == len(axes):
                y, x = sides[axes.index("Y")], sides[axes.index("X")]
                z = sides[axes.index("Z")] if "Z" in axes else None
                return pixel_size(y, x, "um", z=z)
            if len(sides) in (1, 2, 3):  # one side, YX or ZYX
                z = sides[0] if len(sides) == 3 else None
                return pixel_size(sides[-2:][0], sides[-1], "um", z=z)
    return None


def named_axes(names: Any, shape: tuple[int, ...]) -> str | None:
    """Return axis letters from names that are single letters, or None."""
    if not isinstance(names, list | tuple) or len(names) != len(shape):
        return None
    letters = [n.upper() for n in names if isinstance(n, str)]
    is_sound = (
        len(set(letters)) == len(shape)
        and all(len(n) == 1 and n.isascii() and n.isalpha() for n in letters)
        and {"Y", "X"} <= set(letters)
    )
    return "".join(letters) if is_sound else None


def is_image(shape: tuple[int, ...] | None, dtype: Any) -> bool:
    return shape is not None and len(shape) >= 2 and 0 not in shape and _is_plain(dtype)


def _is_plain(dtype: Any) -> bool:
    return getattr(dtype, "kind", "O") in "buif"


def choose_dataset(
    path: Path,
    wanted: str | None,
    held: list[str],
    shapes: Mapping[str, tuple[int, ...]],
) -> str:
    """Return the named or the obvious dataset of a container."""
    listed = ", ".join(f"{n} {s}" for n, s in list(shapes.items())[:_MAX_NAMED])
    if len(shapes) > _MAX_NAMED:
        listed += f" and {len(shapes) - _MAX_NAMED} more"
    if wanted is not None:
        if wanted.strip("/") in held:
            return wanted.strip("/")
        raise SettingsError(
            f"{path}: expected `dataset` to be one of those in the file "
            f"({listed or 'none is an image'}), got {wanted!r}."
        )
    if not shapes:
        raise ImageFileError(
            f"{path}: expected a dataset of at least two axes that holds numbers, got "
            f"{', '.join(held[:_MAX_NAMED]) or 'none at all'}. Save the image into it."
        )
    if len(shapes) == 1:
        return next(iter(shapes))
    for depth in sorted({name.count("/") for name in shapes}):
        for obvious in _OBVIOUS:
            named = [
                n
                for n in shapes
                if n.count("/") == depth and n.rsplit("/")[-1].lower() == obvious
            ]
            if len(named) == 1:
                return named[0]
            if named:
                break
    raise SettingsError(
        f"{path}: expected `dataset` to say which of {len(shapes)} is the image "
        f"({listed}), got None."
    )
