"""The panel that looks at features: components, clusters, likeness to a point.

One view is shown at a time, or none. Only this module knows which; what is shown, and
where, is the dock's part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QPushButton,
    QSizePolicy,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_alibi_seg._widgets._cluster_row import ClusterRow
from napari_alibi_seg._widgets._hooks import on_gui
from napari_alibi_seg._widgets._parts import Hint, button, row

__all__ = ["LookPanel"]

_NOT_READY = "Extract features first: press Extract above."
_CLICK = "Click a point in the image: what is like it becomes bright."
_BUSY = "Computing\N{HORIZONTAL ELLIPSIS}"
_N_COMPONENTS = 6


class LookPanel(QWidget):
    """Chooses what to see of the features before anything is painted.

    Parameters
    ----------
    parent : QWidget, optional
        Of the panel.

    Attributes
    ----------
    components_wanted : Signal(object)
        None for the first three as colours, or the number of one, from 0.
    clusters_wanted : Signal(int)
        How many.
    similarity_toggled : Signal(bool)
        Whether clicks in the image are to be compared with from now on.
    class_wanted : Signal(int)
        The cluster, from 0, that is to become a class.
    standardise_changed : Signal(bool)
        Whether every channel counts the same. What is shown is asked for again right
        after it, but for the likeness to a point: that point is the dock's.
    hidden : Signal()
        Nothing is to be shown any more.
    """

    components_wanted = Signal(object)
    clusters_wanted = Signal(int)
    similarity_toggled = Signal(bool)
    class_wanted = Signal(int)
    standardise_changed = Signal(bool)
    hidden = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._is_ready = False
        self._is_busy = False
        self._make_controls()
        self._arrange()
        self._connect()
        self.set_ready(False)

    @property
    def view(self) -> str | None:
        """What is shown: "components", "clusters", "similarity" or None."""
        for name, toggle in self._toggles.items():
            if toggle.isChecked():
                return name
        return None

    @property
    def is_standardised(self) -> bool:
        """Whether every channel counts the same."""
        return bool(self.standardise_box.isChecked())

    @property
    def n_clusters(self) -> int:
        """How many clusters are chosen."""
        return int(self.clusters_spin.value())

    def set_ready(self, is_ready: bool, why: str = "") -> None:
        """Say whether there are features to look at.

        Parameters
        ----------
        is_ready : bool
            If not, nothing is shown and nothing can be asked.
        why : str
            What to do first; by default to extract features.
        """
        self._is_ready = is_ready
        self.controls.setEnabled(is_ready)
        self.hint.say("" if is_ready else why or _NOT_READY)
        if not is_ready:
            self._show_only(None)
            self.message.say("")

    def set_components(self, n_components: int) -> None:
        """Offer so many single components; the choice is kept if it still exists."""
        combo = self.components_combo
        chosen = combo.currentIndex()
        with QSignalBlocker(combo):
            combo.clear()
            combo.addItem("Colours (1 to 3)", None)
            for i in range(n_components):
                combo.addItem(f"Component {i + 1}", i)
            combo.setCurrentIndex(chosen if 0 <= chosen <= n_components else 0)

    def set_standardised(self, is_on: bool) -> None:
        """Set the box "Standardise channels"."""
        with QSignalBlocker(self.standardise_box):
            self.standardise_box.setChecked(is_on)

    def set_n_clusters(self, n_clusters: int) -> None:
        """Set how many clusters are chosen."""
        with QSignalBlocker(self.clusters_spin):
            self.clusters_spin.setValue(n_clusters)

    def show_clusters(
        self, shares: Sequence[float], colours: Sequence[Sequence[float]]
    ) -> None:
        """List the clusters that are shown.

        Parameters
        ----------
        shares : sequence of float
            Of the area of the image, 0 to 1, by cluster. None to empty the list.
        colours : sequence of (3,) float
            Of each cluster, 0 to 1.
        """
        while len(self.cluster_rows) < len(shares):
            made = ClusterRow(len(self.cluster_rows), self.cluster_list)
            made.wanted.connect(self._ask_class)
            self.cluster_list.layout().addWidget(made)
            self.cluster_rows.append(made)
        for i, line in enumerate(self.cluster_rows):
            line.setVisible(i < len(shares))
            if i < len(shares):
                line.show_cluster(float(shares[i]), colours[i])
        self.cluster_list.setVisible(len(shares) > 0)
        self._enable_rows()

    def show_point(self, text: str) -> None:
        """Say which point everything is compared with; empty: none yet."""
        is_on = self.similarity_toggle.isChecked()
        self.point.say(text or (_CLICK if is_on else ""))

    def set_busy(self, is_busy: bool) -> None:
        """Say whether a view is being computed; another may be chosen meanwhile."""
        self._is_busy = is_busy
        if is_busy:
            self.message.say(_BUSY)
        elif self.message.text() == _BUSY:
            self.message.say("")
        self._enable_rows()

    def say(self, text: str, *, is_error: bool = False) -> None:
        """Show a sentence below the controls."""
        self.message.say(text, is_error=is_error)

    def _make_controls(self) -> None:
        self.hint, self.message, self.point = Hint(), Hint(), Hint()
        self.standardise_box = QCheckBox("Standardise channels")
        self.standardise_box.setChecked(True)
        self.standardise_box.setToolTip(
            "Let every feature channel count the same, whatever its unit. Off: "
            "channels with large numbers count most."
        )
        self.components_toggle = _toggle(
            "Show components",
            "Show the strongest patterns in the features (principal components) over "
            "the image. A colour means the same in all images.",
        )
        self.components_combo = QComboBox()
        self.components_combo.setToolTip(
            "The first three components as red, green and blue, or one alone"
        )
        _may_shrink(self.components_combo)
        self.set_components(_N_COMPONENTS)
        self.clusters_toggle = _toggle(
            "Show clusters",
            "Group alike places without any scribble (k-means), and show the groups.",
        )
        self.clusters_spin = QSpinBox()
        self.clusters_spin.setRange(2, 20)
        self.clusters_spin.setValue(4)
        self.clusters_spin.setSuffix(" clusters")
        self.clusters_spin.setKeyboardTracking(False)
        self.clusters_spin.setToolTip("How many groups, 2 to 20")
        _may_shrink(self.clusters_spin)
        self.similarity_toggle = _toggle(
            "Click a point",
            "Click in the image and see how like that point every other place is.",
        )
        self.hide_button = button(
            "Hide", "Show the image and the segmentation alone again", self._ask_hide
        )
        self.cluster_rows: list[ClusterRow] = []
        self._toggles = {
            "components": self.components_toggle,
            "clusters": self.clusters_toggle,
            "similarity": self.similarity_toggle,
        }

    def _arrange(self) -> None:
        self.cluster_list = QWidget()
        _column(self.cluster_list, spacing=2)
        self.cluster_list.hide()
        self.controls = QWidget()
        inner = _column(self.controls)
        inner.addWidget(self.standardise_box)
        inner.addWidget(row(self.components_toggle, self.components_combo))
        inner.addWidget(row(self.similarity_toggle, self.hide_button))
        inner.addWidget(self.point)
        # last: up to twenty lines, which must not push other controls away
        inner.addWidget(row(self.clusters_toggle, self.clusters_spin))
        inner.addWidget(self.cluster_list)
        outer = _column(self)
        outer.setContentsMargins(6, 2, 2, 6)
        for part in (self.hint, self.controls, self.message):
            outer.addWidget(part)

    def _connect(self) -> None:
        self.components_toggle.toggled.connect(self._toggle_components)
        self.clusters_toggle.toggled.connect(self._toggle_clusters)
        self.similarity_toggle.toggled.connect(self._toggle_similarity)
        self.components_combo.currentIndexChanged.connect(self._choose_component)
        self.clusters_spin.valueChanged.connect(self._choose_n_clusters)
        self.standardise_box.toggled.connect(self._choose_standardise)

    @on_gui
    def _toggle_components(self, is_on: bool) -> None:
        self._turn("components", is_on)

    @on_gui
    def _toggle_clusters(self, is_on: bool) -> None:
        self._turn("clusters", is_on)

    @on_gui
    def _toggle_similarity(self, is_on: bool) -> None:
        self._turn("similarity", is_on)

    def _turn(self, name: str, is_on: bool) -> None:
        """Show one view instead of the one before, or none."""
        had_point = name != "similarity" and self.similarity_toggle.isChecked()
        self._show_only(name if is_on else None)
        if had_point or (name == "similarity" and not is_on):
            self.similarity_toggled.emit(False)
        if is_on:
            self._ask(name)
        else:
            self.hidden.emit()

    def _ask(self, name: str | None) -> None:
        if name == "components":
            self.components_wanted.emit(self.components_combo.currentData())
        elif name == "clusters":
            self.clusters_wanted.emit(self.n_clusters)
        elif name == "similarity":
            self.similarity_toggled.emit(True)

    @on_gui
    def _choose_component(self, _index: int) -> None:
        if self.view == "components":
            self._ask("components")

    @on_gui
    def _choose_n_clusters(self, _n: int) -> None:
        if self.view == "clusters":
            self._ask("clusters")

    @on_gui
    def _choose_standardise(self, is_on: bool) -> None:
        self.standardise_changed.emit(is_on)
        if self.view in ("components", "clusters"):
            self._ask(self.view)

    @on_gui
    def _ask_class(self, cluster: int) -> None:
        self.class_wanted.emit(cluster)

    @on_gui
    def _ask_hide(self) -> None:
        shown = self.view
        if shown is not None:
            self._toggles[shown].setChecked(False)

    def _show_only(self, name: str | None) -> None:
        """Bring the controls in line with the view that is shown."""
        with _silent(*self._toggles.values()):
            for other, toggle in self._toggles.items():
                toggle.setChecked(other == name)
        self.hide_button.setEnabled(name is not None)
        self.show_point("")
        if name != "clusters":
            self.show_clusters((), ())

    def _enable_rows(self) -> None:
        # while others are computed, those in the list may be others already
        for line in self.cluster_rows:
            line.class_button.setEnabled(not self._is_busy)


def _toggle(text: str, tip: str) -> QPushButton:
    made = button(text, tip)
    made.setCheckable(True)
    return made


def _may_shrink(widget: QComboBox | QSpinBox) -> None:
    widget.setMinimumWidth(60)
    widget.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)


def _column(widget: QWidget, spacing: int = 4) -> QVBoxLayout:
    layout = QVBoxLayout(widget)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(spacing)
    layout.setAlignment(Qt.AlignmentFlag.AlignTop)
    return layout


@contextmanager
def _silent(*widgets: Any) -> Iterator[None]:
    blockers = [QSignalBlocker(widget) for widget in widgets]
    try:
        yield
    finally:
        for blocker in blockers:
            blocker.unblock()
