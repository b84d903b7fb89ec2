"""What a table of probes means for somebody who paints strokes: a level and a sentence.

Only this module knows how much is much. How it is measured is `_table`'s.
"""

from __future__ import annotations

from typing import Literal

from napari_alibi_seg.analysis._crops import FEW_CROPS
from napari_alibi_seg.analysis._noise import Floor
from napari_alibi_seg.analysis._table import ProbeTable

__all__ = ["HEADLINE", "HIGH_R2", "MIN_TRANSFER", "Level", "judged"]

Level = Literal["high", "some", "none found", "unsure"]

# The ramp that stands for all.
HEADLINE = "lr+ud"
# Fewer crops cannot be split into some to fit and some to score.
MIN_TRANSFER = 3
# Share of the variance of place. What it costs a segmentation is another matter: see
# docs/position-bias.md.
HIGH_R2 = 0.3
# Less is nothing, whatever the floor.
_LEAST_R2 = 0.02
# Standard deviations above the floor.
_SURE = 2.0


def _above(value: float, floor: Floor) -> bool:
    return value > max(floor.mean + _SURE * floor.sd, _LEAST_R2)


def judged(table: ProbeTable) -> tuple[Level, str]:
    """Return the level that a table shows, and what it means for a user."""
    level = _level(table)
    return level, _sentence(level, table)


def _level(table: ProbeTable) -> Level:
    row = table[HEADLINE]
    control = row.control  # None if no moved images were looked at
    follows_frame = control is not None and control.verdict in ("bias", "both")
    if row.transfer_r2 is None or row.transfer_floor is None:
        is_read = _above(row.crossfit_r2, row.crossfit_floor)
        if control is not None and follows_frame and is_read:
            return "high" if control.frame > HIGH_R2 else "some"
        return "unsure"
    is_read = _above(row.transfer_r2, row.transfer_floor)
    if is_read and row.transfer_r2 > HIGH_R2:
        return "high"
    return "some" if is_read or row.channels or follows_frame else "none found"


def _sentence(level: Level, table: ProbeTable) -> str:
    """Return what a level means for strokes, in plain words."""
    row = table[HEADLINE]
    if level == "unsure":
        return (
            "Too few crops to tell: nothing shows position by itself, but that takes "
            f"at least {MIN_TRANSFER} crops, better {FEW_CROPS}."
        )
    if level == "none found":
        return (
            "No position found: a probe fitted on some crops reads nothing of the "
            f"place of a token in others (R2 {row.transfer_r2:.2f}). A probe that is "
            "not a straight line could still find some."
        )
    if row.transfer_r2 is not None and row.transfer_r2 > _LEAST_R2:
        found = (
            f"in crops it has not seen, a probe reads {100 * row.transfer_r2:.0f} % of "
            "the variance of a token's place"
        )
    elif row.transfer_r2 is not None and row.channels:
        found = (
            f"{len(row.channels)} of {table.n_channels} channels follow the place of a "
            "token by themselves"
        )
    else:
        found = "what a probe reads stays in place when the image is moved"
    if level == "high":
        return (
            f"Much position: {found}. Strokes in one part of the frame may not hold in "
            "another; spread them, or try a cure or an ALiBi backbone."
        )
    return f"Some position: {found}. Spread strokes over the frame."
