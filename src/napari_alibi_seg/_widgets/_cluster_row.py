"""A line of the list of clusters: its colour, its share, and the way to a class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtGui import QColor, QPainter, QPixmap
from qtpy.QtWidgets import QHBoxLayout, QLabel, QWidget

from napari_alibi_seg._widgets._hooks import on_gui
from napari_alibi_seg._widgets._parts import button

__all__ = ["ClusterRow"]

_SWATCH_PX = 14


class ClusterRow(QWidget):
    """A cluster as a line.

    Parameters
    ----------
    cluster : int
        From 0.
    parent : QWidget
        The list.

    Attributes
    ----------
    wanted : Signal(int)
        The cluster that is to become a class.
    """

    wanted = Signal(int)

    def __init__(self, cluster: int, parent: QWidget) -> None:
        super().__init__(parent)
        self._cluster = cluster
        self.swatch, self.text = QLabel(), QLabel()
        self.text.setToolTip("Share of the area of this image")
        self.swatch.setToolTip("Colour of this cluster over the image")
        self.class_button = button(
            "Make a class of it",
            "Add a class and paint scribbles of it well inside this cluster",
            self._ask,
        )
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.swatch)
        layout.addWidget(self.text, 1)
        layout.addWidget(self.class_button)

    def show_cluster(self, share: float, colour: Sequence[float]) -> None:
        """Show the values of a cluster."""
        self.text.setText(f"{self._cluster + 1}: {_percent(share)}")
        self.swatch.setPixmap(_swatch(colour))

    @on_gui
    def _ask(self) -> None:
        self.wanted.emit(self._cluster)


def _percent(share: float) -> str:
    """Return a share as text; what is there is never shown as nothing."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    return f"{100 * share:.1f} %"


def _swatch(colour: Sequence[float]) -> QPixmap:
    red, green, blue = (round(255 * float(np.clip(c, 0, 1))) for c in colour)
    pixmap = QPixmap(_SWATCH_PX, _SWATCH_PX)
    pixmap.fill(QColor(red, green, blue))
    painter = QPainter(pixmap)
    # a frame: a black cluster on a black theme is seen too
    painter.setPen(QColor(128, 128, 128))
    painter.drawRect(0, 0, _SWATCH_PX - 1, _SWATCH_PX - 1)
    painter.end()
    return pixmap
