"""Crops of a user's images, and the report on a backbone: levels, sentences, limits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from napari_alibi_seg._base import SettingsError, Window
from napari_alibi_seg.analysis import (
    FEW_CROPS,
    Crops,
    draw_crops,
    iter_position_report,
    position_report,
    probe_table,
    ramp,
)
from napari_alibi_seg.data import open_image, synthesize
from napari_alibi_seg.features import load_backbone

_FILES = Path(__file__).resolve().parents[1] / "data"
_SIDE = 168


class Planted:
    """Means of patches, and beside noise as much position as was asked for."""

    patch_size, embed_dim, alibi, device = 8, 12, None, "cpu"
    mean, std = (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)

    def __init__(self, position: float, name: str = "planted") -> None:
        self.position, self.name = position, name
        self.identity = {"name": name}

    def patch_features(self, images: np.ndarray) -> torch.Tensor:
        p = self.patch_size
        h, w = (n // p for n in images.shape[2:])
        patches = images[0, 0].reshape(h, p, w, p).transpose(0, 2, 1, 3)
        flat = patches.reshape(h, w, -1)
        weights = np.random.default_rng(0).normal(size=(p * p, self.embed_dim))
        tokens = flat @ weights / p
        tokens[..., 3] += self.position * ramp("lr", (h, w))[..., 0]
        tokens[..., 5] += self.position * ramp("ud", (h, w))[..., 0]
        return torch.from_numpy(tokens.astype(np.float32)).permute(2, 0, 1)[None]


def noise(n: int, side: int = 96) -> Crops:
    rng = np.random.default_rng(0)
    values = tuple(rng.random((1, side, side), np.float32) for _ in range(n))
    return Crops(values, ("noise",) * n, side, 1, ())


def micrographs(side: int = 620) -> list:
    kinds = ("spinodal", "grains")
    return [
        open_image(synthesize(kind, (side, side), seed=i).image)
        for i, kind in enumerate(kinds)
    ]


# ------------------------------------------------------------------------------- crops


def test_crops_come_from_all_images_and_lie_inside():
    image = np.arange(400 * 500, dtype=np.float32).reshape(400, 500)
    crops = draw_crops([open_image(image), open_image(image[::-1].copy())], side_px=100)
    assert (len(crops), crops.n_images, crops.side_px) == (32, 2, 100)
    # every pixel of the ramp is another value: equal crops would be equal arrays
    assert len({c.tobytes() for c in crops.values}) == 32
    assert all(c.shape == (1, 100, 100) for c in crops.values)


@pytest.mark.parametrize(
    ("shape", "side", "n", "overlap"),
    [((400, 400), 100, 16, False), ((400, 400), 100, 32, True)],
    ids=["enough room", "too little room"],
)
def test_crops_overlap_only_if_they_must(shape, side, n, overlap):
    # of where it lies every pixel says its row and column
    y, x = np.indices(shape)
    image = (y * 1000 + x).astype(np.float64)
    crops = draw_crops([open_image(image)], n_crops=n, side_px=side)
    low, high = np.percentile(image, (0.5, 99.5))
    places = [round(float(c[0, 50, 50]) * (high - low) + low) for c in crops.values]
    at = np.array([divmod(place, 1000) for place in places])
    apart = np.abs(at[:, None] - at[None]).max(axis=2)[~np.eye(len(at), dtype=bool)]
    assert len(crops) == n
    assert (apart.min() < side - 1) == overlap
    assert apart.min() >= side // 2 - 1


def test_an_information_bar_is_left_out():
    rng = np.random.default_rng(0)
    image = rng.integers(60, 200, (400, 500), np.uint8)
    image[360:] = 0
    image[368:374, 350:450] = 255
    for x in range(40, 180, 10):
        image[368:384, x : x + 6] = 255
    crops = draw_crops([open_image(image)], side_px=100)
    assert all(float((c <= 0).mean()) < 0.05 for c in crops.values)


def test_few_crops_are_said_to_be_few():
    image = np.random.default_rng(0).random((260, 260))
    crops = draw_crops([open_image(image)], side_px=200)
    assert len(crops) == 1
    assert crops.notes[0].startswith("Only 1 crop of 200 px fit")
    enough = draw_crops([open_image(image)], side_px=64)
    assert (len(enough), enough.notes) == (32, ())


def test_the_usual_side_shrinks_where_few_crops_fit():
    large = open_image(np.random.default_rng(0).random((1400, 1400)))
    small = open_image(np.random.default_rng(0).random((600, 600)))
    assert draw_crops([large]).side_px == 336
    assert draw_crops([small]).side_px == 224


def test_small_images_are_left_out_and_named():
    rng = np.random.default_rng(0)
    images = [open_image(rng.random((n, 300))) for n in (90, 300)]
    crops = draw_crops(images, side_px=100)
    assert crops.n_images == 1
    assert crops.notes[0].startswith("Left out, as smaller than a crop of 100 px")


def test_grey_and_colour_images_go_together():
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 255, (200, 200), np.uint8)
    colour = rng.integers(0, 255, (200, 200, 3), np.uint8)
    crops = draw_crops([open_image(grey), open_image(colour)], side_px=64)
    assert {c.shape[0] for c in crops.values} == {3}


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"side_px": 200}, "largest square in them has 150 px"),
        ({"side_px": 20}, "`side_px` must be a whole number of 64 or more"),
        ({"n_crops": 0}, "`n_crops` must be a whole number of 1 or more"),
    ],
    ids=["too large", "too small", "none"],
)
def test_crops_that_cannot_be(options, match):
    image = open_image(np.zeros((150, 400), np.uint8))
    with pytest.raises(SettingsError, match=match):
        draw_crops([image], **options)


def test_the_same_seed_gives_the_same_crops():
    images = micrographs(300)
    a, b, c = (draw_crops(images, side_px=96, seed=s).values for s in (1, 1, 2))
    assert all((x == y).all() for x, y in zip(a, b, strict=True))
    assert any((x != y).any() for x, y in zip(a, c, strict=True))


# ------------------------------------------------------------------------------ report


@pytest.mark.parametrize(
    ("n", "position", "level", "verdict"),
    [
        (12, 0.0, "none found", "neither"),
        (12, 8.0, "high", "bias"),
        (12, 1.5, "some", "neither"),
        (1, 8.0, "high", "bias"),
        (1, 0.0, "unsure", "neither"),
    ],
    ids=["none", "much", "a little", "much in one crop", "none in one crop"],
)
def test_levels_follow_what_was_planted(n, position, level, verdict):
    report = position_report(Planted(position), noise(n))
    assert (report.level, report.verdict) == (level, verdict)
    row = report.table["lr+ud"]
    assert (row.transfer_r2 is None) == (n < 3)
    if position == 8.0:
        assert set(row.channels) == {3, 5}
        assert report.artefact > 2 * report.artefact_floor
        assert report.fingerprint.r2[0].argmax() == 3
        # what the probe reads rises with the column
        read = report.pictures.prediction[..., 0]
        assert read[:, -2:].mean() - read[:, :2].mean() > 0.5


def test_the_twins_differ_as_they_should():
    crops = draw_crops(micrographs(), side_px=_SIDE, n_crops=FEW_CROPS)
    table, alibi = (
        position_report(
            load_backbone(_FILES / f"twin-{name}.safetensors", device="cpu"), crops
        )
        for name in ("table", "alibi")
    )
    assert (table.level, alibi.level) == ("high", "none found")
    assert (table.verdict, alibi.verdict) == ("bias", "neither")
    assert table.cosine_drop > alibi.cosine_drop + 0.1
    assert table.clusters > alibi.clusters + 0.1
    assert table.artefact > 2 * table.artefact_floor
    assert table.fingerprint.r2.shape == (6, 96)
    assert "%" in table.sentence
    assert table.sentence.startswith("Much position")


def test_a_transfer_probe_needs_more_tokens_than_channels():
    rng = np.random.default_rng(0)
    maps = [rng.normal(size=(16, 16, 128)) for _ in range(6)]
    few = probe_table(maps, n_tokens=26, n_draws=1)["lr+ud"]
    many = probe_table(maps, n_tokens=26, n_transfer_tokens=128, n_draws=1)["lr+ud"]
    assert few.transfer_r2 < -1.5
    assert -0.5 < many.transfer_r2 < 0
    assert many.single_r2 == few.single_r2


def test_a_cured_backbone_has_one_layer():
    cured = load_backbone(f"{_FILES / 'twin-table.safetensors'}+roll=2", device="cpu")
    report = position_report(cured, noise(3, 112))
    assert report.fingerprint.r2.shape == (1, 96)
    assert report.name == "twin-table+roll=2"


def test_steps_count_to_the_end_and_can_be_cancelled():
    steps = list(iter_position_report(Planted(0.0), noise(4)))
    features = [(s.done, s.total) for s in steps if s.stage == "features"]
    assert features == [(k, 5) for k in range(1, 6)]
    assert [s.result is None for s in steps] == [True] * (len(steps) - 1) + [False]
    job = iter_position_report(Planted(0.0), noise(4))
    assert next(job).done == 1
    job.close()


def test_equal_arguments_give_equal_reports():
    one, other = (position_report(Planted(1.0), noise(4)).to_dict() for _ in range(2))
    for report in (one, other):
        del report["seconds"], report["features_s"]
    assert one == other


def test_a_crop_of_too_few_tokens_is_refused():
    with pytest.raises(SettingsError, match="Give crops of 64 px or more"):
        position_report(Planted(0.0), noise(2, 60))


def test_no_crops_are_refused():
    with pytest.raises(SettingsError, match="got none"):
        position_report(Planted(0.0), Crops((), (), 96, 0, ()))


def test_the_warning_starts_below_twelve():
    assert FEW_CROPS == 12
    source = open_image(np.random.default_rng(0).random((300, 400)))
    assert source.window == Window(0, 300, 0, 400)
    exactly = draw_crops([source], side_px=100, n_crops=12)
    fewer = draw_crops([source], side_px=100, n_crops=11)
    assert (len(exactly), exactly.notes) == (12, ())
    assert len(fewer.notes) == 1
