"""Our keys, on the viewer and on the layers that would have them first.

Only this module knows that napari asks the active layer before the viewer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari.layers import Layer

__all__ = ["Keys"]


class Keys:
    """Keys that do the same whatever layer is active.

    Parameters
    ----------
    viewer : Viewer
        Where they are bound first.
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._bound: list[tuple[str, Any]] = []
        self._dressed: list[Layer] = []

    def bind(self, key: str, run: Callable[[], Any]) -> None:
        """Let a key run something; to be called before any layer is dressed."""

        def pressed(_viewer_or_layer: Any) -> None:
            run()

        self._viewer.bind_key(key, pressed, overwrite=True)
        self._bound.append((key, pressed))

    def dress(self, layer: Layer) -> None:
        """Give our keys to a layer too, as its own would come before the viewer's."""
        if any(layer is other for other in self._dressed):
            return
        for key, pressed in self._bound:
            layer.bind_key(key, pressed, overwrite=True)
        self._dressed.append(layer)

    def forget(self, layer: Layer) -> None:
        """Let go of a layer that left the viewer."""
        self._dressed = [other for other in self._dressed if other is not layer]

    def close(self) -> None:
        """Take our keys away."""
        for target in (self._viewer, *self._dressed):
            for key, _ in self._bound:
                target.bind_key(key, None)
        self._dressed.clear()
        self._bound.clear()
