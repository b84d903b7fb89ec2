"""Where the samples of a canvas lie on an image, and which canvas a view needs.

A canvas is a small array that stands for a part of a large image: sample (i, j) for the
block of `step` pixels a side at its place. Pure arithmetic; layers are
`_parts_stage`'s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_alibi_seg._base import Window

__all__ = ["Place", "place_around"]

# Blocks of scribbles are 256 pixels a side: a sample must not span two of them.
_MAX_STEP = 256
_MAX_SIDE = 4096
# Samples may be so much smaller than a pixel of the screen.
_FINER = 0.93
# Beside the view, in parts of it, so that not each move needs another canvas.
_MARGIN = 0.25


@dataclass(frozen=True, slots=True)
class Place:
    """The part of an image that a canvas covers.

    Attributes
    ----------
    window : Window
        Pixels of the image.
    step : int
        Pixels to a sample.

    Examples
    --------
    >>> Place(Window(0, 10, 8, 24), 4).samples
    (3, 4)
    """

    window: Window
    step: int

    @property
    def samples(self) -> tuple[int, int]:
        """Rows and columns of the canvas."""
        height, width = self.window.shape
        return -(-height // self.step), -(-width // self.step)

    def covers(self, window: Window) -> bool:
        """Return whether a window of the image lies in the place."""
        w = self.window
        return (
            w.y0 <= window.y0
            and window.y1 <= w.y1
            and w.x0 <= window.x0
            and window.x1 <= w.x1
        )

    def part(self, window: Window) -> Window | None:
        """Return the samples whose middle pixel lies in a window, None if none does.

        Examples
        --------
        >>> Place(Window(0, 16, 0, 16), 4).part(Window(4, 12, 3, 16))
        Window(y0=1, y1=3, x0=1, x1=4)
        """
        sides = []
        for origin, first, last, n in zip(
            (self.window.y0, self.window.x0),
            (window.y0, window.x0),
            (window.y1, window.x1),
            self.samples,
            strict=True,
        ):
            middle = origin + self.step // 2
            low, high = (-(-(x - middle) // self.step) for x in (first, last))
            sides += [max(low, 0), min(high, n)]
        y0, y1, x0, x1 = sides
        return Window(y0, y1, x0, x1) if y0 < y1 and x0 < x1 else None

    def sampled(
        self, window: Window, step: int, block: Any
    ) -> tuple[Window, Any] | None:
        """Return what a block of samples elsewhere says of the samples here.

        Parameters
        ----------
        window, step
            Where the block lies, and the pixels to one of its samples.
        block : (h, w) array
            Its samples.

        Returns
        -------
        (Window, array) or None
            Samples of this place, and their values; None if no sample lies in it.

        Examples
        --------
        >>> place = Place(Window(0, 8, 0, 8), 2)
        >>> where, values = place.sampled(Window(0, 8, 4, 8), 4, np.array([[3], [5]]))
        >>> where, values.tolist()
        (Window(y0=0, y1=4, x0=2, x1=4), [[3, 3], [3, 3], [5, 5], [5, 5]])
        """
        where = self.part(window)
        if where is None:
            return None
        if (
            step == self.step
            and (window.y0 - self.window.y0) % step
            == 0
            == (window.x0 - self.window.x0) % step
        ):
            height, width = where.shape
            return where, block[:height, :width]
        axes = []
        for own, other, low, high, n in (
            (self.window.y0, window.y0, where.y0, where.y1, block.shape[0]),
            (self.window.x0, window.x0, where.x0, where.x1, block.shape[1]),
        ):
            middles = own + np.arange(low, high) * self.step + self.step // 2
            axes.append(np.minimum((middles - other) // step, n - 1))
        return where, block[np.ix_(*axes)]


def place_around(window: Window, pixel: float, shape: tuple[int, int]) -> Place:
    """Return the place of a canvas to paint on: what is seen and some around it.

    Parameters
    ----------
    window : Window
        Seen pixels of the image; may exceed it.
    pixel : float
        Image pixels to one of the screen.
    shape : tuple of int
        Of the image.

    Examples
    --------
    >>> place = place_around(Window(5000, 6900, 5000, 8000), 2.0, (20000, 20000))
    >>> place.step, place.samples
    (2, (1426, 2250))
    """
    side = max(window.shape) * (1 + 2 * _MARGIN)
    step = _power_above(max(pixel * _FINER, side / _MAX_SIDE))
    sides = []
    for low, high, n in (
        (window.y0, window.y1, shape[0]),
        (window.x0, window.x1, shape[1]),
    ):
        margin = math.ceil((high - low) * _MARGIN)
        # on multiples of the step; the last sample may reach beyond the image
        first = max(0, min(low - margin, n - 1)) // step * step
        last = max(first + 1, min(n, high + margin))
        sides += [first, first + -(-(last - first) // step) * step]
    y0, y1, x0, x1 = sides
    return Place(Window(y0, y1, x0, x1), step)


def _power_above(value: float) -> int:
    step = 1 << max(0, math.ceil(math.log2(max(value, 1.0))))
    return min(step, _MAX_STEP)
