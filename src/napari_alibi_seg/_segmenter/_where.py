"""Where to paint next: the middle of the least certain neighbourhood.

Works on any map of uncertainty, of the whole image or of a view at screen resolution;
what a row means in pixels is the caller's knowledge.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import AnnotationError, FloatArray, SettingsError

__all__ = ["least_certain"]

# Uncertainties become integers, so that sums are exact and ties are ties.
_LEVELS = 1 << 16


def least_certain(
    uncertainty_yx: FloatArray, painted_yx: npt.NDArray[Any], *, radius: int
) -> tuple[int, int]:
    """Return where the mean uncertainty of a square neighbourhood is highest.

    Parameters
    ----------
    uncertainty_yx : (Y, X) float array
        0 to 1; every n-th pixel will do.
    painted_yx : (Y, X) array of int or bool
        Not 0 where something is painted, on the same lattice.
    radius : int
        Half the side of a neighbourhood, in samples; 0 is a single sample.

    Returns
    -------
    tuple of int
        Row and column. Neighbourhoods with a painted sample do not count, unless there
        is no other; then single painted samples do not. Of equals the one in the less
        certain surroundings, of twice the radius, is taken, then the first.

    Raises
    ------
    SettingsError
        If shapes differ or `radius` is negative.
    AnnotationError
        If every sample is painted.

    Examples
    --------
    >>> uncertainty = np.zeros((9, 9), np.float32)
    >>> uncertainty[1:4, 5:8] = 0.8
    >>> least_certain(uncertainty, np.zeros((9, 9), np.uint8), radius=1)
    (2, 6)
    """
    uncertainty_yx = np.asarray(uncertainty_yx)
    painted = np.asarray(painted_yx) != 0
    if uncertainty_yx.ndim != 2 or uncertainty_yx.shape != painted.shape or radius < 0:
        raise SettingsError(
            "`uncertainty_yx` and `painted_yx` must be (Y, X) arrays of one shape and "
            f"`radius` 0 or more, got {uncertainty_yx.shape}, {painted.shape} and "
            f"{radius!r}."
        )
    free = _box_sum(painted.astype(np.int64), radius) == 0
    if not free.any():
        free = ~painted
    if not free.any():
        raise AnnotationError(
            "Every pixel of this part is painted, so there is no place left to paint. "
            "Look at another part of the image."
        )
    level = np.rint(np.clip(uncertainty_yx, 0, 1) * (_LEVELS - 1)).astype(np.int64)
    for reach in (radius, 2 * radius):
        mean = np.where(free, _box_mean(level, reach), -1)
        free = mean == mean.max()
    row, col = divmod(int(free.argmax()), free.shape[1])
    return row, col


def _box_mean(values: npt.NDArray[np.int64], radius: int) -> npt.NDArray[np.float64]:
    """Return the mean of the part of a square around each sample that exists."""
    n = _box_sum(np.ones_like(values), radius)
    return _box_sum(values, radius) / n


def _box_sum(values: npt.NDArray[np.int64], radius: int) -> npt.NDArray[np.int64]:
    for axis in range(2):
        n = values.shape[axis]
        sums = np.insert(np.cumsum(values, axis=axis), 0, 0, axis=axis)
        at = np.arange(n)
        last = np.minimum(at + radius + 1, n)
        first = np.maximum(at - radius, 0)
        values = sums.take(last, axis=axis) - sums.take(first, axis=axis)
    return values
