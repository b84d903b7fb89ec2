"""The `.alibiseg` file: everything that repeats a classification elsewhere.

A safetensors container [1]_ with plain arrays and one JSON document in its metadata,
so that opening a stranger's file runs no code: no pickle, no objects rebuilt from
names, every length checked against a limit and every array against its use. Only
this module knows how document and arrays are tied together: the table of arrays, the
checksum, the version of the format. The container is `_container`'s, the fields of
the document are `_header`'s, the meaning of the arrays `_arrays`'s.

The same content gives the same bytes: JSON is canonical, arrays are sorted, nothing
depends on time or place. A SHA-256 over the document and the arrays shows an edit; it
is no signature, so nothing here trusts a file because its checksum is right.

.. [1] https://github.com/huggingface/safetensors
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_alibi_seg._base import ClassifierFileError, SettingsError
from napari_alibi_seg.learn._arrays import Arrays, check_content
from napari_alibi_seg.learn._container import (
    canonical_json,
    pack,
    refuse,
    strict_json,
    unpack,
)
from napari_alibi_seg.learn._header import (
    FORMAT,
    FORMAT_VERSION,
    OWN_KEYS,
    checked_header,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    import numpy.typing as npt

__all__ = ["load_classifier_file", "save_classifier_file"]

MAX_FILE_BYTES = 2 << 30


def save_classifier_file(
    path: str | os.PathLike[str],
    header: Mapping[str, Any],
    arrays: Mapping[str, npt.NDArray[Any]],
) -> str:
    """Write a classifier file, whole or not at all.

    Parameters
    ----------
    path : path
        File to write; an existing one is replaced at the end, in one step.
    header : dict
        The fields of `ClassifierHeader`, or a header that was loaded.
    arrays : dict of str to array
        From `classifier_to_arrays` and `projection_to_arrays`.

    Returns
    -------
    str
        The SHA-256 of the content, in hexadecimal digits.

    Raises
    ------
    SettingsError
        If the header is incomplete, has unknown fields or holds NaN.
    ClassifierFileError
        If header and arrays do not belong together.
    OutputError
        If the file cannot be written; one that was there stays as it was.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from napari_alibi_seg._base import ClassifierSettings, FeatureSettings
    >>> from napari_alibi_seg.learn import classifier_to_arrays, fit_classifier
    >>> x, y = np.array([[0.0], [1.0]], np.float32), np.array([1, 2])
    >>> settings = ClassifierSettings(n_trees=5)
    >>> classifier = fit_classifier(x, y, settings)
    >>> header = {
    ...     "versions": {"napari-alibi-seg": "0.1.0"},
    ...     "backbone": None,
    ...     "features": {
    ...         "settings": FeatureSettings(scale=1.0),
    ...         "intensity": [(0.0, 255.0)],
    ...         "n_features": 1,
    ...     },
    ...     "classifier": settings,
    ...     "classes": [
    ...         {"id": 1, "name": "matrix", "colour": "#1f77b4"},
    ...         {"id": 2, "name": "pore", "colour": "#ff7f0e"},
    ...     ],
    ...     "training": classifier.summary,
    ... }
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "two.alibiseg"
    ...     sha256 = save_classifier_file(
    ...         path, header, classifier_to_arrays(classifier)
    ...     )
    ...     loaded, arrays = load_classifier_file(path)
    >>> loaded["sha256"] == sha256, loaded["classes"][1]["name"]
    (True, 'pore')
    """
    # Reading and writing images is the heavy part of `data`; predicting needs none.
    from napari_alibi_seg.data import write_bytes_atomic

    data, sha256 = _encoded(header, arrays)
    write_bytes_atomic(path, data)
    return sha256


def _encoded(
    header: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]
) -> tuple[bytes, str]:
    document = checked_header(header, SettingsError)
    plain = {
        name: a.astype(a.dtype.newbyteorder("<"), copy=False)
        for name, a in arrays.items()
    }
    check_content(document, plain)
    document |= {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "arrays": _array_table(plain),
    }
    try:
        document["sha256"] = _content_sha256(document, plain)
        text = canonical_json(document)
    except ValueError as err:
        raise SettingsError(
            f"A classifier's header must hold finite numbers and Unicode text ({err})."
        ) from err
    return pack(text, plain), document["sha256"]


def _array_table(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, Any]:
    return {
        name: {"dtype": a.dtype.name, "shape": list(a.shape)}
        for name, a in sorted(arrays.items())
    }


def _content_sha256(
    document: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]
) -> str:
    digest = hashlib.sha256(
        canonical_json({k: v for k, v in document.items() if k != "sha256"})
    )
    for name in sorted(arrays):  # their shapes are in the document
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()


# ---------------------------------------------------------------------------- loading


def load_classifier_file(path: str | os.PathLike[str]) -> tuple[dict[str, Any], Arrays]:
    """Read and check a classifier file. Nothing in it is executed.

    Parameters
    ----------
    path : path
        An `.alibiseg` file, trusted or not.

    Returns
    -------
    header : dict
        The fields of `ClassifierHeader`, and `format`, `format_version`, `arrays`
        (name, dtype and shape) and `sha256`.
    arrays : dict of str to array
        For `classifier_from_arrays` and `projection_from_arrays`.

    Raises
    ------
    ClassifierFileError
        If the file is missing, truncated, edited, of a newer version, no classifier
        at all, or describes one that cannot be.
    """
    path = Path(path)
    try:
        text, arrays = unpack(_read(path))
        document = _document(text, arrays)
        own = {key: document.pop(key) for key in OWN_KEYS}
        header = checked_header(document, ClassifierFileError)
        check_content(header, arrays)
    except ClassifierFileError as err:
        raise ClassifierFileError(f"{path}: {err}") from err
    return header | own, arrays


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            refuse(
                f"A classifier file has at most {MAX_FILE_BYTES} bytes, got {size}.",
                "Is this the right file?",
            )
        data = path.read_bytes()
    except FileNotFoundError as err:
        raise ClassifierFileError(
            "The file does not exist. Check the name, or train a classifier first."
        ) from err
    except OSError as err:
        raise ClassifierFileError(
            f"The file cannot be read ({err.strerror}). Check that it is a file and "
            "that you may read it."
        ) from err
    if not data:
        refuse("The file is empty.")
    return data


def _document(text: bytes, arrays: Arrays) -> dict[str, Any]:
    """Parse the document and check format, version, array table and checksum."""
    document = strict_json(text, "The header")
    if document.get("format") != FORMAT:
        refuse(f"`format` must be {FORMAT!r}, got {document.get('format')!r:.100}.")
    version = document.get("format_version")
    if type(version) is not int or version < 1:
        refuse(f"`format_version` must be a number from 1, got {version!r:.100}.")
    if version > FORMAT_VERSION:
        refuse(
            f"The file was made by a newer version of napari-alibi-seg (format "
            f"{version}, this version reads up to {FORMAT_VERSION}).",
            "Update with `pip install -U napari-alibi-seg`.",
        )
    if document.get("arrays") != _array_table(arrays):
        refuse("The arrays are not those its header lists: the file was edited.")
    if document.get("sha256") != _content_sha256(document, arrays):
        refuse("The checksum does not match: the file was edited or damaged.")
    return document
