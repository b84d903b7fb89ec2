"""The questions about files that panels ask, in one place, so that tests can answer.

A panel gets a `Dialogs` and calls its functions; each gets the widget that asks, and
returns what was picked, or nothing if the user thought better of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from qtpy.QtWidgets import QFileDialog, QWidget

from napari_alibi_seg.data import IMAGE_SUFFIXES

__all__ = ["AskSave", "Dialogs", "ask_save"]

# (parent, title, suggestion, filter)
AskSave: TypeAlias = Callable[[QWidget, str, str, str], Path | None]

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


def _open_denoiser(parent: QWidget) -> Path | None:
    name, _ = QFileDialog.getOpenFileName(parent, "A denoiser of DVT", "", _ALL)
    return _path(name)


def ask_save(parent: QWidget, title: str, suggestion: str, kinds: str) -> Path | None:
    """Ask where to save; None if the user thought better of it.

    Parameters
    ----------
    parent : QWidget
        Over which the dialog opens.
    title : str
        Of the dialog.
    suggestion : str
        Name or path that is proposed. What is typed without a suffix gets its one.
    kinds : str
        Filter, as Qt writes it: ``"Tables (*.csv)"``.

    Returns
    -------
    Path or None
        The user was asked about an existing file.
    """
    # a dialog object, not the static function: only so the suffix is put on before
    # Qt looks whether the file exists and asks
    dialog = QFileDialog(parent, title, suggestion, kinds)
    dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
    dialog.setDefaultSuffix(Path(suggestion).suffix.removeprefix("."))
    names = dialog.selectedFiles() if dialog.exec() else []
    dialog.deleteLater()
    return Path(names[0]) if names else None


def _save_classifier(parent: QWidget, suggestion: str) -> Path | None:
    return ask_save(parent, "Save the classifier", suggestion, _CLASSIFIERS)


@dataclass(frozen=True)
class Dialogs:
    """What asks the user for files.

    Attributes
    ----------
    open_images : callable
        (parent) -> list of Path.
    open_folder : callable
        (parent, title) -> Path or None.
    open_classifier, open_weights, open_denoiser : callable
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
    open_denoiser: Callable[[QWidget], Path | None] = _open_denoiser
    save_classifier: Callable[[QWidget, str], Path | None] = _save_classifier
