"""One range per image; every kind of number becomes a working value."""

from __future__ import annotations

import numpy as np
import pytest

from napari_alibi_seg._base import (
    AlibiSegWarning,
    ImageFileError,
    SettingsError,
    Window,
)
from napari_alibi_seg.data import (
    IntensityRange,
    _intensity,
    measure_range,
    open_image,
    resolve_channels,
)
from napari_alibi_seg.data._intensity import working_channels

RAMP = np.linspace(0, 1, 64 * 50).reshape(64, 50)

CASES = [
    pytest.param((RAMP * 255).astype(np.uint8), id="uint8"),
    pytest.param((RAMP * 65535).astype(np.uint16), id="uint16"),
    pytest.param((RAMP * 4e9).astype(np.uint32), id="uint32"),
    pytest.param((RAMP * 6e4 - 3e4).astype(np.int16), id="int16-negative"),
    pytest.param((RAMP * 1e9).astype(np.int64) + 2**40, id="int64-large-offset"),
    pytest.param(RAMP.astype(np.float16), id="float16"),
    pytest.param((RAMP * 1e-9).astype(np.float32), id="float32-tiny"),
    pytest.param(RAMP * 1e12 - 5e11, id="float64"),
]


@pytest.mark.parametrize("image", CASES)
def test_every_number_type_maps_its_percentiles_to_0_and_1(image):
    source = open_image(image)
    r = measure_range(source, "grey", (0, 100))
    values = r.apply(source.read(Window(0, 64, 0, 50)))
    assert values.dtype == np.float32
    assert values.shape == (1, 64, 50)
    np.testing.assert_allclose(values[0], RAMP, atol=5e-3)


def test_percentiles_are_robust_and_the_rest_is_clipped():
    image = np.full((100, 100), 50.0, np.float32)
    image[:, 50:] = 150
    image[0, 0], image[0, 1] = 1e6, -1e6
    source = open_image(image)
    r = measure_range(source, "grey")
    assert (r.low, r.high) == ((50.0,), (150.0,))
    assert r.apply(image[:1, :3, None]).ravel().tolist() == [1.5, -0.5, 0.0]


def test_nan_and_infinity_do_not_reach_the_features():
    image = RAMP.astype(np.float32)
    image[3, 3], image[4, 4], image[5, 5] = np.nan, np.inf, -np.inf
    r = measure_range(open_image(image), "grey")
    values = r.apply(image[..., None])[0]
    assert np.isfinite(values).all()
    assert values[3, 3] == pytest.approx(0.5, abs=0.01)  # the median
    assert (values[4, 4], values[5, 5]) == (1.5, -0.5)


def test_an_image_without_a_finite_value_is_refused():
    with pytest.raises(ImageFileError, match="no finite value"):
        measure_range(open_image(np.full((5, 5), np.nan)), "grey")


def test_a_constant_image_warns_and_gives_zeros():
    source = open_image(np.full((40, 40), 7, np.uint8))
    with pytest.warns(AlibiSegWarning, match="is constant: every value is 7"):
        r = measure_range(source, "grey")
    assert not r.apply(source.read(Window(0, 40, 0, 40))).any()


def test_sparse_particles_are_not_a_constant_image():
    image = np.zeros((100, 100), np.uint8)
    image[50, 50:52] = 200
    r = measure_range(open_image(image), "grey")
    assert (r.low, r.high) == ((0.0,), (200.0,))


def test_large_images_are_sampled_on_a_grid_that_does_not_depend_on_bands():
    image = np.add.outer(np.arange(2100), np.arange(2100)).astype(np.float32)
    r = measure_range(open_image(image), "grey")
    low, high = np.percentile(image, [0.5, 99.5])
    assert r.low[0] == pytest.approx(low, rel=0.01)
    assert r.high[0] == pytest.approx(high, rel=0.01)


