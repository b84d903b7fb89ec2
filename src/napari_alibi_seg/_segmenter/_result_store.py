"""The result store that a segmenter's results of an image belong into.

Whoever writes a result gets the same dtype, names, colours and pixel size from here, so
that files from the window and from the command line are the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from napari_alibi_seg._segmenter._segmenter import Segmenter
from napari_alibi_seg.data import ImageSource, ResultStore

__all__ = ["new_result_store"]


def new_result_store(
    segmenter: Segmenter,
    path: Path,
    identity: dict[str, Any],
    source: ImageSource,
    kinds: Sequence[str],
    **planes: Any,
) -> ResultStore:
    """Make or open the store of an image's result.

    Parameters
    ----------
    segmenter : Segmenter
        Fitted.
    path : Path
        See `ResultStore`.
    identity : dict
        JSON description of all that the pixels depend on.
    source : ImageSource
        The image, or a plane of it.
    kinds : sequence of {"labels", "probabilities", "uncertainty"}
        What is kept.
    **planes
        `n_planes` and `n_times` of `ResultStore`.

    Returns
    -------
    ResultStore

    Raises
    ------
    SettingsError
        If the segmenter is not fitted.
    StoreError
        If the store at `path` belongs to another identity or is damaged.
    OutputError
        If it cannot be created.
    """
    ids = [int(i) for i in segmenter.require_fitted().class_ids]
    settings = segmenter.settings
    unsure = settings.unsure_id if settings.unsure_below is not None else 0
    return ResultStore(
        path,
        identity,
        source.shape,
        ids,
        kinds=kinds,
        label_dtype=f"u{max(_n_bytes(ids[-1]), _n_bytes(unsure))}",
        pixel_size=source.pixel_size,
        class_names={i: c.name for i, c in segmenter.classes.items()},
        class_colours={i: c.colour for i, c in segmenter.classes.items()},
        **planes,
    )


def _n_bytes(highest: int) -> int:
    return next(n for n in (1, 2, 4, 8) if highest < 1 << (8 * n))
