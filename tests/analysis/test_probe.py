"""The probes: golden values, scikit-learn, published noise floors, planted position."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.metrics import r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from napari_alibi_seg._base import SettingsError
from napari_alibi_seg.analysis import linear_probe, ramp, transfer_probe

GRID = (37, 37)


# ----------------------------------------------------------------------- single image


def test_golden(shared_dir):
    golden = np.load(shared_dir / "golden" / "probe" / "linear_probe.npz")
    cases = [key.removeprefix("r2_") for key in golden if key[:4] in ("r2_0", "r2_1")]
    assert len(cases) == 10
    for case in cases:
        i, kind = case.split("_")
        x, mask = golden[f"features_{i}"], golden[f"mask_{i}"]
        target = golden[f"target_{case}"]
        if case != "1_diag":  # there both axes rise by one step of the longer one
            np.testing.assert_allclose(ramp(kind, mask.shape), target, atol=1e-12)
        result = linear_probe(x, target, mask, per_channel=True)
        assert result.r2 == pytest.approx(float(golden[f"r2_{case}"]), abs=1e-5)
        assert result.prediction.shape == target.shape
        np.testing.assert_allclose(
            result.r2_per_channel, golden[f"r2_per_channel_{case}"], rtol=0, atol=1e-5
        )


def _sample(c, seed=0, share=0.3):
    """Channels of different scale and offset, two of them constant, one positional."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(11, 14, c)) * rng.uniform(0.1, 30, c) + rng.normal(0, 50, c)
    x[..., 0] = ramp("ud", x.shape[:2])[..., 0] + 0.2 * rng.normal(size=x.shape[:2])
    x[..., -1], x[..., -2] = 0.1, 0
    return x, ramp("lr+ud", x.shape[:2]), rng.random(x.shape[:2]) < share


@pytest.mark.parametrize("c", [5, 120], ids=["few channels", "fewer tokens"])
@pytest.mark.parametrize(
    ("standardise", "alpha"),
    [(True, 1.0), (True, 0.01), (True, 250.0), (False, 1.0), (True, 0.0)],
)
def test_equals_scikit_learn(c, standardise, alpha):
    x, y, mask = _sample(c)
    model = Ridge(alpha=alpha) if alpha else LinearRegression()
    if standardise:
        model = make_pipeline(StandardScaler(), model)
    expected = model.fit(x[mask], y[mask]).predict(x.reshape(-1, c))
    result = linear_probe(
        x, y, mask, standardise=standardise, alpha=alpha, per_channel=True
    )
    np.testing.assert_allclose(result.prediction.reshape(-1, 2), expected, atol=1e-7)
    flat = y.reshape(-1, 2)
    assert result.r2 == pytest.approx(r2_score(flat, expected), abs=1e-7)
    if not standardise:
        return  # channels by themselves follow the same code
    for i in (0, 1, c - 1):
        own = x[..., i : i + 1]
        model.fit(own[mask], y[mask])
        alone = r2_score(flat, model.predict(own.reshape(-1, 1)))
        assert result.r2_per_channel[i] == pytest.approx(alone, abs=1e-7)


def test_channels_alone_only_when_asked_for():
    assert linear_probe(*_sample(5)).r2_per_channel is None


def test_nan_and_infinity_count_as_0():
    x, y, mask = _sample(6)
    holes = np.random.default_rng(3).random(x.shape) < 0.1
    zeroed, broken = np.where(holes, 0, x), np.where(holes, np.nan, x)
    broken[holes & (np.arange(6) % 2 == 0)] = -np.inf
    a, b = (linear_probe(f, y, mask, per_channel=True) for f in (zeroed, broken))
    assert a.r2 == b.r2
    assert np.array_equal(a.prediction, b.prediction)
    assert np.array_equal(a.r2_per_channel, b.r2_per_channel)
    assert np.isfinite(a.r2)


