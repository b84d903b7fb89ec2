"""A process that is killed while it saves loses the save in progress and no more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

_KILLS = 25


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and kill -9")
def test_killed_in_the_middle_of_saving(tmp_path) -> None:
    program = Path(__file__).with_name("killed_saver.py")
    done = subprocess.run(
        [sys.executable, program, tmp_path, str(_KILLS)],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert len(results) == _KILLS
    for result in results:
        last = result["last"]
        assert result["scribbles"] in (last, last + 1), result
        assert result["state"] in (last, last + 1), result
        assert result["notices"] == [], result
        assert result["hidden"] == [".lock"], result
    # it did work between the kills
    assert results[-1]["last"] >= _KILLS
