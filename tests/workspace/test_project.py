"""The project folder: saved, found again, damaged, replaced, shared."""

from __future__ import annotations

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from napari_alibi_seg._base import AnnotationError, OutputError, StoreError, Window
from napari_alibi_seg._workspace import (
    ClassEntry,
    DockSettings,
    ExcludedArea,
    ImageIdentity,
    Project,
    ProjectState,
    find_project,
    project_folder,
)
from napari_alibi_seg.data import open_image, write_image

SHAPE = (300, 400)
STATE = ProjectState(
    classes=(
        ClassEntry(id=7, name="grain", colour="#0072b2", weight=2),
        ClassEntry(id=1, name="Pore β", colour="#e69f00"),
    ),
    settings=DockSettings(backbone="vit", features="both", channels=(1, 0), live=False),
    excluded=(ExcludedArea(kind="polygon", corners=((0, 0), (0, 9.5), (4, 0))),),
    classifier="classifier.alibiseg",
)


@pytest.fixture(autouse=True)
def users_projects(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("ALIBI_SEG_PROJECTS", str(tmp_path / "user projects"))
    return tmp_path / "user projects"


def _image(folder: Path, seed: int = 0, name: str = "steel.tif") -> ImageIdentity:
    folder.mkdir(exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, SHAPE, np.uint8)
    write_image(folder / name, pixels, axes="YX")
    return ImageIdentity.of(open_image(folder / name))


@pytest.fixture
def image(tmp_path) -> ImageIdentity:
    return _image(tmp_path / "scans")


@pytest.fixture
def labels() -> np.ndarray:
    labels = np.zeros(SHAPE, np.int64)
    labels[5:9, 10:60] = 1
    labels[200, 30:390] = 3
    labels[290:, 390:] = 7
    return labels


def _all_files(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != ".lock"
    }


def test_everything_comes_back(image, labels) -> None:
    with Project.create(image, STATE) as project:
        project.save_scribbles(None, labels)
    assert project.folder == image.path.with_name("steel.tif.alibi-seg")
    found = find_project(image)
    assert found is not None
    assert (found.folder, found.is_same_image) == (project.folder, True)
    with Project.open(found.folder, image) as again:
        assert again.load_state() == STATE
        assert np.array_equal(again.load_scribbles(None), labels)
        assert again.painted() == {1: 200, 3: 360, 7: 100}
        assert again.window_of(None, (7,)) == Window(256, 300, 256, 400)
        assert again.notices == ()


def test_planes_are_kept_apart(image, labels) -> None:
    with Project.create(image) as project:
        project.save_scribbles(0, labels)
        project.save_scribbles(12, np.where(labels == 3, 300, 0))
        project.save_scribbles((1, 4), labels == 7)
    names = sorted(p.name for p in project.folder.glob("scribbles*"))
    assert names == [f"scribbles-{n}.safetensors" for n in ("0", "1-4", "12")]
    with Project.open(project.folder, image) as again:
        assert again.planes == ((0,), (1, 4), (12,))
        assert again.painted(12) == {300: 360}
        assert again.painted((1, 4)) == {1: 100}
        assert again.painted(5) == {}
        assert again.painted_everywhere() == {1: 300, 3: 360, 7: 100, 300: 360}


def test_only_what_changed_is_written(image, labels) -> None:
    with Project.create(image, STATE) as project:
        assert project.save_scribbles(0, labels)
        assert project.save_scribbles(1, labels)
        before = {p: p.stat().st_mtime_ns for p in project.folder.iterdir()}
        assert not project.save_scribbles(0, labels)
        assert not project.save_state(STATE)
        labels[0, 0] = 3
        assert project.save_scribbles(1, labels, Window(0, 1, 0, 1))
        after = {p: p.stat().st_mtime_ns for p in project.folder.iterdir()}
    assert after.keys() == before.keys()
    changed = [p.name for p in before if before[p] != after[p]]
    assert changed == ["scribbles-1.safetensors"]


def test_erased_scribbles_stay_erased(image, labels) -> None:
    with Project.create(image) as project:
        project.save_scribbles(None, labels)
        labels[:] = 0
        project.save_scribbles(None, labels)
    with Project.open(project.folder, image) as again:
        assert again.painted() == {}
        assert again.notices == ()


def test_stroke_in_a_reopened_project_keeps_the_others(image, labels) -> None:
    with Project.create(image) as project:
        project.save_scribbles(None, labels)
    more = labels.copy()
    more[100, 100] = 3
    with Project.open(project.folder, image) as again:
        # the layer's data is whole, the window is the stroke's
        again.save_scribbles(None, more, Window(100, 101, 100, 101))
    with Project.open(project.folder, image) as third:
        assert np.array_equal(third.load_scribbles(None), more)


def test_labels_of_another_shape_are_refused(image) -> None:
    with (
        Project.create(image) as project,
        pytest.raises(AnnotationError, match=r"\(300, 400\), got \(4, 4\)"),
    ):
        project.save_scribbles(None, np.ones((4, 4), np.uint8))


# --------------------------------------------------------------- where it is


def test_layer_without_file_is_kept_among_the_users(users_projects, labels) -> None:
    pixels = np.arange(np.prod(SHAPE), dtype=np.uint16).reshape(SHAPE)
    image = ImageIdentity.of(open_image(pixels), name="a/b: c")
    with Project.create(image) as project:
        project.save_scribbles(None, labels)
    assert project.folder == users_projects / f"a_b_ c-{image.content_hash[:12]}"
    renamed = ImageIdentity.of(open_image(pixels.copy()), name="other")
    found = find_project(renamed)
    assert found is not None
    assert (found.folder, found.is_same_image) == (project.folder, True)
    other = ImageIdentity.of(open_image(pixels + 1), name="a/b: c")
    assert find_project(other) is None


def _deny(monkeypatch, folder: Path) -> None:
    """Make a folder read-only, also for an administrator."""
    real_mkdir, real_access = Path.mkdir, os.access

    def mkdir(self, *args, **kwargs):
        if folder in self.parents:
            raise PermissionError(13, "Permission denied", str(self))
        real_mkdir(self, *args, **kwargs)

    def access(path, mode, **kwargs):
        inside = folder == Path(path) or folder in Path(path).parents
        return real_access(path, mode, **kwargs) and not (inside and mode & os.W_OK)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    monkeypatch.setattr(os, "access", access)


def test_read_only_folder_falls_back(
    image, labels, users_projects, monkeypatch
) -> None:
    _deny(monkeypatch, image.path.parent)
    assert project_folder(image).parent == users_projects
    with Project.create(image) as project:
        project.save_scribbles(None, labels)
    assert project.folder.parent == users_projects
    assert project.folder.name.startswith("steel.tif-")
    assert [p.name for p in image.path.parent.iterdir()] == ["steel.tif"]
    found = find_project(image)
    assert found is not None
    assert found.folder == project.folder


def test_folder_that_only_turns_out_read_only_falls_back(
    image, users_projects, monkeypatch
) -> None:
    _deny(monkeypatch, image.path.parent)
    # some network disks promise what they then refuse
    monkeypatch.setattr(os, "access", lambda *_, **__: True)
    assert project_folder(image).parent == image.path.parent
    with Project.create(image) as project:
        assert project.folder.parent == users_projects


@pytest.fixture
def read_only(image):
    """The image's folder without the permission to write, where that means anything."""
    folder = image.path.parent
    folder.chmod(0o555)
    try:
        if os.access(folder, os.W_OK):
            pytest.skip("this user may write everywhere")
        yield folder
    finally:
        folder.chmod(0o755)


def test_really_read_only_folder_falls_back(
    image, labels, read_only, users_projects
) -> None:
    with Project.create(image) as project:
        project.save_scribbles(None, labels)
    assert project.folder.parent == users_projects
    assert [p.name for p in read_only.iterdir()] == ["steel.tif"]
    found = find_project(image)
    assert found is not None
    assert (found.folder, found.is_same_image) == (project.folder, True)


def test_read_only_project_is_copied(
    image, labels, users_projects, monkeypatch
) -> None:
    with Project.create(image, STATE) as project:
        project.save_scribbles(None, labels)
    before = _all_files(image.path.parent)
    _deny(monkeypatch, image.path.parent)
    with Project.open(project.folder, image) as copy:
        assert copy.folder.parent == users_projects
        assert any("work goes on in" in n for n in copy.notices)
        assert copy.load_state() == STATE
        labels[0, 0] = 7
        copy.save_scribbles(None, labels, Window(0, 1, 0, 1))
    assert _all_files(image.path.parent) == before
    # the copy is the later one, and found first
    found = find_project(image)
    assert found is not None
    with Project.open(found.folder, image) as again:
        assert again.painted()[7] == 101


def test_nowhere_to_write_is_an_error(image, tmp_path, monkeypatch) -> None:
    _deny(monkeypatch, tmp_path)
    with pytest.raises(OutputError, match="ALIBI_SEG_PROJECTS"):
        Project.create(image)


def test_image_and_project_move_together(image, labels, tmp_path) -> None:
    with Project.create(image) as project:
        project.save_scribbles(None, labels)
    assert str(tmp_path) not in (project.folder / "project.json").read_text()
    moved = image.path.parent.rename(tmp_path / "elsewhere")
    again = ImageIdentity.of(open_image(moved / "steel.tif"))
    found = find_project(again)
    assert found is not None
    assert (found.folder.parent, found.is_same_image) == (moved, True)


def test_renamed_image_finds_its_project_but_a_copy_does_not(image, labels) -> None:
    with Project.create(image) as project:
        project.save_scribbles(None, labels)
    copy = image.path.with_name("copy.tif")
    copy.write_bytes(image.path.read_bytes())
    assert find_project(ImageIdentity.of(open_image(copy))) is None
    image.path.unlink()
    found = find_project(ImageIdentity.of(open_image(copy)))
    assert found is not None
    assert (found.folder, found.is_same_image) == (project.folder, True)


def test_new_project_does_not_replace_the_old(image, labels) -> None:
    with Project.create(image) as project:
        project.save_scribbles(None, labels)
        before = _all_files(project.folder)
        with pytest.raises(OutputError, match="has it open"):
            Project.create(image)
    with Project.create(image) as fresh:
        assert fresh.folder == project.folder
        assert fresh.painted() == {}
        assert any("old-1" in n for n in fresh.notices)
    assert (
        _all_files(project.folder.with_name(project.folder.name + ".old-1")) == before
    )


# ------------------------------------------------------------------- damage


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[1]", b'{"schema": "x"}', b"[" * 100_000],
    ids=["empty", "cut", "bytes", "list", "schema", "deep"],
)
def test_damaged_project_file_is_kept_aside(image, labels, content: bytes) -> None:
    with Project.create(image, STATE) as project:
        project.save_scribbles(None, labels)
    (project.folder / "project.json").write_bytes(content)
    found = find_project(image)
    assert found is not None
    assert found.is_same_image
    with Project.open(found.folder, image) as again:
        assert np.array_equal(again.load_scribbles(None), labels)
        assert again.load_state() == ProjectState()
        assert "damaged" in again.notices[0]
    assert (project.folder / "project.json.damaged-1").read_bytes() == content
    (project.folder / "project.json").write_bytes(b"?")
    with Project.open(found.folder, image) as third:
        assert third.painted() == {1: 200, 3: 360, 7: 100}
    assert (project.folder / "project.json.damaged-1").read_bytes() == content
    assert (project.folder / "project.json.damaged-2").read_bytes() == b"?"


def test_one_wrong_field_costs_itself_alone(image) -> None:
    with Project.create(image, STATE) as project:
        pass
    path = project.folder / "project.json"
    content = json.loads(path.read_text("utf-8"))
    content["settings"]["density"] = -1
    path.write_text(json.dumps(content))
    with Project.open(project.folder, image) as again:
        assert again.load_state() == STATE.model_copy(
            update={"settings": DockSettings()}
        )
        assert "settings" in again.notices[0]
        assert "density" in again.notices[0]
    kept = json.loads((project.folder / "project.json.damaged-1").read_text())
    assert kept == content


def test_missing_project_file_loses_no_scribbles(image, labels) -> None:
    with Project.create(image) as project:
        project.save_scribbles(3, labels)
    (project.folder / "project.json").unlink()
    with Project.open(project.folder, image) as again:
        assert again.planes == ((3,),)
        assert again.painted(3) == {1: 200, 3: 360, 7: 100}
        assert "project.json is missing" in again.notices[0]


def test_project_of_a_later_version_is_not_touched(image, labels) -> None:
    with Project.create(image) as project:
        project.save_scribbles(None, labels)
    path = project.folder / "project.json"
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 2'))
    before = _all_files(project.folder)
    with pytest.raises(StoreError, match=r"got version 2\. Update"):
        Project.open(project.folder, image)
    assert _all_files(project.folder) == before


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: content[:-30], id="cut"),
        pytest.param(lambda _: b"", id="empty"),
        pytest.param(lambda c: c[:-9] + b"\0\0\0\0\0" + c[-4:], id="bytes"),
    ],
)
def test_damaged_scribbles_are_kept_aside(image, labels, damage) -> None:
    with Project.create(image) as project:
        project.save_scribbles(0, labels)
        project.save_scribbles(1, labels)
    path = project.folder / "scribbles-0.safetensors"
    content = damage(path.read_bytes())
    path.write_bytes(content)
    with Project.open(project.folder, image) as again:
        assert not again.load_scribbles(0).any()
        assert again.painted(1) == {1: 200, 3: 360, 7: 100}
        assert "scribbles-0.safetensors.damaged-1" in again.notices[0]
        labels[:100] = 0
        again.save_scribbles(0, labels)
    aside = project.folder / "scribbles-0.safetensors.damaged-1"
    assert aside.read_bytes() == content
    with Project.open(project.folder, image) as third:
        assert third.painted(0) == {3: 360, 7: 100}
        assert third.notices == ()


