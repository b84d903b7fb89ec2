"""Which settings a file gets: arguments, registry, metadata, defaults, refusals."""

from __future__ import annotations

import argparse
import json

import numpy as np
import pytest
import torch

from napari_alibi_seg._base import Alibi, SettingsError, WeightsError
from napari_alibi_seg.features import (
    FileMetadata,
    load_backbone,
    load_denoiser,
    reload_backbone,
    save_backbone,
)
from napari_alibi_seg.features._registry import IMAGENET_MEAN, IMAGENET_STD


@pytest.fixture
def state(make_vit):
    return make_vit("dinov2-reg").state_dict()


def _zero(state):
    return state | {"pos_embed": torch.zeros_like(state["pos_embed"])}


def _absent(state):
    return {k: v for k, v in state.items() if k != "pos_embed"}


def _slopes(m=1.0, heads=1, depth=2):
    return {f"blocks.{i}.attn.m": torch.full((heads, 1, 1), m) for i in range(depth)}


@pytest.mark.parametrize("strip", [_zero, _absent])
class TestPositionNowhereInTheFile:
    def test_not_given_is_an_error(self, state, save, strip):
        with pytest.raises(SettingsError, match=r"Pass `alibi=Alibi\(.*alibi=None"):
            load_backbone(save(strip(state)), device="cpu")

    def test_none_is_no_position(
        self, make_vit, state, save, strip, images, timm_features
    ):
        backbone = load_backbone(save(strip(state)), alibi=None, device="cpu")
        model = make_vit("dinov2-reg")
        model.pos_embed = None
        x = images(14, (3, 5))
        torch.testing.assert_close(
            backbone.patch_features(x), timm_features(model, x), atol=2e-6, rtol=0
        )

    def test_alibi_is_the_same_for_both(self, state, save, strip, images):
        x = images(14, (3, 5))
        with_table = load_backbone(save(state, "a.safetensors"), alibi=Alibi())
        out = load_backbone(save(strip(state)), alibi=Alibi()).patch_features(x)
        assert torch.equal(out.cpu(), with_table.patch_features(x).cpu())

    def test_metadata_decides(self, state, tmp_path, strip):
        for alibi in (Alibi(wrap=False), None):
            path = tmp_path / f"{alibi is None}.safetensors"
            save_backbone(path, strip(state), FileMetadata(alibi=alibi))
            assert load_backbone(path, device="cpu").alibi == alibi
            given = load_backbone(path, alibi=Alibi("fixed"), device="cpu")
            assert given.alibi == Alibi("fixed")  # the argument comes first


def test_a_stored_table_needs_no_alibi(state, save):
    assert load_backbone(save(state), device="cpu").alibi is None


def test_meta_dinov3_without_periods_is_asked_about(make_vit, save):
    state = make_vit("dinov3").state_dict()
    with pytest.raises(SettingsError, match="DINOv3 layout of timm"):
        load_backbone(save(state), device="cpu")
    state["storage_tokens"] = state.pop("reg_token")
    with pytest.raises(SettingsError, match="has no position embedding"):
        load_backbone(save(state, "meta.safetensors"), device="cpu")
    path = save(state, "meta.safetensors")
    assert load_backbone(path, alibi=None).identity["arch"]["rope"] is None


@pytest.mark.parametrize("alibi", ["constant", True, {"slope": "constant"}])
def test_alibi_of_another_type(state, save, alibi):
    with pytest.raises(SettingsError, match="must be an `Alibi` or None, got"):
        load_backbone(save(state), alibi=alibi, device="cpu")


# --- learned slopes


def test_learned_needs_slopes_in_the_file(state, save):
    with pytest.raises(WeightsError, match=r"missing: blocks\.0\.attn\.m, blocks\.1"):
        load_backbone(save(state), alibi=Alibi("learned"), device="cpu")


def test_slopes_of_some_blocks_only(state, save):
    path = save(state | _slopes(depth=1))
    with pytest.raises(WeightsError, match=r"1 of 2 blocks. missing: blocks\.1"):
        load_backbone(path, alibi=Alibi("learned"), device="cpu")


@pytest.mark.parametrize(
    "alibi", [None, Alibi(), Alibi("fixed")], ids=["none", "constant", "fixed"]
)
def test_slopes_in_the_file_are_not_ignored(state, save, alibi):
    path = save(state | _slopes())
    with pytest.raises(SettingsError, match="carries learned ALiBi slopes"):
        load_backbone(path, alibi=alibi, device="cpu")


