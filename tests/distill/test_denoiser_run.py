"""Training a denoiser: files, the released layout, resuming, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from distill.toys import pictures

from napari_alibi_seg._base import OutputError, SettingsError
from napari_alibi_seg.distill import (
    DenoiserSettings,
    iter_train_denoiser,
    train_denoiser,
)
from napari_alibi_seg.features import (
    FIELD_PRESETS,
    FieldSettings,
    load_backbone,
    load_denoiser,
    new_denoiser,
    read_checkpoint,
)

_TWIN = Path(__file__).resolve().parents[1] / "data" / "twin-table.safetensors"
_QUICK = FieldSettings(views=3, steps=4, batch=32, levels=2, finest=16)


@pytest.fixture(autouse=True)
def _quick_fields(monkeypatch):
    monkeypatch.setitem(FIELD_PRESETS, "small", _QUICK)


def _settings(**changes):
    values = {"backbone": str(_TWIN), "crop_px": 60, "pairs": 3, "steps": 8, "batch": 2}
    return DenoiserSettings(**{**values, "checkpoint_s": 0.0, **changes})


def _run_to(settings, out, stage, done):
    """Start a run and close it at a step."""
    run = iter_train_denoiser(settings, out, device="cpu")
    for step in run:
        if step.stage == stage and step.done == done:
            break
    run.close()


def _weights(path):
    return read_checkpoint(path)[0]["denoiser"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The weights of a run that nothing stopped."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FIELD_PRESETS, "small", _QUICK)
        out = tmp_path_factory.mktemp("whole")
        return _weights(train_denoiser(_settings(), out, device="cpu"))


def test_the_result_is_a_released_checkpoint(tmp_path):
    path = train_denoiser(_settings(name="mine"), tmp_path, device="cpu")
    assert path == tmp_path / "mine.pth"
    state = _weights(path)
    inner = ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    assert {*state} == {
        "pos_embed",
        *(f"denoiser.{k}.{part}" for k in inner for part in ("weight", "bias")),
    }
    assert state["pos_embed"].shape == (1, 16, 96)  # 60 px are 4 patches of 14
    denoiser = load_denoiser(path, device="cpu")
    raw = load_backbone(_TWIN, device="cpu")
    cured = load_backbone(f"{_TWIN}+denoise={path}", device="cpu")
    x = torch.randn(1, 3, 42, 56, generator=torch.Generator().manual_seed(0))
    assert torch.equal(cured.patch_features(x), denoiser(raw.patch_features(x)))


@pytest.mark.parametrize(("width", "count"), [(384, 2_300_160), (768, 8_139_264)])
def test_a_new_denoiser_has_the_published_size(width, count, tmp_path):
    model = new_denoiser(width, 37, seed=0)
    assert sum(p.numel() for p in model.parameters()) == count
    assert all(bool(p.isfinite().all()) for p in model.parameters())
    torch.save({"denoiser": model.state_dict()}, tmp_path / "d.pth")
    denoiser = load_denoiser(tmp_path / "d.pth", device="cpu")
    assert denoiser.n_parameters == count
    x = torch.randn(1, width, 5, 4)
    torch.testing.assert_close(denoiser(x), model(x).detach(), atol=1e-5, rtol=1e-5)


def test_training_brings_features_to_the_fields(tmp_path):
    settings = _settings(steps=60, batch=3, lr=2e-2)
    losses = [
        s.loss
        for s in iter_train_denoiser(settings, tmp_path, device="cpu")
        if s.stage == "training" and s.loss is not None
    ]
    assert len(losses) == 59
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])


@pytest.mark.parametrize(
    ("stage", "done"), [("fields", 1), ("fields", 3), ("training", 3), ("training", 7)]
)
def test_a_stopped_run_ends_with_the_same_weights(stage, done, whole, tmp_path):
    _run_to(_settings(), tmp_path / "b", stage, done)
    assert not (tmp_path / "b" / "denoiser.pth").exists()
    parts = _weights(train_denoiser(_settings(), tmp_path / "b", device="cpu"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_what_is_done_is_not_done_again(tmp_path):
    _run_to(_settings(), tmp_path, "training", 3)
    steps = list(iter_train_denoiser(_settings(), tmp_path, device="cpu"))
    assert [(s.stage, s.done) for s in steps] == [("training", n) for n in range(4, 9)]
    again = list(iter_train_denoiser(_settings(), tmp_path, device="cpu"))
    assert [(s.done, s.result is not None) for s in again] == [(8, True)]


def test_the_training_file_has_the_reference_s_layout(tmp_path):
    _run_to(_settings(), tmp_path, "training", 3)
    contents, _ = read_checkpoint(tmp_path / "checkpoint.pt")
    assert {*contents} == {"denoiser", "optimizer", "step"}
    assert contents["step"] == 3
    assert load_denoiser(tmp_path / "checkpoint.pt", device="cpu").embed_dim == 96


@pytest.mark.parametrize("change", [{"steps": 9}, {"seed": 1}, {"field": "medium"}])
def test_another_run_in_the_same_folder(change, tmp_path):
    _run_to(_settings(), tmp_path, "fields", 1)
    with pytest.raises(SettingsError, match=f"other {next(iter(change))}"):
        train_denoiser(_settings(**change), tmp_path, device="cpu")


def test_where_files_lie_does_not_matter(tmp_path):
    images = pictures(tmp_path / "one")
    wish = {"data": {"folders": [str(images)]}}
    _run_to(_settings(**wish), tmp_path / "run", "fields", 1)
    images.rename(tmp_path / "two")
    wish = {"data": {"folders": [str(tmp_path / "two")]}}
    assert train_denoiser(_settings(**wish), tmp_path / "run", device="cpu").is_file()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("checkpoint.pt", "Delete it: the training begins again"),
        ("pairs/00001.npz", "Delete it: it is made again"),
        ("run.json", "is damaged"),
    ],
)
def test_damaged_files(name, message, tmp_path):
    _run_to(_settings(), tmp_path, "training", 1)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(OutputError, match=message):
        train_denoiser(_settings(), tmp_path, device="cpu")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": f"{_TWIN}+roll"}, "cured already"),
        ({"crop_px": 20}, "at least two patches"),
    ],
)
def test_runs_that_cannot_be(changes, message, tmp_path):
    with pytest.raises(SettingsError, match=message):
        train_denoiser(_settings(**changes), tmp_path, device="cpu")


def test_command(tmp_path, capsys):
    from napari_alibi_seg import _cli

    args = ["denoiser", "--backbone", str(_TWIN), "--out", str(tmp_path / "run")]
    args += ["--crop", "56", "--pairs", "2", "--steps", "3", "--batch", "2"]
    code = _cli.main([*args, "--device", "cpu", "--json"])
    said = json.loads(capsys.readouterr().out)
    assert code == 0
    assert said["denoiser"] == str(tmp_path / "run" / "denoiser.pth")
    assert load_denoiser(said["denoiser"], device="cpu").embed_dim == 96
