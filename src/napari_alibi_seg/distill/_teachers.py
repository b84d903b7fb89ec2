"""Teachers: whatever gives a map of features for every token of the student.

Only this module knows how a teacher's maps become targets: a ViT's patch tokens as
they are or resampled, a CNN's levels pooled to the token grid. Teachers are frozen
and see the clean crop.
"""

from __future__ import annotations

import hashlib
from typing import Any, Protocol

import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from napari_alibi_seg._base import SettingsError, WeightsError
from napari_alibi_seg.distill._settings import TeacherSettings
from napari_alibi_seg.features import ViTBackbone, load_backbone, read_checkpoint

__all__ = ["Teacher", "copyable_vit", "load_teacher"]

_TIMM = "timm:"


class Teacher(Protocol):
    """What a training needs of a teacher.

    Attributes
    ----------
    n_channels : int
        Of its targets.
    identity : str
        Changes with its weights and settings.
    """

    n_channels: int
    identity: str

    def targets(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return (B, C, *grid) float32 features of (B, 3, H, W) images in 0 to 1."""

    def to(self, device: torch.device) -> None:
        """Move to a device."""


def _normalised(images: Tensor, mean: Any, std: Any) -> Tensor:
    shape = (1, 3, 1, 1)
    return (images - images.new_tensor(mean).reshape(shape)) / images.new_tensor(
        std
    ).reshape(shape)


class ViTTeacher:
    """The patch tokens of a loaded backbone."""

    def __init__(self, backbone: Any) -> None:
        self.backbone = backbone
        self.n_channels = backbone.embed_dim
        self.identity = f"{backbone.identity}"

    def to(self, device: torch.device) -> None:
        """Refuse to move: a backbone stays where it was loaded."""
        if self.backbone.device.type != device.type:
            raise SettingsError(
                f"The teacher is on {self.backbone.device}, the training on {device}."
            )

    def targets(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return the tokens; on a grid of another patch size, resampled."""
        p = self.backbone.patch_size
        own = tuple(max(1, round(n / p)) for n in images.shape[2:])
        size = (own[0] * p, own[1] * p)
        if size != tuple(images.shape[2:]):
            images = interpolate(images, size, mode="bilinear", align_corners=False)
        batch = _normalised(images, self.backbone.mean, self.backbone.std)
        tokens = self.backbone.patch_features(batch).clone()
        if tokens.shape[2:] != grid:
            tokens = interpolate(tokens, grid, mode="bilinear", align_corners=False)
        return tokens


class CNNTeacher:
    """Feature levels of a timm model, pooled to the token grid."""

    def __init__(
        self, model: nn.Module, settings: TeacherSettings, digest: str
    ) -> None:
        model = model.eval().requires_grad_(False)
        self._model = model.to(memory_format=torch.channels_last)
        self._settings = settings
        config: Any = model.pretrained_cfg
        self._mean, self._std = config["mean"], config["std"]
        channels = model.feature_info.channels()  # type: ignore[union-attr, operator]
        self._levels = [
            (i in settings.std_levels, c)
            for i, c in zip(settings.levels, channels, strict=True)
        ]
        self.n_channels = sum(c * (2 if std else 1) for std, c in self._levels)
        self.identity = f"{settings.name}:{digest}:{self._levels}"

    def to(self, device: torch.device) -> None:
        """Move to a device."""
        self._model.to(device)

    @torch.no_grad()
    def targets(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return means, and standard deviations where asked for, of every level."""
        batch = _normalised(images, self._mean, self._std)
        # depthwise convolutions run twice as fast on it
        maps = self._model(batch.contiguous(memory_format=torch.channels_last))
        out = []
        for features, (wants_std, _) in zip(maps, self._levels, strict=True):
            features = features.float()
            if features.shape[2] <= grid[0]:
                out.append(
                    interpolate(features, grid, mode="bilinear", align_corners=False)
                )
                if wants_std:
                    raise SettingsError(
                        "`std_levels` asks for the standard deviation within a token "
                        f"of a level with {tuple(features.shape[2:])} values on a grid "
                        f"of {grid} tokens. Leave that level out of `std_levels`."
                    )
                continue
            mean = adaptive_avg_pool2d(features, grid)
            out.append(mean)
            if wants_std:
                square = adaptive_avg_pool2d(features * features, grid)
                out.append((square - mean * mean).clamp_min(0).sqrt())
        return torch.cat(out, dim=1)


def load_teacher(settings: TeacherSettings, device: torch.device) -> Teacher:
    """Load a teacher that is not the student itself.

    Raises
    ------
    SettingsError
        If the name is unknown.
    WeightsError
        If its weights are absent or do not fit.
    """
    if settings.name.startswith(_TIMM):
        return _timm_teacher(settings, device)
    if settings.weights is not None:
        raise SettingsError(
            "`teacher.weights` belongs to a 'timm:' teacher. Name a weights file of a "
            "ViT directly as `teacher.name`."
        )
    backbone = load_backbone(settings.name, num_heads=settings.num_heads, device=device)
    return ViTTeacher(backbone)


def _timm_teacher(settings: TeacherSettings, device: torch.device) -> Teacher:
    name = settings.name.removeprefix(_TIMM)
    if settings.weights is None:
        raise WeightsError(
            f"The teacher {settings.name!r} needs a file with its state dict under "
            "timm's names: set `teacher.weights` (--teacher-weights). Nothing is "
            "downloaded unasked."
        )
    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name[:6]}*")[:5])
        raise SettingsError(f"timm has no model {name!r}. Near it: {near or 'none'}.")
    tensors, _ = read_checkpoint(settings.weights)
    model = timm.create_model(
        name, pretrained=False, features_only=True, out_indices=settings.levels
    )
    wanted = model.state_dict()
    missing = sorted(wanted.keys() - tensors.keys())
    wrong = [k for k in wanted if k in tensors and tensors[k].shape != wanted[k].shape]
    if missing or wrong:
        raise WeightsError(
            f"{str(settings.weights)!r} does not fit timm's {name!r}. missing: "
            f"{', '.join(missing[:20]) or 'none'}; of another shape: "
            f"{', '.join(wrong[:20]) or 'none'}."
        )
    model.load_state_dict({k: tensors[k] for k in wanted}, strict=True)
    digest = hashlib.sha256()
    for key in sorted(wanted):
        digest.update(tensors[key].contiguous().numpy().tobytes())
    teacher = CNNTeacher(model, settings, digest.hexdigest())
    teacher.to(device)
    return teacher


def copyable_vit(teacher: Teacher) -> ViTBackbone:
    """Return the ViT of a teacher, to retrofit a copy of it."""
    backbone = getattr(teacher, "backbone", None)
    if not isinstance(backbone, ViTBackbone):
        raise SettingsError(
            "Without `student` the student is a copy of its teacher, which must then "
            "be a plain ViT. Give the student a shape ([student] in the settings)."
        )
    return backbone
