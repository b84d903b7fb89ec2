"""Jobs that wait for one another, where a `Lane` would stop the one that runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from qtpy.QtCore import QObject

from napari_alibi_seg._widgets._jobs import Lane

__all__ = ["Queue"]


class _Job(NamedTuple):
    make: Callable[[], Iterator[Any]]
    on_event: Callable[[Any], None]
    on_error: Callable[[str, BaseException], None]
    on_end: Callable[[], None]


class Queue(QObject):
    """Runs all its jobs, in the order they came, in one lane.

    Attributes
    ----------
    lane : Lane
        To be closed by the owner; jobs that have not begun are then dropped.
    """

    def __init__(self, name: str, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.lane = Lane(name, self)
        self._jobs: deque[_Job] = deque()

    def add(
        self,
        make: Callable[[], Iterator[Any]],
        *,
        on_event: Callable[[Any], None],
        on_error: Callable[[str, BaseException], None],
        on_end: Callable[[], None],
    ) -> None:
        """Run a job after those that were added before; see `Lane.start`.

        `on_end` is called at last, also after an error.
        """
        self._jobs.append(_Job(make, on_event, on_error, on_end))
        if not self.lane.is_busy:
            self._next()

    def clear(self) -> None:
        """Stop the job that runs, and drop those that wait; nobody is told."""
        self._jobs.clear()
        self.lane.stop()

    def _next(self) -> None:
        if not self._jobs:
            return
        job = self._jobs.popleft()

        def failed(text: str, error: BaseException) -> None:
            job.on_error(text, error)
            done()

        def done() -> None:
            job.on_end()
            if not self.lane.is_busy:  # a callback may have added a job
                self._next()

        self.lane.start(job.make, on_event=job.on_event, on_error=failed, on_done=done)
