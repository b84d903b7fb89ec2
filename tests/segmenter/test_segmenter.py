"""The facade: what it promises of labels, tiles, stores and files."""

from __future__ import annotations

import hashlib
import logging

import numpy as np
import pytest
from segmenter.samples import IDS, CountingBackbone, sample, write_tiny_vit

from napari_alibi_seg._base import (
    Alibi,
    AlibiSegWarning,
    ClassifierSettings,
    DeviceMemoryError,
    FeatureSettings,
    PixelSize,
    SettingsError,
    StoreError,
    WeightsError,
    Window,
)
from napari_alibi_seg._segmenter import PixelFeatures, Segmenter
from napari_alibi_seg.data import (
    Annotations,
    MemoryStore,
    confusion,
    draw_scribbles,
    open_image,
    pixel_tiles,
    read_annotations,
    synthesize,
    write_image,
)
from napari_alibi_seg.features import iter_extract, load_backbone

FEW = {"n_trees": 15}
SMALL_TILES = {"tile_px": 56, "scale": 1.0, "components": 3}


def classical(**settings):
    return Segmenter(classifier=ClassifierSettings(**FEW, **settings))


def counting(backbone=None, *, kind="both", classifier=None, store=None, **features):
    return Segmenter(
        backbone or CountingBackbone(),
        features=FeatureSettings(kind=kind, **{**SMALL_TILES, **features}),
        classifier=ClassifierSettings(**FEW, **(classifier or {})),
        store=store,
    )


def same(one, other):
    np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_array_equal(one.probabilities, other.probabilities)
    np.testing.assert_array_equal(one.uncertainty, other.uncertainty)
    return True


@pytest.fixture(scope="module")
def wide():
    """An image of several output tiles, which is cheap to classify by patches."""
    return sample((560, 1100), 2)


@pytest.fixture(scope="module")
def tiny_vit(tmp_path_factory):
    path = write_tiny_vit(tmp_path_factory.mktemp("vit") / "tiny.safetensors")
    return load_backbone(path, alibi=Alibi(), device="cpu")


# ------------------------------------------------------------------ what comes out


@pytest.mark.parametrize("resolution", ["patch", "pixel"])
@pytest.mark.parametrize("kind", ["rf", "logistic"])
def test_painted_ids_come_back_where_they_belong(kind, resolution):
    image, mask, scribbles = sample()
    segmenter = classical(kind=kind, resolution=resolution).fit(image, scribbles)
    result = segmenter.predict(image)
    assert result.class_ids == IDS
    assert set(np.unique(result.labels)) == set(IDS)
    assert result.labels.dtype == np.uint8
    assert result.labels.shape == image.shape
    assert result.probabilities.shape == (2, *image.shape)
    np.testing.assert_allclose(result.probabilities.sum(axis=0), 1, atol=1e-5)
    expected = np.array(IDS)[result.probabilities.argmax(axis=0)]
    np.testing.assert_array_equal(result.labels, expected)
    assert 0 <= result.uncertainty.min() <= result.uncertainty.max() <= 1
    bound = {"patch": 0.5, "pixel": 0.8}[resolution]
    assert confusion(result.labels, mask).miou > bound
    assert result.fractions()[3] == np.mean(result.labels == 3)


def test_large_ids_take_a_wider_type():
    image, _, scribbles = sample()
    wide_ids = scribbles.astype(np.uint16)
    wide_ids[scribbles == 3] = 300
    result = classical().fit(image, wide_ids).predict(image)
    assert (result.labels.dtype, result.class_ids) == (np.uint16, (1, 300))


def test_the_seed_decides_everything():
    image, _, scribbles = sample()
    first, again = (
        classical(seed=5).fit(image, scribbles).predict(image) for _ in range(2)
    )
    other = classical(seed=6).fit(image, scribbles).predict(image)
    assert same(first, again)
    assert not np.array_equal(first.probabilities, other.probabilities)


def test_not_sure_gets_its_own_id():
    image, _, scribbles = sample()
    segmenter = classical(unsure_below=0.8, unsure_id=7).fit(image, scribbles)
    result = segmenter.predict(image)
    unsure = result.probabilities.max(axis=0) < np.float32(0.8)
    assert 0 < unsure.mean() < 0.9
    np.testing.assert_array_equal(result.labels == 7, unsure)
    assert result.fractions()[7] == unsure.mean()


