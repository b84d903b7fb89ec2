"""What the panel about features is told of a named backbone, and how it says it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BackboneRow"]


@dataclass(frozen=True, slots=True)
class BackboneRow:
    """What is told of a named backbone.

    Attributes
    ----------
    name, title : str
        As settings name it, and as the list shows it.
    licence : str
        Of the weights.
    size_mb : int or None
        Of the download, where it is known.
    is_here : bool
        Whether the weights are on this computer.
    is_downloadable : bool
        Whether they can be fetched.

    Examples
    --------
    >>> BackboneRow("dinov2-s", "DINOv2-S/14", "Apache-2.0", 88, True, True).text
    'Licence: Apache-2.0. Size: 88 MB. Its weights are here.'
    """

    name: str
    title: str
    licence: str
    size_mb: int | None
    is_here: bool
    is_downloadable: bool

    @property
    def text(self) -> str:
        """Licence, size, and where the weights are, in words."""
        size = "" if self.size_mb is None else f" Size: {self.size_mb:,} MB."
        if self.is_here:
            where = "Its weights are here."
        elif self.is_downloadable:
            where = "Its weights are not here: download them, or use a file."
        else:
            where = "Its weights are not here, and it takes a file to get them."
        return f"Licence: {self.licence}.{size} {where}"
