"""Where weights lie, what is said when they do not, and named loading."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import Block

from napari_alibi_seg._base import Alibi, SettingsError, WeightsError
from napari_alibi_seg.features import _registry as registry_module
from napari_alibi_seg.features import (
    backbone_spec,
    cache_path,
    check_backbone,
    find_weights,
    list_backbones,
    load_backbone,
    reload_backbone,
)
from napari_alibi_seg.features._hash import file_sha256
from napari_alibi_seg.features._weights import require_weights


@pytest.fixture
def tiny_rows(monkeypatch):
    """Registry rows of the tiny models in conftest."""
    common = {"licence": "CC0-1.0", "embed_dim": 64, "depth": 2, "num_heads": 2}
    dinov2 = {**common, "patch_size": 14, "registers": 4, "repo": "me/tiny"}
    rows = {
        "tiny-alibi": {**dinov2, "title": "a", "file": "a.pth"}
        | {"position": "alibi", "alibi": Alibi(), "mean": (0.5,) * 3},
        "tiny-table": {**dinov2, "title": "t", "file": "t.pth"},
        "tiny-nope": {**dinov2, "title": "n", "file": "n.pth", "position": "none"},
        "tiny-clip": {**common, "title": "c", "file": "c.safetensors"}
        | {"patch_size": 16, "repo": "me/clip", "activation": "quick_gelu"},
        "tiny-denoised": {"title": "d", "kind": "denoised", "base": "tiny-table"}
        | {"repo": "me/dvt", "file": "voc/d.pth", "licence": "MIT"},
    }
    specs = {k: registry_module._row(k, v) for k, v in rows.items()}
    real = registry_module._rows()
    monkeypatch.setattr(registry_module, "_rows", lambda: {**real, **specs})
    return specs


@pytest.fixture
def install(empty_cache):
    """Put a state dict where a row's file belongs."""

    def put(name, contents) -> Path:
        path = cache_path(backbone_spec(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".safetensors":
            save_file(contents, path)
        else:
            torch.save(contents, path)
        return path

    return put


@pytest.mark.parametrize(
    "name",
    [s.name for s in list_backbones() if s.kind != "classical" and not s.bundled],
)
def test_absent_weights_say_what_to_do(empty_cache, no_network, name):
    spec = backbone_spec(name)
    with pytest.raises(WeightsError) as err:
        load_backbone(name, device="cpu")
    message = str(err.value)
    assert repr(spec.file) in message
    assert (spec.repo or spec.url) in message
    assert str(empty_cache / "weights" / name / Path(spec.file).name) in message
    assert f"alibi-seg models --download {name}" in message
    assert "give the path" in message
    assert ("accept the licence" in message) == name.startswith("dinov3-")
    if spec.gated:
        assert spec.gated in message
        assert "DINOv3 License" in message


def test_looking_never_connects(empty_cache, no_network):
    fetched = (spec.name for spec in list_backbones() if not spec.bundled)
    assert all(find_weights(name) is None for name in fetched)


def test_the_cache_is_where_the_variable_says(empty_cache, monkeypatch):
    spec = backbone_spec("dinov2-s")
    name = "dinov2_vits14_pretrain.pth"
    assert cache_path(spec) == empty_cache / "weights" / "dinov2-s" / name
    monkeypatch.delenv("ALIBI_SEG_CACHE")
    parts = cache_path(spec).parts
    assert "napari-alibi-seg" in parts
    assert parts[-3:] == ("weights", "dinov2-s", name)
    with pytest.raises(SettingsError, match="needs no weights"):
        cache_path(backbone_spec("classical"))


def test_classical_and_unknown_names():
    with pytest.raises(SettingsError, match="'classical' is no ViT"):
        load_backbone("classical")
    with pytest.raises(SettingsError, match=r"Near it: .*alibi-dinov2-s"):
        load_backbone("alibi-dinov2")
    with pytest.raises(WeightsError, match="There is no weights file"):
        load_backbone("some/folder/dinov2-s")


def test_named_backbone_takes_its_settings_from_the_row(
    tiny_rows, install, make_vit, images, no_network
):
    state = make_vit("dinov2-reg").state_dict()
    zero = state | {"pos_embed": torch.zeros_like(state["pos_embed"])}
    path = install("tiny-alibi", {f"vit.{k}": v for k, v in zero.items()})
    backbone = load_backbone("tiny-alibi", device="cpu")
    assert (backbone.name, backbone.path) == ("tiny-alibi", path)
    assert (backbone.alibi, backbone.num_heads) == (Alibi(), 2)
    assert backbone.mean == (0.5, 0.5, 0.5)
    assert backbone.identity["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    x = images(14, (3, 4))
    by_path = load_backbone(path, alibi=Alibi(), num_heads=2, device="cpu")
    assert torch.equal(by_path.patch_features(x), backbone.patch_features(x))
    # the argument comes before the row
    given = load_backbone("tiny-alibi", alibi=Alibi(wrap=False), device="cpu")
    assert given.alibi == Alibi(wrap=False)
    assert load_backbone("tiny-alibi", alibi=None, device="cpu").alibi is None
    again = reload_backbone(backbone.identity, device="cpu")
    assert torch.equal(again.patch_features(x), backbone.patch_features(x))


def test_row_says_the_activation(tiny_rows, install, make_vit, images, timm_features):
    model = make_vit("clip", num_heads=2, act_layer="quick_gelu")
    install("tiny-clip", model.state_dict())
    x = images(16, (3, 4))
    out = load_backbone("tiny-clip", device="cpu").patch_features(x)
    torch.testing.assert_close(out, timm_features(model, x), atol=2e-6, rtol=0)


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("dinov2", "tiny-table", "registers 0 instead of 4"),
        ("dinov2-reg", "tiny-nope", "position 'table' instead of 'none'"),
        ("supervised", "tiny-alibi", "patch size 16 instead of 14"),
    ],
)
def test_a_file_that_is_not_the_rows(tiny_rows, install, make_vit, kind, name, message):
    install(name, make_vit(kind).state_dict())
    with pytest.raises(WeightsError, match=message):
        load_backbone(name, device="cpu")


def test_denoised_row(tiny_rows, install, make_vit, images):
    torch.manual_seed(0)
    block = Block(64, 1, qkv_bias=True)
    inner = {f"denoiser.{k}": v for k, v in block.state_dict().items()}
    inner["pos_embed"] = torch.randn(1, 25, 64)
    below = install("tiny-denoised", {"denoiser": inner})
    with pytest.raises(WeightsError, match="weights of 'tiny-table' are not"):
        load_backbone("tiny-denoised", device="cpu")
    install("tiny-table", make_vit("dinov2-reg").state_dict())
    backbone = load_backbone("tiny-denoised", device="cpu")
    assert backbone.name == "tiny-denoised"
    assert backbone.num_heads == 2
    assert backbone.identity["denoiser"]["base"] == "tiny-table"
    assert backbone.identity["denoiser"]["sha256"] == file_sha256(below)
    x = images(14, (3, 4))
    raw = load_backbone("tiny-table", device="cpu").patch_features(x)
    out = backbone.patch_features(x)
    assert torch.equal(out, backbone.denoiser(raw))
    again = reload_backbone(backbone.identity, device="cpu")
    assert again.identity == backbone.identity
    assert torch.equal(again.patch_features(x), out)


# --- hashes


def test_a_published_hash_is_checked(tiny_rows, install, make_vit, monkeypatch):
    path = install("tiny-table", make_vit("dinov2-reg").state_dict())
    assert require_weights("tiny-table").verified is False
    right = {"sha256": file_sha256(path)}
    specs = registry_module._rows()
    specs["tiny-table"] = specs["tiny-table"].model_copy(update=right)
    monkeypatch.setattr(registry_module, "_rows", lambda: specs)
    backbone = load_backbone("tiny-table", device="cpu")
    assert backbone.identity["status"] == "verified"
    # the same file by path is as well known
    by_path = load_backbone(path, device="cpu")
    assert by_path.identity["status"] == "verified"
    wrong = specs["tiny-table"].model_copy(update={"sha256": "0" * 64})
    specs["tiny-table"] = wrong
    with pytest.raises(WeightsError, match="0000 that is published for it"):
        load_backbone("tiny-table", device="cpu")


def test_a_recorded_hash_is_checked(tiny_rows, install, make_vit):
    path = install("tiny-table", make_vit("dinov2-reg").state_dict())
    sidecar = path.with_name(path.name + ".json")
    sidecar.write_text(json.dumps({"sha256": file_sha256(path)}))
    assert load_backbone("tiny-table", device="cpu").identity["status"] == "unverified"
    install("tiny-table", make_vit("dinov2-reg", seed=1).state_dict())
    with pytest.raises(WeightsError, match="that was recorded when it was downloaded"):
        load_backbone("tiny-table", device="cpu")
    sidecar.write_text("{")
    with pytest.raises(WeightsError, match=r"The record .* cannot be read"):
        load_backbone("tiny-table", device="cpu")


def test_hashes_follow_the_file(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"one")
    assert file_sha256(path) == hashlib.sha256(b"one").hexdigest()
    path.write_bytes(b"three")
    assert file_sha256(path) == hashlib.sha256(b"three").hexdigest()
    with pytest.raises(WeightsError, match="Cannot read the weights"):
        file_sha256(tmp_path / "absent")


def test_the_hubs_own_cache_is_searched(
    tiny_rows, empty_cache, tmp_path, make_vit, no_network
):
    snapshot = tmp_path / "hub" / "models--me--tiny" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text("abc")
    torch.save(make_vit("dinov2-reg").state_dict(), snapshot / "t.pth")
    assert find_weights("tiny-table") == snapshot / "t.pth"
    assert load_backbone("tiny-table", device="cpu").path == snapshot / "t.pth"


# --- alibi-seg models --check


def test_check(tiny_rows, install, make_vit):
    state = make_vit("dinov2-reg").state_dict()
    zero = state | {"pos_embed": torch.zeros_like(state["pos_embed"])}
    path = install("tiny-alibi", zero)
    report = check_backbone("tiny-alibi")
    assert json.loads(json.dumps(report)) == report
    assert report["ok"] is True
    assert report["shape"] == [1, 64, 16, 16]
    assert report["must_be_constant"] is True
    assert report["constant_spread"] < 1e-5
    assert report["sha256"] == file_sha256(path)
    assert (report["licence"], report["status"]) == ("CC0-1.0", "unverified")
    install("tiny-table", state)
    plain = check_backbone("tiny-table")
    assert plain["ok"] is True
    assert plain["must_be_constant"] is False
    assert plain["constant_spread"] > 1e-2


def test_check_notices_broken_weights(tiny_rows, install, make_vit):
    state = make_vit("dinov2-reg").state_dict()
    state["norm.weight"][3] = torch.nan
    install("tiny-table", state)
    report = check_backbone("tiny-table")
    assert (report["ok"], report["finite"]) == (False, False)


def test_check_of_absent_weights(empty_cache):
    with pytest.raises(WeightsError, match="are not on this machine"):
        check_backbone("alibi-dinov2-s")
