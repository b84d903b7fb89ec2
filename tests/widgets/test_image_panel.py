"""The image panel: what it offers, what it tells, and that setting it is silent."""

from __future__ import annotations

import pytest

pytest.importorskip("napari")
from qtpy.QtCore import Qt
from widgets.hands import heard, walk_to

from napari_alibi_seg._widgets._image_panel import ImagePanel
from napari_alibi_seg._workspace import DockSettings

pytestmark = pytest.mark.gui
LEFT = Qt.MouseButton.LeftButton


def type_into(qtbot, field, text):
    def has_focus():  # asked for again: a window that is just closing may take it
        field.window().activateWindow()
        field.setFocus()
        return field.hasFocus()

    qtbot.waitUntil(has_focus, timeout=60_000)
    field.selectAll()
    qtbot.keyClick(field, Qt.Key.Key_Delete)
    qtbot.keyClicks(field, text)
    qtbot.keyClick(field, Qt.Key.Key_Return)


@pytest.fixture
def panel(qtbot):
    made = ImagePanel()
    qtbot.addWidget(made)
    made.resize(320, 500)
    made.show()
    made.set_images([("a", "alloy"), ("b", "bone")], "a")
    return made


class TestImages:
    def test_empty_says_what_to_do(self, panel):
        panel.set_images([])
        assert panel.hint.text().startswith("Open a micrograph: drop a file")
        assert not panel.scale.isVisible()

    def test_choice_is_told(self, qtbot, panel):
        said = heard(panel.image_chosen)
        panel.set_images([("a", "alloy"), ("b", "bone")], "b")
        assert said == []
        walk_to(qtbot, panel.image, "alloy")
        assert said == ["a"]

    def test_nothing_chosen_yet(self, qtbot, panel):
        panel.set_images([("a", "alloy")])
        assert panel.hint.text() == "Choose the image to segment."
        assert not panel.scale.isVisible()
        walk_to(qtbot, panel.image, "alloy")
        assert panel.hint.isHidden()
        assert panel.scale.isVisible()

    def test_display_does_not_count(self, panel):
        texts = [w.text() for w in panel.findChildren(type(panel.hint))]
        wanted = "Contrast limits and gamma change the display only, never the result."
        assert wanted in texts

    def test_lines_and_plane(self, panel):
        panel.show_image(["819 x 1024", "uint8"])
        panel.set_plane("Plane 3 of 9")
        assert (panel.info.text(), panel.plane.text()) == (
            "819 x 1024\nuint8",
            "Plane 3 of 9",
        )
        panel.set_plane("")
        assert panel.plane.isHidden()


class TestChannels:
    @pytest.mark.parametrize(
        ("n", "meaning", "offered"),
        [
            (3, "rgb", ["auto", "grey", "rgb", "pick"]),
            (2, "channels", ["auto", "pick"]),
            (5, "channels", ["pick"]),
        ],
        ids=["colour", "few channels", "many channels"],
    )
    def test_only_what_the_image_allows(self, panel, n, meaning, offered):
        panel.set_channel_choices(n, meaning)
        assert panel.channels.values == offered
        assert panel.channels.isVisible()

    def test_grey_asks_nothing(self, panel):
        panel.set_channel_choices(1, "grey")
        assert not panel.channels.isVisible()
        assert not panel.pick_row.isVisible()

    def test_many_channels_wait_for_a_choice(self, panel):
        panel.set_channel_choices(5, "channels")
        assert panel.channels.chosen is None
        assert panel.channels.placeholderText() == "Choose channels"

    def test_picks_are_told(self, qtbot, panel):
        panel.set_channel_choices(5, "channels", ["iron", "carbon"])
        said = heard(panel.settings_wanted)
        walk_to(qtbot, panel.channels, "Channels by number")
        assert panel.pick_row.isVisible()
        walk_to(qtbot, panel.picks[0], "1: carbon")
        walk_to(qtbot, panel.picks[2], "–")
        assert said[:2] == [{"channels": (0, 1, 2)}, {"channels": (1, 1, 2)}]
        assert said[-1] == {"channels": (1, 1)}

    def test_two_channels_are_both_picked(self, qtbot, panel):
        panel.set_channel_choices(2, "channels")
        said = heard(panel.settings_wanted)
        walk_to(qtbot, panel.channels, "Channels by number")
        assert said == [{"channels": (0, 1)}]

    def test_settings_are_shown(self, panel):
        said = heard(panel.settings_wanted)
        panel.set_channel_choices(4, "channels")
        panel.apply_settings(DockSettings(channels=(3, 0)))
        assert [p.chosen for p in panel.picks] == [3, 0, None]
        assert panel.channels.chosen == "pick"
        panel.set_channel_choices(3, "rgb")
        panel.apply_settings(DockSettings(channels="grey"))
        assert panel.channels.chosen == "grey"
        assert not panel.pick_row.isVisible()
        assert said == []


