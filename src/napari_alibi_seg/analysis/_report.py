"""How much position is in a backbone's features, on a user's own images: all at once.

Joins crops, backbone and every measure of this room into one report with a picture for
each number, a level and a plain sentence. Command line and window both show it; how it
is drawn is left to them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from napari_alibi_seg._base import (
    Backbone,
    FloatArray,
    IntArray,
    SettingsError,
    Window,
)
from napari_alibi_seg.analysis._crops import Crops, layer_maps, token_map
from napari_alibi_seg.analysis._fingerprint import Fingerprint, fingerprint
from napari_alibi_seg.analysis._frame import MOVES, Verdict, move_image
from napari_alibi_seg.analysis._homogeneity import (
    cluster_position_information,
    cosine_by_distance,
)
from napari_alibi_seg.analysis._level import HEADLINE, MIN_TRANSFER, Level, judged
from napari_alibi_seg.analysis._mic import artefact_score
from napari_alibi_seg.analysis._noise import Floor
from napari_alibi_seg.analysis._probe import drawn_tokens, split
from napari_alibi_seg.analysis._ramps import ramp
from napari_alibi_seg.analysis._regression import Float, fit_reader
from napari_alibi_seg.analysis._space import feature_space
from napari_alibi_seg.analysis._table import ProbeTable, probe_table
from napari_alibi_seg.analysis._views import cluster_map

__all__ = [
    "PositionPictures",
    "PositionReport",
    "PositionStep",
    "iter_position_report",
    "position_report",
    "transfer_tokens",
]

# Means over crops need few of them, and all layers of one take much memory.
_FEW_MAPS = 8
_MIC_MAPS = 4
_N_CLUSTERS = (3, 4, 5)
_SHOWN_CLUSTERS = 4
_N_TOKENS, _ALPHA = 38, 1.0
_TOKENS_A_CHANNEL = 4


@dataclass(frozen=True, slots=True, eq=False)
class PositionPictures:
    """What the numbers look like on one crop.

    Attributes
    ----------
    crop : (C, S, S) float32
        Working values.
    window : Window or None
        Where it lies in its image, if it is from one.
    target, prediction : (h, w, 2) float64
        Column and row of the tokens, 0 to 1, and what a probe read of them: fitted on
        other crops, or on 38 tokens of this one with fewer than 3.
    components : (h, w, 3) float32
        First three principal components, 0 to 1.
    clusters : (h, w) int32
        k-means, 4 clusters.
    cluster_colours : (K, 3) float32
        What the components make of the centres.
    """

    crop: FloatArray
    window: Window | None
    target: Float
    prediction: Float
    components: FloatArray
    clusters: IntArray
    cluster_colours: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class PositionReport:
    """How much position is in the features of one backbone.

    Attributes
    ----------
    name : str
        Of the backbone, with its cures.
    n_crops, n_images, side_px : int
        What it was measured on.
    table : ProbeTable
        All probes of all ramps; the headline is "lr+ud".
    artefact, artefact_floor : float
        Artefact score, mean over 4 crops, and that of noise as smooth.
    cosine_drop : float or None
        How much less alike tokens of *different* crops are the farther apart they lie
        in the frame, mean tokens taken off. None with one crop.
    within_drop : float
        The same within a crop, where content has a part.
    clusters : float
        What the k-means cluster of a token tells of its row or column, mean over crops
        and 3, 4 and 5 clusters.
    fingerprint : Fingerprint
        Channels of each layer; of the last one only where there are no others.
    pictures : PositionPictures
        Of the last crop.
    level : {"high", "some", "none found", "unsure"}
        "unsure" with fewer than 3 crops unless a move of the image shows it.
    sentence : str
        What that means, for a user.
    notes : tuple of str
        What one must know to read the numbers.
    features_s, seconds : float
        For features, and in all.
    """

    name: str
    n_crops: int
    n_images: int
    side_px: int
    table: ProbeTable
    artefact: float
    artefact_floor: float
    cosine_drop: float | None
    within_drop: float
    clusters: float
    fingerprint: Fingerprint
    pictures: PositionPictures
    level: Level
    sentence: str
    notes: tuple[str, ...]
    features_s: float
    seconds: float

    @property
    def verdict(self) -> Verdict:
        """What the probe follows when the image is moved in its frame."""
        control = self.table[HEADLINE].control
        assert control is not None  # every move changes this ramp
        return control.verdict

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; pictures are left out."""
        row = self.table[HEADLINE]
        return {
            "backbone": self.name,
            "level": self.level,
            "sentence": self.sentence,
            "transfer_r2": row.transfer_r2,
            "transfer_floor": _pair(row.transfer_floor),
            "single_r2": row.single_r2,
            "single_floor": _pair(row.single_floor),
            "crossfit_r2": row.crossfit_r2,
            "crossfit_floor": _pair(row.crossfit_floor),
            "positional_channels": list(row.channels),
            "n_channels": self.table.n_channels,
            "verdict": self.verdict,
            "artefact": self.artefact,
            "artefact_floor": self.artefact_floor,
            "cosine_drop": self.cosine_drop,
            "within_drop": self.within_drop,
            "cluster_information": self.clusters,
            "layers": len(self.fingerprint.r2),
            "probes": self.table.to_dict(),
            "grid": list(self.table.grid),
            "n_crops": self.n_crops,
            "n_images": self.n_images,
            "side_px": self.side_px,
            "notes": list(self.notes),
            "features_s": self.features_s,
            "seconds": self.seconds,
        }


