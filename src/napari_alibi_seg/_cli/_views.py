"""Pictures of features that need no scribbles: principal components and clusters.

Both look at what a pixel is described by before anybody has painted: ViT tokens where
a ViT is in use, else the classical features. Every channel is standardised first, so
that none counts more for its unit. Knows how features become small pictures, not how
those are drawn (`_figure`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import FloatArray, IntArray

if TYPE_CHECKING:
    from napari_alibi_seg._segmenter import Embedding

__all__ = ["FeatureViews", "feature_views"]

# More samples do not change what a handful of components and clusters look like.
_MAX_SAMPLES = 5_000
# Of each component: outliers must not take the contrast from all others.
_PERCENTILES = (1.0, 99.0)


class FeatureViews(NamedTuple):
    """Two pictures of the features of an image, covering all of it.

    Attributes
    ----------
    components_yxs : (H, W, 3) float32
        First three principal components, 0 to 1.
    clusters_yx : (H, W) array of int
        Cluster of each pixel, 0 to K - 1, ordered along the first component.
    colours : (K, 3) float32
        What the components make of the centre of each cluster.
    """

    components_yxs: FloatArray
    clusters_yx: IntArray
    colours: FloatArray


def feature_views(
    embedding: Embedding, *, n_clusters: int, max_side: int, seed: int
) -> FeatureViews:
    """Return the views of an embedded image.

    Parameters
    ----------
    embedding : Embedding
        Complete.
    n_clusters : int
        For k-means.
    max_side : int
        The pictures have at most about so many rows and columns.
    seed : int
        Equal arguments give equal pictures.

    Returns
    -------
    FeatureViews
    """
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    step = math.ceil(max(embedding.shape) / max_side)
    has_tokens = embedding.store is not None
    features = embedding.tokens(None) if has_tokens else _classical(embedding, step)
    shape = features.shape[:2]
    flat = _standardised(features.reshape(-1, features.shape[2]))
    sample = flat[:: math.ceil(len(flat) / _MAX_SAMPLES)]
    pca = PCA(3, random_state=seed).fit(sample)
    kmeans = KMeans(n_clusters, n_init=2, random_state=seed).fit(sample)
    components = pca.transform(flat)
    low, high = np.percentile(components, _PERCENTILES, axis=0)
    centres = pca.transform(kmeans.cluster_centers_)
    order = np.argsort(centres[:, 0], kind="stable")
    # ranks of the clusters: k-means numbers them as it happens to find them
    clusters = np.argsort(order)[kmeans.predict(flat)].reshape(shape)
    rgb = _scaled(components, low, high).reshape(*shape, 3)
    if has_tokens:
        rgb, clusters = _at_pixels(embedding, rgb, clusters, step)
    return FeatureViews(rgb, clusters, _scaled(centres[order], low, high))


def _classical(embedding: Embedding, step: int) -> FloatArray:
    """Return the classical features of every `step`-th pixel, (H, W, F)."""
    from napari_alibi_seg.data import pixel_tiles

    assert embedding.classical is not None
    rows, cols = (np.arange(step // 2, n, step) for n in embedding.shape)
    out = np.empty((len(rows), len(cols), embedding.classical.n_features), np.float32)
    for w in pixel_tiles(embedding.shape):
        block = embedding.classical.compute(embedding.image.read, embedding.shape, w)
        r = slice(*np.searchsorted(rows, (w.y0, w.y1)))
        c = slice(*np.searchsorted(cols, (w.x0, w.x1)))
        picked = block[:, rows[r] - w.y0][:, :, cols[c] - w.x0]
        out[r, c] = np.moveaxis(picked, 0, -1)
    return out


def _standardised(features_nf: FloatArray) -> npt.NDArray[np.float64]:
    """Return the features with mean 0 and deviation 1; constant ones are 0."""
    # float64: sums of many threads then agree far beyond what a picture shows
    values = features_nf.astype(np.float64)
    values -= values.mean(axis=0)
    deviation = values.std(axis=0)
    values /= np.where(deviation > 0, deviation, 1.0)
    return values


def _scaled(
    values: npt.NDArray[np.float64],
    low: npt.NDArray[np.float64],
    high: npt.NDArray[np.float64],
) -> FloatArray:
    """Map low to high of every component to 0 to 1."""
    spread = np.where(high > low, high - low, 1.0)
    return np.clip((values - low) / spread, 0.0, 1.0).astype(np.float32)


def _at_pixels(
    embedding: Embedding, rgb: FloatArray, clusters: IntArray, step: int
) -> tuple[FloatArray, IntArray]:
    """Bring maps of tokens to every `step`-th pixel, as segmenting does."""
    from napari_alibi_seg.data import sample_grid

    grid = embedding.grid
    rows = grid.row_positions(0, embedding.shape[0])[step // 2 :: step]
    cols = grid.col_positions(0, embedding.shape[1])[step // 2 :: step]
    out = np.empty((3, len(rows), len(cols)), np.float32)
    sample_grid(np.ascontiguousarray(rgb), rows, cols, out)
    nearest = (np.floor(at + 0.5).astype(np.int64) for at in (rows, cols))
    return np.moveaxis(out, 0, -1), clusters[np.ix_(*nearest)]
