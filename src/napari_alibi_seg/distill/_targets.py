"""What the student is compared with: prepared targets, computed or kept.

Only this module knows blanking, standardisation and the file of kept targets. What is
measured on the first crops (mean, deviation, positional channels) is part of the
checkpoint, so that a resumed training aims at exactly the same.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_alibi_seg._base import SettingsError
from napari_alibi_seg.analysis import transfer_probe
from napari_alibi_seg.distill._crops import Batch
from napari_alibi_seg.distill._settings import LossSettings
from napari_alibi_seg.distill._teachers import Teacher

__all__ = ["KeptTargets", "Preparation", "measure_preparation"]

_logger = logging.getLogger(__name__)


class Preparation:
    """Standardise targets and set positional channels to 0.

    Parameters
    ----------
    mean, std : (C,) float32
        Subtracted and divided by.
    blank : tuple of int
        Channels that are set to 0.
    """

    def __init__(self, mean: Tensor, std: Tensor, blank: tuple[int, ...]) -> None:
        self.mean, self.std, self.blank = mean, std, blank

    def __call__(self, targets: Tensor) -> Tensor:
        """Prepare (B, C, h, w) targets."""
        shape = (1, -1, 1, 1)
        mean, std = (v.to(targets.device).reshape(shape) for v in (self.mean, self.std))
        out = (targets - mean) / std
        out[:, list(self.blank)] = 0
        return out

    def to_dict(self) -> dict[str, Any]:
        """Return tensors and plain values."""
        return {"mean": self.mean, "std": self.std, "blank": list(self.blank)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preparation:
        """Return what `to_dict` described."""
        return cls(values["mean"], values["std"], tuple(values["blank"]))


def measure_preparation(
    teacher: Teacher,
    batches: Iterable[Batch],
    grid: tuple[int, int],
    wish: LossSettings,
) -> Preparation:
    """Measure what the settings leave to measurement, on the crops of `batches`.

    Raises
    ------
    SettingsError
        If a channel to be blanked does not exist.
    """
    c = teacher.n_channels
    if wish.blank != "auto" and not all(0 <= i < c for i in wish.blank):
        raise SettingsError(
            f"`losses.blank` must name channels of the teacher, 0 to {c - 1}, got "
            f"{wish.blank}."
        )
    if not wish.standardise and wish.blank != "auto":
        return Preparation(torch.zeros(c), torch.ones(c), tuple(wish.blank))
    maps = torch.cat([teacher.targets(b.clean, grid).cpu() for b in batches])
    mean, std = torch.zeros(c), torch.ones(c)
    if wish.standardise:
        mean = maps.mean(dim=(0, 2, 3))
        std = maps.std(dim=(0, 2, 3)).clamp_min(1e-6)
    if wish.blank == "auto":
        alone = transfer_probe([*maps.permute(0, 2, 3, 1).numpy()]).r2_per_channel
        blank = tuple(int(i) for i in np.flatnonzero(alone > wish.blank_above))
        _logger.info("Positional target channels, set to 0: %s", blank or "none")
    else:
        blank = tuple(wish.blank)
    return Preparation(mean, std, blank)


class KeptTargets:
    """Targets of the distinct crops, on disk in half precision, filled as they come.

    Parameters
    ----------
    folder : Path
        Where the files lie.
    identity : str
        Of teacher and crops; kept targets of another are thrown away.
    shape : (N, C, h, w)
        Of all targets.
    """

    def __init__(
        self, folder: Path, identity: str, shape: tuple[int, int, int, int]
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        wish = json.dumps([identity, shape])
        label, values, there = (
            folder / name for name in ("of.json", "targets.npy", "there.npy")
        )
        is_same = label.is_file() and label.read_text() == wish
        mode: Any = "r+" if is_same and values.is_file() and there.is_file() else "w+"
        open_memmap = np.lib.format.open_memmap
        self._values = open_memmap(values, mode, np.float16, shape)
        self._there = open_memmap(there, mode, np.bool_, shape[:1])
        label.write_text(wish)

    def targets(self, teacher: Teacher, batch: Batch, grid: tuple[int, int]) -> Tensor:
        """Return the targets of a batch, computing those that are not there.

        First use and later ones give the same half-precision values.
        """
        numbers = batch.numbers.cpu().numpy()
        absent = np.flatnonzero(~self._there[numbers])
        if len(absent):
            new = teacher.targets(batch.clean[absent], grid).cpu().numpy()
            self._values[numbers[absent]] = new.astype(np.float16)
            # the mark comes last: a kill between the two computes again
            self._there[numbers[absent]] = True
        kept = np.asarray(self._values[numbers], np.float32)
        return torch.from_numpy(kept).to(batch.clean.device)
