"""What runs in the lane of the Batch tab: the same generator as `alibi-seg apply`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from napari_alibi_seg._base import SettingsError
from napari_alibi_seg._segmenter import (
    FileResult,
    Progress,
    Segmenter,
    find_inputs,
    iter_apply,
)
from napari_alibi_seg._workspace import BatchRequest

__all__ = ["Found", "iter_batch"]


@dataclass(frozen=True)
class Found:
    """The files of a batch, before the first is opened."""

    files: list[Path]


def iter_batch(
    request: BatchRequest, alone: threading.Lock
) -> Iterator[Found | Progress | FileResult]:
    """Do what `alibi-seg apply` does, once no other batch holds `alone`."""
    # a batch that was cancelled may be in its last tile, of the same files
    with alone:
        try:
            files = find_inputs(request.inputs, recursive=request.recursive)
        except OSError as err:
            raise SettingsError(
                f"Cannot list the files of a folder: {err}. Remove it, or ask for "
                f"the right to read it."
            ) from err
        yield Found(files)
        segmenter = Segmenter.load(
            request.classifier,
            backbone=request.backbone,
            store=request.store_folder(),
            device=request.device,
            workers=request.workers,
        )
        yield from iter_apply(segmenter, files, request.out, request.options())
