"""DVT's stage 1: what an image shows, apart from where in the frame it stands.

Many crops of one image show the same things at other places of the frame. A field F
over the image (what is there), a map G over the frame (what place adds) and a small
network for what is left are fitted to the features of all crops; F over the whole
image is the result. Only this module knows the crops, the field and its fit. Made for
a CPU: the field is a pyramid of dense grids, which needs no hashing, and presets say
how long is worth it.

A crop's tokens are placed at the middles of their patches; the reference spreads them
from border to border, up to half a patch off. Its weight decay acts as none.

References
----------
Yang et al. (2024), "Denoising Vision Transformers", ECCV, arXiv:2401.02957.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn.functional import cosine_similarity, grid_sample, interpolate, relu

from napari_alibi_seg._base import Backbone, FloatArray, SettingsError

__all__ = [
    "FIELD_PRESETS",
    "FieldMaps",
    "FieldSettings",
    "FieldStep",
    "field_bytes",
    "fit_image",
    "iter_fit_field",
    "iter_fit_image",
]

_Count = Annotated[int, Field(ge=1)]
# Share of the frame and ratio of the sides of a crop.
_AREA, _ASPECT = (0.1, 0.5), (3 / 4, 4 / 3)
_COARSEST = 16
_START = 1e-4
_FRAME_STD = 0.02
_RESIDUAL_WEIGHT, _RESIDUAL_SPARSITY = 0.1, 0.02
_BETAS, _EPS = (0.9, 0.99), 1e-15
_WARM_UP, _LAST_LR = 0.1, 0.1


class FieldSettings(BaseModel):
    """How a field is fitted.

    Attributes
    ----------
    views : int
        Crops besides the whole image; each costs a forward pass of the backbone.
    steps : int
        Of Adam.
    batch : int
        Tokens a step.
    levels, finest : int
        Grids of the pyramid, and cells along a side of the finest; the coarsest has
        16.
    width : int
        Channels of a grid.
    lr : float
        Highest learning rate.
    seed : int
        Of crops, starts and batches.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    views: int = Field(default=48, ge=2)
    steps: _Count = 800
    batch: _Count = 2048
    levels: int = Field(default=8, ge=1, le=32)
    finest: int = Field(default=96, ge=_COARSEST, le=2048)
    width: _Count = 8
    lr: float = Field(default=0.01, gt=0)
    seed: int = Field(default=0, ge=0)

    @property
    def sides(self) -> list[int]:
        """Cells along a side of every grid.

        Examples
        --------
        >>> FieldSettings(levels=3, finest=64).sides
        [16, 32, 64]
        """
        if self.levels == 1:
            return [self.finest]
        growth = (self.finest / _COARSEST) ** (1 / (self.levels - 1))
        # the small sum keeps what is whole from being rounded down
        return [int(_COARSEST * growth**i + 1e-6) for i in range(self.levels)]


FIELD_PRESETS = {
    "small": FieldSettings(),
    "medium": FieldSettings(views=192, steps=3000, levels=10, finest=192),
    "paper": FieldSettings(views=768, steps=20_000, levels=16, finest=1024),
}


@dataclass(frozen=True, slots=True)
class FieldMaps:
    """What was told apart, on the token grid of the whole image.

    Attributes
    ----------
    semantic : (h, w, C) float32
        F: what the image shows. Up to a constant, which G may carry.
    raw : (h, w, C) float32
        Features of the backbone.
    artefact : (h, w, C) float32
        G: what place in the frame adds.
    residual : (h, w, C) float32
        What depends on both, as the small network says.
    seconds : float
        From the first crop to the end.
    """

    semantic: FloatArray
    raw: FloatArray
    artefact: FloatArray
    residual: FloatArray
    seconds: float


@dataclass(frozen=True, slots=True)
class FieldStep:
    """Progress of a fit.

    Attributes
    ----------
    stage : {"crops", "field"}
        What is going on.
    done, total : int
        Crops or steps.
    loss : float or None
        Of the step.
    result : FieldMaps or None
        With the last step.
    """

    stage: str
    done: int
    total: int
    loss: float | None = None
    result: FieldMaps | None = None


def field_bytes(settings: FieldSettings, embed_dim: int, grid: tuple[int, int]) -> int:
    """Return about how much memory a fit takes: crops, field and optimiser.

    Examples
    --------
    >>> round(field_bytes(FIELD_PRESETS["small"], 384, (37, 37)) / 1e6)
    138
    """
    crops = (settings.views + 1) * math.prod(grid) * embed_dim
    cells = sum(side**2 for side in settings.sides) * settings.width
    learned = cells + math.prod(grid) * embed_dim + 2 * embed_dim**2
    batch = settings.batch * (6 * embed_dim + settings.levels * settings.width)
    return 4 * (crops + 4 * learned + batch)


