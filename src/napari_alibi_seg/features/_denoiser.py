"""DVT's stage-2 denoiser: one transformer block that takes position out of features.

Only this module knows its checkpoints; training is left to `distill`. A denoiser
belongs to the backbone it was trained on: same width, last layer, final-normed patch
tokens.

References
----------
Yang et al. (2024), "Denoising Vision Transformers", ECCV, arXiv:2401.02957.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timm.layers import LayerNorm, resample_abs_pos_embed
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from napari_alibi_seg._base import SettingsError, WeightsError
from napari_alibi_seg.features._arch import fill_model, list_keys
from napari_alibi_seg.features._device import (
    BatchLimit,
    autocast,
    forward_batched,
    resolve_device,
    resolve_dtype,
)
from napari_alibi_seg.features._files import read_checkpoint
from napari_alibi_seg.features._hash import file_sha256
from napari_alibi_seg.features._vit import ViTBackbone

__all__ = ["DenoisedBackbone", "Denoiser", "load_denoiser", "new_denoiser"]

_HEAD_WIDTH = 64
_TABLE_STD = 0.02
_NUMBERED = re.compile(r"^denoiser\.(\d+)\.")
_STEM = "patch_embed.proj.weight"


class _Blocks(nn.Module):
    """The module behind the checkpoint's keys: a position table and the blocks."""

    def __init__(self, tensors: Mapping[str, Tensor], num_heads: int) -> None:
        super().__init__()
        table = tensors["pos_embed"]
        self.pos_embed = nn.Parameter(torch.empty_like(table, device="meta"))
        numbers = [int(m.group(1)) for m in map(_NUMBERED.match, tensors) if m]
        first = "denoiser.0." if numbers else "denoiser."
        rows = tensors[first + "mlp.fc1.weight"].shape[0]
        width = table.shape[2]
        make = partial(
            Block,
            width,
            num_heads,
            mlp_ratio=(rows + 0.5) / width,
            qkv_bias=True,
            norm_layer=partial(LayerNorm, eps=1e-6),
            device="meta",
        )
        several = nn.ModuleList(make() for _ in range(1 + max(numbers, default=0)))
        self.denoiser: nn.Module = several if numbers else several[0]

    def forward(self, features: Tensor) -> Tensor:
        b, c, h, w = features.shape
        side = math.isqrt(self.pos_embed.shape[1])
        table = resample_abs_pos_embed(
            self.pos_embed, new_size=[h, w], old_size=[side, side], num_prefix_tokens=0
        )  # (1, hw, C)
        x = features.flatten(2).transpose(1, 2) + table  # (B, hw, C)
        several = isinstance(self.denoiser, nn.ModuleList)
        for block in self.denoiser if several else [self.denoiser]:  # type: ignore[union-attr]
            x = block(x)
        return x.transpose(1, 2).reshape(b, c, h, w)


