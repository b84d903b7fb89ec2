"""Pictures of known regions: ids, fills and shapes are what they say."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from distill.toys import data_of, pictures
from scipy.ndimage import binary_erosion

from napari_alibi_seg.distill import _mosaics as module
from napari_alibi_seg.distill import open_pool
from napari_alibi_seg.distill._mosaics import MAX_REGIONS, draw_mosaic


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    data = data_of(pictures(tmp_path_factory.mktemp("pictures")), tint=0.0)
    return open_pool(data), data


def _draw(source, seed, side=64):
    pool, data = source
    return draw_mosaic(pool, np.random.default_rng(seed), side, data)


@pytest.mark.parametrize("side", [24, 64])
def test_two_to_four_regions_numbered_from_0(source, side):
    counts = Counter()
    for seed in range(60):
        made = _draw(source, seed, side)
        ids, sizes = np.unique(made.regions, return_counts=True)
        assert made.regions.dtype == np.uint8
        assert made.regions.shape == (side, side)
        assert [*ids] == [*range(len(ids))]
        assert (sizes > 0.01 * side**2).sum() >= 2
        assert made.image.shape == (3, side, side)
        assert made.image.dtype == np.float32
        assert np.isfinite(made.image).all()
        assert made.image.std() > 1e-3
        counts[len(ids)] += 1
    # four grains have little room in a small crop
    assert {2, 3} <= set(counts) <= {2, 3, 4}
    assert 4 in counts or side < 64
    assert MAX_REGIONS == 4


def test_a_mosaic_is_a_function_of_its_generator(source):
    a, b, c = (_draw(source, seed) for seed in (3, 3, 4))
    assert np.array_equal(a.image, b.image)
    assert np.array_equal(a.regions, b.regions)
    assert not np.array_equal(a.image, c.image)


def test_every_layout_and_the_microstructures_occur(source, monkeypatch):
    seen = Counter()

    def spied(draw):
        def spy(rng, side):
            seen[draw.__name__] += 1
            return draw(rng, side)

        return spy

    names = {draw.__name__ for draw in module._LAYOUTS}
    assert len(names) == len(module._CHANCES) == 4
    monkeypatch.setattr(module, "_LAYOUTS", tuple(map(spied, module._LAYOUTS)))
    monkeypatch.setattr(module, "_microstructure", spied(module._microstructure))
    for seed in range(80):
        _draw(source, seed)
    assert set(seen) == {*names, "_microstructure"}
    before = seen["_microstructure"]
    for seed in range(40):
        _draw(source, seed, 32)  # too small for the generator
    assert seen["_microstructure"] == before


def test_grains_show_the_generators_own_mask(source):
    rng = np.random.default_rng(0)
    for _ in range(6):
        made = module._microstructure(rng, 64)
        assert made.image.shape == (3, 64, 64)
        assert made.regions.min() >= 0
        assert made.regions.max() < MAX_REGIONS
        assert 0 <= made.image.min() <= made.image.max() <= 1


def _constant(values):
    return lambda n, *_: [np.full((3, 48, 48), v, np.float32) for v in values[:n]]


def _interior(regions, region):
    return binary_erosion(regions == region, iterations=6)


def _stripes(alike=()):
    regions = np.repeat([0, 1, 2], 16).astype(np.uint8)[:, None] * np.ones(48, np.uint8)
    return module._Layout(regions, np.zeros((48, 48), np.int32), alike)


@pytest.mark.parametrize(
    ("alike", "expected"), [((), (0.2, 0.5, 0.8)), (((1, 2),), (0.2, 0.5, 0.5))]
)
def test_regions_show_their_fill_and_like_ones_the_same(
    source, monkeypatch, alike, expected
):
    monkeypatch.setattr(module, "_fills", _constant((0.2, 0.5, 0.8)))
    pool, data = source
    layout = _stripes(alike)
    for seed in range(8):
        image = module._filled(layout, pool, np.random.default_rng(seed), data)
        for region, value in enumerate(expected):
            inside = image[:, _interior(layout.regions, region)]
            np.testing.assert_allclose(inside, value, atol=0.02)


def test_fills_have_the_contrast_and_mean_they_were_drawn_with(source):
    pool, data = source
    gaps = []
    for seed in range(30):
        fills = module._fills(3, pool, np.random.default_rng(seed), 32, data)
        assert len(fills) == 3
        stds = [f.std() for f in fills]
        assert 0.01 < min(stds) <= max(stds) < 0.16
        means = [float(f.mean()) for f in fills]
        assert -0.1 < min(means) <= max(means) < 1.1
        gaps.append(max(means) - min(means))
    assert min(gaps) < 0.1  # grey alone does not tell
    assert max(gaps) > 0.3


def _stamped(shape, regions=None, objects=None):
    regions = np.zeros((64, 64), np.uint8) if regions is None else regions
    objects = np.zeros((64, 64), np.int32) if objects is None else objects
    module._stamp(regions, objects, 2, 9, shape)
    return regions, objects


@pytest.mark.parametrize(
    ("a", "b", "power", "area"),
    [(10, 10, 2.0, np.pi * 100), (18, 6, 2.0, np.pi * 108), (10, 10, 60.0, 400)],
    ids=["disc", "ellipse", "square"],
)
def test_a_particle_has_its_area(a, b, power, area):
    regions, objects = _stamped((31.5, 32.0, a, b, 0.0, power))
    assert (regions == 2).sum() == pytest.approx(area, rel=0.1)
    assert np.array_equal(objects == 9, regions == 2)
    rows, columns = np.nonzero(regions)
    assert np.ptp(rows) + 1 == pytest.approx(2 * a, abs=1.5)
    assert np.ptp(columns) + 1 == pytest.approx(2 * b, abs=1.5)


def test_a_particle_that_would_be_cut_is_not_drawn():
    regions, objects = _stamped((32.0, 32.0, 10, 10, 0.0, 2.0))
    before = regions.copy()
    _stamped((32.0, 36.0, 10, 10, 0.0, 2.0), regions, objects)
    assert np.array_equal(regions, before)
    module._stamp(regions, objects, 1, 10, (32.0, 53.0, 8.0, 8.0, 0.0, 2.0))
    assert (regions == 1).sum() == pytest.approx(np.pi * 64, rel=0.1)
    assert np.array_equal(regions == 2, before == 2)
