"""Linear resampling of windows of a large grid, equal whatever the windows.

Two ways, both in global positions so that neighbouring windows meet exactly:
`sample_grid` interpolates a token map at pixels (two taps an axis, compiled), and
`linear_weights` makes the small matrices with which `resize` resizes a window of an
image, averaging when it shrinks. Sums are compiled loops in one order, not products of
BLAS, whose last bits change with its number of threads. Knows nothing of images or
tokens: `_tiling` turns pixels into positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import FloatArray
from napari_alibi_seg.data._compiled import compiled

__all__ = ["AxisWeights", "linear_weights", "reflect_index", "resize", "sample_grid"]


@compiled()
def _lerp(
    grid: FloatArray,
    row0: npt.NDArray[np.int64],
    row_frac: FloatArray,
    col0: npt.NDArray[np.int64],
    col_frac: FloatArray,
    out: FloatArray,
) -> None:
    n_rows, n_cols, n_features = grid.shape
    line = np.empty((n_features, n_cols), np.float32)
    width = col0.shape[0]
    for y in range(row0.shape[0]):
        upper, lower = row0[y], min(row0[y] + 1, n_rows - 1)
        b = row_frac[y]
        a = np.float32(1) - b
        for c in range(n_cols):
            for f in range(n_features):
                line[f, c] = a * grid[upper, c, f] + b * grid[lower, c, f]
        for f in range(n_features):
            for x in range(width):
                left = col0[x]
                right = min(left + 1, n_cols - 1)
                d = col_frac[x]
                out[f, y, x] = (np.float32(1) - d) * line[f, left] + d * line[f, right]


def sample_grid(
    grid: npt.NDArray[np.floating],
    row_positions: npt.NDArray[np.float64],
    col_positions: npt.NDArray[np.float64],
    out: FloatArray | None = None,
) -> FloatArray:
    """Interpolate a grid bilinearly at the product of row and column positions.

    Parameters
    ----------
    grid : (R, C, F) float array
        Values at integer positions.
    row_positions : (h,) float64
        In grid rows; clamped to 0 and R - 1.
    col_positions : (w,) float64
        In grid columns; clamped to 0 and C - 1.
    out : (F, h, w) float32, optional
        Where to put the result.

    Returns
    -------
    (F, h, w) float32

    Examples
    --------
    >>> grid = np.arange(4, dtype=np.float32).reshape(2, 2, 1)
    >>> sample_grid(grid, np.array([0.5]), np.array([0.0, 0.5, 9.0]))
    array([[[1. , 1.5, 2. ]]], dtype=float32)
    """
    rows = np.clip(row_positions, 0, grid.shape[0] - 1)
    cols = np.clip(col_positions, 0, grid.shape[1] - 1)
    row0, col0 = np.floor(rows).astype(np.int64), np.floor(cols).astype(np.int64)
    # only the part that is needed: windows of a large grid stay cheap
    top, bottom = int(row0.min()), min(int(row0.max()) + 2, grid.shape[0])
    first, last = int(col0.min()), min(int(col0.max()) + 2, grid.shape[1])
    if out is None:
        out = np.empty((grid.shape[2], len(rows), len(cols)), np.float32)
    _lerp(
        np.ascontiguousarray(grid[top:bottom, first:last], dtype=np.float32),
        row0 - top,
        (rows - row0).astype(np.float32),
        col0 - first,
        (cols - col0).astype(np.float32),
        out,
    )
    return out


@dataclass(frozen=True, slots=True)
class AxisWeights:
    """Weights that turn samples `start` to `stop` of an axis into new samples.

    Attributes
    ----------
    start, stop : int
        Range of input samples that the weights touch.
    matrix : (n_out, stop - start) float32
        Rows sum to one.
    """

    start: int
    stop: int
    matrix: FloatArray


def linear_weights(
    positions: npt.NDArray[np.float64], n_in: int, *, support: float = 1.0
) -> AxisWeights:
    """Return triangle weights that sample an axis at `positions`.

    Parameters
    ----------
    positions : (n_out,) float64
        Where to sample, in input samples: 0 is the centre of the first. Positions
        outside are clamped to the first or last sample.
    n_in : int
        Samples of the whole axis.
    support : float
        Half width of the triangle in input samples. 1 interpolates; a larger value
        averages, as is needed when shrinking by that factor.

    Returns
    -------
    AxisWeights
        For the narrowest input range.

    Examples
    --------
    >>> w = linear_weights(np.array([0.5, 1.0]), 4)
    >>> w.start, w.stop, w.matrix.tolist()
    (0, 2, [[0.5, 0.5], [0.0, 1.0]])
    """
    support = max(support, 1.0)
    at = np.clip(positions, 0.0, n_in - 1.0)
    taps = int(np.ceil(2 * support)) + 1
    index = np.ceil(at - support).astype(np.int64)[:, None] + np.arange(taps)
    weight = np.maximum(0.0, 1.0 - np.abs(index - at[:, None]) / support)
    # taps beyond the border are mirrored, so that shrinking keeps the border's mean
    index = np.clip(np.where(index < 0, -index - 1, index), 0, 2 * n_in - 1)
    index = np.clip(np.where(index >= n_in, 2 * n_in - 1 - index, index), 0, n_in - 1)
    weight /= weight.sum(axis=1, keepdims=True)
    used = index[weight > 0]
    start, stop = int(used.min()), int(used.max()) + 1
    matrix = np.zeros((len(at), stop - start))
    rows = np.broadcast_to(np.arange(len(at))[:, None], index.shape)
    keep = weight > 0
    np.add.at(matrix, (rows[keep], index[keep] - start), weight[keep])
    return AxisWeights(start, stop, matrix.astype(np.float32))


@compiled()
def _weigh(
    block: FloatArray,
    rows: FloatArray,
    row_span: npt.NDArray[np.int64],
    cols: FloatArray,
    col_span: npt.NDArray[np.int64],
    out: FloatArray,
) -> None:
    line = np.empty(block.shape[2], np.float32)
    for c in range(block.shape[0]):
        for y in range(rows.shape[0]):
            line[:] = np.float32(0)
            for k in range(row_span[y, 0], row_span[y, 1]):
                for x in range(line.shape[0]):
                    line[x] += rows[y, k] * block[c, k, x]
            for x in range(cols.shape[0]):
                total = np.float32(0)
                for k in range(col_span[x, 0], col_span[x, 1]):
                    total += cols[x, k] * line[k]
                out[c, y, x] = total


def resize(block: FloatArray, y: AxisWeights, x: AxisWeights) -> FloatArray:
    """Return what two axes of weights make of the samples that they touch.

    Parameters
    ----------
    block : (C, h, w) float32
        Samples `start` to `stop` of both.
    y, x : AxisWeights
        Of rows and columns.

    Returns
    -------
    (C, y out, x out) float32
        The same bits whatever else was asked for and on how many threads.

    Examples
    --------
    >>> half = linear_weights(np.array([0.5]), 2)
    >>> resize(np.arange(4, dtype=np.float32).reshape(1, 2, 2), half, half)
    array([[[1.5]]], dtype=float32)
    """
    out = np.empty((len(block), len(y.matrix), len(x.matrix)), np.float32)
    block = np.ascontiguousarray(block, np.float32)
    _weigh(block, y.matrix, _spans(y.matrix), x.matrix, _spans(x.matrix), out)
    return out


def _spans(matrix: FloatArray) -> npt.NDArray[np.int64]:
    """Return where the weights of each row begin and end."""
    used = matrix != 0
    n = matrix.shape[1]
    return np.stack([used.argmax(1), n - used[:, ::-1].argmax(1)], 1)


def reflect_index(start: int, stop: int, n: int) -> npt.NDArray[np.int64]:
    """Return indices into an axis of `n` samples, mirrored about its end samples.

    Examples
    --------
    >>> reflect_index(-2, 5, 3).tolist()
    [2, 1, 0, 1, 2, 1, 0]
    >>> reflect_index(0, 3, 1).tolist()
    [0, 0, 0]
    """
    if n == 1:
        return np.zeros(stop - start, np.int64)
    index = np.mod(np.arange(start, stop), 2 * (n - 1))
    return np.where(index < n, index, 2 * (n - 1) - index)
