"""Writing files so that they are whole or not there.

Everything goes to a temporary file in the same folder and takes its name when it is
complete: a crash, a cancelled run or a full disk never leaves half a result under the
name of a whole one. Only this module knows what a failing disk is called. Files are
not flushed to the platter; what is guarded against is a process that ends, not a
machine that loses power.
"""

from __future__ import annotations

import errno
import secrets
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from napari_alibi_seg._base import AlibiSegError, OutputError
from napari_alibi_seg.data._guard import human_bytes

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator
    from typing import BinaryIO

__all__ = [
    "check_room",
    "explained",
    "move_folder",
    "replaced",
    "temporary_beside",
    "write_all",
    "write_bytes_atomic",
    "write_text_atomic",
]

_PathLike: TypeAlias = "str | os.PathLike[str]"

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_text_atomic(path: _PathLike, text: str) -> None:
    r"""Write UTF-8 text with its line ends as given, whole or not at all.

    Raises
    ------
    OutputError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "summary.csv"
    ...     write_text_atomic(path, "file,pixels\n")
    ...     path.read_text()
    'file,pixels\n'
    """
    write_bytes_atomic(path, text.encode())


def write_bytes_atomic(path: _PathLike, data: bytes) -> None:
    """Write bytes, whole or not at all.

    Raises
    ------
    OutputError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "three"
    ...     write_bytes_atomic(path, b"abc")
    ...     path.stat().st_size
    3
    """
    target = Path(path)
    with (
        replaced(target, len(data)) as temporary,
        temporary.open("wb", buffering=0) as file,
    ):
        write_all(file, memoryview(data))


@contextmanager
def replaced(path: Path, n_bytes: int) -> Iterator[Path]:
    """Give a temporary file, and `path` its content if nothing goes wrong."""
    temporary = temporary_beside(path)
    try:
        with explained(path, n_bytes):
            check_room(path, n_bytes)
            yield temporary
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def temporary_beside(path: Path) -> Path:
    """Return the name of a file that will be renamed to `path`."""
    if path.is_dir():
        raise OutputError(
            f"{path}: expected a file name to write to, got a folder. Name a file in "
            "it."
        )
    if not path.parent.is_dir():
        raise OutputError(
            f"{path}: expected the folder {path.parent} to exist, got none. Create it "
            "first."
        )
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")


def move_folder(folder: Path, target: Path) -> None:
    """Give a folder its final name, over what lies there, also on another disk."""
    ready = folder
    if target.parent.stat().st_dev != folder.stat().st_dev:
        ready = temporary_beside(target.with_name(f"{target.name}.copy"))
        shutil.copytree(folder, ready)
    if target.exists():
        # a folder cannot be replaced in one step; whoever is killed here finds both
        old = target.with_name(f".{target.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
        ready.rename(target)
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    else:
        ready.rename(target)
    if ready is not folder:
        shutil.rmtree(folder)


@contextmanager
def explained(path: Path, n_bytes: int) -> Iterator[None]:
    """Turn a failing disk into an `OutputError` that says what to do."""
    try:
        yield
    except AlibiSegError:
        raise
    except OSError as err:
        if err.errno in _FULL:
            raise _no_room(path, n_bytes) from err
        if err.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            reason = "Its folder or the file is not writable; choose another one."
        else:
            reason = "Check the disk and its folder."
        raise OutputError(
            f"{path}: expected to write {human_bytes(n_bytes)} of output, got "
            f"{err.strerror or err}. {reason}"
        ) from err


def check_room(path: Path, n_bytes: int) -> None:
    if shutil.disk_usage(path.parent).free < n_bytes:
        raise _no_room(path, n_bytes)


def _no_room(path: Path, n_bytes: int) -> OutputError:
    try:
        free = f"{shutil.disk_usage(path.parent).free} bytes"
    except OSError:
        free = "an unknown number of bytes"
    return OutputError(
        f"{path}: expected room for {n_bytes} bytes ({human_bytes(n_bytes)}), got a "
        f"full disk or quota with {free} free. Nothing was left behind; free some "
        "space or choose another folder."
    )


def write_all(file: BinaryIO, data: memoryview) -> None:
    """Write all bytes to an unbuffered file, which may take them piece by piece."""
    while data:
        data = data[file.write(data) :]
