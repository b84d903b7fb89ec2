"""A window of a large image costs its own blocks; pyramids open level by level."""

from __future__ import annotations

import dask.array as da
import h5py
import numpy as np
import pytest
import tifffile
import zarr

from napari_alibi_seg._base import (
    ImageFileError,
    PixelSize,
    SettingsError,
    TileResult,
    Window,
)
from napari_alibi_seg.data import ResultStore, open_image, open_levels
from napari_alibi_seg.data import _containers as containers
from napari_alibi_seg.data._tiff import _Segments

SIDE = 512  # blocks below this are joined by the reader
RNG = np.random.default_rng(4)
PIXELS = RNG.integers(0, 9, (4 * SIDE, 3 * SIDE), dtype=np.uint8)


def result_store(path):
    store = ResultStore(path, {"image": "a"}, PIXELS.shape, list(range(9)))
    maps = np.zeros((9, SIDE, SIDE), np.float32)
    for i, window in enumerate(store.tiles):
        labels = PIXELS[window.slices]
        store.write(i, TileResult(i, 12, window, labels, maps, maps[0]))
    return store


def write_tiff(folder):
    with tifffile.TiffWriter(folder / "a.tif") as tif:
        options = {"tile": (SIDE, SIDE), "compression": "zlib"}
        tif.write(PIXELS, subifds=1, **options)
        tif.write(PIXELS[::2, ::2], subfiletype=1, **options)
    return folder / "a.tif"


def write_result_tiff(folder):
    result_store(folder / "s.zarr").export_tiff("labels", folder / "a.tif")
    return folder / "a.tif"


def write_result_zarr(folder):
    result_store(folder / "s.zarr").move_to({"labels": folder / "a.ome.zarr"})
    return folder / "a.ome.zarr"


def write_zarr2(folder):
    array = zarr.create_array(
        folder / "a.zarr",
        shape=PIXELS.shape,
        chunks=(SIDE, SIDE),
        dtype="u1",
        zarr_format=2,
    )
    array[:] = PIXELS
    return folder / "a.zarr"


def write_sharded_zarr(folder):
    array = zarr.create_array(
        folder / "a.zarr",
        shape=PIXELS.shape,
        chunks=(SIDE, SIDE),
        shards=(2 * SIDE, SIDE),
        dtype="u1",
    )
    array[:] = PIXELS
    return folder / "a.zarr"


def write_hdf5(folder):
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("image", data=PIXELS, chunks=(SIDE, SIDE), compression=1)
    return folder / "a.h5"


def make_dask(folder):
    return da.from_array(zarr.open_array(write_zarr2(folder)), chunks=(SIDE, SIDE))


MAKERS = [
    write_tiff,
    write_result_tiff,
    write_result_zarr,
    write_zarr2,
    write_sharded_zarr,
    write_hdf5,
    make_dask,
]


@pytest.fixture
def n_decoded(monkeypatch):
    """Pixels that were decoded, whoever decoded them."""
    decoded = []
    segment = _Segments._segment
    taken = h5py.Dataset.__getitem__
    array_taken = zarr.Array.__getitem__

    def spy_tiff(self, file, part, number):
        pixels = segment(self, file, part, number)
        decoded.append(pixels.size)
        return pixels

    def spy_hdf5(self, key):
        block = taken(self, key)
        decoded.append(block.size)
        return block

    def spy_zarr(self, key):
        block = array_taken(self, key)
        decoded.append(block.size)
        return block

    monkeypatch.setattr(_Segments, "_segment", spy_tiff)
    monkeypatch.setattr(containers.h5py.Dataset, "__getitem__", spy_hdf5)
    monkeypatch.setattr(zarr.Array, "__getitem__", spy_zarr)
    return decoded


