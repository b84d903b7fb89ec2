"""Crops and what is done to them: zoom, turns, tone, degradation."""

from __future__ import annotations

import numpy as np
import pytest
from distill.toys import data_of

from napari_alibi_seg.data import write_image
from napari_alibi_seg.distill import DataSettings, Pool, open_pool
from napari_alibi_seg.distill._augment import degrade, smooth_field, take_crop, tone
from napari_alibi_seg.distill._pool import _in_memory


def _rng(seed=0):
    return np.random.default_rng(seed)


def _pool(pixels):
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    return Pool([(1.0, [_in_memory("a", pixels.astype(np.uint8))])])


def _data(**changes):
    plain = {"zoom": (1, 1), "rotate": 0.0, "invert": 0.0, "tint": 0.0}
    return DataSettings(folder_share=0, synthetic_share=1, **{**plain, **changes})


class _Asked:
    """A pool that notes the sides it is asked for."""

    def __init__(self):
        self.sides = []

    def window(self, rng, side):
        self.sides.append(side)
        return np.full((5, 5, 3), 0.25, np.float32)


def test_all_eight_orientations_and_nothing_else():
    pixels = _rng().integers(0, 256, (16, 16, 3))
    pool = _pool(pixels)
    chw = np.moveaxis(pixels.astype(np.float32) / np.float32(255), -1, 0)
    ways = {}
    for turns in range(4):
        for flip in (1, -1):
            ways[turns, flip] = np.rot90(chw, turns, (1, 2))[:, :, ::flip].tobytes()
    seen = {take_crop(pool, _rng(i), 16, _data()).tobytes() for i in range(60)}
    assert seen == set(ways.values())


@pytest.mark.parametrize("side", [16, 37])
def test_a_crop_has_the_wanted_side_whatever_the_zoom(side):
    pool = _pool(_rng().integers(0, 256, (50, 80)))
    data = _data(zoom=(0.1, 8), rotate=0.5)
    for i in range(30):
        crop = take_crop(pool, _rng(i), side, data)
        assert crop.shape == (3, side, side)
        assert crop.dtype == np.float32
        assert crop.min() >= 0
        assert crop.max() <= 1
        assert np.array_equal(crop, take_crop(pool, _rng(i), side, data))


def test_zoom_is_even_in_its_logarithm():
    asked = _Asked()
    for i in range(400):
        take_crop(asked, _rng(i), 32, _data(zoom=(0.5, 4)))
    zooms = 32 / np.array(asked.sides)
    assert zooms.min() >= 0.5
    assert zooms.max() <= 4
    quarters = np.histogram(np.log2(zooms), bins=4, range=(-1, 2))[0]
    assert quarters.min() > 70


def test_turned_crops_come_from_the_square_around_them():
    asked = _Asked()
    for i in range(200):
        take_crop(asked, _rng(i), 32, _data(rotate=1.0))
    reach = np.array(asked.sides) / 32
    assert reach.min() >= 1
    assert 1.40 < reach.max() <= 2**0.5 + 1e-9


def test_turned_crops_have_no_empty_corners():
    pool = _pool(np.full((90, 90), 102))
    for i in range(20):
        crop = take_crop(pool, _rng(i), 24, _data(rotate=1.0))
        np.testing.assert_allclose(crop, 0.4, atol=1e-5)


def _leans(image):
    """Whether stripes are oblique: both derivatives are there."""
    dy, dx = (np.abs(np.diff(image[0], axis=a)).mean() for a in (0, 1))
    return min(dy, dx) > 0.15 * max(dy, dx)


@pytest.mark.parametrize(
    ("share", "low", "high"), [(0, 0, 0), (0.5, 22, 50), (1, 60, 80)]
)
def test_rotate_is_a_share_of_crops(share, low, high):
    stripes = np.tile(127 + 100 * np.sin(np.arange(120) / 3), (120, 1))
    pool = _pool(stripes)
    n = sum(
        _leans(take_crop(pool, _rng(i), 24, _data(rotate=share))) for i in range(80)
    )
    assert low <= n <= high


