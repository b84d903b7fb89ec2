"""What long work will take, from a few measured tiles, before it begins.

Only this module knows how seconds, disk and memory follow from an image and a
segmenter. Tiles that are measured are the first of the real work: their tokens are kept
where the rest will go.
"""

from __future__ import annotations

import math
import shutil
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_alibi_seg._base import OutputError, SettingsError, TileResult, Window
from napari_alibi_seg._segmenter._embedding import (
    STRIP_BYTES,
    Embedding,
    PixelFeatures,
    default_workers,
    iter_threaded,
)
from napari_alibi_seg._segmenter._predict import TileJob
from napari_alibi_seg._segmenter._tokens import MAP_BYTES
from napari_alibi_seg.data import DiskStore, MemoryStore, TokenStore, pixel_tiles
from napari_alibi_seg.features import GPU_BATCH, iter_extract

if TYPE_CHECKING:
    from napari_alibi_seg._segmenter._segmenter import Segmenter

__all__ = ["LONG_SECONDS", "Estimate", "check_room", "estimate"]

# Work that takes longer is announced.
LONG_SECONDS = 10.0

KINDS = ("labels", "probabilities", "uncertainty")

_TILE_PX = 512
# Every level of a pyramid has a quarter of the pixels of the one before.
_PYRAMID = 4 / 3
# What is measured on one tile may be twice as much on another.
_MARGIN = 2.0
# Decoded blocks of the image, and a band of it.
_READER_BYTES = 128 << 20


@dataclass(frozen=True, slots=True)
class Estimate:
    """What an image will take.

    Attributes
    ----------
    pixels : int
        Of the image.
    tiles : int
        Output tiles of 512 x 512 pixels that will be classified; 0 if only features are
        computed.
    seconds_per_tile : float
        Of one output tile, with all threads at work.
    token_tiles : int
        Tiles of ViT tokens that are still to be computed.
    seconds_per_token_tile : float
        Of one of these.
    seconds : float
        In all.
    store_bytes : int
        What the feature store will still grow by on disk.
    output_bytes : int
        About what the results will take on disk, pyramid included.
    memory_bytes : int
        About the most memory, beside program and weights.
    store_folder : Path or None
        Where the feature store lies; None if it lies in memory.

    Examples
    --------
    >>> print(Estimate(4_000_000, 16, 0.1, 0, 0.0, 1.6, 0, 200_000, 300_000_000))
    4 megapixels: about 2 s (16 tiles of result at 0.10 s).
    Needs about 300 MB of memory and 200 kB of disk for results.
    """

    pixels: int
    tiles: int
    seconds_per_tile: float
    token_tiles: int
    seconds_per_token_tile: float
    seconds: float
    store_bytes: int
    output_bytes: int
    memory_bytes: int
    store_folder: Path | None = None

    def __str__(self) -> str:
        parts = [
            f"{n} tiles of {what} at {seconds:.2f} s"
            for n, what, seconds in (
                (self.token_tiles, "features", self.seconds_per_token_tile),
                (self.tiles, "result", self.seconds_per_tile),
            )
            if n
        ]
        work = f" ({', '.join(parts)})" if parts else ""
        disk = [
            f"{_size(n)} of disk for {what}"
            for n, what in (
                (self.store_bytes, "features"),
                (self.output_bytes, "results"),
            )
            if n
        ]
        *most, last = [f"{_size(self.memory_bytes)} of memory", *disk]
        needs = f"{', '.join(most)} and {last}" if most else last
        return (
            f"{self.pixels / 1e6:.3g} megapixels: about {_duration(self.seconds)}"
            f"{work}.\nNeeds about {needs}."
        )


