"""One plane of an image, read window by window.

`ImageSource` is what every other room calls an image. Only this module knows how a
window becomes a (h, w, C) array in native byte order, and how pixels are hashed. How
the pixels of a window are found is left to the plane readers, which file has which to
the formats.

Nothing here holds a file open between two reads, so sources need no closing.
"""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from napari_alibi_seg._base import PixelSize, SettingsError, Window
from napari_alibi_seg.data._guard import check_dtype, translated
from napari_alibi_seg.data._planes import ColouredPlane, PlaneReader

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

    from napari_alibi_seg.data._axes import Meaning, Samples, Selection

__all__ = ["ImageSource", "Stored"]

_Pixels: TypeAlias = "npt.NDArray[Any]"

_HASH_BAND_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Stored:
    """An array in a file or in memory, before one of its planes is chosen.

    Attributes
    ----------
    name, path : str, Path or None
        What to call it, and where it is.
    axes, shape, dtype : str or None, tuple of int, dtype
        As stored; axes are None where nothing names them.
    open_plane : callable
        Makes the reader of a selection.
    samples : Samples or None
        What the S axis holds, where the file says so.
    pixel_size, channel_names, notes
        See `ImageSource`.
    colour_table : (N, 3) uint8 array or None
        Colours of the stored values, if they are to be applied.
    n_levels : int
        Resolutions that the file holds of it, this one and coarser ones.
    """

    name: str
    path: Path | None
    axes: str | None
    shape: tuple[int, ...]
    dtype: np.dtype
    open_plane: Callable[[Selection], PlaneReader]
    samples: Samples | None = None
    pixel_size: PixelSize | None = None
    channel_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    colour_table: npt.NDArray[np.uint8] | None = None
    n_levels: int = 1


@dataclass(frozen=True, eq=False)
class ImageSource:
    """One 2-D plane of an image with its channels, read window by window.

    Made by `open_image`. It holds no file open between reads and may be read from
    several threads at once. The pixels must not change while it is in use.

    Attributes
    ----------
    name : str
        File name, with the dataset after a colon for containers.
    path : Path or None
        The file, None for arrays.
    shape : tuple of int
        Rows and columns of the plane.
    n_channels : int
        Channels that `read` returns.
    meaning : {"grey", "rgb", "channels"}
        What they are.
    dtype : dtype
        Native byte order.
    pixel_size : PixelSize or None
        Physical side of a pixel, None where the file does not say.
    axes, file_shape : str, tuple of int
        Axes and shape as stored, for example "ZCYX" and (6, 2, 256, 256); the axes as
        given to `open_image` if they were.
    plane, time : int or None
        Which plane of a stack this is.
    channel_names : tuple of str
        Names the file gives its channels; empty if it gives none.
    notes : tuple of str
        What was left out or may surprise, as sentences.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_alibi_seg._base import Window
    >>> from napari_alibi_seg.data import open_image
    >>> source = open_image(np.arange(20, dtype=">u2").reshape(4, 5))
    >>> source.read(Window(1, 3, 0, 2))[..., 0]
    array([[ 5,  6],
           [10, 11]], dtype=uint16)
    >>> source.content_hash()[:12]
    'e102e2750f68'
    """

    name: str
    path: Path | None
    shape: tuple[int, int]
    n_channels: int
    meaning: Meaning
    dtype: np.dtype
    axes: str
    file_shape: tuple[int, ...]
    pixel_size: PixelSize | None = None
    plane: int | None = None
    time: int | None = None
    channel_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    _reader: PlaneReader = field(kw_only=True, repr=False)
    _hash: list[str] = field(default_factory=list, repr=False)
    _hash_lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @classmethod
    def from_selection(cls, stored: Stored, selection: Selection) -> ImageSource:
        """Open the chosen plane of a stored array."""
        reader = stored.open_plane(selection)
        n_channels, meaning = selection.n_channels, selection.meaning
        dtype = check_dtype(stored.dtype, stored.name)
        if stored.colour_table is not None:
            reader = ColouredPlane(reader, stored.colour_table)
            n_channels, meaning, dtype = 3, "rgb", np.dtype("uint8")
        return cls(
            name=stored.name,
            path=stored.path,
            shape=selection.plane_shape,
            n_channels=n_channels,
            meaning=meaning,
            dtype=dtype,
            axes=selection.axes,
            file_shape=stored.shape,
            pixel_size=stored.pixel_size,
            plane=selection.plane,
            time=selection.time,
            channel_names=stored.channel_names,
            notes=stored.notes + selection.notes,
            _reader=reader,
        )

    @property
    def window(self) -> Window:
        """The whole plane."""
        return Window(0, self.shape[0], 0, self.shape[1])

    def read(self, window: Window) -> _Pixels:
        """Read a window.

        Parameters
        ----------
        window : Window
            Pixels inside the plane, at least one.

        Returns
        -------
        (h, w, C) array of `dtype`
            A fresh C-contiguous array that the caller may change.

        Raises
        ------
        SettingsError
            If the window is empty or reaches beyond the plane.
        ImageFileError
            If the file is damaged there, or has changed since it was opened.
        """
        height, width = self.shape
        inside = (
            0 <= window.y0 < window.y1 <= height and 0 <= window.x0 < window.x1 <= width
        )
        if not inside:
            raise SettingsError(
                f"{self.name}: expected a window inside {height} x {width} pixels, got "
                f"{window}. Clip it to the image and pad what was read."
            )
        with translated(str(self.path or self.name), "sound pixels"):
            block = self._reader.read(window)
            if block.shape != (*window.shape, self.n_channels):
                raise ValueError(f"got an array of shape {block.shape} for {window}")
            return _owned(block, self.dtype)

    def content_hash(self) -> str:
        """Return the hash of the pixels, whatever file they come from.

        Returns
        -------
        str
            BLAKE2b, 32 bytes as hex, of shape, channels, dtype and the little-endian
            pixels row by row. Read in bands, once.
        """
        with self._hash_lock:
            if not self._hash:
                self._hash.append(self._digest())
            return self._hash[0]

    def _digest(self) -> str:
        height, width = self.shape
        head = {
            "shape": [height, width],
            "channels": self.n_channels,
            "dtype": self.dtype.name,
        }
        digest = hashlib.blake2b(digest_size=32)
        digest.update(json.dumps(head, sort_keys=True).encode())
        row_bytes = width * self.n_channels * self.dtype.itemsize
        band = max(1, _HASH_BAND_BYTES // row_bytes)
        for y in range(0, height, band):
            rows = self.read(Window(y, min(y + band, height), 0, width))
            little = rows.astype(self.dtype.newbyteorder("<"), copy=False)
            digest.update(little.reshape(-1).view(np.uint8).data)
        return digest.hexdigest()


def _owned(block: _Pixels, dtype: np.dtype) -> _Pixels:
    # Never a view: of a map it would keep the file open, of the caller's array it
    # would let us change their pixels.
    if dtype.kind == "b":  # True may be stored as any byte, and must hash as one
        return block.view(np.uint8) != 0
    if block.flags.owndata and block.flags.writeable and block.flags.c_contiguous:
        return block.astype(dtype, copy=False)
    return np.array(block, dtype, order="C", copy=True)
