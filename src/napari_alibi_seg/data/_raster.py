"""Planes of PNG, JPEG and BMP files.

Only this module knows their headers. The files cannot be read by window: the first read
decodes the whole picture and keeps it. Samples are as stored: 1 bit is bool, 2 and 4
bits are not stretched to 8, 16 bits stay 16. imagecodecs decodes PNG of whole bytes in
place, Pillow the rest. Pillow's limit on pixels is left out of account: what a header
claims is checked against the bytes that are there.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import imagecodecs
import numpy as np
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from napari_alibi_seg._base import ImageFileError, PixelSize
from napari_alibi_seg.data._guard import check_claimed_size
from napari_alibi_seg.data._pixel_size import from_density
from napari_alibi_seg.data._planes import BlockedPlane
from napari_alibi_seg.data._source import Stored
from napari_alibi_seg.data._tiff import LOSSY_NOTE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

    from napari_alibi_seg.data._axes import Selection

__all__ = ["stored_bmp", "stored_jpeg", "stored_png"]

_Pixels: TypeAlias = "npt.NDArray[Any]"

_PNG_SIGNATURE_BYTES = 8
_PNG_GREY, _PNG_RGB, _PNG_PALETTE, _PNG_GREY_ALPHA, _PNG_RGBA = 0, 2, 3, 4, 6
_PNG_SAMPLES = {_PNG_GREY: 1, _PNG_RGB: 3, _PNG_PALETTE: 1, 4: 2, _PNG_RGBA: 4}
_DEFLATE_RATIO = 1100
_JPEG_RATIO = 4096  # one bit a block of 64 pixels of three colours, and some more
_RLE_RATIO = 256
_ORIENTATION_TAG = 0x0112
_BAND_ROWS = 1024


@dataclass(frozen=True, slots=True)
class _PngHeader:
    height: int
    width: int
    depth: int
    kind: int
    packed_bytes: int
    density: tuple[int, int] | None
    is_transparent: bool


def stored_png(path: Path, *, is_coloured: bool = True) -> Stored:
    """Describe a PNG; with `is_coloured` a palette becomes RGB, else positions."""
    head = _png_header(path)
    n = _PNG_SAMPLES[head.kind]
    check_claimed_size(
        str(path),
        head.height * max(1, head.width * n * head.depth // 8),
        head.packed_bytes,
        _DEFLATE_RATIO,
    )
    is_palette = head.kind == _PNG_PALETTE
    n = 3 if is_palette and is_coloured else n
    dtype = "bool" if head.depth == 1 else "uint16" if head.depth == 16 else "uint8"
    notes: tuple[str, ...] = ()
    if head.is_transparent:
        notes = ("Transparent colours are shown as if they were opaque.",)

    def decode() -> _Pixels:
        if head.depth >= 8 and not is_palette:
            return imagecodecs.png_decode(_bare_png(path))
        with path.open("rb") as file, PngImageFile(file) as picture:
            pixels = _pixels_of(picture, is_coloured=is_coloured)
            # Pillow stretches grey of 2 and 4 bits to 255.
            is_stretched = picture.mode == "L" and head.depth in (2, 4)
            return pixels // (255 // (2**head.depth - 1)) if is_stretched else pixels

    return _stored(
        path,
        (head.height, head.width, n),
        "uint8" if is_palette else dtype,
        decode,
        pixel_size=_per_metre(head.density),
        notes=notes,
    )


def stored_jpeg(path: Path, *, is_coloured: bool = True) -> Stored:
    """Describe a JPEG."""
    with path.open("rb") as file, JpegImageFile(file) as picture:
        width, height = picture.size
        mode = picture.mode
        orientation = picture.getexif().get(_ORIENTATION_TAG, 1)
    if mode not in ("L", "RGB"):
        raise ImageFileError(
            f"{path}: expected a grey or RGB JPEG, got {mode}. Convert it to RGB where "
            "it was made."
        )
    n = len(mode)
    check_claimed_size(str(path), height * width * n, path.stat().st_size, _JPEG_RATIO)

    def decode() -> _Pixels:
        with path.open("rb") as file, JpegImageFile(file) as picture:
            return _pixels_of(picture)

    notes: tuple[str, ...] = (LOSSY_NOTE,)
    if orientation != 1:
        notes += ("The camera's orientation flag is not applied.",)
    return _stored(path, (height, width, n), "uint8", decode, notes=notes)


def stored_bmp(path: Path, *, is_coloured: bool = True) -> Stored:
    """Describe a BMP; with `is_coloured` a palette becomes RGB, else positions."""
    with path.open("rb") as file, BmpImageFile(file) as picture:
        width, height = picture.size
        mode = picture.mode
    by_mode = {"1": 1, "L": 1, "P": 3 if is_coloured else 1, "RGB": 3, "RGBA": 4}
    if mode not in by_mode:
        raise ImageFileError(
            f"{path}: expected a grey, palette or RGB BMP, got {mode}. Save it as PNG."
        )
    n = by_mode[mode]
    check_claimed_size(str(path), height * width * n, path.stat().st_size, _RLE_RATIO)

    def decode() -> _Pixels:
        with path.open("rb") as file, BmpImageFile(file) as picture:
            return _pixels_of(picture, is_coloured=is_coloured)

    dtype = "bool" if mode == "1" else "uint8"
    return _stored(path, (height, width, n), dtype, decode)


def _stored(
    path: Path,
    shape: tuple[int, int, int],
    dtype: str,
    decode: Callable[[], _Pixels],
    *,
    pixel_size: PixelSize | None = None,
    notes: tuple[str, ...] = (),
) -> Stored:
    height, width, n = shape

    def open_plane(chosen: Selection) -> BlockedPlane:
        def load(_row: int, _column: int) -> _Pixels:
            pixels = decode().reshape(shape)
            return np.ascontiguousarray(pixels[..., : chosen.n_channels])

        return BlockedPlane(
            [0, height],
            [0, width],
            n_channels=chosen.n_channels,
            dtype=np.dtype(dtype),
            load=load,
        )

    return Stored(
        name=path.name,
        path=path,
        axes="YX" if n == 1 else "YXS",
        shape=shape[:2] if n == 1 else shape,
        dtype=np.dtype(dtype),
        open_plane=open_plane,
        pixel_size=pixel_size,
        notes=notes,
    )


def _pixels_of(picture: Any, *, is_coloured: bool = True) -> _Pixels:
    """Return the samples of a Pillow image, with the colours of its palette."""
    table = None
    if picture.mode == "P" and is_coloured:
        table = np.zeros((256, 3), np.uint8)
        colours = np.array(picture.getpalette("RGB"), np.uint8).reshape(-1, 3)
        table[: len(colours)] = colours
    out: _Pixels = np.empty(0)
    for y in range(0, picture.height, _BAND_ROWS):
        # Pillow hands out copies of copies: three times the picture if it were whole.
        end = min(y + _BAND_ROWS, picture.height)
        band = np.asarray(picture.crop((0, y, picture.width, end)))
        band = band if table is None else table[band]
        if y == 0:
            out = np.empty((picture.height, *band.shape[1:]), band.dtype)
        out[y:end] = band
    return out


def _per_metre(density: tuple[int, int] | None) -> PixelSize | None:
    return density and from_density(density[1], density[0], 1e6)


def _bare_png(path: Path) -> bytes:
    """Return a PNG with nothing in it but the chunks that make the pixels."""
    # libpng would apply the others, or print what it thinks of them.
    data = path.read_bytes()
    at, kind = _PNG_SIGNATURE_BYTES, b""
    kept = [data[:at]]
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 8 + length
        if kind in (b"IHDR", b"IDAT", b"IEND"):
            if zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4]):
                raise ImageFileError(
                    f"{path}: expected a whole PNG, got one with a wrong checksum in "
                    f"{kind.decode()}. Copy or export it again."
                )
            kept.append(data[at : end + 4])
        at = end + 4
    return b"".join(kept)


def _png_header(path: Path) -> _PngHeader:
    """Walk the chunks of a PNG to its end without reading the pixels."""
    size, n_packed, is_transparent = path.stat().st_size, 0, False
    head: tuple[int, ...] = ()
    density = None
    with path.open("rb") as file:
        file.seek(_PNG_SIGNATURE_BYTES)
        kind = b""
        while kind != b"IEND":
            length, kind = struct.unpack(">I4s", file.read(8).ljust(8, b"\0"))
            end = file.tell() + length + 4  # a checksum follows
            if end > size or not kind.isalpha():
                raise ImageFileError(
                    f"{path}: expected a whole PNG, got one that ends or breaks after "
                    f"{min(end, size)} bytes. Copy or export it again."
                )
            if kind == b"IHDR":
                head = struct.unpack(">IIBBBBB", file.read(13))
            elif kind == b"pHYs" and length == 9:
                x, y, per = struct.unpack(">IIB", file.read(9))
                density = (x, y) if per == 1 else None
            n_packed += length if kind == b"IDAT" else 0
            is_transparent |= kind == b"tRNS"
            file.seek(end)
    if len(head) != 7 or head[3] not in _PNG_SAMPLES or head[2] not in (1, 2, 4, 8, 16):
        raise ImageFileError(
            f"{path}: expected a PNG with a valid header, got {head}. The file is "
            "damaged; export it again."
        )
    return _PngHeader(
        head[1], head[0], head[2], head[3], n_packed, density, is_transparent
    )
