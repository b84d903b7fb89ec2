"""Features of intermediate blocks: the last ones are the final features."""

from __future__ import annotations

import pytest
import torch

from napari_alibi_seg import Alibi
from napari_alibi_seg._base import SettingsError
from napari_alibi_seg.features import ViTBackbone, load_backbone, new_vit


@pytest.fixture(scope="module", params=["ALiBi", "table"])
def backbone(request, tmp_path_factory) -> ViTBackbone:
    is_alibi = request.param == "ALiBi"
    vit = new_vit(
        embed_dim=32,
        depth=3,
        num_heads=2,
        patch_size=4,
        registers=1,
        alibi=Alibi() if is_alibi else None,
        table=None if is_alibi else (4, 4),
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
        seed=0,
    )
    path = tmp_path_factory.mktemp("layers") / "tiny.safetensors"
    vit.save(path, name="tiny", licence=None, dtype=torch.float32)
    return load_backbone(path, device="cpu")


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 16, 12, generator=torch.Generator().manual_seed(0))


def test_last_layer_is_the_final_features(backbone, images):
    layers = backbone.layer_features(images)
    assert layers.shape == (2, 3, 32, 4, 3)
    assert layers.dtype == torch.float32
    torch.testing.assert_close(layers[:, -1], backbone.patch_features(images))
    assert not torch.allclose(layers[:, 0], layers[:, 1], atol=1e-2)


def test_layers_come_in_the_order_asked_for(backbone, images):
    layers = backbone.layer_features(images)
    some = backbone.layer_features(images, [-1, 0, 2])
    torch.testing.assert_close(some, layers[:, [2, 0, 2]])


def test_norm_can_be_left_out(backbone, images):
    normed = backbone.layer_features(images)
    raw = backbone.layer_features(images, norm=False)
    # a fresh norm takes mean and deviation of every token, nothing else
    again = torch.nn.functional.layer_norm(raw.movedim(2, -1), (32,), eps=1e-6)
    torch.testing.assert_close(again.movedim(-1, 2), normed)
    assert not torch.allclose(raw, normed, atol=1e-2)


@pytest.mark.parametrize("layers", [[], [3], [-4, 0]])
def test_layers_that_are_not_there(backbone, images, layers):
    with pytest.raises(SettingsError, match=r"some of 0 to 2, or -3 to -1, got \["):
        backbone.layer_features(images, layers)
