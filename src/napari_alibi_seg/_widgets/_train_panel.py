"""The panel about training: classifier, live or by hand, held-out score, "not sure".

It shows scores that were computed elsewhere. What a control may be set to is known to
`DockSettings`; a change is told as a dict of its fields.
"""

from __future__ import annotations

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QHeaderView,
    QSizePolicy,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_alibi_seg._segmenter import HoldoutScore
from napari_alibi_seg._widgets._controls import Choice, Number, Wait
from napari_alibi_seg._widgets._hooks import on_gui
from napari_alibi_seg._widgets._parts import Bar, Hint, Section, button, form, row
from napari_alibi_seg._workspace import DockSettings

__all__ = ["ScoreTable", "TrainPanel"]

_NEXT = "Paint a stroke of each of two classes (panel 4): training follows by itself."

_CLASSIFIERS = (("rf", "Random forest"), ("logistic", "Logistic regression"))
_RESOLUTIONS = (("pixel", "Every pixel"), ("patch", "Patch (faster)"))
_COLUMNS = (
    ("Class", "Name of the class"),
    ("Strokes", "Strokes that were painted; each was left out once"),
    ("Recall", "Share of the left-out pixels of this class that were found"),
    ("Prec.", "Precision: share of the pixels given to this class that are its own"),
    ("IoU", "Intersection over union: 1 is perfect"),
)
_START_UNSURE = 60  # percent


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


class ScoreTable(QTableWidget):
    """Held-out scores, a row per class and one for all; as high as its rows."""

    def __init__(self) -> None:
        super().__init__(0, len(_COLUMNS))
        for i, (title, tip) in enumerate(_COLUMNS):
            item = QTableWidgetItem(title)
            item.setToolTip(tip)
            self.setHorizontalHeaderItem(i, item)
        head = self.horizontalHeader()
        head.setMinimumSectionSize(20)
        head.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        head.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        self.verticalHeader().hide()
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setTextElideMode(Qt.TextElideMode.ElideRight)
        self.setWordWrap(False)
        self.setToolTip("How well strokes are found that the classifier did not see")

    def show_score(self, score: HoldoutScore, names: dict[int, str]) -> None:
        """Show a score; classes without a name are called by their id."""
        self.setRowCount(0)
        for class_id, one in score.classes.items():
            name = names.get(class_id, f"class {class_id}")
            shares = (one.recall, one.precision, one.iou)
            tip = f"{name}: {one.note}" if one.note else name
            self._add([name, str(one.n_strokes), *map(_share, shares)], tip)
        n_strokes = sum(one.n_strokes for one in score.classes.values())
        tip = f"Mean IoU over the classes; accuracy {_share(score.accuracy)}"
        self._add(["All", str(n_strokes), "", "", _share(score.miou)], tip)
        self.resizeRowsToContents()
        height = self.horizontalHeader().sizeHint().height() + 2 * self.frameWidth()
        self.setFixedHeight(height + self.verticalHeader().length() + 2)

    def _add(self, texts: list[str], tip: str) -> None:
        at = self.rowCount()
        self.insertRow(at)
        for i, text in enumerate(texts):
            item = QTableWidgetItem(text)
            item.setToolTip(tip)
            side = Qt.AlignmentFlag.AlignLeft if i == 0 else Qt.AlignmentFlag.AlignRight
            item.setTextAlignment(side | Qt.AlignmentFlag.AlignVCenter)
            self.setItem(at, i, item)


