"""While features are computed, the GUI thread only shows how far they are."""

from __future__ import annotations

import threading
import time

import pytest

pytest.importorskip("napari")
from widgets import gestures
from widgets.driver import QUIET, write_sample

from napari_alibi_seg import Segmenter
from napari_alibi_seg._widgets._hooks import record_callbacks

pytestmark = [pytest.mark.gui, *(pytest.mark.filterwarnings(q) for q in QUIET)]

HOLD_S = 0.05  # what is promised
SLOW_S = 0.6
PATIENCE_S = 150.0  # on a computer that does other things too
SHARE = 0.25  # of the time of a tile: what slow computers are allowed


@pytest.fixture
def ready(driver, tmp_path):
    """A backbone that is loaded already."""
    driver.open(write_sample(tmp_path / "small.png"))
    panel = driver.dock.features_panel
    gestures.pick(driver.dock.image_panel.device, "cpu")
    gestures.pick(driver.dock.image_panel.scale, "1")
    gestures.pick(panel.kind, "both")
    gestures.pick(panel.backbone, "alibi-tiny")
    gestures.press(panel.extract)
    driver.settled(PATIENCE_S)
    return driver


def open_tiled(driver, folder, shape: tuple[int, int]) -> None:
    """Open an image of several tiles."""
    path = write_sample(folder / "big.tif", "precipitates", shape=shape)
    (layer,) = driver.viewer.open(str(path), layer_type="image")
    gestures.pick(driver.dock.image_panel.image, layer)
    driver.wait_image()
    driver.settled()


def too_long(times, per_tile: float) -> list[str]:
    """Return the callbacks that held the window for too long."""
    limit = max(HOLD_S, SHARE * per_tile)
    return [f"{t.name}: {t.seconds:.3f} s" for t in times if t.seconds > limit]


def extract(driver):
    """Extract; return callback times, seconds a tile, tiles, and who computed."""
    tiles, threads = [], set()
    iter_complete = Segmenter.iter_complete

    def watched(self, *args, **more):
        for event in iter_complete(self, *args, **more):
            tiles.append(time.perf_counter())
            threads.add(threading.current_thread() is threading.main_thread())
            yield event

    with pytest.MonkeyPatch.context() as patch, record_callbacks() as times:
        patch.setattr(Segmenter, "iter_complete", watched)
        gestures.press(driver.dock.features_panel.extract)
        driver.settled(PATIENCE_S)
    assert driver.dock.image.is_extracted
    per_tile = (tiles[-1] - tiles[0]) / (len(tiles) - 1)
    return times, per_tile, len(tiles), threads


def test_extraction_leaves_the_window_alone(ready, tmp_path) -> None:
    open_tiled(ready, tmp_path, (800, 800))
    times, per_tile, n_tiles, threads = extract(ready)
    assert threads == {False}, "tiles were computed on the GUI thread"
    assert not too_long(times, per_tile)
    assert any("deliver" in t.name for t in times)
    # in all; nested callbacks are counted twice
    assert sum(t.seconds for t in times) < 0.5 * per_tile * n_tiles


def test_the_hook_would_tell(ready, tmp_path, monkeypatch) -> None:
    ready.dock.change_settings({"tile_px": 224})  # the wait below is what takes long
    open_tiled(ready, tmp_path, (330, 330))
    panel = ready.dock.features_panel
    show = panel.show_progress

    def slow(*args, **more):
        time.sleep(SLOW_S)  # as computing on this thread would
        show(*args, **more)

    monkeypatch.setattr(panel, "show_progress", slow)
    times, per_tile, *_ = extract(ready)
    assert too_long(times, min(per_tile, SLOW_S))
