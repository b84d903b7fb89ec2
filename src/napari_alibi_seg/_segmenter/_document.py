"""A segmenter to and from its `.alibiseg` file.

Knows which parts of a segmenter the file's header holds; the file format itself,
its limits and checks are `learn`'s.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from napari_alibi_seg._base import (
    Backbone,
    ClassifierFileError,
    ClassifierSettings,
    FeatureSettings,
    OutputError,
    SettingsError,
    WeightsError,
)
from napari_alibi_seg._segmenter._recipe import ClassInfo, Frozen
from napari_alibi_seg._segmenter._segmenter import Segmenter
from napari_alibi_seg.data import IntensityRange
from napari_alibi_seg.features import ClassicalFeatures
from napari_alibi_seg.learn import (
    classifier_from_arrays,
    classifier_to_arrays,
    load_classifier_file,
    projection_from_arrays,
    projection_to_arrays,
    save_classifier_file,
)

__all__ = ["check_target", "load_segmenter", "own_version", "save_segmenter"]

_SUFFIX = ".alibiseg"
# Those whose version may change a result.
_PACKAGES = ("numpy", "scikit-learn", "torch", "timm")


def check_target(path: Path) -> None:
    """Refuse a path that no classifier can be saved to, before hours of work."""
    if path.suffix != _SUFFIX:
        raise SettingsError(
            f"A classifier file must end in {_SUFFIX}, got {str(path)!r}."
        )
    parent = path.parent
    if not parent.is_dir():
        raise OutputError(
            f"Cannot write {path}: expected the folder {parent} to exist, got none. "
            f"Create it first, or name another."
        )
    if path.is_dir():
        raise OutputError(
            f"Cannot write {path}: expected a file name to write to, got a folder. "
            f"Name a file in it."
        )


def save_segmenter(segmenter: Segmenter, path: Path) -> str:
    """Write a fitted segmenter and return the hash of the file's content."""
    classifier, frozen = segmenter.classifier, segmenter.frozen
    if classifier is None or frozen is None:
        raise SettingsError("Only a trained segmenter can be saved. Call `fit` first.")
    check_target(path)
    projection = segmenter.projection
    backbone = segmenter.backbone
    halo = segmenter.features.halo_tokens
    if backbone is not None:
        halo = frozen.grid((1, 1), segmenter.features, backbone).halo_tokens
    resolved = {
        "scale": frozen.scale,
        "channels": frozen.channels,
        "halo_tokens": halo,
        "components": segmenter.features.components
        if projection is None
        else projection.n_components,
    }
    names: tuple[str, ...] = ()
    if segmenter.features.kind == "classical":
        names = ClassicalFeatures(frozen.n_channels).names
    header = {
        "versions": {
            "napari-alibi-seg": own_version(),
            **{name: version(name) for name in _PACKAGES},
        },
        "backbone": None if backbone is None else backbone.identity,
        "features": {
            "settings": segmenter.features.model_copy(update=resolved).model_dump(
                mode="json"
            ),
            "n_features": classifier.n_features,
            "names": list(names),
            "details": {
                "intensity": frozen.intensity.to_dict(),
                "choice": segmenter.choice,
                "weights_hint": segmenter.weights_hint,
                "denoiser_hint": segmenter.denoiser_hint,
            },
        },
        "classifier": segmenter.settings.model_dump(mode="json"),
        "classes": [
            {"id": i, "name": c.name, "colour": c.colour}
            for i, c in sorted(segmenter.classes.items())
        ],
        "training": classifier.summary,
    }
    arrays = {**classifier_to_arrays(classifier), **projection_to_arrays(projection)}
    return save_classifier_file(path, header, arrays)


def own_version() -> str:
    """Return the version of this package."""
    import napari_alibi_seg

    return str(napari_alibi_seg.__version__)


def load_segmenter(
    path: Path,
    *,
    backbone: Backbone | str | Path | None,
    store: Path | str | None,
    device: str,
    workers: int | None,
) -> Segmenter:
    """Read a segmenter; see `Segmenter.load`."""
    header, arrays = load_classifier_file(path)
    record = header["features"]
    settings = FeatureSettings(**record["settings"])
    loaded = None
    if header["backbone"] is None:
        if backbone is not None:
            raise SettingsError(
                f"{path} was trained on classical features alone: it uses no backbone. "
                f"Leave `backbone` out."
            )
    else:
        loaded = _backbone(header, path, backbone, device)
    segmenter = Segmenter(
        loaded,
        features=settings,
        classifier=ClassifierSettings(**header["classifier"]),
        store=store,
        workers=workers,
    )
    details = record["details"]
    segmenter.frozen = _frozen(settings, details, path)
    segmenter.classifier = classifier_from_arrays(header, arrays)
    segmenter.projection = projection_from_arrays(arrays)
    segmenter.classes = {
        c["id"]: ClassInfo(c["name"], c["colour"]) for c in header["classes"]
    }
    segmenter.choice = str(details.get("choice", ""))
    segmenter.weights_hint = details.get("weights_hint")
    segmenter.denoiser_hint = details.get("denoiser_hint")
    segmenter.content_hash = str(header["sha256"])
    return segmenter


def _frozen(settings: FeatureSettings, details: dict[str, Any], path: Path) -> Frozen:
    """Return what training decided about images, checked: the file may be forged."""
    channels, scale = settings.channels, settings.scale
    if channels == "auto" or isinstance(scale, str):
        raise ClassifierFileError(
            f"{path} does not say which channels and scale it was trained on, got "
            f"`channels` {channels!r} and `scale` {scale!r}. Train it again."
        )
    n = len(channels) if isinstance(channels, tuple) else 1
    try:
        intensity = IntensityRange.from_dict(details["intensity"])
        if {len(intensity.low), len(intensity.high), len(intensity.fill)} != {n}:
            raise ValueError(f"expected {n} value(s) each of low, high and fill")
    except (KeyError, TypeError, ValueError) as err:
        raise ClassifierFileError(
            f"{path} does not say which intensity range it was trained on ({err}). "
            f"Train it again."
        ) from err
    return Frozen(channels, scale, intensity)


def _backbone(
    header: dict[str, Any],
    path: Path,
    given: Backbone | str | Path | None,
    device: str,
) -> Backbone:
    """Load the backbone a classifier was trained on, and no other."""
    identity, details = header["backbone"], header["features"]["details"]
    if given is not None and not isinstance(given, (str, Path)):
        # the name of a file may have changed, its content may not
        if {**given.identity, "name": ""} != {**identity, "name": ""}:
            raise WeightsError(
                f"{path} was trained on {_who(identity)}, got {_who(given.identity)}."
            )
        return given
    from napari_alibi_seg.features import reload_backbone  # imports torch

    weights = given or _existing(details.get("weights_hint"))
    denoiser = _existing(details.get("denoiser_hint"))
    return reload_backbone(identity, weights=weights, denoiser=denoiser, device=device)


def _existing(hint: Any) -> str | None:
    """Return a hint whose file is there; cures may stand behind the weights."""
    from napari_alibi_seg.features import spec_files

    try:
        is_there = isinstance(hint, str) and spec_files(hint)[0] is not None
    except SettingsError:  # a cure of a later version
        is_there = False
    return hint if is_there else None


def _who(identity: dict[str, Any]) -> str:
    digest = str(identity.get("sha256", ""))[:12]
    return (
        f"{identity.get('name')!r} (sha256 {digest}..., alibi {identity.get('alibi')})"
    )
