"""Resampling agrees with slow references and does not depend on windows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from napari_alibi_seg.data._resample import (
    linear_weights,
    reflect_index,
    resize,
    sample_grid,
)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_sampling_is_bilinear_interpolation(seed):
    rng = np.random.default_rng(seed)
    r, c, f = rng.integers(1, 9, 3)
    grid = rng.normal(size=(r, c, f)).astype(np.float32)
    rows, cols = np.sort(rng.uniform(-1, r, 7)), rng.uniform(-1, c, 5)
    out = sample_grid(grid, rows, cols)
    at = np.meshgrid(np.clip(rows, 0, r - 1), np.clip(cols, 0, c - 1), indexing="ij")
    for k in range(f):
        expected = map_coordinates(
            grid[..., k].astype(float), at, order=1, mode="nearest"
        )
        np.testing.assert_allclose(out[k], expected, atol=1e-5)


def test_a_window_of_samples_equals_the_whole_to_the_bit():
    rng = np.random.default_rng(1)
    grid = rng.normal(size=(20, 30, 4)).astype(np.float16)
    rows, cols = np.linspace(0, 19, 300), np.linspace(0, 29, 500)
    whole = sample_grid(grid, rows, cols)
    part = sample_grid(grid, rows[37:90], cols[201:444])
    assert np.array_equal(part, whole[:, 37:90, 201:444])


@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0, 3.3])
def test_resizing_keeps_constants_and_lines(ratio):
    n_in, n_out = 60, round(60 / ratio)
    at = (np.arange(n_out) + 0.5) * n_in / n_out - 0.5
    w = linear_weights(at, n_in, support=ratio)
    assert np.allclose(w.matrix.sum(axis=1), 1, atol=1e-6)
    line = np.arange(w.start, w.stop, dtype=np.float32)
    inner = slice(4, -4)
    np.testing.assert_allclose((w.matrix @ line)[inner], at[inner], atol=0.02)


def test_weights_of_a_part_are_those_of_the_whole():
    at = (np.arange(33) + 0.5) * 100 / 33 - 0.5
    whole, part = (
        linear_weights(at, 100, support=3),
        linear_weights(at[10:20], 100, support=3),
    )
    expected = whole.matrix[10:20, part.start - whole.start : part.stop - whole.start]
    assert np.array_equal(part.matrix, expected)


@pytest.mark.parametrize("ratio", [0.4, 1.0, 2.0, 3.3])
def test_resizing_is_the_product_with_both_weights(ratio):
    block = np.random.default_rng(0).random((2, 60, 80), np.float32)
    y, x = (
        linear_weights((np.arange(round(n / ratio)) + 0.5) * ratio - 0.5, n)
        for n in block.shape[1:]
    )
    block = block[:, y.start : y.stop, x.start : x.stop]
    expected = y.matrix.astype(float) @ block @ x.matrix.astype(float).T
    np.testing.assert_allclose(resize(block, y, x), expected, atol=1e-6)


def test_a_part_of_a_resized_image_equals_the_whole_to_the_bit():
    block = np.random.default_rng(0).random((1, 200, 300), np.float32)

    def resized(rows, cols):
        at = [(np.arange(*span) + 0.5) * 2.07 - 0.5 for span in (rows, cols)]
        y, x = (
            linear_weights(a, n, support=2.07)
            for a, n in zip(at, block.shape[1:], strict=True)
        )
        return resize(block[:, y.start : y.stop, x.start : x.stop], y, x)

    whole = resized((0, 96), (0, 144))
    assert np.array_equal(resized((7, 50), (30, 131)), whole[:, 7:50, 30:131])


def test_mirroring_repeats_for_tiny_images():
    assert reflect_index(-3, 6, 2).tolist() == [1, 0, 1, 0, 1, 0, 1, 0, 1]
    x = np.arange(5)
    np.testing.assert_array_equal(
        x[reflect_index(-4, 9, 5)], np.pad(x, (4, 4), mode="reflect")
    )
