"""Series of stacks (time and Z): trained on, segmented, never mixed in time."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
from segmenter.samples import sample

from napari_alibi_seg import Segmenter
from napari_alibi_seg._base import (
    AnnotationError,
    ClassifierSettings,
    PixelSize,
    SettingsError,
)
from napari_alibi_seg._cli import main
from napari_alibi_seg._segmenter import (
    BatchOptions,
    FileResult,
    PlaneTile,
    count_planes,
    iter_apply,
    iter_predict_stack,
)
from napari_alibi_seg._segmenter._painted import painted_planes
from napari_alibi_seg.data import open_image, read_labels, write_image

N_T, N_Z = 2, 3
SHAPE = (96, 128)
SIZE = PixelSize(0.5, 0.5, "um", z=2.0)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A series of stacks with two channels, one without, and a classifier of each."""
    folder = tmp_path_factory.mktemp("series")
    image, _, scribbles = sample(SHAPE)
    rng = np.random.default_rng(0)
    noisy = image + rng.normal(0, 40, (N_T, N_Z, 2, *SHAPE))
    pixels = np.clip(noisy, 0, 255).astype(np.uint8)
    write_image(folder / "tzc.tif", pixels, axes="TZCYX", pixel_size=SIZE)
    write_image(folder / "tz.tif", pixels[:, :, 0], axes="TZYX", pixel_size=SIZE)
    write_image(folder / "z.tif", pixels[1, :, 0], axes="ZYX", pixel_size=SIZE)
    write_image(folder / "t.tif", pixels[:, 0, 0], axes="TYX")
    settings = ClassifierSettings(n_trees=5)
    for name in ("tz", "tzc"):
        source = open_image(folder / f"{name}.tif", plane=1, time=0)
        fitted = Segmenter(classifier=settings).fit(source, scribbles)
        fitted.save(folder / f"{name}.alibiseg")
    return folder


def loaded(home, name="tz"):
    return Segmenter.load(home / f"{name}.alibiseg")


def labels_of(steps):
    """Return labels by (time, plane)."""
    found = [s for s in steps if isinstance(s, PlaneTile)]  # planes are one tile
    return {(s.time, s.plane): s.result.labels_yx for s in found}


def apply(segmenter, path, out, **options):
    steps = iter_apply(segmenter, [path], out, BatchOptions(**options))
    (found,) = [s for s in steps if isinstance(s, FileResult)]
    return found


def test_every_plane_is_as_predicted_alone(home):
    segmenter = loaded(home)
    found = labels_of(iter_predict_stack(segmenter, home / "tz.tif"))
    assert list(found) == [(t, z) for t in range(N_T) for z in range(N_Z)]
    assert count_planes(home / "tz.tif") == N_T * N_Z
    for (t, z), labels in found.items():
        alone = segmenter.predict(open_image(home / "tz.tif", plane=z, time=t))
        assert np.array_equal(labels, alone.labels)


def test_one_point_in_time_is_a_stack(home):
    segmenter = loaded(home)
    stack = labels_of(iter_predict_stack(segmenter, home / "z.tif", z_smooth=1.0))
    steps = iter_predict_stack(segmenter, home / "tz.tif", time=1, z_smooth=1.0)
    found = labels_of(steps)
    assert [z for _, z in found] == [0, 1, 2]
    for (_, z), labels in found.items():
        assert np.array_equal(labels, stack[None, z])


def test_nothing_is_smoothed_across_time(home):
    """Each point in time is smoothed as if it stood alone."""
    segmenter = loaded(home)
    path = home / "tz.tif"
    whole = labels_of(iter_predict_stack(segmenter, path, z_smooth=2.0))
    for t in range(N_T):
        alone = labels_of(iter_predict_stack(segmenter, path, time=t, z_smooth=2.0))
        for (_, z), labels in alone.items():
            assert np.array_equal(whole[t, z], labels)
    plain = labels_of(iter_predict_stack(segmenter, path))
    assert not np.array_equal(plain[0, 1], whole[0, 1])


