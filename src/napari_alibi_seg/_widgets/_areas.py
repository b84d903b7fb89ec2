"""Areas that are left out, as shapes that the user draws and changes.

Only this module knows how an area's corners, on the edges of pixels, become a shape's,
in the middles of pixels, and which shapes are areas.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Image, Shapes

from napari_alibi_seg._workspace import ExcludedArea

__all__ = ["fill_areas", "new_areas", "read_areas"]

_GREY = "#808080"
_HALF = "80"  # opacity of the inside
_AREAS = ("rectangle", "polygon", "ellipse")


def new_areas(image: Image) -> Shapes:
    """Return an empty layer for the areas of an image, lying where that lies."""
    return Shapes(
        ndim=2,
        name=f"left out: {image.name}",
        scale=image.scale[-2:],
        translate=image.translate[-2:],
        face_color=_GREY + _HALF,
        edge_color=_GREY,
        edge_width=2,
    )


def fill_areas(shapes: Shapes, areas: tuple[ExcludedArea, ...]) -> None:
    """Show areas, in place of those that are shown.

    Parameters
    ----------
    shapes : Shapes
        From `new_areas`.
    areas : tuple of ExcludedArea
        To be shown.

    Examples
    --------
    >>> image = Image(np.zeros((20, 30)), name="steel")
    >>> bar = ExcludedArea(kind="box", corners=((15, 0), (15, 30), (20, 30), (20, 0)))
    >>> shapes = new_areas(image)
    >>> fill_areas(shapes, (bar,))
    >>> shapes.data[0][0].tolist(), read_areas(shapes) == (bar,)
    ([14.5, -0.5], True)
    """
    shapes.data = []
    for area in areas:
        kind = "rectangle" if area.kind == "box" else "polygon"
        # shapes run through pixel centres, areas along pixel edges
        shapes.add(np.array(area.corners) - 0.5, shape_type=kind)


def read_areas(shapes: Shapes) -> tuple[ExcludedArea, ...]:
    """Return the areas as they are drawn now; lines and paths are none."""
    found = []
    for corners, kind in zip(shapes.data, shapes.shape_type, strict=True):
        if kind not in _AREAS:
            continue
        at = tuple((float(y) + 0.5, float(x) + 0.5) for y, x in corners[:, -2:])
        is_box = kind == "rectangle" and _is_upright(corners[:, -2:])
        found.append(ExcludedArea(kind="box" if is_box else "polygon", corners=at))
    return tuple(found)


def _is_upright(corners: Any) -> bool:
    return len(np.unique(np.round(corners, 6), axis=0)) == 4 and all(
        len(np.unique(np.round(corners[:, axis], 6))) == 2 for axis in (0, 1)
    )
