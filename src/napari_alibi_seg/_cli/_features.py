"""Compute the ViT features of images and keep them.

`train` and `apply` find them again, on this machine or on another one to which the
store was copied: stores are checked against image, weights and settings. Killing the
command loses the tile at hand at most; running it again goes on.

  alibi-seg features mosaic.tif --backbone alibi-dinov2-s --store features/
"""

from __future__ import annotations

import argparse
import math
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
from napari_alibi_seg._cli._vit import add_vit, load_vit, vit_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    parser.add_argument(
        "--plane", type=int, metavar="Z", help="plane of a stack, from 0"
    )
    add_vit(parser)
    add_store(parser)
    add_json(parser)


def command(args: argparse.Namespace) -> int:
    """Extract and report."""
    from napari_alibi_seg._base import AlibiSegError, validated
    from napari_alibi_seg._base import FeatureSettings as Settings
    from napari_alibi_seg._segmenter import Segmenter
    from napari_alibi_seg.features import DEFAULT_BACKBONE

    features = validated(Settings, {"kind": "vit", **vit_settings(args)})
    backbone = load_vit(args, args.backbone or DEFAULT_BACKBONE)
    files: list[dict[str, Any]] = []
    failed = False
    for image in args.images:
        # every image measures its own range, as it would in training alone
        segmenter = Segmenter(backbone, features=features, store=store_folder(args))
        try:
            embedding = segmenter.prepare(image, plane=args.plane)
            with TileBar(f"{image.name} ") as bar:
                bar.follow("features", segmenter.iter_complete(embedding))
        except AlibiSegError as err:
            failed = True
            message = " ".join(str(err).split())
            note(f"{image}: {message}")
            files.append({"file": str(image), "status": "failed", "error": message})
            continue
        store = embedding.store
        assert store is not None
        megapixels = math.prod(embedding.shape) / 1e6
        note(f"{image}: {len(store.grid.tiles)} tiles, {megapixels:.1f} megapixels")
        files.append(
            {
                "file": str(image),
                "status": "done",
                "error": "",
                "store": str(getattr(store, "path", "")),
                "tiles": len(store.grid.tiles),
                "tokens": list(store.grid.shape),
                "channels": store.n_channels,
            }
        )
    emit(args, {"files": files}, "")
    return EXIT_FAILED if failed else EXIT_OK
