"""What a run measures of its student, and the files it ends with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from napari_alibi_seg.analysis import TransferResult, transfer_probe
from napari_alibi_seg.distill._crops import BatchPlan, make_batch
from napari_alibi_seg.distill._pool import Pool
from napari_alibi_seg.distill._report import write_card
from napari_alibi_seg.distill._settings import DistillSettings
from napari_alibi_seg.features import TrainableViT, file_sha256

__all__ = ["normalised", "probe_crops", "write_result"]

_PROBE_CROPS = 32
_PROBE_TOKENS = 37  # to a side


def normalised(images: torch.Tensor, vit: TrainableViT) -> torch.Tensor:
    """Return (B, 3, H, W) images in 0 to 1 as the ViT wants them."""
    shape = (1, 3, 1, 1)
    mean, std = (images.new_tensor(v).reshape(shape) for v in (vit.mean, vit.std))
    return (images - mean) / std


def probe_crops(
    vit: TrainableViT,
    pool: Pool,
    settings: DistillSettings,
    *,
    crop_px: int | None = None,
) -> TransferResult:
    """Return the transfer probe of a ViT on clean crops of the pool.

    Parameters
    ----------
    vit : TrainableViT
        In evaluation mode.
    pool : Pool
        Where the 32 crops come from, 8 of which are scored.
    settings : DistillSettings
        Its seed and zoom choose the crops.
    crop_px : int, optional
        Side of the crops. Default: 37 tokens.
    """
    patch = vit.patch_size
    side = _PROBE_TOKENS if crop_px is None else crop_px // patch
    changes = {"distinct_crops": None, "mosaic_share": 0.0, "degrade": 0.0}
    plan = BatchPlan(
        data=settings.data.model_copy(update=changes),
        seed=settings.seed + 2,
        rank=0,
        batch=1,
        crop_px=side * patch,
        patch_size=patch,
    )
    device = next(vit.parameters()).device
    maps = []
    with torch.no_grad():
        for i in range(_PROBE_CROPS):
            image = make_batch(pool, plan, i).clean.to(device)
            tokens = vit(normalised(image, vit))[0].float().cpu()
            maps.append(tokens.permute(1, 2, 0).numpy())
    return transfer_probe(maps, n_held_out=8)


def write_result(
    folder: Path,
    vit: TrainableViT,
    pool: Pool,
    settings: DistillSettings,
    facts: Mapping[str, Any],
) -> Path:
    """Write ``<name>.safetensors`` and its card, and return the former."""
    path = folder / f"{settings.name}.safetensors"
    vit.save(
        path,
        name=settings.name,
        licence=settings.licence,
        dtype=getattr(torch, settings.dtype),
    )
    own = {
        "parameters": sum(p.numel() for p in vit.model.parameters()),
        "bytes": path.stat().st_size,
        "sha256": file_sha256(path),
        "pictures": len(pool),
        "megapixels": round(pool.n_pixels / 1e6, 1),
        "crops seen": sum(s.steps * s.batch for s in settings.stages),
        "torch": torch.__version__,
    }
    write_card(path.with_suffix(".md"), settings, {**own, **facts})
    return path
