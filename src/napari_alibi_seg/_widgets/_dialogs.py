"""The questions about files that panels ask, in one place, so that tests can answer.

A panel gets a `Dialogs` and calls its functions; each gets the widget that asks, and
returns what was picked, or nothing if the user thought better of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from qtpy.QtWidgets import QFileDialog, QWidget

from napari_alibi_seg.data import IMAGE_SUFFIXES

__all__ = ["Dialogs"]

_CLASSIFIERS = "Classifiers (*.alibiseg)"
_ALL = "All files (*)"


def _path(answer: str) -> Path | None:
    return Path(answer) if answer else None


def _open_images(parent: QWidget) -> list[Path]:
    known = " ".join(f"*{suffix}" for suffix in sorted(IMAGE_SUFFIXES))
    names, _ = QFileDialog.getOpenFileNames(
        parent, "Add images", "", f"Images ({known});;{_ALL}"
    )
    return [Path(name) for name in names]


def _open_folder(parent: QWidget, title: str) -> Path | None:
    return _path(QFileDialog.getExistingDirectory(parent, title))


def _open_classifier(parent: QWidget) -> Path | None:
    name, _ = QFileDialog.getOpenFileName(
        parent, "Load a classifier", "", f"{_CLASSIFIERS};;{_ALL}"
    )
    return _path(name)


def _open_weights(parent: QWidget) -> Path | None:
    name, _ = QFileDialog.getOpenFileName(parent, "Weights of the backbone", "", _ALL)
    return _path(name)


def _save_classifier(parent: QWidget, suggestion: str) -> Path | None:
    # a dialog object, not the static function: only so the suffix is put on before
    # Qt looks whether the file exists and asks
    dialog = QFileDialog(parent, "Save the classifier", suggestion, _CLASSIFIERS)
    dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
    dialog.setDefaultSuffix("alibiseg")
    is_accepted = bool(dialog.exec())
    names = dialog.selectedFiles()
    dialog.deleteLater()
    return Path(names[0]) if is_accepted and names else None


@dataclass(frozen=True)
class Dialogs:
    """What asks the user for files.

    Attributes
    ----------
    open_images : callable
        (parent) -> list of Path.
    open_folder : callable
        (parent, title) -> Path or None.
    open_classifier, open_weights : callable
        (parent) -> Path or None.
    save_classifier : callable
        (parent, suggestion) -> Path or None. Has asked before it names an existing
        file.

    Examples
    --------
    >>> answers = Dialogs(open_classifier=lambda parent: Path("alloy.alibiseg"))
    >>> answers.open_classifier(None).name
    'alloy.alibiseg'
    """

    open_images: Callable[[QWidget], list[Path]] = _open_images
    open_folder: Callable[[QWidget, str], Path | None] = _open_folder
    open_classifier: Callable[[QWidget], Path | None] = _open_classifier
    open_weights: Callable[[QWidget], Path | None] = _open_weights
    save_classifier: Callable[[QWidget, str], Path | None] = _save_classifier
