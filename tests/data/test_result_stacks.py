"""Results of stacks and time series: an axis more, in the order that readers expect."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
import zarr
from data.test_results import IDS, SIZE, cut, make, outputs_of, result_of

from napari_alibi_seg._base import SettingsError, StoreError
from napari_alibi_seg.data import RESULT_KINDS, open_image, open_levels

SHAPE = (70, 50)
N_PLANES = 3
PLANES = [result_of(SHAPE, seed) for seed in range(N_PLANES)]


AXES = {"z": {"n_planes": N_PLANES}, "t": {"n_times": N_PLANES}}


def filled(path, order=range(N_PLANES), axis="z", **options):
    store = make(path, SHAPE, **AXES[axis], **options)
    for plane in order:
        for i, window in enumerate(store.tiles):
            store.write(i, cut(PLANES[plane], window), plane)
    return store


@pytest.mark.parametrize("axis", ["z", "t"])
@pytest.mark.parametrize("suffix", ["tif", "ome.zarr"])
def test_planes_come_back_with_levels_and_pixel_size(tmp_path, axis, suffix):
    store = filled(tmp_path / "a.zarr", axis=axis)
    paths = {k: tmp_path / f"{k}.{suffix}" for k in RESULT_KINDS}
    if suffix == "tif":
        for kind, path in paths.items():
            store.export_tiff(kind, path)
    else:
        store.move_to(paths)
    with_channels = {
        ("z", "tif"): "ZCYX",
        ("t", "tif"): "TCYX",
        ("z", "ome.zarr"): "CZYX",  # OME-Zarr wants space after channels
        ("t", "ome.zarr"): "TCYX",
    }[axis, suffix]
    for kind, path in paths.items():
        for plane, whole in enumerate(PLANES):
            full, half, _ = open_levels(path, plane=plane)
            is_map = kind == "probabilities"
            axes = with_channels if is_map else f"{axis.upper()}YX"
            assert (full.axes, full.pixel_size) == (axes, SIZE)
            pixels = np.moveaxis(full.read(full.window), -1, 0)
            assert np.array_equal(pixels if is_map else pixels[0], whole[kind])
            if kind != "labels":
                blocks = pixels.reshape(-1, 35, 2, 25, 2).mean((2, 4), np.float64)
                coarse = np.moveaxis(half.read(half.window), -1, 0)
                np.testing.assert_allclose(coarse, blocks, rtol=1e-6)


def test_labels_have_the_shape_of_the_stack_for_every_reader(tmp_path):
    store = filled(tmp_path / "a.zarr")
    store.export_tiff("labels", tmp_path / "labels.tif")
    store.move_to({k: tmp_path / f"{k}.ome.zarr" for k in RESULT_KINDS})
    stack = np.stack([whole["labels"] for whole in PLANES])
    with tifffile.TiffFile(tmp_path / "labels.tif") as tif:
        assert tif.series[0].axes == "ZYX"
        assert len(tif.pages) == N_PLANES
        assert np.array_equal(tif.asarray(), stack)
    group = zarr.open_group(tmp_path / "labels.ome.zarr", mode="r")
    assert np.array_equal(group["0"][:], stack)
    axes = group.attrs["ome"]["multiscales"][0]["axes"]
    assert [(a["name"], a["type"]) for a in axes] == [
        ("z", "space"),
        ("y", "space"),
        ("x", "space"),
    ]


def test_order_of_planes_does_not_change_the_bytes(tmp_path):
    one = outputs_of(filled(tmp_path / "a.zarr"), tmp_path / "a")
    other = outputs_of(filled(tmp_path / "b.zarr", (2, 0, 1)), tmp_path / "b")
    assert one == other


def test_planes_are_missing_until_they_are_whole(tmp_path):
    store = filled(tmp_path / "a.zarr", [1])
    store.write(0, cut(PLANES[2], store.tiles[0]), 2)
    assert store.missing_planes() == [0, 2]
    assert store.missing(2) == list(range(1, len(store.tiles)))
    with pytest.raises(StoreError, match=r"18 tiles of labels .* but 11 are missing"):
        store.finish()
    again = filled(tmp_path / "a.zarr", [0, 2])
    assert again.missing_planes() == []
    counts = again.label_counts()
    expected = np.stack([whole["labels"] for whole in PLANES])
    assert counts == {i: int((expected == i).sum()) for i in IDS}


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({}, id="no-stack"),
        pytest.param({"n_planes": 4}, id="longer"),
        pytest.param({"n_times": 3}, id="time"),
    ],
)
def test_a_store_of_another_stack_is_refused(tmp_path, more):
    make(tmp_path / "a.zarr", SHAPE, n_planes=3)
    with pytest.raises(StoreError):
        make(tmp_path / "a.zarr", SHAPE, **more)


@pytest.mark.parametrize("more", [{"n_planes": 0}, {"n_planes": 2, "n_times": -1}])
def test_planes_that_make_no_sense(tmp_path, more):
    with pytest.raises(SettingsError, match="must be 1 or more, or None"):
        make(tmp_path / "a.zarr", SHAPE, **more)


def test_a_stack_of_one_plane_stays_a_stack(tmp_path):
    store = make(tmp_path / "a.zarr", SHAPE, n_planes=1)
    for i, window in enumerate(store.tiles):
        store.write(i, cut(PLANES[0], window))
    store.move_to({"labels": tmp_path / "labels.ome.zarr"})
    assert open_image(tmp_path / "labels.ome.zarr").file_shape == (1, *SHAPE)
