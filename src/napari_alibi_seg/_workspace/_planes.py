"""How planes are called: in memory, in file names and in ``project.json``.

None for an image of one plane, a number, or numbers where a stack has more than one
axis (time, Z). In memory all three are a tuple.
"""

from __future__ import annotations

import re
from typing import TypeAlias

__all__ = ["Plane", "PlaneKey", "plane_key", "plane_name", "plane_of", "scribble_name"]

Plane: TypeAlias = "int | tuple[int, ...] | None"
PlaneKey: TypeAlias = tuple[int, ...]

_SCRIBBLES = re.compile(r"scribbles((?:-\d+)*)\.safetensors")


def plane_key(plane: Plane) -> PlaneKey:
    """Return a plane as a tuple.

    >>> plane_key(None), plane_key(3), plane_key((1, 3))
    ((), (3,), (1, 3))
    """
    if plane is None:
        return ()
    return plane if isinstance(plane, tuple) else (int(plane),)


def plane_name(key: PlaneKey) -> str:
    """Return what a plane is called in ``project.json``."""
    return "-".join(map(str, key)) or "only"


def scribble_name(key: PlaneKey) -> str:
    """Return the name of a plane's scribble file.

    >>> scribble_name(()), scribble_name((1, 3))
    ('scribbles.safetensors', 'scribbles-1-3.safetensors')
    """
    return f"scribbles{''.join(f'-{n}' for n in key)}.safetensors"


def plane_of(file_name: str) -> PlaneKey | None:
    """Return the plane of a scribble file, None if it is another file.

    >>> plane_of("scribbles-1-3.safetensors"), plane_of("scribbles-a.safetensors")
    ((1, 3), None)
    """
    match = _SCRIBBLES.fullmatch(file_name)
    return tuple(int(n) for n in match[1].split("-")[1:]) if match else None
