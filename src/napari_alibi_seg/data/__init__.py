"""Images, tiles, annotations and stores: everything with pixels but without torch."""

from napari_alibi_seg.data._annotations import Annotations
from napari_alibi_seg.data._atomic import write_bytes_atomic, write_text_atomic
from napari_alibi_seg.data._blocks import BlockCache, touched_blocks
from napari_alibi_seg.data._compiled import compiled
from napari_alibi_seg.data._identity import insist
from napari_alibi_seg.data._infobar import find_info_bar
from napari_alibi_seg.data._intensity import (
    IntensityRange,
    measure_range,
    resolve_channels,
    working_channels,
)
from napari_alibi_seg.data._io import open_image, open_levels
from napari_alibi_seg.data._labels import (
    open_labels,
    read_annotations,
    read_labels,
)
from napari_alibi_seg.data._levels import (
    coarse_store,
    iter_coarse_levels,
    open_coarse_levels,
)
from napari_alibi_seg.data._metrics import (
    ConfusionCounts,
    EvaluationPair,
    Scores,
    confusion,
    evaluate_pairs,
)
from napari_alibi_seg.data._microstructures import (
    KINDS,
    SyntheticMicrograph,
    synthesize,
)
from napari_alibi_seg.data._paths import cache_dir
from napari_alibi_seg.data._pixel_size import in_unit
from napari_alibi_seg.data._resample import sample_grid
from napari_alibi_seg.data._result_checks import RESULT_KINDS
from napari_alibi_seg.data._results import ResultStore
from napari_alibi_seg.data._sniff import IMAGE_SUFFIXES
from napari_alibi_seg.data._source import ImageSource
from napari_alibi_seg.data._store import (
    DiskStore,
    MemoryStore,
    TokenStore,
    iter_bands,
)
from napari_alibi_seg.data._strokes import draw_scribbles
from napari_alibi_seg.data._tiling import (
    TokenGrid,
    TokenTile,
    centre_out,
    pixel_tiles,
)
from napari_alibi_seg.data._working import WorkingImage
from napari_alibi_seg.data._write import write_image, write_large_labels

__all__ = [
    "IMAGE_SUFFIXES",
    "KINDS",
    "RESULT_KINDS",
    "Annotations",
    "BlockCache",
    "ConfusionCounts",
    "DiskStore",
    "EvaluationPair",
    "ImageSource",
    "IntensityRange",
    "MemoryStore",
    "ResultStore",
    "Scores",
    "SyntheticMicrograph",
    "TokenGrid",
    "TokenStore",
    "TokenTile",
    "WorkingImage",
    "cache_dir",
    "centre_out",
    "coarse_store",
    "compiled",
    "confusion",
    "draw_scribbles",
    "evaluate_pairs",
    "find_info_bar",
    "in_unit",
    "insist",
    "iter_bands",
    "iter_coarse_levels",
    "measure_range",
    "open_coarse_levels",
    "open_image",
    "open_labels",
    "open_levels",
    "pixel_tiles",
    "read_annotations",
    "read_labels",
    "resolve_channels",
    "sample_grid",
    "synthesize",
    "touched_blocks",
    "working_channels",
    "write_bytes_atomic",
    "write_image",
    "write_large_labels",
    "write_text_atomic",
]
