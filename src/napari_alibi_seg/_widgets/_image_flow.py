"""Choosing an image: its source, its pixel size, whether it can be worked on.

Where its scribbles are kept is `_project_flow`'s, what is left out `_area_flow`'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject

from napari_alibi_seg._base import PixelSize
from napari_alibi_seg._widgets._area_flow import AreaFlow
from napari_alibi_seg._widgets._hooks import on_gui
from napari_alibi_seg._widgets._jobs import Lane
from napari_alibi_seg._widgets._layers import source_of, warm_up_colours
from napari_alibi_seg._widgets._project_flow import ProjectFlow
from napari_alibi_seg._workspace import Opened, OpenImage
from napari_alibi_seg.data import in_unit

if TYPE_CHECKING:
    from napari_alibi_seg._widgets._dock import Dock

__all__ = ["ImageFlow"]


class ImageFlow(QObject):
    """See the module."""

    def __init__(self, dock: Dock) -> None:
        super().__init__(dock)
        self.dock = dock
        self.current: OpenImage | None = None
        self._open = Lane("open", self)
        self._devices = Lane("devices", self)
        self.projects = ProjectFlow(dock, self)
        self.areas = AreaFlow(dock, self)
        self.lanes = (self._open, *self.projects.lanes, self._devices)
        self._image: OpenImage | None = None  # on show, perhaps still being opened
        self._is_refused = False  # the shown image is open in another layer
        stage, panel = dock.stage, dock.image_panel
        stage.images_changed.connect(self.refresh)
        stage.image_removed.connect(self._lose)
        stage.image_replaced.connect(self._replaced)
        stage.plane_changed.connect(self.reopen)
        panel.image_chosen.connect(self.choose)
        panel.pixel_size_wanted.connect(self._set_pixel_size)
        self._devices.start(_iter_devices, on_event=panel.set_devices)

    def close(self) -> None:
        """Stop."""
        self.areas.close()
        self.projects.close()
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
        self.areas.settle()
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
        self.areas.settle()
        self.projects.keep_early()
        self.current, self._is_refused = None, False
        if stage.current is None:
            return
        layer, plane = stage.current.image, stage.plane
        session = self.dock.session
        known = session.images.get((id(layer), plane))
        if known is not None:
            self._show(known)
            self.ready(known)
            return
        for (
            image
        ) in self.projects.underway:  # one that was left while it was being opened
            if image.key == (id(layer), plane):
                image.is_dropped = True
        self.dock.image_panel.show_image(["Reading the image ..."])

        def make() -> Iterator[Any]:
            source = source_of(layer, plane)
            first = source
            if plane:
                first = source_of(layer, (0,) * len(plane))
            image = OpenImage(
                key=(id(layer), plane),
                layer=id(layer),
                source=source,
                name=layer.name,
                plane=plane or None,
                first=first,
            )
            yield image
            yield from session.iter_open(image)

        self._open.start(make, on_event=self._opened, on_error=self.failed)

    @on_gui
    def _opened(self, event: Any) -> None:
        if isinstance(event, OpenImage):
            self._show(event)
            return
        assert isinstance(event, Opened)
        image = self._image
        assert image is not None
        session = self.dock.session
        twin = session.open_elsewhere(image)
        if twin is not None:
            self._refuse(twin)
            return
        session.join(image)
        self._show(image)
        self.areas.suggest(None if image.excluded else event.bar)
        shared = session.sibling(image)
        if shared is not None:
            image.project = shared
            self.begin(image)
        elif event.found is None:
            self.begin(image)
        else:
            self.projects.offer(image, event.found)

    def _refuse(self, twin: OpenImage) -> None:
        """Say that the pixels are open already: two layers would paint over another."""
        self._is_refused = True
        self.areas.suggest(None)
        layers = self.dock.stage.images()
        name = next((x.name for x in layers if id(x) == twin.layer), twin.name)
        self.dock.image_panel.show_image(
            [
                f"This image is open already, in the layer {name!r}. Choose that layer "
                "to go on with its scribbles, or remove it to work here."
            ]
        )

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
            size is not None and source.path is not None and image.typed_size is None,
        )
        panel.set_plane(
            "" if image.plane is None else f"Plane {image.plane}: the shown one."
        )

    def is_shown(self, image: OpenImage) -> bool:
        """Return whether an image is on show, perhaps still being opened."""
        return self._image is image

    def begin(self, image: OpenImage) -> None:
        """The image can be worked on, if it is still the one on show."""
        session = self.dock.session
        session.images[image.key] = image
        if image.is_dropped:  # its layer went meanwhile
            session.drop(image.key)
            self.projects.let_go()
        elif image is self._image:
            self._show(image)
            self.ready(image)

    def ready(self, image: OpenImage) -> None:
        """Let the user work on the image on show."""
        if image.project is None:  # another plane may have got one meanwhile
            image.project = self.dock.session.sibling(image)
        if image.pending is not None or image in self.projects.underway:
            # its strokes come first: who shows the image would not know of them
            self.projects.make(image)
            return
        self.current = image
        self.dock.image_panel.set_areas(len(image.excluded))
        if image.excluded:
            self.areas.show(image)
        self.dock.image_ready.emit(image)

    @on_gui
    def failed(self, text: str, _error: BaseException) -> None:
        """Say why the image on show could not be opened."""
        self.dock.image_panel.show_image([text])

    @on_gui
    def _lose(self, layer: Any) -> None:
        """The layer was removed: stop, keep what is painted, forget the image."""
        self._forget(layer)
        self.refresh()
        if self._is_refused:
            self.reopen()

    @on_gui
    def _replaced(self, layer: Any) -> None:
        """The layer holds other pixels now: it is another image."""
        was_shown = self._forget(layer)
        if was_shown:
            self.choose(layer)
        elif self._is_refused:
            self.reopen()

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
            self.areas.stop()
        for image in [self._image, *self.projects.underway, *session.images.values()]:
            if image is not None and image.layer == id(layer):
                image.is_dropped = True
                session.drop(image.key)
        self.projects.let_go()
        return was_shown

    # -------------------------------------------------------------------- project

    def with_project(self, then: Any) -> None:
        """Call `then` once there is a project to keep scribbles in."""
        image = self.current
        if image is None:
            return
        stage = self.dock.stage
        if image.project is not None or stage.current is None:
            then()
            return
        # a copy, as the layer may show another plane or nothing when it is read
        if self.dock.session.keep(image, stage.current.unsaved(stage.plane)):
            then()
            return
        self.projects.waiting = then
        self.projects.make(image)

    # ----------------------------------------------------------------- pixel size

    @on_gui
    def _set_pixel_size(self, wish: tuple[float, str] | None) -> None:
        image = self.current
        if image is None:
            return
        size = None
        if wish is not None:
            known = image.source.pixel_size
            factor = None if known is None else in_unit(known.unit, wish[1])
            z = known.z * factor if known and known.z and factor else None
            size = PixelSize(wish[0], wish[0], wish[1], z)
        self.dock.session.set_pixel_size(image, size)
        self.dock.image_panel.show_image(_facts(image))
        if image.project is not None:
            self.dock.scribbles.save()


def _facts(image: OpenImage) -> list[str]:
    """Return what the panel says of an image."""
    source = image.source
    h, w = source.shape
    seen = {
        "grey": "one grey channel",
        "rgb": "colours, or grey if all are equal",
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
