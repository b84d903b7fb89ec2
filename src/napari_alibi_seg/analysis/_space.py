"""What features are measured against: channel statistics and principal axes.

One space may serve several images, so that a colour means the same in all of them.
Statistics of channels come from every token; the axes are fitted on a sample, and every
token is then placed by matrix products, a block at a time.

Knows arrays only. Where the features of an image come from, and how a map is brought
to its pixels, is left to those who know the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import FloatArray, SettingsError
from napari_alibi_seg.analysis._tokens import (
    TokenMap,
    blocks,
    checked,
    flat_maps,
    is_finite,
    normalised,
    sampled,
    whole,
)

__all__ = ["FeatureSpace", "feature_space"]

_Float64: TypeAlias = npt.NDArray[np.float64]

# More samples do not change what a handful of components look like.
_MAX_SAMPLES = 5_000
# Of each component: outliers must not take the contrast from all others.
_PERCENTILES = (1.0, 99.0)
# A component that spans less than this share of the first is rounding, not structure.
_FLAT_SHARE = 1e-5
# A channel that varies by less than this share of its values is constant but for
# rounding in float32.
_CONSTANT_SHARE = 1e-6


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

    def normalised(self, tokens_rcf: TokenMap) -> FloatArray:
        """Return the features centred and scaled, (R, C, F) float32.

        NaN and infinities become 0, which is the mean.
        """
        flat, shape = self.flat(tokens_rcf)
        out = np.empty(flat.shape, np.float32)
        for part in blocks(flat):
            out[part] = normalised(flat[part], self.mean, self.gain)
        return out.reshape(*shape, -1)

    def components(self, tokens_rcf: TokenMap) -> FloatArray:
        """Return the scores along the axes, (R, C, n) float32."""
        flat, shape = self.flat(tokens_rcf)
        out = np.empty((len(flat), self.n_components), np.float32)
        for part in blocks(flat):
            np.matmul(
                normalised(flat[part], self.mean, self.gain), self.axes, out=out[part]
            )
        return out.reshape(*shape, -1)

    def picture(self, tokens_rcf: TokenMap) -> FloatArray:
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

    def flat(self, tokens_rcf: TokenMap) -> tuple[TokenMap, tuple[int, int]]:
        """Return the tokens of a map row by row, (N, F), and its rows and columns."""
        tokens = checked(tokens_rcf)
        if tokens.shape[2] != self.n_features:
            raise SettingsError(
                f"Expected a token map with the {self.n_features} channels of the "
                f"feature space, got one of shape {tokens.shape}. Make a space from "
                f"maps of this kind."
            )
        return tokens.reshape(-1, self.n_features), tokens.shape[:2]


def feature_space(
    maps: TokenMap | Sequence[TokenMap],
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
    flats = flat_maps(maps)
    n_features = flats[0].shape[1]
    n = whole(n_components, "n_components", 1, n_features)
    most = whole(max_samples, "max_samples", 2, None)
    raw = sampled(flats, most, seed)
    mean, gain = _channel_statistics(flats, raw, standardise)
    sample = normalised(raw, mean, gain)
    axes, explained = _principal_axes(sample, n)
    low, high = np.percentile(sample @ axes, _PERCENTILES, axis=0).astype(np.float32)
    flat = high - low <= _FLAT_SHARE * (high - low).max()
    return FeatureSpace(mean, gain, axes, explained, low, np.where(flat, low, high))


def _channel_statistics(
    flats: Sequence[TokenMap], sample: TokenMap, standardise: bool
) -> tuple[FloatArray, FloatArray]:
    """Return mean and gain of every channel, over all tokens that are finite."""
    # near the mean, so that squares do not cancel; exact for constant channels
    shift = _finite_mean(sample).astype(np.float32)
    n_features = len(shift)
    first, second = np.zeros(n_features), np.zeros(n_features)
    count = np.zeros(n_features)
    for flat in flats:
        for part in blocks(flat):
            block = flat[part].astype(np.float32)
            block -= shift
            n: Any = len(block)
            if not is_finite(block):
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


def _finite_mean(sample: TokenMap) -> _Float64:
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
