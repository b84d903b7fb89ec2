"""Classifiers and results as files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject

from napari_alibi_seg._segmenter import Beat
from napari_alibi_seg._widgets._classifier_panel import read_facts
from napari_alibi_seg._widgets._hooks import on_gui
from napari_alibi_seg._widgets._jobs import Lane
from napari_alibi_seg._workspace import (
    DockSettings,
    Exported,
    LoadedFile,
    Note,
    OpenImage,
)
from napari_alibi_seg.data import write_text_atomic

if TYPE_CHECKING:
    from napari_alibi_seg._widgets._dock import Dock

__all__ = ["FileFlow"]


class FileFlow(QObject):
    """See the module."""

    def __init__(self, dock: Dock) -> None:
        super().__init__(dock)
        self.dock = dock
        self._lane = Lane("files", self)
        self._export = Lane("export", self)
        self.lanes = (self._lane, self._export)
        dock.classifier_panel.save_wanted.connect(self.save)
        dock.classifier_panel.load_wanted.connect(self.load)
        dock.result_panel.save_wanted.connect(self._save_result)
        dock.result_panel.stop_wanted.connect(self._stop_saving)
        dock.image_ready.connect(self._ready)
        dock.settings_changed.connect(self._settings_changed)
        dock.classifier_panel.set_can_save(False)
        dock.result_panel.set_can_save(False)

    def close(self) -> None:
        """Stop."""
        for lane in self.lanes:
            lane.close()

    @on_gui
    def _ready(self, image: OpenImage) -> None:
        path = image.source.path
        stem = (path.parent if path is not None else Path.home()) / Path(
            image.name
        ).stem
        self.dock.result_panel.suggest(stem)
        self.dock.result_panel.set_can_save(False)
        self.dock.classifier_panel.set_suggestion(stem.with_suffix(".alibiseg"))

    def trained(self) -> None:
        """There is a classifier that can be saved."""
        self.dock.classifier_panel.set_can_save(True)

    @on_gui
    def _settings_changed(self, before: DockSettings) -> None:
        if before.device != self.dock.settings.device:
            self.dock.batch_panel.set_device(self.dock.settings.device)

    @on_gui
    def save(self, path: Path) -> None:
        """Write the classifier."""
        session, panel = self.dock.session, self.dock.classifier_panel

        def make() -> Iterator[Any]:
            for _ in session.iter_save_classifier(path):
                pass
            yield read_facts(path)

        def saved(facts: dict[str, Any]) -> None:
            panel.show_classifier(facts)
            panel.say(f"Saved {path}.")
            self.dock.batch_panel.set_classifier(path)

        self._lane.start(
            make,
            on_event=saved,
            on_error=lambda text, _: panel.say(text, is_error=True),
        )

    @on_gui
    def load(self, path: Path) -> None:
        """Read a classifier and fill the panels with what it was made with."""
        session, panel = self.dock.session, self.dock.classifier_panel
        self.dock.train.stop()

        def make() -> Iterator[Any]:
            facts = read_facts(path)
            for found in session.iter_load_classifier(path):
                yield facts, found

        def loaded(event: tuple[dict[str, Any], LoadedFile]) -> None:
            facts, found = event
            panel.show_classifier(facts)
            panel.say(found.problem, is_error=bool(found.problem))
            session.classes.adopt(found.classes, found.weights)
            session.settings = found.settings
            self.dock.show_settings()
            self.dock.batch_panel.set_classifier(path)
            if not found.problem:
                self.trained()
                self.dock.train.show_classifier()

        self._lane.start(
            make,
            on_event=loaded,
            on_error=lambda text, _: panel.say(text, is_error=True),
        )

    @on_gui
    def _save_result(self, kind: str, path: Path) -> None:
        image, session = self.dock.image, self.dock.session
        panel = self.dock.result_panel
        if image is None:
            return
        if kind == "table":
            self._save_table(image, path)
            return

        def progress(event: Beat | Note | Exported) -> None:
            if isinstance(event, Beat):
                panel.show_saving(event.done, event.total)
            elif isinstance(event, Note):
                panel.wait.say(event.text)
            else:
                self._exported(image, event)

        self._export.start(
            lambda: session.iter_export(image, kind, path),
            on_event=progress,
            on_error=lambda text, _: panel.show_error(text),
            on_done=lambda: panel.end_saving(f"Saved {path}."),
        )

    def _exported(self, image: OpenImage, event: Exported) -> None:
        """Show what of a large image is known only now."""
        if self.dock.image is image and self.dock.stage.shows_parts and event.counts:
            self.dock.result.show_counts(image, event.counts)
            self.dock.large.show_result(event.path)

    @on_gui
    def _stop_saving(self) -> None:
        self._export.stop()
        self.dock.result_panel.end_saving(
            "Stopped. What is done is kept: save under the same name to go on."
        )

    def _save_table(self, image: OpenImage, path: Path) -> None:
        panel = self.dock.result_panel
        if not self.dock.result.fractions:
            panel.show_error(
                "The table is of the whole image, of which a part was segmented so "
                "far. Save the labels first."
            )
            return
        text = self._table(image)

        def make() -> Iterator[Any]:
            write_text_atomic(path, text)
            yield from ()

        self._export.start(
            make,
            on_error=lambda text, _: panel.show_error(text),
            on_done=lambda: panel.wait.say(f"Saved {path}."),
        )

    def _table(self, image: OpenImage) -> str:
        """Return classes and their area fractions as CSV."""
        size = image.source.pixel_size
        n = self.dock.result.n_pixels
        out = io.StringIO()
        rows = csv.writer(out, lineterminator="\n")
        area = [] if size is None else [f"area_{size.unit}2"]
        rows.writerow(["image", "class_id", "class", "fraction", "pixels", *area])
        names = self.dock.session.classes.names
        for i, share in sorted(self.dock.result.fractions.items()):
            pixels = round(share * n)
            more = [] if size is None else [f"{pixels * size.y * size.x:.6g}"]
            name = names.get(i, "not sure")
            rows.writerow([image.name, i, name, f"{share:.6f}", pixels, *more])
        return out.getvalue()
