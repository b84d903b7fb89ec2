"""Make the pictures of the dock again, from a real run in a real napari window.

    tools/with-display.sh python docs/images/make_gui.py
    ... make_gui.py --out wide --window 3840 2160 --width 320 --theme light

Opens the sample `precipitates`, extracts features, paints its scribbles, looks, scores,
saves a classifier and runs a batch, by the dock's own controls where these need no file
dialog; measures position in a ViT that has some (`twin-table`, of the tests). Writes
the window and each panel as `dock-*.png` beside this script.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from qtpy.QtCore import QEventLoop, QPoint, Qt, QTimer
from qtpy.QtTest import QTest

from napari_alibi_seg._widgets import Dock
from napari_alibi_seg._widgets._parts import Section
from napari_alibi_seg._widgets._samples import samples_folder
from napari_alibi_seg.data import read_labels

if TYPE_CHECKING:
    from qtpy.QtWidgets import QAbstractButton

HERE = Path(__file__).resolve().parent
SAMPLE = "precipitates"
CLASSES = ("matrix", "large precipitate", "fine precipitate")
# A small ViT with a position table.
TWIN = HERE.parents[1] / "tests" / "data" / "twin-table.safetensors"
POSITION = "Position in the features"
COLOURS = 256
WIDEST = 1400
PATIENCE_S = 120.0


def main(argv: Sequence[str] | None = None) -> int:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--out", type=Path, default=HERE, metavar="DIR")
    options.add_argument("--window", type=int, nargs=2, default=(1500, 950))
    options.add_argument("--width", type=int, default=360, help="of the dock, pixels")
    options.add_argument("--theme", default="dark", choices=("dark", "light"))
    options.add_argument(
        "--full-size", action="store_true", help="do not make a large window smaller"
    )
    args = options.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    # in the pictures one sees this path: it is the same wherever they are made
    home = Path(tempfile.gettempdir()) / "alibi-seg"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    try:
        Shoot(home, args).run()
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return 0


def wait(seconds: float) -> None:
    """Let the window live for a while."""
    loop = QEventLoop()
    QTimer.singleShot(round(1000 * seconds), loop.quit)
    loop.exec()


def wait_for(is_done: Callable[[], Any], what: str) -> None:
    """Let the window live until something is so."""
    until = time.monotonic() + PATIENCE_S
    while not is_done():
        if time.monotonic() > until:
            sys.exit(f"Waited {PATIENCE_S:.0f} s in vain: {what}.")
        wait(0.05)
    wait(0.3)


def click(button: QAbstractButton) -> None:
    """Press a button as a user does."""
    if not button.isEnabled():
        sys.exit(f"{button.text()!r} cannot be pressed: {button.toolTip()}")
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)


class Shoot:
    """One run through the dock, with a picture of every panel."""

    def __init__(self, home: Path, args: argparse.Namespace) -> None:
        import napari

        # Triton must be there before a canvas brings Mesa's LLVM, or it takes that for
        # its own and dies
        import timm  # noqa: F401

        self.home, self.out, self.width = home, args.out, args.width
        self.is_full_size = args.full_size
        shutil.copy(samples_folder() / f"{SAMPLE}.tif", home)
        self.viewer = napari.Viewer()
        self.viewer.theme = args.theme
        self.window = self.viewer.window._qt_window
        self.window.resize(*args.window)
        self.dock = Dock(self.viewer, store=home / "features")
        self.frame = self.viewer.window.add_dock_widget(
            self.dock, name="ALiBi Segmentation", area="right"
        )
        wait(0.5)
        self._resize()

    def run(self) -> None:
        """Go through all panels."""
        self.picture_window("empty")
        self.open()
        self.extract()
        self.paint()
        self.look()
        self.finish()
        self.batch()
        self.position()
        self.dock.end()
        wait_for(lambda: self.dock.is_idle, "threads did not end")
        self.viewer.close()

    # ------------------------------------------------------------------------ steps

    def open(self) -> None:
        """Open the image."""
        self.viewer.open(str(self.home / f"{SAMPLE}.tif"))
        wait_for(lambda: self.dock.image is not None, "the image was not opened")
        self.picture_panel("image", "1  Image")

    def extract(self) -> None:
        """Choose the ViT that comes with the package, and extract."""
        self.dock.change_settings({"features": "both", "backbone": "alibi-tiny"})
        self._open_only("2  Features")
        wait(0.3)
        click(self.dock.features_panel.extract)
        lane = self.dock.features._lane
        wait_for(lambda: not lane.is_busy, "the extraction did not end")
        self.picture_panel("features", "2  Features")

    def paint(self) -> None:
        """Add classes and paint what belongs to the sample."""
        dock = self.dock
        for name in CLASSES:
            dock.session.classes.add(name)
        dock.scribbles.pick_nth(1)
        wait_for(lambda: dock.stage.current.scribbles is not None, "no scribbles layer")
        painted = read_labels(samples_folder() / f"{SAMPLE}_scribbles.png")
        for i in np.unique(painted[painted > 0]):
            layer = dock.stage.current.scribbles
            layer.data_setitem(np.nonzero(painted == i), int(i))
        wait_for(
            lambda: dock.result.fractions and not dock.train._live.is_busy, "no result"
        )
        self._open("1  Image", "2  Features", "4  Classes and scribbles", "5  Train")
        self.picture_window("window")
        self.picture_panel("classes", "4  Classes and scribbles")
        self._open_only("5  Train")
        click(dock.train_panel.score_button)
        wait_for(lambda: dock.train._score.is_idle, "no score")
        self.picture_panel("train", "5  Train")
        self.picture_panel("result", "6  Result")

    def look(self) -> None:
        """Show clusters of features."""
        panel = self.dock.look_panel
        self._open_only("3  Look")
        wait(0.3)
        click(panel.clusters_toggle)
        wait_for(lambda: self.dock.stage.current.overlay is not None, "no clusters")
        self.picture_panel("look", "3  Look")
        self.dock.stage.current.scribbles.visible = False
        self.dock.toggle_overlay()
        self._open("3  Look", "4  Classes and scribbles")
        self.picture_window("clusters")
        click(panel.hide_button)
        self.dock.toggle_overlay()
        self.dock.stage.current.scribbles.visible = True

    def finish(self) -> None:
        """Save the classifier."""
        path = self.home / f"{SAMPLE}.alibiseg"
        self.dock.classifier_panel.save_wanted.emit(path)
        wait_for(path.exists, "the classifier was not saved")
        self.picture_panel("classifier", "7  Classifier")

    def batch(self) -> None:
        """Apply it to a folder."""
        folder, panel = self.home / "series", self.dock.batch_panel
        folder.mkdir()
        for kind in (SAMPLE, "graded", "grains"):
            shutil.copy(samples_folder() / f"{kind}.tif", folder)
        self.dock.tabs.setCurrentIndex(1)
        panel._add(sorted(folder.iterdir()))
        wait(0.3)
        click(panel.run_button)
        wait_for(lambda: panel.lane.is_idle, "the batch did not end")
        self.save("batch", self.dock.grab())

    def position(self) -> None:
        """Measure a ViT with a position table, then the same with a cure."""
        dock, panel = self.dock, self.dock.position_panel
        dock.tabs.setCurrentIndex(0)
        twin = shutil.copy(TWIN, self.home)
        dock.change_settings({"features": "vit", "backbone": str(twin)})
        self._open("2  Features", POSITION)
        click(dock.features_panel.extract)
        wait_for(lambda: not dock.features_panel.warning.isHidden(), "no warning")
        click(panel.measure)
        wait_for(lambda: panel.found.isVisible(), "no measurement")
        self.picture_panel("warning", "2  Features")
        self.picture_panel("position", POSITION)
        click(panel.layers)
        self._open("2  Features", POSITION)
        self.picture_window("place")
        click(panel.layers)

    # --------------------------------------------------------------------- pictures

    def _resize(self) -> None:
        self.window.resizeDocks([self.frame], [self.width], Qt.Orientation.Horizontal)
        wait(0.3)

    def _open(self, *titles: str) -> None:
        for title, section in self.dock.sections.items():
            section.fold(title in titles)
        self._resize()

    def _open_only(self, title: str) -> None:
        self._open(title)
        for part in self.dock.sections[title].body.findChildren(Section):
            part.fold(True)
        wait(0.3)

    def picture_panel(self, name: str, title: str) -> None:
        """Save a picture of one panel, its heading included."""
        self._open_only(title)
        section = self.dock.sections[title]
        # what the dock paints behind it belongs to the picture
        at = section.mapTo(self.dock, QPoint(0, 0))
        height = min(section.height(), self.dock.height() - at.y())
        whole = self.dock.grab()
        ratio = whole.devicePixelRatio()
        self.save(
            name,
            whole.copy(
                0,
                round(at.y() * ratio),
                whole.width(),
                round(height * ratio),
            ),
        )

    def picture_window(self, name: str) -> None:
        """Save a picture of the whole window."""
        wait(0.5)
        path = self.out / f"dock-{name}.png"
        self.viewer.screenshot(str(path), canvas_only=False, flash=False)
        self._pack(path)

    def save(self, name: str, pixmap: Any) -> None:
        """Save a picture of widgets."""
        path = self.out / f"dock-{name}.png"
        pixmap.save(str(path))
        self._pack(path)

    def _pack(self, path: Path) -> None:
        """Make a picture small: few colours do for widgets, and nearly for grains.

        Colours are chosen by how far they are apart, so that no small swatch is lost.
        """
        with Image.open(path) as picture:
            small = picture.convert("RGB")
        if small.width > WIDEST and not self.is_full_size:
            height = round(WIDEST * small.height / small.width)
            small = small.resize((WIDEST, height), Image.Resampling.LANCZOS)
        few = small.quantize(
            COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
        )
        few.save(path, optimize=True)


if __name__ == "__main__":
    raise SystemExit(main())
