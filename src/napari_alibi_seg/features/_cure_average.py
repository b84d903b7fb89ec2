"""The cures that average over copies of an image: content moves, position stays.

Only this module knows how copies are turned, mirrored or shifted, and how their maps
are put back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_alibi_seg._base import Backbone

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Average", "Roll"]


class Average:
    """Mean over mirrored and turned copies, each map put back before."""

    def __init__(self, copies: int) -> None:
        if copies not in (4, 8):
            raise ValueError(copies)
        turns = [(k, flip) for flip in (False, True) for k in range(4)]
        # the published four: as it is, mirrored left-right, upside down, turned once
        four = [(0, False), (0, True), (2, True), (1, False)]
        self._ways = four if copies == 4 else turns
        self.record = {"kind": "average", "copies": copies}

    def __call__(self, inner: Backbone, images: Tensor) -> Tensor:
        total: Tensor | None = None
        for turns, is_mirrored in self._ways:
            seen = images.flip(3) if is_mirrored else images
            tokens = inner.patch_features(seen.rot90(turns, (2, 3)).contiguous())
            back = tokens.rot90(-turns, (2, 3))
            back = back.flip(3) if is_mirrored else back
            total = back if total is None else total + back
        assert total is not None
        return (total / len(self._ways)).contiguous()


class Roll:
    """Mean over copies shifted around by whole patches, each map shifted back."""

    def __init__(self, copies: int) -> None:
        if copies < 1:
            raise ValueError(copies)
        self._copies = copies
        self.record = {"kind": "roll", "copies": copies}

    def __call__(self, inner: Backbone, images: Tensor) -> Tensor:
        patch, n = inner.patch_size, self._copies
        h, w = (side // patch for side in images.shape[2:])
        # along the diagonal: every row and column offset occurs once
        shifts = sorted({(k * h // n, k * w // n) for k in range(n)})
        total: Tensor | None = None
        for dy, dx in shifts:
            seen = images.roll((dy * patch, dx * patch), (2, 3))
            back = inner.patch_features(seen).roll((-dy, -dx), (2, 3))
            total = back if total is None else total + back
        assert total is not None
        return total / len(shifts)
