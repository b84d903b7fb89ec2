"""Stores keep tiles, survive kills, and refuse what is not theirs."""

from __future__ import annotations

import json

import numpy as np
import pytest

from napari_alibi_seg._base import OutputError, StoreError
from napari_alibi_seg.data import DiskStore, MemoryStore, TokenGrid, iter_bands

GRID = TokenGrid((200, 170), patch_px=14, tile_px=70, halo_tokens=1, density=2)
IDENTITY = {"image": "abc", "backbone": {"sha256": "1"}}


def fill(store, skip=()):
    rng = np.random.default_rng(0)
    whole = rng.normal(size=(*GRID.shape, store.n_channels)).astype(np.float32)
    d = GRID.density
    for tile in GRID.tiles:
        if tile.index not in skip:
            k = tile.keep
            store.write(tile, whole[k.y0 * d : k.y1 * d, k.x0 * d : k.x1 * d])
    return whole


def as_map(store):
    return np.concatenate([band for _, band in iter_bands(store)])


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_bands_put_the_tiles_together(kind, tmp_path):
    store = (
        MemoryStore(GRID, 5)
        if kind == "memory"
        else DiskStore(tmp_path, IDENTITY, GRID, 5)
    )
    whole = fill(store)
    assert store.missing() == []
    assert np.array_equal(as_map(store), whole.astype(np.float16))


def test_a_reopened_store_has_what_was_written_and_lacks_the_rest(tmp_path):
    fill(DiskStore(tmp_path, IDENTITY, GRID, 5), skip=(1, 4))
    again = DiskStore(tmp_path, IDENTITY, GRID, 5)
    assert again.missing() == [1, 4]
    with pytest.raises(StoreError, match=r"Tile 1 .* is missing"):
        again.read(GRID.tiles[1])


def test_all_zero_tokens_count_as_written(tmp_path):
    store = DiskStore(tmp_path, IDENTITY, GRID, 5)
    rows, cols = GRID.tiles[0].keep.shape
    store.write(GRID.tiles[0], np.zeros((rows * 2, cols * 2, 5)))
    assert 0 not in DiskStore(tmp_path, IDENTITY, GRID, 5).missing()


def test_values_beyond_half_precision_are_clipped_not_infinite():
    store = MemoryStore(GRID, 1)
    store.write(GRID.tiles[0], np.full((10, 10, 1), 1e9))
    assert store.read(GRID.tiles[0])[0, 0, 0] == 65504


def test_another_identity_gets_another_store_in_a_folder(tmp_path):
    one = DiskStore(tmp_path, IDENTITY, GRID, 5)
    two = DiskStore(tmp_path, {**IDENTITY, "image": "other"}, GRID, 5)
    assert one.path != two.path


def test_a_named_store_of_something_else_is_refused_with_both_values(tmp_path):
    path = tmp_path / "mine.zarr"
    DiskStore(path, IDENTITY, GRID, 5)
    with pytest.raises(StoreError, match=r"`backbone.sha256` is '1', expected '2'"):
        DiskStore(path, {**IDENTITY, "backbone": {"sha256": "2"}}, GRID, 5)


def test_a_flipped_bit_is_found(tmp_path):
    store = DiskStore(tmp_path, IDENTITY, GRID, 5)
    fill(store)
    chunk = store.path / "c/2/0/0/0"
    data = bytearray(chunk.read_bytes())
    data[100] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(StoreError, match=r"Tile 2 .* is damaged"):
        store.read(GRID.tiles[2])


@pytest.mark.parametrize("damage", ["foreign", "garbled", "newer"])
def test_folders_that_are_no_store_are_refused(damage, tmp_path):
    path = tmp_path / "x.zarr"
    if damage == "foreign":
        path.mkdir()
        (path / "notes.txt").write_text("mine")
        message = "not a feature store"
    else:
        DiskStore(path, IDENTITY, GRID, 5)
        meta = path / "zarr.json"
        if damage == "garbled":
            meta.write_text("{")
            message = "not a feature store, or is damaged"
        else:
            document = json.loads(meta.read_text())
            document["attributes"]["alibi_seg"]["format"] = 99
            meta.write_text(json.dumps(document))
            message = "store format 99"
    with pytest.raises(StoreError, match=message):
        DiskStore(path, IDENTITY, GRID, 5)


def test_a_full_disk_names_the_tile_and_keeps_the_others(tmp_path, monkeypatch):
    store = DiskStore(tmp_path, IDENTITY, GRID, 5)
    fill(store, skip=(3,))

    class Full:
        shape = store._array.shape

        def __setitem__(self, key, value):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "_array", Full())
    with pytest.raises(OutputError, match=r"tile 3 .*No space left.* are kept"):
        store.write(GRID.tiles[3], np.zeros((2, 2, 5)))
    assert DiskStore(tmp_path, IDENTITY, GRID, 5).missing() == [3]


def test_delete_removes_everything(tmp_path):
    store = DiskStore(tmp_path, IDENTITY, GRID, 5)
    store.delete()
    assert list(tmp_path.iterdir()) == []
