"""The folder of what is unfinished: several processes use it, one of them ends."""

from __future__ import annotations

import threading
import time

from napari_alibi_seg._segmenter._handover import UNFINISHED_FOLDER, Handover, tidy
from napari_alibi_seg.data._identity import made_once


def test_a_run_that_ends_takes_no_folder_from_under_another(tmp_path):
    """A file of 200 failed so: its folder was deleted between two system calls."""
    folder, is_over = tmp_path / UNFINISHED_FOLDER, threading.Event()

    def end_again_and_again():
        while not is_over.is_set():
            tidy(tmp_path)
            time.sleep(1e-4)

    other = threading.Thread(target=end_again_and_again)
    other.start()
    try:
        for k in range(200):
            made_once(folder / f"{k}.zarr", lambda new: new.mkdir(), "result store")
            assert (folder / f"{k}.zarr").is_dir()
            (folder / f"{k}.zarr").rmdir()
            handover = Handover(tmp_path, str(k))
            (made,) = handover.staged({"labels": tmp_path / "a.tif"}).values()
            made.write_bytes(b"a")
            handover.write_row({"k": k})
            handover.give_names({"labels": tmp_path / "a.tif"})
            handover.recorded()
    finally:
        is_over.set()
        other.join()
    tidy(tmp_path)
    assert not folder.exists()
    assert (tmp_path / "a.tif").read_bytes() == b"a"


def test_what_is_unfinished_stays(tmp_path):
    handover = Handover(tmp_path, "a")
    handover.staged({"labels": tmp_path / "a.tif"})
    tidy(tmp_path)
    assert (tmp_path / UNFINISHED_FOLDER).is_dir()