def estimate(
    segmenter: Segmenter, image: Any, kinds: Sequence[str] = ("labels",)
) -> Estimate:
    """Measure a few tiles and say what an image will take.

    Costs the reading of the image's intensity range, about two tiles of features per
    core (four batches on a GPU; they are kept in the embedding's store) and one output
    tile per core. Give it an `Embedding` and go on with the same one, then nothing is
    done twice.

    Parameters
    ----------
    segmenter : Segmenter
        Fitted, unless `kinds` is empty.
    image : path, array, ImageSource or Embedding
        The image; see `Segmenter.prepare`.
    kinds : sequence of {"labels", "probabilities", "uncertainty"}
        What will be written. Empty: only features will be computed.

    Returns
    -------
    Estimate

    Raises
    ------
    SettingsError
        For an unknown kind, or if results are wanted of a segmenter that is not fitted.
    ImageFileError
        If the image cannot be read.
    OutputError
        If the disk has no room for the first tiles.

    Examples
    --------
    >>> from napari_alibi_seg import Segmenter
    >>> image = np.zeros((600, 700), np.uint8)
    >>> image[:, 300:] = 200
    >>> scribbles = np.zeros((600, 700), np.uint8)
    >>> scribbles[9, :50], scribbles[9, 500:] = 1, 2
    >>> segmenter = Segmenter().fit(image, scribbles)
    >>> found = estimate(segmenter, image)
    >>> found.pixels, found.tiles, found.token_tiles, found.seconds > 0
    (420000, 4, 0, True)
    """
    unknown = [k for k in kinds if k not in KINDS]
    if unknown:
        raise SettingsError(f"`kinds` must be some of {KINDS}, got {unknown[0]!r}.")
    embedding = image if isinstance(image, Embedding) else segmenter.prepare(image)
    workers = segmenter.workers or default_workers()
    store = embedding.store
    n_tokens = 0 if store is None else len(store.missing())
    token_seconds, measured = _measured_tokens(segmenter, embedding, workers)
    tiles = len(pixel_tiles(embedding.shape)) if kinds else 0
    tile_seconds, output = 0.0, 0
    if kinds:
        tile_seconds, result = _measured_result(segmenter, embedding, workers, measured)
        output = _output_bytes(result, kinds, math.prod(embedding.shape))
    on_disk = n_tokens * _tile_bytes(store) if isinstance(store, DiskStore) else 0
    return Estimate(
        pixels=math.prod(embedding.shape),
        tiles=tiles,
        seconds_per_tile=tile_seconds,
        token_tiles=n_tokens,
        seconds_per_token_tile=token_seconds,
        seconds=n_tokens * token_seconds + tiles * tile_seconds,
        store_bytes=on_disk,
        output_bytes=output,
        memory_bytes=_memory_bytes(segmenter, embedding, workers),
        store_folder=store.path.parent if isinstance(store, DiskStore) else None,
    )


def check_room(
    estimate: Estimate,
    folder: Path | None,
    *,
    copies: int = 1,
) -> None:
    """Raise before long work if the disk cannot hold what it will write.

    Parameters
    ----------
    estimate : Estimate
        From `estimate`.
    folder : Path or None
        Where results go; need not exist yet. None: only features are written.
    copies : int
        How many times the results lie on that disk at once, for example 2 where they
        are gathered in a store before they are exported.

    Raises
    ------
    OutputError
        With what is needed, what is free and what to do.

    Examples
    --------
    >>> little = Estimate(100, 1, 0.1, 0, 0.0, 0.1, 0, 4096, 1 << 20)
    >>> check_room(little, Path())
    """
    needs: dict[int, tuple[Path, int]] = {}
    for place, n in (
        (estimate.store_folder, estimate.store_bytes),
        (folder, estimate.output_bytes * copies),
    ):
        if place is not None and n:
            place = _existing(place)
            device = place.stat().st_dev
            where, before = needs.get(device, (place, 0))
            needs[device] = (where, before + n)
    for place, n in needs.values():
        free = shutil.disk_usage(place).free
        if n > free:
            raise OutputError(
                f"The disk of {place} has {_size(free)} free, but this will write "
                f"about {_size(n)} ({_size(estimate.store_bytes)} of features, "
                f"{_size(estimate.output_bytes * copies)} of results). Make room, or "
                f"choose a folder on another disk for results or features; leaving "
                f"out probabilities saves most."
            )


