"""Scribbles become painted pixels, or a clear refusal."""

from __future__ import annotations

import numpy as np
import pytest

from napari_alibi_seg._base import AnnotationError
from napari_alibi_seg.data import Annotations


def test_painted_pixels_come_in_reading_order_with_their_ids():
    labels = np.zeros((4, 6), np.uint16)
    labels[3, 1], labels[0, 5], labels[2, 2] = 9, 300, 9
    a = Annotations.from_labels(labels, (4, 6))
    assert list(zip(a.rows, a.cols, a.ids, strict=True)) == [
        (0, 5, 300),
        (2, 2, 9),
        (3, 1, 9),
    ]
    assert a.class_ids == (9, 300)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((4, 4), int), "no painted pixel"),
        (np.ones((4, 5), int), r"shape \(4, 4\), got \(4, 5\)"),
        (np.ones((4, 4)), "integer class ids"),
        (np.full((4, 4), -1), "ids from 0 to 65535, got -1"),
        (np.full((4, 4), 70000), "got 70000 to 70000"),
    ],
    ids=["empty", "shape", "float", "negative", "too-large"],
)
def test_unusable_labels_are_refused(labels, message):
    with pytest.raises(AnnotationError, match=message):
        Annotations.from_labels(labels, (4, 4))
