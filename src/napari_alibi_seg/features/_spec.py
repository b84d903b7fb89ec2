"""The words that say which cures of position bias a backbone gets.

``NAME+CURE[=VALUE]+CURE...`` stands wherever a backbone's name or weights file does:
``dinov2-s-reg+blank``, ``vit.safetensors+roll=8``. Only this module knows the grammar
and the words; what a cure does is in `_cures`. No torch.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from napari_alibi_seg._base import SettingsError
from napari_alibi_seg.features._registry import list_backbones

__all__ = [
    "CURES",
    "CureKind",
    "CureStep",
    "cure_help",
    "located_spec",
    "spec_files",
    "split_spec",
]

CureKind: TypeAlias = Literal[
    "blank",
    "svd",
    "average",
    "roll",
    "denoise",
    "field",
    "nope",
    "sinusoid",
    "alibi",
]


@dataclass(frozen=True, slots=True)
class _Word:
    """What may follow a cure's name, and what it does, for a message."""

    value: str
    what: str
    default: Any
    parse: Callable[[str], Any]


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _channels(text: str) -> tuple[int, ...]:
    return tuple(sorted({int(part) for part in text.split(",")}))


def _one_of(*allowed: Any) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        return next(v for v in allowed if str(v) == text)

    return parse


def _nothing(text: str) -> None:
    raise ValueError(text)


_SWAP = "position {}; the weights never learned it (ablation, not distilled)"
CURES: dict[CureKind, _Word] = {
    "blank": _Word(
        "[=N,N,...]",
        "channels set to 0: the numbers given, those known for the backbone, or those "
        "a probe finds",
        None,
        _channels,
    ),
    "svd": _Word(
        "[=RANK]",
        "directions that differ over a blank image taken out (default 16)",
        16,
        _positive,
    ),
    "average": _Word(
        "[=4|8]",
        "mean over 8 mirrored and turned copies, or the 4 of the paper",
        8,
        _one_of(4, 8),
    ),
    "roll": _Word(
        "[=N]", "mean over N copies shifted around (default 4)", 4, _positive
    ),
    "denoise": _Word("=FILE", "DVT's trained denoiser", None, str),
    "field": _Word(
        "[=small|medium|paper]",
        "DVT's field, fitted to every tile anew (minutes a tile)",
        "small",
        _one_of("small", "medium", "paper"),
    ),
    "nope": _Word("", _SWAP.format("dropped"), None, _nothing),
    "sinusoid": _Word("", _SWAP.format("table replaced by waves"), None, _nothing),
    "alibi": _Word("", _SWAP.format("replaced by ALiBi"), None, _nothing),
}
# Crops of DVT's field, beside the whole image; `FIELD_PRESETS` has all of a preset.
_FIELD_VIEWS = {"small": 48, "medium": 192, "paper": 768}
_SPLIT = re.compile(r"\+(?=(?:" + "|".join(CURES) + r")(?:=|\+|$))")


@dataclass(frozen=True, slots=True)
class CureStep:
    """One cure, as words say it.

    Attributes
    ----------
    kind : str
        A key of `CURES`.
    value : int, str, tuple of int or None
        What stood after ``=``, or the default.

    Examples
    --------
    >>> str(CureStep("blank", (47, 117)))
    'blank=47,117'
    """

    kind: CureKind
    value: Any = None

    @property
    def passes(self) -> int:
        """Forward passes a tile, instead of one; a field has to be fitted as well.

        Examples
        --------
        >>> CureStep("average", 8).passes, CureStep("svd", 16).passes
        (8, 1)
        """
        if self.kind in ("average", "roll"):
            return int(self.value)
        return 1 + _FIELD_VIEWS[self.value] if self.kind == "field" else 1

    def __str__(self) -> str:
        if self.value is None:
            return self.kind
        if isinstance(self.value, tuple):
            return f"{self.kind}={','.join(map(str, self.value))}"
        return f"{self.kind}={self.value}"


def cure_help() -> str:
    """Return one line: all cures with what may follow them.

    Examples
    --------
    >>> cure_help()[:31]
    '+blank[=N,N,...] (channels set '
    """
    return "; ".join(f"+{k}{w.value} ({w.what})" for k, w in CURES.items())


def split_spec(text: str | Path) -> tuple[str, tuple[CureStep, ...]]:
    """Return the backbone and the cures that a spec names.

    Parameters
    ----------
    text : str or Path
        A path, or a file that is there, has no cures.

    Returns
    -------
    str, tuple of CureStep
        Cures in the order in which they are applied.

    Raises
    ------
    SettingsError
        If a cure has a value that it does not take, or there is no such cure.

    Examples
    --------
    >>> split_spec("dinov2-s+roll=8+svd")
    ('dinov2-s', (CureStep(kind='roll', value=8), CureStep(kind='svd', value=16)))
    """
    if isinstance(text, Path) or Path(text).is_file():
        return str(text), ()
    base, *words = _SPLIT.split(text)
    if not words:
        _refuse_unknown(base)
    return base, tuple(_step(word, text) for word in words)


def _refuse_unknown(name: str) -> None:
    """Raise if something after the name of a backbone was meant as a cure."""
    stem, plus, word = name.partition("+")
    known = {spec.name for spec in list_backbones()}
    if plus and (stem in known or Path(stem).is_file()):
        _unknown(word.partition("=")[0], name)


def _unknown(word: str, text: str) -> None:
    near = difflib.get_close_matches(word, [*CURES], n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise SettingsError(
        f"There is no cure called {word!r} in {text!r}.{hint} There are: {cure_help()}."
    )


def _step(word: str, text: str) -> CureStep:
    name, has_value, value = word.partition("=")
    kind: Any = name
    known = CURES[kind]
    if not has_value:
        if kind == "denoise":
            raise SettingsError(
                f"`+denoise` in {text!r} needs the file of a denoiser: "
                "+denoise=FILE.pth."
            )
        return CureStep(kind, known.default)
    if "+" in value and kind != "denoise":
        _unknown(value.partition("+")[2].partition("=")[0], text)
    try:
        return CureStep(kind, known.parse(value))
    except (ValueError, StopIteration) as err:
        raise SettingsError(
            f"`+{kind}` in {text!r} is written +{kind}{known.value} ({known.what}), "
            f"got {value!r}."
        ) from err


def located_spec(text: str | Path) -> str | None:
    """Return a spec whose weights file has its whole path; None without a file.

    What a classifier remembers as the place of its weights.

    Examples
    --------
    >>> located_spec("dinov2-s+roll") is None
    True
    """
    base, steps = split_spec(text)
    if not Path(base).is_file():
        return None
    located = [
        CureStep(s.kind, Path(s.value).resolve()) if s.kind == "denoise" else s
        for s in steps
    ]
    return "+".join([str(Path(base).resolve()), *map(str, located)])


def spec_files(text: str | Path) -> tuple[Path | None, Path | None]:
    """Return the weights file and the denoiser that a spec names, if it names files.

    Examples
    --------
    >>> spec_files("dinov2-s+denoise=mine.pth")[1].name
    'mine.pth'
    """
    base, steps = split_spec(text)
    denoiser = next((Path(s.value) for s in steps if s.kind == "denoise"), None)
    return (Path(base) if Path(base).is_file() else None), denoiser
