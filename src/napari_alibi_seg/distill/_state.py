"""The state of a run between two steps: weights, their average, and the checkpoint.

Only this module writes and reads ``checkpoint.pt``, which holds tensors and plain
values and is never unpickled.
"""

from __future__ import annotations

import copy
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from napari_alibi_seg._base import OutputError, SettingsError, WeightsError
from napari_alibi_seg.distill._targets import Preparation
from napari_alibi_seg.features import TrainableViT, read_checkpoint

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["State", "load_checkpoint", "save_checkpoint"]

_logger = logging.getLogger(__name__)

_FORMAT = 1
_VIT = "vit."
_KEYS = {
    *("format", "identity", "step", "seconds", "student", "optimizer", "average"),
    *("preparation", "precision"),
}


@dataclass
class State:
    """Everything a checkpoint holds.

    Attributes
    ----------
    student, optimizer
        As Fabric set them up.
    average : dict of str to Tensor or None
        Moving average of the student's floating tensors.
    preparation : Preparation or None
        What was measured for the targets.
    step : int
        Steps done.
    seconds : float
        Spent on them.
    probe : dict of str to float
        The last transfer probe.
    is_whole : bool
        Not in a checkpoint: False from the first change of a step until its row is
        written. Such a state is none to go on from.
    """

    student: Any
    optimizer: Any
    average: dict[str, Tensor] | None = None
    preparation: Preparation | None = None
    step: int = 0
    seconds: float = 0.0
    probe: dict[str, float] = field(default_factory=dict)
    is_whole: bool = True

    def start_average(self) -> None:
        """Let the average begin at the weights of now."""
        self.average = {k: v.float().clone() for k, v in self._floating().items()}

    def follow(self, decay: float) -> None:
        """Move the average, if there is one, towards the weights."""
        if self.average is None:
            return
        # a short memory at first, or the average would hold the random start
        keep = min(decay, (1 + self.step) / (10 + self.step))
        for key, value in self._floating().items():
            self.average[key].lerp_(value.float(), 1 - keep)

    def _floating(self) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = self.student.module.state_dict()
        return {k: v.detach() for k, v in tensors.items() if v.is_floating_point()}

    def show_average(self, vit: nn.Module) -> None:
        """Give `vit` the averaged weights, if there is an average."""
        if self.average is not None:
            own = {
                k.removeprefix(_VIT): v
                for k, v in self.average.items()
                if k.startswith(_VIT)
            }
            vit.load_state_dict(own)

    def result(self) -> TrainableViT:
        """Return a copy of the backbone that the run stands for."""
        vit: TrainableViT = copy.deepcopy(self.student.module.vit)
        self.show_average(vit)
        return vit.eval()


def save_checkpoint(
    path: Path, state: State, identity: dict[str, str], fabric: Any
) -> None:
    """Write the state; the old checkpoint stays until the new one is complete.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    new = path.with_suffix(".new")
    contents = {
        "format": _FORMAT,
        "identity": identity,
        "step": state.step,
        "seconds": state.seconds,
        "probe": state.probe,
        "student": state.student.module.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "average": state.average,
        "preparation": state.preparation and state.preparation.to_dict(),
        "precision": fabric.strategy.precision.state_dict(),
    }
    if fabric.is_global_zero:
        try:
            # Fabric's own writing goes through the system's folder for temporary
            # files, which may be small, and remembers the umask of its first file
            torch.save(contents, new)
            new.replace(path)
        except (OSError, RuntimeError) as err:  # torch wraps a full disk
            new.unlink(missing_ok=True)
            raise OutputError(f"{str(path)!r} cannot be written: {err}.") from err
    fabric.barrier()


def load_checkpoint(
    path: Path, state: State, identity: dict[str, str], fabric: Any
) -> None:
    """Put a state back as it was saved.

    Raises
    ------
    OutputError
        If the file is damaged.
    SettingsError
        If it belongs to another run; the message names what differs.
    """
    contents = _read(path)
    for key, wanted in identity.items():
        stored = contents["identity"].get(key)
        if stored != wanted:
            raise SettingsError(
                f"The run in {str(path.parent)!r} was started with other {key}"
                f"{_difference(stored, wanted)}. Go on with those, or choose another "
                "folder."
            )
    state.student.module.load_state_dict(contents["student"])
    state.optimizer.load_state_dict(contents["optimizer"])
    if contents["average"] is not None and state.average is not None:
        for key, value in contents["average"].items():
            state.average[key].copy_(value)
    if contents["preparation"] is not None:
        state.preparation = Preparation.from_dict(contents["preparation"])
    fabric.strategy.precision.load_state_dict(contents["precision"])
    state.step, state.seconds = int(contents["step"]), float(contents["seconds"])
    state.probe = dict(contents.get("probe", {}))
    _logger.info("Going on at step %d of %s", state.step, path.parent)


def _read(path: Path) -> dict[str, Any]:
    hint = "Move it away to start anew."
    try:
        path.open("rb").close()
    except OSError as err:
        raise OutputError(
            f"The checkpoint {str(path)!r} cannot be opened: {err.strerror or err}. "
            "Check the rights of the file."
        ) from err
    try:
        contents, _ = read_checkpoint(path)
    except WeightsError as err:
        raise OutputError(
            f"The checkpoint {str(path)!r} is damaged, or another kind of file. {hint}"
        ) from err
    found = contents.get("format")
    if found is not None and found != _FORMAT:
        raise OutputError(
            f"The checkpoint {str(path)!r} has format {found}, this version reads "
            f"{_FORMAT}. {hint}"
        )
    missing = sorted(_KEYS - contents.keys())
    if missing:
        raise OutputError(
            f"{str(path)!r} is not the checkpoint of a run: expected "
            f"{', '.join(missing)} in it, got {len(contents)} other entries. {hint}"
        )
    return dict(contents)


def _difference(stored: Any, wanted: str) -> str:
    """Return the first setting that differs, for a message."""
    try:
        then, now = json.loads(stored), json.loads(wanted)
    except (TypeError, ValueError):
        return ""
    for key in now:
        if then.get(key) != now[key]:
            return f" ({key}: {then.get(key)!r} then, {now[key]!r} now)"
    return ""
