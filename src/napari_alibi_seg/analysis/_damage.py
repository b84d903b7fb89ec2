"""What position bias does to a segmentation: the painted side against the other.

A classifier trained on strokes of the left side only, on features that know place,
learns the place for a class. Training is left to others; this compares what came out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import AnnotationError, SettingsError
from napari_alibi_seg.data import confusion

__all__ = ["SideScores", "segmentation_damage"]


@dataclass(frozen=True, slots=True)
class SideScores:
    """Agreement left and right of a line.

    Attributes
    ----------
    left, right : float
        Mean IoU over the classes that the truth has on both sides.
    classes : tuple of int
        Those classes.
    """

    left: float
    right: float
    classes: tuple[int, ...]

    @property
    def gap(self) -> float:
        """Left less right: what was lost away from the painted side."""
        return self.left - self.right


def segmentation_damage(
    prediction: npt.ArrayLike,
    truth: npt.ArrayLike,
    *,
    split: float = 0.5,
    ignore: int | None = 255,
) -> SideScores:
    """Score a segmentation left and right of a line.

    Parameters
    ----------
    prediction, truth : (Y, X) array of int
        Class ids.
    split : float
        Where the line lies, as a share of the width.
    ignore : int or None
        Truth id whose pixels do not count.

    Returns
    -------
    SideScores

    Raises
    ------
    SettingsError
        If the line leaves one side without pixels.
    AnnotationError
        If shapes differ, or no class lies on both sides.

    Examples
    --------
    >>> truth = np.array([[1, 2, 1, 2]])
    >>> segmentation_damage([[1, 2, 2, 2]], truth)
    SideScores(left=1.0, right=0.25, classes=(1, 2))
    >>> segmentation_damage([[1, 2, 2, 2]], truth).gap
    0.75
    """
    got, wanted = np.asarray(prediction), np.asarray(truth)
    if wanted.ndim != 2 or got.shape != wanted.shape:
        raise AnnotationError(
            f"`prediction` and `truth` must be (Y, X) arrays of one shape, got "
            f"{got.shape} and {wanted.shape}."
        )
    at = round(split * wanted.shape[1])
    if not 0 < at < wanted.shape[1]:
        raise SettingsError(
            f"`split` must leave pixels on both sides of {wanted.shape[1]} columns, "
            f"got {split!r}."
        )
    sides = [
        confusion(got[:, part], wanted[:, part], ignore=ignore).class_scores()
        for part in (slice(at), slice(at, None))
    ]
    common = tuple(sorted(set(sides[0]) & set(sides[1])))
    if not common:
        raise AnnotationError(
            f"No class lies on both sides of column {at}: left {sorted(sides[0])}, "
            f"right {sorted(sides[1])}. Choose another `split`."
        )
    left, other = (float(np.mean([s[i].iou for i in common])) for s in sides)
    return SideScores(left, other, common)
