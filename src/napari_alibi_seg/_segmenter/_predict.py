"""From features to labels, probabilities and uncertainty, tile by tile.

One generator serves files, arrays, progress bars and viewers. Tiles lie on a fixed
grid and each is computed alone, so order and number of workers change nothing in the
result; at most a few tiles are in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
from napari_alibi_seg.data import centre_out, pixel_tiles, sample_grid
from napari_alibi_seg.learn import decide, entropy_uncertainty

if TYPE_CHECKING:
    from napari_alibi_seg.learn import PixelClassifier

__all__ = ["iter_tiles"]


@dataclass(frozen=True)
class _TileJob:
    """Classify one window; called from several threads at once."""

    features: PixelFeatures
    classifier: PixelClassifier
    settings: ClassifierSettings
    cells_rck: FloatArray | None

    def __call__(self, window: Window) -> TileResult:
        height, width = window.shape
        n_classes = len(self.classifier.class_ids)
        proba = np.empty((n_classes, height, width), np.float32)
        if self.cells_rck is not None:
            grid = self.features.embedding.grid
            rows = grid.row_positions(window.y0, window.y1)
            cols = grid.col_positions(window.x0, window.x1)
            sample_grid(self.cells_rck, rows, cols, proba)
        else:
            for strip, block in self.features.strips(window):
                flat = block.reshape(len(block), -1)
                part = self.classifier.predict_proba(flat)
                proba[:, strip.y0 - window.y0 : strip.y1 - window.y0] = part.reshape(
                    n_classes, *strip.shape
                )
        flat = proba.reshape(n_classes, -1)
        labels = decide(
            flat,
            self.classifier.class_ids,
            self.settings.unsure_below,
            self.settings.unsure_id,
        )
        uncertainty = entropy_uncertainty(flat)
        return TileResult(
            index=0,
            total=0,
            window=window,
            labels_yx=labels.reshape(height, width),
            proba_kyx=proba,
            uncertainty_yx=uncertainty.reshape(height, width),
        )


def _classify_cells(features: PixelFeatures, classifier: PixelClassifier) -> FloatArray:
    """Return class probabilities at every token centre, (R, C, K) float32."""
    proba = classifier.predict_proba(features.at_cells())
    grid = features.embedding.grid
    return np.ascontiguousarray(np.moveaxis(proba.reshape(-1, *grid.shape), 0, -1))


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
    cells = None
    if settings.resolution == "patch":
        cells = _classify_cells(features, classifier)
    job = _TileJob(features, classifier, settings, cells)
    workers = workers or default_workers()
    for k, result in enumerate(
        iter_threaded(job, [windows[i] for i in indices], workers)
    ):
        yield TileResult(
            index=k,
            total=len(indices),
            window=result.window,
            labels_yx=result.labels_yx,
            proba_kyx=result.proba_kyx,
            uncertainty_yx=result.uncertainty_yx,
        )


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
