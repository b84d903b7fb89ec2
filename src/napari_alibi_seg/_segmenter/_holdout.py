"""How good the classifier is on strokes that it has not seen.

Pixels of one stroke are alike, so leaving out single pixels measures memory. Here whole
strokes are left out. Only this module knows what a stroke is (pixels of one id that
touch, corners included), how strokes are grouped into folds and how long ones are
thinned out. Features are those of `Segmenter.fit`, and remembered by the embeddings.

A score on strokes is not one on the image: people paint where they are sure.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from napari_alibi_seg._base import AnnotationError, FloatArray, SettingsError
from napari_alibi_seg._segmenter._embedding import Embedding
from napari_alibi_seg._segmenter._painted import Painted, read_painted
from napari_alibi_seg._segmenter._segmenter import Segmenter
from napari_alibi_seg.data import Annotations, ConfusionCounts, confusion
from napari_alibi_seg.learn import decide, fit_classifier

__all__ = ["ClassHoldout", "HoldoutScore", "iter_holdout"]

_Int64 = npt.NDArray[np.int64]

# Most trees: 40 score up to 0.03 mIoU lower than 100, more than 100 only cost time.
_MAX_TREES = 100
# Of each class; a fold then takes a fraction of a second.
_PIXELS_PER_CLASS = 2000
_ONE_STROKE = "Only one stroke: paint another one elsewhere to score this class."
_WAITING = "None of its strokes has been left out yet."


@dataclass(frozen=True, slots=True)
class ClassHoldout:
    """Score of one class; None where there is none.

    Attributes
    ----------
    n_strokes, n_pixels : int
        Painted in all.
    recall : float or None
        Share of its left-out pixels that were found.
    precision : float or None
        Share of the left-out pixels given to it that are its own; None also if no
        pixel was given to it.
    iou : float or None
        Intersection over union.
    note : str
        Why there is no score; empty if there is one.
    """

    n_strokes: int
    n_pixels: int
    recall: float | None
    precision: float | None
    iou: float | None
    note: str


@dataclass(frozen=True, slots=True)
class HoldoutScore:
    """Score of the folds so far.

    Attributes
    ----------
    done, total : int
        Folds.
    classes : dict of int to ClassHoldout
        By ascending id, all that are painted.
    miou, accuracy : float or None
        Over the classes that have a score; None without any.
    n_trees : int
        Trees of each fold's forest; 0 for a logistic regression.
    """

    done: int
    total: int
    classes: dict[int, ClassHoldout]
    miou: float | None
    accuracy: float | None
    n_trees: int


def iter_holdout(
    segmenter: Segmenter,
    embeddings: Embedding | Sequence[Embedding],
    painted: Painted | Sequence[Painted],
    *,
    strokes: npt.NDArray[Any] | Sequence[npt.NDArray[Any]] | None = None,
    n_folds: int = 5,
    n_trees: int | None = None,
) -> Iterator[HoldoutScore]:
    """Leave out every stroke once and yield the score after each fold.

    Parameters
    ----------
    segmenter : Segmenter
        Its features and settings are used; it need not be fitted and is not changed.
    embeddings : Embedding or sequence of Embedding
        Painted images.
    painted : (Y, X) array of int, Annotations, or sequence of these
        Class ids, 0 = unlabelled; one per image.
    strokes : (Y, X) array of int, or sequence of these, optional
        Number of the stroke of each painted pixel, one per image. By default pixels of
        one id that touch, corners included, are a stroke.
    n_folds : int
        Most folds, 2 or more. With fewer strokes there are as many folds as the class
        with most strokes has; with more, several strokes are left out together.
    n_trees : int, optional
        Trees of a forest; by default those of the settings, but at most 100.

    Yields
    ------
    HoldoutScore
        One a fold; a single one of no folds if no class has two strokes.

    Raises
    ------
    AnnotationError
        If fewer than two classes are painted in all, or labels do not fit.
    SettingsError
        If `n_folds` is below 2, `n_trees` below 1 or lists differ in length.

    Notes
    -----
    Of each class at most about 2,000 evenly spread pixels take part, in training and in
    the score. "Not sure" does not apply. The same input gives the same score.

    Examples
    --------
    >>> image = np.zeros((64, 64), np.uint8)
    >>> image[:, 32:] = 200
    >>> painted = np.zeros((64, 64), np.uint8)
    >>> painted[10:20, 5:9], painted[30:40, 5:9], painted[10:20, 50:54] = 1, 1, 7
    >>> segmenter = Segmenter()
    >>> *_, score = iter_holdout(segmenter, segmenter.embed(image), painted)
    >>> score.total, score.classes[1].recall, score.classes[7].note[:15]
    (2, 1.0, 'Only one stroke')
    """
    if n_trees is not None and n_trees < 1:
        raise SettingsError(f"`n_trees` must be 1 or more, got {n_trees!r}.")
    if n_folds < 2:
        raise SettingsError(f"`n_folds` must be 2 or more, got {n_folds!r}.")
    images, labels, numbers = _lists(embeddings, painted, strokes)
    samples = _collect(segmenter, images, labels, numbers)
    return _scores(segmenter, samples, n_folds, n_trees)


@dataclass(frozen=True, slots=True)
class _Samples:
    """Thinned pixels, and the strokes they belong to, numbered over all images."""

    features_nf: FloatArray
    ids_n: _Int64
    stroke_n: _Int64
    # by stroke
    class_of: _Int64
    pixels_of: _Int64


def _lists(
    embeddings: Embedding | Sequence[Embedding],
    painted: Painted | Sequence[Painted],
    strokes: npt.NDArray[Any] | Sequence[npt.NDArray[Any]] | None,
) -> tuple[list[Embedding], list[Painted], list[npt.NDArray[Any] | None]]:
    single = isinstance(embeddings, Embedding)
    images = [embeddings] if isinstance(embeddings, Embedding) else list(embeddings)
    given: Any = painted
    labels = [given] if single else list(given)
    given = strokes
    if given is None:
        given = None if single else [None] * len(images)
    numbers = [given] if single else list(given)
    if not images or not len(images) == len(labels) == len(numbers):
        raise SettingsError(
            f"Each image needs its labels (and strokes, if given), got {len(images)} "
            f"image(s), {len(labels)} label image(s) and {len(numbers)} of strokes."
        )
    return images, labels, numbers


def _collect(
    segmenter: Segmenter,
    images: list[Embedding],
    labels: list[Painted],
    numbers: list[npt.NDArray[Any] | None],
) -> _Samples:
    """Gather features of all painted pixels, then thin them out."""
    painted = [
        read_painted(p, e.image.source) for p, e in zip(labels, images, strict=True)
    ]
    ids = np.concatenate([a.ids for a in painted])
    if len(np.unique(ids)) < 2:
        got = f"only class {ids[0]}" if ids.size else "nothing"
        raise AnnotationError(
            f"At least two classes must be painted, got {got}. Paint a few strokes of "
            f"another class."
        )
    parts, n = [], 0
    for a, e, given in zip(painted, images, numbers, strict=True):
        found = _numbered(a) if given is None else _given(a, given, e.shape)
        parts.append(found + n)
        n += int(found.max(initial=-1)) + 1  # an image may be left out as a whole
    stroke = np.concatenate(parts)
    work = copy.copy(segmenter)
    embeddings = [work.embed(e) for e in images]
    work.update_projection(embeddings)
    features = [
        e.samples(work.projection, a.rows, a.cols)
        for e, a in zip(embeddings, painted, strict=True)
    ]
    _, first, pixels = np.unique(stroke, return_index=True, return_counts=True)
    kept = _thinned(ids, stroke)
    return _Samples(
        np.concatenate(features)[kept], ids[kept], stroke[kept], ids[first], pixels
    )


def _numbered(a: Annotations) -> _Int64:
    """Return the number of each painted pixel's stroke, from 0, classes in order."""
    out = np.empty(len(a.ids), np.int64)
    n = 0
    for i in a.class_ids:
        own = np.flatnonzero(a.ids == i)
        count, parts = _touching(a.rows[own], a.cols[own])
        out[own] = parts + n
        n += count
    return out


