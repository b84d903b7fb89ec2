"""The distance of planes: read from every format that has one, and written again."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from data.test_results import IDENTITY, IDS, cut, result_of

from napari_alibi_seg._base import PixelSize, SettingsError
from napari_alibi_seg.data import (
    RESULT_KINDS,
    ResultStore,
    open_image,
    open_levels,
    write_image,
)

STACK = np.zeros((3, 16, 20), np.uint8)


def ome_tiff(path, **metadata):
    tifffile.imwrite(path, STACK, ome=True, metadata={"axes": "ZYX", **metadata})


def ome_zarr(path, unit):
    group = zarr.open_group(path, mode="w")
    group.create_array("0", data=STACK)
    z = {"name": "z", "type": "space", **({} if unit is None else {"unit": unit})}
    plane = [{"name": a, "type": "space", "unit": "nanometer"} for a in "yx"]
    step = {"type": "scale", "scale": [0.02, 5.0, 4.0]}
    scales = {
        "axes": [z, *plane],
        "datasets": [{"path": "0", "coordinateTransformations": [step]}],
    }
    group.attrs["ome"] = {"version": "0.5", "multiscales": [scales]}


IN_PLANE = {
    "PhysicalSizeX": 4.0,
    "PhysicalSizeXUnit": "nm",
    "PhysicalSizeY": 5.0,
    "PhysicalSizeYUnit": "nm",
}


@pytest.mark.parametrize(
    ("more", "z"),
    [
        ({"PhysicalSizeZ": 20.0, "PhysicalSizeZUnit": "nm"}, 20.0),
        ({"PhysicalSizeZ": 0.02, "PhysicalSizeZUnit": "µm"}, 20.0),
        ({"PhysicalSizeZ": 0.02}, 20.0),  # micrometres are the default
        ({"PhysicalSizeZ": 2, "PhysicalSizeZUnit": "pixel"}, None),
        ({"PhysicalSizeZ": 0.0, "PhysicalSizeZUnit": "nm"}, None),
        ({}, None),
    ],
    ids=["same-unit", "other-unit", "default-unit", "no-length", "zero", "absent"],
)
def test_ome_xml(tmp_path, more, z):
    ome_tiff(tmp_path / "a.tif", **IN_PLANE, **more)
    found = open_image(tmp_path / "a.tif", plane=1).pixel_size
    assert (found.y, found.x, found.unit) == (5.0, 4.0, "nm")
    assert found.z == (None if z is None else pytest.approx(z))


@pytest.mark.parametrize(
    ("unit", "z"), [("nanometer", 0.02), ("micrometer", 20.0), (None, None)]
)
def test_ome_zarr(tmp_path, unit, z):
    ome_zarr(tmp_path / "a.ome.zarr", unit)
    found = open_image(tmp_path / "a.ome.zarr", plane=0).pixel_size
    assert (found.y, found.x, found.unit) == (5.0, 4.0, "nm")
    assert found.z == (None if z is None else pytest.approx(z))


@pytest.mark.parametrize(("axes", "z"), [("ZYX", 0.3), ("TYX", None)])
def test_imagej_writes_one_for_time_too_which_is_none(tmp_path, axes, z):
    tifffile.imwrite(
        tmp_path / "a.tif",
        STACK,
        imagej=True,
        resolution=(10, 10),
        metadata={"axes": axes, "unit": "um", "spacing": 0.3},
    )
    size = open_image(tmp_path / "a.tif", plane=0).pixel_size
    assert size == PixelSize(0.1, 0.1, "um", z=z)


def test_hdf5(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"] = STACK
        file["raw"].attrs["element_size_um"] = [2.0, 0.5, 0.25]
    size = open_image(tmp_path / "a.h5", plane=0).pixel_size
    assert size == PixelSize(0.5, 0.25, "um", z=2.0)


@pytest.mark.parametrize("z", [None, 2.5])
def test_written_images_and_results_keep_it(tmp_path, z):
    size = PixelSize(0.5, 0.5, "um", z=z)
    write_image(tmp_path / "a.tif", STACK, axes="ZYX", pixel_size=size)
    assert open_image(tmp_path / "a.tif", plane=0).pixel_size == size
    store = ResultStore(
        tmp_path / "s.zarr",
        IDENTITY,
        (70, 50),
        IDS,
        kinds=RESULT_KINDS,
        tile_px=32,
        n_planes=2,
        pixel_size=size,
    )
    for plane in store.planes:
        for i, window in enumerate(store.tiles):
            store.write(i, cut(result_of((70, 50), 0), window), plane)
    store.export_tiff("probabilities", tmp_path / "p.tif")
    store.move_to({"labels": tmp_path / "l.ome.zarr"})
    for name in ("p.tif", "l.ome.zarr"):
        levels = open_levels(tmp_path / name, plane=1)
        assert [level.pixel_size.z for level in levels] == [z] * 3
        assert levels[1].pixel_size.x == 1.0


@pytest.mark.parametrize("z", [0.0, -2.0, float("nan"), float("inf")])
def test_a_distance_that_is_none_is_not_written(tmp_path, z):
    with pytest.raises(SettingsError, match="positive pixel size"):
        write_image(
            *(tmp_path / "z.tif", STACK),
            axes="ZYX",
            pixel_size=PixelSize(1, 1, "um", z),
        )
    assert not [*tmp_path.iterdir()]
