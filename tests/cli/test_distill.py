"""`alibi-seg distill` as a user meets it: settings, exit codes, interrupt, resume."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from distill.toys import pictures, teacher_file

from napari_alibi_seg import _cli
from napari_alibi_seg._base import SettingsError
from napari_alibi_seg._cli import _distill
from napari_alibi_seg.distill import PRESETS, Stage, distill, load_settings

STEPS = 16
HELD_AT = 6
TOML = f"""
name = "lab"
log_every = 1
checkpoint_s = 0
workers = 1
ema = 0.9
[teacher]
name = "{{teacher}}"
[student]
embed_dim = 16
depth = 1
num_heads = 2
patch_size = 2
registers = 1
[data]
folders = ["pictures"]
mosaic_share = 1.0
[losses]
few_shot = 1.0
[[stages]]
crop_px = 16
steps = {STEPS}
batch = 2
lr = 1e-3
"""
OPTIONS = (
    *("--config", "--out", "--teacher", "--teacher-weights", "--images", "--preset"),
    *("--name", "--seed", "--blank", "--precision", "--workers", "--device"),
    *("--devices", "--tensorboard", "--json"),
)


PROGRAM = "import sys; from napari_alibi_seg._cli import main; sys.exit(main())"
# Behind a row it waits for the signal: a run cannot end before that comes.
HELD = f"""
import time
from napari_alibi_seg.distill import _run

own = _run.Metrics.add

def add(self, values):
    own(self, values)
    if values["step"] == {HELD_AT}:
        time.sleep(600)

_run.Metrics.add = add
{PROGRAM}
"""


def _start(folder: Path, *args: object, code: str = PROGRAM) -> subprocess.Popen:
    package = Path(_cli.__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", code, "distill", *map(str, args)],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(
                [str(package), os.environ.get("PYTHONPATH", "")]
            ),
            "ALIBI_SEG_CACHE": str(folder / "cache"),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "88",
        },
        # a process whose parent ignores SIGINT would ignore it too
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def _finish(process: subprocess.Popen, expect: int = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=200)
    assert process.returncode == expect, err
    assert "Traceback" not in err
    return out, err


@pytest.fixture
def lab(tmp_path):
    """A folder with pictures, a teacher and a settings file."""
    pictures(tmp_path / "pictures")
    teacher_file(tmp_path / "vit.safetensors", patch_size=2)
    path = tmp_path / "lab.toml"
    path.write_text(TOML.format(teacher=(tmp_path / "vit.safetensors").as_posix()))
    return tmp_path


@pytest.fixture
def one_thread():
    """Sums are taken in the same order here and in a process of its own."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _main(capsys, *args, expect=0):
    """Run in this process, which has imported torch already."""
    code = _cli.main(["distill", *map(str, args)])
    out, err = capsys.readouterr()
    assert code == expect, err
    return out, err


# ----------------------------------------------------------------------- the command


def test_help(tmp_path):
    out, err = _finish(_start(tmp_path, "--help"))
    assert err == ""
    assert all(option in out for option in OPTIONS)
    assert "alibi-seg distill --teacher dinov2-s --images micrographs/" in out
    assert all(preset in out for preset in PRESETS)


