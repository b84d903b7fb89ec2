"""One update of a student: its losses on the parts of a batch, and the step they make.

Only this module knows how targets, rolls, turns and hidden patches are put before the
student, and what follows a step of the optimiser. Which crops come when is left to
`_tasks`, files and progress to `_run`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_alibi_seg._base import ComputeError
from napari_alibi_seg.distill._result import normalised
from napari_alibi_seg.distill._schedule import learning_rate
from napari_alibi_seg.distill._student import Symmetry, hidden_patches
from napari_alibi_seg.distill._tasks import moved

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from torch import Tensor

    from napari_alibi_seg.distill._crops import Batch
    from napari_alibi_seg.distill._settings import DistillSettings
    from napari_alibi_seg.distill._state import State
    from napari_alibi_seg.distill._targets import KeptTargets
    from napari_alibi_seg.distill._tasks import Task
    from napari_alibi_seg.distill._teachers import Teacher
    from napari_alibi_seg.features import TrainableViT

__all__ = ["Updater"]


class Updater:
    """Takes steps of the optimiser.

    Parameters
    ----------
    settings : DistillSettings
        What is minimised.
    fabric : Fabric
        Started.
    state : State
        Changed by every step; not whole until the caller says so.
    teacher : Teacher or None
        None: the student's own average.
    mirror : TrainableViT or None
        What holds that average, where there is no teacher.
    """

    def __init__(
        self,
        settings: DistillSettings,
        fabric: Fabric,
        state: State,
        teacher: Teacher | None,
        mirror: TrainableViT | None,
    ) -> None:
        self._settings = settings
        self._fabric = fabric
        self._state = state
        self._teacher = teacher
        self._mirror = mirror
        self._vit: TrainableViT = state.student.module.vit

    def step(self, task: Task, parts: list[Batch]) -> dict[str, float]:
        """Take one step of the optimiser and return the loss terms.

        Raises
        ------
        ComputeError
            If the loss is not finite; the state is as it was.
        """
        state, fabric = self._state, self._fabric
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate(task.stage, state.step - task.start)
        sums = self._gradients(parts, task.kept)
        if not math.isfinite(sums["loss"]):
            raise ComputeError(
                f"The loss is {sums['loss']} at step {state.step}. Lower the learning "
                "rate, or train with precision '32-true'."
            )
        if self._settings.clip is not None:
            fabric.clip_gradients(
                state.student,
                state.optimizer,
                max_norm=self._settings.clip,
                error_if_nonfinite=False,
            )
        state.is_whole = False
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        state.step += 1
        if self._settings.ema is not None:
            state.follow(self._settings.ema)
            if self._mirror is not None:
                state.show_average(self._mirror)
        return sums

    def _gradients(
        self, parts: list[Batch], kept: KeptTargets | None
    ) -> dict[str, float]:
        """Add up the gradients of all parts; return the means of the terms."""
        state, fabric = self._state, self._fabric
        sums: dict[str, float] = {}
        for i, part in enumerate(parts):
            is_early = i < len(parts) - 1
            with fabric.no_backward_sync(state.student, enabled=is_early):
                terms = self._losses(moved(part, fabric.device), i, kept)
                fabric.backward(terms["loss"] / len(parts))
            for key, value in terms.items():
                sums[key] = sums.get(key, 0.0) + float(value.detach()) / len(parts)
        return sums

    def _losses(
        self, batch: Batch, i: int, kept: KeptTargets | None
    ) -> dict[str, Tensor]:
        """Run the student on part `i` of a batch."""
        wish, patch = self._settings.losses, self._vit.patch_size
        rng = np.random.default_rng(
            [self._settings.seed, 3, self._fabric.global_rank, self._state.step, i]
        )
        grid = (batch.seen.shape[2] // patch, batch.seen.shape[3] // patch)
        targets = self._targets(batch, grid, kept) if wish.wants_targets else None
        seen, shares, support = batch.seen, batch.shares, batch.support
        if wish.roll:
            dy, dx = (int(rng.integers(n)) for n in grid)
            seen = seen.roll((dy * patch, dx * patch), dims=(2, 3))
            targets = None if targets is None else targets.roll((dy, dx), dims=(2, 3))
            shares = shares.roll((dy, dx), dims=(2, 3))
            support = rolled(support, grid, (dy, dx))
        symmetry = Symmetry()
        if wish.equivariance:
            turns, flip = int(rng.integers(4)), bool(rng.random() < 0.5)
            roll = (int(rng.integers(grid[0])), int(rng.integers(grid[1])))
            symmetry = Symmetry(turns, flip, roll)
        hidden = hidden_patches(rng, len(seen), grid, wish.hidden)
        terms: dict[str, Tensor] = self._state.student(
            normalised(seen, self._vit),
            targets,
            batch.labelled,
            shares,
            support,
            None if hidden is None else hidden.to(seen.device),
            symmetry,
        )
        return terms

    def _targets(
        self, batch: Batch, grid: tuple[int, int], kept: KeptTargets | None
    ) -> Tensor:
        if self._mirror is not None:
            with torch.no_grad(), self._fabric.autocast():
                own: Tensor = self._mirror(normalised(batch.clean, self._mirror))
                return own.float()
        assert self._teacher is not None
        assert self._state.preparation is not None
        raw = (
            self._teacher.targets(batch.clean, grid)
            if kept is None
            else kept.targets(self._teacher, batch, grid)
        )
        return self._state.preparation(raw)


def rolled(support: Tensor, grid: tuple[int, int], roll: tuple[int, int]) -> Tensor:
    """Return flat token indices after a roll of the grid; -1 stays -1."""
    h, w = grid
    y, x = support // w, support % w
    there = (y + roll[0]) % h * w + (x + roll[1]) % w
    return torch.where(support >= 0, there, support)
