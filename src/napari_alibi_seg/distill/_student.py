"""The student, its head, and what one step asks of them.

Only this module joins backbone, targets and losses. It is one `nn.Module`, so that
whatever runs the training (one device or many) sees one forward pass.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from napari_alibi_seg._base import SettingsError
from napari_alibi_seg.distill._losses import (
    FewShot,
    cosine_loss,
    huber_loss,
    self_targets,
)
from napari_alibi_seg.distill._settings import DistillSettings, LossSettings
from napari_alibi_seg.distill._teachers import Teacher, copyable_vit
from napari_alibi_seg.features import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    TrainableViT,
    load_backbone,
    new_vit,
    trainable_copy,
)

__all__ = ["Student", "Symmetry", "hidden_patches", "make_student"]


class Symmetry(NamedTuple):
    """A turn, a flip and a roll by whole patches; the torus of the wrapped ALiBi.

    Examples
    --------
    >>> x = torch.arange(2.0 * 16).reshape(1, 2, 4, 4)
    >>> g = Symmetry(turns=1, flip=True, roll=(1, 2))
    >>> torch.equal(g.undo(g.apply(x, 1), 1), x)
    True
    """

    turns: int = 0
    flip: bool = False
    roll: tuple[int, int] = (0, 0)

    def apply(self, maps: Tensor, scale: int) -> Tensor:
        """Move (B, C, H, W) maps of `scale` pixels to a token."""
        out = torch.rot90(maps, self.turns, dims=(2, 3))
        out = out.flip(3) if self.flip else out
        return out.roll((self.roll[0] * scale, self.roll[1] * scale), dims=(2, 3))

    def undo(self, maps: Tensor, scale: int) -> Tensor:
        """Return what `apply` was given."""
        out = maps.roll((-self.roll[0] * scale, -self.roll[1] * scale), dims=(2, 3))
        out = out.flip(3) if self.flip else out
        return torch.rot90(out, -self.turns, dims=(2, 3))


class Student(nn.Module):
    """A ViT with a head to its teacher's channels, and the losses.

    Parameters
    ----------
    vit : TrainableViT
        The backbone.
    n_channels : int
        Of the targets.
    losses : LossSettings
        Weights of the terms.
    head : bool
        Whether a linear layer stands between tokens and targets; it is dropped
        afterwards.
    is_self : bool
        Whether targets are tokens of the student's own moving average.
    """

    def __init__(
        self,
        vit: TrainableViT,
        n_channels: int,
        losses: LossSettings,
        *,
        head: bool,
        is_self: bool,
    ) -> None:
        super().__init__()
        if not head and n_channels != vit.embed_dim:
            raise SettingsError(
                f"The student has {vit.embed_dim} channels, its targets {n_channels}."
            )
        self.vit = vit
        self.head = nn.Conv2d(vit.embed_dim, n_channels, 1) if head else nn.Identity()
        self.few_shot = FewShot() if losses.few_shot > 0 else None
        self._losses = losses
        self._is_self = is_self

    def forward(
        self,
        images: Tensor,
        targets: Tensor | None,
        labelled: Tensor,
        shares: Tensor,
        support: Tensor,
        hidden: Tensor | None,
        symmetry: Symmetry,
    ) -> dict[str, Tensor]:
        """Return the loss terms, weighted, and their sum as "loss".

        Parameters
        ----------
        images : (B, 3, H, W)
            Normalised.
        targets : (B, C, h, w) or None
            For `images` before `symmetry` moves them. None: no term wants them.
        labelled, shares, support
            Of a `Batch`.
        hidden : (B, h, w) bool or None
            Patches to do without, before `symmetry` moves them.
        symmetry : Symmetry
            Applied to the images and undone on the tokens.
        """
        p, w = self.vit.patch_size, self._losses
        moved = symmetry.apply(images, p)
        # `hidden` is where losses look for it, so it moves with the images
        gone = None if hidden is None else symmetry.apply(hidden[:, None], 1)[:, 0]
        tokens = symmetry.undo(self.vit(moved, gone), 1)
        terms: dict[str, Tensor] = {}
        if targets is not None:
            prediction = self.head(tokens)
            if self._is_self:
                prediction, targets = self._of_self(prediction, targets, hidden)
            if w.cosine > 0:
                terms["cosine"] = w.cosine * cosine_loss(prediction, targets)
            if w.smooth_l1 > 0:
                terms["smooth_l1"] = w.smooth_l1 * huber_loss(prediction, targets)
        if self.few_shot is not None and len(shares):
            own = tokens[labelled]
            terms["few_shot"] = w.few_shot * self.few_shot(own, shares, support)
        if not terms:  # a batch without mosaics, and no other loss
            terms["nothing"] = 0 * tokens.sum()
        return {**terms, "loss": torch.stack([*terms.values()]).sum()}

    def _of_self(
        self, prediction: Tensor, targets: Tensor, hidden: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Compare hidden tokens only: the others are in plain sight."""
        targets = self_targets(targets)
        if hidden is None or not hidden.any():
            return prediction, targets
        return _at(prediction, hidden), _at(targets, hidden)


def _at(maps: Tensor, where: Tensor) -> Tensor:
    """Return (N, C, 1, 1): the tokens of (B, C, h, w) maps where (B, h, w) is true."""
    return maps.permute(0, 2, 3, 1)[where][:, :, None, None]


def make_student(settings: DistillSettings, teacher: Teacher | None) -> Student:
    """Return an untrained student: new, or its teacher without position."""
    shape, alibi = settings.student, settings.alibi
    if shape is None:
        assert teacher is not None
        assert alibi is not None
        backbone = copyable_vit(teacher)
        has_slopes = backbone.alibi is not None and backbone.alibi.slope == "learned"
        start = alibi
        if alibi.slope == "learned" and not has_slopes:  # there are none to load yet
            start = replace(alibi, slope="constant")
        retrofit = load_backbone(
            backbone.path or "",
            alibi=start,
            num_heads=backbone.num_heads,
            device="cpu",
        )
        vit = trainable_copy(retrofit, alibi)  # type: ignore[arg-type]
    else:
        vit = new_vit(
            embed_dim=shape.embed_dim,
            depth=shape.depth,
            num_heads=shape.num_heads,
            patch_size=shape.patch_size,
            registers=shape.registers,
            mlp_ratio=shape.mlp_ratio,
            alibi=alibi,
            table=shape.table,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            seed=settings.seed,
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed + 1)
        n_channels = vit.embed_dim if teacher is None else teacher.n_channels
        return Student(
            vit,
            n_channels,
            settings.losses,
            head=teacher is None or shape is not None,
            is_self=teacher is None,
        )


def hidden_patches(
    rng: np.random.Generator, n: int, grid: tuple[int, int], share: float
) -> Tensor | None:
    """Return (n, h, w) bool: blocks of patches that cover about `share` of each."""
    if share == 0:
        return None
    out = np.zeros((n, *grid), bool)
    for mask in out:
        while mask.mean() < share:
            size = rng.integers(1, np.maximum(2, np.array(grid) // 3) + 1)
            y, x = (int(rng.integers(g)) for g in grid)
            mask[y : y + size[0], x : x + size[1]] = True
    return torch.from_numpy(out)
