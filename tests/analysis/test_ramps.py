"""Position targets: values at corners, centre and along the axes."""

from __future__ import annotations

import numpy as np
import pytest

from napari_alibi_seg._base import SettingsError
from napari_alibi_seg.analysis import RAMPS, ramp

QUARTERS = [0, 0.25, 0.5, 0.75, 1]


@pytest.mark.parametrize(
    ("kind", "row", "column"),
    [
        ("lr", QUARTERS, [0, 0, 0]),
        ("ud", [0] * 5, [0, 0.5, 1]),
        ("diag", [0, 0.125, 0.25, 0.375, 0.5], [0, 0.25, 0.5]),
        ("raster", [i / 14 for i in range(5)], [0, 5 / 14, 10 / 14]),
    ],
    ids=["lr", "ud", "diag", "raster"],
)
def test_first_row_and_column(kind, row, column):
    y = ramp(kind, (3, 5))
    assert y.shape == (3, 5, 1)
    assert y.dtype == np.float64
    np.testing.assert_allclose(y[0, :, 0], row)
    np.testing.assert_allclose(y[:, 0, 0], column)


def test_both_axes_are_two_targets():
    y = ramp("lr+ud", (3, 5))
    assert np.array_equal(
        y, np.concatenate([ramp("lr", (3, 5)), ramp("ud", (3, 5))], 2)
    )


@pytest.mark.parametrize("shape", [(5, 5), (4, 7), (1, 1)])
def test_radial_falls_from_the_token_after_the_middle(shape):
    y = ramp("radial", shape)[..., 0]
    centre = (shape[0] // 2, shape[1] // 2)
    assert y[centre] == 1
    assert np.unravel_index(y.argmax(), shape) == centre
    if shape != (1, 1):
        assert y.min() == 0
        assert y[0, 0] == 0  # the far corner, since the middle is rounded up


def test_noise_is_a_function_of_its_seed():
    a, b, c = (ramp("random", (6, 7), seed=s) for s in (1, 1, 2))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


@pytest.mark.parametrize("kind", RAMPS)
def test_every_kind_lies_in_0_to_1(kind):
    y = ramp(kind, (4, 9))
    assert y.shape == (4, 9, 2 if kind == "lr+ud" else 1)
    assert y.min() >= 0
    assert y.max() <= 1


@pytest.mark.parametrize(
    ("kind", "shape", "match"),
    [
        ("up", (3, 3), r"`kind` must be one of .*'lr\+ud'.* got 'up'"),
        ("lr", (0, 3), r"at least one token, got \(0, 3\)"),
    ],
)
def test_refused(kind, shape, match):
    with pytest.raises(SettingsError, match=match):
        ramp(kind, shape)
