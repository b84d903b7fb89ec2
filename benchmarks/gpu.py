"""ViTs on a GPU: megapixels a second, against bare forwards and unfused attention.

For ViT-S/14 and ViT-B/14 with random weights and tiles of 518 px: extraction from
image to store over the bare sum of the forwards; ALiBi as a shared mask in SDPA,
computed inside FlexAttention's kernel, and as the reference implementation has it
(float32, explicit softmax, a bias for every head); and whether a classifier trained
on the CPU gives the same labels there. Without a CUDA device it says so and ends.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import parser, report, save, spread, table, three_phases, timed
from _vits import BareForward, random_vit

from napari_alibi_seg import Alibi, FeatureSettings, Segmenter
from napari_alibi_seg.data import MemoryStore, TokenGrid, WorkingImage, measure_range
from napari_alibi_seg.data import open_image as open_array
from napari_alibi_seg.features import iter_extract, load_backbone, resolve_dtype

PART = "gpu"
_TILE_PX = 518
_BATCH = 16


def main(argv: Sequence[str] | None = None) -> int:
    options = parser(__doc__)
    options.add_argument("--device", default="cuda", help="default: cuda")
    options.add_argument("--sizes", nargs="+", default=["small", "base"])
    options.add_argument("--runs", type=int, help="rounds of each (default 10)")
    options.add_argument("--tiles", type=int, help="tiles a side (default 8)")
    args = options.parse_args(argv)
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        print("No CUDA device here; nothing measured on a GPU.")
        return 0
    runs = args.runs or (2 if args.quick else 10)
    tiles = args.tiles or (2 if args.quick else 8)
    batch = min(_BATCH, tiles**2)
    found: dict[str, Any] = {"device": _device_name(args.device), "batch": batch}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = {size: random_vit(folder, size) for size in args.sizes}
        found["attention"] = {
            size: attention(path, size, args.device, batch, runs)
            for size, path in weights.items()
        }
        found["extraction"] = {
            size: extraction(path, size, args.device, (tiles, batch, runs))
            for size, path in weights.items()
        }
        first = args.sizes[0]
        found["agreement"] = agreement(weights[first], args, tiles)
    _print(found)
    save(PART, found)
    return 0


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def _synchronized(function: Callable[[], Any], device: str) -> float:
    """Return the seconds of a call, to the end of what it started on the GPU."""

    def call() -> None:
        function()
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)

    return timed(call)[0]


def _in_turns(
    calls: dict[str, Callable[[], Any]], device: str, runs: int
) -> dict[str, list[float]]:
    """Warm every call up twice, then time them in turns."""
    for call in calls.values():
        _synchronized(call, device)
        _synchronized(call, device)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(runs):
        for name, call in calls.items():
            times[name].append(_synchronized(call, device))
    return times


def attention(
    path: Path, size: str, device: str, batch: int, runs: int
) -> dict[str, list[float]]:
    """Return seconds of one batch of tiles by every way to compute attention."""
    images = torch.randn(batch, 3, _TILE_PX, _TILE_PX, device=device)
    ours = {
        name: load_backbone(path, alibi=Alibi(), device=device, attention=name)
        for name in ("sdpa", "flex")
    }
    calls: dict[str, Callable[[], Any]] = {
        name: (lambda b=backbone: b.patch_features(images))
        for name, backbone in ours.items()
    }
    unfused = BareForward(size, device=device, fused=False)
    calls["unfused float32"] = lambda: unfused(images)
    return _in_turns(calls, device, runs)


def extraction(
    path: Path, size: str, device: str, plan: tuple[int, int, int]
) -> dict[str, Any]:
    """Return seconds of image to store, and of the bare forwards of its tiles."""
    tiles, batch, runs = plan
    side = tiles * _TILE_PX
    rng = np.random.default_rng(0)
    source = open_array(rng.integers(0, 255, (side, side), dtype=np.uint8))
    intensity = measure_range(source, "grey", (0.5, 99.5))
    view = WorkingImage(source, "grey", intensity)
    backbone = load_backbone(path, alibi=Alibi(), device=device)
    grid = TokenGrid((side, side), backbone.patch_size, _TILE_PX)
    bare = BareForward(size, device=device, dtype=resolve_dtype(None, backbone.device))
    images = torch.randn(batch, 3, _TILE_PX, _TILE_PX, device=device)

    def extract() -> None:
        store = MemoryStore(grid, backbone.embed_dim)
        for _ in iter_extract(backbone, view, store, batch_size=batch):
            pass

    def forwards() -> None:
        for start in range(0, len(grid.tiles), batch):
            bare(images[: len(grid.tiles) - start])

    times = _in_turns({"ours": extract, "bare": forwards}, device, runs)
    return {**times, "megapixels": side**2 / 1e6}


def agreement(path: Path, args: Any, tiles: int) -> dict[str, Any]:
    """Train on the CPU, apply on both; return the share of equal labels."""
    image, painted, origin = three_phases(args.data, min(1024, tiles * _TILE_PX))
    labels = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "cpu.alibiseg"
        backbone = load_backbone(path, alibi=Alibi(), device="cpu")
        features = FeatureSettings(kind="both", scale=1.0)
        segmenter = Segmenter(backbone, features=features).fit(image, painted)
        segmenter.save(file)
        for device in ("cpu", args.device):
            other = Segmenter.load(file, backbone=path, device=device)
            labels[device] = other.predict(image).labels
    equal = float((labels["cpu"] == labels[args.device]).mean())
    return {"equal": equal, "pixels": int(image.size), "image": origin}


def _print(found: dict[str, Any]) -> None:
    batch_mp = found["batch"] * _TILE_PX**2 / 1e6
    rows = [
        [
            *(size, name, f"{1e3 * statistics.median(times):.1f}"),
            f"{batch_mp / statistics.median(times):.2f}",
            f"{statistics.median(times) / statistics.median(by_way['sdpa']):.2f}",
        ]
        for size, by_way in found["attention"].items()
        for name, times in by_way.items()
    ]
    head = ("ViT", "ALiBi attention", "ms a batch", "MP/s", "times sdpa")
    title = f"{found['device']}, batches of {found['batch']} tiles of {_TILE_PX} px"
    report(PART, title, table(head, rows))
    rows = []
    for size, values in found["extraction"].items():
        pairs = zip(values["ours"], values["bare"], strict=True)
        rate = values["megapixels"] / statistics.median(values["ours"])
        rows.append([size, f"{rate:.2f}", spread([a / b for a, b in pairs], 3)])
    head = ("ViT", "MP/s, image to store", "over bare forwards, pairwise")
    report(PART, "extraction", table(head, rows))
    same = found["agreement"]
    print(
        f"Labels equal to the CPU's on {100 * same['equal']:.3f} % of "
        f"{same['pixels']} pixels ({same['image']}, random weights)."
    )


if __name__ == "__main__":
    raise SystemExit(main())
