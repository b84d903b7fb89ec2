"""Masks of images larger than memory: written and read without an array of them."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import tifffile

from napari_alibi_seg._base import AnnotationError, PixelSize, SettingsError, Window
from napari_alibi_seg._workspace import (
    ImageIdentity,
    Project,
    ScribbleBlocks,
    export_blocks,
    import_blocks,
)
from napari_alibi_seg.data import open_image, read_annotations

SIZE = PixelSize(0.5, 0.5, "um")


def painted(shape, ids=(3, 7)):
    """Two small strokes at opposite corners."""
    blocks = ScribbleBlocks(shape)
    stroke = np.ones((5, 9), bool)
    blocks.paint(2, 3, 1, np.full((5, 9), ids[0]), stroke)
    blocks.paint(shape[0] - 5, shape[1] - 9, 1, np.full((5, 9), ids[1]), stroke)
    return blocks


@pytest.mark.parametrize("name", ["m.tif", "m.png"])
@pytest.mark.parametrize("ids", [(3, 7), (1, 300)], ids=["u1", "u2"])
def test_what_is_written_is_read(tmp_path, name, ids):
    blocks = painted((700, 530), ids)
    export_blocks(tmp_path / name, blocks, pixel_size=SIZE)
    assert open_image(tmp_path / name).pixel_size == SIZE
    again = import_blocks(tmp_path / name, blocks.shape)
    assert np.array_equal(again.to_array(), blocks.to_array())
    assert again.counts() == {ids[0]: 45, ids[1]: 45}


def test_a_mask_of_true_and_false_becomes_class_1():
    mask = painted((700, 600)).to_array() > 0
    assert import_blocks(mask, mask.shape).counts() == {1: 90}


def test_a_mask_must_fit_the_image():
    mask = painted((700, 600)).to_array()
    with pytest.raises(AnnotationError, match="transposed"):
        import_blocks(mask, (600, 700))


def test_memory_follows_the_strokes_not_the_image(tmp_path):
    blocks = painted((20_000, 20_000))
    tracemalloc.start()
    export_blocks(tmp_path / "m.tif", blocks, pixel_size=SIZE)
    found = import_blocks(tmp_path / "m.tif", blocks.shape)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 150e6  # the plane alone is 400 MB
    assert found.counts() == {3: 45, 7: 45}
    assert (tmp_path / "m.tif").stat().st_size < 2_000_000
    with tifffile.TiffFile(tmp_path / "m.tif") as tif:
        assert (tif.pages[0].tile, tif.pages[0].compression.name) == (
            (512, 512),
            "ADOBE_DEFLATE",
        )
    for_training = read_annotations(tmp_path / "m.tif")
    assert (for_training.ids == blocks.annotations().ids).all()


def test_a_project_takes_them_over(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIBI_SEG_PROJECTS", str(tmp_path / "projects"))
    blocks = painted((700, 530))
    source = open_image(np.zeros(blocks.shape, np.uint8))
    with Project.create(ImageIdentity.of(source, name="steel")) as project:
        project.update_scribbles(None, blocks)
        kept = project.scribbles(None)
        assert np.array_equal(kept.to_array(), blocks.to_array())
        export_blocks(tmp_path / "m.tif", kept)
    window = Window(695, 700, 521, 530)
    assert (open_image(tmp_path / "m.tif").read(window) == 7).all()


def test_a_huge_png_and_other_masks_are_refused(tmp_path):
    with pytest.raises(SettingsError, match=r"ends in \.tif"):
        export_blocks(tmp_path / "m.png", ScribbleBlocks((20_000, 20_000)))
    with pytest.raises(SettingsError, match=r"ends in \.tif, \.tiff or \.png"):
        export_blocks(tmp_path / "m.jpg", ScribbleBlocks((20, 20)))
    with pytest.raises(AnnotationError, match="shape of the image"):
        import_blocks(np.zeros((5, 6), np.uint8), (6, 5))
    with pytest.raises(AnnotationError, match="-1"):
        import_blocks(np.full((5, 6), -1), (5, 6))


def test_blocks_are_shared_not_read_again(monkeypatch):
    blocks, other = painted((700, 530)), ScribbleBlocks((700, 530))
    monkeypatch.setattr(ScribbleBlocks, "read", None)  # many times slower
    assert other.update(blocks)
    assert not other.update(blocks)
    blocks.paint(2, 3, 1, np.zeros((5, 9), int), np.ones((5, 9), bool))
    assert (other.counts(), blocks.counts()) == ({3: 45, 7: 45}, {7: 45})


def test_a_mask_of_a_series_of_stacks(tmp_path):
    masks = np.zeros((2, 3, 8, 9), np.uint8)
    masks[1, 2, 4, 5] = 6
    tifffile.imwrite(
        tmp_path / "m.tif", masks, metadata={"axes": "TZYX"}, photometric="minisblack"
    )
    found = import_blocks(tmp_path / "m.tif", (8, 9), plane=2, time=1)
    assert found.counts() == {6: 1}
