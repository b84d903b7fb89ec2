"""Looking at features: how much position is in them, and pictures of what they see.

Features come in as arrays of tokens, whatever made them.
"""

from napari_alibi_seg.analysis._probe import (
    ProbeResult,
    TransferResult,
    linear_probe,
    transfer_probe,
)
from napari_alibi_seg.analysis._ramps import RAMPS, ramp
from napari_alibi_seg.analysis._views import (
    MAX_CLUSTERS,
    MIN_CLUSTERS,
    ClusterMap,
    FeatureSpace,
    cluster_map,
    cluster_maps,
    feature_space,
    similarity_map,
)

__all__ = [
    "MAX_CLUSTERS",
    "MIN_CLUSTERS",
    "RAMPS",
    "ClusterMap",
    "FeatureSpace",
    "ProbeResult",
    "TransferResult",
    "cluster_map",
    "cluster_maps",
    "feature_space",
    "linear_probe",
    "ramp",
    "similarity_map",
    "transfer_probe",
]
