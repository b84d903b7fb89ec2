"""What the user does to layers of scribbles, told apart from what we do to them.

Only this module knows how napari tells of it: a stroke by an event of its own, an undo
by nothing but a refresh of the layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_alibi_seg._widgets._hooks import on_gui
from napari_alibi_seg._widgets._layers import painted_window

if TYPE_CHECKING:
    from napari.layers import Labels

__all__ = ["StrokeWatch"]


class StrokeWatch(QObject):
    """Hears of strokes and undos.

    Attributes
    ----------
    painted : Signal(object, object)
        The `Labels` layer that is painted on, and the `Window` of it, None where that
        is unknown. Not all of the stroke need be in the layer yet.
    undone : Signal(object)
        The `Labels` layer on which a stroke was taken back, or done again.
    """

    painted = Signal(object, object)
    undone = Signal(object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._is_quiet = False
        self._steps: dict[int, tuple[int, int]] = {}

    def hear(self, layer: Labels) -> None:
        """Tell of a layer from now on."""
        self.note(layer)
        layer.events.paint.connect(self._paint)
        layer.events.set_data.connect(self._set_data)

    def unhear(self, layer: Labels) -> None:
        """Tell no more of a layer."""
        self._steps.pop(id(layer), None)
        layer.events.paint.disconnect(self._paint)
        layer.events.set_data.disconnect(self._set_data)

    def note(self, layer: Labels) -> None:
        """Take what can be undone now as known: no undo has led to it."""
        self._steps[id(layer)] = _steps(layer)

    @property
    def is_quiet(self) -> bool:
        """Whether we are changing our own layers ourselves."""
        return self._is_quiet

    @contextmanager
    def silence(self) -> Iterator[None]:
        """What we do to our own layers is no stroke of the user's."""
        before, self._is_quiet = self._is_quiet, True
        try:
            yield
        finally:
            self._is_quiet = before

    @on_gui
    def _paint(self, event: Any) -> None:
        if not self._is_quiet:
            self.note(event.source)
            self.painted.emit(event.source, painted_window(event.value))

    @on_gui
    def _set_data(self, event: Any) -> None:
        """Find out whether this refresh was an undo, which napari does not announce."""
        layer = event.source
        if not self._is_quiet and self._steps.get(id(layer)) != _steps(layer):
            self.note(layer)
            self.undone.emit(layer)


def _steps(layer: Any) -> tuple[int, int]:
    """Return how much can be undone and redone."""
    return len(layer._undo_history), len(layer._redo_history)
