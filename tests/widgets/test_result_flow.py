"""When pieces of a result are drawn: the first at once, those close behind together."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from unittest.mock import Mock, create_autospec

import numpy as np
import pytest

pytest.importorskip("napari")
from napari.components import ViewerModel
from qtpy.QtCore import QObject, QTimer, Signal
from widgets.driver import QUIET, spin, wait_until, write_sample

from napari_alibi_seg._base import PixelSize, Window
from napari_alibi_seg._segmenter import Beat, Finished
from napari_alibi_seg._widgets._classes_panel import ClassesPanel
from napari_alibi_seg._widgets._pieces import Piece
from napari_alibi_seg._widgets._result_flow import _TOGETHER_MS, ResultFlow
from napari_alibi_seg._widgets._result_panel import ResultPanel
from napari_alibi_seg._widgets._stage import Stage
from napari_alibi_seg._widgets._train_flow import TrainFlow
from napari_alibi_seg._widgets._train_panel import TrainPanel
from napari_alibi_seg._workspace import ClassTable, DockSettings

pytestmark = [pytest.mark.gui, *(pytest.mark.filterwarnings(q) for q in QUIET)]

SHAPE = (128, 160)
N = 8  # strips
ROWS = SHAPE[0] // N
ALL = [*range(N)]
LONG_MS = 60_000  # nothing is shown by itself, however slow the computer
VISIBLE_IS_DONE = Beat("result", 1, 1)


def strip(n: int, class_id: int = 1, **maps) -> Piece:
    """Return the n-th of the strips that cover the image."""
    window = Window(n * ROWS, (n + 1) * ROWS, 0, SHAPE[1])
    block = np.full(window.shape, class_id, np.uint8)
    return Piece(window, block, maps, n + 1, N)


class Canvas:
    """What the layer of the result is told, and in which turn of Qt's loop."""

    def __init__(self, dock) -> None:
        stage = dock.stage.current
        self.labels = stage.result(dock.session.classes.entries)
        self.told: list[int] = []  # strips, in their order
        self.turns: list[int] = []
        self.n_drawn = 0
        self._turn = 0
        self._clock = QTimer(dock)
        self._clock.setInterval(0)
        self._clock.timeout.connect(self._tick)
        self._clock.start()
        self.labels.events.labels_update.connect(self._hear)

    def watch(self, viewer) -> None:
        """Count from now on how often the whole canvas is drawn."""
        canvas = viewer.window._qt_viewer.canvas._scene_canvas
        canvas.events.draw.connect(self._drawn)

    def _tick(self) -> None:
        self._turn += 1

    def _hear(self, event) -> None:
        self.told.append(event.offset[0] // ROWS)
        self.turns.append(self._turn)

    def _drawn(self, _event) -> None:
        self.n_drawn += 1

    @property
    def strips(self) -> list[int]:
        """Return which strips hold a result."""
        return [n for n in ALL if self.labels.data[n * ROWS].all()]


class Bench(QObject):
    """A dock without a window, of what training and showing need."""

    image_ready = Signal(object)
    settings_changed = Signal(object)
    extracted = Signal()
    changed = Signal()
    shown = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.viewer = ViewerModel()
        self.stage = Stage(self.viewer, self)
        self.stage.choose(self.viewer.add_image(np.zeros(SHAPE, np.uint8)))
        self.session = SimpleNamespace(classes=ClassTable())
        self.settings = DockSettings()
        self.image = SimpleNamespace(
            shape=SHAPE,
            mask=lambda: None,
            source=SimpleNamespace(pixel_size=PixelSize(0.5, 0.5, "nm")),
        )
        self.features = self.scribbles = self
        self.result_panel, self.train_panel = ResultPanel(), TrainPanel()
        self.classes_panel = create_autospec(ClassesPanel, instance=True)
        self.files = Mock()
        self.result = ResultFlow(self)
        self.train = TrainFlow(self)

    @property
    def is_idle(self) -> bool:
        return all(lane.is_idle for lane in self.train.lanes)


@pytest.fixture
def dock(qtbot):
    made = Bench()
    qtbot.addWidget(made.result_panel)
    qtbot.addWidget(made.train_panel)
    yield made
    made.train.close()
    made.result.close()
    made.stage.close()
    wait_until(lambda: made.is_idle, "threads to end")


@pytest.fixture
def canvas(dock):
    found = Canvas(dock)
    dock.result.begin(None)
    return found


def test_the_first_piece_is_shown_at_once_and_those_behind_it_together(
    dock, canvas
) -> None:
    dock.result._together.setInterval(LONG_MS)
    dock.result.show(strip(0))
    assert canvas.told == [0]
    assert canvas.strips == [0]
    for n in ALL[1:]:
        dock.result.show(strip(n))
        spin(0.005)
    assert canvas.told == [0]
    assert canvas.strips == [0]
    dock.result._together.setInterval(0)
    wait_until(lambda: len(canvas.told) == N, "the rest")
    assert canvas.told == ALL
    assert len(set(canvas.turns[1:])) == 1
    assert canvas.strips == ALL


def test_the_canvas_is_drawn_once_for_all_that_are_shown_together(
    driver, tmp_path
) -> None:
    driver.open(write_sample(tmp_path / "s.png", shape=SHAPE))
    driver.settled()
    result, canvas = driver.dock.result, Canvas(driver.dock)
    result._together.setInterval(LONG_MS)
    spin(0.1)
    canvas.watch(driver.viewer)
    for n in ALL:
        result.show(strip(n))
        spin(0.005)  # a canvas that was told is drawn now
    assert canvas.told == [0]
    result._together.setInterval(0)
    wait_until(lambda: len(canvas.told) == N, "the rest")
    spin(0.1)
    assert 1 <= canvas.n_drawn <= 3, "drawn for the first and for the rest"


def test_pieces_that_come_seldom_are_each_shown_at_once(dock, canvas) -> None:
    for n in range(3):
        dock.result.show(strip(n))
        assert canvas.told == ALL[: n + 1]
        spin(1.5 * _TOGETHER_MS / 1000)


def test_a_stream_of_pieces_is_shown_every_now_and_then(dock, canvas) -> None:
    """Not only when it ends: what comes later waits no longer than what came first."""
    started = time.monotonic()
    for n in [*ALL, *ALL, *ALL]:
        dock.result.show(strip(n))
        spin(_TOGETHER_MS / 1000 / N)
    took_ms = (time.monotonic() - started) * 1000
    assert 3 <= len(set(canvas.turns)) <= took_ms / _TOGETHER_MS + 1
    assert canvas.strips == ALL


@pytest.mark.parametrize("how", ["another run", "stopped"])
def test_what_waited_of_an_older_run_is_dropped(dock, canvas, how) -> None:
    dock.result.show(strip(0))
    dock.result.show(strip(1))
    if how == "another run":
        dock.result.begin(None)
    else:
        dock.train.stop()
    dock.result.show(strip(5))  # what is newer waits for nothing
    assert canvas.told == [0, 5]
    spin(2 * _TOGETHER_MS / 1000)
    assert canvas.told == [0, 5]
    assert canvas.strips == [0, 5]


def test_the_newer_of_two_runs_is_never_overwritten(dock, canvas) -> None:
    """Through the lane: the older run stands still with a piece on its way."""
    dock.result._together.setInterval(LONG_MS)
    may_go = threading.Event()

    def older():
        yield strip(0, 1)
        yield strip(1, 1)
        may_go.wait(10)
        yield strip(2, 1)

    dock.train._run(dock.image, older)
    wait_until(lambda: dock.result._waiting, "a piece that waits")
    newer = [strip(n, 2) for n in ALL]
    dock.train._run(dock.image, lambda: iter([*newer, Finished({2: 1.0})]))
    may_go.set()
    wait_until(lambda: dock.is_idle, "both runs")
    spin(2 * _TOGETHER_MS / 1000)
    assert canvas.told == [0, *ALL]
    assert (canvas.labels.data == 2).all()


def test_the_end_of_the_visible_area_waits_for_nothing(dock, canvas) -> None:
    for n in range(4):
        dock.result.show(strip(n))
    dock.result.show(VISIBLE_IS_DONE)
    assert canvas.told == [0, 1, 2, 3]
    assert canvas.strips == [0, 1, 2, 3]


def test_all_is_shown_before_it_is_said_to_be(dock, canvas, monkeypatch) -> None:
    dock.result._together.setInterval(LONG_MS)  # only the end can show the rest
    panel, at_word = dock.train_panel, {}

    def say(text, *, is_error=False):
        at_word[text] = (canvas.strips, dock.result.fractions, is_error)

    monkeypatch.setattr(panel, "say", say)
    events = [*map(strip, ALL), Finished({1: 1.0})]
    dock.train._run(dock.image, lambda: iter(events))
    wait_until(lambda: dock.is_idle and "Up to date." in at_word, "the end")
    assert at_word["Training ..."] == ([], {}, False)
    assert at_word["Up to date."] == (ALL, {1: 1.0}, False)


def test_maps_are_on_the_screen_at_the_end(dock, canvas) -> None:
    dock.result_panel.set_layers(labels=True, uncertainty=True, probability=None)
    dock.result._make_maps()
    layer = dock.stage.current.maps["uncertainty"]
    dock.stage._refresher.stop()
    spin(0.05)
    sent = []
    layer.events.set_data.connect(lambda _event: sent.append(layer.data.mean()))
    half = np.full((ROWS, SHAPE[1]), 0.5, np.float32)
    for n in ALL:
        dock.result.show(strip(n, uncertainty=half))
    assert not sent  # sending it takes long, and is the timer's
    dock.result.show(Finished({1: 1.0}))
    assert sent == [0.5]


def test_totals_leave_out_what_is_not_segmented(dock, canvas, monkeypatch) -> None:
    out = np.zeros(SHAPE, bool)
    out[: SHAPE[0] // 2] = True
    dock.image.mask = lambda: out
    dock.settings = dock.settings.replace(unsure_below=0.6, unsure_id=9)
    said = []
    monkeypatch.setattr(dock.result_panel, "show_totals", said.append)
    dock.result.show(Finished({1: 0.75, 9: 0.25}))
    (totals,) = said
    n = SHAPE[0] * SHAPE[1] // 2
    assert (totals.n_pixels, totals.left_out, totals.unsure) == (n, 0.5, 0.25)
    assert totals.area_um2 == pytest.approx(n * 0.0005**2)
    dock.classes_panel.set_fractions.assert_called_once_with({1: 0.75, 9: 0.25})
