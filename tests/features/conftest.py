"""Tiny ViTs of every kind, with random weights, built from timm's own classes."""

from __future__ import annotations

import socket
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from timm.layers import LayerNorm, SwiGLUPacked
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer

_SMALL = {
    "embed_dim": 64,
    "depth": 2,
    "num_heads": 1,
    "dynamic_img_size": True,
}
_DINOV3 = {
    **_SMALL,
    "patch_size": 16,
    "img_size": 64,
    "num_classes": 0,
    "init_values": 1e-5,
    "rope_type": "dinov3",
    "rope_temperature": 100,
    "rope_rotate_half": True,
    "use_rot_pos_emb": True,
    "use_abs_pos_emb": False,
    "num_reg_tokens": 4,
    "use_fc_norm": False,
    "norm_layer": partial(LayerNorm, eps=1e-5),
}
_KINDS = {
    "dinov2": (
        VisionTransformer,
        {**_SMALL, "patch_size": 14, "img_size": 70, "init_values": 1e-5}
        | {"num_classes": 0},
    ),
    "dinov2-reg": (
        VisionTransformer,
        {**_SMALL, "patch_size": 14, "img_size": 70, "init_values": 1e-5}
        | {"reg_tokens": 4, "no_embed_class": True, "num_classes": 0},
    ),
    "dinov2-giant": (
        VisionTransformer,
        {**_SMALL, "patch_size": 14, "img_size": 70, "init_values": 1e-5}
        | {"mlp_ratio": 5.5, "mlp_layer": SwiGLUPacked, "num_classes": 0}
        | {"act_layer": torch.nn.SiLU},
    ),
    "supervised": (VisionTransformer, {**_SMALL, "patch_size": 16, "img_size": 64}),
    "dino-p8": (
        VisionTransformer,
        {**_SMALL, "patch_size": 8, "img_size": 32, "num_classes": 0},
    ),
    "clip": (
        VisionTransformer,
        {**_SMALL, "patch_size": 16, "img_size": 64, "pre_norm": True}
        | {"norm_layer": partial(LayerNorm, eps=1e-5), "num_classes": 10},
    ),
    "deit3": (
        VisionTransformer,
        {**_SMALL, "patch_size": 16, "img_size": 64, "no_embed_class": True}
        | {"init_values": 1e-6},
    ),
    "eva02": (
        Eva,
        {**_SMALL, "patch_size": 14, "img_size": 56, "qkv_fused": False}
        | {"mlp_ratio": 4 * 2 / 3, "swiglu_mlp": True, "scale_mlp": True}
        | {"use_rot_pos_emb": True, "ref_feat_shape": (16, 16), "num_classes": 0},
    ),
    "dinov3": (Eva, {**_DINOV3, "qkv_bias": False}),
    "dinov3-qkvb": (Eva, {**_DINOV3, "qkv_bias": True}),
    "dinov3-splus": (
        Eva,
        {**_DINOV3, "qkv_bias": True, "swiglu_mlp": True, "swiglu_align_to": 8},
    ),
}


@pytest.fixture
def make_vit():
    """Build a timm model of a kind, every parameter random and of some weight."""

    def make(kind: str, seed: int = 0, **changes) -> torch.nn.Module:
        cls, kwargs = _KINDS[kind]
        model = cls(**{**kwargs, **changes})
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, p in model.named_parameters():
                centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
                centre = 1.0 if "gamma" in name else centre
                noise = torch.randn(p.shape, generator=generator)
                p.copy_(centre + 0.15 * noise)
        return model.eval()

    return make


@pytest.fixture
def save(tmp_path: Path):
    """Write a state dict as safetensors and return its path."""

    def write(tensors, name: str = "vit.safetensors", metadata=None) -> Path:
        path = tmp_path / name
        plain = {k: v.detach().clone().contiguous() for k, v in tensors.items()}
        save_file(plain, path, metadata=metadata)
        return path

    return write


@pytest.fixture
def images():
    """Seeded normal noise of a grid of patches."""

    def make(patch: int, grid: tuple[int, int], batch: int = 1) -> torch.Tensor:
        generator = torch.Generator().manual_seed(1)
        size = (batch, 3, grid[0] * patch, grid[1] * patch)
        return torch.randn(size, generator=generator)

    return make


@pytest.fixture
def timm_features():
    """What timm itself computes."""

    def run(model: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return model.forward_intermediates(
                x, indices=1, norm=True, output_fmt="NCHW", intermediates_only=True
            )[0]

    return run


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """A machine without weights: an empty cache, an empty hub cache."""
    root = tmp_path / "cache"
    monkeypatch.setenv("ALIBI_SEG_CACHE", str(root))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return root


@pytest.fixture
def no_network(monkeypatch):
    """Every attempt to connect is a failure of the test."""

    def refuse(*args, **kwargs):
        raise AssertionError(f"opened a connection to {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
