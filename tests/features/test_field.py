"""DVT's field: it tells planted content from planted position, and can be stopped."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_alibi_seg._base import SettingsError
from napari_alibi_seg.features import (
    FIELD_PRESETS,
    FieldSettings,
    field_bytes,
    fit_image,
    iter_fit_field,
    iter_fit_image,
    load_backbone,
)

_GRID = 14


def _semantic(places, weights):
    """Smooth content of a place in the image, (..., C)."""
    x, y = places[..., :1] * 2 * np.pi, places[..., 1:] * 2 * np.pi
    waves = [torch.sin(a * x + b * y) for a in (0, 1, 2) for b in (1, 2)]
    return torch.cat([*waves, torch.cos(x), torch.cos(y)], dim=-1) @ weights


class Planted:
    """Content that follows the image, an artefact that follows the frame.

    The image carries its own coordinates in two channels, so content is known at
    every place of every crop.
    """

    patch_size = 4
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    device = torch.device("cpu")

    def __init__(self, n_channels=16, seed=0):
        rng = torch.Generator().manual_seed(seed)
        self.weights = torch.randn(8, n_channels, generator=rng)
        # as strong as the content, and not smooth
        self.artefact = 2 * torch.randn(_GRID, _GRID, n_channels, generator=rng)

    def patch_features(self, images):
        places = torch.nn.functional.avg_pool2d(images[:, :2], 4).permute(0, 2, 3, 1)
        out = _semantic(places, self.weights) + self.artefact
        return out.permute(0, 3, 1, 2)


def _coordinates(side):
    at = (torch.arange(side) + 0.5) / side
    y, x = torch.meshgrid(at, at, indexing="ij")
    return torch.stack([x, y, 0 * x])


def _correlation(a, b):
    """Of two maps, up to a constant in every channel."""
    a, b = (v.reshape(-1, v.shape[-1]) for v in (a, b))
    a, b = a - a.mean(0), b - b.mean(0)
    return float((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()))


def test_planted_content_comes_back():
    planted = Planted()
    image = _coordinates(_GRID * planted.patch_size)
    settings = FieldSettings(views=40, steps=500, batch=1024, levels=4, finest=32)
    found = fit_image(planted, image, settings)
    places = torch.nn.functional.avg_pool2d(image[None, :2], 4)[0].permute(1, 2, 0)
    wanted = _semantic(places, planted.weights).numpy()
    assert _correlation(found.raw, wanted) < 0.8
    assert _correlation(found.semantic, wanted) > 0.95
    assert _correlation(found.artefact, planted.artefact.numpy()) > 0.9
    np.testing.assert_allclose(
        found.raw, wanted + planted.artefact.numpy(), rtol=0, atol=1e-5
    )
    assert found.seconds > 0


def test_steps_crops_first_then_the_field():
    settings = FieldSettings(views=3, steps=2, batch=8, levels=2, finest=16)
    image = _coordinates(_GRID * 4)
    steps = list(iter_fit_image(Planted(), image, settings))
    assert [(s.stage, s.done, s.total) for s in steps] == [
        *(("crops", i, 4) for i in (1, 2, 3, 4)),
        *(("field", i, 2) for i in (1, 2)),
    ]
    assert [s.result is not None for s in steps] == [False] * 5 + [True]
    assert steps[-1].result.semantic.shape == (_GRID, _GRID, 16)


def test_closing_stops_the_work():
    class Counting(Planted):
        calls = 0

        def patch_features(self, images):
            self.calls += 1
            return super().patch_features(images)

    counting = Counting()
    fit = iter_fit_image(counting, _coordinates(_GRID * 4), FieldSettings(views=30))
    next(fit)
    fit.close()
    assert counting.calls == 1


def test_same_seed_same_field_whatever_else_draws_numbers():
    settings = FieldSettings(views=4, steps=6, batch=64, levels=2, finest=24)
    image = _coordinates(_GRID * 4)
    one = fit_image(Planted(), image, settings)
    torch.rand(7)
    two = fit_image(Planted(), image, settings)
    assert np.array_equal(one.semantic, two.semantic)
    other = fit_image(Planted(), image, settings.model_copy(update={"seed": 1}))
    assert not np.array_equal(one.semantic, other.semantic)


def test_tokens_of_inference_mode_can_be_fitted():
    backbone = load_backbone("alibi-tiny", device="cpu")
    settings = FieldSettings(views=2, steps=2, batch=32, levels=2, finest=16)
    image = torch.randn(3, 32, 48, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = fit_image(backbone, image, settings)
    assert found.semantic.shape == (4, 6, 192)
    expected = backbone.patch_features(image[None])[0].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(found.raw, expected)


def test_the_loss_falls():
    rng = torch.Generator().manual_seed(0)
    features = torch.randn(6, 5, 5, 8, generator=rng)
    places = torch.rand(6, 5, 5, 2, generator=rng)
    settings = FieldSettings(steps=60, batch=128, levels=3, finest=32)
    losses = [s.loss for s in iter_fit_field(features, places, settings)]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


def test_the_paper_s_pyramid():
    sides = FIELD_PRESETS["paper"].sides
    assert sides[:5] == [16, 21, 27, 36, 48]
    assert sides[-2:] == [776, 1024]
    assert len(sides) == 16
    # 19.7 million numbers, as the reference's table
    assert sum(s * s for s in sides) * 8 == pytest.approx(19.7e6, rel=0.02)


def test_memory_grows_with_crops():
    small, large = (FieldSettings(views=n) for n in (10, 110))
    more = field_bytes(large, 384, (37, 37)) - field_bytes(small, 384, (37, 37))
    assert more == 4 * 100 * 37 * 37 * 384


def test_one_image_at_a_time():
    with pytest.raises(SettingsError, match=r"must be \(3, H, W\), got \(1, 3, 8, 8\)"):
        fit_image(Planted(), torch.zeros(1, 3, 8, 8), FieldSettings())
