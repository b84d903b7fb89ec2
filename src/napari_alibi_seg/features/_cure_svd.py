"""The cure that takes directions out of every token: those that a black image has.

Over an image without content, tokens differ by their place alone. Only this module
measures these differences and removes them.
"""

from __future__ import annotations

import threading

import torch
from torch import Tensor

from napari_alibi_seg._base import Backbone, SettingsError

__all__ = ["ProjectOut"]

# Below this share of a token's length differences over a blank image are rounding.
_ROUNDING = 1e-4


class ProjectOut:
    """Take out what differs from place to place where there is nothing to see."""

    def __init__(self, rank: int, grid: int, embed_dim: int) -> None:
        if not 1 <= rank < embed_dim:
            raise SettingsError(
                f"`+svd` takes a rank from 1 to {embed_dim - 1}, got {rank}."
            )
        self._rank, self._grid = rank, grid
        self._lock = threading.Lock()
        self._basis: Tensor | None = None
        self.record = {"kind": "svd", "rank": rank, "grid": grid}

    def __call__(self, inner: Backbone, images: Tensor) -> Tensor:
        basis = self._measured(inner)  # (C, r)
        features: Tensor = inner.patch_features(images)
        with torch.inference_mode():
            unit = torch.nn.functional.normalize(features, dim=1)
            inside = torch.einsum("cr,bchw->brhw", basis, unit)
            rest = unit - torch.einsum("cr,brhw->bchw", basis, inside)
            return torch.nn.functional.normalize(rest, dim=1)

    def _measured(self, inner: Backbone) -> Tensor:
        """Return the directions over a black image, computed once."""
        with self._lock:
            if self._basis is None:
                side = self._grid * inner.patch_size
                level = -torch.tensor(inner.mean) / torch.tensor(inner.std)
                blank = level.reshape(1, 3, 1, 1).expand(1, 3, side, side)
                with torch.inference_mode():
                    tokens = inner.patch_features(blank.contiguous())[0].flatten(1)
                    unit = torch.nn.functional.normalize(tokens, dim=0)  # (C, hw)
                    apart = unit - unit.mean(1, keepdim=True)
                    left, size, _ = torch.linalg.svd(apart, full_matrices=False)
                    # a backbone without position has nothing but rounding here
                    is_real = size > _ROUNDING * unit.shape[1] ** 0.5
                    n = min(self._rank, int(is_real.sum()))
                    self._basis = left[:, :n].contiguous()
            return self._basis
