"""A cache of blocks that are dear to make: bounded in bytes, each made once.

Shared by whatever is cut into blocks and read by several threads: decoded chunks of a
file, projected tokens, features at token centres. Only this module knows how two
threads that want one block share the work and which block goes first; what a block is
and how it is made is the callers' knowledge.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

__all__ = ["BlockCache", "touched_blocks"]

_Key = TypeVar("_Key")


class BlockCache(Generic[_Key]):
    """The blocks that were used last, up to so many bytes.

    Parameters
    ----------
    max_bytes : int
        Most that is kept. The block made last is kept whatever its size.

    Examples
    --------
    >>> import numpy as np
    >>> cache = BlockCache(max_bytes=100)
    >>> for key in "abc":
    ...     block = cache.get(key, lambda: np.zeros(40, np.uint8))
    >>> [key in cache for key in "abc"], cache.n_bytes
    ([False, True, True], 80)
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._blocks: OrderedDict[_Key, Future[npt.NDArray[Any]]] = OrderedDict()
        self._n_bytes = self._last_bytes = 0
        self._lock = threading.Lock()

    @property
    def n_bytes(self) -> int:
        """Bytes of all blocks that are kept."""
        with self._lock:
            return self._n_bytes

    @property
    def is_full(self) -> bool:
        """Whether another block like the last one would push one out."""
        with self._lock:
            return self._n_bytes + self._last_bytes > self.max_bytes

    def __contains__(self, key: _Key) -> bool:
        """Return whether a block is there, complete."""
        with self._lock:
            block = self._blocks.get(key)
        return block is not None and block.done() and block.exception() is None

    def get(self, key: _Key, make: Callable[[], npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """Return a block, made by `make` if it is not there.

        Parameters
        ----------
        key : hashable
            Which one.
        make : callable
            Makes it; called by one thread, for which the others wait. It must not ask
            this cache for anything.

        Returns
        -------
        array
            Shared: not to be changed.

        Raises
        ------
        Exception
            What `make` raises, in every thread that waits; the next call tries again.
        """
        with self._lock:
            block = self._blocks.get(key)
            is_mine = block is None
            if block is None:
                block = self._blocks[key] = Future()
            self._blocks.move_to_end(key)
        if is_mine:
            try:
                made = make()
            except BaseException as err:
                with self._lock:
                    del self._blocks[key]
                block.set_exception(err)
                raise
            block.set_result(made)
            self._keep_within_budget(made.nbytes)
        return block.result()

    def _keep_within_budget(self, n_new: int) -> None:
        with self._lock:
            self._n_bytes += n_new
            self._last_bytes = n_new
            if self._n_bytes <= self.max_bytes:
                return
            finished = [key for key, block in self._blocks.items() if block.done()]
            for key in finished[:-1]:
                if self._n_bytes <= self.max_bytes:
                    return
                self._n_bytes -= self._blocks.pop(key).result().nbytes


def touched_blocks(
    edges: Sequence[int], start: int, stop: int
) -> list[tuple[int, slice]]:
    """Return which blocks of an axis a range touches, and where in the axis.

    Parameters
    ----------
    edges : sequence of int
        Where blocks begin, ascending, then the end of the axis.
    start, stop : int
        The range, not empty.

    Returns
    -------
    list of (int, slice)
        Number of each block, and its part of the range in coordinates of the axis.

    Examples
    --------
    >>> touched_blocks([0, 10, 20, 25], 8, 21)
    [(0, slice(8, 10, None)), (1, slice(10, 20, None)), (2, slice(20, 21, None))]
    """
    first = bisect_right(edges, start) - 1
    last = bisect_right(edges, stop - 1) - 1
    return [
        (i, slice(max(edges[i], start), min(edges[i + 1], stop)))
        for i in range(first, last + 1)
    ]
