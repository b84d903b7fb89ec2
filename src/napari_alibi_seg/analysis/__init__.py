"""Measurements behind the claim: how much position is in features.

Numpy only; features come in as arrays of tokens.
"""

from napari_alibi_seg.analysis._probe import (
    ProbeResult,
    TransferResult,
    linear_probe,
    transfer_probe,
)
from napari_alibi_seg.analysis._ramps import RAMPS, ramp

__all__ = [
    "RAMPS",
    "ProbeResult",
    "TransferResult",
    "linear_probe",
    "ramp",
    "transfer_probe",
]
