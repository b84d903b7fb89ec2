"""Files that cannot be images say what was expected, what came and what to do."""

from __future__ import annotations

import io
import json
import logging
import os
import random
import struct
import tracemalloc
import zlib
from types import SimpleNamespace

import h5py
import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from napari_alibi_seg._base import AlibiSegError, ImageFileError, SettingsError, Window
from napari_alibi_seg.data import open_image
from napari_alibi_seg.data._zarr import _check_codecs

RNG = np.random.default_rng(3)
GREY = RNG.integers(0, 256, (60, 50), np.uint8)


def tiff(array=GREY, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def picture(kind, array=GREY, **options):
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind, **options)
    return file.getvalue()


def npy(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def hdf5(**datasets):
    file = io.BytesIO()
    with h5py.File(file, "w") as held:
        for name, data in datasets.items():
            held[name] = data
    return file.getvalue()


def half(data):
    return data[: len(data) // 2]


def flipped(data, at):
    """Return `data` with the byte at a fraction of its length changed."""
    changed = bytearray(data)
    changed[int(at * len(data))] ^= 0xFF
    return bytes(changed)


def chunk(kind, data):
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def png_of(height, width, depth=8, data=b"\0" * 999):
    head = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    packed = zlib.compress(data)
    chunks = chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def tiff_with(tag, value, data=None, **options):
    """Return a TIFF whose header claims another value of a tag."""
    data = bytearray(data or tiff(**options))
    with tifffile.TiffFile(io.BytesIO(data)) as tif:
        found = tif.pages[0].tags[tag]
        size = {3: "H", 4: "I"}[found.dtype]
        struct.pack_into(f"<{size}", data, found.valueoffset, value)
    return bytes(data)


def bmp_of(height, width):
    data = bytearray(picture("BMP"))
    struct.pack_into("<ii", data, 18, width, height)
    return bytes(data)


def jpeg_of(height, width):
    data = bytearray(picture("JPEG"))
    at = data.index(b"\xff\xc0")
    struct.pack_into(">HH", data, at + 5, height, width)
    return bytes(data)


def cmyk_jpeg():
    file = io.BytesIO()
    Image.new("CMYK", (9, 9), (1, 2, 3, 4)).save(file, "JPEG")
    return file.getvalue()


def palette_png():
    file = io.BytesIO()
    Image.fromarray(GREY).convert("P").save(file, "PNG")
    return file.getvalue()


five = RNG.integers(0, 9, (60, 50, 5), np.uint8)
BROKEN = {
    # ------------------------------------------------------------- not what it says
    "png-as-tif": ("a.tif", picture("PNG"), "TIFF image from its name, got a PNG.*a.p"),
    "tif-as-png": ("a.png", tiff(), r"PNG image from its name, got a TIFF.*'a\.tif'"),
    "jpg-as-png": ("a.png", picture("JPEG"), "got a JPEG image. Rename it to 'a.jpg'"),
    "h5-as-tif": ("a.tif", hdf5(image=GREY), "got a HDF5 image. Rename it to 'a.h5'"),
    "npy-as-h5": ("a.h5", npy(GREY), "expected a HDF5 image .* got a npy image"),
    "text-as-tif": ("a.tif", b"x,y\n1,2\n" * 99, "got text. Open it where it was made"),
    "utf8-as-png": ("a.png", "γ′".encode() * 300, "got text"),
    "noise": ("a.tif", bytes(RNG.integers(0, 9, 999, np.uint8)), "an unknown kind"),
    "gif": ("a.gif", picture("GIF"), "got a GIF picture.*export it as TIFF"),
    "webp": ("a.webp", picture("WEBP"), "got a WebP picture"),
    "zip": ("a.npz", b"PK\x03\x04" + bytes(99), r"zip archive \(npz"),
    "gzip": ("a.tif", b"\x1f\x8b" + bytes(99), "a gzip archive"),
    "dm3": ("a.dm3", b"\0\0\0\x03" + bytes(99), "a Gatan DM3 file"),
    "czi": ("a.czi", b"ZISRAWFILE" + bytes(99), "a Zeiss CZI file"),
    "empty": ("a.tif", b"", "got an empty file"),
    # ---------------------------------------------------------------------- cut short
    "tif-cut": ("a.tif", half(tiff()), r"expected \d+ bytes .* it was cut short"),
    "tif-lzw-cut": ("a.tif", half(tiff(compression="lzw")), "it was cut short"),
    "tif-of-4-bytes": ("a.tif", b"II*\0", "sound TIFF image, but reading it failed"),
    "tif-no-pages": ("a.tif", b"II*\0\x08\0\0\0", "holds an image, got one without"),
    "png-cut": ("a.png", half(picture("PNG")), "expected a whole PNG"),
    "png-8-bytes": ("a.png", b"\x89PNG\r\n\x1a\n", "expected a whole PNG"),
    "jpg-cut": ("a.jpg", picture("JPEG")[:600], "sound .* reading it failed"),
    "bmp-cut": ("a.bmp", picture("BMP")[:600], "sound pixels, but reading it failed"),
    "npy-cut": ("a.npy", half(npy(GREY)), r"expected \d+ bytes .* cut short"),
    "npy-header-cut": ("a.npy", npy(GREY)[:40], "sound npy image"),
    "h5-cut": ("a.h5", half(hdf5(image=GREY)), "sound HDF5 image.*truncated"),
    # ------------------------------------------------------------------------ damaged
    "tif-damaged": ("a.tif", flipped(tiff(compression="zlib"), 0.6), "sound pixels"),
    "png-damaged": ("a.png", flipped(picture("PNG"), 0.6), "wrong checksum in IDAT"),
    "palette-damaged": (
        "a.png",
        flipped(palette_png(), 0.6),
        "sound pixels, but reading it failed",
    ),
    "png-pixels": (
        "a.png",
        png_of(60, 50, data=b"\7" * 60 * 51),
        "sound pixels",
    ),
    "png16-damaged": (
        "a.png",
        flipped(imagecodecs.png_encode(GREY.astype("u2")), 0.6),
        "a wrong checksum in IDAT",
    ),
    "png-header": ("a.png", png_of(9, 9, depth=7), "PNG with a valid header"),
    "npy-header": ("a.npy", npy(GREY).replace(b"{", b"(", 1), "sound npy image"),
    "npy-version": (
        "a.npy",
        npy(GREY).replace(b"\x01\0v", b"\x03\0v", 1),
        "1.0 or 2.0",
    ),
    # ---------------------------------------------------------------- impossible sizes
    "png-bomb": ("a.png", png_of(10**5, 10**5), r"10.0 GB\), got \d+ bytes of data"),
    "png-empty": ("a.png", png_of(0, 9), "a side of length 0"),
    "tif-bomb": (
        "a.tif",
        tiff_with("ImageLength", 2**31, compression="zlib"),
        "strips or tiles for|cannot hold them",
    ),
    "tif-bomb-one-strip": (
        "a.tif",
        tiff_with(
            "RowsPerStrip", 2**31, tiff_with("ImageLength", 2**31, compression="lzw")
        ),
        "cannot hold them",
    ),
    "tif-raw-bomb": ("a.tif", tiff_with("ImageLength", 2**31), "it was cut short"),
    "tif-empty": (
        "a.tif",
        tiff_with("ImageLength", 0),
        "length 0|holds an image|sound",
    ),
    "bmp-bomb": ("a.bmp", bmp_of(2**30, 2**10), "cannot hold them"),
    "jpg-bomb": ("a.jpg", jpeg_of(60000, 60000), "cannot hold them"),
    "npy-empty": ("a.npy", npy(np.zeros((0, 4))), "a side of length 0"),
    "npy-bomb": ("a.npy", npy(GREY).replace(b"(60, 50)", b"(60, 9**9)"), "sound npy"),
    # ---------------------------------------------------------- pixels that are no use
    "tif-complex": ("a.tif", tiff(GREY.astype("c8")), "got complex64"),
    "npy-complex": ("a.npy", npy(GREY.astype("c16")), "got complex128"),
    "npy-text": ("a.npy", npy(np.array([["a"]])), "got <U1"),
    "npy-object": ("a.npy", npy(np.array([[{}]]), allow_pickle=True), "got object"),
    "npy-1d": ("a.npy", npy(np.arange(9)), r"at least two axes .* got shape \(9,\)"),
    "h5-no-image": ("a.h5", hdf5(x=1, s="text"), "at least two axes .* got s, x"),
    "rgb-of-5": (
        "a.tif",
        tiff(five, photometric="rgb", extrasamples=[0, 0]),
        "RGB of 3 samples, or 4 with alpha, got 5",
    ),
    "cmyk-tif": ("a.tif", tiff(five[..., :4], photometric="separated"), "got CMYK"),
    "cmyk-jpg": ("a.jpg", cmyk_jpeg(), "grey or RGB JPEG, got CMYK"),
    "lab-tif": ("a.tif", tiff(five[..., :3], photometric="cielab"), "got CIELAB"),
    "ycbcr-raw": (
        "a.tif",
        tiff_with("PhotometricInterpretation", 6, tiff(five[..., :3], photometric=2)),
        "YCbCr without JPEG",
    ),
    "codec": (
        "a.tif",
        tiff_with("Compression", 32809),
        "compression that can be read .* got THUNDERSCAN",
    ),
    "codec-unknown": ("a.tif", tiff_with("Compression", 12345), "read .* got 12345"),
    "bits": ("a.tif", tiff_with("BitsPerSample", 97), "got 97 bits|sound TIFF"),
    "volume-tiles": (
        "a.tif",
        tiff(
            np.zeros((16, 32, 32), "u1"),
            tile=(16, 16, 16),
            volumetric=True,
            compression="zlib",
            photometric="minisblack",
        ),
        r"to be one plane, got pages of shape \(16, 32, 32\)",
    ),
}


def open_and_read(path):
    try:
        source = open_image(path)
    except SettingsError:
        source = open_image(path, plane=0)
    return source.read(source.window)


@pytest.mark.parametrize(
    ("name", "data", "message"), list(BROKEN.values()), ids=list(BROKEN)
)
def test_broken_file(tmp_path, name, data, message, caplog, capfd):
    path = tmp_path / name
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with (
            caplog.at_level(logging.INFO),
            pytest.raises(ImageFileError, match=message) as caught,
        ):
            open_and_read(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).endswith(".")
    assert peak < 32e6
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda p: p / "none.tif", "there is none of this name", id="none"),
        pytest.param(lambda p: p, "a folder without zarr metadata", id="folder"),
        pytest.param(
            lambda p: "http://host/a.tif", "there is none of this name", id="url"
        ),
        pytest.param(lambda p: "a\0.tif", "expected an image file", id="nul"),
        pytest.param(
            lambda p: p / ("x" * 999), "expected an image file", id="too-long"
        ),
    ],
)
def test_paths_without_a_file(tmp_path, make, message):
    with pytest.raises(ImageFileError, match=message):
        open_image(make(tmp_path))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipe(tmp_path):
    os.mkfifo(tmp_path / "a.tif")
    with pytest.raises(ImageFileError, match="got a device or pipe"):
        open_image(tmp_path / "a.tif")


