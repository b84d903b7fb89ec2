"""Whatever is wrong with what comes in has its own message, and leaves nothing behind.

One row a kind of bad input: how it is made (a factory that writes into a folder that
holds good files), how it is run, what comes out. The rooms have their own finer tables
(`data/test_broken.py`, `learn/test_hostile_files.py`); here the whole way is taken.
"""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import re
import resource
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from learn.files import rewritten
from PIL import Image
from segmenter.samples import CountingBackbone, sample, write_tiny_vit

from napari_alibi_seg._base import (
    AlibiSegError,
    AnnotationError,
    ClassifierFileError,
    ClassifierSettings,
    FeatureSettings,
    SettingsError,
    StoreError,
    WeightsError,
)
from napari_alibi_seg._cli import main
from napari_alibi_seg._segmenter import Segmenter
from napari_alibi_seg.data import write_image
from napari_alibi_seg.features import load_backbone, load_denoiser

SHAPE = (96, 128)


@dataclass(frozen=True)
class Row:
    """`run` is a command line, or a function of the folder; `expect` its exit code or
    the error; `make` writes the bad input."""

    name: str
    run: list[str] | Callable[[Path], object]
    expect: int | type[AlibiSegError]
    message: str
    make: Callable[[Path], object] = lambda folder: None


# ------------------------------------------------------------------ how to break it


def file(name: str, data: bytes | Callable[[], bytes]):
    def make(folder: Path):
        (folder / name).write_bytes(data() if callable(data) else data)

    return make


def tiff(name: str, array, **options):
    return lambda folder: tifffile.imwrite(folder / name, array, **options)


def npy(name: str, array):
    return lambda folder: np.save(folder / name, array, allow_pickle=True)


def picture(kind: str, array=None) -> bytes:
    buffer = io.BytesIO()
    array = sample()[0] if array is None else array
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.npy", "x")
    return buffer.getvalue()


def png_bomb() -> bytes:
    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", 10**5, 10**5, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(bytes(99))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*c) for c in chunks)


def flipped(data: bytes) -> bytes:
    changed = bytearray(data)
    changed[int(0.6 * len(data))] ^= 0xFF
    return bytes(changed)


def cut(name: str, good: str, part: float = 0.5):
    def make(folder: Path):
        data = (folder / good).read_bytes()
        (folder / name).write_bytes(data[: int(part * len(data))])

    return make


def two_datasets(folder: Path):
    with h5py.File(folder / "bad.h5", "w") as held:
        held["a"] = held["b"] = sample()[0]


def damaged_zarr(folder: Path):
    zarr.create_array(folder / "bad.zarr", data=sample()[0], chunks=SHAPE)
    (folder / "bad.zarr/c/0/0").write_bytes(b"nonsense")


def labels(array, name="bad.png"):
    return lambda folder: write_image(folder / name, array, axes="YX")


def forged(change=lambda document, arrays: None, good="good.alibiseg", text=None):
    """Write a classifier file that was changed by somebody who knows the checksum."""

    def make(folder: Path):
        data = (folder / good).read_bytes()
        (folder / "bad.alibiseg").write_bytes(rewritten(data, change, text))

    return make


def put(name, index, value):
    def change(document, arrays):
        arrays[name] = arrays[name].copy()
        arrays[name][index] = value

    return change


def intensity(**values):
    def change(document, arrays):
        document["features"]["details"]["intensity"].update(values)

    return change


def no_intensity(document, arrays):
    del document["features"]["details"]["intensity"]


def in_settings(**values):
    def change(document, arrays):
        document["features"]["settings"].update(values)

    return change


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("the pickle was opened",))


def weights(name="bad.safetensors", change=lambda tensors: None):
    def make(folder: Path):
        from safetensors.torch import load_file, save_file

        tensors = load_file(folder / "vit.safetensors")
        change(tensors)
        save_file(tensors, folder / name)

    return make


def torch_file(content):
    def make(folder: Path):
        import torch

        torch.save(content, folder / "bad.pth")

    return make


def wrong_width(tensors):
    tensors["blocks.1.attn.proj.bias"] = tensors["blocks.1.attn.proj.bias"][:60].clone()


def surplus(tensors):
    tensors["blocks.0.adapter.weight"] = tensors["norm.bias"].clone()


