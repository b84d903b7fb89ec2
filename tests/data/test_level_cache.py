"""The cache of coarser levels stays below a size, and nobody loses what is open."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from napari_alibi_seg.data import (
    _level_cache,
    iter_coarse_levels,
    open_coarse_levels,
    open_image,
)

SOURCE = open_image(np.random.default_rng(0).integers(0, 250, (1200, 700), np.uint8))
NAMES = "abc"
SOURCES = Path(__file__).resolve().parents[2] / "src"


def store_of(folder, name):
    return folder / f"{name}.levels.zarr"


def made(folder, name, used_at):
    store = store_of(folder, name)
    list(iter_coarse_levels(SOURCE, store))
    os.utime(store / ".in-use", (used_at, used_at))
    return _level_cache._size(store)


def held(folder):
    return "".join(n for n in NAMES if store_of(folder, n).exists())


@pytest.fixture
def folder(tmp_path):
    """Three stores; b was used first, a last."""
    for name, used_at in zip(NAMES, (3000, 1000, 2000), strict=True):
        made(tmp_path, name, used_at)
    return tmp_path


def one(folder):
    return _level_cache._size(store_of(folder, "a"))


@pytest.mark.parametrize(
    ("n", "left"), [(3, "abc"), (2, "ac"), (1, "a"), (0, "")], ids=str
)
def test_the_least_recently_used_go_first(folder, n, left):
    (folder / "notes.txt").write_text("mine")
    _level_cache.trim_levels(folder, n * one(folder) + 100)
    assert held(folder) == left
    assert (folder / "notes.txt").read_text() == "mine"


def test_opening_is_use(folder):
    assert open_coarse_levels(SOURCE, store_of(folder, "b")) is not None
    gc.collect()
    _level_cache.trim_levels(folder, one(folder) + 100)
    assert held(folder) == "b"


def test_what_is_open_stays_and_can_be_read(folder):
    levels = open_coarse_levels(SOURCE, store_of(folder, "b"))
    _level_cache.trim_levels(folder, 0)
    assert held(folder) == "b"
    assert levels[0].read(levels[0].window).any()
    del levels
    gc.collect()
    _level_cache.trim_levels(folder, 0)
    assert held(folder) == ""


def test_what_another_process_has_open_stays(folder):
    code = """
        import sys
        from pathlib import Path
        import numpy as np
        from napari_alibi_seg.data import open_coarse_levels, open_image
        source = open_image(np.zeros((1200, 700), np.uint8))
        levels = open_coarse_levels(source, Path(sys.argv[1]))
        print("open", flush=True)
        sys.stdin.readline()
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(store_of(folder, "c"))]
    more = {"PYTHONPATH": str(SOURCES)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | more
    ) as other:
        assert other.stdout.readline() == b"open\n"
        _level_cache.trim_levels(folder, 0)
        assert held(folder) == "c"
        other.kill()  # a crash gives it free too
    _level_cache.trim_levels(folder, 0)
    assert held(folder) == ""


def test_making_levels_makes_room_for_them(folder, monkeypatch):
    monkeypatch.setattr(_level_cache, "LEVELS_BYTES", 2 * one(folder) + 100)
    list(iter_coarse_levels(SOURCE, store_of(folder, "d")))
    assert (held(folder), store_of(folder, "d").exists()) == ("a", True)


def test_one_that_is_too_large_alone_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(_level_cache, "LEVELS_BYTES", 1)
    list(iter_coarse_levels(SOURCE, store_of(tmp_path, "a")))
    assert len(open_coarse_levels(SOURCE, store_of(tmp_path, "a"))) == 1


def test_a_half_deleted_store_is_deleted(folder):
    store_of(folder, "a").rename(folder / "a.levels.zarr.doomed")
    _level_cache.trim_levels(folder)
    assert held(folder) == "bc"
    assert not [*folder.glob("*.doomed")]


@pytest.mark.skipif(sys.platform == "win32", reason="an open file keeps its folder")
@pytest.mark.parametrize("job", ["open", "make"])
def test_a_store_that_goes_while_its_lock_is_awaited(folder, monkeypatch, job):
    store, lock = store_of(folder, "a"), _level_cache._locked
    names = iter(["a.levels.zarr.doomed"])

    def late(file, *, is_shared):
        for name in names:  # another process deletes it, once
            store.rename(folder / name)
        return lock(file, is_shared=is_shared)

    monkeypatch.setattr(_level_cache, "_locked", late)
    if job == "open":
        assert open_coarse_levels(SOURCE, store) is None
        return
    steps = iter_coarse_levels(SOURCE, store)
    next(steps)
    _level_cache.trim_levels(folder, 0)
    assert held(folder) == "a"  # the lock is on the store that is being made
    list(steps)
    assert len(open_coarse_levels(SOURCE, store)) == 1
