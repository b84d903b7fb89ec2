"""Jobs that read and write what a user keeps: classifiers and results.

Only this module knows how the settings of a classifier file become those of the dock.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from napari_alibi_seg._base import (
    ClassifierSettings,
    FeatureSettings,
    SettingsError,
    WeightsError,
)
from napari_alibi_seg._segmenter import Beat, ClassInfo, Segmenter
from napari_alibi_seg._workspace._desk import Desk
from napari_alibi_seg._workspace._events import LoadedFile
from napari_alibi_seg._workspace._images import OpenImage
from napari_alibi_seg._workspace._requests import DockSettings, segmenter_arguments
from napari_alibi_seg.data import TiffPlaneWriter
from napari_alibi_seg.learn import load_classifier_file

__all__ = ["FileJobs"]


class FileJobs(Desk):
    """The jobs of the panels Classifier and Result."""

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
