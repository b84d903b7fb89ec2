"""Errors, settings and value types that every other room may use."""

from napari_alibi_seg._base._errors import (
    AlibiSegError,
    AlibiSegWarning,
    AnnotationError,
    ClassifierFileError,
    ComputeError,
    DeviceMemoryError,
    ImageFileError,
    OutputError,
    SettingsError,
    StoreError,
    WeightsError,
)
from napari_alibi_seg._base._settings import (
    Alibi,
    ClassifierSettings,
    FeatureKind,
    FeatureSettings,
    Resolution,
    validated,
)
from napari_alibi_seg._base._types import (
    Backbone,
    FloatArray,
    IntArray,
    PixelSize,
    TileResult,
    UInt8Array,
    Window,
)

__all__ = [
    "Alibi",
    "AlibiSegError",
    "AlibiSegWarning",
    "AnnotationError",
    "Backbone",
    "ClassifierFileError",
    "ClassifierSettings",
    "ComputeError",
    "DeviceMemoryError",
    "FeatureKind",
    "FeatureSettings",
    "FloatArray",
    "ImageFileError",
    "IntArray",
    "OutputError",
    "PixelSize",
    "Resolution",
    "SettingsError",
    "StoreError",
    "TileResult",
    "UInt8Array",
    "WeightsError",
    "Window",
    "validated",
]
