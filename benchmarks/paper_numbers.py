"""Load every released backbone and print our numbers beside the published ones.

For each named backbone: are its weights here, do they load and behave
(`check_backbone`), and how much position a linear probe reads off its features, on
homogeneous micrographs and on uniform noise, beside the paper "What DINO saw"
(Pawlowsky et al. 2026; the numbers its authors wrote down beside their probe). Nothing
is fetched without --download; what is missing is named with its file and repository.

The images are cropped to squares and brought to 37 x 37 tokens at patch 14, 32 x 32 at
patch 16. Their own micrographs are not public in full, so expect the order of the rows
and the rough size, not the digits.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _common import parser, report, save, table
from _vits import add_backbones, load_chosen
from tiling import token_map

from napari_alibi_seg import AlibiSegError
from napari_alibi_seg.analysis import linear_probe, ramp
from napari_alibi_seg.data import (
    IMAGE_SUFFIXES,
    IntensityRange,
    TokenGrid,
    WorkingImage,
    measure_range,
    open_image,
)
from napari_alibi_seg.features import (
    backbone_spec,
    check_backbone,
    download_weights,
    find_weights,
    list_backbones,
)

PART = "paper_numbers"
_SEED = 100001
_SIDE_PX = 518
# Read off the most by position; blanking them is the paper's simplest remedy.
_POSITIONAL = (47, 117, 359)


_Published = tuple[float, float | None] | None


@dataclass(frozen=True)
class PaperRow:
    """Mean R2 of the paper's probe, with its standard deviation where it is known."""

    label: str
    name: str | None
    micrographs: _Published = None
    textures: _Published = None
    noise: _Published = None
    blanked: tuple[int, ...] = ()


def _known(mean: float, sd: float | None = None) -> tuple[float, float | None]:
    return mean, sd


PAPER = (
    PaperRow("DINO-S", "dino-s", _known(0.57, 0.14), _known(0.53), _known(0.53)),
    PaperRow("DINO-B", "dino-b", _known(0.64), _known(0.59), _known(0.54)),
    PaperRow(
        *("DINOv2-S, registers", "dinov2-s-reg"),
        *(_known(0.83, 0.06), _known(0.71, 0.19), _known(0.89, 0.02)),
    ),
    PaperRow("DINOv2-B", "dinov2-b", _known(0.69), _known(0.58), _known(0.89)),
    PaperRow(
        *("DINOv3-S+", "dinov3-splus"),
        *(_known(0.97, 0.02), _known(0.90), _known(0.98)),
    ),
    PaperRow("MAE-B", "mae-b", _known(0.71, 0.11), _known(0.61), _known(0.71)),
    PaperRow("SAM-B", None, _known(0.61, 0.15), _known(0.66), _known(0.91)),
    PaperRow("ViT-B, ImageNet-1k", "vit-b", _known(-0.02), _known(0.04), _known(-0.01)),
    PaperRow("DeiT-III-B", "deit3-b", _known(0.09), _known(0.13), _known(0.04)),
    PaperRow("CLIP-B", "clip-b", _known(0.11), _known(0.07), _known(-0.04)),
    PaperRow("EVA02-B", "eva02-b", _known(0.02), _known(-0.18), _known(-0.08)),
    PaperRow(
        *("DINOv2-S, 3 channels blanked", "dinov2-s-reg"),
        *(_known(0.78, 0.08), _known(0.67)),
        blanked=_POSITIONAL,
    ),
    PaperRow(
        *("DVT on DINOv2-S, registers", "dvt-dinov2-s-reg"),
        *(_known(0.75, 0.09), _known(0.68, 0.22)),
    ),
    PaperRow(
        *("ALiBi-DINOv2-S, COCO", "alibi-dinov2-s-coco"),
        *(_known(-0.23, 0.28), _known(0.32, 0.53)),
    ),
    PaperRow("ALiBi-DINOv3-S+", "alibi-dinov3-splus-coco", noise=_known(-0.86, 0.31)),
)


