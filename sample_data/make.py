"""Write the sample data again, from the package's own generator.

    python sample_data/make.py [FOLDER]

FOLDER defaults to the one this script lies in. Pixels depend on nothing but the recipes
below, so a second run changes no file; `tests/data/test_microstructures.py`
compares a fresh run with the committed files. README.md beside it describes them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import tifffile
from PIL import Image

from napari_alibi_seg.data import SyntheticMicrograph, draw_scribbles, synthesize


class Recipe(NamedTuple):
    """Arguments of one sample: one per kind, one of them with 16 bits."""

    kind: str
    seed: int
    noise: float = 1.0
    bits: int = 8


SHAPE = (384, 384)
STROKES_PER_CLASS = 8
RECIPES = (
    Recipe("spinodal", seed=11),
    Recipe("precipitates", seed=5),
    Recipe("grains", seed=11, noise=0.6),
    Recipe("fibres", seed=5, noise=0.6, bits=16),
    Recipe("graded", seed=0),
)


def main(folder: Path) -> None:
    """Write image, mask and scribbles of every recipe into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for recipe in RECIPES:
        sample = synthesize(
            recipe.kind,
            SHAPE,
            seed=recipe.seed,
            noise=recipe.noise,
            bits=recipe.bits,
        )
        scribbles = draw_scribbles(
            sample.mask, strokes_per_class=STROKES_PER_CLASS, seed=recipe.seed
        )
        write_image(folder / f"{recipe.kind}.tif", sample)
        for name, ids in (("mask", sample.mask), ("scribbles", scribbles)):
            path = folder / f"{recipe.kind}_{name}.png"
            Image.fromarray(ids).save(path, optimize=True)


def write_image(path: Path, sample: SyntheticMicrograph) -> None:
    """Write a deflated TIFF whose resolution tags hold the pixel size."""
    um_per_cm = 1e4
    tifffile.imwrite(
        path,
        sample.image,
        photometric="minisblack",
        compression="zlib",
        # No predictor: on shot noise it makes files larger.
        compressionargs={"level": 9},
        resolution=(um_per_cm / sample.pixel_size.x, um_per_cm / sample.pixel_size.y),
        resolutionunit="CENTIMETER",
        metadata=None,
        software=False,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent)
