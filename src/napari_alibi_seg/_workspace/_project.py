"""The project of one image: nothing painted is lost but the stroke in progress.

A folder with ``project.json`` and one file of scribbles a plane. Only this module
knows when these are written. What happens to one that cannot be used is left to
`_project_files`; where the folder is, to `_places`; the content of the files to
`_state` and `_blocks`.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_alibi_seg._base import OutputError, Window
from napari_alibi_seg._workspace._blocks import Patch, ScribbleBlocks
from napari_alibi_seg._workspace._files import FolderLock, make_folder, remove_leftovers
from napari_alibi_seg._workspace._places import (
    PROJECT_FILE,
    ImageIdentity,
    project_folder,
    user_folder,
)
from napari_alibi_seg._workspace._planes import (
    Plane,
    PlaneKey,
    plane_key,
    plane_name,
    scribble_name,
)
from napari_alibi_seg._workspace._project_files import ProjectFiles
from napari_alibi_seg._workspace._reading import (
    Record,
    copy_project,
    read_record,
    refuse_other_image,
)
from napari_alibi_seg._workspace._state import ProjectState, to_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self

    import numpy.typing as npt

__all__ = ["Project"]

_logger = logging.getLogger(__name__)


class Project:
    """Scribbles and settings of one image, kept in a folder.

    Made by `Project.create` or `Project.open`. May be used from several threads: a
    stroke is taken over by `update_scribbles` in the time of copying it, also while
    `flush` writes in another thread.

    Planes are named by their position: None for an image of one plane, a number, or
    numbers where there is more than one axis (time, Z).

    Attributes
    ----------
    folder : Path
        Where it is; show it to the user.
    image : ImageIdentity
        The image it belongs to.
    is_shared : bool
        Whether another program has the project open too.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> scribbles = np.zeros((40, 50), np.uint8)
    >>> scribbles[3, 4:9] = 7
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "steel.tif"
    ...     image = ImageIdentity("steel.tif", path, (40, 50), "c0ffee")
    ...     with Project.create(image) as project:
    ...         project.save_scribbles(None, scribbles)
    ...     with Project.open(project.folder, image) as again:
    ...         again.painted(), int(again.load_scribbles(None)[3, 4])
    True
    ({7: 5}, 7)
    """

    def __init__(self, folder: Path, image: ImageIdentity, record: Record) -> None:
        self.folder = folder
        self.image = image
        self._guard = FolderLock(folder)
        self.is_shared = self._guard.is_taken
        self._lock = threading.RLock()  # of everything below; held for moments
        self._io_lock = threading.Lock()  # of the files; held while writing
        self._disk = ProjectFiles(folder, self._note)
        self._state = record.state
        self._notices = list(record.notices)
        self._files: dict[PlaneKey, Path] = {}
        self._blocks: dict[PlaneKey, ScribbleBlocks] = {}
        self._dirty: set[PlaneKey] = set()
        self._written = ""
        # scribbles of any other image are not used; None: of any at all
        self._accepted: frozenset[str | None] | None = frozenset(
            {image.content_hash, record.content_hash}
        )
        if self.is_shared:
            self._note(
                f"Another window or program has {folder} open. Close one of them; "
                "what the other saves is kept beside, not merged."
            )

    @classmethod
    def create(cls, image: ImageIdentity, state: ProjectState | None = None) -> Project:
        """Begin a project; one that is there already is moved aside, not replaced.

        Parameters
        ----------
        image : ImageIdentity
            The image. The folder is beside it, or among the user's own if it has no
            file or its folder cannot be written.
        state : ProjectState, optional
            What to begin with.

        Returns
        -------
        Project
            Saved, without scribbles.

        Raises
        ------
        OutputError
            If no folder can be made, or another program has the old one open.
        """
        record = Record(state or ProjectState(), image.content_hash)
        folder, old = make_folder(project_folder(image), user_folder(image))
        if old is not None:
            record.notices += (f"The earlier project is kept as {old}.",)
        project = cls(folder, image, record)
        try:
            project.flush()
        except OutputError:
            project.close()
            raise
        return project

    @classmethod
    def open(
        cls, folder: Path, image: ImageIdentity, *, accept_replaced: bool = False
    ) -> Project:
        """Open the project of an image, for example one from `find_project`.

        Parameters
        ----------
        folder : Path
            The project. If it cannot be written, it is copied to the user's folder
            and the copy is opened.
        image : ImageIdentity
            The image it is opened for.
        accept_replaced : bool
            Use it although it was made on other pixels. It belongs to this image
            from then on; scribbles of another shape are moved aside.

        Returns
        -------
        Project
            With `notices` of what was damaged or missing.

        Raises
        ------
        StoreError
            If it was made on other pixels, by a later version of this program, or
            cannot be read. Nothing is changed then.
        OutputError
            If a damaged file cannot be moved aside.
        """
        record = read_record(folder)
        if not accept_replaced:
            refuse_other_image(folder, image, record)
        folder, record = copy_project(folder, user_folder(image), record)
        project = cls(folder, image, record)
        if accept_replaced:
            project._accepted = None
        try:
            project._take_over(record, is_replaced=accept_replaced)
        except BaseException:
            project._guard.release()
            raise
        return project

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def notices(self) -> tuple[str, ...]:
        """What the user should know, as sentences; grows as things are met."""
        with self._lock:
            return tuple(self._notices)

    @property
    def planes(self) -> tuple[PlaneKey, ...]:
        """Planes that have scribbles or had some; () stands for the only plane."""
        with self._lock:
            return tuple(sorted({*self._files, *self._blocks}))

    def load_state(self) -> ProjectState:
        """Return classes, settings and excluded areas as last saved."""
        with self._lock:
            return self._state

    def save_state(self, state: ProjectState) -> bool:
        """Keep classes, settings and excluded areas.

        Returns
        -------
        bool
            Whether anything was written; nothing is when nothing changed.

        Raises
        ------
        OutputError
            If it cannot be written; it is tried again with the next save.
        """
        with self._lock:
            self._state = state
        return self.flush()

    def load_scribbles(self, plane: Plane) -> npt.NDArray[Any]:
        """Return the scribbles of a plane.

        Parameters
        ----------
        plane : int, tuple of int or None
            Which.

        Returns
        -------
        (Y, X) array of uint8 or uint16
            A new array; all 0 if nothing was painted.

        Raises
        ------
        StoreError
            If the file cannot be read. One that is damaged is moved aside, and there
            is a notice instead.
        """
        with self._lock:
            blocks = self._of(plane_key(plane)).copy()
        return blocks.to_array()

    def update_scribbles(
        self, plane: Plane, labels: Any, changed: Window | None = None
    ) -> bool:
        """Take over what was painted, in memory; `flush` writes it.

        Parameters
        ----------
        plane : int, tuple of int or None
            Which.
        labels : (Y, X) array of int
            All labels of the plane; only blocks that meet `changed` are read.
        changed : Window, optional
            Around the stroke; everywhere by default.

        Returns
        -------
        bool
            Whether there is something to write.

        Raises
        ------
        AnnotationError
            If the shape is not the image's, or ids are not from 0 to 65535.
        """
        key = plane_key(plane)
        with self._lock:
            if self._of(key).update(labels, changed):
                self._dirty.add(key)
            return key in self._dirty

    def scribbles(self, plane: Plane) -> ScribbleBlocks:
        """Return what is painted on a plane, without an array of its size.

        Later strokes do not change it.
        """
        with self._lock:
            return self._of(plane_key(plane)).copy()

    def paint(
        self, plane: Plane, at: tuple[int, int, int], ids: Any, changed: Any
    ) -> Patch:
        """Take over samples that were painted, in memory; see `ScribbleBlocks.paint`.

        Parameters
        ----------
        plane : int, tuple of int or None
            Which.
        at : tuple of int
            First row and column, and pixels a sample.
        ids, changed : (h, w) arrays
            Id of each sample, and whether it is painted.
        """
        key = plane_key(plane)
        with self._lock:
            patch = self._of(key).paint(*at, ids, changed)
            if patch.after:
                self._dirty.add(key)
            return patch

    def apply(self, plane: Plane, patch: Patch) -> None:
        """Put the blocks of a patch in place, as to take a stroke back."""
        key = plane_key(plane)
        with self._lock:
            self._of(key).apply(patch)
            self._dirty.add(key)

    def remap(self, plane: Plane, mapping: Mapping[int, int]) -> None:
        """Repaint all pixels of some ids."""
        key = plane_key(plane)
        with self._lock:
            if self._of(key).remap(mapping).after:
                self._dirty.add(key)

    def save_scribbles(
        self, plane: Plane, labels: Any, changed: Window | None = None
    ) -> bool:
        """Take over what was painted and write it; see `update_scribbles`, `flush`."""
        self.update_scribbles(plane, labels, changed)
        return self.flush()

    def painted(self, plane: Plane = None) -> dict[int, int]:
        """Return the painted pixels of a plane by class id, ascending."""
        with self._lock:
            return self._of(plane_key(plane)).counts()

    def painted_everywhere(self) -> dict[int, int]:
        """Return the painted pixels of all planes by class id, ascending."""
        total: dict[int, int] = {}
        for plane in self.planes:
            for i, n in self.painted(plane).items():
                total[i] = total.get(i, 0) + n
        return dict(sorted(total.items()))

    def window_of(self, plane: Plane, class_ids: tuple[int, ...]) -> Window | None:
        """Return a window around all pixels of some ids in a plane, or None."""
        with self._lock:
            return self._of(plane_key(plane)).window_of(class_ids)

    def flush(self) -> bool:
        """Write what is not written yet. Slow disks are slow: call it in a worker.

        Returns
        -------
        bool
            Whether anything was written.

        Raises
        ------
        OutputError
            If a file cannot be written; it is tried again with the next flush.
        """
        with self._io_lock:
            is_written = self._restore_folder()
            while True:
                with self._lock:
                    key = min(self._dirty, default=None)
                    if key is None:
                        break
                    self._dirty.remove(key)
                    blocks = self._blocks[key].copy()
                self._write_blocks(key, blocks)
                is_written = True
            return self._write_state() or is_written

    def close(self) -> None:
        """Write what is not written yet and give the folder free.

        Raises
        ------
        OutputError
            If that cannot be written.
        """
        try:
            self.flush()
        finally:
            self._guard.release()

    def _write_blocks(self, key: PlaneKey, blocks: ScribbleBlocks) -> None:
        path = self.folder / scribble_name(key)
        about = {"image": self.image.content_hash, "name": self.image.name}
        try:
            self._disk.write(path, blocks.to_bytes(about))
        except BaseException:
            with self._lock:
                self._dirty.add(key)
            raise
        with self._lock:
            self._files[key] = path

    def _write_state(self) -> bool:
        with self._lock:
            files = {plane_name(k): p.name for k, p in self._files.items()}
            is_beside = (
                self.image.path is not None
                and self.folder.parent == self.image.path.parent
            )
            text = to_json(self._state, self.image, files, beside=is_beside)
        if text == self._written:
            return False
        self._disk.write(self.folder / PROJECT_FILE, text.encode())
        self._written = text
        return True

    def _restore_folder(self) -> bool:
        """Make the folder again if somebody removed it while it was in use."""
        if self.folder.is_dir():
            return False
        make_folder(self.folder)
        with self._lock:
            self._dirty |= {k for k, b in self._blocks.items() if len(b)}
            self._files = {k: p for k, p in self._files.items() if k in self._blocks}
        self._written = ""
        self._note(f"{self.folder} was removed while in use and is made again.")
        return True

    def _take_over(self, record: Record, *, is_replaced: bool) -> None:
        """Account for the files of a project that was opened."""
        if self._guard.is_held:
            remove_leftovers(self.folder)
        self._written = "" if record.is_damaged else record.text
        self._files = self._disk.take_over(record)
        if is_replaced:
            # from now on they belong to this image: its hash goes into every file
            for key in tuple(self._files):
                self._of(key)
            self._dirty |= set(self._files)
        if self._dirty or record.is_damaged or is_replaced:
            self.flush()

    def _of(self, key: PlaneKey) -> ScribbleBlocks:
        """Return the blocks of a plane, read from its file when first asked for."""
        blocks = self._blocks.get(key)
        if blocks is None:
            blocks = self._read(key) or ScribbleBlocks(self.image.shape)
            self._blocks[key] = blocks
        return blocks

    def _read(self, key: PlaneKey) -> ScribbleBlocks | None:
        path = self._files.get(key)
        if path is None:
            return None
        blocks = self._disk.read_blocks(path, self.image.shape, self._accepted)
        if blocks is None:
            del self._files[key]
        return blocks

    def _note(self, sentence: str) -> None:
        _logger.warning("%s", sentence)
        with self._lock:
            self._notices.append(sentence)