def denoiser(folder: Path):
    import torch

    torch.save({"denoiser.pos_embed": torch.zeros(1, 4, 128)}, folder / "bad.pth")


def store_of(backbone, **changes):
    def make(folder: Path):
        settings = FeatureSettings(kind="vit", scale=1.0, **changes)
        Segmenter(backbone, features=settings, store=folder / "s.zarr").embed(
            sample()[0]
        )

    return make


def damaged_store(folder: Path):
    store_of(CountingBackbone())(folder)
    chunk = next(p for p in (folder / "s.zarr/c").rglob("*") if p.is_file())
    chunk.write_bytes(flipped(chunk.read_bytes()))


def foreign_output(folder: Path):
    (folder / "out").mkdir()
    shutil.copy(folder / "good.png", folder / "out" / "good_labels.tif")


def applied(folder: Path):
    assert main(["apply", "good.alibiseg", "good.tif", "--out", "out"]) == 0
    (folder / "out/summary.csv").unlink()


def edited_output(folder: Path):
    applied(folder)
    path = folder / "out" / "good_labels.tif"
    path.write_bytes(flipped(path.read_bytes()))


def damaged_manifest(folder: Path):
    applied(folder)
    path = folder / "out" / "alibi-seg-manifest.jsonl"
    path.write_bytes(b'\xff\xfe\n[1]\n{"output": "good_labels.tif"}\n')


# ------------------------------------------------------------------- how to run it


def train(image="good.tif", painted="good.png", *more, out="c.alibiseg"):
    return ["train", image, "--labels", painted, "--out", out, "--trees", "5", *more]


def apply(classifier="bad.alibiseg", image="good.tif", *more):
    return ["apply", classifier, image, "--out", "out", *more]


def vit(*more):
    return train("good.tif", "good.png", "--backbone", *more)


def score(*names):
    return ["evaluate", *names, "--truth", "good.png"]


def with_store(folder: Path, image=None, backbone=None):
    segmenter = Segmenter(
        backbone or CountingBackbone(),
        features=FeatureSettings(kind="vit", scale=1.0),
        store=folder / "s.zarr",
    )
    return segmenter.fit(sample()[0] if image is None else image, sample()[2])


def fit(image, painted, **settings):
    def run(folder: Path):
        return Segmenter(classifier=ClassifierSettings(**settings)).fit(image, painted)

    return run


