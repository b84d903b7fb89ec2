"""Views of the features of an embedded image, brought to its pixels.

Both look at what a pixel is described by before anybody has painted: ViT tokens where
a ViT is in use, else the classical features. Knows where the features of an image are
and which pixel they stand for. What is made of them is `analysis`' part, how it is
drawn that of `_figure`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from napari_alibi_seg._base import FloatArray, IntArray

if TYPE_CHECKING:
    from napari_alibi_seg._segmenter import Embedding

__all__ = ["FeatureViews", "feature_views"]


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
        For k-means, 2 to 20.
    max_side : int
        The pictures have at most about so many rows and columns.
    seed : int
        Equal arguments give equal pictures.

    Returns
    -------
    FeatureViews
    """
    from napari_alibi_seg.analysis import cluster_map, feature_space

    step = math.ceil(max(embedding.shape) / max_side)
    has_tokens = embedding.store is not None
    features = (
        embedding.tokens(None).window() if has_tokens else _classical(embedding, step)
    )
    space = feature_space(features, seed=seed)
    rgb = space.picture(features)
    clusters = cluster_map(space, features, n_clusters, seed=seed)
    labels = clusters.labels
    if has_tokens:
        rgb, labels = _at_pixels(embedding, rgb, labels, step)
    return FeatureViews(rgb, labels, clusters.colours)


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
