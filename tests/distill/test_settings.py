"""What a settings file may say, what presets are, and how settings must agree."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from napari_alibi_seg import distill as room
from napari_alibi_seg._base import Alibi, SettingsError, validated
from napari_alibi_seg.distill import (
    PRESETS,
    DataSettings,
    DistillSettings,
    LossSettings,
    Stage,
    StudentSettings,
    TeacherSettings,
    load_settings,
)
from napari_alibi_seg.distill._schedule import learning_rate, parameter_groups

STAGE = {"crop_px": 16, "steps": 3, "batch": 4, "lr": 1e-3}
SELF = {"teacher": {"name": "self"}, "student": {}, "ema": 0.9}
TABLE = {"student": {"table": (4, 4)}}


def _settings(**changes):
    base = {"teacher": {"name": "dinov2-s"}, "stages": [STAGE]}
    return validated(DistillSettings, {**base, **changes})


def test_defaults():
    settings = _settings()
    assert settings.student is None
    assert settings.alibi == Alibi()
    assert settings.data == DataSettings(folder_share=0, synthetic_share=1)
    assert settings.losses == LossSettings(cosine=1.0)
    assert (settings.ema, settings.accumulate, settings.seed) == (None, 1, 1025)
    assert settings.n_steps == 3


def test_settings_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        _settings().seed = 3


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_settings(preset):
    settings = _settings(**PRESETS[preset])
    assert [s.crop_px for s in settings.stages] == sorted(
        s.crop_px for s in settings.stages
    )
    assert len(settings.stages) == 2
    assert settings.losses.cosine == 1


def test_the_released_schedule():
    """15 passes of 118,000 images by 256 at 224 px, 1 pass by 32 at 518 px."""
    first, second = _settings(**PRESETS["released"]).stages
    assert (first.crop_px, first.batch, first.lr) == (224, 256, 5e-4)
    assert (second.crop_px, second.batch, second.lr) == (518, 32, 1e-5)
    assert first.steps * first.batch == pytest.approx(15 * 118_000, rel=0.01)
    assert second.steps * second.batch == pytest.approx(118_000, rel=0.01)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"alibi": None}, "either `alibi` or `student.table`"),
        ({**TABLE, "alibi": {}}, "either `alibi` or `student.table`"),
        ({**SELF, "student": None}, "needs `student`, whose shape it has"),
        ({**SELF, "ema": None}, "is the moving average: set `ema`"),
        ({**SELF, "losses": {"blank": [1]}}, "no fixed channels to blank"),
        (
            {**SELF, "data": {"folders": ["a"], "distinct_crops": 9}},
            "targets of teacher 'self' change",
        ),
        ({"losses": {"few_shot": 1}}, "`losses.few_shot` needs `data.mosaic_share`"),
        ({"accumulate": 3}, "`batch` must be a multiple of `accumulate`"),
        ({"stages": []}, "stages"),
        ({"stages": [{**STAGE, "crop_px": 8}]}, "crop_px"),
        ({"stages": [{**STAGE, "lr": 0}]}, "lr"),
        ({"stages": [{**STAGE, "momentum": 1}]}, "momentum"),
        ({"name": "../up"}, "name"),
        ({"name": ""}, "name"),
        ({"ema": 1.0}, "ema"),
        ({"clip": 0}, "clip"),
        ({"precision": "64"}, "precision"),
        ({"dtype": "int8"}, "dtype"),
        ({"seed": -1}, "seed"),
        ({"student": {"patch_size": 1}}, "patch_size"),
        ({"student": {"table": (0, 4)}, "alibi": None}, "table"),
        ({"data": {}}, "`folders` is empty, but `folder_share` is not 0"),
        ({"data": {"folder_share": 0}}, "nothing to learn from"),
        ({"data": {"folder_share": 0, "mosaic_share": 1}}, "nothing to learn from"),
        ({"data": {"folders": ["a"], "zoom": (2, 1)}}, "`zoom` must satisfy"),
        ({"data": {"folders": ["a"], "zoom": (0.01, 1)}}, "`zoom` must satisfy"),
        ({"data": {"folders": ["a"], "invert": 1.1}}, "invert"),
        ({"losses": {"cosine": 0}}, "all weights are 0: there is nothing to learn"),
        ({"losses": {"hidden": 2}}, "hidden"),
        ({"losses": {"blank": "some"}}, "blank"),
        ({"colour": "red"}, "colour"),
    ],
    ids=lambda value: None if isinstance(value, dict) else value[:30],
)
def test_refused(changes, match):
    with pytest.raises(SettingsError, match=match):
        _settings(**changes)


@pytest.mark.parametrize(
    "changes",
    [SELF, {**TABLE, "alibi": None}, {"losses": {"blank": "auto"}}, {"accumulate": 4}],
    ids=["self", "table", "auto", "accumulate"],
)
def test_accepted(changes):
    settings = _settings(**changes)
    text = settings.model_dump_json()
    assert DistillSettings.model_validate_json(text) == settings


# --------------------------------------------------------------------------------- TOML

TOML = """
name = "lab"
ema = 0.99
[teacher]
name = "timm:resnet18"
weights = "w/r18.pth"
levels = [1, 2]
[student]
embed_dim = 64
num_heads = 2
[alibi]
slope = "fixed"
[data]
folders = ["pictures", "/abs/more"]
zoom = [0.5, 3]
[[stages]]
crop_px = 112
steps = 10
batch = 4
lr = 1e-3
schedule = "constant"
[[stages]]
crop_px = 224
steps = 5
batch = 2
lr = 1e-4
"""


def test_a_file(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(TOML)
    settings = load_settings(path)
    assert settings.name == "lab"
    assert settings.teacher == TeacherSettings(
        name="timm:resnet18", weights=tmp_path / "w/r18.pth", levels=(1, 2)
    )
    assert settings.student == StudentSettings(embed_dim=64, num_heads=2)
    assert settings.alibi == Alibi("fixed")
    assert settings.data.folders == (tmp_path / "pictures", Path("/abs/more"))
    assert settings.data.zoom == (0.5, 3)
    assert [s.schedule for s in settings.stages] == ["constant", "cosine"]
    assert settings.n_steps == 15


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (None, "cannot be read as TOML"),
        (b"name = ", "cannot be read as TOML"),
        (b"\xff\xfe", "cannot be read as TOML"),
        (b"", "teacher"),
        (TOML.replace("ema", "emma").encode(), "emma"),
    ],
    ids=["absent", "cut", "binary", "empty", "unknown"],
)
def test_a_file_that_will_not_do(tmp_path, content, match):
    path = tmp_path / "run.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=match):
        load_settings(path)


def test_a_table_stands_in_for_the_bias():
    """A TOML file cannot say null."""
    assert _settings(**TABLE).alibi is None
    student = StudentSettings(table=(4, 4))
    assert _settings(student=student).alibi is None
    assert _settings(student=StudentSettings()).alibi == Alibi()


@pytest.mark.parametrize("name", ["twin/table", "twin/retrofit", "alibi_tiny/config"])
def test_every_shipped_file_is_read(name):
    root = Path(__file__).resolve().parents[2]
    settings = load_settings(root / "training" / f"{name}.toml")
    assert (settings.alibi is None) == (name == "twin/table")
    assert settings.dtype == "float16"


def test_the_shipped_training_is_a_settings_file():
    path = Path(__file__).parents[2] / "training" / "alibi_tiny" / "config.toml"
    settings = load_settings(path)
    assert settings.name == "alibi-tiny"
    assert settings.alibi == Alibi()
    assert settings.student.patch_size <= 14


# ----------------------------------------------------------------------------- schedule


@pytest.mark.parametrize("warmup", [0, 4])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_learning_rate_rises_then_falls(warmup, schedule):
    stage = Stage(
        crop_px=16, steps=20, batch=1, lr=0.5, warmup_steps=warmup, schedule=schedule
    )
    rates = [learning_rate(stage, i) for i in range(20)]
    assert rates[:warmup] == [0.5 * (i + 1) / 4 for i in range(warmup)]
    assert max(rates) == 0.5
    rest = rates[warmup:]
    if schedule == "constant":
        assert set(rest) == {0.5}
    else:
        assert rest == sorted(rest, reverse=True)
        assert 0.005 <= rest[-1] < 0.015


def test_only_maps_decay():
    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(3, 3)
            self.norm = torch.nn.LayerNorm(3)
            self.mask_token = torch.nn.Parameter(torch.zeros(1, 1, 3))
            self.pos_embed = torch.nn.Parameter(torch.zeros(1, 4, 3))
            self.slopes = torch.nn.ParameterList([torch.zeros(2, 1, 1)])
            self.log_gain = torch.nn.Parameter(torch.tensor(1.0))

    model = Both()
    decayed, free = parameter_groups(model, 0.05)
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.05, 0.0)
    assert [p is model.layer.weight for p in decayed["params"]] == [True]
    assert len(free["params"]) == 7


# ---------------------------------------------------------------------------- the room


def test_settings_need_no_torch():
    check = (
        "import sys; from napari_alibi_seg.distill import load_settings, PRESETS;"
        "from napari_alibi_seg import analysis;"
        "print([m for m in ('torch', 'timm', 'lightning_fabric') if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"


def test_every_public_name_resolves():
    assert all(getattr(room, name) is not None for name in room.__all__)
    assert dir(room) == sorted(room.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = room.nothing


def test_paths_in_a_file_are_relative_to_it(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(
        'teacher = {name = "vit.safetensors"}\n'
        'data = {folders = ["pictures"]}\n'
        "[[stages]]\ncrop_px = 32\nsteps = 1\nbatch = 1\nlr = 1.0\n"
    )
    settings = load_settings(path)
    assert settings.teacher.name == str(tmp_path / "vit.safetensors")
    assert settings.data.folders == (tmp_path / "pictures",)


@pytest.mark.parametrize("name", ["dinov2-s", "self", "timm:resnet18.a1_in1k"])
def test_names_are_no_paths(name):
    assert not TeacherSettings(name=name).is_file


def test_deviations_of_levels_that_are_not_taken_are_an_error():
    with pytest.raises(SettingsError, match=r"std_levels.*\[3\].*not among"):
        validated(TeacherSettings, {"name": "x", "levels": [0], "std_levels": [3]})
