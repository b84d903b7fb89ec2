"""List backbones, see and fetch their weights.

Without arguments: every known backbone, whether its weights are here, width, patch
and licence. Nothing is ever downloaded unasked:

  alibi-seg models --download NAME    fetch the weights into the cache
  alibi-seg models --check NAME       load them, run them, print what was found
"""

from __future__ import annotations

import argparse
from typing import Any

from napari_alibi_seg._cli._common import EXIT_FAILED, EXIT_OK, TileBar, add_json, emit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", metavar="NAME", help="load and test a backbone")
    action.add_argument("--download", metavar="NAME", help="fetch a backbone's weights")
    add_json(parser)


def command(args: argparse.Namespace) -> int:
    """List, check or download."""
    if args.check:
        # imports torch, which a list of names must not wait for
        from napari_alibi_seg.features import check_backbone

        report = check_backbone(args.check)
        text = "\n".join(f"{key}: {value}" for key, value in report.items())
        emit(args, report, text)
        return EXIT_OK if report["ok"] else EXIT_FAILED
    if args.download:
        return _download(args)
    rows = _rows()
    emit(args, {"backbones": rows}, _table(rows))
    return EXIT_OK


def _download(args: argparse.Namespace) -> int:
    from napari_alibi_seg.features import download_weights

    with TileBar() as bar:

        def progress(done: int, total: int | None) -> None:
            mebibyte = 1 << 20
            bar.show("MiB", done // mebibyte, max(total or 0, done) // mebibyte)

        path = download_weights(args.download, progress=progress)
    emit(args, {"name": args.download, "path": str(path)}, str(path))
    return EXIT_OK


def _rows() -> list[dict[str, Any]]:
    from napari_alibi_seg.features import (
        DEFAULT_BACKBONE,
        find_weights,
        list_backbones,
    )

    rows = []
    for spec in list_backbones():
        path = None if spec.name == "classical" else find_weights(spec.name)
        rows.append(
            {
                **spec.model_dump(mode="json"),
                "default": spec.name == DEFAULT_BACKBONE,
                "here": spec.name == "classical" or path is not None,
                "path": None if path is None else str(path),
            }
        )
    return rows


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [f"{'name':26} {'here':5} {'patch':>5} {'width':>5}  licence"]
    for row in rows:
        mark = "yes" if row["here"] else "-"
        patch, width = (row.get(k) or "" for k in ("patch_size", "embed_dim"))
        name = row["name"] + (" *" if row["default"] else "")
        lines.append(f"{name:26} {mark:5} {patch:>5} {width:>5}  {row['licence']}")
    lines.append("* default when its weights are here")
    return "\n".join(lines)
