"""Large results as OME-TIFF: tiles, deflate, coarser levels as SubIFDs.

Only this module knows how we write pyramids; what reads them (QuPath, Fiji, napari)
expects OME-XML, and so do we. No dates, no versions and no random identifiers, so that
equal pixels give equal files. Pixels come window by window from whoever keeps them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, TypeAlias
from xml.sax.saxutils import quoteattr

import tifffile

from napari_alibi_seg._base import PixelSize, Window
from napari_alibi_seg.data._pixel_size import UM_PER_UNIT
from napari_alibi_seg.data._tiff_frame import CLASSIC_TIFF_BYTES, fraction_of
from napari_alibi_seg.data._tiling import PIXEL_TILE_PX, pixel_tiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

__all__ = ["Pyramid", "write_pyramid"]

_Pixels: TypeAlias = "npt.NDArray[Any]"
_Read: TypeAlias = "Callable[[int, int, int | None, Window], _Pixels]"

# Measured on forest results: past these, files shrink little and take far longer.
_DEFLATE_LEVEL = {"u": 6, "f": 3}
# Tiles that wait for their turn while others are compressed.
_BUFFER_BYTES = 2**24
_OME_TYPES = {"float32": "float", "float64": "double"}
_OME_UNITS = {"um": "µm", "angstrom": "Å", "inch": "in"}


@dataclass(frozen=True)
class Pyramid:
    """What is to be written, without its pixels.

    Attributes
    ----------
    name : str
        Of the image.
    shapes : sequence of tuple of int
        Rows and columns of every level, full resolution first.
    dtype : dtype
        Of the pixels: unsigned or float.
    channel_names : sequence of str, optional
        One for each page; None for one page without a C axis.
    pixel_size : PixelSize, optional
        Physical side of a pixel at full resolution.
    tile_px : int
        Side of a tile, a multiple of 16.
    n_planes, n_times : int
        Along Z and T, 1 without such an axis.
    """

    name: str
    shapes: Sequence[tuple[int, int]]
    dtype: np.dtype
    channel_names: Sequence[str] | None = None
    pixel_size: PixelSize | None = None
    tile_px: int = PIXEL_TILE_PX
    n_planes: int = 1
    n_times: int = 1

    @property
    def pages(self) -> list[tuple[int, int | None]]:
        """Position of the plane and channel of each page, None without a C axis."""
        names = self.channel_names
        channels = [None] if names is None else range(len(names))
        return list(product(range(self.n_times * self.n_planes), channels))

    @property
    def is_big(self) -> bool:
        """Whether offsets of 32 bits may be too short for the file."""
        side = self.tile_px
        n_tiles = sum(-(-y // side) * -(-x // side) for y, x in self.shapes)
        n_bytes = n_tiles * side**2 * self.dtype.itemsize * len(self.pages)
        return 1.01 * n_bytes > CLASSIC_TIFF_BYTES  # noise grows by deflating


def write_pyramid(path: Path, pyramid: Pyramid, read: _Read) -> None:
    """Write a pyramid; `read` gives the pixels of a level, page and window.

    Parameters
    ----------
    path : Path
        Is written at once: give a temporary name.
    pyramid : Pyramid
        What is written.
    read : callable
        (level, plane, channel or None, window) to (h, w) pixels of the pyramid's
        dtype.
    """
    is_tiled = max(pyramid.shapes[0]) > pyramid.tile_px
    with tifffile.TiffWriter(path, bigtiff=pyramid.is_big, byteorder="<") as tif:
        for level, (height, width) in enumerate(pyramid.shapes):
            options: dict[str, Any] = (
                {"tile": (pyramid.tile_px, pyramid.tile_px)}
                if is_tiled
                else {"rowsperstrip": height}  # not every program reads tiles
            )
            if level == 0:
                options |= {"subifds": len(pyramid.shapes) - 1}
                options |= {"description": _ome_xml(pyramid)}
            else:
                options |= {"subfiletype": 1}
            tif.write(
                _segments(pyramid, level, read),
                shape=(len(pyramid.pages), height, width),
                dtype=pyramid.dtype.newbyteorder("<"),
                photometric="minisblack",
                compression="zlib",
                # no predictor: it tears apart the few values that forests give, and
                # the one for floats is not read everywhere
                compressionargs={"level": _DEFLATE_LEVEL[pyramid.dtype.kind]},
                metadata=None,
                software=False,
                buffersize=_BUFFER_BYTES,
                **options,
                **_resolution(pyramid.pixel_size, 2**level),
            )


def _segments(pyramid: Pyramid, level: int, read: _Read) -> Iterator[_Pixels]:
    for plane, channel in pyramid.pages:
        for window in pixel_tiles(pyramid.shapes[level], pyramid.tile_px):
            yield read(level, plane, channel, window)


def _resolution(size: PixelSize | None, factor: int) -> dict[str, Any]:
    """Return pixels per centimetre, for those who do not read OME-XML."""
    um = None if size is None else UM_PER_UNIT.get(size.unit)
    if size is None or um is None:
        return {}
    to_cm = um * factor / UM_PER_UNIT["cm"]
    per_cm = fraction_of(size.x * to_cm), fraction_of(size.y * to_cm)
    if None in per_cm:
        return {}
    return {"resolution": per_cm, "resolutionunit": "CENTIMETER"}


def _ome_xml(pyramid: Pyramid) -> bytes:
    """Return the OME-XML of the full resolution, ASCII with character references."""
    height, width = pyramid.shapes[0]
    names = pyramid.channel_names or [pyramid.name]
    size = pyramid.pixel_size
    attributes: dict[str, Any] = {
        "ID": "Pixels:0",
        "DimensionOrder": "XYCZT",
        "Type": _OME_TYPES.get(pyramid.dtype.name, pyramid.dtype.name),
        "SizeX": width,
        "SizeY": height,
        "SizeC": len(names),
        "SizeZ": pyramid.n_planes,
        "SizeT": pyramid.n_times,
        "BigEndian": "false",
        "Interleaved": "false",
    }
    if size is not None:
        unit = _OME_UNITS.get(size.unit, size.unit)
        for letter, side in (("X", size.x), ("Y", size.y), ("Z", size.z)):
            if side is not None:
                attributes[f"PhysicalSize{letter}"] = repr(float(side))
                attributes[f"PhysicalSize{letter}Unit"] = unit
    listed = " ".join(f"{key}={quoteattr(str(v))}" for key, v in attributes.items())
    channels = "".join(
        f'<Channel ID="Channel:0:{i}" Name={quoteattr(name)} SamplesPerPixel="1"/>'
        for i, name in enumerate(names)
    )
    schema = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        f'<OME xmlns="{schema}" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
        f'xsi:schemaLocation="{schema} {schema}/ome.xsd">'
        f'<Image ID="Image:0" Name={quoteattr(pyramid.name)}><Pixels {listed}>'
        f"{channels}<TiffData/></Pixels></Image></OME>"
    ).encode("ascii", "xmlcharrefreplace")
