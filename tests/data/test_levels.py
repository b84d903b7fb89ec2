"""Coarser levels of an image that has none: right, resumable, never half."""

from __future__ import annotations

import numpy as np
import pytest

from napari_alibi_seg.data import (
    coarse_store,
    iter_coarse_levels,
    open_coarse_levels,
    open_image,
    write_image,
)

SHAPE = (2101, 1333)


def _image(dtype, channels=()):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 250, (*SHAPE, *channels))
    return values.astype(dtype)


def _halved(pixels):
    h, w = pixels.shape[:2]
    padded = np.pad(
        pixels.astype(np.float64),
        [(0, h % 2), (0, w % 2), *[(0, 0)] * (pixels.ndim - 2)],
        mode="edge",
    )
    mean = (
        padded[::2, ::2] + padded[1::2, ::2] + padded[::2, 1::2] + padded[1::2, 1::2]
    ) / 4
    return mean if pixels.dtype.kind == "f" else np.floor(mean + 0.5)


@pytest.mark.parametrize(
    ("dtype", "channels"),
    [("u1", ()), ("u2", ()), ("f4", ()), ("u1", (3,))],
    ids=["u1", "u2", "f4", "rgb"],
)
def test_levels_are_means(tmp_path, dtype, channels) -> None:
    pixels = _image(dtype, channels)
    source = open_image(pixels)
    list(iter_coarse_levels(source, tmp_path / "a.zarr"))
    levels = open_coarse_levels(source, tmp_path / "a.zarr")
    assert [level.shape for level in levels] == [(1051, 667), (526, 334)]
    expected = pixels
    for level in levels:
        expected = _halved(expected).astype(dtype)
        found = level.read(level.window)
        assert found.dtype == pixels.dtype
        assert np.array_equal(found.reshape(expected.shape), expected)


def test_stopped_and_gone_on_with(tmp_path, monkeypatch) -> None:
    source, store = open_image(_image("u1")), tmp_path / "a.zarr"
    run = iter_coarse_levels(source, store)
    done = [next(run) for _ in range(4)]
    run.close()
    assert open_coarse_levels(source, store) is None
    read = []
    original = type(source).read
    monkeypatch.setattr(
        type(source), "read", lambda self, w: (read.append(w), original(self, w))[1]
    )
    *_, last = iter_coarse_levels(source, store)
    total = done[0][1]
    assert last == (total, total)
    n_first = 3 * 2  # tiles of the first coarser level, each read once from the image
    assert len(read) == n_first - len(done)
    assert len(open_coarse_levels(source, store)) == 2


def test_a_changed_file_has_other_levels(tmp_path) -> None:
    path = tmp_path / "a.tif"
    write_image(path, _image("u1"), axes="YX")
    first = coarse_store(open_image(path), tmp_path)
    assert first == coarse_store(open_image(path), tmp_path)
    write_image(path, _image("u2"), axes="YX")
    assert coarse_store(open_image(path), tmp_path) != first
