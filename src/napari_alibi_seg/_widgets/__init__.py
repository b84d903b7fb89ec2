"""The window: napari's dock and what it is made of.

The only room that knows Qt and napari.
"""

from napari_alibi_seg._widgets._dock import Dock, open_viewer
from napari_alibi_seg._widgets._hooks import CallbackTime, record_callbacks

__all__ = ["CallbackTime", "Dock", "open_viewer", "record_callbacks"]
