"""Results without the parts of an image that are left out.

Only this module knows what a left-out pixel becomes: label 0, no uncertainty, and no
part of the area fractions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from napari_alibi_seg._segmenter import Finished, Preview, Tile, Trained, Visible
from napari_alibi_seg._workspace._images import Mask, OpenImage

__all__ = ["masked"]


def masked(
    run: Iterator[Any], image: OpenImage, ids: tuple[int, ...] = ()
) -> Iterator[Any]:
    """Set what is left out to 0, and count fractions without it.

    Of a run without tiles they are those of the visible samples.
    """
    counts: Counter[int] = Counter()
    seen: Counter[int] = Counter()
    try:
        for event in run:
            if isinstance(event, Trained):
                ids = event.class_ids
            if isinstance(event, (Preview, Visible)):
                out = image.left_out(event.window, event.step)
                event = without(event, out)
                if isinstance(event, Visible):
                    seen.update(counted(event.labels_yx, out))
            elif isinstance(event, Tile):
                tile = event.result
                out = image.left_out(tile.window)
                if out is not None:
                    event = Tile(without(tile, out))
                counts.update(counted(tile.labels_yx, out))
            elif isinstance(event, Finished):
                continue
            yield event
    finally:
        close = getattr(run, "close", None)
        if close is not None:
            close()
    counts = counts or seen
    total = max(1, sum(counts.values()))
    keys = sorted({*ids, *counts})
    yield Finished({i: counts.get(i, 0) / total for i in keys})


def counted(labels: Any, out: Mask | None) -> dict[int, int]:
    """Return how many pixels each id has, of those that are not left out."""
    kept = labels if out is None else labels[~out]
    found, n = np.unique(kept, return_counts=True)
    return dict(zip(found.tolist(), n.tolist(), strict=True))


def without(part: Any, out: Mask | None) -> Any:
    """Return a part of a result in which what is left out is nothing.

    Parameters
    ----------
    part : TileResult, Preview or Visible
        The part.
    out : (h, w) array of bool or None
        What is left out of it.
    """
    if out is None:
        return part
    labels = np.where(out, 0, part.labels_yx).astype(part.labels_yx.dtype)
    changes = {"labels_yx": labels}
    for name in ("uncertainty_yx", "proba_kyx"):
        if hasattr(part, name):
            changes[name] = np.where(out, np.float32(0), getattr(part, name))
    return replace(part, **changes)
