"""Scribbles: a sparse label image becomes a list of painted pixels.

0 is unlabelled, any positive id is a class, gaps allowed. Only this module knows what
makes scribbles unusable; what a class is called is the classifier's business.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import AnnotationError, IntArray

__all__ = ["Annotations", "refuse_negative"]

# Ids are stored in 16 bits at most: nobody paints more classes than that.
MAX_CLASS_ID = 65535


@dataclass(frozen=True, slots=True)
class Annotations:
    """Painted pixels of one image in reading order.

    Attributes
    ----------
    rows, cols : (N,) int64
        Where.
    ids : (N,) int64
        Class id as painted, 1 to 65535.

    Examples
    --------
    >>> a = Annotations.from_bands([np.array([[0, 7], [2, 0]])])
    >>> a.ids.tolist(), a.class_ids
    ([7, 2], (2, 7))
    """

    rows: npt.NDArray[np.int64]
    cols: npt.NDArray[np.int64]
    ids: npt.NDArray[np.int64]

    @classmethod
    def from_bands(
        cls,
        bands: Iterable[npt.NDArray[Any]],
        *,
        name: str = "labels",
        may_be_empty: bool = False,
    ) -> Annotations:
        """Collect the painted pixels of a label image that comes in bands of rows.

        Parameters
        ----------
        bands : iterable of (h, X) array of int or bool
            From the first row to the last; one at a time is held.
        name : str
            Used in messages.
        may_be_empty : bool
            Whether no painted pixel at all is fine.

        Returns
        -------
        Annotations

        Raises
        ------
        AnnotationError
            If an id is negative or above 65535, or everything is 0.

        Examples
        --------
        >>> bands = [np.array([[0, 0]]), np.array([[0, 3]])]
        >>> a = Annotations.from_bands(bands)
        >>> a.rows.tolist(), a.cols.tolist(), a.ids.tolist()
        ([1], [1], [3])
        """
        none = np.zeros(0, np.int64)
        parts, y = [(none, none, none)], 0
        for band in bands:
            # many times quicker than `nonzero` where nearly everything is 0
            rows, cols = np.divmod(np.flatnonzero(band != 0), band.shape[1])
            parts.append((rows + y, cols, band[rows, cols].astype(np.int64)))
            y += len(band)
        rows, cols, ids = (np.concatenate(p) for p in zip(*parts, strict=True))
        if not ids.size and not may_be_empty:
            raise AnnotationError(
                f"{name!r} has no painted pixel: everything is 0. Paint a few strokes "
                f"of at least two classes."
            )
        refuse_negative(ids, name)
        if ids.size and ids.max() > MAX_CLASS_ID:
            raise AnnotationError(
                f"{name!r} must hold ids from 0 to {MAX_CLASS_ID}, got "
                f"{ids.min()} to {ids.max()}. Give every class a smaller id."
            )
        return cls(rows, cols, ids)

    def check_inside(self, image_shape: tuple[int, int]) -> None:
        """Raise an `AnnotationError` if a painted pixel lies outside an image."""
        for axis, at, n in (
            ("row", self.rows, image_shape[0]),
            ("column", self.cols, image_shape[1]),
        ):
            if at.size and (at.min() < 0 or at.max() >= n):
                raise AnnotationError(
                    f"Painted pixels must lie in the image of {image_shape[0]} x "
                    f"{image_shape[1]} pixels, got a {axis} from {at.min()} to "
                    f"{at.max()}. Pair each image with its own labels."
                )

    @property
    def class_ids(self) -> tuple[int, ...]:
        """Ids that occur, ascending."""
        return tuple(int(i) for i in np.unique(self.ids))


def refuse_negative(ids: IntArray, name: str) -> None:
    """Raise an `AnnotationError` if an id is below 0."""
    if ids.dtype.kind == "i" and ids.size and ids.min() < 0:
        raise AnnotationError(
            f"{name}: expected ids from 0 (unlabelled) up, got {ids.min()}. Give "
            "every class a positive id."
        )
