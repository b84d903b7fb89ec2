"""2-D ALiBi: attention logits biased by the distance between tokens.

The only module that knows the distance matrix and the slopes. Everything here is a
pure function of the token grid: nothing is stored on a model, so threads that work
on different grids cannot disturb each other. A constant-slope bias is one
(1, 1, N, N) matrix however many heads there are; a small cache, bounded in bytes,
saves building it again for every tile.

`attention="flex"` computes the same bias inside FlexAttention's kernel, from the
token coordinates, and never builds the matrix.

References
----------
Press et al. (2022), "Train short, test long", ICLR. Pawlowsky et al. (2026), "What
DINO saw", arXiv:2603.16840. Dong et al. (2024), "Flex Attention", arXiv:2412.05496.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from napari_alibi_seg._base import Alibi

__all__ = [
    "BiasCache",
    "FlexBias",
    "alibi_bias",
    "alibi_slopes",
    "cached_bias",
    "flex_score_mod",
]

_Grid = tuple[int, int]
# A 37 x 37 grid takes 7.5 MB in float32; grids too large to keep are computed anew.
_CACHE_BYTES = 128 * 2**20


def _axis_distance(n: int, wrap: bool) -> Tensor:
    """(n, n) distances between the positions of one axis."""
    i = torch.arange(n, dtype=torch.float32)
    distance = (i[:, None] - i).abs()
    return torch.minimum(distance, n - distance) if wrap else distance


def alibi_bias(grid: _Grid, n_prefix: int, alibi: Alibi) -> Tensor:
    """Return the distance bias of a token grid, for slope 1.

    Parameters
    ----------
    grid : (int, int)
        Rows and columns of patch tokens.
    n_prefix : int
        Tokens in front of them (class, registers): their rows and columns are 0.
    alibi : Alibi
        Metric, wrapping and normalisation; its slope does not matter here.

    Returns
    -------
    (1, 1, N, N) float32 tensor on the CPU
        ``-d`` or ``-d / max(d)``, with ``N = n_prefix + rows * columns``.

    Examples
    --------
    >>> alibi_bias((1, 3), 0, Alibi(wrap=False))[0, 0]
    tensor([[-0.0000, -0.5000, -1.0000],
            [-0.5000, -0.0000, -0.5000],
            [-1.0000, -0.5000, -0.0000]])
    """
    rows, columns = grid
    dy = _axis_distance(rows, alibi.wrap)[:, None, :, None]
    dx = _axis_distance(columns, alibi.wrap)[None, :, None, :]
    d = (dy**2 + dx**2).sqrt() if alibi.metric == "euclidean" else dy + dx
    d = d.reshape(rows * columns, rows * columns)  # (hw, hw)
    if alibi.normalize and d.max() > 0:  # one token alone has no largest distance
        d = d / d.max()
    n = n_prefix + rows * columns
    bias = torch.zeros(1, 1, n, n)
    bias[..., n_prefix:, n_prefix:] = -d
    return bias


def alibi_slopes(alibi: Alibi, num_heads: int) -> Tensor | None:
    """Return the (1, heads, 1, 1) slopes of "fixed", or None where every slope is 1.

    Examples
    --------
    >>> alibi_slopes(Alibi(slope="fixed"), 4).flatten()
    tensor([0.2500, 0.0625, 0.0156, 0.0039])
    """
    if alibi.slope != "fixed":
        return None
    head = torch.arange(1, num_heads + 1, dtype=torch.float64)
    return (2.0 ** (-8.0 * head / num_heads)).float().reshape(1, -1, 1, 1)


class BiasCache:
    """Least-recently-used tensors, bounded in bytes, safe to share between threads.

    Examples
    --------
    >>> cache = BiasCache(max_bytes=8)
    >>> cache.get("a", lambda: torch.zeros(2)) is cache.get("a", lambda: 1 / 0)
    True
    """

    def __init__(self, max_bytes: int = _CACHE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._items: OrderedDict[Any, Tensor] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Any, make: Callable[[], Tensor]) -> Tensor:
        """Return the tensor of `key`; `make` it (outside the lock) if absent."""
        with self._lock:
            if key in self._items:
                self._items.move_to_end(key)
                return self._items[key]
        value = make()
        with self._lock:
            self._items[key] = value
            while self._items and self._n_bytes() > self._max_bytes:
                self._items.popitem(last=False)
        return value

    def _n_bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in self._items.values())

    def __len__(self) -> int:
        return len(self._items)


_cache = BiasCache()


def cached_bias(
    grid: _Grid,
    n_prefix: int,
    alibi: Alibi,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return `alibi_bias` on `device` in `dtype`, from the cache where it is there."""

    def make() -> Tensor:
        # Not an inference tensor, whoever asks: training code may use it as well.
        with torch.inference_mode(False):
            return alibi_bias(grid, n_prefix, alibi).to(device, dtype)

    shape = (alibi.wrap, alibi.normalize, alibi.metric)
    return _cache.get((grid, n_prefix, shape, str(device), dtype), make)


def flex_score_mod(
    grid: _Grid, n_prefix: int, alibi: Alibi, slopes: Tensor
) -> Callable[..., Tensor]:
    """Return FlexAttention's `score_mod` that adds the bias from token coordinates.

    Parameters
    ----------
    grid, n_prefix, alibi
        As for `alibi_bias`.
    slopes : (heads,) float32 tensor
        On the device of the attention.
    """
    rows, columns = grid
    euclidean = alibi.metric == "euclidean"
    far = [n // 2 if alibi.wrap else n - 1 for n in grid]
    largest = (far[0] ** 2 + far[1] ** 2) ** 0.5 if euclidean else float(sum(far))
    scale = largest if alibi.normalize and largest > 0 else 1.0

    def along(i: Tensor, j: Tensor, n: int) -> Tensor:
        distance = (i - j).abs()
        return torch.minimum(distance, n - distance) if alibi.wrap else distance

    def score_mod(
        score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor
    ) -> Tensor:
        i, j = query - n_prefix, key - n_prefix
        dy = along(i // columns, j // columns, rows)
        dx = along(i % columns, j % columns, columns)
        d = (dy * dy + dx * dx).float().sqrt() if euclidean else (dy + dx).float()
        bias = torch.where((i >= 0) & (j >= 0), -d / scale, 0.0)
        return score + slopes[head] * bias

    return score_mod


class FlexBias(TorchFunctionMode):
    """While active, this thread's `scaled_dot_product_attention` is FlexAttention.

    timm's blocks call PyTorch's function by name, so they need no attention class of
    ours. `calls` counts what was replaced: a caller checks that it is not 0.

    Parameters
    ----------
    score_mod : callable
        From `flex_score_mod`.
    attention : callable
        `flex_attention`, compiled or not.
    """

    def __init__(
        self, score_mod: Callable[..., Tensor], attention: Callable[..., Any]
    ) -> None:
        super().__init__()
        self.score_mod = score_mod
        self.attention = attention
        self.calls = 0

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is not scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        self.calls += 1
        q, k, v = args  # (B, heads, N, C / heads) each
        return self.attention(q.to(v.dtype), k.to(v.dtype), v, score_mod=self.score_mod)
