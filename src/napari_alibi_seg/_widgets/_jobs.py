"""The only bridge from our generators to threads: lanes of jobs.

A lane runs one generator at a time on a napari worker. Starting another stops the one
that runs at its next event; what it still had to say is dropped, so a stale result
never overwrites a newer one. Errors of every kind come back as a sentence, also
`RuntimeError`, which a Qt generator worker takes for a closed window and swallows.

A worker waits when the GUI has not yet taken its last few events: tiles never pile up.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

from napari.qt.threading import GeneratorWorker, create_worker
from qtpy.QtCore import QObject, QThreadPool, Signal

from napari_alibi_seg._base import AlibiSegError, ComputeError, DeviceMemoryError
from napari_alibi_seg._widgets._hooks import on_gui
from napari_alibi_seg._widgets._loading import load_learning, refuse_triton

__all__ = ["Lane", "say"]

_logger = logging.getLogger(__name__)

# Events the GUI may be behind.
_AHEAD = 2
# Jobs of all lanes at once. Qt allows one a core: on two cores a batch and an
# extraction would keep training, saving and all else waiting.
_THREADS = 12


def say(error: BaseException) -> str:
    """Return what to tell the user of an error, as a sentence."""
    text = str(error).strip()
    if isinstance(error, AlibiSegError) and text:
        return text
    if isinstance(error, MemoryError):
        return (
            "The computer has no memory left for this. Close other programs, or lower "
            "the working scale."
        )
    return f"{type(error).__name__}: {text or 'no message'}. This is a fault of ours."


def _translated(error: Exception) -> Exception:
    """Return an error that no worker swallows."""
    name = type(error).__name__
    if isinstance(error, RuntimeError) and "OutOfMemory" in name:
        return DeviceMemoryError(
            f"The device has no memory left ({error}). Choose the CPU, a smaller tile "
            "or a lower working scale."
        )
    if isinstance(error, (RuntimeError, StopIteration)):
        return ComputeError(
            f"A computation failed ({name}: {str(error).strip() or 'no message'}). Try "
            "it again; if it fails again, restart napari."
        )
    return error


@dataclass(eq=False)
class _Ticket:
    """What a worker and the GUI thread share about one job."""

    make: Callable[[], Iterator[Any]]
    slots: threading.Semaphore = field(
        default_factory=lambda: threading.Semaphore(_AHEAD)
    )
    stopped: threading.Event = field(default_factory=threading.Event)

    def stop(self) -> None:
        self.stopped.set()
        self.slots.release()


@dataclass(frozen=True)
class _Failure:
    error: BaseException


def _run(ticket: _Ticket) -> Generator[Any, None, _Failure | None]:
    """Run a job on its thread. A failure is what it returns: nothing is ever raised.

    superqt raises errors of a worker again on the GUI thread, and keeps those of a
    `RuntimeError` for itself.
    """
    if ticket.stopped.is_set():
        return None
    refuse_triton()  # whatever the job is about to import
    try:
        load_learning()
        events = ticket.make()
        try:
            for event in events:
                ticket.slots.acquire()
                if ticket.stopped.is_set():
                    return None
                yield event
                if ticket.stopped.is_set():
                    return None
        finally:
            close = getattr(events, "close", None)
            if close is not None:
                close()
    except Exception as err:  # noqa: BLE001  # whatever it is, the user is told
        return _Failure(_translated(err))
    return None


class Lane(QObject):
    """Runs one job at a time; a new one replaces the old one.

    Attributes
    ----------
    busy_changed : Signal(bool)
        A job began, or the last one ended.
    """

    busy_changed = Signal(bool)

    def __init__(self, name: str, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.name = name
        pool = QThreadPool.globalInstance()
        pool.setMaxThreadCount(max(pool.maxThreadCount(), _THREADS))
        self._ticket: _Ticket | None = None
        self._workers: set[GeneratorWorker] = set()
        self._is_closed = False
        # a window may be deleted with all in it before anybody is told that it closes
        self.destroyed.connect(lambda: self._lose())

    @property
    def is_busy(self) -> bool:
        """Whether a job runs whose events will be delivered."""
        return self._ticket is not None

    @property
    def is_idle(self) -> bool:
        """Whether no thread of this lane runs, not even a stopped one's."""
        return not self._workers

    def start(
        self,
        make: Callable[[], Iterator[Any]],
        *,
        on_event: Callable[[Any], None] | None = None,
        on_error: Callable[[str, BaseException], None] | None = None,
        on_done: Callable[[], None] | None = None,
    ) -> None:
        """Run what `make` returns, after stopping what runs.

        Parameters
        ----------
        make : callable
            Called on the worker thread; returns an iterator of events.
        on_event : callable
            Gets each event, on the GUI thread.
        on_error : callable
            Gets a sentence and the error. Then neither an event nor `on_done` comes.
        on_done : callable
            When all events were delivered.
        """
        if self._is_closed:
            return
        self.stop()
        ticket = _Ticket(make)
        was_busy, self._ticket = self.is_busy, ticket
        worker = create_worker(_run, ticket, _start_thread=False)

        @on_gui
        def deliver(event: Any) -> None:
            ticket.slots.release()
            if self._ticket is ticket and on_event is not None:
                on_event(event)

        @on_gui
        def end(failure: _Failure | None) -> None:
            if self._ticket is not ticket:
                return
            self._end()
            if failure is None:
                if on_done is not None:
                    on_done()
                return
            _logger.debug("%s failed", self.name, exc_info=failure.error)
            if on_error is not None:
                on_error(say(failure.error), failure.error)

        @on_gui
        def gone() -> None:
            self._workers.discard(worker)

        worker.yielded.connect(deliver)
        worker.returned.connect(end)
        worker.finished.connect(gone)
        self._workers.add(worker)
        if not was_busy:
            self.busy_changed.emit(True)
        worker.start()

    def stop(self) -> None:
        """Stop the job at its next event; nothing more of it is delivered."""
        if self._ticket is not None:
            self._ticket.stop()
            self._end()

    def close(self) -> None:
        """Stop, and refuse new jobs; for the end of the dock."""
        self._is_closed = True
        self.stop()

    def _end(self) -> None:
        self._ticket = None
        self.busy_changed.emit(False)

    def _lose(self) -> None:
        """Stop without a word: Qt's half of this object is gone."""
        self._is_closed = True
        ticket, self._ticket = self._ticket, None
        if ticket is not None:
            ticket.stop()