def test_class_names_are_kept_and_strangers_refused():
    image, _, scribbles = sample()
    segmenter = classical().fit(image, scribbles, class_names={3: "bright"})
    assert segmenter.classes[3].name == "bright"
    with pytest.raises(SettingsError, match=r"names the ids \[2\].*painted are \[1, 3"):
        segmenter.fit(image, scribbles, class_names={2: "x"})


def test_several_images_train_one_classifier():
    image, mask, scribbles = sample()
    other, other_mask, other_scribbles = sample((80, 96), 4)
    only_1 = np.where(scribbles == 1, scribbles, 0)
    only_3 = np.where(other_scribbles == 3, other_scribbles, 0)
    segmenter = classical().fit([image, other], [only_1, only_3])
    n = {"1": int((only_1 > 0).sum()), "3": int((only_3 > 0).sum())}
    assert segmenter.classifier.summary["samples"] == n
    both = classical().fit([image, other], [scribbles, other_scribbles])
    for x, truth in ((image, mask), (other, other_mask)):
        assert confusion(both.predict(x).labels, truth).miou > 0.8


def test_saved_and_loaded_predicts_the_same(tmp_path):
    image, _, scribbles = sample()
    backbone = CountingBackbone()
    for k, segmenter in enumerate([classical(seed=2), counting(backbone)]):
        path = tmp_path / f"{k}.alibiseg"
        segmenter.fit(image, scribbles, class_names={1: "γ matrix"}).save(path)
        before = segmenter.predict(image)
        given = backbone if k else None
        loaded = Segmenter.load(path, backbone=given)
        assert same(before, loaded.predict(image))
        assert loaded.classes == segmenter.classes
        assert loaded.content_hash == segmenter.content_hash
        again = tmp_path / "again.alibiseg"
        loaded.save(again)
        assert again.read_bytes() == path.read_bytes()


def test_another_backbone_than_in_training_is_refused(tmp_path):
    image, _, scribbles = sample()
    counting().fit(image, scribbles).save(tmp_path / "a.alibiseg")
    with pytest.raises(WeightsError, match=r"was trained on 'counting'.*got 'counting"):
        Segmenter.load(tmp_path / "a.alibiseg", backbone=CountingBackbone(alibi=False))


# --------------------------------------------------------------- tiles and workers


def test_order_and_workers_change_nothing(wide):
    image, _, scribbles = wide
    segmenter = classical(resolution="patch").fit(image, scribbles)
    windows = pixel_tiles(image.shape)
    assert len(windows) == 6
    embedding = segmenter.embed(image)
    results = []
    for order, workers in (("reading", 1), ("centre-out", 3), ([5, 1, 0, 4, 2, 3], 2)):
        segmenter.workers = workers
        out = np.zeros((4, *image.shape), np.float32)
        seen = []
        for k, tile in enumerate(segmenter.iter_predict(embedding, order=order)):
            assert (tile.index, tile.total) == (k, 6)
            at = (slice(None), *tile.window.slices)
            out[at] = [tile.labels_yx, *tile.proba_kyx, tile.uncertainty_yx]
            seen.append(windows.index(tile.window))
        assert sorted(seen) == list(range(6))
        results.append((seen, out))
    assert results[0][0] == [0, 1, 2, 3, 4, 5]
    assert results[1][0][0] == 1  # in the middle of three columns, upper row is taller
    assert results[2][0] == [5, 1, 0, 4, 2, 3]
    for _, out in results[1:]:
        np.testing.assert_array_equal(out, results[0][1])


def test_tiles_partition_the_image(wide):
    image, _, scribbles = wide
    segmenter = classical(resolution="patch").fit(image, scribbles)
    covered = np.zeros(image.shape, int)
    for tile in segmenter.iter_predict(image):
        covered[tile.window.slices] += 1
        assert tile.labels_yx.shape == tile.window.shape
    assert (covered == 1).all()


def test_centre_out_starts_where_it_is_told(wide):
    image, _, scribbles = wide
    segmenter = classical(resolution="patch").fit(image, scribbles)
    tiles = segmenter.iter_predict(image, focus=(550, 1090))
    assert next(tiles).window == Window(512, 560, 1024, 1100)
    tiles.close()


