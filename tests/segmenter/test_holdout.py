"""The held-out score: whole strokes, folds, and numbers computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from segmenter.samples import CountingBackbone, sample

from napari_alibi_seg._base import (
    AnnotationError,
    ClassifierSettings,
    FeatureSettings,
    SettingsError,
)
from napari_alibi_seg._segmenter import Segmenter, iter_holdout
from napari_alibi_seg._segmenter import _holdout as module
from napari_alibi_seg.data import Annotations, read_annotations

# as of an image whose strokes all lie in parts that are left out
NOTHING = Annotations(*[np.zeros(0, np.int64)] * 3)


def last(*args, **kwargs):
    *_, score = iter_holdout(*args, **kwargs)
    return score


@pytest.mark.parametrize(
    ("classifier", "asked", "want"),
    [
        ({"n_trees": 7}, None, 7),
        ({"n_trees": 300}, None, 100),
        ({"n_trees": 7}, 12, 12),
        ({"kind": "logistic"}, None, 0),
    ],
    ids=["settings", "bounded", "asked", "logistic"],
)
def test_the_score_says_how_many_trees_made_it(classifier, asked, want):
    image, _, scribbles = sample()
    segmenter = Segmenter(classifier=ClassifierSettings(**classifier))
    score = last(segmenter, segmenter.embed(image), scribbles, n_trees=asked)
    assert score.n_trees == want
    assert score.accuracy > 0.7


@pytest.fixture
def deceptive():
    """Class 1 dark, class 7 bright, but one of the two strokes of 7 lies on dark."""
    image = np.full((96, 320), 20, np.uint8)
    image[:, 160:] = 220
    painted = np.zeros(image.shape, np.uint8)
    painted[10:14, 20:30] = 1  # 40 pixels each
    painted[40:44, 20:30] = 1
    painted[70:74, 20:30] = 1
    painted[10:14, 280:290] = 7  # 40 pixels on bright
    painted[70:74, 60:65] = 7  # 20 pixels on dark
    return image, painted


class ByBrightness:
    """Stands in for a classifier: dark is 1, bright is 7."""

    class_ids = np.array([1, 7])

    def predict_proba(self, features_fn):
        dark = features_fn[0] < 0.5
        return np.stack([dark, ~dark]).astype(np.float32)


def test_recall_precision_and_iou_of_known_answers(deceptive, monkeypatch):
    image, painted = deceptive
    trained = []

    def fit(features, ids, settings):
        trained.append(np.bincount(ids, minlength=8)[[1, 7]].tolist())
        return ByBrightness()

    monkeypatch.setattr(module, "fit_classifier", fit)
    segmenter = Segmenter()
    scores = [*iter_holdout(segmenter, segmenter.embed(image), painted)]
    # truth 1: 120, all found; truth 7: 60, of which the 20 on dark are called 1
    one, seven = scores[-1].classes[1], scores[-1].classes[7]
    assert (one.recall, one.precision, one.iou) == (1.0, 120 / 140, 120 / 140)
    assert (seven.recall, seven.precision, seven.iou) == (40 / 60, 1.0, 40 / 60)
    assert scores[-1].accuracy == 160 / 180
    assert scores[-1].miou == pytest.approx((120 / 140 + 40 / 60) / 2)
    # the fold of the larger stroke of 7 first; no fold is without a class
    assert trained == [[80, 20], [80, 40], [80, 60]]
    assert [(s.done, s.total) for s in scores] == [(1, 3), (2, 3), (3, 3)]
    assert scores[0].classes[7].recall == 1.0


def test_a_class_of_one_stroke_is_trained_on_and_not_scored():
    image, _, _ = sample()
    painted = np.zeros(image.shape, np.uint8)
    painted[5:8, 5:20] = painted[50:53, 5:20] = 1
    painted[20:23, 60:80] = painted[70:73, 60:80] = 3
    painted[40:43, 100:120] = 255
    segmenter = Segmenter()
    scores = [*iter_holdout(segmenter, segmenter.embed(image), painted, n_trees=5)]
    assert scores[-1].total == 2
    only = scores[-1].classes[255]
    assert (only.n_strokes, only.n_pixels, only.recall, only.iou) == (1, 60, None, None)
    assert only.note.startswith("Only one stroke")
    assert all(scores[-1].classes[i].note == "" for i in (1, 3))
    ious = [scores[-1].classes[i].iou for i in (1, 3)]
    assert scores[-1].miou == pytest.approx(np.mean(ious))


def test_without_two_strokes_of_any_class_there_is_one_empty_score():
    image, _, _ = sample()
    painted = np.zeros(image.shape, np.uint8)
    painted[5:8, 5:20], painted[20:23, 60:80] = 1, 3
    segmenter = Segmenter()
    (score,) = iter_holdout(segmenter, segmenter.embed(image), painted)
    assert (score.total, score.miou, score.accuracy) == (0, None, None)
    assert {c.note[:15] for c in score.classes.values()} == {"Only one stroke"}


def test_touching_corners_are_one_stroke_and_numbers_can_say_otherwise():
    image, _, _ = sample()
    painted = np.zeros(image.shape, np.uint8)
    painted[5:8, 5:10] = painted[8:11, 10:15] = 1  # meet at a corner
    painted[8:11, 5:10] = 3  # touches both, but is of another id
    painted[60:63, 60:70] = 3
    segmenter = Segmenter()
    embedding = segmenter.embed(image)
    found = last(segmenter, embedding, painted, n_trees=3)
    assert [found.classes[i].n_strokes for i in (1, 3)] == [1, 2]
    strokes = np.zeros(image.shape, np.int32)
    strokes[:, 10:] = 9
    told = last(segmenter, embedding, painted, strokes=strokes, n_trees=3)
    assert [told.classes[i].n_strokes for i in (1, 3)] == [2, 2]


def test_many_strokes_share_a_bounded_number_of_balanced_folds():
    image, _, _ = sample((160, 160))
    painted = np.zeros(image.shape, np.uint8)
    for k in range(12):
        painted[10 * k + 2 : 10 * k + 5, 10:20] = 1
        painted[10 * k + 2 : 10 * k + 5, 100 : 105 + k] = 2
    segmenter = Segmenter()
    embedding = segmenter.embed(image)
    samples = module._collect(segmenter, [embedding], [painted], [None])
    fold = module._folds(samples, 5)
    assert sorted(set(fold.tolist())) == [0, 1, 2, 3, 4]
    left_out = np.bincount(fold, samples.pixels_of * (samples.class_of == 2))
    assert left_out.max() <= 1.3 * left_out.min()
    assert last(segmenter, embedding, painted, n_trees=3, n_folds=4).total == 4


def test_long_strokes_are_thinned_evenly_and_short_ones_stay():
    ids = np.array([1] * 10_000 + [2] * 50)
    stroke = np.array([0] * 9_990 + [1] * 10 + [2] * 50)
    kept = module._thinned(ids, stroke)
    assert np.bincount(stroke[kept]).tolist() == [1998, 2, 50]
    assert set(np.diff(kept[:1998]).tolist()) == {5}


def test_strokes_of_several_images_are_apart_and_nothing_is_computed_twice():
    image, _, scribbles = sample()
    backbone = CountingBackbone()
    segmenter = Segmenter(
        backbone,
        features=FeatureSettings(kind="both", tile_px=56, scale=1.0, components=3),
        classifier=ClassifierSettings(n_trees=10),
    )
    embeddings = [segmenter.embed(image), segmenter.embed(image[::-1].copy())]
    painted = [scribbles, scribbles[::-1].copy()]
    segmenter.fit(embeddings, painted)
    before, n_images = segmenter.classifier, backbone.n_images
    one = last(segmenter, embeddings[0], painted[0])
    both = last(segmenter, embeddings, painted)
    assert backbone.n_images == n_images
    assert segmenter.classifier is before
    assert [c.n_strokes for c in both.classes.values()] == [
        2 * c.n_strokes for c in one.classes.values()
    ]
    assert both.n_trees == 10
    assert both == last(segmenter, embeddings, painted)


def test_an_image_without_strokes_changes_nothing():
    image, _, scribbles = sample()
    segmenter = Segmenter()
    first, second = (segmenter.embed(i) for i in (image, image[::-1].copy()))
    found = read_annotations(scribbles)
    both = last(segmenter, [second, first], [NOTHING, found], n_trees=5)
    assert both == last(segmenter, first, found, n_trees=5)
    assert both.miou is not None


def test_seen_strokes_do_not_leak_into_the_score():
    """On noise a forest knows its own pixels by heart, and no others."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (128, 128), dtype=np.uint8)
    painted = np.zeros(image.shape, np.uint8)
    for k in range(12):
        painted[10 * k + 2 : 10 * k + 5, 10:40] = 1 + k % 2
        painted[10 * k + 2 : 10 * k + 5, 80:110] = 1 + (k + k // 2) % 2
    segmenter = Segmenter(classifier=ClassifierSettings(n_trees=30))
    embedding = segmenter.embed(image)
    segmenter.fit(embedding, painted)
    known = segmenter.predict(embedding).labels[painted > 0] == painted[painted > 0]
    assert known.mean() > 0.9
    assert last(segmenter, embedding, painted).accuracy < 0.7


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"n_folds": 1}, SettingsError, "`n_folds` must be 2"),
        ({"n_trees": 0}, SettingsError, "`n_trees` must be 1"),
        ({"strokes": np.zeros((3, 3), int)}, SettingsError, "`strokes` must be"),
        ({"painted": np.eye(96, 128, dtype=np.uint8)}, AnnotationError, "two classes"),
        ({"painted": NOTHING}, AnnotationError, "two classes .* got nothing"),
    ],
    ids=["folds", "trees", "strokes", "one-class", "nothing"],
)
def test_what_cannot_be_scored_is_refused(change, error, message):
    image, _, scribbles = sample()
    segmenter = Segmenter()
    given = {"painted": scribbles, **change}
    embedding = segmenter.embed(image)
    with pytest.raises(error, match=message):
        last(segmenter, embedding, given.pop("painted"), **given)
