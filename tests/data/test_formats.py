"""Every file format gives the pixels, axes, meaning and pixel size it holds."""

from __future__ import annotations

import json
import struct
import zlib

import h5py
import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from napari_alibi_seg._base import ImageFileError, PixelSize, SettingsError, Window
from napari_alibi_seg.data import open_image

RNG = np.random.default_rng(5)
GREY = RNG.integers(0, 256, (70, 90), np.uint8)
RGB = RNG.integers(0, 256, (70, 90, 3), np.uint8)
NOT_AS_NAMED = "formats/png_named_as.tiff"

# The files that `index.json` describes; kept here so that each is a test of its own.
SHARED_NAMES = [
    "constant_zero.tif",
    "f16.tif",
    "f32.npy",
    "f32_0_1.tif",
    "f32_hounsfield_like.tif",
    "f32_nan_inf.tif",
    "f64.tif",
    "gray.bmp",
    "gray_alpha.png",
    "i16_negative.tif",
    "image_labels.h5",
    "imagej_tzcyx.tif",
    "name with spaces γ′.png",
    "odd_251x187.tif",
    "onebit.png",
    "palette.png",
    "ppl_xpl_2ch.ome.tif",
    "pyramid_tiled_2048.tif",
    "rgb_planar_u8.tif",
    "rgb_q75.jpg",
    "rgb_u16.tif",
    "rgba_u8.png",
    "stack_zyx_u8.tif",
    "thin_3x256.tif",
    "tiny_5x7.tif",
    "u16_12bit_range.tif",
    "u16_bigendian.tif",
    "u16_lzw.tif",
    "u32.tif",
]
MEANINGS = {"S": "rgb", "C": "channels", "": "grey"}


@pytest.fixture(scope="module")
def entries(shared_dir):
    index = json.loads((shared_dir / "data/index.json").read_text("utf-8"))
    found = [e for e in index["entries"] if e["set"] == "formats"]
    return {e["file"].removeprefix("formats/"): e for e in found}


def whole(source):
    return source.read(source.window)


def test_table_is_complete(entries):
    assert set(entries) == {*SHARED_NAMES, NOT_AS_NAMED.removeprefix("formats/")}


@pytest.mark.parametrize("name", SHARED_NAMES)
def test_shared_file_opens_as_described(shared_dir, entries, name):
    entry = entries[name]
    axes = entry.get("axes", "YX")
    is_stack = axes[0] in "ZQ"
    source = open_image(
        shared_dir / "data" / entry["file"], plane=3 if is_stack else None
    )
    assert source.axes == axes
    assert source.file_shape == tuple(entry.get("shape", (256, 256)))
    assert source.dtype == np.dtype(entry.get("dtype", "uint16"))
    n = source.file_shape[axes.index("S")] if "S" in axes else 1
    channel_axis = "C" if "C" in axes else "S" if n > 2 else ""
    assert source.meaning == MEANINGS[channel_axis]
    assert source.n_channels == {"S": 3, "C": 2, "": 1}[channel_axis]
    assert source.notes == {
        "gray_alpha.png": ("The alpha channel was left out.",),
        "rgba_u8.png": ("The alpha channel was left out.",),
        "rgb_q75.jpg": ("Stored with JPEG compression, which changes values.",),
    }.get(name, ())
    pixels = whole(source)
    assert pixels.shape == (*source.shape, source.n_channels)
    assert pixels.dtype == source.dtype


