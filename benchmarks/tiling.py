"""What tiling does to ViT features: tiles against the whole image in one forward.

On homogeneous micrographs, for every backbone with and without a halo: the mean cosine
of a token with the same token of the whole-image map, the same after the mean token
was taken off both (a token is mostly what all tokens share), and the step from token
to token across tile borders, over the step at the same places in the whole-image map.
Images are cropped to squares, and enlarged twice where one tile would cover them.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _common import parser, report, save, table, without_data
from _vits import RANDOM_NOTE, add_backbones, load_chosen, random_vit

from napari_alibi_seg.data import (
    MemoryStore,
    TokenGrid,
    WorkingImage,
    iter_bands,
    measure_range,
    open_image,
)
from napari_alibi_seg.features import iter_extract

PART = "tiling"
_SUFFIXES = (".png", ".tif", ".tiff")


def main(argv: Sequence[str] | None = None) -> int:
    options = parser(__doc__)
    add_backbones(options)
    options.add_argument("--tile", type=int, default=518, metavar="PX")
    options.add_argument("--halos", type=int, nargs="+", default=[0, 4])
    options.add_argument(
        "--images", type=int, help="only so many images (default: all, 2 if --quick)"
    )
    args = options.parse_args(argv)
    if without_data(args.data, "homogeneous", "the measure of tiling"):
        return 0
    files = sorted(
        p for p in (args.data / "homogeneous").iterdir() if p.suffix in _SUFFIXES
    )[: args.images or (2 if args.quick else None)]
    with tempfile.TemporaryDirectory() as folder:
        backbones = chosen_backbones(args, Path(folder))
        found = []
        for title, backbone in backbones.items():
            for path in files:
                rows = measure(backbone, path, args.tile, args.halos)
                found += [{"backbone": title, "image": path.name, **r} for r in rows]
    report(PART, "mean over images", table(_HEAD, summary_rows(found)))
    report(PART, "by image", table(("image", *_HEAD), image_rows(found)))
    save(PART, {"tile_px": args.tile, "rows": found})
    return 0


def chosen_backbones(args: Any, folder: Path) -> dict[str, Any]:
    """Return the backbones asked for by title, or an ALiBi and a plain random one."""
    if args.backbone:
        loaded = (load_chosen(n, args.alibi, args.device) for n in args.backbone)
        return {f"{b.name} ({'ALiBi' if b.alibi else 'plain'})": b for b in loaded}
    print(f"No --backbone given. {RANDOM_NOTE}.")
    free, fixed = random_vit(folder), random_vit(folder, position=True)
    return {
        "random ViT-S (ALiBi)": load_chosen(str(free), "constant", args.device),
        "random ViT-S (plain)": load_chosen(str(fixed), "none", args.device),
    }


# --------------------------------------------------------------------------- measure


def measure(
    backbone: Any, path: Path, tile_px: int, halos: Sequence[int]
) -> list[dict[str, Any]]:
    """Return one row a halo for one image; none if one tile covers it."""
    view, scale = homogeneous_view(path, tile_px)
    if view is None:
        print(f"{path.name}: covered by one tile of {tile_px} px; left out.")
        return []
    patch = backbone.patch_size
    plain = TokenGrid(view.shape, patch, tile_px, 0, scale)
    whole_grid = TokenGrid(view.shape, patch, patch * max(plain.patches), 0, scale)
    whole, _ = token_map(backbone, view, whole_grid)
    rows = []
    for halo in halos:
        grid = TokenGrid(view.shape, patch, tile_px, halo, scale)
        tiled, seconds = token_map(backbone, view, grid)
        row = {"halo": halo, "scale": scale, "tiles": len(grid.tiles)}
        rows.append({**row, "seconds": seconds, **compare(tiled, whole, grid)})
    return rows


def homogeneous_view(path: Path, tile_px: int) -> tuple[WorkingImage | None, float]:
    """Return the largest square of an image as the features see it, and its scale."""
    source = open_image(path)
    block = source.read(source.window)[..., 0]
    side = min(block.shape)
    y, x = ((n - side) // 2 for n in block.shape)
    square = open_image(np.ascontiguousarray(block[y : y + side, x : x + side]))
    scale = 1.0 if side > 1.15 * tile_px else 2.0
    if side * scale <= tile_px:
        return None, scale
    intensity = measure_range(square, "grey", (0.5, 99.5))
    return WorkingImage(square, "grey", intensity), scale


def token_map(
    backbone: Any, view: WorkingImage, grid: TokenGrid
) -> tuple[np.ndarray, float]:
    """Return the (rows, columns, C) float32 tokens of an image, and the seconds."""
    store = MemoryStore(grid, backbone.embed_dim)
    started = time.perf_counter()
    for _ in iter_extract(backbone, view, store):
        pass
    seconds = time.perf_counter() - started
    tokens = np.concatenate([band for _, band in iter_bands(store)])
    return tokens.astype(np.float32), seconds


def compare(tiled: np.ndarray, whole: np.ndarray, grid: TokenGrid) -> dict[str, float]:
    """Return cosines and the ratio of steps across the borders of tiles.

    Parameters
    ----------
    tiled, whole : (R, C, F) float32
        Token maps of one image.
    grid : TokenGrid
        Of the tiled one, at density 1.
    """
    middle = whole.mean(axis=(0, 1))
    rows = sorted({t.keep.y0 for t in grid.tiles} - {0})
    cols = sorted({t.keep.x0 for t in grid.tiles} - {0})
    steps = [_steps(tokens, rows, cols) for tokens in (tiled, whole)]
    elsewhere = _steps(
        tiled,
        [r for r in range(1, len(tiled)) if r not in rows],
        [c for c in range(1, tiled.shape[1]) if c not in cols],
    )
    return {
        "cosine": cosine(tiled, whole),
        "centred": cosine(tiled - tiled.mean(axis=(0, 1)), whole - middle),
        "step_ratio": steps[0] / steps[1],
        "step_to_others": steps[0] / elsewhere,
    }


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mean cosine of the vectors of two maps."""
    length = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return float(((a * b).sum(-1) / np.maximum(length, 1e-12)).mean())


