"""The dock keeps what is painted, however fast an image, a plane or a layer goes."""

from __future__ import annotations

import threading

import numpy as np
import pytest

pytest.importorskip("napari")
from pytestqt.exceptions import capture_exceptions
from widgets.driver import QUIET, spin, wait_until, write_sample

from napari_alibi_seg._base import OutputError
from napari_alibi_seg._workspace import ImageIdentity, Project, find_project
from napari_alibi_seg._workspace import _project_files as project_module
from napari_alibi_seg.data import open_image, synthesize, write_image

pytestmark = [pytest.mark.gui, *(pytest.mark.filterwarnings(q) for q in QUIET)]


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch) -> None:
    """Draw nothing here: napari dies in software GL where layers are taken away."""
    from vispy.app.backends._qt import CanvasBackendDesktop

    monkeypatch.setattr(CanvasBackendDesktop, "paintGL", lambda _self: None)


def stroke(driver, row: int = 20) -> None:
    driver.key("1")
    driver.stroke((row, 10), (row, 60))


def kept(path, plane=None) -> np.ndarray:
    """Return what a program that comes later finds of a file."""
    source = open_image(path) if plane is None else open_image(path, plane=0)
    identity = ImageIdentity.of(source)
    with Project.open(find_project(identity).folder, identity) as project:
        assert not project.is_shared
        return project.load_scribbles(plane)


def finish(driver) -> None:
    dock = driver.dock
    dock.end()
    wait_until(lambda: dock.is_idle, "threads to end")


def go_on(driver) -> None:
    wait_until(lambda: driver.dock.offer.is_open, "an offer to go on")
    driver.dock.offer.yes.click()
    driver.wait_image()
    driver.settled()


def test_a_typed_pixel_size_comes_back(driver, tmp_path) -> None:
    image = synthesize("spinodal", (128, 160), seed=1).image
    path = tmp_path / "bare.png"
    write_image(path, image, axes="YX")
    layer = driver.open(path)
    panel = driver.dock.image_panel
    driver.classes(1)
    stroke(driver)
    panel.pixel_size_wanted.emit((0.25, "um"))
    driver.settled()
    driver.viewer.layers.remove(layer)
    driver.settled()
    driver.viewer.open(str(path), layer_type="image")
    go_on(driver)
    size = driver.dock.image.source.pixel_size
    assert (size.y, size.x, size.unit) == (0.25, 0.25, "um")
    assert "40 x 32 µm" in panel.info.text()


def test_the_same_file_again_says_that_it_is_open(driver, tmp_path) -> None:
    path = write_sample(tmp_path / "s.png")
    first = driver.open(path)
    driver.classes(1)
    stroke(driver)
    driver.settled()
    before = driver.painted
    (second,) = driver.viewer.open(str(path), layer_type="image")
    assert second.name != first.name
    driver.dock.images.choose(second)
    panel = driver.dock.image_panel
    wait_until(lambda: "open already" in panel.info.text(), "the sentence")
    assert first.name in panel.info.text()
    driver.key("1")  # arms nothing
    assert driver.dock.stage.current.scribbles is None
    # without the first it is the image, with its strokes
    driver.viewer.layers.remove(first)
    go_on(driver)
    assert driver.dock.stage.current.image is second
    assert np.array_equal(driver.painted, before)
    finish(driver)
    assert np.array_equal(kept(path), before)


def test_files_are_written_on_another_thread_when_the_image_goes(
    driver, tmp_path, monkeypatch
) -> None:
    path = write_sample(tmp_path / "s.png")
    layer = driver.open(path)
    driver.classes(1)
    stroke(driver)
    driver.settled()
    before = driver.painted
    threads, real = [], project_module.write

    def write(path, content):
        threads.append(threading.current_thread())
        return real(path, content)

    monkeypatch.setattr(project_module, "write", write)
    driver.dock.image.project.update_scribbles(None, np.flipud(before))
    driver.viewer.layers.remove(layer)
    driver.settled()
    assert threads
    assert threading.main_thread() not in threads
    assert np.array_equal(kept(path), np.flipud(before))


