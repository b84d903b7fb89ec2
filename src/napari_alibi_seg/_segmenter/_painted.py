"""Labels of any form become painted pixels, plane by plane.

Scribbles come as one plane for one plane, as (plane, labels) pairs, or as a stack or
time series of labels that is 0 where nobody painted. Only this module knows these
forms; what makes a label image valid is known to `data`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy.typing as npt

from napari_alibi_seg._base import AnnotationError
from napari_alibi_seg._segmenter._planes import Planes
from napari_alibi_seg.data import (
    Annotations,
    ImageSource,
    open_image,
    read_annotations,
)

if TYPE_CHECKING:
    from typing import TypeGuard

__all__ = ["Painted", "is_by_plane", "painted_planes", "read_painted"]


# Class ids of one plane: (Y, X) integers, 0 where nobody painted, or the pixels alone.
Painted: TypeAlias = npt.NDArray[Any] | Annotations


def is_by_plane(labels: Any) -> TypeGuard[list[tuple[Any, Any]]]:
    """Return whether labels are a list of (plane, labels) pairs.

    The plane of a series of stacks is a pair (time, plane).
    """
    return (
        isinstance(labels, (list, tuple))
        and len(labels) > 0
        and all(
            isinstance(pair, tuple) and len(pair) == 2 and _is_place(pair[0])
            for pair in labels
        )
    )


def _is_place(place: Any) -> bool:
    parts = place if isinstance(place, tuple) and len(place) == 2 else (place,)
    return all(isinstance(part, int) for part in parts)


def painted_planes(
    image: Any, labels: Any, plane: int | None, time: int | None = None
) -> list[tuple[ImageSource, Annotations]]:
    """Return every painted plane of an image with its painted pixels.

    Parameters
    ----------
    image : path, array or ImageSource
        One plane, a stack, a time series, or a series of stacks.
    labels : path, array, Annotations, or list of (place, labels)
        For one plane; by plane, or (time, plane) of a series of stacks; or as many
        planes as the image, 0 where nobody painted.
    plane, time : int or None
        The only plane that counts, and the only point in time; no plane with (place,
        labels), which name theirs.

    Raises
    ------
    AnnotationError
        If labels do not fit, or nothing is painted.
    """
    if is_by_plane(labels):
        if plane is not None:
            raise AnnotationError(
                f"Expected `plane` or (plane, labels) pairs, got plane {plane} and "
                f"{len(labels)} pair(s). Leave one of the two out."
            )
        pairs = [(_opened(image, place, time), part) for place, part in labels]
        return [(source, read_painted(part, source)) for source, part in pairs]
    is_one = plane is not None or isinstance(labels, Annotations)
    held = None if is_one else _label_planes(labels)
    if held is None or len(held) == 1:
        source = open_image(image, plane=plane, time=time)
        return [(source, read_painted(labels, source))]
    planes = Planes.of(image, time)
    if len(planes) == 1:
        return [(planes.first, read_painted(labels, planes.first))]
    out = []
    for position, at in enumerate(_matched(planes, held)):
        source = planes.open(position)
        label_time, label_plane = held.at(at)
        painted = read_annotations(
            labels,
            plane=label_plane,
            time=label_time,
            image_shape=source.shape,
            image_name=source.name,
            may_be_empty=True,
        )
        if painted.ids.size:
            out.append((source, painted))
    if not out:
        raise AnnotationError(
            f"{_name(labels)!r} has no painted pixel on any of its {len(planes)} "
            f"planes. Paint a few strokes of at least two classes."
        )
    return out


def _opened(image: Any, place: Any, time: int | None) -> ImageSource:
    at, plane = place if isinstance(place, tuple) else (time, place)
    if time is not None and at != time:
        raise AnnotationError(
            f"Expected labels of time {time} only, got some for time {at}, plane "
            f"{plane}. Leave `time` out, or these labels."
        )
    if at is None and Planes.of(image).n_times and Planes.of(image).n_planes:
        raise AnnotationError(
            f"Labels of a series of stacks must say where they belong as ((time, "
            f"plane), labels), got plane {plane} alone. Name the point in time too."
        )
    return open_image(image, plane=plane, time=at)


def _matched(planes: Planes, held: Planes) -> list[int]:
    """Return which plane of a label stack belongs to each plane of the image."""
    if len(held) == len(planes) and (held.n_times or 1) in (1, planes.n_times or 1):
        return list(range(len(planes)))
    if held.n_times and planes.time is not None and held.n_planes == planes.n_planes:
        n, time = held.n_planes or 1, planes.time
        if time < held.n_times:
            return list(range(time * n, (time + 1) * n))
    raise AnnotationError(
        f"A stack of labels must have as many planes as the image, {_lengths(planes)}, "
        f"got {_lengths(held)}. Give (plane, labels) pairs, or name the plane that was "
        f"painted."
    )


def _lengths(planes: Planes) -> str:
    if planes.n_times is None:
        return str(planes.n_planes or 1)
    return f"{planes.n_planes or 1} at each of {planes.n_times} times"


def read_painted(labels: Any, source: ImageSource) -> Annotations:
    """Return the painted pixels of labels for one plane."""
    if isinstance(labels, Annotations):
        labels.check_inside(source.shape)
        return labels
    return read_annotations(
        labels,
        plane=source.plane,
        time=source.time,
        image_shape=source.shape,
        image_name=source.name,
    )


def _label_planes(labels: Any) -> Planes | None:
    try:
        return Planes.of(labels)
    except ValueError:
        # what is wrong with labels that are no image is said where they are read
        return None


def _name(labels: Any) -> str:
    return str(labels) if isinstance(labels, (str, Path)) else "labels"
