"""The Batch tab of the dock: a classifier from the dock, good files and bad ones."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("napari")
from widgets import gestures
from widgets.driver import QUIET, wait_until, write_sample

from napari_alibi_seg import Segmenter
from napari_alibi_seg.data import read_labels

pytestmark = [pytest.mark.gui, *(pytest.mark.filterwarnings(q) for q in QUIET)]


@pytest.fixture
def trained(driver, tmp_path):
    """A driver that has trained on an image and saved, in the Batch tab."""
    driver.open(write_sample(tmp_path / "s.png"))
    driver.paint_two()
    driver.settled()
    dock = driver.dock
    gestures.unfold(dock.sections["7  Classifier"])
    gestures.choose_files(dock.classifier_panel.save_button, tmp_path / "c.alibiseg")
    driver.settled()
    gestures.turn_to(dock.tabs.tabBar(), 1)
    assert "c.alibiseg" in dock.batch_panel.classifier.choice.currentText()
    return driver


def ended(panel) -> None:
    wait_until(lambda: not panel.lane.is_busy, "the batch")


def of_files(panel) -> dict[str, str]:
    """Return the states by file name."""
    return {path.rpartition("/")[2]: s for path, s in panel.files.states().items()}


def labels_of(folder, names) -> dict[str, bytes]:
    return {n: read_labels(folder / f"{n}_labels.tif").tobytes() for n in names}


def headless(tmp_path, paths) -> dict[str, bytes]:
    core = Segmenter.load(tmp_path / "c.alibiseg")
    return {p.stem: core.predict(p).labels.tobytes() for p in paths}


def test_a_corrupt_file_stops_no_other_and_done_is_skipped(trained, tmp_path) -> None:
    panel, folder = trained.dock.batch_panel, tmp_path / "series"
    folder.mkdir()
    good = [write_sample(folder / f"{n}.png", seed=i) for i, n in enumerate("ac")]
    bad = folder / "b.png"
    bad.write_bytes(good[0].read_bytes()[:300])
    gestures.choose_files(panel.add_files_button, good[0], bad, good[1])
    assert panel.out.text() == str(folder / "segmented")
    gestures.press(panel.run_button)
    ended(panel)
    assert of_files(panel) == {"a.png": "done", "b.png": "failed", "c.png": "done"}
    assert panel.summary.text().startswith("2 done, 1 failed")
    out = folder / "segmented"
    first = labels_of(out, "ac")
    assert first == headless(tmp_path, good)
    assert not (out / "b_labels.tif").exists()
    # the row says why
    row = panel.files.topLevelItem(1)
    gestures.QTest.mouseClick(
        panel.files.viewport(),
        gestures.LEFT,
        pos=panel.files.visualItemRect(row).center(),
    )
    assert "b.png" in panel.detail.text()
    assert panel.detail.isVisible()

    when = {p: p.stat().st_mtime_ns for p in out.glob("*_labels.tif")}
    gestures.press(panel.run_button)
    ended(panel)
    assert of_files(panel) == {
        "a.png": "skipped",
        "b.png": "failed",
        "c.png": "skipped",
    }
    assert {p: p.stat().st_mtime_ns for p in out.glob("*_labels.tif")} == when

    # mended, it is all that is left to do
    write_sample(bad, seed=7)
    gestures.press(panel.run_button)
    ended(panel)
    assert of_files(panel) == {"a.png": "skipped", "b.png": "done", "c.png": "skipped"}
    assert labels_of(out, "abc") == first | headless(tmp_path, [bad])


def test_cancelled_and_gone_on_with(trained, tmp_path) -> None:
    panel, folder = trained.dock.batch_panel, tmp_path / "series"
    folder.mkdir()
    names = [f"f{i}" for i in range(8)]
    paths = [
        write_sample(folder / f"{n}.png", shape=(400, 400), seed=i)
        for i, n in enumerate(names)
    ]
    gestures.choose_files(panel.add_files_button, *paths)
    gestures.press(panel.run_button)
    wait_until(lambda: "done" in panel.files.states().values(), "the first file")
    gestures.press(panel.cancel_button)
    states = list(of_files(panel).values())
    n_done = states.count("done")
    assert 1 <= n_done < 8
    assert states == ["done"] * n_done + ["cancelled"] * (8 - n_done)
    assert f"{n_done} done, {8 - n_done} left" in panel.summary.text()
    assert panel.run_button.isEnabled()
    assert not panel.cancel_button.isEnabled()

    gestures.press(panel.run_button)
    ended(panel)
    states = list(of_files(panel).values())
    # the file that was at work when Cancel came may have ended after it
    n_skipped = states.count("skipped")
    assert n_done <= n_skipped <= n_done + 1
    assert states == ["skipped"] * n_skipped + ["done"] * (8 - n_skipped)
    assert labels_of(folder / "segmented", names) == headless(tmp_path, paths)


def test_a_folder_and_maps(trained, tmp_path) -> None:
    import tifffile

    panel, folder = trained.dock.batch_panel, tmp_path / "series"
    folder.mkdir()
    path = write_sample(folder / "a.png", seed=4)
    gestures.choose_files(panel.add_folder_button, folder)
    gestures.press(panel.options["uncertainty"].native)
    gestures.press(panel.options["probabilities"].native)
    assert "--uncertainty" in panel.command.toPlainText()
    gestures.press(panel.run_button)
    ended(panel)
    assert of_files(panel) == {"a.png": "done"}
    result = Segmenter.load(tmp_path / "c.alibiseg").predict(path)
    out = folder / "segmented"
    for name, expected in (
        ("probabilities", result.probabilities),
        ("uncertainty", result.uncertainty),
    ):
        saved = tifffile.imread(out / f"a_{name}.tif")
        assert np.array_equal(saved, expected), name
