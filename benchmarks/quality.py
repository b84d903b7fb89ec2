"""Agreement with the truth on real micrographs, beside scikit-image.

Ours is the default: classical features, a 100-tree forest, every pixel. The other side
is `multiscale_basic_features` and scikit-learn's `RandomForestClassifier(100)`, both
with their defaults, as in scikit-image's trainable segmentation. Both get the same
arrays and the same scribbles, each in its own process. The score is the mIoU, as the
mean over the images of a set and pooled (confusion summed over them), averaged over
seeds of the forest.

The second table answers another question: a classifier trained on one image and
applied to the other images of its set, with the intensity range frozen in training or
measured on each image.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _common import (
    SCRIBBLES,
    Sample,
    Stages,
    in_child,
    parser,
    public_sets,
    report,
    save,
    table,
    without_data,
)

from napari_alibi_seg.data import ConfusionCounts, confusion

PART = "quality"
IGNORE_ID = 255
# Imported before memory is counted.
OURS = ("numba", "sklearn.ensemble", "napari_alibi_seg._segmenter")
THEIRS = ("skimage.feature", "sklearn.ensemble")
_QUICK_MEGAPIXELS = 0.3


def main(argv: Sequence[str] | None = None) -> int:
    options = parser(__doc__)
    options.add_argument("--sets", nargs="+", metavar="NAME", help="only these sets")
    options.add_argument("--seeds", type=int, default=3, help="forests (default 3)")
    options.add_argument(
        "--max-features",
        type=int,
        metavar="N",
        help="features our trees try at a split (default: the package's)",
    )
    options.add_argument(
        "--train-on",
        choices=("first", "each"),
        default="first",
        help="image(s) of a set to train on for the cross-image table",
    )
    args = options.parse_args(argv)
    if without_data(args.data, "public", "comparing segmentations"):
        return 0
    sets = _chosen(public_sets(args.data), args.sets, args.quick)
    seeds = list(range(1 if args.quick else args.seeds))
    found = _compare(args, sets, seeds)
    cross = _apply_elsewhere(args, sets)
    tried = args.max_features
    save(PART, {"seeds": seeds, "max_features": tried, "sets": found, "cross": cross})
    return 0


def _compare(
    args: Any, sets: dict[str, list[Sample]], seeds: list[int]
) -> dict[str, dict[str, Any]]:
    found = {}
    for name in sets:
        given = {"data": args.data, "dataset": name, "seeds": seeds}
        ours = in_child(f"{PART}:run_ours", **given, max_features=args.max_features)
        theirs = in_child(f"{PART}:run_skimage", **given)
        found[name] = {"ours": ours, "skimage": theirs}
    scores, costs = score_rows(found), stage_rows(found, sets)
    report(PART, f"mIoU, mean of {len(seeds)} seed(s)", table(_SCORE_HEAD, scores))
    title = "seconds for all images of a set, peak memory by stage"
    report(PART, title, table(_COST_HEAD, costs))
    _verdict(scores)
    return found


def _apply_elsewhere(args: Any, sets: dict[str, list[Sample]]) -> dict[str, Any]:
    given = {"data": args.data, "train_on": args.train_on}
    cross = {
        name: in_child(f"{PART}:run_cross", **given, dataset=name)
        for name, samples in sets.items()
        if len(samples) > 1
    }
    title = f"trained on {args.train_on} image, applied to the others (mean mIoU)"
    report(PART, title, table(_CROSS_HEAD, cross_rows(cross)))
    return cross


def _chosen(
    sets: dict[str, list[Sample]], names: list[str] | None, quick: bool
) -> dict[str, list[Sample]]:
    unknown = set(names or ()) - set(sets)
    if unknown:
        raise SystemExit(f"No such set: {sorted(unknown)}; there are {sorted(sets)}.")
    return {
        name: samples
        for name, samples in sets.items()
        if (not names or name in names)
        and not (quick and samples[0].megapixels > _QUICK_MEGAPIXELS)
    }


# --------------------------------------------------------------------- one image each


def segment_ours(
    image: np.ndarray,
    painted: np.ndarray,
    seed: int,
    stages: Stages,
    max_features: int | None = None,
) -> np.ndarray:
    """Train and segment with this package's defaults; return class ids."""
    from napari_alibi_seg import ClassifierSettings, Segmenter

    tried = {} if max_features is None else {"max_features": max_features}
    segmenter = Segmenter(classifier=ClassifierSettings(seed=seed, **tried))
    with stages.stage("train"):
        segmenter.fit(image, painted)
    with stages.stage("segment"):
        return segmenter.predict(image).labels