@contextlib.contextmanager
def full_disk(n_bytes):
    """No file may grow beyond this: what a quota does, without a real disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def on_full_disk(run, n_bytes=1500):
    def wrapped(folder: Path):
        with full_disk(n_bytes):
            return main(run) if isinstance(run, list) else run(folder)

    return wrapped


GREY = sample()[0]
SCRIBBLES = sample()[2]
ZEROS = np.zeros(SHAPE, np.uint8)
SOME = np.array([1, 2], np.uint8)
FIVE = np.zeros((5, *SHAPE), np.uint8)
LARGE = np.where(SCRIBBLES == 3, 70000, SCRIBBLES.astype(np.uint32)).astype(np.uint32)

IMAGES = [
    Row("missing", train("bad.tif"), 1, r"bad\.tif: expected an image file, but there"),
    Row(
        "a-folder",
        train("bad"),
        1,
        "a folder without zarr metadata",
        lambda folder: (folder / "bad").mkdir(),
    ),
    Row("empty", train("bad.tif"), 1, "got an empty file", file("bad.tif", b"")),
    Row("text", train("bad.tif"), 1, "got text", file("bad.tif", b"x,y\n1,2\n" * 99)),
    Row(
        "png-named-tif",
        train("bad.tif"),
        1,
        r"expected a TIFF image from its name, got a PNG image. Rename it to 'bad.png'",
        file("bad.tif", lambda: picture("PNG")),
    ),
    Row(
        "tif-cut-short",
        train("bad.tif"),
        1,
        r"expected \d+ bytes.*cut short",
        cut("bad.tif", "good.tif"),
    ),
    Row(
        "png-cut-short",
        train("bad.png"),
        1,
        "expected a whole PNG",
        file("bad.png", lambda: picture("PNG")[:2000]),
    ),
    Row(
        "png-damaged",
        train("bad.png"),
        1,
        "wrong checksum in IDAT",
        file("bad.png", lambda: flipped(picture("PNG"))),
    ),
    Row(
        "gif",
        train("bad.gif"),
        1,
        "GIF picture.*export it as TIFF",
        file("bad.gif", lambda: picture("GIF")),
    ),
    Row("npz", train("bad.npz"), 1, r"zip archive \(npz", file("bad.npz", zipped)),
    Row(
        "czi",
        train("bad.czi"),
        1,
        "a Zeiss CZI file",
        file("bad.czi", b"ZISRAWFILE" + bytes(99)),
    ),
    Row(
        "decompression-bomb",
        train("bad.png"),
        1,
        r"10\.0 GB",
        file("bad.png", png_bomb),
    ),
    Row(
        "complex-numbers",
        train("bad.tif"),
        1,
        "got complex64",
        tiff("bad.tif", GREY.astype("c8")),
    ),
    Row(
        "objects",
        train("bad.npy"),
        1,
        "got object",
        npy("bad.npy", np.array([[{}]])),
    ),
    Row("one-axis", train("bad.npy"), 1, "at least two axes", npy("bad.npy", SOME)),
    Row(
        "no-pixels",
        train("bad.npy"),
        1,
        "a side of length 0",
        npy("bad.npy", ZEROS[:0]),
    ),
    Row(
        "cmyk",
        train("bad.tif"),
        1,
        "got CMYK",
        tiff("bad.tif", np.zeros((9, 9, 4), "u1"), photometric="separated"),
    ),
    Row("which-dataset", train("bad.h5"), 2, r"which of 2", two_datasets),
    Row("zarr-damaged", train("bad.zarr"), 1, "sound pixels", damaged_zarr),
    Row(
        "zarr-empty",
        train("bad.zarr"),
        1,
        "at least two axes that holds numbers, got none",
        lambda folder: zarr.open_group(folder / "bad.zarr", mode="w"),
    ),
    Row(
        "all-nan",
        train("bad.tif"),
        1,
        "no finite value: every pixel is NaN",
        tiff("bad.tif", np.full(SHAPE, np.nan, np.float32)),
    ),
    Row(
        "stack-without-plane",
        train("bad.tif"),
        2,
        "axis Z of length 5.*expected `plane` from 0 to 4, got None",
        tiff("bad.tif", FIVE, photometric="minisblack", metadata={"axes": "ZYX"}),
    ),
    Row(
        "plane-out-of-range",
        train("bad.tif", "good.png", "--plane", "5"),
        2,
        "expected `plane` from 0 to 4, got 5",
        tiff("bad.tif", FIVE, photometric="minisblack", metadata={"axes": "ZYX"}),
    ),
    Row(
        "plane-of-one-plane",
        train("good.tif", "good.png", "--plane", "3"),
        2,
        r"good\.tif: .*expected `plane` 0 or left out, got 3",
    ),
    Row(
        "five-channels",
        train("bad.tif"),
        2,
        "has 5 channels without a colour meaning. Choose up to three",
        tiff("bad.tif", FIVE, photometric="minisblack", metadata={"axes": "CYX"}),
    ),
    Row(
        "channel-not-there",
        train("good.tif", "good.png", "--channels", "0,4"),
        2,
        r"has 1 channel\(s\), numbered from 0; `channels` asks for \(0, 4\)",
    ),
    Row(
        "grey-as-rgb",
        train("good.tif", "good.png", "--channels", "rgb"),
        2,
        "needs a colour image, but 'good.*' is grey",
    ),
]

LABELS = [
    Row("labels-missing", train("good.tif", "bad.png"), 1, r"bad\.png: .* is none"),
    Row(
        "labels-cut-short",
        train("good.tif", "bad.png"),
        1,
        "whole PNG",
        cut("bad.png", "good.png"),
    ),
    Row(
        "labels-of-another-shape",
        train("good.tif", "bad.png"),
        1,
        r"bad\.png: expected labels of the shape of the .*\(96, 128\).*\(95, 128\)",
        labels(SCRIBBLES[1:]),
    ),
    Row(
        "labels-transposed",
        train("good.tif", "bad.png"),
        1,
        "They look transposed",
        labels(np.ascontiguousarray(SCRIBBLES.T)),
    ),
    Row(
        "labels-in-colour",
        train("good.tif", "bad.png"),
        1,
        "expected one class id per pixel, got a colour image",
        file("bad.png", lambda: picture("PNG", np.dstack([SCRIBBLES] * 3))),
    ),
    Row(
        "labels-as-floats",
        train("good.tif", "bad.tif"),
        1,
        "ids of an integer type, got float32",
        tiff("bad.tif", SCRIBBLES.astype(np.float32)),
    ),
    Row(
        "labels-negative",
        train("good.tif", "bad.tif"),
        1,
        r"expected ids from 0 \(unlabelled\) up, got -1",
        tiff("bad.tif", SCRIBBLES.astype(np.int16) - 1),
    ),
    Row(
        "labels-as-jpeg",
        train("good.tif", "bad.jpg"),
        1,
        "got JPEG compression, which changes values",
        file("bad.jpg", lambda: picture("JPEG", SCRIBBLES)),
    ),
    Row(
        "nothing-painted",
        train("good.tif", "bad.png"),
        1,
        "has no painted pixel: everything is 0. Paint",
        labels(ZEROS),
    ),
    Row(
        "one-class-painted",
        train("good.tif", "bad.png"),
        1,
        "At least two classes must be painted, got only class 1",
        labels((SCRIBBLES == 1).astype(np.uint8)),
    ),
    Row(
        "ids-beyond-16-bits",
        train("good.tif", "bad.tif"),
        1,
        "must hold ids from 0 to 65535, got 1 to 70000",
        tiff("bad.tif", LARGE),
    ),
    Row(
        "more-images-than-labels",
        [
            "train",
            "good.tif",
            "good.tif",
            "--labels",
            "good.png",
            "--out",
            "c.alibiseg",
        ],
        2,
        r"one label image, got 2 image\(s\) and 1 label",
    ),
    Row(
        "array-of-floats",
        fit(GREY, SCRIBBLES / 2),
        AnnotationError,
        "ids of an integer type, got float64",
    ),
    Row(
        "array-of-another-shape",
        fit(GREY, SCRIBBLES[:, :5]),
        AnnotationError,
        r"\(96, 128\).*got \(96, 5\)",
    ),
]

SETTINGS = [
    Row(
        "no-trees", train("good.tif", "good.png", "--trees", "0"), 2, "`n_trees`.*got 0"
    ),
    Row(
        "scale", train("good.tif", "good.png", "--scale", "99"), 2, "0.05 to 8, got 99"
    ),
    Row(
        "scale-word",
        train("good.tif", "good.png", "--scale", "x"),
        2,
        "number, got 'x'",
    ),
    Row(
        "unsure", train("good.tif", "good.png", "--unsure-below", "2"), 2, "than 1.*2.0"
    ),
    Row("tile", train("good.tif", "good.png", "--tile", "3"), 2, "`tile_px`.*got 3"),
    Row(
        "weight-of-nobody",
        train("good.tif", "good.png", "--class-weight", "2=1"),
        2,
        r"names the ids \[2\], but only \[1, 3\] are painted",
    ),
    Row(
        "weight-without-number",
        train("good.tif", "good.png", "--class-weight", "1:2"),
        2,
        "must look like 1=...,3=..., got '1:2'",
    ),
    Row(
        "name-of-nobody",
        train("good.tif", "good.png", "--class-names", "2=x"),
        2,
        r"names the ids \[2\], which nobody painted",
    ),
    Row(
        "components",
        train("good.tif", "good.png", "--components", "few"),
        2,
        "whole numbers separated by commas, got 'few'",
    ),
    Row(
        "out-suffix",
        train(out="c.pkl"),
        2,
        r"must end in \.alibiseg, got 'c\.pkl'",
    ),
    Row(
        "out-in-no-folder",
        train(out="no/c.alibiseg"),
        1,
        "expected the folder no to exist, got none. Create it first",
    ),
    Row(
        "out-is-a-folder",
        train(out="d.alibiseg"),
        1,
        "expected a file name to write to, got a folder",
        lambda folder: (folder / "d.alibiseg").mkdir(),
    ),
    Row(
        "backbone-for-classical",
        vit("vit.safetensors", "--features", "classical"),
        2,
        "Classical features use no ViT: drop --backbone",
    ),
    Row(
        "classical-as-vit",
        vit("classical", "--features", "vit"),
        2,
        "`--backbone classical` has no ViT",
    ),
    Row(
        "no-such-option",
        train("good.tif", "good.png", "--frobnicate"),
        2,
        "unrecognized",
    ),
    Row(
        "no-labels",
        ["train", "good.tif", "--out", "c.alibiseg"],
        2,
        "required: --labels",
    ),
    Row("no-such-command", ["segment", "good.tif"], 2, "invalid choice: 'segment'"),
    Row("no-command", [], 2, "usage: alibi-seg"),
]

WEIGHTS = [
    Row(
        "named-without-weights",
        vit("dinov2-s"),
        1,
        "weights of 'dinov2-s' are not on this machine. Expected the file .* of .* at "
        ".*Nothing is downloaded unasked",
    ),
    Row(
        "default-without-weights",
        train("good.tif", "good.png", "--features", "vit"),
        1,
        "weights of 'alibi-dinov2-s' are not on this machine",
    ),
    Row("unknown-name", vit("dinov9-s"), 2, "dinov9-s.*dinov"),
    Row("weights-missing", vit("no.pth"), 1, "There is no weights file 'no.pth'"),
    Row(
        "weights-are-text",
        vit("bad.safetensors", "--alibi", "constant"),
        1,
        "not a complete safetensors file",
        file("bad.safetensors", b"hello" * 99),
    ),
    Row(
        "weights-cut-short",
        vit("bad.safetensors", "--alibi", "constant"),
        1,
        "not a complete safetensors file.*Fetch or copy it again",
        cut("bad.safetensors", "vit.safetensors"),
    ),
    Row(
        "weights-are-an-image",
        vit("good.tif", "--alibi", "constant"),
        1,
        r"'good\.tif' is not a weights file: expected the ending",
    ),
    Row(
        "pickle-that-runs-code",
        vit("bad.pth", "--alibi", "constant"),
        1,
        "could run a stranger's code|not in torch's format",
        torch_file({"model": Bomb()}),
    ),
    Row(
        "no-tensors",
        vit("bad.pth", "--alibi", "constant"),
        1,
        "expected a state dict",
        torch_file([1, 2]),
    ),
    Row(
        "key-missing",
        vit("bad.safetensors", "--alibi", "constant"),
        1,
        r"missing: .*blocks\.1\.mlp\.fc2\.bias",
        weights(change=lambda tensors: tensors.pop("blocks.1.mlp.fc2.bias")),
    ),
    Row(
        "key-unexpected",
        vit("bad.safetensors", "--alibi", "constant"),
        1,
        r"unexpected: .*blocks\.0\.adapter\.weight",
        weights(change=surplus),
    ),
    Row(
        "tensor-of-another-shape",
        vit("bad.safetensors", "--alibi", "constant"),
        1,
        r"blocks\.1\.attn\.proj\.bias.*60",
        weights(change=wrong_width),
    ),
    Row(
        "zero-position-table",
        vit("vit.safetensors"),
        2,
        "does not say how it was trained.*alibi",
    ),
    Row(
        "no-learned-slopes",
        vit("vit.safetensors", "--alibi", "learned"),
        1,
        "has no learned slopes",
    ),
    Row(
        "heads-do-not-divide",
        vit("vit.safetensors", "--alibi", "constant", "--num-heads", "7"),
        2,
        "`num_heads` 7 does not divide the width 64",
    ),
    Row(
        "density-does-not-divide",
        vit("vit.safetensors", "--alibi", "constant", "--density", "3"),
        2,
        "must divide the patch of 14 pixels",
    ),
    Row(
        "no-such-device",
        vit("vit.safetensors", "--alibi", "constant", "--device", "abacus"),
        2,
        "`device` must be 'auto' or one of .*'cpu'.*got 'abacus'",
    ),
    Row(
        "not-a-denoiser",
        vit("vit.safetensors", "--alibi", "constant", "--denoiser", "vit.safetensors"),
        1,
        "no denoiser in the file",
    ),
    Row(
        "denoiser-with-missing-keys",
        lambda folder: load_denoiser(folder / "bad.pth"),
        WeightsError,
        "do not fit a denoiser. missing: ",
        denoiser,
    ),
    Row(
        "no-alibi-object",
        lambda folder: load_backbone(folder / "vit.safetensors", alibi="constant"),
        SettingsError,
        "`alibi` must be an `Alibi` or None, got 'constant'",
    ),
    Row("check-unknown", ["models", "--check", "resnet"], 2, "resnet"),
]

CLASSIFIERS = [
    Row("no-classifier", apply("no.alibiseg"), 1, "does not exist. Check the name"),
    Row("classifier-empty", apply(), 1, "is empty", file("bad.alibiseg", b"")),
    Row(
        "classifier-is-pickle",
        apply(),
        1,
        "a pickle, not a classifier file.*could run code",
        file("bad.alibiseg", pickle.dumps(Bomb())),
    ),
    Row("classifier-is-image", apply("good.tif"), 1, "no classifier file"),
    Row("classifier-is-weights", apply("vit.safetensors"), 1, "but no classifier"),
    Row(
        "classifier-cut-short",
        apply(),
        1,
        "truncated",
        cut("bad.alibiseg", "good.alibiseg", 0.9),
    ),
    Row(
        "classifier-edited",
        apply(),
        1,
        "checksum does not match: the file was edited",
        forged(text=lambda text: text.replace('"seed":0', '"seed":9')),
    ),
    Row(
        "classifier-too-new",
        apply(),
        1,
        "newer version of napari-alibi-seg.*Update with",
        forged(lambda document, arrays: document.update(format_version=9)),
    ),
    Row(
        "forest-with-a-cycle",
        apply(),
        1,
        "cycle|parent|tree",
        forged(put("forest.left", 0, 0)),
    ),
    Row(
        "forest-with-nan",
        apply(),
        1,
        "finite",
        forged(put("forest.threshold", 0, np.nan)),
    ),
    Row(
        "forest-asks-for-another-feature",
        apply(),
        1,
        "must lie in -1 to",
        forged(put("forest.feature", 0, 9999)),
    ),
    Row(
        "name-that-moves-the-cursor",
        apply(),
        1,
        "control char",
        forged(lambda d, arrays: d["classes"][0].update(name="\x1b[2J")),
    ),
    Row(
        "no-intensity-range",
        apply(),
        1,
        "intensity range.*Train it again",
        forged(no_intensity),
    ),
    Row(
        "intensity-of-three-channels",
        apply(),
        1,
        "intensity range.*Train it again",
        forged(intensity(low=[0.0] * 3, high=[1.0] * 3, fill=[0.5] * 3)),
    ),
    Row(
        "intensity-is-text",
        apply(),
        1,
        "intensity range.*Train it again",
        forged(intensity(low="dark")),
    ),
    Row(
        "scale-not-decided",
        apply(),
        1,
        "scale.*resolved to a number",
        forged(in_settings(scale="auto")),
    ),
    Row(
        "channels-not-decided",
        apply(),
        1,
        "channels",
        forged(in_settings(channels="auto")),
    ),
    Row(
        "features-of-another-kind",
        apply(),
        1,
        "trained on \\d+ features per pixel, this image gives|intensity range",
        forged(in_settings(channels=[0, 0])),
    ),
    Row(
        "classical-with-backbone",
        apply("good.alibiseg", "good.tif", "--backbone", "vit.safetensors"),
        2,
        "trained on classical features alone",
    ),
    Row(
        "other-weights",
        apply("vit.alibiseg", "good.tif", "--backbone", "bad.safetensors"),
        1,
        "is not the weights wanted here: its SHA-256 is",
        weights(change=lambda tensors: tensors["norm.bias"].add_(1)),
    ),
    Row(
        "weights-gone",
        apply("vit.alibiseg"),
        1,
        "came from a file that no registry knows. Say where it lies now",
        lambda folder: (folder / "vit.safetensors").unlink(),
    ),
    Row(
        "load-with-a-foreign-backbone",
        lambda folder: Segmenter.load(
            folder / "vit.alibiseg", backbone=CountingBackbone()
        ),
        WeightsError,
        "was trained on 'vit'.*, got 'counting'",
    ),
    Row(
        "load-a-folder",
        lambda folder: Segmenter.load(folder),
        ClassifierFileError,
        "cannot be read",
    ),
]

APPLY = [
    Row("no-image", apply("good.alibiseg", "no.tif"), 1, r"no\.tif: .*there is none"),
    Row(
        "folder-without-images",
        apply("good.alibiseg", "empty"),
        2,
        r"No image found in \['empty'\]",
        lambda folder: (folder / "empty").mkdir(),
    ),
    Row(
        "image-cut-short",
        apply("good.alibiseg", "bad.tif"),
        1,
        "cut short",
        cut("bad.tif", "good.tif"),
    ),
    Row(
        "stack-without-plane-applied",
        apply("good.alibiseg", "bad.tif"),
        1,
        "expected `plane` from 0 to 4",
        tiff("bad.tif", FIVE, photometric="minisblack", metadata={"axes": "ZYX"}),
    ),
    Row(
        "not-the-channels-of-training",
        apply("good.alibiseg", "bad.tif"),
        1,
        "does not have the channels of the training image",
        tiff("bad.tif", FIVE, photometric="minisblack", metadata={"axes": "CYX"}),
    ),
    Row(
        "foreign-output",
        apply("good.alibiseg"),
        1,
        "good_labels.tif exists and was not made from this.*Pass --overwrite",
        foreign_output,
    ),
    Row(
        "edited-output",
        apply("good.alibiseg"),
        1,
        "good_labels.tif exists.*Pass --overwrite",
        edited_output,
    ),
    Row(
        "damaged-manifest",
        apply("good.alibiseg"),
        1,
        "good_labels.tif exists.*Pass --overwrite",
        damaged_manifest,
    ),
    Row(
        "out-is-a-file",
        ["apply", "good.alibiseg", "good.tif", "--out", "good.png"],
        1,
        "Cannot use good.png as output folder",
    ),
    Row(
        "workers",
        apply("good.alibiseg", "good.tif", "--workers", "-3"),
        2,
        "workers.*-3",
    ),
]

EVALUATE = [
    Row(
        "unequal-counts",
        score("good.png", "good.png"),
        2,
        r"got 2 prediction\(s\) and 1 truth",
    ),
    Row(
        "unequal-shapes",
        score("bad.png"),
        1,
        r"bad\.png and good\.png must have equal shapes, got \(95, 128\) and \(96, 128",
        labels(SCRIBBLES[1:]),
    ),
    Row(
        "prediction-is-float",
        score("bad.tif"),
        1,
        "got float64",
        tiff("bad.tif", GREY / 2.0),
    ),
    Row(
        "offset", score("good.png", "--labels-offset", "x"), 2, "invalid int value: 'x'"
    ),
    Row("info-of-nothing", ["info", "no.tif"], 1, "there is none of this name"),
    Row(
        "info-of-a-damaged-image",
        ["info", "bad.png"],
        1,
        "wrong checksum",
        file("bad.png", lambda: flipped(picture("PNG"))),
    ),
]

STORES = [
    Row(
        "store-is-no-store",
        lambda folder: with_store(folder),
        StoreError,
        "zarr array but not a feature store of this package. Name another folder",
        lambda folder: zarr.create_array(folder / "s.zarr", data=GREY),
    ),
    Row(
        "store-is-garbage",
        lambda folder: with_store(folder),
        StoreError,
        "is not a feature store, or is damaged",
        lambda folder: (folder / "s.zarr").mkdir(),
    ),
    Row(
        "store-of-another-image",
        lambda folder: with_store(folder, GREY[::-1].copy()),
        StoreError,
        "made for something else: `image` is ",
        store_of(CountingBackbone()),
    ),
    Row(
        "store-of-other-settings",
        lambda folder: with_store(folder),
        StoreError,
        r"made for something else: `grid\.density` is 2, expected 1",
        store_of(CountingBackbone(), density=2),
    ),
    Row(
        "store-damaged",
        lambda folder: with_store(folder),
        StoreError,
        r"Tile 0 of the feature store .* is damaged .*Delete .* and extract again",
        damaged_store,
    ),
]

EXTRACT = [
    *("features", "good.tif", "--backbone", "vit.safetensors"),
    *("--alibi", "constant", "--store", "s", "--scale", "1"),
]

DISK = [
    Row(
        "disk-full-for-the-classifier",
        on_full_disk(train()),
        1,
        r"c\.alibiseg: expected room for \d+ bytes.*full disk or quota",
    ),
    Row(
        "disk-full-for-the-labels",
        on_full_disk(apply("good.alibiseg"), 1200),
        1,
        r"good_labels\.tif: expected room .*full disk",
    ),
    Row(
        "disk-full-for-a-tile-of-the-result",
        on_full_disk([*apply("good.alibiseg"), "--probabilities"], 1200),
        1,
        "Cannot write tile 0 of the result store .* written so far are kept",
    ),
    Row(
        "disk-full-for-a-new-store",
        on_full_disk(EXTRACT),
        1,
        "Cannot create the feature store .*: File too large. Choose a folder",
    ),
    Row(
        "disk-full-for-a-tile",
        on_full_disk(EXTRACT, 4000),
        1,
        "Cannot write tile 0 of the feature store.*make room and run again",
    ),
]

ROWS = [
    *IMAGES,
    *LABELS,
    *SETTINGS,
    *WEIGHTS,
    *CLASSIFIERS,
    *APPLY,
    *EVALUATE,
    *STORES,
    *DISK,
]
# What a run may leave: its record of a folder, a store that goes on where it was.
MAY_REMAIN = ("out", "out/summary.csv", "out/alibi-seg-manifest.jsonl", "s")
UNFINISHED = "out/.alibi-seg-unfinished"


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A folder of sound files: image, scribbles, weights, two classifiers."""
    folder = tmp_path_factory.mktemp("good")
    image, _, scribbles = sample()
    write_image(folder / "good.tif", image, axes="YX")
    write_image(folder / "good.png", scribbles, axes="YX")
    few = ClassifierSettings(n_trees=20)
    Segmenter(classifier=few).fit(image, scribbles).save(folder / "good.alibiseg")
    write_tiny_vit(folder / "vit.safetensors")
    from napari_alibi_seg._base import Alibi

    backbone = load_backbone(folder / "vit.safetensors", alibi=Alibi(), device="cpu")
    settings = FeatureSettings(kind="vit", scale=1.0)
    segmenter = Segmenter(backbone, features=settings, classifier=few)
    segmenter.fit(image, scribbles).save(folder / "vit.alibiseg")
    return folder


