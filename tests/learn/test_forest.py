"""The forest from arrays is scikit-learn's forest."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier

from napari_alibi_seg._base import ClassifierFileError, SettingsError
from napari_alibi_seg.learn import Forest, ForestArrays
from napari_alibi_seg.learn._forest import fit_forest, forest_from_sklearn


def samples(n=400, n_features=6, n_classes=3, noise=0.3, seed=0):
    """Classes that mostly follow the features: noise makes the trees deep."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, n_features)).astype(np.float32)
    score = np.argsort(np.argsort(x[:, 0] + x[:, -1] ** 2))
    y = score * n_classes // n
    flip = rng.random(n) < noise
    y[flip] = rng.integers(0, n_classes, flip.sum())
    return x, y


def fitted(x, y, **options):
    model = RandomForestClassifier(random_state=0, **options)
    return model.fit(x, y)


def assert_equal_to_sklearn(model, x_nf):
    forest = Forest(forest_from_sklearn(model))
    ours = forest.predict_proba(np.ascontiguousarray(x_nf.T)).T
    theirs = model.predict_proba(x_nf)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
    # Where scikit-learn itself is not sure which of two sums is the larger, its
    # choice is rounding noise.
    top = np.sort(theirs, axis=1)
    clear = top[:, -1] - top[:, -2] > 1e-6
    np.testing.assert_array_equal(
        ours.argmax(axis=1)[clear], theirs.argmax(axis=1)[clear]
    )


FORESTS = [
    pytest.param({"n": 60}, {"n_estimators": 10}, id="tiny-trees"),
    pytest.param({"n": 60, "n_classes": 2}, {"n_estimators": 11}, id="two-classes"),
    pytest.param({"n_classes": 4}, {"n_estimators": 20}, id="four-classes"),
    pytest.param({"n_classes": 5}, {"n_estimators": 20}, id="five-classes"),
    pytest.param({"n": 90, "noise": 0}, {"n_estimators": 1}, id="one-tree"),
    pytest.param({}, {"n_estimators": 20, "max_depth": 1}, id="stumps"),
    pytest.param({}, {"n_estimators": 9, "max_leaf_nodes": 31}, id="31-leaves"),
    pytest.param({}, {"n_estimators": 9, "max_leaf_nodes": 32}, id="32-leaves"),
    pytest.param({}, {"n_estimators": 9, "max_leaf_nodes": 33}, id="33-leaves"),
    pytest.param({}, {"n_estimators": 9, "max_leaf_nodes": 64}, id="64-leaves"),
    pytest.param({"n": 4000}, {"n_estimators": 8}, id="1000-leaves"),
    pytest.param({}, {"n_estimators": 20, "min_samples_leaf": 7}, id="mixed-leaves"),
    pytest.param(
        {"n_classes": 4}, {"n_estimators": 12, "min_samples_leaf": 3}, id="mixed-4"
    ),
    pytest.param({}, {"n_estimators": 12, "class_weight": "balanced"}, id="weighted"),
    pytest.param({"n_features": 1}, {"n_estimators": 12}, id="one-feature"),
    pytest.param({"n_features": 90}, {"n_estimators": 12}, id="90-features"),
    pytest.param({"n_features": 200}, {"n_estimators": 12}, id="200-features"),
    pytest.param({"n": 50}, {"n_estimators": 700, "max_depth": 2}, id="700-trees"),
]


@pytest.mark.parametrize(("data", "options"), FORESTS)
def test_equal_to_sklearn(data, options):
    x, y = samples(**data)
    model = fitted(x, y, **options)
    new, _ = samples(n=3000, n_features=x.shape[1], seed=1)
    assert_equal_to_sklearn(model, new)


def test_pure_leaves_give_exactly_the_same_classes():
    x, y = samples(n=2000)
    model = fitted(x, y, n_estimators=30)
    new, _ = samples(n=5000, seed=1)
    ours = Forest(forest_from_sklearn(model)).predict_proba(np.ascontiguousarray(new.T))
    np.testing.assert_array_equal(ours.argmax(axis=0), model.predict(new))
    np.testing.assert_array_equal(ours.T, model.predict_proba(new).astype(np.float32))