# -------------------------------------------------------------------------------- tone


def _ramp_image():
    return np.broadcast_to(np.linspace(0, 1, 64, dtype=np.float32), (3, 8, 64)).copy()


@pytest.mark.parametrize("invert", [0.0, 1.0])
def test_tone_keeps_or_turns_the_order_of_greys(invert):
    image = _ramp_image()
    for i in range(20):
        out = tone(image, _rng(i), _data(invert=invert))
        steps = np.diff(out[0, 0])
        assert ((steps <= 0) if invert else (steps >= 0)).all()
        assert np.abs(steps).sum() > 0.5  # contrast stays
        assert np.array_equal(out[0], out[2])  # grey stays grey
        assert out.dtype == np.float32
    assert np.array_equal(image, _ramp_image())


def test_tint_colours_grey():
    out = tone(_ramp_image(), _rng(), _data(tint=1.0))
    assert np.abs(out[0] - out[1]).max() > 0.01
    assert np.corrcoef(out[0].ravel(), out[1].ravel())[0, 1] > 0.999


def test_tone_varies():
    means = [tone(_ramp_image(), _rng(i), _data()).mean() for i in range(40)]
    assert np.std(means) > 0.04


# ----------------------------------------------------------------------------- degrade


def test_degrade_is_a_share_of_crops():
    image = _ramp_image()[:, :, :8]
    none = [degrade(image, _rng(i), _data(degrade=0.0)) for i in range(9)]
    assert all(out is image for out in none)
    half = [degrade(image, _rng(i), _data(degrade=0.5)) is image for i in range(100)]
    assert 30 < sum(half) < 70


def test_degrade_leaves_its_input_alone():
    image = _rng().random((3, 32, 32), dtype=np.float32)
    before = image.copy()
    for i in range(30):
        out = degrade(image, _rng(i), _data(degrade=1.0))
        assert out.shape == image.shape
        assert out.dtype == np.float32
        assert np.isfinite(out).all()
        assert np.array_equal(out, degrade(image, _rng(i), _data(degrade=1.0)))
    assert np.array_equal(image, before)


def _roughness(max_noise):
    """Of a flat grey, over many draws; blur and shading do nothing to it."""
    image = np.full((3, 32, 32), 0.5, np.float32)
    found = []
    for i in range(120):
        out = degrade(image, _rng(i), _data(degrade=1.0, max_noise=max_noise))
        found.append(np.diff(out[0], axis=1).std() / 2**0.5)
    return np.array(found)


def test_noise_up_to_its_limit():
    none, mild, strong = (_roughness(m) for m in (0.0, 0.1, 0.3))
    assert none.max() < 0.02  # clouds alone
    assert none.mean() < 0.2 * mild.mean() < 0.2 * 0.5 * strong.mean()
    assert 0.2 < strong.max() < 0.33
    assert np.median(strong) < 0.12  # many mild, some very noisy


# ------------------------------------------------------------------------ random field


@pytest.mark.parametrize("side", [16, 33])
def test_smooth_field_is_standardised_and_periodic(side):
    field = smooth_field(side, _rng(), 6)
    assert field.shape == (side, side)
    assert abs(field.mean()) < 1e-6
    assert field.std() == pytest.approx(1, abs=1e-5)
    inside = np.abs(np.diff(field, axis=0)).mean()
    assert np.abs(field[0] - field[-1]).mean() < 2.5 * inside


def test_wavelength_is_smoothness():
    steps = [np.abs(np.diff(smooth_field(64, _rng(), w))).mean() for w in (1, 6, 24)]
    assert steps[0] > 2 * steps[1]
    assert steps[1] > 2 * steps[2]


def test_a_folder_with_one_picture_is_enough(tmp_path):
    image = _rng().integers(0, 256, (12, 12), dtype=np.uint8)
    write_image(tmp_path / "a.png", image, axes="YX")
    data = data_of(tmp_path, zoom=(0.5, 3.0))
    assert take_crop(open_pool(data), _rng(), 28, data).shape == (3, 28, 28)
