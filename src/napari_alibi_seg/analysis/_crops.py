"""Crops of a user's own images, to measure a backbone on.

Only this module knows which crops are drawn, how many are enough, and how they become
a backbone's input and its token maps. What is measured on them is left to `_report`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_alibi_seg._base import Backbone, FloatArray, SettingsError, Window
from napari_alibi_seg.analysis._tokens import whole
from napari_alibi_seg.data import (
    ImageSource,
    WorkingImage,
    find_info_bar,
    measure_range,
    resolve_channels,
    synthesize,
)

__all__ = [
    "FEW_CROPS",
    "Crops",
    "crop_side",
    "draw_crops",
    "layer_maps",
    "synthetic_crops",
    "token_map",
]

# With fewer the transfer R2 is uncertain by about as much as it is.
FEW_CROPS = 12
# Tried in turn, until enough fit into the images.
_SIDES_PX = (336, 224)
_MIN_SIDE_PX = 64
_MIN_TOKENS = 8
# Neighbouring crops overlap by half at most: then what they share lies elsewhere in
# the frame of each.
_STEPS = (1.0, 0.5)
# For images in which few crops of a usual side fit.
_SMALL_SIDES_PX = (160, 128, 112, 96, _MIN_SIDE_PX)
# Of synthetic crops: as many tokens as a small tile, of pictures that differ.
_SYNTHETIC_TOKENS = 16
_SYNTHETIC_KINDS = ("spinodal", "grains", "precipitates")


@dataclass(frozen=True, slots=True, eq=False)
class Crops:
    """Squares of images, as a backbone is shown them.

    Attributes
    ----------
    values : tuple of (C, S, S) float32
        Working values: 0 to 1 for the range of the image each is from.
    files : tuple of str
        Name of that image.
    side_px : int
        S.
    n_images : int
        Images that crops are from.
    notes : tuple of str
        What a reader of the numbers must know, as sentences.
    windows : tuple of Window
        Where each lies in its image, in pixels; empty if it is from none.
    """

    values: tuple[FloatArray, ...]
    files: tuple[str, ...]
    side_px: int
    n_images: int
    notes: tuple[str, ...]
    windows: tuple[Window, ...] = ()

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.values)


def draw_crops(
    images: Sequence[ImageSource],
    *,
    n_crops: int = 32,
    side_px: int | None = None,
    channels: str | tuple[int, ...] = "auto",
    seed: int = 0,
) -> Crops:
    """Draw square crops from images, evenly from all of them.

    Information bars are left out. Crops of an image overlap only if there are too few
    otherwise, and then by half a side at most.

    Parameters
    ----------
    images : sequence of ImageSource
        From `open_image`. Those smaller than a crop are left out, with a note.
    n_crops : int
        At most so many. Fewer than 12 say little, which is noted.
    side_px : int, optional
        Side of a crop. Default: 336, or 224 where 12 of those do not fit.
    channels : "auto", "grey", "rgb" or tuple of int
        What is seen of an image.
    seed : int
        Equal arguments give equal crops.

    Returns
    -------
    Crops

    Raises
    ------
    SettingsError
        If no crop fits, or a number is out of its range.
    ImageFileError
        If an image is damaged.

    Examples
    --------
    >>> from napari_alibi_seg.data import open_image
    >>> image = np.random.default_rng(0).random((448, 700), np.float32)
    >>> crops = draw_crops([open_image(image)], side_px=224)
    >>> len(crops), crops.values[0].shape, len(crops.notes)
    (15, (1, 224, 224), 0)
    """
    whole(n_crops, "n_crops", 1, None)
    if side_px is not None:
        whole(side_px, "side_px", _MIN_SIDE_PX, None)
    if not images:
        raise SettingsError("Expected at least one image, got none.")
    areas = [_field(source) for source in images]
    side = side_px or _usual_side(areas)
    rng = np.random.default_rng(seed)
    windows = [_windows(area, side, n_crops, rng) for area in areas]
    if not any(windows):
        largest = max((min(area.shape) for area in areas), default=0)
        raise SettingsError(
            f"No crop of {side} px fits into the image(s): the largest square in them "
            f"has {largest} px. Give larger images, or smaller crops (at least "
            f"{_MIN_SIDE_PX} px)."
        )
    chosen = _taken_in_turn(windows, n_crops)
    values = []
    for i in sorted({i for i, _ in chosen}):
        view = _view(images[i], channels)
        values += [(i, view.read(at), at) for own, at in chosen if own == i]
    # of one image after the other: fitted and scored crops must come from all
    order = rng.permutation(len(values))
    own = [values[k][0] for k in order]
    blocks = [values[k][1] for k in order]
    return Crops(
        _alike(blocks),
        tuple(images[i].name for i in own),
        side,
        len(set(own)),
        _notes(images, windows, side, len(blocks)),
        tuple(values[k][2] for k in order),
    )


def crop_side(images: Sequence[ImageSource], patch_px: int) -> int:
    """Return the side of crops that suits images of any size.

    Parameters
    ----------
    images : sequence of ImageSource
        That crops are to be drawn from.
    patch_px : int
        Side of a patch of the backbone.

    Returns
    -------
    int
        The largest of which 12 fit; else the smallest that holds 8 x 8 tokens, of
        which most fit, if any do.

    Examples
    --------
    >>> from napari_alibi_seg.data import open_image
    >>> sizes = ((2000, 2000), (500, 700), (200, 200))
    >>> [crop_side([open_image(np.zeros(s, np.uint8))], 14) for s in sizes]
    [336, 224, 112]
    """
    areas = [_field(source) for source in images]
    sides = [
        side
        for side in (*_SIDES_PX, *_SMALL_SIDES_PX)
        if side >= _MIN_TOKENS * patch_px
    ]
    for side in sides:
        if sum(_most(area, side, _STEPS[-1]) for area in areas) >= FEW_CROPS:
            return side
    return sides[-1] if sides else _MIN_TOKENS * patch_px


def synthetic_crops(patch_px: int, *, n_crops: int = FEW_CROPS) -> Crops:
    """Return crops of synthetic micrographs, to measure a backbone without an image.

    Their content is alike everywhere, so that nothing in it says where a token lies.

    Parameters
    ----------
    patch_px : int
        Side of a patch of the backbone; a crop holds 16 x 16.
    n_crops : int
        How many, in turn of different kinds.

    Examples
    --------
    >>> crops = synthetic_crops(8, n_crops=3)
    >>> crops.values[0].shape, crops.files
    ((1, 128, 128), ('spinodal', 'grains', 'precipitates'))
    """
    whole(patch_px, "patch_px", 1, None)
    whole(n_crops, "n_crops", 1, None)
    side = _SYNTHETIC_TOKENS * patch_px
    values, kinds = [], []
    for seed in range(n_crops):
        kind = _SYNTHETIC_KINDS[seed % len(_SYNTHETIC_KINDS)]
        image = synthesize(kind, (side, side), seed=seed).image.astype(np.float32)
        grey = (image - image.min()) / max(float(np.ptp(image)), 1e-6)
        values.append(grey[None])
        kinds.append(str(kind))
    return Crops(tuple(values), tuple(kinds), side, n_crops, ())


def _field(source: ImageSource) -> Window:
    """Return the picture without an information bar."""
    bar = find_info_bar(source)
    height, width = source.shape
    if bar is None:
        return source.window
    if bar.y0 == 0:
        return Window(bar.y1, height, 0, width)
    return Window(0, bar.y0, 0, width)


def _usual_side(areas: Sequence[Window]) -> int:
    for side in _SIDES_PX:
        if sum(_most(area, side, _STEPS[-1]) for area in areas) >= FEW_CROPS:
            return side
    return _SIDES_PX[-1]


def _most(area: Window, side: int, step: float) -> int:
    """Return how many crops fit that lie at least `step` sides apart."""
    rows, cols = (_along(n, side, step) for n in area.shape)
    return rows * cols


def _along(n: int, side: int, step: float) -> int:
    return 0 if n < side else int((n - side) / (step * side)) + 1


def _windows(area: Window, side: int, n: int, rng: np.random.Generator) -> list[Window]:
    """Return up to n crops, in random order; without overlap if n fit like that."""
    step = next((s for s in _STEPS if _most(area, side, s) >= n), _STEPS[-1])
    stride = int(step * side)
    starts = []
    for first, length in ((area.y0, area.shape[0]), (area.x0, area.shape[1])):
        count = _along(length, side, step)
        free = length - side - (count - 1) * stride if count else 0
        # what is left over is shared out at random, so that crops are on no lattice
        gaps = np.sort(rng.integers(0, free + 1, count))
        starts.append([int(first + k * stride + gaps[k]) for k in range(count)])
    found = [Window(y, y + side, x, x + side) for y in starts[0] for x in starts[1]]
    return [found[k] for k in rng.permutation(len(found))]


def _taken_in_turn(
    windows: Sequence[Sequence[Window]], n: int
) -> list[tuple[int, Window]]:
    """Return one crop of every image, then a second, and so on."""
    longest = max(map(len, windows))
    found = [
        (i, own[k])
        for k in range(longest)
        for i, own in enumerate(windows)
        if k < len(own)
    ]
    return found[:n]


def _view(source: ImageSource, channels: str | tuple[int, ...]) -> WorkingImage:
    seen = resolve_channels(source, channels)
    return WorkingImage(source, seen, measure_range(source, seen))


def _alike(blocks: Sequence[FloatArray]) -> tuple[FloatArray, ...]:
    """Return grey crops among colour ones as colour too."""
    most = max(len(block) for block in blocks)
    return tuple(
        np.repeat(b, most, axis=0) if len(b) == 1 < most else b for b in blocks
    )


def _notes(
    images: Sequence[ImageSource],
    windows: Sequence[Sequence[Window]],
    side: int,
    n: int,
) -> tuple[str, ...]:
    notes = []
    small = [image.name for image, own in zip(images, windows, strict=True) if not own]
    if small:
        notes.append(
            f"Left out, as smaller than a crop of {side} px: {', '.join(small)}."
        )
    if n < FEW_CROPS:
        notes.append(
            f"Only {n} crop{'s' if n > 1 else ''} of {side} px fit into the images. "
            f"With fewer than {FEW_CROPS} the numbers are rough: what the crops show "
            "by chance looks like position, or hides it. Give more or larger images, "
            "or smaller crops."
        )
    return tuple(notes)


def token_map(backbone: Backbone, values: FloatArray) -> FloatArray:
    """Return the features of one crop, (h, w, C) float32.

    Parameters
    ----------
    backbone : Backbone
        What to measure.
    values : (1 to 3, S, S) float32
        Working values; what is beyond whole patches is cut off.
    """
    tokens = backbone.patch_features(_normalised(backbone, values))
    return _as_map(tokens[0])


def layer_maps(
    backbone: Backbone, crops: Sequence[FloatArray]
) -> list[list[FloatArray]]:
    """Return the features of crops after every block, [layer][crop] of (h, w, C).

    A cured backbone has no layers of its own but the cured one.
    """
    read = getattr(backbone, "layer_features", None)
    if read is None:
        return [[token_map(backbone, values) for values in crops]]
    found = [read(_normalised(backbone, values))[0] for values in crops]
    return [[_as_map(one[i]) for one in found] for i in range(len(found[0]))]


def _as_map(tokens: Any) -> FloatArray:
    """Return a (C, h, w) tensor as an (h, w, C) array."""
    array: FloatArray = tokens.permute(1, 2, 0).float().cpu().numpy()
    return np.ascontiguousarray(array)


def _normalised(backbone: Backbone, values: FloatArray) -> FloatArray:
    """Return the (1, 3, H, W) input of a backbone."""
    patch = backbone.patch_size
    n = values.shape[1] // patch
    if n < _MIN_TOKENS:
        raise SettingsError(
            f"A crop must hold at least {_MIN_TOKENS} x {_MIN_TOKENS} tokens of "
            f"{backbone.name!r}, whose patches have {patch} px, got {n} x {n} of a "
            f"crop of {values.shape[1]} px. Give crops of {_MIN_TOKENS * patch} px or "
            "more."
        )
    block = values[:, : n * patch, : n * patch]
    if len(block) == 1:
        block = np.repeat(block, 3, axis=0)
    elif len(block) == 2:
        block = np.concatenate([block, block.mean(axis=0, keepdims=True)])
    mean, std = (
        np.asarray(v, np.float32).reshape(3, 1, 1)
        for v in (backbone.mean, backbone.std)
    )
    normalised: FloatArray = ((np.clip(block, 0, 1) - mean) / std)[None]
    return np.ascontiguousarray(normalised, np.float32)