def _measured_tokens(
    segmenter: Segmenter, embedding: Embedding, workers: int
) -> tuple[float, int | None]:
    """Compute a few tiles; return seconds of one, and which is there if not all are.

    As many as run at once go first: they load libraries and choose kernels.
    """
    store = embedding.store
    missing = [] if store is None else store.missing()
    if store is None or not missing:
        return 0.0, None
    backbone = segmenter.backbone
    assert backbone is not None
    at_once = workers
    if str(backbone.device) != "cpu":
        at_once = max(1, GPU_BATCH // store.grid.density**2)
    first = missing[: 2 * at_once]
    half = len(first) // 2
    times = [time.perf_counter()]
    for _ in iter_extract(
        backbone, embedding.image, store, only=first, workers=workers
    ):
        times.append(time.perf_counter())
    seconds = (times[-1] - times[half]) / (len(times) - 1 - half)
    return seconds, first[0] if store.missing() else None


def _measured_result(
    segmenter: Segmenter, embedding: Embedding, workers: int, index: int | None
) -> tuple[float, TileResult]:
    """Classify a window on every core; return seconds of a full tile, and a result."""
    if segmenter.classifier is None:
        raise SettingsError(
            "This segmenter is not trained yet, so only features can be estimated: "
            "give `kinds=()`, or call `fit` first."
        )
    features = PixelFeatures(embedding, segmenter.projection)
    job = TileJob(features, segmenter.classifier, segmenter.settings)
    window = _window_of(embedding, index)
    small = Window(
        *(window.y0, min(window.y0 + 32, window.y1)),
        *(window.x0, min(window.x0 + 32, window.x1)),
    )
    job(small)  # loads libraries and what was compiled
    started = time.perf_counter()
    results = list(iter_threaded(job, [window] * workers, workers))
    seconds = (time.perf_counter() - started) / workers
    share = _TILE_PX**2 / math.prod(window.shape)
    tiles = pixel_tiles(embedding.shape)
    share = min(share, max(math.prod(t.shape) for t in tiles) / math.prod(window.shape))
    return seconds * share, results[0]


def _window_of(embedding: Embedding, index: int | None) -> Window:
    """Return an output tile, or as much of one as lies in one tile of tokens."""
    height, width = embedding.shape
    if index is None:
        tiles = pixel_tiles(embedding.shape)
        return tiles[len(tiles) // 2]
    grid = embedding.grid
    keep, d = grid.tiles[index].keep, grid.density
    y0, x0 = grid.pixel_of_token(keep.y0 * d, keep.x0 * d)
    y1, x1 = grid.pixel_of_token(keep.y1 * d - 1, keep.x1 * d - 1)
    top, left = max(0, math.ceil(y0)), max(0, math.ceil(x0))
    bottom = min(height, math.floor(y1), top + _TILE_PX)
    right = min(width, math.floor(x1), left + _TILE_PX)
    # an image of a single token is one window
    return Window(
        min(top, height - 1),
        max(bottom, min(top, height - 1) + 1),
        min(left, width - 1),
        max(right, min(left, width - 1) + 1),
    )


def _output_bytes(result: TileResult, kinds: Sequence[str], pixels: int) -> int:
    arrays = {
        "labels": result.labels_yx,
        "probabilities": result.proba_kyx,
        "uncertainty": result.uncertainty_yx,
    }
    total = 0.0
    for kind in kinds:
        array = np.ascontiguousarray(arrays[kind])
        packed = len(zlib.compress(array.data, 1))
        share = min(_MARGIN * packed, array.nbytes) / result.labels_yx.size
        total += share * pixels * _PYRAMID
    return math.ceil(total)


def _tile_bytes(store: Any) -> int:
    grid = store.grid
    side = min(grid.tile_tokens, max(grid.patches)) * grid.density
    return int(side * side * store.n_channels * 2)


def _memory_bytes(segmenter: Segmenter, embedding: Embedding, workers: int) -> int:
    """Return a sum of the largest things that live at once."""
    features = PixelFeatures(embedding, segmenter.projection)
    tile = min(_TILE_PX**2, math.prod(embedding.shape)) * 4
    classical = embedding.classical.n_features if embedding.classical else 0
    strip = min(STRIP_BYTES, tile * features.n_features)
    n_classes = len(segmenter.classes) or 2
    results = (workers + 2) * tile * (n_classes + 2)
    total = workers * (tile * classical + strip) + results + _READER_BYTES
    store = embedding.store
    if store is not None:
        grid = embedding.grid
        total += min(MAP_BYTES, math.prod(grid.shape) * features.n_vit * 4)
        # attention of a tile, all heads at once, and a few maps of its tokens
        n = grid.tile_tokens**2
        passes = grid.density**2
        total += workers * n * store.n_channels * 4 * 16
        total += _held_in_memory(store) + passes * n * store.n_channels * 4
    return int(total)


def _held_in_memory(store: TokenStore) -> int:
    if not isinstance(store, MemoryStore):
        return 0
    return math.prod(store.grid.shape) * store.n_channels * 2


def _existing(folder: Path) -> Path:
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder


def _size(n_bytes: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= 0.95 * size:
            return f"{n_bytes / size:.{1 if n_bytes < 9.5 * size else 0}f} {unit}"
    return f"{max(1, round(n_bytes / 1e3))} kB"


def _duration(seconds: float) -> str:
    for unit, size in (("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * size:
            n = seconds / size
            return f"{n:.{1 if n < 9.5 else 0}f} {unit}"
    return f"{max(1, round(seconds))} s"
