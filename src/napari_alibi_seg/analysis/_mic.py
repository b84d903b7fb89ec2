"""The artefact score of DVT: what the best single channel tells of a token's place.

Unlike the regressions it sees any dependence, not only straight ones, but one channel
at a time. The maximal information coefficient of Reshef et al. (2011) is, over all
grids of a x b cells with a b below n ** 0.6, the largest mutual information divided by
log2 min(a, b). It is known by a search for the best cuts; here the cuts are fixed, such
that each row and each column of cells holds the same number of tokens. So this is at
most the published coefficient and, like it, 1 for a noiseless function; and it is
without a search, for all channels at once.

References
----------
Yang et al. (2024), "Denoising Vision Transformers", ECCV, arXiv:2401.02957, table 1.
Reshef et al. (2011), "Detecting Novel Associations in Large Data Sets", Science 334.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_alibi_seg.analysis._regression import Float, stacked

__all__ = ["ArtefactScore", "artefact_score"]

# Of the tokens: more cells than this would be filled by chance.
_CELLS_POWER = 0.6


@dataclass(frozen=True, slots=True)
class ArtefactScore:
    """How much the best channels tell of the place of a token.

    Attributes
    ----------
    score : float
        0 to 1: mean over columns and rows of what their best channel tells.
    of_column, of_row : (C,) float64
        What each channel tells of the column and of the row a token lies in.
    """

    score: float
    of_column: Float
    of_row: Float


def artefact_score(features: npt.ArrayLike) -> ArtefactScore:
    """Return DVT's artefact score of one image, with cells of equal counts.

    Parameters
    ----------
    features : (h, w, C) array
        Token features. NaN and infinities count as 0.

    Returns
    -------
    ArtefactScore

    Raises
    ------
    SettingsError
        If the array has another number of dimensions.

    Notes
    -----
    Features without position do not give 0: on 37 x 37 tokens white noise of 384
    channels gives about 0.04, smooth content much more. Compare with the same
    number for `Smoothness.draw`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> features = rng.normal(size=(30, 30, 4))
    >>> bool(artefact_score(features).score < 0.1)
    True
    >>> features[..., 2] = np.arange(30) ** 3  # of the column
    >>> features[..., 3] = np.abs(np.arange(30) - 14.5)[:, None]  # of the row
    >>> round(artefact_score(features).score, 2)
    1.0
    """
    x = stacked([features])[0]
    h, w, c = x.shape
    share = _rank_shares(x.reshape(h * w, c))
    col = np.tile(np.arange(w), h)
    row = np.repeat(np.arange(h), w)
    of_column, of_row = (_coefficient(share, at, n) for at, n in ((col, w), (row, h)))
    score = (of_column.max() + of_row.max()) / 2
    return ArtefactScore(float(score), of_column, of_row)


def _rank_shares(x: Float) -> Float:
    """Return the share of tokens below each, (N, C); equal values stay together."""
    from scipy.stats import rankdata

    return (rankdata(x, axis=0) - 0.5) / len(x)


def _coefficient(share: Float, at: npt.NDArray[np.intp], n_places: int) -> Float:
    """Return the largest normalised information on places, over the grids, (C,)."""
    n, c = share.shape
    most = n**_CELLS_POWER
    best = np.zeros(c)
    for n_values in range(2, int(most // 2) + 1):
        largest = min(n_places, int(most // n_values))
        if largest < 2:
            break
        value = (share * n_values).astype(np.intp)
        cell = (np.arange(c) * n_values + value) * n_places + at[:, None]
        counts = np.bincount(cell.reshape(-1), minlength=c * n_values * n_places)
        joint = counts.reshape(c, n_values, n_places) / n
        for n_bands in range(2, largest + 1):
            # bands of whole places, as even as they can be
            band = ((np.arange(n_places) + 0.5) / n_places * n_bands).astype(np.intp)
            starts = np.searchsorted(band, np.arange(n_bands))
            cells = np.add.reduceat(joint, starts, axis=2)
            found = _information(cells) / np.log2(min(n_values, n_bands))
            np.maximum(best, found, out=best)
    # uneven bands can hold a little less than a full share
    return np.clip(best, 0, 1)


def _information(joint: Float) -> Float:
    """Return the mutual information of (C, a, b) shares in bits, (C,)."""
    one, other = joint.sum(axis=2), joint.sum(axis=1)
    return _entropy(one) + _entropy(other) - _entropy(joint.reshape(len(joint), -1))


def _entropy(shares: Float) -> Float:
    logs = np.log2(shares, out=np.zeros_like(shares), where=shares > 0)
    return np.asarray(-(shares * logs).sum(axis=1))
