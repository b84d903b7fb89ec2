"""The ViT features of many images, kept in stores: what `alibi-seg features` does.

Every image measures its own intensity range, as it would in training alone, so each
has a segmenter of its own. A file that fails is a result, the others go on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_alibi_seg._base import AlibiSegError, Backbone, FeatureSettings
from napari_alibi_seg._segmenter._apply_file import LARGE_PX
from napari_alibi_seg._segmenter._batch import sentence
from napari_alibi_seg._segmenter._batch_task import Progress
from napari_alibi_seg._segmenter._embedding import Embedding
from napari_alibi_seg._segmenter._estimate import LONG_SECONDS, check_room, estimate
from napari_alibi_seg._segmenter._segmenter import Segmenter

__all__ = ["FeatureFile", "feature_file", "identity_text", "iter_feature_files"]


@dataclass(frozen=True, slots=True)
class FeatureFile:
    """What became of one image whose features were wanted.

    Attributes
    ----------
    file : str
        The image.
    status : {"done", "failed"}
        Done also when everything was stored before.
    error : str
        Message, empty unless failed.
    store : str
        Folder of the features.
    tiles : int
        Tiles in it.
    tokens : tuple of int
        Rows and columns of the token grid.
    channels : int
        Values of a token.
    pixels : int
        Of the image.
    """

    file: str
    status: str
    error: str = ""
    store: str = ""
    tiles: int = 0
    tokens: tuple[int, int] = (0, 0)
    channels: int = 0
    pixels: int = 0


def feature_file(file: str, embedding: Embedding) -> FeatureFile:
    """Return the result of an image whose features are all stored."""
    store = embedding.store
    assert store is not None
    height, width = embedding.shape
    return FeatureFile(
        file,
        "done",
        store=str(getattr(store, "path", "")),
        tiles=len(store.grid.tiles),
        tokens=store.grid.shape,
        channels=store.n_channels,
        pixels=height * width,
    )


def iter_feature_files(
    backbone: Backbone,
    settings: FeatureSettings,
    images: Sequence[Path],
    store: Path,
    *,
    plane: int | None = None,
    time: int | None = None,
    workers: int | None = None,
) -> Iterator[Progress | FeatureFile]:
    """Compute and store the features of images, one after the other.

    Parameters
    ----------
    backbone : Backbone
        Loaded.
    settings : FeatureSettings
        Of kind "vit".
    images : sequence of Path
        Image files.
    store : Path
        Folder of feature stores, or one store ending in ``.zarr``.
    plane, time : int, optional
        Plane of stacks, and point in time of series of stacks, from 0.
    workers : int, optional
        Tiles that a CPU computes at once; all cores by default.

    Yields
    ------
    Progress or FeatureFile
        One result per image, in order.
    """
    for image in images:
        segmenter = Segmenter(backbone, features=settings, store=store, workers=workers)
        try:
            embedding = segmenter.prepare(image, plane=plane, time=time)
            yield from _announced(str(image), segmenter, embedding)
            for step in segmenter.iter_complete(embedding):
                yield Progress(str(image), "features", step.done, step.total)
        except AlibiSegError as err:
            yield FeatureFile(str(image), "failed", sentence(err))
        else:
            yield feature_file(str(image), embedding)


def _announced(
    file: str, segmenter: Segmenter, embedding: Embedding
) -> Iterator[Progress]:
    """Yield what a large image will take, if that is long; refuse what has no room."""
    height, width = embedding.shape
    store = embedding.store
    assert store is not None
    if height * width <= LARGE_PX or not store.missing():
        return
    found = estimate(segmenter, embedding, kinds=())
    check_room(found, None)
    if found.seconds >= LONG_SECONDS:
        yield Progress(file, "features", 0, len(store.grid.tiles), str(found))


def identity_text(backbone: Backbone) -> str:
    """Return what a backbone is, whatever its file is called."""
    return json.dumps({**backbone.identity, "name": ""}, sort_keys=True)
