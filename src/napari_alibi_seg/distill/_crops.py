"""Batches of crops as a function of the step.

A batch is drawn from a generator seeded with (seed, device, step, crop) and so does
not depend on what came before: a killed training goes on with exactly the crops it
would have seen. Processes prepare batches ahead.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, one_hot
from torch.utils.data import DataLoader, Dataset

from napari_alibi_seg.distill._augment import degrade, take_crop, tone
from napari_alibi_seg.distill._mosaics import MAX_REGIONS, draw_mosaic
from napari_alibi_seg.distill._pool import Pool
from napari_alibi_seg.distill._settings import DataSettings

__all__ = ["Batch", "BatchPlan", "iter_batches"]

_SUPPORT = 12  # tokens of a region


@dataclass(frozen=True)
class Batch:
    """Crops of one step on one device.

    Attributes
    ----------
    step : int
        Which.
    clean, seen : (B, 3, H, W) float32
        For the teacher and for the student, about 0 to 1.
    numbers : (B,) int64
        Number of each crop among the distinct ones; -1 where every crop is new.
    labelled : (B,) bool
        Which are mosaics.
    shares : (M, K, h, w) float32
        Share of each region in each token of the M mosaics.
    support : (M, S) int64
        Flat indices of support tokens, -1 where there are fewer.
    """

    step: int
    clean: Tensor
    seen: Tensor
    numbers: Tensor
    labelled: Tensor
    shares: Tensor
    support: Tensor


@dataclass(frozen=True)
class BatchPlan:
    """What decides the crops of a stage on one device."""

    data: DataSettings
    seed: int
    rank: int
    batch: int
    crop_px: int
    patch_size: int


class _Steps(Dataset):
    def __init__(self, pool: Pool, plan: BatchPlan, first: int, last: int) -> None:
        self._pool, self._plan = pool, plan
        self._first, self._last = first, last

    def __len__(self) -> int:
        return self._last - self._first

    def __getitem__(self, index: int) -> Batch:
        return make_batch(self._pool, self._plan, self._first + index)


def iter_batches(
    pool: Pool, plan: BatchPlan, first: int, last: int, workers: int
) -> Iterator[Batch]:
    """Yield the batches of steps `first` to `last - 1`."""
    loader: Any = DataLoader(
        _Steps(pool, plan, first, last),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_one_thread,
        persistent_workers=False,
    )
    yield from loader


def _one_thread(_: int) -> None:
    # the training itself has the other cores
    torch.set_num_threads(1)


def make_batch(pool: Pool, plan: BatchPlan, step: int) -> Batch:
    """Return the batch of one step."""
    data = plan.data
    plain = data.folder_share + data.synthetic_share + data.packaged_share
    mosaic_chance = data.mosaic_share / (plain + data.mosaic_share)
    clean, seen, numbers, labelled, regions, supports = [], [], [], [], [], []
    for i in range(plan.batch):
        draw = np.random.default_rng([plan.seed, 1, plan.rank, step, i])
        number = -1
        if data.distinct_crops is None:
            rng = draw
        else:  # the crop is one of few; only its degradation is new
            number = int(draw.integers(data.distinct_crops))
            rng = np.random.default_rng([plan.seed, 2, plan.rank, plan.crop_px, number])
        mosaic = rng.random() < mosaic_chance
        if mosaic:
            made = draw_mosaic(pool, rng, plan.crop_px, data)
            image = made.image
            share = _shares(made.regions, plan.patch_size)
            regions.append(share)
            supports.append(_support(share, draw))
        else:
            image = take_crop(pool, rng, plan.crop_px, data)
        image = tone(image, rng, data)
        clean.append(image)
        seen.append(degrade(image, draw, data))
        numbers.append(number)
        labelled.append(mosaic)
    h = plan.crop_px // plan.patch_size
    return Batch(
        step=step,
        clean=torch.from_numpy(np.stack(clean)),
        seen=torch.from_numpy(np.stack(seen)),
        numbers=torch.tensor(numbers),
        labelled=torch.tensor(labelled),
        shares=torch.stack(regions) if regions else torch.zeros(0, MAX_REGIONS, h, h),
        support=torch.stack(supports)
        if supports
        else torch.zeros(0, _SUPPORT * MAX_REGIONS, dtype=torch.int64),
    )


def _shares(regions: np.ndarray, patch: int) -> Tensor:
    """Return the (K, h, w) share of each region in each token."""
    ids = torch.from_numpy(regions.astype(np.int64))
    return avg_pool2d(one_hot(ids, MAX_REGIONS).permute(2, 0, 1).float(), patch)


def _support(shares: Tensor, rng: np.random.Generator) -> Tensor:
    """Choose tokens as strokes do: some of every region, near one another."""
    k, h, w = shares.shape
    flat = shares.reshape(k, -1).numpy()
    yx = np.indices((h, w)).reshape(2, -1).T
    out = np.full((k, _SUPPORT), -1, np.int64)
    wanted = int(rng.integers(3, _SUPPORT + 1))
    for region in range(k):
        purity = flat[region]
        if purity.max() <= 0.2:
            continue
        pure = np.flatnonzero(purity >= min(0.8, 0.9 * purity.max()))
        strokes = yx[rng.choice(pure, int(rng.integers(1, 4)))]
        distance = np.abs(yx[pure][:, None] - strokes[None]).sum(-1).min(axis=1)
        order = np.argsort(distance + rng.uniform(0, 3, len(pure)), kind="stable")
        chosen = pure[order[:wanted]]
        out[region, : len(chosen)] = chosen
    return torch.from_numpy(out.reshape(-1))
