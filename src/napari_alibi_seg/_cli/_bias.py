r"""Measure how much position is in the features of your images, for some backbones.

Crops are drawn from the images and shown to every backbone as they are, turned by half
a turn, and rolled. One row a backbone says how much of a token's place a probe reads in
crops that it was not fitted on (transfer R2), beside what it reads where there is
nothing to read (floor), and what it follows when the image is moved: the frame is bias,
the content is shading. Cures of position bias may stand behind a backbone's name:

  alibi-seg bias scans/*.tif --backbone dinov2-s-reg dinov2-s-reg+roll alibi-dinov2-s \
      --figure bias.png

The figure shows, for each backbone, what the probe reads of column and row, how well
each channel of each layer tells the column, principal components and k-means. What the
numbers mean, and what they do not say, is in docs/position-bias.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_alibi_seg._base import AlibiSegError, Backbone, OutputError, SettingsError
from napari_alibi_seg._cli._common import EXIT_OK, TileBar, add_json, emit, note

if TYPE_CHECKING:
    from napari_alibi_seg.analysis import Crops, PositionReport

_FORMATS = (".pdf", ".png", ".svg")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    parser.add_argument(
        "--backbone",
        nargs="+",
        action="extend",
        metavar="NAME|PATH",
        help="what to compare, after the images: ViTs by name (see `alibi-seg models`) "
        "or weights file, cures behind them (default: all ViTs whose weights are here)",
    )
    parser.add_argument(
        "--figure", type=Path, metavar="OUT", help="write one: .png, .pdf or .svg"
    )
    parser.add_argument(
        "--plane", type=int, metavar="Z", help="plane of stacks, from 0"
    )
    parser.add_argument(
        "--time", type=int, metavar="T", help="point in time of series, from 0"
    )
    parser.add_argument(
        "--crops", type=int, default=32, metavar="N", help="at most (default: 32)"
    )
    parser.add_argument(
        "--side",
        type=int,
        metavar="PX",
        help="side of a crop (default: 336, or 224 where few of those fit)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="other crops (default: 0)"
    )
    parser.add_argument(
        "--device",
        default="auto",
        help="where the ViT runs: auto, cpu, cuda, cuda:N or mps (default: auto)",
    )
    add_json(parser)


def command(args: argparse.Namespace) -> int:
    """Measure and report."""
    _check(args)
    started = time.perf_counter()
    names = args.backbone or _all_here()
    crops = _crops(args)
    for text in crops.notes:
        note(f"Warning: {text}")
    note(
        f"{len(crops)} crops of {crops.side_px} px from {crops.n_images} "
        f"image{'s' if crops.n_images > 1 else ''}; {len(names)} "
        f"backbone{'s' if len(names) > 1 else ''}."
    )
    # all are loaded first: a wrong name must not cost the work of those before it
    backbones = [_loaded(name, args.device) for name in names]
    reports = [
        _measured(backbone, crops, args.seed, f"{i + 1}/{len(backbones)} ")
        for i, backbone in enumerate(backbones)
    ]
    if args.figure is not None:
        _write_figure(args.figure, reports, crops)
    result = {
        "images": [str(path) for path in args.images],
        "crops": {
            "n": len(crops),
            "side_px": crops.side_px,
            "n_images": crops.n_images,
            "notes": list(crops.notes),
        },
        "backbones": [report.to_dict() for report in reports],
        "figure": None if args.figure is None else str(args.figure),
        "seconds": round(time.perf_counter() - started, 3),
    }
    emit(args, result, _as_text(args, reports))
    return EXIT_OK


def _check(args: argparse.Namespace) -> None:
    """Refuse what cannot work before anything is computed."""
    if args.crops < 1:
        raise SettingsError(f"`--crops` must be 1 or more, got {args.crops}.")
    if args.seed < 0:
        raise SettingsError(f"`--seed` must be 0 or more, got {args.seed}.")
    out: Path | None = args.figure
    if out is None:
        return
    if out.suffix.lower() not in _FORMATS:
        raise SettingsError(
            f"`--figure` must end in {', '.join(_FORMATS)}, got {str(out)!r}."
        )
    if not out.parent.is_dir():
        raise OutputError(
            f"{out}: there is no folder {str(out.parent)!r}. Make it, or name another."
        )


def _all_here() -> list[str]:
    """Return the ViTs whose weights are on this machine."""
    from napari_alibi_seg.features import find_weights, list_backbones

    return [
        spec.name
        for spec in list_backbones()
        if spec.kind != "classical"
        and find_weights(spec.name) is not None
        and (spec.base is None or find_weights(spec.base) is not None)
    ]


def _crops(args: argparse.Namespace) -> Crops:
    from napari_alibi_seg.analysis import draw_crops
    from napari_alibi_seg.data import open_image

    place = {"plane": args.plane, "time": args.time}
    sources = [open_image(path, **place) for path in args.images]
    return draw_crops(sources, n_crops=args.crops, side_px=args.side, seed=args.seed)


def _loaded(name: str, device: str) -> Backbone:
    from napari_alibi_seg.features import load_backbone

    try:
        return load_backbone(name, device=device)
    except AlibiSegError as err:
        raise type(err)(f"--backbone {name}: {err}") from err


def _measured(
    backbone: Backbone, crops: Crops, seed: int, label: str
) -> PositionReport:
    from napari_alibi_seg.analysis import iter_position_report

    with TileBar(f"{label}{backbone.name} ", unit="step") as bar:
        for step in iter_position_report(backbone, crops, seed=seed):
            bar.show(step.stage, step.done, step.total)
            if step.result is not None:
                report = step.result
    note(f"{report.name}: {report.sentence} ({report.seconds:.1f} s)")
    return report


def _write_figure(path: Path, reports: Sequence[PositionReport], crops: Crops) -> None:
    from napari_alibi_seg._cli._bias_figure import draw_bias_figure
    from napari_alibi_seg.data import write_bytes_atomic

    kind = path.suffix.lower().lstrip(".")
    write_bytes_atomic(path, draw_bias_figure(reports, crops.files[-1], kind))


# ------------------------------------------------------------------------------- text

_HEAD = (
    *("backbone", "position", "transfer R2", "floor", "single R2", "floor"),
    *("channels", "follows", "MIC", "of noise", "cosine drop", "clusters", "s"),
)
_NAME = 32
_FOLLOWS = {
    "bias": "frame",
    "content": "content",
    "both": "both",
    "neither": "neither",
}
_LEGEND = (
    "transfer R2: of column and row, in crops the probe was not fitted on, and the "
    "same where place was shuffled.",
    "single R2: within a crop, and of noise as smooth. Channels that tell place by "
    "themselves. Follows: frame is bias, content is shading.",
    "MIC: what the best channel tells, and of noise. Cosine drop: how much less alike "
    "crops are far apart in the frame. Clusters: what k-means tells of place.",
)


def _as_text(args: argparse.Namespace, reports: Sequence[PositionReport]) -> str:
    rows = [list(_HEAD), *(_row(report) for report in reports)]
    widths = [max(len(row[k]) for row in rows) for k in range(len(_HEAD))]
    lines = [
        "  ".join(
            cell.ljust(width) if k < 2 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines += ["", *_LEGEND]
    if args.figure is not None:
        lines += ["", f"Wrote {args.figure}"]
    return "\n".join(lines)


def _row(report: PositionReport) -> list[str]:
    row = report.table["lr+ud"]
    return [
        _short(report.name),
        report.level,
        _number(row.transfer_r2),
        _floor(row.transfer_floor),
        _number(row.single_r2),
        _floor(row.single_floor),
        f"{len(row.channels)}/{report.table.n_channels}",
        _FOLLOWS[report.verdict],
        _number(report.artefact),
        _number(report.artefact_floor),
        _number(report.cosine_drop),
        _number(report.clusters),
        f"{report.seconds:.1f}",
    ]


def _short(name: str) -> str:
    """Return a name that leaves room for numbers: lists of channels are long."""
    return name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"


def _number(value: float | None) -> str:
    # no "-0.00"
    return "-" if value is None else f"{round(value, 2) + 0.0:.2f}"


def _floor(floor: Any) -> str:
    return "-" if floor is None else f"{_number(floor.mean)} ± {floor.sd:.2f}"
