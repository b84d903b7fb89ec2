"""From a name or a path to a backbone.

Only this module decides what a file is to be: which ALiBi settings, how many heads,
which input normalisation. The order is always: what the caller gave, the registry's
row, the file's own metadata, the default; and where a wrong guess would go unnoticed
there is no default.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, Final, Literal

import torch
from torch import Tensor

from napari_alibi_seg._base import Alibi, SettingsError, WeightsError
from napari_alibi_seg.features._arch import Arch, build_model, fill_model
from napari_alibi_seg.features._denoiser import DenoisedBackbone, load_denoiser
from napari_alibi_seg.features._device import resolve_device, resolve_dtype
from napari_alibi_seg.features._files import FileMetadata, read_checkpoint
from napari_alibi_seg.features._hash import file_sha256
from napari_alibi_seg.features._layouts import StoredViT, read_layout
from napari_alibi_seg.features._registry import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    BackboneSpec,
    backbone_spec,
    list_backbones,
)
from napari_alibi_seg.features._vit import Attention, ViTBackbone, ViTDescription
from napari_alibi_seg.features._weights import FoundWeights, require_weights

__all__ = ["load_backbone", "reload_backbone"]

_logger = logging.getLogger(__name__)

_HEAD_WIDTH = 64
_SUFFIXES = (".pth", ".pt", ".bin", ".tar", ".ckpt", ".safetensors")


class _NotGiven(Enum):
    NOT_GIVEN = "not given"

    def __repr__(self) -> str:
        return "<not given>"


_NOT_GIVEN: Final = _NotGiven.NOT_GIVEN
_AlibiArgument = Alibi | None | Literal[_NotGiven.NOT_GIVEN]


@dataclass(frozen=True, slots=True)
class _Source:
    """A weights file and what is known of it from outside."""

    name: str
    found: FoundWeights
    spec: BackboneSpec | None


def load_backbone(
    name_or_path: str | Path,
    *,
    alibi: _AlibiArgument = _NOT_GIVEN,
    num_heads: int | None = None,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype | None = None,
    attention: Attention = "sdpa",
) -> ViTBackbone | DenoisedBackbone:
    """Load a named backbone, or any ViT from a weights file.

    Nothing is downloaded; see `download_weights`.

    Parameters
    ----------
    name_or_path : str or Path
        A name of `list_backbones`, or a `.pth` or `.safetensors` file. The
        architecture of a file comes from its tensors' shapes.
    alibi : Alibi or None, optional
        An `Alibi` drops position tables and rotary embeddings and biases attention
        by distance. None leaves position as stored. Not given: the row of the
        registry decides, or the file's own metadata.
    num_heads : int, optional
        Attention heads. Default: the registry, the metadata, learned slopes or
        rotary periods in the file, else width / 64.
    device : {"auto", "cpu", "cuda", "cuda:<n>", "mps"} or torch.device
        "auto" takes the best there is.
    dtype : {"float32", "bfloat16", "float16"} or torch.dtype, optional
        Default: float32 on the CPU, autocast to a half format on a GPU.
    attention : {"sdpa", "flex"}
        How an ALiBi bias enters attention: as a mask that all heads share, or
        computed inside FlexAttention's kernel (compiled on CUDA; elsewhere slow and
        only good for comparing). Which is faster on a GPU has not been measured.

    Returns
    -------
    Backbone
        With `patch_features(images)`.

    Raises
    ------
    SettingsError
        If an argument does not fit the file or the machine; among them a file whose
        position embedding is zero or absent when `alibi` is not given.
    WeightsError
        If weights are absent, damaged, or do not fit: missing and unexpected keys
        are listed.

    Examples
    --------
    >>> load_backbone("classical")
    Traceback (most recent call last):
    ...
    napari_alibi_seg._base._errors.SettingsError: 'classical' is no ViT: ...
    """
    if attention not in ("sdpa", "flex"):
        raise SettingsError(
            f"`attention` must be 'sdpa' or 'flex', got {attention!r}."
        )
    spec = _named(name_or_path)
    if spec is not None and spec.kind == "classical":
        raise SettingsError(
            f"{spec.name!r} is no ViT: its features need no backbone. Ask for "
            "features 'classical', or name a ViT."
        )
    where = resolve_device(device)
    compute = resolve_dtype(dtype, where)
    if spec is not None and spec.base is not None:
        return _load_denoised(spec, alibi, num_heads, where, compute, attention)
    source = _source(name_or_path, spec)
    return _load(source, alibi, num_heads, where, compute, attention)


def reload_backbone(
    identity: Mapping[str, Any],
    *,
    weights: str | Path | None = None,
    denoiser: str | Path | None = None,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype | None = None,
    attention: Attention = "sdpa",
) -> ViTBackbone | DenoisedBackbone:
    """Load the backbone that `identity` describes, or refuse.

    Parameters
    ----------
    identity : mapping
        What a backbone's `identity` was, from a store or a classifier.
    weights, denoiser : str or Path, optional
        Where the files lie. Default: the cache, for names of the registry.
    device, dtype, attention
        As for `load_backbone`.

    Returns
    -------
    Backbone
        Its `identity` equals the one given.

    Raises
    ------
    WeightsError
        If the files are not here or are not those of `identity`.
    SettingsError
        If `identity` is not the identity of a backbone, or the device is not here.
    """
    where = resolve_device(device)
    try:
        inner, name = identity["denoiser"], str(identity["name"])
        base_name = name if inner is None else str(inner["base"])
        description = _described(identity, base_name)
        digests = description.sha256, None if inner is None else str(inner["sha256"])
    except (KeyError, TypeError, ValueError) as err:
        raise SettingsError(
            f"This is not the identity of a backbone ({err!r}): {dict(identity)!r}."
        ) from err
    path = _pinned(base_name, weights, digests[0], "weights")
    stored, _ = _read(path)
    base = _build(
        stored,
        description,
        path=path,
        device=where,
        dtype=resolve_dtype(dtype, where),
        attention=attention,
    )
    if digests[1] is None:
        return base
    below = _pinned(name, denoiser, digests[1], "denoiser")
    return load_denoiser(below, device=where).wrap(base, name=name)


def _described(identity: Mapping[str, Any], name: str) -> ViTDescription:
    mean, std = (tuple(float(v) for v in identity[key]) for key in ("mean", "std"))
    settings = identity["alibi"]
    return ViTDescription(
        name=name,
        sha256=str(identity["sha256"]),
        verified=identity["status"] == "verified",
        arch=Arch.from_dict(identity["arch"]),
        num_heads=int(identity["num_heads"]),
        alibi=None if settings is None else Alibi(**settings),
        mean=(mean[0], mean[1], mean[2]),
        std=(std[0], std[1], std[2]),
    )


def _pinned(name: str, given: str | Path | None, sha256: str, what: str) -> Path:
    """Return the file that has this hash: where it was said to lie, or in the cache."""
    if given is None and name not in {spec.name for spec in list_backbones()}:
        raise WeightsError(
            f"The {what} of {name!r} came from a file that no registry knows. Say "
            f"where it lies now; its SHA-256 is {sha256}."
        )
    path = require_weights(name).path if given is None else Path(given)
    found = file_sha256(path)
    if found != sha256:
        raise WeightsError(
            f"{str(path)!r} is not the {what} wanted here: its SHA-256 is {found}, "
            f"expected {sha256}."
        )
    return path


def _named(name_or_path: str | Path) -> BackboneSpec | None:
    """Return the registry's row, or None for a path."""
    if isinstance(name_or_path, Path):
        return None
    if name_or_path in {spec.name for spec in list_backbones()}:
        return backbone_spec(name_or_path)
    path = Path(name_or_path)
    if path.exists() or path.suffix.lower() in _SUFFIXES or len(path.parts) > 1:
        return None
    return backbone_spec(name_or_path)  # raises, with the nearest names


