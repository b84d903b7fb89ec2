"""The backbone that ships: whole, small, free of position, and loaded from nowhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from napari_alibi_seg import Alibi
from napari_alibi_seg._base import WeightsError
from napari_alibi_seg.analysis import transfer_probe
from napari_alibi_seg.data import synthesize
from napari_alibi_seg.features import _weights as weights_module
from napari_alibi_seg.features import (
    backbone_spec,
    check_backbone,
    download_weights,
    find_weights,
    list_backbones,
    load_backbone,
    read_checkpoint,
)
from napari_alibi_seg.features._weights import require_weights

NAME = "alibi-tiny"


@pytest.fixture(scope="module")
def tiny():
    return load_backbone(NAME, device="cpu")


def test_the_row_is_what_the_file_is(tiny):
    spec = backbone_spec(NAME)
    assert spec.bundled
    assert spec.source == "this package"
    assert (tiny.patch_size, tiny.embed_dim) == (spec.patch_size, spec.embed_dim)
    assert tiny.alibi == spec.alibi == Alibi()
    assert tiny.patch_size <= 14


def test_it_is_small_and_its_hash_is_pinned(tiny):
    found = require_weights(NAME)
    assert found.verified
    assert found.path.stat().st_size <= 13_000_000
    tensors, _ = read_checkpoint(found.path)
    assert sum(t.numel() for t in tensors.values()) <= 6_000_000


def test_its_card_lies_beside_it():
    card = find_weights(NAME).with_suffix(".md").read_text(encoding="utf-8")
    assert backbone_spec(NAME).sha256 in card
    assert "tf_efficientnet_lite0" in card
    assert "Apache-2.0" in card


def test_it_needs_neither_network_nor_cache(empty_cache, no_network):
    path = find_weights(NAME)
    assert path.is_file()
    assert empty_cache not in path.parents
    assert download_weights(NAME) == path
    assert not empty_cache.exists() or not list(empty_cache.rglob("*.safetensors"))
    assert check_backbone(NAME)["ok"]


def test_an_incomplete_installation_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(weights_module, "files", lambda _: tmp_path)
    with pytest.raises(WeightsError, match=r"incomplete\. Install it again"):
        require_weights(NAME)


def test_a_damaged_file_is_refused(monkeypatch, tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    data = bytearray(find_weights(NAME).read_bytes())
    data[-1] ^= 1
    (folder / backbone_spec(NAME).file).write_bytes(data)
    monkeypatch.setattr(weights_module, "files", lambda _: tmp_path)
    with pytest.raises(WeightsError, match="SHA-256"):
        require_weights(NAME)


def test_it_tells_textures_apart_and_not_places(tiny):
    """Tokens of one texture are alike wherever they lie; position cannot be read."""
    side = 24 * tiny.patch_size
    maps = []
    for seed in range(32):
        image = synthesize("spinodal", (side, side), seed=seed).image
        values = np.asarray(image, np.float32)
        values = (values - values.min()) / np.ptp(values)
        batch = torch.from_numpy(np.repeat(values[None, None], 3, axis=1))
        mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (tiny.mean, tiny.std))
        tokens = tiny.patch_features((batch - mean) / std)[0]
        maps.append(tokens.permute(1, 2, 0).float().numpy())
    probe = transfer_probe(maps, n_held_out=8)
    assert probe.r2 < 0.05
    assert probe.r2_per_channel.max() < 0.1
    assert np.concatenate([m.reshape(-1, m.shape[2]) for m in maps]).std(0).min() > 0


def test_only_it_ships():
    assert [s.name for s in list_backbones() if s.bundled] == [NAME]
    folder = Path(str(find_weights(NAME))).parent
    assert {p.suffix for p in folder.iterdir()} == {".safetensors", ".md"}