def test_a_forest_that_cannot_split_gives_the_class_fractions():
    x = np.zeros((9, 2), np.float32)
    y = np.array([0, 1, 2] * 3)
    model = fitted(x, y, n_estimators=4, bootstrap=False)
    assert [t.tree_.node_count for t in model.estimators_] == [1] * 4
    proba = Forest(forest_from_sklearn(model)).predict_proba(np.ones((2, 3), "f4"))
    np.testing.assert_allclose(proba, 1 / 3, atol=1e-7)
    assert (proba[0] == proba[1]).all()
    assert (proba[1] == proba[2]).all()  # a tie stays a tie


def test_a_feature_equal_to_a_threshold_goes_left():
    model = fitted(*samples(n=500), n_estimators=10)
    arrays = forest_from_sklearn(model)
    exact = np.unique(
        np.concatenate([t.tree_.threshold[t.tree_.feature >= 0] for t in model])
    )
    values = np.concatenate([exact.astype(np.float32), np.unique(arrays.threshold)])
    around = np.concatenate(
        [values, np.nextafter(values, np.float32(9)), np.nextafter(values, -values)]
    )
    x = np.repeat(around[:, None], 6, axis=1)
    assert_equal_to_sklearn(model, x)
    assert (arrays.threshold[:1] <= model[0].tree_.threshold[0]).all()


EDGES = np.array(
    [0, -0.0, 1e-45, -1e-45, 1.1754944e-38, 1e36, -1e36, 16777217, 16777216],
    np.float32,
)


def test_extreme_floats():
    rng = np.random.default_rng(0)
    x = rng.choice(EDGES, (200, 4)).astype(np.float32)
    y = (x[:, 0] > x[:, 1]).astype(int) + (x[:, 2] > 0)
    assert_equal_to_sklearn(fitted(x, y, n_estimators=15), x)


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(4, 300),
    n_features=st.integers(1, 8),
    n_classes=st.integers(2, 5),
    n_values=st.integers(1, 40),
    n_trees=st.integers(1, 12),
    min_leaf=st.integers(1, 9),
    seed=st.integers(0, 2**16),
)
def test_equal_to_sklearn_whatever_the_forest(
    n, n_features, n_classes, n_values, n_trees, min_leaf, seed
):
    rng = np.random.default_rng(seed)
    grid = rng.normal(size=n_values).astype(np.float32)
    x = rng.choice(grid, (n, n_features))
    y = np.append(np.arange(n_classes), rng.integers(0, n_classes, n))[:n]
    y = np.unique(y, return_inverse=True)[1]
    if y.max() == 0:
        y[0] = 1
    model = fitted(x, y, n_estimators=n_trees, min_samples_leaf=min_leaf)
    assert_equal_to_sklearn(model, rng.choice(grid, (50, n_features)))


@pytest.fixture(scope="module")
def deep():
    """A forest whose trees all need walking, and pixels for it."""
    x, y = samples(n=3000)
    forest = fit_forest(x, y, n_trees=12)
    pixels, _ = samples(n=10_007, seed=2)
    pixels = np.ascontiguousarray(pixels.T)
    return forest, pixels, forest.predict_proba(pixels)


@pytest.mark.parametrize("step", [1, 7, 2047, 2048, 2049, 5000])
def test_the_same_bytes_however_pixels_are_cut(deep, step):
    forest, pixels, whole = deep
    pixels, whole = pixels[:, : 40 * step], whole[:, : 40 * step]
    parts = [
        forest.predict_proba(pixels[:, i : i + step])
        for i in range(0, pixels.shape[1], step)
    ]
    assert np.concatenate(parts, axis=1).tobytes() == whole.tobytes()


