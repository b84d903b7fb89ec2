"""Jobs that compute: extract features, train on what is painted, apply, score.

Each is a generator for a worker thread. What is left out of an image is neither learnt
nor labelled; how pixels are taken out of results is `_masking`'s.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np

from napari_alibi_seg._base import AnnotationError, SettingsError, Window
from napari_alibi_seg._segmenter import (
    Beat,
    Embedding,
    HoldoutScore,
    LiveEvent,
    Segmenter,
    Tile,
    View,
    Visible,
    iter_holdout,
    iter_live,
    iter_visible,
    iter_warm_up,
    least_certain,
)
from napari_alibi_seg._workspace._desk import Desk
from napari_alibi_seg._workspace._events import Applied, Extracted, Note
from napari_alibi_seg._workspace._images import OpenImage
from napari_alibi_seg._workspace._masking import masked
from napari_alibi_seg.data import Annotations

__all__ = ["TrainingJobs"]


class TrainingJobs(Desk):
    """The jobs that need features and a classifier."""

    def iter_extract(
        self, image: OpenImage, view: View | None = None
    ) -> Iterator[Extracted | Beat]:
        """Compute the features of an image, from the middle of the view outwards."""
        settings = self.settings
        segmenter = self._current(settings, self.painted_ids)
        embedding = self._embedding(segmenter, image)
        store = embedding.store
        if store is not None:
            total = len(store.grid.tiles)
            missing = store.missing()
            if not missing:
                yield Extracted(total, total, 0.0, was_stored=True)
            else:
                yield Extracted(total - len(missing), total, None)
            started, order = time.monotonic(), _tiles_from(embedding, view)
            with closing(segmenter.iter_complete(embedding, order=order)) as tiles:  # type: ignore[type-var]
                for n, _ in enumerate(tiles, 1):
                    speed = (time.monotonic() - started) / n
                    done = total - len(missing) + n
                    yield Extracted(done, total, speed * (len(missing) - n))
        yield from iter_warm_up(segmenter, embedding, view=view)

    def _training_images(
        self, segmenter: Segmenter, shown: OpenImage
    ) -> tuple[list[OpenImage], list[str]]:
        """Return the painted images that have features, and the names of others.

        By file and plane: which of them is on the screen must not change a byte.
        """
        used, waiting = [], []
        images = dict.fromkeys([shown, *self.images.values()])
        for image in sorted(images, key=_place):
            if not image.painted:
                continue
            self._embedding(segmenter, image)
            if image.is_extracted or image.is_large:  # of these, what is painted
                used.append(image)
            else:
                waiting.append(image.name)
        return used, waiting

    def iter_live(self, shown: OpenImage, view: View) -> Iterator[LiveEvent | Note]:
        """Train on everything painted and segment the shown image; see `iter_live`.

        Of a large image what is in view.
        """
        segmenter = self._current(self.settings, self.painted_ids)
        used, waiting = self._training_images(segmenter, shown)
        if waiting:
            yield Note(
                f"Features are missing of {', '.join(waiting)}: extract them, so that "
                "its strokes count."
            )
        if not used and waiting:
            raise AnnotationError(
                "Training needs features of a painted image, and none has them yet. "
                "Extract features first."
            )
        if not used:
            raise AnnotationError(
                "Nothing is painted yet. Pick a class and paint a stroke of it."
            )
        embedding = self._embedding(segmenter, shown)
        strokes = [i.strokes() for i in used]
        learnt = _ids_in(strokes)
        # weights of other classes would be refused
        segmenter = self._current(self.settings, tuple(sorted(learnt)))
        hidden = sorted({i for image in used for i in image.painted} - learnt)
        if hidden:
            names = ", ".join(self.classes.names.get(i, f"class {i}") for i in hidden)
            yield Note(
                f"Trained without {names}: painted only where the image is left out."
            )
        run = iter_live(
            segmenter,
            [i.embedding for i in used if i.embedding is not None],
            strokes,
            view=view,
            shown=embedding,
            class_names={i: n for i, n in self.classes.names.items() if i in learnt},
            is_whole=not shown.is_large,
        )
        yield from masked(run, shown)

    def iter_show(self, shown: OpenImage, view: View) -> Iterator[LiveEvent | Applied]:
        """Apply a classifier that is there already: to all of an image, or the view."""
        segmenter = self._segmenter
        if segmenter is None or segmenter.classifier is None:
            raise SettingsError("There is no classifier yet. Train or load one.")
        embedding = self._embedding(segmenter, shown)
        ids = tuple(int(i) for i in segmenter.classifier.class_ids)
        yield Applied(ids)
        if shown.is_large:
            yield from masked(iter_visible(segmenter, embedding, view=view), shown, ids)
            return
        tiles = segmenter.iter_predict(embedding, focus=view.focus)
        with closing(tiles):  # type: ignore[type-var]
            yield from masked((Tile(t) for t in tiles), shown, ids)

    def iter_score(self, n_folds: int = 5) -> Iterator[HoldoutScore]:
        """Score the classifier on strokes it was not trained on."""
        segmenter = self._current(self.settings, self.painted_ids)
        used = [i for i in [*self.images.values()] if i.painted and i.is_extracted]
        if not used:
            raise AnnotationError(
                "Nothing can be scored yet: paint at least two strokes of two classes."
            )
        strokes = [i.strokes() for i in used]
        segmenter = self._current(self.settings, tuple(sorted(_ids_in(strokes))))
        yield from iter_holdout(
            segmenter,
            [i.embedding for i in used if i.embedding is not None],
            strokes,
            n_folds=n_folds,
        )

    def iter_least_certain(
        self, image: OpenImage, view: View, side: int = 1024
    ) -> Iterator[tuple[float, float]]:
        """Yield the pixel (row, column) in the least certain neighbourhood.

        The classifier is asked at no more than about `side` x `side` pixels, whatever
        is shown, so that every part of the image has its chance. Of a large image only
        the view is looked at.
        """
        segmenter = self._segmenter
        if segmenter is None or segmenter.classifier is None:
            raise SettingsError("There is no classifier yet. Train or load one.")
        embedding = self._embedding(segmenter, image)
        if image.is_large:
            asked = view.within(image.shape)
            if asked is None:
                raise SettingsError(
                    "Nothing of the image is in view. Move the view onto it."
                )
            uncertainty = _seen_uncertainty(segmenter, embedding, asked)
        else:
            step = max(1, -(-max(image.shape) // side))
            asked = View(Window(0, image.shape[0], 0, image.shape[1]), step)
            uncertainty = _whole_uncertainty(segmenter, embedding, asked)
        step, window = asked.step, asked.window
        left_out = image.left_out(window, step)
        if left_out is not None:
            uncertainty[left_out] = 0
        painted = np.zeros(asked.samples, bool)
        if image.project is not None:
            found = image.project.scribbles(image.plane).annotations()
            rows, cols = (
                (found.rows - window.y0) // step,
                (found.cols - window.x0) // step,
            )
            is_seen = (rows >= 0) & (rows < painted.shape[0])
            is_seen &= (cols >= 0) & (cols < painted.shape[1])
            painted[rows[is_seen], cols[is_seen]] = True
        row, col = least_certain(uncertainty, painted, radius=max(2, 24 // step))
        yield (
            window.y0 + row * step + step / 2,
            window.x0 + col * step + step / 2,
        )


def _seen_uncertainty(segmenter: Segmenter, embedding: Embedding, view: View) -> Any:
    """Return the uncertainty of the samples of a view."""
    out = np.zeros(view.samples, np.float32)
    for event in iter_visible(segmenter, embedding, view=view):
        if isinstance(event, Visible):
            row = (event.window.y0 - view.window.y0) // view.step
            col = (event.window.x0 - view.window.x0) // view.step
            height, width = event.uncertainty_yx.shape
            out[row : row + height, col : col + width] = event.uncertainty_yx
    return out


def _whole_uncertainty(segmenter: Segmenter, embedding: Embedding, view: View) -> Any:
    """Return the uncertainty of every n-th pixel, from the top left one on."""
    out, step = np.zeros(view.samples, np.float32), view.step
    for tile in segmenter.iter_predict(embedding, order="reading"):
        at = tile.window
        rows, cols = (
            np.arange(-(-a // step), -(-b // step))
            for a, b in ((at.y0, at.y1), (at.x0, at.x1))
        )
        picked = tile.uncertainty_yx[np.ix_(rows * step - at.y0, cols * step - at.x0)]
        out[np.ix_(rows, cols)] = picked
    return out


def _ids_in(strokes: list[Annotations]) -> set[int]:
    """Return the classes that there are strokes of, outside what is left out."""
    return {i for found in strokes for i in found.class_ids}


def _tiles_from(embedding: Embedding, view: View | None) -> list[int] | None:
    """Return the tiles of a store, nearest to the middle of the view first."""
    if view is None or embedding.store is None:
        return None
    grid = embedding.store.grid
    middles = []
    for tile in grid.tiles:
        at = grid.pixel_of_token(
            (tile.keep.y0 + tile.keep.y1) // 2, (tile.keep.x0 + tile.keep.x1) // 2
        )
        middles.append((at[0] - view.focus[0]) ** 2 + (at[1] - view.focus[1]) ** 2)
    return [int(i) for i in np.argsort(middles, kind="stable")]


def _place(image: OpenImage) -> tuple[str, tuple[int, ...]]:
    plane = image.plane
    at = plane if isinstance(plane, tuple) else () if plane is None else (plane,)
    return str(image.source.path or image.name), at
