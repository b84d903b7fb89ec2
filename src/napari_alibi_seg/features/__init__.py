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
    from napari_alibi_seg.features._cure_blank import positional_channels
    from napari_alibi_seg.features._cures import CuredBackbone, cure_backbone
    from napari_alibi_seg.features._denoiser import (
        DenoisedBackbone,
        Denoiser,
        load_denoiser,
        new_denoiser,
    )
    from napari_alibi_seg.features._device import (
        describe_devices,
        resolve_device,
        resolve_dtype,
    )
    from napari_alibi_seg.features._extract import (
        CPU_THREADS_PER_TILE,
        GPU_BATCH,
        ExtractedTile,
        iter_extract,
    )
    from napari_alibi_seg.features._field import (
        FIELD_PRESETS,
        FieldMaps,
        FieldSettings,
        FieldStep,
        field_bytes,
        fit_image,
        iter_fit_field,
        iter_fit_image,
    )
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
    from napari_alibi_seg.features._spec import (
        CURES,
        CureStep,
        cure_help,
        located_spec,
        spec_files,
        split_spec,
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
    "CPU_THREADS_PER_TILE": "_extract",
    "CURES": "_spec",
    "ClassicalFeatures": "_classical",
    "CureStep": "_spec",
    "CuredBackbone": "_cures",  # torch
    "DEFAULT_BACKBONE": "_registry",
    "DenoisedBackbone": "_denoiser",  # torch
    "Denoiser": "_denoiser",  # torch
    "ExtractedTile": "_extract",
    "FIELD_PRESETS": "_field",  # torch
    "FieldMaps": "_field",  # torch
    "FieldSettings": "_field",  # torch
    "FieldStep": "_field",  # torch
    "FileMetadata": "_files",  # torch
    "GPU_BATCH": "_extract",
    "IMAGENET_MEAN": "_registry",
    "IMAGENET_STD": "_registry",
    "TrainableViT": "_trainable",  # torch
    "ViTBackbone": "_vit",  # torch
    "backbone_spec": "_registry",
    "cache_path": "_weights",
    "check_backbone": "_check",  # torch
    "cure_backbone": "_cures",  # torch
    "cure_help": "_spec",
    "describe_devices": "_device",  # torch
    "download_weights": "_weights",
    "field_bytes": "_field",  # torch
    "file_sha256": "_hash",
    "find_weights": "_weights",
    "fit_image": "_field",  # torch
    "iter_extract": "_extract",
    "iter_fit_field": "_field",  # torch
    "iter_fit_image": "_field",  # torch
    "list_backbones": "_registry",
    "load_backbone": "_load",  # torch
    "load_denoiser": "_denoiser",  # torch
    "located_spec": "_spec",
    "new_denoiser": "_denoiser",  # torch
    "new_vit": "_trainable",  # torch
    "positional_channels": "_cure_blank",  # torch
    "read_checkpoint": "_files",  # torch
    "reload_backbone": "_load",  # torch
    "resolve_device": "_device",  # torch
    "resolve_dtype": "_device",  # torch
    "save_backbone": "_files",  # torch
    "spec_files": "_spec",
    "split_spec": "_spec",
    "trainable_copy": "_trainable",  # torch
}

__all__ = [
    "CPU_THREADS_PER_TILE",
    "CURES",
    "DEFAULT_BACKBONE",
    "FIELD_PRESETS",
    "GPU_BATCH",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Alibi",
    "BackboneSpec",
    "ClassicalFeatures",
    "CureStep",
    "CuredBackbone",
    "DenoisedBackbone",
    "Denoiser",
    "ExtractedTile",
    "FieldMaps",
    "FieldSettings",
    "FieldStep",
    "FileMetadata",
    "TrainableViT",
    "ViTBackbone",
    "backbone_spec",
    "cache_path",
    "check_backbone",
    "cure_backbone",
    "cure_help",
    "describe_devices",
    "download_weights",
    "field_bytes",
    "file_sha256",
    "find_weights",
    "fit_image",
    "iter_extract",
    "iter_fit_field",
    "iter_fit_image",
    "list_backbones",
    "load_backbone",
    "load_denoiser",
    "located_spec",
    "new_denoiser",
    "new_vit",
    "positional_channels",
    "read_checkpoint",
    "reload_backbone",
    "resolve_device",
    "resolve_dtype",
    "save_backbone",
    "spec_files",
    "split_spec",
    "trainable_copy",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
