"""Where this user's downloads and features are kept between runs."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

__all__ = ["cache_dir"]

_VARIABLE = "ALIBI_SEG_CACHE"


def cache_dir() -> Path:
    """Return the cache folder; the environment variable ALIBI_SEG_CACHE moves it.

    Returns
    -------
    Path
        Holds ``weights/`` and ``features/``; may not exist yet.

    Examples
    --------
    >>> cache_dir().is_absolute()
    True
    """
    root = os.environ.get(_VARIABLE) or platformdirs.user_cache_dir("napari-alibi-seg")
    return Path(root).absolute()
