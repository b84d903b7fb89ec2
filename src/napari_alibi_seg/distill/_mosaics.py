"""Labelled pictures without end: regions of known shape, filled with textures.

Regions differ in texture, grey level, size or shape of their objects, as phases of a
micrograph do; the fill comes from the pool of pictures, from noise, or is flat. A
network that can tell such regions from a few tokens of each can do the same for a
user's strokes. Only this module knows how regions are drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree

from napari_alibi_seg._base import FloatArray
from napari_alibi_seg.data import KINDS
from napari_alibi_seg.distill._augment import smooth_field, take_crop
from napari_alibi_seg.distill._pool import Pool, generate
from napari_alibi_seg.distill._settings import DataSettings

__all__ = ["MAX_REGIONS", "Mosaic", "draw_mosaic"]

MAX_REGIONS = 4

Ids = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Mosaic:
    """A (3, n, n) float32 picture in about 0 to 1, and (n, n) region ids from 0 up."""

    image: FloatArray
    regions: Ids


@dataclass(frozen=True, slots=True)
class _Layout:
    """Region ids, object numbers (for grains that differ), and who shares a fill.

    `alike` names regions with the same fill: only shape or size tells them apart.
    """

    regions: Ids
    objects: npt.NDArray[np.int32]
    alike: tuple[tuple[int, int], ...] = ()


def draw_mosaic(
    pool: Pool, rng: np.random.Generator, side: int, data: DataSettings
) -> Mosaic:
    """Return a picture of 2 to `MAX_REGIONS` regions."""
    for _ in range(20):
        if side >= 64 and rng.random() < 0.15:
            made = _microstructure(rng, side)
        else:
            layout = _LAYOUTS[int(rng.choice(len(_LAYOUTS), p=_CHANCES))](rng, side)
            made = Mosaic(_filled(layout, pool, rng, data), layout.regions)
        shares = np.bincount(made.regions.ravel()) / made.regions.size
        if (shares > 0.01).sum() >= 2:
            return _compact(made)
    raise AssertionError("no layout showed two regions")  # chance below 1e-9


def _compact(made: Mosaic) -> Mosaic:
    """Number the regions that occur from 0 up."""
    _, ids = np.unique(made.regions, return_inverse=True)
    return Mosaic(made.image, ids.reshape(made.regions.shape).astype(np.uint8))


def _microstructure(rng: np.random.Generator, side: int) -> Mosaic:
    """Return a crop of the microstructure generator."""
    kind = KINDS[int(rng.integers(len(KINDS)))]
    zoom = float(np.exp(rng.uniform(-0.6, 0.6)))
    made = generate(kind, max(side, 128), int(rng.integers(2**31)), zoom)
    whole = made.mask.shape[0]
    y, x = rng.integers(whole - side + 1, size=2)
    image = made.image[y : y + side, x : x + side].astype(np.float32) / 255
    return Mosaic(
        np.repeat(image[None], 3, axis=0), made.mask[y : y + side, x : x + side] - 1
    )


# ----------------------------------------------------------------------------- layouts


def _levels(rng: np.random.Generator, side: int) -> _Layout:
    """Interpenetrating regions: level cuts of a smooth field."""
    field = smooth_field(side, rng, np.exp(rng.uniform(np.log(10), np.log(1.5 * side))))
    n = int(rng.choice([2, 2, 3]))
    cuts = np.sort(rng.uniform(0.12, 0.88, n - 1))
    regions = np.digitize(field, np.quantile(field, cuts)).astype(np.uint8)
    return _Layout(regions, np.zeros(regions.shape, np.int32))


def _cells(rng: np.random.Generator, side: int) -> _Layout:
    """Grains of several phases, sometimes with boundaries as a phase of their own."""
    diameter = np.exp(rng.uniform(np.log(14), np.log(max(14, side))))
    n_cells = max(3, int(1.3 * (side / diameter) ** 2))
    points = rng.uniform(-0.1 * side, 1.1 * side, (n_cells, 2))
    yx = np.indices((side, side)).reshape(2, -1).T
    bend = (
        0.12
        * diameter
        * np.stack(
            [smooth_field(side, rng, diameter) for _ in range(2)], axis=-1
        ).reshape(-1, 2)
    )
    distance, nearest = cKDTree(points).query(yx + bend, k=2)
    objects = nearest[:, 0].reshape(side, side).astype(np.int32)
    n = int(rng.choice([2, 3, 4]))
    phase = rng.permutation(np.arange(n_cells) % n)
    regions = phase[objects].astype(np.uint8)
    if n < MAX_REGIONS and rng.random() < 0.3:
        gap = (distance[:, 1] - distance[:, 0]).reshape(side, side)
        regions[gap < rng.uniform(2, 6)] = n
    return _Layout(regions, objects)


def _particles(rng: np.random.Generator, side: int) -> _Layout:
    """Particles on a matrix: of two sizes, of two shapes, or of two fills."""
    regions = np.zeros((side, side), np.uint8)
    objects = np.zeros((side, side), np.int32)
    radius = np.exp(rng.uniform(np.log(5), np.log(max(5, side / 5))))
    contrast = rng.choice(["size", "shape", "fill", "one"])
    power = float(rng.choice([2.0, 2.0, 4.0]))
    turned = rng.uniform(0, np.pi)
    number = 0
    for region in (1, 2):
        r, stretch = radius, 1.0
        if region == 2:
            if contrast == "one":
                break
            if contrast == "size":
                r = max(1.8, radius * rng.uniform(0.2, 0.45))
            if contrast == "shape":
                stretch = rng.uniform(2.5, 5)
        wanted = rng.uniform(0.08, 0.35) * side**2
        n = int(np.clip(wanted / (np.pi * r**2), 1, 60))
        for _ in range(n):
            number += 1
            cy, cx = rng.uniform(0, side, 2)
            size = r * np.exp(rng.normal(0, 0.15))
            a, b = size * np.sqrt(stretch), size / np.sqrt(stretch)
            aligned = rng.random() < 0.5
            angle = turned + (0 if aligned else rng.uniform(0, np.pi))
            _stamp(regions, objects, region, number, (cy, cx, a, b, angle, power))
    alike = ((1, 2),) if contrast in ("size", "shape") and rng.random() < 0.75 else ()
    return _Layout(regions, objects, alike)


def _stamp(
    regions: Ids,
    objects: npt.NDArray[np.int32],
    region: int,
    number: int,
    shape: tuple[float, float, float, float, float, float],
) -> None:
    """Draw a superellipse where nothing lies yet."""
    cy, cx, a, b, angle, power = shape
    reach = int(max(a, b)) + 2
    y0, y1 = max(int(cy) - reach, 0), min(int(cy) + reach + 1, len(regions))
    x0, x1 = max(int(cx) - reach, 0), min(int(cx) + reach + 1, len(regions))
    y = np.arange(y0, y1)[:, None] - cy
    x = np.arange(x0, x1)[None, :] - cx
    u = np.abs(np.cos(angle) * y + np.sin(angle) * x) / a
    v = np.abs(np.cos(angle) * x - np.sin(angle) * y) / b
    inside = u**power + v**power <= 1
    window = objects[y0:y1, x0:x1]
    free = inside & (window == 0)
    if free.sum() < 0.7 * max(inside.sum(), 1):
        return  # it would look cut, and its shape would lie
    window[free] = number
    regions[y0:y1, x0:x1][free] = region


def _patches(rng: np.random.Generator, side: int) -> _Layout:
    """Two or three large fields with a wavy border: nothing but the fill counts."""
    n = int(rng.choice([2, 3]))
    centres = rng.uniform(0, side, (n, 2))
    yx = np.indices((side, side)).reshape(2, -1).T
    bend = (
        0.1
        * side
        * np.stack(
            [smooth_field(side, rng, 0.3 * side) for _ in range(2)], axis=-1
        ).reshape(-1, 2)
    )
    _, nearest = cKDTree(centres).query(yx + bend)
    regions = nearest.reshape(side, side).astype(np.uint8)
    return _Layout(regions, np.zeros(regions.shape, np.int32))


_LAYOUTS = (_levels, _cells, _particles, _patches)
_CHANCES = (0.25, 0.25, 0.35, 0.15)


# ------------------------------------------------------------------------------- fills


def _filled(
    layout: _Layout, pool: Pool, rng: np.random.Generator, data: DataSettings
) -> FloatArray:
    """Return the (3, n, n) picture of a layout."""
    side = len(layout.regions)
    n = int(layout.regions.max()) + 1
    fills = _fills(n, pool, rng, side, data)
    for region, same in layout.alike:
        if same < n:
            fills[same] = fills[region]
    image = np.zeros((3, side, side), np.float32)
    for region, fill in enumerate(fills):
        image += fill * (layout.regions == region)
    if layout.objects.any() and rng.random() < 0.5:  # orientation contrast
        level = rng.normal(0, rng.uniform(0.01, 0.05), layout.objects.max() + 1)
        image += level[layout.objects].astype(np.float32)
    if rng.random() < 0.35:  # raised rims shine, etched ones are dark
        soft = ndimage.gaussian_filter(
            (layout.regions % 2).astype(np.float32), rng.uniform(0.7, 2)
        )
        image += np.float32(rng.uniform(-0.3, 0.5)) * 4 * soft * (1 - soft)
    sigma = rng.uniform(0.3, 1.1)  # the point spread joins the regions
    return np.asarray(
        ndimage.gaussian_filter(image, (0, sigma, sigma), mode="nearest"), np.float32
    )


def _fills(
    n: int, pool: Pool, rng: np.random.Generator, side: int, data: DataSettings
) -> list[FloatArray]:
    """Return `n` fills, often with grey levels too close to tell by themselves."""
    base = rng.uniform(0.3, 0.7)
    gap = rng.choice([0.03, 0.1, 0.25], p=[0.35, 0.4, 0.25])
    means = base + gap * rng.permutation(np.arange(n) - (n - 1) / 2)
    means = means + rng.normal(0, 0.02, n)
    same_source = take_crop(pool, rng, side, data) if rng.random() < 0.3 else None
    contrasts = np.exp(rng.uniform(np.log(0.015), np.log(0.15), n))
    if rng.random() < 0.3:
        contrasts[:] = contrasts[0]
    out = []
    for mean, contrast in zip(means, contrasts, strict=True):
        fill = _texture(pool, rng, side, data, same_source)
        fill = fill - fill.mean(axis=(1, 2), keepdims=True)
        fill = fill / max(float(fill.std()), 1e-3) * contrast + mean
        if rng.random() < data.tint:
            fill = fill + rng.normal(0, 0.06, (3, 1, 1))
        out.append(fill.astype(np.float32))
    return out


def _texture(
    pool: Pool,
    rng: np.random.Generator,
    side: int,
    data: DataSettings,
    same_source: FloatArray | None,
) -> FloatArray:
    if same_source is not None:  # the same material, finer, smoother or turned
        crop = np.rot90(same_source, int(rng.integers(4)), axes=(1, 2))
        sigma = float(rng.choice([0, 1, 2.5]))
        return ndimage.gaussian_filter(crop, (0, sigma, sigma)) if sigma else crop
    kind = rng.random()
    if kind < 0.55:
        return take_crop(pool, rng, side, data)
    if kind < 0.9:
        wavelength = np.exp(rng.uniform(np.log(2), np.log(40)))
        field = smooth_field(side, rng, wavelength)
        if rng.random() < 0.4:  # lamellae
            y, x = np.indices((side, side), dtype=np.float32)
            angle = rng.uniform(0, np.pi)
            phase = (np.cos(angle) * y + np.sin(angle) * x) / rng.uniform(4, 16)
            field = np.sin(2 * np.pi * phase + 0.5 * field)
        return np.repeat(field[None].astype(np.float32), 3, axis=0)
    return rng.normal(0, 1e-3, (3, side, side)).astype(np.float32)
