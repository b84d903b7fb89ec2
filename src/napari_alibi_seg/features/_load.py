"""From a name or a path to a backbone.

Only this module joins the registry, the weights on this machine, what a file holds and
what the caller wants of it (`_choose`) into a backbone.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_alibi_seg._base import Alibi, SettingsError, WeightsError
from napari_alibi_seg.features._arch import Arch, build_model, fill_model
from napari_alibi_seg.features._choose import (
    NOT_GIVEN,
    AlibiArgument,
    check_row,
    choose_alibi,
    choose_arch,
    choose_heads,
)
from napari_alibi_seg.features._cures import (
    CuredBackbone,
    cure_backbone,
    recure_backbone,
)
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
from napari_alibi_seg.features._spec import CureStep, spec_files, split_spec
from napari_alibi_seg.features._vit import Attention, ViTBackbone, ViTDescription
from napari_alibi_seg.features._weights import FoundWeights, require_weights

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["load_backbone", "reload_backbone"]

_logger = logging.getLogger(__name__)

_SUFFIXES = (".pth", ".pt", ".bin", ".tar", ".ckpt", ".safetensors")


@dataclass(frozen=True, slots=True)
class _Source:
    """A weights file and what is known of it from outside."""

    name: str
    found: FoundWeights
    spec: BackboneSpec | None


@dataclass(frozen=True, slots=True)
class _Run:
    """Where and how to compute."""

    device: torch.device
    dtype: torch.dtype
    attention: Attention


def load_backbone(
    name_or_path: str | Path,
    *,
    alibi: AlibiArgument = NOT_GIVEN,
    num_heads: int | None = None,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype | None = None,
    attention: Attention = "sdpa",
) -> ViTBackbone | DenoisedBackbone | CuredBackbone:
    """Load a named backbone, or any ViT from a weights file.

    Nothing is downloaded; see `download_weights`.

    Parameters
    ----------
    name_or_path : str or Path
        A name of `list_backbones`, or a `.pth` or `.safetensors` file. The
        architecture of a file comes from its tensors' shapes. Cures of position bias
        may follow, as in ``"dinov2-s-reg+blank+roll=8"``: see `CURES`.
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
        raise SettingsError(f"`attention` must be 'sdpa' or 'flex', got {attention!r}.")
    name_or_path, steps = _split(name_or_path)
    spec = _named(name_or_path)
    if spec is not None and spec.kind == "classical":
        raise SettingsError(
            f"{spec.name!r} is no ViT: its features need no backbone. Ask for "
            "features 'classical', or name a ViT."
        )
    where = resolve_device(device)
    run = _Run(where, resolve_dtype(dtype, where), attention)
    backbone: ViTBackbone | DenoisedBackbone
    if spec is not None and spec.base is not None:
        backbone = _load_denoised(spec, alibi, num_heads, run)
    else:
        backbone = _load(_source(name_or_path, spec), alibi, num_heads, run)
    return cure_backbone(backbone, steps)


def _split(name_or_path: str | Path) -> tuple[str | Path, tuple[CureStep, ...]]:
    """Return the name or path, which stays what it was, and the cures behind it."""
    if isinstance(name_or_path, Path):
        return name_or_path, ()
    return split_spec(name_or_path)


def reload_backbone(
    identity: Mapping[str, Any],
    *,
    weights: str | Path | None = None,
    denoiser: str | Path | None = None,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype | None = None,
    attention: Attention = "sdpa",
) -> ViTBackbone | DenoisedBackbone | CuredBackbone:
    """Load the backbone that `identity` describes, or refuse.

    Parameters
    ----------
    identity : mapping
        What a backbone's `identity` was, from a store or a classifier.
    weights, denoiser : str or Path, optional
        Where the files lie. Default: the cache, for names of the registry. Cures
        behind a path are not heeded: those of `identity` are applied.
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
    if weights is not None:
        bare, below = spec_files(weights)
        weights, denoiser = bare or weights, denoiser or below
    where = resolve_device(device)
    run = _Run(where, resolve_dtype(dtype, where), attention)
    if "cures" not in identity:
        return _reload(identity, weights, denoiser, run)
    bare_identity = {key: v for key, v in identity.items() if key != "cures"}
    try:
        bare_identity["name"] = str(identity["cures"]["base"])
    except (KeyError, TypeError) as err:
        raise SettingsError(
            f"This is not a list of cures ({err!r}): {identity['cures']!r}."
        ) from err
    return recure_backbone(_reload(bare_identity, weights, denoiser, run), identity)


def _reload(
    identity: Mapping[str, Any],
    weights: str | Path | None,
    denoiser: str | Path | None,
    run: _Run,
) -> ViTBackbone | DenoisedBackbone:
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
    base = _build(_read(path)[0], description, path, run)
    if digests[1] is None:
        return base
    below = _pinned(name, denoiser, digests[1], "denoiser")
    return load_denoiser(below, device=run.device).wrap(base, name=name)


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
    alibi: AlibiArgument,
    num_heads: int | None,
    run: _Run,
) -> DenoisedBackbone:
    below = backbone_spec(spec.base or "")
    found = require_weights(spec.name)  # before the larger file is read
    source = _Source(below.name, require_weights(below.name), below)
    base = _load(source, alibi, num_heads, run)
    return load_denoiser(found.path, device=run.device).wrap(base, name=spec.name)


def _load(
    source: _Source,
    alibi: AlibiArgument,
    num_heads: int | None,
    run: _Run,
) -> ViTBackbone:
    path, spec = source.found.path, source.spec
    stored, said = _read(path)
    if spec is not None:
        check_row(stored, spec, path)
    chosen = choose_alibi(alibi, stored, spec, said, path)
    arch = choose_arch(stored, chosen, spec, said, path)
    description = ViTDescription(
        name=source.name if spec is not None or said.name is None else said.name,
        sha256=source.found.sha256,
        verified=source.found.verified,
        arch=arch,
        num_heads=choose_heads(num_heads, stored, arch, spec, said),
        alibi=chosen,
        mean=(spec.mean if spec else said.mean) or IMAGENET_MEAN,
        std=(spec.std if spec else said.std) or IMAGENET_STD,
    )
    return _build(stored, description, path, run)


def _read(path: Path) -> tuple[StoredViT, FileMetadata]:
    checkpoint, said = read_checkpoint(path)
    try:
        return read_layout(checkpoint), said
    except WeightsError as err:
        raise WeightsError(f"{str(path)!r}: {err}") from err


def _build(
    stored: StoredViT,
    description: ViTDescription,
    path: Path,
    run: _Run,
) -> ViTBackbone:
    """Put the stored tensors into the model that `description` asks for."""
    arch, alibi = description.arch, description.alibi
    if run.attention == "flex" and alibi is None:
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
        device=run.device,
        dtype=run.dtype,
        attention=run.attention,
        slopes=stored.slopes if alibi and alibi.slope == "learned" else (),
        path=path,
        dropped=stored.dropped,
    )
