"""The strip of text that microscopes burn into their pictures.

A bar has a plain background over the full width, marks of one contrast on it, text in
lines and mostly a ruler, and ends at a sharp edge, or in plain background where the
picture is black there too. Only this module knows what a bar looks like. It looks at
strips at the bottom and the top, never at the whole image, and would rather miss a bar
than take a piece of the sample for one: what it finds is a suggestion.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_alibi_seg._base import FloatArray, Window
from napari_alibi_seg.data._intensity import working_channels
from napari_alibi_seg.data._source import ImageSource

__all__ = ["find_info_bar"]

# Of the image. Bars with two lines of text on a small picture take about a fifth.
_MAX_SHARE = 0.25
# No software writes higher ones; keeps the strips of huge images small.
_MAX_ROWS = 768
# Below these nothing can be read.
_MIN_ROWS, _MIN_COLS, _MIN_BAR = 48, 64, 8
# Share of a row that is background: in a bar more, even where it is full of text, in
# the picture beside it less.
_MIN_PLAIN = 0.38
# An edge is a drop of that share by so much from one row to the next.
_MIN_STEP = 0.3
# Share of the grey range that compression may move a plain background by.
_LOSS = 0.012
# Marks differ from the background by this share of what the strongest do.
_MARK_SHARE = 0.35
# More are texture, not text.
_MAX_MARKS = 2_000
# Of the strip, for bars on pictures that are as plain as the bar.
_MAX_SHARE_NO_EDGE = 0.7


@dataclass(frozen=True)
class _Strip:
    """Rows at one end of an image, the outermost first.

    Attributes
    ----------
    grey : (h, W) float32
        Finite.
    level : float
        Grey of the background, if there is a bar.
    loss : float
        How far background may be from it.
    plain : (h,) float
        Share of background in each row.
    """

    grey: FloatArray
    level: float
    loss: float
    plain: npt.NDArray[np.float64]


def find_info_bar(source: ImageSource) -> Window | None:
    """Return the info bar of a micrograph, if it has one.

    Parameters
    ----------
    source : ImageSource
        Only rows near its bottom and top are read.

    Returns
    -------
    Window or None
        The bar over the full width, up to the border of the image; None if there is
        none that is beyond doubt. Text that lies over the picture is no bar.

    Raises
    ------
    ImageFileError
        If the file is damaged there.

    Examples
    --------
    >>> from napari_alibi_seg.data import open_image
    >>> image = np.random.default_rng(0).integers(60, 200, (300, 400), np.uint8)
    >>> find_info_bar(open_image(image))
    >>> image[270:] = 0
    >>> image[276:280, 200:300] = 255  # a ruler
    >>> for x in range(40, 180, 10):  # and text
    ...     image[280:292, x : x + 6] = 255
    >>> find_info_bar(open_image(image))
    Window(y0=270, y1=300, x0=0, x1=400)
    """
    height, width = source.shape
    if height < _MIN_ROWS or width < _MIN_COLS:
        return None
    n_rows = min(int(_MAX_SHARE * height), _MAX_ROWS)
    for at_bottom in (True, False):
        y0 = height - n_rows if at_bottom else 0
        grey = _grey(source.read(Window(y0, y0 + n_rows, 0, width)))
        strip = _strip(grey[::-1] if at_bottom else grey)
        found = _bar_rows(strip) if strip is not None else 0
        if found:
            rows = (height - found, height) if at_bottom else (0, found)
            return Window(*rows, 0, width)
    return None


def _grey(block: npt.NDArray[Any]) -> FloatArray:
    """Return the grey values of a raw (h, w, C) block, finite."""
    channels = "grey" if block.shape[-1] in (1, 3, 4) else (0,)
    with np.errstate(over="ignore"):
        grey = working_channels(block, channels)[..., 0].astype(np.float32)
    finite = np.isfinite(grey)
    if not finite.all():
        grey[~finite] = grey[finite].min() if finite.any() else 0
    return grey


def _strip(grey: FloatArray) -> _Strip | None:
    """Return what a strip would be as a bar, None if its end is not plain."""
    spread = float(grey.max() - grey.min())
    if not spread > 0:
        return None
    # even bars that are low beside the strip reach so far
    outer = grey[: max(_MIN_BAR, len(grey) // 24)]
    level = _most_common(outer, spread)
    away = np.abs(outer - level)
    # a background without loss is exactly of one grey; JPEG makes it vary a little
    usual = float(np.median(away))
    loss = min(max(3 * usual, 0.008 * spread), _LOSS * spread)
    if usual > loss:
        return None
    plain = (np.abs(grey - level) <= loss).mean(axis=1)
    return _Strip(grey, level, loss, plain)


def _most_common(values: FloatArray, spread: float) -> float:
    low = float(values.min())
    bins = ((values - low) * (255 / spread)).astype(np.int64)
    inside = values[bins == np.bincount(bins.ravel()).argmax()]
    return float(np.median(inside))


def _bar_rows(strip: _Strip) -> int:
    """Return how many rows from the border inwards are bar; 0 for no bar."""
    # frames of bars, and the rows of the picture below some of them, are thin
    thin = max(3, len(strip.plain) // 60)
    run = _end_of_run(strip.plain >= _MIN_PLAIN, thin)
    end = _edge(strip.plain, run)
    if end >= _MIN_BAR:
        n_text, has_ruler = _writing(strip, end)
        is_bar = n_text >= (2 if has_ruler else 5)
        return _after_frame(strip, end, thin) if is_bar else 0
    return _rows_without_edge(strip, run)


def _end_of_run(good: npt.NDArray[np.bool_], thin: int) -> int:
    """Return the end of the first run, over gaps that are thin."""
    end = 0
    for row in np.flatnonzero(good):
        if row - end > thin:
            break
        end = int(row) + 1
    return end


def _edge(plain: npt.NDArray[np.float64], run: int) -> int:
    """Return the row of the edge that ends a run, 0 if it fades out."""
    # resampling and compression blur an edge over a few rows
    for end in range(run, run + 4):
        inside, outside = plain[max(0, end - 3) : end], plain[end + 1 : end + 5]
        if len(outside) < 4 or not len(inside):
            return 0
        step = inside.mean() - outside.mean()
        is_picture = plain[end] <= inside.mean() - step / 2
        if is_picture and max(plain[end], outside.max()) < _MIN_PLAIN:
            return end if step >= _MIN_STEP else 0
    return 0


def _after_frame(strip: _Strip, end: int, thin: int) -> int:
    """Return where the line ends that closes a bar, if there is one."""
    for row in strip.grey[end : end + thin]:
        if (np.abs(row - np.median(row)) <= strip.loss).mean() < 0.9:
            break
        end += 1
    return end


def _rows_without_edge(strip: _Strip, run: int) -> int:
    """Return the rows of a bar on a picture that is as black itself, else 0.

    Only writing tells it from the picture: there must be enough of it, and nothing
    else for a while.
    """
    n_rows = len(strip.grey)
    gap = max(_MIN_BAR, n_rows // 16)
    if run <= 2 * gap:
        return 0
    away = np.abs(strip.grey[:run] - strip.level)
    marked = (away > _MARK_SHARE * away.max()).any(axis=1)
    first = int(marked.argmax())
    end = first + _end_of_run(marked[first:], gap)
    last = min(run - 2 * gap, _MAX_SHARE_NO_EDGE * n_rows)
    if first > 2 * gap or not _MIN_BAR <= end <= last:
        return 0
    # compression and resampling leave a little around letters
    beyond = strip.plain[end + gap // 3 : end + 2 * gap]
    if beyond.min() < 0.9 or marked[end : end + 2 * gap].any():
        return 0
    n_text, has_ruler = _writing(strip, end)
    return end + gap // 2 if has_ruler and n_text >= 4 else 0


def _writing(strip: _Strip, end: int) -> tuple[int, bool]:
    """Return the characters of the fullest line, and whether there is a ruler."""
    away = np.abs(strip.grey[:end] - strip.level)
    labels, n = ndimage.label(away > _MARK_SHARE * away.max(), np.ones((3, 3)))
    if not 0 < n <= _MAX_MARKS:
        return 0, False
    boxes = np.array(
        [[r.start, r.stop, c.stop - c.start] for r, c in ndimage.find_objects(labels)]
    )
    top, bottom, wide = boxes.T
    high = bottom - top
    fill = np.bincount(labels.ravel(), minlength=n + 1)[1:] / (high * wide)
    n_cols = strip.grey.shape[1]
    # a ruler is a flat filled box; the characters of a line are of about one height
    is_ruler = (fill >= 0.85) & (wide >= 4 * high) & (high <= 0.4 * end)
    is_ruler &= (wide >= max(8, 0.01 * n_cols)) & (wide <= 0.8 * n_cols)
    is_text = ~is_ruler & (high >= 4) & (high <= 0.7 * end) & (wide <= 12 * high)
    middle, high = ((top + bottom) / 2)[is_text], high[is_text]
    if not high.size:
        return 0, bool(is_ruler.any())
    beside = np.abs(middle[:, None] - middle) <= 0.5 * high
    alike = (high[:, None] <= 2 * high) & (high <= 2 * high[:, None])
    return int((beside & alike).sum(axis=0).max()), bool(is_ruler.any())
