"""Fetch one file over HTTP: resumed when it broke off, checked, put in place at once.

Only this module opens connections, and only when a user asked for a download. It
knows nothing of backbones. What has arrived stays in `<file>.part` until the file is
whole and its hash is right; only then does it get its name.
"""

from __future__ import annotations

import errno
import http.client
import json
import logging
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from napari_alibi_seg._base import WeightsError
from napari_alibi_seg.features._hash import file_sha256

__all__ = ["Progress", "download_file"]

_logger = logging.getLogger(__name__)

Progress = Callable[[int, int | None], None]

_CHUNK_BYTES = 2**20
_TIMEOUT_S = 30.0
_ATTEMPTS = 5  # without a single new byte
_SHA256 = re.compile(r"^[0-9a-f]{64}$")
_REFUSED = (401, 403)
_LATER = (408, 425, 429, 500, 502, 503, 504)


class _BrokenError(Exception):
    """The connection failed in a way that another attempt may mend."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, keeps what they say of the file, shows the token to no one.

    The hub answers with a redirect to a file server; its headers carry the file's
    SHA-256, and the user's token is none of the file server's business.
    """

    def __init__(self) -> None:
        self.sha256: str | None = None

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Return the request that follows a redirect."""
        stated = (headers.get("X-Linked-ETag") or "").strip('"')
        if _SHA256.match(stated):
            self.sha256 = stated
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        here, there = (urllib.parse.urlsplit(u).netloc for u in (req.full_url, newurl))
        if new is not None and here != there:
            new.remove_header("Authorization")
        return new


@dataclass(frozen=True)
class _Source:
    """Where a file comes from."""

    opener: urllib.request.OpenerDirector
    url: str
    token: str | None


@dataclass(frozen=True)
class _Part:
    """A file on its way: what is there, and which version of it."""

    path: Path

    @property
    def note(self) -> Path:
        return self.path.with_name(self.path.name + ".json")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def validator(self) -> str | None:
        """Return the server's mark of the version that was begun."""
        try:
            return str(json.loads(self.note.read_text(encoding="utf-8"))["etag"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def download_file(
    url: str,
    target: Path,
    *,
    sha256: str | None = None,
    token: str | None = None,
    progress: Progress | None = None,
    pause_s: float = 1.0,
) -> str:
    """Fetch `url` to `target` and return the SHA-256 of the file.

    Parameters
    ----------
    url : str
        HTTP or HTTPS.
    target : Path
        Its folder is made. Replaced only by a whole and checked file.
    sha256 : str, optional
        What the file must hash to.
    token : str, optional
        Bearer token for the host of `url`, and for no other.
    progress : callable, optional
        Called with bytes there and bytes in all (None where the server does not say).
    pause_s : float
        Rest after an attempt that brought nothing; doubled each time.

    Raises
    ------
    WeightsError
        If the server refuses, does not have the file or cannot be reached, if the
        hash is wrong or the disk is full. What has arrived is kept, and the next
        call goes on from there.
    """
    part = _Part(target.with_name(target.name + ".part"))
    redirects = _Redirects()
    opener = urllib.request.build_opener(redirects)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _OnlyOne(part.path):
            source = _Source(opener, url, token)
            _fetch(source, part, progress, pause_s)
            digest = file_sha256(part.path)
            _check_hash(digest, [sha256, redirects.sha256], url, part)
            part.path.replace(target)
            part.note.unlink(missing_ok=True)
    except OSError as err:
        if isinstance(err, WeightsError):
            raise
        what = "The disk is full" if err.errno == errno.ENOSPC else "Cannot write"
        raise WeightsError(
            f"{what}: {str(target)!r} ({err}). What has arrived is kept; the next "
            "download goes on from there."
        ) from err
    return digest


class _OnlyOne:
    """Holds a lock file for as long as one process fetches into a part file."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + ".lock")

    def __enter__(self) -> None:
        self._file = self._path.open("a")
        try:
            import fcntl
        except ImportError:  # Windows refuses to replace a file that is open
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            self._file.close()
            raise WeightsError(
                f"Another process is already fetching {str(self._path.stem)!r}. Wait "
                "for it."
            ) from err

    def __exit__(self, *_: Any) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)


def _check_hash(digest: str, expected: list[str | None], url: str, part: _Part) -> None:
    for wanted in expected:
        if wanted is not None and digest != wanted:
            part.remove()
            raise WeightsError(
                f"What {url} sent has SHA-256 {digest}, expected {wanted}. It was "
                "deleted. Try again; if it stays so, the file was changed where it is "
                "published."
            )


def _fetch(
    source: _Source, part: _Part, progress: Progress | None, pause_s: float
) -> None:
    """Receive until the file is whole; give up when nothing more arrives."""
    idle = 0
    while True:
        before = part.size
        try:
            return _receive(source, part, progress)
        except _BrokenError as err:
            idle = 0 if part.size > before else idle + 1
            if idle == _ATTEMPTS:
                raise WeightsError(
                    f"Cannot fetch {source.url}: {err}, after {_ATTEMPTS} attempts. "
                    f"{part.size:,} bytes are kept; the next download goes on from "
                    "there. Without a connection, fetch the file elsewhere and give "
                    "its path."
                ) from err
            _logger.warning(
                "Download broke off after %d bytes (%s); going on.", part.size, err
            )
        if idle:
            time.sleep(pause_s * 2 ** (idle - 1))


def _receive(source: _Source, part: _Part, progress: Progress | None) -> None:
    """Take over one connection what is missing of the file."""
    headers = {"User-Agent": "napari-alibi-seg"}
    if source.token:
        headers["Authorization"] = f"Bearer {source.token}"
    validator = part.validator()
    if part.size and validator:  # without it, two versions could be spliced
        headers |= {"Range": f"bytes={part.size}-", "If-Range": validator}
    try:
        request = urllib.request.Request(source.url, headers=headers)
        with source.opener.open(request, timeout=_TIMEOUT_S) as response:
            _append(response, part, progress)
    except urllib.error.HTTPError as err:
        _judge(err, source.url, part)
    except (OSError, http.client.HTTPException) as err:
        if isinstance(err, OSError) and err.errno == errno.ENOSPC:
            raise
        raise _BrokenError(f"no connection ({getattr(err, 'reason', err)})") from err


def _judge(err: urllib.error.HTTPError, url: str, part: _Part) -> None:
    """Say what an HTTP error means: final, or worth another attempt."""
    if err.code in _REFUSED:
        raise WeightsError(
            f"The server refused {url} (HTTP {err.code}). Access to it has to be asked "
            "for: accept the licence on the repository's page, log in on this machine "
            "with `hf auth login`, and try again; or fetch the file with a browser and "
            "give its path."
        ) from err
    if err.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
        part.remove()
        raise _BrokenError("what had arrived does not belong to the file") from err
    if err.code in _LATER:
        raise _BrokenError(f"HTTP {err.code}") from err
    raise WeightsError(
        f"The server does not have {url} (HTTP {err.code}). If the file was moved, "
        "fetch it by hand and give its path."
    ) from err


def _append(response: Any, part: _Part, progress: Progress | None) -> None:
    resumed = response.status == http.client.PARTIAL_CONTENT
    done = part.size if resumed else 0
    length = response.headers.get("Content-Length")
    total = done + int(length) if length and length.isdigit() else None
    etag = response.headers.get("ETag")
    if not resumed:
        part.remove()
        if etag and not etag.startswith("W/"):
            part.note.write_text(json.dumps({"etag": etag}), encoding="utf-8")
    with part.path.open("ab") as file:
        while chunk := response.read(_CHUNK_BYTES):
            file.write(chunk)
            done += len(chunk)
            if progress is not None:
                progress(done, total)
    if total is not None and done != total:
        raise _BrokenError(f"it broke off at {done:,} of {total:,} bytes")
