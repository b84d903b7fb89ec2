"""What the looks at all images of a classifier are measured against, and its results.

Each is computed when first asked for and kept, from several threads at once if need be:
one basis is for one set of images, and another set gets another basis.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from threading import Lock

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from napari_alibi_seg._base import FloatArray, UInt8Array
from napari_alibi_seg._workspace._look_cells import Cells
from napari_alibi_seg.analysis import (
    FeatureSpace,
    cluster_maps,
    feature_space,
    nearest_clusters,
    similarity_map,
)

__all__ = ["Basis"]

# Images whose components are kept; up to 8 MB each.
_KEPT_SCORES = 16

_blas = Lock()


class Basis:
    """What all images are measured against, found when first asked for.

    Parameters
    ----------
    cells : Cells
        Of the images.
    standardise : bool
        Give every channel the same deviation.
    seed : int
        Equal arguments give equal results.
    """

    def __init__(self, cells: Cells, standardise: bool, seed: int) -> None:
        self.cells = cells
        self.standardise = standardise
        self._seed = seed
        self._space: FeatureSpace | None = None
        self._groups: dict[int, tuple[FloatArray, FloatArray]] = {}
        self._scores: dict[Hashable, FloatArray] = {}
        self._labels: dict[tuple[Hashable, int], UInt8Array] = {}
        self._lock = Lock()

    def fitted(self) -> FeatureSpace:
        """Return the space, measured on samples of all images."""
        with self._lock:
            if self._space is None:
                samples = self.cells.samples()
                with _one_blas_thread():
                    self._space = feature_space(
                        samples,
                        n_components=self.cells.n_components,
                        standardise=self.standardise,
                        seed=self._seed,
                    )
            return self._space

    def scores(self, key: Hashable) -> FloatArray:
        """Return the components of an image as brightness, (R, C, n)."""
        found = self._scores.get(key)
        if found is None:
            features, space = self.cells.of(key).features, self.fitted()
            with _one_blas_thread():
                found = space.picture(features)
            with self._lock:
                self._scores[key] = found
                while len(self._scores) > _KEPT_SCORES:
                    del self._scores[next(iter(self._scores))]
        return found

    def groups(self, k: int) -> tuple[FloatArray, FloatArray]:
        """Return the centres, (K, F), and the colours, (K, 3), of clusters."""
        space = self.fitted()
        with self._lock:
            if k not in self._groups:
                samples = self.cells.samples()
                with _one_blas_thread():
                    found = cluster_maps(space, samples, k, seed=self._seed)[0]
                self._groups[k] = found.centres, found.colours
            return self._groups[k]

    def labels(self, key: Hashable, k: int) -> UInt8Array:
        """Return the cluster of every cell of an image, (R, C)."""
        if (key, k) not in self._labels:
            centres, _ = self.groups(k)
            features, space = self.cells.of(key).features, self.fitted()
            with _one_blas_thread():
                found = nearest_clusters(space, features, centres)
            self._labels[key, k] = found.astype(np.uint8)
        return self._labels[key, k]

    def cosines(self, key: Hashable, row: int, col: int) -> FloatArray:
        """Return how much every cell of an image is like one of them, (R, C)."""
        features, space = self.cells.of(key).features, self.fitted()
        with _one_blas_thread():
            return similarity_map(space, features, row, col)


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    """Keep matrix products and k-means on this thread.

    Beside a training, threads that share a product wait for each other: measured 20
    times slower on two busy cores. One block at a time, because NumPy's limit is that
    of the whole process, and is set back to what was found.
    """
    with _blas, threadpool_limits(1):
        yield
