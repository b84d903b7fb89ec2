"""From a stroke to the result: saving it, training, showing, scoring."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer

from napari_alibi_seg._base import Window
from napari_alibi_seg._segmenter import Beat, Finished, HoldoutScore, Trained
from napari_alibi_seg._widgets._hooks import on_gui
from napari_alibi_seg._widgets._jobs import Lane
from napari_alibi_seg._widgets._pieces import Piece, iter_pieces
from napari_alibi_seg._widgets._result_panel import Totals
from napari_alibi_seg._workspace import (
    DockSettings,
    Note,
    OpenImage,
    export_mask,
    find_pixels,
    import_mask,
)

if TYPE_CHECKING:
    from pathlib import Path

    from napari_alibi_seg._widgets._dock import Dock

__all__ = ["TrainFlow"]

_DEBOUNCE_MS = 80
_LEAST_CERTAIN_SIDE = 1024
# Pieces that come sooner after one another are shown together: each time that something
# changes, napari draws the whole canvas again, beside the threads that classify.
_TOGETHER_MS = 200
_CLASSIFIER = (
    *("classifier", "n_trees", "resolution", "unsure_below", "unsure_id"),
    *("max_features", "seed"),
)
_UM = {"nm": 1e-3, "um": 1.0, "µm": 1.0, "mm": 1e3, "m": 1e6}


class TrainFlow(QObject):
    """See the module."""

    def __init__(self, dock: Dock) -> None:
        super().__init__(dock)
        self.dock = dock
        self._live = Lane("live", self)
        self._save = Lane("save", self)
        self._load = Lane("scribbles", self)
        self._score = Lane("score", self)
        self._seek = Lane("seek", self)
        self.lanes = (self._live, self._save, self._load, self._score, self._seek)
        self._debounce = QTimer(self)
        self._debounce.setSingleShot(True)
        self._debounce.setInterval(_DEBOUNCE_MS)
        self._debounce.timeout.connect(self._after_stroke)
        self._together = QTimer(self)
        self._together.setSingleShot(True)
        self._together.setInterval(_TOGETHER_MS)
        self._together.timeout.connect(self._show_waiting)
        self._waiting: list[Piece] = []
        self._fractions: dict[int, float] = {}
        self._armed: int | None = None
        self._probability: int | None = None  # class whose probability is shown
        stage, classes = dock.stage, dock.classes_panel
        stage.stroke_ended.connect(self._stroke)
        stage.layer_lost.connect(self._lost)
        dock.image_ready.connect(self._ready)
        dock.settings_changed.connect(self._settings_changed)
        dock.features.extracted.connect(self._extracted)
        dock.session.classes.changed.connect(self._classes_changed)
        classes.picked.connect(self.arm)
        classes.removed.connect(self._remap)
        classes.merged.connect(self._remap)
        classes.labels_layer_wanted.connect(self._use_layer)
        classes.mask_file_wanted.connect(self._use_mask)
        classes.mask_export_wanted.connect(self._export_mask)
        panel = dock.train_panel
        panel.update_wanted.connect(self.update)
        panel.score_wanted.connect(self._begin_score)
        panel.least_certain_wanted.connect(self.go_to_least_certain)
        dock.result_panel.layers_wanted.connect(self._show_layers)
        self._live.busy_changed.connect(panel.set_busy)
        self._seek.start(self._iter_warm_up)

    def _iter_warm_up(self) -> Iterator[Any]:
        self.dock.stage.warm_up()
        yield from ()

    def close(self) -> None:
        """Stop."""
        self._debounce.stop()
        self._forget_waiting()
        self.dock.session.classes.changed.disconnect(self._classes_changed)
        for lane in self.lanes:
            lane.close()

    def stop(self) -> None:
        """Stop what shows results of the image on show."""
        self._debounce.stop()
        self._forget_waiting()
        for lane in (self._live, self._score, self._seek):
            if lane.is_busy:
                lane.stop()
                self.dock.train_panel.say("")
                self.dock.train_panel.wait.say("")

    # ------------------------------------------------------------------ scribbles

    @on_gui
    def _ready(self, image: OpenImage) -> None:
        self._fractions = {}
        self.dock.result_panel.show_empty()
        self._count()
        stage = self.dock.stage
        early, stage.painted_early = stage.painted_early, None
        if early == image.key:
            self._keep_early(image)
        elif image.painted:
            self._show_scribbles(image)
        elif stage.current is not None and stage.current.scribbles is not None:
            blank = np.zeros(image.shape, np.uint8)
            stage.show_scribbles(blank, self.dock.session.classes.entries)
        elif self._armed is not None:
            self.arm(self._armed)

    def _keep_early(self, image: OpenImage) -> None:
        """Add what was painted while the image was being opened to what is kept."""
        stage = self.dock.stage
        if image.project is not None and image.painted:
            kept = image.project.load_scribbles(image.plane)
            fresh = stage.painted()
            both = np.where(fresh > 0, fresh, kept)
            stage.show_scribbles(both, self.dock.session.classes.entries)
        self._stroke(None)

    @on_gui
    def _extracted(self) -> None:
        """Features are there: train, or apply what was loaded, if nothing does yet."""
        if self._live.is_busy or self._debounce.isActive() or self._load.is_busy:
            return
        session = self.dock.session
        if len(session.painted_ids) >= 2:
            self._after_stroke()
        elif session.is_trained and self.dock.settings.live:
            self.show_classifier()

    def _show_scribbles(self, image: OpenImage) -> None:
        """Show what is kept; reading a large plane is left to a worker."""
        project = image.project
        if project is None:
            return

        def make() -> Iterator[Any]:
            yield project.load_scribbles(image.plane)

        def show(data: Any) -> None:
            if self.dock.image is image:
                if self.dock.stage.is_painting:  # what is being painted stays
                    fresh = self.dock.stage.painted()
                    data = np.where(fresh > 0, fresh, data)
                self.dock.stage.show_scribbles(data, self.dock.session.classes.entries)
                if self._armed is not None:
                    self.dock.stage.arm(self._armed)
                self._after_stroke()

        self._load.start(
            make,
            on_event=show,
            on_error=lambda text, _: self.dock.classes_panel.set_hint(text),
        )

    @on_gui
    def arm(self, class_id: int) -> None:
        """Put the brush of a class into the user's hand."""
        image = self.dock.image
        self._armed = class_id
        self.dock.classes_panel.set_hint("")
        if self.dock.offer.is_open:  # going on is what somebody who paints wants
            self.dock.offer.answer(True)
            return
        if image is None:
            return
        stage = self.dock.stage
        if stage.current is not None and stage.current.scribbles is None:
            if image.painted:
                self._show_scribbles(image)
                return
            blank = np.zeros(image.shape, np.uint8)
            stage.show_scribbles(blank, self.dock.session.classes.entries)
        stage.arm(class_id)

    def pick_nth(self, n: int) -> None:
        """Pick the n-th class, as a key does."""
        class_id = self.dock.classes_panel.pick_nth(n)
        if class_id is not None:
            self.arm(class_id)

    @on_gui
    def _stroke(self, window: Window | None) -> None:
        stage = self.dock.stage
        if self.dock.image is None and stage.current is not None:
            stage.painted_early = (id(stage.current.image), stage.plane)
            return
        self.dock.images.with_project(lambda: self._take(window))

    def _take(self, window: Window | None) -> None:
        """Keep what was painted, then train if that is wanted."""
        image, stage = self.dock.image, self.dock.stage
        if image is None or image.project is None or stage.current is None:
            return
        if stage.current.scribbles is None:
            return
        image.project.update_scribbles(image.plane, stage.painted(), window)
        self.dock.session.classes.ensure(image.painted)
        self._count()
        self.save()
        if self.dock.settings.live:
            self._debounce.start()

    def save(self) -> None:
        """Write strokes, classes and settings, in a worker."""
        self._save.start(
            self.dock.session.iter_save,
            on_error=lambda text, _: self.dock.classes_panel.set_hint(text),
        )

    def _count(self) -> None:
        session = self.dock.session
        counts: dict[int, int] = {}
        for image in session.images.values():
            for i, n in image.painted.items():
                counts[i] = counts.get(i, 0) + n
        self.dock.classes_panel.set_counts(counts)

    @on_gui
    def _classes_changed(self) -> None:
        entries = self.dock.session.classes.entries
        self.dock.stage.recolour(entries)
        self.dock.result_panel.set_classes([(e.id, e.name) for e in entries])
        image = self.dock.image
        if image is not None and image.project is not None:
            self.save()

    @on_gui
    def _remap(self, mapping: dict[int, int]) -> None:
        """Repaint the pixels of classes that were deleted or merged, on all images."""
        session, stage = self.dock.session, self.dock.stage
        if self._armed in mapping:
            self._armed = mapping[self._armed] or None
            if self._armed is None:
                stage.disarm()
        shown = self.dock.image
        if shown is not None and stage.current is not None:
            self._remap_layer(mapping)
        for image in session.images.values():
            if image.project is None:
                continue
            for plane in image.project.planes:
                is_shown = image is shown and plane == stage.plane
                if not is_shown:
                    session.remap(image, plane or None, mapping)
        self._count()
        self.save()
        self.result_is_stale()

    def _remap_layer(self, mapping: dict[int, int]) -> None:
        """Repaint what is on the screen; that can be undone."""
        stage, image = self.dock.stage, self.dock.image
        if image is None or image.project is None or stage.current is None:
            return
        layer = stage.current.scribbles
        where = image.project.window_of(image.plane, tuple(mapping))
        if where is None:
            return
        if layer is None:
            self.dock.session.remap(image, image.plane, mapping)
            return
        for old, new in mapping.items():
            at = find_pixels(stage.painted(), (old,), where)
            lead = tuple(np.full(len(at[0]), p) for p in stage.plane)
            layer.data_setitem((*lead, *at), new)

    @on_gui
    def _use_layer(self) -> None:
        """Take the selected Labels layer as scribbles."""
        from napari.layers import Labels

        stage = self.dock.stage
        own = [] if stage.current is None else stage.current.all
        layers = [
            layer
            for layer in self.dock.viewer.layers
            if isinstance(layer, Labels) and all(layer is not o for o in own)
        ]
        chosen = [x for x in layers if x in self.dock.viewer.layers.selection] or layers
        if not chosen:
            self.dock.classes_panel.set_hint(
                "There is no other Labels layer. Open or draw one, then try again."
            )
            return
        layer = chosen[0]
        data = layer.data[stage.plane] if layer.ndim > 2 else layer.data
        self._import(data, layer.name)

    @on_gui
    def _use_mask(self, path: Path) -> None:
        self._import(path, str(path))

    def _import(self, labels: Any, name: str) -> None:
        image = self.dock.image
        if image is None:
            self.dock.classes_panel.set_hint("Choose an image first.")
            return

        def make() -> Iterator[Any]:
            yield import_mask(labels, image.shape)

        def show(data: Any) -> None:
            self.dock.session.classes.ensure(int(i) for i in np.unique(data) if i)
            self.dock.stage.show_scribbles(data, self.dock.session.classes.entries)
            self.dock.classes_panel.set_hint(f"{name} is taken as scribbles.")
            self._stroke(None)

        self._load.start(
            make,
            on_event=show,
            on_error=lambda text, _: self.dock.classes_panel.set_hint(text),
        )

    @on_gui
    def _export_mask(self, path: Path) -> None:
        image = self.dock.image
        if image is None or image.project is None:
            self.dock.classes_panel.set_hint("Nothing is painted yet.")
            return
        project = image.project

        def make() -> Iterator[Any]:
            export_mask(
                path,
                project.load_scribbles(image.plane),
                pixel_size=image.source.pixel_size,
            )
            yield path

        self._load.start(
            make,
            on_event=lambda p: self.dock.classes_panel.set_hint(f"Saved {p}."),
            on_error=lambda text, _: self.dock.classes_panel.set_hint(text),
        )

    # ------------------------------------------------------------------- training

    @on_gui
    def _after_stroke(self) -> None:
        """Train if what is painted and extracted allows it; say what is missing."""
        image, panel = self.dock.image, self.dock.train_panel
        if image is None or not self.dock.settings.live:
            return
        if len(self.dock.session.painted_ids) < 2:
            panel.say("Paint a stroke of a second class to begin.")
        elif self.dock.settings.needs_backbone and not image.is_extracted:
            panel.say("Extract features (panel 2): training begins when they are done.")
        else:
            self.update()

    @on_gui
    def update(self) -> None:
        """Train on everything painted and show the result."""
        image, session = self.dock.image, self.dock.session
        if image is None:
            self.dock.train_panel.say("Choose an image first.", is_error=True)
            return
        view = self.dock.stage.view()
        wanted = self.dock.result_panel.layers["probability"]
        self._run(image, lambda: session.iter_live(image, view), wanted)

    def show_classifier(self) -> None:
        """Apply a classifier that was loaded to the image on show."""
        image, session = self.dock.image, self.dock.session
        if image is None or not session.is_trained:
            return
        view = self.dock.stage.view()
        wanted = self.dock.result_panel.layers["probability"]
        self._run(image, lambda: session.iter_show(image, view), wanted)

    def _run(self, image: OpenImage, make: Any, probability_of: int | None) -> None:
        self.dock.train_panel.say("Training ...")
        self._probability = probability_of
        self._forget_waiting()

        def failed(text: str, _: BaseException) -> None:
            self.dock.train_panel.say(text, is_error=True)

        def done() -> None:
            self._show_waiting()
            self.dock.train_panel.say("Up to date.")
            self._refresh_maps()

        self._live.start(
            lambda: iter_pieces(make(), image.shape, probability_of),
            on_event=self._show,
            on_error=failed,
            on_done=done,
        )

    def _refresh_maps(self) -> None:
        if self.dock.stage.current is not None:
            self.dock.stage.current.refresh()

    @on_gui
    def _show(self, event: Any) -> None:
        if isinstance(event, Piece):
            self._waiting.append(event)
            if not self._together.isActive():
                self._show_waiting()
        elif isinstance(event, Beat):
            self._show_waiting()
        elif isinstance(event, Trained):
            self.dock.train_panel.say(f"Trained in {event.seconds:.1f} s.")
            self.dock.files.trained()
        elif isinstance(event, Finished):
            self._finish(event.fractions)
        elif isinstance(event, Note):
            self.dock.train_panel.say(event.text)

    @on_gui
    def _show_waiting(self) -> None:
        """Show the pieces that came since the last time."""
        pieces, self._waiting = self._waiting, []
        for piece in pieces:
            self._show_piece(piece)
        if pieces:
            self._together.start()

    def _forget_waiting(self) -> None:
        """What was not shown yet is stale."""
        self._together.stop()
        self._waiting.clear()

    def _show_piece(self, piece: Piece) -> None:
        stage = self.dock.stage
        if stage.current is None:
            return
        if stage.current.labels is None:
            stage.current.result(self.dock.session.classes.entries)
            self._make_maps()
        stage.paint_labels(piece.window, piece.labels_yx)
        for name, block in piece.maps.items():
            stage.current.write_map(name, stage.plane, piece.window, block)
        if piece.total:
            self.dock.result_panel.show_progress(piece.done, piece.total)

    def _finish(self, fractions: dict[int, float]) -> None:
        image = self.dock.image
        assert image is not None
        self._fractions = fractions
        self.dock.classes_panel.set_fractions(fractions)
        mask = image.mask()
        n_all = image.shape[0] * image.shape[1]
        n_out = 0 if mask is None else int(np.count_nonzero(mask))
        size, n = image.source.pixel_size, n_all - n_out
        factor = None if size is None else _UM.get(size.unit)
        settings = self.dock.settings
        self.dock.result_panel.show_totals(
            Totals(
                n_pixels=n,
                area_um2=None
                if size is None or factor is None
                else n * size.y * size.x * factor**2,
                left_out=n_out / n_all,
                unsure=None
                if settings.unsure_below is None
                else fractions.get(settings.unsure_id, 0.0),
            )
        )
        self.dock.result_panel.set_can_save(True)

    @property
    def fractions(self) -> dict[int, float]:
        """Area fractions of the last complete result."""
        return self._fractions

    @on_gui
    def _settings_changed(self, before: DockSettings) -> None:
        after = self.dock.settings
        changed = any(getattr(before, n) != getattr(after, n) for n in _CLASSIFIER)
        if changed or (after.live and not before.live):
            self.result_is_stale()
        if self.dock.image is not None and self.dock.image.project is not None:
            self.save()

    def result_is_stale(self) -> None:
        """Something changed that the result depends on: train again if Live."""
        if self.dock.image is not None and self.dock.settings.live:
            self._debounce.start()

    # --------------------------------------------------------------------- layers

    @on_gui
    def _show_layers(self, _wish: dict[str, Any]) -> None:
        stage = self.dock.stage.current
        if stage is None:
            return
        wanted = self.dock.result_panel.layers
        if stage.labels is not None:
            stage.labels.visible = wanted["labels"]
        had = set(stage.maps)
        self._make_maps()
        is_other = wanted["probability"] not in (None, self._probability)
        if set(stage.maps) - had or is_other:
            self.show_classifier()  # nothing is trained again to fill a map

    def _make_maps(self) -> None:
        stage = self.dock.stage.current
        assert stage is not None
        wanted = self.dock.result_panel.layers
        colours = {"uncertainty": "magma", "probability": "viridis"}
        for name, colormap in colours.items():
            is_wanted = wanted[name] not in (False, None)
            if is_wanted:
                stage.map(name, colormap).visible = True
            elif name in stage.maps:
                stage.maps[name].visible = False

    @on_gui
    def toggle_overlay(self) -> None:
        """Show or hide the result."""
        stage = self.dock.stage.current
        if stage is not None and stage.labels is not None:
            is_shown = not stage.labels.visible
            stage.labels.visible = is_shown
            shown = {**self.dock.result_panel.layers, "labels": is_shown}
            self.dock.result_panel.set_layers(**shown)

    @on_gui
    def _lost(self, what: str) -> None:
        """A layer of ours was removed by hand."""
        if what == "scribbles":
            self.dock.classes_panel.set_hint(
                "The scribbles layer was removed. Its strokes are kept: pick a class "
                "to see them again."
            )
        elif what == "areas" and self.dock.image is not None:
            self.dock.images.areas_lost()

    # ----------------------------------------------------------- score, next place

    @on_gui
    def _begin_score(self) -> None:
        session, panel = self.dock.session, self.dock.train_panel

        def show(score: HoldoutScore) -> None:
            panel.show_score(score, session.classes.names)

        self._score.start(
            session.iter_score,
            on_event=show,
            on_error=lambda text, _: panel.say(text, is_error=True),
        )

    @on_gui
    def go_to_least_certain(self) -> None:
        """Move the view to the least certain neighbourhood that is not painted."""
        image, session, stage = self.dock.image, self.dock.session, self.dock.stage
        panel = self.dock.train_panel
        if image is None or not session.is_trained:
            panel.say("Train first: paint strokes of two classes.", is_error=True)
            return

        self._seek.start(
            lambda: session.iter_least_certain(image, _LEAST_CERTAIN_SIDE),
            on_event=lambda at: stage.go_to(*at),
            on_error=lambda text, _: panel.say(text, is_error=True),
            on_done=lambda: panel.say("This is where the classifier knows least."),
        )
