"""What a live run is asked and what it answers: a view, and one class per event.

Values only; `_live` makes them. Only this module knows how a view is cut to the image
and how many samples a screen may ask for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import FloatArray, SettingsError, TileResult, Window
from napari_alibi_seg._segmenter._tokens import overlap

__all__ = [
    "Beat",
    "Finished",
    "LiveEvent",
    "Preview",
    "Tile",
    "Trained",
    "View",
    "Visible",
    "least_step",
]

_Labels: TypeAlias = npt.NDArray[np.unsignedinteger[Any]]

# What a screen shows: larger views get a larger step.
_VISIBLE_SAMPLES = 1200 * 900


@dataclass(frozen=True, slots=True)
class View:
    """The part of an image that is on the screen.

    Attributes
    ----------
    window : Window
        Visible image pixels; may exceed the image.
    step : int
        Image pixels per sample of the screen, 1 or more.

    Raises
    ------
    SettingsError
        If the window is empty or `step` is below 1.

    Examples
    --------
    >>> View(Window(0, 1800, 0, 2400), step=2).samples
    (900, 1200)
    """

    window: Window
    step: int = 1

    def __post_init__(self) -> None:
        if self.step < 1 or min(self.window.shape) < 1:
            raise SettingsError(
                "A view needs a window of a pixel or more and a `step` of 1 or more, "
                f"got {self.window} and {self.step!r}."
            )

    @property
    def samples(self) -> tuple[int, int]:
        """Rows and columns on the screen."""
        h, w = self.window.shape
        return -(-h // self.step), -(-w // self.step)

    @property
    def focus(self) -> tuple[float, float]:
        """Row and column of the middle."""
        w = self.window
        return (w.y0 + w.y1) / 2, (w.x0 + w.x1) / 2

    def within(self, shape: tuple[int, int]) -> View | None:
        """Return the part that lies in an image, at a step that bounds the samples.

        None if no pixel of the image is visible.
        """
        w = self.window
        if not overlap(w, Window(0, shape[0], 0, shape[1])):
            return None
        cut = Window(
            max(w.y0, 0), min(w.y1, shape[0]), max(w.x0, 0), min(w.x1, shape[1])
        )
        return View(cut, least_step(cut, self.step, _VISIBLE_SAMPLES))


def least_step(window: Window, step: int, most: int) -> int:
    """Return the smallest step from `step` up that gives at most `most` samples."""
    h, w = window.shape
    step = max(step, math.isqrt(h * w // most))
    while -(-h // step) * -(-w // step) > most:
        step += 1
    return step


@dataclass(frozen=True, slots=True)
class Beat:
    """A sign of life between two events that show something; a good place to stop.

    Attributes
    ----------
    stage : {"features", "samples", "preview", "training", "result"}
        What is being done.
    done, total : int
        How far it is.
    """

    stage: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Preview:
    """A first guess at what is visible, of a small classifier that is not kept.

    Attributes
    ----------
    window : Window
        Pixels of the image.
    step : int
        Pixels per sample: sample (i, j) stands for the block of `step` pixels a side
        from ``(y0 + i * step, x0 + j * step)`` on.
    labels_yx : (h, w) array of unsigned int
        Class ids as painted.
    uncertainty_yx : (h, w) float32
        0 to 1.
    class_ids : tuple of int
        Ascending.
    """

    window: Window
    step: int
    labels_yx: _Labels
    uncertainty_yx: FloatArray
    class_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Trained:
    """The segmenter is fitted; all that follows is its result.

    Attributes
    ----------
    class_ids : tuple of int
        Ascending.
    seconds : float
        Time of the fit.
    """

    class_ids: tuple[int, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Visible:
    """The result in a part of the view, at screen resolution.

    The windows of a run partition the view. A sample is the result of the middle
    pixel of its block, byte for byte.

    Attributes
    ----------
    window, step, labels_yx, uncertainty_yx
        As of a `Preview`.
    proba_kyx : (K, h, w) float32
        Of the classes in ascending order.
    """

    window: Window
    step: int
    labels_yx: _Labels
    uncertainty_yx: FloatArray
    proba_kyx: FloatArray


@dataclass(frozen=True, slots=True)
class Tile:
    """A piece of the result at full resolution.

    Attributes
    ----------
    result : TileResult
        As of `Segmenter.iter_predict`.
    """

    result: TileResult


@dataclass(frozen=True, slots=True)
class Finished:
    """All tiles are done.

    Attributes
    ----------
    fractions : dict of int to float
        Area fraction by id, as of `Segmentation.fractions`.
    """

    fractions: dict[int, float]


LiveEvent: TypeAlias = Beat | Preview | Trained | Visible | Tile | Finished
