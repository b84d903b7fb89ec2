"""Make the picture of the README again: the demo's figure, small enough for a page.

    python docs/images/make.py

Runs `alibi-seg demo` in a temporary folder and writes `demo.jpg` beside this script.
The micrograph is noisy, which PNG cannot pack: a JPEG of this width looks the same in
a tenth of the bytes.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image

from napari_alibi_seg._cli import main

WIDTH, QUALITY, MOST_BYTES = 1280, 75, 300_000


def shrink(figure: Path, out: Path) -> None:
    """Write a figure as a small JPEG."""
    with Image.open(figure) as image:
        height = round(WIDTH * image.height / image.width)
        small = image.convert("RGB").resize((WIDTH, height), Image.Resampling.LANCZOS)
    small.save(out, quality=QUALITY, optimize=True, progressive=True)
    if out.stat().st_size > MOST_BYTES:
        sys.exit(f"{out} has {out.stat().st_size} bytes, more than {MOST_BYTES}.")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        if main(["demo", "--out", folder, "--backbone", "classical"]) != 0:
            sys.exit("the demo failed")
        shrink(Path(folder) / "demo.png", Path(__file__).with_name("demo.jpg"))
