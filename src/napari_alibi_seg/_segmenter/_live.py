"""What happens after a stroke: coarse and quick first, then the real thing.

Only this module knows the order in which a live segmentation becomes better: a preview
at once; then `Segmenter.fit` as it always runs, and its classifier is applied to what
is visible at screen resolution, and last to all tiles in full. What a stage does is
left to `_live_run`.

One generator again. A newer stroke stops it by closing it, at any event; `Beat`s come
between the events that show something, so that no stop waits for long. The one step
that cannot be cut is the growing of the forest. There is no `cancelled` callback: a
generator that is not resumed does nothing, which a second switch could only repeat.

A run that was stopped leaves the segmenter as it was. Debouncing, threads and layers
are the caller's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from napari_alibi_seg._base import SettingsError
from napari_alibi_seg._segmenter._embedding import Embedding, PixelFeatures
from napari_alibi_seg._segmenter._events import Beat, LiveEvent, View
from napari_alibi_seg._segmenter._live_features import iter_completed, iter_filled
from napari_alibi_seg._segmenter._live_run import LiveRun
from napari_alibi_seg._segmenter._painted import Painted
from napari_alibi_seg._segmenter._segmenter import Segmenter
from napari_alibi_seg._segmenter._tokens import cells_around
from napari_alibi_seg.learn import fit_classifier

__all__ = ["iter_live", "iter_visible", "iter_warm_up"]


def iter_live(
    segmenter: Segmenter,
    embeddings: Embedding | Sequence[Embedding],
    painted: Painted | Sequence[Painted],
    *,
    view: View,
    shown: Embedding | None = None,
    class_names: dict[int, str] | None = None,
    is_whole: bool = True,
) -> Iterator[LiveEvent]:
    """Retrain after a stroke and yield ever better segmentations of what is visible.

    Parameters
    ----------
    segmenter : Segmenter
        Fitted as `Segmenter.fit` does, when `Trained` comes; not changed before.
    embeddings : Embedding or sequence of Embedding
        Painted images.
    painted : (Y, X) array of int, Annotations, or sequence of these
        Class ids, 0 = unlabelled; one per image. Not to be changed meanwhile. Of a
        large image give `Annotations`: an array of its size is searched at each call.
    view : View
        What is visible of `shown`.
    shown : Embedding, optional
        The image on the screen; by default the first of `embeddings`.
    class_names : dict of int to str, optional
        As for `Segmenter.fit`.
    is_whole : bool
        Whether all of the image is segmented in full at the end. Of an image larger
        than memory only what is painted and seen needs features then, and only that is
        extracted.

    Yields
    ------
    LiveEvent
        `Preview`, `Trained`, `Visible` from the middle of the view outwards, `Tile`
        with those in view first, `Finished`; a `Beat` anywhere between. Without a
        visible pixel there is no `Preview` and no `Visible`; without `is_whole` there
        is no `Tile` and no `Finished`, and a `Preview` only of a view whose features
        at token centres are quick to compute.

    Raises
    ------
    AnnotationError
        If fewer than two classes are painted in all, or labels do not fit.

    Examples
    --------
    >>> from napari_alibi_seg._base import Window
    >>> image = np.zeros((64, 64), np.uint8)
    >>> image[:, 32:] = 200
    >>> painted = np.zeros((64, 64), np.uint8)
    >>> painted[10:20, 5:9], painted[10:20, 50:54] = 1, 7
    >>> segmenter = Segmenter()
    >>> view = View(Window(0, 64, 0, 64), step=2)
    >>> run = iter_live(segmenter, segmenter.embed(image), painted, view=view)
    >>> events = [event for event in run if not isinstance(event, Beat)]
    >>> [type(event).__name__ for event in events]
    ['Preview', 'Trained', 'Visible', 'Tile', 'Finished']
    >>> events[1].class_ids, sorted(events[-1].fractions)
    ((1, 7), [1, 7])
    """
    images = [embeddings] if isinstance(embeddings, Embedding) else list(embeddings)
    given: Any = painted
    labels = [given] if isinstance(embeddings, Embedding) else list(given)
    if not images or len(images) != len(labels):
        raise SettingsError(
            f"Each image needs its labels, got {len(images)} image(s) and "
            f"{len(labels)} label image(s)."
        )
    seen = images[0] if shown is None else shown
    run = LiveRun(segmenter, images, labels, seen, view, is_whole=is_whole)
    yield from run.gather()
    if is_whole or run.is_quick_to_preview:
        yield from run.preview()
    yield from run.train(class_names)
    yield from run.visible()
    if is_whole:
        yield from run.tiles()


def iter_visible(
    segmenter: Segmenter, shown: Embedding, *, view: View
) -> Iterator[LiveEvent]:
    """Apply a classifier to what is visible, at the resolution of the screen.

    Parameters
    ----------
    segmenter : Segmenter
        Fitted.
    shown : Embedding
        The image on the screen.
    view : View
        What is visible of it.

    Yields
    ------
    LiveEvent
        `Visible` from the middle of the view outwards; a `Beat` anywhere between.

    Raises
    ------
    SettingsError
        If the segmenter is not fitted.

    Examples
    --------
    >>> from napari_alibi_seg._base import Window
    >>> image = np.zeros((64, 64), np.uint8)
    >>> image[:, 32:] = 200
    >>> painted = np.zeros((64, 64), np.uint8)
    >>> painted[10:20, 5:9], painted[10:20, 50:54] = 1, 7
    >>> segmenter = Segmenter().fit(image, painted)
    >>> view = View(Window(0, 64, 20, 44), step=8)
    >>> first, *_ = iter_visible(segmenter, segmenter.embed(image), view=view)
    >>> first.labels_yx[4].tolist()
    [1, 7, 7]
    """
    segmenter.require_fitted()
    run = LiveRun(segmenter, [], [], shown, view)
    yield from iter_completed(run.work, shown, run.tiles_in_view())
    yield from run.visible()


def iter_warm_up(
    segmenter: Segmenter, embedding: Embedding, *, view: View | None = None
) -> Iterator[Beat]:
    """Do beforehand what does not depend on strokes, so that the first one is quick.

    Loads the learning library, fits and applies the projection of tokens and computes
    the classical features at token centres, those in view first. Call it when an image
    is embedded, and again, if wanted, when the view moves.

    Parameters
    ----------
    segmenter : Segmenter
        Its projection is fitted to this image if it has none yet.
    embedding : Embedding
        The image on the screen.
    view : View, optional
        What is visible. With it only the tiles in view are prepared, otherwise all.

    Yields
    ------
    Beat
        Of the stages "features" and "preview".

    Examples
    --------
    >>> segmenter = Segmenter()
    >>> embedding = segmenter.embed(np.eye(64, dtype=np.uint8))
    >>> [beat.stage for beat in iter_warm_up(segmenter, embedding)]
    ['preview', 'preview']
    """
    yield from iter_completed(segmenter, embedding)
    if segmenter.projection is None:
        segmenter.update_projection([embedding])
    features = PixelFeatures(embedding, segmenter.projection)
    few = np.random.default_rng(0).random((8, features.n_features), np.float32)
    # classes that are not in the trial have no weights
    plain = {"class_weight": "balanced", "class_factor": {}}
    settings = segmenter.settings.model_copy(update=plain)
    trial = fit_classifier(few, np.arange(8) % 2 + 1, settings, n_jobs=1)
    trial.predict_proba(few.T)
    yield Beat("preview", 0, 1)
    seen = None if view is None else view.within(embedding.shape)
    if view is not None and seen is None:
        return
    if embedding.store is not None:
        pixels = embedding.image.source.window if seen is None else seen.window
        tokens = embedding.tokens(segmenter.projection)
        for done, total in tokens.iter_fill(cells_around(embedding.grid, pixels)):
            yield Beat("preview", done, total)
    if embedding.classical is not None:
        yield from iter_filled(embedding, None if seen is None else seen.window)
