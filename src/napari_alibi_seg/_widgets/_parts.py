"""Small pieces that every panel is made of, so that all look alike at 320 px.

Colours and fonts are napari's theme's; nothing here sets any but the status colours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QFormLayout,
    QFrame,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_alibi_seg._widgets._hooks import on_gui

__all__ = ["Bar", "Hint", "Section", "button", "form", "row"]


class Bar(QProgressBar):
    """A progress bar that stands still and waits for its turn to be painted.

    Qt's own paints itself inside `setValue`, and runs to and fro while the end is not
    known. Beside a canvas each such painting composes the whole window anew: 20 to 70
    ms without a graphics card, on the thread that paints strokes.
    """

    def show_value(self, done: int, total: int, text: str = "") -> None:
        """Show how far the work is, and words; it stays empty if `total` is 0."""
        self.setUpdatesEnabled(False)
        self.setRange(0, max(total, 1))
        self.setValue(done if total else 0)
        self.setFormat(text)
        self.setUpdatesEnabled(True)


class Hint(QLabel):
    """A wrapped sentence: what to do next, or what was found; hidden when empty.

    Another sentence of the same height leaves the layout of the dock alone: Qt would
    lay out all widgets around it again and compose the window three times for it.
    """

    def __init__(self, text: str = "", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._is_untold = False
        self.setWordWrap(True)
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
        self.say(text)

    def say(self, text: str, *, is_error: bool = False) -> None:
        """Show a sentence, or nothing."""
        self._set_text(text)
        if not text:
            self.hide()
        elif self.parent() is not None:  # alone it would be a window for a moment
            self.show()
        self.setProperty("is_error", is_error)
        style = "color: #e5534b;" if is_error else ""
        if style != self.styleSheet():  # each time the whole style is worked out anew
            self.setStyleSheet(style)

    def _set_text(self, text: str) -> None:
        if not (text and self.isVisible()):
            self.setText(text)
            return
        before = self._heights()
        # a change of what is hidden is no matter to a layout; it is still painted
        hidden = Qt.WidgetAttribute.WA_WState_Hidden
        self.setAttribute(hidden, True)
        self.setText(text)
        self.setAttribute(hidden, False)
        self._is_untold = self._heights() == before
        if not self._is_untold:
            self.updateGeometry()

    def _heights(self) -> tuple[int, int]:
        """Return what a layout asks for: the height at this width, and at any."""
        return self.heightForWidth(self.width()), self.sizeHint().height()

    @on_gui
    def resizeEvent(self, event: Any) -> None:
        """Tell the layout of a text that may have another height at this width."""
        super().resizeEvent(event)
        if self._is_untold:
            self._is_untold = False
            self.updateGeometry()


class Section(QFrame):
    """A panel with a heading that folds it.

    Parameters
    ----------
    title : str
        Heading.
    body : QWidget
        What folds.
    is_open : bool
        At the start.
    """

    toggled = Signal(bool)

    def __init__(
        self,
        title: str,
        body: QWidget,
        *,
        is_open: bool = True,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.body = body
        self.head = QToolButton()
        self.head.setText(title)
        self.head.setCheckable(True)
        self.head.setChecked(is_open)
        self.head.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.head.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.head.setStyleSheet(
            "QToolButton { border: none; font-weight: bold; text-align: left; }"
        )
        self.head.toggled.connect(self.fold)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(self.head)
        layout.addWidget(body)
        self.fold(is_open)

    def fold(self, is_open: bool) -> None:
        """Show or hide the body."""
        arrow = Qt.ArrowType.DownArrow if is_open else Qt.ArrowType.RightArrow
        self.head.setArrowType(arrow)
        self.body.setVisible(is_open)
        if self.head.isChecked() != is_open:
            self.head.setChecked(is_open)
        self.toggled.emit(is_open)


def button(
    text: str, tip: str, pressed: Callable[[], Any] | None = None
) -> QPushButton:
    """Return a push button with a tooltip that may become narrow."""
    made = QPushButton(text)
    made.setToolTip(tip)
    made.setMinimumWidth(24)
    if pressed is not None:
        made.clicked.connect(lambda _checked=False: pressed())
    return made


def row(*widgets: QWidget, stretch: int | None = None) -> QWidget:
    """Return widgets side by side; the one numbered `stretch` takes the room."""
    made = QWidget()
    layout = QHBoxLayout(made)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(4)
    for i, widget in enumerate(widgets):
        layout.addWidget(widget, 1 if stretch in (None, i) else 0)
    return made


def form(parent: QWidget) -> QFormLayout:
    """Return a form layout whose fields shrink to a narrow dock."""
    layout = QFormLayout(parent)
    layout.setContentsMargins(6, 2, 2, 6)
    layout.setSpacing(4)
    layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    layout.setRowWrapPolicy(QFormLayout.RowWrapPolicy.DontWrapRows)
    return layout
