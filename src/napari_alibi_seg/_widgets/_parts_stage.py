"""Our layers for an image that is too large to have others as large beside it.

Scribbles and result are canvases: arrays about as large as the screen that cover what
is seen. Only this module knows what a canvas of scribbles shows that is kept already,
so that a stroke hands over what it changed and nothing else, and how a stroke is taken
back that was painted on another canvas. Where canvases lie is `_place`'s; napari's own
layer is never the store.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from app_model.types import KeyCode, KeyMod

from napari_alibi_seg._base import Window
from napari_alibi_seg._segmenter import View
from napari_alibi_seg._widgets._image_stage import ImageStage
from napari_alibi_seg._widgets._layers import paint_window, place_layer
from napari_alibi_seg._widgets._pieces import Piece
from napari_alibi_seg._widgets._place import Place, place_around
from napari_alibi_seg._workspace import ClassEntry, Patch, Project, ScribbleBlocks

if TYPE_CHECKING:
    from napari.layers import Image, Layer

__all__ = ["PartsStage"]

_STROKES = 100  # that can be taken back, as in napari
_LEAST_BRUSH = 2  # samples; what is thinner is not seen


@dataclass(frozen=True)
class _Filled:
    """A canvas as it is kept, when so many strokes had been taken."""

    place: Place
    data: Any
    version: int


class PartsStage(ImageStage):
    """See the module.

    Parameters
    ----------
    viewer, image, dress
        As of an `ImageStage`.
    step_wanted : callable
        Called when the user takes a stroke back (False) or does it again (True).
    """

    def __init__(
        self,
        viewer: Any,
        image: Image,
        dress: Callable[[Layer], None],
        step_wanted: Callable[[bool], None],
    ) -> None:
        self._place = Place(Window(0, 1, 0, 1), 1)
        self._known: Any = None  # what of the canvas is kept
        self._unsaved: ScribbleBlocks | None = None  # waits for a project
        self._version = 0
        self._undo: deque[Patch] = deque(maxlen=_STROKES)
        self._redo: deque[Patch] = deque(maxlen=_STROKES)
        self._result: View | None = None
        self._aim: View | None = None
        self._step_wanted = step_wanted
        self._brush = (0.0, 0)  # in pixels of the image, and in samples as we set it
        super().__init__(viewer, image, dress)

    def _adopt(self) -> None:
        """Remove what an earlier dock made: nobody knows what its canvases show."""
        super()._adopt()
        areas, self.areas = self.areas, None
        self.remove_all()
        self.areas = areas

    @property
    def pixels(self) -> tuple[int, int]:
        """Rows and columns of the image."""
        height, width = self.shape[-2:]
        return height, width

    # ------------------------------------------------------------------- scribbles

    def is_away(self, seen: tuple[Window, float]) -> bool:
        """Return whether the canvas of scribbles does not suit what is seen."""
        window, _ = seen
        wanted = place_around(*seen, self.pixels)
        height, width = self.pixels
        inside = Window(
            max(0, window.y0), min(height, window.y1),
            max(0, window.x0), min(width, window.x1),
        )  # fmt: skip
        if min(inside.shape) < 1:
            return False
        return (
            self._known is None
            or wanted.step != self._place.step
            or not (self._place.covers(inside))
        )

    def reader(
        self, seen: tuple[Window, float] | None
    ) -> Callable[[ScribbleBlocks], Any]:
        """Return what reads a canvas for what is seen."""
        assert seen is not None
        place, version = place_around(*seen, self.pixels), self._version
        return lambda blocks: _Filled(
            place, blocks.read(place.window, place.step), version
        )

    def fill(
        self, plane: tuple[int, ...], content: Any, entries: tuple[ClassEntry, ...]
    ) -> bool:
        """Show a canvas; return whether the layer had to be made."""
        step, self._place = self._place.step, content.place
        origin = (content.place.window.y0, content.place.window.x0)
        self._known = content.data.copy()
        is_new = self.scribbles is None
        layer: Any
        if is_new:
            layer = self.new_scribbles(
                content.data, entries, step=content.place.step, origin=origin
            )
            for keys, is_again in (
                (KeyMod.CtrlCmd | KeyCode.KeyZ, False),
                (KeyMod.CtrlCmd | KeyMod.Shift | KeyCode.KeyZ, True),
            ):
                layer.bind_key(keys, self._stepper(is_again), overwrite=True)
            self._keep_brush(layer, 1, content.place.step)
        else:
            data: Any = content.data
            layer = self.scribbles
            if layer.data.dtype.itemsize > data.dtype.itemsize:
                data = data.astype(layer.data.dtype)
            place_layer(layer, self.image, data, content.place.step, origin)
            self._keep_brush(layer, step, content.place.step)
            layer._reset_history()  # its places are those of another canvas
        return is_new

    def _keep_brush(self, layer: Any, before: int, after: int) -> None:
        """Let the brush paint as many pixels of the image as at the step before."""
        pixels, as_set = self._brush
        if layer.brush_size != as_set:  # the user's choice, or napari's
            pixels = layer.brush_size * before
        layer.brush_size = max(_LEAST_BRUSH, round(pixels / after))
        self._brush = (pixels, layer.brush_size)

    def _stepper(self, is_again: bool) -> Callable[[Any], None]:
        return lambda _layer: self._step_wanted(is_again)

    def unsaved(self, plane: tuple[int, ...]) -> Any:
        """Return what was painted and is not kept yet."""
        blocks = ScribbleBlocks(self.pixels)
        data = self.painted(plane)
        blocks.paint(*self._at, data, data != self._known)
        self._unsaved = blocks.copy()
        return blocks

    @property
    def has_unsaved(self) -> bool:
        """Whether something was painted that is not kept yet."""
        return self.scribbles is not None and not np.array_equal(
            self.scribbles.data, self._known
        )

    def painted(self, plane: tuple[int, ...]) -> Any:
        """Return the canvas, not a copy."""
        assert self.scribbles is not None
        return self.scribbles.data

    @property
    def _at(self) -> tuple[int, int, int]:
        return self._place.window.y0, self._place.window.x0, self._place.step

    def with_fresh(self, plane: tuple[int, ...], content: Any) -> Any:
        """Return None where the canvas was painted on since it was read."""
        is_late = content.version != self._version or self.has_unsaved
        return None if is_late else content

    def take(
        self, project: Project, plane: tuple[int, ...], window: Window | None
    ) -> None:
        """Hand the samples that changed to a project."""
        assert self.scribbles is not None
        data = self.scribbles.data
        changed = data != self._known
        if not changed.any():
            return
        patch = project.paint(plane or None, self._at, data, changed)
        if not patch.after and self._unsaved is not None:
            patch = self._unsaved.as_patch()  # the project began with it
        self._unsaved = None
        self._known = data.copy()
        self._version += 1
        if patch.after:
            self._undo.append(patch)
            self._redo.clear()

    def step(self, project: Project, plane: tuple[int, ...], *, is_again: bool) -> bool:
        """Take the last stroke back, or do it again; return whether there was one."""
        source, to = (self._redo, self._undo) if is_again else (self._undo, self._redo)
        if not source:
            return False
        patch = source.pop()
        to.append(patch)
        project.apply(plane or None, patch if is_again else patch.reverse)
        self.reread(project, plane)
        return True

    def forget_strokes(self) -> None:
        """None of the strokes can be taken back any more."""
        self._undo.clear()
        self._redo.clear()

    def reread(self, project: Project, plane: tuple[int, ...]) -> None:
        """Show what is kept now, at the same place."""
        self._version += 1
        if self.scribbles is not None:
            blocks = project.scribbles(plane or None)
            content = blocks.read(self._place.window, self._place.step)
            self.scribbles.data[...] = content
            self._known = self.scribbles.data.copy()
            self.scribbles.refresh()

    def paint_pixels(
        self, plane: tuple[int, ...], pixels: tuple[Any, Any], class_id: int
    ) -> None:
        """Paint what the canvas shows of some pixels."""
        assert self.scribbles is not None
        rows, cols = (
            (at - first) // self._place.step
            for at, first in zip(pixels, self._at[:2], strict=True)
        )
        height, width = self._place.samples
        inside = (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)
        self.scribbles.data_setitem((rows[inside], cols[inside]), class_id)

    # ---------------------------------------------------------------------- result

    def aim(self, view: View) -> None:
        """Let the next piece of a result begin a canvas for a view."""
        self._aim = view.within(self.pixels)

    def _blank(self, dtype: Any) -> Any:
        shape = (1, 1) if self._result is None else self._result.samples
        return np.zeros(shape, dtype)

    def _result_at(self) -> dict[str, Any]:
        if self._result is None:
            return {}
        w = self._result.window
        return {"step": self._result.step, "origin": (w.y0, w.x0)}

    def result(self, entries: tuple[ClassEntry, ...]) -> Any:
        """Return the Labels layer of the segmentation."""
        if self._result is None:
            self._result, self._aim = self._aim, None
        return super().result(entries)

    def paint_result(self, plane: tuple[int, ...], piece: Piece) -> None:
        """Show a piece of the result, at the samples of the canvas."""
        if self._aim is not None and self._aim != self._result:
            self._move_result(self._aim)
        self._aim = None
        if self._result is None:
            return
        place = Place(self._result.window, self._result.step)
        found = place.sampled(piece.window, piece.step, piece.labels_yx)
        if found is not None and self.labels is not None:
            self._widen(found[1])
            paint_window(self.labels, (), *found)
        for name, block in piece.maps.items():
            found = place.sampled(piece.window, piece.step, block)
            if found is not None and name in self.maps:
                self.maps[name].data[found[0].slices] = found[1]
                self._stale.add(name)

    def _move_result(self, view: View) -> None:
        """Begin a canvas elsewhere, with what the old one shows of it."""
        old, self._result = self._result, view
        place = Place(view.window, view.step)
        for layer in [self.labels, *self.maps.values()]:
            if layer is None:
                continue
            data = self._blank(layer.data.dtype)
            if old is not None:
                known = place.sampled(old.window, old.step, layer.data)
                if known is not None:
                    data[known[0].slices] = known[1]
            origin = (view.window.y0, view.window.x0)
            place_layer(layer, self.image, data, view.step, origin)
