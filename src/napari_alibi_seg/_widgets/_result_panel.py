"""The panel about the result: which layers are shown, how far they are, totals, saving.

Also the small controls that this and the other panels share: a choice, a number and a
bar for long waits. All are silent when a program sets them, and none is changed by a
wheel that only meant to scroll the dock. No layer and no file is touched here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtGui import QPalette
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QSizePolicy,
    QSpinBox,
    QStyle,
    QStyleOptionComboBox,
    QStylePainter,
    QVBoxLayout,
    QWidget,
)

from napari_alibi_seg._widgets._hooks import on_gui
from napari_alibi_seg._widgets._parts import Bar, Hint, button, row

__all__ = ["AskSave", "Choice", "Number", "ResultPanel", "Totals", "Wait"]

AskSave: TypeAlias = Callable[[QWidget, str, str, str], Path | None]

_EMPTY = (
    "Paint a stroke of two classes: the result appears here by itself. It fills what "
    "you see first, then the rest."
)
_TIFF = "TIFF images (*.tif *.tiff)"
# Of each kind: title of the dialog, what the suggested name ends in, filter.
_SAVES = {
    "labels": ("Save the labels", "_labels.tif", _TIFF),
    "probabilities": ("Save the probabilities", "_probabilities.tif", _TIFF),
    "table": ("Save the table", "_areas.csv", "Tables (*.csv)"),
}
# Square micrometres per unit, the largest unit first, to show from a hundredth of one.
_AREAS = ((1e6, "mm²"), (1.0, "µm²"), (1e-6, "nm²"))


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


def area_text(area_um2: float) -> str:
    """Return an area in the unit in which it is easy to read.

    Examples
    --------
    >>> area_text(2.5e6), area_text(310.25), area_text(4e-5)
    ('2.5 mm²', '310.2 µm²', '40 nm²')
    """
    for size, unit in _AREAS:
        if area_um2 >= size / 100 or unit == _AREAS[-1][1]:
            return f"{area_um2 / size:.4g} {unit}"
    raise AssertionError


@dataclass(frozen=True, slots=True)
class Totals:
    """What is told of a result as a whole.

    Attributes
    ----------
    n_pixels : int
        That have a result.
    area_um2 : float or None
        Of these, in square micrometres; None where the pixel size is not known.
    left_out : float
        Share of the image that was left out, 0 to 1.
    unsure : float or None
        Share of the result that is "not sure", 0 to 1; None without a threshold.
    """

    n_pixels: int
    area_um2: float | None = None
    left_out: float = 0.0
    unsure: float | None = None

    @property
    def text(self) -> str:
        """All of it in words.

        Examples
        --------
        >>> Totals(1200, area_um2=3.5, left_out=0.25, unsure=0.031).text
        '1,200 pixels, 3.5 µm². Left out: 25.0 %. Not sure: 3.1 %.'
        """
        area = "" if self.area_um2 is None else f", {area_text(self.area_um2)}"
        parts = [f"{self.n_pixels:,} pixels{area}."]
        if self.left_out:
            parts.append(f"Left out: {self.left_out:.1%}.")
        if self.unsure is not None:
            parts.append(f"Not sure: {self.unsure:.1%}.")
        return " ".join(parts).replace("%", " %")


def ask_save(parent: QWidget, title: str, suggestion: str, kinds: str) -> Path | None:
    """Ask where to save; None if the user thought better of it."""
    # a dialog object, so that the suffix is there before Qt asks about overwriting
    dialog = QFileDialog(parent, title, suggestion, kinds)
    dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
    dialog.setDefaultSuffix(Path(suggestion).suffix.removeprefix("."))
    names = dialog.selectedFiles() if dialog.exec() else []
    dialog.deleteLater()
    return Path(names[0]) if names else None


class ResultPanel(QWidget):
    """Layers of the result, its progress and totals, and saving it.

    Parameters
    ----------
    ask : callable
        (parent, title, suggestion, filter) -> Path or None.

    Attributes
    ----------
    layers_wanted : Signal(object)
        A dict as of `layers`, when the user ticks or picks.
    save_wanted : Signal(str, object)
        "labels", "probabilities" or "table", and the Path of the file.
    """

    layers_wanted = Signal(object)
    save_wanted = Signal(str, object)

    def __init__(
        self, parent: QWidget | None = None, *, ask: AskSave = ask_save
    ) -> None:
        super().__init__(parent)
        self._ask = ask
        self._stem = Path("result")
        self.hint = Hint(_EMPTY)
        self.wait = Wait()
        self.totals = Hint()
        self._make_layers()
        self._make_saves()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 2, 2, 6)
        layout.setSpacing(4)
        probability = row(self.probability, self.class_choice, stretch=1)
        parts = (self.labels, self.uncertainty, probability, self.wait, self.totals)
        for widget in (self.hint, *parts, self.saves):
            layout.addWidget(widget)
        self.set_layers(labels=True)
        self.set_classes([])
        self.show_empty()

    def _make_layers(self) -> None:
        self.labels = QCheckBox("Labels")
        self.labels.setToolTip("Show the class of every pixel")
        self.uncertainty = QCheckBox("Uncertainty")
        self.uncertainty.setToolTip(
            "Show how unsure the classifier is: bright where another stroke helps most"
        )
        self.probability = QCheckBox("Probability of")
        self.probability.setToolTip("Show the probability of one class")
        self.class_choice = Choice("The class whose probability is shown")
        self.class_choice.setPlaceholderText("no class yet")
        for box in (self.labels, self.uncertainty, self.probability):
            box.clicked.connect(self._layers_changed)
        self.class_choice.picked.connect(self._class_picked)

    def _make_saves(self) -> None:
        tips = {
            "labels": "Save labels...|Save the class of every pixel as a TIFF file",
            "probabilities": "Save probabilities...|"
            "Save the probability of each class as a TIFF file",
            "table": "Save table (CSV)...|"
            "Save the area of each class as a table for a spreadsheet",
        }
        self.save_buttons = {}
        for kind, words in tips.items():
            text, tip = words.split("|")
            self.save_buttons[kind] = button(text, tip, partial(self._save, kind))
        first = row(*(self.save_buttons[k] for k in ("labels", "probabilities")))
        self.saves = QWidget()
        layout = QVBoxLayout(self.saves)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(first)
        layout.addWidget(self.save_buttons["table"])

    @property
    def layers(self) -> dict[str, Any]:
        """What is ticked: two bools, and under "probability" a class id or None."""
        wanted = self.probability.isChecked()
        return {
            "labels": self.labels.isChecked(),
            "uncertainty": self.uncertainty.isChecked(),
            "probability": self.class_choice.chosen if wanted else None,
        }

    def set_layers(
        self,
        *,
        labels: bool = False,
        uncertainty: bool = False,
        probability: int | None = None,
    ) -> None:
        """Tick what is shown, `probability` being a class id; tells nobody."""
        self.labels.setChecked(labels)
        self.uncertainty.setChecked(uncertainty)
        self.probability.setChecked(probability is not None)
        if probability is not None:
            self.class_choice.choose(probability)

    def set_classes(self, rows: Sequence[tuple[int, str]]) -> None:
        """Offer the classes (id, name); the chosen one stays if it is among them."""
        self.class_choice.fill(rows, self.class_choice.chosen)
        self.probability.setEnabled(bool(rows))
        self.class_choice.setEnabled(bool(rows))
        if not rows:
            self.probability.setChecked(False)

    def suggest(self, stem: Path) -> None:
        """Set what suggested file names begin with: the image without its suffix."""
        self._stem = stem

    def set_can_save(self, can_save: bool) -> None:
        """Say whether there is a whole result to save."""
        for made in self.save_buttons.values():
            made.setEnabled(can_save)

    def show_progress(self, done: int, total: int) -> None:
        """Show how many tiles of the result are there."""
        self._begin()
        self.wait.show_progress(done, total, text="Tiles, from the middle of the view.")

    def show_totals(self, totals: Totals) -> None:
        """Show what is told of a whole result; the progress goes."""
        self._begin()
        self.wait.say("")
        self.totals.say(totals.text)

    def show_error(self, text: str) -> None:
        """Say what went wrong; the progress goes."""
        self.wait.say(text, is_error=True)

    def show_empty(self, text: str = _EMPTY) -> None:
        """Say that there is no result, and what to do."""
        self.wait.say("")
        self.totals.say("")
        self.hint.say(text)
        self.saves.hide()
        self.set_can_save(False)

    def _begin(self) -> None:
        self.hint.say("")
        self.saves.show()

    @on_gui
    def _layers_changed(self, _checked: bool = False) -> None:
        self.layers_wanted.emit(self.layers)

    @on_gui
    def _class_picked(self, _class_id: object) -> None:
        if self.probability.isChecked():
            self.layers_wanted.emit(self.layers)

    def _save(self, kind: str) -> None:
        # not timed: how long a dialog is open is the user's affair
        title, ending, kinds = _SAVES[kind]
        path = self._ask(self, title, f"{self._stem}{ending}", kinds)
        if path is not None:
            self.save_wanted.emit(kind, path)