def test_unreadable_file(tmp_path, monkeypatch):
    path = tmp_path / "a.tif"
    path.write_bytes(tiff())

    def refused(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refused)
    with pytest.raises(ImageFileError, match=r"Permission denied.*its permissions"):
        open_image(path)


def _bad_json(path):
    path.mkdir()
    (path / "zarr.json").write_text("{nonsense")


def _no_levels(path):
    group = zarr.open_group(path, mode="w")
    group.attrs["ome"] = {"multiscales": [{"datasets": []}]}


def _wrong_axes(path):
    group = zarr.open_group(path, mode="w")
    group.create_array("0", data=GREY)
    scales = [{"datasets": [{"path": "0"}], "axes": [{"name": "x"}]}]
    group.attrs["ome"] = {"multiscales": scales}


def _empty_group(path):
    zarr.open_group(path, mode="w")


def _text(path):
    zarr.create_array(path, shape=(2, 2), dtype="S3", zarr_format=2)


def _damaged_chunk(path):
    zarr.create_array(path, data=GREY, chunks=(60, 50))
    (path / "c/0/0").write_bytes(b"nonsense")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(_bad_json, "sound zarr image", id="bad-json"),
        pytest.param(_no_levels, "sound zarr image", id="no-levels"),
        pytest.param(_wrong_axes, "expected OME-Zarr axes for shape", id="wrong-axes"),
        pytest.param(_empty_group, "two axes that holds numbers, got none", id="empty"),
        pytest.param(_text, r"bool, integers or floats .* got \|S3", id="text"),
        pytest.param(_damaged_chunk, "sound pixels", id="damaged-chunk"),
    ],
)
def test_broken_zarr(tmp_path, make, message):
    make(tmp_path / "a.zarr")
    with pytest.raises(ImageFileError, match=message):
        open_and_read(tmp_path / "a.zarr")


