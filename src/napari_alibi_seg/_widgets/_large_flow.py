"""Opening images that are too large for napari's readers: levels, made where absent.

Only this module knows what is done before such an image is shown: a file without
coarser copies gets them in the cache, once, in a worker, with progress and a way to
stop. Smaller files are left to napari, as ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import QObject
from qtpy.QtWidgets import QFileDialog

from napari_alibi_seg._base import AlibiSegError, StoreError
from napari_alibi_seg._widgets._hooks import on_gui
from napari_alibi_seg._widgets._layers import class_colours
from napari_alibi_seg._widgets._lazy import LazyPlane, lazy_levels
from napari_alibi_seg._widgets._queue import Queue
from napari_alibi_seg._workspace import ClassEntry, is_large
from napari_alibi_seg.data import (
    ImageSource,
    cache_dir,
    coarse_store,
    iter_coarse_levels,
    open_coarse_levels,
    open_levels,
)

if TYPE_CHECKING:
    from napari_alibi_seg._widgets._dock import Dock

__all__ = ["LargeFlow"]

_FOLDER = "levels"
# The coarsest level is read whole, for the range of its grey values.
_COARSE_PX = 2048
_FILTER = "Images (*.tif *.tiff *.zarr *.h5 *.hdf5);;All files (*)"


@dataclass(frozen=True)
class _Found:
    """The levels of a large image, ready to be shown; none of a small one."""

    path: Path
    levels: tuple[LazyPlane, ...] = ()
    limits: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class _Step:
    done: int
    total: int


class LargeFlow(QObject):
    """See the module."""

    def __init__(self, dock: Dock) -> None:
        super().__init__(dock)
        self.dock = dock
        self._queue = Queue("overview", self)
        self.lanes = (self._queue.lane,)
        dock.image_panel.overview_cancelled.connect(self._cancel)

    def close(self) -> None:
        """Stop; what is done of coarser copies is kept."""
        self._queue.lane.close()

    def ask(self) -> None:
        """Ask for files and open them."""
        names, _ = QFileDialog.getOpenFileNames(
            self.dock, "Open large images", "", _FILTER
        )
        for name in names:
            self.open(Path(name))

    def open(self, path: Path) -> None:
        """Open an image, by napari's own readers unless it is large."""
        self._queue.add(
            partial(_iter_open, path),
            on_event=self._heard,
            on_error=partial(self._failed, path),
            on_end=self.dock.image_panel.end_overview,
        )

    @on_gui
    def _heard(self, event: _Step | _Found) -> None:
        if isinstance(event, _Step):
            self.dock.image_panel.show_overview(event.done, event.total)
        elif event.levels:
            self._show(event)
        else:
            self.dock.viewer.open(str(event.path), layer_type="image")

    def _show(self, found: _Found) -> None:
        one = len(found.levels) == 1
        self.dock.viewer.add_image(
            found.levels[0] if one else list(found.levels),
            multiscale=not one,
            rgb=found.levels[0].is_rgb,
            name=found.path.stem,
            contrast_limits=None if found.levels[0].is_rgb else found.limits,
        )

    def show_result(self, path: Path) -> None:
        """Show a result that was written of a large image, above the image."""

        def show(levels: list[LazyPlane]) -> None:
            stage = self.dock.stage.current
            if stage is not None:
                entries = self.dock.session.classes.entries
                stage.show_overlay(_full_labels(stage.image, levels, entries))

        self._queue.add(
            lambda: iter([lazy_levels(open_levels(path))]),
            on_event=show,
            on_error=partial(self._failed, path),
            on_end=lambda: None,
        )

    def _failed(self, path: Path, text: str, error: BaseException) -> None:
        if isinstance(error, AlibiSegError):
            self.dock.image_panel.show_image([text])
        else:
            self.dock.image_panel.show_image([f"{path} cannot be opened. {text}"])

    @on_gui
    def _cancel(self) -> None:
        self._queue.clear()
        self.dock.image_panel.end_overview(
            "Stopped. What is done is kept: open the image again to go on."
        )


def _full_labels(
    image: Any, levels: list[LazyPlane], entries: tuple[ClassEntry, ...]
) -> Labels:
    return Labels(
        levels,
        multiscale=True,
        name=f"full segmentation: {image.name}",
        scale=image.scale[-2:],
        translate=image.translate[-2:],
        colormap=class_colours(entries),
        opacity=0.45,
    )


def _iter_open(path: Path) -> Iterator[_Step | _Found]:
    """Yield steps while coarser copies are made, then the levels."""
    try:
        sources = open_levels(path)
    except AlibiSegError:
        # a stack, or what only napari reads: it says itself what is wrong
        yield _Found(path)
        return
    if not is_large(sources[0].shape):
        yield _Found(path)
        return
    coarsest = sources[-1]
    if max(coarsest.shape) > _COARSE_PX:
        store = coarse_store(coarsest, cache_dir() / _FOLDER)
        made = open_coarse_levels(coarsest, store)
        if made is None:
            for done, total in iter_coarse_levels(coarsest, store):
                yield _Step(done, total)
            made = open_coarse_levels(coarsest, store)
        if made is None:
            raise StoreError(
                f"{store}: expected the coarser levels that were just made of {path}, "
                f"found nothing. Look whether something empties this folder, then open "
                f"the image again."
            )
        sources += made
    levels = tuple(lazy_levels(sources))
    yield _Found(path, levels, _limits(sources[-1]))


def _limits(coarsest: ImageSource) -> tuple[float, float]:
    """Return the range of grey values of a level."""
    pixels = coarsest.read(coarsest.window)
    low, high = (float(v) for v in (np.nanmin(pixels), np.nanmax(pixels)))
    return (low, high) if high > low else (low, low + 1)