def test_slopes_and_nothing_given(state, save):
    with pytest.raises(SettingsError, match=r"learned ALiBi slopes.*slope='learned'"):
        load_backbone(save(state | _slopes()), device="cpu")


# --- heads


def test_heads_default_to_width_over_64(state, save):
    assert load_backbone(save(state), device="cpu").num_heads == 1
    assert load_backbone(save(state), num_heads=4, device="cpu").num_heads == 4


def test_heads_matter(state, save, images):
    x = images(14, (3, 3))
    path = save(state)
    one, four = (
        load_backbone(path, num_heads=n, device="cpu").patch_features(x) for n in (1, 4)
    )
    assert (one - four).abs().max() > 1e-3


def test_heads_of_the_slopes(state, save):
    path = save(state | _slopes(heads=2))
    assert load_backbone(path, alibi=Alibi("learned"), device="cpu").num_heads == 2
    with pytest.raises(SettingsError, match="are for 2 heads"):
        load_backbone(path, alibi=Alibi("learned"), num_heads=4, device="cpu")


@pytest.mark.parametrize("heads", [0, -1, 5, 2.0, True, "6"])
def test_heads_that_cannot_be(state, save, heads):
    with pytest.raises(SettingsError, match="`num_heads`"):
        load_backbone(save(state), num_heads=heads, device="cpu")


def test_width_that_does_not_give_the_heads(shared_dir):
    path = shared_dir / "golden/alibi/dinov2_tiny-constant-wrap-norm.safetensors"
    with pytest.raises(SettingsError, match="width 48 is not a multiple of 64"):
        load_backbone(path, alibi=Alibi(), device="cpu")


def test_rotary_heads_must_split_in_four(make_vit, save):
    path = save(make_vit("dinov3").state_dict())
    with pytest.raises(SettingsError, match="that rotary embeddings can turn"):
        load_backbone(path, alibi=None, num_heads=32, device="cpu")
    assert load_backbone(path, alibi=Alibi(), num_heads=32).num_heads == 32


# --- input normalisation, metadata


def test_normalisation_is_imagenets_unless_metadata_says_otherwise(state, tmp_path):
    path = tmp_path / "a.safetensors"
    save_backbone(path, state, FileMetadata())
    plain = load_backbone(path, device="cpu")
    assert (plain.mean, plain.std) == (IMAGENET_MEAN, IMAGENET_STD)
    said = FileMetadata(
        mean=(0.1, 0.2, 0.3), std=(1, 2, 3), num_heads=2, name="student"
    )
    save_backbone(path, state, said)
    backbone = load_backbone(path, device="cpu")
    assert backbone.mean == (0.1, 0.2, 0.3)
    assert backbone.std == (1, 2, 3)
    assert (backbone.num_heads, backbone.name) == (2, "student")


def test_what_no_tensor_says_changes_the_result(make_vit, tmp_path, images):
    state = make_vit("clip").state_dict()
    x = images(16, (3, 3))
    out = {}
    for key, said in {
        "plain": FileMetadata(),
        "quick": FileMetadata(activation="quick_gelu"),
        "eps": FileMetadata(norm_eps=0.1),
    }.items():
        save_backbone(tmp_path / f"{key}.safetensors", state, said)
        backbone = load_backbone(tmp_path / f"{key}.safetensors", device="cpu")
        out[key] = backbone.patch_features(x)
    assert (out["plain"] - out["quick"]).abs().max() > 1e-4
    assert (out["plain"] - out["eps"]).abs().max() > 1e-4


def test_clip_by_path_says_what_it_assumes(make_vit, save, caplog):
    load_backbone(save(make_vit("clip").state_dict()), device="cpu")
    assert "GELU is assumed" in caplog.text


def test_metadata_can_take_the_rotary_embedding_away(make_vit, tmp_path):
    state = make_vit("dinov3").state_dict()
    path = tmp_path / "nope.safetensors"
    save_backbone(path, state, FileMetadata(alibi=None, rope=False))
    assert load_backbone(path, device="cpu").identity["arch"]["rope"] is None
    save_backbone(path, state, FileMetadata(alibi=None, rope=True))
    assert load_backbone(path, device="cpu").identity["arch"]["rope"] == "dinov3"
    other = tmp_path / "table.safetensors"
    save_backbone(other, make_vit("dinov2").state_dict(), FileMetadata(rope=True))
    with pytest.raises(WeightsError, match="metadata says rope=True"):
        load_backbone(other, device="cpu")


