"""A random forest as plain arrays, and its prediction.

Only this module knows how trees are laid out: each in level order, the right child
after the left one, so one index per inner node says it all and every child comes
after its parent. scikit-learn grows the trees; prediction here equals its
`predict_proba` and is several times faster. What a class index means, and files, are
left to `_classifier` and `_file`.

Prediction follows QuickScorer [1]_: the 32 exits of the most visited top part of a
tree are the bits of an integer, each node is a comparison and a mask, and the loop
over pixels vectorises. A tree of up to 32 leaves is done then; pixels that leave
through an inner node walk on from there. Leaf values are added as fixed-point
integers: exact, hence equal in any order.

.. [1] Lucchese et al. (2015), "QuickScorer: a fast algorithm to rank documents with
   additive ensembles of regression trees", SIGIR.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import ClassifierFileError, FloatArray, SettingsError

__all__ = ["Forest", "ForestArrays", "fit_forest", "forest_from_sklearn"]

MAX_TREES = 4096
MAX_NODES = 50_000_000

_N_EXITS = 32
_NO_LEAF = 0xFFFFFFFF


@dataclass(frozen=True, slots=True, eq=False)
class ForestArrays:
    """All a forest needs to predict; checked when made.

    Nodes of tree `t` are ``tree_start[t]`` to ``tree_start[t + 1]``, the root first,
    in level order. A pixel goes left where ``x <= threshold``.

    Attributes
    ----------
    tree_start : (T + 1,) int64
        First node of each tree, and the number of all nodes.
    feature : (M,) int32
        Feature that a node compares, -1 at a leaf.
    threshold : (M,) float32
        Largest float32 that still goes left; 0 at a leaf.
    left : (M,) int32
        Left child counted within the tree, -1 at a leaf. The right child follows it.
    visits : (M,) int32
        Training samples that came by; decides speed, never the result.
    leaf_fraction : (L, K) float32
        Class fractions of the leaves, in node order.
    n_features : int
        Features of a pixel.

    Raises
    ------
    ClassifierFileError
        If the arrays do not describe proper trees.

    Examples
    --------
    >>> stump = ForestArrays(
    ...     tree_start=np.array([0, 3]),
    ...     feature=np.array([1, -1, -1], np.int32),
    ...     threshold=np.array([0.5, 0, 0], np.float32),
    ...     left=np.array([1, -1, -1], np.int32),
    ...     visits=np.array([9, 5, 4], np.int32),
    ...     leaf_fraction=np.array([[1, 0], [0.25, 0.75]], np.float32),
    ...     n_features=2,
    ... )
    >>> Forest(stump).predict_proba(np.array([[0, 0], [0.5, 0.6]], np.float32))
    array([[1.  , 0.25],
           [0.  , 0.75]], dtype=float32)
    """

    tree_start: npt.NDArray[np.int64]
    feature: npt.NDArray[np.int32]
    threshold: npt.NDArray[np.float32]
    left: npt.NDArray[np.int32]
    visits: npt.NDArray[np.int32]
    leaf_fraction: FloatArray
    n_features: int

    def __post_init__(self) -> None:
        _check_layout(self)
        _check_nodes(self)
        _check_fractions(self)

    @property
    def n_trees(self) -> int:
        """Number of trees."""
        return len(self.tree_start) - 1

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return int(self.leaf_fraction.shape[1])


class Forest:
    """A forest ready to predict.

    Parameters
    ----------
    arrays : ForestArrays
        The trees.

    Examples
    --------
    >>> x = np.array([[0.0], [1.0], [2.0], [3.0]], np.float32)
    >>> forest = fit_forest(x, np.array([0, 0, 1, 1]), n_trees=25)
    >>> forest.predict_proba(x.T).argmax(axis=0)
    array([0, 0, 1, 1])
    """

    def __init__(self, arrays: ForestArrays) -> None:
        self.arrays = arrays
        self._plan = _plan(arrays)

    def predict_proba(self, features_fn: FloatArray) -> FloatArray:
        """Return the mean over trees of the class fractions of each pixel's leaf.

        Runs on the calling thread without the GIL.

        Parameters
        ----------
        features_fn : (F, N) float32
            Features, feature-major; rows need not be contiguous. NaN is not meant to
            occur and goes left.

        Returns
        -------
        (K, N) float32
            Within 1e-6 of scikit-learn's, the same bytes however the pixels are cut
            into calls.

        Raises
        ------
        SettingsError
            If there are not F features.
        """
        from napari_alibi_seg.learn._kernels import forest_proba

        features_fn = np.asarray(features_fn, np.float32)
        if features_fn.ndim != 2 or features_fn.shape[0] != self.arrays.n_features:
            raise SettingsError(
                f"`features_fn` must be ({self.arrays.n_features}, N), feature-major, "
                f"got {features_fn.shape}. Compute them as for training."
            )
        out = np.empty((self.arrays.n_classes, features_fn.shape[1]), np.float32)
        plan = self._plan
        width = _block_width(self.arrays.n_features)
        forest_proba(
            features_fn, plan.block, plan.exits, plan.trees, plan.whole, width, out
        )
        return out


def fit_forest(
    features_nf: FloatArray,
    class_index: npt.NDArray[np.integer[Any]],
    *,
    n_trees: int = 100,
    sample_weight: npt.NDArray[np.float64] | None = None,
    seed: int = 0,
    n_jobs: int = -1,
) -> Forest:
    """Grow scikit-learn's random forest on `n_jobs` cores and keep its arrays.

    Parameters
    ----------
    features_nf : (N, F) float32
        Finite features of the painted pixels.
    class_index : (N,) array of int
        0 to K - 1, each present.
    n_trees : int
        Number of trees.
    sample_weight : (N,) float64, optional
        Weight of each pixel.
    seed : int
        Seed of the bootstrap and of the choice of features. The forest depends on it
        and not on `n_jobs`.
    n_jobs : int
        Cores; -1 is all of them.

    Returns
    -------
    Forest
        The fitted forest.

    Examples
    --------
    >>> x = np.array([[0.0], [1.0], [2.0], [3.0]], np.float32)
    >>> fit_forest(x, np.array([0, 0, 1, 1]), n_trees=3).arrays.n_trees
    3
    """
    from sklearn.ensemble import RandomForestClassifier

    model = RandomForestClassifier(n_trees, random_state=seed, n_jobs=n_jobs)
    model.fit(features_nf, class_index, sample_weight)
    return Forest(forest_from_sklearn(model))


def forest_from_sklearn(model: Any) -> ForestArrays:
    """Take the arrays out of a fitted `RandomForestClassifier` with one output.

    Examples
    --------
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> model = RandomForestClassifier(7).fit([[0.0], [1.0]], [0, 1])
    >>> forest_from_sklearn(model).n_trees
    7
    """
    parts = [_level_ordered(estimator.tree_) for estimator in model.estimators_]
    joined = {
        name: np.concatenate([p[name] for p in parts])
        for name in ("feature", "threshold", "left", "visits", "leaf_fraction")
    }
    sizes = [len(p["feature"]) for p in parts]
    return ForestArrays(
        tree_start=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        n_features=int(model.n_features_in_),
        **joined,
    )


def _level_ordered(tree: Any) -> dict[str, npt.NDArray[Any]]:
    levels = [np.zeros(1, np.int64)]
    while True:
        inner = levels[-1][tree.children_left[levels[-1]] >= 0]
        if inner.size == 0:
            break
        pairs = np.stack([tree.children_left[inner], tree.children_right[inner]], 1)
        levels.append(pairs.ravel())
    order = np.concatenate(levels)
    is_leaf = tree.children_left[order] < 0
    left = 2 * np.cumsum(~is_leaf) - 1  # the r-th inner node's: 1, 3, 5, ...
    return {
        "feature": np.where(is_leaf, -1, tree.feature[order]).astype(np.int32),
        "threshold": np.where(is_leaf, 0, _round_down(tree.threshold[order])),
        "left": np.where(is_leaf, -1, left).astype(np.int32),
        "visits": tree.n_node_samples[order].astype(np.int32),
        "leaf_fraction": tree.value[order[is_leaf], 0].astype(np.float32),
    }


def _round_down(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Round to the largest float32 that is not larger.

    A float32 `x` satisfies ``x <= value`` exactly when it satisfies ``x <= rounded``.
    """
    rounded = values.astype(np.float32)
    too_large = rounded.astype(np.float64) > values
    rounded[too_large] = np.nextafter(rounded[too_large], np.float32(-np.inf))
    return rounded


