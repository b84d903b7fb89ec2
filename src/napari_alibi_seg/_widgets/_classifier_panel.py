"""The classifier as a file: save, load, and what is loaded.

The panel only asks and shows; saving and loading are the dock's. `read_facts` reads
what there is to show from a file, also when the weights it needs are not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QFrame, QGridLayout, QLabel, QVBoxLayout, QWidget

from napari_alibi_seg._widgets._dialogs import Dialogs
from napari_alibi_seg._widgets._hooks import on_gui
from napari_alibi_seg._widgets._parts import Hint, button, row
from napari_alibi_seg.learn import load_classifier_file

__all__ = ["ClassifierPanel", "read_facts"]

_EMPTY = (
    "No classifier yet. Paint and train, then save it for other images; or load one "
    "that was saved (.alibiseg)."
)
_KINDS = {"rf": "random forest", "logistic": "logistic regression"}
_FEATURES = {
    "vit": "ViT",
    "classical": "classical",
    "both": "ViT and classical",
}
# More would push the rest of the dock away.
_MOST_CLASSES = 16
_SHORT_HASH = 12


def read_facts(path: Path) -> dict[str, Any]:
    """Return what a classifier file says of itself, for `show_classifier`.

    Parameters
    ----------
    path : Path
        The `.alibiseg` file. It is read and checked; no code in it is run.

    Returns
    -------
    dict
        "Name", "classes" as (id, name, ``#rrggbb``), and lines by heading.

    Raises
    ------
    ClassifierFileError
        If the file is damaged, foreign or too new.

    Examples
    --------
    >>> from napari_alibi_seg._base import ClassifierFileError
    >>> try:
    ...     read_facts(Path("nowhere.alibiseg"))
    ... except ClassifierFileError as err:
    ...     print("nowhere.alibiseg" in str(err))
    True
    """
    header, _ = load_classifier_file(path)
    features, settings = header["features"], header["classifier"]
    backbone, wanted = header["backbone"], features["settings"]
    facts: dict[str, Any] = {
        "Name": path.name,
        "classes": [(c["id"], c["name"], c["colour"]) for c in header["classes"]],
        "Features": f"{_FEATURES[wanted['kind']]}, {features['n_features']} a pixel",
        "Backbone": "none" if backbone is None else str(backbone["name"]),
        "Scale": f"{wanted['scale']:.4g}",
        "Method": f"{_KINDS[settings['kind']]}, each {settings['resolution']}",
        "Hash": str(header["sha256"])[:_SHORT_HASH],
        "Folder": str(path.absolute().parent),
    }
    return facts


class ClassifierPanel(QWidget):
    """Save and load classifiers; show the one in use.

    Parameters
    ----------
    parent : QWidget, optional
        Qt's.
    dialogs : Dialogs, optional
        What asks for files.

    Attributes
    ----------
    save_wanted, load_wanted : Signal(object)
        The Path that the user chose. An existing file was asked about.
    """

    save_wanted = Signal(object)
    load_wanted = Signal(object)

    def __init__(
        self, parent: QWidget | None = None, *, dialogs: Dialogs | None = None
    ) -> None:
        super().__init__(parent)
        self._dialogs = dialogs or Dialogs()
        self._suggestion = "classifier.alibiseg"
        self.save_button = button("Save...", "", self.ask_save)
        self.load_button = button(
            "Load...",
            "Load a classifier (.alibiseg): its classes and settings fill the panels.",
            self.ask_load,
        )
        self.hint = Hint(_EMPTY)
        self.message = Hint()
        self.facts = QFrame()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 2, 2, 6)
        layout.setSpacing(4)
        for widget in (
            row(self.save_button, self.load_button),
            self.hint,
            self.facts,
            self.message,
        ):
            layout.addWidget(widget)
        layout.addStretch(1)
        self.facts.hide()
        self.set_can_save(False)

    # ------------------------------------------------------- what the dock tells

    def set_can_save(self, can_save: bool) -> None:
        """Say whether there is a trained classifier."""
        self.save_button.setEnabled(can_save)
        self.save_button.setToolTip(
            "Save the classifier, its classes and settings (.alibiseg)."
            if can_save
            else "Train first: there is no classifier to save yet."
        )

    def set_suggestion(self, path: Path) -> None:
        """Say which file name to offer when the user saves."""
        self._suggestion = str(path)

    def show_classifier(self, facts: Mapping[str, Any] | None) -> None:
        """Show what is in use, or with None that there is nothing.

        Parameters
        ----------
        facts : mapping, optional
            From `read_facts`, or alike: "classes" as (id, name, colour) of each, and
            any other lines by heading.
        """
        fresh = QFrame()
        if facts is not None:
            _fill(fresh, facts)
        self.layout().replaceWidget(self.facts, fresh)
        self.facts.hide()
        self.facts.deleteLater()
        self.facts = fresh
        fresh.setVisible(facts is not None)
        self.hint.say(_EMPTY if facts is None else "")

    def say(self, text: str, *, is_error: bool = False) -> None:
        """Show a sentence below, or take it away with an empty one."""
        self.message.say(text, is_error=is_error)

    # ------------------------------------------------------- what the user wants

    @on_gui
    def ask_save(self) -> None:
        """Ask for a file to save to, and pass it on."""
        path = self._dialogs.save_classifier(self, self._suggestion)
        if path is not None:
            self.save_wanted.emit(path)

    @on_gui
    def ask_load(self) -> None:
        """Ask for a file to load, and pass it on."""
        path = self._dialogs.open_classifier(self)
        if path is not None:
            self.load_wanted.emit(path)


def _fill(frame: QFrame, facts: Mapping[str, Any]) -> None:
    """Put one line a fact into a frame, and one a class."""
    grid = QGridLayout(frame)
    grid.setContentsMargins(0, 0, 0, 0)
    grid.setHorizontalSpacing(8)
    grid.setVerticalSpacing(2)
    grid.setColumnStretch(1, 1)
    for heading, value in facts.items():
        n = grid.rowCount()
        name = QLabel("Classes" if heading == "classes" else heading)
        grid.addWidget(name, n, 0, Qt.AlignmentFlag.AlignTop)
        body = _classes(value) if heading == "classes" else _text(str(value))
        grid.addWidget(body, n, 1)


def _text(value: str) -> QLabel:
    # a long name without blanks may break anywhere
    label = Hint("\u200b".join(value) if " " not in value else value)
    label.setToolTip(value)
    return label


def _classes(classes: Any) -> QWidget:
    body = QWidget()
    layout = QVBoxLayout(body)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(2)
    for class_id, name, colour in classes[:_MOST_CLASSES]:
        swatch = QLabel()
        swatch.setFixedSize(14, 14)
        swatch.setStyleSheet(f"background-color: {colour}; border-radius: 2px;")
        swatch.setToolTip(str(colour))
        text = Hint(f"{class_id}  {name}")
        text.setToolTip(f"Class {class_id}: {name}")
        layout.addWidget(row(swatch, text, stretch=1))
    if len(classes) > _MOST_CLASSES:
        layout.addWidget(Hint(f"and {len(classes) - _MOST_CLASSES} more"))
    return body
