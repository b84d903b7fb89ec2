"""What a store of results is and keeps: refused before the work, not after it.

Only this module knows which kinds, ids, dtypes, planes and tiles a `ResultStore` can
have, and whether the result of a tile is one that belongs into it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import SettingsError, TileResult, Window
from napari_alibi_seg.data._ome_zarr import KindLayout

__all__ = [
    "RESULT_KINDS",
    "checked_blocks",
    "checked_dtype",
    "checked_length",
    "checked_tile",
]

RESULT_KINDS = ("labels", "probabilities", "uncertainty")


def checked_dtype(
    class_ids: Sequence[int], kinds: Sequence[str], dtype: npt.DTypeLike | None
) -> np.dtype:
    """Return the dtype of the labels of a store, in the machine's byte order."""
    if not kinds or len(set(kinds)) < len(kinds) or not set(kinds) <= {*RESULT_KINDS}:
        raise SettingsError(
            f"Expected `kinds` to be some of {list(RESULT_KINDS)}, each once, got "
            f"{list(kinds)}."
        )
    if not class_ids or list(class_ids) != sorted(set(class_ids)) or class_ids[0] < 0:
        raise SettingsError(
            f"Expected `class_ids` from 0 up, ascending, each once, got "
            f"{list(class_ids)}."
        )
    known = np.min_scalar_type(class_ids[-1]) if dtype is None else np.dtype(dtype)
    if known.kind != "u" or class_ids[-1] > np.iinfo(known).max:
        raise SettingsError(
            f"Expected an unsigned `label_dtype` that holds {class_ids[-1]}, got "
            f"{known}."
        )
    return known.newbyteorder("=")


def checked_length(name: str, length: int | None) -> int | None:
    """Return the length of an axis if there can be such a one; None is no axis."""
    if length is not None and length < 1:
        raise SettingsError(f"`{name}` must be 1 or more, or None, got {length}.")
    return length


def checked_tile(tile_px: int) -> int:
    """Return the side of a tile if TIFF can have it too."""
    if tile_px < 16 or tile_px % 16:
        raise SettingsError(
            f"`tile_px` must be a multiple of 16 from 16 up, which TIFF asks for, got "
            f"{tile_px}."
        )
    return tile_px


def checked_blocks(
    result: TileResult, index: int, window: Window, layouts: Iterable[KindLayout]
) -> dict[str, npt.NDArray[Any]]:
    """Return the pixels of each kind if they belong into a tile.

    Raises
    ------
    SettingsError
        If the window is another, or shape or dtype do not fit a layout.
    """
    if result.window != window:
        raise SettingsError(
            f"Expected the result of tile {index}, {window}, got {result.window}. "
            f"Write each tile under its position in `tiles`."
        )
    blocks = {}
    for layout in layouts:
        block = _block_of(layout.name, result)
        expected = (*layout.channels, *window.shape)
        if block.shape != expected or block.dtype != layout.dtype:
            raise SettingsError(
                f"Expected {layout.name} of shape {expected} and {layout.dtype} for "
                f"tile {index}, got {block.shape} of {block.dtype}."
            )
        blocks[layout.name] = block
    return blocks


def _block_of(kind: str, result: TileResult) -> npt.NDArray[Any]:
    match kind:
        case "labels":
            return result.labels_yx
        case "probabilities":
            return result.proba_kyx
        case _:
            return result.uncertainty_yx
