"""The command line as a user meets it: processes, exit codes, files, JSON."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from segmenter.samples import IDS, sample, write_tiny_vit

from napari_alibi_seg._base import PixelSize, Window
from napari_alibi_seg._cli import main
from napari_alibi_seg._segmenter import Segmenter, iter_predict_stack
from napari_alibi_seg.data import open_image, write_image

PIXEL = PixelSize(0.05, 0.05, "um")
# a process whose parent ignores SIGINT would ignore it too
START = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from napari_alibi_seg._cli import main; sys.exit(main())"
)
# Waits for the signal when the first tile of a large third file is written: however
# slow the reader of its messages is, the file is half done when the signal comes.
HELD = f"""
import sys, time
from napari_alibi_seg._cli import _apply

class Held(_apply.TileBar):
    def show(self, stage, done, total):
        super().show(stage, done, total)
        if stage.startswith("2.tif") and done == 1 < total:
            print("held", file=sys.stderr, flush=True)
            time.sleep(600)

_apply.TileBar = Held
{START}
"""
COMMANDS = {
    "demo": ["--out", "--seed", "--size", "--backbone", "--json"],
    "features": ["--backbone", "--store", "--density", "--tile", "--plane", "--json"],
    "train": [
        *("--labels", "--out", "--backbone", "--alibi", "--num-heads", "--features"),
        *("--resolution", "--classifier", "--plane", "--seed", "--json"),
    ],
    "apply": [
        *("--out", "--probabilities", "--uncertainty", "--recursive", "--overwrite"),
        *("--backbone", "--plane", "--all-planes", "--z-smooth", "--format", "--json"),
        *("--workers", "--scheduler", "--threads"),
    ],
    "evaluate": ["--truth", "--labels-offset", "--ignore", "--json"],
    "gui": ["--classifier"],
    "models": ["--check", "--download", "--json"],
    "info": ["--plane", "--json"],
}


class Shell:
    """Runs the program in a folder, on a machine without weights or terminal."""

    def __init__(self, folder: Path, cache: Path):
        self.folder = folder
        package = Path(sys.modules["napari_alibi_seg"].__file__).parents[1]
        self.env = {
            **os.environ,
            "ALIBI_SEG_CACHE": str(cache / "alibi"),
            "HF_HOME": str(cache / "hub"),
            "PYTHONPATH": os.pathsep.join(
                [str(package), os.environ.get("PYTHONPATH", "")]
            ),
            "OMP_NUM_THREADS": "2",
            "COLUMNS": "88",
        }

    def start(self, *args, code=START) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-c", code, *map(str, args)],
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )

    def __call__(self, *args, expect=0) -> subprocess.CompletedProcess:
        with self.start(*args) as process:
            out, err = process.communicate(timeout=200)
        assert process.returncode == expect, err
        assert "Traceback" not in err
        return subprocess.CompletedProcess(args, process.returncode, out, err)

    def json(self, *args, expect=0) -> dict:
        return json.loads(self(*args, "--json", expect=expect).stdout)

    def at(self, folder: Path) -> Shell:
        other = object.__new__(type(self))
        other.folder, other.env = folder, self.env
        return other


class Inside(Shell):
    """The same within this process, which has imported torch already."""

    def __call__(self, *args, expect=0) -> subprocess.CompletedProcess:
        out, err = io.StringIO(), io.StringIO()
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            patch.chdir(self.folder)
            patch.setenv("ALIBI_SEG_CACHE", self.env["ALIBI_SEG_CACHE"])
            patch.setenv("COLUMNS", self.env["COLUMNS"])
            patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", self.env["HF_HOME"])
            try:
                code = main([*map(str, args)])
            except SystemExit as stop:  # how argparse ends: help, wrong usage
                code = stop.code
        assert code == expect, err.getvalue()
        return subprocess.CompletedProcess(args, code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with an image, its labels and mask, and a classifier made of them."""
    folder = tmp_path_factory.mktemp("trained")
    image, mask, scribbles = sample()
    write_image(folder / "a.tif", image, axes="YX", pixel_size=PIXEL)
    write_image(folder / "a.png", scribbles, axes="YX")
    write_image(folder / "mask.png", mask, axes="YX")
    shell = Shell(folder, tmp_path_factory.mktemp("cache"))
    labels = ("--labels", "a.png", "--out", "c.alibiseg", "--trees", "20")
    shell.report = shell.json("train", "a.tif", *labels)
    return shell


