"""Length generalisation: the same content at other sizes, hence on other grids.

A backbone generalises if a token does not care how many others there are. Larger grids
are brought to the smallest one by area means, and tokens compared; and a probe fitted
at the smallest size reads position at the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import SettingsError
from napari_alibi_seg.analysis._probe import drawn_tokens, split
from napari_alibi_seg.analysis._ramps import ramp
from napari_alibi_seg.analysis._regression import (
    Float,
    Reader,
    fit_reader,
    r2_columns,
    stacked,
)

__all__ = ["LengthRow", "length_generalisation"]

_MIN_TRANSFER = 3


@dataclass(frozen=True, slots=True)
class LengthRow:
    """Features of one size against those of the smallest.

    Attributes
    ----------
    side : int
        Pixels, as given.
    grid : (int, int)
        Rows and columns of tokens.
    cosine : float
        Mean of matching tokens, brought to the smallest grid; 1 for the smallest.
    centred_cosine : float
        The same after the mean token of every map was taken off: what distinguishes
        tokens, without what all share.
    transfer_r2 : float or None
        Of the ramp "lr+ud" in images of this size, read by a probe fitted on other
        images of the smallest. None with fewer than 3 images.
    """

    side: int
    grid: tuple[int, int]
    cosine: float
    centred_cosine: float
    transfer_r2: float | None


def length_generalisation(
    maps: Mapping[int, Sequence[npt.ArrayLike]],
    *,
    n_tokens: int = 38,
    alpha: float = 1.0,
    seed: int = 0,
) -> list[LengthRow]:
    """Compare features of the same images resized to several sides.

    Parameters
    ----------
    maps : mapping of int to sequence of (h, w, C) arrays
        By side in pixels, 518, 784, 1036 and 1246 in the paper: features of the same
        images in the same order.
    n_tokens : int
        Tokens drawn from each image the probe is fitted on.
    alpha : float
        Strength of the ridge penalty.
    seed : int
        Of the tokens drawn.

    Returns
    -------
    list of LengthRow
        By ascending side.

    Raises
    ------
    SettingsError
        If there is no size, or sizes differ in images or channels.

    Examples
    --------
    >>> small = np.random.default_rng(0).normal(size=(6, 6, 4))
    >>> large = small.repeat(2, axis=0).repeat(2, axis=1)
    >>> [round(r.cosine, 3) for r in length_generalisation({84: [small], 168: [large]})]
    [1.0, 1.0]
    """
    if not maps:
        raise SettingsError("Expected maps of at least one size, got none.")
    sides = sorted(maps)
    found = {side: stacked(maps[side]) for side in sides}
    first = found[sides[0]]
    for side, x in found.items():
        if (len(x), x.shape[3]) != (len(first), first.shape[3]):
            raise SettingsError(
                f"Every size must hold the same {len(first)} images with "
                f"{first.shape[3]} channels, got {len(x)} with {x.shape[3]} at {side}."
            )
    reader, n_fit = None, 0
    if len(first) >= _MIN_TRANSFER:
        n_fit = split(len(first), None)
        reader = _reader(first[:n_fit], n_tokens, alpha, seed)
    rows = []
    for side in sides:
        x = found[side]
        h, w = x.shape[1:3]
        same = _resampled(x, first.shape[1:3])
        plain, centred = _cosine(first, same), _cosine(_centred(first), _centred(same))
        r2 = None if reader is None else _read(reader, x[n_fit:])
        rows.append(LengthRow(side, (h, w), plain, centred, r2))
    return rows


def _reader(x: Float, n_tokens: int, alpha: float, seed: int) -> Reader:
    n, h, w, c = x.shape
    y = ramp("lr+ud", (h, w)).reshape(h * w, 2)
    tokens = drawn_tokens(n, h * w, n_tokens, seed)
    flat = x.reshape(n, h * w, c)
    fit_x = np.concatenate([flat[i, chosen] for i, chosen in enumerate(tokens)])
    return fit_reader(fit_x, np.concatenate([y[chosen] for chosen in tokens]), alpha)


def _read(reader: Reader, x: Float) -> float:
    n, h, w, c = x.shape
    y = np.tile(ramp("lr+ud", (h, w)).reshape(h * w, 2), (n, 1))
    return float(r2_columns(y, reader.read(x.reshape(-1, c))).mean())


def _resampled(x: Float, shape: tuple[int, ...]) -> Float:
    """Return maps brought to a smaller grid by area means."""
    rows, cols = (_overlap(a, b) for a, b in zip(x.shape[1:3], shape, strict=True))
    along = np.einsum("or,nrcf->nocf", rows, x)
    return np.asarray(np.einsum("oc,nrcf->nrof", cols, along))


def _overlap(n_from: int, n_to: int) -> Float:
    """Return what each of n cells covers of each of m over the same length, (m, n)."""
    old, new = np.linspace(0, 1, n_from + 1), np.linspace(0, 1, n_to + 1)
    low = np.maximum(new[:-1, None], old[:-1])
    high = np.minimum(new[1:, None], old[1:])
    return np.maximum(high - low, 0) * n_to


def _centred(x: Float) -> Float:
    return x - x.mean(axis=(1, 2), keepdims=True)


def _cosine(a: Float, b: Float) -> float:
    dot = (a * b).sum(axis=-1)
    length = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return float(
        np.divide(dot, length, out=np.zeros_like(dot), where=length > 0).mean()
    )
