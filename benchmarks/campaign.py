"""From 1 to 400 megapixels: seconds a megapixel and memory of `alibi-seg apply`.

The large micrograph of the reference data is mirrored into a tiled, deflated TIFF of
each size, which is never whole in memory. One classifier, trained on a corner, is
applied to all of them by the steps of `alibi-seg apply`, each in a child process: ViT
tokens to a store on disk (`extraction`), tiles of labels to another (`prediction`), a
tiled, compressed TIFF with coarser levels (`export`). ViT: the bundled `alibi-tiny` at
working scale 0.5, which two cores can afford: 400 megapixels take some 20 minutes of
CPU time.

CPU seconds are user and system time of all threads. Other work on a machine changes
them too, though less than the wall clock; so 4 megapixels, to which all is compared,
run again after each larger size.

    python benchmarks/campaign.py                     # all
    python benchmarks/campaign.py --sizes 1 4 26

Finished runs are kept in results/campaign.jsonl. A size that was killed goes on from
its stores in --work, and so do its seconds, but for the last ten at most; loading
everything again is counted again.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _common import (
    RESULTS,
    in_child,
    machine,
    parser,
    peak_mb,
    report,
    reset_peak,
    resident_mb,
    save,
    table,
)

PART = "campaign"
# Megapixels as they are spoken of, and the side of the square.
SIDES = {1: 1000, 4: 2000, 26: 5120, 100: 10_000, 400: 20_000}
REFERENCE = 4
REPEATS = 3
STAGES = ("extraction", "prediction", "export")
SCALE = 0.5
COMPONENTS = 8
_TRAIN_PX = 1036
_TILE_PX = 512
_SAVE_EVERY_S = 10.0
_MEMORY_POINTS = 40


def main(argv: Sequence[str] | None = None) -> int:
    options = parser(__doc__)
    options.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        choices=SIDES,
        metavar="MP",
        help=f"some of {list(SIDES)} (default: all, or 1 and 4 if --quick)",
    )
    options.add_argument(
        "--features", choices=("both", "vit", "classical"), default="both"
    )
    options.add_argument(
        "--work",
        type=Path,
        default=RESULTS / f"{PART}.work",
        metavar="DIR",
        help="for images and stores: gigabytes (default: results/campaign.work)",
    )
    options.add_argument(
        "--again", action="store_true", help="forget the runs that are finished"
    )
    options.add_argument(
        "--show", action="store_true", help="run nothing: the tables of what is kept"
    )
    args = options.parse_args(argv)
    record = RESULTS / f"{PART}.jsonl"
    if args.again:
        record.unlink(missing_ok=True)
    rows = kept_rows(record)
    if not args.show:
        run_missing(args, record, rows)
        save(PART, {"runs": rows})
    shown = [r for r in rows if r["features"] == args.features]
    report(PART, f"{args.features}, labels as TIFF", text_of(shown))
    return 0


def run_missing(
    args: argparse.Namespace, record: Path, rows: list[dict[str, Any]]
) -> None:
    """Do the runs that are not among the rows, and add theirs here and on disk."""
    sizes = sorted(args.sizes or ([1, 4] if args.quick else SIDES))
    known = Counter(r["megapixels"] for r in rows if r["features"] == args.features)
    for megapixels in planned(sizes, 1 if args.quick else REPEATS):
        if known[megapixels] > 0:
            known[megapixels] -= 1
            continue
        row = measured(args.data, args.work, megapixels, args.features)
        rows.append(row)
        RESULTS.mkdir(exist_ok=True)
        with record.open("a") as file:
            file.write(json.dumps(row, sort_keys=True) + "\n")
        print(f"{megapixels} MP: {cpu_per_mp(row):.2f} CPU s per MP", flush=True)


def planned(sizes: Sequence[int], repeats: int) -> list[int]:
    """Return the runs in order: small sizes often, the reference between large ones."""
    small = [s for s in sizes if s <= REFERENCE for _ in range(repeats)]
    large = [s for s in sizes if s > REFERENCE]
    beside = [REFERENCE] if REFERENCE in sizes else []
    return small + [run for size in large for run in (size, *beside)]


def kept_rows(record: Path) -> list[dict[str, Any]]:
    if not record.exists():
        return []
    return [json.loads(line) for line in record.read_text().splitlines()]


# --------------------------------------------------------------------------- table


def text_of(rows: list[dict[str, Any]]) -> str:
    """Return the tables of the sizes that were run, and which are not finished."""
    sizes = sorted({r["megapixels"] for r in rows})
    runs = {s: [r for r in rows if r["megapixels"] == s] for s in sizes}
    mean = {s: statistics.median(map(cpu_per_mp, runs[s])) for s in sizes}
    base = mean.get(REFERENCE)
    lines = []
    for size in sizes:
        by_stage = [
            f"{statistics.median(per_mp(r, 'cpu', s) for r in runs[size]):.2f}"
            for s in STAGES
        ]
        every = sorted(map(cpu_per_mp, runs[size]))
        wall = statistics.median(per_mp(r, "wall", *STAGES) for r in runs[size])
        lines.append(
            [
                *(size, len(runs[size]), *by_stage),
                f"{mean[size]:.2f} ({every[0]:.2f} to {every[-1]:.2f})",
                "-" if base is None else f"{mean[size] / base:.2f}",
                f"{wall:.2f}",
            ]
        )
    head = ("MP", "runs", *STAGES, "all, CPU s a MP", f"times {REFERENCE} MP", "wall")
    return f"{table(head, lines)}\n\n{_memory_text(runs)}{_unfinished(sizes)}"


def _memory_text(runs: dict[int, list[dict[str, Any]]]) -> str:
    lines = []
    for size, found in runs.items():
        peaks = [
            f"{max(r['stages'].get(s, {}).get('peak_mb', 0) for r in found):.0f}"
            for s in STAGES
        ]
        places = ("image", *_PLACES, "output")
        disk = [f"{found[-1]['disk_mb'][place]:.1f}" for place in places]
        lines.append([size, *peaks, max(map(int, peaks)), *disk])
    head = ("MP", *STAGES, "peak MB", "image on disk", *_PLACES, "output")
    return table(head, lines)


def _unfinished(sizes: Sequence[int]) -> str:
    missing = [str(s) for s in SIDES if s not in sizes]
    if not missing:
        return ""
    command = f"python benchmarks/{PART}.py --sizes {' '.join(missing)}"
    return (
        f"\n\nNot finished: {', '.join(missing)} MP. To run or to go on: `{command}`."
    )


def per_mp(row: dict[str, Any], what: str, *stages: str) -> float:
    """Return seconds per megapixel of some stages."""
    total = sum(row["stages"].get(s, {}).get(what, 0.0) for s in stages)
    return float(total / (row["side"] ** 2 / 1e6))


def cpu_per_mp(row: dict[str, Any]) -> float:
    return per_mp(row, "cpu", *STAGES)


# ----------------------------------------------------------------------------- runs


def measured(data: Path, work: Path, megapixels: int, features: str) -> dict[str, Any]:
    """Return the row of one run; images and classifiers are made where they lack."""
    work.mkdir(parents=True, exist_ok=True)
    side = SIDES[megapixels]
    image = work / f"image-{side}.tif"
    classifier = work / f"{features}.alibiseg"
    if not image.exists():
        in_child(f"{PART}:write_mosaic", data=data, side=side, path=image)
    if not classifier.exists():
        in_child(f"{PART}:train", data=data, features=features, path=classifier)
    folder = work / f"{features}-{side}"
    found = in_child(f"{PART}:run", image=image, classifier=classifier, folder=folder)
    shutil.rmtree(folder)
    settings = {"scale": SCALE, "components": COMPONENTS, "features": features}
    who = {"megapixels": megapixels, "side": side, "machine": machine()}
    return {**who, **settings, **found}


def write_mosaic(data: str, side: int, path: str) -> None:
    """Write the mirrored micrograph tile by tile; it takes its name when whole."""
    import tifffile

    target = Path(path)
    partial = target.with_suffix(".partial")
    with tifffile.TiffWriter(partial) as tif:
        tif.write(
            _mosaic_tiles(Path(data), side),
            shape=(side, side),
            dtype=np.uint8,
            tile=(_TILE_PX, _TILE_PX),
            compression="zlib",
            photometric="minisblack",
            metadata=None,
        )
    partial.rename(target)


def _mosaic_tiles(data: Path, side: int) -> Iterator[np.ndarray]:
    from napari_alibi_seg._base import Window
    from napari_alibi_seg.data import pixel_tiles

    source = _micrograph(data)
    for w in pixel_tiles((side, side), _TILE_PX):
        at = [
            _mirror(np.arange(*span), n)
            for span, n in zip(((w.y0, w.y1), (w.x0, w.x1)), source.shape, strict=True)
        ]
        (y0, y1), (x0, x1) = ((int(a.min()), int(a.max()) + 1) for a in at)
        block = source.read(Window(y0, y1, x0, x1))[..., 0]
        yield np.ascontiguousarray(block[at[0] - y0][:, at[1] - x0])


def _mirror(at: np.ndarray, length: int) -> np.ndarray:
    at = at % (2 * length)
    return np.minimum(at, 2 * length - 1 - at)


def _micrograph(data: Path) -> Any:
    """Return the large micrograph, or a synthetic one where there is none."""
    from napari_alibi_seg.data import open_image, synthesize

    files = sorted((data / "large").glob("*.tif")) if (data / "large").is_dir() else []
    if files:
        return open_image(files[0])
    return open_image(synthesize("precipitates", (1024, 1024)).image)


def train(data: str, features: str, path: str) -> None:
    """Write a classifier of three classes, trained on a corner."""
    from large import brightness_classes

    from napari_alibi_seg import FeatureSettings, Segmenter
    from napari_alibi_seg._base import Window
    from napari_alibi_seg.data import draw_scribbles

    source = _micrograph(Path(data))
    n = min(_TRAIN_PX, *source.shape)
    corner = source.read(Window(0, n, 0, n))[..., 0]
    painted = draw_scribbles(brightness_classes(corner), strokes_per_class=4)
    settings = FeatureSettings(kind=features, scale=SCALE, components=COMPONENTS)
    backbone = None if features == "classical" else "alibi-tiny"
    segmenter = Segmenter(backbone, features=settings, device="cpu")
    segmenter.fit(corner, painted).save(Path(path))


def run(image: str, classifier: str, folder: str) -> dict[str, Any]:
    """Apply in this process; return seconds, memory and disk of each stage."""
    import importlib

    from napari_alibi_seg import Segmenter

    for name in ("numba", "sklearn.ensemble", "torch", "timm", "zarr", "tifffile"):
        importlib.import_module(name)
    importlib.import_module("napari_alibi_seg._segmenter")
    work = Path(folder)
    work.mkdir(exist_ok=True)
    ledger = Ledger(work / "ledger.json")
    with ledger:
        segmenter = Segmenter.load(
            Path(classifier), store=work / "stores", device="cpu"
        )
        _apply(segmenter, Path(image), work, ledger)
    written = ledger.disk_mb | {
        "image": _size_mb(Path(image)),
        "output": _size_mb(work / "out"),
    }
    return {"stages": ledger.stages, "runs": ledger.runs, "disk_mb": written}


# What is on disk at the end of a stage and gone after the last.
_PLACES = {"tokens": "stores", "tiles": "out"}


def _apply(segmenter: Any, image: Path, work: Path, ledger: Ledger) -> None:
    from napari_alibi_seg._segmenter import (
        BatchOptions,
        FileResult,
        find_inputs,
        iter_apply,
    )

    inputs = find_inputs([image])
    for step in iter_apply(segmenter, inputs, work / "out", BatchOptions()):
        if isinstance(step, FileResult):
            if step.error:
                raise SystemExit(step.error)
        elif step.stage == "features":
            ledger.note(step.done / step.total)
            if step.done == step.total:
                ledger.disk_mb["tokens"] = _size_mb(work / _PLACES["tokens"])
                ledger.switch("prediction")
        elif not step.note:
            # a run that goes on may have no features left to compute
            ledger.switch("prediction")
            ledger.note(step.done / step.total)
            if step.done == step.total:
                ledger.disk_mb["tiles"] = _size_mb(work / _PLACES["tiles"])
                ledger.switch("export")


def _size_mb(path: Path) -> float:
    """Return what a file or folder takes on disk, in blocks."""
    every = [path, *path.rglob("*")] if path.is_dir() else [path]
    blocks = 0
    for one in every:
        stat = one.stat()
        n = getattr(stat, "st_blocks", math.ceil(stat.st_size / 512))
        blocks += n
    return blocks * 512 / 2**20


class Ledger:
    """Wall and CPU seconds, peak memory and memory over time, by stage.

    A context around the work of one process. It is written to a file every ten seconds,
    and the next process goes on from there when this one was killed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        kept = json.loads(path.read_text()) if path.exists() else {}
        self.stages: dict[str, dict[str, Any]] = kept.get("stages", {})
        self.runs: int = kept.get("runs", 0) + 1
        self.disk_mb: dict[str, float] = kept.get("disk_mb", {})
        for name in _PLACES:
            self.disk_mb.setdefault(name, 0.0)
        self._base_mb = resident_mb()
        self._stage = STAGES[0]

    def __enter__(self) -> Ledger:
        self._begin(STAGES[0])
        return self

    def __exit__(self, *_: object) -> None:
        self._count()
        self._write()

    def switch(self, stage: str) -> None:
        """End the stage that is open and begin another, unless it is that one."""
        if stage != self._stage:
            self._count()
            self._begin(stage)
            self._write()

    def note(self, share: float) -> None:
        """Count what was done so far; `share` of the stage is done."""
        at = round(share * _MEMORY_POINTS) / _MEMORY_POINTS
        self._of_stage()["memory"][f"{at:g}"] = round(resident_mb() - self._base_mb)
        if time.perf_counter() - self._wall > _SAVE_EVERY_S:
            self._count()
            self._write()

    def _begin(self, stage: str) -> None:
        self._stage = stage
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        reset_peak()

    def _of_stage(self) -> dict[str, Any]:
        new = {"wall": 0.0, "cpu": 0.0, "peak_mb": 0.0, "memory": {}}
        return self.stages.setdefault(self._stage, new)

    def _count(self) -> None:
        found = self._of_stage()
        wall, cpu = time.perf_counter(), time.process_time()
        found["wall"] += wall - self._wall
        found["cpu"] += cpu - self._cpu
        found["peak_mb"] = max(found["peak_mb"], peak_mb() - self._base_mb)
        self._wall, self._cpu = wall, cpu

    def _write(self) -> None:
        values = {"stages": self.stages, "runs": self.runs, "disk_mb": self.disk_mb}
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(values))
        partial.replace(self._path)


if __name__ == "__main__":
    raise SystemExit(main())
