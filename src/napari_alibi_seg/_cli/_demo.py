"""Make a synthetic micrograph with exact ground truth and run the whole chain on it.

Draws a superalloy with precipitates of two sizes and eight strokes on each class, then
types `train`, `apply` and `evaluate` as you would (the commands are shown) and leaves
in DIR the micrograph, the scribbles, the truth, the classifier, the segmentation with
probabilities and uncertainty, one figure (demo.png) and a table (results.csv):

  alibi-seg demo --out demo-output

With the default ViT's weights here, or with --backbone, ViT and classical features are
used together and the figure shows the ViT's; else classical features alone. Needs no
network and no display. Equal arguments give equal files, but for seconds.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_alibi_seg._base import OutputError, SettingsError, Window
from napari_alibi_seg._cli._common import EXIT_OK, add_json, emit, note

if TYPE_CHECKING:
    from napari_alibi_seg._cli._views import FeatureViews
    from napari_alibi_seg._segmenter import Segmenter

_SIZES_PX = (128, 4096)
_KIND = "precipitates"
_USUAL_PIXEL_UM = 0.02
_STROKES_PER_CLASS = 8
# A wider brush would fit into the largest of the fine precipitates only.
_WIDEST_PX = 7
_N_CLUSTERS = 6
# A panel of the figure has about so many dots a side.
_VIEW_SIDE = 660


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="a new or empty folder, or that of an earlier demo",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="another material (default: 0)"
    )
    parser.add_argument(
        "--size",
        type=int,
        default=1024,
        metavar="PX",
        help="side of the micrograph, 128 to 4096 (default: 1024)",
    )
    vit = parser.add_argument_group("ViT", "as for `alibi-seg train`")
    vit.add_argument("--backbone", metavar="NAME|PATH")
    vit.add_argument("--alibi", choices=("constant", "fixed", "learned", "none"))
    vit.add_argument("--num-heads", type=int, metavar="N")
    vit.add_argument("--device", metavar="DEVICE")
    add_json(parser)


def command(args: argparse.Namespace) -> int:
    """Make, run, draw and report."""
    _check(args)
    run = _Run(args.out, ["-v"] * args.verbose)
    run.forget()
    with run.stage("synthesise"):
        sample = _make_sample(args, run)
    for name, argv in _chain(args, run, sample.names).items():
        with run.stage(name):
            code = run.call(name, argv)
        if code != EXIT_OK:
            # the command has said why on stderr
            if args.json and run.results[name]:
                print(json.dumps(run.results[name]))
            return code
    with run.stage("views"):
        segmenter, views = _views(args, run)
    with run.stage("figure"):
        _write_figure(run, segmenter, views)
    report = _report(args, run, sample)
    run.write_table(report)
    emit(args, report, _as_text(report))
    return EXIT_OK


class _Sample(NamedTuple):
    """Names of the classes by id, and the share of the field of ids 0 to K."""

    names: dict[int, str]
    fractions: list[float]


@dataclass
class _Run:
    """One demo: where its files are, what its commands said, how long they took."""

    out: Path
    flags: list[str]
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    typed: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def image(self) -> Path:
        # written first: the mark of a folder that a demo may write into
        return self.out / "demo_micrograph.tif"

    @property
    def truth(self) -> Path:
        return self.out / "demo_truth.png"

    @property
    def scribbles(self) -> Path:
        return self.out / "demo_scribbles.png"

    @property
    def classifier(self) -> Path:
        return self.out / "demo.alibiseg"

    @property
    def store(self) -> Path:
        return self.out / "features"

    @property
    def segmented(self) -> Path:
        return self.out / "segmented"

    def output(self, kind: str) -> Path:
        """Return one of the files that `apply` wrote."""
        return self.segmented / f"{self.image.stem}_{kind}.tif"

    @property
    def figure(self) -> Path:
        return self.out / "demo.png"

    @property
    def table(self) -> Path:
        return self.out / "results.csv"

    def forget(self) -> None:
        """Delete what an earlier demo segmented: found again, it would take no time."""
        for kind in ("labels", "probabilities", "uncertainty"):
            self.output(kind).unlink(missing_ok=True)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Note how long something takes."""
        started = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - started, 3)

    def call(self, name: str, argv: list[str]) -> int:
        """Run a command as if it had been typed, and keep what it answers."""
        from napari_alibi_seg._cli import main

        self.typed.append(shlex.join(["alibi-seg", name, *argv]))
        note(f"$ {self.typed[-1]}")
        with redirect_stdout(io.StringIO()) as answer:
            code = main([*self.flags, name, *argv, "--json"])
        self.results[name] = json.loads(answer.getvalue() or "{}")
        return code

    def write_table(self, report: dict[str, Any]) -> None:
        """Write one number a line."""
        from napari_alibi_seg.data import write_text_atomic

        rows = [("miou", "", "", f"{report['miou']:.6f}")]
        for measure in ("iou", "true_fraction", "measured_fraction"):
            for i, c in report["classes"].items():
                rows.append((measure, i, c["name"], f"{c[measure]:.6f}"))
        for stage, seconds in report["seconds"].items():
            rows.append(("seconds", "", stage, f"{seconds:.3f}"))
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(("measure", "class_id", "name", "value"))
        table.writerows(rows)
        write_text_atomic(self.table, text.getvalue())