@pytest.mark.parametrize(
    ("order", "message"),
    [
        pytest.param("spiral", "'centre-out', 'reading' or tile numbers", id="word"),
        pytest.param([0, 9], r"tile numbers from 0 to 0, got \[9\]", id="number"),
    ],
)
def test_an_order_that_cannot_be(order, message):
    image, _, scribbles = sample()
    segmenter = classical().fit(image, scribbles)
    with pytest.raises(SettingsError, match=message):
        list(segmenter.iter_predict(image, order=order))


def test_strokes_come_to_an_image_that_had_none():
    image, _, scribbles = sample()
    segmenter, other = classical(), classical()
    first, second = (segmenter.embed(image) for _ in range(2))
    found = read_annotations(scribbles)
    none = Annotations(found.rows[:0], found.cols[:0], found.ids[:0])
    segmenter.fit([first, second], [found, none])
    same(segmenter.predict(image), other.fit(image, scribbles).predict(image))
    segmenter.fit([first, second], [found, found])
    other.fit([image, image], [scribbles, scribbles])
    same(segmenter.predict(image), other.predict(image))


@pytest.mark.parametrize(
    ("kind", "density"),
    [("classical", 1), ("vit", 1), ("vit", 7), ("both", 1), ("both", 2), ("both", 7)],
)
def test_training_samples_what_prediction_sees(kind, density, monkeypatch):
    image, _, _ = sample()
    if kind == "classical":
        segmenter = classical()
    else:
        segmenter = counting(kind=kind, density=density)
    # several strips, so that their seams are seen
    monkeypatch.setattr(
        "napari_alibi_seg._segmenter._embedding.STRIP_BYTES", 4 * 20 * 128 * 40
    )
    embedding = segmenter.embed(image)
    features = PixelFeatures(embedding, None)
    window = Window(0, *image.shape[:1], 0, image.shape[1])
    whole = np.concatenate([b.copy() for _, b in features.strips(window)], axis=1)
    assert whole.shape == (features.n_features, *image.shape)
    rng = np.random.default_rng(0)
    rows, cols = rng.integers(0, image.shape[0], 200), rng.integers(0, 128, 200)
    picked = features.at_pixels(rows, cols, window)
    np.testing.assert_array_equal(picked, whole[:, rows, cols].T)


def test_patch_probabilities_are_those_of_the_token_at_its_centre():
    image, _, scribbles = sample()
    # a patch of odd side has its centre on a pixel
    segmenter = counting(
        CountingBackbone(7), classifier={"resolution": "patch"}, kind="vit"
    )
    embedding = segmenter.embed(image)
    result = segmenter.fit(embedding, scribbles).predict(embedding)
    features = PixelFeatures(embedding, segmenter.projection)
    rows, cols = embedding.grid.shape
    cells = features.cells_in(Window(0, rows, 0, cols))
    expected = segmenter.classifier.predict_proba(cells.reshape(len(cells), -1))
    whole = slice(3, 7 * (rows - 1), 7), slice(3, 7 * (cols - 1), 7)
    np.testing.assert_array_equal(
        result.probabilities[:, whole[0], whole[1]],
        expected.reshape(2, rows, cols)[:, :-1, :-1],
    )


# --------------------------------------------------------------- tokens and stores


def test_stored_tokens_are_not_computed_again(tmp_path):
    image, _, scribbles = sample()
    fresh = CountingBackbone()
    segmenter = counting(fresh, store=tmp_path)
    first = segmenter.fit(image, scribbles).predict(image)
    n_tiles = len(segmenter.embed(image).grid.tiles)
    assert fresh.n_images == n_tiles == 6  # 7 x 10 patches in tiles of 4 x 4
    later = CountingBackbone()
    stored = counting(later, store=tmp_path).fit(image, scribbles).predict(image)
    assert later.n_images == 0
    in_memory = counting().fit(image, scribbles).predict(image)
    assert same(first, stored)
    assert same(first, in_memory)


