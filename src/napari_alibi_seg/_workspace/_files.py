"""Files of a project: replaced whole, never lost, and by one program at a time.

`data` already writes whole files or none; here they are also flushed, so that what was
painted outlives a machine that loses power. Only this module knows how a file is moved
aside, how another program's writing is noticed, and how a folder is claimed. What the
files hold is left to `_project`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import sys
from pathlib import Path
from typing import TypeAlias

from napari_alibi_seg._base import OutputError
from napari_alibi_seg.data import write_bytes_atomic

__all__ = [
    "FolderLock",
    "Stamp",
    "make_folder",
    "move_aside",
    "remove_leftovers",
    "stamp",
    "write",
]

_logger = logging.getLogger(__name__)

Stamp: TypeAlias = tuple[int, int, int]

_LOCK_NAME = ".lock"
_NEW = ".new"
_ATTEMPTS = 10_000


def write(path: Path, content: bytes) -> Stamp:
    """Write a file so that it is whole and on the disk, or as it was before.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    staged = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_NEW}")
    write_bytes_atomic(staged, content)
    try:
        with staged.open("r+b") as file:
            os.fsync(file.fileno())
        made = stamp(staged)
        staged.replace(path)
        _flush_folder(path.parent)
    except OSError as err:
        staged.unlink(missing_ok=True)
        raise OutputError(
            f"{path}: expected to save the project, got {err.strerror or err}. Check "
            "the disk and its folder."
        ) from err
    assert made is not None
    return made


def _flush_folder(folder: Path) -> None:
    # the new name too must reach the disk; Windows has no such call and no need
    if sys.platform != "win32":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # some network disks refuse
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


def stamp(path: Path) -> Stamp | None:
    """Return what tells a file from one that another program put in its place."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def move_aside(path: Path, label: str) -> Path:
    """Rename a file or folder to ``NAME.LABEL-N``, N the first free number.

    Raises
    ------
    OutputError
        If it cannot be renamed; it is then untouched.
    """
    for n in range(1, _ATTEMPTS):
        target = path.with_name(f"{path.name}.{label}-{n}")
        if target.exists():
            continue
        try:
            return path.rename(target)
        except OSError as err:
            raise OutputError(
                f"{path}: expected to move it aside as {target.name}, got "
                f"{err.strerror or err}. Nothing was changed; check the folder."
            ) from err
    raise OutputError(
        f"{path}: expected a free name to move it aside, got {_ATTEMPTS} that are "
        "taken. Tidy up the folder."
    )


def make_folder(*places: Path) -> tuple[Path, Path | None]:
    """Make the first of some folders that can be made.

    Returns
    -------
    folder : Path
        New and empty.
    old : Path or None
        Where that which was there before is now.

    Raises
    ------
    OutputError
        If none can be made, or another program works in the first that is there.
    """
    reasons = []
    for place in places:
        try:
            _refuse_in_use(place)
            old = move_aside(place, "old") if place.exists() else None
            place.mkdir(parents=True)
        except _InUseError:
            raise
        except OSError as err:
            reasons.append(f"{place}: {err.strerror or err}")
        else:
            return place, old
    raise OutputError(
        f"Expected to make a folder for what is painted, got {'; '.join(reasons)}. "
        "Set ALIBI_SEG_PROJECTS to a folder that can be written."
    )


class _InUseError(OutputError):
    """Another program works in the folder."""


def _refuse_in_use(folder: Path) -> None:
    if not folder.is_dir():
        return
    guard = FolderLock(folder)
    guard.release()
    if guard.is_taken:
        raise _InUseError(
            f"{folder}: expected a project that nobody uses, but another window or "
            "program has it open. Close it there."
        )


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed save left: files that never got their name."""
    for pattern in (f".*{_NEW}", f".*{_NEW}.*.part"):
        for path in folder.glob(pattern):
            with contextlib.suppress(OSError):
                path.unlink()
                _logger.info("Removed %s, left by a save that was killed", path)


class FolderLock:
    """Says which program works in a folder; the system frees it when that one dies.

    Parameters
    ----------
    folder : Path
        Where the lock file lies.

    Attributes
    ----------
    is_held : bool
        Whether this object has the lock.
    is_taken : bool
        Whether another program, or another object of this one, has it. Both are False
        where the disk knows no locks.
    """

    def __init__(self, folder: Path) -> None:
        self.is_held = False
        self.is_taken = False
        self._descriptor = -1
        try:
            flags = os.O_RDWR | os.O_CREAT
            self._descriptor = os.open(folder / _LOCK_NAME, flags, 0o666)
        except OSError as err:
            _logger.info("No lock in %s: %s", folder, err)
            return
        try:
            _claim(self._descriptor)
        except (BlockingIOError, PermissionError):
            self.is_taken = True
        except OSError as err:
            _logger.info("The disk of %s knows no locks: %s", folder, err)
        else:
            self.is_held = True
        if not self.is_held:
            self.release()

    def release(self) -> None:
        """Give the folder free."""
        self.is_held = False
        if self._descriptor >= 0:
            # closing frees it; the file stays, as removing it would race
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        self.release()


if sys.platform == "win32":
    import msvcrt

    def _claim(descriptor: int) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _claim(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
