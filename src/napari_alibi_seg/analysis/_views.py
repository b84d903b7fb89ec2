"""Pictures of features that need no scribbles: components, clusters, similarity.

All three look at token maps, (R, C, F) arrays, through a `FeatureSpace`: what every
channel is centred and divided by, and the principal axes. One space may serve several
images, so that a colour means the same in all of them. Statistics of channels come
from every token; axes and clusters are fitted on a sample, and every token is then
placed by matrix products, a block at a time.

Knows arrays only. Where the features of an image come from, and how a map is brought
to its pixels, is left to those who know the image.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import FloatArray, IntArray, SettingsError

__all__ = [
    "MAX_CLUSTERS",
    "MIN_CLUSTERS",
    "ClusterMap",
    "FeatureSpace",
    "cluster_map",
    "cluster_maps",
    "feature_space",
    "similarity_map",
]

_Map: TypeAlias = npt.NDArray[np.floating[Any]]
_Float64: TypeAlias = npt.NDArray[np.float64]

# More than 20 colours cannot be told apart.
MIN_CLUSTERS, MAX_CLUSTERS = 2, 20
# More samples do not change what a handful of components and clusters look like.
_MAX_SAMPLES = 5_000
_MAX_CLUSTER_SAMPLES = 4_000
# Of each component: outliers must not take the contrast from all others.
_PERCENTILES = (1.0, 99.0)
# A component that spans less than this share of the first is rounding, not structure.
_FLAT_SHARE = 1e-5
# A channel that varies by less than this share of its values is constant but for
# rounding in float32.
_CONSTANT_SHARE = 1e-6
# Small enough to stay in a cache between the steps on one block.
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, eq=False)
class FeatureSpace:
    """What features are measured against: channel statistics and principal axes.

    Made by `feature_space`. Its methods raise SettingsError for maps with other
    channels.

    Attributes
    ----------
    mean : (F,) float32
        Of each channel.
    gain : (F,) float32
        What the centred channel is multiplied by; 0 for constant channels.
    axes : (F, n) float32
        Principal axes of the normalised features, the widest first, of unit length.
        The largest number of each is positive.
    explained : (n,) float32
        Share of the variance along each axis.
    low, high : (n,) float32
        Scores that are shown as 0 and 1.

    Examples
    --------
    >>> tokens = np.random.default_rng(0).normal(size=(8, 9, 5)).astype(np.float32)
    >>> space = feature_space(tokens)
    >>> space.picture(tokens).shape, space.n_features
    ((8, 9, 3), 5)
    """

    mean: FloatArray
    gain: FloatArray
    axes: FloatArray
    explained: FloatArray
    low: FloatArray
    high: FloatArray

    @property
    def n_features(self) -> int:
        """Channels of the maps."""
        return len(self.mean)

    @property
    def n_components(self) -> int:
        """Principal axes."""
        return self.axes.shape[1]

    def normalised(self, tokens_rcf: _Map) -> FloatArray:
        """Return the features centred and scaled, (R, C, F) float32.

        NaN and infinities become 0, which is the mean.
        """
        flat, shape = self._flat(tokens_rcf)
        out = np.empty(flat.shape, np.float32)
        for part in _blocks(flat):
            out[part] = _normalised(flat[part], self.mean, self.gain)
        return out.reshape(*shape, -1)

    def components(self, tokens_rcf: _Map) -> FloatArray:
        """Return the scores along the axes, (R, C, n) float32."""
        flat, shape = self._flat(tokens_rcf)
        out = np.empty((len(flat), self.n_components), np.float32)
        for part in _blocks(flat):
            np.matmul(
                _normalised(flat[part], self.mean, self.gain), self.axes, out=out[part]
            )
        return out.reshape(*shape, -1)

    def picture(self, tokens_rcf: _Map) -> FloatArray:
        """Return the scores as brightness, (R, C, n) float32 of 0 to 1.

        The first three make a colour picture; any alone makes a grey one.
        """
        return self._scaled(self.components(tokens_rcf))

    def colours(self, normalised_kf: FloatArray) -> FloatArray:
        """Return what the picture makes of normalised features, (K, 3) float32.

        With fewer than three components the last one fills the other colours.
        """
        scaled = self._scaled(normalised_kf @ self.axes)
        return scaled[:, [min(i, self.n_components - 1) for i in range(3)]]

    def _scaled(self, scores: FloatArray) -> FloatArray:
        # a flat component is 0 everywhere: no rounding is blown up to full contrast
        spread = self.high - self.low
        gain = np.divide(1, spread, out=np.zeros_like(spread), where=spread > 0)
        return np.clip((scores - self.low) * gain, 0, 1, dtype=np.float32)

    def _flat(self, tokens_rcf: _Map) -> tuple[_Map, tuple[int, int]]:
        tokens = _checked(tokens_rcf)
        if tokens.shape[2] != self.n_features:
            raise SettingsError(
                f"Expected a token map with the {self.n_features} channels of the "
                f"feature space, got one of shape {tokens.shape}. Make a space from "
                f"maps of this kind."
            )
        return tokens.reshape(-1, self.n_features), tokens.shape[:2]


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


def feature_space(
    maps: _Map | Sequence[_Map],
    *,
    n_components: int = 3,
    standardise: bool = True,
    max_samples: int = _MAX_SAMPLES,
    seed: int = 0,
) -> FeatureSpace:
    """Find one basis for the features of one or several images.

    Parameters
    ----------
    maps : (R, C, F) float array or sequence of them
        Tokens; R and C may differ from map to map. Every token counts the same.
    n_components : int
        Principal axes to keep, 1 to F.
    standardise : bool
        Give every channel deviation 1, so that none counts more for its unit. False
        only centres them.
    max_samples : int
        Tokens that the axes are fitted on, at most; at least 2.
    seed : int
        Of the choice of these tokens. Equal arguments give equal spaces.

    Returns
    -------
    FeatureSpace

    Raises
    ------
    SettingsError
        If there is no map, the channels differ, or a number is out of its range.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> tokens = rng.normal(size=(20, 30, 4)) * [1, 9, 1, 0] + 5
    >>> space = feature_space(tokens, n_components=1, standardise=False)
    >>> int(space.axes[:, 0].argmax())
    1
    """
    flats = _flat_maps(maps)
    n_features = flats[0].shape[1]
    n = _whole(n_components, "n_components", 1, n_features)
    most = _whole(max_samples, "max_samples", 2, None)
    raw = _sampled(flats, most, seed)
    mean, gain = _channel_statistics(flats, raw, standardise)
    sample = _normalised(raw, mean, gain)
    axes, explained = _principal_axes(sample, n)
    low, high = np.percentile(sample @ axes, _PERCENTILES, axis=0).astype(np.float32)
    flat = high - low <= _FLAT_SHARE * (high - low).max()
    return FeatureSpace(mean, gain, axes, explained, low, np.where(flat, low, high))


def cluster_map(
    space: FeatureSpace, tokens_rcf: _Map, n_clusters: int, *, seed: int = 0
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
    >>> tokens = np.zeros((2, 3, 2), np.float32)
    >>> tokens[:, 2] = 1
    >>> cluster_map(feature_space(tokens, n_components=1), tokens, 2).labels
    array([[0, 0, 1],
           [0, 0, 1]], dtype=int32)
    """
    return cluster_maps(space, [tokens_rcf], n_clusters, seed=seed)[0]


