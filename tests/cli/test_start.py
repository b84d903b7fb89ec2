"""What the program imports before it answers: help and lists are there at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import napari_alibi_seg
from napari_alibi_seg._cli import _COMMANDS

LINES = [[], ["models"], *([name, "--help"] for name in _COMMANDS)]
HEAVY = ("torch", "timm", "numba", "scipy", "zarr", "sklearn", "napari", "qtpy")
# One after the other in one process: none of them may load what is heavy.
EACH = """
import contextlib, io, json, sys
from napari_alibi_seg._cli import main
lines, heavy = map(json.loads, sys.argv[1:])
for argv in lines:
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.suppress(SystemExit),
    ):
        main(argv)
    print(json.dumps([name for name in heavy if name in sys.modules]))
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """The heavy modules that are there after each line."""
    empty = str(tmp_path_factory.mktemp("empty"))
    done = subprocess.run(
        [sys.executable, "-c", EACH, json.dumps(LINES), json.dumps(HEAVY)],
        env={
            **os.environ,
            "ALIBI_SEG_CACHE": empty,
            "HF_HOME": empty,
            "PYTHONPATH": str(Path(napari_alibi_seg.__path__[0]).parent),
        },
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("number", range(len(LINES)), ids=lambda i: " ".join(LINES[i]))
def test_nothing_heavy_is_waited_for(loaded, number):
    assert len(loaded) == len(LINES)
    assert loaded[number] == []
