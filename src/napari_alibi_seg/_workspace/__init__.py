"""What the dock knows, without a window: classes, scribbles, projects, requests.

No Qt and no napari: everything here can be tested, and survives, without them.
"""

from napari_alibi_seg._workspace._batch import BatchRequest, command_line
from napari_alibi_seg._workspace._blocks import Patch, ScribbleBlocks
from napari_alibi_seg._workspace._class_csv import (
    parse_classes,
    read_classes,
    write_classes,
)
from napari_alibi_seg._workspace._classes import MAX_CLASS_ID, ClassEntry, ClassTable
from napari_alibi_seg._workspace._events import (
    Applied,
    Exported,
    Extracted,
    LoadedFile,
    Note,
    Opened,
)
from napari_alibi_seg._workspace._images import OpenImage, excluded_mask, is_large
from napari_alibi_seg._workspace._look_cells import MAX_COMPONENTS
from napari_alibi_seg._workspace._look_results import ClusterLook, Look
from napari_alibi_seg._workspace._looks import Looks
from napari_alibi_seg._workspace._masks import export_blocks, import_blocks
from napari_alibi_seg._workspace._painting import (
    find_pixels,
    painted_pixels,
    remap_ids,
)
from napari_alibi_seg._workspace._places import (
    FoundProject,
    ImageIdentity,
    find_project,
    project_folder,
    projects_dir,
)
from napari_alibi_seg._workspace._position import (
    CURE_OFFERS,
    CureOffer,
    Measuring,
    cured_spec,
    described_cure,
    split_cure,
    with_backbone,
)
from napari_alibi_seg._workspace._project import Project
from napari_alibi_seg._workspace._requests import (
    DockSettings,
    Generation,
    segmenter_arguments,
)
from napari_alibi_seg._workspace._session import Session
from napari_alibi_seg._workspace._state import ExcludedArea, ProjectState

__all__ = [
    "CURE_OFFERS",
    "MAX_CLASS_ID",
    "MAX_COMPONENTS",
    "Applied",
    "BatchRequest",
    "ClassEntry",
    "ClassTable",
    "ClusterLook",
    "CureOffer",
    "DockSettings",
    "ExcludedArea",
    "Exported",
    "Extracted",
    "FoundProject",
    "Generation",
    "ImageIdentity",
    "LoadedFile",
    "Look",
    "Looks",
    "Measuring",
    "Note",
    "OpenImage",
    "Opened",
    "Patch",
    "Project",
    "ProjectState",
    "ScribbleBlocks",
    "Session",
    "command_line",
    "cured_spec",
    "described_cure",
    "excluded_mask",
    "export_blocks",
    "find_pixels",
    "find_project",
    "import_blocks",
    "is_large",
    "painted_pixels",
    "parse_classes",
    "project_folder",
    "projects_dir",
    "read_classes",
    "remap_ids",
    "segmenter_arguments",
    "split_cure",
    "with_backbone",
    "write_classes",
]
