"""Written files are whole or not there, equal for equal pixels, and read back alike."""

from __future__ import annotations

import errno
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_alibi_seg._base import OutputError, PixelSize, SettingsError
from napari_alibi_seg.data import (
    open_image,
    write_bytes_atomic,
    write_image,
    write_text_atomic,
)
from napari_alibi_seg.data._atomic import write_all

RNG = np.random.default_rng(8)
Usage = namedtuple("Usage", "total used free")


def whole(path, **choice):
    source = open_image(path, **choice)
    return source.read(source.window)


# ------------------------------------------------------------------------ write_image


@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("dtype", ["bool", "u1", "u2", "i2", "u4", "f4", "f8", ">u2"])
@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        ("YX", (40, 50)),
        ("YXS", (40, 50, 3)),
        ("YXS", (40, 50, 4)),
        ("CYX", (3, 40, 50)),
        ("ZYX", (4, 40, 50)),
        ("ZCYX", (4, 2, 40, 50)),
    ],
    ids=str,
)
def test_tiff_reads_back(tmp_path, axes, shape, dtype, compression):
    stored = (RNG.random(shape) * 200 > 90) if dtype == "bool" else RNG.random(shape)
    stored = stored if dtype == "bool" else (stored * 200).astype(dtype)
    path = tmp_path / "a.tif"
    write_image(path, stored, axes=axes, compression=compression)
    with tifffile.TiffFile(path) as tif:
        assert tif.series[0].axes == axes
        assert tif.pages[0].compression == (8 if compression else 1)
        # ImageJ undoes no predictor of deflate, and shows noise instead
        assert tif.pages[0].predictor == 1
        np.testing.assert_array_equal(tif.asarray(), stored)
    source = open_image(path, plane=1 if "Z" in axes else None)
    assert source.dtype == (np.uint8 if dtype == "bool" else np.dtype(dtype).name)
    plane = stored[1] if "Z" in axes else stored
    expected = {"YX": plane[..., None], "YXS": plane[..., :3]}.get(axes[-3:])
    if axes.endswith("CYX"):
        expected = np.moveaxis(plane, 0, -1)
    elif expected is None:
        expected = plane[..., None]
    np.testing.assert_array_equal(source.read(source.window), expected)


@pytest.mark.parametrize(
    "size",
    [
        PixelSize(0.05, 0.05, "um"),
        PixelSize(12.5, 25, "nm"),
        PixelSize(1 / 3, 0.7, "mm"),
        PixelSize(1e-5, 2e-5, "um"),
        PixelSize(123456.789, 1e6, "um"),
        PixelSize(3.5, 3.5, "lattice"),
    ],
    ids=str,
)
@pytest.mark.parametrize("compression", [None, "deflate"])
def test_pixel_size_of_tiff_reads_back(tmp_path, size, compression):
    path = tmp_path / "a.tif"
    image = np.zeros((4, 5), np.uint8)
    write_image(path, image, axes="YX", pixel_size=size, compression=compression)
    found = open_image(path).pixel_size
    assert found.unit == size.unit
    assert (found.y, found.x) == pytest.approx((size.y, size.x), rel=1e-6)
    with tifffile.TiffFile(path) as tif:  # what ImageJ goes by
        assert tif.imagej_metadata["unit"] == size.unit
        over, under = tif.pages[0].tags["XResolution"].value
    assert under / over == pytest.approx(size.x, rel=1e-6)


def test_pixel_size_too_fine_for_its_unit_gets_another(tmp_path):
    image = np.zeros((4, 5), np.uint8)
    size = PixelSize(5e-11, 5e-11, "m")
    write_image(tmp_path / "a.tif", image, axes="YX", pixel_size=size)
    found = open_image(tmp_path / "a.tif").pixel_size
    assert (found.unit, found.x) == ("pm", pytest.approx(50))


@pytest.mark.parametrize(
    ("stored", "axes"),
    [
        pytest.param(RNG.random((9, 17)) > 0.5, "YX", id="bool"),
        pytest.param(RNG.integers(0, 256, (9, 7), np.uint8), "YX", id="u1"),
        pytest.param(RNG.integers(0, 2**16, (9, 7)).astype(np.uint16), "YX", id="u2"),
        pytest.param(RNG.integers(0, 2**16, (9, 7)).astype(">u2"), "YX", id="big-u2"),
        pytest.param(RNG.integers(0, 256, (9, 7, 3), np.uint8), "YXS", id="rgb"),
        pytest.param(RNG.integers(0, 256, (9, 7, 4), np.uint8), "YXS", id="rgba"),
    ],
)
def test_png_reads_back(tmp_path, stored, axes):
    path = tmp_path / "a.png"
    size = PixelSize(50, 50, "nm")
    write_image(path, stored, axes=axes, pixel_size=size, description="γ′ phase")
    with Image.open(path) as picture:
        np.testing.assert_array_equal(np.asarray(picture), stored)
        assert picture.text["Description"] == "γ′ phase"
    expected = stored[..., None] if axes == "YX" else stored[..., :3]
    np.testing.assert_array_equal(whole(path), expected)
    assert open_image(path).pixel_size == PixelSize(0.05, 0.05, "um")


def test_description_is_kept_beside_imagejs_lines(tmp_path):
    path = tmp_path / "a.tif"
    image = np.zeros((2, 4, 5), np.uint8)
    write_image(path, image, axes="CYX", description="γ′ and γ,\ntwo phases")
    with tifffile.TiffFile(path) as tif:
        assert tif.imagej_metadata["channels"] == 2
        lines = tif.pages[0].description.splitlines()
    assert "description=γ′ and γ, two phases" in lines


