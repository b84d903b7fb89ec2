"""Sources read any window of any array, lazily, from many threads, and hash alike."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import dask.array as da
import h5py
import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_alibi_seg._base import ImageFileError, SettingsError, Window
from napari_alibi_seg.data import open_image
from napari_alibi_seg.data._planes import BlockedPlane, chunk_edges
from napari_alibi_seg.data._tiff import _Segments

RNG = np.random.default_rng(11)
SHAPE = (150, 130)
GREY = RNG.integers(0, 2**16, SHAPE).astype(np.uint16)
RGB = RNG.integers(0, 256, (*SHAPE, 3), np.uint8)


def tiles(source, side):
    height, width = source.shape
    for y in range(0, height, side):
        for x in range(0, width, side):
            yield Window(y, min(y + side, height), x, min(x + side, width))


# ------------------------------------------------------------------- axes of arrays


@pytest.mark.parametrize(
    ("shape", "dtype", "options", "axes", "expected"),
    [
        pytest.param((4, 6), "u1", {}, "YX", np.s_[:, :, None], id="grey"),
        pytest.param((4, 6, 3), "u1", {}, "YXS", np.s_[:], id="rgb-u1"),
        pytest.param((4, 6, 3), "f4", {}, "YXS", np.s_[:], id="rgb-float"),
        pytest.param((4, 6, 4), "u2", {}, "YXS", np.s_[..., :3], id="rgba"),
        pytest.param(
            (4, 6, 3), "i4", {"plane": 2}, "ZYX", np.s_[2, :, :, None], id="int-is-z"
        ),
        pytest.param(
            (3, 4, 6), "u1", {"plane": 0}, "ZYX", np.s_[0, :, :, None], id="stack"
        ),
        pytest.param(
            (2, 4, 6, 3), "u1", {"plane": 1}, "ZYXS", np.s_[1], id="rgb-stack"
        ),
        pytest.param(
            (4, 6, 3),
            "u1",
            {"axes": "YXZ", "plane": 1},
            "YXZ",
            np.s_[:, :, 1, None],
            id="named-in-place-of-guess",
        ),
        pytest.param(
            (4, 6, 5), "u1", {"axes": "yxc"}, "YXC", np.s_[:], id="lower-case-channels"
        ),
        pytest.param(
            (1, 4, 6), "u1", {"axes": "CYX"}, "CYX", np.s_[0, :, :, None], id="one-c"
        ),
        pytest.param(
            (2, 3, 4, 6),
            "u1",
            {"axes": "TZYX", "time": 1, "plane": 2},
            "TZYX",
            np.s_[1, 2, :, :, None],
            id="time-and-plane",
        ),
        pytest.param(
            (2, 4, 6),
            "u1",
            {"axes": "TYX", "plane": 1},
            "TYX",
            np.s_[1, :, :, None],
            id="plane-of-a-series",
        ),
        pytest.param(
            (2, 4, 6),
            "u1",
            {"axes": "TYX", "time": 1},
            "TYX",
            np.s_[1, :, :, None],
            id="time-of-a-series",
        ),
        pytest.param(
            (1, 4, 6), "u1", {"plane": 0}, "ZYX", np.s_[0, :, :, None], id="one-plane"
        ),
    ],
)
def test_axes_of_arrays(shape, dtype, options, axes, expected):
    array = (RNG.random(shape) * 100).astype(dtype)
    source = open_image(array, **options)
    assert source.axes == axes
    assert source.file_shape == shape
    np.testing.assert_array_equal(source.read(source.window), array[expected])


def test_axes_are_permuted_to_yxc():
    array = RNG.integers(0, 9, (2, 6, 5, 4), np.uint8)
    source = open_image(array, axes="CXZY", plane=3)
    assert source.shape == (4, 6)
    np.testing.assert_array_equal(
        source.read(Window(1, 3, 2, 6)), array[:, 2:6, 3, 1:3].transpose(2, 1, 0)
    )


@pytest.mark.parametrize(
    ("shape", "options", "error", "message"),
    [
        pytest.param(
            (6, 9, 9),
            {},
            SettingsError,
            r"axis Z of length 6.*needs a choice: expected `plane` from 0 to 5",
            id="no-plane",
        ),
        pytest.param(
            (6, 9, 9),
            {"plane": 6},
            SettingsError,
            "expected `plane` from 0 to 5, got 6",
            id="plane-too-high",
        ),
        pytest.param(
            (6, 9, 9), {"plane": -1}, SettingsError, "got -1", id="plane-negative"
        ),
        pytest.param(
            (6, 9, 9), {"plane": 1.5}, SettingsError, "got 1.5", id="plane-fraction"
        ),
        pytest.param(
            (6, 9, 9), {"plane": True}, SettingsError, "got True", id="plane-bool"
        ),
        pytest.param(
            (9, 9),
            {"plane": 1},
            SettingsError,
            "no stack of planes.*expected `plane` 0 or left out, got 1",
            id="plane-of-2d",
        ),
        pytest.param(
            (9, 9), {"time": 2}, SettingsError, "no stack of time points", id="time"
        ),
        pytest.param(
            (2, 6, 9, 9),
            {"axes": "TZYX", "plane": 0},
            SettingsError,
            "axis T of length 2.*expected `time` from 0 to 1",
            id="no-time",
        ),
        pytest.param(
            (2, 6, 9, 9), {}, SettingsError, "axes='ZCYX'", id="four-unnamed-axes"
        ),
        pytest.param(
            (2, 6, 9, 9),
            {"axes": "QZYX", "plane": 0},
            ImageFileError,
            "at most one stack axis beside time, got Q of 2, Z of 6",
            id="two-stacks",
        ),
        pytest.param(
            (2, 9, 9, 3),
            {"axes": "CYXS"},
            ImageFileError,
            "2 channels of 3 colour samples",
            id="channels-and-colours",
        ),
        pytest.param(
            (9, 9, 5),
            {"axes": "YXS"},
            ImageFileError,
            "1 to 4 samples of a colour.*got 5.*axes='YXC'",
            id="five-samples",
        ),
        pytest.param((9, 9), {"axes": "ZYX"}, SettingsError, "'ZYX'", id="too-many"),
        pytest.param((9, 9), {"axes": "YY"}, SettingsError, "'YY'", id="twice"),
        pytest.param((9, 9), {"axes": "CX"}, SettingsError, "'CX'", id="no-y"),
        pytest.param((9,), {}, ImageFileError, r"at least two axes.*\(9,\)", id="1d"),
        pytest.param((0, 9), {}, ImageFileError, "a side of length 0", id="empty"),
        pytest.param(
            (9, 9), {"dataset": "a"}, SettingsError, "only with an HDF5", id="dataset"
        ),
    ],
)
def test_impossible_choices(shape, options, error, message):
    with pytest.raises(error, match=message):
        open_image(np.zeros(shape, np.uint8), **options)


@pytest.mark.parametrize(
    "value",
    [None, 3, b"a.tif", [[1, 2]], da.from_delayed],
    ids=lambda v: type(v).__name__,
)
def test_what_is_no_image(value):
    with pytest.raises(SettingsError, match=r"path, an array .* or an ImageSource"):
        open_image(value)


@pytest.mark.parametrize("dtype", ["c8", "O", "U3", "M8[s]", "V3", np.longdouble])
def test_dtypes_without_pixel_values(dtype):
    with pytest.raises(ImageFileError, match="expected pixels that are bool, integers"):
        open_image(np.zeros((3, 3), dtype))


def test_a_source_is_returned_as_it_is():
    source = open_image(np.zeros((5, 8, 8), np.uint8), plane=2)
    assert open_image(source) is source
    assert open_image(source, plane=2) is source
    with pytest.raises(SettingsError, match="no `plane` with an image that is already"):
        open_image(source, plane=3)


def test_masked_pixels_are_noted():
    source = open_image(np.ma.masked_greater(GREY, 1000))
    assert source.notes == ("Masked pixels are read as if they were not masked.",)
    np.testing.assert_array_equal(source.read(source.window)[..., 0], GREY)


def test_read_returns_what_the_caller_may_change():
    array = GREY.copy()
    source = open_image(array)
    for _ in range(2):
        block = source.read(Window(0, 9, 0, SHAPE[1]))
        assert block.flags.c_contiguous
        np.testing.assert_array_equal(block[..., 0], GREY[:9])
        block[:] = 0
    np.testing.assert_array_equal(array, GREY)


@pytest.mark.parametrize(
    "window",
    [
        Window(-1, 4, 0, 4),
        Window(0, 4, 0, SHAPE[1] + 1),
        Window(5, 5, 0, 4),
        Window(6, 5, 0, 4),
    ],
    ids=str,
)
def test_windows_outside(window):
    with pytest.raises(SettingsError, match=r"inside 150 x 130 pixels, got Window"):
        open_image(GREY).read(window)


# -------------------------------------------------------------- any backend, any window


def _hdf5(folder):
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("image", data=GREY, chunks=(64, 50), compression="gzip")
    return folder / "a.h5"


def _zarr(folder):
    zarr.create_array(folder / "a.zarr", data=GREY, chunks=(40, 64))
    return folder / "a.zarr"


def _npy(folder):
    np.save(folder / "a.npy", GREY)
    return folder / "a.npy"


def _png(folder):
    Image.fromarray(GREY).save(folder / "a.png")
    return folder / "a.png"


def _tiff(**options):
    def make(folder):
        name = "-".join(str(v) for v in options.values()) or "raw"
        tifffile.imwrite(folder / f"{name}.tif", GREY, **options)
        return folder / f"{name}.tif"

    return make


BACKENDS = {
    "numpy": lambda _: GREY,
    "big-endian": lambda _: GREY.astype(">u2"),
    "dask": lambda _: da.from_array(GREY, chunks=((50, 100), (33, 97))),
    "zarr-array": lambda _: zarr.create_array({}, data=GREY, chunks=(64, 64)),
    "zarr": _zarr,
    "hdf5": _hdf5,
    "npy": _npy,
    "png": _png,
    "tiff": _tiff(),
    "tiff-big-endian": _tiff(byteorder=">"),
    "tiff-strips": _tiff(compression="lzw", rowsperstrip=7),
    "tiff-one-strip": _tiff(compression="zlib", rowsperstrip=150),
    "tiff-tiles": _tiff(compression="zstd", tile=(32, 48)),
}


@pytest.fixture(scope="module", params=list(BACKENDS))
def source(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("backends")
    return open_image(BACKENDS[request.param](folder))


@st.composite
def windows(draw):
    y0, x0 = (draw(st.integers(0, n - 1)) for n in SHAPE)
    y1, x1 = draw(st.integers(y0 + 1, SHAPE[0])), draw(st.integers(x0 + 1, SHAPE[1]))
    return Window(y0, y1, x0, x1)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(window=windows())
def test_any_window_of_any_source(source, window):
    block = source.read(window)
    assert block.dtype == np.dtype("uint16")
    assert block.dtype.isnative
    np.testing.assert_array_equal(block[..., 0], GREY[window.slices])


def test_same_pixels_same_hash(source):
    assert source.content_hash() == open_image(GREY).content_hash()


def test_threads_read_what_one_thread_reads(source):
    fresh = open_image(source.path) if source.path else source
    wanted = [*tiles(fresh, 37)] * 3
    with ThreadPoolExecutor(8) as pool:
        blocks = list(pool.map(fresh.read, wanted))
    for window, block in zip(wanted, blocks, strict=True):
        np.testing.assert_array_equal(block[..., 0], GREY[window.slices])


# ------------------------------------------------------------------------------- hash


@pytest.mark.parametrize(
    "other",
    [
        GREY[:, :-1],
        GREY.T,
        GREY.astype(np.int32),
        GREY.view(np.int16),
        np.where(np.arange(GREY.size).reshape(SHAPE) == 777, GREY ^ 1, GREY),
        GREY.reshape(SHAPE[1], SHAPE[0]),
    ],
    ids=["cut", "transposed", "wider", "signed", "one-pixel", "reshaped"],
)
def test_other_pixels_other_hash(other):
    assert open_image(other).content_hash() != open_image(GREY).content_hash()


def test_hash_of_colours_needs_no_format():
    as_samples = open_image(RGB)
    as_channels = open_image(np.moveaxis(RGB, -1, 0).copy(), axes="CYX")
    opaque = np.dstack([RGB, np.full(SHAPE, 255, np.uint8)])
    assert as_samples.content_hash() == as_channels.content_hash()
    assert open_image(opaque).content_hash() == as_samples.content_hash()
    assert len(as_samples.content_hash()) == 64


def test_true_is_one_whatever_byte_it_is_stored_as(tmp_path):
    bits = GREY > 30_000
    stored = (bits * np.uint8(255)).view(bool)
    Image.fromarray(bits).save(tmp_path / "a.png")
    for image in (stored, tmp_path / "a.png"):
        source = open_image(image)
        assert source.content_hash() == open_image(bits).content_hash()
        assert source.read(source.window).view(np.uint8).max() == 1


def test_hash_does_not_depend_on_bands(monkeypatch):
    expected = open_image(GREY).content_hash()
    monkeypatch.setattr("napari_alibi_seg.data._source._HASH_BAND_BYTES", 1000)
    assert open_image(GREY).content_hash() == expected


# --------------------------------------------------------------------------- laziness


class Counting:
    """An array-like that knows how many pixels were taken, and in how many threads."""

    def __init__(self, array):
        self.array = array
        self.shape, self.dtype = array.shape, array.dtype
        self.taken = 0
        self.inside = 0
        self.most_inside = 0

    def __getitem__(self, index):
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        threading.Event().wait(0.001)
        block = self.array[index]
        self.taken += block.size
        self.inside -= 1
        return block


def test_a_window_takes_only_its_pixels():
    stack = Counting(np.broadcast_to(GREY, (10**6, *SHAPE)))
    source = open_image(stack, plane=999_999)
    assert stack.taken == 0
    np.testing.assert_array_equal(
        source.read(Window(3, 9, 5, 25))[..., 0], GREY[3:9, 5:25]
    )
    assert stack.taken == 6 * 20


def test_hash_is_read_once_in_bands(monkeypatch):
    monkeypatch.setattr("napari_alibi_seg.data._source._HASH_BAND_BYTES", 10_000)
    counting = Counting(GREY)
    source = open_image(counting)
    assert source.content_hash() == source.content_hash()
    assert counting.taken == GREY.size


def test_unknown_arrays_are_read_by_one_thread_at_a_time():
    counting = Counting(GREY)
    source = open_image(counting)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(source.read, [Window(0, 5, 0, 5)] * 24))
    assert counting.most_inside == 1


@pytest.fixture
def n_decoded(monkeypatch):
    """Numbers of the strips and tiles that were decoded."""
    decoded = []
    original = _Segments._segment

    def spy(self, file, part, number):
        decoded.append((part.offsets[number], number))
        return original(self, file, part, number)

    monkeypatch.setattr(_Segments, "_segment", spy)
    return decoded


def test_tiled_tiff_decodes_only_the_tiles_of_the_window(tmp_path, n_decoded):
    stack = np.stack([GREY, GREY[::-1], GREY])
    options = {"tile": (32, 32), "compression": "zlib", "photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "a.tif", stack, **options)
    source = open_image(tmp_path / "a.tif", plane=1)
    assert n_decoded == []
    source.read(Window(70, 90, 35, 60))  # of five rows of five tiles
    assert [n for _, n in n_decoded] == [11]
    source.read(Window(70, 97, 35, 65))
    assert sorted(n for _, n in n_decoded) == [11, 12, 16, 17]


def test_raw_and_pyramid_tiff_read_no_more_than_needed(tmp_path, n_decoded):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        options = {"tile": (64, 64), "compression": "zlib", "photometric": "minisblack"}
        tif.write(np.zeros((1024, 1024), np.uint8), subifds=1, **options)
        tif.write(np.zeros((512, 512), np.uint8), subfiletype=1, **options)
    open_image(tmp_path / "a.tif").read(Window(0, 64, 0, 64))
    assert len(n_decoded) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "lzw", "rowsperstrip": 8},
        {"compression": "jpeg", "rowsperstrip": 16},
        {"compression": "zlib", "rowsperstrip": 600},
        {"compression": "zlib", "tile": (48, 48)},
    ],
    ids=["lzw-strips", "jpeg-strips", "one-strip", "tiles"],
)
def test_tiles_in_order_decode_everything_once(tmp_path, n_decoded, options):
    array = np.zeros((600, 400), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", array, **options)
    source = open_image(tmp_path / "a.tif")
    for window in tiles(source, 100):
        source.read(window)
    assert len(n_decoded) == len(set(n_decoded))


def test_png_is_decoded_once_by_one_thread(tmp_path, monkeypatch):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    decoded = []
    original = imagecodecs.png_decode

    def spy(data):
        decoded.append(len(data))
        return original(data)

    monkeypatch.setattr(imagecodecs, "png_decode", spy)
    source = open_image(tmp_path / "a.png")
    assert decoded == []
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(source.read, tiles(source, 40)))
    assert decoded == [(tmp_path / "a.png").stat().st_size]


def test_huge_dask_chunks_are_computed_once():
    computed = []

    def block(block_info=None):
        computed.append(block_info[None]["chunk-location"])
        return np.ones((600, 700), np.float32)

    array = da.map_blocks(block, chunks=((600, 600), (700,)), dtype=np.float32)
    source = open_image(array)
    computed.clear()
    for window in tiles(source, 200):
        assert source.read(window).all()
    assert sorted(computed) == [(0, 0), (1, 0)]


# ------------------------------------------------------------------------------ blocks


def test_blocks_are_kept_within_the_budget(monkeypatch):
    monkeypatch.setattr("napari_alibi_seg.data._planes._KEPT_BYTES", 5000)
    monkeypatch.setattr("napari_alibi_seg.data._planes._KEPT_ROWS", 0)
    loads = []

    def load(row, column):
        loads.append((row, column))
        return np.full((20, 50, 1), row, np.uint8)

    plane = BlockedPlane(
        range(0, 401, 20), [0, 50], n_channels=1, dtype=np.dtype("u1"), load=load
    )
    for row in range(20):
        assert (plane.read(Window(row * 20, row * 20 + 20, 0, 50)) == row).all()
    assert loads == [(row, 0) for row in range(20)]
    plane.read(Window(300, 400, 0, 50))  # the five blocks that fit into 5000 bytes
    assert len(loads) == 20
    plane.read(Window(0, 20, 0, 50))
    assert loads[-1] == (0, 0)
    assert plane._blocks.n_bytes <= 5000


def test_a_block_that_failed_is_tried_again():
    attempts = []

    def load(row, column):
        attempts.append(row)
        if len(attempts) == 1:
            raise OSError("once")
        return np.ones((4, 4, 1), np.uint8)

    plane = BlockedPlane([0, 4], [0, 4], n_channels=1, dtype=np.dtype("u1"), load=load)
    with pytest.raises(OSError, match="once"):
        plane.read(Window(0, 4, 0, 4))
    assert plane.read(Window(0, 4, 0, 4)).all()


@given(chunk=st.integers(1, 900), length=st.integers(1, 5000))
def test_chunk_edges_follow_chunks(chunk, length):
    edges = chunk_edges(chunk, length)
    assert edges[0] == 0
    assert edges[-1] == length
    assert all(a < b for a, b in pairwise(edges))
    assert all(edge % chunk == 0 for edge in edges[:-1])
    assert all(b - a >= min(512, length) for a, b in pairwise(edges[:-1]))


# ---------------------------------------------------------------- files that change


def test_a_mapped_file_that_became_short_is_an_error(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, GREY)
    source = open_image(path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ImageFileError, match="expected sound pixels"):
        source.read(source.window)


@pytest.mark.parametrize(
    "make",
    [_tiff(), _tiff(compression="lzw", rowsperstrip=5), _npy, _hdf5, _png, _zarr],
    ids=["tiff", "tiff-lzw", "npy", "hdf5", "png", "zarr"],
)
def test_no_file_is_held_open(tmp_path, make):
    path = make(tmp_path)
    source = open_image(path)
    source.read(Window(0, 5, 0, 5))
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("needs /proc to list the open files")
    held = {os.path.realpath(f) for f in folder.iterdir()}
    maps = Path("/proc/self/maps").read_text()
    assert str(path) not in held
    assert str(path) not in maps
