"""Projects that were let go of, until they are written.

An image that goes leaves what is not written yet here, in no time; a worker writes it,
or a thread at the end. Only this module knows what happens when that fails: the others
are written all the same, and the failed one is kept, to be tried or taken back.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from napari_alibi_seg._base import AlibiSegError, OutputError
from napari_alibi_seg._workspace._images import OpenImage
from napari_alibi_seg._workspace._project import Project
from napari_alibi_seg._workspace._state import ProjectState

__all__ = ["Leaving", "raise_all"]

_logger = logging.getLogger(__name__)


@dataclass(eq=False)
class _Item:
    """What an image left; without a project, its pending strokes have none yet."""

    images: list[OpenImage]  # planes of one image
    project: Project | None
    state: ProjectState
    is_being_written: bool = False

    def is_of(self, image: OpenImage) -> bool:
        return self.images[0].is_same(image)


class Leaving:
    """Projects to be written and given free; for use from several threads.

    Parameters
    ----------
    making : threading.Lock
        Held by whoever makes or opens a project.
    """

    def __init__(self, making: threading.Lock) -> None:
        self._making = making
        self._lock = threading.Lock()  # of the list; held for moments
        self._writing = threading.Lock()
        self._items: list[_Item] = []

    def add(
        self, image: OpenImage, project: Project | None, state: ProjectState
    ) -> None:
        """Take over what an image leaves; at once."""
        with self._lock:
            for item in self._items:
                is_other = None not in (project, item.project)
                if not is_other and not item.is_being_written and item.is_of(image):
                    item.images.append(image)
                    item.project = item.project or project
                    return
            self._items.append(_Item([image], project, state))

    def take_back(self, image: OpenImage) -> Project | None:
        """Return the project of the same image if it is not written, to go on with."""
        with self._lock:
            for item in self._items:
                is_free = item.project is not None and not item.is_being_written
                if is_free and item.is_of(image):
                    self._items.remove(item)
                    return item.project
        return None

    def write(self, image: OpenImage | None = None) -> list[AlibiSegError]:
        """Write all, or those of the same image; return what failed of them."""
        items = [i for i in [*self._items] if image is None or i.is_of(image)]
        failed: list[AlibiSegError] = []
        # whatever happens to one of them, the others are written
        with self._writing, ExitStack() as stack:
            for item in reversed(items):
                stack.callback(self._write, item, failed)
        return failed

    def finish(self, timeout_s: float) -> None:
        """Write all on a thread of its own, and wait for it.

        The thread outlives `timeout_s`: the interpreter does not end before it.

        Raises
        ------
        OutputError
            After all were tried, if some could not be written; or if it takes longer
            than `timeout_s`, and goes on.
        """
        pool = ThreadPoolExecutor(1, thread_name_prefix="alibi-seg-close")
        ending = pool.submit(self._finish)
        pool.shutdown(wait=False)
        wait([ending], timeout_s)
        if not ending.done():
            ending.add_done_callback(_log_failure)
            raise OutputError(
                f"Expected to save what is painted within {timeout_s:g} s, got a disk "
                "that is slower. Saving goes on; leave the computer and the disk on "
                "until Python has ended."
            )
        ending.result()

    def _finish(self) -> None:
        with self._making:  # a project that is being made comes to the list first
            pass
        try:
            raise_all(self.write())
        finally:
            for item in [*self._items]:
                if item.project is not None:
                    with suppress(AlibiSegError):  # it was told just now
                        item.project.close()

    def _write(self, item: _Item, failed: list[AlibiSegError]) -> None:
        with self._lock:
            if item not in self._items:
                return  # another thread was sooner, or it was taken back
            item.is_being_written = True
        try:
            with self._making:
                _make_up(item)
            if item.project is not None:
                item.project.save_state(item.state)
                item.project.close()
        except AlibiSegError as err:
            failed.append(err)
        else:
            with self._lock:
                self._items.remove(item)
        finally:
            item.is_being_written = False


def _make_up(item: _Item) -> None:
    """Keep strokes whose image went before it had a project."""
    for image in item.images:
        pending = image.pending
        if pending is None:  # also if a job that had begun to make it took them
            continue
        if item.project is None:
            assert image.identity is not None
            item.project = Project.create(image.identity, item.state)
        item.project.update_scribbles(image.plane, pending)
        image.pending = None


def raise_all(failed: list[AlibiSegError]) -> None:
    """Raise what failed, all of it in one.

    Raises
    ------
    AlibiSegError
        The only one; or an OutputError with the messages of all, from a group of them.
    """
    if len(failed) == 1:
        raise failed[0]
    if failed:
        text = " ".join(dict.fromkeys(str(err) for err in failed))
        raise OutputError(text) from ExceptionGroup("not saved", failed)


def _log_failure(ending: Future[None]) -> None:
    error = ending.exception()
    if error is not None:
        _logger.error("Not saved: %s", error, exc_info=error)
