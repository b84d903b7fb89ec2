"""Train on a few strokes, segment the whole image, keep classifier and labels.

    python docs/examples/segment_sample.py

Writes `alloy.alibiseg` and `alloy_labels.tif` into the current folder.
"""

from pathlib import Path

from napari_alibi_seg import Segmenter, open_image
from napari_alibi_seg.data import EvaluationPair as Pair
from napari_alibi_seg.data import evaluate_pairs, read_labels, write_image

samples = Path(__file__).resolve().parents[2] / "sample_data"
image = samples / "precipitates.tif"
names = {1: "matrix", 2: "large precipitate", 3: "fine precipitate"}

segmenter = Segmenter()  # classical features, random forest, every pixel
segmenter.fit(image, samples / "precipitates_scribbles.png", class_names=names)
segmenter.save("alloy.alibiseg")

# anywhere else, later: the file holds all that is needed
result = Segmenter.load("alloy.alibiseg").predict(image)
for class_id, fraction in result.fractions().items():
    print(f"{names[class_id]:18} {fraction:6.1%} of the area")

size = open_image(image).pixel_size
write_image("alloy_labels.tif", result.labels, axes="YX", pixel_size=size)

# the samples come with the truth, so the result can be scored
truth = read_labels(samples / "precipitates_mask.png")
scores = evaluate_pairs([Pair(result.labels, truth, "result", "truth")])
print(f"mean IoU {scores.to_dict()['miou']:.3f}")
