"""One attention layer learns where a token lies, or cannot: six position encodings.

A picture of random grey values, one a token, is the only input. A layer of attention
with a linear map before and after it is to say x and y of every token, from 0 to 1.
What it can say it knows from the encoding: tokens with a table, sines or rotary angles
become a ramp; with ALiBi, whose bias depends on the distance of two tokens alone, and
with nothing it stays at the loss of a constant, 0.258. The setting is that of the toy
experiment of Pawlowsky et al. (2026), whose losses stand beside ours.

Every encoding is trained once and appended to results/toy.jsonl; a run that was
stopped goes on with those that are missing. The picture is drawn once and stays: a
rotary encoding knows distances only, and finds its place by landmarks in it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import RESULTS, parser, report, save, table
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sweep import Results
from timm.layers import build_sincos2d_pos_embed
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

PART = "toy"
# Losses after 5,000 steps as the authors' notebook prints them.
PUBLISHED = {
    "learned": 0.0038,
    "sincos": 0.0054,
    "rope-1d": 0.080,
    "rope-2d": 0.0025,
    "alibi": 0.2558,
    "nope": 0.2558,
}
_BASE = 10_000.0


@dataclass(frozen=True)
class ToySettings:
    """Size and training of the toy.

    Attributes
    ----------
    side : int
        Tokens along a side of the grid.
    dim, heads : int
        Width and heads of the attention layer.
    steps : int
        Of AdamW.
    lr : float
        Its learning rate.
    seed : int
        Of weights and picture.
    """

    side: int = 32
    dim: int = 32
    heads: int = 4
    steps: int = 5000
    lr: float = 5e-4
    seed: int = 0


class ToyLayer(nn.Module):
    """Attention over a grid of random scalars, with one of six encodings.

    Parameters
    ----------
    encoding : str
        A key of `PUBLISHED`.
    settings : ToySettings
        Sizes.
    """

    def __init__(self, encoding: str, settings: ToySettings) -> None:
        super().__init__()
        side, dim = settings.side, settings.dim
        self.heads = settings.heads
        self.before = nn.Linear(1, dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.after = nn.Linear(dim, 2)
        self.added: Any = None  # (side * side, dim)
        if encoding == "learned":
            self.added = nn.Parameter(torch.empty(side * side, dim))
            nn.init.trunc_normal_(self.added, std=0.2)
        elif encoding == "sincos":
            self.added = build_sincos2d_pos_embed([side, side], dim, _BASE)
        self.turn = rope(encoding, side, dim // settings.heads)
        self.bias = distance_bias(side, self.heads) if encoding == "alibi" else None

    def forward(self, scalars: Tensor) -> Tensor:
        """Return (n, 2) places from (n, 1) scalars."""
        x = self.before(scalars)  # (n, dim)
        if self.added is not None:
            x = x + self.added
        n, dim = x.shape
        q, k, v = self.qkv(x).reshape(n, 3, self.heads, -1).permute(1, 2, 0, 3)
        if self.turn is not None:
            q, k = rotated(q, self.turn), rotated(k, self.turn)
        # fused: explicit weights, (heads, n, n), take twice as long
        mixed = scaled_dot_product_attention(q, k, v, attn_mask=self.bias)
        return self.after(mixed.transpose(0, 1).reshape(n, dim))


def rope(encoding: str, side: int, width: int) -> Tensor | None:
    """Return the angle of every token and pair of channels, (n, width / 2), or None.

    One number along the rows of the whole grid ("rope-1d"), or half of the channels
    for y and half for x.
    """
    at = torch.arange(side * side, dtype=torch.float32)
    places = {"rope-1d": [at], "rope-2d": [at // side, at % side]}.get(encoding)
    if places is None:
        return None
    n = width // 2 // len(places)
    speed = _BASE ** (-torch.arange(n, dtype=torch.float32) / n)
    return torch.cat([place[:, None] * speed for place in places], dim=1)


def rotated(x: Tensor, angles: Tensor) -> Tensor:
    """Turn neighbouring channels of (heads, n, width) by their angle."""
    even, odd = x[..., 0::2], x[..., 1::2]
    cos, sin = angles.cos(), angles.sin()
    pairs = (even * cos - odd * sin, odd * cos + even * sin)
    return torch.stack(pairs, dim=-1).flatten(-2)


def distance_bias(side: int, heads: int) -> Tensor:
    """Return ALiBi's (heads, n, n) bias: no wrapping, slopes fixed by head."""
    at = torch.arange(side * side)
    y, x = at // side, at % side
    d = torch.hypot((y[:, None] - y).float(), (x[:, None] - x).float())
    slopes = 2.0 ** (-8.0 * torch.arange(1, heads + 1) / heads)
    return -slopes[:, None, None] * (d / d.max())


