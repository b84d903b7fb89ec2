"""The train panel: settings, actions, and the held-out score as it is learnt."""

from __future__ import annotations

import pytest

pytest.importorskip("napari")
from qtpy.QtCore import Qt
from widgets.hands import click_box, heard

from napari_alibi_seg._segmenter import ClassHoldout, HoldoutScore
from napari_alibi_seg._widgets._train_panel import TrainPanel
from napari_alibi_seg._workspace import DockSettings

pytestmark = pytest.mark.gui
LEFT = Qt.MouseButton.LeftButton
NAMES = {1: "pore", 7: "crack"}
ONE = "Only one stroke: paint another one elsewhere to score this class."
CLASSES = {
    1: ClassHoldout(3, 900, 0.914, 0.88, 0.81, ""),
    3: ClassHoldout(4, 800, 0.7, None, 0.6, ""),
    7: ClassHoldout(1, 70, None, None, None, ONE),
}


def score(done, total=4):
    return HoldoutScore(done, total, CLASSES, 0.705, 0.86, 100)


@pytest.fixture
def panel(qtbot):
    made = TrainPanel()
    qtbot.addWidget(made)
    made.resize(320, 600)
    made.show()
    return made


def cells(table):
    n, k = table.rowCount(), table.columnCount()
    return [[table.item(i, j).text() for j in range(k)] for i in range(n)]


class TestSettings:
    def test_classifier(self, qtbot, panel):
        said = heard(panel.settings_wanted)
        panel.classifier.setFocus()
        qtbot.keyClick(panel.classifier, Qt.Key.Key_Down)
        assert said == [{"classifier": "logistic"}]
        assert not panel.trees.isEnabled()
        qtbot.keyClick(panel.classifier, Qt.Key.Key_Up)
        assert panel.trees.isEnabled()

    def test_resolution(self, qtbot, panel):
        said = heard(panel.settings_wanted)
        panel.resolution.setFocus()
        qtbot.keyClick(panel.resolution, Qt.Key.Key_Down)
        assert said == [{"resolution": "patch"}]

    def test_trees_are_advanced(self, qtbot, panel):
        said = heard(panel.settings_wanted)
        assert not panel.trees.isVisible()
        qtbot.mouseClick(panel.advanced.head, LEFT)
        assert panel.trees.isVisible()
        panel.trees.setFocus()
        panel.trees.selectAll()
        qtbot.keyClicks(panel.trees, "40")
        qtbot.keyClick(panel.trees, Qt.Key.Key_Return)
        assert said == [{"n_trees": 40}]

    def test_live(self, qtbot, panel):
        said = heard(panel.settings_wanted)
        click_box(qtbot, panel.live)
        click_box(qtbot, panel.live)
        assert said == [{"live": False}, {"live": True}]

    def test_not_sure(self, qtbot, panel):
        said = heard(panel.settings_wanted)
        assert not panel.unsure.isEnabled()
        click_box(qtbot, panel.is_unsure)
        panel.unsure.setFocus()
        qtbot.keyClick(panel.unsure, Qt.Key.Key_Up)
        click_box(qtbot, panel.is_unsure)
        assert said == [{"unsure_below": v} for v in (0.6, 0.61, None)]

    def test_shown_silently(self, panel):
        said = heard(panel.settings_wanted)
        settings = DockSettings(
            classifier="logistic",
            resolution="patch",
            n_trees=7,
            live=False,
            unsure_below=0.555,
        )
        panel.apply_settings(settings)
        assert (panel.classifier.chosen, panel.resolution.chosen) == (
            "logistic",
            "patch",
        )
        assert (panel.trees.value(), panel.unsure.value()) == (7, 56)
        assert not panel.live.isChecked()
        assert panel.is_unsure.isChecked()
        panel.apply_settings(DockSettings())
        assert not panel.is_unsure.isChecked()
        assert said == []


class TestActions:
    @pytest.mark.parametrize(
        ("button", "signal"),
        [
            ("update_button", "update_wanted"),
            ("score_button", "score_wanted"),
            ("least_button", "least_certain_wanted"),
        ],
    )
    def test_busy_refuses_until_an_error(self, qtbot, panel, button, signal):
        said = heard(getattr(panel, signal))
        qtbot.mouseClick(getattr(panel, button), LEFT)
        assert len(said) == 1
        panel.set_busy(True)
        qtbot.mouseClick(getattr(panel, button), LEFT)
        assert len(said) == 1
        panel.say("The device has no memory left.", is_error=True)
        assert not panel.busy.isVisible()
        qtbot.mouseClick(getattr(panel, button), LEFT)
        assert len(said) == 2

    def test_status(self, panel):
        panel.set_busy(True)
        panel.say("Trained on 3 classes.")
        assert panel.status.text() == "Trained on 3 classes."
        assert panel.busy.isVisible()
        assert not panel.status.property("is_error")

    def test_live_goes_on_while_busy(self, qtbot, panel):
        said = heard(panel.settings_wanted)
        panel.set_busy(True)
        click_box(qtbot, panel.live)
        assert said == [{"live": False}]

    def test_busy_does_not_move_the_panel(self, panel):
        before = panel.sizeHint()
        panel.set_busy(True)
        assert panel.sizeHint() == before


class TestScore:
    def test_table(self, panel):
        panel.show_score(score(4), NAMES)
        assert cells(panel.table) == [
            ["pore", "3", "0.91", "0.88", "0.81"],
            ["class 3", "4", "0.70", "–", "0.60"],
            ["crack", "1", "–", "–", "–"],
            ["All", "8", "", "", "0.70"],
        ]
        assert panel.note.text() == f"crack: {ONE}"
        assert panel.table.item(3, 0).toolTip().endswith("accuracy 0.86")

    def test_as_it_is_learnt(self, panel):
        panel.show_score(score(1), NAMES)
        assert panel.wait.is_running
        assert panel.wait.bar.format() == "1 of 4"
        panel.show_score(score(4), NAMES)
        assert not panel.wait.is_running
        assert len(cells(panel.table)) == 4

    def test_no_scroll_bars(self, qtbot, panel):
        panel.show_score(score(4), {1: "a very long name of a class " * 4})
        qtbot.wait(20)
        table = panel.table
        assert table.verticalScrollBar().maximum() == 0
        assert table.horizontalScrollBar().maximum() == 0

    def test_of_other_strokes(self, panel):
        panel.age_score()
        assert not panel.note.isVisible()
        panel.show_score(score(4), NAMES)
        panel.age_score()
        assert panel.table.isVisible()
        assert panel.note.text().startswith("Of the strokes before")

    def test_error_ends_the_progress(self, panel):
        panel.show_score(score(1), NAMES)
        panel.say("No.", is_error=True)
        assert not panel.wait.is_running


def test_fits_into_a_narrow_dock(panel):
    panel.show_score(score(1), {1: "a very long name of a class " * 4})
    panel.advanced.fold(True)
    assert panel.minimumSizeHint().width() <= 300


def test_what_to_do_first_is_said_and_comes_back(panel) -> None:
    assert panel.status.isVisible()
    assert "two classes" in panel.status.text()
    panel.say("Training ...")
    assert panel.status.text() == "Training ..."
    panel.say("")
    assert panel.status.isVisible()
    assert "two classes" in panel.status.text()
