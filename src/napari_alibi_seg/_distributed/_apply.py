"""`iter_apply` on many workers: small images whole, large ones and stacks in pieces.

The first unit of a file opens it on a worker and decides: nothing to do, small enough
to be done at once, or worth sharing. Then come units of features, units of tiles, and
one that writes the outputs; for a stack units of planes, and the one that writes.
Manifest and summary are written here, by one process.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from napari_alibi_seg._base import ClassifierFileError
from napari_alibi_seg._distributed._flows import Flow, Unit, UnitDone, iter_flows
from napari_alibi_seg._distributed._units import (
    UNIT_TILES,
    device_here,
    first_error,
    in_groups,
)
from napari_alibi_seg._segmenter import (
    LARGE_PX,
    LONG_SECONDS,
    BatchOptions,
    BatchRecord,
    Estimate,
    FileJob,
    FileResult,
    FileTask,
    Progress,
    Segmenter,
    StackJob,
    failed_row,
    file_tasks,
    open_job,
)
from napari_alibi_seg.data import IntensityRange
from napari_alibi_seg.features import GPU_BATCH

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["iter_apply_on"]


@dataclass(frozen=True, slots=True)
class ClassifierSource:
    """Where a worker finds the classifier, and how it knows that it is the one.

    Attributes
    ----------
    path : Path
        The file.
    content_hash : str
        Of the file's content.
    backbone : str or None
        Where the weights are, if not where they were; checked by hash.
    store : Path
        Folder of feature stores.
    device : str
        Where the ViT runs.
    run : str
        Of which run: what a worker remembers of images ends with it.
    """

    path: Path
    content_hash: str
    backbone: str | None
    store: Path
    device: str
    run: str


@dataclass(frozen=True, slots=True)
class PlaneUnit:
    """Planes of a stack that one worker segments.

    Attributes
    ----------
    planes : tuple of int
        Which.
    hashes : tuple of (int, str)
        Of these and of the neighbours they are smoothed with.
    """

    planes: tuple[int, ...]
    hashes: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What an image lacks; from its first unit.

    Attributes
    ----------
    content_hash : str
        Of the image.
    token_store : Path or None
        Where its features go.
    tokens, tiles : tuple of int
        Tiles of features and of output that are missing.
    tokens_per_unit : int
        Tiles of features that one worker computes at a time.
    n_tokens, n_tiles : int
        Tiles in all.
    estimate : Estimate or None
        What it will take one worker.
    units : tuple of PlaneUnit or None
        Of a stack, what is shared instead of tiles.
    intensity : IntensityRange or None
        Of the image, which only one worker needs to measure; of a stack none.
    """

    content_hash: str
    token_store: Path | None
    tokens: tuple[int, ...]
    tokens_per_unit: int
    tiles: tuple[int, ...]
    n_tokens: int
    n_tiles: int
    estimate: Estimate | None = None
    units: tuple[PlaneUnit, ...] | None = None
    intensity: IntensityRange | None = None

    def stripped(self) -> Plan:
        """Return what every unit needs to know."""
        return replace(self, tokens=(), tiles=(), estimate=None, units=None)


def iter_apply_on(
    client: Client,
    classifier: Path,
    inputs: Sequence[Path],
    out: Path,
    options: BatchOptions | None = None,
    *,
    backbone: str | None = None,
    store: Path | None = None,
    device: str = "auto",
) -> Iterator[Progress | FileResult]:
    """Segment files on the workers of a cluster; outputs as of `iter_apply`.

    Parameters
    ----------
    client : distributed.Client
        From `open_cluster`, or any other.
    classifier : Path
        The `.alibiseg` file, where workers find it too.
    inputs : sequence of Path
        Image files; see `find_inputs`.
    out : Path
        Folder for the outputs; made if need be.
    options : BatchOptions, optional
        What to write.
    backbone : str, optional
        Where the weights are, if not where they were.
    store : Path, optional
        Folder of feature stores, which all workers write; in the user's cache by
        default.
    device : str
        Where the ViT runs on a worker.

    Yields
    ------
    Progress or FileResult
        One result per input, as they come. `seconds` are those of all workers.

    Raises
    ------
    ClassifierFileError, WeightsError
        If the classifier or its weights cannot be read here.
    OutputError
        If the folder itself cannot be used.
    ComputeError
        If the cluster is lost.

    Notes
    -----
    A worker that dies is survived: its units are done again by others and write the
    same bytes. When the generator is closed, units that run end or are abandoned, and
    the next run goes on.

    Examples
    --------
    >>> with open_cluster(workers=4) as client:  # doctest: +SKIP
    ...     for step in iter_apply_on(client, clf, find_inputs(["scans"]), out):
    ...         print(step)
    """
    from napari_alibi_seg.data import cache_dir

    # a classifier that cannot be used is told before anything is sent
    content_hash = Segmenter.load(
        classifier, backbone=backbone, device="cpu"
    ).content_hash
    source = ClassifierSource(
        classifier.absolute(),
        content_hash,
        _absolute(backbone),
        (store or cache_dir() / "features").absolute(),
        device,
        secrets.token_hex(4),
    )
    tasks = file_tasks(inputs, out, options or BatchOptions())
    with BatchRecord(tasks, out) as record:
        flows = ((task, _flow(source, task, record.before(task))) for task in tasks)
        done: dict[tuple[str, str], int] = {}
        for event in iter_flows(client, flows):
            if not isinstance(event, UnitDone):
                task, outcome = event
                yield record.add(task, outcome)
            elif event.unit.size:
                yield _progress(event, done)
            elif isinstance(event.value, Plan):
                yield from _announced(event, client)


