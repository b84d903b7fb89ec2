"""The list of cures of position, with what each costs.

What there is and how it is spelt is known to `_workspace`; a spec comes in, and a spec
with another cure goes out.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal

from napari_alibi_seg._widgets._controls import Choice
from napari_alibi_seg._workspace import (
    CURE_OFFERS,
    cured_spec,
    described_cure,
    split_cure,
)

if TYPE_CHECKING:
    from qtpy.QtWidgets import QWidget

__all__ = ["CureChoice"]

# Among words of a spec; a file has to follow it.
_DENOISER = "denoise="


class CureChoice(Choice):
    """A list of cures.

    Parameters
    ----------
    ask_denoiser : callable
        (parent) -> Path or None.

    Attributes
    ----------
    spec_picked : Signal(str)
        The spec of the backbone with the cure that the user picked.
    """

    spec_picked = Signal(str)

    def __init__(self, ask_denoiser: Callable[[QWidget], Path | None]) -> None:
        self._ask_denoiser = ask_denoiser
        self._base, self._words = "", ""
        super().__init__(
            "Take out of the features what tells where in the frame a pixel lies. "
            "Averages leave least of it and cost most"
        )
        self.picked.connect(self._cure_picked)

    @property
    def cost(self) -> str:
        """What the chosen cure takes, as words; empty without one."""
        if not self._words:
            return ""
        return described_cure(cured_spec(self._base, self._words)).cost

    def show_spec(self, spec: str | None) -> None:
        """Show the cure of a backbone, None if there is no backbone; tells nobody."""
        self._base, self._words = ("", "") if spec is None else split_cure(spec)
        rows = [(offer.words, offer.text) for offer in CURE_OFFERS]
        if self._words not in (words for words, _ in rows):
            rows.append((self._words, described_cure(spec or "").text))
        self.fill([*rows, (_DENOISER, "DVT denoiser from a file...")])
        self.choose(self._words)
        self.setEnabled(spec is not None)

    def _cure_picked(self, words: str) -> None:
        # not timed: how long a dialog is open is the user's affair
        if words != _DENOISER:
            self.spec_picked.emit(cured_spec(self._base, words))
            return
        self.choose(self._words)
        path = self._ask_denoiser(self)
        if path is not None:
            self.spec_picked.emit(cured_spec(self._base, f"{_DENOISER}{path}"))
