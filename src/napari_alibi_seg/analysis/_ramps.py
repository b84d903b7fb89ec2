"""Targets of the position probes: where a token lies, as numbers in 0 to 1."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import SettingsError

__all__ = ["RAMPS", "ramp"]

RAMPS: tuple[str, ...] = (*("lr", "ud", "diag", "radial", "raster", "lr+ud", "random"),)


def ramp(
    kind: str, shape: tuple[int, int], *, seed: int = 0
) -> npt.NDArray[np.float64]:
    """Return a position target on a token grid.

    Parameters
    ----------
    kind : str
        "lr" and "ud" rise along columns and rows, "diag" is their mean, "radial"
        falls from 1 at (h // 2, w // 2), "raster" counts tokens row by row, "lr+ud"
        are two targets, "random" is noise, the control.
    shape : (int, int)
        Rows and columns of tokens.
    seed : int
        Of "random".

    Returns
    -------
    (h, w, t) float64
        In 0 to 1; t is 2 for "lr+ud", else 1.

    Raises
    ------
    SettingsError
        If `kind` is unknown or the grid is empty.

    References
    ----------
    Pawlowsky et al. (2026), "What DINO saw", arXiv:2603.16840.

    Examples
    --------
    >>> ramp("lr", (2, 3))[..., 0]
    array([[0. , 0.5, 1. ],
           [0. , 0.5, 1. ]])
    """
    h, w = shape
    if h < 1 or w < 1:
        raise SettingsError(f"`shape` must hold at least one token, got {shape!r}.")
    ud, lr = np.meshgrid(np.linspace(0, 1, h), np.linspace(0, 1, w), indexing="ij")
    if kind == "lr":
        return lr[..., None]
    if kind == "ud":
        return ud[..., None]
    if kind == "lr+ud":
        return np.stack([lr, ud], axis=-1)
    if kind == "diag":
        return ((lr + ud) / 2)[..., None]
    if kind == "radial":
        r = np.hypot(np.arange(h)[:, None] - h // 2, np.arange(w)[None] - w // 2)
        return (1 - r / max(float(r.max()), 1.0))[..., None]
    if kind == "raster":
        return np.linspace(0, 1, h * w).reshape(h, w, 1)
    if kind == "random":
        return np.random.default_rng(seed).random((h, w, 1))
    raise SettingsError(f"`kind` must be one of {RAMPS}, got {kind!r}.")
