"""Class ids, weights, thinning out, decisions."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.ensemble import RandomForestClassifier

from napari_alibi_seg._base import (
    AnnotationError,
    ClassifierSettings,
    SettingsError,
    validated,
)
from napari_alibi_seg.learn import (
    PixelClassifier,
    decide,
    entropy_uncertainty,
    fit_classifier,
    subsample,
)
from napari_alibi_seg.learn import _classifier as module
from napari_alibi_seg.learn._trees import ForestArrays

RF = ClassifierSettings(n_trees=20)


def painted(ids, n=60, seed=0):
    """One blob of features for each id, unequal in number."""
    rng = np.random.default_rng(seed)
    y = np.repeat(ids, [n * (i + 1) for i in range(len(ids))])
    order = rng.permutation(len(y))
    y = y[order]
    x = rng.normal(size=(len(y), 4)) + np.searchsorted(ids, y)[:, None]
    return x.astype(np.float32), y


@pytest.mark.parametrize("kind", ["rf", "logistic"])
@pytest.mark.parametrize(
    "ids", [[1, 2], [1, 3], [7, 200, 65000], [2**31, 2**32 - 1]], ids=str
)
def test_ids_come_back_as_painted(kind, ids):
    x, y = painted(ids)
    clf = fit_classifier(x, y, ClassifierSettings(kind=kind, n_trees=20))
    np.testing.assert_array_equal(clf.class_ids, ids)
    assert clf.n_features == 4
    assert clf.kind == kind
    far = np.array([[-9.0] * 4, [9.0] * 4], np.float32).T
    np.testing.assert_array_equal(
        decide(clf.predict_proba(far), clf.class_ids), [ids[0], ids[-1]]
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.int64])
def test_any_integer_type_of_ids(dtype):
    x, y = painted([1, 5])
    clf = fit_classifier(x, y.astype(dtype), RF)
    assert clf.class_ids.dtype == np.int64
    assert clf.class_ids.tolist() == [1, 5]


@pytest.mark.parametrize(
    ("weight", "theirs"),
    [
        pytest.param(None, None, id="none"),
        pytest.param("balanced", "balanced_subsample", id="balanced"),
        pytest.param({1: 2.0, 3: 0.5}, {1: 2.0, 3: 0.5}, id="dict"),
    ],
)
def test_class_weights_are_scikit_learns(weight, theirs):
    x, y = painted([1, 3], n=300)
    clf = fit_classifier(x, y, RF.model_copy(update={"class_weight": weight}))
    model = RandomForestClassifier(
        20, random_state=0, class_weight=theirs, max_features=2
    ).fit(x, y)
    new, _ = painted([1, 3], seed=1)
    np.testing.assert_allclose(
        clf.predict_proba(new.T).T, model.predict_proba(new), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("kind", ["rf", "logistic"])
@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        pytest.param(None, [0.9, 0.1], id="none"),
        pytest.param("balanced", [0.5, 0.5], id="balanced"),
        pytest.param({1: 1.0, 3: 9.0}, [0.5, 0.5], id="dict"),
    ],
)
def test_weights_decide_where_features_cannot(kind, weight, expected):
    x, y = np.zeros((2000, 1), np.float32), np.repeat([1, 3], [1800, 200])
    settings = ClassifierSettings(kind=kind, class_weight=weight)
    proba = fit_classifier(x, y, settings).predict_proba(x[:1].T)[:, 0]
    np.testing.assert_allclose(proba, expected, atol=0.02)


def test_a_class_that_is_not_in_the_weights_weighs_one():
    x, y = painted([1, 3])
    clf = fit_classifier(x, y, RF.model_copy(update={"class_weight": {3: 4.0}}))
    assert clf.summary["class_weight"] == {"1": 1.0, "3": 4.0}


@pytest.mark.parametrize("kind", ["rf", "logistic"])
@pytest.mark.parametrize(
    ("factor", "expected"),
    [
        pytest.param({}, [0.5, 0.5], id="balanced"),
        pytest.param({1: 1.0, 3: 1.0}, [0.5, 0.5], id="all one"),
        pytest.param({3: 3.0}, [0.25, 0.75], id="one"),
        pytest.param({1: 1.0, 3: 3.0}, [0.25, 0.75], id="both"),
    ],
)
@pytest.mark.parametrize("most", [10_000, 400], ids=["all", "thinned"])
def test_factors_multiply_balanced_weights(monkeypatch, kind, factor, expected, most):
    monkeypatch.setattr(module, "MAX_SAMPLES", most)
    x, y = np.zeros((2000, 1), np.float32), np.repeat([1, 3], [1800, 200])
    settings = ClassifierSettings(kind=kind, class_factor=factor)
    clf = fit_classifier(x, y, settings)
    proba = clf.predict_proba(x[:1].T)[:, 0]
    np.testing.assert_allclose(proba, expected, atol=0.02)
    told = clf.summary["class_weight"]
    assert told["3"] == pytest.approx(5.0 * factor.get(3, 1))
    assert told["1"] == pytest.approx(2000 / 3600)


@pytest.mark.parametrize("kind", ["rf", "logistic"])
def test_factors_of_one_are_balanced_to_the_byte(kind):
    x, y = painted([1, 3], n=300)
    plain = ClassifierSettings(kind=kind, n_trees=9)
    ones = plain.model_copy(update={"class_factor": {1: 1.0, 3: 1.0}})
    new = painted([1, 3], seed=1)[0].T
    one, two = (fit_classifier(x, y, s).predict_proba(new) for s in (plain, ones))
    assert one.tobytes() == two.tobytes()


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        pytest.param({4: 2.0}, r"`class_factor` names the ids \[4\]", id="id"),
        pytest.param({1: 0.0}, "`class_factor` must hold positive", id="zero"),
        pytest.param({1: float("nan")}, "`class_factor` must hold", id="nan"),
    ],
)
def test_wrong_factors_are_refused(factor, message):
    x, y = painted([1, 3])
    with pytest.raises(SettingsError, match=message):
        fit_classifier(x, y, RF.model_copy(update={"class_factor": factor}))


@pytest.mark.parametrize("weight", [None, {1: 2.0}], ids=["none", "dict"])
def test_factors_go_with_balanced_weights_alone(weight):
    values = {"class_weight": weight, "class_factor": {1: 2.0}}
    with pytest.raises(SettingsError, match="leave `class_weight` at 'balanced'"):
        validated(ClassifierSettings, values)


def test_settings_without_factors_are_those_of_earlier_files():
    assert "class_factor" not in ClassifierSettings().model_dump(mode="json")
    values = ClassifierSettings(class_factor={7: 2.5}).model_dump(mode="json")
    assert ClassifierSettings(**values).class_factor == {7: 2.5}


def test_sample_weights_are_used():
    x = np.zeros((4, 1), np.float32)
    y = np.array([1, 1, 2, 2])
    settings = ClassifierSettings(kind="logistic", class_weight=None)
    heavy = np.array([3.0, 3.0, 1.0, 1.0])
    clf = fit_classifier(x, y, settings, sample_weight=heavy)
    np.testing.assert_allclose(
        clf.predict_proba(x[:1].T)[:, 0], [0.75, 0.25], atol=1e-3
    )


@pytest.mark.parametrize("kind", ["rf", "logistic"])
def test_same_input_same_bytes(kind):
    x, y = painted([1, 2, 9])
    settings = ClassifierSettings(kind=kind, n_trees=20, seed=5)
    one = fit_classifier(x, y, settings, n_jobs=1)
    two = fit_classifier(x, y, settings, n_jobs=2)
    new = np.ascontiguousarray(painted([1, 2, 9], seed=1)[0].T)
    assert one.predict_proba(new).tobytes() == two.predict_proba(new).tobytes()
    assert one.summary == two.summary


def test_the_summary_is_json_without_times():
    x, y = painted([2, 4])
    summary = fit_classifier(x, y, RF).summary
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert {k: summary[k] for k in summary if k != "n_leaves"} == {
        "kind": "rf",
        "samples": {"2": 60, "4": 120},
        "class_weight": {"2": 1.5, "4": 0.75},
        "n_features": 4,
        "seed": 0,
        "n_trees": 20,
        "samples_per_tree": 180,
    }


@pytest.mark.parametrize("kind", ["rf", "logistic"])
@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        pytest.param(None, [0.9, 0.09, 0.01], id="none"),
        pytest.param("balanced", [1 / 3] * 3, id="balanced"),
        pytest.param({1: 0.1}, [9 / 19, 9 / 19, 1 / 19], id="dict"),
    ],
)
def test_too_many_pixels_are_thinned_out_and_weighted_back(
    monkeypatch, kind, weight, expected
):
    monkeypatch.setattr(module, "MAX_SAMPLES", 1000)
    y = np.repeat([1, 2, 5], [9000, 900, 100])
    x = np.zeros((10_000, 1), np.float32)
    settings = ClassifierSettings(kind=kind, class_weight=weight, n_trees=400)
    clf = fit_classifier(x, y, settings)
    assert clf.summary["samples"] == {"1": 9000, "2": 900, "5": 100}
    assert clf.summary["samples_used"] == {"1": 450, "2": 450, "5": 100}
    # Nothing to tell the classes apart: what is left are their weights.
    np.testing.assert_allclose(clf.predict_proba(x[:1].T)[:, 0], expected, atol=5e-3)


def test_few_pixels_are_all_used():
    x, y = painted([1, 2])
    assert "samples_used" not in fit_classifier(x, y, RF).summary


@given(
    counts=st.lists(st.integers(1, 60), min_size=1, max_size=6),
    most=st.integers(6, 80),
    seed=st.integers(0, 99),
)
def test_subsample_is_fair(counts, most, seed):
    labels = np.random.default_rng(seed).permutation(
        np.repeat(np.arange(len(counts)), counts)
    )
    chosen = subsample(labels, most, seed=seed)
    assert len(chosen) == min(most, len(labels))
    assert (np.diff(chosen) > 0).all()
    kept = np.bincount(labels[chosen], minlength=len(counts))
    # Nobody who lost samples has fewer than another kept, give or take the remainder.
    for k, c in zip(kept, counts, strict=True):
        assert k == c or k >= kept.max() - 1
    np.testing.assert_array_equal(chosen, subsample(labels, most, seed=seed))


def refused(error, match):
    return pytest.raises(error, match=match)


BAD = [
    pytest.param([1, 1, 1], {}, AnnotationError, "two classes .* only class 1", id="1"),
    pytest.param([], {}, AnnotationError, "must be painted, got nothing", id="nothing"),
    pytest.param([0, 1, 2], {}, AnnotationError, r"Leave out unlabelled", id="zero"),
    pytest.param([-1, 1, 2], {}, AnnotationError, "got -1 to 2", id="negative"),
    pytest.param([1, 2, 2**32], {}, AnnotationError, "1 to 4294967295", id="huge"),
    pytest.param([1.0, 2, 2], {}, AnnotationError, "must be integers", id="float"),
    pytest.param(
        [1, 2, 2],
        {"class_weight": {1: 1.0, 4: 2.0}},
        SettingsError,
        r"names the ids \[4\], but only \[1, 2\] are painted",
        id="unknown-weight",
    ),
    pytest.param(
        [1, 2, 2],
        {"class_weight": {1: 0.0}},
        SettingsError,
        "positive finite numbers",
        id="zero-weight",
    ),
]


@pytest.mark.parametrize(("ids", "options", "error", "message"), BAD)
def test_bad_ids(ids, options, error, message):
    x = np.arange(len(ids), dtype=np.float32)[:, None]
    ids = np.array(ids, dtype=None if ids else int)
    with pytest.raises(error, match=message):
        fit_classifier(x, ids, ClassifierSettings(**options))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_features_must_be_finite(bad):
    x, y = painted([1, 2])
    x[5, 2] = bad
    with pytest.raises(SettingsError, match=r"1 of 4 hold .* first is feature 2"):
        fit_classifier(x, y, RF)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        pytest.param(np.zeros((3, 2), "f4"), np.array([1, 2]), id="length"),
        pytest.param(np.zeros(3, "f4"), np.array([1, 2, 2]), id="1-d"),
        pytest.param(np.zeros((3, 2), "f4"), np.array([[1], [2], [2]]), id="2-d-ids"),
    ],
)
def test_shapes_must_fit(x, y):
    with pytest.raises(SettingsError, match=r"must be \(N, F\) and .* got \(3,"):
        fit_classifier(x, y, RF)


def test_no_features():
    with pytest.raises(SettingsError, match="at least one feature"):
        fit_classifier(np.zeros((2, 0), "f4"), np.array([1, 2]), RF)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.ones(3), r"must be \(2,\) like the ids"),
        (np.array([1, np.nan]), "must be finite"),
        (np.array([1, -1]), "not negative"),
        (np.zeros(2), "not all zero"),
    ],
)
def test_bad_sample_weights(weight, message):
    x, y = np.zeros((2, 1), "f4"), np.array([1, 2])
    with pytest.raises(SettingsError, match=message):
        fit_classifier(x, y, RF, sample_weight=weight)


# --------------------------------------------------------------------------- decide


@pytest.mark.parametrize(
    ("ids", "below", "unsure", "expected"),
    [
        pytest.param([1, 3], None, 0, [3, 1, 1], id="ids-not-indices"),
        pytest.param([1, 3], 0.6, 0, [3, 0, 1], id="unsure-is-0"),
        pytest.param([1, 3], 0.6, 9, [3, 9, 1], id="unsure-is-9"),
        pytest.param([1, 3], 0.5, 9, [3, 1, 1], id="at-the-limit-is-sure"),
    ],
)
def test_decide(ids, below, unsure, expected):
    proba = np.array([[0.25, 0.5, 1], [0.75, 0.5, 0]], np.float32)
    labels = decide(proba, np.array(ids), below, unsure)
    np.testing.assert_array_equal(labels, expected)
    assert labels.dtype == np.uint8


@pytest.mark.parametrize(
    ("highest", "below", "unsure", "dtype"),
    [
        (255, None, 0, np.uint8),
        (256, None, 0, np.uint16),
        (65535, None, 0, np.uint16),
        (65536, None, 0, np.uint32),
        (2, 0.1, 300, np.uint16),
        (2, None, 300, np.uint8),
    ],
)
def test_the_type_does_not_depend_on_what_occurs(highest, below, unsure, dtype):
    labels = decide(
        np.array([[1.0], [0.0]], np.float32), np.array([1, highest]), below, unsure
    )
    assert labels.dtype == dtype
    assert labels[0] == 1


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(2, 6), st.integers(1, 20)),
        elements=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    )
)
def test_of_equals_the_lowest_id_wins(proba):
    ids = np.arange(len(proba)) * 3 + 2
    labels = decide(proba, ids)
    for k in range(proba.shape[1]):
        best = proba[:, k].max()
        assert labels[k] == min(ids[i] for i in range(len(ids)) if proba[i, k] == best)


def test_images_of_probabilities():
    proba = np.random.default_rng(0).dirichlet([1, 1, 1], (4, 5)).astype(np.float32)
    proba = proba.transpose(2, 0, 1)
    assert decide(proba, np.array([1, 2, 4])).shape == (4, 5)
    assert entropy_uncertainty(proba).shape == (4, 5)


# ---------------------------------------------------------------------- uncertainty


@pytest.mark.parametrize("k", [2, 3, 7])
def test_uncertainty_is_one_where_classes_are_equally_likely(k):
    even = np.full((k, 4), 1 / k, np.float32)
    np.testing.assert_allclose(entropy_uncertainty(even), 1, atol=1e-6)
    certain = np.zeros((k, 1), np.float32)
    certain[1] = 1
    assert entropy_uncertainty(certain)[0] == 0


@given(st.integers(2, 6), st.integers(0, 99))
def test_uncertainty_is_normalised_entropy(k, seed):
    proba = np.random.default_rng(seed).dirichlet([0.3] * k, 50).T
    proba = np.maximum(proba, 1e-30)
    expected = -(proba * np.log(proba)).sum(axis=0) / np.log(k)
    got = entropy_uncertainty(proba.astype(np.float32))
    assert got.dtype == np.float32
    assert (got >= 0).all()
    assert (got <= 1).all()
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_uncertainty_is_the_same_however_it_is_cut():
    proba = np.random.default_rng(0).dirichlet([1, 1, 1], 1001).T.astype(np.float32)
    whole = entropy_uncertainty(proba)
    parts = [entropy_uncertainty(proba[:, i : i + 13]) for i in range(0, 1001, 13)]
    assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_a_classifier_needs_as_many_ids_as_classes():
    clf = fit_classifier(*painted([1, 2]), RF)
    assert isinstance(clf.model.arrays, ForestArrays)
    for ids, message in (
        ([1, 2, 3], "model has 2 classes, but 3"),
        ([2, 1], "must be ascending"),
        ([1, 1], "without repeats"),
        ([0, 1], "from 1 to 4294967295"),
    ):
        with pytest.raises(ValueError, match=message):
            PixelClassifier(np.array(ids), clf.model, {})
