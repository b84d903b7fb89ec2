"""How the loops that NumPy has no words for are compiled.

Single-threaded on purpose: callers run tiles in threads of their own, and numba's own
thread pool is not safe from several threads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from numba import njit

__all__ = ["compiled"]

_logger = logging.getLogger(__name__)


def compiled(*signature: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a loop with numba: no GIL, NumPy's division, kept on disk if possible.

    Parameters
    ----------
    *signature : numba types
        Compile at once for these; left out, when first called.

    Returns
    -------
    callable
        Decorator.

    Examples
    --------
    >>> @compiled()
    ... def twice(x):
    ...     return 2 * x
    >>> twice(21)
    42
    """

    def compile_(function: Callable[..., Any]) -> Callable[..., Any]:
        options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
        try:
            return njit(*signature, cache=True, **options)(function)
        except RuntimeError as err:
            # A read-only installation without a home folder: compile each time.
            if "cannot cache" not in str(err):
                raise
            _logger.info("compiled code is not kept on disk: %s", err)
            return njit(*signature, **options)(function)

    return compile_
