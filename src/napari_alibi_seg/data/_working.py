"""An image as the features see it: chosen channels, one intensity range, any scale.

Binds an image source to the channels and the range decided for it, and reads windows:
`read` on image pixels (classical features), `read_scaled` on working pixels with
mirrored borders (ViT tiles). Windows agree where they overlap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_alibi_seg._base import FloatArray, Window
from napari_alibi_seg.data._intensity import IntensityRange, working_channels
from napari_alibi_seg.data._resample import linear_weights, reflect_index, resize
from napari_alibi_seg.data._source import ImageSource
from napari_alibi_seg.data._tiling import TokenGrid

__all__ = ["WorkingImage"]


@dataclass(frozen=True)
class WorkingImage:
    """Windows of working values of one image.

    Parameters
    ----------
    source : ImageSource
        The raw image.
    channels : "grey", "rgb" or tuple of int
        From `resolve_channels`.
    intensity : IntensityRange
        Of this image, or the one frozen in a classifier.

    Examples
    --------
    >>> from napari_alibi_seg.data import open_image
    >>> source = open_image(np.arange(20, dtype=np.uint8).reshape(4, 5))
    >>> image = WorkingImage(source, "grey", IntensityRange((0.0,), (20.0,), (10.0,)))
    >>> image.read(Window(0, 1, 0, 3)).round(2).tolist()
    [[[0.0, 0.05000000074505806, 0.10000000149011612]]]
    """

    source: ImageSource
    channels: Any
    intensity: IntensityRange

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns in image pixels."""
        return self.source.shape

    @property
    def n_channels(self) -> int:
        """Working channels."""
        if isinstance(self.channels, tuple):
            return len(self.channels)
        return 3 if self.channels == "rgb" else 1

    def read(self, window: Window) -> FloatArray:
        """Return the (C, h, w) float32 working values of image pixels."""
        raw = working_channels(self.source.read(window), self.channels)
        return self.intensity.apply(raw)

    def read_scaled(self, window: Window, grid: TokenGrid) -> FloatArray:
        """Return the (C, h, w) float32 values of working pixels, mirrored outside.

        Parameters
        ----------
        window : Window
            In working pixels of `grid`; may reach beyond the image.
        grid : TokenGrid
            Knows the working shape.
        """
        rows = reflect_index(window.y0, window.y1, grid.working_shape[0])
        cols = reflect_index(window.x0, window.x1, grid.working_shape[1])
        inner = Window(
            int(rows.min()), int(rows.max()) + 1, int(cols.min()), int(cols.max()) + 1
        )
        block = self._resized(inner, grid)
        if inner != window:
            block = block[:, rows - inner.y0][:, :, cols - inner.x0]
        return block

    def _resized(self, window: Window, grid: TokenGrid) -> FloatArray:
        if grid.working_shape == self.shape:
            return self.read(window)
        weights = []
        for start, stop, axis in (
            (window.y0, window.y1, 0),
            (window.x0, window.x1, 1),
        ):
            ratio = self.shape[axis] / grid.working_shape[axis]
            at = (np.arange(start, stop, dtype=np.float64) + 0.5) * ratio - 0.5
            weights.append(linear_weights(at, self.shape[axis], support=ratio))
        y, x = weights
        block = self.read(Window(y.start, y.stop, x.start, x.stop))
        return resize(block, y, x)
