"""A trained segmenter applied to many files: names, manifest, skipping, summary.

One generator again: it yields progress and one `FileResult` a file, and never stops
for a file that fails. A line is appended to the manifest as soon as a file's outputs
are complete, so an interrupted run goes on where it was. Files are skipped by content
(input, classifier, what was asked for, outputs), not by name.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from napari_alibi_seg._base import (
    AlibiSegError,
    OutputError,
    SettingsError,
    TileResult,
)
from napari_alibi_seg._segmenter._segmenter import SCRATCH_FOLDER, Segmenter
from napari_alibi_seg.data import (
    IMAGE_SUFFIXES,
    DiskStore,
    ImageSource,
    TiffPlaneWriter,
    open_image,
    write_text_atomic,
)

__all__ = ["BatchOptions", "FileResult", "Progress", "find_inputs", "iter_apply"]

_logger = logging.getLogger(__name__)

MANIFEST_NAME = "alibi-seg-manifest.jsonl"
SUMMARY_NAME = "summary.csv"
_KINDS = ("labels", "probabilities", "uncertainty")


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """What `iter_apply` writes and replaces.

    Attributes
    ----------
    probabilities, uncertainty : bool
        Write these beside the labels.
    overwrite : bool
        Replace outputs that the manifest does not vouch for.
    plane : int or None
        Plane of stacks, from 0.
    """

    probabilities: bool = False
    uncertainty: bool = False
    overwrite: bool = False
    plane: int | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        """Outputs per file."""
        wanted = (True, self.probabilities, self.uncertainty)
        return tuple(k for k, w in zip(_KINDS, wanted, strict=True) if w)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the file at hand is.

    Attributes
    ----------
    file, stage : str
        Input, and "features" or "segmentation".
    done, total : int
        Tiles.
    """

    file: str
    stage: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class FileResult:
    """What became of one input.

    Attributes
    ----------
    file, output : str
        Input and label image.
    status : {"done", "skipped", "failed"}
        Skipped means that the outputs were there already, made the same way.
    error : str
        Message, empty unless failed.
    pixels : int
        Of the image.
    seconds : float
        Spent on this file.
    fractions : dict of int to float
        Area fraction by id.
    """

    file: str
    output: str
    status: str
    error: str = ""
    pixels: int = 0
    seconds: float = 0.0
    fractions: dict[int, float] = field(default_factory=dict)


def find_inputs(inputs: Sequence[Path | str], *, recursive: bool = False) -> list[Path]:
    """Return the image files that were named or lie in named folders, each once.

    Parameters
    ----------
    inputs : sequence of path
        Files and folders. Zarr folders are images.
    recursive : bool
        Search folders within folders too.

    Returns
    -------
    list of Path
        Folder contents sorted by name. Outputs of this package and hidden files in
        folders are left out.

    Raises
    ------
    SettingsError
        If nothing at all was found.
    """
    found: dict[Path, Path] = {}
    for item in map(Path, inputs):
        for path in _files_in(item, recursive) if _is_folder(item) else [item]:
            if not _is_own_output(path):
                found.setdefault(path.resolve(), path)
            elif path == item:
                _logger.warning("%s is an output of this program; left out.", path)
    if not found:
        raise SettingsError(
            f"No image found in {[str(i) for i in inputs]}. Name files, or folders "
            f"that hold images ({', '.join(sorted(IMAGE_SUFFIXES))})."
        )
    return list(found.values())


def _is_folder(path: Path) -> bool:
    return path.is_dir() and path.suffix.lower() != ".zarr"


def _files_in(folder: Path, recursive: bool) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if _is_folder(path):
            if recursive:
                yield from _files_in(path, recursive)
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            yield path


def _is_own_output(path: Path) -> bool:
    """Return whether a manifest beside the file says that we wrote it."""
    if not path.name.endswith(tuple(f"_{k}.tif" for k in _KINDS)):
        return False
    entries = _Manifest(path.parent / MANIFEST_NAME).entries
    return any(path.name in e["outputs"] for e in entries.values())


