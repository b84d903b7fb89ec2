"""The Batch tab: a classifier, many files, and what becomes of each.

Asks for the same things as `alibi-seg apply`, runs the same generator in a lane of its
own, and shows the line for a terminal that does the same. What is done stays done:
running again goes on where a batch was cancelled or failed.
"""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QFormLayout,
    QLabel,
    QLineEdit,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_alibi_seg._base import WeightsError
from napari_alibi_seg._segmenter import FileResult, Progress
from napari_alibi_seg._widgets._batch_classifier import ClassifierChoice
from napari_alibi_seg._widgets._batch_command import CommandLine
from napari_alibi_seg._widgets._batch_list import BatchList
from napari_alibi_seg._widgets._batch_options import batch_options
from napari_alibi_seg._widgets._batch_run import Found, iter_batch
from napari_alibi_seg._widgets._dialogs import Dialogs
from napari_alibi_seg._widgets._hooks import on_gui
from napari_alibi_seg._widgets._jobs import Lane
from napari_alibi_seg._widgets._parts import Bar, Hint, button, form, row
from napari_alibi_seg._workspace import BatchRequest, command_line

__all__ = ["BatchPanel"]

_SUMMARY = "summary.csv"


class BatchPanel(QWidget):
    """Segment files or folders with a saved classifier.

    Parameters
    ----------
    parent : QWidget, optional
        Qt's.
    dialogs : Dialogs, optional
        What asks for files.

    Attributes
    ----------
    busy_changed : Signal(bool)
        A batch began or ended.
    lane : Lane
        Where batches run.
    """

    busy_changed = Signal(bool)

    def __init__(
        self, parent: QWidget | None = None, *, dialogs: Dialogs | None = None
    ) -> None:
        super().__init__(parent)
        self._dialogs = dialogs or Dialogs()
        self._device = "auto"
        self._alone = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._n_files = 0
        self._out = Path()
        self.lane = Lane("batch", self)
        self._make_inputs()
        self.options = batch_options()
        self._make_run()
        self.command = CommandLine()
        self.copy_button = button(
            "Copy", "Copy the command line.", self.command.copy_line
        )
        self._lay_out()
        self._connect()
        self._refresh()

    # ---------------------------------------------------------------- building

    def _make_inputs(self) -> None:
        self.classifier = ClassifierChoice()
        self.files = BatchList()
        self.add_files_button = button(
            "Add files...", "Add image files.", self._ask_files
        )
        self.add_folder_button = button(
            "Add folder...", "Add a folder of images.", self._ask_folder
        )
        self.remove_button = button(
            "Remove", "Remove the chosen rows from the list.", self._remove
        )
        self.out = QLineEdit()
        self.out.setPlaceholderText("folder")
        self.out.setToolTip("Folder for the outputs; made if need be.")
        self.out_button = button(
            "Choose...", "Choose the folder for the outputs.", self._ask_out
        )

    def _make_run(self) -> None:
        self.hint = Hint()
        self.run_button = button(
            "Run", "Segment the files. What is done already is skipped.", self.run
        )
        self.cancel_button = button(
            "Cancel", "Stop at the next tile; what is done is kept.", self.cancel
        )
        self.bar = Bar()
        self.bar.setToolTip("Files that have ended.")
        self.bar.hide()
        self.summary = Hint()
        self.detail = Hint()

    def _lay_out(self) -> None:
        buttons = row(self.add_files_button, self.add_folder_button, self.remove_button)
        below = QWidget()
        fields = form(below)
        fields.setContentsMargins(0, 0, 0, 0)
        fields.addRow("Output", row(self.out, self.out_button, stretch=0))
        fields.setRowWrapPolicy(QFormLayout.RowWrapPolicy.DontWrapRows)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 2, 2, 6)
        layout.setSpacing(4)
        layout.addWidget(self.classifier)
        layout.addWidget(self.files, 1)
        self._below = [buttons, below, self.options.native]
        for widget in self._below:
            layout.addWidget(widget)
        layout.addWidget(self.hint)
        layout.addWidget(row(self.run_button, self.cancel_button))
        for widget in (self.bar, self.summary, self.detail):
            layout.addWidget(widget)
        layout.addWidget(row(QLabel("In a terminal:"), self.copy_button, stretch=0))
        layout.addWidget(self.command)

    def _connect(self) -> None:
        self.classifier.changed.connect(self._refresh)
        self.classifier.file_wanted.connect(self._ask_classifier)
        self.classifier.weights_wanted.connect(self._ask_weights)
        self.out.textChanged.connect(self._refresh)
        self.options.changed.connect(self._refresh)
        self.files.dropped.connect(self._add)
        self.files.inputs_changed.connect(self._refresh)
        self.files.currentItemChanged.connect(self._show_detail)
        self.lane.busy_changed.connect(self._set_busy)

    # ------------------------------------------------------- what the dock tells

    def set_classifier(self, path: Path | None) -> None:
        """Offer the classifier of the dock; None while it has none that is saved."""
        self.classifier.set_dock_file(path)

    def set_device(self, device: str) -> None:
        """Say where the ViT runs, as `Segmenter.load` takes it."""
        self._device = device
        self._refresh()

    def stop(self) -> None:
        """Stop what runs and refuse more; for the end of the dock."""
        self.lane.close()

    # ------------------------------------------------------- what the user wants

    def request(self) -> BatchRequest | None:
        """Return what is asked for, or None while something is missing."""
        classifier, inputs = self.classifier.chosen, self.files.inputs()
        out = self.out.text().strip()
        if classifier is None or not inputs or not out:
            return None
        options = self.options.asdict()
        plane, time = options["plane"].strip(), options["time"].strip()
        takes_all = options["all_planes"]
        return BatchRequest(
            classifier,
            inputs,
            _folder(out),
            probabilities=options["probabilities"],
            uncertainty=options["uncertainty"],
            recursive=options["recursive"],
            overwrite=options["overwrite"],
            plane=int(plane) if plane.isdecimal() and not takes_all else None,
            all_planes=takes_all,
            time=int(time) if time.isdecimal() else None,
            z_smooth=options["z_smooth"] if takes_all else 0.0,
            format=options["format"],
            backbone=self.classifier.backbone,
            device=self._device,
        )

    @on_gui
    def run(self) -> None:
        """Begin the batch."""
        request = self.request()
        if request is None or self.lane.is_busy:
            return
        self._counts.clear()
        self._n_files, self._out = 0, request.out
        self.files.forget_states()
        self.classifier.show_lost_weights(False)
        self.summary.say("")
        self.detail.say("")
        self._show_bar(0, 0)
        self.bar.show()
        self.lane.start(
            lambda: iter_batch(request, self._alone),
            on_event=self._show_event,
            on_error=self._show_error,
            on_done=self._show_end,
        )

    @on_gui
    def cancel(self) -> None:
        """Stop at the next tile; what is done is kept."""
        if not self.lane.is_busy:
            return
        self.lane.stop()
        self.files.show_stopped("cancelled")
        left = self._n_files - self._counts.total()
        self.summary.say(
            f"Cancelled: {self._counted()}, {left} left. Run again to go on."
        )

    # ------------------------------------------------------------------- inside

    @on_gui
    def _refresh(self, *_: object) -> None:
        """Bring hint, buttons and command line up to date."""
        request = self.request()
        is_busy = self.lane.is_busy
        self.run_button.setEnabled(request is not None and not is_busy)
        self.cancel_button.setEnabled(is_busy)
        self.copy_button.setEnabled(request is not None)
        self.remove_button.setEnabled(bool(self.files.inputs()))
        self.hint.say(self._missing())
        self.command.show_line("" if request is None else command_line(request))

    def _missing(self) -> str:
        if self.classifier.chosen is None:
            return (
                "Save the classifier of the dock, or choose a classifier file "
                "(.alibiseg)."
            )
        if not self.files.inputs():
            return "Add image files or a folder, or drop them on the list."
        if not self.out.text().strip():
            return "Choose the folder for the outputs."
        return ""

    def _ask_classifier(self) -> None:
        path = self._dialogs.open_classifier(self)
        if path is not None:
            self.classifier.take_file(path)

    def _ask_weights(self) -> None:
        path = self._dialogs.open_weights(self)
        if path is not None:
            self.classifier.take_weights(path)

    def _ask_files(self) -> None:
        self._add(self._dialogs.open_images(self))

    def _ask_folder(self) -> None:
        folder = self._dialogs.open_folder(self, "Add a folder of images")
        if folder is not None:
            self._add([folder])

    @on_gui
    def _add(self, paths: list[Path]) -> None:
        """Add images, and take a classifier that came among them."""
        images = [path for path in paths if path.suffix != ".alibiseg"]
        for path in paths:
            if path.suffix == ".alibiseg":
                self.classifier.take_file(path)
        self.files.add(images)
        if images and not self.out.text().strip():
            first = images[0]
            folder = first if first.is_dir() else first.parent
            self.out.setText(str(folder / "segmented"))
        self._refresh()

    @on_gui
    def _remove(self) -> None:
        if not self.files.selectedItems():
            self.hint.say("Choose the rows to remove first.")
            return
        self.files.remove_chosen()

    def _ask_out(self) -> None:
        folder = self._dialogs.open_folder(self, "Folder for the outputs")
        if folder is not None:
            self.out.setText(str(folder))

    @on_gui
    def _show_detail(
        self, item: QTreeWidgetItem | None, _before: QTreeWidgetItem | None
    ) -> None:
        self.detail.say(self.files.message(item))

    # ------------------------------------------------------------ while it runs

    def _show_bar(self, done: int, total: int) -> None:
        self.bar.show_value(done, total, f"{done} of {total} files" if total else "")

    def _set_busy(self, is_busy: bool) -> None:
        for widget in (self.classifier, *self._below):
            widget.setEnabled(not is_busy)
        self.files.setAcceptDrops(not is_busy)
        if not is_busy:
            self._show_bar(self._counts.total(), max(self._n_files, 1))
        self._refresh()
        self.busy_changed.emit(is_busy)

    def _show_event(self, event: Found | Progress | FileResult) -> None:
        if isinstance(event, Found):
            self._n_files = len(event.files)
            self._show_bar(0, self._n_files)
            self.files.show_found(event.files)
        elif isinstance(event, Progress):
            self.files.show_progress(event)
        else:
            self._counts[event.status] += 1
            self._show_bar(self._counts.total(), self._n_files)
            self.files.show_result(event)
            self._show_detail(self.files.currentItem(), None)

    def _show_error(self, sentence: str, error: BaseException) -> None:
        self.files.show_stopped("not done")
        self.classifier.show_lost_weights(isinstance(error, WeightsError))
        self.summary.say(sentence, is_error=True)

    def _show_end(self) -> None:
        self.summary.say(
            f"{self._counted()}; {_SUMMARY} in {self._out}.",
            is_error=self._counts["failed"] > 0,
        )

    def _counted(self) -> str:
        words = ("done", "skipped", "failed")
        parts = [f"{self._counts[w]} {w}" for w in words if self._counts[w]]
        return ", ".join(parts) or "none done"


def _folder(text: str) -> Path:
    # a name that is still being typed, as ~an, is nobody's home
    is_home = text == "~" or text.startswith(("~/", "~\\"))
    return Path(text).expanduser() if is_home else Path(text)
