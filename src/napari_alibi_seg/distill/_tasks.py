"""The updates of a run, in order: their stage, their crops, their kept targets.

Only this module knows how a stage's batch is shared out among devices and parts, and
which crops a run measures its targets on. What is done with a task is left to
`_update`, when to stop to `_run`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_alibi_seg.distill._crops import Batch, BatchPlan, iter_batches, make_batch
from napari_alibi_seg.distill._pool import Pool
from napari_alibi_seg.distill._settings import DistillSettings, Stage
from napari_alibi_seg.distill._targets import (
    KeptTargets,
    Preparation,
    measure_preparation,
)
from napari_alibi_seg.distill._teachers import Teacher

if TYPE_CHECKING:
    import torch

__all__ = ["Place", "Task", "Tasks", "moved"]

_MEASURED_CROPS = 96  # before the first step, for standardisation and blanking


@dataclass(frozen=True)
class Place:
    """Which of the processes of a run this is, and the folder they share."""

    rank: int
    world_size: int
    folder: Path


@dataclass(frozen=True)
class Task:
    """One update: where it stands in its stage, and its kept targets."""

    number: int
    stage: Stage
    start: int
    kept: KeptTargets | None


class Tasks:
    """What a run has to do, as a function of its settings and the step.

    Parameters
    ----------
    settings : DistillSettings
        What to do.
    pool : Pool
        Where crops come from.
    teacher : Teacher or None
        None: the student itself, whose targets are never kept.
    patch_size : int
        Of the student.
    place : Place
        Which part of every batch is made here.
    """

    def __init__(
        self,
        settings: DistillSettings,
        pool: Pool,
        teacher: Teacher | None,
        patch_size: int,
        place: Place,
    ) -> None:
        self._settings = settings
        self._pool = pool
        self._teacher = teacher
        self._patch_size = patch_size
        self._place = place
        self._n_parts = settings.accumulate * place.world_size

    def iter_from(self, step: int) -> Iterator[tuple[Task, list[Batch]]]:
        """Yield the updates from `step` on, with the parts of their batches."""
        n, start = self._settings.accumulate, 0
        for number, stage in enumerate(self._settings.stages):
            end = start + stage.steps
            if end > step:
                task = Task(number, stage, start, self._kept(stage))
                batches = iter_batches(
                    self._pool,
                    self._plan(stage),
                    max(step, start) * n,
                    end * n,
                    self._settings.workers,
                )
                for batch in batches:
                    rest = [next(batches) for _ in range(n - 1)]
                    yield task, [batch, *rest]
            start = end

    def measured(self, teacher: Teacher, device: torch.device) -> Preparation:
        """Measure the targets on crops that are the same on every device."""
        plan = self._plan(self._settings.stages[0])
        plan = replace(
            plan,
            data=plan.data.model_copy(update={"distinct_crops": None}),
            seed=plan.seed + 1,
            rank=0,
            batch=8,
        )
        batches = (
            moved(make_batch(self._pool, plan, i), device)
            for i in range(_MEASURED_CROPS // plan.batch)
        )
        side = plan.crop_px // plan.patch_size
        return measure_preparation(
            teacher, batches, (side, side), self._settings.losses
        )

    def _plan(self, stage: Stage) -> BatchPlan:
        patch = self._patch_size
        return BatchPlan(
            data=self._settings.data,
            seed=self._settings.seed,
            rank=self._place.rank,
            batch=stage.batch // self._n_parts,
            crop_px=stage.crop_px // patch * patch,
            patch_size=patch,
        )

    def _kept(self, stage: Stage) -> KeptTargets | None:
        """Open the kept targets of a stage, if its crops are few."""
        n = self._settings.data.distinct_crops
        if n is None or self._teacher is None:
            return None
        plan = self._plan(stage)
        # what the student alone sees does not change the targets
        data = plan.data.model_dump_json(exclude={"folders", "degrade", "max_noise"})
        decides = [
            *(self._teacher.identity, self._pool.fingerprint, data),
            *(plan.seed, plan.rank, plan.crop_px, plan.patch_size),
        ]
        side = plan.crop_px // plan.patch_size
        return KeptTargets(
            self._place.folder / "targets" / f"{plan.crop_px}px-{plan.rank}",
            json.dumps(decides),
            (n, self._teacher.n_channels, side, side),
        )


def moved(batch: Batch, device: torch.device) -> Batch:
    """Return a batch with its tensors on a device."""
    return Batch(
        step=batch.step,
        **{
            name: getattr(batch, name).to(device)
            for name in ("clean", "seen", "numbers", "labelled", "shares", "support")
        },
    )
