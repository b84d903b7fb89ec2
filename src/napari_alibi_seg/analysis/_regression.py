"""Ridge regression of positions on tokens: the arithmetic that all probes share.

Several targets are read in one solve. What is asked, of which tokens, and what a
number means is left to the probes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import SettingsError

__all__ = [
    "Float",
    "Reader",
    "fit_reader",
    "r2_alone",
    "r2_columns",
    "scaling",
    "stacked",
]

Float = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Reader:
    """A fitted regression.

    Attributes
    ----------
    mean, scale : (C,) float64
        What channels are standardised with.
    weights : (C, t) float64
        Of standardised channels.
    intercept : (t,) float64
        Of each target.
    """

    mean: Float
    scale: Float
    weights: Float
    intercept: Float

    def standardised(self, x: Float) -> Float:
        """Return the (N, C) tokens as the regression sees them."""
        return (x - self.mean) / self.scale

    def read(self, x: Float) -> Float:
        """Return the (N, t) targets read from (N, C) tokens."""
        return self.standardised(x) @ self.weights + self.intercept


def fit_reader(x: Float, y: Float, alpha: float, *, standardise: bool = True) -> Reader:
    """Fit (N, t) targets to (N, C) tokens; the intercept is not penalised."""
    mean, scale = scaling(x, standardise)
    return Reader(mean, scale, *_ridge((x - mean) / scale, y, alpha))


def stacked(maps: Sequence[npt.ArrayLike]) -> Float:
    """Return maps of one shape as an (n, h, w, C) array without NaN or infinities."""
    arrays = [np.asarray(m) for m in maps]
    shapes = {a.shape for a in arrays}
    if len(shapes) != 1 or arrays[0].ndim != 3:
        raise SettingsError(
            "`maps` must be (h, w, C) arrays of one shape, got "
            f"{sorted(shapes) if shapes else 'none'}."
        )
    out = np.empty((len(arrays), *arrays[0].shape))
    for one, array in zip(out, arrays, strict=True):  # hundreds of MB: no second copy
        one[...] = array
    return np.nan_to_num(out, copy=False, nan=0.0, posinf=0.0, neginf=0.0)


def scaling(x: Float, standardise: bool) -> tuple[Float, Float]:
    """Return what to take off each channel, and what to divide it by."""
    if not standardise:
        return np.zeros(x.shape[1]), np.ones(x.shape[1])
    scale = x.std(axis=0)
    # a constant channel stays as it is, whatever rounding made of it
    tiny = 10 * np.finfo(np.float64).eps * np.abs(x).max(axis=0, initial=0.0)
    return x.mean(axis=0), np.where(scale <= tiny, 1.0, scale)


def _ridge(x: Float, y: Float, alpha: float) -> tuple[Float, Float]:
    """Return the (C, t) weights and (t,) intercept; the smaller system is solved."""
    x_mean, y_mean = x.mean(axis=0), y.mean(axis=0)
    xc, yc = x - x_mean, y - y_mean
    n, c = xc.shape
    if alpha == 0:
        weights = np.linalg.lstsq(xc, yc, rcond=None)[0]
    elif n < c:
        weights = xc.T @ np.linalg.solve(xc @ xc.T + alpha * np.eye(n), yc)
    else:
        weights = np.linalg.solve(xc.T @ xc + alpha * np.eye(c), xc.T @ yc)
    return weights, y_mean - x_mean @ weights


def r2_columns(truth: Float, prediction: Float) -> Float:
    """Return the R2 of each target, (t,); a constant one that is not met counts 0."""
    residual = ((truth - prediction) ** 2).sum(axis=0)
    total = ((truth - truth.mean(axis=0)) ** 2).sum(axis=0)
    exact = np.where(residual > 0, 0.0, 1.0)
    ratio = residual / np.where(total > 0, total, 1.0)
    return np.where(total > 0, 1 - ratio, exact)


def r2_alone(
    fit_x: Float, fit_y: Float, new_x: Float, new_y: Float, alpha: float
) -> Float:
    """Return the R2 of every target from every channel by itself, (C, t).

    With one channel the regression is a ratio of sums, and its R2 follows from the
    sums of squares and products over the scored tokens.
    """
    x_mean, y_mean = fit_x.mean(axis=0), fit_y.mean(axis=0)
    xc, yc = fit_x - x_mean, fit_y - y_mean
    power = (xc**2).sum(axis=0)[:, None] + alpha  # (C, 1)
    slope = np.divide(
        xc.T @ yc, power, out=np.zeros((xc.shape[1], yc.shape[1])), where=power > 0
    )  # (C, t)
    xs, ys = new_x - x_mean, new_y - y_mean
    n = len(ys)
    # sum over tokens of (y - slope x)^2, without a (tokens, C, t) array
    residual = (
        (ys**2).sum(axis=0)
        - 2 * slope * (xs.T @ ys)
        + slope**2 * np.einsum("nc,nc->c", xs, xs)[:, None]
    )
    total = (ys**2).sum(axis=0) - n * ys.mean(axis=0) ** 2
    safe = np.where(total > 0, total, 1.0)
    return np.where(total > 0, 1 - residual / safe, 0.0)
