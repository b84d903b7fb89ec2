"""What one dock works on: images, one segmenter, and the jobs that use them.

Every job is a generator for a worker thread; it knows no window. The order of things is
always: open an image (`_keeping`), compute its features, train on what is painted, look
(`_training`, `_position`), save (`_keeping`, `_documents`).
"""

from __future__ import annotations

from napari_alibi_seg._workspace._documents import FileJobs
from napari_alibi_seg._workspace._keeping import ProjectJobs
from napari_alibi_seg._workspace._position import PositionJobs
from napari_alibi_seg._workspace._training import TrainingJobs

__all__ = ["Session"]


class Session(ProjectJobs, TrainingJobs, PositionJobs, FileJobs):
    """The state of a dock and its jobs.

    Parameters
    ----------
    store : Path or None
        Folder of feature stores; None keeps tokens in memory.

    Attributes
    ----------
    settings : DockSettings
        As the panels say.
    classes : ClassTable
        As the table says.
    images : dict of hashable to OpenImage
        That share the classifier.
    """
