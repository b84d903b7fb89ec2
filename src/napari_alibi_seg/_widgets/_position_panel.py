"""The panel that shows how much position is in the features.

What was measured comes as a `PositionReport`; nothing here computes. The dock runs the
measurement and puts the pictures over the image.
"""

from __future__ import annotations

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import QGridLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget

from napari_alibi_seg._widgets._controls import Wait
from napari_alibi_seg._widgets._hooks import on_gui
from napari_alibi_seg._widgets._parts import Hint, button, row
from napari_alibi_seg._widgets._ramp_pictures import RampPictures
from napari_alibi_seg.analysis import HEADLINE, PositionReport

__all__ = ["PositionPanel"]

_VERDICTS = {
    "high": "These features know where in the frame they are",
    "some": "These features know a little of where in the frame they are",
    "none found": "No position can be read from these features",
    "unsure": "This image is too small to tell",
}
_FOLLOWS = {
    "bias": "the frame: bias",
    "content": "the content: shading",
    "both": "frame and content",
    "neither": "neither",
}
_NUMBERS = (
    (
        "Transfer R\N{SUPERSCRIPT TWO}",
        "How well a probe that learned column and row on some crops reads them in "
        "others: 1 is perfect, 0 and below is nothing. In brackets what it reads where "
        "there is nothing to read",
    ),
    (
        "Single-image R\N{SUPERSCRIPT TWO}",
        "The same within one crop, from 38 of its tokens, as the literature reports "
        "it. It misleads: in brackets what noise as smooth as these features gives",
    ),
    (
        "Channels",
        "How many channels of the features tell the place each by itself",
    ),
    (
        "Follows",
        "What the reading follows when the image is turned and rolled: bias stays "
        "with the frame, shading goes with the content",
    ),
)
_N_BEFORE = 6


class PositionPanel(QWidget):
    """Measures, and shows what was found.

    Attributes
    ----------
    measure_wanted, cancel_wanted : Signal()
        Begin; stop what runs.
    layers_toggled : Signal(bool)
        Whether the pictures shall lie over the image.
    """

    measure_wanted = Signal()
    cancel_wanted = Signal()
    layers_toggled = Signal(bool)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._is_ready = False
        self._before: list[str] = []
        self._last = ""
        self._make_controls()
        self._make_found()
        self._arrange()
        self.set_ready(False, "Choose an image first.")

    def _make_controls(self) -> None:
        self.hint, self.wait = Hint(), Wait()
        self.measure = button(
            "How much position is in these features?",
            "Show crops of the image to the ViT, and let a probe read from the "
            "features where in the crop each of them lies. Nothing need be extracted "
            "before",
            self.measure_wanted.emit,
        )
        self.cancel = button("Cancel", "Stop measuring", self._cancel)

    def _make_found(self) -> None:
        self.verdict, self.sentence, self.notes = Hint(), Hint(), Hint()
        bold = self.verdict.font()
        bold.setBold(True)
        self.verdict.setFont(bold)
        self.values = {name: Hint() for name, _ in _NUMBERS}
        self.pictures = RampPictures()
        self.layers = button(
            "Show on the image",
            "Lay the true and the read column and row over the crop that is shown "
            "here, as layers",
        )
        self.layers.setCheckable(True)
        self.layers.toggled.connect(self._toggled)
        self.about, self.before = Hint(), Hint()
        self.before.setToolTip("What was measured on this image before")

    def _arrange(self) -> None:
        numbers = QWidget()
        grid = QGridLayout(numbers)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(8)
        grid.setVerticalSpacing(2)
        grid.setColumnStretch(1, 1)
        for i, (name, tip) in enumerate(_NUMBERS):
            label = QLabel(name)
            label.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
            for column, widget in enumerate((label, self.values[name])):
                widget.setToolTip(tip)
                grid.addWidget(widget, i, column, Qt.AlignmentFlag.AlignTop)
        self.found = QWidget()
        inner = QVBoxLayout(self.found)
        inner.setContentsMargins(0, 0, 0, 0)
        inner.setSpacing(4)
        for widget in (self.verdict, self.sentence, numbers, self.pictures):
            inner.addWidget(widget)
        for widget in (row(self.layers), self.about, self.notes, self.before):
            inner.addWidget(widget)
        self.found.hide()
        column = QVBoxLayout(self)
        column.setContentsMargins(6, 2, 2, 6)
        column.setSpacing(4)
        parts = (self.hint, self.measure, self.cancel, self.wait, self.found)
        for widget in parts:
            column.addWidget(widget)

    # ------------------------------------------------------------------------ state

    def set_ready(self, is_ready: bool, why: str = "") -> None:
        """Say whether there is a ViT and an image to measure.

        Parameters
        ----------
        is_ready : bool
            If not, nothing can be measured.
        why : str
            What to do first, or why there is nothing to do.
        """
        self._is_ready = is_ready
        self.hint.say("" if is_ready else why)
        self._show_buttons()

    def show_progress(
        self, done: int, total: int, seconds_left: float | None, text: str
    ) -> None:
        """Show how far the measurement is; a `total` of 0: nobody knows."""
        self.cancel.setEnabled(True)
        self.wait.show_progress(done, total, seconds_left, text)
        self._show_buttons()

    def show_idle(self, text: str = "", *, is_error: bool = False) -> None:
        """Show that nothing is measured, and why."""
        self.wait.say(text, is_error=is_error)
        self._show_buttons()

    def show_report(self, report: PositionReport) -> None:
        """Show what was found; what was shown becomes a line among those before."""
        self.show_idle()
        if self._last:
            self._before = [*self._before, self._last][-_N_BEFORE:]
        self._last = _in_short(report)
        self.verdict.say(_verdict(report))
        self.sentence.say(report.sentence)
        for (name, _), text in zip(_NUMBERS, _numbers(report), strict=True):
            self.values[name].say(text)
        self.about.setToolTip(_spread(report))
        self.pictures.show_pictures(report.pictures.target, report.pictures.prediction)
        crops = f"{report.n_crops} crop{'s' if report.n_crops > 1 else ''}"
        self.about.say(
            f"{report.name}, {crops} of {report.side_px} px, {report.seconds:.0f} s"
        )
        self.notes.say(" ".join(report.notes))
        self.before.say("\n".join(["Before:", *self._before]) if self._before else "")
        self.show_layers_on(False)
        self.layers.setEnabled(report.pictures.window is not None)
        self.found.show()

    def clear(self) -> None:
        """Forget what was measured: another image is shown."""
        self._before, self._last = [], ""
        self.show_layers_on(False)
        self.found.hide()
        self.show_idle()

    def show_layers_on(self, is_on: bool) -> None:
        """Show whether the pictures lie over the image."""
        with QSignalBlocker(self.layers):
            self.layers.setChecked(is_on)
        self.layers.setText("Hide the layers" if is_on else "Show on the image")

    def _show_buttons(self) -> None:
        is_running = self.wait.is_running
        self.measure.setVisible(self._is_ready and not is_running)
        self.cancel.setVisible(is_running)

    # ---------------------------------------------------------------------- the user

    @on_gui
    def _cancel(self) -> None:
        self.cancel.setEnabled(False)
        self.cancel_wanted.emit()

    @on_gui
    def _toggled(self, is_on: bool) -> None:
        self.show_layers_on(is_on)
        self.layers_toggled.emit(is_on)