@pytest.mark.parametrize("name", ["a.tif", "a.png"])
def test_equal_pixels_give_equal_bytes(tmp_path, name):
    image = RNG.integers(0, 256, (50, 60), np.uint8)
    files = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / name
        write_image(path, image, axes="YX", pixel_size=PixelSize(1, 1, "um"))
        files.append(path.read_bytes())
    assert files[0] == files[1]
    assert b"tifffile" not in files[0]


GREY = np.zeros((4, 5), np.uint8)


@pytest.mark.parametrize(
    ("name", "array", "options", "message"),
    [
        pytest.param("a.jpg", GREY, {}, r"ends in \.tif.*got '\.jpg'", id="jpg"),
        pytest.param("a", GREY, {}, "got 'no suffix'", id="no-suffix"),
        pytest.param("a.tif", GREY, {"axes": "XY"}, "TZCYXS.*'XY'", id="order"),
        pytest.param("a.tif", GREY, {"axes": "CYX"}, r"shape \(4, 5\)", id="too-many"),
        pytest.param(
            "a.tif", np.zeros((4, 5, 2)), {"axes": "YXS"}, "axis S, got 2", id="two-s"
        ),
        pytest.param("a.tif", GREY[:0], {}, "pixels to write", id="empty"),
        pytest.param("a.png", GREY.astype("f4"), {}, "for PNG, got YX of f", id="png"),
        pytest.param(
            "a.tif", GREY, {"compression": "lzw"}, "'deflate' or None", id="codec"
        ),
        pytest.param(
            "a.tif",
            GREY,
            {"pixel_size": PixelSize(0, 1, "um")},
            "positive pixel size",
            id="zero-size",
        ),
        pytest.param(
            "a.tif",
            GREY,
            {"pixel_size": PixelSize(1e-30, 1e-30, "lattice")},
            "that TIFF can hold",
            id="tiny-size",
        ),
    ],
)
def test_what_cannot_be_written(tmp_path, name, array, options, message):
    with pytest.raises(SettingsError, match=message):
        write_image(tmp_path / name, array, **{"axes": "YX", **options})
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------- bad disks


def full_after(monkeypatch, n_writes, code=errno.ENOSPC):
    """Let the disk fail at a write of pixels or bytes."""
    left = [n_writes]

    def write_all(file, data):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(code, "injected")
        file.write(data)

    monkeypatch.setattr("napari_alibi_seg.data._atomic.write_all", write_all)


WRITERS = {
    "image": lambda p: write_image(p, np.zeros((10, 8), np.uint8), axes="YX"),
    "raw-image": lambda p: write_image(
        p, np.zeros((10, 8), np.uint8), axes="YX", compression=None
    ),
    "bytes": lambda p: write_bytes_atomic(p, bytes(80)),
    "text": lambda p: write_text_atomic(p, "x" * 80),
}


@pytest.fixture(params=list(WRITERS))
def write(request):
    return WRITERS[request.param]


def test_no_room_is_known_before_the_work(tmp_path, monkeypatch, write):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 0, 79))
    with pytest.raises(OutputError, match=r"room for 80 bytes .* with 79 bytes free"):
        write(tmp_path / "a.tif")
    assert list(tmp_path.iterdir()) == []


def test_disk_full_at_the_end(tmp_path, monkeypatch, write):
    def replace(self, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(OutputError, match="full disk or quota"):
        write(tmp_path / "a.tif")
    assert list(tmp_path.iterdir()) == []


def test_disk_full_at_bytes(tmp_path, monkeypatch):
    full_after(monkeypatch, 0)
    with pytest.raises(OutputError, match=r"room for 3 bytes .* full disk"):
        write_bytes_atomic(tmp_path / "a", b"abc")
    assert list(tmp_path.iterdir()) == []


def test_disk_full_while_a_tiff_is_written(tmp_path, monkeypatch):
    def fail(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tifffile.TiffWriter, "write", fail)
    with pytest.raises(OutputError, match="full disk or quota"):
        WRITERS["image"](tmp_path / "a.tif")
    assert list(tmp_path.iterdir()) == []


def test_disk_that_fails(tmp_path, monkeypatch):
    full_after(monkeypatch, 0, errno.EIO)
    with pytest.raises(OutputError, match=r"got injected\. Check the disk"):
        write_bytes_atomic(tmp_path / "a", b"abc")


def test_folder_that_may_not_be_written(tmp_path, monkeypatch, write):
    def refused(self, *args, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    # root may write anywhere, so a read-only folder would prove nothing
    monkeypatch.setattr(Path, "replace", refused)
    with pytest.raises(OutputError, match=r"got Permission denied.*not writable"):
        write(tmp_path / "a.tif")
    assert list(tmp_path.iterdir()) == []


def test_folders_that_are_not_there(tmp_path, write):
    with pytest.raises(OutputError, match=r"expected the folder .* to exist, got none"):
        write(tmp_path / "none" / "a.tif")
    (tmp_path / "a.tif").mkdir()
    with pytest.raises(OutputError, match="file name to write to, got a folder"):
        write(tmp_path / "a.tif")


def test_a_write_that_takes_only_a_part_goes_on():
    class Slow(list):
        def write(self, data):
            self.append(bytes(data[:3]))
            return len(data[:3])

    file = Slow()
    write_all(file, memoryview(b"abcdefgh"))
    assert file == [b"abc", b"def", b"gh"]


def test_text_and_bytes(tmp_path):
    write_text_atomic(tmp_path / "a.csv", "γ′\n1\r\n")
    assert (tmp_path / "a.csv").read_bytes() == "γ′\n1\r\n".encode()
    write_bytes_atomic(tmp_path / "a.csv", b"new")
    assert (tmp_path / "a.csv").read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.csv"]
