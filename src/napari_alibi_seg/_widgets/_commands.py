"""What the command palette can do with the open dock.

napari calls these functions without arguments, so docks make themselves known in
`_open_docks` while they are open. With none open, the user is told how to open one.
"""

from __future__ import annotations

import weakref
from typing import Protocol

from napari.utils.notifications import show_info

from napari_alibi_seg._widgets._hooks import on_gui

__all__ = [
    "CommandedDock",
    "extract",
    "least_certain",
    "open_large",
    "save_classifier",
    "toggle_overlay",
    "update",
]

_NONE_OPEN = (
    "Open the dock first: Plugins > ALiBi Segmentation. Then run this command again."
)


class CommandedDock(Protocol):
    """A dock that commands reach while it is in `_open_docks`."""

    def isVisible(self) -> bool:
        """Return whether the user sees it."""

    def extract(self) -> None:
        """Compute the features of the image."""

    def update_once(self) -> None:
        """Train and segment once."""

    def go_to_least_certain(self) -> None:
        """Move the view to where the next stroke belongs."""

    def toggle_overlay(self) -> None:
        """Show or hide the result."""

    def save_classifier(self) -> None:
        """Ask for a file and save the classifier."""

    def ask_large(self) -> None:
        """Ask for images and open them, however large."""


_open_docks: weakref.WeakSet[CommandedDock] = weakref.WeakSet()


def _dock() -> CommandedDock | None:
    """Return the dock that is seen, else any; else tell the user and return None."""
    docks = sorted(_open_docks, key=lambda dock: not dock.isVisible())
    if docks:
        return docks[0]
    show_info(_NONE_OPEN)
    return None


@on_gui
def extract() -> None:
    """Compute the features of the image."""
    if (dock := _dock()) is not None:
        dock.extract()


@on_gui
def update() -> None:
    """Train and segment once."""
    if (dock := _dock()) is not None:
        dock.update_once()


@on_gui
def least_certain() -> None:
    """Move the view to where the classifier is least certain."""
    if (dock := _dock()) is not None:
        dock.go_to_least_certain()


@on_gui
def toggle_overlay() -> None:
    """Show or hide the result."""
    if (dock := _dock()) is not None:
        dock.toggle_overlay()


@on_gui
def save_classifier() -> None:
    """Save the classifier to a file."""
    if (dock := _dock()) is not None:
        dock.save_classifier()


def open_large() -> None:
    """Open images that are too large for napari's readers."""
    # not timed: how long a dialog is open is the user's affair
    if (dock := _dock()) is not None:
        dock.ask_large()
