"""The file of painted blocks: compressed, checked, the same for the same paint.

Only this module knows its layout, and it trusts nothing that it reads.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from napari_alibi_seg._base import StoreError
from napari_alibi_seg._workspace._block import (
    BLOCK_PX,
    Block,
    Key,
    block_window,
    counts_of,
    unpacked,
)

__all__ = ["file_of", "parsed"]

_FORMAT = "alibi-seg-scribbles"
_VERSION = 1
_MAX_SIDE = 2**31 - 1


def file_of(
    shape: tuple[int, int], blocks: Mapping[Key, Block], about: Mapping[str, str]
) -> bytes:
    """Return the content of a file; see `ScribbleBlocks.to_bytes`."""
    keys = sorted(blocks)
    packed = [blocks[k].compressed() for k in keys]
    arrays: dict[str, npt.NDArray[Any]] = {
        "keys": np.array(keys, np.int32).reshape(-1, 2),
        "sizes": np.array([len(p) for p in packed], np.int64),
        "pixels": np.frombuffer(b"".join(packed), np.uint8),
    }
    meta = {
        "format": _FORMAT,
        "version": _VERSION,
        "shape": list(shape),
        "block": BLOCK_PX,
        "about": dict(about),
        "digest": _digest(arrays),
    }
    text = json.dumps(meta, sort_keys=True, ensure_ascii=False).encode()
    return save({"meta": np.frombuffer(text, np.uint8), **arrays})


def parsed(
    content: bytes, where: str
) -> tuple[tuple[int, int], dict[Key, Block], dict[str, str]]:
    """Return shape, blocks and notes of a file; see `ScribbleBlocks.from_bytes`."""
    try:
        return _parsed(content)
    except (
        *(SafetensorError, zlib.error, ValueError, KeyError, TypeError),
        *(AttributeError, OverflowError, RecursionError, MemoryError),
    ) as err:
        reason = " ".join(str(err).split())[:200] or type(err).__name__
        raise StoreError(
            f"{where}: expected scribbles of this program, got a file that is "
            f"damaged or of another kind ({reason})."
        ) from err


def _parsed(content: bytes) -> tuple[tuple[int, int], dict[Key, Block], dict[str, str]]:
    arrays = load(content)
    meta = json.loads(arrays.pop("meta").tobytes())
    if meta["format"] != _FORMAT or meta["version"] != _VERSION:
        raise ValueError(f"format {meta['format']!r}, version {meta['version']!r}")
    if meta["block"] != BLOCK_PX or meta["digest"] != _digest(arrays):
        raise ValueError("its checksum does not fit")
    height, width = (int(n) for n in meta["shape"])
    if not 1 <= min(height, width) <= max(height, width) <= _MAX_SIDE:
        raise ValueError(f"shape {height} x {width}")
    blocks: dict[Key, Block] = {}
    ends = np.cumsum(arrays["sizes"])
    pixels = arrays["pixels"].tobytes()
    for key, end, size in zip(
        arrays["keys"].tolist(), ends.tolist(), arrays["sizes"].tolist(), strict=True
    ):
        at = (int(key[0]), int(key[1]))
        window = block_window(at, (height, width))
        if min(at) < 0 or min(window.shape) < 1:
            raise ValueError(f"a block at {at}, outside")
        packed = pixels[end - size : end]
        counts = counts_of(unpacked(packed, window.shape))
        blocks[at] = Block(counts, window.shape, None, packed)
    about = {str(k): str(v) for k, v in dict(meta["about"]).items()}
    return (height, width), blocks, about


def _digest(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in ("keys", "sizes", "pixels"):
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()
