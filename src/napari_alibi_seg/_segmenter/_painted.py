"""Labels of any form become painted pixels, plane by plane.

Scribbles come as one plane for one plane, as (plane, labels) pairs, or as a stack of
labels that is 0 where nobody painted. Only this module knows these forms; what makes a
label image valid is known to `data`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy.typing as npt

from napari_alibi_seg._base import AnnotationError
from napari_alibi_seg.data import (
    Annotations,
    ImageSource,
    open_image,
    read_annotations,
)

if TYPE_CHECKING:
    from typing import TypeGuard

__all__ = ["Painted", "count_planes", "is_by_plane", "painted_planes", "read_painted"]


# Class ids of one plane: (Y, X) integers, 0 where nobody painted, or the pixels alone.
Painted: TypeAlias = npt.NDArray[Any] | Annotations


def count_planes(image: Any) -> int:
    """Return how many planes a stack has; 1 for an image of one plane.

    Parameters
    ----------
    image : path, array or ImageSource
        The image; an `ImageSource` is one plane already.

    Returns
    -------
    int
        Length of the stack axis: Z, T, or whatever single axis there is beside rows,
        columns and channels.

    Raises
    ------
    ImageFileError
        If it cannot be read.
    SettingsError
        If there is more than one stack axis.

    Examples
    --------
    >>> import numpy as np
    >>> count_planes(np.zeros((7, 32, 32), np.uint16)), count_planes(np.zeros((32, 32)))
    (7, 1)
    """
    if isinstance(image, ImageSource):
        return 1
    first = open_image(image, plane=0)
    lengths = zip(first.axes, first.file_shape, strict=True)
    return max([n for letter, n in lengths if letter not in "YXCS"], default=1)


def is_by_plane(labels: Any) -> TypeGuard[list[tuple[int, Any]]]:
    """Return whether labels are a list of (plane, labels) pairs."""
    return (
        isinstance(labels, (list, tuple))
        and len(labels) > 0
        and all(
            isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], int)
            for pair in labels
        )
    )


def painted_planes(
    image: Any, labels: Any, plane: int | None
) -> list[tuple[ImageSource, Annotations]]:
    """Return every painted plane of an image with its painted pixels.

    Parameters
    ----------
    image : path, array or ImageSource
        One plane, or a stack.
    labels : path, array, Annotations, or list of (int, labels)
        For one plane; by plane; or a stack of as many planes as the image, 0 where
        nobody painted.
    plane : int or None
        The only plane that counts.

    Raises
    ------
    AnnotationError
        If labels do not fit, or nothing is painted.
    """
    if is_by_plane(labels):
        pairs = [(open_image(image, plane=z), part) for z, part in labels]
        return [(source, read_painted(part, source)) for source, part in pairs]
    n = (
        1
        if plane is not None or isinstance(labels, Annotations)
        else _n_painted(labels)
    )
    if n == 1 or count_planes(image) == 1:
        source = open_image(image, plane=plane)
        return [(source, read_painted(labels, source))]
    if n != count_planes(image):
        raise AnnotationError(
            f"A stack of labels must have as many planes as the image, "
            f"{count_planes(image)}, got {n}. Give (plane, labels) pairs, or name the "
            f"plane that was painted."
        )
    out = []
    for z in range(n):
        source = open_image(image, plane=z)
        painted = read_annotations(
            labels,
            plane=z,
            image_shape=source.shape,
            image_name=source.name,
            may_be_empty=True,
        )
        if painted.ids.size:
            out.append((source, painted))
    if not out:
        raise AnnotationError(
            f"{_name(labels)!r} has no painted pixel on any of its {n} planes. Paint a "
            f"few strokes of at least two classes."
        )
    return out


def read_painted(labels: Any, source: ImageSource) -> Annotations:
    """Return the painted pixels of labels for one plane."""
    if isinstance(labels, Annotations):
        labels.check_inside(source.shape)
        return labels
    return read_annotations(
        labels, plane=source.plane, image_shape=source.shape, image_name=source.name
    )


def _n_painted(labels: Any) -> int:
    try:
        return count_planes(labels)
    except ValueError:
        # what is wrong with labels that are no image is said where they are read
        return 1


def _name(labels: Any) -> str:
    return str(labels) if isinstance(labels, (str, Path)) else "labels"
