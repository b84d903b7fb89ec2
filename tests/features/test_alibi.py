"""The distance bias, and what follows from it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_alibi_seg._base import Alibi, SettingsError
from napari_alibi_seg.features import _alibi as alibi_module
from napari_alibi_seg.features import load_backbone
from napari_alibi_seg.features._alibi import (
    BiasCache,
    alibi_bias,
    alibi_slopes,
    cached_bias,
    flex_score_mod,
)

METRICS = ["euclidean", "manhattan"]
_alibis = st.builds(
    Alibi,
    wrap=st.booleans(),
    normalize=st.booleans(),
    metric=st.sampled_from(METRICS),
)
_grids = st.tuples(st.integers(1, 5), st.integers(1, 5))


def slow_bias(grid, n_prefix, alibi):
    """The definition, token by token."""
    rows, columns = grid
    n = rows * columns
    d = np.zeros((n, n))
    for a in range(n):
        for b in range(n):
            dy = abs(a // columns - b // columns)
            dx = abs(a % columns - b % columns)
            if alibi.wrap:
                dy, dx = min(dy, rows - dy), min(dx, columns - dx)
            d[a, b] = np.hypot(dy, dx) if alibi.metric == "euclidean" else dy + dx
    if alibi.normalize and d.max() > 0:
        d /= d.max()
    return np.pad(-d, ((n_prefix, 0), (n_prefix, 0)))


@settings(max_examples=60, deadline=None)
@given(grid=_grids, n_prefix=st.integers(0, 5), alibi=_alibis)
def test_bias_is_the_definition(grid, n_prefix, alibi):
    bias = alibi_bias(grid, n_prefix, alibi)[0, 0].numpy()
    np.testing.assert_allclose(bias, slow_bias(grid, n_prefix, alibi), atol=1e-6)
    if alibi.normalize:
        assert bias.min() >= -1


@settings(max_examples=40, deadline=None)
@given(grid=_grids, n_prefix=st.integers(0, 5), alibi=_alibis)
def test_the_kernel_computes_the_same_bias(grid, n_prefix, alibi):
    n = n_prefix + grid[0] * grid[1]
    slopes = torch.tensor([0.5, 2.0])
    mod = flex_score_mod(grid, n_prefix, alibi, slopes)
    q, k = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    bias = alibi_bias(grid, n_prefix, alibi)[0, 0]
    for head in (0, 1):
        got = mod(torch.zeros(n, n), torch.tensor(0), torch.tensor(head), q, k)
        torch.testing.assert_close(got, slopes[head] * bias, atol=1e-6, rtol=1e-6)


def test_slopes():
    assert alibi_slopes(Alibi(), 6) is None
    fixed = alibi_slopes(Alibi("fixed"), 6)
    assert fixed.shape == (1, 6, 1, 1)
    expected = [2 ** (-8 * (i + 1) / 6) for i in range(6)]
    np.testing.assert_allclose(fixed.flatten(), expected, rtol=1e-6)


def test_cache_is_shared_by_slopes_and_bounded():
    cpu = torch.device("cpu")
    one = cached_bias((3, 4), 5, Alibi(), device=cpu)
    assert cached_bias((3, 4), 5, Alibi("fixed"), device=cpu) is one
    assert cached_bias((4, 3), 5, Alibi(), device=cpu) is not one
    assert one.shape == (1, 1, 17, 17)
    cache = BiasCache(max_bytes=80)
    made = [cache.get(i, lambda: torch.zeros(10)) for i in range(3)]
    assert len(cache) == 2
    assert cache.get(2, lambda: torch.ones(10)) is made[2]
    assert cache.get(0, lambda: torch.ones(10)).sum() == 10  # was dropped, made anew
    assert cache.get("large", lambda: torch.zeros(100)).numel() == 100
    assert len(cache) == 0  # too large to keep


def test_cached_bias_can_take_part_in_training():
    with torch.inference_mode():
        bias = cached_bias((2, 9), 1, Alibi(), device=torch.device("cpu"))
    weight = torch.ones(1, requires_grad=True)
    (weight * bias).sum().backward()
    assert weight.grad == bias.sum()


@pytest.fixture
def alibi_vit(make_vit, save):
    path = save(make_vit("dinov2-reg").state_dict())

    def load(**kwargs):
        return load_backbone(path, **{"alibi": Alibi(), "device": "cpu", **kwargs})

    return load


@pytest.mark.parametrize("kind", ["dinov2", "dinov2-reg", "clip", "dinov3-splus"])
@pytest.mark.parametrize("slope", ["constant", "fixed"])
def test_constant_image_gives_constant_tokens(make_vit, save, kind, slope):
    path = save(make_vit(kind).state_dict())
    backbone = load_backbone(path, alibi=Alibi(slope), device="cpu")
    p = backbone.patch_size
    out = backbone.patch_features(torch.full((1, 3, 5 * p, 4 * p), 0.7))
    spread = (out - out.mean((2, 3), keepdim=True)).abs().max()
    assert spread < 1e-5
    assert out.std(1).min() > 0.1  # the tokens are something, only all the same


def test_without_wrapping_a_constant_image_shows_its_borders(alibi_vit):
    out = alibi_vit(alibi=Alibi(wrap=False)).patch_features(torch.ones(1, 3, 70, 56))
    assert (out - out.mean((2, 3), keepdim=True)).abs().max() > 1e-3
    # but no side is special: the features have the symmetries of the rectangle
    torch.testing.assert_close(out, out.flip(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(out, out.flip(3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("shift", [(1, 0), (0, 2), (3, 1)])
def test_rolling_the_image_rolls_the_features(alibi_vit, images, shift):
    backbone = alibi_vit()
    x = images(14, (5, 4))
    rolled = torch.roll(x, [14 * s for s in shift], (2, 3))
    expected = torch.roll(backbone.patch_features(x), shift, (2, 3))
    torch.testing.assert_close(
        backbone.patch_features(rolled), expected, atol=2e-5, rtol=0
    )
    plain = alibi_vit(alibi=None)
    broken = plain.patch_features(rolled) - torch.roll(
        plain.patch_features(x), shift, (2, 3)
    )
    assert broken.abs().max() > 1e-2  # position tables do break it


def test_zero_slopes_are_timm_without_position(make_vit, save, images, timm_features):
    model = make_vit("dinov2-reg")
    slopes = {f"blocks.{i}.attn.m": torch.zeros(1, 1, 1) for i in range(2)}
    path = save(model.state_dict() | slopes)
    x = images(14, (3, 6), batch=2)
    model.pos_embed = None
    out = load_backbone(path, alibi=Alibi("learned"), device="cpu").patch_features(x)
    torch.testing.assert_close(out, timm_features(model, x), atol=1e-5, rtol=0)


def test_learned_slopes_differ_from_block_to_block(make_vit, save, images):
    model = make_vit("dinov2-reg")
    x = images(14, (4, 4))

    out = {}
    for pair in [(0.0, 3.0), (3.0, 0.0), (1.0, 1.0)]:
        slopes = {
            f"blocks.{i}.attn.m": torch.full((1, 1, 1), m) for i, m in enumerate(pair)
        }
        path = save(model.state_dict() | slopes, f"{pair}.safetensors")
        out[pair] = load_backbone(
            path, alibi=Alibi("learned"), device="cpu"
        ).patch_features(x)
    assert (out[0.0, 3.0] - out[3.0, 0.0]).abs().max() > 1e-3
    path = save(model.state_dict(), "plain.safetensors")
    constant = load_backbone(path, alibi=Alibi(), device="cpu").patch_features(x)
    torch.testing.assert_close(out[1.0, 1.0], constant, atol=1e-5, rtol=0)


@pytest.mark.filterwarnings("ignore:flex_attention called without")
@pytest.mark.parametrize("kind", ["dinov2-reg", "clip", "dinov3-qkvb"])
@pytest.mark.parametrize("alibi", [Alibi(), Alibi("fixed", wrap=False)], ids=str)
def test_flex_equals_sdpa(make_vit, save, images, kind, alibi):
    path = save(make_vit(kind).state_dict())
    out = {}
    for attention in ("sdpa", "flex"):
        backbone = load_backbone(path, alibi=alibi, device="cpu", attention=attention)
        assert backbone.attention == attention
        out[attention] = backbone.patch_features(images(backbone.patch_size, (3, 4)))
    torch.testing.assert_close(out["flex"], out["sdpa"], atol=1e-5, rtol=0)


def test_flex_needs_a_bias_and_fused_attention(alibi_vit, images):
    with pytest.raises(SettingsError, match="has no such bias"):
        alibi_vit(alibi=None, attention="flex")
    with pytest.raises(SettingsError, match="'sdpa' or 'flex', got 'fast'"):
        alibi_vit(attention="fast")
    backbone = alibi_vit(attention="flex")
    for block in backbone._model.blocks:
        block.attn.fused_attn = False
    with pytest.raises(SettingsError, match="fused attention"):
        backbone.patch_features(images(14, (2, 2)))


def test_threads_on_different_grids_do_not_disturb_each_other(
    alibi_vit, images, monkeypatch
):
    backbone = alibi_vit(alibi=Alibi("fixed"))
    grids = [(2, 3), (3, 2), (4, 4), (1, 6), (5, 2), (2, 5)]
    inputs = {grid: images(14, grid) for grid in grids}
    alone = {grid: backbone.patch_features(x) for grid, x in inputs.items()}
    monkeypatch.setattr(alibi_module, "_cache", BiasCache())
    start = threading.Barrier(len(grids))

    def work(grid):
        start.wait()
        return all(
            torch.equal(backbone.patch_features(inputs[grid]), alone[grid])
            for _ in range(10)
        )

    with ThreadPoolExecutor(len(grids)) as pool:
        assert all(pool.map(work, grids))