def test_shared_files_agree_with_another_reader(shared_dir, entries):
    # formats are derived from two pictures: what is the same picture must be equal
    folder = shared_dir / "data/formats"

    def pixels(name, **choice):
        return whole(open_image(folder / name, **choice))

    u16 = tifffile.imread(folder / "u16_lzw.tif")
    for name in ("u16_lzw.tif", "u16_bigendian.tif", "image_labels.h5"):
        np.testing.assert_array_equal(pixels(name)[..., 0], u16)
    with Image.open(folder / "name with spaces γ′.png") as picture:
        rgb = np.asarray(picture.convert("RGB"))
    for name in ("rgb_planar_u8.tif", "rgba_u8.png", "name with spaces γ′.png"):
        np.testing.assert_array_equal(pixels(name), rgb)
    with Image.open(folder / "palette.png") as picture:
        np.testing.assert_array_equal(pixels("palette.png"), picture.convert("RGB"))
    stack = tifffile.imread(folder / "imagej_tzcyx.tif")
    np.testing.assert_array_equal(
        pixels("imagej_tzcyx.tif", plane=4), np.moveaxis(stack[4], 0, -1)
    )
    with Image.open(folder / "onebit.png") as picture:
        np.testing.assert_array_equal(pixels("onebit.png")[..., 0], picture)
    nan = pixels("f32_nan_inf.tif")
    assert np.isnan(nan).any()
    assert np.isinf(nan).any()


def test_shared_pixel_sizes(shared_dir):
    folder = shared_dir / "data/formats"
    found = {n: open_image(folder / n, plane=0 if "tz" in n else None) for n in SIZED}
    assert {name: source.pixel_size for name, source in found.items()} == SIZED


SIZED = {
    "imagej_tzcyx.tif": PixelSize(0.05, 0.05, "um", z=0.5),
    "ppl_xpl_2ch.ome.tif": PixelSize(0.5, 0.5, "um"),
    "image_labels.h5": PixelSize(0.05, 0.05, "um"),
    "gray.bmp": None,
    "rgb_q75.jpg": None,
    "u32.tif": None,
}


def test_file_that_is_not_what_its_name_says(shared_dir):
    message = r"expected a TIFF image from its name, got a PNG.*'png_named_as\.png'"
    with pytest.raises(ImageFileError, match=message):
        open_image(shared_dir / "data" / NOT_AS_NAMED)


def test_hdf5_volume_by_name(shared_dir):
    path = shared_dir / "data/formats/image_labels.h5"
    source = open_image(path, dataset="volume/raw", plane=5)
    assert (source.axes, source.file_shape) == ("ZYX", (6, 256, 256))
    with h5py.File(path) as file:
        np.testing.assert_array_equal(whole(source)[..., 0], file["volume/raw"][5])


# ------------------------------------------------------------------------ own TIFFs

DTYPES = ["bool", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"]
LAYOUTS = {
    "raw": {},
    "strips-of-a-row": {"rowsperstrip": 1, "compression": "lzw"},
    "one-strip": {"compression": "zlib"},
    "strips": {"rowsperstrip": 13, "compression": "zstd", "predictor": True},
    "tiles": {"tile": (32, 16)},
    "packed-tiles": {"tile": (16, 32), "compression": "zlib"},
    "big": {"bigtiff": True},
}


@pytest.mark.parametrize("byteorder", "<>")
@pytest.mark.parametrize("dtype", DTYPES)
def test_tiff_dtypes(tmp_path, dtype, byteorder):
    stored = (GREY > 99) if dtype == "bool" else (GREY / 2).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", stored, byteorder=byteorder)
    source = open_image(tmp_path / "a.tif")
    pixels = whole(source)
    assert pixels.dtype == np.dtype(dtype)
    assert pixels.dtype.isnative
    np.testing.assert_array_equal(pixels[..., 0], stored)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=list(LAYOUTS))
