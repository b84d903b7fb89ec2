"""Projects of a session: shared, let go of, written late, never lost."""

from __future__ import annotations

import logging
import threading
import time

import numpy as np
import pytest
from segmenter.samples import sample

from napari_alibi_seg._base import OutputError, PixelSize
from napari_alibi_seg._workspace import (
    ExcludedArea,
    OpenImage,
    Project,
    Session,
    find_project,
)
from napari_alibi_seg._workspace import _project_files as files_module
from napari_alibi_seg.data import open_image, write_image

UM = PixelSize(0.5, 0.5, "um")


@pytest.fixture(autouse=True)
def own_projects(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIBI_SEG_PROJECTS", str(tmp_path / "projects"))


@pytest.fixture
def session():
    made = Session()
    yield made
    made.close()


def picture(folder, name="s.png", **more):
    pixels, _, _ = sample()
    seed = sum(name.encode()) % 200
    write_image(folder / name, pixels + np.uint8(seed), axes="YX", **more)
    return folder / name


def opened(session, path, key="a", *, plane=None, layer=None, name=None):
    """Open an image as the dock does; return it and what was found."""
    image = OpenImage(
        key=key,
        source=open_image(path),
        name=name or path.name,
        plane=plane,
        layer=layer or key,
    )
    (event,) = session.iter_open(image)
    session.images[key] = image
    return image, event.found


def strokes(row=20, class_id=3):
    labels = np.zeros((96, 128), np.uint8)
    labels[row, 10:60] = class_id
    return labels


def painted(session, path, key="a", **more):
    image, _ = opened(session, path, key, **more)
    (project,) = session.iter_project(image, None)
    project.update_scribbles(image.plane, strokes())
    return image


def kept(path, plane=None):
    """Return what a fresh program finds of an image."""
    session = Session()
    image, found = opened(session, path)
    (project,) = session.iter_project(image, found)
    labels = project.load_scribbles(plane)
    assert not project.is_shared
    session.close()
    return labels


def fail_to_write(monkeypatch, *folders):
    """Let the disk be full for some projects; return those that were tried."""
    tried, real = [], files_module.write

    def write(path, content):
        tried.append(path.parent.name)
        if not folders or path.parent in folders:
            raise OutputError(f"{path}: no space left")
        return real(path, content)

    monkeypatch.setattr(files_module, "write", write)
    return tried


# ------------------------------------------------------------------ pixel size


def test_a_typed_pixel_size_comes_back_on_all_planes(session, tmp_path) -> None:
    path = picture(tmp_path)
    image = painted(session, path)
    session.set_pixel_size(image, UM)
    list(session.iter_save())
    session.close()
    again, found = opened(session, path)
    assert again.source.pixel_size is None
    list(session.iter_project(again, found))
    assert again.source.pixel_size == again.typed_size == UM
    plane, _ = opened(session, path, "b", plane=3, layer="a")
    session.join(plane)
    assert plane.source.pixel_size == UM
    session.set_pixel_size(plane, None)
    assert again.source.pixel_size is None
    assert session.state(again).pixel_size is None


def test_the_size_of_a_file_is_not_replaced_by_a_typed_one(session, tmp_path) -> None:
    path = picture(tmp_path, "s.tif")
    image = painted(session, path)
    session.set_pixel_size(image, UM)
    session.close()
    # the same pixels, and now the file says how large they are
    own = PixelSize(0.25, 0.25, "um")
    assert picture(tmp_path, "s.tif", pixel_size=own) == path
    again, found = opened(session, path)
    list(session.iter_project(again, found))
    assert again.source.pixel_size.x == pytest.approx(0.25)
    assert again.typed_size is None


def test_a_project_with_a_wrong_pixel_size_opens_without_it(session, tmp_path) -> None:
    path = picture(tmp_path)
    image = painted(session, path)
    session.set_pixel_size(image, UM)
    folder = image.project.folder
    session.close()
    file = folder / "project.json"
    file.write_text(file.read_text().replace('"y": 0.5', '"y": -1'))
    again, found = opened(session, path)
    (project,) = session.iter_project(again, found)
    assert again.source.pixel_size is None
    assert "pixel_size" in project.notices[0]
    assert project.painted() == {3: 50}


# ------------------------------------------------------------------- same image


def test_a_renamed_layer_keeps_its_project_on_other_planes(session, tmp_path) -> None:
    path = picture(tmp_path)
    first = painted(session, path, ("a", 0), plane=0, layer="a")
    other, _ = opened(session, path, ("a", 1), plane=1, layer="a", name="renamed")
    assert session.sibling(other) is first.project
    (project,) = session.iter_project(other, None)
    assert project is first.project
    assert not project.is_shared


def test_planes_whose_projects_are_begun_at_once_share_one(session, tmp_path) -> None:
    path = picture(tmp_path)
    planes = [opened(session, path, i, plane=i, layer="a")[0] for i in range(4)]
    for i, image in enumerate(planes):
        assert not session.keep(image, strokes(10 * i + 5, i + 1))
    threads = [
        threading.Thread(target=lambda i=i: list(session.iter_project(i, None)))
        for i in planes
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len({id(i.project) for i in planes}) == 1
    assert [i.painted for i in planes] == [{n: 50} for n in (1, 2, 3, 4)]
    assert session.keep(planes[0], strokes())


def test_the_same_file_in_two_layers_is_open_elsewhere(session, tmp_path) -> None:
    path = picture(tmp_path)
    first = painted(session, path, "a")
    twin, _ = opened(session, path, "b", name="s [1]")
    assert session.open_elsewhere(twin) is first
    other, _ = opened(session, picture(tmp_path, "other.png"), "c")
    assert session.open_elsewhere(other) is None
    session.drop("b")
    session.drop("a")
    third, found = opened(session, path, "d", name="s [1]")
    assert session.open_elsewhere(third) is None
    (project,) = session.iter_project(third, found)
    assert not project.is_shared
    assert project.painted() == {3: 50}


def test_strokes_of_a_plane_that_was_left_early_are_added(session, tmp_path) -> None:
    path = picture(tmp_path)
    known, _ = opened(session, path, ("a", 0), plane=0, layer="a")
    list(session.iter_keep_plane(known, 7, strokes(20)))
    list(session.iter_keep_plane(known, 7, strokes(40, 5)))
    assert known.project.painted(7) == {3: 50, 5: 50}
    session.add_plane(known, ("a", 7), 7, strokes(60, 9))
    session.close()
    assert np.array_equal(kept(path, 7), strokes(20) + strokes(40, 5) + strokes(60, 9))


def test_swapped_ids_change_places(session, tmp_path) -> None:
    image = painted(session, picture(tmp_path))
    image.project.update_scribbles(None, strokes(20, 3) + strokes(40, 5))
    session.remap(image, None, {3: 5, 5: 3})
    kept_now = image.project.load_scribbles(None)
    assert np.array_equal(kept_now, strokes(20, 5) + strokes(40, 3))


# ---------------------------------------------------------------------- let go


def test_dropping_writes_nothing_and_a_job_writes_all(session, tmp_path) -> None:
    path = picture(tmp_path)
    image = painted(session, path)
    file = image.project.folder / "scribbles.safetensors"
    session.drop("a")
    assert not file.exists()
    list(session.iter_write_leaving())
    assert np.array_equal(kept(path), strokes())


def test_an_image_that_comes_back_at_once_finds_its_strokes(session, tmp_path) -> None:
    path = picture(tmp_path)
    painted(session, path)
    session.drop("a")
    again, found = opened(session, path, "b")
    (project,) = session.iter_project(again, found)
    assert np.array_equal(project.load_scribbles(None), strokes())
    assert not project.is_shared


def test_what_could_not_be_written_is_taken_back(
    session, tmp_path, monkeypatch
) -> None:
    path = picture(tmp_path)
    image = painted(session, path)
    project = image.project
    session.drop("a")
    with monkeypatch.context() as patch:
        fail_to_write(patch)
        with pytest.raises(OutputError, match="no space left"):
            list(session.iter_write_leaving())
        again, _ = opened(session, path, "b")
        again.project = session.sibling(again)
    assert again.project is project
    assert again.painted == {3: 50}
    session.close()
    assert np.array_equal(kept(path), strokes())


def test_strokes_that_have_no_project_yet_are_kept_at_the_end(
    session, tmp_path
) -> None:
    path = picture(tmp_path)
    for plane in (0, 4):
        image, _ = opened(session, path, plane, plane=plane, layer="a")
        session.keep(image, strokes(20 + plane))
    session.close()  # no job had begun to make it
    assert np.array_equal(kept(path, 0), strokes(20))
    assert np.array_equal(kept(path, 4), strokes(24))
    assert len(list(tmp_path.glob("*.alibi-seg*"))) == 1


def test_an_open_plane_takes_the_strokes_of_one_that_goes(session, tmp_path) -> None:
    path = picture(tmp_path)
    first = painted(session, path, 0, plane=0, layer="a")
    other, _ = opened(session, path, 1, plane=1, layer="a")
    session.keep(other, strokes(50, 8))
    session.drop(1)
    assert first.project.painted(1) == {8: 50}


def test_strokes_painted_while_the_project_is_made_are_in_it(
    session, tmp_path, monkeypatch
) -> None:
    image, _ = opened(session, picture(tmp_path))
    session.keep(image, strokes(10))
    real = Project.update_scribbles

    def painting(self, plane, labels, changed=None):
        if image.pending is None and labels[30].sum() == 0:
            session.keep(image, strokes(10) + strokes(30, 5))
        return real(self, plane, labels, changed)

    monkeypatch.setattr(Project, "update_scribbles", painting)
    list(session.iter_project(image, None))
    assert image.painted == {3: 50, 5: 50}
    assert image.pending is None


# ------------------------------------------------------------------------- end


def test_one_project_that_fails_leaves_no_other_unsaved(
    session, tmp_path, monkeypatch
) -> None:
    paths = [picture(tmp_path, f"{i}.png") for i in range(4)]
    images = [painted(session, path, i) for i, path in enumerate(paths)]
    bad = [images[i].project.folder for i in (0, 2)]
    with monkeypatch.context() as patch:
        tried = fail_to_write(patch, *bad)
        for job in (lambda: list(session.iter_save()), session.close):
            with pytest.raises(OutputError) as caught:
                job()
            assert all(str(folder) in str(caught.value) for folder in bad)
            group = caught.value.__cause__
            assert [type(e) for e in group.exceptions] == [OutputError] * 2
            assert {folder.name for folder in bad} < set(tried)
    for i in (1, 3):
        assert np.array_equal(kept(paths[i]), strokes())


def test_a_fault_of_ours_in_one_project_leaves_no_other_unsaved(
    session, tmp_path, monkeypatch
) -> None:
    paths = [picture(tmp_path, f"{i}.png") for i in range(3)]
    images = [painted(session, path, i) for i, path in enumerate(paths)]

    def broken(_state):
        raise KeyError("a fault")

    with monkeypatch.context() as patch:
        patch.setattr(images[1].project, "save_state", broken)
        with pytest.raises(KeyError, match="a fault"):
            session.close()
    for path in paths:  # also its own: the strokes are written when it is given free
        assert np.array_equal(kept(path), strokes())


def test_closing_waits_for_a_slow_disk_but_not_for_ever(
    session, tmp_path, monkeypatch, caplog
) -> None:
    path = picture(tmp_path)
    painted(session, path)
    is_slow, real = threading.Event(), files_module.write

    def write(path, content):
        assert is_slow.wait(30)
        return real(path, content)

    monkeypatch.setattr(files_module, "write", write)
    started = time.monotonic()
    with pytest.raises(OutputError, match=r"within 0\.2 s.*Saving goes on"):
        session.close(timeout_s=0.2)
    assert time.monotonic() - started < 10
    is_slow.set()
    (thread,) = [t for t in threading.enumerate() if t.name.startswith("alibi-seg")]
    thread.join(30)
    assert np.array_equal(kept(path), strokes())


def test_a_failure_after_the_wait_is_logged(
    session, tmp_path, monkeypatch, caplog
) -> None:
    painted(session, picture(tmp_path))
    is_slow = threading.Event()

    def write(path, content):
        assert is_slow.wait(30)
        raise OutputError(f"{path}: no space left")

    monkeypatch.setattr(files_module, "write", write)
    with (
        caplog.at_level(logging.ERROR),
        pytest.raises(OutputError, match="Saving goes on"),
    ):
        session.close(timeout_s=0.05)
    is_slow.set()
    (thread,) = [t for t in threading.enumerate() if t.name.startswith("alibi-seg")]
    thread.join(30)
    assert "no space left" in caplog.text
    monkeypatch.undo()


def test_closing_waits_for_a_project_that_is_being_made(
    session, tmp_path, monkeypatch
) -> None:
    path = picture(tmp_path)
    image, _ = opened(session, path)
    session.keep(image, strokes())
    began, may_go_on, real = threading.Event(), threading.Event(), Project.create

    def create(*args):
        began.set()
        assert may_go_on.wait(30)
        return real(*args)

    monkeypatch.setattr(Project, "create", create)
    job = threading.Thread(target=lambda: list(session.iter_project(image, None)))
    job.start()
    assert began.wait(30)
    threading.Timer(0.1, may_go_on.set).start()
    session.close()
    assert np.array_equal(kept(path), strokes())
    job.join(30)


def test_what_is_left_out_is_shared_by_planes(session, tmp_path) -> None:
    path = picture(tmp_path)
    first = painted(session, path, 0, plane=0, layer="a")
    first.excluded = (ExcludedArea(kind="polygon", corners=((0, 0), (0, 9), (4, 0))),)
    other, _ = opened(session, path, 1, plane=1, layer="a")
    session.join(other)
    assert other.excluded == first.excluded
    assert find_project(other.identity).folder == first.project.folder
