"""ViTs under training compute what `load_backbone` computes of their files."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from napari_alibi_seg._base import Alibi, SettingsError
from napari_alibi_seg.features import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    load_backbone,
    new_vit,
    trainable_copy,
)

LEARNED, FIXED = Alibi(slope="learned"), Alibi(slope="fixed")


def _new(alibi=None, seed=0, **changes):
    """A ViT of 4 heads whose every parameter is random and of some weight."""
    shape = {"embed_dim": 32, "depth": 2, "num_heads": 4, "patch_size": 4}
    vit = new_vit(
        **{**shape, "registers": 2, "mlp_ratio": 2.0, **changes},
        alibi=alibi,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        seed=seed,
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return vit


def _table(grid=(6, 6), **changes):
    return _new(None, table=grid, **changes)


MAKE = {
    "constant": lambda: _new(Alibi()),
    "constant-plain": lambda: _new(Alibi(wrap=False, normalize=False)),
    "manhattan": lambda: _new(Alibi(metric="manhattan")),
    "fixed": lambda: _new(FIXED),
    "learned": lambda: _new(LEARNED),
    "learned-no-registers": lambda: _new(LEARNED, registers=0),
    "table": _table,
    "table-no-registers": lambda: _table(registers=0),
}


@pytest.fixture(params=MAKE)
def vit(request):
    return MAKE[request.param]()


# -------------------------------------------------------------------- there and back


@pytest.mark.parametrize("grid", [(6, 6), (3, 7)])
def test_the_file_computes_the_same(vit, tmp_path, images, grid):
    path = tmp_path / "vit.safetensors"
    vit.save(path, name="toy", licence="CC0", dtype=torch.float32)
    backbone = load_backbone(path, device="cpu")
    assert backbone.alibi == vit.alibi
    assert (backbone.num_heads, backbone.patch_size, backbone.embed_dim) == (4, 4, 32)
    assert (backbone.mean, backbone.std) == (IMAGENET_MEAN, IMAGENET_STD)
    x = images(4, grid, batch=2)
    own = vit(x)
    assert own.requires_grad
    torch.testing.assert_close(
        own.detach(), backbone.patch_features(x).clone(), atol=1e-5, rtol=0
    )


def test_fused_and_explicit_attention_agree(images, monkeypatch):
    vit = _new(LEARNED)
    x = images(4, (5, 6))
    explicit = vit(x)
    monkeypatch.setattr("napari_alibi_seg.features._trainable._UNFUSED_TOKENS", 0)
    fused = vit(x)
    torch.testing.assert_close(fused, explicit, atol=1e-5, rtol=0)


def test_autocast_changes_the_arithmetic_alone(images):
    vit = _new(FIXED)
    x = images(4, (4, 4))
    with torch.autocast("cpu", torch.bfloat16):
        rough = vit(x)
    exact = vit(x)
    assert not torch.equal(rough, exact)
    torch.testing.assert_close(rough.float(), exact, atol=0.1, rtol=0)


def test_half_precision_file(tmp_path, images):
    vit = _new(Alibi())
    path = tmp_path / "half.safetensors"
    vit.save(path, name="half", licence=None, dtype=torch.float16)
    full = tmp_path / "full.safetensors"
    vit.save(full, name="half", licence=None, dtype=torch.float32)
    assert path.stat().st_size < 0.6 * full.stat().st_size
    x = images(4, (4, 4))
    stored = load_backbone(path, device="cpu").patch_features(x)
    torch.testing.assert_close(stored.clone(), vit(x).detach(), atol=0.02, rtol=0)


def test_state_is_what_the_file_holds_and_no_more():
    vit = _new(LEARNED)
    state = vit.state()
    assert "mask_token" not in state
    assert [k for k in state if "attn.m" in k] == [
        "blocks.0.attn.m",
        "blocks.1.attn.m",
    ]
    assert state["blocks.1.attn.m"].shape == (4, 1, 1)
    assert not any(t.requires_grad for t in state.values())
    assert "pos_embed" not in state
    assert _table().state()["pos_embed"].shape == (1, 36, 32)


# ---------------------------------------------------------------------------- copies


@pytest.mark.parametrize("alibi", [Alibi(), FIXED, None], ids=str)
@pytest.mark.parametrize("kind", ["dinov2-reg", "dinov2", "deit3"])
def test_a_copy_computes_what_it_was_copied_from(make_vit, save, images, kind, alibi):
    backbone = load_backbone(
        save(make_vit(kind).state_dict()), alibi=alibi, device="cpu"
    )
    copy = trainable_copy(backbone, alibi)
    x = images(backbone.patch_size, (3, 4))
    before = backbone.patch_features(x).clone()
    torch.testing.assert_close(copy(x).detach(), before, atol=1e-5, rtol=0)
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.zero_()
    assert torch.equal(backbone.patch_features(x), before)  # it was a copy


def test_a_copy_keeps_learned_slopes(tmp_path, images):
    path = tmp_path / "vit.safetensors"
    vit = _new(LEARNED)
    vit.save(path, name="toy", licence=None, dtype=torch.float32)
    copy = trainable_copy(load_backbone(path, device="cpu"), LEARNED)
    assert all(torch.equal(a, b) for a, b in zip(copy.slopes, vit.slopes, strict=True))
    x = images(4, (3, 3))
    torch.testing.assert_close(copy(x), vit(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("wrap", [True, False])
def test_new_slopes_start_where_they_change_nothing(make_vit, save, images, wrap):
    """A file without slopes cannot be loaded with learned ones, but can learn them."""
    constant, learned = Alibi(wrap=wrap), Alibi(slope="learned", wrap=wrap)
    backbone = load_backbone(
        save(make_vit("dinov2").state_dict()), alibi=constant, device="cpu"
    )
    copy = trainable_copy(backbone, learned)
    assert [m.shape for m in copy.slopes] == [(1, 1, 1)] * 2
    x = images(14, (3, 4))
    torch.testing.assert_close(
        copy(x).detach(), backbone.patch_features(x).clone(), atol=1e-5, rtol=0
    )
    with pytest.raises(SettingsError, match="was loaded with alibi=Alibi"):
        trainable_copy(backbone, Alibi(slope="learned", wrap=not wrap))


def test_a_copy_has_the_alibi_that_was_loaded(make_vit, save):
    backbone = load_backbone(
        save(make_vit("dinov2").state_dict()), alibi=Alibi(), device="cpu"
    )
    with pytest.raises(SettingsError, match=r"loaded with alibi=Alibi\(.*, not None"):
        trainable_copy(backbone, None)


# --------------------------------------------------------------------------- symmetry


@pytest.mark.parametrize("name", ["constant", "fixed", "learned", "manhattan"])
def test_a_roll_by_whole_patches_rolls_the_tokens(name, images):
    vit = MAKE[name]()
    x = images(4, (5, 6))
    rolled = vit(x.roll((2 * 4, -1 * 4), dims=(2, 3)))
    torch.testing.assert_close(rolled, vit(x).roll((2, -1), (2, 3)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["constant-plain", "table"])
def test_without_wrapping_it_does_not(name, images):
    vit = MAKE[name]()
    x = images(4, (6, 6))
    rolled = vit(x.roll((2 * 4, -1 * 4), dims=(2, 3)))
    assert (rolled - vit(x).roll((2, -1), (2, 3))).abs().max() > 1e-3


# --------------------------------------------------------------------- hidden patches


def test_a_hidden_patch_is_not_seen(vit, images):
    x = images(4, (6, 6))
    hidden = torch.zeros(1, 6, 6, dtype=torch.bool)
    hidden[0, 1, 2:4] = True
    other = x.clone()
    other[:, :, 4:8, 8:16] = torch.randn(3, 4, 8, generator=torch.manual_seed(3))
    assert torch.equal(vit(x, hidden), vit(other, hidden))
    assert not torch.allclose(vit(x), vit(other))
    # and what is seen instead is learned
    before = vit(x, hidden)
    with torch.no_grad():
        vit.mask_token += 1
    assert not torch.allclose(vit(x, hidden), before)
    assert torch.equal(vit(x, torch.zeros_like(hidden)), vit(x))


def test_every_image_hides_its_own(images):
    vit = _new(Alibi())
    x = images(4, (4, 4)).expand(2, -1, -1, -1)
    hidden = torch.zeros(2, 4, 4, dtype=torch.bool)
    hidden[1, 0, 0] = True
    out = vit(x, hidden)
    torch.testing.assert_close(out[:1], vit(x[:1]))
    assert not torch.allclose(out[1], out[0])


# -------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("hides", [False, True])
def test_every_parameter_gets_a_gradient(vit, images, hides):
    x = images(4, (6, 6))
    hidden = torch.zeros(1, 6, 6, dtype=torch.bool)
    hidden[0, 2:5, 3] = True
    vit(x, hidden if hides else None).square().sum().backward()
    without = {n for n, p in vit.named_parameters() if p.grad is None}
    assert without == (set() if hides else {"mask_token"})
    for name, parameter in vit.named_parameters():
        if parameter.grad is not None:
            assert parameter.grad.isfinite().all()
            assert parameter.grad.abs().max() > 0, name


def test_a_bias_first_used_for_inference_trains_too(tmp_path, images):
    """The bias of a grid is shared; inference must not leave one without gradients."""
    vit = _new(Alibi(metric="manhattan", normalize=False))
    path = tmp_path / "vit.safetensors"
    vit.save(path, name="toy", licence=None, dtype=torch.float32)
    x = images(4, (2, 5))
    load_backbone(path, device="cpu").patch_features(x)
    vit(x).sum().backward()
    assert vit.model.patch_embed.proj.weight.grad is not None


# --------------------------------------------------------------------------- new ones


def test_weights_are_a_function_of_the_seed():
    make = {
        s: new_vit(
            embed_dim=32,
            depth=1,
            num_heads=2,
            patch_size=4,
            registers=1,
            alibi=LEARNED,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            seed=s % 10,
        )
        for s in (1, 11, 2)
    }
    a, b, c = (make[s].state() for s in (1, 11, 2))
    assert a.keys() == c.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)
    for key in (
        "patch_embed.proj.weight",
        "blocks.0.attn.m",
        "blocks.0.attn.qkv.weight",
    ):
        assert not torch.equal(a[key], c[key])
    assert a["blocks.0.attn.qkv.weight"].std() == pytest.approx(0.02, rel=0.1)
    assert torch.equal(a["norm.weight"], torch.ones(32))


def test_a_new_one_leaves_the_random_state_alone():
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    new_vit(
        embed_dim=16,
        depth=1,
        num_heads=1,
        patch_size=4,
        registers=0,
        alibi=Alibi(),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        seed=9,
    )
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"alibi": None, "table": None}, "either an `Alibi` or a position `table`"),
        ({"alibi": Alibi(), "table": (4, 4)}, r"table=\(4, 4\)"),
        ({"alibi": Alibi(), "num_heads": 3}, "multiple of `num_heads`, got 32 and 3"),
    ],
)
def test_refused(changes, match):
    with pytest.raises(SettingsError, match=match):
        _new(**changes)


def test_only_a_plain_vit_has_a_table_to_train():
    vit = _table()
    with pytest.raises(SettingsError, match="own position embedding, got the family"):
        type(vit)(
            vit.model,
            replace(vit.arch, family="eva"),
            4,
            None,
            mean=vit.mean,
            std=vit.std,
        )
