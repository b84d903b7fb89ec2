"""One intensity range per image, and pixels turned into working values with it.

A range is measured once over the whole image (never per tile, never the viewer's
contrast limits) and stored; a trained classifier keeps that of its training images.
Only this module knows how raw values become the float32 values that features see:
`low` becomes 0, `high` becomes 1, values beyond are clipped half a range outside, NaN
becomes the fill value (the median) and infinities the nearer end.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import (
    AlibiSegWarning,
    FloatArray,
    ImageFileError,
    SettingsError,
    Window,
)
from napari_alibi_seg.data._source import ImageSource

__all__ = ["IntensityRange", "measure_range", "resolve_channels", "working_channels"]

_logger = logging.getLogger(__name__)

# Percentiles of larger images come from a regular subset: its error is far below noise.
_MAX_SAMPLES = 4_000_000
# Read at once for it.
_BLOCK_PX = 512
_BLOCK_BYTES = 32 << 20
# Values half a range outside [0, 1] are kept: bright precipitates carry meaning.
_CLIP = (-0.5, 1.5)
# Rec. 709, as scikit-image's rgb2gray
_LUMINANCE = np.array([0.2125, 0.7154, 0.0721], np.float32)


@dataclass(frozen=True, slots=True)
class IntensityRange:
    """The raw values that become 0 and 1, per working channel.

    Attributes
    ----------
    low, high, fill : tuple of float
        One value per working channel (one in all for RGB, so that colours stay).
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    fill: tuple[float, ...]

    def apply(self, block: npt.NDArray[Any]) -> FloatArray:
        """Turn raw (h, w, C) values into (C, h, w) float32 working values.

        Examples
        --------
        >>> r = IntensityRange((10.0,), (20.0,), (15.0,))
        >>> r.apply(np.array([[[10.0], [15.0], [np.nan], [np.inf]]])).tolist()
        [[[0.0, 0.5, 0.5, 1.5]]]
        """
        low, high = np.asarray(self.low, np.float64), np.asarray(self.high, np.float64)
        span = high - low
        gain = np.where(span > 0, 1.0 / np.where(span > 0, span, 1.0), 0.0)
        if block.dtype.kind == "f":
            block = np.where(np.isnan(block), np.asarray(self.fill, block.dtype), block)
        # float64 keeps 32-bit integers and large offsets exact
        wide = block.dtype.itemsize > 2 and block.dtype != np.float32
        work = block.astype(np.float64 if wide else np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = (work - low.astype(work.dtype)) * gain.astype(work.dtype)
        np.nan_to_num(scaled, copy=False, nan=0.0, posinf=_CLIP[1], neginf=_CLIP[0])
        np.clip(scaled, *_CLIP, out=scaled)
        return np.ascontiguousarray(np.moveaxis(scaled, -1, 0), dtype=np.float32)

    def to_dict(self) -> dict[str, list[float]]:
        """Return plain JSON values."""
        return {
            "low": list(self.low),
            "high": list(self.high),
            "fill": list(self.fill),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Sequence[float]]) -> IntensityRange:
        """Read back what `to_dict` gave."""
        return cls(*(tuple(map(float, values[k])) for k in ("low", "high", "fill")))


def resolve_channels(source: ImageSource, channels: str | tuple[int, ...]) -> Any:
    """Decide which channels are seen: "grey", "rgb" or a tuple of channel numbers.

    Parameters
    ----------
    source : ImageSource
        The image.
    channels : "auto", "grey", "rgb" or tuple of int
        What was asked for.

    Returns
    -------
    "grey", "rgb" or tuple of int

    Raises
    ------
    SettingsError
        If the image does not have what was asked for, or has more than three
        channels and none was chosen.
    """
    n = source.n_channels
    if isinstance(channels, tuple):
        if max(channels) >= n:
            raise SettingsError(
                f"{source.name!r} has {n} channel(s), numbered from 0; `channels` "
                f"asks for {channels!r}."
            )
        return channels
    if channels == "rgb" and source.meaning != "rgb":
        raise SettingsError(
            f"`channels='rgb'` needs a colour image, but {source.name!r} is "
            f"{source.meaning} with {n} channel(s). Use `channels='grey'` or name "
            f"channel numbers, for example (0, 1, 0)."
        )
    if source.meaning == "channels" and n > 1:
        if channels == "auto" and n <= 3:
            return tuple(range(n))
        raise SettingsError(
            f"{source.name!r} has {n} channels without a colour meaning. Choose up to "
            f"three by number with `channels`, for example (0,) or (2, 0, 1)."
        )
    if channels == "auto":
        return "grey" if source.meaning != "rgb" or _is_grey(source) else "rgb"
    return channels


