"""The arrays of a random forest, and when they are sound.

Only this module knows how trees are laid out: each in level order, the right child
after the left one, so that one index for each inner node says it all and every child
comes after its parent. A `ForestArrays` that exists can be walked without leaving its
arrays and without going round in circles, wherever it came from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import ClassifierFileError, FloatArray

__all__ = ["ForestArrays"]

MAX_TREES = 4096
MAX_NODES = 50_000_000


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
    >>> stump.n_trees, stump.n_classes
    (1, 2)
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