@pytest.fixture
def shell(trained, tmp_path):
    return trained.at(tmp_path)


@pytest.fixture(scope="module")
def inside_trained(trained):
    inside = object.__new__(Inside)
    inside.folder, inside.env = trained.folder, trained.env
    return inside


@pytest.fixture
def inside(inside_trained, tmp_path):
    return inside_trained.at(tmp_path)


@pytest.fixture(scope="module")
def here(trained):
    """A good file by absolute path."""
    return lambda name: trained.folder / name


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# ---------------------------------------------------------------------------- help


@pytest.mark.parametrize("command", COMMANDS)
def test_help(inside, command):
    done = inside(command, "--help")
    assert all(option in done.stdout for option in COMMANDS[command])
    assert done.stderr == ""
    # more than a list of options: says what it is for
    assert len(done.stdout.split("options:")[0].split()) > 30


def test_help_of_all_and_version(trained):
    done = trained("--help")
    assert all(f"\n    {command}" in done.stdout for command in COMMANDS)
    assert "130 interrupted" in done.stdout.replace("\n", " ")
    assert re.match(r"\d+\.\d+", trained("--version").stdout)


# ----------------------------------------------------------------------- the chain


def test_train_says_what_it_chose_and_why(trained, inside_trained):
    report = trained.report
    assert report["features"]["kind"] == "classical"
    assert report["features"]["reason"].startswith(
        "classical: the weights of alibi-dinov2-s are not here"
    )
    assert list(report["classes"]) == ["1", "3"]
    assert report["training"]["n_trees"] == 20
    painted = {str(i): int((sample()[2] == i).sum()) for i in IDS}
    assert report["training"]["samples"] == painted
    info = inside_trained.json("info", "c.alibiseg")
    assert info["features"]["details"]["choice"] == report["features"]["reason"]


def test_train_apply_evaluate(trained, shell, inside, here):
    options = ("--probabilities", "--uncertainty", "--out", "o")
    done = shell("apply", here("c.alibiseg"), here("a.tif"), *options, "--json")
    report = json.loads(done.stdout)
    assert [f["status"] for f in report["files"]] == ["done"]
    assert done.stderr.splitlines() == [f"[1/1] {here('a.tif')}: done"]
    labels, proba, uncertainty = (
        open_image(shell.folder / f"o/a_{kind}.tif")
        for kind in ("labels", "probabilities", "uncertainty")
    )
    assert {s.pixel_size for s in (labels, proba, uncertainty)} == {PIXEL}
    ids = labels.read(labels.window)[..., 0]
    assert (ids.dtype, ids.shape) == (np.uint8, sample()[0].shape)
    assert set(np.unique(ids)) == set(IDS)
    with tifffile.TiffFile(shell.folder / "o/a_probabilities.tif") as tif:
        assert tif.series[0].axes == "CYX"
        cyx = tif.asarray()
    assert (cyx.shape, cyx.dtype) == ((2, *ids.shape), np.float32)
    np.testing.assert_allclose(cyx.sum(axis=0), 1, atol=1e-5)
    np.testing.assert_array_equal(np.array(IDS)[cyx.argmax(axis=0)], ids)
    u = uncertainty.read(uncertainty.window)
    assert u.dtype == np.float32
    assert 0 <= u.min() < 0.1 < 0.9 < u.max() <= 1
    (row,) = rows_of(shell.folder / "o/summary.csv")
    assert list(row) == [
        *("file", "output", "status", "error", "pixels", "seconds"),
        *("fraction_1", "fraction_3"),
    ]
    assert (row["file"], row["output"]) == (str(here("a.tif")), "a_labels.tif")
    assert (row["status"], row["error"], row["pixels"]) == ("done", "", "12288")
    assert float(row["fraction_3"]) == pytest.approx((ids == 3).mean(), abs=1e-6)
    scores = inside.json("evaluate", "o/a_labels.tif", "--truth", here("mask.png"))
    assert scores["miou"] > 0.8
    assert list(scores["classes"]) == ["1", "3"]
    # the facade writes and returns the same
    result = Segmenter.load(here("c.alibiseg")).predict(here("a.tif"))
    np.testing.assert_array_equal(result.labels, ids)
    np.testing.assert_array_equal(result.probabilities, cyx)
    np.testing.assert_array_equal(result.uncertainty, u[..., 0])


