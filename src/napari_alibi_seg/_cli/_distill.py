"""Train a backbone: retrofit ALiBi to a ViT, or teach a small student.

The teacher's features are learned by a student without position encoding, whose
attention is biased by distance instead: either a copy of the teacher, or a small ViT of
the shape that a settings file gives. Without --config:

  alibi-seg distill --teacher dinov2-s --images micrographs/ --out run/

Everything can be said in a TOML file (see docs/distillation.md); what is given here
as well replaces what the file says. Starting the same command again goes on where a
run was interrupted or killed. The result is RUN/<name>.safetensors with a model card;
use it with `--backbone`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from napari_alibi_seg._cli._common import EXIT_OK, TileBar, add_json, emit, note


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    from napari_alibi_seg.distill import PRESETS

    parser.add_argument("--config", type=Path, metavar="TOML", help="settings file")
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder")
    parser.add_argument(
        "--teacher",
        metavar="NAME|PATH|timm:MODEL|self",
        help="backbone by name or weights file, a timm model, or the student's own "
        "average",
    )
    parser.add_argument(
        "--teacher-weights", type=Path, metavar="PATH", help="of a timm: teacher"
    )
    parser.add_argument(
        "--images", nargs="+", type=Path, metavar="DIR", help="folders of images"
    )
    parser.add_argument(
        "--preset",
        choices=sorted(PRESETS),
        help="stages and losses (default without --config: small)",
    )
    parser.add_argument("--name", help="of the result")
    parser.add_argument("--seed", type=int, metavar="N")
    parser.add_argument(
        "--blank",
        metavar="auto|N,N,...",
        help="target channels set to 0 because they carry position",
    )
    parser.add_argument(
        "--precision", choices=("32-true", "bf16-mixed", "16-mixed"), help="arithmetic"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="crop processes")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument(
        "--devices", type=int, default=1, metavar="N", help="GPUs (default: 1)"
    )
    parser.add_argument(
        "--tensorboard", action="store_true", help="write TensorBoard events too"
    )
    add_json(parser)


def command(args: argparse.Namespace) -> int:
    """Train to the end, or to where it is stopped."""
    from napari_alibi_seg._base import SettingsError

    settings = _settings(args)
    try:
        from napari_alibi_seg.distill import iter_distill
    except ImportError as err:
        if err.name is None or not err.name.startswith("lightning"):
            raise
        raise SettingsError(
            "Training needs Lightning Fabric, which is not installed: pip install "
            '"napari-alibi-seg[distill]".'
        ) from err
    note(
        f"{settings.name}: {settings.n_steps} steps, teacher {settings.teacher.name}, "
        f"in {args.out}"
    )
    result = None
    is_new = not (args.out / f"{settings.name}.safetensors").is_file()
    with TileBar(f"{settings.name} ", unit="step") as bar:
        for step in iter_distill(
            settings,
            args.out,
            device=args.device,
            devices=args.devices,
            tensorboard=args.tensorboard,
        ):
            bar.show("training", step.done, step.total)
            result = step.result
            is_new = is_new or result is None
    if not is_new:
        note(f"The run in {args.out} was already complete.")
    emit(
        args,
        {"backbone": str(result), "steps": settings.n_steps, "run": str(args.out)},
        str(result),
    )
    return EXIT_OK


def _settings(args: argparse.Namespace) -> Any:
    """Return the settings of the file, changed by the arguments."""
    from napari_alibi_seg._base import SettingsError, validated
    from napari_alibi_seg.distill import PRESETS, DistillSettings, load_settings

    if args.config is None and args.teacher is None:
        raise SettingsError("Say what to learn from: --teacher or --config.")
    values: dict[str, Any] = {}
    if args.config is not None:
        values = load_settings(args.config).model_dump(mode="json", exclude_unset=True)
    if args.preset is not None or args.config is None:
        values |= PRESETS[args.preset or "small"]
    teacher = dict(values.get("teacher", {}))
    if args.teacher is not None:
        teacher["name"] = args.teacher
    if args.teacher_weights is not None:
        teacher["weights"] = str(args.teacher_weights)
    values["teacher"] = teacher
    data = dict(values.get("data", {}))
    if args.images is not None:
        data["folders"] = [str(folder) for folder in args.images]
        # a file that wanted none of the folders does not know of these
        data["folder_share"] = data.get("folder_share") or 1.0
    elif args.config is None:
        data |= {"folder_share": 0.0, "synthetic_share": 1.0}
    values["data"] = data
    if args.blank is not None:
        losses = dict(values.get("losses", {}))
        losses["blank"] = args.blank if args.blank == "auto" else _channels(args.blank)
        values["losses"] = losses
    for key in ("name", "seed", "precision", "workers"):
        if getattr(args, key) is not None:
            values[key] = getattr(args, key)
    return validated(DistillSettings, values)


def _channels(text: str) -> list[int]:
    from napari_alibi_seg._cli._vit import integers

    return list(integers("--blank", text))
