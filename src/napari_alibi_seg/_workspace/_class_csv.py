"""Classes as CSV: id, name, colour, weight.

Only this module knows what such a file looks like: UTF-8, a header line, columns in
any order, commas or semicolons (spreadsheets of some countries write these). Every
complaint names the line. What makes a class valid is left to `ClassEntry`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from napari_alibi_seg._base import SettingsError, validated
from napari_alibi_seg._segmenter import class_colour
from napari_alibi_seg._workspace._classes import ClassEntry
from napari_alibi_seg.data import write_text_atomic

if TYPE_CHECKING:
    import os

__all__ = ["parse_classes", "read_classes", "write_classes"]

_PathLike: TypeAlias = "str | os.PathLike[str]"

_COLUMNS = ("id", "name", "colour", "weight")
_REQUIRED = ("id", "name")
_ALSO = {"color": "colour"}


def write_classes(path: _PathLike, entries: Iterable[ClassEntry]) -> None:
    """Write classes to a CSV file; an existing one is replaced.

    Parameters
    ----------
    path : path
        The file.
    entries : iterable of ClassEntry
        In the order wanted, for example a `ClassTable`.

    Raises
    ------
    OutputError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "classes.csv"
    ...     write_classes(path, [ClassEntry(id=3, name="pore", colour="#0072b2")])
    ...     path.read_text().splitlines()
    ['id,name,colour,weight', '3,pore,#0072b2,1.0']
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_COLUMNS)
    for e in entries:
        table.writerow([e.id, e.name, e.colour, repr(e.weight)])
    write_text_atomic(path, text.getvalue())


def read_classes(path: _PathLike) -> tuple[ClassEntry, ...]:
    r"""Read classes from a CSV file.

    Raises
    ------
    SettingsError
        If the file cannot be read, or a line of it is wrong; see `parse_classes`.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "classes.csv"
    ...     _ = path.write_text("name,id\npore,3\n")
    ...     read_classes(path)
    (ClassEntry(id=3, name='pore', colour='#009e73', weight=1.0),)
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as err:
        raise SettingsError(
            f"{path}: expected a CSV file in UTF-8, got byte {err.start} of another "
            "encoding. Save it as 'CSV UTF-8'."
        ) from err
    except OSError as err:
        raise SettingsError(
            f"{path}: expected a CSV file of classes, got {err.strerror or err}. "
            "Choose a file that can be read."
        ) from err
    return parse_classes(text, where=str(path))


def parse_classes(text: str, *, where: str = "classes") -> tuple[ClassEntry, ...]:
    r"""Read classes from the text of a CSV file.

    Parameters
    ----------
    text : str
        A header with at least id and name, and a line a class. An absent or empty
        colour or weight gets its default.
    where : str
        For messages.

    Returns
    -------
    tuple of ClassEntry
        In the order of the lines.

    Raises
    ------
    SettingsError
        For unknown or missing columns, a value out of range, an id or name that
        occurs twice, or no class at all.

    Examples
    --------
    >>> parse_classes("id;name;weight\n7;grain;2.5\n")[0].weight
    2.5
    """
    delimiter = ";" if ";" in text.partition("\n")[0] else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    entries: list[ClassEntry] = []
    seen: dict[int | str, int] = {}
    try:
        columns = _header(next(reader, []), where)
        for cells in reader:
            if any(c.strip() for c in cells):
                here = f"{where}, line {reader.line_num}"
                entry = _line(columns, cells, here)
                for key in (entry.id, entry.name):
                    _check_new(key, seen, here)
                    seen[key] = reader.line_num
                entries.append(entry)
    except csv.Error as err:
        raise SettingsError(
            f"{where}, line {reader.line_num}: expected CSV, got a line that is not "
            f"({err}). Check its quotes."
        ) from err
    if not entries:
        raise SettingsError(
            f"{where}: expected a line for each class below the header, got none."
        )
    return tuple(entries)


def _header(cells: list[str], where: str) -> list[str]:
    names = [c.strip().lower() for c in cells]
    columns = [_ALSO.get(n, n) for n in names]
    good = set(_REQUIRED) <= set(columns) <= set(_COLUMNS)
    if not good or len(set(columns)) < len(columns):
        raise SettingsError(
            f"{where}, line 1: expected the columns {', '.join(_COLUMNS)} in any order "
            f"(colour and weight may be left out), got {cells!r}. Mend the header."
        )
    return columns


def _line(columns: list[str], cells: list[str], where: str) -> ClassEntry:
    if len(cells) != len(columns):
        raise SettingsError(
            f"{where}: expected {len(columns)} values ({', '.join(columns)}), got "
            f"{len(cells)}. Put names that hold the separator in double quotes."
        )
    pairs = zip(columns, map(str.strip, cells), strict=True)
    values: dict[str, str] = {c: v for c, v in pairs if v or c in _REQUIRED}
    is_number = values["id"].isdecimal() and len(values["id"]) < 10
    number = int(values["id"]) if is_number else 0
    values.setdefault("colour", class_colour(max(1, number)))
    try:
        return validated(ClassEntry, values)
    except SettingsError as err:
        raise SettingsError(f"{where}: {err}") from err


def _check_new(key: int | str, seen: dict[int | str, int], where: str) -> None:
    if key in seen:
        raise SettingsError(
            f"{where}: expected each id and each name once, got {key!r} again (it is "
            f"in line {seen[key]}). Change one of them."
        )
