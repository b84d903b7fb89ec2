"""Images larger than memory in the dock, painted on and looked at by hand.

Most tests make an image of some megapixels count as large; what its size itself may
break is tested on 144 megapixels.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("napari")
from qtpy.QtCore import Qt
from widgets.driver import QUIET, spin, wait_until
from widgets.huge import kept, look, open_large, write_large

from napari_alibi_seg._cli import main
from napari_alibi_seg._workspace import _images
from napari_alibi_seg.data import open_image, read_labels, write_image

pytestmark = [pytest.mark.gui, *(pytest.mark.filterwarnings(q) for q in QUIET)]

CTRL = Qt.KeyboardModifier.ControlModifier
SHAPE = (2300, 2700)


@pytest.fixture
def few(monkeypatch):
    """Let a few megapixels be many."""
    monkeypatch.setattr(_images, "_MAX_PIXELS", 1_000_000)


@pytest.fixture
def large(few, driver, own_folders):
    """A large image with two classes to paint, at its middle, pixel for pixel."""
    open_large(driver, write_large(own_folders / "l.tif", SHAPE, levels=2))
    driver.classes(1, 2)
    look(driver, 1150, 1350, 1.0)
    driver.key("1")
    return driver


def _paint_two(driver, row=1150, col=1350) -> None:
    """Paint on two greys: a stroke on a square, one on its neighbour."""
    driver.key("1")
    driver.stroke((row, col), (row, col + 30))
    driver.key("2")
    driver.stroke((row, col + 120), (row, col + 150))


def test_opened_in_levels(large) -> None:
    layer = large.dock.stage.current.image
    assert [data.shape for data in layer.data] == [SHAPE, (1150, 1350)]
    assert np.array_equal(layer.data[0][700:703, 695:705], [[180] * 5 + [60] * 5] * 3)
    assert max(large.scribbles.data.shape) < 1500  # no layer of the image's size


def test_levels_that_are_not_there_are_made_once(few, driver, own_folders) -> None:
    path = write_large(own_folders / "flat.tif", SHAPE)
    panel = driver.dock.image_panel
    heard = []
    panel.wait.bar.valueChanged.connect(lambda n: heard.append(n))
    open_large(driver, path)
    shapes = [data.shape for data in driver.dock.stage.current.image.data]
    assert shapes == [SHAPE, (1150, 1350), (575, 675)]
    assert heard
    assert not panel.wait.is_running
    heard.clear()
    (layer,) = driver.dock.stage.images()
    driver.viewer.layers.remove(layer)
    open_large(driver, path)
    assert not heard


@pytest.mark.parametrize(("zoom", "step"), [(1.0, 1), (0.5, 2), (0.26, 4)])
def test_stroke_lands_where_it_is_painted(large, zoom, step) -> None:
    look(large, 1150, 1350, zoom)
    assert large.scribbles.scale.tolist() == [step, step]
    large.key("2")
    large.stroke((1200, 1300), (1200, 1400))
    large.settled()
    found = kept(large)
    side = max(8, 2 * step)
    assert set(found.ids) == {2}
    assert abs(found.rows.mean() - 1200) <= step + 1
    assert abs(found.cols.min() - (1300 - side / 2)) <= 2 * step
    assert abs(found.cols.max() - (1400 + side / 2)) <= 2 * step
    assert abs(np.ptp(found.rows) + 1 - side) <= 2 * step
    # whole samples, each of its own pixels
    assert len(found.ids) % step**2 == 0
    assert large.table()[2][0] == len(found.ids)


def test_strokes_are_seen_at_any_zoom(large) -> None:
    _paint_two(large)
    large.settled()
    fine = {i: int((large.painted == i).sum()) for i in (1, 2)}
    look(large, 1150, 1350, 0.26)
    coarse = large.painted
    assert set(np.unique(coarse)) == {0, 1, 2}
    look(large, 1150, 1350, 1.0)
    assert {i: int((large.painted == i).sum()) for i in (1, 2)} == fine
    look(large, 300, 300, 1.0)
    assert not large.painted[100:500, 100:500].any()


def test_masks_go_out_and_in(large, own_folders) -> None:
    _paint_two(large)
    large.settled()
    before = kept(large)
    panel = large.dock.classes_panel
    panel.mask_export_wanted.emit(own_folders / "mask.tif")
    large.settled()
    mask = read_labels(own_folders / "mask.tif")
    assert mask.shape == SHAPE
    assert np.count_nonzero(mask) == len(before.ids)
    assert np.array_equal(mask[before.rows, before.cols], before.ids)
    write_image(own_folders / "turned.tif", np.flipud(mask), axes="YX")
    panel.mask_file_wanted.emit(own_folders / "turned.tif")
    large.settled()
    after = kept(large)
    found = np.zeros(SHAPE, np.uint8)
    found[after.rows, after.cols] = after.ids
    assert np.array_equal(found, np.flipud(mask))


def test_undone_after_the_view_went_elsewhere(large) -> None:
    large.stroke((1150, 1350), (1150, 1380))
    large.settled()
    first = kept(large)
    look(large, 700, 800, 0.5)
    large.key("2")
    large.stroke((700, 800), (760, 800))
    large.settled()
    second = kept(large)
    assert set(second.ids) == {1, 2}
    look(large, 1150, 1350, 1.0)
    large.key(Qt.Key.Key_Z, CTRL)
    large.settled()
    assert np.array_equal(kept(large).rows, first.rows)
    large.key(Qt.Key.Key_Z, CTRL)
    large.settled()
    assert kept(large).ids.size == 0
    assert not large.painted.any()
    for expected in (first, second):
        large.key(Qt.Key.Key_Z, CTRL | Qt.KeyboardModifier.ShiftModifier)
        large.settled()
        assert np.array_equal(kept(large).cols, expected.cols)
    assert (large.painted == 1).sum() == (first.ids == 1).sum()


@pytest.mark.parametrize("zoom", [1.0, 0.3])
def test_view_shows_what_all_of_the_image_would(large, zoom) -> None:
    _paint_two(large)
    large.settled()
    look(large, 1300, 1500, zoom)
    large.settled()
    view = large.dock.stage.view().within(SHAPE)
    shown = large.labels.data
    assert shown.shape == view.samples
    whole = large.dock.session.segmenter.predict(open_image(large.dock.image.source))
    w, step = view.window, view.step
    rows = np.minimum(np.arange(w.y0, w.y1, step) + step // 2, w.y1 - 1)
    cols = np.minimum(np.arange(w.x0, w.x1, step) + step // 2, w.x1 - 1)
    assert np.array_equal(shown, whole.labels[np.ix_(rows, cols)])
    assert len(np.unique(shown)) == 2
    at = large.labels.data_to_world((0, 0))
    assert at == (w.y0 + (step - 1) / 2, w.x0 + (step - 1) / 2)


def test_shares_are_of_what_is_seen_until_all_is_saved(large, own_folders) -> None:
    _paint_two(large)
    large.settled()
    panel = large.dock.result_panel
    assert "visible area" in panel.totals.text()
    panel.save_wanted.emit("table", own_folders / "areas.csv")
    large.settled()
    assert "Save the labels first" in panel.wait.note.text()
    panel.save_wanted.emit("labels", own_folders / "mine.tif")
    large.settled()
    assert panel.totals.text().startswith("6,210,000 pixels")
    labels = open_image(own_folders / "mine.tif")
    share = float((labels.read(labels.window) == 1).mean())
    assert large.table()[1][1] == pytest.approx(share)
    overlay = large.dock.stage.current.overlay
    wait_until(lambda: large.dock.stage.current.overlay is not None, "the full result")
    overlay = large.dock.stage.current.overlay
    assert overlay.data[0].shape == SHAPE


def test_saved_as_by_the_command_line(large, own_folders) -> None:
    _paint_two(large)
    large.settled()
    classifier = own_folders / "c.alibiseg"
    large.dock.files.save(classifier)
    large.settled()
    large.dock.result_panel.save_wanted.emit("labels", own_folders / "mine.tif")
    large.settled()
    out = own_folders / "out"
    image = own_folders / "l.tif"
    assert main(["apply", str(classifier), str(image), "--out", str(out)]) == 0
    theirs = (out / "l_labels.tif").read_bytes()
    assert (own_folders / "mine.tif").read_bytes() == theirs


def test_saving_is_gone_on_with(large, own_folders) -> None:
    _paint_two(large)
    large.settled()
    session, image = large.dock.session, large.dock.image
    path = own_folders / "later.ome.zarr"
    run = session.iter_export(image, "labels", path)
    first = [next(run) for _ in range(4)]
    run.close()
    assert not path.exists()
    again = list(session.iter_export(image, "labels", path))
    tiles = [e.done for e in again if hasattr(e, "done")]
    assert tiles[0] == first[-1].done + 1
    assert tiles[-1] == 30
    assert open_image(path).shape == SHAPE


def test_classes_merged_everywhere(large) -> None:
    _paint_two(large)
    large.settled()
    look(large, 300, 300, 1.0)
    large.key("2")
    large.stroke((300, 300), (300, 340))
    large.settled()
    n = len(kept(large).ids)
    large.dock.classes_panel.merged.emit({2: 1})
    large.settled()
    found = kept(large)
    assert set(found.ids) == {1}
    assert len(found.ids) == n
    assert set(np.unique(large.painted)) == {0, 1}


def test_stroke_before_a_project_outlives_the_dock(large) -> None:
    large.stroke((1150, 1350), (1150, 1380))
    painted = int((large.painted == 1).sum())
    image = large.dock.image
    large.dock.end()  # at once, while the project is being made
    wait_until(lambda: large.dock.is_idle, "threads to end")
    folder = next(p for p in image.source.path.parent.iterdir() if p.is_dir()
                  and p.name.startswith("l.tif"))  # fmt: skip
    from napari_alibi_seg._workspace import Project

    with Project.open(folder, image.identity) as project:
        assert project.painted() == {1: painted}


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
def test_huge_image_killed_and_gone_on_with(driver, own_folders) -> None:
    path = write_large(own_folders / "huge.tif", (12_000, 12_000), levels=4)
    program = Path(__file__).with_name("killed_huge.py")
    tests, source = str(program.parents[1]), str(program.parents[2] / "src")
    more = [p for p in (os.environ.get("PYTHONPATH"),) if p]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([tests, source, *more])}
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", program, path],
        stdout=subprocess.PIPE,
        text=True,
        env=env,
    ) as process:
        try:
            assert process.stdout is not None
            line = ""
            while not line.startswith("painted"):
                line = process.stdout.readline()
                assert line, "it ended before it painted"
        finally:
            os.kill(process.pid, signal.SIGKILL)
    _, n, grown_mb = line.split()
    assert int(grown_mb) < 400
    driver.dock.large.open(path)
    wait_until(lambda: driver.dock.offer.is_open, "an offer to go on")
    driver.dock.offer.yes.click()
    driver.wait_image()
    look(driver, 9000, 9000, 1.0)
    found = kept(driver)
    assert len(found.ids) == int(n)
    inside = (abs(found.rows - 9000) < 150) & (abs(found.cols - 9000) < 150)
    assert (driver.painted > 0).sum() == inside.sum() > 0
    spin(0.05)
