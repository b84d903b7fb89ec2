"""The panel about the image: which one, what the model sees of it, and on what device.

The dock tells it what was found in a layer or file. What a control may be set to is
known to `DockSettings`; a change is told as a dict of its fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import QLabel, QLineEdit, QVBoxLayout, QWidget

from napari_alibi_seg._base import SettingsError
from napari_alibi_seg._widgets._controls import Choice, Wait
from napari_alibi_seg._widgets._hooks import on_gui
from napari_alibi_seg._widgets._parts import Hint, button, form, row
from napari_alibi_seg._workspace import DockSettings

__all__ = ["ImagePanel"]

_EMPTY = (
    "Open a micrograph: drop a file into the window, or File > Open Sample > ALiBi "
    "Segmentation. One of more than 64 megapixels: 'Open large images' in the command "
    "palette (Ctrl+Shift+P), or alibi-seg gui."
)
_OVERVIEW = (
    "Making coarser copies of this large image, once. It is shown when they are done."
)
_DISPLAY_ONLY = "Contrast limits and gamma change the display only, never the result."
_UNITS = (("nm", "nm"), ("um", "µm"), ("mm", "mm"))
_SCALES = ("auto", "0.5", "1", "2", "3", "4")
_PICK = "pick"
_AUTO_DEVICE = (("auto", "Auto: the fastest that is here"),)


def _number(text: str) -> float | None:
    try:
        return float(text.strip().rstrip("x×").replace(",", "."))
    except ValueError:
        return None


class ImagePanel(QWidget):
    """Image, channels, pixel size, working scale, areas to leave out, device.

    Attributes
    ----------
    settings_wanted : Signal(object)
        A dict of changed `DockSettings` fields.
    image_chosen : Signal(object)
        Key of the image that the user picked.
    pixel_size_wanted : Signal(object)
        (value, unit), or None when the user emptied the field.
    area_wanted, area_accepted, area_declined, areas_cleared : Signal()
        Draw an area to leave out; leave out what was found, or not; forget all areas.
    overview_cancelled : Signal()
        The large image that is being made ready is not wanted after all.
    """

    settings_wanted = Signal(object)
    image_chosen = Signal(object)
    pixel_size_wanted = Signal(object)
    area_wanted = Signal()
    area_accepted = Signal()
    area_declined = Signal()
    areas_cleared = Signal()
    overview_cancelled = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._settings = DockSettings()
        self._n_channels = 1
        self._size: tuple[float, str] | None = None
        self.image = Choice("The image to segment")
        self.image.picked.connect(self._image_picked)
        self.hint, self.info, self.plane = Hint(_EMPTY), Hint(), Hint()
        self._make_overview()
        self._make_channels()
        self._make_pixel_size()
        self._make_scale_and_device()
        self._make_areas()
        self._arrange()
        self.set_channel_choices(1, "grey")
        self.set_images([])

    def _make_overview(self) -> None:
        self.wait = Wait()
        self.cancel = button(
            "Stop",
            "Do not open the image; what is done of its coarser copies is kept",
            self.overview_cancelled.emit,
        )
        self.cancel.hide()

    def show_overview(self, done: int, total: int) -> None:
        """Show how far the coarser copies of an image are that is being opened."""
        self.hint.say("")
        self.wait.show_progress(done, total, text=_OVERVIEW)
        self.cancel.show()

    def end_overview(self, text: str = "") -> None:
        """Take the progress away, and leave a sentence or nothing."""
        self.wait.say(text)
        self.cancel.hide()

    def _make_channels(self) -> None:
        self.channels = Choice("Which channels the model sees")
        self.channels.setPlaceholderText("Choose channels")
        self.channels.picked.connect(self._channels_picked)
        numbers = ("first", "second", "third")
        self.picks = [
            Choice(f"The {n} channel the model sees, numbered from 0") for n in numbers
        ]
        for pick in self.picks:
            pick.picked.connect(self._pick_changed)
        self.pick_row = row(*self.picks)

    def _make_pixel_size(self) -> None:
        self.size = QLineEdit()
        self.size.setPlaceholderText("not known")
        self.size.setMinimumWidth(40)
        self.unit = Choice("Unit of the pixel size", _UNITS)
        self.unit.choose("um")
        self.size.editingFinished.connect(self._size_changed)
        self.unit.picked.connect(self._size_changed)
        self.size_error = Hint()

    def _make_scale_and_device(self) -> None:
        self.scale = Choice(
            "The image is resized by this factor before the model sees it: above 1 for "
            "fine detail, below 1 for speed. Auto, or 0.05 to 8",
            [(text, text) for text in _SCALES],
        )
        self.scale.setEditable(True)
        self.scale.setInsertPolicy(Choice.InsertPolicy.NoInsert)
        # it would turn a typed 0 into 0.5
        self.scale.setCompleter(None)
        self.scale.activated.connect(self._scale_changed)
        self.scale.lineEdit().editingFinished.connect(self._scale_changed)
        self.scale_error = Hint()
        self.device = Choice("What computes the features", _AUTO_DEVICE)
        self.device.picked.connect(self._device_picked)

    def _make_areas(self) -> None:
        self.found = Hint()
        self.accept = button(
            "Leave out", "Do not learn from it and give it no class", self._accept
        )
        self.decline = button("No", "It is part of the image", self._decline)
        self.found_row = row(self.accept, self.decline)
        self.draw = button(
            "Leave out an area...",
            "Draw an area, such as a scale bar, that is no part of the sample",
            self.area_wanted.emit,
        )
        self.n_areas = QLabel()
        self.n_areas.setToolTip("Areas that are left out")
        self.clear = button(
            "Clear", "Take all of the image again", self.areas_cleared.emit
        )
        self.areas_row = row(self.n_areas, self.clear, stretch=0)
        self.suggest_area("")
        self.set_areas(0)

    def _arrange(self) -> None:
        fields = QWidget()
        layout = form(fields)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addRow("Channels", self.channels)
        layout.addRow("", self.pick_row)
        layout.addRow("Pixel size", row(self.size, self.unit, stretch=0))
        layout.addRow(self.size_error)
        layout.addRow("Scale", self.scale)
        layout.addRow(self.scale_error)
        layout.addRow("Device", self.device)
        self._fields = layout
        self._body = QWidget()
        body = QVBoxLayout(self._body)
        area = (self.found, self.found_row, self.draw, self.areas_row)
        for widget in (self.info, self.plane, fields, *area, Hint(_DISPLAY_ONLY)):
            body.addWidget(widget)
        column = QVBoxLayout(self)
        parts = (self.image, self.hint, self.wait, self.cancel, self._body)
        for widget in parts:
            column.addWidget(widget)
        for one, margins in ((body, (0, 0, 0, 0)), (column, (6, 2, 2, 6))):
            one.setContentsMargins(*margins)
            one.setSpacing(4)

    def set_images(
        self, images: Sequence[tuple[Any, str]], current_key: Any = None
    ) -> None:
        """Offer images (key, name); without any, say how to open one."""
        self.image.fill(images)
        self.image.choose(current_key)
        self.image.setEnabled(bool(images))
        self.image.setPlaceholderText("Choose an image" if images else "No image")
        self._body.setVisible(self.image.chosen is not None)
        self.hint.say("" if images else _EMPTY)
        if images and self.image.chosen is None:
            self.hint.say("Choose the image to segment.")

    def show_image(self, lines: Sequence[str]) -> None:
        """Show what is known of the image, a line each."""
        self.info.say("\n".join(lines))

    def set_plane(self, text: str) -> None:
        """Say which plane of a stack is meant; empty for a single picture."""
        self.plane.say(text)

    def set_channel_choices(
        self, n_channels: int, meaning: str, names: Sequence[str] = ()
    ) -> None:
        """Offer what this image allows.

        Parameters
        ----------
        n_channels : int
            1 hides the choice.
        meaning : {"grey", "rgb", "channels"}
            As of an image source.
        names : sequence of str
            Of the channels, if the file gives them any.
        """
        self._n_channels = n_channels
        numbered = [
            f"{i}: {names[i]}" if i < len(names) else str(i) for i in range(n_channels)
        ]
        rows = [(_PICK, "Channels by number")]
        if meaning == "rgb":
            rows = [("grey", "Grey"), ("rgb", "Colour (RGB)"), *rows]
        if meaning == "rgb" or n_channels <= 3:
            rows = [("auto", "Auto"), *rows]
        self.channels.fill(rows)
        for i, pick in enumerate(self.picks):
            none = [(None, "–")] if i else []
            pick.fill([*none, *enumerate(numbered)])
        self._fields.setRowVisible(self.channels, n_channels > 1)
        self._show_channels()

    def set_pixel_size(self, value: float | None, unit: str, from_file: bool) -> None:
        """Show the pixel size; it can be typed in unless the file has it.

        Parameters
        ----------
        value : float or None
            None if it is not known.
        unit : str
            Any unit; nm, um and mm can be typed in.
        from_file : bool
            Whether the file says so.
        """
        self._size = None if value is None else (value, unit)
        self.size.setText("" if value is None else f"{value:.6g}")
        known = dict(_UNITS)
        more = [] if unit in known or not unit else [(unit, unit)]
        self.unit.fill([*_UNITS, *more], unit or "um")
        for widget in (self.size, self.unit):
            widget.setEnabled(not from_file)
        tip = "Side of a pixel; areas are then given in square micrometres"
        self.size.setToolTip("The file says so" if from_file else tip)
        self.size_error.say("")

    def set_devices(self, devices: Sequence[tuple[str, str]]) -> None:
        """Offer devices (value, text), of which the first is to be "auto"."""
        self.device.fill(devices)
        self._show_device()

    def suggest_area(self, text: str) -> None:
        """Say what area might be left out and ask; nothing if empty."""
        self.found.say(text)
        self.found_row.setVisible(bool(text))

    def set_areas(self, n: int) -> None:
        """Show how many areas are left out."""
        self.n_areas.setText("1 area is left out" if n == 1 else f"{n} areas left out")
        self.areas_row.setVisible(n > 0)

    def apply_settings(self, settings: DockSettings) -> None:
        """Show settings; tells nobody."""
        self._settings = settings
        with QSignalBlocker(self.scale), QSignalBlocker(self.scale.lineEdit()):
            self._show_scale()
        self._show_channels()
        self._show_device()

    def _show_scale(self) -> None:
        scale = self._settings.scale
        text = scale if isinstance(scale, str) else f"{scale:g}"
        # the arrow keys go on from this row
        self.scale.setCurrentIndex(self.scale.findText(text))
        self.scale.setEditText(text)
        self.scale_error.say("")

    def _show_device(self) -> None:
        device = self._settings.device
        if device not in self.device.values:
            self.device.addItem(f"{device} (not found here)", device)
        self.device.choose(device)

    def _show_channels(self) -> None:
        channels = self._settings.channels
        is_picked = isinstance(channels, tuple)
        self.channels.choose(_PICK if is_picked else channels)
        if isinstance(channels, tuple):
            for i, pick in enumerate(self.picks):
                pick.choose(channels[i] if i < len(channels) else None)
        self._show_picks()

    def _show_picks(self) -> None:
        is_picked = self.channels.chosen == _PICK and self._n_channels > 1
        self._fields.setRowVisible(self.pick_row, is_picked)

    def _picked(self) -> tuple[int, ...]:
        return tuple(p.chosen for p in self.picks if p.chosen is not None)

    def _want(self, **changes: Any) -> None:
        self._settings = self._settings.replace(**changes)
        self.settings_wanted.emit(changes)

    @on_gui
    def _image_picked(self, key: object) -> None:
        self._body.setVisible(True)
        self.hint.say("")
        self.image_chosen.emit(key)

    @on_gui
    def _channels_picked(self, channels: str) -> None:
        if channels == _PICK:
            for i, pick in enumerate(self.picks):
                pick.choose(i if i < self._n_channels else None)
        self._show_picks()
        self._want(channels=self._picked() if channels == _PICK else channels)

    @on_gui
    def _pick_changed(self, _number: object) -> None:
        self._want(channels=self._picked())

    @on_gui
    def _device_picked(self, device: str) -> None:
        self._want(device=device)

    @on_gui
    def _scale_changed(self, _index: int = 0) -> None:
        text = self.scale.currentText().strip()
        value = "auto" if text.lower() == "auto" else _number(text)
        try:
            self._settings.replace(scale=value)
        except SettingsError:
            wrong = f"Expected auto or a number from 0.05 to 8, got {text!r}."
            self.scale_error.say(wrong, is_error=True)
            return
        self.scale_error.say("")
        if value != self._settings.scale:
            self._want(scale=value)

    @on_gui
    def _size_changed(self, _unit: object = None) -> None:
        text = self.size.text().strip()
        value = _number(text)
        self.size_error.say("")
        if not text:
            size = None
        elif value is not None and 0 < value < float("inf"):
            size = (value, self.unit.chosen)
        else:
            wrong = f"Expected a number above 0 such as 0.25, got {text!r}."
            self.size_error.say(wrong, is_error=True)
            return
        if size != self._size:
            self._size = size
            self.pixel_size_wanted.emit(size)

    @on_gui
    def _accept(self) -> None:
        self.suggest_area("")
        self.area_accepted.emit()

    @on_gui
    def _decline(self) -> None:
        self.suggest_area("")
        self.area_declined.emit()
