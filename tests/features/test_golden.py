"""Equality with the published reference implementations, on small random weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from napari_alibi_seg._base import Alibi
from napari_alibi_seg.features import load_backbone, load_denoiser
from napari_alibi_seg.features._alibi import alibi_bias

VARIANTS = [
    "dinov2_tiny-constant-wrap-norm",
    "dinov2_tiny-constant-nowrap-norm",
    "dinov2_tiny-constant-wrap-nonorm",
    "dinov2_tiny-fixed-wrap-norm",
    "dinov2_tiny-learned-wrap-norm",
    "dinov3_tiny-constant-wrap-norm",
]


def test_all_variants_are_listed(shared_dir):
    index = json.loads((shared_dir / "golden/alibi/index.json").read_text())
    assert sorted(index) == sorted(VARIANTS)


@pytest.mark.filterwarnings("ignore:flex_attention called without")
@pytest.mark.parametrize("attention", ["sdpa", "flex"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_features_equal_the_reference(shared_dir, variant, attention):
    folder = shared_dir / "golden/alibi"
    row = json.loads((folder / "index.json").read_text())[variant]
    settings = Alibi(row["slope_type"], wrap=row["wrap"], normalize=row["normalize"])
    backbone = load_backbone(
        folder / f"{variant}.safetensors",
        alibi=settings,
        num_heads=3,
        device="cpu",
        attention=attention,
    )
    assert (backbone.patch_size, backbone.embed_dim) == (
        row["patch_size"],
        row["embed_dim"],
    )
    vectors = np.load(folder / f"{variant}.npz")
    grids = len(vectors.files) // 2
    assert grids >= 2
    for i in range(grids):
        out = backbone.patch_features(torch.from_numpy(vectors[f"input_{i}"]))
        assert out.dtype == torch.float32
        np.testing.assert_allclose(
            out.numpy(), vectors[f"features_{i}"], rtol=0, atol=1e-5
        )


def test_bias_matrices_equal_the_reference_bit_for_bit(shared_dir):
    vectors = np.load(shared_dir / "golden/alibi/bias.npz")
    assert len(vectors.files) == 16
    for key in vectors.files:
        grid, metric, norm, wrap = key.split("-")
        alibi = Alibi(wrap=wrap == "wrap", normalize=norm == "norm", metric=metric)
        rows, columns = map(int, grid.split("x"))
        bias = alibi_bias((rows, columns), 5, alibi)
        assert bias.shape[:2] == (1, 1)
        assert bias[0, 0].numpy().tobytes() == vectors[key].tobytes(), key


def test_denoiser_equals_the_reference(shared_dir):
    denoiser = load_denoiser(shared_dir / "golden/dvt/dvt_denoiser.pth", device="cpu")
    vectors = np.load(shared_dir / "golden/dvt/dvt_denoiser.npz")
    for i in range(len(vectors.files) // 2):
        features = torch.from_numpy(vectors[f"input_{i}"]).permute(0, 3, 1, 2)
        out = denoiser(features).permute(0, 2, 3, 1).numpy()
        np.testing.assert_allclose(out, vectors[f"output_{i}"], rtol=0, atol=1e-5)
