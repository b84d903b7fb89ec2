"""Batches are functions of (seed, device, step, crop), whoever prepares them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from distill.toys import data_of, pictures
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_alibi_seg.distill import open_pool
from napari_alibi_seg.distill._crops import (
    _SUPPORT,
    BatchPlan,
    _shares,
    _support,
    iter_batches,
    make_batch,
)
from napari_alibi_seg.distill._mosaics import MAX_REGIONS

FIELDS = ("clean", "seen", "numbers", "labelled", "shares", "support")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def pool(folder):
    return open_pool(data_of(folder))


@pytest.fixture
def plan(folder):
    data = data_of(folder, mosaic_share=1.0, degrade=0.5)
    return BatchPlan(data=data, seed=7, rank=0, batch=4, crop_px=24, patch_size=4)


def _with(plan, **changes):
    return replace(plan, data=plan.data.model_copy(update=changes))


def _same(a, b):
    return all(torch.equal(getattr(a, f), getattr(b, f)) for f in FIELDS)


# --------------------------------------------------------------------------- functions


def test_the_same_step_twice_is_the_same_batch(pool, folder, plan):
    a = make_batch(pool, plan, 3)
    make_batch(pool, plan, 1)
    assert _same(a, make_batch(pool, plan, 3))
    assert _same(a, make_batch(open_pool(data_of(folder)), plan, 3))


@pytest.mark.parametrize("change", [{"seed": 8}, {"rank": 1}, {"step": 4}], ids=str)
def test_another_seed_device_or_step_is_another_batch(pool, plan, change):
    step = change.get("step", 3)
    other = replace(plan, **{k: v for k, v in change.items() if k != "step"})
    a, b = make_batch(pool, plan, 3), make_batch(pool, other, step)
    assert all(not torch.equal(x, y) for x, y in zip(a.clean, b.clean, strict=True))


def test_crops_of_a_batch_differ_and_do_not_depend_on_its_size(pool, plan):
    four = make_batch(pool, plan, 0)
    two = make_batch(pool, replace(plan, batch=2), 0)
    assert torch.equal(four.seen[:2], two.seen)
    assert len({c.numpy().tobytes() for c in four.clean}) == 4


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_workers_change_nothing(pool, plan, workers):
    batches = [*iter_batches(pool, plan, 2, 6, workers)]
    assert [b.step for b in batches] == [2, 3, 4, 5]
    assert all(_same(b, make_batch(pool, plan, b.step)) for b in batches)


def test_no_steps_left_is_no_batch(pool, plan):
    assert [*iter_batches(pool, plan, 5, 5, 0)] == []


# ------------------------------------------------------------------------------ content


def test_shapes_and_types(pool, plan):
    batch = make_batch(pool, plan, 1)
    m = int(batch.labelled.sum())
    assert 0 < m < 4
    assert batch.clean.shape == batch.seen.shape == (4, 3, 24, 24)
    assert batch.clean.dtype == batch.seen.dtype == torch.float32
    assert batch.numbers.tolist() == [-1] * 4
    assert batch.labelled.dtype == torch.bool
    assert batch.shares.shape == (m, MAX_REGIONS, 6, 6)
    assert batch.support.shape == (m, MAX_REGIONS * _SUPPORT)
    assert batch.support.dtype == torch.int64


@pytest.mark.parametrize("share", [0.0, 1.0, 3.0])
def test_mosaics_are_a_share_of_crops(pool, plan, share):
    wide = replace(_with(plan, mosaic_share=share), batch=60, crop_px=16)
    batch = make_batch(pool, wide, 0)
    expected = 60 * share / (1 + share)
    assert abs(int(batch.labelled.sum()) - expected) <= 12 * (share > 0)
    assert len(batch.shares) == len(batch.support) == int(batch.labelled.sum())


def test_shares_sum_to_1_and_regions_are_numbered_from_0(pool, plan):
    counts = set()
    for step in range(12):
        shares = make_batch(pool, plan, step).shares
        assert torch.allclose(shares.sum(1), torch.ones(len(shares), 6, 6))
        there = shares.sum((2, 3)) > 0
        counts |= {int(n) for n in there.sum(1)}
        # once one does not occur, none after it does
        assert (there[:, 1:] <= there[:, :-1]).all()
    assert {2, 3} <= counts <= {2, 3, 4}


def test_support_lies_in_its_region(pool, plan):
    n = 0
    for step in range(12):
        batch = make_batch(pool, plan, step)
        for shares, support in zip(batch.shares, batch.support, strict=True):
            flat = shares.flatten(1)
            for region, chosen in enumerate(support.reshape(MAX_REGIONS, _SUPPORT)):
                own = chosen[chosen >= 0]
                best = float(flat[region].max())
                assert (len(own) > 0) == (best > 0.2)
                assert len(set(own.tolist())) == len(own)
                assert (flat[region, own] >= min(0.8, 0.9 * best) - 1e-6).all()
                n += len(own)
    assert n > 100


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 5), st.integers(1, 6))
def test_shares_are_areas(seed, patch, n):
    regions = np.random.default_rng(seed).integers(
        0, MAX_REGIONS, (n * patch, n * patch), dtype=np.uint8
    )
    shares = _shares(regions, patch).numpy()
    cells = regions.reshape(n, patch, n, patch)
    for k in range(MAX_REGIONS):
        np.testing.assert_allclose(shares[k], (cells == k).mean(axis=(1, 3)), atol=1e-6)


def test_support_is_few_tokens_near_one_another():
    """As strokes are: of a large region, a small part."""
    shares = torch.zeros(MAX_REGIONS, 20, 20)
    shares[0] = 1
    spread, sizes = [], set()
    for seed in range(40):
        own = _support(shares, np.random.default_rng(seed)).reshape(MAX_REGIONS, -1)[0]
        own = own[own >= 0]
        sizes.add(len(own))
        y, x = own // 20, own % 20
        nearest = (y[:, None] - y).abs() + (x[:, None] - x).abs()
        nearest.fill_diagonal_(99)
        spread.append(float(nearest.min(1).values.float().mean()))
    assert sizes == set(range(3, _SUPPORT + 1))
    assert np.mean(spread) < 2.5  # drawn at random it would be about 3


# ------------------------------------------------------------- what each network sees


def test_the_student_alone_sees_degradation(pool, plan):
    never, always = (
        make_batch(pool, _with(plan, degrade=share), 0) for share in (0.0, 1.0)
    )
    assert torch.equal(never.seen, never.clean)
    assert torch.equal(never.clean, always.clean)
    assert all(
        not torch.equal(a, b) for a, b in zip(always.seen, always.clean, strict=True)
    )


def test_distinct_crops_come_again_with_new_degradation(pool, plan):
    few = replace(_with(plan, distinct_crops=3, degrade=1.0), batch=6)
    clean: dict[int, set] = {}
    seen: dict[int, list] = {}
    for step in range(6):
        batch = make_batch(pool, few, step)
        for i, number in enumerate(batch.numbers.tolist()):
            clean.setdefault(number, set()).add(batch.clean[i].numpy().tobytes())
            seen.setdefault(number, []).append(batch.seen[i].numpy().tobytes())
    assert set(clean) == {0, 1, 2}
    assert all(len(same) == 1 for same in clean.values())
    assert len(set.union(*clean.values())) == 3
    for own in seen.values():
        assert len(own) > 3
        assert len(set(own)) == len(own)


def test_distinct_mosaics_keep_their_regions_and_get_new_strokes(pool, plan):
    few = replace(_with(plan, distinct_crops=1, mosaic_share=1000.0), batch=5)
    batch = make_batch(pool, few, 0)
    assert bool(batch.labelled.all())
    assert all(torch.equal(s, batch.shares[0]) for s in batch.shares)
    assert len({s.numpy().tobytes() for s in batch.support}) == 5


def test_distinct_crops_depend_on_seed_device_and_side(pool, plan):
    few = replace(_with(plan, distinct_crops=1, mosaic_share=0.0), batch=1)
    first = make_batch(pool, few, 0).clean
    assert torch.equal(make_batch(pool, few, 9).clean, first)
    assert not torch.equal(make_batch(pool, replace(few, seed=8), 0).clean, first)
    assert not torch.equal(make_batch(pool, replace(few, rank=1), 0).clean, first)
