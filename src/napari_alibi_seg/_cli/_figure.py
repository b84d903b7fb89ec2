"""The figure of `alibi-seg demo`: what went in, what the features see, what came out.

Matplotlib is imported when a figure is drawn. It uses the Agg canvas directly, so
neither a display nor the user's backend or style has a say, and equal panels give equal
bytes.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_alibi_seg._base import FloatArray, IntArray, PixelSize

if TYPE_CHECKING:
    from napari_alibi_seg._cli._views import FeatureViews
    from napari_alibi_seg._segmenter import ClassInfo

__all__ = ["Panels", "bar_length", "draw_figure", "paint", "quiet_matplotlib"]

# Inches; together they fix the layout whatever the size of the image.
_SIDE, _GAP, _MARGIN, _TITLE, _FOOT = 3.3, 0.14, 0.12, 0.3, 0.34
_DPI = 200
_STYLE = {
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "text.color": "#222222",
}
_FRAME = "#222222"
_UNCERTAINTY_MAP = "magma"
_BAR_SHARE = 0.25


@dataclass(frozen=True)
class Panels:
    """All that the figure shows.

    Attributes
    ----------
    image_yx : (Y, X) array
        Micrograph.
    scribbles_yx, labels_yx : (Y, X) array of int
        Class ids; 0 in the scribbles is not painted.
    uncertainty_yx : (Y, X) float32
        0 to 1.
    views : FeatureViews
        Of the features.
    features : str
        What they are: "ViT tokens".
    classes : dict of int to ClassInfo
        Names and colours by id.
    pixel_size : PixelSize or None
        For the scale bar; none, no bar.
    miou : float
        Against the truth.
    """

    image_yx: Any
    scribbles_yx: IntArray
    labels_yx: IntArray
    uncertainty_yx: FloatArray
    views: FeatureViews
    features: str
    classes: dict[int, ClassInfo]
    pixel_size: PixelSize | None
    miou: float


def draw_figure(panels: Panels) -> bytes:
    """Return the figure as a PNG file.

    Parameters
    ----------
    panels : Panels
        All (Y, X) arrays of one shape.

    Returns
    -------
    bytes
    """
    with quiet_matplotlib():
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        width = 2 * _MARGIN + 3 * _SIDE + 2 * _GAP
        height = 2 * (_SIDE + _TITLE) + _FOOT + _MARGIN
        figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
        FigureCanvasAgg(figure)
        axes = [_axes(figure, row, col) for row in range(2) for col in range(3)]
        _fill(axes, panels)
        _legend(figure, panels.classes)
        _colour_bar(figure)
        out = io.BytesIO()
        # no version in the file: bytes then follow from the pixels alone
        figure.savefig(out, format="png", metadata={"Software": None})
        return out.getvalue()


@contextmanager
def quiet_matplotlib() -> Iterator[None]:
    """Keep the user's backend and style out, and leave them as they were."""
    # importing matplotlib fails for a backend it does not know, wanted or not
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib.style
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    with matplotlib.style.context(["default", _STYLE]):
        yield


def _fill(axes: Sequence[Any], panels: Panels) -> None:
    """Draw the panels: input, features and result side by side."""
    colours = {i: c.colour for i, c in panels.classes.items()}
    grey = _grey(panels.image_yx)
    painted = np.count_nonzero(panels.scribbles_yx) / panels.scribbles_yx.size
    views = panels.views
    clusters = paint(views.clusters_yx, dict(enumerate(_distinct(views.colours))))
    strokes = paint(panels.scribbles_yx, colours, 0.35 + 0.65 * grey)
    contents = [
        ("a", "Micrograph", grey),
        ("b", f"{panels.features}: principal components 1–3", views.components_yxs),
        ("c", f"Segmentation, mean IoU {panels.miou:.2f}", None),
        ("d", f"Scribbles on {100 * painted:.1f} % of the pixels", strokes),
        ("e", f"{panels.features}: k-means, {len(views.colours)} clusters", clusters),
        ("f", "Uncertainty (normalised entropy)", None),
    ]
    size = panels.labels_yx.shape
    for ax, (letter, title, picture) in zip(axes, contents, strict=True):
        if letter == "c":
            picture = paint(panels.labels_yx, colours)
        if letter == "f":
            _show(ax, panels.uncertainty_yx, size, cmap=_UNCERTAINTY_MAP)
        else:
            _show(ax, picture, size)
        style = {"transform": ax.transAxes, "va": "bottom", "fontsize": 9.5}
        ax.text(0.0, 1.018, letter, weight="bold", **style)
        ax.text(0.045, 1.018, title, **style)
    if panels.pixel_size is not None:
        _scale_bar(axes[0], panels.pixel_size, size)


def _axes(figure: Any, row: int, col: int) -> Any:
    width, height = figure.get_size_inches()
    left = _MARGIN + col * (_SIDE + _GAP)
    bottom = _FOOT + (1 - row) * (_SIDE + _TITLE)
    ax = figure.add_axes((left / width, bottom / height, _SIDE / width, _SIDE / height))
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set(linewidth=0.5, color=_FRAME)
    return ax


