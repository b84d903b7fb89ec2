"""Small micrographs with scribbles, a backbone that counts, and a tiny real ViT."""

from __future__ import annotations

from functools import cache

import numpy as np

from napari_alibi_seg._base import Alibi
from napari_alibi_seg.data import draw_scribbles, synthesize

IDS = (1, 3)


@cache
def sample(shape=(96, 128), seed=1):
    """Return a two-phase image, its mask with the ids 1 and 3, and scribbles on it."""
    made = synthesize("spinodal", shape, seed=seed)
    mask = np.where(made.mask == 2, IDS[1], IDS[0]).astype(np.uint8)
    scribbles = draw_scribbles(mask, strokes_per_class=3, seed=seed)
    for array in (made.image, mask, scribbles):
        array.flags.writeable = False
    return made.image, mask, scribbles


class CountingBackbone:
    """Tokens are the patch's means and standard deviation; counts what it is shown."""

    embed_dim = 4
    mean = (0.0, 0.0, 0.0)
    std = (1.0, 1.0, 1.0)

    def __init__(self, patch_size=14, *, alibi=True, device="cpu"):
        self.name = "counting"
        self.patch_size = patch_size
        self.alibi = Alibi() if alibi else None
        self.device = device
        self.batches = []

    @property
    def n_images(self):
        return sum(self.batches)

    def patch_features(self, images):
        import torch

        self.batches.append(len(images))
        p = self.patch_size
        b, c, h, w = images.shape
        cells = images.reshape(b, c, h // p, p, w // p, p)
        means = cells.mean(dim=(3, 5))
        spread = cells[:, 0].std(dim=(2, 4), correction=0)[:, None]
        return torch.cat([means, spread], dim=1)

    @property
    def identity(self):
        return {
            "name": self.name,
            "sha256": "0" * 64,
            "alibi": None if self.alibi is None else self.alibi.to_dict(),
            "patch_size": self.patch_size,
        }


def write_tiny_vit(path, seed=0):
    """Write a DINOv2-shaped ViT of random weights whose position table is zero."""
    import torch
    from safetensors.torch import save_file
    from timm.models.vision_transformer import VisionTransformer

    model = VisionTransformer(
        img_size=70,
        patch_size=14,
        embed_dim=64,
        depth=2,
        num_heads=1,
        init_values=1e-5,
        num_classes=0,
    )
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, value in model.state_dict().items():
        centre = 1.0 if name.endswith("gamma") or "norm" in name else 0.0
        if name.endswith("norm.bias"):
            centre = 0.0
        noise = torch.randn(value.shape, generator=generator)
        tensors[name] = (centre + 0.15 * noise).contiguous()
    tensors["pos_embed"] = torch.zeros_like(tensors["pos_embed"])
    save_file(tensors, path)
    return path
