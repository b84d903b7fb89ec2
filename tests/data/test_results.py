"""Results of tiles come together whole, alike for any order, and open everywhere."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_alibi_seg._base import (
    OutputError,
    PixelSize,
    SettingsError,
    StoreError,
    TileResult,
    Window,
)
from napari_alibi_seg.data import (
    RESULT_KINDS,
    ResultStore,
    open_image,
    open_levels,
    pixel_tiles,
    read_labels,
)
from napari_alibi_seg.data._ome_zarr import KindImage
from napari_alibi_seg.data._tiff_pyramid import Pyramid

IDS = [2, 5, 9]
IDENTITY = {"image": "abc", "classifier": "123"}
SIZE = PixelSize(0.05, 0.1, "um")
LOOKS = {
    "pixel_size": SIZE,
    "class_names": {2: "matrix", 5: 'pore "<µ>"', 9: "crack"},
    "class_colours": {2: "#1f77b4", 9: "#FF0010"},
}


def result_of(shape, seed=0):
    """A whole result, of which tiles are cut."""
    rng = np.random.default_rng(seed)
    proba = rng.random((len(IDS), *shape), np.float32)
    labels = np.array(IDS, np.uint8)[proba.argmax(0)]
    return {"labels": labels, "probabilities": proba, "uncertainty": proba.min(0)}


def cut(whole, window, index=0, total=1):
    labels, proba, uncertainty = (whole[k][(..., *window.slices)] for k in RESULT_KINDS)
    return TileResult(index, total, window, labels, proba, uncertainty)


def make(path, shape, *, kinds=RESULT_KINDS, tile_px=32, **options):
    return ResultStore(
        path, IDENTITY, shape, IDS, kinds=kinds, tile_px=tile_px, **LOOKS, **options
    )


def fill(store, whole, order=None):
    for i in range(len(store.tiles)) if order is None else order:
        store.write(i, cut(whole, store.tiles[i]))
    return store


def hashes(path):
    """Name and content of every file of an output."""
    files = (
        [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    )
    return {
        str(f.relative_to(path)): hashlib.sha256(f.read_bytes()).hexdigest()
        for f in files
    }


def outputs_of(store, folder):
    """Write everything a store can give; return the bytes of it."""
    folder.mkdir()
    for kind in RESULT_KINDS:
        store.export_tiff(kind, folder / f"{kind}.tif")
    store.move_to({k: folder / f"{k}.ome.zarr" for k in RESULT_KINDS})
    return {p.name: hashes(p) for p in sorted(folder.iterdir())}


# ------------------------------------------------------------------------------- tiles


@settings(
    deadline=None,
    max_examples=8,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    shape=st.tuples(st.integers(1, 80), st.integers(1, 70)),
    seed=st.integers(0, 99),
    cut_at=st.floats(0, 1),
)
def test_any_order_with_a_break_gives_what_was_written(
    tmp_path_factory, shape, seed, cut_at
):
    folder = tmp_path_factory.mktemp("r")
    whole = result_of(shape, seed)
    store = make(folder / "a.zarr", shape)
    order = np.random.default_rng(seed).permutation(len(store.tiles)).tolist()
    n = int(cut_at * len(order))
    fill(store, whole, order[:n])
    again = make(folder / "a.zarr", shape)
    assert again.missing() == sorted(order[n:])
    fill(again, whole, again.missing())
    assert again.missing() == []
    for kind in RESULT_KINDS:
        again.export_tiff(kind, folder / f"{kind}.tif")
    again.move_to({k: folder / f"{k}.ome.zarr" for k in RESULT_KINDS})
    assert not (folder / "a.zarr").exists()
    for kind in RESULT_KINDS:
        expected = np.moveaxis(np.atleast_3d(whole[kind].T), (0, 1), (1, 0))
        for suffix in ("tif", "ome.zarr"):
            source = open_image(folder / f"{kind}.{suffix}")
            got = source.read(source.window)
            assert got.dtype == whole[kind].dtype
            assert np.array_equal(got, expected)


def test_windows_are_read_across_tiles(tmp_path):
    whole = result_of((100, 70))
    store = fill(make(tmp_path / "a.zarr", (100, 70)), whole)
    window = Window(30, 66, 5, 70)
    for kind in RESULT_KINDS:
        expected = whole[kind][(..., *window.slices)]
        assert np.array_equal(store.read(kind, window), expected)


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4"])
def test_counts_name_every_class(tmp_path, dtype):
    whole = result_of((40, 40))
    whole["labels"] = np.full((40, 40), 5, dtype)
    whole["labels"][:, 39] = 9
    store = make(tmp_path / "a.zarr", (40, 40), label_dtype=dtype)
    fill(store, whole)
    assert store.label_counts() == {2: 0, 5: 1560, 9: 40}


def test_a_class_that_is_nowhere_counts_as_written(tmp_path):
    shape = (40, 40)
    whole = {k: np.zeros_like(v) for k, v in result_of(shape).items()}
    fill(make(tmp_path / "a.zarr", shape), whole)
    store = make(tmp_path / "a.zarr", shape)
    assert store.missing() == []
    assert not store.read("probabilities", Window(0, 40, 0, 40)).any()


def test_a_tile_is_missing_while_one_kind_is(tmp_path):
    store = fill(make(tmp_path / "a.zarr", (40, 40)), result_of((40, 40)))
    (store.path / "probabilities" / "0" / "c" / "1" / "1" / "0").unlink()
    assert make(tmp_path / "a.zarr", (40, 40)).missing() == [2]


def test_a_folder_keeps_stores_of_several_identities(tmp_path):
    one = ResultStore(tmp_path, IDENTITY, (40, 40), IDS)
    two = ResultStore(tmp_path, {**IDENTITY, "image": "other"}, (40, 40), IDS)
    assert one.path.parent == two.path.parent == tmp_path
    assert one.path != two.path
    assert ResultStore(tmp_path, IDENTITY, (40, 40), IDS).path == one.path


@pytest.mark.parametrize("n_ids", [(255, np.uint8), (256, np.uint16)], ids=str)
def test_labels_take_the_smallest_type_that_holds_them(tmp_path, n_ids):
    top, dtype = n_ids
    store = ResultStore(tmp_path / "a.zarr", IDENTITY, (9, 9), [1, top])
    assert store.label_dtype == dtype


# ------------------------------------------------------------------------------ levels


def slow_halve(array, is_labels):
    """The rule, pixel by pixel."""
    height, width = array.shape
    out = np.empty((-(-height // 2), -(-width // 2)), array.dtype)
    for y, x in np.ndindex(out.shape):
        part = array[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].ravel()
        if is_labels:
            found = part.tolist()
            out[y, x] = max(found, key=lambda v: (found.count(v), -found.index(v)))
        else:
            out[y, x] = part.mean(dtype=np.float64)
    return out


@pytest.mark.parametrize("shape", [(64, 96), (71, 33), (1, 130), (65, 64)], ids=str)
def test_levels_follow_the_rule_across_tiles(tmp_path, shape):
    whole = result_of(shape)
    store = fill(make(tmp_path / "a.zarr", shape), whole)
    store.move_to({k: tmp_path / f"{k}.ome.zarr" for k in RESULT_KINDS})
    for kind in RESULT_KINDS:
        levels = [s.read(s.window) for s in open_levels(tmp_path / f"{kind}.ome.zarr")]
        assert max(levels[-1].shape[:2]) <= 32 < max(levels[-2].shape[:2])
        for fine, coarse in pairwise(levels):
            for c in range(fine.shape[2]):
                expected = slow_halve(fine[..., c], kind == "labels")
                assert np.allclose(coarse[..., c], expected, rtol=1e-6)


def test_coarse_labels_hold_no_new_ids(tmp_path):
    whole = result_of((300, 300))
    store = fill(make(tmp_path / "a.zarr", (300, 300), kinds=["labels"]), whole)
    store.move_to({"labels": tmp_path / "l.ome.zarr"})
    for level in open_levels(tmp_path / "l.ome.zarr"):
        assert set(np.unique(level.read(level.window))) <= set(IDS)


def test_finishing_goes_on_where_it_was_killed(tmp_path, monkeypatch):
    shape = (200, 150)
    whole = result_of(shape)
    expected = outputs_of(fill(make(tmp_path / "a.zarr", shape), whole), tmp_path / "a")
    store = fill(make(tmp_path / "b.zarr", shape), whole)
    write, done = KindImage.write, []

    def dying(self, level, window, block, plane=0):
        if len(done) == 20:
            raise KeyboardInterrupt
        done.append(window)
        write(self, level, window, block, plane)

    with monkeypatch.context() as m:
        m.setattr(KindImage, "write", dying)
        with pytest.raises(KeyboardInterrupt):
            store.finish()
    made_before = (store.path / "labels" / "1" / "c" / "0" / "0").stat().st_mtime_ns
    again = make(tmp_path / "b.zarr", shape)
    again.finish()
    made = (store.path / "labels" / "1" / "c" / "0" / "0").stat().st_mtime_ns
    assert made == made_before
    assert outputs_of(again, tmp_path / "b") == expected


# ------------------------------------------------------------------- bytes and writers

WRITER = """
import sys
from pathlib import Path
from data.test_results import make, fill, result_of
import numpy as np
store = make(Path(sys.argv[1]), (320, 320))
whole = result_of((320, 320))
order = np.random.default_rng(int(sys.argv[2])).permutation(len(store.tiles)).tolist()
absent = set(store.missing())
for i in order:
    if i in absent:
        fill(store, whole, [i])
        print(i, flush=True)
