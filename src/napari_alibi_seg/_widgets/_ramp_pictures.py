"""Four small pictures: column and row of each token, true and as they were read."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.utils.colormaps import ensure_colormap
from qtpy.QtCore import QRect, QSize, Qt
from qtpy.QtGui import QImage, QPainter
from qtpy.QtWidgets import QGridLayout, QLabel, QSizePolicy, QWidget

from napari_alibi_seg._widgets._hooks import on_gui

__all__ = ["PLACE_COLORMAP", "RAMP_NAMES", "RampPictures"]

# Begin and end of the frame must be told apart by anybody.
PLACE_COLORMAP = "viridis"
RAMP_NAMES = ("Column", "Row")


class _Picture(QWidget):
    """A map of tokens, drawn as large as the width allows, in its own proportions."""

    def __init__(self, tip: str) -> None:
        super().__init__()
        self.setToolTip(tip)
        self.image: QImage | None = None
        policy = QSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        policy.setHeightForWidth(True)
        self.setSizePolicy(policy)
        self.setMinimumWidth(40)

    def show_values(self, values: Any) -> None:
        """Show an (h, w) map of 0 to 1."""
        rgba = ensure_colormap(PLACE_COLORMAP).map(np.clip(values, 0, 1).ravel())
        rgb = np.ascontiguousarray(np.round(255 * rgba[:, :3]).astype(np.uint8))
        h, w = values.shape
        kind = QImage.Format.Format_RGB888
        # the copy owns its pixels; the array does not outlive this call
        self.image = QImage(rgb.tobytes(), w, h, 3 * w, kind).copy()
        self.updateGeometry()
        self.update()

    def heightForWidth(self, width: int) -> int:
        """Return the height at a width."""
        image = self.image
        return width if image is None else width * image.height() // image.width()

    def sizeHint(self) -> QSize:
        """Return a small square; the layout gives more."""
        return QSize(120, self.heightForWidth(120))

    @on_gui
    def paintEvent(self, _event: Any) -> None:
        """Draw each token as a square."""
        if self.image is None:
            return
        painter = QPainter(self)
        height = self.heightForWidth(self.width())
        painter.drawImage(QRect(0, 0, self.width(), height), self.image)
        painter.end()


class RampPictures(QWidget):
    """The true ramps on the left, what a probe read on the right."""

    def __init__(self) -> None:
        super().__init__()
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 4, 0, 0)
        layout.setHorizontalSpacing(6)
        layout.setVerticalSpacing(2)
        self.pictures: dict[tuple[str, str], _Picture] = {}
        for k, name in enumerate(RAMP_NAMES):
            low = name.lower()
            tips = {
                "true": f"The {low} of each token in the frame of a crop: this is what "
                "the probe should read, dark at the beginning, bright at the end",
                "read": f"The {low} that a probe reads from the features of this crop. "
                "Flat or speckled: nothing. Like the picture beside it: position",
            }
            for column, (what, tip) in enumerate(tips.items()):
                caption = QLabel(f"True {low}" if what == "true" else f"{name} read")
                caption.setToolTip(tip)
                layout.addWidget(caption, 2 * k, column, Qt.AlignmentFlag.AlignBottom)
                picture = _Picture(tip)
                self.pictures[name, what] = picture
                layout.addWidget(picture, 2 * k + 1, column)
        for column in (0, 1):
            layout.setColumnStretch(column, 1)

    def show_pictures(self, target: Any, prediction: Any) -> None:
        """Show what was asked and what was read, both (h, w, 2) and 0 to 1."""
        for k, name in enumerate(RAMP_NAMES):
            for what, values in (("true", target), ("read", prediction)):
                self.pictures[name, what].show_values(values[..., k])
