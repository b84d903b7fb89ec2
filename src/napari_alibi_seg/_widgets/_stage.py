"""Our layers in the viewer: scribbles, result, uncertainty, probability, overlays.

One `ImageStage` belongs to each image layer that was chosen; the `Stage` knows which is
on show and hears of strokes, of removed layers and of clicks. It keeps no results and
computes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from napari.layers import Image, Labels, Layer, Shapes
from qtpy.QtCore import QObject, QTimer, Signal

from napari_alibi_seg._base import Window
from napari_alibi_seg._segmenter import View
from napari_alibi_seg._widgets._hooks import on_gui
from napari_alibi_seg._widgets._layers import (
    class_colours,
    leading,
    new_like,
    paint_window,
    painted_window,
    plane_of,
    view_of,
)
from napari_alibi_seg._workspace import ClassEntry, ExcludedArea

__all__ = ["ImageStage", "Stage"]

_PLANE_MS = 150  # a slider is dragged over many planes
_REFRESH_MS = 700  # of layers that can only be sent to the screen whole
_LABELS_OPACITY = 0.45
_MAPS_OPACITY = 0.7
_MARK = "napari-alibi-seg"  # in the metadata of our layers
_MAPS = ("uncertainty", "probability")


class ImageStage:
    """Our layers for one image layer; each is made when it is first needed."""

    def __init__(
        self, viewer: Any, image: Image, dress: Callable[[Layer], None]
    ) -> None:
        self.viewer = viewer
        self.image = image
        self._dress = dress
        self.scribbles: Labels | None = None
        self.labels: Labels | None = None
        self.maps: dict[str, Image] = {}
        self.overlay: Layer | None = None
        self.areas: Shapes | None = None
        self._stale: set[str] = set()
        self._adopt()

    def _adopt(self) -> None:
        """Take over what an earlier dock made for this image."""
        for layer in self.viewer.layers:
            mark = layer.metadata.get(_MARK)
            if mark is None or mark["of"] != str(self.image.unique_id):
                continue
            if mark["kind"] in _MAPS:
                self.maps[mark["kind"]] = layer
            else:
                setattr(self, mark["kind"], layer)
            self._dress(layer)

    def mark(self, layer: Layer, kind: str) -> None:
        """Note on a layer that it is ours, and what it is."""
        layer.metadata[_MARK] = {"kind": kind, "of": str(self.image.unique_id)}

    @property
    def all(self) -> list[Layer]:
        """Our layers that exist."""
        some = [self.labels, *self.maps.values(), self.overlay, self.areas]
        return [layer for layer in [*some, self.scribbles] if layer is not None]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the image without its colour axis."""
        data = self.image.data[0] if self.image.multiscale else self.image.data
        return tuple(int(n) for n in data.shape[: self.image.ndim])

    def forget(self, layer: Layer) -> str:
        """Drop a layer that was removed; return what it was."""
        for name in ("scribbles", "labels", "overlay", "areas"):
            if getattr(self, name) is layer:
                setattr(self, name, None)
                return name
        for name, own in [*self.maps.items()]:
            if own is layer:
                del self.maps[name]
                return name
        return ""

    def add(self, layer: Layer) -> None:
        """Put a layer above the image and below the scribbles."""
        layers = self.viewer.layers
        at = len(layers)
        if self.scribbles is not None and self.scribbles in layers:
            at = layers.index(self.scribbles)
        active = layers.selection.active
        layers.insert(at, layer)
        self._dress(layer)
        # what the user was painting on stays in hand
        if active is not None and active in layers:
            layers.selection.active = active

    def result(self, entries: tuple[ClassEntry, ...]) -> Labels:
        """Return the Labels layer of the segmentation."""
        if self.labels is None:
            many = any(e.id > 255 for e in entries)
            data = np.zeros(self.shape, np.uint16 if many else np.uint8)
            self.labels = new_like(
                self.image,
                Labels,
                data,
                f"segmentation: {self.image.name}",
                opacity=_LABELS_OPACITY,
                colormap=class_colours(entries),
            )
            self.mark(self.labels, "labels")
            self.add(self.labels)
        assert self.labels is not None
        return self.labels

    def map(self, name: str, colormap: str) -> Image:
        """Return the image layer of the uncertainty or of a probability."""
        if name not in self.maps:
            layer: Any = new_like(
                self.image,
                Image,
                # half floats take ten times as long to show
                np.zeros(self.shape, np.float32),
                f"{name}: {self.image.name}",
                opacity=_MAPS_OPACITY,
                colormap=colormap,
                contrast_limits=(0.0, 1.0),
                blending="additive",
            )
            self.maps[name] = layer
            self.mark(layer, name)
            self.add(layer)
        return self.maps[name]

    def write_map(
        self, name: str, plane: tuple[int, ...], at: Window, block: Any
    ) -> None:
        """Write a piece of a map; it is shown with the next `refresh`."""
        layer = self.maps.get(name)
        if layer is not None:
            layer.data[(*plane, *at.slices)] = block
            self._stale.add(name)

    def refresh(self) -> None:
        """Show what was written to maps."""
        for name in self._stale & self.maps.keys():
            self.maps[name].refresh()
        self._stale.clear()

    def show_overlay(self, layer: Layer | None) -> None:
        """Replace the overlay by another, or remove it."""
        old, self.overlay = self.overlay, None
        if old is not None and old in self.viewer.layers:
            self.viewer.layers.remove(old)
        if layer is not None:
            self.overlay = layer
            self.mark(layer, "overlay")
            self.add(layer)

    def remove_all(self) -> None:
        """Take our layers out of the viewer."""
        for layer in self.all:
            self.forget(layer)
            with suppress(ValueError):
                self.viewer.layers.remove(layer)


