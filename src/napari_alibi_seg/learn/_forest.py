"""A random forest: scikit-learn grows it, plain arrays predict.

Only this module knows scikit-learn's trees. Prediction equals `predict_proba` of
the forest they came from and is several times faster (see `_plan`). What a class index
means, and files, are left to `_classifier` and `_file`.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import FloatArray, SettingsError
from napari_alibi_seg.learn._plan import plan
from napari_alibi_seg.learn._trees import ForestArrays

__all__ = ["Forest", "fit_forest", "forest_from_sklearn", "samples_per_tree"]


# Pixels that one tree is grown on, so that retraining stays a matter of a second.
_MAX_SAMPLES = 3000


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
        self._plan = plan(arrays)

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
        p = self._plan
        forest_proba(features_fn, p.block, p.exits, p.trees, p.whole, p.width, out)
        return out


def fit_forest(
    features_nf: FloatArray,
    class_index: npt.NDArray[np.integer[Any]],
    *,
    n_trees: int = 100,
    max_features: int = 2,
    class_weight: Literal["balanced"] | dict[int, float] | None = "balanced",
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
    max_features : int
        Features tried at a split, at most F.
    class_weight : "balanced", dict or None
        By class index. "balanced" weighs the samples of each tree anew.
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

    Notes
    -----
    Pixels of a stroke are much alike, so trees that try many features at a split
    resemble each other; two features made the best forests on real micrographs
    (benchmarks/README.md). A tree sees at most 3,000 pixels: more cost time only.

    Examples
    --------
    >>> x = np.array([[0.0], [1.0], [2.0], [3.0]], np.float32)
    >>> fit_forest(x, np.array([0, 0, 1, 1]), n_trees=3).arrays.n_trees
    3
    """
    from sklearn.ensemble import RandomForestClassifier

    n, n_features = features_nf.shape
    weight = "balanced_subsample" if class_weight == "balanced" else class_weight
    model = RandomForestClassifier(
        n_trees,
        max_features=min(max_features, n_features),
        max_samples=samples_per_tree(n),
        class_weight=weight,
        random_state=seed,
        n_jobs=n_jobs,
    )
    model.fit(features_nf, class_index, sample_weight)
    return Forest(forest_from_sklearn(model))


def samples_per_tree(n: int) -> int:
    """Return how many of `n` samples a tree is grown on.

    Examples
    --------
    >>> [samples_per_tree(n) for n in (100, 1000, 10_000, 200_000)]
    [100, 1000, 3000, 3000]
    """
    return min(n, _MAX_SAMPLES)


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
