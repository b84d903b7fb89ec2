"""What is painted: showing it, keeping it, brushes, and masks in and out.

Only this module hands strokes to the project and writes it. What is made of them is
`_train_flow`'s, which hears of them by two signals.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Signal

from napari_alibi_seg._base import Window
from napari_alibi_seg._widgets._hooks import on_gui
from napari_alibi_seg._widgets._jobs import Lane
from napari_alibi_seg._workspace import (
    OpenImage,
    ScribbleBlocks,
    export_blocks,
    find_pixels,
    import_blocks,
)

if TYPE_CHECKING:
    from napari_alibi_seg._widgets._dock import Dock

__all__ = ["ScribbleFlow"]


class ScribbleFlow(QObject):
    """See the module.

    Attributes
    ----------
    changed : Signal()
        Other pixels are painted than before, on any image.
    shown : Signal()
        Kept scribbles of the shown image are on the screen.
    """

    changed = Signal()
    shown = Signal()

    def __init__(self, dock: Dock) -> None:
        super().__init__(dock)
        self.dock = dock
        self._save = Lane("save", self)
        self._kept = Lane("kept scribbles", self)
        self._load = Lane("masks", self)
        self.lanes = (self._save, self._kept, self._load)
        self._armed: int | None = None
        stage, classes = dock.stage, dock.classes_panel
        stage.stroke_ended.connect(self._stroke)
        stage.view_rested.connect(self._follow)
        stage.step_wanted.connect(self._step)
        stage.layer_lost.connect(self._lost)
        dock.image_ready.connect(self._ready)
        dock.settings_changed.connect(self._keep_settings)
        dock.session.classes.changed.connect(self._classes_changed)
        classes.picked.connect(self.arm)
        classes.removed.connect(self._remap)
        classes.merged.connect(self._remap)
        classes.labels_layer_wanted.connect(self._use_layer)
        classes.mask_file_wanted.connect(self._use_mask)
        classes.mask_export_wanted.connect(self._export_mask)

    def close(self) -> None:
        """Stop."""
        self.dock.session.classes.changed.disconnect(self._classes_changed)
        for lane in self.lanes:
            lane.close()

    @property
    def is_loading(self) -> bool:
        """Whether scribbles are on their way to the screen."""
        return self._kept.is_busy or self._load.is_busy

    # -------------------------------------------------------------------- showing

    @on_gui
    def _ready(self, image: OpenImage) -> None:
        self._count()
        stage = self.dock.stage
        early, stage.painted_early = stage.painted_early, None
        if early == image.key:
            self._keep_early(image)
        elif image.painted:
            self._show_kept(image)
        elif stage.current is not None and stage.current.scribbles is not None:
            self._show_blank(image)
        elif self._armed is not None:
            self.arm(self._armed)

    def _keep_early(self, image: OpenImage) -> None:
        """Add what was painted while the image was being opened to what is kept."""
        if image.project is not None and image.painted:
            kept = image.project.load_scribbles(image.plane)
            fresh = self.dock.stage.painted()
            self._show(np.where(fresh > 0, fresh, kept))
        self._stroke(None)

    def _show_kept(self, image: OpenImage, *, is_new: bool = True) -> None:
        """Show what is kept; reading a large plane is left to a worker.

        Without `is_new` only the part that is shown is another, and the brush stays as
        it is.
        """
        project, stage = image.project, self.dock.stage
        if project is None or stage.current is None:
            return
        read = stage.reader()

        def make() -> Iterator[Any]:
            yield read(project.scribbles(image.plane))

        def show(content: Any) -> None:
            if self.dock.image is not image or stage.current is None:
                return
            has_layer = stage.current.scribbles is not None
            if has_layer and (stage.is_painting or stage.shows_parts):
                # what is being painted stays
                content = stage.current.with_fresh(stage.plane, content)
            if content is None:
                stage.moved()  # a stroke came between: read again after it
                return
            self._show(content)
            if is_new:
                if self._armed is not None:
                    stage.arm(self._armed)
                self.shown.emit()

        self._kept.start(make, on_event=show, on_error=self._failed)

    def _show_blank(self, image: OpenImage) -> None:
        self._show(self.dock.stage.reader()(ScribbleBlocks(image.shape)))

    @on_gui
    def _follow(self) -> None:
        """Show the scribbles of the part that the camera has come to."""
        image, stage = self.dock.image, self.dock.stage
        parts = stage.parts
        if image is None or parts is None or not stage.is_canvas_away:
            return
        if image.project is not None:
            self._show_kept(image, is_new=False)
        elif not parts.has_unsaved:
            self._show_blank(image)
        else:
            stage.moved()  # its project is being made

    @on_gui
    def _step(self, is_again: bool) -> None:
        """Take a stroke on a large image back, or do it again."""
        image, stage = self.dock.image, self.dock.stage
        parts = stage.parts
        if image is None or image.project is None or parts is None:
            return
        if not stage.is_painting and parts.step(
            image.project, stage.plane, is_again=is_again
        ):
            self._note_change()

    def _show(self, data: Any) -> None:
        self.dock.stage.show_scribbles(data, self.dock.session.classes.entries)

    def _failed(self, text: str, _error: BaseException) -> None:
        self.dock.classes_panel.set_hint(text)

    @on_gui
    def _lost(self, what: str) -> None:
        """A layer of ours was removed by hand."""
        if what == "scribbles":
            self.dock.classes_panel.set_hint(
                "The scribbles layer was removed. Its strokes are kept: pick a class "
                "to see them again."
            )

    # --------------------------------------------------------------------- brushes

    @on_gui
    def arm(self, class_id: int) -> None:
        """Put the brush of a class into the user's hand."""
        image = self.dock.image
        self._armed = class_id
        self.dock.classes_panel.set_hint("")
        if self.dock.offer.is_open:  # going on is what somebody who paints wants
            self.dock.offer.answer(True)
            return
        if image is None:
            return
        stage = self.dock.stage
        if stage.current is not None and stage.current.scribbles is None:
            if image.painted:
                self._show_kept(image)
                return
            self._show_blank(image)
        stage.arm(class_id)

    def pick_nth(self, n: int) -> None:
        """Pick the n-th class, as a key does."""
        class_id = self.dock.classes_panel.pick_nth(n)
        if class_id is not None:
            self.arm(class_id)

    # --------------------------------------------------------------------- strokes

    @on_gui
    def _stroke(self, window: Window | None) -> None:
        stage = self.dock.stage
        if self.dock.image is None and stage.current is not None:
            if stage.shows_parts:
                return  # what is kept of it is not known, and is read when it is
            stage.painted_early = (id(stage.current.image), stage.plane)
            return
        self.dock.images.with_project(lambda: self._take(window))

    def _take(self, window: Window | None) -> None:
        """Keep what was painted, then train if that is wanted."""
        image, stage = self.dock.image, self.dock.stage
        if image is None or image.project is None or stage.current is None:
            return
        if stage.current.scribbles is None:
            return
        if self._kept.is_busy and image.painted and not stage.shows_parts:
            # what is kept is not on the screen yet, and must not be taken for erased
            self._kept.stop()
            kept, fresh = image.project.load_scribbles(image.plane), stage.painted()
            self._show(np.where(fresh > 0, fresh, kept))
            window = None
        stage.current.take(image.project, stage.plane, window)
        self.dock.session.classes.ensure(image.painted)
        self._note_change()

    def _note_change(self) -> None:
        self._count()
        self.save()
        self.changed.emit()

    def save(self) -> None:
        """Write strokes, classes and settings, in a worker."""
        self._save.start(self.dock.session.iter_save, on_error=self._failed)

    def _save_open(self) -> None:
        """Write if there is something to write to: else there is nothing painted."""
        image = self.dock.image
        if image is not None and image.project is not None:
            self.save()

    @on_gui
    def _keep_settings(self, _before: Any) -> None:
        self._save_open()

    def _count(self) -> None:
        session = self.dock.session
        counts: dict[int, int] = {}
        for image in session.images.values():
            for i, n in image.painted.items():
                counts[i] = counts.get(i, 0) + n
        self.dock.classes_panel.set_counts(counts)

    # --------------------------------------------------------------------- classes

    @on_gui
    def _classes_changed(self) -> None:
        self.dock.stage.recolour(self.dock.session.classes.entries)
        self._save_open()

    @on_gui
    def _remap(self, mapping: dict[int, int]) -> None:
        """Repaint the pixels of classes that were deleted or merged, on all images."""
        session, stage = self.dock.session, self.dock.stage
        if self._armed in mapping:
            self._armed = mapping[self._armed] or None
            if self._armed is None:
                stage.disarm()
        shown = self.dock.image
        # where parts are shown the layer does not hold all pixels
        on_layer = not stage.shows_parts
        if shown is not None and stage.current is not None and on_layer:
            self._remap_layer(mapping)
        for image in session.images.values():
            if image.project is None:
                continue
            for plane in image.project.planes:
                is_shown = image is shown and plane == stage.plane
                if not (is_shown and on_layer):
                    session.remap(image, plane or None, mapping)
        parts = stage.parts
        if shown is not None and shown.project is not None and parts is not None:
            parts.forget_strokes()
            parts.reread(shown.project, stage.plane)
        self._note_change()

    def _remap_layer(self, mapping: dict[int, int]) -> None:
        """Repaint what is on the screen; that can be undone."""
        stage, image = self.dock.stage, self.dock.image
        if image is None or image.project is None or stage.current is None:
            return
        layer = stage.current.scribbles
        where = image.project.window_of(image.plane, tuple(mapping))
        if where is None:
            return
        if layer is None:
            self.dock.session.remap(image, image.plane, mapping)
            return
        for old, new in mapping.items():
            at = find_pixels(stage.painted(), (old,), where)
            lead = tuple(np.full(len(at[0]), p) for p in stage.plane)
            layer.data_setitem((*lead, *at), new)

    # ----------------------------------------------------------------------- masks

    @on_gui
    def _use_layer(self) -> None:
        """Take the selected Labels layer as scribbles."""
        from napari.layers import Labels

        stage = self.dock.stage
        own = [] if stage.current is None else stage.current.all
        layers = [
            layer
            for layer in self.dock.viewer.layers
            if isinstance(layer, Labels) and all(layer is not o for o in own)
        ]
        chosen = [x for x in layers if x in self.dock.viewer.layers.selection] or layers
        if not chosen:
            self.dock.classes_panel.set_hint(
                "There is no other Labels layer. Open or draw one, then try again."
            )
            return
        layer = chosen[0]
        data = layer.data[stage.plane] if layer.ndim > 2 else layer.data
        self._import(data, layer.name)

    @on_gui
    def _use_mask(self, path: Path) -> None:
        self._import(path, str(path))

    def _import(self, labels: Any, name: str) -> None:
        image = self.dock.image
        if image is None:
            self.dock.classes_panel.set_hint("Choose an image first.")
            return

        # a file may hold labels of all planes; a layer was cut to the plane on show
        source, place = image.source, {}
        if isinstance(labels, Path):
            place = {"plane": source.plane, "time": source.time}

        def make() -> Iterator[Any]:
            yield import_blocks(labels, image.shape, image_name=source.name, **place)

        def show(blocks: ScribbleBlocks) -> None:
            if self.dock.image is not image:
                return
            self.dock.session.classes.ensure(blocks.counts())
            if self.dock.stage.shows_parts:
                self.dock.images.with_project(lambda: self._replace_all(blocks))
            else:
                self._show(blocks.to_array())
            self.dock.classes_panel.set_hint(f"{name} is taken as scribbles.")
            self._stroke(None)

        self._load.start(make, on_event=show, on_error=self._failed)

    def _replace_all(self, blocks: ScribbleBlocks) -> None:
        """Keep a mask of the whole plane, of which a part is shown."""
        image, stage = self.dock.image, self.dock.stage
        parts = stage.parts
        if image is None or image.project is None or parts is None:
            return
        image.project.update_scribbles(image.plane, blocks)
        parts.forget_strokes()
        if parts.scribbles is None:
            self._show_blank(image)
        parts.reread(image.project, stage.plane)

    @on_gui
    def _export_mask(self, path: Path) -> None:
        image = self.dock.image
        if image is None or image.project is None:
            self.dock.classes_panel.set_hint("Nothing is painted yet.")
            return
        project = image.project

        def make() -> Iterator[Any]:
            blocks = project.scribbles(image.plane)
            export_blocks(path, blocks, pixel_size=image.source.pixel_size)
            yield path

        self._load.start(
            make,
            on_event=lambda p: self.dock.classes_panel.set_hint(f"Saved {p}."),
            on_error=self._failed,
        )
