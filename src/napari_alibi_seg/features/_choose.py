"""What a weights file is to be: ALiBi settings, architecture, heads.

Only this module decides. The order is always: what the caller gave, the registry's
row, the file's own metadata, the default; and where a wrong guess would go unnoticed
there is no default but a question.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Final, Literal

from napari_alibi_seg._base import Alibi, SettingsError, WeightsError
from napari_alibi_seg.features._arch import Arch
from napari_alibi_seg.features._files import FileMetadata
from napari_alibi_seg.features._layouts import StoredViT
from napari_alibi_seg.features._registry import BackboneSpec

__all__ = [
    "NOT_GIVEN",
    "AlibiArgument",
    "check_row",
    "choose_alibi",
    "choose_arch",
    "choose_heads",
]

_logger = logging.getLogger(__name__)

_HEAD_WIDTH = 64


class _NotGiven(Enum):
    NOT_GIVEN = "not given"

    def __repr__(self) -> str:
        return "<not given>"


NOT_GIVEN: Final = _NotGiven.NOT_GIVEN
AlibiArgument = Alibi | None | Literal[_NotGiven.NOT_GIVEN]


def check_row(stored: StoredViT, spec: BackboneSpec, path: Path) -> None:
    """Refuse a file that is not what the registry says lies under this name.

    Raises
    ------
    WeightsError
        If size, registers or position are others.
    """
    arch = stored.arch
    pairs = {
        "patch size": (arch.patch_size, spec.patch_size),
        "width": (arch.embed_dim, spec.embed_dim),
        "depth": (arch.depth, spec.depth),
        "registers": (arch.registers, spec.registers),
    }
    wrong = [
        f"{k} {is_} instead of {be}" for k, (is_, be) in pairs.items() if is_ != be
    ]
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


def choose_alibi(
    given: AlibiArgument,
    stored: StoredViT,
    spec: BackboneSpec | None,
    said: FileMetadata,
    path: Path,
) -> Alibi | None:
    """Return the ALiBi settings of a backbone, None for position as stored.

    Raises
    ------
    SettingsError
        If nobody said what a file without position is, or its learned slopes would be
        ignored.
    WeightsError
        If learned slopes are wanted and not there.
    """
    if isinstance(given, Alibi) or given is None:
        chosen = given
    elif given is not NOT_GIVEN:
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
        "unsaid": "no position embedding (the DINOv3 layout of timm and of "
        "transformers, whose rotary embedding is in no file)",
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


def choose_arch(
    stored: StoredViT,
    alibi: Alibi | None,
    spec: BackboneSpec | None,
    said: FileMetadata,
    path: Path,
) -> Arch:
    """Return the architecture as it is to compute.

    Raises
    ------
    WeightsError
        If metadata and tensors contradict each other.
    """
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


def choose_heads(
    given: int | None,
    stored: StoredViT,
    arch: Arch,
    spec: BackboneSpec | None,
    said: FileMetadata,
) -> int:
    """Return the number of attention heads.

    Raises
    ------
    SettingsError
        If it does not fit the width or the file, or nothing says it.
    """
    width = arch.embed_dim
    row = spec.num_heads if spec is not None else None
    if given is not None and (type(given) is not int or given < 1):
        raise SettingsError(f"`num_heads` must be a positive integer, got {given!r}.")
    heads = given or row or said.num_heads or stored.num_heads
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
