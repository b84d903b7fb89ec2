"""What tests of panels do with them, by mouse and keys."""

from __future__ import annotations

from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QApplication

LEFT = Qt.MouseButton.LeftButton


def heard(signal):
    """Collect what a signal says."""
    said = []
    signal.connect(
        lambda *args: said.append(args[0] if len(args) == 1 else args or None)
    )
    return said


def shown(qtbot, widget):
    qtbot.addWidget(widget)
    widget.resize(320, 400)
    with qtbot.waitExposed(widget):
        widget.show()
    return widget


def pick(qtbot, choice, text):
    """Pick by mouse: open the list and click on a row."""
    # a click that comes with the opening is taken for its end
    before = QApplication.doubleClickInterval()
    QApplication.setDoubleClickInterval(20)
    qtbot.mouseClick(choice, LEFT)
    QApplication.setDoubleClickInterval(before)
    view = choice.view()
    qtbot.waitUntil(view.isVisible, timeout=60_000)
    index = choice.model().index(choice.findText(text), choice.modelColumn())
    assert index.isValid(), text
    qtbot.wait(40)
    qtbot.mouseClick(view.viewport(), LEFT, pos=view.visualRect(index).center())


def walk_to(qtbot, choice, text):
    """Pick by the arrow keys; the first step may be to it."""
    to = choice.findText(text)
    assert to >= 0, text
    choice.setFocus()
    step = Qt.Key.Key_Down if to > choice.currentIndex() else Qt.Key.Key_Up
    for _ in range(abs(to - choice.currentIndex())):
        qtbot.keyClick(choice, step)


def click_box(qtbot, box):
    qtbot.mouseClick(box, LEFT, pos=QPoint(8, box.height() // 2))
