"""Segment files or folders with a classifier.

Writes NAME_labels.tif for every image, and NAME_probabilities.tif (float32, one plane
a class by ascending id) and NAME_uncertainty.tif (float32, 0 to 1) if asked for, with
the pixel size of the image; with --format ome-zarr folders NAME_labels.ome.zarr and so
on. And summary.csv with one row a file. A file that fails is a row, the others go on.
Running again skips what is done and goes on with what is half done:

  alibi-seg apply my.alibiseg scans/ --out segmented --probabilities

Of a stack or time series it segments the plane that --plane names, or all with
--all-planes: the outputs are then stacks of the same length, and --z-smooth 1 averages
the probabilities of neighbouring planes, which helps where planes are thin and noisy.
Of a series of stacks --time names the point in time; with --all-planes alone all are
done, and nothing is smoothed across time:

  alibi-seg apply my.alibiseg fib-sem.tif --out segmented --all-planes --z-smooth 1

With --workers or --scheduler many processes share the work, large images and stacks
too; outputs are the same bytes.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_alibi_seg._cli._cluster import add_cluster, cluster
from napari_alibi_seg._cli._common import (
    EXIT_FAILED,
    EXIT_OK,
    TileBar,
    add_json,
    add_store,
    emit,
    note,
    store_folder,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_alibi_seg._segmenter import BatchOptions, FileResult, Progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "classifier", type=Path, metavar="CLF.alibiseg", help="from `alibi-seg train`"
    )
    parser.add_argument(
        "inputs", nargs="+", type=Path, metavar="INPUT", help="image files or folders"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="made if need be"
    )
    parser.add_argument(
        "--probabilities", action="store_true", help="write those of each class too"
    )
    parser.add_argument(
        "--uncertainty", action="store_true", help="write normalised entropy too"
    )
    parser.add_argument(
        "--recursive", action="store_true", help="search folders within folders"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace outputs made otherwise"
    )
    parser.add_argument(
        "--backbone", metavar="PATH", help="where the weights are now (checked by hash)"
    )
    parser.add_argument(
        "--time", type=int, metavar="T", help="point in time of series, from 0"
    )
    planes = parser.add_mutually_exclusive_group()
    planes.add_argument(
        "--plane", type=int, metavar="Z", help="plane of stacks, from 0"
    )
    planes.add_argument(
        "--all-planes",
        action="store_true",
        help="all planes of stacks and time series; outputs are stacks too",
    )
    parser.add_argument(
        "--z-smooth",
        type=float,
        default=0.0,
        metavar="SIGMA",
        help="with --all-planes, smooth probabilities along the stack with a Gaussian "
        "of this many planes (default: 0, each plane alone)",
    )
    parser.add_argument(
        "--format",
        choices=("tiff", "ome-zarr"),
        default="tiff",
        help="of the outputs; both are compressed and have coarser levels where they "
        "are large (default: tiff)",
    )
    add_cluster(parser)
    add_store(parser)
    add_json(parser)


def command(args: argparse.Namespace) -> int:
    """Apply and report."""
    from napari_alibi_seg._segmenter import BatchOptions, FileResult, find_inputs

    inputs = find_inputs(args.inputs, recursive=args.recursive)
    options = BatchOptions(
        probabilities=args.probabilities,
        uncertainty=args.uncertainty,
        overwrite=args.overwrite,
        plane=args.plane,
        time=args.time,
        all_planes=args.all_planes,
        z_smooth=args.z_smooth,
        format=args.format,
    )
    results: list[FileResult] = []
    with TileBar() as bar, cluster(args) as client:
        for step in _steps(args, client, inputs, options):
            if isinstance(step, FileResult):
                results.append(step)
                count = f"[{len(results)}/{len(inputs)}]"
                note(f"{count} {step.file}: {step.error or step.status}")
            elif step.note:
                note(f"{step.file}: {step.note}")
            else:
                bar.show(f"{Path(step.file).name} {step.stage}", step.done, step.total)
    order = {str(path): k for k, path in enumerate(inputs)}
    results.sort(key=lambda r: order[r.file])
    failed = sum(r.status == "failed" for r in results)
    emit(args, _report(args, results), "" if failed else f"Wrote {args.out}")
    return EXIT_FAILED if failed else EXIT_OK


def _steps(
    args: argparse.Namespace, client: Any, inputs: list[Path], options: BatchOptions
) -> Iterator[Progress | FileResult]:
    """Work in this process, or on the workers that were asked for."""
    store = store_folder(args)
    if client is not None:
        from napari_alibi_seg._distributed import iter_apply_on

        more = {"backbone": args.backbone, "store": store, "device": args.device}
        return iter_apply_on(client, args.classifier, inputs, args.out, options, **more)
    from napari_alibi_seg._segmenter import Segmenter, iter_apply

    segmenter = Segmenter.load(
        args.classifier,
        backbone=args.backbone,
        store=store,
        device=args.device,
        workers=args.threads,
    )
    return iter_apply(segmenter, inputs, args.out, options)


def _report(args: argparse.Namespace, results: list[Any]) -> dict[str, Any]:
    return {
        "out": str(args.out),
        "files": [
            {**asdict(r), "fractions": {str(k): v for k, v in r.fractions.items()}}
            for r in results
        ],
    }
