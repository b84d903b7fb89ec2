"""Reading images of class ids.

Only this module knows which images can be labels. Ids are values as they were stored:
never colours, never anything that a lossy compression touched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_alibi_seg._base import AnnotationError, SettingsError, Window
from napari_alibi_seg.data._annotations import Annotations, refuse_negative
from napari_alibi_seg.data._io import Request, open_request
from napari_alibi_seg.data._source import ImageSource
from napari_alibi_seg.data._tiff import LOSSY_NOTE

if TYPE_CHECKING:
    from napari_alibi_seg._base import IntArray

__all__ = ["open_labels", "read_annotations", "read_labels"]

# Of a label image, read at once.
_BAND_BYTES = 16 << 20


def read_labels(
    labels: Any,
    *,
    plane: int | None = None,
    time: int | None = None,
    image_shape: tuple[int, int] | None = None,
    image_name: str | None = None,
) -> IntArray:
    """Read an image of class ids.

    Parameters
    ----------
    labels : path, array-like or ImageSource
        One id per pixel, integer or bool. Of a palette PNG, BMP or TIFF the positions
        in the palette are the ids, whatever their colours.
    plane, time : int, optional
        Plane of a stack of labels, and point in time of a series of stacks. A single
        plane of labels serves any plane of the image, so they are not looked at there.
    image_shape : tuple of int, optional
        Rows and columns that the labels must have.
    image_name : str, optional
        Name of that image, for messages.

    Returns
    -------
    (Y, X) array of int
        Ids as stored, in the type as stored (bool as uint8).

    Raises
    ------
    AnnotationError
        For colours, floats, negative ids, JPEG or another shape than the image's.
    ImageFileError
        If the file cannot be read at all.
    SettingsError
        If a stack of labels needs another `plane` or `time`.

    Examples
    --------
    >>> import numpy as np
    >>> read_labels(np.eye(2, dtype=bool))
    array([[1, 0],
           [0, 1]], dtype=uint8)
    """
    source = _checked(labels, (plane, time), image_shape, image_name)
    ids = source.read(source.window)[..., 0]
    refuse_negative(ids, _where(source))
    return ids.view(np.uint8) if ids.dtype.kind == "b" else ids


def open_labels(
    labels: Any,
    *,
    plane: int | None = None,
    time: int | None = None,
    image_shape: tuple[int, int] | None = None,
    image_name: str | None = None,
) -> ImageSource:
    """Open an image of class ids for reading by window.

    Parameters
    ----------
    labels, plane, time, image_shape, image_name
        As for `read_labels`.

    Returns
    -------
    ImageSource
        Of one channel of integers or bool. Negative ids show when they are read.

    Raises
    ------
    AnnotationError, ImageFileError, SettingsError
        As `read_labels`.

    Examples
    --------
    >>> import numpy as np
    >>> open_labels(np.eye(3, dtype="u1")).shape
    (3, 3)
    """
    return _checked(labels, (plane, time), image_shape, image_name)


def read_annotations(
    labels: Any,
    *,
    plane: int | None = None,
    time: int | None = None,
    image_shape: tuple[int, int] | None = None,
    image_name: str | None = None,
    may_be_empty: bool = False,
) -> Annotations:
    """Read the painted pixels of an image of class ids, band by band.

    Memory follows the painted pixels, not the image, where the format is read by
    window.

    Parameters
    ----------
    labels, plane, time, image_shape, image_name
        As for `read_labels`.
    may_be_empty : bool
        Whether no painted pixel at all is fine.

    Returns
    -------
    Annotations

    Raises
    ------
    AnnotationError
        As `read_labels`; also for ids above 65535, or if everything is 0.
    ImageFileError, SettingsError
        As `read_labels`.

    Examples
    --------
    >>> import numpy as np
    >>> read_annotations(np.diag([2, 5])).ids.tolist()
    [2, 5]
    """
    source = _checked(labels, (plane, time), image_shape, image_name)
    (height, width), item = source.shape, source.dtype.itemsize
    step = max(1, _BAND_BYTES // (width * item))
    bands = (
        source.read(Window(y, min(y + step, height), 0, width))[..., 0]
        for y in range(0, height, step)
    )
    return Annotations.from_bands(bands, name=_where(source), may_be_empty=may_be_empty)


def _checked(
    labels: Any,
    at: tuple[int | None, int | None],
    image_shape: tuple[int, int] | None,
    image_name: str | None,
) -> ImageSource:
    """Open labels that fit an image."""
    source = _open_labels(labels, *at)
    where = _where(source)
    _check_label_kind(source, where)
    if image_shape is not None and source.shape != tuple(image_shape):
        turned = " They look transposed." if source.shape == image_shape[::-1] else ""
        raise AnnotationError(
            f"{where}: expected labels of the shape of the image, {tuple(image_shape)}"
            f"{f' ({image_name})' if image_name else ''}, got {source.shape}.{turned} "
            "Pair each image with its own labels, at full resolution."
        )
    return source


def _where(source: ImageSource) -> str:
    return str(source.path or source.name)


def _open_labels(labels: Any, plane: int | None, time: int | None) -> ImageSource:
    if isinstance(labels, ImageSource):
        return labels
    # Plane and time were named for the image; labels may have less of these axes.
    requests = {(plane, time): None, (None, time): None, (plane, None): None}
    first: SettingsError | None = None
    for chosen in [*requests, (None, None)]:
        try:
            found = open_request(labels, Request(*chosen, is_coloured=False))
        except SettingsError as err:
            first = first or err
            continue
        # of labels in time alone, `plane` would be a point in time
        if time is None or chosen[0] is None or not _is_time_alone(found):
            return found
    assert first is not None
    raise first


def _is_time_alone(source: ImageSource) -> bool:
    lengths = zip(source.axes, source.file_shape, strict=True)
    return [a for a, n in lengths if a not in "YXCS" and n > 1] == ["T"]


def _check_label_kind(source: ImageSource, where: str) -> None:
    if source.n_channels != 1:
        what = "a colour image" if source.meaning == "rgb" else "channels"
        raise AnnotationError(
            f"{where}: expected one class id per pixel, got {what} of "
            f"{source.n_channels} values. Save the ids as a grey or palette PNG or as "
            "an integer TIFF."
        )
    if source.dtype.kind not in "bui":
        raise AnnotationError(
            f"{where}: expected class ids of an integer type, got {source.dtype}. "
            "Convert them, for example with labels.astype('uint8')."
        )
    if LOSSY_NOTE in source.notes:
        raise AnnotationError(
            f"{where}: expected ids as they were painted, got JPEG compression, which "
            "changes values. Save the labels as PNG or uncompressed TIFF."
        )