def test_an_embedding_is_computed_once():
    image, _, scribbles = sample()
    backbone = CountingBackbone()
    segmenter = counting(backbone)
    embedding = segmenter.embed(image)
    segmenter.fit(embedding, scribbles).predict(embedding)
    segmenter.fit(embedding, scribbles[:, ::-1].copy())
    assert backbone.n_images == len(embedding.grid.tiles)


def test_a_killed_extraction_goes_on_where_it_was(tmp_path):
    image, _, scribbles = sample()
    backbone = CountingBackbone()
    segmenter = counting(backbone, store=tmp_path)
    segmenter.workers = 1  # more would have begun more
    steps = segmenter.iter_embed(image, order=[4, 2])
    done = [next(steps).tile.index for _ in range(3)]
    steps.close()
    assert done == [4, 2, 0]
    assert backbone.n_images == 3
    resumed = CountingBackbone()
    segmenter = counting(resumed, store=tmp_path)
    steps = list(segmenter.iter_embed(image))
    assert [s.tile.index for s in steps] == [1, 3, 5]
    assert [(s.done, s.total) for s in steps] == [(4, 6), (5, 6), (6, 6)]
    assert resumed.n_images == 3
    result = segmenter.fit(image, scribbles).predict(image)
    assert same(result, counting().fit(image, scribbles).predict(image))


def test_the_order_of_extraction_changes_nothing():
    image, _, _ = sample()
    segmenter = counting(density=2)
    maps = []
    for order in (None, [5, 0, 3, 1, 4, 2]):
        held = []
        for _ in segmenter.iter_embed(image, order=order, into=held):
            pass
        maps.append(held[0].tokens(None).window())
    np.testing.assert_array_equal(*maps)


@pytest.mark.parametrize(
    ("changes", "other_image", "message"),
    [
        pytest.param({}, True, "`image` is ", id="image"),
        pytest.param({"density": 2}, False, r"`grid\.density` is 1", id="density"),
        pytest.param({"tile_px": 70}, False, r"`grid\.tile_px` is 56", id="tile"),
        pytest.param({"scale": 2.0}, False, r"`grid\.scale` is 1.0", id="scale"),
        pytest.param({"backbone": 1}, False, r"`backbone\.alibi` is ", id="weights"),
    ],
)
def test_a_store_of_something_else_is_refused(tmp_path, changes, other_image, message):
    image, _, _ = sample()
    path = tmp_path / "kept.zarr"
    counting(store=path).embed(image)
    backbone = CountingBackbone(alibi=not changes.pop("backbone", 0))
    if backbone.alibi is None:
        changes["halo_tokens"] = 0
    segmenter = counting(backbone, store=path, **changes)
    wanted = image[::-1].copy() if other_image else image
    with pytest.raises(StoreError, match=f"made for something else: .*{message}"):
        segmenter.embed(wanted)
    assert backbone.n_images == 0


def test_out_of_memory_halves_the_batch(tiny_vit, monkeypatch, caplog):
    image, _, _ = sample()
    features = FeatureSettings(kind="vit", tile_px=56, scale=1.0, density=2)
    expected = Segmenter(tiny_vit, features=features).embed(image).tokens(None).window()
    small_memory(tiny_vit, monkeypatch, most_images=3)
    with caplog.at_level(logging.WARNING):
        embedding = Segmenter(tiny_vit, features=features).embed(image)
        tokens = embedding.tokens(None).window()
    # four tiles of four passes at once, until two images fit; then never more again
    halvings = [(16, 8), (8, 4), (4, 2)]
    for n, fewer in halvings:
        assert (
            f"Out of device memory with {n} images at once; going on with {fewer}."
            in (caplog.text)
        )
    assert caplog.text.count("Out of device memory") == len(halvings)
    np.testing.assert_allclose(tokens, expected, atol=4e-3)


def test_not_even_one_tile_fits(tiny_vit, monkeypatch):
    small_memory(tiny_vit, monkeypatch, most_images=0)
    segmenter = Segmenter(
        tiny_vit, features=FeatureSettings(kind="vit", tile_px=56, scale=1.0)
    )
    with pytest.raises(DeviceMemoryError, match=r"\(56, 56\).*Use smaller tiles"):
        segmenter.embed(sample()[0])


