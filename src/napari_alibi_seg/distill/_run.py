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
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from napari_alibi_seg._base import OutputError, SettingsError
from napari_alibi_seg.distill._pool import Pool, open_pool
from napari_alibi_seg.distill._report import Metrics
from napari_alibi_seg.distill._result import probe_crops, write_result
from napari_alibi_seg.distill._schedule import learning_rate, parameter_groups
from napari_alibi_seg.distill._settings import DistillSettings
from napari_alibi_seg.distill._state import State, load_checkpoint, save_checkpoint
from napari_alibi_seg.distill._student import make_student
from napari_alibi_seg.distill._tasks import Place, Task, Tasks
from napari_alibi_seg.distill._teachers import Teacher, load_teacher
from napari_alibi_seg.distill._update import Updater
from napari_alibi_seg.features import TrainableViT, resolve_device

__all__ = ["DistillStep", "distill", "iter_distill"]

_CHECKPOINT = "checkpoint.pt"
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
    ...     student={"embed_dim": 16, "depth": 1, "num_heads": 1, "patch_size": 4},
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
        self._begin()

    # --------------------------------------------------------------------- beginning

    def _begin(self) -> None:
        """Make the student, or find it as it was left."""
        settings, fabric, teacher = self._settings, self._fabric, self._teacher
        student = make_student(settings, teacher)
        optimizer = torch.optim.AdamW(
            parameter_groups(student, settings.weight_decay),
            lr=settings.stages[0].lr,
            betas=(0.9, 0.98 if teacher is None else 0.999),
        )
        mirror: TrainableViT | None = None  # a self-teacher
        if teacher is None:
            mirror = copy.deepcopy(student.vit).to(fabric.device)
        place = Place(fabric.global_rank, fabric.world_size, self._out)
        patch_size = student.vit.patch_size
        self._tasks = Tasks(settings, self._pool, teacher, patch_size, place)
        state = self._state = State(*fabric.setup(student, optimizer))
        if settings.ema is not None:
            state.start_average()
        path = self._out / _CHECKPOINT
        if path.is_file():
            load_checkpoint(path, state, self._identity(), fabric)
        elif teacher is not None and settings.losses.wants_targets:
            state.preparation = self._tasks.measured(teacher, fabric.device)
        if mirror is not None:
            state.show_average(mirror)
        self._updater = Updater(settings, fabric, state, teacher, mirror)

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

    # ------------------------------------------------------------------------ the loop

    def steps(self, tensorboard: bool) -> Iterator[DistillStep]:
        state, total = self._state, self._settings.n_steps
        metrics = None
        if self._fabric.is_global_zero:
            metrics = Metrics(self._out, state.step, tensorboard=tensorboard)
        started, first, spent = time.monotonic(), state.step, state.seconds
        saved = started
        try:
            for task, parts in self._tasks.iter_from(state.step):
                losses = self._updater.step(task, parts)
                now = time.monotonic()
                state.seconds = spent + now - started
                rate = (state.step - first) / (now - started)
                self._report(metrics, task, losses, rate)
                state.is_whole = True
                if state.step < total and now - saved >= self._settings.checkpoint_s:
                    self._save()
                    saved = now
                left = (total - state.step) / rate
                if state.step < total:
                    yield DistillStep(state.step, total, losses, left)
        except (KeyboardInterrupt, GeneratorExit):
            # weights that are half updated, or a step without its row, are no state
            # to go on from
            if state.is_whole:
                self._save()
            raise
        finally:
            if metrics is not None:
                metrics.close()
        self._save()
        yield DistillStep(state.step, total, {}, 0.0, self._finish())

    def _report(
        self,
        metrics: Metrics | None,
        task: Task,
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
