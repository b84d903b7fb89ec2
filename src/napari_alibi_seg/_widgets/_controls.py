"""Controls that panels share: a choice, a number, and a bar for long waits.

All are silent when a program sets them, and none is changed by a wheel that only meant
to scroll the dock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtGui import QPalette
from qtpy.QtWidgets import (
    QComboBox,
    QSizePolicy,
    QSpinBox,
    QStyle,
    QStyleOptionComboBox,
    QStylePainter,
    QVBoxLayout,
    QWidget,
)

from napari_alibi_seg._widgets._hooks import on_gui
from napari_alibi_seg._widgets._parts import Bar, Hint

__all__ = ["Choice", "Number", "Wait"]


class Choice(QComboBox):
    """A combo box of values that elides, so that it fits into any width.

    Parameters
    ----------
    tip : str
        What is chosen.
    rows : sequence of (value, text)
        As of `fill`.

    Attributes
    ----------
    picked : Signal(object)
        The value that the user picked, if it is another one.
    """

    picked = Signal(object)

    def __init__(self, tip: str, rows: Sequence[tuple[Any, str]] = ()) -> None:
        super().__init__()
        self._last: Any = None
        self._tip = tip
        policy = QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        self.setSizeAdjustPolicy(policy)
        self.setMinimumContentsLength(3)
        self.setMinimumWidth(44)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.fill(rows)
        # unlike the other signals of a combo box, this one is of the user alone
        self.activated.connect(self._tell)

    def fill(self, rows: Sequence[tuple[Any, str]], chosen: Any = None) -> None:
        """Replace the values; choose one, or the first if there is none such."""
        self.clear()
        for value, text in rows:
            self.addItem(text, value)
            tip = Qt.ItemDataRole.ToolTipRole
            self.setItemData(self.count() - 1, text, tip)
        self.choose(chosen)
        if self.currentIndex() < 0 and rows:
            self.choose(rows[0][0])

    def choose(self, value: Any) -> None:
        """Show a value as chosen; none if it is not among them."""
        at = [i for i in range(self.count()) if self.itemData(i) == value]
        self.setCurrentIndex(at[0] if at else -1)
        self._settle()

    @property
    def chosen(self) -> Any:
        """The value shown, None if there is none."""
        return self.currentData() if self.currentIndex() >= 0 else None

    @property
    def values(self) -> list[Any]:
        """All values, in order."""
        return [self.itemData(i) for i in range(self.count())]

    def _tell(self, _index: int) -> None:
        # not timed: a listener may ask for a file, and that time is the user's
        if self.chosen != self._last:
            self._settle()
            self.picked.emit(self.chosen)

    def _settle(self) -> None:
        self._last = self.chosen
        # the text may be elided
        self.setToolTip("\n".join(t for t in (self.currentText(), self._tip) if t))

    @on_gui
    def showPopup(self) -> None:
        """Open the list, as wide as its texts need."""
        view = self.view()
        room = view.verticalScrollBar().sizeHint().width() + 12
        width = min(view.sizeHintForColumn(0) + room, self.screen().size().width() // 2)
        view.setMinimumWidth(max(self.width(), width))
        super().showPopup()

    @on_gui
    def wheelEvent(self, event: Any) -> None:
        """Scroll the dock, unless the choice was clicked into."""
        if self.hasFocus():
            super().wheelEvent(event)
        else:
            event.ignore()

    @on_gui
    def paintEvent(self, event: Any) -> None:
        """Paint with the text elided; Qt would cut it."""
        if self.isEditable():
            super().paintEvent(event)
            return
        option = QStyleOptionComboBox()
        self.initStyleOption(option)
        style = self.style()
        kind = QStyle.ComplexControl.CC_ComboBox
        field = QStyle.SubControl.SC_ComboBoxEditField
        room = style.subControlRect(kind, option, field, self).width() - 2
        text = option.currentText
        if self.currentIndex() < 0:
            text = self.placeholderText()
            grey = self.palette().color(QPalette.ColorRole.PlaceholderText)
            option.palette.setColor(QPalette.ColorRole.ButtonText, grey)
        metrics = self.fontMetrics()
        option.currentText = metrics.elidedText(text, Qt.TextElideMode.ElideRight, room)
        painter = QStylePainter(self)
        painter.drawComplexControl(kind, option)
        painter.drawControl(QStyle.ControlElement.CE_ComboBoxLabel, option)
        painter.end()


class Number(QSpinBox):
    """A whole number that is told when it is typed to its end, not after each digit.

    Parameters
    ----------
    tip : str
        What it is.
    least, most : int
        Limits.
    lowest_text : str
        Shown in place of the lowest number.

    Attributes
    ----------
    picked : Signal(int)
        The user set another number.
    """

    picked = Signal(int)

    def __init__(
        self, tip: str, least: int, most: int, *, lowest_text: str = ""
    ) -> None:
        super().__init__()
        self.setKeyboardTracking(False)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setRange(least, most)
        self.setSpecialValueText(lowest_text)
        self.setToolTip(tip)
        self.valueChanged.connect(self.picked)

    def show_value(self, value: int) -> None:
        """Show a number silently."""
        with QSignalBlocker(self):
            self.setValue(value)

    @on_gui
    def wheelEvent(self, event: Any) -> None:
        """Scroll the dock, unless the number was clicked into."""
        if self.hasFocus():
            super().wheelEvent(event)
        else:
            event.ignore()


class Wait(QWidget):
    """A bar for a long wait with a sentence below; hidden when there is nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.bar = Bar()
        self.bar.setToolTip("How much of the work is done")
        self.note = Hint()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(self.bar)
        layout.addWidget(self.note)
        self.bar.hide()
        self.hide()

    def show_progress(
        self, done: int, total: int, seconds_left: float | None = None, text: str = ""
    ) -> None:
        """Show how far the work is; a `total` of 0 means that nobody knows yet."""
        left = "" if seconds_left is None else f", {time_text(seconds_left)} left"
        # the format is one of Qt's own, in which % has a meaning
        self.bar.show_value(done, total, f"{done} of {total}{left}" if total else "")
        self._show(text, is_running=True)

    def say(self, text: str, *, is_error: bool = False) -> None:
        """Take the bar away and leave a sentence, or nothing."""
        self._show(text, is_running=False, is_error=is_error)

    @property
    def is_running(self) -> bool:
        """Whether the bar is shown."""
        return not self.bar.isHidden()

    def _show(self, text: str, *, is_running: bool, is_error: bool = False) -> None:
        self.bar.setVisible(is_running)
        self.note.say(text, is_error=is_error)
        self.setVisible(is_running or bool(text))


def time_text(seconds: float) -> str:
    """Return a duration as people say it.

    Examples
    --------
    >>> time_text(7.2), time_text(185), time_text(9000)
    ('7 s', '3 min', '2.5 h')
    """
    if seconds < 59.5:
        return f"{max(seconds, 0):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5370 else f"{seconds / 3600:.1f} h"
