"""Maps made of tiles equal maps made whole, whatever is kept."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from segmenter.samples import CountingBackbone, sample

from napari_alibi_seg import Segmenter
from napari_alibi_seg._base import FeatureSettings, Window
from napari_alibi_seg._segmenter import CellMap, TokenMap
from napari_alibi_seg.data import BlockCache, iter_bands
from napari_alibi_seg.learn import fit_projection

SHAPE = (150, 190)


@cache
def embedded(density=1):
    features = FeatureSettings(
        kind="both", scale=1.0, density=density, tile_px=42, halo_tokens=0
    )
    segmenter = Segmenter(CountingBackbone(), features=features)
    return segmenter.embed(sample(SHAPE)[0])


@cache
def whole(density, n_components):
    """Return the tokens in one piece, and their projection."""
    bands = [band for _, band in iter_bands(embedded(density).store)]
    tokens = np.concatenate(bands).astype(np.float32)
    if n_components is None:
        return tokens, None
    projection = fit_projection(tokens.reshape(-1, tokens.shape[2]), n_components)
    return projection.apply(tokens), projection


def windows(shape):
    """Return a strategy of windows inside a shape."""
    spans = [
        st.tuples(st.integers(0, n - 1), st.integers(1, n)).map(
            lambda p, n=n: (p[0], min(n, p[0] + p[1]))
        )
        for n in shape
    ]
    return st.tuples(*spans).map(lambda s: Window(*s[0], *s[1]))


@given(data=st.data())
@settings(deadline=None, max_examples=40)
@pytest.mark.parametrize("density", [1, 2])
@pytest.mark.parametrize("n_components", [None, 3])
def test_a_window_of_tokens_is_that_of_the_whole(density, n_components, data):
    expected, projection = whole(density, n_components)
    store = embedded(density).store
    kept = data.draw(st.sampled_from([0, 600, 1 << 20]))
    found = TokenMap(store, projection, max_bytes=kept)
    assert found.shape == expected.shape
    for _ in range(3):
        w = data.draw(windows(expected.shape[:2]))
        every = data.draw(st.integers(1, 5))
        part = found.window(w, every)
        assert part.tobytes() == expected[w.slices][::every, ::every].tobytes()
        # the tile made last stays whatever its size
        assert found.n_bytes <= max(kept, expected[:6, :6].nbytes)


@given(data=st.data())
@settings(deadline=None, max_examples=40)
def test_a_window_of_filters_is_that_of_the_whole(data):
    embedding = filtered()
    grid = embedding.grid
    everything = Window(0, grid.shape[0], 0, grid.shape[1])
    whole_map = embedding.classical_cells.window(everything)
    w = data.draw(windows(grid.shape))
    every = data.draw(st.integers(1, 9))
    part = embedding.classical_cells.window(w, every)
    assert part.tobytes() == whole_map[:, *w.slices][:, ::every, ::every].tobytes()


@cache
def filtered():
    return Segmenter().embed(sample((600, 530))[0])


def test_filters_are_those_of_the_pixel_at_each_centre():
    embedding = filtered()
    grid, shape = embedding.grid, embedding.shape
    found = CellMap(embedding.image, embedding.classical, grid, max_bytes=0)
    cells = Window(60, 70, 60, 67)  # across four output tiles
    block = embedding.classical.compute(
        embedding.image.read, shape, Window(470, 580, 470, 530)
    )
    rows, cols = (
        [min(math.floor(grid.pixel_of_token(i, i)[axis] + 0.5), n - 1) for i in span]
        for axis, span, n in ((0, range(60, 70), 600), (1, range(60, 67), 530))
    )
    expected = block[:, np.array(rows) - 470][:, :, np.array(cols) - 470]
    assert found.window(cells).tobytes() == expected.tobytes()
    assert len(found.missing()) == 3  # only the tile made last is kept


def test_threads_share_the_tiles_they_make():
    made = []

    def make(key):
        made.append(key)
        return np.full(1000, key)

    cache = BlockCache(1 << 20)
    keys = [k % 7 for k in range(400)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda k: cache.get(k, lambda: make(k)), keys))
    assert sorted(made) == list(range(7))
    assert [int(block[0]) for block in found] == keys


def test_a_block_that_failed_is_tried_again():
    cache = BlockCache(100)
    with pytest.raises(OSError, match="once"):
        cache.get(1, lambda: (_ for _ in ()).throw(OSError("once")))
    assert 1 not in cache
    assert cache.get(1, lambda: np.arange(3)).tolist() == [0, 1, 2]


def test_filling_stops_where_there_is_no_room():
    store = embedded().store
    found = TokenMap(store, None, max_bytes=400)
    rows, cols, _ = found.shape
    steps = [*found.iter_fill(Window(0, rows, 0, cols))]
    assert 0 < len(steps) < len(store.grid.tiles)
