"""Arguments that say which ViT is used and how; shared by `train` and `features`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_alibi_seg._base import Backbone, SettingsError

if TYPE_CHECKING:
    from napari_alibi_seg._segmenter import BackboneChoice

__all__ = ["add_vit", "choice", "integers", "load_vit", "number", "vit_settings"]


def add_vit(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    vit = parser.add_argument_group("ViT")
    vit.add_argument(
        "--backbone",
        metavar="NAME|PATH",
        help="ViT by name (see `alibi-seg models`) or weights file; cures of position "
        "bias may follow: NAME+blank, NAME+roll=8",
    )
    vit.add_argument(
        "--alibi",
        choices=("constant", "fixed", "learned", "none"),
        help="ALiBi slopes for a weights file that does not say; none: as stored",
    )
    vit.add_argument(
        "--num-heads", type=int, metavar="N", help="attention heads (default: width/64)"
    )
    vit.add_argument(
        "--denoiser", type=Path, metavar="PATH", help="DVT denoiser for the backbone"
    )
    vit.add_argument(
        "--scale",
        default="auto",
        metavar="S|auto",
        help="resize factor before the ViT (auto: 2 below 0.9 megapixel, else 1)",
    )
    vit.add_argument(
        "--density",
        type=int,
        default=1,
        metavar="N",
        help="tokens per patch side: 1, 2 or 7 at patch 14; 1, 2 or 4 at patch 16",
    )
    vit.add_argument(
        "--tile", type=int, default=518, metavar="PX", help="tile side (default: 518)"
    )
    vit.add_argument(
        "--halo",
        type=int,
        metavar="TOKENS",
        help="tile overlap (default: 0 with ALiBi, else 4)",
    )
    vit.add_argument(
        "--channels",
        default="auto",
        help="auto, grey, rgb, or channel numbers such as 0,2,1 (default: auto)",
    )


def vit_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Return the values for `FeatureSettings`."""
    channels: Any = args.channels
    if channels not in ("auto", "grey", "rgb"):
        channels = tuple(integers("--channels", channels))
    return {
        "tile_px": args.tile,
        "halo_tokens": args.halo,
        "scale": args.scale if args.scale == "auto" else number("--scale", args.scale),
        "density": args.density,
        "channels": channels,
    }


def load_vit(args: argparse.Namespace, name: str) -> Backbone:
    """Load the backbone, wrapped in the denoiser if one is named."""
    return choice(args, name).load(args.device)


def choice(args: argparse.Namespace, name: str) -> BackboneChoice:
    """Return what the arguments say of the backbone."""
    from napari_alibi_seg._segmenter import BackboneChoice

    return BackboneChoice(name, args.alibi, args.num_heads, args.denoiser)


def number(option: str, text: str) -> float:
    """Parse a number, or say which option has none."""
    try:
        return float(text)
    except ValueError as err:
        raise SettingsError(f"`{option}` must be a number, got {text!r}.") from err


def integers(option: str, text: str) -> list[int]:
    """Parse whole numbers separated by commas."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as err:
        raise SettingsError(
            f"`{option}` must be whole numbers separated by commas, got {text!r}."
        ) from err
