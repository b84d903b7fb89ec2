"""How much position is in the features: measured when asked, looked at once unasked.

The unasked look runs after an extraction, when nothing is being trained, once for each
backbone. It costs about two tiles of features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.layers import Image
from qtpy.QtCore import QObject, QTimer

from napari_alibi_seg._widgets._hooks import on_gui
from napari_alibi_seg._widgets._jobs import Lane
from napari_alibi_seg._widgets._layers import new_like
from napari_alibi_seg._widgets._ramp_pictures import PLACE_COLORMAP, RAMP_NAMES
from napari_alibi_seg._workspace import DockSettings, Measuring, OpenImage
from napari_alibi_seg.analysis import HIGH_R2, PositionCheck, PositionReport

if TYPE_CHECKING:
    from napari_alibi_seg._widgets._dock import Dock
    from napari_alibi_seg._widgets._image_stage import ImageStage

__all__ = ["PositionFlow"]

_OPACITY = 0.8
# How long after an extraction it is seen whether the first segmentation is done.
_PATIENCE_MS = 500
_CLASSICAL = (
    "Classical features have no position: each filter does the same at every pixel, "
    "and sees no further than its own width. There is nothing to measure. Choose a ViT "
    "in panel 2 to measure it."
)
# Settings that make another backbone.
_BACKBONE = ("features", "backbone", "device")


class PositionFlow(QObject):
    """See the module."""

    def __init__(self, dock: Dock) -> None:
        super().__init__(dock)
        self.dock = dock
        self._measure = Lane("position", self)
        self._check = Lane("position check", self)
        self.lanes = (self._measure, self._check)
        self._image: OpenImage | None = None
        self._report: PositionReport | None = None
        self._stage: ImageStage | None = None  # that has our layers
        self._patience = QTimer(self)
        self._patience.setSingleShot(True)
        self._patience.setInterval(_PATIENCE_MS)
        self._patience.timeout.connect(self._check_if_quiet)
        panel = dock.position_panel
        panel.measure_wanted.connect(self.measure)
        panel.cancel_wanted.connect(self.cancel)
        panel.layers_toggled.connect(self._toggle_layers)
        dock.image_ready.connect(self._ready)
        dock.settings_changed.connect(self._changed)
        dock.features.extracted.connect(self._extracted)
        dock.stage.layer_lost.connect(self._lost)
        dock.stage.images_changed.connect(self._update)
        self._update()

    def close(self) -> None:
        """Stop."""
        self._patience.stop()
        for lane in self.lanes:
            lane.close()

    # ---------------------------------------------------------------- what is there

    @on_gui
    def _ready(self, image: OpenImage) -> None:
        if self._image is None or self._image.key != image.key:
            self._forget()
            self.dock.position_panel.clear()
        self._image = image
        self._update()

    @on_gui
    def _changed(self, before: DockSettings) -> None:
        after = self.dock.settings
        if all(getattr(before, n) == getattr(after, n) for n in _BACKBONE):
            return
        self._check.stop()
        self._patience.stop()
        self.dock.features_panel.show_warning("")
        if self._measure.is_busy:
            self.cancel()
        self._update()

    @on_gui
    def _update(self) -> None:
        settings, panel = self.dock.settings, self.dock.position_panel
        if not settings.needs_backbone:
            panel.set_ready(False, _CLASSICAL)
        elif settings.backbone is None:
            panel.set_ready(False, "Choose a backbone in panel 2.")
        elif self.dock.image is None:
            panel.set_ready(False, "Choose an image first.")
        else:
            panel.set_ready(True)

    def _forget(self) -> None:
        """Drop what was measured on an image that is no longer shown."""
        self._measure.stop()
        self._hide_layers()
        self._report = None

    # -------------------------------------------------------------------- measuring

    @on_gui
    def measure(self) -> None:
        """Measure the chosen backbone on crops of the image on show."""
        image, panel = self.dock.image, self.dock.position_panel
        if image is None or not self.dock.settings.needs_backbone:
            self._update()
            return
        session = self.dock.session

        def progress(event: Measuring) -> None:
            if event.report is None:
                panel.show_progress(
                    event.done, event.total, event.seconds_left, event.text
                )
                return
            self._hide_layers()
            self._report = event.report
            panel.show_report(event.report)

        panel.show_progress(0, 0, None, "Loading the backbone ...")
        self._measure.start(
            lambda: session.iter_position(image),
            on_event=progress,
            on_error=lambda text, _: panel.show_idle(text, is_error=True),
        )

    @on_gui
    def cancel(self) -> None:
        """Stop measuring."""
        self._measure.stop()
        self.dock.position_panel.show_idle("Stopped.")

    # ----------------------------------------------------------------------- layers

    @on_gui
    def _toggle_layers(self, is_on: bool) -> None:
        if is_on:
            self._show_layers()
        else:
            self._hide_layers()

    def _show_layers(self) -> None:
        """Lay column and row, true and read, over the crop they were read in."""
        stage, report = self.dock.stage.current, self._report
        window = None if report is None else report.pictures.window
        if stage is None or report is None or window is None:
            self.dock.position_panel.show_layers_on(False)
            return
        pictures = report.pictures
        step = pictures.crop.shape[1] // pictures.target.shape[0]
        at = (window.y0, window.x0)
        layers = []
        for k, name in reversed([*enumerate(RAMP_NAMES)]):
            for what, values in (
                (f"true {name.lower()}", pictures.target),
                (f"{name.lower()} read: {report.name}", pictures.prediction),
            ):
                layers.append(self._layer(stage, values[..., k], what, step, at))
        # those below would be hidden anyway, and show through
        for layer in layers[:-1]:
            layer.visible = False
        stage.show_place(layers)
        self._stage = stage

    def _layer(
        self, stage: ImageStage, values: Any, name: str, step: int, at: tuple[int, int]
    ) -> Any:
        return new_like(
            stage.image,
            Image,
            values,
            name,
            step=step,
            origin=at,
            opacity=_OPACITY,
            colormap=PLACE_COLORMAP,
            contrast_limits=(0.0, 1.0),
        )

    def _hide_layers(self) -> None:
        stage, self._stage = self._stage, None
        if stage is not None:
            stage.show_place([])
        self.dock.position_panel.show_layers_on(False)

    @on_gui
    def _lost(self, what: str) -> None:
        if what == "place" and self._stage is not None and not self._stage.place:
            self._hide_layers()

    # -------------------------------------------------------------------- first look

    @on_gui
    def _extracted(self) -> None:
        if self.dock.settings.needs_backbone:
            self._patience.start()

    @on_gui
    def _check_if_quiet(self) -> None:
        """Look at the backbone unless something is computed that the user waits for."""
        dock = self.dock
        waited_for = (*dock.train.lanes, *dock.features.lanes, self._measure)
        if any(lane.is_busy for lane in waited_for):
            self._patience.start()
            return
        session = self.dock.session

        def found(check: PositionCheck | None) -> None:
            if check is not None:
                self.dock.features_panel.show_warning(_warning(check))

        self._check.start(session.iter_check_position, on_event=found)


def _warning(check: PositionCheck) -> str:
    """Return what to say of a first look; nothing if little was found."""
    if check.level != "high":
        return ""
    return (
        "These features know where in the frame they are (transfer "
        f"R\N{SUPERSCRIPT TWO} {check.transfer_r2:.2f} on {check.n_crops} synthetic "
        f"micrographs; above {HIGH_R2:g} is high). Paint strokes of each class across "
        "the whole image, or choose a cure or an ALiBi backbone."
    )
