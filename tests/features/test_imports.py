"""What importing costs."""

from __future__ import annotations

import ast
import os
import subprocess
import sys

import pytest

from napari_alibi_seg import features

HEAVY = ("torch", "timm", "torchvision", "safetensors.torch", "huggingface_hub")


# One after the other in one process, on a machine without weights. The hub's own code
# is only asked for where its cache is looked into, so that comes last.
LIGHT = {
    "import napari_alibi_seg.features": HEAVY,
    "from napari_alibi_seg.features import Alibi; Alibi()": HEAVY,
    "from napari_alibi_seg.features import list_backbones; list_backbones()": HEAVY,
    "from napari_alibi_seg.features import download_weights, cache_path": HEAVY,
    "from napari_alibi_seg.features import ClassicalFeatures": HEAVY,
    "from napari_alibi_seg.features import find_weights;"
    "assert find_weights('alibi-dinov2-s') is None": HEAVY[:-1],
}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """The heavy modules that are there after each line."""
    lines = "\n".join(
        f"{code}; print([m for m in {HEAVY} if m in sys.modules])" for code in LIGHT
    )
    empty = str(tmp_path_factory.mktemp("empty"))
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{lines}"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "ALIBI_SEG_CACHE": empty, "HF_HUB_CACHE": empty},
    )
    found = [ast.literal_eval(line) for line in done.stdout.splitlines()]
    return dict(zip(LIGHT, found, strict=True))


@pytest.mark.parametrize("code", LIGHT)
def test_no_torch(code, loaded):
    assert set(loaded[code]).isdisjoint(LIGHT[code])


def test_every_public_name_resolves():
    for name in features.__all__:
        assert getattr(features, name) is not None
    assert set(features.__all__) == {*features._MODULES, "Alibi"}
    assert dir(features) == sorted(features.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = features.nothing