def test_threads_and_runs_give_the_same_bytes(shell, inside, here):
    image, _, _ = sample()
    # several tiles of output
    write_image(shell.folder / "big.tif", np.tile(image, (6, 5)), axes="YX")
    found = []
    runs = ((inside, "one", 1), (inside, "two", 2), (shell, "again", 2))
    for run, out, threads in runs:
        run(
            *("apply", here("c.alibiseg"), "big.tif", "--out", out),
            *("--probabilities", "--uncertainty", "--threads", threads),
        )
        files = sorted((shell.folder / out).glob("*.tif"))
        found.append({f.name: f.read_bytes() for f in files})
    assert len(found[0]) == 3
    assert found[0] == found[1] == found[2]


def test_training_twice_gives_the_same_file(inside, here):
    # `here` was trained in a process of its own
    inside(
        *("train", here("a.tif"), "--labels", here("a.png")),
        *("--out", "again.alibiseg", "--trees", "20"),
    )
    again = inside.folder / "again.alibiseg"
    assert again.read_bytes() == here("c.alibiseg").read_bytes()


# ------------------------------------------------------------------------ evaluate


def test_evaluate_by_hand(inside):
    truth = np.array([[0, 0, 0, 2], [2, 2, 255, 255]], np.uint8)
    # with K = 1: 1 means 0, 3 means 2; a 0 means no class, 9 means 8, unknown
    one = np.array([[1, 1, 0, 3], [3, 9, 3, 1]], np.uint8)
    two = np.array([[1, 1, 1, 1], [3, 3, 7, 7]], np.uint8)
    for name, array in (("t.png", truth), ("1.png", one), ("2.png", two)):
        write_image(inside.folder / name, array, axes="YX")
    found = inside.json(
        *("evaluate", "1.png", "2.png", "--truth", "t.png", "t.png"),
        *("--labels-offset", "1"),
    )
    # id 0: hits 2 + 3, truth 6, predicted 2 + 4; id 2: hits 2 + 2, truth 6, pred. 4
    zero, two_ = 5 / 7, 4 / 6
    assert found == {
        "miou": pytest.approx((zero + two_) / 2),
        "accuracy": 9 / 12,
        "classes": {
            "0": {"iou": zero, "truth_pixels": 6, "predicted_pixels": 6},
            "2": {"iou": two_, "truth_pixels": 6, "predicted_pixels": 4},
        },
        "images": [
            {
                "prediction": "1.png",
                "truth": "t.png",
                "miou": pytest.approx((2 / 3 + 2 / 3) / 2),
                "accuracy": 4 / 6,
            },
            {
                "prediction": "2.png",
                "truth": "t.png",
                "miou": pytest.approx((3 / 4 + 2 / 3) / 2),
                "accuracy": 5 / 6,
            },
        ],
    }
    every = inside.json("evaluate", "t.png", "--truth", "t.png", "--ignore", "2")
    assert list(every["classes"]) == ["0", "255"]
    assert every["accuracy"] == 1
    text = inside("evaluate", "t.png", "--truth", "t.png").stdout
    assert "mean IoU 1.0000" in text


# ------------------------------------------------------------------- many files


