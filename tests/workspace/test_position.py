"""Cures by name and price, and the measurement of position, without a window."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_alibi_seg._base import SettingsError
from napari_alibi_seg._workspace import (
    CURE_OFFERS,
    DockSettings,
    OpenImage,
    Session,
    _position,
    split_cure,
    with_backbone,
)
from napari_alibi_seg.data import open_image, synthesize
from napari_alibi_seg.features import CURES, FIELD_PRESETS, CureStep

TWIN = str(Path(__file__).parents[1] / "data" / "twin-table.safetensors")


def session(spec: str | None, features="vit") -> Session:
    made = Session()
    made.settings = DockSettings(features=features, backbone=spec, device="cpu")
    return made


@pytest.fixture(scope="module")
def image():
    pixels = synthesize("spinodal", (224, 280), seed=1).image
    return OpenImage("a", open_image(pixels), "a")


def test_all_cures_but_swaps_are_offered():
    offered = {split_cure(f"x+{o.words}")[1].partition("=")[0] for o in CURE_OFFERS}
    swaps = {"nope", "sinusoid", "alibi"}  # not distilled: only there to be compared
    assert offered - {""} == set(CURES) - swaps - {"denoise"}


@pytest.mark.parametrize("preset", FIELD_PRESETS)
def test_passes_of_a_field_are_its_own(preset):
    assert CureStep("field", preset).passes == FIELD_PRESETS[preset].views + 1


@pytest.mark.parametrize(
    ("spec", "base", "expected"),
    [
        (None, "b", "b"),
        ("a", "b", "b"),
        ("a+average", "b", "b+average=8"),
        ("a+blank", "b", "b+blank"),
        ("a+blank=1,2", "b", "b"),
        ("a+denoise=x.pth", "b", "b"),
        ("alibi-tiny+nonsense", "b", "b"),
    ],
)
def test_another_backbone_keeps_what_is_general(spec, base, expected):
    assert with_backbone(spec, base) == expected


def test_measured_step_by_step(image, monkeypatch):
    monkeypatch.setattr(_position, "_N_CROPS", 6)
    events = [*session(TWIN).iter_position(image)]
    report = events[-1].report
    assert [e.report for e in events[:-1]] == [None] * (len(events) - 1)
    assert report.level == "high"
    assert (report.n_crops, report.side_px) == (6, 112)
    steps = [e for e in events if e.text.startswith("Features of 6 crops")]
    assert [e.done for e in steps] == [*range(1, 8)]
    assert steps[-1].seconds_left == 0
    # where the pictures are from
    window = report.pictures.window
    assert window.shape == (112, 112)


def test_classical_features_cannot_be_measured(image):
    with pytest.raises(SettingsError, match="Choose a ViT"):
        list(session(None, "classical").iter_position(image))


def test_the_first_look_is_kept(monkeypatch):
    desk = session(TWIN)
    (*_, first) = desk.iter_check_position()
    assert first.level == "high"
    assert [*desk.iter_check_position()] == [first]
    desk.settings = desk.settings.replace(backbone=f"{TWIN}+roll")
    (*_, cured) = desk.iter_check_position()
    assert cured.level == "none found"
    assert cured.transfer_r2 < 0.05 < 0.5 < first.transfer_r2
    # both share the weights
    bare, other = (desk._backbones[n, "cpu"] for n in (TWIN, f"{TWIN}+roll"))
    assert other.inner is bare
