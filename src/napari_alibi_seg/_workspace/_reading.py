"""Reading a project folder without trust: what is there, and whose it is.

Nothing is written or moved here but a copy of a folder that cannot be written; what
follows from damage is decided by `_project`.
"""

from __future__ import annotations

import os
from collections.abc import Set
from dataclasses import dataclass, field
from pathlib import Path

from napari_alibi_seg._base import OutputError, StoreError
from napari_alibi_seg._workspace._blocks import ScribbleBlocks
from napari_alibi_seg._workspace._files import Stamp, move_aside, stamp, write
from napari_alibi_seg._workspace._places import PROJECT_FILE, ImageIdentity, made_on
from napari_alibi_seg._workspace._state import ProjectState, from_json

__all__ = [
    "Record",
    "Unusable",
    "copy_project",
    "read_blocks",
    "read_record",
    "refuse_other_image",
]


@dataclass
class Record:
    """What ``project.json`` says.

    Attributes
    ----------
    state : ProjectState
        Defaults where it could not be understood.
    content_hash : str or None
        Of the image it was made on.
    files : tuple of str
        Scribble files that must be there.
    notices : tuple of str
        For the user.
    is_damaged : bool
        Whether the file must be kept and another be written.
    text, stamp
        The file as it was found.
    """

    state: ProjectState
    content_hash: str | None = None
    files: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    is_damaged: bool = False
    text: str = field(default="", repr=False)
    stamp: Stamp | None = None


@dataclass(frozen=True, slots=True)
class Unusable:
    """Why a scribble file is not used: a word for its name, a sentence for the user."""

    label: str
    sentence: str


def read_record(folder: Path) -> Record:
    """Read ``project.json``; a damaged or missing one gives defaults and a notice.

    Raises
    ------
    StoreError
        If the folder or the file cannot be read at all, or is of a later version.
    """
    path = folder / PROJECT_FILE
    before = stamp(path)
    if before is None and folder.is_dir():
        notice = f"{path} is missing: classes and settings are at their defaults."
        return Record(ProjectState(), notices=(notice,))
    try:
        content = path.read_bytes()
    except OSError as err:
        raise StoreError(
            f"{path}: expected a project, got {err.strerror or err}. Check the folder "
            "and its permissions."
        ) from err
    try:
        text = content.decode()
        state, files, notices = from_json(text)
    except StoreError as err:
        raise StoreError(f"{path}: {err}") from err
    except (ValueError, RecursionError) as err:
        notice = (
            f"{path} is damaged ({str(err)[:200]}): classes and settings are at their "
            "defaults."
        )
        return Record(ProjectState(), notices=(notice,), is_damaged=True, stamp=before)
    return Record(
        state=state,
        content_hash=made_on(folder),
        files=tuple(files.values()),
        notices=notices,
        is_damaged=bool(notices),
        text=text,
        stamp=before,
    )


def refuse_other_image(folder: Path, image: ImageIdentity, record: Record) -> None:
    """Raise a `StoreError` if a project was made on other pixels."""
    known = {record.content_hash} - {None}
    if not known:
        # project.json does not say: ask the scribbles
        for path in sorted(folder.glob("scribbles*.safetensors")):
            try:
                _, about = ScribbleBlocks.from_bytes(path.read_bytes(), str(path))
            except (OSError, StoreError):
                continue
            known |= {about.get("image", image.content_hash)}
    if known and image.content_hash not in known:
        raise StoreError(
            f"{folder}: expected a project of {image.name!r} as it is now, got one "
            "made on other pixels. The image was replaced or edited since: use the "
            "project nevertheless, or begin a new one (this one is kept)."
        )


def read_blocks(
    path: Path, shape: tuple[int, int], accepted: Set[str | None] | None
) -> ScribbleBlocks | Unusable:
    """Read a scribble file, or say why it cannot be used.

    Raises
    ------
    StoreError
        If the disk does not give the file's content.
    """
    try:
        content = path.read_bytes()
    except OSError as err:
        raise StoreError(
            f"{path}: expected scribbles, got {err.strerror or err}. Check the disk."
        ) from err
    try:
        blocks, about = ScribbleBlocks.from_bytes(content, str(path))
    except StoreError as err:
        return Unusable("damaged", str(err))
    if blocks.shape != shape:
        return Unusable(
            "other-image",
            f"{path.name} was painted on an image of {blocks.shape[0]} x "
            f"{blocks.shape[1]} pixels, not {shape[0]} x {shape[1]}.",
        )
    if accepted is not None and about.get("image") not in accepted:
        return Unusable("other-image", f"{path.name} was painted on other pixels.")
    return blocks


def copy_project(folder: Path, target: Path, record: Record) -> tuple[Path, Record]:
    """Return a folder that can be written: this one, or a copy of it.

    Raises
    ------
    OutputError
        If it cannot be copied.
    """
    if os.access(folder, os.W_OK) or folder == target:
        return folder, record
    if target.exists():
        move_aside(target, "old")
    staged = target.with_name(f".{target.name}.copy")
    try:
        staged.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.iterdir()):
            if path.is_file() and not path.name.startswith("."):
                write(staged / path.name, path.read_bytes())
        staged.rename(target)
    except OSError as err:
        raise OutputError(
            f"{target}: expected to copy {folder}, which cannot be written, got "
            f"{err.strerror or err}. Set ALIBI_SEG_PROJECTS to a folder that can be."
        ) from err
    copied = read_record(target)
    copied.notices += (f"{folder} cannot be written; work goes on in {target}.",)
    return target, copied
