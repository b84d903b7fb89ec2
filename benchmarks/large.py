"""A large micrograph from weights to files: peak memory and seconds by stage.

Trains on a corner with features `both`, resolution `pixel`, a ViT-S/14 with random
weights (the cost is that of trained ones), saves the classifier, and applies it to the
whole image with probabilities through the path of `alibi-seg apply`: tokens to a store
on disk, tiles to TIFF files. All in one child process.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _common import Stages, in_child, mirrored, parser, report, save, table
from quality import OURS

PART = "large"
_SIDE_PX = 5120
_TRAIN_PX = 1036


def main(argv: Sequence[str] | None = None) -> int:
    options = parser(__doc__)
    options.add_argument(
        "--megapixels",
        type=float,
        help="crop to a square of this size (default: 5120 x 5120, or 1 if --quick)",
    )
    args = options.parse_args(argv)
    megapixels = args.megapixels or (1.0 if args.quick else _SIDE_PX**2 / 1e6)
    side = min(_SIDE_PX, max(256, round(math.sqrt(megapixels * 1e6))))
    found = in_child(f"{PART}:run", data=args.data, side=side)
    rows = large_rows(found["stages"], side**2 / 1e6)
    title = (
        f"{side} x {side} ({found['origin']}), both, pixel, random ViT-S/14, "
        f"{found['tiles']} ViT tiles, files of {found['output_mb']:.0f} MB"
    )
    report(PART, title, table(_HEAD, rows))
    save(PART, {"side": side, **found})
    return 0


_HEAD = ("stage", "seconds", "s per MP", "peak above imports MB")


def large_rows(stages: dict[str, Any], megapixels: float) -> list[list[Any]]:
    """Return one row a stage and one for applying as a whole."""
    rows = []
    for name, values in stages.items():
        seconds = sum(values["seconds"])
        per_mp = f"{seconds / megapixels:.2f}" if name != "train" else None
        rows.append([name, f"{seconds:.1f}", per_mp, f"{values['peak_mb']:.0f}"])
    applied = sum(sum(v["seconds"]) for n, v in stages.items() if n != "train")
    peak = max(v["peak_mb"] for v in stages.values())
    total = ["apply, all", f"{applied:.1f}", f"{applied / megapixels:.2f}"]
    return [*rows, [*total, f"{peak:.0f}"]]


def run(data: str, side: int) -> dict[str, Any]:
    """Train, save, load, apply; return stages."""
    from _vits import random_vit

    from napari_alibi_seg import Segmenter

    stages = Stages(*OURS, "zarr", "tifffile")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        origin = _write_image(Path(data), side, folder / "image.tif")
        weights = random_vit(folder)
        classifier = folder / "classifier.alibiseg"
        with stages.stage("train"):
            _train(folder, weights, classifier)
        segmenter = Segmenter.load(
            classifier, backbone=weights, store=folder / "stores", device="cpu"
        )
        tiles = _apply(segmenter, folder, stages)
        written = sum(p.stat().st_size for p in (folder / "out").iterdir())
    return {
        "stages": stages.to_dict(),
        "tiles": tiles,
        "origin": origin,
        "output_mb": written / 2**20,
    }


def _write_image(data: Path, side: int, path: Path) -> str:
    from napari_alibi_seg._base import Window
    from napari_alibi_seg.data import open_image, synthesize, write_image

    files = sorted((data / "large").glob("*.tif")) if (data / "large").is_dir() else []
    if files:
        image = open_image(files[0]).read(Window(0, side, 0, side))[..., 0]
        origin = files[0].name
    else:
        image = mirrored(synthesize("precipitates", (1024, 1024)).image, side)
        origin = "synthetic precipitates, mirrored"
    write_image(path, image, axes="YX", compression=None)
    return origin


def _train(folder: Path, weights: Any, classifier: Path) -> None:
    from napari_alibi_seg import Alibi, FeatureSettings, Segmenter
    from napari_alibi_seg._base import Window
    from napari_alibi_seg.data import draw_scribbles, open_image
    from napari_alibi_seg.features import load_backbone

    source = open_image(folder / "image.tif")
    n = min(_TRAIN_PX, *source.shape)
    corner = source.read(Window(0, n, 0, n))[..., 0]
    painted = draw_scribbles(brightness_classes(corner), strokes_per_class=4)
    features = FeatureSettings(kind="both", scale=1.0)
    backbone = load_backbone(weights, alibi=Alibi(), device="cpu")
    segmenter = Segmenter(backbone, features=features)
    segmenter.fit(corner, painted).save(classifier)


def brightness_classes(image: np.ndarray) -> np.ndarray:
    """Return ids 1 to 3 of equal area by smoothed brightness: something to paint on."""
    from scipy import ndimage

    smooth = ndimage.gaussian_filter(image.astype(np.float32), 4)
    return (1 + np.digitize(smooth, np.quantile(smooth, [1 / 3, 2 / 3]))).astype(
        np.uint8
    )


def _apply(segmenter: Any, folder: Path, stages: Stages) -> int:
    from napari_alibi_seg._segmenter import (
        BatchOptions,
        FileResult,
        find_inputs,
        iter_apply,
    )

    inputs = find_inputs([folder / "image.tif"])
    options = BatchOptions(probabilities=True)
    tiles = 0
    stages.switch("features to store")
    for step in iter_apply(segmenter, inputs, folder / "out", options):
        if isinstance(step, FileResult):
            if step.error:
                raise SystemExit(step.error)
        elif step.stage == "features" and step.done == step.total:
            tiles = step.total
            stages.switch("classify and write")
    stages.switch(None)
    return tiles


if __name__ == "__main__":
    raise SystemExit(main())
