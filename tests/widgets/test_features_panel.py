"""The features panel: backbones and their weights, and the extraction."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("napari")
from qtpy.QtCore import Qt
from widgets.hands import heard, walk_to

from napari_alibi_seg._widgets._backbone_row import BackboneRow
from napari_alibi_seg._widgets._features_panel import FeaturesPanel
from napari_alibi_seg._workspace import DockSettings

pytestmark = pytest.mark.gui
LEFT = Qt.MouseButton.LeftButton
ROWS = [
    BackboneRow("alibi-tiny", "Tiny", "BSD-3-Clause", None, True, False),
    BackboneRow("dinov2-s", "DINOv2-S", "Apache-2.0", 88, False, True),
    BackboneRow("gated", "Gated", "Own", 1200, False, False),
]


def type_number(qtbot, spin, text):
    spin.setFocus()
    spin.selectAll()
    qtbot.keyClicks(spin, text)
    qtbot.keyClick(spin, Qt.Key.Key_Return)


@pytest.fixture
def panel(qtbot):
    answers = []
    made = FeaturesPanel(ask_weights=lambda parent: answers.pop() if answers else None)
    made.answers = answers
    qtbot.addWidget(made)
    made.resize(320, 600)
    made.show()
    made.set_backbones(ROWS)
    return made


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (ROWS[0], "Licence: BSD-3-Clause. Its weights are here."),
        (
            ROWS[1],
            "Licence: Apache-2.0. Size: 88 MB. Its weights are not here: download "
            "them, or use a file.",
        ),
        (
            ROWS[2],
            "Licence: Own. Size: 1,200 MB. Its weights are not here, and it takes a "
            "file to get them.",
        ),
    ],
    ids=["here", "downloadable", "neither"],
)
def test_row_in_words(row, text):
    assert row.text == text


class TestBackbone:
    def test_classical_needs_none(self, panel):
        assert not panel.backbone.isVisible()
        assert not panel.extract.isVisible()
        assert panel.about.text().startswith("Classical features need no extraction")

    def test_vit_asks_for_one(self, qtbot, panel):
        said = heard(panel.settings_wanted)
        walk_to(qtbot, panel.kind, "ViT only")
        assert said == [{"features": "vit"}]
        assert panel.backbone.isVisible()
        assert panel.about.text() == "Choose a backbone, or classical features."
        assert not panel.extract.isEnabled()
        walk_to(qtbot, panel.backbone, "Tiny")
        assert said[1:] == [{"backbone": "alibi-tiny"}]
        assert panel.extract.isEnabled()

    @pytest.mark.parametrize(
        ("name", "download", "file", "extract"),
        [
            ("alibi-tiny", False, False, True),
            ("dinov2-s", True, True, False),
            ("gated", False, True, False),
            ("/data/mine.pth", False, False, True),
        ],
    )
    def test_what_it_lacks_is_offered(self, panel, name, download, file, extract):
        panel.apply_settings(DockSettings(features="both", backbone=name))
        assert panel.download.isVisible() == download
        assert panel.use_file.isVisible() == file
        assert panel.extract.isEnabled() == extract

    def test_download(self, qtbot, panel):
        panel.apply_settings(DockSettings(features="vit", backbone="dinov2-s"))
        said, stop = heard(panel.download_wanted), heard(panel.cancel_wanted)
        qtbot.mouseClick(panel.download, LEFT)
        assert said == ["dinov2-s"]
        panel.show_progress(12, 88, 40.0, "Downloading")
        qtbot.mouseClick(panel.download, LEFT)  # refused while it runs
        qtbot.mouseClick(panel.cancel, LEFT)
        assert (said, len(stop)) == (["dinov2-s"], 1)
        here = BackboneRow("dinov2-s", "DINOv2-S", "Apache-2.0", 88, True, True)
        panel.show_idle()
        panel.set_backbones([here])
        assert not panel.download.isVisible()
        assert panel.extract.isEnabled()

    def test_file_by_button(self, qtbot, panel):
        panel.apply_settings(DockSettings(features="vit", backbone="gated"))
        said = heard(panel.weights_file_wanted)
        qtbot.mouseClick(panel.use_file, LEFT)  # answered with Cancel
        panel.answers.append(Path("a/b.pth"))
        qtbot.mouseClick(panel.use_file, LEFT)
        assert said == [Path("a/b.pth")]

    def test_file_by_list(self, qtbot, panel):
        panel.apply_settings(DockSettings(features="vit", backbone="gated"))
        said, changes = heard(panel.weights_file_wanted), heard(panel.settings_wanted)
        walk_to(qtbot, panel.backbone, "Weights file...")
        assert (said, panel.backbone.chosen) == ([], "gated")
        panel.answers.append(Path("a/b.pth"))
        walk_to(qtbot, panel.backbone, "Weights file...")
        assert (said, changes) == ([Path("a/b.pth")], [])
        panel.apply_settings(DockSettings(features="vit", backbone="a/b.pth"))
        assert panel.backbone.currentText() == "b.pth"
        assert panel.about.text() == "Your weights file."

    def test_rows_may_come_later(self, qtbot):
        panel = FeaturesPanel()
        qtbot.addWidget(panel)
        panel.apply_settings(DockSettings(features="vit", backbone="dinov2-s"))
        assert panel.backbone.currentText() == "dinov2-s"
        panel.set_backbones(ROWS)
        assert panel.backbone.currentText() == "DINOv2-S"
        assert panel.backbone.values == ["alibi-tiny", "dinov2-s", "gated", ""]


class TestAdvanced:
    @pytest.mark.parametrize(
        ("name", "typed", "change"),
        [
            ("density", "2", {"density": 2}),
            ("components", "48", {"components": 48}),
            ("components", "0", {"components": None}),
            ("tile", "224", {"tile_px": 224}),
            ("halo", "0", {"halo_tokens": 0}),
        ],
    )
    def test_typed(self, qtbot, panel, name, typed, change):
        panel.apply_settings(DockSettings(features="vit", backbone="alibi-tiny"))
        said = heard(panel.settings_wanted)
        qtbot.mouseClick(panel.advanced.head, LEFT)
        type_number(qtbot, getattr(panel, name), typed)
        assert said == [change]
        assert DockSettings().replace(**change) != DockSettings()

    def test_range_of_intensity(self, qtbot, panel):
        said = heard(panel.settings_wanted)
        qtbot.mouseClick(panel.advanced.head, LEFT)
        walk_to(qtbot, panel.normalisation, "As the first image")
        assert said == [{"normalisation": "frozen"}]

    def test_folded_and_without_vit_only_what_counts(self, qtbot, panel):
        assert not panel.normalisation.isVisible()
        qtbot.mouseClick(panel.advanced.head, LEFT)
        assert panel.normalisation.isVisible()
        assert not panel.density.isVisible()

    def test_settings_are_shown_silently(self, panel):
        said = heard(panel.settings_wanted)
        settings = DockSettings(
            features="vit",
            backbone="gated",
            density=4,
            components=None,
            tile_px=224,
            halo_tokens=3,
            normalisation="frozen",
        )
        panel.apply_settings(settings)
        assert (panel.kind.chosen, panel.backbone.chosen) == ("vit", "gated")
        assert (panel.density.value(), panel.components.text()) == (4, "All")
        assert (panel.tile.value(), panel.halo.value()) == (224, 3)
        assert panel.normalisation.chosen == "frozen"
        panel.apply_settings(DockSettings())
        assert panel.halo.text() == "Auto"
        assert said == []


class TestExtraction:
    @pytest.fixture
    def ready(self, panel):
        panel.apply_settings(DockSettings(features="vit", backbone="alibi-tiny"))
        return panel

    def test_run_and_cancel(self, qtbot, ready):
        began, stopped = heard(ready.extract_wanted), heard(ready.cancel_wanted)
        assert not ready.cancel.isVisible()
        qtbot.mouseClick(ready.extract, LEFT)
        ready.show_progress(1, 240, 191.0, "First tile took 0.8 s: about 3 min")
        assert ready.wait.bar.format() == "1 of 240, 3 min left"
        assert ready.wait.note.text() == "First tile took 0.8 s: about 3 min"
        assert not ready.extract.isVisible()
        qtbot.mouseClick(ready.cancel, LEFT)
        qtbot.mouseClick(ready.cancel, LEFT)  # once is enough
        ready.show_idle("Stopped: 1 of 240 tiles are stored.")
        assert (len(began), len(stopped)) == (1, 1)
        assert ready.extract.isEnabled()
        ready.show_progress(1, 240, None, "")
        assert ready.cancel.isEnabled()

    def test_stored(self, ready):
        ready.show_stored("Features are stored: 0.4 GB")
        assert ready.wait.note.text() == "Features are stored: 0.4 GB"
        assert not ready.extract.isEnabled()
        ready.show_idle()
        assert ready.extract.isEnabled()

    def test_error_frees_the_controls(self, ready):
        ready.show_progress(3, 9, None, "")
        ready.show_error("The device has no memory left.")
        assert ready.extract.isVisible()
        assert ready.extract.isEnabled()
        assert not ready.cancel.isVisible()
        assert ready.wait.note.property("is_error")

    def test_progress_goes_on_while_settings_are_shown(self, ready):
        ready.show_progress(3, 9, None, "")
        ready.apply_settings(DockSettings(features="both", backbone="alibi-tiny"))
        assert ready.cancel.isVisible()
        assert not ready.extract.isVisible()


def test_fits_into_a_narrow_dock(panel):
    long = "a very long title of a backbone " * 3
    panel.set_backbones([BackboneRow("gated", long, long, 9, False, True)])
    panel.apply_settings(DockSettings(features="both", backbone="gated"))
    panel.advanced.fold(True)
    panel.show_progress(100, 2400, 9000, "First tile took 0.8 s: about 3 min")
    assert panel.minimumSizeHint().width() <= 300


class TestCure:
    def test_it_stands_behind_the_backbone(self, qtbot, panel):
        panel.apply_settings(DockSettings(features="vit", backbone="alibi-tiny"))
        said = heard(panel.settings_wanted)
        walk_to(qtbot, panel.cure, "Average of 4 rolled copies (4 passes a tile)")
        assert said[-1] == {"backbone": "alibi-tiny+roll=4"}
        # the backbone is still known by its name
        assert panel.backbone.currentText() == "Tiny"
        assert panel.about.text().endswith("here. The cure takes 4 passes a tile.")
        assert panel.extract.isEnabled()
        # and another one gets the same cure
        walk_to(qtbot, panel.backbone, "DINOv2-S")
        assert said[-1] == {"backbone": "dinov2-s+roll=4"}
        assert panel.download.isVisible()

    def test_channels_belong_to_one_backbone(self, qtbot, panel):
        spec = "alibi-tiny+blank=3,4"
        panel.apply_settings(DockSettings(features="vit", backbone=spec))
        assert panel.cure.currentText() == "blank=3,4 (1 pass a tile)"
        said = heard(panel.settings_wanted)
        walk_to(qtbot, panel.backbone, "DINOv2-S")
        assert said == [{"backbone": "dinov2-s"}]

    def test_classical_features_have_none(self, panel):
        panel.apply_settings(DockSettings(features="classical"))
        assert not panel.cure.isVisible()

    def test_warning(self, panel):
        assert not panel.warning.isVisible()
        panel.show_warning("Much position.")
        assert panel.warning.isVisible()
        panel.show_warning("")
        assert not panel.warning.isVisible()
