"""The probe table and its neighbours on the twins: ViTs with and without place."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_alibi_seg.analysis import (
    artefact_score,
    cosine_by_distance,
    fingerprint,
    move_image,
    probe_table,
)
from napari_alibi_seg.data import synthesize
from napari_alibi_seg.features import load_backbone

_FILES = Path(__file__).resolve().parents[1] / "data"
_N = 12


@cache
def _twin(name):
    return load_backbone(_FILES / f"twin-{name}.safetensors", device="cpu")


@cache
def _grains(side):
    """All twins are shown the same, shaded and moved."""
    found = []
    for seed in range(_N):
        image = synthesize("grains", (side, side), seed=seed).image.astype(np.float32)
        found.append((image - image.mean()) / np.ptp(image))
    return found


def _images(twin, kind=None, *, shading=1.0):
    """Pictures brightening to the right, as a tilted sample does, and moved ones."""
    side = 16 * twin.patch_size
    out = []
    for plain in _grains(side):
        image = plain + shading * np.linspace(-1, 1, side)
        out.append(image if kind is None else move_image(image, kind, twin.patch_size))
    return out


def _normalised(twin, image):
    values = torch.tensor(np.ascontiguousarray((image + 2) / 4), dtype=torch.float32)
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (twin.mean, twin.std))
    return (values.expand(1, 3, *image.shape) - mean) / std


@cache
def _features(name, kind=None, *, shading=1.0):
    twin = _twin(name)
    return [
        twin.patch_features(_normalised(twin, image))[0].permute(1, 2, 0).numpy()
        for image in _images(twin, kind, shading=shading)
    ]


@cache
def _table(name):
    return probe_table(_features(name), {"flip": _features(name, "flip")}, n_draws=3)


def test_shading_is_content_and_the_table_is_bias():
    """Both twins read the shaded ramp; only one of them by the frame."""
    table, alibi = (_table(name)["lr"] for name in ("table", "alibi"))
    assert min(table.transfer_r2, alibi.transfer_r2) > 0.5
    assert alibi.control.verdict == "content"
    assert alibi.control.frame < 0.1
    assert table.control.frame > 0.3
    # nothing brightens downwards: there the frame alone is read, or nothing
    assert _table("table")["ud"].control.verdict == "bias"
    assert _table("alibi")["ud"].control.verdict == "neither"
    assert _table("alibi")["ud"].transfer_r2 < 0.1


def test_fingerprint_of_the_twins():
    found = {}
    for name in ("table", "alibi"):
        twin = _twin(name)
        tokens = [
            twin.layer_features(_normalised(twin, image))[0].permute(0, 2, 3, 1).numpy()
            for image in _images(twin)[:6]
        ]
        found[name] = fingerprint(zip(*tokens, strict=True), target="ud")
    table, alibi = found["table"].transfer_r2, found["alibi"].transfer_r2
    assert table.shape == alibi.shape
    assert (table.max(axis=1) > 0.3).any()
    assert table.max() > alibi.max() + 0.2
    last = _features("table")[:6]
    again = fingerprint([last], target="ud").r2[0]
    np.testing.assert_allclose(found["table"].r2[-1], again, atol=1e-4)


def test_cosines_and_artefacts_of_the_twins():
    drops, scores = [], []
    for name in ("table", "alibi"):
        maps = _features(name, shading=0.0)
        drops.append(cosine_by_distance(maps, pairs="between", centre=True).drop)
        scores.append(np.mean([artefact_score(m).of_row.max() for m in maps[:4]]))
    assert drops[0] > drops[1] + 0.05
    assert scores[0] > scores[1] + 0.05


@pytest.mark.parametrize("name", ["table", "alibi"])
def test_the_random_ramp_is_not_read(name):
    assert _table(name)["random"].transfer_r2 < 0.05