def _show(ax: Any, picture: Any, size: tuple[int, int], cmap: Any = "gray") -> None:
    """Draw a picture over the whole field, whatever its own resolution."""
    extent = (0, size[1], size[0], 0)
    # colours are averaged where pixels are smaller than dots, never ids
    ax.imshow(
        picture, extent=extent, cmap=cmap, vmin=0, vmax=1, interpolation_stage="rgba"
    )


def _grey(image_yx: Any) -> FloatArray:
    values = np.asarray(image_yx, np.float32)
    low, high = np.percentile(values, (0.2, 99.8))
    return np.clip((values - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)


def paint(
    ids_yx: IntArray, colours: dict[int, Any], over: FloatArray | None = None
) -> FloatArray:
    """Return ids as colours, (Y, X, 3) float32.

    Parameters
    ----------
    ids_yx : (Y, X) array of int
        Ids without a colour are left as `over` has them.
    colours : dict of int to colour
        ``#rrggbb`` or three numbers of 0 to 1.
    over : (Y, X) float32, optional
        Grey values below; white by default.

    Examples
    --------
    >>> paint(np.array([[0, 2]]), {2: "#ff0000"}).tolist()
    [[[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]]]
    """
    under = np.ones(ids_yx.shape, np.float32) if over is None else over
    out = np.repeat(under[..., None], 3, axis=2)
    for i, colour in colours.items():
        if isinstance(colour, str):
            colour = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        out[ids_yx == i] = colour
    return out


def _distinct(colours_ks: FloatArray) -> FloatArray:
    """Spread colours over their whole range, so that neighbours can be told apart."""
    low, high = colours_ks.min(axis=0), colours_ks.max(axis=0)
    spread = (colours_ks - low) / np.where(high > low, high - low, 1)
    return (0.1 + 0.8 * spread).astype(np.float32)


def bar_length(extent: float) -> float:
    """Return 1, 2 or 5 times a power of ten, at most a quarter of an extent.

    Examples
    --------
    >>> [bar_length(extent) for extent in (10.24, 4.1, 2000)]
    [2.0, 1.0, 500.0]
    """
    most = _BAR_SHARE * extent
    decade = 10.0 ** math.floor(math.log10(most))
    return max(f for f in (1.0, 2.0, 5.0) if f * decade <= most * (1 + 1e-9)) * decade


def _scale_bar(ax: Any, pixel: PixelSize, size: tuple[int, int]) -> None:
    """Draw a bar of a round length in the lower left corner."""
    from matplotlib.patches import Rectangle

    width = size[1]
    length = bar_length(width * pixel.x)
    share = length / pixel.x / width
    style = {"transform": ax.transAxes, "linewidth": 0}
    pad, thick, text = 0.024, 0.011, 0.05
    box = (share + 2 * pad, 2 * pad + thick + text)
    ax.add_patch(Rectangle((0, 0), *box, color="black", alpha=0.62, **style))
    ax.add_patch(Rectangle((pad, pad), share, thick, color="white", **style))
    unit = {"um": "µm", "micron": "µm"}.get(pixel.unit, pixel.unit)
    ax.text(
        pad + share / 2,
        pad + thick + 0.012,
        f"{length:g} {unit}",
        transform=ax.transAxes,
        color="white",
        ha="center",
        va="bottom",
        fontsize=8,
    )


def _legend(figure: Any, classes: dict[int, ClassInfo]) -> None:
    from matplotlib.patches import Patch

    width, height = figure.get_size_inches()
    figure.legend(
        handles=[Patch(facecolor=c.colour, label=c.name) for c in classes.values()],
        loc="center left",
        bbox_to_anchor=(_MARGIN / width, 0.5 * _FOOT / height),
        ncols=len(classes),
        frameon=False,
        fontsize=9,
        borderaxespad=0,
        borderpad=0,
        handlelength=1.0,
        handleheight=1.0,
        handletextpad=0.5,
        columnspacing=1.6,
    )


def _colour_bar(figure: Any) -> None:
    """Draw the scale of the uncertainty below its panel."""
    width, height = figure.get_size_inches()
    right, y, thick, long = width - _MARGIN, 0.5 * _FOOT, 0.1, 1.5
    ax = figure.add_axes(
        (
            (right - 0.3 - long) / width,
            (y - thick / 2) / height,
            long / width,
            thick / height,
        )
    )
    ax.imshow(np.linspace(0, 1, 256)[None, :], aspect="auto", cmap=_UNCERTAINTY_MAP)
    ax.set_axis_off()
    for x, text, side in (
        (right - 0.36 - long, "0", "right"),
        (right - 0.24, "1", "left"),
    ):
        figure.text(x / width, y / height, text, ha=side, va="center", fontsize=8.5)