@dataclass(frozen=True, slots=True, eq=False)
class PositionStep:
    """One step of a measurement; the last one has the result.

    Attributes
    ----------
    stage : str
        "features" or "probes".
    done, total : int
        Of the stage.
    result : PositionReport or None
        With the last step.
    """

    stage: str
    done: int
    total: int
    result: PositionReport | None = None


def position_report(
    backbone: Backbone, crops: Crops, *, seed: int = 0
) -> PositionReport:
    """Measure how much position is in a backbone's features of crops.

    Parameters
    ----------
    backbone : Backbone
        From `load_backbone`, cured or not.
    crops : Crops
        From `draw_crops`; all backbones that are compared need the same.
    seed : int
        Equal arguments give equal reports but for seconds.

    Returns
    -------
    PositionReport

    Raises
    ------
    SettingsError
        If a crop holds fewer than 8 x 8 tokens.

    Examples
    --------
    >>> from napari_alibi_seg.analysis import draw_crops
    >>> from napari_alibi_seg.data import open_image, synthesize
    >>> from napari_alibi_seg.features import load_backbone
    >>> image = synthesize("grains", (320, 320), seed=0).image
    >>> crops = draw_crops([open_image(image)], side_px=96, n_crops=12)
    >>> report = position_report(load_backbone("alibi-tiny", device="cpu"), crops)
    >>> report.verdict, report.table["lr+ud"].transfer_r2 < 0.1
    ('neither', True)
    """
    for step in iter_position_report(backbone, crops, seed=seed):
        if step.result is not None:
            return step.result
    raise SettingsError("Expected crops to measure on, got none.")


def iter_position_report(
    backbone: Backbone, crops: Crops, *, seed: int = 0
) -> Iterator[PositionStep]:
    """Measure as `position_report`, step by step.

    Yields
    ------
    PositionStep
        After every crop; stop iterating to cancel. The last one has the result.

    Raises
    ------
    SettingsError
        If there is no crop, or one holds fewer than 8 x 8 tokens.
    """
    if not len(crops):
        raise SettingsError("Expected crops to measure on, got none.")
    started = time.perf_counter()
    total = len(crops) + 1
    maps: list[FloatArray] = []
    moved: dict[str, list[FloatArray]] = {kind: [] for kind in MOVES}
    for values in crops.values:
        own, others = _seen(backbone, values)
        maps.append(own)
        for kind, tokens in others.items():
            moved[kind].append(tokens)
        yield PositionStep("features", len(maps), total)
    layers = layer_maps(backbone, crops.values[:_FEW_MAPS])
    features_s = time.perf_counter() - started
    yield PositionStep("features", total, total)
    table = probe_table(
        maps,
        moved,
        n_tokens=_N_TOKENS,
        n_transfer_tokens=transfer_tokens(maps),
        alpha=_ALPHA,
        seed=seed,
    )
    yield PositionStep("probes", 1, 2)
    level, sentence = judged(table)
    report = PositionReport(
        name=backbone.name,
        n_crops=len(maps),
        n_images=crops.n_images,
        side_px=crops.side_px,
        table=table,
        fingerprint=fingerprint(layers, target="lr", seed=seed),
        pictures=_pictures(crops, maps, seed),
        level=level,
        sentence=sentence,
        notes=crops.notes,
        features_s=features_s,
        **_beside(maps, table, seed),
        seconds=time.perf_counter() - started,
    )
    yield PositionStep("probes", 2, 2, report)


