"""The position probe of "What DINO saw" in numpy.

A ridge regression from some tokens of an image to where they lie: R2 near 1 means
that position can be read off the features. It measures how many channels carry
position: two in 384 score about 0.1, so a low value does not prove that there is
none; the R2 of the best single channel stands beside it for that reason. Far fewer
tokens than channels are fitted, so compare at equal grid and number of tokens only.
"""

from __future__ import annotations

import numpy as np

ALPHA = 1.0
FRACTION = 1 / 36


def ramps(rows: int, cols: int) -> np.ndarray:
    """Return the targets, left-right and up-down from 0 to 1, (rows, cols, 2)."""
    up_down, left_right = np.meshgrid(
        np.linspace(0, 1, rows), np.linspace(0, 1, cols), indexing="ij"
    )
    return np.stack([left_right, up_down], axis=-1)


def random_mask(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return a random 1/36 of a grid."""
    n = shape[0] * shape[1]
    mask = np.zeros(n, bool)
    mask[rng.choice(n, max(2, round(FRACTION * n)), replace=False)] = True
    return mask.reshape(shape)


def position_r2(features: np.ndarray, mask: np.ndarray, target: np.ndarray) -> float:
    """Return R2 over all tokens of a ridge fitted on the masked ones.

    Parameters
    ----------
    features : (rows, cols, C) array
        Tokens.
    mask : (rows, cols) bool
        Those to fit on; channels are standardised on them.
    target : (rows, cols, t) array
        What to predict; R2 is the mean over the t.
    """
    x, y, seen = _flat(features, mask, target)
    middle = y[seen].mean(0)
    # with fewer tokens than channels the dual problem is the small one
    gram = x[seen] @ x[seen].T + ALPHA * np.eye(seen.sum())
    predicted = x @ (x[seen].T @ np.linalg.solve(gram, y[seen] - middle)) + middle
    return float(_r2(predicted, y).mean())


def channel_r2(
    features: np.ndarray, mask: np.ndarray, target: np.ndarray
) -> np.ndarray:
    """Return the same for every channel by itself, (C,)."""
    x, y, seen = _flat(features, mask, target)
    middle = y[seen].mean(0)
    slope = x[seen].T @ (y[seen] - middle)  # (C, t)
    slope /= (x[seen] ** 2).sum(0)[:, None] + ALPHA
    predicted = x[:, :, None] * slope + middle  # (N, C, t)
    return _r2(predicted, y[:, None]).mean(-1)


def _flat(
    features: np.ndarray, mask: np.ndarray, target: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x = np.nan_to_num(features.reshape(-1, features.shape[-1]).astype(np.float64))
    seen = mask.ravel()
    spread = x[seen].std(0)
    x = (x - x[seen].mean(0)) / np.where(spread > 0, spread, 1.0)
    return x, target.reshape(len(x), -1).astype(np.float64), seen


def _r2(predicted: np.ndarray, y: np.ndarray) -> np.ndarray:
    left = ((predicted - y) ** 2).sum(0)
    return 1 - left / ((y - y.mean(0)) ** 2).sum(0)