def output_stems(paths: Sequence[Path]) -> list[str]:
    """Return a distinct output name for each input.

    Equal stems get their extension, then parent folders until they differ.

    Examples
    --------
    >>> output_stems([Path("a/x.tif"), Path("a/x.png"), Path("b/x.png"), Path("y.tif")])
    ['x_tif', 'a_x_png', 'b_x_png', 'y']
    """
    names = [p.stem for p in paths]
    levels = max(len(p.resolve().parts) for p in paths)
    for level in range(levels):
        clashes = {
            n.casefold(): c for n, c in Counter(map(str.casefold, names)).items()
        }
        if max(clashes.values()) == 1:
            return names
        for i, path in enumerate(paths):
            if clashes[names[i].casefold()] > 1:
                parts = path.resolve().parts[-1 - level : -1] if level else ()
                extension = path.suffix.lstrip(".") or "file"
                names[i] = "_".join([*parts, path.stem, extension])
    return names


class _Manifest:
    """Append-only record of finished files, the last line of an output counts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[str, dict[str, Any]] = {}
        if path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            for line in text.splitlines():
                # a line cut off by a kill is as if it had not been written
                entry = _entry(line)
                if entry is None:
                    _logger.info("Unreadable line in %s left out", path)
                else:
                    self.entries[entry["output"]] = entry

    def add(self, entry: dict[str, Any]) -> None:
        """Append one finished file."""
        line = json.dumps(entry, sort_keys=True, ensure_ascii=False) + "\n"
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as err:
            raise OutputError(
                f"Cannot append to the manifest {self.path}: {err.strerror or err}."
            ) from err
        self.entries[entry["output"]] = entry


def _entry(line: str) -> dict[str, Any] | None:
    """Return a line of the manifest, or None if it is not one of ours."""
    try:
        entry = json.loads(line)
        shares = {int(k): float(v) for k, v in entry["fractions"].items()}
        return {
            "output": str(entry["output"]),
            "outputs": dict(entry["outputs"]),
            "recipe": dict(entry["recipe"]),
            "pixels": int(entry["pixels"]),
            "fractions": shares,
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def iter_apply(
    segmenter: Segmenter,
    inputs: Sequence[Path],
    out: Path,
    options: BatchOptions | None = None,
) -> Iterator[Progress | FileResult]:
    """Segment files and write the results, one file after the other.

    Parameters
    ----------
    segmenter : Segmenter
        Loaded from a file, whose hash identifies it in the manifest.
    inputs : sequence of Path
        From `find_inputs`.
    out : Path
        Folder for the outputs; made if need be.
    options : BatchOptions, optional
        What to write.

    Yields
    ------
    Progress or FileResult
        One result per input, in order. `summary.csv` is rewritten after each.

    Raises
    ------
    OutputError
        If the folder itself cannot be used.
    """
    options = options or BatchOptions()
    _make_folder(out)
    manifest = _Manifest(out / MANIFEST_NAME)
    results: list[FileResult] = []
    for path, stem in zip(inputs, output_stems(inputs), strict=True):
        job = _FileJob(segmenter, path, out, stem, options)
        started = time.perf_counter()
        result = FileResult(str(path), job.output.name, "failed")
        try:
            outcome = yield from job.run(manifest)
        except (AlibiSegError, OSError, MemoryError) as err:
            # one file that is too large or on a failing disk; the others go on
            message = " ".join(str(err).split()) or type(err).__name__
            outcome = {"status": "failed", "error": message}
        seconds = round(time.perf_counter() - started, 3)
        result = FileResult(**{**asdict(result), **outcome, "seconds": seconds})
        results.append(result)
        write_summary(out / SUMMARY_NAME, results)
        yield result


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise OutputError(
            f"Cannot use {out} as output folder: {err.strerror or err}. Name a folder "
            f"that can be made or written."
        ) from err


@dataclass(frozen=True)
class _FileJob:
    segmenter: Segmenter
    path: Path
    out: Path
    stem: str
    options: BatchOptions

    @property
    def output(self) -> Path:
        return self._target("labels")

    def _target(self, kind: str) -> Path:
        return self.out / f"{self.stem}_{kind}.tif"

    def run(self, manifest: _Manifest) -> Generator[Progress, None, dict[str, Any]]:
        """Do the file; return the fields of its result."""
        source = open_image(self.path, plane=self.options.plane)
        recipe = {
            "input": source.content_hash(),
            "classifier": self.segmenter.content_hash,
            "plane": self.options.plane,
        }
        before = manifest.entries.get(self.output.name)
        ours: dict[str, str] = {}
        if before is not None and before["recipe"] == recipe:
            ours = before["outputs"]
            if self._complete(ours):
                kept = ("pixels", "fractions")
                return {"status": "skipped", **{k: before[k] for k in kept}}
        self._refuse_to_replace(ours)
        fractions = yield from self._segment(source)
        pixels = source.shape[0] * source.shape[1]
        made = {t.name: _sha256(t) for t in map(self._target, self.options.kinds)}
        # others of an earlier run stay as good as they were
        outputs = ours | made
        manifest.add(
            {
                "file": self.path.name,
                "output": self.output.name,
                "outputs": outputs,
                "recipe": recipe,
                "pixels": pixels,
                "fractions": {str(k): v for k, v in fractions.items()},
            }
        )
        return {"status": "done", "pixels": pixels, "fractions": fractions}

    def _complete(self, ours: dict[str, str]) -> bool:
        """Return whether everything wanted is there, unchanged since we wrote it."""
        return all(_is_as_made(t, ours) for t in map(self._target, self.options.kinds))

    def _refuse_to_replace(self, ours: dict[str, str]) -> None:
        """Raise if something is there that is not, or no longer, what we wrote."""
        foreign = [
            t
            for t in map(self._target, self.options.kinds)
            if t.exists() and not _is_as_made(t, ours)
        ]
        if foreign and not self.options.overwrite:
            raise OutputError(
                f"{foreign[0]} exists and was not made from this image with this "
                f"classifier and options, or was changed since. Pass --overwrite to "
                f"replace it, or choose another folder."
            )

    def _segment(
        self, source: ImageSource
    ) -> Generator[Progress, None, dict[int, float]]:
        embedding = self.segmenter.prepare(source, scratch=True)
        store = embedding.store
        name = str(self.path)
        for step in self.segmenter.iter_complete(embedding):
            yield Progress(name, "features", step.done, step.total)
        counts: Counter[int] = Counter()
        with ExitStack() as stack:
            writers: dict[str, TiffPlaneWriter] = {}
            for tile in self.segmenter.iter_predict(embedding, order="reading"):
                if not writers:
                    writers = self._writers(stack, source, tile)
                self._write_tile(writers, tile)
                ids, n = np.unique(tile.labels_yx, return_counts=True)
                counts.update(dict(zip(ids.tolist(), n.tolist(), strict=True)))
                yield Progress(name, "segmentation", tile.index + 1, tile.total)
        if isinstance(store, DiskStore) and store.path.parent.name == SCRATCH_FOLDER:
            # nobody asked to keep them, and a folder of images would fill the disk
            store.delete()
        total = sum(counts.values())
        assert self.segmenter.classifier is not None
        keys = sorted({*map(int, self.segmenter.classifier.class_ids), *counts})
        return {i: counts[i] / total for i in keys}

    def _writers(
        self, stack: ExitStack, source: ImageSource, tile: TileResult
    ) -> dict[str, TiffPlaneWriter]:
        shape, n = source.shape, len(tile.proba_kyx)
        forms: dict[str, tuple[tuple[int, ...], Any, str]] = {
            "labels": (shape, tile.labels_yx.dtype, "YX"),
            "probabilities": ((n, *shape), np.float32, "CYX"),
            "uncertainty": (shape, np.float32, "YX"),
        }
        return {
            kind: stack.enter_context(
                TiffPlaneWriter(
                    self._target(kind),
                    *forms[kind],
                    pixel_size=source.pixel_size,
                )
            )
            for kind in self.options.kinds
        }

    @staticmethod
    def _write_tile(writers: dict[str, TiffPlaneWriter], tile: TileResult) -> None:
        blocks = {
            "labels": tile.labels_yx,
            "probabilities": tile.proba_kyx,
            "uncertainty": tile.uncertainty_yx,
        }
        for kind, writer in writers.items():
            writer.write(tile.window, blocks[kind])


def _is_as_made(path: Path, ours: dict[str, str]) -> bool:
    return path.is_file() and _sha256(path) == ours.get(path.name)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_summary(path: Path, results: Sequence[FileResult]) -> None:
    """Write one CSV row a file: status, error, pixels, seconds, area fractions."""
    ids = sorted({i for r in results for i in r.fractions})
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    head = ["file", "output", "status", "error", "pixels", "seconds"]
    table.writerow([*head, *(f"fraction_{i}" for i in ids)])
    for r in results:
        shares = [f"{r.fractions[i]:.6f}" if i in r.fractions else "" for i in ids]
        output = r.output if r.status != "failed" else ""
        row = [r.file, output, r.status, r.error, r.pixels, f"{r.seconds:.3f}"]
        table.writerow([*row, *shares])
    write_text_atomic(path, text.getvalue())
