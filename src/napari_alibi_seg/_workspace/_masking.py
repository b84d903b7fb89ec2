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
from napari_alibi_seg._workspace._images import OpenImage

__all__ = ["masked"]


def masked(
    run: Iterator[Any], image: OpenImage, ids: tuple[int, ...] = ()
) -> Iterator[Any]:
    """Set what is left out to 0, and count fractions without it."""
    counts: Counter[int] = Counter()
    try:
        for event in run:
            if isinstance(event, Trained):
                ids = event.class_ids
            if isinstance(event, (Preview, Visible)):
                out = image.left_out(event.window, event.step)
                if out is not None:
                    event = _without(event, out)
            elif isinstance(event, Tile):
                tile = event.result
                out = image.left_out(tile.window)
                if out is not None:
                    event = Tile(_without(tile, out))
                kept = tile.labels_yx if out is None else tile.labels_yx[~out]
                found, n = np.unique(kept, return_counts=True)
                counts.update(dict(zip(found.tolist(), n.tolist(), strict=True)))
            elif isinstance(event, Finished):
                continue
            yield event
    finally:
        close = getattr(run, "close", None)
        if close is not None:
            close()
    total = max(1, sum(counts.values()))
    keys = sorted({*ids, *counts})
    yield Finished({i: counts.get(i, 0) / total for i in keys})


def _without(event: Any, out: Any) -> Any:
    labels = np.where(out, 0, event.labels_yx).astype(event.labels_yx.dtype)
    uncertainty = np.where(out, np.float32(0), event.uncertainty_yx)
    return replace(event, labels_yx=labels, uncertainty_yx=uncertainty)
