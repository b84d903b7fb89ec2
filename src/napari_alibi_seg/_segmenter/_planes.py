"""The planes of an image: along Z, in time, or both.

Only this module knows how planes are counted: a *position* counts through the planes of
the first point in time, then of the second, and so on. Where there is one stack axis, a
position is the plane. It also knows which planes are neighbours along Z: never those of
another point in time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from napari_alibi_seg._base import SettingsError
from napari_alibi_seg.data import ImageSource, open_image

__all__ = ["Planes", "count_planes"]

_CUT_SIGMAS = 3.0


@dataclass(frozen=True)
class Planes:
    """Which planes an image has, and how each is opened; made by `Planes.of`.

    Attributes
    ----------
    image : path, array or ImageSource
        The image.
    first : ImageSource
        Its first plane.
    n_times, n_planes : int or None
        Lengths of the axes; None where there is no such axis, or one point in time was
        chosen. `n_planes` is along Z, or whatever stack axis there is beside time.
    time : int or None
        The only point in time that counts.

    Examples
    --------
    >>> import numpy as np
    >>> planes = Planes.of(open_image(np.zeros((4, 4))))
    >>> len(planes), planes.at(0)
    (1, (None, None))
    """

    image: Any
    first: ImageSource
    n_times: int | None = None
    n_planes: int | None = None
    time: int | None = None

    @classmethod
    def of(cls, image: Any, time: int | None = None) -> Planes:
        """Look at an image; with `time`, at one point in time of it.

        Raises
        ------
        ImageFileError
            If it cannot be read, or has more than one stack axis beside time.
        SettingsError
            If there is no such point in time.
        """
        if isinstance(image, ImageSource):
            return cls(image, open_image(image, time=time))
        # where there is no such axis, 0 is no choice
        first = open_image(image, plane=0, time=0)
        lengths = zip(first.axes, first.file_shape, strict=True)
        stacks = {("T" if a == "T" else "Z"): n for a, n in lengths if _is_stack(a, n)}
        n_times, n_planes = stacks.get("T"), stacks.get("Z")
        if time is not None:
            at = None if n_planes is None else 0
            first, n_times = open_image(image, plane=at, time=time), None
        return cls(image, first, n_times, n_planes, time)

    def __len__(self) -> int:
        """Return how many planes there are in all."""
        return (self.n_times or 1) * (self.n_planes or 1)

    def at(self, position: int) -> tuple[int | None, int | None]:
        """Return point in time and plane along Z, None where there is no such axis."""
        time, plane = divmod(position, self.n_planes or 1)
        return (
            self.time if self.n_times is None else time,
            None if self.n_planes is None else plane,
        )

    def open(self, position: int) -> ImageSource:
        """Open a plane."""
        if isinstance(self.image, ImageSource):
            return self.image
        time, plane = self.at(position)
        return open_image(self.image, plane=plane, time=time)

    def named(self, position: int) -> str:
        """Return what to call a plane in messages.

        Examples
        --------
        >>> import numpy as np
        >>> Planes.of(np.zeros((3, 8, 8), np.uint16)).named(2)
        'plane 2'
        """
        time, plane = self.at(position)
        parts = [("time", time), ("plane", plane)]
        return ", ".join(f"{name} {n}" for name, n in parts if n is not None)

    def weights(self, position: int, sigma: float) -> dict[int, float]:
        """Return the weight of every plane that a smoothed one depends on.

        A Gaussian of `sigma` planes, cut off at three sigma and scaled to a sum of one
        where the stack ends, so that it depends on the stack alone; 0 is no smoothing.

        Examples
        --------
        >>> import numpy as np
        >>> planes = Planes.of(np.zeros((5, 8, 8), np.uint16))
        >>> {z: round(w, 3) for z, w in planes.weights(0, 0.5).items()}
        {0: 0.881, 1: 0.119}
        """
        n = self.n_planes or 1
        if not sigma:
            return {position: 1.0}
        time, plane = divmod(position, n)
        reach = math.floor(_CUT_SIGMAS * sigma)
        near = range(max(0, plane - reach), min(n, plane + reach + 1))
        found = [math.exp(-0.5 * ((z - plane) / sigma) ** 2) for z in near]
        total = sum(found)
        return {time * n + z: w / total for z, w in zip(near, found, strict=True)}

    def check_smoothing(self, sigma: float) -> None:
        """Refuse to smooth along Z what has planes in time alone.

        Raises
        ------
        SettingsError
            For such an image, or a sigma that is negative or not finite.
        """
        if not (math.isfinite(sigma) and sigma >= 0):
            raise SettingsError(
                f"`z_smooth` must be 0 or a positive number of planes, got {sigma!r}."
            )
        if sigma and self.n_times is not None and self.n_planes is None:
            raise SettingsError(
                f"{self.first.name}: smoothing is along Z, but this is a time series "
                f"without Z (axes {self.first.axes}, shape {self.first.file_shape}). "
                f"Leave `z_smooth` out, or name the axes if it is a stack."
            )


def _is_stack(letter: str, length: int) -> bool:
    return letter not in "YXCS" and length > 1


def count_planes(image: Any) -> int:
    """Return how many planes an image has, over all points in time.

    Parameters
    ----------
    image : path, array or ImageSource
        The image; an `ImageSource` is one plane already.

    Raises
    ------
    ImageFileError
        If it cannot be read, or has more than one stack axis beside time.

    Examples
    --------
    >>> import numpy as np
    >>> count_planes(np.zeros((7, 32, 32), np.uint16)), count_planes(np.zeros((32, 32)))
    (7, 1)
    """
    return len(Planes.of(image))
