"""The result of one image or stack, tile by tile, until it is whole.

A store is a zarr group with one group for each kind of result: `labels`,
`probabilities`, `uncertainty`. Each is an OME-Zarr image in the making (`_ome_zarr`
knows its layout): a chunk of the full resolution is an output tile, written to a
temporary name and renamed, so any number of processes may write, in any order and
twice, and what is there is never computed again. The attributes of the store hold
what the result depends on, and a store is refused for anything else. When every tile
is there, the kinds become OME-Zarr folders (`move_to`) or TIFF files (`export_tiff`).
Which result belongs into a tile is left to the segmenter.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import (
    AlibiSegError,
    OutputError,
    PixelSize,
    SettingsError,
    StoreError,
    TileResult,
    Window,
)
from napari_alibi_seg.data._atomic import explained, move_folder, replaced
from napari_alibi_seg.data._guard import human_bytes
from napari_alibi_seg.data._identity import check_identity, made_once, store_key
from napari_alibi_seg.data._ome_zarr import KindImage, KindLayout, rgb
from napari_alibi_seg.data._result_checks import (
    checked_blocks,
    checked_dtype,
    checked_length,
    checked_tile,
)
from napari_alibi_seg.data._tiff_pyramid import Pyramid, write_pyramid
from napari_alibi_seg.data._tiling import PIXEL_TILE_PX, pixel_tiles

__all__ = ["ResultStore"]

RESULT_FORMAT = 1
RESULT_SUFFIX = ".results.zarr"


class ResultStore:
    """Tiles of one image's result in a folder, checked against their identity.

    Parameters
    ----------
    path : Path
        The store itself when it ends in ``.zarr``; otherwise a folder of stores, in
        which this one is named by its identity. For `move_to` it should lie on the
        disk of the outputs.
    identity : dict
        JSON description of all that the pixels depend on: image, classifier, settings.
    shape : tuple of int
        Rows and columns of the image.
    class_ids : sequence of int
        Ids in the labels, ascending: the K classes of the probabilities.
    kinds : sequence of {"labels", "probabilities", "uncertainty"}
        What is kept.
    label_dtype : dtype, optional
        Unsigned; by default the smallest that holds the ids.
    pixel_size : PixelSize, optional
        Physical side of a pixel, for the outputs.
    class_names, class_colours : mapping of int to str, optional
        Names by id, and colours as ``#rrggbb``, for the outputs. Neither these nor the
        pixel size are part of the identity: renaming a class needs no new prediction.
    tile_px : int
        Side of a tile, a multiple of 16.
    n_planes, n_times : int, optional
        Length of a stack along Z, and of a time series; the outputs have an axis for
        each. None for an image without it.

    Attributes
    ----------
    tiles : list of Window
        Output tiles of a plane in reading order, as `pixel_tiles` and as the segmenter
        predicts.
    planes : range
        Positions of the planes, which count through the planes of the first point in
        time, then of the second; 0 alone for an image that is no stack.

    Raises
    ------
    SettingsError
        If kinds, ids, dtype, tile or a colour are not what they should be.
    StoreError
        If the store at `path` belongs to another identity or is damaged.
    OutputError
        If it cannot be created.

    Notes
    -----
    Several threads and processes may use the same store at once. Memory is that of a
    few tiles, whatever the size of the image.

    Examples
    --------
    >>> import tempfile
    >>> from napari_alibi_seg.data import open_image
    >>> ids, one = np.full((4, 6), 3, np.uint8), np.ones((1, 4, 6), np.float32)
    >>> tile = TileResult(0, 1, Window(0, 4, 0, 6), ids, one, 0 * one[0])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = ResultStore(Path(folder) / "a.zarr", {"image": "a"}, (4, 6), [3])
    ...     store.write(0, tile)
    ...     store.missing(), store.label_counts()
    ...     store.move_to({"labels": Path(folder) / "labels.ome.zarr"})
    ...     source = open_image(Path(folder) / "labels.ome.zarr")
    ...     source.read(Window(0, 1, 0, 4))[..., 0]
    ([], {3: 24})
    array([[3, 3, 3, 3]], dtype=uint8)
    """

    def __init__(
        self,
        path: Path,
        identity: dict[str, Any],
        shape: tuple[int, int],
        class_ids: Sequence[int],
        *,
        kinds: Sequence[str] = ("labels",),
        label_dtype: npt.DTypeLike | None = None,
        pixel_size: PixelSize | None = None,
        class_names: Mapping[int, str] | None = None,
        class_colours: Mapping[int, str] | None = None,
        tile_px: int = PIXEL_TILE_PX,
        n_planes: int | None = None,
        n_times: int | None = None,
    ) -> None:
        self.shape = (int(shape[0]), int(shape[1]))
        self.class_ids = [int(i) for i in class_ids]
        self.kinds = tuple(kinds)
        self.pixel_size = pixel_size
        self.class_names = dict(class_names or {})
        self.class_colours = dict(class_colours or {})
        for colour in self.class_colours.values():
            rgb(colour)  # wrong ones are refused before the work, not after it
        self.tile_px = checked_tile(tile_px)
        self.tiles = pixel_tiles(self.shape, tile_px)
        self.n_planes = checked_length("n_planes", n_planes)
        self.n_times = checked_length("n_times", n_times)
        self.planes = range((n_times or 1) * (n_planes or 1))
        self.label_dtype = checked_dtype(self.class_ids, self.kinds, label_dtype)
        self.identity = self._full_identity(identity)
        self.path = (
            path
            if path.suffix == ".zarr"
            else path / (store_key(self.identity) + RESULT_SUFFIX)
        )
        made_once(self.path, self._create, "result store")
        self._check_identity()
        self._images = {kind: self._open_kind(kind) for kind in self.kinds}

    def missing(self, plane: int = 0) -> list[int]:
        """Return the tiles of a plane of which a kind is not there, in order."""
        images = self._images.values()
        return [
            i
            for i, window in enumerate(self.tiles)
            if not all(image.holds(0, window, plane) for image in images)
        ]

    def missing_planes(self) -> list[int]:
        """Return the planes of which a tile is not there."""
        return [plane for plane in self.planes if self.missing(plane)]

    def write(self, index: int, result: TileResult, plane: int = 0) -> None:
        """Keep all kinds of a tile, each chunk at once and for good.

        Parameters
        ----------
        index : int
            Position in `tiles`.
        result : TileResult
            Of that window. Its kinds that are not kept here are not looked at.
        plane : int
            Position in `planes`.

        Raises
        ------
        SettingsError
            If the result does not fit the tile, the classes or the dtype.
        OutputError
            If the disk is full or the store cannot be written.
        """
        window = self.tiles[index]
        layouts = [image.layout for image in self._images.values()]
        blocks = checked_blocks(result, index, window, layouts)
        for kind, image in self._images.items():
            with self._explained(f"tile {index}", blocks[kind].nbytes):
                image.write(0, window, blocks[kind], plane)

    def read(self, kind: str, window: Window, plane: int = 0) -> npt.NDArray[Any]:
        """Return a window of a kind at full resolution.

        Returns
        -------
        (h, w) or, for probabilities, (K, h, w) array
            Labels of `label_dtype`, maps of float32.

        Raises
        ------
        SettingsError
            If the kind is not kept here or the window leaves the image.
        StoreError
            If a tile that it touches is missing or damaged.
        """
        return self._image(kind).read(0, window, plane)

    def label_counts(self) -> dict[int, int]:
        """Return how many pixels each id has, ids of `class_ids` first.

        Raises
        ------
        StoreError
            If a tile is missing or damaged.
        """
        counts: Counter[int] = Counter(dict.fromkeys(self.class_ids, 0))
        for plane, window in product(self.planes, self.tiles):
            counts.update(_counted(self.read("labels", window, plane)))
        return dict(counts)

    def finish(self) -> None:
        """Make the coarser levels of every kind and describe it as OME-Zarr 0.5.

        Levels that are there are kept, so this can be killed and called again. Each
        level halves the one before it: maps are averaged, labels take the most
        frequent id of four pixels (see `_pyramid`).

        Raises
        ------
        StoreError
            If a tile is missing or damaged.
        OutputError
            If the disk is full.
        """
        for kind in self.kinds:
            self._build_levels(kind)
            with self._explained("metadata", 4096):
                self._image(kind).describe(
                    self.pixel_size,
                    self.class_ids,
                    self.class_names,
                    self.class_colours,
                )

    def move_to(self, targets: Mapping[str, Path], *, replace: bool = False) -> None:
        """Finish, and give the OME-Zarr of each kind its final name.

        Parameters
        ----------
        targets : mapping of str to Path
            Where each kind goes, best as ``name.ome.zarr``. Kinds without a target
            stay. When none stays, the store is removed.
        replace : bool
            Whether something that lies there is replaced.

        Raises
        ------
        OutputError
            If there is something and `replace` is False, or the disk fails.
        StoreError
            If a tile is missing or damaged.
        """
        for kind, target in targets.items():
            self._image(kind)
            if target.exists() and not replace:
                raise OutputError(
                    f"{target}: expected a name that is free, got one that exists. "
                    f"Choose another name or allow it to be replaced."
                )
        self.finish()
        for kind, target in targets.items():
            image = self._images.pop(kind)
            with explained(target, 4096):
                image.sweep()
                move_folder(image.path, target)
        self.kinds = tuple(self._images)
        if not self.kinds:
            self.delete()

    def export_tiff(self, kind: str, path: Path) -> None:
        """Write a kind as TIFF: deflate-compressed, tiled and pyramidal where large.

        Parameters
        ----------
        kind : str
            One of `kinds`.
        path : Path
            Ends in .tif or .tiff. An existing file is replaced, at the end and at once.

        Raises
        ------
        SettingsError
            If the kind is not kept here, or `path` is no name of a TIFF.
        StoreError
            If a tile is missing or damaged.
        OutputError
            If the file cannot be written.

        Notes
        -----
        Tiles are those of the store, coarser levels are SubIFDs, and OME-XML holds
        pixel size and class names. Every plane and channel is a page, channels first.
        An image of one tile is written as strips, which every program reads. BigTIFF
        where the pixels might not fit 4 GB. Memory is that of some tiles.
        """
        image = self._image(kind)
        if path.suffix.lower() not in (".tif", ".tiff"):
            raise SettingsError(
                f"{path}: expected a name that ends in .tif or .tiff, got "
                f"{path.suffix or 'no suffix'!r}."
            )
        self._build_levels(kind)
        with replaced(path, image.stored_bytes()) as temporary:
            write_pyramid(temporary, self._pyramid(image.layout), image.read_page)

    def delete(self) -> None:
        """Remove the store from disk."""
        shutil.rmtree(self.path)

    def _build_levels(self, kind: str) -> None:
        image = self._image(kind)
        tiles = list(product(self.planes, self.tiles))
        if missing := [w for plane, w in tiles if not image.holds(0, w, plane)]:
            raise StoreError(
                f"Expected all {len(tiles)} tiles of {kind} in the result store "
                f"{self.path}, but {len(missing)} are missing. Run the segmentation "
                f"again; tiles that exist are kept."
            )
        with self._explained("coarser levels", 2**20):
            image.build_levels()

    def _pyramid(self, layout: KindLayout) -> Pyramid:
        names = [self.class_names.get(i) or f"class {i}" for i in self.class_ids]
        return Pyramid(
            layout.name,
            layout.level_shapes,
            layout.dtype,
            channel_names=names if layout.channels else None,
            pixel_size=self.pixel_size,
            tile_px=self.tile_px,
            n_planes=self.n_planes or 1,
            n_times=self.n_times or 1,
        )

    def _image(self, kind: str) -> KindImage:
        if kind not in self._images:
            raise SettingsError(
                f"Expected one of the kinds that are kept, {list(self._images)}, got "
                f"{kind!r}."
            )
        return self._images[kind]

    def _full_identity(self, identity: dict[str, Any]) -> dict[str, Any]:
        own = {
            "format": RESULT_FORMAT,
            "shape": list(self.shape),
            "class_ids": self.class_ids,
            "kinds": sorted(self.kinds),
            "label_dtype": self.label_dtype.name,
            "tile_px": self.tile_px,
        }
        lengths = {"n_planes": self.n_planes, "n_times": self.n_times}
        own |= {name: n for name, n in lengths.items() if n is not None}
        return {**identity, **own}

    def _create(self, path: Path) -> None:
        import zarr

        zarr.open_group(path, mode="w", attributes={"alibi_seg": self.identity})

    def _check_identity(self) -> None:
        import zarr

        try:
            found = zarr.open_group(self.path, mode="r").attrs.asdict().get("alibi_seg")
        except (ValueError, OSError, KeyError, TypeError) as err:
            raise StoreError(
                f"{self.path} is not a result store, or is damaged ({err}). Name "
                f"another folder, or delete it to start again."
            ) from err
        if not isinstance(found, dict) or "class_ids" not in found:
            raise StoreError(
                f"{self.path} is a zarr group but not an unfinished result of this "
                f"package. Name another folder."
            )
        check_identity(self.path, found, self.identity, "result store")

    def _open_kind(self, kind: str) -> KindImage:
        is_labels = kind == "labels"
        layout = KindLayout(
            kind,
            self.shape,
            self.label_dtype if is_labels else np.dtype("float32"),
            len(self.class_ids) if kind == "probabilities" else None,
            self.tile_px,
            self.n_planes,
            self.n_times,
        )
        with self._explained("an empty image", 4096):
            return KindImage.opened(self.path / kind, layout)

    @contextmanager
    def _explained(self, what: str, n_bytes: int) -> Iterator[None]:
        """Turn a failing disk into an `OutputError` that says what is kept."""
        try:
            yield
        except AlibiSegError:
            raise
        except OSError as err:
            free = shutil.disk_usage(self.path.parent).free
            raise OutputError(
                f"Cannot write {what} of the result store {self.path}: "
                f"{err.strerror or err} ({human_bytes(n_bytes)} needed, "
                f"{human_bytes(free)} free). Tiles written so far are kept; make room "
                f"and run again to go on."
            ) from err


def _counted(labels: npt.NDArray[Any]) -> dict[int, int]:
    if labels.dtype.itemsize <= 2:  # many times faster, with a table of every id
        n = np.bincount(labels.ravel())
        ids = n.nonzero()[0]
        n = n[ids]
    else:
        ids, n = np.unique(labels, return_counts=True)
    return dict(zip(ids.tolist(), n.tolist(), strict=True))
