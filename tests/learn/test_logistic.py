"""Logistic regression from coefficients is scikit-learn's pipeline."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from napari_alibi_seg._base import (
    ClassifierFileError,
    ClassifierSettings,
    SettingsError,
)
from napari_alibi_seg.learn import Logistic, fit_classifier
from napari_alibi_seg.learn._logistic import fit_logistic


def samples(n_classes, n=300, scale=1.0, offset=0.0, seed=0):
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=(n_classes, 5))
    y = np.arange(n) % n_classes
    x = centre[y] + rng.normal(size=(n, 5))
    return (x * scale + offset).astype(np.float32), y


@pytest.mark.parametrize(
    ("n_classes", "scale", "offset"),
    [
        pytest.param(2, 1, 0, id="two"),
        pytest.param(3, 1, 0, id="three"),
        pytest.param(5, 1, 0, id="five"),
        pytest.param(3, 2000, 30000, id="16-bit-intensities"),
        pytest.param(3, 1e-4, 0.5, id="tiny-contrast"),
    ],
)
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_equal_to_sklearn(n_classes, scale, offset, weighted):
    x, y = samples(n_classes, scale=scale, offset=offset)
    weight = np.linspace(0.5, 2, len(y)) if weighted else None
    model, converged = fit_logistic(x, y, sample_weight=weight)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    pipeline.fit(x.astype(np.float64), y, logisticregression__sample_weight=weight)
    new, _ = samples(n_classes, n=500, scale=scale, offset=offset, seed=1)
    ours = model.predict_proba(np.ascontiguousarray(new.T)).T
    theirs = pipeline.predict_proba(new.astype(np.float64))
    assert converged
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(ours.argmax(axis=1), theirs.argmax(axis=1))


def test_a_constant_channel_has_no_weight():
    x, y = samples(3)
    x[:, 2] = 0.1  # not exact in binary: its variance is not exactly 0
    model, _ = fit_logistic(x, y)
    assert (model.weights[:, 2] == 0).all()
    moved = x.copy()
    moved[:, 2] = 1e6
    np.testing.assert_array_equal(
        model.predict_proba(x.T), model.predict_proba(moved.T)
    )


def test_scores_too_large_for_exp():
    model = Logistic(np.array([[-1.0], [1.0]]), np.zeros(2))
    proba = model.predict_proba(np.array([[1e30, -1e30]], np.float32))
    np.testing.assert_array_equal(proba, [[0, 1], [1, 0]])


@pytest.mark.parametrize("step", [1, 3, 1000, 1024, 1500])
def test_the_same_bytes_however_pixels_are_cut(step):
    model, _ = fit_logistic(*samples(3))
    pixels = np.ascontiguousarray(samples(3, n=6001, seed=2)[0].T)[:, : 20 * step]
    whole = model.predict_proba(pixels)
    parts = [
        model.predict_proba(pixels[:, i : i + step])
        for i in range(0, pixels.shape[1], step)
    ]
    assert np.concatenate(parts, axis=1).tobytes() == whole.tobytes()


def test_no_convergence_is_noted_and_does_not_warn(monkeypatch, caplog):
    monkeypatch.setattr("napari_alibi_seg.learn._logistic.MAX_ITERATIONS", 1)
    x, y = samples(3)
    with caplog.at_level(logging.WARNING):
        clf = fit_classifier(x, y + 1, ClassifierSettings(kind="logistic"))
    assert clf.summary["converged"] is False
    assert "stopped before it converged" in caplog.text
    monkeypatch.undo()
    clf = fit_classifier(x, y + 1, ClassifierSettings(kind="logistic"))
    assert clf.summary["converged"] is True


def test_wrong_number_of_features():
    model, _ = fit_logistic(*samples(3))
    with pytest.raises(SettingsError, match=r"must be \(5, N\), feature-major, got"):
        model.predict_proba(np.zeros((4, 5), np.float32))


@pytest.mark.parametrize(
    ("weights", "offset", "message"),
    [
        pytest.param(np.ones((2, 3)), np.ones(3), r"\(K, F\) and \(K,\)", id="length"),
        pytest.param(np.ones((1, 3)), np.ones(1), "two classes or more", id="one"),
        pytest.param(np.ones((2, 3), "f4"), np.ones(2), "float32", id="dtype"),
        pytest.param(np.ones((2, 0)), np.ones(2), r"got \(2, 0\)", id="empty"),
        pytest.param(np.full((2, 3), np.nan), np.ones(2), "be finite", id="nan"),
        pytest.param(np.ones((2, 3)), np.array([0, np.inf]), "be finite", id="inf"),
    ],
)
def test_damaged_coefficients_are_refused(weights, offset, message):
    with pytest.raises(ClassifierFileError, match=message):
        Logistic(weights, offset)
