"""One walk through the whole dock on a real micrograph, by mouse and keys.

`Walk` does what a user does, panel after panel, and says after each which one it was
in: the test checks what came out, and the script that takes pictures takes one there.
Strokes are placed from the ground truth: short lines that lie well inside a class.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtCore import Qt
from scipy import ndimage
from widgets import gestures
from widgets.driver import Driver, wait_until

import napari_alibi_seg
from napari_alibi_seg.data import read_labels

DATASET = "public/superalloy"
NAMES = ("matrix", "large", "small")
COLOURS = ("#1f77b4", "#ffbf00", "#d62728")
STROKES = 3
PIXEL_UM = 0.02
SCALE = 1
_PATIENCE_S = 150.0  # on a computer that does other things too
_BRUSH = 3  # the fine precipitates are a few pixels wide
_LONGEST = 30


@dataclass(frozen=True)
class Micrograph:
    """An image, its ground truth, and others of its series."""

    path: Path
    mask: Path
    others: tuple[Path, ...]


def find_micrograph(shared: Path) -> Micrograph:
    """Return the first superalloy and the next; ids of its mask begin at 0."""
    folder = shared / "data" / DATASET
    images = sorted((folder / "images").iterdir())
    mask = folder / "masks" / f"{images[0].stem}.png"
    return Micrograph(images[0], mask, tuple(images[1:2]))


def place_strokes(inside: Any, radius: float = _BRUSH) -> list[Any]:
    """Return lines, ((row, col), (row, col)), that a brush keeps inside a class.

    Parameters
    ----------
    inside : (Y, X) array of bool
        Where the class is.
    radius : float
        Of the brush.

    Returns
    -------
    list
        Up to `STROKES` of the longest there are, far from one another.
    """
    deep = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1] > radius
    # length of the run of deep pixels that ends at each pixel of its row
    runs = np.zeros(deep.shape, int)
    for col in range(deep.shape[1]):
        before = runs[:, col - 1] if col else 0
        runs[:, col] = np.where(deep[:, col], np.minimum(before + 1, _LONGEST), 0)
    lines: list[Any] = []
    for _ in range(STROKES):
        at = np.argwhere((runs == runs.max()) & (runs > 0))
        if not len(at):
            break
        # the first near the middle, each other far from those before
        others = np.array([b for _, b in lines])
        if lines:
            away = np.linalg.norm(at[:, None] - others[None], axis=2).min(axis=1)
        else:
            away = -np.linalg.norm(at - np.array(deep.shape) / 2, axis=1)
        row, col = (int(n) for n in at[np.argmax(away)])
        lines.append(((row, col - int(runs[row, col]) + 1), (row, col)))
        runs[max(0, row - 30) : row + 30, max(0, col - 60) : col + 60] = 0
    return lines


class Walk:
    """A user with an image, a viewer and a folder.

    Parameters
    ----------
    driver : Driver
        With a dock.
    micrograph : Micrograph
        Its images are copied into the folder: a project is kept beside each.
    folder : Path
        For all files.
    seen : callable
        (name, title of the section or None) when a panel shows what it can.
    """

    def __init__(
        self,
        driver: Driver,
        micrograph: Micrograph,
        folder: Path,
        seen: Callable[[str, str | None], None] = lambda *_: None,
    ) -> None:
        self.driver, self.folder, self.seen = driver, folder, seen
        self.truth = read_labels(micrograph.mask)
        self.path = Path(shutil.copy(micrograph.path, folder / "alloy.tif"))
        series = folder / "series"
        series.mkdir()
        self.series = [
            Path(shutil.copy(p, series)) for p in (micrograph.path, *micrograph.others)
        ]
        self.out = series / "segmented"

    @property
    def dock(self) -> Any:
        return self.driver.dock

    def file(self, name: str) -> Path:
        return self.folder / name

    def run(self) -> None:
        """Go through all panels, in the order of the work."""
        for step in (
            *(self.image, self.features, self.look, self.classes),
            *(self.train, self.result, self.classifier, self.batch),
        ):
            step()

    # ---------------------------------------------------------------------- panels

    def _settle(self) -> None:
        self.driver.settled(_PATIENCE_S)

    def _open(self, title: str) -> None:
        gestures.unfold(self.dock.sections[title])

    def image(self) -> None:
        """Open the file and type its pixel size."""
        self.driver.open(self.path)
        panel = self.dock.image_panel
        gestures.write(panel.size, f"{PIXEL_UM}")
        # the finest precipitates lose by it, and all is four times as quick
        gestures.pick(panel.scale, str(SCALE))
        gestures.pick(panel.device, "cpu")
        self.seen("image", "1  Image")

    def features(self) -> None:
        """Choose the ViT that comes with the package, and extract."""
        panel = self.dock.features_panel
        gestures.pick(panel.kind, "both")
        gestures.pick(panel.backbone, "alibi-tiny")
        gestures.press(panel.extract)
        self._settle()
        self.seen("features", "2  Features")

    def look(self) -> None:
        """Components, one of them, clusters, and likeness to a point."""
        panel = self.dock.look_panel
        self._open("3  Look")
        self.looks: dict[str, Any] = {}
        gestures.press(panel.components_toggle)
        self._overlay("components")
        gestures.pick(panel.components_combo, 1)
        self._overlay("component 2")
        gestures.press(panel.clusters_toggle)
        gestures.write(panel.clusters_spin, "3")
        self._overlay("clusters")
        self.seen("look", "3  Look")
        gestures.press(panel.similarity_toggle)
        self.point = self._middle_of(1)
        self.driver.click(*self.point)
        self._overlay("similarity")
        self.seen("similarity", "3  Look")
        gestures.press(panel.hide_button)
        self._settle()
        gestures.press(self.dock.sections["3  Look"].head)

    def _overlay(self, name: str) -> None:
        self._settle()
        layer = self.dock.stage.current.overlay
        self.looks[name] = None if layer is None else np.array(layer.data)

    def _middle_of(self, truth_id: int) -> tuple[int, int]:
        ((row, c0), (_, c1)), *_ = place_strokes(self.truth == truth_id)
        return row, (c0 + c1) // 2

    def classes(self) -> None:
        """Add three classes, rename one, recolour all."""
        panel = self.dock.classes_panel
        for name in ("first", *NAMES[1:]):
            gestures.press(panel.buttons.add_button)
            gestures.name_row(panel.view, name)
        gestures.click_cell(panel.view, 0, 1, twice=True)
        gestures.name_row(panel.view, NAMES[0])
        for i, colour in enumerate(COLOURS):
            gestures.choose_colour(panel.view, i, colour)

    def train(self) -> None:
        """Paint three strokes of each class, score, and go where to paint next."""
        self.paint()
        self._settle()
        self.seen("classes", "4  Classes and scribbles")
        panel = self.dock.train_panel
        gestures.press(panel.score_button)
        self._settle()
        self.seen("train", "5  Train")
        gestures.press(panel.least_button)
        self._settle()
        self.least_certain = tuple(self.driver.viewer.camera.center[-2:])
        self.driver.viewer.reset_view()

    def paint(self) -> None:
        """Paint with the keys 1 to 3 and a brush made small by its key."""
        driver = self.driver
        for i in range(len(NAMES)):
            driver.key(str(i + 1))
            for _ in range(int(driver.scribbles.brush_size) - _BRUSH):
                driver.key(Qt.Key.Key_BracketLeft)
            assert driver.scribbles.brush_size == _BRUSH
            for a, b in place_strokes(self.truth == i):
                middle = (a[0], (a[1] + b[1]) / 2)
                driver.stroke(a, middle, b)

    def result(self) -> None:
        """Show the maps, save everything, and the scribbles too."""
        panel = self.dock.result_panel
        gestures.press(panel.uncertainty)
        gestures.press(panel.probability)
        self._settle()
        gestures.pick(panel.class_choice, 2)
        self._settle()
        for kind, name in (
            ("labels", "labels.tif"),
            ("probabilities", "probabilities.tif"),
            ("table", "table.csv"),
        ):
            gestures.choose_files(panel.save_buttons[kind], self.file(name))
            self._settle()
        self.seen("result", "6  Result")
        gestures.press(panel.uncertainty)
        gestures.press(panel.probability)
        classes = self.dock.classes_panel
        to = self.file("scribbles.tif")
        gestures.choose_in_menu(classes.buttons.scribbles_button, "Save scribbles", to)
        self._settle()

    def classifier(self) -> None:
        """Save the classifier."""
        self._open("7  Classifier")
        panel = self.dock.classifier_panel
        gestures.choose_files(panel.save_button, self.file("alloy.alibiseg"))
        self._settle()
        self.seen("classifier", "7  Classifier")

    def batch(self) -> None:
        """Apply it to all files of the series."""
        panel, bar = self.dock.batch_panel, self.dock.tabs.tabBar()
        gestures.turn_to(bar, 1)
        gestures.choose_files(panel.add_files_button, *self.series)
        gestures.press(panel.run_button)
        wait_until(lambda: not panel.lane.is_busy, "the batch", _PATIENCE_S)
        self.seen("batch", None)
        gestures.turn_to(bar, 0)

    # ------------------------------------------------------------------- afterwards

    def load_in(self, driver: Driver) -> None:
        """Load the classifier in another viewer, with the image open."""
        driver.open(self.series[0])
        gestures.unfold(driver.dock.sections["7  Classifier"])
        panel = driver.dock.classifier_panel
        gestures.choose_files(panel.load_button, self.file("alloy.alibiseg"))
        driver.settled(_PATIENCE_S)
        if driver.dock.features_panel.extract.isEnabled():
            gestures.press(driver.dock.features_panel.extract)
            driver.settled(_PATIENCE_S)

    def run_command(self) -> subprocess.CompletedProcess[str]:
        """Run the command line that the Batch tab shows."""
        words = shlex.split(self.dock.batch_panel.command.toPlainText())
        assert words[:2] == ["alibi-seg", "apply"], words
        source = str(Path(napari_alibi_seg.__file__).parents[1])
        kept = [p for p in (os.environ.get("PYTHONPATH"),) if p]
        return subprocess.run(
            [sys.executable, "-m", "napari_alibi_seg", *words[1:]],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([source, *kept])},
            capture_output=True,
            text=True,
            check=False,
        )
