"""Keeping the stores of coarser levels below a size: the least recently used goes.

Only this module knows which stores are in use: whoever reads or makes one holds a lock
on a file in it, which the system gives back when a process dies. A store that is in use
is never deleted, whatever the limit. What lies in a store is `_levels`'.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import threading
import weakref
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["LEVELS_BYTES", "LEVELS_SUFFIX", "Use", "trim_levels"]

_logger = logging.getLogger(__name__)

# About 70 images of 400 megapixels of 8 bits.
LEVELS_BYTES = 10 * 10**9
LEVELS_SUFFIX = ".levels.zarr"

_MARK = ".in-use"
_DOOMED = ".doomed"


class Use:
    """A store that must not be deleted, until `release`; also counts as used now.

    Parameters
    ----------
    store : Path
        Exists.
    """

    def __init__(self, store: Path) -> None:
        # the collector may let go of a user in the midst of `release`
        self._lock = threading.RLock()
        self._n_holders = 1
        self._file: int | None = _opened(store / _MARK)
        if self._file is not None:
            _locked(self._file, is_shared=True)
            with suppress(FileNotFoundError):  # deleted while we waited, see `holds`
                os.utime(store / _MARK)

    @classmethod
    def of_new(cls, store: Path) -> Use:
        """Use a store that is made if it is not there, or was deleted meanwhile."""
        while True:
            store.mkdir(parents=True, exist_ok=True)
            use = cls(store)
            if use.holds(store):
                return use
            use.release()

    def holds(self, store: Path) -> bool:
        """Return whether the store is there and is the one whose lock this has."""
        if self._file is None or sys.platform == "win32":
            return store.exists()  # cannot be deleted now
        try:
            return os.path.samestat(os.fstat(self._file), (store / _MARK).stat())
        except FileNotFoundError:
            return False

    def hold_for(self, users: Iterable[Any]) -> None:
        """Keep the store until every user is gone, besides the holder of this."""
        for user in users:
            with self._lock:
                self._n_holders += 1
            weakref.finalize(user, self.release)

    def release(self) -> None:
        """Let go; the last one who does frees the store."""
        with self._lock:
            self._n_holders -= 1
            if self._n_holders == 0 and self._file is not None:
                os.close(self._file)
                self._file = None


def trim_levels(folder: Path, limit_bytes: int | None = None) -> list[Path]:
    """Delete the stores of a folder that were not used for longest, down to a size.

    Parameters
    ----------
    folder : Path
        Of all stores of levels; nothing else in it is touched.
    limit_bytes : int, optional
        What may stay, 10 GB by default. Stores in use stay in any case.

    Returns
    -------
    list of Path
        What was deleted.
    """
    limit = LEVELS_BYTES if limit_bytes is None else limit_bytes
    for left in folder.glob(f"*{LEVELS_SUFFIX}{_DOOMED}"):
        shutil.rmtree(left, ignore_errors=True)  # another process died of it
    stores = sorted(folder.glob(f"*{LEVELS_SUFFIX}"), key=_used_at)
    sizes = {store: _size(store) for store in stores}
    total, gone = sum(sizes.values()), []
    for store in stores:
        if total <= limit:
            break
        if _delete_unless_used(store):
            total -= sizes[store]
            gone.append(store)
            _logger.info("Deleted the coarser levels in %s, to save space", store)
    return gone


def _delete_unless_used(store: Path) -> bool:
    doomed = store.with_name(store.name + _DOOMED)
    file = _opened(store / _MARK)
    try:
        if file is None or not _locked(file, is_shared=False):
            return False
        if sys.platform == "win32":  # what holds a file open keeps its folder's name
            os.close(file)
            file = None
        store.rename(doomed)
    except OSError:
        return False  # in use after all, or somebody else deletes it
    finally:
        if file is not None:
            os.close(file)
    shutil.rmtree(doomed, ignore_errors=True)
    return True


def _opened(mark: Path) -> int | None:
    try:
        return os.open(mark, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:
        return None  # a folder that cannot be written cannot be trimmed either


def _locked(file: int, *, is_shared: bool) -> bool:
    if sys.platform == "win32":
        return True  # the open file itself is the lock
    import fcntl

    try:
        # who deletes holds its lock for an instant, and must not wait for a reader
        wanted = fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX | fcntl.LOCK_NB
        fcntl.flock(file, wanted)
    except OSError:
        return False
    return True


def _used_at(store: Path) -> float:
    for path in (store / _MARK, store):
        try:
            return path.stat().st_mtime
        except OSError:
            continue
    return 0.0


def _size(store: Path) -> int:
    total = 0
    for path in store.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:
            continue  # another process deletes it
    return total