@pytest.fixture
def folder(good, tmp_path, monkeypatch):
    """A copy of it, as the working directory, on a machine without weights."""
    shutil.copytree(good, tmp_path, dirs_exist_ok=True)
    empty = tmp_path.parent / f"{tmp_path.name}-cache"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALIBI_SEG_CACHE", str(empty))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(empty))
    return tmp_path


def everything(folder: Path) -> dict[str, bytes | None]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() if p.is_file() else None
        for p in folder.rglob("*")
    }


def outcome(row: Row, folder: Path, capsys) -> tuple[Any, str]:
    """Run a row; return exit code or error class, and the message."""
    try:
        code = main(row.run) if isinstance(row.run, list) else row.run(folder)
    except AlibiSegError as err:
        return type(err), str(err)
    except SystemExit as err:  # argparse
        code = err.code
    out, err_text = capsys.readouterr()
    assert "Traceback" not in err_text
    if "--json" in (row.run if isinstance(row.run, list) else ()):
        json.loads(out)
    return code, " ".join(err_text.split())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_bad_input(row, folder, capsys):
    row.make(folder)
    before = everything(folder)
    capsys.readouterr()
    result, message = outcome(row, folder, capsys)
    assert result == row.expect, message
    assert re.search(row.message, message), message
    after = everything(folder)
    new = [
        name
        for name in after
        if after[name] != before.get(name, b"?")
        and name not in MAY_REMAIN
        and not name.startswith("s/")
        # tiles that are there when the disk is full are gone on with
        and not (name.startswith(UNFINISHED) and row.name.startswith("disk-full"))
    ]
    assert new == [], "left behind"
    assert set(before) <= set(after), "taken away"


def test_there_are_enough_kinds():
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names) >= 45
