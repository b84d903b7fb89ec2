"""Walk through the whole dock on a real micrograph and take a picture of every panel.

    tools/with-display.sh python tools/walk_dock.py --shared ../shared --out pictures

The walk is that of ``tests/widgets/test_walk.py``, by mouse and keys. Besides the
panels at 320 pixels it takes the window, the same at 3840 x 2160, and both in the
other theme. The pictures show the micrograph: they belong into no repository unless
its licence allows that. They are to be looked at.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QPoint, Qt

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from widgets.driver import Driver, spin, wait_until  # noqa: E402
from widgets.walk import Walk, find_micrograph  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_alibi_seg._widgets import Dock

WIDTH = 320
SMALL, LARGE = (1300, 900), (3840, 2160)
STAGES = ("1  Image", "4  Classes and scribbles", "5  Train", "6  Result")


class Camera:
    """Takes pictures of the dock of a driver."""

    def __init__(self, driver: Driver, out: Path) -> None:
        self.driver, self.out = driver, out
        self.window = driver.viewer.window._qt_window

    @property
    def dock(self) -> Dock:
        return self.driver.dock

    def narrow(self) -> None:
        """Make the dock as narrow as it must still be readable."""
        frame = self.dock.parentWidget()
        while frame.parentWidget() is not self.window:
            frame = frame.parentWidget()
        self.window.resizeDocks([frame], [WIDTH], Qt.Orientation.Horizontal)
        spin(0.3)

    def seen(self, name: str, title: str | None) -> None:
        """Take one panel, its heading included, or the tab that is shown."""
        self.narrow()
        if title is None:
            self.dock.grab().save(str(self.out / f"{name}.png"))
            return
        was_open = {t: s.head.isChecked() for t, s in self.dock.sections.items()}
        for other, section in self.dock.sections.items():
            section.fold(other == title)
        spin(0.3)
        section = self.dock.sections[title]
        at = section.mapTo(self.dock, QPoint(0, 0))
        picture = self.dock.grab()
        ratio = picture.devicePixelRatio()
        height = round(min(section.height(), self.dock.height() - at.y()) * ratio)
        part = picture.copy(0, round(at.y() * ratio), picture.width(), height)
        part.save(str(self.out / f"{name}.png"))
        for other, is_open in was_open.items():
            self.dock.sections[other].fold(is_open)

    def whole(self, name: str, size: tuple[int, int]) -> None:
        """Take the window."""
        self.window.resize(*size)
        spin(0.5)
        self.narrow()
        for title, section in self.dock.sections.items():
            section.fold(title in STAGES)
        self.driver.viewer.reset_view()
        spin(0.5)
        to = str(self.out / f"{name}.png")
        self.driver.viewer.screenshot(to, canvas_only=False, flash=False)


def main(argv: Sequence[str] | None = None) -> int:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument(
        "--shared", type=Path, default=HERE.parents[1] / "shared", metavar="DIR"
    )
    options.add_argument("--out", type=Path, required=True, metavar="DIR")
    args = options.parse_args(argv)
    warnings.simplefilter("ignore")
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ALIBI_SEG_CACHE"] = folder
        os.environ["ALIBI_SEG_PROJECTS"] = folder
        _walk(args.shared, Path(folder), args.out)
    return 0


def _walk(shared: Path, folder: Path, out: Path) -> None:
    import napari

    driver = Driver(napari.Viewer())
    dock = driver.add_dock()
    camera = Camera(driver, out)
    driver.viewer.window._qt_window.resize(*SMALL)
    camera.narrow()
    camera.whole("window-empty", SMALL)
    for section in dock.sections.values():
        section.fold(True)
    Walk(driver, find_micrograph(shared), folder, camera.seen).run()
    for theme in ("dark", "light"):
        driver.viewer.theme = theme
        camera.whole(f"window-{theme}", SMALL)
        camera.whole(f"window-4k-{theme}", LARGE)
        driver.viewer.window._qt_window.resize(*SMALL)
        for name, title in (
            ("look", "3  Look"),
            ("classes", "4  Classes and scribbles"),
            ("train", "5  Train"),
            ("result", "6  Result"),
        ):
            camera.seen(f"{name}-{theme}", title)
    dock.end()
    wait_until(lambda: dock.is_idle, "threads to end")
    driver.viewer.close()


if __name__ == "__main__":
    raise SystemExit(main())