def _steps(tokens: np.ndarray, rows: Sequence[int], cols: Sequence[int]) -> float:
    """Return the mean distance of neighbours across the given rows and columns."""
    across = np.linalg.norm(tokens[rows] - tokens[np.asarray(rows, int) - 1], axis=-1)
    along = np.linalg.norm(
        tokens[:, cols] - tokens[:, np.asarray(cols, int) - 1], axis=-1
    )
    return float(np.concatenate([across.ravel(), along.ravel()]).mean())


# ---------------------------------------------------------------------------- tables

_VALUES = ("cosine", "centred", "step_ratio", "step_to_others", "seconds")
_HEAD = (
    *("backbone", "halo", "cosine", "cosine, centred"),
    *("border step: tiled / whole", "border step / others, tiled", "s"),
)


def summary_rows(found: list[dict[str, Any]]) -> list[list[Any]]:
    """Return the mean over images for every backbone and halo."""
    keys = dict.fromkeys((r["backbone"], r["halo"]) for r in found)
    rows = []
    for key in keys:
        own = [r for r in found if (r["backbone"], r["halo"]) == key]
        means = [statistics.mean(r[v] for r in own) for v in _VALUES]
        rows.append([*key, *(f"{m:.4f}" for m in means[:-1]), f"{means[-1]:.1f}"])
    return rows


def image_rows(found: list[dict[str, Any]]) -> list[list[Any]]:
    return [
        [
            *(r["image"], r["backbone"], r["halo"]),
            *(f"{r[v]:.4f}" for v in _VALUES[:-1]),
            f"{r['seconds']:.1f}",
        ]
        for r in found
    ]


if __name__ == "__main__":
    raise SystemExit(main())
