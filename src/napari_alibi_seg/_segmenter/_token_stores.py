"""Where the tokens of an image lie, and which of them are deleted again.

In a folder that the user named they are kept and found again, or, for a batch, lie in
a scratch folder inside it until the file is done. Without a folder they lie in memory,
or in a temporary folder if they are many. Only this module makes these choices.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import weakref
from contextlib import suppress
from pathlib import Path

from napari_alibi_seg._base import Backbone
from napari_alibi_seg._segmenter._embedding import Embedding
from napari_alibi_seg.data import (
    DiskStore,
    MemoryStore,
    TokenGrid,
    TokenStore,
    WorkingImage,
)

__all__ = ["SCRATCH_FOLDER", "delete_scratch", "kept_store", "unkept_store"]

_logger = logging.getLogger(__name__)

# Inside a folder of stores: those that nobody asked to keep.
SCRATCH_FOLDER = ".alibi-seg-scratch"
# Tokens that nobody asked to keep: more lie in a temporary folder.
_MEMORY_STORE_BYTES = 512 << 20


def kept_store(
    root: Path,
    view: WorkingImage,
    grid: TokenGrid,
    backbone: Backbone,
    *,
    scratch: str | None = None,
) -> DiskStore:
    """Return the store of an image's tokens in a folder of stores, or `root` itself.

    With `scratch`, tokens that are not there already go to this folder inside it.
    """
    identity = {
        "image": view.source.content_hash(),
        "channels": view.channels
        if isinstance(view.channels, str)
        else list(view.channels),
        "intensity": view.intensity.to_dict(),
        "backbone": backbone.identity,
    }
    kept = DiskStore.locate(root, identity, grid, backbone.embed_dim)
    if scratch is not None and root.suffix != ".zarr" and not kept.exists():
        root = root / scratch
    return DiskStore(root, identity, grid, backbone.embed_dim)


def unkept_store(grid: TokenGrid, n_channels: int) -> TokenStore:
    """Return a store of tokens that nobody asked to keep, in memory if they are few."""
    n_bytes = grid.shape[0] * grid.shape[1] * n_channels * 2
    if n_bytes <= _MEMORY_STORE_BYTES:
        return MemoryStore(grid, n_channels)
    folder = Path(tempfile.mkdtemp(prefix="alibi-seg-"))
    _logger.info(
        "Features of %.1f GB go to %s and are deleted when they are no longer used; "
        "name a `store` to keep them.",
        *(n_bytes / 1e9, folder),
    )
    store = DiskStore(folder, {"temporary": True}, grid, n_channels)
    # also runs when the program ends
    weakref.finalize(store, shutil.rmtree, folder, ignore_errors=True)
    return store


def delete_scratch(embedding: Embedding) -> None:
    """Delete the tokens of an embedding if nobody asked to keep them.

    See `scratch` of `Embedder.prepare`.
    """
    store = embedding.store
    if not isinstance(store, DiskStore):
        return
    folder = store.path.parent
    if folder.name.startswith(SCRATCH_FOLDER):
        store.delete()
        if folder.name != SCRATCH_FOLDER:  # others may be about to use that one
            with suppress(OSError):
                folder.rmdir()
