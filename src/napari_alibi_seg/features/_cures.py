"""Cures of position bias as wrappers: a backbone goes in, one with less position out.

A `CuredBackbone` satisfies the `Backbone` protocol and may be cured again; its
identity lists what was done, with every number that decides it, so that stores are
not mixed up and a classifier finds the same features again. Only this module knows
what is written down of a cure and how it is made again from that. What a cure computes
is left to `_cure_blank`, `_cure_svd`, `_cure_average`, `_field`, `_denoiser` and
`_swap`; their words are `_spec`'s.

References
----------
Pawlowsky et al. (2026), "What DINO saw", arXiv:2603.16840, for blanking, projection,
averages and swaps; Yang et al. (2024), "Denoising Vision Transformers",
arXiv:2401.02957, for field and denoiser.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from napari_alibi_seg._base import Backbone, SettingsError
from napari_alibi_seg.features._cure_average import Average, Roll
from napari_alibi_seg.features._cure_blank import Blank, chosen_channels
from napari_alibi_seg.features._cure_svd import ProjectOut
from napari_alibi_seg.features._denoiser import DenoisedBackbone, load_denoiser
from napari_alibi_seg.features._field import FIELD_PRESETS, FieldSettings, fit_image
from napari_alibi_seg.features._spec import CureStep
from napari_alibi_seg.features._swap import swap_position
from napari_alibi_seg.features._vit import ViTBackbone

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CuredBackbone", "cure_backbone", "recure_backbone"]

# Tokens along a side of the blank image.
_BLANK_TOKENS = 32
_SWAPS = ("nope", "sinusoid", "alibi")


class _Cure(Protocol):
    """What is done to features; `record` is all that decides it, as JSON."""

    record: dict[str, Any]

    def __call__(self, inner: Backbone, images: Tensor) -> Tensor: ...


class CuredBackbone:
    """A backbone with a cure of position bias. Made by `load_backbone` from a spec.

    Has all that the backbone has; `identity` gains "cures" with the name of the bare
    backbone ("base") and what was done, in order ("steps").

    Attributes
    ----------
    inner : Backbone
        What the cure is applied to, itself perhaps cured.
    """

    def __init__(self, inner: Any, cure: _Cure, name: str) -> None:
        self.inner = inner
        self._cure = cure
        self.name = name
        self.patch_size: int = inner.patch_size
        self.embed_dim: int = inner.embed_dim
        self.num_heads: int = inner.num_heads
        self.alibi = cure.alibi if isinstance(cure, _Swap) else inner.alibi
        self.mean: tuple[float, float, float] = inner.mean
        self.std: tuple[float, float, float] = inner.std
        self.device: torch.device = inner.device
        self.dtype: torch.dtype = inner.dtype
        self.path: Path | None = inner.path

    @property
    def identity(self) -> dict[str, Any]:
        """JSON description of weights, settings and cures."""
        below = self.inner.identity
        done = below.get("cures", {"base": self.inner.name, "steps": []})
        cures = {**done, "steps": [*done["steps"], self._cure.record]}
        return {**below, "name": self.name, "cures": cures}

    def patch_features(self, images: Tensor) -> Tensor:
        """Return cured patch tokens; see `ViTBackbone.patch_features`."""
        return self._cure(self.inner, torch.as_tensor(images))

    def __repr__(self) -> str:
        return f"CuredBackbone({self.name!r}, {self.inner!r})"


# ------------------------------------------------------------------------------ making


def cure_backbone(
    backbone: ViTBackbone | DenoisedBackbone | CuredBackbone,
    steps: Sequence[CureStep],
) -> ViTBackbone | DenoisedBackbone | CuredBackbone:
    """Return a backbone with some cures applied, in order.

    Parameters
    ----------
    backbone : Backbone
        From `load_backbone`.
    steps : sequence of CureStep
        As `split_spec` returns them.

    Raises
    ------
    SettingsError
        If a cure does not fit the backbone or what was done before.
    WeightsError
        If the file of a denoiser does not fit.

    Examples
    --------
    >>> from napari_alibi_seg.features import load_backbone
    >>> tiny = load_backbone("alibi-tiny", device="cpu")
    >>> cured = cure_backbone(tiny, [CureStep("roll", 2)])
    >>> cured.name, cured.identity["cures"]["steps"]
    ('alibi-tiny+roll=2', [{'kind': 'roll', 'copies': 2}])
    """
    for step in steps:
        if step.kind == "denoise":
            backbone = load_denoiser(step.value, device=backbone.device).wrap(
                _bare(backbone, step.kind), name=f"{backbone.name}+denoise"
            )
            continue
        cure = _new_cure(step, backbone)
        backbone = CuredBackbone(backbone, cure, f"{backbone.name}+{_label(cure)}")
    return backbone


def recure_backbone(
    backbone: ViTBackbone | DenoisedBackbone, identity: Mapping[str, Any]
) -> CuredBackbone:
    """Apply the cures that an identity lists; nothing is measured again.

    Raises
    ------
    SettingsError
        If the identity lists cures that are none.
    """
    out: Any = backbone
    try:
        records = [dict(record) for record in identity["cures"]["steps"]]
        for record in records:
            cure = _recorded(record, out)
            out = CuredBackbone(out, cure, f"{out.name}+{_label(cure)}")
        out.name = str(identity["name"])
    except (KeyError, TypeError, ValueError, AttributeError) as err:
        raise SettingsError(
            f"This is not a list of cures ({err!r}): {identity.get('cures')!r}."
        ) from err
    return out


def _bare(backbone: Any, kind: str) -> ViTBackbone:
    if not isinstance(backbone, ViTBackbone):
        raise SettingsError(
            f"`+{kind}` belongs right behind a plain ViT, and {backbone.name!r} is "
            "none. Put it first."
        )
    return backbone


def _new_cure(step: CureStep, backbone: Any) -> _Cure:
    if step.kind == "blank":
        return Blank(chosen_channels(step.value, backbone), backbone.embed_dim)
    if step.kind == "svd":
        return ProjectOut(step.value, _BLANK_TOKENS, backbone.embed_dim)
    if step.kind == "average":
        return Average(step.value)
    if step.kind == "roll":
        return Roll(step.value)
    if step.kind == "field":
        return _Field(FIELD_PRESETS[step.value])
    return _Swap(step.kind, _bare(backbone, step.kind))


def _recorded(record: dict[str, Any], backbone: Any) -> _Cure:
    kind = record["kind"]
    if kind == "blank":
        channels = tuple(int(i) for i in record["channels"])
        return Blank(channels, backbone.embed_dim)
    if kind == "svd":
        return ProjectOut(int(record["rank"]), int(record["grid"]), backbone.embed_dim)
    if kind == "average":
        return Average(int(record["copies"]))
    if kind == "roll":
        return Roll(int(record["copies"]))
    if kind == "field":
        return _Field(FieldSettings.model_validate(record["settings"]))
    if kind in _SWAPS:
        return _Swap(kind, _bare(backbone, kind))
    raise ValueError(kind)


def _label(cure: _Cure) -> str:
    """Return the word of a cure, with its value where that fits into a name."""
    record = cure.record
    value = record.get("copies", record.get("rank"))
    if "channels" in record:
        value = ",".join(map(str, record["channels"]))
    if isinstance(cure, _Field):
        value = cure.preset
    return record["kind"] if value is None else f"{record['kind']}={value}"


# ---------------------------------------------------- cures that other modules compute


class _Field:
    """DVT's stage 1 on every image by itself."""

    def __init__(self, settings: FieldSettings) -> None:
        self._settings = settings
        named = (name for name, known in FIELD_PRESETS.items() if known == settings)
        self.preset: str | None = next(named, None)
        self.record = {"kind": "field", "settings": settings.model_dump(mode="json")}

    def __call__(self, inner: Backbone, images: Tensor) -> Tensor:
        maps = [fit_image(inner, image, self._settings).semantic for image in images]
        stack = np.stack([np.moveaxis(m, -1, 0) for m in maps])
        return torch.from_numpy(np.ascontiguousarray(stack)).to(inner.device)


class _Swap:
    """Another position encoding under weights that never saw it."""

    def __init__(self, kind: str, backbone: ViTBackbone) -> None:
        self._swapped = swap_position(backbone, kind)
        self.alibi = self._swapped.alibi
        self.record = {"kind": kind, "distilled": False}

    def __call__(self, inner: Backbone, images: Tensor) -> Tensor:
        return self._swapped.patch_features(images)
