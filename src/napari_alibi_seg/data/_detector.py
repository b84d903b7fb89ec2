"""What a scanning microscope does to a perfect signal.

Only this module knows the image-forming chain of the synthetic samples: point spread,
slow charging drift, streaks along the scan lines, counting noise, amplifier noise and
the converter. It leaves the signal itself (what lies in the field of view) to
`_microstructures`.

All arithmetic is float64: the last rounding to integers then gives the same pixels
whatever vector instructions computed it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

__all__ = ["Detector", "correlated_noise", "detect", "draw_detector"]

Float64Array: TypeAlias = npt.NDArray[np.float64]

# 16-bit files of microscopes mostly hold the counts of a 12-bit converter.
_FULL_SCALE = {8: 255, 16: 4095}


@dataclass(frozen=True, slots=True)
class Detector:
    """Settings of one simulated acquisition; signals run from 0 to 1.

    Attributes
    ----------
    psf_px : float
        Standard deviation of the point spread, pixels.
    dose : float
        Counts per pixel at signal 1; infinite means no counting noise.
    read_noise : float
        Standard deviation of the amplifier noise.
    drift : float
        Standard deviation of the slow additive background.
    streak : float
        Typical height of a charging streak along its scan line.
    bits : {8, 16}
        Sample type of the file; 16 holds a 12-bit range.
    """

    psf_px: float
    dose: float
    read_noise: float
    drift: float
    streak: float
    bits: int


def draw_detector(
    rng: np.random.Generator, *, noise: float, drift: float, bits: int
) -> Detector:
    """Draw plausible settings; `noise` and `drift` multiply the typical amounts.

    Examples
    --------
    >>> draw_detector(np.random.default_rng(0), noise=0, drift=0, bits=8).dose
    inf
    """
    dose = rng.uniform(45, 130)
    return Detector(
        psf_px=rng.uniform(0.7, 1.2),
        # Doubling the relative noise takes a quarter of the counts.
        dose=dose / noise**2 if noise > 0 else np.inf,
        read_noise=rng.uniform(0.01, 0.025) * noise,
        drift=rng.uniform(0.02, 0.05) * drift,
        streak=rng.uniform(0.03, 0.07) * drift,
        bits=bits,
    )


def detect(
    signal_yx: Float64Array, detector: Detector, rng: np.random.Generator
) -> npt.NDArray[np.unsignedinteger[Any]]:
    """Return the digital image of a signal.

    Parameters
    ----------
    signal_yx : (Y, X) float64
        Ideal yield, 0 to 1.
    detector : Detector
        Settings of the acquisition.
    rng : numpy.random.Generator
        Source of noise and drift.

    Returns
    -------
    (Y, X) uint8 or uint16

    Examples
    --------
    >>> quiet = Detector(1.0, np.inf, 0.0, 0.0, 0.0, 8)
    >>> int(detect(np.full((64, 64), 0.5), quiet, np.random.default_rng(0))[5, 5])
    128
    """
    image = ndimage.gaussian_filter(signal_yx, detector.psf_px, mode="nearest")
    image += _background(image.shape, detector.drift, rng)
    image += _streaks(image.shape, detector.streak, rng)
    if np.isfinite(detector.dose):
        image = rng.poisson(np.maximum(image, 0.0) * detector.dose) / detector.dose
    image += detector.read_noise * rng.standard_normal(image.shape)
    full = _FULL_SCALE[detector.bits]
    counts = np.clip(np.rint(image * full), 0, full)
    return counts.astype(np.uint8 if detector.bits == 8 else np.uint16)


def correlated_noise(
    shape: tuple[int, int],
    rng: np.random.Generator,
    wavelength_px: float,
    *,
    bandwidth: float | None = None,
) -> Float64Array:
    """Return a Gaussian random field of zero mean and unit variance.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns.
    rng : numpy.random.Generator
        Source of the field.
    wavelength_px : float
        Period that carries the most power; without `bandwidth`, the shortest that
        carries much.
    bandwidth : float, optional
        Relative width of the ring of spatial frequencies. A narrow ring gives the
        labyrinth of a spinodal decomposition; None fills the ring to a disc.

    Returns
    -------
    (Y, X) float64

    Examples
    --------
    >>> field = correlated_noise((64, 64), np.random.default_rng(0), 8.0)
    >>> field.shape, round(float(field.std()), 6)
    ((64, 64), 1.0)
    """
    # A margin is cut off: opposite edges of a real field of view do not match.
    margin = int(np.ceil(min(wavelength_px, min(shape))))
    padded = tuple(fft.next_fast_len(n + margin, real=True) for n in shape)
    ky = fft.fftfreq(padded[0])[:, None] * wavelength_px
    kx = fft.rfftfreq(padded[1])[None, :] * wavelength_px
    k = np.hypot(ky, kx)
    if bandwidth is None:
        amplitude = np.exp(-(k**2))
    else:
        amplitude = np.exp(-0.5 * ((k - 1.0) / bandwidth) ** 2)
    spectrum = fft.rfft2(rng.standard_normal(padded))
    field = fft.irfft2(spectrum * amplitude, s=padded)[: shape[0], : shape[1]]
    field -= field.mean()
    return np.asarray(field / max(float(field.std()), 1e-12), dtype=np.float64)


def _background(
    shape: tuple[int, int], amount: float, rng: np.random.Generator
) -> Float64Array:
    """Slow gradient and cloud of a specimen that charges."""
    y = np.linspace(-1, 1, shape[0])[:, None]
    x = np.linspace(-1, 1, shape[1])[None, :]
    angle = rng.uniform(0, 2 * np.pi)
    plane = np.sin(angle) * y + np.cos(angle) * x
    cloud = _cloud(shape, rng)
    return np.asarray(amount * (1.2 * plane + 0.6 * cloud))


def _cloud(shape: tuple[int, int], rng: np.random.Generator) -> Float64Array:
    """Smooth field of a few bumps, from a coarse grid of random heights."""
    coarse = rng.standard_normal((5, 5))
    y = np.linspace(0, 4, shape[0])
    x = np.linspace(0, 4, shape[1])
    rows = ndimage.map_coordinates(
        coarse,
        np.meshgrid(y, np.arange(5.0), indexing="ij"),
        order=3,
        mode="nearest",
    )
    # Separable: interpolating the columns of the interpolated rows is enough.
    return np.asarray(
        ndimage.map_coordinates(
            rows,
            np.meshgrid(np.arange(float(shape[0])), x, indexing="ij"),
            order=3,
            mode="nearest",
        )
    )


def _streaks(
    shape: tuple[int, int], height: float, rng: np.random.Generator
) -> Float64Array:
    """Line offsets, and tails that start somewhere in a line and decay along it."""
    n_rows, n_columns = shape
    offsets = 0.15 * height * rng.standard_normal((n_rows, 1))
    out = np.repeat(offsets, n_columns, axis=1)
    n_streaks = max(1, n_rows // 24)
    rows = rng.integers(0, n_rows, n_streaks)
    starts = rng.integers(0, n_columns, n_streaks)
    heights = height * rng.normal(0.0, 1.0, n_streaks)
    tails = rng.uniform(0.1, 0.6, n_streaks) * n_columns
    for row, start, peak, tail in zip(rows, starts, heights, tails, strict=True):
        distance = np.arange(n_columns - start)
        out[row, start:] += peak * np.exp(-distance / tail)
    return out
