"""A first look at a backbone: is there much position in it, in a few forward passes.

For somebody who did not ask: cheap enough to run beside other work, once for each
backbone. The whole measurement, on a user's own images, is `_report`'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from napari_alibi_seg._base import Backbone, FloatArray, SettingsError
from napari_alibi_seg.analysis._crops import FEW_CROPS, synthetic_crops, token_map
from napari_alibi_seg.analysis._level import HEADLINE, MIN_TRANSFER, Level, judged
from napari_alibi_seg.analysis._noise import Floor
from napari_alibi_seg.analysis._report import transfer_tokens
from napari_alibi_seg.analysis._table import probe_table

__all__ = ["PositionCheck", "iter_position_check"]


@dataclass(frozen=True, slots=True)
class PositionCheck:
    """What a first look at a backbone found.

    Attributes
    ----------
    name : str
        Of the backbone, with its cures.
    n_crops : int
        Synthetic micrographs it was shown.
    transfer_r2 : float
        Share of the variance of column and row that a probe reads in crops it was not
        fitted on.
    floor : Floor
        The same where there is nothing to read.
    level : {"high", "some", "none found"}
        As of a `PositionReport`: high above `HIGH_R2`.
    sentence : str
        What that means, for a user.
    """

    name: str
    n_crops: int
    transfer_r2: float
    floor: Floor
    level: Level
    sentence: str


def iter_position_check(
    backbone: Backbone, *, n_crops: int = FEW_CROPS, seed: int = 0
) -> Iterator[PositionCheck | None]:
    """Look whether there is much position in a backbone, on synthetic micrographs.

    One forward pass of 16 x 16 tokens for each crop: together about as much as two
    tiles of 518 px. Stop iterating to cancel.

    Parameters
    ----------
    backbone : Backbone
        From `load_backbone`, cured or not.
    n_crops : int
        At least 3; with fewer than 12 it says little.
    seed : int
        Of the probe.

    Yields
    ------
    PositionCheck or None
        None after each crop, at last what was found.

    Raises
    ------
    SettingsError
        If there are too few crops.

    Examples
    --------
    >>> from napari_alibi_seg.features import load_backbone
    >>> backbone = load_backbone("alibi-tiny", device="cpu")
    >>> *_, found = iter_position_check(backbone)
    >>> found.level, found.transfer_r2 < 0.02
    ('none found', True)
    """
    maps: list[FloatArray] = []
    for values in synthetic_crops(backbone.patch_size, n_crops=n_crops).values:
        maps.append(token_map(backbone, values))
        yield None
    table = probe_table(maps, n_transfer_tokens=transfer_tokens(maps), seed=seed)
    row = table[HEADLINE]
    if row.transfer_r2 is None or row.transfer_floor is None:
        raise SettingsError(
            f"`n_crops` must be at least {MIN_TRANSFER}, got {n_crops}."
        )
    level, sentence = judged(table)
    yield PositionCheck(
        backbone.name, len(maps), row.transfer_r2, row.transfer_floor, level, sentence
    )
