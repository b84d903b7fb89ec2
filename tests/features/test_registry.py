"""The rows of the registry, against timm's own models."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from napari_alibi_seg._base import Alibi, SettingsError
from napari_alibi_seg.features import _registry as registry_module
from napari_alibi_seg.features import (
    backbone_spec,
    cache_path,
    list_backbones,
)
from napari_alibi_seg.features._arch import build_model
from napari_alibi_seg.features._layouts import read_layout
from napari_alibi_seg.features._registry import DEFAULT_BACKBONE, BackboneSpec

ROWS = list_backbones()
# ours has no model of timm's to be compared with; see test_bundled.py
VITS = [spec for spec in ROWS if spec.kind == "vit" and not spec.bundled]


def test_all_that_are_promised():
    names = {spec.name for spec in ROWS}
    assert names == {
        "classical",
        "alibi-tiny",
        *("alibi-dinov2-s", "alibi-dinov2-s-coco", "nope-dinov2-s-coco"),
        "alibi-dinov3-splus-coco",
        *(f"dinov2-{size}{reg}" for size in "sblg" for reg in ("", "-reg")),
        *("dinov3-s", "dinov3-splus", "dinov3-b", "dinov3-l"),
        *("dino-s", "dino-b", "mae-b", "ibot-b", "deit3-b", "eva02-b"),
        *("clip-b", "vit-b", "dvt-dinov2-s-reg"),
    }
    assert backbone_spec(DEFAULT_BACKBONE).alibi == Alibi()
    assert "ImageNet" in backbone_spec(DEFAULT_BACKBONE).title


@pytest.mark.parametrize("spec", VITS, ids=lambda spec: spec.name)
def test_row_agrees_with_timm(spec):
    """Names, shapes, heads, epsilons, activations and rotary kind, without weights."""
    reference = timm.create_model(
        spec.timm, pretrained=False, num_classes=0, device="meta"
    )
    # one stored number stands for each whole tensor: only shapes are read
    state = {
        name: torch.ones(1).expand(t.shape)
        for name, t in reference.state_dict().items()
    }
    stored = read_layout(state)
    arch = stored.arch
    assert (arch.patch_size, arch.embed_dim, arch.depth, arch.registers) == (
        spec.patch_size,
        spec.embed_dim,
        spec.depth,
        spec.registers,
    )
    ours = build_model(arch, spec.num_heads)
    wanted = {k: t.shape for k, t in reference.state_dict().items()}
    wanted = {k: shape for k, shape in wanted.items() if not k.startswith("fc_norm.")}
    assert {k: t.shape for k, t in ours.state_dict().items()} == wanted
    theirs = dict(reference.named_modules())
    for name, module in ours.named_modules():
        other = theirs[name]
        if isinstance(module, nn.LayerNorm):
            assert module.eps == other.eps, name
        if hasattr(module, "num_heads"):
            assert module.num_heads == other.num_heads, name
            assert getattr(module, "rotate_half", None) == getattr(
                other, "rotate_half", None
            )
    rope = getattr(reference, "rope", None)
    assert type(getattr(ours, "rope", None)) is type(rope)
    if rope is not None:
        assert ours.rope.temperature == rope.temperature
    if hasattr(rope, "ref_feat_shape"):
        assert [*ours.rope.ref_feat_shape] == [*rope.ref_feat_shape]
    act = type(reference.blocks[0].mlp.act).__name__
    assert act == {"gelu": "GELU", "quick_gelu": "QuickGELU"}[spec.activation] or (
        arch.mlp != "plain" and act == type(ours.blocks[0].mlp.act).__name__
    )


@pytest.mark.parametrize(
    "spec",
    [s for s in VITS if s.repo and s.repo.startswith("timm/")],
    ids=lambda spec: spec.name,
)
def test_row_agrees_with_timms_list_of_weights(spec):
    tag = spec.repo.removeprefix("timm/")
    config = timm.get_pretrained_cfg(tag)
    if spec.activation == "quick_gelu":  # one file, two models in timm
        config = timm.get_pretrained_cfg(f"{spec.timm}.{tag.split('.')[1]}")
    assert config.hf_hub_id.removeprefix("timm/") in ("", tag)
    assert (spec.mean, spec.std) == (config.mean, config.std)
    assert spec.file == "model.safetensors"


@pytest.mark.parametrize(
    "spec", [s for s in ROWS if s.also], ids=lambda spec: spec.name
)
def test_other_repositories_are_timms(spec):
    tag = spec.also.removeprefix("timm/")
    config = timm.get_pretrained_cfg(tag)
    assert config.url == spec.url
    assert (spec.mean, spec.std) == (config.mean, config.std)


def test_sources():
    for spec in ROWS:
        assert spec.licence
        if spec.kind == "classical":
            assert spec.file is None
            continue
        if spec.bundled:
            assert (spec.url, spec.repo) == (None, None)
            continue
        assert spec.url is None or spec.url.endswith("/" + spec.file)
        assert (spec.url is None) != (spec.repo is None)
    assert {s.name for s in ROWS if s.gated} == {
        f"dinov3-{size}" for size in ("s", "splus", "b", "l")
    }
    verified = {s.name for s in ROWS if s.sha256}
    assert {f"dinov2-{size}{reg}" for size in "sblg" for reg in ("", "-reg")} < verified
    hashes = [s.sha256 for s in ROWS if s.sha256]
    assert len(set(hashes)) == len(hashes)


def test_released_alibi_rows():
    for name in ("alibi-dinov2-s", "alibi-dinov2-s-coco", "alibi-dinov3-splus-coco"):
        spec = backbone_spec(name)
        assert (spec.repo, spec.alibi) == ("rmdocherty/dino-saw", Alibi())
    nope = backbone_spec("nope-dinov2-s-coco")
    assert (nope.position, nope.alibi) == ("none", None)


def test_unknown_names_get_near_ones():
    with pytest.raises(SettingsError, match=r"Near it: .*dinov2-s.*All names: class"):
        backbone_spec("dinov2_s")
    with pytest.raises(SettingsError, match="There is no backbone called 'zzz'"):
        backbone_spec("zzz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"file": None}, "needs `file`"),
        ({"num_heads": None}, "`num_heads`"),
        ({"alibi": {"slope": "constant"}}, "`alibi` belongs to"),
        ({"position": "alibi"}, "`alibi` belongs to"),
        ({"sha256": "abc"}, "`sha256`"),
        ({"colour": "red"}, "`colour`"),
        ({"kind": "denoised"}, "`base` belongs to"),
        ({"patch_size": 0}, "`patch_size`"),
    ],
)
def test_a_broken_row_is_refused(change, message):
    row = backbone_spec("dinov2-s").model_dump() | change
    name = row.pop("name")
    with pytest.raises(SettingsError, match=message):
        registry_module._row(name, row)


def test_adding_a_backbone_is_adding_a_row(monkeypatch, tmp_path, empty_cache):
    text = """
[mine]
title = "Mine"
repo = "me/mine"
file = "sub/weights.safetensors"
licence = "CC0-1.0"
patch_size = 16
embed_dim = 64
depth = 2
num_heads = 1
"""
    (tmp_path / "backbones.toml").write_text(text)
    monkeypatch.setattr(registry_module, "files", lambda _: tmp_path)
    registry_module._rows.cache_clear()
    try:
        assert [spec.name for spec in list_backbones()] == ["mine"]
        spec = backbone_spec("mine")
        assert isinstance(spec, BackboneSpec)
        expected = empty_cache / "weights" / "mine" / "weights.safetensors"
        assert cache_path(spec) == expected
    finally:
        monkeypatch.undo()
        registry_module._rows.cache_clear()
