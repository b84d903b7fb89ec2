"""From events of a live run to pieces that are cheap to show.

Runs on the worker: coarse samples are enlarged to image pixels and cut into bands
there, so that the GUI thread only copies.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from napari_alibi_seg._base import Window
from napari_alibi_seg._segmenter import Beat, Preview, Tile, Visible

__all__ = ["Piece", "iter_pieces"]

_BAND_PIXELS = 1 << 22


@dataclass(frozen=True)
class Piece:
    """A part of the result, a value for every `step` pixels a side.

    Attributes
    ----------
    window : Window
        Where it lies.
    labels_yx : (h, w) array of unsigned int
        Class ids.
    maps : dict of str to (h, w) array
        Uncertainty and probabilities, as far as they are wanted.
    done, total : int
        Tiles; 0 for what is coarser than the image.
    step : int
        1 where coarse samples were enlarged.
    """

    window: Window
    labels_yx: Any
    maps: dict[str, Any] = field(default_factory=dict)
    done: int = 0
    total: int = 0
    step: int = 1


def iter_pieces(
    events: Iterator[Any],
    shape: tuple[int, int],
    probability_of: int | None = None,
    *,
    is_enlarged: bool = True,
) -> Iterator[Any]:
    """Yield pieces for what shows something, other events as they are.

    Of the `Beat`s only the one that ends the visible area is handed on: what came until
    then can be shown without waiting for more.

    Parameters
    ----------
    events : iterator
        Of a live run.
    shape : tuple of int
        Of the image.
    probability_of : int, optional
        Class whose probability is wanted.
    is_enlarged : bool
        Whether coarse samples become pixels of the image.
    """
    ids: tuple[int, ...] = ()
    try:
        for event in events:
            if isinstance(event, Beat):
                if event.stage == "result" and event.done == event.total:
                    yield event
                continue
            ids = getattr(event, "class_ids", ids)
            if isinstance(event, (Preview, Visible)):
                if is_enlarged:
                    yield from _enlarged(event, shape)
                else:
                    yield _kept(event, ids, probability_of)
            elif isinstance(event, Tile):
                yield _of_tile(event.result, ids, probability_of)
            else:
                yield event
    finally:
        close = getattr(events, "close", None)
        if close is not None:
            close()


def _of_tile(tile: Any, ids: tuple[int, ...], probability_of: int | None) -> Piece:
    maps = _maps(tile, ids, probability_of)
    return Piece(tile.window, tile.labels_yx, maps, tile.index + 1, tile.total)


def _kept(event: Any, ids: tuple[int, ...], probability_of: int | None) -> Piece:
    maps = _maps(event, ids, probability_of)
    return Piece(event.window, event.labels_yx, maps, step=event.step)


def _maps(
    part: Any, ids: tuple[int, ...], probability_of: int | None
) -> dict[str, Any]:
    maps = {"uncertainty": part.uncertainty_yx.astype(np.float32)}
    # a preview has labels only
    if probability_of in ids and not isinstance(part, Preview):
        proba = part.proba_kyx[ids.index(probability_of)]
        maps["probability"] = proba.astype(np.float32)
    return maps


def _enlarged(event: Preview | Visible, shape: tuple[int, int]) -> Iterator[Piece]:
    """Repeat samples to the pixels they stand for, in bands of bounded size."""
    w, step = event.window, event.step
    width = min(w.x1, shape[1]) - w.x0
    rows = max(1, _BAND_PIXELS // (width * step))
    for i in range(0, len(event.labels_yx), rows):
        part = slice(i, i + rows)
        y0 = w.y0 + i * step
        y1 = min(y0 + len(event.labels_yx[part]) * step, w.y1, shape[0])
        window = Window(y0, y1, w.x0, w.x0 + width)
        uncertainty = event.uncertainty_yx[part].astype(np.float32)
        yield Piece(
            window,
            _repeated(event.labels_yx[part], step, window),
            {"uncertainty": _repeated(uncertainty, step, window)},
        )


def _repeated(block: Any, step: int, window: Window) -> Any:
    if step > 1:
        block = np.repeat(np.repeat(block, step, axis=0), step, axis=1)
    return block[: window.shape[0], : window.shape[1]]
