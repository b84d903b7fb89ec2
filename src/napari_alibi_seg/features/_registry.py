"""Named backbones as data.

Only this module reads `backbones.toml`; a new backbone is a new table there. It knows
where weights are published and what they are, not where they lie on this machine
(`_weights`) nor how they load (`_load`). No torch.
"""

from __future__ import annotations

import difflib
import tomllib
from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from napari_alibi_seg._base import Alibi, SettingsError, validated

__all__ = [
    "DEFAULT_BACKBONE",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "BackboneSpec",
    "backbone_spec",
    "list_backbones",
]

DEFAULT_BACKBONE = "alibi-dinov2-s"
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_Count = Annotated[int, Field(ge=1)]
_Triple = tuple[float, float, float]


class BackboneSpec(BaseModel):
    """One row of the registry.

    Attributes
    ----------
    name, title : str
        What the user types, and what a list shows.
    kind : {"vit", "denoised", "classical"}
        A ViT; a row's ViT with a DVT denoiser behind it; features without weights.
    repo, file : str
        Repository on the Hugging Face hub and the file in it, or `url` and `file`.
    url : str or None
        Where the file is published, if not on the hub.
    bundled : bool
        Whether `file` lies in the package itself.
    sha256 : str or None
        Only where a public source states it.
    also : str or None
        Another repository with the same weights, for the reader.
    gated : str or None
        The authors' own repository, if access to it has to be asked for.
    licence : str
        Of the weights.
    size_mb : int or None
        Of the download.
    base : str or None
        The row whose features a "denoised" row denoises.
    timm : str or None
        timm's name of the architecture.
    patch_size, embed_dim, depth, num_heads, registers : int
        Checked against the file.
    position : {"table", "rope", "none", "alibi"}
        How the published model knows where a token is.
    alibi : Alibi or None
        Its settings, where `position` is "alibi".
    activation : {"gelu", "quick_gelu"}
        Of the MLPs.
    mean, std : tuple of float
        Input normalisation of images in 0 to 1.
    positional : tuple of int
        Channels that are known to follow position; what the cure `blank` sets to 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    title: str
    kind: Literal["vit", "denoised", "classical"] = "vit"
    repo: str | None = None
    file: str | None = None
    url: str | None = None
    bundled: bool = False
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    also: str | None = None
    gated: str | None = None
    licence: str
    size_mb: _Count | None = None
    base: str | None = None
    timm: str | None = None
    patch_size: _Count | None = None
    embed_dim: _Count | None = None
    depth: _Count | None = None
    num_heads: _Count | None = None
    registers: int = Field(default=0, ge=0)
    position: Literal["table", "rope", "none", "alibi"] = "table"
    alibi: Alibi | None = None
    activation: Literal["gelu", "quick_gelu"] = "gelu"
    mean: _Triple = IMAGENET_MEAN
    std: _Triple = IMAGENET_STD
    positional: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _complete(self) -> BackboneSpec:
        published = self.repo or self.url or self.bundled
        if self.kind != "classical" and not (self.file and published):
            raise ValueError("needs `file`, and `repo`, `url` or `bundled`")
        sizes = (self.patch_size, self.embed_dim, self.depth, self.num_heads)
        if self.kind == "vit" and None in sizes:
            raise ValueError("needs `patch_size`, `embed_dim`, `depth`, `num_heads`")
        if (self.kind == "denoised") != (self.base is not None):
            raise ValueError("`base` belongs to kind 'denoised' and to no other")
        if (self.position == "alibi") != (self.alibi is not None):
            raise ValueError("`alibi` belongs to position 'alibi' and to no other")
        return self

    @property
    def source(self) -> str:
        """Where the file is published, for a message."""
        if self.bundled:
            return "this package"
        if self.repo:
            return f"the Hugging Face repository {self.repo!r}"
        return self.url or "nowhere"


def _row(name: str, values: dict[str, Any]) -> BackboneSpec:
    return validated(BackboneSpec, {"name": name, **values})


@cache
def _rows() -> dict[str, BackboneSpec]:
    text = files(__package__).joinpath("backbones.toml").read_text(encoding="utf-8")
    return {name: _row(name, values) for name, values in tomllib.loads(text).items()}


def list_backbones() -> list[BackboneSpec]:
    """Return all named backbones, in the order of the registry.

    Examples
    --------
    >>> [spec.name for spec in list_backbones()][:2]
    ['classical', 'alibi-tiny']
    """
    return [*_rows().values()]


def backbone_spec(name: str) -> BackboneSpec:
    """Return the row of a named backbone.

    Raises
    ------
    SettingsError
        If there is none; the message has the nearest names.

    Examples
    --------
    >>> backbone_spec("dinov2-s").embed_dim
    384
    """
    rows = _rows()
    if name in rows:
        return rows[name]
    near = difflib.get_close_matches(name, rows, n=3, cutoff=0.5)
    hint = f" Near it: {', '.join(near)}." if near else ""
    raise SettingsError(
        f"There is no backbone called {name!r}.{hint} All names: {', '.join(rows)}. "
        "A path to a .pth or .safetensors file works too."
    )
