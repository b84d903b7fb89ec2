"""Run as a program: peak memory of one kind of features on a small and a large image.

Prints the growth of the peak in bytes, in JSON, from the small to the large image. The
caches, which are bounded but larger than these images, are made small first.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

import numpy as np
import zarr

from napari_alibi_seg import Segmenter
from napari_alibi_seg._base import ClassifierSettings, FeatureSettings
from napari_alibi_seg._segmenter import _tokens
from napari_alibi_seg.data import _planes

CACHE_BYTES = 4 << 20
CHUNK_PX = 512


def write_image(path, side, seed=0):
    """Write textured noise chunk by chunk."""
    rng = np.random.default_rng(seed)
    tile = rng.integers(0, 90, (CHUNK_PX, CHUNK_PX), np.uint8)
    tile[:, CHUNK_PX // 2 :] += 120
    array = zarr.create_array(
        path, shape=(side, side), chunks=(CHUNK_PX, CHUNK_PX), dtype="uint8"
    )
    for y in range(0, side, CHUNK_PX):
        for x in range(0, side, CHUNK_PX):
            array[y : y + CHUNK_PX, x : x + CHUNK_PX] = np.roll(tile, (y, x), (0, 1))


def write_labels(path, side):
    """Write two strokes, in the first and in the last corner."""
    array = zarr.create_array(
        path, shape=(side, side), chunks=(CHUNK_PX, CHUNK_PX), dtype="uint16"
    )
    array[10:14, 20:60] = 3
    array[side - 14 : side - 10, side - 60 : side - 20] = 7


def peak():
    """Return the most memory this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def segment(folder, side, kind, resolution, weights):
    """Train and predict from files; return the labelled pixels."""
    image, labels = folder / f"{side}.zarr", folder / f"{side}-labels.zarr"
    write_image(image, side)
    write_labels(labels, side)
    backbone = None
    if kind != "classical":
        from napari_alibi_seg.features import load_backbone

        backbone = load_backbone(weights, device="cpu", alibi=None, num_heads=1)
    segmenter = Segmenter(
        backbone,
        features=FeatureSettings(kind=kind, scale=1.0, components=None),
        classifier=ClassifierSettings(n_trees=4, resolution=resolution),
        store=folder / "stores",
        workers=2,
    )
    segmenter.fit(image, labels)
    # all features, but only some of the tiles: what grows would grow all the same
    order = range(0, (side // CHUNK_PX) ** 2, 3)
    done = sum(t.labels_yx.size for t in segmenter.iter_predict(image, order=order))
    assert done == len(order) * CHUNK_PX**2
    assert segmenter.classifier.class_ids.tolist() == [3, 7]


def main(folder, kind, resolution, small, large):
    for made in (_tokens.TokenMap, _tokens.CellMap):
        made.__init__.__defaults__ = (CACHE_BYTES,)
    # the shared limits of what is kept, far below the large image
    _planes._KEPT_BYTES, _planes._KEPT_ROWS = CACHE_BYTES, CHUNK_PX
    weights = Path(folder) / "tiny.safetensors"
    segment(Path(folder), int(small), kind, resolution, weights)
    before = peak()
    segment(Path(folder), int(large), kind, resolution, weights)
    json.dump({"before": before, "growth": peak() - before}, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
