"""Looks at features: one basis, pictures at pixels, clusters as scribbles."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from napari_alibi_seg._base import FeatureSettings, SettingsError, StoreError
from napari_alibi_seg._segmenter import Embedding, Segmenter
from napari_alibi_seg._workspace import Looks, _look_basis, _look_cells
from napari_alibi_seg.data import MemoryStore, TokenGrid


def embedded(tokens_rcf, patch=8, shape=None, leave_out=()):
    """Return an embedding whose tokens are those given, in tiles of 4 x 4."""
    shape = shape or tuple(patch * n for n in tokens_rcf.shape[:2])
    pixels = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    image = Segmenter(features=FeatureSettings()).embed(pixels).image
    grid = TokenGrid(shape, patch_px=patch, tile_px=4 * patch)
    store = MemoryStore(grid, tokens_rcf.shape[2])
    for tile in grid.tiles:
        if tile.index not in leave_out:
            store.write(tile, tokens_rcf[tile.keep.slices])
    return Embedding(image, store, False)


def quarters(n_rows=16, n_cols=20, noise=0.05, seed=0):
    """Return tokens of four groups, one in each quarter, and the group of each."""
    rng = np.random.default_rng(seed)
    group = np.zeros((n_rows, n_cols), int)
    group[n_rows // 2 :] += 2
    group[:, n_cols // 2 :] += 1
    kinds = np.random.default_rng(7).normal(size=(4, 5)) * [1, 1, 1, 1, 40]
    tokens = kinds[group]
    return tokens + noise * rng.normal(size=tokens.shape), group


@pytest.fixture
def looks():
    return Looks({"a": embedded(quarters()[0])})


def test_pictures_have_the_size_of_the_image(looks) -> None:
    rgb, grey = looks.picture("a"), looks.picture("a", 1)
    assert (rgb.values.shape, rgb.values.dtype, rgb.step) == (
        (128, 160, 3),
        np.uint8,
        1,
    )
    assert looks.n_components() == 5
    assert np.array_equal(grey.values, rgb.values[:, :, 1])
    # far from the edges of a quarter its colour is flat, and not that of another
    middles = rgb.values[[32, 32, 96, 96], [40, 120, 40, 120]].astype(int)
    apart = np.abs(middles[:, None] - middles).max(axis=2)
    assert apart[~np.eye(4, dtype=bool)].min() > 40
    assert rgb.values[20:40, 20:60].astype(int).std(axis=(0, 1)).max() < 12


def test_one_basis_means_the_same_colour_in_every_image() -> None:
    tokens, _ = quarters()
    one, other = embedded(tokens), embedded(tokens[:, :10])
    looks = Looks({"one": one, "other": other})
    shared = looks.picture("one").values[:, :70]
    assert np.array_equal(shared, looks.picture("other").values[:, :70])
    alone = Looks({"other": other}).picture("other").values[:, :70]
    assert not np.array_equal(shared, alone)
    here, there = looks.clusters("one", 4), looks.clusters("other", 4)
    assert np.array_equal(here.labels_yx[:, :80], there.labels_yx)
    # two of the four groups are on the first image only
    assert np.allclose(here.shares, 0.25, atol=0.01)
    assert np.sort(there.shares).tolist() == [0, 0, 0.5, 0.5]
    assert np.array_equal(here.colours, there.colours)


def test_clusters_are_the_groups(looks) -> None:
    _, group = quarters()
    found = looks.clusters("a", 4)
    pixels = np.kron(group, np.ones((8, 8), int))
    pairs = set(zip(pixels.ravel(), found.labels_yx.ravel().tolist(), strict=True))
    assert len(pairs) == 4
    assert found.colours.shape == (4, 3)
    assert found.labels_yx.dtype == np.uint8


def test_similarity_is_one_where_clicked_and_high_in_its_group(looks) -> None:
    likeness = looks.similarity("a", 4, 12)  # the middle of a token
    assert likeness.values[4, 12] == pytest.approx(1, abs=0.01)
    assert likeness.values.dtype == np.float32
    assert likeness.values[8:56, 8:72].min() > 0.9
    assert likeness.values[:, 96:].max() < 0.8


def test_standardise_changes_the_basis_but_reads_nothing_again(looks) -> None:
    before = looks.picture("a").values
    kept = looks._basis.cells.of("a").features
    looks.standardise = False
    assert looks.standardise is False
    assert looks._basis.cells.of("a").features is kept
    raw = looks.picture("a").values
    assert not np.array_equal(raw, before)
    looks.standardise = True
    assert np.array_equal(looks.picture("a").values, before)


def test_basis_is_measured_once_until_the_images_change(looks, monkeypatch) -> None:
    calls = []
    measure = _look_basis.feature_space
    monkeypatch.setattr(
        _look_basis,
        "feature_space",
        lambda *a, **k: calls.append(1) or measure(*a, **k),
    )
    same = dict(looks._basis.cells.embeddings)
    looks.picture("a"), looks.clusters("a", 3), looks.similarity("a", 1, 1)
    assert looks.set_embeddings(same) is False
    looks.picture("a")
    assert len(calls) == 1
    assert looks.set_embeddings({**same, "b": same["a"]}) is True
    assert looks.keys == ("a", "b")
    looks.picture("b")
    assert len(calls) == 2


def test_threads_get_what_one_gets(looks) -> None:
    expected = Looks(dict(looks._basis.cells.embeddings)).clusters("a", 3).labels_yx
    found = []
    jobs = [
        threading.Thread(target=lambda: found.append(looks.clusters("a", 3).labels_yx))
        for _ in range(6)
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(30)
    assert len(found) == 6
    assert all(np.array_equal(labels, expected) for labels in found)


def test_large_image_is_shown_in_steps(monkeypatch) -> None:
    monkeypatch.setattr(_look_cells, "_MAX_SIDE", 50)
    tokens, _ = quarters()
    whole = Looks({0: embedded(tokens, shape=(126, 157))})
    rgb, clusters = whole.picture(0), whole.clusters(0, 4)
    assert (rgb.step, rgb.offset, rgb.values.shape) == (4, 1.5, (32, 40, 3))
    assert clusters.labels_yx.shape == (32, 40)
    monkeypatch.setattr(_look_cells, "_MAX_SIDE", 2048)
    fine = Looks({0: embedded(tokens, shape=(126, 157))}).picture(0).values
    rows = np.minimum(np.arange(0, 126, 4) + 2, 125)
    cols = np.minimum(np.arange(0, 157, 4) + 2, 156)
    assert np.array_equal(rgb.values, fine[np.ix_(rows, cols)])


@pytest.mark.parametrize("n_rows", [16, 1], ids=["field", "strip"])
def test_huge_image_is_looked_at_through_some_of_its_tokens(
    monkeypatch, n_rows
) -> None:
    tokens = np.linspace(0, 1, 48)[None, :, None] * np.ones((n_rows, 1, 4))
    full = Looks({0: embedded(tokens)}).picture(0, 0).values
    monkeypatch.setattr(_look_cells, "_MAP_BYTES", tokens.size * 2 // 8)
    thin = Looks({0: embedded(tokens)})
    cells = thin._basis.cells.of(0)
    assert cells.every == 3
    assert cells.features.shape == (5 if n_rows == 16 else 1, 16, 4)
    # a slope between tokens is the same through every third of them, ends left out
    close = np.abs(thin.picture(0, 0).values.astype(int) - full)[:, 40:-40]
    assert close.max() <= 10
    y, x = cells.centres(np.array([0]), np.array([2]))
    assert (y[0], x[0]) == (12 if n_rows == 16 else 4, 8 * 7 + 4)


def test_many_cells_are_thinned_for_the_basis(monkeypatch) -> None:
    monkeypatch.setattr(_look_cells, "_BASIS_CELLS", 100)
    tokens, _ = quarters()
    looks = Looks({"a": embedded(tokens), "b": embedded(tokens)})
    assert [s.shape for s in looks._basis.cells.samples()] == [(6, 7, 5)] * 2


def test_old_images_leave_memory(monkeypatch) -> None:
    tokens, _ = quarters()
    monkeypatch.setattr(_look_cells, "_KEPT_BYTES", tokens.size * 2 * 2)
    monkeypatch.setattr(_look_basis, "_KEPT_SCORES", 3)
    looks = Looks({i: embedded(tokens) for i in range(4)})
    pictures = [looks.picture(i).values for i in (0, 1, 2, 3, 0)]
    assert len(looks._basis.cells._kept) == 2
    assert len(looks._basis._scores) == 3
    assert np.array_equal(pictures[0], pictures[-1])


def test_classical_features_stand_in_for_tokens() -> None:
    image = np.random.default_rng(0).integers(0, 30, (96, 128), dtype=np.uint8)
    image[:, 64:] += 180
    looks = Looks({0: Segmenter().embed(image)})
    steps = list(looks.iter_prepare(0))
    assert steps == [(1, 1)]
    assert list(looks.iter_prepare(0)) == []
    assert looks.picture(0).values.shape == (96, 128, 3)
    likeness = looks.similarity(0, 48, 10).values
    assert likeness[:, :40].mean() > likeness[:, 88:].mean() + 0.5


def test_preparing_goes_band_by_band_and_can_be_left(looks) -> None:
    steps = looks.iter_prepare("a")
    assert next(steps) == (4, 16)
    steps.close()
    assert list(looks.iter_prepare("a")) == [(4, 16), (8, 16), (12, 16), (16, 16)]


def test_cluster_becomes_scribbles_inside_it_and_all_over() -> None:
    tokens, group = quarters(40, 40)
    group[:, :20] = 0
    tokens[:, :20] = tokens[0, 0]
    looks = Looks({0: embedded(tokens)})
    clusters = looks.clusters(0, 3)
    left = int(clusters.labels_yx[160, 80])
    rows, cols = looks.cluster_as_scribbles(0, 3, left, n_pixels=500)
    assert 400 <= len(rows) <= 500
    flat = rows * 320 + cols
    assert np.all(np.diff(flat) > 0)
    # not at its border, which is column 160
    assert cols.max() < 160 - 8
    spread = np.histogram2d(rows, cols, bins=(4, 2), range=((0, 320), (0, 160)))[0]
    assert spread.min() >= 25
    again = Looks({0: embedded(tokens)}).cluster_as_scribbles(0, 3, left, n_pixels=500)
    assert np.array_equal(again[0], rows)
    assert np.array_equal(again[1], cols)


@pytest.mark.parametrize("n_pixels", [1, 4, 24, 25, 60])
def test_no_more_scribbles_than_asked(looks, n_pixels) -> None:
    rows, _ = looks.cluster_as_scribbles("a", 4, 1, n_pixels=n_pixels)
    assert 0 < len(rows) <= n_pixels


def test_thin_cluster_is_painted_in_its_middle() -> None:
    tokens = np.zeros((16, 20, 5))
    tokens[:, 7] = 1
    looks = Looks({0: embedded(tokens)})
    thin = int(looks.clusters(0, 2).labels_yx[60, 60])
    _, cols = looks.cluster_as_scribbles(0, 2, thin)
    assert (cols.min(), cols.max()) == (58, 62)


def test_taken_pixels_are_left_alone(looks) -> None:
    cluster = int(looks.clusters("a", 4).labels_yx[20, 20])
    taken = np.zeros((128, 160), np.uint8)
    taken[:, :30] = 3
    _, cols = looks.cluster_as_scribbles("a", 4, cluster, taken=taken)
    assert 30 <= cols.min() <= cols.max() < 80
    taken[:] = 1
    with pytest.raises(SettingsError, match="has no free pixel on this image"):
        looks.cluster_as_scribbles("a", 4, cluster, taken=taken)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda looks: looks.picture("b"), r"one of the images \['a'\], got 'b'"),
        (lambda looks: looks.picture("a", 5), "must be 0 to 4"),
        (lambda looks: looks.clusters("a", 21), "whole number of 2 to 20, got 21"),
        (lambda looks: looks.similarity("a", 128, 0), "Click inside the image"),
        (lambda looks: looks.cluster_as_scribbles("a", 4, 4), "0 to 3, got 4"),
        (lambda looks: looks.cluster_as_scribbles("a", 4, 0, n_pixels=0), "1 or more"),
        (
            lambda looks: looks.cluster_as_scribbles("a", 4, 0, taken=np.zeros((2, 2))),
            "shape of the image",
        ),
        (lambda _: Looks({}).n_components(), "got none"),
    ],
    ids=["key", "component", "k", "pixel", "cluster", "n", "taken", "empty"],
)
def test_wrong_questions_are_explained(looks, ask, words) -> None:
    with pytest.raises(SettingsError, match=words):
        ask(looks)


def test_features_that_are_missing_or_of_another_kind() -> None:
    tokens, _ = quarters()
    partly = Looks({0: embedded(tokens, leave_out=(3, 5))})
    with pytest.raises(StoreError, match="2 of 20 tiles missing"):
        partly.picture(0)
    mixed = Looks({0: embedded(tokens), 1: embedded(tokens[:, :, :4])})
    with pytest.raises(SettingsError, match="same channels"):
        mixed.picture(0)
