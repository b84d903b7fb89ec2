"""Pictures to learn from: crops of folders of images, of generated and packaged ones.

Only this module knows where pixels come from. A crop depends on the generator it is
given and on nothing else, so a training can go on at any step. What is done to a crop
afterwards is `_augment`'s part, what lies in a mosaic `_mosaics`'.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import (
    AlibiSegError,
    FloatArray,
    ImageFileError,
    SettingsError,
    Window,
)
from napari_alibi_seg.data import (
    IMAGE_SUFFIXES,
    KINDS,
    ImageSource,
    SyntheticMicrograph,
    measure_range,
    open_image,
    resolve_channels,
    synthesize,
    working_channels,
)
from napari_alibi_seg.distill._settings import DataSettings

__all__ = ["Pool", "generate", "open_pool"]

_logger = logging.getLogger(__name__)

_KEPT_BYTES = 1 << 30  # decoded pictures kept in memory, per process
_WHOLE_PIXELS = 64_000_000  # larger ones are read window by window
_SYNTHETIC_PX = 512
_ATTEMPTS = 20
_SYNTHETIC_KEPT = 256

# Pictures in scikit-image's wheel; the others it would download. Drawings and pairs of
# the same scene are left out.
_PACKAGED = (
    *("astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png"),
    *("clock_motion.png", "coffee.png", "coins.png", "grass.png", "gravel.png"),
    *("hubble_deep_field.jpg", "ihc.png", "microaneurysms.png", "moon.png"),
    *("motorcycle_left.png", "page.png", "retina.jpg", "rocket.jpg", "text.png"),
)


@dataclass(frozen=True)
class _Picture:
    """One plane: its sides, and how to read a (h, w, 3) uint8 window of it."""

    name: str
    shape: tuple[int, int]
    read: Callable[[Window], npt.NDArray[np.uint8]]


class _Kept:
    """Decoded pictures, least recently used first, bounded in bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._items: OrderedDict[Any, npt.NDArray[np.uint8]] = OrderedDict()
        self._lock = threading.Lock()

    def get(
        self, key: Any, make: Callable[[], npt.NDArray[np.uint8]]
    ) -> npt.NDArray[np.uint8]:
        with self._lock:
            if key in self._items:
                self._items.move_to_end(key)
                return self._items[key]
        value = make()
        with self._lock:
            self._items[key] = value
            while (
                len(self._items) > 1
                and sum(v.nbytes for v in self._items.values()) > self._max_bytes
            ):
                self._items.popitem(last=False)
        return value