class TestPixelSize:
    def test_typed(self, qtbot, panel):
        panel.set_pixel_size(None, "", from_file=False)
        said = heard(panel.pixel_size_wanted)
        type_into(qtbot, panel.size, "0,25")
        qtbot.keyClick(panel.size, Qt.Key.Key_Return)
        walk_to(qtbot, panel.unit, "nm")
        type_into(qtbot, panel.size, "")
        assert said == [(0.25, "um"), (0.25, "nm"), None]

    @pytest.mark.parametrize("text", ["-1", "0", "abc", "inf", "nan"])
    def test_nonsense_is_refused_with_a_sentence(self, qtbot, panel, text):
        panel.set_pixel_size(None, "", from_file=False)
        said = heard(panel.pixel_size_wanted)
        type_into(qtbot, panel.size, text)
        assert said == []
        assert panel.size_error.text() == (
            f"Expected a number above 0 such as 0.25, got {text!r}."
        )

    def test_of_the_file_is_fixed(self, panel):
        said = heard(panel.pixel_size_wanted)
        panel.set_pixel_size(12.5, "nm", from_file=True)
        assert (panel.size.text(), panel.unit.chosen) == ("12.5", "nm")
        assert not panel.size.isEnabled()
        panel.set_pixel_size(3, "inch", from_file=True)
        assert panel.unit.currentText() == "inch"
        panel.set_pixel_size(2, "mm", from_file=False)
        assert panel.size.isEnabled()
        assert panel.unit.values == ["nm", "um", "mm"]
        assert said == []


class TestScale:
    @pytest.mark.parametrize(
        ("text", "value"), [("3", 3.0), ("0.7", 0.7), ("1,5x", 1.5), ("8", 8.0)]
    )
    def test_typed(self, qtbot, panel, text, value):
        said = heard(panel.settings_wanted)
        type_into(qtbot, panel.scale.lineEdit(), text)
        panel.image.setFocus()
        assert said == [{"scale": value}]

    def test_picked(self, qtbot, panel):
        panel.apply_settings(DockSettings(scale=3))
        said = heard(panel.settings_wanted)
        walk_to(qtbot, panel.scale, "auto")
        assert [one["scale"] for one in said] == [2.0, 1.0, 0.5, "auto"]

    @pytest.mark.parametrize("text", ["9", "0", "0.01", "fast", "nan"])
    def test_nonsense_is_refused_with_a_sentence(self, qtbot, panel, text):
        said = heard(panel.settings_wanted)
        type_into(qtbot, panel.scale.lineEdit(), text)
        assert said == []
        expected = f"Expected auto or a number from 0.05 to 8, got {text!r}."
        assert panel.scale_error.text() == expected
        panel.apply_settings(DockSettings())
        assert panel.scale_error.isHidden()
        assert panel.scale.currentText() == "auto"


class TestAreas:
    def test_suggestion(self, qtbot, panel):
        taken, refused = heard(panel.area_accepted), heard(panel.area_declined)
        panel.suggest_area("An information bar was found: rows 771 to 819")
        assert panel.found.isVisible()
        qtbot.mouseClick(panel.accept, LEFT)
        assert (len(taken), len(refused), panel.accept.isVisible()) == (1, 0, False)
        panel.suggest_area("Another one")
        qtbot.mouseClick(panel.decline, LEFT)
        assert (len(taken), len(refused), panel.found.isVisible()) == (1, 1, False)

    def test_drawn(self, qtbot, panel):
        wanted, cleared = heard(panel.area_wanted), heard(panel.areas_cleared)
        qtbot.mouseClick(panel.draw, LEFT)
        assert not panel.clear.isVisible()
        panel.set_areas(1)
        assert panel.n_areas.text() == "1 area is left out"
        qtbot.mouseClick(panel.clear, LEFT)
        assert (len(wanted), len(cleared)) == (1, 1)


class TestDevice:
    def test_picked(self, qtbot, panel):
        said = heard(panel.settings_wanted)
        panel.set_devices([("auto", "Auto: cuda:0"), ("cuda:0", "A"), ("cpu", "B")])
        assert panel.device.currentText() == "Auto: cuda:0"
        walk_to(qtbot, panel.device, "A")
        assert said == [{"device": "cuda:0"}]

    def test_one_that_is_not_here_is_shown_as_such(self, panel):
        panel.apply_settings(DockSettings(device="cuda:3"))
        panel.set_devices([("auto", "Auto: cpu"), ("cpu", "cpu")])
        assert panel.device.currentText() == "cuda:3 (not found here)"
        assert panel.device.chosen == "cuda:3"


def test_fits_into_a_narrow_dock(panel):
    panel.set_images([("a", "a very long name " * 9)], "a")
    panel.set_channel_choices(5, "channels", ["a long name of a channel"] * 5)
    panel.apply_settings(DockSettings(channels=(0, 1, 2)))
    panel.set_areas(12)
    panel.suggest_area("An information bar was found: rows 771 to 819")
    assert panel.minimumSizeHint().width() <= 300
