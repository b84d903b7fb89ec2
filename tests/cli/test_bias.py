"""`alibi-seg bias`: its table, its JSON, its figure, what it warns of and refuses."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_alibi_seg._cli import main
from napari_alibi_seg.data import synthesize, write_image

_FILES = Path(__file__).resolve().parents[1] / "data"
TABLE, ALIBI = (str(_FILES / f"twin-{name}.safetensors") for name in ("table", "alibi"))
_SIDE = 112
_CROPS = 12  # fewer are warned of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("bias")
    for i, kind in enumerate(("spinodal", "grains")):
        image = synthesize(kind, (420, 420), seed=i).image
        write_image(out / f"{kind}.tif", image, axes="YX")
    small = np.random.default_rng(0).integers(0, 255, (130, 130), np.uint8)
    Image.fromarray(small).save(out / "small.png")
    (out / "broken.tif").write_bytes(b"II*\0 nothing more")
    return out


def call(folder: Path, *argv) -> subprocess.CompletedProcess:
    """Run in a process of its own, on a machine without weights."""
    empty = str(folder / "no-weights")
    env = {**os.environ, "ALIBI_SEG_CACHE": empty, "HF_HOME": empty}
    env |= {"CUDA_VISIBLE_DEVICES": "", "COLUMNS": "100"}
    done = subprocess.run(
        [sys.executable, "-m", "napari_alibi_seg", "bias", *map(str, argv)],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def inside(folder, monkeypatch):
    """The same within this process, which has imported torch already."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ALIBI_SEG_CACHE", str(folder / "no-weights"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "no"))

    def run(*argv, expect=0):
        with (
            redirect_stdout(io.StringIO()) as out,
            redirect_stderr(io.StringIO()) as err,
        ):
            code = main(["bias", *map(str, argv), "--device", "cpu"])
        assert code == expect, err.getvalue()
        return out.getvalue(), err.getvalue()

    return run


@pytest.fixture(scope="module")
def twins(folder):
    """One run that compares both twins and a cure."""
    done = call(
        folder,
        *("spinodal.tif", "grains.tif", "--side", _SIDE, "--crops", _CROPS),
        *("--backbone", TABLE, ALIBI, f"{TABLE}+roll=2"),
        *("--figure", "bias.png", "--json"),
    )
    return json.loads(done.stdout), done.stderr


def test_the_table_of_backbones(twins):
    report, _ = twins
    table, alibi, cured = report["backbones"]
    names = [row["backbone"] for row in report["backbones"]]
    assert names == ["twin-table", "twin-alibi", "twin-table+roll=2"]
    assert (table["level"], alibi["level"]) == ("high", "none found")
    assert (table["verdict"], alibi["verdict"]) == ("bias", "neither")
    assert table["transfer_r2"] > 0.5 > table["transfer_floor"]["mean"]
    assert alibi["transfer_r2"] < 0.05
    assert len(table["positional_channels"]) >= 5
    assert alibi["positional_channels"] == []
    assert table["artefact"] > alibi["artefact"]
    assert table["cosine_drop"] > alibi["cosine_drop"]
    assert table["cluster_information"] > alibi["cluster_information"]
    assert cured["transfer_r2"] < table["transfer_r2"]
    assert [row["layers"] for row in report["backbones"]] == [6, 6, 1]


def test_json_says_what_was_measured(twins):
    report, _ = twins
    assert report["crops"] == {
        "n": _CROPS,
        "side_px": _SIDE,
        "n_images": 2,
        "notes": [],
    }
    assert report["images"] == ["spinodal.tif", "grains.tif"]
    assert report["seconds"] >= max(row["seconds"] for row in report["backbones"]) > 0
    ramps = [row["ramp"] for row in report["backbones"][0]["probes"]["rows"]]
    assert ramps == ["lr", "ud", "diag", "radial", "raster", "lr+ud", "random"]


def test_each_backbone_gets_a_sentence_and_its_seconds(twins):
    _, stderr = twins
    assert f"{_CROPS} crops of 112 px from 2 images; 3 backbones." in stderr
    assert "twin-table: Much position: in crops it has not seen" in stderr
    assert "twin-alibi: No position found" in stderr
    assert stderr.count(" s)") == 3
    assert "Warning" not in stderr


def test_the_figure_has_a_row_for_each_backbone(twins, folder):
    report, _ = twins
    assert report["figure"] == "bias.png"
    with Image.open(folder / "bias.png") as image:
        pixels = np.asarray(image.convert("RGB"), np.float32)
    height, width = pixels.shape[:2]
    # a header and three rows; each holds pictures in colour
    rows = np.array_split(np.ptp(pixels, axis=2), 4)
    assert height / width > 1
    assert all((row > 60).mean() > 0.1 for row in rows)


def test_few_crops_give_a_warning_and_a_table(inside):
    out, err = inside("small.png", "--side", 128, "--backbone", TABLE)
    assert "Warning: Only 1 crop of 128 px fit into the images." in err
    head, row = out.splitlines()[:2]
    assert head.split()[:3] == ["backbone", "position", "transfer"]
    # nothing to transfer to: said, not invented
    assert row.startswith("twin-table")
    assert " - " in row
    assert "transfer R2: of column and row" in out


@pytest.mark.parametrize(("kind", "start"), [("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_equal_runs_give_equal_figures(inside, folder, kind, start):
    files = []
    for name in ("one", "two"):
        argv = ("small.png", "--side", 128, "--backbone", TABLE)
        inside(*argv, "--figure", f"{name}.{kind}")
        files.append((folder / f"{name}.{kind}").read_bytes())
    assert files[0].startswith(start)
    assert files[0] == files[1]


def test_without_names_all_that_are_here_are_compared(inside):
    out, _ = inside("spinodal.tif", "--side", 96, "--crops", 3, "--json")
    report = json.loads(out)
    assert [row["backbone"] for row in report["backbones"]] == ["alibi-tiny"]


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["absent.tif"], 1, "absent.tif"),
        (["broken.tif"], 1, "broken.tif"),
        (["small.png"], 2, "largest square in them has 130 px"),
        (["small.png", "--crops", "0"], 2, "`--crops` must be 1 or more, got 0"),
        (["small.png", "--figure", "x.jpg"], 2, "must end in .pdf, .png, .svg"),
        (["small.png", "--figure", "no/x.png"], 1, "there is no folder 'no'"),
        (
            ["spinodal.tif", "--side", "96", "--backbone", "alibi-tiny", "dino"],
            2,
            "--backbone dino: ",
        ),
        (
            ["spinodal.tif", "--side", "96", "--backbone", "alibi-tiny+rol"],
            2,
            "Did you mean 'roll'?",
        ),
        (
            ["spinodal.tif", "--side", "64", "--backbone", TABLE],
            2,
            "Give crops of 112 px or more",
        ),
    ],
    ids=[
        *("missing", "broken", "small", "no crops", "format", "folder"),
        *("backbone", "cure", "few tokens"),
    ],
)
def test_clear_errors(inside, argv, code, message):
    _, err = inside(*argv, expect=code)
    assert message in err
    assert "Error: " in err


def test_an_error_with_json_is_one_object(inside):
    out, _ = inside("small.png", "--json", expect=2)
    error = json.loads(out)
    assert error["kind"] == "SettingsError"
    assert error["error"].startswith("No crop of 224 px fits")
