"""The benchmark scripts: their arithmetic, and a tiny run of the main ones."""

from __future__ import annotations

import importlib
import json
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from napari_alibi_seg import ClassifierSettings
from napari_alibi_seg.data import TokenGrid, draw_scribbles, synthesize
from napari_alibi_seg.features import list_backbones

_BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def _benchmarks_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(_BENCHMARKS))


def _script(name: str) -> ModuleType:
    return importlib.import_module(name)


@pytest.fixture(scope="module")
def micrograph() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A synthetic image of 128 px, scribbles on it, and its mask from 0."""
    made = synthesize("spinodal", (128, 128), seed=1)
    return made.image, draw_scribbles(made.mask, seed=0), made.mask - 1


# ------------------------------------------------------------------- tables, results


def test_table_aligns_numbers_right_and_rounds() -> None:
    text = _script("_common").table(("set", "mIoU"), [("a", 0.12345), ("bcd", None)])
    assert text.splitlines() == [
        "| set |  mIoU |",
        "| --- | ----: |",
        "| a   | 0.123 |",
        "| bcd |     - |",
    ]


def test_table_refuses_a_short_row() -> None:
    with pytest.raises(ValueError, match="must have 2 cells"):
        _script("_common").table(("a", "b"), [("only one",)])


def test_save_writes_the_machine_beside_the_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = _script("_common")
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    found = json.loads(common.save("part", {"miou": 0.5}).read_text())
    assert found["miou"] == 0.5
    assert found["machine"]["packages"]["numpy"] == np.__version__


def test_score_rows_flag_what_is_below() -> None:
    def side(spread: float, biased: float) -> dict:
        scores = {
            kind: {"mean": [value], "pooled": [value]}
            for kind, value in (("spread", spread), ("biased", biased))
        }
        return {"scores": scores}

    found = {"alloy": {"ours": side(0.7, 0.5), "skimage": side(0.6, 0.6)}}
    rows = _script("quality").score_rows(found)
    assert [(r[1], r[4], r[-1]) for r in rows] == [
        ("spread", "+0.100", ""),
        ("biased", "-0.100", "BELOW"),
    ]


def test_segment_rows_give_the_ratio_of_paired_totals() -> None:
    def run(seconds: float, peak: float) -> dict:
        return {"train": {"seconds": [seconds], "peak_mb": peak}}

    found = {"ours": [run(1.0, 10.0), run(2.0, 12.0)], "x": [run(3.0, 5.0)] * 2}
    rows = _script("speed").segment_rows(found)
    assert rows[-1] == ["x", "total", "3.00 (3.00 to 3.00)", "5", "2.25"]
    assert rows[1][3] == "12"


def test_gain_is_the_mean_of_the_sets_means() -> None:
    gain = _script("gain")

    def row(dataset: str, kind: str, miou: float) -> dict:
        return {"set": dataset, "scribbles": "spread", "kind": kind, "miou": miou}

    rows = [row("a", "classical", 0.5), row("b", "classical", 0.4)]
    rows += [row("a", "both", 0.6), row("a", "both", 0.8), row("b", "both", 0.39)]
    rows += [{**r, "scribbles": "biased", "miou": r["miou"] - 0.1} for r in rows]
    means = gain.set_means(rows)
    assert means["a", "spread"] == pytest.approx((0.5, 0.7))
    assert gain.gain_rows(means)[-2][0:2] == ["all sets", "spread"]
    assert gain.gain_rows(means)[-2][-1] == "+0.095"
    assert gain.verdict(means) == (
        "Mean gain: spread +0.095, worst b -0.010; biased +0.095, worst b -0.010."
    )


def test_extraction_is_the_longest_of_an_images_results() -> None:
    row = {"set": "a", "kind": "both", "fit_s": 1.0, "megapixels": 2.0}
    rows = [{**row, "image": "x", "embed_s": s} for s in (4.0, 0.1, 0.1)]
    rows.append({**row, "image": "y", "embed_s": 2.0})
    cost = _script("gain").cost_rows(rows)
    assert cost == [["a", 2, "1.00", "3.00", "1.50"]]


# ---------------------------------------------------------------------------- limits


def test_distance_is_that_to_where_two_classes_meet() -> None:
    limits = _script("limits")
    mask = np.zeros((1, 12), np.uint8)
    mask[0, 6:8] = 255  # does not count, and is no class
    mask[0, 8:] = 1
    # 7 | 8 is where the ignored ends; only 0 and 1 side by side make a boundary
    assert np.isinf(limits.boundary_distance(mask)).all()
    mask[0, 6:8] = 0
    assert limits.boundary_distance(mask)[0].tolist() == [
        *range(7, 0, -1),
        0,
        0,
        1,
        2,
        3,
    ]


def test_random_labels_are_as_many_of_each_class_and_right() -> None:
    limits = _script("limits")
    mask = np.repeat(np.arange(3, dtype=np.uint8), 40).reshape(12, 10)
    mask[:1] = 255
    painted = np.zeros((12, 10), np.uint8)
    painted[2, 2:7], painted[10, :3] = 1, 3
    made = limits.random_labels(painted, mask, np.random.default_rng(0))
    assert np.bincount(made.ravel(), minlength=4).tolist() == [112, 5, 0, 3]
    assert (made[made > 0] - 1 == mask[made > 0]).all()
    assert not np.array_equal(made, painted)


def test_mending_the_far_errors_leaves_the_near_ones(
    micrograph: tuple[np.ndarray, ...],
) -> None:
    found = _script("limits").measure(*micrograph, seed=0)
    assert found["counted"] == 128 * 128
    assert 0 < found["near_errors"] < found["errors"] < found["counted"] // 2
    assert found["miou"] < found["mended_miou"] < 1
    assert found["random_miou"] > 0.5
    assert found["root_miou"] != found["miou"]


def test_limits_are_means_of_the_sets_means() -> None:
    limits = _script("limits")
    row = {"counted": 100, "errors": 20, "near_errors": 5, "miou": 0.5}
    row |= {"mended_miou": 0.6, "random_miou": 0.7, "root_miou": 0.45}
    rows = [{**row, "set": "a"}, {**row, "set": "a", "miou": 0.7, "errors": 10}]
    rows.append({**row, "set": "b", "miou": 0.4, "near_errors": 20})
    rows = [{**r, "scribbles": kind} for r in rows for kind in ("spread", "biased")]
    by_place = {tuple(r[:2]): r[2:] for r in limits.error_rows(rows)}
    *shares, difference = by_place["a", "spread"]
    assert shares == pytest.approx([0.15, 0.375, 0.6, 0.6])
    assert difference == "+0.000"
    assert by_place["all sets", "biased"][1] == pytest.approx((0.375 + 1) / 2)
    labels = {tuple(r[:2]): r[2:] for r in limits.label_rows(rows)}
    assert labels["b", "biased"] == [0.4, 0.7, "+0.300", 0.45, "+0.050"]
    features = [{**r, "backbone": "x", "miou": r["miou"] + 0.1} for r in rows]
    features += [{**r, "backbone": "y"} for r in rows]
    shown = {
        tuple(r[:2]): r[2:] for r in limits.feature_rows(rows, features, ["x", "y"])
    }
    assert shown["all sets", "spread"] == [pytest.approx(0.5), "+0.100", "+0.000"]


def test_the_teacher_gives_its_levels_on_the_token_grid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import timm
    import torch

    script = _script("_teacher")
    torch.manual_seed(0)
    whole = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    stored = {
        f"other.{k}": v for k, v in whole.state_dict().items() if "num_batches" not in k
    }
    path = tmp_path / "weights.pth"
    torch.save(stored, path)
    teacher = script.Teacher(path)
    assert teacher.embed_dim == 232
    images = torch.randn(1, 3, 64, 48, generator=torch.Generator().manual_seed(0))
    tokens = teacher.patch_features(images)
    assert tokens.shape == (1, 232, 8, 6)
    with torch.inference_mode():
        first = whole.eval().forward_intermediates(images, intermediates_only=True)[0]
    cell = first[0, :, 4:8, 8:12]  # stride 2: four values to a token's side
    torch.testing.assert_close(tokens[0, :16, 1, 2], cell.mean((1, 2)))
    torch.testing.assert_close(
        tokens[0, 16:32, 1, 2], cell.std((1, 2), correction=0), atol=1e-4, rtol=1e-3
    )
    torch.save(dict(list(stored.items())[1:]), path)
    with pytest.raises(SystemExit, match="does not match timm's"):
        script.Teacher(path)
    monkeypatch.setattr(script, "PACKAGE", "no-such-package-here")
    assert script.teacher_weights() is None


def test_limits_on_one_image_are_not_made_twice(
    shared_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    limits = _script("limits")
    monkeypatch.setattr(_script("_common"), "RESULTS", tmp_path)
    monkeypatch.setattr(limits, "teacher_weights", lambda: None)
    # rows are asked for here, not scores
    few = partial(ClassifierSettings, n_trees=5)
    monkeypatch.setattr(limits, "ClassifierSettings", few)
    monkeypatch.setattr(_script("sweep"), "ClassifierSettings", few)
    out = tmp_path / "limits.jsonl"
    command = ["--quick", "--data", str(shared_dir / "data"), "--out", str(out)]
    command += ["--scale", "0.5"]
    assert limits.main(command) == 0
    first = out.read_text()
    assert len(first.splitlines()) == 4  # two scribbles, classical and alibi-tiny
    said = capsys.readouterr().out
    assert "teacher is left out" in said
    rows = [line for line in said.splitlines() if "| superalloy_16bit | spread" in line]
    assert len(rows) == 3
    monkeypatch.setattr(limits, "measure", None)
    assert limits.main(command) == 0
    assert out.read_text() == first
    saved = json.loads((tmp_path / "limits.json").read_text())
    assert [len(saved[k]) for k in ("classical", "features")] == [2, 2]


# ------------------------------------------------------------------------ measuring


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can reset the peak")
def test_stages_keep_peaks_apart() -> None:
    stages = _script("_common").Stages()
    with stages.stage("large"):
        np.ones(150 * 2**17)  # 150 MB
    with stages.stage("small"):
        pass
    found = stages.to_dict()
    assert 140 < found["large"]["peak_mb"] < 300
    assert found["small"]["peak_mb"] < found["large"]["peak_mb"] - 100


def test_switching_stages_ends_the_one_before() -> None:
    stages = _script("_common").Stages()
    stages.switch("one")
    stages.switch("two")
    stages.switch(None)
    assert [(k, len(v)) for k, v in stages.seconds.items()] == [("one", 1), ("two", 1)]


def test_a_child_answers_with_json() -> None:
    answer = _script("_common").in_child("_common:version", package="numpy")
    assert answer == np.__version__


def test_mirrored_mosaic_has_no_seams() -> None:
    tile = np.arange(12).reshape(3, 4)
    mosaic = _script("_common").mirrored(tile, 10)
    expected = np.pad(tile, ((0, 7), (0, 6)), mode="symmetric")
    assert np.array_equal(mosaic, expected)


def test_three_phases_without_reference_data(tmp_path: Path) -> None:
    image, painted, origin = _script("_common").three_phases(tmp_path, 128)
    assert image.shape == painted.shape == (128, 128)
    assert np.unique(painted).tolist() == [0, 1, 2, 3]
    assert origin.startswith("synthetic")


# ------------------------------------------------------------------- tiny real runs


def test_quality_scores_both_sides(micrograph: tuple[np.ndarray, ...]) -> None:
    quality, common = _script("quality"), _script("_common")
    image, painted, mask = micrograph
    stages, scores = common.Stages(), quality._Scores()
    for kind, segment in (
        ("spread", quality.segment_ours),
        ("biased", quality.segment_skimage),
    ):
        scores.add(kind, 0, segment(image, painted, 0, stages), mask)
    found = scores.to_dict()
    assert found["spread"]["pooled"][0] > 0.5
    assert found["biased"]["pooled"][0] > 0.5
    assert found["spread"]["mean"] == found["spread"]["pooled"]
    assert set(stages.seconds) == {"train", "segment", "features", "predict"}


def test_exhaustive_prediction_is_the_same(micrograph: tuple[np.ndarray, ...]) -> None:
    image, painted, mask = micrograph
    found = _script("speed").compare_exhaustive(image, painted, mask)
    assert found["pixels"] == 128 * 128
    assert found["differing"] == 0
    assert found["miou"] == found["sklearn_miou"] > 0.5


def test_the_bare_forward_computes_what_our_backbone_does(tmp_path: Path) -> None:
    import torch

    vits = _script("_vits")
    path = vits.random_vit(tmp_path, depth=2)
    backbone = vits.load_chosen(str(path), "constant", "cpu")
    images = torch.randn(1, 3, 70, 70, generator=torch.Generator().manual_seed(0))
    ours = backbone.patch_features(images)
    for fused in (True, False):
        tokens = vits.BareForward(side=70, fused=fused, depth=2)(images)[:, 5:]
        bare = tokens.transpose(1, 2).reshape(ours.shape)
        assert torch.allclose(ours, bare, atol=2e-4), fused


# --------------------------------------------------------------------------- tiling


def test_equal_maps_have_cosine_and_ratio_one() -> None:
    grid = TokenGrid((112, 112), patch_px=14, tile_px=56)
    tokens = np.random.default_rng(0).random((8, 8, 5), np.float32)
    found = _script("tiling").compare(tokens, tokens, grid)
    assert found["cosine"] == pytest.approx(1)
    assert found["step_ratio"] == 1


def test_a_jump_at_a_border_shows_in_the_step_ratio() -> None:
    grid = TokenGrid((112, 112), patch_px=14, tile_px=56)
    whole = np.indices((8, 8)).sum(0)[..., None].astype(np.float32)  # every step is 1
    tiled = whole.copy()
    tiled[:, 4:] += 2  # across one of two borders the step becomes 3
    found = _script("tiling").compare(tiled, whole, grid)
    assert found["step_ratio"] == pytest.approx(2)
    assert found["step_to_others"] == pytest.approx(2)


# ----------------------------------------------------------------- published numbers


def test_paper_rows_name_backbones_that_exist() -> None:
    paper_numbers = _script("paper_numbers")
    names = {spec.name for spec in list_backbones()}
    assert {row.name for row in paper_numbers.PAPER} - {None} <= names
    rows = {row[0]: row for row in paper_numbers.probe_rows({})}
    assert rows["DINOv2-S, registers (no weights)"][1] == "0.83 +- 0.06"
    assert rows["DINOv2-S, registers (no weights)"][2] is None


# --------------------------------------------------------------------- command lines


def test_a_sweep_without_weights_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert _script("sweep").main([]) == 2
    assert "--backbone" in capsys.readouterr().err


def test_a_sweep_goes_on_after_a_cut_off_line(tmp_path: Path) -> None:
    path = tmp_path / "sweep.jsonl"
    path.write_text('{"key": "a", "miou": 0.5}\n{"key": "b", "mi')
    assert _script("sweep").read_results(path) == {"a": {"key": "a", "miou": 0.5}}


def test_without_a_gpu_nothing_is_measured_there(
    capsys: pytest.CaptureFixture[str],
) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    assert _script("gpu").main([]) == 0
    assert "No CUDA device" in capsys.readouterr().out


def test_parts_without_data_are_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _script("quality").main(["--data", str(tmp_path)]) == 0
    assert "Skipped" in capsys.readouterr().out


def test_every_part_exists() -> None:
    run = _script("run")
    assert all(callable(_script(name).main) for name in run.PARTS)
    with pytest.raises(SystemExit):
        run.main(["no-such-part"])


# ------------------------------------------------------------------------------ dock


def test_callbacks_are_summed_up_by_name_longest_first() -> None:
    times = [("short", 0.001), ("long", 0.06), ("short", 0.003), ("short", 0.051)]
    assert _script("gui").callback_rows(times) == [
        ["long", 1, "60.0", "60.0", 1],
        ["short", 3, "3.0", "51.0", 1],
    ]


def test_a_gap_is_late_beyond_the_limit() -> None:
    gui = _script("gui")
    gaps = gui.gaps_ms([1.0, 1.01, 1.02, 1.08])
    assert gaps == pytest.approx([10, 10, 60])
    row = gui.gap_row("busy", gaps)
    assert (row[:3], row[-2:]) == (["busy", 3, "10.0"], ["60.0", 1])
    assert gui.gap_row("none", []) == ["none", 0, None, None, None, None]


def test_a_view_is_covered_once_every_pixel_was_painted() -> None:
    cover = _script("gui").Coverage((10, 20, 30, 50))
    cover.add(0, 15, 0, 100)
    assert not cover.is_complete
    cover.add(15, 20, 31, 200)
    assert not cover.is_complete  # a column is missing
    cover.add(15, 16, 30, 31)
    cover.add(0, 5, 0, 5)  # elsewhere
    assert not cover.is_complete
    cover.add(16, 20, 20, 31)
    assert cover.is_complete


def test_latencies_say_how_many_kept_to_the_aim() -> None:
    strokes = [
        {"first pixel drawn": 0.2, "full": 4.0},
        {"first pixel drawn": 0.4, "full": 6.0},
    ]
    found = {"vit": {"latency": {"1:1": strokes}}}
    rows = {row[2]: row[3:] for row in _script("gui").latency_rows(found)}
    assert rows["first pixel drawn"] == ["0.30", "0.38", "0.40", "1 of 2 in 0.3 s"]
    assert rows["full"][0] == "5.00"
    assert rows["trained"][0] is None


def test_without_a_display_no_window_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gui = _script("gui")
    monkeypatch.setattr(gui.sys, "platform", "linux")
    monkeypatch.setattr(gui, "find_spec", lambda name: name)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert gui.main([]) == 0
    assert "needs a display" in capsys.readouterr().out