def main(argv: Sequence[str] | None = None) -> int:
    args = _options().parse_args(argv)
    specs = [s for s in list_backbones() if s.kind != "classical"]
    if args.only:
        specs = [backbone_spec(name) for name in args.only]
    if args.download:
        _download([s.name for s in specs])
    checks = [_checked(s.name) for s in specs]
    report(PART, "released files", table(_CHECK_HEAD, map(_check_row, checks)))
    images = {
        "micrographs": find_images(args.images or args.data / "homogeneous"),
        "textures": find_images(args.textures) if args.textures else [],
    }
    if args.quick:
        images = {what: paths[:1] for what, paths in images.items()}
    if not images["micrographs"]:
        print("No micrographs for the probe (--images DIR); uniform noise only.")
    usable = [c["name"] for c in checks if c.get("ok")]
    found: dict[str, Any] = {}
    for title, backbone in _loaded(usable, args):
        found[title] = probe_backbone(backbone, images, args.draws)
        for row in PAPER:
            if row.blanked and row.name == title:
                found[blanked_key(row)] = probe_backbone(
                    backbone, images, args.draws, row.blanked
                )
    n = len(images["micrographs"])
    title = f"position probe: mean R2 +- sd, {n} micrographs x {args.draws} draws"
    report(PART, title, table(_PROBE_HEAD, probe_rows(found)))
    _name_missing(checks)
    names = {what: [p.name for p in paths] for what, paths in images.items()}
    save(PART, {"checks": checks, "probe": found, "images": names})
    return 1 if any(c["state"] == "FAILED" for c in checks) else 0


def _options() -> Any:
    options = parser(__doc__)
    add_backbones(options)
    options.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="homogeneous micrographs (default: homogeneous/ of the data folder)",
    )
    options.add_argument("--textures", type=Path, metavar="DIR", help="texture images")
    options.add_argument("--draws", type=int, default=6, help="probes per image")
    options.add_argument("--only", nargs="+", metavar="NAME", help="only these")
    options.add_argument(
        "--download", action="store_true", help="fetch what is missing (gigabytes)"
    )
    return options


# ----------------------------------------------------------------------------- weights


def _download(names: Iterable[str]) -> None:
    for name in names:
        try:
            print(f"{name}: {download_weights(name)}", flush=True)
        except AlibiSegError as err:
            print(f"{name}: {err}", file=sys.stderr)


def _checked(name: str) -> dict[str, Any]:
    """Return what `check_backbone` says, or that the weights are absent or fail."""
    spec = backbone_spec(name)
    out: dict[str, Any] = {"name": name, "file": spec.file, "source": spec.source}
    needed = [name, *([spec.base] if spec.base else [])]
    if any(find_weights(n) is None for n in needed):
        return {**out, "state": "absent"}
    try:
        found = check_backbone(name)
    except AlibiSegError as err:
        return {**out, "state": "FAILED", "error": str(err)}
    return {**out, **found, "state": "ok" if found["ok"] else "FAILED"}


_CHECK_HEAD = ("backbone", "weights", "file", "from", "SHA-256", "constant image")


def _check_row(check: dict[str, Any]) -> list[Any]:
    digest, spread = check.get("sha256"), check.get("constant_spread")
    return [
        *(check["name"], check["state"], check["file"], check["source"]),
        f"{digest[:12]} {check['status']}" if digest else None,
        None if spread is None else f"{spread:.1e}",
    ]


def _name_missing(checks: list[dict[str, Any]]) -> None:
    for check in checks:
        if "error" in check:
            print(f"FAILED: {check['name']}: {check['error']}")
    absent = sum(c["state"] == "absent" for c in checks)
    if absent:
        print(
            f"{absent} of {len(checks)} are not on this machine; the first table names "
            "file and place. Fetch them all with "
            "`python benchmarks/paper_numbers.py --download`, or one "
            "by one with `alibi-seg models --download NAME`."
        )


def _loaded(names: list[str], args: Any) -> Iterable[tuple[str, Any]]:
    """Yield named backbones, then those given by path, one in memory at a time."""
    for name in names:
        yield name, load_chosen(name, None, args.device)
    for name in args.backbone:
        yield Path(name).name, load_chosen(name, args.alibi, args.device)


# ------------------------------------------------------------------------------- probe


