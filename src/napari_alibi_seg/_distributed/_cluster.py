"""Workers: started on this machine, or found behind a scheduler's address.

Only this module knows how Dask is started, how many processes a machine with GPUs gets
and which device each of them sees. What the workers do is `_flows`'.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from napari_alibi_seg._base import ComputeError, SettingsError
from napari_alibi_seg._distributed._units import ONE_GPU

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["open_cluster"]

_logger = logging.getLogger(__name__)

_CONNECT_S = 15
# A unit is given up when so many workers died of it, not when some were shot.
_ALLOWED_DEATHS = 10
# One thread each: cores are filled with processes, and sums are split in one way only.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "DASK_LOGGING__DISTRIBUTED": "critical",
}


@contextmanager
def open_cluster(
    workers: int | None = None, scheduler: str | None = None, *, device: str = "auto"
) -> Iterator[Client]:
    """Give a client of workers that are started here, or of a scheduler that runs.

    Parameters
    ----------
    workers : int, optional
        Processes to start on this machine, of one thread each. They end with the
        context.
    scheduler : str, optional
        Address of a dask scheduler, such as ``tcp://node7:8786``; its workers need this
        package, and the same files under the same names. They stay.
    device : str
        For `workers`: "cpu" for processes that see no GPU. With "auto" or "cuda" on a
        machine with CUDA GPUs every process gets a GPU of its own.

    Yields
    ------
    distributed.Client

    Raises
    ------
    SettingsError
        If dask.distributed is not installed, neither or both of `workers` and
        `scheduler` are given, or there are fewer GPUs than processes.
    ComputeError
        If no scheduler answers there.

    Notes
    -----
    In a script, call this under ``if __name__ == "__main__":``, because new processes
    import the script. A cluster of another kind needs no context: any
    ``distributed.Client`` will do, such as that of a `dask_jobqueue.SLURMCluster`.

    Examples
    --------
    >>> with open_cluster(workers=1, device="cpu") as client:  # doctest: +SKIP
    ...     client.submit(sum, [1, 2]).result()
    3
    """
    if (workers is None) == (scheduler is None):
        raise SettingsError(
            f"Give either `workers` or `scheduler`, got {workers!r} and {scheduler!r}."
        )
    if workers is not None and workers < 1:
        raise SettingsError(f"`workers` must be 1 or more, got {workers}.")
    _require_dask()
    with ExitStack() as stack:
        if scheduler is not None:
            client = _connected(scheduler)
            stack.callback(client.close)
        else:
            assert workers is not None
            client = stack.enter_context(_started(workers, device))
        yield client


def _require_dask() -> None:
    try:
        import distributed  # noqa: F401
    except ImportError as err:
        raise SettingsError(
            "Work on several processes or machines needs dask.distributed, which is "
            "not installed. Run: pip install 'napari-alibi-seg[cluster]'"
        ) from err


def _connected(address: str) -> Client:
    from distributed import Client

    try:
        client = Client(address, timeout=_CONNECT_S, set_as_default=False)
    except ValueError as err:
        raise SettingsError(
            f"`scheduler` must be an address such as tcp://host:8786, got {address!r} "
            f"({err})."
        ) from err
    except (OSError, TimeoutError) as err:
        raise ComputeError(
            f"No dask scheduler answers at {address!r} within {_CONNECT_S} s. Start "
            f"one with `dask scheduler`, or check the address."
        ) from err
    if not client.scheduler_info(n_workers=-1)["workers"]:
        _logger.warning("The scheduler %s has no worker yet; waiting for one.", address)
    return client


@contextmanager
def _started(n_workers: int, device: str) -> Iterator[Client]:
    """Start processes on this machine and stop them at the end."""
    import dask
    from distributed import Client, Nanny, Scheduler, SpecCluster

    specs = {
        k: {
            "cls": Nanny,
            "options": {
                "nthreads": 1,
                # memory is bounded by the tiles; a share of it is no limit to die of
                "memory_limit": None,
                "silence_logs": logging.CRITICAL,
                "preload": ["napari_alibi_seg._distributed._preload"],
                "dashboard": False,
                "env": seen,
            },
        }
        for k, seen in enumerate(_devices(n_workers, device))
    }
    scheduler = {
        "cls": Scheduler,
        "options": {
            "dashboard": False,
            # any free port: its usual one may be another program's
            "dashboard_address": "127.0.0.1:0",
            "host": "127.0.0.1",
            "port": 0,
        },
    }
    settings = {
        "distributed.scheduler.allowed-failures": _ALLOWED_DEATHS,
        # before a process imports what reads them
        "distributed.nanny.pre-spawn-environ": _ENVIRONMENT,
    }
    with _quiet(), dask.config.set(settings):
        cluster = SpecCluster(workers=specs, scheduler=scheduler, silence_logs=False)
        _logger.info("Started %d worker processes on this machine", n_workers)
        with cluster, Client(cluster, set_as_default=False) as client:
            yield client


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Dask's own remarks about workers that come and go out of our output."""
    logger = logging.getLogger("distributed")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _devices(n_workers: int, device: str) -> list[dict[str, Any]]:
    """Return what each process sees of the GPUs, as environment variables."""
    if device == "cpu":
        return [{"CUDA_VISIBLE_DEVICES": ""}] * n_workers
    from napari_alibi_seg.features import describe_devices  # imports torch

    n_gpus = sum(name.startswith("cuda") for name in describe_devices())
    if not n_gpus:
        return [{}] * n_workers
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")  # numbers, or names of GPUs
    ids = listed.split(",") if listed else [str(i) for i in range(n_gpus)]
    if device.startswith("cuda:"):
        ids = [_numbered(ids, device)]
    if n_workers > len(ids):
        raise SettingsError(
            f"Each process gets a GPU of its own: expected at most {len(ids)} workers, "
            f"got {n_workers}. Ask for fewer, or for the CPU with --device cpu."
        )
    return [{"CUDA_VISIBLE_DEVICES": ids[k], ONE_GPU: "1"} for k in range(n_workers)]


def _numbered(ids: list[str], device: str) -> str:
    """Return the GPU that is meant by ``cuda:<n>``."""
    number = device.removeprefix("cuda:")
    if not (number.isdecimal() and int(number) < len(ids)):
        raise SettingsError(
            f"Expected a GPU from cuda:0 to cuda:{len(ids) - 1}, got {device!r}. "
            f"`alibi-seg info` lists what is here."
        )
    return ids[int(number)]
