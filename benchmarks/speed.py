"""Seconds and memory of one large micrograph, each side in its own process.

2048 x 2048, three classes. Four questions:

1. training and segmenting every pixel with classical features, beside scikit-image's
   features and a 100-tree forest (and napari-convpaint where it is installed), in
   turns;
2. does the fast forest change anything: the mIoU and the pixels that differ from
   scikit-learn's own `predict` on every pixel of the same features, on every real set;
3. ViT extraction through tiles and store over the bare sum of its forwards, in turns
   (random weights: the cost is that of trained ones);
4. changing a scribble and segmenting again at `patch` resolution, tokens stored.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from _common import (
    SCRIBBLES,
    Stages,
    in_child,
    parser,
    public_sets,
    report,
    save,
    spread,
    table,
    three_phases,
    timed,
    version,
    without_data,
)
from _vits import BareForward, random_vit
from quality import (
    IGNORE_ID,
    OURS,
    THEIRS,
    painted_corner,
    segment_ours,
    segment_skimage,
    warm_up_ours,
)

PART = "speed"
QUESTIONS = ("segment", "exact", "extract", "change")


def main(argv: Sequence[str] | None = None) -> int:
    options = parser(__doc__)
    options.add_argument("--side", type=int, help="pixels a side (default 2048)")
    options.add_argument("--runs", type=int, help="rounds of each (default 3)")
    options.add_argument(
        "--only", nargs="+", choices=QUESTIONS, default=QUESTIONS, metavar="QUESTION"
    )
    args = options.parse_args(argv)
    side = args.side or (768 if args.quick else 2048)
    runs = args.runs or (1 if args.quick else 3)
    found: dict[str, Any] = {"side": side, "runs": runs}
    if "segment" in args.only:
        found["segment"] = _segmenting(args.data, side, runs)
    if "exact" in args.only and not without_data(args.data, "public", "exactness"):
        found["exact"] = _exactness(args.data, args.quick)
    if "extract" in args.only:
        found["extract"] = _extraction(args.data, side, runs)
    if "change" in args.only:
        found["change"] = _change(args.data, side, 3 if args.quick else 15)
    save(PART, found)
    return 0


# ---------------------------------------------------------- 1. training and segmenting


def _segmenting(data: Path, side: int, runs: int) -> dict[str, Any]:
    _, painted, origin = three_phases(data, side)
    tasks = {
        "ours": f"{PART}:run_ours",
        "scikit-image": f"{PART}:run_skimage",
    }
    if version("napari-convpaint") != "absent":
        tasks["napari-convpaint"] = f"{PART}:run_convpaint"
    else:
        print("napari-convpaint is not installed; left out.")
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in tasks}
    for _ in range(runs):  # in turns, so that a drifting machine meets all alike
        for name, task in tasks.items():
            found[name].append(in_child(task, data=data, side=side))
    title = (
        f"{side} x {side} ({origin}), {int((painted > 0).sum())} painted pixels, "
        f"{len(np.unique(painted)) - 1} classes, {runs} run(s)"
    )
    report(PART, title, table(_SEGMENT_HEAD, segment_rows(found)))
    return found


_SEGMENT_HEAD = (
    *("side", "stage", "seconds: median (min to max)", "peak above imports MB"),
    "times ours",
)


def segment_rows(found: dict[str, list[dict[str, Any]]]) -> list[list[Any]]:
    """Return a row a stage and a total row a side, with its ratio to ours."""
    rows = []
    totals = {
        name: [sum(s["seconds"][0] for s in run.values()) for run in runs]
        for name, runs in found.items()
    }
    for name, runs in found.items():
        for stage in runs[0]:
            seconds = [run[stage]["seconds"][0] for run in runs]
            peak = max(run[stage]["peak_mb"] for run in runs)
            rows.append([name, stage, spread(seconds), f"{peak:.0f}", ""])
        ratios = [t / o for t, o in zip(totals[name], totals["ours"], strict=True)]
        peak = max(s["peak_mb"] for run in runs for s in run.values())
        ratio = f"{statistics.median(ratios):.2f}"
        rows.append([name, "total", spread(totals[name]), f"{peak:.0f}", ratio])
    return rows


def run_ours(data: str, side: int) -> dict[str, Any]:
    """Train and segment with this package."""
    stages = Stages(*OURS)
    image, painted, _ = three_phases(Path(data), side)
    warm_up_ours()
    segment_ours(image, painted, 0, stages)
    return stages.to_dict()


def run_skimage(data: str, side: int) -> dict[str, Any]:
    """Train and segment with scikit-image's features and scikit-learn's forest."""
    stages = Stages(*THEIRS)
    image, painted, _ = three_phases(Path(data), side)
    segment_skimage(image[:64, :64], painted_corner(), 0, Stages())
    segment_skimage(image, painted, 0, stages)
    return stages.to_dict()


def run_convpaint(data: str, side: int) -> dict[str, Any]:
    """Train and segment with napari-convpaint's defaults."""
    from napari_convpaint.convpaint_model import ConvpaintModel

    stages = Stages()
    image, painted, _ = three_phases(Path(data), side)
    model = ConvpaintModel()
    with stages.stage("train"):
        model.train(image, painted)
    with stages.stage("segment"):
        model.segment(image)
    return stages.to_dict()


