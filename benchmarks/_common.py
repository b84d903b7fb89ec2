"""What the benchmark scripts share: data, timing, peak memory, tables, results.

Memory is measured in a child process that first imports everything and then notes what
it holds; a stage's peak is what the operating system counted above that. On Linux the
counter is reset before every stage; elsewhere it is the highest so far, so a later
stage may show the peak of an earlier one.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from napari_alibi_seg.data import draw_scribbles, open_image, read_labels, synthesize

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
DEFAULT_DATA = HERE.parents[1] / "shared" / "data"
SCRIBBLES = ("spread", "biased")

_PACKAGES = (
    *("numpy", "scipy", "scikit-learn", "scikit-image", "numba", "torch", "timm"),
    *("zarr", "tifffile"),
)
_CHILD = (
    "import sys; sys.path.insert(0, sys.argv[1]); import _common; "
    "_common.child(*sys.argv[2:])"
)

# ------------------------------------------------------------------ command line


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that every script has."""
    out = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    out.add_argument(
        "--data",
        type=Path,
        default=DEFAULT_DATA,
        metavar="DIR",
        help="folder with public/, scribbles/, homogeneous/, large/ "
        "(default: ../shared/data beside the checkout)",
    )
    out.add_argument(
        "--quick", action="store_true", help="a small version, to see that it works"
    )
    return out


def without_data(data: Path, needed: str, what: str) -> bool:
    """Say so if the data folder lacks what a part needs."""
    if (data / needed).exists():
        return False
    print(f"Skipped: {what} needs {needed} in {data}, which is not here (--data DIR).")
    return True


# ------------------------------------------------------------------------- machine


def machine() -> dict[str, Any]:
    """Return what a reader must know to compare numbers; no host name."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_gb": _memory_gb(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "commit": _commit(),
        "packages": {name: version(name) for name in _PACKAGES},
    }


def describe_machine() -> str:
    """Return the machine, the commit and the versions as Markdown lines."""
    m = machine()
    packages = ", ".join(f"{k} {v}" for k, v in m["packages"].items())
    return (
        f"{m['cpu']}, {m['cores']} cores, {m['memory_gb']} GB, {m['system']}, "
        f"commit {m['commit']}\n\nPython {m['python']}, {packages}"
    )


def version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown CPU"


def _memory_gb() -> int | None:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)


def _commit() -> str:
    def git(*args: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(HERE), *args], capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    changed = " with local changes" if git("status", "--porcelain", "..") else ""
    return (git("rev-parse", "--short", "HEAD") or "unknown") + changed


# ------------------------------------------------------------------ time and memory


def _proc_mb(field: str) -> float | None:
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    for line in status.read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    return None


def _max_resident_mb() -> float:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 1024)


def resident_mb() -> float:
    """Return what this process holds now (elsewhere than Linux: its peak so far)."""
    now = _proc_mb("VmRSS")
    return _max_resident_mb() if now is None else now


def peak_mb() -> float:
    """Return the most this process held since `reset_peak`."""
    peak = _proc_mb("VmHWM")
    return _max_resident_mb() if peak is None else peak


def reset_peak() -> None:
    """Forget the peak so far, where the system can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


class Stages:
    """Seconds and peak memory of named stages, above what is held when it is made.

    Make it before any work. What `imports` names, and what this package loads lazily,
    is imported first: it is paid once, by everybody, and is no matter of image size.
    """

    def __init__(self, *imports: str) -> None:
        for name in imports:
            importlib.import_module(name)
        self.base_mb = resident_mb()
        self.seconds: dict[str, list[float]] = {}
        self.peak_mb: dict[str, float] = {}
        self._open: tuple[str, float] | None = None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what happens inside as one stage; repeats are kept apart."""
        self.switch(name)
        try:
            yield
        finally:
            self.switch(None)

    def switch(self, name: str | None) -> None:
        """End the stage that is open, if any, and begin another, unless None."""
        now = time.perf_counter()
        if self._open is not None:
            before, started = self._open
            above = peak_mb() - self.base_mb
            self.seconds.setdefault(before, []).append(now - started)
            self.peak_mb[before] = max(self.peak_mb.get(before, 0.0), above)
        reset_peak()
        self._open = None if name is None else (name, time.perf_counter())

    def to_dict(self) -> dict[str, Any]:
        return {
            name: {"seconds": times, "peak_mb": round(self.peak_mb[name], 1)}
            for name, times in self.seconds.items()
        }


def in_child(task: str, **arguments: Any) -> Any:
    """Run ``module:function(**arguments)`` in a fresh Python; return its JSON value."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        text = json.dumps(arguments, default=str)
        command = [sys.executable, "-c", _CHILD, str(HERE), task, text, str(answer)]
        done = subprocess.run(command, check=False)
        if done.returncode:
            raise SystemExit(f"{task} failed with exit code {done.returncode}.")
        return json.loads(answer.read_text())