class Pool:
    """Everything crops are taken from.

    Parameters
    ----------
    pictures : list of (float, sequence of pictures)
        Groups with their share of the crops; within a group pictures are drawn by
        their area.
    synthetic_share : float
        Share of the microstructure generator.

    Attributes
    ----------
    fingerprint : str
        Changes when a picture is added, lost or has another size.
    """

    def __init__(
        self,
        groups: Sequence[tuple[float, Sequence[_Picture]]],
        synthetic_share: float = 0.0,
    ) -> None:
        self._groups = [
            (share, tuple(pictures)) for share, pictures in groups if share > 0
        ]
        shares = np.array([share for share, _ in self._groups] + [synthetic_share])
        self._shares = shares / shares.sum()
        self._areas = [
            np.array([p.shape[0] * p.shape[1] for p in pictures], np.float64)
            for _, pictures in self._groups
        ]
        self._synthetic = _Kept(_SYNTHETIC_KEPT * 3 * _SYNTHETIC_PX**2)
        self._damaged: set[str] = set()  # said once each
        self.fingerprint = self._fingerprint()

    def _fingerprint(self) -> str:
        lines = [
            f"{share}:{p.name}:{p.shape}" for share, own in self._groups for p in own
        ]
        text = "\n".join([*lines, str(self._shares[-1])])
        return hashlib.sha256(text.encode()).hexdigest()

    def __len__(self) -> int:
        return sum(len(pictures) for _, pictures in self._groups)

    @property
    def n_pixels(self) -> int:
        """Pixels of all pictures; generated ones have no end."""
        return int(sum(areas.sum() for areas in self._areas))

    def window(self, rng: np.random.Generator, side: float) -> FloatArray:
        """Return a random square of about `side` pixels.

        Parameters
        ----------
        rng : numpy.random.Generator
            Decides which.
        side : float
            Wanted side; smaller pictures give what they have.

        Returns
        -------
        (n, n, 3) float32
            In 0 to 1.

        Raises
        ------
        ImageFileError
            If one picture after the other cannot be read.
        """
        for _ in range(_ATTEMPTS):
            picture = self._drawn(rng)
            n = max(2, min(round(side), *picture.shape))
            y = int(rng.integers(picture.shape[0] - n + 1))
            x = int(rng.integers(picture.shape[1] - n + 1))
            try:
                block = picture.read(Window(y, y + n, x, x + n))
            except ImageFileError as err:  # it opened, but its pixels are damaged
                if picture.name not in self._damaged:
                    self._damaged.add(picture.name)
                    _logger.warning("%s is left out: %s", picture.name, err)
                continue
            return block.astype(np.float32) / np.float32(255)
        raise ImageFileError(
            f"{_ATTEMPTS} pictures drawn one after the other could not be read; the "
            f"last was {picture.name!r}. See the log for why."
        )

    def _drawn(self, rng: np.random.Generator) -> _Picture:
        """Choose a picture: its group by share, itself by area."""
        group = int(rng.choice(len(self._shares), p=self._shares))
        if group == len(self._groups):
            return self._generated(rng)
        areas = self._areas[group]
        index = int(rng.choice(len(areas), p=areas / areas.sum()))
        return self._groups[group][1][index]

    def _generated(self, rng: np.random.Generator) -> _Picture:
        """Return a generated micrograph; each process makes and keeps some of them."""
        kind = KINDS[int(rng.integers(len(KINDS)))]
        seed = (
            int(rng.integers(2**31)) if rng.random() < 0.05 else int(rng.integers(16))
        )
        zoom = float(np.exp2(rng.integers(-1, 2)))

        def make() -> npt.NDArray[np.uint8]:
            return _three(generate(kind, _SYNTHETIC_PX, seed, zoom).image)

        pixels = self._synthetic.get((kind, seed, zoom), make)
        return _in_memory(f"{kind}-{seed}", pixels)


def generate(kind: str, side: int, seed: int, zoom: float) -> SyntheticMicrograph:
    """Return a square generated micrograph of little noise.

    A seed whose field does not show every class gives way to the next one, and after
    some of them to the usual magnification.
    """
    for attempt in range(6):
        um = _usual_um(kind) / (zoom if attempt < 4 else 1.0)
        try:
            return synthesize(
                kind, (side, side), seed=seed + attempt, pixel_size_um=um, noise=0.3
            )
        except SettingsError:  # the field is too small for all classes
            continue
    return synthesize(kind, (2 * side, 2 * side), seed=seed, noise=0.3)


@cache
def _usual_um(kind: str) -> float:
    return synthesize(kind, (128, 128), seed=0).pixel_size.y


