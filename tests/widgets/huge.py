"""Large images for tests of the dock: flat regions, in tiles, with coarser copies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from widgets.driver import Driver, spin, wait_until

TILE = 512
SQUARE = 700


def pixels(y0: int, x0: int, shape: tuple[int, int], step: int = 1):
    """Return squares of two greys, every `step` pixels."""
    rows = np.arange(y0, y0 + shape[0] * step, step)
    cols = np.arange(x0, x0 + shape[1] * step, step)
    odd = (rows[:, None] // SQUARE + cols[None] // SQUARE) % 2
    return np.where(odd, 180, 60).astype(np.uint8)


def _tiles(shape: tuple[int, int], step: int):
    for y in range(0, shape[0], TILE):
        for x in range(0, shape[1], TILE):
            yield pixels(y * step, x * step, (TILE, TILE), step)


def write_large(path: Path, shape: tuple[int, int], *, levels: int = 1) -> Path:
    """Write a tiled TIFF, each level half of the one before it."""
    more = {"tile": (TILE, TILE), "compression": "deflate", "dtype": "u1"}
    with tifffile.TiffWriter(path) as tif:
        for level in range(levels):
            step = 2**level
            own = tuple(-(-n // step) for n in shape)
            at = {"subifds": levels - 1} if level == 0 else {"subfiletype": 1}
            tif.write(_tiles(own, step), shape=own, **more, **at)
    return path


def open_large(driver: Driver, path: Path) -> None:
    """Open an image as `alibi-seg gui` does, and wait until it can be painted on."""
    driver.dock.large.open(path)
    wait_until(lambda: driver.dock.stage.current is not None, "the layer")
    driver.wait_image()


def look(driver: Driver, row: float, col: float, zoom: float) -> None:
    """Move the camera and wait until what is seen has its canvas."""
    driver.viewer.camera.zoom = zoom
    driver.viewer.camera.center = (row, col)
    stage = driver.dock.stage

    def is_there() -> bool:
        is_coming = stage.is_canvas_away or driver.dock.scribbles.is_loading
        return not (stage._rest.isActive() or is_coming)

    spin(0.02)
    wait_until(is_there, "the canvas of the view")


def kept(driver: Driver):
    """Return the strokes that the project keeps."""
    image = driver.dock.image
    return image.project.scribbles(image.plane).annotations()
