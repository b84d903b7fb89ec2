"""The line for a terminal that does the same as the Batch tab."""

from __future__ import annotations

from qtpy.QtWidgets import QApplication, QPlainTextEdit

from napari_alibi_seg._widgets._hooks import on_gui

__all__ = ["CommandLine"]


class CommandLine(QPlainTextEdit):
    """Shows a command line, wrapped, and copies it in one piece."""

    def __init__(self) -> None:
        super().__init__()
        self._line = ""
        self.setReadOnly(True)
        self.setMaximumHeight(76)
        self.setToolTip("Typed in a terminal, this does the same as Run.")
        self.setPlaceholderText("The same for a terminal appears here.")

    def show_line(self, line: str) -> None:
        """Show a line; empty while there is nothing to run."""
        if line != self._line:  # a selection in it is kept
            self._line = line
            self.setPlainText(line)

    @on_gui
    def copy_line(self) -> None:
        """Put the line on the clipboard."""
        clipboard = QApplication.clipboard()
        if clipboard is not None:
            clipboard.setText(self._line)
