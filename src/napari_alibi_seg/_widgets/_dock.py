"""The dock: panels in the order of the work, and what connects them.

Only this module builds the window. What happens is in the flows: `_image_flow` (which
image, its project, its areas), `_feature_flow` (weights, extraction), `_scribble_flow`
(what is painted), `_train_flow` (live runs, scores), `_result_flow` (what is shown of
them), `_look_flow` (views of features), `_position_flow` (how much position is in
them), `_file_flow` (classifiers, exports). Each flow owns its lanes and nothing else of
the others'. `_large_flow` opens what napari cannot.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs
from napari.utils.notifications import show_error
from qtpy.QtCore import QEvent, QObject, Qt, QTimer, Signal
from qtpy.QtWidgets import QFrame, QScrollArea, QTabWidget, QVBoxLayout, QWidget

from napari_alibi_seg._base import AlibiSegError
from napari_alibi_seg._widgets import _commands
from napari_alibi_seg._widgets._batch_panel import BatchPanel
from napari_alibi_seg._widgets._classes_panel import ClassesPanel
from napari_alibi_seg._widgets._classifier_panel import ClassifierPanel
from napari_alibi_seg._widgets._feature_flow import FeatureFlow
from napari_alibi_seg._widgets._features_panel import FeaturesPanel
from napari_alibi_seg._widgets._file_flow import FileFlow
from napari_alibi_seg._widgets._hooks import on_gui
from napari_alibi_seg._widgets._image_flow import ImageFlow
from napari_alibi_seg._widgets._image_panel import ImagePanel
from napari_alibi_seg._widgets._large_flow import LargeFlow
from napari_alibi_seg._widgets._loading import load_tables
from napari_alibi_seg._widgets._look_flow import LookFlow
from napari_alibi_seg._widgets._look_panel import LookPanel
from napari_alibi_seg._widgets._offer import Offer
from napari_alibi_seg._widgets._parts import Section
from napari_alibi_seg._widgets._position_flow import PositionFlow
from napari_alibi_seg._widgets._position_panel import PositionPanel
from napari_alibi_seg._widgets._result_flow import ResultFlow
from napari_alibi_seg._widgets._result_panel import ResultPanel
from napari_alibi_seg._widgets._scribble_flow import ScribbleFlow
from napari_alibi_seg._widgets._stage import Stage
from napari_alibi_seg._widgets._train_flow import TrainFlow
from napari_alibi_seg._widgets._train_panel import TrainPanel
from napari_alibi_seg._workspace import DockSettings, OpenImage, Session

if TYPE_CHECKING:
    import napari.viewer

__all__ = ["Dock", "open_viewer"]

_CACHE_VARIABLE = "ALIBI_SEG_CACHE"


def _store_folder() -> Path:
    root = os.environ.get(_CACHE_VARIABLE)
    return Path(root or platformdirs.user_cache_dir("napari-alibi-seg")) / "stores"


class Dock(QWidget):
    """ALiBi Segmentation: paint a few strokes, and the segmentation follows.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer
        The window it lives in; napari hands it over.
    store : Path, optional
        Where features are kept. Default: the user's cache.

    Attributes
    ----------
    image_ready : Signal(object)
        An `OpenImage` was identified and its project, if any, is open.
    settings_changed : Signal(object)
        `DockSettings` that differ from those before.
    """

    image_ready = Signal(object)
    settings_changed = Signal(object)

    def __init__(
        self, napari_viewer: napari.viewer.Viewer, *, store: Path | None = None
    ) -> None:
        super().__init__()
        load_tables()
        self.viewer = napari_viewer
        self.session = Session(_store_folder() if store is None else store)
        self.stage = Stage(napari_viewer, self)
        self.offer = Offer()
        self.image_panel = ImagePanel()
        self.features_panel = FeaturesPanel()
        self.look_panel = LookPanel()
        self.position_panel = PositionPanel()
        self.classes_panel = ClassesPanel(self.session.classes)
        self.train_panel = TrainPanel()
        self.result_panel = ResultPanel()
        self.classifier_panel = ClassifierPanel()
        self.batch_panel = BatchPanel()
        self._is_closed = False
        # a window may delete all in it before the dock hears that it closes
        self.destroyed.connect(lambda: self._lose())
        self._build()
        self.images = ImageFlow(self)
        self.features = FeatureFlow(self)
        self.result = ResultFlow(self)
        self.scribbles = ScribbleFlow(self)
        self.train = TrainFlow(self)
        self.look = LookFlow(self)
        self.position = PositionFlow(self)
        self.files = FileFlow(self)
        self.large = LargeFlow(self)
        self.flows = (
            *(self.images, self.features, self.result, self.scribbles),
            *(self.train, self.look, self.position, self.files, self.large),
        )
        for panel in (self.image_panel, self.features_panel, self.train_panel):
            panel.settings_wanted.connect(self.change_settings)
        self.show_settings()
        self._bind_keys()
        # a dock that is torn down with its window gets no close event of its own
        window = getattr(napari_viewer.window, "_qt_window", None)
        if window is not None:
            window.installEventFilter(self)
        _commands._open_docks.add(self)
        self.images.refresh()

    # ---------------------------------------------------------------------- layout

    def _build(self) -> None:
        work = QWidget()
        column = QVBoxLayout(work)
        column.setContentsMargins(2, 2, 2, 2)
        column.setSpacing(6)
        column.addWidget(self.offer)
        self.sections = {
            title: Section(title, panel, is_open=is_open)
            for title, panel, is_open in (
                ("1  Image", self.image_panel, True),
                ("2  Features", self.features_panel, True),
                ("3  Look", self.look_panel, False),
                ("Position in the features", self.position_panel, False),
                ("4  Classes and scribbles", self.classes_panel, True),
                ("5  Train", self.train_panel, True),
                ("6  Result", self.result_panel, True),
                ("7  Classifier", self.classifier_panel, False),
            )
        }
        for section in self.sections.values():
            column.addWidget(section)
        column.addStretch(1)
        self.tabs = QTabWidget()
        self.tabs.addTab(_scrolled(work), "Segment")
        self.tabs.addTab(_scrolled(self.batch_panel), "Batch")
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(self.tabs)
        self.setMinimumWidth(300)

    def _bind_keys(self) -> None:
        """1 to 9 pick classes, T toggles the overlay, wherever the focus is."""
        for n in range(1, 10):
            self.stage.keys.bind(str(n), partial(self.scribbles.pick_nth, n))
        self.stage.keys.bind("t", self.toggle_overlay)

    # -------------------------------------------------------------------- settings

    @property
    def settings(self) -> DockSettings:
        """As chosen now."""
        return self.session.settings

    @on_gui
    def change_settings(self, changes: dict[str, Any]) -> None:
        """Take over what a panel wants."""
        before = self.session.settings
        self.session.settings = before.replace(**changes)
        if self.session.settings != before:
            self.show_settings()
            self.settings_changed.emit(before)

    def set_settings(self, settings: DockSettings) -> None:
        """Fill the panels with settings from a project or a classifier."""
        self.change_settings(settings.model_dump())

    def show_settings(self) -> None:
        """Let the panels show what is chosen; tells nobody."""
        for panel in (self.image_panel, self.features_panel, self.train_panel):
            panel.apply_settings(self.session.settings)

    @property
    def image(self) -> OpenImage | None:
        """The image that is shown, once it is open."""
        return self.images.current

    # -------------------------------------------------------------------- commands

    def extract(self) -> None:
        """Compute the features of the image."""
        self.features.extract()

    def update_once(self) -> None:
        """Train and segment once."""
        self.train.update()

    def go_to_least_certain(self) -> None:
        """Move the view to where the next stroke belongs."""
        self.train.go_to_least_certain()

    def toggle_overlay(self) -> None:
        """Show or hide the result."""
        self.result.toggle_overlay()

    def save_classifier(self) -> None:
        """Ask for a file and save the classifier."""
        self.classifier_panel.ask_save()

    def ask_large(self) -> None:
        """Ask for images and open them, however large."""
        self.large.ask()

    # ------------------------------------------------------------------------- end

    @property
    def is_idle(self) -> bool:
        """Whether no thread of ours runs."""
        lanes = [lane for flow in self.flows for lane in flow.lanes]
        return all(lane.is_idle for lane in [*lanes, self.batch_panel.lane])

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """End with the window."""
        if event is not None and event.type() == QEvent.Type.Close:
            # napari may still ask whether to close, and stay open
            QTimer.singleShot(0, self._end_if_window_is_gone)
        return False

    def _end_if_window_is_gone(self) -> None:
        with suppress(RuntimeError):
            window = getattr(self.viewer.window, "_qt_window", None)
            if window is not None and window.isVisible():
                return
        self.end()

    def event(self, event: QEvent | None) -> bool:
        """End when napari takes the dock out of the window: it does not close it."""
        if event is not None and event.type() == QEvent.Type.ParentChange:
            QTimer.singleShot(0, self._end_if_taken_out)
        return bool(super().event(event))

    def _end_if_taken_out(self) -> None:
        if self.parentWidget() is None and not self.isVisible():
            self.end()
            # or Python would do it at some time, on any thread
            self.deleteLater()

    def closeEvent(self, event: Any) -> None:
        """End with the dock."""
        self.end()
        super().closeEvent(event)

    @on_gui
    def end(self) -> None:
        """Stop all work, save, and let go of the viewer."""
        if self._is_closed:
            return
        self._is_closed = True
        _commands._open_docks.discard(self)
        for flow in self.flows:
            flow.close()
        self.batch_panel.stop()
        self.stage.close()
        self._close_session()

    def _lose(self) -> None:
        """Keep what was painted when Qt deletes the dock before it could end."""
        if not self._is_closed:
            self._is_closed = True
            self._close_session()

    def _close_session(self) -> None:
        try:
            self.session.close()
        except AlibiSegError as err:
            show_error(str(err))


def _scrolled(widget: QWidget) -> QScrollArea:
    area = QScrollArea()
    area.setWidgetResizable(True)
    area.setFrameShape(QFrame.Shape.NoFrame)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    area.setWidget(widget)
    return area


def open_viewer(images: Sequence[Path], *, classifier: Path | None = None) -> int:
    """Open napari with images and the dock, and wait until it is closed.

    Parameters
    ----------
    images : sequence of Path
        Opened as layers: large ones by the dock, others by napari's readers.
    classifier : Path, optional
        Loaded into the dock.
    """
    import napari

    viewer = napari.Viewer()
    dock = Dock(viewer)
    viewer.window.add_dock_widget(dock, name="ALiBi Segmentation", area="right")
    for path in images:
        dock.large.open(path)
    if classifier is not None:
        dock.files.load(classifier)
    napari.run()
    return 0
