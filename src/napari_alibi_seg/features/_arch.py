"""The architecture of a ViT as data, and the timm module it stands for.

Only this module builds models. It builds them empty and takes the weights as they
are: a tensor that does not find its place, or a place without a tensor, is an error,
so there are never random weights. Which file means which architecture is decided in
`_layouts`; the attention bias is none of its business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import torch
from timm.layers import LayerNorm, SwiGLUPacked
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from napari_alibi_seg._base import SettingsError, WeightsError

__all__ = ["Arch", "build_model", "fill_model", "list_keys"]

# EVA-02 states its rotary frequencies for this image size, whatever came later.
_EVA02_REFERENCE_PX = 224


@dataclass(frozen=True, slots=True)
class Arch:
    """Everything but the weights and the number of heads.

    Attributes
    ----------
    family : {"vit", "eva"}
        timm's `VisionTransformer` or `Eva`.
    patch_size, embed_dim, depth, registers : int
        As everywhere.
    mlp : {"plain", "packed", "gated"}
        One matrix and an activation; SwiGLU with both halves in one matrix; SwiGLU
        with one matrix each.
    mlp_rows : int
        Rows of the first MLP matrix.
    qkv_fused, qkv_bias, qk_norm, layer_scale, attn_norm, mlp_norm : bool
        What the blocks have.
    pre_norm, final_norm : bool
        LayerNorm before the first and after the last block.
    table : (int, int) or None
        Grid of the stored position table.
    table_prefix : bool
        Whether the table has rows for class and register tokens too.
    rope : {"dinov3", "eva02"} or None
        Rotary position embedding.
    norm_eps : float
        Epsilon of every LayerNorm.
    activation : {"gelu", "quick_gelu"}
        Of a plain MLP.
    """

    family: Literal["vit", "eva"]
    patch_size: int
    embed_dim: int
    depth: int
    registers: int
    mlp: Literal["plain", "packed", "gated"]
    mlp_rows: int
    qkv_fused: bool
    qkv_bias: bool
    qk_norm: bool
    layer_scale: bool
    attn_norm: bool
    mlp_norm: bool
    pre_norm: bool
    final_norm: bool
    table: tuple[int, int] | None
    table_prefix: bool
    rope: Literal["dinov3", "eva02"] | None
    norm_eps: float
    activation: Literal["gelu", "quick_gelu"] = "gelu"

    @property
    def n_prefix(self) -> int:
        """Class and register tokens."""
        return 1 + self.registers

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; `from_dict` takes them back."""
        values = asdict(self)
        return {**values, "table": None if self.table is None else [*self.table]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Arch:
        """Return the architecture that `to_dict` described.

        Raises
        ------
        SettingsError
            If `values` are not such a description.
        """
        try:
            table = values["table"]
            grid = None if table is None else (int(table[0]), int(table[1]))
            return cls(**{**values, "table": grid})
        except (KeyError, TypeError, ValueError, IndexError) as err:
            raise SettingsError(
                f"This is not the description of a ViT: {values!r}."
            ) from err


def build_model(arch: Arch, num_heads: int) -> nn.Module:
    """Return timm's module for `arch`, without storage ("meta" tensors)."""
    shared: dict[str, Any] = {
        "img_size": tuple(n * arch.patch_size for n in arch.table or (14, 14)),
        "patch_size": arch.patch_size,
        "num_classes": 0,
        "global_pool": "",
        "embed_dim": arch.embed_dim,
        "depth": arch.depth,
        "num_heads": num_heads,
        "qkv_bias": arch.qkv_bias,
        "qk_norm": arch.qk_norm,
        "init_values": 1.0 if arch.layer_scale else None,
        "no_embed_class": not arch.table_prefix,
        "dynamic_img_size": True,
        "norm_layer": partial(LayerNorm, eps=arch.norm_eps),
        "device": "meta",
    }
    return (_vit if arch.family == "vit" else _eva)(arch, shared)


def _ratio(rows: int, arch: Arch) -> float:
    """The `mlp_ratio` that timm multiplies and truncates to exactly `rows`."""
    return (rows + 0.5) / arch.embed_dim


def _vit(arch: Arch, shared: dict[str, Any]) -> nn.Module:
    mlp = {"mlp_layer": SwiGLUPacked} if arch.mlp == "packed" else {}
    return VisionTransformer(
        **shared,
        **mlp,
        act_layer=nn.SiLU if mlp else arch.activation,
        mlp_ratio=_ratio(arch.mlp_rows, arch),
        pos_embed="none" if arch.table is None else "learn",
        reg_tokens=arch.registers,
        scale_attn_norm=arch.attn_norm,
        scale_mlp_norm=arch.mlp_norm,
        pre_norm=arch.pre_norm,
        final_norm=arch.final_norm,
        fc_norm=False,
        weight_init="skip",
    )


def _eva(arch: Arch, shared: dict[str, Any]) -> nn.Module:
    packed = arch.mlp == "packed"
    ropes: dict[str | None, dict[str, Any]] = {
        None: {"use_rot_pos_emb": False},
        "dinov3": {
            "use_rot_pos_emb": True,
            "rope_type": "dinov3",
            "rope_temperature": 100.0,
            "rope_rotate_half": True,
        },
        "eva02": {
            "use_rot_pos_emb": True,
            "ref_feat_shape": (_EVA02_REFERENCE_PX // arch.patch_size,) * 2,
        },
    }
    return Eva(
        **shared,
        **ropes[arch.rope],
        mlp_ratio=_ratio(arch.mlp_rows // 2 if packed else arch.mlp_rows, arch),
        swiglu_mlp=arch.mlp != "plain",
        swiglu_align_to=1 if arch.mlp == "gated" else 0,
        scale_mlp=arch.mlp_norm,
        scale_attn_inner=arch.attn_norm,
        qkv_fused=arch.qkv_fused,
        num_reg_tokens=arch.registers,
        use_abs_pos_emb=arch.table is not None,
        use_pre_transformer_norm=arch.pre_norm,
        use_post_transformer_norm=arch.final_norm,
        use_fc_norm=False,
    )


def list_keys(keys: Iterable[str], limit: int = 20) -> str:
    """Return `keys` for a message: sorted, the first `limit`, and how many more."""
    names = sorted(set(keys))
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def fill_model(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    name_in_file: Callable[[str], str] = str,
) -> None:
    """Give an empty `model` its weights, in place, as float32 on the CPU.

    Parameters
    ----------
    model : nn.Module
        From `build_model`.
    tensors : mapping of str to Tensor
        The weights under the model's names.
    name_in_file : callable
        Turns the model's name of a tensor into the one the user knows.

    Raises
    ------
    WeightsError
        If `tensors` are not exactly those of the model, in name and shape.
    """
    wanted = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    missing = wanted.keys() - tensors.keys()
    unexpected = tensors.keys() - wanted.keys()
    wrong = [
        f"{name_in_file(name)} {tuple(tensors[name].shape)} instead of {shape}"
        for name, shape in wanted.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    parts = [
        f"{what}: {listed}"
        for what, keys in (
            ("missing", map(name_in_file, missing)),
            ("unexpected", map(name_in_file, unexpected)),
            ("of another shape", wrong),
        )
        if (listed := list_keys(keys))
    ]
    if parts:
        raise WeightsError("The keys do not fit the model. " + "; ".join(parts) + ".")
    floats = {name: t.detach().float() for name, t in tensors.items()}
    model.load_state_dict(floats, strict=True, assign=True)
    _fill_buffers(model)
    model.requires_grad_(False).eval()


def _fill_buffers(model: nn.Module) -> None:
    """Compute what timm keeps beside the weights (rotary periods, a zero k-bias)."""
    for module in model.modules():
        empty = [n for n, b in module.named_buffers(recurse=False) if b.is_meta]
        for name in empty:
            buffer = torch.empty_like(module.get_buffer(name), device="cpu")
            module.register_buffer(name, buffer, persistent=False)
        if empty:
            module.init_non_persistent_buffers()  # type: ignore[operator]
