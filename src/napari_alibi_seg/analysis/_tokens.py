"""Token maps, (R, C, F) arrays: what one may be, and the ways through its tokens.

Everything here is one step of what a feature space and its pictures do with many
tokens: check, flatten, draw a sample, centre and scale, a block at a time. What the
numbers mean is left to `_space` and `_views`.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import FloatArray, SettingsError

__all__ = [
    "TokenMap",
    "blocks",
    "checked",
    "flat_maps",
    "is_finite",
    "normalised",
    "sampled",
    "whole",
]

TokenMap: TypeAlias = npt.NDArray[np.floating[Any]]

# Small enough to stay in a cache between the steps on one block.
_BLOCK_BYTES = 1 << 20


def flat_maps(maps: TokenMap | Sequence[TokenMap]) -> list[TokenMap]:
    """Return the tokens of every map, (N, F)."""
    several = [maps] if isinstance(maps, np.ndarray) else list(maps)
    if not several:
        raise SettingsError("Expected at least one token map, got none.")
    arrays = [checked(tokens) for tokens in several]
    channels = {tokens.shape[2] for tokens in arrays}
    if len(channels) > 1:
        raise SettingsError(
            f"Expected token maps with the same channels, got {sorted(channels)}. Maps "
            f"of different backbones cannot share a space."
        )
    return [tokens.reshape(-1, tokens.shape[2]) for tokens in arrays]


def checked(tokens_rcf: TokenMap) -> TokenMap:
    """Return a map as an array, or say what is wrong with it."""
    tokens = np.asarray(tokens_rcf)
    if tokens.ndim != 3 or not tokens.size or tokens.dtype.kind != "f":
        raise SettingsError(
            f"Expected a token map as a float array of rows, columns and channels, "
            f"got {tokens.dtype} of shape {tokens.shape}."
        )
    return tokens


def whole(value: int, name: str, low: int, high: int | None) -> int:
    """Return a whole number, or say that it is none or out of its range."""
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


def blocks(flat: TokenMap) -> Iterator[slice]:
    """Yield the tokens that are taken at a time."""
    step = max(64, _BLOCK_BYTES // (4 * flat.shape[1]))
    for start in range(0, len(flat), step):
        yield slice(start, start + step)


def normalised(flat: TokenMap, mean: FloatArray, gain: FloatArray) -> FloatArray:
    """Return tokens centred and scaled, float32; what is not finite becomes 0."""
    out = flat.astype(np.float32)
    if not is_finite(out):
        out = np.where(np.isfinite(out), out, mean)
    out -= mean
    out *= gain
    return out


def is_finite(block: FloatArray) -> bool:
    """Return whether no value is NaN or infinite."""
    # a sum shows it in one pass; infinities of both signs are no surprise here
    with np.errstate(invalid="ignore"):
        return bool(np.isfinite(block.sum()))


def sampled(flats: Sequence[TokenMap], most: int, seed: int) -> TokenMap:
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
