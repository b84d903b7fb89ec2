"""The result on the screen: pieces as they come, maps, totals, the overlay.

Only this module decides when a piece is drawn. It starts no job: `_train_flow` hands it
what its runs say, and is asked for another run where a layer wants to be filled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer

from napari_alibi_seg._segmenter import Beat, Finished, View
from napari_alibi_seg._widgets._hooks import on_gui
from napari_alibi_seg._widgets._jobs import Lane
from napari_alibi_seg._widgets._pieces import Piece
from napari_alibi_seg._widgets._result_panel import Totals
from napari_alibi_seg._workspace import OpenImage

if TYPE_CHECKING:
    from napari_alibi_seg._widgets._dock import Dock

__all__ = ["ResultFlow"]

# Pieces that come sooner after one another are shown together: each time that something
# changes, napari draws the whole canvas again, beside the threads that classify.
_TOGETHER_MS = 200
_COLOURS = {"uncertainty": "magma", "probability": "viridis"}
_PART = (
    "Shares are of the visible area. Save the labels: the whole image is then "
    "segmented in full, and its shares are shown."
)
_UM = {"nm": 1e-3, "um": 1.0, "µm": 1.0, "mm": 1e3, "m": 1e6}


class ResultFlow(QObject):
    """See the module."""

    def __init__(self, dock: Dock) -> None:
        super().__init__(dock)
        self.dock = dock
        self.lanes: tuple[Lane, ...] = ()
        self._together = QTimer(self)
        self._together.setSingleShot(True)
        self._together.setInterval(_TOGETHER_MS)
        self._together.timeout.connect(self._show_waiting)
        self._waiting: list[Piece] = []
        self._fractions: dict[int, float] = {}
        self._n_pixels = 0
        self._probability: int | None = None  # class whose probability is shown
        dock.image_ready.connect(self._ready)
        dock.session.classes.changed.connect(self._name_classes)
        dock.result_panel.layers_wanted.connect(self._show_layers)

    def close(self) -> None:
        """Stop."""
        self.forget_waiting()
        self.dock.session.classes.changed.disconnect(self._name_classes)

    @property
    def fractions(self) -> dict[int, float]:
        """Area fractions of the last complete result."""
        return self._fractions

    @property
    def n_pixels(self) -> int:
        """Pixels that these are fractions of."""
        return self._n_pixels

    @on_gui
    def _ready(self, _image: OpenImage) -> None:
        self._fractions = {}
        self.dock.result_panel.show_empty()

    @on_gui
    def _name_classes(self) -> None:
        entries = self.dock.session.classes.entries
        self.dock.result_panel.set_classes([(e.id, e.name) for e in entries])

    # --------------------------------------------------------------------- a run

    def begin(self, probability_of: int | None, view: View | None = None) -> None:
        """Make ready for the events of a run.

        Parameters
        ----------
        probability_of : int or None
            The class whose probability it shows.
        view : View, optional
            What was seen when it began; it matters where a part of the image is shown.
        """
        self._probability = probability_of
        if view is not None and self.dock.stage.current is not None:
            self.dock.stage.current.aim(view)
        self.forget_waiting()

    def forget_waiting(self) -> None:
        """What was not shown yet is stale."""
        self._together.stop()
        self._waiting.clear()

    def show(self, event: Piece | Beat | Finished) -> None:
        """Show what a run says, at once or with the pieces that follow.

        Parameters
        ----------
        event : Piece, Beat or Finished
            A piece is shown at once if none was a moment before. The end of the visible
            area and of the run show whatever waits.
        """
        if isinstance(event, Piece):
            self._waiting.append(event)
            if not self._together.isActive():
                self._show_waiting()
            return
        self._show_waiting()
        if isinstance(event, Finished):
            self._finish(event.fractions)

    @on_gui
    def _show_waiting(self) -> None:
        """Show the pieces that came since the last time."""
        pieces, self._waiting = self._waiting, []
        for piece in pieces:
            self._show_piece(piece)
        if pieces:
            self._together.start()

    def _show_piece(self, piece: Piece) -> None:
        stage = self.dock.stage
        if stage.current is None:
            return
        if stage.current.labels is None:
            stage.current.result(self.dock.session.classes.entries)
            self._make_maps()
        stage.paint_result(piece)
        if piece.total:
            self.dock.result_panel.show_progress(piece.done, piece.total)

    def _finish(self, fractions: dict[int, float]) -> None:
        image, panel = self.dock.image, self.dock.result_panel
        assert image is not None
        is_part = self.dock.stage.shows_parts
        # of a part they are shown and not saved
        self._fractions = {} if is_part else fractions
        self.dock.classes_panel.set_fractions(fractions)
        panel.show_totals(Totals(note=_PART) if is_part else self._totals(image))
        panel.set_can_save(True)
        if self.dock.stage.current is not None:
            self.dock.stage.current.refresh()

    def show_counts(self, image: OpenImage, counts: dict[int, int]) -> None:
        """Show the fractions of all of a large image, known from an export."""
        self._n_pixels = sum(counts.values())
        self._fractions = {i: n / max(1, self._n_pixels) for i, n in counts.items()}
        self.dock.classes_panel.set_fractions(self._fractions)
        self.dock.result_panel.show_totals(self._told(image))

    def _totals(self, image: OpenImage) -> Totals:
        mask = image.mask()
        n_out = 0 if mask is None else int(np.count_nonzero(mask))
        self._n_pixels = image.shape[0] * image.shape[1] - n_out
        return self._told(image)

    def _told(self, image: OpenImage) -> Totals:
        size, n = image.source.pixel_size, self._n_pixels
        area_um2 = None
        if size is not None and size.unit in _UM:
            area_um2 = n * size.y * size.x * _UM[size.unit] ** 2
        settings, unsure = self.dock.settings, None
        if settings.unsure_below is not None:
            unsure = self._fractions.get(settings.unsure_id, 0.0)
        n_all = image.shape[0] * image.shape[1]
        return Totals(
            n_pixels=n, area_um2=area_um2, left_out=(n_all - n) / n_all, unsure=unsure
        )

    # --------------------------------------------------------------------- layers

    @on_gui
    def _show_layers(self, _wish: dict[str, Any]) -> None:
        stage = self.dock.stage.current
        if stage is None:
            return
        wanted = self.dock.result_panel.layers
        if stage.labels is not None:
            stage.labels.visible = wanted["labels"]
        had = set(stage.maps)
        self._make_maps()
        is_other = wanted["probability"] not in (None, self._probability)
        if set(stage.maps) - had or is_other:
            # nothing is trained again to fill a map
            self.dock.train.show_classifier()

    def _make_maps(self) -> None:
        stage = self.dock.stage.current
        assert stage is not None
        wanted = self.dock.result_panel.layers
        for name, colormap in _COLOURS.items():
            is_wanted = wanted[name] not in (False, None)
            if is_wanted:
                stage.map(name, colormap).visible = True
            elif name in stage.maps:
                stage.maps[name].visible = False

    @on_gui
    def toggle_overlay(self) -> None:
        """Show or hide the result."""
        stage = self.dock.stage.current
        if stage is not None and stage.labels is not None:
            is_shown = not stage.labels.visible
            stage.labels.visible = is_shown
            shown = {**self.dock.result_panel.layers, "labels": is_shown}
            self.dock.result_panel.set_layers(**shown)
