"""What one dock works on: images, one segmenter, and the jobs that use them.

Every job is a generator for a worker thread; it knows no window. What is shared
between threads is assigned whole, under one lock. The order of things is always: open
an image, compute its features, train on what is painted, look, save.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_alibi_seg._base import (
    AnnotationError,
    ClassifierSettings,
    FeatureSettings,
    SettingsError,
    WeightsError,
    Window,
)
from napari_alibi_seg._segmenter import (
    Beat,
    ClassInfo,
    Embedding,
    Finished,
    HoldoutScore,
    LiveEvent,
    Preview,
    Segmenter,
    Tile,
    Trained,
    View,
    Visible,
    iter_holdout,
    iter_live,
    iter_warm_up,
    least_certain,
)
from napari_alibi_seg._workspace._classes import ClassTable
from napari_alibi_seg._workspace._images import OpenImage
from napari_alibi_seg._workspace._places import (
    FoundProject,
    ImageIdentity,
    find_project,
)
from napari_alibi_seg._workspace._planes import Plane
from napari_alibi_seg._workspace._project import Project
from napari_alibi_seg._workspace._requests import DockSettings, segmenter_arguments
from napari_alibi_seg._workspace._state import ProjectState
from napari_alibi_seg.data import TiffPlaneWriter, find_info_bar
from napari_alibi_seg.learn import load_classifier_file

__all__ = ["Applied", "Extracted", "LoadedFile", "Note", "Opened", "Session"]


@dataclass(frozen=True)
class Opened:
    """An image was looked at.

    Attributes
    ----------
    found : FoundProject or None
        A project that lies there.
    bar : Window or None
        An information bar that may be left out.
    """

    found: FoundProject | None
    bar: Window | None


@dataclass(frozen=True)
class Extracted:
    """Progress of an extraction.

    Attributes
    ----------
    done, total : int
        Tiles, those stored before included.
    seconds_left : float or None
        At the speed so far; None before the first tile.
    was_stored : bool
        Whether nothing had to be computed.
    """

    done: int
    total: int
    seconds_left: float | None
    was_stored: bool = False


@dataclass(frozen=True)
class Note:
    """A sentence for the user that is no error."""

    text: str


@dataclass(frozen=True)
class Applied:
    """A classifier that was there is being applied; nothing is trained.

    Attributes
    ----------
    class_ids : tuple of int
        Ascending, as its probabilities are ordered.
    """

    class_ids: tuple[int, ...]


@dataclass(frozen=True)
class LoadedFile:
    """What a classifier file said.

    Attributes
    ----------
    settings : DockSettings
        That fill the panels.
    classes : dict of int to ClassInfo
        Of the file.
    weights : dict of int to float or None
        Of classes; None where balanced.
    problem : str
        Why it cannot be applied here, empty if it can.
    content_hash : str
        Of the file.
    """

    settings: DockSettings
    classes: dict[int, ClassInfo]
    weights: dict[int, float] | None
    problem: str
    content_hash: str


class Session:
    """The state of a dock and its jobs.

    Parameters
    ----------
    store : Path or None
        Folder of feature stores; None keeps tokens in memory.

    Attributes
    ----------
    settings : DockSettings
        As the panels say.
    classes : ClassTable
        As the table says.
    images : dict of hashable to OpenImage
        That share the classifier.
    """

    def __init__(self, store: Path | None = None) -> None:
        self.settings = DockSettings()
        self.classes = ClassTable()
        self.images: dict[Hashable, OpenImage] = {}
        self.store = store
        self._lock = threading.RLock()
        self._segmenter: Segmenter | None = None
        self._recipe = ""
        self._backbones: dict[tuple[str, str], Any] = {}

    # ------------------------------------------------------------------- segmenter

    @property
    def segmenter(self) -> Segmenter | None:
        """The one in use, if any was needed yet."""
        return self._segmenter

    @property
    def is_trained(self) -> bool:
        """Whether there is a classifier."""
        return self._segmenter is not None and self._segmenter.classifier is not None

    def _current(self, settings: DockSettings, painted: tuple[int, ...]) -> Segmenter:
        """Return the segmenter for some settings; another recipe makes another one."""
        features, classifier = segmenter_arguments(settings, self.classes, painted)
        name = settings.segmenter_backbone()
        recipe = json.dumps(
            [features.model_dump(mode="json"), name, name and settings.device]
        )
        with self._lock:
            if self._segmenter is None or recipe != self._recipe:
                self._segmenter = Segmenter(
                    self._backbone(name, settings.device),
                    features=features,
                    classifier=classifier,
                    store=self.store if name else None,
                )
                self._segmenter.choice = f"{features.kind}, as chosen in the dock"
                if name is not None and Path(name).is_file():
                    self._segmenter.weights_hint = str(Path(name).resolve())
                self._recipe = recipe
                for image in self.images.values():
                    image.embedding = None
            self._segmenter.settings = classifier
            return self._segmenter

    def _backbone(self, name: str | None, device: str) -> Any:
        if name is None:
            return None
        if (name, device) not in self._backbones:
            from napari_alibi_seg.features import load_backbone

            self._backbones[name, device] = load_backbone(name, device=device)
        return self._backbones[name, device]

    def forget_recipe(self) -> None:
        """Drop the segmenter: the next job begins with what the panels say."""
        with self._lock:
            self._segmenter, self._recipe = None, ""
            for image in self.images.values():
                image.embedding = None

    # ---------------------------------------------------------------------- images

    def iter_open(self, image: OpenImage) -> Iterator[Opened]:
        """Identify an image, look for its project and for an information bar."""
        bar = find_info_bar(image.source)
        image.identity = ImageIdentity.of(image.first or image.source, name=image.name)
        yield Opened(find_project(image.identity), bar)

    def iter_project(
        self, image: OpenImage, found: FoundProject | None, *, accept: bool = False
    ) -> Iterator[Project]:
        """Open a project that was found, or begin one."""
        assert image.identity is not None
        if found is None:
            project = Project.create(image.identity, self.state(image))
        else:
            project = Project.open(found.folder, image.identity, accept_replaced=accept)
        project.painted(image.plane)  # reads the file here, not at the first stroke
        image.excluded = project.load_state().excluded
        with self._lock:
            pending, image.pending = image.pending, None
            image.project = project
            is_dropped = image.is_dropped
        if pending is not None:
            project.update_scribbles(image.plane, pending)
        if is_dropped:  # meanwhile: keep the stroke and let go
            project.close()
            return
        yield project

    def sibling(self, image: OpenImage) -> Project | None:
        """Return the project of another plane of the same image, if one is open."""
        open_ = (i.project for i in self.planes_of(image) if i.project is not None)
        return next(open_, None)

    def planes_of(self, image: OpenImage) -> list[OpenImage]:
        """Return what is open of the same image: it and its other planes."""
        return [i for i in self.images.values() if i.identity == image.identity]

    def drop(self, key: Hashable) -> None:
        """Forget an image; its project is written and given free."""
        image = self.images.pop(key, None)
        if image is None:
            return
        with self._lock:
            image.is_dropped = True
            project, image.project = image.project, None
        if project is None:
            return
        if all(other.project is not project for other in self.images.values()):
            try:
                project.save_state(self.state(image))
            finally:
                project.close()

    def remap(self, image: OpenImage, plane: Plane, mapping: dict[int, int]) -> None:
        """Repaint the pixels of classes that are gone, in what is kept of a plane."""
        project = image.project
        where = None if project is None else project.window_of(plane, tuple(mapping))
        if project is None or where is None:
            return
        painted = project.load_scribbles(plane)
        for old, new in mapping.items():
            painted[painted == old] = new
        project.update_scribbles(plane, painted, where)

    def state(self, image: OpenImage) -> ProjectState:
        """Return what a project keeps of the dock."""
        return ProjectState(
            classes=self.classes.entries,
            settings=self.settings,
            excluded=image.excluded,
        )

    def iter_save(self) -> Iterator[Any]:
        """Write what changed of all projects."""
        for image in [*self.images.values()]:
            project = image.project
            if project is not None:
                project.save_state(self.state(image))
        yield from ()

    # -------------------------------------------------------------------- features

    def iter_extract(
        self, image: OpenImage, view: View | None = None
    ) -> Iterator[Extracted | Beat]:
        """Compute the features of an image, from the middle of the view outwards."""
        settings = self.settings
        segmenter = self._current(settings, self.painted_ids)
        embedding = self._embedding(segmenter, image)
        store = embedding.store
        if store is not None:
            total = len(store.grid.tiles)
            missing = store.missing()
            if not missing:
                yield Extracted(total, total, 0.0, was_stored=True)
            else:
                yield Extracted(total - len(missing), total, None)
            started, order = time.monotonic(), _tiles_from(embedding, view)
            with closing(segmenter.iter_complete(embedding, order=order)) as tiles:  # type: ignore[type-var]
                for n, _ in enumerate(tiles, 1):
                    speed = (time.monotonic() - started) / n
                    done = total - len(missing) + n
                    yield Extracted(done, total, speed * (len(missing) - n))
        yield from iter_warm_up(segmenter, embedding, view=view)

    def _embedding(self, segmenter: Segmenter, image: OpenImage) -> Embedding:
        if image.embedding is None:
            image.embedding = segmenter.prepare(image.source)
        return image.embedding

    # -------------------------------------------------------------------- training

    @property
    def painted_ids(self) -> tuple[int, ...]:
        """Classes that are painted on any image, ascending."""
        ids = {i for image in self.images.values() for i in image.painted}
        return tuple(sorted(ids))

    def _training_images(
        self, segmenter: Segmenter, shown: OpenImage
    ) -> tuple[list[OpenImage], list[str]]:
        """Return the painted images that have features, the shown first; and others."""
        used, waiting = [], []
        rest = [i for i in self.images.values() if i is not shown]
        for image in [shown, *rest]:
            if not image.painted:
                continue
            self._embedding(segmenter, image)
            if image.is_extracted:
                used.append(image)
            else:
                waiting.append(image.name)
        return used, waiting

    def iter_live(self, shown: OpenImage, view: View) -> Iterator[LiveEvent | Note]:
        """Train on everything painted and segment the shown image; see `iter_live`."""
        segmenter = self._current(self.settings, self.painted_ids)
        used, waiting = self._training_images(segmenter, shown)
        if waiting:
            yield Note(
                f"Features are missing of {', '.join(waiting)}: extract them, so that "
                "its strokes count."
            )
        if not used and waiting:
            raise AnnotationError(
                "Training needs features of a painted image, and none has them yet. "
                "Extract features first."
            )
        if not used:
            raise AnnotationError(
                "Nothing is painted yet. Pick a class and paint a stroke of it."
            )
        embedding = self._embedding(segmenter, shown)
        strokes = [i.strokes() for i in used]
        learnt = _ids_in(used, strokes)
        run = iter_live(
            segmenter,
            [i.embedding for i in used if i.embedding is not None],
            strokes,
            view=view,
            shown=embedding,
            class_names={i: n for i, n in self.classes.names.items() if i in learnt},
        )
        yield from _masked(run, shown)

    def iter_show(self, shown: OpenImage, view: View) -> Iterator[LiveEvent | Applied]:
        """Apply a classifier that is there already to an image."""
        segmenter = self._segmenter
        if segmenter is None or segmenter.classifier is None:
            raise SettingsError("There is no classifier yet. Train or load one.")
        embedding = self._embedding(segmenter, shown)
        ids = tuple(int(i) for i in segmenter.classifier.class_ids)
        yield Applied(ids)
        tiles = segmenter.iter_predict(embedding, focus=view.focus)
        with closing(tiles):  # type: ignore[type-var]
            yield from _masked((Tile(t) for t in tiles), shown, ids)

    def iter_score(self, n_folds: int = 5) -> Iterator[HoldoutScore]:
        """Score the classifier on strokes it was not trained on."""
        segmenter = self._current(self.settings, self.painted_ids)
        used = [i for i in self.images.values() if i.painted and i.is_extracted]
        if not used:
            raise AnnotationError(
                "Nothing can be scored yet: paint at least two strokes of two classes."
            )
        yield from iter_holdout(
            segmenter,
            [i.embedding for i in used if i.embedding is not None],
            [i.strokes() for i in used],
            n_folds=n_folds,
        )

    def iter_least_certain(
        self, image: OpenImage, side: int = 1024
    ) -> Iterator[tuple[float, float]]:
        """Yield the pixel (row, column) in the least certain neighbourhood.

        The classifier is asked at no more than about `side` x `side` pixels, whatever
        is shown, so that every part of the image has its chance.
        """
        segmenter = self._segmenter
        if segmenter is None or segmenter.classifier is None:
            raise SettingsError("There is no classifier yet. Train or load one.")
        embedding = self._embedding(segmenter, image)
        step = max(1, -(-max(image.shape) // side))
        h, w = (-(-n // step) for n in image.shape)
        uncertainty = np.zeros((h, w), np.float32)
        for tile in segmenter.iter_predict(embedding, order="reading"):
            at = tile.window
            rows, cols = (
                np.arange(-(-a // step), -(-b // step))
                for a, b in ((at.y0, at.y1), (at.x0, at.x1))
            )
            picked = tile.uncertainty_yx[
                np.ix_(rows * step - at.y0, cols * step - at.x0)
            ]
            uncertainty[np.ix_(rows, cols)] = picked
        left_out = image.left_out(Window(0, image.shape[0], 0, image.shape[1]), step)
        if left_out is not None:
            uncertainty[left_out] = 0
        painted = np.zeros(image.shape, np.uint8)
        if image.project is not None:
            painted = image.project.load_scribbles(image.plane)
        coarse = _any_in_blocks(painted > 0, step, (h, w))
        row, col = least_certain(uncertainty, coarse, radius=max(2, 24 // step))
        yield (row * step + step / 2, col * step + step / 2)

    # ----------------------------------------------------------------------- files

    def iter_save_classifier(self, path: Path) -> Iterator[str]:
        """Write the classifier; yields the hash of its content."""
        segmenter = self._segmenter
        if segmenter is None or segmenter.classifier is None:
            raise SettingsError("There is no classifier to save yet. Train one first.")
        segmenter.classes = {
            i: self.classes.to_infos().get(i, info)
            for i, info in segmenter.classes.items()
        }
        segmenter.save(path)
        yield segmenter.content_hash

    def iter_load_classifier(self, path: Path) -> Iterator[LoadedFile]:
        """Read a classifier; one whose weights are absent still says what it is."""
        problem = ""
        segmenter: Segmenter | None = None
        try:
            segmenter = Segmenter.load(
                path, store=self.store, device=self.settings.device
            )
            features, classifier = segmenter.features, segmenter.settings
            classes, content = segmenter.classes, segmenter.content_hash
            name = self._known_name(segmenter)
        except WeightsError as err:
            problem = str(err)
            header, _ = load_classifier_file(path)
            features = FeatureSettings(**header["features"]["settings"])
            classifier = ClassifierSettings(**header["classifier"])
            classes = {
                c["id"]: ClassInfo(c["name"], c["colour"]) for c in header["classes"]
            }
            content = str(header["sha256"])
            name = str(header["backbone"]["name"])
        settings = self.settings.with_classifier(features, classifier, backbone=name)
        weights = classifier.class_weight
        if segmenter is not None:
            self._adopt(segmenter, settings)
        yield LoadedFile(
            settings,
            classes,
            weights if isinstance(weights, dict) else None,
            problem,
            content,
        )

    @staticmethod
    def _known_name(segmenter: Segmenter) -> str | None:
        if segmenter.backbone is None:
            return None
        return segmenter.weights_hint or segmenter.backbone.name

    def _adopt(self, segmenter: Segmenter, settings: DockSettings) -> None:
        """Use a loaded segmenter as long as the settings stay what it was made with."""
        name = settings.segmenter_backbone()
        features, _ = segmenter_arguments(settings, self.classes, ())
        with self._lock:
            self._segmenter = segmenter
            self._recipe = json.dumps(
                [features.model_dump(mode="json"), name, name and settings.device]
            )
            if name is not None:
                self._backbones[name, settings.device] = segmenter.backbone
            for image in self.images.values():
                image.embedding = None

    def iter_export(self, image: OpenImage, kind: str, path: Path) -> Iterator[Beat]:
        """Write labels or probabilities of an image at full resolution."""
        segmenter = self._segmenter
        if segmenter is None or segmenter.classifier is None:
            raise SettingsError("There is nothing to save yet. Train a classifier.")
        embedding = self._embedding(segmenter, image)
        size = image.source.pixel_size
        with ExitStack() as stack:
            writer: TiffPlaneWriter | None = None
            for tile in segmenter.iter_predict(embedding, order="reading"):
                labels, proba = tile.labels_yx, tile.proba_kyx
                out = image.left_out(tile.window)
                if out is not None:
                    labels = np.where(out, 0, labels).astype(labels.dtype)
                    proba = np.where(out, np.float32(0), proba)
                block = labels if kind == "labels" else proba
                if writer is None:
                    shape = (*block.shape[:-2], *image.shape)
                    axes = "YX" if kind == "labels" else "CYX"
                    writer = stack.enter_context(
                        TiffPlaneWriter(path, shape, block.dtype, axes, size)
                    )
                writer.write(tile.window, block)
                yield Beat("result", tile.index + 1, tile.total)

    def close(self) -> None:
        """Write what is not written yet and give the projects free."""
        for key in [*self.images]:
            self.drop(key)


def _masked(
    run: Iterator[Any], image: OpenImage, ids: tuple[int, ...] = ()
) -> Iterator[Any]:
    """Set what is left out to 0, and count fractions without it."""
    counts: Counter[int] = Counter()
    try:
        for event in run:
            if isinstance(event, Trained):
                ids = event.class_ids
            if isinstance(event, (Preview, Visible)):
                out = image.left_out(event.window, event.step)
                if out is not None:
                    event = _without(event, out)
            elif isinstance(event, Tile):
                tile = event.result
                out = image.left_out(tile.window)
                if out is not None:
                    event = Tile(_without(tile, out))
                kept = tile.labels_yx if out is None else tile.labels_yx[~out]
                found, n = np.unique(kept, return_counts=True)
                counts.update(dict(zip(found.tolist(), n.tolist(), strict=True)))
            elif isinstance(event, Finished):
                continue
            yield event
    finally:
        close = getattr(run, "close", None)
        if close is not None:
            close()
    total = max(1, sum(counts.values()))
    keys = sorted({*ids, *counts})
    yield Finished({i: counts.get(i, 0) / total for i in keys})


def _ids_in(images: list[OpenImage], strokes: list[Any]) -> set[int]:
    """Return the classes that there are strokes of, outside what is left out."""
    ids: set[int] = set()
    for image, labels in zip(images, strokes, strict=True):
        if image.mask() is None:
            ids |= set(image.painted)
        else:
            ids |= set(np.flatnonzero(np.bincount(labels.ravel())).tolist())
    return ids


def _without(event: Any, out: Any) -> Any:
    labels = np.where(out, 0, event.labels_yx).astype(event.labels_yx.dtype)
    uncertainty = np.where(out, np.float32(0), event.uncertainty_yx)
    return replace(event, labels_yx=labels, uncertainty_yx=uncertainty)


def _tiles_from(embedding: Embedding, view: View | None) -> list[int] | None:
    """Return the tiles of a store, nearest to the middle of the view first."""
    if view is None or embedding.store is None:
        return None
    grid = embedding.store.grid
    middles = []
    for tile in grid.tiles:
        at = grid.pixel_of_token(
            (tile.keep.y0 + tile.keep.y1) // 2, (tile.keep.x0 + tile.keep.x1) // 2
        )
        middles.append((at[0] - view.focus[0]) ** 2 + (at[1] - view.focus[1]) ** 2)
    return [int(i) for i in np.argsort(middles, kind="stable")]


def _any_in_blocks(mask: Any, step: int, shape: tuple[int, int]) -> Any:
    """Return whether any pixel of each block of `step` is true."""
    padded = np.zeros((shape[0] * step, shape[1] * step), bool)
    padded[: mask.shape[0], : mask.shape[1]] = mask[
        : padded.shape[0], : padded.shape[1]
    ]
    blocks = padded.reshape(shape[0], step, shape[1], step)
    return blocks.any(axis=(1, 3))
