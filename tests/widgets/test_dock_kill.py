"""A killed napari loses nothing that was painted: the next one offers to go on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("napari")
from widgets.driver import QUIET, wait_until, write_sample

from napari_alibi_seg._workspace import Project

pytestmark = [pytest.mark.gui, *(pytest.mark.filterwarnings(q) for q in QUIET)]


@pytest.fixture(scope="module")
def left_over(tmp_path_factory):
    """Return a folder that a process painted in and that was killed at it."""
    folder = tmp_path_factory.mktemp("killed")
    path = write_sample(folder / "s.png")
    program = Path(__file__).with_name("killed_dock.py")
    tests = str(program.parents[1])
    source = str(program.parents[2] / "src")
    kept = [p for p in (os.environ.get("PYTHONPATH"),) if p]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([tests, source, *kept])}
    for name in ("ALIBI_SEG_CACHE", "ALIBI_SEG_PROJECTS", "HOME", "XDG_DATA_HOME"):
        env[name] = str(folder.with_name(f"{folder.name}-{name.lower()}"))
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", program, path, folder / "painted.npy"],
        stdout=subprocess.PIPE,
        text=True,
        env=env,
    ) as process:
        try:
            assert process.stdout is not None
            while (line := process.stdout.readline()).strip() != "painted":
                assert line, "it ended before it painted"
        finally:
            os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    return folder


@pytest.fixture
def killed(left_over, own_folders):
    """Return an image that was painted on in a process that was killed, and strokes.

    Each test has its own copy of all that was left.
    """
    shutil.copytree(left_over, own_folders, dirs_exist_ok=True)
    return own_folders / "s.png", np.load(own_folders / "painted.npy")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
def test_killed_and_gone_on_with(killed, driver) -> None:
    path, painted = killed
    driver.viewer.open(str(path), layer_type="image")
    dock = driver.dock
    wait_until(lambda: dock.offer.is_open, "an offer to go on")
    assert "scribbles and classes" in dock.offer.text.text()
    dock.offer.yes.click()
    driver.wait_image()
    driver.settled()
    assert np.array_equal(driver.painted, painted)
    entries = {e.id: (e.name, e.colour) for e in dock.session.classes}
    assert entries[3] == ("pore", "#112233")
    assert entries[7][0] == "grain"
    assert dock.settings.n_trees == 12
    # and it is segmented again at once
    assert set(np.unique(driver.labels.data)) == {3, 7}


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
def test_killed_and_begun_anew(killed, driver) -> None:
    path, painted = killed
    driver.viewer.open(str(path), layer_type="image")
    dock = driver.dock
    wait_until(lambda: dock.offer.is_open, "an offer to go on")
    dock.offer.no.click()
    driver.wait_image()
    assert len(dock.session.classes) == 0
    driver.classes(1)
    driver.key("1")
    driver.stroke((64, 20), (64, 100))
    driver.settled()
    assert set(np.unique(driver.painted)) == {0, 1}
    project = dock.image.project
    old = [f for f in path.parent.iterdir() if f.is_dir() and f != project.folder]
    (old,) = [f for f in old if f.name.startswith(path.name)]
    with Project.open(old, dock.image.identity) as earlier:
        assert np.array_equal(earlier.load_scribbles(None), painted)
        assert [e.name for e in earlier.load_state().classes] == ["pore", "grain"]