def _absolute(backbone: str | None) -> str | None:
    """Return a file's path for workers with another folder; a name stays one."""
    if backbone is None or not Path(backbone).is_file():
        return backbone
    return str(Path(backbone).absolute())


def _announced(event: UnitDone, client: Client) -> Iterator[Progress]:
    """Yield what a long file will take all workers together."""
    plan = event.value
    if plan.estimate is not None:
        n = max(1, sum(client.nthreads().values()))
        shared = replace(plan.estimate, seconds=plan.estimate.seconds / n)
        if shared.seconds >= LONG_SECONDS:
            name = str(event.flow.path)
            yield Progress(name, "segmentation", 0, plan.n_tiles, str(shared))


def _progress(event: UnitDone, done: dict[tuple[str, str], int]) -> Progress:
    name, unit = str(event.flow.path), event.unit
    key = name, unit.stage
    # tiles that an earlier run stored count from the start
    done[key] = done.get(key, unit.total - unit.missing) + unit.size
    return Progress(name, unit.stage, done[key], unit.total)


def _flow(
    source: ClassifierSource, task: FileTask, before: dict[str, Any] | None
) -> Flow:
    """Do one file; return its row, or the outcome of one that was skipped."""
    # workers may have another working folder
    far = replace(task, path=task.path.absolute(), out=task.out.absolute())
    seconds = 0.0
    outcome: Any = None
    step: list[Unit] = [Unit(begin, (source, far, before))]
    plan: Plan | None = None
    stages: Iterator[_Stage] = iter(())
    while True:
        results = yield step
        seconds += sum(r.seconds for r in results)
        if error := first_error(results):
            outcome = failed_row(far, error)
            break
        outcome = results[0].value if results else None
        if isinstance(outcome, Plan):
            plan = outcome
            stages = iter(_stages(plan))
        elif outcome is not None:
            break
        assert plan is not None
        step = next(stages)(source, far, plan, before)
    return {**outcome, "seconds": round(seconds, 3)}


_Stage: TypeAlias = "Callable[[ClassifierSource, FileTask, Plan, Any], list[Unit]]"


def _stages(plan: Plan) -> tuple[_Stage, ...]:
    """Return what comes after `begin`, one step after the other."""
    if plan.units is not None:
        return _plane_units, _last_units
    return _feature_units, _tile_units, _last_units


def _feature_units(
    source: ClassifierSource, task: FileTask, plan: Plan, _: object
) -> list[Unit]:
    common = (source, task, plan.stripped())
    counts = (len(plan.tokens), plan.n_tokens)
    return [
        Unit(extract, (*common, tiles), "features", len(tiles), *counts)
        for tiles in in_groups(plan.tokens, plan.tokens_per_unit)
    ]


def _tile_units(
    source: ClassifierSource, task: FileTask, plan: Plan, _: object
) -> list[Unit]:
    common = (source, task, plan.stripped())
    counts = (len(plan.tiles), plan.n_tiles)
    return [
        Unit(predict, (*common, tiles), "segmentation", len(tiles), *counts)
        for tiles in in_groups(plan.tiles, UNIT_TILES)
    ]


def _plane_units(
    source: ClassifierSource, task: FileTask, plan: Plan, _: object
) -> list[Unit]:
    common = (source, task, plan.stripped())
    units = plan.units or ()
    missing = sum(len(unit.planes) for unit in units)
    return [
        Unit(
            predict_planes,
            (*common, unit),
            *("segmentation", len(unit.planes), missing, plan.n_tiles),
        )
        for unit in units
    ]


