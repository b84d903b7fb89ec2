"""How much is a unit, where it runs, and what went wrong in a step."""

from __future__ import annotations

import os
from collections.abc import Sequence

from napari_alibi_seg._distributed._flows import Done

__all__ = ["ONE_GPU", "UNIT_TILES", "device_here", "first_error", "in_groups"]

# Set where a process sees a single GPU, whatever its number on the machine.
ONE_GPU = "ALIBI_SEG_ONE_GPU"

# Output tiles, and tiles of features on a CPU, that a worker does at a time: seconds.
UNIT_TILES = 4


def device_here(device: str) -> str:
    """Return what a device of the machine is called in a worker that sees one of them.

    Examples
    --------
    >>> device_here("cuda:3")  # no worker of ours
    'cuda:3'
    """
    if device.startswith("cuda:") and os.environ.get(ONE_GPU):
        return "cuda:0"
    return device


def in_groups(tiles: Sequence[int], side: int) -> list[tuple[int, ...]]:
    """Split tile numbers where a multiple of `side` begins.

    So units of a GPU are whole batches, whatever is missing.

    Examples
    --------
    >>> in_groups([1, 2, 5, 8, 9], 4)
    [(1, 2), (5,), (8, 9)]
    """
    groups: dict[int, list[int]] = {}
    for tile in tiles:
        groups.setdefault(tile // side, []).append(tile)
    return [tuple(group) for group in groups.values()]


def first_error(results: Sequence[Done]) -> str:
    """Return the message of the first unit that failed, or nothing."""
    return next((r.error for r in results if r.error), "")
