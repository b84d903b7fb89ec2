"""Stacks: one classifier, plane by plane, with probabilities smoothed along Z.

Only this module keeps the probabilities of planes until their neighbours are smoothed;
which those are and what each weighs is `_planes`'. Planes are images for everything
else; labels and uncertainty come from what was smoothed. A plane's result does not
depend on which planes were asked for.
"""

from __future__ import annotations

import itertools
import logging
import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_alibi_seg._base import FloatArray, SettingsError, TileResult, Window
from napari_alibi_seg._segmenter._embedding import default_workers, iter_threaded
from napari_alibi_seg._segmenter._planes import Planes
from napari_alibi_seg._segmenter._predict import decided
from napari_alibi_seg._segmenter._segmenter import Segmenter
from napari_alibi_seg._segmenter._token_stores import delete_scratch
from napari_alibi_seg.data import pixel_tiles

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_alibi_seg._segmenter._embedding import Embedding

__all__ = ["PlaneFeatures", "PlaneTile", "iter_predict_stack"]

_logger = logging.getLogger(__name__)

# Probabilities of neighbouring planes beyond this lie in a file.
_RING_BYTES = 512 << 20


@dataclass(frozen=True, slots=True)
class PlaneFeatures:
    """A sign of life while the features of a plane are computed.

    Attributes
    ----------
    plane : int
        Which plane, from 0; see `PlaneTile`.
    done, total : int
        Tiles of its features.
    time : int or None
        Point in time, where the image has more than one.
    """

    plane: int
    done: int
    total: int
    time: int | None = None


@dataclass(frozen=True, slots=True)
class PlaneTile:
    """A piece of the result of one plane.

    Attributes
    ----------
    plane : int
        Which plane along Z, from 0; of a time series without Z, which point in time.
    done, total : int
        Planes that are complete before this one, and of the run.
    result : TileResult
        As of `Segmenter.iter_predict`; its `index` and `total` count within the plane.
    time : int or None
        Point in time, where the image has more than one.
    position : int
        Of the plane among all: as `plane` where there is one stack axis, else planes
        of the first point in time, then of the second.
    """

    plane: int
    done: int
    total: int
    result: TileResult
    time: int | None = None
    position: int = 0


def iter_predict_stack(
    segmenter: Segmenter,
    image: Any,
    *,
    planes: Sequence[int] | None = None,
    z_smooth: float = 0.0,
    time: int | None = None,
) -> Iterator[PlaneFeatures | PlaneTile]:
    """Segment the planes of a stack, a time series or both, one after the other.

    Parameters
    ----------
    segmenter : Segmenter
        Fitted; see `Segmenter.fit` for scribbles on several planes.
    image : path or array
        A stack; a single plane is a stack of one.
    planes : sequence of int, optional
        Which, from 0, in ascending order; all by default. Of a series of stacks whose
        `time` is not named these are positions, see `PlaneTile`.
    z_smooth : float
        Sigma, in planes, of a Gaussian over the probabilities of neighbouring planes
        of the same point in time; 0 leaves each plane alone. Planes that are needed for
        this alone are computed too, and not yielded.
    time : int, optional
        The only point in time of a series, from 0.

    Yields
    ------
    PlaneFeatures or PlaneTile
        The tiles of a plane in reading order, planes in ascending order; each as soon
        as the planes that it depends on are done.

    Raises
    ------
    SettingsError
        For planes that are not there or not ascending, a `z_smooth` that is negative,
        not finite, or for a time series without Z, or a segmenter that is not fitted.
    ImageFileError
        If the image cannot be read.

    Notes
    -----
    Memory holds the probabilities of the planes within three sigma, or a temporary file
    does, above 512 MB of them. Tokens that are not in a store already are deleted when
    their plane is done.

    Examples
    --------
    >>> stack = np.zeros((3, 64, 64), np.uint8)
    >>> stack[:, :, 32:] = 200
    >>> stack[1, :, 32:] = 0  # a plane without signal
    >>> scribbles = np.zeros((64, 64), np.uint8)
    >>> scribbles[10:20, 5:9], scribbles[10:20, 50:54] = 1, 3
    >>> segmenter = Segmenter().fit(stack, [(0, scribbles), (2, scribbles)])
    >>> for step in iter_predict_stack(segmenter, stack[[0, 2]], z_smooth=0.5):
    ...     print(step.plane, step.result.labels_yx[40, [4, 60]])
    0 [1 3]
    1 [1 3]
    """
    segmenter.require_fitted()
    known = Planes.of(image, time)
    known.check_smoothing(z_smooth)
    chosen = _chosen(planes, len(known))
    if z_smooth == 0:
        return _iter_alone(segmenter, known, chosen)
    return _iter_smoothed(segmenter, known, chosen, z_smooth)


