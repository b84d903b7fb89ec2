"""Planes of zarr arrays and OME-Zarr images in folders.

Only this module reads OME-Zarr metadata (versions 0.1 to 0.5): one resolution is
opened, with its axes, pixel size and channel names. Arrays elsewhere are found and read
like datasets of any container.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import zarr

from napari_alibi_seg._base import ImageFileError, SettingsError
from napari_alibi_seg.data._containers import (
    array_plane,
    choose_dataset,
    is_image,
    named_axes,
)
from napari_alibi_seg.data._guard import check_dtype
from napari_alibi_seg.data._pixel_size import in_unit, pixel_size
from napari_alibi_seg.data._source import Stored

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from napari_alibi_seg._base import PixelSize

__all__ = ["stored_zarr"]

_RUNS_CODE = "pickle"


def stored_zarr(path: Path, dataset: str | None, level: int = 0) -> Stored:
    """Describe an array of a zarr folder, or a resolution of an OME-Zarr, 0 the full.

    Raises
    ------
    SettingsError
        If several arrays may be meant, or the named one is not there.
    ImageFileError
        If there is no image-like array.
    """
    node: Any = zarr.open(path, mode="r")
    name = ""
    if dataset is not None and isinstance(node, zarr.Group):
        name = dataset.strip("/")
        if name not in node:
            choose_dataset(path, name, [], _zarr_shapes(node))
        node = node[name]
    elif dataset is not None:
        raise SettingsError(
            f"{path}: expected no `dataset` for a zarr array that stands by itself, "
            f"got {dataset!r}. Leave it out."
        )
    if isinstance(node, zarr.Group) and not _multiscales(node) and "0" in node:
        # bioformats2raw writes each image into a numbered group
        first = node["0"]
        if isinstance(first, zarr.Group) and _multiscales(first) and "1" not in node:
            node, name = first, f"{name}/0".strip("/")
    if isinstance(node, zarr.Group) and _multiscales(node):
        return _stored_ome_zarr(path, node, name, level)
    if isinstance(node, zarr.Group):
        shapes = _zarr_shapes(node)
        inner = choose_dataset(path, None, list(shapes), shapes)
        node, name = node[inner], f"{name}/{inner}".strip("/")
    return _stored_zarr_array(path, node, name)


def _stored_zarr_array(
    path: Path,
    array: zarr.Array,
    name: str,
    *,
    axes: str | None = None,
    size: PixelSize | None = None,
    channel_names: tuple[str, ...] = (),
    n_levels: int = 1,
) -> Stored:
    where = f"{path}:{name}" if name else str(path)
    known = check_dtype(array.dtype, where)
    _check_codecs(array, where)
    names = getattr(array.metadata, "dimension_names", None)
    names = names or array.attrs.get("_ARRAY_DIMENSIONS")
    return Stored(
        name=f"{path.name}:{name}" if name else path.name,
        path=path,
        axes=axes or named_axes(names, array.shape),
        shape=tuple(array.shape),
        dtype=known,
        open_plane=lambda chosen: array_plane(array, chosen, known),
        pixel_size=size,
        channel_names=channel_names,
        n_levels=n_levels,
    )


def _check_codecs(array: zarr.Array, where: str) -> None:
    # numcodecs' pickle filter runs whatever the store's author wrote.
    if _RUNS_CODE in json.dumps(array.metadata.to_dict(), default=str).lower():
        raise ImageFileError(
            f"{where}: expected plain pixels, got a zarr array packed with pickle, "
            "which runs code when it is read. Save it without that filter."
        )


def _stored_ome_zarr(path: Path, group: zarr.Group, name: str, level: int) -> Stored:
    """Describe a resolution of an OME-Zarr image (versions 0.1 to 0.5)."""
    scales = _multiscales(group)[0]
    chosen = scales["datasets"][level]
    array = group[chosen["path"]]
    listed = scales.get("axes") or list("tczyx")
    axes_of = [a if isinstance(a, dict) else {"name": a} for a in listed]
    axes = named_axes([a["name"] for a in axes_of], array.shape)
    if axes is None:
        raise ImageFileError(
            f"{path}: expected OME-Zarr axes for shape {array.shape}, got {listed}. "
            "Correct its metadata or name the array with `dataset`."
        )
    factors = dict.fromkeys(axes, 1.0)
    has_scale = False
    for step in (
        *chosen.get("coordinateTransformations", ()),
        *scales.get("coordinateTransformations", ()),
    ):
        if step.get("type") == "scale":
            has_scale = True
            for letter, factor in zip(axes, step["scale"], strict=True):
                factors[letter] *= factor
    units = {a: axis.get("unit") for a, axis in zip(axes, axes_of, strict=True)}
    size = _scaled(factors, units) if has_scale else None
    return _stored_zarr_array(
        path,
        array,
        f"{name}/{chosen['path']}".strip("/"),
        axes=axes,
        size=size,
        channel_names=_omero_names(group),
        n_levels=_n_levels(group, scales["datasets"], axes),
    )


def _scaled(
    factors: Mapping[str, float], units: Mapping[str, str | None]
) -> PixelSize | None:
    unit = units["X"]
    # planes without a unit have an index, not a distance
    to_unit = in_unit(units.get("Z"), unit)
    z = None if to_unit is None else factors["Z"] * to_unit
    return pixel_size(factors["Y"], factors["X"], unit, z=z)


def _n_levels(group: zarr.Group, datasets: list[dict[str, Any]], axes: str) -> int:
    """Return how many resolutions have the planes of the full one."""

    def planes(dataset: dict[str, Any]) -> list[int]:
        shape = group[dataset["path"]].shape
        return [n for a, n in zip(axes, shape, strict=True) if a not in "YX"]

    full = planes(datasets[0])
    n = 1
    while n < len(datasets) and datasets[n]["path"] in group:
        if planes(datasets[n]) != full:
            break
        n += 1
    return n


def _ome_attributes(group: zarr.Group) -> dict[str, Any]:
    attributes = dict(group.attrs)
    ome = attributes.get("ome")  # 0.5 keeps everything below this key
    return ome if isinstance(ome, dict) else attributes


def _multiscales(group: zarr.Group) -> list[dict[str, Any]]:
    found = _ome_attributes(group).get("multiscales")
    return found if isinstance(found, list) and found else []


def _omero_names(group: zarr.Group) -> tuple[str, ...]:
    omero = _ome_attributes(group).get("omero")
    channels = omero.get("channels", []) if isinstance(omero, dict) else []
    names = tuple(str(c.get("label", "")) for c in channels)
    return names if all(names) else ()


def _zarr_shapes(group: zarr.Group) -> dict[str, tuple[int, ...]]:
    return {
        name: item.shape
        for name, item in group.members(max_depth=None)
        if isinstance(item, zarr.Array) and is_image(item.shape, item.dtype)
    }
