"""The training loop: from settings to a backbone file, step by step and resumable.

`iter_distill` is a generator of steps; progress, cancel and tests use this one path.
Device, precision and several GPUs are Lightning Fabric's; everything that decides the
result is a function of the settings and the step, so that a run killed at any moment
and started again ends with the same weights (on the same machine and versions).

Files of a run: ``checkpoint.pt`` (tensors and plain values only), ``metrics.csv``,
``<name>.safetensors`` and ``<name>.md`` at the end.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from napari_alibi_seg._base import ComputeError, OutputError, SettingsError
from napari_alibi_seg.distill._crops import Batch, BatchPlan, iter_batches, make_batch
from napari_alibi_seg.distill._pool import Pool, open_pool
from napari_alibi_seg.distill._report import Metrics
from napari_alibi_seg.distill._result import normalised, probe_crops, write_result
from napari_alibi_seg.distill._schedule import learning_rate, parameter_groups
from napari_alibi_seg.distill._settings import DistillSettings, Stage
from napari_alibi_seg.distill._state import State, load_checkpoint, save_checkpoint
from napari_alibi_seg.distill._student import Symmetry, hidden_patches, make_student
from napari_alibi_seg.distill._targets import (
    KeptTargets,
    Preparation,
    measure_preparation,
)
from napari_alibi_seg.distill._teachers import Teacher, load_teacher
from napari_alibi_seg.features import TrainableViT, resolve_device

__all__ = ["DistillStep", "distill", "iter_distill"]

_CHECKPOINT = "checkpoint.pt"
_MEASURED_CROPS = 96  # before the first step, for standardisation and blanking
_NEVER = 2**62
# Settings that may change between the parts of a run: they decide when and where, not
# what.
_FREE = {"workers", "checkpoint_s", "log_every", "probe_every", "dtype", "licence"}


@dataclass(frozen=True, slots=True)
class DistillStep:
    """Progress of a run.

    Attributes
    ----------
    done, total : int
        Steps.
    losses : dict of str to float
        Terms of this step.
    seconds_left : float
        At the speed of this part of the run.
    result : Path or None
        The backbone file, with the last step.
    """

    done: int
    total: int
    losses: dict[str, float]
    seconds_left: float
    result: Path | None = None


def distill(settings: DistillSettings, out: Path | str, **options: Any) -> Path:
    """Train a student and return its backbone file; see `iter_distill`.

    Examples
    --------
    >>> import tempfile
    >>> from napari_alibi_seg.distill import DistillSettings
    >>> settings = DistillSettings(
    ...     name="toy",
    ...     teacher={"name": "self"},
    ...     ema=0.9,
    ...     workers=0,
    ...     student={"embed_dim": 16, "depth": 1, "num_heads": 1, "patch_size": 8},
    ...     losses={"cosine": 0, "smooth_l1": 1, "hidden": 0.5},
    ...     stages=[{"crop_px": 32, "steps": 2, "batch": 2, "lr": 1e-3}],
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     distill(settings, folder, device="cpu").name
    'toy.safetensors'
    """
    result = None
    for step in iter_distill(settings, out, **options):
        result = step.result
    assert result is not None
    return result


def iter_distill(
    settings: DistillSettings,
    out: Path | str,
    *,
    device: str = "auto",
    devices: int = 1,
    tensorboard: bool = False,
) -> Iterator[DistillStep]:
    """Train a student, yielding every step.

    Parameters
    ----------
    settings : DistillSettings
        What to do.
    out : Path or str
        Folder of the run. A run that lies there and has the same settings goes on
        where it was; closing the generator or Ctrl-C writes a checkpoint.
    device : {"auto", "cpu", "cuda", "cuda:<n>", "mps"}
        Where to train.
    devices : int
        GPUs that share every batch.
    tensorboard : bool
        Also write TensorBoard events.

    Yields
    ------
    DistillStep
        The last one has `result`.

    Raises
    ------
    SettingsError
        If the settings do not fit one another, the data, the teacher or the run that
        lies in `out`.
    WeightsError
        If the teacher's weights are absent or do not fit.
    OutputError
        If `out` cannot be written, or its checkpoint is damaged.

    References
    ----------
    Pawlowsky et al. (2026), "What DINO saw", arXiv:2603.16840, for the retrofit.
    """
    yield from _Run(settings, Path(out), device, devices).steps(tensorboard)


@dataclass(frozen=True)
class _Task:
    """One update: where it stands in its stage, and its kept targets."""

    number: int
    stage: Stage
    start: int
    kept: KeptTargets | None


class _Run:
    """A run in its folder. Only `steps` changes it."""

    def __init__(
        self, settings: DistillSettings, out: Path, device: str, devices: int
    ) -> None:
        self._settings = settings
        self._out = out
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise OutputError(f"{str(out)!r} cannot be made: {err}.") from err
        self._fabric = _fabric(settings, device, devices)
        self._pool: Pool = open_pool(settings.data)
        self._teacher: Teacher | None = None
        if settings.teacher.name != "self":
            self._teacher = load_teacher(settings.teacher, self._fabric.device)
        self._mirror: TrainableViT | None = None  # a self-teacher
        self._is_between_steps = True
        self._state = self._begin()

    # --------------------------------------------------------------------- beginning

    def _begin(self) -> State:
        """Make the student, or find it as it was left."""
        settings, fabric = self._settings, self._fabric
        student = make_student(settings, self._teacher)
        self._vit = student.vit
        optimizer = torch.optim.AdamW(
            parameter_groups(student, settings.weight_decay),
            lr=settings.stages[0].lr,
            betas=(0.9, 0.98 if self._teacher is None else 0.999),
        )
        if self._teacher is None:
            self._mirror = copy.deepcopy(student.vit).to(fabric.device)
        state = State(*fabric.setup(student, optimizer))
        if settings.ema is not None:
            state.start_average()
        path = self._out / _CHECKPOINT
        if path.is_file():
            load_checkpoint(path, state, self._identity(), fabric)
        elif self._teacher is not None and self._wants_targets:
            state.preparation = self._measured(self._teacher)
        if self._mirror is not None:
            state.show_average(self._mirror)
        return state

    def _identity(self) -> dict[str, str]:
        """Return what a checkpoint must agree with."""
        settings = json.loads(self._settings.model_dump_json(exclude=_FREE))
        # where the files lie does not matter; what they hold does
        settings["data"].pop("folders")
        settings["teacher"].pop("weights")
        if self._settings.teacher.is_file:
            settings["teacher"].pop("name")
        return {
            "settings": json.dumps(settings, sort_keys=True),
            "pictures": self._pool.fingerprint,
            "teacher": "self" if self._teacher is None else self._teacher.identity,
            "devices": str(self._fabric.world_size),
        }

    @property
    def _wants_targets(self) -> bool:
        return self._settings.losses.cosine > 0 or self._settings.losses.smooth_l1 > 0

    def _measured(self, teacher: Teacher) -> Preparation:
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
            _moved(make_batch(self._pool, plan, i), self._fabric.device)
            for i in range(_MEASURED_CROPS // plan.batch)
        )
        side = plan.crop_px // plan.patch_size
        return measure_preparation(
            teacher, batches, (side, side), self._settings.losses
        )

    # ------------------------------------------------------------------------ the loop

    def steps(self, tensorboard: bool) -> Iterator[DistillStep]:
        state, total = self._state, self._settings.n_steps
        metrics = None
        if self._fabric.is_global_zero:
            metrics = Metrics(self._out, state.step, tensorboard=tensorboard)
        started, first, spent = time.monotonic(), state.step, state.seconds
        saved = started
        try:
            for task, parts in self._tasks():
                losses = self._update(task, parts)
                now = time.monotonic()
                state.seconds = spent + now - started
                rate = (state.step - first) / (now - started)
                self._report(metrics, task, losses, rate)
                self._is_between_steps = True
                if state.step < total and now - saved >= self._settings.checkpoint_s:
                    self._save()
                    saved = now
                left = (total - state.step) / rate
                if state.step < total:
                    yield DistillStep(state.step, total, losses, left)
        except (KeyboardInterrupt, GeneratorExit):
            # weights that are half updated, or a step without its row, are no state
            # to go on from
            if self._is_between_steps:
                self._save()
            raise
        finally:
            if metrics is not None:
                metrics.close()
        self._save()
        yield DistillStep(state.step, total, {}, 0.0, self._finish())

    def _tasks(self) -> Iterator[tuple[_Task, list[Batch]]]:
        """Yield the updates that are still to do, with the parts of their batches."""
        n, start = self._settings.accumulate, 0
        for number, stage in enumerate(self._settings.stages):
            end = start + stage.steps
            if end > self._state.step:
                task = _Task(number, stage, start, self._kept(stage))
                first = max(self._state.step, start)
                batches = iter_batches(
                    self._pool,
                    self._plan(stage),
                    first * n,
                    end * n,
                    self._settings.workers,
                )
                for batch in batches:
                    rest = [next(batches) for _ in range(n - 1)]
                    yield task, [batch, *rest]
            start = end

    def _plan(self, stage: Stage) -> BatchPlan:
        patch = self._vit.patch_size
        parts = self._settings.accumulate * self._fabric.world_size
        return BatchPlan(
            data=self._settings.data,
            seed=self._settings.seed,
            rank=self._fabric.global_rank,
            batch=stage.batch // parts,
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
            self._out / "targets" / f"{plan.crop_px}px-{plan.rank}",
            json.dumps(decides),
            (n, self._teacher.n_channels, side, side),
        )

    def _report(
        self,
        metrics: Metrics | None,
        task: _Task,
        losses: dict[str, float],
        rate: float,
    ) -> None:
        """Write a row of the metrics and probe, each when it is time."""
        settings, state = self._settings, self._state
        is_last = state.step == settings.n_steps
        is_probed = is_last or state.step % (settings.probe_every or _NEVER) == 0
        if is_probed:
            result = probe_crops(state.result(), self._pool, settings)
            state.probe = {
                "transfer_r2": result.r2,
                "max_channel_r2": float(result.r2_per_channel.max()),
            }
        if metrics is not None and (is_probed or state.step % settings.log_every == 0):
            metrics.add(
                {
                    "step": state.step,
                    "stage": task.number,
                    **losses,
                    "lr": learning_rate(task.stage, state.step - task.start - 1),
                    "crops_per_s": rate * task.stage.batch,
                    **(state.probe if is_probed else {}),
                    "seconds": state.seconds,
                }
            )

    def _save(self) -> None:
        path = self._out / _CHECKPOINT
        save_checkpoint(path, self._state, self._identity(), self._fabric)

    def _finish(self) -> Path:
        fabric, settings = self._fabric, self._settings
        if fabric.is_global_zero:
            facts = {
                "seconds": round(self._state.seconds),
                "device": f"{fabric.world_size} x {fabric.device.type}",
                **{k: round(v, 4) for k, v in self._state.probe.items()},
            }
            vit = self._state.result().cpu()
            write_result(self._out, vit, self._pool, settings, facts)
        fabric.barrier()
        return self._out / f"{settings.name}.safetensors"

    # ---------------------------------------------------------------------- one update

    def _update(self, task: _Task, parts: list[Batch]) -> dict[str, float]:
        """Take one step of the optimiser and return the loss terms."""
        state, fabric = self._state, self._fabric
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate(task.stage, state.step - task.start)
        sums: dict[str, float] = {}
        for i, part in enumerate(parts):
            is_early = i < len(parts) - 1
            with fabric.no_backward_sync(state.student, enabled=is_early):
                terms = self._losses(_moved(part, fabric.device), i, task.kept)
                fabric.backward(terms["loss"] / len(parts))
            for key, value in terms.items():
                sums[key] = sums.get(key, 0.0) + float(value.detach()) / len(parts)
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
        self._is_between_steps = False
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        state.step += 1
        if self._settings.ema is not None:
            state.follow(self._settings.ema)
            if self._mirror is not None:
                state.show_average(self._mirror)
        return sums

    def _losses(self, batch: Batch, i: int, kept: KeptTargets | None) -> Any:
        """Run the student on part `i` of a batch."""
        wish, patch = self._settings.losses, self._vit.patch_size
        rng = np.random.default_rng(
            [self._settings.seed, 3, self._fabric.global_rank, self._state.step, i]
        )
        grid = (batch.seen.shape[2] // patch, batch.seen.shape[3] // patch)
        targets = self._targets(batch, grid, kept) if self._wants_targets else None
        seen, shares, support = batch.seen, batch.shares, batch.support
        if wish.roll:
            dy, dx = (int(rng.integers(n)) for n in grid)
            seen = seen.roll((dy * patch, dx * patch), dims=(2, 3))
            targets = None if targets is None else targets.roll((dy, dx), dims=(2, 3))
            shares = shares.roll((dy, dx), dims=(2, 3))
            support = _rolled(support, grid, (dy, dx))
        symmetry = Symmetry()
        if wish.equivariance:
            turns, flip = int(rng.integers(4)), bool(rng.random() < 0.5)
            roll = (int(rng.integers(grid[0])), int(rng.integers(grid[1])))
            symmetry = Symmetry(turns, flip, roll)
        hidden = hidden_patches(rng, len(seen), grid, wish.hidden)
        return self._state.student(
            normalised(seen, self._vit),
            targets,
            batch.labelled,
            shares,
            support,
            None if hidden is None else hidden.to(seen.device),
            symmetry,
        )

    def _targets(
        self, batch: Batch, grid: tuple[int, int], kept: KeptTargets | None
    ) -> Tensor:
        if self._mirror is not None:
            with torch.no_grad(), self._fabric.autocast():
                return self._mirror(normalised(batch.clean, self._mirror)).float()
        assert self._teacher is not None
        assert self._state.preparation is not None
        raw = (
            self._teacher.targets(batch.clean, grid)
            if kept is None
            else kept.targets(self._teacher, batch, grid)
        )
        return self._state.preparation(raw)


def _fabric(settings: DistillSettings, device: str, devices: int) -> Fabric:
    """Return Fabric, started, with batches that it can share out."""
    where = resolve_device(device)
    fabric = Fabric(
        accelerator=where.type,
        devices=devices if where.index is None else [where.index],
        precision=settings.precision,
    )
    fabric.launch()
    parts = settings.accumulate * fabric.world_size
    for stage in settings.stages:
        if stage.batch % parts:
            raise SettingsError(
                f"`batch` must be a multiple of `accumulate` times devices, "
                f"{settings.accumulate} x {fabric.world_size}, got {stage.batch}."
            )
    return fabric


def _moved(batch: Batch, device: torch.device) -> Batch:
    return Batch(
        step=batch.step,
        **{
            name: getattr(batch, name).to(device)
            for name in ("clean", "seen", "numbers", "labelled", "shares", "support")
        },
    )


def _rolled(support: Tensor, grid: tuple[int, int], roll: tuple[int, int]) -> Tensor:
    """Return flat token indices after a roll of the grid."""
    h, w = grid
    y, x = support // w, support % w
    moved = (y + roll[0]) % h * w + (x + roll[1]) % w
    return torch.where(support >= 0, moved, support)