def test_colours_share_one_range_and_channels_have_their_own():
    image = np.zeros((20, 20, 3), np.uint8)
    image[..., 0], image[..., 1] = np.arange(20) * 10, np.arange(20)
    rgb = open_image(image)
    assert len(measure_range(rgb, "rgb").low) == 1
    channels = open_image(np.moveaxis(image, -1, 0), axes="CYX")
    with_own = measure_range(channels, (0, 1), (0, 100))
    assert with_own.high == (190.0, 19.0)


@pytest.mark.parametrize(
    ("array", "axes", "asked", "expected"),
    [
        (np.zeros((9, 9), "u1"), None, "auto", "grey"),
        (np.eye(9, dtype="u1")[..., None] * [1, 2, 3], "YXS", "auto", "rgb"),
        (np.repeat(np.eye(9, dtype="u1")[..., None], 3, -1), "YXS", "auto", "grey"),
        (np.zeros((2, 9, 9), "u1"), "CYX", "auto", (0, 1)),
        (np.zeros((5, 9, 9), "u1"), "CYX", (4, 0), (4, 0)),
    ],
    ids=["grey", "rgb", "grey-stored-as-rgb", "two-channels", "chosen"],
)
def test_channels_are_resolved(array, axes, asked, expected):
    assert (
        resolve_channels(open_image(array.astype("u1"), axes=axes), asked) == expected
    )


@pytest.mark.parametrize(
    ("axes", "n", "asked", "message"),
    [
        ("CYX", 5, "auto", "5 channels without a colour meaning"),
        ("CYX", 5, (5,), r"has 5 channel\(s\), numbered from 0"),
        ("CYX", 3, "rgb", "needs a colour image"),
    ],
    ids=["too-many", "out-of-range", "not-colour"],
)
def test_channels_that_are_not_there_are_refused(axes, n, asked, message):
    with pytest.raises(SettingsError, match=message):
        resolve_channels(open_image(np.zeros((n, 9, 9), "u1"), axes=axes), asked)


def test_grey_stored_as_colour_equals_grey():
    grey = np.random.default_rng(0).integers(0, 255, (8, 8, 1), dtype=np.uint8)
    three = np.repeat(grey, 3, axis=2)
    assert np.array_equal(working_channels(three, "grey"), grey)


def test_range_survives_json():
    r = IntensityRange((0.1,), (0.7,), (0.3,))
    assert IntensityRange.from_dict(r.to_dict()) == r


def test_a_grey_pixel_of_a_colour_image_does_not_depend_on_its_window():
    rng = np.random.default_rng(0)
    for dtype in (np.uint8, np.uint16, np.float32, np.float64):
        block = (rng.random((40, 40, 3)) * 255).astype(dtype)
        block[:, :20] = block[:, :20, :1]
        whole = working_channels(block, "grey")
        one = IntensityRange((3.0,), (200.0,), (9.0,))
        part = one.apply(working_channels(block[:, :20], "grey"))
        assert one.apply(whole)[..., :20].tobytes() == part.tobytes()
        assert np.ptp(whole[:, 20:]) > 50


def test_blocks_of_any_size_measure_the_same_range(monkeypatch):
    rng = np.random.default_rng(1)
    image = rng.integers(0, 60000, (1300, 1700), np.uint16)
    monkeypatch.setattr(_intensity, "_MAX_SAMPLES", 50_000)
    expected = measure_range(open_image(image), "grey")
    heights = []
    source = open_image(image)
    read = type(source).read
    monkeypatch.setattr(
        type(source), "read", lambda s, w: heights.append(w.shape) or read(s, w)
    )
    monkeypatch.setattr(_intensity, "_BLOCK_BYTES", 1)
    assert measure_range(source, "grey") == expected
    assert max(heights) == (512, 512)
    stride = 7  # 1300 x 1700 over 50,000 samples, and its root
    low, fill, high = np.percentile(image[::stride, ::stride], [0.5, 50, 99.5])
    assert (expected.low, expected.high, expected.fill) == ((low,), (high,), (fill,))
