"""Whether a homogeneous image looks the same everywhere to a backbone.

Two numbers that need no regression: how the cosine of tokens falls with their
distance, and what a token's cluster tells of its row and column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import FloatArray, SettingsError
from napari_alibi_seg.analysis._regression import Float, stacked
from napari_alibi_seg.analysis._tokens import whole

__all__ = [
    "ClusterInformation",
    "DistanceCurve",
    "cluster_position_information",
    "cosine_by_distance",
    "cosine_map",
]

# Of the diagonal. Closer tokens are alike by their content.
_NEAR, _FAR = (0.15, 0.3), (0.55, 1.0)
_PAIRS_A_MAP = 20_000


def cosine_map(
    features: npt.ArrayLike, reference: tuple[int, int] | None = None
) -> FloatArray:
    """Compare every token with one of them, or with their mean.

    Features are taken as they are, as in the published figures; `similarity_map`
    compares normalised ones.

    Parameters
    ----------
    features : (h, w, C) array
        Token features.
    reference : (int, int), optional
        Row and column of a token. Default: the mean token.

    Returns
    -------
    (h, w) float32
        Cosines, -1 to 1; 0 where a token or the reference is 0.

    Raises
    ------
    SettingsError
        If the token is not on the map.

    Examples
    --------
    >>> cosine_map([[[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]]], (0, 0))
    array([[1., 1., 0.]], dtype=float32)
    """
    x = stacked([features])[0]
    h, w, _ = x.shape
    if reference is None:
        wanted = x.mean(axis=(0, 1))
    else:
        row, col = reference
        wanted = x[whole(row, "row", 0, h - 1), whole(col, "col", 0, w - 1)]
    cosine = _unit(x) @ _unit(wanted)
    return np.clip(cosine, -1, 1).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class DistanceCurve:
    """How alike tokens are by their distance in the frame.

    Attributes
    ----------
    distance : (n,) float64
        Middle of each bin, in diagonals of the frame.
    cosine : (n,) float64
        Mean cosine of the pairs of a bin; NaN where there is none.
    drop : float
        Mean cosine from 0.15 to 0.3 diagonals, less that beyond 0.55. Closer pairs do
        not count, as content makes them alike. About 0 without position.
    """

    distance: Float
    cosine: Float
    drop: float


def cosine_by_distance(
    maps: Sequence[npt.ArrayLike],
    *,
    pairs: Literal["within", "between"] = "within",
    centre: bool = False,
    n_bins: int = 12,
    seed: int = 0,
) -> DistanceCurve:
    """Measure how the cosine of two tokens depends on their distance.

    Parameters
    ----------
    maps : sequence of (h, w, C) arrays
        Token features of homogeneous images, all of one shape.
    pairs : {"within", "between"}
        Both tokens of one image, or each of another, compared by where they lie in
        the frame: then content cannot make neighbours alike.
    centre : bool
        Take off the mean token of each map first. Tokens mostly are what all tokens
        share, so without it differences are small.
    n_bins : int
        Of the curve.
    seed : int
        Of the pairs drawn, 20,000 a map.

    Returns
    -------
    DistanceCurve

    Raises
    ------
    SettingsError
        If there are too few maps or their shapes differ.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> noise = rng.normal(size=(20, 20, 16))
    >>> abs(cosine_by_distance([noise]).drop) < 0.02
    True
    >>> place = noise + 3 * np.linspace(-1, 1, 20)[:, None]
    >>> cosine_by_distance([place]).drop > 0.2
    True
    """
    x = stacked(maps)
    n, h, w, _ = x.shape
    if pairs not in ("within", "between"):
        raise SettingsError(f'`pairs` must be "within" or "between", got {pairs!r}.')
    if pairs == "between" and n < 2:
        raise SettingsError("Pairs between images need at least 2 maps, got 1.")
    whole(n_bins, "n_bins", 1, None)
    if centre:
        x = x - x.mean(axis=(1, 2), keepdims=True)
    flat = _unit(x).reshape(n, h * w, -1)
    rng = np.random.default_rng(seed)
    away, cosine = [], []
    for i in range(n):
        other = i if pairs == "within" else (i + 1 + rng.integers(n - 1)) % n
        a, b = rng.integers(h * w, size=(2, _PAIRS_A_MAP))
        keep = (a != b) | (pairs == "between")
        a, b = a[keep], b[keep]
        away.append(np.hypot(a // w - b // w, a % w - b % w))
        cosine.append(np.einsum("pc,pc->p", flat[i, a], flat[other, b]))
    share = np.concatenate(away) / max(np.hypot(h - 1, w - 1), 1)
    return _curve(share, np.concatenate(cosine), n_bins)


def _curve(share: Float, cosine: Float, n_bins: int) -> DistanceCurve:
    where = np.minimum((share * n_bins).astype(np.intp), n_bins - 1)
    count = np.bincount(where, minlength=n_bins)
    total = np.bincount(where, cosine, minlength=n_bins)
    mean = np.divide(total, count, out=np.full(n_bins, np.nan), where=count > 0)
    near, far = (
        cosine[(share >= low) & (share <= high)] for low, high in (_NEAR, _FAR)
    )
    drop = float(near.mean() - far.mean()) if near.size and far.size else 0.0
    return DistanceCurve((np.arange(n_bins) + 0.5) / n_bins, mean, drop)


@dataclass(frozen=True, slots=True)
class ClusterInformation:
    """What a token's cluster tells of its place, chance taken off.

    Attributes
    ----------
    rows, cols : float
        Share of what there is to know of the cluster that the band of rows, or of
        columns, tells: about 0 without position, a little below or above by chance;
        1 where bands are clusters.
    """

    rows: float
    cols: float

    @property
    def score(self) -> float:
        """The larger of the two."""
        return max(self.rows, self.cols)


def cluster_position_information(
    labels: npt.ArrayLike, *, n_bands: int = 6, n_draws: int = 100, seed: int = 0
) -> ClusterInformation:
    """Measure what clusters tell of bands of rows and columns.

    The mutual information of label and band, less what it is by chance, over the
    entropy of the labels less the same. Chance is the mean over maps whose blocks, one
    band high and wide, are put in another order: labels of neighbours stay alike.

    Parameters
    ----------
    labels : (h, w) array of int
        Clusters of the tokens of one homogeneous image, as of a `ClusterMap`.
    n_bands : int
        Of rows and of columns, 2 or more. The rest of h and w that is no multiple is
        left out at both ends.
    n_draws, seed : int
        Of the chance.

    Returns
    -------
    ClusterInformation

    Raises
    ------
    SettingsError
        If the map is smaller than the bands or holds no integers.

    Examples
    --------
    >>> halves = np.repeat([[0, 1]], 12, axis=0).repeat(6, axis=1)
    >>> found = cluster_position_information(halves)
    >>> round(found.cols, 2), found.rows < 0.1
    (1.0, True)
    """
    bands = whole(n_bands, "n_bands", 2, None)
    whole(n_draws, "n_draws", 1, None)
    blocks, n_labels = _blocks(labels, bands)
    rng = np.random.default_rng(seed)
    entropy = _entropy(blocks.sum(axis=(0, 1)))
    drawn = [
        _information(
            rng.permutation(blocks.reshape(-1, n_labels)).reshape(blocks.shape)
        )
        for _ in range(n_draws)
    ]
    chance = np.mean(drawn, axis=0)
    room = np.maximum(entropy - chance, np.finfo(np.float64).tiny)
    rows, cols = np.where(entropy > chance, (_information(blocks) - chance) / room, 0.0)
    return ClusterInformation(float(rows), float(cols))


def _blocks(labels: npt.ArrayLike, bands: int) -> tuple[Float, int]:
    """Return how often each label occurs in each block, (bands, bands, K)."""
    array = np.asarray(labels)
    if array.ndim != 2 or array.dtype.kind not in "iu" or min(array.shape) < bands:
        raise SettingsError(
            f"`labels` must be a map of integers of at least {bands} x {bands} tokens, "
            f"got {array.dtype} of shape {array.shape}."
        )
    _, index = np.unique(array, return_inverse=True)
    index = index.reshape(array.shape)
    n_labels = int(index.max()) + 1
    (h, w), (top, left) = array.shape, (n % bands // 2 for n in array.shape)
    index = index[top : top + h // bands * bands, left : left + w // bands * bands]
    hot = np.eye(n_labels)[index]
    split = hot.reshape(bands, h // bands, bands, w // bands, n_labels)
    return split.sum(axis=(1, 3)), n_labels


def _information(blocks: Float) -> Float:
    """Return the bits that bands of rows and of columns tell of labels, (2,)."""
    entropy = _entropy(blocks.sum(axis=(0, 1)))
    told = [
        np.mean([_entropy(band) for band in blocks.sum(axis=axis)]) for axis in (1, 0)
    ]
    return entropy - np.array(told)


def _entropy(counts: Float) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def _unit(x: Float) -> Float:
    """Return vectors of length 1; 0 stays 0."""
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    return np.divide(x, length, out=np.zeros_like(x), where=length > 0)