@pytest.mark.parametrize(
    ("n_channels", "n_ramps", "n_tokens", "mean", "sd"),
    [
        (384, 0, 38, -0.11, 0.04),
        (384, 2, 38, 0.10, 0.02),
        (384, 40, 38, 0.89, 0.01),
        (32, 2, 38, 0.96, 0.03),
        (8, 2, 38, 0.999, 0.0005),
        (4, 0, 38, -0.17, 0.08),
        (384, 0, 37 * 37, 0.28, 0.01),
    ],
)
def test_noise_floor(n_channels, n_ramps, n_tokens, mean, sd):
    """The row of methods.md C3, within two of its standard deviations."""
    target = ramp("lr+ud", GRID)
    found = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(*GRID, n_channels))
        x[..., :n_ramps] = target[..., np.arange(n_ramps) % 2]
        mask = np.zeros(GRID, bool)
        mask.flat[rng.choice(mask.size, n_tokens, replace=False)] = True
        found.append(linear_probe(x, target, mask).r2)
    assert abs(np.mean(found) - mean) <= 2 * sd


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"features": np.zeros((4, 5))}, r"`features` must be \(h, w, C\)"),
        ({"target": np.zeros((4, 5))}, r"got \(4, 5, 3\) and \(4, 5\)"),
        ({"target": np.zeros((5, 4, 1))}, "on the same grid"),
        ({"sample_mask": np.ones((4, 4), bool)}, r"bool array of shape \(4, 5\)"),
        ({"sample_mask": np.ones((4, 5), np.uint8)}, "got uint8 of shape"),
        ({"sample_mask": np.arange(20).reshape(4, 5) == 3}, "at least 2 tokens, got 1"),
        ({"alpha": -0.1}, "`alpha` must be 0 or more, got -0.1"),
        ({"alpha": float("nan")}, "`alpha` must be 0 or more, got nan"),
    ],
)
def test_linear_probe_refuses(changes, match):
    arguments = {
        "features": np.zeros((4, 5, 3)),
        "target": ramp("lr", (4, 5)),
        "sample_mask": np.ones((4, 5), bool),
        "alpha": 1.0,
        **changes,
    }
    alpha = arguments.pop("alpha")
    with pytest.raises(SettingsError, match=match):
        linear_probe(**arguments, alpha=alpha)


# --------------------------------------------------------------------- between images


def _standardised(x):
    return (x - x.mean(axis=(0, 1))) / x.std(axis=(0, 1))


@cache
def _contents(n):
    """Smooth channels of unit variance, without any position, of `n` images."""
    rng = np.random.default_rng(0)
    shape = (*GRID, 192)
    smooth = (gaussian_filter(rng.normal(size=shape), (3, 3, 0)) for _ in range(n))
    return [_standardised(x) for x in smooth]


def _planted(n, noise):
    """The same with two positional channels, disturbed by `noise` of their content."""
    where = _standardised(ramp("lr+ud", GRID))
    out = [x.copy() for x in _contents(n)]
    for x in out:
        x[..., 50:52] = where + noise * x[..., 50:52]
    return out


def test_smooth_content_is_not_position():
    result = transfer_probe(_contents(32), n_held_out=8)
    assert (result.n_fit, result.n_held_out) == (24, 8)
    assert result.r2 < 0
    assert result.r2_per_channel.max() < 0.05
    # which a probe within one image cannot tell
    mask = np.random.default_rng(0).random(GRID) < 1 / 4
    target = ramp("lr+ud", GRID)
    assert max(linear_probe(x, target, mask).r2 for x in _contents(32)[:3]) > 0.4


def test_two_planted_channels_of_192_are_found():
    result = transfer_probe(_planted(32, noise=0.3), n_held_out=8)
    assert 0.80 < result.r2 < 0.95
    # each carries one of two targets: half of the mean of both
    assert set(np.argsort(result.r2_per_channel)[-2:]) == {50, 51}
    assert result.r2_per_channel[50:52].min() > 0.4
    assert np.delete(result.r2_per_channel, [50, 51]).max() < 0.05


