"""Learning rate and weight decay, as functions of the step and of a tensor's name."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from napari_alibi_seg.distill._settings import Stage

if TYPE_CHECKING:
    from torch import nn

__all__ = ["learning_rate", "parameter_groups"]

# Tables and tokens are no maps: pulling them to 0 has no meaning.
_NO_DECAY = ("mask_token", "pos_embed", "cls_token", "reg_token")
_LAST_SHARE = 0.01


def learning_rate(stage: Stage, step: int) -> float:
    """Return the learning rate of a step counted from the start of its stage.

    Examples
    --------
    >>> stage = Stage(crop_px=224, steps=10, batch=1, lr=1.0, warmup_steps=2)
    >>> [round(learning_rate(stage, i), 2) for i in (0, 1, 2, 6, 9)]
    [0.5, 1.0, 1.0, 0.51, 0.05]
    """
    if step < stage.warmup_steps:
        return stage.lr * (step + 1) / stage.warmup_steps
    if stage.schedule == "constant":
        return stage.lr
    part = (step - stage.warmup_steps) / max(1, stage.steps - stage.warmup_steps)
    fall = 0.5 * (1 + math.cos(math.pi * part))
    return stage.lr * (_LAST_SHARE + (1 - _LAST_SHARE) * fall)


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return an optimiser's groups: only the matrices of layers decay."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        is_map = parameter.ndim >= 2 and not name.endswith(_NO_DECAY)
        (decayed if is_map and "slopes" not in name else free).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
