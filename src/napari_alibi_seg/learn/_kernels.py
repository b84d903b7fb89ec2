"""The three loops over pixels and tokens, compiled by numba.

Only this module imports numba, and only `_forest`, `_logistic` and `_projection`
import this module, at their first prediction: importing it compiles (or reads from
numba's cache on disk). All three kernels run on the caller's thread and release the
GIL; callers spread tiles over threads. None uses `prange`, whose default thread layer
must not be entered from several threads.

Every sum has a fixed order for each pixel, without contraction to fused
multiply-adds, so a pixel's result does not depend on its neighbours, on the length of
the chunk or on the width of the vector unit.

Indices are unsigned on purpose: numba wraps negative indices, and that test costs a
third of a walk down a tree.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from numba import types
from numba.extending import intrinsic

from napari_alibi_seg.data import compiled

__all__ = ["forest_proba", "linear_scores", "project_rows"]

_Array: TypeAlias = npt.NDArray[Any]
_Arrays: TypeAlias = tuple[_Array, ...]

_U = np.uint64
_ALL = np.uint32(0xFFFFFFFF)
_NO_LEAF = np.uint32(0xFFFFFFFF)
_LOW_HALF = np.uint64(0xFFFFFFFF)
_STEPS = 4  # levels walked before finished pixels are taken out; 4 beat 1 and 2
_ROW_PAD = 16  # keeps the rows of a scratch block off the same cache set


def _read(dtype: object, ndim: int, layout: str = "C") -> object:
    """Type of an array that is only read: takes any array that converts safely."""
    return types.Array(dtype, ndim, layout, readonly=True)


@intrinsic
def _trailing_zeros(typing_context: Any, bits: Any) -> Any:
    """Count the zeros below the lowest set bit."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        undefined_at_zero = context.get_constant(types.boolean, True)
        return builder.cttz(args[0], undefined_at_zero)

    return bits(bits), codegen


@compiled()
def _strike_out(x: _Array, n: int, block: _Arrays, t: int, alive: _Array) -> None:
    """Leave in `alive` the exits of tree `t`'s top block each pixel may still take.

    A node that sends a pixel right strikes out the exits left of it; the lowest exit
    that is left is the pixel's. Four nodes a pass keep `alive` in a register.
    """
    feature, threshold, mask, n_nodes = block
    for k in range(n):
        alive[k] = _ALL
    for j in range(0, n_nodes[t], 4):
        x0, t0, m0 = x[feature[t, j]], threshold[t, j], mask[t, j]
        x1, t1, m1 = x[feature[t, j + 1]], threshold[t, j + 1], mask[t, j + 1]
        x2, t2, m2 = x[feature[t, j + 2]], threshold[t, j + 2], mask[t, j + 2]
        x3, t3, m3 = x[feature[t, j + 3]], threshold[t, j + 3], mask[t, j + 3]
        for k in range(n):
            alive[k] = (
                alive[k]
                & (m0 if x0[k] > t0 else _ALL)
                & (m1 if x1[k] > t1 else _ALL)
                & (m2 if x2[k] > t2 else _ALL)
                & (m3 if x3[k] > t3 else _ALL)
            )


@compiled()
def _unfinished(
    n: int, alive: _Array, exits: _Arrays, t: int, pixel: _Array, node: _Array
) -> Any:
    """List the pixels whose exit is an inner node, with that node; return how many."""
    _, exit_node, open_exits = exits
    open_t, node_t = open_exits[t], exit_node[t]
    count = _U(0)
    for k in range(n):
        lowest = alive[k] & (~alive[k] + np.uint32(1))
        pixel[count] = k
        node[count] = node_t[_U(_trailing_zeros(alive[k]))]
        count += _U((lowest & open_t) != 0)
    return count


@compiled()
def _walk(
    x: _Array,
    trees: _Arrays,
    t: int,
    pixel: _Array,
    node: _Array,
    count: Any,
    total: _Array,
) -> None:
    """Walk the listed pixels down to their leaves and add the leaves' values.

    A leaf is its own child (threshold infinity), so that a few levels can be walked
    without asking who has arrived.
    """
    start, nodes, leaf_value = trees
    tree = nodes[start[t] : start[t + 1]]
    limit = tree.view(np.float32)
    flat, row = x.reshape(x.size), _U(x.shape[1])
    while count > 0:
        for _ in range(_STEPS):
            for a in range(count):
                q = _U(node[a])
                value = flat[_U(tree[q, 0]) * row + _U(pixel[a])]
                node[a] = tree[q, 2] + np.uint32(value > limit[q, 1])
        left_over = _U(0)
        for a in range(count):
            k, q = pixel[a], _U(node[a])
            pixel[left_over] = k
            node[left_over] = node[a]
            leaf = tree[q, 3]
            if leaf == _NO_LEAF:
                left_over += _U(1)
            else:
                for g in range(total.shape[0]):
                    total[g, _U(k)] += leaf_value[g, _U(leaf)]
        count = left_over


