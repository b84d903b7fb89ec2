"""What importing costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from napari_alibi_seg import features

HEAVY = ("torch", "timm", "torchvision", "safetensors.torch", "huggingface_hub")


@pytest.mark.parametrize(
    "code",
    [
        "import napari_alibi_seg.features",
        "from napari_alibi_seg.features import Alibi; Alibi()",
        "from napari_alibi_seg.features import list_backbones; list_backbones()",
        "from napari_alibi_seg.features import download_weights, cache_path",
        "from napari_alibi_seg.features import ClassicalFeatures",
    ],
)
def test_no_torch(code):
    check = f"import sys; {code}; print([m for m in {HEAVY} if m in sys.modules])"
    out = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"


def test_finding_weights_needs_no_torch(tmp_path):
    check = (
        "import sys; from napari_alibi_seg.features import find_weights;"
        "assert find_weights('alibi-dinov2-s') is None; print('torch' in sys.modules)"
    )
    out = subprocess.run(
        [sys.executable, "-c", check],
        capture_output=True,
        text=True,
        check=True,
        env={
            **__import__("os").environ,
            "ALIBI_SEG_CACHE": str(tmp_path),
            "HF_HUB_CACHE": str(tmp_path),
        },
    )
    assert out.stdout.strip() == "False"


def test_every_public_name_resolves():
    for name in features.__all__:
        assert getattr(features, name) is not None
    assert set(features.__all__) == {*features._MODULES, "Alibi"}
    assert dir(features) == sorted(features.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = features.nothing
