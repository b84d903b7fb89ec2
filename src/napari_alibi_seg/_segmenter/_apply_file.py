"""One image of a batch: skip it, segment it tile by tile, write its outputs, record it.

The steps of a `FileJob` are the same whether one process does them one after the other
or many share them: tiles of features go to a token store, tiles of the result
to a `ResultStore`, and what is stored is never computed again. So a job that was
killed, at whatever step, goes on where it was, and outputs are the same bytes for any
number of processes. Which files there are and the manifest itself are `_batch`'s.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from napari_alibi_seg._base import OutputError, StoreError
from napari_alibi_seg._segmenter._batch_task import FileTask, Progress
from napari_alibi_seg._segmenter._document import own_version
from napari_alibi_seg._segmenter._embedding import Embedding
from napari_alibi_seg._segmenter._estimate import (
    LONG_SECONDS,
    Estimate,
    check_room,
    estimate,
)
from napari_alibi_seg._segmenter._handover import (
    UNFINISHED_FOLDER,
    Handover,
    content_digest,
)
from napari_alibi_seg._segmenter._result_store import new_result_store
from napari_alibi_seg._segmenter._segmenter import Segmenter
from napari_alibi_seg._segmenter._token_stores import SCRATCH_FOLDER, delete_scratch
from napari_alibi_seg.data import (
    ImageSource,
    IntensityRange,
    ResultStore,
    open_image,
)
from napari_alibi_seg.features import CPU_THREADS_PER_TILE, GPU_BATCH

__all__ = ["LARGE_PX", "FileJob", "check_hash", "failed_row"]

# Images up to here are done at once by one process.
LARGE_PX = 4_000_000
# Those whose version may change a byte of an output.
_PACKAGES = ("numpy", "scipy", "numba", "zarr", "tifffile", "imagecodecs")
_VIT_PACKAGES = ("torch", "timm")


class FileJob:
    """The steps from one image to its outputs.

    Parameters
    ----------
    segmenter : Segmenter
        Loaded from a file.
    task : FileTask
        What to do.
    token_store : Path, optional
        The store of this image's tokens, ending in ``.zarr``, once `begin` of another
        process chose it.

    Notes
    -----
    `begin` first; then `iter_features` until nothing lacks, `iter_predict` until
    nothing lacks, `finish`. A stack is a `StackJob`.
    """

    def __init__(
        self, segmenter: Segmenter, task: FileTask, token_store: Path | None = None
    ) -> None:
        self.segmenter = segmenter
        self.task = task
        if token_store is not None:
            # a copy of its own: other images may be in work
            self.segmenter = copy(segmenter)
            self.segmenter.store = token_store

    def use_own_scratch(self, part: str = "") -> None:
        """Share tokens that nobody keeps with no other job.

        Those of equal pixels lie in the same place, and who is done first deletes them.
        Call it before anything is computed, where several processes do whole images or
        planes; a process that goes on with the same `part` finds them again.
        """
        about = f"{self.task.path}:{part}"
        self.segmenter = copy(self.segmenter)
        self.segmenter.scratch_folder = (
            f"{SCRATCH_FOLDER}-{hashlib.sha256(about.encode()).hexdigest()[:16]}"
        )

    @cached_property
    def source(self) -> ImageSource:
        """The image."""
        return open_image(
            self.task.path, plane=self.task.options.plane, time=self.task.options.time
        )

    @cached_property
    def input_hash(self) -> str:
        """Hash of all pixels that are segmented."""
        return self.source.content_hash()

    @property
    def pixels(self) -> int:
        """How many pixels are segmented."""
        height, width = self.source.shape
        return height * width

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """What the outputs are made from."""
        options = self.task.options
        made_from = {
            "input": self.input_hash,
            "classifier": self.segmenter.content_hash,
            "plane": options.plane,
        }
        return made_from | ({} if options.time is None else {"time": options.time})

    @cached_property
    def embedding(self) -> Embedding:
        """Features of the image, with what is stored of them already."""
        return self.segmenter.prepare(self.source, scratch=True)

    @cached_property
    def results(self) -> ResultStore:
        """Tiles of the result, with what is stored of them already."""
        identity = {
            **self.recipe,
            "versions": self.versions,
            "settings": self.settings,
        }
        return new_result_store(
            self.segmenter,
            self._results_path,
            {"job": identity},
            self.source,
            self.task.options.kinds,
            **self._plane_arguments,
        )

    @property
    def _plane_arguments(self) -> dict[str, Any]:
        """What a `ResultStore` must know of planes."""
        return {}

    @property
    def _results_path(self) -> Path:
        return self.task.out / UNFINISHED_FOLDER / f"{self.task.stem}.zarr"

    @cached_property
    def versions(self) -> dict[str, str]:
        """Of the packages that may change a byte."""
        has_vit = self.segmenter.backbone is not None
        names = (*_PACKAGES, *(_VIT_PACKAGES if has_vit else ()))
        own = {"napari-alibi-seg": own_version()}
        return own | {name: _version(name) for name in names}

    @cached_property
    def settings(self) -> dict[str, Any]:
        """How the outputs are computed, for the manifest."""
        segmenter = self.segmenter
        found = {
            "kinds": list(self.task.options.kinds),
            "format": self.task.options.format,
            "features": segmenter.features.kind,
            "resolution": segmenter.settings.resolution,
            "threads_per_tile": CPU_THREADS_PER_TILE,
        }
        if segmenter.backbone is not None:
            on_cpu = self.is_on_cpu
            found["device"] = "cpu" if on_cpu else segmenter.backbone.device.type
            found["images_per_batch"] = 1 if on_cpu else GPU_BATCH
        return found

    @property
    def is_on_cpu(self) -> bool:
        """Whether features are computed without a GPU."""
        backbone = self.segmenter.backbone
        return backbone is None or str(backbone.device).startswith("cpu")

    def begin(self, before: dict[str, Any] | None) -> dict[str, Any] | None:
        """Return the outcome if the outputs are there already, as they were made.

        Parameters
        ----------
        before : dict or None
            The manifest's row of this output.

        Raises
        ------
        OutputError
            If something is there that is not, or no longer, what we wrote.
        """
        unrecorded = self._handover.row()
        if unrecorded is not None and self._is_of_this(unrecorded):
            self._handover.give_names(self.task.targets())
            if all(self._made(unrecorded).values()):
                self._forget()
                return unrecorded
        made = self._made(before)
        if all(made.values()):
            assert before is not None
            kept = ("pixels", "fractions")
            return {"status": "skipped", **{k: before[k] for k in kept}}
        foreign = [t for t, is_ours in made.items() if t.exists() and not is_ours]
        if foreign and not self.task.options.overwrite:
            raise OutputError(
                f"{foreign[0]} exists and was not made from this image with this "
                f"classifier and options, or was changed since. Pass --overwrite to "
                f"replace it, or choose another folder."
            )
        self._check_usable()  # before anything is made for it
        try:
            _ = self.results
        except StoreError:
            # half of what another classifier or version made: nobody will go on with it
            shutil.rmtree(self._results_path)
        return None

    def _check_usable(self) -> None:
        """Raise if the image does not have what the classifier needs."""
        _ = self.embedding

    def _is_of_this(self, row: dict[str, Any] | None) -> bool:
        return row is not None and row["recipe"] == self.recipe

    def _made(self, row: dict[str, Any] | None) -> dict[Path, bool]:
        """Return whether each output is there, unchanged since the row was written."""
        ours = row["outputs"] if row is not None and self._is_of_this(row) else {}
        return {
            t: t.exists() and content_digest(t) == ours.get(t.name)
            for t in self.task.targets().values()
        }

    def estimate(self) -> Estimate | None:
        """Measure what the image will take; None where measuring would take as long.

        Raises
        ------
        OutputError
            If the disk cannot hold it.
        """
        if self.pixels <= LARGE_PX or not self.results.missing():
            return None
        found = estimate(self.segmenter, self.embedding, self.task.options.kinds)
        # tiles are gathered in a store before they are exported
        check_room(found, self.task.out, copies=2)
        return found

    def announcement(self, found: Estimate | None) -> Progress | None:
        """Return the event that tells what long work will take."""
        if found is None or found.seconds < LONG_SECONDS:
            return None
        return Progress(str(self.task.path), "segmentation", 0, found.tiles, str(found))

    def iter_features(self, only: Sequence[int] | None = None) -> Iterator[Progress]:
        """Compute the features that are not stored; with `only`, these tiles."""
        for step in self.segmenter.iter_complete(self.embedding, only=only):
            yield Progress(str(self.task.path), "features", step.done, step.total)

    def iter_predict(self, only: Sequence[int] | None = None) -> Iterator[Progress]:
        """Segment the tiles that are not stored; with `only`, of these."""
        missing = self.results.missing()
        total = len(self.results.tiles)
        done = total - len(missing)
        if only is not None:
            missing = sorted(set(missing).intersection(only))
        if not missing:
            return
        steps = self.segmenter.iter_predict(self.embedding, order=missing)
        for index, tile in zip(missing, steps, strict=True):
            self.results.write(index, tile)
            done += 1
            yield Progress(str(self.task.path), "segmentation", done, total)

    def finish(self, before: dict[str, Any] | None) -> dict[str, Any]:
        """Write the outputs, forget what was only on the way, return the row.

        It may be called again, also by another process, until the row is recorded.
        """
        handover, targets = self._handover, self.task.targets()
        row = handover.row()
        if row is None or not self._is_of_this(row):
            staged = handover.staged(targets)
            counts = self.results.label_counts()
            if self.task.options.format == "tiff":
                for kind, path in staged.items():
                    self.results.export_tiff(kind, path)
            else:
                self.results.move_to(staged, replace=True)
            digests = {
                targets[kind].name: content_digest(path)
                for kind, path in staged.items()
            }
            # others of an earlier run stay as good as they were
            if before is not None and self._is_of_this(before):
                digests = before["outputs"] | digests
            row = self._row(counts, digests)
            handover.write_row(row)
        handover.give_names(targets)
        self._forget()
        return row

    def _row(self, counts: dict[int, int], digests: dict[str, str]) -> dict[str, Any]:
        total = sum(counts.values())
        return {
            "file": self.task.path.name,
            "output": self.task.output.name,
            "outputs": digests,
            "status": "done",
            "error": "",
            "recipe": self.recipe,
            "settings": self.settings,
            "versions": self.versions,
            "pixels": total,
            "fractions": {str(i): n / total for i, n in sorted(counts.items())},
        }

    def _forget(self) -> None:
        shutil.rmtree(self._results_path, ignore_errors=True)
        self._forget_tokens()

    def _forget_tokens(self) -> None:
        # nobody asked to keep these tokens, and a folder of images would fill the disk
        delete_scratch(self.embedding)

    @cached_property
    def _handover(self) -> Handover:
        return Handover(self.task.out, self.task.stem)

    def take_range(self, intensity: IntensityRange) -> None:
        """Believe the range of intensities that another process measured.

        Measuring reads the whole image. Call it before anything is computed.
        """
        frozen = self.segmenter.frozen
        assert frozen is not None
        self.segmenter = copy(self.segmenter)
        self.segmenter.frozen = replace(frozen, intensity=intensity)
        self.segmenter.features = self.segmenter.features.model_copy(
            update={"normalisation": "frozen"}
        )

    def check_image(self, content_hash: str) -> None:
        """Refuse an image that is not the one another process began with.

        Raises
        ------
        StoreError
            If the pixels differ.
        """
        check_hash(str(self.task.path), self.source, content_hash)


def check_hash(name: str, source: ImageSource, expected: str) -> None:
    """Refuse pixels that are not those another process saw.

    Raises
    ------
    StoreError
        If they differ.
    """
    found = source.content_hash()
    if found != expected:
        raise StoreError(
            f"{name}: expected the image with hash {expected[:12]}, got {found[:12]} "
            f"on this machine. Do not change images while they are in work, and see "
            f"that all machines read the same file."
        )


def failed_row(task: FileTask, error: str) -> dict[str, Any]:
    """Return the manifest's row of a file that failed."""
    return {
        "file": task.path.name,
        "output": task.output.name,
        "outputs": {},
        "status": "failed",
        "error": error,
        "recipe": {},
        "pixels": 0,
        "fractions": {},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
