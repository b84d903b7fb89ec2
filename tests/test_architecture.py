"""The promises the package makes about itself: imports, docstrings, house files."""

from __future__ import annotations

import ast
import os
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "src" / "napari_alibi_seg"
MODULES = sorted(PACKAGE.rglob("*.py"))
ROOMS = [
    *("_base", "data", "features", "learn", "_segmenter", "_distributed"),
    *("_workspace", "_cli"),
]

TORCH = ["torch", "timm", "torchvision"]
GUI = ["qtpy", "PyQt5", "PyQt6", "PySide2", "PySide6", "napari", "magicgui", "superqt"]


DOORS = ["napari_alibi_seg", *(f"napari_alibi_seg.{r}" for r in ROOMS)]
# Each door is opened with nothing of the package loaded; what others wrote stays
# loaded, as it takes most of the time.
OPEN_EACH = """
import sys
from importlib import import_module
for door in sys.argv[1:]:
    for name in [m for m in sys.modules if m.partition(".")[0] == "napari_alibi_seg"]:
        del sys.modules[name]
    import_module(door)
    print(door, *sys.modules)
"""


@pytest.fixture(scope="module")
def loaded() -> dict[str, set[str]]:
    """What is loaded behind each door, and those before it, in a process without us."""
    done = subprocess.run(
        [sys.executable, "-c", OPEN_EACH, *DOORS],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    return {door: {m.partition(".")[0] for m in names} for door, *names in lines}


@pytest.mark.parametrize("name", DOORS)
def test_import_loads_neither_torch_nor_a_gui(
    name: str, loaded: dict[str, set[str]]
) -> None:
    assert "napari_alibi_seg" in loaded[name]
    assert loaded[name].isdisjoint(TORCH + GUI)


def test_the_bare_package_loads_nothing_heavy() -> None:
    code = "import sys, napari_alibi_seg; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded.isdisjoint({"numpy", "scipy", "numba", "sklearn", "zarr", "pydantic"})


def test_import_directions_hold() -> None:
    program = Path(sysconfig.get_path("scripts")) / "lint-imports"
    if not program.is_file():
        pytest.skip("import-linter is not installed beside this Python")
    done = subprocess.run(
        [program, "--no-cache"],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(
    "path", [pytest.param(p, id=str(p.relative_to(PACKAGE))) for p in MODULES]
)
def test_module_says_what_it_is(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring, f"{path} has no module docstring"
    summary = docstring.split("\n\n")[0]
    assert summary.endswith((".", "?", ":"))


@pytest.mark.parametrize("room", ["", *[f".{r}" for r in ROOMS if r != "_cli"]])
def test_public_names_exist_and_are_documented(room: str) -> None:
    module = import_module(f"napari_alibi_seg{room}")
    assert module.__all__
    for name in module.__all__:
        value = getattr(module, name)
        if callable(value) and getattr(value, "__module__", "").startswith("napari_"):
            assert value.__doc__, f"{name} of {module.__name__} has no docstring"


def test_rooms_use_each_other_through_their_door() -> None:
    inside = re.compile(
        r"^\s*(?:from|import) napari_alibi_seg\.(\w+)\._\w+", re.MULTILINE
    )
    for path in MODULES:
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        others = set(inside.findall(path.read_text(encoding="utf-8"))) - {room}
        assert not others, f"{path} reaches into {sorted(others)}"


def test_no_machine_is_named_in_the_repository() -> None:
    named = re.compile(r"(/home/|/root/|/Users/|/work/|C:\\\\Users)\w")
    suffixes = {".py", ".md", ".toml", ".yaml", ".yml", ".cff", ".sh", ""}
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    for line in listed.stdout.splitlines():
        path = REPOSITORY / line
        if path.suffix in suffixes and path.is_file() and path != Path(__file__):
            found = named.search(path.read_text(encoding="utf-8"))
            assert not found, f"{line} names {found and found.group()!r}"


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    contributing = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = [r.split("|")[1] for r in contributing.splitlines() if r.startswith("| ")]
    explained = {name.strip() for row in rows for name in row.split(",")}
    wanted = {
        re.split(r"[<>=!~\[ ;]", d)[0] for d in project["project"]["dependencies"]
    }
    assert wanted <= explained
    assert explained - wanted <= {"dependency"}


def test_sources_and_script_agree_on_the_oldest_python() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    script = (REPOSITORY / "tools" / "find-python.sh").read_text(encoding="utf-8")
    assert project["project"]["requires-python"] == ">=3.11"
    assert "oldest=3.11" in script
    assert "(3, 11)" in script


# ------------------------------------------------------------- make and its Python


def _fake_python(folder: Path, name: str, *, recent: bool, venv: bool) -> None:
    """A program that answers the three questions of `find-python.sh`."""
    program = folder / name
    program.write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        f"  *'>= (3, 11)'*) echo {recent} ;;\n"
        f"  *ensurepip*) exit {0 if venv else 1} ;;\n"
        "  *version_info*) echo 3.12 ;;\n"
        "  --version) echo Python 3.9.2 ;;\n"
        "esac\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def bare_path(tmp_path: Path) -> Path:
    """A folder for PATH that holds the shell's own tools and no Python."""
    for name in ("sh", "id"):
        program = shutil.which(name)
        if program is None:
            pytest.skip(f"needs {name}")
        (tmp_path / name).symlink_to(program)
    return tmp_path


def _find_python(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [path / "sh", REPOSITORY / "tools" / "find-python.sh", *arguments],
        env={"PATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_first_recent_python_is_taken(bare_path: Path) -> None:
    _fake_python(bare_path, "python3", recent=False, venv=True)
    _fake_python(bare_path, "python3.12", recent=True, venv=True)
    done = _find_python(bare_path)
    assert (done.returncode, done.stdout.strip()) == (
        0,
        str(bare_path / "python3.12"),
    )


@pytest.mark.parametrize(
    ("pythons", "message", "line"),
    [
        pytest.param(
            {},
            "none was found",
            "apt-get install -y python3 python3-venv",
            id="none",
        ),
        pytest.param(
            {"python3": {"recent": False, "venv": True}},
            "python3 is Python 3.9.2",
            "apt-get install -y python3.11 python3.11-venv",
            id="old",
        ),
        pytest.param(
            {"python3": {"recent": True, "venv": False}},
            "cannot make virtual environments",
            "apt-get install -y python3.12-venv",
            id="no-venv",
        ),
    ],
)
def test_missing_python_prints_the_line_that_installs_it(
    bare_path: Path, pythons: dict[str, dict[str, bool]], message: str, line: str
) -> None:
    for name, answers in pythons.items():
        _fake_python(bare_path, name, **answers)
    done = _find_python(bare_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert message in done.stderr
    assert done.stderr.splitlines()[-1].strip().removeprefix("sudo ") == line


@pytest.mark.parametrize(
    ("python", "message"),
    [
        pytest.param("old", "PYTHON=old is not a Python >= 3.11.", id="old"),
        pytest.param("nowhere", "PYTHON=nowhere: no such program.", id="missing"),
    ],
)
def test_named_python_is_never_replaced(
    bare_path: Path, python: str, message: str
) -> None:
    _fake_python(bare_path, "old", recent=False, venv=True)
    _fake_python(bare_path, "python3", recent=True, venv=True)
    done = _find_python(bare_path, python)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.strip() == message


def test_make_installs_torch_and_all_else_with_one_command() -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("needs make")
    for target, groups in (("demo", ""), ("test", " --group dev")):
        done = subprocess.run(
            [make, "--dry-run", target, "VENV=nowhere"],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=True,
        )
        installs = [x for x in done.stdout.splitlines() if "pip install" in x]
        assert installs == [
            'nowhere/bin/python -m pip install --quiet --upgrade "pip>=25.1"',
            f"nowhere/bin/python -m pip install --editable .{groups}",
        ]


@pytest.mark.parametrize(
    "name", [".ci/run", "tools/find-python.sh", "tools/with-display.sh"]
)
def test_scripts_can_be_run(name: str) -> None:
    path = REPOSITORY / name
    assert path.stat().st_mode & stat.S_IXUSR
    shell = path.read_text().splitlines()[0].removeprefix("#!").split()[-1]
    program = shutil.which(Path(shell).name)
    if program is None:
        pytest.skip(f"needs {shell}")
    subprocess.run([program, "-n", path], check=True)
