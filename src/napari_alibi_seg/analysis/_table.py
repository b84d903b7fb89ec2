"""How much position is in features: every ramp, every number, and what it follows.

Joins the probes of the neighbouring modules into one table. The headline is the
transfer R2. Beside it stands what is usually reported, R2 within an image, with what
the same probe reads from noise as smooth, since alone it misleads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import SettingsError
from napari_alibi_seg.analysis._frame import FrameControl
from napari_alibi_seg.analysis._noise import Floor, Smoothness
from napari_alibi_seg.analysis._ramps import RAMPS
from napari_alibi_seg.analysis._readings import (
    COLUMNS,
    Across,
    Readings,
    ReadSettings,
    Within,
)
from napari_alibi_seg.analysis._regression import Float

__all__ = ["CHANNEL_R2", "ProbeRow", "ProbeTable", "probe_table"]

# A channel is positional if it alone reads so much more than the best channel of
# features without position.
CHANNEL_R2 = 0.1
# Fewer maps cannot be split into some to fit and some to score.
_MIN_TRANSFER = 3


@dataclass(frozen=True, slots=True)
class ProbeRow:
    """What was read of one ramp.

    Attributes
    ----------
    ramp : str
        See `ramp`.
    transfer_r2, transfer_floor : float and Floor, or None
        R2 in images that the probe was not fitted on, and the same after every map was
        turned, mirrored and rolled at random. None with fewer than 3 images.
    single_r2, single_floor : float, Floor
        R2 of the published single-image probe, mean over images, and from noise of
        the same tokens, channels and smoothness.
    crossfit_r2, crossfit_floor : float, Floor
        R2 within an image, each quarter read by a probe fitted on the others, and from
        such noise.
    channels : tuple of int
        Channels that are positional by themselves, the most positional first: with a
        transfer R2 (single-image R2 with fewer than 3 images) above `channel_r2`.
    channel_r2 : float
        0.1 beyond the best channel without position.
    control : FrameControl or None
        Frame or content. None if no moved images were given, or if none of the moves
        changes the ramp.
    """

    ramp: str
    transfer_r2: float | None
    transfer_floor: Floor | None
    single_r2: float
    single_floor: Floor
    crossfit_r2: float
    crossfit_floor: Floor
    channels: tuple[int, ...]
    channel_r2: float
    control: FrameControl | None


@dataclass(frozen=True, slots=True)
class ProbeTable:
    """All rows, and what they were measured on.

    Attributes
    ----------
    rows : tuple of ProbeRow
        One for each of `RAMPS`, in that order.
    grid : (int, int)
        Rows and columns of tokens.
    n_images, n_channels, n_tokens : int
        Images, channels, and tokens that a probe was fitted on in each image.
    smoothness : Smoothness
        Of the features; that of the noise.

    Examples
    --------
    >>> from napari_alibi_seg.analysis import ramp
    >>> rng = np.random.default_rng(0)
    >>> maps = [rng.normal(size=(12, 12, 8)) for _ in range(8)]
    >>> for tokens in maps:
    ...     tokens[..., 3] += 20 * ramp("ud", (12, 12))[..., 0]
    >>> table = probe_table(maps, n_draws=2)
    >>> table["ud"].transfer_r2 > 0.9, table["ud"].channels
    (True, (3,))
    """

    rows: tuple[ProbeRow, ...]
    grid: tuple[int, int]
    n_images: int
    n_channels: int
    n_tokens: int
    smoothness: Smoothness

    def __getitem__(self, ramp: str) -> ProbeRow:
        """Return the row of a ramp."""
        for row in self.rows:
            if row.ramp == ramp:
                return row
        raise SettingsError(f"`ramp` must be one of {RAMPS}, got {ramp!r}.")

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def probe_table(
    maps: Sequence[npt.ArrayLike],
    moved: Mapping[str, Sequence[npt.ArrayLike]] | None = None,
    *,
    n_held_out: int | None = None,
    n_tokens: int = 38,
    n_transfer_tokens: int | None = None,
    alpha: float = 1.0,
    n_draws: int = 8,
    seed: int = 0,
) -> ProbeTable:
    """Measure how much position is in features, for all ramps at once.

    Parameters
    ----------
    maps : sequence of (h, w, C) arrays
        Token features of crops of different content, all of one shape; one is enough,
        at least 32 are advised.
    moved : mapping of str to sequence of (h, w, C) arrays, optional
        Features of the same crops, each after `move_image`, by kind of move, to tell
        bias from shading. The radial ramp needs "roll".
    n_held_out : int, optional
        Images a transfer probe scores, the last ones. Default: a quarter.
    n_tokens : int
        Tokens fitted in each image by the transfer and the single-image probe.
    n_transfer_tokens : int, optional
        Those of the transfer probe, if it is to have others. About as many in all
        images together as there are channels make it worthless, R2 far below 0.
    alpha : float
        Strength of the ridge penalty.
    n_draws : int
        Draws of every floor.
    seed : int
        Equal arguments give equal tables.

    Returns
    -------
    ProbeTable

    Raises
    ------
    SettingsError
        If shapes differ, a move is unknown, or a number is out of its range.

    Notes
    -----
    `transfer_r2` is that of `transfer_probe`. Noise has independent channels; those
    of real features are correlated, so their floors are rather too high. With 3
    images or more the frame share of the control is that of the transfer probe, and
    the content share the larger of that and of the one within images. In a single
    image shading counts as smoothness, which raises the floor of the content share:
    weak shading, or one beside bias, can go unsaid there.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> table = probe_table([rng.normal(size=(12, 12, 8)) for _ in range(8)])
    >>> table["lr+ud"].transfer_r2 < 0.1, table["lr+ud"].channels
    (True, ())
    """
    settings = ReadSettings(
        n_held_out, n_tokens, alpha, n_draws, seed, n_transfer_tokens
    )
    job = Readings(maps, moved or {}, settings)
    within = job.within()
    across = job.across() if job.n >= _MIN_TRANSFER else None
    rows = tuple(_row(name, within, across) for name in RAMPS)
    return ProbeTable(rows, job.shape, job.n, job.c, job.n_tokens, job.smoothness)


def _row(name: str, within: Within, across: Across | None) -> ProbeRow:
    at = [COLUMNS.index(part) for part in name.split("+")]
    channels, channel_r2 = _positional(across or within, at)
    return ProbeRow(
        ramp=name,
        transfer_r2=None if across is None else _mean(across.r2, at),
        transfer_floor=None if across is None else _floor(across.r2_floor, at),
        single_r2=_mean(within.single, at),
        single_floor=_floor(within.single_floor, at),
        crossfit_r2=_mean(within.crossfit, at),
        crossfit_floor=_floor(within.crossfit_floor, at),
        channels=channels,
        channel_r2=channel_r2,
        control=_control(within, across, at),
    )


def _mean(values: Float, at: list[int]) -> float:
    return float(values[at].mean())


def _floor(draws: Float, at: list[int]) -> Floor:
    return Floor.of(draws[:, at].mean(axis=1))


def _positional(read: Within | Across, at: list[int]) -> tuple[tuple[int, ...], float]:
    """Return the positional channels, best first, and the R2 they are above."""
    alone = read.alone[:, at].mean(axis=1)
    floor = float(read.alone_floor[:, :, at].mean(axis=2).max())
    least = CHANNEL_R2 + max(floor, 0.0)
    order = np.argsort(-alone, kind="stable")
    return tuple(int(i) for i in order if alone[i] > least), least


def _control(
    within: Within, across: Across | None, at: list[int]
) -> FrameControl | None:
    """Return what the readings follow; None where that was not measured."""
    own = within.shares[at].mean(axis=0)
    if np.isnan(own).any():
        return None
    # columns are pooled: a mean over two would look surer than either
    draws = within.shares_floor[:, at, 1]
    floor = float(draws.mean() + 2 * draws.std())
    if across is None:
        return FrameControl.of(float(own[0]), float(own[1]), floor)
    frame, content = across.shares[at].mean(axis=0)
    # shading of its own in every image does not transfer; within an image it is read,
    # but so is what lies near: of the two the one that is surer counts
    if own[1] - max(floor, 0.0) < content:
        return FrameControl.of(float(frame), float(content), 0.0)
    return FrameControl.of(float(frame), float(own[1]), floor)
