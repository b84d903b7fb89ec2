"""Features of pixels: ViT backbones, and hand-made ones that need no weights.

The public names are loaded when they are first asked for: importing this package, or
asking what backbones there are, imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from napari_alibi_seg._base import Alibi

if TYPE_CHECKING:
    from napari_alibi_seg.features._check import check_backbone
    from napari_alibi_seg.features._classical import ClassicalFeatures
    from napari_alibi_seg.features._denoiser import (
        DenoisedBackbone,
        Denoiser,
        load_denoiser,
    )
    from napari_alibi_seg.features._device import (
        describe_devices,
        resolve_device,
        resolve_dtype,
    )
    from napari_alibi_seg.features._extract import ExtractedTile, iter_extract
    from napari_alibi_seg.features._files import (
        FileMetadata,
        read_checkpoint,
        save_backbone,
    )
    from napari_alibi_seg.features._hash import file_sha256
    from napari_alibi_seg.features._load import load_backbone, reload_backbone
    from napari_alibi_seg.features._registry import (
        DEFAULT_BACKBONE,
        IMAGENET_MEAN,
        IMAGENET_STD,
        BackboneSpec,
        backbone_spec,
        list_backbones,
    )
    from napari_alibi_seg.features._trainable import (
        TrainableViT,
        new_vit,
        trainable_copy,
    )
    from napari_alibi_seg.features._vit import ViTBackbone
    from napari_alibi_seg.features._weights import (
        cache_path,
        download_weights,
        find_weights,
    )

# Module of each public name; only those marked need torch.
_MODULES = {
    "BackboneSpec": "_registry",
    "ClassicalFeatures": "_classical",
    "DEFAULT_BACKBONE": "_registry",
    "DenoisedBackbone": "_denoiser",  # torch
    "Denoiser": "_denoiser",  # torch
    "ExtractedTile": "_extract",
    "FileMetadata": "_files",  # torch
    "IMAGENET_MEAN": "_registry",
    "IMAGENET_STD": "_registry",
    "TrainableViT": "_trainable",  # torch
    "ViTBackbone": "_vit",  # torch
    "backbone_spec": "_registry",
    "cache_path": "_weights",
    "check_backbone": "_check",  # torch
    "describe_devices": "_device",  # torch
    "download_weights": "_weights",
    "file_sha256": "_hash",
    "find_weights": "_weights",
    "iter_extract": "_extract",
    "list_backbones": "_registry",
    "load_backbone": "_load",  # torch
    "load_denoiser": "_denoiser",  # torch
    "new_vit": "_trainable",  # torch
    "read_checkpoint": "_files",  # torch
    "reload_backbone": "_load",  # torch
    "resolve_device": "_device",  # torch
    "resolve_dtype": "_device",  # torch
    "save_backbone": "_files",  # torch
    "trainable_copy": "_trainable",  # torch
}

__all__ = [
    "DEFAULT_BACKBONE",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Alibi",
    "BackboneSpec",
    "ClassicalFeatures",
    "DenoisedBackbone",
    "Denoiser",
    "ExtractedTile",
    "FileMetadata",
    "TrainableViT",
    "ViTBackbone",
    "backbone_spec",
    "cache_path",
    "check_backbone",
    "describe_devices",
    "download_weights",
    "file_sha256",
    "find_weights",
    "iter_extract",
    "list_backbones",
    "load_backbone",
    "load_denoiser",
    "new_vit",
    "read_checkpoint",
    "reload_backbone",
    "resolve_device",
    "resolve_dtype",
    "save_backbone",
    "trainable_copy",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
