"""The live run: order of events, equality with the headless result, stopping."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest
from segmenter.samples import IDS, CountingBackbone, sample

from napari_alibi_seg._base import (
    AnnotationError,
    ClassifierSettings,
    FeatureSettings,
    SettingsError,
    Window,
)
from napari_alibi_seg._segmenter import (
    Beat,
    Finished,
    PixelFeatures,
    Preview,
    Segmenter,
    Tile,
    Trained,
    View,
    Visible,
    iter_live,
    iter_warm_up,
)
from napari_alibi_seg._segmenter import _live_run as module
from napari_alibi_seg._segmenter._embedding import lattice
from napari_alibi_seg.data import Annotations

KINDS = ["vit", "classical", "both"]


def made(kind="classical", **settings):
    backbone = None if kind == "classical" else CountingBackbone()
    return Segmenter(
        backbone,
        features=FeatureSettings(
            kind=kind, tile_px=56, scale=1.0, components=None if not backbone else 3
        ),
        classifier=ClassifierSettings(**{"n_trees": 30, **settings}),
    )


def shown(events):
    return [e for e in events if not isinstance(e, Beat)]


def only(events, kind):
    return [e for e in events if isinstance(e, kind)]


@pytest.fixture(scope="module")
def wide():
    """Several output tiles, and scribbles with the ids 1, 3 and 7."""
    image, mask, scribbles = sample((560, 1100), 2)
    painted = scribbles.copy()
    painted[(scribbles == 3) & (np.arange(1100) > 700)] = 7
    assert set(np.unique(painted)) == {0, 1, 3, 7}
    return image, mask, painted


VIEW = View(Window(40, 540, 500, 1097), step=2)


@pytest.mark.parametrize("resolution", ["patch", "pixel"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_end_is_the_headless_result_byte_for_byte(kind, resolution, wide):
    image, _, painted = wide
    other = made(kind, resolution=resolution)
    want = other.fit(image, painted).predict(image)
    segmenter = made(kind, resolution=resolution)
    events = [*iter_live(segmenter, segmenter.embed(image), painted, view=VIEW)]

    labels = np.zeros_like(want.labels)
    proba = np.zeros_like(want.probabilities)
    for tile in only(events, Tile):
        at = tile.result.window.slices
        labels[at] = tile.result.labels_yx
        proba[(slice(None), *at)] = tile.result.proba_kyx
    assert labels.tobytes() == want.labels.tobytes()
    assert proba.tobytes() == want.probabilities.tobytes()
    assert events[-1] == Finished(want.fractions())
    again = segmenter.predict(image)
    assert again.probabilities.tobytes() == want.probabilities.tobytes()
    assert segmenter.classes == other.classes

    seen = np.zeros(VIEW.samples, labels.dtype)
    doubt = np.full(VIEW.samples, -1, np.float32)
    for part in only(events, Visible):
        y, x = ((part.window.y0 - 40) // 2, (part.window.x0 - 500) // 2)
        h, w = part.labels_yx.shape
        assert View(part.window, part.step).samples == (h, w)
        assert (doubt[y : y + h, x : x + w] == -1).all()
        seen[y : y + h, x : x + w] = part.labels_yx
        doubt[y : y + h, x : x + w] = part.uncertainty_yx
    rows, cols = lattice(VIEW.window, VIEW.step)
    assert seen.tobytes() == want.labels[rows][:, cols].tobytes()
    assert doubt.tobytes() == want.uncertainty[rows][:, cols].tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_coarse_comes_before_fine_and_seen_before_unseen(kind, wide):
    image, _, painted = wide
    segmenter = made(kind)
    events = [*iter_live(segmenter, segmenter.embed(image), painted, view=VIEW)]
    names = [type(e).__name__ for e in shown(events)]
    visible = names.count("Visible")
    middle = ["Visible"] * visible + ["Tile"] * 6
    assert names == ["Preview", "Trained", *middle, "Finished"]
    windows = [t.result.window for t in only(events, Tile)]
    # the view's middle lies in the second tile; its right part in the third
    assert windows[0] == Window(0, 512, 512, 1024)
    in_view = [w.x1 > 500 for w in windows]
    assert in_view == sorted(in_view, reverse=True)
    trained = only(events, Trained)[0]
    assert trained.class_ids == (1, 3, 7)
    assert trained.seconds > 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_preview_agrees_with_the_result_of_the_same_resolution(kind):
    image, _, scribbles = sample((560, 1100), 2)
    segmenter = made(kind, resolution="patch", n_trees=100)
    events = [*iter_live(segmenter, segmenter.embed(image), scribbles, view=VIEW)]
    (preview,) = only(events, Preview)
    assert (preview.window, preview.class_ids) == (VIEW.window, IDS)
    rows, cols = lattice(preview.window, preview.step)
    want = segmenter.predict(image).labels[rows][:, cols]
    assert preview.labels_yx.shape == preview.uncertainty_yx.shape == want.shape
    assert (preview.labels_yx == want).mean() > 0.88


def test_closing_at_any_event_leaves_no_thread_and_an_unchanged_segmenter(wide):
    image, _, painted = wide
    segmenter = made("both")
    embedding = segmenter.embed(image)
    for _ in iter_warm_up(segmenter, embedding):
        pass
    threads = threading.active_count()
    for stop in (1, 2, 3, 4, 5, 7, 10, 30):
        run = iter_live(segmenter, embedding, painted, view=VIEW)
        before = segmenter.classifier
        events = [*itertools.islice(run, stop)]
        run.close()
        assert threading.active_count() <= threads
        assert (segmenter.classifier is before) == (not only(events, Trained))
    assert len(only(events, Tile)) == 6
    *_, end = iter_live(segmenter, embedding, painted, view=VIEW)
    want = made("both").fit(image, painted).predict(image)
    assert end.fractions == want.fractions()


def test_a_stopped_run_leaves_the_old_classifier_and_its_projection(wide):
    image, _, painted = wide
    segmenter = made("vit")
    first = segmenter.embed(image)
    segmenter.fit(first, painted)
    want = segmenter.predict(first).probabilities
    second = segmenter.embed(np.ascontiguousarray(image[::-1]))
    both = [first, second]
    run = iter_live(segmenter, both, [painted, painted[::-1]], view=VIEW)
    while not isinstance(next(run), Preview):
        pass
    run.close()
    assert segmenter.predict(first).probabilities.tobytes() == want.tobytes()


def test_only_the_new_stroke_is_sampled_after_a_stroke(wide, monkeypatch):
    image, _, painted = wide
    segmenter = made()
    embedding = segmenter.embed(image)
    for _ in iter_live(segmenter, embedding, painted, view=VIEW):
        pass
    read = []
    monkeypatch.setattr(
        PixelFeatures,
        "at_pixels",
        lambda self, rows, cols, window, _was=PixelFeatures.at_pixels: (
            read.append(window) or _was(self, rows, cols, window)
        ),
    )
    more = painted.copy()
    more[520:523, 600:640] = 3
    run = iter_live(segmenter, embedding, more, view=VIEW)
    beats = []
    for event in run:
        if isinstance(event, Preview):
            break
        beats.append(event)
    run.close()
    assert read == [Window(520, 523, 600, 640)]
    assert beats == [Beat("samples", 1, 1)]


def test_several_images_train_together_and_the_one_shown_is_segmented(wide):
    image, _, painted = wide
    flipped = np.ascontiguousarray(image[::-1])
    third = np.ascontiguousarray(image[:, ::-1])
    labels = [painted, np.ascontiguousarray(painted[::-1])]
    segmenter = made("both")
    images = [segmenter.embed(i) for i in (image, flipped, third)]
    *_, end = iter_live(segmenter, images[:2], labels, view=VIEW, shown=images[2])
    other = made("both")
    other.fit([image, flipped], labels)
    assert end == Finished(other.predict(third).fractions())


def test_a_view_beside_the_image_shows_nothing_and_trains_all_the_same(wide):
    image, _, painted = wide
    segmenter = made()
    view = View(Window(600, 700, 0, 100))
    events = [*iter_live(segmenter, segmenter.embed(image), painted, view=view)]
    names = {type(e).__name__ for e in shown(events)}
    assert names == {"Trained", "Tile", "Finished"}


@pytest.mark.parametrize(
    ("window", "step", "want"),
    [
        (Window(-50, 5000, -7, 30), 1, View(Window(0, 4000, 0, 30), 1)),
        (Window(0, 900, 0, 1200), 1, View(Window(0, 900, 0, 1200), 1)),
        (Window(0, 900, 0, 1201), 1, View(Window(0, 900, 0, 1201), 2)),
        (Window(0, 4000, 0, 6000), 3, View(Window(0, 4000, 0, 6000), 5)),
        (Window(4000, 4001, 0, 9), 1, None),
    ],
    ids=["cut", "fits", "one-more", "far-out", "outside"],
)
def test_a_view_is_cut_to_the_image_and_to_the_screen(window, step, want):
    assert View(window, step).within((4000, 6000)) == want


def test_a_view_must_hold_a_pixel():
    with pytest.raises(SettingsError, match="`step` of 1 or more"):
        View(Window(0, 5, 3, 3))


@pytest.mark.parametrize("weight", ["balanced", None, {1: 4.0, 3: 1.0}])
def test_thinning_keeps_the_balance_that_was_asked_for(weight):
    ids = np.repeat([1, 3], [5000, 300])
    kept, stands_for = module._thinned(ids, 600)
    assert np.bincount(ids[kept])[[1, 3]].tolist() == [556, 300]
    assert np.bincount(ids[kept], stands_for)[1] / 5000 == pytest.approx(
        np.bincount(ids[kept], stands_for)[3] / 300
    )
    assert stands_for.mean() == pytest.approx(1)
    image, _, scribbles = sample()
    segmenter = made(class_weight=weight)
    view = View(Window(0, 96, 0, 128))
    events = [*iter_live(segmenter, segmenter.embed(image), scribbles, view=view)]
    (preview,) = only(events, Preview)
    want = segmenter.predict(image).labels
    rows, cols = lattice(preview.window, preview.step)
    assert (preview.labels_yx == want[rows][:, cols]).mean() > 0.7


@pytest.mark.parametrize(
    "weights",
    [{"class_weight": {1: 4.0, 3: 1.0}}, {"class_factor": {3: 4.0}}],
    ids=["dict", "factor"],
)
def test_warming_up_does_not_mind_weights(weights):
    segmenter = made(**weights)
    embedding = segmenter.embed(sample()[0])
    events = list(iter_warm_up(segmenter, embedding))
    assert Beat("preview", 0, 1) in events


@pytest.mark.parametrize(
    ("painted", "error", "message"),
    [
        (np.eye(96, 128, dtype=np.uint8), AnnotationError, "two classes"),
        (np.zeros((96, 128), np.uint8), AnnotationError, "no painted pixel"),
        (np.ones((96, 127), np.uint8), AnnotationError, "shape of the image"),
        (Annotations(*[np.zeros(0, np.int64)] * 3), AnnotationError, "got nothing"),
    ],
    ids=["one-class", "nothing", "shape", "no-pixels"],
)
def test_what_cannot_be_trained_on_is_refused_before_anything_changes(
    painted, error, message
):
    image, _, _ = sample()
    segmenter = made()
    run = iter_live(
        segmenter, segmenter.embed(image), painted, view=View(Window(0, 96, 0, 128))
    )
    with pytest.raises(error, match=message):
        list(run)
    assert segmenter.classifier is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", [1, 3, 8])
def test_features_on_a_lattice_are_those_of_its_pixels(kind, step):
    image, _, _ = sample()
    segmenter = made(kind)
    embedding = segmenter.embed(image)
    features = PixelFeatures(embedding, None)
    whole = np.concatenate(
        [b.copy() for _, b in features.strips(Window(0, 96, 0, 128))], axis=1
    )
    window = Window(7, 90, 5, 126)
    rows, cols = lattice(window, step)
    got = features.at_lattice(window, step)
    assert got.tobytes() == whole[:, rows][:, :, cols].tobytes()


def test_warming_up_in_view_leaves_the_rest_and_changes_no_result(wide):
    image, _, painted = wide
    segmenter = made("both")
    embedding = segmenter.embed(image)
    view = View(Window(0, 500, 0, 500))
    beats = [*iter_warm_up(segmenter, embedding, view=view)]
    assert [b for b in beats if b.total == 1] == [
        Beat("preview", 0, 1),
        Beat("preview", 1, 1),
    ]
    # tiles of tokens, and of filters, that are not in view
    n_tokens = len(embedding.grid.tiles) - sum(b.total > 1 for b in beats)
    assert 0 < n_tokens < len(embedding.grid.tiles)
    assert len([*iter_warm_up(segmenter, embedding)]) == 1 + n_tokens + 5
    assert len([*iter_warm_up(segmenter, embedding)]) == 1
    projection = segmenter.projection
    *_, end = iter_live(segmenter, embedding, painted, view=VIEW)
    assert segmenter.projection is projection
    want = made("both").fit(image, painted).predict(image)
    assert end == Finished(want.fractions())


def test_missing_tokens_are_computed_with_a_sign_of_life(wide):
    image, _, painted = wide
    segmenter = made("vit")
    embedding = segmenter.prepare(image)
    n = len(embedding.store.missing())
    run = iter_live(segmenter, embedding, painted, view=VIEW)
    assert [next(run) for _ in range(n)] == [
        Beat("features", i + 1, n) for i in range(n)
    ]
    run.close()