class Denoiser:
    """Takes position-dependent artefacts out of patch tokens.

    Made by `load_denoiser`.

    Attributes
    ----------
    embed_dim, num_heads : int
        Width of the features it takes, and its attention heads.
    n_parameters : int
        Position table included.
    sha256 : str
        Of the file.
    path : Path
        Of the file.
    device : torch.device
        Where it computes.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        embed_dim: int,
        num_heads: int,
        path: Path,
        device: torch.device,
    ) -> None:
        self._model = model.to(device)
        self._limit = BatchLimit(1 if device.type == "cpu" else None)
        self._dtype = resolve_dtype(None, device)
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.n_parameters = sum(p.numel() for p in model.parameters())
        self.sha256 = file_sha256(path)
        self.path = path
        self.device = device

    def __call__(self, features: Tensor) -> Tensor:
        """Return denoised features.

        Parameters
        ----------
        features : (B, C, h, w) float tensor
            Final-normed patch tokens of the backbone the denoiser was trained on.

        Returns
        -------
        (B, C, h, w) float32 tensor on `device`

        Raises
        ------
        SettingsError
            If the shape is another.
        DeviceMemoryError
            If the features of one image do not fit into the memory of the device.
        """
        batch = torch.as_tensor(features)
        if batch.ndim != 4 or batch.shape[1] != self.embed_dim or not len(batch):
            raise SettingsError(
                f"`features` must be (B, {self.embed_dim}, h, w) with B > 0, got "
                f"{tuple(batch.shape)}."
            )
        with torch.inference_mode():
            return forward_batched(self._forward, batch, self._limit)

    def _forward(self, features: Tensor) -> Tensor:
        features = features.to(self.device, torch.float32)
        with autocast(self.device, self._dtype):
            out: Tensor = self._model(features)
        return out.float()

    def wrap(self, backbone: ViTBackbone, name: str | None = None) -> DenoisedBackbone:
        """Return a backbone whose features pass through this denoiser.

        Parameters
        ----------
        backbone : Backbone
            Of the same width.
        name : str, optional
            Of the result.

        Raises
        ------
        SettingsError
            If the widths differ.
        """
        if backbone.embed_dim != self.embed_dim:
            raise SettingsError(
                f"The denoiser takes features of width {self.embed_dim}, the backbone "
                f"{backbone.name!r} has {backbone.embed_dim}."
            )
        here = self
        if backbone.device != self.device:
            here = load_denoiser(self.path, device=backbone.device)
        return DenoisedBackbone(backbone, here, name)


class DenoisedBackbone:
    """A backbone with a denoiser behind it. Made by `Denoiser.wrap`.

    Has all that the backbone has; `identity` names the denoiser too.
    """

    def __init__(
        self, backbone: ViTBackbone, denoiser: Denoiser, name: str | None = None
    ) -> None:
        self.backbone = backbone
        self.denoiser = denoiser
        self.name = name or f"{backbone.name}+{denoiser.path.stem}"
        self.patch_size = backbone.patch_size
        self.embed_dim = backbone.embed_dim
        self.num_heads = backbone.num_heads
        self.alibi = backbone.alibi
        self.mean = backbone.mean
        self.std = backbone.std
        self.device = backbone.device
        self.dtype = backbone.dtype
        self.path = backbone.path

    @property
    def identity(self) -> dict[str, Any]:
        """JSON description of weights and settings, the same on every machine."""
        inner = {
            "base": self.backbone.name,
            "sha256": self.denoiser.sha256,
            "num_heads": self.denoiser.num_heads,
        }
        return {**self.backbone.identity, "name": self.name, "denoiser": inner}

    def patch_features(self, images: Tensor) -> Tensor:
        """Return denoised patch tokens; see `ViTBackbone.patch_features`."""
        return self.denoiser(self.backbone.patch_features(images))

    def __repr__(self) -> str:
        return f"DenoisedBackbone({self.name!r}, {self.backbone!r})"


def new_denoiser(embed_dim: int, side: int, *, seed: int) -> nn.Module:
    """Return an untrained denoiser, for the training to give it its weights.

    Parameters
    ----------
    embed_dim : int
        Width of the features.
    side : int
        Rows and columns of the position table.
    seed : int
        Of the weights.

    Returns
    -------
    nn.Module
        Maps (B, C, h, w) to (B, C, h, w), with gradients; its state dict is what
        `load_denoiser` reads, under the released checkpoints' names.

    Raises
    ------
    SettingsError
        If the width does not split into heads.

    Examples
    --------
    >>> model = new_denoiser(384, 37, seed=0)
    >>> sum(p.numel() for p in model.parameters())
    2300160
    """
    num_heads = max(1, embed_dim // _HEAD_WIDTH)
    if embed_dim % num_heads:
        raise SettingsError(
            f"A denoiser needs a width that splits into {num_heads} heads, got "
            f"{embed_dim}."
        )
    shapes = {
        "pos_embed": torch.empty(1, side * side, embed_dim, device="meta"),
        "denoiser.mlp.fc1.weight": torch.empty(4 * embed_dim, 1, device="meta"),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _Blocks(shapes, num_heads).to_empty(device="cpu")
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.LayerNorm):
                module.reset_parameters()
        nn.init.normal_(model.pos_embed, std=_TABLE_STD)
    return model


def load_denoiser(path: str | Path, *, device: str | torch.device = "auto") -> Denoiser:
    """Load a DVT stage-2 denoiser.

    Parameters
    ----------
    path : str or Path
        A checkpoint of Denoising-ViT, with or without optimiser and step, or its
        state dict as `.pth` or `.safetensors`.
    device : {"auto", "cpu", "cuda", "cuda:<n>", "mps"} or torch.device
        "auto" takes the best there is.

    Returns
    -------
    Denoiser
        Callable on (B, C, h, w), for any h and w.

    Raises
    ------
    WeightsError
        If the file is absent, damaged, or holds something else.
    SettingsError
        If the device is not here.
    """
    path = Path(path).expanduser()
    where = resolve_device(device)
    contents, _ = read_checkpoint(path)
    try:
        tensors = _tensors(contents)
        width = _width(tensors)
        num_heads = max(1, width // _HEAD_WIDTH)
        model = _Blocks(tensors, num_heads)
        fill_model(model, tensors)
    except WeightsError as err:
        raise WeightsError(f"{str(path)!r}: {err}") from err
    return Denoiser(
        model, embed_dim=width, num_heads=num_heads, path=path, device=where
    )


def _tensors(contents: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the denoiser's tensors, without the ViT that training kept beside."""
    inner = contents.get("denoiser", contents)
    state = inner if isinstance(inner, Mapping) else contents
    own = {
        str(key).removeprefix("module."): value
        for key, value in state.items()
        if isinstance(value, Tensor)
    }
    own = {key: value for key, value in own.items() if not key.startswith("vit.")}
    if any(key.startswith("denoiser.") for key in own):
        return own
    hint = ""
    if any(key.endswith(_STEM) for key in own):
        hint = " It holds a whole ViT: give it to `load_backbone`."
    raise WeightsError(
        "There is no denoiser in the file: no key starts with 'denoiser.'. Its keys "
        f"are: {list_keys(map(str, contents), 8) or 'none'}.{hint}"
    )


def _width(tensors: Mapping[str, Tensor]) -> int:
    """Return the width, and check what the module is built from."""
    numbered = any(_NUMBERED.match(key) for key in tensors)
    needed = ("pos_embed", f"denoiser.{'0.' if numbered else ''}mlp.fc1.weight")
    missing = [key for key in needed if key not in tensors]
    if missing:
        raise WeightsError(
            f"The keys do not fit a denoiser. missing: {list_keys(missing)}."
        )
    table, mlp = (tensors[key] for key in needed)
    side = math.isqrt(table.shape[1]) if table.ndim == 3 else 0
    if not side or side * side != table.shape[1] or mlp.ndim != 2:
        raise WeightsError(
            f"The position table has shape {tuple(table.shape)}; expected (1, n, "
            "width) with n the tokens of a square grid."
        )
    width = table.shape[2]
    if width % max(1, width // _HEAD_WIDTH):
        raise WeightsError(
            f"The width {width} does not split into {width // _HEAD_WIDTH} heads."
        )
    return width
