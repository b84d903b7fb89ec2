"""Tokens of one image, tile by tile: in memory, or on disk where a kill loses nothing.

On disk a store is a zarr array of shape (tiles, rows, columns, channels) in float16,
one checksummed chunk a tile, written to a temporary name and renamed: a tile is there
whole or not at all, and what is there is never computed again. Its attributes hold
the identity (image content, channels, intensity range, backbone and weights, tile
geometry) and a store is refused for any other. Only this module knows that layout.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import OutputError, StoreError
from napari_alibi_seg.data._identity import check_identity, made_once, store_key
from napari_alibi_seg.data._tiling import TokenGrid, TokenTile

__all__ = ["DiskStore", "MemoryStore", "TokenStore"]

STORE_FORMAT = 1
STORE_SUFFIX = ".tokens.zarr"
_HALF_MAX = float(np.finfo(np.float16).max)

Half = npt.NDArray[np.float16]


class TokenStore(Protocol):
    """Where the tokens of one image are kept."""

    grid: TokenGrid
    n_channels: int

    def missing(self) -> list[int]:
        """Return the tiles not yet written, in reading order."""

    def write(self, tile: TokenTile, tokens: npt.NDArray[Any]) -> None:
        """Keep the (rows, columns, C) tokens of a tile's `keep` window."""

    def read(self, tile: TokenTile) -> Half:
        """Return the tokens of a tile."""


def to_half(tokens: npt.NDArray[Any]) -> Half:
    """Round to float16; values beyond its range are clipped, not made infinite."""
    return np.clip(tokens, -_HALF_MAX, _HALF_MAX).astype(np.float16)


def tile_shape(grid: TokenGrid, tile: TokenTile) -> tuple[int, int]:
    """Return the tokens a tile provides, rows and columns."""
    rows, cols = tile.keep.shape
    return rows * grid.density, cols * grid.density


def iter_bands(store: TokenStore) -> Iterator[tuple[int, Half]]:
    """Yield (first row, (rows, all columns, C) tokens) for each row of tiles.

    The store must be complete.
    """
    grid, d = store.grid, store.grid.density
    band: Half | None = None
    for tile in grid.tiles:
        rows, _ = tile_shape(grid, tile)
        if tile.keep.x0 == 0:
            band = np.empty((rows, grid.shape[1], store.n_channels), np.float16)
        assert band is not None
        band[:, tile.keep.x0 * d : tile.keep.x1 * d] = store.read(tile)
        if tile.keep.x1 == grid.patches[1]:
            yield tile.keep.y0 * d, band


class MemoryStore:
    """Tokens in memory, for small images and one session.

    Examples
    --------
    >>> grid = TokenGrid((28, 28), patch_px=14, tile_px=28)
    >>> store = MemoryStore(grid, n_channels=3)
    >>> store.write(grid.tiles[0], np.ones((2, 2, 3)))
    >>> store.missing(), store.read(grid.tiles[0]).shape
    ([], (2, 2, 3))
    """

    def __init__(self, grid: TokenGrid, n_channels: int) -> None:
        self.grid = grid
        self.n_channels = n_channels
        self._tiles: dict[int, Half] = {}

    def missing(self) -> list[int]:
        """Return the tiles not yet written, in reading order."""
        return [t.index for t in self.grid.tiles if t.index not in self._tiles]

    def write(self, tile: TokenTile, tokens: npt.NDArray[Any]) -> None:
        """Keep the (rows, columns, C) tokens of a tile."""
        self._tiles[tile.index] = to_half(tokens)

    def read(self, tile: TokenTile) -> Half:
        """Return the tokens of a tile."""
        return self._tiles[tile.index]


def _full_identity(
    identity: dict[str, Any], grid: TokenGrid, n_channels: int
) -> dict[str, Any]:
    own = {"format": STORE_FORMAT, "grid": grid.to_dict(), "n_channels": n_channels}
    return {**identity, **own}


