"""Score segmentations against ground truth.

Predictions and truths pair by order. Truth id = prediction - K with --labels-offset K
(scribbles that painted class k as k+1 need K = 1). Predicted 0 with K > 0, and ids
that the truth does not know, count as wrong. Pixels where the truth is --ignore do
not count. The mean IoU is over the ids that occur in the truth.

  alibi-seg evaluate out/a_labels.tif --truth a_mask.png --labels-offset 1 --json
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from napari_alibi_seg._base import SettingsError
from napari_alibi_seg._cli._common import EXIT_OK, add_json, emit, note


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "predictions",
        nargs="+",
        type=Path,
        metavar="PREDICTION",
        help="label images, as `alibi-seg apply` writes them",
    )
    parser.add_argument(
        "--truth",
        nargs="+",
        type=Path,
        metavar="TRUTH",
        required=True,
        help="masks of the same shapes",
    )
    parser.add_argument(
        "--labels-offset",
        type=int,
        default=0,
        metavar="K",
        help="predicted id minus truth id (default: 0)",
    )
    parser.add_argument(
        "--ignore", type=int, default=255, metavar="ID", help="default: 255"
    )
    add_json(parser)


def command(args: argparse.Namespace) -> int:
    """Score and report."""
    from napari_alibi_seg.data import EvaluationPair, evaluate_pairs, read_labels

    if len(args.predictions) != len(args.truth):
        raise SettingsError(
            f"Each prediction needs its truth, got {len(args.predictions)} "
            f"prediction(s) and {len(args.truth)} truth image(s)."
        )
    # a generator: one pair is in memory at a time
    pairs = (
        EvaluationPair(read_labels(p), read_labels(t), str(p), str(t))
        for p, t in zip(args.predictions, args.truth, strict=True)
    )
    scores = evaluate_pairs(pairs, labels_offset=args.labels_offset, ignore=args.ignore)
    result = scores.to_dict()
    for text in scores.notes:
        note(text)
    emit(args, result, _table(result))
    return EXIT_OK


def _table(result: dict[str, Any]) -> str:
    def number(value: float | None) -> str:
        return "    -" if value is None else f"{value:.4f}"

    lines = [
        f"mean IoU {number(result['miou'])}   accuracy {number(result['accuracy'])}"
    ]
    lines.append(f"{'id':>6} {'IoU':>8} {'truth px':>12} {'predicted px':>13}")
    for key, c in result["classes"].items():
        lines.append(
            f"{key:>6} {number(c['iou']):>8} {c['truth_pixels']:>12} "
            f"{c['predicted_pixels']:>13}"
        )
    for image in result["images"]:
        lines.append(f"{number(image['miou']):>8}  {image['prediction']}")
    return "\n".join(lines)
