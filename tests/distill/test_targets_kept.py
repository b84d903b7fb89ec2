"""Targets: prepared, blanked where they carry position, kept on disk."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from distill.toys import data_of, pictures

from napari_alibi_seg._base import SettingsError
from napari_alibi_seg.analysis import ramp
from napari_alibi_seg.distill import LossSettings, open_pool
from napari_alibi_seg.distill._crops import Batch, BatchPlan, make_batch
from napari_alibi_seg.distill._targets import (
    KeptTargets,
    Preparation,
    measure_preparation,
)


def _images(side=16, n=2, seed=0):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------------- preparation


class _Fake:
    """A teacher whose targets are what a test says."""

    def __init__(self, n_channels, make):
        self.n_channels, self._make = n_channels, make
        self.identity = "fake"
        self.n_images = 0

    def targets(self, images, grid):
        self.n_images += len(images)
        return self._make(images, grid)

    def to(self, device):
        pass


def _batches(n, batch=8, side=48):
    for i in range(n):
        x = _images(side, batch, seed=i)
        nothing = torch.zeros(batch)
        yield Batch(i, x, x, nothing, nothing, nothing, nothing)


def _content_and_position(images, grid):
    """8 channels of image noise; the third and the last rise with the frame."""
    where = torch.from_numpy(ramp("lr+ud", grid)).float().permute(2, 0, 1)
    seed = int(images[0, 0, 0, 0] * 1e6)
    out = torch.randn(
        len(images), 8, *grid, generator=torch.Generator().manual_seed(seed)
    )
    out[:, 2] = 5 + 3 * where[0] + 0.1 * out[:, 2]
    out[:, 7] = where[1] + 0.1 * out[:, 7]
    return out


def test_auto_blanks_the_channels_that_carry_position():
    wish = LossSettings(blank="auto")
    found = measure_preparation(
        _Fake(8, _content_and_position), _batches(4), (12, 12), wish
    )
    assert found.blank == (2, 7)
    assert torch.equal(found.mean, torch.zeros(8))
    strict = wish.model_copy(update={"blank_above": 0.99})
    found = measure_preparation(
        _Fake(8, _content_and_position), _batches(4), (12, 12), strict
    )
    assert found.blank == ()


def test_standardised_and_blanked_targets():
    wish = LossSettings(standardise=True, blank=(1,))
    teacher = _Fake(8, _content_and_position)
    prepared = measure_preparation(teacher, _batches(6), (12, 12), wish)
    assert prepared.blank == (1,)
    raw = torch.cat([_content_and_position(b.clean, (12, 12)) for b in _batches(6)])
    before = raw.clone()
    out = prepared(raw)
    assert torch.equal(raw, before)
    assert torch.equal(out[:, 1], torch.zeros_like(out[:, 1]))
    for i in (0, 2, 7):
        assert out[:, i].mean().item() == pytest.approx(0, abs=1e-4)
        assert out[:, i].std().item() == pytest.approx(1, abs=1e-3)


def test_a_dead_channel_stays_finite():
    wish = LossSettings(standardise=True)
    teacher = _Fake(2, lambda x, grid: torch.full((len(x), 2, *grid), 4.0))
    prepared = measure_preparation(teacher, _batches(1), (3, 3), wish)
    out = prepared(torch.full((1, 2, 3, 3), 4.0))
    assert torch.equal(out, torch.zeros(1, 2, 3, 3))


def test_nothing_to_measure_looks_at_no_crop():
    teacher = _Fake(3, _content_and_position)
    out = measure_preparation(teacher, _batches(2), (3, 3), LossSettings(blank=(2,)))
    assert teacher.n_images == 0
    x = torch.ones(1, 3, 2, 2)
    assert out(x).sum(dim=(0, 2, 3)).tolist() == [4, 4, 0]
    again = Preparation.from_dict(out.to_dict())
    assert torch.equal(again(x), out(x))


@pytest.mark.parametrize("blank", [(3,), (-1,), (0, 99)], ids=str)
def test_only_channels_of_the_teacher_can_be_blanked(blank):
    wish = LossSettings(blank=blank)
    with pytest.raises(SettingsError, match="channels of the teacher, 0 to 2, got"):
        measure_preparation(_Fake(3, _content_and_position), [], (3, 3), wish)


# ------------------------------------------------------------------------ kept targets


@pytest.fixture
def few(tmp_path):
    folder = pictures(tmp_path / "pictures")
    data = data_of(folder, distinct_crops=4)
    plan = BatchPlan(data=data, seed=1, rank=0, batch=3, crop_px=16, patch_size=4)
    pool = open_pool(data)
    return [make_batch(pool, plan, step) for step in range(8)]


def _means(images, grid):
    return torch.nn.functional.adaptive_avg_pool2d(images, grid) * 1.2345


def test_kept_targets_are_computed_once_and_the_same(tmp_path, few):
    teacher = _Fake(3, _means)
    first = KeptTargets(tmp_path / "t", "of this", (4, 3, 4, 4))
    found = [first.targets(teacher, batch, (4, 4)) for batch in few]
    seen = {n for batch in few for n in batch.numbers.tolist()}
    assert seen == {0, 1, 2, 3}
    # a crop that is twice in a batch is computed twice
    assert len(seen) <= teacher.n_images < 8
    for batch, targets in zip(few, found, strict=True):
        exact = _means(batch.clean, (4, 4))
        assert torch.equal(targets, exact.half().float())
    again = KeptTargets(tmp_path / "t", "of this", (4, 3, 4, 4))
    refuses = _Fake(3, lambda *_: pytest.fail("computed again"))
    for batch, targets in zip(few, found, strict=True):
        assert torch.equal(again.targets(refuses, batch, (4, 4)), targets)


@pytest.mark.parametrize("change", ["identity", "shape", "lost file"])
def test_kept_targets_of_another_training_are_thrown_away(tmp_path, few, change):
    folder = tmp_path / "t"
    kept = KeptTargets(folder, "a", (4, 3, 4, 4))
    kept.targets(_Fake(3, _means), few[0], (4, 4))
    if change == "lost file":
        (folder / "there.npy").unlink()
    identity = "b" if change == "identity" else "a"
    n = 5 if change == "shape" else 4
    other = _Fake(3, lambda x, grid: 2 * _means(x, grid))
    fresh = KeptTargets(folder, identity, (n, 3, 4, 4))
    found = fresh.targets(other, few[0], (4, 4))
    assert torch.equal(found, (2 * _means(few[0].clean, (4, 4))).half().float())
    assert other.n_images == 3


def test_a_kill_between_values_and_mark_computes_again(tmp_path, few):
    kept = KeptTargets(tmp_path / "t", "a", (4, 3, 4, 4))
    number = int(few[0].numbers[0])
    kept._values[number] = np.float16(77)  # half written, not marked
    found = kept.targets(_Fake(3, _means), few[0], (4, 4))
    assert found.max() < 2
