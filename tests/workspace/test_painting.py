"""Painted pixels: counting, remapping, sparse blocks, masks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_alibi_seg._base import AnnotationError, StoreError, Window
from napari_alibi_seg._workspace import (
    ScribbleBlocks,
    find_pixels,
    painted_pixels,
    remap_ids,
)


@pytest.fixture
def gaps() -> np.ndarray:
    labels = np.zeros((600, 700), np.int32)
    labels[10:20, 10:50] = 1
    labels[250:262, 300] = 3
    labels[590:, 690:] = 7
    return labels


def test_counts_of_ids_with_gaps(gaps) -> None:
    assert painted_pixels(gaps) == {1: 400, 3: 12, 7: 100}
    assert painted_pixels(gaps, Window(15, 900, -5, 301)) == {1: 200, 3: 12}
    assert painted_pixels(gaps, Window(700, 800, 0, 10)) == {}


def test_deleted_class_leaves_no_pixel_and_tells_where(gaps) -> None:
    expected = np.where(gaps == 3, 0, gaps)
    assert remap_ids(gaps, {3: 0}) == Window(250, 262, 300, 301)
    assert np.array_equal(gaps, expected)
    assert remap_ids(gaps, {3: 0}) is None


def test_remap_changes_places_at_once(gaps) -> None:
    before = painted_pixels(gaps)
    remap_ids(gaps, {1: 7, 7: 1})
    assert painted_pixels(gaps) == {1: before[7], 3: before[3], 7: before[1]}


def test_remap_touches_the_window_only(gaps) -> None:
    remap_ids(gaps, {1: 0}, Window(0, 15, 0, 700))
    assert painted_pixels(gaps)[1] == 200


def test_remap_refuses_what_the_type_cannot_hold() -> None:
    with pytest.raises(AnnotationError, match="0 to 255"):
        remap_ids(np.ones((2, 2), np.uint8), {1: 300})


def test_found_pixels_are_in_image_coordinates(gaps) -> None:
    rows, cols = find_pixels(gaps, [3], Window(255, 600, 290, 310))
    assert rows.tolist() == list(range(255, 262))
    assert set(cols.tolist()) == {300}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        pytest.param(np.ones((2, 2)), "integer class ids", id="float"),
        pytest.param(np.full((2, 2), -1), "0 .unlabelled. to 65535", id="negative"),
        pytest.param(np.full((2, 2), 65536), "got 65536", id="too-large"),
    ],
)
def test_what_is_no_id_is_refused(labels, message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        painted_pixels(labels)
    blocks = ScribbleBlocks((2, 2))
    with pytest.raises(AnnotationError, match=message):
        blocks.update(labels)
    assert len(blocks) == 0


@given(st.data())
@settings(deadline=None)  # seconds of a busy machine are no failure
def test_blocks_follow_strokes(data) -> None:
    """Windows of changes give what looking everywhere gives."""
    labels = np.zeros((300, 520), np.uint16)
    blocks = ScribbleBlocks((300, 520))
    for _ in range(data.draw(st.integers(1, 6))):
        y, x = data.draw(st.integers(0, 299)), data.draw(st.integers(0, 519))
        h, w = data.draw(st.integers(1, 300)), data.draw(st.integers(1, 300))
        window = Window(y, y + h, x, x + w)
        labels[window.slices] = data.draw(st.sampled_from([0, 1, 3, 7, 65535]))
        blocks.update(labels, window)
    assert np.array_equal(blocks.to_array(), labels)
    assert blocks.counts() == painted_pixels(labels)
    again, about = ScribbleBlocks.from_bytes(blocks.to_bytes({"image": "x"}))
    assert np.array_equal(again.to_array(), labels)
    assert again.counts() == blocks.counts()
    assert about == {"image": "x"}
    assert again.to_bytes({"image": "x"}) == blocks.to_bytes({"image": "x"})


def test_blocks_read_only_what_the_window_meets(gaps) -> None:
    blocks = ScribbleBlocks(gaps.shape)
    assert blocks.update(gaps, Window(0, 30, 0, 30))
    assert blocks.counts() == {1: 400}
    assert not blocks.update(gaps, Window(0, 30, 0, 30))
    gaps[10:20, 10:50] = 0
    assert blocks.update(gaps, Window(10, 20, 10, 50))
    assert len(blocks) == 0


def test_blocks_do_not_follow_later_painting(gaps) -> None:
    blocks = ScribbleBlocks(gaps.shape)
    blocks.update(gaps)
    copy = blocks.copy()
    gaps[:] = 0
    blocks.update(gaps)
    assert copy.counts() == {1: 400, 3: 12, 7: 100}
    assert blocks.counts() == {}


def test_block_window_holds_all_pixels_of_an_id(gaps) -> None:
    blocks = ScribbleBlocks(gaps.shape)
    blocks.update(gaps)
    assert blocks.window_of([3]) == Window(0, 512, 256, 512)
    assert blocks.window_of([7]) == Window(512, 600, 512, 700)
    assert blocks.window_of([2]) is None


def test_blocks_of_another_shape_are_refused(gaps) -> None:
    with pytest.raises(AnnotationError, match=r"\(5, 5\), got \(600, 700\)"):
        ScribbleBlocks((5, 5)).update(gaps)


def test_every_damaged_byte_is_noticed(gaps) -> None:
    blocks = ScribbleBlocks(gaps.shape)
    blocks.update(gaps)
    whole = blocks.to_bytes()
    for at in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[at] ^= 0x55
        try:
            read, _ = ScribbleBlocks.from_bytes(bytes(damaged))
        except StoreError:
            continue
        # blanks of the header may change and nothing else
        assert np.array_equal(read.to_array(), gaps), at


@pytest.mark.parametrize("length", [0, 5, 100, 400, -1])
def test_cut_off_files_are_refused(gaps, length: int) -> None:
    blocks = ScribbleBlocks(gaps.shape)
    blocks.update(gaps)
    with pytest.raises(StoreError, match=r"a\.bin: expected scribbles"):
        ScribbleBlocks.from_bytes(blocks.to_bytes()[:length], "a.bin")
