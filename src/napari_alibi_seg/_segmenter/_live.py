"""What happens after a stroke: coarse and quick first, then the real thing.

Only this module knows the order in which a live segmentation becomes better and what
each stage may cost. A small forest on thinned strokes, applied at token centres, gives
a preview at once; then `Segmenter.fit` runs as it always does, and its classifier is
applied to what is visible at screen resolution, and last to all tiles in full.

One generator again. A newer stroke stops it by closing it, at any event; `Beat`s come
between the events that show something, so that no stop waits for long. The one step
that cannot be cut is the growing of the forest. There is no `cancelled` callback: a
generator that is not resumed does nothing, which a second switch could only repeat.

All work is done on a copy of the segmenter, which shares what is remembered. The
segmenter itself changes once, when the real fit is complete, so that a run that was
stopped leaves it as it was. Debouncing, threads and layers are the caller's.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import (
    ClassifierSettings,
    FloatArray,
    SettingsError,
    Window,
)
from napari_alibi_seg._segmenter._embedding import (
    Embedding,
    PixelFeatures,
    default_workers,
    iter_threaded,
    lattice,
)
from napari_alibi_seg._segmenter._events import (
    Beat,
    Finished,
    LiveEvent,
    Preview,
    Tile,
    Trained,
    View,
    Visible,
    least_step,
)
from napari_alibi_seg._segmenter._painted import Painted, read_painted
from napari_alibi_seg._segmenter._predict import classify_cells
from napari_alibi_seg._segmenter._segmenter import Segmenter
from napari_alibi_seg._segmenter._tokens import cells_around, overlap
from napari_alibi_seg.data import Annotations, centre_out, pixel_tiles, sample_grid
from napari_alibi_seg.learn import (
    PixelClassifier,
    decide,
    entropy_uncertainty,
    fit_classifier,
)

__all__ = ["iter_live", "iter_visible", "iter_warm_up"]

# The preview's forest, and pixels per class it is grown on: of those that are grown in
# 70 ms this one agreed best with the full one. More trees of fewer pixels, or fewer of
# more, agreed less.
_PREVIEW_TREES = 24
_PREVIEW_PIXELS = 600
_PREVIEW_CELLS = 1 << 16
# Of a view that is cut out of a larger image, pixels that may be filtered for it.
_PREVIEW_FILTERED_PX = 1 << 22
# Samples that the preview's probabilities are enlarged to; finer shows nothing more.
_PREVIEW_SAMPLES = 80_000
# Samples of one `Visible`, and sides of its pixels where filters are computed on all.
_BAND_SAMPLES = 1 << 16
_BAND_BYTES = 48 << 20
_BLOCK_PX = 512
# Painted pixels are gathered in squares to find what they need, as there are many.
_STROKE_PX = 64


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
    run = _Run(segmenter, images, labels, images[0] if shown is None else shown, view)
    run.is_whole = is_whole
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
    run = _Run(segmenter, [], [], shown, view)
    yield from _completed(run.work, shown, run.tiles_in_view())
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
    yield from _completed(segmenter, embedding)
    if segmenter.projection is None:
        segmenter._update_projection([embedding])
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
        yield from _filled(embedding, None if seen is None else seen.window)


def _completed(
    segmenter: Segmenter, embedding: Embedding, only: set[int] | None = None
) -> Iterator[Beat]:
    """Extract the tiles that are missing; with `only`, of these."""
    if embedding.store is None:
        return
    missing = set(embedding.store.missing())
    if only is not None:
        missing &= only
    if not missing:
        return
    wanted = None if only is None else sorted(missing)
    with closing(_generator(segmenter.iter_complete(embedding, only=wanted))) as tiles:
        for done, _ in enumerate(tiles, 1):
            yield Beat("features", done, len(missing))


def _token_tiles(embedding: Embedding, pixels: Window) -> set[int]:
    """Return the tiles of tokens that some pixels need."""
    grid, cells = embedding.grid, cells_around(embedding.grid, pixels)
    d = grid.density
    return {
        t.index
        for t in grid.tiles
        if overlap(
            Window(t.keep.y0 * d, t.keep.y1 * d, t.keep.x0 * d, t.keep.x1 * d), cells
        )
    }


def _painted_tiles(embedding: Embedding, strokes: Annotations) -> set[int]:
    """Return the tiles of tokens that painted pixels need."""
    at = np.stack([strokes.rows // _STROKE_PX, strokes.cols // _STROKE_PX], axis=1)
    tiles: set[int] = set()
    height, width = embedding.shape
    for row, col in np.unique(at, axis=0).tolist():
        y, x = row * _STROKE_PX, col * _STROKE_PX
        block = Window(y, min(y + _STROKE_PX, height), x, min(x + _STROKE_PX, width))
        tiles |= _token_tiles(embedding, block)
    return tiles


def _generator(items: Iterator[Any]) -> Any:
    """Return `items`, a generator that is typed as an iterator."""
    return items


def _filled(embedding: Embedding, window: Window | None) -> Iterator[Beat]:
    with closing(embedding.iter_classical_cells(window)) as tiles:
        for done, total in tiles:
            yield Beat("preview", done, total)


class _Run:
    """One run after one stroke; its stages in order."""

    def __init__(
        self,
        segmenter: Segmenter,
        embeddings: list[Embedding],
        painted: list[Painted],
        shown: Embedding,
        view: View,
    ) -> None:
        self.segmenter = segmenter
        # shares backbone, settings and tokens; takes all changes until the fit is done
        self.work = copy.copy(segmenter)
        self.embeddings = embeddings
        self.painted = painted
        self.shown = shown
        self.focus = view.focus
        self.view = view.within(shown.shape)
        self.strokes: list[Annotations] = []
        self.is_whole = True

    def tiles_in_view(self) -> set[int]:
        """Return the tiles of tokens that the view needs."""
        if self.shown.store is None or self.view is None:
            return set()
        return _token_tiles(self.shown, self.view.window)

    def _complete(self) -> Iterator[Beat]:
        """Extract what is missing of all images, or of what is painted and seen."""
        if self.is_whole:
            for embedding in [*self.embeddings, self.shown]:
                yield from _completed(self.work, embedding)
            return
        for embedding, strokes in zip(self.embeddings, self.strokes, strict=True):
            needed = (
                set() if embedding.store is None else _painted_tiles(embedding, strokes)
            )
            yield from _completed(self.work, embedding, needed)
        yield from _completed(self.work, self.shown, self.tiles_in_view())

    @property
    def features(self) -> PixelFeatures:
        return PixelFeatures(self.shown, self.work.projection)

    @property
    def settings(self) -> ClassifierSettings:
        return self.work.settings

    @property
    def is_quick_to_preview(self) -> bool:
        """Whether little has to be filtered for features at token centres in view."""
        if self.view is None or self.shown.classical is None:
            return True
        height, width = self.view.window.shape
        return height * width <= _PREVIEW_FILTERED_PX

    def gather(self) -> Iterator[Beat]:
        """Compute the features of the painted pixels that are new."""
        self.strokes = [
            read_painted(p, e.image.source)
            for p, e in zip(self.painted, self.embeddings, strict=True)
        ]
        yield from self._complete()
        self.work._update_projection(self.embeddings)
        if self.segmenter.classifier is None:
            # nothing depends on it yet, and a run that is stopped need not repeat it
            self.segmenter.projection = self.work.projection
            self.segmenter._training = self.work._training
        for e, s in zip(self.embeddings, self.strokes, strict=True):
            sampled = e.iter_samples(self.work.projection, s.rows, s.cols)
            with closing(sampled) as tiles:
                for done, total in tiles:
                    yield Beat("samples", done, total)

    def preview(self) -> Iterator[LiveEvent]:
        """Fit a small classifier and apply it at token centres in view."""
        if self.view is None:
            return
        window = self.view.window
        cells = cells_around(self.shown.grid, window)
        if self.shown.classical is not None:
            yield from _filled(self.shown, _pixels_of(self.shown, cells))
        classifier = self._small_classifier()
        every = least_step(cells, 1, _PREVIEW_CELLS)
        step = least_step(window, self.view.step, _PREVIEW_SAMPLES)
        proba = classify_cells(self.features, classifier, cells, every)
        job = _Job(self.features, classifier, self.settings, proba, (cells, every))
        result = job(View(window, step))
        ids = tuple(int(i) for i in classifier.class_ids)
        yield Preview(window, step, result.labels_yx, result.uncertainty_yx, ids)

    def _small_classifier(self) -> PixelClassifier:
        samples = [
            e.samples(self.work.projection, s.rows, s.cols)
            for e, s in zip(self.embeddings, self.strokes, strict=True)
        ]
        ids = np.concatenate([s.ids for s in self.strokes])
        kept, stands_for = _thinned(ids, _PREVIEW_PIXELS)
        n_trees = min(self.settings.n_trees, _PREVIEW_TREES)
        balanced = self.settings.class_weight == "balanced"
        return fit_classifier(
            np.concatenate(samples)[kept],
            ids[kept],
            self.settings.model_copy(update={"n_trees": n_trees}),
            sample_weight=None if balanced else stands_for,
            n_jobs=1,  # threads cost more than so few trees gain
        )

    def train(self, class_names: dict[int, str] | None) -> Iterator[LiveEvent]:
        """Fit for good, and only then change the segmenter."""
        yield Beat("training", 0, 1)
        started = time.perf_counter()
        self.work.classes = self.segmenter.classes  # may have been renamed since
        self.work.fit_painted(self.embeddings, self.strokes, class_names=class_names)
        seconds = time.perf_counter() - started
        for name in ("projection", "_training", "classifier", "classes"):
            setattr(self.segmenter, name, getattr(self.work, name))
        yield Trained(self._class_ids(), seconds)

    def _class_ids(self) -> tuple[int, ...]:
        assert self.work.classifier is not None
        return tuple(int(i) for i in self.work.classifier.class_ids)

    def visible(self) -> Iterator[LiveEvent]:
        """Classify the view at the resolution of the screen, the middle first."""
        if self.view is None:
            return
        assert self.work.classifier is not None
        job = _Job(self.features, self.work.classifier, self.settings)
        if self.settings.resolution == "patch":
            cells = cells_around(self.shown.grid, self.view.window)
            proba = classify_cells(self.features, job.classifier, cells)
            job = replace(job, cells=proba, where=(cells, 1))
            yield Beat("result", 0, 1)
        if job.cells is not None:
            most = _BAND_SAMPLES
        else:
            most = min(_BAND_SAMPLES, _BAND_BYTES // (4 * self.features.n_features))
        uses_filters = self.shown.uses_classical and job.cells is None
        parts = _parts(self.view, most, uses_filters=uses_filters)
        order = centre_out([p.window for p in parts], self.focus)
        workers = self.work.workers or default_workers()
        yield from iter_threaded(job, [parts[i] for i in order], workers)
        yield Beat("result", 1, 1)

    def tiles(self) -> Iterator[LiveEvent]:
        """Classify every pixel, tiles in view first."""
        if self.settings.resolution == "patch" and self.shown.classical is not None:
            yield from _filled(self.shown, None)
        tiles = pixel_tiles(self.shown.shape)
        order = centre_out(tiles, self.focus)
        if self.view is not None:
            seen = self.view.window
            order.sort(key=lambda i: not overlap(tiles[i], seen))
        counts = np.zeros(0, np.int64)
        with closing(
            _generator(self.work.iter_predict(self.shown, order=order))
        ) as run:
            for tile in run:
                counts = _add(counts, np.bincount(tile.labels_yx.ravel()))
                yield Tile(tile)
        keys = sorted({*self._class_ids(), *np.flatnonzero(counts).tolist()})
        n = int(counts.sum())
        yield Finished({i: int(counts[i]) / n if i < len(counts) else 0 for i in keys})


@dataclass(frozen=True, slots=True)
class _Job:
    """Classify every n-th pixel of a part of the view; called from several threads.

    With `cells`, probabilities (r, c, K) of the tokens `where`, these are enlarged
    instead.
    """

    features: PixelFeatures
    classifier: PixelClassifier
    settings: ClassifierSettings
    cells: FloatArray | None = None
    where: tuple[Window, int] = (Window(0, 0, 0, 0), 1)

    def __call__(self, part: View) -> Visible:
        height, width = part.samples
        if self.cells is not None:
            proba = self._enlarged(self.cells, part).reshape(-1, height * width)
        else:
            block = self.features.at_lattice(part.window, part.step)
            proba = self.classifier.predict_proba(block.reshape(len(block), -1))
        s = self.settings
        labels = decide(proba, self.classifier.class_ids, s.unsure_below, s.unsure_id)
        return Visible(
            part.window,
            part.step,
            labels.reshape(height, width),
            entropy_uncertainty(proba).reshape(height, width),
            proba.reshape(-1, height, width),
        )

    def _enlarged(self, cells_rck: FloatArray, part: View) -> FloatArray:
        grid, w = self.features.embedding.grid, part.window
        rows, cols = lattice(w, part.step)
        around, every = self.where
        return sample_grid(
            cells_rck,
            (grid.row_positions(w.y0, w.y1)[rows - w.y0] - around.y0) / every,
            (grid.col_positions(w.x0, w.x1)[cols - w.x0] - around.x0) / every,
        )


def _pixels_of(embedding: Embedding, cells: Window) -> Window:
    """Return pixels that hold the centres of some tokens."""
    y0, x0 = embedding.grid.pixel_of_token(cells.y0, cells.x0)
    y1, x1 = embedding.grid.pixel_of_token(cells.y1 - 1, cells.x1 - 1)
    height, width = embedding.shape
    # a centre may lie beyond the image; its pixel is then the last one
    y0, x0 = min(y0, height - 1), min(x0, width - 1)
    return Window(math.floor(y0), math.ceil(y1) + 1, math.floor(x0), math.ceil(x1) + 1)


def _thinned(
    ids: npt.NDArray[np.int64], most: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return evenly spread positions, at most so many a class, and their weights."""
    kept = []
    weight = np.ones(len(ids))
    for i in np.unique(ids):
        own = np.flatnonzero(ids == i)
        some = own[:: -(-len(own) // most)]
        weight[some] = len(own) / len(some)
        kept.append(some)
    at = np.sort(np.concatenate(kept))
    return at, weight[at] * (len(at) / len(ids))


def _parts(view: View, most: int, *, uses_filters: bool) -> list[View]:
    """Cut a view into pieces that are classified one by one, on one lattice.

    Filters are computed on all pixels of a piece and some around it: squares cost
    least. Without them a piece is a band of rows of at most `most` samples.
    """
    w, step = view.window, view.step
    if uses_filters:
        high = wide = max(1, _BLOCK_PX // step)
    else:
        wide = view.samples[1]
        high = max(1, most // wide)
    return [
        View(Window(y, min(y + high * step, w.y1), x, min(x + wide * step, w.x1)), step)
        for y in range(w.y0, w.y1, high * step)
        for x in range(w.x0, w.x1, wide * step)
    ]


def _add(
    one: npt.NDArray[np.int64], other: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Add counts of different lengths."""
    out = np.zeros(max(len(one), len(other)), np.int64)
    out[: len(one)] += one
    out[: len(other)] += other
    return out
