"""What a distillation does, as settings that a file can hold.

Only this module knows defaults, presets and limits. No torch: the command line's help
and a dry run need none.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from napari_alibi_seg._base import Alibi, SettingsError, validated

__all__ = [
    "PRESETS",
    "DataSettings",
    "DistillSettings",
    "LossSettings",
    "Stage",
    "StudentSettings",
    "TeacherSettings",
    "load_settings",
]

_Count = Annotated[int, Field(ge=1)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Weight = Annotated[float, Field(ge=0)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TeacherSettings(_Model):
    """Whose features are learned.

    Attributes
    ----------
    name : str
        A backbone of the registry, a weights file of a ViT, ``timm:<model>`` for any
        timm model whose weights `weights` holds, or ``self``: the moving average of
        the student, for training without a teacher.
    weights : Path or None
        State dict of a ``timm:`` model, under timm's names.
    num_heads : int or None
        Of a weights file whose tensors do not say.
    levels : tuple of int
        Feature levels of a CNN, pooled to the token grid and concatenated.
    std_levels : tuple of int
        Levels whose standard deviation within a token is a target as well.
    """

    name: str
    weights: Path | None = None
    num_heads: _Count | None = None
    levels: tuple[int, ...] = (0, 1, 2, 3)
    std_levels: tuple[int, ...] = (0, 1)

    @model_validator(mode="after")
    def _known_levels(self) -> TeacherSettings:
        unknown = set(self.std_levels) - set(self.levels)
        if unknown and "std_levels" in self.model_fields_set:
            raise ValueError(
                f"`std_levels` {sorted(unknown)} are not among `levels` {self.levels}"
            )
        return self

    @property
    def is_file(self) -> bool:
        """Whether `name` is the path of a weights file."""
        path = Path(self.name)
        return not self.name.startswith("timm:") and (
            path.suffix != "" or len(path.parts) > 1
        )


class StudentSettings(_Model):
    """The shape of a student that is not a copy of its teacher.

    Attributes
    ----------
    embed_dim, depth, num_heads, patch_size, registers, mlp_ratio
        As everywhere.
    table : (int, int) or None
        A learned position table of this grid instead of ALiBi.
    """

    embed_dim: _Count = 192
    depth: _Count = 8
    num_heads: _Count = 3
    patch_size: Annotated[int, Field(ge=2, le=32)] = 14
    registers: Annotated[int, Field(ge=0)] = 4
    mlp_ratio: Annotated[float, Field(gt=0)] = 4.0
    table: tuple[_Count, _Count] | None = None


class DataSettings(_Model):
    """Where crops come from and what is done to them.

    Attributes
    ----------
    folders : tuple of Path
        Images of any readable format, searched recursively; stacks by plane.
    folder_share, synthetic_share, packaged_share, mosaic_share : float
        Relative numbers of crops from the folders, from the microstructure
        generator, from scikit-image's packaged pictures, and of mosaics with known
        regions. A mosaic fills regions with textures from the other sources.
    zoom : (float, float)
        Range of the magnification, drawn evenly in its logarithm.
    invert, tint, rotate, degrade : float
        Share of crops that are inverted, tinted, turned by any angle, and (for the
        student alone, the teacher sees the clean crop) made noisy, blurred or uneven.
    max_noise : float
        Largest standard deviation of the noise, of an intensity range of 1.
    distinct_crops : int or None
        Number of different crops; their targets are then computed once and kept on
        disk. None: every crop is new and its target is computed when it is needed.
    """

    folders: tuple[Path, ...] = ()
    folder_share: _Weight = 1.0
    synthetic_share: _Weight = 0.0
    packaged_share: _Weight = 0.0
    mosaic_share: _Weight = 0.0
    zoom: tuple[float, float] = (0.5, 2.0)
    invert: _Share = 0.3
    tint: _Share = 0.2
    rotate: _Share = 0.5
    degrade: _Share = 0.5
    max_noise: _Share = 0.25
    distinct_crops: _Count | None = None

    @model_validator(mode="after")
    def _some_source(self) -> DataSettings:
        if not 0.05 <= self.zoom[0] <= self.zoom[1] <= 16:
            raise ValueError("`zoom` must satisfy 0.05 <= low <= high <= 16")
        if self.folder_share > 0 and not self.folders:
            raise ValueError("`folders` is empty, but `folder_share` is not 0")
        plain = self.folder_share + self.synthetic_share + self.packaged_share
        if plain == 0:
            raise ValueError("all shares are 0: there is nothing to learn from")
        return self


class LossSettings(_Model):
    """What is minimised; a weight of 0 switches a term off.

    Attributes
    ----------
    cosine : float
        ``1 - cos`` over channels, mean over tokens.
    smooth_l1 : float
        Huber loss on targets, as they are or standardised.
    standardise : bool
        Standardise targets per channel, over the first crops.
    few_shot : float
        On mosaics: a ridge regression from a few tokens of every region must tell the
        region of all others (Bertinetto et al. 2019, "Meta-learning with
        differentiable closed-form solvers").
    blank : tuple of int or "auto"
        Target channels that are set to 0 because they carry position. "auto" finds
        them by the per-channel transfer probe.
    blank_above : float
        Transfer R2 of a channel above which "auto" blanks it.
    equivariance : bool
        Turn, flip and roll the student's input and undo it on its output.
    roll : bool
        Roll input and target by the same whole patches.
    hidden : float
        Share of patches the student does without, in blocks.
    """

    cosine: _Weight = 1.0
    smooth_l1: _Weight = 0.0
    standardise: bool = False
    few_shot: _Weight = 0.0
    blank: tuple[int, ...] | Literal["auto"] = ()
    blank_above: float = 0.3
    equivariance: bool = False
    roll: bool = False
    hidden: _Share = 0.0

    @model_validator(mode="after")
    def _some_loss(self) -> LossSettings:
        if self.cosine + self.smooth_l1 + self.few_shot == 0:
            raise ValueError("all weights are 0: there is nothing to learn")
        return self

    @property
    def wants_targets(self) -> bool:
        """Whether a term compares the student with its teacher."""
        return self.cosine > 0 or self.smooth_l1 > 0


class Stage(_Model):
    """A stretch of the training with crops of one size.

    Attributes
    ----------
    crop_px : int
        Side of the crops, rounded down to whole patches.
    steps : int
        Updates of the weights.
    batch : int
        Crops to an update, over all devices and accumulated parts.
    lr : float
        Peak learning rate.
    warmup_steps : int
        Linear rise at the start.
    schedule : {"constant", "cosine"}
        After the rise; "cosine" falls to a hundredth.
    """

    crop_px: Annotated[int, Field(ge=16)]
    steps: _Count
    batch: _Count
    lr: Annotated[float, Field(gt=0)]
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    schedule: Literal["constant", "cosine"] = "cosine"


class DistillSettings(_Model):
    """A whole distillation.

    Attributes
    ----------
    name : str
        Of the result.
    licence : str or None
        Of the resulting weights, for the file and its card.
    teacher, data, losses
        See there.
    student : StudentSettings or None
        None: the teacher itself without its position encoding.
    alibi : Alibi or None
        Bias of the student. None with a position table, and only then.
    stages : tuple of Stage
        In order.
    weight_decay : float
        Of AdamW, on matrices.
    clip : float or None
        Largest norm of the gradient.
    accumulate : int
        Parts of a batch that are computed one after the other.
    ema : float or None
        Decay of the moving average that becomes the result; None takes the last
        weights.
    precision : str
        Lightning Fabric's: "32-true", "bf16-mixed", "16-mixed".
    workers : int
        Processes that prepare crops.
    checkpoint_s : float
        Seconds between checkpoints.
    probe_every : int or None
        Steps between transfer probes.
    log_every : int
        Steps between rows of the metrics.
    dtype : {"float32", "float16"}
        Of the resulting file.
    seed : int
        Of weights, crops and their order.
    """

    name: str = Field(default="student", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    licence: str | None = None
    teacher: TeacherSettings
    student: StudentSettings | None = None
    alibi: Alibi | None = Alibi()
    data: DataSettings = DataSettings(folder_share=0, synthetic_share=1)
    losses: LossSettings = LossSettings()
    stages: tuple[Stage, ...] = Field(min_length=1)
    weight_decay: _Weight = 0.01
    clip: float | None = Field(default=1.0, gt=0)
    accumulate: _Count = 1
    ema: float | None = Field(default=None, gt=0, lt=1)
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    workers: Annotated[int, Field(ge=0)] = 1
    checkpoint_s: Annotated[float, Field(ge=0)] = 120.0
    probe_every: _Count | None = None
    log_every: _Count = 20
    dtype: Literal["float32", "float16"] = "float32"
    seed: Annotated[int, Field(ge=0)] = 1025

    @model_validator(mode="before")
    @classmethod
    def _table_instead(cls, values: Any) -> Any:
        """Leave out the default bias where there is a table; TOML has no null."""
        if not isinstance(values, dict) or "alibi" in values:
            return values
        student = values.get("student")
        table = (
            student.get("table")
            if isinstance(student, dict)
            else getattr(student, "table", None)
        )
        return values if table is None else {**values, "alibi": None}

    @model_validator(mode="after")
    def _agree(self) -> DistillSettings:
        table = None if self.student is None else self.student.table
        if (self.alibi is None) != (table is not None):
            raise ValueError("the student needs either `alibi` or `student.table`")
        if self.teacher.name == "self" and self.student is None:
            raise ValueError("teacher 'self' needs `student`, whose shape it has")
        if self.teacher.name == "self" and self.ema is None:
            raise ValueError("teacher 'self' is the moving average: set `ema`")
        if self.teacher.name == "self" and self.losses.blank:
            raise ValueError("teacher 'self' has no fixed channels to blank")
        if self.teacher.name == "self" and self.data.distinct_crops is not None:
            raise ValueError("the targets of teacher 'self' change: none can be kept")
        if self.losses.few_shot > 0 and self.data.mosaic_share == 0:
            raise ValueError("`losses.few_shot` needs `data.mosaic_share` above 0")
        for stage in self.stages:
            if stage.batch % self.accumulate:
                raise ValueError("`batch` must be a multiple of `accumulate`")
        return self

    @property
    def n_steps(self) -> int:
        """Updates over all stages."""
        return sum(stage.steps for stage in self.stages)


# Steps for a set of 118,000 images (COCO train2017) in the released recipe: 15 passes
# in batches of 256 at 224 px, 1 pass in batches of 32 at 518 px.
PRESETS: dict[str, dict[str, Any]] = {
    "released": {
        "stages": [
            {"crop_px": 224, "steps": 6900, "batch": 256, "lr": 5e-4},
            {"crop_px": 518, "steps": 3700, "batch": 32, "lr": 1e-5},
        ],
        "losses": {"cosine": 1.0},
        "precision": "bf16-mixed",
    },
    "small": {
        "stages": [
            {"crop_px": 168, "steps": 3000, "batch": 16, "lr": 5e-4},
            {"crop_px": 336, "steps": 200, "batch": 4, "lr": 5e-5},
        ],
        "losses": {"cosine": 1.0},
    },
}


def load_settings(path: Path) -> DistillSettings:
    """Read settings from a TOML file; relative paths are relative to the file.

    Raises
    ------
    SettingsError
        If the file cannot be read or says something unknown or impossible.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as err:
        raise SettingsError(
            f"The settings {str(path)!r} cannot be read as TOML: {err}."
        ) from err
    settings = validated(DistillSettings, values)
    here = path.parent
    data = settings.data.model_copy(
        update={"folders": tuple(here / folder for folder in settings.data.folders)}
    )
    teacher = settings.teacher
    if teacher.is_file:
        teacher = teacher.model_copy(update={"name": str(here / teacher.name)})
    if teacher.weights is not None:
        teacher = teacher.model_copy(update={"weights": here / teacher.weights})
    return settings.model_copy(update={"data": data, "teacher": teacher})
