"""What of the viewer concerns us: the image on show, its plane, strokes and clicks.

One `ImageStage` belongs to each image layer that was chosen; the `Stage` knows which is
on show and hears of strokes, of removed layers and of clicks. What our layers look like
is `_image_stage`'s, or `_parts_stage`'s for a large image; only this module chooses
between the two. It keeps no results and computes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
from napari.layers import Image, Labels, Layer, Shapes
from qtpy.QtCore import QObject, QTimer, Signal

from napari_alibi_seg._base import Window
from napari_alibi_seg._segmenter import View
from napari_alibi_seg._widgets._areas import fill_areas, new_areas, read_areas
from napari_alibi_seg._widgets._hooks import on_gui
from napari_alibi_seg._widgets._image_stage import ImageStage, is_ours
from napari_alibi_seg._widgets._keys import Keys
from napari_alibi_seg._widgets._layers import (
    camera_of,
    class_colours,
    leading,
    look_at,
    plane_of,
    seen_of,
    view_of,
)
from napari_alibi_seg._widgets._parts_stage import PartsStage
from napari_alibi_seg._widgets._pieces import Piece
from napari_alibi_seg._widgets._strokes import StrokeWatch
from napari_alibi_seg._workspace import (
    ClassEntry,
    ExcludedArea,
    ScribbleBlocks,
    is_large,
)

__all__ = ["Stage"]

# A camera that moved less long ago is still moving. Waited for twice: drawing may have
# taken as long, and the next move is then still to be heard of.
_REST_MS = 80
_PLANE_MS = 150  # a slider is dragged over many planes
_REFRESH_MS = 700  # of layers that can only be sent to the screen whole


class Stage(QObject):
    """What of the viewer concerns us.

    Attributes
    ----------
    stroke_ended : Signal(object)
        `Window` of the current plane that was painted, None where it is unknown.
    plane_changed, images_changed : Signal()
    image_removed, image_replaced : Signal(object)
        The `Image` layer that is gone, or whose pixels are others now.
    layer_lost : Signal(str)
        Which of our layers the user removed.
    point_picked : Signal(float, float)
        Row and column in pixels, while `wants_points`.
    view_moved, view_rested : Signal()
        The camera moves over an image of which parts are shown; it stands still.
    step_wanted : Signal(bool)
        A stroke on such an image is to be taken back, or (True) done again.
    """

    stroke_ended = Signal(object)
    plane_changed = Signal()
    images_changed = Signal()
    image_removed = Signal(object)
    image_replaced = Signal(object)
    layer_lost = Signal(str)
    point_picked = Signal(float, float)
    view_moved = Signal()
    view_rested = Signal()
    step_wanted = Signal(bool)

    def __init__(self, viewer: Any, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.viewer = viewer
        self.current: ImageStage | None = None
        self.plane: tuple[int, ...] = ()
        self.wants_points = False
        self.keys = Keys(viewer)
        self._stages: dict[int, ImageStage] = {}
        self._strokes = StrokeWatch(self)
        self._strokes.painted.connect(self._painted)
        self._strokes.undone.connect(self._undone)
        # layer and plane that was painted before anybody turned to it
        self.painted_early: tuple[int, tuple[int, ...]] | None = None
        self._undo_plane: tuple[int, ...] = ()
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_PLANE_MS)
        self._timer.timeout.connect(self._look_at_plane)
        self._refresher = QTimer(self)
        self._refresher.setInterval(_REFRESH_MS)
        self._refresher.timeout.connect(self._refresh)
        self._rest = QTimer(self)
        self._rest.setSingleShot(True)
        self._rest.setInterval(_REST_MS)
        self._rest.timeout.connect(self._rested)
        self._is_at_rest = False
        camera = camera_of(viewer)
        camera.events.center.connect(self.moved)
        camera.events.zoom.connect(self.moved)
        layers = viewer.layers.events
        layers.inserted.connect(self._inserted)
        layers.removed.connect(self._removed)
        layers.reordered.connect(self._reordered)
        for layer in viewer.layers:
            self._listen_to(layer)
        viewer.dims.events.current_step.connect(self._stepped)
        viewer.mouse_drag_callbacks.append(self._clicked)

    def close(self) -> None:
        """Let go of the viewer; our layers stay, they are the user's results."""
        layers = self.viewer.layers.events
        layers.inserted.disconnect(self._inserted)
        layers.removed.disconnect(self._removed)
        layers.reordered.disconnect(self._reordered)
        self.viewer.dims.events.current_step.disconnect(self._stepped)
        camera = camera_of(self.viewer)
        camera.events.center.disconnect(self.moved)
        camera.events.zoom.disconnect(self.moved)
        self._rest.stop()
        with suppress(ValueError):
            self.viewer.mouse_drag_callbacks.remove(self._clicked)
        for layer in self.viewer.layers:
            self._listen_to(layer, is_on=False)
        for stage in self._stages.values():
            if stage.scribbles is not None:
                self._strokes.unhear(stage.scribbles)
        self.keys.close()
        self._stages.clear()
        self.current = None
        self._timer.stop()
        self._refresher.stop()

    @property
    def is_quiet(self) -> bool:
        """Whether we are changing our own layers ourselves."""
        return self._strokes.is_quiet

    # ---------------------------------------------------------------------- images

    def images(self) -> list[Image]:
        """Return the image layers that are not ours."""
        return [
            layer
            for layer in self.viewer.layers
            if isinstance(layer, Image) and not is_ours(layer) and layer.ndim >= 2
        ]

    def choose(self, image: Image | None) -> None:
        """Turn to an image layer."""
        if image is None:
            self.current, self.plane = None, ()
            return
        if id(image) not in self._stages:
            stage = self._made(image)
            self._stages[id(image)] = stage
            self.keys.dress(image)
            if stage.scribbles is not None:
                self._strokes.hear(stage.scribbles)
        self.current = self._stages[id(image)]
        self.plane = plane_of(image, self.viewer.dims.current_step)
        self._refresher.start()

    def _made(self, image: Image) -> ImageStage:
        pixels = image.data[0] if image.multiscale else image.data
        if is_large(pixels.shape[leading(image) :][:2]):
            step = self.step_wanted.emit
            return PartsStage(self.viewer, image, self.keys.dress, step)
        return ImageStage(self.viewer, image, self.keys.dress)

    @property
    def parts(self) -> PartsStage | None:
        """What shows parts of the image, where all of it is too large; else None."""
        return self.current if isinstance(self.current, PartsStage) else None

    @property
    def shows_parts(self) -> bool:
        """Whether scribbles and result are shown for a part of the image only."""
        return self.parts is not None

    def view(self) -> View:
        """Return what is visible of the image."""
        assert self.current is not None
        return view_of(self.viewer, self.current.image)

    def go_to(self, row: float, col: float) -> None:
        """Bring a pixel to the middle of the view, large enough to paint on."""
        assert self.current is not None
        look_at(self.viewer, self.current.image, row, col)

    # ------------------------------------------------------------------- scribbles

    def reader(self) -> Callable[[ScribbleBlocks], Any]:
        """Return what makes `content` for `show_scribbles`, on a worker."""
        assert self.current is not None
        return self.current.reader(self._seen())

    def _seen(self) -> tuple[Window, float] | None:
        """Return what the camera sees; asked only where it matters."""
        stage = self.parts
        return None if stage is None else seen_of(self.viewer, stage.image)

    @property
    def is_canvas_away(self) -> bool:
        """Whether scribbles are to be shown for another part of the image."""
        stage = self.parts
        if stage is None or stage.scribbles is None:
            return False
        return stage.is_away(seen_of(self.viewer, stage.image))

    def show_scribbles(self, content: Any, entries: tuple[ClassEntry, ...]) -> Labels:
        """Show scribbles of the current plane, in a layer of their own.

        Parameters
        ----------
        content : array, or what a `reader` returns
            Scribbles that are kept.
        entries : tuple of ClassEntry
            For the colours.
        """
        stage = self.current
        assert stage is not None
        with self._strokes.silence():
            is_new = stage.fill(self.plane, content, entries)
        scribbles: Any = stage.scribbles
        if is_new:
            self._strokes.hear(scribbles)
        if self._undo_plane != self.plane:
            # an undo would change a plane that is not on show
            scribbles._reset_history()
            if isinstance(stage, PartsStage):
                stage.forget_strokes()
            self._undo_plane = self.plane
        self._strokes.note(scribbles)
        return scribbles

    def painted(self) -> Any:
        """Return what the layer of scribbles shows, (Y, X), not a copy."""
        assert self.current is not None
        return self.current.painted(self.plane)

    @property
    def is_painting(self) -> bool:
        """Whether a stroke has begun and not ended."""
        scribbles = None if self.current is None else self.current.scribbles
        return scribbles is not None and bool(scribbles._block_history)

    def arm(self, class_id: int) -> None:
        """Put the brush of a class into the user's hand."""
        stage = self.current
        if stage is None or stage.scribbles is None:
            return
        most = np.iinfo(stage.scribbles.data.dtype).max
        if class_id > most:
            with self._strokes.silence():
                stage.scribbles.data = stage.scribbles.data.astype(np.uint16)
            self._strokes.note(stage.scribbles)
        self.viewer.layers.selection.active = stage.scribbles
        if not stage.scribbles.visible:  # napari draws all again, also for no change
            stage.scribbles.visible = True
        stage.scribbles.selected_label = class_id
        stage.scribbles.mode = "paint"

    def disarm(self) -> None:
        """Take the brush away: there is no class left to paint."""
        if self.current is not None and self.current.scribbles is not None:
            self.current.scribbles.mode = "pan_zoom"

    def recolour(self, entries: tuple[ClassEntry, ...]) -> None:
        """Show classes in their colours."""
        colours = class_colours(entries)
        for stage in self._stages.values():
            for layer in (stage.scribbles, stage.labels):
                if layer is not None:
                    with self._strokes.silence():
                        layer.colormap = colours

    def paint_result(self, piece: Piece) -> None:
        """Show a piece of the result on the current plane."""
        if self.current is not None:
            self.current.paint_result(self.plane, piece)

    @on_gui
    def _painted(self, layer: Any, window: Window | None) -> None:
        if not self._is_current(layer):
            return
        self._look_at_plane(is_painted=True)  # a stroke may come before the timer
        # `data_setitem` announces what it is about to write
        QTimer.singleShot(0, lambda: self.stroke_ended.emit(window))

    @on_gui
    def _undone(self, layer: Any) -> None:
        if self._is_current(layer):
            self.stroke_ended.emit(None)

    def _is_current(self, layer: Any) -> bool:
        return self.current is not None and self.current.scribbles is layer

    # -------------------------------------------------------------- viewer's events

    def _listen_to(self, layer: Layer, *, is_on: bool = True) -> None:
        """Hear of another name and of other pixels of an image; or no longer."""
        if isinstance(layer, Image):
            events = layer.events
            for signal, heard in (
                (events.name, self._reordered),
                (events.data, self._replaced),
            ):
                signal.disconnect(heard)
                if is_on:
                    signal.connect(heard)

    @on_gui
    def _inserted(self, event: Any) -> None:
        if isinstance(event.value, Image):
            self._listen_to(event.value)
            self.images_changed.emit()

    @on_gui
    def _replaced(self, event: Any) -> None:
        """Other pixels came into an image layer: what we made of it is of no use."""
        layer = event.source
        stage = self._drop(layer)
        if stage is not None:
            stage.remove_all()
            self.image_replaced.emit(layer)

    def _drop(self, image: Image) -> ImageStage | None:
        """Forget what belongs to an image; return it."""
        stage = self._stages.pop(id(image), None)
        if stage is not None and stage.scribbles is not None:
            self._strokes.unhear(stage.scribbles)
        if stage is self.current:
            self.current = None
        return stage

    @on_gui
    def _reordered(self, _event: Any = None) -> None:
        self.images_changed.emit()

    @on_gui
    def _removed(self, event: Any) -> None:
        layer = event.value
        self._listen_to(layer, is_on=False)
        self.keys.forget(layer)
        gone = self._drop(layer)
        if gone is not None:
            self.image_removed.emit(layer)
            # what belonged to it has lost its meaning, and is kept in its project
            # a bound method alone would not keep the stage alive
            QTimer.singleShot(0, lambda: gone.remove_all())
            return
        for stage in self._stages.values():
            what = stage.forget(layer)
            if what == "scribbles":
                self._strokes.unhear(layer)
            if what and stage is self.current:
                self.layer_lost.emit(what)
        if isinstance(layer, Image):
            self.images_changed.emit()

    @on_gui
    def _stepped(self, _event: Any = None) -> None:
        if self.current is not None and leading(self.current.image) > 0:
            self._timer.start()

    @on_gui
    def _look_at_plane(self, *, is_painted: bool = False) -> None:
        if self.current is None:
            return
        if self.is_painting and not is_painted:
            self._timer.start()  # after the stroke
            return
        plane = plane_of(self.current.image, self.viewer.dims.current_step)
        if plane != self.plane:
            self.plane = plane
            if is_painted and not self.shows_parts:
                self.painted_early = (id(self.current.image), plane)
            self.plane_changed.emit()

    @on_gui
    def moved(self, _event: Any = None) -> None:
        """What is seen may be another part of the image."""
        if self.shows_parts:
            self._is_at_rest = False
            self._rest.start()
            self.view_moved.emit()

    @on_gui
    def _rested(self) -> None:
        if self.is_painting or not self._is_at_rest:
            self._is_at_rest = True
            self._rest.start()
        elif self.shows_parts:
            self.view_rested.emit()

    @on_gui
    def _refresh(self) -> None:
        for stage in self._stages.values():
            stage.refresh()

    def _clicked(self, _viewer: Any, event: Any) -> None:
        if not self.wants_points or self.current is None or event.button != 1:
            return
        at = self.current.image.world_to_data(event.position)[-2:]
        if all(
            0 <= a + 0.5 < n for a, n in zip(at, self.current.shape[-2:], strict=True)
        ):
            self.point_picked.emit(float(at[0]), float(at[1]))

    # ----------------------------------------------------------------------- areas

    def draw_areas(self, areas: tuple[ExcludedArea, ...]) -> Shapes:
        """Show the areas that are left out, to be drawn and changed as shapes."""
        stage = self.current
        assert stage is not None
        if stage.areas is None:
            stage.areas = new_areas(stage.image)
            stage.mark(stage.areas, "areas")
            stage.add(stage.areas)
        with self._strokes.silence():
            fill_areas(stage.areas, areas)
        return stage.areas

    def drawn_areas(self) -> tuple[ExcludedArea, ...]:
        """Return the areas as they are drawn now."""
        if self.current is None or self.current.areas is None:
            return ()
        return read_areas(self.current.areas)
