"""A loaded ViT as a feature extractor.

Only this module runs a ViT. Plain models go through timm's own
`forward_intermediates`; ALiBi models through the same blocks with the bias of the
grid as `attn_mask`. Nothing about a grid is stored on the model, so one backbone may
serve several threads and grids at once. On the CPU images run one by one: the result
of an image does not depend on its batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from napari_alibi_seg._base import Alibi, SettingsError
from napari_alibi_seg.features._alibi import (
    FlexBias,
    alibi_slopes,
    cached_bias,
    flex_score_mod,
)
from napari_alibi_seg.features._arch import Arch
from napari_alibi_seg.features._device import BatchLimit, autocast, forward_batched

__all__ = ["Attention", "ViTBackbone", "ViTDescription"]

Attention = Literal["sdpa", "flex"]
_Triple = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class ViTDescription:
    """Everything that decides what a ViT computes, but for its weights' values.

    Attributes
    ----------
    name : str
        Of the registry, or of the file.
    sha256 : str
        Of the weights file.
    verified : bool
        Whether a public source states that hash.
    arch : Arch
        As it computes: without position table and rotary embedding under ALiBi.
    num_heads : int
        Attention heads.
    alibi : Alibi or None
        None: position as stored.
    mean, std : tuple of float
        Input normalisation of images in 0 to 1.
    """

    name: str
    sha256: str
    verified: bool
    arch: Arch
    num_heads: int
    alibi: Alibi | None
    mean: _Triple
    std: _Triple

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            "status": "verified" if self.verified else "unverified",
            "alibi": None if self.alibi is None else self.alibi.to_dict(),
            "num_heads": self.num_heads,
            "arch": self.arch.to_dict(),
            "mean": [*self.mean],
            "std": [*self.std],
            "denoiser": None,
        }


class ViTBackbone:
    """Final-normed patch tokens of a ViT. Made by `load_backbone`.

    Attributes
    ----------
    name : str
        Of the registry, or of the file.
    patch_size, embed_dim, num_heads : int
        As everywhere.
    alibi : Alibi or None
        None: position as stored.
    mean, std : tuple of float
        Normalise images in 0 to 1 with these.
    device : torch.device
        Where it computes.
    dtype : torch.dtype
        What it computes in; results are float32 all the same.
    attention : {"sdpa", "flex"}
        How an ALiBi bias enters attention.
    path : Path or None
        Of the weights file.
    dropped : tuple of str
        Keys of the file that patch tokens do not need.
    """

    def __init__(
        self,
        model: nn.Module,
        description: ViTDescription,
        *,
        device: torch.device,
        dtype: torch.dtype,
        attention: Attention = "sdpa",
        slopes: tuple[Tensor, ...] = (),
        path: Path | None = None,
        dropped: tuple[str, ...] = (),
    ) -> None:
        self._model = model.to(device)
        self._description = description
        self._slopes = _block_slopes(description, slopes, device)
        self._limit = BatchLimit(1 if device.type == "cpu" else None)
        self.name = description.name
        self.patch_size = description.arch.patch_size
        self.embed_dim = description.arch.embed_dim
        self.num_heads = description.num_heads
        self.alibi = description.alibi
        self.mean = description.mean
        self.std = description.std
        self.device = device
        self.dtype = dtype
        self.attention = attention
        self.path = path
        self.dropped = dropped

    @property
    def identity(self) -> dict[str, Any]:
        """JSON description of weights and settings, the same on every machine."""
        return self._description.to_dict()

    def __repr__(self) -> str:
        return (
            f"ViTBackbone({self.name!r}, patch_size={self.patch_size}, "
            f"embed_dim={self.embed_dim}, alibi={self.alibi}, "
            f"device={str(self.device)!r})"
        )

    def patch_features(self, images: Tensor) -> Tensor:
        """Return the patch tokens of normalised images.

        Parameters
        ----------
        images : (B, 3, H, W) float tensor or array
            Normalised with `mean` and `std`; on any device. H and W are multiples of
            the patch size.

        Returns
        -------
        (B, C, H / patch_size, W / patch_size) float32 tensor on `device`
            After the final norm. An inference tensor: clone it before it takes part
            in training.

        Raises
        ------
        SettingsError
            If the shape or the type of `images` is another.
        DeviceMemoryError
            If a single image does not fit into the memory of the device.
        ComputeError
            If the forward pass fails in another way.
        """
        batch = _checked(images, self.patch_size)
        with torch.inference_mode():
            return forward_batched(self._forward, batch, self._limit)

    def layer_features(
        self, images: Tensor, layers: Sequence[int] | None = None, *, norm: bool = True
    ) -> Tensor:
        """Return the patch tokens after several blocks.

        Parameters
        ----------
        images : (B, 3, H, W) float tensor or array
            As for `patch_features`.
        layers : sequence of int, optional
            Blocks, counted from 0, negative ones from the last. Default: all.
        norm : bool
            Through the final norm, as the last block's always are in
            `patch_features`; otherwise as they leave the block.

        Returns
        -------
        (B, L, C, H / patch_size, W / patch_size) float32 tensor on `device`
            With `norm` those of the last block are `patch_features`.

        Raises
        ------
        SettingsError
            If there is no such layer, or `images` are others.
        DeviceMemoryError
            If a single image does not fit into the memory of the device.
        ComputeError
            If the forward pass fails in another way.
        """
        depth = self._description.arch.depth
        wanted = range(depth) if layers is None else layers
        if not len(wanted) or not all(-depth <= i < depth for i in wanted):
            raise SettingsError(
                f"`layers` must be some of 0 to {depth - 1}, or -{depth} to -1, got "
                f"{[*wanted]}."
            )
        indices = [i % depth for i in wanted]
        forward = partial(self._layers, indices=indices, norm=norm)
        batch = _checked(images, self.patch_size)
        with torch.inference_mode():
            return forward_batched(forward, batch, self._limit)

    def _forward(self, images: Tensor) -> Tensor:
        last = self._description.arch.depth - 1
        return self._layers(images, indices=[last], norm=True)[:, 0]

    def _layers(self, images: Tensor, *, indices: Sequence[int], norm: bool) -> Tensor:
        """Return tokens after blocks, (B, L, C, h, w), in the order asked for."""
        images = images.to(self.device, torch.float32)
        blocks = sorted(set(indices))
        with autocast(self.device, self.dtype):
            if self.alibi is not None:
                found = self._alibi_tokens(images, self.alibi, blocks, norm)
            else:
                found = self._model.forward_intermediates(  # type: ignore[operator]
                    images,
                    indices=blocks,
                    norm=norm,
                    output_fmt="NCHW",
                    intermediates_only=True,
                )
        return torch.stack([found[blocks.index(i)].float() for i in indices], dim=1)

    def _alibi_tokens(
        self, images: Tensor, alibi: Alibi, wanted: Sequence[int], norm: bool
    ) -> list[Tensor]:
        """Run timm's modules one by one, each block with its own bias."""
        model: Any = self._model
        x = model.patch_embed(images)  # (B, h, w, C)
        b, h, w, c = x.shape
        prefix = [t for t in (model.cls_token, model.reg_token) if t is not None]
        x = torch.cat(
            [*(t.expand(b, -1, -1) for t in prefix), x.reshape(b, h * w, c)], dim=1
        )  # (B, N, C)
        x = model.norm_pre(x)
        bias = self._flex if self.attention == "flex" else self._mask
        out = []
        for i, (block, slopes) in enumerate(
            zip(model.blocks, self._slopes, strict=True)
        ):
            with bias((h, w), alibi, slopes) as mask:
                x = block(x, attn_mask=mask)
            if i in wanted:
                y = model.norm(x) if norm else x
                y = y[:, self._description.arch.n_prefix :]  # (B, hw, C)
                out.append(y.reshape(b, h, w, c).permute(0, 3, 1, 2).contiguous())
        return out

    @contextlib.contextmanager
    def _mask(
        self, grid: tuple[int, int], alibi: Alibi, slopes: Tensor | None
    ) -> Iterator[Tensor]:
        n_prefix = self._description.arch.n_prefix
        if slopes is None:  # one (1, 1, N, N) matrix, whatever the number of heads
            yield cached_bias(
                grid, n_prefix, alibi, device=self.device, dtype=self.dtype
            )
            return
        bias = cached_bias(grid, n_prefix, alibi, device=self.device)
        yield (slopes * bias).to(self.dtype)  # (1, heads, N, N), for this block only

    @contextlib.contextmanager
    def _flex(
        self, grid: tuple[int, int], alibi: Alibi, slopes: Tensor | None
    ) -> Iterator[None]:
        if slopes is None:
            slopes = torch.ones(self.num_heads, device=self.device)
        mod = flex_score_mod(
            grid, self._description.arch.n_prefix, alibi, slopes.flatten()
        )
        with FlexBias(mod, _flex_attention(self.device.type)) as mode:
            yield None
        if mode.calls != 1:
            raise SettingsError(
                "attention='flex' needs timm's fused attention, which is switched off "
                "here (TIMM_FUSED_ATTN=0?). Switch it on or use attention='sdpa'."
            )


