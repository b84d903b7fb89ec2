"""The figure of `alibi-seg bias`: a row a backbone, the same crop in all of them.

Only the layout is known here; every picture comes from a `PositionReport`.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_alibi_seg._base import FloatArray
from napari_alibi_seg._cli._figure import paint, quiet_matplotlib

if TYPE_CHECKING:
    from napari_alibi_seg.analysis import PositionReport

__all__ = ["draw_bias_figure"]

# Inches.
_SIDE, _GAP, _MARGIN, _TITLE, _NAME = 1.9, 0.12, 0.15, 0.24, 0.58
_DPI = 150
_COLUMNS = 5
_PLACE = "viridis"


def draw_bias_figure(
    reports: Sequence[PositionReport], file: str, kind: str = "png"
) -> bytes:
    """Return the figure as a file.

    Parameters
    ----------
    reports : sequence of PositionReport
        Of the same crops.
    file : str
        Name of the image that the crop shown is from.
    kind : {"png", "pdf", "svg"}
        Of the file.

    Returns
    -------
    bytes
    """
    with quiet_matplotlib():
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        width = 2 * _MARGIN + _COLUMNS * _SIDE + (_COLUMNS - 1) * _GAP
        height = 2 * _MARGIN + (len(reports) + 1) * _row_height()
        figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
        FigureCanvasAgg(figure)
        _header(figure, reports[0], file)
        for row, report in enumerate(reports, start=1):
            _backbone(figure, row, report)
        out = io.BytesIO()
        # neither version nor time in the file: equal reports give equal bytes
        stamps = {"png": "Software", "pdf": "CreationDate", "svg": "Date"}
        with matplotlib.rc_context({"svg.hashsalt": "alibi-seg"}):
            figure.savefig(out, format=kind, metadata={stamps[kind]: None})
        return out.getvalue()


def _row_height() -> float:
    return _NAME + _TITLE + _SIDE


def _header(figure: Any, report: PositionReport, file: str) -> None:
    """Draw what all rows share: the crop, and what a probe is to read."""
    pictures = report.pictures
    crop = np.moveaxis(np.clip(pictures.crop, 0, 1), 0, -1)
    if crop.shape[2] != 3:
        crop = crop.mean(axis=2)
    _heading(figure, 0, "What is asked", f"One of {report.n_crops} crops: {file}")
    _show(figure, 0, 0, "crop", crop, cmap="gray")
    for k, name in enumerate(("column", "row")):
        title = f"{name} of each token"
        _show(figure, 0, 1 + k, title, pictures.target[..., k], cmap=_PLACE)
    _text(
        figure,
        3,
        "Below, a probe reads column and row from the\n"
        "features of this crop"
        + (
            ", fitted on other crops.\n"
            if report.table["lr+ud"].transfer_r2 is not None
            else ", fitted on 38 of its tokens.\n"
        )
        + "Features without position give a flat picture.\n\n"
        "Channels: how well each channel by itself tells\n"
        "the column (black 0, yellow R² 0.5 and more), best\n"
        "on the left, a line for every layer.\n\n"
        "Components and clusters of features without\n"
        "position follow the content alone.",
    )


def _backbone(figure: Any, row: int, report: PositionReport) -> None:
    """Draw the pictures of one backbone."""
    pictures, headline = report.pictures, report.table["lr+ud"]
    _heading(figure, row, report.name, _numbers(report))
    for k, (name, kind) in enumerate((("column", "lr"), ("row", "ud"))):
        own = report.table[kind]
        r2 = own.single_r2 if own.transfer_r2 is None else own.transfer_r2
        read = pictures.prediction[..., k]
        _show(figure, row, k, f"{name} read, R² {r2:.2f}", read, cmap=_PLACE)
    n_layers = len(report.fingerprint.r2)
    layers = "last layer" if n_layers == 1 else f"{n_layers} layers"
    n = f"{len(headline.channels)} of {report.table.n_channels}"
    title = f"channels, {layers}: {n} tell"
    picture = report.fingerprint.picture(is_sorted=True)
    _show(figure, row, 2, title, picture, cmap="inferno", aspect="auto")
    _show(figure, row, 3, "components 1–3", pictures.components)
    colours = dict(enumerate(_distinct(pictures.cluster_colours)))
    _show(
        figure,
        row,
        4,
        f"k-means, tells {report.clusters:.2f} of place",
        paint(pictures.clusters, colours),
    )


def _numbers(report: PositionReport) -> str:
    row = report.table["lr+ud"]
    parts = [f"position: {report.level}"]
    if row.transfer_r2 is not None and row.transfer_floor is not None:
        parts.append(
            f"transfer R² {row.transfer_r2:.2f} (floor {row.transfer_floor.mean:.2f})"
        )
    parts += [
        f"single-image R² {row.single_r2:.2f} (noise {row.single_floor.mean:.2f})",
        f"follows {_FOLLOWS[report.verdict]}",
        f"MIC {report.artefact:.2f} (noise {report.artefact_floor:.2f})",
    ]
    return "   ".join(parts)


_FOLLOWS = {
    "bias": "the frame",
    "content": "the content",
    "both": "frame and content",
    "neither": "neither",
}


def _heading(figure: Any, row: int, name: str, text: str) -> None:
    width, height = figure.get_size_inches()
    top = height - _MARGIN - row * _row_height()
    at = {"ha": "left", "va": "top"}
    figure.text(_MARGIN / width, (top - 0.20) / height, name, weight="bold", **at)
    figure.text(_MARGIN / width, (top - 0.40) / height, text, fontsize=8, **at)


def _box(figure: Any, row: int, col: int) -> tuple[float, float, float, float]:
    width, height = figure.get_size_inches()
    left = _MARGIN + col * (_SIDE + _GAP)
    bottom = height - _MARGIN - (row + 1) * _row_height()
    return left / width, bottom / height, _SIDE / width, _SIDE / height


def _show(
    figure: Any,
    row: int,
    col: int,
    title: str,
    picture: Any,
    *,
    cmap: str | None = None,
    aspect: str = "equal",
) -> None:
    ax = figure.add_axes(_box(figure, row, col))
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set(linewidth=0.5)
    ax.imshow(
        picture, cmap=cmap, vmin=0, vmax=1, aspect=aspect, interpolation="nearest"
    )
    ax.set_title(title, fontsize=8, pad=3, loc="left")


def _text(figure: Any, col: int, text: str) -> None:
    left, bottom, _, tall = _box(figure, 0, col)
    figure.text(left, bottom + tall, text, fontsize=8, va="top", linespacing=1.35)


def _distinct(colours: FloatArray) -> FloatArray:
    """Spread colours over their whole range, so that clusters can be told apart."""
    low, high = colours.min(axis=0), colours.max(axis=0)
    spread = (colours - low) / np.where(high > low, high - low, 1)
    return (0.1 + 0.8 * spread).astype(np.float32)
