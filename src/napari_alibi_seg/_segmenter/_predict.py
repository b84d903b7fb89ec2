"""From features to labels, probabilities and uncertainty, tile by tile.

One generator serves files, arrays, progress bars and viewers. Tiles lie on a fixed
grid and each is computed alone, so order and number of workers change nothing in the
result; at most a few tiles are in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_alibi_seg._base import (
    ClassifierSettings,
    FloatArray,
    SettingsError,
    TileResult,
    Window,
)
from napari_alibi_seg._segmenter._embedding import (
    PixelFeatures,
    default_workers,
    iter_threaded,
)
from napari_alibi_seg._segmenter._tokens import cells_around
from napari_alibi_seg.data import centre_out, pixel_tiles, sample_grid
from napari_alibi_seg.learn import decide, entropy_uncertainty

if TYPE_CHECKING:
    from napari_alibi_seg.learn import PixelClassifier

__all__ = ["TileJob", "classify_cells", "decided", "iter_tiles"]


@dataclass(frozen=True)
class TileJob:
    """Classify one window; called from several threads at once.

    Attributes
    ----------
    features : PixelFeatures
        Of the image.
    classifier : PixelClassifier
        Fitted on the same features.
    settings : ClassifierSettings
        Resolution and "not sure".
    """

    features: PixelFeatures
    classifier: PixelClassifier
    settings: ClassifierSettings

    def __call__(self, window: Window) -> TileResult:
        if self.settings.resolution == "patch":
            proba = self._enlarged(window)
        else:
            proba = self._of_pixels(window)
        return decided(window, proba, self.classifier, self.settings)

    def _of_pixels(self, window: Window) -> FloatArray:
        proba = np.empty((len(self.classifier.class_ids), *window.shape), np.float32)
        for strip, block in self.features.strips(window):
            part = self.classifier.predict_proba(block.reshape(len(block), -1))
            proba[:, strip.y0 - window.y0 : strip.y1 - window.y0] = part.reshape(
                len(proba), *strip.shape
            )
        return proba

    def _enlarged(self, window: Window) -> FloatArray:
        """Interpolate the probabilities of the tokens around."""
        grid = self.features.embedding.grid
        around = cells_around(grid, window)
        return sample_grid(
            classify_cells(self.features, self.classifier, around),
            grid.row_positions(window.y0, window.y1) - around.y0,
            grid.col_positions(window.x0, window.x1) - around.x0,
        )


def decided(
    window: Window,
    proba_kyx: FloatArray,
    classifier: PixelClassifier,
    settings: ClassifierSettings,
) -> TileResult:
    """Return the result of a window from its class probabilities."""
    flat = proba_kyx.reshape(len(proba_kyx), -1)
    labels = decide(
        flat, classifier.class_ids, settings.unsure_below, settings.unsure_id
    )
    return TileResult(
        index=0,
        total=0,
        window=window,
        labels_yx=labels.reshape(window.shape),
        proba_kyx=proba_kyx,
        uncertainty_yx=entropy_uncertainty(flat).reshape(window.shape),
    )


def classify_cells(
    features: PixelFeatures, classifier: PixelClassifier, cells: Window, every: int = 1
) -> FloatArray:
    """Return class probabilities at some token centres, (r, c, K) float32."""
    block = features.cells_in(cells, every)
    proba = classifier.predict_proba(block.reshape(len(block), -1))
    return np.ascontiguousarray(np.moveaxis(proba.reshape(-1, *block.shape[1:]), 0, -1))


def iter_tiles(
    features: PixelFeatures,
    classifier: PixelClassifier,
    settings: ClassifierSettings,
    *,
    order: str | Sequence[int] = "centre-out",
    focus: tuple[float, float] | None = None,
    workers: int | None = None,
) -> Iterator[TileResult]:
    """Yield the segmentation of an image tile by tile.

    Parameters
    ----------
    features : PixelFeatures
        Of the image.
    classifier : PixelClassifier
        Fitted on the same features.
    settings : ClassifierSettings
        Resolution and "not sure".
    order : "centre-out", "reading" or sequence of int
        Order of the tiles; a sequence may leave tiles out.
    focus : tuple of float, optional
        Row and column that "centre-out" starts from.
    workers : int, optional
        Threads; all cores by default.

    Yields
    ------
    TileResult
        In the order asked for.
    """
    if classifier.n_features != features.n_features:
        raise SettingsError(
            f"The classifier was trained on {classifier.n_features} features per "
            f"pixel, this image gives {features.n_features}. Use the same channels, "
            f"backbone and feature settings as in training."
        )
    windows = pixel_tiles(features.embedding.shape)
    indices = _resolve_order(order, windows, focus)
    job = TileJob(features, classifier, settings)
    workers = workers or default_workers()
    for k, result in enumerate(
        iter_threaded(job, [windows[i] for i in indices], workers)
    ):
        yield replace(result, index=k, total=len(indices))


def _resolve_order(
    order: str | Sequence[int],
    windows: list[Window],
    focus: tuple[float, float] | None,
) -> list[int]:
    if isinstance(order, str):
        if order == "centre-out":
            return centre_out(windows, focus)
        if order == "reading":
            return list(range(len(windows)))
        raise SettingsError(
            f"`order` must be 'centre-out', 'reading' or tile numbers, got {order!r}."
        )
    bad = [i for i in order if not 0 <= i < len(windows)]
    if bad:
        raise SettingsError(
            f"`order` must hold tile numbers from 0 to {len(windows) - 1}, got {bad}."
        )
    return list(order)
