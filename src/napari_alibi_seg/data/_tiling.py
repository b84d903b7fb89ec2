"""Pure geometry: where tiles lie, and where a token lies in the image.

Coordinates. *Image* pixels are those of the file. *Working* pixels are the image
resized by the working scale; what the ViT sees. *Tokens* are patches of `patch_px`
working pixels; with a density d there are d tokens per patch side, `patch_px / d`
apart, from d x d shifted passes that are interleaved.

The centre of pixel i is i + 0.5 in edge coordinates; token r of the grid covers the
working pixels from ``r * patch_px / density`` on, `patch_px` wide.

Every tile of a run has one shape (ALiBi's normalised distance depends on it): the
last tile of a row or column is shifted inwards by whole patches, never shrunk, and an
image smaller than a tile is padded. Only this module knows these rules.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import SettingsError, Window

__all__ = ["PIXEL_TILE_PX", "TokenGrid", "TokenTile", "centre_out", "pixel_tiles"]

# Side of an output tile: large enough that its halo is cheap, small enough to stream.
PIXEL_TILE_PX = 512


@dataclass(frozen=True, slots=True)
class TokenTile:
    """One tile of a token grid, in patches (density 1).

    Attributes
    ----------
    index : int
        Position in reading order, the tile's name in a store.
    row, col : int
        First patch that the tile computes.
    keep : Window
        Patches of the grid that this tile provides. The windows of all tiles
        partition the grid.
    """

    index: int
    row: int
    col: int
    keep: Window


def _axis_tiles(n: int, tile: int, halo: int) -> list[tuple[int, int, int]]:
    """Return (origin, keep start, keep stop) for each tile along one axis."""
    if n <= tile:
        return [(0, 0, n)]
    step = tile - 2 * halo
    count = math.ceil((n - tile) / step) + 1
    out, start = [], 0
    for k in range(count):
        origin = min(k * step, n - tile)
        stop = n if k == count - 1 else origin + tile - halo
        out.append((origin, start, stop))
        start = stop
    return out


@dataclass(frozen=True)
class TokenGrid:
    """Tokens of one image: tiles, and the way from pixel to token and back.

    Parameters
    ----------
    image_shape : tuple of int
        Rows and columns of the image, in pixels.
    patch_px : int
        Side of a patch, in working pixels.
    tile_px : int
        Side of a tile in working pixels; rounded down to whole patches.
    halo_tokens : int
        Patches computed but not kept on each inner side of a tile.
    scale : float
        Working scale.
    density : int
        Tokens per patch side. Must divide `patch_px`.

    Raises
    ------
    SettingsError
        If the density does not divide the patch, or tile and halo leave nothing.

    Examples
    --------
    >>> grid = TokenGrid((1000, 600), patch_px=14, tile_px=518)
    >>> grid.shape, len(grid.tiles)
    ((72, 43), 4)
    >>> grid.token_of_pixel(20, 7), grid.pixel_of_token(1, 0)
    ((1, 0), (20.5, 6.5))
    """

    image_shape: tuple[int, int]
    patch_px: int
    tile_px: int = 518
    halo_tokens: int = 0
    scale: float = 1.0
    density: int = 1

    def __post_init__(self) -> None:
        if self.patch_px % self.density:
            allowed = [d for d in range(1, 17) if self.patch_px % d == 0]
            raise SettingsError(
                f"`density` must divide the patch of {self.patch_px} pixels (one of "
                f"{allowed}), got {self.density}."
            )
        if self.tile_tokens < 1:
            raise SettingsError(
                f"`tile_px` must hold at least one patch of {self.patch_px} pixels, "
                f"got {self.tile_px}."
            )
        if self.tile_tokens <= 2 * self.halo_tokens:
            raise SettingsError(
                f"A tile of {self.tile_tokens} patches a side leaves nothing between "
                f"two halos of {self.halo_tokens}. Enlarge `tile_px` or reduce "
                f"`halo_tokens`."
            )

    @property
    def tile_tokens(self) -> int:
        """Patches per side of a tile."""
        return self.tile_px // self.patch_px

    @property
    def step_px(self) -> int:
        """Working pixels between neighbouring tokens."""
        return self.patch_px // self.density

    @cached_property
    def working_shape(self) -> tuple[int, int]:
        """Rows and columns of the resized image."""
        y, x = self.image_shape
        return max(1, round(y * self.scale)), max(1, round(x * self.scale))

    @cached_property
    def patches(self) -> tuple[int, int]:
        """Patches that cover the working image, rows and columns."""
        y, x = self.working_shape
        return math.ceil(y / self.patch_px), math.ceil(x / self.patch_px)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the token grid."""
        return self.patches[0] * self.density, self.patches[1] * self.density

    @cached_property
    def tiles(self) -> tuple[TokenTile, ...]:
        """All tiles in reading order."""
        t, h = self.tile_tokens, self.halo_tokens
        rows = _axis_tiles(self.patches[0], t, h)
        cols = _axis_tiles(self.patches[1], t, h)
        cells = [(r, c) for r in rows for c in cols]
        return tuple(
            TokenTile(i, r[0], c[0], Window(r[1], r[2], c[1], c[2]))
            for i, (r, c) in enumerate(cells)
        )

    def passes(self) -> Iterator[tuple[int, int]]:
        """Yield the row and column shift of every pass, in tokens of the grid."""
        for i in range(self.density):
            for j in range(self.density):
                yield i, j

    def tile_window(self, tile: TokenTile, shift: tuple[int, int]) -> Window:
        """Return the working pixels a pass of a tile sees; may exceed the image."""
        y = tile.row * self.patch_px + shift[0] * self.step_px
        x = tile.col * self.patch_px + shift[1] * self.step_px
        side = self.tile_tokens * self.patch_px
        return Window(y, y + side, x, x + side)

    def row_positions(self, y0: int, y1: int) -> npt.NDArray[np.float64]:
        """Return the token-row position of the centres of image rows y0 to y1."""
        return self._positions(y0, y1, 0)

    def col_positions(self, x0: int, x1: int) -> npt.NDArray[np.float64]:
        """Return the token-column position of the centres of image columns."""
        return self._positions(x0, x1, 1)

    def _positions(self, start: int, stop: int, axis: int) -> npt.NDArray[np.float64]:
        ratio = self.working_shape[axis] / self.image_shape[axis]
        working = (np.arange(start, stop) + 0.5) * ratio
        at = (working - self.patch_px / 2) / self.step_px
        return np.clip(at, 0, self.shape[axis] - 1)

    def token_of_pixel(self, y: int, x: int) -> tuple[int, int]:
        """Return row and column of the token whose centre is nearest to a pixel."""
        row = self.row_positions(y, y + 1)[0]
        col = self.col_positions(x, x + 1)[0]
        return math.floor(row + 0.5), math.floor(col + 0.5)

    def pixel_of_token(self, row: int, col: int) -> tuple[float, float]:
        """Return the centre of a token in image pixels (0 = centre of the first)."""
        out = []
        for at, axis in ((row, 0), (col, 1)):
            working = at * self.step_px + self.patch_px / 2
            ratio = self.image_shape[axis] / self.working_shape[axis]
            out.append(working * ratio - 0.5)
        return out[0], out[1]

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain JSON values, tile in whole patches."""
        return {
            "image_shape": list(self.image_shape),
            "patch_px": self.patch_px,
            "tile_px": self.tile_tokens * self.patch_px,
            "halo_tokens": self.halo_tokens,
            "scale": self.scale,
            "density": self.density,
        }


def pixel_tiles(shape: tuple[int, int], side: int = PIXEL_TILE_PX) -> list[Window]:
    """Return the fixed grid of output tiles in reading order; edge tiles are smaller.

    Examples
    --------
    >>> [w.shape for w in pixel_tiles((600, 512))]
    [(512, 512), (88, 512)]
    """
    return [
        Window(y, min(y + side, shape[0]), x, min(x + side, shape[1]))
        for y in range(0, shape[0], side)
        for x in range(0, shape[1], side)
    ]


def centre_out(
    windows: Sequence[Window], focus: tuple[float, float] | None = None
) -> list[int]:
    """Return the order of windows by distance of their centres from `focus`.

    Parameters
    ----------
    windows : sequence of Window
        Tiles.
    focus : tuple of float, optional
        Row and column; the middle of all windows by default.

    Returns
    -------
    list of int
        Indices into `windows`; ties keep reading order.

    Examples
    --------
    >>> centre_out([Window(0, 2, x, x + 2) for x in (0, 2, 4)])
    [1, 0, 2]
    """
    if focus is None:
        focus = (
            (min(w.y0 for w in windows) + max(w.y1 for w in windows)) / 2,
            (min(w.x0 for w in windows) + max(w.x1 for w in windows)) / 2,
        )
    centres = np.array([((w.y0 + w.y1) / 2, (w.x0 + w.x1) / 2) for w in windows])
    distance = np.hypot(*(centres - focus).T)
    return [int(i) for i in np.argsort(distance, kind="stable")]