def _check(args: argparse.Namespace) -> None:
    """Refuse what cannot work, and folders that hold somebody's files."""
    low, high = _SIZES_PX
    if not low <= args.size <= high:
        raise SettingsError(
            f"`--size` must lie in {low} to {high} pixels, got {args.size}."
        )
    if args.seed < 0:
        raise SettingsError(f"`--seed` must be 0 or more, got {args.seed}.")
    out: Path = args.out
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: expected a folder to write to, got a file.")
    if out.is_dir() and any(out.iterdir()) and not _Run(out, []).image.exists():
        raise OutputError(
            f"{out}: expected a new folder, an empty one or that of an earlier demo, "
            f"got one with other files. Name another folder."
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise OutputError(
            f"{out}: expected a folder that can be made, got "
            f"{err.strerror or err}. Name another folder."
        ) from err


def _make_sample(args: argparse.Namespace, run: _Run) -> _Sample:
    """Write micrograph, truth and scribbles."""
    from napari_alibi_seg.data import draw_scribbles, synthesize, write_image

    # Small fields need the usual magnification to show all classes; in large ones a
    # higher one leaves something to see when the figure shrinks them.
    zoom = min(max(args.size / 512, 1.0), 2.0)
    sample = synthesize(
        _KIND,
        (args.size, args.size),
        seed=args.seed,
        pixel_size_um=_USUAL_PIXEL_UM / zoom,
    )
    scribbles = draw_scribbles(
        sample.mask,
        strokes_per_class=_STROKES_PER_CLASS,
        width=min(max(3, round(args.size / 146)), _WIDEST_PX),
        seed=args.seed,
    )
    write_image(run.image, sample.image, axes="YX", pixel_size=sample.pixel_size)
    write_image(run.truth, sample.mask, axes="YX")
    write_image(run.scribbles, scribbles, axes="YX")
    counts = np.bincount(sample.mask.ravel(), minlength=len(sample.class_names) + 1)
    names = dict(enumerate(sample.class_names, start=1))
    return _Sample(names, (counts / counts.sum()).tolist())


def _chain(
    args: argparse.Namespace, run: _Run, names: dict[int, str]
) -> dict[str, list[str]]:
    """Return the commands to type, each with its arguments."""
    store = ["--store", str(run.store)]
    device = ["--device", args.device] if args.device else []
    vit = []
    for option in ("backbone", "alibi", "num_heads"):
        value = getattr(args, option)
        if value is not None:
            vit += [f"--{option.replace('_', '-')}", str(value)]
    image, labels = str(run.image), str(run.output("labels"))
    class_names = ",".join(f"{i}={name}" for i, name in names.items())
    train = [image, "--labels", str(run.scribbles), "--out", str(run.classifier)]
    train += ["--class-names", class_names, "--seed", str(args.seed)]
    files = ["--probabilities", "--uncertainty", "--overwrite"]
    apply = [str(run.classifier), image, "--out", str(run.segmented), *files]
    return {
        "train": [*train, *vit, *store, *device],
        "apply": [*apply, *store, *device],
        "evaluate": [labels, "--truth", str(run.truth)],
    }


def _views(args: argparse.Namespace, run: _Run) -> tuple[Segmenter, FeatureViews]:
    """Return the segmenter that was saved, and what its features look like."""
    from napari_alibi_seg._cli._views import feature_views
    from napari_alibi_seg._segmenter import Segmenter

    options = {"device": args.device} if args.device else {}
    segmenter = Segmenter.load(run.classifier, store=run.store, **options)
    views = feature_views(
        segmenter.embed(run.image),
        n_clusters=_N_CLUSTERS,
        max_side=_VIEW_SIDE,
        seed=args.seed,
    )
    return segmenter, views


def _write_figure(run: _Run, segmenter: Segmenter, views: FeatureViews) -> None:
    """Draw what lies in the files, not what was in memory when they were written."""
    from napari_alibi_seg._cli._figure import Panels, draw_figure
    from napari_alibi_seg.data import open_image, read_labels, write_bytes_atomic

    source = open_image(run.image)
    everything = Window(0, source.shape[0], 0, source.shape[1])
    uncertainty = open_image(run.output("uncertainty")).read(everything)
    panels = Panels(
        image_yx=source.read(everything)[..., 0],
        scribbles_yx=read_labels(run.scribbles),
        labels_yx=read_labels(run.output("labels")),
        uncertainty_yx=uncertainty[..., 0],
        views=views,
        features="Classical features" if segmenter.backbone is None else "ViT tokens",
        classes=segmenter.classes,
        pixel_size=source.pixel_size,
        miou=run.results["evaluate"]["miou"],
    )
    write_bytes_atomic(run.figure, draw_figure(panels))


def _report(args: argparse.Namespace, run: _Run, sample: _Sample) -> dict[str, Any]:
    train, apply, scores = (run.results[k] for k in ("train", "apply", "evaluate"))
    measured = apply["files"][0]["fractions"]
    return {
        "out": str(args.out),
        "seed": args.seed,
        "size": args.size,
        "features": train["features"],
        "miou": scores["miou"],
        "accuracy": scores["accuracy"],
        "classes": {
            str(i): {
                "name": name,
                "iou": scores["classes"][str(i)]["iou"],
                "true_fraction": sample.fractions[i],
                "measured_fraction": measured[str(i)],
            }
            for i, name in sample.names.items()
        },
        "seconds": {**run.seconds, "total": round(sum(run.seconds.values()), 3)},
        "figure": str(run.figure),
        "table": str(run.table),
        "commands": run.typed,
    }


def _as_text(report: dict[str, Any]) -> str:
    lines = [f"{'class':18} {'IoU':>7} {'true area':>10} {'measured':>10}"]
    for c in report["classes"].values():
        true, measured = (100 * c[f"{k}_fraction"] for k in ("true", "measured"))
        lines.append(f"{c['name']:18} {c['iou']:7.3f} {true:8.2f} % {measured:8.2f} %")
    lines.append(f"{'mean':18} {report['miou']:7.3f}")
    stages = (f"{name} {s:.1f}" for name, s in report["seconds"].items())
    lines += ["", f"Seconds: {', '.join(stages)}"]
    lines += [f"Features: {report['features']['reason']}"]
    lines += [f"Wrote {report['figure']} and {report['table']}"]
    return "\n".join(lines)