def _last_units(
    source: ClassifierSource, task: FileTask, plan: Plan, before: Any
) -> list[Unit]:
    return [Unit(finish, (source, task, plan.stripped(), before))]


# ---------------------------------------------------------------- on the workers


@lru_cache(maxsize=1)
def _segmenter(
    path: Path, content_hash: str, backbone: str | None, store: Path, device: str
) -> Segmenter:
    """Load the classifier, once a process."""
    segmenter = Segmenter.load(
        path, backbone=backbone, store=store, device=device_here(device), workers=1
    )
    if segmenter.content_hash != content_hash:
        raise ClassifierFileError(
            f"{path}: expected the classifier with hash {content_hash[:12]}..., got "
            f"{segmenter.content_hash[:12]}... on this machine. Do not change it while "
            f"it is used, and see that all machines read the same file."
        )
    return segmenter


def _new_job(
    source: ClassifierSource, task: FileTask, token_store: Path | None = None
) -> FileJob:
    segmenter = _segmenter(
        source.path, source.content_hash, source.backbone, source.store, source.device
    )
    return open_job(segmenter, task, token_store)


# An image's hash and its tokens near by are worth keeping between units.
@lru_cache(maxsize=2)
def _job(source: ClassifierSource, task: FileTask, plan: Plan) -> FileJob:
    job = _new_job(source, task, plan.token_store)
    if isinstance(job, StackJob):
        job.take_over(plan.content_hash, {})  # no plane is read
    else:
        job.check_image(plan.content_hash)
        assert plan.intensity is not None
        job.take_range(plan.intensity)
    return job


def begin(
    source: ClassifierSource, task: FileTask, before: dict[str, Any] | None
) -> dict[str, Any] | Plan:
    """Skip a file, do a small one, or say what a large one lacks."""
    job = _new_job(source, task)
    is_shared = job.pixels > LARGE_PX
    if not is_shared or isinstance(job, StackJob):
        job.use_own_scratch("begin")
    done = job.begin(before)
    if done is not None:
        return done
    if not is_shared:
        for _ in (*job.iter_features(), *job.iter_predict()):
            pass
        return job.finish(before)
    if isinstance(job, StackJob):
        return _stack_plan(job)
    estimate = job.estimate()
    tokens = job.embedding.store
    return Plan(
        content_hash=job.input_hash,
        token_store=getattr(tokens, "path", None),
        tokens=() if tokens is None else tuple(tokens.missing()),
        tokens_per_unit=UNIT_TILES if job.is_on_cpu else GPU_BATCH,
        tiles=tuple(job.results.missing()),
        n_tokens=0 if tokens is None else len(tokens.grid.tiles),
        n_tiles=len(job.results.tiles),
        estimate=estimate,
        intensity=job.embedding.image.intensity,
    )


def _stack_plan(job: StackJob) -> Plan:
    missing = job.results.missing_planes()
    groups = in_groups(missing, job.planes_per_unit)
    return Plan(
        content_hash=job.input_hash,
        token_store=None,
        tokens=(),
        tokens_per_unit=0,
        tiles=(),
        n_tokens=0,
        n_tiles=job.n_planes,
        estimate=job.estimate(),
        units=tuple(
            PlaneUnit(planes, tuple(job.hashes_for(planes).items()))
            for planes in groups
        ),
    )


def extract(
    source: ClassifierSource,
    task: FileTask,
    plan: Plan,
    tiles: tuple[int, ...],
) -> None:
    """Compute and store some tiles of features."""
    for _ in _job(source, task, plan).iter_features(tiles):
        pass


def predict(
    source: ClassifierSource,
    task: FileTask,
    plan: Plan,
    tiles: tuple[int, ...],
) -> None:
    """Segment and store some output tiles."""
    for _ in _job(source, task, plan).iter_predict(tiles):
        pass


def predict_planes(
    source: ClassifierSource, task: FileTask, plan: Plan, unit: PlaneUnit
) -> None:
    """Segment and store some planes of a stack."""
    job = _new_job(source, task)
    assert isinstance(job, StackJob)
    job.take_over(plan.content_hash, dict(unit.hashes))
    for _ in job.iter_predict(unit.planes):
        pass


def finish(
    source: ClassifierSource,
    task: FileTask,
    plan: Plan,
    before: dict[str, Any] | None,
) -> dict[str, Any]:
    """Write the outputs of a file whose tiles are all there."""
    return _job(source, task, plan).finish(before)
