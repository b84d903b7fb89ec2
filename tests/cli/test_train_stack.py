"""Training from the command line on stacks, and what it says before long work."""

from __future__ import annotations

import json

import numpy as np
import pytest
from segmenter.samples import CountingBackbone, sample

from napari_alibi_seg import Segmenter
from napari_alibi_seg._base import FeatureSettings, OutputError
from napari_alibi_seg._cli import _train, main

SHAPE = (96, 128)


@pytest.fixture
def stack(tmp_path, monkeypatch):
    """Write a stack of four planes, and labels on the first and the last."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALIBI_SEG_CACHE", str(tmp_path / "cache"))
    image, _, scribbles = sample(SHAPE)
    labels = np.zeros((4, *SHAPE), np.uint8)
    labels[0, :48], labels[3, 48:] = scribbles[:48], scribbles[48:]
    np.save("image.npy", np.stack([image] * 4))
    np.save("labels.npy", labels)
    return labels


def train(capsys, *more, expect=0):
    arguments = ("image.npy", "--labels", "labels.npy", "--features", "classical")
    code = main(["train", *arguments, "--out", "c.alibiseg", "--json", *more])
    answer = json.loads(capsys.readouterr().out)
    assert code == expect, answer
    return answer


def test_all_painted_planes_of_a_stack_count(stack, capsys):
    counts = {str(i): int((stack == i).sum()) for i in (1, 3)}
    assert train(capsys)["training"]["samples"] == counts


def test_a_named_plane_counts_alone(stack, capsys):
    counts = {str(i): int((stack[3] == i).sum()) for i in (1, 3)}
    assert train(capsys, "--plane", "3")["training"]["samples"] == counts


def test_a_plane_without_strokes_is_an_error(stack, capsys):
    assert "no painted pixel" in train(capsys, "--plane", "2", expect=1)["error"]


def prepared(tmp_path):
    settings = FeatureSettings(kind="vit", scale=1.0, tile_px=28)
    segmenter = Segmenter(CountingBackbone(), features=settings, store=tmp_path)
    return segmenter, segmenter.prepare(sample(SHAPE)[0])


def test_long_work_is_announced_and_short_work_is_not(tmp_path, capsys, monkeypatch):
    segmenter, embedding = prepared(tmp_path)
    _train._say_how_long(segmenter, embedding)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("napari_alibi_seg._segmenter.LONG_SECONDS", 0.0)
    _train._say_how_long(segmenter, embedding)
    assert "tiles of features at" in capsys.readouterr().err


def test_a_full_disk_is_noticed_before_the_work(tmp_path, monkeypatch):
    segmenter, embedding = prepared(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("usage", (), {"free": 9}))
    with pytest.raises(OutputError, match="Make room"):
        _train._say_how_long(segmenter, embedding)