def fit_image(backbone: Backbone, image: Tensor, settings: FieldSettings) -> FieldMaps:
    """Fit a field to one image and return what it told apart; see `iter_fit_image`."""
    result = None
    for step in iter_fit_image(backbone, image, settings):
        result = step.result
    assert result is not None
    return result


def iter_fit_image(
    backbone: Backbone, image: Tensor, settings: FieldSettings
) -> Iterator[FieldStep]:
    """Fit a field to one image, step by step; stop iterating to cancel.

    Parameters
    ----------
    backbone : Backbone
        Whose features are told apart.
    image : (3, H, W) float tensor
        Normalised with `mean` and `std`; sides are multiples of the patch size.
    settings : FieldSettings
        For example one of `FIELD_PRESETS`.

    Yields
    ------
    FieldStep
        Every crop, then every step; the last one has `result`.

    Raises
    ------
    SettingsError
        If `image` has another shape.
    DeviceMemoryError
        If the device cannot hold one crop.
    """
    if image.ndim != 3 or image.shape[0] != 3:
        raise SettingsError(
            f"`image` must be (3, H, W), got {tuple(image.shape)}. Give one image."
        )
    started = time.monotonic()
    rng = np.random.default_rng(settings.seed)
    shape = (int(image.shape[1]), int(image.shape[2]))
    total = settings.views + 1
    features, places = [], []
    for number in range(total):
        # the whole image comes last, as its tokens are those of the result
        is_whole = number == settings.views
        box = (0, 0, *shape) if is_whole else _draw_box(shape, rng)
        is_mirrored = not is_whole and bool(rng.random() < 0.5)
        tokens = _view(backbone, image, box, is_mirrored)
        features.append(tokens)
        places.append(_places(box, shape, tokens.shape[:2], is_mirrored))
        yield FieldStep("crops", number + 1, total)
    for step in iter_fit_field(torch.stack(features), torch.stack(places), settings):
        if step.result is not None:
            maps = step.result
            took = time.monotonic() - started
            maps = FieldMaps(
                maps.semantic, maps.raw, maps.artefact, maps.residual, took
            )
            step = FieldStep(step.stage, step.done, step.total, step.loss, maps)
        yield step


