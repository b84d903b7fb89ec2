"""The panel of classes and scribbles.

A view of a `ClassTable`: it edits the table, says which class the brush shall paint,
and asks for scribbles to come from or go to somewhere else. It knows neither layers nor
pixels: repainting after a deletion or a merge, and reading and writing masks, is left
to whoever listens. What rows hold is `_class_rows`', how they look `_class_view`'s.

The table must be changed on the GUI thread only, as it tells the panel at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_alibi_seg._base import AlibiSegError
from napari_alibi_seg._segmenter import ClassInfo
from napari_alibi_seg._widgets._class_buttons import ClassButtons
from napari_alibi_seg._widgets._class_dialogs import ClassDialogs
from napari_alibi_seg._widgets._class_rows import N_KEYS, ClassRows
from napari_alibi_seg._widgets._class_view import ClassView
from napari_alibi_seg._widgets._hooks import on_gui
from napari_alibi_seg._widgets._parts import Hint
from napari_alibi_seg._workspace import ClassTable, read_classes, write_classes

__all__ = ["ClassesPanel"]

_T = TypeVar("_T")

_KEYS = f"1-{N_KEYS} pick a class, T toggles the overlay"
_NONE_YET = "Add a class, then paint a stroke of it on the image."
_ONE_ONLY = "Add a second class: what is the rest?"

_CSV = "Classes (*.csv)"
_MASKS_READ = "Masks (*.tif *.tiff *.png);;All files (*)"
_MASKS_WRITTEN = "TIFF (*.tif *.tiff);;PNG (*.png)"


class ClassesPanel(QWidget):
    """A table of classes and what can be done with them and their scribbles.

    Parameters
    ----------
    table : ClassTable
        Shown and edited.
    parent : QWidget, optional
        Of the panel.
    dialogs : ClassDialogs, optional
        What asks for colours, files and confirmation.

    Attributes
    ----------
    picked : Signal(int)
        The user picked a class for the brush: by its row, a digit typed in the table,
        by adding it, or because the one picked before was deleted or merged. Not
        emitted by `pick` and `pick_nth`.
    removed : Signal(object)
        Classes left the table; what their pixels become, ``{id: 0}``. If other classes
        remain, `picked` follows; if not, `picked_id` is None.
    merged : Signal(object)
        As `removed`, for a merge, ``{source: target}``.
    labels_layer_wanted : Signal()
        Take a Labels layer as scribbles.
    mask_file_wanted : Signal(object)
        Take a mask file as scribbles; its `Path`.
    mask_export_wanted : Signal(object)
        Save the scribbles as a mask; its `Path`.
    message : Signal(str)
        What went wrong. The panel shows it too.
    """

    picked = Signal(int)
    removed = Signal(object)
    merged = Signal(object)
    labels_layer_wanted = Signal()
    mask_file_wanted = Signal(object)
    mask_export_wanted = Signal(object)
    message = Signal(str)

    def __init__(
        self,
        table: ClassTable,
        parent: QWidget | None = None,
        *,
        dialogs: ClassDialogs | None = None,
    ) -> None:
        super().__init__(parent)
        self.table = table
        self.dialogs = dialogs or ClassDialogs(self)
        self._rows = ClassRows(table, self)
        self.view = ClassView(self._rows, self)
        self.buttons = ClassButtons()
        self.hint = Hint(parent=self)
        self.error = Hint(parent=self)
        self._hint_from_outside = ""
        self._build()
        self._connect()
        self._update()

    # What the dock may ask and say.

    @property
    def picked_id(self) -> int | None:
        """The class that is picked; None if none is."""
        picked = self.view.picked_row
        return None if picked is None else self._rows.entries[picked].id

    def pick(self, class_id: int | None) -> None:
        """Select the row of a class, silently. An id of no class selects none."""
        with QSignalBlocker(self):
            self.view.pick_row(self._rows.row_of(class_id))

    def pick_nth(self, n: int) -> int | None:
        """Select the `n`-th row from 1, silently; return its class id.

        Returns
        -------
        int or None
            None, and nothing changes, if there are fewer classes.
        """
        entries = self._rows.entries
        if not 1 <= n <= len(entries):
            return None
        self.pick(entries[n - 1].id)
        return entries[n - 1].id

    def set_counts(self, counts: Mapping[int, int]) -> None:
        """Show painted pixels by class id; 0 for ids left out."""
        self._rows.set_counts(counts)
        self._say_next()

    def set_fractions(self, fractions: Mapping[int, float]) -> None:
        """Show predicted area fractions, 0 to 1; a dash for ids left out."""
        self._rows.set_fractions(fractions)

    def set_hint(self, text: str) -> None:
        """Show this instead of what the panel would say next; empty ends that."""
        self._hint_from_outside = text
        self._say_next()

    # Making it.

    def _build(self) -> None:
        keys = Hint(_KEYS, self)
        keys.setToolTip("Keys that work while the image or the table has the focus")
        for shown in (self.hint, self.error):
            # a class may be called <b>
            shown.setTextFormat(Qt.TextFormat.PlainText)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 2, 2, 6)
        layout.setSpacing(4)
        for part in (self.hint, self.view, self.error, self.buttons, keys):
            layout.addWidget(part)

    def _connect(self) -> None:
        self.view.selectionModel().selectionChanged.connect(self._row_picked)
        self.view.picked_again.connect(self._row_picked)
        self.view.key_pressed.connect(self._key_pressed)
        self.view.colour_wanted.connect(self._ask_colour)
        self._rows.refused.connect(self._fail)
        self._rows.edited.connect(self._forget_error)
        buttons = self.buttons
        buttons.add_wanted.connect(self._add)
        buttons.delete_wanted.connect(self._ask_delete)
        buttons.merge_wanted.connect(self._merge)
        buttons.import_wanted.connect(self._ask_import)
        buttons.export_wanted.connect(self._ask_export)
        buttons.layer_wanted.connect(self.labels_layer_wanted)
        buttons.mask_wanted.connect(self._ask_mask)
        buttons.mask_export_wanted.connect(self._ask_mask_export)
        changed = self.table.changed
        changed.connect(self._table_changed)
        # the table may live longer than the panel
        self.destroyed.connect(lambda: changed.disconnect(self._table_changed))

    # What the table tells.

    @on_gui
    def _table_changed(self) -> None:
        before = self.picked_id
        with QSignalBlocker(self):
            if self._rows.refresh():
                self.view.pick_row(self._rows.row_of(before))
        self.view.updateGeometry()
        self._update()

    def _update(self) -> None:
        self.buttons.show_state(self._rows.entries, self.picked_id)
        self._say_next()

    def _say_next(self) -> None:
        self.hint.say(self._hint_from_outside or self._next_step())

    def _next_step(self) -> str:
        entries = self._rows.entries
        if not entries:
            return _NONE_YET
        if len(entries) == 1:
            return _ONE_ONLY
        unpainted = (e.name for e in entries if not self._rows.painted(e.id))
        name = next(unpainted, None)
        return f"Paint a stroke of {name}." if name else ""

    # What the user does.

    @on_gui
    def _row_picked(self, *_: object) -> None:
        self._update()
        if self.picked_id is not None:
            self.picked.emit(self.picked_id)

    @on_gui
    def _key_pressed(self, n: int) -> None:
        class_id = self.pick_nth(n)
        if class_id is not None:
            self.picked.emit(class_id)

    def _choose(self, index: int) -> None:
        """Pick a row in the name of the user, if there is any row."""
        if self._rows.entries:
            last = len(self._rows.entries) - 1
            self.view.pick_row(min(index, last))

    @on_gui
    def _add(self) -> None:
        entry = self._try(self.table.add)
        if entry is not None:
            last = len(self.table) - 1
            self._choose(last)
            self.view.edit_name(last)

    # The `_ask_` functions are not timed: while a dialog is open, Qt goes on.

    def _ask_delete(self) -> None:
        class_id = self.picked_id
        if class_id is None:
            return
        n_painted = self._rows.painted(class_id)
        question = (
            f"Delete {self.table[class_id].name!r} and its {n_painted:,} painted "
            f"pixel{'' if n_painted == 1 else 's'}?"
        )
        if not n_painted or self.dialogs.confirm(question):
            self._delete(class_id)

    @on_gui
    def _delete(self, class_id: int) -> None:
        index = self._rows.row_of(class_id) or 0
        mapping = self._try(lambda: self.table.delete(class_id))
        if mapping is not None:
            self.removed.emit(mapping)
            self._choose(index)

    @on_gui
    def _merge(self, source: int, target: int) -> None:
        mapping = self._try(lambda: self.table.merge(source, target))
        if mapping is not None:
            self.merged.emit(mapping)
            self._choose(self._rows.row_of(target) or 0)

    def _ask_colour(self, index: int) -> None:
        entry = self._rows.entries[index]
        chosen = self.dialogs.colour(entry.colour, f"Colour of {entry.name}")
        if chosen is not None:
            self._recolour(entry.id, chosen)

    @on_gui
    def _recolour(self, class_id: int, colour: str) -> None:
        self._try(lambda: self.table.recolour(class_id, colour))

    def _ask_import(self) -> None:
        path = self.dialogs.open_file("Import classes", _CSV)
        if path is not None:
            self._import(path)

    @on_gui
    def _import(self, path: Path) -> None:
        def take_over() -> None:
            entries = read_classes(path)
            infos = {e.id: ClassInfo(e.name, e.colour) for e in entries}
            weights = {e.id: e.weight for e in entries}
            # classes that the file lacks stay: their pixels may be painted
            self.table.adopt(infos, weights)

        self._try(take_over)

    def _ask_export(self) -> None:
        path = self.dialogs.save_file("Export classes", _CSV, "classes.csv")
        if path is not None:
            self._export(path)

    @on_gui
    def _export(self, path: Path) -> None:
        self._try(lambda: write_classes(path, self.table))

    def _ask_mask(self) -> None:
        path = self.dialogs.open_file("Use a mask as scribbles", _MASKS_READ)
        if path is not None:
            self.mask_file_wanted.emit(path)

    def _ask_mask_export(self) -> None:
        title = "Save scribbles as a mask"
        path = self.dialogs.save_file(title, _MASKS_WRITTEN, "scribbles.tif")
        if path is not None:
            self.mask_export_wanted.emit(path)

    # Errors.

    def _try(self, do: Callable[[], _T]) -> _T | None:
        """Call, and tell what went wrong."""
        try:
            result = do()
        except AlibiSegError as err:
            self._fail(str(err))
            return None
        self._forget_error()
        return result

    @on_gui
    def _fail(self, sentence: str) -> None:
        self.error.say(sentence, is_error=True)
        self.message.emit(sentence)

    @on_gui
    def _forget_error(self) -> None:
        self.error.say("")
