"""DVT's denoiser: parameter counts, grids, wrapping, wrong files."""

from __future__ import annotations

import pytest
import torch
from timm.models.vision_transformer import Block
from torch import nn

from napari_alibi_seg._base import Alibi, SettingsError, WeightsError
from napari_alibi_seg.features import load_backbone, load_denoiser


def _checkpoint(width, side=37, blocks=1, seed=0):
    """State dict of a denoiser as Denoising-ViT saves it."""
    torch.manual_seed(seed)
    make = [Block(width, max(1, width // 64), qkv_bias=True) for _ in range(blocks)]
    inner = make[0] if blocks == 1 else nn.ModuleList(make)
    state = {f"denoiser.{k}": v for k, v in inner.state_dict().items()}
    return state | {"pos_embed": 0.02 * torch.randn(1, side * side, width)}


@pytest.fixture
def write(tmp_path):
    def save(contents, name="denoiser.pth"):
        torch.save(contents, tmp_path / name)
        return tmp_path / name

    return save


@pytest.mark.parametrize(("width", "count"), [(384, 2_300_160), (768, 8_139_264)])
def test_parameter_counts(write, width, count):
    denoiser = load_denoiser(write({"denoiser": _checkpoint(width)}), device="cpu")
    assert denoiser.n_parameters == count
    assert (denoiser.embed_dim, denoiser.num_heads) == (width, width // 64)


@pytest.mark.parametrize(
    "contents",
    [
        lambda s: {"denoiser": s},
        lambda s: {"denoiser": s, "optimizer": {"state": {}}, "step": 3},
        lambda s: s,
        lambda s: {f"module.{k}": v for k, v in s.items()},
        lambda s: s | {"vit.cls_token": torch.ones(1)},
    ],
    ids=["released", "training", "bare", "module.", "with vit.*"],
)
def test_checkpoints_of_every_kind(write, contents):
    state = _checkpoint(64, side=5)
    x = torch.randn(2, 64, 5, 5)
    expected = load_denoiser(write({"denoiser": state}), device="cpu")(x)
    out = load_denoiser(write(contents(state), "b.pth"), device="cpu")(x)
    assert torch.equal(out, expected)


def test_native_grid_uses_the_table_as_it_is(write):
    state = _checkpoint(64, side=6)
    denoiser = load_denoiser(write(state), device="cpu")
    block = Block(64, 1, qkv_bias=True).eval()
    own = {k.removeprefix("denoiser."): v for k, v in state.items()}
    block.load_state_dict({k: v for k, v in own.items() if k != "pos_embed"})
    x = torch.randn(1, 64, 6, 6)
    with torch.inference_mode():
        tokens = block(x.flatten(2).transpose(1, 2) + state["pos_embed"])
    expected = tokens.transpose(1, 2).reshape(1, 64, 6, 6)
    torch.testing.assert_close(denoiser(x), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("grid", [(1, 1), (4, 9), (9, 4), (12, 12), (3, 12)])
def test_any_grid_keeps_its_shape(write, grid):
    denoiser = load_denoiser(write(_checkpoint(64, side=6)), device="cpu")
    out = denoiser(torch.randn(3, 64, *grid))
    assert out.shape == (3, 64, *grid)
    assert out.isfinite().all()


def test_several_blocks(write):
    state = _checkpoint(64, side=4, blocks=2)
    denoiser = load_denoiser(write({"denoiser": state}), device="cpu")
    assert denoiser(torch.randn(1, 64, 4, 4)).shape == (1, 64, 4, 4)
    assert denoiser.n_parameters == sum(v.numel() for v in state.values())


def test_images_do_not_influence_each_other(write):
    denoiser = load_denoiser(write(_checkpoint(64, side=4)), device="cpu")
    x = torch.randn(3, 64, 4, 5)
    assert torch.equal(denoiser(x)[1], denoiser(x[1:2])[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {k: v for k, v in s.items() if "norm2.bias" not in k}, "missing"),
        (lambda s: s | {"denoiser.extra": torch.ones(1)}, "unexpected: denoiser.extra"),
        (lambda s: {k: v for k, v in s.items() if k != "pos_embed"}, "pos_embed"),
        (lambda s: s | {"pos_embed": torch.ones(1, 7, 64)}, "square grid"),
        (lambda s: s | {"denoiser.norm1.bias": torch.ones(3)}, "another shape"),
        (lambda s: {"model": s}, "no key starts with 'denoiser.'"),
        (lambda s: {}, "no denoiser in the file"),
        (lambda s: {"model.patch_embed.proj.weight": torch.ones(1)}, "load_backbone"),
    ],
)
def test_files_that_do_not_fit(write, change, message):
    path = write(change(_checkpoint(64, side=4)))
    with pytest.raises(WeightsError, match=message) as err:
        load_denoiser(path, device="cpu")
    assert "denoiser.pth" in str(err.value)


def test_absent_file(tmp_path):
    with pytest.raises(WeightsError, match="There is no weights file"):
        load_denoiser(tmp_path / "none.pth")


@pytest.mark.parametrize("shape", [(1, 32, 4, 4), (64, 4, 4), (0, 64, 4, 4)])
def test_features_that_do_not_fit(write, shape):
    denoiser = load_denoiser(write(_checkpoint(64, side=4)), device="cpu")
    with pytest.raises(SettingsError, match=r"must be \(B, 64, h, w\)"):
        denoiser(torch.zeros(shape))


def test_wrap(write, make_vit, save, images):
    backbone = load_backbone(save(make_vit("dinov2-reg").state_dict()), device="cpu")
    denoiser = load_denoiser(write(_checkpoint(64, side=5)), device="cpu")
    wrapped = denoiser.wrap(backbone)
    x = images(14, (3, 5), batch=2)
    raw = backbone.patch_features(x)
    out = wrapped.patch_features(x)
    assert torch.equal(out, denoiser(raw))
    assert (out - raw).abs().max() > 1e-2
    for key in ("patch_size", "embed_dim", "num_heads", "alibi", "mean", "std"):
        assert getattr(wrapped, key) == getattr(backbone, key)
    assert wrapped.identity["denoiser"] == {
        "base": "vit",
        "sha256": denoiser.sha256,
        "num_heads": 1,
    }
    assert wrapped.identity["sha256"] == backbone.identity["sha256"]
    assert wrapped.name == "vit+denoiser"
    other = write(_checkpoint(64, side=5, seed=1), "other.pth")
    again = load_denoiser(other, device="cpu").wrap(backbone)
    assert again.identity["denoiser"]["sha256"] != denoiser.sha256


def test_wrap_of_another_width(write, make_vit, save):
    path = save(make_vit("dinov2-reg").state_dict())
    backbone = load_backbone(path, alibi=Alibi(), device="cpu")
    denoiser = load_denoiser(write(_checkpoint(128, side=4)), device="cpu")
    with pytest.raises(SettingsError, match="width 128, the backbone 'vit' has 64"):
        denoiser.wrap(backbone)
