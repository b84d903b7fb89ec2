"""`alibi-seg gui`: what it checks before a window opens, and what opens it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import napari_alibi_seg

SOURCE = Path(napari_alibi_seg.__path__[0]).parent
MAIN = "from napari_alibi_seg._cli import main; sys.exit(main())"
# as on a machine where the extra is not installed
BARE = f"import sys; sys.modules.update(napari=None, qtpy=None); {MAIN}"
# packages are there (or look so), their Qt is not
STUBS = "; ".join(
    f"sys.modules.setdefault({name!r}, types.ModuleType({name!r}));"
    f"sys.modules[{name!r}].__spec__ = importlib.machinery.ModuleSpec({name!r}, None)"
    for name in ("napari", "qtpy", "magicgui", "superqt")
)
FULL = f"import importlib.machinery, sys, types; {STUBS}; {MAIN}"
OPENER = """\
import json
def open_viewer(paths, classifier=None):
    print(json.dumps([[str(p) for p in paths], classifier and str(classifier)]))
    return 0
"""
LOST_QT = "raise ImportError('libEGL.so.1: cannot open shared object file')\n"
OUR_FAULT = "from napari_alibi_seg import no_such_name\n"


def installed(folder: Path, opener: str) -> Path:
    """Make a folder that holds an installation with a window of the test's own."""
    info = folder / "napari_alibi_seg_window-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: napari-alibi-seg-window\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[napari_alibi_seg.gui]\nopen = a_window:open_viewer\n"
    )
    (folder / "a_window.py").write_text(opener)
    return folder


def alibi_seg(
    code: str, *args: object, site: Path | None = None
) -> subprocess.CompletedProcess[str]:
    path = [str(SOURCE)] if site is None else [str(site), str(SOURCE)]
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def test_without_the_extra_it_says_what_to_install(tmp_path) -> None:
    (tmp_path / "a.tif").touch()
    done = alibi_seg(BARE, "gui", tmp_path / "a.tif")
    assert done.returncode == 2
    assert 'pip install "napari-alibi-seg[all]"' in done.stderr
    assert "napari, qtpy" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("opener", "code", "message"),
    [
        pytest.param(LOST_QT, 2, 'pip install "napari-alibi-seg[all]"', id="no-qt"),
        pytest.param(OUR_FAULT, 1, "Traceback", id="our-fault-is-not-hidden"),
    ],
)
def test_a_window_that_does_not_load(tmp_path, opener, code, message) -> None:
    done = alibi_seg(FULL, "gui", site=installed(tmp_path, opener))
    assert done.returncode == code
    assert message in done.stderr
    if code == 2:
        assert "libEGL.so.1" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        pytest.param(["a.tif", "gone.tif"], "gone.tif", id="image"),
        pytest.param(["a.tif", "--classifier", "no.alibiseg"], "no.alibiseg", id="clf"),
        pytest.param(["--classifier", "a.tif"], "a.tif", id="foreign"),
    ],
)
def test_a_missing_file_is_told_before_a_window_opens(tmp_path, args, message) -> None:
    (tmp_path / "a.tif").touch()
    named = [a if a.startswith("--") else str(tmp_path / a) for a in args]
    done = alibi_seg(FULL, "gui", *named, site=installed(tmp_path, OPENER))
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_images_reach_the_window(tmp_path) -> None:
    site = installed(tmp_path, OPENER)
    for name in ("a.tif", "b c.png"):
        (tmp_path / name).touch()
    images = [str(tmp_path / "a.tif"), str(tmp_path / "b c.png")]
    done = alibi_seg(FULL, "gui", *images, site=site)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f'[["{images[0]}", "{images[1]}"], null]\n'
    assert alibi_seg(FULL, "gui", site=site).stdout == "[[], null]\n"


def test_a_checked_classifier_reaches_the_window(tmp_path) -> None:
    from segmenter.samples import sample

    from napari_alibi_seg._segmenter import Segmenter

    image, _, scribbles = sample()
    segmenter = Segmenter()
    segmenter.fit(image, scribbles)
    path = tmp_path / "c.alibiseg"
    segmenter.save(path)
    site = installed(tmp_path, OPENER)
    done = alibi_seg(FULL, "gui", "--classifier", path, site=site)
    assert (done.returncode, done.stdout) == (0, f'[[], "{path}"]\n')


def test_the_window_that_comes_with_the_package_takes_what_is_given() -> None:
    pytest.importorskip("napari")
    import inspect

    from napari_alibi_seg._widgets import open_viewer

    bound = inspect.signature(open_viewer).bind([Path("a.tif")], classifier=None)
    assert bound.arguments == {"images": [Path("a.tif")], "classifier": None}


@pytest.mark.parametrize("args", [["--help"], ["gui", "--help"]], ids=["all", "gui"])
def test_help_stays_light(args) -> None:
    code = (
        "import atexit, sys; atexit.register(lambda: print(*sys.modules, "
        f"file=sys.stderr)); {MAIN}"
    )
    done = alibi_seg(code, *args)
    assert done.returncode == 0
    assert "gui" in done.stdout
    loaded = {name.partition(".")[0] for name in done.stderr.split()}
    assert "argparse" in loaded
    assert loaded.isdisjoint({"napari", "qtpy", "magicgui", "torch", "numba", "zarr"})
