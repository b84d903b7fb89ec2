"""The table of classes: ids with gaps, distinct names, what deleting means, CSV."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_alibi_seg._base import SettingsError
from napari_alibi_seg._segmenter import ClassInfo, class_colour
from napari_alibi_seg._workspace import (
    ClassEntry,
    ClassTable,
    parse_classes,
    read_classes,
    write_classes,
)


def _table(*ids: int) -> ClassTable:
    table = ClassTable()
    for i in ids:
        table.add(class_id=i)
    return table


def test_ids_with_gaps_stay_and_the_smallest_free_one_is_next() -> None:
    table = _table(1, 3, 7)
    assert table.ids == (1, 3, 7)
    assert [table.add().id for _ in range(3)] == [2, 4, 5]
    assert table.ids == (1, 3, 7, 2, 4, 5)


def test_default_colours_are_those_of_the_segmenter_and_distinct() -> None:
    table = _table(1, 3, 7)
    assert [e.colour for e in table] == [class_colour(i) for i in (1, 3, 7)]
    table.recolour(1, class_colour(2).upper())
    assert table[1].colour == class_colour(2)
    # the colour of id 2 is taken, so the next free one of the list
    assert table.add().colour == class_colour(1)


def test_default_name_that_is_taken_gets_a_number() -> None:
    table = ClassTable()
    table.add("class 2")
    assert table.add().name == "class 2 (2)"


def test_delete_leaves_no_ghost() -> None:
    table = _table(1, 3, 7)
    table.rename(3, "pore")
    table.set_weight(3, 4)
    assert table.delete(3) == {3: 0}
    assert 3 not in table
    assert 3 not in table.names
    assert 3 not in table.weights
    assert 3 not in table.to_infos()
    again = table.add(class_id=3)
    assert (again.name, again.weight) == ("class 3", 1.0)


def test_merge_keeps_the_target() -> None:
    table = _table(1, 3, 7)
    table.rename(7, "grain")
    assert table.merge(1, 7) == {1: 7}
    assert table.names == {3: "class 3", 7: "grain"}


def test_ensure_adds_what_is_painted_and_nothing_else() -> None:
    table = _table(3)
    assert table.ensure([0, 7, 3, 1, 7]) == (1, 7)
    assert table.ids == (3, 1, 7)
    assert table.ensure([0, 1]) == ()


def test_adopt_takes_names_and_keeps_weights_and_strangers() -> None:
    table = ClassTable()
    table.add("pore", weight=2)
    table.add("matrix")
    table.add("crack", class_id=7)
    infos = {
        1: ClassInfo("matrix", "#112233"),
        2: ClassInfo("pore", "#445566"),
        3: ClassInfo("crack", "#778899"),
    }
    table.adopt(infos)
    assert table.names == {1: "matrix", 2: "pore", 7: "crack (2)", 3: "crack"}
    assert table[1] == ClassEntry(id=1, name="matrix", colour="#112233", weight=2)
    assert {i: table.to_infos()[i] for i in infos} == infos
    table.adopt(infos, {3: 4.0})
    assert table.weights == {1: 1.0, 2: 1.0, 7: 1.0, 3: 4.0}


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        pytest.param(lambda t: t.add(class_id=3), "free class id, got 3", id="id"),
        pytest.param(lambda t: t.add(class_id=0), "`id`", id="zero"),
        pytest.param(lambda t: t.add(class_id=65536), "`id`", id="too-large"),
        pytest.param(lambda t: t.add("class 3"), "'class 3', which is class 3", id="n"),
        pytest.param(lambda t: t.add("  "), "1 to 200 characters", id="empty"),
        pytest.param(lambda t: t.rename(1, "class 3"), "no class has", id="rename"),
        pytest.param(lambda t: t.rename(2, "x"), r"one of \[1, 3, 7\], got 2", id="no"),
        pytest.param(lambda t: t.recolour(1, "red"), "`colour`", id="colour"),
        pytest.param(lambda t: t.set_weight(1, 0), "`weight`", id="weight"),
        pytest.param(lambda t: t.set_weight(1, float("nan")), "`weight`", id="nan"),
        pytest.param(lambda t: t.merge(1, 1), "1 twice", id="merge"),
        pytest.param(lambda t: t.delete(2), "got 2", id="delete"),
        pytest.param(lambda t: t.ensure([-1]), "1 to 65535", id="negative"),
        pytest.param(
            lambda t: t.replace([t[1], t[1]]), "each class id once", id="twice"
        ),
    ],
)
def test_what_is_wrong_is_refused_and_changes_nothing(operation, message) -> None:
    table = _table(1, 3, 7)
    before, heard = table.entries, Mock()
    table.changed.connect(heard)
    with pytest.raises(SettingsError, match=message):
        operation(table)
    assert table.entries == before
    heard.assert_not_called()


@pytest.mark.parametrize(
    ("operation", "times"),
    [
        pytest.param(lambda t: t.add(), 1, id="add"),
        pytest.param(lambda t: t.rename(1, "x"), 1, id="rename"),
        pytest.param(lambda t: t.rename(1, "class 1"), 0, id="same-name"),
        pytest.param(lambda t: t.ensure([4, 5, 6]), 1, id="ensure"),
        pytest.param(lambda t: t.ensure([1]), 0, id="ensure-nothing"),
        pytest.param(lambda t: t.merge(1, 3), 1, id="merge"),
        pytest.param(lambda t: t.delete(1), 1, id="delete"),
        pytest.param(lambda t: t.adopt(t.to_infos()), 0, id="adopt-same"),
        pytest.param(lambda t: t.replace([]), 1, id="replace"),
    ],
)
def test_each_change_is_told_once(operation, times: int) -> None:
    table = _table(1, 3, 7)
    heard = Mock()
    table.changed.connect(heard)
    operation(table)
    assert heard.call_count == times


def test_csv_round_trip(tmp_path) -> None:
    table = _table(7, 1, 3)
    table.rename(1, 'α, "quoted"; phase')
    table.set_weight(3, 0.1)
    write_classes(tmp_path / "classes.csv", table)
    assert read_classes(tmp_path / "classes.csv") == table.entries


_NAMES = st.text(min_size=1, max_size=20).filter(
    lambda s: s.strip() and s.isprintable()
)


@given(st.dictionaries(st.integers(1, 65535), _NAMES, min_size=1, max_size=6))
def test_csv_keeps_any_name(tmp_path_factory, names: dict[int, str]) -> None:
    table = ClassTable()
    for i, name in names.items():
        if name.strip() not in table.names.values():
            table.add(name, class_id=i)
    path = tmp_path_factory.mktemp("csv") / "classes.csv"
    write_classes(path, table)
    assert read_classes(path) == table.entries


def test_csv_of_a_spreadsheet(tmp_path) -> None:
    path = tmp_path / "classes.csv"
    path.write_bytes("\ufeffName;ID;Color\r\npore;3;#AABBCC\r\n;;\r\n".encode())
    assert read_classes(path) == (ClassEntry(id=3, name="pore", colour="#aabbcc"),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "line 1: expected the columns", id="empty"),
        pytest.param("id,name\n", "a line for each class", id="no-lines"),
        pytest.param("id,colour\n1,#000000\n", "line 1: expected", id="no-name"),
        pytest.param("id,name,hue\n1,a,3\n", "line 1: expected", id="unknown-column"),
        pytest.param("id,id,name\n1,1,a\n", "line 1: expected", id="column-twice"),
        pytest.param("id,name\n1,a\n2\n", "line 3: expected 2 values", id="short"),
        pytest.param("id,name\n1,a\nx,b\n", "line 3: .*`id`.*'x'", id="id"),
        pytest.param("id,name\n0,a\n", "line 2: .*`id`", id="zero"),
        pytest.param("id,name\n1,\n", "line 2: .*`name`", id="name"),
        pytest.param("id,name,colour\n1,a,red\n", "line 2: .*`colour`", id="colour"),
        pytest.param("id,name,weight\n1,a,0\n", "line 2: .*`weight`", id="weight"),
        pytest.param(
            "id,name\n1,a\n\n1,b\n", "line 4: .*got 1 again .*line 2", id="id-twice"
        ),
        pytest.param(
            "id,name\n1,a\n2, a\n", "line 3: .*got 'a' again .*line 2", id="name-twice"
        ),
        pytest.param('id,name\n1,"a\n', "line 2: expected CSV", id="quotes"),
    ],
)
def test_csv_says_which_line_is_wrong(text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse_classes(text)


def test_csv_that_is_no_text(tmp_path) -> None:
    (tmp_path / "a.csv").write_bytes("id,name\n1,größe\n".encode("latin-1"))
    with pytest.raises(SettingsError, match="UTF-8"):
        read_classes(tmp_path / "a.csv")
    with pytest.raises(SettingsError, match="No such file"):
        read_classes(tmp_path / "b.csv")
