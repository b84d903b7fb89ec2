"""Run by test_kill.py: kill -9 a process in the middle of saving, again and again.

Prints a JSON list with, for each kill, the last save that was reported and the save
that the project holds (in scribbles and in its state).
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np

from napari_alibi_seg._base import Window
from napari_alibi_seg._workspace import (
    ClassEntry,
    ImageIdentity,
    Project,
    ProjectState,
    find_project,
)

SHAPE = (600, 600)


def expected(n: int) -> np.ndarray:
    """Scribbles after n saves: one row each, ids with gaps."""
    labels = np.zeros(SHAPE, np.uint8)
    for i in range(n):
        labels[i % SHAPE[0]] = (1, 3, 7)[(i + i // SHAPE[0]) % 3]
    return labels


def save_for_ever(folder: Path, image: ImageIdentity, start: int, pipe: int) -> None:
    project = Project.open(folder, image)
    labels = expected(start)
    for n in range(start + 1, sys.maxsize):
        row = (n - 1) % SHAPE[0]
        labels[row] = expected_row(n)
        project.save_scribbles(None, labels, Window(row, row + 1, 0, SHAPE[1]))
        project.save_state(state(n))
        os.write(pipe, n.to_bytes(8, "little"))


def expected_row(n: int) -> int:
    i = n - 1
    return (1, 3, 7)[(i + i // SHAPE[0]) % 3]


def state(n: int) -> ProjectState:
    return ProjectState(classes=(ClassEntry(id=3, name=f"{n}", colour="#000000"),))


def saves_in(labels: np.ndarray, near: int) -> int | None:
    for n in (near, near + 1):
        if np.array_equal(labels, expected(n)):
            return n
    return None


def one_kill(image: ImageIdentity, start: int, wait_s: float) -> dict[str, object]:
    found = find_project(image)
    assert found is not None
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        save_for_ever(found.folder, image, start, writer)
    os.close(writer)
    first = os.read(reader, 8)
    time.sleep(wait_s)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    told = first
    while more := os.read(reader, 2**16):
        told += more
    os.close(reader)
    last = int.from_bytes(told[-8:], "little")
    with Project.open(found.folder, image) as project:
        held = saves_in(project.load_scribbles(None), last)
        name = int(project.load_state().classes[0].name)
        left = [p.name for p in project.folder.iterdir() if p.name.startswith(".")]
        return {
            "last": last,
            "scribbles": held,
            "state": name,
            "notices": project.notices,
            "hidden": left,
        }


def main() -> None:
    folder, kills = Path(sys.argv[1]), int(sys.argv[2])
    image = ImageIdentity("steel.tif", folder / "steel.tif", SHAPE, "c0ffee")
    Project.create(image).close()
    rng, results, start = random.Random(0), [], 0
    for _ in range(kills):
        results.append(one_kill(image, start, rng.uniform(0, 0.04)))
        start = results[-1]["scribbles"]
        if start is None:
            break
    print(json.dumps(results))


if __name__ == "__main__":
    main()
