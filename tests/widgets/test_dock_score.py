"""The held-out score from the dock is what the core makes of the same strokes."""

from __future__ import annotations

import pytest

pytest.importorskip("napari")
from widgets import gestures
from widgets.driver import FEW, QUIET, write_sample

from napari_alibi_seg import Segmenter
from napari_alibi_seg._base import ClassifierSettings
from napari_alibi_seg._segmenter import iter_holdout

pytestmark = [pytest.mark.gui, *(pytest.mark.filterwarnings(q) for q in QUIET)]


def cells(table) -> list[list[str]]:
    columns = range(table.columnCount())
    return [[table.item(i, j).text() for j in columns] for i in range(table.rowCount())]


def test_the_score_of_strokes_left_out(driver, tmp_path) -> None:
    path = write_sample(tmp_path / "s.png", "precipitates")
    driver.open(path)
    classes = driver.dock.session.classes
    classes.add("dark", class_id=2)
    classes.add("bright", class_id=5)
    for key, rows in (("1", (15, 50, 85)), ("2", (30, 70, 110))):
        driver.key(key)
        for row in rows:
            driver.stroke((row, 10), (row, 70))
    driver.settled()
    panel = driver.dock.train_panel
    gestures.press(panel.score_button)
    driver.settled()

    core = Segmenter(classifier=ClassifierSettings(n_trees=FEW))
    *_, expected = iter_holdout(core, core.embed(path), driver.painted)
    shown = cells(panel.table)
    assert shown[:-1] == [
        [name, "3", f"{one.recall:.2f}", f"{one.precision:.2f}", f"{one.iou:.2f}"]
        for name, one in zip(("dark", "bright"), expected.classes.values(), strict=True)
    ]
    assert shown[-1][0:2] == ["All", "6"]
    assert shown[-1][-1] == f"{expected.miou:.2f}"
    assert panel.table.isVisible()
    assert not panel.note.text()
    driver.stroke((90, 90), (90, 130))
    driver.settled()
    assert panel.note.text().startswith("Of the strokes before")


def test_with_one_stroke_a_class_it_says_why_not(driver, tmp_path) -> None:
    driver.open(write_sample(tmp_path / "s.png"))
    driver.paint_two()
    driver.settled()
    panel = driver.dock.train_panel
    gestures.press(panel.score_button)
    driver.settled()
    said = panel.note.text() + panel.status.text()
    assert "stroke" in said
    assert panel.score_button.isEnabled()
