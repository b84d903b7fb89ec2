"""What a state dict holds: whose key layout, which architecture, which position.

Only this module knows key names of other people's checkpoints. It finds the ViT in a
checkpoint, renames its tensors to timm's names, reads the architecture off their
shapes, and says where the model keeps its position: in a table, in rotary
frequencies, or (a table of zeros, none at all) nowhere in the file. It decides
nothing: `_load` chooses what to do about position, `_arch` checks that every key has
its place.

Layouts: timm's `VisionTransformer` (DINO, DINOv2, MAE, iBOT, DeiT-III, CLIP,
supervised) and `Eva` (EVA-02, DINOv3), Meta's DINOv2 and DINOv3, transformers' DINOv3,
the original DeiT-III and EVA-02, and these with prefixes or inside training
checkpoints.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from napari_alibi_seg._base import WeightsError
from napari_alibi_seg.features._arch import Arch, list_keys

__all__ = ["Position", "StoredViT", "read_layout"]

Position = Literal["table", "rope", "zero", "absent", "unsaid"]
_State = dict[str, Tensor]

# Where training scripts put the weights worth having, best first.
_CONTAINERS = ("teacher", "model_ema", "state_dict", "model", "module", "denoiser")
_STEM = "patch_embed.proj.weight"
_WRAPPERS = re.compile(r"^(?:(?:module|model|vit|backbone|teacher|encoder)\.)+")
# Heads and training-only tensors: the patch tokens do not depend on them. `fc_norm`
# follows a pooling that patch tokens do not pass through.
_DROPPED = re.compile(
    r"^(?:head|heads|head_dist|fc_norm|pre_logits|attn_pool|lm_head|dino_head"
    r"|ibot_head|projectors|local_cls_norm|mask_token|decoder\w*)(?:\.|$)"
)
_BLOCK = re.compile(r"^blocks\.(\d+)\.")
_SLOPE = re.compile(r"^blocks\.(\d+)\.attn\.m$")
_ROTARY = re.compile(r"(?:^|\.)rope(?:_embed)?\.(?:periods|freqs_cos|freqs_sin)$")
_EVA_ONLY = (".attn.q_bias", ".attn.q_proj.weight", ".mlp.w1.weight", ".fc1_g.weight")
# Meta's, BAAI's and Facebook's names for what timm calls otherwise.
_RENAMED = (
    ("register_tokens", "reg_token"),
    ("storage_tokens", "reg_token"),
    (".mlp.w12.", ".mlp.fc1."),
    (".mlp.w3.", ".mlp.fc2."),
    (".mlp.w1.", ".mlp.fc1_g."),
    (".mlp.w2.", ".mlp.fc1_x."),
    (".mlp.ffn_ln.", ".mlp.norm."),
    (".attn.inner_attn_ln.", ".attn.norm."),
)
_RENAMED_VIT = ((".gamma_1", ".ls1.gamma"), (".gamma_2", ".ls2.gamma"))
_RENAMED_EVA = ((".ls1.gamma", ".gamma_1"), (".ls2.gamma", ".gamma_2"))
# transformers' names, as in Meta's DINOv3 repositories on the hub; before v5 there was
# no "model." before the layers.
_HUB_STEM = "embeddings.patch_embeddings.weight"
_HUB_NAMES = (
    ("embeddings.patch_embeddings.", "patch_embed.proj."),
    ("embeddings.register_tokens", "reg_token"),
    ("embeddings.", ""),
    ("model.layer.", "layer."),
    ("layer.", "blocks."),
    (".attention.o_proj.", ".attn.proj."),
    (".attention.", ".attn."),
    (".layer_scale1.lambda1", ".gamma_1"),
    (".layer_scale2.lambda1", ".gamma_2"),
    (".mlp.gate_proj.", ".mlp.fc1_g."),
    (".mlp.down_proj.", ".mlp.fc2."),
)
# DINOv3's rotary base; a file with another one must not pass for it.
_DINOV3_BASE = 100.0
_PERIOD_TOLERANCE = 0.02  # Meta stores the periods in bfloat16


@dataclass(frozen=True)
class StoredViT:
    """A ViT as a file stores it, under timm's names.

    Attributes
    ----------
    tensors : dict of str to Tensor
        The weights, position table included, learned slopes not.
    arch : Arch
        As stored.
    position : {"table", "rope", "zero", "absent", "unsaid"}
        "unsaid": DINOv3 in the layout of timm or transformers, whose rotary
        frequencies are in no file.
    slopes : tuple of Tensor
        Learned ALiBi slopes, (heads,) for each block; empty where there are none.
    num_heads : int or None
        Where slopes or rotary periods give it away.
    dropped : tuple of str
        Keys of heads and training-only tensors that were left out.
    names : dict of str to str
        Key in the file of each key in `tensors`.
    prefix : str
        What stands before the ViT's keys in the file.
    """

    tensors: _State
    arch: Arch
    position: Position
    slopes: tuple[Tensor, ...]
    num_heads: int | None
    dropped: tuple[str, ...]
    names: dict[str, str]
    prefix: str

    def name_in_file(self, key: str) -> str:
        """Return what the file calls timm's `key`, or would call it if it had it."""
        if key in self.names:
            return self.names[key]
        block = _BLOCK.match(key)
        for i in range(self.arch.depth if block else 0):
            twin = self.names.get(_BLOCK.sub(f"blocks.{i}.", key))
            if block and twin is not None:
                return twin.replace(f"blocks.{i}.", block.group(0))
        return self.prefix + key


