"""Jobs that measure how much position is in the features, and what cures are offered.

Whoever wants to know more of a cure than its name and price looks into `features`; what
is measured, and how much is much, is `analysis`'s. Here the backbone that is chosen and
the image on show are brought together with both.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from napari_alibi_seg._base import Backbone, SettingsError
from napari_alibi_seg._workspace._desk import Desk
from napari_alibi_seg._workspace._images import OpenImage
from napari_alibi_seg._workspace._requests import DockSettings
from napari_alibi_seg.analysis import (
    PositionCheck,
    PositionReport,
    crop_side,
    draw_crops,
    iter_position_check,
    iter_position_report,
)
from napari_alibi_seg.features import CureStep, split_spec

__all__ = [
    "CURE_OFFERS",
    "CureOffer",
    "Measuring",
    "PositionJobs",
    "cured_spec",
    "described_cure",
    "split_cure",
    "with_backbone",
]

# More make the number surer, fewer the wait shorter; below 12 it is rough.
_N_CROPS = 16
# Nobody asked for the first look: with a cure that takes more it is left out.
_MOST_PASSES = 16
_NO_VIT = (
    "Expected features of a ViT, got classical ones: these do the same at every pixel "
    "and have no position. Choose a ViT to measure it."
)


@dataclass(frozen=True, slots=True)
class CureOffer:
    """A cure that a list offers.

    Attributes
    ----------
    words : str
        As a spec writes them, without the plus; empty for none.
    title : str
        What is done.
    cost : str
        What it takes.
    """

    words: str
    title: str
    cost: str

    @property
    def text(self) -> str:
        """Title and cost.

        Examples
        --------
        >>> CURE_OFFERS[3].text
        'Average of 4 turned copies (4 passes a tile)'
        """
        return f"{self.title} ({self.cost})"


def _passes(steps: tuple[CureStep, ...]) -> int:
    return math.prod(step.passes for step in steps)


def _cost(steps: tuple[CureStep, ...]) -> str:
    """Return what cures take, in words."""
    n = _passes(steps)
    passes = "1 pass a tile" if n == 1 else f"{n} passes a tile"
    has_field = any(step.kind == "field" for step in steps)
    return f"{passes} and a fit: minutes" if has_field else passes


def _offer(title: str, *steps: CureStep) -> CureOffer:
    return CureOffer("+".join(map(str, steps)), title, _cost(steps))


CURE_OFFERS: tuple[CureOffer, ...] = (
    _offer("None"),
    _offer("Blank positional channels", CureStep("blank")),
    _offer("Project out what a blank image shows", CureStep("svd", 16)),
    _offer("Average of 4 turned copies", CureStep("average", 4)),
    _offer("Average of 8 turned copies", CureStep("average", 8)),
    _offer("Average of 4 rolled copies", CureStep("roll", 4)),
    _offer("DVT field, fitted to each tile", CureStep("field", "small")),
)


def split_cure(spec: str) -> tuple[str, str]:
    """Return the backbone of a spec, and its cures in full as words.

    Examples
    --------
    >>> split_cure("alibi-tiny+roll")
    ('alibi-tiny', 'roll=4')
    >>> split_cure("alibi-tiny")
    ('alibi-tiny', '')
    """
    steps = _steps(spec)
    base = split_spec(spec)[0] if steps else spec
    return base, "+".join(map(str, steps))


def _steps(spec: str) -> tuple[CureStep, ...]:
    try:
        return split_spec(spec)[1]
    except SettingsError:
        return ()  # whoever loads it says what is wrong with it


def cured_spec(base: str, words: str) -> str:
    """Return the spec of a backbone with cures.

    Examples
    --------
    >>> cured_spec("alibi-tiny", "roll=4"), cured_spec("alibi-tiny", "")
    ('alibi-tiny+roll=4', 'alibi-tiny')
    """
    return f"{base}+{words}" if words else base


def with_backbone(spec: str | None, base: str) -> str:
    """Return the spec of another backbone, with the cure of the one before.

    Channels and denoisers belong to one backbone and are left out.

    Examples
    --------
    >>> with_backbone("alibi-tiny+roll", "dinov2-s")
    'dinov2-s+roll=4'
    >>> with_backbone("alibi-tiny+blank=3,4", "dinov2-s")
    'dinov2-s'
    """
    _, words = split_cure(spec or "")
    is_general = any(offer.words == words for offer in CURE_OFFERS)
    return cured_spec(base, words if is_general else "")


def described_cure(spec: str) -> CureOffer:
    """Return the cures of a spec as a list shows them, offered or not.

    Examples
    --------
    >>> described_cure("vit.pth+denoise=run/mine.pth").text
    'Denoiser mine.pth (1 pass a tile)'
    >>> described_cure("alibi-tiny+roll=8+svd").text
    'roll=8+svd=16 (8 passes a tile)'
    """
    _, words = split_cure(spec)
    for offer in CURE_OFFERS:
        if offer.words == words:
            return offer
    steps = _steps(spec)
    if len(steps) == 1 and steps[0].kind == "denoise":
        return CureOffer(
            words, f"Denoiser {Path(str(steps[0].value)).name}", _cost(steps)
        )
    return CureOffer(words, words, _cost(steps))


@dataclass(frozen=True, slots=True, eq=False)
class Measuring:
    """Progress of a measurement; the last one has the report.

    Attributes
    ----------
    done, total : int
        Steps, about as long as each other; a `total` of 0: not known yet.
    seconds_left : float or None
        At the speed so far.
    text : str
        What is done now.
    report : PositionReport or None
        With the last one.
    """

    done: int
    total: int
    seconds_left: float | None
    text: str
    report: PositionReport | None = None


class PositionJobs(Desk):
    """The jobs about position."""

    def iter_position(self, image: OpenImage) -> Iterator[Measuring]:
        """Measure the position in the chosen backbone's features, on crops of an image.

        Features that are stored are neither needed nor used: the crops are shown to
        the backbone as they are, turned and rolled.
        """
        settings = self.settings
        yield Measuring(0, 0, None, "Loading the backbone ...")
        backbone = self._measured_backbone(settings)
        yield Measuring(0, 0, None, "Drawing crops ...")
        crops = draw_crops(
            [image.source],
            n_crops=_N_CROPS,
            side_px=crop_side([image.source], backbone.patch_size),
            channels=settings.channels,
        )
        started = time.monotonic()
        for step in iter_position_report(backbone, crops):
            if step.result is not None:
                yield Measuring(step.done, step.total, 0.0, "", step.result)
            elif step.stage == "features":
                speed = (time.monotonic() - started) / step.done
                left = speed * (step.total - step.done)
                text = f"Features of {len(crops)} crops of {crops.side_px} px"
                yield Measuring(step.done, step.total, left, text)
            else:
                yield Measuring(0, 0, None, "Reading position from the features ...")

    def iter_check_position(self) -> Iterator[PositionCheck | None]:
        """Look once at the chosen backbone; None is a place to stop.

        What was found is kept as long as the dock is open. Nothing is found where the
        cure takes so many passes that the look would be a burden.
        """
        if _passes(_steps(self.settings.backbone or "")) > _MOST_PASSES:
            return
        backbone = self._measured_backbone(self.settings)
        key = json.dumps(backbone.identity, sort_keys=True, default=str)
        if key not in self._checked:
            for found in iter_position_check(backbone):
                yield None
                if found is not None:
                    self._checked[key] = found
        yield self._checked[key]

    def _measured_backbone(self, settings: DockSettings) -> Backbone:
        name = settings.segmenter_backbone()
        if name is None:
            raise SettingsError(_NO_VIT)
        backbone: Backbone = self._backbone(name, settings.device)
        return backbone
