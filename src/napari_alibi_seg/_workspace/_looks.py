"""Looking at features before anything is painted: components, clusters, likeness.

`Looks` finds one basis for the features of all images that share a classifier, so that
a colour or a cluster means the same in each, and brings what it finds to the pixels of
one image, at no more samples than a screen needs. Features are ViT tokens, or the
classical features at the cells that stand in for tokens where there is no ViT.

Only this module knows what may be asked. What is kept from one look to the next is
left to `_look_basis`, reading features and the way between cells and pixels to
`_look_cells`, the arithmetic to `analysis`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from importlib import import_module
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import SettingsError
from napari_alibi_seg._segmenter import Embedding
from napari_alibi_seg._workspace._look_basis import Basis
from napari_alibi_seg._workspace._look_cells import Cells, dabs
from napari_alibi_seg._workspace._look_results import ClusterLook, Look
from napari_alibi_seg.data import sample_grid

__all__ = ["Looks"]

_Pixels: TypeAlias = npt.NDArray[np.int64]


class Looks:
    """Pictures of the features of the images that share a classifier.

    Safe from several threads. Only `set_embeddings` and `standardise` may be used from
    one that must not wait; everything else computes. A look that runs while they
    change ends with what it began with.

    Parameters
    ----------
    embeddings : mapping of hashable to Embedding
        The images, by a key of the caller's. They must be complete, and of one kind
        of features, when they are looked at.
    standardise : bool
        Give every channel the same deviation.
    seed : int
        Equal arguments give equal pictures.

    Examples
    --------
    >>> from napari_alibi_seg._segmenter import Segmenter
    >>> image = np.zeros((64, 64), np.uint8)
    >>> image[:, 32:] = 200
    >>> looks = Looks({"a": Segmenter().embed(image)})
    >>> looks.picture("a").values.shape, looks.similarity("a", 5, 60).values.shape
    ((64, 64, 3), (64, 64))
    >>> clusters = looks.clusters("a", 3)
    >>> len(clusters.colours), round(float(clusters.shares.sum()), 3)
    (3, 1.0)
    """

    def __init__(
        self,
        embeddings: Mapping[Hashable, Embedding],
        *,
        standardise: bool = True,
        seed: int = 0,
    ) -> None:
        self._seed = seed
        self._basis = Basis(Cells(dict(embeddings)), bool(standardise), seed)

    @property
    def keys(self) -> tuple[Hashable, ...]:
        """The images."""
        return tuple(self._basis.cells.embeddings)

    @property
    def standardise(self) -> bool:
        """Whether every channel gets the same deviation."""
        return self._basis.standardise

    @standardise.setter
    def standardise(self, value: bool) -> None:
        basis = self._basis
        if bool(value) != basis.standardise:
            self._basis = Basis(basis.cells, bool(value), self._seed)

    def set_embeddings(self, embeddings: Mapping[Hashable, Embedding]) -> bool:
        """Look at other images from now on.

        Parameters
        ----------
        embeddings : mapping of hashable to Embedding
            As for the constructor.

        Returns
        -------
        bool
            Whether they are others than before. If not, all that is known is kept.
        """
        basis = self._basis
        old = {key: id(e) for key, e in basis.cells.embeddings.items()}
        if old == {key: id(e) for key, e in embeddings.items()}:
            return False
        cells = Cells(dict(embeddings))
        self._basis = Basis(cells, basis.standardise, self._seed)
        return True

    def n_components(self) -> int:
        """Return how many components `picture` knows, at most six.

        Raises
        ------
        SettingsError
            If there is no image.
        """
        return self._basis.cells.n_components

    def iter_prepare(self, key: Hashable) -> Iterator[tuple[int, int]]:
        """Do what is slow for the first look at an image, piece by piece.

        Without it the first look does the same at once. Nothing is left to do once
        the basis is there and the image was the last one looked at.

        Parameters
        ----------
        key : hashable
            Of the image.

        Yields
        ------
        tuple of int
            Pieces done and in all, of one image after the other.

        Raises
        ------
        SettingsError
            If there is no image of that key, or the images have other channels.
        StoreError
            If features are missing.
        """
        basis = self._basis
        yield from basis.cells.iter_load(key)
        yield from basis.cells.iter_samples()
        basis.fitted()
        import_module("sklearn.cluster")  # a second, and the first clusters want it

    def picture(self, key: Hashable, component: int | None = None) -> Look:
        """Return the principal components of an image.

        Parameters
        ----------
        key : hashable
            Of the image.
        component : int, optional
            0 for the first. By default the first three, as red, green and blue.

        Returns
        -------
        Look
            uint8; (h, w, 3), or (h, w) for one component.

        Raises
        ------
        SettingsError
            If there is no such image or component, or the images have other channels.
        StoreError
            If features are missing.
        """
        basis = self._basis
        n = basis.cells.n_components
        if component is not None and not 0 <= component < n:
            raise SettingsError(
                f"`component` must be 0 to {n - 1}, or None for colours, got "
                f"{component!r}."
            )
        chosen = [min(i, n - 1) for i in range(3)] if component is None else [component]
        cells = basis.cells.of(key)
        bright = np.ascontiguousarray(basis.scores(key)[:, :, chosen])
        rows, cols, step = cells.lattice()
        fine = sample_grid(bright, cells.row_at[rows], cells.col_at[cols])
        values = np.empty((*fine.shape[1:], len(chosen)), np.uint8)
        for i, plane in enumerate(fine):
            plane *= 255
            plane += np.float32(0.5)
            values[:, :, i] = plane
        return Look(values if component is None else values[:, :, 0], step)

    def clusters(self, key: Hashable, k: int) -> ClusterLook:
        """Return groups of alike features, the same groups in all images.

        Parameters
        ----------
        key : hashable
            Of the image that is shown.
        k : int
            2 to 20. Fewer are found where fewer different features exist.

        Returns
        -------
        ClusterLook

        Raises
        ------
        SettingsError
            If there is no such image, `k` is out of its range, or the images have
            other channels.
        StoreError
            If features are missing.
        """
        basis = self._basis
        centres, colours = basis.groups(k)
        labels = basis.labels(key, k)
        cells = basis.cells.of(key)
        rows, cols, step = cells.lattice()
        shown = labels[np.ix_(cells.nearest_row[rows], cells.nearest_col[cols])]
        n = np.bincount(shown.ravel(), minlength=len(centres))
        return ClusterLook(shown, step, colours, (n / shown.size).astype(np.float32))

    def similarity(self, key: Hashable, row: int, col: int) -> Look:
        """Return how much the features of an image are like those at a pixel.

        Parameters
        ----------
        key : hashable
            Of the image.
        row, col : int
            Pixel of it.

        Returns
        -------
        Look
            (h, w) float32, cosines of -1 to 1.

        Raises
        ------
        SettingsError
            If there is no such image or pixel, or the images have other channels.
        StoreError
            If features are missing.
        """
        basis = self._basis
        cells = basis.cells.of(key)
        height, width = cells.shape
        if not (0 <= row < height and 0 <= col < width):
            raise SettingsError(
                f"Expected a pixel of the image of {height} x {width}, got row {row}, "
                f"column {col}. Click inside the image."
            )
        at = int(cells.nearest_row[row]), int(cells.nearest_col[col])
        cosines = basis.cosines(key, *at)
        rows, cols, step = cells.lattice()
        fine = sample_grid(
            cosines[:, :, np.newaxis], cells.row_at[rows], cells.col_at[cols]
        )
        return Look(fine[0], step)

    def cluster_as_scribbles(
        self,
        key: Hashable,
        k: int,
        cluster: int,
        *,
        n_pixels: int = 2000,
        taken: Any = None,
    ) -> tuple[_Pixels, _Pixels]:
        """Return pixels that stand for a cluster, to be painted as a class.

        They form dabs spread over the image, each well inside the cluster where it is
        wide enough.

        Parameters
        ----------
        key : hashable
            Of the image.
        k, cluster : int
            How many clusters, and which of them.
        n_pixels : int
            At most so many.
        taken : (Y, X) array, optional
            Pixels that must not be painted, such as scribbles, are those that are not
            0. Only a few of them are read.

        Returns
        -------
        rows, cols : (N,) int64
            Distinct, in reading order; equal arguments give equal pixels.

        Raises
        ------
        SettingsError
            If there is no such image or cluster, it has no free pixel on this image,
            or a number is out of its range.
        StoreError
            If features are missing.
        """
        basis = self._basis
        n_found = len(basis.groups(k)[0])
        if not 0 <= cluster < n_found:
            raise SettingsError(
                f"`cluster` must be 0 to {n_found - 1}, got {cluster!r}."
            )
        if n_pixels < 1:
            raise SettingsError(f"`n_pixels` must be 1 or more, got {n_pixels!r}.")
        cells = basis.cells.of(key)
        if taken is not None and tuple(taken.shape) != cells.shape:
            raise SettingsError(
                f"Expected `taken` of the shape of the image, {cells.shape}, got "
                f"{tuple(taken.shape)}."
            )
        inside = basis.labels(key, k) == cluster
        rows, cols = dabs(cells, inside, n_pixels, taken)
        if not len(rows):
            raise SettingsError(
                f"Cluster {cluster + 1} has no free pixel on this image. Choose "
                "another cluster, or erase scribbles that cover it."
            )
        return rows, cols