def segment_skimage(
    image: np.ndarray, painted: np.ndarray, seed: int, stages: Stages
) -> np.ndarray:
    """Do the same with scikit-image's features and scikit-learn's forest."""
    return skimage_forest(skimage_features(image, stages), painted, seed, stages)


def skimage_features(image: np.ndarray, stages: Stages) -> np.ndarray:
    """Return scikit-image's features of an image, (Y, X, F) float32."""
    from skimage.feature import multiscale_basic_features

    axis = -1 if image.ndim == 3 else None
    with stages.stage("features"):
        return multiscale_basic_features(image, channel_axis=axis)


def skimage_forest(
    features: np.ndarray, painted: np.ndarray, seed: int, stages: Stages
) -> np.ndarray:
    """Train a forest on painted pixels and classify all; return class ids."""
    from sklearn.ensemble import RandomForestClassifier

    at = painted > 0
    forest = RandomForestClassifier(100, n_jobs=-1, random_state=seed)
    with stages.stage("train"):
        forest.fit(features[at], painted[at])
    with stages.stage("predict"):
        flat = forest.predict(features.reshape(-1, features.shape[-1]))
    return flat.reshape(painted.shape)


def warm_up_ours() -> None:
    """Have everything imported and compiled, as in a session's second call."""
    image = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)
    segment_ours(image, painted_corner(), 0, Stages())


def painted_corner() -> np.ndarray:
    """Return scribbles on 64 x 64 pixels, to warm up with."""
    painted = np.zeros((64, 64), np.uint8)
    painted[:4], painted[-4:] = 1, 2
    return painted


# ------------------------------------------------------------------- one set, a child


class _Scores:
    """Confusion of several images, each and summed, per kind of scribble and seed."""

    def __init__(self) -> None:
        self._pooled: dict[tuple[str, int], ConfusionCounts] = {}
        self._images: dict[tuple[str, int], list[float]] = {}

    def add(self, kind: str, seed: int, labels: np.ndarray, mask: np.ndarray) -> None:
        counts = confusion(labels, mask, labels_offset=1, ignore=IGNORE_ID)
        key = kind, seed
        self._pooled[key] = self._pooled.get(key, ConfusionCounts()) + counts
        self._images.setdefault(key, []).append(counts.miou or 0.0)

    def to_dict(self) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for (kind, _), counts in self._pooled.items():
            out.setdefault(kind, {"mean": [], "pooled": []})["pooled"].append(
                counts.miou
            )
        for (kind, _), values in self._images.items():
            out[kind]["mean"].append(statistics.mean(values))
        return out


def run_ours(
    data: str, dataset: str, seeds: list[int], max_features: int | None = None
) -> dict[str, Any]:
    """Score our side of one set."""
    stages, scores = Stages(*OURS), _Scores()
    warm_up_ours()
    for sample in public_sets(Path(data))[dataset]:
        image, mask = sample.image(), sample.mask()
        for kind in SCRIBBLES:
            for seed in seeds:
                painted = sample.painted(kind)
                labels = segment_ours(image, painted, seed, stages, max_features)
                scores.add(kind, seed, labels, mask)
    return {"scores": scores.to_dict(), "stages": stages.to_dict()}


def run_skimage(data: str, dataset: str, seeds: list[int]) -> dict[str, Any]:
    """Score scikit-image's side of one set; features once an image."""
    stages, scores = Stages(*THEIRS), _Scores()
    for sample in public_sets(Path(data))[dataset]:
        image, mask = sample.image(), sample.mask()
        features = skimage_features(image, stages)
        for kind in SCRIBBLES:
            for seed in seeds:
                labels = skimage_forest(features, sample.painted(kind), seed, stages)
                scores.add(kind, seed, labels, mask)
        del features
    return {"scores": scores.to_dict(), "stages": stages.to_dict()}


