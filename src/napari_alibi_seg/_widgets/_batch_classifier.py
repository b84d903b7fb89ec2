"""Which classifier a batch applies: that of the dock or a file, and its weights."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import QComboBox, QVBoxLayout, QWidget

from napari_alibi_seg._widgets._hooks import on_gui
from napari_alibi_seg._widgets._parts import button, form, row

__all__ = ["ClassifierChoice"]

_DOCK, _FILE = range(2)
_TIP = "The classifier that segments the files."


class ClassifierChoice(QWidget):
    """A choice of two classifiers, and where the weights of the chosen one are.

    Attributes
    ----------
    changed : Signal()
        `chosen` or `backbone` is another.
    file_wanted, weights_wanted : Signal()
        Ask for a classifier file, for `take_file`; for a weights file, for
        `take_weights`.
    """

    changed = Signal()
    file_wanted = Signal()
    weights_wanted = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._dock_file: Path | None = None
        self._other_file: Path | None = None
        self._backbone: str | None = None
        self.choice = QComboBox()
        self.choice.addItems(["", ""])
        self.choice.setMinimumContentsLength(8)
        self.choice.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.choose_button = button(
            "File...",
            "Take a classifier file (.alibiseg).",
            self.file_wanted.emit,
        )
        self.weights_button = button(
            "Find the weights...",
            "Say where the weights file of this classifier's backbone is now.",
            self.weights_wanted.emit,
        )
        self.weights_button.hide()
        self._lay_out()
        self._name_choices()
        self.choice.currentIndexChanged.connect(self._another)

    def _lay_out(self) -> None:
        choice = QWidget()
        fields = form(choice)
        fields.setContentsMargins(0, 0, 0, 0)
        fields.addRow("Classifier", row(self.choice, self.choose_button, stretch=0))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(choice)
        layout.addWidget(self.weights_button)

    @property
    def chosen(self) -> Path | None:
        """The file of the chosen classifier; None if it has none yet."""
        is_other = self.choice.currentIndex() == _FILE
        return self._other_file if is_other else self._dock_file

    @property
    def backbone(self) -> str | None:
        """Weights file of its backbone, if the user had to say where that is."""
        return self._backbone

    def set_dock_file(self, path: Path | None) -> None:
        """Offer the classifier of the dock; None while it has none that is saved."""
        if path != self._dock_file and self.chosen == self._dock_file:
            self._forget_weights()
        self._dock_file = path
        if path is not None and self._other_file is None:
            self._choose(_DOCK)
        self._tell()

    def take_file(self, path: Path) -> None:
        """Choose a classifier file."""
        self._other_file = path
        self._choose(_FILE)
        self._another()

    def take_weights(self, path: Path) -> None:
        """Take the weights of the chosen classifier from a file."""
        self._backbone = str(path)
        self._tell()

    def show_lost_weights(self, is_lost: bool) -> None:
        """Offer to say where the weights are, or no more."""
        self.weights_button.setVisible(is_lost)

    def _choose(self, index: int) -> None:
        with QSignalBlocker(self.choice):
            self.choice.setCurrentIndex(index)

    @on_gui
    def _another(self, *_: object) -> None:
        self._forget_weights()
        self._tell()

    def _forget_weights(self) -> None:
        """Another classifier has weights of its own."""
        self._backbone = None
        self.show_lost_weights(False)

    def _tell(self) -> None:
        self._name_choices()
        self.changed.emit()

    def _name_choices(self) -> None:
        dock, other = self._dock_file, self._other_file
        texts = (
            f"dock: {dock.name}" if dock else "dock: none saved",
            f"file: {other.name}" if other else "file: none chosen",
        )
        with QSignalBlocker(self.choice):
            for i, text in enumerate(texts):
                self.choice.setItemText(i, text)
                path = (dock, other)[i]
                tip = str(path) if path else ""
                self.choice.setItemData(i, tip, Qt.ItemDataRole.ToolTipRole)
        self.choice.setToolTip(str(self.chosen) if self.chosen else _TIP)
