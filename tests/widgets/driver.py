"""Drives a real viewer with the dock: by mouse and keys, as a user does."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from qtpy.QtCore import QEvent, QEventLoop, QPointF, Qt, QTimer
from qtpy.QtGui import QMouseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_alibi_seg._base import PixelSize
from napari_alibi_seg._widgets import Dock
from napari_alibi_seg.data import synthesize, write_image

LEFT = Qt.MouseButton.LeftButton
WAIT_S = 150.0  # on a computer that does other things too
PAUSE_S = 0.01
FEW = 12  # trees

# What napari, vispy and Qt's plugins warn of; nothing of ours.
QUIET = [
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore::PendingDeprecationWarning",
    "ignore::ResourceWarning",
    "ignore:Conversion from CIE-LAB:UserWarning",
]


def write_sample(path: Path, kind="spinodal", shape=(128, 160), seed=1, **more) -> Path:
    """Write a micrograph to a file; return the path."""
    made = synthesize(kind, shape, seed=seed, **more)
    write_image(path, made.image, axes="YX", pixel_size=PixelSize(0.05, 0.05, "um"))
    return path


def spin(seconds: float) -> None:
    """Let Qt work for a while, not at all for 0 seconds."""
    if seconds <= 0:
        return
    loop = QEventLoop()
    QTimer.singleShot(round(1000 * seconds), loop.quit)
    loop.exec()


def wait_until(condition, what: str = "", seconds: float = WAIT_S) -> None:
    """Let Qt work until something holds.

    Sleeps in Qt's own loop: polling would keep threads that work from the GIL.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s in vain: {what or condition}")
        spin(PAUSE_S)


class Driver:
    """A viewer, a dock in it, and hands."""

    def __init__(self, viewer) -> None:
        self.viewer = viewer
        self.dock: Dock | None = None
        viewer.window._qt_window.resize(1300, 900)

    def add_dock(self) -> Dock:
        self.dock = Dock(self.viewer)
        self.dock.change_settings({"n_trees": FEW})
        self.viewer.window.add_dock_widget(self.dock, name="ALiBi", area="right")
        spin(0.05)
        return self.dock

    def open(self, path: Path, **more):
        """Open a file as napari does, and wait until the dock knows the image."""
        (layer,) = self.viewer.open(str(path), layer_type="image", **more)
        self.wait_image()
        return layer

    def wait_image(self) -> None:
        wait_until(lambda: self.dock.image is not None, "the image")
        spin(0.05)

    def settled(self, seconds: float = WAIT_S) -> None:
        """Wait until strokes are saved and the result is complete."""
        train = self.dock.train

        def is_quiet() -> bool:
            lanes = [x for flow in self.dock.flows for x in flow.lanes]
            return not train._debounce.isActive() and not any(x.is_busy for x in lanes)

        spin(0.02)
        wait_until(is_quiet, "all work done", seconds)
        spin(0.02)
        wait_until(is_quiet, "all work done", seconds)

    # -------------------------------------------------------------------- the hand

    @property
    def native(self):
        return self.viewer.window._qt_viewer.canvas.native

    def at(self, row: float, col: float) -> QPointF:
        """Return where on the canvas a pixel of the shown image is."""
        layer = self.dock.stage.current.image
        world = np.array(layer.data_to_world((*self.dock.stage.plane, row, col)))[-2:]
        camera = self.viewer.camera
        size = np.array((self.native.height(), self.native.width())) / 2
        y, x = (world - np.array(camera.center[-2:])) * camera.zoom + size
        return QPointF(float(x), float(y))

    def _send(self, kind, pos: QPointF, button, buttons) -> None:
        away = QPointF(self.native.mapToGlobal(pos.toPoint()))
        none = Qt.KeyboardModifier.NoModifier
        event = QMouseEvent(kind, pos, away, button, buttons, none)
        QApplication.sendEvent(self.native, event)
        QApplication.processEvents()

    def stroke(self, *points: tuple[float, float], pause: float = 0) -> None:
        """Press at the first point, drag over the others, let go at the last.

        `pause` seconds are spent before each move.
        """
        no = Qt.MouseButton.NoButton
        places = [self.at(*p) for p in points]
        self._send(QEvent.Type.MouseMove, places[0], no, no)
        self._send(QEvent.Type.MouseButtonPress, places[0], LEFT, LEFT)
        for place in places[1:]:
            spin(pause)
            self._send(QEvent.Type.MouseMove, place, no, LEFT)
        self._send(QEvent.Type.MouseButtonRelease, places[-1], LEFT, no)

    def click(self, row: float, col: float) -> None:
        self.stroke((row, col))

    def key(self, key, modifier=Qt.KeyboardModifier.NoModifier) -> None:
        """Press a key while the canvas has the focus."""
        self.native.setFocus()
        QTest.keyClick(self.native, key, modifier)
        QApplication.processEvents()

    # ----------------------------------------------------------------------- state

    def classes(self, *ids: int) -> None:
        for i in ids:
            self.dock.session.classes.add(class_id=i)

    def paint_two(self) -> None:
        """Two classes, a stroke of each, painted by hand."""
        self.classes(1, 2)
        self.key("1")
        self.stroke((20, 10), (20, 60), (40, 60))
        self.key("2")
        self.stroke((90, 20), (90, 80))

    @property
    def scribbles(self):
        return self.dock.stage.current.scribbles

    @property
    def painted(self):
        return np.array(self.dock.stage.painted())

    @property
    def labels(self):
        return self.dock.stage.current.labels

    def table(self) -> dict[int, tuple[int, float | None]]:
        """Return what the table of classes shows: painted pixels and fractions."""
        rows = self.dock.classes_panel._rows
        return {
            e.id: (rows.painted(e.id), rows._fractions.get(e.id)) for e in rows.entries
        }
