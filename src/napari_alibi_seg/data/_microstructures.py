"""Synthetic micrographs with exact masks, in any number and of any size.

This is the public door to the sample generator: names, pixel sizes and classes of the
kinds, and the promise that the same arguments give the same pixels. The geometry
lies in `_scenes`, the microscope in `_detector`, annotations in `_strokes`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import PixelSize, SettingsError, UInt8Array
from napari_alibi_seg.data._detector import detect, draw_detector
from napari_alibi_seg.data._scenes import (
    Scene,
    fibres,
    graded,
    grains,
    precipitates,
    spinodal,
)

__all__ = ["KINDS", "SyntheticMicrograph", "synthesize"]

_Scenery: TypeAlias = Callable[[tuple[int, int], np.random.Generator, float], Scene]


@dataclass(frozen=True, slots=True)
class _Kind:
    """One row of the table of kinds: scene, names of classes 1, 2, ..., pixel in um."""

    scene: _Scenery
    class_names: tuple[str, ...]
    pixel_size_um: float


_TABLE = {
    "spinodal": _Kind(spinodal, ("dark phase", "bright phase"), 0.05),
    "precipitates": _Kind(
        precipitates, ("matrix", "large precipitate", "fine precipitate"), 0.02
    ),
    "grains": _Kind(grains, ("ferrite", "pearlite", "grain boundary"), 0.2),
    "fibres": _Kind(fibres, ("matrix", "fibre", "void"), 0.35),
    "graded": _Kind(graded, ("metal", "ceramic", "pore"), 0.5),
}

KINDS: tuple[str, ...] = tuple(_TABLE)

_MIN_SIDE_PX = 64
_ZOOM_LIMITS = (0.5, 8.0)
# A class below this share of the field is no use to paint on.
_MIN_SHARE = 0.003
_ATTEMPTS = 50


@dataclass(frozen=True, slots=True)
class SyntheticMicrograph:
    """A micrograph and the truth about it.

    Attributes
    ----------
    image : (Y, X) uint8 or uint16
        What the detector gave; uint16 holds a 12-bit range.
    mask : (Y, X) uint8
        Class id of every pixel, 1 to K.
    class_names : tuple of str
        Names of the ids 1 to K.
    pixel_size : PixelSize
        Side of a pixel in micrometres.
    kind : str
        One of `KINDS`.
    """

    image: npt.NDArray[np.unsignedinteger[Any]]
    mask: UInt8Array
    class_names: tuple[str, ...]
    pixel_size: PixelSize
    kind: str


def synthesize(
    kind: str,
    shape: tuple[int, int] = (512, 512),
    *,
    seed: int = 0,
    pixel_size_um: float | None = None,
    noise: float = 1.0,
    drift: float = 1.0,
    bits: int = 8,
) -> SyntheticMicrograph:
    """Make a micrograph with an exact mask.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    shape : tuple of int
        Rows and columns, 64 or more each.
    seed : int
        Draws the material (sizes, fractions, contrast), its arrangement and the
        acquisition. Equal arguments give equal pixels.
    pixel_size_um : float, optional
        Side of a pixel. Sizes of features are physical: half the pixel size shows
        them twice as large. None takes the kind's usual value.
    noise : float
        Multiplies the typical relative noise; 0 switches it off.
    drift : float
        Multiplies the typical charging background and streaks; 0 switches them off.
    bits : {8, 16}
        Sample size of the image; 16 holds the range of a 12-bit converter.

    Returns
    -------
    SyntheticMicrograph

    Raises
    ------
    SettingsError
        If `kind` is unknown or another argument lies outside its range.

    Notes
    -----
    Every class covers at least 0.3 % of the field; a material that does not show all
    its classes in the field is drawn again.

    Examples
    --------
    >>> sample = synthesize("fibres", (96, 128), seed=3)
    >>> sample.image.shape, sample.image.dtype.name
    ((96, 128), 'uint8')
    >>> dict(enumerate(sample.class_names, start=1))
    {1: 'matrix', 2: 'fibre', 3: 'void'}
    """
    row = _validated_kind(kind)
    rows, columns = _validated_shape(shape)
    for name, amount in (("noise", noise), ("drift", drift)):
        if not 0 <= amount <= 10:
            raise SettingsError(f"`{name}` must lie in 0 to 10, got {amount!r}.")
    if bits not in (8, 16):
        raise SettingsError(f"`bits` must be 8 or 16, got {bits!r}.")
    if seed < 0:
        raise SettingsError(f"`seed` must be 0 or more, got {seed!r}.")
    pixel = row.pixel_size_um if pixel_size_um is None else pixel_size_um
    zoom = _validated_zoom(row.pixel_size_um, pixel)
    # The kind's place in the table keeps the seeds of different kinds apart.
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    scene = _complete_scene(row, (rows, columns), rng, zoom)
    detector = draw_detector(rng, noise=noise, drift=drift, bits=bits)
    return SyntheticMicrograph(
        image=detect(scene.signal_yx, detector, rng),
        mask=scene.mask_yx,
        class_names=row.class_names,
        pixel_size=PixelSize(pixel, pixel, "um"),
        kind=kind,
    )


def _complete_scene(
    row: _Kind, shape: tuple[int, int], rng: np.random.Generator, zoom: float
) -> Scene:
    """Draw scenes until one shows every class."""
    n_classes = len(row.class_names)
    for _ in range(_ATTEMPTS):
        scene = row.scene(shape, rng, zoom)
        counts = np.bincount(scene.mask_yx.ravel(), minlength=n_classes + 1)[1:]
        if counts.min() >= _MIN_SHARE * counts.sum():
            return scene
    raise SettingsError(
        f"`shape` {shape!r} is too small to show all of {row.class_names} at this "
        "pixel size; take a larger field or a larger `pixel_size_um`."
    )


def _validated_kind(kind: str) -> _Kind:
    if kind not in _TABLE:
        raise SettingsError(f"`kind` must be one of {KINDS}, got {kind!r}.")
    return _TABLE[kind]


def _validated_shape(shape: tuple[int, int]) -> tuple[int, int]:
    if len(shape) != 2 or any(int(n) != n or n < _MIN_SIDE_PX for n in shape):
        raise SettingsError(
            f"`shape` must be (rows, columns) of {_MIN_SIDE_PX} or more, got {shape!r}."
        )
    return int(shape[0]), int(shape[1])


def _validated_zoom(usual_um: float, pixel_size_um: float) -> float:
    low, high = usual_um / _ZOOM_LIMITS[1], usual_um / _ZOOM_LIMITS[0]
    # A relative slack lets a caller name the limits themselves.
    if not math.isfinite(pixel_size_um) or not (
        low * 0.999 <= pixel_size_um <= high * 1.001
    ):
        raise SettingsError(
            f"`pixel_size_um` must lie in {low:.4g} to {high:.4g} for this kind, "
            f"got {pixel_size_um!r}."
        )
    return usual_um / pixel_size_um
