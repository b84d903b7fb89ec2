"""The record of a batch: one row a file in the manifest, one in the summary.

The manifest is JSON lines. A row is appended as soon as a file's outputs are complete
or the file failed, so a kill loses no finished file; at the end of a run rows are
sorted by output, so that two runs differ in `seconds` alone. Rows say what an output
was made from and what it must look like; only this module knows how they are spelt.
"""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_alibi_seg._base import OutputError
from napari_alibi_seg.data import write_text_atomic

__all__ = ["MANIFEST_NAME", "SUMMARY_NAME", "FileResult", "Manifest", "write_summary"]

_logger = logging.getLogger(__name__)

MANIFEST_NAME = "alibi-seg-manifest.jsonl"
SUMMARY_NAME = "summary.csv"


@dataclass(frozen=True, slots=True)
class FileResult:
    """What became of one input.

    Attributes
    ----------
    file, output : str
        Input and label image.
    status : {"done", "skipped", "failed"}
        Skipped means that the outputs were there already, made the same way.
    error : str
        Message, empty unless failed.
    pixels : int
        Of the image.
    seconds : float
        Spent on this file.
    fractions : dict of int to float
        Area fraction by id.
    """

    file: str
    output: str
    status: str
    error: str = ""
    pixels: int = 0
    seconds: float = 0.0
    fractions: dict[int, float] = field(default_factory=dict)


class Manifest:
    """Rows of a manifest; of an output the last one counts.

    Attributes
    ----------
    path : Path
        The file.
    entries : dict of str to dict
        The last row of each output that was made, by the name of its label image.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[str, dict[str, Any]] = {}
        self._failed: dict[str, dict[str, Any]] = {}
        self._is_sorted = True
        if path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            for line in text.splitlines():
                # a line cut off by a kill is as if it had not been written
                row = _row(line)
                if row is None:
                    _logger.info("Unreadable line in %s left out", path)
                else:
                    self._keep(row)

    def outputs(self) -> set[str]:
        """Return the names of all files that were written."""
        return {name for entry in self.entries.values() for name in entry["outputs"]}

    def add(self, row: dict[str, Any]) -> None:
        """Append the row of a file that is done or that failed.

        Raises
        ------
        OutputError
            If the manifest cannot be written.
        """
        line = _line(row)
        try:
            with self.path.open("a+b") as file:
                # what a kill left of a line must not swallow this one
                if file.tell() and not _ends_line(file):
                    line = "\n" + line
                file.write(line.encode())
        except OSError as err:
            raise OutputError(
                f"Cannot append to the manifest {self.path}: {err.strerror or err}."
            ) from err
        self._keep(row)
        self._is_sorted = False

    def forgive(self, output: str) -> None:
        """Drop the failure of an output that is as it should be after all."""
        if self._failed.pop(output, None) is not None:
            self._is_sorted = False

    def sort(self) -> None:
        """Write the rows that count, by output; a row that was replaced goes."""
        if self._is_sorted:
            return
        names = sorted({*self.entries, *self._failed})
        kept = (self.entries, self._failed)
        rows = [rows[name] for name in names for rows in kept if name in rows]
        write_text_atomic(self.path, "".join(map(_line, rows)))
        self._is_sorted = True

    def _keep(self, row: dict[str, Any]) -> None:
        name = row["output"]
        if row.get("status", "done") == "done":
            self.entries[name] = row
            self._failed.pop(name, None)
        else:
            # what was made before is still there
            self._failed[name] = row


def _ends_line(file: Any) -> bool:
    file.seek(-1, io.SEEK_END)
    return bool(file.read(1) == b"\n")


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, sort_keys=True, ensure_ascii=False) + "\n"


def _row(line: str) -> dict[str, Any] | None:
    """Return a row of the manifest, or None if it is not one of ours."""
    try:
        row = json.loads(line)
        shares = {str(int(k)): float(v) for k, v in row["fractions"].items()}
        return {
            **row,
            "output": str(row["output"]),
            "outputs": dict(row["outputs"]),
            "recipe": dict(row["recipe"]),
            "pixels": int(row["pixels"]),
            "fractions": shares,
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def write_summary(path: Path, results: Sequence[FileResult]) -> None:
    """Write one CSV row a file: status, error, pixels, seconds, area fractions."""
    ids = sorted({i for r in results for i in r.fractions})
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    head = ["file", "output", "status", "error", "pixels", "seconds"]
    table.writerow([*head, *(f"fraction_{i}" for i in ids)])
    for r in results:
        shares = [f"{r.fractions[i]:.6f}" if i in r.fractions else "" for i in ids]
        output = r.output if r.status != "failed" else ""
        row = [r.file, output, r.status, r.error, r.pixels, f"{r.seconds:.3f}"]
        table.writerow([*row, *shares])
    write_text_atomic(path, text.getvalue())
