"""Mouse and keys on the dock's controls, and answers to the dialogs that they open.

`driver` paints on the canvas; this module presses buttons, types into fields, picks
from lists and fills in Qt's own file and colour dialogs, as a user does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from qtpy.QtCore import QPoint, QRect, Qt, QTimer
from qtpy.QtTest import QTest
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QApplication,
    QCheckBox,
    QColorDialog,
    QComboBox,
    QDialogButtonBox,
    QFileDialog,
    QLineEdit,
    QScrollArea,
    QTabBar,
    QWidget,
)
from widgets.driver import LEFT, spin, wait_until

from napari_alibi_seg._widgets._parts import Section

_ASK_MS = 30
_TRIES = 2000  # a minute: dialogs of a computer that does other things too


def bring(widget: QWidget) -> None:
    """Scroll the dock until a widget can be clicked."""
    parent = widget.parentWidget()
    while parent is not None:
        if isinstance(parent, QScrollArea):
            parent.ensureWidgetVisible(widget)
        parent = parent.parentWidget()
    spin(0.02)
    assert widget.isVisible(), f"{widget!r} is not shown"


def press(button: QAbstractButton) -> None:
    """Click a button, or a box where its tick is."""
    bring(button)
    assert button.isEnabled(), f"{button.text()!r} cannot be pressed"
    where = button.rect().center()
    if isinstance(button, QCheckBox):
        where = QPoint(8, button.height() // 2)
    QTest.mouseClick(button, LEFT, pos=where)
    QApplication.processEvents()


def unfold(section: Section) -> None:
    """Open a section by its heading, if it is folded."""
    if section.body.isHidden():
        press(section.head)
    bring(section)


def turn_to(bar: QTabBar, index: int) -> None:
    """Click a tab."""
    QTest.mouseClick(bar, LEFT, pos=bar.tabRect(index).center())
    spin(0.05)


def click_cell(view: QAbstractItemView, row: int, column: int, *, twice=False) -> None:
    """Click a cell of a table."""
    bring(view)
    rect: QRect = view.visualRect(view.model().index(row, column))
    assert rect.isValid()
    QTest.mouseClick(view.viewport(), LEFT, pos=rect.center())
    if twice:
        QTest.mouseDClick(view.viewport(), LEFT, pos=rect.center())
    QApplication.processEvents()


def write(field: QWidget, text: str) -> None:
    """Click into a field, replace what it holds and press Enter."""
    bring(field)
    edit = field if isinstance(field, QLineEdit) else field.findChild(QLineEdit)
    QTest.mouseClick(edit, LEFT, pos=QPoint(6, edit.height() // 2))
    QTest.keyClick(edit, Qt.Key.Key_A, Qt.KeyboardModifier.ControlModifier)
    QTest.keyClicks(edit, text)
    QTest.keyClick(edit, Qt.Key.Key_Return)
    QApplication.processEvents()


def name_row(view: QAbstractItemView, text: str) -> None:
    """Type into the editor that is open in a table."""
    edit = view.viewport().findChild(QLineEdit)
    assert edit is not None, "no cell is being edited"
    edit.selectAll()
    QTest.keyClicks(edit, text)
    QTest.keyClick(edit, Qt.Key.Key_Return)
    spin(0.02)


def _values(combo: QComboBox) -> list[object]:
    return [combo.itemData(i) for i in range(combo.count())]


def pick(combo: QComboBox, value: object) -> None:
    """Open a list, go to a value with the arrow keys and take it with Enter."""
    bring(combo)
    wait_until(lambda: value in _values(combo), f"the choice {value!r}")
    view = combo.view()
    arrow = QPoint(combo.width() - 8, combo.height() // 2)

    def is_open() -> bool:
        if not view.isVisible():  # a window that becomes active closes lists
            QTest.mouseClick(combo, LEFT, pos=arrow)
        return view.isVisible()

    wait_until(is_open, "the list")
    QTest.keyClick(view, Qt.Key.Key_Home)
    for _ in range(_values(combo).index(value)):
        QTest.keyClick(view, Qt.Key.Key_Down)
    QTest.keyClick(view, Qt.Key.Key_Return)
    wait_until(lambda: not view.isVisible(), "the list is closed")
    assert combo.currentData() == value


@contextmanager
def answering(kind: type, answer: Callable[[QWidget], None]) -> Iterator[None]:
    """Answer the dialog that opens inside the block; close it if that was in vain."""
    answered: list[str] = []
    wrong: list[str] = []
    tries = 0

    def look() -> None:
        nonlocal tries
        tries += 1
        dialog = QApplication.activeModalWidget() or QApplication.activePopupWidget()
        if tries > _TRIES and dialog is not None:  # or the test would hang in it
            wrong.append(f"{dialog!r} stayed open")
            dialog.close()
        elif isinstance(dialog, kind) and not answered:
            answered.append(type(dialog).__name__)
            answer(dialog)

    timer = QTimer()
    timer.setInterval(_ASK_MS)
    timer.timeout.connect(look)
    # a desktop's own dialog could not be filled in from here
    attribute = Qt.ApplicationAttribute.AA_DontUseNativeDialogs
    QApplication.setAttribute(attribute, True)
    timer.start()
    try:
        yield
    finally:
        timer.stop()
        QApplication.setAttribute(attribute, False)
    assert answered, f"no {kind.__name__} came"
    assert not wrong, wrong


def _name_files(dialog: QWidget, paths: tuple[Path, ...]) -> None:
    """Paste names into a file dialog, as typing them has Qt complete each letter.

    Of several, none may be called like another file of the folder that it shows.
    """
    field = dialog.findChild(QLineEdit, "fileNameEdit")
    text = " ".join(f'"{p}"' for p in paths) if len(paths) > 1 else str(paths[0])
    QApplication.clipboard().setText(text)
    field.selectAll()
    QTest.keyClick(field, Qt.Key.Key_V, Qt.KeyboardModifier.ControlModifier)
    assert paths[-1].name in field.text(), field.text()

    def confirm() -> None:
        field.completer().popup().hide()
        (box,) = dialog.findChildren(QDialogButtonBox)
        (default,) = [b for b in box.buttons() if b.isDefault()]
        QTest.mouseClick(default, LEFT)

    # the popup of names that begin so comes a moment later, and takes the click
    QTimer.singleShot(_ASK_MS * 5, confirm)


def choose_files(button: QAbstractButton, *paths: Path) -> None:
    """Press a button and type names into the file dialog that it opens."""
    with answering(QFileDialog, lambda dialog: _name_files(dialog, paths)):
        press(button)


def choose_in_menu(button: QAbstractButton, words: str, path: Path) -> None:
    """Take an entry of a button's menu, and name the file it asks for.

    The menu itself is not opened: without a window manager an open menu now and then
    never gets the click, and holds up whatever comes after it.
    """
    (action,) = [a for a in button.menu().actions() if words in a.text()]
    assert button.isEnabled()
    assert action.isEnabled()
    with answering(QFileDialog, lambda dialog: _name_files(dialog, (path,))):
        action.trigger()


def choose_colour(view: QAbstractItemView, row: int, colour: str) -> None:
    """Click a swatch and type a colour into the dialog."""

    def answer(dialog: QWidget) -> None:
        fields = dialog.findChildren(QLineEdit)
        (field,) = [e for e in fields if e.text().startswith("#")]
        field.selectAll()
        QTest.keyClicks(field, colour)
        QTest.keyClick(field, Qt.Key.Key_Return)

    with answering(QColorDialog, answer):
        click_cell(view, row, 0)
