"""Where to paint next: the neighbourhood chosen, on maps small enough to see."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_alibi_seg._base import AnnotationError, SettingsError
from napari_alibi_seg._segmenter import least_certain


def blank(shape=(20, 30)):
    return np.zeros(shape, np.float32), np.zeros(shape, np.uint8)


def test_a_broad_doubt_beats_a_single_doubtful_pixel():
    uncertainty, painted = blank()
    uncertainty[3, 4] = 1.0
    uncertainty[10:15, 20:25] = 0.5
    assert least_certain(uncertainty, painted, radius=2) == (12, 22)
    assert least_certain(uncertainty, painted, radius=0) == (3, 4)


def test_neighbourhoods_with_paint_do_not_count():
    uncertainty, painted = blank()
    uncertainty[2:7, 2:7] = 0.9
    uncertainty[12:17, 20:25] = 0.4
    painted[2:7, 2:7] = 3
    assert least_certain(uncertainty, painted, radius=2) == (14, 22)


def test_at_the_edge_only_pixels_that_exist_count():
    uncertainty, painted = blank()
    uncertainty[:3, :3] = 0.8  # fills the cut box of the corner, not one inside
    uncertainty[10:15, 10:15] = 0.7
    assert least_certain(uncertainty, painted, radius=2) == (0, 0)


def test_of_equal_places_the_one_in_doubtful_surroundings_is_taken():
    uncertainty, painted = blank((9, 40))
    uncertainty[3:6, 3:6] = 0.5
    uncertainty[3:6, 20:23] = 0.5
    uncertainty[4, 23] = 0.2
    assert least_certain(uncertainty, painted, radius=1) == (4, 21)


def test_where_paint_is_everywhere_near_unpainted_pixels_are_left():
    uncertainty, painted = blank((5, 5))
    painted[:] = 1
    painted[1, 3] = painted[4, 4] = 0
    uncertainty[4, 4] = 0.3
    assert least_certain(uncertainty, painted, radius=1)[0] in (1, 4)
    assert painted[least_certain(uncertainty, painted, radius=1)] == 0


def test_a_full_map_says_that_no_place_is_left():
    uncertainty, painted = blank()
    with pytest.raises(AnnotationError, match="no place left to paint"):
        least_certain(uncertainty, painted + 1, radius=1)


@pytest.mark.parametrize(
    ("shape", "radius"), [((4, 5), 1), ((20, 30), -1)], ids=["shape", "radius"]
)
def test_what_does_not_fit_is_refused(shape, radius):
    uncertainty, _ = blank()
    with pytest.raises(SettingsError, match="one shape and `radius` 0 or more"):
        least_certain(uncertainty, np.zeros(shape), radius=radius)


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9))),
    st.integers(0, 4),
)
def test_it_is_the_best_of_all_squares(levels, radius):
    uncertainty = levels.astype(np.float32) / 255
    found = least_certain(uncertainty, np.zeros_like(levels), radius=radius)

    def mean(y, x):
        y0, x0 = max(y - radius, 0), max(x - radius, 0)
        return uncertainty[y0 : y + radius + 1, x0 : x + radius + 1].mean()

    best = max(mean(y, x) for y, x in np.ndindex(levels.shape))
    assert mean(*found) == pytest.approx(best, abs=1e-4)
