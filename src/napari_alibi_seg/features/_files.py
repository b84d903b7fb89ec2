"""Weights on disk: reading them without running them, writing ours.

Only this module opens weights files. A `.safetensors` file holds plain arrays; a
`.pth` file is read with torch's restricted reader, and one that would need more than
tensors and containers is refused. A safetensors file of ours says in its metadata,
under "alibi_seg", what no tensor can say: ALiBi settings, heads, input
normalisation.
"""

from __future__ import annotations

import json
import pickle  # noqa: TID251 - for its exception class; nothing is unpickled with it
import re
import struct
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

import safetensors
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from torch import Tensor

from napari_alibi_seg._base import Alibi, SettingsError, WeightsError
from napari_alibi_seg.data import write_bytes_atomic

__all__ = [
    "FileMetadata",
    "read_checkpoint",
    "save_backbone",
]

_METADATA_KEY = "alibi_seg"
_MAX_METADATA_CHARS = 100_000
_TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".tar", ".ckpt")
# What torch's readers were seen to raise for cut, altered and foreign files, besides
# UnpicklingError.
_UNREADABLE = (
    *(RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError),
    *(AttributeError, struct.error),
)
_Triple = tuple[float, float, float]
_Stds = tuple[
    Annotated[float, Field(gt=0)],
    Annotated[float, Field(gt=0)],
    Annotated[float, Field(gt=0)],
]


class FileMetadata(BaseModel):
    """What a safetensors file of ours says about itself. Absent fields are unsaid.

    Attributes
    ----------
    alibi : Alibi or None
        None: position as stored. Whether it was said at all is `says_alibi`.
    num_heads : int
        Attention heads.
    mean, std : tuple of float
        Input normalisation of images in 0 to 1.
    norm_eps : float
        Epsilon of the LayerNorms.
    activation : {"gelu", "quick_gelu"}
        Of the MLPs.
    rope : bool
        Whether rotary embeddings belong to the model, where the layout cannot say.
    name, licence : str
        For people.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    alibi: Alibi | None = None
    num_heads: int | None = Field(default=None, ge=1, le=1024)
    mean: _Triple | None = None
    std: _Stds | None = None
    norm_eps: float | None = Field(default=None, gt=0, lt=1)
    activation: Literal["gelu", "quick_gelu"] | None = None
    rope: bool | None = None
    name: str | None = Field(default=None, max_length=200)
    licence: str | None = Field(default=None, max_length=2000)

    @field_validator("alibi", mode="before")
    @classmethod
    def _only_known_settings(cls, value: Any) -> Any:
        known = {f.name for f in fields(Alibi)}
        if isinstance(value, Mapping) and (unknown := set(value) - known):
            raise ValueError(f"has unknown settings {sorted(unknown)}")
        return value

    @property
    def says_alibi(self) -> bool:
        """Whether the file decides about ALiBi, be it that there is none."""
        return "alibi" in self.model_fields_set


def read_checkpoint(path: Path) -> tuple[Mapping[str, Any], FileMetadata]:
    """Read the tensors of a weights file, and what it says about itself.

    Parameters
    ----------
    path : Path
        A `.safetensors` file, or a torch file (`.pth`, `.pt`, `.bin`, `.tar`,
        `.ckpt`).

    Returns
    -------
    mapping, FileMetadata
        The contents as stored, on the CPU.

    Raises
    ------
    WeightsError
        If the file is absent, damaged, of another kind, or would run code.
    """
    if not path.is_file():
        raise WeightsError(f"There is no weights file {str(path)!r}.")
    if path.suffix.lower() == ".safetensors":
        return _read_safetensors(path)
    if path.suffix.lower() in _TORCH_SUFFIXES:
        return _read_torch(path), FileMetadata()
    raise WeightsError(
        f"{str(path)!r} is not a weights file: expected the ending .safetensors or "
        f"one of {', '.join(_TORCH_SUFFIXES)}."
    )


def _read_safetensors(path: Path) -> tuple[Mapping[str, Any], FileMetadata]:
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, ValueError) as err:
        raise WeightsError(
            f"{str(path)!r} is not a complete safetensors file ({err}). Fetch or copy "
            "it again."
        ) from err
    return tensors, _parse_metadata(metadata.get(_METADATA_KEY), path)


def _parse_metadata(text: str | None, path: Path) -> FileMetadata:
    if text is None:
        return FileMetadata()
    try:
        if len(text) > _MAX_METADATA_CHARS:
            raise ValueError(f"it has {len(text)} characters")
        return FileMetadata.model_validate(json.loads(text), strict=False)
    except (ValidationError, ValueError, TypeError, SettingsError) as err:
        raise WeightsError(
            f"The metadata {_METADATA_KEY!r} of {str(path)!r} cannot be understood: "
            f"{err}"
        ) from err


def _read_torch(path: Path) -> Mapping[str, Any]:
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as err:
        refused = re.search(r"GLOBAL (\S+)", str(err))
        if refused is None:
            raise _damaged(path, "it is not in torch's format") from err
        raise WeightsError(
            f"{str(path)!r} holds more than tensors ({refused.group(1)}) and will not "
            "be unpickled: that could run a stranger's code. If you trust it, convert "
            "it once with torch.load(path, weights_only=False) and "
            'torch.save(x["model"], new_path), taking the state dict alone, and give '
            "the new file."
        ) from err
    except _UNREADABLE as err:
        reason = str(err).splitlines() or [type(err).__name__]
        raise _damaged(path, reason[0][:300]) from err
    if not isinstance(contents, Mapping):
        raise WeightsError(
            f"{str(path)!r} holds a {type(contents).__name__}, expected a state dict."
        )
    return contents


def _damaged(path: Path, reason: str) -> WeightsError:
    return WeightsError(
        f"{str(path)!r} is not a complete torch weights file ({reason}). Fetch or copy "
        "it again."
    )


def save_backbone(
    path: Path | str, tensors: Mapping[str, Tensor], metadata: FileMetadata
) -> None:
    """Write a state dict with what no tensor can say, so that a path loads by itself.

    Parameters
    ----------
    path : Path or str
        Ends with `.safetensors`.
    tensors : mapping of str to Tensor
        A state dict of any layout that `load_backbone` reads.
    metadata : FileMetadata
        Only what was set is written.

    Raises
    ------
    SettingsError
        If `path` has another ending.
    OutputError
        If it cannot be written; a file that was there is as it was.

    Notes
    -----
    Same tensors and metadata, same bytes.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise SettingsError(f"`path` must end with .safetensors, got {str(path)!r}.")
    said = metadata.model_dump(mode="json", exclude_unset=True)
    plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    text = json.dumps(said, sort_keys=True)
    # save_file would leave a file that its owner alone can read
    write_bytes_atomic(path, safetensors.torch.save(plain, {_METADATA_KEY: text}))
