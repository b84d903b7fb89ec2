"""The small controls that panels share: choices, numbers, bars for long waits."""

from __future__ import annotations

import pytest

pytest.importorskip("napari")
from qtpy.QtCore import QEvent, QObject, QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import QApplication, QPushButton, QVBoxLayout, QWidget
from widgets.hands import heard, pick, shown

from napari_alibi_seg._widgets._controls import Choice, Number, Wait, time_text

pytestmark = pytest.mark.gui


def wheel(widget, delta=-120):
    at = QPointF(10, 10)
    where = QPointF(widget.mapToGlobal(QPoint(10, 10)))
    no = Qt.MouseButton.NoButton
    keys, phase = Qt.KeyboardModifier.NoModifier, Qt.ScrollPhase.NoScrollPhase
    event = QWheelEvent(
        at, where, QPoint(0, 0), QPoint(0, delta), no, keys, phase, False
    )
    QApplication.sendEvent(widget, event)


class TestChoice:
    def test_only_the_user_is_told_of(self, qtbot):
        choice = shown(qtbot, Choice("one", [("a", "Ah"), ("b", "Be"), (None, "None")]))
        said = heard(choice.picked)
        choice.choose("b")
        choice.fill([("a", "Ah"), ("b", "Be"), (None, "None")], "a")
        assert said == []
        pick(qtbot, choice, "Ah")  # the same again
        choice.setFocus()
        qtbot.keyClick(choice, Qt.Key.Key_Down)
        qtbot.keyClick(choice, Qt.Key.Key_Down)
        assert said == ["b", None]

    def test_unknown_value(self, qtbot):
        choice = shown(qtbot, Choice("one", [("a", "Ah")]))
        choice.choose("z")
        assert choice.chosen is None
        choice.fill([("b", "Be"), ("c", "Ce")], "z")
        assert choice.chosen == "b"

    def test_elided_text_is_in_the_tooltip(self, qtbot):
        choice = shown(qtbot, Choice("Which one", [(1, "a long text " * 10)]))
        choice.resize(100, 24)
        assert choice.minimumSizeHint().width() <= 100
        assert choice.toolTip() == "a long text " * 10 + "\nWhich one"
        assert not choice.grab().isNull()

    def test_wheel_scrolls_the_dock_not_the_value(self, qtbot):
        host = shown(qtbot, QWidget())
        other = QPushButton("elsewhere")
        choice, number = Choice("one", [("a", "Ah"), ("b", "Be")]), Number("n", 1, 9)
        layout = QVBoxLayout(host)
        for widget in (other, choice, number):
            layout.addWidget(widget)
        host.activateWindow()
        other.setFocus()
        qtbot.waitUntil(other.hasFocus, timeout=60_000)
        wheel(choice)
        wheel(number, 120)
        assert (choice.chosen, number.value()) == ("a", 1)
        choice.setFocus()
        qtbot.waitUntil(choice.hasFocus, timeout=60_000)
        wheel(choice)
        number.setFocus()
        wheel(number, 120)
        assert (choice.chosen, number.value()) == ("b", 2)


def test_number_is_told_when_typed_to_its_end(qtbot):
    number = shown(qtbot, Number("n", 0, 4096, lowest_text="All"))
    said = heard(number.picked)
    number.show_value(12)
    number.setFocus()
    number.selectAll()
    qtbot.keyClicks(number, "345")
    assert said == []
    qtbot.keyClick(number, Qt.Key.Key_Return)
    assert said == [345]
    number.show_value(0)
    assert number.text() == "All"


class TestWait:
    @pytest.mark.parametrize(
        ("args", "text", "maximum"),
        [
            ((3, 8), "3 of 8", 8),
            ((3, 8, 130), "3 of 8, 2 min left", 8),
            ((0, 0, None), "", 1),
        ],
        ids=["no time yet", "time left", "end not known"],
    )
    def test_progress(self, qtbot, args, text, maximum):
        wait = shown(qtbot, Wait())
        wait.show_progress(*args, text="Tiles")
        assert (wait.bar.format(), wait.bar.maximum()) == (text, maximum)
        assert (wait.note.text(), wait.is_running) == ("Tiles", True)

    @pytest.mark.parametrize("total", [8, 0], ids=["known end", "no end"])
    def test_it_is_painted_once_and_later(self, qtbot, total):
        wait = shown(qtbot, Wait())
        wait.show_progress(1, 8)
        qtbot.wait(50)
        painted = []

        class Eye(QObject):
            def eventFilter(self, _watched, event):
                painted.append(event.type() == QEvent.Type.Paint)
                return False

        eye = Eye()
        wait.bar.installEventFilter(eye)
        wait.show_progress(2, total)
        assert not any(painted)
        qtbot.wait(200)
        assert sum(painted) == 1

    def test_nothing_to_say_hides_it(self, qtbot):
        wait = shown(qtbot, Wait())
        wait.show_progress(1, 2)
        wait.say("")
        assert wait.isHidden()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (59.6, "1 min"), (5369, "89 min"), (5400, "1.5 h")],
)
def test_time_text(seconds, text):
    assert time_text(seconds) == text
