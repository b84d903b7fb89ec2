"""Position in features, in a real dock: warned of, measured, cured."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("napari")
from widgets import gestures
from widgets.driver import QUIET, spin, wait_until, write_sample

from napari_alibi_seg import Segmenter
from napari_alibi_seg._workspace import _position
from napari_alibi_seg.data import open_image, synthesize, write_image

pytestmark = [pytest.mark.gui, *(pytest.mark.filterwarnings(q) for q in QUIET)]

DATA = Path(__file__).parents[1] / "data"
TITLE = "Position in the features"


@pytest.fixture
def lab(driver, tmp_path, monkeypatch):
    """A driver with an image, a twin as backbone, and the panel unfolded."""
    monkeypatch.setattr(_position, "_N_CROPS", 6)
    for name in ("twin-table", "twin-alibi"):
        shutil.copy(DATA / f"{name}.safetensors", tmp_path)
    driver.folder = tmp_path
    driver.open(write_sample(tmp_path / "s.png", shape=(224, 280)))
    gestures.unfold(driver.dock.sections[TITLE])
    return driver


def choose(lab, name: str) -> None:
    path = lab.folder / f"{name}.safetensors"
    lab.dock.change_settings(
        {"features": "vit", "backbone": str(path), "device": "cpu", "components": 8}
    )
    lab.settled()


def measured(lab):
    """Press Measure, wait, return the report."""
    before = lab.dock.position._report
    gestures.press(lab.dock.position_panel.measure)
    assert lab.dock.position_panel.cancel.isVisible()
    lab.settled()
    report = lab.dock.position._report
    assert report is not before, lab.dock.position_panel.wait.note.text()
    return report


def checked(lab) -> None:
    """Extract by the button, and wait for the first look."""
    gestures.press(lab.dock.features_panel.extract)
    flow = lab.dock.position
    wait_until(lambda: flow._patience.isActive() or flow._check.is_busy, "the look")
    wait_until(
        lambda: not flow._patience.isActive() and not flow._check.is_busy, "its end"
    )


def warning(lab) -> str:
    hint = lab.dock.features_panel.warning
    return hint.text() if hint.isVisible() else ""


class TestMeasuring:
    def test_the_table_is_high_and_a_cure_takes_it_out(self, lab):
        choose(lab, "twin-table")
        panel = lab.dock.position_panel
        high = measured(lab)
        assert high.level == "high"
        assert high.table["lr+ud"].transfer_r2 > 0.6
        assert "know where" in panel.verdict.text()
        roll = "Average of 4 rolled copies (4 passes a tile)"
        gestures.pick(lab.dock.features_panel.cure, "roll=4")
        assert lab.dock.features_panel.cure.currentText() == roll
        low = measured(lab)
        assert low.name == "twin-table+roll=4"
        assert low.table["lr+ud"].transfer_r2 < 0.1
        assert low.level != "high"
        assert "twin-table: high" in panel.before.text()

    def test_alibi_has_none(self, lab):
        choose(lab, "twin-alibi")
        report = measured(lab)
        assert report.table["lr+ud"].transfer_r2 < 0.1
        assert report.level != "high"

    def test_layers_lie_where_the_crop_was(self, lab):
        choose(lab, "twin-table")
        report = measured(lab)
        panel, image = lab.dock.position_panel, lab.dock.stage.current.image
        n = len(lab.viewer.layers)
        gestures.press(panel.layers)
        made = lab.dock.stage.current.place
        assert len(lab.viewer.layers) == n + 4
        assert [layer.visible for layer in made] == [False, False, False, True]
        assert made[-1].name.startswith("column read: twin-table")
        assert np.array_equal(made[-1].data, report.pictures.prediction[..., 0])
        window = report.pictures.window
        corner = made[-1].data_to_world((-0.5, -0.5))
        at = image.data_to_world((window.y0 - 0.5, window.x0 - 0.5))
        assert np.allclose(corner, at)
        # the pixels of that window are what the probe was shown
        raw = image.data[window.slices].astype(float)
        seen = report.pictures.crop[0]
        assert np.corrcoef(raw.ravel(), seen.ravel())[0, 1] > 0.99
        gestures.press(panel.layers)
        assert len(lab.viewer.layers) == n
        # one that the user removes is no harm
        gestures.press(panel.layers)
        for layer in [*lab.dock.stage.current.place]:
            lab.viewer.layers.remove(layer)
        assert not panel.layers.isChecked()

    def test_cancel(self, lab):
        choose(lab, "twin-table")
        panel = lab.dock.position_panel
        gestures.press(panel.measure)
        wait_until(lambda: "crops of" in panel.wait.note.text(), "the first crop")
        gestures.press(panel.cancel)
        assert not panel.cancel.isVisible()
        assert panel.wait.note.text() == "Stopped."
        wait_until(lambda: lab.dock.position._measure.is_idle, "its thread to end")
        spin(0.05)
        assert lab.dock.position._report is None
        assert not panel.found.isVisible()

    def test_what_there_is_to_do_first(self, lab):
        panel = lab.dock.position_panel
        lab.dock.change_settings({"features": "classical"})
        assert "Classical features have no position" in panel.hint.text()
        assert not panel.measure.isVisible()
        lab.dock.change_settings({"features": "vit", "backbone": None})
        assert panel.hint.text() == "Choose a backbone in panel 2."

    def test_another_image_another_measurement(self, lab):
        choose(lab, "twin-table")
        measured(lab)
        gestures.press(lab.dock.position_panel.layers)
        stage = lab.dock.stage.current
        lab.open(write_sample(lab.folder / "t.png", seed=2))
        gestures.pick(lab.dock.image_panel.image, lab.viewer.layers["t"])
        wait_until(lambda: not lab.dock.position_panel.found.isVisible(), "it is gone")
        assert stage.place == []


@pytest.mark.parametrize(
    ("shape", "kind", "n_crops"),
    [((130, 150), "grey", 1), ((224, 280, 3), "rgb", 6), ((2, 224, 280), "stack", 6)],
    ids=["small", "rgb", "stack"],
)
def test_images_of_other_kinds(driver, tmp_path, monkeypatch, shape, kind, n_crops):
    monkeypatch.setattr(_position, "_N_CROPS", 6)
    plane = shape[1:] if kind == "stack" else shape[:2]
    data = synthesize("spinodal", plane, seed=3).image
    axes = {"grey": "YX", "rgb": "YXS", "stack": "ZYX"}[kind]
    if kind == "rgb":
        data = np.stack([data, data // 2, 255 - data], axis=-1)
    elif kind == "stack":
        data = np.stack([data, data[::-1]])
    path = tmp_path / "s.tif"
    write_image(path, data, axes=axes)
    shutil.copy(DATA / "twin-table.safetensors", tmp_path)
    driver.folder = tmp_path
    driver.open(path)
    gestures.unfold(driver.dock.sections[TITLE])
    choose(driver, "twin-table")
    report = measured(driver)
    assert report.n_crops == n_crops
    assert len(report.pictures.crop) == (3 if kind == "rgb" else 1)
    if n_crops == 1:
        assert report.table["lr+ud"].transfer_r2 is None
        assert "Only 1 crop" in driver.dock.position_panel.notes.text()
    else:
        assert report.level == "high"


class TestWarning:
    def test_the_table_warns_until_it_is_cured(self, lab):
        choose(lab, "twin-table")
        checked(lab)
        assert "know where in the frame they are" in warning(lab)
        assert "R\u00b2 0.9" in warning(lab)
        # another cure, other features: nothing is known of them yet
        gestures.pick(lab.dock.features_panel.cure, "average=8")
        assert warning(lab) == ""
        checked(lab)
        assert warning(lab) == ""
        (high, low) = lab.dock.session._checked.values()
        assert high.transfer_r2 > 0.8
        assert low.transfer_r2 < 0.05

    def test_alibi_does_not(self, lab):
        choose(lab, "twin-alibi")
        checked(lab)
        assert warning(lab) == ""
        (found,) = lab.dock.session._checked.values()
        assert found.level == "none found"

    def test_once_for_a_backbone(self, lab, monkeypatch):
        looks = []
        real = _position.iter_position_check
        monkeypatch.setattr(
            _position,
            "iter_position_check",
            lambda backbone: looks.append(backbone.name) or real(backbone),
        )
        choose(lab, "twin-table")
        checked(lab)
        lab.dock.change_settings({"density": 2})
        checked(lab)
        assert warning(lab) != ""
        assert looks == ["twin-table"]

    def test_dear_cures_are_not_looked_at_unasked(self, lab):
        choose(lab, "twin-table")
        spec = f"{lab.dock.settings.backbone}+field=small"
        lab.dock.change_settings({"backbone": spec})
        assert [*lab.dock.session.iter_check_position()] == []


def test_a_cure_is_saved_and_loaded(lab):
    """The project remembers it, and so does a classifier, with the same features."""
    choose(lab, "twin-table")
    gestures.pick(lab.dock.features_panel.cure, "roll=4")
    spec = lab.dock.settings.backbone
    assert spec.endswith("twin-table.safetensors+roll=4")
    gestures.press(lab.dock.features_panel.extract)
    lab.settled()
    lab.paint_two()
    lab.settled()
    path = lab.folder / "cured.alibiseg"
    lab.dock.classifier_panel.save_wanted.emit(path)
    lab.settled()
    (image,) = lab.dock.session.images.values()
    assert image.project.load_state().settings.backbone == spec
    loaded = Segmenter.load(path, device="cpu")
    assert loaded.backbone.identity["cures"]["steps"] == [{"kind": "roll", "copies": 4}]
    labels = np.array(lab.labels.data)
    source = open_image(lab.folder / "s.png")
    assert (loaded.predict(source).labels == labels).mean() > 0.999
    # into a dock that has another one chosen
    gestures.pick(lab.dock.features_panel.cure, "")
    lab.dock.files.load(path)
    lab.settled()
    assert lab.dock.settings.backbone == spec
    assert lab.dock.features_panel.cure.chosen == "roll=4"
