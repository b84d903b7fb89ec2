"""Where what is painted is kept: projects offered, opened, begun, let go of.

Files are read and written in lanes: projects one after another, since one that is
stopped would leave strokes without a home.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.notifications import show_error
from qtpy.QtCore import QObject

from napari_alibi_seg._widgets._jobs import Lane
from napari_alibi_seg._widgets._queue import Queue
from napari_alibi_seg._workspace import FoundProject, OpenImage, Project

if TYPE_CHECKING:
    from napari_alibi_seg._widgets._dock import Dock
    from napari_alibi_seg._widgets._image_flow import ImageFlow

__all__ = ["ProjectFlow"]


class ProjectFlow(QObject):
    """See the module.

    Attributes
    ----------
    underway : list of OpenImage
        Whose project is being opened or begun.
    waiting : callable or None
        What to do when the shown image has a project.
    """

    def __init__(self, dock: Dock, images: ImageFlow) -> None:
        super().__init__(images)
        self.dock, self.images = dock, images
        self._queue = Queue("project", self)
        self._release = Lane("release", self)
        self.lanes = (self._queue.lane, self._release)
        self.underway: list[OpenImage] = []
        self.waiting: Any = None

    def close(self) -> None:
        """Stop; what is under way leaves its strokes to the end of the session."""
        self.keep_early(at_end=True)
        for image in self.underway:
            image.is_dropped = True

    def offer(self, image: OpenImage, found: FoundProject) -> None:
        """Ask whether to go on with a project that was found."""

        def chosen(is_on: bool) -> None:
            if is_on:
                self._open_project(image, found)
            else:
                self.dock.stage.painted_early = None
                self.images.begin(image)

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
            self._arrived(image)
            if self.images.is_shown(image):
                self.images.failed(text, error)
            self.images.begin(image)

        def opened(project: Project) -> None:
            self._arrived(image)
            if image.is_dropped:
                self.images.begin(image)
                return
            state = project.load_state()
            if not session.painted_ids:
                # nothing else counts on the classes and settings that there are
                session.classes.replace(state.classes)
                self.dock.set_settings(state.settings)
            session.classes.ensure(project.painted_everywhere())
            if project.notices:
                self.dock.classes_panel.set_hint(" ".join(project.notices))
            self.images.begin(image)

        self._get_project(image, make, on_event=opened, on_error=failed)

    def _get_project(
        self, image: OpenImage, make: Any, *, on_event: Any, on_error: Any
    ) -> None:
        self.underway.append(image)
        self._queue.add(
            make,
            on_event=on_event,
            on_error=on_error,
            on_end=lambda: self._arrived(image),  # nothing is told of a dropped image
        )

    def _arrived(self, image: OpenImage) -> None:
        self.underway = [other for other in self.underway if other is not image]

    def let_go(self) -> None:
        """Write the projects of images that are gone, in a worker."""
        self._release.start(
            self.dock.session.iter_write_leaving,
            on_error=lambda text, _: show_error(text),
        )

    def make(self, image: OpenImage) -> None:
        """Begin a project in a worker, unless that is under way."""
        if image in self.underway:
            return

        def made(_project: Project) -> None:
            self._arrived(image)
            if self.images.current is image:
                waiting, self.waiting = self.waiting, None
                if waiting is not None:
                    waiting()
            elif self.images.is_shown(image):  # it was left and chosen again meanwhile
                self.images.ready(image)
            else:
                self.dock.scribbles.save()

        def failed(text: str, _error: BaseException) -> None:
            self.dock.classes_panel.set_hint(text)

        session = self.dock.session
        self._get_project(
            image,
            lambda: session.iter_project(image, None),
            on_event=made,
            on_error=failed,
        )

    def keep_early(self, *, at_end: bool = False) -> None:
        """Keep strokes of a plane that is left before it could be opened."""
        stage, session = self.dock.stage, self.dock.session
        early, now = stage.painted_early, stage.current
        if early is None or now is None or now.scribbles is None:
            return
        if early[0] != id(now.image) or (early[1] == stage.plane and not at_end):
            return
        known = next((i for i in session.images.values() if i.layer == early[0]), None)
        if known is None or not early[1] or early in session.images:
            return
        stage.painted_early = None
        fresh = np.array(now.scribbles.data[early[1]])
        if at_end:  # no job is begun any more
            session.add_plane(known, early, early[1], fresh)
            return
        self._queue.add(
            lambda: session.iter_keep_plane(known, early[1], fresh),
            on_event=lambda _: None,
            on_error=lambda text, _: self.dock.classes_panel.set_hint(text),
            on_end=self.dock.scribbles.save,
        )
