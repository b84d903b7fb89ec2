"""The whole dock on a real micrograph: what a user gets is what the core computes."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pytest

pytest.importorskip("napari")
from widgets import walk
from widgets.driver import QUIET, Driver, wait_until
from widgets.walk import Walk, find_micrograph

from napari_alibi_seg import Segmenter
from napari_alibi_seg._base import ClassifierSettings, FeatureSettings
from napari_alibi_seg.data import read_labels

pytestmark = [pytest.mark.gui, *(pytest.mark.filterwarnings(q) for q in QUIET)]


@pytest.mark.slow
def test_the_whole_dock_on_a_real_micrograph(
    shared_dir, driver, tmp_path, make_napari_viewer
) -> None:
    went = Walk(driver, find_micrograph(shared_dir), tmp_path)
    went.run()
    painted = read_labels(went.file("scribbles.tif"))
    check_scribbles(went, painted)
    check_looks(went)

    settings = ClassifierSettings(n_trees=driver.dock.settings.n_trees)
    features = FeatureSettings(kind="both", scale=walk.SCALE)
    core = Segmenter("alibi-tiny", features=features, classifier=settings, device="cpu")
    expected = core.fit(went.path, painted).predict(went.path)
    assert driver.labels.data.dtype == expected.labels.dtype
    assert driver.labels.data.tobytes() == expected.labels.tobytes()
    assert set(np.unique(expected.labels)) == {1, 2, 3}
    # better than one class everywhere: half of this image is matrix
    assert np.mean(expected.labels - 1 == went.truth) > 0.6

    check_files(went, expected)
    check_batch(went, expected)
    check_fresh_viewer(went, expected, make_napari_viewer)


def check_scribbles(went, painted) -> None:
    assert np.array_equal(painted, went.driver.painted)
    for i in (1, 2, 3):
        here = painted == i
        assert walk.ndimage.label(here, np.ones((3, 3)))[1] == walk.STROKES
        assert np.mean(went.truth[here] == i - 1) > 0.98
    classes = went.dock.session.classes
    assert [(e.id, e.name, e.colour) for e in classes] == [
        (i + 1, walk.NAMES[i], walk.COLOURS[i]) for i in range(3)
    ]


def check_looks(went) -> None:
    looks = went.looks
    assert looks["components"].ndim == 3
    assert looks["component 2"].ndim == 2
    assert set(np.unique(looks["clusters"])) == {1, 2, 3}
    assert went.dock.stage.current.overlay is None
    seen = looks["similarity"]
    step = went.truth.shape[0] // seen.shape[0]
    row, col = (n // step for n in went.point)
    # brightest around the point; between the ViT's patches it is interpolated
    side = 16 // step
    near = seen[row - side : row + side + 1, col - side : col + side + 1]
    assert near.max() == seen.max()
    # the least certain place is in the image, and nobody painted there
    row, col = (round(x) for x in went.least_certain)
    assert went.driver.painted[row, col] == 0
    table = went.dock.train_panel.table
    cells = [table.item(i, 1).text() for i in range(table.rowCount())]
    assert cells == ["3", "3", "3", "9"]


def check_files(went, expected) -> None:
    import tifffile

    assert np.array_equal(read_labels(went.file("labels.tif")), expected.labels)
    saved = tifffile.imread(went.file("probabilities.tif"))
    assert np.array_equal(saved, expected.probabilities)
    with went.file("table.csv").open(newline="") as file:
        rows = {int(r["class_id"]): r for r in csv.DictReader(file)}
    for i in (1, 2, 3):
        n = int((expected.labels == i).sum())
        assert rows[i]["class"] == walk.NAMES[i - 1]
        assert int(rows[i]["pixels"]) == n
        assert float(rows[i]["area_um2"]) == pytest.approx(n * walk.PIXEL_UM**2)


def check_batch(went, expected) -> None:
    states = went.dock.batch_panel.files.states()
    assert states == {str(p): "done" for p in went.series}
    files = [went.out / f"{p.stem}_labels.tif" for p in went.series]
    from_tab = [read_labels(f).tobytes() for f in files]
    assert from_tab[0] == expected.labels.tobytes()
    shutil.rmtree(went.out)
    ended = went.run_command()
    assert ended.returncode == 0, ended.stderr
    assert [read_labels(f).tobytes() for f in files] == from_tab


def check_fresh_viewer(went, expected, make_napari_viewer) -> None:
    fresh = Driver(make_napari_viewer(show=True))
    dock = fresh.add_dock()
    try:
        went.load_in(fresh)
        assert dock.session.classes.names == dict(enumerate(walk.NAMES, start=1))
        assert dock.settings.n_trees == went.dock.settings.n_trees
        assert fresh.labels.data.tobytes() == expected.labels.tobytes()
    finally:
        dock.end()
        wait_until(lambda: dock.is_idle, "threads to end")