def _source(name_or_path: str | Path, spec: BackboneSpec | None) -> _Source:
    if spec is not None:
        return _Source(spec.name, require_weights(spec.name), spec)
    path = Path(name_or_path).expanduser()
    if not path.is_file():
        raise WeightsError(f"There is no weights file {str(path)!r}.")
    digest = file_sha256(path)
    published = {row.sha256 for row in list_backbones()}
    return _Source(path.stem, FoundWeights(path, digest, digest in published), None)


def _load_denoised(
    spec: BackboneSpec,
    alibi: _AlibiArgument,
    num_heads: int | None,
    device: torch.device,
    dtype: torch.dtype,
    attention: Attention,
) -> DenoisedBackbone:
    below = backbone_spec(spec.base or "")
    found = require_weights(spec.name)  # before the larger file is read
    source = _Source(below.name, require_weights(below.name), below)
    base = _load(source, alibi, num_heads, device, dtype, attention)
    return load_denoiser(found.path, device=device).wrap(base, name=spec.name)


def _load(
    source: _Source,
    alibi: _AlibiArgument,
    num_heads: int | None,
    device: torch.device,
    dtype: torch.dtype,
    attention: Attention,
) -> ViTBackbone:
    path, spec = source.found.path, source.spec
    stored, said = _read(path)
    if spec is not None:
        _check_row(stored, spec, path)
    chosen = _choose_alibi(alibi, stored, spec, said, path)
    arch = _choose_arch(stored, chosen, spec, said, path)
    description = ViTDescription(
        name=source.name if spec is not None or said.name is None else said.name,
        sha256=source.found.sha256,
        verified=source.found.verified,
        arch=arch,
        num_heads=_choose_heads(num_heads, stored, arch, spec, said),
        alibi=chosen,
        mean=(spec.mean if spec else said.mean) or IMAGENET_MEAN,
        std=(spec.std if spec else said.std) or IMAGENET_STD,
    )
    return _build(
        stored,
        description,
        path=path,
        device=device,
        dtype=dtype,
        attention=attention,
    )


