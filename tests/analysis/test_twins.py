"""The claim at the smallest size: position in a ViT, and gone after the retrofit.

The two files were trained by training/twin; see benchmarks/README.md for their numbers
on micrographs. Here the pictures are synthetic, so that nothing beside the package is
needed.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_alibi_seg import Alibi
from napari_alibi_seg.analysis import transfer_probe
from napari_alibi_seg.data import synthesize
from napari_alibi_seg.features import load_backbone, read_checkpoint

_FILES = Path(__file__).resolve().parents[1] / "data"


@cache
def _pictures(side: int) -> list[torch.Tensor]:
    """Both twins are shown the same 32."""
    found = []
    for seed in range(32):
        kind = ("spinodal", "grains", "precipitates")[seed % 3]
        image = synthesize(kind, (side, side), seed=seed).image.astype(np.float32)
        found.append(torch.from_numpy((image - image.min()) / np.ptp(image)))
    return found


def _probe(name: str):
    twin = load_backbone(_FILES / f"twin-{name}.safetensors", device="cpu")
    side = 24 * twin.patch_size
    maps = []
    for values in _pictures(side):
        batch = values.expand(1, 3, side, side)
        mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (twin.mean, twin.std))
        tokens = twin.patch_features((batch - mean) / std)[0]
        maps.append(tokens.permute(1, 2, 0).numpy())
    return twin, transfer_probe(maps, n_held_out=8)


def test_the_twin_with_a_table_knows_position():
    twin, probe = _probe("table")
    assert twin.alibi is None
    assert probe.r2 > 0.5
    assert (probe.r2_per_channel > 0.1).sum() >= 5


def test_its_retrofit_does_not():
    twin, probe = _probe("alibi")
    assert twin.alibi == Alibi()
    assert probe.r2 < 0.05
    assert probe.r2_per_channel.max() < 0.1


@pytest.mark.parametrize("name", ["table", "alibi"])
def test_they_are_small(name):
    tensors, _ = read_checkpoint(_FILES / f"twin-{name}.safetensors")
    assert sum(t.numel() for t in tensors.values()) <= 1_000_000
