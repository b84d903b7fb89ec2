"""ViTs that can be trained: the same forward as `_vit`, with gradients.

Only this module makes weights that were not read from a file, and only when a training
asks for them. What it trains goes back to a file through `state`, in the layout that
`load_backbone` reads.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from timm.layers import build_sincos2d_pos_embed
from torch import Tensor, nn

from napari_alibi_seg._base import Alibi, SettingsError
from napari_alibi_seg.features._alibi import alibi_slopes, cached_bias
from napari_alibi_seg.features._arch import Arch, build_model
from napari_alibi_seg.features._files import FileMetadata, save_backbone
from napari_alibi_seg.features._vit import ViTBackbone

__all__ = ["TrainableViT", "new_vit", "trainable_copy"]

_INIT_STD = 0.02
# The fastest wave has a radian to a token, the slowest a tenth: monotonic on the
# grids that are trained, so that place can be read off it.
_TABLE_TEMPERATURE = 10.0
# Up to here explicit attention trains 1.4 times faster on a CPU than the fused kernel,
# whose backward pass is slow.
_UNFUSED_TOKENS = 600


class TrainableViT(nn.Module):
    """A ViT under training.

    Parameters
    ----------
    model : nn.Module
        timm's ViT.
    arch : Arch
        Its architecture; without a position table under ALiBi.
    num_heads : int
        Attention heads.
    alibi : Alibi or None
        None: position as the model has it, which needs a table.
    mean, std : tuple of float
        Input normalisation of images in 0 to 1.

    Attributes
    ----------
    mask_token : nn.Parameter
        (1, 1, C), takes the place of hidden patches; not part of `state`.
    """

    def __init__(
        self,
        model: nn.Module,
        arch: Arch,
        num_heads: int,
        alibi: Alibi | None,
        *,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
    ) -> None:
        super().__init__()
        if alibi is None and arch.family != "vit":
            raise SettingsError(
                "Only timm's `VisionTransformer` can be trained with its own position "
                f"embedding, got the family {arch.family!r}. Give an `Alibi`."
            )
        self.model = model.requires_grad_(True)
        self.arch = arch
        self.num_heads = num_heads
        self.alibi = alibi
        self.mean = mean
        self.std = std
        self.mask_token = nn.Parameter(torch.zeros(1, 1, arch.embed_dim))
        self.slopes = nn.ParameterList(
            # Press et al. learn slopes from a uniform start; 1 is the constant slope
            nn.Parameter(torch.rand(num_heads, 1, 1))
            for _ in range(arch.depth if alibi and alibi.slope == "learned" else 0)
        )

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return self.arch.patch_size

    @property
    def embed_dim(self) -> int:
        """Channels of a token."""
        return self.arch.embed_dim

    def forward(self, images: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Return the final-normed patch tokens, (B, C, h, w).

        Parameters
        ----------
        images : (B, 3, H, W) float tensor
            Normalised; sides are multiples of the patch size.
        hidden : (B, h, w) bool tensor, optional
            Patches that the model must do without.
        """
        model: Any = self.model
        x = model.patch_embed(images)  # (B, h, w, C)
        if hidden is not None:
            x = torch.where(hidden[..., None], self.mask_token[:, None].to(x.dtype), x)
        b, h, w, c = x.shape
        if self.alibi is None:
            x = model._pos_embed(x)
        else:
            prefix = [t for t in (model.cls_token, model.reg_token) if t is not None]
            x = torch.cat(
                [*(t.expand(b, -1, -1) for t in prefix), x.reshape(b, h * w, c)], dim=1
            )  # (B, N, C)
        x = model.norm_pre(x)
        is_small = x.device.type == "cpu" and x.shape[1] <= _UNFUSED_TOKENS
        for block in model.blocks:
            block.attn.fused_attn = not is_small
        for block, mask in zip(model.blocks, self._masks((h, w), x), strict=True):
            x = block(x) if mask is None else block(x, attn_mask=mask)
        x = model.norm(x)[:, self.arch.n_prefix :]  # (B, hw, C)
        return x.reshape(b, h, w, c).permute(0, 3, 1, 2)  # (B, C, h, w)

    def _masks(self, grid: tuple[int, int], x: Tensor) -> list[Tensor | None]:
        """Return the bias of each block."""
        alibi, depth = self.alibi, self.arch.depth
        if alibi is None:
            return [None] * depth
        kind = x.device.type
        autocast = torch.is_autocast_enabled(kind)
        dtype = torch.get_autocast_dtype(kind) if autocast else x.dtype
        bias = cached_bias(grid, self.arch.n_prefix, alibi, device=x.device)
        if alibi.slope == "learned":
            return [(m[None] * bias).to(dtype) for m in self.slopes]
        slopes = alibi_slopes(alibi, self.num_heads)
        if slopes is not None:
            bias = slopes.to(x.device) * bias
        return [bias.to(dtype)] * depth

    def state(self) -> dict[str, Tensor]:
        """Return the tensors that make up the backbone, for a file."""
        tensors = {k: v.detach() for k, v in self.model.state_dict().items()}
        for i, m in enumerate(self.slopes):
            tensors[f"blocks.{i}.attn.m"] = m.detach()
        return tensors

    def save(
        self, path: Path, *, name: str, licence: str | None, dtype: torch.dtype
    ) -> None:
        """Write a file that `load_backbone` reads."""
        said = FileMetadata(
            alibi=self.alibi,
            num_heads=self.num_heads,
            mean=self.mean,
            std=self.std,
            norm_eps=self.arch.norm_eps,
            name=name,
            **({} if licence is None else {"licence": licence}),
        )
        save_backbone(path, {k: v.to(dtype) for k, v in self.state().items()}, said)


