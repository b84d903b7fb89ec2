"""What a folder of pixels or tokens depends on, and whether it is ours.

A store on disk is made once, under a temporary name, with its identity (JSON) in its
attributes, and opened only for the same identity. What else is in it is left to
`_store` (tokens) and `_results`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from napari_alibi_seg._base import OutputError, StoreError

__all__ = ["check_identity", "insist", "made_once", "store_key"]

_TRIES = 100
_T = TypeVar("_T")


def store_key(identity: dict[str, Any]) -> str:
    """Return the name of a store: a hash of everything its content depends on.

    Examples
    --------
    >>> store_key({"image": "a", "format": 1})[:8]
    'a0e1bc45'
    """
    text = json.dumps(identity, sort_keys=True, allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def made_once(path: Path, make: Callable[[Path], Any], what: str) -> None:
    """Let `make` fill a new folder and name it `path`, unless others were faster.

    Raises
    ------
    OutputError
        If it cannot be created; `what` says what it was to be.
    """
    if path.exists():
        return
    temporary = None
    try:
        temporary = insist(lambda: _new_folder(path.parent))
        make(temporary / "store")
        # another process may have made the same store meanwhile: theirs is as good
        if not path.exists():
            (temporary / "store").rename(path)
    except OSError as err:
        if not path.exists():
            raise OutputError(
                f"Cannot create the {what} {path}: {err.strerror or err}. Choose a "
                f"folder that can be written and has room."
            ) from err
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _new_folder(parent: Path) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=".new-", dir=parent))


def insist(make: Callable[[], _T]) -> _T:
    """Make something in a folder that others may delete for as long as it is empty.

    Between two system calls of `make` the folder may go: then it is called again.
    """
    for left in reversed(range(_TRIES)):
        try:
            return make()
        except (FileNotFoundError, FileExistsError):
            if not left:
                raise
    raise AssertionError


def check_identity(
    path: Path, found: dict[str, Any], identity: dict[str, Any], what: str
) -> None:
    """Raise unless the identity found in a store is the one that is asked for.

    Raises
    ------
    StoreError
        If it is another or of another format; both values are named.
    """
    if found.get("format") != identity["format"]:
        raise StoreError(
            f"{path} has store format {found.get('format')!r}; this version reads "
            f"format {identity['format']}. Update the package, or start again in "
            f"another folder."
        )
    expected = json.loads(json.dumps(identity))
    if found != expected:
        raise StoreError(
            f"The {what} {path} was made for something else: "
            f"{_differences(found, expected)}. Name another folder, or delete it to "
            f"start again."
        )


def _differences(found: Any, expected: Any, prefix: str = "") -> str:
    """Return the fields in which two JSON objects differ, with both values."""
    if isinstance(found, dict) and isinstance(expected, dict):
        parts = [
            _differences(found.get(k), expected.get(k), f"{prefix}{k}.")
            for k in sorted({*found, *expected})
            if found.get(k) != expected.get(k)
        ]
        return "; ".join(parts)
    return f"`{prefix.rstrip('.')}` is {found!r}, expected {expected!r}"
