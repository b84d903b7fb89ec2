"""What a file is, told by its content.

Only this module knows the first bytes of formats. A name that says one thing and
content that says another is an error with the right name in it; a suffix that nobody
knows is no hindrance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_alibi_seg._base import ImageFileError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["IMAGE_SUFFIXES", "content_kind"]

_HEAD_BYTES = 512
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_SIGNATURES = (
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x93NUMPY", "npy"),
    (_HDF5_SIGNATURE, "HDF5"),
    (b"BM", "BMP"),
)
# Told apart only to say what was given instead.
_FOREIGN = (
    (b"GIF8", "a GIF picture"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a zip archive (npz, docx, zipped zarr, ...)"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"8BPS", "a Photoshop picture"),
    (b"\0\0\0\x0cjP", "a JPEG 2000 picture"),
    (b"\xffO\xffQ", "a JPEG 2000 picture"),
    (b"\0\0\0\x03", "a Gatan DM3 file"),
    (b"\0\0\0\x04", "a Gatan DM4 file"),
    (b"\xd0\xcf\x11\xe0", "a Microsoft compound file (OIB, ZVI, doc, ...)"),
    (b"ZISRAWFILE", "a Zeiss CZI file"),
    (b"\xda\xce\xbe\n", "a Nikon ND2 file"),
)
_SUFFIXES = {
    "TIFF": (".tif", ".tiff", ".btf", ".tf8"),
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "BMP": (".bmp", ".dib"),
    "npy": (".npy",),
    "HDF5": (".h5", ".hdf5", ".hdf", ".he5"),
}
# File names that a folder is searched for.
IMAGE_SUFFIXES = frozenset(
    {".zarr", *(s for suffixes in _SUFFIXES.values() for s in suffixes)}
)
_KIND_OF_SUFFIX = {s: kind for kind, suffixes in _SUFFIXES.items() for s in suffixes}
_READABLE = "TIFF, PNG, JPEG, BMP, npy, HDF5 or zarr"
_ZARR_FILES = ("zarr.json", ".zarray", ".zgroup", ".zattrs")


def content_kind(path: Path) -> str:
    """Return the format of a file or folder, decided by its content."""
    try:
        if path.is_dir():
            return _kind_of_folder(path)
        if not path.exists():
            raise ImageFileError(
                f"{path}: expected an image file, but there is none of this name. "
                "Check the path."
            )
        if not path.is_file():
            raise ImageFileError(
                f"{path}: expected a regular file, got a device or pipe. Save the "
                "image to a file first."
            )
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except (OSError, ValueError) as err:
        if isinstance(err, ImageFileError):
            raise
        raise ImageFileError(
            f"{path}: expected an image file that can be read, but opening it failed "
            f"({err}). Check the path and its permissions."
        ) from err
    kind = _kind_of_head(path, head)
    named = _KIND_OF_SUFFIX.get(path.suffix.lower())
    if named is not None and named != kind:
        better = path.with_suffix(_SUFFIXES[kind][0]).name
        raise ImageFileError(
            f"{path}: expected a {named} image from its name, got a {kind} image. "
            f"Rename it to {better!r}, or save it as {named}."
        )
    return kind


def _kind_of_folder(path: Path) -> str:
    if any((path / name).is_file() for name in _ZARR_FILES):
        return "zarr"
    raise ImageFileError(
        f"{path}: expected an image file or a zarr folder, got a folder without zarr "
        "metadata. Name one of the files in it."
    )


def _kind_of_head(path: Path, head: bytes) -> str:
    if not head:
        raise ImageFileError(
            f"{path}: expected an image, got an empty file. Copy or export it again."
        )
    for signature, kind in _SIGNATURES:
        if head.startswith(signature):
            return kind
    if _has_late_hdf5_signature(path):
        return "HDF5"
    content = next((what for start, what in _FOREIGN if head.startswith(start)), None)
    if content is None and head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        content = "a WebP picture"
    if content is None:
        content = "text" if _is_text(head) else "content of an unknown kind"
    raise ImageFileError(
        f"{path}: expected {_READABLE}, got {content}. Open it where it was made and "
        "export it as TIFF."
    )


def _has_late_hdf5_signature(path: Path) -> bool:
    # HDF5 may follow a block of 512, 1024, ... bytes of its user (MATLAB writes one).
    with path.open("rb") as file:
        for at in (512, 1024, 2048):
            file.seek(at)
            if file.read(8) == _HDF5_SIGNATURE:
                return True
    return False


def _is_text(head: bytes) -> bool:
    if b"\0" in head:
        return False
    try:
        head[: _HEAD_BYTES - 4].decode()  # the end may cut a character
    except UnicodeDecodeError as err:
        return err.start > 0 and err.reason == "unexpected end of data"
    return True
