"""Every error and warning this package raises on purpose.

One tree, rooted at `AlibiSegError`. Each leaf also subclasses the builtin it stands
for, so `except ValueError` keeps working. A wrong argument (`SettingsError`,
`AnnotationError`) is told apart from a wrong file (`ImageFileError`,
`ClassifierFileError`, `StoreError`, `WeightsError`) and from a machine that failed
(`OutputError`, `DeviceMemoryError`, `ComputeError`).

None subclasses `RuntimeError`: Qt generator workers treat that class as "the window
is gone" and swallow it.
"""

from __future__ import annotations

__all__ = [
    "AlibiSegError",
    "AlibiSegWarning",
    "AnnotationError",
    "ClassifierFileError",
    "ComputeError",
    "DeviceMemoryError",
    "ImageFileError",
    "OutputError",
    "SettingsError",
    "StoreError",
    "WeightsError",
]


class AlibiSegError(Exception):
    """Root of all errors raised on purpose by this package."""


class SettingsError(AlibiSegError, ValueError):
    """An argument or a combination of arguments is wrong."""


class AnnotationError(AlibiSegError, ValueError):
    """Scribbles do not fit the image or do not allow training."""


class ImageFileError(AlibiSegError, ValueError):
    """An image, label or mask file cannot be read as what it was given for."""


class ClassifierFileError(AlibiSegError, ValueError):
    """A `.alibiseg` file is damaged, foreign, too new or does not match."""


class StoreError(AlibiSegError, ValueError):
    """A feature store is damaged or belongs to another image or setting."""


class WeightsError(AlibiSegError, OSError):
    """Backbone or denoiser weights are absent, damaged or of another shape."""


class OutputError(AlibiSegError, OSError):
    """A result cannot be written, or would replace something."""


class DeviceMemoryError(AlibiSegError, MemoryError):
    """The compute device has no memory left even for one tile."""


class ComputeError(AlibiSegError):
    """A computation failed on this machine."""


class AlibiSegWarning(UserWarning):
    """The result is valid but may not be what was wanted."""
