"""Stacks: planes as they come, labels on any of them, smoothing along Z."""

from __future__ import annotations

import math

import numpy as np
import pytest
from segmenter.samples import CountingBackbone, sample

from napari_alibi_seg import Segmenter
from napari_alibi_seg._base import (
    AnnotationError,
    ClassifierSettings,
    FeatureSettings,
    SettingsError,
)
from napari_alibi_seg._segmenter import (
    PlaneFeatures,
    PlaneTile,
    _stack,
    count_planes,
    iter_predict_stack,
)
from napari_alibi_seg.data import write_image

N_PLANES = 5
SHAPE = (96, 128)


@pytest.fixture(scope="module")
def stack():
    rng = np.random.default_rng(0)
    image = sample(SHAPE)[0].astype(np.float32)
    noisy = image + rng.normal(0, 25, (N_PLANES, *SHAPE))
    return np.clip(noisy, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def fitted(stack):
    settings = ClassifierSettings(n_trees=10)
    return Segmenter(classifier=settings).fit(stack, sample(SHAPE)[2], plane=2)


def planes_of(steps):
    """Return probabilities, labels and uncertainty by plane."""
    out = {}
    for step in steps:
        if isinstance(step, PlaneTile):
            assert step.plane not in out, "these planes are one tile"
            r = step.result
            out[step.plane] = r.proba_kyx, r.labels_yx, r.uncertainty_yx
    return out


def test_without_smoothing_planes_are_as_predicted_alone(stack, fitted):
    steps = [*iter_predict_stack(fitted, stack, planes=[1, 4])]
    assert [(s.plane, s.done, s.total) for s in steps] == [(1, 0, 2), (4, 1, 2)]
    for plane, (proba, labels, uncertainty) in planes_of(steps).items():
        alone = fitted.predict(stack, plane=plane)
        assert proba.tobytes() == alone.probabilities.tobytes()
        assert labels.tobytes() == alone.labels.tobytes()
        assert uncertainty.tobytes() == alone.uncertainty.tobytes()


@pytest.mark.parametrize("sigma", [0.4, 1.0])
def test_smoothing_is_a_gaussian_mean_that_ends_with_the_stack(stack, fitted, sigma):
    alone = np.stack(
        [fitted.predict(stack, plane=z).probabilities for z in range(N_PLANES)]
    )
    found = planes_of(iter_predict_stack(fitted, stack, z_smooth=sigma))
    assert sorted(found) == list(range(N_PLANES))
    for z, (proba, labels, uncertainty) in found.items():
        distance = np.arange(N_PLANES) - z
        weights = np.exp(-0.5 * (distance / sigma) ** 2)
        weights[np.abs(distance) > 3 * sigma] = 0
        expected = np.tensordot(weights / weights.sum(), alone, 1)
        np.testing.assert_allclose(proba, expected, atol=1e-6)
        np.testing.assert_allclose(proba.sum(axis=0), 1, atol=1e-5)
        ids = np.array([1, 3])
        sure = np.abs(proba[0] - proba[1]) > 1e-5
        assert (labels == ids[proba.argmax(axis=0)])[sure].all()
        entropy = -(proba * np.log(np.maximum(proba, 1e-12))).sum(axis=0) / math.log(2)
        np.testing.assert_allclose(uncertainty, entropy, atol=1e-4)


def test_a_plane_does_not_depend_on_which_were_asked_for(stack, fitted):
    everything = planes_of(iter_predict_stack(fitted, stack, z_smooth=0.7))
    some = planes_of(iter_predict_stack(fitted, stack, planes=[0, 3], z_smooth=0.7))
    assert sorted(some) == [0, 3]
    for z, parts in some.items():
        for one, other in zip(parts, everything[z], strict=True):
            assert one.tobytes() == other.tobytes()


def test_neighbours_help_a_damaged_plane(stack, fitted):
    truth = sample(SHAPE)[1]
    damaged = stack.copy()
    damaged[2] = np.random.default_rng(1).integers(0, 255, SHAPE)

    def right(sigma):
        steps = iter_predict_stack(fitted, damaged, planes=[2], z_smooth=sigma)
        return (planes_of(steps)[2][1] == truth).mean()

    assert right(1.0) > right(0.0) + 0.2


def test_planes_that_do_not_fit_into_memory_lie_in_a_file(
    stack, fitted, monkeypatch, tmp_path
):
    expected = planes_of(iter_predict_stack(fitted, stack, z_smooth=1.0))
    monkeypatch.setattr(_stack, "_RING_BYTES", expected[0][0].nbytes + 1)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    steps = iter_predict_stack(fitted, stack, z_smooth=1.0)
    first = next(steps)
    assert any(tmp_path.rglob("*.f32"))
    found = planes_of([first, *steps])
    for z, parts in expected.items():
        for one, other in zip(parts, found[z], strict=True):
            assert one.tobytes() == other.tobytes()
    assert [*tmp_path.iterdir()] == []


def test_tokens_of_a_plane_are_deleted_when_it_is_done(stack, tmp_path):
    features = FeatureSettings(kind="vit", scale=1.0)
    segmenter = Segmenter(
        CountingBackbone(),
        features=features,
        classifier=ClassifierSettings(n_trees=5),
        store=tmp_path,
    ).fit(stack, sample(SHAPE)[2], plane=2)
    most = 0
    for step in iter_predict_stack(segmenter, stack, z_smooth=0.5):
        if isinstance(step, PlaneFeatures):
            assert step.done <= step.total
        most = max(most, len([*tmp_path.rglob("*.tokens.zarr")]))
    assert most == 2  # that of training, and that of the plane at hand
    assert len([*tmp_path.rglob("*.tokens.zarr")]) == 1


@pytest.mark.parametrize("form", ["pairs", "stack", "file"])
def test_labels_of_any_form_train_the_same_classifier(stack, form, tmp_path):
    scribbles = sample(SHAPE)[2]
    upper, lower = scribbles.copy(), scribbles.copy()
    upper[48:], lower[:48] = 0, 0
    labels = np.zeros((N_PLANES, *SHAPE), np.uint8)
    labels[1], labels[3] = upper, lower
    given = {"pairs": [(1, upper), (3, lower)], "stack": labels}.get(form)
    image = stack
    if form == "file":
        image, given = tmp_path / "image.npy", tmp_path / "labels.npy"
        np.save(image, stack)
        np.save(given, labels)
    settings = ClassifierSettings(n_trees=5)
    by_plane = Segmenter(classifier=settings)
    embeddings = [by_plane.embed(stack, plane=z) for z in (1, 3)]
    by_plane.fit(embeddings, [upper, lower])
    found = Segmenter(classifier=settings).fit(image, given)
    expected = by_plane.predict(stack, plane=0).probabilities
    assert found.predict(stack, plane=0).probabilities.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            np.zeros((N_PLANES, *SHAPE), np.uint8),
            "no painted pixel on any of its 5",
        ),
        (np.ones((N_PLANES - 1, *SHAPE), np.uint8), "as many planes as the image, 5"),
        (np.ones((N_PLANES, 9, 9), np.uint8), r"got \(9, 9\)"),
        ([(7, np.ones(SHAPE, np.uint8))], "from 0 to 4, got 7"),
    ],
    ids=["empty", "planes", "shape", "no-such-plane"],
)
def test_labels_that_do_not_fit_the_stack_are_refused(stack, labels, message):
    with pytest.raises((AnnotationError, SettingsError), match=message):
        Segmenter().fit(stack, labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"planes": [3, 1]}, "ascending"),
        ({"planes": []}, "ascending"),
        ({"planes": [5]}, "from 0 to 4"),
        ({"z_smooth": -1.0}, "z_smooth"),
        ({"z_smooth": math.nan}, "z_smooth"),
    ],
    ids=["descending", "none", "beyond", "negative", "nan"],
)
def test_wrong_requests_are_refused_at_once(stack, fitted, options, message):
    with pytest.raises(SettingsError, match=message):
        iter_predict_stack(fitted, stack, **options)


def test_an_untrained_segmenter_is_refused_at_once(stack):
    with pytest.raises(SettingsError, match="not trained"):
        iter_predict_stack(Segmenter(), stack)


def test_planes_are_counted_whatever_the_axes_are_called(tmp_path):
    assert count_planes(np.zeros((3, 40, 50))) == 3
    assert count_planes(np.zeros((40, 50, 3), np.uint8)) == 1
    assert count_planes(np.zeros((6, 40, 50, 3), np.uint8)) == 6
    write_image(tmp_path / "one.tif", np.zeros((40, 50), np.uint8), axes="YX")
    assert count_planes(tmp_path / "one.tif") == 1
