"""DVT's stage 2: train a denoiser on pairs of raw features and fitted fields.

`iter_train_denoiser` first fits a field (stage 1) to every crop, each kept in a file of
its own, then trains one transformer block to do in one pass what the fits took minutes
for. Both parts go on where they were stopped: a crop is a function of its number, a
batch of the step. Only this module knows the files of such a run:

``run.json`` what was asked for; ``pairs/*.npz`` raw features and field of a crop;
``checkpoint.pt`` in the layout of the reference's training files; ``<name>.pth``, the
result, in that of its released ones.

References
----------
Yang et al. (2024), "Denoising Vision Transformers", ECCV, arXiv:2401.02957.
"""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from zipfile import BadZipFile

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn.functional import cosine_similarity

from napari_alibi_seg._base import OutputError, SettingsError, WeightsError
from napari_alibi_seg.data import write_bytes_atomic, write_text_atomic
from napari_alibi_seg.distill._augment import take_crop
from napari_alibi_seg.distill._pool import Pool, open_pool
from napari_alibi_seg.distill._settings import DataSettings
from napari_alibi_seg.features import (
    FIELD_PRESETS,
    ViTBackbone,
    iter_fit_image,
    load_backbone,
    load_denoiser,
    new_denoiser,
    read_checkpoint,
)

__all__ = ["DenoiserSettings", "DenoiserStep", "iter_train_denoiser", "train_denoiser"]

_BETAS, _WEIGHT_DECAY = (0.9, 0.999), 1e-5
_WARM_UP, _LAST_LR = 0.15, 1e-6
_REFERENCE_BATCH = 256
_CHECKPOINT, _RUN, _PAIRS = "checkpoint.pt", "run.json", "pairs"
_Count = Annotated[int, Field(ge=1)]


