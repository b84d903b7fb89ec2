"""The Look panel, with real clicks and keys."""

from __future__ import annotations

import pytest

pytest.importorskip("qtpy")
pytestmark = pytest.mark.gui

from qtpy.QtCore import Qt  # noqa: E402

from napari_alibi_seg._widgets._hooks import record_callbacks  # noqa: E402
from napari_alibi_seg._widgets._look_panel import LookPanel  # noqa: E402

SIGNALS = (
    "components_wanted",
    "clusters_wanted",
    "similarity_toggled",
    "class_wanted",
    "standardise_changed",
    "hidden",
)
SHARES = (0.5, 0.2996, 0.2, 0.0004)
COLOURS = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (0.5, 0.5, 2))


@pytest.fixture
def panel(qtbot):
    made = LookPanel()
    qtbot.addWidget(made)
    made.resize(320, 400)
    made.set_ready(True)
    with qtbot.waitExposed(made):
        made.show()
    return made


@pytest.fixture
def said(panel):
    """Return what the panel said, in order."""
    calls = []
    for name in SIGNALS:
        getattr(panel, name).connect(
            lambda *args, name=name: calls.append((name, *args))
        )
    return calls


def click(qtbot, widget):
    qtbot.mouseClick(widget, Qt.MouseButton.LeftButton)


def test_without_features_the_panel_says_what_to_do(qtbot, panel, said) -> None:
    panel.set_ready(False)
    assert panel.hint.text() == "Extract features first: press Extract above."
    assert panel.hint.isVisible()
    click(qtbot, panel.components_toggle)
    assert (panel.view, said) == (None, [])
    panel.set_ready(False, "Choose an image above.")
    assert panel.hint.text() == "Choose an image above."
    panel.set_ready(True)
    assert not panel.hint.isVisible()
    click(qtbot, panel.components_toggle)
    assert said == [("components_wanted", None)]


def test_components_as_colours_or_one_alone(qtbot, panel, said) -> None:
    combo = panel.components_combo
    qtbot.keyClick(combo, Qt.Key.Key_Down)
    assert said == []  # nothing is shown yet
    click(qtbot, panel.components_toggle)
    qtbot.keyClick(combo, Qt.Key.Key_Down)
    qtbot.keyClick(combo, Qt.Key.Key_Home)
    click(qtbot, panel.components_toggle)
    assert said == [
        ("components_wanted", 0),
        ("components_wanted", 1),
        ("components_wanted", None),
        ("hidden",),
    ]


def test_offered_components_keep_the_choice(qtbot, panel, said) -> None:
    click(qtbot, panel.components_toggle)
    for _ in range(3):
        qtbot.keyClick(panel.components_combo, Qt.Key.Key_Down)
    panel.set_components(3)
    assert panel.components_combo.currentText() == "Component 3"
    panel.set_components(2)
    assert panel.components_combo.currentText() == "Colours (1 to 3)"
    assert [args[-1] for args in said] == [None, 0, 1, 2]


def test_number_of_clusters_is_typed(qtbot, panel, said) -> None:
    spin = panel.clusters_spin
    assert (spin.minimum(), spin.maximum(), panel.n_clusters) == (2, 20, 4)
    click(qtbot, panel.clusters_toggle)
    spin.selectAll()
    qtbot.keyClicks(spin, "12")
    qtbot.keyClick(spin, Qt.Key.Key_Return)
    qtbot.keyClick(spin, Qt.Key.Key_Up)
    assert said == [("clusters_wanted", n) for n in (4, 12, 13)]


def test_clusters_are_listed_and_become_classes(qtbot, panel, said) -> None:
    click(qtbot, panel.clusters_toggle)
    panel.show_clusters(SHARES, COLOURS)
    rows = panel.cluster_rows
    assert [r.text.text() for r in rows] == [
        "1: 50.0 %",
        "2: 30.0 %",
        "3: 20.0 %",
        "4: < 0.1 %",
    ]
    assert rows[1].swatch.pixmap().toImage().pixelColor(7, 7).getRgb()[:3] == (
        0,
        255,
        0,
    )
    click(qtbot, rows[2].class_button)
    assert said[1:] == [("class_wanted", 2)]
    panel.show_clusters(SHARES[:2], COLOURS[:2])
    assert [r.isVisible() for r in rows] == [True, True, False, False]
    panel.show_clusters(SHARES, COLOURS)
    assert panel.cluster_rows == rows  # not made anew
    click(qtbot, panel.clusters_toggle)
    assert not panel.cluster_list.isVisible()