"""


def start(path, seed):
    # tests are on the path of pytest; a new process needs to be told
    here = Path(__file__).resolve().parents[1]
    known = os.environ.get("PYTHONPATH", "")
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(seed)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": f"{here}{os.pathsep}{known}"},
    )


def test_killed_and_rival_writers_leave_the_same_bytes(tmp_path):
    shape = (320, 320)
    whole = result_of(shape)
    expected = outputs_of(fill(make(tmp_path / "a.zarr", shape), whole), tmp_path / "a")
    path = tmp_path / "b.zarr"
    killed = start(path, 1)
    for _ in range(np.random.default_rng().integers(1, 60)):
        assert killed.stdout.readline()
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert make(path, shape).missing(), "the writer ended before it could be killed"
    rivals = [start(path, seed) for seed in (2, 3)]
    for rival in rivals:
        rival.communicate(timeout=280)
        assert rival.returncode == 0
    store = make(path, shape)
    assert store.missing() == []
    # what a kill in the middle of a write leaves
    (store.path / "labels" / "0" / "c" / "0" / "0.abc.partial").write_bytes(b"x")
    assert outputs_of(store, tmp_path / "b") == expected


def test_two_may_create_at_once(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        stores = list(
            pool.map(lambda _: make(tmp_path / "a.zarr", (40, 40)), range(16))
        )
    fill(stores[3], result_of((40, 40)))
    assert all(s.missing() == [] for s in stores)
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]
    assert sorted(p.name for p in (tmp_path / "a.zarr").iterdir()) == [
        *sorted(RESULT_KINDS),
        "zarr.json",
    ]


def test_memory_does_not_grow_with_the_image(tmp_path):
    peaks = []
    for side in (384, 1024):
        store = make(tmp_path / f"{side}.zarr", (side, side), tile_px=128)
        tile = cut(result_of((128, 128)), Window(0, 128, 0, 128))
        tracemalloc.start()
        for i, window in enumerate(store.tiles):
            store.write(i, replace(tile, window=window))
        store.finish()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # the result grows by 15 MB
    assert peaks[1] < peaks[0] + 2**20


# ----------------------------------------------------------------------------- outputs


def test_ome_zarr_says_what_is_in_it(tmp_path):
    store = fill(make(tmp_path / "a.zarr", (100, 70)), result_of((100, 70)))
    store.move_to({k: tmp_path / f"{k}.ome.zarr" for k in RESULT_KINDS})
    labels = dict(zarr.open_group(tmp_path / "labels.ome.zarr", mode="r").attrs)["ome"]
    assert labels["version"] == "0.5"
    assert labels["image-label"]["colors"] == [
        {"label-value": 2, "rgba": [31, 119, 180, 255]},
        {"label-value": 5, "rgba": [128, 128, 128, 255]},
        {"label-value": 9, "rgba": [255, 0, 16, 255]},
    ]
    assert labels["image-label"]["properties"][1] == {
        "label-value": 5,
        "class": 'pore "<µ>"',
    }
    scales = labels["multiscales"][0]
    assert [a["name"] for a in scales["axes"]] == ["y", "x"]
    assert scales["axes"][1] == {"name": "x", "type": "space", "unit": "micrometer"}
    # level 1: the first pixel is the mean of pixels 0 and 1, centred half a pixel on
    assert scales["datasets"][1]["coordinateTransformations"] == [
        {"type": "scale", "scale": [0.1, 0.2]},
        {"type": "translation", "translation": [0.025, 0.05]},
    ]
    maps = dict(zarr.open_group(tmp_path / "probabilities.ome.zarr", mode="r").attrs)
    names = [c["label"] for c in maps["ome"]["omero"]["channels"]]
    assert names == ["matrix", 'pore "<µ>"', "crack"]
    array = zarr.open_array(tmp_path / "probabilities.ome.zarr" / "0", mode="r")
    assert array.metadata.dimension_names == ("c", "y", "x")


@pytest.mark.parametrize("suffix", ["tif", "ome.zarr"])
def test_outputs_come_back_as_they_went(tmp_path, suffix):
    whole = result_of((100, 70))
    store = fill(make(tmp_path / "a.zarr", (100, 70)), whole)
    paths = {k: tmp_path / f"{k}.{suffix}" for k in RESULT_KINDS}
    if suffix == "tif":
        for kind, path in paths.items():
            store.export_tiff(kind, path)
    else:
        store.move_to(paths)
    assert np.array_equal(read_labels(paths["labels"]), whole["labels"])
    for kind, path in paths.items():
        levels = open_levels(path)
        assert [s.shape for s in levels] == [(100, 70), (50, 35), (25, 18)]
        assert [s.pixel_size for s in levels] == [
            PixelSize(0.05, 0.1, "um"),
            PixelSize(0.1, 0.2, "um"),
            PixelSize(0.2, 0.4, "um"),
        ]
        assert levels[0].n_channels == (3 if kind == "probabilities" else 1)
    names = ("matrix", 'pore "<µ>"', "crack")
    assert open_image(paths["probabilities"]).channel_names == names


def test_tiff_is_tiled_deflated_and_pyramidal(tmp_path):
    store = fill(make(tmp_path / "a.zarr", (100, 70)), result_of((100, 70)))
    store.export_tiff("probabilities", tmp_path / "p.tif")
    with tifffile.TiffFile(tmp_path / "p.tif") as tif:
        assert tif.is_ome
        assert not tif.is_bigtiff
        assert not {"DateTime", "Software"} & {t.name for t in tif.pages[0].tags}
        assert [level.shape for level in tif.series[0].levels] == [
            (3, 100, 70),
            (3, 50, 35),
            (3, 25, 18),
        ]
        for page in tif.pages:
            assert page.tile == (32, 32)
            assert page.compression == 8
            assert len(page.subifds) == 2


def test_tiff_of_one_tile_needs_no_reader_of_tiles(tmp_path):
    store = fill(make(tmp_path / "a.zarr", (20, 30)), result_of((20, 30)))
    store.export_tiff("labels", tmp_path / "l.tif")
    with tifffile.TiffFile(tmp_path / "l.tif") as tif:
        assert not tif.pages[0].is_tiled
        assert tif.pages[0].subifds is None


@pytest.mark.parametrize(
    ("side", "n_names", "is_big"),
    [(20_000, 2, False), (20_000, 3, True), (60_000, None, True)],
)
def test_bigtiff_only_where_offsets_end(side, n_names, is_big):
    names = None if n_names is None else ["a"] * n_names
    pyramid = Pyramid("p", [(side, side)], np.dtype("f4"), names)
    assert pyramid.is_big == is_big


def test_unit_that_tiff_has_no_name_for_survives(tmp_path):
    store = ResultStore(
        tmp_path / "a.zarr", IDENTITY, (9, 9), IDS, pixel_size=PixelSize(1, 2, "ell")
    )
    fill(store, result_of((9, 9)))
    store.export_tiff("labels", tmp_path / "l.tif")
    assert open_image(tmp_path / "l.tif").pixel_size == PixelSize(1, 2, "ell")
    store.move_to({"labels": tmp_path / "l.ome.zarr"})
    assert open_image(tmp_path / "l.ome.zarr").pixel_size == PixelSize(1, 2, "ell")


def test_kinds_without_a_target_stay(tmp_path):
    whole = result_of((40, 40))
    store = fill(make(tmp_path / "a.zarr", (40, 40)), whole)
    store.move_to({"labels": tmp_path / "l.ome.zarr"})
    assert store.kinds == ("probabilities", "uncertainty")
    got = store.read("uncertainty", Window(0, 40, 0, 40))
    assert np.array_equal(got, whole["uncertainty"])
    store.move_to({k: tmp_path / f"{k}.ome.zarr" for k in store.kinds})
    assert not store.path.exists()


def test_outputs_replace_only_when_allowed(tmp_path):
    target = tmp_path / "l.ome.zarr"
    target.mkdir()
    (target / "mine.txt").write_text("x")
    whole = result_of((40, 40))
    store = fill(make(tmp_path / "a.zarr", (40, 40), kinds=["labels"]), whole)
    with pytest.raises(OutputError, match="a name that is free"):
        store.move_to({"labels": target})
    assert (target / "mine.txt").exists()
    store.move_to({"labels": target}, replace=True)
    assert np.array_equal(read_labels(target), whole["labels"])
    assert not (target / "mine.txt").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["l.ome.zarr"]


# ------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"identity": {"image": "x", "classifier": "123"}}, "`image` is 'abc'"),
        ({"shape": (41, 40)}, r"`shape` is \[40, 40\], expected \[41, 40\]"),
        ({"class_ids": [2, 5]}, r"`class_ids` is \[2, 5, 9\]"),
        ({"kinds": ["labels", "uncertainty"]}, "`kinds` is"),
        ({"tile_px": 64}, "`tile_px` is 32, expected 64"),
    ],
    ids=["image", "shape", "classes", "kinds", "tile"],
)
def test_a_store_of_something_else_is_refused(tmp_path, change, message):
    same = {
        "identity": IDENTITY,
        "shape": (40, 40),
        "class_ids": IDS,
        "kinds": ["labels"],
        "tile_px": 32,
    }
    ResultStore(tmp_path / "a.zarr", **same)
    ResultStore(tmp_path / "a.zarr", **same, class_names={2: "renamed"})
    with pytest.raises(StoreError, match=message):
        ResultStore(tmp_path / "a.zarr", **(same | change))


@pytest.mark.parametrize("content", ["empty", "array", "group", "tokens"])
def test_what_is_no_result_store_is_refused(tmp_path, content):
    path = tmp_path / "a.zarr"
    if content == "empty":
        path.mkdir()
    elif content == "array":
        zarr.create_array(path, shape=(4, 4), dtype="u1")
    else:
        own = {"alibi_seg": {"format": 1}} if content == "tokens" else {}
        zarr.open_group(path, mode="w", attributes=own)
    with pytest.raises(StoreError, match=r"is not a result store|not an unfinished"):
        make(path, (40, 40))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kinds": []}, "`kinds`"),
        ({"kinds": ["labels", "labels"]}, "`kinds`"),
        ({"kinds": ["label"]}, "`kinds`"),
        ({"class_ids": []}, "`class_ids`"),
        ({"class_ids": [3, 1]}, "`class_ids`"),
        ({"class_ids": [1, 300], "label_dtype": "u1"}, "`label_dtype`"),
        ({"label_dtype": "i4"}, "`label_dtype`"),
        ({"class_colours": {1: "red"}}, "class colour"),
        ({"tile_px": 100}, "`tile_px`"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense(tmp_path, options, message):
    with pytest.raises(SettingsError, match=message):
        ResultStore(
            tmp_path / "a.zarr",
            IDENTITY,
            (9, 9),
            **({"class_ids": [1, 2]} | options),
        )
    assert not (tmp_path / "a.zarr").exists()


def test_tiles_must_fit(tmp_path):
    store = make(tmp_path / "a.zarr", (64, 64))
    whole = result_of((64, 64))
    with pytest.raises(SettingsError, match="the result of tile 1"):
        store.write(1, cut(whole, store.tiles[0]))
    bad = TileResult(
        0,
        1,
        store.tiles[0],
        whole["labels"][:32, :32].astype(np.uint16),
        whole["probabilities"][:, :32, :32],
        whole["uncertainty"][:32, :32],
    )
    with pytest.raises(SettingsError, match=r"Expected labels .* uint8 .* uint16"):
        store.write(0, bad)
    assert store.missing() == [0, 1, 2, 3]


def test_unfinished_stores_give_no_output(tmp_path):
    store = make(tmp_path / "a.zarr", (64, 64))
    store.write(2, cut(result_of((64, 64)), store.tiles[2]))
    with pytest.raises(StoreError, match=r"all 4 tiles of labels .* 3 are missing"):
        store.export_tiff("labels", tmp_path / "l.tif")
    with pytest.raises(StoreError, match="3 are missing"):
        store.move_to({"labels": tmp_path / "l.ome.zarr"})
    with pytest.raises(StoreError, match="is missing"):
        store.read("labels", Window(0, 1, 0, 1))
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


def test_a_damaged_chunk_is_noticed(tmp_path):
    store = fill(make(tmp_path / "a.zarr", (64, 64)), result_of((64, 64)))
    chunk = store.path / "uncertainty" / "0" / "c" / "1" / "0"
    data = bytearray(chunk.read_bytes())
    data[-10] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(StoreError, match="is damaged"):
        store.export_tiff("uncertainty", tmp_path / "u.tif")
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]
    assert store.read("uncertainty", Window(0, 32, 0, 32)).shape == (32, 32)


def test_a_full_disk_says_so_and_keeps_what_is_there(tmp_path, monkeypatch):
    whole = result_of((64, 64))
    store = fill(make(tmp_path / "a.zarr", (64, 64)), whole, [0, 1])

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as m:
        m.setattr(KindImage, "write", full)
        with pytest.raises(OutputError, match=r"tile 2 .*No space left.* free"):
            store.write(2, cut(whole, store.tiles[2]))
    assert make(tmp_path / "a.zarr", (64, 64)).missing() == [2, 3]


def test_who_comes_late_leaves_nothing_behind(tmp_path):
    whole = result_of((40, 40))
    store, late = (make(tmp_path / "a.zarr", (40, 40), kinds=["labels"]) for _ in "ab")
    fill(store, whole).move_to({"labels": tmp_path / "l.ome.zarr"})
    with pytest.raises(StoreError, match="no longer there"):
        late.write(0, cut(whole, late.tiles[0]))
    assert [p.name for p in tmp_path.iterdir()] == ["l.ome.zarr"]


def test_names_that_are_no_tiff(tmp_path):
    store = fill(make(tmp_path / "a.zarr", (9, 9)), result_of((9, 9)))
    with pytest.raises(SettingsError, match=r"\.tif or \.tiff, got '\.png'"):
        store.export_tiff("labels", tmp_path / "l.png")
    with pytest.raises(SettingsError, match="Expected one of the kinds"):
        store.read("label", Window(0, 1, 0, 1))


def test_metadata_is_plain_json(tmp_path):
    store = fill(make(tmp_path / "a.zarr", (9, 9)), result_of((9, 9)))
    store.finish()
    text = (store.path / "labels" / "zarr.json").read_text()
    assert json.loads(text)["attributes"]["ome"]["multiscales"][0]["name"] == "labels"


def test_tiles_are_those_of_the_segmenter(tmp_path):
    store = ResultStore(tmp_path / "a.zarr", IDENTITY, (1300, 600), IDS)
    assert store.tiles == pixel_tiles((1300, 600))
