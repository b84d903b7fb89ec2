"""Memory depends on the tile, not on the image."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from pathlib import Path

import pytest
from segmenter.samples import CountingBackbone, sample, write_tiny_vit

from napari_alibi_seg import Segmenter
from napari_alibi_seg._base import FeatureSettings
from napari_alibi_seg._segmenter import _token_stores
from napari_alibi_seg.data import DiskStore, MemoryStore

SMALL_PX, LARGE_PX = 2048, 8192


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["classical", "both"])
def test_memory_hardly_grows_from_4_to_64_megapixels(kind, tmp_path):
    pytest.importorskip("resource", reason="peak memory is read with `resource`")
    write_tiny_vit(tmp_path / "tiny.safetensors")
    program = Path(__file__).with_name("big.py")
    sides = (str(SMALL_PX), str(LARGE_PX))
    done = subprocess.run(
        [sys.executable, program, tmp_path, kind, "pixel", *sides],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    # one float32 map of the image would be four bytes a pixel, one of its tokens 1.3
    assert found["growth"] < 3 * LARGE_PX**2


def test_tokens_that_nobody_keeps_go_to_disk_above_a_limit(monkeypatch, caplog):
    image, _, scribbles = sample()
    results, stores = [], []
    for limit in (1 << 30, 100):
        monkeypatch.setattr(_token_stores, "_MEMORY_STORE_BYTES", limit)
        segmenter = Segmenter(
            CountingBackbone(), features=FeatureSettings(kind="vit", scale=1.0)
        )
        with caplog.at_level("INFO", logger="napari_alibi_seg"):
            embedding = segmenter.embed(image)
        results.append(segmenter.fit(embedding, scribbles).predict(embedding))
        stores.append(embedding.store)
        del embedding, segmenter
    assert isinstance(stores[0], MemoryStore)
    assert isinstance(stores[1], DiskStore)
    assert results[0].probabilities.tobytes() == results[1].probabilities.tobytes()
    folder = stores[1].path.parent
    assert folder.is_dir()
    assert str(folder) in caplog.text
    stores.clear()
    gc.collect()
    assert not folder.exists()


def test_a_program_that_ends_leaves_no_temporary_tokens(tmp_path):
    code = """
import numpy as np, sys
from napari_alibi_seg import Segmenter
from napari_alibi_seg._base import FeatureSettings
from napari_alibi_seg._segmenter import _token_stores
from segmenter.samples import CountingBackbone
_token_stores._MEMORY_STORE_BYTES = 0
s = Segmenter(CountingBackbone(), features=FeatureSettings(kind="vit", scale=1.0))
e = s.embed(np.eye(64))
print(e.store.path.is_dir())
raise SystemExit(3)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=_environment(tmp_path),
    )
    assert (done.returncode, done.stdout.strip()) == (3, "True"), done.stderr
    assert list(tmp_path.glob("alibi-seg-*")) == []


def _environment(folder):
    import os

    paths = [str(Path(__file__).parents[1]), *sys.path]
    return {
        **os.environ,
        "TMPDIR": str(folder),
        "PYTHONPATH": os.pathsep.join(p for p in paths if p),
    }