# --------------------------------------------------------------------- validation


def _require(ok: bool | np.bool_, problem: str) -> None:
    if not ok:
        raise ClassifierFileError(
            f"The forest's arrays are damaged: {problem}. Get the file again or train "
            "a new classifier."
        )


def _check_layout(a: ForestArrays) -> None:
    n_nodes = len(a.feature)
    for name, dtype, ndim in (
        ("tree_start", np.int64, 1),
        ("feature", np.int32, 1),
        ("threshold", np.float32, 1),
        ("left", np.int32, 1),
        ("visits", np.int32, 1),
        ("leaf_fraction", np.float32, 2),
    ):
        array = getattr(a, name)
        _require(
            array.dtype == dtype and array.ndim == ndim,
            f"`{name}` must be {ndim}-D {np.dtype(dtype)}, got {array.ndim}-D "
            f"{array.dtype}",
        )
        _require(
            name in ("tree_start", "leaf_fraction") or len(array) == n_nodes,
            f"`{name}` must have {n_nodes} entries like `feature`, got {len(array)}",
        )
    start = a.tree_start
    _require(
        2 <= len(start) <= MAX_TREES + 1,
        f"1 to {MAX_TREES} trees are possible, got {len(start) - 1}",
    )
    _require(n_nodes <= MAX_NODES, f"more than {MAX_NODES} nodes, got {n_nodes}")
    _require(
        start[0] == 0 and start[-1] == n_nodes and (np.diff(start) >= 1).all(),
        f"`tree_start` must rise from 0 to {n_nodes}",
    )


