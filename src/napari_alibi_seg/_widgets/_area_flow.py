"""What is left out of an image: suggested, drawn, changed, cleared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer

from napari_alibi_seg._base import Window
from napari_alibi_seg._widgets._hooks import on_gui
from napari_alibi_seg._workspace import ExcludedArea, OpenImage

if TYPE_CHECKING:
    from napari_alibi_seg._widgets._dock import Dock
    from napari_alibi_seg._widgets._image_flow import ImageFlow

__all__ = ["AreaFlow"]

_AREAS_MS = 300  # after the last change of a shape


class AreaFlow(QObject):
    """See the module.

    Attributes
    ----------
    bar : Window or None
        The information bar that is suggested.
    """

    def __init__(self, dock: Dock, images: ImageFlow) -> None:
        super().__init__(images)
        self.dock, self.images = dock, images
        self.bar: Window | None = None
        self._heard: list[Any] = []  # layers of areas
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_AREAS_MS)
        self._timer.timeout.connect(self._take)
        dock.stage.layer_lost.connect(self._lost)
        panel = dock.image_panel
        panel.area_wanted.connect(self._draw)
        panel.area_accepted.connect(self._leave_out_bar)
        panel.area_declined.connect(lambda: self.suggest(None))
        panel.areas_cleared.connect(self._clear)

    def close(self) -> None:
        """Stop."""
        self.settle()
        for shapes in self._heard:
            shapes.events.data.disconnect(self._drawn)

    def stop(self) -> None:
        """The layer that was drawn on is gone."""
        self._timer.stop()

    def suggest(self, bar: Window | None) -> None:
        """Offer to leave out an information bar, or offer it no more."""
        self.bar = bar
        text = ""
        if bar is not None:
            text = f"An information bar was found: rows {bar.y0} to {bar.y1 - 1}."
        self.dock.image_panel.suggest_area(text)

    @on_gui
    def _leave_out_bar(self) -> None:
        image, bar = self.images.current, self.bar
        if image is None or bar is None:
            return
        corners = (
            *((bar.y0, bar.x0), (bar.y0, bar.x1)),
            *((bar.y1, bar.x1), (bar.y1, bar.x0)),
        )
        area = ExcludedArea(kind="box", corners=corners)
        self.suggest(None)
        self.leave_out(image, (*image.excluded, area))
        self.show(image)

    @on_gui
    def _draw(self) -> None:
        image = self.images.current
        if image is None:
            return
        shapes = self.show(image)
        self.dock.viewer.layers.selection.active = shapes
        shapes.mode = "add_rectangle"

    def show(self, image: OpenImage) -> Any:
        """Show the areas of an image; return their layer."""
        stage = self.dock.stage
        shapes = stage.draw_areas(image.excluded)
        if all(shapes is not heard for heard in self._heard):
            shapes.events.data.connect(self._drawn)
            self._heard.append(shapes)
        return shapes

    @on_gui
    def _drawn(self, _event: Any) -> None:
        if not self.dock.stage.is_quiet:
            self._timer.start()

    @on_gui
    def _take(self) -> None:
        if self.images.current is not None:
            self.leave_out(self.images.current, self.dock.stage.drawn_areas())

    def settle(self) -> None:
        """Take over at once what was drawn, before another image is on show."""
        now, image = self.dock.stage.current, self.images.current
        is_awaited = self._timer.isActive()
        self._timer.stop()
        if image is None or now is None or id(now.image) != image.layer:
            return
        if is_awaited:
            self._take()

    @on_gui
    def _clear(self) -> None:
        if self.images.current is not None:
            self.leave_out(self.images.current, ())
            self.dock.stage.draw_areas(())

    @on_gui
    def _lost(self, what: str) -> None:
        """The layer of areas was removed by hand: then nothing is left out."""
        if what == "areas" and self.images.current is not None:
            self.leave_out(self.images.current, ())

    def leave_out(self, image: OpenImage, areas: tuple[ExcludedArea, ...]) -> None:
        """Leave out some areas and no others, on all planes of an image."""
        if areas == image.excluded:
            return
        for plane in {image, *self.dock.session.planes_of(image)}:
            plane.excluded = areas
        self.dock.image_panel.set_areas(len(areas))
        if image.project is not None:
            self.dock.scribbles.save()
        self.dock.train.result_is_stale()