@pytest.mark.parametrize(
    ("format_", "axes"), [("tiff", "TZCYX"), ("ome-zarr", "TCZYX")]
)
def test_outputs_have_both_axes_and_the_distance_of_planes(
    home, tmp_path, format_, axes
):
    options = {"all_planes": True, "probabilities": True, "format": format_}
    segmenter = loaded(home, "tzc")
    done = apply(segmenter, home / "tzc.tif", tmp_path, z_smooth=0.5, **options)
    assert (done.status, done.pixels) == ("done", N_T * N_Z * 96 * 128)
    suffix = ".tif" if format_ == "tiff" else ".ome.zarr"
    expected = iter_predict_stack(segmenter, home / "tzc.tif", z_smooth=0.5)
    for (t, z), ids in labels_of(expected).items():
        labels = open_image(tmp_path / f"tzc_labels{suffix}", plane=z, time=t)
        assert (labels.axes, labels.file_shape) == ("TZYX", (N_T, N_Z, *SHAPE))
        assert labels.pixel_size == SIZE
        assert np.array_equal(labels.read(labels.window)[..., 0], ids)
    proba = open_image(tmp_path / f"tzc_probabilities{suffix}", plane=0, time=1)
    assert (proba.axes, proba.n_channels, proba.pixel_size) == (axes, 2, SIZE)


def test_imagej_and_ome_readers_see_planes_and_times(home, tmp_path):
    apply(loaded(home), home / "tz.tif", tmp_path, all_planes=True)
    with tifffile.TiffFile(tmp_path / "tz_labels.tif") as tif:
        assert (tif.series[0].axes, tif.series[0].shape) == (
            "TZYX",
            (N_T, N_Z, *SHAPE),
        )
        assert 'PhysicalSizeZ="2.0"' in tif.ome_metadata
    with tifffile.TiffFile(home / "tz.tif") as tif:
        assert tif.imagej_metadata["spacing"] == 2.0


def test_a_time_and_a_plane_from_the_command_line(home, tmp_path, capsys):
    def run(*more):
        arguments = ("apply", str(home / "tz.alibiseg"), str(home / "tz.tif"))
        code = main([*arguments, "--out", str(tmp_path), "--json", *more])
        return code, json.loads(capsys.readouterr().out)

    assert run("--time", "1", "--plane", "2")[0] == 0
    source = open_image(home / "tz.tif", plane=2, time=1)
    labels = open_image(tmp_path / "tz_labels.tif")
    ids = loaded(home).predict(source).labels
    assert np.array_equal(labels.read(labels.window)[..., 0], ids)
    _, again = run("--time", "1", "--plane", "2")
    assert again["files"][0]["status"] == "skipped"
    code, other = run("--time", "0", "--plane", "2")
    assert (code, "was not made from this" in other["files"][0]["error"]) == (1, True)
    assert run("--time", "0", "--all-planes", "--overwrite")[0] == 0
    assert open_image(tmp_path / "tz_labels.tif", plane=0).file_shape == (N_Z, *SHAPE)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("tz", {"plane": 1}, "expected `time` from 0 to 1, got None"),
        ("tz", {"time": 1}, "expected `plane` from 0 to 2, got None"),
        ("tz", {"time": 2, "all_planes": True}, "expected `time` from 0 to 1, got 2"),
        ("z", {"time": 1, "all_planes": True}, "no stack of time points"),
        ("t", {"all_planes": True, "z_smooth": 1.0}, "time series without Z"),
    ],
    ids=["no-time", "no-plane", "late", "no-series", "smoothed-in-time"],
)
def test_what_a_series_lacks_is_said(home, tmp_path, name, options, message):
    found = apply(loaded(home), home / f"{name}.tif", tmp_path, **options)
    assert found.status == "failed"
    assert message in found.error


def test_an_interrupted_series_goes_on(home, tmp_path):
    halves, whole = tmp_path / "halves", tmp_path / "whole"
    options = BatchOptions(all_planes=True, z_smooth=0.5)
    steps = iter_apply(loaded(home), [home / "tz.tif"], halves, options)
    for _ in range(4):
        next(steps)
    steps.close()
    apply(loaded(home), home / "tz.tif", halves, all_planes=True, z_smooth=0.5)
    apply(loaded(home), home / "tz.tif", whole, all_planes=True, z_smooth=0.5)
    name = "tz_labels.tif"
    assert (halves / name).read_bytes() == (whole / name).read_bytes()


# ------------------------------------------------------------------------- training


def strokes():
    """Labels (T, Z, Y, X): one class at one place, one at another."""
    scribbles = sample(SHAPE)[2]
    labels = np.zeros((N_T, N_Z, *SHAPE), np.uint8)
    labels[0, 2], labels[1, 1] = scribbles, np.roll(scribbles, 3, 1)
    return labels


def places(found):
    return [(s.time, s.plane, painted.ids.size) for s, painted in found]


