"""Distillation: the retrofit of position-unbiased attention, and small students.

Also the training of DVT's denoiser. The settings of a distillation can be read without
torch; `distill` and `iter_distill` need it and the extra `distill` (Lightning Fabric),
the denoiser needs torch alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from napari_alibi_seg.distill._settings import (
    PRESETS,
    DataSettings,
    DistillSettings,
    LossSettings,
    Stage,
    StudentSettings,
    TeacherSettings,
    load_settings,
)

if TYPE_CHECKING:
    from napari_alibi_seg.distill._dvt_denoiser import (
        DenoiserSettings,
        DenoiserStep,
        iter_train_denoiser,
        train_denoiser,
    )
    from napari_alibi_seg.distill._pool import Pool, open_pool
    from napari_alibi_seg.distill._run import DistillStep, distill, iter_distill

_MODULES = {
    "DenoiserSettings": "_dvt_denoiser",
    "DenoiserStep": "_dvt_denoiser",
    "DistillStep": "_run",
    "Pool": "_pool",
    "distill": "_run",
    "iter_distill": "_run",
    "iter_train_denoiser": "_dvt_denoiser",
    "open_pool": "_pool",
    "train_denoiser": "_dvt_denoiser",
}

__all__ = [
    "PRESETS",
    "DataSettings",
    "DenoiserSettings",
    "DenoiserStep",
    "DistillSettings",
    "DistillStep",
    "LossSettings",
    "Pool",
    "Stage",
    "StudentSettings",
    "TeacherSettings",
    "distill",
    "iter_distill",
    "iter_train_denoiser",
    "load_settings",
    "open_pool",
    "train_denoiser",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
