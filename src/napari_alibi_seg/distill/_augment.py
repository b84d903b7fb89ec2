"""What happens to a crop between the picture and the two networks.

Only this module changes grey values and orientation of whole crops. The teacher sees
the crop after `place` and `tone`, the student also after `degrade`: it learns to see
through noise. Everything is drawn from the generator that is passed in.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch.nn.functional import affine_grid, grid_sample, interpolate

from napari_alibi_seg._base import FloatArray
from napari_alibi_seg.distill._pool import Pool
from napari_alibi_seg.distill._settings import DataSettings

__all__ = ["degrade", "smooth_field", "take_crop", "tone"]


def take_crop(
    pool: Pool, rng: np.random.Generator, side: int, data: DataSettings
) -> FloatArray:
    """Return a (3, side, side) crop of the pool at a random zoom and orientation."""
    low, high = np.log(data.zoom)
    zoom = float(np.exp(rng.uniform(low, high)))
    angle = rng.uniform(0, np.pi / 2) if rng.random() < data.rotate else 0.0
    reach = abs(np.cos(angle)) + abs(np.sin(angle))  # the turned square's bounding box
    block = pool.window(rng, side * reach / zoom)
    return _oriented(_resized(block, side, angle), rng)


def _resized(block: FloatArray, side: int, angle: float) -> FloatArray:
    """Resize an (n, n, 3) block to (3, side, side), turned by `angle`."""
    image = torch.from_numpy(np.ascontiguousarray(np.moveaxis(block, -1, 0)))[None]
    reach = abs(np.cos(angle)) + abs(np.sin(angle))
    wide = max(side, round(side * reach))
    image = interpolate(
        image, size=(wide, wide), mode="bilinear", antialias=True, align_corners=False
    )
    if angle:
        c, s = float(np.cos(angle)), float(np.sin(angle))
        part = side / wide
        theta = torch.tensor([[[c * part, -s * part, 0.0], [s * part, c * part, 0.0]]])
        grid = affine_grid(theta, [1, 3, side, side], align_corners=False)
        image = grid_sample(
            image, grid, mode="bilinear", padding_mode="reflection", align_corners=False
        )
    return np.ascontiguousarray(image[0, :, :side, :side].numpy())


def _oriented(image: FloatArray, rng: np.random.Generator) -> FloatArray:
    image = np.rot90(image, int(rng.integers(4)), axes=(1, 2))
    if rng.random() < 0.5:
        image = image[:, :, ::-1]
    return np.ascontiguousarray(image)


def tone(image: FloatArray, rng: np.random.Generator, data: DataSettings) -> FloatArray:
    """Change contrast, brightness, gamma and colour: what a detector setting does."""
    gamma = np.float32(np.exp(rng.uniform(-0.5, 0.5)))
    out = np.power(np.clip(image, 0, 1), gamma)
    if rng.random() < data.invert:
        out = 1 - out
    gain, offset = rng.uniform(0.6, 1.2), rng.uniform(-0.15, 0.15)
    out = np.float32(0.5 + offset) + np.float32(gain) * (out - np.float32(0.5))
    if rng.random() < data.tint:
        gains, offsets = rng.uniform(0.6, 1.2, 3), rng.uniform(-0.15, 0.15, 3)
        out = out * gains[:, None, None] + offsets[:, None, None]
    return np.asarray(out, dtype=np.float32)


def smooth_field(
    side: int, rng: np.random.Generator, wavelength_px: float
) -> FloatArray:
    """Return a (side, side) random field of unit variance.

    Periodic, unlike `correlated_noise`: a crop is too small for anybody to notice,
    and it costs a quarter.
    """
    k = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    spectrum = np.fft.rfft2(rng.standard_normal((side, side)))
    field = np.fft.irfft2(spectrum * np.exp(-((k * wavelength_px) ** 2)), (side, side))
    field -= field.mean()
    return np.asarray(field / max(float(field.std()), 1e-9), dtype=np.float32)


def degrade(
    image: FloatArray, rng: np.random.Generator, data: DataSettings
) -> FloatArray:
    """Return what a worse microscope makes of a (3, side, side) crop."""
    if rng.random() >= data.degrade:
        return image
    side = image.shape[-1]
    out = image
    if rng.random() < 0.4:
        sigma = rng.uniform(0.3, 1.5)
        out = ndimage.gaussian_filter(out, (0, sigma, sigma), mode="nearest")
    if rng.random() < 0.4:  # shading and charging
        cloud = smooth_field(side, rng, rng.uniform(0.5, 2) * side)
        out = out + np.float32(rng.uniform(0, 0.12)) * cloud
    if rng.random() < 0.15:  # lines of the scan
        lines = rng.standard_normal((side, 1)).astype(np.float32)
        out = out + np.float32(rng.uniform(0, 0.06)) * lines
    if data.max_noise > 0 and rng.random() < 0.85:
        # many mild, some very noisy
        sigma = data.max_noise * rng.random() ** 2
        grey = rng.random() < 0.8
        noise = rng.standard_normal((1 if grey else 3, side, side)).astype(np.float32)
        if rng.random() < 0.3:  # detectors and resampling correlate neighbours
            noise = ndimage.gaussian_filter(noise, (0, 0.7, 0.7), mode="wrap")
            noise /= noise.std()
        if rng.random() < 0.5:  # counting noise grows with the signal
            noise = noise * np.sqrt(np.clip(out, 0.05, 1))
        out = out + np.float32(sigma) * noise
    return np.asarray(out, dtype=np.float32)
