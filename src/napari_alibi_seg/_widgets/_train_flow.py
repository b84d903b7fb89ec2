"""Training: when it begins, what it says, the held-out score, the next place to paint.

Only this module runs the classifier. `_scribble_flow` tells it that something was
painted, and `_result_flow` shows what comes out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer

from napari_alibi_seg._segmenter import Beat, Finished, HoldoutScore, Trained, View
from napari_alibi_seg._widgets._hooks import on_gui
from napari_alibi_seg._widgets._jobs import Lane
from napari_alibi_seg._widgets._pieces import Piece, iter_pieces
from napari_alibi_seg._workspace import Applied, DockSettings, Note, OpenImage

if TYPE_CHECKING:
    from napari_alibi_seg._widgets._dock import Dock

__all__ = ["TrainFlow"]

_DEBOUNCE_MS = 80
_LEAST_CERTAIN_SIDE = 1024
_CLASSIFIER = (
    *("classifier", "n_trees", "resolution", "unsure_below", "unsure_id"),
    *("max_features", "seed"),
)


class TrainFlow(QObject):
    """See the module."""

    def __init__(self, dock: Dock) -> None:
        super().__init__(dock)
        self.dock = dock
        self._live = Lane("live", self)
        self._score = Lane("score", self)
        self._seek = Lane("seek", self)
        self.lanes = (self._live, self._score, self._seek)
        self._view: View | None = None  # of the last run
        self._is_training = False
        self._notes: tuple[str, ...] = ()  # of this run, said again at its end
        self._debounce = QTimer(self)
        self._debounce.setSingleShot(True)
        self._debounce.setInterval(_DEBOUNCE_MS)
        self._debounce.timeout.connect(self._update_if_ready)
        dock.settings_changed.connect(self._settings_changed)
        dock.features.extracted.connect(self._extracted)
        dock.scribbles.changed.connect(self.result_is_stale)
        dock.scribbles.changed.connect(self._age_score)
        dock.scribbles.shown.connect(self._update_if_ready)
        dock.stage.view_moved.connect(self._leave)
        dock.stage.view_rested.connect(self._follow)
        panel = dock.train_panel
        panel.update_wanted.connect(self.update)
        panel.score_wanted.connect(self._begin_score)
        panel.least_certain_wanted.connect(self.go_to_least_certain)
        self._live.busy_changed.connect(panel.set_busy)

    def close(self) -> None:
        """Stop."""
        self._debounce.stop()
        for lane in self.lanes:
            lane.close()

    def stop(self) -> None:
        """Stop what shows results of the image on show."""
        self._debounce.stop()
        self._view = None
        self.dock.result.forget_waiting()
        for lane in self.lanes:
            if lane.is_busy:
                lane.stop()
                self.dock.train_panel.say("")
                self.dock.train_panel.wait.say("")

    # ---------------------------------------------------------------- when to train

    @on_gui
    def _extracted(self) -> None:
        """Features are there: train, or apply what was loaded, if nothing does yet."""
        is_coming = self._debounce.isActive() or self.dock.scribbles.is_loading
        if self._live.is_busy or is_coming:
            return
        session = self.dock.session
        if len(session.painted_ids) >= 2:
            self._update_if_ready()
        elif session.is_trained and self.dock.settings.live:
            self.show_classifier()

    @on_gui
    def _settings_changed(self, before: DockSettings) -> None:
        after = self.dock.settings
        changed = any(getattr(before, n) != getattr(after, n) for n in _CLASSIFIER)
        if changed or (after.live and not before.live):
            self.result_is_stale()

    @on_gui
    def result_is_stale(self) -> None:
        """Something changed that the result depends on: train again if Live."""
        if self.dock.image is not None and self.dock.settings.live:
            self._debounce.start()

    @on_gui
    def _update_if_ready(self) -> None:
        """Train if what is painted and extracted allows it; say what is missing."""
        image, panel = self.dock.image, self.dock.train_panel
        if image is None or not self.dock.settings.live:
            return
        if len(self.dock.session.painted_ids) < 2:
            panel.say("Paint a stroke of a second class to begin.")
        elif self.dock.settings.needs_backbone and not (
            image.is_extracted or image.is_large
        ):
            panel.say("Extract features (panel 2): training begins when they are done.")
        else:
            self.update()

    # -------------------------------------------------------------------- live runs

    @on_gui
    def update(self) -> None:
        """Train on everything painted and show the result."""
        image, session = self.dock.image, self.dock.session
        if image is None:
            self.dock.train_panel.say("Choose an image first.", is_error=True)
            return
        view = self.dock.stage.view()
        self._run(image, lambda: session.iter_live(image, view), view)

    def show_classifier(self) -> None:
        """Apply a classifier that was loaded to the image on show."""
        image, session = self.dock.image, self.dock.session
        if image is None or not session.is_trained:
            return
        view = self.dock.stage.view()
        self._run(image, lambda: session.iter_show(image, view), view)

    @on_gui
    def _leave(self) -> None:
        """Segment no more of what was seen: it would only make the camera slow."""
        if self._live.is_busy and not self._is_training:
            self._live.stop()
            self.dock.result.forget_waiting()
            self._view = None

    @on_gui
    def _follow(self) -> None:
        """Segment the part of the image that the camera has come to."""
        view = self.dock.stage.view()
        if view == self._view or not self.dock.settings.live:
            return
        if self._live.is_busy and self._is_training:
            return  # it ends with what is seen then
        if self.dock.image is not None:
            self.show_classifier()

    def _follow_if_away(self) -> None:
        """Begin anew where the view moved while the classifier was being trained."""
        stage = self.dock.stage
        if stage.shows_parts and stage.view() != self._view:
            stage.moved()

    def _ended(self) -> None:
        self.dock.train_panel.say(" ".join(("Up to date.", *self._notes)))
        if self.dock.stage.shows_parts:
            self._follow()

    def _run(self, image: OpenImage, make: Any, view: View | None = None) -> None:
        panel = self.dock.train_panel
        probability_of = self.dock.result_panel.layers["probability"]
        panel.say("Training ...")
        self._notes = ()
        self._view, self._is_training = view, True
        self.dock.result.begin(probability_of, view)
        is_enlarged = not self.dock.stage.shows_parts
        self._live.start(
            lambda: iter_pieces(
                make(), image.shape, probability_of, is_enlarged=is_enlarged
            ),
            on_event=self._show,
            on_error=lambda text, _: panel.say(text, is_error=True),
            on_done=self._ended,
        )

    @on_gui
    def _show(self, event: Any) -> None:
        if isinstance(event, (Trained, Applied)):
            self._is_training = False
            self._follow_if_away()
        if isinstance(event, (Piece, Beat, Finished)):
            self.dock.result.show(event)
        elif isinstance(event, Trained):
            self.dock.train_panel.say(f"Trained in {event.seconds:.1f} s.")
            self.dock.files.trained()
        elif isinstance(event, Note):
            self._notes += (event.text,)
            self.dock.train_panel.say(event.text)

    # ----------------------------------------------------------- score, next place

    @on_gui
    def _age_score(self) -> None:
        self.dock.train_panel.age_score()

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
        view = stage.view()
        self._seek.start(
            lambda: session.iter_least_certain(image, view, _LEAST_CERTAIN_SIDE),
            on_event=lambda at: stage.go_to(*at),
            on_error=lambda text, _: panel.say(text, is_error=True),
            on_done=lambda: panel.say("This is where the classifier knows least."),
        )
