"""One classifier from strokes on several images, applied to an image without any.

    python docs/examples/several_images.py

One image seldom shows all that a series holds. Here every image is another material of
the same kind: strokes on a second and a third one help where those on one do not
reach. Each image is seen through its own intensity range, measured once on all of it.
"""

from napari_alibi_seg import Segmenter
from napari_alibi_seg.data import confusion, draw_scribbles, synthesize

*train, unseen = [
    synthesize("precipitates", (384, 384), seed=seed) for seed in (1, 2, 3, 4)
]
# the generator knows the truth, so it can paint; you would read a file
scribbles = [draw_scribbles(s.mask, strokes_per_class=6, seed=0) for s in train]

for n_images in (1, 3):
    images = [sample.image for sample in train[:n_images]]
    segmenter = Segmenter().fit(images, scribbles[:n_images])
    result = segmenter.predict(unseen.image)
    score = confusion(result.labels, unseen.mask).miou
    print(f"strokes on {n_images} image(s): mean IoU {score:.3f} on an unseen one")