def test_a_full_disk_when_the_image_goes_is_told_and_loses_nothing(
    driver, tmp_path, monkeypatch
) -> None:
    from napari_alibi_seg._widgets import _project_flow

    path = write_sample(tmp_path / "s.png")
    layer = driver.open(path)
    driver.classes(1)
    stroke(driver)
    driver.settled()
    before, told = np.flipud(driver.painted), []
    driver.dock.image.project.update_scribbles(None, before)

    def write(path, content):
        raise OutputError(f"{path}: no space left")

    with monkeypatch.context() as patch:
        patch.setattr(_project_flow, "show_error", told.append)
        patch.setattr(project_module, "write", write)
        driver.viewer.layers.remove(layer)
        wait_until(lambda: told, "the error")
    assert "no space left" in told[0]
    driver.viewer.open(str(path), layer_type="image")
    wait_until(lambda: driver.dock.image or driver.dock.offer.is_open)
    if driver.dock.offer.is_open:
        driver.dock.offer.yes.click()
        driver.wait_image()
    driver.settled()
    assert np.array_equal(driver.painted, before)


def test_the_first_stroke_is_kept_if_no_worker_had_begun(driver, tmp_path) -> None:
    path = write_sample(tmp_path / "s.png")
    driver.open(path)
    driver.classes(1)
    stroke(driver)
    before, images = driver.painted, driver.dock.images
    driver.settled()
    # as if the lane was closed before its thread ran
    folder = driver.dock.image.project.folder
    driver.dock.session.drop(driver.dock.image.key)
    list(driver.dock.session.iter_write_leaving())
    folder.rename(tmp_path / "away")
    image = images.current
    image.is_dropped, image.pending = False, None
    driver.dock.session.images[image.key] = image
    images.projects._queue.lane.close()
    driver.dock.scribbles._stroke(None)
    assert image.project is None
    finish(driver)
    assert np.array_equal(kept(path), before)


@pytest.fixture
def slow_projects(monkeypatch):
    """Let the making of projects wait until the test allows it."""
    may_go_on, real = threading.Event(), Project.create

    def create(*args):
        assert may_go_on.wait(30)
        return real(*args)

    monkeypatch.setattr(Project, "create", create)
    yield may_go_on
    may_go_on.set()


def test_another_image_and_back_while_the_project_is_made(
    driver, tmp_path, slow_projects
) -> None:
    path = write_sample(tmp_path / "s.png")
    layer = driver.open(path)
    driver.classes(1)
    stroke(driver)
    spin(0.05)
    before, images = driver.painted, driver.dock.images
    (other,) = driver.viewer.open(
        str(write_sample(tmp_path / "other.png", seed=5)), layer_type="image"
    )
    images.choose(other)
    driver.wait_image()
    stroke(driver, 100)
    spin(0.05)
    on_other = driver.painted
    images.choose(layer)
    spin(0.1)
    slow_projects.set()
    driver.wait_image()
    driver.settled()
    assert np.array_equal(driver.painted, before)
    stroke(driver, 60)
    driver.settled()
    assert (driver.painted[before > 0] == 1).all()
    both = driver.painted
    images.choose(other)
    driver.wait_image()
    driver.settled()
    assert np.array_equal(driver.painted, on_other)
    finish(driver)
    assert np.array_equal(kept(path), both)
    assert np.array_equal(kept(tmp_path / "other.png"), on_other)


