"""ViTs for the benchmarks: random ones of a given shape, bare ones, chosen ones.

Random weights cost what trained ones cost, but their features mean nothing; every
table that uses them says so. `BareForward` is timm's model with nothing of ours around
it: what the machine needs at the very least.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors.torch import save_file

from napari_alibi_seg import Alibi
from napari_alibi_seg.features import load_backbone

PATCH_PX = 14
RANDOM_NOTE = "RANDOM WEIGHTS: says nothing about trained ones"


def bare_vit(
    size: str = "small", *, position: bool = False, depth: int = 12, seed: int = 0
) -> Any:
    """Return timm's DINOv2-shaped ViT/14 with four registers and random weights."""
    torch.manual_seed(seed)
    model = timm.create_model(
        f"vit_{size}_patch{PATCH_PX}_reg4_dinov2",
        pretrained=False,
        num_classes=0,
        dynamic_img_size=True,
        depth=depth,
    ).eval()
    for name, value in model.named_parameters():
        # at its start DINOv2 scales what blocks add by 1e-5; a trained one does not
        if name.endswith("gamma"):
            torch.nn.init.constant_(value, 1.0)
        elif name == "pos_embed" and position:
            torch.nn.init.normal_(value, std=0.5)
    if not position:
        model.pos_embed = None
    return model.requires_grad_(False)


def random_vit(
    folder: Path, size: str = "small", *, position: bool = False, depth: int = 12
) -> Path:
    """Write such a ViT to a safetensors file; return the file.

    Without `position` it holds no position table and loads with an `Alibi`.
    """
    weights = bare_vit(size, position=position, depth=depth).state_dict()
    path = folder / f"random-vit-{size}{'-table' if position else ''}.safetensors"
    save_file({k: v.contiguous() for k, v in weights.items()}, path)
    return path


def alibi_mask(side: int, n_prefix: int) -> torch.Tensor:
    """Return the wrapped, normalised ALiBi bias of a square grid, (1, 1, N, N)."""
    near = np.abs(np.arange(side)[:, None] - np.arange(side))
    near = np.minimum(near, side - near) ** 2
    d = np.sqrt(near[:, None, :, None] + near[None, :, None, :])
    d = d.reshape(side * side, side * side)
    mask = np.zeros((n_prefix + side * side,) * 2, np.float32)
    mask[n_prefix:, n_prefix:] = -d / d.max()
    return torch.from_numpy(mask)[None, None]


class BareForward:
    """timm's own forward of square images with a ready-made ALiBi bias.

    Parameters
    ----------
    size : str
        "small" or "base".
    device : str
        Where to compute.
    dtype : torch.dtype
        Autocast to it if it is not float32.
    fused : bool
        False: explicit softmax with a bias of its own for every head, as in the
        reference implementation.
    """

    def __init__(
        self,
        size: str = "small",
        *,
        side: int = 518,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        fused: bool = True,
        depth: int = 12,
    ) -> None:
        self.model = bare_vit(size, depth=depth).to(device)
        self.device, self.dtype = device, dtype
        mask = alibi_mask(side // PATCH_PX, self.model.num_prefix_tokens)
        if not fused:
            heads = self.model.blocks[0].attn.num_heads
            mask = mask.repeat(1, heads, 1, 1)
            for block in self.model.blocks:
                block.attn.fused_attn = False
        self.mask = mask.to(device, dtype)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        half = self.dtype != torch.float32
        with (
            torch.inference_mode(),
            torch.autocast(torch.device(self.device).type, self.dtype, enabled=half),
        ):
            return self.model.forward_features(images, attn_mask=self.mask)


def add_backbones(options: argparse.ArgumentParser) -> None:
    """Add the arguments by which a user chooses backbones."""
    options.add_argument(
        "--backbone",
        action="append",
        default=[],
        metavar="NAME|PATH",
        help="name of the registry or weights file; may be repeated",
    )
    options.add_argument(
        "--alibi",
        choices=("constant", "fixed", "learned", "none"),
        help="for weights files that do not say",
    )
    options.add_argument("--device", default="auto")


def load_chosen(name: str, alibi: str | None, device: str = "auto") -> Any:
    """Load a backbone as the arguments of `add_backbones` say."""
    given: dict[str, Any] = {}
    if alibi is not None:
        given["alibi"] = None if alibi == "none" else Alibi(slope=alibi)
    return load_backbone(name, device=device, **given)