@pytest.mark.parametrize(
    "text",
    [
        '{"alibi": {"slope": "steep"}}',
        '{"alibi": {"slope": "constant", "colour": 1}}',
        '{"num_heads": 0}',
        '{"std": [0, 1, 1]}',
        '{"unknown": 1}',
        "not json",
        "[1]",
        " " * 200_000,
    ],
)
def test_metadata_that_cannot_be_understood(state, save, text):
    path = save(state, metadata={"alibi_seg": text})
    with pytest.raises(WeightsError, match="metadata 'alibi_seg'"):
        load_backbone(path, device="cpu")


def test_saving_is_deterministic_and_says_only_what_was_set(state, tmp_path):
    for name in "ab":
        save_backbone(
            tmp_path / f"{name}.safetensors", state, FileMetadata(alibi=Alibi())
        )
    a, b = ((tmp_path / f"{n}.safetensors").read_bytes() for n in "ab")
    assert a == b
    assert b'"num_heads' not in a
    with pytest.raises(SettingsError, match=r"must end with \.safetensors"):
        save_backbone(tmp_path / "a.pth", state, FileMetadata())


# --- files


def test_a_file_that_needs_more_than_tensors_is_not_unpickled(state, tmp_path):
    path = tmp_path / "checkpoint.pth"
    torch.save({"model": state, "args": argparse.Namespace(lr=1)}, path)
    with pytest.raises(WeightsError, match=r"will not be unpickled.*convert it once"):
        load_backbone(path, device="cpu")


class _Evil:
    def __reduce__(self):
        return (print, ("code was run",))


def test_code_in_a_file_does_not_run(tmp_path, capsys):
    path = tmp_path / "evil.pth"
    torch.save({"x": _Evil()}, path)
    with pytest.raises(WeightsError, match="will not be unpickled"):
        load_backbone(path, device="cpu")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "noise", "html"])
def test_damaged_files(state, tmp_path, name, damage):
    path = tmp_path / name
    if name.endswith("pth"):
        torch.save(state, path)
    else:
        save_backbone(path, state, FileMetadata())
    whole = path.read_bytes()
    path.write_bytes(
        {
            "truncated": whole[: len(whole) // 2],
            "empty": b"",
            "noise": np.random.default_rng(0).bytes(5000),
            "html": b"<!doctype html><title>404</title>",
        }[damage]
    )
    with pytest.raises(WeightsError, match=r"is not a complete .*Fetch or copy it"):
        load_backbone(path, device="cpu")


def test_files_that_are_none(tmp_path):
    with pytest.raises(WeightsError, match="There is no weights file"):
        load_backbone(tmp_path / "absent.pth", device="cpu")
    with pytest.raises(WeightsError, match="There is no weights file"):
        load_backbone(str(tmp_path / "absent"), device="cpu")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(WeightsError, match=r"expected the ending \.safetensors"):
        load_backbone(tmp_path / "a.txt", device="cpu")
    torch.save([torch.ones(1)], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="holds a list"):
        load_backbone(tmp_path / "list.pth", device="cpu")


# --- images


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 28, 30), "multiples of the patch size 14, got \\(28, 30\\)"),
        ((1, 3, 13, 14), "multiples of the patch size 14"),
        ((1, 3, 0, 14), "multiples of the patch size 14"),
        ((1, 1, 28, 28), "must be \\(B, 3, H, W\\)"),
        ((3, 28, 28), "must be \\(B, 3, H, W\\)"),
        ((0, 3, 28, 28), "must be \\(B, 3, H, W\\)"),
    ],
)
def test_images_that_do_not_fit(state, save, shape, message):
    backbone = load_backbone(save(state), device="cpu")
    with pytest.raises(SettingsError, match=message):
        backbone.patch_features(torch.zeros(shape))


def test_integer_images_are_refused_and_arrays_taken(state, save):
    backbone = load_backbone(save(state), device="cpu")
    with pytest.raises(SettingsError, match="must be floats"):
        backbone.patch_features(torch.zeros(1, 3, 14, 14, dtype=torch.uint8))
    array = np.zeros((1, 3, 14, 28), np.float64)
    out = backbone.patch_features(array)
    assert (out.shape, out.dtype) == ((1, 64, 1, 2), torch.float32)


