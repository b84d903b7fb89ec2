"""What the Batch tab is asked to do, and the command line that does the same.

Only this module knows how the options of `alibi-seg apply` are spelt outside the
command line itself. It runs nothing: `iter_apply` does.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from napari_alibi_seg._base import SettingsError
from napari_alibi_seg._segmenter import BatchOptions
from napari_alibi_seg.data import cache_dir

__all__ = ["BatchRequest", "command_line"]


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """What the Batch tab is asked to do.

    Attributes
    ----------
    classifier : Path
        The `.alibiseg` file.
    inputs : tuple of Path
        Image files and folders, at least one.
    out : Path
        Folder for the outputs.
    probabilities, uncertainty, overwrite, plane, all_planes, time, z_smooth,
    format
        See `BatchOptions`.
    recursive : bool
        Search folders within folders.
    backbone : str or None
        Where the weights are now, if not where they were.
    store : Path or None
        Folder of feature stores; None is the user's cache.
    device : str
        Where the ViT runs.
    workers : int or None
        Threads; None is all cores.

    Examples
    --------
    >>> request = BatchRequest(Path("a.alibiseg"), (Path("scans"),), Path("out"))
    >>> request.options().kinds
    ('labels',)
    """

    classifier: Path
    inputs: tuple[Path, ...]
    out: Path
    probabilities: bool = False
    uncertainty: bool = False
    recursive: bool = False
    overwrite: bool = False
    plane: int | None = None
    all_planes: bool = False
    time: int | None = None
    z_smooth: float = 0.0
    format: str = "tiff"
    backbone: str | None = None
    store: Path | None = None
    device: str = "auto"
    workers: int | None = None

    def options(self) -> BatchOptions:
        """Return what `iter_apply` takes."""
        return BatchOptions(
            probabilities=self.probabilities,
            uncertainty=self.uncertainty,
            overwrite=self.overwrite,
            plane=self.plane,
            all_planes=self.all_planes,
            time=self.time,
            z_smooth=self.z_smooth,
            format=self.format,
        )

    def store_folder(self) -> Path:
        """Return the folder of feature stores, as `alibi-seg apply` chooses it."""
        return self.store or cache_dir() / "features"

    def arguments(self) -> list[str]:
        """Return the arguments of `alibi-seg`, paths absolute.

        Raises
        ------
        SettingsError
            If there is no input.
        """
        if not self.inputs:
            raise SettingsError(
                "Expected image files or folders for a batch, got none. Add some."
            )
        # absolute: right in any folder, and never taken for an option
        paths = [self.classifier, *self.inputs]
        out = ["apply", *map(_absolute, paths), "--out", _absolute(self.out)]
        for flag in ("probabilities", "uncertainty", "recursive", "overwrite"):
            out += [f"--{flag}"] if getattr(self, flag) else []
        if self.plane is not None:
            out += ["--plane", str(self.plane)]
        if self.all_planes:
            out += ["--all-planes"]
        if self.time is not None:
            out += ["--time", str(self.time)]
        if self.z_smooth:
            out += ["--z-smooth", repr(self.z_smooth)]
        if self.format != "tiff":
            out += ["--format", self.format]
        if self.backbone is not None:
            # a name of the registry stays one
            is_file = Path(self.backbone).is_file()
            out += [
                "--backbone",
                _absolute(self.backbone) if is_file else self.backbone,
            ]
        if self.store is not None:
            out += ["--store", _absolute(self.store)]
        if self.device != "auto":
            out += ["--device", self.device]
        if self.workers is not None:
            out += ["--threads", str(self.workers)]
        return out


def command_line(request: BatchRequest, *, is_windows: bool | None = None) -> str:
    """Return the line for a terminal that does what the Batch tab does.

    Parameters
    ----------
    request : BatchRequest
        What to do.
    is_windows : bool, optional
        Quote for Windows instead of a POSIX shell; by default as this system does.

    Returns
    -------
    str
        One line.

    Raises
    ------
    SettingsError
        If there is no input.

    Examples
    --------
    >>> request = BatchRequest(Path("/a.alibiseg"), (Path("/my scans"),), Path("/out"))
    >>> command_line(request, is_windows=False)
    "alibi-seg apply /a.alibiseg '/my scans' --out /out"
    """
    words = ["alibi-seg", *request.arguments()]
    if os.name == "nt" if is_windows is None else is_windows:
        return subprocess.list2cmdline(words)
    return shlex.join(words)


def _absolute(path: Path | str) -> str:
    return str(Path(path).absolute())
