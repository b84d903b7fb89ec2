"""The panel of classes: real clicks and keys in, table and signals out."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import pytest

pytest.importorskip("qtpy")
pytest.importorskip("napari")

from qtpy.QtCore import QPoint, Qt, QTimer
from qtpy.QtWidgets import QApplication, QLineEdit, QMenu

from napari_alibi_seg._widgets._class_dialogs import ClassDialogs
from napari_alibi_seg._widgets._class_rows import (
    AREA,
    COLOUR,
    NAME,
    PAINTED,
    WEIGHT,
    area_text,
    pixels_text,
)
from napari_alibi_seg._widgets._classes_panel import ClassesPanel
from napari_alibi_seg._widgets._hooks import record_callbacks
from napari_alibi_seg._workspace import ClassTable, read_classes

pytestmark = pytest.mark.gui

LEFT = Qt.MouseButton.LeftButton
SIGNALS = (
    "picked",
    "removed",
    "merged",
    "labels_layer_wanted",
    "mask_file_wanted",
    "mask_export_wanted",
    "message",
)


@pytest.fixture
def table():
    """Ids with gaps, as people have them."""
    made = ClassTable()
    for class_id, name in ((1, "pore"), (3, "grain"), (7, "oxide")):
        made.add(name, class_id=class_id)
    return made


@pytest.fixture
def make(qtbot):
    def make(table):
        dialogs = Mock(spec=ClassDialogs)
        panel = ClassesPanel(table, dialogs=dialogs)
        qtbot.addWidget(panel)
        panel.resize(320, 300)
        panel.show()
        qtbot.waitExposed(panel)
        panel.heard = []
        for name in SIGNALS:
            getattr(panel, name).connect(
                lambda *args, name=name: panel.heard.append((name, *args))
            )
        return panel

    return make


@pytest.fixture
def panel(make, table):
    return make(table)


def text(panel, row, column):
    return panel.view.model().index(row, column).data()


def rows(panel):
    return [text(panel, i, NAME) for i in range(panel.view.model().rowCount())]


def click(qtbot, panel, row, column, *, double=False):
    index = panel.view.model().index(row, column)
    where = panel.view.visualRect(index).center()
    viewport = panel.view.viewport()
    qtbot.mouseClick(viewport, LEFT, pos=where)
    if double:
        qtbot.mouseDClick(viewport, LEFT, pos=where)


def type_into(qtbot, panel, row, column, typed, *, end=Qt.Key.Key_Return):
    click(qtbot, panel, row, column, double=True)
    editor = panel.view.viewport().findChild(QLineEdit)
    editor.selectAll()
    if typed:
        qtbot.keyClicks(editor, typed)
    else:
        qtbot.keyClick(editor, Qt.Key.Key_Delete)
    qtbot.keyClick(editor, end)
    closed(qtbot, panel)


def closed(qtbot, panel):
    """Wait for the editor of a cell to go: Qt takes its text a little later."""
    viewport = panel.view.viewport()
    qtbot.waitUntil(lambda: viewport.findChild(QLineEdit) is None, timeout=60_000)


def choose(qtbot, button, n):
    """Open a button's menu with the mouse and take its n-th entry with the keys."""
    seen = []

    def take():
        menu = QApplication.activePopupWidget()
        assert isinstance(menu, QMenu)
        seen.extend(a.text() for a in menu.actions())
        for _ in range(n + 1):
            qtbot.keyClick(menu, Qt.Key.Key_Down)
        qtbot.keyClick(menu, Qt.Key.Key_Return)

    # whether the click waits for the menu depends on the version of Qt
    QTimer.singleShot(100, take)
    qtbot.mouseClick(button, LEFT)
    qtbot.waitUntil(
        lambda: bool(seen) and not QApplication.activePopupWidget(), timeout=60_000
    )
    return seen


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [
        pytest.param(0.123, "12.3 %", id="plain"),
        pytest.param(1.0, "100.0 %", id="all"),
        pytest.param(0.0, "0.0 %", id="none"),
        pytest.param(0.0004, "<0.1 %", id="not-none"),
        pytest.param(None, "–", id="unknown"),
    ],
)
def test_area_text(fraction, expected):
    assert area_text(fraction) == expected


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, "0"),
        (99_999, "99 999"),
        (100_000, "100 k"),
        (999_499, "999 k"),
        (999_500, "1.00 M"),
        (99_994_999, "99.99 M"),
        (2_500_000_000, "2500 M"),
    ],
)
def test_pixels_text_is_short(count, expected):
    assert pixels_text(count) == expected.replace(" ", "\xa0")
    assert len(expected) <= 7


