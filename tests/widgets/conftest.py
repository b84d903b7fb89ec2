"""A real viewer with the dock, whose files are all in the test's own folder."""

from __future__ import annotations

import gc

import pytest


@pytest.fixture(scope="session")
def frozen_libraries():
    """Keep the objects of all libraries from being looked through again and again.

    napari collects garbage whenever a layer goes and a viewer closes, which takes
    longer the more is imported; what a test makes is collected as ever.
    """
    from napari_alibi_seg.features import load_backbone

    load_backbone("alibi-tiny", device="cpu")  # imports what docks will
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def own_folders(tmp_path, monkeypatch):
    """Keep stores, projects and the home of a test in its folder."""
    home = tmp_path / "home"
    home.mkdir()
    for name, folder in (
        ("ALIBI_SEG_CACHE", "cache"),
        ("ALIBI_SEG_PROJECTS", "projects"),
        ("HOME", "home"),
        ("XDG_CACHE_HOME", "home/cache"),
        ("XDG_DATA_HOME", "home/data"),
    ):
        monkeypatch.setenv(name, str(tmp_path / folder))
    return tmp_path


@pytest.fixture
def driver(frozen_libraries, own_folders, make_napari_viewer, qtbot):
    """A viewer on the screen with the dock, and hands that drive it."""
    from widgets.driver import Driver, spin, wait_until

    made = Driver(make_napari_viewer(show=True))
    made.add_dock()
    yield made
    dock = made.dock
    if dock is not None:
        dock.end()
        wait_until(lambda: dock.is_idle, "threads to end")
    spin(0.02)
