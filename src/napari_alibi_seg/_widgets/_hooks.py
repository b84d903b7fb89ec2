"""How long our own code holds the GUI thread, for tests and benchmarks.

Every callback of ours that Qt or napari calls is wrapped by `on_gui`. It costs two
clock reads, and tells whoever asked with `record_callbacks`.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

__all__ = ["CallbackTime", "on_gui", "record_callbacks"]

_F = TypeVar("_F", bound=Callable[..., Any])


class CallbackTime(NamedTuple):
    """One call.

    Attributes
    ----------
    name : str
        Of the callback.
    seconds : float
        Spent in it, callbacks it called included.
    """

    name: str
    seconds: float


_listeners: list[list[CallbackTime]] = []


def on_gui(function: _F) -> _F:
    """Mark a callback that runs on the GUI thread."""
    name = function.__qualname__

    @functools.wraps(function)
    def timed(*args: Any, **kwargs: Any) -> Any:
        if not _listeners:
            return function(*args, **kwargs)
        started = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            spent = CallbackTime(name, time.perf_counter() - started)
            for listener in _listeners:
                listener.append(spent)

    return timed  # type: ignore[return-value]


@contextmanager
def record_callbacks() -> Iterator[list[CallbackTime]]:
    """Collect the times of all callbacks while the block runs.

    Examples
    --------
    >>> @on_gui
    ... def pressed():
    ...     return 1
    >>> with record_callbacks() as times:
    ...     _ = pressed()
    >>> [t.name for t in times], times[0].seconds < 0.05
    (['pressed'], True)
    """
    times: list[CallbackTime] = []
    _listeners.append(times)
    try:
        yield times
    finally:
        _listeners.remove(times)
