"""A backbone by name and options: what a command line says and a worker loads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_alibi_seg._base import Alibi, Backbone, SettingsError

__all__ = ["BackboneChoice"]


@dataclass(frozen=True, slots=True)
class BackboneChoice:
    """A ViT and how it is used; plain data that any process can load it from.

    Attributes
    ----------
    name : str
        Of the registry, or a weights file.
    alibi : {"constant", "fixed", "learned", "none"} or None
        ALiBi slopes for a weights file that does not say; None: as stored.
    num_heads : int or None
        Attention heads, where the file does not say.
    denoiser : Path or None
        Denoiser to wrap it in.

    Examples
    --------
    >>> BackboneChoice("alibi-tiny").load("cpu").patch_size
    8
    """

    name: str
    alibi: str | None = None
    num_heads: int | None = None
    denoiser: Path | None = None

    def load(self, device: str = "auto") -> Backbone:
        """Return the backbone.

        Parameters
        ----------
        device : str
            Where it runs: "auto", "cpu", "cuda", "cuda:<n>" or "mps".

        Raises
        ------
        WeightsError
            If the weights are not here or do not fit.
        SettingsError
            If the options contradict each other.
        """
        from napari_alibi_seg.features import ViTBackbone, load_backbone, load_denoiser

        options: dict[str, Any] = {}
        if self.alibi is not None:
            slope: Any = self.alibi
            options["alibi"] = None if slope == "none" else Alibi(slope=slope)
        backbone = load_backbone(
            self.name, num_heads=self.num_heads, device=device, **options
        )
        if self.denoiser is None:
            return backbone
        if not isinstance(backbone, ViTBackbone):
            raise SettingsError(
                f"{self.name!r} has a denoiser or cure already: drop `--denoiser`, or "
                f"name its base backbone."
            )
        return load_denoiser(self.denoiser, device=device).wrap(backbone)
