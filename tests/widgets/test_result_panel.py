"""The result panel and the small controls that panels share."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("napari")
from qtpy.QtCore import QEvent, QObject, QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import QApplication, QFileDialog, QPushButton, QVBoxLayout, QWidget

from napari_alibi_seg._widgets._result_panel import (
    Choice,
    Number,
    ResultPanel,
    Totals,
    Wait,
    area_text,
    ask_save,
    time_text,
)

pytestmark = pytest.mark.gui
LEFT = Qt.MouseButton.LeftButton


def heard(signal):
    """Collect what a signal says."""
    said = []
    signal.connect(lambda *args: said.append(args[0] if len(args) == 1 else args))
    return said


def shown(qtbot, widget):
    qtbot.addWidget(widget)
    widget.resize(320, 400)
    with qtbot.waitExposed(widget):
        widget.show()
    return widget


def pick(qtbot, choice, text):
    """Pick by mouse: open the list and click on a row."""
    # a click that comes with the opening is taken for its end
    before = QApplication.doubleClickInterval()
    QApplication.setDoubleClickInterval(20)
    qtbot.mouseClick(choice, LEFT)
    QApplication.setDoubleClickInterval(before)
    view = choice.view()
    qtbot.waitUntil(view.isVisible)
    index = choice.model().index(choice.findText(text), choice.modelColumn())
    assert index.isValid(), text
    qtbot.wait(40)
    qtbot.mouseClick(view.viewport(), LEFT, pos=view.visualRect(index).center())


@pytest.fixture
def panel(qtbot):
    answers = {}
    asked = []

    def ask(parent, title, suggestion, kinds):
        asked.append((title, suggestion, kinds))
        return answers.get("path")

    made = shown(qtbot, ResultPanel(ask=ask))
    made.answers, made.asked = answers, asked
    return made


def click_box(qtbot, box):
    qtbot.mouseClick(box, LEFT, pos=QPoint(8, box.height() // 2))


def wheel(widget, delta=-120):
    at = QPointF(10, 10)
    where = QPointF(widget.mapToGlobal(QPoint(10, 10)))
    no = Qt.MouseButton.NoButton
    keys, phase = Qt.KeyboardModifier.NoModifier, Qt.ScrollPhase.NoScrollPhase
    event = QWheelEvent(
        at, where, QPoint(0, 0), QPoint(0, delta), no, keys, phase, False
    )
    QApplication.sendEvent(widget, event)


class TestResultPanel:
    def test_empty_says_what_to_do(self, panel):
        assert panel.hint.text().startswith("Paint a stroke of two classes")
        assert panel.saves.isHidden()
        assert not panel.probability.isEnabled()

    def test_ticks_are_told(self, qtbot, panel):
        panel.set_classes([(1, "pore"), (7, "grain")])
        said = heard(panel.layers_wanted)
        click_box(qtbot, panel.uncertainty)
        click_box(qtbot, panel.probability)
        click_box(qtbot, panel.labels)
        assert said == [
            {"labels": True, "uncertainty": True, "probability": None},
            {"labels": True, "uncertainty": True, "probability": 1},
            {"labels": False, "uncertainty": True, "probability": 1},
        ]

    def test_another_class_is_told_only_while_its_probability_is_shown(
        self, qtbot, panel
    ):
        panel.set_classes([(1, "pore"), (7, "grain")])
        said = heard(panel.layers_wanted)
        pick(qtbot, panel.class_choice, "grain")
        assert said == []
        click_box(qtbot, panel.probability)
        pick(qtbot, panel.class_choice, "pore")
        assert [one["probability"] for one in said] == [7, 1]

    def test_setting_is_silent(self, panel):
        said = heard(panel.layers_wanted)
        panel.set_classes([(1, "pore"), (7, "grain")])
        panel.set_layers(labels=False, uncertainty=True, probability=7)
        expected = {"labels": False, "uncertainty": True, "probability": 7}
        assert (panel.layers, said) == (expected, [])

    def test_chosen_class_survives_others(self, panel):
        panel.set_classes([(1, "pore"), (7, "grain")])
        panel.set_layers(probability=7)
        panel.set_classes([(2, "crack"), (7, "big grain")])
        assert panel.layers["probability"] == 7
        panel.set_classes([(2, "crack")])
        assert panel.layers["probability"] == 2
        panel.set_classes([])
        assert panel.layers["probability"] is None
        assert not panel.probability.isEnabled()

    @pytest.mark.parametrize(
        ("kind", "name"),
        [
            ("labels", "alloy_labels.tif"),
            ("probabilities", "alloy_probabilities.tif"),
            ("table", "alloy_areas.csv"),
        ],
    )
    def test_save(self, qtbot, panel, tmp_path, kind, name):
        panel.suggest(tmp_path / "alloy")
        panel.show_totals(Totals(4))
        said = heard(panel.save_wanted)
        made = panel.save_buttons[kind]
        panel.set_can_save(False)
        qtbot.mouseClick(made, LEFT)
        panel.set_can_save(True)
        qtbot.mouseClick(made, LEFT)  # answered with Cancel
        assert said == []
        panel.answers["path"] = Path("x")
        qtbot.mouseClick(made, LEFT)
        assert said == [(kind, Path("x"))]
        assert [one[1] for one in panel.asked] == [str(tmp_path / name)] * 2

    def test_progress_totals_error(self, panel):
        panel.show_progress(12, 40)
        assert (panel.wait.bar.value(), panel.wait.bar.maximum()) == (12, 40)
        assert panel.hint.isHidden()
        panel.show_totals(Totals(1000, left_out=0.5))
        assert panel.totals.text() == "1,000 pixels. Left out: 50.0 %."
        assert not panel.wait.is_running
        panel.show_progress(1, 2)
        panel.show_error("The disk is full.")
        assert panel.wait.note.text() == "The disk is full."
        assert not panel.wait.is_running
        panel.show_empty()
        assert panel.totals.isHidden()
        assert panel.saves.isHidden()


class TestSaveDialog:
    @pytest.mark.parametrize(
        ("typed", "expected"),
        [("mine", "mine.tif"), ("mine.tiff", "mine.tiff"), (None, "a_labels.tif")],
        ids=["suffix added", "suffix kept", "as suggested"],
    )
    def test_suffix(self, qtbot, monkeypatch, tmp_path, typed, expected):
        def accept(dialog):
            if typed:
                dialog.selectFile(str(tmp_path / typed))
            return 1

        monkeypatch.setattr(QFileDialog, "exec", accept)
        parent = shown(qtbot, QWidget())
        got = ask_save(parent, "Save", str(tmp_path / "a_labels.tif"), "T (*.tif)")
        assert got == tmp_path / expected

    def test_cancelled(self, qtbot, monkeypatch):
        monkeypatch.setattr(QFileDialog, "exec", lambda dialog: 0)
        parent = shown(qtbot, QWidget())
        assert ask_save(parent, "Save", "a.csv", "Tables (*.csv)") is None


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
        qtbot.waitUntil(other.hasFocus)
        wheel(choice)
        wheel(number, 120)
        assert (choice.chosen, number.value()) == ("a", 1)
        choice.setFocus()
        qtbot.waitUntil(choice.hasFocus)
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


@pytest.mark.parametrize(
    ("um2", "text"),
    [(2e4, "0.02 mm²"), (9e3, "9000 µm²"), (0.01, "0.01 µm²"), (5e-9, "0.005 nm²")],
)
def test_area_text(um2, text):
    assert area_text(um2) == text


def test_fits_into_a_narrow_dock(panel):
    panel.set_classes([(1, "a very long name of a class " * 4)])
    panel.show_totals(Totals(10**9, 1e9, 0.1, 0.1))
    assert panel.minimumSizeHint().width() <= 300
