"""Microstructures before any microscope: class ids and ideal signal of a field of view.

Only this module knows the geometry and the contrast of each kind. Every scene draws
its own parameters from the generator that it is given, so a new seed is a new
material, within plausible limits. It leaves placing and drawing objects to
`_shapes`, noise, drift and digitisation to `_detector`, and names, pixel sizes and
repeatability to `_microstructures`.

Lengths are pixels at the usual magnification of the kind times `zoom`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage, special

from napari_alibi_seg.data._detector import Float64Array, correlated_noise
from napari_alibi_seg.data._shapes import (
    across_plies,
    boundaries,
    cuboids,
    edge_glow,
    lamellae,
    lying_fibres,
    per_object,
    spheres,
    standing_fibres,
    voids,
    voronoi,
)

__all__ = ["Scene", "fibres", "graded", "grains", "precipitates", "spinodal"]


class Scene(NamedTuple):
    """Class ids (Y, X) uint8 from 1 up, and ideal signal (Y, X) float64 in 0 to 1."""

    mask_yx: npt.NDArray[np.uint8]
    signal_yx: Float64Array


def spinodal(shape: tuple[int, int], rng: np.random.Generator, zoom: float) -> Scene:
    """Interpenetrating phases: a level cut of a field with one dominant period.

    1 dark phase, 2 bright phase.
    """
    period = min(rng.uniform(24, 46) * zoom, min(shape) / 2.5)
    field = correlated_noise(shape, rng, period, bandwidth=rng.uniform(0.2, 0.34))
    bright = field > np.quantile(field, rng.uniform(0.4, 0.62))
    grain = correlated_noise(shape, rng, 5 * zoom)
    cloud = correlated_noise(shape, rng, 1.5 * period)
    contrast = rng.uniform(0.13, 0.2)
    # Composition goes on rising away from the interface, as after coarsening.
    signal = rng.uniform(0.3, 0.42) + 0.025 * cloud + 0.25 * contrast * np.tanh(field)
    # Each phase has its own roughness, which a single grey level cannot see.
    signal += np.where(bright, contrast + 0.012 * grain, 0.035 * grain)
    signal += rng.uniform(0.02, 0.07) * edge_glow(bright, 1.6 * zoom)
    return _scene(np.where(bright, 2, 1), signal)


def precipitates(
    shape: tuple[int, int], rng: np.random.Generator, zoom: float
) -> Scene:
    """Superalloy: cuboidal precipitates, fine spheres in the channels between them.

    1 matrix, 2 large precipitate, 3 fine precipitate.
    """
    large = cuboids(shape, rng, zoom)
    room = ndimage.distance_transform_edt(large == 0)
    fine = spheres(room, rng, zoom)
    grain = correlated_noise(shape, rng, 4 * zoom)
    cloud = correlated_noise(shape, rng, 60 * zoom)
    dark = rng.uniform(0.11, 0.17)
    signal = rng.uniform(0.48, 0.58) + 0.012 * grain + 0.015 * cloud
    signal -= np.where(large > 0, dark * per_object(large, rng, 0.85, 1.15), 0.0)
    signal += np.where(large > 0, 0.022 * grain, 0.0)
    signal -= np.where(fine > 0, 1.25 * dark * per_object(fine, rng, 0.7, 1.2), 0.0)
    # Etched precipitates leave raised rims, which emit more electrons.
    signal += rng.uniform(0.08, 0.18) * edge_glow(large > 0, 1.8 * zoom)
    mask = np.where(large > 0, 2, np.where(fine > 0, 3, 1))
    return _scene(mask, signal)


def grains(shape: tuple[int, int], rng: np.random.Generator, zoom: float) -> Scene:
    """Etched steel: plain grains, lamellar colonies, dark boundaries.

    1 ferrite, 2 pearlite, 3 grain boundary.
    """
    diameter = min(rng.uniform(46, 78) * zoom, min(shape) / 3)
    labels = voronoi(shape, rng, diameter)
    n = int(labels.max()) + 1
    boundary = boundaries(labels, rng.uniform(3.0, 4.6) * zoom)
    lamellar = rng.random(n) < rng.uniform(0.2, 0.4)
    grain = correlated_noise(shape, rng, 6 * zoom)
    # Orientation contrast: plain grains differ among themselves.
    level = rng.uniform(0.58, 0.68) + rng.uniform(0.03, 0.06) * rng.standard_normal(n)
    signal = np.where(lamellar, level - rng.uniform(0.05, 0.1), level)[labels]
    signal += 0.015 * grain
    ripple = lamellae(labels, rng, rng.uniform(5.5, 8.0) * zoom)
    signal += np.where(lamellar[labels], rng.uniform(0.08, 0.13) * ripple, 0.0)
    # Some boundaries take the etch better than others.
    depth = np.clip(0.2 + 0.06 * correlated_noise(shape, rng, 50 * zoom), 0.07, 0.4)
    signal -= depth * boundary
    mask = np.where(boundary, 3, np.where(lamellar[labels], 2, 1))
    return _scene(mask, signal)


def fibres(shape: tuple[int, int], rng: np.random.Generator, zoom: float) -> Scene:
    """Cross-ply composite: one ply cut across its fibres, one along them, with voids.

    1 matrix, 2 fibre, 3 void.
    """
    radius = rng.uniform(8.0, 12.5) * zoom
    v, wave = across_plies(shape, rng, 300 * zoom)
    along = v > 0
    ids = np.where(
        along,
        lying_fibres(shape, rng, radius, wave),
        standing_fibres(shape, rng, radius),
    )
    ids[np.abs(v) < 0.35 * radius] = 0  # the resin-rich layer between the plies
    fibre = ids > 0
    grain = correlated_noise(shape, rng, 5 * zoom)
    cloud = correlated_noise(shape, rng, 40 * zoom)
    void = voids(fibre, correlated_noise(shape, rng, 22 * zoom), rng)
    signal = rng.uniform(0.34, 0.42) + 0.02 * grain + 0.012 * cloud
    bright = rng.uniform(0.15, 0.22) * per_object(ids, rng, 0.8, 1.2)
    signal += np.where(fibre, bright - 0.012 * grain, 0.0)
    signal += rng.uniform(0.0, 0.05) * edge_glow(fibre, 1.5 * zoom)
    signal = np.where(void, rng.uniform(0.12, 0.2) + 0.04 * cloud, signal)
    mask = np.where(void, 3, np.where(fibre, 2, 1))
    return _scene(mask, signal)


def graded(shape: tuple[int, int], rng: np.random.Generator, zoom: float) -> Scene:
    """Graded coating: metal gives way to ceramic across the field; pores everywhere.

    Position tells metal from ceramic nearly as well as grey level does, so a
    classifier that sees position learns it. 1 metal, 2 ceramic, 3 pore.
    """
    period = rng.uniform(15, 26) * zoom
    field = correlated_noise(shape, rng, period, bandwidth=rng.uniform(0.35, 0.5))
    angle = rng.uniform(-0.25, 0.25) + np.pi * rng.integers(2)
    y = np.linspace(-0.5, 0.5, shape[0])[:, None]
    x = np.linspace(-0.5, 0.5, shape[1])[None, :]
    position = np.clip(0.5 + np.cos(angle) * x + np.sin(angle) * y, 0.0, 1.0)
    low, high = rng.uniform(0.08, 0.16), rng.uniform(0.8, 0.9)
    # The field is normal, so this level gives the wanted fraction at each position.
    ceramic = field > -special.ndtri(low + (high - low) * position)
    holes = correlated_noise(shape, rng, 26 * zoom)
    pore = holes > np.quantile(holes, 1 - rng.uniform(0.02, 0.04))
    grain = correlated_noise(shape, rng, 4 * zoom)
    contrast = rng.uniform(0.12, 0.18)
    signal = rng.uniform(0.52, 0.6) + 0.012 * grain
    signal -= np.where(ceramic, contrast + 0.03 * grain, 0.0)
    signal = np.where(pore, rng.uniform(0.12, 0.2) + 0.02 * grain, signal)
    signal += rng.uniform(0.05, 0.1) * edge_glow(pore, 1.5 * zoom)
    return _scene(np.where(pore, 3, np.where(ceramic, 2, 1)), signal)


def _scene(mask: npt.NDArray[np.integer], signal: Float64Array) -> Scene:
    return Scene(mask.astype(np.uint8), np.clip(signal, 0.0, 1.0))
