"""Where crops come from: files of every kind, shares, areas, and what is left out."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tifffile
from distill.toys import data_of, pictures

from napari_alibi_seg._base import ImageFileError, SettingsError, validated
from napari_alibi_seg.data import KINDS, write_image
from napari_alibi_seg.distill import DataSettings, Pool, open_pool
from napari_alibi_seg.distill import _pool as module
from napari_alibi_seg.distill._pool import _Kept, _Picture, generate


def _noise(shape, dtype=np.uint8, seed=0):
    top = np.iinfo(dtype).max
    rng = np.random.default_rng(seed)
    return rng.integers(0, top, shape, dtype=dtype, endpoint=True)


def _windows(pool, n=8, side=6.0):
    return [pool.window(np.random.default_rng(i), side) for i in range(n)]


def _one(folder, **changes):
    """The whole of the only picture of a folder."""
    pool = open_pool(data_of(folder, **changes))
    assert len(pool) == 1
    return pool.window(np.random.default_rng(0), 1e6)


# ------------------------------------------------------------------------------- files


def test_folders_are_searched_to_the_bottom(tmp_path):
    pictures(tmp_path / "a" / "deep" / "er", [(20, 30)])
    pictures(tmp_path / "a", [(10, 10)])
    (tmp_path / "a" / "notes.txt").write_text("no image")
    pool = open_pool(data_of(tmp_path / "a"))
    assert len(pool) == 2
    assert pool.n_pixels == 700


def test_a_file_by_itself_is_a_folder_of_one(tmp_path):
    folder = pictures(tmp_path)
    assert len(open_pool(data_of(folder / "1.png"))) == 1


def test_a_stack_gives_its_planes(tmp_path):
    tifffile.imwrite(tmp_path / "s.tif", _noise((5, 12, 12)), metadata={"axes": "ZYX"})
    pool = open_pool(data_of(tmp_path))
    assert len(pool) == 5
    seen = {w.tobytes() for w in _windows(pool, 60, 12.0)}
    assert len(seen) == 5


def test_a_deep_stack_gives_64_planes_evenly(tmp_path, monkeypatch):
    opened = []
    own = module.open_image

    def spy(path, **options):
        opened.append(options.get("plane"))
        return own(path, **options)

    monkeypatch.setattr(module, "open_image", spy)
    tifffile.imwrite(tmp_path / "s.tif", _noise((90, 8, 8)), metadata={"axes": "ZYX"})
    assert len(open_pool(data_of(tmp_path))) == 64
    planes = opened[-64:]
    assert (planes[0], planes[-1]) == (0, 89)
    assert set(np.diff(planes)) == {1, 2}


def test_what_cannot_be_read_is_left_out_and_said(tmp_path, caplog):
    pictures(tmp_path, [(20, 30)])
    (tmp_path / "broken.png").write_bytes(b"\x89PNG no picture")
    (tmp_path / "empty.tif").write_bytes(b"")
    with caplog.at_level(logging.WARNING, "napari_alibi_seg"):
        pool = open_pool(data_of(tmp_path))
    assert len(pool) == 1
    said = [r.getMessage() for r in caplog.records if "left out" in r.getMessage()]
    assert [Path(text.split(" is left out: ")[0]).name for text in said] == [
        *("broken.png", "empty.tif")
    ]
    assert all(len(text.split(" is left out: ")[1]) > 10 for text in said)


@pytest.mark.parametrize("content", [None, "notes.txt", "broken.png"])
def test_nothing_to_read_is_an_error(tmp_path, content):
    folder = tmp_path / "here"
    folder.mkdir()
    if content is not None:
        (folder / content).write_bytes(b"nothing")
    with pytest.raises(SettingsError, match=r"'.*here' holds no image .*\.tiff"):
        open_pool(data_of(folder))


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(SettingsError, match=r"no folder of images '.*nowhere'"):
        open_pool(data_of(tmp_path / "nowhere"))


def test_files_of_one_name_in_two_folders_keep_their_pixels(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    for folder, seed in ((a, 0), (b, 1)):
        folder.mkdir()
        write_image(folder / "same.png", _noise((12, 12), seed=seed), axes="YX")
    data = validated(DataSettings, {"folders": [str(a), str(b)]})
    found = {w.tobytes() for w in _windows(open_pool(data), 30, 12.0)}
    assert found == {_one(a).tobytes(), _one(b).tobytes()}
    assert len(found) == 2


# --------------------------------------------------------------------------- the pixels


def test_sixteen_bits_become_grey_in_0_to_1(tmp_path):
    image = (_noise((30, 30), np.uint16) // 16) + 1000
    write_image(tmp_path / "a.tif", image, axes="YX")
    block = _one(tmp_path)
    assert block.shape == (30, 30, 3)
    assert block.dtype == np.float32
    assert np.array_equal(block[..., 0], block[..., 2])
    assert block.min() == 0
    assert block.max() == 1
    assert np.corrcoef(block[..., 0].ravel(), image.ravel())[0, 1] > 0.99


def test_colours_stay(tmp_path):
    image = _noise((30, 30, 3)) // 2
    image[..., 0] += 128
    write_image(tmp_path / "a.png", image, axes="YXS")
    block = _one(tmp_path)
    assert block.shape == (30, 30, 3)
    assert 0 <= block.min() <= block.max() <= 1
    for i in range(3):
        own = np.corrcoef(block[..., i].ravel(), image[..., i].ravel())[0, 1]
        assert own > 0.99
    assert block[..., 0].mean() > block[..., 1].mean() + 0.2


def test_two_channels_leave_the_third_empty(tmp_path):
    image = _noise((2, 20, 20))
    tifffile.imwrite(tmp_path / "a.tif", image, metadata={"axes": "CYX"})
    block = _one(tmp_path)
    assert block.shape == (20, 20, 3)
    assert block[..., 2].max() == 0
    for i in range(2):
        assert np.corrcoef(block[..., i].ravel(), image[i].ravel())[0, 1] > 0.98


def test_large_pictures_are_read_by_window(tmp_path, monkeypatch):
    folder = pictures(tmp_path / "a", [(60, 50)])
    whole = _windows(open_pool(data_of(folder)), 6, 17.0)
    monkeypatch.setattr(module, "_WHOLE_PIXELS", 100)
    monkeypatch.setattr(_Kept, "get", lambda *_: pytest.fail("kept as a whole"))
    parts = _windows(open_pool(data_of(folder)), 6, 17.0)
    assert all(np.array_equal(a, b) for a, b in zip(whole, parts, strict=True))


def test_kept_pictures_are_bounded_in_bytes():
    kept, made = _Kept(max_bytes=250), Counter()

    def get(key):
        def make():
            made[key] += 1
            return np.zeros(100, np.uint8)

        return kept.get(key, make)

    for key in "ababcab":  # c pushes a out, then a pushes b out, then b pushes c out
        get(key)
    assert made == {"a": 2, "b": 2, "c": 1}
    huge = kept.get("huge", lambda: np.zeros(10_000, np.uint8))
    assert kept.get("huge", lambda: None) is huge  # one is kept, whatever its size


# ----------------------------------------------------------------------- what is drawn


def _fake(name, shape, log):
    def read(window):
        log.append((name, window))
        h, w = window.y1 - window.y0, window.x1 - window.x0
        return np.full((h, w, 3), 51, np.uint8)

    return _Picture(name, shape, read)


def test_pictures_are_drawn_by_area_and_groups_by_share():
    log = []
    group = [_fake("small", (10, 10), log), _fake("large", (30, 20), log)]
    pool = Pool([(1.0, group), (3.0, [_fake("other", (5, 5), log)])])
    rng = np.random.default_rng(0)
    n = 8000
    for _ in range(n):
        pool.window(rng, 4)
    counts = Counter(name for name, _ in log)
    expected = {"small": 1 / 4 / 7, "large": 6 / 4 / 7, "other": 3 / 4}
    for name, share in expected.items():
        assert abs(counts[name] / n - share) < 4 * (share * (1 - share) / n) ** 0.5


def test_groups_of_share_0_do_not_count():
    log = []
    pool = Pool([(0.0, [_fake("a", (5, 5), log)]), (1.0, [_fake("b", (5, 5), log)])])
    _windows(pool)
    assert {name for name, _ in log} == {"b"}
    assert (len(pool), pool.n_pixels) == (1, 25)


def test_windows_reach_every_edge():
    log = []
    pool = Pool([(1.0, [_fake("a", (7, 9), log)])])
    _windows(pool, 200, 5.4)
    tops = {w.y0 for _, w in log}
    lefts = {w.x0 for _, w in log}
    assert tops == {0, 1, 2}
    assert lefts == {0, 1, 2, 3, 4}
    assert {(w.y1 - w.y0, w.x1 - w.x0) for _, w in log} == {(5, 5)}
    log.clear()
    pool.window(np.random.default_rng(1), 7)
    assert log[0][1].y0 == 0
    assert log[0][1].y1 == 7


@pytest.mark.parametrize(("side", "expected"), [(100, 6), (6.4, 6), (0.3, 2)])
def test_a_small_picture_gives_what_it_has(side, expected):
    pool = Pool([(1.0, [_fake("a", (6, 20), [])])])
    block = pool.window(np.random.default_rng(0), side)
    assert block.shape == (expected, expected, 3)
    assert block[0, 0, 0] == np.float32(0.2)


def test_a_window_is_a_function_of_its_generator(tmp_path):
    folder = pictures(tmp_path)
    mixed = {"synthetic_share": 1.0, "packaged_share": 1.0}
    a, b = (open_pool(data_of(folder, **mixed)) for _ in range(2))
    _windows(a, 5, 20.0)  # what was drawn before does not matter
    pairs = zip(_windows(a, 12, 20.0), _windows(b, 12, 20.0), strict=True)
    assert all(np.array_equal(x, y) for x, y in pairs)


# ----------------------------------------------------------------- generated, packaged


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("zoom", [0.55, 1.8])
def test_generated_micrographs_are_large_enough(kind, zoom):
    made = generate(kind, 128, 3, zoom)
    assert min(made.image.shape) >= 128
    assert made.image.shape == made.mask.shape
    assert made.mask.min() == 1
    again = generate(kind, 128, 3, zoom)
    assert np.array_equal(again.image, made.image)


def test_a_pool_of_generated_pictures_has_no_end():
    pool = open_pool(DataSettings(folder_share=0, synthetic_share=1))
    assert (len(pool), pool.n_pixels) == (0, 0)
    blocks = _windows(pool, 4, 64.0)
    assert {b.shape for b in blocks} == {(64, 64, 3)}
    assert len({b.tobytes() for b in blocks}) == 4
    assert all(np.array_equal(b[..., 0], b[..., 1]) for b in blocks)


def test_packaged_pictures():
    pool = open_pool(DataSettings(folder_share=0, packaged_share=1))
    assert len(pool) > 12
    assert pool.n_pixels > 4e6
    assert _windows(pool, 1, 32.0)[0].shape == (32, 32, 3)


def test_packaged_pictures_need_scikit_image(monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"pip install \"napari-alibi-seg\[distill"):
        open_pool(DataSettings(folder_share=0, packaged_share=1))


# ------------------------------------------------------------------------- fingerprint


def test_the_fingerprint_is_of_names_and_sizes_not_of_places(tmp_path):
    def of(folder, **changes):
        return open_pool(data_of(folder, **changes)).fingerprint

    a, b = (pictures(tmp_path / name) for name in "ab")
    first = of(a)
    assert of(b) == first
    assert of(a, synthetic_share=1.0) != first
    write_image(b / "more.png", _noise((9, 9)), axes="YX")
    assert of(b) != first
    (b / "more.png").unlink()
    assert of(b) == first
    write_image(b / "1.png", _noise((64, 49)), axes="YX")
    assert of(b) != first


# --------------------------------------------------------------- damage found late


def _broken(name):
    def read(window):
        raise ImageFileError(f"{name} is cut off")

    return _Picture(name, (8, 8), read)


def _grey(name, value):
    pixels = np.full((8, 8, 3), value, np.uint8)
    return _Picture(name, (8, 8), lambda w: pixels[w.y0 : w.y1, w.x0 : w.x1])


def test_a_picture_whose_pixels_are_damaged_gives_way_to_another(caplog):
    pool = Pool([(1.0, [_broken("half.tif"), _grey("whole.tif", 51)])])
    windows = _windows(pool, 6)
    assert all((w == np.float32(0.2)).all() for w in windows)
    assert any("half.tif is left out" in r.getMessage() for r in caplog.records)
    again = _windows(pool, 6)
    assert [w.tobytes() for w in windows] == [w.tobytes() for w in again]


def test_nothing_but_damage_is_an_error():
    with pytest.raises(ImageFileError, match=r"20 pictures .* 'half.tif'"):
        _windows(Pool([(1.0, [_broken("half.tif")])]), 1)
