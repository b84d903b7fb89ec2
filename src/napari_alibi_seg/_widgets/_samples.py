"""File > Open Sample: the synthetic micrographs that come with the package.

Knows where the files lie, in an installed package and in a checkout, and how a file
becomes a napari layer with its pixel size. Painting is left to the user, but for one
sample that comes with its scribbles.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import napari_alibi_seg
from napari_alibi_seg._base import ImageFileError, Window
from napari_alibi_seg.data import ImageSource, open_image, read_labels

__all__ = [
    "fibres",
    "graded",
    "grains",
    "precipitates",
    "precipitates_with_scribbles",
    "samples_folder",
    "spinodal",
]

LayerData = tuple[Any, dict[str, Any], str]


def samples_folder() -> Path:
    """Return the folder `sample_data`, of the installed package or of the checkout.

    Raises
    ------
    ImageFileError
        If it is in neither place.

    Examples
    --------
    >>> (samples_folder() / "grains.tif").is_file()
    True
    """
    package = Path(napari_alibi_seg.__path__[0])
    places = [package / "sample_data", package.parents[1] / "sample_data"]
    for place in places:
        # a folder of that name beside a foreign `src` would be another
        if (place / "precipitates.tif").is_file():
            return place
    raise ImageFileError(
        f"Expected the sample images in {places[0]}, got none. Install "
        f"napari-alibi-seg again."
    )


def spinodal() -> list[LayerData]:
    """Return a two-phase labyrinth, 8 bit, 0.05 µm a pixel.

    Returns
    -------
    list of LayerData
        One image: (Y, X) array, keyword arguments, "image".

    Examples
    --------
    >>> [(data, options, kind)] = spinodal()
    >>> data.shape, options["scale"], options["units"], kind
    ((384, 384), (0.05, 0.05), ('um', 'um'), 'image')
    """
    return [_image("spinodal")]


def precipitates() -> list[LayerData]:
    """Return a superalloy with precipitates of two sizes; see `spinodal`."""
    return [_image("precipitates")]


def grains() -> list[LayerData]:
    """Return ferrite, pearlite and grain boundaries; see `spinodal`."""
    return [_image("grains")]


def fibres() -> list[LayerData]:
    """Return two plies of a fibre composite with voids, 16 bit; see `spinodal`."""
    return [_image("fibres")]


def graded() -> list[LayerData]:
    """Return a metal that turns into a ceramic across the field; see `spinodal`."""
    return [_image("graded")]


def precipitates_with_scribbles() -> list[LayerData]:
    """Return the superalloy and eight strokes on each of its three classes.

    Returns
    -------
    list of LayerData
        Image and labels, both (Y, X), on the same grid.

    Examples
    --------
    >>> image, (painted, options, kind) = precipitates_with_scribbles()
    >>> sorted(set(painted.ravel().tolist())), options["scale"], kind
    ([0, 1, 2, 3], (0.02, 0.02), 'labels')
    """
    image = _image("precipitates")
    painted = read_labels(samples_folder() / "precipitates_scribbles.png")
    options = {**image[1], "name": "precipitates scribbles"}
    return [image, (painted, options, "labels")]


def _image(kind: str) -> LayerData:
    source = open_image(samples_folder() / f"{kind}.tif")
    everything = Window(0, source.shape[0], 0, source.shape[1])
    pixels = source.read(everything)[..., 0]
    return pixels, {"name": kind, **_grid(source)}, "image"


def _grid(source: ImageSource) -> dict[str, Any]:
    """Return a layer's scale and units."""
    size = source.pixel_size
    if size is None:
        return {}
    return {"scale": (size.y, size.x), "units": (size.unit, size.unit)}
