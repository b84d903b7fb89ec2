"""Plain TIFF, byte for byte.

Only this module knows how we write plain TIFF: little-endian, in strips, BigTIFF where
classic offsets end, described as ImageJ describes its own files. No dates and no
versions, so that equal pixels give equal files. Pyramids are left to `_tiff_pyramid`.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeAlias

import tifffile

from napari_alibi_seg._base import PixelSize, SettingsError
from napari_alibi_seg.data._pixel_size import UM_PER_UNIT, in_unit

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

__all__ = ["CLASSIC_TIFF_BYTES", "fraction_of", "write_tiff"]

_Pixels: TypeAlias = "npt.NDArray[Any]"

CLASSIC_TIFF_BYTES = 2**32 - 2**25  # offsets have 32 bits; room for the directories
_STRIP_BYTES = 2**20
_RATIONAL_MAX = 2**32 - 1


def write_tiff(
    path: Path,
    array: _Pixels,
    axes: str,
    *,
    compression: str | None = None,
    pixel_size: PixelSize | None = None,
    description: str | None = None,
) -> None:
    """Write a TIFF."""
    shape, dtype = array.shape, array.dtype
    is_colour = axes.endswith("S")
    plane_axes = 3 if is_colour else 2
    unit, resolution = _resolution(pixel_size)
    n_bytes = math.prod(shape) * dtype.itemsize
    row_bytes = math.prod(shape[-plane_axes + 1 :]) * dtype.itemsize
    pages = (-1, *shape[-plane_axes:])
    flat = (math.prod(shape[:-plane_axes]), *shape[-plane_axes:])
    with tifffile.TiffWriter(
        path, bigtiff=n_bytes > CLASSIC_TIFF_BYTES, byteorder="<"
    ) as tif:
        tif.write(
            array.reshape(pages),
            shape=flat,
            dtype=dtype.newbyteorder("<"),
            photometric="rgb" if is_colour else "minisblack",
            planarconfig="contig" if is_colour else None,
            extrasamples=["unassalpha"] if is_colour and shape[-1] == 4 else None,
            compression=None if compression is None else "zlib",
            # no predictor: ImageJ reads none with deflate, and shows noise instead
            rowsperstrip=min(shape[axes.index("Y")], max(1, _STRIP_BYTES // row_bytes)),
            description=_description(
                axes, shape, unit, _spacing(pixel_size, unit), description
            ),
            metadata=None,
            software=False,
            resolution=resolution,
            resolutionunit="NONE",
        )


def _description(
    axes: str,
    shape: tuple[int, ...],
    unit: str,
    spacing: float | None,
    description: str | None,
) -> bytes:
    """Return the lines that ImageJ reads, and after them one of ours."""
    length = dict(zip(axes, shape, strict=True))
    counts = {
        "channels": length.get("C", 1),
        "slices": length.get("Z", 1),
        "frames": length.get("T", 1),
    }
    lines = ["ImageJ=1.11a"]
    if (n_images := math.prod(counts.values())) > 1:
        lines.append(f"images={n_images}")
        lines += [f"{name}={n}" for name, n in counts.items() if n > 1]
        lines += ["hyperstack=true", "mode=grayscale", "loop=false"]
    if unit:
        lines.append(f"unit={unit}")
    if spacing is not None and counts["slices"] > 1:
        lines.append(f"spacing={spacing!r}")
    if description is not None:
        lines.append(f"description={' '.join(description.split())}")
    return "\n".join([*lines, ""]).encode()


def _spacing(size: PixelSize | None, unit: str) -> float | None:
    """Return the distance of planes in the unit that is written."""
    if size is None or size.z is None:
        return None
    return float(size.z) * (in_unit(size.unit, unit) or 1.0)


def _resolution(
    size: PixelSize | None,
) -> tuple[str, tuple[tuple[int, int], tuple[int, int]]]:
    """Return the unit by name, and pixels per unit along x and y as fractions."""
    if size is None:
        return "", ((1, 1), (1, 1))
    sides = (size.x, size.y, 1.0 if size.z is None else size.z)
    if not all(0 < side < math.inf for side in sides):
        raise SettingsError(f"Expected a positive pixel size, got {size}.")
    for unit in (size.unit, *UM_PER_UNIT):
        factor = 1.0
        if unit != size.unit:
            if size.unit not in UM_PER_UNIT:
                break
            factor = UM_PER_UNIT[size.unit] / UM_PER_UNIT[unit]
        per_unit = [fraction_of(side * factor) for side in (size.x, size.y)]
        if all(per_unit):
            return unit, (per_unit[0], per_unit[1])  # type: ignore[return-value]
    raise SettingsError(
        f"Expected a pixel size that TIFF can hold, got {size}. Give it in nm, um or "
        "mm."
    )


def fraction_of(side: float) -> tuple[int, int] | None:
    """Return 1 / side as a fraction of 32-bit numbers, None where it is too coarse."""
    exact = 1 / Fraction(str(side))  # str: 0.05 is 1/20, not its binary neighbour
    limit = min(_RATIONAL_MAX, int(_RATIONAL_MAX / max(exact, Fraction(1))))
    near = exact.limit_denominator(max(1, limit))
    if not 0 < near.numerator <= _RATIONAL_MAX or abs(near / exact - 1) > 1e-6:
        return None
    return near.numerator, near.denominator