def small_memory(backbone, monkeypatch, most_images):
    """Make a CPU look like a GPU that can hold so many images."""
    import torch

    from napari_alibi_seg.features import _device

    forward = backbone._forward

    def limited(images):
        if len(images) > most_images:
            raise torch.OutOfMemoryError("CUDA out of memory (injected)")
        return forward(images)

    monkeypatch.setattr(backbone, "device", torch.device("cpu:0"))
    monkeypatch.setattr(backbone, "_limit", _device.BatchLimit())
    monkeypatch.setattr(backbone, "_forward", limited)


def test_batches_of_a_gpu_give_the_same_tokens():
    image, _, _ = sample()
    segmenter = counting()
    one = segmenter.prepare(image)
    backbone = CountingBackbone(device="cpu:0")
    store = MemoryStore(one.grid, 4)
    list(iter_extract(backbone, one.image, store, batch_size=4))
    assert backbone.batches == [4, 2]
    one = segmenter.embed(one)
    for tile in one.grid.tiles:
        np.testing.assert_array_equal(store.read(tile), one.store.read(tile))


# ------------------------------------------------------------------------ geometry


@pytest.mark.parametrize("density", [1, 2, 7])
@pytest.mark.parametrize("scale", [0.5, 1.0, 1.3, 2.0])
@pytest.mark.parametrize("at", [(3, 5), (50, 61), (37, 90), (70, 20)])
def test_one_bright_pixel_goes_to_its_token_and_back(scale, density, at):
    image = np.zeros((100, 130), np.uint8)
    image[at] = 255
    segmenter = counting(kind="vit", scale=scale, density=density)
    embedding = segmenter.embed(image)
    light = embedding.tokens(None).window()[..., 0].astype(float)
    grid = embedding.grid
    assert light[grid.token_of_pixel(*at)] >= 0.99 * light.max() > 0
    rows, cols = np.indices(light.shape)
    centre = [(light * i).sum() / light.sum() for i in (rows, cols)]
    # the first tokens have no partners before them
    slack = 0.5 * grid.step_px if min(at) * scale > 14 else 7.0
    back = grid.pixel_of_token(*centre)
    np.testing.assert_allclose(back, at, atol=slack / scale + 0.5)


def test_rolling_by_whole_patches_rolls_the_map(tiny_vit):
    image = np.random.default_rng(0).integers(0, 256, (84, 84), np.uint8)
    segmenter = Segmenter(
        tiny_vit, features=FeatureSettings(kind="vit", tile_px=84, scale=1.0)
    )
    tokens = segmenter.embed(image).tokens(None).window()
    moved = segmenter.embed(np.roll(image, (28, -14), (0, 1))).tokens(None).window()
    assert tokens.shape == (6, 6, 64)
    assert tokens.std(axis=(0, 1)).min() > 0.01
    np.testing.assert_allclose(moved, np.roll(tokens, (2, -1), (0, 1)), atol=4e-3)


def test_a_constant_image_gives_constant_tokens(tiny_vit):
    image = np.full((60, 90), 77, np.uint8)
    segmenter = Segmenter(
        tiny_vit,
        features=FeatureSettings(kind="vit", tile_px=56, scale=1.5, density=2),
    )
    with pytest.warns(AlibiSegWarning, match="constant: every value is 77"):
        tokens = segmenter.embed(image).tokens(None).window()
    assert tokens.shape == (14, 20, 64)
    assert np.ptp(tokens, axis=(0, 1)).max() < 4e-3
    assert tokens.std(axis=2).min() > 0.1  # and are not all 0


@pytest.mark.parametrize("density", [1, 2, 7])
def test_the_tiny_vit_segments_at_any_density(tiny_vit, density):
    image, mask, scribbles = sample()
    segmenter = Segmenter(
        tiny_vit,
        features=FeatureSettings(kind="both", tile_px=196, scale=1.0, density=density),
        classifier=ClassifierSettings(**FEW),
    )
    result = segmenter.fit(image, scribbles).predict(image)
    assert confusion(result.labels, mask).miou > 0.75


def test_plain_backbones_get_a_halo_and_alibi_none():
    image, _, _ = sample()
    plain = counting(CountingBackbone(alibi=False), tile_px=140).embed(image)
    assert plain.grid.halo_tokens == 4
    assert counting(CountingBackbone(), tile_px=140).embed(image).grid.halo_tokens == 0


