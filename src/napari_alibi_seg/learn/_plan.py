"""A forest rearranged for fast prediction.

Only this module knows how the arrays of `_trees` become those `_kernels.forest_proba`
wants. It follows QuickScorer [1]_: the up to 32 exits of the most visited top part of
a tree are the bits of an integer, each node is a comparison and a mask, and the loop
over pixels vectorises. A tree of up to 32 leaves is done then; pixels that leave
through an inner node walk on from there. (Of 4 to 64 exits, 32 were the fastest for
trees of 20 to 2000 leaves.) Leaf values are fixed-point integers: sums of them are
exact, hence the same in any order.

.. [1] Lucchese et al. (2015), "QuickScorer: a fast algorithm to rank documents with
   additive ensembles of regression trees", SIGIR.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from napari_alibi_seg.learn._trees import ForestArrays

__all__ = ["Plan", "plan"]

_N_EXITS = 32
_NO_LEAF = 0xFFFFFFFF


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The arrays of `_kernels.forest_proba`, grouped and typed as it wants them."""

    block: tuple[npt.NDArray[Any], ...]
    exits: tuple[npt.NDArray[Any], ...]
    trees: tuple[npt.NDArray[Any], ...]
    whole: int
    width: int


def plan(a: ForestArrays) -> Plan:
    """Rearrange `a`."""
    is_leaf = a.feature < 0
    values, whole = _packed_values(a)
    top = _TopBlocks.chosen(a)
    first = a.tree_start[:-1, None]
    leaf = np.where(is_leaf, np.cumsum(is_leaf) - 1, _NO_LEAF).astype(np.uint32)

    exit_leaf = np.where(top.is_exit, leaf[first + top.exits], _NO_LEAF)
    done = top.is_exit & (exit_leaf != _NO_LEAF)
    exit_value = np.where(done, values[:, np.where(done, exit_leaf, 0)], 0)
    exit_value = np.ascontiguousarray(exit_value, np.uint64)
    bits = np.uint32(1) << np.arange(_N_EXITS, dtype=np.uint32)
    open_exits = np.where(top.is_exit & ~done, bits, 0).sum(axis=1, dtype=np.uint32)

    nodes = np.empty((len(leaf), 4), np.uint32)
    size = np.diff(a.tree_start)
    itself = np.arange(len(leaf)) - np.repeat(a.tree_start[:-1], size)
    nodes[:, 0] = np.where(is_leaf, 0, a.feature)
    limit = np.where(is_leaf, np.float32(np.inf), a.threshold)
    nodes[:, 1] = limit.view(np.uint32)
    nodes[:, 2] = np.where(is_leaf, itself, a.left)
    nodes[:, 3] = leaf
    return Plan(
        block=top.comparisons(a),
        exits=(exit_value, top.exits.astype(np.uint32), open_exits),
        trees=(a.tree_start.copy(), nodes, values),
        whole=whole,
        width=_block_width(a),
    )


def _packed_values(a: ForestArrays) -> tuple[npt.NDArray[np.uint64], int]:
    """Leaf fractions in fixed point, two classes to a 64-bit integer: (G, L).

    Also returns the sum that stands for probability 1. Where the rows add up to it
    exactly (pure leaves) an odd last class is left out: it is what the others leave.
    """
    bits = min(24, 31 - (a.n_trees - 1).bit_length())  # a sum fits half a word
    one = 1 << bits
    fixed = np.rint(a.leaf_fraction.astype(np.float64) * one).astype(np.uint64)
    if a.n_classes % 2:
        if (fixed.sum(axis=1) == one).all():
            fixed = fixed[:, :-1]
        else:
            fixed = np.pad(fixed, ((0, 0), (0, 1)))
    packed = fixed[:, 0::2] | (fixed[:, 1::2] << np.uint64(32))
    return np.ascontiguousarray(packed.T), a.n_trees * one


def _block_width(a: ForestArrays) -> int:
    """Pixels of a block: its features should stay in the second-level cache.

    Large trees fall out of that cache between two blocks, so they get longer blocks.
    """
    width = 2048 if len(a.feature) < 1024 * a.n_trees else 4096
    if a.n_features <= 64:
        return width
    return width // 2 if a.n_features <= 160 else width // 4