def test_the_same_bytes_from_many_threads(deep):
    forest, pixels, whole = deep
    cuts = np.array_split(np.arange(pixels.shape[1]), 23)
    with ThreadPoolExecutor(8) as pool:
        parts = pool.map(
            lambda c: forest.predict_proba(pixels[:, c[0] : c[-1] + 1]), cuts
        )
        assert np.concatenate(list(parts), axis=1).tobytes() == whole.tobytes()


def test_memory_layout_does_not_matter(deep):
    forest, pixels, whole = deep
    for same in (np.asfortranarray(pixels), np.repeat(pixels, 2, 1)[:, ::2]):
        assert forest.predict_proba(same).tobytes() == whole.tobytes()
    frozen = pixels.copy()
    frozen.flags.writeable = False
    assert forest.predict_proba(frozen).tobytes() == whole.tobytes()


def test_the_block_width_does_not_matter(deep):
    forest, pixels, whole = deep
    narrow = Forest(forest.arrays)
    narrow._plan = replace(narrow._plan, width=33)
    assert narrow.predict_proba(pixels).tobytes() == whole.tobytes()


def test_no_pixels():
    x, y = samples(n=50)
    assert fit_forest(x, y, n_trees=2).predict_proba(x[:0].T).shape == (3, 0)


def test_nan_goes_left():
    x = np.array([[0], [1], [2], [3]], np.float32)
    forest = fit_forest(x, np.array([0, 0, 1, 1]), n_trees=15)
    both = forest.predict_proba(np.array([[np.nan, -np.inf]], np.float32))
    np.testing.assert_array_equal(both[:, 0], both[:, 1])


def test_visits_decide_speed_and_nothing_else(deep):
    forest, pixels, whole = deep
    visits = np.random.default_rng(0).permutation(forest.arrays.visits)
    other = Forest(replace(forest.arrays, visits=visits))
    assert (other._plan.exits[1] != forest._plan.exits[1]).any()
    assert other.predict_proba(pixels).tobytes() == whole.tobytes()


def test_the_fit_does_not_depend_on_the_cores():
    x, y = samples()
    one, two = (fit_forest(x, y, n_trees=7, seed=3, n_jobs=n) for n in (1, 2))
    for name in ForestArrays.__slots__:
        np.testing.assert_array_equal(
            getattr(one.arrays, name), getattr(two.arrays, name)
        )
    other = fit_forest(x, y, n_trees=7, seed=4)
    assert not np.array_equal(one.arrays.threshold, other.arrays.threshold)


@pytest.mark.parametrize("shape", [(5, 10), (6,), (10, 6), (6, 2, 2)])
def test_wrong_number_of_features(shape):
    x, y = samples(n=50)
    forest = fit_forest(x, y, n_trees=2)
    with pytest.raises(SettingsError, match=r"must be \(6, N\), feature-major, got"):
        forest.predict_proba(np.zeros(shape, np.float32))


# Two trees: a stump, and a root with a stump on its right.
GOOD = {
    "tree_start": np.array([0, 3, 8]),
    "feature": np.array([0, -1, -1, 1, -1, 0, -1, -1], np.int32),
    "threshold": np.array([0.5, 0, 0, 1, 0, 2, 0, 0], np.float32),
    "left": np.array([1, -1, -1, 1, -1, 3, -1, -1], np.int32),
    "visits": np.array([9, 5, 4, 9, 1, 8, 4, 4], np.int32),
    "leaf_fraction": np.array([[1, 0], [0, 1], [1, 0], [0.5, 0.5], [0, 1]], "f4"),
    "n_features": 2,
}


def test_a_forest_written_by_hand():
    proba = Forest(ForestArrays(**GOOD)).predict_proba(
        np.array([[0, 1, 1, 3], [1, 1, 2, 2]], np.float32)
    )
    np.testing.assert_array_equal(proba[0], [1, 0.5, 0.25, 0])
    np.testing.assert_array_equal(proba[1], [0, 0.5, 0.75, 1])


