"""What the image readers share when a file is not what it should be.

Only this module knows which exceptions the reading libraries raise on damaged or
unsupported files. `translated` turns them into `ImageFileError`; `quiet` keeps their
warnings and log lines from the user while a file is opened; the checks compare what a
header says with what is there. What else can be wrong is left to the readers.
"""

from __future__ import annotations

import logging
import struct
import threading
import tokenize
import warnings
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from napari_alibi_seg._base import AlibiSegError, ImageFileError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = [
    "check_claimed_size",
    "check_dtype",
    "check_length",
    "human_bytes",
    "quiet",
    "translated",
]

_FREE_BYTES = 64 * 2**20  # nobody minds this much for nothing

# tifffile, Pillow, imagecodecs, h5py, zarr and numcodecs raise nearly every builtin on
# damaged input; errors in our own code of the same class still carry their traceback.
_FOREIGN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    EOFError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    tokenize.TokenError,  # from numpy's reading of npy headers
    zlib.error,
)

_quiet_lock = threading.RLock()


@contextmanager
def translated(where: str, expected: str) -> Iterator[None]:
    """Raise `ImageFileError` for anything a reading library raises inside."""
    try:
        yield
    except AlibiSegError:
        raise
    except MemoryError as err:
        raise ImageFileError(
            f"{where}: expected {expected} that fits in memory, but decoding it needs "
            "more memory than there is. Save it as a tiled TIFF or OME-Zarr, which "
            "are read piece by piece."
        ) from err
    except _FOREIGN as err:
        reason = " ".join(str(err).split())[:300] or "no reason given"
        raise ImageFileError(
            f"{where}: expected {expected}, but reading it failed "
            f"({type(err).__name__}: {reason}). It may be damaged, cut short or of a "
            "kind that is not supported; open it where it was made and save it again "
            "as an uncompressed TIFF."
        ) from err


@contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings and tifffile's log while a file is opened.

    Both switches belong to the whole process, hence the lock. Only for opening:
    windows are read in threads, where nothing may be switched.
    """
    logger = logging.getLogger("tifffile")
    with _quiet_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        was_disabled, logger.disabled = logger.disabled, True
        try:
            yield
        finally:
            logger.disabled = was_disabled


def check_dtype(dtype: object, where: str) -> np.dtype:
    """Return `dtype` in native byte order, or raise if it holds no pixel values."""
    try:
        known = np.dtype(dtype)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        known = np.dtype(object)
    if known.kind not in "buif" or known.itemsize > 8:
        raise ImageFileError(
            f"{where}: expected pixels that are bool, integers or floats of up to 64 "
            f"bits, got {dtype}. Save the part to look at (a magnitude, a channel) as "
            "one of these."
        )
    return known.newbyteorder("=")


def check_length(path: Path, needed: int) -> None:
    """Raise if a file is shorter than its header says."""
    held = path.stat().st_size
    if needed > held:
        raise ImageFileError(
            f"{path}: expected {needed} bytes from what its header says, got a file of "
            f"{held}: it was cut short. Copy or export it again."
        )


def check_claimed_size(where: str, claimed: int, held: int, ratio: int) -> None:
    """Raise if a header claims far more pixels than the compressed bytes can hold."""
    if claimed > _FREE_BYTES and claimed > ratio * held:
        raise ImageFileError(
            f"{where}: expected pixels for what its header says "
            f"({human_bytes(claimed)}), got {human_bytes(held)} of data, which cannot "
            "hold them. The file is damaged; export it again."
        )


def human_bytes(n_bytes: int) -> str:
    """Return a size as people say it.

    Examples
    --------
    >>> human_bytes(3_400_000_000)
    '3.4 GB'
    """
    for factor, unit in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if n_bytes >= factor:
            return f"{n_bytes / factor:.1f} {unit}"
    return f"{n_bytes} bytes"
