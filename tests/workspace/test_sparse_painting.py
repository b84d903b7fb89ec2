"""Strokes at coarse samples, sparse reading, taking back: like a dense label array."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_alibi_seg._base import Window
from napari_alibi_seg._workspace import ExcludedArea, OpenImage, ScribbleBlocks
from napari_alibi_seg._workspace import _images as images
from napari_alibi_seg.data import open_image, read_annotations

SHAPE = (530, 700)


def _painted(seed: int, n: int = 6):
    """Return blocks, the dense array that they stand for, and the strokes' patches."""
    rng = np.random.default_rng(seed)
    blocks, dense, patches = ScribbleBlocks(SHAPE), np.zeros(SHAPE, np.uint16), []
    for _ in range(n):
        step = int(2 ** rng.integers(0, 6))
        y0, x0 = (int(rng.integers(0, s // step)) * step for s in SHAPE)
        ids = rng.integers(0, 4, (9, 11)) * 100
        changed = rng.random(ids.shape) < 0.4
        patches.append(blocks.paint(y0, x0, step, ids, changed))
        for i, j in zip(*np.nonzero(changed), strict=True):
            at = (y0 + i * step, x0 + j * step)
            dense[at[0] : at[0] + step, at[1] : at[1] + step] = ids[i, j]
    return blocks, dense, patches


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_painted_as_on_a_dense_array(seed) -> None:
    blocks, dense, patches = _painted(seed)
    assert np.array_equal(blocks.to_array(), dense)
    for patch in reversed(patches):
        blocks.apply(patch.reverse)
    assert len(blocks) == 0
    for patch in patches:
        blocks.apply(patch)
    assert np.array_equal(blocks.to_array(), dense)
    again, _ = ScribbleBlocks.from_bytes(blocks.to_bytes())
    assert np.array_equal(again.to_array(), dense)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 2, 8, 64, 256]))
def test_read_at_a_step_shows_the_highest_id(seed, step) -> None:
    blocks, dense, _ = _painted(seed)
    found = blocks.read(Window(0, SHAPE[0], 0, SHAPE[1]), step)
    for i, j in np.ndindex(found.shape):
        block = dense[i * step : (i + 1) * step, j * step : (j + 1) * step]
        if step >= 64:
            assert found[i, j] == block.max()
    starts = [np.arange(0, n, step) for n in SHAPE]
    most = np.maximum.reduceat(np.maximum.reduceat(dense, starts[0], 0), starts[1], 1)
    assert np.array_equal(found, most)
    part = blocks.read(Window(256, 512, 256, 700), step)
    assert np.array_equal(part, most[256 // step : 512 // step, 256 // step :])


def test_annotations_are_those_of_the_array() -> None:
    blocks, dense, _ = _painted(3)
    mine, theirs = blocks.annotations(), read_annotations(dense, image_shape=SHAPE)
    for name in ("rows", "cols", "ids"):
        assert np.array_equal(getattr(mine, name), getattr(theirs, name))


def test_blocks_can_be_given_as_labels() -> None:
    blocks, dense, _ = _painted(5)
    other = ScribbleBlocks(SHAPE)
    assert other.update(blocks)
    assert np.array_equal(other.to_array(), dense)


def test_remap_is_all_at_once() -> None:
    blocks, dense, _ = _painted(8)
    blocks.remap({100: 200, 200: 100, 300: 0})
    expected = dense.copy()
    for old, new in ((100, 200), (200, 100), (300, 0)):
        expected[dense == old] = new
    assert np.array_equal(blocks.to_array(), expected)


BOX = ExcludedArea(kind="box", corners=((10, 20), (10, 60), (50, 60), (50, 20)))
POLYGON = ExcludedArea(kind="polygon", corners=((100, 20), (180, 90), (120, 160)))


@pytest.mark.parametrize("area", [BOX, POLYGON], ids=["box", "polygon"])
def test_areas_of_a_large_image_need_no_mask(area, monkeypatch) -> None:
    image = OpenImage(1, open_image(np.zeros((200, 200), np.uint8)), "a")
    image.excluded = (area,)
    window = Window(0, 200, 10, 190)
    whole = image.left_out(window, 2)
    monkeypatch.setattr(images, "_MAX_PIXELS", 100)
    monkeypatch.setattr(OpenImage, "mask", lambda _self: pytest.fail("a whole mask"))
    part = image.left_out(window, 2)
    # the whole mask counts a polygon's outline as inside
    n_edge = 0 if area is BOX else 140
    assert not (part & ~whole).any()
    assert int((whole & ~part).sum()) <= n_edge
    assert image.left_out(Window(190, 200, 0, 10)) is None