def _read(path: Path) -> tuple[StoredViT, FileMetadata]:
    checkpoint, said = read_checkpoint(path)
    try:
        return read_layout(checkpoint), said
    except WeightsError as err:
        raise WeightsError(f"{str(path)!r}: {err}") from err


def _build(
    stored: StoredViT,
    description: ViTDescription,
    *,
    path: Path,
    device: torch.device,
    dtype: torch.dtype,
    attention: Attention,
) -> ViTBackbone:
    """Put the stored tensors into the model that `description` asks for."""
    arch, alibi = description.arch, description.alibi
    if attention == "flex" and alibi is None:
        raise SettingsError(
            "attention='flex' computes ALiBi's bias in the kernel, and this backbone "
            "has no such bias. Use attention='sdpa'."
        )
    tensors: dict[str, Tensor] = dict(stored.tensors)
    if arch.table is None:
        tensors.pop("pos_embed", None)
    model = build_model(arch, description.num_heads)
    try:
        fill_model(model, tensors, stored.name_in_file)
    except WeightsError as err:
        raise WeightsError(f"{str(path)!r}: {err}") from err
    if stored.dropped:
        _logger.info(
            "%s: %d tensors that patch tokens do not need were left out: %s",
            path.name,
            len(stored.dropped),
            ", ".join(stored.dropped),
        )
    return ViTBackbone(
        model,
        description,
        device=device,
        dtype=dtype,
        attention=attention,
        slopes=stored.slopes if alibi and alibi.slope == "learned" else (),
        path=path,
        dropped=stored.dropped,
    )


def _check_row(stored: StoredViT, spec: BackboneSpec, path: Path) -> None:
    """Refuse a file that is not what the registry says lies under this name."""
    arch = stored.arch
    pairs = {
        "patch size": (arch.patch_size, spec.patch_size),
        "width": (arch.embed_dim, spec.embed_dim),
        "depth": (arch.depth, spec.depth),
        "registers": (arch.registers, spec.registers),
    }
    wrong = [f"{k} {is_} instead of {be}" for k, (is_, be) in pairs.items() if is_ != be]
    expected = {
        "table": ("table",),
        "rope": ("rope", "unsaid"),
        "none": ("zero", "absent"),
        "alibi": ("zero", "absent", "unsaid", "table", "rope"),
    }[spec.position]
    if stored.position not in expected:
        wrong.append(f"position {stored.position!r} instead of {spec.position!r}")
    if wrong:
        raise WeightsError(
            f"{str(path)!r} is not {spec.name!r} ({spec.title}): {'; '.join(wrong)}. "
            f"Fetch {spec.file!r} of {spec.source}, or load this file by its path."
        )


def _choose_alibi(
    given: _AlibiArgument,
    stored: StoredViT,
    spec: BackboneSpec | None,
    said: FileMetadata,
    path: Path,
) -> Alibi | None:
    if isinstance(given, Alibi) or given is None:
        chosen = given
    elif given is not _NOT_GIVEN:
        raise SettingsError(f"`alibi` must be an `Alibi` or None, got {given!r}.")
    elif spec is not None:
        chosen = spec.alibi
    elif said.says_alibi:
        chosen = said.alibi
    elif stored.slopes or stored.position not in ("table", "rope"):
        raise SettingsError(_ask_for_alibi(stored, path))
    else:
        chosen = None
    _check_slopes(chosen, stored, path)
    return chosen