class TrainPanel(QWidget):
    """Classifier, live training, held-out score, and the place to paint next.

    Attributes
    ----------
    settings_wanted : Signal(object)
        A dict of changed `DockSettings` fields.
    update_wanted, score_wanted, least_certain_wanted : Signal()
        Train once; leave out strokes and score; show the least certain place.
    """

    settings_wanted = Signal(object)
    update_wanted = Signal()
    score_wanted = Signal()
    least_certain_wanted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._make_controls()
        self._make_unsure()
        self._make_actions()
        self.busy = Bar()
        self.busy.show_value(1, 1)
        self.busy.setTextVisible(False)
        self.busy.setFixedHeight(4)
        self.busy.setToolTip("The classifier is at work")
        # its room is kept, or the dock would jump at every stroke
        policy = self.busy.sizePolicy()
        policy.setRetainSizeWhenHidden(True)
        self.busy.setSizePolicy(policy)
        self.busy.hide()
        self.status = Hint()
        self.table, self.note, self.wait = ScoreTable(), Hint(), Wait()
        self.table.hide()
        self._arrange()
        self.say("")
        self.apply_settings(DockSettings())

    def _make_controls(self) -> None:
        self.classifier = Choice(
            "What learns from your strokes: a forest bends around any shape, a "
            "logistic regression is quick and smooth",
            _CLASSIFIERS,
        )
        self.resolution = Choice(
            "Classify every pixel, or each patch of the ViT and interpolate",
            _RESOLUTIONS,
        )
        self.trees = Number(
            "Trees of the forest; more are steadier and slower", 1, 2000
        )
        self.classifier.picked.connect(self._classifier_picked)
        self.resolution.picked.connect(self._resolution_picked)
        self.trees.picked.connect(self._trees_picked)

    def _make_unsure(self) -> None:
        tip = "Pixels whose best class is less probable than this stay without a class"
        self.is_unsure = QCheckBox("Not sure below")
        self.is_unsure.setToolTip(tip)
        self.unsure = Number(tip, 1, 99)
        self.unsure.setSuffix(" %")
        self.unsure.show_value(_START_UNSURE)
        self.is_unsure.clicked.connect(self._unsure_changed)
        self.unsure.picked.connect(self._unsure_changed)

    def _make_actions(self) -> None:
        self.live = QCheckBox("Live")
        self.live.setToolTip("Train again after each stroke")
        self.live.clicked.connect(self._live_clicked)
        self.update_button = button(
            "Update once", "Train with all strokes now", self.update_wanted.emit
        )
        self.score_button = button(
            "Score on left-out strokes",
            "Leave out every stroke once and see whether the others find it",
            self.score_wanted.emit,
        )
        self.least_button = button(
            "Take me to the least certain place",
            "Move the view to where one more stroke helps most",
            self.least_certain_wanted.emit,
        )

    def _arrange(self) -> None:
        fields = QWidget()
        layout = form(fields)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addRow("Classifier", self.classifier)
        layout.addRow("Resolution", self.resolution)
        advanced = QWidget()
        form(advanced).addRow("Trees", self.trees)
        self.advanced = Section("Advanced", advanced, is_open=False)
        column = QVBoxLayout(self)
        column.setContentsMargins(6, 2, 2, 6)
        column.setSpacing(4)
        first = (fields, row(self.is_unsure, self.unsure, stretch=1), self.advanced)
        actions = (
            row(self.live, self.update_button, stretch=1),
            self.busy,
            self.status,
        )
        score = (self.least_button, self.score_button, self.wait, self.table, self.note)
        for widget in (*first, *actions, *score):
            column.addWidget(widget)

    def apply_settings(self, settings: DockSettings) -> None:
        """Show settings; tells nobody."""
        self.classifier.choose(settings.classifier)
        self.resolution.choose(settings.resolution)
        self.trees.show_value(settings.n_trees)
        self.trees.setEnabled(settings.classifier == "rf")
        self.live.setChecked(settings.live)
        with QSignalBlocker(self.is_unsure):
            self.is_unsure.setChecked(settings.unsure_below is not None)
        self.unsure.setEnabled(settings.unsure_below is not None)
        if settings.unsure_below is not None:
            self.unsure.show_value(round(100 * settings.unsure_below))

    def say(self, text: str, *, is_error: bool = False) -> None:
        """Show a sentence about the training; an error frees the controls.

        Without one the panel says what to do.
        """
        self.status.say(text or _NEXT, is_error=is_error)
        if is_error:
            self.set_busy(False)
            self.wait.say("")

    def set_busy(self, is_busy: bool) -> None:
        """Show that work goes on; what would start other work waits meanwhile."""
        self.busy.setVisible(is_busy)
        for made in (self.update_button, self.score_button, self.least_button):
            made.setEnabled(not is_busy)

    def show_score(self, score: HoldoutScore, names: dict[int, str]) -> None:
        """Show the score of the folds so far.

        Parameters
        ----------
        score : HoldoutScore
            As it is learnt: `done` of `total` folds.
        names : dict of int to str
            Name by class id.
        """
        self.table.show_score(score, names)
        self.table.show()
        if score.done < score.total:
            text = "Learning without some strokes, then looking for these."
            self.wait.show_progress(score.done, score.total, text=text)
        else:
            self.wait.say("")
        lines = [
            f"{names.get(i, f'class {i}')}: {one.note}"
            for i, one in score.classes.items()
            if one.note
        ]
        self.note.say("\n".join(lines))

    def age_score(self) -> None:
        """Say that strokes are others than those the score on show is of."""
        if not self.table.isHidden():
            self.note.say("Of the strokes before the last change: measure again.")

    @on_gui
    def _classifier_picked(self, kind: str) -> None:
        self.trees.setEnabled(kind == "rf")
        self.settings_wanted.emit({"classifier": kind})

    @on_gui
    def _resolution_picked(self, resolution: str) -> None:
        self.settings_wanted.emit({"resolution": resolution})

    @on_gui
    def _trees_picked(self, n_trees: int) -> None:
        self.settings_wanted.emit({"n_trees": n_trees})

    @on_gui
    def _live_clicked(self, is_live: bool) -> None:
        self.settings_wanted.emit({"live": is_live})

    @on_gui
    def _unsure_changed(self, _value: object = None) -> None:
        is_on = self.is_unsure.isChecked()
        self.unsure.setEnabled(is_on)
        value = self.unsure.value() / 100 if is_on else None
        self.settings_wanted.emit({"unsure_below": value})
