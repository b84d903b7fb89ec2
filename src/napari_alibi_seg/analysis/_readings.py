"""All readings of one table: within images, across images, of noise, of moved images.

Every ramp is a column of one target, so that each regression is solved once. What the
numbers are compared with and called is left to `_table`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import SettingsError
from napari_alibi_seg.analysis._frame import (
    MOVES,
    Index,
    block_folds,
    crossfitted,
    move_index,
    shares,
)
from napari_alibi_seg.analysis._noise import measure_smoothness
from napari_alibi_seg.analysis._probe import drawn_tokens, split
from napari_alibi_seg.analysis._ramps import ramp
from napari_alibi_seg.analysis._regression import (
    Float,
    Reader,
    fit_reader,
    r2_alone,
    r2_columns,
    stacked,
)
from napari_alibi_seg.analysis._tokens import whole

__all__ = ["COLUMNS", "Across", "ReadSettings", "Readings", "Within"]

# "lr+ud" is the first two.
COLUMNS = ("lr", "ud", "diag", "radial", "raster", "random")
# Within an image every number costs a regression a quarter; a mean needs few images.
_MAX_SINGLE = 8
_Moved = dict[str, tuple[Float, Index]]


@dataclass(frozen=True, slots=True)
class ReadSettings:
    """How to read; see `probe_table`."""

    n_held_out: int | None
    n_tokens: int
    alpha: float
    n_draws: int
    seed: int
    n_transfer_tokens: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Within:
    """Readings within images, by column of targets; floors by draw too."""

    single: Float  # (t,)
    single_floor: Float  # (draws, t)
    crossfit: Float  # (t,)
    crossfit_floor: Float  # (draws, t)
    alone: Float  # (C, t)
    alone_floor: Float  # (draws, C, t)
    shares: Float  # (t, 2), frame and content
    shares_floor: Float  # (draws, t, 2)


@dataclass(frozen=True, slots=True, eq=False)
class Across:
    """Readings in other images, by column of targets."""

    r2: Float  # (t,)
    r2_floor: Float  # (draws, t)
    alone: Float  # (C, t)
    alone_floor: Float  # (draws, C, t)
    shares: Float  # (t, 2)


class Readings:
    """The features of one table, and the ways to read them."""

    def __init__(
        self,
        maps: Sequence[npt.ArrayLike],
        moved: Mapping[str, Sequence[npt.ArrayLike]],
        settings: ReadSettings,
    ) -> None:
        x = stacked(maps)
        self.n, h, w, self.c = x.shape
        self.shape = (h, w)
        self.flat = x.reshape(self.n, h * w, self.c)
        self.moved = _checked_moves(moved, x.shape)
        self.n_tokens = min(whole(settings.n_tokens, "n_tokens", 2, None), h * w)
        many = settings.n_transfer_tokens or self.n_tokens
        self.n_transfer = min(whole(many, "n_transfer_tokens", 2, None), h * w)
        self.n_draws = whole(settings.n_draws, "n_draws", 1, None)
        self.n_held_out, self.alpha = settings.n_held_out, settings.alpha
        self.seed = settings.seed
        columns = [ramp(kind, self.shape, seed=self.seed) for kind in COLUMNS]
        self.y = np.concatenate(columns, axis=2).reshape(h * w, len(COLUMNS))
        self.folds = block_folds(self.shape)
        self.smoothness = measure_smoothness(list(x))

    # ------------------------------------------------------------ within an image

    def within(self) -> Within:
        """Read images by themselves, and noise in the same way."""
        n = min(self.n, _MAX_SINGLE)
        found = [self._image(i) for i in range(n)]
        noise = [self._noise(draw) for draw in range(self.n_draws)]
        single, crossfit, alone, share = zip(*found, strict=True)
        floor = list(zip(*noise, strict=True))
        return Within(
            *(np.mean(single, axis=0), np.stack(floor[0])),
            *(np.mean(crossfit, axis=0), np.stack(floor[1])),
            *(np.mean(alone, axis=0), np.stack(floor[2])),
            *(np.mean(share, axis=0), np.stack(floor[3])),
        )

    def _image(self, i: int) -> tuple[Float, Float, Float, Float]:
        moved = {kind: (x[i], index) for kind, (x, index) in self.moved.items()}
        rng = np.random.default_rng([self.seed, 0, i])
        return self._read_within(self.flat[i], moved, rng)

    def _noise(self, draw: int) -> tuple[Float, Float, Float, Float]:
        rng = np.random.default_rng([self.seed, 2, draw])
        x = (
            self.smoothness.draw(self.shape, self.c, rng)
            .reshape(-1, self.c)
            .astype(np.float64)
        )
        moved = {k: (x[index], index) for k, (_, index) in self.moved.items()}
        return self._read_within(x, moved, rng)

    def _read_within(
        self,
        x: Float,
        moved: _Moved,
        rng: np.random.Generator,
    ) -> tuple[Float, Float, Float, Float]:
        chosen = rng.choice(len(x), self.n_tokens, replace=False)
        reader = fit_reader(x[chosen], self.y[chosen], self.alpha)
        seen = reader.standardised(x)
        alone = r2_alone(seen[chosen], self.y[chosen], seen, self.y, self.alpha)
        read, other = crossfitted(x, self.y, self.folds, moved, self.alpha)
        share = shares(
            self.y, [read], {k: ([p], moved[k][1]) for k, p in other.items()}
        )
        single = r2_columns(self.y, reader.read(x))
        return single, r2_columns(self.y, read), alone, share

    # ---------------------------------------------------------------- across images

    def across(self) -> Across:
        """Read images by a probe fitted on others; then maps without position."""
        n_fit = split(self.n, self.n_held_out)
        still = np.tile(np.arange(len(self.y)), (self.n, 1))
        r2, alone, reader = self._transfer(n_fit, still)
        floors = []
        for draw in range(self.n_draws):
            rng = np.random.default_rng([self.seed, 1, draw])
            order = np.stack([_shuffled(self.shape, rng) for _ in range(self.n)])
            floors.append(self._transfer(n_fit, order)[:2])
        r2_floor, alone_floor = (np.stack(v) for v in zip(*floors, strict=True))
        share = shares(
            self.y,
            [reader.read(x) for x in self.flat[n_fit:]],
            {
                kind: ([reader.read(x) for x in maps[n_fit:]], index)
                for kind, (maps, index) in self.moved.items()
            },
        )
        return Across(r2, r2_floor, alone, alone_floor, share)

    def _transfer(
        self, n_fit: int, order: npt.NDArray[np.intp]
    ) -> tuple[Float, Float, Reader]:
        """Fit on some maps and score the others, their tokens in another order."""
        tokens = drawn_tokens(n_fit, len(self.y), self.n_transfer, self.seed)
        fit_x = np.concatenate(
            [self.flat[i, order[i, chosen]] for i, chosen in enumerate(tokens)]
        )
        fit_y = np.concatenate([self.y[chosen] for chosen in tokens])
        reader = fit_reader(fit_x, fit_y, self.alpha)
        new_x = np.concatenate([self.flat[i, order[i]] for i in range(n_fit, self.n)])
        new_y = np.tile(self.y, (self.n - n_fit, 1))
        alone = r2_alone(
            reader.standardised(fit_x),
            fit_y,
            reader.standardised(new_x),
            new_y,
            self.alpha,
        )
        return r2_columns(new_y, reader.read(new_x)), alone, reader


def _checked_moves(
    moved: Mapping[str, Sequence[npt.ArrayLike]], shape: tuple[int, ...]
) -> _Moved:
    """Return the tokens of moved images, (n, h * w, C), and which lies where."""
    n, h, w, c = shape
    out = {}
    for kind, maps in moved.items():
        if kind not in MOVES:
            raise SettingsError(f"`moved` must be keyed by {MOVES}, got {kind!r}.")
        x = stacked(maps)
        if x.shape != shape:
            raise SettingsError(
                f"`moved` must hold a map for each of `maps`, {shape}, got {x.shape} "
                f"for {kind!r}."
            )
        out[kind] = (x.reshape(n, h * w, c), move_index((h, w), kind))
    return out


def _shuffled(shape: tuple[int, int], rng: np.random.Generator) -> Index:
    """Return tokens of a map rolled, mirrored and turned at random.

    Neighbours stay neighbours, so the content is as smooth as it was; its place is
    gone.
    """
    h, w = shape
    index = np.arange(h * w).reshape(h, w)
    if h == w and rng.random() < 0.5:
        index = index.T
    index = index[:: rng.choice((-1, 1)), :: rng.choice((-1, 1))]
    return np.roll(index, (rng.integers(h), rng.integers(w)), axis=(0, 1)).reshape(-1)
