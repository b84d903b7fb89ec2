"""Scores: the rules of `alibi-seg evaluate`, against a loop and scikit-learn."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import confusion_matrix, jaccard_score

from napari_alibi_seg._base import AnnotationError
from napari_alibi_seg.data import _metrics
from napari_alibi_seg.data._metrics import (
    ClassScore,
    ConfusionCounts,
    EvaluationPair,
    confusion,
    evaluate_pairs,
)

# Few ids, so that they meet; the limits of each type, so that nothing wraps.
IDS = {
    "uint8": [0, 1, 2, 3, 254, 255],
    "int8": [-128, -1, 0, 1, 2, 127],
    "uint16": [0, 1, 2, 255, 65535],
    "int16": [-32768, -2, 0, 1, 2, 255],
    "uint32": [0, 1, 2, 255, 2**32 - 1],
    "int32": [-(2**31), -1, 0, 1, 2, 255, 2**31 - 1],
    "bool": [False, True],
}


def id_arrays(shape: tuple[int, ...]) -> st.SearchStrategy[np.ndarray]:
    return st.sampled_from(sorted(IDS)).flatmap(
        lambda dtype: hnp.arrays(
            np.dtype(dtype), shape, elements=st.sampled_from(IDS[dtype])
        )
    )


def slow_scores(
    pairs: list[tuple[np.ndarray, np.ndarray]], offset: int, ignore: int | None
) -> tuple[dict[int, tuple[float, int, int]], float | None]:
    """The rules of the evaluation, one pixel at a time."""
    hits, truth, predicted = Counter(), Counter(), Counter()
    n = right = 0
    for prediction_yx, truth_yx in pairs:
        for p, t in zip(
            prediction_yx.ravel().tolist(), truth_yx.ravel().tolist(), strict=True
        ):
            p, t = int(p), int(t)
            if t == ignore:
                continue
            n += 1
            truth[t] += 1
            meant = None if offset > 0 and p == 0 else p - offset
            predicted[meant] += 1
            if meant == t:
                right += 1
                hits[t] += 1
    classes = {
        t: (hits[t] / (truth[t] + predicted[t] - hits[t]), truth[t], predicted[t])
        for t in sorted(truth)
    }
    return classes, right / n if n else None


@settings(max_examples=150, deadline=None)
@given(
    data=st.data(), offset=st.integers(-2, 3), ignore=st.sampled_from([255, 0, None])
)
def test_scores_equal_a_slow_loop(
    data: st.DataObject, offset: int, ignore: int | None
) -> None:
    shapes = data.draw(
        st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), max_size=3)
    )
    pairs = [(data.draw(id_arrays(s)), data.draw(id_arrays(s))) for s in shapes]
    scores = evaluate_pairs(
        [EvaluationPair(p, t) for p, t in pairs], labels_offset=offset, ignore=ignore
    )
    classes, accuracy = slow_scores(pairs, offset, ignore)
    assert scores.counts.class_scores() == {
        i: ClassScore(*values) for i, values in classes.items()
    }
    assert scores.counts.accuracy == accuracy
    for image, pair in zip(scores.images, pairs, strict=True):
        classes, accuracy = slow_scores([pair], offset, ignore)
        assert image.accuracy == accuracy
        assert image.miou == (
            pytest.approx(np.mean([v[0] for v in classes.values()]))
            if classes
            else None
        )


def test_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    truth = rng.choice([1, 3, 7], (60, 50)).astype(np.uint8)
    prediction = rng.choice([1, 3, 7], (60, 50)).astype(np.uint16)
    counts = confusion(prediction, truth)
    ids, matrix = counts.matrix()
    assert ids.tolist() == [1, 3, 7]
    expected = confusion_matrix(truth.ravel(), prediction.ravel())
    assert np.array_equal(matrix, np.column_stack([expected, [0, 0, 0]]))
    jaccard = jaccard_score(truth.ravel(), prediction.ravel(), average="macro")
    assert counts.miou == pytest.approx(jaccard)


@pytest.mark.parametrize(
    ("prediction", "truth", "offset", "accuracy", "classes"),
    [
        pytest.param([1, 2], [1, 2], 0, 1.0, {1: 1.0, 2: 1.0}, id="equal"),
        pytest.param([2, 3], [1, 2], 1, 1.0, {1: 1.0, 2: 1.0}, id="offset"),
        pytest.param([1, 2], [0, 1], 1, 1.0, {0: 1.0, 1: 1.0}, id="truth-zero"),
        pytest.param([0, 2], [0, 1], 0, 0.5, {0: 1.0, 1: 0.0}, id="zero-is-a-class"),
        pytest.param([0, 2], [0, 1], 1, 0.5, {0: 0.0, 1: 1.0}, id="zero-is-no-class"),
        pytest.param([0, 3], [-1, 2], 1, 0.5, {-1: 0.0, 2: 1.0}, id="zero-minus-one"),
        pytest.param([9, 2], [1, 2], 0, 0.5, {1: 0.0, 2: 1.0}, id="unknown-id"),
        pytest.param([5, 2], [255, 2], 0, 1.0, {2: 1.0}, id="ignored"),
        pytest.param([255, 2], [1, 2], 0, 0.5, {1: 0.0, 2: 1.0}, id="predicts-ignore"),
    ],
)
def test_rules(
    prediction: list[int],
    truth: list[int],
    offset: int,
    accuracy: float,
    classes: dict[int, float],
) -> None:
    counts = confusion([prediction], [truth], labels_offset=offset)
    assert counts.accuracy == accuracy
    assert {i: s.iou for i, s in counts.class_scores().items()} == classes
    assert counts.miou == np.mean(list(classes.values()))


def test_total_sums_confusion_and_does_not_average_images() -> None:
    scores = evaluate_pairs(
        [
            EvaluationPair([[1, 1, 1, 1]], [[1, 1, 1, 1]], "a", "ta"),
            EvaluationPair([[1, 1]], [[2, 1]], "b", "tb"),
        ]
    )
    assert [image.miou for image in scores.images] == [1.0, 0.25]
    # Over both: class 1 has 5 hits of 6, class 2 none of 1.
    assert scores.counts.miou == pytest.approx((5 / 6 + 0) / 2)
    assert scores.counts.accuracy == pytest.approx(5 / 6)


def test_id_unknown_to_one_truth_counts_against_the_class_of_another() -> None:
    scores = evaluate_pairs(
        [EvaluationPair([[2, 1]], [[1, 1]]), EvaluationPair([[2]], [[2]])]
    )
    assert scores.counts.class_scores()[2] == ClassScore(0.5, 1, 2)
    assert scores.images[0].miou == 0.5


def test_json_has_exactly_the_documented_keys() -> None:
    pair = EvaluationPair([[2, 2, 1]], [[1, 0, 0]], "p.tif", "t.png")
    out = json.loads(json.dumps(evaluate_pairs([pair], labels_offset=1).to_dict()))
    assert out == {
        "miou": 0.5,
        "accuracy": pytest.approx(2 / 3),
        "classes": {
            "0": {"iou": 0.5, "truth_pixels": 2, "predicted_pixels": 1},
            "1": {"iou": 0.5, "truth_pixels": 1, "predicted_pixels": 2},
        },
        "images": [
            {
                "prediction": "p.tif",
                "truth": "t.png",
                "miou": 0.5,
                "accuracy": pytest.approx(2 / 3),
            }
        ],
    }


def test_image_without_counted_pixels_is_null_and_says_so() -> None:
    scores = evaluate_pairs(
        [
            EvaluationPair([[1, 2]], [[255, 255]], "p1.tif", "t1.png"),
            EvaluationPair([[1, 2]], [[1, 2]], "p2.tif", "t2.png"),
        ]
    )
    out = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
    assert out["miou"] == 1.0
    assert out["images"][0] == {
        "prediction": "p1.tif",
        "truth": "t1.png",
        "miou": None,
        "accuracy": None,
        "note": "not scored, no pixel counts in the truth",
    }
    assert "note" not in out["images"][1]
    assert scores.notes == (
        "p1.tif: not scored, no pixel counts in the truth of t1.png.",
    )


@pytest.mark.parametrize(
    "pairs",
    [
        pytest.param([], id="no-pairs"),
        pytest.param([EvaluationPair([[1]], [[255]])], id="all-ignored"),
        pytest.param(
            [EvaluationPair(np.zeros((0, 4), int), np.zeros((0, 4), int))], id="empty"
        ),
    ],
)
def test_totals_of_nothing_are_null(pairs: list[EvaluationPair]) -> None:
    out = evaluate_pairs(pairs).to_dict()
    assert (out["miou"], out["accuracy"], out["classes"]) == (None, None, {})
    json.dumps(out, allow_nan=False)


@pytest.mark.parametrize(
    ("prediction", "truth", "message"),
    [
        pytest.param(
            np.zeros((3, 4), int),
            np.zeros((4, 3), int),
            r"p\.tif and t\.png must have equal shapes, got \(3, 4\) and \(4, 3\)",
            id="shapes",
        ),
        pytest.param(
            np.zeros((3, 4)),
            np.zeros((3, 4), int),
            r"p\.tif must hold integer",
            id="float",
        ),
        pytest.param(
            np.zeros(2, int), np.array([0, 2**40]), r"t\.png must .* 32 bits", id="wide"
        ),
        pytest.param(
            np.array([2**64 - 1], np.uint64), np.zeros(1, int), "32 bits", id="uint64"
        ),
    ],
)
def test_pairs_that_cannot_be_compared(
    prediction: np.ndarray, truth: np.ndarray, message: str
) -> None:
    with pytest.raises(AnnotationError, match=message):
        evaluate_pairs([EvaluationPair(prediction, truth, "p.tif", "t.png")])


class Rows:
    """An array that only gives rows, and remembers the largest piece it gave."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self.ndim = array.ndim
        self.largest = 0

    def __getitem__(self, rows: slice) -> np.ndarray:
        piece = self.array[rows]
        self.largest = max(self.largest, piece.size)
        return piece


