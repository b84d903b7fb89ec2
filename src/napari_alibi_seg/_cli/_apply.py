"""Segment files or folders with a classifier.

Writes NAME_labels.tif for every image, and NAME_probabilities.tif (float32, one plane
a class by ascending id) and NAME_uncertainty.tif (float32, 0 to 1) if asked for, with
the pixel size of the image; and summary.csv with one row a file. A file that fails is
a row, the others go on. Running again skips what is done:

  alibi-seg apply my.alibiseg scans/ --out segmented --probabilities
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

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
        "--plane", type=int, metavar="Z", help="plane of stacks, from 0"
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="threads (default: all cores)"
    )
    add_store(parser)
    add_json(parser)


def command(args: argparse.Namespace) -> int:
    """Apply and report."""
    from napari_alibi_seg._segmenter import (
        BatchOptions,
        FileResult,
        Segmenter,
        find_inputs,
        iter_apply,
    )

    inputs = find_inputs(args.inputs, recursive=args.recursive)
    segmenter = Segmenter.load(
        args.classifier,
        backbone=args.backbone,
        store=store_folder(args),
        device=args.device,
        workers=args.workers,
    )
    options = BatchOptions(
        probabilities=args.probabilities,
        uncertainty=args.uncertainty,
        overwrite=args.overwrite,
        plane=args.plane,
    )
    results: list[FileResult] = []
    with TileBar() as bar:
        for step in iter_apply(segmenter, inputs, args.out, options):
            if isinstance(step, FileResult):
                results.append(step)
                count = f"[{len(results)}/{len(inputs)}]"
                note(f"{count} {step.file}: {step.error or step.status}")
            else:
                bar.show(f"{Path(step.file).name} {step.stage}", step.done, step.total)
    failed = sum(r.status == "failed" for r in results)
    emit(args, _report(args, results), "" if failed else f"Wrote {args.out}")
    return EXIT_FAILED if failed else EXIT_OK


def _report(args: argparse.Namespace, results: list[Any]) -> dict[str, Any]:
    return {
        "out": str(args.out),
        "files": [
            {**asdict(r), "fractions": {str(k): v for k, v in r.fractions.items()}}
            for r in results
        ],
    }
