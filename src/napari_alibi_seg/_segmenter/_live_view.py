"""Classifying what is visible at the resolution of the screen, piece by piece.

Only this module knows how a view is cut into pieces and which pixels stand for a
sample; when a piece is wanted is left to `_live_run`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from napari_alibi_seg._base import ClassifierSettings, FloatArray, Window
from napari_alibi_seg._segmenter._embedding import Embedding, PixelFeatures, lattice
from napari_alibi_seg._segmenter._events import View, Visible
from napari_alibi_seg.data import sample_grid
from napari_alibi_seg.learn import PixelClassifier, decide, entropy_uncertainty

__all__ = ["ViewJob", "parts_of", "pixels_of"]

# Sides of the pieces of a view where filters are computed on all their pixels.
_BLOCK_PX = 512


@dataclass(frozen=True, slots=True)
class ViewJob:
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


def parts_of(view: View, most: int, *, uses_filters: bool) -> list[View]:
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


def pixels_of(embedding: Embedding, cells: Window) -> Window:
    """Return pixels that hold the centres of some tokens."""
    y0, x0 = embedding.grid.pixel_of_token(cells.y0, cells.x0)
    y1, x1 = embedding.grid.pixel_of_token(cells.y1 - 1, cells.x1 - 1)
    height, width = embedding.shape
    # a centre may lie beyond the image; its pixel is then the last one
    y0, x0 = min(y0, height - 1), min(x0, width - 1)
    return Window(math.floor(y0), math.ceil(y1) + 1, math.floor(x0), math.ceil(x1) + 1)
