"""The questions that the panel of classes asks in windows of their own."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtGui import QColor
from qtpy.QtWidgets import QColorDialog, QFileDialog, QMessageBox, QWidget

from napari_alibi_seg._widgets._dialogs import ask_save

__all__ = ["ClassDialogs"]


class ClassDialogs:
    """What the panel asks; tests give another.

    Parameters
    ----------
    parent : QWidget
        Over which they open.
    """

    def __init__(self, parent: QWidget) -> None:
        self._parent = parent

    def confirm(self, question: str) -> bool:
        """Ask whether to go on; No is the default."""
        yes, no = QMessageBox.StandardButton.Yes, QMessageBox.StandardButton.No
        title = "Delete a class"
        answer = QMessageBox.question(self._parent, title, question, yes | no, no)
        return bool(answer == yes)

    def colour(self, current: str, title: str) -> str | None:
        """Ask for a colour, ``#rrggbb``; None if cancelled."""
        chosen = QColorDialog.getColor(QColor(current), self._parent, title)
        return str(chosen.name()) if chosen.isValid() else None

    def open_file(self, title: str, kinds: str) -> Path | None:
        """Ask for an existing file; None if cancelled."""
        chosen, _ = QFileDialog.getOpenFileName(self._parent, title, "", kinds)
        return Path(chosen) if chosen else None

    def save_file(self, title: str, kinds: str, name: str) -> Path | None:
        """Ask for a file to write, first proposing `name`; None if cancelled."""
        return ask_save(self._parent, title, name, kinds)
