"""Make the figures of docs/position-bias.md again, from synthetic images.

    python docs/images/make_bias.py

Writes beside this script `bias-twins.png`, the figure of `alibi-seg bias` for the twins
of tests/data and a cure, and `bias-floor.png`, what two probes read from noise with and
without planted position. Prints the table, and the numbers of the second figure.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image

from napari_alibi_seg._cli import main
from napari_alibi_seg.analysis import Smoothness, linear_probe, ramp, transfer_probe
from napari_alibi_seg.data import synthesize, write_image

mpl.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).resolve().parent
TWINS = HERE.parents[1] / "tests" / "data"
WIDTH, COLOURS = 1280, 256
GRID, CHANNELS, TOKENS = (37, 37), 384, 38
PLANTED = (0, 1, 2, 5, 10, 20, 40)
N_MAPS, N_DRAWS = 32, 4


def shrink(figure: bytes | Path, out: Path) -> None:
    """Write a figure with a palette, no wider than a page."""
    source = io.BytesIO(figure) if isinstance(figure, bytes) else figure
    with Image.open(source) as image:
        picture = image.convert("RGB")
    if picture.width > WIDTH:
        height = round(WIDTH * picture.height / picture.width)
        picture = picture.resize((WIDTH, height), Image.Resampling.LANCZOS)
    small = picture.quantize(COLOURS, dither=Image.Dither.NONE)
    small.save(out, optimize=True)


def twins(folder: Path) -> None:
    """Run the command on homogeneous micrographs."""
    files = []
    for seed in range(3):
        files.append(str(folder / f"spinodal-{seed}.tif"))
        image = synthesize("spinodal", (900, 900), seed=seed).image
        write_image(files[-1], image, axes="YX")
    table, alibi = (str(TWINS / f"twin-{name}.safetensors") for name in _NAMES)
    chosen = [table, alibi, f"{table}+blank", f"{table}+roll=4"]
    figure = folder / "bias.png"
    argv = ["bias", *files, "--backbone", *chosen, "--figure", str(figure)]
    if main([*argv, "--side", "224", "--device", "cpu"]) != 0:
        sys.exit("alibi-seg bias failed")
    shrink(figure, HERE / "bias-twins.png")


_NAMES = ("table", "alibi")


def floors() -> dict[str, list[float]]:
    """Return what probes read from noise, by how many channels were planted."""
    kinds = {
        "noise": None,
        "smooth noise": Smoothness(6.0, 6.0, 1.5, 0.0),
    }
    out: dict[str, list[float]] = {}
    for name, smoothness in kinds.items():
        single, transfer = [], []
        for n in PLANTED:
            maps = [planted(n, smoothness, seed) for seed in range(N_MAPS)]
            single.append(np.mean([alone(m, i) for i, m in enumerate(maps[:N_DRAWS])]))
            transfer.append(transfer_probe(maps, n_tokens=TOKENS).r2)
        out[f"{name}, within an image"] = [float(v) for v in single]
        out[f"{name}, in other images"] = [float(v) for v in transfer]
    return out


def planted(n: int, smoothness: Smoothness | None, seed: int) -> np.ndarray:
    """Return noise of which n channels are nothing but column or row."""
    rng = np.random.default_rng(seed)
    if smoothness is None:
        features = rng.standard_normal((*GRID, CHANNELS), dtype=np.float32)
    else:
        features = smoothness.draw(GRID, CHANNELS, rng)
    target = ramp("lr+ud", GRID)
    for k in range(n):
        features[..., k] = target[..., k % 2]
    return features


def alone(features: np.ndarray, seed: int) -> float:
    """Return R2 of the published probe: 38 tokens of one image."""
    mask = np.zeros(GRID, bool)
    rng = np.random.default_rng(seed)
    mask.flat[rng.choice(mask.size, TOKENS, replace=False)] = True
    return linear_probe(features, ramp("lr+ud", GRID), mask).r2


def draw(found: dict[str, list[float]]) -> None:
    """Draw what was found."""
    figure, ax = plt.subplots(figsize=(7, 3.6), dpi=130, layout="constrained")
    colours = ("#b03a2e", "#b03a2e", "#1f618d", "#1f618d")
    styles = ("o--", "o-", "s--", "s-")
    for (name, r2), colour, style in zip(found.items(), colours, styles, strict=True):
        ax.plot(range(len(PLANTED)), r2, style, color=colour, label=name)
    ax.axhline(0, color="#888888", linewidth=0.8)
    ax.set_xticks(range(len(PLANTED)), [str(n) for n in PLANTED])
    ax.set_xlabel(f"channels of {CHANNELS} that are nothing but position")
    ax.set_ylabel("R²")
    ax.legend(frameon=False, fontsize=9)
    out = io.BytesIO()
    figure.savefig(out, metadata={"Software": None})
    plt.close(figure)
    shrink(out.getvalue(), HERE / "bias-floor.png")


if __name__ == "__main__":
    values = floors()
    for name, r2 in values.items():
        print(name, [round(v, 2) for v in r2])
    draw(values)
    with tempfile.TemporaryDirectory() as temporary:
        twins(Path(temporary))
