"""Open napari with images and the ALiBi Segmentation dock.

The window is a part of its own that needs a screen and more packages; without them
this command says which line installs them:

  alibi-seg gui micrograph.tif
  alibi-seg gui a.tif b.tif --classifier alloy.alibiseg
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from napari_alibi_seg._base import ImageFileError, SettingsError

_GROUP, _NAME = "napari_alibi_seg.gui", "open"
_NEEDED = ("napari", "qtpy", "magicgui", "superqt")
_REMEDY = 'pip install "napari-alibi-seg[all]"'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "images", nargs="*", type=Path, metavar="IMAGE", help="opened as layers"
    )
    parser.add_argument(
        "--classifier",
        type=Path,
        metavar="CLF.alibiseg",
        help="loaded into the dock",
    )


def command(args: argparse.Namespace) -> int:
    """Check the files, then open the window and wait until it is closed."""
    open_viewer = _window()
    for image in args.images:
        if not image.exists():
            raise ImageFileError(
                f"Expected an image at {image}, got no such file. Check the name."
            )
    if args.classifier is not None:
        from napari_alibi_seg.learn import load_classifier_file

        # a damaged file is told here, not in a window that has just opened
        load_classifier_file(args.classifier)
    return open_viewer(args.images, classifier=args.classifier)


def _window() -> Callable[..., int]:
    """Return the function that opens the window; the installation names it."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise SettingsError(
            f"The window needs packages that are not installed ({', '.join(missing)})."
            f" Install them with: {_REMEDY}"
        )
    found = tuple(entry_points(group=_GROUP, name=_NAME))
    if not found:
        raise SettingsError(
            f"Expected an installed napari-alibi-seg that names its window (entry "
            f"point {_GROUP}), got none. Install it with: {_REMEDY}"
        )
    try:
        return found[0].load()
    except ImportError as err:
        if (err.name or "").startswith("napari_alibi_seg"):
            raise
        # Qt itself, or a library of the system that it needs
        raise SettingsError(
            f"The window cannot be loaded ({err}). Install what it needs with: "
            f"{_REMEDY}"
        ) from err