def test_bands_bound_memory_and_change_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, (300, 64)).astype(np.uint8)
    prediction = rng.integers(0, 4, (300, 64)).astype(np.uint8)
    whole = confusion(prediction, truth)
    monkeypatch.setattr(_metrics, "_BAND_PIXELS", 640)
    rows = Rows(prediction)
    banded = confusion(rows, truth)
    assert rows.largest == 640
    for name in ("truth_ids", "predicted_ids", "pixels"):
        assert np.array_equal(getattr(banded, name), getattr(whole, name))


@pytest.mark.parametrize("top", [2**9, 2**20, 2**32], ids=["table", "sorted", "pairs"])
def test_every_way_of_counting_gives_the_same(top: int) -> None:
    """Two far ids choose the way; the other pixels must come out alike."""
    truth = np.array([1, 1, 2, 2, 3, top - 1], np.uint32)
    prediction = np.array([1, 2, 2, 2, 0, top - 1], np.uint32)
    counts = confusion(prediction, truth)
    assert counts.class_scores() == {
        1: ClassScore(0.5, 2, 1),
        2: ClassScore(2 / 3, 2, 3),
        3: ClassScore(0.0, 1, 0),
        top - 1: ClassScore(1.0, 1, 1),
    }


def test_sum_with_nothing_changes_nothing() -> None:
    counts = confusion([[1, 2]], [[1, 1]])
    same = counts + ConfusionCounts()
    assert same.class_scores() == counts.class_scores()
    assert same.n_pixels == 2
