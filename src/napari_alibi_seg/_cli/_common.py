"""What every command shares: arguments, progress, machine-readable output, errors.

Messages and progress go to stderr, results to stdout; with ``--json`` stdout holds
exactly one JSON object. No command catches errors itself: `run` turns them into exit
codes.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from napari_alibi_seg._base import AlibiSegError, AlibiSegWarning, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "EXIT_FAILED",
    "EXIT_INTERRUPTED",
    "EXIT_OK",
    "EXIT_USAGE",
    "TileBar",
    "add_json",
    "add_store",
    "emit",
    "note",
    "run",
    "store_folder",
]

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

_logger = logging.getLogger(__name__)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object on stdout"
    )


def add_store(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say where features are kept."""
    parser.add_argument(
        "--store",
        type=Path,
        metavar="DIR",
        help="folder of feature stores, or one store ending in .zarr (default: a "
        "folder in the user's cache; see `alibi-seg info`)",
    )
    parser.add_argument(
        "--device",
        default="auto",
        help="where the ViT runs: auto, cpu, cuda, cuda:N or mps (default: auto)",
    )


def store_folder(args: argparse.Namespace) -> Path:
    """Return the folder of stores that the arguments ask for."""
    from napari_alibi_seg.data import cache_dir

    return args.store or cache_dir() / "features"


def note(text: str) -> None:
    """Tell the user something that is not a result."""
    # goes through tqdm so that a bar on the same terminal stays whole
    tqdm.write(text, file=sys.stderr)


def emit(args: argparse.Namespace, result: dict[str, Any], text: str) -> None:
    """Print the result: JSON if asked for, else text."""
    if args.json:
        print(json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False))
    elif text:
        print(text)


class TileBar:
    """A bar with time left on stderr, when that is a terminal.

    Feed it (stage, done, total); it starts anew when the stage changes.
    """

    def __init__(self, label: str = "", unit: str = "tile") -> None:
        self._label = label
        self._unit = unit
        self._stage: str | None = None
        self._bar: tqdm[Any] | None = None

    def __enter__(self) -> TileBar:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def show(self, stage: str, done: int, total: int) -> None:
        """Move the bar."""
        if stage != self._stage:
            self._close()
            self._stage = stage
            self._bar = tqdm(
                total=total,
                # tiles that were stored before must not count as speed
                initial=done - 1,
                desc=f"{self._label}{stage}",
                unit=self._unit,
                disable=not sys.stderr.isatty(),
                leave=False,
                file=sys.stderr,
            )
        assert self._bar is not None
        self._bar.update(done - self._bar.n)

    def follow(self, stage: str, steps: Iterator[Any]) -> None:
        """Run a generator of steps with `done` and `total` to its end."""
        for step in steps:
            self.show(stage, step.done, step.total)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _warn(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if issubclass(category, AlibiSegWarning):
        note(f"Warning: {message}")
    else:
        _logger.info("%s: %s", category.__name__, message)


def run(command: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Run a command and turn what it raises into a message and an exit code."""
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = _warn
        try:
            return command(args)
        except KeyboardInterrupt:
            note("Interrupted. What was finished is kept; run again to go on.")
            return EXIT_INTERRUPTED
        except BrokenPipeError:
            # the reader of our output (head, less) went away
            sys.stderr.close()
            return EXIT_OK
        except SettingsError as err:
            return _fail(args, err, EXIT_USAGE)
        except AlibiSegError as err:
            return _fail(args, err, EXIT_FAILED)
        except (OSError, MemoryError) as err:
            return _fail(args, err, EXIT_FAILED)


def _fail(args: argparse.Namespace, err: BaseException, code: int) -> int:
    message = " ".join(str(err).split()) or type(err).__name__
    note(f"Error: {message}")
    if getattr(args, "json", False):
        print(json.dumps({"error": message, "kind": type(err).__name__}))
    return code
