"""Scribbles: a sparse label image becomes a list of painted pixels.

0 is unlabelled, any positive id is a class, gaps allowed. Only this module knows what
makes scribbles unusable; what a class is called is the classifier's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import AnnotationError

__all__ = ["Annotations"]

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
    >>> a = Annotations.from_labels(np.array([[0, 7], [2, 0]]), (2, 2))
    >>> a.ids.tolist(), a.class_ids
    ([7, 2], (2, 7))
    """

    rows: npt.NDArray[np.int64]
    cols: npt.NDArray[np.int64]
    ids: npt.NDArray[np.int64]

    @classmethod
    def from_labels(
        cls,
        labels: npt.NDArray[Any],
        image_shape: tuple[int, int],
        *,
        name: str = "labels",
    ) -> Annotations:
        """Collect the painted pixels of a label image.

        Parameters
        ----------
        labels : (Y, X) array of int or bool
            Class id per pixel, 0 = unlabelled.
        image_shape : tuple of int
            Rows and columns the labels must have.
        name : str
            Used in messages.

        Returns
        -------
        Annotations

        Raises
        ------
        AnnotationError
            If the labels are not integers, not of the image's shape, negative, above
            65535, or all 0.
        """
        labels = np.asarray(labels)
        if labels.dtype.kind not in "iub":
            raise AnnotationError(
                f"{name!r} must hold integer class ids (0 = unlabelled), got "
                f"{labels.dtype}. Save the scribbles as an integer label image."
            )
        if labels.shape != tuple(image_shape):
            raise AnnotationError(
                f"{name!r} must have the image's shape {tuple(image_shape)}, got "
                f"{labels.shape}. Paint on the same image, without resizing."
            )
        # many times quicker than `nonzero` where nearly everything is 0
        rows, cols = np.divmod(np.flatnonzero(labels != 0), labels.shape[1])
        ids = labels[rows, cols].astype(np.int64)
        if not ids.size:
            raise AnnotationError(
                f"{name!r} has no painted pixel: everything is 0. Paint a few strokes "
                f"of at least two classes."
            )
        if ids.min() < 0 or ids.max() > MAX_CLASS_ID:
            raise AnnotationError(
                f"{name!r} must hold ids from 0 to {MAX_CLASS_ID}, got "
                f"{ids.min()} to {ids.max()}."
            )
        return cls(rows, cols, ids)

    @property
    def class_ids(self) -> tuple[int, ...]:
        """Ids that occur, ascending."""
        return tuple(int(i) for i in np.unique(self.ids))