def test_no_teacher_is_wrong_usage(tmp_path):
    out, err = _finish(_start(tmp_path, "--out", "run", "--json"), expect=2)
    said = json.loads(out)
    assert said["kind"] == "SettingsError"
    assert said["error"] == "Say what to learn from: --teacher or --config."
    assert said["error"] in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("args", "code", "match"),
    [
        (("--teacher", "self"), 2, "needs `student`, whose shape it has"),
        (("--config", "none.toml"), 2, "none.toml' cannot be read as TOML"),
        (("--teacher", "nobody-s"), 2, "nobody-s"),
        (("--teacher", "no/vit.safetensors"), 1, "no/vit.safetensors"),
        (("--teacher", "timm:test_resnet"), 1, "--teacher-weights"),
        (("--teacher", "vit", "--images", "nowhere"), 2, "no folder of images"),
        (("--teacher", "vit", "--blank", "1,two"), 2, "--blank"),
        (("--teacher", "vit", "--device", "tpu"), 2, "tpu"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_exit_codes(tmp_path, capsys, args, code, match):
    _, err = _main(capsys, *args, "--out", tmp_path / "run", expect=code)
    assert match in err
    assert err.splitlines()[-1].startswith("Error: ")


def test_lightning_is_an_extra(tmp_path, capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "napari_alibi_seg.distill._run", raising=False)
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    args = ("--teacher", "dinov2-s", "--out", tmp_path / "run")
    _, err = _main(capsys, *args, expect=2)
    assert 'pip install "napari-alibi-seg[distill]"' in err


@pytest.mark.skipif(os.name == "nt", reason="SIGINT to one process")
def test_interrupted_gone_on_with_and_complete(lab, capsys, monkeypatch, one_thread):
    line = ("--config", "lab.toml", "--out", "run", "--device", "cpu", "--json")
    process = _start(lab, *line, code=HELD)
    metrics = lab / "run" / "metrics.csv"
    end = time.monotonic() + 150
    while process.poll() is None and time.monotonic() < end:
        if metrics.is_file() and metrics.read_text().count("\n") > HELD_AT:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = _finish(process, expect=130)
    assert out == ""
    assert f"lab: {STEPS} steps, teacher " in err
    assert "Interrupted. What was finished is kept; run again to go on." in err
    step = torch.load(lab / "run" / "checkpoint.pt", weights_only=True)["step"]
    # the last whole one: the step that was held is not saved
    assert step == HELD_AT - 1
    result = lab / "run" / "lab.safetensors"
    assert not result.exists()

    monkeypatch.chdir(lab)
    # of the probe at the end nothing is asked here
    monkeypatch.setattr("napari_alibi_seg.distill._result._PROBE_TOKENS", 12)
    out, err = _main(capsys, *line)
    assert json.loads(out) == {
        "backbone": "run/lab.safetensors",
        "steps": STEPS,
        "run": "run",
    }
    assert "complete" not in err
    rows = metrics.read_text().splitlines()[1:]
    assert [int(r.split(",")[0]) for r in rows] == [*range(1, STEPS + 1)]

    whole = distill(load_settings(lab / "lab.toml"), lab / "whole", device="cpu")
    assert result.read_bytes() == whole.read_bytes()

    args = ("--config", lab / "lab.toml", "--out", lab / "run", "--device", "cpu")
    out, err = _main(capsys, *args)
    assert out.strip() == str(result)
    assert "was already complete" in err
    assert result.read_bytes() == whole.read_bytes()
    assert metrics.read_text().splitlines()[1:] == rows
    _, err = _main(capsys, *args, "--seed", "3", expect=2)
    assert "seed: 1025 then, 3 now" in err


# ---------------------------------------------------------------------- the settings


def _settings(*args):
    parsed = _cli._parser("distill").parse_args(["distill", "--out", "x", *args])
    return _distill._settings(parsed)


def test_without_a_file():
    settings = _settings("--teacher", "dinov2-s")
    assert settings.teacher.name == "dinov2-s"
    assert settings.student is None
    assert (settings.data.folder_share, settings.data.synthetic_share) == (0, 1)
    stages = tuple(Stage(**s) for s in PRESETS["small"]["stages"])
    assert settings.stages == stages


def test_images_replace_generated_ones():
    settings = _settings("--teacher", "t", "--images", "a", "b/c")
    assert settings.data.folders == (Path("a"), Path("b/c"))
    assert (settings.data.folder_share, settings.data.synthetic_share) == (1, 0)


def test_arguments_replace_what_the_file_says(lab):
    path = str(lab / "lab.toml")
    plain = _settings("--config", path)
    assert plain == load_settings(lab / "lab.toml")
    changed = _settings(
        *("--config", path, "--teacher", "timm:x", "--teacher-weights", "w.pth"),
        *("--images", "other", "--name", "mine", "--seed", "7", "--workers", "0"),
        *("--precision", "bf16-mixed", "--blank", "3,5"),
    )
    assert changed.teacher.name == "timm:x"
    assert changed.teacher.weights == Path("w.pth")
    assert changed.data.folders == (Path("other"),)
    assert changed.data.mosaic_share == 1  # what was not given stays
    assert (changed.name, changed.seed, changed.workers) == ("mine", 7, 0)
    assert changed.precision == "bf16-mixed"
    assert changed.losses.blank == (3, 5)
    assert changed.losses.few_shot == 1
    assert changed.student == plain.student
    assert changed.stages == plain.stages


def test_a_preset_replaces_stages_and_losses(lab):
    path = str(lab / "lab.toml")
    settings = _settings("--config", path, "--preset", "released")
    assert [s.crop_px for s in settings.stages] == [224, 518]
    assert settings.losses.few_shot == 0
    assert settings.precision == "bf16-mixed"
    assert settings.name == "lab"


@pytest.mark.parametrize("share", ["folder_share = 0\nsynthetic_share = 1", None])
def test_images_given_are_used_whatever_the_file_says(tmp_path, share):
    path = tmp_path / "a.toml"
    data = "" if share is None else f"[data]\n{share}\n"
    path.write_text(
        '[teacher]\nname = "dinov2-s"\n'
        f"{data}[[stages]]\ncrop_px = 16\nsteps = 1\nbatch = 1\nlr = 1e-3\n"
    )
    assert _settings("--config", str(path)).data.folder_share == 0
    settings = _settings("--config", str(path), "--images", "mine")
    assert settings.data.folders == (Path("mine"),)
    assert settings.data.folder_share == 1
    assert settings.data.synthetic_share == 1


def test_blank():
    assert _settings("--teacher", "t", "--blank", "auto").losses.blank == "auto"
    assert _settings("--teacher", "t", "--blank", "4").losses.blank == (4,)
    with pytest.raises(SettingsError, match="--blank"):
        _settings("--teacher", "t", "--blank", "no")
