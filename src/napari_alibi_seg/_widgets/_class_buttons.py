"""The buttons below the table of classes, and the menus that two of them open.

They ask; what may be done with a class, and what becomes of its pixels, is left to
`_classes_panel`.
"""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Signal
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import QMenu, QPushButton, QVBoxLayout, QWidget

from napari_alibi_seg._widgets._hooks import on_gui
from napari_alibi_seg._widgets._parts import button, row
from napari_alibi_seg._workspace import ClassEntry

__all__ = ["ClassButtons"]


class ClassButtons(QWidget):
    """Two rows of buttons.

    Attributes
    ----------
    add_wanted, delete_wanted : Signal()
        Add a class; delete the picked one.
    merge_wanted : Signal(int, int)
        Make the first class, by id, part of the second.
    import_wanted, export_wanted : Signal()
        Read or write names, colours and weights.
    layer_wanted, mask_wanted, mask_export_wanted : Signal()
        Take scribbles from a Labels layer or a mask file; save them as one.
    """

    add_wanted = Signal()
    delete_wanted = Signal()
    merge_wanted = Signal(int, int)
    import_wanted = Signal()
    export_wanted = Signal()
    layer_wanted = Signal()
    mask_wanted = Signal()
    mask_export_wanted = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._entries: tuple[ClassEntry, ...] = ()
        self._picked: int | None = None
        self._make_first()
        self._make_second()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(row(self.add_button, self.delete_button, self.merge_button))
        layout.addWidget(
            row(self.import_button, self.export_button, self.scribbles_button)
        )

    def show_state(self, entries: Sequence[ClassEntry], picked: int | None) -> None:
        """Offer what can be done with these classes, one of which may be picked."""
        self._entries, self._picked = tuple(entries), picked
        self.delete_button.setEnabled(picked is not None)
        self.merge_button.setEnabled(picked is not None and len(entries) > 1)
        self.export_button.setEnabled(len(entries) > 0)

    def _make_first(self) -> None:
        self.add_button = button(
            "Add", "Add a class and type its name", self.add_wanted.emit
        )
        self.delete_button = button(
            "Delete",
            "Delete the picked class, and its painted pixels with it",
            self.delete_wanted.emit,
        )
        self.merge_button, self.merge_menu = _menu_button(
            "Merge",
            "Make one class of the picked one and another, whose name and colour stay",
        )
        self.merge_menu.aboutToShow.connect(self._fill_merge_menu)

    def _make_second(self) -> None:
        self.import_button = button(
            "Import",
            "Read names, colours and weights from a file. Classes that it does not "
            "name stay.",
            self.import_wanted.emit,
        )
        self.export_button = button(
            "Export", "Write ids, names, colours and weights", self.export_wanted.emit
        )
        self.scribbles_button, self.scribbles_menu = _menu_button(
            "Scribbles", "Take scribbles from a layer or a file, or save them"
        )
        menu = self.scribbles_menu
        menu.setToolTipsVisible(True)
        for text, tip, wanted in (
            (
                "Use a Labels layer as scribbles...",
                "Classes are added for ids that have none",
                self.layer_wanted,
            ),
            (
                "Use a mask file as scribbles...",
                "A file of class ids, as large as the image",
                self.mask_wanted,
            ),
            (
                "Save scribbles as mask...",
                "A file of class ids, which can be read back",
                self.mask_export_wanted,
            ),
        ):
            action = menu.addAction(text)
            action.setToolTip(tip)
            action.triggered.connect(lambda _checked=False, ask=wanted: ask.emit())

    @on_gui
    def _fill_merge_menu(self) -> None:
        self.merge_menu.clear()
        source = self._picked
        for entry in self._entries:
            if source is None or entry.id == source:
                continue
            # && is how Qt writes &
            action = self.merge_menu.addAction(entry.name.replace("&", "&&"))
            action.setIcon(_icon(entry.colour))
            action.triggered.connect(
                lambda _checked=False, target=entry.id: self.merge_wanted.emit(
                    source, target
                )
            )


def _menu_button(text: str, tip: str) -> tuple[QPushButton, QMenu]:
    made = button(text, tip)
    menu = QMenu(made)
    made.setMenu(menu)
    return made, menu


def _icon(colour: str) -> QIcon:
    pixmap = QPixmap(16, 16)
    pixmap.fill(QColor(colour))
    return QIcon(pixmap)
