"""Stacks: one classifier, plane by plane, with probabilities smoothed along Z.

Only this module knows which planes a plane's result depends on and how they are
weighed: a Gaussian, cut off at three sigma and scaled to a sum of one where the stack
ends, so that a plane's result does not depend on which planes were asked for. Planes
are images for everything else; labels and uncertainty come from what was smoothed.
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
from napari_alibi_seg._segmenter._painted import count_planes
from napari_alibi_seg._segmenter._predict import decided
from napari_alibi_seg._segmenter._segmenter import Segmenter, delete_scratch
from napari_alibi_seg.data import pixel_tiles

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_alibi_seg._segmenter._embedding import Embedding

__all__ = ["PlaneFeatures", "PlaneTile", "iter_predict_stack", "z_weights"]

_logger = logging.getLogger(__name__)

# Probabilities of neighbouring planes beyond this lie in a file.
_RING_BYTES = 512 << 20
_CUT_SIGMAS = 3.0


@dataclass(frozen=True, slots=True)
class PlaneFeatures:
    """A sign of life while the features of a plane are computed.

    Attributes
    ----------
    plane : int
        Which plane, from 0.
    done, total : int
        Tiles of its features.
    """

    plane: int
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class PlaneTile:
    """A piece of the result of one plane.

    Attributes
    ----------
    plane : int
        Which plane, from 0.
    done, total : int
        Planes that are complete before this one, and of the run.
    result : TileResult
        As of `Segmenter.iter_predict`; its `index` and `total` count within the plane.
    """

    plane: int
    done: int
    total: int
    result: TileResult


def iter_predict_stack(
    segmenter: Segmenter,
    image: Any,
    *,
    planes: Sequence[int] | None = None,
    z_smooth: float = 0.0,
) -> Iterator[PlaneFeatures | PlaneTile]:
    """Segment the planes of a stack or time series, one after the other.

    Parameters
    ----------
    segmenter : Segmenter
        Fitted; see `Segmenter.fit` for scribbles on several planes.
    image : path or array
        A stack; a single plane is a stack of one.
    planes : sequence of int, optional
        Which, from 0, in ascending order; all by default.
    z_smooth : float
        Sigma, in planes, of a Gaussian over the probabilities of neighbouring planes;
        0 leaves each plane alone. Planes that are needed for this alone are computed
        too, and not yielded.

    Yields
    ------
    PlaneFeatures or PlaneTile
        The tiles of a plane in reading order, planes in ascending order; each as soon
        as the planes that it depends on are done.

    Raises
    ------
    SettingsError
        For planes that are not there or not ascending, a `z_smooth` that is negative or
        not finite, or a segmenter that is not fitted.
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
    if not (math.isfinite(z_smooth) and z_smooth >= 0):
        raise SettingsError(
            f"`z_smooth` must be 0 or a positive number of planes, got {z_smooth!r}."
        )
    n = count_planes(image)
    chosen = _chosen(planes, n)
    if z_smooth == 0:
        return _iter_alone(segmenter, image, chosen)
    return _iter_smoothed(segmenter, image, chosen, n, z_smooth)


def z_weights(plane: int, n_planes: int, sigma: float) -> dict[int, float]:
    """Return the weight of every plane that a smoothed plane depends on.

    Examples
    --------
    >>> {z: round(w, 3) for z, w in z_weights(0, 5, 0.5).items()}
    {0: 0.881, 1: 0.119}
    """
    reach = math.floor(_CUT_SIGMAS * sigma)
    near = range(max(0, plane - reach), min(n_planes, plane + reach + 1))
    weights = [math.exp(-0.5 * ((z - plane) / sigma) ** 2) for z in near]
    return {z: w / sum(weights) for z, w in zip(near, weights, strict=True)}


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
    segmenter: Segmenter, image: Any, chosen: list[int]
) -> Iterator[PlaneFeatures | PlaneTile]:
    for done, plane in enumerate(chosen):
        embedding = yield from _embedded(segmenter, image, plane)
        for tile in segmenter.iter_predict(embedding, order="reading"):
            yield PlaneTile(plane, done, len(chosen), tile)
        delete_scratch(embedding)


def _embedded(
    segmenter: Segmenter, image: Any, plane: int
) -> Generator[PlaneFeatures, None, Embedding]:
    embedding = segmenter.prepare(image, plane=plane, scratch=True)
    for step in segmenter.iter_complete(embedding):
        yield PlaneFeatures(plane, step.done, step.total)
    return embedding


def _iter_smoothed(
    segmenter: Segmenter, image: Any, chosen: list[int], n: int, sigma: float
) -> Iterator[PlaneFeatures | PlaneTile]:
    with ExitStack() as stack:
        ring = _Ring(segmenter, image, stack)
        for done, plane in enumerate(chosen):
            weights = z_weights(plane, n, sigma)
            ring.forget_below(min(weights))
            for z in weights:
                yield from ring.iter_add(z)
            for tile in ring.iter_mixed(weights):
                yield PlaneTile(plane, done, len(chosen), tile)


class _Ring:
    """Probabilities of the planes that are still needed, (K, Y, X) float32 each."""

    def __init__(self, segmenter: Segmenter, image: Any, stack: ExitStack) -> None:
        self._segmenter = segmenter
        self._image = image
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
        embedding = yield from _embedded(self._segmenter, self._image, plane)
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
