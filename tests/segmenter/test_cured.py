"""A classifier trained with a cured backbone finds the same features again."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from napari_alibi_seg import FeatureSettings, Segmenter
from napari_alibi_seg._base import WeightsError
from napari_alibi_seg.data import draw_scribbles, synthesize

_TWIN = Path(__file__).resolve().parents[1] / "data" / "twin-table.safetensors"
_SETTINGS = FeatureSettings(
    kind="vit", tile_px=56, halo_tokens=1, components=4, scale=1.0
)


@pytest.fixture
def made():
    return synthesize("spinodal", (96, 96), seed=1)


@pytest.mark.parametrize("words", ["roll=2", "blank=1,2+average=4", "nope"])
def test_saved_and_loaded(words, made, tmp_path):
    weights = tmp_path / "twin.safetensors"
    shutil.copy(_TWIN, weights)
    segmenter = Segmenter(f"{weights}+{words}", features=_SETTINGS, device="cpu")
    segmenter.fit(made.image, draw_scribbles(made.mask, seed=0))
    expected = segmenter.predict(made.image)
    segmenter.save(tmp_path / "c.alibiseg")
    again = Segmenter.load(tmp_path / "c.alibiseg", device="cpu")
    assert again.backbone.identity == segmenter.backbone.identity
    assert again.weights_hint == f"{weights}+{words}"
    found = again.predict(made.image)
    np.testing.assert_array_equal(found.probabilities, expected.probabilities)


def test_another_cure_is_another_backbone(made, tmp_path):
    from napari_alibi_seg.features import load_backbone

    segmenter = Segmenter(f"{_TWIN}+roll=2", features=_SETTINGS, device="cpu")
    segmenter.fit(made.image, draw_scribbles(made.mask, seed=0))
    segmenter.save(tmp_path / "c.alibiseg")
    for other in (f"{_TWIN}", f"{_TWIN}+roll=3"):
        with pytest.raises(WeightsError, match="was trained on"):
            Segmenter.load(
                tmp_path / "c.alibiseg", backbone=load_backbone(other, device="cpu")
            )


def test_stores_of_cures_are_kept_apart(made, tmp_path):
    stores = tmp_path / "stores"
    maps = []
    for words in ("", "+roll=2", "+average=4", "+roll=2"):
        segmenter = Segmenter(
            f"{_TWIN}{words}", features=_SETTINGS, store=stores, device="cpu"
        )
        embedding = segmenter.embed(made.image)
        tile = embedding.store.grid.tiles[0]
        maps.append(np.asarray(embedding.store.read(tile)))
    assert len(list(stores.glob("*.zarr"))) == 3
    assert np.array_equal(maps[1], maps[3])
    assert not np.array_equal(maps[0], maps[1])
    assert not np.array_equal(maps[1], maps[2])