def find_images(folder: Path) -> list[Path]:
    """Return the image files of a folder; none if there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)


def probe_backbone(
    backbone: Any,
    images: dict[str, list[Path]],
    draws: int,
    blanked: Sequence[int] = (),
) -> dict[str, Any]:
    """Return R2 of all channels and of the best one, on images and on noise."""
    rng = np.random.default_rng(_SEED)
    views = {k: [_square_view(p) for p in paths] for k, paths in images.items()}
    views["noise"] = [_noise_view(rng)]
    out: dict[str, Any] = {}
    for what, group in views.items():
        values, best = [], []
        for view in group:
            tokens = _tokens(backbone, view)
            tokens[..., list(blanked)] = 0
            target = ramp("lr+ud", tokens.shape[:2])
            for _ in range(draws):
                mask = _random_mask(tokens.shape[:2], rng)
                probe = linear_probe(tokens, target, mask, per_channel=True)
                values.append(probe.r2)
                best.append(float(probe.r2_per_channel.max()))
        out[what] = {"r2": values, "best_channel_r2": best}
    return out


def _random_mask(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return a random 1/36 of a grid, the paper's share."""
    n = shape[0] * shape[1]
    mask = np.zeros(n, bool)
    mask[rng.choice(n, max(2, round(n / 36)), replace=False)] = True
    return mask.reshape(shape)


def _square_view(path: Path) -> WorkingImage:
    source = open_image(path)
    block = source.read(source.window)
    side = min(block.shape[:2])
    y, x = ((n - side) // 2 for n in block.shape[:2])
    square = open_image(np.ascontiguousarray(block[y : y + side, x : x + side, 0]))
    return WorkingImage(square, "grey", measure_range(square, "grey", (0.5, 99.5)))


def _noise_view(rng: np.random.Generator) -> WorkingImage:
    pixels = rng.integers(0, 256, (_SIDE_PX, _SIDE_PX, 3), dtype=np.uint8)
    whole = IntensityRange((0.0,), (255.0,), (127.0,))
    return WorkingImage(open_image(pixels), "rgb", whole)


def _tokens(backbone: Any, view: WorkingImage) -> np.ndarray:
    """Return the tokens of a square image brought to one tile, (rows, cols, C)."""
    patch = backbone.patch_size
    side = _SIDE_PX // patch * patch
    grid = TokenGrid(view.shape, patch, side, 0, side / view.shape[0])
    return token_map(backbone, view, grid)[0]


_KINDS = ("micrographs", "textures", "noise")
_PROBE_HEAD = (
    "backbone",
    *(f"{kind}, {whose}" for kind in _KINDS for whose in ("paper", "ours")),
    "best channel, ours",
)


def blanked_key(row: PaperRow) -> str:
    return f"{row.name}, blanked {list(row.blanked)}"


def probe_rows(found: dict[str, Any]) -> list[list[Any]]:
    """Return the paper's rows with ours beside them, then ours without a paper's."""
    rows, shown = [], set()
    for row in PAPER:
        key = blanked_key(row) if row.blanked else row.name
        shown.add(key)
        label = row.label
        if key not in found:
            label += " (no such backbone here)" if key is None else " (no weights)"
        rows.append(_probe_row(label, row, found.get(key or "")))
    own = [key for key in found if key not in shown]
    return rows + [_probe_row(key, PaperRow(key, key), found[key]) for key in own]


def _probe_row(label: str, row: PaperRow, ours: dict[str, Any] | None) -> list[Any]:
    cells: list[Any] = [label]
    for kind in _KINDS:
        published = getattr(row, kind)
        cells.append(None if published is None else _mean_sd(*published))
        cells.append(ours and _summary(ours[kind]["r2"]))
    best = ours and _summary(ours["micrographs"]["best_channel_r2"])
    return [*cells, best]


def _summary(values: list[float]) -> str | None:
    if not values:
        return None
    return _mean_sd(statistics.mean(values), statistics.pstdev(values))


def _mean_sd(mean: float, sd: float | None) -> str:
    return f"{mean:.2f}" if sd is None else f"{mean:.2f} +- {sd:.2f}"


if __name__ == "__main__":
    raise SystemExit(main())