def test_missing_scribbles_are_told(image, labels) -> None:
    with Project.create(image) as project:
        project.save_scribbles(0, labels)
    (project.folder / "scribbles-0.safetensors").unlink()
    with Project.open(project.folder, image) as again:
        assert "scribbles-0.safetensors is missing" in again.notices[0]


def test_leftovers_of_a_killed_save_are_removed(image) -> None:
    with Project.create(image) as project:
        pass
    for name in (".a.json.0f.new", ".scribbles.x.0f.new.12.part"):
        (project.folder / name).write_bytes(b"half")
    with Project.open(project.folder, image):
        names = {p.name for p in project.folder.iterdir()}
    assert names == {".lock", "project.json"}


# ------------------------------------------------------------ another image


def test_replaced_image_is_told_and_nothing_is_used(image, labels) -> None:
    with Project.create(image, STATE) as project:
        project.save_scribbles(None, labels)
    other = _image(image.path.parent, seed=1)
    found = find_project(other)
    assert found is not None
    assert not found.is_same_image
    assert "replaced" in found.reason
    before = _all_files(project.folder)
    with pytest.raises(StoreError, match="made on other pixels"):
        Project.open(found.folder, other)
    assert _all_files(project.folder) == before
    with Project.open(found.folder, other, accept_replaced=True) as again:
        assert np.array_equal(again.load_scribbles(None), labels)
        assert again.load_state() == STATE
    # from now on it is the project of the new image, and no longer of the old
    with Project.open(found.folder, other) as third:
        assert third.painted() == {1: 200, 3: 360, 7: 100}
        assert third.notices == ()
    with pytest.raises(StoreError, match="made on other pixels"):
        Project.open(found.folder, image)