class Stage(QObject):
    """What of the viewer concerns us.

    Attributes
    ----------
    stroke_ended : Signal(object)
        `Window` of the current plane that was painted, None where it is unknown.
    plane_changed, images_changed, view_moved : Signal()
    image_removed, image_replaced : Signal(object)
        The `Image` layer that is gone, or whose pixels are others now.
    layer_lost : Signal(str)
        Which of our layers the user removed.
    point_picked : Signal(float, float)
        Row and column in pixels, while `wants_points`.
    """

    stroke_ended = Signal(object)
    plane_changed = Signal()
    images_changed = Signal()
    image_removed = Signal(object)
    image_replaced = Signal(object)
    layer_lost = Signal(str)
    point_picked = Signal(float, float)

    def __init__(self, viewer: Any, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.viewer = viewer
        self.current: ImageStage | None = None
        self.plane: tuple[int, ...] = ()
        self.wants_points = False
        self.keys: Sequence[tuple[str, Any]] = ()
        self._dressed: list[Layer] = []
        self._stages: dict[int, ImageStage] = {}
        self._quiet = False
        # layer and plane that was painted before anybody turned to it
        self.painted_early: tuple[int, tuple[int, ...]] | None = None
        self._n_undo = (0, 0)
        self._n_undo_plane: tuple[int, ...] = ()
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_PLANE_MS)
        self._timer.timeout.connect(self._look_at_plane)
        self._refresher = QTimer(self)
        self._refresher.setInterval(_REFRESH_MS)
        self._refresher.timeout.connect(self._refresh)
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
        with suppress(ValueError):
            self.viewer.mouse_drag_callbacks.remove(self._clicked)
        for layer in self.viewer.layers:
            self._listen_to(layer, is_on=False)
        for stage in self._stages.values():
            if stage.scribbles is not None:
                self._unhear(stage.scribbles)
        for layer in self._dressed:
            for key, _ in self.keys:
                layer.bind_key(key, None)
        self._dressed.clear()
        self._stages.clear()
        self.current = None
        self._timer.stop()
        self._refresher.stop()

    @property
    def is_quiet(self) -> bool:
        """Whether we are changing our own layers ourselves."""
        return self._quiet

    # ---------------------------------------------------------------------- images

    def images(self) -> list[Image]:
        """Return the image layers that are not ours."""
        return [
            layer
            for layer in self.viewer.layers
            if isinstance(layer, Image)
            and _MARK not in layer.metadata
            and layer.ndim >= 2
        ]

    def choose(self, image: Image | None) -> None:
        """Turn to an image layer."""
        if image is None:
            self.current, self.plane = None, ()
            return
        if id(image) not in self._stages:
            stage = ImageStage(self.viewer, image, self._dress)
            self._stages[id(image)] = stage
            self._dress(image)
            if stage.scribbles is not None:
                self._hear(stage.scribbles)
                self._n_undo = _history(stage.scribbles)
        self.current = self._stages[id(image)]
        self.plane = plane_of(image, self.viewer.dims.current_step)
        self._refresher.start()

    def _dress(self, layer: Layer) -> None:
        """Give our keys to a layer too, as its own would come before the viewer's."""
        if any(layer is other for other in self._dressed):
            return
        for key, run in self.keys:
            layer.bind_key(key, run, overwrite=True)
        self._dressed.append(layer)

    def view(self) -> View:
        """Return what is visible of the image."""
        assert self.current is not None
        return view_of(self.viewer, self.current.image)

    def go_to(self, row: float, col: float) -> None:
        """Bring a pixel to the middle of the view, large enough to paint on."""
        assert self.current is not None
        image = self.current.image
        scale, shift = np.array(image.scale[-2:]), np.array(image.translate[-2:])
        at = np.array((row, col)) * scale + shift
        camera = self.viewer.camera
        camera.center = (*camera.center[:-2], *at)
        camera.zoom = max(camera.zoom, 2.0 / float(scale[-1]))

    # ------------------------------------------------------------------- scribbles

    def show_scribbles(self, data: Any, entries: tuple[ClassEntry, ...]) -> Labels:
        """Show scribbles on the current plane, in a layer of their own.

        Parameters
        ----------
        data : (Y, X) array of int
            All scribbles of the plane.
        entries : tuple of ClassEntry
            For the colours.
        """
        stage = self.current
        assert stage is not None
        if stage.scribbles is None:
            whole = np.zeros(stage.shape, data.dtype)
            layer: Any = new_like(
                stage.image,
                Labels,
                whole,
                f"scribbles: {stage.image.name}",
                opacity=1.0,
                colormap=class_colours(entries),
            )
            layer.brush_size = 8
            stage.mark(layer, "scribbles")
            with self._silence():
                self.viewer.add_layer(layer)
            self._dress(layer)
            stage.scribbles = layer
            self._hear(layer)
        scribbles = stage.scribbles
        if scribbles.data.dtype.itemsize < np.asarray(data).dtype.itemsize:
            with self._silence():
                scribbles.data = scribbles.data.astype(data.dtype)
        with self._silence():
            scribbles.data[self.plane or ...] = data
            scribbles.refresh()
        if self._n_undo_plane != self.plane:
            # an undo would change a plane that is not on show
            scribbles._reset_history()
            self._n_undo_plane = self.plane
        self._n_undo = _history(scribbles)
        return scribbles

    def painted(self) -> Any:
        """Return the scribbles of the current plane, (Y, X), not a copy."""
        assert self.current is not None
        assert self.current.scribbles is not None
        data = self.current.scribbles.data
        return data[self.plane] if self.plane else data

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
            with self._silence():
                stage.scribbles.data = stage.scribbles.data.astype(np.uint16)
            self._n_undo = _history(stage.scribbles)
        self.viewer.layers.selection.active = stage.scribbles
        if not stage.scribbles.visible:  # napari draws all again, also for no change
            stage.scribbles.visible = True
        stage.scribbles.selected_label = class_id
        stage.scribbles.mode = "paint"

    def disarm(self) -> None:
        """Take the brush away: there is no class left to paint."""
        if self.current is not None and self.current.scribbles is not None:
            self.current.scribbles.mode = "pan_zoom"

    def warm_up(self) -> None:
        """Let napari compile what it shows labels with; may run on any thread."""
        for dtype in (np.uint8, np.uint16):
            layer = Labels(np.zeros((4, 4), dtype), colormap=class_colours(()))
            layer.colormap._data_to_texture(layer.data)

    def recolour(self, entries: tuple[ClassEntry, ...]) -> None:
        """Show classes in their colours."""
        colours = class_colours(entries)
        for stage in self._stages.values():
            for layer in (stage.scribbles, stage.labels):
                if layer is not None:
                    with self._silence():
                        layer.colormap = colours

    def paint_labels(self, window: Window, block: Any) -> None:
        """Show a piece of the result on the current plane."""
        stage = self.current
        if stage is not None and stage.labels is not None:
            if block.dtype.itemsize > stage.labels.data.dtype.itemsize:
                stage.labels.data = stage.labels.data.astype(block.dtype)
            paint_window(stage.labels, self.plane, window, block)

    def _hear(self, layer: Labels) -> None:
        layer.events.paint.connect(self._painted)
        layer.events.set_data.connect(self._set_data)

    def _unhear(self, layer: Labels) -> None:
        layer.events.paint.disconnect(self._painted)
        layer.events.set_data.disconnect(self._set_data)

    @contextmanager
    def _silence(self) -> Iterator[None]:
        """What we do to our own layers is no stroke of the user's."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before

    @on_gui
    def _painted(self, event: Any) -> None:
        if self._quiet or not self._is_current(event.source):
            return
        self._n_undo = _history(event.source)
        self._look_at_plane(is_painted=True)  # a stroke may come before the timer
        window = painted_window(event.value)
        # `data_setitem` announces what it is about to write
        QTimer.singleShot(0, lambda: self.stroke_ended.emit(window))

    @on_gui
    def _set_data(self, event: Any) -> None:
        """Find out whether this refresh was an undo, which napari does not announce."""
        if self._quiet or not self._is_current(event.source):
            return
        now = _history(event.source)
        if now != self._n_undo:
            self._n_undo = now
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
        stage = self._stages.pop(id(layer), None)
        if stage is None:
            return
        if stage.scribbles is not None:
            self._unhear(stage.scribbles)
        if self.current is stage:
            self.current = None
        stage.remove_all()
        self.image_replaced.emit(layer)

    @on_gui
    def _reordered(self, _event: Any = None) -> None:
        self.images_changed.emit()

    @on_gui
    def _removed(self, event: Any) -> None:
        layer = event.value
        self._listen_to(layer, is_on=False)
        self._dressed = [other for other in self._dressed if other is not layer]
        if id(layer) in self._stages:
            stage = self._stages.pop(id(layer))
            if stage.scribbles is not None:
                self._unhear(stage.scribbles)
            if self.current is stage:
                self.current = None
            self.image_removed.emit(layer)
            # what belonged to it has lost its meaning, and is kept in its project
            # a bound method alone would not keep the stage alive
            QTimer.singleShot(0, lambda: stage.remove_all())
            return
        for stage in self._stages.values():
            what = stage.forget(layer)
            if what == "scribbles":
                self._unhear(layer)
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
            if is_painted:
                self.painted_early = (id(self.current.image), plane)
            self.plane_changed.emit()

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
            image = stage.image
            stage.areas = Shapes(
                ndim=2,
                name=f"left out: {image.name}",
                scale=image.scale[-2:],
                translate=image.translate[-2:],
                face_color="#80808080",
                edge_color="#808080",
                edge_width=2,
            )
            stage.mark(stage.areas, "areas")
            stage.add(stage.areas)
        with self._silence():
            stage.areas.data = []
            for area in areas:
                kind = "rectangle" if area.kind == "box" else "polygon"
                # shapes run through pixel centres, areas along pixel edges
                corners = np.array(area.corners) - 0.5
                stage.areas.add(corners, shape_type=kind)
        return stage.areas

    def drawn_areas(self) -> tuple[ExcludedArea, ...]:
        """Return the areas as they are drawn now."""
        if self.current is None or self.current.areas is None:
            return ()
        shapes = self.current.areas
        found = []
        for corners, kind in zip(shapes.data, shapes.shape_type, strict=True):
            if kind not in ("rectangle", "polygon", "ellipse"):
                continue
            at = tuple((float(y) + 0.5, float(x) + 0.5) for y, x in corners[:, -2:])
            is_box = kind == "rectangle" and _is_upright(corners[:, -2:])
            found.append(ExcludedArea(kind="box" if is_box else "polygon", corners=at))
        return tuple(found)


def _history(layer: Any) -> tuple[int, int]:
    """Return how much can be undone and redone."""
    return len(layer._undo_history), len(layer._redo_history)


def _is_upright(corners: Any) -> bool:
    return len(np.unique(np.round(corners, 6), axis=0)) == 4 and all(
        len(np.unique(np.round(corners[:, axis], 6))) == 2 for axis in (0, 1)
    )
