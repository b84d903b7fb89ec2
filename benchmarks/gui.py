"""The dock in a real napari window: who holds the GUI thread, and how soon one sees.

2048 x 2048, three classes, strokes painted by mouse events on the canvas. Each kind of
features has its own process and window. Three questions:

1. callbacks: how long does each callback of ours hold the GUI thread while features
   are extracted, while a stroke is trained on and while its result is streamed;
2. heartbeat: a timer asks for a tick every 10 ms; how long are the gaps between ticks
   in napari alone, idle and painting, and beside our work;
3. latency: from the release of the mouse button (debounce included) to the first
   changed pixel of the result in view, in the layer's data and on the screen, to the
   whole visible area at screen resolution, and to the full result.

It needs a display with OpenGL (``tools/with-display.sh python benchmarks/gui.py``). The
ViT is a ViT-S/14 with random weights unless --backbone names another: features that
mean nothing cost the same.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from _common import in_child, parser, report, save, table, three_phases, version

PART = "gui"
KINDS = ("classical", "vit", "both")
VIEWS = {"whole image": None, "1:1": 1.0}

LIMIT_MS = 50.0
BEAT_MS = 10
WINDOW = (1500, 950)
STROKE_PX = 48  # on the screen
MOVES = 8
MOVE_S = 0.016  # what a mouse sends 60 times a second
PATIENCE_S = 300.0
AIMS_S = {"first pixel drawn": 0.3, "visible area": 2.0}
LATENCIES = ("first pixel", "first pixel drawn", "trained", "visible area", "full")


def main(argv: Sequence[str] | None = None) -> int:
    options = parser(__doc__)
    options.add_argument("--side", type=int, help="pixels a side (default 2048)")
    options.add_argument("--strokes", type=int, help="that are timed (default 12)")
    options.add_argument(
        "--only", nargs="+", choices=KINDS, default=KINDS, metavar="FEATURES"
    )
    options.add_argument(
        "--backbone", metavar="NAME|PATH", help="default: a random ViT-S/14"
    )
    args = options.parse_args(argv)
    missing = what_is_missing()
    if missing:
        print(f"Skipped: {PART} {missing}")
        return 0
    side = args.side or (512 if args.quick else 2048)
    strokes = args.strokes or (2 if args.quick else 12)
    found: dict[str, Any] = {"side": side, "strokes": strokes, "load_before": _load()}
    with tempfile.TemporaryDirectory() as folder:
        backbone = args.backbone or _random_backbone(Path(folder))
        for kind in args.only:
            found[kind] = in_child(
                f"{PART}:run_window",
                data=args.data,
                side=side,
                strokes=strokes,
                kind=kind,
                backbone=backbone,
                folder=folder,
            )
            _report(kind, found[kind], side, args.backbone)
            _report_latency({kind: found[kind]})
    found["convpaint"] = _beside_convpaint(args.data, side, min(strokes, 3))
    if found["convpaint"]:
        _report_latency({}, found["convpaint"])
    found["load_after"] = _load()
    print(f"Load of the machine: {found['load_before']} to {found['load_after']}.")
    save(PART, found)
    return 0


def what_is_missing() -> str:
    """Return what keeps this machine from showing a window, or nothing."""
    for package in ("napari", "qtpy"):
        if find_spec(package) is None:
            return f"needs {package}: pip install 'napari-alibi-seg[all]'."
    displays = ("DISPLAY", "WAYLAND_DISPLAY")
    if sys.platform == "linux" and not any(os.environ.get(d) for d in displays):
        return "needs a display: run it on a desktop, or by tools/with-display.sh."
    return ""


def _load() -> float | None:
    """Return what else keeps the machine busy: processes, mean of a minute."""
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None


def _random_backbone(folder: Path) -> str:
    from _vits import random_vit

    # with a position table it loads by its path alone, as a user would pick it
    return str(random_vit(folder, position=True))


# ------------------------------------------------------------------------- arithmetic


def callback_rows(times: Sequence[tuple[str, float]]) -> list[list[Any]]:
    """Return name, calls, median, longest in ms and calls over 50 ms; longest first."""
    spent: dict[str, list[float]] = {}
    for name, seconds in times:
        spent.setdefault(name, []).append(1000 * seconds)
    return [
        [
            *(name, len(ms), f"{statistics.median(ms):.1f}", f"{max(ms):.1f}"),
            sum(x > LIMIT_MS for x in ms),
        ]
        for name, ms in sorted(spent.items(), key=lambda item: -max(item[1]))
    ]


def gaps_ms(ticks: Sequence[float]) -> list[float]:
    """Return the milliseconds between ticks given in seconds."""
    return (1000 * np.diff(ticks)).tolist()


def gap_row(name: str, gaps: Sequence[float]) -> list[Any]:
    """Return a phase's number of gaps, their median, 95 % and the longest, in ms."""
    if not gaps:
        return [name, 0, None, None, None, None]
    late = sum(gap > LIMIT_MS for gap in gaps)
    at = (statistics.median(gaps), float(np.percentile(gaps, 95)), max(gaps))
    return [name, len(gaps), *(f"{x:.1f}" for x in at), late]