@pytest.mark.parametrize("where", ["compressor", "filters"])
def test_zarr_that_would_run_code(tmp_path, where):
    path, trace = tmp_path / "a.zarr", tmp_path / "was here"
    zarr.create_array(path, data=GREY, chunks=(60, 50), zarr_format=2)
    codec = {"id": "pickle", "protocol": 4}
    described = json.loads((path / ".zarray").read_text())
    described |= {"compressor": None, "filters": None}
    described[where] = [codec] if where == "filters" else codec
    (path / ".zarray").write_text(json.dumps(described))
    (path / "0.0").write_bytes(f"cos\nsystem\n(S'touch \"{trace}\"'\ntR.".encode())
    with pytest.raises(ImageFileError, match="pickle"):
        open_and_read(path)
    assert not trace.exists()


def test_pickle_codec_is_refused_whatever_zarr_thinks():
    # zarr 3.1 refuses the store above by itself; older ones do not
    described = {"filters": [{"id": "pickle"}], "compressor": None}
    metadata = SimpleNamespace(to_dict=lambda: described)
    with pytest.raises(ImageFileError, match="packed with pickle, which runs code"):
        _check_codecs(SimpleNamespace(metadata=metadata), "a.zarr")


@pytest.mark.parametrize(
    ("data", "name", "options", "message"),
    [
        pytest.param(hdf5(a=GREY, b=GREY), "a.h5", {}, r"which of 2 .*b \(60", id="2"),
        pytest.param(
            hdf5(a=GREY),
            "a.h5",
            {"dataset": "c"},
            r"one of those in the file \(a \(60, 50\)\), got 'c'",
            id="unknown",
        ),
        pytest.param(
            tiff(), "a.tif", {"dataset": "a"}, "only with HDF5 or zarr", id="tiff"
        ),
        pytest.param(
            tiff(), "a.tif", {"axes": "ZYX"}, r"2 axes of shape \(60, 50\)", id="axes"
        ),
    ],
)
def test_wrong_choice_in_a_file(tmp_path, data, name, options, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SettingsError, match=message):
        open_image(tmp_path / name, **options)


