"""How a table of classes is drawn, picked from and edited: a swatch and a view.

Only this module knows the widths of the columns and what keys do in the table. What the
cells hold is `_class_rows`'.
"""

from __future__ import annotations

from qtpy.QtCore import QItemSelectionModel, QModelIndex, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QKeyEvent, QMouseEvent, QPainter, QPen
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QSizePolicy,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTableView,
    QWidget,
)

from napari_alibi_seg._widgets._class_rows import COLOUR, N_KEYS, NAME, ClassRows
from napari_alibi_seg._widgets._hooks import on_gui

__all__ = ["ClassView", "SwatchDelegate"]

_NUMBER_GAP = 6
_SWATCH_WIDTH = 26
_NAME_WIDTH = 48
# Rows shown without scrolling: the table grows with the classes between these.
_ROWS_SHOWN = (3, 9)


class SwatchDelegate(QStyledItemDelegate):
    """Draws the colour of a class, and on it the key that picks the class."""

    def paint(
        self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex
    ) -> None:
        colour = index.data(Qt.ItemDataRole.DecorationRole)
        # dark text on light colours, whatever the theme
        ink = QColor("black" if colour.lightnessF() > 0.45 else "white")
        side = min(option.rect.width(), option.rect.height()) - 6
        square = QRectF(0, 0, side, side)
        square.moveCenter(QRectF(option.rect).center())
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(option.palette.mid().color(), 1))
        painter.setBrush(colour)
        painter.drawRoundedRect(square, 3, 3)
        if index.row() < N_KEYS:
            painter.setPen(ink)
            painter.setFont(option.font)
            painter.drawText(square, Qt.AlignmentFlag.AlignCenter, str(index.row() + 1))
        painter.restore()


class ClassView(QTableView):
    """A table of classes, one row picked at a time, as high as its rows.

    Attributes
    ----------
    colour_wanted : Signal(int)
        Row whose swatch was clicked, or got Enter.
    key_pressed : Signal(int)
        A digit, 1 to 9, was typed while no cell was edited.
    picked_again : Signal(int)
        Row that was pressed although it was picked already.
    """

    colour_wanted = Signal(int)
    key_pressed = Signal(int)
    picked_again = Signal(int)

    def __init__(self, rows: ClassRows, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setModel(rows)
        self.setItemDelegateForColumn(COLOUR, SwatchDelegate(self))
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(
            QAbstractItemView.EditTrigger.DoubleClicked
            | QAbstractItemView.EditTrigger.EditKeyPressed
        )
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setTabKeyNavigation(False)
        self.setAccessibleName("Classes")
        policy = QSizePolicy.Policy
        self.setSizePolicy(policy.Expanding, policy.Preferred)
        self._size_columns()
        self.clicked.connect(self._clicked)

    def _size_columns(self) -> None:
        down = self.verticalHeader()
        down.hide()
        down.setDefaultSectionSize(self.fontMetrics().height() + 10)
        down.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        across = self.horizontalHeader()
        across.setMinimumSectionSize(_SWATCH_WIDTH)
        across.setHighlightSections(False)
        across.setSectionsClickable(False)
        across.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        across.setSectionResizeMode(COLOUR, QHeaderView.ResizeMode.Fixed)
        across.setSectionResizeMode(NAME, QHeaderView.ResizeMode.Stretch)
        across.resizeSection(COLOUR, _SWATCH_WIDTH)

    @property
    def picked_row(self) -> int | None:
        """The selected row."""
        rows = self.selectionModel().selectedRows()
        return rows[0].row() if rows else None

    def pick_row(self, row: int | None) -> None:
        """Select a row, or none."""
        if row is None:
            self.selectionModel().clear()
            return
        index = self.model().index(row, NAME)
        flag = QItemSelectionModel.SelectionFlag
        self.selectionModel().setCurrentIndex(index, flag.ClearAndSelect | flag.Rows)
        self.scrollTo(index)

    def edit_name(self, row: int) -> None:
        """Open the editor of a name."""
        self.edit(self.model().index(row, NAME))

    def sizeHint(self) -> QSize:
        few, many = _ROWS_SHOWN
        n_rows = min(max(few, self.model().rowCount()), many)
        height = n_rows * self.verticalHeader().defaultSectionSize()
        height += self.horizontalHeader().sizeHint().height() + 2 * self.frameWidth()
        return QSize(_SWATCH_WIDTH + 5 * _NAME_WIDTH, height)

    def minimumSizeHint(self) -> QSize:
        return QSize(_SWATCH_WIDTH + _NAME_WIDTH, self.sizeHint().height())

    def sizeHintForColumn(self, column: int) -> int:
        """Leave a gap between numbers, which else run into one another."""
        return super().sizeHintForColumn(column) + _NUMBER_GAP

    @on_gui
    def mousePressEvent(self, event: QMouseEvent) -> None:
        before = self.picked_row
        super().mousePressEvent(event)
        is_left = event.button() == Qt.MouseButton.LeftButton
        if is_left and before is not None and self.picked_row == before:
            self.picked_again.emit(before)

    @on_gui
    def keyPressEvent(self, event: QKeyEvent) -> None:
        key = event.key()
        plain = event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier
        has_none = plain == Qt.KeyboardModifier.NoModifier
        index = self.currentIndex()
        presses = (Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Space)
        if has_none and Qt.Key.Key_1 <= key <= Qt.Key.Key_9:
            self.key_pressed.emit(int(key - Qt.Key.Key_0))
        elif index.isValid() and index.column() == COLOUR and key in presses:
            self.colour_wanted.emit(index.row())
        elif event.text().isprintable() and event.text().strip():
            # Qt would search a row that begins so, and eat the shortcuts of the window
            event.ignore()
        else:
            super().keyPressEvent(event)

    # not timed: the colour dialog that follows is the user's time
    def _clicked(self, index: QModelIndex) -> None:
        if index.column() == COLOUR:
            self.colour_wanted.emit(index.row())
