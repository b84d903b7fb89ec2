"""Another position encoding under weights that never learned it: an ablation.

A distilled student is trained to do without its table; here the table is only taken
away or replaced, which shows what the training is for. Only this module does that.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from timm.layers import build_sincos2d_pos_embed
from torch import Tensor, nn

from napari_alibi_seg._base import Alibi, SettingsError
from napari_alibi_seg.features._vit import ViTBackbone

__all__ = ["swap_position"]


def swap_position(backbone: ViTBackbone, kind: str) -> ViTBackbone:
    """Return a copy of a ViT that knows position in another way, or not at all.

    Parameters
    ----------
    backbone : ViTBackbone
        Stays as it is.
    kind : {"nope", "sinusoid", "alibi"}
        No position; the learned table replaced by 2-D sines and cosines of the same
        standard deviation; ALiBi instead of table and rotary embedding.

    Raises
    ------
    SettingsError
        If there is no table to replace, or nothing would change.
    """
    description = backbone._description
    arch = description.arch
    model: Any = copy.deepcopy(backbone._model)
    if kind == "sinusoid":
        if arch.table is None:
            raise SettingsError(
                f"`+sinusoid` replaces a learned position table, and "
                f"{backbone.name!r} has none."
            )
        model.pos_embed = _waves(model.pos_embed, arch.table, arch.n_prefix)
        return _copy(backbone, model, description.alibi, arch)
    alibi = Alibi() if kind == "alibi" else None
    if alibi == description.alibi and arch.table is None and arch.rope is None:
        raise SettingsError(
            f"`+{kind}` changes nothing: {backbone.name!r} is that already."
        )
    model.pos_embed = None
    if arch.rope is not None:
        model.rope = None
    return _copy(backbone, model, alibi, replace(arch, table=None, rope=None))


def _copy(
    backbone: ViTBackbone, model: nn.Module, alibi: Alibi | None, arch: Any
) -> ViTBackbone:
    return ViTBackbone(
        model,
        replace(backbone._description, alibi=alibi, arch=arch),
        device=backbone.device,
        dtype=backbone.dtype,
        path=backbone.path,
        dropped=backbone.dropped,
    )


def _waves(table: Tensor, grid: tuple[int, int], n_prefix: int) -> nn.Parameter:
    """Return sines and cosines with the rows, prefix and deviation of a table."""
    n = table.shape[-1]
    # timm's builder wants a multiple of 4
    waves = build_sincos2d_pos_embed(list(grid), dim=-(-n // 4) * 4)[:, :n]
    waves = (waves - waves.mean()) / waves.std()
    n_rows = table.shape[1] - len(waves)
    assert n_rows in (0, 1, n_prefix)
    own = table[0, n_rows:]
    out = table.detach().clone()
    out[0, n_rows:] = own.mean() + waves.to(own) * own.std()
    return nn.Parameter(out, requires_grad=False)