def _block_slopes(
    description: ViTDescription, learned: tuple[Tensor, ...], device: torch.device
) -> list[Tensor | None]:
    """Return the (1, heads, 1, 1) slopes of each block; None where all are 1."""
    alibi, depth = description.alibi, description.arch.depth
    if alibi is None:
        return [None] * depth
    if alibi.slope == "learned":
        return [m.to(device).reshape(1, -1, 1, 1) for m in learned]
    same = alibi_slopes(alibi, description.num_heads)
    return [None if same is None else same.to(device)] * depth


@cache
def _flex_attention(device_type: str) -> Callable[..., Any]:
    """Return FlexAttention: one kernel on a GPU, plain (slow) tensors elsewhere.

    Compiled for each grid by itself: with sizes left open, torch 2.15 fails at the
    second grid. torch keeps eight; a ninth grid in one process is computed unfused,
    and torch says so.
    """
    from torch.nn.attention.flex_attention import flex_attention

    backend = "inductor" if device_type == "cuda" else "eager"
    compiled: Callable[..., Any] = torch.compile(
        flex_attention, dynamic=False, backend=backend
    )
    return compiled


def _checked(images: Tensor, patch_size: int) -> Tensor:
    batch = torch.as_tensor(images)
    if batch.ndim != 4 or batch.shape[1] != 3 or len(batch) == 0:
        raise SettingsError(
            f"`images` must be (B, 3, H, W) with B > 0, got {tuple(batch.shape)}."
        )
    if not batch.is_floating_point():
        raise SettingsError(
            f"`images` must be floats, normalised with `mean` and `std`, got "
            f"{batch.dtype}."
        )
    height, width = batch.shape[2:]
    if height % patch_size or width % patch_size or not height or not width:
        raise SettingsError(
            f"`images` must have sides that are multiples of the patch size "
            f"{patch_size}, got {(height, width)}. Pad or crop them."
        )
    return batch
