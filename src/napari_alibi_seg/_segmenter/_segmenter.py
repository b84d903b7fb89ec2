"""The facade: embed an image, fit on scribbles, predict, save, load.

Joins the rooms: `data` reads and tiles, `features` computes, `learn` classifies. Input
is validated here, once. It knows no command line and no window; long work comes as
generators (`iter_embed`, `iter_predict`) that can be stopped at any tile.
"""

from __future__ import annotations

import logging
import operator
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import (
    Backbone,
    ClassifierSettings,
    FeatureSettings,
    FloatArray,
    PixelSize,
    SettingsError,
    TileResult,
)
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
from napari_alibi_seg._segmenter._recipe import ClassInfo, Frozen, class_infos
from napari_alibi_seg.data import (
    Annotations,
    DiskStore,
    ImageSource,
    MemoryStore,
    TokenGrid,
    TokenStore,
    WorkingImage,
    open_image,
)
from napari_alibi_seg.features import iter_extract
from napari_alibi_seg.learn import (
    PixelClassifier,
    Projection,
    fit_classifier,
    fit_projection,
)

if TYPE_CHECKING:
    from napari_alibi_seg.features import ExtractedTile

__all__ = ["Segmentation", "Segmenter", "delete_scratch"]

_logger = logging.getLogger(__name__)

# Inside a folder of stores: those that nobody asked to keep.
SCRATCH_FOLDER = ".alibi-seg-scratch"
# Enough tokens to know 384 channels; more only cost time.
_PROJECTION_SAMPLES = 50_000
# Tokens that nobody asked to keep: more lie in a temporary folder.
_MEMORY_STORE_BYTES = 512 << 20


@dataclass(frozen=True)
class Segmentation:
    """A segmented image.

    Attributes
    ----------
    labels : (Y, X) array of unsigned int
        Class ids as painted.
    probabilities : (K, Y, X) float32
        By ascending class id.
    uncertainty : (Y, X) float32
        Normalised entropy, 0 to 1.
    class_ids : tuple of int
        Ascending.
    pixel_size : PixelSize or None
        Of the image.
    """

    labels: npt.NDArray[np.unsignedinteger[Any]]
    probabilities: FloatArray
    uncertainty: FloatArray
    class_ids: tuple[int, ...]
    pixel_size: PixelSize | None

    def fractions(self) -> dict[int, float]:
        """Return the area fraction of every id that occurs or was trained."""
        ids, counts = np.unique(self.labels, return_counts=True)
        found = dict(zip(ids.tolist(), counts.tolist(), strict=True))
        keys = sorted({*self.class_ids, *found})
        return {i: found.get(i, 0) / self.labels.size for i in keys}