def _touching(rows: _Int64, cols: _Int64) -> tuple[int, _Int64]:
    """Return how many groups of touching pixels there are, and the one of each.

    Works on the pixels alone: strokes in two corners of a large image are not far
    apart here.
    """
    width = int(cols.max()) + 3  # a free column keeps the ends of rows apart
    flat = rows * width + cols
    pairs = []
    for step in (1, width - 1, width, width + 1):  # those behind in reading order
        at = np.searchsorted(flat, flat + step)
        is_there = flat[np.minimum(at, len(flat) - 1)] == flat + step
        pairs.append(np.stack([np.flatnonzero(is_there), at[is_there]]))
    one, other = np.concatenate(pairs, axis=1)
    links = sparse.coo_array((np.ones(len(one), bool), (one, other)), (len(flat),) * 2)
    count, group = sparse.csgraph.connected_components(links, directed=False)
    return int(count), group.astype(np.int64)


def _given(a: Annotations, strokes: npt.NDArray[Any], shape: tuple[int, ...]) -> _Int64:
    """Return stroke numbers of the caller from 0 on without gaps; one id each."""
    strokes = np.asarray(strokes)
    if strokes.shape != shape or strokes.dtype.kind not in "iu":
        raise SettingsError(
            f"`strokes` must be integers of the image's shape {shape}, got "
            f"{strokes.dtype} of {strokes.shape}."
        )
    # a number that was used for two ids is two strokes
    pairs = np.stack([a.ids, strokes[a.rows, a.cols].astype(np.int64)], axis=1)
    _, number = np.unique(pairs, axis=0, return_inverse=True)
    return number.reshape(-1).astype(np.int64)


