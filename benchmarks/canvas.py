"""Painting and panning on 400 megapixels beside 4 megapixels, in a real napari window.

The same gestures by mouse on an image of 20,000 x 20,000 pixels, of which the dock
shows parts, and on one of 2000 x 2000, which it shows whole; each in its own process.
The image is a micrograph, mirrored (synthetic where there is none), as a tiled,
deflate-compressed TIFF without coarser levels: they are made first, and timed.

1. painting: milliseconds that each mouse move of a stroke holds the GUI thread, the
   drawing of the canvas included, with training switched off and on;
2. panning: the same for each move of the camera by 48 pixels of the screen, over parts
   that were not seen before, and the longest gap between ticks of a timer meanwhile;
3. after the camera rests: seconds until strokes can be painted there, and until all
   that is in view is segmented.

It needs a display with OpenGL (``tools/with-display.sh python benchmarks/canvas.py``).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _common import _proc_mb, in_child, mirrored, parser, report, save, table
from gui import WINDOW, Heart, _load, gap_row, wait, wait_for, what_is_missing

PART = "canvas"
_BASE_PX = 5120
_TILE_PX = 512
_STEP_PX = 48  # of the screen, at each move of the camera
_ZOOMS = (1.0, 0.25)
_HEAD = ("what", "moves", "median ms", "95 % ms", "longest ms", "over 50 ms")


def main(argv: Sequence[str] | None = None) -> int:
    options = parser(__doc__)
    options.add_argument("--strokes", type=int, help="a phase (default 12)")
    options.add_argument("--side", type=int, help="of the large one (default 20000)")
    args = options.parse_args(argv)
    missing = what_is_missing()
    if missing:
        print(f"Skipped: {PART} {missing}")
        return 0
    sides = (2000, args.side or (9000 if args.quick else 20_000))
    strokes = args.strokes or (3 if args.quick else 12)
    found: dict[str, Any] = {"strokes": strokes, "load_before": _load()}
    with tempfile.TemporaryDirectory() as folder:
        for side in sides:
            found[str(side)] = in_child(
                f"{PART}:run_window",
                data=args.data,
                side=side,
                strokes=strokes,
                folder=folder,
            )
            _report(side, found[str(side)])
    found["load_after"] = _load()
    print(f"Load of the machine: {found['load_before']} to {found['load_after']}.")
    save(PART, found)
    return 0


def _report(side: int, found: dict[str, Any]) -> None:
    title = f"{side} x {side} pixels, {found['layer']}; canvas {found['screen']}"
    rows = [gap_row(name, ms) for name, ms in found["moves"].items()]
    rows += [gap_row(f"gaps: {n}", ms) for n, ms in found["gaps"].items()]
    report(PART, title, table(_HEAD, rows))
    waits = [[name, f"{seconds:.2f}"] for name, seconds in found["seconds"].items()]
    report(PART, f"{side} x {side}: waits", table(("until", "seconds"), waits))
    print(f"Resident after imports, and at the most: {found['resident_mb']} MB.")


def write_mosaic(data: Path, side: int, path: Path) -> None:
    """Write a tiled TIFF of a micrograph that is mirrored at its edges."""
    import tifffile

    base = _micrograph(data)
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        tif.write(
            _tiles(base, side),
            shape=(side, side),
            dtype=base.dtype,
            tile=(_TILE_PX, _TILE_PX),
            compression="deflate",
            compressionargs={"level": 1},
        )


def _tiles(base: np.ndarray, side: int) -> Iterator[np.ndarray]:
    for y in range(0, side, _TILE_PX):
        for x in range(0, side, _TILE_PX):
            rows, cols = (
                _reflected(at, n) for at, n in zip((y, x), base.shape, strict=True)
            )
            yield base[np.ix_(rows, cols)]


def _reflected(start: int, n: int) -> np.ndarray:
    at = np.arange(start, start + _TILE_PX) % (2 * n)
    return np.where(at < n, at, 2 * n - 1 - at)


def _micrograph(data: Path) -> np.ndarray:
    from napari_alibi_seg._base import Window
    from napari_alibi_seg.data import open_image, synthesize

    files = sorted((data / "large").glob("*.tif")) if (data / "large").is_dir() else []
    if not files:
        return mirrored(synthesize("precipitates", (1024, 1024)).image, 2048)
    source = open_image(files[0])
    height, width = (min(n, _BASE_PX) for n in source.shape)
    return np.ascontiguousarray(source.read(Window(0, height, 0, width))[..., 0])


# ---------------------------------------------------------------------------- window


def run_window(data: str, side: int, strokes: int, folder: str) -> dict[str, Any]:
    """Measure one image in a window of its own."""
    import os

    home = Path(tempfile.mkdtemp(dir=folder))
    os.environ["ALIBI_SEG_CACHE"] = str(home / "cache")
    os.environ["ALIBI_SEG_PROJECTS"] = str(home / "projects")
    write_mosaic(Path(data), side, home / "image.tif")
    hand = _Hand(home)
    try:
        hand.open(home / "image.tif")
        hand.paint("painting, training off", strokes, live=False)
        hand.paint("painting, training on", strokes, live=True)
        for zoom in _ZOOMS:
            hand.pan(f"panning at {zoom:g}", zoom)
    finally:
        hand.close()
    return hand.found


class _Hand:
    """A viewer with the dock, and what is measured of it."""

    def __init__(self, home: Path) -> None:
        import napari

        from napari_alibi_seg._widgets import Dock

        self.viewer = napari.Viewer()
        self.viewer.window._qt_window.resize(*WINDOW)
        self.dock = Dock(self.viewer, store=home / "stores")
        self.viewer.window.add_dock_widget(self.dock, area="right")
        self.canvas = self.viewer.window._qt_viewer.canvas.native
        self.heart = Heart()
        wait(1.0)
        self.moves: dict[str, list[float]] = {}
        self.seconds: dict[str, float] = {}
        self.before_mb = _proc_mb("VmRSS") or 0.0

    @property
    def found(self) -> dict[str, Any]:
        peak = _proc_mb("VmHWM") or 0.0
        return {
            "screen": f"{self.canvas.width()} x {self.canvas.height()}",
            "layer": self.layer,
            "moves": self.moves,
            "gaps": self.heart.gaps,
            "seconds": self.seconds,
            "resident_mb": [round(self.before_mb), round(peak)],
        }

    def open(self, path: Path) -> None:
        started = time.perf_counter()
        self.dock.large.open(path)
        wait_for(lambda: self.dock.stage.current is not None, "the layer")
        self.seconds["image is on the screen"] = time.perf_counter() - started
        wait_for(lambda: self.dock.image is not None, "the image is read")
        self.seconds["image can be painted on"] = time.perf_counter() - started
        (image,) = self.dock.stage.images()
        self.layer = "in parts" if self.dock.stage.shows_parts else "whole"
        self.side = image.data[0].shape[0] if image.multiscale else image.data.shape[0]
        for i in (1, 2):
            self.dock.session.classes.add(class_id=i)
        self._look(self.side / 2, self.side / 2, 1.0)
        self.dock.scribbles.arm(1)
        wait(1.0)

    def _look(self, row: float, col: float, zoom: float) -> None:
        self.viewer.camera.zoom = zoom
        self.viewer.camera.center = (row, col)

    def paint(self, name: str, strokes: int, *, live: bool) -> None:
        """Paint strokes of both classes at places in view; train on them or not."""
        self.dock.change_settings({"live": live})
        self._idle()
        width, height = self.canvas.width(), self.canvas.height()
        rng = np.random.default_rng(0)
        with self.heart.phase(name):
            for k in range(strokes):
                self.dock.scribbles.arm(1 + k % 2)
                row = int(rng.integers(40, height - 40))
                col = int(rng.integers(40, width - 160))
                self._stroke(name, row, col)
                wait(0.3)
        self._idle()

    def _stroke(self, name: str, row: int, col: int) -> None:
        from qtpy.QtCore import QPoint, Qt
        from qtpy.QtTest import QTest

        left, at = Qt.MouseButton.LeftButton, QPoint(col, row)
        QTest.mouseMove(self.canvas, at)
        QTest.mousePress(self.canvas, left, pos=at)
        for i in range(1, 13):
            at = QPoint(col + 10 * i, row + i % 3)
            self._timed(name, lambda at=at: self._drag(at))
            wait(0.016)
        QTest.mouseRelease(self.canvas, left, pos=at)

    def _drag(self, at: Any) -> None:
        from qtpy.QtCore import QEvent, QPointF, Qt
        from qtpy.QtGui import QMouseEvent
        from qtpy.QtWidgets import QApplication

        left, none = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton
        where = QPointF(at)
        event = QMouseEvent(
            QEvent.Type.MouseMove,
            where,
            QPointF(self.canvas.mapToGlobal(at)),
            none,
            left,
            Qt.KeyboardModifier.NoModifier,
        )
        QApplication.sendEvent(self.canvas, event)

    def _timed(self, name: str, do: Any) -> None:
        """Note how long the GUI thread is held, until the canvas is drawn."""
        from qtpy.QtWidgets import QApplication

        started = time.perf_counter()
        do()
        QApplication.processEvents()
        ms = 1000 * (time.perf_counter() - started)
        self.moves.setdefault(name, []).append(ms)

    def pan(self, name: str, zoom: float) -> None:
        """Move the camera over what was not seen yet, then wait for what follows."""
        start = self.side * 0.1
        self._look(start, start, zoom)
        wait(0.5)
        self._idle()
        steps = 60
        path = np.linspace(start, min(self.side * 0.9, start + steps * _STEP_PX / zoom),
                           steps)  # fmt: skip
        with self.heart.phase(name):
            for at in path:
                center = (float(at), float(at))
                self._timed(name, lambda c=center: self._look(*c, zoom))
                wait(0.016)
        self._rest(name)

    def _rest(self, name: str) -> None:
        stage, started = self.dock.stage, time.perf_counter()
        wait_for(
            lambda: not (stage.is_canvas_away or self.dock.scribbles.is_loading),
            "the canvas",
        )
        self.seconds[f"{name}: strokes can be painted"] = time.perf_counter() - started
        wait(0.3)  # the debounce of what follows
        self._idle()
        spent = time.perf_counter() - started
        self.seconds[f"{name}: all in view segmented"] = spent

    def _idle(self) -> None:
        lanes = [lane for flow in self.dock.flows for lane in flow.lanes]
        wait(0.2)
        wait_for(lambda: not any(lane.is_busy for lane in lanes), "all work done")

    def close(self) -> None:
        self.dock.end()
        wait_for(lambda: self.dock.is_idle, "threads to end")


if __name__ == "__main__":
    raise SystemExit(main())
