"""The facade that joins features and learning; see `Segmenter`."""

from napari_alibi_seg._segmenter._apply_file import LARGE_PX, FileJob, failed_row
from napari_alibi_seg._segmenter._apply_stack import StackJob, open_job
from napari_alibi_seg._segmenter._backbone_choice import BackboneChoice
from napari_alibi_seg._segmenter._batch import (
    BatchRecord,
    file_tasks,
    iter_apply,
    sentence,
)
from napari_alibi_seg._segmenter._batch_task import BatchOptions, FileTask, Progress
from napari_alibi_seg._segmenter._document import check_target
from napari_alibi_seg._segmenter._embedding import Embedding, PixelFeatures
from napari_alibi_seg._segmenter._estimate import (
    LONG_SECONDS,
    Estimate,
    check_room,
    estimate,
)
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
from napari_alibi_seg._segmenter._feature_files import (
    FeatureFile,
    feature_file,
    identity_text,
    iter_feature_files,
)
from napari_alibi_seg._segmenter._holdout import (
    ClassHoldout,
    HoldoutScore,
    iter_holdout,
)
from napari_alibi_seg._segmenter._inputs import find_inputs
from napari_alibi_seg._segmenter._live import iter_live, iter_visible, iter_warm_up
from napari_alibi_seg._segmenter._manifest import FileResult
from napari_alibi_seg._segmenter._planes import count_planes
from napari_alibi_seg._segmenter._recipe import ClassInfo, class_colour
from napari_alibi_seg._segmenter._result_store import new_result_store
from napari_alibi_seg._segmenter._segmentation import Segmentation
from napari_alibi_seg._segmenter._segmenter import Segmenter
from napari_alibi_seg._segmenter._stack import (
    PlaneFeatures,
    PlaneTile,
    iter_predict_stack,
)
from napari_alibi_seg._segmenter._token_stores import delete_scratch
from napari_alibi_seg._segmenter._tokens import CellMap, TokenMap
from napari_alibi_seg._segmenter._where import least_certain

__all__ = [
    "LARGE_PX",
    "LONG_SECONDS",
    "BackboneChoice",
    "BatchOptions",
    "BatchRecord",
    "Beat",
    "CellMap",
    "ClassHoldout",
    "ClassInfo",
    "Embedding",
    "Estimate",
    "FeatureFile",
    "FileJob",
    "FileResult",
    "FileTask",
    "Finished",
    "HoldoutScore",
    "LiveEvent",
    "PixelFeatures",
    "PlaneFeatures",
    "PlaneTile",
    "Preview",
    "Progress",
    "Segmentation",
    "Segmenter",
    "StackJob",
    "Tile",
    "TokenMap",
    "Trained",
    "View",
    "Visible",
    "check_room",
    "check_target",
    "class_colour",
    "count_planes",
    "delete_scratch",
    "estimate",
    "failed_row",
    "feature_file",
    "file_tasks",
    "find_inputs",
    "identity_text",
    "iter_apply",
    "iter_feature_files",
    "iter_holdout",
    "iter_live",
    "iter_predict_stack",
    "iter_visible",
    "iter_warm_up",
    "least_certain",
    "new_result_store",
    "open_job",
    "sentence",
]
