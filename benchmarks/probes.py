"""How much position is in features: the probe table and the numbers beside it.

For every backbone (by default the two twins in tests/data): all ramps, with floors and
what they follow, on crops of real micrographs; artefact score; how the cosine falls
with distance and what k-means tells of place, on the homogeneous images; the same
content at four sizes; and segmentation from strokes in the left 40 % of the frame,
scored there and elsewhere. Then the seconds of a fingerprint, 12 layers of 384
channels of 15 images, beside one scikit-learn fit a channel in the same run.
Segmentations are appended to results/probes.jsonl at once and not made again.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from _common import (
    HERE,
    RESULTS,
    parser,
    public_sets,
    report,
    save,
    table,
    timed,
    without_data,
)
from _vits import add_backbones, load_chosen
from quality import IGNORE_ID
from sweep import Results, result_key
from tiling import token_map

from napari_alibi_seg import ClassifierSettings, FeatureSettings, Segmenter
from napari_alibi_seg.analysis import (
    MOVES,
    ProbeTable,
    artefact_score,
    cluster_map,
    cluster_position_information,
    cosine_by_distance,
    feature_space,
    fingerprint,
    length_generalisation,
    move_image,
    probe_table,
    ramp,
    segmentation_damage,
)
from napari_alibi_seg.data import TokenGrid, WorkingImage, measure_range, open_image

PART = "probes"
SETS = ("superalloy_16bit", "nanocomposite", "powder", "noisy_xct")
SIDES = (518, 784, 1036, 1246)
_TWINS = ("twin-table.safetensors", "twin-alibi.safetensors")
_SUFFIXES = (".png", ".tif", ".tiff")
_PAINTED = 0.4  # of the width, from the left


def main(argv: Sequence[str] | None = None) -> int:
    options = parser(__doc__)
    add_backbones(options)
    options.add_argument("--side", type=int, default=336, help="px of a crop")
    options.add_argument("--crops", type=int, default=32)
    options.add_argument("--sides", type=int, nargs="+", default=list(SIDES))
    options.add_argument("--sets", nargs="+", default=list(SETS), metavar="NAME")
    options.add_argument("--out", type=Path, default=RESULTS / "probes.jsonl")
    args = options.parse_args(argv)
    if without_data(args.data, "homogeneous", "the probes"):
        return 0
    if args.quick:
        args.side, args.crops, args.sides = 168, 8, [168, 336]
        args.sets = args.sets[:1]
    folder = HERE.parent / "tests" / "data"
    names = args.backbone or [str(folder / name) for name in _TWINS]
    values: dict[str, Any] = {}
    for name in names:
        backbone = load_chosen(name, args.alibi, args.device)
        values[backbone.name] = measured(args, backbone)
    report(PART, "beside the probes", table(_HEAD, summary_rows(values)))
    rows = length_rows(values)
    report(PART, "the same content at other sizes", table(_LENGTH_HEAD, rows))
    seconds = fingerprint_seconds(is_quick=args.quick)
    report(PART, "seconds of a fingerprint", table(_SPEED_HEAD, [[*seconds.values()]]))
    save(PART, {"backbones": values, "fingerprint": seconds})
    return 0


def measured(args: Any, backbone: Any) -> dict[str, Any]:
    """Return all numbers of a backbone, and print its probe table."""
    seconds, (maps, moved) = timed(crop_features, args, backbone)
    probe_s, probes = timed(probe_table, maps, moved)
    report(
        PART, f"{backbone.name}, {len(maps)} crops", table(_RAMP_HEAD, ramps(probes))
    )
    few = maps[:4]
    return {
        "probes": probes.to_dict(),
        "artefact": statistics.mean(artefact_score(m).score for m in few),
        "artefact_noise": artefact_score(
            probes.smoothness.draw(
                probes.grid, probes.n_channels, np.random.default_rng(0)
            )
        ).score,
        **homogeneity(args, backbone),
        "lengths": lengths(args, backbone),
        "damage": damage(args, backbone),
        "seconds": {"features": seconds, "table": probe_s},
    }


# --------------------------------------------------------------------------- features


def crop_features(args: Any, backbone: Any) -> tuple[Any, Any]:
    """Return features of crops of real micrographs, and of the crops moved."""
    files = [s.image_path for own in public_sets(args.data).values() for s in own]
    rng = np.random.default_rng(0)
    order = rng.permutation(len(files))
    side = args.side // backbone.patch_size * backbone.patch_size
    maps: list[np.ndarray] = []
    moved: dict[str, list[np.ndarray]] = {kind: [] for kind in MOVES}
    for i in range(args.crops):
        crop = random_crop(files[order[i % len(files)]], side, rng)
        maps.append(tokens_of(backbone, crop))
        for kind, out in moved.items():
            out.append(tokens_of(backbone, move_image(crop, kind, backbone.patch_size)))
    return maps, moved


def random_crop(path: Path, side: int, rng: np.random.Generator) -> np.ndarray:
    """Return a square of an image, enlarged where the image is smaller."""
    source = open_image(path)
    block = source.read(source.window).mean(axis=-1, dtype=np.float32)
    px = min(side, *block.shape)
    y, x = (int(rng.integers(n - px + 1)) for n in block.shape)
    return resized(block[y : y + px, x : x + px], side)


def resized(image: np.ndarray, side: int) -> np.ndarray:
    from skimage.transform import resize

    if image.shape == (side, side):
        return np.ascontiguousarray(image)
    return resize(image, (side, side), order=1, anti_aliasing=True).astype(np.float32)


def tokens_of(backbone: Any, image: np.ndarray) -> np.ndarray:
    """Return the tokens of a square image, seen at once, (R, C, F)."""
    source = open_image(np.ascontiguousarray(image))
    view = WorkingImage(source, "grey", measure_range(source, "grey", (0.5, 99.5)))
    grid = TokenGrid(view.shape, backbone.patch_size, len(image))
    n = len(image) // backbone.patch_size
    return token_map(backbone, view, grid)[0][:n, :n]


def homogeneous(args: Any) -> list[np.ndarray]:
    """Return the central squares of the homogeneous images."""
    out = []
    folder = args.data / "homogeneous"
    for path in sorted(p for p in folder.iterdir() if p.suffix in _SUFFIXES):
        source = open_image(path)
        block = source.read(source.window).mean(axis=-1, dtype=np.float32)
        side = min(block.shape)
        y, x = ((n - side) // 2 for n in block.shape)
        out.append(block[y : y + side, x : x + side])
    return out


# ---------------------------------------------------------------------------- numbers


def homogeneity(args: Any, backbone: Any) -> dict[str, Any]:
    """Return cosine drops and what clusters tell, mean over homogeneous images."""
    side = args.side // backbone.patch_size * backbone.patch_size
    maps = [tokens_of(backbone, resized(x, side)) for x in homogeneous(args)]
    told = []
    for tokens in maps:
        space = feature_space(tokens)
        found = [cluster_map(space, tokens, k).labels for k in (3, 4, 5)]
        told += [cluster_position_information(labels).score for labels in found]
    curve = cosine_by_distance(maps, centre=True)
    between = cosine_by_distance(maps, pairs="between", centre=True)
    return {
        "drop": cosine_by_distance(maps).drop,
        "centred_drop": curve.drop,
        "between_drop": between.drop,
        "curve": np.nan_to_num(curve.cosine).tolist(),
        "clusters": statistics.mean(told),
    }


def lengths(args: Any, backbone: Any) -> list[dict[str, Any]]:
    """Return how features of the homogeneous images change with their size."""
    patch = backbone.patch_size
    images = homogeneous(args)
    maps = {
        side: [tokens_of(backbone, resized(x, side // patch * patch)) for x in images]
        for side in args.sides
    }
    return [
        {
            "side": row.side,
            "cosine": row.cosine,
            "centred_cosine": row.centred_cosine,
            "transfer_r2": row.transfer_r2,
        }
        for row in length_generalisation(maps)
    ]


def damage(args: Any, backbone: Any) -> dict[str, float]:
    """Return mIoU on the painted side and beyond it, mean of the sets' means.

    One side may be harder than the other: with strokes spread over the frame the gap
    says how much, and the rest is what strokes on one side cost.
    """
    results = Results(args.out)
    out: dict[str, float] = {}
    gaps = {}
    for kind in ("biased", "spread"):
        halves = [
            _set_halves(backbone, args, name, kind, results) for name in args.sets
        ]
        left, right = (statistics.mean(side) for side in zip(*halves, strict=True))
        gaps[kind] = left - right
        if kind == "biased":
            out |= {"left": left, "right": right}
    return {**out, "gap": gaps["biased"], "cost": gaps["biased"] - gaps["spread"]}


def _set_halves(
    backbone: Any, args: Any, name: str, kind: str, results: Results
) -> tuple[float, float]:
    setting = {"kind": "vit", "scale": None, "density": 1, "components": 24}
    setting |= {"halo": 0, "seed": 0}
    rows = []
    for sample in public_sets(args.data)[name]:
        key = "sides " + result_key(backbone, setting, sample, kind)
        rows.append(results.kept(key, partial(_halves, backbone, sample, kind)))
    left, right = (statistics.mean(r[side] for r in rows) for side in ("left", "right"))
    return left, right


def _halves(backbone: Any, sample: Any, kind: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as store:
        segmenter = Segmenter(
            backbone,
            features=FeatureSettings(kind="vit", components=24, halo_tokens=0),
            classifier=ClassifierSettings(seed=0),
            store=Path(store),
        )
        embedding = segmenter.embed(sample.image())
        segmenter.fit(embedding, sample.painted(kind))
        labels = segmenter.predict(embedding).labels.astype(np.int64) - 1
    found = segmentation_damage(labels, sample.mask(), split=_PAINTED, ignore=IGNORE_ID)
    return {"left": found.left, "right": found.right, "image": sample.image_path.name}


def fingerprint_seconds(*, is_quick: bool) -> dict[str, Any]:
    """Time 12 layers of 384 channels of 15 images against scikit-learn."""
    from sklearn.linear_model import Ridge
    from sklearn.metrics import r2_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    n_layers, n_images, n_channels = (2, 5, 384) if is_quick else (12, 15, 384)
    rng = np.random.default_rng(0)
    images = [
        rng.standard_normal((37, 37, n_channels), dtype=np.float32)
        for _ in range(n_images)
    ]
    ours, found = timed(fingerprint, (images for _ in range(n_layers)))
    y = ramp("lr", (37, 37)).reshape(-1)
    model = make_pipeline(StandardScaler(), Ridge())
    chosen = rng.choice(37 * 37, 38, replace=False)
    n_fits = 200
    started = time.perf_counter()
    for i in range(n_fits):
        x = images[i % n_images][..., i : i + 1].reshape(-1, 1)
        r2_score(y, model.fit(x[chosen], y[chosen]).predict(x))
    each = (time.perf_counter() - started) / n_fits
    theirs = each * found.r2.size * n_images
    return {
        "fits": found.r2.size * n_images,
        "seconds": round(ours, 2),
        "scikit-learn": round(theirs, 1),
        "times faster": round(theirs / ours, 1),
    }


# ------------------------------------------------------------------------------ tables

_RAMP_HEAD = (
    *("ramp", "transfer R2", "floor", "single R2", "floor of noise", "cross-fitted"),
    *("floor of noise", "channels", "frame", "content", "verdict"),
)
_HEAD = (
    *("backbone", "transfer R2", "channels", "verdict", "MIC", "of noise"),
    *("cosine drop", "centred", "between images", "clusters tell"),
    *("mIoU left", "right", "gap", "gap over that of spread strokes"),
)
_LENGTH_HEAD = ("backbone", "px", "cosine", "centred cosine", "transfer R2")
_SPEED_HEAD = ("fits", "s", "s with scikit-learn (200 fits, scaled)", "times faster")


def ramps(probes: ProbeTable) -> list[list[Any]]:
    """Return a row for every ramp."""
    out = []
    for row in probes.rows:
        across, control = row.transfer_floor, row.control
        out.append(
            [
                row.ramp,
                row.transfer_r2,
                None if across is None else f"{across.mean:.2f} ± {across.sd:.2f}",
                row.single_r2,
                f"{row.single_floor.mean:.2f} ± {row.single_floor.sd:.2f}",
                row.crossfit_r2,
                f"{row.crossfit_floor.mean:.2f} ± {row.crossfit_floor.sd:.2f}",
                len(row.channels),
                None if control is None else control.frame,
                None if control is None else control.content,
                None if control is None else control.verdict,
            ]
        )
    return out


def summary_rows(values: dict[str, Any]) -> list[list[Any]]:
    """Return a row for every backbone."""
    out = []
    for name, own in values.items():
        headline = next(r for r in own["probes"]["rows"] if r["ramp"] == "lr+ud")
        control = headline["control"] or {"verdict": None}
        row = [name, headline["transfer_r2"], len(headline["channels"])]
        row += [control["verdict"], own["artefact"], own["artefact_noise"]]
        row += [own[key] for key in ("drop", "centred_drop", "between_drop")]
        out.append([*row, own["clusters"], *own["damage"].values()])
    return out


def length_rows(values: dict[str, Any]) -> list[list[Any]]:
    """Return a row for every backbone and size."""
    return [[name, *r.values()] for name, own in values.items() for r in own["lengths"]]


if __name__ == "__main__":
    raise SystemExit(main())
