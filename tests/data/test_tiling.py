"""Token geometry: tiles partition, tokens go to pixels and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_alibi_seg._base import SettingsError, Window
from napari_alibi_seg.data import TokenGrid, centre_out, pixel_tiles

grids = st.builds(
    TokenGrid,
    st.tuples(st.integers(1, 400), st.integers(1, 400)),
    patch_px=st.sampled_from([14, 16]),
    tile_px=st.integers(80, 200),
    halo_tokens=st.integers(0, 1),
    scale=st.sampled_from([0.37, 0.5, 1.0, 1.5, 2.0]),
    density=st.sampled_from([1, 2]),
)


@given(grids)
@settings(max_examples=80, deadline=None)
def test_kept_tokens_partition_the_grid(grid):
    seen = np.zeros(grid.patches, int)
    for tile in grid.tiles:
        seen[tile.keep.slices] += 1
    assert (seen == 1).all()


@given(grids)
@settings(max_examples=80, deadline=None)
def test_each_tile_computes_what_it_keeps_and_its_halo(grid):
    t, h = grid.tile_tokens, grid.halo_tokens
    rows, cols = grid.patches
    for tile in grid.tiles:
        k = tile.keep
        assert tile.row <= k.y0 < k.y1 <= tile.row + t
        assert tile.col <= k.x0 < k.x1 <= tile.col + t
        # the halo is there on every side that is not the image's border
        assert k.y0 == 0 or k.y0 - tile.row >= h
        assert k.y1 == rows or tile.row + t - k.y1 >= h
        assert k.x0 == 0 or k.x0 - tile.col >= h
        assert k.x1 == cols or tile.col + t - k.x1 >= h


@given(grids)
@settings(max_examples=60, deadline=None)
def test_last_tile_is_shifted_inwards_never_shrunk(grid):
    side = grid.tile_tokens * grid.patch_px
    for tile in grid.tiles:
        window = grid.tile_window(tile, (0, 0))
        assert window.shape == (side, side)
        if grid.patches[0] >= grid.tile_tokens:
            assert tile.row + grid.tile_tokens <= grid.patches[0]


@pytest.mark.parametrize(("patch", "density"), [(14, 1), (14, 2), (14, 7), (16, 4)])
@pytest.mark.parametrize("scale", [1.0, 2.0, 1.7, 0.5])
def test_token_centres_come_back_to_their_token(patch, density, scale):
    grid = TokenGrid((300, 260), patch_px=patch, scale=scale, density=density)
    spacing = grid.step_px / scale
    for row in range(0, grid.shape[0], 3):
        y, _ = grid.pixel_of_token(row, 0)
        if not 0 <= round(y) < 300:
            continue
        back, _ = grid.token_of_pixel(round(y), 0)
        # one pixel of rounding moves a token only where tokens are denser than pixels
        assert abs(back - row) <= (0 if spacing >= 1.5 else 1 / spacing)


def test_positions_of_a_plain_grid_are_patch_centres():
    grid = TokenGrid((28, 42), patch_px=14)
    np.testing.assert_allclose(grid.row_positions(6, 8), [0.0, 0.5 / 14])
    np.testing.assert_allclose(grid.col_positions(20, 22), [13.5 / 14, 14.5 / 14])
    # clamped beyond the outermost centres
    assert grid.col_positions(41, 42)[0] == 2.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"density": 3}, r"`density` must divide the patch of 14 .*\[1, 2, 7, 14\]"),
        ({"tile_px": 13}, "at least one patch of 14 pixels, got 13"),
        ({"tile_px": 56, "halo_tokens": 2}, "leaves nothing between two halos of 2"),
    ],
    ids=["density", "tile", "halo"],
)
def test_impossible_geometry_is_refused(changes, message):
    with pytest.raises(SettingsError, match=message):
        TokenGrid((100, 100), patch_px=14, **changes)


@given(st.integers(1, 150), st.integers(1, 150), st.integers(1, 60))
@settings(max_examples=50, deadline=None)
def test_pixel_tiles_partition_the_image(height, width, side):
    area = 0
    for w in pixel_tiles((height, width), side):
        assert 0 <= w.y0 < w.y1 <= height
        assert 0 <= w.x0 < w.x1 <= width
        area += w.shape[0] * w.shape[1]
    assert area == height * width


def test_centre_out_starts_at_the_focus():
    windows = pixel_tiles((100, 300), 100)
    assert centre_out(windows) == [1, 0, 2]
    assert centre_out(windows, (50.0, 290.0)) == [2, 1, 0]


def test_window_cuts_rows_then_columns():
    assert np.arange(12).reshape(3, 4)[Window(1, 2, 0, 3).slices].tolist() == [
        [4, 5, 6]
    ]
