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
from napari_alibi_seg._segmenter._recipe import ClassInfo
from napari_alibi_seg._segmenter._segmenter import Segmentation, Segmenter

__all__ = [
    "BatchOptions",
    "ClassInfo",
    "Embedding",
    "FileResult",
    "PixelFeatures",
    "Progress",
    "Segmentation",
    "Segmenter",
    "check_target",
    "find_inputs",
    "iter_apply",
]
