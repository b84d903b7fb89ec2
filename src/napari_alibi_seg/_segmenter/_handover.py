"""From computed to recorded: outputs take their names so that no kill loses track.

Outputs are made under names nobody looks at; then a note says what they are, then they
take their final names, then the manifest has a row, then the note goes. A kill between
two of these leaves what is needed to go on, so no output is ever without a record that
vouches for it. Everything lies in one hidden folder beside the outputs, which is on
their disk and is no input.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from napari_alibi_seg._base import OutputError
from napari_alibi_seg.data import insist, write_text_atomic

__all__ = ["UNFINISHED_FOLDER", "Handover", "content_digest", "tidy"]

UNFINISHED_FOLDER = ".alibi-seg-unfinished"


class Handover:
    """The outputs of one image between being computed and being recorded.

    Parameters
    ----------
    out : Path
        Folder of the outputs.
    stem : str
        What their names begin with.
    """

    def __init__(self, out: Path, stem: str) -> None:
        self._folder = out / UNFINISHED_FOLDER
        self._staging = self._folder / f"{stem}.outputs"
        self._note = self._folder / f"{stem}.json"

    def row(self) -> dict[str, Any] | None:
        """Return the row of outputs that were made, until it is recorded."""
        try:
            row = json.loads(self._note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        has_all = isinstance(row, dict) and {"recipe", "outputs"} <= row.keys()
        return row if has_all else None

    def staged(self, targets: Mapping[str, Path]) -> dict[str, Path]:
        """Return where the output of each kind is made; the folder is there."""
        try:
            self._note.unlink(missing_ok=True)
            insist(lambda: self._staging.mkdir(parents=True, exist_ok=True))
        except OSError as err:
            raise OutputError(
                f"Cannot use {self._folder}: {err.strerror or err}. Choose an output "
                f"folder that can be written."
            ) from err
        return {kind: self._staging / path.name for kind, path in targets.items()}

    def write_row(self, row: dict[str, Any]) -> None:
        """Note what the outputs are, before they take their names."""
        write_text_atomic(self._note, json.dumps(row, sort_keys=True))

    def give_names(self, targets: Mapping[str, Path]) -> None:
        """Move what was made to its final name, over what is there.

        Raises
        ------
        OutputError
            If the disk refuses.
        """
        for target in targets.values():
            made = self._staging / target.name
            if not made.exists():
                continue  # has its name already
            try:
                if target.is_dir():
                    shutil.rmtree(target)
                made.replace(target)
            except OSError as err:
                raise OutputError(
                    f"Cannot write {target}: {err.strerror or err}. Nothing is lost; "
                    f"run again when it can be written."
                ) from err
        shutil.rmtree(self._staging, ignore_errors=True)

    def recorded(self) -> None:
        """Drop the note."""
        self._note.unlink(missing_ok=True)


def tidy(out: Path) -> None:
    """Delete the folder of what is unfinished if nothing is in it; at a run's end.

    Not before: workers may be about to use it.
    """
    with suppress(OSError):
        (out / UNFINISHED_FOLDER).rmdir()


def content_digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's files and their names."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    total = hashlib.sha256()
    for inner in sorted(p for p in path.rglob("*") if p.is_file()):
        total.update(inner.relative_to(path).as_posix().encode() + b"\0")
        total.update(bytes.fromhex(content_digest(inner)))
    return total.hexdigest()
