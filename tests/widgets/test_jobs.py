"""Lanes: whatever a job does, the GUI hears of it once, and the lane is free again."""

from __future__ import annotations

import importlib
import sys
import threading
import time

import pytest

pytest.importorskip("napari")
from widgets.driver import QUIET, spin, wait_until

from napari_alibi_seg._base import ComputeError, DeviceMemoryError, OutputError
from napari_alibi_seg._widgets._jobs import Lane, say
from napari_alibi_seg._widgets._loading import refuse_triton

pytestmark = [pytest.mark.gui, *(pytest.mark.filterwarnings(q) for q in QUIET)]


class OutOfMemoryError(RuntimeError):
    """As torch names its own."""


@pytest.fixture
def lane(qtbot):
    made = Lane("test")
    yield made
    made.close()
    wait_until(lambda: made.is_idle)


def heard(lane, make, **more):
    """Start a job; return lists of events, errors and ends, filled as they come."""
    events, errors, ends = [], [], []
    lane.start(
        make,
        on_event=more.pop("on_event", events.append),
        on_error=lambda text, error: errors.append((text, error)),
        on_done=lambda: ends.append(True),
    )
    return events, errors, ends


def failing_with(error, after=2):
    def make():
        yield from range(after)
        raise error

    return make


FAILURES = {
    "runtime": (RuntimeError("wrapped C/C++ object"), ComputeError, "wrapped C/C++"),
    "runtime-empty": (RuntimeError(), ComputeError, "RuntimeError"),
    "out of memory": (
        OutOfMemoryError("CUDA out of memory"),
        DeviceMemoryError,
        "a smaller tile",
    ),
    "memory": (MemoryError(), MemoryError, "Close other programs"),
    "value": (ValueError("bad shape"), ValueError, "ValueError: bad shape."),
    "ours": (OutputError("The disk is full."), OutputError, "The disk is full."),
    "assertion": (AssertionError(), AssertionError, "no message"),
}


@pytest.mark.parametrize("case", FAILURES.values(), ids=FAILURES)
def test_an_error_comes_as_a_sentence_and_frees_the_lane(lane, case) -> None:
    error, kind, words = case
    busy = []
    lane.busy_changed.connect(busy.append)
    events, errors, ends = heard(lane, failing_with(error))
    wait_until(lambda: errors)
    ((text, raised),) = errors
    assert events == [0, 1]
    assert words in text
    assert text.endswith(".")
    assert isinstance(raised, kind)
    assert ends == []
    assert not lane.is_busy
    assert busy == [True, False]
    wait_until(lambda: lane.is_idle)


def test_stop_iteration_inside_a_job_is_an_error_too(lane) -> None:
    def make():
        yield next(iter(()))

    _, errors, ends = heard(lane, make)
    wait_until(lambda: errors)
    assert isinstance(errors[0][1], ComputeError)
    assert not ends
    assert not lane.is_busy


def test_an_error_before_there_is_a_generator(lane) -> None:
    def make():
        raise StopIteration("at once")

    _, errors, _ = heard(lane, make)
    wait_until(lambda: errors)
    assert "at once" in errors[0][0]
    assert not lane.is_busy


def test_the_lane_works_after_an_error(lane) -> None:
    _, errors, _ = heard(lane, failing_with(RuntimeError("once"), after=0))
    wait_until(lambda: errors)
    events, errors, ends = heard(lane, lambda: iter("abc"))
    wait_until(lambda: ends)
    assert events == ["a", "b", "c"]
    assert not errors


def test_nothing_of_an_older_job_comes_after_a_newer_one_began(lane) -> None:
    going = threading.Event()

    def old():
        for i in range(1000):
            yield ("old", i)
            going.wait(0.001)

    got = []
    lane.start(old, on_event=got.append, on_done=lambda: got.append("old done"))
    wait_until(lambda: len(got) >= 3)
    lane.start(
        lambda: iter([("new", 0), ("new", 1)]),
        on_event=got.append,
        on_done=lambda: got.append("new done"),
    )
    n_before = len(got)
    wait_until(lambda: lane.is_idle)
    spin(0.05)
    assert got[n_before:] == [("new", 0), ("new", 1), "new done"]