def test_replaced_image_of_another_shape_keeps_scribbles_aside(image, labels) -> None:
    with Project.create(image) as project:
        project.save_scribbles(None, labels)
    content = (project.folder / "scribbles.safetensors").read_bytes()
    other = ImageIdentity(image.name, image.path, (10, 12), "0" * 64)
    with Project.open(project.folder, other, accept_replaced=True) as again:
        assert again.load_scribbles(None).shape == (10, 12)
        assert "300 x 400 pixels, not 10 x 12" in again.notices[0]
    aside = project.folder / "scribbles.safetensors.other-image-1"
    assert aside.read_bytes() == content


def test_replaced_image_shows_also_without_project_file(image, labels) -> None:
    with Project.create(image) as project:
        project.save_scribbles(None, labels)
    (project.folder / "project.json").unlink()
    other = _image(image.path.parent, seed=1)
    with pytest.raises(StoreError, match="made on other pixels"):
        Project.open(project.folder, other)


def test_replaced_image_of_the_users_folder_is_told(
    image, users_projects, monkeypatch
) -> None:
    with monkeypatch.context() as patch:
        _deny(patch, image.path.parent)
        Project.create(image).close()
    found = find_project(_image(image.path.parent, seed=1))
    assert found is not None
    assert (found.folder.parent, found.is_same_image) == (users_projects, False)


