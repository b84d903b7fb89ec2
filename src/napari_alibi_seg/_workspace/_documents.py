"""Jobs that read and write what a user keeps: classifiers and results.

Only this module knows how the settings of a classifier file become those of the dock.
"""

from __future__ import annotations

import copy
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import cast

from napari_alibi_seg._base import (
    ClassifierSettings,
    FeatureSettings,
    SettingsError,
    StoreError,
    TileResult,
    WeightsError,
)
from napari_alibi_seg._segmenter import (
    Beat,
    ClassInfo,
    Segmenter,
    check_room,
    estimate,
    new_result_store,
)
from napari_alibi_seg._workspace._desk import Desk
from napari_alibi_seg._workspace._events import Exported, LoadedFile, Note
from napari_alibi_seg._workspace._images import OpenImage
from napari_alibi_seg._workspace._masking import counted, without
from napari_alibi_seg._workspace._requests import DockSettings, segmenter_arguments
from napari_alibi_seg.data import ResultStore
from napari_alibi_seg.learn import load_classifier_file

__all__ = ["FileJobs"]


class FileJobs(Desk):
    """The jobs of the panels Classifier and Result."""

    def iter_save_classifier(self, path: Path) -> Iterator[str]:
        """Write the classifier; yields the hash of its content."""
        segmenter = self._segmenter
        if segmenter is None or segmenter.classifier is None:
            raise SettingsError("There is no classifier to save yet. Train one first.")
        segmenter.classes = self._named(segmenter)
        segmenter.save(path)
        yield segmenter.content_hash

    def iter_load_classifier(self, path: Path) -> Iterator[LoadedFile]:
        """Read a classifier; one whose weights are absent still says what it is."""
        problem = ""
        segmenter: Segmenter | None = None
        header, _ = load_classifier_file(path)
        samples = header["training"].get("samples", {})
        try:
            segmenter = Segmenter.load(
                path, store=self.store, device=self.settings.device
            )
            features, classifier = segmenter.features, segmenter.settings
            classes, content = segmenter.classes, segmenter.content_hash
            name = self._known_name(segmenter)
        except WeightsError as err:
            problem = str(err)
            features = FeatureSettings(**header["features"]["settings"])
            classifier = ClassifierSettings(**header["classifier"])
            classes = {
                c["id"]: ClassInfo(c["name"], c["colour"]) for c in header["classes"]
            }
            content = str(header["sha256"])
            name = str(header["backbone"]["name"])
        settings = self.settings.with_classifier(features, classifier, backbone=name)
        if segmenter is not None:
            self._adopt(segmenter, settings)
        yield LoadedFile(
            settings,
            classes,
            _table_weights(classifier, samples),
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

    def iter_export(
        self, image: OpenImage, kind: str, path: Path
    ) -> Iterator[Beat | Note | Exported]:
        """Write labels or probabilities of an image at full resolution.

        Tiles are gathered beside the file until all are there: a run that was stopped
        is gone on with by the next one of the same name, classifier and image.

        Parameters
        ----------
        image : OpenImage
            The image.
        kind : {"labels", "probabilities"}
            What is written.
        path : Path
            Ends in .tif or .tiff, or else becomes an OME-Zarr folder.
        """
        current = self._segmenter
        if current is None or current.classifier is None:
            raise SettingsError("There is nothing to save yet. Train a classifier.")
        segmenter = copy.copy(current)  # strokes may change the other one meanwhile
        segmenter.classes = self._named(segmenter)
        embedding = self._embedding(segmenter, image)
        if image.is_large:
            expected = estimate(segmenter, embedding, (kind,))
            check_room(expected, path.parent, copies=2)
            yield Note(str(expected))
        store = _result_store(segmenter, image, kind, path)
        missing = store.missing()
        done = len(store.tiles) - len(missing)
        tiles = (
            segmenter.iter_predict(embedding, order=missing) if missing else iter(())
        )
        with closing(cast("Generator[TileResult]", tiles)):
            for index, tile in zip(missing, tiles, strict=True):
                store.write(index, without(tile, image.left_out(tile.window)))
                done += 1
                yield Beat("result", done, len(store.tiles))
        counts = _counts(store, image) if kind == "labels" else {}
        if path.suffix.lower() in (".tif", ".tiff"):
            store.export_tiff(kind, path)
            store.delete()
        else:
            store.move_to({kind: path}, replace=True)
        yield Exported(path, counts)

    def _named(self, segmenter: Segmenter) -> dict[int, ClassInfo]:
        """Return the classes of a segmenter as the table calls them now."""
        infos = self.classes.to_infos()
        return {i: infos.get(i, info) for i, info in segmenter.classes.items()}


def _result_store(
    segmenter: Segmenter, image: OpenImage, kind: str, path: Path
) -> ResultStore:
    """Return the store of the tiles of a result, with what is there already."""
    with tempfile.TemporaryDirectory() as folder:
        segmenter.save(Path(folder) / "now.alibiseg")  # for its hash
    where = path.with_name(f".{path.name}.unfinished.zarr")
    identity = {
        "image": image.source.content_hash(),
        "classifier": segmenter.content_hash,
        "left_out": [area.model_dump(mode="json") for area in image.excluded],
    }

    def opened() -> ResultStore:
        return new_result_store(segmenter, where, identity, image.source, (kind,))

    try:
        return opened()
    except StoreError:
        # half of what another classifier made: nobody will go on with it
        shutil.rmtree(where)
        return opened()


def _counts(store: ResultStore, image: OpenImage) -> dict[int, int]:
    """Return the pixels by id, of those that are not left out."""
    counts: Counter[int] = Counter(dict.fromkeys(store.class_ids, 0))
    for window in store.tiles:
        counts.update(counted(store.read("labels", window), image.left_out(window)))
    return dict(sorted(counts.items()))


def _table_weights(
    classifier: ClassifierSettings, samples: dict[str, int]
) -> dict[int, float] | None:
    """Return the weights of the table that make the same balance of the classes.

    Those of the table multiply balanced weights ``N / (K N_c)``; a file may hold plain
    ones, of each painted pixel.
    """
    plain = classifier.class_weight
    if not isinstance(plain, dict):
        return classifier.class_factor or None
    if not samples:
        return plain
    share = {
        int(i): len(samples) * n / sum(samples.values()) for i, n in samples.items()
    }
    return {i: float(f"{plain.get(i, 1.0) * f:.6g}") for i, f in share.items()}
