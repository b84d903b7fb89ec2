"""Arguments that say how many processes share the work; for `apply` and `features`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from napari_alibi_seg._base import SettingsError

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["add_cluster", "cluster"]


def add_cluster(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes on this machine, one for each GPU where there are some "
        "(default: this process; needs the extra `cluster`)",
    )
    where.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="of a dask scheduler whose workers do it, such as tcp://node7:8786",
    )
    where.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="of this process (default: all cores)",
    )


@contextmanager
def cluster(args: argparse.Namespace) -> Iterator[Client | None]:
    """Give the workers that the arguments ask for, None for this process."""
    if args.threads is not None and args.threads < 1:
        raise SettingsError(f"`--threads` must be 1 or more, got {args.threads}.")
    if args.workers is None and args.scheduler is None:
        yield None
        return
    from napari_alibi_seg._distributed import open_cluster

    with open_cluster(args.workers, args.scheduler, device=args.device) as client:
        yield client