def _three(grey: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    return np.repeat(grey[..., None], 3, axis=-1).astype(np.uint8)


def _in_memory(name: str, pixels: npt.NDArray[np.uint8]) -> _Picture:
    return _Picture(name, pixels.shape[:2], lambda w: pixels[w.y0 : w.y1, w.x0 : w.x1])


def open_pool(data: DataSettings) -> Pool:
    """Open everything that `data` names.

    Files that cannot be read are logged and left out.

    Raises
    ------
    SettingsError
        If a folder does not exist or holds no readable image, or scikit-image is
        wanted and not installed.
    """
    kept = _Kept(_KEPT_BYTES)
    groups: list[tuple[float, Sequence[_Picture]]] = []
    if data.folder_share > 0:
        pictures = [p for folder in data.folders for p in _folder(folder, kept)]
        groups.append((data.folder_share, pictures))
    if data.packaged_share > 0:
        groups.append((data.packaged_share, _packaged(kept)))
    return Pool(groups, data.synthetic_share)


def _folder(folder: Path, kept: _Kept) -> list[_Picture]:
    if not folder.exists():
        raise SettingsError(f"There is no folder of images {str(folder)!r}.")
    out: list[_Picture] = []
    for path in _image_paths(folder):
        try:
            out += _planes(path, folder, kept)
        except AlibiSegError as err:
            _logger.warning("%s is left out: %s", path, err)
    if not out:
        raise SettingsError(
            f"{str(folder)!r} holds no image that can be read. Formats by ending: "
            f"{', '.join(sorted(IMAGE_SUFFIXES))}."
        )
    return out


def _image_paths(folder: Path) -> Iterator[Path]:
    if folder.is_file() or folder.suffix == ".zarr":
        yield folder
        return
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.suffix != ".zarr":
            yield from _image_paths(path)
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            yield path


def _planes(path: Path, folder: Path, kept: _Kept) -> Iterator[_Picture]:
    """Yield the planes of a file; a stack gives at most 64, evenly spread."""
    try:
        sources = [open_image(path)]
    except SettingsError:  # a stack: which plane?
        first = open_image(path, plane=0)
        depth = first.file_shape[first.axes.index("Z")] if "Z" in first.axes else 1
        chosen = np.unique(np.linspace(0, depth - 1, min(depth, 64)).round())
        sources = [open_image(path, plane=int(z)) for z in chosen]
    for source in sources:
        name = f"{path.relative_to(folder) if path != folder else path.name}"
        yield _picture(f"{name}:{source.plane}", source, kept)


def _picture(name: str, source: ImageSource, kept: _Kept) -> _Picture:
    def prepare() -> Callable[[Window], npt.NDArray[np.uint8]]:
        channels = resolve_channels(source, "auto")
        intensity = measure_range(source, channels)

        def read(window: Window) -> npt.NDArray[np.uint8]:
            planes = intensity.apply(working_channels(source.read(window), channels))
            eight = np.moveaxis(np.clip(planes, 0, 1) * 255 + 0.5, 0, -1)
            eight = eight.astype(np.uint8)
            if eight.shape[-1] == 2:  # the third colour stays empty
                eight = np.concatenate([eight, np.zeros_like(eight[..., :1])], axis=-1)
            return np.broadcast_to(eight, (*eight.shape[:2], 3))

        return read

    whole = Window(0, source.shape[0], 0, source.shape[1])
    ready: list[Callable[[Window], npt.NDArray[np.uint8]]] = []

    def reader() -> Callable[[Window], npt.NDArray[np.uint8]]:
        if not ready:  # measured at the first crop, not for every file at the start
            ready.append(prepare())
        return ready[0]

    def read(window: Window) -> npt.NDArray[np.uint8]:
        if source.shape[0] * source.shape[1] > _WHOLE_PIXELS:
            return reader()(window)
        # not by name: two folders may hold files of the same name
        key = (source.path, source.plane)
        pixels = kept.get(key, lambda: np.ascontiguousarray(reader()(whole)))
        return pixels[window.y0 : window.y1, window.x0 : window.x1]

    return _Picture(name, source.shape, read)


def _packaged(kept: _Kept) -> list[_Picture]:
    found = importlib.util.find_spec("skimage")
    if found is None or not found.submodule_search_locations:
        raise SettingsError(
            "`packaged_share` takes pictures from scikit-image, which is not "
            'installed: pip install "napari-alibi-seg[distill]".'
        )
    folder = Path(found.submodule_search_locations[0]) / "data"
    paths = [folder / name for name in _PACKAGED if (folder / name).is_file()]
    return [p for path in paths for p in _planes(path, folder, kept)]
