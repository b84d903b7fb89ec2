"""Classifiers of pixels: training, prediction, projection of tokens, their file."""

from napari_alibi_seg.learn._arrays import (
    classifier_from_arrays,
    classifier_to_arrays,
    projection_from_arrays,
    projection_to_arrays,
)
from napari_alibi_seg.learn._classifier import (
    PixelClassifier,
    decide,
    entropy_uncertainty,
    fit_classifier,
)
from napari_alibi_seg.learn._file import load_classifier_file, save_classifier_file
from napari_alibi_seg.learn._forest import Forest
from napari_alibi_seg.learn._header import (
    ClassifierHeader,
    ClassRecord,
    FeatureRecord,
)
from napari_alibi_seg.learn._logistic import Logistic
from napari_alibi_seg.learn._projection import Projection, fit_projection
from napari_alibi_seg.learn._samples import subsample
from napari_alibi_seg.learn._trees import ForestArrays

__all__ = [
    "ClassRecord",
    "ClassifierHeader",
    "FeatureRecord",
    "Forest",
    "ForestArrays",
    "Logistic",
    "PixelClassifier",
    "Projection",
    "classifier_from_arrays",
    "classifier_to_arrays",
    "decide",
    "entropy_uncertainty",
    "fit_classifier",
    "fit_projection",
    "load_classifier_file",
    "projection_from_arrays",
    "projection_to_arrays",
    "save_classifier_file",
    "subsample",
]
