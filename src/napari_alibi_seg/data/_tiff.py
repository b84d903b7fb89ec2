"""Planes of TIFF files: strips, tiles, pyramids, OME, ImageJ and microscopes' own.

Only this module knows how a TIFF lays out its pixels. tifffile parses the file once;
afterwards raw pixels are mapped, and compressed strips and tiles are decoded as windows
touch them. Of a pyramid one level is read, of several series the first.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias
from xml.etree import ElementTree

import numpy as np
import tifffile

from napari_alibi_seg._base import ImageFileError
from napari_alibi_seg.data._axes import Samples
from napari_alibi_seg.data._guard import (
    check_claimed_size,
    check_dtype,
    check_length,
)
from napari_alibi_seg.data._pixel_size import coarser, from_tiff
from napari_alibi_seg.data._planes import BlockedPlane, MappedPlane, PlaneReader
from napari_alibi_seg.data._source import Stored

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from napari_alibi_seg.data._axes import Selection

__all__ = ["LOSSY_NOTE", "stored_tiff"]

LOSSY_NOTE = "Stored with JPEG compression, which changes values."

_Pixels: TypeAlias = "npt.NDArray[Any]"

_MINISWHITE, _MINISBLACK, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6
_UNREADABLE_COLOURS = {
    5: "CMYK",
    8: "CIELAB",
    9: "ICCLAB",
    10: "ITULAB",
    32803: "Bayer",
}
_ALPHA = (1, 2)  # TIFF tag 338: associated and unassociated alpha
_JPEG = (6, 7, 34892, 33007)
_STRIP_ROWS = 64
# No codec packs tighter than this.
_MOST_PACKED = {1: 1, 5: 2048, 8: 1100, 32946: 1100, 32773: 128}
_MOST_PACKED_OTHER = 2**17


def stored_tiff(
    path: Path, tif: tifffile.TiffFile, *, is_coloured: bool = True, level: int = 0
) -> Stored:
    """Describe the first image of an open TIFF.

    Parameters
    ----------
    path : Path
        Where it is.
    tif : tifffile.TiffFile
        Open while this runs and while a plane is chosen, not for reading.
    is_coloured : bool
        Apply a colour table. Not for labels: their ids are positions in it.
    level : int
        Resolution of a pyramid, 0 the full one.

    Raises
    ------
    ImageFileError
        If it holds no image or one of a kind that is not supported.
    """
    if not tif.series:
        raise ImageFileError(
            f"{path}: expected a TIFF that holds an image, got one without any. "
            "Export it again."
        )
    levels = _levels(tif.series[0])
    series = levels[level]
    page = series.keyframe
    where = str(path)
    if page.dtype is None:
        raise ImageFileError(
            f"{where}: expected bool, integer or float pixels of up to 64 bits, got "
            f"{page.bitspersample} bits of sample format {page.sampleformat}. Save it "
            "as 8, 16 or 32 bits."
        )
    _check_codec(page, where)
    samples, notes = _colours(page, where)
    table = _colour_table(tif, page) if is_coloured else None
    if len(tif.series) > 1:
        n = len(tif.series)
        notes += (f"The file holds {n} images; the first is read.",)
    if page.compression in _JPEG:
        notes += (LOSSY_NOTE,)
    return Stored(
        name=path.name,
        path=path,
        axes=series.axes,
        shape=tuple(series.shape),
        dtype=check_dtype(series.dtype, where),
        open_plane=lambda chosen: _open_plane(path, series, chosen),
        samples=samples,
        pixel_size=coarser(
            from_tiff(tif, levels[0].keyframe),
            _plane_shape(levels[0]),
            _plane_shape(series),
        ),
        channel_names=_channel_names(tif),
        notes=notes,
        colour_table=table,
        n_levels=len(levels),
    )


def _plane_shape(series: Any) -> tuple[int, int]:
    return series.keyframe.imagelength, series.keyframe.imagewidth


def _levels(series: Any) -> list[Any]:
    """Return the resolutions of a series that have the same planes."""
    full = series.levels[0]

    def planes(level: Any) -> list[Any]:
        pairs = zip(level.axes, level.shape, strict=True)
        return [(a, n) for a, n in pairs if a not in "YX"]

    is_sound = [
        level.axes == full.axes and planes(level) == planes(full)
        for level in series.levels
    ]
    return series.levels[: [*is_sound, False].index(False)]


def _check_codec(page: Any, where: str) -> None:
    if page.compression == 1:
        return
    try:
        tifffile.TIFF.DECOMPRESSORS[page.compression]
    except KeyError as err:
        name = getattr(page.compression, "name", page.compression)
        raise ImageFileError(
            f"{where}: expected a TIFF compression that can be read (LZW, deflate, "
            f"JPEG, ...), got {name}. Save it again without compression."
        ) from err


def _colours(page: Any, where: str) -> tuple[Samples | None, tuple[str, ...]]:
    """Return what the samples of a pixel are, and notes."""
    n, photometric = int(page.samplesperpixel), page.photometric
    if photometric in _UNREADABLE_COLOURS:
        raise ImageFileError(
            f"{where}: expected grey, RGB or palette colours, got "
            f"{_UNREADABLE_COLOURS[photometric]}. Convert it to RGB where it was made."
        )
    is_image_codec = page.compression in tifffile.TIFF.IMAGE_COMPRESSIONS
    if photometric == _YCBCR and not is_image_codec:  # only these decode to RGB
        raise ImageFileError(
            f"{where}: expected grey, RGB or palette colours, got YCbCr without JPEG. "
            "Convert it to RGB where it was made."
        )
    if photometric in (_RGB, _YCBCR):
        if n not in (3, 4):
            raise ImageFileError(
                f"{where}: expected RGB of 3 samples, or 4 with alpha, got {n}. Save "
                "the channels as a stack of grey channels (CYX)."
            )
        return Samples(3, True), ()
    n_alpha = sum(1 for extra in page.extrasamples[-1:] if extra in _ALPHA)
    notes: tuple[str, ...] = ()
    if photometric == _MINISWHITE:
        notes = ("Stored with white as zero; the values are kept as they are.",)
    return Samples(n - n_alpha, False), notes


def _colour_table(tif: tifffile.TiffFile, page: Any) -> npt.NDArray[np.uint8] | None:
    """Return the colours of a palette image, None where the values are the data."""
    # ImageJ writes a display LUT as a palette, SEM software a plain grey ramp.
    if page.photometric != _PALETTE or page.colormap is None or tif.is_imagej:
        return None
    table = np.asarray(page.colormap).T  # (N, 3) uint16
    if table.max() > 255:
        table = table >> 8
    ramp = np.arange(len(table))
    if len(table) == 256 and all((column == ramp).all() for column in table.T):
        return None
    return table.astype(np.uint8)


def _channel_names(tif: tifffile.TiffFile) -> tuple[str, ...]:
    if tif.is_ome:
        try:
            image = ElementTree.fromstring(tif.ome_metadata).find(".//{*}Image")
        except ElementTree.ParseError:
            return ()
        channels = [] if image is None else image.findall(".//{*}Channel")
        names = tuple(c.get("Name", "") for c in channels)
        return names if all(names) else ()
    return ()


def _open_plane(path: Path, series: Any, chosen: Selection) -> PlaneReader:
    """Make the reader of a selection while the file is open."""
    page = series.keyframe
    stored_dtype = page.dtype.newbyteorder(page.parent.byteorder)
    offset = series.dataoffset
    if offset is not None and not series.is_multifile:
        n_bytes = math.prod(chosen.shape) * stored_dtype.itemsize
        check_length(path, offset + n_bytes)
        return MappedPlane(path, chosen, dtype=stored_dtype, offset=offset)
    lead = _leading_axes(path, chosen, page)
    parts = [_PagePart.of(path, series.pages[i]) for i in _page_positions(chosen, lead)]
    for part in parts:
        check_length(part.path, part.end)
        _check_segments(page, part)
    grid = _Grid.of(page)
    return BlockedPlane(
        grid.joined_rows,
        grid.columns,
        n_channels=chosen.n_channels,
        dtype=page.dtype.newbyteorder("="),
        load=_Segments(parts, page, chosen, grid).load,
    )


def _leading_axes(path: Path, chosen: Selection, page: Any) -> int:
    """Return how many axes of the series run over pages."""
    inner = [n for n in page.shape if n > 1]
    for n_lead in range(len(chosen.shape) - 1):
        letters = chosen.axes[n_lead:].replace("C", "S")
        is_plane = letters in ("YX", "YXS", "SYX")
        if is_plane and [n for n in chosen.shape[n_lead:] if n > 1] == inner:
            return n_lead
    raise ImageFileError(
        f"{path}: expected each page of a compressed TIFF to be one plane, got pages "
        f"of shape {page.shape} for an image of shape {chosen.shape} ({chosen.axes}). "
        "Save it as a plain uncompressed stack."
    )


def _page_positions(chosen: Selection, n_lead: int) -> list[int]:
    """Return the pages that hold the channels of a selection, in order."""
    positions = [0]
    for at, length in zip(chosen.fixed[:n_lead], chosen.shape[:n_lead], strict=True):
        span = range(chosen.n_channels) if at is None else (at,)
        positions = [p * length + i for p in positions for i in span]
    return positions


@dataclass(frozen=True, slots=True)
class _PagePart:
    """Where the strips or tiles of one page lie."""

    path: Path
    offsets: tuple[int, ...]
    counts: tuple[int, ...]
    tables: bytes | None
    header: bytes | None

    @classmethod
    def of(cls, path: Path, page: Any) -> _PagePart:
        if page is None:
            raise ImageFileError(
                f"{path}: expected all planes of the image, but this one is missing "
                "or lies in another file of the set. Put the files of the set into "
                "one folder."
            )
        return cls(
            Path(page.parent.filehandle.path),
            tuple(page.dataoffsets),
            tuple(page.databytecounts),
            page.jpegtables,
            getattr(page.keyframe, "jpegheader", None),
        )

    @property
    def end(self) -> int:
        pairs = zip(self.offsets, self.counts, strict=True)
        return max((o + n for o, n in pairs), default=0)


@dataclass(frozen=True, slots=True)
class _Grid:
    """Where the strips or tiles of a page begin, with its ends last."""

    rows: list[int]
    columns: list[int]
    joined_rows: list[int]

    @classmethod
    def of(cls, page: Any) -> _Grid:
        height, width = page.imagelength, page.imagewidth
        tall, wide = _segment_shape(page)
        rows = [*range(0, height, tall), height]
        least = 1 if page.is_tiled else _STRIP_ROWS
        joined = [0]
        for edge in rows[1:]:  # some microscopes write a strip for every row
            if edge - joined[-1] >= least or edge == height:
                joined.append(edge)
        return cls(rows, [*range(0, width, wide), width], joined)

    def number(self, planar: int, row: int, column: int) -> int:
        return (planar * (len(self.rows) - 1) + row) * (len(self.columns) - 1) + column


def _samples_apart(page: Any) -> tuple[int, int]:
    """Return how many samples are stored apart, and how many together."""
    n = int(page.samplesperpixel)
    return (n, 1) if page.planarconfig == 2 else (1, n)


def _segment_shape(page: Any) -> tuple[int, int]:
    """Return rows and columns of a tile or strip."""
    if page.is_tiled:
        return page.tilelength, page.tilewidth
    return min(page.rowsperstrip, page.imagelength), page.imagewidth


def _check_segments(page: Any, part: _PagePart) -> None:
    """Compare what the header claims with what is there, before anything is made."""
    height, width = page.imagelength, page.imagewidth
    (tall, wide), (n_planar, n_inner) = _segment_shape(page), _samples_apart(page)
    expected = math.ceil(height / tall) * math.ceil(width / wide) * n_planar
    if not len(part.offsets) == len(part.counts) == expected:
        raise ImageFileError(
            f"{part.path}: expected {expected} strips or tiles for {height} x {width} "
            f"pixels, got {len(part.offsets)}. The file is damaged; export it again."
        )
    claimed = tall * wide * n_inner * page.dtype.itemsize
    ratio = _MOST_PACKED.get(int(page.compression), _MOST_PACKED_OTHER)
    check_claimed_size(str(part.path), claimed, min(part.counts), ratio)


class _Segments:
    """Decodes strips or tiles of the pages that make up one plane."""

    def __init__(
        self, parts: list[_PagePart], page: Any, chosen: Selection, grid: _Grid
    ) -> None:
        self._decode: Callable[..., Any] = page.decode
        self._dtype = page.dtype.newbyteorder("=")
        self._nodata = page.nodata
        self._grid = grid
        self._n_channels = chosen.n_channels
        # (page, planar sample, first channel): what is stored apart
        n_planar, n_inner = _samples_apart(page)
        layers = [(part, i) for part in parts for i in range(n_planar)]
        kept = enumerate(layers[: math.ceil(chosen.n_channels / n_inner)])
        self._layers = [(part, i, n_inner * at) for at, (part, i) in kept]

    def load(self, row: int, column: int) -> _Pixels:
        """Return the (h, w, C) pixels of a block: segments under one another."""
        grid = self._grid
        y0, y1 = grid.joined_rows[row], grid.joined_rows[row + 1]
        segment_rows = range(bisect_left(grid.rows, y0), bisect_left(grid.rows, y1))
        width = grid.columns[column + 1] - grid.columns[column]
        out = np.full((y1 - y0, width, self._n_channels), self._nodata, self._dtype)
        for part, planar, channel in self._layers:
            with part.path.open("rb") as file:
                for r in segment_rows:
                    pixels = self._segment(file, part, grid.number(planar, r, column))
                    if pixels is None:
                        continue
                    into = out[grid.rows[r] - y0 : grid.rows[r + 1] - y0, :, channel:]
                    into[..., : pixels.shape[2]] = pixels[
                        : into.shape[0], :width, : into.shape[2]
                    ]
        return out

    def _segment(self, file: BinaryIO, part: _PagePart, number: int) -> _Pixels | None:
        n_bytes = part.counts[number]
        if n_bytes == 0:
            return None  # a sparse file leaves empty tiles out
        file.seek(part.offsets[number])
        data = file.read(n_bytes)
        if len(data) < n_bytes:
            raise ImageFileError(
                f"{part.path}: expected {n_bytes} bytes of a strip or tile, got "
                f"{len(data)}: the file has changed or was cut short. Open it again."
            )
        pixels, _, _ = self._decode(
            data, number, jpegtables=part.tables, jpegheader=part.header
        )
        return None if pixels is None else pixels[0]
