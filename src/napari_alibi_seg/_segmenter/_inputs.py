"""Which files a batch is about, and what their outputs are called.

Folders become files here, outputs of this package are told from inputs by the manifest
beside them, and every input gets an output name of its own.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from napari_alibi_seg._base import SettingsError
from napari_alibi_seg._segmenter._manifest import MANIFEST_NAME, Manifest
from napari_alibi_seg.data import IMAGE_SUFFIXES, RESULT_KINDS

__all__ = ["OUTPUT_SUFFIXES", "find_inputs", "output_stems"]

_logger = logging.getLogger(__name__)

# What each format's outputs end in.
OUTPUT_SUFFIXES = {"tiff": ".tif", "ome-zarr": ".ome.zarr"}
_OUTPUT_ENDS = tuple(
    f"_{kind}{suffix}" for kind in RESULT_KINDS for suffix in OUTPUT_SUFFIXES.values()
)


def find_inputs(inputs: Sequence[Path | str], *, recursive: bool = False) -> list[Path]:
    """Return the image files that were named or lie in named folders, each once.

    Parameters
    ----------
    inputs : sequence of path
        Files and folders. Zarr folders are images.
    recursive : bool
        Search folders within folders too.

    Returns
    -------
    list of Path
        Folder contents sorted by name. Outputs of this package and hidden files in
        folders are left out.

    Raises
    ------
    SettingsError
        If nothing at all was found.
    """
    found: dict[str, Path] = {}
    written: dict[Path, set[str]] = {}
    for item in map(Path, inputs):
        for path in _files_in(item, recursive) if _is_folder(item) else [item]:
            if not _is_own_output(path, written):
                found.setdefault(os.path.realpath(path), path)
            elif path == item:
                _logger.warning("%s is an output of this program; left out.", path)
    if not found:
        raise SettingsError(
            f"No image found in {[str(i) for i in inputs]}. Name files, or folders "
            f"that hold images ({', '.join(sorted(IMAGE_SUFFIXES))})."
        )
    return list(found.values())


def _is_folder(path: Path) -> bool:
    return path.is_dir() and path.suffix.lower() != ".zarr"


def _files_in(folder: Path, recursive: bool) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if _is_folder(path):
            if recursive:
                yield from _files_in(path, recursive)
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            yield path


def _is_own_output(path: Path, written: dict[Path, set[str]]) -> bool:
    """Return whether a manifest beside the file says that we wrote it.

    `written` remembers the manifests that were read.
    """
    if not path.name.endswith(_OUTPUT_ENDS):
        return False
    if path.parent not in written:
        written[path.parent] = Manifest(path.parent / MANIFEST_NAME).outputs()
    return path.name in written[path.parent]


def output_stems(paths: Sequence[Path]) -> list[str]:
    """Return a distinct output name for each input.

    Equal stems get their extension, then parent folders until they differ.

    Examples
    --------
    >>> output_stems([Path("a/x.tif"), Path("a/x.png"), Path("b/x.png"), Path("y.tif")])
    ['x_tif', 'a_x_png', 'b_x_png', 'y']
    """
    names = [p.stem for p in paths]
    # links that go in a circle have no real path for pathlib
    places = [Path(os.path.realpath(p)) for p in paths]
    levels = max(len(p.parts) for p in places)
    for level in range(levels):
        clashes = {
            n.casefold(): c for n, c in Counter(map(str.casefold, names)).items()
        }
        if max(clashes.values()) == 1:
            return names
        for i, path in enumerate(paths):
            if clashes[names[i].casefold()] > 1:
                parts = places[i].parts[-1 - level : -1] if level else ()
                extension = path.suffix.lstrip(".") or "file"
                names[i] = "_".join([*parts, path.stem, extension])
    return names
