"""What is taken away while the dock works: layers, pixels, the dock, the window."""

from __future__ import annotations

import gc

import numpy as np
import pytest

pytest.importorskip("napari")
from pytestqt.exceptions import capture_exceptions
from qtpy.QtCore import QThreadPool
from qtpy.QtWidgets import QApplication
from widgets.driver import QUIET, Driver, spin, wait_until, write_sample

from napari_alibi_seg._segmenter import Embedding
from napari_alibi_seg._workspace import Project, find_project
from napari_alibi_seg._workspace._blocks import ScribbleBlocks
from napari_alibi_seg._workspace._reading import read_blocks

pytestmark = [pytest.mark.gui, *(pytest.mark.filterwarnings(q) for q in QUIET)]


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch) -> None:
    """Draw nothing on the canvas here.

    napari 0.9 itself dies in glDrawArrays of Mesa's software drivers when a Labels
    layer in paint mode is removed and docks come and go, with no code of ours.
    """
    from vispy.app.backends._qt import CanvasBackendDesktop

    monkeypatch.setattr(CanvasBackendDesktop, "paintGL", lambda _self: None)


@pytest.fixture
def working(driver, tmp_path):
    """An image whose result is being computed while the test goes on."""
    driver.path = write_sample(tmp_path / "s.png", shape=(700, 600))
    driver.image = driver.open(driver.path)
    driver.paint_two()
    wait_until(lambda: driver.dock.train._live.is_busy, "training")
    return driver


def settle_after(driver) -> None:
    wait_until(lambda: driver.dock.is_idle or not any_busy(driver), "rest")
    spin(0.3)


def any_busy(driver) -> bool:
    return any(x.is_busy for flow in driver.dock.flows for x in flow.lanes)


def names(driver) -> set[str]:
    return {layer.name for layer in driver.viewer.layers}


def test_the_image_is_removed(working) -> None:
    with capture_exceptions() as faults:
        before = working.painted
        working.viewer.layers.remove(working.image)
        settle_after(working)
        assert not faults
        assert names(working) == set()
        assert working.dock.image is None
        # and can come back, with its strokes
        working.viewer.open(str(working.path), layer_type="image")
        wait_until(lambda: working.dock.offer.is_open, "an offer to go on")
        working.dock.offer.yes.click()
        wait_until(lambda: working.dock.image is not None)
        working.settled()
        assert np.array_equal(working.painted, before)
    assert not faults


def test_the_scribbles_are_removed_and_come_back(working) -> None:
    with capture_exceptions() as faults:
        before = working.painted
        working.viewer.layers.remove(working.scribbles)
        settle_after(working)
        assert "kept" in working.dock.classes_panel.hint.text()
        working.key("1")
        wait_until(lambda: working.scribbles is not None)
        working.settled()
        assert np.array_equal(working.painted, before)
        assert working.scribbles.selected_label == 1
    assert not faults


def test_the_result_is_removed_and_comes_back(working) -> None:
    with capture_exceptions() as faults:
        wait_until(lambda: working.labels is not None)
        working.viewer.layers.remove(working.labels)
        working.settled()
        working.key("1")
        working.stroke((300, 100), (300, 200))
        working.settled()
        assert working.labels is not None
        assert working.labels.data.all()
    assert not faults


def test_all_layers_at_once(working) -> None:
    with capture_exceptions() as faults:
        working.viewer.layers.clear()
        settle_after(working)
        assert working.dock.image is None
        assert len(working.viewer.layers) == 0
    assert not faults


def test_the_image_is_renamed(working) -> None:
    with capture_exceptions() as faults:
        working.image.name = "another name"
        assert working.dock.image_panel.image.currentText() == "another name"
        working.settled()
        assert working.labels.data.all()
    assert not faults


def test_the_pixels_are_replaced(working) -> None:
    with capture_exceptions() as faults:
        before = working.painted
        folder = working.dock.image.project.folder
        working.image.data = np.asarray(working.image.data)[:200, :300] // 2
        wait_until(lambda: working.dock.offer.is_open or working.dock.image)
        if working.dock.offer.is_open:  # those are strokes of other pixels
            assert "other pixels" in working.dock.offer.text.text()
            working.dock.offer.no.click()
        working.wait_image()
        assert working.dock.image.shape == (200, 300)
        working.key("1")
        working.stroke((20, 10), (20, 60))
        working.settled()
        assert working.painted.shape == (200, 300)
        assert working.painted[20, 30] == 1
    assert not faults
    # the strokes on the old pixels are not lost: their project was moved aside
    assert any(np.array_equal(k, before) for k in kept_in(folder.parent, before.shape))


def kept_in(folder, shape) -> list:
    """Return all scribbles of a shape in a folder, whatever they are called now."""
    found = []
    for file in folder.rglob("scribbles*.safetensors"):
        blocks = read_blocks(file, shape, None)
        if isinstance(blocks, ScribbleBlocks):
            found.append(blocks.to_array())
    return found


def test_another_image_is_chosen_meanwhile(working, tmp_path) -> None:
    with capture_exceptions() as faults:
        other = write_sample(tmp_path / "other.png", seed=5)
        (layer,) = working.viewer.open(str(other), layer_type="image")
        working.dock.images.choose(layer)
        working.wait_image()
        working.settled()
        assert working.dock.image.shape == (128, 160)
        # the classifier of the first image segments the second
        assert working.labels.data.shape == (128, 160)
        assert working.labels.data.all()
        working.dock.images.choose(working.image)
        working.wait_image()
        working.settled()
        assert working.labels.data.shape == (700, 600)
        assert working.labels.data.all()
    assert not faults