class TestShown:
    def test_rows_show_table_counts_and_fractions(self, panel):
        panel.set_counts({1: 12, 7: 4_194_304})
        panel.set_fractions({3: 0.5})
        shown = [[text(panel, i, c) for c in range(NAME, AREA + 1)] for i in range(3)]
        assert shown == [
            ["pore", "12", "1", "–"],
            ["grain", "0", "1", "50.0 %"],
            ["oxide", "4.19\xa0M", "1", "–"],
        ]
        assert panel.heard == []

    def test_all_columns_fit_320_px(self, panel):
        panel.set_counts({1: 99_999, 3: 99_990_000})
        panel.set_fractions({1: 1.0, 3: 0.0001})
        panel.table.set_weight(1, 0.125)
        view, metrics = panel.view, panel.view.fontMetrics()
        assert view.horizontalHeader().length() <= view.viewport().width()
        for i in range(3):
            for column in (PAINTED, WEIGHT, AREA):
                needed = metrics.horizontalAdvance(text(panel, i, column))
                assert view.columnWidth(column) > needed
        assert view.columnWidth(NAME) > metrics.horizontalAdvance("MMMMM")
        assert panel.minimumSizeHint().width() <= 320

    def test_swatch_has_the_colour_of_the_class(self, panel):
        panel.table.recolour(3, "#12ab9f")
        index = panel.view.model().index(1, COLOUR)
        where = panel.view.visualRect(index)
        image = panel.view.viewport().grab(where).toImage()
        ratio = image.devicePixelRatio()
        corner = QPoint(where.width() // 2 - 7, where.height() // 2 - 5) * ratio
        assert image.pixelColor(corner).name() == "#12ab9f"

    def test_table_grows_with_its_rows(self, panel):
        before = panel.view.sizeHint().height()
        panel.table.add()
        assert panel.view.sizeHint().height() > before
        for _ in range(30):
            panel.table.add()
        assert panel.view.sizeHint().height() < 4 * before

    def test_every_control_has_a_tooltip(self, panel):
        buttons = (
            panel.buttons.add_button,
            panel.buttons.delete_button,
            panel.buttons.merge_button,
            panel.buttons.import_button,
            panel.buttons.export_button,
            panel.buttons.scribbles_button,
        )
        assert all(b.toolTip() for b in buttons)
        tip = Qt.ItemDataRole.ToolTipRole
        model = panel.view.model()
        assert all(model.index(1, c).data(tip) for c in range(5))
        assert "Key 2" in model.index(1, COLOUR).data(tip)


class TestHint:
    @pytest.mark.parametrize(
        ("names", "counts", "expected"),
        [
            ([], {}, "Add a class, then paint a stroke of it on the image."),
            (["pore"], {}, "Add a second class: what is the rest?"),
            (["pore"], {1: 5}, "Add a second class: what is the rest?"),
            (["pore", "<b>"], {1: 5}, "Paint a stroke of <b>."),
            (["pore", "grain"], {1: 5, 2: 1}, ""),
        ],
        ids=["none", "one", "one-painted", "one-unpainted", "all"],
    )
    def test_says_the_next_step(self, make, names, counts, expected):
        panel = make(ClassTable())
        for name in names:
            panel.table.add(name)
        panel.set_counts(counts)
        assert panel.hint.text() == expected
        assert panel.hint.isVisible() == bool(expected)

    def test_a_name_is_no_markup(self, panel):
        assert panel.hint.textFormat() == Qt.TextFormat.PlainText
        assert panel.error.textFormat() == Qt.TextFormat.PlainText

    def test_from_outside_goes_first_until_it_ends(self, panel):
        panel.set_hint("Open an image.")
        panel.set_counts({1: 5})
        assert panel.hint.text() == "Open an image."
        panel.set_hint("")
        assert panel.hint.text() == "Paint a stroke of grain."


class TestPicking:
    def test_mouse_arms_also_the_row_that_was_picked(self, qtbot, panel):
        for i in (1, 1, 2):
            click(qtbot, panel, i, NAME)
        assert panel.heard == [("picked", 3), ("picked", 3), ("picked", 7)]
        assert panel.picked_id == 7

    def test_arrow_keys_arm(self, qtbot, panel):
        panel.pick(1)
        qtbot.keyClick(panel.view, Qt.Key.Key_Down)
        qtbot.keyClick(panel.view, Qt.Key.Key_Down)
        assert panel.heard == [("picked", 3), ("picked", 7)]

    def test_digits_in_the_table_arm_and_do_not_search(self, qtbot, panel):
        panel.table.rename(1, "2nd")
        qtbot.keyClicks(panel.view, "2")
        qtbot.keyClicks(panel.view, "9")
        assert panel.heard == [("picked", 3)]

    def test_letters_are_left_to_the_window(self, qtbot, panel):
        left = []
        panel.keyPressEvent = lambda event: left.append(event.text())
        panel.pick(1)
        # Qt alone would look for a row that begins with it
        qtbot.keyClicks(panel.view, "o")
        assert panel.picked_id == 1
        assert left == ["o"]

    def test_from_outside_is_silent(self, panel):
        panel.pick(7)
        assert (panel.picked_id, panel.buttons.delete_button.isEnabled()) == (7, True)
        panel.pick(2)
        assert (panel.picked_id, panel.buttons.delete_button.isEnabled()) == (
            None,
            False,
        )
        assert panel.pick_nth(2) == 3 == panel.picked_id
        assert [panel.pick_nth(n) for n in (0, 4)] == [None, None]
        assert panel.picked_id == 3
        assert panel.heard == []


class TestTableChanges:
    def test_selection_survives_rows_that_come_and_go(self, panel):
        panel.pick(3)
        panel.table.delete(1)
        assert (rows(panel), panel.picked_id) == (["grain", "oxide"], 3)
        panel.table.add("slag")
        panel.table.rename(7, "rust")
        assert (rows(panel), panel.picked_id) == (["grain", "rust", "slag"], 3)
        panel.table.delete(3)
        assert panel.picked_id is None
        assert panel.heard == []

    def test_numbers_of_a_deleted_class_do_not_come_back(self, panel):
        panel.set_counts({1: 55})
        panel.set_fractions({1: 0.5})
        panel.table.delete(1)
        assert panel.table.add("new").id == 1
        assert [text(panel, 2, c) for c in (PAINTED, AREA)] == ["0", "–"]

    def test_an_open_editor_keeps_its_text(self, qtbot, panel):
        click(qtbot, panel, 0, NAME, double=True)
        editor = panel.view.viewport().findChild(QLineEdit)
        qtbot.keyClicks(editor, "void")
        panel.set_counts({1: 5})
        panel.set_fractions({1: 0.5})
        panel.table.rename(7, "rust")
        qtbot.keyClick(editor, Qt.Key.Key_Return)
        closed(qtbot, panel)
        assert panel.table[1].name == "void"

    def test_table_may_outlive_the_panel(self, qtbot, table):
        panel = ClassesPanel(table)
        assert len(table.changed) == 1
        with qtbot.waitSignal(panel.destroyed):
            panel.deleteLater()
        assert len(table.changed) == 0
        table.add("after")


class TestEditing:
    def test_name(self, qtbot, panel):
        type_into(qtbot, panel, 1, NAME, "ferrite 2")
        assert panel.table[3].name == "ferrite 2"
        assert text(panel, 1, NAME) == "ferrite 2"
        assert panel.picked_id == 3
        assert panel.heard == [("picked", 3)]

    @pytest.mark.parametrize("typed", ["2.5", "2,5"], ids=["point", "comma"])
    def test_weight(self, qtbot, panel, typed):
        type_into(qtbot, panel, 1, WEIGHT, typed)
        assert panel.table.weights == {1: 1.0, 3: 2.5, 7: 1.0}

    def test_weight_is_not_rounded_by_looking_at_it(self, qtbot, panel):
        panel.table.set_weight(3, 1.23456789)
        click(qtbot, panel, 1, WEIGHT, double=True)
        editor = panel.view.viewport().findChild(QLineEdit)
        assert editor.text() == "1.23456789"
        qtbot.keyClick(editor, Qt.Key.Key_Return)
        closed(qtbot, panel)
        assert panel.table.weights[3] == 1.23456789

    @pytest.mark.parametrize(
        ("column", "typed", "said"),
        [
            (NAME, "", "Expected a name for 'grain', got none"),
            (NAME, "pore", "'pore', which is class 1. Choose another name"),
            (
                WEIGHT,
                "0",
                "number above 0 as the weight of 'grain', got '0'",
            ),
            (WEIGHT, "-1", "got '-1'"),
            (WEIGHT, "nan", "got 'nan'"),
            (WEIGHT, "inf", "got 'inf'"),
            (WEIGHT, "much", "got 'much'"),
        ],
        ids=["empty", "taken", "zero", "negative", "nan", "inf", "text"],
    )
    def test_wrong_input_is_told_and_undone(self, qtbot, panel, column, typed, said):
        before = panel.table.entries
        type_into(qtbot, panel, 1, column, typed)
        assert panel.table.entries == before
        assert text(panel, 1, column) == ("grain" if column == NAME else "1")
        assert said in panel.error.text()
        assert panel.error.isVisible()
        assert panel.heard[-1] == ("message", panel.error.text())
        type_into(qtbot, panel, 1, NAME, "good")
        assert not panel.error.isVisible()

    def test_escape_keeps_the_name(self, qtbot, panel):
        type_into(qtbot, panel, 1, NAME, "ferrite", end=Qt.Key.Key_Escape)
        assert panel.table[3].name == "grain"

    @pytest.mark.parametrize("by", ["mouse", "key"])
    def test_colour(self, qtbot, panel, by):
        panel.dialogs.colour.return_value = "#12AB9F"
        if by == "mouse":
            click(qtbot, panel, 1, COLOUR)
        else:
            panel.view.setCurrentIndex(panel.view.model().index(1, COLOUR))
            qtbot.keyClick(panel.view, Qt.Key.Key_Return)
        assert panel.table[3].colour == "#12ab9f"
        assert panel.dialogs.colour.call_count == 1

    def test_colour_cancelled(self, qtbot, panel):
        before = panel.table.entries
        panel.dialogs.colour.return_value = None
        click(qtbot, panel, 1, COLOUR)
        assert panel.table.entries == before


class TestButtons:
    def test_add_arms_the_class_and_asks_for_its_name(self, qtbot, panel):
        qtbot.mouseClick(panel.buttons.add_button, LEFT)
        assert panel.heard == [("picked", 2)]
        editor = panel.view.viewport().findChild(QLineEdit)
        qtbot.keyClicks(editor, "slag")
        qtbot.keyClick(editor, Qt.Key.Key_Return)
        closed(qtbot, panel)
        assert panel.table[2].name == "slag"
        assert panel.picked_id == 2

    def test_delete_unpainted_asks_nothing(self, qtbot, panel):
        panel.pick(3)
        qtbot.mouseClick(panel.buttons.delete_button, LEFT)
        assert panel.dialogs.confirm.call_count == 0
        assert panel.heard == [("removed", {3: 0}), ("picked", 7)]
        assert panel.table.ids == (1, 7)

    @pytest.mark.parametrize("answer", [True, False], ids=["yes", "no"])
    def test_delete_painted_asks(self, qtbot, panel, answer):
        panel.set_counts({7: 1234})
        panel.pick(7)
        panel.dialogs.confirm.return_value = answer
        qtbot.mouseClick(panel.buttons.delete_button, LEFT)
        panel.dialogs.confirm.assert_called_once_with(
            "Delete 'oxide' and its 1,234 painted pixels?"
        )
        gone = [("removed", {7: 0}), ("picked", 3)]
        assert panel.heard == (gone if answer else [])
        assert (7 in panel.table) != answer

    def test_delete_the_last_class(self, qtbot, make):
        panel = make(ClassTable())
        only = panel.table.add()
        panel.pick(only.id)
        qtbot.mouseClick(panel.buttons.delete_button, LEFT)
        assert panel.heard == [("removed", {1: 0})]
        assert panel.picked_id is None
        assert not panel.buttons.delete_button.isEnabled()

    def test_class_that_went_while_asked(self, qtbot, panel):
        panel.set_counts({7: 5})
        panel.pick(7)

        def confirm(_question):
            panel.table.delete(7)
            return True

        panel.dialogs.confirm.side_effect = confirm
        qtbot.mouseClick(panel.buttons.delete_button, LEFT)
        assert [name for name, *_ in panel.heard] == ["message"]
        assert "Expected the id of a class" in panel.error.text()

    def test_merge(self, qtbot, panel):
        panel.table.rename(7, "a & b")
        panel.pick(1)
        assert choose(qtbot, panel.buttons.merge_button, 1) == ["grain", "a && b"]
        assert panel.heard == [("merged", {1: 7}), ("picked", 7)]
        assert panel.table.ids == (3, 7)

    def test_merge_needs_another_class(self, panel):
        panel.pick(1)
        assert panel.buttons.merge_button.isEnabled()
        panel.table.delete(3)
        panel.table.delete(7)
        assert not panel.buttons.merge_button.isEnabled()

    def test_csv_there_and_back(self, qtbot, panel, make, tmp_path):
        path = tmp_path / "classes.csv"
        panel.table.set_weight(7, 2.5)
        panel.dialogs.save_file.return_value = path
        qtbot.mouseClick(panel.buttons.export_button, LEFT)
        assert read_classes(path) == panel.table.entries
        other = make(ClassTable())
        other.table.add("mine", class_id=2)
        other.dialogs.open_file.return_value = path
        qtbot.mouseClick(other.buttons.import_button, LEFT)
        assert set(other.table.entries) >= set(panel.table.entries)
        assert other.table[2].name == "mine"
        assert other.heard == []

    def test_bad_csv_is_told(self, qtbot, panel, tmp_path):
        path = tmp_path / "classes.csv"
        path.write_text("id,name\n0,pore\n", encoding="utf-8")
        before = panel.table.entries
        panel.dialogs.open_file.return_value = path
        qtbot.mouseClick(panel.buttons.import_button, LEFT)
        assert panel.table.entries == before
        assert "line 2" in panel.error.text()
        assert panel.heard == [("message", panel.error.text())]

    def test_csv_that_cannot_be_written_is_told(self, qtbot, panel, tmp_path):
        panel.dialogs.save_file.return_value = tmp_path
        qtbot.mouseClick(panel.buttons.export_button, LEFT)
        assert str(tmp_path) in panel.error.text()

    @pytest.mark.parametrize(
        ("n", "heard"),
        [
            (0, [("labels_layer_wanted",)]),
            (1, [("mask_file_wanted", Path("in.png"))]),
            (2, [("mask_export_wanted", Path("out.tif"))]),
        ],
        ids=["layer", "file", "save"],
    )
    def test_scribbles_menu(self, qtbot, panel, n, heard):
        panel.dialogs.open_file.return_value = Path("in.png")
        panel.dialogs.save_file.return_value = Path("out.tif")
        assert len(choose(qtbot, panel.buttons.scribbles_button, n)) == 3
        assert panel.heard == heard

    @pytest.mark.parametrize("n", [1, 2], ids=["file", "save"])
    def test_cancelled_file_dialog(self, qtbot, panel, n):
        panel.dialogs.open_file.return_value = None
        panel.dialogs.save_file.return_value = None
        choose(qtbot, panel.buttons.scribbles_button, n)
        assert panel.heard == []


def test_callbacks_are_short_and_leave_out_the_dialog(qtbot, panel):
    panel.set_counts({3: 9})
    panel.pick(3)
    panel.dialogs.confirm.side_effect = lambda _question: qtbot.wait(200) or True
    with record_callbacks() as times:
        qtbot.mouseClick(panel.buttons.delete_button, LEFT)
        for _ in range(20):
            panel.table.add()
    assert any(t.name.endswith("_delete") for t in times)
    assert max(t.seconds for t in times) < 0.1


class TestRealDialogs:
    """What Qt itself shows, driven from inside its event loop."""

    def test_confirm(self, qtbot, panel):
        dialogs = ClassDialogs(panel)

        def answer():
            box = QApplication.activeModalWidget()
            qtbot.keyClick(box, Qt.Key.Key_Y, Qt.KeyboardModifier.AltModifier)

        QTimer.singleShot(100, answer)
        assert dialogs.confirm("Delete?") is True

    def test_confirm_defaults_to_no(self, qtbot, panel):
        dialogs = ClassDialogs(panel)
        QTimer.singleShot(
            100,
            lambda: qtbot.keyClick(QApplication.activeModalWidget(), Qt.Key.Key_Return),
        )
        assert dialogs.confirm("Delete?") is False

    def test_save_adds_the_suffix(self, qtbot, panel, tmp_path):
        def save():
            window = QApplication.activeModalWidget()
            window.setDirectory(str(tmp_path))
            line = window.findChild(QLineEdit, "fileNameEdit")
            line.setText("mine")
            qtbot.keyClick(line, Qt.Key.Key_Return)

        QTimer.singleShot(200, save)
        chosen = ClassDialogs(panel).save_file("Save", "CSV (*.csv)", "classes.csv")
        assert chosen == tmp_path / "mine.csv"