def test_replaced_image_and_damaged_project_file_at_once(image, labels) -> None:
    with Project.create(image) as project:
        project.save_scribbles(0, labels)
        project.save_scribbles(1, labels)
        project.save_scribbles(1, labels * 0)
    (project.folder / "project.json").write_bytes(b"?")
    other = _image(image.path.parent, seed=1)
    before = _all_files(project.folder)
    with pytest.raises(StoreError, match="made on other pixels"):
        Project.open(project.folder, other)
    assert _all_files(project.folder) == before
    Project.open(project.folder, other, accept_replaced=True).close()
    with Project.open(project.folder, other) as again:
        assert np.array_equal(again.load_scribbles(0), labels)
        assert again.painted(1) == {}
        assert again.notices == ()


def test_foreign_scribbles_are_not_mixed_in(image, labels, tmp_path) -> None:
    with Project.create(image) as project:
        project.save_scribbles(0, labels)
    other = _image(tmp_path / "others", seed=1)
    with Project.create(other) as stranger:
        pass
    content = (project.folder / "scribbles-0.safetensors").read_bytes()
    (stranger.folder / "scribbles-0.safetensors").write_bytes(content)
    with Project.open(stranger.folder, other) as again:
        assert again.painted(0) == {}
        assert "painted on other pixels" in again.notices[0]
    aside = stranger.folder / "scribbles-0.safetensors.other-image-1"
    assert aside.read_bytes() == content