def trainable_copy(backbone: ViTBackbone, alibi: Alibi | None) -> TrainableViT:
    """Return a copy of a loaded ViT to train, its position tables replaced by ALiBi.

    Parameters
    ----------
    backbone : ViTBackbone
        Loaded with the same `alibi`; or, where it has no learned slopes to load, with
        slope "constant", at which they then start.
    alibi : Alibi or None
        None keeps position as it is.
    """
    description = backbone._description
    accepted = [alibi]
    if alibi is not None and alibi.slope == "learned":
        accepted.append(replace(alibi, slope="constant"))
    if backbone.alibi not in accepted:
        raise SettingsError(
            f"The backbone was loaded with alibi={backbone.alibi!r}, not {alibi!r}."
        )
    model = copy.deepcopy(backbone._model).to("cpu").train()
    out = TrainableViT(
        model,
        description.arch,
        description.num_heads,
        alibi,
        mean=description.mean,
        std=description.std,
    )
    if out.slopes:
        for own, stored in zip(out.slopes, backbone._slopes, strict=True):
            start = torch.ones(1) if stored is None else stored.reshape(own.shape)
            own.data.copy_(start)
    return out


def new_vit(
    *,
    embed_dim: int,
    depth: int,
    num_heads: int,
    patch_size: int,
    registers: int,
    mlp_ratio: float = 4.0,
    alibi: Alibi | None,
    table: tuple[int, int] | None = None,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    seed: int,
) -> TrainableViT:
    """Return a ViT with random weights, to be trained.

    Parameters
    ----------
    embed_dim, depth, num_heads, patch_size, registers, mlp_ratio
        As everywhere.
    alibi : Alibi or None
        None needs `table`.
    table : (int, int), optional
        Grid of a learned position table.
    mean, std : tuple of float
        Input normalisation.
    seed : int
        Of the weights.

    Examples
    --------
    >>> tiny = new_vit(
    ...     embed_dim=32,
    ...     depth=1,
    ...     num_heads=2,
    ...     patch_size=4,
    ...     registers=1,
    ...     alibi=Alibi(),
    ...     mean=(0, 0, 0),
    ...     std=(1, 1, 1),
    ...     seed=0,
    ... )
    >>> tiny(torch.zeros(1, 3, 12, 8)).shape
    torch.Size([1, 32, 3, 2])
    """
    if (alibi is None) == (table is None):
        raise SettingsError(
            "A new ViT needs either an `Alibi` or a position `table`, got "
            f"alibi={alibi!r}, table={table!r}."
        )
    if embed_dim % num_heads:
        raise SettingsError(
            f"`embed_dim` must be a multiple of `num_heads`, got {embed_dim} and "
            f"{num_heads}."
        )
    arch = Arch(
        family="vit",
        patch_size=patch_size,
        embed_dim=embed_dim,
        depth=depth,
        registers=registers,
        mlp="plain",
        mlp_rows=int(embed_dim * mlp_ratio),
        qkv_fused=True,
        qkv_bias=True,
        qk_norm=False,
        layer_scale=False,
        attn_norm=False,
        mlp_norm=False,
        pre_norm=False,
        final_norm=True,
        table=table,
        table_prefix=False,
        rope=None,
        norm_eps=1e-6,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(arch, num_heads).to_empty(device="cpu").train()
        _initialise(model, table)
        return TrainableViT(model, arch, num_heads, alibi, mean=mean, std=std)


def _initialise(model: nn.Module, grid: tuple[int, int] | None) -> None:
    """Give every tensor its usual start; none is left as memory had it."""
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
            continue
        for name, tensor in module.named_parameters(recurse=False):
            if name == "bias":
                nn.init.zeros_(tensor)
            elif isinstance(module, nn.Conv2d):
                # patches come in with unit variance: 0.02 would leave tokens so small
                # that the first blocks learn nothing of them for a thousand steps
                fan_in = tensor[0].numel()
                nn.init.trunc_normal_(tensor, std=fan_in**-0.5)
            elif name == "pos_embed":
                _fill_table(tensor, grid)
            else:
                nn.init.trunc_normal_(tensor, std=_INIT_STD)


def _fill_table(table: Tensor, grid: tuple[int, int] | None) -> None:
    """Fill a position table with waves, as large as the tokens it is added to.

    A table of small noise, the usual start, is not seen by the first blocks for
    thousands of steps. It is learned from here on.
    """
    assert grid is not None
    n = table.shape[-1]
    waves = build_sincos2d_pos_embed(
        list(grid), dim=-(-n // 4) * 4, temperature=_TABLE_TEMPERATURE
    )
    with torch.no_grad():
        table.copy_(waves[:, :n].reshape(table.shape))
