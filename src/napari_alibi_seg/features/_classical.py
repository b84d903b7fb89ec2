"""Hand-made multi-scale features: intensity, edges, texture. No weights, no torch.

Gaussians of 0.5 to 16 pixels, each blurred from the one before; those of 4 pixels and
more are kept at a half, a quarter and an eighth of the resolution, where they lose
nothing, and are interpolated bilinearly. Of each: the value, the gradient magnitude
and the two Hessian eigenvalues; and the gradient magnitude at 1 pixel, smoothed with
the coarser Gaussians, which measures the strength of a texture.

Coarse samples sit at multiples of their spacing in *image* coordinates and windows are
grown to cover every filter's support, so a pixel's features do not depend on the
window it is computed in, to the bit. Only this module knows the support; callers pass
a reader.

The set of filters follows scikit-image's `multiscale_basic_features` and the classic
trainable-segmentation plugins (Arganda-Carreras et al. 2017, Bioinformatics 33:2424).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from napari_alibi_seg._base import FloatArray, Window
from napari_alibi_seg.data import compiled

__all__ = ["ClassicalFeatures"]

# Gaussians in pixels, finest to coarsest, and the spacing of their samples.
_SIGMAS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
_SHIFTS = (0, 0, 0, 1, 2, 3)  # spacing 2**shift: half a sigma of the coarse ones
_KINDS = ("value", "gradient", "hessian-max", "hessian-min")
# Texture strength starts from the gradient of this level.
_EDGE_LEVEL = 1
_PER_CHANNEL = len(_SIGMAS) * (len(_KINDS) + 1) - (_EDGE_LEVEL + 1)
_ALIGN_PX = 1 << _SHIFTS[-1]
# Sum of every filter's reach on every level, rounded up to the alignment.
_HALO_PX = 136


def _taps(sigma: float) -> FloatArray:
    x = np.arange(-math.ceil(3.5 * sigma), math.ceil(3.5 * sigma) + 1)
    kernel = np.exp(-0.5 * (x / sigma) ** 2)
    return (kernel / kernel.sum()).astype(np.float32)


def _chain() -> list[tuple[FloatArray, int]]:
    """Return kernel and decimation that lead from each level to the next."""
    steps, before, spacing = [], 0.0, 1
    for sigma, shift in zip(_SIGMAS, _SHIFTS, strict=True):
        taps = _taps(math.sqrt(sigma**2 - before**2) / spacing)
        steps.append((taps, (1 << shift) // spacing))
        before, spacing = sigma, 1 << shift
    return steps


_STEPS = _chain()


@compiled()
def _inside(i: int, n: int) -> int:
    """Index of the nearest sample."""
    return max(0, min(i, n - 1))


@compiled()
def _blur(src: FloatArray, taps: FloatArray, stride: int) -> FloatArray:
    """Separable convolution with repeated borders, every `stride`-th sample kept."""
    height, width = src.shape
    radius = taps.shape[0] // 2
    out = np.empty((-(-height // stride), -(-width // stride)), np.float32)
    line = np.empty(width + 2 * radius, np.float32)
    middle = line[radius : radius + width]
    for i in range(out.shape[0]):
        middle[:] = 0
        for k in range(taps.shape[0]):
            weight = taps[k]
            row = src[_inside(i * stride + k - radius, height)]
            for x in range(width):
                middle[x] += weight * row[x]
        for k in range(radius):
            line[radius - 1 - k] = middle[_inside(-1 - k, width)]
            line[radius + width + k] = middle[_inside(width + k, width)]
        target = out[i]
        target[:] = 0
        for k in range(taps.shape[0]):
            weight = taps[k]
            for j in range(target.shape[0]):
                target[j] += weight * line[j * stride + k]
    return out


@compiled()
def _describe(g: FloatArray, reach: int) -> FloatArray:
    """Return value, gradient and Hessian eigenvalues of one level.

    Pure second derivatives are taken `reach` samples apart. 2, the difference of
    central differences, is worth more than 1 where noise is as fine as the sampling.
    """
    height, width = g.shape
    out = np.empty((4, height, width), np.float32)
    half, quarter = np.float32(0.5), np.float32(0.25)
    two, inverse = np.float32(2), np.float32(1.0 / (reach * reach))
    near = np.empty((5, width + 4), np.float32)  # rows y-2 to y+2 with repeated ends
    for y in range(height):
        for k in range(5):
            row = g[_inside(y + k - 2, height)]
            near[k, 2 : width + 2] = row
            for e in range(2):
                near[k, 1 - e] = row[_inside(-1 - e, width)]
                near[k, width + 2 + e] = row[_inside(width + e, width)]
        b, m, c = near[1], near[2], near[3]
        a, d = near[2 - reach], near[2 + reach]
        for x in range(width):
            here = m[x + 2]
            gx = (m[x + 3] - m[x + 1]) * half
            gy = (c[x + 2] - b[x + 2]) * half
            gxx = (m[x + 2 + reach] - two * here + m[x + 2 - reach]) * inverse
            gyy = (d[x + 2] - two * here + a[x + 2]) * inverse
            gxy = (c[x + 3] - c[x + 1] - b[x + 3] + b[x + 1]) * quarter
            mean = (gxx + gyy) * half
            diff = (gxx - gyy) * half
            root = np.sqrt(diff * diff + gxy * gxy)
            out[0, y, x] = here
            out[1, y, x] = np.sqrt(gx * gx + gy * gy)
            out[2, y, x] = mean + root
            out[3, y, x] = mean - root
    return out


@compiled()
def _enlarge(level: FloatArray, shift: int, y0: int, x0: int, out: FloatArray) -> None:
    """Interpolate planes sampled every 2**shift pixels at pixels from (y0, x0) on."""
    n_planes, n_rows, n_cols = level.shape
    _, height, width = out.shape
    mask = (1 << shift) - 1
    inverse = np.float32(1.0 / (1 << shift))
    first = x0 >> shift
    last = min(((x0 + width - 1) >> shift) + 1, n_cols - 1)
    # one sample more, so that the last column interpolates towards itself
    line = np.empty(last - first + 2, np.float32)
    left = np.empty(width, np.int32)
    d = np.empty(width, np.float32)
    for x in range(width):
        left[x] = ((x0 + x) >> shift) - first
        d[x] = np.float32((x0 + x) & mask) * inverse
    for f in range(n_planes):
        for y in range(height):
            r = (y0 + y) >> shift
            b = np.float32((y0 + y) & mask) * inverse
            a = np.float32(1) - b
            upper, lower = level[f, r], level[f, min(r + 1, n_rows - 1)]
            for c in range(last - first + 1):
                line[c] = a * upper[first + c] + b * lower[first + c]
            line[last - first + 1] = line[last - first]
            target = out[f, y]
            for x in range(width):
                c = left[x]
                target[x] = line[c] + d[x] * (line[c + 1] - line[c])


@dataclass(frozen=True)
class ClassicalFeatures:
    """Multi-scale features of every pixel of a window.

    Parameters
    ----------
    n_channels : int
        Working channels; each gets the whole set.

    Examples
    --------
    >>> image = np.random.default_rng(0).random((1, 70, 90), np.float32)
    >>> read = lambda w: image[:, w.y0 : w.y1, w.x0 : w.x1]
    >>> features = ClassicalFeatures(1)
    >>> features.compute(read, (70, 90), Window(8, 40, 16, 80)).shape
    (28, 32, 64)
    """

    n_channels: int = 1

    @property
    def names(self) -> tuple[str, ...]:
        """One name per feature: channel, filter, Gaussian in pixels."""
        return tuple(
            name
            for c in range(self.n_channels)
            for level, sigma in enumerate(_SIGMAS)
            for name in (
                *(f"c{c} {kind} {sigma:g}px" for kind in _KINDS),
                *((f"c{c} texture {sigma:g}px",) if level > _EDGE_LEVEL else ()),
            )
        )

    @property
    def n_features(self) -> int:
        """Features per pixel."""
        return self.n_channels * _PER_CHANNEL

    def support(self, window: Window, shape: tuple[int, int]) -> Window:
        """Return the aligned window that must be read to compute `window`."""
        h, a = _HALO_PX, _ALIGN_PX
        return Window(
            max(0, (window.y0 - h) // a * a),
            min(shape[0], window.y1 + h),
            max(0, (window.x0 - h) // a * a),
            min(shape[1], window.x1 + h),
        )

    def compute(
        self,
        read: Callable[[Window], FloatArray],
        shape: tuple[int, int],
        window: Window,
        out: FloatArray | None = None,
    ) -> FloatArray:
        """Compute the features of a window.

        Parameters
        ----------
        read : callable
            Returns the (C, h, w) float32 working values of a window of the image.
        shape : tuple of int
            Rows and columns of the image.
        window : Window
            Pixels wanted.
        out : (F, h, w) float32, optional
            Where to put the result.

        Returns
        -------
        (F, h, w) float32
        """
        area = self.support(window, shape)
        block = read(area)
        if out is None:
            out = np.empty((self.n_features, *window.shape), np.float32)
        y, x = window.y0 - area.y0, window.x0 - area.x0
        for c in range(self.n_channels):
            own = out[c * _PER_CHANNEL : (c + 1) * _PER_CHANNEL]
            _describe_channel(np.ascontiguousarray(block[c]), y, x, own)
        return out


def _describe_channel(image: FloatArray, y: int, x: int, out: FloatArray) -> None:
    """Fill the features of the pixels from (y, x) on from a grown block."""
    edges: FloatArray | None = None
    at = 0
    for level, (taps, stride) in enumerate(_STEPS):
        shift = _SHIFTS[level]
        image = _blur(image, taps, stride)
        # the grown part serves the coarser levels only, and the texture's gradient
        area = _needed(
            image.shape, shift, Window(y, y + out.shape[1], x, x + out.shape[2])
        )
        if level == _EDGE_LEVEL:
            area = Window(0, image.shape[0], 0, image.shape[1])
        planes = _describe(
            np.ascontiguousarray(image[area.slices]), 2 if shift == 0 else 1
        )
        top, left = y - (area.y0 << shift), x - (area.x0 << shift)
        own = out[at : at + len(_KINDS)]
        if shift == 0:
            own[:] = planes[:, top : top + out.shape[1], left : left + out.shape[2]]
        else:
            _enlarge(planes, shift, top, left, own)
        at += len(_KINDS)
        if edges is not None:
            edges = _blur(edges, taps, stride)
            if shift == 0:
                out[at] = edges[y : y + out.shape[1], x : x + out.shape[2]]
            else:
                _enlarge(edges[None], shift, y, x, out[at : at + 1])
            at += 1
        if level == _EDGE_LEVEL:
            edges = planes[1].copy()


def _needed(shape: tuple[int, int], shift: int, window: Window) -> Window:
    """Return the samples of a level that describe a window of pixels."""
    reach = 2
    return Window(
        max(0, (window.y0 >> shift) - reach),
        min(shape[0], ((window.y1 - 1) >> shift) + 2 + reach),
        max(0, (window.x0 >> shift) - reach),
        min(shape[1], ((window.x1 - 1) >> shift) + 2 + reach),
    )