def _thinned(ids: _Int64, stroke: _Int64) -> _Int64:
    """Return evenly spread positions of every stroke, at most so many a class."""
    order = np.lexsort((np.arange(len(ids)), stroke))
    starts = np.flatnonzero(np.diff(stroke[order], prepend=-1))
    place = np.arange(len(ids)) - np.repeat(starts, np.diff([*starts, len(ids)]))
    _, index, counts = np.unique(ids, return_inverse=True, return_counts=True)
    stride = -(-counts // _PIXELS_PER_CLASS)
    # the first pixel of each stroke always stays
    return np.sort(order[place % stride[index[order]] == 0])


def _folds(samples: _Samples, n_folds: int) -> _Int64:
    """Return the fold that leaves out each stroke, or -1 for a class's only stroke.

    The largest strokes first, each to the fold that leaves out least of its class, and
    of those to the one that leaves out least at all.
    """
    classes, counts = np.unique(samples.class_of, return_counts=True)
    n = min(n_folds, int(counts.max()))
    fold = np.full(len(samples.class_of), -1, np.int64)
    everything = np.zeros(n, np.int64)
    for i in classes[counts > 1]:
        own = np.flatnonzero(samples.class_of == i)
        of_class = np.zeros(n, np.int64)
        for stroke in own[np.argsort(-samples.pixels_of[own], kind="stable")]:
            k = int(np.lexsort((np.arange(n), everything, of_class))[0])
            fold[stroke] = k
            of_class[k] += samples.pixels_of[stroke]
            everything[k] += samples.pixels_of[stroke]
    return fold


def _scores(
    segmenter: Segmenter, samples: _Samples, n_folds: int, n_trees: int | None
) -> Iterator[HoldoutScore]:
    settings = segmenter.settings
    if settings.kind == "rf":
        n_trees = n_trees or min(_MAX_TREES, settings.n_trees)
        settings = settings.model_copy(update={"n_trees": n_trees})
    else:
        n_trees = 0
    fold = _folds(samples, n_folds)
    counts, total = ConfusionCounts(), int(fold.max()) + 1
    if not total:
        yield _score(samples, fold, counts, (0, 0), n_trees)
    for k in range(total):
        left_out = fold[samples.stroke_n] == k
        classifier = fit_classifier(
            samples.features_nf[~left_out], samples.ids_n[~left_out], settings
        )
        proba = classifier.predict_proba(samples.features_nf[left_out].T)
        found = decide(proba, classifier.class_ids)
        # 255 is an id like any other here
        counts = counts + confusion(found, samples.ids_n[left_out], ignore=None)
        yield _score(samples, fold, counts, (k + 1, total), n_trees)


def _score(
    samples: _Samples,
    fold: _Int64,
    counts: ConfusionCounts,
    progress: tuple[int, int],
    n_trees: int,
) -> HoldoutScore:
    ids, matrix = counts.matrix()
    hits = dict(zip(ids.tolist(), matrix.diagonal().tolist(), strict=True))
    found = counts.class_scores()
    classes = {}
    for i in np.unique(samples.class_of).tolist():
        own = samples.class_of == i
        strokes, pixels = int(own.sum()), int(samples.pixels_of[own].sum())
        if i not in found:
            note = _ONE_STROKE if strokes == 1 else _WAITING
            classes[i] = ClassHoldout(strokes, pixels, None, None, None, note)
            continue
        score = found[i]
        precision = None
        if score.predicted_pixels:
            precision = hits[i] / score.predicted_pixels
        recall = hits[i] / score.truth_pixels
        classes[i] = ClassHoldout(strokes, pixels, recall, precision, score.iou, "")
    return HoldoutScore(*progress, classes, counts.miou, counts.accuracy, n_trees)
