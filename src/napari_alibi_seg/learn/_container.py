"""JSON text and plain arrays in a safetensors container, read without trust.

Only this module knows the container's limits, how a truncated one is told from a
foreign file, and what JSON is accepted. It knows nothing of classifiers.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import numpy.typing as npt

from napari_alibi_seg._base import ClassifierFileError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "MAX_TEXT_BYTES",
    "canonical_json",
    "pack",
    "refuse",
    "strict_json",
    "unpack",
]

MAX_TEXT_BYTES = 8 << 20
MAX_ARRAYS = 64
MAX_DEPTH = 32

_KEY = "alibiseg"
# Twice the text, for escaped quotes, and room for the table of arrays.
_MAX_HEADER_BYTES = 2 * MAX_TEXT_BYTES + (1 << 20)
_DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
}
_FOREIGN = {
    b"\x80": "a pickle",
    b"PK": "a zip archive (of torch or numpy?)",
    b"\x1f\x8b": "a gzip archive (of joblib?)",
    b"x\x01": "a zlib stream (of joblib?)",
    b"x\x9c": "a zlib stream (of joblib?)",
    b"x\xda": "a zlib stream (of joblib?)",
    b"BZh": "a bzip2 archive (of joblib?)",
    b"\xfd7zXZ": "an xz archive (of joblib?)",
    b"\x04\x22M\x18": "an lz4 archive (of joblib?)",
    b"\x93NUMPY": "a numpy file",
}


def pack(text: bytes, arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Return the container's bytes, the same for the same content.

    Raises
    ------
    SettingsError
        If the text is too long or an array has another type than 32 or 64-bit
        floats or integers.
    """
    from safetensors.numpy import save

    if len(text) > MAX_TEXT_BYTES:
        raise SettingsError(
            f"A classifier's header may have {MAX_TEXT_BYTES} bytes, got {len(text)}. "
            "Shorten the names or the training summary."
        )
    for name, array in arrays.items():
        if array.dtype not in _DTYPES.values():
            raise SettingsError(
                f"The array `{name}` must have one of the types "
                f"{[str(d) for d in _DTYPES.values()]}, got {array.dtype}."
            )
    contiguous = {name: np.ascontiguousarray(a) for name, a in arrays.items()}
    return save(contiguous, metadata={_KEY: text.decode()})


def unpack(data: bytes) -> tuple[bytes, dict[str, npt.NDArray[Any]]]:
    """Return the text and the arrays.

    Raises
    ------
    ClassifierFileError
        If the data is no container of this kind, is truncated or beyond a limit.
    """
    table = _table(data)
    metadata = table.pop("__metadata__", None)
    if not isinstance(metadata, dict) or not isinstance(metadata.get(_KEY), str):
        refuse(
            "This is a safetensors file, but no classifier (weights of a backbone?).",
            "Choose a file made by `alibi-seg train`.",
        )
    text = metadata[_KEY].encode()
    if len(text) > MAX_TEXT_BYTES:
        refuse(f"A header may have {MAX_TEXT_BYTES} bytes, this one has {len(text)}.")
    return text, _arrays(data, table)


def refuse(
    problem: str, remedy: str = "Get the file again from where it came."
) -> NoReturn:
    """Raise the error of a file that cannot be used."""
    raise ClassifierFileError(f"{problem} {remedy}")


def _table(data: bytes) -> dict[str, Any]:
    """Return the container's own header: its metadata and what each array is."""
    # A container starts with its header's length, then "{". The length alone could
    # begin like one of the foreign files.
    for magic, what in _FOREIGN.items():
        if data.startswith(magic) and data[8:9] != b"{":
            refuse(
                f"This is {what}, not a classifier file. It will not be opened, "
                "because doing so could run code.",
                "Train a classifier with this package instead.",
            )
    if len(data) > 8 and data[8:9] != b"{":
        refuse(
            "This is no classifier file (no safetensors container).",
            "Choose a file made by `alibi-seg train`.",
        )
    length = int.from_bytes(data[:8], "little")
    if len(data) > 8 and length > _MAX_HEADER_BYTES:
        refuse(f"A header may have {_MAX_HEADER_BYTES} bytes, this has {length}.")
    if len(data) < 8 + max(length, 2):
        refuse("The file is truncated: it ends inside its header.")
    return strict_json(data[8 : 8 + length], "The container's header")


def _arrays(data: bytes, table: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
    import safetensors

    if len(table) > MAX_ARRAYS:
        refuse(f"A classifier has at most {MAX_ARRAYS} arrays, got {len(table)}.")
    for name, entry in table.items():
        entry = entry if isinstance(entry, dict) else {}
        dtype, shape = entry.get("dtype"), entry.get("shape")
        if not isinstance(dtype, str) or dtype not in _DTYPES:
            refuse(f"The array {name!r} must be one of {list(_DTYPES)}, got {dtype!r}.")
        if not isinstance(shape, list) or not shape or 0 in shape:
            refuse(f"The array {name!r} must not be empty, got the shape {shape!r}.")
    decode: Any = safetensors.deserialize  # checks offsets, overlaps and lengths
    try:
        entries = decode(data)
    except safetensors.SafetensorError as err:
        raise ClassifierFileError(
            f"The file is truncated or damaged ({err}). Get the file again from where "
            "it came."
        ) from err
    arrays = {}
    for name, entry in entries:
        flat: Any = np.frombuffer(entry["data"], _DTYPES[table[name]["dtype"]])
        arrays[name] = flat.reshape(entry["shape"])
    return arrays


def canonical_json(value: Any) -> bytes:
    """Return JSON in one spelling only; ValueError for NaN and infinity."""
    return json.dumps(
        value,
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    ).encode()


def strict_json(raw: bytes, what: str) -> dict[str, Any]:
    """Parse a JSON object; no NaN, no repeated keys, no bottomless nesting."""
    try:
        value = json.loads(
            raw,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            object_pairs_hook=_unique,
        )
        canonical_json(value)  # fails for half a surrogate pair
    except RecursionError as err:
        raise ClassifierFileError(
            f"{what} is nested too deeply. Get the file again from where it came."
        ) from err
    except ValueError as err:  # also bytes that are not UTF-8, and endless numbers
        raise ClassifierFileError(
            f"{what} is no valid JSON ({str(err)[:200]}). Get the file again from "
            "where it came."
        ) from err
    if not isinstance(value, dict):
        refuse(f"{what} must be a JSON object, got {type(value).__name__}.")
    if _deeper_than(value, MAX_DEPTH):
        refuse(f"{what} is nested too deeply.")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    if not np.isfinite(value):
        raise ValueError(f"{text[:40]} is too large a number")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key occurs twice")
    return value


def _deeper_than(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return False
    return True
