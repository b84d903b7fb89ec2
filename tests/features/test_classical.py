"""Classical features agree with slow references and do not depend on windows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage as ndi

from napari_alibi_seg._base import Window
from napari_alibi_seg.data import pixel_tiles
from napari_alibi_seg.features import ClassicalFeatures


def compute(image_cyx, window):
    def read(w):
        return image_cyx[(slice(None), *w.slices)]

    features = ClassicalFeatures(len(image_cyx))
    return features.compute(read, image_cyx.shape[1:], window)


def planes(image_yx):
    height, width = image_yx.shape
    out = compute(image_yx[None], Window(0, height, 0, width))
    return dict(zip(ClassicalFeatures(1).names, out, strict=True))


@pytest.fixture(scope="module")
def noise():
    rng = np.random.default_rng(0)
    return ndi.gaussian_filter(rng.normal(size=(300, 411)), 1).astype(np.float32)


@given(st.data())
@settings(max_examples=15, deadline=None)
def test_a_window_equals_the_whole_to_the_bit(noise, data):
    y0 = data.draw(st.integers(0, 290))
    x0 = data.draw(st.integers(0, 400))
    w = Window(
        y0,
        data.draw(st.integers(y0 + 1, 300)),
        x0,
        data.draw(st.integers(x0 + 1, 411)),
    )
    whole = compute(noise[None], Window(0, 300, 0, 411))
    assert np.array_equal(compute(noise[None], w), whole[(slice(None), *w.slices)])


def test_tiles_of_a_large_image_equal_the_whole():
    image = np.random.default_rng(1).random((1, 700, 1100), np.float32)
    whole = compute(image, Window(0, 700, 0, 1100))
    for w in pixel_tiles((700, 1100), 256):
        assert np.array_equal(compute(image, w), whole[(slice(None), *w.slices)])


@pytest.mark.parametrize("sigma", [0.5, 1, 2, 4, 8, 16])
def test_values_are_gaussians(noise, sigma):
    ours = planes(noise)[f"c0 value {sigma:g}px"]
    expected = ndi.gaussian_filter(noise.astype(float), sigma, mode="nearest")
    # borders are repeated at every level of the chain, not once
    edge = 8 + int(4 * sigma)
    inner = np.s_[edge:-edge, edge:-edge]
    scale = expected[inner].std()
    # coarse levels are interpolated linearly between samples half a sigma apart
    assert np.abs(ours - expected)[inner].max() < 0.2 * scale
    assert np.corrcoef(ours[inner].ravel(), expected[inner].ravel())[0, 1] > 0.999


@pytest.mark.parametrize("sigma", [1, 2, 4, 8])
def test_gradient_and_hessian_follow_gaussian_derivatives(noise, sigma):
    ours = planes(noise)
    image = noise.astype(float)
    d = {
        order: ndi.gaussian_filter(image, sigma, order=order, mode="nearest")
        for order in ((0, 1), (1, 0), (0, 2), (2, 0), (1, 1))
    }
    mean = (d[0, 2] + d[2, 0]) / 2
    root = np.hypot((d[0, 2] - d[2, 0]) / 2, d[1, 1])
    expected = {
        "gradient": np.hypot(d[0, 1], d[1, 0]),
        "hessian-max": mean + root,
        "hessian-min": mean - root,
    }
    inner = np.s_[24:-24, 24:-24]
    for kind, reference in expected.items():
        plane = ours[f"c0 {kind} {sigma:g}px"]
        r = np.corrcoef(plane[inner].ravel(), reference[inner].ravel())[0, 1]
        assert r > 0.96, kind


def test_a_bright_line_is_a_ridge_and_a_step_an_edge():
    image = np.zeros((64, 64), np.float32)
    image[32] = 1
    ridge = planes(image)
    assert ridge["c0 hessian-min 1px"][32, 32] < -0.05
    assert abs(ridge["c0 hessian-max 1px"][32, 32]) < 1e-6
    image[32:] = 1
    edge = planes(image)
    assert edge["c0 gradient 2px"][32, 32] > 10 * edge["c0 gradient 2px"][5, 5]


def test_texture_tells_fine_stripes_from_a_flat_area():
    image = np.full((128, 128), 0.5, np.float32)
    image[:, 64:] += 0.4 * np.sign(np.sin(np.arange(64) * np.pi / 2 + 0.3))
    texture = planes(image)["c0 texture 8px"]
    assert texture[64, 100] > 20 * texture[64, 20]


def test_channels_are_described_one_by_one(noise):
    pair = np.stack([noise, noise[::-1]])
    both = compute(pair, Window(0, 300, 0, 411))
    n = ClassicalFeatures(1).n_features
    assert ClassicalFeatures(2).n_features == 2 * n == len(both)
    assert np.array_equal(both[n:], compute(pair[1:], Window(0, 300, 0, 411)))
    assert ClassicalFeatures(2).names[n] == "c1 value 0.5px"


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (5, 7), (3, 300)])
def test_tiny_and_thin_images_have_finite_features(shape):
    image = np.random.default_rng(0).random((1, *shape)).astype(np.float32)
    out = compute(image, Window(0, shape[0], 0, shape[1]))
    assert out.shape == (28, *shape)
    assert np.isfinite(out).all()


def test_a_constant_image_has_only_its_value():
    out = planes(np.full((40, 50), 0.25, np.float32))
    for name, plane in out.items():
        expected = 0.25 if "value" in name else 0.0
        np.testing.assert_allclose(plane, expected, atol=1e-6, err_msg=name)
