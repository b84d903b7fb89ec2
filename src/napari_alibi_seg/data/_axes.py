"""Named axes of a stored array, and the choice of one plane of it.

Only this module knows what an axis letter means and which axes need a choice: Y and X
span the plane, C (channels) or S (samples of a colour) are its channels, every other
letter is a stack. It touches no pixels; readers apply the `Selection` it makes.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from napari_alibi_seg._base import ImageFileError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

__all__ = ["Meaning", "Samples", "Selection", "guess_axes", "override_axes", "select"]

Meaning: TypeAlias = Literal["grey", "rgb", "channels"]

_AXIS_NAMES = {"T": "time points", "Z": "planes"}
_ALPHA_NOTE = "The alpha channel was left out."


@dataclass(frozen=True, slots=True)
class Samples:
    """What the S axis holds: how many samples are kept, and whether they are RGB."""

    kept: int
    is_rgb: bool


@dataclass(frozen=True, slots=True)
class Selection:
    """One plane of an array with named axes.

    Attributes
    ----------
    axes : str
        One letter an axis of the array.
    shape : tuple of int
        Its shape.
    fixed : tuple of int or None
        Index along each axis; None where the plane extends (Y, X, C or S).
    n_channels : int
        Channels kept, always the first ones.
    meaning : {"grey", "rgb", "channels"}
        What the channels are.
    plane, time : int or None
        The choices that were needed.
    notes : tuple of str
        What was left out.
    """

    axes: str
    shape: tuple[int, ...]
    fixed: tuple[int | None, ...]
    n_channels: int
    meaning: Meaning
    plane: int | None = None
    time: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def plane_shape(self) -> tuple[int, int]:
        """Rows and columns of the plane."""
        return self.shape[self.axes.index("Y")], self.shape[self.axes.index("X")]

    @property
    def channel_axis(self) -> int | None:
        """Position of the axis that holds the channels."""
        for i, (letter, index) in enumerate(zip(self.axes, self.fixed, strict=True)):
            if letter in "CS" and index is None:
                return i
        return None

    def index(self, rows: slice, columns: slice) -> tuple[slice, ...]:
        """Return the index that cuts a window out of the array, keeping every axis."""
        spans = {"Y": rows, "X": columns}
        channels = slice(0, self.n_channels)
        return tuple(
            spans.get(letter, channels) if at is None else slice(at, at + 1)
            for letter, at in zip(self.axes, self.fixed, strict=True)
        )

    def to_yxc(self, block: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Turn what `index` cut out into (h, w, C)."""
        order = [self.axes.index("Y"), self.axes.index("X")]
        if self.channel_axis is not None:
            order.append(self.channel_axis)
        rest = [i for i in range(block.ndim) if i not in order]
        moved = block.transpose(order + rest)
        return moved.reshape(*moved.shape[:2], self.n_channels)


def guess_axes(shape: Sequence[int], dtype: np.dtype, where: str) -> str:
    """Name the axes of an array that does not say what they are.

    Two axes are YX. A last axis of 3 or 4 with uint8, uint16 or float values is the
    samples of a colour (YXS, ZYXS); otherwise three axes are ZYX.

    Raises
    ------
    ImageFileError
        For fewer than two axes.
    SettingsError
        If the axes cannot be guessed.

    Examples
    --------
    >>> guess_axes((64, 64, 3), np.dtype("uint8"), "image")
    'YXS'
    >>> guess_axes((64, 64, 3), np.dtype("int32"), "image")
    'ZYX'
    """
    n = len(shape)
    if n < 2:
        raise ImageFileError(
            f"{where}: expected an image of at least two axes (rows, columns), got "
            f"shape {tuple(shape)}. Give a 2-D array, or a stack and `plane`."
        )
    is_colour = n > 2 and shape[-1] in (3, 4) and (dtype.kind == "f" or dtype in _RGB)
    axes = {2: "YX", 3: "YXS" if is_colour else "ZYX", 4: "ZYXS" if is_colour else ""}
    if not axes.get(n):
        raise SettingsError(
            f"{where}: expected two or three axes where the array does not name them, "
            f"got shape {tuple(shape)}. Say what each is with `axes`, for example "
            f"axes={'TZCYX'[-n:] if n <= 5 else 'ZCYX'!r}."
        )
    return axes[n]


_RGB = (np.dtype("uint8"), np.dtype("uint16"))


def override_axes(axes: str, shape: Sequence[int], where: str) -> str:
    """Return the axes the user named, checked against the shape."""
    letters = axes.upper() if isinstance(axes, str) else ""
    is_sound = (
        len(letters) == len(shape) == len(set(letters))
        and letters.isascii()
        and letters.isalpha()
        and {"Y", "X"} <= set(letters)
    )
    if not is_sound:
        raise SettingsError(
            f"{where}: expected `axes` to name each of the {len(shape)} axes of shape "
            f"{tuple(shape)} once, Y and X among them (T time, Z plane, C channel, S "
            f"colour sample), got {axes!r}."
        )
    return letters


