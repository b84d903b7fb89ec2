"""What the dock is set to, and what a worker is asked to do with it.

Settings are frozen values; a pure function turns them into the arguments of a
`Segmenter`. A `Generation` tells results that were overtaken. Limits are those of
`_base`; nothing here runs anything. Batches are `_batch`'s.
"""

from __future__ import annotations

import threading
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from napari_alibi_seg._base import (
    ClassifierSettings,
    FeatureKind,
    FeatureSettings,
    Resolution,
    SettingsError,
    validated,
)
from napari_alibi_seg._workspace._classes import ClassTable

__all__ = ["DockSettings", "Generation", "segmenter_arguments"]

# `kind` has another name here, as there are two; weights are the classes' matter.
_FEATURES = tuple(n for n in FeatureSettings.model_fields if n != "kind")
_CLASSIFIER = tuple(
    n
    for n in ClassifierSettings.model_fields
    if n not in ("kind", "class_weight", "class_factor")
)


class DockSettings(BaseModel):
    """Everything that the dock's controls choose, but the classes.

    Attributes
    ----------
    backbone : str or None
        Name or weights file of the ViT. It may be chosen while `features` does not
        use it.
    features : {"vit", "classical", "both"}
        What a pixel is described by.
    scale, density, components, channels, normalisation
        See `FeatureSettings`.
    tile_px, halo_tokens, percentiles
        See `FeatureSettings`.
    classifier : {"rf", "logistic"}
        Kind of classifier.
    n_trees, resolution, unsure_below, unsure_id, max_features, seed
        See `ClassifierSettings`.
    live : bool
        Train again after each stroke.
    device : str
        "auto", "cpu", "cuda", "cuda:N" or "mps".

    Examples
    --------
    >>> settings = DockSettings().replace(backbone="vits16", features="both")
    >>> settings.features, settings.density, settings.needs_backbone
    ('both', 1, True)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: str | None = Field(default=None, min_length=1)
    features: FeatureKind = "classical"
    scale: float | Literal["auto"] = "auto"
    density: int = 1
    components: int | None = 24
    channels: Literal["auto", "grey", "rgb"] | tuple[int, ...] = "auto"
    normalisation: Literal["image", "frozen"] = "image"
    tile_px: int = 518
    halo_tokens: int | None = None
    percentiles: tuple[float, float] = (0.5, 99.5)
    classifier: Literal["rf", "logistic"] = "rf"
    n_trees: int = 100
    resolution: Resolution = "pixel"
    unsure_below: float | None = None
    unsure_id: int = 0
    max_features: int = 2
    seed: int = 0
    live: bool = True
    device: str = Field(default="auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")

    @field_validator(*_FEATURES, *_CLASSIFIER)
    @classmethod
    def _within_limits(cls, value: Any, info: ValidationInfo) -> Any:
        # limits are known to the settings that these become, and to them alone
        name = str(info.field_name)
        model = FeatureSettings if name in _FEATURES else ClassifierSettings
        try:
            model(**{name: value})
        except ValidationError as err:
            reason = err.errors()[0]["msg"].removeprefix("Value error, ")
            raise ValueError(reason) from err
        return value

    @property
    def needs_backbone(self) -> bool:
        """Whether the features are computed by a ViT."""
        return self.features != "classical"

    def replace(self, **changes: Any) -> DockSettings:
        """Return settings with some values changed.

        Raises
        ------
        SettingsError
            If a name is unknown or a value out of range.
        """
        return validated(DockSettings, {**self.model_dump(), **changes})

    def with_classifier(
        self,
        features: FeatureSettings,
        classifier: ClassifierSettings,
        *,
        backbone: str | None,
    ) -> DockSettings:
        """Return the settings that made a loaded classifier.

        Parameters
        ----------
        features, classifier
            ``Segmenter.features`` and ``Segmenter.settings``. Weights of classes go to
            `ClassTable.adopt`.
        backbone : str or None
            Name or weights file; None keeps the one that was chosen.
        """
        return self.replace(
            features=features.kind,
            classifier=classifier.kind,
            backbone=self.backbone if backbone is None else backbone,
            **{name: getattr(features, name) for name in _FEATURES},
            **{name: getattr(classifier, name) for name in _CLASSIFIER},
        )

    def segmenter_backbone(self) -> str | None:
        """Return the `backbone` argument of a `Segmenter`; None for classical features.

        Raises
        ------
        SettingsError
            If the features need a ViT and none is chosen.
        """
        if not self.needs_backbone:
            return None
        if self.backbone is None:
            raise SettingsError(
                f"Expected a backbone for features of kind {self.features!r}, got "
                "none. Choose a backbone, or classical features."
            )
        return self.backbone

    def _feature_settings(self) -> FeatureSettings:
        values = {name: getattr(self, name) for name in _FEATURES}
        return validated(FeatureSettings, {"kind": self.features, **values})

    def _classifier_settings(self, factors: dict[int, float]) -> ClassifierSettings:
        values = {name: getattr(self, name) for name in _CLASSIFIER}
        more = {"kind": self.classifier, "class_factor": factors}
        return validated(ClassifierSettings, {**more, **values})


def segmenter_arguments(
    settings: DockSettings,
    classes: ClassTable,
    painted: tuple[int, ...] | None = None,
) -> tuple[FeatureSettings, ClassifierSettings]:
    """Return the settings of the `Segmenter` that the dock asks for.

    Parameters
    ----------
    settings : DockSettings
        What is chosen.
    classes : ClassTable
        Their weights count: classes are balanced by painted pixels, and then a class
        of weight 2 counts twice as much as one of weight 1.
    painted : tuple of int, optional
        Ids that there are strokes of to learn from. A classifier refuses the weight of
        any other class, so these are left out; by default all of the table are meant.

    Returns
    -------
    features : FeatureSettings
    classifier : ClassifierSettings

    Raises
    ------
    SettingsError
        If the features need a backbone and none is chosen.

    Examples
    --------
    >>> table = ClassTable()
    >>> pore, grain = table.add("pore"), table.add("grain", class_id=7)
    >>> segmenter_arguments(DockSettings(), table)[1].class_factor
    {}
    >>> table.set_weight(7, 2.5)
    >>> segmenter_arguments(DockSettings(), table)[1].class_factor
    {7: 2.5}
    """
    settings.segmenter_backbone()
    factors = {
        i: w
        for i, w in classes.weights.items()
        if w != 1 and (painted is None or i in painted)
    }
    return settings._feature_settings(), settings._classifier_settings(factors)


class Generation:
    """Numbers runs, so that results of one that was overtaken can be dropped.

    May be used from several threads at once.

    Examples
    --------
    >>> runs = Generation()
    >>> first, second = runs.next(), runs.next()
    >>> runs.is_current(first), runs.is_current(second)
    (False, True)
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._number = 0

    @property
    def current(self) -> int:
        """The number of the latest run, 0 before the first."""
        return self._number

    def next(self) -> int:
        """Begin a run: return its number and make all earlier ones stale."""
        with self._lock:
            self._number += 1
            return self._number

    def is_current(self, number: int) -> bool:
        """Return whether no later run has begun."""
        return number == self._number
