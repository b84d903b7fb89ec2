"""Settings that cross a file, the command line or the Python surface.

Only this module knows defaults and their limits. The models are frozen and refuse
unknown fields; `validated` turns pydantic's report into a `SettingsError` that names
the field, what was expected and what came.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from napari_alibi_seg._base._errors import SettingsError

__all__ = [
    "Alibi",
    "ClassifierSettings",
    "FeatureKind",
    "FeatureSettings",
    "Resolution",
    "validated",
]

FeatureKind = Literal["vit", "classical", "both"]
Resolution = Literal["patch", "pixel"]

_SLOPES = ("constant", "fixed", "learned")
_METRICS = ("euclidean", "manhattan")


@dataclass(frozen=True, slots=True)
class Alibi:
    """How attention is biased by the distance between tokens.

    The logits of every block become ``q·k·scale - m·d/max(d)``: `d` the distance of two
    patch tokens on the grid, `m` the slope, prefix tokens (class, registers) unbiased.
    Position tables and rotary embeddings are dropped.

    Parameters
    ----------
    slope : {"constant", "fixed", "learned"}
        ``m = 1`` for every head, ``m = 2**(-8 (i + 1) / heads)`` for head `i`, or one
        learned value per block and head, read from the weights.
    wrap : bool
        Measure distance on the torus: opposite edges of a tile are neighbours.
    normalize : bool
        Divide by the largest distance of the grid, so that the bias lies in [-1, 0]
        for every tile size.
    metric : {"euclidean", "manhattan"}
        Distance on the token grid.

    Raises
    ------
    SettingsError
        If `slope` or `metric` is none of the above.

    References
    ----------
    Pawlowsky et al. (2026), "What DINO saw", arXiv:2603.16840; Press et al. (2022),
    "Train short, test long", ICLR, for the slopes.

    Examples
    --------
    >>> Alibi()
    Alibi(slope='constant', wrap=True, normalize=True, metric='euclidean')
    """

    slope: Literal["constant", "fixed", "learned"] = "constant"
    wrap: bool = True
    normalize: bool = True
    metric: Literal["euclidean", "manhattan"] = "euclidean"

    def __post_init__(self) -> None:
        if self.slope not in _SLOPES:
            raise SettingsError(
                f"`slope` must be one of {_SLOPES}, got {self.slope!r}."
            )
        if self.metric not in _METRICS:
            raise SettingsError(
                f"`metric` must be one of {_METRICS}, got {self.metric!r}."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the four settings as plain JSON values."""
        return asdict(self)


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FeatureSettings(_Model):
    """What is computed for a pixel.

    Attributes
    ----------
    kind : {"vit", "classical", "both"}
        ViT tokens sampled at the pixel, hand-made multi-scale features, or both.
    tile_px : int
        Side of a ViT tile in working pixels, rounded down to whole patches. Every tile
        of a run has this shape: ALiBi's normalised distance depends on it.
    halo_tokens : int or None
        Tokens computed but not kept on each inner side of a tile. None: 0 for ALiBi,
        4 for backbones with position embeddings.
    scale : float or "auto"
        Working scale: the image is resized by this factor before the ViT sees it.
        "auto" is 2 up to 0.9 megapixel and 1 above, decided on the first training
        image and then frozen.
    density : int
        Tokens per patch side, by shifted and interleaved passes.
    components : int or None
        Standardised principal components kept of the ViT channels. None keeps all
        channels as they are.
    channels : "auto", "grey", "rgb" or tuple of int
        Which channels are seen. "auto" takes grey as grey, RGB as RGB (as grey where
        the three are equal) and asks for a choice when there are more than three.
    normalisation : {"image", "frozen"}
        "image" measures the intensity range of each image by itself, once; "frozen"
        uses that of the first training image for every later one, for series taken
        with fixed detector settings.
    percentiles : tuple of float
        Robust lower and upper percentile that are mapped to 0 and 1.
    """

    kind: FeatureKind = "classical"
    tile_px: int = Field(default=518, ge=16, le=4096)
    halo_tokens: int | None = Field(default=None, ge=0, le=64)
    scale: float | Literal["auto"] = "auto"
    density: int = Field(default=1, ge=1, le=16)
    components: int | None = Field(default=24, ge=1, le=4096)
    channels: Literal["auto", "grey", "rgb"] | tuple[int, ...] = "auto"
    normalisation: Literal["image", "frozen"] = "image"
    percentiles: tuple[float, float] = (0.5, 99.5)

    @field_validator("scale")
    @classmethod
    def _scale_in_range(cls, value: float | str) -> float | str:
        if not isinstance(value, str) and not 0.05 <= value <= 8:
            raise ValueError(f"must lie in 0.05 to 8, got {value!r}")
        return value

    @field_validator("channels")
    @classmethod
    def _up_to_three(cls, value: str | tuple[int, ...]) -> str | tuple[int, ...]:
        if not isinstance(value, str) and not (
            1 <= len(value) <= 3 and min(value) >= 0
        ):
            raise ValueError(
                f"must be one to three channel numbers from 0 up, got {value!r}"
            )
        return value

    @field_validator("percentiles")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= value[0] < value[1] <= 100:
            raise ValueError(f"must satisfy 0 <= low < high <= 100, got {value!r}")
        return value


