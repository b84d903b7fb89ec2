"""Multinomial logistic regression as plain arrays, and its prediction.

scikit-learn finds the coefficients on standardised features; mean and standard
deviation are folded into them, so that prediction is one linear map and a softmax.
Only this module knows that two classes are stored as two rows, the first of zeros.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import ClassifierFileError, FloatArray, SettingsError

__all__ = ["Logistic", "fit_logistic"]

MAX_ITERATIONS = 1000


@dataclass(frozen=True, slots=True, eq=False)
class Logistic:
    """Coefficients that act on raw features; checked when made.

    Attributes
    ----------
    weights : (K, F) float64
        One row for each class.
    offset : (K,) float64
        Score of each class at the origin.

    Raises
    ------
    ClassifierFileError
        If shapes or dtypes do not fit or a value is not finite.

    Examples
    --------
    >>> model = Logistic(np.array([[0.0], [1.0]]), np.zeros(2))
    >>> model.predict_proba(np.array([[0, np.log(3)]], np.float32))
    array([[0.5 , 0.25],
           [0.5 , 0.75]], dtype=float32)
    """

    weights: npt.NDArray[np.float64]
    offset: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        w, b = self.weights, self.offset
        if (
            w.dtype != np.float64
            or b.dtype != np.float64
            or w.ndim != 2
            or b.shape != w.shape[:1]
            or w.shape[0] < 2
            or w.shape[1] < 1
        ):
            raise ClassifierFileError(
                "The coefficients must be (K, F) and (K,) float64 with two classes or "
                f"more, got {w.shape} {w.dtype} and {b.shape} {b.dtype}. Get the file "
                "again or train a new classifier."
            )
        if not (np.isfinite(w).all() and np.isfinite(b).all()):
            raise ClassifierFileError(
                "The coefficients must be finite. Get the file again or train a new "
                "classifier."
            )

    @property
    def n_features(self) -> int:
        """Features of a pixel."""
        return int(self.weights.shape[1])

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return int(self.weights.shape[0])

    def predict_proba(self, features_fn: FloatArray) -> FloatArray:
        """Return the class probabilities of each pixel.

        Runs on the calling thread.

        Parameters
        ----------
        features_fn : (F, N) float32
            Features, feature-major. NaN is not meant to occur and gives NaN.

        Returns
        -------
        (K, N) float32
            Within 1e-6 of scikit-learn's, the same bytes however the pixels are cut
            into calls.

        Raises
        ------
        SettingsError
            If there are not F features.
        """
        from napari_alibi_seg.learn._kernels import linear_scores

        features_fn = np.asarray(features_fn, np.float32)
        if features_fn.ndim != 2 or features_fn.shape[0] != self.n_features:
            raise SettingsError(
                f"`features_fn` must be ({self.n_features}, N), feature-major, got "
                f"{features_fn.shape}. Compute them as for training."
            )
        scores = np.empty((self.n_classes, features_fn.shape[1]), np.float64)
        weights = np.ascontiguousarray(self.weights)
        linear_scores(features_fn, weights, np.ascontiguousarray(self.offset), scores)
        scores -= scores.max(axis=0)
        np.exp(scores, out=scores)
        # Class by class, so that the order of the sum does not depend on N.
        total = scores[0].copy()
        for row in scores[1:]:
            total += row
        scores /= total
        return scores.astype(np.float32)


def fit_logistic(
    features_nf: FloatArray,
    class_index: npt.NDArray[np.integer[Any]],
    *,
    sample_weight: npt.NDArray[np.float64] | None = None,
    seed: int = 0,
) -> tuple[Logistic, bool]:
    """Fit scikit-learn's L2-regularised regression (C = 1) and fold the scaling in.

    Parameters
    ----------
    features_nf : (N, F) float32
        Finite features of the painted pixels.
    class_index : (N,) array of int
        0 to K - 1, each present.
    sample_weight : (N,) float64, optional
        Weight of each pixel; the standardisation does not use it.
    seed : int
        Passed on; lbfgs itself is deterministic.

    Returns
    -------
    Logistic
        The coefficients.
    bool
        Whether the solver converged within 1000 iterations.

    Examples
    --------
    >>> x = np.array([[0.0], [1.0], [2.0], [3.0]], np.float32)
    >>> model, converged = fit_logistic(x, np.array([0, 0, 1, 1]))
    >>> model.predict_proba(x.T).argmax(axis=0), converged
    (array([0, 0, 1, 1]), True)
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    x = np.array(features_nf, np.float64)  # a copy, standardised in place
    mean = x.mean(axis=0)
    x -= mean
    std = np.sqrt(np.einsum("nf,nf->f", x, x) / len(x))
    # A channel that is constant up to rounding carries nothing; its weight stays 0.
    constant = std <= 1e-12 * np.maximum(np.abs(mean), 1e-300)
    std = np.where(constant, 1.0, std)
    x /= std
    x[:, constant] = 0
    model = LogisticRegression(max_iter=MAX_ITERATIONS, random_state=seed)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(x, class_index, sample_weight)
    converged = True
    for item in caught:
        if issubclass(item.category, ConvergenceWarning):
            converged = False
        else:
            warnings.warn_explicit(
                item.message, item.category, item.filename, item.lineno
            )
    coef, offset = model.coef_, model.intercept_
    if len(coef) == 1:  # two classes: one row, the score of the second
        coef = np.concatenate([np.zeros_like(coef), coef])
        offset = np.concatenate([np.zeros_like(offset), offset])
    weights = np.where(constant, 0.0, coef / std)
    return Logistic(weights, offset - weights @ mean), converged
