"""What a segmenter freezes with the first image it sees, and what it then is.

A `Frozen` makes later images comparable with the training images: resolved channels,
numeric working scale, intensity range. Together with a projection and a classifier it
is all that a `.alibiseg` file holds.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from typing import Any

from napari_alibi_seg._base import FeatureSettings, SettingsError
from napari_alibi_seg.data import (
    ImageSource,
    IntensityRange,
    TokenGrid,
    WorkingImage,
    measure_range,
    resolve_channels,
)

__all__ = ["ClassInfo", "Frozen", "class_colour", "class_infos"]

# Measured with a small ALiBi student: below this size twice the pixels gain 0.05 mIoU.
_ENLARGE_BELOW_PX = 900_000
_PLAIN_HALO_TOKENS = 4
# Told apart by colour-blind readers too (Okabe and Ito 2008); hues by the golden angle
# for ids beyond.
_OKABE_ITO = (
    *("#0072b2", "#e69f00", "#009e73", "#cc79a7"),
    *("#56b4e9", "#d55e00", "#f0e442"),
)


@dataclass(frozen=True, slots=True)
class Frozen:
    """Decisions taken on the first image and kept for all others.

    Attributes
    ----------
    channels : "grey", "rgb" or tuple of int
        Resolved.
    scale : float
        Working scale.
    intensity : IntensityRange
        Of the first image; used for all images unless normalisation is "image".
    """

    channels: Any
    scale: float
    intensity: IntensityRange

    @classmethod
    def of(cls, source: ImageSource, settings: FeatureSettings) -> Frozen:
        """Take the decisions on one image."""
        channels = resolve_channels(source, settings.channels)
        scale = settings.scale
        if isinstance(scale, str):
            scale = (
                2.0 if source.shape[0] * source.shape[1] < _ENLARGE_BELOW_PX else 1.0
            )
        return cls(
            channels, scale, measure_range(source, channels, settings.percentiles)
        )

    def view(self, source: ImageSource, settings: FeatureSettings) -> WorkingImage:
        """Return an image as the features see it.

        Raises
        ------
        SettingsError
            If the image lacks the channels of the first one.
        """
        try:
            resolve_channels(source, self.channels)
        except SettingsError as err:
            raise SettingsError(
                f"{source.name!r} does not have the channels of the training image "
                f"({self.channels!r}). {err}"
            ) from err
        if settings.normalisation == "image":
            own = measure_range(source, self.channels, settings.percentiles)
            return WorkingImage(source, self.channels, own)
        return WorkingImage(source, self.channels, self.intensity)

    @property
    def n_channels(self) -> int:
        """Working channels."""
        if isinstance(self.channels, tuple):
            return len(self.channels)
        return 3 if self.channels == "rgb" else 1

    def grid(
        self, shape: tuple[int, int], settings: FeatureSettings, backbone: Any
    ) -> TokenGrid:
        """Return the token geometry of an image for a backbone."""
        halo = settings.halo_tokens
        if halo is None:
            halo = _PLAIN_HALO_TOKENS if backbone.alibi is None else 0
        return TokenGrid(
            shape,
            patch_px=backbone.patch_size,
            tile_px=settings.tile_px,
            halo_tokens=halo,
            scale=self.scale,
            density=settings.density,
        )


@dataclass(frozen=True, slots=True)
class ClassInfo:
    """Name and colour of a class.

    Attributes
    ----------
    name : str
        As the user calls it.
    colour : str
        ``#rrggbb``.
    """

    name: str
    colour: str


def class_infos(
    ids: tuple[int, ...], names: dict[int, str] | None, known: dict[int, ClassInfo]
) -> dict[int, ClassInfo]:
    """Return name and colour for every id, keeping those already known."""
    unknown = sorted(set(names or {}) - set(ids))
    if unknown:
        raise SettingsError(
            f"`class_names` names the ids {unknown}, which nobody painted; painted "
            f"are {list(ids)}."
        )
    out = {}
    for i in ids:
        before = known.get(i, ClassInfo(f"class {i}", class_colour(i)))
        out[i] = ClassInfo((names or {}).get(i, before.name), before.colour)
    return out


def class_colour(class_id: int) -> str:
    """Return the default colour of a class, far from those of neighbouring ids.

    Parameters
    ----------
    class_id : int
        From 1 up. The first seven are told apart by colour-blind readers too.

    Returns
    -------
    str
        ``#rrggbb``.

    Raises
    ------
    SettingsError
        If the id is not positive.

    Examples
    --------
    >>> class_colour(1), class_colour(8)
    ('#0072b2', '#8ce639')
    """
    if class_id < 1:
        raise SettingsError(
            f"`class_id` must be 1 or more (0 is unlabelled), got {class_id!r}."
        )
    if class_id <= len(_OKABE_ITO):
        return _OKABE_ITO[class_id - 1]
    hue = (0.58 + 0.381966 * (class_id - 1)) % 1.0
    rgb = colorsys.hsv_to_rgb(hue, 0.75, 0.9)
    return "#" + "".join(f"{round(255 * v):02x}" for v in rgb)
