"""What lies on the desk of one dock: settings, classes, images, and one segmenter.

Only this module knows when another segmenter is needed: when the recipe of features,
the backbone or its device change. What is done with these things are the jobs of
`_keeping`, `_training` and `_documents`. What threads share is assigned whole, under
one lock.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from napari_alibi_seg._segmenter import Embedding, Segmenter
from napari_alibi_seg._workspace._classes import ClassTable
from napari_alibi_seg._workspace._images import OpenImage
from napari_alibi_seg._workspace._requests import DockSettings, segmenter_arguments
from napari_alibi_seg.analysis import PositionCheck
from napari_alibi_seg.features import located_spec, split_spec

__all__ = ["Desk"]


class Desk:
    """The things that all jobs of a dock share.

    Parameters
    ----------
    store : Path or None
        Folder of feature stores; None keeps tokens in memory.
    """

    def __init__(self, store: Path | None = None) -> None:
        self.settings = DockSettings()
        self.classes = ClassTable()
        self.images: dict[Hashable, OpenImage] = {}
        self.store = store
        self._lock = threading.RLock()
        self._loading = threading.RLock()
        self._segmenter: Segmenter | None = None
        self._recipe = ""
        self._backbones: dict[tuple[str, str], Any] = {}
        self._checked: dict[str, PositionCheck] = {}  # by identity of a backbone

    @property
    def segmenter(self) -> Segmenter | None:
        """The one in use, if any was needed yet."""
        return self._segmenter

    @property
    def is_trained(self) -> bool:
        """Whether there is a classifier."""
        return self._segmenter is not None and self._segmenter.classifier is not None

    def _current(self, settings: DockSettings, painted: tuple[int, ...]) -> Segmenter:
        """Return the segmenter for some settings; another recipe makes another one."""
        features, classifier = segmenter_arguments(settings, self.classes, painted)
        name = settings.segmenter_backbone()
        recipe = json.dumps(
            [features.model_dump(mode="json"), name, name and settings.device]
        )
        with self._lock:
            if self._segmenter is None or recipe != self._recipe:
                self._segmenter = Segmenter(
                    self._backbone(name, settings.device),
                    features=features,
                    classifier=classifier,
                    store=self.store if name else None,
                )
                self._segmenter.choice = f"{features.kind}, as chosen in the dock"
                if name is not None:
                    self._segmenter.weights_hint = located_spec(name)
                self._recipe = recipe
                for image in [*self.images.values()]:
                    image.embedding = None
            self._segmenter.settings = classifier
            return self._segmenter

    def _backbone(self, name: str | None, device: str) -> Any:
        if name is None:
            return None
        with self._loading:
            if (name, device) not in self._backbones:
                self._backbones[name, device] = self._loaded(name, device)
            return self._backbones[name, device]

    def _loaded(self, name: str, device: str) -> Any:
        """Load a backbone; those that differ by a cure share their weights."""
        from napari_alibi_seg.features import cure_backbone, load_backbone

        base, cures = split_spec(name)
        if not cures:
            return load_backbone(name, device=device)
        return cure_backbone(self._backbone(base, device), cures)

    def forget_recipe(self) -> None:
        """Drop the segmenter: the next job begins with what the panels say."""
        with self._lock:
            self._segmenter, self._recipe = None, ""
            for image in [*self.images.values()]:
                image.embedding = None

    def _embedding(self, segmenter: Segmenter, image: OpenImage) -> Embedding:
        if image.embedding is None:
            image.embedding = segmenter.prepare(image.source)
        return image.embedding

    # -------------------------------------------------------------------- training

    @property
    def painted_ids(self) -> tuple[int, ...]:
        """Classes that are painted on any image, ascending."""
        ids = {i for image in [*self.images.values()] for i in image.painted}
        return tuple(sorted(ids))
