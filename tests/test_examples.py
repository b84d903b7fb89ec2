"""What the documentation tells people to run, run: examples, snippets, commands."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
from pathlib import Path

import pytest
import tifffile
from PIL import Image

from napari_alibi_seg._cli import main
from napari_alibi_seg.data import open_image

REPOSITORY = Path(__file__).resolve().parents[1]
EXAMPLES = REPOSITORY / "docs" / "examples"
USAGE = (REPOSITORY / "docs" / "usage.md").read_text(encoding="utf-8")


@pytest.fixture
def run_example(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(name: str) -> str:
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def numbers(pattern: str, text: str) -> list[float]:
    return [float(n) for n in re.findall(pattern, text)]


def test_every_example_is_tested_and_listed():
    here = Path(__file__).read_text(encoding="utf-8")
    for path in sorted(EXAMPLES.glob("*.py")):
        assert f'run_example("{path.name}")' in here, path.name
        assert f"(examples/{path.name})" in USAGE, path.name


def test_segment_sample(run_example, tmp_path):
    out = run_example("segment_sample.py")
    assert sum(numbers(r"([\d.]+)% of the area", out)) == pytest.approx(100, abs=0.2)
    assert numbers(r"mean IoU ([\d.]+)", out)[0] > 0.7
    labels = tifffile.imread(tmp_path / "alloy_labels.tif")
    assert labels.shape == (384, 384)
    size = open_image(tmp_path / "alloy_labels.tif").pixel_size
    assert size is not None
    assert size.x == pytest.approx(0.02)
    assert (tmp_path / "alloy.alibiseg").is_file()


def test_several_images(run_example):
    one, three = numbers(
        r"mean IoU ([\d.]+) on an unseen", run_example("several_images.py")
    )
    # that is what the example is there to show
    assert three > one + 0.01


def test_probabilities_by_tile(run_example):
    out = run_example("probabilities_by_tile.py")
    lines = [line for line in out.splitlines() if line.startswith("tile ")]
    assert len(lines) == 9
    # centre-out: the tile that holds the centre comes first
    assert lines[0] == "tile 1 of 9: from row 512, column 512"
    shares = numbers(r"([\d.]+)% of the area, by", out)
    assert len(shares) == 3
    assert sum(shares) == pytest.approx(100, abs=0.2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder that usage.md speaks of, on a machine without weights."""
    root = tmp_path_factory.mktemp("usage")
    shutil.copytree(REPOSITORY / "sample_data", root / "sample_data")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("ALIBI_SEG_CACHE", str(root / "cache"))
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(root / "hub"))
        yield root


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", USAGE, re.MULTILINE | re.DOTALL)


SNIPPETS = blocks("python")
COMMANDS = [block.split("\n", 1) for block in blocks("console")]
# In words, what must be equal on every machine: not seconds, scores or paths.
LOOSE = re.compile(r"\d+\.\d+( s\b)?|Seconds:.*| at (/|\.\.\.).*|\d{4,}")


def steady(text: str) -> list[str]:
    return [re.sub(r"\s+", " ", LOOSE.sub("#", t)).strip() for t in text.splitlines()]


def test_commands_print_what_the_page_shows(folder, capsys):
    # one after the other: the page is one session
    for command, output in COMMANDS:
        assert command.startswith("$ alibi-seg ")
        code = main(shlex.split(command)[2:])
        out, err = capsys.readouterr()
        expected = steady(output)
        if expected[0].startswith("Error:"):
            assert code == 1, command
            assert expected[0].removesuffix("#").rstrip() in " ".join(steady(err))
            continue
        assert code == 0, err
        if "..." in expected:
            assert set(expected) - {"..."} <= set(steady(out)), command
        else:
            assert steady(out) == expected, command


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_snippets_run(folder, number):
    exec(compile(SNIPPETS[number], f"usage.md, snippet {number}", "exec"), {})


def test_readmes_picture_is_a_small_one():
    path = REPOSITORY / "docs" / "images" / "demo.jpg"
    assert path.stat().st_size <= 300_000
    with Image.open(path) as image:
        assert image.width == 1280