def test_small_images_are_enlarged_unless_told_otherwise():
    image, _, _ = sample()
    segmenter = counting(scale="auto")
    assert segmenter.embed(image).grid.working_shape == (192, 256)
    assert segmenter.frozen.scale == 2.0


# -------------------------------------------------------------------------- images


def test_frozen_and_own_normalisation():
    image, mask, scribbles = sample()
    brighter = (image.astype(np.uint16) * 3 + 400).astype(np.uint16)
    found = {}
    for how in ("frozen", "image"):
        segmenter = Segmenter(
            features=FeatureSettings(normalisation=how),
            classifier=ClassifierSettings(**FEW),
        ).fit(image, scribbles)
        found[how] = confusion(segmenter.predict(brighter).labels, mask).miou
    assert found["image"] > 0.8
    assert found["frozen"] < 0.6


def test_rgb_is_seen_as_colours():
    image, mask, scribbles = sample()
    # equal luminance everywhere but for rounding: only colour tells the phases apart
    noise = np.random.default_rng(0).integers(0, 9, image.shape)
    rgb = np.zeros((*image.shape, 3), np.uint8)
    rgb[..., 0] = np.where(mask == 1, 120, 20) + noise
    rgb[..., 1] = np.where(mask == 1, 60, 90) + noise
    segmenter = classical().fit(rgb, scribbles)
    assert segmenter.frozen.channels == "rgb"
    assert confusion(segmenter.predict(rgb).labels, mask).miou > 0.7
    grey = Segmenter(features=FeatureSettings(channels="grey")).fit(rgb, scribbles)
    assert confusion(grey.predict(rgb).labels, mask).miou < 0.6
    with pytest.raises(SettingsError, match="does not have the channels"):
        segmenter.predict(image)


def test_grey_stored_as_rgb_gives_what_grey_gives():
    image, _, scribbles = sample()
    segmenter = classical().fit(image, scribbles)
    assert same(segmenter.predict(image), segmenter.predict(np.dstack([image] * 3)))


def test_channels_are_chosen():
    image, mask, scribbles = sample()
    rng = np.random.default_rng(0)
    stack = rng.integers(0, 256, (5, *image.shape), np.uint8)
    stack[3] = image
    with pytest.raises(SettingsError, match="5 channels without a colour meaning"):
        classical().fit(open_image(stack, axes="CYX"), scribbles)
    segmenter = Segmenter(
        features=FeatureSettings(channels=(3,)), classifier=ClassifierSettings(**FEW)
    )
    source = open_image(stack, axes="CYX")
    result = segmenter.fit(source, scribbles).predict(source)
    assert confusion(result.labels, mask).miou > 0.8
    assert same(result, classical().fit(image, scribbles).predict(image))


def test_a_plane_of_a_stack():
    image, _, scribbles = sample()
    stack = np.stack([np.zeros_like(image), image, image[::-1]])
    segmenter = classical().fit(stack, scribbles, plane=1)
    assert same(segmenter.predict(stack, plane=1), segmenter.predict(image))
    upside_down = segmenter.predict(stack, plane=2)
    assert (
        confusion(upside_down.labels, segmenter.predict(image[::-1]).labels).miou == 1
    )


def test_nan_and_infinity_are_harmless():
    image, mask, scribbles = sample()
    values = image.astype(np.float32) / 7
    values[10:14, 10:30] = np.nan
    values[40, 50], values[41, 50] = np.inf, -np.inf
    for segmenter in (classical(), counting()):
        result = segmenter.fit(values, scribbles).predict(values)
        assert np.isfinite(result.probabilities).all()
        assert set(np.unique(result.labels)) == set(IDS)
        assert confusion(result.labels, mask).miou > 0.6


def test_a_constant_image_warns():
    image = np.full((40, 40), 9, np.uint8)
    scribbles = np.zeros_like(image)
    scribbles[:5], scribbles[-5:] = 1, 3
    with pytest.warns(AlibiSegWarning, match="constant: every value is 9"):
        embedding = classical().embed(image)
    result = classical().fit(embedding, scribbles).predict(embedding)
    assert np.ptp(result.labels) == 0
    np.testing.assert_allclose(result.uncertainty, 1, atol=1e-3)


