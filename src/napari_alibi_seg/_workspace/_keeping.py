"""Jobs that keep what is painted: open a project, save it, let go of it.

Only this module knows which images share a project, and how one changes hands while a
thread may still be making it. What an image leaves that goes is `_leaving`'s; when
files are written is `_project`'s.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Hashable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_alibi_seg._base import AlibiSegError, PixelSize
from napari_alibi_seg._workspace._desk import Desk
from napari_alibi_seg._workspace._events import Opened
from napari_alibi_seg._workspace._images import OpenImage
from napari_alibi_seg._workspace._leaving import Leaving, raise_all
from napari_alibi_seg._workspace._places import (
    FoundProject,
    ImageIdentity,
    find_project,
)
from napari_alibi_seg._workspace._planes import Plane
from napari_alibi_seg._workspace._project import Project
from napari_alibi_seg._workspace._state import ProjectState
from napari_alibi_seg.data import find_info_bar

__all__ = ["ProjectJobs"]

_logger = logging.getLogger(__name__)

# A network disk may be slow; longer would look like a window that hangs.
_CLOSE_S = 20.0


class ProjectJobs(Desk):
    """The jobs that concern projects; see `Session`."""

    def __init__(self, store: Path | None = None) -> None:
        super().__init__(store)
        self._hands = threading.Lock()  # of projects changing hands; for moments
        self._making = threading.Lock()  # of a project being made or opened
        self._leaving = Leaving(self._making)

    # ------------------------------------------------------------------------ open

    def iter_open(self, image: OpenImage) -> Iterator[Opened]:
        """Identify an image, look for its project and for an information bar."""
        bar = find_info_bar(image.source)
        image.identity = ImageIdentity.of(image.first or image.source, name=image.name)
        # strokes of a layer that just went must be in the file that is read now
        for err in self._leaving.write(image):
            _logger.warning("Not written yet, and taken back: %s", err)
        yield Opened(find_project(image.identity), bar)

    def iter_project(
        self, image: OpenImage, found: FoundProject | None, *, accept: bool = False
    ) -> Iterator[Project]:
        """Open a project that was found, or begin one; of planes, all get the same."""
        with self._making:
            project = self._made(image, found, accept=accept)
        if image.is_dropped:  # meanwhile: keep the stroke and let go
            raise_all(self._leaving.write(image))
        else:
            yield project

    def _made(
        self, image: OpenImage, found: FoundProject | None, *, accept: bool
    ) -> Project:
        assert image.identity is not None
        known = image.project or self.sibling(image)
        if known is not None:
            project = known
        elif found is None:
            project = Project.create(image.identity, self.state(image))
        else:
            project = Project.open(found.folder, image.identity, accept_replaced=accept)
            state = project.load_state()
            image.excluded = state.excluded
            image.take_size(state.pixel_size)
        try:
            project.painted(image.plane)  # reads the file here, not at the first stroke
        except AlibiSegError:
            if known is None:
                project.close()
            raise
        self._hand_over(image, project)
        return project

    def _hand_over(self, image: OpenImage, project: Project) -> None:
        """Give an image its project, once all that was painted before is in it."""
        while True:
            with self._hands:
                pending, image.pending = image.pending, None
                if pending is None and image.is_dropped:
                    if not self._is_used(project):
                        self._leaving.add(image, project, self.state(image))
                elif pending is None:
                    image.project = project
            if pending is None:
                return
            project.update_scribbles(image.plane, pending)

    def keep(self, image: OpenImage, painted: Any) -> bool:
        """Hold what is painted until there is a project for it.

        Parameters
        ----------
        image : OpenImage
            The image.
        painted : (Y, X) array of int
            All scribbles of its plane.

        Returns
        -------
        bool
            Whether there is a project by now; nothing is held then.
        """
        with self._hands:
            if image.project is None:
                image.pending = painted
        return image.project is not None

    def iter_keep_plane(
        self, known: OpenImage, plane: Plane, painted: Any
    ) -> Iterator[Any]:
        """Add strokes to a plane that was left before it was opened.

        Parameters
        ----------
        known : OpenImage
            Another plane of the same image, open.
        plane : int, tuple of int or None
            Where the strokes are.
        painted : (Y, X) array of int
            What was painted there; 0 changes nothing.
        """
        for project in self.iter_project(known, None):
            kept = project.load_scribbles(plane)
            project.update_scribbles(plane, np.where(painted > 0, painted, kept))
            project.flush()
            yield project

    def add_plane(
        self, known: OpenImage, key: Hashable, plane: Plane, painted: Any
    ) -> None:
        """Hold strokes of a plane that was not opened, for the end of the session."""
        project = known.project
        if project is not None:
            kept = project.load_scribbles(plane)
            project.update_scribbles(plane, np.where(painted > 0, painted, kept))
            return
        more = {"embedding": None, "_mask": None, "pending": painted}
        self.images[key] = replace(known, key=key, plane=plane, **more)

    # ---------------------------------------------------------------- same pixels

    def sibling(self, image: OpenImage) -> Project | None:
        """Return the project of the same image, if one is open.

        One that an earlier layer left and that could not be written is taken back.
        """
        return self._open_project_of(image) or self._leaving.take_back(image)

    def _open_project_of(self, image: OpenImage) -> Project | None:
        projects = (i.project for i in self.planes_of(image))
        return next((p for p in projects if p is not None), None)

    def planes_of(self, image: OpenImage) -> list[OpenImage]:
        """Return what is open of the same image: it and its other planes."""
        return [i for i in [*self.images.values()] if i.is_same(image)]

    def open_elsewhere(self, image: OpenImage) -> OpenImage | None:
        """Return what is open of the same image in another layer, or None.

        Scribbles are painted in one of two such layers: each would overwrite what is
        painted in the other.
        """
        others = (i for i in self.planes_of(image) if i.layer != image.layer)
        return next(others, None)

    def join(self, image: OpenImage) -> None:
        """Let a plane have what holds for all planes: areas and the pixel size."""
        for other in self.planes_of(image):
            image.excluded = other.excluded
            image.take_size(other.typed_size)

    def set_pixel_size(self, image: OpenImage, size: PixelSize | None) -> None:
        """Take over a pixel size that the user typed, for all planes."""
        for plane in {image, *self.planes_of(image)}:
            plane.typed_size = size
            plane.source = replace(plane.source, pixel_size=size)

    # ------------------------------------------------------------------------ save

    def state(self, image: OpenImage) -> ProjectState:
        """Return what a project keeps of the dock."""
        return ProjectState(
            classes=self.classes.entries,
            settings=self.settings,
            excluded=image.excluded,
            pixel_size=image.typed_size,
        )

    def remap(self, image: OpenImage, plane: Plane, mapping: dict[int, int]) -> None:
        """Repaint the pixels of classes that are gone, in what is kept of a plane."""
        if image.project is not None:
            image.project.remap(plane, mapping)

    def iter_save(self) -> Iterator[Any]:
        """Write what changed of all projects.

        Raises
        ------
        OutputError
            After all were tried, if some could not be written.
        """
        failed: list[AlibiSegError] = []
        for image in [*self.images.values()]:
            project = image.project
            if project is not None:
                try:
                    project.save_state(self.state(image))
                except AlibiSegError as err:
                    failed.append(err)
        raise_all(failed)
        yield from ()

    # ---------------------------------------------------------------------- let go

    def drop(self, key: Hashable) -> None:
        """Forget an image, at once; `iter_write_leaving` writes its project."""
        image = self.images.pop(key, None)
        if image is None:
            return
        state = self.state(image)
        with self._hands:
            image.is_dropped = True
            project, image.project = image.project, None
            pending, other = image.pending, self._open_project_of(image)
            if project is None and pending is not None and other is not None:
                image.pending = None
                other.update_scribbles(image.plane, pending)
            has_strokes = project is not None or image.pending is not None
            if has_strokes and not (project and self._is_used(project)):
                self._leaving.add(image, project, state)

    def iter_write_leaving(self) -> Iterator[Any]:
        """Write the projects that were let go of and give them free.

        Raises
        ------
        OutputError
            After all were tried, if some could not be written; these are tried again
            with the next call.
        """
        raise_all(self._leaving.write())
        yield from ()

    def close(self, timeout_s: float = _CLOSE_S) -> None:
        """Write what is not written yet and give the projects free.

        Raises
        ------
        OutputError
            After all were tried, if some could not be written; or if that takes longer
            than `timeout_s`, and goes on in a thread.
        """
        for key in [*self.images]:
            self.drop(key)
        self._leaving.finish(timeout_s)

    def _is_used(self, project: Project) -> bool:
        return any(i.project is project for i in [*self.images.values()])
