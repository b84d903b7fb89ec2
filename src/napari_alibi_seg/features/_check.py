"""Does a named backbone work on this machine? What `alibi-seg models --check` runs.

Only this module knows what to look at: the published file loads, gives finite tokens
of the right shape, and, where ALiBi wraps, sees nothing in an image without content.
"""

from __future__ import annotations

from typing import Any

import torch

from napari_alibi_seg.features._load import load_backbone
from napari_alibi_seg.features._registry import backbone_spec

__all__ = ["check_backbone"]

_GRID = (16, 16)
# Wrapped ALiBi cannot tell the tokens of a constant image apart but by rounding.
_CONSTANT_TOLERANCE = 1e-3


def check_backbone(name: str, *, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Load a named backbone, run it on synthetic images and report.

    Parameters
    ----------
    name : str
        From `list_backbones`, with weights on this machine.
    device : {"auto", "cpu", "cuda", "cuda:<n>", "mps"} or torch.device
        Where to run.

    Returns
    -------
    dict of JSON values
        "ok", and what it rests on: "shape" and "finite" of the features of a noise
        image; "constant_spread", the largest distance of a token from the mean token
        on a constant image over the mean token's length, which "must_be_constant"
        asks to be nearly 0; "name", "title", "licence", "file", "sha256", "status",
        "n_dropped".

    Raises
    ------
    WeightsError, SettingsError
        As `load_backbone`.
    """
    spec = backbone_spec(name)
    backbone = load_backbone(name, device=device)
    size = [n * backbone.patch_size for n in _GRID]
    noise = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    features = backbone.patch_features(noise)
    constant = backbone.patch_features(torch.full((1, 3, *size), 0.5))[0].flatten(1)
    mean = constant.mean(1, keepdim=True)  # (C, 1)
    spread = float((constant - mean).norm(dim=0).max() / mean.norm())
    finite = bool(features.isfinite().all() and constant.isfinite().all())
    must_be_constant = bool(backbone.alibi is not None and backbone.alibi.wrap)
    right_shape = tuple(features.shape) == (1, backbone.embed_dim, *_GRID)
    identity = backbone.identity
    return {
        "name": name,
        "title": spec.title,
        "ok": finite
        and right_shape
        and not (must_be_constant and spread > _CONSTANT_TOLERANCE),
        "shape": [*features.shape],
        "finite": finite,
        "constant_spread": spread,
        "must_be_constant": must_be_constant,
        "file": str(backbone.path),
        "sha256": identity["sha256"],
        "status": identity["status"],
        "licence": spec.licence,
        "num_heads": backbone.num_heads,
        "alibi": identity["alibi"],
        "denoiser": identity["denoiser"],
        "device": str(backbone.device),
    }