@pytest.mark.filterwarnings("ignore:.*is constant")  # a single pixel is
@pytest.mark.parametrize("shape", [(5, 7), (1, 1), (1, 40), (15, 2)])
@pytest.mark.parametrize("resolution", ["patch", "pixel"])
def test_tiny_images(shape, resolution):
    image, _, scribbles = sample()
    small = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    for make in (classical, lambda **c: counting(classifier=c, scale=2.0, density=2)):
        segmenter = make(resolution=resolution).fit(image, scribbles)
        result = segmenter.predict(small)
        assert result.labels.shape == shape
        assert np.isfinite(result.probabilities).all()
        if min(shape) > 1:
            own = np.zeros(shape, np.uint8)
            own[0, 0], own[-1, -1] = 1, 3
            alone = make(resolution=resolution).fit(small, own)
            assert alone.predict(small).class_ids == IDS


def test_pixel_size_and_files(tmp_path):
    image, _, scribbles = sample()
    size = PixelSize(0.05, 0.04, "um")
    write_image(tmp_path / "a.tif", image, axes="YX", pixel_size=size)
    write_image(tmp_path / "l.png", scribbles, axes="YX")
    segmenter = classical().fit(tmp_path / "a.tif", tmp_path / "l.png")
    result = segmenter.predict(tmp_path / "a.tif")
    assert result.pixel_size == size
    assert same(result, classical().fit(image, scribbles).predict(image))


def test_three_classes_reach_the_truth():
    made = synthesize("fibres", (128, 128), seed=3)
    scribbles = draw_scribbles(made.mask, strokes_per_class=4)
    result = classical().fit(made.image, scribbles).predict(made.image)
    assert result.class_ids == (1, 2, 3)
    assert confusion(result.labels, made.mask).miou > 0.6


def test_all_channels_or_components():
    image, _, scribbles = sample()
    whole = counting(kind="vit", components=None).fit(image, scribbles)
    assert (whole.projection, whole.classifier.n_features) == (None, 4)
    two = counting(kind="vit", components=2).fit(image, scribbles)
    assert two.projection.n_components == two.classifier.n_features == 2


def test_new_scribbles_keep_the_projection():
    image, _, scribbles = sample()
    segmenter = counting()
    embedding = segmenter.embed(image)
    projection = segmenter.fit(embedding, scribbles).projection
    segmenter.fit(embedding, np.where(scribbles == 1, 4, scribbles))
    assert segmenter.projection is projection
    assert set(segmenter.classes) == {3, 4}


# ----------------------------------------------------------------- wrong arguments


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(
            lambda: Segmenter(features=FeatureSettings(kind="vit")),
            "needs a `backbone`",
            id="no-backbone",
        ),
        pytest.param(
            lambda: Segmenter(CountingBackbone(), features=FeatureSettings()),
            "use no backbone, but one was given",
            id="backbone-not-used",
        ),
        pytest.param(
            lambda: Segmenter().predict(sample()[0]), "not trained yet", id="untrained"
        ),
        pytest.param(
            lambda: Segmenter().save("a.alibiseg"), "Call `fit` first", id="unsaved"
        ),
        pytest.param(
            lambda: Segmenter().fit([sample()[0]], sample()[2]),
            "both be single or both be lists",
            id="list-and-single",
        ),
        pytest.param(
            lambda: Segmenter().fit([sample()[0]], [sample()[2]] * 2),
            r"got 1 image\(s\) and 2 label image\(s\)",
            id="unequal-lists",
        ),
        pytest.param(
            lambda: counting(density=3).embed(sample()[0]),
            r"must divide the patch of 14 pixels \(one of \[1, 2, 7, 14\]\), got 3",
            id="density",
        ),
        pytest.param(
            lambda: counting(halo_tokens=2).embed(sample()[0]),
            "leaves nothing between two halos of 2",
            id="halo",
        ),
    ],
)
def test_what_cannot_be(call, message):
    with pytest.raises(SettingsError, match=message):
        call()


def test_a_classifier_file_holds_no_time_and_no_chance(tmp_path):
    image, _, scribbles = sample()
    digests = set()
    for k in range(2):
        path = tmp_path / f"{k}.alibiseg"
        classical().fit(image, scribbles).save(path)
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(digests) == 1