def test_an_error_of_an_older_job_is_not_told(lane) -> None:
    release = threading.Event()

    def old():
        release.wait(5)
        raise ValueError("stale")
        yield

    _, errors, _ = heard(lane, old)
    _, _, ends = heard(lane, lambda: iter(()))
    release.set()
    wait_until(lambda: ends and lane.is_idle)
    assert errors == []


def test_stopping_closes_the_generator_on_its_own_thread(lane) -> None:
    closed = []

    def make():
        try:
            while True:
                yield threading.get_ident()
                time.sleep(0.001)
        finally:
            closed.append(threading.get_ident())

    events, _, ends = heard(lane, make)
    wait_until(lambda: len(events) > 2)
    lane.stop()
    assert not lane.is_busy
    n = len(events)
    wait_until(lambda: lane.is_idle)
    assert closed == [events[0]]
    assert closed[0] != threading.get_ident()
    assert len(events) == n
    assert not ends


def test_a_worker_waits_for_a_gui_that_is_behind(lane) -> None:
    made = []

    def make():
        for i in range(50):
            made.append(i)
            yield i

    events, _, ends = heard(lane, make)
    time.sleep(0.3)  # the GUI thread is asleep: nothing is taken
    assert len(events) == 0
    assert len(made) <= 4
    wait_until(lambda: ends)
    assert events == list(range(50))


def test_a_closed_lane_takes_no_job(lane) -> None:
    lane.close()
    _, _, ends = heard(lane, lambda: iter([1]))
    spin(0.05)
    assert lane.is_idle
    assert not ends


def test_a_stopped_job_that_waits_for_room_goes(lane) -> None:
    events, _, _ = heard(lane, lambda: iter(range(1000)))
    time.sleep(0.1)  # it is now waiting for the GUI
    lane.stop()
    wait_until(lambda: lane.is_idle, seconds=5)
    assert len(events) == 0


def test_long_jobs_of_other_lanes_keep_nobody_waiting(qtbot) -> None:
    """Qt's own limit is a thread a core: two on a small machine."""
    go_on = threading.Event()

    def long():
        yield "began"
        go_on.wait(20)

    lanes = [Lane(f"lane {i}") for i in range(6)]
    try:
        begun = [heard(lane, long)[0] for lane in lanes]
        wait_until(lambda: all(begun))
        assert begun == [["began"]] * 6
    finally:
        go_on.set()
        for lane in lanes:
            lane.close()
        wait_until(lambda: all(lane.is_idle for lane in lanes))


def test_sentences() -> None:
    assert say(OutputError("It is full.")) == "It is full."
    assert "fault of ours" in say(KeyError("x"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux only")
@pytest.mark.parametrize(
    ("loaded", "is_refused"),
    [("libc.so.6\n/usr/lib/libLLVM.so.19\n", True), ("libc.so.6\n", False)],
    ids=["beside another LLVM", "alone"],
)
def test_triton_is_refused_beside_another_llvm(
    tmp_path, monkeypatch, loaded, is_refused
) -> None:
    monkeypatch.delitem(sys.modules, "triton", raising=False)
    (tmp_path / "maps").write_text(loaded)
    assert refuse_triton(tmp_path / "maps") is is_refused
    assert ("triton" in sys.modules) is is_refused
    if is_refused:
        with pytest.raises(ImportError):
            importlib.import_module("triton")
    monkeypatch.setitem(sys.modules, "triton", sys.modules.get("triton"))


def test_triton_that_is_loaded_stays(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", sys)
    (tmp_path / "maps").write_text("libLLVM.so.19")
    assert not refuse_triton(tmp_path / "maps")
    assert sys.modules["triton"] is sys


def test_a_lane_that_qt_deletes_stops_its_job_and_says_no_more(qtbot) -> None:
    from qtpy import sip

    made, may_end, ended = Lane("deleted"), threading.Event(), threading.Event()

    def job():
        try:
            yield 1
            may_end.wait(10)
            yield 2
        finally:
            ended.set()

    seen = []
    made.start(job, on_event=seen.append)
    wait_until(lambda: seen == [1], "the first event")
    sip.delete(made)
    may_end.set()
    wait_until(lambda: ended.is_set() and made.is_idle, "the job to end")
    assert seen == [1]
    made.start(job)  # refused, without an error
    assert made.is_idle
