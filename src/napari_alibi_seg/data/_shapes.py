"""Geometry of synthetic microstructures: lattices, packings, tessellations, outlines.

Only this module knows how objects are placed and drawn on the pixel grid. All lengths
are pixels; objects come back as numbers per pixel (0 for none) or as truth values. It
knows nothing of classes or grey levels, which are `_scenes`' part.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree

from napari_alibi_seg.data._detector import Float64Array, correlated_noise

__all__ = [
    "across_plies",
    "boundaries",
    "cuboids",
    "edge_glow",
    "lamellae",
    "lying_fibres",
    "per_object",
    "spheres",
    "standing_fibres",
    "voids",
    "voronoi",
]

Ids: TypeAlias = npt.NDArray[np.int32]
Mask: TypeAlias = npt.NDArray[np.bool_]


def edge_glow(inside: Mask, width_px: float) -> Float64Array:
    """Return 1 on the outline of `inside`, falling to 0 within a few widths."""
    soft = ndimage.gaussian_filter(inside.astype(np.float64), max(width_px, 0.8))
    return np.asarray(4.0 * soft * (1.0 - soft))


def per_object(
    ids: Ids, rng: np.random.Generator, low: float, high: float
) -> Float64Array:
    """Give every object its own factor between `low` and `high`."""
    return np.asarray(rng.uniform(low, high, int(ids.max()) + 1)[ids])


def cuboids(shape: tuple[int, int], rng: np.random.Generator, zoom: float) -> Ids:
    """Cuboids aligned with the crystal, on a loose lattice with gaps and vacancies."""
    cell = min(rng.uniform(44, 68) * zoom, min(shape) / 2)
    tilt = rng.uniform(0, np.pi / 2)
    reach = np.hypot(*shape) / 2 + cell
    steps = np.arange(-reach, reach, cell)
    u, v = (axis.ravel() for axis in np.meshgrid(steps, steps, indexing="ij"))
    n = u.size
    u, v = (
        u + rng.uniform(-0.17, 0.17, n) * cell,
        v + rng.uniform(-0.17, 0.17, n) * cell,
    )
    y = shape[0] / 2 + np.cos(tilt) * u - np.sin(tilt) * v
    x = shape[1] / 2 + np.sin(tilt) * u + np.cos(tilt) * v
    half = cell * rng.uniform(0.28, 0.47, (n, 2))
    angle = tilt + rng.normal(0, 0.05, n)
    shapes = np.column_stack([y, x, half, angle, rng.uniform(2.6, 5.0, n)])
    ids = np.zeros(shape, dtype=np.int32)
    wobble = 0.16 * correlated_noise(shape, rng, 18 * zoom)
    _stamp(ids, shapes[rng.random(n) > 0.12], wobble)
    return ids


def spheres(room_px: Float64Array, rng: np.random.Generator, zoom: float) -> Ids:
    """Small discs strewn where `room_px`, the distance to anything else, allows."""
    gap = 1.5
    radius = rng.uniform(1.9, 2.6) * zoom
    n = int(room_px.size * rng.uniform(0.5, 0.9) / (4 * radius + 2 * gap) ** 2) + 1
    yx = rng.uniform(0, 1, (n, 2)) * room_px.shape
    radii = radius * rng.uniform(0.75, 1.6, n)
    here = room_px[yx[:, 0].astype(int), yx[:, 1].astype(int)]
    fits = here > radii + gap
    yx, radii = yx[fits], radii[fits]
    keep = _apart(yx, radii, gap)
    yx, radii = yx[keep], radii[keep]
    ids = np.zeros(room_px.shape, dtype=np.int32)
    _stamp(
        ids,
        np.column_stack(
            [yx, radii, radii, np.zeros(len(radii)), np.full(len(radii), 2.0)]
        ),
    )
    return ids


def voronoi(
    shape: tuple[int, int], rng: np.random.Generator, diameter: float
) -> npt.NDArray[np.intp]:
    """Grain number of every pixel: nearest of random sites, with bent boundaries."""
    margin = int(diameter)
    size = (shape[0] + 2 * margin, shape[1] + 2 * margin)
    n = max(4, int(1.6 * size[0] * size[1] / diameter**2))
    yx = rng.uniform(0, 1, (n, 2)) * size
    yx = yx[_apart(yx, np.full(n, 0.25 * diameter), 0.0)].astype(int)
    seeds = np.ones(size, dtype=bool)
    seeds[yx[:, 0], yx[:, 1]] = False
    number = np.zeros(size, dtype=np.intp)
    number[yx[:, 0], yx[:, 1]] = np.arange(len(yx))
    nearest = ndimage.distance_transform_edt(
        seeds, return_distances=False, return_indices=True
    )
    bend = 0.06 * diameter
    rows, columns = np.indices(shape, dtype=np.float64)
    rows += margin + bend * correlated_noise(shape, rng, 0.7 * diameter)
    columns += margin + bend * correlated_noise(shape, rng, 0.7 * diameter)
    row = np.clip(np.rint(rows), 0, size[0] - 1).astype(np.intp)
    column = np.clip(np.rint(columns), 0, size[1] - 1).astype(np.intp)
    there = nearest[:, row, column]
    return np.asarray(number[there[0], there[1]])


def boundaries(labels: npt.NDArray[np.intp], width_px: float) -> Mask:
    """Pixels within half a width of a change of grain."""
    change = np.zeros(labels.shape, dtype=bool)
    change[1:] |= labels[1:] != labels[:-1]
    change[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    distance = ndimage.distance_transform_edt(~change)
    # Smoothing takes the staircase out of a line drawn on pixels.
    return np.asarray(ndimage.gaussian_filter(distance, 0.8) <= width_px / 2)


def lamellae(
    labels: npt.NDArray[np.intp], rng: np.random.Generator, spacing_px: float
) -> Float64Array:
    """Ripple of +-1 with one direction, spacing and phase per grain, gently bent."""
    n = int(labels.max()) + 1
    angle, phase = rng.uniform(0, np.pi, n), rng.uniform(0, 2 * np.pi, n)
    wave = 2 * np.pi / (spacing_px * rng.uniform(0.85, 1.25, n))
    y, x = np.indices(labels.shape, dtype=np.float64)
    bend = 0.25 * spacing_px * correlated_noise(labels.shape, rng, 5 * spacing_px)
    u = (wave * np.sin(angle))[labels] * y + (wave * np.cos(angle))[labels] * x
    return np.asarray(np.sin(u + wave[labels] * bend + phase[labels]))


def across_plies(
    shape: tuple[int, int], rng: np.random.Generator, length_px: float
) -> tuple[Float64Array, tuple[float, float]]:
    """Signed distance to the border of two plies, and the direction across it."""
    angle = rng.uniform(0, 2 * np.pi)
    direction = (float(np.sin(angle)), float(np.cos(angle)))
    y = np.arange(shape[0])[:, None] - shape[0] / 2
    x = np.arange(shape[1])[None, :] - shape[1] / 2
    distance = direction[0] * y + direction[1] * x
    shift = rng.uniform(-0.15, 0.15) * min(shape)
    waviness = 0.01 * min(shape) * correlated_noise(shape, rng, length_px)
    return np.asarray(distance + shift + waviness), direction


def lying_fibres(
    shape: tuple[int, int],
    rng: np.random.Generator,
    radius: float,
    across: tuple[float, float],
) -> Ids:
    """Sections of fibres nearly in the plane: long ellipses in lanes."""
    angle = float(np.arctan2(across[0], across[1]))
    reach = float(np.hypot(*shape)) / 2 + 2 * radius
    half_length = rng.uniform(14, 26) * radius
    rows = []
    lane = -reach
    while lane < reach:
        half = radius * rng.uniform(0.6, 1.0)
        lane += half + radius * rng.uniform(0.15, 0.55)
        u = -reach - rng.uniform(0, 2) * half_length
        while u < reach + half_length:
            length = half_length * rng.uniform(0.6, 1.4)
            u += length + radius * rng.uniform(0.3, 3.0)
            # Along the ply border is across its normal.
            y = shape[0] / 2 + across[0] * lane + across[1] * u
            x = shape[1] / 2 + across[1] * lane - across[0] * u
            rows.append((y, x, half, length, angle, 2.0))
            u += length
        lane += half
    shapes = np.array(rows)
    # Stamps measure the angle of their first half axis from the rows.
    shapes[:, 4] = np.pi / 2 - angle
    ids = np.zeros(shape, dtype=np.int32)
    _stamp(ids, shapes)
    return ids


def standing_fibres(
    shape: tuple[int, int], rng: np.random.Generator, radius: float
) -> Ids:
    """Cross-sections packed at random: circles, or ellipses if the cut is oblique."""
    stretch = rng.uniform(1.0, 1.7)
    angle = rng.uniform(0, np.pi)
    side = float(np.hypot(*shape)) + 4 * radius * stretch
    n = int(rng.uniform(0.5, 0.6) * side**2 / (np.pi * radius**2))
    radii = radius * rng.uniform(0.85, 1.12, n)
    uv = _relaxed(rng.uniform(0, side, (n, 2)), radii, 0.18 * radius)
    keep = _apart(uv, radii, 0.05 * radius)
    uv, radii = uv[keep] - side / 2, radii[keep]
    u = uv[:, 0] * stretch
    y = shape[0] / 2 + np.cos(angle) * u - np.sin(angle) * uv[:, 1]
    x = shape[1] / 2 + np.sin(angle) * u + np.cos(angle) * uv[:, 1]
    ids = np.zeros(shape, dtype=np.int32)
    flat = np.full(len(radii), angle), np.full(len(radii), 2.0)
    _stamp(ids, np.column_stack([y, x, radii * stretch, radii, *flat]))
    return ids


def voids(fibre: Mask, field_yx: Float64Array, rng: np.random.Generator) -> Mask:
    """Bubbles in the widest pockets of resin: a fixed share of the matrix."""
    pocket = np.minimum(ndimage.distance_transform_edt(~fibre), 6.0)
    wish = np.where(pocket > 1.5, field_yx + 0.25 * pocket, -np.inf)
    share = rng.uniform(0.04, 0.09)
    return np.asarray(wish > np.quantile(wish[~fibre], 1 - share))


def _stamp(
    ids: Ids, shapes: npt.NDArray[np.float64], wobble_yx: Float64Array | None = None
) -> None:
    """Draw superellipses (y, x, half axes a and b, angle, exponent) into `ids`.

    Objects get 1, 2, ... in order and never cover an earlier one; `wobble_yx` is
    added to the level function and so roughens outlines.
    """
    for number, (cy, cx, a, b, angle, power) in enumerate(shapes, start=1):
        reach_y = abs(a * np.cos(angle)) + abs(b * np.sin(angle)) + 0.2 * min(a, b) + 1
        reach_x = abs(a * np.sin(angle)) + abs(b * np.cos(angle)) + 0.2 * min(a, b) + 1
        y0, y1 = max(int(cy - reach_y), 0), min(int(cy + reach_y) + 2, ids.shape[0])
        x0, x1 = max(int(cx - reach_x), 0), min(int(cx + reach_x) + 2, ids.shape[1])
        if y0 >= y1 or x0 >= x1:
            continue
        y = np.arange(y0, y1)[:, None] - cy
        x = np.arange(x0, x1)[None, :] - cx
        u = np.abs(np.cos(angle) * y + np.sin(angle) * x) / a
        v = np.abs(np.cos(angle) * x - np.sin(angle) * y) / b
        level = u**power + v**power
        window = ids[y0:y1, x0:x1]
        if wobble_yx is not None:
            level = level + wobble_yx[y0:y1, x0:x1]
        window[(level <= 1.0) & (window == 0)] = number


def _apart(yx: Float64Array, radii: Float64Array, gap: float) -> npt.NDArray[np.bool_]:
    """Mark discs that come no closer than `gap` to one earlier in the list."""
    keep = np.ones(len(yx), dtype=bool)
    if len(yx) < 2:
        return keep
    pairs = cKDTree(yx).query_pairs(2 * radii.max() + gap, output_type="ndarray")
    distance = np.hypot(*(yx[pairs[:, 0]] - yx[pairs[:, 1]]).T)
    clash = distance < radii[pairs[:, 0]] + radii[pairs[:, 1]] + gap
    keep[pairs[clash].max(axis=1, initial=0)] = False
    return keep


def _relaxed(yx: Float64Array, radii: Float64Array, gap: float) -> Float64Array:
    """Push overlapping discs apart for a while, as resin does to fibres."""
    for _ in range(25):
        pairs = cKDTree(yx).query_pairs(2 * radii.max() + gap, output_type="ndarray")
        one, two = pairs[:, 0], pairs[:, 1]
        delta = yx[one] - yx[two]
        distance = np.maximum(np.hypot(*delta.T), 1e-9)
        excess = np.maximum(radii[one] + radii[two] + gap - distance, 0.0)
        push = 0.5 * delta * (excess / distance)[:, None]
        yx = yx.copy()
        for axis in (0, 1):
            yx[:, axis] += np.bincount(one, push[:, axis], len(yx))
            yx[:, axis] -= np.bincount(two, push[:, axis], len(yx))
    return yx
