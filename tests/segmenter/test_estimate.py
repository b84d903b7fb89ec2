"""Estimates follow from measured tiles; too small a disk is refused at once."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from segmenter.samples import CountingBackbone, sample

from napari_alibi_seg import Segmenter
from napari_alibi_seg._base import (
    ClassifierSettings,
    FeatureSettings,
    OutputError,
    SettingsError,
)
from napari_alibi_seg._segmenter import Estimate, check_room, estimate

PLAIN = Estimate(100_000_000, 400, 0.1, 380, 0.5, 230.0, 400_000_000, 10**7, 10**9)


class SlowBackbone(CountingBackbone):
    """Takes a known time a tile."""

    def patch_features(self, images):
        time.sleep(0.05 * len(images))
        return super().patch_features(images)


def made(backbone=None, **more):
    features = (
        None if backbone is None else FeatureSettings(kind="vit", scale=1.0, tile_px=98)
    )
    return Segmenter(
        backbone,
        features=features,
        classifier=ClassifierSettings(n_trees=5),
        workers=1,
        **more,
    )


def test_features_take_what_the_measured_tiles_took(tmp_path):
    image = sample((300, 700))[0]
    segmenter = made(SlowBackbone(), store=tmp_path)
    embedding = segmenter.prepare(image)
    n_tiles = len(embedding.grid.tiles)
    found = estimate(segmenter, embedding, kinds=())
    assert found.pixels == 210_000
    assert (found.tiles, found.output_bytes, found.token_tiles) == (0, 0, n_tiles)
    # others use this machine too, so only the lower bound is sharp
    assert 0.05 <= found.seconds_per_token_tile < 0.5
    assert found.seconds == pytest.approx(n_tiles * found.seconds_per_token_tile)
    written = sum(f.stat().st_size for f in tmp_path.rglob("*") if f.is_file())
    n_written = n_tiles - len(embedding.store.missing())
    assert n_written == 2
    per_tile = found.store_bytes / n_tiles
    assert per_tile * n_written <= written < per_tile * n_written + 4096
    assert found.store_folder == tmp_path
    # the measured tiles are the first of the real ones
    images = segmenter.backbone.n_images
    for _ in segmenter.iter_complete(embedding):
        pass
    assert segmenter.backbone.n_images == n_tiles
    assert images == n_written
    assert estimate(segmenter, embedding, kinds=()).seconds == 0


@pytest.mark.parametrize(
    "backbone", [None, CountingBackbone()], ids=["classical", "vit"]
)
def test_results_take_about_what_they_take(backbone):
    image, _, scribbles = sample((700, 1100), 2)
    segmenter = made(backbone)
    segmenter.fit(image, scribbles)
    embedding = segmenter.embed(image)
    found = estimate(segmenter, embedding, ("labels", "probabilities"))
    assert found.tiles == 6
    started = time.perf_counter()
    tiles = [*segmenter.iter_predict(embedding)]
    seconds = time.perf_counter() - started
    # edge tiles are smaller; another process may take the core meanwhile
    assert seconds / 15 < found.seconds < seconds * 15
    raw = sum(t.labels_yx.nbytes + t.proba_kyx.nbytes for t in tiles)
    assert raw / 50 < found.output_bytes < 1.4 * raw


def test_more_kinds_take_more_disk():
    image, _, scribbles = sample((300, 300))
    segmenter = made().fit(image, scribbles)
    kinds = ("labels", "uncertainty", "probabilities")
    sizes = [estimate(segmenter, image, kinds[: n + 1]).output_bytes for n in range(3)]
    assert sizes == sorted(set(sizes))


def test_what_cannot_be_estimated_is_refused():
    image, _, scribbles = sample()
    with pytest.raises(SettingsError, match="not trained yet"):
        estimate(made(), image)
    with pytest.raises(SettingsError, match="'entropy'"):
        estimate(made().fit(image, scribbles), image, ("entropy",))


def test_sentences_say_what_matters():
    text = str(PLAIN)
    assert "100 megapixels: about 3.8 minutes" in text
    assert "380 tiles of features at 0.50 s, 400 tiles of result at 0.10 s" in text
    assert "1.0 GB of memory, 400 MB of disk for features and 10 MB of disk for" in text
    hours = str(replace(PLAIN, seconds=100_000.0, store_bytes=0, output_bytes=0))
    assert "about 28 hours" in hours
    assert hours.endswith("Needs about 1.0 GB of memory.")


@pytest.mark.parametrize(
    ("free", "copies", "fits"),
    [(420_000_000, 1, True), (409_000_000, 1, False), (415_000_000, 2, False)],
)
def test_a_disk_that_cannot_hold_it_is_refused(
    monkeypatch, tmp_path, free, copies, fits
):
    asked, folder = [], tmp_path / "not" / "there"

    def usage(path):
        asked.append(path)
        return type("usage", (), {"free": free})

    monkeypatch.setattr("shutil.disk_usage", usage)
    wanted = replace(PLAIN, store_folder=tmp_path / "stores" / "deep")
    if fits:
        check_room(wanted, folder, copies=copies)
    else:
        with pytest.raises(
            OutputError, match=r"free, but this will write about 4\d\d MB"
        ):
            check_room(wanted, folder, copies=copies)
    # one disk, asked once
    assert asked == [tmp_path]


def test_features_alone_need_only_their_own_disk(monkeypatch, tmp_path):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("usage", (), {"free": 5}))
    check_room(replace(PLAIN, store_bytes=0), None)
    with pytest.raises(OutputError, match="400 MB of features"):
        check_room(replace(PLAIN, store_folder=tmp_path), None)