def _is_grey(source: ImageSource) -> bool:
    """Return whether the three colours are equal everywhere."""
    return all(
        (block[..., 0] == block[..., 1]).all()
        and (block[..., 0] == block[..., 2]).all()
        for _, _, block in _blocks(source)
    )


def _blocks(source: ImageSource) -> Iterator[tuple[int, int, npt.NDArray[Any]]]:
    """Yield (first row, first column, block) in reading order, bounded in bytes."""
    height, width = source.shape
    pixel_bytes = source.n_channels * source.dtype.itemsize
    # whole blocks of the usual sizes, so that none is decoded twice
    cols = max(_BLOCK_PX, _BLOCK_BYTES // (_BLOCK_PX**2 * pixel_bytes) * _BLOCK_PX)
    for y in range(0, height, _BLOCK_PX):
        for x in range(0, width, cols):
            w = Window(y, min(y + _BLOCK_PX, height), x, min(x + cols, width))
            yield y, x, source.read(w)


def working_channels(
    block: npt.NDArray[Any], channels: str | tuple[int, ...]
) -> npt.NDArray[Any]:
    """Pick or mix the channels of a raw (h, w, C) block.

    Returns
    -------
    (h, w, 1) or (h, w, n)
        Grey of a colour is its Rec. 709 luminance; three equal values are taken as
        they are, so that grey stored as RGB gives the same values as grey.
    """
    if isinstance(channels, tuple):
        return block[..., list(channels)]
    if channels == "rgb" or block.shape[-1] == 1:
        return block[..., :3]
    red, colours = block[..., :1], block[..., :3]
    is_grey = (colours == red).all(axis=-1, keepdims=True)
    if is_grey.all():
        return red
    wide = block.dtype.itemsize > 2 and block.dtype != np.float32
    # pixel by pixel: a value must not depend on the window that it is read in
    r, g, b = np.moveaxis(colours.astype(np.float64 if wide else np.float32), -1, 0)
    mixed = r * _LUMINANCE[0] + g * _LUMINANCE[1] + b * _LUMINANCE[2]
    return np.where(is_grey, red, mixed[..., None])


def measure_range(
    source: ImageSource,
    channels: str | tuple[int, ...],
    percentiles: tuple[float, float] = (0.5, 99.5),
) -> IntensityRange:
    """Measure robust percentiles of an image once.

    Parameters
    ----------
    source : ImageSource
        The image; read block by block. Images above 4 million pixels are sampled on a
        regular grid, so the result is the same on every run.
    channels : "grey", "rgb" or tuple of int
        From `resolve_channels`.
    percentiles : tuple of float
        Lower and upper percentile of the finite values.

    Returns
    -------
    IntensityRange

    Raises
    ------
    ImageFileError
        If no value is finite.

    Warns
    -----
    AlibiSegWarning
        If the image is constant: nothing can be told apart in it.
    """
    stride = max(1, int(np.ceil(np.sqrt(np.prod(source.shape) / _MAX_SAMPLES))))
    parts = []
    for y, x, block in _blocks(source):
        rows = block[-y % stride :: stride, -x % stride :: stride]
        if rows.size:
            parts.append(working_channels(rows, channels).reshape(-1, _count(channels)))
    samples = np.concatenate(parts)
    if channels == "rgb":
        samples = samples.reshape(-1, 1)
    low, high, fill = zip(
        *(_finite_percentiles(c, percentiles, source.name) for c in samples.T),
        strict=True,
    )
    if all(a == b for a, b in zip(low, high, strict=True)):
        warnings.warn(
            f"{source.name!r} is constant: every value is {low[0]:g}. No classifier "
            f"can tell anything apart in it.",
            AlibiSegWarning,
            stacklevel=3,
        )
    _logger.info("Intensity range of %s: %s to %s", source.name, low, high)
    return IntensityRange(low, high, fill)


def _count(channels: str | tuple[int, ...]) -> int:
    return len(channels) if isinstance(channels, tuple) else {"rgb": 3}.get(channels, 1)


def _finite_percentiles(
    values: npt.NDArray[Any], percentiles: tuple[float, float], name: str
) -> tuple[float, float, float]:
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)].astype(np.float64)
        if not values.size:
            raise ImageFileError(
                f"{name!r} holds no finite value: every pixel is NaN or infinite. "
                f"Check how the file was written."
            )
    elif values.dtype == bool:
        values = values.astype(np.uint8)
    low, fill, high = np.percentile(values, [percentiles[0], 50, percentiles[1]])
    if high <= low:
        # more than 99 % of one value (sparse particles): take the whole range
        low, high = float(values.min()), float(values.max())
    return float(low), float(high), float(fill)
