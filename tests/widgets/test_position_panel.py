"""The panel that shows how much position is in the features, and the list of cures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("napari")
from qtpy.QtWidgets import QLabel
from widgets.hands import LEFT, heard, shown, walk_to

from napari_alibi_seg._widgets._cure_choice import CureChoice
from napari_alibi_seg._widgets._position_panel import PositionPanel
from napari_alibi_seg._workspace import CURE_OFFERS
from napari_alibi_seg.analysis import position_report, ramp, synthetic_crops
from napari_alibi_seg.features import load_backbone

pytestmark = pytest.mark.gui
DATA = Path(__file__).parents[1] / "data"
SIZE = 320


@pytest.fixture(scope="module")
def reports():
    crops = synthetic_crops(14, n_crops=6)
    return {
        name: position_report(load_backbone(str(DATA / file), device="cpu"), crops)
        for name, file in (
            ("table", "twin-table.safetensors"),
            ("alibi", "twin-alibi.safetensors"),
        )
    }


@pytest.fixture
def panel(qtbot):
    made = PositionPanel()
    shown(qtbot, made)
    made.resize(SIZE, 900)
    made.set_ready(True)
    return made


def test_it_says_what_to_do_first(qtbot, panel):
    panel.set_ready(False, "Choose an image first.")
    assert not panel.measure.isVisible()
    assert panel.hint.text() == "Choose an image first."
    assert not panel.found.isVisible()


def test_measure_and_cancel(qtbot, panel):
    begin, stop = heard(panel.measure_wanted), heard(panel.cancel_wanted)
    qtbot.mouseClick(panel.measure, LEFT)
    assert len(begin) == 1
    panel.show_progress(3, 17, 4.0, "Features of 16 crops of 224 px")
    assert not panel.measure.isVisible()
    assert "3 of 17, 4 s left" in panel.wait.bar.format()
    qtbot.mouseClick(panel.cancel, LEFT)
    qtbot.mouseClick(panel.cancel, LEFT)  # once is enough
    assert len(stop) == 1
    panel.show_idle("Stopped.")
    assert panel.measure.isVisible()
    assert panel.wait.note.text() == "Stopped."


def test_what_was_found(qtbot, panel, reports):
    report = reports["table"]
    panel.show_report(report)
    row = report.table["lr+ud"]
    assert panel.verdict.text() == (
        "These features know where in the frame they are (transfer R\u00b2 "
        f"{row.transfer_r2:.2f})."
    )
    assert panel.sentence.text() == report.sentence
    numbers = [panel.values[name].text() for name in panel.values]
    assert f"{row.transfer_r2:.2f}" in numbers[0]
    assert f"{row.transfer_floor.sd:.2f}, Noise" in panel.about.toolTip()
    assert f"{row.single_r2:.2f}" in numbers[1]
    assert numbers[2] == f"{len(row.channels)} of 96"
    assert numbers[3] == "the frame: bias"
    assert "twin-table, 6 crops of 224 px" in panel.about.text()
    # synthetic crops lie in no image
    assert not panel.layers.isEnabled()


def test_pictures_are_the_ramps(qtbot, panel, reports):
    panel.show_report(reports["table"])
    qtbot.wait(30)
    true = panel.pictures.pictures["Column", "true"].grab().toImage()
    read = panel.pictures.pictures["Column", "read"].grab().toImage()

    def green(image, share):  # viridis is the greener the higher
        x = round(share * (image.width() - 1))
        middle = range(image.height() // 4, 3 * image.height() // 4)
        return np.mean([image.pixelColor(x, y).green() for y in middle])

    for image in (true, read):
        assert green(image, 0.05) + 60 < green(image, 0.5) < green(image, 0.95) - 30
    panel.show_report(reports["alibi"])
    flat = panel.pictures.pictures["Column", "read"].grab().toImage()
    assert abs(green(flat, 0.05) - green(flat, 0.95)) < 60


def test_the_one_before_is_kept_beside(panel, reports):
    panel.show_report(reports["table"])
    assert not panel.before.isVisible()
    panel.show_report(reports["alibi"])
    assert panel.verdict.text().startswith("No position can be read from these")
    assert panel.before.text().startswith("Before:\ntwin-table: high, 0.9")
    panel.clear()
    assert not panel.found.isVisible()
    panel.show_report(reports["alibi"])
    assert not panel.before.isVisible()


def test_rows_and_columns_are_not_mixed_up(qtbot, panel, reports):
    wide = ramp("lr+ud", (4, 12))
    pictures = panel.pictures
    pictures.show_pictures(wide, wide)
    column = pictures.pictures["Column", "true"]
    assert column.heightForWidth(120) == 40
    assert column.image.pixelColor(0, 0) == column.image.pixelColor(0, 3)
    row = pictures.pictures["Row", "true"].image
    assert row.pixelColor(0, 0) == row.pixelColor(11, 0) != row.pixelColor(0, 3)


def test_too_few_crops_are_told(panel, reports):
    table = reports["alibi"].table
    rows = tuple(replace(r, transfer_r2=None, transfer_floor=None) for r in table.rows)
    panel.show_report(
        replace(
            reports["alibi"],
            level="unsure",
            table=replace(table, rows=rows),
            notes=("Only 1 crop of 112 px fits.",),
        )
    )
    assert panel.verdict.text() == "This image is too small to tell."
    assert panel.notes.text() == "Only 1 crop of 112 px fits."
    assert "needs 3 crops" in panel.values["Transfer R\u00b2"].text()


def test_it_fits_into_320_px(qtbot, panel, reports):
    panel.show_report(reports["table"])
    panel.show_report(reports["alibi"])
    panel.resize(SIZE, panel.heightForWidth(SIZE))
    qtbot.wait(30)
    assert panel.width() == SIZE
    for label in panel.findChildren(QLabel):
        if label.isVisible() and not label.wordWrap():
            assert label.width() >= label.sizeHint().width(), label.text()
        right = label.mapTo(panel, label.rect().topRight()).x()
        assert not label.isVisible() or right <= SIZE, label.text()


class TestCures:
    @pytest.fixture
    def choice(self, qtbot):
        answers = []
        made = CureChoice(lambda parent: answers.pop() if answers else None)
        made.answers = answers
        made.show_spec("alibi-tiny")
        return shown(qtbot, made)

    def test_costs_are_said(self, choice):
        texts = [choice.itemText(i) for i in range(choice.count())]
        assert "Average of 8 turned copies (8 passes a tile)" in texts
        assert "Blank positional channels (1 pass a tile)" in texts
        assert any("49 passes a tile and a fit: minutes" in text for text in texts)

    @pytest.mark.parametrize("offer", CURE_OFFERS[1:], ids=lambda offer: offer.words)
    def test_each_makes_its_spec(self, qtbot, choice, offer):
        choice.show_spec("alibi-tiny")
        said = heard(choice.spec_picked)
        walk_to(qtbot, choice, offer.text)
        assert said[-1] == f"alibi-tiny+{offer.words}"
        # what is spelt like that is read again
        other = CureChoice(lambda _: None)
        qtbot.addWidget(other)
        other.show_spec(said[-1])
        assert other.currentText() == offer.text
        walk_to(qtbot, choice, "None (1 pass a tile)")
        assert said[-1] == "alibi-tiny"

    def test_a_denoiser_is_asked_for(self, qtbot, choice):
        choice.show_spec("dinov2-s")
        said = heard(choice.spec_picked)
        walk_to(qtbot, choice, "DVT denoiser from a file...")  # answered with Cancel
        assert (said[-1:], choice.chosen) != (["dinov2-s+denoise="], "denoise=")
        choice.show_spec("dinov2-s")
        choice.answers.append(Path("run/mine.pth"))
        walk_to(qtbot, choice, "DVT denoiser from a file...")
        assert said[-1] == "dinov2-s+denoise=run/mine.pth"
        choice.show_spec(said[-1])
        assert choice.currentText() == "Denoiser mine.pth (1 pass a tile)"

    def test_one_that_is_not_offered_is_shown(self, choice):
        choice.show_spec("alibi-tiny+roll=8+svd=4")
        assert choice.currentText() == "roll=8+svd=4 (8 passes a tile)"
        choice.show_spec(None)
        assert not choice.isEnabled()
