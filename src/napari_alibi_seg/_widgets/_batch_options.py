"""The small form of the Batch tab: what to write, and how folders are searched."""

from __future__ import annotations

from magicgui.widgets import CheckBox, Container, LineEdit
from qtpy.QtGui import QIntValidator

__all__ = ["batch_options"]


def batch_options() -> Container:
    """Return a form whose values are named as the fields of a `BatchRequest`.

    "plane" is the text of a number, or empty for images without planes.
    """
    options = Container(
        widgets=[
            _check(
                "labels_always",
                "Labels (always)",
                "The class ids, NAME_labels.tif.",
            ),
            _check(
                "probabilities",
                "Probabilities",
                "One plane a class, float32, NAME_probabilities.tif.",
            ),
            _check(
                "uncertainty",
                "Uncertainty",
                "0 sure to 1 no idea, float32, NAME_uncertainty.tif.",
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
        ],
        labels=True,
    )
    options.margins = (0, 0, 0, 0)
    always = options["labels_always"]
    always.value, always.enabled = True, False
    plane = options["plane"].native
    plane.setPlaceholderText("no stack")
    plane.setValidator(QIntValidator(0, 10**6, plane))
    return options


def _check(name: str, text: str, tip: str) -> CheckBox:
    return CheckBox(name=name, text=text, tooltip=tip, value=False)