# ------------------------------------------------------------------- sharing


def test_two_programs_lose_nothing(image, labels) -> None:
    with Project.create(image) as one:
        one.save_scribbles(None, labels)
        with Project.open(one.folder, image) as two:
            assert not one.is_shared
            assert two.is_shared
            assert "open" in two.notices[0]
            theirs = labels.copy()
            theirs[0, :50] = 3
            two.save_scribbles(None, theirs)
        mine = labels.copy()
        mine[1, :50] = 7
        one.save_scribbles(None, mine)
        assert any("Another program wrote scribbles" in n for n in one.notices)
    aside = one.folder / "scribbles.safetensors.other-1"
    aside.rename(one.folder / "scribbles-9.safetensors")
    with Project.open(one.folder, image) as again:
        assert not again.is_shared
        assert np.array_equal(again.load_scribbles(None), mine)
        assert np.array_equal(again.load_scribbles(9), theirs)


def test_failed_save_is_tried_again(image, labels, monkeypatch) -> None:
    with Project.create(image) as project:
        with monkeypatch.context() as patch:

            def fsync(_):
                raise OSError(28, "No space left on device")

            patch.setattr(os, "fsync", fsync)
            with pytest.raises(OutputError, match="No space left"):
                project.save_scribbles(None, labels)
        assert not list(project.folder.glob("scribbles*"))
        assert project.flush()
        assert not project.flush()
    with Project.open(project.folder, image) as again:
        assert again.painted() == {1: 200, 3: 360, 7: 100}


def test_painting_does_not_wait_for_the_disk(image, labels, monkeypatch) -> None:
    is_writing, may_go_on = threading.Event(), threading.Event()
    real_fsync = os.fsync

    def slow_fsync(descriptor: int) -> None:
        is_writing.set()
        assert may_go_on.wait(30)
        real_fsync(descriptor)

    with Project.create(image) as project:
        monkeypatch.setattr(os, "fsync", slow_fsync)
        with ThreadPoolExecutor(1) as pool:
            project.update_scribbles(None, labels)
            writing = pool.submit(project.flush)
            try:
                assert is_writing.wait(30)
                labels[0, 0] = 7
                # would wait for ever if it waited for the disk
                assert project.update_scribbles(None, labels, Window(0, 1, 0, 1))
                assert project.painted()[7] == 101
            finally:
                may_go_on.set()
            assert writing.result()
    with Project.open(project.folder, image) as again:
        assert again.painted()[7] == 101


def test_painting_while_another_thread_writes(image) -> None:
    labels = np.zeros(SHAPE, np.uint8)
    with Project.create(image) as project, ThreadPoolExecutor(2) as pool:
        writing = []
        for row in range(SHAPE[0]):
            labels[row, row : row + 50] = 1 + row % 7
            project.update_scribbles(None, labels, Window(row, row + 1, row, row + 50))
            if row % 10 == 0:
                writing.append(pool.submit(project.flush))
        assert any(w.result() for w in writing)
    with Project.open(project.folder, image) as again:
        assert np.array_equal(again.load_scribbles(None), labels)


def test_folder_removed_while_open_is_made_again(image, labels) -> None:
    with Project.create(image, STATE) as project:
        project.save_scribbles(None, labels)
        moved = project.folder.rename(project.folder.with_name("away"))
        labels[0, 0] = 3
        project.save_scribbles(None, labels, Window(0, 1, 0, 1))
        assert any("made again" in n for n in project.notices)
    assert moved.is_dir()
    with Project.open(project.folder, image) as again:
        assert again.load_state() == STATE
        assert np.array_equal(again.load_scribbles(None), labels)


@pytest.mark.parametrize(("z", "is_fine"), [(None, True), (2.0, True), (-2.0, False)])
def test_a_project_has_no_negative_distance_of_planes(z, is_fine):
    size = {"y": 1.0, "x": 1.0, "unit": "um", "z": z}
    if is_fine:
        assert ProjectState.model_validate({"pixel_size": size}).pixel_size.z == z
        return
    with pytest.raises(ValueError, match="sides above 0"):
        ProjectState.model_validate({"pixel_size": size})