def _ask_for_alibi(stored: StoredViT, path: Path) -> str:
    what = {
        "table": "a position table",
        "rope": "rotary frequencies",
        "zero": "a position embedding of zeros",
        "absent": "no position embedding",
        "unsaid": "no position embedding (timm's DINOv3 layout, whose rotary "
        "embedding is in no file)",
    }[stored.position]
    slopes = " and learned ALiBi slopes" if stored.slopes else ""
    as_stored = "with" if stored.position in ("table", "unsaid") else "without"
    return (
        f"{str(path)!r} has {what}{slopes}, and does not say how it was trained. Pass "
        f"`alibi=Alibi({'slope=' + repr('learned') if slopes else ''}...)` with the "
        f"settings of its training, or `alibi=None` to use it as stored ({as_stored} "
        "position)."
    )


def _check_slopes(alibi: Alibi | None, stored: StoredViT, path: Path) -> None:
    """Learned slopes and their use belong together: neither is ignored."""
    learned = alibi is not None and alibi.slope == "learned"
    if learned and not stored.slopes:
        keys = [f"{stored.prefix}blocks.{i}.attn.m" for i in range(stored.arch.depth)]
        raise WeightsError(
            f"{str(path)!r} has no learned slopes, which slope='learned' needs. "
            f"missing: {', '.join(keys)}."
        )
    if stored.slopes and not learned:
        raise SettingsError(
            f"{str(path)!r} carries learned ALiBi slopes (blocks.*.attn.m) that "
            f"`alibi`={alibi!r} would ignore. Pass Alibi(slope='learned', ...), or "
            "remove them from the file."
        )


def _choose_arch(
    stored: StoredViT,
    alibi: Alibi | None,
    spec: BackboneSpec | None,
    said: FileMetadata,
    path: Path,
) -> Arch:
    arch = stored.arch
    activation = spec.activation if spec is not None else said.activation
    if activation is None and arch.pre_norm:
        _logger.warning(
            "%s has a CLIP layout, whose activation is in no tensor: GELU is assumed. "
            "OpenAI's own CLIP has quick-GELU; the metadata of a safetensors file can "
            "say so (`activation`).",
            path.name,
        )
    arch = replace(
        arch,
        activation=activation or arch.activation,
        norm_eps=said.norm_eps or arch.norm_eps,
    )
    if alibi is not None:
        return replace(arch, table=None, table_prefix=False, rope=None)
    if stored.position == "zero":  # adding zeros is adding nothing
        arch = replace(arch, table=None, table_prefix=False)
    if said.rope is False and stored.position == "unsaid":
        return replace(arch, rope=None)
    if said.rope is not None and said.rope != (arch.rope is not None):
        raise WeightsError(
            f"{str(path)!r}: its metadata says rope={said.rope}, its tensors say "
            "otherwise."
        )
    return arch


def _choose_heads(
    given: int | None,
    stored: StoredViT,
    arch: Arch,
    spec: BackboneSpec | None,
    said: FileMetadata,
) -> int:
    width = arch.embed_dim
    row = spec.num_heads if spec is not None else None
    heads = given or row or said.num_heads or stored.num_heads
    if given is not None and (isinstance(given, bool) or given != heads or given < 1):
        raise SettingsError(f"`num_heads` must be a positive integer, got {given!r}.")
    if heads is None and width % _HEAD_WIDTH:
        raise SettingsError(
            f"`num_heads` cannot be read off the tensors, and the width {width} is not "
            f"a multiple of {_HEAD_WIDTH}, the usual width of a head. Pass `num_heads`."
        )
    heads = heads or width // _HEAD_WIDTH
    step = 4 if arch.rope else 1  # two coordinates, sine and cosine
    if width % (heads * step):
        raise SettingsError(
            f"`num_heads` {heads} does not divide the width {width}"
            + (" into heads that rotary embeddings can turn." if arch.rope else ".")
        )
    if stored.num_heads not in (None, heads):
        raise SettingsError(
            f"`num_heads` is {heads}, but the slopes or rotary periods in the file are "
            f"for {stored.num_heads} heads."
        )
    return heads