def _check_nodes(a: ForestArrays) -> None:
    inner = a.feature >= 0
    where, start = np.flatnonzero(inner), a.tree_start
    tree = np.searchsorted(start, where, side="right") - 1
    position, size = where - start[tree], np.diff(start)[tree]
    left = a.left[where].astype(np.int64)
    _require(
        (a.feature >= -1).all() and (a.feature < a.n_features).all(),
        f"`feature` must lie in -1 to {a.n_features - 1}",
    )
    _require(np.isfinite(a.threshold).all(), "`threshold` must be finite")
    _require((a.visits >= 0).all(), "`visits` must not be negative")
    _require((a.left[~inner] == -1).all(), "`left` must be -1 at leaves")
    _require(
        (left >= 0).all() and (left + 1 < size).all(),
        "`left` points outside its tree",
    )
    _require((left > position).all(), "a child comes before its parent (a cycle)")
    # In level order the r-th inner node owns the r-th pair after the root; then every
    # node but the root has one parent, and a tree has one more leaf than inner nodes.
    n_inner = np.bincount(tree, minlength=a.n_trees)
    before = np.concatenate([[0], np.cumsum(n_inner)[:-1]])
    rank = np.arange(len(where)) - before[tree]
    _require(
        (left == 2 * rank + 1).all() and (np.diff(start) == 2 * n_inner + 1).all(),
        "nodes are not in level order, each with one parent",
    )


def _check_fractions(a: ForestArrays) -> None:
    fraction, n_leaves = a.leaf_fraction, int((a.feature < 0).sum())
    _require(
        fraction.shape[0] == n_leaves,
        f"`leaf_fraction` must have {n_leaves} rows, got {fraction.shape[0]}",
    )
    _require(fraction.shape[1] >= 2, "at least two classes are needed")
    _require(
        np.isfinite(fraction).all() and (fraction >= 0).all() and (fraction <= 1).all(),
        "`leaf_fraction` must lie in 0 to 1",
    )
    _require(
        (np.abs(fraction.sum(axis=1, dtype=np.float64) - 1) < 1e-3).all(),
        "the rows of `leaf_fraction` must sum to 1",
    )


# ------------------------------------------------------------------- prediction plan


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """The arrays of `_kernels.forest_proba`, grouped and typed as it wants them."""

    block: tuple[npt.NDArray[Any], ...]
    exits: tuple[npt.NDArray[Any], ...]
    trees: tuple[npt.NDArray[Any], ...]
    whole: int


def _plan(a: ForestArrays) -> _Plan:
    is_leaf = a.feature < 0
    values, whole = _packed_values(a)
    top = _TopBlocks.chosen(a)
    first = a.tree_start[:-1, None]
    leaf = np.where(is_leaf, np.cumsum(is_leaf) - 1, _NO_LEAF).astype(np.uint32)

    exit_leaf = np.where(top.is_exit, leaf[first + top.exits], _NO_LEAF)
    done = top.is_exit & (exit_leaf != _NO_LEAF)
    exit_value = np.where(done, values[:, np.where(done, exit_leaf, 0)], 0)
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
    return _Plan(
        block=top.comparisons(a),
        exits=(exit_value.astype(np.uint64), top.exits.astype(np.uint32), open_exits),
        trees=(np.ascontiguousarray(a.tree_start), nodes, values),
        whole=whole,
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


def _block_width(n_features: int) -> int:
    """Pixels of a block, so that its features stay in the second-level cache."""
    if n_features <= 64:
        return 2048
    return 1024 if n_features <= 160 else 512


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
