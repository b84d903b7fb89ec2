"""The panel about features: which backbone, where its weights are, and extracting them.

The dock looks up weights in a worker and hands the rows over; nothing here reads a
file. What a control may be set to is known to `DockSettings`; a change is told as a
dict of its fields.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_alibi_seg._widgets._backbone_row import BackboneRow
from napari_alibi_seg._widgets._controls import Choice, Number, Wait
from napari_alibi_seg._widgets._cure_choice import CureChoice
from napari_alibi_seg._widgets._dialogs import Dialogs
from napari_alibi_seg._widgets._hooks import on_gui
from napari_alibi_seg._widgets._parts import Hint, Section, button, form, row
from napari_alibi_seg._workspace import DockSettings, split_cure, with_backbone

__all__ = ["FeaturesPanel"]

_KINDS = (
    ("both", "ViT and classical"),
    ("vit", "ViT only"),
    ("classical", "Classical only"),
)
_NORMALISATIONS = (
    ("image", "Each image by itself"),
    ("frozen", "As the first image"),
)
# In the list of backbones, among names; no name is empty.
_FILE = ""
_ON_THE_FLY = (
    "Classical features need no extraction: they are computed where they are needed."
)


def _is_path(backbone: str) -> bool:
    return any(c in backbone for c in "./\\")


class FeaturesPanel(QWidget):
    """Kind of features, backbone, and the extraction with its progress.

    Parameters
    ----------
    ask_weights, ask_denoiser : callable
        (parent) -> Path or None.

    Attributes
    ----------
    settings_wanted : Signal(object)
        A dict of changed `DockSettings` fields.
    download_wanted : Signal(str)
        Name of the backbone whose weights shall be fetched.
    weights_file_wanted : Signal(object)
        Path of a weights file that shall be the backbone. The panel shows it as
        chosen when it comes back with `apply_settings`.
    extract_wanted, cancel_wanted : Signal()
        Begin; stop the extraction or the download that runs.
    """

    settings_wanted = Signal(object)
    download_wanted = Signal(str)
    weights_file_wanted = Signal(object)
    extract_wanted = Signal()
    cancel_wanted = Signal()

    def __init__(
        self,
        parent: QWidget | None = None,
        *,
        ask_weights: Callable[[QWidget], Path | None] | None = None,
        ask_denoiser: Callable[[QWidget], Path | None] | None = None,
    ) -> None:
        super().__init__(parent)
        self._ask_weights = ask_weights or Dialogs().open_weights
        self._ask_denoiser = ask_denoiser or Dialogs().open_denoiser
        self._base: str | None = None  # the chosen backbone without its cure
        self._rows: dict[str, BackboneRow] = {}
        self._settings = DockSettings()
        self._is_stored = False
        self._make_backbone()
        self._make_advanced()
        self._make_run()
        self._arrange()
        self.apply_settings(self._settings)

    def _make_backbone(self) -> None:
        self.kind = Choice(
            "What a pixel is described by: features of a vision transformer see "
            "texture and context, classical ones intensity and edges",
            _KINDS,
        )
        self.backbone = Choice("The vision transformer that looks at the image")
        self.backbone.setPlaceholderText("Choose a backbone")
        self.cure = CureChoice(self._ask_denoiser)
        self.about, self.warning = Hint(), Hint()
        self.download = button(
            "Download", "Fetch the weights of this backbone", self._download
        )
        self.use_file = button(
            "Use a file...",
            "Take the weights from a .pth or .safetensors file on this computer",
            self._pick_file,
        )
        self.kind.picked.connect(self._kind_picked)
        self.backbone.picked.connect(self._backbone_picked)
        self.cure.spec_picked.connect(self._spec_picked)

    def _make_advanced(self) -> None:
        self.density = Number(
            "Tokens per patch side: 2 sees finer detail and takes four times as long",
            1,
            16,
        )
        self.components = Number(
            "Principal components kept of the ViT's channels; fewer are faster",
            0,
            4096,
            lowest_text="All",
        )
        self.tile = Number(
            "Side of the square the ViT sees at once, in pixels at the working scale. "
            "Smaller needs less memory",
            16,
            4096,
        )
        self.tile.setSuffix(" px")
        self.halo = Number(
            "Patches at the border of a tile that are computed and thrown away",
            -1,
            64,
            lowest_text="Auto",
        )
        self.normalisation = Choice(
            "Whose intensity range is mapped to black and white: each image's own, or "
            "that of the first image, for series with fixed detector settings",
            _NORMALISATIONS,
        )
        self.density.picked.connect(self._density_picked)
        self.components.picked.connect(self._components_picked)
        self.tile.picked.connect(self._tile_picked)
        self.halo.picked.connect(self._halo_picked)
        self.normalisation.picked.connect(self._normalisation_picked)

    def _make_run(self) -> None:
        self.wait = Wait()
        self.extract = button(
            "Extract features",
            "Run the backbone over the image. What is done stays done: it goes on "
            "where it was stopped, and you can paint meanwhile",
            self.extract_wanted.emit,
        )
        self.cancel = button(
            "Cancel", "Stop after this tile and keep what is done", self._cancel
        )

    def _arrange(self) -> None:
        kinds = QWidget()
        layout = form(kinds)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addRow("Features", self.kind)
        layout.addRow("Backbone", self.backbone)
        layout.addRow("Cure", self.cure)
        self._layout_kinds = layout
        self._weights = row(self.download, self.use_file)
        advanced = QWidget()
        layout = form(advanced)
        layout.addRow("Density", self.density)
        layout.addRow("Components", self.components)
        layout.addRow("Tile", self.tile)
        layout.addRow("Halo", self.halo)
        layout.addRow("Range", self.normalisation)
        self._layout_advanced = layout
        self.advanced = Section("Advanced", advanced, is_open=False)
        column = QVBoxLayout(self)
        column.setContentsMargins(6, 2, 2, 6)
        column.setSpacing(4)
        parts = (
            kinds,
            self.about,
            self.warning,
            self._weights,
            self.advanced,
            self.wait,
        )
        for widget in (*parts, self.extract, self.cancel):
            column.addWidget(widget)

    def apply_settings(self, settings: DockSettings) -> None:
        """Show settings; tells nobody."""
        self._settings = settings
        self.kind.choose(settings.features)
        self.density.show_value(settings.density)
        self.components.show_value(settings.components or 0)
        self.tile.show_value(settings.tile_px)
        halo = settings.halo_tokens
        self.halo.show_value(-1 if halo is None else halo)
        self.normalisation.choose(settings.normalisation)
        self._fill_backbones()

    def set_backbones(self, rows: Sequence[BackboneRow]) -> None:
        """Offer the named backbones, in this order."""
        self._rows = {one.name: one for one in rows}
        self._fill_backbones()

    def show_progress(
        self, done: int, total: int, seconds_left: float | None, text: str
    ) -> None:
        """Show how far extraction or download is.

        Parameters
        ----------
        done, total : int
            Tiles or megabytes; a `total` of 0 shows that the end is not known.
        seconds_left : float or None
            None as long as nobody can tell.
        text : str
            What is done, or the estimate before the long wait.
        """
        self._is_stored = False
        self.cancel.setEnabled(True)
        self.wait.show_progress(done, total, seconds_left, text)
        self._show_buttons()

    def show_idle(self, text: str = "") -> None:
        """Show that nothing runs and that there is something to extract."""
        self._end(text, is_stored=False)

    def show_stored(self, text: str) -> None:
        """Show that all features are stored: there is nothing left to extract."""
        self._end(text, is_stored=True)

    def show_error(self, text: str) -> None:
        """Say what went wrong; everything can be tried again."""
        self._end(text, is_stored=False, is_error=True)

    def show_warning(self, text: str) -> None:
        """Say what is wrong with the chosen features, or nothing."""
        self.warning.say(text, is_error=bool(text))

    def _end(self, text: str, *, is_stored: bool, is_error: bool = False) -> None:
        self._is_stored = is_stored
        self.wait.say(text, is_error=is_error)
        self._show_buttons()

    @property
    def _row(self) -> BackboneRow | None:
        return self._rows.get(self._base or "")

    def _fill_backbones(self) -> None:
        spec = self._settings.backbone
        self._base = None if spec is None else split_cure(spec)[0]
        chosen = self._base
        rows = [(one.name, one.title) for one in self._rows.values()]
        if chosen is not None and chosen not in self._rows:
            rows.append((chosen, Path(chosen).name if _is_path(chosen) else chosen))
        self.backbone.fill([*rows, (_FILE, "Weights file...")])
        self.backbone.choose(chosen)
        self.cure.show_spec(spec)
        self._show_backbone()

    def _show_backbone(self) -> None:
        """Say what is known of the chosen backbone, and offer what it lacks."""
        has_vit = self._settings.needs_backbone
        chosen, one = self._base, self._row
        if one is not None:
            text = one.text
        elif chosen is None:
            text = "Choose a backbone, or classical features."
        else:
            text = "Your weights file." if _is_path(chosen) else ""
        if self.cure.cost:
            text += f" The cure takes {self.cure.cost}."
        self.about.say(text.strip() if has_vit else _ON_THE_FLY)
        self.about.setToolTip(self._settings.backbone or "")
        for field in (self.backbone, self.cure):
            self._layout_kinds.setRowVisible(field, has_vit)
        lacks = has_vit and one is not None and not one.is_here
        self._weights.setVisible(lacks)
        self.download.setVisible(one is not None and one.is_downloadable)
        for field in (self.density, self.components, self.tile, self.halo):
            self._layout_advanced.setRowVisible(field, has_vit)
        self._show_buttons()

    def _show_buttons(self) -> None:
        has_vit, is_running = self._settings.needs_backbone, self.wait.is_running
        one = self._row
        has_weights = self._base is not None and (one is None or one.is_here)
        self.extract.setVisible(has_vit and not is_running)
        self.extract.setEnabled(has_weights and not self._is_stored)
        self.cancel.setVisible(is_running)
        self.download.setEnabled(not is_running)

    def _want(self, **changes: Any) -> None:
        self._settings = self._settings.replace(**changes)
        if "backbone" in changes:
            self._fill_backbones()
        self._show_backbone()
        self.settings_wanted.emit(changes)

    @on_gui
    def _kind_picked(self, kind: str) -> None:
        self._want(features=kind)

    def _backbone_picked(self, name: str) -> None:
        # not timed: how long a dialog is open is the user's affair
        if name == _FILE:
            self.backbone.choose(self._base)
            self._pick_file()
        else:
            self._want(backbone=with_backbone(self._settings.backbone, name))

    def _spec_picked(self, spec: str) -> None:
        self._want(backbone=spec)

    @on_gui
    def _density_picked(self, density: int) -> None:
        self._want(density=density)

    @on_gui
    def _components_picked(self, components: int) -> None:
        self._want(components=components or None)

    @on_gui
    def _tile_picked(self, tile_px: int) -> None:
        self._want(tile_px=tile_px)

    @on_gui
    def _halo_picked(self, halo: int) -> None:
        self._want(halo_tokens=None if halo < 0 else halo)

    @on_gui
    def _normalisation_picked(self, normalisation: str) -> None:
        self._want(normalisation=normalisation)

    @on_gui
    def _download(self) -> None:
        if self._row is not None:
            self.download_wanted.emit(self._row.name)

    def _pick_file(self) -> None:
        path = self._ask_weights(self)
        if path is not None:
            self.weights_file_wanted.emit(path)

    @on_gui
    def _cancel(self) -> None:
        # once is enough: a tile may take a while to end
        self.cancel.setEnabled(False)
        self.cancel_wanted.emit()
