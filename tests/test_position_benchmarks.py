"""The toy experiment at a small size, and the arithmetic of the table of cures."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

_BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def _benchmarks_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(_BENCHMARKS))


def _script(name: str) -> ModuleType:
    return importlib.import_module(name)


# -------------------------------------------------------------------------------- toy


def test_toy_learns_place_from_an_encoding_and_from_nothing_else() -> None:
    toy = _script("toy")
    settings = toy.ToySettings(side=12, steps=200, lr=5e-3)
    loss = {name: toy.train(name, settings)["loss"] for name in toy.PUBLISHED}
    wanted = toy.places(12)
    constant = float((wanted - 0.5).abs().mean())
    assert constant == pytest.approx(0.2727, abs=1e-3)
    # tables and sines at once, rotary angles on the way, distances and nothing never
    assert max(loss["learned"], loss["sincos"]) < 0.1 * constant
    assert max(loss["rope-1d"], loss["rope-2d"]) < 0.6 * constant
    assert min(loss["alibi"], loss["nope"]) > 0.95 * constant


def test_toy_places_are_x_then_y() -> None:
    places = _script("toy").places(3)
    assert places[1].tolist() == [0.5, 0.0]
    assert places[3].tolist() == [0.0, 0.5]


def test_toy_bias_follows_distance_and_head() -> None:
    bias = _script("toy").distance_bias(3, 2)
    assert bias.shape == (2, 9, 9)
    assert float(bias[0, 0, 8]) == pytest.approx(-(2.0**-4))
    assert float(bias[1, 0, 8]) == pytest.approx(-(2.0**-8))
    assert float(bias[0, 0, 1] / bias[0, 0, 8]) == pytest.approx(1 / 8**0.5)


def test_toy_rotation_keeps_lengths_and_knows_distances_only() -> None:
    toy = _script("toy")
    angles = toy.rope("rope-2d", 4, 8)
    x = torch.randn(1, 1, 8, generator=torch.Generator().manual_seed(0))
    q = toy.rotated(x.expand(1, 16, 8), angles)
    torch.testing.assert_close(q.norm(dim=-1), x.norm(dim=-1).expand(1, 16))
    scores = (q @ q.mT)[0]
    # one step to the right, wherever it begins
    torch.testing.assert_close(scores[0, 1], scores[5, 6])
    torch.testing.assert_close(scores[0, 4], scores[9, 13])
    assert toy.rope("alibi", 4, 8) is None


# ------------------------------------------------------------------------------ cures


def test_likeness_is_of_tokens_and_of_what_tells_them_apart() -> None:
    cures = _script("cures")
    rng = np.random.default_rng(0)
    maps = [rng.normal(size=(5, 6, 4)) for _ in range(3)]
    assert cures.likeness(maps, maps) == pytest.approx({"cosine": 1, "centred": 1})
    shifted = [m + 100 for m in maps]
    found = cures.likeness([-m + 200 for m in shifted], shifted)
    assert found["cosine"] > 0.99
    assert found["centred"] == pytest.approx(-1)
    assert np.isnan(cures.likeness([m[..., :2] for m in maps], maps)["cosine"])


def test_table_of_cures_says_what_is_no_training() -> None:
    row = {"r2": 0.5, "best": 0.1, "n_positional": 3, "cosine": 1.0, "centred": 0.9}
    row |= {"miou_spread": 0.6, "miou_biased": 0.5, "s_per_crop": 1.0}
    names = ("twin", "twin+nope", "twin+blank=1,2,3,4", "twin+roll=4")
    rows = _script("cures").table_rows([{**row, "cure": name} for name in names])
    assert [r[0] for r in rows] == [
        "twin, as it is",
        "+nope (not distilled)",
        "+blank (4 channels)",
        "+roll=4",
    ]
    assert rows[0][1:4] == ["0.500", "0.100", 3]
