"""Opening images, whatever they come as.

`open_image` is the one way in: it finds the reader for the content of a file, and the
one plane of it that was asked for. How each format is read is left to `_tiff`,
`_raster`, `_containers` and `_zarr`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tifffile

from napari_alibi_seg._base import SettingsError
from napari_alibi_seg.data._axes import guess_axes, override_axes, select
from napari_alibi_seg.data._containers import stored_array, stored_hdf5, stored_npy
from napari_alibi_seg.data._guard import quiet, translated
from napari_alibi_seg.data._raster import stored_bmp, stored_jpeg, stored_png
from napari_alibi_seg.data._sniff import content_kind
from napari_alibi_seg.data._source import ImageSource, Stored
from napari_alibi_seg.data._tiff import stored_tiff
from napari_alibi_seg.data._zarr import stored_zarr

__all__ = ["Request", "open_image", "open_levels", "open_request"]


@dataclass(frozen=True, slots=True)
class Request:
    """Which plane of which array was asked for; resolution; do colour tables count."""

    plane: int | None = None
    time: int | None = None
    dataset: str | None = None
    axes: str | None = None
    is_coloured: bool = True
    level: int = 0


def open_image(
    image: Any,
    *,
    plane: int | None = None,
    time: int | None = None,
    dataset: str | None = None,
    axes: str | None = None,
) -> ImageSource:
    """Open one plane of an image for reading by window.

    Parameters
    ----------
    image : path, array-like or ImageSource
        TIFF (OME, ImageJ, BigTIFF, pyramids), PNG, JPEG, BMP, npy or HDF5 file, zarr or
        OME-Zarr folder; anything with `shape`, `dtype` and slicing (numpy, dask, zarr,
        h5py); an `ImageSource` is returned as it is.
    plane : int, optional
        0-based position along the stack axis. Needed for a stack, and only there.
    time : int, optional
        Position along T where there is a Z axis as well.
    dataset : str, optional
        Name inside an HDF5 file or zarr group. Left out: the only image there, or the
        one called image, data or raw.
    axes : str, optional
        What each axis is, one letter each, in place of what the file says or of the
        guess: YX, YXS where the last axis is 3 or 4 and the type uint8, uint16 or
        float, else ZYX. C means channels, S samples of a colour.

    Returns
    -------
    ImageSource
        Nothing but headers has been read. PNG, JPEG, BMP and TIFF of one compressed
        strip are decoded whole at the first read and kept.

    Raises
    ------
    ImageFileError
        If the file is missing, damaged, foreign, not what its name says, or holds
        pixels of an unusable kind.
    SettingsError
        If `plane`, `time`, `dataset` or `axes` is missing where it is needed, or wrong.

    Examples
    --------
    >>> import numpy as np
    >>> stack = np.zeros((6, 2, 32, 40), np.uint16)
    >>> source = open_image(stack, axes="ZCYX", plane=5)
    >>> source.shape, source.n_channels, source.meaning
    ((32, 40), 2, 'channels')
    """
    if isinstance(image, ImageSource):
        _check_alreadyopen_request(
            image, plane=plane, time=time, dataset=dataset, axes=axes
        )
        return image
    return open_request(image, Request(plane, time, dataset, axes))


def open_levels(
    image: Any,
    *,
    plane: int | None = None,
    time: int | None = None,
    dataset: str | None = None,
    axes: str | None = None,
) -> list[ImageSource]:
    """Open one plane of an image at every resolution that is stored of it.

    Parameters
    ----------
    image, plane, time, dataset, axes
        As for `open_image`.

    Returns
    -------
    list of ImageSource
        Full resolution first, coarser ones after it, each with its own shape and pixel
        size; one entry where there is no pyramid. Levels of OME-Zarr and of TIFF
        that differ in more than rows and columns are left out. An `ImageSource`
        that is already open has one level.

    Raises
    ------
    ImageFileError, SettingsError
        As `open_image`.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "a.tif"
    ...     with tifffile.TiffWriter(path) as tif:
    ...         for side in (8, 4):
    ...             coarse = {"subifds": 1} if side == 8 else {"subfiletype": 1}
    ...             _ = tif.write(np.zeros((side, side), "u1"), **coarse)
    ...     [source.shape for source in open_levels(path)]
    [(8, 8), (4, 4)]
    """
    if isinstance(image, ImageSource):
        chosen = {"plane": plane, "time": time, "dataset": dataset, "axes": axes}
        _check_alreadyopen_request(image, **chosen)
        return [image]
    full, n_levels = _open(image, Request(plane, time, dataset, axes))
    coarse = [
        _open(image, Request(plane, time, dataset, axes, level=level))[0]
        for level in range(1, n_levels)
    ]
    return [full, *coarse]


def _check_alreadyopen_request(source: ImageSource, **wanted: object) -> None:
    for name, value in wanted.items():
        if value is not None and value != getattr(source, name, None):
            raise SettingsError(
                f"{source.name}: expected no `{name}` with an image that is already "
                f"open, got {value!r}. Give it to `open_image` together with the file."
            )


def open_request(image: Any, request: Request) -> ImageSource:
    """Open what was asked for."""
    return _open(image, request)[0]


def _open(image: Any, request: Request) -> tuple[ImageSource, int]:
    """Open what was asked for; return it and how many resolutions there are."""
    if not isinstance(image, str | os.PathLike):
        if request.dataset is not None:
            raise SettingsError(
                f"Expected `dataset` only with an HDF5 file or zarr group, got "
                f"{request.dataset!r} with an array. Leave it out."
            )
        return _chosen(stored_array(image), request)
    path = Path(image)
    kind = content_kind(path)
    if request.dataset is not None and kind not in ("HDF5", "zarr"):
        raise SettingsError(
            f"{path}: expected `dataset` only with HDF5 or zarr, got "
            f"{request.dataset!r} with a {kind} file. Leave it out."
        )
    with quiet(), translated(str(path), f"a sound {kind} image"):
        if kind == "TIFF":
            with tifffile.TiffFile(path) as tif:
                stored = stored_tiff(
                    path, tif, is_coloured=request.is_coloured, level=request.level
                )
                return _chosen(stored, request)
        return _chosen(_stored_file(path, kind, request), request)


def _stored_file(path: Path, kind: str, request: Request) -> Stored:
    match kind:
        case "PNG":
            return stored_png(path, is_coloured=request.is_coloured)
        case "JPEG":
            return stored_jpeg(path)
        case "BMP":
            return stored_bmp(path, is_coloured=request.is_coloured)
        case "npy":
            return stored_npy(path)
        case "HDF5":
            return stored_hdf5(path, request.dataset)
        case _:
            return stored_zarr(path, request.dataset, request.level)


def _chosen(stored: Stored, request: Request) -> tuple[ImageSource, int]:
    where = str(stored.path or stored.name)
    samples = stored.samples
    if request.axes is not None:
        axes = override_axes(request.axes, stored.shape, where)
        samples = samples if axes.find("S") == (stored.axes or "").find("S") else None
    else:
        axes = stored.axes or guess_axes(stored.shape, stored.dtype, where)
    selection = select(
        axes,
        stored.shape,
        where=where,
        plane=request.plane,
        time=request.time,
        samples=samples,
    )
    return ImageSource.from_selection(stored, selection), stored.n_levels