def put(name, index, value):
    def change(arrays):
        arrays[name][index] = value

    return change


def swap(name, make):
    def change(arrays):
        arrays[name] = make(arrays[name])

    return change


DAMAGED = [
    pytest.param(put("left", 3, 3), "level order, each with one", id="shared-child"),
    pytest.param(put("left", 5, 0), "a cycle", id="back-to-root"),
    pytest.param(put("left", 5, 2), "a cycle", id="own-child"),
    pytest.param(put("left", 5, 4), "outside its tree", id="past-the-tree"),
    pytest.param(put("left", 0, 2**31 - 2), "outside its tree", id="far-outside"),
    pytest.param(put("left", 0, -7), "outside its tree", id="negative"),
    pytest.param(put("left", 1, 1), "must be -1 at leaves", id="leaf-with-child"),
    pytest.param(put("feature", 0, 2), "`feature` must lie in -1 to 1", id="feature"),
    pytest.param(put("feature", 0, -2), "`feature` must lie", id="feature-negative"),
    pytest.param(put("feature", 0, -1), "`left` must be -1", id="inner-made-leaf"),
    pytest.param(put("threshold", 0, np.nan), "`threshold` must be fin", id="nan"),
    pytest.param(put("threshold", 0, np.inf), "`threshold` must be fin", id="inf"),
    pytest.param(put("threshold", 1, np.nan), "must be finite", id="nan-leaf"),
    pytest.param(put("visits", 0, -1), "`visits` must not be", id="visits"),
    pytest.param(put("leaf_fraction", (0, 0), 2), "lie in 0 to 1", id="fraction"),
    pytest.param(put("leaf_fraction", (0, 0), np.nan), "lie in 0 to 1", id="nan-frac"),
    pytest.param(put("leaf_fraction", (0, 0), 0), "sum to 1", id="empty-leaf"),
    pytest.param(put("tree_start", 1, 9), "must rise from 0 to 8", id="start"),
    pytest.param(put("tree_start", 1, 0), "must rise from 0 to 8", id="empty-tree"),
    pytest.param(put("tree_start", 1, 2), "outside its tree", id="cut"),
    pytest.param(swap("feature", lambda a: a[:-1]), "must have 7 entries", id="short"),
    pytest.param(
        swap("leaf_fraction", lambda a: a[:-1]), "must have 5 rows", id="leaf-missing"
    ),
    pytest.param(
        swap("leaf_fraction", lambda a: a[:, :1]), "at least two classes", id="1-class"
    ),
    pytest.param(
        swap("threshold", lambda a: a.astype(np.float64)), "float64", id="dtype"
    ),
    pytest.param(swap("left", lambda a: a[None]), "must be 1-D int32", id="ndim"),
    pytest.param(swap("tree_start", lambda a: a[:1]), "1 to 4096 trees", id="no-trees"),
    pytest.param(
        swap("tree_start", lambda a: np.arange(5000)), "4096 trees", id="many-trees"
    ),
]


@pytest.mark.parametrize(("change", "message"), DAMAGED)
def test_damaged_arrays_are_refused(change, message):
    arrays = {k: np.copy(v) if k != "n_features" else v for k, v in GOOD.items()}
    change(arrays)
    with pytest.raises(ClassifierFileError, match=message):
        ForestArrays(**arrays)


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(["tree_start", "feature", "left", "visits"]),
    position=st.integers(0, 7),
    value=st.integers(-3, 9),
)
def test_any_integer_changed_is_refused_or_harmless(name, position, value):
    arrays = {k: np.copy(v) if k != "n_features" else v for k, v in GOOD.items()}
    arrays[name][position % len(arrays[name])] = value
    try:
        forest = Forest(ForestArrays(**arrays))
    except ClassifierFileError:
        return
    proba = forest.predict_proba(np.zeros((2, 5), np.float32))
    np.testing.assert_allclose(proba.sum(axis=0), 1, atol=1e-6)
