"""The fields of a classifier file's JSON document.

Only this module knows the schema: which fields there are, which must be resolved
before a classifier can be kept, and what a name or a colour may look like. Unknown
fields are refused, so that a typo or a foreign file is noticed. How the document is
stored and checked against the arrays is in `_file`.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    field_validator,
    model_validator,
)

from napari_alibi_seg._base import (
    AlibiSegError,
    ClassifierSettings,
    FeatureSettings,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "OWN_KEYS",
    "ClassRecord",
    "ClassifierHeader",
    "FeatureRecord",
    "checked_header",
]

FORMAT = "napari-alibi-seg classifier"
FORMAT_VERSION = 1
# Written by `_file`, on top of the fields below.
OWN_KEYS = ("format", "format_version", "arrays", "sha256")

# Also marks that turn the direction of writing, and with it the order of letters.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ClassRecord(_Record):
    """A class as the user sees it.

    Attributes
    ----------
    id : int
        As painted, 1 to 2**32 - 1.
    name : str
        At most 200 characters, none of them a control character.
    colour : str
        ``"#rrggbb"``, lower case.

    Examples
    --------
    >>> ClassRecord(id=3, name="γ′ phase", colour="#2ca02c").id
    3
    """

    id: int = Field(ge=1, le=2**32 - 1)
    name: str = Field(max_length=200)
    colour: str = Field(pattern=r"^#[0-9a-f]{6}$")

    @field_validator("name")
    @classmethod
    def _printable(cls, value: str) -> str:
        if _CONTROL.search(value):
            raise ValueError("must not hold control characters")
        return value


class FeatureRecord(_Record):
    """What was computed for a pixel, nothing left to be decided.

    Attributes
    ----------
    settings : FeatureSettings
        With a number for `scale`.
    intensity : list of (low, high), optional
        Values mapped to 0 and 1, for each channel; None where each image is measured
        by itself.
    n_features : int
        Features of a pixel.
    names : list of str
        Their names, if known.
    details : dict
        JSON values that only the code that computed the features understands.

    Examples
    --------
    >>> FeatureRecord(settings=FeatureSettings(scale=2.0), n_features=24).intensity
    """

    settings: FeatureSettings
    intensity: list[tuple[_Finite, _Finite]] | None = None
    n_features: int = Field(ge=1, le=1_000_000)
    names: list[str] = []
    details: dict[str, JsonValue] = {}

    @model_validator(mode="after")
    def _resolved(self) -> FeatureRecord:
        if isinstance(self.settings.scale, str):
            raise ValueError("`settings.scale` must be resolved to a number")
        if self.names and len(self.names) != self.n_features:
            raise ValueError(
                f"`names` must have {self.n_features} entries, got {len(self.names)}"
            )
        if any(low >= high for low, high in self.intensity or []):
            raise ValueError("`intensity` must be pairs of rising values")
        return self


class ClassifierHeader(_Record):
    """All that a classifier file says beside its arrays.

    Attributes
    ----------
    versions : dict of str to str
        Packages that made the file.
    backbone : dict or None
        `Backbone.identity`: name, hash of the weights, ALiBi settings, denoiser.
    features : FeatureRecord
        Features, as resolved at training.
    classifier : ClassifierSettings
        Kind of classifier and how it decides.
    classes : list of ClassRecord
        By ascending id.
    training : dict
        `PixelClassifier.summary` and what else describes the training. JSON.

    Examples
    --------
    >>> sorted(ClassifierHeader.model_fields)
    ['backbone', 'classes', 'classifier', 'features', 'training', 'versions']
    """

    versions: dict[str, str]
    backbone: dict[str, JsonValue] | None
    features: FeatureRecord
    classifier: ClassifierSettings
    classes: list[ClassRecord] = Field(min_length=2, max_length=65535)
    training: dict[str, JsonValue]

    @model_validator(mode="after")
    def _consistent(self) -> ClassifierHeader:
        ids = [c.id for c in self.classes]
        if any(a >= b for a, b in pairwise(ids)):
            raise ValueError(
                "`classes` must be ascending by id without repeats, got the ids "
                f"{ids[:20]}"
            )
        if (self.features.settings.kind == "classical") != (self.backbone is None):
            raise ValueError(
                "`backbone` must be given exactly when features are not classical"
            )
        return self


def checked_header(
    header: Mapping[str, Any], error: type[AlibiSegError]
) -> dict[str, Any]:
    """Return `header` as complete, plain JSON values; `error` if it is no header.

    Examples
    --------
    >>> from napari_alibi_seg._base import SettingsError
    >>> try:
    ...     checked_header({"classes": []}, SettingsError)
    ... except SettingsError as err:
    ...     print(str(err)[:50])
    Invalid classifier header. `versions`: Field requi
    """
    plain = {key: value for key, value in header.items() if key not in OWN_KEYS}
    try:
        return ClassifierHeader.model_validate(plain).model_dump(mode="json")
    except ValidationError as err:
        parts = [
            f"`{'.'.join(map(str, e['loc'])) or 'header'}`: {e['msg']}"
            + (f" (got {e['input']!r:.80})" if e["loc"] else "")
            for e in err.errors()[:5]
        ]
        raise error("Invalid classifier header. " + "; ".join(parts) + ".") from err
