"""The OME-Zarr image (0.5, zarr 3) that one kind of result becomes.

Only this module knows how ours are laid out: levels `0`, `1`, ... in chunks of one
output tile, one plane and one channel, zstd with a checksum. Planes of a stack come
after the channels and points in time before them, as OME-Zarr wants it. Forest
probabilities are averages of few values, which byte shuffling would tear apart: it
makes them twice as large. Reading OME-Zarr, ours and others', is left to `_zarr`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import PixelSize, SettingsError, StoreError, Window
from napari_alibi_seg.data._identity import made_once
from napari_alibi_seg.data._pyramid import (
    halve_labels,
    halve_map,
    level_shapes,
    window_above,
)
from napari_alibi_seg.data._tiling import PIXEL_TILE_PX, pixel_tiles

__all__ = ["KindImage", "KindLayout", "rgb"]

_VERSION = "0.5"
_ZSTD_LEVEL = 3
_NO_COLOUR = "#808080"
_AXIS_TYPES = {"c": "channel", "z": "space", "t": "time"}
_UNIT_NAMES = {  # as UDUNITS-2 spells them
    "pm": "picometer",
    "nm": "nanometer",
    "um": "micrometer",
    "mm": "millimeter",
    "cm": "centimeter",
    "m": "meter",
}


@dataclass(frozen=True)
class KindLayout:
    """Name, size and type of one kind.

    `n_channels`, `n_planes` (along Z) and `n_times` are None where there is no such
    axis. A plane is named by its position, which counts through the planes of the first
    point in time, then of the second, and so on.

    Examples
    --------
    >>> layout = KindLayout("probabilities", (600, 40), np.dtype("float32"), 3)
    >>> layout.channels, layout.level_shapes
    ((3,), [(600, 40), (300, 20)])
    >>> layout = KindLayout("labels", (6, 4), np.dtype("u1"), n_planes=7, n_times=2)
    >>> layout.lead, layout.axes, layout.at(8)
    ((2, 7), ['t', 'z', 'y', 'x'], (1, 1))
    """

    name: str
    shape: tuple[int, int]
    dtype: np.dtype
    n_channels: int | None = None
    tile_px: int = PIXEL_TILE_PX
    n_planes: int | None = None
    n_times: int | None = None

    @property
    def channels(self) -> tuple[int, ...]:
        """Shape of a plane before Y and X."""
        return () if self.n_channels is None else (self.n_channels,)

    @property
    def lead(self) -> tuple[int, ...]:
        """Shape before Y and X."""
        lengths = (self.n_times, self.n_channels, self.n_planes)
        return tuple(n for n in lengths if n is not None)

    def at(self, plane: int, channel: int | None = None) -> tuple[Any, ...]:
        """Return the index before Y and X; of all channels if none is named."""
        time, z = divmod(plane, self.n_planes or 1)
        at = slice(None) if channel is None else channel
        known = ((self.n_times, time), (self.n_channels, at), (self.n_planes, z))
        return tuple(index for n, index in known if n is not None)

    @property
    def planes(self) -> range:
        """Positions of the planes; 0 alone where there is no stack."""
        return range((self.n_times or 1) * (self.n_planes or 1))

    @property
    def level_shapes(self) -> list[tuple[int, int]]:
        """Shape of every level, full resolution first."""
        return level_shapes(self.shape, self.tile_px)

    @property
    def axes(self) -> list[str]:
        """Names of the axes."""
        lengths = {"t": self.n_times, "c": self.n_channels, "z": self.n_planes}
        return [*(a for a, n in lengths.items() if n is not None), "y", "x"]

    def halved(self, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the pixels of the next level."""
        return (halve_labels if self.name == "labels" else halve_map)(pixels)