def run_cross(data: str, dataset: str, train_on: str) -> dict[str, Any]:
    """Train on one image of a set, apply to the others, both normalisations."""
    from napari_alibi_seg import FeatureSettings, Segmenter

    samples = public_sets(Path(data))[dataset]
    images = [s.image() for s in samples]
    masks = [s.mask() for s in samples]
    out: dict[str, Any] = {}
    for kind in SCRIBBLES:
        for normalisation in ("frozen", "image"):
            scores = _Scores()
            for t in range(1 if train_on == "first" else len(samples)):
                features = FeatureSettings(normalisation=normalisation)
                segmenter = Segmenter(features=features)
                segmenter.fit(images[t], samples[t].painted(kind))
                for i, image in enumerate(images):
                    if i != t:
                        labels = segmenter.predict(image).labels
                        scores.add(kind, 0, labels, masks[i])
            out.setdefault(kind, {})[normalisation] = scores.to_dict()[kind]
    return {"images": len(samples), "scores": out}


# ------------------------------------------------------------------------------ tables

_SCORE_HEAD = (
    *("set", "scribbles", "ours, mean", "skimage, mean", "difference"),
    *("ours, pooled", "skimage, pooled", "difference", ""),
)
_COST_HEAD = (
    *("set", "MP", "ours train s", "segment s", "peak MB"),
    *("skimage features s", "train s", "predict s", "peak MB", "times faster"),
)
_CROSS_HEAD = ("set", "images", "scribbles", "frozen", "image", "image - frozen")


def score_rows(found: dict[str, dict[str, Any]]) -> list[list[Any]]:
    """Return the rows of the table of mIoU; the last cell flags ours below."""
    rows = []
    for name, sides in found.items():
        for kind in SCRIBBLES:
            row: list[Any] = [name, kind]
            below = False
            for measure in ("mean", "pooled"):
                ours, theirs = (
                    statistics.mean(sides[s]["scores"][kind][measure])
                    for s in ("ours", "skimage")
                )
                below = below or ours < theirs
                row += [ours, theirs, f"{ours - theirs:+.3f}"]
            rows.append([*row, "BELOW" if below else ""])
    return rows


def stage_rows(
    found: dict[str, dict[str, Any]], sets: dict[str, list[Sample]]
) -> list[list[Any]]:
    """Return seconds for all images of a set once, and peak memory by stage."""
    rows = []
    for name, sides in found.items():
        n = len(sets[name])
        seconds = {
            side: {
                stage: n * statistics.mean(values["seconds"])
                for stage, values in sides[side]["stages"].items()
            }
            for side in sides
        }
        peaks = {
            side: " / ".join(
                f"{values['peak_mb']:.0f}" for values in sides[side]["stages"].values()
            )
            for side in sides
        }
        ours, theirs = sum(seconds["ours"].values()), sum(seconds["skimage"].values())
        rows.append(
            [
                *(name, f"{sum(s.megapixels for s in sets[name]):.2f}"),
                *(f"{v:.2f}" for v in seconds["ours"].values()),
                peaks["ours"],
                *(f"{v:.2f}" for v in seconds["skimage"].values()),
                *(peaks["skimage"], f"{theirs / ours:.1f}"),
            ]
        )
    return rows


def cross_rows(cross: dict[str, Any]) -> list[list[Any]]:
    """Return mean mIoU on the images not trained on, frozen beside own range."""
    rows = []
    for name, found in cross.items():
        for kind, by_range in found["scores"].items():
            frozen, own = (by_range[n]["mean"][0] for n in ("frozen", "image"))
            row = [name, found["images"], kind, frozen, own, f"{own - frozen:+.3f}"]
            rows.append(row)
    return rows


def _verdict(rows: list[list[Any]]) -> None:
    below = [f"{r[0]} {r[1]} (mean {r[4]}, pooled {r[7]})" for r in rows if r[-1]]
    if below:
        print("Ours is below scikit-image on: " + "; ".join(below) + ".")
    else:
        print("Ours reaches scikit-image on every set.")


if __name__ == "__main__":
    raise SystemExit(main())
