"""The facade that joins features and learning; see `Segmenter`."""

from napari_alibi_seg._segmenter._embedding import Embedding
from napari_alibi_seg._segmenter._recipe import ClassInfo
from napari_alibi_seg._segmenter._segmenter import Segmentation, Segmenter

__all__ = ["ClassInfo", "Embedding", "Segmentation", "Segmenter"]
