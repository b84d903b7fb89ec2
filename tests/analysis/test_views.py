"""Feature spaces, clusters and similarity: against scikit-learn and planted regions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.preprocessing import StandardScaler

from napari_alibi_seg._base import SettingsError
from napari_alibi_seg.analysis import (
    cluster_map,
    cluster_maps,
    feature_space,
    nearest_clusters,
    similarity_map,
)


def regions(n_rows=24, n_cols=30, n_features=12, *, seed=0, n=3, noise=0.3):
    """Upright stripes of alike tokens, (R, C, F), and which stripe each is, (R, C)."""
    centres = np.random.default_rng(99).normal(0, 3, (n, n_features))
    rng = np.random.default_rng(seed)
    which = np.repeat([np.arange(n_cols) * n // n_cols], n_rows, axis=0)
    tokens = centres[which] + noise * rng.normal(size=(n_rows, n_cols, n_features))
    # units that differ by orders of magnitude, and one channel that says nothing
    tokens = tokens * np.geomspace(0.01, 100, n_features) + 7
    tokens[..., 4] = 0.1
    return tokens.astype(np.float32), which


def same_groups(a, b):
    return len(np.unique(np.stack([a.ravel(), b.ravel()]), axis=1).T) == len(
        np.unique(a)
    )


# ------------------------------------------------------------------------------ space


@pytest.mark.parametrize("standardise", [True, False])
def test_axes_are_those_of_scikit_learn(standardise):
    tokens, _ = regions()
    flat = tokens.reshape(-1, 12).astype(np.float64)
    flat = StandardScaler(with_std=standardise).fit_transform(flat)
    space = feature_space(tokens, standardise=standardise)
    pca = PCA(3, svd_solver="full").fit(flat)
    np.testing.assert_allclose(np.abs(space.axes.T), np.abs(pca.components_), atol=2e-4)
    # every channel counts: a share of all variance, not of that kept
    np.testing.assert_allclose(
        space.explained, pca.explained_variance_ratio_, atol=1e-4
    )
    signs = np.sign((space.axes.T * pca.components_).sum(axis=1))
    scores = space.components(tokens).reshape(-1, 3)
    atol = 1e-3 * np.abs(scores).max()
    np.testing.assert_allclose(scores, pca.transform(flat) * signs, atol=atol)


def test_channels_are_normalised_and_constant_ones_are_0():
    tokens, _ = regions()
    values = feature_space(tokens).normalised(tokens).reshape(-1, 12)
    assert values.dtype == np.float32
    varying = np.arange(12) != 4
    np.testing.assert_allclose(values.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(values[:, varying].std(axis=0), 1, atol=1e-4)
    assert (values[:, 4] == 0).all()
    centred = feature_space(tokens, standardise=False).normalised(tokens)
    np.testing.assert_allclose(
        centred.reshape(-1, 12).std(axis=0)[varying],
        tokens.reshape(-1, 12).std(axis=0)[varying],
        rtol=1e-3,
    )
    assert (centred[..., 4] == 0).all()


def test_statistics_come_from_every_token():
    tokens = np.zeros((100, 100, 2), np.float32)
    tokens[..., 0] = np.random.default_rng(0).normal(size=(100, 100))
    tokens[13, 57, 1] = 1  # hardly ever among 50 samples
    space = feature_space(tokens, n_components=1, max_samples=50)
    assert space.mean[1] == pytest.approx(1e-4)
    assert space.gain[1] == pytest.approx(1 / np.sqrt(1e-4 * (1 - 1e-4)), rel=1e-3)


def test_largest_number_of_each_axis_is_positive():
    tokens, _ = regions()
    for flipped in (tokens, -tokens):
        axes = feature_space(flipped).axes
        assert (axes[np.abs(axes).argmax(axis=0), range(3)] > 0).all()


def test_equal_arguments_give_equal_spaces_and_seeds_matter():
    tokens, _ = regions(60, 60)
    spaces = [feature_space(tokens, max_samples=300, seed=s) for s in (0, 0, 1)]
    assert (spaces[0].axes == spaces[1].axes).all()
    assert (spaces[0].low == spaces[1].low).all()
    assert not (spaces[0].low == spaces[2].low).all()
    # what is seen hardly depends on the sample
    assert spaces[0].axes[:, 0] @ spaces[2].axes[:, 0] > 0.98


def test_picture_is_limited_by_most_tokens_not_by_outliers():
    tokens, _ = regions(40, 50)
    tokens[3, 3] = 1e4
    picture = feature_space(tokens).picture(tokens)
    assert picture.shape == (40, 50, 3)
    assert picture.dtype == np.float32
    assert picture.min() == 0
    assert picture.max() == 1
    assert picture.reshape(-1, 3).std(axis=0)[0] > 0.2
    assert np.percentile(picture[..., 0], 5) < 0.1


def test_half_precision_gives_the_same_picture():
    tokens, _ = regions()
    space = feature_space(tokens)
    half = space.picture(tokens.astype(np.float16))
    np.testing.assert_allclose(half, space.picture(tokens), atol=0.02)


def test_one_space_serves_images_of_different_sizes():
    (one, of_one), (other, of_other) = regions(20, 30), regions(33, 12, seed=5)
    space = feature_space([one, other])
    both = np.concatenate([one.reshape(-1, 12), other.reshape(-1, 12)])
    np.testing.assert_allclose(space.mean, both.mean(axis=0), rtol=1e-4)
    pictures = space.picture(one), space.picture(other)
    # the same content has the same colour in both; three regions span two components
    for k in range(3):
        np.testing.assert_allclose(
            pictures[0][of_one == k].mean(axis=0)[:2],
            pictures[1][of_other == k].mean(axis=0)[:2],
            atol=0.05,
        )


def test_directions_without_structure_stay_dark():
    line = np.linspace(-1, 1, 300).reshape(15, 20, 1)
    tokens = (line * [1.0, -2.0, 3.0, 0.5]).astype(np.float32)
    picture = feature_space(tokens).picture(tokens)
    assert picture[..., 0].std() > 0.2
    assert (picture[..., 1:] == 0).all()


def test_maps_without_any_structure_are_pictures_too():
    tokens = np.full((5, 6, 4), 0.1, np.float32)
    space = feature_space(tokens)
    assert (space.picture(tokens) == 0).all()
    assert (space.explained == 0).all()
    clusters = cluster_map(space, tokens, 5)
    assert (clusters.labels == 0).all()
    assert clusters.centres.shape == (1, 4)
    assert (similarity_map(space, tokens, 2, 2) == 0).all()


def test_values_that_are_no_numbers_count_as_the_mean():
    tokens, _ = regions()
    broken = tokens.copy()
    broken[2, 3] = np.nan
    broken[5, 1, 0], broken[6, 1, 0] = np.inf, -np.inf
    space, clean = feature_space(broken), feature_space(tokens)
    np.testing.assert_allclose(space.mean, clean.mean, rtol=0.02)
    values = space.normalised(broken)
    assert np.isfinite(values).all()
    assert (values[2, 3] == 0).all()
    assert np.isfinite(similarity_map(space, broken, 0, 0)).all()


# --------------------------------------------------------------------------- clusters


def test_clusters_are_the_planted_regions():
    tokens, which = regions()
    space = feature_space(tokens)
    found = cluster_map(space, tokens, 3)
    assert found.labels.shape == which.shape
    assert same_groups(found.labels, which)
    np.testing.assert_allclose(
        found.centres[found.labels[0, 0]],
        space.normalised(tokens)[which == 0].mean(axis=0),
        atol=1e-4,
    )
    # colours are those of the picture
    np.testing.assert_allclose(
        found.colours[found.labels[0, 0]],
        space.picture(tokens)[which == 0].mean(axis=0),
        atol=0.05,
    )


@pytest.mark.parametrize("k", [2, 5, 20])
def test_clusters_are_numbered_along_the_first_component(k):
    tokens, _ = regions(40, 40, noise=2)
    space = feature_space(tokens)
    found = cluster_map(space, tokens, k)
    assert sorted(np.unique(found.labels)) == list(range(k))
    first = (found.centres @ space.axes)[:, 0]
    assert (np.diff(first) >= 0).all()
    assert found.colours.shape == (k, 3)
    again = cluster_map(space, tokens, k)
    assert (again.labels == found.labels).all()


def test_every_token_has_its_nearest_centre():
    tokens, _ = regions(100, 90, noise=2)  # more tokens than are fitted on
    space = feature_space(tokens)
    found = cluster_map(space, tokens, 6)
    values = space.normalised(tokens).reshape(-1, 12)
    distance = np.linalg.norm(values[:, None] - found.centres, axis=2)
    own = distance[np.arange(len(values)), found.labels.ravel()]
    np.testing.assert_allclose(own, distance.min(axis=1), rtol=1e-5)


def test_several_maps_share_their_clusters():
    (one, of_one), (other, of_other) = regions(20, 30), regions(33, 12, seed=5)
    space = feature_space([one, other])
    found = cluster_maps(space, [one, other], 3)
    assert [f.labels.shape for f in found] == [(20, 30), (33, 12)]
    assert found[0].centres is found[1].centres
    joined = np.concatenate([f.labels.ravel() for f in found])
    assert same_groups(joined, np.concatenate([of_one.ravel(), of_other.ravel()]))


def test_fewer_different_tokens_give_fewer_clusters():
    tokens, which = regions(noise=0)
    found = cluster_map(feature_space(tokens), tokens, 7)
    assert len(found.centres) == 3
    assert same_groups(found.labels, which)


@pytest.mark.parametrize(
    "k",
    [
        pytest.param(1, id="one"),
        pytest.param(21, id="too many"),
        pytest.param(2.5, id="not whole"),
        pytest.param("3", id="text"),
    ],
)
def test_number_of_clusters_is_checked(k):
    tokens, _ = regions()
    with pytest.raises(SettingsError, match=r"`n_clusters` must be a whole .* 2 to 20"):
        cluster_map(feature_space(tokens), tokens, k)


# ------------------------------------------------------------------------- similarity


def test_similarity_is_the_cosine_of_normalised_features():
    tokens, which = regions(31, 29)
    space = feature_space(tokens)
    found = similarity_map(space, tokens, 3, 7)
    flat = space.normalised(tokens).reshape(-1, 12)
    expected = cosine_similarity(flat, flat[[3 * 29 + 7]]).reshape(31, 29)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found[3, 7] == pytest.approx(1)
    assert found[which == which[3, 7]].min() > found[which != which[3, 7]].max()


@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=25, deadline=None)
def test_similarity_is_symmetric_and_bounded(seed, n_rows, n_cols):
    rng = np.random.default_rng(seed)
    tokens = rng.normal(0, 10.0 ** rng.integers(-3, 4), (n_rows, n_cols, 3))
    space = feature_space(tokens)
    a = rng.integers(n_rows), rng.integers(n_cols)
    b = rng.integers(n_rows), rng.integers(n_cols)
    to_a, to_b = (similarity_map(space, tokens, *at) for at in (a, b))
    assert to_a[b] == pytest.approx(to_b[a], abs=1e-5)
    assert np.abs(to_a).max() <= 1


@pytest.mark.parametrize(
    ("row", "col", "name"), [(-1, 0, "row"), (24, 0, "row"), (0, 30, "col")]
)
def test_a_token_beside_the_map_is_refused(row, col, name):
    tokens, _ = regions()
    with pytest.raises(SettingsError, match=f"`{name}` must be a whole number of 0 to"):
        similarity_map(feature_space(tokens), tokens, row, col)


# ------------------------------------------------------------------------------ input


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        pytest.param([], "at least one", id="none"),
        pytest.param(np.zeros((4, 5)), "shape \\(4, 5\\)", id="two axes"),
        pytest.param(np.zeros((4, 5, 3), int), "float array", id="whole numbers"),
        pytest.param(np.zeros((0, 5, 3)), "shape \\(0, 5, 3\\)", id="empty"),
        pytest.param(
            [np.zeros((4, 5, 3)), np.zeros((4, 5, 4))], "\\[3, 4\\]", id="channels"
        ),
    ],
)
def test_maps_are_checked(maps, message):
    with pytest.raises(SettingsError, match=message):
        feature_space(maps)


@pytest.mark.parametrize(
    "options",
    [{"n_components": 0}, {"n_components": 13}, {"max_samples": 1}],
    ids=["no component", "too many components", "one sample"],
)
def test_numbers_are_checked(options):
    with pytest.raises(SettingsError, match=f"`{next(iter(options))}` must be"):
        feature_space(regions()[0], **options)


def test_a_map_of_another_backbone_is_refused():
    space = feature_space(regions()[0])
    other = np.zeros((4, 5, 3), np.float32)
    with pytest.raises(SettingsError, match="12 channels of the feature space"):
        space.picture(other)
    with pytest.raises(SettingsError, match="12 channels of the feature space"):
        similarity_map(space, other, 0, 0)
    with pytest.raises(SettingsError, match="12 channels of the feature space"):
        cluster_map(space, other, 2)


def test_nearest_clusters_are_those_of_the_map_they_come_from():
    tokens = regions()[0]
    space = feature_space(tokens)
    found = cluster_map(space, tokens, 4)
    again = nearest_clusters(space, tokens[::-1], found.centres)
    assert again.dtype == np.int32
    assert np.array_equal(again, found.labels[::-1])
    distances = [
        ((space.normalised(tokens) - centre) ** 2).sum(axis=2)
        for centre in found.centres
    ]
    assert np.array_equal(found.labels, np.argmin(distances, axis=0))


@pytest.mark.parametrize("shape", [(3,), (2, 3), (1, 2, 12)])
def test_centres_must_fit_the_space(shape):
    tokens = regions()[0]
    with pytest.raises(SettingsError, match=r"Expected centres with the \d+ channels"):
        nearest_clusters(feature_space(tokens), tokens, np.zeros(shape, np.float32))