def test_a_cpu_result_does_not_depend_on_the_batch(state, save, images):
    backbone = load_backbone(save(state), alibi=Alibi(), device="cpu")
    x = images(14, (6, 6), batch=5)
    sizes = []
    backbone._model.norm.register_forward_hook(lambda m, i, o: sizes.append(len(o)))
    whole = backbone.patch_features(x)
    assert sizes == [1] * 5
    for i in range(5):
        assert torch.equal(backbone.patch_features(x[i : i + 1])[0], whole[i])


def test_half_formats_are_close_and_return_float32(state, save, images):
    x = images(14, (4, 4))
    path = save(state)
    for alibi in (None, Alibi(), Alibi("fixed")):
        exact = load_backbone(path, alibi=alibi, device="cpu").patch_features(x)
        half = load_backbone(path, alibi=alibi, device="cpu", dtype="bfloat16")
        assert half.dtype == torch.bfloat16
        out = half.patch_features(x)
        assert out.dtype == torch.float32
        assert 0 < (out - exact).abs().max() < 0.2


# --- identity


def test_identity_is_json_and_names_all_that_matters(state, save):
    path = save(state)
    one = load_backbone(path, alibi=Alibi(), device="cpu").identity
    assert json.loads(json.dumps(one)) == one
    assert one["name"] == "vit"
    assert one["status"] == "unverified"
    assert one["alibi"]["wrap"] is True
    assert len(one["sha256"]) == 64
    others = [
        load_backbone(path, alibi=None, device="cpu").identity,
        load_backbone(path, alibi=Alibi(wrap=False), device="cpu").identity,
        load_backbone(path, alibi=Alibi(), num_heads=2, device="cpu").identity,
    ]
    assert one not in others
    changed = save(_zero(state), "vit2.safetensors")
    assert load_backbone(changed, alibi=Alibi()).identity["sha256"] != one["sha256"]
    # precision and device are no part of it: a classifier moves between machines
    half = load_backbone(path, alibi=Alibi(), device="cpu", dtype="bfloat16")
    assert half.identity == one


def _load_variants(make_vit, tmp_path):
    for kind, kwargs, said in [
        ("dinov2-reg", {}, FileMetadata()),
        ("dinov2-reg", {"alibi": Alibi("fixed"), "num_heads": 2}, FileMetadata()),
        ("clip", {}, FileMetadata(activation="quick_gelu", mean=(0, 0, 0))),
        ("dinov3", {"alibi": None}, FileMetadata()),
        ("eva02", {}, FileMetadata()),
    ]:
        path = tmp_path / f"{kind}-{len(kwargs)}.safetensors"
        save_backbone(path, make_vit(kind).state_dict(), said)
        yield path, load_backbone(path, device="cpu", **kwargs)


def test_identity_rebuilds_the_backbone(make_vit, tmp_path, images):
    for path, backbone in _load_variants(make_vit, tmp_path):
        moved = path.rename(path.with_name("moved-" + path.name))
        identity = json.loads(json.dumps(backbone.identity))
        again = reload_backbone(identity, weights=moved, device="cpu")
        assert again.identity == backbone.identity
        x = images(backbone.patch_size, (3, 4))
        assert torch.equal(again.patch_features(x), backbone.patch_features(x))


def test_reload_refuses_other_weights(make_vit, state, save):
    identity = load_backbone(save(state), device="cpu").identity
    other = save(make_vit("dinov2-reg", seed=1).state_dict(), "other.safetensors")
    with pytest.raises(WeightsError, match="is not the weights wanted here"):
        reload_backbone(identity, weights=other, device="cpu")
    with pytest.raises(WeightsError, match="that no registry knows"):
        reload_backbone(identity, device="cpu")
    with pytest.raises(SettingsError, match="not the identity of a backbone"):
        reload_backbone({"name": "x"}, weights=other, device="cpu")
    broken = {**identity, "arch": {"family": "vit"}}
    with pytest.raises(SettingsError, match="not the description of a ViT"):
        reload_backbone(broken, weights=other, device="cpu")


def test_reload_with_a_denoiser(shared_dir, state, save, images):
    below = shared_dir / "golden/dvt/dvt_denoiser.pth"
    path = save(state)
    wrapped = load_denoiser(below, device="cpu").wrap(load_backbone(path, device="cpu"))
    again = reload_backbone(
        wrapped.identity, weights=path, denoiser=below, device="cpu"
    )
    assert again.identity == wrapped.identity
    x = images(14, (3, 4))
    assert torch.equal(again.patch_features(x), wrapped.patch_features(x))
    with pytest.raises(WeightsError, match="The denoiser of"):
        reload_backbone(wrapped.identity, weights=path, device="cpu")