def _chosen(planes: Sequence[int] | None, n: int) -> list[int]:
    if planes is None:
        return list(range(n))
    chosen = list(planes)
    ascending = all(a < b for a, b in itertools.pairwise(chosen))
    if not chosen or not ascending or chosen[0] < 0 or chosen[-1] >= n:
        raise SettingsError(
            f"`planes` must be ascending numbers from 0 to {n - 1}, got {chosen}."
        )
    return chosen


def _iter_alone(
    segmenter: Segmenter, planes: Planes, chosen: list[int]
) -> Iterator[PlaneFeatures | PlaneTile]:
    for done, position in enumerate(chosen):
        embedding = yield from _embedded(segmenter, planes, position)
        for tile in segmenter.iter_predict(embedding, order="reading"):
            yield _tile(planes, position, done, len(chosen), tile)
        delete_scratch(embedding)


def _place(planes: Planes, position: int) -> tuple[int | None, int]:
    """Return point in time, where it says more, and plane."""
    time, plane = planes.at(position)
    if plane is not None:
        return time, plane
    return None, position if time is None else time


def _tile(
    planes: Planes, position: int, done: int, total: int, result: TileResult
) -> PlaneTile:
    time, plane = _place(planes, position)
    return PlaneTile(plane, done, total, result, time, position)


def _embedded(
    segmenter: Segmenter, planes: Planes, position: int
) -> Generator[PlaneFeatures, None, Embedding]:
    time, plane = _place(planes, position)
    embedding = segmenter.prepare(planes.open(position), scratch=True)
    for step in segmenter.iter_complete(embedding):
        yield PlaneFeatures(plane, step.done, step.total, time)
    return embedding


def _iter_smoothed(
    segmenter: Segmenter, planes: Planes, chosen: list[int], sigma: float
) -> Iterator[PlaneFeatures | PlaneTile]:
    with ExitStack() as stack:
        ring = _Ring(segmenter, planes, stack)
        for done, position in enumerate(chosen):
            weights = planes.weights(position, sigma)
            ring.forget_below(min(weights))
            for z in weights:
                yield from ring.iter_add(z)
            for tile in ring.iter_mixed(weights):
                yield _tile(planes, position, done, len(chosen), tile)


class _Ring:
    """Probabilities of the planes that are still needed, (K, Y, X) float32 each."""

    def __init__(self, segmenter: Segmenter, source: Planes, stack: ExitStack) -> None:
        self._segmenter = segmenter
        self._source = source
        self._stack = stack
        self._planes: dict[int, FloatArray] = {}
        self._folder: Path | None = None

    def forget_below(self, plane: int) -> None:
        """Drop what no later plane needs."""
        for z in [z for z in self._planes if z < plane]:
            del self._planes[z]
            if self._folder is not None:
                # a plane that was small enough for memory has no file
                self._file(z).unlink(missing_ok=True)

    def iter_add(self, plane: int) -> Iterator[PlaneFeatures]:
        """Compute a plane unless it is there."""
        if plane in self._planes:
            return
        embedding = yield from _embedded(self._segmenter, self._source, plane)
        classes = self._segmenter.require_fitted().class_ids
        proba = self._empty(plane, (len(classes), *embedding.shape))
        for tile in self._segmenter.iter_predict(embedding, order="reading"):
            proba[(slice(None), *tile.window.slices)] = tile.proba_kyx
        self._planes[plane] = proba
        delete_scratch(embedding)

    def iter_mixed(self, weights: dict[int, float]) -> Iterator[TileResult]:
        """Yield the tiles of a weighted mean of planes."""
        shape = next(iter(self._planes.values())).shape
        tiles = pixel_tiles((shape[1], shape[2]))
        classifier = self._segmenter.require_fitted()

        def mix(window: Window) -> TileResult:
            proba = np.zeros((shape[0], *window.shape), np.float32)
            for z in sorted(weights):
                part = self._planes[z][(slice(None), *window.slices)]
                proba += np.float32(weights[z]) * part
            return decided(window, proba, classifier, self._segmenter.settings)

        workers = self._segmenter.workers or default_workers()
        for k, result in enumerate(iter_threaded(mix, tiles, workers)):
            yield replace(result, index=k, total=len(tiles))

    def _empty(self, plane: int, shape: tuple[int, ...]) -> FloatArray:
        held = sum(p.nbytes for p in self._planes.values())
        if held + 4 * math.prod(shape) <= _RING_BYTES:
            return np.empty(shape, np.float32)
        if self._folder is None:
            made = tempfile.TemporaryDirectory(prefix="alibi-seg-")
            self._folder = Path(self._stack.enter_context(made))
            _logger.info("Probabilities of neighbouring planes go to %s", self._folder)
        return np.memmap(self._file(plane), np.float32, "w+", shape=shape)

    def _file(self, plane: int) -> Path:
        assert self._folder is not None
        return self._folder / f"{plane}.f32"
