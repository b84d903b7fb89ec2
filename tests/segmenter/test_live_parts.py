"""Live runs on a part of an image: only what is painted and seen is extracted."""

from __future__ import annotations

import numpy as np
import pytest
from segmenter.samples import IDS, CountingBackbone, sample

from napari_alibi_seg._base import ClassifierSettings, FeatureSettings, Window
from napari_alibi_seg._segmenter import (
    Finished,
    Segmenter,
    Tile,
    Trained,
    View,
    Visible,
    iter_live,
    iter_visible,
)

SHAPE = (96, 640)
CORNER = View(Window(0, 60, 0, 60), step=2)


def _wide():
    """Return an image with strokes at its left end only."""
    image, mask, scribbles = sample()
    wide = np.tile(image, (1, 5))
    painted = np.zeros(SHAPE, np.uint8)
    painted[:, : scribbles.shape[1]] = scribbles
    return wide, np.tile(mask, (1, 5)), painted


def _segmenter(kind):
    backbone = None if kind == "classical" else CountingBackbone()
    features = FeatureSettings(
        kind=kind, tile_px=56, scale=1.0, components=3 if backbone else None
    )
    return Segmenter(
        backbone, features=features, classifier=ClassifierSettings(n_trees=8)
    )


@pytest.mark.parametrize("kind", ["classical", "vit", "both"])
def test_nothing_is_computed_that_is_not_needed(kind) -> None:
    image, _, painted = _wide()
    segmenter = _segmenter(kind)
    embedding = segmenter.prepare(image)
    run = iter_live(segmenter, embedding, painted, view=CORNER, is_whole=False)
    events = list(run)
    assert not any(isinstance(e, (Tile, Finished)) for e in events)
    (trained,) = [e for e in events if isinstance(e, Trained)]
    assert trained.class_ids == IDS
    if embedding.store is not None:
        grid, missing = embedding.store.grid, embedding.store.missing()
        # strokes end at column 127, and what is interpolated reaches half a token more
        kept = [t.keep.x0 * 14 for t in grid.tiles if t.index not in missing]
        assert kept
        assert max(kept) <= 140
        assert max(t.keep.x0 * 14 for t in grid.tiles) > 500


@pytest.mark.parametrize("kind", ["classical", "vit", "both"])
def test_another_view_is_what_all_of_it_would_be(kind) -> None:
    image, _, painted = _wide()
    segmenter = _segmenter(kind)
    embedding = segmenter.prepare(image)
    list(iter_live(segmenter, embedding, painted, view=CORNER, is_whole=False))
    view = View(Window(10, 90, 400, 631), step=4)
    shown = np.zeros(view.samples, np.uint8)
    proba = np.zeros((2, *view.samples), np.float32)
    for event in iter_visible(segmenter, embedding, view=view):
        if isinstance(event, Visible):
            y = (event.window.y0 - 10) // 4
            x = (event.window.x0 - 400) // 4
            h, w = event.labels_yx.shape
            shown[y : y + h, x : x + w] = event.labels_yx
            proba[:, y : y + h, x : x + w] = event.proba_kyx
    whole = segmenter.predict(embedding)
    rows = np.minimum(np.arange(10, 90, 4) + 2, 89)
    cols = np.minimum(np.arange(400, 631, 4) + 2, 630)
    assert np.array_equal(shown, whole.labels[np.ix_(rows, cols)])
    assert np.array_equal(proba, whole.probabilities[:, rows[:, None], cols])
    assert set(np.unique(shown)) == set(IDS)
