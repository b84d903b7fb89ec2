"""Cures of position bias as wrappers: a backbone goes in, one with less position out.

A `CuredBackbone` satisfies the `Backbone` protocol and may be cured again; its
identity lists what was done, with every number that decides it, so that stores are
not mixed up and a classifier finds the same features again. Only this module knows
what the cures compute (but for DVT's field, `_field`, and denoiser, `_denoiser`);
their words are `_spec`'s.

References
----------
Pawlowsky et al. (2026), "What DINO saw", arXiv:2603.16840, for blanking, projection,
averages and swaps; Yang et al. (2024), "Denoising Vision Transformers",
arXiv:2401.02957, for field and denoiser.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_alibi_seg._base import Backbone, SettingsError
from napari_alibi_seg.data import synthesize
from napari_alibi_seg.features._denoiser import DenoisedBackbone, load_denoiser
from napari_alibi_seg.features._field import FIELD_PRESETS, FieldSettings, fit_image
from napari_alibi_seg.features._registry import list_backbones
from napari_alibi_seg.features._spec import CureStep
from napari_alibi_seg.features._swap import swap_position
from napari_alibi_seg.features._vit import ViTBackbone

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CuredBackbone", "cure_backbone", "positional_channels", "recure_backbone"]

_logger = logging.getLogger(__name__)

# A channel above this share of variance explained by place counts as positional; of
# those the first are blanked, as too many would take the content with them.
_POSITIONAL_R2 = 0.25
_MOST_BLANKED = 1 / 8
_PROBE_IMAGES, _PROBE_TOKENS = 24, 24
_PROBE_KINDS = ("spinodal", "grains", "precipitates")
# Tokens along a side of the blank image.
_BLANK_TOKENS = 32
# Below this share of a token's length differences over a blank image are rounding.
_ROUNDING = 1e-4
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
        return _Blank(_chosen_channels(step.value, backbone), backbone.embed_dim)
    if step.kind == "svd":
        return _Project(step.value, _BLANK_TOKENS, backbone.embed_dim)
    if step.kind == "average":
        return _Average(step.value)
    if step.kind == "roll":
        return _Roll(step.value)
    if step.kind == "field":
        return _Field(FIELD_PRESETS[step.value])
    return _Swap(step.kind, _bare(backbone, step.kind))


def _recorded(record: dict[str, Any], backbone: Any) -> _Cure:
    kind = record["kind"]
    if kind == "blank":
        channels = tuple(int(i) for i in record["channels"])
        return _Blank(channels, backbone.embed_dim)
    if kind == "svd":
        return _Project(int(record["rank"]), int(record["grid"]), backbone.embed_dim)
    if kind == "average":
        return _Average(int(record["copies"]))
    if kind == "roll":
        return _Roll(int(record["copies"]))
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


# ---------------------------------------------------------------------------- blanking


class _Blank:
    def __init__(self, channels: tuple[int, ...], embed_dim: int) -> None:
        outside = [i for i in channels if not 0 <= i < embed_dim]
        if outside or not channels:
            raise SettingsError(
                f"`+blank` takes channels from 0 to {embed_dim - 1}, got "
                f"{outside or 'none'}."
            )
        self._channels = [*channels]
        self.record = {"kind": "blank", "channels": self._channels}

    def __call__(self, inner: Backbone, images: Tensor) -> Tensor:
        features: Tensor = inner.patch_features(images).clone()
        features[:, self._channels] = 0
        return features


def _chosen_channels(given: tuple[int, ...] | None, backbone: Any) -> tuple[int, ...]:
    """Return the channels given, those known of the backbone, or those found."""
    if given is not None:
        return given
    rows = {row.name: row for row in list_backbones()}
    name = backbone.identity.get("cures", {}).get("base", backbone.name)
    if name in rows and rows[name].positional:
        return rows[name].positional
    r2 = _channel_r2(_probe_maps(backbone))
    found = _strongest(r2, _POSITIONAL_R2, _MOST_BLANKED)
    if not found:
        raise SettingsError(
            f"`+blank` finds nothing to blank in {backbone.name!r}: no channel follows "
            f"position (highest R2 {r2.max():.3f}, needed {_POSITIONAL_R2}). Leave it "
            "out, or give channels: +blank=N,N."
        )
    _logger.info("Positional channels of %s: %s", backbone.name, found)
    return found


def _probe_maps(backbone: Any) -> list[npt.NDArray[np.float32]]:
    """Return the features of synthetic micrographs of different content."""
    side = _PROBE_TOKENS * backbone.patch_size
    mean, std = (
        torch.tensor(v).reshape(1, 3, 1, 1) for v in (backbone.mean, backbone.std)
    )
    maps = []
    for seed in range(_PROBE_IMAGES):
        kind: Any = _PROBE_KINDS[seed % len(_PROBE_KINDS)]
        image = synthesize(kind, (side, side), seed=seed).image.astype(np.float32)
        grey = (image - image.min()) / max(float(np.ptp(image)), 1e-6)
        batch = torch.from_numpy(grey).expand(1, 3, side, side)
        tokens = backbone.patch_features((batch - mean) / std)[0]
        maps.append(tokens.permute(1, 2, 0).float().cpu().numpy())
    return maps


def positional_channels(
    maps: Sequence[npt.ArrayLike],
    *,
    above: float = _POSITIONAL_R2,
    at_most: float = _MOST_BLANKED,
) -> tuple[int, ...]:
    """Return the channels that follow position in images of different content.

    Parameters
    ----------
    maps : sequence of (h, w, C) arrays
        Features of tiles or crops, all of one shape; at least 8, better 24, or what
        they show by chance counts as position.
    above : float
        Share of a channel's variance, over all maps together, that one straight line
        along columns, rows or the distance from the middle explains.
    at_most : float
        Share of the channels that is returned, the most positional ones.

    Returns
    -------
    tuple of int
        Ascending; what ``+blank=`` takes.

    Raises
    ------
    SettingsError
        If there are fewer than 8 maps, or their shapes differ.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> maps = [rng.normal(size=(12, 12, 8)) for _ in range(8)]
    >>> for one in maps:
    ...     one[..., 2] += 5 * np.linspace(0, 1, 12)
    >>> positional_channels(maps)
    (2,)
    """
    return _strongest(_channel_r2(maps), above, at_most)


def _strongest(
    r2: npt.NDArray[np.float64], above: float, at_most: float
) -> tuple[int, ...]:
    n = min(int((r2 > above).sum()), max(1, round(at_most * len(r2))))
    return tuple(sorted(int(i) for i in np.argsort(-r2, kind="stable")[:n]))


def _channel_r2(maps: Sequence[npt.ArrayLike]) -> npt.NDArray[np.float64]:
    """Return for every channel the highest squared correlation with a ramp."""
    arrays = [np.asarray(m, np.float64) for m in maps]
    shapes = {a.shape for a in arrays}
    if len(arrays) < 8 or len(shapes) != 1 or arrays[0].ndim != 3:
        raise SettingsError(
            "`maps` must be at least 8 (h, w, C) arrays of one shape, got "
            f"{len(arrays)} of {sorted(shapes)}."
        )
    stack = np.stack(arrays)  # (n, h, w, C)
    _, h, w, c = stack.shape
    y, x = np.meshgrid(np.linspace(-1, 1, h), np.linspace(-1, 1, w), indexing="ij")
    ramps = np.stack([x, y, np.hypot(x, y)], axis=-1).reshape(-1, 3)  # (hw, 3)
    ramps = (ramps - ramps.mean(0)) / ramps.std(0)
    flat = stack.reshape(-1, c)
    # of a ramp that is the same in every map, only the mean map matters
    covariance = stack.mean(0).reshape(-1, c).T @ ramps / (h * w)  # (C, 3)
    variance = flat.var(0)
    # of a constant channel rounding alone is left, which follows nothing
    is_constant = variance <= (1e-9 * np.abs(flat).max(0)) ** 2
    variance[is_constant] = np.inf
    return (covariance**2 / variance[:, None]).max(axis=1)


# -------------------------------------------------------------------------- projection


class _Project:
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


# ---------------------------------------------------------------------------- averages


class _Average:
    """Mean over mirrored and turned copies, each map put back before."""

    def __init__(self, copies: int) -> None:
        if copies not in (4, 8):
            raise ValueError(copies)
        turns = [(k, flip) for flip in (False, True) for k in range(4)]
        # the published four: as it is, mirrored left-right, upside down, turned once
        four = [(0, False), (0, True), (2, True), (1, False)]
        self._ways = four if copies == 4 else turns
        self.record = {"kind": "average", "copies": copies}

    def __call__(self, inner: Backbone, images: Tensor) -> Tensor:
        total: Tensor | None = None
        for turns, is_mirrored in self._ways:
            seen = images.flip(3) if is_mirrored else images
            tokens = inner.patch_features(seen.rot90(turns, (2, 3)).contiguous())
            back = tokens.rot90(-turns, (2, 3))
            back = back.flip(3) if is_mirrored else back
            total = back if total is None else total + back
        assert total is not None
        return (total / len(self._ways)).contiguous()


class _Roll:
    """Mean over copies shifted around by whole patches, each map shifted back."""

    def __init__(self, copies: int) -> None:
        if copies < 1:
            raise ValueError(copies)
        self._copies = copies
        self.record = {"kind": "roll", "copies": copies}

    def __call__(self, inner: Backbone, images: Tensor) -> Tensor:
        patch, n = inner.patch_size, self._copies
        h, w = (side // patch for side in images.shape[2:])
        # along the diagonal: every row and column offset occurs once
        shifts = sorted({(k * h // n, k * w // n) for k in range(n)})
        total: Tensor | None = None
        for dy, dx in shifts:
            seen = images.roll((dy * patch, dx * patch), (2, 3))
            back = inner.patch_features(seen).roll((-dy, -dx), (2, 3))
            total = back if total is None else total + back
        assert total is not None
        return total / len(shifts)


# ----------------------------------------------------------------------- field and swap


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
