"""The jobs of a dock without a window: the same results, files and rules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from segmenter.samples import sample

from napari_alibi_seg import Segmenter
from napari_alibi_seg._base import (
    AnnotationError,
    ClassifierSettings,
    PixelSize,
    Window,
)
from napari_alibi_seg._segmenter import (
    BatchOptions,
    FileResult,
    Finished,
    Tile,
    Trained,
    View,
    iter_apply,
)
from napari_alibi_seg._workspace import (
    ExcludedArea,
    Note,
    OpenImage,
    Session,
    find_project,
)
from napari_alibi_seg._workspace._events import Applied
from napari_alibi_seg.data import open_image, read_labels, write_image


@pytest.fixture(autouse=True)
def own_projects(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIBI_SEG_PROJECTS", str(tmp_path / "projects"))


@pytest.fixture
def session():
    made = Session()
    made.settings = made.settings.replace(n_trees=12)
    yield made
    made.close()


def opened(session, path, scribbles=None, key="a", **more):
    """Open an image with a project, and paint it."""
    image = OpenImage(key=key, source=open_image(path), name=path.name, **more)
    (found,) = session.iter_open(image)
    assert found.found is None
    session.images[key] = image
    if scribbles is not None:
        (project,) = session.iter_project(image, None)
        project.update_scribbles(image.plane, scribbles)
        session.classes.ensure(image.painted)
    return image


@pytest.fixture
def picture(tmp_path):
    pixels, _, scribbles = sample()
    write_image(tmp_path / "s.png", pixels, axes="YX")
    return tmp_path / "s.png", scribbles.copy()


def view_of(image) -> View:
    return View(Window(0, image.shape[0], 0, image.shape[1]))


def assembled(events, image):
    out = np.zeros(image.shape, np.uint8)
    for event in events:
        if isinstance(event, Tile):
            out[event.result.window.slices] = event.result.labels_yx
    return out


def headless(session, path, scribbles):
    made = Segmenter(classifier=session.segmenter.settings)
    return made.fit(path, scribbles).predict(path).labels


def test_live_equals_headless_and_applying_equals_live(session, picture) -> None:
    path, scribbles = picture
    image = opened(session, path, scribbles)
    events = list(session.iter_live(image, view_of(image)))
    expected = headless(session, path, scribbles)
    assert np.array_equal(assembled(events, image), expected)
    assert isinstance(events[-1], Finished)
    shares = {i: (expected == i).mean() for i in (1, 3)}
    assert events[-1].fractions == pytest.approx(shares)
    again = list(session.iter_show(image, view_of(image)))
    assert again[0] == Applied((1, 3))
    assert not any(isinstance(e, Trained) for e in again)
    assert np.array_equal(assembled(again, image), expected)
    assert again[-1].fractions == pytest.approx(shares)


def test_which_image_is_on_the_screen_changes_no_byte(
    session, picture, tmp_path
) -> None:
    path, scribbles = picture
    pixels, _, _ = sample()
    write_image(tmp_path / "a.png", pixels[::-1].copy(), axes="YX")
    last = opened(session, path, scribbles, key="s")
    first = opened(session, tmp_path / "a.png", scribbles[::-1].copy(), key="a")
    shown = [
        assembled(session.iter_live(image, view_of(image)), image)
        for image in (last, first)
    ]
    made = Segmenter(classifier=session.segmenter.settings)
    made.fit([tmp_path / "a.png", path], [scribbles[::-1], scribbles])
    for image, labels in zip((last, first), shown, strict=True):
        assert np.array_equal(labels, made.predict(image.source).labels)


def test_what_is_left_out_is_neither_learnt_nor_labelled_nor_counted(
    session, picture, tmp_path
) -> None:
    path, scribbles = picture
    scribbles[80:, 10:60] = 7  # a class that is painted nowhere else
    image = opened(session, path, scribbles)
    corners = ((80, 0), (80, 128), (96, 128), (96, 0))
    image.excluded = (ExcludedArea(kind="box", corners=corners),)
    events = list(session.iter_live(image, view_of(image)))
    labels = assembled(events, image)
    assert not labels[80:].any()
    assert set(np.unique(labels[:80])) == {1, 3}
    kept = scribbles.copy()
    kept[80:] = 0
    assert np.array_equal(labels[:80], headless(session, path, kept)[:80])
    shares = {i: (labels[:80] == i).mean() for i in (1, 3)}
    assert events[-1].fractions == pytest.approx(shares)
    for kind in ("labels", "probabilities"):
        for _ in session.iter_export(image, kind, tmp_path / f"{kind}.tif"):
            pass
    assert np.array_equal(read_labels(tmp_path / "labels.tif"), labels)


def files_of(path: Path) -> dict[str, bytes]:
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    return {str(f.relative_to(path)): f.read_bytes() for f in files if f.is_file()}


@pytest.mark.parametrize(
    ("form", "suffix"), [("tiff", "tif"), ("ome-zarr", "ome.zarr")]
)
def test_saved_results_equal_those_of_the_command_line(
    session, tmp_path, form, suffix
) -> None:
    pixels, _, scribbles = sample((600, 530))  # four output tiles, two levels
    size = PixelSize(0.05, 0.05, "um")
    write_image(tmp_path / "s.tif", pixels, axes="YX", pixel_size=size)
    image = opened(session, tmp_path / "s.tif", scribbles.copy())
    list(session.iter_live(image, view_of(image)))
    session.classes.rename(3, "γ′")
    list(session.iter_save_classifier(tmp_path / "c.alibiseg"))
    names = [f"s_{kind}.{suffix}" for kind in ("labels", "probabilities")]
    for name in names:
        kind = name.split("_")[1].split(".")[0]
        list(session.iter_export(image, kind, tmp_path / name))
    segmenter, out = Segmenter.load(tmp_path / "c.alibiseg"), tmp_path / "out"
    options = BatchOptions(probabilities=True, format=form)
    (done,) = iter_results(segmenter, tmp_path / "s.tif", out, options)
    assert done.status == "done"
    for name in names:
        assert files_of(tmp_path / name) == files_of(out / name), name


def iter_results(segmenter, path, out, options):
    steps = iter_apply(segmenter, [path], out, options)
    return [step for step in steps if isinstance(step, FileResult)]


def left_out_class(session, picture):
    """An image whose class 7 is painted only in an area that is left out."""
    path, scribbles = picture
    scribbles[80:, 10:60] = 7
    image = opened(session, path, scribbles)
    corners = ((80, 0), (80, 128), (96, 128), (96, 0))
    image.excluded = (ExcludedArea(kind="box", corners=corners),)
    session.classes.rename(7, "text")
    return image


def test_the_weight_of_a_class_that_is_left_out_is_no_error(session, picture) -> None:
    image = left_out_class(session, picture)
    session.classes.set_weight(7, 2)
    session.classes.set_weight(3, 3)
    events = list(session.iter_live(image, view_of(image)))
    (note,) = [e for e in events if isinstance(e, Note)]
    assert note.text.startswith("Trained without text:")
    (trained,) = [e for e in events if isinstance(e, Trained)]
    assert trained.class_ids == (1, 3)
    assert session.segmenter.settings.class_factor == {3: 3.0}
    *_, score = session.iter_score()
    assert set(score.classes) == {1, 3}


def test_one_weight_changes_no_other_class(session, picture) -> None:
    path, scribbles = picture
    scribbles[scribbles == 3] = np.where(np.arange((scribbles == 3).sum()) % 3, 3, 5)
    image = opened(session, path, scribbles)

    def weights():
        list(session.iter_live(image, view_of(image)))
        told = session.segmenter.classifier.summary["class_weight"]
        return {int(i): w for i, w in told.items()}

    balanced = weights()
    session.classes.set_weight(5, 2)
    heavier = weights()
    assert heavier == pytest.approx({**balanced, 5: 2 * balanced[5]})
    session.classes.set_weight(5, 1)
    assert weights() == balanced


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, None),
        ({"class_factor": {3: 2.5}}, {3: 2.5}),
        # plain weights, as the command line takes them: the same balance
        ({"class_weight": {1: 2.0, 3: 0.5}}, "balance"),
    ],
    ids=["balanced", "factor", "plain"],
)
def test_weights_of_a_file_fill_the_table(
    session, picture, tmp_path, settings, expected
) -> None:
    path, scribbles = picture
    made = Segmenter(classifier=ClassifierSettings(n_trees=5, **settings))
    made.fit(path, scribbles).save(tmp_path / "c.alibiseg")
    (loaded,) = session.iter_load_classifier(tmp_path / "c.alibiseg")
    if expected != "balance":
        assert loaded.weights == expected
        return
    image = opened(session, path, scribbles)
    session.classes.adopt(loaded.classes, loaded.weights)
    list(session.iter_live(image, view_of(image)))
    told = session.segmenter.classifier.summary["class_weight"]
    assert told["1"] / told["3"] == pytest.approx(2.0 / 0.5, rel=1e-4)


def test_nothing_painted_says_what_to_do(session, picture) -> None:
    image = opened(session, picture[0])
    with pytest.raises(AnnotationError, match="paint a stroke"):
        list(session.iter_live(image, view_of(image)))


def test_a_deleted_class_leaves_the_project(session, picture) -> None:
    path, scribbles = picture
    image = opened(session, path, scribbles)
    session.remap(image, None, {1: 0})
    assert set(image.painted) == {3}
    session.remap(image, None, {3: 5})
    kept = image.project.load_scribbles(None)
    assert np.array_equal(kept == 5, scribbles == 3)


def test_saving_reaches_all_projects(session, tmp_path) -> None:
    pixels, _, scribbles = sample()
    images = []
    for i in range(2):
        path = tmp_path / f"{i}.png"
        write_image(path, pixels + np.uint8(i), axes="YX")
        images.append(opened(session, path, scribbles, key=i))
    session.classes.rename(1, "renamed")
    list(session.iter_save())
    for image in images:
        names = [e.name for e in image.project.load_state().classes]
        assert names[0] == "renamed"
        found = find_project(image.identity)
        assert found.folder == image.project.folder


def test_a_project_of_an_image_that_went_meanwhile_is_kept_and_given_free(
    session, picture
) -> None:
    path, scribbles = picture
    image = opened(session, path)
    image.pending = scribbles
    job = session.iter_project(image, None)
    session.drop(image.key)
    assert list(job) == []
    found = find_project(image.identity)
    fresh = OpenImage(key="b", source=open_image(path), name=path.name)
    list(session.iter_open(fresh))
    (project,) = session.iter_project(fresh, found)
    assert np.array_equal(project.load_scribbles(None), scribbles)
    assert not project.is_shared
    session.images["b"] = fresh
