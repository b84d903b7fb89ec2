"""What a table of classes shows: a Qt model of five columns.

Only this module knows the columns and how their numbers are written. The truth stays in
the `ClassTable`: edits go there, and what it refuses is told in words. How cells are
drawn is left to `_class_view`, which row means what to the brush to `_classes_panel`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, QObject, Qt, Signal
from qtpy.QtGui import QColor

from napari_alibi_seg._base import AlibiSegError, SettingsError
from napari_alibi_seg._widgets._hooks import on_gui
from napari_alibi_seg._workspace import ClassEntry, ClassTable

__all__ = [
    "AREA",
    "COLOUR",
    "NAME",
    "N_KEYS",
    "PAINTED",
    "WEIGHT",
    "ClassRows",
    "area_text",
    "pixels_text",
]

COLOUR, NAME, PAINTED, WEIGHT, AREA = range(5)
N_KEYS = 9

_DASH = "–"
_HEADINGS = ("", "Name", "Painted", "Weight", "Area")
_TIPS = (
    "Colour, and the key that picks the class",
    "Name of the class; double-click to change it",
    "Pixels painted with the class",
    "Weight of its painted pixels in training; double-click to change it",
    "Share of the image predicted as this class",
)


def pixels_text(count: int) -> str:
    """Return a number of pixels in at most seven characters, up to ten thousand M.

    Examples
    --------
    >>> [pixels_text(n).replace(chr(0xA0), "_") for n in (0, 12345, 123456, 4194304)]
    ['0', '12_345', '123_k', '4.19_M']
    """
    if count < 100_000:
        text = f"{count:,}"
    elif count < 999_500:
        text = f"{count / 1e3:.0f} k"
    elif count < 99_995_000:
        text = f"{count / 1e6:.2f} M"
    else:
        text = f"{count / 1e6:.0f} M"
    # a blank at which no line breaks
    return text.replace(",", "\xa0").replace(" ", "\xa0")


def area_text(fraction: float | None) -> str:
    """Return an area fraction in percent; a dash when it is unknown.

    Examples
    --------
    >>> area_text(0.1234), area_text(0.0), area_text(0.0002), area_text(None)
    ('12.3 %', '0.0 %', '<0.1 %', '–')
    """
    if fraction is None:
        return _DASH
    if 0 < fraction < 0.0005:
        return "<0.1 %"
    return f"{100 * fraction:.1f} %"


def _name_from(text: str, before: str) -> str:
    if not text.strip():
        raise SettingsError(
            f"Expected a name for {before!r}, got none. Type one line of text."
        )
    return text


def _weight_from(text: str, name: str) -> float:
    wrong = SettingsError(
        f"Expected a number above 0 as the weight of {name!r}, got {text!r}. Type for "
        "example 2.5."
    )
    try:
        # a decimal comma is how half of Europe types it
        weight = float(text.strip().replace(",", "."))
    except ValueError as err:
        raise wrong from err
    if not 0 < weight < float("inf"):
        raise wrong
    return weight


class ClassRows(QAbstractTableModel):
    """A `ClassTable` as rows, with what was painted and predicted of each class.

    Parameters
    ----------
    table : ClassTable
        Where edits go. Whoever listens to its `changed` calls `refresh`.

    Attributes
    ----------
    edited : Signal()
        The user changed a cell.
    refused : Signal(str)
        The table did not take an edit; why, as a sentence. The cell keeps its value.
    """

    edited = Signal()
    refused = Signal(str)

    def __init__(self, table: ClassTable, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._table = table
        self._entries = table.entries
        self._counts: dict[int, int] = {}
        self._fractions: dict[int, float] = {}

    @property
    def entries(self) -> tuple[ClassEntry, ...]:
        """The classes as shown."""
        return self._entries

    def row_of(self, class_id: int | None) -> int | None:
        """Return the row of a class; None if it has none."""
        ids = [e.id for e in self._entries]
        return ids.index(class_id) if class_id in ids else None

    def painted(self, class_id: int) -> int:
        """Return the painted pixels of a class, as last told."""
        return self._counts.get(class_id, 0)

    def set_counts(self, counts: Mapping[int, int]) -> None:
        """Show painted pixels by class id; 0 for ids left out."""
        self._counts = dict(counts)
        self._touch(PAINTED)

    def set_fractions(self, fractions: Mapping[int, float]) -> None:
        """Show area fractions by class id, 0 to 1; unknown for ids left out."""
        self._fractions = dict(fractions)
        self._touch(AREA)

    def refresh(self) -> bool:
        """Show what the table holds now.

        Returns
        -------
        bool
            Whether rows came, went or moved; views have then lost their selection.
        """
        before, now = self._entries, self._table.entries
        if [e.id for e in before] == [e.id for e in now]:
            self._entries = now
            # only rows that differ, or an open editor elsewhere would lose its text
            for i, (old, new) in enumerate(zip(before, now, strict=True)):
                if old != new:
                    self.dataChanged.emit(self.index(i, COLOUR), self.index(i, AREA))
            return False
        self.beginResetModel()
        self._entries = now
        # the next class with an id that was used before begins with nothing
        self._counts = {i: n for i, n in self._counts.items() if i in self._table}
        self._fractions = {i: f for i, f in self._fractions.items() if i in self._table}
        self.endResetModel()
        return True

    def _touch(self, column: int) -> None:
        if self._entries:
            last = len(self._entries) - 1
            self.dataChanged.emit(self.index(0, column), self.index(last, column))

    # What follows is asked by Qt, under Qt's names.

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(self._entries)

    def columnCount(self, parent: QModelIndex | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(_HEADINGS)

    def headerData(
        self,
        section: int,
        orientation: Qt.Orientation,
        role: int = Qt.ItemDataRole.DisplayRole,
    ) -> Any:
        if orientation == Qt.Orientation.Horizontal:
            if role == Qt.ItemDataRole.DisplayRole:
                return _HEADINGS[section]
            if role == Qt.ItemDataRole.ToolTipRole:
                return _TIPS[section]
            if role == Qt.ItemDataRole.TextAlignmentRole:
                return _alignment(section)
        return None

    def flags(self, index: QModelIndex) -> Qt.ItemFlag:
        flags = super().flags(index)
        if index.column() in (NAME, WEIGHT):
            flags |= Qt.ItemFlag.ItemIsEditable
        return flags

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if not index.isValid():
            return None
        entry, column = self._entries[index.row()], index.column()
        if role == Qt.ItemDataRole.DisplayRole:
            return self._text(entry, column)
        if role == Qt.ItemDataRole.EditRole:
            # text also for the weight: Qt's own spin box would round it
            return f"{entry.weight:.15g}" if column == WEIGHT else entry.name
        if role == Qt.ItemDataRole.DecorationRole and column == COLOUR:
            return QColor(entry.colour)
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return _alignment(column)
        if role in (
            Qt.ItemDataRole.ToolTipRole,
            Qt.ItemDataRole.AccessibleDescriptionRole,
        ):
            return self._tip(entry, column, index.row())
        return None

    @on_gui
    def setData(
        self, index: QModelIndex, value: Any, role: int = Qt.ItemDataRole.EditRole
    ) -> bool:
        if role != Qt.ItemDataRole.EditRole or value == self.data(index, role):
            return False
        entry = self._entries[index.row()]
        try:
            if index.column() == NAME:
                self._table.rename(entry.id, _name_from(str(value), entry.name))
            else:
                weight = _weight_from(str(value), entry.name)
                self._table.set_weight(entry.id, weight)
        except AlibiSegError as err:
            self.refused.emit(str(err))
            return False
        self.edited.emit()
        return True

    def _text(self, entry: ClassEntry, column: int) -> str:
        if column == NAME:
            return entry.name
        if column == PAINTED:
            return pixels_text(self.painted(entry.id))
        if column == WEIGHT:
            return f"{entry.weight:.3g}"
        if column == AREA:
            return area_text(self._fractions.get(entry.id))
        return ""

    def _tip(self, entry: ClassEntry, column: int, row: int) -> str:
        if column == COLOUR:
            key = f"Key {row + 1} picks it. " if row < N_KEYS else ""
            return f"{entry.name}, {entry.colour}. {key}Click to change the colour."
        if column == NAME:
            return f"{entry.name} (id {entry.id}). Double-click to change the name."
        if column == PAINTED:
            return f"{self.painted(entry.id):,} pixels are painted as {entry.name}."
        if column == WEIGHT:
            return (
                f"Its painted pixels count {entry.weight:g} times in training. "
                "Double-click to change."
            )
        if entry.id not in self._fractions:
            return f"How much of the image is {entry.name}: known after training."
        percent = 100 * self._fractions[entry.id]
        return f"{percent:.4g} % of the image is predicted as {entry.name}."


def _alignment(column: int) -> Qt.AlignmentFlag:
    if column == COLOUR:
        return Qt.AlignmentFlag.AlignCenter
    side = Qt.AlignmentFlag.AlignLeft if column == NAME else Qt.AlignmentFlag.AlignRight
    return side | Qt.AlignmentFlag.AlignVCenter