def select(
    axes: str,
    shape: Sequence[int],
    *,
    where: str,
    plane: int | None = None,
    time: int | None = None,
    samples: Samples | None = None,
) -> Selection:
    """Choose one plane of an array.

    Parameters
    ----------
    axes : str
        One letter an axis.
    shape : sequence of int
        Length of each.
    where : str
        Name of the image, for messages.
    plane, time : int, optional
        0-based index along the stack axis (Z, or whatever single axis there is) and
        along T where there is a Z axis too.
    samples : Samples, optional
        What the S axis holds, where the file says so.

    Returns
    -------
    Selection
        With every stack axis fixed.

    Raises
    ------
    ImageFileError
        For axes of length 0, an impossible number of samples or both C and S.
    SettingsError
        For a missing, superfluous or impossible `plane` or `time`.

    Examples
    --------
    >>> chosen = select("ZCYX", (6, 2, 64, 32), where="stack", plane=3)
    >>> chosen.fixed, chosen.n_channels, chosen.meaning
    ((3, None, None, None), 2, 'channels')
    """
    shape = tuple(int(n) for n in shape)
    if 0 in shape:
        raise ImageFileError(
            f"{where}: expected an image with pixels, got shape {shape} ({axes}), "
            "which has a side of length 0. Export the image again."
        )
    fixed: list[int | None] = [
        None if letter in "YX" or (letter in "CS" and n > 1) else 0
        for letter, n in zip(axes, shape, strict=True)
    ]
    n_channels, meaning, notes = _channels(axes, shape, samples, where)
    stacks = [i for i, a in enumerate(axes) if a not in "YXCS" and shape[i] > 1]
    chosen = _stack_choice(axes, shape, stacks, where, plane=plane, time=time)
    for i, at in chosen.items():
        fixed[i] = at
    by_name = {_argument(axes, stacks, i): at for i, at in chosen.items()}
    return Selection(
        axes=axes,
        shape=shape,
        fixed=tuple(fixed),
        n_channels=n_channels,
        meaning=meaning,
        plane=by_name.get("plane"),
        time=by_name.get("time"),
        notes=notes,
    )


def _channels(
    axes: str, shape: tuple[int, ...], samples: Samples | None, where: str
) -> tuple[int, Meaning, tuple[str, ...]]:
    length = dict(zip(axes, shape, strict=True))
    n_c, n_s = length.get("C", 1), length.get("S", 1)
    if n_c > 1 and n_s > 1:
        raise ImageFileError(
            f"{where}: expected channels or colours, got {n_c} channels of {n_s} "
            f"colour samples each (axes {axes}, shape {shape}). Save one channel, or "
            "merge them into one colour image."
        )
    if n_s == 1:
        return n_c, "grey" if n_c == 1 else "channels", ()
    if samples is None:
        if n_s > 4:
            raise ImageFileError(
                f"{where}: expected 1 to 4 samples of a colour (grey, grey + alpha, "
                f"RGB, RGBA), got {n_s}. If these are channels, say so: axes="
                f"{axes.replace('S', 'C')!r}."
            )
        samples = Samples({2: 1, 3: 3, 4: 3}[n_s], n_s > 2)
    notes = (_ALPHA_NOTE,) if samples.kept < n_s else ()
    if samples.is_rgb:
        return samples.kept, "rgb", notes
    return samples.kept, "grey" if samples.kept == 1 else "channels", notes


def _argument(axes: str, stacks: list[int], i: int) -> str:
    # One stack axis is chosen by `plane` whatever it is called: a series of images
    # over time is a stack to whoever types --plane. With a second, T is `time`.
    return "time" if len(stacks) > 1 and axes[i] == "T" else "plane"


def _stack_choice(
    axes: str,
    shape: tuple[int, ...],
    stacks: list[int],
    where: str,
    *,
    plane: int | None,
    time: int | None,
) -> dict[int, int]:
    wanted = {"plane": plane, "time": time}
    if len(stacks) == 1 and axes[stacks[0]] == "T" and plane is None:
        wanted = {"plane": time, "time": None}
    names = [_argument(axes, stacks, i) for i in stacks]
    if len(set(names)) < len(names):
        spans = ", ".join(f"{axes[i]} of {shape[i]}" for i in stacks)
        raise ImageFileError(
            f"{where}: expected at most one stack axis beside time, got {spans} (axes "
            f"{axes}, shape {shape}). Save one of them at a time."
        )
    chosen = {}
    for i, name in zip(stacks, names, strict=True):
        what = f"axis {axes[i]} of length {shape[i]} (axes {axes}, shape {shape})"
        chosen[i] = _position(wanted.pop(name), shape[i], name, f"{where}: {what}")
    for name, value in wanted.items():
        if value is not None:
            one = _AXIS_NAMES["T" if name == "time" else "Z"]
            _position(value, 1, name, f"{where}: no stack of {one} (shape {shape})")
    return chosen


def _position(value: int | None, length: int, name: str, what: str) -> int:
    if value is None:
        raise SettingsError(
            f"{what} needs a choice: expected `{name}` from 0 to {length - 1}, got "
            "None."
        )
    try:
        position = operator.index(value)
    except TypeError:
        position = -1
    if isinstance(value, bool) or not 0 <= position < length:
        span = f"from 0 to {length - 1}" if length > 1 else "0 or left out"
        raise SettingsError(f"{what}: expected `{name}` {span}, got {value!r}.")
    return position
