"""What a student is trained to do, as functions of tensors.

Shapes: student tokens and targets (B, C, h, w). Nothing here knows of files, steps or
devices.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import (
    cosine_similarity,
    layer_norm,
    log_softmax,
    smooth_l1_loss,
)

__all__ = ["FewShot", "cosine_loss", "huber_loss", "self_targets"]


def cosine_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Return ``1 - cos`` over channels, mean over tokens.

    Examples
    --------
    >>> x = torch.randn(1, 4, 2, 2)
    >>> abs(cosine_loss(3 * x, x).item()) < 1e-6
    True
    """
    return (1 - cosine_similarity(prediction.float(), target.float(), dim=1)).mean()


def huber_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the smooth-L1 loss, mean over everything."""
    return smooth_l1_loss(prediction.float(), target.float())


def self_targets(tokens: Tensor) -> Tensor:
    """Return tokens normalised over channels, which keeps self-distillation alive.

    Baevski et al. (2022), "data2vec", normalise the teacher's features so that a
    constant is no solution.
    """
    b, c, h, w = tokens.shape
    flat = tokens.float().flatten(2).transpose(1, 2)  # (B, hw, C)
    # over the tokens of an image: what is the same everywhere says nothing
    flat = flat - flat.mean(dim=1, keepdim=True)
    flat = layer_norm(flat, (c,))
    return flat.transpose(1, 2).reshape(b, c, h, w)


class FewShot(nn.Module):
    """Whether a few tokens of every region tell the region of all others.

    A ridge regression in closed form, from the support tokens to regions, is applied
    to every token; the loss is the cross-entropy of its scores with the share of each
    region in the token. Gradients run through the regression, so tokens learn to be
    told apart by a linear classifier of few examples.

    References
    ----------
    Bertinetto et al. (2019), "Meta-learning with differentiable closed-form solvers",
    ICLR.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_ridge = nn.Parameter(torch.tensor(-1.0))
        self.log_gain = nn.Parameter(torch.tensor(1.5))

    def forward(self, tokens: Tensor, shares: Tensor, support: Tensor) -> Tensor:
        """Return the loss.

        Parameters
        ----------
        tokens : (B, C, h, w)
            Of the student.
        shares : (B, K, h, w)
            Share of every region in a token; regions that do not occur are 0.
        support : (B, S) int64
            Flat indices of the support tokens; -1 where there are fewer.
        """
        scores = self.scores(tokens, shares, support)
        there = shares.sum(dim=(2, 3)) > 0  # (B, K)
        scores = scores.masked_fill(~there[:, None], -1e4)
        flat = shares.flatten(2).transpose(1, 2)  # (B, hw, K)
        # small phases count, though not as much as large ones
        weight = flat.sum(dim=1, keepdim=True).clamp_min(1e-6) ** -0.5
        weight = (flat * weight).sum(dim=-1)  # (B, hw)
        weight = weight / weight.sum(dim=1, keepdim=True)
        loss = -(flat * log_softmax(scores, dim=-1)).sum(dim=-1)
        return (weight * loss).sum(dim=1).mean()

    def scores(self, tokens: Tensor, shares: Tensor, support: Tensor) -> Tensor:
        """Return the (B, hw, K) scores."""
        c = tokens.shape[1]
        x = tokens.float().flatten(2).transpose(1, 2)  # (B, hw, C)
        x = layer_norm(x, (c,)) / c**0.5
        y = shares.float().flatten(2).transpose(1, 2)  # (B, hw, K)
        used = (support >= 0).float()[..., None]  # (B, S, 1)
        at = support.clamp_min(0)[..., None]
        xs = torch.gather(x, 1, at.expand(-1, -1, c))
        ys = torch.gather(y, 1, at.expand(-1, -1, y.shape[-1])) * used
        n = used.sum(dim=1, keepdim=True).clamp_min(1)
        centre = (xs * used).sum(dim=1, keepdim=True) / n
        mean = ys.sum(dim=1, keepdim=True) / n
        xs, ys = (xs - centre) * used, (ys - mean) * used
        gram = xs @ xs.transpose(1, 2)  # (B, S, S)
        eye = torch.eye(gram.shape[-1], device=gram.device)
        power = gram.diagonal(dim1=1, dim2=2).sum(1)[:, None, None] / n
        ridge = self.log_ridge.exp() * power + 1e-4
        alpha = torch.linalg.solve(gram + ridge * eye, ys)  # (B, S, K)
        weights = xs.transpose(1, 2) @ alpha  # (B, C, K)
        return self.log_gain.exp() * ((x - centre) @ weights + mean)