def latency_row(values: Sequence[float]) -> list[Any]:
    """Return median, 90 % and the longest of seconds."""
    if not values:
        return [None, None, None]
    at = (statistics.median(values), float(np.percentile(values, 90)), max(values))
    return [f"{x:.2f}" for x in at]


class Coverage:
    """How much of a view was painted since `begin`; pieces may overlap."""

    def __init__(self, view: tuple[int, int, int, int]) -> None:
        self.y0, self.y1, self.x0, self.x1 = view
        self._seen = np.zeros((self.y1 - self.y0, self.x1 - self.x0), bool)

    def add(self, y0: int, y1: int, x0: int, x1: int) -> None:
        """Note a piece, in pixels of the image."""
        rows = slice(max(0, y0 - self.y0), max(0, y1 - self.y0))
        cols = slice(max(0, x0 - self.x0), max(0, x1 - self.x0))
        self._seen[rows, cols] = True

    @property
    def is_complete(self) -> bool:
        return bool(self._seen.all())


# ------------------------------------------------------------------------- event loop


class Heart:
    """A timer that notes when it was served, by what was going on."""

    def __init__(self) -> None:
        from qtpy.QtCore import Qt, QTimer

        self.gaps: dict[str, list[float]] = {}
        self._ticks: list[float] = []
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.setInterval(BEAT_MS)
        self._timer.timeout.connect(lambda: self._ticks.append(time.perf_counter()))

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the gaps inside as of a phase."""
        self._ticks = [time.perf_counter()]
        self._timer.start()
        try:
            yield
        finally:
            self._timer.stop()
            # a block that ends while the timer is overdue ends a gap too
            self._ticks.append(time.perf_counter())
            self.gaps.setdefault(name, []).extend(gaps_ms(self._ticks))


def wait(seconds: float) -> None:
    """Let the window live for a while."""
    from qtpy.QtCore import QEventLoop, QTimer

    loop = QEventLoop()
    QTimer.singleShot(round(1000 * seconds), loop.quit)
    loop.exec()


def wait_for(is_done: Callable[[], bool], what: str) -> None:
    """Let the window live until something is so.

    Raises
    ------
    SystemExit
        If it takes minutes.
    """
    from qtpy.QtCore import QEventLoop, QTimer

    loop, timer, until = QEventLoop(), QTimer(), time.perf_counter() + PATIENCE_S
    timer.timeout.connect(
        lambda: (is_done() or time.perf_counter() > until) and loop.quit()
    )
    timer.start(5)
    if not is_done():
        loop.exec()
    timer.stop()
    if not is_done():
        raise SystemExit(f"Waited {PATIENCE_S:.0f} s in vain: {what}.")


# ----------------------------------------------------------------------------- mouse


class Mouse:
    """Paints strokes on the canvas of a viewer, as Qt's own events."""

    def __init__(self, viewer: Any, painted: np.ndarray) -> None:
        self.viewer = viewer
        self.canvas = viewer.window._qt_viewer.canvas.native
        self._painted = painted
        self._rng = np.random.default_rng(0)

    def view(self) -> tuple[int, int, int, int]:
        """Return y0, y1, x0, x1 of the visible pixels."""
        zoom, (cy, cx) = self.viewer.camera.zoom, self.viewer.camera.center[-2:]
        h, w = self.canvas.height() / zoom / 2, self.canvas.width() / zoom / 2
        rows, cols = self._painted.shape
        ys, xs = (
            (max(0, cy - h), min(rows, cy + h)),
            (max(0, cx - w), min(cols, cx + w)),
        )
        return int(ys[0]), int(ys[1]), int(xs[0]), int(xs[1])

    def place(self, class_id: int) -> tuple[float, float]:
        """Return a pixel of a class in view, beside which another stroke belongs."""
        y0, y1, x0, x1 = self.view()
        ys, xs = np.nonzero(self._painted[y0:y1, x0:x1] == class_id)
        if not len(ys):
            return (y0 + y1) / 2, (x0 + x1) / 2
        at = int(self._rng.integers(len(ys)))
        return float(y0 + ys[at]), float(x0 + xs[at])

    def stroke(self, class_id: int) -> float:
        """Paint a stroke; return when the button was let go."""
        from qtpy.QtCore import QPoint, Qt
        from qtpy.QtTest import QTest

        y, x = self.place(class_id)
        zoom, (cy, cx) = self.viewer.camera.zoom, self.viewer.camera.center[-2:]
        row = round((y - cy) * zoom + self.canvas.height() / 2)
        col = round((x - cx) * zoom + self.canvas.width() / 2)
        col = min(max(col, 5), self.canvas.width() - STROKE_PX - 5)
        row = min(max(row, 5), self.canvas.height() - 5)
        steps = [
            QPoint(col + STROKE_PX * i // MOVES, row + i % 2) for i in range(MOVES + 1)
        ]
        left = Qt.MouseButton.LeftButton
        QTest.mouseMove(self.canvas, steps[0])
        QTest.mousePress(self.canvas, left, pos=steps[0])
        for at in steps[1:]:
            QTest.mouseMove(self.canvas, at)
            wait(MOVE_S)
        released = time.perf_counter()
        QTest.mouseRelease(self.canvas, left, pos=steps[-1])
        return released


# ----------------------------------------------------------------------------- watch


class Watch:
    """Notes when what a stroke changes is in the layer, and when it is on the screen.

    It stands between the dock's live lane and what shows its events, and around the
    showing of each piece: nothing else tells a coarse piece from a fine one.
    """

    def __init__(self, dock: Any, canvas: Any, times: list[Any]) -> None:
        self.dock = dock
        self._times = times
        self._passed, self._passed_piece = dock.train._show, dock.result._show_piece
        dock.train._show, dock.result._show_piece = self._show, self._show_piece
        canvas.frameSwapped.connect(self._drawn)
        self.begin(0.0, (0, 1, 0, 1))

    def begin(self, released: float, view: tuple[int, int, int, int]) -> None:
        """Forget the stroke before."""
        self.released, self.at = released, {}  # type: dict[str, float]
        self._view, self._cover = view, Coverage(view)
        self.n_before = self.n_trained = len(self._times)

    @property
    def is_done(self) -> bool:
        return "full" in self.at and "first pixel drawn" in self.at

    def _note(self, what: str) -> None:
        self.at.setdefault(what, time.perf_counter() - self.released)

    def _show(self, event: Any) -> None:
        kind = type(event).__name__
        self._passed(event)
        if kind == "Trained":
            self._note("trained")
            self.n_trained = len(self._times)
        elif kind == "Finished":
            self._note("full")

    def _show_piece(self, piece: Any) -> None:
        changes = "first pixel" not in self.at and self._changes(piece)
        self._passed_piece(piece)
        if changes:
            self._note("first pixel")
        if "trained" in self.at and "visible area" not in self.at:
            w = piece.window
            self._cover.add(w.y0, w.y1, w.x0, w.x1)
            if self._cover.is_complete:
                self._note("visible area")

    def _changes(self, piece: Any) -> bool:
        labels, w = self.dock.stage.current.labels, piece.window
        y0, y1, x0, x1 = self._view
        y0, y1, x0, x1 = max(w.y0, y0), min(w.y1, y1), max(w.x0, x0), min(w.x1, x1)
        if y0 >= y1 or x0 >= x1:
            return False
        block = piece.labels_yx[y0 - w.y0 : y1 - w.y0, x0 - w.x0 : x1 - w.x0]
        return labels is None or bool((labels.data[y0:y1, x0:x1] != block).any())

    def _drawn(self) -> None:
        if "first pixel" in self.at:
            self._note("first pixel drawn")


# ---------------------------------------------------------------------------- window


def run_window(
    data: str, side: int, strokes: int, kind: str, backbone: str, folder: str
) -> dict[str, Any]:
    """Measure one kind of features in a window of its own."""
    if kind != "classical":
        # Triton must be there before Mesa's LLVM, or it takes the wrong one and dies
        import timm  # noqa: F401
    import napari
    from tifffile import imwrite

    image, painted, _ = three_phases(Path(data), side)
    home = Path(tempfile.mkdtemp(dir=folder))
    imwrite(home / "image.tif", image)
    viewer = napari.Viewer()
    viewer.window._qt_window.resize(*WINDOW)
    viewer.open(str(home / "image.tif"))
    wait(2.0)
    heart = Heart()
    mouse = Mouse(viewer, painted)
    canvas = [mouse.canvas.width(), mouse.canvas.height()]
    _napari_alone(viewer, mouse, heart)
    work = _Work(viewer, mouse, heart, Path(folder) / "stores")
    try:
        work.open(kind, backbone)
        work.extract()
        work.seed(painted)
        work.strokes(strokes)
        work.fluent(strokes)
    finally:
        work.close()
    return {
        "canvas": canvas,
        "callbacks": {n: callback_rows(t) for n, t in work.callbacks.items()},
        "gaps": {n: gap_row(n, g) for n, g in heart.gaps.items()},
        "latency": work.latency,
        "extraction_s": work.extraction_s,
    }


def _napari_alone(viewer: Any, mouse: Mouse, heart: Heart) -> None:
    """Note the heartbeat of napari without the dock, idle and while painting."""
    labels = viewer.add_labels(np.zeros(mouse._painted.shape, np.uint8))
    labels.mode, labels.brush_size = "paint", 8
    wait(0.5)
    with heart.phase("napari alone, idle"):
        wait(3.0)
    with heart.phase("napari alone, painting"):
        for k in range(8):
            labels.selected_label = 1 + k % 3
            mouse.stroke(labels.selected_label)
            wait(0.2)
    viewer.layers.remove(labels)


class _Work:
    """The dock in a window, and what is measured of it."""

    def __init__(self, viewer: Any, mouse: Mouse, heart: Heart, store: Path) -> None:
        from napari_alibi_seg._widgets import Dock, record_callbacks

        self.mouse, self.heart = mouse, heart
        self.viewer = viewer
        self.callbacks: dict[str, list[Any]] = {}
        self.latency: dict[str, list[dict[str, float]]] = {}
        self.extraction_s = 0.0
        self._recording = record_callbacks()
        self._times = self._recording.__enter__()
        self.dock = Dock(viewer, store=store)
        viewer.window.add_dock_widget(self.dock, name="ALiBi Segmentation")
        self.watch = Watch(self.dock, mouse.canvas, self._times)
        self._live = self.dock.train._live

    def _keep(self, phase: str, since: int, until: int | None = None) -> None:
        self.callbacks.setdefault(phase, []).extend(self._times[since:until])

    def open(self, kind: str, backbone: str) -> None:
        """Wait for the image; choose features and three classes."""
        since = len(self._times)
        dock = self.dock
        wait_for(lambda: dock.image is not None, "the image was not opened")
        with self.heart.phase("dock open, idle"):
            wait(3.0)
        chosen = {} if kind == "classical" else {"backbone": backbone}
        dock.change_settings({"features": kind, "live": False, **chosen})
        for name in ("matrix", "large", "fine"):
            dock.session.classes.add(name)
        dock.scribbles.pick_nth(1)
        wait_for(lambda: dock.stage.current.scribbles is not None, "no scribbles layer")
        self._keep("opening an image, adding classes", since)

    def extract(self) -> None:
        """Extract, and paint meanwhile."""
        since, started = len(self._times), time.perf_counter()
        lane = self.dock.features._lane
        if not lane.is_busy:
            self.dock.extract()
        with self.heart.phase("extraction"):
            wait(4.0)
        k = 0
        while lane.is_busy and k < 8:
            self.dock.scribbles.pick_nth(1 + k % 3)
            with self.heart.phase("extraction, painting"):
                self.mouse.stroke(1 + k % 3)
                wait(0.3)
            k += 1
        with self.heart.phase("extraction"):
            wait_for(lambda: not lane.is_busy, "the extraction did not end")
        self.extraction_s = time.perf_counter() - started
        self._keep("extraction", since)
        if not self.dock.image.is_extracted and self.dock.settings.needs_backbone:
            raise SystemExit("The extraction failed; the dock says why.")

    def seed(self, painted: np.ndarray) -> None:
        """Paint what a user painted before, and wait for the first result."""
        since, scribbles = len(self._times), self.dock.stage.current.scribbles
        self.dock.change_settings({"live": True})
        for i in np.unique(painted[painted > 0]):
            scribbles.data_setitem(np.nonzero(painted == i), int(i))
        self._finish("the first result")
        self._keep("first result", since)

    def _finish(self, what: str) -> None:
        """Wait until the dock has nothing more to do."""
        dock = self.dock
        wait(0.3)
        wait_for(
            lambda: dock.is_idle and not dock.train._debounce.isActive(), f"no {what}"
        )
        wait(0.1)

    def strokes(self, n: int) -> None:
        """Time strokes, one after the result of the other."""
        for name, zoom in VIEWS.items():
            if zoom is None:
                self.viewer.reset_view()
            else:
                y, x = self.mouse.place(1)
                self.viewer.camera.center, self.viewer.camera.zoom = (0, y, x), zoom
            wait(0.5)
            for k in range(-(-n // len(VIEWS))):
                self.latency.setdefault(name, []).append(self._timed(1 + k % 3))

    def _timed(self, class_id: int) -> dict[str, float]:
        since = len(self._times)
        self.dock.scribbles.pick_nth(class_id)
        wait(0.2)
        self._keep("picking a class", since)
        watch = self.watch
        with self.heart.phase("one stroke, trained and streamed"):
            watch.begin(0.0, self.mouse.view())
            watch.released = self.mouse.stroke(class_id)
            wait_for(lambda: watch.is_done, "a stroke changed nothing")
        self._keep("training", watch.n_before, watch.n_trained)
        self._keep("streaming", watch.n_trained)
        self._finish("end of a run")
        return dict(watch.at)

    def fluent(self, n: int) -> None:
        """Paint stroke after stroke without waiting for results."""
        since = len(self._times)
        self.viewer.reset_view()
        wait(0.5)
        with self.heart.phase("painting, live results on their way"):
            for k in range(n):
                self.dock.scribbles.pick_nth(1 + k % 3)
                self.mouse.stroke(1 + k % 3)
                wait(0.4)
        self._keep("painting without waiting", since)
        self._finish("the last result")

    def close(self) -> None:
        """End the window and all that runs in it."""
        self._recording.__exit__(None, None, None)
        self.dock.end()
        wait_for(lambda: self.dock.is_idle, "threads did not end")
        self.viewer.close()
        wait(0.2)


# ------------------------------------------------------------------------- convpaint


def _beside_convpaint(data: Path, side: int, strokes: int) -> dict[str, Any] | None:
    if version("napari-convpaint") == "absent":
        print("napari-convpaint is not installed; left out.")
        return None
    with tempfile.TemporaryDirectory() as folder:
        return in_child(
            f"{PART}:run_convpaint",
            data=data,
            side=side,
            strokes=strokes,
            folder=folder,
        )


def run_convpaint(data: str, side: int, strokes: int, folder: str) -> dict[str, Any]:
    """Train napari-convpaint's default and segment after each of some strokes.

    Its VGG16 has random weights where the file cannot be downloaded: as slow.
    """
    from napari_convpaint.convpaint_model import ConvpaintModel

    _random_vgg16(Path(folder))
    image, painted, _ = three_phases(Path(data), side)
    rng, seconds = np.random.default_rng(0), []
    model = ConvpaintModel()
    for k in range(strokes):
        ys, xs = np.nonzero(painted == 1 + k % 3)
        at = int(rng.integers(len(ys)))
        painted[ys[at] : ys[at] + 8, xs[at] : xs[at] + STROKE_PX] = 1 + k % 3
        started = time.perf_counter()
        model.train(image, painted)
        model.segment(image)
        seconds.append(time.perf_counter() - started)
    return {"full": seconds}


def _random_vgg16(folder: Path) -> None:
    """Put weights where napari-convpaint looks for them, unless they are there."""
    import torch
    from torchvision.models import vgg16

    where = Path(".cache/torch/hub/checkpoints/vgg16-397923af.pth")
    if (Path.home() / where).exists():
        return
    (folder / where).parent.mkdir(parents=True)
    torch.save(vgg16().state_dict(), folder / where)
    os.environ["HOME"] = str(folder)  # of this process, which measures nothing else


# --------------------------------------------------------------------------- reports

_CALLBACK_HEAD = ("callback", "calls", "median ms", "longest ms", "over 50 ms")
_GAP_HEAD = (
    *("phase", "gaps", "median ms", "95 % ms", "longest ms"),
    "over 50 ms",
)


def _report(kind: str, found: dict[str, Any], side: int, chosen: str | None) -> None:
    width, height = found["canvas"]
    title = f"{kind} features, {side} x {side}, canvas {width} x {height}"
    if kind != "classical":
        title += f", {Path(chosen).name if chosen else 'random ViT-S/14'}"
    rows = list(found["gaps"].values())
    report(PART, f"heartbeat, {title}", table(_GAP_HEAD, rows))
    for phase, rows in found["callbacks"].items():
        if rows:
            report(PART, f"callbacks, {phase}, {title}", table(_CALLBACK_HEAD, rows))


def latency_rows(found: dict[str, Any], convpaint: Any = None) -> list[list[Any]]:
    """Return a row a kind of features, view and milestone, with what is aimed at."""
    rows = []
    for kind, one in found.items():
        for view, strokes in one["latency"].items():
            for what in LATENCIES:
                values = [s[what] for s in strokes if what in s]
                aim = AIMS_S.get(what)
                within = sum(v <= aim for v in values) if aim else None
                kept = f"{within} of {len(values)} in {aim} s" if aim else ""
                rows.append([kind, view, what, *latency_row(values), kept])
    if convpaint:
        times = convpaint["full"]
        rows.append(["napari-convpaint", "any", "full", *latency_row(times), ""])
    return rows


def _report_latency(found: dict[str, Any], convpaint: Any = None) -> None:
    head = (
        *("features", "view", "seconds from release to", "median", "90 %"),
        *("longest", "aim"),
    )
    report(PART, "latency of a stroke", table(head, latency_rows(found, convpaint)))


if __name__ == "__main__":
    raise SystemExit(main())
