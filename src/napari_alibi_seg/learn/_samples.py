"""Painted pixels before training: checked, weighted, thinned out.

Only this module knows which samples can be trained on, how classes are weighted and
which pixels stay when there are too many.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import (
    AnnotationError,
    ClassifierSettings,
    FloatArray,
    IntArray,
    SettingsError,
)

__all__ = [
    "MAX_CLASS_ID",
    "class_weights",
    "subsample",
    "validated_samples",
    "validated_weights",
]

MAX_CLASS_ID = 2**32 - 1  # what the widest label image holds


def subsample(
    index_n: npt.NDArray[np.integer[Any]], max_samples: int, *, seed: int = 0
) -> npt.NDArray[np.int64]:
    """Choose at most `max_samples` positions, as many of each class as possible.

    Classes with less than an equal share keep all; what they leave goes to the
    others. The choice depends on the labels and the seed alone.

    Parameters
    ----------
    index_n : (N,) array of int
        Class of each sample, any integers.
    max_samples : int
        Most positions to return.
    seed : int
        Seed of the choice within a class.

    Returns
    -------
    (M,) int64
        Ascending positions; all of them when N is not above `max_samples`.

    Examples
    --------
    >>> labels = np.array([0] * 2 + [1] * 50 + [2] * 50)
    >>> np.bincount(labels[subsample(labels, 12)])
    array([2, 5, 5])
    """
    n = len(index_n)
    if n <= max_samples:
        return np.arange(n)
    classes, counts = np.unique(index_n, return_counts=True)
    quota = _fair_shares(counts, max_samples)
    rng = np.random.default_rng(seed)
    chosen = [
        rng.choice(np.flatnonzero(index_n == c), q, replace=False)
        for c, q in zip(classes, quota, strict=True)
    ]
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def _fair_shares(counts: npt.NDArray[np.int64], total: int) -> npt.NDArray[np.int64]:
    """Share `total` among classes that can take `counts`, smallest class first."""
    quota = np.zeros_like(counts)
    order = np.argsort(counts, kind="stable")
    for done, c in enumerate(order):
        quota[c] = min(counts[c], total // (len(order) - done))
        total -= int(quota[c])
    return quota


def validated_samples(
    features_nf: FloatArray, class_ids_n: IntArray
) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    features_nf = np.asarray(features_nf, np.float32)
    class_ids_n = np.asarray(class_ids_n)
    if features_nf.ndim != 2 or class_ids_n.shape != features_nf.shape[:1]:
        raise SettingsError(
            "`features_nf` must be (N, F) and `class_ids_n` (N,), got "
            f"{features_nf.shape} and {class_ids_n.shape}."
        )
    if class_ids_n.dtype.kind not in "iu":
        raise AnnotationError(
            f"Class ids must be integers, got {class_ids_n.dtype}. Save the labels as "
            "an integer image."
        )
    if features_nf.shape[1] == 0:
        raise SettingsError("`features_nf` must have at least one feature, got none.")
    painted = np.unique(class_ids_n)
    if painted.size and (painted[0] < 1 or painted[-1] > MAX_CLASS_ID):
        raise AnnotationError(
            f"Class ids must lie in 1 to {MAX_CLASS_ID}, got {painted[0]} to "
            f"{painted[-1]}. Leave out unlabelled pixels (0)."
        )
    if painted.size < 2:
        found = f"only class {painted[0]}" if painted.size else "nothing"
        raise AnnotationError(
            f"At least two classes must be painted, got {found}. Paint a few strokes "
            "of another class, with another positive id."
        )
    bad = ~np.isfinite(features_nf).all(axis=0)
    if bad.any():
        raise SettingsError(
            f"Features must be finite numbers, but {int(bad.sum())} of {bad.size} "
            f"hold NaN or infinity (the first is feature {int(bad.argmax())}). Paint "
            "outside invalid pixels or repair the image."
        )
    return features_nf, class_ids_n.astype(np.int64)


def validated_weights(
    sample_weight: npt.NDArray[np.floating[Any]] | None, n: int
) -> npt.NDArray[np.float64]:
    if sample_weight is None:
        return np.ones(n)
    weight_n = np.asarray(sample_weight, np.float64)
    if weight_n.shape != (n,):
        raise SettingsError(
            f"`sample_weight` must be ({n},) like the ids, got {weight_n.shape}."
        )
    if not (np.isfinite(weight_n).all() and (weight_n >= 0).all() and weight_n.any()):
        raise SettingsError(
            "`sample_weight` must be finite, not negative and not all zero."
        )
    return weight_n


def class_weights(
    settings: ClassifierSettings,
    ids: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
) -> npt.NDArray[np.float64]:
    """Return the weight of each class, by ascending id."""
    wanted = settings.class_weight
    if wanted is None:
        return np.ones(len(ids))
    if wanted == "balanced":
        balanced = counts.sum() / (len(ids) * counts.astype(np.float64))
        factors = _by_class("class_factor", settings.class_factor, ids)
        return np.asarray(balanced * factors, np.float64)
    return _by_class("class_weight", wanted, ids)


def _by_class(
    name: str, wanted: dict[int, float], ids: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Return numbers by ascending id, 1 where `wanted` says nothing."""
    unknown = sorted(set(wanted) - set(ids.tolist()))
    if unknown:
        raise SettingsError(
            f"`{name}` names the ids {unknown}, but only {ids.tolist()} are "
            "painted. Paint them or leave them out."
        )
    numbers = np.array([wanted.get(int(i), 1.0) for i in ids], np.float64)
    if not np.isfinite(numbers).all() or (numbers <= 0).any():
        raise SettingsError(
            f"`{name}` must hold positive finite numbers, got {wanted!r}."
        )
    return numbers