def test_one_view_at_a_time(qtbot, panel, said) -> None:
    click(qtbot, panel.similarity_toggle)
    click(qtbot, panel.components_toggle)
    assert panel.view == "components"
    click(qtbot, panel.clusters_toggle)
    assert panel.view == "clusters"
    panel.show_clusters(SHARES, COLOURS)
    click(qtbot, panel.similarity_toggle)
    assert panel.view == "similarity"
    assert not panel.cluster_list.isVisible()
    assert said == [
        ("similarity_toggled", True),
        ("similarity_toggled", False),
        ("components_wanted", None),
        ("clusters_wanted", 4),
        ("similarity_toggled", True),
    ]


def test_point_is_asked_for_and_shown(qtbot, panel, said) -> None:
    assert not panel.point.isVisible()
    click(qtbot, panel.similarity_toggle)
    assert panel.point.text().startswith("Click a point in the image")
    panel.show_point("Compared with row 10, column 20.")
    assert panel.point.text() == "Compared with row 10, column 20."
    click(qtbot, panel.similarity_toggle)
    assert not panel.point.isVisible()
    assert said[1:] == [("similarity_toggled", False), ("hidden",)]


@pytest.mark.parametrize("name", ["components", "clusters", "similarity"])
def test_hide_button_ends_every_view(qtbot, panel, said, name) -> None:
    assert not panel.hide_button.isEnabled()
    click(qtbot, getattr(panel, f"{name}_toggle"))
    click(qtbot, panel.hide_button)
    assert panel.view is None
    assert said[-1] == ("hidden",)
    assert (("similarity_toggled", False) in said) == (name == "similarity")
    assert not panel.hide_button.isEnabled()


def test_standardising_asks_again_for_what_is_shown(qtbot, panel, said) -> None:
    assert panel.is_standardised
    qtbot.keyClick(panel.standardise_box, Qt.Key.Key_Space)
    click(qtbot, panel.clusters_toggle)
    qtbot.keyClick(panel.standardise_box, Qt.Key.Key_Space)
    assert said == [
        ("standardise_changed", False),
        ("clusters_wanted", 4),
        ("standardise_changed", True),
        ("clusters_wanted", 4),
    ]


def test_setting_from_outside_says_nothing(qtbot, panel, said) -> None:
    click(qtbot, panel.clusters_toggle)
    said.clear()
    panel.set_n_clusters(9)
    panel.set_standardised(False)
    panel.set_components(4)
    panel.show_clusters(SHARES, COLOURS)
    panel.set_busy(True)
    panel.set_ready(False)
    assert said == []
    assert (panel.n_clusters, panel.is_standardised, panel.view) == (9, False, None)
    assert not panel.cluster_list.isVisible()


def test_busy_holds_back_classes_and_errors_stay(qtbot, panel, said) -> None:
    click(qtbot, panel.clusters_toggle)
    panel.show_clusters(SHARES, COLOURS)
    panel.set_busy(True)
    assert panel.message.text() == "Computing…"
    click(qtbot, panel.cluster_rows[0].class_button)
    assert ("class_wanted", 0) not in said
    panel.say("The features are damaged.", is_error=True)
    panel.set_busy(False)
    assert panel.message.text() == "The features are damaged."
    click(qtbot, panel.cluster_rows[0].class_button)
    assert said[-1] == ("class_wanted", 0)


def test_fits_a_narrow_dock_and_is_quick(qtbot, panel) -> None:
    click(qtbot, panel.clusters_toggle)
    with record_callbacks() as times:
        click(qtbot, panel.clusters_toggle)
        click(qtbot, panel.clusters_toggle)
    panel.show_clusters([0.05] * 20, [(0.2, 0.4, 0.6)] * 20)
    qtbot.waitUntil(lambda: panel.cluster_rows[19].isVisible(), timeout=60_000)
    assert panel.minimumSizeHint().width() <= 300
    assert {t.name for t in times} == {"LookPanel._toggle_clusters"}
    assert max(t.seconds for t in times) < 0.05
