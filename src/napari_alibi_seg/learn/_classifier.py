"""From painted pixels to class probabilities, and from those to ids.

Only this module knows what a class *id* (as painted, positive, gaps allowed) has to
do with a class *index* (position among the sorted ids). The models are in `_forest`
and `_logistic`, checks and weights of the painted pixels in `_samples`; features and
images are the callers'.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import (
    ClassifierFileError,
    ClassifierSettings,
    FloatArray,
    IntArray,
)
from napari_alibi_seg.learn._forest import Forest, fit_forest, samples_per_tree
from napari_alibi_seg.learn._logistic import Logistic, fit_logistic
from napari_alibi_seg.learn._samples import (
    MAX_CLASS_ID,
    class_weights,
    subsample,
    validated_samples,
    validated_weights,
)

__all__ = [
    "PixelClassifier",
    "decide",
    "entropy_uncertainty",
    "fit_classifier",
]

_logger = logging.getLogger(__name__)

MAX_SAMPLES = 200_000


@dataclass(frozen=True, slots=True, eq=False)
class PixelClassifier:
    """A trained model together with the ids its classes were painted with.

    Attributes
    ----------
    class_ids : (K,) int64
        Ids as painted, ascending; class index `i` is ``class_ids[i]``.
    model : Forest or Logistic
        What predicts.
    summary : dict
        JSON description of the training: kind, samples of each class, and so on.

    Raises
    ------
    ClassifierFileError
        If the ids are not ascending positive 32-bit numbers, one for each class.

    Examples
    --------
    >>> x = np.array([[0.0], [1.0], [2.0], [3.0]], np.float32)
    >>> clf = fit_classifier(x, np.array([1, 1, 7, 7]), ClassifierSettings(n_trees=25))
    >>> clf.class_ids
    array([1, 7])
    >>> decide(clf.predict_proba(x.T), clf.class_ids)
    array([1, 1, 7, 7], dtype=uint8)
    """

    class_ids: npt.NDArray[np.int64]
    model: Forest | Logistic
    summary: dict[str, Any]

    def __post_init__(self) -> None:
        ids, n_classes = self.class_ids, _n_classes(self.model)
        if ids.ndim != 1 or len(ids) != n_classes:
            raise ClassifierFileError(
                f"The model has {n_classes} classes, but {ids.size} class ids came "
                "with it. Get the file again or train a new classifier."
            )
        if ids[0] < 1 or ids[-1] > MAX_CLASS_ID or (np.diff(ids) <= 0).any():
            raise ClassifierFileError(
                "Class ids must be ascending, without repeats, from 1 to "
                f"{MAX_CLASS_ID}, got {ids[:20].tolist()}."
            )

    @property
    def n_features(self) -> int:
        """Features of a pixel."""
        if isinstance(self.model, Forest):
            return self.model.arrays.n_features
        return self.model.n_features

    @property
    def kind(self) -> str:
        """``"rf"`` or ``"logistic"``, as in `ClassifierSettings`."""
        return "rf" if isinstance(self.model, Forest) else "logistic"

    def predict_proba(self, features_fn: FloatArray) -> FloatArray:
        """Return class probabilities: (F, N) float32 to (K, N) float32.

        The classes are in the order of `class_ids`. Runs on the calling thread, most
        of the time without the GIL; the same bytes however pixels are cut into calls.

        Raises
        ------
        SettingsError
            If there are not `n_features` features.
        """
        return self.model.predict_proba(features_fn)


def fit_classifier(
    features_nf: FloatArray,
    class_ids_n: IntArray,
    settings: ClassifierSettings,
    *,
    sample_weight: npt.NDArray[np.floating[Any]] | None = None,
    n_jobs: int = -1,
) -> PixelClassifier:
    """Train on painted pixels.

    Parameters
    ----------
    features_nf : (N, F) float32
        Features of the painted pixels, of one or several images.
    class_ids_n : (N,) array of int
        Their ids, all positive.
    settings : ClassifierSettings
        Kind, number of trees, class weights and seed. The rest is for prediction.
    sample_weight : (N,) array of float, optional
        Weight of each pixel, multiplied with the class weights.
    n_jobs : int
        Cores, -1 for all; the result does not depend on it.

    Returns
    -------
    PixelClassifier
        The same for the same input and seed.

    Raises
    ------
    AnnotationError
        If fewer than two classes are painted or an id is not positive.
    SettingsError
        If lengths differ, a feature or weight is not a finite number, or
        `settings.class_weight` or `class_factor` names an id that is not painted.

    Notes
    -----
    More than 200,000 pixels are thinned out to that number (see `subsample`); their
    weights make up for it, so that the balance of the classes stays what was asked.
    Balanced weights are ``N / (K N_c)`` as in scikit-learn; a forest balances the
    samples of each tree. With `settings.class_factor` these weights are multiplied, and
    those of a forest are of all its samples: scikit-learn would balance a factor away
    in each tree.

    Examples
    --------
    >>> x = np.array([[0.0], [1.0], [2.0], [3.0]], np.float32)
    >>> settings = ClassifierSettings(kind="logistic")
    >>> fit_classifier(x, np.array([3, 3, 4, 4]), settings).summary["samples"]
    {'3': 2, '4': 2}
    """
    features_nf, class_ids_n = validated_samples(features_nf, class_ids_n)
    weight_n = validated_weights(sample_weight, len(class_ids_n))
    ids, index_n, counts = np.unique(
        class_ids_n, return_inverse=True, return_counts=True
    )
    summary: dict[str, Any] = {
        "kind": settings.kind,
        "samples": _by_id(ids, counts),
        "class_weight": _by_id(ids, class_weights(settings, ids, counts)),
        "n_features": int(features_nf.shape[1]),
        "seed": settings.seed,
    }
    kept = subsample(index_n, MAX_SAMPLES, seed=settings.seed)
    if len(kept) < len(index_n):
        features_nf, index_n, weight_n = (
            features_nf[kept],
            index_n[kept],
            weight_n[kept],
        )
        used = np.bincount(index_n, minlength=len(ids))
        summary["samples_used"] = _by_id(ids, used)
        _logger.info("%d painted pixels thinned out to %d", counts.sum(), len(kept))
        if settings.class_weight != "balanced":
            # Each pixel that is left stands for counts / used, at a mean weight of 1.
            stands_for = (counts / used) * (used.sum() / counts.sum())
            weight_n = weight_n * stands_for[index_n]
    fit = _forest if settings.kind == "rf" else _logistic
    model, notes = fit(features_nf, index_n, weight_n, settings, ids=ids, n_jobs=n_jobs)
    return PixelClassifier(ids, model, summary | notes)


def _forest(
    features_nf: FloatArray,
    index_n: npt.NDArray[np.int64],
    weight_n: npt.NDArray[np.float64],
    settings: ClassifierSettings,
    *,
    ids: npt.NDArray[np.int64],
    n_jobs: int,
) -> tuple[Forest, dict[str, Any]]:
    wanted = settings.class_weight
    if isinstance(wanted, dict) or any(f != 1 for f in settings.class_factor.values()):
        weights = class_weights(settings, ids, np.bincount(index_n))
        wanted = dict(enumerate(weights.tolist()))
    model = fit_forest(
        features_nf,
        index_n,
        n_trees=settings.n_trees,
        max_features=settings.max_features,
        class_weight=wanted,
        # scikit-learn draws another bootstrap when there are weights, even equal ones
        sample_weight=None if (weight_n == 1).all() else weight_n,
        seed=settings.seed,
        n_jobs=n_jobs,
    )
    return model, {
        "n_trees": model.arrays.n_trees,
        "n_leaves": len(model.arrays.leaf_fraction),
        "samples_per_tree": samples_per_tree(len(index_n)),
    }


def _logistic(
    features_nf: FloatArray,
    index_n: npt.NDArray[np.int64],
    weight_n: npt.NDArray[np.float64],
    settings: ClassifierSettings,
    *,
    ids: npt.NDArray[np.int64],
    n_jobs: int,  # lbfgs runs on BLAS's threads
) -> tuple[Logistic, dict[str, Any]]:
    weights = class_weights(settings, ids, np.bincount(index_n))
    model, converged = fit_logistic(
        features_nf,
        index_n,
        sample_weight=weight_n * weights[index_n],
        seed=settings.seed,
    )
    if not converged:
        _logger.warning(
            "The logistic regression stopped before it converged; its result is "
            "usable but not final. Fewer features or a forest may do better."
        )
    return model, {"converged": converged}


def _by_id(
    ids: npt.NDArray[np.int64], values: npt.NDArray[Any]
) -> dict[str, int | float]:
    return {str(i): v for i, v in zip(ids.tolist(), values.tolist(), strict=True)}


def entropy_uncertainty(proba_kn: FloatArray) -> FloatArray:
    """Return the entropy of the class probabilities over its maximum.

    Parameters
    ----------
    proba_kn : (K, ...) float32
        Probabilities, classes first, K at least 2.

    Returns
    -------
    (...) float32
        0 where one class is certain, 1 where all are equally likely.

    Examples
    --------
    >>> entropy_uncertainty(np.array([[1, 0.5], [0, 0.5]], np.float32))
    array([0., 1.], dtype=float32)
    """
    total = np.zeros(proba_kn.shape[1:], np.float32)
    tiny = np.finfo(np.float32).tiny
    for p in proba_kn:  # class by class: one image of scratch, a fixed order
        p = np.ascontiguousarray(p, np.float32)
        total -= p * np.log(np.maximum(p, tiny))
    total /= np.float32(np.log(len(proba_kn)))
    return np.clip(total, 0, 1, out=total)


def decide(
    proba_kn: FloatArray,
    class_ids: IntArray,
    unsure_below: float | None = None,
    unsure_id: int = 0,
) -> npt.NDArray[np.unsignedinteger[Any]]:
    """Return the id of the most probable class.

    Parameters
    ----------
    proba_kn : (K, ...) float32
        Probabilities, classes first, by ascending id.
    class_ids : (K,) array of int
        Ids as painted.
    unsure_below : float, optional
        Pixels whose highest probability lies below get `unsure_id`.
    unsure_id : int
        The id of "not sure".

    Returns
    -------
    (...) array of unsigned int
        Ids in the smallest type that holds all of them and `unsure_id`, whether or
        not they occur. Of equal probabilities the lowest id wins.

    Examples
    --------
    >>> proba = np.array([[0.5, 0.2], [0.5, 0.8]], np.float32)
    >>> decide(proba, np.array([2, 300]), unsure_below=0.6)
    array([  0, 300], dtype=uint16)
    """
    highest = max(int(class_ids[-1]), unsure_id if unsure_below is not None else 0)
    ids = np.asarray(class_ids).astype(np.min_scalar_type(highest))
    best = proba_kn.argmax(axis=0)
    labels = ids[best]
    if unsure_below is not None:
        labels[proba_kn.max(axis=0) < unsure_below] = unsure_id
    return labels


def _n_classes(model: Forest | Logistic) -> int:
    return model.arrays.n_classes if isinstance(model, Forest) else model.n_classes
