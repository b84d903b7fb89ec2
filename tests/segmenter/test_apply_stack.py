"""Stacks in a batch: one output with an axis for planes, plane by plane, resumable."""

from __future__ import annotations

import json
from itertools import takewhile

import numpy as np
import pytest
import tifffile
from segmenter.samples import sample, write_tiny_vit

from napari_alibi_seg import Segmenter
from napari_alibi_seg._base import (
    Alibi,
    ClassifierSettings,
    FeatureSettings,
    PixelSize,
    SettingsError,
    StoreError,
)
from napari_alibi_seg._segmenter import (
    BatchOptions,
    FileResult,
    FileTask,
    PlaneTile,
    Progress,
    iter_apply,
    iter_predict_stack,
)
from napari_alibi_seg._segmenter import _apply_stack as apply_stack
from napari_alibi_seg.data import open_image, open_levels, write_image
from napari_alibi_seg.features import load_backbone

N_PLANES = 5
PIXEL = PixelSize(0.05, 0.05, "um")
ALL = BatchOptions(all_planes=True, probabilities=True, uncertainty=True)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A stack, one plane of it alone, and a classifier; everything is small."""
    folder = tmp_path_factory.mktemp("stacks")
    image, _, scribbles = sample()
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 60, (N_PLANES, *image.shape))
    stack = np.clip(image.astype(int) + noise, 0, 255).astype(np.uint8)
    stack[3] = stack[1]  # equal planes must not get into each other's way
    write_image(folder / "s.tif", stack, axes="ZYX", pixel_size=PIXEL)
    write_image(folder / "flat.tif", stack[0], axes="YX", pixel_size=PIXEL)
    settings = ClassifierSettings(n_trees=5)
    Segmenter(classifier=settings).fit(image, scribbles).save(folder / "c.alibiseg")
    return folder


def classical(home):
    return Segmenter.load(home / "c.alibiseg")


def expected(segmenter, path, z_smooth=0.0):
    """Labels (Z, Y, X) and probabilities (Z, K, Y, X) from Python."""
    labels, proba = {}, {}
    for step in iter_predict_stack(segmenter, path, z_smooth=z_smooth):
        if isinstance(step, PlaneTile):  # planes of one tile
            labels[step.plane] = step.result.labels_yx
            proba[step.plane] = step.result.proba_kyx
    assert list(labels) == list(range(N_PLANES))
    return np.stack([*labels.values()]), np.stack([*proba.values()])


def result(steps) -> FileResult:
    (found,) = [step for step in steps if isinstance(step, FileResult)]
    return found


@pytest.mark.parametrize("z_smooth", [0.0, 0.8])
def test_one_stack_of_each_kind_as_from_python(home, tmp_path, z_smooth):
    options = BatchOptions(all_planes=True, z_smooth=z_smooth, probabilities=True)
    found = result(iter_apply(classical(home), [home / "s.tif"], tmp_path, options))
    labels, proba = expected(classical(home), home / "s.tif", z_smooth)
    assert (found.status, found.pixels) == ("done", labels.size)
    shares = {int(i): (labels == i).mean() for i in np.unique(labels)}
    assert found.fractions == pytest.approx(shares)
    with tifffile.TiffFile(tmp_path / "s_labels.tif") as tif:
        assert tif.series[0].axes == "ZYX"
        assert np.array_equal(tif.asarray(), labels)
    with tifffile.TiffFile(tmp_path / "s_probabilities.tif") as tif:
        assert tif.series[0].axes == "ZCYX"
        assert np.array_equal(tif.asarray(), proba)
    assert open_image(tmp_path / "s_labels.tif", plane=4).pixel_size == PIXEL
    row = json.loads((tmp_path / "alibi-seg-manifest.jsonl").read_text())
    assert (row["recipe"]["planes"], row["recipe"]["z_smooth"]) == (5, z_smooth)
    assert row["settings"]["planes"] == N_PLANES
    assert not list(tmp_path.glob(".alibi*"))


def test_smoothing_changes_the_result_and_is_another_recipe(home, tmp_path):
    segmenter = classical(home)
    result(iter_apply(segmenter, [home / "s.tif"], tmp_path, ALL))
    again = result(iter_apply(segmenter, [home / "s.tif"], tmp_path, ALL))
    assert again.status == "skipped"
    smooth = BatchOptions(all_planes=True, z_smooth=1.0)
    other = result(iter_apply(segmenter, [home / "s.tif"], tmp_path, smooth))
    assert "was not made from this image" in other.error
    alone, smoothed = (expected(segmenter, home / "s.tif", z) for z in (0, 1))
    assert not np.array_equal(alone[0], smoothed[0])


def test_images_of_one_plane_are_done_as_without(home, tmp_path):
    inputs = [home / "flat.tif"]
    result(iter_apply(classical(home), inputs, tmp_path, BatchOptions()))
    all_planes = BatchOptions(all_planes=True, z_smooth=2.0)
    again = result(iter_apply(classical(home), inputs, tmp_path, all_planes))
    assert again.status == "skipped"
    assert open_image(tmp_path / "flat_labels.tif").axes == "YX"


@pytest.mark.parametrize("z_smooth", [0.0, 0.8])
def test_interrupted_stacks_go_on_at_the_plane(home, tmp_path, z_smooth):
    options = BatchOptions(all_planes=True, z_smooth=z_smooth)
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    result(iter_apply(classical(home), [home / "s.tif"], whole, options))
    steps = iter_apply(classical(home), [home / "s.tif"], halves, options)
    first = list(takewhile(lambda step: step.done < 3, steps))
    steps.close()
    assert [(s.done, s.total) for s in first] == [(1, 5), (2, 5)]
    again = list(iter_apply(classical(home), [home / "s.tif"], halves, options))
    assert [s.done for s in again if isinstance(s, Progress)] == [4, 5]
    name = "s_labels.tif"
    assert (halves / name).read_bytes() == (whole / name).read_bytes()


def test_ome_zarr_and_time_series(home, tmp_path):
    planes = [open_image(home / "s.tif", plane=z) for z in range(N_PLANES)]
    stack = np.stack([p.read(p.window)[..., 0] for p in planes])
    write_image(tmp_path / "t.tif", stack, axes="TYX")
    options = BatchOptions(all_planes=True, format="ome-zarr")
    out = tmp_path / "out"
    result(iter_apply(classical(home), [tmp_path / "t.tif"], out, options))
    labels, _ = expected(classical(home), home / "s.tif")
    (source,) = open_levels(out / "t_labels.ome.zarr", plane=2)
    assert (source.axes, source.file_shape) == ("TYX", labels.shape)
    assert np.array_equal(source.read(source.window)[..., 0], labels[2])


def test_features_of_a_plane_are_gone_when_it_is_done(home, tmp_path):
    backbone = load_backbone(
        write_tiny_vit(tmp_path / "tiny.safetensors"),
        alibi=Alibi(slope="constant"),
        device="cpu",
    )
    image, _, scribbles = sample()
    segmenter = Segmenter(
        backbone,
        features=FeatureSettings(kind="both", tile_px=56, scale=1.0),
        classifier=ClassifierSettings(n_trees=5),
    ).fit(image, scribbles)
    # a user's own folder may have any name, and what it holds is never scratch
    segmenter.store = tmp_path / "scratch"
    for _ in segmenter.iter_embed(home / "s.tif", plane=2):
        pass
    kept = sorted(tmp_path.glob("scratch/*"))
    assert len(kept) == 1
    segmenter.save(tmp_path / "vit.alibiseg")
    steps = [*iter_apply(segmenter, [home / "s.tif"], tmp_path / "out", ALL)]
    assert result(steps).status == "done"
    stages = {step.stage for step in steps if isinstance(step, Progress)}
    assert {"segmentation", "features of plane 0", "features of plane 4"} <= stages
    assert "features of plane 2" not in stages
    assert [p for p in tmp_path.rglob("*.zarr") if "out" not in p.parts] == kept


def test_stacks_are_announced_as_a_whole(home, tmp_path, monkeypatch):
    monkeypatch.setattr(apply_stack, "LARGE_PX", 0)
    task = FileTask(home / "s.tif", tmp_path, "s", ALL)
    job = apply_stack.open_job(classical(home), task)
    found = job.estimate()
    assert found.pixels == job.pixels == N_PLANES * 96 * 128
    assert found.seconds == pytest.approx(N_PLANES * found.seconds_per_tile)
    for _ in job.iter_predict([0, 1]):
        pass
    assert job.estimate().tiles == N_PLANES - 2


def test_processes_read_the_planes_they_were_told_of(home, tmp_path):
    options = BatchOptions(all_planes=True, z_smooth=0.4)  # one neighbour a side
    task = FileTask(home / "s.tif", tmp_path, "s", options)
    job = apply_stack.open_job(classical(home), task)
    assert job.planes_per_unit == 16
    hashes = job.hashes_for([0, 1])
    assert sorted(hashes) == [0, 1, 2]
    other = apply_stack.open_job(classical(home), task)
    other.take_over(job.input_hash, hashes)
    assert other.recipe == job.recipe
    with pytest.raises(StoreError, match=r"plane 2: expected the image"):
        other.take_over(job.input_hash, hashes | {2: "0" * 64})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"all_planes": True, "plane": 1}, "one plane or all of them, got plane 1"),
        ({"z_smooth": 1.0}, "needs all planes"),
        ({"all_planes": True, "z_smooth": -1.0}, "0 or a positive number"),
        ({"all_planes": True, "z_smooth": float("nan")}, "0 or a positive number"),
    ],
    ids=["both", "one-plane", "negative", "nan"],
)
def test_options_that_contradict_each_other(options, message):
    with pytest.raises(SettingsError, match=message):
        BatchOptions(**options)