def test_one_bad_file_does_not_stop_the_others(inside, here):
    image, _, _ = sample()
    scans = inside.folder / "scans"
    (scans / "deeper").mkdir(parents=True)
    for name in ("a.tif", "a.png", "deeper/a.tif", "deeper/.hidden.tif"):
        write_image(scans / name, image, axes="YX")
    (scans / "broken.tif").write_bytes((scans / "a.tif").read_bytes()[:3000])
    (scans / "notes.txt").write_text("not an image")
    line = ("apply", here("c.alibiseg"), "scans", "--out", "scans/o", "--recursive")
    found = inside.json(*line, expect=1)["files"]
    outputs = {
        Path(f["file"]).relative_to("scans").as_posix(): f["output"]
        for f in found
        if f["status"] == "done"
    }
    assert outputs == {
        "a.tif": "scans_a_tif_labels.tif",
        "a.png": "a_png_labels.tif",
        "deeper/a.tif": "deeper_a_tif_labels.tif",
    }
    (bad,) = (f for f in found if f["status"] == "failed")
    assert bad["file"] == "scans/broken.tif"
    assert "cut short" in bad["error"]
    rows = rows_of(scans / "o/summary.csv")
    assert [r["status"] for r in rows].count("done") == 3
    (row,) = (r for r in rows if r["status"] == "failed")
    assert (row["output"], row["fraction_1"]) == ("", "")
    assert row["error"] == bad["error"]
    # our own outputs lie among the inputs now, and are no inputs
    again = inside.json(*line, expect=1)["files"]
    assert [f["file"] for f in again] == [f["file"] for f in found]
    assert sorted(f["status"] for f in again) == ["failed", *["skipped"] * 3]
    assert {f["output"]: f["fractions"] for f in again if f["status"] == "skipped"} == {
        f["output"]: f["fractions"] for f in found if f["status"] == "done"
    }
    flat = inside.json("apply", here("c.alibiseg"), "scans", "--out", "flat", expect=1)[
        "files"
    ]
    assert sorted(Path(f["file"]).name for f in flat) == [
        *("a.png", "a.tif", "broken.tif")
    ]


def test_done_edited_and_replaced(inside, here):
    line = ("apply", here("c.alibiseg"), here("a.tif"), "--out", "o")
    output = inside.folder / "o/a_labels.tif"

    def run(*more, expect=0):
        (found,) = inside.json(*line, *more, expect=expect)["files"]
        return found

    assert run()["status"] == "done"
    good = output.read_bytes()
    made = output.stat().st_mtime_ns
    assert run()["status"] == "skipped"
    assert output.stat().st_mtime_ns == made
    # more is wanted: what is there is ours, and may be made again
    assert run("--uncertainty")["status"] == "done"
    assert run()["status"] == "skipped"
    assert run("--uncertainty")["status"] == "skipped"
    edited = bytearray(good)
    edited[-1] ^= 2
    output.write_bytes(edited)
    refused = run(expect=1)
    assert refused["status"] == "failed"
    assert "a_labels.tif exists" in refused["error"]
    assert "--overwrite" in refused["error"]
    assert output.read_bytes() == edited
    assert run("--overwrite")["status"] == "done"
    assert output.read_bytes() == good
    output.unlink()
    assert run()["status"] == "done"
    assert output.read_bytes() == good