def cluster_maps(
    space: FeatureSpace, maps: Sequence[_Map], n_clusters: int, *, seed: int = 0
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
    >>> tokens = np.random.default_rng(0).normal(size=(6, 8, 4)).astype(np.float32)
    >>> space = feature_space(tokens)
    >>> one, other = cluster_maps(space, [tokens, tokens[::-1]], 3)
    >>> bool((one.labels == other.labels[::-1]).all())
    True
    """
    k = _whole(n_clusters, "n_clusters", MIN_CLUSTERS, MAX_CLUSTERS)
    _flat_maps(maps)
    pairs = [space._flat(tokens) for tokens in maps]
    raw = _sampled([flat for flat, _ in pairs], _MAX_CLUSTER_SAMPLES, seed)
    centres = _centres(_normalised(raw, space.mean, space.gain), k, seed)
    centres = centres[np.argsort(centres @ space.axes[:, 0], kind="stable")]
    colours = space.colours(centres)
    return [
        ClusterMap(_nearest(space, flat, centres).reshape(shape), centres, colours)
        for flat, shape in pairs
    ]


def similarity_map(
    space: FeatureSpace, tokens_rcf: _Map, row: int, col: int
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
    >>> tokens = np.array([[[1.0, 0.0], [3.0, 0.0], [-1.0, 0.0]]], np.float32)
    >>> space = feature_space(tokens, n_components=1)
    >>> similarity_map(space, tokens, 0, 1)
    array([[ 0.,  1., -1.]], dtype=float32)
    """
    flat, (n_rows, n_cols) = space._flat(tokens_rcf)
    r, c = _whole(row, "row", 0, n_rows - 1), _whole(col, "col", 0, n_cols - 1)
    at = r * n_cols + c
    wanted = _normalised(flat[at : at + 1], space.mean, space.gain)[0]
    wanted /= float(np.linalg.norm(wanted)) or 1.0
    out = np.empty(len(flat), np.float32)
    for part in _blocks(flat):
        block = _normalised(flat[part], space.mean, space.gain)
        length = np.sqrt(np.einsum("nf,nf->n", block, block))
        length[length == 0] = 1
        np.divide(block @ wanted, length, out=out[part])
    return np.clip(out, -1, 1, out=out).reshape(n_rows, n_cols)


def _flat_maps(maps: _Map | Sequence[_Map]) -> list[_Map]:
    """Return the tokens of every map, (N, F)."""
    several = [maps] if isinstance(maps, np.ndarray) else list(maps)
    if not several:
        raise SettingsError("Expected at least one token map, got none.")
    checked = [_checked(tokens) for tokens in several]
    channels = {tokens.shape[2] for tokens in checked}
    if len(channels) > 1:
        raise SettingsError(
            f"Expected token maps with the same channels, got {sorted(channels)}. Maps "
            f"of different backbones cannot share a space."
        )
    return [tokens.reshape(-1, tokens.shape[2]) for tokens in checked]


def _checked(tokens_rcf: _Map) -> _Map:
    tokens = np.asarray(tokens_rcf)
    if tokens.ndim != 3 or not tokens.size or tokens.dtype.kind != "f":
        raise SettingsError(
            f"Expected a token map as a float array of rows, columns and channels, "
            f"got {tokens.dtype} of shape {tokens.shape}."
        )
    return tokens


def _whole(value: int, name: str, low: int, high: int | None) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = low - 1
    if number < low or (high is not None and number > high):
        limits = f"{low} or more" if high is None else f"{low} to {high}"
        raise SettingsError(
            f"`{name}` must be a whole number of {limits}, got {value!r}."
        )
    return number


def _blocks(flat: _Map) -> Iterator[slice]:
    step = max(64, _BLOCK_BYTES // (4 * flat.shape[1]))
    for start in range(0, len(flat), step):
        yield slice(start, start + step)


def _normalised(flat: _Map, mean: FloatArray, gain: FloatArray) -> FloatArray:
    out = flat.astype(np.float32)
    if not _is_finite(out):
        out = np.where(np.isfinite(out), out, mean)
    out -= mean
    out *= gain
    return out


def _is_finite(block: FloatArray) -> bool:
    # a sum shows it in one pass; infinities of both signs are no surprise here
    with np.errstate(invalid="ignore"):
        return bool(np.isfinite(block.sum()))


def _sampled(flats: Sequence[_Map], most: int, seed: int) -> _Map:
    """Return at most so many tokens, of every map its share, (S, F)."""
    total = sum(len(flat) for flat in flats)
    if total <= most:
        return np.concatenate(flats)
    # at random: a regular step may fall in step with the columns of a map
    chosen = np.sort(np.random.default_rng(seed).choice(total, most, replace=False))
    ends = np.cumsum([len(flat) for flat in flats])
    parts = np.split(chosen, np.searchsorted(chosen, ends[:-1]))
    starts = ends - [len(flat) for flat in flats]
    return np.concatenate(
        [flat[part - s] for flat, part, s in zip(flats, parts, starts, strict=True)]
    )


def _channel_statistics(
    flats: Sequence[_Map], sample: _Map, standardise: bool
) -> tuple[FloatArray, FloatArray]:
    """Return mean and gain of every channel, over all tokens that are finite."""
    # near the mean, so that squares do not cancel; exact for constant channels
    shift = _finite_mean(sample).astype(np.float32)
    n_features = len(shift)
    first, second = np.zeros(n_features), np.zeros(n_features)
    count = np.zeros(n_features)
    for flat in flats:
        for part in _blocks(flat):
            block = flat[part].astype(np.float32)
            block -= shift
            n: Any = len(block)
            if not _is_finite(block):
                finite = np.isfinite(block)
                n = finite.sum(axis=0)
                block[~finite] = 0
            count += n
            first += block.sum(axis=0)
            second += np.einsum("nf,nf->f", block, block)
    count = np.maximum(count, 1)
    mean = shift + first / count
    deviation = np.sqrt(np.maximum(second / count - (first / count) ** 2, 0))
    varies = deviation > _CONSTANT_SHARE * np.abs(mean)
    unit = deviation if standardise else np.ones(n_features)
    gain = np.divide(1, unit, out=np.zeros(n_features), where=varies)
    return mean.astype(np.float32), gain.astype(np.float32)


def _finite_mean(sample: _Map) -> _Float64:
    values = sample.astype(np.float64)
    finite = np.isfinite(values)
    values[~finite] = 0
    return values.sum(axis=0) / np.maximum(finite.sum(axis=0), 1)


def _principal_axes(sample: FloatArray, n: int) -> tuple[FloatArray, FloatArray]:
    """Return the widest axes, (F, n), and their shares of the variance."""
    from scipy.linalg import eigh

    centred = sample - sample.mean(axis=0)
    # float64: decompositions then agree far beyond what a picture shows
    covariance = (centred.T @ centred).astype(np.float64) / len(sample)
    f = len(covariance)
    values, vectors = eigh(covariance, subset_by_index=[f - n, f - 1])
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    # an axis has no sign of its own; this makes it repeatable
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(n)]
    axes = vectors * np.where(largest < 0, -1.0, 1.0)
    total = max(float(np.trace(covariance)), np.finfo(np.float64).tiny)
    return np.ascontiguousarray(axes, np.float32), (values / total).astype(np.float32)


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


def _nearest(space: FeatureSpace, flat: _Map, centres: FloatArray) -> IntArray:
    """Return the nearest centre of every token, (N,) int32."""
    out = np.empty(len(flat), np.int32)
    # half the squared distance, less what all centres have in common
    half = np.float32(0.5) * np.einsum("kf,kf->k", centres, centres)
    for part in _blocks(flat):
        block = _normalised(flat[part], space.mean, space.gain)
        out[part] = (half - block @ centres.T).argmin(axis=1)
    return out