def child(task: str, arguments: str, answer: str) -> None:
    """Do the work of `in_child`, on the other side."""
    module, _, function = task.partition(":")
    value = getattr(importlib.import_module(module), function)(**json.loads(arguments))
    Path(answer).write_text(json.dumps(value))


def timed(function: Any, *args: Any, **kwargs: Any) -> tuple[float, Any]:
    """Return seconds and value of a call."""
    started = time.perf_counter()
    value = function(*args, **kwargs)
    return time.perf_counter() - started, value


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Return "median (min to max)"."""
    return (
        f"{statistics.median(values):.{digits}f} "
        f"({min(values):.{digits}f} to {max(values):.{digits}f})"
    )


# -------------------------------------------------------------------- tables, results


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a Markdown table; columns of numbers are set to the right.

    Floats get three decimals, None becomes a dash.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    lines = [list(map(str, head)), *cells]
    if any(len(line) != len(head) for line in lines):
        raise ValueError(f"Every row must have {len(head)} cells, as the head has.")
    numeric = [
        bool(cells) and all(_is_number(row[i]) for row in cells)
        for i in range(len(head))
    ]
    width = [max(3, *(len(line[i]) for line in lines)) for i in range(len(head))]
    rule = [
        "-" * (w - 1) + ":" if n else "-" * w
        for w, n in zip(width, numeric, strict=True)
    ]
    padded = [
        [
            text.rjust(w) if n else text.ljust(w)
            for text, w, n in zip(line, width, numeric, strict=True)
        ]
        for line in lines
    ]
    padded.insert(1, rule)
    return "\n".join("| " + " | ".join(line) + " |" for line in padded)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}"
    return str(value)


def _is_number(text: str) -> bool:
    return text == "-" or text[:1].isdigit() or (text[:1] in "+-." and len(text) > 1)


def report(part: str, title: str, text: str) -> None:
    """Print one titled piece of a part's answer."""
    print(f"\n## {part}: {title}\n\n{text}\n", flush=True)


def save(part: str, values: dict[str, Any]) -> Path:
    """Write a part's numbers, with the machine, to ``results/<part>.json``."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{part}.json"
    text = json.dumps({"machine": machine(), **values}, indent=1, sort_keys=True)
    path.write_text(text + "\n")
    return path


# ---------------------------------------------------------------------------- data


@dataclass(frozen=True)
class Sample:
    """One annotated image of the reference data."""

    dataset: str
    image_path: Path
    mask_path: Path
    scribbles: dict[str, Path]
    megapixels: float

    def image(self) -> np.ndarray:
        """Return (Y, X) grey or (Y, X, 3) colours; grey where the three are equal."""
        source = open_image(self.image_path)
        block = source.read(source.window)
        if (block[..., :1] == block).all():
            return np.ascontiguousarray(block[..., 0])
        return block

    def mask(self) -> np.ndarray:
        return read_labels(self.mask_path)

    def painted(self, kind: str) -> np.ndarray:
        return read_labels(self.scribbles[kind])


def public_sets(data: Path) -> dict[str, list[Sample]]:
    """Return the 2-D sets of the reference data, by name, images in index order."""
    out: dict[str, list[Sample]] = {}
    for entry in json.loads((data / "index.json").read_text())["entries"]:
        if entry["set"] != "public":
            continue
        shape = entry["shape"]
        if len(shape) != 2 and shape[2] not in (3, 4):
            continue  # a stack
        image = data / entry["file"]
        folder = data / "scribbles" / entry["dataset"]
        out.setdefault(entry["dataset"], []).append(
            Sample(
                dataset=entry["dataset"],
                image_path=image,
                mask_path=data / entry["mask"],
                scribbles={k: folder / f"{image.stem}-{k}.png" for k in SCRIBBLES},
                megapixels=shape[0] * shape[1] / 1e6,
            )
        )
    return out


def mirrored(tile: np.ndarray, side: int) -> np.ndarray:
    """Return a square mosaic of an image and its mirror images, without seams."""
    rows, cols = (np.arange(side) % (2 * n) for n in tile.shape[:2])
    rows = np.minimum(rows, 2 * tile.shape[0] - 1 - rows)
    cols = np.minimum(cols, 2 * tile.shape[1] - 1 - cols)
    return np.ascontiguousarray(tile[rows][:, cols])


def three_phases(data: Path, side: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Return a square micrograph of three classes, scribbles on it and its origin.

    The real one is the shared 16-bit superalloy in mirrored copies, painted on four
    of them; without the shared data it is a synthetic one.
    """
    if (data / "public" / "superalloy_16bit").is_dir():
        sample = public_sets(data)["superalloy_16bit"][0]
        painted = mirrored(sample.painted("spread"), side)
        reach = 2 * sample.mask().shape[0]
        painted[reach:] = 0
        painted[:, reach:] = 0
        return mirrored(sample.image(), side), painted, "superalloy_16bit, mirrored"
    made = synthesize("precipitates", (side, side), seed=0)
    painted = draw_scribbles(made.mask, strokes_per_class=8, seed=0)
    return made.image, painted, "synthetic precipitates"