def places(side: int) -> Tensor:
    """Return x and y of every token, (n, 2), from 0 to 1."""
    line = torch.linspace(0, 1, side)
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y], dim=-1).reshape(-1, 2)


def train(encoding: str, settings: ToySettings) -> dict[str, Any]:
    """Train one encoding; return its losses, what it says in the end, and the time."""
    torch.manual_seed(settings.seed)
    scalars = torch.rand(settings.side**2, 1)
    layer = ToyLayer(encoding, settings)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=settings.lr, weight_decay=0.0)
    wanted = places(settings.side)
    losses = []
    started = time.perf_counter()
    for _ in range(settings.steps):
        said = layer(scalars)
        loss = (said - wanted).abs().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return {
        "encoding": encoding,
        "loss": losses[-1],
        "losses": losses[:: max(1, settings.steps // 100)],
        "said": np.round(said.detach().numpy(), 4).tolist(),
        "seconds": time.perf_counter() - started,
    }


def main(argv: Sequence[str] | None = None) -> int:
    options = parser(__doc__)
    options.add_argument("--steps", type=int, default=ToySettings.steps)
    options.add_argument("--out", type=Path, default=RESULTS / "toy.jsonl")
    options.add_argument("--figure", type=Path, default=RESULTS / "toy.png")
    args = options.parse_args(argv)
    settings = ToySettings(steps=200 if args.quick else args.steps)
    if args.quick:
        settings = ToySettings(side=12, steps=200, lr=5e-3)
    results = Results(args.out)
    found = {}
    for encoding in PUBLISHED:
        key = json.dumps({"encoding": encoding, **asdict(settings)}, sort_keys=True)
        found[encoding] = results.kept(key, lambda e=encoding: train(e, settings))
    report(PART, f"L1 loss after {settings.steps} steps", table(_HEAD, rows(found)))
    draw(args.figure, found, settings.side)
    kept = {e: {"loss": r["loss"], "seconds": r["seconds"]} for e, r in found.items()}
    save(PART, {"settings": asdict(settings), "encodings": kept})
    return 0


_HEAD = ("encoding", "loss", "published", "seconds")
_TITLES = {
    "learned": "learned table",
    "sincos": "sines",
    "rope-1d": "RoPE, one axis",
    "rope-2d": "RoPE, two axes",
    "alibi": "ALiBi",
    "nope": "none",
}


def rows(found: dict[str, dict[str, Any]]) -> list[list[Any]]:
    """Return a row for each encoding."""
    return [
        [
            _TITLES[encoding],
            f"{row['loss']:.4f}",
            f"{PUBLISHED[encoding]:.4f}",
            f"{row['seconds']:.0f}",
        ]
        for encoding, row in found.items()
    ]


def draw(path: Path, found: dict[str, dict[str, Any]], side: int) -> None:
    """Write the figure: x as red and y as blue of what each encoding says."""
    figure = Figure(figsize=(9.6, 3.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    names = list(found)
    axes = figure.subplot_mosaic(
        [["loss", "target", *names[:3]], ["loss", ".", *names[3:]]],
        width_ratios=(2.4, 1, 1, 1, 1),
    )
    shown = {"target": places(side).numpy()}
    shown |= {name: np.array(row["said"]) for name, row in found.items()}
    for name, said in shown.items():
        x, y = np.clip(said, 0, 1).reshape(side, side, 2).transpose(2, 0, 1)
        axes[name].imshow(np.stack([x, np.zeros_like(x), y], axis=-1))
        axes[name].set_title(_TITLES.get(name, "wanted"), fontsize=9)
        axes[name].set_axis_off()
    for name, row in found.items():
        at = np.linspace(0, 1, len(row["losses"]))
        # without an encoding the curve lies on that of ALiBi
        style = ":" if name == "nope" else "-"
        axes["loss"].plot(at, row["losses"], style, label=_TITLES[name], lw=1.2)
    axes["loss"].set_yscale("log")
    axes["loss"].set_xlabel("share of the training")
    axes["loss"].set_ylabel("L1 loss")
    axes["loss"].legend(frameon=False, fontsize=8)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path)


if __name__ == "__main__":
    raise SystemExit(main())
