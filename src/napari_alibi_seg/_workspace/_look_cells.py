"""The cells of images that are looked at: their features, and their pixels.

A cell is a token of a ViT, or a cell of the classical features where there is no ViT.
Only this module knows how many cells of a large image are looked at, how long they are
kept, and which pixels of some cells are painted when they become a class.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Hashable, Iterator
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import SettingsError, StoreError, Window
from napari_alibi_seg._segmenter import Embedding
from napari_alibi_seg.data import TokenGrid, iter_bands

__all__ = ["MAX_COMPONENTS", "Cells", "ImageCells", "dabs"]

_Map: TypeAlias = npt.NDArray[np.floating[Any]]
_Pixels: TypeAlias = npt.NDArray[np.int64]
_Loading: TypeAlias = Generator[tuple[int, int], None, _Map]

# Later ones show noise, and a list of more is not read.
MAX_COMPONENTS = 6
# Samples a side of what is shown: more than a dock leaves of any screen.
_MAX_SIDE = 2048
# Features of one image that are looked at: all tokens of a ViT-S up to some 8,000
# pixels a side. Of larger images every second token each way, or every third.
_MAP_BYTES = 256 << 20
# Features of images not looked at just now, kept for going back to them.
_KEPT_BYTES = 512 << 20
# Cells of all images together that the basis is measured on.
_BASIS_CELLS = 1 << 18
# Side of a dab that stands for a piece of a cluster: seen at a glance, erased at one.
_DAB_PX = 5
# No cell of another cluster among the eight around it.
_INSIDE_CELLS = 2.0


@dataclass(frozen=True, eq=False)
class ImageCells:
    """The cells of one image that are looked at, and where they lie in it.

    Parameters
    ----------
    grid : TokenGrid
        All tokens, or cells.
    features : (R, C, F) float array
        Of every `every`-th of them.
    every : int
        1 unless the image is huge.
    """

    grid: TokenGrid
    features: _Map
    every: int
    # what follows is per row or column of pixels: where it lies among the cells
    row_at: npt.NDArray[np.float64] = field(init=False)
    col_at: npt.NDArray[np.float64] = field(init=False)
    nearest_row: _Pixels = field(init=False)
    nearest_col: _Pixels = field(init=False)

    def __post_init__(self) -> None:
        height, width = self.shape
        positions = {
            "row": self.grid.row_positions(0, height),
            "col": self.grid.col_positions(0, width),
        }
        for (name, at), n in zip(positions.items(), self.grid.shape, strict=True):
            among = (at - _first(n, self.every)) / self.every
            among = np.clip(among, 0, len(_chosen(n, self.every)) - 1)
            object.__setattr__(self, f"{name}_at", among)
            nearest = np.floor(among + 0.5).astype(np.int64)
            object.__setattr__(self, f"nearest_{name}", nearest)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the image, in pixels."""
        return self.grid.image_shape

    def lattice(self) -> tuple[_Pixels, _Pixels, int]:
        """Return the rows and columns that are shown, and their step."""
        step = math.ceil(max(self.shape) / _MAX_SIDE)
        rows, cols = (
            np.minimum(np.arange(0, n, step) + step // 2, n - 1) for n in self.shape
        )
        return rows, cols, step

    def centres(self, rows: _Pixels, cols: _Pixels) -> tuple[_Pixels, _Pixels]:
        """Return the pixels nearest to the centres of some cells."""
        out = []
        for axis, (index, n) in enumerate(
            zip((rows, cols), self.grid.shape, strict=True)
        ):
            every_pixel = [self.grid.pixel_of_token(i, i)[axis] for i in range(n)]
            at = np.array(every_pixel)[_chosen(n, self.every)][index]
            pixel = np.floor(at + 0.5).astype(np.int64)
            out.append(np.clip(pixel, 0, self.shape[axis] - 1))
        return out[0], out[1]


class Cells:
    """Features of several images: read once, thinned, the last ones kept."""

    def __init__(self, embeddings: dict[Hashable, Embedding]) -> None:
        self.embeddings = embeddings
        self._kept: dict[Hashable, ImageCells] = {}
        self._samples: dict[Hashable, _Map] = {}
        self._lock = Lock()

    @property
    def n_components(self) -> int:
        return min(MAX_COMPONENTS, min(map(_n_channels, self._several())))

    def of(self, key: Hashable) -> ImageCells:
        for _ in self.iter_load(key):
            pass
        with self._lock:
            found = self._kept.get(key)
        # another thread may have pushed it out in between
        return found if found is not None else self.of(key)

    def samples(self) -> list[_Map]:
        """Return cells of every image, (r, c, F), that stand for all."""
        for _ in self.iter_samples():
            pass
        # in the order of the images, whichever thread came first
        return [self._samples[key] for key in self.embeddings]

    def iter_samples(self) -> Iterator[tuple[int, int]]:
        """Read what `samples` needs."""
        self._several()
        n_cells = sum(
            math.prod(e.grid.shape) // _every(e) ** 2 for e in self._several()
        )
        stride = math.ceil(math.sqrt(n_cells / _BASIS_CELLS)) or 1
        for key in self.embeddings:
            if key not in self._samples:
                yield from self.iter_load(key)
                features = self.of(key).features
                if stride > 1:  # a copy: the rest of the map need not stay
                    features = features[::stride, ::stride].copy()
                self._samples[key] = features

    def iter_load(self, key: Hashable) -> Iterator[tuple[int, int]]:
        """Read the features of an image unless they are kept."""
        if key not in self.embeddings:
            raise SettingsError(
                f"Expected one of the images {list(self.embeddings)}, got {key!r}. "
                "Extract its features first."
            )
        with self._lock:
            known = self._kept.pop(key, None)
            if known is not None:
                self._kept[key] = known  # the last one used
                return
        e = self.embeddings[key]
        features = yield from _iter_tokens(e) if e.store else _iter_classical(e)
        with self._lock:
            self._kept[key] = ImageCells(e.grid, features, _every(e))
            sizes = [cells.features.nbytes for cells in self._kept.values()]
            while len(sizes) > 1 and sum(sizes) > _KEPT_BYTES:
                del self._kept[next(iter(self._kept))], sizes[0]

    def _several(self) -> list[Embedding]:
        if not self.embeddings:
            raise SettingsError(
                "Expected an image with features, got none. Extract features first."
            )
        return list(self.embeddings.values())


def _n_channels(e: Embedding) -> int:
    if e.store is not None:
        return e.store.n_channels
    assert e.classical is not None
    return e.classical.n_features


def _every(e: Embedding) -> int:
    """Return which share of the cells is looked at: every n-th each way."""
    item = 2 if e.store is not None else 4
    n_bytes = math.prod(e.grid.shape) * _n_channels(e) * item
    return max(1, math.ceil(math.sqrt(n_bytes / _MAP_BYTES)))


def _first(n: int, every: int) -> int:
    return min(every // 2, n - 1)


def _chosen(n: int, every: int) -> _Pixels:
    return np.arange(_first(n, every), n, every)


def _iter_tokens(e: Embedding) -> _Loading:
    """Yield progress and return the tokens, (R, C, F) float16 as stored."""
    assert e.store is not None
    missing = len(e.store.missing())
    if missing:
        raise StoreError(
            f"Expected complete features, got an image with {missing} of "
            f"{len(e.grid.tiles)} tiles missing. Press Extract and let it finish."
        )
    (n_rows, n_cols), every = e.grid.shape, _every(e)
    rows, cols = _chosen(n_rows, every), _chosen(n_cols, every)
    out = np.empty((len(rows), len(cols), e.store.n_channels), np.float16)
    for y0, band in iter_bands(e.store):
        part = slice(*np.searchsorted(rows, (y0, y0 + len(band))))
        out[part] = band[rows[part] - y0][:, cols]
        yield y0 + len(band), n_rows
    return out


def _iter_classical(e: Embedding) -> _Loading:
    """Yield progress and return the features at cells, (R, C, F) float32."""
    yield from e.iter_classical_cells()
    every, (n_rows, n_cols) = _every(e), e.grid.shape
    cells = Window(_first(n_rows, every), n_rows, _first(n_cols, every), n_cols)
    chosen = e.classical_cells.window(cells, every)
    return np.ascontiguousarray(np.moveaxis(chosen, 0, -1))


def dabs(
    cells: ImageCells, inside: npt.NDArray[np.bool_], n_pixels: int, taken: Any
) -> tuple[_Pixels, _Pixels]:
    """Return at most so many free pixels of the cells inside, in dabs."""
    side = min(_DAB_PX, math.isqrt(n_pixels))
    rows, cols = np.nonzero(inside)
    y, x = cells.centres(rows, cols)
    free = np.ones(len(rows), bool) if taken is None else _at(taken, y, x) == 0
    depth = _depth(inside)[rows, cols]
    deep = free & (depth >= min(_INSIDE_CELLS, depth[free].max(initial=0)))
    at = np.flatnonzero(deep)
    at = at[_spread(rows[at], cols[at], depth[at], n_pixels // side**2)]
    dy, dx = np.divmod(np.arange(side * side), side)
    y, x = ((c[at, np.newaxis] + d - side // 2).ravel() for c, d in ((y, dy), (x, dx)))
    height, width = cells.shape
    in_image = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    y, x = y[in_image], x[in_image]
    kept = inside[cells.nearest_row[y], cells.nearest_col[x]]
    if taken is not None:
        kept &= _at(taken, y, x) == 0
    flat = np.unique(y[kept] * width + x[kept])
    return flat // width, flat % width


def _at(array: Any, rows: _Pixels, cols: _Pixels) -> npt.NDArray[Any]:
    return np.asarray(array[rows, cols])


def _depth(inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return how far every cell is from the nearest one outside, in cells."""
    from scipy.ndimage import distance_transform_edt

    if inside.all():
        return np.full(inside.shape, float(max(inside.shape)))
    return np.asarray(distance_transform_edt(inside), np.float64)


def _spread(
    rows: _Pixels, cols: _Pixels, depth: npt.NDArray[np.float64], n: int
) -> _Pixels:
    """Choose at most n cells from all over: the deepest of each of many squares."""
    if len(rows) <= n:
        return np.arange(len(rows))
    side = int(max(rows.max(), cols.max())) + 1
    while True:
        square = rows // side * (int(cols.max()) // side + 1) + cols // side
        order = np.lexsort((-depth, square))
        first = np.flatnonzero(np.diff(square[order], prepend=-1))
        if len(first) >= n or side == 1:
            break
        side = max(1, side * 3 // 4)
    picked = order[first]
    return picked[np.linspace(0, len(picked) - 1, min(n, len(picked))).astype(np.int64)]
