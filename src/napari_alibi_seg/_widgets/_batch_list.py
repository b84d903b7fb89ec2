"""The list of a batch: what was added, and what becomes of each file.

A row is a file or a folder; the images that a folder was found to hold become rows
below it. Knows how states are worded; what they mean is the batch's matter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from qtpy.QtCore import QModelIndex, Qt, Signal
from qtpy.QtGui import (
    QBrush,
    QColor,
    QDragEnterEvent,
    QDragMoveEvent,
    QDropEvent,
    QKeyEvent,
)
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTreeWidget,
    QTreeWidgetItem,
    QWidget,
)

from napari_alibi_seg._segmenter import FileResult, Progress
from napari_alibi_seg._widgets._hooks import on_gui

__all__ = ["BatchList"]

_FILE, _STATE, _MESSAGE = range(3)
_PATH = Qt.ItemDataRole.UserRole
_FAILED = QBrush(QColor("#e5534b"))
_SKIPPED = "Already done: the outputs are there, made the same way."
_LEFT_OUT = "Left out: an output of this program, or named twice."
_EMPTY = "No image lies in this folder."


class _Sentence(QStyledItemDelegate):
    """Cuts a text that is too long at its end."""

    def initStyleOption(self, option: QStyleOptionViewItem, index: QModelIndex) -> None:
        super().initStyleOption(option, index)
        option.textElideMode = Qt.TextElideMode.ElideRight


class BatchList(QTreeWidget):
    """Files and folders with their state.

    Attributes
    ----------
    dropped : Signal(object)
        Paths (list of Path) were dropped on the list.
    inputs_changed : Signal()
        The user removed rows.
    """

    dropped = Signal(object)
    inputs_changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._rows: dict[str, QTreeWidgetItem] = {}
        # files of each folder that have ended
        self._ended: Counter[str] = Counter()
        self.setHeaderLabels(["File", "State", "Message"])
        self.setToolTip(
            "Image files and folders. Drop some here. The Delete key removes the "
            "chosen rows."
        )
        self.setAcceptDrops(True)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        # names differ at their ends, sentences are read from the front
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.setItemDelegateForColumn(_MESSAGE, _Sentence(self))
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setRootIsDecorated(False)
        self.setIndentation(12)
        self.setUniformRowHeights(True)
        self.setMinimumHeight(110)
        head = self.header()
        head.setStretchLastSection(False)
        head.setMinimumSectionSize(40)
        head.setSectionResizeMode(_FILE, QHeaderView.ResizeMode.Stretch)
        # as wide as its widest word: measuring the contents of thousands of rows at
        # each change would hold up the window
        head.setSectionResizeMode(_STATE, QHeaderView.ResizeMode.Fixed)
        width = self.fontMetrics().horizontalAdvance("running 100 %")
        head.resizeSection(_STATE, width + 12)
        head.setSectionResizeMode(_MESSAGE, QHeaderView.ResizeMode.Stretch)

    def inputs(self) -> tuple[Path, ...]:
        """Return the files and folders that were added, in their order."""
        return tuple(_path_of(item) for item in self._top())

    def add(self, paths: Iterable[Path]) -> None:
        """Append those that are not there yet."""
        known, fresh = set(self.inputs()), []
        for path in (p.absolute() for p in paths):
            if path not in known:
                known.add(path)
                fresh.append(_row(path, path.name or str(path)))
        self.addTopLevelItems(fresh)

    def remove_chosen(self) -> None:
        """Remove the rows the user has chosen; a file of a folder stays."""
        for item in self.selectedItems():
            if item.parent() is None:
                self.takeTopLevelItem(self.indexOfTopLevelItem(item))
        self.inputs_changed.emit()

    def forget_states(self) -> None:
        """Take all states and the contents of folders away."""
        self._rows.clear()
        self._ended.clear()
        for item in self._top():
            item.takeChildren()
            _show(item)

    def show_found(self, files: Sequence[Path]) -> None:
        """Show the files that will be done; those of folders become rows."""
        self.forget_states()
        rows = {_path_of(item): item for item in self._top()}
        inside: dict[Path, list[QTreeWidgetItem]] = {}
        for path in files:
            row = rows.get(path)
            if row is None:
                folder = next(p for p in path.parents if p in rows)
                row = _row(path, str(path.relative_to(folder)))
                inside.setdefault(folder, []).append(row)
            self._rows[str(path)] = row
            _show(row, "waiting")
        for folder, children in inside.items():
            # at once: one by one, each would be laid out
            rows[folder].addChildren(children)
            rows[folder].setExpanded(True)
            rows[folder].setText(_STATE, f"0 of {len(children)}")
        for path, row in rows.items():
            if path not in inside and str(path) not in self._rows:
                _show(row, "left out", _EMPTY if path.is_dir() else _LEFT_OUT)
        self.setRootIsDecorated(bool(inside))

    def show_progress(self, progress: Progress) -> None:
        """Show how far the file at hand is."""
        percent = round(100 * progress.done / max(progress.total, 1))
        _show(self._rows[progress.file], f"running {percent} %", progress.stage)

    def show_result(self, result: FileResult) -> None:
        """Show what became of a file."""
        row = self._rows[result.file]
        # the row says already which file it was
        error = result.error.removeprefix(f"{result.file}: ")
        message = {"skipped": _SKIPPED, "failed": error}.get(result.status, "")
        _show(row, result.status, message or result.output)
        folder = row.parent()
        if folder is not None:
            self._ended[str(_path_of(folder))] += 1
            ended = self._ended[str(_path_of(folder))]
            folder.setText(_STATE, f"{ended} of {folder.childCount()}")

    def show_stopped(self, word: str) -> None:
        """Show that what has not ended will not."""
        for row in self._rows.values():
            if row.text(_STATE).split(" ")[0] in ("waiting", "running"):
                _show(row, word)

    def states(self) -> dict[str, str]:
        """Return the state of each file."""
        return {path: row.text(_STATE) for path, row in self._rows.items()}

    def message(self, item: QTreeWidgetItem | None) -> str:
        """Return the whole message of a row, after its name."""
        if item is None or not item.text(_MESSAGE):
            return ""
        return f"{item.text(_FILE)}: {item.text(_MESSAGE)}"

    def _top(self) -> list[QTreeWidgetItem]:
        items = (self.topLevelItem(i) for i in range(self.topLevelItemCount()))
        return [item for item in items if item is not None]

    # ------------------------------------------------------------------ Qt's own

    @on_gui
    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Remove rows with the Delete key."""
        if event.key() in (Qt.Key.Key_Delete, Qt.Key.Key_Backspace):
            if self.acceptDrops():
                self.remove_chosen()
            return
        super().keyPressEvent(event)

    @on_gui
    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        """Take local files."""
        _answer(event)

    @on_gui
    def dragMoveEvent(self, event: QDragMoveEvent) -> None:
        """Take local files, wherever they are held over the list."""
        _answer(event)

    @on_gui
    def dropEvent(self, event: QDropEvent) -> None:
        """Hand dropped files on."""
        if paths := _local_files(event):
            event.acceptProposedAction()
            self.dropped.emit(paths)


def _row(path: Path, text: str) -> QTreeWidgetItem:
    item = QTreeWidgetItem([text, "", ""])
    item.setData(_FILE, _PATH, str(path))
    item.setToolTip(_FILE, str(path))
    return item


def _path_of(item: QTreeWidgetItem) -> Path:
    return Path(item.data(_FILE, _PATH))


def _show(item: QTreeWidgetItem, state: str = "", message: str = "") -> None:
    item.setText(_STATE, state)
    if message == item.text(_MESSAGE):
        return
    item.setText(_MESSAGE, message)
    # None takes a colour away that was set before
    brush = _FAILED if state == "failed" else None
    for column in (_STATE, _MESSAGE):
        item.setToolTip(column, message)
        item.setData(column, Qt.ItemDataRole.ForegroundRole, brush)


def _local_files(event: QDropEvent) -> list[Path]:
    data = event.mimeData()
    urls = data.urls() if data is not None else []
    return [Path(url.toLocalFile()) for url in urls if url.isLocalFile()]


def _answer(event: QDropEvent) -> None:
    if _local_files(event):
        event.acceptProposedAction()
    else:
        event.ignore()
