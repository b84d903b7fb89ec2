"""The questions about files that panels ask."""

from __future__ import annotations

import pytest

pytest.importorskip("napari")
from qtpy.QtWidgets import QFileDialog, QWidget
from widgets.hands import shown

from napari_alibi_seg._widgets._dialogs import ask_save

pytestmark = pytest.mark.gui


class TestSave:
    @pytest.mark.parametrize(
        ("typed", "expected"),
        [("mine", "mine.tif"), ("mine.tiff", "mine.tiff"), (None, "a_labels.tif")],
        ids=["suffix added", "suffix kept", "as suggested"],
    )
    def test_suffix(self, qtbot, monkeypatch, tmp_path, typed, expected):
        def accept(dialog):
            if typed:
                dialog.selectFile(str(tmp_path / typed))
            return 1

        monkeypatch.setattr(QFileDialog, "exec", accept)
        parent = shown(qtbot, QWidget())
        got = ask_save(parent, "Save", str(tmp_path / "a_labels.tif"), "T (*.tif)")
        assert got == tmp_path / expected

    def test_cancelled(self, qtbot, monkeypatch):
        monkeypatch.setattr(QFileDialog, "exec", lambda dialog: 0)
        parent = shown(qtbot, QWidget())
        assert ask_save(parent, "Save", "a.csv", "Tables (*.csv)") is None
