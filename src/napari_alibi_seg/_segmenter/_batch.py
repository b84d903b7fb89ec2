"""A trained segmenter applied to many files, one after the other in this process.

One generator again: it yields progress and one `FileResult` a file, and never stops
for a file that fails. A line is appended to the manifest as soon as a file's outputs
are complete, so an interrupted run goes on where it was. Files are skipped by content
(input, classifier, what was asked for, outputs), not by name. What is done with a file
is `_apply_file`'s, with a stack `_apply_stack`'s; the same steps shared by many
processes are another room's.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from napari_alibi_seg._base import AlibiSegError, OutputError
from napari_alibi_seg._segmenter._apply_file import failed_row
from napari_alibi_seg._segmenter._apply_stack import open_job
from napari_alibi_seg._segmenter._batch_task import BatchOptions, FileTask, Progress
from napari_alibi_seg._segmenter._handover import Handover, tidy
from napari_alibi_seg._segmenter._inputs import output_stems
from napari_alibi_seg._segmenter._manifest import (
    MANIFEST_NAME,
    SUMMARY_NAME,
    FileResult,
    Manifest,
    write_summary,
)
from napari_alibi_seg._segmenter._segmenter import Segmenter

__all__ = ["BatchRecord", "file_tasks", "iter_apply", "sentence"]

# The summary is written anew each time, so not after every one of thousands of files.
_SUMMARY_EVERY_S = 1.0


def iter_apply(
    segmenter: Segmenter,
    inputs: Sequence[Path],
    out: Path,
    options: BatchOptions | None = None,
) -> Iterator[Progress | FileResult]:
    """Segment files and write the results, one file after the other.

    Parameters
    ----------
    segmenter : Segmenter
        Loaded from a file, whose hash identifies it in the manifest.
    inputs : sequence of Path
        From `find_inputs`.
    out : Path
        Folder for the outputs; made if need be.
    options : BatchOptions, optional
        What to write.

    Yields
    ------
    Progress or FileResult
        One result per input, in order. `summary.csv` follows, a second late at most.

    Raises
    ------
    OutputError
        If the folder itself cannot be used.
    """
    tasks = file_tasks(inputs, out, options or BatchOptions())
    with BatchRecord(tasks, out) as record:
        for task in tasks:
            started = time.perf_counter()
            outcome = yield from _iter_file(segmenter, task, record.before(task))
            outcome["seconds"] = round(time.perf_counter() - started, 3)
            yield record.add(task, outcome)


def _iter_file(
    segmenter: Segmenter, task: FileTask, before: dict[str, Any] | None
) -> Any:
    """Do one file; return its row, or the outcome of a file that was skipped."""
    try:
        job = open_job(segmenter, task)
        done = job.begin(before)
        if done is not None:
            return done
        announcement = job.announcement(job.estimate())
        if announcement is not None:
            yield announcement
        yield from job.iter_features()
        yield from job.iter_predict()
        return job.finish(before)
    except (AlibiSegError, OSError, MemoryError) as err:
        # one file that is too large or on a failing disk; the others go on
        return failed_row(task, sentence(err))


def sentence(err: BaseException) -> str:
    """Return the message of an error in one line."""
    return " ".join(str(err).split()) or type(err).__name__


def file_tasks(
    inputs: Sequence[Path], out: Path, options: BatchOptions
) -> list[FileTask]:
    """Return one task an input, and make the folder for the outputs.

    Raises
    ------
    OutputError
        If the folder cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise OutputError(
            f"Cannot use {out} as output folder: {err.strerror or err}. Name a folder "
            f"that can be made or written."
        ) from err
    stems = output_stems(inputs)
    return [
        FileTask(path, out, stem, options)
        for path, stem in zip(inputs, stems, strict=True)
    ]


class BatchRecord:
    """Manifest and summary of a run; a context, at whose end both are in order.

    Parameters
    ----------
    tasks : sequence of FileTask
        The files of the run; the summary has their order.
    out : Path
        The folder, which exists.
    """

    def __init__(self, tasks: Sequence[FileTask], out: Path) -> None:
        self._out = out
        self._manifest = Manifest(out / MANIFEST_NAME)
        self._order = {task.output.name: k for k, task in enumerate(tasks)}
        self._results: dict[int, FileResult] = {}
        self._written_s = 0.0

    def __enter__(self) -> BatchRecord:
        return self

    def __exit__(self, *_: object) -> None:
        tidy(self._out)
        self._write_summary()
        self._manifest.sort()

    def before(self, task: FileTask) -> dict[str, Any] | None:
        """Return the row of an earlier run."""
        return self._manifest.entries.get(task.output.name)

    def add(self, task: FileTask, outcome: dict[str, Any]) -> FileResult:
        """Record what became of a file.

        Parameters
        ----------
        task : FileTask
            The file.
        outcome : dict
            Its row with `seconds`, or of a skipped file `status`, `pixels` and
            `fractions`.

        Raises
        ------
        OutputError
            If manifest or summary cannot be written.
        """
        if outcome["status"] == "skipped":
            self._manifest.forgive(task.output.name)
        else:
            self._manifest.add(outcome)
            if outcome["status"] == "done":
                Handover(self._out, task.stem).recorded()
        result = FileResult(
            str(task.path),
            task.output.name,
            outcome["status"],
            outcome.get("error", ""),
            outcome["pixels"],
            outcome["seconds"],
            {int(i): share for i, share in outcome["fractions"].items()},
        )
        self._results[self._order[task.output.name]] = result
        if time.monotonic() - self._written_s > _SUMMARY_EVERY_S:
            self._write_summary()
        return result

    def _write_summary(self) -> None:
        if self._results:
            rows = [self._results[k] for k in sorted(self._results)]
            write_summary(self._out / SUMMARY_NAME, rows)
        self._written_s = time.monotonic()
