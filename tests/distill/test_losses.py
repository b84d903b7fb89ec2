"""Loss terms: their extremes, invariances and gradients."""

from __future__ import annotations

import math

import pytest
import torch

from napari_alibi_seg.distill._losses import (
    FewShot,
    cosine_loss,
    huber_loss,
    self_targets,
)


def _random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------------- cosine, huber


def test_cosine_looks_at_direction_alone():
    x, y = _random(2, 5, 3, 3), _random(2, 5, 3, 3, seed=1)
    assert cosine_loss(4 * x, x).item() == pytest.approx(0, abs=1e-6)
    assert cosine_loss(-x, x).item() == pytest.approx(2, abs=1e-6)
    assert cosine_loss(0.1 * x, 7 * y).item() == pytest.approx(cosine_loss(x, y).item())
    by_hand = [
        1 - float(a @ b / (a.norm() * b.norm()))
        for a, b in zip(
            x.permute(0, 2, 3, 1).reshape(-1, 5),
            y.permute(0, 2, 3, 1).reshape(-1, 5),
            strict=True,
        )
    ]
    assert cosine_loss(x, y).item() == pytest.approx(sum(by_hand) / 18, abs=1e-6)


@pytest.mark.parametrize(
    ("error", "expected"), [(0.0, 0.0), (0.5, 0.125), (1.0, 0.5), (-3.0, 2.5)]
)
def test_huber_is_square_then_straight(error, expected):
    x = _random(2, 3, 2, 2)
    assert huber_loss(x + error, x).item() == pytest.approx(expected, abs=1e-6)


def test_half_precision_is_compared_in_full():
    x = torch.full((1, 2, 1, 1), 3e4, dtype=torch.float16)
    assert cosine_loss(x, x).item() == pytest.approx(0, abs=1e-6)  # 1.8e9 fits no half
    assert huber_loss(x, -x).item() == pytest.approx(6e4 - 0.5, rel=1e-3)


# ----------------------------------------------------------------------- self targets


def test_self_targets_forget_what_is_everywhere():
    x = _random(2, 6, 4, 5)
    out = self_targets(x)
    assert out.shape == x.shape
    common = _random(2, 6, 1, 1, seed=1)
    torch.testing.assert_close(self_targets(x + 3 * common), out, atol=1e-5, rtol=0)
    torch.testing.assert_close(out.mean(1), torch.zeros(2, 4, 5), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        out.std(1, correction=0), torch.ones(2, 4, 5), atol=1e-3, rtol=0
    )


def test_tokens_that_are_all_the_same_have_nothing_to_teach():
    out = self_targets(_random(1, 6, 1, 1).expand(1, 6, 4, 4))
    assert out.abs().max() < 1e-3


# --------------------------------------------------------------------------- few-shot


def _task(k=3, regions=3, side=6, channels=32, noise=0.05, seed=0):
    """Tokens that tell their region, shares, and two support tokens of each."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.arange(side * side) % regions
    centres = torch.randn(regions, channels, generator=generator)
    tokens = centres[ids] + noise * torch.randn(
        side * side, channels, generator=generator
    )
    shares = torch.nn.functional.one_hot(ids, k).float().T.reshape(1, k, side, side)
    support = [i for r in range(regions) for i in (r, r + regions)] + [-1, -1]
    return tokens.T.reshape(1, channels, side, side), shares, torch.tensor([support])


def _sharp():
    loss = FewShot()
    with torch.no_grad():
        loss.log_gain.fill_(math.log(40))
        loss.log_ridge.fill_(-8)
    return loss


@pytest.mark.parametrize("regions", [2, 3])
def test_separable_tokens_cost_nothing(regions):
    tokens, shares, support = _task(regions=regions)
    assert _sharp()(tokens, shares, support).item() < 0.02
    # as it starts it is less sure, but right
    scores = FewShot().scores(tokens, shares, support)
    assert torch.equal(scores.argmax(-1)[0], shares.flatten(2)[0].argmax(0))
    assert FewShot()(tokens, shares, support).item() < 0.5 * math.log(regions)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_tokens_that_say_nothing_cost_log_k(k):
    found = []
    for seed in range(8):
        tokens = _random(1, 64, 6, 6, seed=seed)
        _, shares, support = _task(k=k, regions=k)
        found.append(FewShot()(tokens, shares, support).item())
    assert sum(found) / len(found) == pytest.approx(math.log(k), rel=0.35)
    # every score is then the share of the support
    constant = FewShot()(torch.ones(1, 64, 6, 6), shares, support).item()
    assert constant == pytest.approx(math.log(k), abs=1e-4)


def test_regions_that_do_not_occur_are_never_predicted():
    tokens, shares, support = _task(k=4, regions=2, noise=3.0)
    narrow = FewShot()(tokens, shares[:, :2], support)
    wide = FewShot()(tokens, shares, support)
    assert wide.item() == pytest.approx(narrow.item(), rel=1e-5)


def test_padding_of_the_support_changes_nothing():
    tokens, shares, support = _task(noise=1.0)
    more = torch.cat([support, torch.full((1, 5), -1)], dim=1)
    loss = FewShot()
    with torch.no_grad():
        loss.log_ridge.fill_(-20)  # which is relative to the mean over all places
    a, b = loss(tokens, shares, support), loss(tokens, shares, more)
    assert a.item() == pytest.approx(b.item(), rel=1e-3)


def test_small_regions_count_more_than_their_area():
    """One wrong token of a region of 2 costs more than one of a region of 34."""
    ids = torch.zeros(36, dtype=torch.long)
    ids[34:] = 1
    shares = torch.nn.functional.one_hot(ids, 2).float().T.reshape(1, 2, 6, 6)
    centres = _random(2, 32)
    support = torch.tensor([[0, 1, 34, -1]])
    costs = []
    for wrong in (10, 35):
        tokens = centres[ids]
        tokens[wrong] = centres[1 - ids[wrong]]
        costs.append(_sharp()(tokens.T.reshape(1, 32, 6, 6), shares, support).item())
    assert costs[1] > 2 * costs[0]


def test_gradients_flow_to_tokens_and_to_ridge_and_gain():
    tokens, shares, support = _task(noise=1.0)
    tokens.requires_grad_(True)
    loss = FewShot()
    loss(tokens, shares, support).backward()
    assert tokens.grad.isfinite().all()
    per_token = tokens.grad.abs().sum(1).flatten()
    assert (per_token > 0).all()  # support and query alike
    assert loss.log_gain.grad.abs() > 0
    assert loss.log_ridge.grad.abs() > 0


def test_following_the_gradient_separates_tokens():
    _, shares, support = _task(regions=3)
    tokens = _random(1, 32, 6, 6).requires_grad_(True)
    loss = FewShot()
    optimizer = torch.optim.Adam([tokens], lr=0.05)
    first = loss(tokens, shares, support).item()
    for _ in range(60):
        optimizer.zero_grad()
        value = loss(tokens, shares, support)
        value.backward()
        optimizer.step()
    assert value.item() < 0.4 * first
