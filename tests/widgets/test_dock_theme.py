"""Both themes of napari: every text of the dock can be read, measured on pixels."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("napari")
from qtpy.QtGui import QImage
from qtpy.QtWidgets import (
    QAbstractButton,
    QComboBox,
    QLabel,
    QLineEdit,
    QWidget,
)
from widgets import gestures
from widgets.driver import QUIET, spin, write_sample

pytestmark = [pytest.mark.gui, *(pytest.mark.filterwarnings(q) for q in QUIET)]

# WCAG asks 4.5 of text; its thin strokes are blended with what is behind them.
LEAST = 4.0
WIDTH = 320


def pixels(*widgets: QWidget):
    """Return what is on the screen where widgets of a window are, (h, w, 3) uint8."""
    window = widgets[0].window()
    picture = window.grab().toImage().convertToFormat(QImage.Format.Format_RGB888)
    raw = np.frombuffer(picture.constBits().asstring(picture.sizeInBytes()), np.uint8)
    rows = raw.reshape(picture.height(), picture.bytesPerLine())
    rgb = rows[:, : 3 * picture.width()].reshape(picture.height(), -1, 3)
    places = [(w.mapTo(window, w.rect().topLeft()), w) for w in widgets]
    return [
        rgb[at.y() : at.y() + w.height(), at.x() : at.x() + w.width()]
        for at, w in places
    ]


def luminance(rgb):
    """Return the relative luminance of WCAG 2.1, 0 to 1."""
    part = np.asarray(rgb, float) / 255
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    return linear @ (0.2126, 0.7152, 0.0722)


def contrast(seen) -> float:
    """Return the contrast of a text with the colour behind it, from its pixels."""
    rgb = seen[2:-2, 2:-2].reshape(-1, 3)
    colours, counts = np.unique(rgb, axis=0, return_counts=True)
    behind = luminance(colours[np.argmax(counts)])
    light = luminance(colours)
    ratios = (np.maximum(light, behind) + 0.05) / (np.minimum(light, behind) + 0.05)
    return float(ratios.max())


def texts(widget: QWidget):
    """Yield what shows a text, is enabled and on the screen."""
    for kind in (QLabel, QAbstractButton, QComboBox, QLineEdit):
        for one in widget.findChildren(kind):
            text = one.currentText() if isinstance(one, QComboBox) else one.text()
            is_seen = one.isVisible() and not one.visibleRegion().isEmpty()
            is_whole = one.visibleRegion().boundingRect() == one.rect()
            if text.strip() and one.isEnabled() and is_seen and is_whole:
                yield text, one


def narrow(driver) -> None:
    window = driver.viewer.window._qt_window
    frame = driver.dock.parentWidget()
    while frame.parentWidget() is not window:
        frame = frame.parentWidget()
    window.resizeDocks([frame], [WIDTH], gestures.Qt.Orientation.Horizontal)
    spin(0.1)


def read_all(driver) -> dict[str, float]:
    """Return the contrast of each text of the dock, panel by panel."""
    found = {}
    dock = driver.dock
    for title, section in dock.sections.items():
        for other in dock.sections.values():
            other.fold(other is section)
        for part in section.body.findChildren(gestures.Section):
            part.fold(True)
        spin(0.05)
        gestures.bring(section)
        assert section.width() <= WIDTH
        found |= read_texts(title, section)
    gestures.turn_to(dock.tabs.tabBar(), 1)
    return found | read_texts("Batch", dock.batch_panel)


def read_texts(title: str, panel: QWidget) -> dict[str, float]:
    """Return the contrast of each text of a panel, all from one picture."""
    shown = list(texts(panel))
    seen = pixels(*(w for _, w in shown)) if shown else []
    return {
        f"{title}: {text}": contrast(rgb)
        for (text, _), rgb in zip(shown, seen, strict=True)
    }


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_text_can_be_read(driver, tmp_path, theme) -> None:
    driver.viewer.theme = theme
    driver.open(write_sample(tmp_path / "s.png"))
    driver.paint_two()
    driver.settled()
    narrow(driver)
    found = read_all(driver)
    assert len(found) > 40  # or nothing was looked at
    assert {t: c for t, c in found.items() if c < LEAST} == {}
    # the theme is the one that was asked for
    behind = luminance(pixels(driver.dock)[0][-4, 4])
    assert (behind > 0.5) == (theme == "light")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_errors_can_be_read(driver, theme) -> None:
    driver.viewer.theme = theme
    gestures.press(driver.dock.train_panel.update_button)
    spin(0.1)
    status = driver.dock.train_panel.status
    assert status.text() == "Choose an image first."
    gestures.bring(status)
    # red is darker than text; WCAG asks 3 of what is large or a mark
    (seen,) = pixels(status)
    assert contrast(seen) > 3
    rgb = seen.reshape(-1, 3).astype(int)
    assert (rgb[:, 0] - rgb[:, 1]).max() > 80


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_measure_sees_what_cannot_be_read(qtbot, driver, theme) -> None:
    driver.viewer.theme = theme
    label = driver.dock.image_panel.hint
    gestures.bring(label)
    assert contrast(*pixels(label)) > LEAST
    grey = "#707080" if theme == "dark" else "#b0b0b8"
    label.setStyleSheet(f"color: {grey};")
    spin(0.05)
    assert contrast(*pixels(label)) < LEAST
