"""Segment images with classifiers, and keep the labels: used by `test_machines`.

A program too, because what a CPU is taken for is decided when libraries load.
Arguments: folder with ``*.npy`` images and ``*.alibiseg`` classifiers, output folder.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from napari_alibi_seg import Segmenter


def main(folder: Path, out: Path) -> None:
    """Write labels and probabilities of each ``IMAGE-KIND.alibiseg`` on its image."""
    for path in sorted(folder.glob("*.alibiseg")):
        segmenter = Segmenter.load(path, device="cpu")
        image = np.load(folder / f"{path.stem.split('-')[0]}.npy")
        result = segmenter.predict(image)
        np.save(out / f"{path.stem}.npy", result.labels)
        np.save(out / f"{path.stem}.proba.npy", result.probabilities)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