# ------------------------------------------------------------------------ 2. exactness


def _exactness(data: Path, quick: bool) -> list[dict[str, Any]]:
    found = []
    for name, samples in public_sets(data).items():
        if not (quick and samples[0].megapixels > 0.3):
            found += in_child(f"{PART}:run_exact", data=data, dataset=name)
    head = ("set", "scribbles", "images", "pixels differing %", "mIoU difference")
    rows = []
    for name in dict.fromkeys(f["dataset"] for f in found):
        for kind in SCRIBBLES:
            own = [f for f in found if (f["dataset"], f["kind"]) == (name, kind)]
            pixels = sum(f["pixels"] for f in own)
            share = 100 * sum(f["differing"] for f in own) / pixels
            worst = max((f["miou"] - f["sklearn_miou"] for f in own), key=abs)
            rows.append([name, kind, len(own), f"{share:.5f}", f"{worst:+.6f}"])
    title = "ours against scikit-learn's predict on every pixel of our features"
    report(PART, title, table(head, rows))
    return found


def run_exact(data: str, dataset: str) -> list[dict[str, Any]]:
    """Compare with an exhaustive prediction by scikit-learn, first two images."""
    return [
        {
            "dataset": dataset,
            "file": sample.image_path.name,
            "kind": kind,
            **compare_exhaustive(sample.image(), sample.painted(kind), sample.mask()),
        }
        for sample in public_sets(Path(data))[dataset][:2]
        for kind in SCRIBBLES
    ]


def compare_exhaustive(
    image: np.ndarray, painted: np.ndarray, mask: np.ndarray
) -> dict[str, Any]:
    """Return how our labels differ from scikit-learn's on our own features."""
    from napari_alibi_seg import Segmenter
    from napari_alibi_seg._segmenter import PixelFeatures
    from napari_alibi_seg.data import confusion, pixel_tiles

    segmenter = Segmenter()
    with _grown_forests() as forests:
        segmenter.fit(image, painted)
    (forest,) = forests
    ids = np.unique(painted[painted > 0])
    embedding = segmenter.embed(image)
    ours = segmenter.predict(embedding).labels
    theirs = np.empty_like(ours)
    features = PixelFeatures(embedding, None)
    for window in pixel_tiles(embedding.shape):
        for strip, block in features.strips(window):
            index = forest.predict(block.reshape(len(block), -1).T).astype(int)
            theirs[strip.slices] = ids[index].reshape(strip.shape)
    scores = [
        confusion(labels, mask, labels_offset=1, ignore=IGNORE_ID).miou
        for labels in (ours, theirs)
    ]
    return {
        "pixels": int(ours.size),
        "differing": int((ours != theirs).sum()),
        "miou": scores[0],
        "sklearn_miou": scores[1],
    }


@contextmanager
def _grown_forests() -> Iterator[list[Any]]:
    """Collect the forests that scikit-learn grows meanwhile."""
    from sklearn.ensemble import RandomForestClassifier

    grown: list[Any] = []
    fit = RandomForestClassifier.fit

    def noted(self: Any, *args: Any, **kwargs: Any) -> Any:
        grown.append(self)
        return fit(self, *args, **kwargs)

    with patch.object(RandomForestClassifier, "fit", noted):
        yield grown


# ----------------------------------------------------------------------- 3. extraction


def _extraction(data: Path, side: int, runs: int) -> dict[str, Any]:
    found = in_child(f"{PART}:run_extract", data=data, side=side, runs=runs)
    ratios = [
        ours / bare for ours, bare in zip(found["ours"], found["bare"], strict=True)
    ]
    rows = [
        ["tiles to store, on disk", spread(found["ours"]), spread(ratios, 3)],
        ["bare sum of the forwards", spread(found["bare"]), "1"],
    ]
    head = (
        "ViT-S/14, ALiBi, float32",
        "seconds: median (min to max)",
        "ratio, pairwise",
    )
    title = (
        f"{side} x {side}, {found['tiles']} tiles of 518 px, tile by tile in turns, "
        f"peak {found['peak_mb']:.0f} MB above imports"
    )
    report(PART, title, table(head, rows))
    return found