def _draw_box(
    shape: tuple[int, int], rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Return a crop: its corner, height and width."""
    height, width = shape
    area = rng.uniform(*_AREA) * height * width
    aspect = math.exp(rng.uniform(math.log(_ASPECT[0]), math.log(_ASPECT[1])))
    # of the frame's own shape, squeezed by the aspect
    own = width / height * aspect
    w = min(width, max(1, round(math.sqrt(area * own))))
    h = min(height, max(1, round(math.sqrt(area / own))))
    y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    return y, x, h, w


def _view(
    backbone: Backbone, image: Tensor, box: tuple[int, int, int, int], mirrored: bool
) -> Tensor:
    """Return the (h, w, C) tokens of a crop that was enlarged to the frame."""
    y, x, h, w = box
    crop = image[None, :, y : y + h, x : x + w].float()
    if (h, w) != tuple(image.shape[1:]):
        size = list(image.shape[1:])
        crop = interpolate(crop, size, mode="bicubic", antialias=True)
    crop = crop.flip(3) if mirrored else crop
    tokens = backbone.patch_features(crop.contiguous())[0].permute(1, 2, 0)
    # an inference tensor may not take part in the fit
    with torch.inference_mode(False):
        return tokens.float().clone()


def _places(
    box: tuple[int, int, int, int],
    shape: tuple[int, int],
    grid: tuple[int, ...],
    mirrored: bool,
) -> Tensor:
    """Return x and y of every token in the image, (h, w, 2), from 0 to 1."""
    y, x, h, w = box
    down = (y + h * (torch.arange(grid[0]) + 0.5) / grid[0]) / shape[0]
    along = (x + w * (torch.arange(grid[1]) + 0.5) / grid[1]) / shape[1]
    along = along.flip(0) if mirrored else along
    yy, xx = torch.meshgrid(down, along, indexing="ij")
    return torch.stack([xx, yy], dim=-1)


# ------------------------------------------------------------------------------ the fit


def iter_fit_field(
    features: Tensor, places: Tensor, settings: FieldSettings
) -> Iterator[FieldStep]:
    """Fit a field to the features of crops, step by step.

    Parameters
    ----------
    features : (V, h, w, C) float tensor
        Of every crop; of the whole image last.
    places : (V, h, w, 2) float tensor
        x and y in the image, 0 to 1, of every token.
    settings : FieldSettings
        `views` does not matter here.

    Yields
    ------
    FieldStep
        The last one has `result`.
    """
    started = time.monotonic()
    fit = _Fit(features, places, settings)
    for number in range(1, settings.steps + 1):
        loss = fit.step(number)
        if number < settings.steps:
            yield FieldStep("field", number, settings.steps, loss)
    maps = fit.maps(time.monotonic() - started)
    yield FieldStep("field", settings.steps, settings.steps, loss, maps)


class _Fit:
    """Everything that is learned. Its numbers come from its own generator only."""

    def __init__(
        self, features: Tensor, places: Tensor, settings: FieldSettings
    ) -> None:
        self._settings = settings
        self._rng = torch.Generator().manual_seed(settings.seed)
        self._whole = features[-1], places[-1]
        self._grid = (int(features.shape[1]), int(features.shape[2]))
        n = self._n = int(features.shape[3])
        device = features.device
        self._y = features.reshape(-1, n)  # (V h w, C)
        self._u = places.reshape(-1, 2).to(device)
        with torch.inference_mode(False):
            self._grids = [
                self._uniform((1, settings.width, side, side), _START, device)
                for side in settings.sides
            ]
            widths = (settings.levels * settings.width, n // 2 or 1, n)
            self._head = self._layers(widths, device)
            small = n // 4 or 1
            self._rest = self._layers((n, small, small, n), device)
            noise = torch.randn(math.prod(self._grid), n, generator=self._rng)
            self._frame = (_FRAME_STD * noise).to(device).requires_grad_()
        learned = [*self._grids, *self._head, *self._rest, self._frame]
        self._optimizer = torch.optim.Adam(
            learned, lr=settings.lr, betas=_BETAS, eps=_EPS
        )

    def _uniform(
        self, shape: tuple[int, ...], bound: float, device: torch.device
    ) -> Tensor:
        values = torch.empty(shape).uniform_(-bound, bound, generator=self._rng)
        return values.to(device).requires_grad_()

    def _layers(self, widths: tuple[int, ...], device: torch.device) -> list[Tensor]:
        """Return weights and biases in turn, as `nn.Linear` begins them."""
        out = []
        for n_in, n_out in itertools.pairwise(widths):
            bound = n_in**-0.5
            out.append(self._uniform((n_out, n_in), bound, device))
            out.append(self._uniform((n_out,), bound, device))
        return out

    def _field(self, u: Tensor) -> Tensor:
        """Return F at (N, 2) places, (N, C)."""
        at = (2 * u - 1).reshape(1, 1, -1, 2)
        levels = [
            grid_sample(grid, at, align_corners=True, padding_mode="border")
            for grid in self._grids
        ]  # (1, width, 1, N) each
        return _through(self._head, torch.cat(levels, dim=1)[0, :, 0].T)

    def step(self, number: int) -> float:
        """Do one step; return the loss of what is fitted."""
        settings = self._settings
        for group in self._optimizer.param_groups:
            group["lr"] = settings.lr * _rate(number, settings.steps)
        with torch.inference_mode(False), torch.enable_grad():
            chosen = torch.randint(
                len(self._y), (settings.batch,), generator=self._rng
            ).to(self._y.device)
            y, cell = self._y[chosen], chosen % len(self._frame)
            semantic, frame = self._field(self._u[chosen]), self._frame[cell]
            if number <= settings.steps / 2:
                loss = total = _distance(semantic + frame, y)
            else:
                # from here on the frame is fixed and the small network learns the rest
                known = semantic + frame.detach()
                rest = _through(self._rest, y)
                loss = _distance(known + rest.detach(), y)
                left = (rest - (y - known).detach()).square().mean()
                total = loss + _RESIDUAL_WEIGHT * left
                total = total + _RESIDUAL_SPARSITY * rest.abs().mean()
            self._optimizer.zero_grad(set_to_none=True)
            total.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
        return float(loss.detach())

    def maps(self, seconds: float) -> FieldMaps:
        """Return what was learned over the whole image."""
        raw, places = self._whole
        with torch.no_grad():
            semantic = self._field(places.reshape(-1, 2).to(raw.device))
            rest = _through(self._rest, raw.reshape(-1, self._n))

        def on_grid(values: Tensor) -> FloatArray:
            return values.detach().reshape(*self._grid, self._n).cpu().numpy().copy()

        return FieldMaps(
            on_grid(semantic),
            on_grid(raw),
            on_grid(self._frame),
            on_grid(rest),
            seconds,
        )


def _through(layers: list[Tensor], x: Tensor) -> Tensor:
    """Apply linear layers with ReLU in between."""
    n = len(layers) // 2
    for i in range(n):
        x = x @ layers[2 * i].T + layers[2 * i + 1]
        x = relu(x) if i < n - 1 else x
    return x


def _distance(said: Tensor, wanted: Tensor) -> Tensor:
    cosine = cosine_similarity(said, wanted, dim=1).mean()
    return (said - wanted).square().mean() + 1 - cosine


def _rate(number: int, steps: int) -> float:
    """Return the share of the learning rate: a short rise, then half a cosine."""
    warm = max(1, round(_WARM_UP * steps))
    if number <= warm:
        return number / warm
    share = (number - warm) / max(1, steps - warm)
    return _LAST_LR + (1 - _LAST_LR) * 0.5 * (1 + math.cos(math.pi * share))
