"""One stack of a batch: plane by plane into one output with an axis for them.

A plane is what is never computed twice: its tiles are stored when it is done, so a run
that was killed goes on with the next one, and planes may be shared by processes, with
smoothing along Z too (each computes the neighbours that it needs). What is common with
single images is `_apply_file`'s, how planes depend on each other is `_stack`'s.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_alibi_seg._segmenter._apply_file import LARGE_PX, FileJob, check_hash
from napari_alibi_seg._segmenter._batch_task import FileTask, Progress
from napari_alibi_seg._segmenter._estimate import Estimate, check_room, estimate
from napari_alibi_seg._segmenter._planes import Planes
from napari_alibi_seg._segmenter._segmenter import Segmenter
from napari_alibi_seg._segmenter._stack import PlaneFeatures, iter_predict_stack
from napari_alibi_seg._segmenter._token_stores import delete_scratch
from napari_alibi_seg.data import ImageSource

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["StackJob", "open_job"]

# Planes that a process smooths at a time: neighbours beyond them are computed twice.
_LEAST_SMOOTHED = 16
_SMOOTHED_PER_NEIGHBOUR = 8


def open_job(
    segmenter: Segmenter, task: FileTask, token_store: Path | None = None
) -> FileJob:
    """Return the job of a file: a `StackJob` if all planes of a stack are wanted.

    Parameters
    ----------
    segmenter, task, token_store
        See `FileJob`.

    Raises
    ------
    ImageFileError
        If the image cannot be read.
    SettingsError
        If it has no such point in time, or a time series without Z is to be smoothed
        along it.
    """
    if task.options.all_planes:
        planes = Planes.of(task.path, task.options.time)
        planes.check_smoothing(task.options.z_smooth)
        if len(planes) > 1:
            return StackJob(segmenter, task, token_store)
    return FileJob(segmenter, task, token_store)


class StackJob(FileJob):
    """The steps from one stack to its outputs; see `FileJob`."""

    @cached_property
    def source(self) -> ImageSource:
        """The first plane."""
        return self.planes.first

    @cached_property
    def planes(self) -> Planes:
        """Which there are."""
        return Planes.of(self.task.path, self.task.options.time)

    @property
    def n_planes(self) -> int:
        """How many there are, over all points in time."""
        return len(self.planes)

    @property
    def pixels(self) -> int:
        """How many pixels are segmented."""
        return super().pixels * self.n_planes

    @cached_property
    def plane_hashes(self) -> tuple[str, ...]:
        """Hash of each plane's pixels."""
        return tuple(self.planes.open(z).content_hash() for z in range(self.n_planes))

    @cached_property
    def input_hash(self) -> str:
        """Hash of all pixels that are segmented."""
        text = ",".join(self.plane_hashes)
        return hashlib.blake2b(text.encode(), digest_size=32).hexdigest()

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """What the outputs are made from."""
        return super().recipe | self._stack_settings

    @cached_property
    def settings(self) -> dict[str, Any]:
        """How the outputs are computed, for the manifest."""
        return super().settings | self._stack_settings

    @property
    def _stack_settings(self) -> dict[str, Any]:
        found = {"planes": self.n_planes, "z_smooth": self.task.options.z_smooth}
        if self.planes.n_times is not None and self.planes.n_planes is not None:
            found["times"] = self.planes.n_times
        return found

    @property
    def _plane_arguments(self) -> dict[str, Any]:
        return {"n_planes": self.planes.n_planes, "n_times": self.planes.n_times}

    def _check_usable(self) -> None:
        """Raise if the stack does not have what the classifier needs."""
        assert self.segmenter.frozen is not None
        self.segmenter.frozen.view(self.source, self.segmenter.features)

    def estimate(self) -> Estimate | None:
        """Measure what the planes that lack will take, on the first of them.

        Raises
        ------
        OutputError
            If the disk cannot hold it.
        """
        missing = self.results.missing_planes()
        if self.pixels <= LARGE_PX or not missing:
            return None
        embedding = self.segmenter.prepare(self.planes.open(missing[0]), scratch=True)
        one = estimate(self.segmenter, embedding, self.task.options.kinds)
        delete_scratch(embedding)
        n = len(missing)
        found = replace(  # features lie on disk while their plane is in work
            one,
            pixels=n * one.pixels,
            tiles=n * one.tiles,
            token_tiles=n * one.token_tiles,
            seconds=n * one.seconds,
            output_bytes=n * one.output_bytes,
        )
        check_room(found, self.task.out, copies=2)
        return found

    def iter_features(self, only: Sequence[int] | None = None) -> Iterator[Progress]:
        """Do nothing: features are those of a plane, see `iter_predict`."""
        yield from ()

    def iter_predict(self, only: Sequence[int] | None = None) -> Iterator[Progress]:
        """Segment the planes that are not stored; with `only`, of these."""
        path, per_plane = str(self.task.path), len(self.results.tiles)
        missing = self.results.missing_planes()
        done = per_plane * (self.n_planes - len(missing))
        if only is not None:
            missing = sorted(set(missing).intersection(only))
        if not missing:
            return
        steps = iter_predict_stack(
            self.segmenter,
            self.task.path,
            planes=missing,
            z_smooth=self.task.options.z_smooth,
            time=self.task.options.time,
        )
        for step in steps:
            if isinstance(step, PlaneFeatures):
                at = "" if step.time is None else f", time {step.time}"
                stage = f"features of plane {step.plane}{at}"
                yield Progress(path, stage, step.done, step.total)
                continue
            self.results.write(step.result.index, step.result, step.position)
            done += 1
            yield Progress(path, "segmentation", done, per_plane * self.n_planes)

    # ------------------------------------------------------ shared by processes

    @property
    def planes_per_unit(self) -> int:
        """How many neighbouring planes one process should do at a time."""
        sigma = self.task.options.z_smooth
        if not sigma:
            return 1
        reach = max(self.planes.weights(0, sigma))
        return max(_LEAST_SMOOTHED, _SMOOTHED_PER_NEIGHBOUR * reach)

    def hashes_for(self, planes: Sequence[int]) -> dict[int, str]:
        """Return the hashes of some planes and of what they depend on."""
        sigma = self.task.options.z_smooth
        needed = {p for z in planes for p in self.planes.weights(z, sigma)}
        return {z: self.plane_hashes[z] for z in sorted(needed)}

    def take_over(self, content_hash: str, hashes: Mapping[int, str]) -> None:
        """Go on with what another process began.

        Parameters
        ----------
        content_hash : str
            Its `input_hash`, which is believed.
        hashes : mapping of int to str
            Of planes that will be read here, which are compared.

        Raises
        ------
        StoreError
            If the pixels of a plane differ.
        """
        self.input_hash = content_hash
        self.use_own_scratch(f"{list(hashes)}")
        for plane, expected in hashes.items():
            name = f"{self.task.path}, {self.planes.named(plane)}"
            check_hash(name, self.planes.open(plane), expected)

    def _forget_tokens(self) -> None:
        # those of a plane went when it was done
        return