@pytest.mark.parametrize("form", ["file", "pairs", "of-one-time"])
def test_labels_on_any_plane_at_any_time(home, tmp_path, form):
    labels = strokes()
    n = int((labels[0, 2] > 0).sum()), int((labels[1, 1] > 0).sum())
    both = [(0, 2, n[0]), (1, 1, n[1])]
    if form == "pairs":
        pairs = [((0, 2), labels[0, 2]), ((1, 1), labels[1, 1])]
        assert places(painted_planes(home / "tz.tif", pairs, None)) == both
        return
    write_image(tmp_path / "l.tif", labels, axes="TZYX")
    image, path = home / "tz.tif", tmp_path / "l.tif"
    if form == "file":
        assert places(painted_planes(image, path, None)) == both
        assert places(painted_planes(image, path, None, 1)) == both[1:]
        assert places(painted_planes(image, path, 2, 0)) == both[:1]
        return
    write_image(path, labels[1], axes="ZYX")
    assert places(painted_planes(image, path, None, 1)) == both[1:]


@pytest.mark.parametrize("given", ["stack", "pairs"])
def test_labels_that_do_not_say_when_are_refused(home, given):
    labels = strokes()[0]
    pairs = [(2, labels[2])]
    wanted = labels if given == "stack" else pairs
    with pytest.raises(AnnotationError, match=r"3 at each of 2 times|point in time"):
        painted_planes(home / "tz.tif", wanted, None)


def test_training_from_the_command_line(home, tmp_path, capsys):
    labels = strokes()
    write_image(tmp_path / "l.tif", labels, axes="TZYX")

    def samples(*more):
        command = ["train", str(home / "tz.tif"), "--labels", str(tmp_path / "l.tif")]
        out = ["--out", str(tmp_path / "c.alibiseg"), "--features", "classical"]
        assert main([*command, *out, "--json", *more]) == 0
        return json.loads(capsys.readouterr().out)["training"]["samples"]

    def counts(part):
        return {str(i): int((part == i).sum()) for i in (1, 3)}

    assert samples() == counts(labels)
    assert samples("--time", "1") == counts(labels[1])


def test_smoothing_a_time_series_is_refused_from_python(home):
    with pytest.raises(SettingsError, match="time series without Z"):
        iter_predict_stack(loaded(home), home / "t.tif", z_smooth=1.0)


def test_a_time_and_a_plane_from_python(home):
    _, _, scribbles = sample(SHAPE)
    settings = ClassifierSettings(n_trees=5)
    path = home / "tz.tif"
    named = Segmenter(classifier=settings).fit(path, scribbles, plane=1, time=0)
    opened = Segmenter(classifier=settings)
    opened.fit(open_image(path, plane=1, time=0), scribbles)
    of_named = named.predict(path, plane=2, time=1).probabilities
    of_opened = opened.predict(open_image(path, plane=2, time=1)).probabilities
    assert np.array_equal(of_named, of_opened)
    assert not np.array_equal(
        of_named, named.predict(path, plane=2, time=0).probabilities
    )


@pytest.mark.parametrize(("time", "plane"), [(0, 1), (1, 0), (1, 2)])
def test_labels_in_time_alone_are_those_of_the_time(home, tmp_path, time, plane):
    labels = np.stack([sample(SHAPE)[2], np.roll(sample(SHAPE)[2], 3, 1)])
    write_image(tmp_path / "l.tif", labels, axes="TYX")
    ((_, found),) = painted_planes(home / "tz.tif", tmp_path / "l.tif", plane, time)
    assert np.array_equal(found.cols, np.nonzero(labels[time])[1])


def test_labels_of_too_few_times_are_refused(home, tmp_path):
    write_image(tmp_path / "l.tif", strokes()[:, 0], axes="TYX")
    with pytest.raises(SettingsError, match=r"l\.tif"):
        read_labels(tmp_path / "l.tif", plane=1, time=N_T)


@pytest.mark.parametrize(
    ("plane", "time", "message"),
    [(2, None, "Leave one of the two out"), (None, 1, "for time 0, plane 2")],
    ids=["plane", "time"],
)
def test_pairs_and_another_place_contradict_each_other(home, plane, time, message):
    pairs = [((0, 2), strokes()[0, 2])]
    with pytest.raises(AnnotationError, match=message):
        painted_planes(home / "tz.tif", pairs, plane, time)


def test_a_point_in_time_without_z_keeps_its_number(home):
    steps = iter_predict_stack(loaded(home), home / "t.tif", time=1)
    assert [(s.time, s.plane, s.position) for s in steps] == [(None, 1, 0)]
