"""Between napari's layers and our arrays: sources, planes, views, painted windows.

Only this module knows how a layer's axes map to an image plane, how its place in the
world is handed on, and how a piece of a Labels layer is shown without sending all of
it to the screen again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.colormaps import DirectLabelColormap

from napari_alibi_seg._base import AlibiSegError, PixelSize, Window
from napari_alibi_seg._segmenter import View
from napari_alibi_seg._widgets._lazy import LazyPlane
from napari_alibi_seg._workspace import ClassEntry
from napari_alibi_seg.data import ImageSource, open_image

if TYPE_CHECKING:
    from napari.layers import Image, Labels, Layer

__all__ = [
    "camera_of",
    "class_colours",
    "leading",
    "look_at",
    "new_like",
    "paint_window",
    "painted_window",
    "place_layer",
    "plane_of",
    "seen_of",
    "source_of",
    "view_of",
    "warm_up_colours",
]

_UNITS = {"micrometer": "um", "nanometer": "nm", "millimeter": "mm"}
_ZOOM = 2.0  # screen pixels an image pixel needs to be painted on
_SAMPLE = 64  # pixels a side that are compared to know a file from its layer


def leading(layer: Layer) -> int:
    """Return the number of axes before rows and columns."""
    return int(layer.ndim) - 2


def plane_of(layer: Layer, step: Sequence[int]) -> tuple[int, ...]:
    """Return the position of the shown plane along the leading axes of a layer.

    Parameters
    ----------
    layer : Layer
        Any; layers of fewer axes than the viewer take the last of its axes.
    step : sequence of int
        ``viewer.dims.current_step``.
    """
    n = leading(layer)
    if n <= 0:
        return ()
    shape = _pixels(layer).shape
    own = step[len(step) - layer.ndim :][:n]
    return tuple(
        min(max(int(s), 0), size - 1) for s, size in zip(own, shape, strict=False)
    )


def _pixels(layer: Layer) -> Any:
    data = layer.data
    return data[0] if getattr(layer, "multiscale", False) else data


def source_of(layer: Image, plane: tuple[int, ...]) -> ImageSource:
    """Return a plane of an image layer as our rooms read it.

    The file behind the layer is preferred, as a command line would read it: then
    stores and projects are shared. It is used only if its pixels are the layer's.

    Raises
    ------
    ImageFileError
        If the layer holds pixels of an unusable kind.
    """
    data = _pixels(layer)
    if isinstance(data, LazyPlane):
        return data.source
    axes = "YXS" if layer.rgb else "YX"
    from_array = open_image(data[plane] if plane else data, axes=axes)
    path = file_of(layer)
    if path is None:
        return _named(from_array, layer)
    try:
        options: dict[str, Any] = {}
        if len(plane) == 1:
            options = {"plane": plane[0]}
        elif len(plane) == 2:
            options = {"time": plane[0], "plane": plane[1]}
        elif plane:
            return _named(from_array, layer)
        from_file = open_image(path, **options)
    except AlibiSegError:
        return _named(from_array, layer)
    return from_file if _agree(from_file, from_array) else _named(from_array, layer)


def _named(source: ImageSource, layer: Layer) -> ImageSource:
    size = source.pixel_size or _pixel_size(layer)
    return replace(source, name=layer.name, pixel_size=size)


def _pixel_size(layer: Layer) -> PixelSize | None:
    """Return what the layer says of its pixels; one without a unit says nothing."""
    units = [str(u) for u in getattr(layer, "units", ())][-2:]
    if len(units) < 2 or units[0] != units[1] or units[0] in ("pixel", ""):
        return None
    y, x = (float(v) for v in layer.scale[-2:])
    return PixelSize(y, x, _UNITS.get(units[0], units[0]))


def file_of(layer: Layer) -> Path | None:
    """Return the one file that a layer was read from, if there is one."""
    path = getattr(layer.source, "path", None)
    if not path:
        return None
    found = Path(str(path))
    return found if found.exists() else None


def _agree(one: ImageSource, other: ImageSource) -> bool:
    if (one.shape, one.n_channels) != (other.shape, other.n_channels):
        return False
    h, w = one.shape
    y, x = max(0, (h - _SAMPLE) // 2), max(0, (w - _SAMPLE) // 2)
    middle = Window(y, min(h, y + _SAMPLE), x, min(w, x + _SAMPLE))
    return bool(np.array_equal(one.read(middle), other.read(middle)))


def camera_of(viewer: Any) -> Any:
    """Return the camera of a viewer, which napari 0.9 moved into its scene."""
    scene = getattr(viewer, "scene", None)
    return viewer.camera if scene is None else scene.camera


def view_of(viewer: Any, layer: Layer) -> View:
    """Return what is visible of the shown plane of a layer, and how large it is drawn.

    The whole plane where that cannot be told, as in 3-D.
    """
    shape = _pixels(layer).shape
    shape = shape[leading(layer) :][:2]
    whole = View(Window(0, shape[0], 0, shape[1]))
    if viewer.dims.ndisplay != 2:
        return whole
    if layer.multiscale:  # its corners are those of the chunks that are loaded
        window, pixel = seen_of(viewer, layer)
        return View(window, max(1, int(pixel)))
    corners = np.asarray(layer.corner_pixels)[:, -2:]
    y0, x0 = (int(v) for v in corners[0])
    y1, x1 = (int(v) + 1 for v in corners[1])
    if y1 - y0 < 2 or x1 - x0 < 2:
        return whole
    step = int(1 / max(1e-9, camera_of(viewer).zoom * float(layer.scale[-1])))
    return View(Window(y0, y1, x0, x1), max(1, step))


def seen_of(viewer: Any, layer: Layer) -> tuple[Window, float]:
    """Return what the camera sees of a layer, and the pixels of it to one on screen.

    The window may exceed the layer.
    """
    scale, shift = np.array(layer.scale[-2:]), np.array(layer.translate[-2:])
    camera = camera_of(viewer)
    size = np.array(viewer.window._qt_viewer.canvas.size, float)
    middle = (np.array(camera.center[-2:]) - shift) / scale
    half = size / camera.zoom / scale / 2
    y0, x0 = (math.floor(v) for v in middle - half)
    y1, x1 = (math.ceil(v) + 1 for v in middle + half)
    return Window(y0, y1, x0, x1), 1 / max(1e-9, camera.zoom * float(scale[-1]))


def look_at(viewer: Any, layer: Layer, row: float, col: float) -> None:
    """Bring a pixel of a layer to the middle of the view, large enough to paint on."""
    scale, shift = np.array(layer.scale[-2:]), np.array(layer.translate[-2:])
    camera = camera_of(viewer)
    camera.center = (*camera.center[:-2], *np.array((row, col)) * scale + shift)
    camera.zoom = max(camera.zoom, _ZOOM / float(scale[-1]))


def new_like(layer: Image, kind: type, data: Any, name: str, **more: Any) -> Layer:
    """Return a layer that lies where an image layer lies, in the same units.

    Parameters
    ----------
    layer : Image
        The image.
    kind : type
        Of the new layer.
    data : array
        On the image's grid, with its leading axes or without.
    name : str
        Shown in the list.
    **more
        For the new layer; `step` is the image pixels to a pixel of `data`, which begins
        at the image's row and column `origin`.
    """
    step, origin = float(more.pop("step", 1)), more.pop("origin", (0, 0))
    is_rgb = bool(more.get("rgb", False))
    ndim = np.ndim(data) - is_rgb
    scale, translate = _lying(layer, ndim, step, origin)
    units = getattr(layer, "units", None)
    made: Layer = kind(data, name=name, scale=scale, translate=translate, **more)
    if units is not None and len(units) >= ndim:
        made.units = units[-ndim:]
    return made


def _lying(
    layer: Layer, ndim: int, step: float, origin: tuple[int, int]
) -> tuple[Any, Any]:
    """Return scale and translation of a part of an image that lies where it lies."""
    scale = np.array(layer.scale[-ndim:], float)
    translate = np.array(layer.translate[-ndim:], float)
    # the middle of the first block of `step` pixels
    translate[-2:] += scale[-2:] * (np.array(origin) + (step - 1) / 2)
    scale[-2:] *= step
    return scale, translate


def place_layer(
    own: Any, image: Layer, data: Any, step: int, origin: tuple[int, int]
) -> None:
    """Let a layer of ours show another part of an image, drawn once.

    Parameters
    ----------
    own : Layer
        (Y, X), made by `new_like`.
    image : Layer
        The image.
    data : (Y, X) array
        What it shows from now on.
    step, origin
        As for `new_like`.
    """
    scale, translate = _lying(image, 2, step, origin)
    with own._block_refresh():
        own.data = data
        own.scale, own.translate = scale, translate
    own.refresh()


def class_colours(entries: Sequence[ClassEntry]) -> DirectLabelColormap:
    """Return the colours of classes for Labels layers; all other ids are invisible."""
    colours: dict[int | None, Any] = {None: (0, 0, 0, 0), 0: (0, 0, 0, 0)}
    colours |= {entry.id: entry.colour for entry in entries}
    return DirectLabelColormap(color_dict=colours)


def warm_up_colours() -> None:
    """Let napari compile what colours labels, seconds the first time, off the GUI.

    The first Labels layer would otherwise do it while the user waits for the brush.
    """
    entry = ClassEntry(id=1, name="any", colour="#000000")
    colours = class_colours([entry])
    for dtype in (np.uint8, np.uint16):
        colours.map(np.zeros((2, 2), dtype))


def painted_window(event_value: Any) -> Window | None:
    """Return a window around what a paint event of napari changed, None if unknown."""
    boxes = []
    for atom in event_value or ():
        key = getattr(atom, "slice_key", None)
        if key is not None:
            boxes.append([(s.start, s.stop) for s in key[-2:]])
            continue
        try:
            indices = atom[0][-2:]
            boxes.append([(int(i.min()), int(i.max()) + 1) for i in indices])
        except (TypeError, IndexError, ValueError, AttributeError):
            return None
    if not boxes:
        return None
    (y0, x0), (y1, x1) = (
        (pick(b[0][end] for b in boxes), pick(b[1][end] for b in boxes))
        for end, pick in ((0, min), (1, max))
    )
    return Window(y0, y1, x0, x1)


def paint_window(
    layer: Labels, plane: tuple[int, ...], window: Window, block: Any
) -> None:
    """Write a piece of a Labels layer and show it.

    `Labels.refresh` sends the whole plane to the screen again. napari has a way for
    brush strokes that sends the piece; where a version of it lacks that, all is sent.
    """
    key = (*plane, *window.slices)
    layer.data[key] = block
    if not layer.visible:
        return
    try:
        _show_piece(layer, plane, window, np.asarray(block))
    except (AttributeError, TypeError, ValueError, IndexError):
        layer.refresh()


def _show_piece(
    layer: Labels, plane: tuple[int, ...], window: Window, block: Any
) -> None:
    slice_input = layer._slice_input
    if tuple(slice_input.displayed) != (layer.ndim - 2, layer.ndim - 1):
        layer.refresh()
        return
    shown = plane_at(layer)
    if shown != plane:
        return  # another plane is on the screen
    picture = layer._slice.image
    if not np.shares_memory(picture.raw, layer.data):
        picture.raw[window.slices] = block
    if not np.shares_memory(picture.view, layer.data):
        picture.view[window.slices] = layer.colormap._data_to_texture(block)
    layer.events.labels_update(
        data=picture.view[window.slices], offset=[window.y0, window.x0]
    )


def plane_at(layer: Layer) -> tuple[int, ...]:
    """Return the plane that a layer shows now."""
    n = leading(layer)
    point = layer._data_slice.point
    return tuple(math.floor(float(point[i]) + 0.5) for i in range(n))
