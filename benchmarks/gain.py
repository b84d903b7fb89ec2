"""What a backbone adds to the classical features, and whether it knows position.

Every image is trained on its own scribbles and scored on its mask, with classical
features alone and with `both`, by the same forest and several seeds. mIoU is the mean
within a set, then over sets. Results are appended to results/gain.jsonl at once and
not computed again.

The second table is the transfer probe on crops of 518 px of real micrographs: what can
be read of a token's place in the frame in images that the probe was not fitted on.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _common import (
    RESULTS,
    SCRIBBLES,
    parser,
    public_sets,
    report,
    save,
    table,
    without_data,
)
from _vits import RANDOM_NOTE, add_backbones, load_chosen, random_vit
from sweep import Results, Setting
from tiling import token_map

from napari_alibi_seg.analysis import TransferResult, transfer_probe
from napari_alibi_seg.data import TokenGrid, WorkingImage, measure_range, open_image

PART = "gain"
SETS = (
    *("superalloy", "superalloy_16bit", "nanocomposite", "powder"),
    *("noisy_xct", "sandstone_rgb"),
)
CROP_PX = 518
N_CROPS, N_HELD_OUT = 40, 10
_SUFFIXES = (".png", ".tif", ".tiff")


def main(argv: Sequence[str] | None = None) -> int:
    options = parser(__doc__)
    add_backbones(options)
    options.add_argument("--sets", nargs="+", default=list(SETS), metavar="NAME")
    options.add_argument("--seeds", type=int, default=3, help="forests (default 3)")
    options.add_argument("--kind", choices=("both", "vit"), default="both")
    options.add_argument("--scale", type=float, help="default: the package's")
    options.add_argument("--density", type=int, default=1)
    options.add_argument("--components", type=int, default=24, help="0: all channels")
    options.add_argument("--halo", type=int, help="tokens (default: the package's)")
    options.add_argument("--store", type=Path, metavar="DIR", help="keep tokens here")
    options.add_argument("--out", type=Path, default=RESULTS / "gain.jsonl")
    args = options.parse_args(argv)
    if without_data(args.data, "public", "what a backbone adds"):
        return 0
    if args.quick:
        args.sets, args.seeds = ["superalloy_16bit"], 1
    results = Results(args.out)
    with tempfile.TemporaryDirectory() as folder:
        names = args.backbone or [str(random_vit(Path(folder)))]
        if not args.backbone:
            print(f"No --backbone given. {RANDOM_NOTE}.")
        alibi = args.alibi if args.backbone else "constant"
        for name in names:
            backbone = load_chosen(name, alibi, args.device)
            found = _segmented(args, backbone, results, Path(folder))
            means = set_means(found)
            title = f"mIoU, {backbone.name}, {args.seeds} seed(s)"
            report(PART, title, table(_HEAD, gain_rows(means)))
            print(verdict(means))
            costs = cost_rows(found)
            report(PART, "seconds", table(_COST_HEAD, costs))
            probe = probe_backbone(
                backbone, args.data, n_crops=32 if args.quick else N_CROPS
            )
            report(PART, "transfer probe", table(_PROBE_HEAD, [probe_row(probe)]))
            save(
                PART,
                {
                    "backbone": backbone.identity,
                    "rows": found,
                    "transfer_r2": probe.r2,
                    "max_channel_r2": float(probe.r2_per_channel.max()),
                },
            )
    return 0


def _segmented(
    args: Any, backbone: Any, results: Results, folder: Path
) -> list[dict[str, Any]]:
    """Return a row for every image, scribbles, seed and kind of features."""
    plain = {"kind": "classical", "scale": None, "density": 1}
    plain |= {"components": 0, "halo": None}
    chosen = {"kind": args.kind, "scale": args.scale, "density": args.density}
    chosen |= {"components": args.components, "halo": args.halo}
    sets = public_sets(args.data)
    unknown = set(args.sets) - set(sets)
    if unknown:
        raise SystemExit(f"No such set: {sorted(unknown)}; there are {sorted(sets)}.")
    rows = []
    for name in args.sets:
        # the tokens of an image are computed for its first result and kept for others
        for sample, setting, seed, scribbles in itertools.product(
            sets[name], (plain, chosen), range(args.seeds), SCRIBBLES
        ):
            wish: Setting = {**setting, "seed": seed}
            store = args.store or folder / "stores"
            rows.append(results.get(backbone, wish, sample, scribbles, store))
    return rows


# ------------------------------------------------------------------------------ tables

_HEAD = ("set", "scribbles", "classical", "with ViT", "difference")
_COST_HEAD = ("set", "images", "train s an image", "features s an image", "s per MP")
_PROBE_HEAD = ("crops fitted", "crops scored", "transfer R2", "best single channel")
Means = dict[tuple[str, str], tuple[float, float]]


def set_means(rows: list[dict[str, Any]]) -> Means:
    """Return classical and other mIoU by set and scribbles: over images, then seeds."""
    out = {}
    for at in dict.fromkeys((r["set"], r["scribbles"]) for r in rows):
        own = [r for r in rows if (r["set"], r["scribbles"]) == at]
        out[at] = (
            statistics.mean(r["miou"] for r in own if r["kind"] == "classical"),
            statistics.mean(r["miou"] for r in own if r["kind"] != "classical"),
        )
    return out


def gain_rows(means: Means) -> list[list[Any]]:
    """Return a row for every set and scribbles, and their means over sets."""
    rows = [[*at, a, b, f"{b - a:+.3f}"] for at, (a, b) in means.items()]
    for kind in SCRIBBLES:
        pairs = [v for (_, k), v in means.items() if k == kind]
        if len(pairs) > 1:
            a, b = (statistics.mean(side) for side in zip(*pairs, strict=True))
            rows.append(["all sets", kind, a, b, f"{b - a:+.3f}"])
    return rows


def verdict(means: Means) -> str:
    """Return one line: mean gains and the worst set."""
    gains = {at: b - a for at, (a, b) in means.items()}
    parts = []
    for kind in SCRIBBLES:
        own = {name: gain for (name, k), gain in gains.items() if k == kind}
        worst = min(own, key=lambda name: own[name])
        mean = statistics.mean(own.values())
        parts.append(f"{kind} {mean:+.3f}, worst {worst} {own[worst]:+.3f}")
    return "Mean gain: " + "; ".join(parts) + "."


def cost_rows(rows: list[dict[str, Any]]) -> list[list[Any]]:
    """Return the seconds with ViT; features from the runs that computed them."""
    out = []
    for name in dict.fromkeys(r["set"] for r in rows):
        own = [r for r in rows if r["set"] == name and r["kind"] != "classical"]
        # a store that has the tokens answers at once: the longest is the extraction
        first = [
            max((r for r in own if r["image"] == image), key=lambda r: r["embed_s"])
            for image in dict.fromkeys(r["image"] for r in own)
        ]
        train = statistics.mean(r["fit_s"] for r in own)
        features = statistics.mean(r["embed_s"] for r in first)
        per_mp = sum(r["embed_s"] for r in first) / sum(r["megapixels"] for r in first)
        out.append(
            [name, len(first), f"{train:.2f}", f"{features:.2f}", f"{per_mp:.2f}"]
        )
    return out


# ------------------------------------------------------------------------------- probe


def probe_backbone(
    backbone: Any, data: Path, *, crop_px: int = CROP_PX, n_crops: int = N_CROPS
) -> TransferResult:
    """Return the transfer probe on the crops of `crop_maps`."""
    maps = crop_maps(backbone, data, crop_px=crop_px, n_crops=n_crops)
    return transfer_probe(maps, n_held_out=min(N_HELD_OUT, n_crops // 4))


def crop_maps(
    backbone: Any, data: Path, *, crop_px: int = CROP_PX, n_crops: int = N_CROPS
) -> list[np.ndarray]:
    """Return the tokens of square crops of the public and homogeneous images.

    Images take turns, so that no image gives many more crops than another; those too
    small for a crop are enlarged.
    """
    files = [s.image_path for own in public_sets(data).values() for s in own]
    homogeneous = data / "homogeneous"
    if homogeneous.is_dir():
        files += sorted(p for p in homogeneous.iterdir() if p.suffix in _SUFFIXES)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(files))
    side = crop_px // backbone.patch_size * backbone.patch_size
    maps = []
    for i in range(n_crops):
        path = files[order[i % len(files)]]
        maps.append(_crop_tokens(backbone, path, side, rng))
    return maps


def _crop_tokens(
    backbone: Any, path: Path, side: int, rng: np.random.Generator
) -> np.ndarray:
    source = open_image(path)
    block = source.read(source.window).mean(axis=-1, dtype=np.float32)
    scale = max(1.0, side / min(block.shape))
    px = min(round(side / scale), *block.shape)
    y, x = (int(rng.integers(n - px + 1)) for n in block.shape)
    crop = open_image(np.ascontiguousarray(block[y : y + px, x : x + px]))
    view = WorkingImage(crop, "grey", measure_range(crop, "grey", (0.5, 99.5)))
    n = side // backbone.patch_size
    grid = TokenGrid(view.shape, backbone.patch_size, side, 0, side / px)
    tokens, _ = token_map(backbone, view, grid)
    return tokens[:n, :n]


def probe_row(probe: TransferResult) -> list[Any]:
    best = float(probe.r2_per_channel.max())
    return [probe.n_fit, probe.n_held_out, f"{probe.r2:.4f}", f"{best:.4f}"]


if __name__ == "__main__":
    raise SystemExit(main())
