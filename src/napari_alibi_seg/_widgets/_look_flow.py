"""Views of the features: components, clusters, likeness to a point."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels
from napari.utils.colormaps import DirectLabelColormap
from qtpy.QtCore import QObject

from napari_alibi_seg._base import SettingsError
from napari_alibi_seg._widgets._hooks import on_gui
from napari_alibi_seg._widgets._jobs import Lane
from napari_alibi_seg._widgets._layers import new_like
from napari_alibi_seg._workspace import ClusterLook, Look, Looks, OpenImage

if TYPE_CHECKING:
    from napari_alibi_seg._widgets._dock import Dock

__all__ = ["LookFlow"]

_OPACITY = 0.8


class LookFlow(QObject):
    """See the module."""

    def __init__(self, dock: Dock) -> None:
        super().__init__(dock)
        self.dock = dock
        self._lane = Lane("look", self)
        self.lanes = (self._lane,)
        self._looks: Looks | None = None
        panel = dock.look_panel
        panel.components_wanted.connect(self._components)
        panel.clusters_wanted.connect(self._clusters)
        panel.similarity_toggled.connect(self._listen)
        panel.class_wanted.connect(self._make_class)
        panel.standardise_changed.connect(self._standardise)
        panel.hidden.connect(self._hide)
        dock.stage.point_picked.connect(self._similarity)
        dock.features.extracted.connect(self._update)
        dock.image_ready.connect(self._update)
        dock.settings_changed.connect(self._update)
        self._lane.busy_changed.connect(panel.set_busy)
        panel.set_ready(False, "Extract features first: press Extract above.")

    def close(self) -> None:
        """Stop."""
        self._lane.close()

    @on_gui
    def _update(self, _what: Any = None) -> None:
        image = self.dock.image
        is_ready = image is not None and image.is_extracted
        self.dock.look_panel.set_ready(
            is_ready, "" if is_ready else "Extract features first: press Extract above."
        )

    def _current(self) -> Looks:
        """Return the looks of all images that have features; called in a worker."""
        session = self.dock.session
        there = {
            key: image.embedding
            for key, image in session.images.items()
            if image.embedding is not None and image.is_extracted
        }
        if self._looks is None:
            self._looks = Looks(there, standardise=self.dock.look_panel.is_standardised)
        else:
            self._looks.set_embeddings(there)
        return self._looks

    def _ask(
        self, what: Callable[[Looks, OpenImage], Any], show: Callable[[Any], None]
    ) -> None:
        image, panel = self.dock.image, self.dock.look_panel
        if image is None:
            return
        panel.say("")

        def make() -> Iterator[Any]:
            looks = self._current()
            if image.key not in looks.keys:
                raise SettingsError("Extract features first: press Extract above.")
            with closing(looks.iter_prepare(image.key)) as parts:  # type: ignore[type-var]
                for _ in parts:
                    yield None  # a place to stop
            yield what(looks, image)

        def deliver(found: Any) -> None:
            if found is not None:
                show(found)

        self._lane.start(
            make,
            on_event=deliver,
            on_error=lambda text, _: panel.say(text, is_error=True),
        )

    @on_gui
    def _components(self, component: int | None) -> None:
        def show(look: Look) -> None:
            values = look.values
            more: dict[str, Any] = {"rgb": True} if values.ndim == 3 else {}
            if values.ndim == 2:
                more = {"colormap": "viridis", "contrast_limits": (0, 255)}
            self._overlay(Image, values, look.step, "components", **more)

        self._ask(lambda looks, image: looks.picture(image.key, component), show)

    @on_gui
    def _clusters(self, k: int) -> None:
        def show(look: ClusterLook) -> None:
            colours: dict[int | None, Any] = {None: (0, 0, 0, 0), 0: (0, 0, 0, 0)}
            colours |= {i + 1: (*c, 1.0) for i, c in enumerate(look.colours)}
            self._overlay(
                Labels,
                look.labels_yx + np.uint8(1),
                look.step,
                f"{len(look.colours)} clusters",
                colormap=DirectLabelColormap(color_dict=colours),
            )
            self.dock.look_panel.show_clusters(
                look.shares.tolist(), look.colours.tolist()
            )

        self._ask(lambda looks, image: looks.clusters(image.key, k), show)

    @on_gui
    def _listen(self, is_on: bool) -> None:
        self.dock.stage.wants_points = is_on
        if is_on and self.dock.stage.current is not None:
            # a click must not paint
            self.dock.viewer.layers.selection.active = self.dock.stage.current.image

    @on_gui
    def _similarity(self, row: float, col: float) -> None:
        y, x = round(row), round(col)
        self.dock.look_panel.show_point(f"Row {y}, column {x}")

        def show(look: Look) -> None:
            self._overlay(
                Image,
                look.values,
                look.step,
                "similarity",
                colormap="inferno",
                contrast_limits=(-1.0, 1.0),
            )

        self._ask(lambda looks, image: looks.similarity(image.key, y, x), show)

    @on_gui
    def _make_class(self, cluster: int) -> None:
        """Paint part of a cluster as strokes of a new class."""
        k = self.dock.look_panel.n_clusters
        image = self.dock.image
        if image is None:
            return

        def what(looks: Looks, image: OpenImage) -> Any:
            taken = None
            if image.project is not None:
                taken = image.project.load_scribbles(image.plane)
            return looks.cluster_as_scribbles(image.key, k, cluster, taken=taken)

        def show(found: tuple[Any, Any]) -> None:
            entry = self.dock.session.classes.add(f"cluster {cluster + 1}")
            self.dock.scribbles.arm(entry.id)
            self.dock.classes_panel.pick(entry.id)
            stage = self.dock.stage
            if stage.current is None or stage.current.scribbles is None:
                return
            stage.current.paint_pixels(stage.plane, found, entry.id)

        self._ask(what, show)

    @on_gui
    def _standardise(self, is_on: bool) -> None:
        if self._looks is not None:
            self._looks.standardise = is_on

    @on_gui
    def _hide(self) -> None:
        self._lane.stop()
        self.dock.stage.wants_points = False
        if self.dock.stage.current is not None:
            self.dock.stage.current.show_overlay(None)

    def _overlay(
        self, kind: type, values: Any, step: int, what: str, **more: Any
    ) -> None:
        stage = self.dock.stage.current
        if stage is None:
            return
        name = f"{what}: {stage.image.name}"
        opacity = more.pop("opacity", _OPACITY)
        layer = new_like(
            stage.image, kind, values, name, step=step, opacity=opacity, **more
        )
        stage.show_overlay(layer)