def test_interrupted_and_gone_on_with(shell, inside, here):
    image, _, _ = sample()
    scans = shell.folder / "scans"
    scans.mkdir()
    for i in range(4):
        turned = np.tile(np.roll(image, 7 * i, 1), (4, 4)) if i else image
        write_image(scans / f"{i}.tif", turned, axes="YX")
    write_image(scans / "2.tif", np.tile(image, (8, 8)), axes="YX")
    line = ("apply", here("c.alibiseg"), "scans", "--out", "o", "--threads", "1")
    process = shell.start(*line, code=HELD)
    assert "held\n" in process.stderr
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 130, err
    assert "Interrupted. What was finished is kept; run again to go on." in err
    assert "Traceback" not in err
    # what is half done is hidden, and gone on with
    names = {p.name for p in (shell.folder / "o").glob("[!.]*")}
    assert names == {
        *("0_labels.tif", "1_labels.tif", "summary.csv", "alibi-seg-manifest.jsonl")
    }
    unfinished = shell.folder / "o" / ".alibi-seg-unfinished"
    assert [p.name for p in unfinished.iterdir() if p.is_dir()] == ["2.zarr"]
    kept = {n: (shell.folder / "o" / n).stat().st_mtime_ns for n in names}
    found = inside.json(*line)["files"]
    assert [f["status"] for f in found] == ["skipped", "skipped", "done", "done"]
    for name in ("0_labels.tif", "1_labels.tif"):
        assert (shell.folder / "o" / name).stat().st_mtime_ns == kept[name]
    # by content: another image under the old name is not the one that was done
    write_image(scans / "0.tif", image[::-1].copy(), axes="YX")
    renewed = inside.json(*line, expect=1)["files"]
    assert [f["status"] for f in renewed] == ["failed", *["skipped"] * 3]
    assert "was not made from this image" in renewed[0]["error"]


# -------------------------------------------------------------- exit codes, streams


def test_exit_codes_and_one_object_on_stdout(shell, inside, here):
    wrong = shell("train", here("a.tif"), "--out", "c.alibiseg", expect=2)
    assert "--labels" in wrong.stderr
    two = inside("evaluate", "a", "b", "--truth", "c", "--json", expect=2)
    assert json.loads(two.stdout)["kind"] == "SettingsError"
    one = shell("info", "none.tif", "--json", expect=1)
    assert json.loads(one.stdout)["kind"] == "ImageFileError"
    assert "none.tif" in json.loads(one.stdout)["error"]
    named = inside(
        *("train", here("a.tif"), "--labels", here("a.png"), "--out", "c.alibiseg"),
        *("--backbone", "dinov2-b", "--json"),
        expect=1,
    )
    report = json.loads(named.stdout)
    assert report["kind"] == "WeightsError"
    assert "weights of 'dinov2-b' are not on this machine" in report["error"]
    assert "alibi-seg models --download dinov2-b" in report["error"]
    assert list(shell.folder.iterdir()) == []


def test_models_lists_every_backbone_and_downloads_nothing(trained, inside):
    rows = {row["name"]: row for row in trained.json("models")["backbones"]}
    assert rows["classical"]["here"] is True
    assert rows["alibi-dinov2-s"]["default"] is True
    here = {name for name, row in rows.items() if row["here"]}
    assert here == {"classical", "alibi-tiny"}  # what the package brings
    assert "alibi-dinov2-s *" in inside("models").stdout


def test_info_of_an_image_and_of_this_machine(inside, here):
    info = inside.json("info", here("a.tif"))
    assert (info["shape"], info["dtype"]) == ([96, 128], "uint8")
    assert info["pixel_size"] == [0.05, 0.05, "um"]
    assert info["plane_distance"] is None
    assert inside.json("info")["devices"][-1] == "cpu"


# ----------------------------------------------------------------------- with a ViT


@pytest.fixture(scope="module")
def vit(inside_trained):
    """Tiny weights, and a classifier that was trained with them."""
    weights = write_tiny_vit(inside_trained.folder / "tiny.safetensors")
    report = inside_trained.json(
        *("train", "a.tif", "--labels", "a.png", "--out", "vit.alibiseg"),
        *("--backbone", weights.name, "--alibi", "constant", "--trees", "20"),
        *("--tile", "56", "--scale", "1", "--store", "stores"),
    )
    return report


def test_a_backbone_implies_both(trained, vit, inside, here):
    assert vit["features"]["kind"] == "both"
    assert vit["backbone"]["alibi"]["slope"] == "constant"
    assert len(vit["backbone"]["sha256"]) == 64
    assert vit["training"]["n_features"] == (
        trained.report["training"]["n_features"] + 24
    )
    found = inside.json("apply", here("vit.alibiseg"), here("a.tif"), "--out", "o")
    assert found["files"][0]["status"] == "done"
    scores = inside.json("evaluate", "o/a_labels.tif", "--truth", here("mask.png"))
    assert scores["miou"] > 0.75