@dataclass(slots=True, eq=False)
class _TopBlocks:
    """The most visited nodes of every tree and the exits below them, left to right.

    `exits` (T, 32) are node indices within the tree. Inner node `node[t, s]` has the
    exits `low` to `middle` on its left side.
    """

    exits: npt.NDArray[np.int64]
    is_exit: npt.NDArray[np.bool_]
    node: npt.NDArray[np.int64]
    low: npt.NDArray[np.int64]
    middle: npt.NDArray[np.int64]
    n_nodes: npt.NDArray[np.int64]

    @classmethod
    def chosen(cls, a: ForestArrays) -> _TopBlocks:
        """Open the most visited exit of every tree until 32 exits or only leaves.

        Each opening spares the pixels that come by one step of walking, so the
        greedy choice is the best one. All trees are opened side by side.
        """
        t, n = a.n_trees, _N_EXITS
        top = cls(
            exits=np.zeros((t, n), np.int64),
            is_exit=np.arange(n) < np.ones((t, 1), np.int64),
            node=np.zeros((t, n - 1), np.int64),
            low=np.zeros((t, n - 1), np.int64),
            middle=np.zeros((t, n - 1), np.int64),
            n_nodes=np.zeros(t, np.int64),
        )
        weight = np.where(a.feature >= 0, a.visits.astype(np.int64) + 1, 0)
        first = a.tree_start[:-1, None]
        for _ in range(n - 1):
            gain = np.where(top.is_exit, weight[first + top.exits], 0)
            position = gain.argmax(axis=1)
            rows = np.flatnonzero(gain[np.arange(t), position])
            if rows.size == 0:
                break
            top._open(rows, position[rows], a)
        return top

    def _open(
        self,
        rows: npt.NDArray[np.int64],
        position: npt.NDArray[np.int64],
        a: ForestArrays,
    ) -> None:
        """Replace the exit at `position` of the trees `rows` by its two children."""
        at, step = position[:, None], self.n_nodes[rows]
        node = self.exits[rows, position]
        slots = np.arange(_N_EXITS)
        shifted = np.take_along_axis(
            self.exits[rows], slots - (slots > at).astype(np.int64), axis=1
        )
        left = a.left[a.tree_start[rows] + node].astype(np.int64)
        index = np.arange(len(rows))
        shifted[index, position] = left
        shifted[index, position + 1] = left + 1
        self.exits[rows] = shifted
        self.is_exit[rows, step + 1] = True
        self.low[rows] += self.low[rows] > at
        self.middle[rows] += self.middle[rows] > at
        self.node[rows, step] = node
        self.low[rows, step] = position
        self.middle[rows, step] = position + 1
        self.n_nodes[rows] = step + 1

    def comparisons(self, a: ForestArrays) -> tuple[npt.NDArray[Any], ...]:
        """Feature, threshold and mask of every node; counts rounded up to fours.

        Unused slots compare with infinity and change nothing.
        """
        t = a.n_trees
        used = np.arange(_N_EXITS - 1) < self.n_nodes[:, None]
        where = a.tree_start[:-1, None] + self.node
        one = np.uint64(1)
        below_low = (one << self.low.astype(np.uint64)) - one
        below_middle = (one << self.middle.astype(np.uint64)) - one
        struck = (below_middle & ~below_low).astype(np.uint32)

        feature = np.zeros((t, _N_EXITS), np.uint32)
        threshold = np.full((t, _N_EXITS), np.inf, np.float32)
        mask = np.full((t, _N_EXITS), 0xFFFFFFFF, np.uint32)
        feature[:, :-1] = np.where(used, a.feature[where], 0)
        threshold[:, :-1] = np.where(used, a.threshold[where], np.inf)
        mask[:, :-1] = np.where(used, ~struck, np.uint32(0xFFFFFFFF))
        return feature, threshold, mask, -(-self.n_nodes // 4) * 4