@compiled()
def _unpack(total: _Array, n: int, whole: int, out: _Array) -> None:
    """Turn packed fixed-point sums into probabilities.

    The last class is what the others leave of `whole` when it was not packed.
    """
    n_classes = out.shape[0]
    n_packed = min(n_classes, 2 * total.shape[0])
    scale = np.float64(whole)
    for k in range(n):
        rest = np.int64(whole)
        for c in range(n_packed):
            share = (total[c >> 1, k] >> _U(32 * (c & 1))) & _LOW_HALF
            rest -= np.int64(share)
            out[c, k] = np.float32(np.int64(share) / scale)
        if n_packed < n_classes:
            out[n_classes - 1, k] = np.float32(rest / scale)


_BLOCK = types.Tuple(
    [
        types.Array(types.uint32, 2, "C"),  # feature (T, 32)
        types.Array(types.float32, 2, "C"),  # threshold (T, 32)
        types.Array(types.uint32, 2, "C"),  # mask (T, 32)
        types.Array(types.int64, 1, "C"),  # nodes in use, a multiple of 4 (T,)
    ]
)
_EXITS = types.Tuple(
    [
        types.Array(types.uint64, 3, "C"),  # packed values (G, T, 32), 0 where open
        types.Array(types.uint32, 2, "C"),  # node within the tree (T, 32)
        types.Array(types.uint32, 1, "C"),  # bit set of exits that are inner nodes (T,)
    ]
)
_TREES = types.Tuple(
    [
        types.Array(types.int64, 1, "C"),  # start of each tree (T + 1,)
        types.Array(types.uint32, 2, "C"),  # feature, threshold bits, left, leaf (M, 4)
        types.Array(types.uint64, 2, "C"),  # packed values of leaves (G, L)
    ]
)
_OUT = types.Array(types.float32, 2, "A")


@compiled(
    types.void(
        _read(types.float32, 2, "A"), _BLOCK, _EXITS, _TREES, types.int64, types.int64,
        _OUT,
    )
)  # fmt: skip
def forest_proba(
    features: _Array,
    block: _Arrays,
    exits: _Arrays,
    trees: _Arrays,
    whole: int,
    width: int,
    out: _Array,
) -> None:
    """Fill `out` (K, N) with the forest's class probabilities of `features` (F, N).

    `width` pixels at a time are copied to scratch and sent through all trees.
    `whole` is the fixed-point sum that stands for probability 1.
    """
    n_features, n_pixels = features.shape
    exit_value = exits[0]
    x = np.empty((n_features, width + _ROW_PAD), np.float32)
    alive = np.empty(width, np.uint32)
    pixel = np.empty(width, np.uint32)
    node = np.empty(width, np.uint32)
    total = np.empty((exit_value.shape[0], width), np.uint64)
    for first in range(0, n_pixels, width):
        n = min(width, n_pixels - first)
        for f in range(n_features):
            for k in range(n):
                x[f, k] = features[f, first + k]
        total[:] = 0
        for t in range(exit_value.shape[1]):
            _strike_out(x, n, block, t, alive)
            for g in range(total.shape[0]):
                value, sums = exit_value[g, t], total[g]
                for k in range(n):
                    sums[k] += value[_U(_trailing_zeros(alive[k]))]
            if exits[2][t] != 0:
                count = _unfinished(n, alive, exits, t, pixel, node)
                _walk(x, trees, t, pixel, node, count, total)
        _unpack(total, n, whole, out[:, first:])


@compiled(
    types.void(
        _read(types.float32, 2, "A"),
        _read(types.float64, 2),
        _read(types.float64, 1),
        types.Array(types.float64, 2, "C"),
    )
)
def linear_scores(
    features: _Array, weights: _Array, offset: _Array, out: _Array
) -> None:
    """Fill `out` (K, N) with ``offset + weights @ features``, in feature order."""
    n_features, n_pixels = features.shape
    for first in range(0, n_pixels, 1024):
        last = min(first + 1024, n_pixels)
        for c in range(weights.shape[0]):
            row = out[c]
            for k in range(first, last):
                row[k] = offset[c]
            for f in range(n_features):
                weight, x = weights[c, f], features[f]
                for k in range(first, last):
                    row[k] += weight * np.float64(x[k])


@compiled(
    types.void(
        _read(types.float32, 2, "A"),
        _read(types.float64, 1),
        _read(types.float64, 2),
        types.Array(types.float32, 2, "A"),
    )
)
def project_rows(rows: _Array, mean: _Array, weights: _Array, out: _Array) -> None:
    """Fill `out` (N, n) with ``(rows - mean) @ weights``; `weights` is (C, n)."""
    n_rows, n_channels = rows.shape
    n_out = weights.shape[1]
    sums = np.empty(n_out, np.float64)
    for i in range(n_rows):
        sums[:] = 0.0
        for c in range(n_channels):
            value = np.float64(rows[i, c]) - mean[c]
            for j in range(n_out):
                sums[j] += value * weights[c, j]
        for j in range(n_out):
            out[i, j] = np.float32(sums[j])
