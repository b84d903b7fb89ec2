"""Fixtures every layer may use."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import pytest

# Seconds of a busy machine are no failure.
hypothesis.settings.register_profile("any-machine", deadline=None)
hypothesis.settings.load_profile("any-machine")


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Give a file's tests to one worker, so that what they share is made once.

    All windows go to the same worker: only one window of a screen has the focus.
    """
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        group = "windows" if item.get_closest_marker("gui") else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Reference vectors and real micrographs that lie beside a full checkout."""
    path = Path(__file__).resolve().parents[2] / "shared"
    if not path.is_dir():
        pytest.skip(f"needs the reference data in {path}, which is not here")
    return path
