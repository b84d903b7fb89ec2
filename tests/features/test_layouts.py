"""Every key layout loads, and a plain backbone is what timm computes."""

from __future__ import annotations

import pytest
import timm
import torch

from napari_alibi_seg._base import Alibi, WeightsError
from napari_alibi_seg.features import load_backbone
from napari_alibi_seg.features._layouts import read_layout

# (patch, stored grid) of the models in conftest.
KINDS = {
    "dinov2": (14, (5, 5)),
    "dinov2-reg": (14, (5, 5)),
    "dinov2-giant": (14, (5, 5)),
    "supervised": (16, (4, 4)),
    "dino-p8": (8, (4, 4)),
    "clip": (16, (4, 4)),
    "deit3": (16, (4, 4)),
    "eva02": (14, (4, 4)),
    "dinov3": (16, (4, 4)),
    "dinov3-qkvb": (16, (4, 4)),
    "dinov3-splus": (16, (4, 4)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_plain_equals_timm_at_every_grid(make_vit, save, images, timm_features, kind):
    model = make_vit(kind)
    backbone = load_backbone(save(model.state_dict()), alibi=None, device="cpu")
    patch, stored = KINDS[kind]
    assert (backbone.patch_size, backbone.embed_dim) == (patch, 64)
    assert (backbone.num_heads, backbone.alibi) == (1, None)
    for grid in (stored, (3, 7), (8, 2)):
        x = images(patch, grid, batch=2)
        out = backbone.patch_features(x)
        assert out.shape == (2, 64, *grid)
        torch.testing.assert_close(out, timm_features(model, x), atol=2e-6, rtol=0)


@pytest.mark.parametrize("kind", ["dinov2-reg", "eva02", "dinov3-splus"])
def test_several_heads_equal_timm(make_vit, save, images, timm_features, kind):
    model = make_vit(kind, num_heads=4)
    path = save(model.state_dict())
    backbone = load_backbone(path, alibi=None, num_heads=4, device="cpu")
    x = images(KINDS[kind][0], (3, 6))
    torch.testing.assert_close(
        backbone.patch_features(x), timm_features(model, x), atol=2e-6, rtol=0
    )


def test_timms_own_test_model():
    """A model of timm's registry, not one that our own fixtures built."""
    torch.manual_seed(0)
    model = timm.create_model("test_vit", pretrained=False).eval()
    stored = read_layout(model.state_dict())
    assert stored.arch.depth == 6
    assert stored.arch.mlp_rows == 192
    assert stored.dropped == ("head.weight", "head.bias")
    assert stored.position == "table"


@pytest.mark.parametrize(
    ("kind", "position"),
    [
        ("dinov2-reg", "table"),
        ("clip", "table"),
        ("eva02", "table"),
        ("dinov3", "unsaid"),
    ],
)
def test_position_is_recognised(make_vit, kind, position):
    state = make_vit(kind).state_dict()
    assert read_layout(state).position == position
    if "pos_embed" in state:
        state["pos_embed"] = torch.zeros_like(state["pos_embed"])
        assert read_layout(state).position == "zero"


def test_position_absent(make_vit):
    state = make_vit("dinov2-reg").state_dict()
    del state["pos_embed"]
    stored = read_layout(state)
    assert (stored.position, stored.arch.table) == ("absent", None)


# --- original layouts, made from timm's by the renaming that their authors use


def meta_dinov2(state):
    """Registers under another name, class position in the table, mask token."""
    out = dict(state)
    registers = out.pop("reg_token", None)
    if registers is not None:
        out["register_tokens"] = registers
        row = torch.linspace(-2, 2, 64).sin().expand_as(out["cls_token"])
        out["cls_token"] = out["cls_token"] - row
        out["pos_embed"] = torch.cat([row, out["pos_embed"]], 1)
    out["mask_token"] = torch.ones(1, 64)
    return out


def meta_dinov2_giant(state):
    names = {".mlp.fc1.": ".mlp.w12.", ".mlp.fc2.": ".mlp.w3."}
    out = {}
    for key, value in meta_dinov2(state).items():
        for old, new in names.items():
            key = key.replace(old, new)
        out[key] = value
    return out


def meta_dinov3(state, periods=True):
    """Fused qkv bias with a masked k part, stored periods, storage tokens."""
    names = {
        "reg_token": "storage_tokens",
        "gamma_1": "ls1.gamma",
        "gamma_2": "ls2.gamma",
        ".mlp.fc1_g.": ".mlp.w1.",
        ".mlp.fc1_x.": ".mlp.w2.",
    }
    gated = any(".fc1_g." in key for key in state)
    out = {"mask_token": torch.zeros(1, 64)}
    for key, value in state.items():
        if key.endswith(".v_bias"):
            continue
        if key.endswith(".q_bias"):
            v = state[key.replace("q_bias", "v_bias")]
            k = torch.full_like(v, 7.0)  # masked: must have no effect
            key = key.replace("q_bias", "qkv.bias")
            out[key] = torch.cat([value, k, v])
            ones = torch.ones_like(v)
            out[key + "_mask"] = torch.cat([ones, 0 * ones, ones])
            continue
        for old, new in names.items():
            key = key.replace(old, new)
        out[key.replace(".mlp.fc2.", ".mlp.w3.") if gated else key] = value
    if periods:
        n = 64 // 4
        out["rope_embed.periods"] = (100.0 ** (torch.arange(n) / n)).bfloat16()
    return out


def facebook_deit3(state):
    return {
        k.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): v
        for k, v in state.items()
    }


def baai_eva02(state):
    names = {
        ".q_proj.bias": ".q_bias",
        ".v_proj.bias": ".v_bias",
        ".mlp.norm.": ".mlp.ffn_ln.",
        ".mlp.fc1_g.": ".mlp.w1.",
        ".mlp.fc1_x.": ".mlp.w2.",
        ".mlp.fc2.": ".mlp.w3.",
    }
    out = {"rope.freqs_cos": torch.ones(16, 64), "lm_head.weight": torch.ones(3, 64)}
    for key, value in state.items():
        for old, new in names.items():
            key = key.replace(old, new)
        out[key] = value
    return out


def transformers_dinov3(state, layers="model.layer."):
    """Separate projections, the keys' without bias; no rotary frequencies."""
    names = {
        "patch_embed.proj.": "embeddings.patch_embeddings.",
        "reg_token": "embeddings.register_tokens",
        "cls_token": "embeddings.cls_token",
        ".attn.proj.": ".attention.o_proj.",
        "gamma_1": "layer_scale1.lambda1",
        "gamma_2": "layer_scale2.lambda1",
        ".attn.q_bias": ".attention.q_proj.bias",
        ".attn.v_bias": ".attention.v_proj.bias",
        ".mlp.fc1_g.": ".mlp.gate_proj.",
        ".mlp.fc1_x.": ".mlp.up_proj.",
        ".mlp.fc1.": ".mlp.up_proj.",
        ".mlp.fc2.": ".mlp.down_proj.",
        "blocks.": layers,
    }
    out = {"embeddings.mask_token": torch.zeros(1, 1, 64)}
    for key, value in state.items():
        for old, new in names.items():
            key = key.replace(old, new)
        if key.endswith(".attn.qkv.weight"):
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                new = key.replace("attn.qkv", f"attention.{letter}_proj")
                out[new] = part
        else:
            out[key] = value
    return out


@pytest.mark.parametrize("layers", ["layer.", "model.layer."])
@pytest.mark.parametrize("kind", ["dinov3-qkvb", "dinov3-splus"])
def test_transformers_layout(make_vit, save, images, timm_features, kind, layers):
    model = make_vit(kind)
    path = save(transformers_dinov3(model.state_dict(), layers))
    backbone = load_backbone(path, alibi=None, device="cpu")
    x = images(16, (3, 5))
    torch.testing.assert_close(
        backbone.patch_features(x), timm_features(model, x), atol=2e-6, rtol=0
    )


ORIGINALS = {
    "dinov2": meta_dinov2,
    "dinov2-reg": meta_dinov2,
    "dinov2-giant": meta_dinov2_giant,
    "dinov3-qkvb": meta_dinov3,
    "dinov3-splus": meta_dinov3,
    "deit3": facebook_deit3,
    "eva02": baai_eva02,
}


@pytest.mark.parametrize("kind", ORIGINALS)
def test_original_layout_equals_timm(make_vit, save, images, timm_features, kind):
    model = make_vit(kind)
    path = save(ORIGINALS[kind](model.state_dict()))
    backbone = load_backbone(path, device="cpu")  # position is stored: none to ask
    patch, stored = KINDS[kind]
    for grid in (stored, (2, 6)):
        x = images(patch, grid)
        torch.testing.assert_close(
            backbone.patch_features(x), timm_features(model, x), atol=2e-6, rtol=0
        )


def test_rotary_periods_give_the_heads(make_vit):
    state = meta_dinov3(make_vit("dinov3-qkvb").state_dict())
    assert read_layout(state).num_heads == 1
    n = 8  # head width 32
    state["rope_embed.periods"] = 100.0 ** (torch.arange(n) / n)
    assert read_layout(state).num_heads == 2
    state["rope_embed.periods"] = 10_000.0 ** (torch.arange(n) / n)
    with pytest.raises(WeightsError, match="not those of DINOv3"):
        read_layout(state)


def test_a_bias_of_the_keys_is_not_lost_silently(make_vit):
    state = meta_dinov3(make_vit("dinov3-qkvb").state_dict())
    key = "blocks.1.attn.qkv.bias_mask"
    state[key] = torch.ones_like(state[key])
    with pytest.raises(WeightsError, match="bias for the keys"):
        read_layout(state)
    state[key] = torch.full_like(state[key], torch.nan)  # Meta's unfilled mask
    assert read_layout(state).position == "rope"


@pytest.mark.parametrize(
    "wrapped",
    [
        pytest.param(lambda s: {f"vit.{k}": v for k, v in s.items()}, id="vit."),
        pytest.param(lambda s: {f"model.{k}": v for k, v in s.items()}, id="model."),
        pytest.param(lambda s: {f"module.{k}": v for k, v in s.items()}, id="module."),
        pytest.param(
            lambda s: (
                {f"module.backbone.{k}": v for k, v in s.items()}
                | {"module.head.mlp.0.weight": torch.ones(2, 2)}
            ),
            id="module.backbone. and a head",
        ),
        pytest.param(lambda s: {"model": s}, id="{model}"),
        pytest.param(lambda s: {"state_dict": s, "epoch": 3}, id="{state_dict, epoch}"),
        pytest.param(
            lambda s: {
                "student": {k: 0 * v for k, v in s.items()},
                "teacher": {f"backbone.{k}": v for k, v in s.items()},
            },
            id="{student, teacher}",
        ),
        pytest.param(
            lambda s: (
                {f"student.backbone.{k}": 0 * v for k, v in s.items()}
                | {f"teacher.backbone.{k}": v for k, v in s.items()}
            ),
            id="student. and teacher.",
        ),
        pytest.param(
            lambda s: (
                s
                | {
                    "mask_token": torch.ones(1, 1, 64),
                    "decoder_pos_embed": torch.ones(1, 17, 8),
                    "decoder_blocks.0.norm1.weight": torch.ones(8),
                }
            ),
            id="with a decoder",
        ),
    ],
)
def test_training_checkpoints(
    make_vit, tmp_path, images, timm_features, caplog, wrapped
):
    model = make_vit("supervised")
    path = tmp_path / "checkpoint.pth"
    torch.save(wrapped(model.state_dict()), path)
    caplog.set_level("INFO", "napari_alibi_seg")
    backbone = load_backbone(path, device="cpu")
    x = images(16, (4, 4))
    torch.testing.assert_close(
        backbone.patch_features(x), timm_features(model, x), atol=2e-6, rtol=0
    )
    assert any(key.endswith("head.weight") for key in backbone.dropped)
    assert "head.weight" in caplog.text  # said so


def test_two_vits_in_one_file_are_refused(make_vit):
    state = make_vit("dinov2").state_dict()
    both = {f"a.{k}": v for k, v in state.items()}
    both |= {f"b.{k}": v for k, v in state.items()}
    with pytest.raises(WeightsError, match=r"holds 2 ViTs: a.patch_embed"):
        read_layout(both)


def test_half_precision_files_are_computed_in_float32(make_vit, save, images):
    state = {k: v.half() for k, v in make_vit("dinov2").state_dict().items()}
    backbone = load_backbone(save(state), device="cpu")
    x = images(14, (3, 3))
    single = {k: v.float() for k, v in state.items()}
    expected = load_backbone(save(single, "single.safetensors"), device="cpu")
    assert torch.equal(backbone.patch_features(x), expected.patch_features(x))


# --- keys that do not fit


@pytest.mark.parametrize(
    ("kind", "lost"),
    [
        ("dinov2-reg", "blocks.1.attn.qkv.bias"),
        ("dinov2-reg", "blocks.0.ls1.gamma"),
        ("dinov2-reg", "cls_token"),
        ("dinov2-reg", "norm.bias"),
        ("dinov2-giant", "blocks.1.mlp.fc2.weight"),
        ("clip", "norm_pre.bias"),
        ("eva02", "blocks.0.attn.k_proj.weight"),
        ("dinov3-splus", "blocks.1.mlp.fc1_x.weight"),
    ],
)
def test_missing_keys_are_listed(make_vit, save, kind, lost):
    state = make_vit(kind).state_dict()
    del state[lost]
    with pytest.raises(WeightsError, match=rf"missing: .*{lost}"):
        load_backbone(save(state), alibi=None, device="cpu")


def test_missing_norm_is_not_taken_for_a_model_without(make_vit, save):
    state = make_vit("dinov2").state_dict()
    del state["norm.weight"], state["norm.bias"]
    with pytest.raises(WeightsError, match=r"missing: norm\.bias, norm\.weight"):
        load_backbone(save(state), device="cpu")


def test_keys_are_named_as_the_file_names_them(make_vit, save):
    state = meta_dinov3(make_vit("dinov3-splus").state_dict())
    state = {f"module.{k}": v for k, v in state.items()}
    del state["module.blocks.1.ls2.gamma"]
    del state["module.blocks.0.mlp.w2.bias"]
    with pytest.raises(WeightsError) as err:
        load_backbone(save(state), device="cpu")
    assert "module.blocks.1.ls2.gamma" in str(err.value)
    assert "module.blocks.0.mlp.w2.bias" in str(err.value)


@pytest.mark.parametrize(
    "extra", ["blocks.0.attn.rel_pos", "neck.weight", "blocks.0.adapter.weight"]
)
def test_unexpected_keys_are_listed(make_vit, save, extra):
    state = make_vit("dinov2-reg").state_dict() | {extra: torch.ones(3)}
    with pytest.raises(WeightsError, match=f"unexpected: {extra}"):
        load_backbone(save(state), device="cpu")


def test_unexpected_keys_beside_a_prefix_are_listed(make_vit, save):
    state = {f"vit.{k}": v for k, v in make_vit("dinov2").state_dict().items()}
    state["neck.conv.weight"] = torch.ones(3)
    with pytest.raises(WeightsError, match=r"unexpected keys .*: neck\.conv\.weight"):
        load_backbone(save(state), device="cpu")


@pytest.mark.parametrize(
    ("key", "shape", "message"),
    [
        ("blocks.1.norm1.weight", (32,), r"another shape: blocks\.1\.norm1\.weight"),
        ("pos_embed", (1, 27, 64), "position table has shape"),
        ("pos_embed", (26, 64), "position table has shape"),
        ("patch_embed.proj.weight", (64, 1, 14, 14), "three channels"),
        ("patch_embed.proj.weight", (64, 3, 14, 7), "three channels"),
        ("reg_token", (4, 64), "register tokens"),
        ("blocks.0.mlp.fc1.weight", (), "another shape"),
    ],
)
def test_wrong_shapes_are_refused(make_vit, save, key, shape, message):
    state = make_vit("dinov2-reg").state_dict() | {key: torch.ones(shape)}
    with pytest.raises(WeightsError, match=message):
        load_backbone(save(state), device="cpu")


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({"weight": torch.ones(2)}, "no ViT of a known layout .* weight"),
        ({}, "Its keys are: none"),
        ({"denoiser.norm1.weight": torch.ones(2)}, "load_denoiser"),
        ({"model": {"layer.weight": torch.ones(2)}}, "layer.weight"),
    ],
    ids=["another network", "empty", "a denoiser", "nested"],
)
def test_files_without_a_vit(tmp_path, contents, message):
    path = tmp_path / "x.pth"
    torch.save(contents, path)
    with pytest.raises(WeightsError, match=message) as err:
        load_backbone(path, device="cpu")
    assert "x.pth" in str(err.value)


def test_alibi_drops_table_and_rotary_embedding(make_vit, save, images):
    for kind in ("dinov2-reg", "eva02", "dinov3-qkvb"):
        state = make_vit(kind).state_dict()
        if kind == "dinov3-qkvb":
            state = meta_dinov3(state)
        path = save(state, f"{kind}.safetensors")
        backbone = load_backbone(path, alibi=Alibi(), device="cpu")
        names = [name for name, _ in backbone._model.named_parameters()]
        buffers = [name for name, _ in backbone._model.named_buffers()]
        assert not [n for n in names + buffers if "pos_embed" in n or "rope" in n]
        assert backbone.identity["arch"]["rope"] is None
