"""The facade that joins features and learning; see `Segmenter`."""

from napari_alibi_seg._segmenter._batch import (
    BatchOptions,
    FileResult,
    Progress,
    find_inputs,
    iter_apply,
)
from napari_alibi_seg._segmenter._document import check_target
from napari_alibi_seg._segmenter._embedding import Embedding, PixelFeatures
from napari_alibi_seg._segmenter._events import (
    Beat,
    Finished,
    LiveEvent,
    Preview,
    Tile,
    Trained,
    View,
    Visible,
)
from napari_alibi_seg._segmenter._holdout import (
    ClassHoldout,
    HoldoutScore,
    iter_holdout,
)
from napari_alibi_seg._segmenter._live import iter_live, iter_warm_up
from napari_alibi_seg._segmenter._recipe import ClassInfo, class_colour
from napari_alibi_seg._segmenter._segmenter import Segmentation, Segmenter
from napari_alibi_seg._segmenter._where import least_certain

__all__ = [
    "BatchOptions",
    "Beat",
    "ClassHoldout",
    "ClassInfo",
    "Embedding",
    "FileResult",
    "Finished",
    "HoldoutScore",
    "LiveEvent",
    "PixelFeatures",
    "Preview",
    "Progress",
    "Segmentation",
    "Segmenter",
    "Tile",
    "Trained",
    "View",
    "Visible",
    "check_target",
    "class_colour",
    "find_inputs",
    "iter_apply",
    "iter_holdout",
    "iter_live",
    "iter_warm_up",
    "least_certain",
]
