"""Describe a classifier, an image or a feature store; or this installation.

alibi-seg info                     versions, device, cache folders
alibi-seg info my.alibiseg         classes, backbone, settings, training summary
alibi-seg info scan.tif            size, axes, type, pixel size, intensity range
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from napari_alibi_seg._cli._common import EXIT_OK, add_json, emit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE")
    parser.add_argument(
        "--plane", type=int, metavar="Z", help="plane of a stack, from 0"
    )
    add_json(parser)


def command(args: argparse.Namespace) -> int:
    """Describe."""
    if args.file is None:
        result = _installation()
    elif args.file.suffix == ".alibiseg":
        result = _classifier(args.file)
    else:
        result = _image(args.file, args.plane)
    emit(args, result, "\n".join(_lines(result)))
    return EXIT_OK


def _installation() -> dict[str, Any]:
    from importlib.metadata import version

    from napari_alibi_seg import __version__
    from napari_alibi_seg.data import cache_dir
    from napari_alibi_seg.features import describe_devices

    cache = cache_dir()
    stores = sorted((cache / "features").glob("*.zarr"))
    size = sum(f.stat().st_size for s in stores for f in s.rglob("*") if f.is_file())
    names = ("torch", "timm", "scikit-learn", "numba", "zarr")
    return {
        "version": __version__,
        "packages": {n: version(n) for n in names},
        "devices": describe_devices(),
        "cache": str(cache),
        "feature_stores": len(stores),
        "feature_stores_mb": round(size / 1e6, 1),
    }


def _classifier(path: Path) -> dict[str, Any]:
    from napari_alibi_seg.learn import load_classifier_file

    header, arrays = load_classifier_file(path)
    shapes = {k: [str(a.dtype), list(a.shape)] for k, a in arrays.items()}
    return {**header, "arrays": shapes}


def _image(path: Path, plane: int | None) -> dict[str, Any]:
    from napari_alibi_seg._base import Window
    from napari_alibi_seg.data import open_image

    # any plane tells what all have in common
    source = open_image(path, plane=plane or 0, time=0)
    size = source.pixel_size
    # the first pixel proves that pixels can be read, not only the header
    source.read(Window(0, 1, 0, 1))
    return {
        "file": str(path),
        "axes": source.axes,
        "file_shape": list(source.file_shape),
        "shape": list(source.shape),
        "dtype": str(source.dtype),
        "channels": source.n_channels,
        "meaning": source.meaning,
        "pixel_size": None if size is None else [size.y, size.x, size.unit],
        "plane_distance": None if size is None or size.z is None else size.z,
        "notes": list(source.notes),
    }


def _lines(value: Any, indent: str = "") -> list[str]:
    out = []
    for key, item in value.items():
        if isinstance(item, dict) and item:
            out += [f"{indent}{key}:", *_lines(item, indent + "  ")]
        else:
            out.append(f"{indent}{key}: {item}")
    return out
