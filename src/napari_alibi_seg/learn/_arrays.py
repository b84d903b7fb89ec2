"""Classifier and projection as named arrays, and back.

Only this module knows which arrays each kind of classifier has in a file and how they
are called there. Each array is checked by the object it goes into; here it is checked
that none is missing or foreign and that they fit the header.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import ClassifierFileError
from napari_alibi_seg.learn._classifier import PixelClassifier
from napari_alibi_seg.learn._forest import Forest
from napari_alibi_seg.learn._logistic import Logistic
from napari_alibi_seg.learn._projection import Projection
from napari_alibi_seg.learn._trees import ForestArrays

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Arrays",
    "check_content",
    "classifier_from_arrays",
    "classifier_to_arrays",
    "projection_from_arrays",
    "projection_to_arrays",
]

Arrays: TypeAlias = dict[str, npt.NDArray[Any]]

_FOREST = ("tree_start", "feature", "threshold", "left", "visits", "leaf_fraction")
_LOGISTIC = ("weights", "offset")
_PROJECTION = ("mean", "weights", "explained")


def classifier_to_arrays(classifier: PixelClassifier) -> Arrays:
    """Return the arrays of a classifier by their names in the file.

    Examples
    --------
    >>> model = Logistic(np.array([[0.0], [1.0]]), np.zeros(2))
    >>> sorted(classifier_to_arrays(PixelClassifier(np.array([1, 2]), model, {})))
    ['logistic.offset', 'logistic.weights']
    """
    model = classifier.model
    if isinstance(model, Forest):
        return {f"forest.{name}": getattr(model.arrays, name) for name in _FOREST}
    return {f"logistic.{name}": getattr(model, name) for name in _LOGISTIC}


def classifier_from_arrays(
    header: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]
) -> PixelClassifier:
    """Build the classifier that a header and its arrays describe.

    Parameters
    ----------
    header : dict
        From `load_classifier_file`.
    arrays : dict of str to array
        Likewise. Arrays of a projection are ignored.

    Returns
    -------
    PixelClassifier
        Equal to the one saved, to the bit.

    Raises
    ------
    ClassifierFileError
        If an array is missing or the arrays do not fit each other or the header.
    """
    ids = np.array([c["id"] for c in header["classes"]], np.int64)
    n_features = int(header["features"]["n_features"])
    model: Forest | Logistic
    if header["classifier"]["kind"] == "rf":
        parts = _parts(arrays, "forest", _FOREST)
        model = Forest(ForestArrays(n_features=n_features, **parts))
    else:
        model = Logistic(**_parts(arrays, "logistic", _LOGISTIC))
    classifier = PixelClassifier(ids, model, dict(header["training"]))
    if classifier.n_features != n_features:
        raise ClassifierFileError(
            f"The header tells of {n_features} features, but the model wants "
            f"{classifier.n_features}. Get the file again or train a new classifier."
        )
    return classifier


def projection_to_arrays(projection: Projection | None) -> Arrays:
    """Return the arrays of a projection by their names in the file; {} for None.

    Examples
    --------
    >>> projection_to_arrays(None)
    {}
    """
    if projection is None:
        return {}
    return {f"projection.{name}": getattr(projection, name) for name in _PROJECTION}


def projection_from_arrays(
    arrays: Mapping[str, npt.NDArray[Any]],
) -> Projection | None:
    """Build the projection among `arrays`; None where there is none.

    Raises
    ------
    ClassifierFileError
        If only a part of it is there or the parts do not fit.

    Examples
    --------
    >>> projection_from_arrays({}) is None
    True
    """
    if not any(name.startswith("projection.") for name in arrays):
        return None
    return Projection(**_parts(arrays, "projection", _PROJECTION))


def _parts(
    arrays: Mapping[str, npt.NDArray[Any]], group: str, names: tuple[str, ...]
) -> Arrays:
    missing = [f"{group}.{n}" for n in names if f"{group}.{n}" not in arrays]
    if missing:
        raise ClassifierFileError(
            f"The file lacks the arrays {missing}. Get it again or train a new "
            "classifier."
        )
    return {n: arrays[f"{group}.{n}"] for n in names}


def check_content(header: Mapping[str, Any], arrays: Arrays) -> None:
    """Check that header and arrays describe one classifier, nothing missing or more."""
    kind = header["classifier"]["kind"]
    expected = (
        {f"forest.{n}" for n in _FOREST}
        if kind == "rf"
        else {f"logistic.{n}" for n in _LOGISTIC}
    )
    foreign = sorted(
        set(arrays) - expected - {f"projection.{name}" for name in _PROJECTION}
    )
    if foreign:
        raise ClassifierFileError(
            f"A {kind!r} classifier has no arrays {foreign}. Get the file again or "
            "train a new classifier."
        )
    classifier_from_arrays(header, arrays)
    projection = projection_from_arrays(arrays)
    settings = header["features"]["settings"]
    wanted = None if settings["kind"] == "classical" else settings["components"]
    found = None if projection is None else projection.n_components
    if wanted != found:
        raise ClassifierFileError(
            f"The header tells of a projection to {wanted} components, the arrays of "
            f"{found}. Get the file again or train a new classifier."
        )
