"""Trainings of a second: tiny students and teachers, and pictures for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_alibi_seg._base import Alibi, validated
from napari_alibi_seg.data import write_image
from napari_alibi_seg.distill import DataSettings, DistillSettings
from napari_alibi_seg.features import IMAGENET_MEAN, IMAGENET_STD, new_vit

PATCH = 4
STUDENT = {
    "embed_dim": 16,
    "depth": 1,
    "num_heads": 2,
    "patch_size": PATCH,
    "registers": 1,
    "mlp_ratio": 2.0,
}


def pictures(folder: Path, sizes=((40, 56), (64, 48)), seed=0) -> Path:
    """Write greyscale pictures of blobs and stripes."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for i, (h, w) in enumerate(sizes):
        y, x = np.indices((h, w))
        wave = np.sin((x + (i + 1) * y) / rng.uniform(1.5, 4))
        image = 120 + 60 * wave + rng.normal(0, 12, (h, w))
        write_image(folder / f"{i}.png", image.clip(0, 255).astype(np.uint8), axes="YX")
    return folder


def data_of(folder: Path, **changes: Any) -> DataSettings:
    """Return settings that take crops of a folder."""
    return validated(DataSettings, {"folders": [str(folder)], **changes})


def settings_of(folder: Path, teacher: str, **changes: Any) -> DistillSettings:
    """Return a toy distillation; `changes` replace whole sections."""
    values: dict[str, Any] = {
        "name": "toy",
        "teacher": {"name": teacher},
        "student": STUDENT,
        "data": {"folders": [str(folder)]},
        "stages": [stage()],
        "workers": 0,
        "checkpoint_s": 0,
        "log_every": 1,
    }
    return validated(DistillSettings, {**values, **changes})


def stage(**changes: Any) -> dict[str, Any]:
    """Return a stage of a few small steps."""
    return {"crop_px": 16, "steps": 4, "batch": 2, "lr": 1e-3, **changes}


def teacher_file(path: Path, *, alibi: Alibi | None = None, seed=1, **changes) -> Path:
    """Write a random ViT; with a position table if there is no ALiBi."""
    shape = {**STUDENT, "embed_dim": 24, "num_heads": 3, **changes}
    vit = new_vit(
        **shape,
        alibi=alibi,
        table=(4, 4) if alibi is None else None,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        seed=seed,
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    vit.save(path, name="teacher", licence=None, dtype=torch.float32)
    return path
