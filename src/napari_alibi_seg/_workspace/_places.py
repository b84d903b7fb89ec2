"""Where the project of an image is, and which image a project belongs to.

Beside the image as ``NAME.alibi-seg``, or in the user's data folder when there is no
file or its folder cannot be written. Only this module knows these names and the rules
by which a project is found again: by place, and by the content of the image when it
was renamed or moved. What is in a project is left to `_project`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from napari_alibi_seg.data import ImageSource

__all__ = [
    "PROJECT_FILE",
    "SUFFIX",
    "FoundProject",
    "ImageIdentity",
    "find_project",
    "project_folder",
    "projects_dir",
    "user_folder",
]

PROJECT_FILE = "project.json"
SUFFIX = ".alibi-seg"
_VARIABLE = "ALIBI_SEG_PROJECTS"
_HASH_DIGITS = 12
_MAX_NAME = 100
_MAX_JSON_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class ImageIdentity:
    """Which image it is.

    Attributes
    ----------
    name : str
        What the user calls it: the file name, or that of the layer.
    path : Path or None
        The file, None for layers without one.
    shape : tuple of int
        Rows and columns of a plane.
    content_hash : str
        Of the pixels. Of a stack, always that of the same plane, such as the first.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_alibi_seg.data import open_image
    >>> image = ImageIdentity.of(open_image(np.zeros((4, 5), np.uint8)), name="steel")
    >>> image.name, image.shape, image.content_hash[:6]
    ('steel', (4, 5), 'b0dd17')
    """

    name: str
    path: Path | None
    shape: tuple[int, int]
    content_hash: str

    @classmethod
    def of(cls, source: ImageSource, *, name: str | None = None) -> ImageIdentity:
        """Identify an image by its pixels, which are read once.

        Parameters
        ----------
        source : ImageSource
            The image, or the first plane of a stack.
        name : str, optional
            Instead of the source's own.
        """
        path = None if source.path is None else Path(os.path.abspath(source.path))  # noqa: PTH100
        return cls(name or source.name, path, source.shape, source.content_hash())


@dataclass(frozen=True, slots=True)
class FoundProject:
    """A project that may belong to an image.

    Attributes
    ----------
    folder : Path
        Where.
    is_same_image : bool
        False if it was made on other pixels: the image was replaced.
    reason : str
        Why it was chosen or, for another image, what to know. A sentence.
    """

    folder: Path
    is_same_image: bool
    reason: str


def projects_dir() -> Path:
    """Return the user's folder of projects; ALIBI_SEG_PROJECTS moves it.

    Examples
    --------
    >>> projects_dir().is_absolute()
    True
    """
    chosen = os.environ.get(_VARIABLE)
    if chosen:
        return Path(chosen).absolute()
    return Path(platformdirs.user_data_dir("napari-alibi-seg")).absolute() / "projects"


def project_folder(image: ImageIdentity) -> Path:
    """Return where a new project of an image would be kept. Nothing is made.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "a.tif"
    ...     project_folder(ImageIdentity("a.tif", path, (4, 5), "c0ffee")).name
    'a.tif.alibi-seg'
    """
    beside = _beside(image)
    if beside is not None and os.access(beside.parent, os.W_OK):
        return beside
    return user_folder(image)


def user_folder(image: ImageIdentity) -> Path:
    """Return the folder of an image's project among the user's."""
    short = image.content_hash[:_HASH_DIGITS]
    return projects_dir() / f"{_file_name(image.name)}-{short}"


def find_project(image: ImageIdentity) -> FoundProject | None:
    """Find the project of an image.

    Parameters
    ----------
    image : ImageIdentity
        The image.

    Returns
    -------
    FoundProject or None
        In this order: one of the same pixels in the place of this image; one of the
        same pixels whose own image is gone (it was renamed or moved); one in the place
        of this image made on other pixels.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "a.tif"
    ...     find_project(ImageIdentity("a.tif", path, (4, 5), "c0ffee")) is None
    True
    """
    own = [f for f in _own_folders(image) if f.is_dir()]
    for folder in own:
        if made_on(folder) in (None, image.content_hash):
            return FoundProject(folder, True, f"This image has a project in {folder}.")
    for folder in _other_folders(image):
        if made_on(folder) == image.content_hash and _is_orphan(folder):
            return FoundProject(
                folder,
                True,
                f"{folder} was made on the same pixels, under another name.",
            )
    for folder in [*own, *_same_path(image)]:
        return FoundProject(
            folder,
            False,
            f"{folder} was made on other pixels: {image.name} was replaced or edited "
            "since.",
        )
    return None


def made_on(folder: Path) -> str | None:
    """Return the content hash a project was made on, None if it does not say."""
    found = _image_record(folder).get("content_hash")
    return found if isinstance(found, str) else None


def _image_record(folder: Path) -> dict[str, Any]:
    path = folder / PROJECT_FILE
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            return {}
        record = json.loads(path.read_text(encoding="utf-8"))["image"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _beside(image: ImageIdentity) -> Path | None:
    if image.path is None or not image.path.parent.is_dir():
        return None
    # a container's image has the name FILE:DATASET, and each its own project
    name = image.name if image.name.startswith(image.path.name) else image.path.name
    return image.path.with_name(_file_name(name) + SUFFIX)


def _file_name(name: str) -> str:
    """Return a name that every file system takes.

    >>> _file_name("a: b/c?.h5"), _file_name("..")
    ('a_ b_c_.h5', 'image')
    """
    clean = re.sub(r"[^\w.()+ -]", "_", name).strip(" .")
    return clean[-_MAX_NAME:].strip(" .") or "image"


def _own_folders(image: ImageIdentity) -> list[Path]:
    beside, among = _beside(image), user_folder(image)
    if beside is None:
        return [among]
    # work on a read-only neighbour went on among the user's own
    is_writable = os.access(beside if beside.is_dir() else beside.parent, os.W_OK)
    return [beside, among] if is_writable else [among, beside]


def _other_folders(image: ImageIdentity) -> Iterator[Path]:
    yield from _folders(projects_dir())
    if image.path is not None:
        yield from _folders(image.path.parent, f"*{SUFFIX}")


def _folders(parent: Path, pattern: str = "*") -> list[Path]:
    try:
        return sorted(f for f in parent.glob(pattern) if (f / PROJECT_FILE).is_file())
    except OSError:
        return []


def _same_path(image: ImageIdentity) -> Iterator[Path]:
    for folder in _folders(projects_dir()) if image.path is not None else ():
        if _image_record(folder).get("path") == str(image.path):
            yield folder


def _is_orphan(folder: Path) -> bool:
    """Return whether the image that a project was made for is no longer there."""
    if folder.name.endswith(SUFFIX):
        name = folder.name.removesuffix(SUFFIX)
        record = _image_record(folder).get("file", name)
        return not (folder.parent / str(record)).exists()
    path = _image_record(folder).get("path")
    return path is None or not Path(str(path)).exists()