class KindImage:
    """Chunks of one kind, level by level. Made by `opened`; for many threads.

    Examples
    --------
    >>> import tempfile
    >>> layout = KindLayout("labels", (2, 3), np.dtype("uint8"))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     image = KindImage.opened(Path(folder) / "labels", layout)
    ...     image.write(0, Window(0, 2, 0, 3), np.full((2, 3), 4, np.uint8))
    ...     image.read(0, Window(0, 1, 1, 3))
    array([[4, 4]], dtype=uint8)
    """

    def __init__(self, path: Path, layout: KindLayout) -> None:
        self.path = path
        self.layout = layout
        self._arrays: dict[int, Any] = {}
        self._lock = threading.Lock()

    @classmethod
    def opened(cls, path: Path, layout: KindLayout) -> KindImage:
        """Open the image, which is made if it is not there."""
        made_once(path, lambda new: _create(new, layout), f"array of {layout.name}")
        return cls(path, layout)

    def holds(self, level: int, window: Window, plane: int = 0) -> bool:
        """Return whether every chunk that a window touches is there."""
        chunks = self._chunks(level, window, self.layout.at(plane))
        return not any(not chunk.exists() for chunk in chunks)

    def write(
        self, level: int, window: Window, block: npt.NDArray[Any], plane: int = 0
    ) -> None:
        """Write the pixels of one tile.

        Raises
        ------
        StoreError
            If the image has got its final name meanwhile, or was removed.
        """
        if not (self.path / "zarr.json").exists():
            # zarr would make the folders again, for a chunk that nobody will read
            raise StoreError(
                f"{self.path} is no longer there: another process has finished or "
                f"removed the result. Nothing needs to be written."
            )
        self._array(level)[(*self.layout.at(plane), *window.slices)] = block

    def read(self, level: int, window: Window, plane: int = 0) -> npt.NDArray[Any]:
        """Return the (h, w) or (K, h, w) pixels of a window."""
        return self._read(level, window, self.layout.at(plane))

    def read_page(
        self, level: int, plane: int, channel: int | None, window: Window
    ) -> npt.NDArray[Any]:
        """Return the (h, w) pixels of a window of one plane and channel."""
        return self._read(level, window, self.layout.at(plane, channel))

    def build_levels(self) -> None:
        """Make the coarser levels, tile by tile; what is there is kept."""
        shapes = self.layout.level_shapes
        for level, plane in product(range(1, len(shapes)), self.layout.planes):
            for window in pixel_tiles(shapes[level], self.layout.tile_px):
                if not self.holds(level, window, plane):
                    finer = window_above(window, shapes[level - 1])
                    above = self.read(level - 1, finer, plane)
                    self.write(level, window, self.layout.halved(above), plane)

    def describe(
        self,
        pixel_size: PixelSize | None,
        class_ids: Sequence[int],
        names: Mapping[int, str],
        colours: Mapping[int, str],
    ) -> None:
        """Write the OME-Zarr metadata."""
        import zarr

        ome: dict[str, Any] = {
            "version": _VERSION,
            "multiscales": [_multiscale(self.layout, pixel_size)],
        }
        if self.layout.name == "labels":
            ome["image-label"] = _image_label(class_ids, names, colours)
        elif self.layout.channels:
            ome["omero"] = {"channels": _channels(class_ids, names, colours)}
        zarr.open_group(self.path, mode="r+").attrs.put({"ome": ome})

    def sweep(self) -> None:
        """Remove what a killed writer has left under temporary names."""
        for partial in self.path.rglob("*.partial"):
            partial.unlink(missing_ok=True)

    def stored_bytes(self) -> int:
        """Return the size of all chunks."""
        return sum(f.stat().st_size for f in self.path.rglob("*") if f.is_file())

    def _read(
        self, level: int, window: Window, lead: tuple[Any, ...]
    ) -> npt.NDArray[Any]:
        height, width = self.layout.level_shapes[level]
        if not (
            0 <= window.y0 < window.y1 <= height and 0 <= window.x0 < window.x1 <= width
        ):
            raise SettingsError(
                f"Expected a window inside {height} x {width} pixels, got {window}."
            )
        absent = [c for c in self._chunks(level, window, lead) if not c.exists()]
        if absent:
            raise StoreError(
                f"Expected the tiles of {window} in {self.path}, but {absent[0].name} "
                f"of level {level} is missing ({absent[0]}). Run the segmentation "
                f"again; tiles that exist are kept."
            )
        try:
            return np.asarray(self._array(level)[(*lead, *window.slices)])
        except (ValueError, RuntimeError, OSError) as err:
            # zstd's wrapper reports a wrong checksum as a RuntimeError
            raise StoreError(
                f"A chunk of {window} in {self.path}/{level} is damaged ({err}). "
                f"Delete it and run the segmentation again; other tiles are kept."
            ) from err

    def _chunks(
        self, level: int, window: Window, lead: tuple[Any, ...]
    ) -> Iterator[Path]:
        side = self.layout.tile_px
        folder = self.path / str(level) / "c"
        # chunks hold one of each: an index is a position of a chunk too
        spans = [
            range(n) if isinstance(i, slice) else (i,)
            for i, n in zip(lead, self.layout.lead, strict=True)
        ]
        folders = [folder.joinpath(*map(str, at)) for at in product(*spans)]
        for row in range(window.y0 // side, (window.y1 - 1) // side + 1):
            for column in range(window.x0 // side, (window.x1 - 1) // side + 1):
                for parent in folders:
                    yield parent / str(row) / str(column)

    def _array(self, level: int) -> Any:
        with self._lock:
            if level not in self._arrays:
                self._arrays[level] = self._open_level(level)
            return self._arrays[level]

    def _open_level(self, level: int) -> Any:
        import zarr

        path = self.path / str(level)
        expected = (*self.layout.lead, *self.layout.level_shapes[level])
        try:
            array = zarr.open_array(path, mode="r+")
        except (ValueError, OSError, KeyError, TypeError) as err:
            raise StoreError(
                f"{path} is not the array it should be, or is damaged ({err}). Delete "
                f"the result store and start again."
            ) from err
        if array.shape != expected or array.dtype != self.layout.dtype:
            raise StoreError(
                f"{path}: expected {self.layout.dtype} of shape {expected}, got "
                f"{array.dtype} of shape {array.shape}. Delete the result store and "
                f"start again."
            )
        # a class that is nowhere gives chunks of zeros, which count as written
        config = {"write_empty_chunks": True}
        return zarr.Array(zarr.AsyncArray(array.metadata, array.store_path, config))


def _create(path: Path, layout: KindLayout) -> None:
    import zarr
    from zarr.codecs import ZstdCodec

    group = zarr.open_group(path, mode="w")
    for level, shape in enumerate(layout.level_shapes):
        group.create_array(
            str(level),
            shape=(*layout.lead, *shape),
            chunks=(*(1 for _ in layout.lead), layout.tile_px, layout.tile_px),
            dtype=layout.dtype,
            compressors=[ZstdCodec(level=_ZSTD_LEVEL, checksum=True)],
            fill_value=0,
            dimension_names=layout.axes,
        )


def _multiscale(layout: KindLayout, size: PixelSize | None) -> dict[str, Any]:
    unit = None if size is None else _UNIT_NAMES.get(size.unit, size.unit)
    sides = (1.0, 1.0) if size is None else (size.y, size.x)
    z = None if size is None else size.z
    lead = [z if name == "z" and z else 1.0 for name in layout.axes[:-2]]
    spatial = {"type": "space"} if unit is None else {"type": "space", "unit": unit}
    axes: list[dict[str, str]] = [
        # planes at an unknown distance have no unit
        {"name": a, **(spatial if a == "z" and z else {"type": _AXIS_TYPES[a]})}
        for a in layout.axes[:-2]
    ]
    datasets = []
    for level in range(len(layout.level_shapes)):
        factor = 2**level
        # the centre of a coarse pixel lies between the centres it is made of
        shifts = [side * (factor - 1) / 2 for side in sides]
        steps = [
            {"type": "scale", "scale": [*lead, *(s * factor for s in sides)]},
            {"type": "translation", "translation": [*(0.0 for _ in lead), *shifts]},
        ]
        datasets.append({"path": str(level), "coordinateTransformations": steps})
    is_labels = layout.name == "labels"
    return {
        "name": layout.name,
        "axes": [*axes, {"name": "y", **spatial}, {"name": "x", **spatial}],
        "datasets": datasets,
        "type": "most frequent of 2 x 2" if is_labels else "mean of 2 x 2",
    }


def _image_label(
    class_ids: Sequence[int], names: Mapping[int, str], colours: Mapping[int, str]
) -> dict[str, Any]:
    # readers want the same ids in both lists
    properties = [
        {"label-value": i, "class": names.get(i) or f"class {i}"} for i in class_ids
    ]
    if not colours:
        return {"properties": properties}
    colors = [
        {"label-value": i, "rgba": [*rgb(colours.get(i, _NO_COLOUR)), 255]}
        for i in class_ids
    ]
    return {"colors": colors, "properties": properties}


def _channels(
    class_ids: Sequence[int], names: Mapping[int, str], colours: Mapping[int, str]
) -> list[dict[str, Any]]:
    return [
        {
            "label": names.get(i) or f"class {i}",
            "color": colours.get(i, "#FFFFFF").removeprefix("#").upper(),
            "active": True,
            "window": {"start": 0.0, "end": 1.0, "min": 0.0, "max": 1.0},
        }
        for i in class_ids
    ]


def rgb(colour: str) -> list[int]:
    """Return the three bytes of a colour.

    Raises
    ------
    SettingsError
        If it is not written as ``#rrggbb``.

    Examples
    --------
    >>> rgb("#1f77b4")
    [31, 119, 180]
    """
    text = colour.removeprefix("#")
    try:
        if len(text) != 6:
            raise ValueError
        return list(bytes.fromhex(text))
    except ValueError as err:
        raise SettingsError(
            f"Expected a class colour like '#1f77b4', got {colour!r}."
        ) from err
