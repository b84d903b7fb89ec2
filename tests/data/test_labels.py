"""Labels are ids as they were stored, or an error that says what came instead."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from napari_alibi_seg._base import AnnotationError, ImageFileError, SettingsError
from napari_alibi_seg.data import open_image, read_labels

IDS = np.random.default_rng(2).choice([0, 1, 3, 200], (20, 30)).astype(np.uint8)
COLOURS = np.dstack([IDS, IDS // 2, IDS // 3])


def _png(path, ids=IDS):
    Image.fromarray(ids).save(path)


def _palette(path, ids=IDS):
    picture = Image.fromarray(ids).convert("P")
    picture.putdata(ids.ravel().tolist())
    picture.putpalette([v for i in range(256) for v in (255 - i, i // 2, 7)])
    picture.save(path)


def _palette_tiff(path):
    table = np.random.default_rng(0).integers(0, 2**16, (3, 256)).astype(np.uint16)
    tifffile.imwrite(path, IDS, photometric="palette", colormap=table)


def _hdf5(path):
    with h5py.File(path, "w") as file:
        file["labels"] = IDS


STORED = {
    "grey.png": _png,
    "palette.png": _palette,
    "palette.bmp": _palette,
    "palette.tif": _palette_tiff,
    "a.tif": lambda p: tifffile.imwrite(p, IDS.astype(np.uint32)),
    "lzw.tif": lambda p: tifffile.imwrite(p, IDS.astype(np.int16), compression="lzw"),
    "a.npy": lambda p: np.save(p, IDS.astype(np.int64)),
    "a.h5": _hdf5,
    "a.zarr": lambda p: zarr.create_array(p, data=IDS),
}


@pytest.mark.parametrize("name", STORED)
def test_ids_as_stored(tmp_path, name):
    STORED[name](tmp_path / name)
    ids = read_labels(tmp_path / name, image_shape=(20, 30))
    assert ids.dtype.kind in "ui"
    np.testing.assert_array_equal(ids, IDS)


def test_colours_of_a_palette_are_for_images(tmp_path):
    _palette(tmp_path / "a.png")
    source = open_image(tmp_path / "a.png")
    expected = np.dstack([255 - IDS, IDS // 2, np.full_like(IDS, 7)])
    np.testing.assert_array_equal(source.read(source.window), expected)


def test_shared_scribbles_belong_to_a_plane_but_have_none(shared_dir):
    folder = shared_dir / "data/scribbles/electrode3d"
    path = next(folder.glob("*-spread.png"))
    with Image.open(path) as picture:
        np.testing.assert_array_equal(read_labels(path, plane=16), picture)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        pytest.param(IDS > 0, (IDS > 0).astype(np.uint8), id="bool"),
        pytest.param(IDS.astype(">u2"), IDS.astype(np.uint16), id="big-endian"),
        pytest.param(IDS.astype(np.int64), IDS.astype(np.int64), id="int64"),
        pytest.param(open_image(IDS), IDS, id="source"),
    ],
)
def test_arrays_of_ids(labels, expected):
    ids = read_labels(labels)
    assert ids.dtype == expected.dtype
    np.testing.assert_array_equal(ids, expected)


def test_one_bit_png(tmp_path):
    _png(tmp_path / "a.png", IDS > 1)
    ids = read_labels(tmp_path / "a.png")
    assert ids.dtype == np.uint8
    np.testing.assert_array_equal(ids, IDS > 1)


def test_a_stack_of_labels_needs_its_plane():
    stack = np.stack([IDS, IDS // 2, IDS // 3]).astype(np.int32)
    np.testing.assert_array_equal(read_labels(stack, plane=2), IDS // 3)
    with pytest.raises(SettingsError, match="expected `plane` from 0 to 2, got None"):
        read_labels(stack)
    with pytest.raises(SettingsError, match="expected `plane` from 0 to 2, got 3"):
        read_labels(stack, plane=3)


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        pytest.param(COLOURS, {}, "got a colour image of 3 values.*palette", id="rgb"),
        pytest.param(
            np.dstack([COLOURS, IDS]), {}, "got a colour image of 3 values", id="rgba"
        ),
        pytest.param(
            IDS.astype(np.float32),
            {},
            r"integer type, got float32.*astype\('uint8'\)",
            id="whole-floats",
        ),
        pytest.param(
            IDS.astype(np.int16) - 1, {}, r"unlabelled\) up, got -1", id="negative"
        ),
        pytest.param(
            IDS,
            {"image_shape": (21, 30)},
            r"shape of the image, \(21, 30\), got \(20, 30\)",
            id="shape",
        ),
        pytest.param(
            IDS,
            {"image_shape": (30, 20), "image_name": "a.tif"},
            r"\(30, 20\) \(a\.tif\), got \(20, 30\). They look transposed",
            id="transposed",
        ),
    ],
)
def test_what_are_no_labels(tmp_path, labels, options, message):
    with pytest.raises(AnnotationError, match=message):
        read_labels(labels, **options)
    path = tmp_path / "labels.tif"
    tifffile.imwrite(path, labels, photometric="rgb" if labels.ndim > 2 else None)
    with pytest.raises(AnnotationError, match=message) as caught:
        read_labels(path, **options)
    assert str(path) in str(caught.value)


def test_channels_are_no_labels(tmp_path):
    stack = np.stack([IDS, IDS])
    options = {"photometric": "minisblack", "metadata": {"axes": "CYX"}}
    tifffile.imwrite(tmp_path / "a.tif", stack, **options)
    with pytest.raises(AnnotationError, match="got channels of 2 values"):
        read_labels(tmp_path / "a.tif")


def test_jpeg_changes_ids(tmp_path):
    Image.fromarray(IDS).save(tmp_path / "a.jpg")
    tifffile.imwrite(tmp_path / "a.tif", IDS, compression="jpeg")
    for name in ("a.jpg", "a.tif"):
        with pytest.raises(AnnotationError, match="JPEG compression, which changes"):
            read_labels(tmp_path / name)


def test_a_broken_file_is_a_broken_file(tmp_path):
    with pytest.raises(ImageFileError, match="there is none of this name"):
        read_labels(tmp_path / "none.png")
