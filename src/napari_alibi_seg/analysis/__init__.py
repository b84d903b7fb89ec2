"""Looking at features: how much position is in them, and pictures of what they see.

Features come in as arrays of tokens, whatever made them.
"""

from napari_alibi_seg.analysis._crops import (
    FEW_CROPS,
    Crops,
    crop_side,
    draw_crops,
    synthetic_crops,
)
from napari_alibi_seg.analysis._damage import (
    SideScores,
    segmentation_damage,
)
from napari_alibi_seg.analysis._fingerprint import (
    Fingerprint,
    fingerprint,
)
from napari_alibi_seg.analysis._frame import (
    MOVES,
    FrameControl,
    move_image,
)
from napari_alibi_seg.analysis._homogeneity import (
    ClusterInformation,
    DistanceCurve,
    cluster_position_information,
    cosine_by_distance,
    cosine_map,
)
from napari_alibi_seg.analysis._lengths import (
    LengthRow,
    length_generalisation,
)
from napari_alibi_seg.analysis._level import HEADLINE, HIGH_R2
from napari_alibi_seg.analysis._mic import (
    ArtefactScore,
    artefact_score,
)
from napari_alibi_seg.analysis._noise import (
    Floor,
    Smoothness,
    measure_smoothness,
    noise_floor,
)
from napari_alibi_seg.analysis._probe import (
    ProbeResult,
    TransferResult,
    linear_probe,
    transfer_probe,
)
from napari_alibi_seg.analysis._quick import PositionCheck, iter_position_check
from napari_alibi_seg.analysis._ramps import RAMPS, ramp
from napari_alibi_seg.analysis._report import (
    PositionPictures,
    PositionReport,
    PositionStep,
    iter_position_report,
    position_report,
)
from napari_alibi_seg.analysis._space import FeatureSpace, feature_space
from napari_alibi_seg.analysis._table import (
    CHANNEL_R2,
    ProbeRow,
    ProbeTable,
    probe_table,
)
from napari_alibi_seg.analysis._views import (
    MAX_CLUSTERS,
    MIN_CLUSTERS,
    ClusterMap,
    cluster_map,
    cluster_maps,
    nearest_clusters,
    similarity_map,
)

__all__ = [
    "CHANNEL_R2",
    "FEW_CROPS",
    "HEADLINE",
    "HIGH_R2",
    "MAX_CLUSTERS",
    "MIN_CLUSTERS",
    "MOVES",
    "RAMPS",
    "ArtefactScore",
    "ClusterInformation",
    "ClusterMap",
    "Crops",
    "DistanceCurve",
    "FeatureSpace",
    "Fingerprint",
    "Floor",
    "FrameControl",
    "LengthRow",
    "PositionCheck",
    "PositionPictures",
    "PositionReport",
    "PositionStep",
    "ProbeResult",
    "ProbeRow",
    "ProbeTable",
    "SideScores",
    "Smoothness",
    "TransferResult",
    "artefact_score",
    "cluster_map",
    "cluster_maps",
    "cluster_position_information",
    "cosine_by_distance",
    "cosine_map",
    "crop_side",
    "draw_crops",
    "feature_space",
    "fingerprint",
    "iter_position_check",
    "iter_position_report",
    "length_generalisation",
    "linear_probe",
    "measure_smoothness",
    "move_image",
    "nearest_clusters",
    "noise_floor",
    "position_report",
    "probe_table",
    "ramp",
    "segmentation_damage",
    "similarity_map",
    "synthetic_crops",
    "transfer_probe",
]
