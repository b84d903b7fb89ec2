"""Compute the ViT features of images and keep them.

`train` and `apply` find them again, on this machine or on another one to which the
store was copied: stores are checked against image, weights and settings. Killing the
command loses the tiles at hand at most; running it again goes on.

  alibi-seg features mosaic.tif --backbone alibi-dinov2-s --store features/

With --workers or --scheduler many processes share the tiles of every image; what they
store is the same.
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
from napari_alibi_seg._cli._vit import add_vit, choice, vit_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_alibi_seg._base import FeatureSettings
    from napari_alibi_seg._segmenter import FeatureFile, Progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    parser.add_argument(
        "--plane", type=int, metavar="Z", help="plane of a stack, from 0"
    )
    parser.add_argument(
        "--time", type=int, metavar="T", help="point in time of a series, from 0"
    )
    add_vit(parser)
    add_cluster(parser)
    add_store(parser)
    add_json(parser)


def command(args: argparse.Namespace) -> int:
    """Extract and report."""
    from napari_alibi_seg._base import FeatureSettings as Settings
    from napari_alibi_seg._base import validated
    from napari_alibi_seg._segmenter import FeatureFile

    settings = validated(Settings, {"kind": "vit", **vit_settings(args)})
    results: list[FeatureFile] = []
    with TileBar() as bar, cluster(args) as client:
        for step in _steps(args, client, settings):
            if isinstance(step, FeatureFile):
                results.append(step)
                megapixels = f"{step.pixels / 1e6:.1f} megapixels"
                done = f"{step.tiles} tiles, {megapixels}"
                note(f"{step.file}: {step.error or done}")
            elif step.note:
                note(f"{step.file}: {step.note}")
            else:
                bar.show(f"{Path(step.file).name} {step.stage}", step.done, step.total)
    order = {str(path): k for k, path in enumerate(args.images)}
    results.sort(key=lambda r: order[r.file])
    emit(args, {"files": [_row(r) for r in results]}, "")
    failed = any(r.status == "failed" for r in results)
    return EXIT_FAILED if failed else EXIT_OK


def _steps(
    args: argparse.Namespace, client: Any, settings: FeatureSettings
) -> Iterator[Progress | FeatureFile]:
    """Work in this process, or on the workers that were asked for."""
    from napari_alibi_seg.features import DEFAULT_BACKBONE

    chosen = choice(args, args.backbone or DEFAULT_BACKBONE)
    store = store_folder(args)
    if client is not None:
        from napari_alibi_seg._distributed import iter_features_on

        return iter_features_on(
            *(client, chosen, settings, args.images, store),
            plane=args.plane,
            time=args.time,
            device=args.device,
        )
    from napari_alibi_seg._segmenter import iter_feature_files

    backbone = chosen.load(args.device)
    return iter_feature_files(
        *(backbone, settings, args.images, store),
        plane=args.plane,
        time=args.time,
        workers=args.threads,
    )


def _row(result: FeatureFile) -> dict[str, Any]:
    row = asdict(result)
    del row["pixels"]
    if result.status == "failed":
        return {name: row[name] for name in ("file", "status", "error")}
    return {**row, "tokens": list(result.tokens)}
