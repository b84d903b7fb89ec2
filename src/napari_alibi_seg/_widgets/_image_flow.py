"""Choosing an image: its source, its project, its pixel size, what is left out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error
from qtpy.QtCore import QObject, QTimer

from napari_alibi_seg._base import AlibiSegError, PixelSize, Window
from napari_alibi_seg._widgets._hooks import on_gui
from napari_alibi_seg._widgets._jobs import Lane
from napari_alibi_seg._widgets._layers import source_of, warm_up_colours
from napari_alibi_seg._workspace import (
    ExcludedArea,
    FoundProject,
    Opened,
    OpenImage,
    Project,
)

if TYPE_CHECKING:
    from napari_alibi_seg._widgets._dock import Dock

__all__ = ["ImageFlow"]

_AREAS_MS = 300  # after the last change of a shape


class ImageFlow(QObject):
    """See the module."""

    def __init__(self, dock: Dock) -> None:
        super().__init__(dock)
        self.dock = dock
        self.current: OpenImage | None = None
        self._open = Lane("open", self)
        self._project = Lane("project", self)
        self._devices = Lane("devices", self)
        self.lanes = (self._open, self._project, self._devices)
        self._bar: Window | None = None
        self._image: OpenImage | None = None  # on show, perhaps still being opened
        self._heard: list[Any] = []  # layers of areas
        self._waiting: Any = None  # a stroke that began before there was a project
        self._areas_timer = QTimer(self)
        self._areas_timer.setSingleShot(True)
        self._areas_timer.setInterval(_AREAS_MS)
        self._areas_timer.timeout.connect(self._take_areas)
        stage, panel = dock.stage, dock.image_panel
        stage.images_changed.connect(self.refresh)
        stage.image_removed.connect(self._lose)
        stage.image_replaced.connect(self._replaced)
        stage.plane_changed.connect(self.reopen)
        panel.image_chosen.connect(self.choose)
        panel.pixel_size_wanted.connect(self._set_pixel_size)
        panel.area_wanted.connect(self._draw_area)
        panel.area_accepted.connect(self._leave_out_bar)
        panel.area_declined.connect(lambda: self._suggest(None))
        panel.areas_cleared.connect(self._clear_areas)
        self._devices.start(_iter_devices, on_event=panel.set_devices)

    def close(self) -> None:
        """Stop."""
        self._areas_timer.stop()
        for shapes in self._heard:
            shapes.events.data.disconnect(self._areas_drawn)
        if self._image is not None:
            self._image.is_dropped = True
        for lane in self.lanes:
            lane.close()

    # ------------------------------------------------------------------- choosing

    @on_gui
    def refresh(self) -> None:
        """Show which images there are; the first one is chosen by itself."""
        stage = self.dock.stage
        layers = stage.images()
        chosen = stage.current.image if stage.current is not None else None
        if chosen is None and layers:
            self.dock.image_panel.set_images(
                [(layer, layer.name) for layer in layers], layers[0]
            )
            self.choose(layers[0])
            return
        self.dock.image_panel.set_images(
            [(layer, layer.name) for layer in layers], chosen
        )

    @on_gui
    def choose(self, layer: Any) -> None:
        """Turn to an image layer."""
        self.dock.stage.choose(layer)
        self.reopen()

    @on_gui
    def reopen(self) -> None:
        """Open the shown plane of the chosen layer."""
        stage = self.dock.stage
        self.dock.train.stop()
        self.dock.features.stop()
        self.dock.offer.withdraw()
        self._open.stop()
        self.current = None
        if stage.current is None:
            return
        layer, plane = stage.current.image, stage.plane
        session = self.dock.session
        known = session.images.get((id(layer), plane))
        if known is not None:
            self._show(known)
            self._ready(known)
            return
        self.dock.image_panel.show_image(["Reading the image ..."])

        def make() -> Iterator[Any]:
            source = source_of(layer, plane)
            first = source
            if plane:
                first = source_of(layer, (0,) * len(plane))
            image = OpenImage(
                key=(id(layer), plane),
                source=source,
                name=layer.name,
                plane=plane or None,
                first=first,
            )
            yield image
            yield from session.iter_open(image)

        self._open.start(make, on_event=self._opened, on_error=self._failed)

    @on_gui
    def _opened(self, event: Any) -> None:
        if isinstance(event, OpenImage):
            self._show(event)
            return
        assert isinstance(event, Opened)
        image = self._image
        assert image is not None
        session = self.dock.session
        for other in session.planes_of(image):
            image.excluded = other.excluded
        self._suggest(None if image.excluded else event.bar)
        shared = session.sibling(image)
        if shared is not None:
            image.project = shared
            self._begin(image)
        elif event.found is None:
            self._begin(image)
        else:
            self._offer(image, event.found)

    def _show(self, image: OpenImage) -> None:
        self._image = image
        source, panel = image.source, self.dock.image_panel
        size = source.pixel_size
        panel.show_image(_facts(image))
        panel.set_channel_choices(
            source.n_channels, source.meaning, source.channel_names
        )
        panel.set_pixel_size(
            None if size is None else size.x,
            "um" if size is None else size.unit,
            size is not None and source.path is not None,
        )
        panel.set_plane(
            "" if image.plane is None else f"Plane {image.plane}: the shown one."
        )

    def _offer(self, image: OpenImage, found: FoundProject) -> None:
        def chosen(is_on: bool) -> None:
            if is_on:
                self._open_project(image, found)
            else:
                self.dock.stage.painted_early = None
                self._begin(image)

        text = f"{found.reason} Go on with its scribbles and classes?"
        if not found.is_same_image:
            text = (
                f"{found.reason} The pixels are not those it was painted on. Use its "
                "scribbles all the same?"
            )
        self.dock.offer.ask(text, "Go on", "Start new", chosen)

    def _open_project(self, image: OpenImage, found: FoundProject) -> None:
        session = self.dock.session

        def make() -> Iterator[Any]:
            accept = not found.is_same_image
            yield from session.iter_project(image, found, accept=accept)

        def failed(text: str, error: BaseException) -> None:
            self._failed(text, error)
            self._begin(image)

        def opened(project: Project) -> None:
            state = project.load_state()
            if not session.painted_ids:
                # nothing else counts on the classes and settings that there are
                session.classes.replace(state.classes)
                self.dock.set_settings(state.settings)
            session.classes.ensure(project.painted_everywhere())
            if project.notices:
                self.dock.classes_panel.set_hint(" ".join(project.notices))
            self._begin(image)

        self._project.start(make, on_event=opened, on_error=failed)

    def _begin(self, image: OpenImage) -> None:
        """The image can be worked on."""
        self.dock.session.images[image.key] = image
        self._ready(image)

    def _ready(self, image: OpenImage) -> None:
        if image.project is None:  # another plane may have got one meanwhile
            image.project = self.dock.session.sibling(image)
        self.current = image
        self.dock.image_panel.set_areas(len(image.excluded))
        if image.excluded:
            self._show_areas(image)
        self.dock.image_ready.emit(image)

    @on_gui
    def _failed(self, text: str, _error: BaseException) -> None:
        self.dock.image_panel.show_image([text])

    @on_gui
    def _lose(self, layer: Any) -> None:
        """The layer was removed: stop, keep what is painted, forget the image."""
        self._forget(layer)
        self.refresh()

    @on_gui
    def _replaced(self, layer: Any) -> None:
        """The layer holds other pixels now: it is another image."""
        was_shown = self._forget(layer)
        if was_shown:
            self.choose(layer)

    def _forget(self, layer: Any) -> bool:
        """Let go of all planes of a layer; return whether it was on show."""
        session = self.dock.session
        was_shown = self.dock.stage.current is None
        if was_shown:
            self._open.stop()
            self.dock.train.stop()
            self.dock.features.stop()
            self.dock.offer.withdraw()
            self.current = None
            if self._image is not None:
                self._image.is_dropped = True
        for key in [k for k in session.images if k[0] == id(layer)]:  # type: ignore[index]
            try:
                session.drop(key)
            except AlibiSegError as err:
                show_error(str(err))
        return was_shown

    # -------------------------------------------------------------------- project

    def with_project(self, then: Any) -> None:
        """Call `then` once there is a project to keep scribbles in."""
        image = self.current
        if image is None:
            return
        if image.project is not None:
            then()
            return
        self._waiting = then
        image.pending = self.dock.stage.painted()
        if self._project.is_busy:
            return
        session = self.dock.session

        def made(_project: Project) -> None:
            waiting, self._waiting = self._waiting, None
            if waiting is not None and self.current is image:
                waiting()

        self._project.start(
            lambda: session.iter_project(image, None),
            on_event=made,
            on_error=lambda text, _: self.dock.classes_panel.set_hint(text),
        )

    # ----------------------------------------------------------------- pixel size

    @on_gui
    def _set_pixel_size(self, wish: tuple[float, str] | None) -> None:
        image = self.current
        if image is None:
            return
        size = None if wish is None else PixelSize(wish[0], wish[0], wish[1])
        image.source = replace(image.source, pixel_size=size)
        self.dock.image_panel.show_image(_facts(image))

    # ---------------------------------------------------------------------- areas

    def _suggest(self, bar: Window | None) -> None:
        self._bar = bar
        text = ""
        if bar is not None:
            text = f"An information bar was found: rows {bar.y0} to {bar.y1 - 1}."
        self.dock.image_panel.suggest_area(text)

    @on_gui
    def _leave_out_bar(self) -> None:
        image, bar = self.current, self._bar
        if image is None or bar is None:
            return
        corners = (
            *((bar.y0, bar.x0), (bar.y0, bar.x1)),
            *((bar.y1, bar.x1), (bar.y1, bar.x0)),
        )
        area = ExcludedArea(kind="box", corners=corners)
        self._suggest(None)
        self._set_areas(image, (*image.excluded, area))
        self._show_areas(image)

    @on_gui
    def _draw_area(self) -> None:
        image = self.current
        if image is None:
            return
        shapes = self._show_areas(image)
        self.dock.viewer.layers.selection.active = shapes
        shapes.mode = "add_rectangle"

    def _show_areas(self, image: OpenImage) -> Any:
        stage = self.dock.stage
        shapes = stage.draw_areas(image.excluded)
        if all(shapes is not heard for heard in self._heard):
            shapes.events.data.connect(self._areas_drawn)
            self._heard.append(shapes)
        return shapes

    @on_gui
    def _areas_drawn(self, _event: Any) -> None:
        if not self.dock.stage.is_quiet:
            self._areas_timer.start()

    @on_gui
    def _take_areas(self) -> None:
        if self.current is not None:
            self._set_areas(self.current, self.dock.stage.drawn_areas())

    @on_gui
    def _clear_areas(self) -> None:
        if self.current is not None:
            self._set_areas(self.current, ())
            self.dock.stage.draw_areas(())

    def areas_lost(self) -> None:
        """The layer of areas was removed by hand: then nothing is left out."""
        if self.current is not None:
            self._set_areas(self.current, ())

    def _set_areas(self, image: OpenImage, areas: tuple[ExcludedArea, ...]) -> None:
        if areas == image.excluded:
            return
        for plane in {image, *self.dock.session.planes_of(image)}:
            plane.excluded = areas
        self.dock.image_panel.set_areas(len(areas))
        if image.project is not None:
            self.dock.train.save()
        self.dock.train.result_is_stale()


def _facts(image: OpenImage) -> list[str]:
    """Return what the panel says of an image."""
    source = image.source
    h, w = source.shape
    seen = {
        "grey": "one grey channel",
        "rgb": "colours (grey where the three are equal)",
        "channels": f"{source.n_channels} channels: choose which",
    }[source.meaning]
    size = source.pixel_size
    lines = [f"{w:,} x {h:,} pixels, {source.dtype}", f"The model sees {seen}."]
    if size is not None:
        unit = {"um": "µm"}.get(size.unit, size.unit)
        lines.append(f"{w * size.x:.4g} x {h * size.y:.4g} {unit}")
    return [*lines, *source.notes]


def _iter_devices() -> Iterator[list[tuple[str, str]]]:
    """Yield the devices there are; finding out imports torch."""
    warm_up_colours()
    from napari_alibi_seg.features import describe_devices, resolve_device

    found = describe_devices()
    names = [text.split(" ", 1)[0] for text in found]
    yield [
        ("auto", f"Auto ({resolve_device('auto')})"),
        *zip(names, found, strict=True),
    ]
