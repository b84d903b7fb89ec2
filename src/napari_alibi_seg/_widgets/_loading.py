"""A library that must not be loaded beside a drawing library, or the process dies.

Mesa, which draws napari's canvas where no vendor's driver does, may load ``libLLVM``.
PyTorch's compiler, triton, holds an LLVM of its own, and the two in one process end in
a segmentation fault at ``import triton``. timm imports it on the way, through
torchvision and torch._dynamo, although nothing of ours is ever compiled. Only this
module knows of it.
"""

from __future__ import annotations

import importlib
import sys
import threading
from pathlib import Path

__all__ = ["load_learning", "load_tables", "refuse_triton"]

_lock = threading.Lock()

_MAPS = Path("/proc/self/maps")


def refuse_triton(maps: Path = _MAPS) -> bool:
    """Let ``import triton`` fail cleanly where it would end the process.

    To be called before torch may be imported. PyTorch then takes it for not installed.
    Nothing is done if it is loaded already, which is harmless, or if no other LLVM is.

    Parameters
    ----------
    maps : Path
        The list of what is loaded into this process; Linux has one.

    Returns
    -------
    bool
        Whether triton is refused from now on.
    """
    if "triton" in sys.modules or not sys.platform.startswith("linux"):
        return False
    try:
        is_there = "libLLVM" in maps.read_text(errors="replace")
    except OSError:
        return False
    if is_there:
        # what Python itself documents for a module that must not be imported
        sys.modules["triton"] = None  # type: ignore[assignment]
    return is_there


def load_tables() -> None:
    """Import pandas, which napari wants too, on the GUI thread before any job runs.

    It imports itself in circles: two threads that begin at once see half of it.
    """
    importlib.import_module("pandas")


def load_learning() -> None:
    """Import what training needs, one thread after the other."""
    with _lock:
        importlib.import_module("sklearn.ensemble")
