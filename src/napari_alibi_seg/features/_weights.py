"""Where weights lie on this machine, and how a named one gets there.

Only this module knows the cache: ``<cache>/weights/<backbone>/<file>``, with a small
JSON beside each downloaded file that pins its hash. Looking up never touches the
network; `download_weights` does, and only when called. The Hugging Face hub's own
cache is searched too. No torch: a list of backbones is there at once.
"""

from __future__ import annotations

import json
import os
import urllib.parse
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import platformdirs

from napari_alibi_seg._base import SettingsError, WeightsError
from napari_alibi_seg.features._download import Progress, download_file
from napari_alibi_seg.features._hash import file_sha256
from napari_alibi_seg.features._registry import BackboneSpec, backbone_spec

__all__ = [
    "FoundWeights",
    "cache_path",
    "download_weights",
    "find_weights",
    "require_weights",
]

_CACHE_VARIABLE = "ALIBI_SEG_CACHE"
_HUB_VARIABLE = "HF_ENDPOINT"
_HUB = "https://huggingface.co"


@dataclass(frozen=True, slots=True)
class FoundWeights:
    """A weights file whose hash was compared with all that is known about it.

    Attributes
    ----------
    path : Path
        Where it lies.
    sha256 : str
        Of the file.
    verified : bool
        Whether the hash is the one a public source states. Otherwise it is the one
        of the first download, or nobody knows better.
    """

    path: Path
    sha256: str
    verified: bool


def _cache_dir() -> Path:
    root = os.environ.get(_CACHE_VARIABLE)
    return Path(root or platformdirs.user_cache_dir("napari-alibi-seg")) / "weights"


def cache_path(spec: BackboneSpec) -> Path:
    """Return where the file of a named backbone lies, or would lie.

    Raises
    ------
    SettingsError
        If the backbone has no weights.
    """
    if spec.file is None:
        raise SettingsError(f"The backbone {spec.name!r} needs no weights.")
    return _cache_dir() / spec.name / Path(spec.file).name


def find_weights(name: str) -> Path | None:
    """Return the weights file of a named backbone if it is on this machine.

    Weights that ship are in the package; for others, looks into this package's cache,
    then into the Hugging Face hub's. Never connects.

    Raises
    ------
    SettingsError
        If there is no such backbone.

    Examples
    --------
    >>> find_weights("classical") is None
    True
    """
    spec = backbone_spec(name)
    if spec.file is None:
        return None
    if spec.bundled:
        return _bundled(spec)
    own = cache_path(spec)
    if own.is_file():
        return own
    return _in_hub_cache(spec.repo, spec.file) if spec.repo else None


def _bundled(spec: BackboneSpec) -> Path | None:
    path = Path(str(files(__package__))) / "weights" / (spec.file or "")
    return path if path.is_file() else None


def _in_hub_cache(repo: str, file: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo_id=repo, filename=file)
    return Path(found) if isinstance(found, str) else None


def require_weights(name: str) -> FoundWeights:
    """Return the checked weights file of a named backbone.

    Raises
    ------
    WeightsError
        If it is not here, or not what it was; the message says what to do.
    SettingsError
        If there is no such backbone, or it needs no weights.
    """
    spec = backbone_spec(name)
    path = find_weights(name)
    if path is None:
        raise WeightsError(_how_to_get(spec))
    digest = file_sha256(path)
    for expected, whose in (
        (spec.sha256, "that is published for it"),
        (_recorded(path), "that was recorded when it was downloaded"),
    ):
        if expected is not None and digest != expected:
            raise WeightsError(
                f"The weights {str(path)!r} have SHA-256 {digest}, not {expected} "
                f"{whose}. {_how_to_mend(spec)}"
            )
    return FoundWeights(path, digest, spec.sha256 is not None)


def _how_to_mend(spec: BackboneSpec) -> str:
    if spec.bundled:
        return "Install the package again."
    return (
        "Delete the file and fetch it again with `alibi-seg models --download "
        f"{spec.name}`."
    )


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _recorded(path: Path) -> str | None:
    """Return the hash recorded at the first download, if the file was downloaded."""
    sidecar = _sidecar(path)
    if not sidecar.is_file():
        return None
    try:
        return str(json.loads(sidecar.read_text(encoding="utf-8"))["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise WeightsError(
            f"The record {str(sidecar)!r} of a download cannot be read ({err}). "
            f"Delete it and {path.name!r}, and fetch the weights again."
        ) from err


def _how_to_get(spec: BackboneSpec) -> str:
    if spec.bundled:
        return (
            f"The weights {spec.file!r} of {spec.name!r} belong to this package and "
            "are not there: the installation is incomplete. Install it again."
        )
    size = f" ({spec.size_mb} MB)" if spec.size_mb else ""
    also = f" The same weights are in {spec.also!r} on the hub." if spec.also else ""
    gated = ""
    if spec.gated:
        gated = (
            f" Licence: {spec.licence}. The authors' own repository {spec.gated!r} is "
            "gated: to use it, accept the licence on its page, wait for access, log in "
            "with `hf auth login` or fetch the file by hand, and give its path."
        )
    return (
        f"The weights of {spec.name!r} are not on this machine. Expected the file "
        f"{spec.file!r}{size} of {spec.source} at {str(cache_path(spec))!r}. Fetch it "
        f"with `alibi-seg models --download {spec.name}`, or put it there by hand, or "
        f"give the path of a copy instead of the name.{also}{gated} Nothing is "
        "downloaded unasked."
    )


def _url(spec: BackboneSpec) -> str:
    if spec.url is not None:
        return spec.url
    hub = (os.environ.get(_HUB_VARIABLE) or _HUB).rstrip("/")
    return f"{hub}/{spec.repo}/resolve/main/{urllib.parse.quote(spec.file or '')}"


def _token(spec: BackboneSpec) -> str | None:
    if spec.url is not None:
        return None
    from huggingface_hub import get_token

    return get_token()


def download_weights(name: str, *, progress: Progress | None = None) -> Path:
    """Fetch the weights of a named backbone into the cache and return their path.

    Does nothing if the right file is there. For a denoised backbone, fetches the
    weights of the backbone below first.

    Parameters
    ----------
    name : str
        From `list_backbones`.
    progress : callable, optional
        Called with bytes there and bytes in all (None where the server does not say).

    Raises
    ------
    WeightsError
        If the file cannot be had, or is not what it should be.
    SettingsError
        If there is no such backbone, or it needs no weights.
    """
    spec = backbone_spec(name)
    if spec.bundled:
        return require_weights(name).path
    if spec.base is not None:
        download_weights(spec.base, progress=progress)
    target = cache_path(spec)
    if target.is_file():
        return require_weights(name).path
    try:
        digest = download_file(
            _url(spec),
            target,
            sha256=spec.sha256,
            token=_token(spec),
            progress=progress,
        )
    except WeightsError as err:
        gated = f" The authors' repository is {spec.gated!r}." if spec.gated else ""
        raise WeightsError(f"{name!r}: {err}{gated}") from err
    _record(target, spec, digest)
    return target


def _record(target: Path, spec: BackboneSpec, digest: str) -> None:
    """Pin the hash of a downloaded file beside it."""
    record = {
        "backbone": spec.name,
        "file": spec.file,
        "source": spec.source,
        "sha256": digest,
        "bytes": target.stat().st_size,
        "verified": spec.sha256 is not None,
    }
    sidecar = _sidecar(target)
    new = sidecar.with_name(sidecar.name + ".new")
    new.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    new.replace(sidecar)
