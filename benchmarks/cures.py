"""Every cure of position bias: what it takes of position, and what of the features.

A backbone, and the same with each cure behind it. Beside the transfer probe on real
micrographs stand mIoU from scribbles that lie in one part of the frame and from spread
ones, by ViT features alone, and the cosine of cured and original tokens, once as they
are and once after the mean token was taken off both: a cure that destroys the features
fails, however little position it leaves. Each number is appended to
results/cures.jsonl at once and not computed again.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _common import (
    HERE,
    RESULTS,
    SCRIBBLES,
    parser,
    public_sets,
    report,
    save,
    table,
    timed,
    without_data,
)
from gain import N_HELD_OUT, SETS, crop_maps
from sweep import Results

from napari_alibi_seg.analysis import transfer_probe
from napari_alibi_seg.features import load_backbone

PART = "cures"
_TWIN = HERE.parent / "tests" / "data" / "twin-table.safetensors"
_ALIBI = HERE.parent / "tests" / "data" / "twin-alibi.safetensors"
CURES = (
    *("", "blank", "svd", "svd=4", "average=4", "average", "roll"),
    *("nope", "sinusoid", "alibi"),
)
_SWAPS = ("nope", "sinusoid", "alibi")


def main(argv: Sequence[str] | None = None) -> int:
    options = parser(__doc__)
    options.add_argument(
        "--backbone", default=str(_TWIN), metavar="NAME|PATH", help="to be cured"
    )
    options.add_argument(
        "--beside",
        action="append",
        metavar="NAME|PATH",
        help="backbones to show below, uncured (default: the twin with ALiBi)",
    )
    options.add_argument("--cures", nargs="+", default=list(CURES), metavar="WORDS")
    options.add_argument(
        "--denoiser", type=Path, metavar="FILE", help="trained for the backbone"
    )
    options.add_argument("--sets", nargs="+", default=list(SETS), metavar="NAME")
    options.add_argument("--crops", type=int, default=40)
    options.add_argument("--device", default="auto")
    options.add_argument("--out", type=Path, default=RESULTS / "cures.jsonl")
    args = options.parse_args(argv)
    if without_data(args.data, "public", "the cures"):
        return 0
    if args.quick:
        args.sets, args.crops = ["superalloy_16bit"], 32
        args.cures = ["", "blank", "nope"]
    words = list(args.cures)
    if args.denoiser is not None:
        words.append(f"denoise={args.denoiser}")
    specs = ["+".join(part for part in (args.backbone, w) if part) for w in words]
    beside = args.beside or ([str(_ALIBI)] if args.backbone == str(_TWIN) else [])
    results = Results(args.out)
    original: dict[str, list[np.ndarray]] = {}
    rows = {}
    for spec in [*specs, *beside]:
        rows[spec] = _measured(args, spec, results, original)
        # what is there so far, whenever it is stopped
        save(PART, {"rows": list(rows.values())})
    report(PART, "cures", table(_HEAD, table_rows([*rows.values()])))
    return 0


def _measured(
    args: Any, spec: str, results: Results, original: dict[str, list[np.ndarray]]
) -> dict[str, Any]:
    """Return all numbers of a spec, from the file or by making them."""
    backbone = load_backbone(spec, device=args.device)
    identity = json.dumps(backbone.identity, sort_keys=True)

    def probe() -> dict[str, Any]:
        seconds, maps = timed(crop_maps, backbone, args.data, n_crops=args.crops)
        if "" not in original:
            bare = load_backbone(args.backbone, device=args.device)
            original[""] = crop_maps(bare, args.data, n_crops=args.crops)
        found = transfer_probe(maps, n_held_out=min(N_HELD_OUT, args.crops // 4))
        return {
            "r2": found.r2,
            "best": float(found.r2_per_channel.max()),
            "n_positional": int((found.r2_per_channel > 0.1).sum()),
            **likeness(maps, original[""]),
            "s_per_crop": seconds / args.crops,
        }

    title = backbone.name
    row = {"cure": title, **results.kept(f"probe {args.crops} {identity}", probe)}
    setting = {"kind": "vit", "scale": None, "density": 1, "components": 24}
    setting |= {"halo": 0, "seed": 0}
    store = Path(str(args.out) + ".stores")
    for kind in SCRIBBLES:
        means = []
        for name in args.sets:
            own = public_sets(args.data)[name]
            found = [results.get(backbone, setting, s, kind, store) for s in own]
            means.append(statistics.mean(r["miou"] for r in found))
        row[f"miou_{kind}"] = statistics.mean(means)
    return row


def likeness(
    maps: Sequence[np.ndarray], others: Sequence[np.ndarray]
) -> dict[str, float]:
    """Return the mean cosine of tokens with those of `others`, plain and centred."""
    if maps[0].shape[2] != others[0].shape[2]:
        return {"cosine": float("nan"), "centred": float("nan")}
    a, b = (np.stack(m).reshape(-1, m[0].shape[2]) for m in (maps, others))
    return {"cosine": _cosine(a, b), "centred": _cosine(a - a.mean(0), b - b.mean(0))}


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(1) / np.maximum(lengths, 1e-12)).mean())


_HEAD = (
    *("backbone", "transfer R2", "best channel", "channels above 0.1", "cosine"),
    *("centred", "mIoU, spread", "mIoU, biased", "s a crop"),
)


def table_rows(rows: list[dict[str, Any]]) -> list[list[Any]]:
    """Return a row for each spec; ablations say what they are."""
    out = []
    for row in rows:
        name, _, words = row["cure"].partition("+")
        title = f"{name}, as it is" if not words else f"+{_short(words)}"
        if words.split("=")[0] in _SWAPS:
            title += " (not distilled)"
        out.append(
            [
                *(title, f"{row['r2']:.3f}", f"{row['best']:.3f}"),
                *(row["n_positional"], row["cosine"], row["centred"]),
                *(row["miou_spread"], row["miou_biased"], f"{row['s_per_crop']:.2f}"),
            ]
        )
    return out


def _short(words: str) -> str:
    """Return the words of a cure without a long list of channels."""
    kind, _, value = words.partition("=")
    n = value.count(",") + 1
    return f"{kind} ({n} channels)" if kind == "blank" and n > 3 else words


if __name__ == "__main__":
    raise SystemExit(main())
