"""The probe table: floors, planted bias and planted shading, one image and many."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from napari_alibi_seg._base import SettingsError
from napari_alibi_seg.analysis import (
    RAMPS,
    Smoothness,
    linear_probe,
    measure_smoothness,
    move_image,
    noise_floor,
    probe_table,
    ramp,
    transfer_probe,
)

GRID = (24, 24)


def _standardised(x):
    return (x - x.mean(axis=(0, 1))) / x.std(axis=(0, 1))


def _smooth(rng, sigma, n_channels, shape=GRID):
    """Noise without edges: a window of a larger field."""
    pad = 4 * sigma
    field = rng.normal(size=(shape[0] + 2 * pad, shape[1] + 2 * pad, n_channels))
    field = gaussian_filter(field, (sigma, sigma, 0)) if sigma else field
    return _standardised(field[pad : pad + shape[0], pad : pad + shape[1]])


# ------------------------------------------------------------------------------- floors


@pytest.mark.parametrize(
    ("n_channels", "n_tokens", "mean", "sd"),
    [(384, 38, -0.11, 0.04), (4, 38, -0.17, 0.08), (384, 37 * 37, 0.28, 0.01)],
    ids=["384 channels", "4 channels", "all tokens"],
)
def test_floor_of_white_noise(n_channels, n_tokens, mean, sd):
    """methods.md C3, within two of its standard deviations."""
    floor = noise_floor((37, 37), n_channels, n_tokens=n_tokens)
    assert abs(floor.mean - mean) <= 2 * sd
    assert 0 < floor.sd < 3 * sd


@pytest.mark.parametrize("sigma", [1, 2, 4])
@pytest.mark.parametrize("n_maps", [1, 5])
def test_floor_of_smooth_noise(sigma, n_maps):
    """Noise made to be as smooth reads as well as the noise that was measured."""
    rng = np.random.default_rng(sigma)
    maps = [_smooth(rng, sigma, 64) for _ in range(16)]
    target, found = ramp("lr+ud", GRID), []
    for x in maps:
        mask = np.zeros(GRID, bool)
        mask.flat[rng.choice(mask.size, 38, replace=False)] = True
        found.append(linear_probe(x, target, mask).r2)
    smoothness = measure_smoothness(maps[:n_maps])
    floor = noise_floor(GRID, 64, smoothness=smoothness)
    assert abs(floor.mean - np.mean(found)) <= 2 * max(np.std(found), 0.02)
    # a Gaussian filter of sigma leaves exp(-d^2 / (4 sigma^2))
    assert smoothness.rows == pytest.approx(2 * sigma, rel=0.25)
    assert smoothness.power > 1.6


def test_smoothness_by_axis_and_bias_aside():
    rng = np.random.default_rng(0)
    wide = [gaussian_filter(rng.normal(size=(*GRID, 32)), (1, 3, 0)) for _ in range(6)]
    smoothness = measure_smoothness(wide)
    assert smoothness.cols > 2 * smoothness.rows
    where = 0.5 * ramp("lr", GRID)
    biased = measure_smoothness([x + where for x in wide])
    assert biased.cols == pytest.approx(smoothness.cols, rel=1e-3)


def test_drawn_noise_has_the_correlation_it_says():
    smooth = Smoothness(rows=3.0, cols=1.5, power=1.4, nugget=0.2)
    x = smooth.draw((32, 40), 200, np.random.default_rng(0))
    assert x.shape == (32, 40, 200)
    for r, c in [(1, 0), (3, 0), (0, 1), (0, 3), (2, 2)]:
        found = (x[r:, c:] * x[: 32 - r, : 40 - c]).mean() / (x**2).mean()
        expected = smooth.correlation(np.array(r), np.array(c))
        assert found == pytest.approx(float(expected), abs=0.05)


def test_constant_maps_are_no_smoother_than_noise():
    assert measure_smoothness([np.ones((6, 6, 3))]).nugget == 1


# --------------------------------------------------------------------- planted features


@cache
def _table(plant, n, sigma=0):
    """A table of 64 channels, some planted to follow the frame or the content."""
    rng = np.random.default_rng(n + sigma)
    where = _standardised(
        np.concatenate([ramp("lr+ud", GRID), ramp("radial", GRID)], axis=2)
    )
    maps, moved = [], {"flip": [], "roll": []}
    for _ in range(n):
        own = rng.choice([-1, 1], 3) if plant == "own content" else 1
        base = _smooth(rng, sigma, 64)
        for kind, out in [(None, maps), *moved.items()]:
            x = base if kind is None else move_image(base, kind)
            shading = where * own if kind is None else move_image(where * own, kind)
            x = x.copy()
            if plant in ("bias", "both"):
                x[..., :3] = where + 0.3 * x[..., :3]
            if plant in ("content", "both", "own content"):
                x[..., 10:13] = shading + 0.3 * x[..., 10:13]
            out.append(x)
    return maps, probe_table(maps, moved, n_draws=6)


@pytest.mark.parametrize(
    ("plant", "verdict"),
    [
        ("none", "neither"),
        ("bias", "bias"),
        ("content", "content"),
        ("both", "both"),
        ("own content", "content"),
    ],
)
@pytest.mark.parametrize("n", [1, 12])
@pytest.mark.parametrize("name", ["lr", "ud", "diag", "radial", "raster", "lr+ud"])
def test_verdict(plant, verdict, n, name):
    _, table = _table(plant, n)
    control = table[name].control
    assert (control.frame > 0.3) == (verdict in ("bias", "both"))
    assert (control.content > 0.3) == (verdict in ("content", "both"))
    if plant == "both" and n == 1:
        return  # the shading makes the only image, and so its floor, smooth
    assert control.verdict == verdict


@pytest.mark.parametrize(
    ("plant", "verdict"),
    [("none", "neither"), ("bias", "bias"), ("content", "content"), ("both", "both")],
)
def test_verdict_where_content_is_smooth(plant, verdict):
    _, table = _table(plant, 12, sigma=2)
    assert {table[k].control.verdict for k in ("lr", "ud", "lr+ud")} == {verdict}


@pytest.mark.parametrize("plant", ["none", "bias", "content", "both"])
def test_random_target_is_never_read(plant):
    row = _table(plant, 12)[1]["random"]
    assert row.transfer_r2 < 0.05
    assert row.control.verdict == "neither"
    assert row.channels == ()


@pytest.mark.parametrize("name", RAMPS)
def test_headline_is_the_transfer_probe(name):
    maps, table = _table("bias", 12)
    probe = transfer_probe(maps, target=name)
    assert table[name].transfer_r2 == pytest.approx(probe.r2, abs=1e-9)


def test_channels_and_floors():
    table = _table("bias", 12)[1]
    assert set(table["lr+ud"].channels) == {0, 1}
    assert table["lr"].channels == (0,)
    assert table["radial"].channels == (2,)
    assert 0.1 <= table["lr"].channel_r2 < 0.35
    row = table["lr+ud"]
    assert row.transfer_r2 > 0.85
    assert row.transfer_floor.mean < 0
    assert row.crossfit_r2 > 0.8
    # the single image reads less than it could, far above its own floor
    assert row.single_floor.mean + 4 * row.single_floor.sd < row.single_r2 < 0.7


def test_smooth_content_misleads_within_an_image_only():
    row = _table("none", 12, sigma=2)[1]["lr+ud"]
    assert row.single_r2 > 0.6
    assert abs(row.single_r2 - row.single_floor.mean) < 0.2
    assert row.transfer_r2 < 0
    assert row.crossfit_r2 < 0.3


def test_one_image_has_no_transfer():
    row = _table("bias", 1)[1]["lr"]
    assert row.transfer_r2 is None
    assert row.transfer_floor is None
    assert row.channels == (0,)


def test_without_moves_there_is_no_verdict_and_a_flip_does_not_tell_radial():
    maps, _ = _table("bias", 1)
    assert {row.control for row in probe_table(maps, n_draws=1).rows} == {None}
    flipped = {"flip": [move_image(x, "flip") for x in maps]}
    table = probe_table(maps, flipped, n_draws=1)
    assert table["radial"].control is None
    assert table["lr"].control.verdict == "content"


def test_same_seed_same_table_as_json():
    maps, _ = _table("none", 1)
    a, b, c = (probe_table(maps, n_draws=2, seed=s).to_dict() for s in (3, 3, 4))
    assert json.loads(json.dumps(a)) == json.loads(json.dumps(b))
    assert a["rows"][0]["single_r2"] != c["rows"][0]["single_r2"]
    assert [row["ramp"] for row in a["rows"]] == [*RAMPS]


@pytest.mark.parametrize("kind", ["flip", "roll"])
def test_moving_pixels_moves_tokens(kind):
    image = np.random.default_rng(0).normal(size=(20, 12))
    tokens = image.reshape(5, 4, 3, 4).mean(axis=(1, 3))
    moved = move_image(image, kind, 4).reshape(5, 4, 3, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(moved, move_image(tokens, kind))
    assert not np.allclose(moved, tokens)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda m: probe_table([]), "got none"),
        (lambda m: probe_table(m, {"turn": m}), "keyed by .* got 'turn'"),
        (lambda m: probe_table(m, {"flip": m * 2}), "a map for each of `maps`"),
        (lambda m: probe_table(m, n_tokens=1), "`n_tokens` must be"),
        (lambda m: probe_table(m, n_draws=0), "`n_draws` must be"),
        (lambda m: probe_table(m, n_draws=1)["up"], "`ramp` must be one of"),
        (lambda m: move_image(m[0], "turn"), "`kind` must be one of"),
        (lambda m: move_image(m[0], "flip", 5), "multiples of the patch size 5"),
        (lambda m: noise_floor((4, 4), 3, n_tokens=17), "`n_tokens` must be"),
    ],
)
def test_refuses(call, match):
    with pytest.raises(SettingsError, match=match):
        call([np.random.default_rng(0).normal(size=(6, 6, 2))])
