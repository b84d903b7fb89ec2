"""Writing images: whole arrays, or piece by piece where they are too large.

Files are whole or not there (`_atomic`), and their bytes depend on the pixels and
metadata alone. The pixel size is written as ImageJ writes it, which our own reader
understands too. Whether a file may be replaced is left to the caller.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from napari_alibi_seg._base import PixelSize, SettingsError
from napari_alibi_seg.data._atomic import (
    check_room,
    explained,
    replaced,
    temporary_beside,
    write_all,
)
from napari_alibi_seg.data._guard import check_dtype
from napari_alibi_seg.data._pixel_size import UM_PER_UNIT
from napari_alibi_seg.data._tiff_frame import write_tiff

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    import numpy.typing as npt

    from napari_alibi_seg._base import Window

__all__ = ["TiffPlaneWriter", "write_image"]

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
    metadata = {} if description is None else {"description": description}
    with replaced(path, array.nbytes) as temporary:
        write_tiff(
            temporary,
            array.shape,
            array.dtype,
            axes,
            data=array,
            compression=compression,
            pixel_size=pixel_size,
            metadata=metadata,
        )


class TiffPlaneWriter:
    """Writes an uncompressed TIFF piece by piece, in any order.

    Parameters
    ----------
    path : path
        Ends in .tif or .tiff. An existing file is replaced at the close.
    shape : tuple of int
        (Y, X) or (C, Y, X).
    dtype : dtype
        Of the pixels.
    axes : {"YX", "CYX"}
        What `shape` means.
    pixel_size : PixelSize, optional
        Physical side of a pixel.
    metadata : mapping of str to str, int or float, optional
        Kept as lines of the description.

    Raises
    ------
    SettingsError
        If axes, shape, dtype and suffix do not go together.
    OutputError
        If the file cannot be written, or there is no room for it.

    Notes
    -----
    For one thread. The memory needed is that of the block being written. Use it in a
    ``with`` block: an exception removes the file, as do `abort` and a writer that is
    dropped. Pixels that were never written are 0.

    Examples
    --------
    >>> import tempfile
    >>> from napari_alibi_seg._base import Window
    >>> from napari_alibi_seg.data import open_image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "labels.tif"
    ...     with TiffPlaneWriter(path, (4, 6), "uint8", "YX") as writer:
    ...         writer.write(Window(1, 3, 2, 4), np.ones((2, 2), np.uint8))
    ...     source = open_image(path)
    ...     source.read(source.window)[1, :, 0]
    array([0, 0, 1, 1, 0, 0], dtype=uint8)
    """

    _file: BinaryIO | None = None

    def __init__(
        self,
        path: _PathLike,
        shape: Sequence[int],
        dtype: npt.DTypeLike,
        axes: str,
        pixel_size: PixelSize | None = None,
        *,
        metadata: Mapping[str, str | int | float] | None = None,
    ) -> None:
        self.path = Path(path)
        if axes not in ("YX", "CYX"):
            raise SettingsError(f"`axes` must be 'YX' or 'CYX', got {axes!r}.")
        self._shape = tuple(int(n) for n in shape)
        _check_axes(axes, self._shape)
        self._dtype = _check_tiff(self.path, np.dtype(dtype)).newbyteorder("<")
        if self._dtype.kind == "b":
            self._dtype = np.dtype("uint8")
        self._n_bytes = math.prod(self._shape) * self._dtype.itemsize
        self._temporary = temporary_beside(self.path)
        with self._cleaned_up():
            check_room(self.path, self._n_bytes)
            self._offset = write_tiff(
                self._temporary,
                self._shape,
                self._dtype,
                axes,
                pixel_size=pixel_size,
                metadata=metadata or {},
            )
            # Unbuffered: a full disk shows at the write that met it.
            self._file = self._temporary.open("r+b", buffering=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def __del__(self) -> None:
        self.abort()

    def write(self, window: Window, block: _Pixels) -> None:
        """Write the pixels of a window.

        Parameters
        ----------
        window : Window
            Inside the image.
        block : (h, w) or (C, h, w) array
            Of the writer's dtype.

        Raises
        ------
        SettingsError
            If the window or the block does not fit.
        OutputError
            If the disk is full or fails; the file is then removed.
        """
        file = self._open_file()
        height, width = self._shape[-2:]
        block = np.asarray(block)
        expected = (*self._shape[:-2], *window.shape)
        fits = 0 <= window.y0 <= window.y1 <= height and (
            0 <= window.x0 <= window.x1 <= width
        )
        if not fits or block.shape != expected or block.dtype != self._dtype:
            raise SettingsError(
                f"Expected a block of shape {expected} and {self._dtype} inside "
                f"{height} x {width} pixels for {window}, got {block.shape} of "
                f"{block.dtype}."
            )
        little = block.astype(self._dtype, copy=False)
        with self._cleaned_up():
            for c, plane in enumerate(little.reshape(-1, *window.shape)):
                self._write_plane(file, c, window, plane)

    def _write_plane(
        self, file: BinaryIO, channel: int, window: Window, plane: _Pixels
    ) -> None:
        height, width = self._shape[-2:]
        is_full_width = window.shape[1] == width
        runs = [plane] if is_full_width else plane
        for i, run in enumerate(runs):
            pixel = (channel * height + window.y0 + i) * width + window.x0
            file.seek(self._offset + pixel * self._dtype.itemsize)
            write_all(file, np.ascontiguousarray(run).reshape(-1).view(np.uint8).data)

    def close(self) -> None:
        """Give the finished file its name.

        Raises
        ------
        OutputError
            If that fails; the file is then removed.
        """
        file = self._open_file()
        with self._cleaned_up():
            file.close()
            self._temporary.replace(self.path)
        self._file = None

    def abort(self) -> None:
        """Remove what was written; nothing happens after a close."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self._temporary.unlink(missing_ok=True)

    def _open_file(self) -> BinaryIO:
        if self._file is None:
            raise SettingsError(
                f"{self.path}: expected an open writer, got one that was closed. Make "
                "a new one."
            )
        return self._file

    @contextmanager
    def _cleaned_up(self) -> Iterator[None]:
        """Remove the file after any failure, and say what the failure was."""
        try:
            with explained(self.path, self._n_bytes):
                yield
        except BaseException:
            if self._file is None:
                self._temporary.unlink(missing_ok=True)
            self.abort()
            raise


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
            f"{path}: expected a name that ends in .tif, .tiff or .png (PNG not for "
            "large outputs written piece by piece), got "
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