@pytest.mark.parametrize("kind", ["grey", "rgb", "planar", "pages"])
def test_tiff_layouts(tmp_path, layout, kind):
    stored, more, expected, choice = {
        "grey": (GREY, {}, GREY[..., None], {}),
        "rgb": (RGB, {"photometric": "rgb"}, RGB, {}),
        "planar": (
            np.moveaxis(RGB, -1, 0).copy(),
            {"photometric": "rgb", "planarconfig": "separate"},
            RGB,
            {},
        ),
        "pages": (
            np.stack([GREY, 255 - GREY, GREY // 2, RGB[..., 0]]).reshape(2, 2, 70, 90),
            {"photometric": "minisblack", "metadata": {"axes": "ZCYX"}},
            np.dstack([GREY // 2, RGB[..., 0]]),
            {"plane": 1},
        ),
    }[kind]
    tifffile.imwrite(tmp_path / "a.tif", stored, **more, **layout)
    source = open_image(tmp_path / "a.tif", **choice)
    np.testing.assert_array_equal(whole(source), expected)
    window = Window(11, 66, 20, 83)
    np.testing.assert_array_equal(source.read(window), expected[window.slices])


def test_jpeg_in_tiff_equals_another_reader(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, RGB, photometric="rgb", compression="jpeg", tile=(32, 32))
    source = open_image(path)
    np.testing.assert_array_equal(whole(source), tifffile.imread(path))
    assert "JPEG" in source.notes[0]


def test_pyramid_is_read_at_full_resolution(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as tif:
        options = {"tile": (32, 32), "compression": "zlib", "photometric": "minisblack"}
        tif.write(GREY, subifds=1, **options)
        tif.write(GREY[::2, ::2], subfiletype=1, **options)
    source = open_image(tmp_path / "a.ome.tif")
    assert source.shape == GREY.shape
    np.testing.assert_array_equal(whole(source)[..., 0], GREY)


def test_stack_of_interleaved_pages(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        for page in (GREY, 255 - GREY, GREY // 3):
            tif.write(page, contiguous=False, metadata=None)
    source = open_image(tmp_path / "a.tif", plane=2)
    np.testing.assert_array_equal(whole(source)[..., 0], GREY // 3)
    assert source.plane == 2


def test_ome_channels_and_hyperstack(tmp_path):
    stored = RNG.integers(0, 256, (2, 3, 4, 20, 30), np.uint8)
    metadata = {
        "axes": "TCZYX",
        "Channel": {"Name": ["bse", "se", "eds"]},
        "PhysicalSizeX": 20,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 0.02,
        "PhysicalSizeYUnit": "µm",
    }
    tifffile.imwrite(
        tmp_path / "a.ome.tif", stored, photometric="minisblack", metadata=metadata
    )
    source = open_image(tmp_path / "a.ome.tif", plane=3, time=1)
    assert source.channel_names == ("bse", "se", "eds")
    assert source.pixel_size == PixelSize(20, 20, "nm")
    assert (source.plane, source.time, source.meaning) == (3, 1, "channels")
    np.testing.assert_array_equal(whole(source), np.moveaxis(stored[1, :, 3], 0, -1))


def colours(photometric, n, **more):
    stored = RNG.integers(0, 256, (20, 30, n), np.uint8)
    options = {"photometric": photometric, "planarconfig": "contig", **more}
    return stored, options


@pytest.mark.parametrize(
    ("case", "n_channels", "meaning", "note"),
    [
        pytest.param(
            colours("rgb", 4, extrasamples=["unassalpha"]), 3, "rgb", "alpha", id="rgba"
        ),
        pytest.param(
            colours("minisblack", 2, extrasamples=["assocalpha"]),
            1,
            "grey",
            "alpha",
            id="grey-alpha",
        ),
        pytest.param(colours("minisblack", 5), 5, "channels", "", id="five-channels"),
        pytest.param(colours("minisblack", 3), 3, "channels", "", id="not-rgb"),
    ],
)
def test_tiff_samples(tmp_path, case, n_channels, meaning, note):
    stored, options = case
    tifffile.imwrite(tmp_path / "a.tif", stored, **options)
    source = open_image(tmp_path / "a.tif")
    assert (source.n_channels, source.meaning) == (n_channels, meaning)
    assert note in " ".join(source.notes)
    assert bool(source.notes) == bool(note)
    np.testing.assert_array_equal(whole(source), stored[..., :n_channels])


@pytest.mark.parametrize("kind", ["colours", "grey-ramp", "imagej-lut", "white-is-0"])
def test_tiff_palettes(tmp_path, kind):
    table = RNG.integers(0, 2**16, (3, 256)).astype(np.uint16)
    options = {"photometric": "palette", "colormap": table}
    if kind == "grey-ramp":  # what SEM software writes
        options["colormap"] = np.tile(np.arange(256, dtype=np.uint16) << 8, (3, 1))
    if kind == "imagej-lut":
        options |= {"description": "ImageJ=1.53t\nunit=nm\n", "metadata": None}
    if kind == "white-is-0":
        options = {"photometric": "miniswhite"}
    tifffile.imwrite(tmp_path / "a.tif", GREY, **options)
    source = open_image(tmp_path / "a.tif")
    expected = (table >> 8).astype(np.uint8).T[GREY] if kind == "colours" else GREY
    assert source.meaning == ("rgb" if kind == "colours" else "grey")
    assert (source.axes, source.file_shape) == ("YX", GREY.shape)
    np.testing.assert_array_equal(np.squeeze(whole(source)), expected)
    assert bool(source.notes) == (kind == "white-is-0")


def test_first_of_several_images_with_a_note(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        tif.write(GREY, metadata=None)
        tif.write(RGB[:9, :9], metadata=None, photometric="rgb")
    source = open_image(tmp_path / "a.tif")
    assert source.notes == ("The file holds 2 images; the first is read.",)
    np.testing.assert_array_equal(whole(source)[..., 0], GREY)


# ----------------------------------------------------------------------- pixel sizes


def tiff_tag(code, text):
    data = text.encode("latin-1") + b"\0"
    return (code, 2, len(data), data, True)


FEI = "[User]\r\nUser=x\r\n[Scan]\r\nPixelWidth=2.5e-009\r\nPixelHeight=3e-009\r\n"
ZEISS = "\r\n0\r\n\r\n0\r\nAP_IMAGE_PIXEL_SIZE\r\nImage Pixel Size = 5.5 nm\r\n"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({}, None, id="none"),
        pytest.param(
            {"resolution": (5e4, 4e4), "resolutionunit": 3},
            PixelSize(0.25, 0.2, "um"),
            id="per-centimetre",
        ),
        pytest.param(
            {"resolution": (25400, 25400), "resolutionunit": 2},
            PixelSize(1, 1, "um"),
            id="per-inch",
        ),
        pytest.param(
            {"resolution": (72, 72), "resolutionunit": 2}, None, id="screen-72-dpi"
        ),
        pytest.param(
            {"resolution": (37.795, 37.795), "resolutionunit": 3},
            None,
            id="screen-96-dpi-in-cm",
        ),
        pytest.param(
            {"resolution": (20, 20), "resolutionunit": 1}, None, id="without-unit"
        ),
        pytest.param(
            {
                "resolution": (20, 10),
                "resolutionunit": 1,
                "description": "ImageJ=1.53t\nunit=\\u00B5m\n",
                "metadata": None,
            },
            PixelSize(0.1, 0.05, "um"),
            id="imagej-escaped-micron",
        ),
        pytest.param(
            {
                "resolution": (2, 2),
                "resolutionunit": 1,
                "description": "ImageJ=1.53t\nunit=pixel\n",
                "metadata": None,
            },
            None,
            id="imagej-pixels",
        ),
        pytest.param(
            {
                "resolution": (4, 4),
                "resolutionunit": 1,
                "metadata": {"unit": "nm"},
            },
            PixelSize(0.25, 0.25, "nm"),
            id="tifffile-unit",
        ),
        pytest.param(
            {"extratags": [tiff_tag(34682, FEI)]},
            PixelSize(0.003, 0.0025, "um"),
            id="fei",
        ),
        pytest.param(
            {
                "extratags": [tiff_tag(34118, ZEISS)],
                "resolution": (5e4, 5e4),
                "resolutionunit": 3,
            },
            PixelSize(5.5, 5.5, "nm"),
            id="zeiss-before-tags",
        ),
    ],
)
def test_tiff_pixel_size(tmp_path, options, expected):
    tifffile.imwrite(tmp_path / "a.tif", GREY, **options)
    found = open_image(tmp_path / "a.tif").pixel_size
    if expected is None:
        assert found is None
    else:
        assert found.unit == expected.unit
        assert (found.y, found.x) == pytest.approx((expected.y, expected.x), rel=1e-6)


@pytest.mark.parametrize(
    ("per_metre", "unit", "expected"),
    [
        pytest.param(20_000_000, 1, PixelSize(0.05, 0.05, "um"), id="nanometres"),
        pytest.param(2835, 1, None, id="72-dpi"),
        pytest.param(3780, 1, None, id="96-dpi"),
        pytest.param(20_000_000, 0, None, id="ratio-only"),
    ],
)
def test_png_pixel_size(tmp_path, per_metre, unit, expected):
    pixels = png(GREY)
    density = chunk(b"pHYs", struct.pack(">IIB", per_metre, per_metre, unit))
    (tmp_path / "a.png").write_bytes(pixels[:33] + density + pixels[33:])
    assert open_image(tmp_path / "a.png").pixel_size == expected


def chunk(kind, data):
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def png(pixels):
    return imagecodecs.png_encode(pixels)


# -------------------------------------------------------------------- PNG, JPEG, BMP


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_16_bit_png_keeps_its_bits(tmp_path, n):
    stored = RNG.integers(0, 2**16, (20, 30, n)).astype(np.uint16)
    (tmp_path / "a.png").write_bytes(png(stored if n > 1 else stored[..., 0]))
    source = open_image(tmp_path / "a.png")
    kept = {1: 1, 2: 1, 3: 3, 4: 3}[n]
    assert source.meaning == ("rgb" if kept == 3 else "grey")
    np.testing.assert_array_equal(whole(source), stored[..., :kept])


@pytest.mark.parametrize("depth", [2, 4])
def test_shallow_grey_png_is_not_stretched(tmp_path, depth):
    stored = RNG.integers(0, 2**depth, (5, 16)).astype(np.uint8)
    bits = np.unpackbits(stored[..., None], axis=-1)[..., 8 - depth :]
    rows = np.packbits(bits.reshape(5, -1), axis=-1)
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    head = struct.pack(">IIBBBBB", 16, 5, depth, 0, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(data))
        + chunk(b"IEND", b"")
    )
    np.testing.assert_array_equal(whole(open_image(tmp_path / "a.png"))[..., 0], stored)


@pytest.mark.parametrize(
    ("image", "transparent"), [(RGB, (1, 2, 3)), (GREY, 7), (GREY.astype("u2"), 7)]
)
def test_transparent_colour_is_noted(tmp_path, image, transparent):
    path = tmp_path / "a.png"
    Image.fromarray(image).save(path, transparency=transparent)
    source = open_image(path)
    assert source.notes == ("Transparent colours are shown as if they were opaque.",)
    np.testing.assert_array_equal(np.squeeze(whole(source)), image)


def test_chunks_that_libpng_complains_about_are_left_out(tmp_path, capfd):
    pixels = png(GREY)
    profile = chunk(b"iCCP", b"broken\0\0" + zlib.compress(b"no profile"))
    (tmp_path / "a.png").write_bytes(pixels[:33] + profile + pixels[33:])
    np.testing.assert_array_equal(whole(open_image(tmp_path / "a.png"))[..., 0], GREY)
    assert capfd.readouterr() == ("", "")


def test_tall_pictures_are_copied_in_bands(tmp_path):
    tall = RNG.integers(0, 256, (2500, 3, 3), np.uint8)
    picture = Image.fromarray(tall).convert("P")
    picture.save(tmp_path / "a.png")
    expected = np.asarray(picture.convert("RGB"))
    np.testing.assert_array_equal(whole(open_image(tmp_path / "a.png")), expected)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_bmp(tmp_path, mode):
    picture = Image.fromarray(RGB).convert(mode)
    picture.save(tmp_path / "a.bmp")
    source = open_image(tmp_path / "a.bmp")
    expected = np.asarray(picture.convert("RGB") if mode == "P" else picture)
    assert source.dtype == (np.bool_ if mode == "1" else np.uint8)
    np.testing.assert_array_equal(np.squeeze(whole(source)), expected)


def test_jpeg_orientation_flag_is_noted(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RGB).save(tmp_path / "a.jpg", exif=exif)
    source = open_image(tmp_path / "a.jpg")
    assert source.shape == (70, 90)
    assert "orientation flag is not applied" in source.notes[1]


def test_large_png_passes_pillows_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    (tmp_path / "a.png").write_bytes(png(RGB))
    np.testing.assert_array_equal(whole(open_image(tmp_path / "a.png")), RGB)


# ------------------------------------------------------------------ npy, HDF5, zarr


@pytest.mark.parametrize("stored", [GREY, np.asfortranarray(GREY), GREY.astype(">u2")])
def test_npy(tmp_path, stored):
    np.save(tmp_path / "a.npy", stored)
    source = open_image(tmp_path / "a.npy")
    np.testing.assert_array_equal(whole(source)[..., 0], GREY)
    assert source.dtype.isnative


@pytest.mark.parametrize("chunks", [None, (16, 32), (70, 90)])
def test_hdf5(tmp_path, chunks):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("deep/image", data=GREY, chunks=chunks)
        file["deep/other"] = GREY[:9]
    source = open_image(tmp_path / "a.h5")
    assert source.name == "a.h5:deep/image"
    np.testing.assert_array_equal(whole(source)[..., 0], GREY)


def test_hdf5_axis_names(tmp_path):
    stored = RNG.integers(0, 256, (4, 20, 30, 2), np.uint8)
    tags = {"axes": [{"key": k} for k in "zyxc"]}
    with h5py.File(tmp_path / "tags.h5", "w") as file:
        file["exported"] = stored
        file["exported"].attrs["axistags"] = json.dumps(tags)
        file["exported"].attrs["element_size_um"] = [1.0, 0.5, 0.25, 1.0]
    with h5py.File(tmp_path / "labels.h5", "w") as file:
        file["exported"] = stored
        for dim, label in zip(file["exported"].dims, "zyxc", strict=True):
            dim.label = label
    for name in ("tags.h5", "labels.h5"):
        source = open_image(tmp_path / name, plane=3)
        assert (source.axes, source.meaning) == ("ZYXC", "channels")
        np.testing.assert_array_equal(whole(source), stored[3])
    size = open_image(tmp_path / "tags.h5", plane=0).pixel_size
    assert size == PixelSize(0.5, 0.25, "um", z=1.0)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_zarr_array(tmp_path, zarr_format):
    zarr.create_array(
        tmp_path / "a.zarr", data=GREY, chunks=(16, 32), zarr_format=zarr_format
    )
    source = open_image(tmp_path / "a.zarr")
    np.testing.assert_array_equal(whole(source)[..., 0], GREY)


def ome_zarr(path, version, **more):
    group = zarr.open_group(path, mode="w", zarr_format=3 if version == "0.5" else 2)
    stored = RNG.integers(0, 256, (2, 3, 20, 30), np.uint8)
    group.create_array("0", data=stored, chunks=(1, 1, 16, 16))
    group.create_array("1", data=stored[..., ::2, ::2], chunks=(1, 1, 16, 16))
    axes = [{"name": n} for n in "cz"]
    axes += [{"name": n, "unit": "nanometer", "type": "space"} for n in "yx"]
    scale = {"type": "scale", "scale": [1, 1, 5.0, 4.0]}
    levels = [{"path": p, "coordinateTransformations": [scale]} for p in "01"]
    described = {
        "multiscales": [{"version": version, "axes": axes, "datasets": levels, **more}],
        "omero": {"channels": [{"label": "bse"}, {"label": "se"}]},
    }
    group.attrs.update({"ome": described} if version == "0.5" else described)
    return stored


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr(tmp_path, version):
    double = {"coordinateTransformations": [{"type": "scale", "scale": [1, 1, 2, 2]}]}
    stored = ome_zarr(tmp_path / "a.zarr", version, **double)
    source = open_image(tmp_path / "a.zarr", plane=2)
    assert (source.axes, source.meaning, source.n_channels) == ("CZYX", "channels", 2)
    assert source.pixel_size == PixelSize(10, 8, "nm")
    assert source.channel_names == ("bse", "se")
    np.testing.assert_array_equal(whole(source), np.moveaxis(stored[:, 2], 0, -1))


def test_images_in_numbered_groups(tmp_path):
    root = zarr.open_group(tmp_path / "a.zarr", mode="w")
    root.attrs["bioformats2raw.layout"] = 3
    stored = ome_zarr(tmp_path / "a.zarr/0", "0.5")
    source = open_image(tmp_path / "a.zarr", plane=1)
    assert source.name == "a.zarr:0/0"
    np.testing.assert_array_equal(whole(source), np.moveaxis(stored[:, 1], 0, -1))
    second = ome_zarr(tmp_path / "a.zarr/1", "0.5")
    with pytest.raises(SettingsError, match="which of 4 is the image"):
        open_image(tmp_path / "a.zarr", plane=1)
    source = open_image(tmp_path / "a.zarr", dataset="1", plane=1)
    np.testing.assert_array_equal(whole(source), np.moveaxis(second[:, 1], 0, -1))


def test_dataset_of_a_zarr_group(tmp_path):
    stored = ome_zarr(tmp_path / "a.zarr/inner", "0.5")
    zarr.open_group(tmp_path / "a.zarr", mode="a").create_array("extra", data=GREY)
    whole_image = open_image(tmp_path / "a.zarr", dataset="inner", plane=0)
    np.testing.assert_array_equal(whole(whole_image)[..., 0], stored[0, 0])
    extra = open_image(tmp_path / "a.zarr", dataset="extra")
    np.testing.assert_array_equal(whole(extra)[..., 0], GREY)


@pytest.mark.parametrize("kind", ["h5", "zarr"])
@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        pytest.param(["a/raw", "image", "b/image"], "image", id="nearest-to-the-root"),
        pytest.param(["raw", "data", "x"], "data", id="data-before-raw"),
        pytest.param(["only"], "only", id="only-one"),
        pytest.param(["a", "b"], None, id="nothing-obvious"),
        pytest.param(["a/image", "b/image"], None, id="twice"),
    ],
)
def test_obvious_dataset(tmp_path, kind, names, chosen):
    path = tmp_path / f"a.{kind}"
    images = {name: GREY + np.uint8(i) for i, name in enumerate(names)}
    if kind == "h5":
        with h5py.File(path, "w") as file:
            file["scalar"] = 1
            for name, image in images.items():
                file[name] = image
    else:
        group = zarr.open_group(path, mode="w")
        for name, image in images.items():
            group.create_array(name, data=image)
    if chosen is None:
        with pytest.raises(SettingsError, match=rf"which of 2 .*{names[1]} \(70, 90\)"):
            open_image(path)
    else:
        np.testing.assert_array_equal(whole(open_image(path))[..., 0], images[chosen])


@pytest.mark.parametrize("suffix", [".dat", "", ".TIF", ".lsm"])
def test_content_decides_where_the_name_says_nothing(tmp_path, suffix):
    tifffile.imwrite(tmp_path / "a.tif", GREY)
    path = (tmp_path / "a.tif").rename(tmp_path / f"b{suffix}")
    np.testing.assert_array_equal(whole(open_image(path))[..., 0], GREY)