def test_a_project_that_is_opened_late_is_not_taken_for_the_shown_image(
    driver, tmp_path, monkeypatch
) -> None:
    path = write_sample(tmp_path / "s.png")
    identity = ImageIdentity.of(open_image(path))
    labels = np.zeros((128, 160), np.uint8)
    labels[5, 5:50] = 4
    with Project.create(identity) as project:
        project.save_scribbles(None, labels)
    may_go_on, real = threading.Event(), Project.open

    def slow(*args, **more):
        assert may_go_on.wait(30)
        return real(*args, **more)

    monkeypatch.setattr(Project, "open", slow)
    dock = driver.dock
    driver.viewer.open(str(path), layer_type="image")
    wait_until(lambda: dock.offer.is_open, "an offer to go on")
    dock.offer.yes.click()
    (other,) = driver.viewer.open(
        str(write_sample(tmp_path / "other.png", seed=5)), layer_type="image"
    )
    with capture_exceptions() as faults:
        dock.images.choose(other)
        driver.wait_image()
        may_go_on.set()
        driver.settled()
        assert dock.image.name == other.name
        driver.classes(1)
        stroke(driver)
        driver.settled()
        before = driver.painted
    assert not faults
    monkeypatch.undo()
    finish(driver)
    assert np.array_equal(kept(path), labels)
    assert np.array_equal(kept(tmp_path / "other.png"), before)


def test_a_stroke_on_a_plane_that_is_left_before_it_is_open(driver, tmp_path) -> None:
    planes = [synthesize("spinodal", (128, 160), seed=i).image for i in range(4)]
    path = tmp_path / "stack.tif"
    write_image(path, np.stack(planes), axes="ZYX")
    driver.open(path)
    dock = driver.dock
    driver.viewer.dims.set_current_step(0, 0)
    driver.wait_image()
    driver.settled()
    driver.paint_two()
    driver.settled()
    driver.viewer.dims.set_current_step(0, 1)
    driver.stroke((64, 30), (64, 90))
    spin(0.02)
    fresh = np.array(driver.scribbles.data[1])
    assert (fresh == 2).any()
    driver.viewer.dims.set_current_step(0, 2)
    driver.settled()
    wait_until(lambda: dock.image is not None and dock.stage.plane == (2,))
    driver.settled()
    assert np.array_equal(dock.image.project.load_scribbles(1), fresh)
    driver.viewer.dims.set_current_step(0, 3)
    driver.stroke((64, 30), (64, 90))
    spin(0.02)
    last = np.array(driver.scribbles.data[3])
    finish(driver)
    assert np.array_equal(kept(path, 1), fresh)
    assert np.array_equal(kept(path, 3), last)


def test_a_stroke_ends_before_what_is_kept_is_on_the_screen(
    driver, tmp_path, monkeypatch
) -> None:
    path = write_sample(tmp_path / "s.png")
    layer = driver.open(path)
    driver.classes(1)
    stroke(driver)
    driver.settled()
    before = driver.painted
    driver.viewer.layers.remove(layer)
    driver.settled()
    flow = driver.dock.scribbles
    # a worker that never comes to reading them
    monkeypatch.setattr(
        flow._kept, "start", lambda *_, **__: setattr(flow._kept, "_ticket", _Ticket())
    )
    driver.viewer.open(str(path), layer_type="image")
    wait_until(lambda: driver.dock.offer.is_open, "an offer to go on")
    driver.dock.offer.yes.click()
    driver.wait_image()
    assert flow.is_loading
    flow._show_blank(driver.dock.image)
    driver.dock.stage.arm(1)
    driver.stroke((40, 10), (40, 60))
    spin(0.05)
    fresh = driver.painted
    assert not flow.is_loading
    assert (fresh[20, 15:55] == 1).all()
    assert (fresh[40, 15:55] == 1).all()
    assert (fresh[before > 0] == before[before > 0]).all()
    finish(driver)
    assert np.array_equal(kept(path), fresh)


class _Ticket:
    """Of a job that has not said anything yet."""

    def stop(self) -> None:
        pass


def test_what_is_painted_is_kept_when_qt_deletes_the_dock(driver, tmp_path) -> None:
    from qtpy import sip

    path = write_sample(tmp_path / "s.png")
    driver.open(path)
    driver.classes(1)
    stroke(driver)
    spin(0.05)
    before, dock = driver.painted, driver.dock
    lanes = [lane for flow in dock.flows for lane in flow.lanes]
    with capture_exceptions() as faults:
        sip.delete(dock)
        wait_until(lambda: all(lane.is_idle for lane in lanes), "threads to end")
    assert not faults
    assert np.array_equal(kept(path), before)
