"""The SHA-256 of a file, computed once as long as the file stays as it is. No torch."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

from napari_alibi_seg._base import WeightsError

__all__ = ["file_sha256"]

_hashes: dict[tuple[str, int, int], str] = {}
_hashes_lock = threading.Lock()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file; computed once per path, size and time of change.

    Raises
    ------
    WeightsError
        If the file cannot be read.
    """
    try:
        stat = path.stat()
        key = (str(path.resolve()), stat.st_size, stat.st_mtime_ns)
        with _hashes_lock:
            known = _hashes.get(key)
        if known is not None:
            return known
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as err:
        raise WeightsError(f"Cannot read the weights {str(path)!r}: {err}.") from err
    with _hashes_lock:
        _hashes[key] = digest
    return digest
