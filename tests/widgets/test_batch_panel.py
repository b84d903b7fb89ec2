"""The Batch tab: real clicks and drops, real batches, and the same bytes as the CLI."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("napari")

from qtpy.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QApplication
from segmenter.samples import sample, write_tiny_vit

import napari_alibi_seg
from napari_alibi_seg._base import FeatureSettings
from napari_alibi_seg._segmenter import BatchOptions, Segmenter, iter_apply
from napari_alibi_seg._widgets import _batch_run
from napari_alibi_seg._widgets._batch_panel import BatchPanel
from napari_alibi_seg._widgets._dialogs import Dialogs
from napari_alibi_seg.data import open_image, read_labels, write_image
from napari_alibi_seg.features import load_backbone

pytestmark = pytest.mark.gui

REPOSITORY = Path(__file__).resolve().parents[2]
SAMPLES = REPOSITORY / "sample_data"
LEFT = Qt.MouseButton.LeftButton
# how each `alibi-seg` is started without an installed package
START = "import sys; from napari_alibi_seg._cli import main; sys.exit(main())"


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> Path:
    """A classical classifier of three classes, on a sample of the package."""
    path = tmp_path_factory.mktemp("classifier") / "alloy.alibiseg"
    segmenter = Segmenter()
    scribbles = read_labels(SAMPLES / "precipitates_scribbles.png")
    segmenter.fit(SAMPLES / "precipitates.tif", scribbles)
    segmenter.save(path)
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("ALIBI_SEG_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def scans(tmp_path) -> Path:
    """A folder with two small images, and one beside it that is none."""
    folder = tmp_path / "my scans"
    folder.mkdir()
    for i, name in enumerate(("one", "two"), start=1):
        write_image(folder / f"{name}.tif", sample(seed=i)[0], axes="YX")
    (tmp_path / "broken.tif").write_bytes(b"II*\0 this is no image")
    return folder


@pytest.fixture
def panel(qtbot):
    made = BatchPanel()
    qtbot.addWidget(made)
    made.resize(320, 700)
    with qtbot.waitExposed(made):
        made.show()
    yield made
    made.stop()
    qtbot.waitUntil(lambda: made.lane.is_idle, timeout=20_000)


def run(qtbot, panel) -> None:
    """Click Run and wait for the end."""
    qtbot.mouseClick(panel.run_button, LEFT)
    assert panel.lane.is_busy
    qtbot.waitUntil(lambda: not panel.lane.is_busy, timeout=60_000)


def drop(panel, *paths: Path) -> bool:
    """Drop files on the list as a file manager would."""
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(p)) for p in paths])
    viewport = panel.files.viewport()
    at, action = QPointF(20, 20), Qt.DropAction.CopyAction
    none = Qt.KeyboardModifier.NoModifier
    enter = QDragEnterEvent(at.toPoint(), action, data, LEFT, none)
    QApplication.sendEvent(viewport, enter)
    event = QDropEvent(at, action, data, LEFT, none)
    QApplication.sendEvent(viewport, event)
    return enter.isAccepted()


def states(panel) -> dict[str, str]:
    return {Path(path).name: state for path, state in panel.files.states().items()}


# ------------------------------------------------------------------ what to do next


def test_an_empty_panel_says_what_to_do_next(panel, classifier, scans) -> None:
    assert "choose a classifier file" in panel.hint.text()
    panel.set_classifier(classifier)
    assert panel.hint.text().startswith("Add image files or a folder")
    assert not panel.run_button.isEnabled()
    drop(panel, scans)
    assert panel.hint.isHidden()
    assert panel.out.text() == str(scans / "segmented")
    assert panel.run_button.isEnabled()
    panel.out.clear()
    assert panel.hint.text() == "Choose the folder for the outputs."
    assert not panel.run_button.isEnabled()


def test_it_is_readable_at_320_pixels(panel, classifier, scans) -> None:
    panel.set_classifier(classifier)
    drop(panel, scans, scans.parent / ("a_very_long_name_" * 8 + ".tif"))
    panel.summary.say("a sentence of several words that has to wrap " * 3)
    assert panel.minimumSizeHint().width() <= 300
    assert panel.width() == 320
    header = panel.files.header()
    assert header.length() <= panel.files.viewport().width()


def test_every_control_has_a_tooltip(panel) -> None:
    controls = [
        panel.classifier.choice,
        panel.files,
        panel.out,
        panel.command,
        panel.bar,
    ]
    controls += [w for n, w in vars(panel).items() if n.endswith("_button")]
    controls += [w.native for w in panel.options]
    assert len(controls) >= 15
    assert all(control.toolTip() for control in controls)


# -------------------------------------------------------------------- what is chosen


def test_files_are_dropped_added_and_removed(qtbot, panel, scans, classifier) -> None:
    panel._dialogs = Dialogs(
        open_images=lambda parent: [scans / "one.tif", scans / "two.tif"],
        open_folder=lambda parent, title: scans.parent,
    )
    qtbot.mouseClick(panel.add_files_button, LEFT)
    qtbot.mouseClick(panel.add_files_button, LEFT)
    qtbot.mouseClick(panel.add_folder_button, LEFT)
    expected = (scans / "one.tif", scans / "two.tif", scans.parent)
    assert panel.files.inputs() == expected
    first = panel.files.visualItemRect(panel.files.topLevelItem(0)).center()
    qtbot.mouseClick(panel.files.viewport(), LEFT, pos=first)
    qtbot.mouseClick(panel.remove_button, LEFT)
    assert panel.files.inputs() == expected[1:]
    qtbot.mouseClick(panel.files.viewport(), LEFT, pos=first)
    qtbot.keyClick(panel.files, Qt.Key.Key_Delete)
    assert panel.files.inputs() == expected[2:]
    assert drop(panel, classifier, scans / "one.tif")
    assert panel.files.inputs() == (scans.parent, scans / "one.tif")
    assert panel.classifier.choice.currentText() == "file: alloy.alibiseg"


def test_text_that_is_no_file_is_not_taken(panel) -> None:
    assert not drop(panel)
    assert panel.files.inputs() == ()


def test_the_dock_and_a_file_are_kept_apart(qtbot, panel, classifier, scans) -> None:
    other = scans / "other.alibiseg"
    panel._dialogs = Dialogs(open_classifier=lambda parent: other)
    panel.set_classifier(classifier)
    drop(panel, scans)
    assert panel.request().classifier == classifier
    qtbot.mouseClick(panel.classifier.choose_button, LEFT)
    assert panel.request().classifier == other
    # a new classifier of the dock does not replace what the user chose
    panel.set_classifier(scans / "newer.alibiseg")
    assert panel.request().classifier == other
    qtbot.keyClick(panel.classifier.choice, Qt.Key.Key_Up)
    assert panel.request().classifier == scans / "newer.alibiseg"
    panel.set_classifier(None)
    assert panel.request() is None


def test_command_line_follows_every_option(qtbot, panel, classifier, scans) -> None:
    panel.set_classifier(classifier)
    drop(panel, scans)
    base = ["alibi-seg", "apply", str(classifier), str(scans), "--out"]
    out = str(scans / "segmented")
    assert shlex.split(panel.command.toPlainText()) == [*base, out]
    for name in ("probabilities", "uncertainty", "recursive", "overwrite"):
        box = panel.options[name].native
        qtbot.mouseClick(box, LEFT, pos=QPoint(10, box.height() // 2))
        assert f" --{name}" in panel.command.toPlainText()
    plane = panel.options["plane"].native
    qtbot.keyClicks(plane, "x12")
    assert shlex.split(panel.command.toPlainText())[-2:] == ["--plane", "12"]
    smooth = panel.options["z_smooth"].native
    assert not smooth.isEnabled()
    box = panel.options["all_planes"].native
    qtbot.mouseClick(box, LEFT, pos=QPoint(10, box.height() // 2))
    assert not plane.isEnabled()
    assert shlex.split(panel.command.toPlainText())[-1] == "--all-planes"
    qtbot.keyClicks(panel.options["time"].native, "4")
    assert shlex.split(panel.command.toPlainText())[-2:] == ["--time", "4"]
    qtbot.keyClick(smooth, Qt.Key.Key_Up)
    assert shlex.split(panel.command.toPlainText())[-2:] == ["--z-smooth", "0.5"]
    qtbot.keyClick(panel.options["format"].native, Qt.Key.Key_Down)
    assert shlex.split(panel.command.toPlainText())[-2:] == ["--format", "ome-zarr"]
    assert panel.request().options() == BatchOptions(
        probabilities=True,
        uncertainty=True,
        overwrite=True,
        all_planes=True,
        time=4,
        z_smooth=0.5,
        format="ome-zarr",
    )
    panel.set_device("cpu")
    assert shlex.split(panel.command.toPlainText())[-2:] == ["--device", "cpu"]
    panel.out.setText("~nobody-of-that-name/x")
    assert "nobody-of-that-name/x" in panel.command.toPlainText()
    qtbot.mouseClick(panel.copy_button, LEFT)
    assert QApplication.clipboard().text() == panel.command.toPlainText()
    assert panel.command.isReadOnly()


# ------------------------------------------------------------------------- it runs


def test_files_equal_those_of_the_command_line(
    qtbot, panel, classifier, scans, tmp_path
) -> None:
    panel.set_classifier(classifier)
    samples = [SAMPLES / "precipitates.tif", SAMPLES / "graded.tif"]
    drop(panel, samples[0], tmp_path / "broken.tif", samples[1])
    panel.out.setText(str(tmp_path / "by panel"))
    for name in ("probabilities", "uncertainty"):
        panel.options[name].value = True
    line = panel.command.toPlainText()
    run(qtbot, panel)
    assert states(panel) == {
        "precipitates.tif": "done",
        "broken.tif": "failed",
        "graded.tif": "done",
    }
    words = shlex.split(line.replace("by panel", "by command"))
    done = subprocess.run(
        [sys.executable, "-c", START, *words[1:]],
        env={
            **os.environ,
            "PYTHONPATH": str(Path(napari_alibi_seg.__path__[0]).parent),
            "ALIBI_SEG_CACHE": str(tmp_path / "other cache"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    ours, theirs = tmp_path / "by panel", tmp_path / "by command"
    names = sorted(p.name for p in ours.glob("*.tif"))
    assert names == sorted(p.name for p in theirs.glob("*.tif"))
    assert len(names) == 6
    for name in names:
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name
    labels = read_labels(ours / "precipitates_labels.tif")
    assert set(np.unique(labels)) == {1, 2, 3}
    # the messages too
    row = panel.files.topLevelItem(1)
    assert row.text(2)
    assert row.text(2) in done.stderr
    assert row.toolTip(2) == row.text(2)
    panel.files.setCurrentItem(row)
    assert panel.detail.text() == f"broken.tif: {row.text(2)}"


def test_a_second_run_skips_and_sums_up(
    qtbot, panel, classifier, scans, tmp_path
) -> None:
    panel.set_classifier(classifier)
    drop(panel, scans)
    out = tmp_path / "out"
    panel.out.setText(str(out))
    run(qtbot, panel)
    assert panel.summary.text() == f"2 done; summary.csv in {out}."
    assert (out / "summary.csv").is_file()
    before = (out / "one_labels.tif").stat().st_mtime_ns
    write_image(scans / "three.tif", sample(seed=3)[0], axes="YX")
    drop(panel, tmp_path / "broken.tif", out)
    run(qtbot, panel)
    text = panel.summary.text()
    assert text == f"1 done, 2 skipped, 1 failed; summary.csv in {out}."
    assert states(panel) == {
        "one.tif": "skipped",
        "three.tif": "done",
        "two.tif": "skipped",
        "broken.tif": "failed",
    }
    assert (out / "one_labels.tif").stat().st_mtime_ns == before
    folder = panel.files.topLevelItem(0)
    assert (folder.text(1), folder.childCount()) == ("3 of 3", 3)
    assert panel.files.topLevelItem(2).text(1) == "left out"
    assert "already" in folder.child(0).toolTip(2).lower()
    assert panel.bar.value() == panel.bar.maximum() == 4
    assert panel.run_button.isEnabled()


@pytest.fixture
def slow(monkeypatch, scans):
    """Let a batch pause in its second file until it is told to go on."""
    go, seen = threading.Event(), []

    def steps(*args):
        for event in iter_apply(*args):
            seen.append(event)
            yield event
            if len(seen) >= 3:
                go.wait(20)

    monkeypatch.setattr(_batch_run, "iter_apply", steps)
    # several tiles, so that it can be left in the middle
    noise = np.random.default_rng(0).integers(0, 255, (1100, 600), np.uint8)
    write_image(scans / "two.tif", noise, axes="YX")
    yield go, seen
    go.set()


def test_cancel_keeps_what_is_done(
    qtbot, panel, classifier, scans, tmp_path, slow
) -> None:
    go, seen = slow
    panel.set_classifier(classifier)
    drop(panel, scans)
    out = tmp_path / "out"
    panel.out.setText(str(out))
    qtbot.mouseClick(panel.run_button, LEFT)
    qtbot.waitUntil(lambda: len(seen) >= 3, timeout=30_000)
    qtbot.waitUntil(lambda: "running" in states(panel)["two.tif"], timeout=60_000)
    percent = int(states(panel)["two.tif"].split()[1])
    assert 0 < percent < 100
    assert not panel.add_files_button.isEnabled()
    assert not drop(panel, scans / "one.tif")
    assert panel.cancel_button.isEnabled()
    qtbot.mouseClick(panel.cancel_button, LEFT)
    assert states(panel) == {"one.tif": "done", "two.tif": "cancelled"}
    assert panel.summary.text() == "Cancelled: 1 done, 1 left. Run again to go on."
    go.set()
    # pressed while the last one is still stopping: it waits for it
    run(qtbot, panel)
    assert states(panel) == {"one.tif": "skipped", "two.tif": "done"}
    assert sorted(p.name for p in out.glob("*.tif")) == [
        "one_labels.tif",
        "two_labels.tif",
    ]


def test_closing_while_it_runs_leaves_no_thread(
    qtbot, classifier, scans, tmp_path, slow
) -> None:
    go, seen = slow
    panel = BatchPanel()
    qtbot.addWidget(panel)
    panel.show()
    panel.set_classifier(classifier)
    drop(panel, scans)
    panel.out.setText(str(tmp_path / "out"))
    qtbot.mouseClick(panel.run_button, LEFT)
    qtbot.waitUntil(lambda: len(seen) >= 3, timeout=30_000)
    panel.stop()
    go.set()
    qtbot.waitUntil(lambda: panel.lane.is_idle, timeout=20_000)
    qtbot.mouseClick(panel.run_button, LEFT)
    assert not panel.lane.is_busy
    assert not list((tmp_path / "out").glob("two*"))


# -------------------------------------------------------------------- what goes wrong


def test_lost_weights_are_explained_and_can_be_found(
    qtbot, panel, scans, tmp_path
) -> None:
    weights = write_tiny_vit(tmp_path / "tiny.safetensors")
    image, _, scribbles = sample()
    segmenter = Segmenter(
        load_backbone(weights, num_heads=1, alibi=None, device="cpu"),
        features=FeatureSettings(kind="both", tile_px=140, components=4, scale=1.0),
    )
    segmenter.fit(image, scribbles)
    segmenter.save(tmp_path / "vit.alibiseg")
    moved = weights.rename(tmp_path / "moved.safetensors")
    panel._dialogs = Dialogs(open_weights=lambda parent: moved)
    panel.set_device("cpu")
    panel.set_classifier(tmp_path / "vit.alibiseg")
    drop(panel, scans / "one.tif")
    run(qtbot, panel)
    assert "weights" in panel.summary.text()
    assert "tiny" in panel.summary.text()
    assert states(panel) == {"one.tif": "not done"}
    assert not (scans / "segmented").exists()
    assert panel.classifier.weights_button.isVisible()
    qtbot.mouseClick(panel.classifier.weights_button, LEFT)
    assert f"--backbone {moved}" in panel.command.toPlainText()
    run(qtbot, panel)
    assert states(panel) == {"one.tif": "done"}
    # those of another classifier are elsewhere
    panel.set_classifier(tmp_path / "another.alibiseg")
    assert "--backbone" not in panel.command.toPlainText()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda p: p.write_bytes(b"x" * 99), "alloy", id="damaged"),
        pytest.param(lambda p: None, "alloy", id="missing"),
    ],
)
def test_a_bad_classifier_is_a_sentence(
    qtbot, panel, scans, tmp_path, make, message
) -> None:
    path = tmp_path / "alloy.alibiseg"
    make(path)
    panel.set_classifier(path)
    drop(panel, scans)
    run(qtbot, panel)
    assert message in panel.summary.text()
    assert panel.summary.property("is_error")
    assert panel.run_button.isEnabled()
    assert not panel.classifier.weights_button.isVisible()


def test_a_folder_without_images_and_an_unusable_output(
    qtbot, panel, classifier, scans, tmp_path
) -> None:
    (tmp_path / "empty").mkdir()
    panel.set_classifier(classifier)
    drop(panel, tmp_path / "empty")
    run(qtbot, panel)
    assert "No image found" in panel.summary.text()
    drop(panel, scans)
    panel.out.setText(str(tmp_path / "broken.tif"))
    run(qtbot, panel)
    assert "output folder" in panel.summary.text()
    assert panel.files.topLevelItem(0).toolTip(2) == "No image lies in this folder."


def test_memory_running_out_is_told(
    qtbot, panel, classifier, scans, monkeypatch
) -> None:
    def burst(*args, **kwargs):
        raise RuntimeError("CUDA error: no kernel image")

    monkeypatch.setattr(Segmenter, "load", burst)
    panel.set_classifier(classifier)
    drop(panel, scans)
    run(qtbot, panel)
    assert "CUDA error: no kernel image" in panel.summary.text()
    assert panel.add_files_button.isEnabled()


def test_outputs_carry_the_pixel_size(qtbot, panel, classifier, tmp_path) -> None:
    panel.set_classifier(classifier)
    drop(panel, SAMPLES / "precipitates.tif")
    panel.out.setText(str(tmp_path / "out"))
    run(qtbot, panel)
    size = open_image(tmp_path / "out" / "precipitates_labels.tif").pixel_size
    assert (size.y, size.unit) == (0.02, "um")