def _seen(
    backbone: Backbone, values: FloatArray
) -> tuple[FloatArray, dict[str, FloatArray]]:
    """Return the features of a crop, and of the crop moved."""
    patch = backbone.patch_size
    side = values.shape[1] // patch * patch
    whole = values[:, :side, :side]
    own = token_map(backbone, whole)
    image = np.moveaxis(whole, 0, -1)
    moved = {kind: np.moveaxis(move_image(image, kind, patch), -1, 0) for kind in MOVES}
    return own, {kind: token_map(backbone, other) for kind, other in moved.items()}


def _beside(maps: list[FloatArray], table: ProbeTable, seed: int) -> dict[str, Any]:
    """Return the numbers that need no regression."""
    noise = table.smoothness.draw(
        table.grid, table.n_channels, np.random.default_rng(seed)
    )
    return {
        "artefact": float(np.mean([artefact_score(m).score for m in maps[:_MIC_MAPS]])),
        "artefact_floor": artefact_score(noise).score,
        "cosine_drop": _drop(maps, "between", seed) if len(maps) > 1 else None,
        "within_drop": _drop(maps, "within", seed),
        "clusters": _clusters_tell(maps[:_FEW_MAPS], seed),
    }


def _drop(
    maps: list[FloatArray], pairs: Literal["within", "between"], seed: int
) -> float:
    return cosine_by_distance(maps, pairs=pairs, centre=True, seed=seed).drop


def _clusters_tell(maps: list[FloatArray], seed: int) -> float:
    told = []
    for tokens in maps:
        space = feature_space(tokens, seed=seed)
        for k in _N_CLUSTERS:
            labels = cluster_map(space, tokens, k, seed=seed).labels
            told.append(cluster_position_information(labels, seed=seed).score)
    return float(np.mean(told))


def _pictures(crops: Crops, maps: list[FloatArray], seed: int) -> PositionPictures:
    shown = maps[-1]
    space = feature_space(shown, seed=seed)
    clusters = cluster_map(space, shown, _SHOWN_CLUSTERS, seed=seed)
    target = ramp(HEADLINE, shown.shape[:2])
    return PositionPictures(
        crop=crops.values[-1],
        window=crops.windows[-1] if crops.windows else None,
        target=target,
        prediction=_predicted(maps, target, seed),
        components=space.picture(shown),
        clusters=clusters.labels,
        cluster_colours=clusters.colours,
    )


def transfer_tokens(maps: list[FloatArray]) -> int:
    """Return how many tokens of each crop the transfer probe is fitted on.

    With about as many in all as there are channels a fit follows every accident.
    """
    n = len(maps)
    if n < MIN_TRANSFER:
        return _N_TOKENS
    wanted = -(-_TOKENS_A_CHANNEL * maps[0].shape[-1] // split(n, None))
    return int(min(max(_N_TOKENS, wanted), np.prod(maps[0].shape[:2])))


def _predicted(maps: list[FloatArray], target: Float, seed: int) -> Float:
    """Return what the probe of the table reads in the last map, (h, w, 2)."""
    h, w, t = target.shape
    n_fit = split(len(maps), None) if len(maps) >= MIN_TRANSFER else len(maps)
    flat = [m.reshape(h * w, -1).astype(np.float64) for m in maps]
    y = target.reshape(h * w, t)
    tokens = drawn_tokens(n_fit, h * w, transfer_tokens(maps), seed)
    fit_x = np.concatenate([flat[i][chosen] for i, chosen in enumerate(tokens)])
    fit_y = np.concatenate([y[chosen] for chosen in tokens])
    return fit_reader(fit_x, fit_y, _ALPHA).read(flat[-1]).reshape(h, w, t)


def _pair(floor: Floor | None) -> dict[str, float] | None:
    return None if floor is None else {"mean": floor.mean, "sd": floor.sd}
