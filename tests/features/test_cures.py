"""Cures of position bias: words, arithmetic on known features, identities."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import Block

from napari_alibi_seg._base import Alibi, SettingsError
from napari_alibi_seg.analysis import transfer_probe
from napari_alibi_seg.data import synthesize
from napari_alibi_seg.features import (
    CURES,
    FIELD_PRESETS,
    CureStep,
    FieldSettings,
    cure_backbone,
    cure_help,
    fit_image,
    load_backbone,
    located_spec,
    positional_channels,
    reload_backbone,
    spec_files,
    split_spec,
)

_TWINS = Path(__file__).resolve().parents[1] / "data"
_TABLE = _TWINS / "twin-table.safetensors"
_ALIBI = _TWINS / "twin-alibi.safetensors"


class Planted:
    """A backbone that shows each patch's mean grey, and where the patch stands.

    Channels: content, content times -2, column ramp, row ramp, column wave, constant.
    """

    name = "planted"
    patch_size, embed_dim, num_heads = 4, 6, 1
    alibi = None
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    device, dtype, path = torch.device("cpu"), torch.float32, None
    identity = {"name": "planted", "sha256": "0", "denoiser": None}  # noqa: RUF012

    def patch_features(self, images):
        grey = torch.nn.functional.avg_pool2d(images.mean(1, keepdim=True), 4)
        h, w = grey.shape[2:]
        x = torch.linspace(-1, 1, w).expand(1, 1, h, w)
        y = torch.linspace(-1, 1, h)[:, None].expand(1, 1, h, w)
        place = torch.cat([x, y, torch.sin(3 * x), 0 * x + 1], dim=1)
        return torch.cat([grey, -2 * grey, place.expand(len(grey), -1, -1, -1)], dim=1)


@pytest.fixture(scope="module")
def blanked():
    """The twin with a table and a list that was searched for: a second of work."""
    return load_backbone(f"{_TABLE}+blank", device="cpu")


@pytest.fixture
def image():
    return torch.randn(2, 3, 24, 32, generator=torch.Generator().manual_seed(0))


def _cured(words):
    return cure_backbone(Planted(), split_spec("planted+" + words)[1])


def _spread(features):
    """Largest difference from place to place in the four positional channels."""
    place = features[:, 2:6]
    return float((place - place.mean((2, 3), keepdim=True)).abs().max())


# ------------------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dinov2-s", ("dinov2-s", ())),
        ("dinov2-s+blank", ("dinov2-s", (CureStep("blank"),))),
        ("a.pth+blank=9,3,3", ("a.pth", (CureStep("blank", (3, 9)),))),
        ("x+svd", ("x", (CureStep("svd", 16),))),
        ("x+svd=2+roll=8", ("x", (CureStep("svd", 2), CureStep("roll", 8)))),
        ("x+average", ("x", (CureStep("average", 8),))),
        ("a+b.pth+roll", ("a+b.pth", (CureStep("roll", 4),))),
        ("rolls+rolling.pth", ("rolls+rolling.pth", ())),
        ("x+denoise=c+d.pth", ("x", (CureStep("denoise", "c+d.pth"),))),
        ("x+nope", ("x", (CureStep("nope"),))),
        ("x+field", ("x", (CureStep("field", "small"),))),
    ],
)
def test_words(text, expected):
    assert split_spec(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x+svd=0", r"\+svd\[=RANK\]"),
        ("x+svd=two", "got 'two'"),
        ("x+average=5", r"\+average\[=4\|8\]"),
        ("x+blank=a", r"\+blank\[=N,N,\.\.\.\]"),
        ("x+nope=1", "got '1'"),
        ("x+denoise", "needs the file of a denoiser"),
        ("x+field=huge", "small|medium|paper"),
        ("dinov2-s+rol", "no cure called 'rol'.*mean 'roll'.*There are: \\+blank"),
        ("x+roll=2+bank", "no cure called 'bank'"),
    ],
)
def test_wrong_words(text, message):
    with pytest.raises(SettingsError, match=message):
        split_spec(text)


def test_every_cure_is_explained():
    for kind in CURES:
        assert f"+{kind}" in cure_help()


@pytest.mark.parametrize("words", ["svd=3", "roll=2+blank=1,2", "average=4", "nope"])
def test_words_of_steps_are_the_words_read(words):
    steps = split_spec("x+" + words)[1]
    assert "+".join(map(str, steps)) == words


def test_places_of_files(tmp_path):
    weights = tmp_path / "odd+roll.safetensors"
    weights.touch()
    assert split_spec(str(weights)) == (str(weights), ())
    spec = f"{weights}+roll=2+denoise=d.pth"
    assert spec_files(spec) == (weights, Path("d.pth"))
    assert located_spec(spec) == f"{weights}+roll=2+denoise={Path('d.pth').resolve()}"
    assert located_spec("dinov2-s+roll") is None


# -------------------------------------------------------------------------- arithmetic


def test_blank_zeroes_the_named_channels_alone(image):
    raw = Planted().patch_features(image)
    out = _cured("blank=2,4").patch_features(image)
    assert torch.equal(out[:, [0, 1, 3, 5]], raw[:, [0, 1, 3, 5]])
    assert not out[:, [2, 4]].any()


def test_blank_refuses_channels_that_are_not_there():
    with pytest.raises(SettingsError, match=r"from 0 to 5, got \[6\]"):
        _cured("blank=6")


def test_blank_finds_the_channel_that_follows_position():
    assert _cured("blank").identity["cures"]["steps"][0]["channels"][0] in (2, 3, 4)


def test_blank_takes_the_registry_s_channels():
    class Named(Planted):
        name, embed_dim = "dinov2-s-reg", 384

    out = cure_backbone(Named(), [CureStep("blank")])
    assert out.name == "dinov2-s-reg+blank=47,117,359"


def test_positional_channels_are_the_strongest_ones():
    rng = np.random.default_rng(0)
    maps = []
    for _ in range(12):
        one = rng.normal(size=(10, 14, 16))
        one[..., 5] += 6 * np.linspace(0, 1, 14)
        one[..., 9] += 12 * np.linspace(0, 1, 10)[:, None]
        maps.append(one)
    assert positional_channels(maps) == (5, 9)
    assert positional_channels(maps, at_most=1 / 16) == (9,)
    assert positional_channels(maps, above=0.999) == ()
    with pytest.raises(SettingsError, match="at least 8"):
        positional_channels(maps[:4])


@pytest.mark.parametrize("words", ["average", "average=4", "roll", "roll=6"])
def test_averages_keep_content_and_lower_position(words, image):
    raw = Planted().patch_features(image)
    out = _cured(words).patch_features(image)
    assert out.shape == raw.shape
    # a patch is not a square of pixels turned by halves: its mean stays to rounding
    torch.testing.assert_close(out[:, :2], raw[:, :2], atol=1e-5, rtol=0)
    limit = {"average": 1e-6, "average=4": 1.01, "roll": 0.35, "roll=6": 0.25}[words]
    assert _spread(out) < limit * _spread(raw)


def test_roll_by_every_offset_leaves_no_position(image):
    square = image[..., :24]
    out = _cured("roll=6").patch_features(square)
    assert _spread(out) < 1e-5


def test_svd_takes_out_what_a_blank_image_shows(image):
    out = _cured("svd=3").patch_features(image)
    norms = out.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms))
    x = torch.linspace(-1, 1, 8)
    # of the ramp nothing is left that could be told from the content
    left = torch.corrcoef(torch.stack([out[0, 2].mean(0), x]))[0, 1]
    assert out[:, 2:5].abs().max() < 0.05 or abs(left) < 0.5


def test_svd_leaves_directions_where_there_is_no_position(image):
    class Placeless(Planted):
        def patch_features(self, images):
            features = super().patch_features(images)
            features[:, 2:5] = 1
            return features

    raw = Placeless().patch_features(image)
    out = cure_backbone(Placeless(), [CureStep("svd", 4)]).patch_features(image)
    torch.testing.assert_close(out, torch.nn.functional.normalize(raw, dim=1))


@pytest.mark.parametrize("rank", [6, 7])
def test_svd_of_too_high_a_rank(rank):
    with pytest.raises(SettingsError, match="rank from 1 to 5"):
        _cured(f"svd={rank}")


def test_cures_follow_one_another(image):
    out = _cured("roll=6+blank=5")
    steps = out.identity["cures"]
    assert steps == {
        "base": "planted",
        "steps": [
            {"kind": "roll", "copies": 6},
            {"kind": "blank", "channels": [5]},
        ],
    }
    assert not out.patch_features(image)[:, 5].any()
    assert out.name == "planted+roll=6+blank=5"


# ------------------------------------------------------------------- files and identity


@pytest.mark.parametrize(
    "words",
    [
        *("blank=3,5", "svd=4", "average=4", "roll=2", "nope", "sinusoid", "alibi"),
        "roll=2+blank=1",
    ],
)
def test_reloading_gives_the_same_features(words):
    spec = f"{_TABLE}+{words}"
    cured = load_backbone(spec, device="cpu")
    identity = json.loads(json.dumps(cured.identity))
    again = reload_backbone(identity, weights=spec, device="cpu")
    assert again.identity == identity
    x = torch.randn(1, 3, 28, 42, generator=torch.Generator().manual_seed(1))
    assert torch.equal(cured.patch_features(x), again.patch_features(x))
    plain = load_backbone(_TABLE, device="cpu")
    assert not torch.equal(cured.patch_features(x), plain.patch_features(x))
    assert "cures" not in plain.identity


def test_a_found_list_is_not_searched_for_again(blanked, monkeypatch):
    channels = blanked.identity["cures"]["steps"][0]["channels"]
    assert 1 <= len(channels) <= 12
    probed = "napari_alibi_seg.features._cure_blank._probe_maps"
    monkeypatch.setattr(probed, lambda b: 1 / 0)
    again = reload_backbone(blanked.identity, weights=_TABLE, device="cpu")
    assert again.identity["cures"]["steps"][0]["channels"] == channels


def test_forged_identities_are_refused():
    cured = load_backbone(f"{_TABLE}+roll", device="cpu")
    for cures in (None, {"base": "x"}, {"base": "x", "steps": [{"kind": "no"}]}, 3):
        with pytest.raises(SettingsError, match="not a list of cures"):
            reload_backbone(
                {**cured.identity, "cures": cures}, weights=_TABLE, device="cpu"
            )


def test_swaps():
    plain = load_backbone(_TABLE, device="cpu")
    x = torch.full((1, 3, 70, 70), 0.3)

    def spread(words):
        f = load_backbone(f"{_TABLE}+{words}", device="cpu").patch_features(x)[0]
        return float((f - f.mean((1, 2), keepdim=True)).norm() / f.norm())

    # without position nothing tells the tokens of a constant image apart
    assert spread("nope") < 1e-3
    assert spread("alibi") < 1e-3
    assert spread("sinusoid") > 0.1
    swapped = load_backbone(f"{_TABLE}+alibi", device="cpu")
    assert swapped.alibi == Alibi()
    assert swapped.identity["alibi"] is None
    assert swapped.identity["cures"]["steps"] == [{"kind": "alibi", "distilled": False}]
    same = load_backbone(_TABLE, alibi=Alibi(), device="cpu")
    assert torch.equal(swapped.patch_features(x), same.patch_features(x))
    assert plain.alibi is None


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (f"{_ALIBI}+alibi", "is that already"),
        (f"{_ALIBI}+sinusoid", "has none"),
        (f"{_TABLE}+roll+nope", "right behind a plain ViT"),
        (f"{_ALIBI}+blank", "finds nothing to blank"),
    ],
    ids=["alibi twice", "waves for nothing", "swap behind", "nothing to blank"],
)
def test_cures_that_do_not_fit(spec, message):
    with pytest.raises(SettingsError, match=message):
        load_backbone(spec, device="cpu")


@pytest.mark.parametrize("kind", ["dinov2-reg", "dinov3", "eva02", "supervised"])
def test_swaps_of_every_family(kind, make_vit, save, images):
    path = save(make_vit(kind).state_dict())
    plain = load_backbone(path, alibi=None, device="cpu")
    x = images(plain.patch_size, (4, 5))
    nope = load_backbone(f"{path}+nope", alibi=None, device="cpu")
    assert nope.patch_features(x).shape == plain.patch_features(x).shape
    constant = nope.patch_features(0 * x + 1)
    torch.testing.assert_close(
        constant, constant[..., :1, :1].expand_as(constant), atol=1e-4, rtol=0
    )


def test_denoiser_by_a_spec(tmp_path):
    torch.manual_seed(0)
    block = Block(96, 1, qkv_bias=True)
    state = {f"denoiser.{k}": v for k, v in block.state_dict().items()}
    state["pos_embed"] = 0.02 * torch.randn(1, 16, 96)
    torch.save({"denoiser": state}, tmp_path / "d.pth")
    spec = f"{_TABLE}+denoise={tmp_path / 'd.pth'}+roll=2"
    cured = load_backbone(spec, device="cpu")
    assert cured.identity["denoiser"]["base"] == cured.inner.backbone.name
    again = reload_backbone(cured.identity, weights=spec, device="cpu")
    x = torch.randn(1, 3, 28, 28)
    assert torch.equal(cured.patch_features(x), again.patch_features(x))
    with pytest.raises(SettingsError, match="Put it first"):
        load_backbone(f"{_TABLE}+roll+denoise={tmp_path / 'd.pth'}", device="cpu")


def test_field_by_a_spec(monkeypatch):
    quick = FieldSettings(views=4, steps=5, batch=64, levels=2, finest=16)
    monkeypatch.setitem(FIELD_PRESETS, "small", quick)
    cured = load_backbone(f"{_TABLE}+field", device="cpu")
    identity = json.loads(json.dumps(cured.identity))
    assert identity["cures"]["steps"][0]["settings"]["steps"] == 5
    x = torch.randn(2, 3, 42, 56, generator=torch.Generator().manual_seed(0))
    out = cured.patch_features(x)
    assert out.shape == (2, 96, 3, 4)
    plain = load_backbone(_TABLE, device="cpu")
    alone = fit_image(plain, x[1], quick).semantic
    np.testing.assert_array_equal(out[1].permute(1, 2, 0).numpy(), alone)
    again = reload_backbone(identity, weights=_TABLE, device="cpu")
    assert again.identity == identity
    assert torch.equal(again.patch_features(x[:1]), out[:1])


# ---------------------------------------------------------------------------- the claim


@cache
def _pictures(side):
    """All cures are shown the same 32."""
    found = []
    for seed in range(32):
        kind = ("spinodal", "grains", "precipitates")[seed % 3]
        image = synthesize(kind, (side, side), seed=seed).image.astype(np.float32)
        found.append(torch.from_numpy((image - image.min()) / np.ptp(image)))
    return found


def _maps(backbone):
    side = 16 * backbone.patch_size
    mean, std = (
        torch.tensor(v).reshape(1, 3, 1, 1) for v in (backbone.mean, backbone.std)
    )
    maps = []
    for values in _pictures(side):
        batch = (values.expand(1, 3, side, side) - mean) / std
        maps.append(backbone.patch_features(batch)[0].permute(1, 2, 0).numpy())
    return maps


def test_cures_lower_what_can_be_read_of_position(blanked):
    r2 = {
        words: transfer_probe(_maps(load_backbone(f"{_TABLE}{words}", device="cpu"))).r2
        for words in ("", "+svd", "+average", "+roll", "+nope", "+sinusoid")
    }
    r2["+blank"] = transfer_probe(_maps(blanked)).r2
    assert r2[""] > 0.5
    # blanking and projecting lower it, but a linear probe finds what is left
    assert r2["+blank"] < r2[""] - 0.001
    assert r2["+svd"] < r2[""] - 0.02
    for words in ("+average", "+roll", "+nope"):
        assert r2[words] < 0.05, words
    # waves are a position too
    assert r2["+sinusoid"] > 0.5
