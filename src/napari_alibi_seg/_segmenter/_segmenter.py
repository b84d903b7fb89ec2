"""The facade: embed an image, fit on scribbles, predict, save, load.

Joins the rooms: `data` reads and tiles, `features` computes, `learn` classifies. Input
is validated here and in `_embedder`, once. It knows no command line and no window;
long work comes as generators (`iter_embed`, `iter_predict`) that can be stopped at any
tile.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_alibi_seg._base import (
    Backbone,
    ClassifierSettings,
    FeatureSettings,
    SettingsError,
    TileResult,
)
from napari_alibi_seg._segmenter._embedder import Embedder
from napari_alibi_seg._segmenter._embedding import (
    Embedding,
    PixelFeatures,
    sample_tokens,
)
from napari_alibi_seg._segmenter._painted import (
    is_by_plane,
    painted_planes,
    read_painted,
)
from napari_alibi_seg._segmenter._predict import iter_tiles
from napari_alibi_seg._segmenter._recipe import ClassInfo, class_infos
from napari_alibi_seg._segmenter._segmentation import Segmentation, assembled
from napari_alibi_seg.data import Annotations
from napari_alibi_seg.learn import (
    PixelClassifier,
    Projection,
    fit_classifier,
    fit_projection,
)

__all__ = ["Segmenter"]

# Enough tokens to know 384 channels; more only cost time.
_PROJECTION_SAMPLES = 50_000


class Segmenter(Embedder):
    """Turn a few scribbles on a micrograph into a full-resolution segmentation.

    Parameters
    ----------
    backbone : Backbone, str, Path or None
        A ViT by registry name, by file, or loaded. None: classical features only.
    features : FeatureSettings, optional
        What is computed for a pixel. By default classical features, and with a
        backbone both.
    classifier : ClassifierSettings, optional
        How pixels are classified. By default a random forest on every pixel.
    store : Path or str, optional
        Folder of feature stores (or one store, ending in ``.zarr``): tokens go there
        tile by tile and are found again. None keeps them in memory, or in a temporary
        folder where they take more than 512 MB.
    device : str
        For a backbone given by name or file: "auto", "cpu", "cuda", "mps".
    workers : int, optional
        Threads for prediction; all cores by default. Results do not depend on it.

    Raises
    ------
    SettingsError
        If features and backbone contradict each other.
    WeightsError
        If the backbone's weights are not here or do not fit.

    Notes
    -----
    The first image embedded or fitted decides channels, working scale and intensity
    range; they are kept for every later image and saved with the classifier.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> image = rng.integers(0, 60, (64, 64), dtype=np.uint8)
    >>> image[:, 32:] += 150
    >>> scribbles = np.zeros((64, 64), np.uint8)
    >>> scribbles[10:20, 5:9], scribbles[10:20, 50:54] = 1, 3
    >>> result = Segmenter().fit(image, scribbles).predict(image)
    >>> result.labels[40, [4, 60]].tolist(), result.probabilities.shape
    ([1, 3], (2, 64, 64))
    """

    def __init__(
        self,
        backbone: Backbone | str | Path | None = None,
        *,
        features: FeatureSettings | None = None,
        classifier: ClassifierSettings | None = None,
        store: Path | str | None = None,
        device: str = "auto",
        workers: int | None = None,
    ) -> None:
        super().__init__(
            backbone, features, store=store, device=device, workers=workers
        )
        self.settings = classifier or ClassifierSettings()
        self.classes: dict[int, ClassInfo] = {}
        self.classifier: PixelClassifier | None = None
        self.projection: Projection | None = None
        # why these features were chosen, when a program chose them
        self.choice: str = ""
        # of the file this was saved to or loaded from
        self.content_hash: str = ""
        self._training: list[Embedding] = []

    def fit(
        self,
        images: Any,
        labels: Any,
        *,
        plane: int | None = None,
        time: int | None = None,
        class_names: dict[int, str] | None = None,
    ) -> Segmenter:
        """Train on the painted pixels of one or several images.

        Parameters
        ----------
        images : path, array, Embedding, or list of these
            Images.
        labels : path, (Y, X) array of int, Annotations, or list of these
            Class ids, 0 = unlabelled; one per image, of its shape. Ids need not be
            consecutive. For a stack also a stack of labels, 0 on planes where nothing
            was painted, or a list of (plane, labels); ((time, plane), labels) for a
            series of stacks.
        plane, time : int, optional
            The only plane of stacks, and point in time of series, that counts, from 0.
        class_names : dict of int to str, optional
            Names for ids.

        Returns
        -------
        Segmenter
            This object, fitted.

        Raises
        ------
        AnnotationError
            If fewer than two classes are painted in all, or labels do not fit.

        Notes
        -----
        Time and memory grow with painted pixels, not with the image, once it is
        embedded.
        """
        # labels are checked before hours of extraction
        strokes = [
            pair
            for image, label in _pairs(images, labels)
            for pair in self.painted(image, label, plane=plane, time=time)
        ]
        painted = [found for _, found in strokes]
        embeddings = [self.embed(e) for e, _ in strokes]
        return self.fit_painted(embeddings, painted, class_names=class_names)

    def fit_painted(
        self,
        embeddings: list[Embedding],
        painted: list[Annotations],
        *,
        class_names: dict[int, str] | None = None,
    ) -> Segmenter:
        """Train on painted pixels whose features are there; see `fit`.

        Parameters
        ----------
        embeddings : list of Embedding
            With the tiles that the painted pixels lie in; the others may be missing.
        painted : list of Annotations
            One an embedding.
        class_names : dict of int to str, optional
            Names for ids.

        Raises
        ------
        AnnotationError
            If fewer than two classes are painted in all.
        """
        self.update_projection(embeddings)
        samples = [
            embedding.samples(self.projection, found.rows, found.cols)
            for embedding, found in zip(embeddings, painted, strict=True)
        ]
        self.classifier = fit_classifier(
            np.concatenate(samples),
            np.concatenate([found.ids for found in painted]),
            self.settings,
        )
        ids = tuple(int(i) for i in self.classifier.class_ids)
        self.classes = class_infos(ids, class_names, self.classes)
        return self

    def painted(
        self,
        image: Any,
        labels: Any,
        *,
        plane: int | None = None,
        time: int | None = None,
    ) -> list[tuple[Embedding, Annotations]]:
        """Return each painted plane of an image, prepared, with its painted pixels.

        What `fit` does first: labels are checked, and no feature is computed yet. Give
        the two columns to `fit` once the embeddings are complete.

        Parameters
        ----------
        image, labels, plane, time
            One image and its labels, as for `fit`.

        Returns
        -------
        list of (Embedding, Annotations)
            One pair a plane, in ascending order.

        Raises
        ------
        AnnotationError
            If labels do not fit the image, or nothing is painted.

        Examples
        --------
        >>> stack, labels = np.zeros((5, 64, 64)), np.zeros((5, 64, 64), int)
        >>> stack[..., 32:], labels[3, 5, 5], labels[3, 5, 40] = 1, 1, 2
        >>> [(e, found)] = Segmenter().painted(stack, labels)
        >>> e.image.source.plane, found.class_ids
        (3, (1, 2))
        """
        if isinstance(image, Embedding):
            return [(image, read_painted(labels, image.image.source))]
        found = painted_planes(image, labels, plane, time)
        return [(self.prepare(source), strokes) for source, strokes in found]

    def iter_predict(
        self,
        image: Any,
        *,
        plane: int | None = None,
        time: int | None = None,
        order: str | Sequence[int] = "centre-out",
        focus: tuple[float, float] | None = None,
    ) -> Iterator[TileResult]:
        """Yield the segmentation of an image tile by tile, at full resolution.

        Parameters
        ----------
        image : path, array, ImageSource or Embedding
            The image; features that are missing are computed first.
        plane, time : int, optional
            Plane of a stack, and point in time of a series, from 0.
        order, focus
            See `iter_tiles`: "centre-out" from `focus`, "reading", or tile numbers.

        Yields
        ------
        TileResult
        """
        classifier = self.require_fitted()
        embedding = self.embed(image, plane=plane, time=time)
        features = PixelFeatures(embedding, self.projection)
        yield from iter_tiles(
            features,
            classifier,
            self.settings,
            order=order,
            focus=focus,
            workers=self.workers,
        )

    def predict(
        self, image: Any, *, plane: int | None = None, time: int | None = None
    ) -> Segmentation:
        """Segment an image.

        Parameters
        ----------
        image : path, array, ImageSource or Embedding
            The image.
        plane, time : int, optional
            Plane of a stack, and point in time of a series, from 0.

        Returns
        -------
        Segmentation

        Raises
        ------
        SettingsError
            If the segmenter is not fitted, or the image does not fit it.
        """
        classifier = self.require_fitted()
        embedding = self.embed(image, plane=plane, time=time)
        return assembled(
            self.iter_predict(embedding, order="reading"),
            embedding.shape,
            [int(i) for i in classifier.class_ids],
            embedding.image.source.pixel_size,
        )

    def save(self, path: Path | str) -> None:
        """Write the classifier and everything it needs to one `.alibiseg` file.

        Raises
        ------
        SettingsError
            If the segmenter is not fitted.
        OutputError
            If the file cannot be written; an existing one is then untouched.
        """
        from napari_alibi_seg._segmenter._document import save_segmenter

        self.content_hash = save_segmenter(self, Path(path))

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        backbone: Backbone | str | Path | None = None,
        store: Path | str | None = None,
        device: str = "auto",
        workers: int | None = None,
    ) -> Segmenter:
        """Read a segmenter from a `.alibiseg` file. No code in the file is run.

        Parameters
        ----------
        path : path
            The file.
        backbone : Backbone, str or Path, optional
            Where the weights are, if not where they were; checked by hash.
        store, device, workers
            As for a new segmenter.

        Raises
        ------
        ClassifierFileError
            If the file is damaged, foreign or too new.
        WeightsError
            If its weights are not here or are others.
        """
        from napari_alibi_seg._segmenter._document import load_segmenter

        return load_segmenter(
            Path(path), backbone=backbone, store=store, device=device, workers=workers
        )

    def require_fitted(self) -> PixelClassifier:
        """Return the classifier, or raise a `SettingsError` if there is none."""
        if self.classifier is None:
            raise SettingsError(
                "This segmenter is not trained yet. Call `fit` with images and "
                "scribbles, or `Segmenter.load` a classifier."
            )
        return self.classifier

    def update_projection(self, embeddings: list[Embedding]) -> None:
        """Fit the projection once for a set of embeddings; new scribbles keep it."""
        if self.features.kind == "classical" or self.features.components is None:
            self.projection = None
        elif self.projection is None or not _same(self._training, embeddings):
            tokens = sample_tokens(embeddings, _PROJECTION_SAMPLES)
            n = min(self.features.components, *tokens.shape)
            self.projection = fit_projection(tokens, n)
        self._training = embeddings

    def take_projection(self, other: Segmenter) -> None:
        """Take over the projection of a copy, and what it was fitted to."""
        self.projection, self._training = other.projection, other._training

    def take_fit(self, other: Segmenter) -> None:
        """Take over all that a copy has learned."""
        self.take_projection(other)
        self.classifier, self.classes = other.classifier, other.classes


def _same(one: list[Embedding], other: list[Embedding]) -> bool:
    return len(one) == len(other) and all(map(operator.is_, one, other))


def _pairs(images: Any, labels: Any) -> list[tuple[Any, Any]]:
    many = isinstance(images, (list, tuple))
    if not many and is_by_plane(labels):
        return [(images, labels)]
    if many != isinstance(labels, (list, tuple)):
        raise SettingsError(
            "`images` and `labels` must both be single or both be lists of the same "
            "length."
        )
    if not many:
        return [(images, labels)]
    if len(images) != len(labels) or not images:
        raise SettingsError(
            f"Each image needs its labels, got {len(images)} image(s) and "
            f"{len(labels)} label image(s)."
        )
    return list(zip(images, labels, strict=True))
