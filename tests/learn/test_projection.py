"""The projection is scikit-learn's, and a token's result is its own."""

from __future__ import annotations

import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from napari_alibi_seg._base import ClassifierFileError, ComputeError, SettingsError
from napari_alibi_seg.learn import Projection, fit_projection
from napari_alibi_seg.learn import _projection as module


def tokens(n=800, n_channels=48, seed=0, dtype=np.float32):
    """A few strong directions in noise, channels of very unequal scale and offset."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(10, n_channels))
    strength = np.geomspace(4, 0.5, 10)[:, None]
    x = rng.normal(size=(n, 10)) @ (mixing * strength) + rng.normal(
        size=(n, n_channels)
    )
    scale = np.geomspace(0.1, 20, n_channels)
    return (x * scale + 3 * scale).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("n_components", [1, 8, 48])
def test_equal_to_sklearn_up_to_sign(dtype, n_components):
    x = tokens(dtype=dtype)
    projection = fit_projection(x, n_components)
    pipeline = make_pipeline(
        StandardScaler(), PCA(n_components, whiten=True, svd_solver="full")
    ).fit(x.astype(np.float64))
    new = tokens(seed=1, dtype=dtype)
    ours = projection.apply(new)
    theirs = pipeline.transform(new.astype(np.float64))
    sign = np.sign((ours * theirs).sum(axis=0))
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs * sign, rtol=0, atol=1e-4)
    np.testing.assert_allclose(
        projection.explained, pipeline[1].explained_variance_ratio_, atol=1e-6
    )


def test_components_have_unit_variance_and_no_correlation():
    x = tokens()
    y = fit_projection(x, 6).apply(x)
    np.testing.assert_allclose(np.cov(y.T), np.eye(6), atol=1e-4)
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-4)


def test_the_largest_loading_is_positive():
    x = tokens()
    projection = fit_projection(x, 5)
    loadings = projection.weights * x.std(axis=0, dtype=np.float64)[:, None]
    largest = np.abs(loadings).argmax(axis=0)
    assert (loadings[largest, np.arange(5)] > 0).all()
    flipped = fit_projection(-x, 5)  # the same axes, told by the same rule
    np.testing.assert_allclose(flipped.weights, projection.weights, atol=1e-9)


@pytest.mark.parametrize("step", [1, 2, 7, 64, 333])
def test_the_same_bytes_however_tokens_are_cut(step):
    projection, x = fit_projection(tokens(), 24), tokens(n=1000, seed=3)
    whole = projection.apply(x)
    parts = [projection.apply(x[i : i + step]) for i in range(0, len(x), step)]
    assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_the_same_bytes_in_any_shape_layout_and_thread(monkeypatch):
    projection, x = fit_projection(tokens(), 24), tokens(n=1000, seed=3)
    whole = projection.apply(x)
    assert projection.apply(x.reshape(20, 50, 48)).shape == (20, 50, 24)
    assert projection.apply(x.reshape(20, 50, 48)).tobytes() == whole.tobytes()
    assert projection.apply(np.asfortranarray(x)).tobytes() == whole.tobytes()
    assert projection.apply(x[::-1])[::-1].tobytes() == whole.tobytes()
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(projection.apply, np.array_split(x, 9)))
    assert np.concatenate(parts).tobytes() == whole.tobytes()
    monkeypatch.setattr(module, "_BLOCK_BYTES", 4 * 48 * 17)
    assert projection.apply(x).tobytes() == whole.tobytes()


def test_half_precision_tokens_give_what_their_values_give():
    projection, half = fit_projection(tokens(), 24), tokens(dtype=np.float16)
    np.testing.assert_array_equal(
        projection.apply(half), projection.apply(half.astype(np.float32))
    )


def test_bounded_memory(monkeypatch):
    monkeypatch.setattr(module, "_BLOCK_BYTES", 1 << 16)
    projection = fit_projection(tokens(), 2)
    many = np.zeros((200_000, 48), np.float16)
    projection.apply(many[:1])  # compiles
    tracemalloc.start()
    try:
        projection.apply(many)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 200_000 * 2 * 4 + (1 << 19)


def test_constant_channels_are_ignored():
    x = tokens()
    x[:, [0, 30]] = 0.1, 7
    projection = fit_projection(x, 4)
    assert (projection.weights[[0, 30]] == 0).all()
    moved = x.copy()
    moved[:, 0] = 1e4
    np.testing.assert_array_equal(projection.apply(x), projection.apply(moved))
    rest = np.delete(x, [0, 30], axis=1)
    np.testing.assert_allclose(
        projection.apply(x), fit_projection(rest, 4).apply(rest), atol=1e-4
    )


@pytest.mark.parametrize(
    ("x", "found"),
    [
        pytest.param(np.ones((50, 8), np.float32), 0, id="constant-image"),
        pytest.param(tokens(n=1, n_channels=8), 0, id="one-token"),
        pytest.param(tokens(n=3, n_channels=8), 2, id="three-tokens"),
        pytest.param(
            np.outer(np.arange(50), np.arange(1, 9)).astype("f4"), 1, id="one-direction"
        ),
    ],
)
def test_components_that_do_not_exist_are_zero(x, found):
    projection = fit_projection(x, 5)
    assert projection.n_components == 5
    assert projection.n_found == found
    y = projection.apply(tokens(n_channels=8))
    assert np.isfinite(y).all()
    assert (y[:, found:] == 0).all()
    assert (y[:, :found].std(axis=0) > 0).all()


def test_many_tokens_are_thinned_out_by_the_seed():
    x = tokens(n=2000)
    one, two = (fit_projection(x, 3, seed=4, max_samples=500) for _ in range(2))
    assert one.weights.tobytes() == two.weights.tobytes()
    other = fit_projection(x, 3, seed=5, max_samples=500)
    assert not np.array_equal(one.weights, other.weights)
    np.testing.assert_allclose(one.apply(x).std(axis=0), 1, atol=0.15)


@pytest.mark.parametrize("n_components", [0, -1, 49])
def test_impossible_numbers_of_components(n_components):
    with pytest.raises(SettingsError, match=f"1 to 48, .* got {n_components}"):
        fit_projection(tokens(), n_components)


@pytest.mark.parametrize("shape", [(0, 8), (8,), (2, 3, 8)])
def test_tokens_must_be_rows(shape):
    with pytest.raises(SettingsError, match=r"must be \(N, C\)"):
        fit_projection(np.zeros(shape, np.float32), 1)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_tokens_must_be_finite(bad):
    x = tokens()
    x[3, 3] = bad
    with pytest.raises(ComputeError, match="Tokens must be finite"):
        fit_projection(x, 3)


def test_wrong_number_of_channels():
    with pytest.raises(SettingsError, match="48 channels last, got"):
        fit_projection(tokens(), 3).apply(np.zeros((5, 47), np.float32))


@pytest.mark.parametrize(
    ("mean", "weights", "explained", "message"),
    [
        pytest.param(np.zeros(3), np.zeros((4, 2)), np.zeros(2), "mean", id="mean"),
        pytest.param(np.zeros(4), np.zeros((4, 2)), np.zeros(3), "expl", id="share"),
        pytest.param(np.zeros(4), np.zeros(4), np.zeros(4), "be float64", id="1-d"),
        pytest.param(
            np.zeros(4, "f4"), np.zeros((4, 2)), np.zeros(2), "float32", id="dtype"
        ),
        pytest.param(
            np.zeros(4), np.full((4, 2), np.nan), np.zeros(2), "finite", id="nan"
        ),
    ],
)
def test_damaged_projections_are_refused(mean, weights, explained, message):
    with pytest.raises(ClassifierFileError, match=message):
        Projection(mean, weights, explained)
