"""Whole trainings of a second: killed, resumed, changed, damaged, reported."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from distill import toys
from distill.toys import settings_of, stage, teacher_file
from safetensors.torch import save, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from timm.models.vision_transformer import VisionTransformer

from napari_alibi_seg._base import (
    Alibi,
    ComputeError,
    OutputError,
    SettingsError,
    WeightsError,
)
from napari_alibi_seg.distill import _run as module
from napari_alibi_seg.distill import distill, iter_distill
from napari_alibi_seg.distill._targets import KeptTargets
from napari_alibi_seg.features import load_backbone

SELF = {"cosine": 0, "smooth_l1": 1, "hidden": 0.4}


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Sums are taken in the same order here and in a process of its own."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _small_probe(monkeypatch):
    """The probe at the end of each run, with 12 tokens to a side instead of 37."""
    monkeypatch.setattr("napari_alibi_seg.distill._result._PROBE_TOKENS", 12)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with pictures and a teacher with a position table."""
    folder = tmp_path_factory.mktemp("made")
    toys.pictures(folder / "pictures")
    teacher_file(folder / "vit.safetensors")
    return folder


@pytest.fixture
def toy(made):
    def make(**changes):
        teacher = changes.pop("teacher_name", str(made / "vit.safetensors"))
        return settings_of(made / "pictures", teacher, **changes)

    return make


def _run(settings, out, **options):
    return distill(settings, out, device="cpu", **options)


