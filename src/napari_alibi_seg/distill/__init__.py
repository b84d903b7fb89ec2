"""Distillation: the retrofit of position-unbiased attention, and small students.

The settings can be read without torch; `distill` and `iter_distill` need it and the
extra `distill` (Lightning Fabric).
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
    from napari_alibi_seg.distill._pool import Pool, open_pool
    from napari_alibi_seg.distill._run import DistillStep, distill, iter_distill

_MODULES = {
    "DistillStep": "_run",
    "Pool": "_pool",
    "distill": "_run",
    "iter_distill": "_run",
    "open_pool": "_pool",
}

__all__ = [
    "PRESETS",
    "DataSettings",
    "DistillSettings",
    "DistillStep",
    "LossSettings",
    "Pool",
    "Stage",
    "StudentSettings",
    "TeacherSettings",
    "distill",
    "iter_distill",
    "load_settings",
    "open_pool",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
