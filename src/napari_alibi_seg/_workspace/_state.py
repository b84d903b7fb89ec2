"""What a project knows beside its scribbles, and its form in ``project.json``.

Only this module knows that file's fields. A field that cannot be understood costs
itself and not the others: it takes its default, and a note says so. Reading and
writing the file is left to `_project`.
"""

from __future__ import annotations

import json
import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from napari_alibi_seg._base import PixelSize, StoreError
from napari_alibi_seg._workspace._classes import ClassEntry, ClassTable
from napari_alibi_seg._workspace._places import ImageIdentity
from napari_alibi_seg._workspace._requests import DockSettings

__all__ = ["SCHEMA", "ExcludedArea", "ProjectState", "from_json", "to_json"]

SCHEMA = 1


class ExcludedArea(BaseModel):
    """A part of the image that is left out, such as an information bar.

    Attributes
    ----------
    kind : {"box", "polygon"}
        A box has its four corners.
    corners : tuple of (y, x)
        In pixels, at least three.
    plane : tuple of int
        The plane it lies in; empty: in all.

    Examples
    --------
    >>> ExcludedArea(kind="polygon", corners=((0, 0), (0, 9.5), (4, 0))).corners[1]
    (0.0, 9.5)
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["box", "polygon"]
    corners: tuple[tuple[float, float], ...] = Field(min_length=3)
    plane: tuple[int, ...] = ()


class ProjectState(BaseModel):
    """Everything a project keeps but the scribbles.

    Attributes
    ----------
    classes : tuple of ClassEntry
        In order; see `ClassTable.entries`.
    settings : DockSettings
        Of the dock.
    excluded : tuple of ExcludedArea
        Areas left out.
    pixel_size : PixelSize or None
        As the user typed it, for an image whose file has none.
    classifier : str or None
        The `.alibiseg` file in use: a name in the project, or a path.

    Examples
    --------
    >>> ProjectState().settings.live
    True
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: tuple[ClassEntry, ...] = ()
    settings: DockSettings = DockSettings()
    excluded: tuple[ExcludedArea, ...] = ()
    pixel_size: PixelSize | None = None
    classifier: str | None = None

    @field_validator("classes")
    @classmethod
    def _distinct(cls, value: tuple[ClassEntry, ...]) -> tuple[ClassEntry, ...]:
        return ClassTable(value).entries

    @field_validator("pixel_size")
    @classmethod
    def _positive(cls, value: PixelSize | None) -> PixelSize | None:
        sides = () if value is None else (value.y, value.x, value.z)
        if not all(side is None or 0 < side < math.inf for side in sides):
            raise ValueError("must have sides above 0")
        return value


def to_json(
    state: ProjectState,
    image: ImageIdentity,
    scribbles: dict[str, str],
    *,
    beside: bool,
) -> str:
    """Return the text of ``project.json``.

    Parameters
    ----------
    state : ProjectState
        The user's part.
    image : ImageIdentity
        Which image it belongs to.
    scribbles : dict of str to str
        File by plane.
    beside : bool
        Whether the project lies beside its image: then it holds no path, and both can
        be moved together.
    """
    record: dict[str, Any] = {
        "name": image.name,
        "content_hash": image.content_hash,
        "shape": list(image.shape),
    }
    if image.path is not None:
        record |= {"file": image.path.name} if beside else {"path": str(image.path)}
    content = {
        "schema": SCHEMA,
        "image": record,
        **state.model_dump(mode="json"),
        "scribbles": dict(sorted(scribbles.items())),
    }
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def from_json(text: str) -> tuple[ProjectState, dict[str, str], tuple[str, ...]]:
    """Read the text of ``project.json``.

    Returns
    -------
    state : ProjectState
    scribbles : dict of str to str
        File by plane.
    notices : tuple of str
        What could not be understood, as sentences.

    Raises
    ------
    StoreError
        If a later version of this program wrote it.
    ValueError
        If it is no such text at all.
    """
    content = json.loads(text)
    if not isinstance(content, dict) or not isinstance(content.get("schema"), int):
        raise ValueError("no project of this program")
    if content["schema"] > SCHEMA:
        raise StoreError(
            f"Expected a project of version {SCHEMA} or earlier, got version "
            f"{content['schema']}. Update napari-alibi-seg; nothing was changed."
        )
    good: dict[str, Any] = {}
    notices: list[str] = []
    for name in ProjectState.model_fields:
        try:
            if name in content:
                one = ProjectState.model_validate_json(
                    json.dumps({name: content[name]})
                )
                good[name] = getattr(one, name)
        except ValidationError as err:
            first = err.errors()[0]
            notices.append(
                f"The {name} of the project could not be understood "
                f"({'.'.join(map(str, first['loc']))}: {first['msg']}) and are at "
                "their defaults."
            )
    scribbles = content.get("scribbles")
    pairs = scribbles.items() if isinstance(scribbles, dict) else ()
    files = {str(k): str(v) for k, v in pairs}
    return ProjectState(**good), files, tuple(notices)
