"""The small form of the Batch tab: what to write, and how folders are searched."""

from __future__ import annotations

from magicgui.widgets import (
    CheckBox,
    ComboBox,
    Container,
    FloatSpinBox,
    LineEdit,
)
from qtpy.QtGui import QIntValidator

from napari_alibi_seg._widgets._hooks import on_gui

__all__ = ["batch_options"]


def batch_options() -> Container:
    """Return a form whose values are named as the fields of a `BatchRequest`.

    "plane" and "time" are the text of a number, or empty for images without them;
    "plane" and "z_smooth" count for nothing while they are disabled.
    """
    options = Container(
        widgets=[
            _check(
                "labels_always",
                "Labels (always)",
                "The class ids, NAME_labels.",
            ),
            _check(
                "probabilities",
                "Probabilities",
                "One plane a class, float32, NAME_probabilities.",
            ),
            _check(
                "uncertainty",
                "Uncertainty",
                "0 sure to 1 no idea, float32, NAME_uncertainty.",
            ),
            ComboBox(
                name="format",
                label="Format",
                choices=[("TIFF", "tiff"), ("OME-Zarr", "ome-zarr")],
                tooltip="Of the outputs. Both are compressed without loss and have "
                "coarser levels where they are large.",
            ),
            _check(
                "recursive",
                "Folders within folders",
                "Search folders within the folders of the list.",
            ),
            _check(
                "overwrite",
                "Overwrite outputs of others",
                "Replace outputs that were made otherwise or changed since. "
                "Without it, such a file fails and nothing is replaced.",
            ),
            LineEdit(
                name="plane",
                label="Plane of stacks",
                tooltip="Which plane of stacks is segmented, from 0. Leave it "
                "empty for single images, which have none.",
            ),
            _check(
                "all_planes",
                "All planes of stacks",
                "Segment every plane of stacks and time series; the outputs are "
                "stacks too.",
            ),
            LineEdit(
                name="time",
                label="Time of series",
                tooltip="Which point in time of series is segmented, from 0. Leave it "
                "empty for images that are no series, and for all times where all "
                "planes are wanted.",
            ),
            FloatSpinBox(
                name="z_smooth",
                label="Smooth along Z",
                value=0.0,
                min=0.0,
                max=10.0,
                step=0.5,
                tooltip="With all planes: average the probabilities of neighbouring "
                "planes with a Gaussian of this many planes. 0 leaves each plane "
                "alone.",
            ),
        ],
        labels=True,
    )
    options.margins = (0, 0, 0, 0)
    always = options["labels_always"]
    always.value, always.enabled = True, False
    for name, text in (("plane", "no stack"), ("time", "no series")):
        line = options[name].native
        line.setPlaceholderText(text)
        line.setValidator(QIntValidator(0, 10**6, line))
    options["all_planes"].changed.connect(lambda _: _enable_planes(options))
    _enable_planes(options)
    return options


@on_gui
def _enable_planes(options: Container) -> None:
    """One plane or all of them; only all can be smoothed."""
    takes_all = bool(options["all_planes"].value)
    options["plane"].enabled = not takes_all
    options["z_smooth"].enabled = takes_all


def _check(name: str, text: str, tip: str) -> CheckBox:
    return CheckBox(name=name, text=text, tooltip=tip, value=False)