def run_extract(data: str, side: int, runs: int) -> dict[str, Any]:
    """Time extraction and bare forwards, tile by tile in turns."""
    import torch

    from napari_alibi_seg import Alibi, Segmenter
    from napari_alibi_seg.features import load_backbone

    image, _, _ = three_phases(Path(data), side)
    stages = Stages(*OURS, "zarr")
    times: dict[str, list[float]] = {"ours": [], "bare": []}
    with tempfile.TemporaryDirectory() as folder:
        backbone = load_backbone(random_vit(Path(folder)), alibi=Alibi(), device="cpu")
        bare = BareForward("small")
        tile = torch.randn(1, 3, 518, 518, generator=torch.Generator().manual_seed(0))
        for _ in range(2):
            bare(tile)
            backbone.patch_features(tile)
        for k in range(runs):
            segmenter = Segmenter(backbone, store=Path(folder) / f"store-{k}")
            with stages.stage("extract"):
                ours, alone = _in_turns(segmenter, image, lambda: bare(tile))
            times["ours"].append(sum(ours))
            times["bare"].append(sum(alone))
    peak = stages.peak_mb["extract"]
    return {**times, "tiles": len(alone), "peak_mb": peak}


def _in_turns(
    segmenter: Any, image: np.ndarray, forward: Callable[[], Any]
) -> tuple[list[float], list[float]]:
    """Extract an image with a bare forward after every tile; return seconds of both.

    So close together that other work on the machine meets both alike. The first entry
    of ours is what comes before the first tile: intensity range, hash, store.
    """
    seconds, embedding = timed(segmenter.prepare, image)
    ours, bare = [seconds], []
    steps = segmenter.iter_complete(embedding)
    while True:
        seconds, step = timed(next, steps, None)
        if step is None:
            return ours, bare
        ours.append(seconds)
        bare.append(timed(forward)[0])


# ---------------------------------------------------------------- 4. one more scribble


def _change(data: Path, side: int, times: int) -> dict[str, Any]:
    found = in_child(f"{PART}:run_change", data=data, side=side, times=times)
    rows = []
    for kind, values in found["kinds"].items():
        totals = [f + p for f, p in zip(values["fit"], values["predict"], strict=True)]
        rows.append(
            [
                *(kind, f"{values['first']:.2f}", spread(values["fit"])),
                *(spread(values["predict"]), spread(totals)),
                f"{np.percentile(totals, 90):.2f}",
            ]
        )
    head = (
        *("features", "first time s", "fit s: median (min to max)"),
        *(
            "predict s: median (min to max)",
            "both s: median (min to max)",
            "90 % below s",
        ),
    )
    title = (
        f"{side} x {side}, changed scribble, `patch`, stored tokens, {times} changes"
    )
    report(PART, title, table(head, rows))
    return found


def run_change(data: str, side: int, times: int) -> dict[str, Any]:
    """Paint one more stroke, fit and segment, several times."""
    from napari_alibi_seg import Alibi, ClassifierSettings, FeatureSettings, Segmenter
    from napari_alibi_seg.features import load_backbone

    image, painted, _ = three_phases(Path(data), side)
    out: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        backbone = load_backbone(random_vit(Path(folder)), alibi=Alibi(), device="cpu")
        for kind in ("vit", "both"):
            segmenter = Segmenter(
                backbone,
                features=FeatureSettings(kind=kind),
                classifier=ClassifierSettings(resolution="patch"),
                store=Path(folder) / "store",
            )
            embedding = segmenter.embed(image)
            started = time.perf_counter()
            segmenter.fit(embedding, painted).predict(embedding)
            values: dict[str, Any] = {"first": time.perf_counter() - started}
            values.update(_changes(segmenter, embedding, painted, times))
            out[kind] = values
    return {"kinds": out}


def _changes(
    segmenter: Any, embedding: Any, painted: np.ndarray, times: int
) -> dict[str, list[float]]:
    rng = np.random.default_rng(0)
    out: dict[str, list[float]] = {"fit": [], "predict": []}
    for k in range(times):
        y, x = (int(rng.integers(0, n - 40)) for n in painted.shape)
        painted = painted.copy()
        painted[y : y + 3, x : x + 40] = 1 + k % int(painted.max())
        out["fit"].append(timed(segmenter.fit, embedding, painted)[0])
        out["predict"].append(timed(segmenter.predict, embedding)[0])
    return out


if __name__ == "__main__":
    raise SystemExit(main())
