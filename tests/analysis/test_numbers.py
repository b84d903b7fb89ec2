"""Numbers beside the probes: artefacts, fingerprint, homogeneity, lengths, sides."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from sklearn.linear_model import Ridge
from sklearn.metrics import mutual_info_score, r2_score
from sklearn.preprocessing import StandardScaler

from napari_alibi_seg._base import AnnotationError, SettingsError
from napari_alibi_seg.analysis import (
    artefact_score,
    cluster_position_information,
    cosine_by_distance,
    cosine_map,
    fingerprint,
    length_generalisation,
    ramp,
    segmentation_damage,
)

# ----------------------------------------------------------------------- artefact score


def _noise(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize(
    "curve",
    [
        lambda v: v,
        lambda v: np.exp(-9 * v),
        lambda v: (v - 0.5) ** 2,
        lambda v: np.sin(4 * np.pi * v),
    ],
    ids=["line", "exp", "parabola", "wave"],
)
@pytest.mark.parametrize("shape", [(32, 32), (37, 37), (20, 33)])
def test_any_noiseless_function_of_place_scores_1(curve, shape):
    x = _noise((*shape, 3))
    # half a step aside: a curve must not be equal left and right by rounding
    x[..., 1] = curve(ramp("lr", shape)[..., 0] + 0.003)
    found = artefact_score(x)
    assert found.of_column[1] > 0.85
    assert found.of_row.max() < 0.15
    assert np.delete(found.of_column, 1).max() < 0.15
    assert found.score == pytest.approx((found.of_column[1] + found.of_row.max()) / 2)


def test_artefact_score_falls_with_noise_and_knows_its_floor():
    shape, scores = (32, 32), []
    for amount in (0, 0.3, 1, 30):
        x = np.random.default_rng(1).normal(size=(*shape, 8)) * amount
        scores.append(artefact_score(x + ramp("lr", shape)).of_column.max())
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0.98
    assert scores[-1] < 0.1
    smooth = gaussian_filter(_noise((*shape, 8)), (3, 3, 0))
    assert artefact_score(smooth).score > artefact_score(_noise((*shape, 8))).score


def test_artefact_score_equals_a_direct_count_on_one_grid():
    """16 tokens allow grids of 2 x 2 only: 16 ** 0.6 = 5.3."""
    x = np.random.default_rng(3).permutation(16).reshape(4, 4, 1).astype(float)
    high = x[..., 0].reshape(-1) >= 8
    right = np.tile([0, 0, 1, 1], 4)
    bits = mutual_info_score(high, right) / np.log(2)
    assert artefact_score(x).of_column[0] == pytest.approx(bits, abs=1e-9)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.floats(0.1, 9), st.floats(-5, 5))
def test_artefact_score_sees_ranks_only(seed, gain, offset):
    x = _noise((9, 8, 2), seed)
    a, b = artefact_score(x), artefact_score(np.exp(x * gain / 9) * gain + offset)
    np.testing.assert_allclose(a.of_column, b.of_column, atol=1e-9)
    assert 0 <= a.score <= 1


def test_constant_channels_tell_nothing():
    assert artefact_score(np.ones((6, 6, 2))).score == 0


# -------------------------------------------------------------------------- fingerprint


def test_fingerprint_equals_scikit_learn():
    rng = np.random.default_rng(0)
    layers = [[rng.normal(size=(10, 12, 5)) for _ in range(2)] for _ in range(3)]
    for image in layers[2]:
        image[..., 4] += 3 * ramp("lr", (10, 12))[..., 0]
    found = fingerprint(layers, n_tokens=30, seed=7)
    assert found.r2.shape == (3, 5)
    assert found.transfer_r2 is None
    y = ramp("lr", (10, 12)).reshape(-1)
    for layer, maps in enumerate(layers):
        again = np.random.default_rng(7)  # every layer sees the same tokens
        total = np.zeros(5)
        for tokens in maps:
            x = tokens.reshape(-1, 5)
            chosen = again.choice(120, 30, replace=False)
            for i in range(5):
                scaler = StandardScaler().fit(x[chosen, i : i + 1])
                own = scaler.transform(x[:, i : i + 1])
                model = Ridge().fit(own[chosen], y[chosen])
                total[i] += r2_score(y, model.predict(own)) / 2
        np.testing.assert_allclose(found.r2[layer], total, atol=1e-9)
    assert found.picture()[2].argmax() == 4
    assert found.picture(is_sorted=True)[2].argmax() == 0


def test_fingerprint_takes_a_generator_and_transfers():
    rng = np.random.default_rng(0)
    smooth = [gaussian_filter(rng.normal(size=(20, 20, 6)), (4, 4, 0)) for _ in "12345"]
    for x in smooth:
        x[..., 1] = 0.05 * _noise((20, 20)) + ramp("lr", (20, 20))[..., 0]
    found = fingerprint(layer for layer in [smooth, smooth])
    assert found.transfer_r2[0, 1] > 0.9
    assert np.delete(found.transfer_r2[0], 1).max() < 0.3
    np.testing.assert_array_equal(found.r2[0], found.r2[1])


@pytest.mark.parametrize(
    ("layers", "match"),
    [
        ([], "at least one layer, got none"),
        ([[_noise((4, 4, 2))], []], "got 0 images"),
        ([[_noise((4, 4, 2))], [_noise((4, 4, 3))]], "2 channels, as the first"),
    ],
)
def test_fingerprint_refuses(layers, match):
    with pytest.raises(SettingsError, match=match):
        fingerprint(layers)


# -------------------------------------------------------------------------- homogeneity


def test_cosine_map_of_a_token_and_of_the_mean():
    x = _noise((5, 6, 7))
    found = cosine_map(x, (2, 3))
    assert found[2, 3] == pytest.approx(1)
    expected = x[0, 0] @ x[2, 3] / np.linalg.norm(x[0, 0]) / np.linalg.norm(x[2, 3])
    assert found[0, 0] == pytest.approx(expected, abs=1e-6)
    np.testing.assert_allclose(cosine_map(x + 1e6), 1, atol=1e-6)
    with pytest.raises(SettingsError, match="`row` must be"):
        cosine_map(x, (5, 0))


def _content(sigma, n, seed=0):
    rng = np.random.default_rng(seed)
    maps = [
        gaussian_filter(rng.normal(size=(32, 32, 48)), (sigma, sigma, 0))
        for _ in range(n)
    ]
    return [x / x.std() for x in maps]


@pytest.mark.parametrize("pairs", ["within", "between"])
@pytest.mark.parametrize("sigma", [0, 2])
def test_drop_is_0_without_position_and_high_with_it(pairs, sigma):
    maps = _content(sigma, 4)
    where = 2 * (ramp("lr+ud", (32, 32)) - 0.5)
    placed = [x.copy() for x in maps]
    for x in placed:
        x[..., :24] += 2 * where[..., :1]
        x[..., 24:] += 2 * where[..., 1:]
    plain, biased = (cosine_by_distance(m, pairs=pairs) for m in (maps, placed))
    assert abs(plain.drop) < 0.03
    assert biased.drop > 0.4
    assert biased.cosine[2] > biased.cosine[5] > biased.cosine[9]
    assert np.nanmax(np.abs(plain.cosine[2:11])) < 0.1


def test_centring_shows_what_a_shared_token_hides():
    maps = [x + 10 for x in _content(0, 2)]
    for x in maps:
        x += 2 * (ramp("lr", (32, 32)) - 0.5)
    assert cosine_by_distance(maps).drop < 0.03
    assert cosine_by_distance(maps, centre=True).drop > 0.2


def test_neighbours_are_alike_within_an_image_only():
    within, between = (
        cosine_by_distance(_content(2, 3), pairs=p, n_bins=32)
        for p in ("within", "between")
    )
    assert within.cosine[0] > 0.6
    assert abs(between.cosine[0]) < 0.1


@pytest.mark.parametrize(
    ("arguments", "match"),
    [({"pairs": "between"}, "at least 2 maps"), ({"pairs": "all"}, "`pairs` must be")],
)
def test_cosine_by_distance_refuses(arguments, match):
    with pytest.raises(SettingsError, match=match):
        cosine_by_distance([_noise((4, 4, 2))], **arguments)


@pytest.mark.parametrize("k", [2, 3, 5])
def test_clusters_without_place_tell_nothing(k):
    found = []
    for seed in range(8):
        field = gaussian_filter(_noise((37, 41), seed), 2)
        labels = np.digitize(field, np.quantile(field, np.arange(1, k) / k))
        found.append(cluster_position_information(labels))
    for side in ("rows", "cols"):
        values = [getattr(f, side) for f in found]
        assert abs(np.mean(values)) < 0.04
        assert max(values) < 0.15


def test_clusters_of_bands_tell_all_and_shares_lie_between():
    bands = np.arange(36)[:, None] // 12 * np.ones((1, 36), int)
    found = cluster_position_information(bands)
    assert found.rows == pytest.approx(1)
    assert found.cols < 0
    assert found.score == found.rows
    turned = cluster_position_information(bands.T)
    assert turned.cols == pytest.approx(1)
    rng = np.random.default_rng(0)
    shares = []
    for share in (0.1, 0.4, 0.8):
        mixed = np.where(
            rng.random((36, 36)) < share, rng.integers(3, size=(36, 36)), bands
        )
        shares.append(cluster_position_information(mixed).rows)
    assert 1 > shares[0] > shares[1] > shares[2] > 0


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(4)), st.integers(0, 50))
def test_names_of_clusters_do_not_matter(names, seed):
    labels = np.random.default_rng(seed).integers(4, size=(12, 18))
    one = cluster_position_information(labels, n_bands=3, n_draws=5)
    other = cluster_position_information(np.array(names)[labels], n_bands=3, n_draws=5)
    assert one.rows == pytest.approx(other.rows)
    assert one.cols == pytest.approx(other.cols)


def test_one_cluster_tells_nothing():
    found = cluster_position_information(np.zeros((12, 12), int))
    assert (found.rows, found.cols) == (0, 0)


@pytest.mark.parametrize("labels", [np.zeros((5, 12), int), np.zeros((12, 12))])
def test_cluster_information_refuses(labels):
    with pytest.raises(SettingsError, match="a map of integers of at least 6 x 6"):
        cluster_position_information(labels)


# ------------------------------------------------------------------------------ lengths


def test_lengths_of_the_same_field_agree_and_of_others_do_not():
    rng = np.random.default_rng(0)
    small = [
        gaussian_filter(rng.normal(size=(12, 12, 16)), (1, 1, 0)) for _ in range(8)
    ]
    same = [x.repeat(2, axis=0).repeat(2, axis=1) for x in small]
    other = [rng.normal(size=(18, 18, 16)) for _ in range(8)]
    rows = length_generalisation({518: small, 1036: same, 784: other})
    assert [(r.side, r.grid) for r in rows] == [
        (518, (12, 12)),
        (784, (18, 18)),
        (1036, (24, 24)),
    ]
    assert [r.cosine for r in rows] == pytest.approx([1, 0, 1], abs=0.05)
    assert rows[2].centred_cosine == pytest.approx(1)
    assert all(r.transfer_r2 < 0.1 for r in rows)


def test_a_shared_token_does_not_hide_a_change():
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(12, 12, 16)) + 20 for _ in range(2))
    row = length_generalisation({1: [a], 2: [b]})[1]
    assert row.cosine > 0.99
    assert abs(row.centred_cosine) < 0.1
    assert row.transfer_r2 is None


def test_position_that_stretches_with_the_frame_transfers():
    rng = np.random.default_rng(0)

    def maps(n, reach):
        place = reach * ramp("lr+ud", (n, n))
        return [
            np.concatenate([rng.normal(size=(n, n, 6)), place], axis=2)
            for _ in range(8)
        ]

    rows = length_generalisation({1: maps(12, 1), 2: maps(20, 1), 3: maps(24, 2)})
    assert rows[0].transfer_r2 > 0.9
    assert rows[1].transfer_r2 > 0.9
    assert rows[2].transfer_r2 < 0.5  # twice as far: another place


@pytest.mark.parametrize(
    ("maps", "match"),
    [
        ({}, "at least one size, got none"),
        ({1: [_noise((3, 3, 2))], 2: [_noise((3, 3, 2))] * 2}, "got 2 with 2 at 2"),
        ({1: [_noise((3, 3, 2))], 2: [_noise((3, 3, 4))]}, "got 1 with 4 at 2"),
    ],
)
def test_lengths_refuse(maps, match):
    with pytest.raises(SettingsError, match=match):
        length_generalisation(maps)


# -------------------------------------------------------------------------------- sides


def test_damage_on_the_other_side():
    truth = np.tile([[1, 2]], (6, 8))
    truth[0] = 255
    assert segmentation_damage(truth, truth).gap == 0
    got = truth.copy()
    got[:, 8:] = 1  # the right half became one class
    found = segmentation_damage(got, truth)
    assert (found.left, found.right, found.classes) == (1, 0.25, (1, 2))
    assert found.gap == 0.75
    assert segmentation_damage(got, truth, split=0.75).left < 1


def test_classes_of_one_side_do_not_count():
    truth = np.array([[1, 2, 1, 3]])
    found = segmentation_damage([[1, 1, 1, 1]], truth)
    assert found.classes == (1,)
    assert (found.left, found.right) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        (([[1, 2]], [[1, 2, 3]]), AnnotationError, "arrays of one shape"),
        (([[1, 2]], [[1, 2]]), AnnotationError, "No class lies on both sides"),
        (([[1, 2]], [[1, 2]], 0.0), SettingsError, "`split` must leave pixels"),
    ],
)
def test_damage_refuses(arguments, error, match):
    prediction, truth, *split = arguments
    with pytest.raises(error, match=match):
        segmentation_damage(prediction, truth, **({"split": split[0]} if split else {}))
