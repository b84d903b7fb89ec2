"""Standardised principal components of ViT tokens.

Only this module knows how a projection is fitted and stored: channels are brought to
zero mean and unit variance, then rotated to their principal axes, each scaled to unit
variance (scikit-learn's ``StandardScaler`` and ``PCA(whiten=True)`` in one linear
map). Which tokens to fit on, and where to keep them, is the callers' matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import (
    ClassifierFileError,
    ComputeError,
    FloatArray,
    SettingsError,
)

__all__ = ["Projection", "fit_projection"]

_BLOCK_BYTES = 8 << 20  # float32 copy of a block of rows
_FIT_ROWS = 4096  # rows that are held in float64 at a time
_NOISE = 1e-10  # variance of a component over the first one's that counts as none


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """A fitted linear map from C channels to n components; checked when made.

    Attributes
    ----------
    mean : (C,) float64
        Mean of each channel.
    weights : (C, n) float64
        Standardisation, rotation and scaling in one matrix. A column of zeros stands
        for a component that the training tokens did not have.
    explained : (n,) float64
        Share of the standardised variance in each component.

    Raises
    ------
    ClassifierFileError
        If shapes or dtypes do not fit or a value is not finite.

    Examples
    --------
    >>> tokens = np.random.default_rng(0).normal(size=(500, 8)).astype(np.float32)
    >>> p = fit_projection(tokens, 3)
    >>> p.apply(tokens.reshape(20, 25, 8)).shape
    (20, 25, 3)
    >>> np.allclose(p.apply(tokens).std(axis=0, ddof=1), 1, atol=1e-4)
    True
    """

    mean: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]
    explained: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        w = self.weights
        arrays = (self.mean, w, self.explained)
        if (
            any(a.dtype != np.float64 for a in arrays)
            or w.ndim != 2
            or min(w.shape) < 1
            or self.mean.shape != w.shape[:1]
            or self.explained.shape != w.shape[1:]
        ):
            raise ClassifierFileError(
                "A projection must be float64 `mean` (C,), `weights` (C, n) and "
                f"`explained` (n,), got {[(a.shape, str(a.dtype)) for a in arrays]}. "
                "Get the file again or train a new classifier."
            )
        if not all(np.isfinite(a).all() for a in arrays):
            raise ClassifierFileError(
                "A projection must hold finite numbers only. Get the file again or "
                "train a new classifier."
            )

    @property
    def n_channels(self) -> int:
        """Channels of a token, C."""
        return int(self.weights.shape[0])

    @property
    def n_components(self) -> int:
        """Components of the result, n."""
        return int(self.weights.shape[1])

    @property
    def n_found(self) -> int:
        """Components that are not zero throughout."""
        return int(self.weights.any(axis=0).sum())

    def apply(self, tokens: npt.NDArray[Any]) -> FloatArray:
        """Project tokens.

        Parameters
        ----------
        tokens : (..., C) array of float16 or float32
            Tokens, channels last.

        Returns
        -------
        (..., n) float32
            The components. A token's result depends on that token alone, to the bit:
            sums run over the channels in order (no BLAS), so tokens may be cut into
            calls and spread over threads at will.

        Raises
        ------
        SettingsError
            If there are not C channels.

        Notes
        -----
        Besides the result at most about 8 MB are held, for a float32 copy of a block.
        """
        from napari_alibi_seg.learn._kernels import project_rows

        tokens = np.asarray(tokens)
        if tokens.ndim == 0 or tokens.shape[-1] != self.n_channels:
            raise SettingsError(
                f"`tokens` must have {self.n_channels} channels last, got "
                f"{tokens.shape}. Use the backbone the projection was fitted on."
            )
        rows = tokens.reshape(-1, self.n_channels)
        out = np.empty((len(rows), self.n_components), np.float32)
        mean, weights = map(np.ascontiguousarray, (self.mean, self.weights))
        step = max(1, _BLOCK_BYTES // (4 * self.n_channels))
        for first in range(0, len(rows), step):
            block = rows[first : first + step].astype(np.float32, copy=False)
            project_rows(block, mean, weights, out[first : first + step])
        return out.reshape(*tokens.shape[:-1], self.n_components)


def fit_projection(
    tokens_nc: npt.NDArray[Any],
    n_components: int,
    *,
    seed: int = 0,
    max_samples: int = 50_000,
) -> Projection:
    """Fit a projection to tokens.

    Parameters
    ----------
    tokens_nc : (N, C) array of float16 or float32
        Tokens of one or several images.
    n_components : int
        Components to keep, 1 to C.
    seed : int
        Seed of the subsample.
    max_samples : int
        Most tokens used; more are thinned out at random.

    Returns
    -------
    Projection
        Components by falling variance. The largest loading of each is positive.

    Raises
    ------
    SettingsError
        If `n_components` is not in 1 to C or there is no token.
    ComputeError
        If a token is not finite.

    Notes
    -----
    Fewer tokens than components, or tokens that vary in fewer directions (a constant
    image), are no error: the components that do not exist come out as zero, so that
    the number of features is always the one that was asked for. `Projection.n_found`
    tells.

    Examples
    --------
    >>> fit_projection(np.ones((4, 8), np.float16), 3).n_found
    0
    """
    tokens_nc = np.asarray(tokens_nc)
    if tokens_nc.ndim != 2 or len(tokens_nc) == 0:
        raise SettingsError(
            f"`tokens_nc` must be (N, C) with N of 1 or more, got {tokens_nc.shape}."
        )
    n, n_channels = tokens_nc.shape
    if not 1 <= n_components <= n_channels:
        raise SettingsError(
            f"`components` must lie in 1 to {n_channels}, the channels of this "
            f"backbone, got {n_components}."
        )
    if n > max_samples:
        chosen = np.random.default_rng(seed).choice(n, max_samples, replace=False)
        tokens_nc = tokens_nc[np.sort(chosen)]
    if not np.isfinite(tokens_nc).all():
        raise ComputeError(
            "Tokens must be finite, but some are NaN or infinite. Compute the features "
            'again in float32 (`dtype="float32"`); if it stays so, the weights are '
            "damaged."
        )
    return _fit(tokens_nc, n_components)


def _fit(tokens_nc: npt.NDArray[Any], n_components: int) -> Projection:
    n = len(tokens_nc)
    mean = tokens_nc.mean(axis=0, dtype=np.float64)
    products = np.zeros((len(mean), len(mean)))  # (C, C)
    for first in range(0, n, _FIT_ROWS):
        centred = tokens_nc[first : first + _FIT_ROWS] - mean
        products += centred.T @ centred
    std = np.sqrt(products.diagonal() / n)
    constant = std <= 1e-9 * np.abs(mean)  # also where both are zero
    inverse = np.where(constant, 0.0, 1.0 / np.where(constant, 1.0, std))
    covariance = products * inverse[:, None] * inverse / max(n - 1, 1)
    variance, axes = np.linalg.eigh(covariance)
    variance = variance[::-1][:n_components]
    axes = axes[:, ::-1][:, :n_components]
    largest = np.abs(axes).argmax(axis=0)
    axes = axes * np.sign(axes[largest, np.arange(n_components)])
    found = variance > _NOISE * max(variance[0], 1e-300)
    found &= np.arange(n_components) < n - 1  # n tokens span n - 1 directions
    scale = np.where(found, 1.0 / np.sqrt(np.where(found, variance, 1.0)), 0.0)
    whole = float(np.trace(covariance))
    share = np.where(found, variance, 0.0) / (whole if whole > 0 else 1.0)
    return Projection(
        mean, np.ascontiguousarray(inverse[:, None] * axes * scale), share
    )
