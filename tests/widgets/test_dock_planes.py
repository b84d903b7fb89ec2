"""Stacks in time and depth: strokes and results belong to their plane."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("napari")
from qtpy.QtCore import Qt
from widgets.driver import FEW, QUIET, wait_until

from napari_alibi_seg import Segmenter
from napari_alibi_seg._base import ClassifierSettings, PixelSize
from napari_alibi_seg.data import open_image, synthesize, write_image

pytestmark = [pytest.mark.gui, *(pytest.mark.filterwarnings(q) for q in QUIET)]

SHAPE = (96, 120)


@pytest.fixture
def stack(tmp_path):
    """Two times of three planes, all different."""
    planes = [
        [synthesize("spinodal", SHAPE, seed=3 * t + z).image for z in range(3)]
        for t in range(2)
    ]
    write_image(tmp_path / "tz.tif", np.array(planes), axes="TZYX")
    return tmp_path / "tz.tif"


def go(driver, time: int, plane: int) -> None:
    """Move both sliders, as their arrow keys do."""
    driver.viewer.dims.set_current_step(0, time)
    driver.viewer.dims.set_current_step(1, plane)
    wait_until(
        lambda: (
            driver.dock.image is not None and driver.dock.stage.plane == (time, plane)
        )
    )
    driver.settled()


def paint(driver, rows) -> None:
    for key, row in zip("12", rows, strict=True):
        driver.key(key)
        driver.stroke((row, 10), (row, 90))
    driver.settled()


def test_two_planes_of_a_stack_in_time(driver, stack) -> None:
    driver.open(stack)
    assert driver.viewer.dims.ndim == 4
    go(driver, 1, 2)
    assert "(1, 2)" in driver.dock.image_panel.plane.text()
    driver.classes(1, 2)
    paint(driver, (15, 70))
    first = driver.painted
    assert first.shape == SHAPE
    alone = driver.labels.data.copy()
    assert alone.shape == (2, 3, *SHAPE)
    assert alone[1, 2].all()
    alone[1, 2] = 0
    assert not alone.any()
    assert not driver.scribbles.data[0].any()
    assert not driver.scribbles.data[1, :2].any()

    few = ClassifierSettings(n_trees=FEW)
    core = Segmenter(classifier=few)
    image = open_image(stack, time=1, plane=2)
    expected = core.fit(image, first).predict(image).labels
    assert driver.labels.data[1, 2].tobytes() == expected.tobytes()

    # the same classifier on a plane nobody painted
    go(driver, 0, 1)
    assert not driver.painted.any()
    driver.dock.update_once()
    driver.settled()
    other = open_image(stack, time=0, plane=1)
    assert driver.labels.data[0, 1].tobytes() == core.predict(other).labels.tobytes()

    # strokes of both teach it, those of the shown plane first
    paint(driver, (40, 80))
    second = driver.painted
    assert not np.array_equal(first, second)
    both = Segmenter(classifier=few).fit([other, image], [second, first])
    shown = driver.labels.data
    assert shown[0, 1].tobytes() == both.predict(other).labels.tobytes()
    counts = {i: n for i, (n, _) in driver.table().items()}
    assert counts == {i: int((first == i).sum() + (second == i).sum()) for i in (1, 2)}

    # and each is kept as what it is
    project = driver.dock.image.project
    assert project.planes == ((0, 1), (1, 2))
    go(driver, 1, 2)
    assert np.array_equal(driver.painted, first)
    assert np.array_equal(project.load_scribbles((0, 1)), second)


def test_an_undo_stays_on_its_plane(driver, stack) -> None:
    driver.open(stack)
    go(driver, 0, 0)
    driver.classes(1, 2)
    paint(driver, (15, 70))
    first = driver.painted
    go(driver, 1, 0)
    paint(driver, (30, 50))
    for _ in range(5):  # more than was painted here
        driver.key(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    driver.settled()
    assert not driver.painted.any()
    go(driver, 0, 0)
    assert np.array_equal(driver.painted, first)


def test_opened_again_each_plane_is_there(driver, stack, monkeypatch) -> None:
    from vispy.app.backends._qt import CanvasBackendDesktop

    image = driver.open(stack)
    kept = {}
    driver.classes(1, 2)
    for at, rows in (((0, 2), (15, 70)), ((1, 1), (30, 60))):
        go(driver, *at)
        paint(driver, rows)
        kept[at] = driver.painted
    # napari dies in Mesa's software drivers when layers go: see test_dock_end
    monkeypatch.setattr(CanvasBackendDesktop, "paintGL", lambda _self: None)
    driver.viewer.layers.remove(image)
    wait_until(lambda: len(driver.viewer.layers) == 0)
    driver.viewer.open(str(stack), layer_type="image")
    wait_until(lambda: driver.dock.offer.is_open, "an offer to go on")
    driver.dock.offer.yes.click()
    driver.wait_image()
    for at, before in kept.items():
        go(driver, *at)
        assert np.array_equal(driver.painted, before), at


def test_a_mask_of_all_planes_gives_that_on_show(driver, stack, tmp_path) -> None:
    masks = np.zeros((2, 3, *SHAPE), np.uint8)
    masks[1, 2, 20:30, 10:50], masks[0, 2, 5:9, 5:9] = 4, 3
    write_image(tmp_path / "masks.tif", masks, axes="TZYX")
    driver.open(stack)
    go(driver, 1, 2)
    driver.dock.classes_panel.mask_file_wanted.emit(tmp_path / "masks.tif")
    driver.settled()
    assert np.array_equal(driver.painted, masks[1, 2])


def test_a_typed_pixel_size_keeps_the_distance_of_planes(driver, tmp_path) -> None:
    image = synthesize("spinodal", SHAPE, seed=3).image
    size = PixelSize(0.5, 0.5, "um", z=2.0)
    write_image(
        tmp_path / "z.tif", np.array([image, image]), axes="ZYX", pixel_size=size
    )
    driver.open(tmp_path / "z.tif")
    driver.dock.image_panel.pixel_size_wanted.emit((40.0, "nm"))
    assert driver.dock.image.source.pixel_size == PixelSize(40.0, 40.0, "nm", z=2000.0)
