"""Weights and extraction: what is here, getting it, and tokens tile by tile."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_alibi_seg._segmenter import Beat
from napari_alibi_seg._widgets._backbone_row import BackboneRow
from napari_alibi_seg._widgets._hooks import on_gui
from napari_alibi_seg._widgets._jobs import Lane
from napari_alibi_seg._workspace import (
    DockSettings,
    Extracted,
    OpenImage,
    with_backbone,
)

if TYPE_CHECKING:
    from napari_alibi_seg._widgets._dock import Dock

__all__ = ["FeatureFlow"]

# Settings that make other features.
_DECIDE = (
    *("features", "backbone", "scale", "density", "components", "channels"),
    *("normalisation", "tile_px", "halo_tokens", "percentiles", "device"),
)

_MB = 1 << 20
# How long a silent server may keep a cancelled download from ending.
_BEAT_S = 0.25


class FeatureFlow(QObject):
    """See the module.

    Attributes
    ----------
    extracted : Signal()
        The features of the shown image are complete.
    """

    extracted = Signal()

    def __init__(self, dock: Dock) -> None:
        super().__init__(dock)
        self.dock = dock
        self._lane = Lane("extract", self)
        self._weights = Lane("weights", self)
        self._fetching = threading.Lock()
        self.lanes = (self._lane, self._weights)
        panel = dock.features_panel
        panel.extract_wanted.connect(self.extract)
        panel.cancel_wanted.connect(self.cancel)
        panel.download_wanted.connect(self._download)
        panel.weights_file_wanted.connect(self._use_file)
        dock.image_ready.connect(self._ready)
        dock.settings_changed.connect(self._changed)
        self._list()

    def close(self) -> None:
        """Stop."""
        for lane in self.lanes:
            lane.close()

    def stop(self) -> None:
        """Stop extracting; what is done stays stored."""
        self._lane.stop()
        self.dock.features_panel.show_idle("")

    # -------------------------------------------------------------------- weights

    def _list(self) -> None:
        self._weights.start(_iter_rows, on_event=self.dock.features_panel.set_backbones)

    @on_gui
    def _use_file(self, path: Path) -> None:
        before = self.dock.settings.backbone
        self.dock.change_settings({"backbone": with_backbone(before, str(path))})

    @on_gui
    def _download(self, name: str) -> None:
        panel = self.dock.features_panel

        def progress(event: Beat | tuple[int, int | None]) -> None:
            if not isinstance(event, Beat):
                done, total, words = _arrived(name, *event)
                panel.show_progress(done, total, None, words)

        def done() -> None:
            panel.show_idle(f"The weights of {name} are here.")
            self._list()

        panel.show_progress(0, 0, None, f"Asking for the weights of {name} ...")
        self._weights.start(
            lambda: _iter_download(name, self._fetching),
            on_event=progress,
            on_error=lambda text, _: panel.show_error(text),
            on_done=done,
        )

    # ----------------------------------------------------------------- extraction

    @on_gui
    def _ready(self, image: OpenImage) -> None:
        # classical features cost nothing to begin with
        if not self.dock.settings.needs_backbone:
            self.extract()
        elif image.is_extracted:
            self.dock.features_panel.show_stored("Features are there.")
            self.extracted.emit()
        else:
            self.dock.features_panel.show_idle("Press Extract to compute features.")

    @on_gui
    def _changed(self, before: DockSettings) -> None:
        after = self.dock.settings
        if all(getattr(before, n) == getattr(after, n) for n in _DECIDE):
            return
        self._lane.stop()
        self.dock.train.stop()
        self.dock.session.forget_recipe()
        if self.dock.image is not None:
            self._ready(self.dock.image)

    @on_gui
    def extract(self) -> None:
        """Compute the features of the shown image, from the middle of the view."""
        image = self.dock.image
        panel = self.dock.features_panel
        if image is None:
            panel.show_idle("Choose an image first.")
            return
        view = self.dock.stage.view()
        session = self.dock.session
        needs = self.dock.settings.needs_backbone
        if needs:
            panel.show_progress(0, 0, None, "Loading the backbone ...")
        was_stored = False

        def progress(event: Any) -> None:
            nonlocal was_stored
            if isinstance(event, Beat):
                return
            assert isinstance(event, Extracted)
            was_stored = event.was_stored
            if not was_stored:
                panel.show_progress(
                    event.done, event.total, event.seconds_left, _words(event)
                )

        def done() -> None:
            if not needs:
                panel.show_idle("")  # the panel says it already
            elif was_stored:
                panel.show_stored("Features of this image are stored already.")
            else:
                panel.show_stored("All features are stored.")
            self.extracted.emit()

        def failed(text: str, _: BaseException) -> None:
            panel.show_error(text)

        self._lane.start(
            lambda: session.iter_extract(image, view),
            on_event=progress,
            on_error=failed,
            on_done=done,
        )

    @on_gui
    def cancel(self) -> None:
        """Stop within a tile, or a piece of a download; what is done is kept."""
        again = "Extract" if self._lane.is_busy else "Download"
        self._lane.stop()
        self._weights.stop()
        self.dock.features_panel.show_idle(
            f"Stopped. What is done is kept: {again} goes on from there."
        )


def _words(event: Extracted) -> str:
    if event.seconds_left is None:
        return "The first tile tells how long it takes."
    return f"Tile {event.done} of {event.total}"


def _iter_rows() -> Iterator[list[BackboneRow]]:
    """Yield every backbone with what the panel says of it."""
    from napari_alibi_seg.features import find_weights, list_backbones

    rows = []
    for spec in list_backbones():
        if spec.kind == "classical":
            continue
        is_here = find_weights(spec.name) is not None
        can_fetch = spec.gated is None and not spec.bundled
        rows.append(
            BackboneRow(
                spec.name, spec.title, spec.licence, spec.size_mb, is_here, can_fetch
            )
        )
    yield rows


def _arrived(name: str, done: int, total: int | None) -> tuple[int, int, str]:
    """Return what to show of a download: megabytes there and in all, and words.

    Examples
    --------
    >>> _arrived("dinov2-s", 3 << 20, 88 << 20)
    (3, 88, 'MB of dinov2-s')
    >>> _arrived("dinov2-s", 3 << 20, None)[:2]
    (0, 0)
    """
    n_mb = -(-done // _MB)
    if total is None:  # a full bar would say that it is over
        return 0, 0, f"{n_mb} MB of {name} are here; nobody says how many there are."
    return n_mb, -(-max(total, done) // _MB), f"MB of {name}"


def _iter_download(
    name: str, fetching: threading.Lock
) -> Iterator[Beat | tuple[int, int | None]]:
    """Fetch weights, yielding bytes done and in all; closing stops the download.

    Beats come while the server is silent, so that it can be closed then, too.
    """
    from napari_alibi_seg.features import download_weights

    news: queue.Queue[Any] = queue.Queue()
    stopped = threading.Event()

    class Stopped(Exception):  # noqa: N818  # not an error: nobody else sees it
        pass

    def progress(done: int, total: int | None) -> None:
        if stopped.is_set():
            raise Stopped
        news.put((done, total))

    def fetch() -> None:
        try:
            # one that was stopped may still wait for its next bytes
            with fetching:
                if not stopped.is_set():
                    download_weights(name, progress=progress)
            news.put(None)
        except Stopped:
            return
        except BaseException as err:  # noqa: BLE001  # raised again where it is awaited
            news.put(err)

    threading.Thread(target=fetch, name="alibi-seg download", daemon=True).start()
    try:
        while (item := _next(news)) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()


def _next(news: queue.Queue[Any]) -> Any:
    """Return what comes next, or a beat while nothing comes."""
    try:
        return news.get(timeout=_BEAT_S)
    except queue.Empty:
        return Beat("features", 0, 0)
