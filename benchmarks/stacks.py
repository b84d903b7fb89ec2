"""Stacks: does smoothing along Z help, and what does a plane cost.

The electrode has a ground truth in 3-D and scribbles on one plane of 32; mIoU is pooled
over all planes, on the stack as it is and with noise added to every plane by itself.
The two stacks without truth are painted by a threshold on their middle plane; of these
only the seconds are told, and how many voxels have another class than the one below.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from _common import SCRIBBLES, parser, report, save, table, without_data
from scipy import ndimage
from skimage.filters import threshold_otsu

from napari_alibi_seg import Segmenter
from napari_alibi_seg._segmenter import PlaneTile, count_planes, iter_predict_stack
from napari_alibi_seg.data import (
    ConfusionCounts,
    confusion,
    draw_scribbles,
    open_image,
    read_labels,
)

PAINTED = 16
SIGMAS = (0.0, 0.5, 1.0, 2.0)
# Standard deviation of what is added, as a share of the range of the middle 99 %.
NOISE = (0.0, 0.1, 0.3)


def whole(path: Path) -> np.ndarray:
    """Return a grey stack, (Z, Y, X)."""
    planes = (open_image(path, plane=z) for z in range(count_planes(path)))
    return np.stack([p.read(p.window)[..., 0] for p in planes])


def noisy(stack: np.ndarray, share: float) -> np.ndarray:
    """Return a stack with normal noise, as float32."""
    low, high = np.percentile(stack, [0.5, 99.5])
    noise = np.random.default_rng(0).normal(0, share * (high - low), stack.shape)
    return (stack + noise).astype(np.float32)


def segmented(segmenter: Segmenter, stack: np.ndarray, sigma: float) -> Any:
    """Return labels (Z, Y, X) and seconds a plane."""
    labels = np.zeros(stack.shape, np.uint8)
    started = time.perf_counter()
    for step in iter_predict_stack(segmenter, stack, z_smooth=sigma):
        if isinstance(step, PlaneTile):
            labels[(step.plane, *step.result.window.slices)] = step.result.labels_yx
    return labels, (time.perf_counter() - started) / len(stack)


def of_electrode(data: Path, sigmas: tuple[float, ...]) -> list[dict[str, Any]]:
    """Return one row for each noise, scribbles and sigma."""
    name = "electrode_32x160x160_u16"
    folder = data / "public" / "electrode3d"
    stack, truth = (
        whole(folder / kind / f"{name}.tif") for kind in ("images", "masks")
    )
    rows = []
    for share in NOISE:
        image = noisy(stack, share)
        for which in SCRIBBLES:
            painted = read_labels(
                data / "scribbles" / "electrode3d" / f"{name}-{which}.png"
            )
            segmenter = Segmenter().fit(image, painted, plane=PAINTED)
            for sigma in sigmas:
                labels, seconds = segmented(segmenter, image, sigma)
                counts = ConfusionCounts()
                for found, mask in zip(labels, truth, strict=True):
                    # painted ids are those of the mask plus one
                    counts = counts + confusion(found - 1, mask, ignore=None)
                rows.append(
                    {
                        "noise": share,
                        "scribbles": which,
                        "sigma": sigma,
                        "miou": counts.miou,
                        "seconds": seconds,
                    }
                )
    return rows


def of_unlabelled(path: Path, sigmas: tuple[float, ...]) -> list[dict[str, Any]]:
    """Return one row for each sigma."""
    stack = whole(path)
    middle = ndimage.gaussian_filter(stack[len(stack) // 2].astype(np.float32), 1)
    mask = (middle > threshold_otsu(middle)).astype(np.uint8) + 1
    painted = draw_scribbles(mask, strokes_per_class=4, seed=0)
    segmenter = Segmenter().fit(stack, painted, plane=len(stack) // 2)
    rows = []
    for sigma in sigmas:
        labels, seconds = segmented(segmenter, stack, sigma)
        changed = float((labels[1:] != labels[:-1]).mean())
        rows.append({"sigma": sigma, "changed": changed, "seconds": seconds})
    return rows


def main(argv: list[str] | None = None) -> int:
    args = parser(__doc__).parse_args(argv)
    if without_data(args.data, "public/electrode3d", "stacks"):
        return 0
    sigmas = SIGMAS[::2] if args.quick else SIGMAS
    found = of_electrode(args.data, sigmas)
    keys = sorted({(r["noise"], r["scribbles"]) for r in found})
    score = {(r["noise"], r["scribbles"], r["sigma"]): r["miou"] for r in found}
    seconds = statistics.median(r["seconds"] for r in found)
    text = table(
        ["noise", "scribbles", *(f"sigma {s:g}" for s in sigmas)],
        [[*key, *(score[*key, s] for s in sigmas)] for key in keys],
    )
    report("stacks", f"electrode3d, mIoU; {seconds:.3f} s a plane of 160 x 160", text)
    others = {}
    for path in sorted((args.data / "unlabelled3d").glob("*.tif")):
        others[path.stem] = of_unlabelled(path, sigmas)
    text = table(
        ["stack", "sigma", "changed from plane to plane", "s a plane"],
        [
            [name, f"{r['sigma']:g}", r["changed"], r["seconds"]]
            for name, rows in others.items()
            for r in rows
        ],
    )
    report("stacks", "without truth", text)
    save("stacks", {"electrode3d": found, "unlabelled3d": others})
    return 0


if __name__ == "__main__":
    sys.exit(main())