def _rows(out):
    with (out / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _weights(path):
    return dict(torch.load(path / "checkpoint.pt", weights_only=True)["student"])


# ------------------------------------------------------------- killed and gone on with

# Two stages, so that one kill falls into each; everything that is drawn is used.
CASES = {
    "plain": {"losses": {"cosine": 1, "few_shot": 1, "equivariance": True}},
    "ema-accumulate": {
        "ema": 0.8,
        "accumulate": 2,
        "losses": {"cosine": 0, "smooth_l1": 1, "standardise": True, "roll": True},
    },
    "self": {"teacher_name": "self", "ema": 0.8, "losses": SELF},
    "kept": {"losses": {"cosine": 1}, "distinct": 3},
}
STAGES = [stage(steps=4, warmup_steps=2), stage(steps=3, crop_px=24, lr=1e-4)]
# (where, at which call): in the middle of the fifth update; while the third checkpoint
# is half written, and before the first is
KILLS = [("update", 5), ("save", 3), ("save", 1)]
DRIVER = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from lightning_fabric import Fabric
from napari_alibi_seg.distill import DistillSettings, distill
from napari_alibi_seg.distill import _result
_result._PROBE_TOKENS = 12

def die_at(owner, name, n, before):
    own, count = getattr(owner, name), [0]
    def call(*args, **kwargs):
        count[0] += 1
        if count[0] == n:
            before(*args, **kwargs)
            os.kill(os.getpid(), signal.SIGKILL)
        return own(*args, **kwargs)
    setattr(owner, name, call)

save = torch.save

def half(contents, path):
    save(contents, path)
    os.truncate(path, os.path.getsize(path) // 2)

for line in sys.stdin.read().splitlines():
    where, n, out, settings = line.split("|", 3)
    child = os.fork()
    if child == 0:
        if where == "update":
            die_at(Fabric, "clip_gradients", int(n), lambda *_, **__: None)
        else:
            die_at(torch, "save", int(n), half)
        distill(DistillSettings.model_validate_json(settings), out, device="cpu")
        os._exit(0)
    print(os.WTERMSIG(os.waitpid(child, 0)[1]), flush=True)
"""


def _case(toy, name):
    changes = {**CASES[name]}
    distinct = changes.pop("distinct", None)
    settings = toy(stages=STAGES, **{**changes, "losses": {"cosine": 1}})
    data = settings.data.model_copy(
        update={"mosaic_share": 1.0, "distinct_crops": distinct}
    )
    values = settings.model_dump()
    values["data"] = data.model_dump()
    values["losses"] |= changes["losses"]
    return type(settings).model_validate(values)


@pytest.fixture(scope="module")
def killed(made, tmp_path_factory):
    """Run folders as SIGKILL left them, of one process for each."""
    if not hasattr(os, "fork"):
        pytest.skip("needs SIGKILL and fork, which this system has not")
    root = tmp_path_factory.mktemp("killed")
    lines = []

    def toy(**changes):
        teacher = changes.pop("teacher_name", str(made / "vit.safetensors"))
        return settings_of(made / "pictures", teacher, **changes)

    for name in CASES:
        text = _case(toy, name).model_dump_json()
        lines += [f"{w}|{n}|{root / f'{name}-{w}-{n}'}|{text}" for w, n in KILLS]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=250,
        check=True,
    )
    assert done.stdout.split() == ["9"] * len(lines), done.stderr
    return root


@pytest.fixture(scope="module")
def whole(made, tmp_path_factory):
    """The result of each case without any interruption."""
    found = {}

    def get(name, settings):
        if name not in found:
            found[name] = _run(settings, tmp_path_factory.mktemp(name)).read_bytes()
        return found[name]

    return get


@pytest.mark.parametrize(("where", "n"), KILLS)
@pytest.mark.parametrize("name", CASES)
def test_a_killed_run_ends_with_the_same_bytes(toy, whole, killed, name, where, n):
    settings = _case(toy, name)
    out = killed / f"{name}-{where}-{n}"
    steps = n - 1  # those that were saved
    assert (out / "checkpoint.pt").is_file() == (steps > 0)
    assert not (out / "toy.safetensors").exists()
    done = [s.done for s in iter_distill(settings, out, device="cpu")]
    assert done == [*range(steps + 1, 8)]
    assert (out / "toy.safetensors").read_bytes() == whole(name, settings)
    assert [r["step"] for r in _rows(out)] == [str(i) for i in range(1, 8)]


@pytest.mark.parametrize("name", ["plain", "ema-accumulate"])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_closed_generator_goes_on(toy, whole, tmp_path, name, workers):
    settings = _case(toy, name).model_copy(
        update={"checkpoint_s": 1e9, "workers": workers}
    )
    for stop in (2, 5):  # twice, once in each stage
        steps = iter_distill(settings, tmp_path, device="cpu")
        for step in steps:
            if step.done == stop:
                break
        steps.close()
    assert _run(settings, tmp_path).read_bytes() == whole(name, _case(toy, name))
    assert [r["step"] for r in _rows(tmp_path)] == [str(i) for i in range(1, 8)]


@pytest.mark.parametrize(
    ("case", "target", "name"),
    [
        ("plain", module.Fabric, "clip_gradients"),
        # after the weights have moved, before their average has
        ("ema-accumulate", module.State, "follow"),
        # before its row is written
        ("plain", module.Metrics, "add"),
    ],
    ids=["before the update", "within it", "after it"],
)
def test_interrupted_at_any_place(
    toy, whole, tmp_path, monkeypatch, case, target, name
):
    """Half a step is not kept: the last whole one is."""
    settings, own, calls = _case(toy, case), getattr(target, name), []

    def interrupt(*args, **kwargs):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return own(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(target, name, interrupt)
        with pytest.raises(KeyboardInterrupt):
            _run(settings, tmp_path)
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert saved["step"] == 3
    assert _run(settings, tmp_path).read_bytes() == whole(case, settings)
    assert [r["step"] for r in _rows(tmp_path)] == [str(i) for i in range(1, 8)]


def test_a_complete_run_is_done_at_once(toy, tmp_path):
    settings = toy()
    path = _run(settings, tmp_path)
    before = {p.name: p.read_bytes() for p in (path, path.with_suffix(".md"))}
    rows = _rows(tmp_path)
    steps = [*iter_distill(settings, tmp_path, device="cpu")]
    assert [(s.done, s.total, s.result) for s in steps] == [(4, 4, path)]
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert _rows(tmp_path) == rows


# --------------------------------------------------------------------- another run's


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"seed": 5}, r"other settings \(seed: 1025 then, 5 now\)"),
        ({"ema": 0.9}, r"\(ema: None then, 0.9 now\)"),
        ({"losses": {"cosine": 2.0}}, r"\(losses: .*'cosine': 1.0.* then"),
        ({"stages": [stage(steps=9)]}, r"\(stages: .*'steps': 4.*'steps': 9"),
        ({"student": {**toys.STUDENT, "embed_dim": 32}}, r"\(student: "),
    ],
    ids=["seed", "ema", "losses", "stages", "student"],
)
def test_changed_settings_are_named(toy, made, tmp_path, changes, match):
    steps = iter_distill(toy(), tmp_path, device="cpu")
    next(steps)
    steps.close()
    kept = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(SettingsError, match=match):
        _run(toy(**changes), tmp_path)
    assert (tmp_path / "checkpoint.pt").read_bytes() == kept


def test_other_pictures_and_another_teacher_are_named(toy, made, tmp_path):
    pictures = toys.pictures(tmp_path / "pictures")
    teacher = tmp_path / "vit.safetensors"
    teacher.write_bytes((made / "vit.safetensors").read_bytes())
    settings = settings_of(pictures, str(teacher))
    out = tmp_path / "run"
    steps = iter_distill(settings, out, device="cpu")
    next(steps)
    steps.close()
    toys.pictures(pictures / "more", [(20, 20)])
    with pytest.raises(SettingsError, match="started with other pictures"):
        _run(settings, out)
    (pictures / "more" / "0.png").unlink()
    (pictures / "more").rmdir()
    teacher_file(teacher, seed=5)
    with pytest.raises(SettingsError, match="started with other teacher"):
        _run(settings, out)


def test_what_does_not_matter_may_change(toy, tmp_path):
    pictures = toys.pictures(tmp_path / "elsewhere")
    steps = iter_distill(toy(), tmp_path / "run", device="cpu")
    next(steps)
    steps.close()
    changes = {"workers": 1, "log_every": 2, "dtype": "float16", "probe_every": 2}
    data = {"folders": [str(pictures)]}  # the same pictures in another place
    path = _run(toy(data=data, **changes), tmp_path / "run")
    assert load_backbone(path, device="cpu").alibi == Alibi()
    probed = [r["step"] for r in _rows(tmp_path / "run") if r["transfer_r2"]]
    assert probed == ["2", "4"]


def _torch_file(contents):
    file = io.BytesIO()
    torch.save(contents, file)
    return file.getvalue()


def _other_zip():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("notes.txt", "not ours")
    return file.getvalue()


DAMAGED = r"checkpoint .* is damaged, or another kind of file\. Move it away"
# content of the file, made of a real one
NO_CHECKPOINTS = {
    "empty": (lambda _: b"", DAMAGED),
    "first-bytes": (lambda own: own[:5], DAMAGED),
    "half": (lambda own: own[: len(own) // 2], DAMAGED),
    "last-bytes-missing": (lambda own: own[:-20], DAMAGED),
    "text": (lambda _: b"hello", DAMAGED),
    "picture": (lambda _: b"\x89PNG\r\n\x1a\n" + bytes(99), DAMAGED),
    "broken-string": (lambda _: b"X\x01\x00\x00\x00\xff.", DAMAGED),
    "empty-stack": (lambda _: b"\x80\x02.", DAMAGED),
    "short-number": (lambda _: b"\x80\x02J\x01", DAMAGED),
    "safetensors": (lambda _: save({"a": torch.zeros(3)}), DAMAGED),
    "zip": (lambda _: _other_zip(), DAMAGED),
    "module": (lambda _: _torch_file(torch.nn.Linear(2, 2)), DAMAGED),
    "list": (lambda _: _torch_file([1, 2]), DAMAGED),
    "weights": (
        lambda _: _torch_file({"head.weight": torch.zeros(2)}),
        r"is not the checkpoint of a run: expected average, .*, student in it, got 1 "
        r"other entries\. Move it away",
    ),
    "newer": (
        lambda own: _torch_file(
            {**torch.load(io.BytesIO(own), weights_only=True), "format": 99}
        ),
        "has format 99, this version reads 1",
    ),
}


@pytest.mark.parametrize("name", NO_CHECKPOINTS)
def test_what_is_no_checkpoint_is_refused_and_left_alone(toy, tmp_path, name):
    steps = iter_distill(toy(), tmp_path, device="cpu")
    next(steps)
    steps.close()
    make, match = NO_CHECKPOINTS[name]
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(make(path.read_bytes()))
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(OutputError, match=match):
        _run(toy(), tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_checkpoint_that_cannot_be_opened_is_not_called_damaged(
    toy, tmp_path, monkeypatch
):
    steps = iter_distill(toy(), tmp_path, device="cpu")
    next(steps)
    steps.close()
    own = Path.open

    def refuse(path, *args, **kwargs):
        if path.name == "checkpoint.pt":
            raise PermissionError(13, "Permission denied")
        return own(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(OutputError, match=r"cannot be opened: Permission denied\. Ch"):
        _run(toy(), tmp_path)


def test_a_full_disk_keeps_the_checkpoint_before(toy, tmp_path, monkeypatch):
    steps = iter_distill(toy(), tmp_path, device="cpu")
    next(steps)
    steps.close()
    kept = (tmp_path / "checkpoint.pt").read_bytes()

    def half(contents, path):
        path.write_bytes(kept[:100])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", half)
        with pytest.raises(OutputError, match=r"cannot be written: .*No space left"):
            _run(toy(), tmp_path)
    assert (tmp_path / "checkpoint.pt").read_bytes() == kept
    assert not (tmp_path / "checkpoint.new").exists()
    assert [s.done for s in iter_distill(toy(), tmp_path, device="cpu")] == [2, 3, 4]


@pytest.mark.skipif(os.name != "posix", reason="only POSIX has a umask")
@pytest.mark.parametrize("mask", [0o022, 0o007, 0o077], ids=oct)
def test_files_have_the_mode_that_open_gives(toy, made, tmp_path, mask):
    data = {"folders": [str(made / "pictures")], "distinct_crops": 2}
    before = os.umask(mask)
    try:
        _run(toy(data=data), tmp_path)
    finally:
        os.umask(before)
    modes = {
        str(p.relative_to(tmp_path)): stat.S_IMODE(p.stat().st_mode)
        for p in tmp_path.rglob("*")
        if p.is_file()
    }
    wanted = {"checkpoint.pt", "metrics.csv", "toy.md", "toy.safetensors"}
    assert wanted < modes.keys()
    assert any(name.endswith(".npy") for name in modes)
    assert {name: oct(m) for name, m in modes.items()} == dict.fromkeys(
        modes, oct(0o666 & ~mask)
    )


def test_a_folder_that_cannot_be_made(toy, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be made"):
        _run(toy(), tmp_path / "file" / "run")


def test_a_loss_that_explodes_is_said_and_not_kept(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "napari_alibi_seg.distill._student.cosine_loss",
        lambda a, b: a.sum() * float("nan"),
    )
    with pytest.raises(ComputeError, match="loss is nan at step 0"):
        _run(toy(), tmp_path)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_kept_targets_from_disk_give_the_same_result(toy, made, tmp_path, monkeypatch):
    data = {"folders": [str(made / "pictures")], "distinct_crops": 3}
    settings = toy(data=data, losses={"cosine": 1, "standardise": True})
    first = _run(settings, tmp_path).read_bytes()
    (tmp_path / "checkpoint.pt").unlink()
    new = []
    own = KeptTargets.targets

    def spy(self, teacher, batch, grid):
        new.extend(batch.numbers[~self._there[batch.numbers.numpy()]].tolist())
        return own(self, teacher, batch, grid)

    monkeypatch.setattr(KeptTargets, "targets", spy)
    assert _run(settings, tmp_path).read_bytes() == first
    assert new == []
    monkeypatch.undo()
    fresh = toy(data={**data, "distinct_crops": None})
    monkeypatch.setattr("napari_alibi_seg.distill._result._PROBE_TOKENS", 12)
    assert _run(fresh, tmp_path / "fresh").read_bytes() != first


# ------------------------------------------------------------------------- it learns


def test_the_loss_falls_and_the_student_becomes_its_teacher(toy, made, tmp_path):
    """A retrofit, of a teacher whose position table is small beside its content."""
    settings = toy(
        stages=[stage(steps=40, batch=4, lr=5e-3, warmup_steps=4)],
        losses={"cosine": 1, "smooth_l1": 1},
    )
    _run(settings, tmp_path)
    rows = _rows(tmp_path)
    assert len(rows) == 40
    losses = np.array([float(r["loss"]) for r in rows])
    assert losses[-8:].mean() < 0.75 * losses[:8].mean()
    for row, loss in zip(rows, losses, strict=True):
        parts = float(row["cosine"]) + float(row["smooth_l1"])
        assert parts == pytest.approx(loss, rel=1e-4)
    rates = [float(r["lr"]) for r in rows]
    assert rates[0] == pytest.approx(5e-3 / 4)
    assert max(rates) == 5e-3
    assert rates[-1] < 3e-4


def test_few_shot_learns_from_mosaics(toy, made, tmp_path):
    data = {"folders": [str(made / "pictures")], "mosaic_share": 50.0}
    settings = toy(
        data={**data, "degrade": 0.0, "distinct_crops": 2},
        losses={"cosine": 0, "few_shot": 1},
        stages=[stage(steps=40, batch=4, lr=5e-3, crop_px=24)],
    )
    _run(settings, tmp_path)
    losses = np.array([float(r["few_shot"]) for r in _rows(tmp_path)])
    assert losses[-8:].mean() < 0.8 * losses[:8].mean()


# ----------------------------------------------------------------- teachers, students


@pytest.mark.parametrize("alibi", [Alibi(), Alibi("learned", wrap=False)], ids=str)
def test_retrofit(made, toy, tmp_path, alibi):
    settings = toy(student=None, alibi=alibi, licence="CC0")
    path = _run(settings, tmp_path)
    before = load_backbone(made / "vit.safetensors", device="cpu")
    after = load_backbone(path, device="cpu")
    assert before.alibi is None
    assert after.alibi == alibi
    assert (after.embed_dim, after.patch_size, after.num_heads) == (24, 4, 3)
    x = torch.zeros(1, 3, 12, 20)
    assert after.patch_features(x).shape == (1, 24, 3, 5)
    start = load_backbone(made / "vit.safetensors", alibi=Alibi(), device="cpu")
    moved = (after.patch_features(x) - start.patch_features(x)).abs().max()
    assert moved > 1e-4  # it was trained


def test_a_retrofit_of_a_dinov2_layout(toy, tmp_path):
    """As timm stores it: layer scale, a class token with a place in the table."""
    path = teacher_of_timm(tmp_path / "dinov2.safetensors")
    settings = toy(teacher_name=str(path), student=None, stages=[stage(crop_px=28)])
    found = load_backbone(_run(settings, tmp_path / "run"), device="cpu")
    assert found.alibi == Alibi()
    assert found.patch_size == 14
    assert found.identity["arch"]["layer_scale"] is True


def teacher_of_timm(path: Path) -> Path:
    torch.manual_seed(0)
    model = VisionTransformer(
        img_size=56,
        patch_size=14,
        embed_dim=64,
        depth=1,
        num_heads=1,
        init_values=0.5,
        num_classes=0,
    )
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path)
    return path


@pytest.mark.parametrize("table", [None, (6, 6)], ids=["alibi", "table"])
def test_self_distillation(toy, tmp_path, table):
    settings = toy(
        teacher_name="self",
        ema=0.9,
        losses=SELF,
        student={**toys.STUDENT, "table": table},
        alibi=None if table else Alibi(),
        stages=[stage(steps=3, lr=1e-2)],
    )
    path = _run(settings, tmp_path)
    backbone = load_backbone(path, device="cpu")
    assert backbone.alibi == (None if table else Alibi())
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    stored = backbone.patch_features(torch.ones(1, 3, 24, 24))
    assert stored.shape == (1, 16, 6, 6)
    # the average is the result, not the last weights
    key = "vit.model.norm.weight"
    assert not torch.equal(saved["average"][key], saved["student"][key])
    assert torch.equal(saved["average"][key], backbone._model.norm.weight)


def test_a_cnn_teaches(toy, tmp_path):
    torch.manual_seed(0)
    model = timm.create_model("test_efficientnet", pretrained=False)
    weights = tmp_path / "cnn.safetensors"
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, weights)
    settings = toy(stages=[stage(crop_px=32, steps=2)])
    teacher = {
        "name": "timm:test_efficientnet",
        "weights": str(weights),
        "levels": [0, 1],
        "std_levels": [0],
    }
    values = {**settings.model_dump(mode="json"), "teacher": teacher}
    values["losses"] = {"cosine": 0, "smooth_l1": 1, "standardise": True}
    settings = type(settings).model_validate(values)
    path = _run(settings, tmp_path / "run")
    assert load_backbone(path, device="cpu").embed_dim == 16
    head = _weights(tmp_path / "run")["head.weight"]
    levels = timm.create_model("test_efficientnet", features_only=True).feature_info
    a, b = levels.channels()[:2]
    assert head.shape == (2 * a + b, 16, 1, 1)
    assert "cnn.safetensors" in path.with_suffix(".md").read_text()


def test_a_cnn_without_weights(toy, tmp_path):
    with pytest.raises(WeightsError, match="Nothing is downloaded unasked"):
        _run(toy(teacher_name="timm:test_efficientnet"), tmp_path)


def test_mixed_precision_and_half_files(toy, tmp_path):
    settings = toy(precision="bf16-mixed", dtype="float16")
    path = _run(settings, tmp_path)
    weights = _weights(tmp_path)
    assert {t.dtype for t in weights.values()} == {torch.float32}
    full = _run(toy(), tmp_path / "full")
    assert path.stat().st_size < 0.7 * full.stat().st_size
    assert np.isfinite([float(r["loss"]) for r in _rows(tmp_path)]).all()
    a, b = (float(_rows(p)[0]["loss"]) for p in (tmp_path, tmp_path / "full"))
    assert a == pytest.approx(b, rel=0.05)
    assert a != b


def test_parts_of_a_batch_must_come_out_even(toy, tmp_path):
    with pytest.raises(SettingsError, match="must be a multiple of `accumulate`"):
        toy(accumulate=2, stages=[stage(batch=3)])


def test_accumulated_parts_are_one_batch(toy, tmp_path):
    """The first step of two parts sees the first two batches of one part each."""
    still = {"lr": 1e-12, "steps": 3}
    parts = toy(stages=[stage(batch=1, **still)])
    whole = toy(stages=[stage(batch=2, **still)], accumulate=2)
    first, second, *_ = (
        step.losses.get("loss")
        for step in iter_distill(parts, tmp_path / "1", device="cpu")
    )
    step = next(iter_distill(whole, tmp_path / "2", device="cpu"))
    assert first != second
    assert step.losses["loss"] == pytest.approx((first + second) / 2, rel=1e-5)


# -------------------------------------------------------------------- what is reported


def test_steps_say_how_far_and_how_long(toy, tmp_path):
    steps = [*iter_distill(toy(), tmp_path, device="cpu")]
    assert [(s.done, s.total) for s in steps] == [(i, 4) for i in range(1, 5)]
    assert all(set(s.losses) == {"cosine", "loss"} for s in steps[:-1])
    assert all(s.seconds_left > 0 for s in steps[:-1])
    assert [s.result for s in steps] == [None] * 3 + [tmp_path / "toy.safetensors"]


def test_metrics_are_logged_and_probed_when_asked(toy, tmp_path):
    settings = toy(
        log_every=3, probe_every=4, stages=[stage(steps=4), stage(steps=3, lr=5e-4)]
    )
    _run(settings, tmp_path)
    rows = _rows(tmp_path)
    assert [(r["step"], r["stage"]) for r in rows] == [
        *(("3", "0"), ("4", "0"), ("6", "1"), ("7", "1"))
    ]
    assert [bool(r["transfer_r2"]) for r in rows] == [False, True, False, True]
    assert all(r["smooth_l1"] == "" for r in rows)
    assert all(float(r["crops_per_s"]) > 0 for r in rows)
    assert float(rows[1]["max_channel_r2"]) <= 1


def test_a_row_cut_by_a_kill_is_dropped(toy, tmp_path):
    steps = iter_distill(toy(), tmp_path, device="cpu")
    next(steps)
    steps.close()
    path = tmp_path / "metrics.csv"
    path.write_text(path.read_text() + "3,0,1.5,1.5,,,0.001,20,,,9\r\n2,0,1.")
    _run(toy(), tmp_path)
    assert [r["step"] for r in _rows(tmp_path)] == ["1", "2", "3", "4"]
    assert float(_rows(tmp_path)[2]["seconds"]) < 9


def test_the_card_says_what_was_done_and_names_no_place(toy, made, tmp_path):
    settings = toy(licence="CC0", ema=0.9)
    path = _run(settings, tmp_path)
    card = path.with_suffix(".md").read_text()
    for text in (
        *("# toy", "vit.safetensors", "Licence: CC0", "1 blocks, width 16, 2 heads"),
        *("patch 4", "ALiBi", "| 16 | 4 | 2 | 0.001 |", "folders: pictures"),
        *("| pictures | 2 |", "| crops seen | 8 |", "transfer_r2", "sha256"),
    ):
        assert text in card
    assert hashlib.sha256(path.read_bytes()).hexdigest() in card
    for place in (made, tmp_path, Path.home(), Path(sys.prefix)):
        assert str(place) not in card
    plain = json.loads(card.split("```json\n")[1].split("```")[0])
    assert plain["data"]["folders"] == ["pictures"]
    assert plain["ema"] == 0.9
    parameters = sum(
        t.numel() for t in load_backbone(path)._model.state_dict().values()
    )
    assert f"| parameters | {parameters} |" in card


def test_tensorboard_events(toy, tmp_path):
    _run(toy(), tmp_path, tensorboard=True)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [e.step for e in events.Scalars("loss")] == [1, 2, 3, 4]
    rows = _rows(tmp_path)
    assert events.Scalars("loss")[2].value == pytest.approx(
        float(rows[2]["loss"]), rel=1e-4
    )
    assert [e.step for e in events.Scalars("transfer_r2")] == [4]


def test_no_tensorboard_unasked(toy, tmp_path):
    _run(toy(), tmp_path)
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {"checkpoint.pt", "metrics.csv", "toy.md", "toy.safetensors"}


def test_the_same_run_anywhere_is_the_same_file(toy, tmp_path):
    settings = toy(ema=0.9)
    a, b = (_run(settings, tmp_path / name).read_bytes() for name in "ab")
    assert a == b
    other = settings.model_copy(update={"seed": 2})
    assert _run(other, tmp_path / "c").read_bytes() != a