def leftovers() -> list[str]:
    """Return what windows of ours are left."""
    gc.collect()
    windows = QApplication.topLevelWidgets()
    return [repr(w) for w in windows if "alibi" in type(w).__module__]


@pytest.mark.parametrize("how", ["taken out", "closed"])
def test_the_dock_is_closed_while_it_works(working, how) -> None:
    dock, before = working.dock, working.painted
    with capture_exceptions() as faults:
        if how == "taken out":  # what the cross of a dock does
            working.viewer.window.remove_dock_widget(dock)
        else:
            dock.close()
        spin(0.1)
        wait_until(lambda: dock.is_idle, "threads to end")
        assert QThreadPool.globalInstance().waitForDone(5000)
        spin(0.05)
        # the viewer is the user's again: nothing of ours answers
        working.image.name = "renamed"
        working.viewer.layers.selection.active = working.image
        working.key("t")
        for layer in list(working.viewer.layers)[1:]:
            working.viewer.layers.remove(layer)
        working.dock = dock = None
        spin(0.05)
        assert not leftovers()
        # and the dock can be opened again
        again = working.add_dock()
        wait_until(lambda: again.offer.is_open, "an offer to go on")
        again.offer.yes.click()
        working.wait_image()
        working.settled()
        assert np.array_equal(working.painted, before)
    assert not faults


def test_the_dock_is_opened_again_over_its_own_layers(working) -> None:
    working.settled()
    before = working.painted
    n_layers = len(working.viewer.layers)
    with capture_exceptions() as faults:
        working.viewer.window.remove_dock_widget(working.dock)
        spin(0.1)
        again = working.add_dock()
        wait_until(lambda: again.offer.is_open, "an offer to go on")
        again.offer.yes.click()
        working.wait_image()
        working.settled()
        assert np.array_equal(working.painted, before)
        assert len(working.viewer.layers) == n_layers
    assert not faults


def test_the_window_is_closed_while_it_works(
    own_folders, make_napari_viewer, qtbot
) -> None:
    path = write_sample(own_folders / "s.png", shape=(700, 600))
    with capture_exceptions() as faults:
        driver = Driver(make_napari_viewer(show=True))
        dock = driver.add_dock()
        driver.open(path)
        driver.paint_two()
        wait_until(lambda: dock.train._live.is_busy, "training")
        before = driver.painted
        identity = dock.image.identity
        driver.viewer.close()
        spin(0.1)
        wait_until(lambda: dock.is_idle, "threads to end")
        assert QThreadPool.globalInstance().waitForDone(5000)
        spin(0.05)
    assert not faults
    with Project.open(find_project(identity).folder, identity) as project:
        assert np.array_equal(project.load_scribbles(None), before)
        assert not project.is_shared


def test_the_last_stroke_is_kept_when_the_dock_is_closed_at_once(
    driver, tmp_path
) -> None:
    driver.open(write_sample(tmp_path / "s.png"))
    driver.classes(1)
    driver.key("1")
    driver.stroke((20, 10), (20, 60))
    before, identity, dock = driver.painted, driver.dock.image.identity, driver.dock
    QApplication.processEvents()
    dock.end()
    wait_until(lambda: dock.is_idle)
    with Project.open(find_project(identity).folder, identity) as project:
        assert np.array_equal(project.load_scribbles(None), before)


class OutOfMemoryError(RuntimeError):
    """As torch names its own."""


def test_out_of_memory_in_extraction(driver, tmp_path, monkeypatch) -> None:
    from napari_alibi_seg import Segmenter

    def dies(self, *args, **more):
        raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        yield

    driver.open(write_sample(tmp_path / "s.png"))
    driver.dock.change_settings(
        {"features": "both", "backbone": "alibi-tiny", "device": "cpu", "scale": 1}
    )
    driver.settled()
    panel = driver.dock.features_panel
    with monkeypatch.context() as patch, capture_exceptions() as faults:
        patch.setattr(Segmenter, "iter_complete", dies)
        panel.extract.click()
        driver.settled()
        assert "no memory left" in panel.wait.note.text()
        assert "Choose the CPU, a smaller tile" in panel.wait.note.text()
        assert panel.extract.isEnabled()
        assert panel.extract.isVisible()
        assert not panel.cancel.isVisible()
    assert not faults
    panel.extract.click()
    driver.settled()
    assert driver.dock.image.is_extracted


def test_an_error_in_training_frees_the_controls(driver, tmp_path, monkeypatch) -> None:
    def dies(*args, **more):
        raise RuntimeError("wrapped C/C++ object has been deleted")

    driver.open(write_sample(tmp_path / "s.png"))
    driver.settled()
    panel = driver.dock.train_panel
    with monkeypatch.context() as patch:
        patch.setattr(Embedding, "iter_samples", dies)
        driver.paint_two()
        driver.settled()
        assert "wrapped C/C++" in panel.status.text()
        assert panel.update_button.isEnabled()
        assert panel.busy.isHidden()
    panel.update_button.click()
    driver.settled()
    assert driver.labels.data.all()
    assert panel.status.text() == "Up to date."
