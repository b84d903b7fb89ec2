"""Masks of images that are larger than memory: to a file and back, part by part.

Only this module knows how scribbles that are kept in blocks become a mask that any
program reads, without an array of the whole plane. What a mask must be is known to
`data`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_alibi_seg._base import PixelSize, SettingsError, Window
from napari_alibi_seg._workspace._blocks import ScribbleBlocks
from napari_alibi_seg.data import (
    ImageSource,
    open_labels,
    write_image,
    write_large_labels,
)

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["export_blocks", "import_blocks"]

# A PNG is made from an array of the whole plane.
_LARGEST_PNG_PX = 64_000_000
_TIFF_SUFFIXES = (".tif", ".tiff")


def export_blocks(
    path: Path | str, blocks: ScribbleBlocks, *, pixel_size: PixelSize | None = None
) -> None:
    """Write the scribbles of a plane as a mask that `alibi-seg train` reads.

    Parameters
    ----------
    path : path
        Ends in .tif, .tiff or, up to 64 megapixels, .png. An existing file is replaced.
    blocks : ScribbleBlocks
        What is painted.
    pixel_size : PixelSize, optional
        Kept in the file.

    Raises
    ------
    SettingsError
        If the suffix is another, or the image too large for PNG.
    OutputError
        If the file cannot be written.

    Notes
    -----
    A TIFF of more than one tile (512 px) is tiled and compressed; memory is that of
    some tiles.

    Examples
    --------
    >>> import tempfile
    >>> blocks = ScribbleBlocks((600, 600))
    >>> _ = blocks.paint(0, 598, 1, np.array([[4, 5]]), np.ones((1, 2), bool))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export_blocks(Path(folder) / "mask.tif", blocks)
    ...     import_blocks(Path(folder) / "mask.tif", (600, 600)).counts()
    {4: 1, 5: 1}
    """
    path = Path(path)
    height, width = blocks.shape
    if path.suffix.lower() in _TIFF_SUFFIXES:
        largest = max(blocks.counts(), default=0)
        dtype = np.dtype("u1" if largest < 256 else "u2")
        write_large_labels(
            path, blocks.shape, blocks.read, dtype=dtype, pixel_size=pixel_size
        )
        return
    if height * width > _LARGEST_PNG_PX:
        raise SettingsError(
            f"{path}: a PNG is written from memory, and {height} x {width} pixels are "
            f"too many for that. Choose a name that ends in .tif."
        )
    write_image(path, blocks.to_array(), axes="YX", pixel_size=pixel_size)


def import_blocks(
    labels: Any,
    shape: tuple[int, int],
    *,
    plane: int | None = None,
    time: int | None = None,
    image_name: str | None = None,
) -> ScribbleBlocks:
    """Read a mask as scribbles, block by block.

    Parameters
    ----------
    labels : path or array-like
        Ids, or a bool mask, which becomes class 1; read by window where the format
        allows it.
    shape : tuple of int
        Rows and columns of the image.
    plane, time : int, optional
        Plane of a stack of labels, and point in time of a series of stacks.
    image_name : str, optional
        For messages.

    Returns
    -------
    ScribbleBlocks
        May be given to `Project.update_scribbles` as labels; memory follows what is
        painted.

    Raises
    ------
    AnnotationError
        If these are no ids from 0 to 65535 or the shape is another.
    ImageFileError
        If the file cannot be read.
    """
    source = open_labels(
        labels, plane=plane, time=time, image_shape=shape, image_name=image_name
    )
    blocks = ScribbleBlocks(shape)
    blocks.update(_Ids(source))
    return blocks


@dataclass(frozen=True, slots=True)
class _Ids:
    """Labels that are read where they are sliced."""

    source: ImageSource

    @property
    def shape(self) -> tuple[int, int]:
        return self.source.shape

    def __getitem__(self, key: tuple[slice, slice]) -> npt.NDArray[Any]:
        rows, columns = key
        window = Window(rows.start, rows.stop, columns.start, columns.stop)
        return self.source.read(window)[..., 0]