class DenoiserSettings(BaseModel):
    """How a denoiser is trained.

    Attributes
    ----------
    backbone : str
        Whose features are denoised: a name, or a weights file.
    name : str
        Of the result.
    data : DataSettings
        Where crops come from; only folders, shares, zoom and rotation matter.
    crop_px : int
        Side of a crop, rounded down to whole patches; the tile size that the denoiser
        is for. Its position table has one row a token.
    pairs : int
        Crops that a field is fitted to.
    field : {"small", "medium", "paper"}
        How thoroughly.
    steps, batch : int
        Of the training.
    lr : float
        Learning rate of 256 crops a step; that of other batches goes with the square
        root.
    seed : int
        Of crops, weights and batches.
    checkpoint_s : float
        Seconds between checkpoints of the training.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: str
    name: str = Field(default="denoiser", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    data: DataSettings = DataSettings(folder_share=0.0, synthetic_share=1.0)
    crop_px: int = Field(default=518, ge=16, le=4096)
    pairs: _Count = 64
    field: Literal["small", "medium", "paper"] = "small"
    steps: _Count = 2000
    batch: _Count = 16
    lr: float = Field(default=2e-4, gt=0)
    seed: int = Field(default=0, ge=0)
    checkpoint_s: float = Field(default=120.0, ge=0)


@dataclass(frozen=True, slots=True)
class DenoiserStep:
    """Progress of a run.

    Attributes
    ----------
    stage : {"fields", "training"}
        What is going on.
    done, total : int
        Fields or steps.
    loss : float or None
        Of the step.
    result : Path or None
        The checkpoint, with the last step.
    """

    stage: str
    done: int
    total: int
    loss: float | None = None
    result: Path | None = None


def train_denoiser(settings: DenoiserSettings, out: Path | str, **options: Any) -> Path:
    """Train a denoiser and return its file; see `iter_train_denoiser`."""
    result = None
    for step in iter_train_denoiser(settings, out, **options):
        result = step.result
    assert result is not None
    return result


def iter_train_denoiser(
    settings: DenoiserSettings, out: Path | str, *, device: str = "auto"
) -> Iterator[DenoiserStep]:
    """Fit fields and train a denoiser on them, step by step.

    Parameters
    ----------
    settings : DenoiserSettings
        What to do.
    out : Path or str
        Folder of the run. One that lies there and was asked for the same goes on;
        closing the generator or Ctrl-C keeps what is done.
    device : {"auto", "cpu", "cuda", "cuda:<n>", "mps"}
        Where to compute.

    Yields
    ------
    DenoiserStep
        While a field is fitted, the fields done so far, many times. The last one has
        `result`, which `load_denoiser` and the cure ``+denoise=FILE`` take.

    Raises
    ------
    SettingsError
        If the settings do not fit the backbone, the data, or the run in `out`.
    WeightsError
        If the backbone's weights are absent or do not fit.
    OutputError
        If `out` cannot be written, or a file in it is damaged.
    """
    yield from _Run(settings, Path(out), device).steps()


class _Run:
    """A run in its folder."""

    def __init__(self, settings: DenoiserSettings, out: Path, device: str) -> None:
        self._settings, self._out = settings, out
        backbone = load_backbone(settings.backbone, device=device)
        if not isinstance(backbone, ViTBackbone):
            raise SettingsError(
                f"A denoiser is trained on a plain ViT, and {settings.backbone!r} is "
                "denoised or cured already. Name its backbone."
            )
        self._backbone = backbone
        self._tokens = settings.crop_px // backbone.patch_size
        if self._tokens < 2:
            raise SettingsError(
                f"`crop_px` must hold at least two patches of {backbone.patch_size} "
                f"px, got {settings.crop_px}."
            )
        self._pool: Pool = open_pool(settings.data)
        try:
            (out / _PAIRS).mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise OutputError(f"{str(out)!r} cannot be made: {err}.") from err
        self._begin()

    def _begin(self) -> None:
        """Write what this run is, or compare it with what lies there."""
        asked = json.loads(
            self._settings.model_dump_json(exclude={"backbone", "checkpoint_s"})
        )
        asked["data"].pop("folders")
        asked |= {
            "pictures": self._pool.fingerprint,
            "weights": {**self._backbone.identity, "name": ""},
        }
        path = self._out / _RUN
        if not path.is_file():
            write_text_atomic(path, json.dumps(asked, indent=1) + "\n")
            return
        try:
            there = json.loads(path.read_text(encoding="utf-8"))
            other = [key for key in asked if there.get(key) != asked[key]]
        except (OSError, ValueError, AttributeError) as err:
            raise OutputError(
                f"{str(path)!r} is damaged ({err}). Choose another folder."
            ) from err
        if other:
            raise SettingsError(
                f"The run in {str(self._out)!r} was started with other {other[0]}: "
                f"{there.get(other[0])!r} then, {asked[other[0]]!r} now. Go on with "
                "those, or choose another folder."
            )

    def steps(self) -> Iterator[DenoiserStep]:
        result = self._out / f"{self._settings.name}.pth"
        total = self._settings.steps
        if result.is_file():
            load_denoiser(result, device="cpu")  # a damaged one is no result
            yield DenoiserStep("training", total, total, None, result)
            return
        yield from self._fit()
        yield from self._train(result)

    # ------------------------------------------------------------------------- stage 1

    def _pair_path(self, number: int) -> Path:
        return self._out / _PAIRS / f"{number:05d}.npz"

    def _fit(self) -> Iterator[DenoiserStep]:
        total = self._settings.pairs
        for number in range(total):
            path = self._pair_path(number)
            if path.is_file():
                continue
            field = FIELD_PRESETS[self._settings.field]
            for step in iter_fit_image(self._backbone, self._crop(number), field):
                if step.result is not None:
                    raw, semantic = (
                        maps.astype(np.float16)
                        for maps in (step.result.raw, step.result.semantic)
                    )
                    file = io.BytesIO()
                    np.savez(file, raw=raw, semantic=semantic)
                    write_bytes_atomic(path, file.getvalue())
                else:
                    yield DenoiserStep("fields", number, total, step.loss)
            yield DenoiserStep("fields", number + 1, total)

    def _crop(self, number: int) -> Tensor:
        """Return the normalised crop of a number, (3, side, side)."""
        settings = self._settings
        rng = np.random.default_rng([settings.seed, number])
        side = self._tokens * self._backbone.patch_size
        crop = torch.from_numpy(take_crop(self._pool, rng, side, settings.data))
        mean, std = (
            torch.tensor(v).reshape(3, 1, 1)
            for v in (self._backbone.mean, self._backbone.std)
        )
        return (crop - mean) / std

    # ------------------------------------------------------------------------- stage 2

    def _train(self, result: Path) -> Iterator[DenoiserStep]:
        settings, device = self._settings, self._backbone.device
        model = new_denoiser(
            self._backbone.embed_dim, self._tokens, seed=settings.seed
        ).to(device)
        optimizer = torch.optim.AdamW(
            model.parameters(), betas=_BETAS, weight_decay=_WEIGHT_DECAY
        )
        first = self._restored(model, optimizer)
        saved, step = time.monotonic(), first
        try:
            for step in range(first + 1, settings.steps + 1):
                for group in optimizer.param_groups:
                    group["lr"] = _learning_rate(settings, step)
                raw, field = self._batch(step)
                loss = _distance(model(raw.to(device)), field.to(device))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                if time.monotonic() - saved >= settings.checkpoint_s:
                    self._save(model, optimizer, step)
                    saved = time.monotonic()
                if step < settings.steps:
                    yield DenoiserStep(
                        "training", step, settings.steps, float(loss.detach())
                    )
        except GeneratorExit:
            # closed at a yield: this step is whole. Anything else may be in between,
            # and the last checkpoint is what counts
            self._save(model, optimizer, step)
            raise
        write_bytes_atomic(result, _as_bytes({"denoiser": _plain(model)}))
        yield DenoiserStep("training", step, settings.steps, None, result)

    def _batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return raw features and fields of a step, (B, C, h, w) each."""
        settings = self._settings
        n = settings.pairs
        picks = range((step - 1) * settings.batch, step * settings.batch)
        numbers = [
            np.random.default_rng([settings.seed, 1, p // n]).permutation(n)[p % n]
            for p in picks
        ]
        raw, field = zip(*(self._pair(int(i)) for i in numbers), strict=True)
        return torch.stack(raw), torch.stack(field)

    def _pair(self, number: int) -> tuple[Tensor, Tensor]:
        path = self._pair_path(number)
        try:
            # from memory: numpy leaves a damaged file open
            file = io.BytesIO(path.read_bytes())
            with np.load(file, allow_pickle=False) as maps_by_name:
                maps = [
                    maps_by_name[key].astype(np.float32) for key in ("raw", "semantic")
                ]
            raw, field = (torch.from_numpy(m).permute(2, 0, 1) for m in maps)
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as err:
            raise OutputError(
                f"{str(path)!r} is damaged ({err}). Delete it: it is made again."
            ) from err
        return raw, field

    def _save(self, model: Any, optimizer: Any, step: int) -> None:
        contents = {
            "denoiser": _plain(model),
            "optimizer": optimizer.state_dict(),
            "step": step,
        }
        write_bytes_atomic(self._out / _CHECKPOINT, _as_bytes(contents))

    def _restored(self, model: Any, optimizer: Any) -> int:
        """Put weights and optimiser back as they were; return the steps done."""
        path = self._out / _CHECKPOINT
        if not path.is_file():
            return 0
        try:
            contents, _ = read_checkpoint(path)
            model.load_state_dict(contents["denoiser"])
            optimizer.load_state_dict(contents["optimizer"])
            return int(contents["step"])
        except (WeightsError, KeyError, RuntimeError, TypeError, ValueError) as err:
            raise OutputError(
                f"The checkpoint {str(path)!r} is damaged, or of something else. "
                "Delete it: the training begins again, the fields stay."
            ) from err


def _learning_rate(settings: DenoiserSettings, step: int) -> float:
    """Return the rate of a step: a rise over the first 15 %, then half a cosine."""
    highest = settings.lr * math.sqrt(settings.batch / _REFERENCE_BATCH)
    warm = max(1, round(_WARM_UP * settings.steps))
    if step <= warm:
        return highest * step / warm
    share = (step - warm) / max(1, settings.steps - warm)
    lowest = min(_LAST_LR, highest)
    return lowest + (highest - lowest) * 0.5 * (1 + math.cos(math.pi * share))


def _distance(said: Tensor, wanted: Tensor) -> Tensor:
    cosine = cosine_similarity(said, wanted, dim=1).mean()
    return (said - wanted).square().mean() + 1 - cosine


def _plain(model: Any) -> dict[str, Tensor]:
    return {key: value.detach().cpu() for key, value in model.state_dict().items()}


def _as_bytes(contents: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    torch.save(contents, file)
    return file.getvalue()