def test_dataset_of_a_lone_zarr_array(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", data=GREY)
    with pytest.raises(SettingsError, match="no `dataset` for a zarr array"):
        open_image(tmp_path / "a.zarr", dataset="0")


def test_pages_missing_from_a_set_of_files(tmp_path):
    # OME-XML that says the second plane lies in a file that is not here
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" '
        'Type="uint8" SizeX="50" SizeY="60" SizeZ="2" SizeC="1" SizeT="1">'
        '<TiffData IFD="0" FirstZ="0" PlaneCount="1"><UUID FileName="a.ome.tif">'
        'urn:uuid:1</UUID></TiffData><TiffData IFD="0" FirstZ="1" PlaneCount="1">'
        '<UUID FileName="b.ome.tif">urn:uuid:2</UUID></TiffData></Pixels></Image></OME>'
    )
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, GREY, description=xml.encode(), metadata=None)
    np.testing.assert_array_equal(
        open_image(path, plane=0).read(Window(0, 60, 0, 50))[..., 0], GREY
    )
    with pytest.raises(ImageFileError, match="is missing or lies in another file"):
        open_image(path, plane=1)


SEEDS = {
    "tif": tiff(compression="zlib", rowsperstrip=8),
    "png": picture("PNG"),
    "jpg": picture("JPEG"),
    "bmp": picture("BMP"),
    "npy": npy(GREY),
    "h5": hdf5(image=GREY),
}


@pytest.mark.parametrize("suffix", SEEDS)
def test_random_damage_never_raises_anything_else(tmp_path, suffix, capfd):
    rng = random.Random(suffix)
    refused = 0
    for i in range(150):
        data = bytearray(SEEDS[suffix])
        for _ in range(rng.choice([1, 2, 8])):
            data[rng.randrange(min(len(data), rng.choice([64, 512, 10**6])))] = (
                rng.choice([0, 255, rng.randrange(256)])
            )
        path = tmp_path / f"{i}.{suffix}"
        path.write_bytes(data)
        try:
            open_and_read(path)
        except AlibiSegError:
            refused += 1
    assert refused > 15
    assert capfd.readouterr() == ("", "")
