"""The small pieces of panels: sentences that come, change and go."""

from __future__ import annotations

import pytest

pytest.importorskip("napari")
from qtpy.QtCore import QEvent, QObject, QPoint
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget
from widgets.hands import shown

from napari_alibi_seg._widgets._parts import Hint

pytestmark = pytest.mark.gui

SHORT, OTHER = "Trained in 0.41 s.", "Trained in 1.73 s."
LONG = "The disk is full: free some room on it, and then press Update again."


class Eye(QObject):
    """Counts the events of one type that a widget gets."""

    def __init__(self, watched, kind) -> None:
        super().__init__(watched)
        self.n, self._kind = 0, kind
        watched.installEventFilter(self)

    def eventFilter(self, _watched, event):
        self.n += event.type() == self._kind
        return False


@pytest.fixture
def host(qtbot):
    """A column as wide as a dock: a panel of a sentence, and what is below it."""
    made = QWidget()
    made.panel, made.hint, made.below = QWidget(), Hint(SHORT), QLabel("below")
    QVBoxLayout(made.panel).addWidget(made.hint)
    layout = QVBoxLayout(made)
    layout.addWidget(made.panel)
    layout.addWidget(made.below)
    layout.addStretch(1)
    shown(qtbot, made)
    qtbot.wait(50)
    return made


def is_whole(hint) -> bool:
    return hint.height() >= hint.heightForWidth(hint.width())


@pytest.mark.parametrize(
    ("text", "n_layouts"), [(OTHER, 0), (LONG, 1)], ids=["as high", "higher"]
)
def test_the_layout_hears_of_another_height_only(qtbot, host, text, n_layouts) -> None:
    layouts = Eye(host, QEvent.Type.LayoutRequest)
    paints = Eye(host.hint, QEvent.Type.Paint)
    top = host.below.y()
    host.hint.say(text)
    qtbot.waitUntil(lambda: paints.n > 0, timeout=60_000)
    qtbot.wait(50)
    assert (host.hint.text(), layouts.n) == (text, n_layouts)
    assert (host.below.y() > top) == bool(n_layouts)
    assert is_whole(host.hint)


def test_a_changed_text_is_whole_in_a_narrower_dock_again(qtbot, host) -> None:
    host.hint.say("Done.")
    for width in (130, 320):  # the layouts remember what they needed at both
        host.resize(width, 400)
        qtbot.wait(50)
    one_line = host.hint.height()
    layouts = Eye(host.panel, QEvent.Type.LayoutRequest)
    host.hint.say(OTHER)
    qtbot.wait(50)
    assert (host.hint.height(), layouts.n) == (one_line, 0)
    host.resize(130, 400)
    qtbot.waitUntil(lambda: host.hint.height() >= 2 * one_line, timeout=60_000)
    assert is_whole(host.hint)
    assert layouts.n == 1  # told once; what else is remembered of the old text goes
    assert host.below.mapTo(host, QPoint()).y() >= host.panel.geometry().bottom()


def test_it_comes_and_goes(qtbot, host) -> None:
    top = host.below.y()
    host.hint.say("")
    qtbot.waitUntil(lambda: host.below.y() < top, timeout=60_000)
    assert host.hint.isHidden()
    host.hint.say(OTHER)
    qtbot.waitUntil(lambda: host.below.y() == top, timeout=60_000)
    assert host.hint.isVisible()
