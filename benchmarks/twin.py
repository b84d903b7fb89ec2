"""The claim of "What DINO saw" at our size: a ViT that knows place, and its retrofit.

Two files (by default the two in tests/data): a small ViT trained by self-distillation
with a learned position table, and the same one after `alibi-seg distill` took the table
away and taught it its own features with ALiBi. For both: the transfer probe, the most
positional channels (the fingerprint), principal components of a homogeneous picture,
and segmentation from scribbles that lie in one part of the frame only, by ViT features
alone. Writes a figure besides the tables.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _common import (
    HERE,
    SCRIBBLES,
    parser,
    public_sets,
    report,
    save,
    table,
    without_data,
)
from gain import CROP_PX, SETS, probe_backbone
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sweep import Results
from tiling import token_map

from napari_alibi_seg.analysis import TransferResult
from napari_alibi_seg.data import (
    TokenGrid,
    WorkingImage,
    measure_range,
    open_image,
    synthesize,
)
from napari_alibi_seg.features import load_backbone

PART = "twin"
_FOLDER = HERE.parent / "tests" / "data"
_NAMES = {"table": "twin-table.safetensors", "ALiBi": "twin-alibi.safetensors"}


def main(argv: Sequence[str] | None = None) -> int:
    options = parser(__doc__)
    for which, name in _NAMES.items():
        options.add_argument(
            f"--{which.lower()}", type=Path, default=_FOLDER / name, metavar="PATH"
        )
    options.add_argument("--figure", type=Path, default=HERE / "results" / "twin.png")
    options.add_argument("--sets", nargs="+", default=list(SETS), metavar="NAME")
    options.add_argument("--out", type=Path, default=HERE / "results" / "twin.jsonl")
    args = options.parse_args(argv)
    if without_data(args.data, "public", "the twins"):
        return 0
    if args.quick:
        args.sets = ["superalloy_16bit"]
    twins = {
        which: load_backbone(path, device="cpu")
        for which, path in (("table", args.table), ("ALiBi", args.alibi))
    }
    results = Results(args.out)
    probes, scores, pictures = {}, {}, {}
    for which, twin in twins.items():
        n_crops = 32 if args.quick else 40
        probes[which] = probe_backbone(twin, args.data, n_crops=n_crops)
        scores[which] = _segmented(args, twin, results)
        pictures[which] = picture_of(twin)
    report(
        PART, "with a position table and with ALiBi", table(_HEAD, rows(probes, scores))
    )
    draw(args.figure, pictures, probes)
    values = {
        which: {
            "transfer_r2": probes[which].r2,
            "r2_per_channel": probes[which].r2_per_channel.tolist(),
            "miou": scores[which],
        }
        for which in twins
    }
    save(PART, {"twins": values})
    return 0


def _segmented(args: Any, twin: Any, results: Results) -> dict[str, dict[str, float]]:
    """Return mIoU by scribbles and set, from ViT features alone."""
    setting = {"kind": "vit", "scale": None, "density": 1, "components": 24}
    setting |= {"halo": 0, "seed": 0}
    store = Path(str(args.out) + ".stores")
    out: dict[str, dict[str, float]] = {}
    for kind in SCRIBBLES:
        out[kind] = {}
        for name in args.sets:
            own = public_sets(args.data)[name]
            found = [results.get(twin, setting, s, kind, store) for s in own]
            out[kind][name] = statistics.mean(r["miou"] for r in found)
    return out


def picture_of(backbone: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return a synthetic micrograph, the same everywhere, and its tokens in one tile.

    Where the image is homogeneous, place is all that tokens can differ by.
    """
    side = CROP_PX // backbone.patch_size * backbone.patch_size
    image = synthesize("precipitates", (side, side), seed=3).image
    source = open_image(image)
    view = WorkingImage(source, "grey", measure_range(source, "grey", (0.5, 99.5)))
    grid = TokenGrid(view.shape, backbone.patch_size, side)
    return image, token_map(backbone, view, grid)[0]


# -------------------------------------------------------------------------------- table

_HEAD = (
    *("position", "transfer R2", "best channel", "channels above 0.1"),
    *(f"mIoU, {kind}" for kind in SCRIBBLES),
    "biased - spread",
)


def rows(
    probes: dict[str, TransferResult], scores: dict[str, dict[str, dict[str, float]]]
) -> list[list[Any]]:
    """Return a row for each twin."""
    out = []
    for which, probe in probes.items():
        alone = probe.r2_per_channel
        means = [statistics.mean(scores[which][kind].values()) for kind in SCRIBBLES]
        row = [which, f"{probe.r2:.3f}", f"{alone.max():.3f}", int((alone > 0.1).sum())]
        out.append([*row, *means, f"{means[1] - means[0]:+.3f}"])
    return out


# ------------------------------------------------------------------------------- figure


def components(tokens: np.ndarray) -> np.ndarray:
    """Return the first three principal components of tokens, 0 to 1, (R, C, 3)."""
    flat = tokens.reshape(-1, tokens.shape[2]).astype(np.float64)
    flat = (flat - flat.mean(0)) / np.maximum(flat.std(0), 1e-9)
    _, _, axes = np.linalg.svd(flat, full_matrices=False)
    scores = flat @ axes[:3].T
    low, high = np.percentile(scores, (1, 99), axis=0)
    scaled = np.clip((scores - low) / np.maximum(high - low, 1e-9), 0, 1)
    return scaled.reshape(*tokens.shape[:2], 3)


def draw(
    path: Path,
    pictures: dict[str, tuple[np.ndarray, np.ndarray]],
    probes: dict[str, TransferResult],
) -> None:
    """Write the figure: the image, components of both twins, and their channels."""
    figure = Figure(figsize=(9.6, 5.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplot_mosaic(
        [["image", *pictures], ["channels"] * (1 + len(pictures))],
        height_ratios=(2.2, 1),
    )
    image, _ = next(iter(pictures.values()))
    axes["image"].imshow(image, cmap="gray")
    axes["image"].set_title("synthetic, the same everywhere")
    for which, (_, tokens) in pictures.items():
        axes[which].imshow(components(tokens), interpolation="nearest")
        axes[which].set_title(f"{which}: transfer R2 {probes[which].r2:.2f}")
    for name in ("image", *pictures):
        axes[name].set_axis_off()
    order = np.argsort(-probes["table"].r2_per_channel)
    for (which, probe), colour in zip(
        probes.items(), ("#d55e00", "#0072b2"), strict=True
    ):
        shown = np.clip(probe.r2_per_channel[order], 0, None)
        axes["channels"].plot(shown, color=colour, label=which, drawstyle="steps-mid")
    axes["channels"].set_xlabel("channel, most positional of the table twin first")
    axes["channels"].set_ylabel("R2 of the channel alone")
    axes["channels"].legend(frameon=False)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path)


if __name__ == "__main__":
    raise SystemExit(main())
