"""The same work on many processes and machines, with dask.distributed.

Needs the extra `cluster`. Nothing is computed differently here: workers call the steps
that one process calls, and write what they computed to the stores themselves.
"""

from napari_alibi_seg._distributed._apply import iter_apply_on
from napari_alibi_seg._distributed._cluster import open_cluster
from napari_alibi_seg._distributed._features import iter_features_on

__all__ = ["iter_apply_on", "iter_features_on", "open_cluster"]
