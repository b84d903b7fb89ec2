"""Fixtures every layer may use."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _same_log_level():
    """`main` chooses a log level; in a test it must not choose for the tests after."""
    logger = logging.getLogger("napari_alibi_seg")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Reference vectors and real micrographs that lie beside a full checkout."""
    path = Path(__file__).resolve().parents[2] / "shared"
    if not path.is_dir():
        pytest.skip(f"needs the reference data in {path}, which is not here")
    return path
