"""Measure a large image tile by tile, without its segmentation ever being in memory.

    python docs/examples/probabilities_by_tile.py

`iter_predict` yields labels, probabilities and uncertainty of one window after the
other, from the centre outwards or in reading order. Stop when you have seen enough:
what is left costs nothing.
"""

import numpy as np

from napari_alibi_seg import Segmenter
from napari_alibi_seg.data import draw_scribbles, synthesize

sample = synthesize("fibres", (1100, 1100), seed=5)
scribbles = draw_scribbles(sample.mask, strokes_per_class=8, width=5, seed=0)
segmenter = Segmenter().fit(sample.image, scribbles)

pixels, unsure = 0, 0
expected = np.zeros(len(sample.class_names))
for tile in segmenter.iter_predict(sample.image):
    expected += tile.proba_kyx.sum(axis=(1, 2), dtype=np.float64)
    unsure += int(np.count_nonzero(tile.uncertainty_yx > 0.5))
    pixels += tile.labels_yx.size
    w = tile.window
    print(f"tile {tile.index + 1} of {tile.total}: from row {w.y0}, column {w.x0}")

for name, pixels_of_class in zip(sample.class_names, expected, strict=True):
    print(f"{name:8} {pixels_of_class / pixels:6.1%} of the area, by probability")
print(f"{unsure / pixels:.1%} of the area is unsure")
