"""Bias or content: which of the two a probe of position follows.

Bias follows the frame: it stays where it was when the image is moved. Shading of the
image, and whatever else it shows, moves along. So a probe fitted on images is read on
the same images moved, and its answer is split into a part that goes with the frame and
a part that goes with the content. Moving images is told here; computing their features
is left to the caller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import SettingsError
from napari_alibi_seg.analysis._regression import Float, Reader, fit_reader

__all__ = [
    "MOVES",
    "FrameControl",
    "Index",
    "Verdict",
    "block_folds",
    "crossfitted",
    "move_image",
    "move_index",
    "shares",
]

Verdict = Literal["bias", "content", "both", "neither"]
Index = npt.NDArray[np.intp]

MOVES: tuple[str, ...] = ("flip", "roll")
# The least share of a ramp that counts. Shrinkage by the ridge penalty makes shares
# too small, never too large.
_MIN_SHARE = 0.15
# Of its variance. A target that a move changes by less cannot tell frame and content
# apart; the others change by 2 or more.
_MIN_DIFFERENCE = 0.2


@dataclass(frozen=True, slots=True)
class FrameControl:
    """What the answer of a probe follows.

    Attributes
    ----------
    frame : float
        Share of the ramp that is read at the same place of the frame, whatever lies
        there: bias.
    content : float
        Share that is read at the same place of the image, wherever that lies.
    content_floor : float
        Share that smooth noise hardly ever gives, mean and two standard deviations:
        tokens near each other are alike.
    verdict : {"bias", "content", "both", "neither"}
        Which of the two are above 0.15, the content above its floor too.
    """

    frame: float
    content: float
    content_floor: float
    verdict: Verdict

    @classmethod
    def of(cls, frame: float, content: float, content_floor: float) -> FrameControl:
        """Return the shares with their verdict."""
        is_bias = frame > _MIN_SHARE
        is_content = content > max(_MIN_SHARE, content_floor)
        verdict: Verdict = "neither"
        if is_bias:
            verdict = "both" if is_content else "bias"
        elif is_content:
            verdict = "content"
        return cls(frame, content, content_floor, verdict)


def move_image(
    image: npt.NDArray[Any], kind: str, patch_size: int = 1
) -> npt.NDArray[Any]:
    """Return an image moved within its frame.

    Parameters
    ----------
    image : (Y, X, ...) array
        Sides are multiples of the patch size.
    kind : str
        "flip" turns it by half a turn. "roll" shifts it by half its tokens along both
        axes, what leaves on one side coming in on the other; it tells the radial ramp
        too, but makes a seam.
    patch_size : int
        Pixels of a token; 1 for a token map.

    Returns
    -------
    array of the same shape and type

    Raises
    ------
    SettingsError
        If the move is unknown or the sides are no multiples of the patch size.

    Examples
    --------
    >>> move_image(np.array([[1, 2, 3, 4]]), "roll")
    array([[3, 4, 1, 2]])
    """
    height, width = image.shape[:2]
    if patch_size < 1 or height % patch_size or width % patch_size:
        raise SettingsError(
            f"The image must have sides that are multiples of the patch size "
            f"{patch_size}, got {(height, width)}. Crop it first."
        )
    if kind == "flip":
        return image[::-1, ::-1]
    if kind == "roll":
        shift = tuple(n // patch_size // 2 * patch_size for n in (height, width))
        return np.roll(image, shift, axis=(0, 1))
    raise SettingsError(f"`kind` must be one of {MOVES}, got {kind!r}.")


def move_index(shape: tuple[int, int], kind: str) -> Index:
    """Return which token of the image lies at each place after a move, (h * w,)."""
    h, w = shape
    return move_image(np.arange(h * w).reshape(h, w), kind).reshape(-1)


def block_folds(shape: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Return the quarter of the frame each token lies in, (h * w,).

    Smaller blocks would do little: a token is known by its neighbours in the next.
    """
    h, w = shape
    row, col = np.arange(h) * 2 // h, np.arange(w) * 2 // w
    return (2 * row[:, None] + col).reshape(-1)


def crossfitted(
    x: Float,
    y: Float,
    folds: npt.NDArray[np.int64],
    moved: Mapping[str, tuple[Float, Index]],
    alpha: float,
) -> tuple[Float, dict[str, Float]]:
    """Read every token by a regression that did not see its quarter of the image.

    Parameters
    ----------
    x : (N, C) float64
        Tokens of one image.
    y : (N, t) float64
        Targets.
    folds : (N,) int
        Quarter of each token.
    moved : mapping
        Tokens of the moved image, and which token of the image lies where.
    alpha : float
        Strength of the ridge penalty.

    Returns
    -------
    (N, t) float64, dict of (N, t) float64
        What was read in the image, and in the moved ones.
    """
    read = np.empty_like(y)
    other = {kind: np.empty_like(y) for kind in moved}
    for fold in np.unique(folds):
        own = folds == fold
        reader: Reader = fit_reader(x[~own], y[~own], alpha)
        read[own] = reader.read(x[own])
        for kind, (tokens, index) in moved.items():
            there = own[index]  # where the content of this quarter lies now
            other[kind][there] = reader.read(tokens[there])
    return read, other


def shares(
    y: Float,
    read: Sequence[Float],
    moved: Mapping[str, tuple[Sequence[Float], Index]],
) -> Float:
    """Split what was read into frame and content.

    Least squares of the readings of the images, which are both at once, and of the
    moved images, where the frame says one place and the content another.

    Parameters
    ----------
    y : (N, t) float64
        Targets by place in the frame.
    read : sequence of (N, t) float64
        What was read in each image.
    moved : mapping
        What was read in each moved image, and which token lies where.

    Returns
    -------
    (t, 2) float64
        Shares of frame and content; NaN where no move changes the target.
    """
    centred = y - y.mean(axis=0)
    rows = [(p, centred, centred) for p in read]
    for readings, index in moved.values():
        rows += [(p, centred, centred[index]) for p in readings]
    out = np.full((y.shape[1], 2), np.nan)
    for column in range(y.shape[1]):
        # a mean of its own for every map: an offset says nothing of place
        found = np.concatenate([p[:, column] - p[:, column].mean() for p, _, _ in rows])
        sides = [np.concatenate([r[side][:, column] for r in rows]) for side in (1, 2)]
        power = sides[0] @ sides[0]
        apart = ((sides[0] - sides[1]) ** 2).sum()
        if power and apart > _MIN_DIFFERENCE * power:
            out[column] = np.linalg.lstsq(np.stack(sides, 1), found, rcond=None)[0]
    return out
