"""The parts of benchmarks/probes.py that its tables rest on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_alibi_seg.analysis import RAMPS, probe_table

_BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(_BENCHMARKS))
    return __import__("probes")


def test_small_images_are_enlarged_and_large_ones_cropped(probes, tmp_path):
    path = tmp_path / "image.npy"
    image = np.arange(30 * 50, dtype=np.uint16).reshape(30, 50)
    np.save(path, image)
    crop = probes.random_crop(path, 20, np.random.default_rng(0))
    assert crop.shape == (20, 20)
    steps = np.diff(crop, axis=1)
    np.testing.assert_array_equal(steps, 1)  # cut, not resampled
    large = probes.random_crop(path, 60, np.random.default_rng(0))
    assert large.shape == (60, 60)
    assert np.median(np.diff(large, axis=1)) == pytest.approx(0.5)


def test_a_row_for_every_ramp_and_a_dash_where_nothing_was_measured(probes):
    maps = [np.random.default_rng(0).normal(size=(8, 8, 4))]
    rows = probes.ramps(probe_table(maps, n_draws=2))
    assert [row[0] for row in rows] == [*RAMPS]
    assert {len(row) for row in rows} == {len(probes._RAMP_HEAD)}
    assert rows[0][1] is None
    assert rows[0][-1] is None


def test_seconds_are_of_the_fits_that_were_made(probes):
    found = probes.fingerprint_seconds(is_quick=True)
    assert found["fits"] == 2 * 5 * 384
    assert found["scikit-learn"] > found["seconds"]
    assert [*found] == ["fits", "seconds", "scikit-learn", "times faster"]