def read_layout(checkpoint: Mapping[str, Any]) -> StoredViT:
    """Find the ViT in `checkpoint` and describe it.

    Parameters
    ----------
    checkpoint : mapping
        A state dict, or what a training script saved around one.

    Raises
    ------
    WeightsError
        If there is no ViT of a known layout, or keys are left over.
    """
    if any(str(key).endswith(_HUB_STEM) for key in checkpoint):
        checkpoint = _from_transformers(checkpoint)
    state, prefix, dropped = _select(_unwrap(checkpoint))
    stored_slopes = {k: state.pop(k) for k in [*state] if _SLOPE.match(k)}
    rotary = {k: state.pop(k) for k in [*state] if _ROTARY.search(k)}
    meta = "storage_tokens" in state or any(k.endswith(".bias_mask") for k in state)
    tensors, names = _rename(state, prefix, meta=meta)
    table = _table(tensors)
    arch = _architecture(
        tensors,
        table,
        rotary=bool(rotary),
        meta=meta,
        pooled=any("fc_norm." in key for key in dropped),
    )
    slopes = _slopes(stored_slopes, arch.depth)
    return StoredViT(
        tensors=tensors,
        arch=arch,
        position=_position(tensors, arch, bool(rotary)),
        slopes=slopes,
        num_heads=_heads(slopes, rotary, arch.embed_dim),
        dropped=dropped,
        names=names,
        prefix=prefix,
    )


