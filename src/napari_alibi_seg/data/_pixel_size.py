"""The physical side of a pixel, from whatever a file says about it.

Only this module knows the units and the private metadata of microscopes. The rule for
resolution tags: they count only with a unit, and 72 and 96 pixels per inch are what
software writes when it knows nothing, so both mean "not known". Of several statements
in one TIFF the first of these wins: OME-XML, FEI and Zeiss metadata, ImageJ,
resolution tags. Densities in JPEG and BMP files are print settings and are not read.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from napari_alibi_seg._base import PixelSize

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "UM_PER_UNIT",
    "coarser",
    "from_density",
    "from_tiff",
    "in_unit",
    "named_unit",
    "pixel_size",
]

UM_PER_UNIT = {
    "pm": 1e-6,
    "angstrom": 1e-4,
    "nm": 1e-3,
    "um": 1.0,
    "mm": 1e3,
    "cm": 1e4,
    "inch": 25400.0,
    "m": 1e6,
}

_SPELLINGS = {
    "µm": "um",
    "μm": "um",
    "micron": "um",
    "å": "angstrom",
    "a": "angstrom",
    "in": "inch",
    '"': "inch",
    "picometer": "pm",
    "nanometer": "nm",
    "micrometer": "um",
    "millimeter": "mm",
    "centimeter": "cm",
    "meter": "m",
}
_NO_UNITS = {"", "pixel", "px", "none", "null", "unit", "arbitrary"}
_SCREEN_DPI = (72, 96)
_UM_PER_RESOLUTION_UNIT = {2: 25400.0, 3: 10000.0}  # TIFF tag 296: inch, centimetre


def named_unit(text: str | None) -> str | None:
    """Return one spelling of a unit, or None where it says "pixels" or nothing.

    Examples
    --------
    >>> named_unit("µm"), named_unit("Nanometers"), named_unit("pixels")
    ('um', 'nm', None)
    """
    if text is None:
        return None
    escaped = re.sub(r"\\u([0-9a-fA-F]{4})", lambda m: chr(int(m[1], 16)), text)
    unit = escaped.strip(" \0").lower()
    singular = unit.removesuffix("s").replace("metre", "meter")
    known = _SPELLINGS.get(unit) or _SPELLINGS.get(singular)
    if singular in _NO_UNITS:
        return None
    return known or (singular if singular in UM_PER_UNIT else escaped.strip(" \0"))


def pixel_size(y: Any, x: Any, unit: str | None, *, z: Any = None) -> PixelSize | None:
    """Return a pixel size, or None unless both sides are positive and the unit known.

    A distance of planes `z` that makes no sense is left out.

    Examples
    --------
    >>> pixel_size("0.5", 0.5, "microns")
    PixelSize(y=0.5, x=0.5, unit='um')
    >>> pixel_size(0, 0.5, "um") is None
    True
    """
    name = named_unit(unit)
    sides = _positive(y), _positive(x)
    if name is None or None in sides:
        return None
    return PixelSize(sides[0], sides[1], name, _positive(z))  # type: ignore[arg-type]


def _positive(side: Any) -> float | None:
    try:
        number = float(side)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def coarser(
    size: PixelSize | None, full: tuple[int, int], shape: tuple[int, int]
) -> PixelSize | None:
    """Return the pixel size of a coarser level, from the shapes (rows, columns).

    Examples
    --------
    >>> coarser(PixelSize(1, 1, "nm"), (1001, 600), (251, 150))
    PixelSize(y=4, x=4, unit='nm')
    """
    if size is None:
        return None

    def factor(n_full: int, n: int) -> float:
        # levels are whole multiples, cut or filled up at the edge
        whole = max(1, round(n_full / n))
        return whole if abs(n * whole - n_full) < whole else n_full / n

    return PixelSize(
        size.y * factor(full[0], shape[0]),
        size.x * factor(full[1], shape[1]),
        size.unit,
        size.z,  # levels are coarser within a plane only
    )


def from_density(y: float, x: float, um_per_unit: float) -> PixelSize | None:
    """Return the pixel size of so many pixels per inch, centimetre or metre.

    Examples
    --------
    >>> from_density(200_000, 200_000, 1e6)
    PixelSize(y=5.0, x=5.0, unit='um')
    >>> from_density(72, 72, 25400) is None
    True
    """
    if not (y > 0 and x > 0):
        return None
    per_inch = x * 25400.0 / um_per_unit
    if any(abs(per_inch - dpi) < 0.5 for dpi in _SCREEN_DPI):
        return None
    return pixel_size(um_per_unit / y, um_per_unit / x, "um")


def from_tiff(tif: Any, page: Any) -> PixelSize | None:
    """Return the pixel size of a TIFF that tifffile has open, or None.

    Parameters
    ----------
    tif : tifffile.TiffFile
        Open file.
    page : tifffile.TiffPage
        First page of the image.
    """
    if tif.is_ome:
        return _from_ome(tif.ome_metadata)
    sides = _density(page, "YResolution"), _density(page, "XResolution")
    tag = page.tags.get("ResolutionUnit")
    code = int(tag.value) if tag is not None else 2  # TIFF 6.0: inch is the default
    return (
        _from_fei(tif.fei_metadata or {})
        or _from_zeiss(tif.sem_metadata or {})
        or _from_named_unit(tif, sides, code)
        or _from_tags(sides, code)
    )


def _from_ome(xml: str) -> PixelSize | None:
    try:
        pixels = ElementTree.fromstring(xml).find(".//{*}Image/{*}Pixels")
    except ElementTree.ParseError:
        return None
    if pixels is None:
        return None
    unit = pixels.get("PhysicalSizeXUnit", "µm")  # the schema's default
    x = pixels.get("PhysicalSizeX")
    y = pixels.get("PhysicalSizeY", x)
    z = pixels.get("PhysicalSizeZ")
    y_factor = in_unit(pixels.get("PhysicalSizeYUnit", unit), unit)
    # the schema's default again, whatever the others are in
    z_factor = in_unit(pixels.get("PhysicalSizeZUnit", "µm"), unit)
    found = pixel_size(y, x, unit, z=z)
    if found is None or y_factor is None:
        return None
    distance = found.z * z_factor if found.z and z_factor else None
    return PixelSize(found.y * y_factor, found.x, found.unit, distance)


def in_unit(given: str | None, wanted: str | None) -> float | None:
    """Return how many of one unit another is, None where that is not known.

    Examples
    --------
    >>> in_unit("mm", "µm"), in_unit("pixel", "nm")
    (1000.0, None)
    """
    names = named_unit(given), named_unit(wanted)
    if names[0] == names[1] and names[0] is not None:
        return 1.0
    known, base = (UM_PER_UNIT.get(name or "") for name in names)
    return known / base if known and base else None


def _from_fei(metadata: Mapping[str, Any]) -> PixelSize | None:
    for section in ("Scan", "EScan", "Image"):
        part = metadata.get(section)
        if isinstance(part, dict) and "PixelWidth" in part:
            metres = part["PixelWidth"], part.get("PixelHeight", part["PixelWidth"])
            found = pixel_size(metres[1], metres[0], "m")
            return found and PixelSize(found.y * 1e6, found.x * 1e6, "um")
    return None


def _from_zeiss(metadata: Mapping[str, Any]) -> PixelSize | None:
    for key in ("ap_image_pixel_size", "ap_pixel_size"):
        entry = metadata.get(key)
        if isinstance(entry, tuple) and len(entry) == 3:
            return pixel_size(entry[1], entry[1], str(entry[2]))
    return None


def _from_named_unit(
    tif: Any, sides: Sequence[float | None], code: int
) -> PixelSize | None:
    # ImageJ, and tifffile's own description, give the unit by name; the resolution
    # tags are then pixels per that unit.
    unit = spacing = None
    if tif.is_imagej:
        metadata = tif.imagej_metadata or {}
        unit, spacing = metadata.get("unit"), metadata.get("spacing")
        if _is_time_series(metadata):
            spacing = None  # ImageJ writes one for any stack
    elif tif.is_shaped and code == 1:
        unit = next((m.get("unit") for m in tif.shaped_metadata or ()), None)
    y, x = sides
    if not (unit and y and x):
        return None
    return pixel_size(1 / y, 1 / x, str(unit), z=spacing)


def _is_time_series(metadata: Mapping[str, Any]) -> bool:
    return metadata.get("frames", 1) > 1 and metadata.get("slices", 1) == 1


def _from_tags(sides: Sequence[float | None], code: int) -> PixelSize | None:
    y, x = sides
    um_per_unit = _UM_PER_RESOLUTION_UNIT.get(code)
    return from_density(y, x, um_per_unit) if um_per_unit and y and x else None


def _density(page: Any, name: str) -> float | None:
    tag = page.tags.get(name)
    if tag is None or not isinstance(tag.value, tuple) or len(tag.value) != 2:
        return None
    over, under = tag.value
    return over / under if over and under else None
