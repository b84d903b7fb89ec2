"""How well a segmentation agrees with the truth.

Only this module knows how predictions and truths are compared: which pixels count,
what a prediction id means, and over which classes the mean is taken. It counts pairs
of ids sparsely, so ids may be any integers up to 32 bits with any gaps, and reads
arrays a band of rows at a time, so images may be larger than memory. Opening files and
printing results is left to the caller.

The rules, where `K` is `labels_offset`:

- a predicted id `p` means the truth id `p - K`; with `K > 0` a 0 means no class;
- pixels whose truth is `ignore` do not count at all;
- "no class" and ids that the truth does not know are wrong;
- IoU of a class is its hits over all pixels that the truth or the prediction gives it;
- mIoU is the plain mean over the ids that occur in the counted truth.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import AnnotationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "ClassScore",
    "ConfusionCounts",
    "EvaluationPair",
    "ImageScore",
    "Scores",
    "confusion",
    "evaluate_pairs",
]

_Int64: TypeAlias = npt.NDArray[np.int64]

# Outside the 32-bit ids on purpose: the predicted id of "no class".
_NO_CLASS = int(np.iinfo(np.int64).min)
_BAND_PIXELS = 1 << 20
# Up to this many possible pairs a table of counts is faster than sorting.
_TABLE_SIZE = 1 << 18
_NOTHING_COUNTS = "not scored, no pixel counts in the truth"


class EvaluationPair(NamedTuple):
    """A prediction with its truth, and the names under which to report them."""

    prediction: Any
    truth: Any
    prediction_name: str = "prediction"
    truth_name: str = "truth"


class ClassScore(NamedTuple):
    """Agreement on one class: IoU and the pixels each side gives it."""

    iou: float
    truth_pixels: int
    predicted_pixels: int


class ImageScore(NamedTuple):
    """Agreement on one image; None where no pixel counts."""

    prediction_name: str
    truth_name: str
    miou: float | None
    accuracy: float | None


@dataclass(frozen=True, slots=True, eq=False)
class ConfusionCounts:
    """A sparse confusion matrix: how many pixels of each truth got each prediction.

    Counts of several images add up with ``+``.

    Attributes
    ----------
    truth_ids, predicted_ids : (M,) int64
        The pairs of ids that occur, sorted; predictions already in truth ids.
    pixels : (M,) int64
        Pixels of each pair.

    Examples
    --------
    >>> one = confusion([[1, 1, 2]], [[1, 2, 2]])
    >>> (one + one).accuracy
    0.6666666666666666
    """

    truth_ids: _Int64 = field(default_factory=lambda: np.zeros(0, np.int64))
    predicted_ids: _Int64 = field(default_factory=lambda: np.zeros(0, np.int64))
    pixels: _Int64 = field(default_factory=lambda: np.zeros(0, np.int64))

    def __add__(self, other: ConfusionCounts) -> ConfusionCounts:
        return _merged([self, other])

    @property
    def n_pixels(self) -> int:
        """Pixels that count."""
        return int(self.pixels.sum())

    @property
    def accuracy(self) -> float | None:
        """Share of the counted pixels that are right; None if none counts."""
        if not self.n_pixels:
            return None
        return int(self.pixels[self._hits].sum()) / self.n_pixels

    @property
    def miou(self) -> float | None:
        """Mean IoU over the ids in the truth; None if no pixel counts."""
        scores = self.class_scores()
        if not scores:
            return None
        return float(np.mean([s.iou for s in scores.values()]))

    def class_scores(self) -> dict[int, ClassScore]:
        """Return the score of every id that occurs in the truth, by ascending id.

        Examples
        --------
        >>> confusion([[1, 1, 9]], [[1, 2, 2]]).class_scores()[1]
        ClassScore(iou=0.5, truth_pixels=1, predicted_pixels=2)
        """
        ids, where = np.unique(self.truth_ids, return_inverse=True)
        truth = _summed(where, self.pixels, ids.size)
        hits = _summed(where[self._hits], self.pixels[self._hits], ids.size)
        known = np.isin(self.predicted_ids, ids)
        column = np.searchsorted(ids, self.predicted_ids[known])
        predicted = _summed(column, self.pixels[known], ids.size)
        return {
            int(i): ClassScore(int(h) / int(t + p - h), int(t), int(p))
            for i, h, t, p in zip(ids, hits, truth, predicted, strict=True)
        }

    def matrix(self) -> tuple[_Int64, _Int64]:
        """Return the ids of the truth and the dense counts over them.

        Returns
        -------
        ids : (K,) int64
            Ids in the truth, ascending.
        counts : (K, K + 1) int64
            Truth by row, prediction by column; the last column holds predictions of
            no class or of ids that the truth does not know.

        Examples
        --------
        >>> ids, counts = confusion([[1, 1, 9]], [[1, 2, 2]]).matrix()
        >>> ids.tolist(), counts.tolist()
        ([1, 2], [[1, 0, 0], [1, 0, 1]])
        """
        ids, row = np.unique(self.truth_ids, return_inverse=True)
        known = np.isin(self.predicted_ids, ids)
        column = np.where(known, np.searchsorted(ids, self.predicted_ids), ids.size)
        counts = np.zeros((ids.size, ids.size + 1), dtype=np.int64)
        np.add.at(counts, (row, column), self.pixels)
        return ids, counts

    @property
    def _hits(self) -> npt.NDArray[np.bool_]:
        return np.asarray(self.truth_ids == self.predicted_ids)


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Agreement over a set of images and on each of them.

    Attributes
    ----------
    counts : ConfusionCounts
        Summed over the images.
    images : tuple of ImageScore
        In the order given.
    """

    counts: ConfusionCounts
    images: tuple[ImageScore, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What the numbers do not say: images without any pixel that counts."""
        return tuple(
            f"{image.prediction_name}: {_NOTHING_COUNTS} of {image.truth_name}."
            for image in self.images
            if image.accuracy is None
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values: no NaN, numbers that do not exist are None.

        Examples
        --------
        >>> scores = evaluate_pairs(
        ...     [EvaluationPair([[2, 1]], [[1, 0]])], labels_offset=1
        ... )
        >>> scores.to_dict()["classes"]["1"]
        {'iou': 1.0, 'truth_pixels': 1, 'predicted_pixels': 1}
        """
        return {
            "miou": self.counts.miou,
            "accuracy": self.counts.accuracy,
            "classes": {
                str(i): score._asdict()
                for i, score in self.counts.class_scores().items()
            },
            "images": [_image_row(image) for image in self.images],
        }


def confusion(
    prediction: Any,
    truth: Any,
    *,
    labels_offset: int = 0,
    ignore: int | None = 255,
    names: tuple[str, str] = ("prediction", "truth"),
) -> ConfusionCounts:
    """Count which truth got which prediction.

    Parameters
    ----------
    prediction, truth : array_like of int
        Of equal shape, any integer type whose ids fit 32 bits. Read in bands of
        rows, so a memory-mapped or chunked array is never loaded whole.
    labels_offset : int
        A predicted id minus this is a truth id. With a positive offset a predicted 0
        means no class.
    ignore : int or None
        Truth id whose pixels do not count.
    names : tuple of str
        What errors call the two arrays.

    Returns
    -------
    ConfusionCounts

    Raises
    ------
    AnnotationError
        If the shapes differ or an array does not hold integers of up to 32 bits.

    Examples
    --------
    >>> confusion([[2, 0, 1]], [[1, 1, 255]], labels_offset=1).accuracy
    0.5
    """
    prediction, truth = _checked(prediction, truth, names)
    parts: list[ConfusionCounts] = []
    for band in _bands(truth.shape):
        p, t = (
            _int64(a[band], name)
            for a, name in zip((prediction, truth), names, strict=True)
        )
        parts.append(_count(p, t, labels_offset, ignore))
        # Merging now and then keeps the list as short as the number of pairs allows.
        if len(parts) == 16:
            parts = [_merged(parts)]
    return _merged(parts)


def evaluate_pairs(
    pairs: Iterable[EvaluationPair],
    *,
    labels_offset: int = 0,
    ignore: int | None = 255,
) -> Scores:
    """Score predictions against their truths, over all images and on each.

    Parameters
    ----------
    pairs : iterable of EvaluationPair
        Taken one at a time, so a generator may open files as they are needed.
    labels_offset, ignore
        As in `confusion`.

    Returns
    -------
    Scores

    Raises
    ------
    AnnotationError
        As in `confusion`; the message names both of the pair.

    Examples
    --------
    >>> pair = EvaluationPair([[1, 2], [2, 2]], [[1, 1], [2, 2]], "a.tif", "b.png")
    >>> evaluate_pairs([pair]).images[0].accuracy
    0.75
    """
    total = ConfusionCounts()
    images = []
    for pair in pairs:
        names = (pair.prediction_name, pair.truth_name)
        counts = confusion(
            pair.prediction,
            pair.truth,
            labels_offset=labels_offset,
            ignore=ignore,
            names=names,
        )
        images.append(ImageScore(*names, counts.miou, counts.accuracy))
        total = total + counts
    return Scores(total, tuple(images))


def _image_row(image: ImageScore) -> dict[str, Any]:
    row: dict[str, Any] = {
        "prediction": image.prediction_name,
        "truth": image.truth_name,
        "miou": image.miou,
        "accuracy": image.accuracy,
    }
    if image.accuracy is None:
        row["note"] = _NOTHING_COUNTS
    return row


def _checked(prediction: Any, truth: Any, names: tuple[str, str]) -> tuple[Any, Any]:
    """Return both with a shape and an integer dtype, without reading large ones."""
    arrays = []
    for array, name in zip((prediction, truth), names, strict=True):
        if not hasattr(array, "dtype"):
            array = np.asarray(array)
        if np.dtype(array.dtype).kind not in "biu":
            raise AnnotationError(
                f"{name} must hold integer class ids, got dtype {array.dtype}."
            )
        arrays.append(np.atleast_1d(array) if array.ndim == 0 else array)
    shapes = tuple(tuple(a.shape) for a in arrays)
    if shapes[0] != shapes[1]:
        raise AnnotationError(
            f"{names[0]} and {names[1]} must have equal shapes, "
            f"got {shapes[0]} and {shapes[1]}."
        )
    return arrays[0], arrays[1]


def _bands(shape: tuple[int, ...]) -> Iterator[slice]:
    """Cut the first axis into bands of about a million pixels."""
    per_row = max(1, int(np.prod(shape[1:], dtype=np.int64)))
    step = max(1, _BAND_PIXELS // per_row)
    for start in range(0, shape[0], step):
        yield slice(start, min(start + step, shape[0]))


def _int64(band: Any, name: str) -> _Int64:
    values = np.asarray(band).ravel()
    if values.dtype.itemsize == 8 and values.size:
        low, high = int(values.min()), int(values.max())
        if low < -(2**31) or high >= 2**32:
            raise AnnotationError(
                f"{name} must hold class ids of up to 32 bits, got {low} to {high}."
            )
    return values.astype(np.int64)


def _count(
    prediction: _Int64, truth: _Int64, labels_offset: int, ignore: int | None
) -> ConfusionCounts:
    """Count the pairs of one band."""
    if ignore is not None:
        counts = truth != ignore
        prediction, truth = prediction[counts], truth[counts]
    if not truth.size:
        return ConfusionCounts()
    p0, t0 = int(prediction.min()), int(truth.min())
    span = int(prediction.max()) - p0 + 1
    n_keys = span * (int(truth.max()) - t0 + 1)
    # Both spans fit 33 bits; sorted unsigned keys hold 64.
    if n_keys <= _TABLE_SIZE:
        table = np.bincount((truth - t0) * span + (prediction - p0), minlength=n_keys)
        keys = np.flatnonzero(table)
        pixels = table[keys]
    elif n_keys < 2**63:
        keys, pixels = np.unique(
            (truth - t0) * span + (prediction - p0), return_counts=True
        )
    else:
        return _merged([_pairs(truth, prediction, labels_offset)])
    return _pairs(keys // span + t0, keys % span + p0, labels_offset, pixels)


def _pairs(
    truth: _Int64,
    prediction: _Int64,
    labels_offset: int,
    pixels: _Int64 | None = None,
) -> ConfusionCounts:
    """Turn painted ids into truth ids."""
    meant = prediction - labels_offset
    if labels_offset > 0:
        meant = np.where(prediction == 0, _NO_CLASS, meant)
    weight = np.ones(truth.size, np.int64) if pixels is None else pixels
    return ConfusionCounts(truth, meant, weight.astype(np.int64))


def _merged(parts: list[ConfusionCounts]) -> ConfusionCounts:
    """Sum counts pair by pair, sorted by truth and then by prediction."""
    if not parts:
        return ConfusionCounts()
    truth = np.concatenate([p.truth_ids for p in parts])
    predicted = np.concatenate([p.predicted_ids for p in parts])
    pixels = np.concatenate([p.pixels for p in parts])
    if not truth.size:
        return ConfusionCounts()
    order = np.lexsort((predicted, truth))
    truth, predicted = truth[order], predicted[order]
    new = np.ones(truth.size, dtype=bool)
    new[1:] = (truth[1:] != truth[:-1]) | (predicted[1:] != predicted[:-1])
    starts = np.flatnonzero(new)
    return ConfusionCounts(
        truth[starts], predicted[starts], np.add.reduceat(pixels[order], starts)
    )


def _summed(where: npt.NDArray[np.intp], pixels: _Int64, n: int) -> _Int64:
    """Sum `pixels` by index without the rounding of float weights."""
    out = np.zeros(n, dtype=np.int64)
    np.add.at(out, where, pixels)
    return out
