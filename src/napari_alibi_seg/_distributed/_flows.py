"""Work in steps on many workers: units of a step at once, steps one after the other.

A *unit* is a top-level function with small arguments (paths, hashes, numbers; no
arrays) that may run twice without harm, because Dask runs it again elsewhere when its
worker dies. A *flow* is a generator that yields a list of units, receives what they
returned, and yields the next step, until it returns what it was about. Many flows run
at once; the first ones go first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_alibi_seg._base import AlibiSegError, ComputeError
from napari_alibi_seg._segmenter import sentence

if TYPE_CHECKING:
    from distributed import Client, Future

__all__ = ["Done", "Flow", "Unit", "UnitDone", "iter_flows"]

# Enough to keep new workers busy at once; a unit that waits costs little.
_LEAST_IN_FLIGHT = 64


@dataclass(frozen=True, slots=True)
class Unit:
    """A call for a worker.

    Attributes
    ----------
    function : callable
        Of a module that workers can import.
    arguments : tuple
        Small.
    stage : str
        What it is a part of, for progress.
    size, missing, total : int
        Tiles it does, that the step does, and that there are.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    stage: str = ""
    size: int = 0
    missing: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a unit.

    Attributes
    ----------
    value : object
        What its function returned.
    error : str
        Message, empty unless it failed.
    seconds : float
        On the worker.
    """

    value: Any
    error: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class UnitDone:
    """Event: a unit of a flow is done, and what it returned."""

    flow: Any
    unit: Unit
    value: Any = None


Flow = Generator[list[Unit], list[Done], Any]


def call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Done:
    """Run a unit; on the worker."""
    started = time.perf_counter()
    value, error = None, ""
    try:
        value = function(*arguments)
    except (AlibiSegError, OSError, MemoryError) as err:
        error = sentence(err)
    return Done(value, error, time.perf_counter() - started)


@dataclass
class _Running:
    """A flow with the units of its step."""

    name: Any
    flow: Flow
    priority: int
    units: list[Unit]
    results: list[Done | None]
    has_begun: bool = False


def iter_flows(
    client: Client, flows: Iterable[tuple[Any, Flow]]
) -> Iterator[UnitDone | tuple[Any, Any]]:
    """Run flows and yield each unit that is done, and (name, result) of each flow.

    Parameters
    ----------
    client : distributed.Client
        Of the workers.
    flows : iterable of (name, flow)
        Taken as workers get free.

    Raises
    ------
    ComputeError
        If the scheduler is lost.

    Notes
    -----
    Whoever stops listening stops the work: units that wait are cancelled, those that
    run end on their workers, unheard.
    """
    from distributed import as_completed

    completed = as_completed(loop=client.loop)
    owner: dict[Future, tuple[_Running, int]] = {}
    upcoming = enumerate(flows)

    def submit(running: _Running) -> None:
        for k, unit in enumerate(running.units):
            future = client.submit(
                *(call, unit.function, unit.arguments),
                pure=False,
                priority=-running.priority,
            )
            owner[future] = running, k
            completed.add(future)

    try:
        while True:
            while len(owner) < _in_flight(client):
                started = next(upcoming, None)
                if started is None:
                    break
                priority, (name, flow) = started
                running = _Running(name, flow, priority, [], [])
                yield from _advance(running, submit)
            if not owner:
                return
            future = next(completed)
            running, k = owner.pop(future)
            done = _result(future)
            running.results[k] = done
            yield UnitDone(running.name, running.units[k], done.value)
            if None not in running.results:
                yield from _advance(running, submit)
    finally:
        if owner and client.status == "running":
            client.cancel(list(owner))


def _advance(
    running: _Running, submit: Callable[[_Running], None]
) -> Iterator[tuple[Any, Any]]:
    """Start the next step of a flow, or yield its result."""
    try:
        results: Any = running.results if running.has_begun else None
        running.has_begun = True
        while True:
            running.units = running.flow.send(results)
            running.results = [None] * len(running.units)
            if running.units:
                submit(running)
                return
            results = []
    except StopIteration as end:
        yield running.name, end.value


def _in_flight(client: Client) -> int:
    return max(_LEAST_IN_FLIGHT, 4 * sum(client.nthreads().values()))


def _result(future: Future) -> Done:
    from distributed import CancelledError, KilledWorker

    try:
        done: Done = future.result()
    except KilledWorker as err:
        n = err.allowed_failures + 1
        return Done(
            None,
            f"{n} workers died of this piece of work, probably for want of memory. "
            f"Use fewer workers on a machine, or machines with more memory.",
        )
    except (CancelledError, OSError, TimeoutError) as err:
        reason = sentence(err).rstrip(".")
        raise ComputeError(
            f"The dask scheduler was lost ({reason}). What was finished is kept; run "
            f"again to go on."
        ) from err
    return done
