"""The files of a project that is open: what is not ours or not sound is moved aside.

Only this module knows what happens when a file is damaged, belongs to another image or
was written by another program meanwhile: it is kept under another name, never
overwritten, and a notice says so. When files are written is left to `_project`.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from pathlib import Path

from napari_alibi_seg._workspace._blocks import ScribbleBlocks
from napari_alibi_seg._workspace._files import Stamp, move_aside, stamp, write
from napari_alibi_seg._workspace._places import PROJECT_FILE
from napari_alibi_seg._workspace._planes import PlaneKey, plane_of
from napari_alibi_seg._workspace._reading import Record, read_blocks

__all__ = ["ProjectFiles"]


class ProjectFiles:
    """The files in the folder of a project; one thread a file at a time.

    Parameters
    ----------
    folder : Path
        The project.
    note : callable
        Told, in a sentence, what the user should know.
    """

    def __init__(self, folder: Path, note: Callable[[str], None]) -> None:
        self.folder = folder
        self._note = note
        self._stamps: dict[Path, Stamp | None] = {}

    def take_over(self, record: Record) -> dict[PlaneKey, Path]:
        """Return the scribble files that are there; note which are missing.

        Raises
        ------
        OutputError
            If a damaged ``project.json`` cannot be moved aside.
        """
        path = self.folder / PROJECT_FILE
        if record.is_damaged:
            aside = move_aside(path, "damaged")
            self._note(f"The file is kept as {aside.name} in {self.folder}.")
        self._stamps[path] = None if record.is_damaged else record.stamp
        found: dict[PlaneKey, Path] = {}
        for file in sorted(self.folder.iterdir()):
            plane = plane_of(file.name)
            if plane is not None:
                found[plane] = file
        for name in sorted(set(record.files) - {p.name for p in found.values()}):
            self._note(f"{name} is missing from {self.folder}; its scribbles are lost.")
        return found

    def read_blocks(
        self, path: Path, shape: tuple[int, int], accepted: Set[str | None] | None
    ) -> ScribbleBlocks | None:
        """Read a scribble file; one that cannot be used is moved aside, and noted.

        Raises
        ------
        StoreError
            If the disk does not give the file's content.
        """
        self._stamps[path] = stamp(path)
        found = read_blocks(path, shape, accepted)
        if isinstance(found, ScribbleBlocks):
            return found
        aside = move_aside(path, found.label)
        self._note(f"{found.sentence} It is kept as {aside.name} in {self.folder}.")
        return None

    def write(self, path: Path, content: bytes) -> None:
        """Write a file; what another program put there meanwhile is moved aside.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        there = stamp(path)
        if there is not None and there != self._stamps.get(path):
            aside = move_aside(path, "other")
            self._note(
                f"Another program wrote {path.name} in {self.folder} meanwhile. Its "
                f"version is kept as {aside.name}."
            )
        self._stamps[path] = write(path, content)
