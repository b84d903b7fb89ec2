"""`iter_feature_files` on many workers: tiles of features are units.

The first unit of an image opens its store on a worker and says which tiles it lacks;
the others compute and write them.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from napari_alibi_seg._base import (
    Backbone,
    FeatureSettings,
    SettingsError,
    StoreError,
    WeightsError,
)
from napari_alibi_seg._distributed._flows import Flow, Unit, UnitDone, iter_flows
from napari_alibi_seg._distributed._units import (
    UNIT_TILES,
    device_here,
    first_error,
    in_groups,
)
from napari_alibi_seg._segmenter import (
    BackboneChoice,
    Embedding,
    FeatureFile,
    Progress,
    Segmenter,
    feature_file,
    identity_text,
)
from napari_alibi_seg.features import GPU_BATCH

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["iter_features_on"]


@dataclass(frozen=True, slots=True)
class FeatureSource:
    """What a worker computes features with.

    Attributes
    ----------
    choice : BackboneChoice
        How the backbone is loaded.
    identity : str
        What it must then be.
    settings : str
        `FeatureSettings` as JSON.
    store : Path
        Folder of feature stores, or one store.
    plane, time : int or None
        Plane of stacks, and point in time of series of stacks.
    device : str
        Where the ViT runs.
    run : str
        Of which run: what a worker remembers of images ends with it.
    """

    choice: BackboneChoice
    identity: str
    settings: str
    store: Path
    plane: int | None
    time: int | None
    device: str
    run: str


@dataclass(frozen=True, slots=True)
class Lacking:
    """What a store lacks; from the first unit of an image."""

    content_hash: str
    tiles: tuple[int, ...]
    tiles_per_unit: int
    result: FeatureFile


def iter_features_on(
    client: Client,
    choice: BackboneChoice,
    settings: FeatureSettings,
    images: Sequence[Path],
    store: Path,
    *,
    plane: int | None = None,
    time: int | None = None,
    device: str = "auto",
) -> Iterator[Progress | FeatureFile]:
    """Compute and store features on the workers of a cluster.

    Parameters
    ----------
    client : distributed.Client
        From `open_cluster`, or any other.
    choice : BackboneChoice
        Which ViT; its weights lie where workers find them too.
    settings : FeatureSettings
        Of kind "vit".
    images : sequence of Path
        Image files.
    store : Path
        Folder of feature stores, or one store ending in ``.zarr``; all workers write
        to it.
    plane, time : int, optional
        Plane of stacks, and point in time of series of stacks, from 0.
    device : str
        Where the ViT runs on a worker.

    Yields
    ------
    Progress or FeatureFile
        One result per image, as they come.

    Raises
    ------
    WeightsError
        If the weights are not here.
    ComputeError
        If the cluster is lost.

    Examples
    --------
    >>> with open_cluster(workers=4) as client:  # doctest: +SKIP
    ...     for step in iter_features_on(client, choice, settings, images, store):
    ...         print(step)
    """
    if settings.kind == "classical":
        raise SettingsError("Classical features are not stored. Use `kind='vit'`.")
    if Path(choice.name).is_file():
        choice = replace(choice, name=str(Path(choice.name).absolute()))
    source = FeatureSource(
        choice,
        identity_text(choice.load("cpu")),
        settings.model_dump_json(),
        store.absolute(),
        plane,
        time,
        device,
        secrets.token_hex(4),
    )
    done: dict[str, int] = {}
    for event in iter_flows(client, ((str(i), _flow(source, i)) for i in images)):
        if not isinstance(event, UnitDone):
            yield event[1]
        elif event.unit.size:
            name, unit = event.flow, event.unit
            done[name] = done.get(name, unit.total - unit.missing) + unit.size
            yield Progress(name, unit.stage, done[name], unit.total)


def _flow(source: FeatureSource, image: Path) -> Flow:
    results = yield [Unit(begin, (source, image.absolute()))]
    if error := first_error(results):
        return FeatureFile(str(image), "failed", error)
    lacking: Lacking = results[0].value
    results = yield [
        Unit(
            extract,
            (source, image.absolute(), lacking.content_hash, tiles),
            *("features", len(tiles), len(lacking.tiles), lacking.result.tiles),
        )
        for tiles in in_groups(lacking.tiles, lacking.tiles_per_unit)
    ]
    if error := first_error(results):
        return FeatureFile(str(image), "failed", error)
    return replace(lacking.result, file=str(image))


# ---------------------------------------------------------------- on the workers


@lru_cache(maxsize=1)
def _backbone(choice: BackboneChoice, identity: str, device: str) -> Backbone:
    """Load the backbone, once a process."""
    backbone = choice.load(device_here(device))
    if identity_text(backbone) != identity:
        raise WeightsError(
            f"{choice.name}: expected the backbone {identity}, got "
            f"{identity_text(backbone)} on this machine. See that all machines have "
            f"the same weights."
        )
    return backbone


@lru_cache(maxsize=2)
def _prepared(source: FeatureSource, image: Path) -> tuple[Segmenter, Embedding]:
    backbone = _backbone(source.choice, source.identity, source.device)
    settings = FeatureSettings.model_validate_json(source.settings)
    segmenter = Segmenter(backbone, features=settings, store=source.store, workers=1)
    return segmenter, segmenter.prepare(image, plane=source.plane, time=source.time)


def begin(source: FeatureSource, image: Path) -> Lacking:
    """Open the store of an image and say what it lacks."""
    segmenter, embedding = _prepared(source, image)
    assert embedding.store is not None
    is_on_cpu = str(getattr(segmenter.backbone, "device", "cpu")).startswith("cpu")
    return Lacking(
        embedding.image.source.content_hash(),
        tuple(embedding.store.missing()),
        UNIT_TILES if is_on_cpu else GPU_BATCH,
        feature_file(str(image), embedding),
    )


def extract(
    source: FeatureSource, image: Path, content_hash: str, tiles: tuple[int, ...]
) -> None:
    """Compute and store some tiles."""
    segmenter, embedding = _prepared(source, image)
    found = embedding.image.source.content_hash()
    if found != content_hash:
        raise StoreError(
            f"{image}: expected the image with hash {content_hash[:12]}, got "
            f"{found[:12]} on this machine. Do not change images while they are in "
            f"work, and see that all machines read the same file."
        )
    for _ in segmenter.iter_complete(embedding, only=tiles):
        pass