class ClassifierSettings(_Model):
    """How pixels are classified.

    Attributes
    ----------
    kind : {"rf", "logistic"}
        Random forest or multinomial logistic regression (scikit-learn).
    n_trees : int
        Trees of the forest.
    max_features : int
        Features tried at a split. Few make trees that differ more, which strokes,
        whose pixels are alike, ask for: on noisy micrographs 2 is worth up to 0.03
        mIoU over the usual square root (benchmarks/README.md).
    class_weight : "balanced", None or dict of int to float
        Balanced by painted pixels, none, or one weight per class id.
    class_factor : dict of int to float
        By class id: multiplies the balanced weight, 1 where it says nothing. Only
        together with balanced weights.
    resolution : {"patch", "pixel"}
        Classify tokens and upsample their probabilities, or classify every pixel.
    unsure_below : float or None
        Pixels whose highest probability lies below get `unsure_id`.
    unsure_id : int
        The id of "not sure".
    seed : int
        Seed of everything random.
    """

    kind: Literal["rf", "logistic"] = "rf"
    n_trees: int = Field(default=100, ge=1, le=2000)
    max_features: int = Field(default=2, ge=1, le=4096)
    class_weight: Literal["balanced"] | dict[int, float] | None = "balanced"
    class_factor: dict[int, float] = Field(default_factory=dict)
    resolution: Resolution = "pixel"
    unsure_below: float | None = Field(default=None, gt=0, lt=1)
    unsure_id: int = Field(default=0, ge=0)
    seed: int = Field(default=0, ge=0, lt=2**32)

    @model_validator(mode="after")
    def _factors_of_balanced(self) -> ClassifierSettings:
        if self.class_factor and self.class_weight != "balanced":
            raise ValueError(
                "`class_factor` multiplies balanced weights: leave `class_weight` at "
                "'balanced'"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_no_factors(
        self, serialize: SerializerFunctionWrapHandler
    ) -> dict[str, Any]:
        # a file without factors stays one that earlier versions read
        values: dict[str, Any] = serialize(self)
        if not values.get("class_factor"):
            values.pop("class_factor", None)
        return values


_M = TypeVar("_M", bound=BaseModel)


def validated(model: type[_M], values: dict[str, Any]) -> _M:
    """Build `model` from `values`, or raise a `SettingsError` that says what is wrong.

    Examples
    --------
    >>> validated(FeatureSettings, {"density": 7}).density
    7
    """
    try:
        return model(**values)
    except ValidationError as err:
        parts = []
        for e in err.errors():
            name = ".".join(str(p) for p in e["loc"]) or model.__name__
            parts.append(f"`{name}`: {e['msg']} (got {e['input']!r})")
        raise SettingsError("Invalid settings. " + "; ".join(parts)) from err