class Segmenter:
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
        if features is None:
            kind = "classical" if backbone is None else "both"
            features = FeatureSettings(kind=kind)
        if features.kind == "classical" and backbone is not None:
            raise SettingsError(
                "Classical features use no backbone, but one was given. Drop "
                "`backbone`, or use `kind='both'` or `kind='vit'`."
            )
        if features.kind != "classical" and backbone is None:
            raise SettingsError(
                f"`kind={features.kind!r}` needs a `backbone`: a registry name, a "
                f"weights file, or a loaded backbone."
            )
        if workers is not None and workers < 1:
            raise SettingsError(f"`workers` must be 1 or more, got {workers}.")
        # where a file lay is only a hint for the next load; its hash is what counts
        self.weights_hint: str | None = None
        self.denoiser_hint: str | None = None
        if isinstance(backbone, (str, Path)):
            from napari_alibi_seg.features import (  # imports torch
                load_backbone,
                located_spec,
            )

            self.weights_hint = located_spec(backbone)

            backbone = load_backbone(backbone, device=device)
        self.backbone: Backbone | None = backbone
        self.features = features
        self.settings = classifier or ClassifierSettings()
        self.store = None if store is None else Path(store)
        self.workers = workers
        # inside `store`, for tokens that nobody asked to keep
        self.scratch_folder = SCRATCH_FOLDER
        self.frozen: Frozen | None = None
        self.classes: dict[int, ClassInfo] = {}
        self.classifier: PixelClassifier | None = None
        self.projection: Projection | None = None
        # why these features were chosen, when a program chose them
        self.choice: str = ""
        # of the file this was saved to or loaded from
        self.content_hash: str = ""
        self._training: list[Embedding] = []

    def open(self, image: Any, *, plane: int | None = None) -> ImageSource:
        """Open an image as this segmenter would; see `open_image`."""
        return open_image(image, plane=plane)

    def iter_embed(
        self,
        image: Any,
        *,
        plane: int | None = None,
        order: Sequence[int] | None = None,
        into: list[Embedding] | None = None,
    ) -> Iterator[ExtractedTile]:
        """Compute and keep the ViT tokens of an image, one tile after the other.

        Parameters
        ----------
        image : path, array or ImageSource
            The image.
        plane : int, optional
            Plane of a stack, from 0.
        order : sequence of int, optional
            Tiles first wanted; see `iter_extract`.
        into : list, optional
            Receives the embedding before the first tile, so that a caller can use it
            while it fills.

        Yields
        ------
        ExtractedTile
            Nothing at all for classical features or when all is stored already.
        """
        embedding = self.prepare(image, plane=plane)
        if into is not None:
            into.append(embedding)
        yield from self.iter_complete(embedding, order=order)

    def iter_complete(
        self,
        embedding: Embedding,
        *,
        order: Sequence[int] | None = None,
        only: Sequence[int] | None = None,
    ) -> Iterator[ExtractedTile]:
        """Compute the tiles that an embedding lacks; see `iter_embed`.

        With `only`, no others than these.
        """
        if embedding.store is not None and embedding.store.missing():
            assert self.backbone is not None
            yield from iter_extract(
                self.backbone,
                embedding.image,
                embedding.store,
                order=order,
                only=only,
                workers=self.workers,
            )

    def prepare(
        self, image: Any, *, plane: int | None = None, scratch: bool = False
    ) -> Embedding:
        """Return the embedding of an image with whatever is stored of it already.

        With `scratch`, tokens that are not in a store already go to one of their own,
        which the caller deletes when it is done.
        """
        source = open_image(image, plane=plane)
        if self.frozen is None:
            self.frozen = Frozen.of(source, self.features)
            # its range is this image's own: no second look at the pixels
            view = WorkingImage(source, self.frozen.channels, self.frozen.intensity)
        else:
            view = self.frozen.view(source, self.features)
        store = None
        if self.features.kind != "classical":
            store = self._token_store(view, scratch)
        return Embedding(view, store, self.features.kind != "vit")

    def _token_store(self, view: WorkingImage, scratch: bool) -> TokenStore:
        assert self.backbone is not None
        assert self.frozen is not None
        grid = self.frozen.grid(view.shape, self.features, self.backbone)
        if self.store is None:
            return _unkept_store(grid, self.backbone.embed_dim)
        identity = {
            "image": view.source.content_hash(),
            "channels": view.channels
            if isinstance(view.channels, str)
            else list(view.channels),
            "intensity": view.intensity.to_dict(),
            "backbone": self.backbone.identity,
        }
        kept = DiskStore.locate(self.store, identity, grid, self.backbone.embed_dim)
        root = self.store
        if scratch and root.suffix != ".zarr" and not kept.exists():
            root = root / self.scratch_folder
        return DiskStore(root, identity, grid, self.backbone.embed_dim)

    def embed(self, image: Any, *, plane: int | None = None) -> Embedding:
        """Compute the features of an image that are worth keeping.

        Parameters
        ----------
        image : path, array, ImageSource or Embedding
            The image; an embedding is completed if tiles are missing.
        plane : int, optional
            Plane of a stack, from 0.

        Returns
        -------
        Embedding
            Give it to `fit` and `predict` in place of the image.

        Raises
        ------
        ImageFileError
            If the image cannot be read.
        SettingsError
            If it does not have the channels asked for.
        """
        embedding = (
            image if isinstance(image, Embedding) else self.prepare(image, plane=plane)
        )
        for _ in self.iter_complete(embedding):
            pass
        return embedding

    def fit(
        self,
        images: Any,
        labels: Any,
        *,
        plane: int | None = None,
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
            was painted, or a list of (plane, labels).
        plane : int, optional
            The only plane of stacks that counts, from 0.
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
            for pair in self.painted(image, label, plane=plane)
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
        self._update_projection(embeddings)
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
        self, image: Any, labels: Any, *, plane: int | None = None
    ) -> list[tuple[Embedding, Annotations]]:
        """Return each painted plane of an image, prepared, with its painted pixels.

        What `fit` does first: labels are checked, and no feature is computed yet. Give
        the two columns to `fit` once the embeddings are complete.

        Parameters
        ----------
        image, labels, plane
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
        found = painted_planes(image, labels, plane)
        return [(self.prepare(source), strokes) for source, strokes in found]

    def iter_predict(
        self,
        image: Any,
        *,
        plane: int | None = None,
        order: str | Sequence[int] = "centre-out",
        focus: tuple[float, float] | None = None,
    ) -> Iterator[TileResult]:
        """Yield the segmentation of an image tile by tile, at full resolution.

        Parameters
        ----------
        image : path, array, ImageSource or Embedding
            The image; features that are missing are computed first.
        plane : int, optional
            Plane of a stack, from 0.
        order, focus
            See `iter_tiles`: "centre-out" from `focus`, "reading", or tile numbers.

        Yields
        ------
        TileResult
        """
        classifier = self.require_fitted()
        embedding = self.embed(image, plane=plane)
        features = PixelFeatures(embedding, self.projection)
        yield from iter_tiles(
            features,
            classifier,
            self.settings,
            order=order,
            focus=focus,
            workers=self.workers,
        )

    def predict(self, image: Any, *, plane: int | None = None) -> Segmentation:
        """Segment an image.

        Parameters
        ----------
        image : path, array, ImageSource or Embedding
            The image.
        plane : int, optional
            Plane of a stack, from 0.

        Returns
        -------
        Segmentation

        Raises
        ------
        SettingsError
            If the segmenter is not fitted, or the image does not fit it.
        """
        classifier = self.require_fitted()
        embedding = self.embed(image, plane=plane)
        shape = embedding.shape
        labels: npt.NDArray[Any] | None = None
        proba = np.empty((len(classifier.class_ids), *shape), np.float32)
        uncertainty = np.empty(shape, np.float32)
        for tile in self.iter_predict(embedding, order="reading"):
            if labels is None:
                labels = np.empty(shape, tile.labels_yx.dtype)
            at = tile.window.slices
            labels[at] = tile.labels_yx
            proba[(slice(None), *at)] = tile.proba_kyx
            uncertainty[at] = tile.uncertainty_yx
        assert labels is not None
        size = embedding.image.source.pixel_size
        ids = tuple(int(i) for i in classifier.class_ids)
        return Segmentation(labels, proba, uncertainty, ids, size)

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

    def _update_projection(self, embeddings: list[Embedding]) -> None:
        """Fit the projection once for a set of embeddings; new scribbles keep it."""
        if self.features.kind == "classical" or self.features.components is None:
            self.projection = None
        elif self.projection is None or not _same(self._training, embeddings):
            tokens = sample_tokens(embeddings, _PROJECTION_SAMPLES)
            n = min(self.features.components, *tokens.shape)
            self.projection = fit_projection(tokens, n)
        self._training = embeddings


def _unkept_store(grid: TokenGrid, n_channels: int) -> TokenStore:
    """Return a store of tokens that nobody asked to keep, in memory if they are few."""
    n_bytes = grid.shape[0] * grid.shape[1] * n_channels * 2
    if n_bytes <= _MEMORY_STORE_BYTES:
        return MemoryStore(grid, n_channels)
    folder = Path(tempfile.mkdtemp(prefix="alibi-seg-"))
    _logger.info(
        "Features of %.1f GB go to %s and are deleted when they are no longer used; "
        "name a `store` to keep them.",
        *(n_bytes / 1e9, folder),
    )
    store = DiskStore(folder, {"temporary": True}, grid, n_channels)
    # also runs when the program ends
    weakref.finalize(store, shutil.rmtree, folder, ignore_errors=True)
    return store


def delete_scratch(embedding: Embedding) -> None:
    """Delete the tokens of an embedding if nobody asked to keep them.

    See `scratch` of `Segmenter.prepare`.
    """
    store = embedding.store
    if not isinstance(store, DiskStore):
        return
    folder = store.path.parent
    if folder.name.startswith(SCRATCH_FOLDER):
        store.delete()
        if folder.name != SCRATCH_FOLDER:  # others may be about to use that one
            with suppress(OSError):
                folder.rmdir()


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
