"""Hand-made multi-scale features: intensity, edges, texture. No weights, no torch.

A pyramid does the work: level l holds the image blurred with a Gaussian of
``2**l`` pixels, sampled every ``2**l`` pixels, so that each level costs a quarter of
the one below and every blur is short. On each level: the value, the gradient
magnitude, the two Hessian eigenvalues and (from the pyramid of the squared image) the
local standard deviation; coarse levels are interpolated bilinearly.

Samples sit at multiples of ``2**l`` of *image* coordinates and windows are grown to
cover every filter's support, so a pixel's features do not depend on the window it is
computed in. Only this module knows the support; callers pass a reader.

The set of filters follows scikit-image's `multiscale_basic_features` and the classic
trainable-segmentation plugins (Arganda-Carreras et al. 2017, Bioinformatics 33:2424).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numba import njit

from napari_alibi_seg._base import FloatArray, Window

__all__ = ["ClassicalFeatures"]

# Finest to coarsest Gaussian: 1, 2, 4, 8, 16 pixels.
_LEVELS = 5
_PER_LEVEL = 5  # value, gradient magnitude, two Hessian eigenvalues, local deviation
_ALIGN_PX = 1 << (_LEVELS - 1)


def _taps(sigma: float, radius: int) -> FloatArray:
    x = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (x / sigma) ** 2)
    return (kernel / kernel.sum()).astype(np.float32)


_FIRST = _taps(1.0, 4)  # raw image to the Gaussian of level 0
_NEXT = _taps(np.sqrt(3.0), 6)  # one level's Gaussian to the next: sqrt(2**2 - 1**2)


@njit(nogil=True, cache=True, error_model="numpy")
def _mirror(i: int, n: int) -> int:
    """Index mirrored about the end samples."""
    if n == 1:
        return 0
    i = abs(i) % (2 * (n - 1))
    return i if i < n else 2 * (n - 1) - i


@njit(nogil=True, cache=True, error_model="numpy")
def _blur(src: FloatArray, taps: FloatArray, stride: int) -> FloatArray:
    """Separable convolution with mirrored borders, every `stride`-th sample kept."""
    height, width = src.shape
    radius = taps.shape[0] // 2
    out = np.empty((-(-height // stride), -(-width // stride)), np.float32)
    line = np.empty(width + 2 * radius, np.float32)
    middle = line[radius : radius + width]
    for i in range(out.shape[0]):
        middle[:] = 0
        for k in range(taps.shape[0]):
            weight = taps[k]
            row = src[_mirror(i * stride + k - radius, height)]
            for x in range(width):
                middle[x] += weight * row[x]
        for k in range(radius):
            line[radius - 1 - k] = middle[_mirror(-1 - k, width)]
            line[radius + width + k] = middle[_mirror(width + k, width)]
        target = out[i]
        target[:] = 0
        for k in range(taps.shape[0]):
            weight = taps[k]
            for j in range(target.shape[0]):
                target[j] += weight * line[j * stride + k]
    return out


@njit(nogil=True, cache=True, error_model="numpy")
def _describe(g: FloatArray, g2: FloatArray) -> FloatArray:
    """Return value, gradient, Hessian eigenvalues and deviation of one level.

    Second derivatives are taken two samples apart (the difference of central
    differences): on noisy micrographs that is worth more than a compact stencil.
    """
    height, width = g.shape
    out = np.empty((5, height, width), np.float32)
    half, quarter = np.float32(0.5), np.float32(0.25)
    zero, two = np.float32(0), np.float32(2)
    near = np.empty((5, width + 4), np.float32)  # rows y-2 to y+2 with mirrored ends
    for y in range(height):
        for k in range(5):
            row = g[_mirror(y + k - 2, height)]
            near[k, 2 : width + 2] = row
            for e in range(2):
                near[k, 1 - e] = row[_mirror(-1 - e, width)]
                near[k, width + 2 + e] = row[_mirror(width + e, width)]
        a, b, m, c, d = near[0], near[1], near[2], near[3], near[4]
        for x in range(width):
            here = m[x + 2]
            gx = (m[x + 3] - m[x + 1]) * half
            gy = (c[x + 2] - b[x + 2]) * half
            gxx = (m[x + 4] - two * here + m[x]) * quarter
            gyy = (d[x + 2] - two * here + a[x + 2]) * quarter
            gxy = (c[x + 3] - c[x + 1] - b[x + 3] + b[x + 1]) * quarter
            mean = (gxx + gyy) * half
            diff = (gxx - gyy) * half
            root = np.sqrt(diff * diff + gxy * gxy)
            out[0, y, x] = here
            out[1, y, x] = np.sqrt(gx * gx + gy * gy)
            out[2, y, x] = mean + root
            out[3, y, x] = mean - root
            out[4, y, x] = np.sqrt(max(g2[y, x] - here * here, zero))
    return out


@njit(nogil=True, cache=True, error_model="numpy")
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
    (26, 32, 64)
    """

    n_channels: int = 1
    # Sum of every filter's reach on every level, rounded up to the alignment.
    halo_px: int = 128

    @property
    def names(self) -> tuple[str, ...]:
        """One name per feature: channel, filter, Gaussian in pixels."""
        kinds = ("value", "gradient", "hessian-max", "hessian-min", "deviation")
        return tuple(
            name
            for c in range(self.n_channels)
            for name in (
                f"c{c} raw",
                *(f"c{c} {k} {1 << s}px" for s in range(_LEVELS) for k in kinds),
            )
        )

    @property
    def n_features(self) -> int:
        """Features per pixel."""
        return self.n_channels * (1 + _LEVELS * _PER_LEVEL)

    def support(self, window: Window, shape: tuple[int, int]) -> Window:
        """Return the aligned window that must be read to compute `window`."""
        h, a = self.halo_px, _ALIGN_PX
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
        per = 1 + _LEVELS * _PER_LEVEL
        for c in range(self.n_channels):
            self._channel(block[c], area, window, out[c * per : (c + 1) * per])
        return out

    def _channel(
        self, image: FloatArray, area: Window, window: Window, out: FloatArray
    ) -> None:
        y, x = window.y0 - area.y0, window.x0 - area.x0
        out[0] = image[y : y + window.shape[0], x : x + window.shape[1]]
        image = np.ascontiguousarray(image)
        square = image * image
        for level in range(_LEVELS):
            taps, stride = (_FIRST, 1) if level == 0 else (_NEXT, 2)
            image, square = _blur(image, taps, stride), _blur(square, taps, stride)
            first = 1 + level * _PER_LEVEL
            planes = _describe(image, square)
            _enlarge(planes, level, y, x, out[first : first + _PER_LEVEL])