def test_vit_alone_by_patches(inside, here, vit):
    report = inside.json(
        *("train", here("a.tif"), "--labels", here("a.png"), "--out", "p.alibiseg"),
        *("--backbone", here("tiny.safetensors"), "--alibi", "constant"),
        *("--features", "vit", "--resolution", "patch", "--components", "all"),
        *("--classifier", "logistic", "--density", "2", "--scale", "1"),
    )
    assert report["training"]["n_features"] == 64
    inside("apply", "p.alibiseg", here("a.tif"), "--out", "o")
    ids = tifffile.imread(inside.folder / "o/a_labels.tif")
    assert set(np.unique(ids)) <= set(IDS)
    assert ids.shape == (96, 128)


def test_weights_that_moved_and_others(inside, here, vit):
    moved = inside.folder / "moved.safetensors"
    moved.write_bytes(here("tiny.safetensors").read_bytes())
    classifier = inside.folder / "c.alibiseg"
    inside(
        *("train", here("a.tif"), "--labels", here("a.png"), "--out", classifier),
        *("--backbone", moved, "--alibi", "constant", "--trees", "5", "--scale", "1"),
    )
    moved.rename(inside.folder / "elsewhere.safetensors")
    line = ("apply", classifier, here("a.tif"), "--out", "o")
    gone = inside(*line, expect=1)
    assert "Say where it lies now" in gone.stderr
    other = write_tiny_vit(inside.folder / "other.safetensors", seed=1)
    refused = inside(*line, "--backbone", other, expect=1)
    assert "is not the weights wanted here: its SHA-256 is" in refused.stderr
    assert not (inside.folder / "o").exists()
    inside(*line, "--backbone", "elsewhere.safetensors")
    assert (inside.folder / "o/a_labels.tif").is_file()


def test_stored_features_are_found_again(inside, here, vit, caplog):
    options = (
        *("--backbone", here("tiny.safetensors"), "--alibi", "constant"),
        *("--tile", "56", "--scale", "1", "--store", "s"),
    )
    (found,) = inside.json("features", here("a.tif"), *options)["files"]
    assert (found["tiles"], found["tokens"], found["channels"]) == (6, [7, 10], 64)
    chunks = [
        p for p in (inside.folder / found["store"] / "c").rglob("*") if p.is_file()
    ]
    assert len(chunks) == 6
    before = {p: p.stat().st_mtime_ns for p in chunks}
    train = ("train", here("a.tif"), "--labels", here("a.png"), *options)
    caplog.clear()
    with caplog.at_level("INFO"):
        inside("-v", *train, "--trees", "20", "--out", "c.alibiseg")
    assert "Intensity range of a.tif" in caplog.text
    assert "Extracting" not in caplog.text
    assert {p: p.stat().st_mtime_ns for p in chunks} == before
    assert len(list((inside.folder / "s").iterdir())) == 1
    assert (inside.folder / "c.alibiseg").read_bytes() == (
        here("vit.alibiseg").read_bytes()
    )


def test_no_bar_and_no_chatter_without_a_terminal(shell, here, vit):
    cache = Path(shell.env["ALIBI_SEG_CACHE"])
    before = {p for p in cache.rglob("*") if p.is_file()}
    write_image(shell.folder / "b.tif", sample()[0][:, ::-1].copy(), axes="YX")
    done = shell("apply", here("vit.alibiseg"), "b.tif", "--out", "o")
    assert done.stderr.splitlines() == ["[1/1] b.tif: done"]
    assert done.stdout == "Wrote o\n"
    # the features of a folder of images, which nobody asked to keep, are not kept
    assert {p for p in cache.rglob("*") if p.is_file()} == before


