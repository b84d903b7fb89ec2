"""Pictures of features that need no scribbles: clusters, and likeness to one token.

Both look at token maps, (R, C, F) arrays, through a `FeatureSpace`, which knows the
components by itself. Clusters are fitted on a sample, and every token then goes to the
nearest centre.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from napari_alibi_seg._base import FloatArray, IntArray, SettingsError
from napari_alibi_seg.analysis._space import FeatureSpace
from napari_alibi_seg.analysis._tokens import (
    TokenMap,
    blocks,
    flat_maps,
    normalised,
    sampled,
    whole,
)

__all__ = [
    "MAX_CLUSTERS",
    "MIN_CLUSTERS",
    "ClusterMap",
    "cluster_map",
    "cluster_maps",
    "nearest_clusters",
    "similarity_map",
]

# More than 20 colours cannot be told apart.
MIN_CLUSTERS, MAX_CLUSTERS = 2, 20
# More samples do not change what a handful of clusters look like.
_MAX_SAMPLES = 4_000


@dataclass(frozen=True, eq=False)
class ClusterMap:
    """Tokens of a map in groups of alike.

    Attributes
    ----------
    labels : (R, C) int32
        Cluster of each token, 0 to K - 1, ordered along the first component.
    centres : (K, F) float32
        Normalised features of the clusters.
    colours : (K, 3) float32
        What the picture of the space makes of the centres.
    """

    labels: IntArray
    centres: FloatArray
    colours: FloatArray


def cluster_map(
    space: FeatureSpace, tokens_rcf: TokenMap, n_clusters: int, *, seed: int = 0
) -> ClusterMap:
    """Group the tokens of one map by k-means.

    Parameters
    ----------
    space : FeatureSpace
        Says how features are normalised, and orders and colours the clusters.
    tokens_rcf : (R, C, F) float array
        Tokens.
    n_clusters : int
        2 to 20. Fewer are found where fewer different tokens exist.
    seed : int
        Equal arguments give equal maps.

    Returns
    -------
    ClusterMap

    Raises
    ------
    SettingsError
        If `n_clusters` is out of its range or the map does not fit the space.

    Examples
    --------
    >>> from napari_alibi_seg.analysis import feature_space
    >>> tokens = np.zeros((2, 3, 2), np.float32)
    >>> tokens[:, 2] = 1
    >>> cluster_map(feature_space(tokens, n_components=1), tokens, 2).labels
    array([[0, 0, 1],
           [0, 0, 1]], dtype=int32)
    """
    return cluster_maps(space, [tokens_rcf], n_clusters, seed=seed)[0]


def cluster_maps(
    space: FeatureSpace, maps: Sequence[TokenMap], n_clusters: int, *, seed: int = 0
) -> list[ClusterMap]:
    """Group the tokens of several maps together.

    Parameters
    ----------
    space : FeatureSpace
        As for `cluster_map`.
    maps : sequence of (R, C, F) float arrays
        Tokens; R and C may differ.
    n_clusters, seed : int
        As for `cluster_map`.

    Returns
    -------
    list of ClusterMap
        One for each map. Centres and colours are the same in all of them.

    Raises
    ------
    SettingsError
        If `n_clusters` is out of its range, there is no map, or one does not fit the
        space.

    Examples
    --------
    >>> from napari_alibi_seg.analysis import feature_space
    >>> tokens = np.random.default_rng(0).normal(size=(6, 8, 4)).astype(np.float32)
    >>> space = feature_space(tokens)
    >>> one, other = cluster_maps(space, [tokens, tokens[::-1]], 3)
    >>> bool((one.labels == other.labels[::-1]).all())
    True
    """
    k = whole(n_clusters, "n_clusters", MIN_CLUSTERS, MAX_CLUSTERS)
    flat_maps(maps)
    flats = [space.flat(tokens)[0] for tokens in maps]
    raw = sampled(flats, _MAX_SAMPLES, seed)
    centres = _centres(normalised(raw, space.mean, space.gain), k, seed)
    centres = centres[np.argsort(centres @ space.axes[:, 0], kind="stable")]
    colours = space.colours(centres)
    return [
        ClusterMap(nearest_clusters(space, tokens, centres), centres, colours)
        for tokens in maps
    ]


def nearest_clusters(
    space: FeatureSpace, tokens_rcf: TokenMap, centres: FloatArray
) -> IntArray:
    """Put every token of a map into the cluster whose centre is nearest.

    Parameters
    ----------
    space : FeatureSpace
        Says how features are normalised.
    tokens_rcf : (R, C, F) float array
        Tokens.
    centres : (K, F) float32
        Normalised features of the clusters, as of a `ClusterMap`.

    Returns
    -------
    (R, C) int32
        0 to K - 1.

    Raises
    ------
    SettingsError
        If the map or the centres do not fit the space.

    Examples
    --------
    >>> from napari_alibi_seg.analysis import feature_space
    >>> tokens = np.array([[[0.0, 1.0], [8.0, 1.0], [9.0, 1.0]]], np.float32)
    >>> space = feature_space(tokens, n_components=1)
    >>> nearest_clusters(space, tokens, space.normalised(tokens)[0, [0, 2]])
    array([[0, 1, 1]], dtype=int32)
    """
    flat, shape = space.flat(tokens_rcf)
    if centres.ndim != 2 or centres.shape[1] != space.n_features:
        raise SettingsError(
            f"Expected centres with the {space.n_features} channels of the feature "
            f"space, got an array of shape {centres.shape}. Take those of a cluster "
            f"map of this space."
        )
    out = np.empty(len(flat), np.int32)
    # half the squared distance, less what all centres have in common
    half = np.float32(0.5) * np.einsum("kf,kf->k", centres, centres)
    for part in blocks(flat):
        block = normalised(flat[part], space.mean, space.gain)
        out[part] = (half - block @ centres.T).argmin(axis=1)
    return out.reshape(shape)


def similarity_map(
    space: FeatureSpace, tokens_rcf: TokenMap, row: int, col: int
) -> FloatArray:
    """Compare every token of a map with one of them.

    Parameters
    ----------
    space : FeatureSpace
        Says how features are normalised.
    tokens_rcf : (R, C, F) float array
        Tokens.
    row, col : int
        The token to compare with.

    Returns
    -------
    (R, C) float32
        Cosine of the normalised features, -1 to 1. A token without any, which is a
        mean token, gives 0.

    Raises
    ------
    SettingsError
        If the token is not on the map, or the map does not fit the space.

    Examples
    --------
    >>> from napari_alibi_seg.analysis import feature_space
    >>> tokens = np.array([[[1.0, 0.0], [3.0, 0.0], [-1.0, 0.0]]], np.float32)
    >>> space = feature_space(tokens, n_components=1)
    >>> similarity_map(space, tokens, 0, 1)
    array([[ 0.,  1., -1.]], dtype=float32)
    """
    flat, (n_rows, n_cols) = space.flat(tokens_rcf)
    r, c = whole(row, "row", 0, n_rows - 1), whole(col, "col", 0, n_cols - 1)
    at = r * n_cols + c
    wanted = normalised(flat[at : at + 1], space.mean, space.gain)[0]
    wanted /= float(np.linalg.norm(wanted)) or 1.0
    out = np.empty(len(flat), np.float32)
    for part in blocks(flat):
        block = normalised(flat[part], space.mean, space.gain)
        length = np.sqrt(np.einsum("nf,nf->n", block, block))
        length[length == 0] = 1
        np.divide(block @ wanted, length, out=out[part])
    return np.clip(out, -1, 1, out=out).reshape(n_rows, n_cols)


def _centres(sample: FloatArray, k: int, seed: int) -> FloatArray:
    """Return the centres of at most k clusters, (K, F)."""
    from sklearn.cluster import KMeans

    distinct = np.unique(sample, axis=0)
    if len(distinct) <= k:  # every one is its own cluster; k-means would complain
        return distinct
    # float64: sums of many threads then agree far beyond what a picture shows
    kmeans = KMeans(k, n_init=1, max_iter=50, tol=1e-3, random_state=seed)
    found = kmeans.fit(sample.astype(np.float64)).cluster_centers_
    return found.astype(np.float32)
