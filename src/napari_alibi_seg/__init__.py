"""Trainable segmentation of large micrographs on position-unbiased ViT features.

The public names are loaded on first use, so that importing the package costs nothing
and pulls in neither torch nor a GUI.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_alibi_seg._base import (
        Alibi,
        AlibiSegError,
        AlibiSegWarning,
        ClassifierSettings,
        FeatureSettings,
    )
    from napari_alibi_seg._distributed import (
        iter_apply_on,
        iter_features_on,
        open_cluster,
    )
    from napari_alibi_seg._segmenter import (
        Embedding,
        PlaneTile,
        Segmentation,
        Segmenter,
        iter_predict_stack,
    )
    from napari_alibi_seg.data import open_image

__all__ = [
    "Alibi",
    "AlibiSegError",
    "AlibiSegWarning",
    "ClassifierSettings",
    "Embedding",
    "FeatureSettings",
    "PlaneTile",
    "Segmentation",
    "Segmenter",
    "__version__",
    "iter_apply_on",
    "iter_features_on",
    "iter_predict_stack",
    "open_cluster",
    "open_image",
]

_HOMES = {
    "Alibi": "_base",
    "AlibiSegError": "_base",
    "AlibiSegWarning": "_base",
    "ClassifierSettings": "_base",
    "Embedding": "_segmenter",
    "FeatureSettings": "_base",
    "PlaneTile": "_segmenter",
    "Segmentation": "_segmenter",
    "Segmenter": "_segmenter",
    "iter_apply_on": "_distributed",
    "iter_features_on": "_distributed",
    "iter_predict_stack": "_segmenter",
    "open_cluster": "_distributed",
    "open_image": "data",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("napari-alibi-seg")
        except PackageNotFoundError:
            return "0.0.0+source"
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
