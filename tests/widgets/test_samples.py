"""What napari finds in the manifest: samples, commands, the dock."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("napari")

from napari.components import ViewerModel
from npe2 import PluginManifest
from npe2.manifest.utils import import_python_name

import napari_alibi_seg
from napari_alibi_seg._base import ImageFileError
from napari_alibi_seg._widgets import _commands, _samples
from napari_alibi_seg.data import KINDS, read_labels

pytestmark = pytest.mark.gui

REPOSITORY = Path(__file__).resolve().parents[2]
MANIFEST = PluginManifest.from_file(Path(napari_alibi_seg.__path__[0]) / "napari.yaml")
COMMANDS = {c.id: c for c in MANIFEST.contributions.commands}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_python_name_is_there(name) -> None:
    assert callable(import_python_name(COMMANDS[name].python_name))


def test_the_manifest_offers_what_the_dock_has() -> None:
    assert (MANIFEST.name, MANIFEST.display_name) == (
        "napari-alibi-seg",
        "ALiBi Segmentation",
    )
    [widget] = MANIFEST.contributions.widgets
    assert widget.display_name == "ALiBi Segmentation"
    assert COMMANDS[widget.command].python_name == "napari_alibi_seg._widgets:Dock"
    keys = {s.key for s in MANIFEST.contributions.sample_data}
    assert keys == {*KINDS, "precipitates_with_scribbles"}
    assert {s.command for s in MANIFEST.contributions.sample_data} <= set(COMMANDS)


@pytest.mark.parametrize(
    "sample", MANIFEST.contributions.sample_data, ids=lambda s: s.key
)
def test_a_sample_becomes_layers_with_its_pixel_size(sample) -> None:
    viewer = ViewerModel()
    opened = import_python_name(COMMANDS[sample.command].python_name)()
    for data in opened:
        viewer._add_layer_from_data(*data)
    kinds = [layer._type_string for layer in viewer.layers]
    has_scribbles = sample.key == "precipitates_with_scribbles"
    assert kinds == (["image", "labels"] if has_scribbles else ["image"])
    sizes = {
        "spinodal": 0.05,
        "precipitates": 0.02,
        "precipitates_with_scribbles": 0.02,
        "grains": 0.2,
        "fibres": 0.35,
        "graded": 0.5,
    }
    for layer in viewer.layers:
        assert layer.data.shape == (384, 384)
        np.testing.assert_allclose(layer.scale, sizes[sample.key], rtol=1e-5)
        assert [str(u) for u in layer.units] == ["micrometer"] * 2
    image = viewer.layers[0]
    assert image.data.dtype == (np.uint16 if sample.key == "fibres" else np.uint8)


def test_scribbles_are_those_of_the_file() -> None:
    (_, _, _), (painted, _, _) = _samples.precipitates_with_scribbles()
    path = REPOSITORY / "sample_data" / "precipitates_scribbles.png"
    assert np.array_equal(painted, read_labels(path))


def test_an_installed_package_is_looked_in_first(tmp_path, monkeypatch) -> None:
    package = tmp_path / "site-packages" / "napari_alibi_seg"
    inside = package / "sample_data"
    inside.mkdir(parents=True)
    monkeypatch.setattr(napari_alibi_seg, "__path__", [str(package)])
    with pytest.raises(ImageFileError, match="Install napari-alibi-seg again"):
        _samples.samples_folder()
    source = REPOSITORY / "sample_data" / "precipitates.tif"
    shutil.copy(source, inside)
    assert _samples.samples_folder() == inside
    assert len(_samples.precipitates()) == 1


# ------------------------------------------------------------------------- commands


class Dock:
    """A dock that counts."""

    def __init__(self, *, is_visible: bool) -> None:
        self.called: list[str] = []
        self._is_visible = is_visible

    def isVisible(self) -> bool:
        return self._is_visible

    def __getattr__(self, name: str):
        return lambda: self.called.append(name)


CALLS = {
    "extract": "extract",
    "update": "update_once",
    "least_certain": "go_to_least_certain",
    "toggle_overlay": "toggle_overlay",
    "save_classifier": "save_classifier",
}


@pytest.mark.parametrize(("command", "method"), CALLS.items(), ids=list(CALLS))
def test_a_command_acts_on_the_dock_that_is_seen(monkeypatch, command, method) -> None:
    hidden, seen = Dock(is_visible=False), Dock(is_visible=True)
    monkeypatch.setattr(_commands, "_open_docks", {hidden, seen})
    import_python_name(COMMANDS[f"napari-alibi-seg.{command}"].python_name)()
    assert (seen.called, hidden.called) == ([method], [])


def test_a_command_without_a_dock_says_how_to_open_one(monkeypatch) -> None:
    said = []
    monkeypatch.setattr(_commands, "show_info", said.append)
    monkeypatch.setattr(_commands, "_open_docks", set())
    for command in CALLS:
        getattr(_commands, command)()
    assert len(said) == 5
    assert "Plugins > ALiBi Segmentation" in said[0]
