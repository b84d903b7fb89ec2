"""The half of the facade that needs no strokes: open an image, compute its features.

Joins `data` and `features`, and checks that settings, backbone and image fit each
other. What is painted, learned and predicted is left to `Segmenter`, which goes on
from here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_alibi_seg._base import Backbone, FeatureSettings, SettingsError
from napari_alibi_seg._segmenter._embedding import Embedding
from napari_alibi_seg._segmenter._recipe import Frozen
from napari_alibi_seg._segmenter._token_stores import (
    SCRATCH_FOLDER,
    kept_store,
    unkept_store,
)
from napari_alibi_seg.data import TokenStore, WorkingImage, open_image
from napari_alibi_seg.features import iter_extract

if TYPE_CHECKING:
    from napari_alibi_seg.features import ExtractedTile

__all__ = ["Embedder"]


class Embedder:
    """Turn images into features; the parameters are those of `Segmenter`."""

    def __init__(
        self,
        backbone: Backbone | str | Path | None,
        features: FeatureSettings | None,
        *,
        store: Path | str | None,
        device: str,
        workers: int | None,
    ) -> None:
        if features is None:
            kind = "classical" if backbone is None else "both"
            features = FeatureSettings(kind=kind)
        _refuse_contradiction(features, backbone)
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
        self.store = None if store is None else Path(store)
        self.workers = workers
        # inside `store`, for tokens that nobody asked to keep
        self.scratch_folder = SCRATCH_FOLDER
        self.frozen: Frozen | None = None

    def iter_embed(
        self,
        image: Any,
        *,
        plane: int | None = None,
        time: int | None = None,
        order: Sequence[int] | None = None,
        into: list[Embedding] | None = None,
    ) -> Iterator[ExtractedTile]:
        """Compute and keep the ViT tokens of an image, one tile after the other.

        Parameters
        ----------
        image : path, array or ImageSource
            The image.
        plane, time : int, optional
            Plane of a stack, and point in time of a series, from 0.
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
        embedding = self.prepare(image, plane=plane, time=time)
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
        self,
        image: Any,
        *,
        plane: int | None = None,
        time: int | None = None,
        scratch: bool = False,
    ) -> Embedding:
        """Return the embedding of an image with whatever is stored of it already.

        With `scratch`, tokens that are not in a store already go to one of their own,
        which the caller deletes when it is done.
        """
        source = open_image(image, plane=plane, time=time)
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
            return unkept_store(grid, self.backbone.embed_dim)
        folder = self.scratch_folder if scratch else None
        return kept_store(self.store, view, grid, self.backbone, scratch=folder)

    def embed(
        self, image: Any, *, plane: int | None = None, time: int | None = None
    ) -> Embedding:
        """Compute the features of an image that are worth keeping.

        Parameters
        ----------
        image : path, array, ImageSource or Embedding
            The image; an embedding is completed if tiles are missing.
        plane, time : int, optional
            Plane of a stack, and point in time of a series, from 0.

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
            image
            if isinstance(image, Embedding)
            else self.prepare(image, plane=plane, time=time)
        )
        for _ in self.iter_complete(embedding):
            pass
        return embedding


def _refuse_contradiction(
    features: FeatureSettings, backbone: Backbone | str | Path | None
) -> None:
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
