"""Writing images that are whole arrays, and large masks window by window.

Files are whole or not there (`_atomic`), and their bytes depend on the pixels and
metadata alone. The pixel size is written as ImageJ writes it, which our own reader
understands too. Whether a file may be replaced is left to the caller; results that are
too large for an array are `_results`'.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from napari_alibi_seg._base import PixelSize, SettingsError, Window
from napari_alibi_seg.data._atomic import replaced
from napari_alibi_seg.data._guard import check_dtype
from napari_alibi_seg.data._pixel_size import UM_PER_UNIT
from napari_alibi_seg.data._tiff_frame import write_tiff
from napari_alibi_seg.data._tiff_pyramid import Pyramid, write_pyramid

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    import numpy.typing as npt


__all__ = ["write_image", "write_large_labels"]

_Pixels: TypeAlias = "npt.NDArray[Any]"
_PathLike: TypeAlias = "str | os.PathLike[str]"

_TIFF_SUFFIXES = (".tif", ".tiff")
_PNG_DTYPES = {"YX": ("bool", "uint8", "uint16"), "YXS": ("uint8",)}


def write_image(
    path: _PathLike,
    array: _Pixels,
    *,
    axes: str,
    pixel_size: PixelSize | None = None,
    description: str | None = None,
    compression: str | None = "deflate",
) -> None:
    """Write an array to a TIFF or PNG file.

    Parameters
    ----------
    path : path
        Ends in .tif, .tiff or .png. An existing file is replaced.
    array : array of bool, int or float
        PNG takes YX of bool, uint8 or uint16 and YXS of uint8. Bool becomes uint8 in
        TIFF.
    axes : str
        YX, or any of T, Z, C before it and S after it, in the order TZCYXS.
    pixel_size : PixelSize, optional
        Physical side of a pixel. PNG keeps it in whole pixels per metre, and only
        where the unit is a length.
    description : str, optional
        Text that is kept with the pixels.
    compression : {"deflate", None}
        Lossless, or none.

    Raises
    ------
    SettingsError
        If axes, shape, dtype, suffix or compression do not go together.
    OutputError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from napari_alibi_seg.data import open_image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "labels.tif"
    ...     size = PixelSize(0.05, 0.05, "um")
    ...     write_image(path, np.eye(4, dtype="u1"), axes="YX", pixel_size=size)
    ...     open_image(path).pixel_size
    PixelSize(y=0.05, x=0.05, unit='um')
    """
    path = Path(path)
    array = np.asarray(array)
    _check_axes(axes, array.shape)
    if compression not in ("deflate", None):
        raise SettingsError(
            f"`compression` must be 'deflate' or None, got {compression!r}."
        )
    suffix = path.suffix.lower()
    if suffix == ".png":
        _write_png(path, array, axes, pixel_size, description)
        return
    _check_tiff(path, array.dtype)
    if array.dtype.kind == "b":
        array = array.view(np.uint8)
    with replaced(path, array.nbytes) as temporary:
        write_tiff(
            temporary,
            array,
            axes,
            compression=compression,
            pixel_size=pixel_size,
            description=description,
        )


def write_large_labels(
    path: _PathLike,
    shape: tuple[int, int],
    read: Callable[[Window], _Pixels],
    *,
    dtype: np.dtype,
    pixel_size: PixelSize | None = None,
) -> None:
    """Write class ids that come window by window to a tiled, compressed TIFF.

    Parameters
    ----------
    path : path
        Ends in .tif or .tiff. An existing file is replaced.
    shape : tuple of int
        Rows and columns.
    read : callable
        Window to (h, w) array of ids.
    dtype : dtype
        Unsigned, of the file.
    pixel_size : PixelSize, optional
        Physical side of a pixel.

    Raises
    ------
    SettingsError
        If the suffix or dtype is another.
    OutputError
        If the file cannot be written.

    Notes
    -----
    Memory is that of some tiles of 512 px. No coarser levels: these are strokes, which
    would vanish in them.

    Examples
    --------
    >>> import tempfile
    >>> from napari_alibi_seg.data import open_image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "labels.tif"
    ...     write_large_labels(
    ...         path, (600, 9), lambda w: np.ones(w.shape), dtype=np.dtype("u1")
    ...     )
    ...     open_image(path).shape
    (600, 9)
    """
    path = Path(path)
    _check_tiff(path, dtype)
    if dtype.kind != "u":
        raise SettingsError(f"{path}: expected an unsigned type of ids, got {dtype}.")
    pyramid = Pyramid("labels", [shape], dtype, pixel_size=pixel_size)

    def pixels(_level: int, _plane: int, _channel: int | None, at: Window) -> _Pixels:
        return read(at).astype(dtype, copy=False)

    # ids pack tightly, but by how much is not known beforehand
    with replaced(path, 0) as temporary:
        write_pyramid(temporary, pyramid, pixels)


def _check_axes(axes: str, shape: tuple[int, ...]) -> None:
    in_order = [letter for letter in "TZCYXS" if letter in axes]
    if list(axes) != in_order or "YX" not in axes or len(axes) != len(shape):
        raise SettingsError(
            "Expected `axes` in the order TZCYXS with Y and X, one for each axis of "
            f"the array, got {axes!r} for shape {shape}."
        )
    if 0 in shape:
        raise SettingsError(f"Expected pixels to write, got an array of shape {shape}.")
    if axes.endswith("S") and shape[-1] not in (3, 4):
        raise SettingsError(
            f"Expected 3 (RGB) or 4 (RGBA) along axis S, got {shape[-1]}. Write "
            "channels along C."
        )


def _check_tiff(path: Path, dtype: np.dtype) -> np.dtype:
    if path.suffix.lower() not in _TIFF_SUFFIXES:
        raise SettingsError(
            f"{path}: expected a name that ends in .tif, .tiff or .png, got "
            f"{path.suffix or 'no suffix'!r}."
        )
    return check_dtype(dtype, str(path))


def _write_png(
    path: Path,
    array: _Pixels,
    axes: str,
    pixel_size: PixelSize | None,
    description: str | None,
) -> None:
    if array.dtype.name not in _PNG_DTYPES.get(axes, ()):
        raise SettingsError(
            f"{path}: expected YX of bool, uint8 or uint16 or YXS of uint8 for PNG, "
            f"got {axes} of {array.dtype}. Write a .tif."
        )
    info = PngInfo()
    more = {}
    if pixel_size is not None and pixel_size.unit in UM_PER_UNIT:
        metres = UM_PER_UNIT[pixel_size.unit] / 1e6
        per_metre = [1 / (s * metres) for s in (pixel_size.x, pixel_size.y)]
        if all(1 <= n < 2**31 for n in per_metre):  # whole numbers in the file
            more["dpi"] = tuple(n * 0.0254 for n in per_metre)
    if description is not None:
        info.add_itxt("Description", description)
    native = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    with replaced(path, array.nbytes) as temporary:
        Image.fromarray(native).save(temporary, format="PNG", pnginfo=info, **more)
