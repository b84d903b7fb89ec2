"""The panel about the result: which layers are shown, how far they are, totals, saving.

No layer and no file is touched here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QVBoxLayout, QWidget

from napari_alibi_seg._widgets._controls import Choice, Wait
from napari_alibi_seg._widgets._dialogs import AskSave, ask_save
from napari_alibi_seg._widgets._hooks import on_gui
from napari_alibi_seg._widgets._parts import Hint, button, row

__all__ = ["ResultPanel", "Totals"]

_EMPTY = (
    "Paint a stroke of two classes: the result appears here by itself. It fills what "
    "you see first, then the rest."
)
_TIFF = "TIFF images (*.tif *.tiff);;OME-Zarr (*.ome.zarr)"
_SAVING = "Tiles of the file. You can go on with your work."
# Of each kind: title of the dialog, what the suggested name ends in, filter.
_SAVES = {
    "labels": ("Save the labels", "_labels.tif", _TIFF),
    "probabilities": ("Save the probabilities", "_probabilities.tif", _TIFF),
    "table": ("Save the table", "_areas.csv", "Tables (*.csv)"),
}
# Square micrometres per unit, the largest unit first, to show from a hundredth of one.
_AREAS = ((1e6, "mm²"), (1.0, "µm²"), (1e-6, "nm²"))


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
    n_pixels : int or None
        That have a result; None where that is not told.
    area_um2 : float or None
        Of these, in square micrometres; None where the pixel size is not known.
    left_out : float
        Share of the image that was left out, 0 to 1.
    unsure : float or None
        Share of the result that is "not sure", 0 to 1; None without a threshold.
    note : str
        What else the user should know, as sentences.
    """

    n_pixels: int | None = None
    area_um2: float | None = None
    left_out: float = 0.0
    unsure: float | None = None
    note: str = ""

    @property
    def text(self) -> str:
        """All of it in words.

        Examples
        --------
        >>> Totals(1200, area_um2=3.5, left_out=0.25, unsure=0.031).text
        '1,200 pixels, 3.5 µm². Left out: 25.0 %. Not sure: 3.1 %.'
        """
        area = "" if self.area_um2 is None else f", {area_text(self.area_um2)}"
        parts = []
        if self.n_pixels is not None:
            parts.append(f"{self.n_pixels:,} pixels{area}.")
        if self.left_out:
            parts.append(f"Left out: {self.left_out:.1%}.")
        if self.unsure is not None:
            parts.append(f"Not sure: {self.unsure:.1%}.")
        text = " ".join(parts).replace("%", " %")
        return f"{text} {self.note}".strip()


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
    stop_wanted : Signal()
        The saving that runs is to stop.
    """

    layers_wanted = Signal(object)
    save_wanted = Signal(str, object)
    stop_wanted = Signal()

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
        parts = (
            *(self.labels, self.uncertainty, probability),
            *(self.wait, self.stop, self.totals),
        )
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
            "Save the probability of each class as TIFF or OME-Zarr",
            "table": "Save table (CSV)...|"
            "Save the area of each class as a table for a spreadsheet",
        }
        self.save_buttons = {}
        for kind, words in tips.items():
            text, tip = words.split("|")
            self.save_buttons[kind] = button(text, tip, partial(self._save, kind))
        self.stop = button(
            "Stop saving", "What is done is kept, to go on later", self.stop_wanted.emit
        )
        self.stop.hide()
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

    def show_saving(self, done: int, total: int) -> None:
        """Show how many tiles of a file are there."""
        self._begin()
        self.wait.show_progress(done, total, text=_SAVING)
        self.stop.show()

    def end_saving(self, text: str) -> None:
        """Take the progress of a file away and leave a sentence."""
        self.wait.say(text)
        self.stop.hide()

    def show_totals(self, totals: Totals) -> None:
        """Show what is told of a whole result; the progress goes."""
        self._begin()
        self.wait.say("")
        self.totals.say(totals.text)

    def show_error(self, text: str) -> None:
        """Say what went wrong; the progress goes."""
        self.stop.hide()
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
