"""Files that are written aside and renamed have the mode that `open` would give."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest

from napari_alibi_seg import Segmenter
from napari_alibi_seg._workspace import ImageIdentity, Project
from napari_alibi_seg.data import DiskStore, TokenGrid, write_image, write_text_atomic
from napari_alibi_seg.features import FileMetadata, save_backbone

pytestmark = pytest.mark.skipif(
    os.name != "posix", reason="only POSIX has a umask and modes"
)
IMAGE = np.indices((24, 24)).sum(0).astype(np.uint8)
PAINTED = np.zeros((24, 24), np.uint8)
PAINTED[2, :8], PAINTED[20, :8] = 1, 2


def _text(folder: Path) -> None:
    write_text_atomic(folder / "a.csv", "file,pixels\n")


def _image(folder: Path) -> None:
    for suffix in ("png", "tif"):
        write_image(folder / f"a.{suffix}", IMAGE, axes="YX")


def _store(folder: Path) -> None:
    grid = TokenGrid((28, 28), patch_px=14, tile_px=28)
    store = DiskStore(folder, {"image": "a"}, grid, 3)
    store.write(grid.tiles[0], np.ones((2, 2, 3)))


def _backbone(folder: Path) -> None:
    import torch

    tensors = {"norm.weight": torch.ones(3)}
    save_backbone(folder / "a.safetensors", tensors, FileMetadata(name="a"))


def _classifier(folder: Path) -> None:
    Segmenter().fit(IMAGE, PAINTED).save(folder / "a.alibiseg")


def _project(folder: Path) -> None:
    path = folder / "a.tif"
    with Project.create(ImageIdentity("a.tif", path, (24, 24), "c0ffee")) as project:
        project.save_scribbles(None, PAINTED)


@pytest.mark.parametrize("mask", [0o022, 0o007, 0o077], ids=oct)
@pytest.mark.parametrize(
    "write", [_text, _image, _store, _backbone, _classifier, _project]
)
def test_modes_respect_the_umask(write, mask: int, tmp_path: Path) -> None:
    folder = tmp_path / "written"
    before = os.umask(mask)
    try:
        folder.mkdir()
        write(folder)
    finally:
        os.umask(before)
    paths = [folder, *folder.rglob("*")]
    found = {
        str(p.relative_to(tmp_path)): oct(stat.S_IMODE(p.stat().st_mode)) for p in paths
    }
    assert any(p.is_file() for p in paths)
    assert found == {
        str(p.relative_to(tmp_path)): oct((0o777 if p.is_dir() else 0o666) & ~mask)
        for p in paths
    }
