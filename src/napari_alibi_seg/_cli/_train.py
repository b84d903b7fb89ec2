"""Learn a classifier from scribbles on one or several images.

Each image needs a label image of the same height and width: PNG or TIFF of class ids,
0 where nothing is painted, any positive ids. Images and labels pair by order:

  alibi-seg train a.tif b.tif --labels a_scribbles.png b_scribbles.png --out my.alibiseg

A stack is trained on the planes that are painted in a stack of labels, or on the one
that --plane names; a series of stacks on all that is painted at any time, or at the one
that --time names.

Without --features and --backbone, the default ViT is used together with classical
features if its weights are here, else classical features alone; the choice is told.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_alibi_seg._base import (
    ClassifierSettings,
    FeatureSettings,
    SettingsError,
    validated,
)
from napari_alibi_seg._cli._common import (
    EXIT_OK,
    TileBar,
    add_json,
    add_store,
    emit,
    note,
    store_folder,
)
from napari_alibi_seg._cli._vit import add_vit, integers, load_vit, vit_settings

if TYPE_CHECKING:
    from napari_alibi_seg._segmenter import Embedding, Segmenter

# Fewer take less long than it takes to measure a few.
_MANY_TILES = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE", help="micrographs"
    )
    parser.add_argument(
        "--labels",
        nargs="+",
        type=Path,
        metavar="LABELS",
        required=True,
        help="scribbles, one image of class ids for each micrograph",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="CLF.alibiseg", help="file to write"
    )
    parser.add_argument(
        "--features",
        choices=("vit", "classical", "both"),
        help="what a pixel is described by (default: see above)",
    )
    parser.add_argument(
        "--resolution",
        choices=("patch", "pixel"),
        default="pixel",
        help="classify every pixel (default), or tokens and enlarge their "
        "probabilities: coarse and quick",
    )
    parser.add_argument(
        "--classifier",
        choices=("rf", "logistic"),
        default="rf",
        help="random forest (default) or logistic regression",
    )
    parser.add_argument(
        "--plane",
        type=int,
        metavar="Z",
        help="the only plane of stacks that counts, from 0 (default: those that are "
        "painted in a stack of labels)",
    )
    parser.add_argument(
        "--time",
        type=int,
        metavar="T",
        help="the only point in time of series that counts, from 0",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the forest (default: 0)"
    )
    add_vit(parser)
    _add_finer_settings(parser)
    add_store(parser)
    add_json(parser)


def _add_finer_settings(parser: argparse.ArgumentParser) -> None:
    more = parser.add_argument_group("finer settings")
    more.add_argument(
        "--components",
        default="24",
        metavar="N|all",
        help="principal components kept of the ViT channels",
    )
    more.add_argument(
        "--normalisation",
        choices=("image", "frozen"),
        default="image",
        help="intensity range of each image by itself (default), or that of the first "
        "training image for all",
    )
    more.add_argument(
        "--trees", type=int, default=100, metavar="N", help="of the forest (100)"
    )
    more.add_argument(
        "--max-features",
        type=int,
        default=2,
        metavar="N",
        help="features tried at a split of a tree (default: 2)",
    )
    more.add_argument(
        "--class-weight",
        default="balanced",
        metavar="balanced|none|ID=W,...",
        help="weight of the classes in training",
    )
    more.add_argument(
        "--class-names", metavar="ID=NAME,...", help="names kept in the classifier"
    )
    more.add_argument(
        "--unsure-below",
        type=float,
        metavar="P",
        help="pixels whose best probability is lower get --unsure-id",
    )
    more.add_argument(
        "--unsure-id", type=int, default=0, metavar="ID", help="default: 0"
    )


def command(args: argparse.Namespace) -> int:
    """Train and save."""
    from napari_alibi_seg._segmenter import Segmenter, check_target
    from napari_alibi_seg.data import Annotations

    if len(args.images) != len(args.labels):
        raise SettingsError(
            f"Each image needs one label image, got {len(args.images)} image(s) and "
            f"{len(args.labels)} label image(s)."
        )
    check_target(args.out)
    classifier = _classifier_settings(args)
    kind, name, reason = _choose_features(args)
    features = _feature_settings(args, kind)
    names = _pairs("--class-names", args.class_names, str)
    backbone = load_vit(args, name) if name else None
    started = time.perf_counter()
    segmenter = Segmenter(
        backbone, features=features, classifier=classifier, store=store_folder(args)
    )
    note(f"Features: {reason}")
    with TileBar() as bar:
        embeddings: list[Embedding] = []
        painted: list[Annotations] = []
        for image, labels in zip(args.images, args.labels, strict=True):
            place = {"plane": args.plane, "time": args.time}
            for embedding, found in segmenter.painted(image, labels, **place):
                embeddings.append(embedding)
                painted.append(found)
        for embedding in embeddings:
            _say_how_long(segmenter, embedding)
            bar.follow("features", segmenter.iter_complete(embedding))
    segmenter.fit(embeddings, painted, class_names=names)
    segmenter.choice = reason
    if name is not None:
        from napari_alibi_seg.features import located_spec, spec_files

        segmenter.weights_hint = located_spec(name)
        denoiser = args.denoiser or spec_files(name)[1]
        if denoiser is not None:
            segmenter.denoiser_hint = str(denoiser.resolve())
    segmenter.save(args.out)
    result = _report(segmenter, args, reason, time.perf_counter() - started)
    emit(args, result, _as_text(result))
    return EXIT_OK


def _say_how_long(segmenter: Segmenter, embedding: Embedding) -> None:
    """Tell what the features of an image will take, if it is long, and if it fits."""
    from napari_alibi_seg._segmenter import LONG_SECONDS, check_room, estimate

    store = embedding.store
    if store is None or len(store.missing()) < _MANY_TILES:
        return
    found = estimate(segmenter, embedding, kinds=())
    check_room(found, None)
    if found.seconds > LONG_SECONDS:
        note(f"{embedding.image.source.name}: {found}")


def _choose_features(args: argparse.Namespace) -> tuple[str, str | None, str]:
    """Return kind of features, backbone, and why."""
    from napari_alibi_seg.features import DEFAULT_BACKBONE, find_weights

    if args.backbone == "classical":
        if args.features in ("vit", "both"):
            raise SettingsError(
                f"`--backbone classical` has no ViT, so `--features {args.features}` "
                f"cannot be computed. Name a ViT, or drop `--features`."
            )
        return "classical", None, "classical, as asked for"
    if args.features == "classical":
        vit_only = ("backbone", "alibi", "num_heads", "denoiser")
        given = [f"--{n.replace('_', '-')}" for n in vit_only if getattr(args, n)]
        if given:
            raise SettingsError(
                f"Classical features use no ViT: drop {', '.join(given)}, or use "
                f"`--features both`."
            )
        return "classical", None, "classical, as asked for"
    if args.backbone is not None:
        kind = args.features or "both"
        return kind, args.backbone, f"{kind}, with the backbone asked for"
    if args.features is not None:
        return args.features, DEFAULT_BACKBONE, f"{args.features}, as asked for"
    if find_weights(DEFAULT_BACKBONE) is not None:
        reason = f"both, with {DEFAULT_BACKBONE}: its weights are here"
        return "both", DEFAULT_BACKBONE, reason
    return (
        "classical",
        None,
        f"classical: the weights of {DEFAULT_BACKBONE} are not here "
        f"(`alibi-seg models --download {DEFAULT_BACKBONE}` fetches them)",
    )


def _feature_settings(args: argparse.Namespace, kind: str) -> FeatureSettings:
    components: Any = args.components
    components = (
        None if components == "all" else integers("--components", components)[0]
    )
    values = {
        **vit_settings(args),
        "kind": kind,
        "components": components,
        "normalisation": args.normalisation,
    }
    return validated(FeatureSettings, values)


def _classifier_settings(args: argparse.Namespace) -> ClassifierSettings:
    weight: Any = args.class_weight
    if weight == "none":
        weight = None
    elif weight != "balanced":
        weight = _pairs("--class-weight", weight, float)
    values = {
        "kind": args.classifier,
        "n_trees": args.trees,
        "max_features": args.max_features,
        "class_weight": weight,
        "resolution": args.resolution,
        "unsure_below": args.unsure_below,
        "unsure_id": args.unsure_id,
        "seed": args.seed,
    }
    return validated(ClassifierSettings, values)


def _pairs(option: str, text: str | None, kind: Any) -> dict[int, Any] | None:
    """Parse ``1=a,3=b``."""
    if text is None:
        return None
    try:
        parts = [part.split("=", 1) for part in text.split(",")]
        return {int(key): kind(value) for key, value in parts}
    except ValueError as err:
        raise SettingsError(
            f"`{option}` must look like 1=...,3=..., got {text!r}."
        ) from err


def _report(
    segmenter: Any, args: argparse.Namespace, reason: str, seconds: float
) -> dict[str, Any]:
    return {
        "classifier": str(args.out),
        "features": {"kind": segmenter.features.kind, "reason": reason},
        "backbone": segmenter.backbone.identity if segmenter.backbone else None,
        "scale": segmenter.frozen.scale,
        "classes": {
            str(i): {"name": c.name, "colour": c.colour}
            for i, c in segmenter.classes.items()
        },
        "training": segmenter.classifier.summary,
        "seconds": round(seconds, 3),
    }


def _as_text(result: dict[str, Any]) -> str:
    classes = ", ".join(f"{i} ({c['name']})" for i, c in result["classes"].items())
    return (
        f"Trained on the classes {classes} in {result['seconds']:.1f} s.\n"
        f"Wrote {result['classifier']}"
    )
