"""Train a denoiser that takes position out of a backbone's features (DVT).

For each of some crops a field is fitted that tells what the crop shows from where in
the frame it stands (minutes a crop on a CPU); then one transformer block learns to do
the same in one pass:

  alibi-seg denoiser --backbone dinov2-s --images micrographs/ --out run/
  alibi-seg features image.tif --backbone dinov2-s+denoise=run/denoiser.pth --out tokens

Starting the same command again goes on where a run was stopped. It lowers position
bias only a little; `+roll`, `+average` or an ALiBi backbone do more.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from napari_alibi_seg._cli._common import EXIT_OK, TileBar, add_json, emit, note


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--backbone", required=True, metavar="NAME|PATH", help="a plain ViT"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder")
    parser.add_argument(
        "--images",
        nargs="+",
        type=Path,
        metavar="DIR",
        help="folders of images (default: generated micrographs)",
    )
    parser.add_argument(
        "--pairs", type=int, default=64, metavar="N", help="crops (default: 64)"
    )
    parser.add_argument(
        "--field",
        choices=("small", "medium", "paper"),
        default="small",
        help="how thoroughly a field is fitted: 49, 193 or 769 passes and 800, 3000 or "
        "20000 steps a crop (default: small)",
    )
    parser.add_argument(
        "--crop", type=int, default=518, metavar="PX", help="side (default: 518)"
    )
    parser.add_argument(
        "--steps", type=int, default=2000, metavar="N", help="(default: 2000)"
    )
    parser.add_argument(
        "--batch", type=int, default=16, metavar="N", help="crops a step (default: 16)"
    )
    parser.add_argument("--name", default="denoiser", help="of the result")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    add_json(parser)


def command(args: argparse.Namespace) -> int:
    """Fit and train to the end, or to where it is stopped."""
    from napari_alibi_seg.distill import iter_train_denoiser

    settings = _settings(args)
    note(
        f"{settings.name}: {settings.pairs} fields, {settings.steps} steps, for "
        f"{settings.backbone}, in {args.out}"
    )
    result = None
    with TileBar(f"{settings.name} ", unit="") as bar:
        for step in iter_train_denoiser(settings, args.out, device=args.device):
            if step.done:
                bar.show(step.stage, step.done, step.total)
            result = step.result
    emit(args, {"denoiser": str(result), "run": str(args.out)}, str(result))
    return EXIT_OK


def _settings(args: argparse.Namespace) -> Any:
    from napari_alibi_seg._base import validated
    from napari_alibi_seg.distill import DenoiserSettings

    data: dict[str, Any] = {"folder_share": 0.0, "synthetic_share": 1.0}
    if args.images is not None:
        data = {"folders": [str(folder) for folder in args.images]}
    return validated(
        DenoiserSettings,
        {
            "backbone": args.backbone,
            "name": args.name,
            "data": data,
            "crop_px": args.crop,
            "pairs": args.pairs,
            "field": args.field,
            "steps": args.steps,
            "batch": args.batch,
            "seed": args.seed,
        },
    )