def _verdict(report: PositionReport) -> str:
    """Return the level in words, with the number that stands for all."""
    r2 = report.table[HEADLINE].transfer_r2
    number = "" if r2 is None else f" (transfer R\N{SUPERSCRIPT TWO} {_r2(r2)})"
    return f"{_VERDICTS[report.level]}{number}."


def _in_short(report: PositionReport) -> str:
    """Return one line of a report."""
    row = report.table[HEADLINE]
    number = "" if row.transfer_r2 is None else f", {_r2(row.transfer_r2)}"
    return f"{report.name}: {report.level}{number}"


def _numbers(report: PositionReport) -> tuple[str, str, str, str]:
    """Return what the panel says of each of its numbers."""
    row = report.table[HEADLINE]
    transfer = "needs 3 crops or more"
    if row.transfer_r2 is not None and row.transfer_floor is not None:
        floor = _r2(row.transfer_floor.mean)
        transfer = f"{_r2(row.transfer_r2)} (floor {floor})"
    return (
        transfer,
        f"{_r2(row.single_r2)} (noise {_r2(row.single_floor.mean)})",
        f"{len(row.channels)} of {report.table.n_channels}",
        _FOLLOWS[report.verdict],
    )


def _spread(report: PositionReport) -> str:
    """Return how sure the floors are, for whoever asks."""
    row = report.table[HEADLINE]
    floors = {"Floor": row.transfer_floor, "Noise": row.single_floor}
    return ", ".join(
        f"{name} {_r2(floor.mean)} \N{PLUS-MINUS SIGN} {floor.sd:.2f}"
        for name, floor in floors.items()
        if floor is not None
    )


def _r2(value: float) -> str:
    """Return an R2 with a true minus sign.

    Examples
    --------
    >>> _r2(0.914), _r2(-1.5)
    ('0.91', '−1.50')
    """
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}")
