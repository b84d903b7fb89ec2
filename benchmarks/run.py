"""Run all benchmarks, or those that are named.

    python benchmarks/run.py                       # all that this machine can run
    python benchmarks/run.py quality speed         # some
    python benchmarks/run.py large --quick         # a small version
    python benchmarks/quality.py --help            # a part's own options

Prints Markdown tables and writes results/<part>.json with the machine, the commit and
the versions. Parts that need the reference data (--data) or a GPU say so and are
skipped. With --backbone the parts that can use trained weights do.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Sequence
from pathlib import Path

from _common import DEFAULT_DATA, describe_machine

PARTS = {
    "quality": "agreement with the truth beside scikit-image",
    "speed": "seconds and memory of a 2048 x 2048 image",
    "large": "a 5120 x 5120 image from weights to files",
    "stacks": "smoothing along Z; seconds a plane",
    "gui": "the dock in a window: callbacks, heartbeat, latency (needs a display)",
    "canvas": "painting and panning on 400 megapixels (needs a display)",
    "tiling": "tiled against whole-image ViT features",
    "sweep": "scale, density, components and halo against mIoU (needs --backbone)",
    "gain": "what a backbone adds to classical features; transfer probe",
    "limits": "what a backbone could add at most; the teacher of alibi-tiny",
    "probes": "how much position is in features, with floors; sizes; strokes on a side",
    "cures": "position, likeness and mIoU of each cure of a backbone",
    "toy": "one attention layer learns where it is, by six encodings",
    "twin": "a small ViT before and after its retrofit",
    "gpu": "ViTs on a GPU",
    "paper_numbers": "released weights beside the published numbers",
}
_WITH_BACKBONE = ("tiling", "sweep", "gain", "probes", "paper_numbers")


def main(argv: Sequence[str] | None = None) -> int:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = "; ".join(f"{name}: {what}" for name, what in PARTS.items())
    options.add_argument("parts", nargs="*", metavar="PART", help=known)
    options.add_argument("--data", type=Path, default=DEFAULT_DATA, metavar="DIR")
    options.add_argument("--quick", action="store_true", help="small versions")
    options.add_argument("--backbone", action="append", default=[], metavar="NAME|PATH")
    args = options.parse_args(argv)
    unknown = set(args.parts) - set(PARTS)
    if unknown:
        options.error(f"no such part: {', '.join(sorted(unknown))}")
    print(f"# Benchmarks\n\n{describe_machine()}", flush=True)
    failed = []
    for name in args.parts or PARTS:
        if name == "sweep" and not args.backbone and not args.parts:
            print("\nsweep left out: it needs trained weights (--backbone).")
            continue
        started = time.perf_counter()
        if importlib.import_module(name).main(_arguments(name, args)):
            failed.append(name)
        print(f"\n{name}: {time.perf_counter() - started:.0f} s", flush=True)
    if failed:
        print(f"\nFailed: {', '.join(failed)}")
    return 1 if failed else 0


def _arguments(name: str, args: argparse.Namespace) -> list[str]:
    out = ["--data", str(args.data)]
    if args.quick:
        out.append("--quick")
    if name in _WITH_BACKBONE:
        for backbone in args.backbone:
            out += ["--backbone", backbone]
    return out


if __name__ == "__main__":
    raise SystemExit(main())
