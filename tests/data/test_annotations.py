"""Scribbles become painted pixels, or a clear refusal."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_alibi_seg._base import AnnotationError
from napari_alibi_seg.data import Annotations, _labels, open_image, read_annotations


def test_painted_pixels_come_in_reading_order_with_their_ids():
    labels = np.zeros((4, 6), np.uint16)
    labels[3, 1], labels[0, 5], labels[2, 2] = 9, 300, 9
    a = Annotations.from_bands([labels])
    assert list(zip(a.rows, a.cols, a.ids, strict=True)) == [
        (0, 5, 300),
        (2, 2, 9),
        (3, 1, 9),
    ]
    assert a.class_ids == (9, 300)


@given(
    shape=st.tuples(st.integers(1, 30), st.integers(1, 9)),
    cuts=st.lists(st.integers(0, 30), max_size=4),
    seed=st.integers(0, 99),
)
@settings(deadline=None)
def test_bands_of_any_height_give_the_same_pixels(shape, cuts, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(1, 4, shape) * (rng.random(shape) < 0.3)
    edges = sorted({0, shape[0], *(c for c in cuts if c < shape[0])})
    bands = [labels[a:b] for a, b in itertools.pairwise(edges)]
    found = Annotations.from_bands(bands, may_be_empty=True)
    rows, cols = np.nonzero(labels)
    assert np.array_equal(found.rows, rows)
    assert np.array_equal(found.cols, cols)
    assert np.array_equal(found.ids, labels[rows, cols])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((4, 4), int), "no painted pixel"),
        (np.ones((4, 5), int), r"\(4, 4\), got \(4, 5\)"),
        (np.ones((4, 4)), "integer type, got float64"),
        (np.full((4, 4), -1), "ids from 0 .* got -1"),
        (np.full((4, 4), 70000), "got 70000 to 70000"),
    ],
    ids=["empty", "shape", "float", "negative", "too-large"],
)
def test_unusable_labels_are_refused(labels, message):
    with pytest.raises(AnnotationError, match=message):
        read_annotations(labels, image_shape=(4, 4))


def test_only_a_band_of_labels_is_read_at_once(monkeypatch):
    monkeypatch.setattr(_labels, "_BAND_BYTES", 8 * 20)
    labels = np.zeros((64, 20), np.uint8)
    labels[::9, 3] = 5
    source = open_image(labels)
    read, heights = type(source).read, []

    def watched(self, window):
        heights.append(window.shape[0])
        return read(self, window)

    monkeypatch.setattr(type(source), "read", watched)
    assert read_annotations(source).rows.tolist() == list(range(0, 64, 9))
    assert heights == [8] * 8


@pytest.mark.parametrize("at", [(4, 0), (0, 4), (-1, 0)])
def test_pixels_outside_the_image_are_refused(at):
    row, col = (np.array([i], np.int64) for i in at)
    painted = Annotations(row, col, np.array([1], np.int64))
    with pytest.raises(AnnotationError, match="4 x 4 pixels"):
        painted.check_inside((4, 4))