def _unwrap(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    """Descend into training checkpoints until a patch embedding shows."""
    if any(str(key).endswith(_STEM) for key in checkpoint):
        return checkpoint
    for name in _CONTAINERS:
        inner = checkpoint.get(name)
        if isinstance(inner, Mapping):
            return _unwrap(inner)
    hint = ""
    if any(str(key).startswith("denoiser.") for key in checkpoint):
        hint = " It looks like a DVT denoiser: give it to `load_denoiser`."
    raise WeightsError(
        f"There is no ViT of a known layout in the file: no key ends with {_STEM!r}. "
        f"Its keys are: {list_keys(map(str, checkpoint), 8) or 'none'}.{hint}"
    )


def _from_transformers(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    gated = any(".mlp.gate_proj." in key for key in checkpoint)
    first = (".mlp.up_proj.", ".mlp.fc1_x." if gated else ".mlp.fc1.")
    out = {}
    for key, value in checkpoint.items():
        for old, new in (*_HUB_NAMES, first):
            key = key.replace(old, new)
        out[key] = value
    return out


def _select(state: Mapping[str, Any]) -> tuple[_State, str, tuple[str, ...]]:
    """Take the tensors of one ViT, without their prefix; sort the rest out."""
    prefix = _prefix([key for key in state if key.endswith(_STEM)])
    tensors, dropped, unexpected = {}, [], []
    for key, value in state.items():
        inside = key.startswith(prefix)
        name = key.removeprefix(prefix) if inside else _WRAPPERS.sub("", key)
        if _DROPPED.match(name) or key.startswith("student."):
            dropped.append(key)
        elif inside and isinstance(value, Tensor):
            tensors[name] = value
        else:
            unexpected.append(key)
    if unexpected:
        raise WeightsError(
            f"The file has unexpected keys beside the ViT: {list_keys(unexpected)}."
        )
    return tensors, prefix, tuple(dropped)


def _prefix(stems: list[str]) -> str:
    """Return what stands before the keys of the ViT; a teacher's comes first."""
    if len(stems) > 1:
        stems = [stem for stem in stems if stem.startswith("teacher.")] or stems
    if len(stems) > 1:
        raise WeightsError(
            f"The file holds {len(stems)} ViTs: {list_keys(stems)}. Save the one you "
            "want in a file of its own."
        )
    return stems[0].removesuffix(_STEM)


def _rename(state: _State, prefix: str, *, meta: bool) -> tuple[_State, dict[str, str]]:
    """Return the tensors under timm's names, and their names in the file."""
    eva = meta or any(key.endswith(_EVA_ONLY) for key in state)
    if any(key.endswith(".gamma_1") for key in state):  # DINOv3 in timm, or DeiT-III
        eva |= not any(key.endswith(".attn.qkv.bias") for key in state)
    rules = (*_RENAMED, *(_RENAMED_EVA if eva else _RENAMED_VIT))
    split = any(key.endswith(".attn.q_proj.weight") for key in state)
    tensors: _State = {}
    names = {}
    for key, value in state.items():
        name = key
        for old, new in rules:
            name = name.replace(old, new)
        if split:  # EVA-02 keeps the biases of separate projections beside them
            name = name.replace(".q_bias", ".q_proj.bias")
            name = name.replace(".v_bias", ".v_proj.bias")
        for final, part in _split_bias(name, value, state) if eva else [(name, value)]:
            tensors[final], names[final] = part, prefix + key
    return tensors, names


def _split_bias(
    name: str, value: Tensor, state: _State
) -> Iterator[tuple[str, Tensor]]:
    """Turn Meta's qkv bias, whose k part is masked, into timm's q and v biases."""
    if name.endswith(".bias_mask"):
        return
    if not name.endswith(".attn.qkv.bias"):
        yield name, value
        return
    if value.ndim != 1 or len(value) % 3:
        raise WeightsError(f"{name!r} has shape {tuple(value.shape)}, expected (3 n,).")
    q, k, v = value.chunk(3)
    mask = state.get(name + "_mask")
    # An unfilled mask is NaN: Meta's own code fills it when it builds the model.
    masked = mask is None or bool(mask.isnan().any()) or not mask.chunk(3)[1].any()
    if not masked or (mask is None and bool(k.any())):
        raise WeightsError(
            f"{name!r} has a bias for the keys that is not masked to zero; no model "
            "of this layout is known to have one."
        )
    yield name.replace(".qkv.bias", ".q_bias"), q
    yield name.replace(".qkv.bias", ".v_bias"), v


def _table(tensors: _State) -> tuple[tuple[int, int], bool] | None:
    """Return grid and prefix rows of the position table; fold a lone class row."""
    table = tensors.get("pos_embed")
    if table is None:
        return None
    if "cls_token" not in tensors:
        raise WeightsError("The keys do not fit a ViT. missing: cls_token.")
    rows = table.shape[1] if table.ndim == 3 else -1
    registers = _registers(tensors)
    for prefix in (0, 1 + registers, 1):
        side = math.isqrt(max(0, rows - prefix))
        if side > 0 and side * side == rows - prefix:
            if prefix == 1 and registers:
                # Registers stand between class token and patches, and Meta's table
                # knows nothing of them: its first row goes to the class token.
                tensors["cls_token"] = tensors["cls_token"] + table[:, :1]
                tensors["pos_embed"] = table[:, 1:]
                prefix = 0
            return (side, side), prefix > 0
    raise WeightsError(
        f"The position table has shape {tuple(table.shape)}; expected (1, n, width) "
        "with n the tokens of a square grid, with or without class and registers."
    )


def _registers(tensors: _State) -> int:
    registers = tensors.get("reg_token")
    if registers is None:
        return 0
    if registers.ndim != 3:
        raise WeightsError(
            "The register tokens must be (1, n, width), got shape "
            f"{tuple(registers.shape)}."
        )
    return registers.shape[1]


def _first(tensors: _State, *endings: str) -> Tensor:
    """Return the first tensor of a block that ends with one of `endings`."""
    for key, value in tensors.items():
        if _BLOCK.match(key) and key.endswith(endings) and value.ndim == 2:
            return value
    raise WeightsError(f"The keys do not fit a ViT. missing: blocks.0{endings[0]}.")


def _stem_shape(tensors: _State) -> tuple[int, int]:
    shape = tuple(tensors[_STEM].shape)
    if len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3]:
        raise WeightsError(
            f"{_STEM!r} must be (width, 3, patch, patch) for images of three "
            f"channels, got {shape}."
        )
    return shape[0], shape[2]


def _architecture(
    tensors: _State,
    table: tuple[tuple[int, int], bool] | None,
    *,
    rotary: bool,
    meta: bool,
    pooled: bool,
) -> Arch:
    """Read the architecture off names and shapes."""
    if "cls_token" not in tensors:
        raise WeightsError("The keys do not fit a ViT. missing: cls_token.")

    def has(*endings: str) -> bool:
        return any(key.endswith(endings) for key in tensors)

    embed_dim, patch_size = _stem_shape(tensors)
    blocks = [int(m.group(1)) for m in map(_BLOCK.match, tensors) if m]
    mlp, rows = _mlp(tensors)
    eva = mlp == "gated" or has(".q_bias", ".q_proj.weight", ".gamma_1")
    pre_norm, registers = has("norm_pre.weight"), _registers(tensors)
    return Arch(
        family="eva" if eva else "vit",
        patch_size=patch_size,
        embed_dim=embed_dim,
        depth=1 + max(blocks, default=-1),
        registers=registers,
        mlp=mlp,
        mlp_rows=rows,
        qkv_fused=not has(".attn.q_proj.weight"),
        qkv_bias=has(".attn.qkv.bias", ".q_bias", ".q_proj.bias"),
        qk_norm=has(".attn.q_norm.weight"),
        layer_scale=has(".ls1.gamma", ".gamma_1"),
        attn_norm=has(".attn.norm.weight"),
        mlp_norm=has(".mlp.norm.weight"),
        pre_norm=pre_norm,
        # A model that norms after pooling has none before; one without either is torn.
        final_norm=not pooled or "norm.weight" in tensors or "norm.bias" in tensors,
        table=None if table is None else table[0],
        table_prefix=table is not None and table[1],
        rope=_rope(eva, table is not None, mlp != "plain", rotary, meta),
        # No file says its epsilon: that of CLIP and of DINOv3, that of all others.
        norm_eps=1e-5 if pre_norm or (eva and registers) else 1e-6,
    )


def _mlp(tensors: _State) -> tuple[Literal["plain", "packed", "gated"], int]:
    """Return the kind of MLP and the rows of its first matrix."""
    gated = any(key.endswith(".mlp.fc1_g.weight") for key in tensors)
    rows = _first(tensors, ".mlp.fc1_g.weight", ".mlp.fc1.weight").shape[0]
    if gated:
        return "gated", rows
    packed = rows == 2 * _first(tensors, ".mlp.fc2.weight").shape[1]
    return ("packed" if packed else "plain"), rows


def _rope(
    eva: bool, table: bool, swiglu: bool, rotary: bool, meta: bool
) -> Literal["dinov3", "eva02"] | None:
    """Return the rotary embedding that goes with a layout.

    timm computes it and keeps nothing in the file; Meta's layout keeps the periods,
    and without them there is none.
    """
    if eva and table and swiglu:
        return "eva02"
    if eva and not table and (rotary or not meta):
        return "dinov3"
    if rotary:
        raise WeightsError("The file has rotary frequencies, but no layout known here.")
    return None


def _position(tensors: _State, arch: Arch, rotary: bool) -> Position:
    if arch.table is not None:
        return "table" if bool(torch.any(tensors["pos_embed"] != 0)) else "zero"
    if rotary:
        return "rope"
    return "absent" if arch.rope is None else "unsaid"


def _slopes(stored: _State, depth: int) -> tuple[Tensor, ...]:
    """Return the learned slopes in the order of the blocks: of all or of none."""
    lacking = [f"blocks.{i}.attn.m" for i in range(depth)]
    lacking = [key for key in lacking if key not in stored]
    if stored and (lacking or len(stored) != depth):
        raise WeightsError(
            f"The file has learned slopes for {len(stored)} of {depth} blocks. "
            f"missing: {list_keys(lacking) or 'none'}."
        )
    slopes = tuple(
        stored[f"blocks.{i}.attn.m"].detach().float().flatten()
        for i in range(depth if stored else 0)
    )
    if len({len(s) for s in slopes}) > 1:
        raise WeightsError("The blocks have learned slopes for unequal head counts.")
    return slopes


def _heads(
    slopes: tuple[Tensor, ...], rotary: Mapping[str, Tensor], embed_dim: int
) -> int | None:
    """Return the number of heads that slopes or rotary periods give away."""
    if slopes:
        return len(slopes[0])
    periods = [value for key, value in rotary.items() if key.endswith(".periods")]
    if not periods:
        return None
    n = periods[0].numel()
    expected = _DINOV3_BASE ** (torch.arange(n) / n)
    stored = periods[0].float().flatten()
    if n == 0 or not torch.allclose(stored, expected, rtol=_PERIOD_TOLERANCE):
        raise WeightsError(
            "The rotary periods in the file are not those of DINOv3 (base "
            f"{_DINOV3_BASE:g}): {stored[:4].tolist()}... instead of "
            f"{expected[:4].tolist()}..."
        )
    return embed_dim // (4 * n)