def test_more_position_reads_better():
    found = [transfer_probe(_planted(32, noise)).r2 for noise in (1.0, 0.5, 0.1)]
    assert found == sorted(found)
    assert found[-1] > 0.97


def test_one_target_only():
    maps = _planted(32, noise=0.3)
    alone = transfer_probe(maps, target="ud").r2_per_channel
    assert alone[51] > 0.8
    assert alone[50] < 0.05


def test_equals_scikit_learn_on_all_tokens():
    """With every token fitted nothing is drawn, and the order of images is free."""
    rng = np.random.default_rng(5)
    maps = [rng.normal(size=(6, 7, 4)) for _ in range(9)]
    for x in maps:
        x[..., 2] += ramp("lr", (6, 7))[..., 0]
    y = ramp("lr+ud", (6, 7)).reshape(-1, 2)
    model = make_pipeline(StandardScaler(), Ridge(alpha=2.0))
    model.fit(np.concatenate([x.reshape(-1, 4) for x in maps[:6]]), np.tile(y, (6, 1)))
    new = np.concatenate([x.reshape(-1, 4) for x in maps[6:]])
    result = transfer_probe(maps, n_held_out=3, n_tokens=1000, alpha=2.0)
    expected = r2_score(np.tile(y, (3, 1)), model.predict(new))
    assert result.r2 == pytest.approx(expected, abs=1e-9)
    turned = [*maps[5::-1], *maps[:5:-1]]
    again = transfer_probe(turned, n_held_out=3, n_tokens=1000, alpha=2.0)
    assert again.r2 == pytest.approx(result.r2, abs=1e-9)
    np.testing.assert_allclose(again.r2_per_channel, result.r2_per_channel, atol=1e-9)


@pytest.mark.parametrize(
    ("n", "n_held_out", "expected"),
    [(32, None, (24, 8)), (10, None, (8, 2)), (3, None, (2, 1)), (12, 10, (2, 10))],
)
def test_how_many_are_held_out(n, n_held_out, expected):
    rng = np.random.default_rng(0)
    maps = [rng.normal(size=(5, 5, 3)) for _ in range(n)]
    result = transfer_probe(maps, n_held_out=n_held_out)
    assert (result.n_fit, result.n_held_out) == expected


def test_same_seed_same_number_and_nan_is_0():
    maps = [m[:12, :12, :20] for m in _contents(32)]
    assert transfer_probe(maps, seed=4).r2 == transfer_probe(maps, seed=4).r2
    assert transfer_probe(maps, seed=4).r2 != transfer_probe(maps, seed=5).r2
    dead = [np.concatenate([m, np.zeros((12, 12, 1))], axis=2) for m in maps]
    lost = [np.concatenate([m, np.full((12, 12, 1), np.nan)], axis=2) for m in maps]
    assert transfer_probe(dead).r2 == transfer_probe(lost).r2
    assert transfer_probe(lost).r2_per_channel[-1] == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize(
    ("maps", "n_held_out", "match"),
    [
        ([], None, "arrays of one shape, got none"),
        ([np.zeros((3, 3, 2)), np.zeros((3, 4, 2))], None, r"got \[\(3, 3, 2\), "),
        ([np.zeros((3, 3))] * 9, None, r"`maps` must be \(h, w, C\)"),
        ([np.zeros((3, 3, 2))] * 2, None, "at least 2 maps to fit .* got 2"),
        ([np.zeros((3, 3, 2))] * 9, 8, "got 9 with `n_held_out` = 8"),
        ([np.zeros((3, 3, 2))] * 9, 0, "1 to score, got 9 with `n_held_out` = 0"),
    ],
)
def test_transfer_probe_refuses(maps, n_held_out, match):
    with pytest.raises(SettingsError, match=match):
        transfer_probe(maps, n_held_out=n_held_out)
