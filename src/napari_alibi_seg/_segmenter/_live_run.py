"""The stages of a live segmentation: samples, preview, fit, view, tiles.

Only this module knows what each stage may cost. A small forest on thinned strokes,
applied at token centres, gives a preview at once. All work is done on a copy of the
segmenter, which shares what is remembered; the segmenter itself changes once, when the
real fit is complete. The order of the stages is left to `_live`.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import ClassifierSettings
from napari_alibi_seg._segmenter._embedding import (
    Embedding,
    PixelFeatures,
    default_workers,
    iter_threaded,
)
from napari_alibi_seg._segmenter._events import (
    Beat,
    Finished,
    LiveEvent,
    Preview,
    Tile,
    Trained,
    View,
    least_step,
)
from napari_alibi_seg._segmenter._live_features import (
    as_generator,
    iter_completed,
    iter_filled,
    painted_tiles,
    token_tiles,
)
from napari_alibi_seg._segmenter._live_view import ViewJob, parts_of, pixels_of
from napari_alibi_seg._segmenter._painted import Painted, read_painted
from napari_alibi_seg._segmenter._predict import classify_cells
from napari_alibi_seg._segmenter._segmenter import Segmenter
from napari_alibi_seg._segmenter._tokens import cells_around, overlap
from napari_alibi_seg.data import Annotations, centre_out, pixel_tiles
from napari_alibi_seg.learn import PixelClassifier, fit_classifier

__all__ = ["LiveRun"]

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
# Samples of one `Visible`, and bytes of their features.
_BAND_SAMPLES = 1 << 16
_BAND_BYTES = 48 << 20


class LiveRun:
    """One run after one stroke; its stages in order."""

    def __init__(
        self,
        segmenter: Segmenter,
        embeddings: list[Embedding],
        painted: list[Painted],
        shown: Embedding,
        view: View,
        *,
        is_whole: bool = True,
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
        self.is_whole = is_whole

    def tiles_in_view(self) -> set[int]:
        """Return the tiles of tokens that the view needs."""
        if self.shown.store is None or self.view is None:
            return set()
        return token_tiles(self.shown, self.view.window)

    def _complete(self) -> Iterator[Beat]:
        """Extract what is missing of all images, or of what is painted and seen."""
        if self.is_whole:
            for embedding in [*self.embeddings, self.shown]:
                yield from iter_completed(self.work, embedding)
            return
        for embedding, strokes in zip(self.embeddings, self.strokes, strict=True):
            needed = (
                set() if embedding.store is None else painted_tiles(embedding, strokes)
            )
            yield from iter_completed(self.work, embedding, needed)
        yield from iter_completed(self.work, self.shown, self.tiles_in_view())

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
        self.work.update_projection(self.embeddings)
        if self.segmenter.classifier is None:
            # nothing depends on it yet, and a run that is stopped need not repeat it
            self.segmenter.take_projection(self.work)
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
            yield from iter_filled(self.shown, pixels_of(self.shown, cells))
        classifier = self._small_classifier()
        every = least_step(cells, 1, _PREVIEW_CELLS)
        step = least_step(window, self.view.step, _PREVIEW_SAMPLES)
        proba = classify_cells(self.features, classifier, cells, every)
        job = ViewJob(self.features, classifier, self.settings, proba, (cells, every))
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
        self.segmenter.take_fit(self.work)
        yield Trained(self._class_ids(), seconds)

    def _class_ids(self) -> tuple[int, ...]:
        assert self.work.classifier is not None
        return tuple(int(i) for i in self.work.classifier.class_ids)

    def visible(self) -> Iterator[LiveEvent]:
        """Classify the view at the resolution of the screen, the middle first."""
        if self.view is None:
            return
        assert self.work.classifier is not None
        job = ViewJob(self.features, self.work.classifier, self.settings)
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
        parts = parts_of(self.view, most, uses_filters=uses_filters)
        order = centre_out([p.window for p in parts], self.focus)
        workers = self.work.workers or default_workers()
        yield from iter_threaded(job, [parts[i] for i in order], workers)
        yield Beat("result", 1, 1)

    def tiles(self) -> Iterator[LiveEvent]:
        """Classify every pixel, tiles in view first."""
        if self.settings.resolution == "patch" and self.shown.classical is not None:
            yield from iter_filled(self.shown, None)
        tiles = pixel_tiles(self.shown.shape)
        order = centre_out(tiles, self.focus)
        if self.view is not None:
            seen = self.view.window
            order.sort(key=lambda i: not overlap(tiles[i], seen))
        counts = np.zeros(0, np.int64)
        with closing(
            as_generator(self.work.iter_predict(self.shown, order=order))
        ) as run:
            for tile in run:
                counts = _add(counts, np.bincount(tile.labels_yx.ravel()))
                yield Tile(tile)
        keys = sorted({*self._class_ids(), *np.flatnonzero(counts).tolist()})
        n = int(counts.sum())
        yield Finished({i: int(counts[i]) / n if i < len(counts) else 0 for i in keys})


def _thinned(
    ids: npt.NDArray[np.int64], most: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return evenly spread positions, at most so many a class, and their weights."""
    kept = [np.zeros(0, np.int64)]  # what is wrong with no pixel is said by the fit
    weight = np.ones(len(ids))
    for i in np.unique(ids):
        own = np.flatnonzero(ids == i)
        some = own[:: -(-len(own) // most)]
        weight[some] = len(own) / len(some)
        kept.append(some)
    at = np.sort(np.concatenate(kept))
    return at, weight[at] * (len(at) / max(1, len(ids)))


def _add(
    one: npt.NDArray[np.int64], other: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Add counts of different lengths."""
    out = np.zeros(max(len(one), len(other)), np.int64)
    out[: len(one)] += one
    out[: len(other)] += other
    return out
