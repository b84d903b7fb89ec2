"""Our layers for one image layer, each made when it is first needed.

Only this module knows how our layers are marked, so that a dock that is opened again
finds them, what they look like and where in the list they go. Here they are as large
as the image; `_parts_stage` shows parts of one that is too large for that. Which image
is on show, and what the user does to a layer, is `_stage`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
from napari.layers import Image, Labels, Layer, Shapes

from napari_alibi_seg._base import Window
from napari_alibi_seg._segmenter import View
from napari_alibi_seg._widgets._layers import class_colours, new_like, paint_window
from napari_alibi_seg._widgets._pieces import Piece
from napari_alibi_seg._workspace import ClassEntry, Project, ScribbleBlocks

__all__ = ["ImageStage", "is_ours"]

_BRUSH = 8
_LABELS_OPACITY = 0.45
_MAPS_OPACITY = 0.7
_MARK = "napari-alibi-seg"  # in the metadata of our layers
_MAPS = ("uncertainty", "probability")


def is_ours(layer: Layer) -> bool:
    """Return whether a dock made a layer, this one or an earlier one."""
    return _MARK in layer.metadata


class ImageStage:
    """See the module.

    Parameters
    ----------
    viewer : Viewer
        Which the layers are put into.
    image : Image
        The user's layer that ours belong to.
    dress : callable
        Gets each layer of ours once it is in the viewer.
    """

    def __init__(
        self, viewer: Any, image: Image, dress: Callable[[Layer], None]
    ) -> None:
        self.viewer = viewer
        self.image = image
        self._dress = dress
        self.scribbles: Labels | None = None
        self.labels: Labels | None = None
        self.maps: dict[str, Image] = {}
        self.overlay: Layer | None = None
        self.areas: Shapes | None = None
        self.place: list[Layer] = []  # pictures of position, of which there are some
        self._stale: set[str] = set()
        self._adopt()

    def _adopt(self) -> None:
        """Take over what an earlier dock made for this image."""
        for layer in self.viewer.layers:
            mark = layer.metadata.get(_MARK)
            if mark is None or mark["of"] != str(self.image.unique_id):
                continue
            if mark["kind"] in _MAPS:
                self.maps[mark["kind"]] = layer
            elif mark["kind"] == "place":
                self.place.append(layer)
            else:
                setattr(self, mark["kind"], layer)
            self._dress(layer)

    def mark(self, layer: Layer, kind: str) -> None:
        """Note on a layer that it is ours, and what it is."""
        layer.metadata[_MARK] = {"kind": kind, "of": str(self.image.unique_id)}

    @property
    def all(self) -> list[Layer]:
        """Our layers that exist."""
        some = [self.labels, *self.maps.values(), *self.place]
        some += [self.overlay, self.areas]
        return [layer for layer in [*some, self.scribbles] if layer is not None]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the image without its colour axis."""
        data = self.image.data[0] if self.image.multiscale else self.image.data
        return tuple(int(n) for n in data.shape[: self.image.ndim])

    def forget(self, layer: Layer) -> str:
        """Drop a layer that was removed; return what it was."""
        for name in ("scribbles", "labels", "overlay", "areas"):
            if getattr(self, name) is layer:
                setattr(self, name, None)
                return name
        if layer in self.place:
            self.place.remove(layer)
            return "place"
        for name, own in [*self.maps.items()]:
            if own is layer:
                del self.maps[name]
                return name
        return ""

    def add(self, layer: Layer) -> None:
        """Put a layer above the image and below the scribbles."""
        layers = self.viewer.layers
        at = len(layers)
        if self.scribbles is not None and self.scribbles in layers:
            at = layers.index(self.scribbles)
        active = layers.selection.active
        layers.insert(at, layer)
        self._dress(layer)
        # what the user was painting on stays in hand
        if active is not None and active in layers:
            layers.selection.active = active

    # ------------------------------------------------------------------- scribbles

    def reader(
        self, seen: tuple[Window, float] | None
    ) -> Callable[[ScribbleBlocks], Any]:
        """Return what makes, on a worker, scribbles to show of those that are kept.

        Parameters
        ----------
        seen : (Window, float) or None
            What the camera sees, for those who show parts.
        """
        return ScribbleBlocks.to_array

    def fill(
        self, plane: tuple[int, ...], content: Any, entries: tuple[ClassEntry, ...]
    ) -> bool:
        """Show what a reader made; return whether the layer had to be made.

        Parameters
        ----------
        plane : tuple of int
            Of a stack.
        content : (Y, X) array of int
            All scribbles of the plane.
        entries : tuple of ClassEntry
            For the colours.
        """
        is_new = self.scribbles is None
        if is_new:
            self.new_scribbles(np.zeros(self.shape, content.dtype), entries)
        layer: Any = self.scribbles
        if layer.data.dtype.itemsize < content.dtype.itemsize:
            layer.data = layer.data.astype(content.dtype)
        layer.data[plane or ...] = content
        layer.refresh()
        return is_new

    def painted(self, plane: tuple[int, ...]) -> Any:
        """Return what the layer of scribbles shows of a plane, not a copy."""
        assert self.scribbles is not None
        return self.scribbles.data[plane] if plane else self.scribbles.data

    def unsaved(self, plane: tuple[int, ...]) -> Any:
        """Return a copy of what is painted, for a project that is still to come."""
        return np.array(self.painted(plane))

    def with_fresh(self, plane: tuple[int, ...], content: Any) -> Any:
        """Return what a reader made, with what was painted meanwhile on top."""
        fresh = self.painted(plane)
        return np.where(fresh > 0, fresh, content)

    def take(
        self, project: Project, plane: tuple[int, ...], window: Window | None
    ) -> None:
        """Hand what was painted in a window of the layer to a project."""
        project.update_scribbles(plane or None, self.painted(plane), window)

    def paint_pixels(
        self, plane: tuple[int, ...], pixels: tuple[Any, Any], class_id: int
    ) -> None:
        """Paint rows and columns of the image, as a stroke that can be undone."""
        assert self.scribbles is not None
        lead = tuple(np.full(len(pixels[0]), p) for p in plane)
        self.scribbles.data_setitem((*lead, *pixels), class_id)

    def new_scribbles(
        self, data: Any, entries: tuple[ClassEntry, ...], **at: Any
    ) -> Any:
        """Put a layer for scribbles on top of all others; return it."""
        layer: Any = new_like(
            self.image,
            Labels,
            data,
            f"scribbles: {self.image.name}",
            opacity=1.0,
            colormap=class_colours(entries),
            **at,
        )
        layer.brush_size = _BRUSH
        self.mark(layer, "scribbles")
        self.viewer.add_layer(layer)
        self._dress(layer)
        self.scribbles = layer
        return layer

    # ---------------------------------------------------------------------- result

    def aim(self, view: View) -> None:
        """Make ready for the result of a run that began with a view."""

    def result(self, entries: tuple[ClassEntry, ...]) -> Labels:
        """Return the Labels layer of the segmentation."""
        if self.labels is None:
            many = any(e.id > 255 for e in entries)
            self.labels = new_like(
                self.image,
                Labels,
                self._blank(np.uint16 if many else np.uint8),
                f"segmentation: {self.image.name}",
                opacity=_LABELS_OPACITY,
                colormap=class_colours(entries),
                **self._result_at(),
            )
            self.mark(self.labels, "labels")
            self.add(self.labels)
        assert self.labels is not None
        return self.labels

    def map(self, name: str, colormap: str) -> Image:
        """Return the image layer of the uncertainty or of a probability."""
        if name not in self.maps:
            layer: Any = new_like(
                self.image,
                Image,
                # half floats take ten times as long to show
                self._blank(np.float32),
                f"{name}: {self.image.name}",
                opacity=_MAPS_OPACITY,
                colormap=colormap,
                contrast_limits=(0.0, 1.0),
                blending="additive",
                **self._result_at(),
            )
            self.maps[name] = layer
            self.mark(layer, name)
            self.add(layer)
        return self.maps[name]

    def _blank(self, dtype: Any) -> Any:
        return np.zeros(self.shape, dtype)

    def _result_at(self) -> dict[str, Any]:
        return {}

    def paint_result(self, plane: tuple[int, ...], piece: Piece) -> None:
        """Show a piece of the result; maps are shown with the next `refresh`."""
        if self.labels is not None:
            self._widen(piece.labels_yx)
            paint_window(self.labels, plane, piece.window, piece.labels_yx)
        for name, block in piece.maps.items():
            if name in self.maps:
                self.maps[name].data[(*plane, *piece.window.slices)] = block
                self._stale.add(name)

    def _widen(self, block: Any) -> None:
        assert self.labels is not None
        if block.dtype.itemsize > self.labels.data.dtype.itemsize:
            self.labels.data = self.labels.data.astype(block.dtype)

    def refresh(self) -> None:
        """Show what was written to maps."""
        for name in self._stale & self.maps.keys():
            self.maps[name].refresh()
        self._stale.clear()

    def show_overlay(self, layer: Layer | None) -> None:
        """Replace the overlay by another, or remove it."""
        old, self.overlay = self.overlay, None
        if old is not None and old in self.viewer.layers:
            self.viewer.layers.remove(old)
        if layer is not None:
            self.overlay = layer
            self.mark(layer, "overlay")
            self.add(layer)

    def show_place(self, layers: list[Layer]) -> None:
        """Replace the pictures of position by others, or remove them."""
        old, self.place = self.place, []
        for layer in old:
            if layer in self.viewer.layers:
                self.viewer.layers.remove(layer)
        self.place = layers
        for layer in layers:
            self.mark(layer, "place")
            self.add(layer)

    def remove_all(self) -> None:
        """Take our layers out of the viewer."""
        for layer in self.all:
            self.forget(layer)
            with suppress(ValueError):
                self.viewer.layers.remove(layer)