def test_a_plane_of_a_stack(inside, here):
    image, _, _ = sample()
    stack = np.stack([np.zeros_like(image), image])
    write_image(inside.folder / "s.tif", stack, axes="ZYX")
    line = ("apply", here("c.alibiseg"), "s.tif", "--out", "o", "--plane")
    inside(*line, "1")
    written = open_image(inside.folder / "o/s_labels.tif")
    expected = Segmenter.load(here("c.alibiseg")).predict(image).labels
    window = Window(0, *image.shape[:1], 0, image.shape[1])
    np.testing.assert_array_equal(written.read(window)[..., 0], expected)
    # another plane is another result, not one that is done
    refused = inside.json(*line, "0", expect=1)["files"][0]
    assert "was not made from this image" in refused["error"]


def stack_of_three(folder: Path) -> np.ndarray:
    image, _, _ = sample()
    noise = np.random.default_rng(0).integers(0, 60, (3, *image.shape))
    stack = np.clip(image.astype(int) + noise, 0, 255).astype(np.uint8)
    write_image(folder / "s.tif", stack, axes="ZYX", pixel_size=PIXEL)
    return stack


def test_all_planes_of_a_stack_smoothed(inside, here):
    stack = stack_of_three(inside.folder)
    line = ("apply", here("c.alibiseg"), "s.tif", "--all-planes", "--z-smooth", "0.7")
    (row,) = inside.json(*line, "--out", "o")["files"]
    assert (row["status"], row["pixels"]) == ("done", stack.size)
    segmenter = Segmenter.load(here("c.alibiseg"))
    steps = list(iter_predict_stack(segmenter, stack, z_smooth=0.7))
    for step in steps:
        written = open_image(inside.folder / "o/s_labels.tif", plane=step.plane)
        assert (written.axes, written.pixel_size) == ("ZYX", PIXEL)
        pixels = written.read(step.result.window)[..., 0]
        np.testing.assert_array_equal(pixels, step.result.labels_yx)
    (again,) = inside.json(*line, "--out", "o")["files"]
    assert again["status"] == "skipped"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--z-smooth", "1"), "Smoothing along Z needs all planes"),
        (("--all-planes", "--plane", "1"), "not allowed with argument"),
        (("--all-planes", "--z-smooth=-1"), "0 or a positive number of planes"),
    ],
    ids=["one-plane", "both", "negative"],
)
def test_planes_that_contradict_each_other(inside, here, options, message):
    line = ("apply", here("c.alibiseg"), here("a.tif"), "--out", "o", *options)
    assert message in inside(*line, expect=2).stderr
    assert not (inside.folder / "o").exists()


def test_ome_zarr_opens_again_and_is_no_input(inside, here):
    stack_of_three(inside.folder)
    line = ("apply", here("c.alibiseg"), here("a.tif"), "s.tif", "--all-planes")
    options = ("--probabilities", "--format", "ome-zarr")
    inside(*line, "--out", "z", *options)
    inside(*line, "--out", "t", "--probabilities")
    for name, plane in (("a", None), ("s", 2)):
        for kind in ("labels", "probabilities"):
            one = open_image(inside.folder / f"z/{name}_{kind}.ome.zarr", plane=plane)
            other = open_image(inside.folder / f"t/{name}_{kind}.tif", plane=plane)
            assert one.pixel_size == other.pixel_size == PIXEL
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(
                one.read(one.window), other.read(other.window)
            )
    maps = open_image(inside.folder / "z/a_probabilities.ome.zarr")
    assert maps.channel_names == ("class 1", "class 3")
    files = inside.json(*line, "--out", "z", *options)["files"]
    assert {row["status"] for row in files} == {"skipped"}
    nothing = inside("apply", here("c.alibiseg"), "z", "--out", "y", expect=2)
    assert "No image found" in nothing.stderr


def test_a_caller_keeps_its_own_log_level(capsys):
    logger = logging.getLogger("napari_alibi_seg")
    before = logger.level
    assert main(["-v", "info", "none.tif"]) == 1
    assert logger.level == before