class DiskStore:
    """Tokens in a zarr folder, checked against the identity it was made for.

    Parameters
    ----------
    path : Path
        The store itself when it ends in ``.zarr``; otherwise a folder of stores, in
        which this one is named by its identity.
    identity : dict
        JSON description of image, backbone and settings.
    grid : TokenGrid
        Geometry; part of the identity.
    n_channels : int
        Channels of a token.

    Raises
    ------
    StoreError
        If the store at `path` belongs to another identity, is damaged or was made by
        a newer version.
    OutputError
        If it cannot be created.

    Examples
    --------
    >>> import tempfile
    >>> grid = TokenGrid((28, 28), patch_px=14, tile_px=28)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = DiskStore(Path(folder), {"image": "a"}, grid, 3)
    ...     store.write(grid.tiles[0], np.ones((2, 2, 3)))
    ...     DiskStore(Path(folder), {"image": "a"}, grid, 3).missing()
    []
    """

    def __init__(
        self, path: Path, identity: dict[str, Any], grid: TokenGrid, n_channels: int
    ) -> None:
        self.grid = grid
        self.n_channels = n_channels
        self.identity = _full_identity(identity, grid, n_channels)
        self.path = self.locate(path, identity, grid, n_channels)
        made_once(self.path, self._create, "feature store")
        self._array = self._open()

    @staticmethod
    def locate(
        path: Path, identity: dict[str, Any], grid: TokenGrid, n_channels: int
    ) -> Path:
        """Return where the store of an identity lies, whether it exists or not."""
        if path.suffix == ".zarr":
            return path
        key = store_key(_full_identity(identity, grid, n_channels))
        return path / (key + STORE_SUFFIX)

    def missing(self) -> list[int]:
        """Return the tiles not yet written, in reading order."""
        return [t.index for t in self.grid.tiles if not self._chunk(t).exists()]

    def write(self, tile: TokenTile, tokens: npt.NDArray[Any]) -> None:
        """Keep the (rows, columns, C) tokens of a tile, at once and for good.

        Raises
        ------
        OutputError
            If the disk is full or the store cannot be written.
        """
        side = self._array.shape[1]
        chunk = np.zeros((1, side, side, self.n_channels), np.float16)
        chunk[0, : tokens.shape[0], : tokens.shape[1]] = to_half(tokens)
        try:
            self._array[tile.index : tile.index + 1] = chunk
        except OSError as err:
            free = shutil.disk_usage(self.path).free
            raise OutputError(
                f"Cannot write tile {tile.index} of the feature store {self.path}: "
                f"{err.strerror or err} ({chunk.nbytes} bytes needed, {free} free). "
                f"Tiles written so far are kept; make room and run again to go on."
            ) from err

    def read(self, tile: TokenTile) -> Half:
        """Return the tokens of a tile.

        Raises
        ------
        StoreError
            If the tile is absent or its checksum does not match.
        """
        if not self._chunk(tile).exists():
            raise StoreError(
                f"Tile {tile.index} of the feature store {self.path} is missing. "
                f"Extract the features again; tiles that exist are kept."
            )
        rows, cols = tile_shape(self.grid, tile)
        try:
            block = self._array[tile.index]
        except (ValueError, OSError) as err:
            raise StoreError(
                f"Tile {tile.index} of the feature store {self.path} is damaged "
                f"({err}). Delete {self._chunk(tile)} and extract again."
            ) from err
        return block[:rows, :cols]

    def delete(self) -> None:
        """Remove the store from disk, if it is there; it loses its name at once."""
        # a kill on the way must not leave half a store where a whole one is looked for
        doomed = self.path.with_name(f".deleted-{self.path.name}")
        shutil.rmtree(doomed, ignore_errors=True)
        with suppress(FileNotFoundError):
            self.path.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)

    def _chunk(self, tile: TokenTile) -> Path:
        return self.path / "c" / str(tile.index) / "0" / "0" / "0"

    def _create(self, path: Path) -> None:
        import zarr
        from zarr.codecs import Crc32cCodec

        side = min(self.grid.tile_tokens, max(self.grid.patches)) * self.grid.density
        zarr.create_array(
            path,
            shape=(len(self.grid.tiles), side, side, self.n_channels),
            chunks=(1, side, side, self.n_channels),
            dtype="float16",
            compressors=[Crc32cCodec()],
            # chunks equal to the fill value are not written: nothing may equal it
            fill_value=float("nan"),
            attributes={"alibi_seg": self.identity},
        )

    def _open(self) -> Any:
        import zarr

        try:
            array = zarr.open_array(self.path, mode="r+")
            found = array.attrs.asdict().get("alibi_seg")
        except (ValueError, OSError, KeyError, TypeError) as err:
            raise StoreError(
                f"{self.path} is not a feature store, or is damaged ({err}). Name "
                f"another folder, or delete it to extract again."
            ) from err
        if not isinstance(found, dict):
            raise StoreError(
                f"{self.path} is a zarr array but not a feature store of this "
                f"package. Name another folder."
            )
        check_identity(self.path, found, self.identity, "feature store")
        return array
