"""The result panel: its layers, progress, totals and saving."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("napari")
from widgets.hands import LEFT, click_box, heard, pick, shown

from napari_alibi_seg._widgets._result_panel import ResultPanel, Totals, area_text

pytestmark = pytest.mark.gui


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