@pytest.mark.parametrize("make", MAKERS, ids=lambda m: m.__name__)
def test_a_window_decodes_its_own_blocks_once(tmp_path, n_decoded, make):
    image = make(tmp_path)
    n_decoded.clear()
    source = open_image(image)
    assert n_decoded == []
    window = Window(SIDE + 3, SIDE + 40, 2 * SIDE + 5, 2 * SIDE + 9)
    assert np.array_equal(source.read(window)[..., 0], PIXELS[window.slices])
    assert sum(n_decoded) == SIDE**2
    source.read(Window(SIDE + 50, SIDE + 60, 2 * SIDE, 2 * SIDE + 9))
    assert sum(n_decoded) == SIDE**2
    crossing = Window(2 * SIDE - 1, 2 * SIDE + 1, SIDE - 1, SIDE + 1)
    assert np.array_equal(source.read(crossing)[..., 0], PIXELS[crossing.slices])
    assert sum(n_decoded) == 5 * SIDE**2


@pytest.mark.parametrize("make", [write_result_tiff, write_result_zarr])
def test_a_coarse_level_decodes_nothing_of_the_fine_one(tmp_path, n_decoded, make):
    image = make(tmp_path)
    n_decoded.clear()
    levels = open_levels(image)
    assert [s.shape for s in levels] == [(2048, 1536), (1024, 768), (512, 384)]
    levels[-1].read(levels[-1].window)
    # tiles of a TIFF are whole, chunks at the edge are cut
    assert sum(n_decoded) in (512 * 384, 512 * 512)


# ------------------------------------------------------------------------------ levels


def write_ome_stack(folder, coarse_planes=3):
    group = zarr.open_group(folder / "s.zarr", mode="w")
    axes = [{"name": n, "type": "space"} for n in "zyx"]
    datasets = []
    for i, (planes, side) in enumerate([(3, 64), (3, 32), (coarse_planes, 16)]):
        array = group.create_array(str(i), shape=(planes, side, side), dtype="u2")
        array[:] = np.arange(planes)[:, None, None] + 10 * i
        scale = [1.0, 0.5 * 2**i, 0.5 * 2**i]
        steps = [{"type": "scale", "scale": scale}]
        datasets.append({"path": str(i), "coordinateTransformations": steps})
    scales = {"version": "0.5", "axes": axes, "datasets": datasets}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [scales]}
    return folder / "s.zarr"


def test_levels_of_a_stack_are_those_of_its_plane(tmp_path):
    levels = open_levels(write_ome_stack(tmp_path), plane=2)
    assert [s.read(s.window)[0, 0, 0] for s in levels] == [2, 12, 22]


def test_levels_with_other_planes_are_left_out(tmp_path):
    levels = open_levels(write_ome_stack(tmp_path, coarse_planes=1), plane=2)
    assert [s.shape for s in levels] == [(64, 64), (32, 32)]


def test_pixel_size_of_coarse_tiff_levels(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif", ome=True) as tif:
        size = {"PhysicalSizeX": 2.0, "PhysicalSizeY": 1.0}
        tif.write(np.zeros((75, 64), "u1"), subifds=1, metadata={"axes": "YX", **size})
        tif.write(np.zeros((37, 32), "u1"), subfiletype=1)
    fine, coarse = open_levels(tmp_path / "a.tif")
    assert fine.pixel_size == PixelSize(1, 2, "um")
    assert coarse.pixel_size == PixelSize(2, 4, "um")


def test_what_has_no_pyramid_has_one_level(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, PIXELS)
    for image in (path, PIXELS, open_image(PIXELS)):
        (only,) = open_levels(image)
        assert only.shape == PIXELS.shape


def test_levels_refuse_what_open_image_refuses(tmp_path):
    with pytest.raises(ImageFileError, match="nothing"):
        open_levels(tmp_path / "nothing.tif")
    with pytest.raises(SettingsError, match="`plane`"):
        open_levels(write_ome_stack(tmp_path))
    with pytest.raises(SettingsError, match="already open"):
        open_levels(open_image(PIXELS), plane=3)
