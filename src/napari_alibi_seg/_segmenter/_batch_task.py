"""What a batch is asked for, one file at a time, and how far it is: plain data.

Any process understands it. Only this module knows which options contradict each other
and what outputs are called.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from napari_alibi_seg._base import SettingsError
from napari_alibi_seg._segmenter._inputs import OUTPUT_SUFFIXES
from napari_alibi_seg.data import RESULT_KINDS

__all__ = ["BatchOptions", "FileTask", "Progress"]


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """What `iter_apply` writes and replaces.

    Attributes
    ----------
    probabilities, uncertainty : bool
        Write these beside the labels.
    overwrite : bool
        Replace outputs that the manifest does not vouch for.
    plane, time : int or None
        Plane of stacks, and point in time of series of stacks, from 0.
    all_planes : bool
        All planes of stacks and time series (of one point in time if `time` is named),
        whose outputs then have an axis for them. Images of one plane are done as
        without.
    z_smooth : float
        With `all_planes`, sigma in planes of a Gaussian over the probabilities of
        neighbouring planes, never across time; 0 leaves each plane alone.
    format : {"tiff", "ome-zarr"}
        Of the outputs. Both are compressed without loss, and have coarser levels
        where they are large.

    Raises
    ------
    SettingsError
        If there is no such format, `plane` and `all_planes` are both given, or
        `z_smooth` is negative, not finite or without `all_planes`.

    Examples
    --------
    >>> BatchOptions(uncertainty=True).kinds
    ('labels', 'uncertainty')
    """

    probabilities: bool = False
    uncertainty: bool = False
    overwrite: bool = False
    plane: int | None = None
    all_planes: bool = False
    z_smooth: float = 0.0
    format: str = "tiff"
    time: int | None = None

    def __post_init__(self) -> None:
        if self.format not in OUTPUT_SUFFIXES:
            raise SettingsError(
                f"`format` must be one of {list(OUTPUT_SUFFIXES)}, got {self.format!r}."
            )
        if self.all_planes and self.plane is not None:
            raise SettingsError(
                f"Expected one plane or all of them, got plane {self.plane} and all. "
                f"Leave one of the two out."
            )
        if not (math.isfinite(self.z_smooth) and self.z_smooth >= 0):
            raise SettingsError(
                f"`z_smooth` must be 0 or a positive number of planes, got "
                f"{self.z_smooth!r}."
            )
        if self.z_smooth and not self.all_planes:
            raise SettingsError(
                f"Smoothing along Z needs all planes, got `z_smooth` {self.z_smooth} "
                f"for one plane. Ask for all planes too."
            )

    @property
    def kinds(self) -> tuple[str, ...]:
        """Outputs per file."""
        wanted = (True, self.probabilities, self.uncertainty)
        return tuple(k for k, w in zip(RESULT_KINDS, wanted, strict=True) if w)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the file at hand is.

    Attributes
    ----------
    file, stage : str
        Input, and "features" (of a plane, for stacks) or "segmentation".
    done, total : int
        Tiles.
    note : str
        What a long file will take, once, before its first tile; else empty.
    """

    file: str
    stage: str
    done: int
    total: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class FileTask:
    """One image and where its outputs go; plain data that any process understands.

    Attributes
    ----------
    path, out : Path
        The image, and the folder of the outputs, which exists.
    stem : str
        What the outputs' names begin with.
    options : BatchOptions
        What to write.

    Examples
    --------
    >>> FileTask(Path("a.png"), Path("out"), "a", BatchOptions()).output.name
    'a_labels.tif'
    """

    path: Path
    out: Path
    stem: str
    options: BatchOptions

    @property
    def output(self) -> Path:
        """The label image, whose name is the name of the file's row."""
        return self.targets()["labels"]

    def targets(self) -> dict[str, Path]:
        """Return the output of each kind."""
        suffix = OUTPUT_SUFFIXES[self.options.format]
        return {
            kind: self.out / f"{self.stem}_{kind}{suffix}"
            for kind in self.options.kinds
        }
