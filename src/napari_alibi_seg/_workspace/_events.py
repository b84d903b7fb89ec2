"""What the jobs of a session tell: found, extracted, loaded, noted.

Frozen values that cross from a worker to the window. What training and prediction tell
are the segmenter's own events.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from napari_alibi_seg._base import Window
from napari_alibi_seg._segmenter import ClassInfo
from napari_alibi_seg._workspace._places import FoundProject
from napari_alibi_seg._workspace._requests import DockSettings

__all__ = ["Applied", "Exported", "Extracted", "LoadedFile", "Note", "Opened"]


@dataclass(frozen=True)
class Opened:
    """An image was looked at.

    Attributes
    ----------
    found : FoundProject or None
        A project that lies there.
    bar : Window or None
        An information bar that may be left out.
    """

    found: FoundProject | None
    bar: Window | None


@dataclass(frozen=True)
class Extracted:
    """Progress of an extraction.

    Attributes
    ----------
    done, total : int
        Tiles, those stored before included.
    seconds_left : float or None
        At the speed so far; None before the first tile.
    was_stored : bool
        Whether nothing had to be computed.
    """

    done: int
    total: int
    seconds_left: float | None
    was_stored: bool = False


@dataclass(frozen=True)
class Exported:
    """A result is written, of all of an image.

    Attributes
    ----------
    path : Path
        The file or folder.
    counts : dict of int to int
        Pixels by id, of those that are not left out; empty if no labels were written.
    """

    path: Path
    counts: dict[int, int]


@dataclass(frozen=True)
class Note:
    """A sentence for the user that is no error."""

    text: str


@dataclass(frozen=True)
class Applied:
    """A classifier that was there is being applied; nothing is trained.

    Attributes
    ----------
    class_ids : tuple of int
        Ascending, as its probabilities are ordered.
    """

    class_ids: tuple[int, ...]


@dataclass(frozen=True)
class LoadedFile:
    """What a classifier file said.

    Attributes
    ----------
    settings : DockSettings
        That fill the panels.
    classes : dict of int to ClassInfo
        Of the file.
    weights : dict of int to float or None
        Of classes, as the table has them; None where balanced.
    problem : str
        Why it cannot be applied here, empty if it can.
    content_hash : str
        Of the file.
    """

    settings: DockSettings
    classes: dict[int, ClassInfo]
    weights: dict[int, float] | None
    problem: str
    content_hash: str
