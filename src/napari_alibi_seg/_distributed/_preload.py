"""What a worker process on this machine does first: leave Ctrl-C to the main process.

A terminal sends the signal to all processes at once. The main one ends the others; by
themselves they would write tracebacks.
"""

from __future__ import annotations

import signal
from typing import Any


def dask_setup(worker: Any) -> None:
    """Ignore the signal; called by Dask in the main thread of a new worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
