"""The classifier's panel: what it asks for, and what it shows of a file."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("napari")

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QApplication, QFileDialog, QLabel, QLineEdit, QMessageBox
from segmenter.samples import sample

from napari_alibi_seg._base import ClassifierSettings
from napari_alibi_seg._segmenter import Segmenter
from napari_alibi_seg._widgets._classifier_panel import ClassifierPanel, read_facts
from napari_alibi_seg._widgets._dialogs import Dialogs

pytestmark = pytest.mark.gui

LEFT = Qt.MouseButton.LeftButton


@pytest.fixture
def panel(qtbot):
    made = ClassifierPanel()
    qtbot.addWidget(made)
    made.resize(320, 400)
    with qtbot.waitExposed(made):
        made.show()
    return made


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("c") / "alloy.alibiseg"
    image, _, scribbles = sample()
    segmenter = Segmenter(classifier=ClassifierSettings(kind="logistic"))
    segmenter.fit(image, scribbles, class_names={1: "matrix", 3: "pore"})
    segmenter.save(path)
    return path


def texts(panel) -> list[str]:
    found = [label.text() for label in panel.facts.findChildren(QLabel)]
    return [text.replace("\u200b", "") for text in found]


def test_an_empty_panel_says_what_to_do(qtbot, panel) -> None:
    assert panel.hint.text().startswith("No classifier yet. Paint and train")
    assert not panel.save_button.isEnabled()
    assert panel.save_button.toolTip().startswith("Train first")
    panel.set_can_save(True)
    assert panel.save_button.isEnabled()
    assert panel.save_button.toolTip().startswith("Save the classifier")


def test_paths_are_asked_for_and_passed_on(qtbot, panel, tmp_path) -> None:
    offered = []

    def save(parent, suggestion):
        offered.append(suggestion)
        return tmp_path / "new.alibiseg"

    panel._dialogs = Dialogs(
        save_classifier=save, open_classifier=lambda parent: tmp_path / "old.alibiseg"
    )
    panel.set_suggestion(tmp_path / "scan.alibiseg")
    panel.set_can_save(True)
    with qtbot.waitSignal(panel.save_wanted) as saved:
        qtbot.mouseClick(panel.save_button, LEFT)
    assert saved.args == [tmp_path / "new.alibiseg"]
    assert offered == [str(tmp_path / "scan.alibiseg")]
    with qtbot.waitSignal(panel.load_wanted) as loaded:
        qtbot.mouseClick(panel.load_button, LEFT)
    assert loaded.args == [tmp_path / "old.alibiseg"]
    panel._dialogs = Dialogs(
        save_classifier=lambda *_: None, open_classifier=lambda _: None
    )
    with qtbot.assertNotEmitted(panel.save_wanted):
        qtbot.mouseClick(panel.save_button, LEFT)
    with qtbot.assertNotEmitted(panel.load_wanted):
        qtbot.mouseClick(panel.load_button, LEFT)


def test_it_shows_what_a_file_holds(panel, classifier) -> None:
    facts = read_facts(classifier)
    assert facts["classes"] == [
        (i, c.name, c.colour) for i, c in Segmenter.load(classifier).classes.items()
    ]
    with_hash = Segmenter.load(classifier).content_hash
    assert facts["Hash"] == with_hash[:12]
    panel.show_classifier(facts)
    shown = texts(panel)
    assert panel.hint.isHidden()
    for text in (
        *("alloy.alibiseg", "1  matrix", "3  pore", "none", with_hash[:12]),
        *("logistic regression, each pixel", "classical, 28 a pixel"),
    ):
        assert text in shown
    styles = [x.styleSheet() for x in panel.facts.findChildren(QLabel)]
    assert any(facts["classes"][0][2] in style for style in styles)
    panel.show_classifier(None)
    assert texts(panel) == []
    assert panel.hint.isVisible()


def test_it_is_readable_at_320_pixels(panel) -> None:
    many = [(i, f"class of a rather long name {i} " * 3, "#102030") for i in range(40)]
    path = "/a/" + "deep_folder_without_blanks/" * 10
    panel.show_classifier({"classes": many, "Folder": path})
    panel.say("Its weights are not here, and this has to be said at length. " * 3)
    assert panel.minimumSizeHint().width() <= 300
    assert panel.width() == 320
    assert "and 24 more" in texts(panel)


def test_errors_stand_out_and_go(panel) -> None:
    panel.say("The weights are not here.", is_error=True)
    assert panel.message.isVisible()
    assert panel.message.property("is_error")
    panel.say("")
    assert panel.message.isHidden()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param(QMessageBox.StandardButton.Yes, True, id="yes"),
        pytest.param(QMessageBox.StandardButton.No, False, id="no"),
    ],
)
def test_overwriting_asks_also_without_the_suffix(
    qtbot, panel, tmp_path, answer, expected
) -> None:
    (tmp_path / "alloy.alibiseg").write_bytes(b"precious")
    asked, ticks, is_over = [], [], []

    def press() -> None:
        """Type a name into Qt's dialog, then answer its question."""
        if is_over:
            return
        # a timer of its own each time: one timer does not fire within itself, and the
        # question comes up within the key press
        QTimer.singleShot(100, press)
        ticks.append(None)
        modal = QApplication.activeModalWidget()
        if isinstance(modal, QMessageBox):
            asked.append(modal.text())
            qtbot.mouseClick(modal.button(answer), LEFT)
        elif isinstance(modal, QFileDialog):
            if asked or len(ticks) > 100:
                modal.reject()
                return
            field = modal.findChild(QLineEdit)
            field.setText("alloy")
            qtbot.keyClick(field, Qt.Key.Key_Return)

    panel.set_suggestion(tmp_path / "x.alibiseg")
    panel.set_can_save(True)
    saved = []
    panel.save_wanted.connect(saved.append)
    QTimer.singleShot(100, press)
    qtbot.mouseClick(panel.save_button, LEFT)
    is_over.append(True)
    assert len(asked) == 1
    assert "alloy.alibiseg" in asked[0]
    assert saved == ([tmp_path / "alloy.alibiseg"] if expected else [])
