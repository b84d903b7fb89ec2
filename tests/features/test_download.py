"""Downloads against a stand-in server: resume, refusal, wrong hashes, a full disk."""

from __future__ import annotations

import errno
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from napari_alibi_seg._base import SettingsError, WeightsError
from napari_alibi_seg.features import _download as download_module
from napari_alibi_seg.features import _registry as registry_module
from napari_alibi_seg.features import (
    cache_path,
    download_weights,
    find_weights,
    load_backbone,
)
from napari_alibi_seg.features._download import download_file
from napari_alibi_seg.features._weights import require_weights

BODY = np.random.default_rng(0).bytes(3_000_000)
DIGEST = hashlib.sha256(BODY).hexdigest()


class Server:
    """Serves BODY; `plan` holds what happens to the next requests, then all is well."""

    def __init__(self):
        self.plan = []
        self.requests = []
        self.body = BODY
        self.etag = '"v1"'
        self.always = None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.requests.append((self.path, dict(self.headers)))
                step = outer.plan.pop(0) if outer.plan else outer.always
                outer.answer(self, step)

            def log_message(self, *args):
                pass

        self.httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.httpd.server_port}"
        threading.Thread(target=self.httpd.serve_forever, daemon=True).start()

    def answer(self, handler, step):
        if isinstance(step, tuple) and step[0] == "redirect":
            handler.send_response(302)
            handler.send_header("Location", step[1])
            for key, value in step[2].items():
                handler.send_header(key, value)
            handler.end_headers()
            return
        if isinstance(step, int):
            handler.send_error(step)
            return
        start = 0
        ranged = handler.headers.get("Range")
        if ranged and handler.headers.get("If-Range") == self.etag:
            start = int(ranged.removeprefix("bytes=").removesuffix("-"))
            if start >= len(self.body):
                handler.send_error(416)
                return
            handler.send_response(206)
            end = len(self.body)
            handler.send_header("Content-Range", f"bytes {start}-{end - 1}/{end}")
        else:
            handler.send_response(200)
        handler.send_header("Content-Length", str(len(self.body) - start))
        if self.etag:
            handler.send_header("ETag", self.etag)
        handler.end_headers()
        stop = len(self.body) if step is None else start + step[1]
        handler.wfile.write(self.body[start:stop])
        handler.close_connection = True


@pytest.fixture
def server():
    s = Server()
    yield s
    s.httpd.shutdown()
    s.httpd.server_close()


@pytest.fixture
def fetch(server, tmp_path):
    """Fetch the server's file, without pauses."""

    def run(**kwargs):
        target = tmp_path / "out" / "w.bin"
        digest = download_file(f"{server.url}/w.bin", target, pause_s=0, **kwargs)
        return digest, target

    return run


def ranges(server):
    return [headers.get("Range") for _, headers in server.requests]


def test_a_whole_file(server, fetch, tmp_path):
    seen = []
    digest, target = fetch(
        sha256=DIGEST, progress=lambda done, total: seen.append((done, total))
    )
    assert digest == DIGEST
    assert target.read_bytes() == BODY
    assert [p.name for p in target.parent.iterdir()] == ["w.bin"]  # nothing left over
    assert seen[-1] == (len(BODY), len(BODY))
    assert seen == sorted(seen)


def test_a_connection_that_breaks_is_resumed(server, fetch):
    server.plan = [("cut", 1_000_000), ("cut", 500_000)]
    seen = []
    digest, target = fetch(progress=lambda done, total: seen.append((done, total)))
    assert digest == DIGEST
    assert target.read_bytes() == BODY
    assert ranges(server) == [None, "bytes=1000000-", "bytes=1500000-"]
    assert {total for _, total in seen} == {len(BODY)}
    assert seen == sorted(seen)


def test_a_download_goes_on_in_the_next_run(server, fetch):
    server.plan, server.always = [("cut", 1_000_000)], 503
    with pytest.raises(WeightsError, match=r"HTTP 503.*1,000,000 bytes are kept"):
        fetch()
    server.always = None
    server.requests.clear()
    digest, target = fetch()
    assert digest == DIGEST
    assert ranges(server) == ["bytes=1000000-"]
    assert target.read_bytes() == BODY


def test_a_file_that_changed_meanwhile_is_not_spliced(server, fetch):
    server.plan, server.always = [("cut", 1_000_000)], 503
    with pytest.raises(WeightsError):
        fetch()
    server.always = None
    server.body, server.etag = BODY[::-1], '"v2"'
    digest, target = fetch()
    assert target.read_bytes() == BODY[::-1]
    assert digest == hashlib.sha256(BODY[::-1]).hexdigest()


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_mark_of_the_version_it_starts_anew(server, fetch, etag):
    server.etag = etag
    server.plan = [("cut", 1_000_000)]
    _, target = fetch()
    assert target.read_bytes() == BODY
    assert ranges(server) == [None, None]


def test_a_part_longer_than_the_file(server, fetch, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "w.bin.part").write_bytes(BODY + b"more")
    (folder / "w.bin.part.json").write_text(json.dumps({"etag": server.etag}))
    _, target = fetch()
    assert target.read_bytes() == BODY


def test_a_wrong_hash_leaves_nothing(server, fetch, tmp_path):
    with pytest.raises(WeightsError, match=f"SHA-256 {DIGEST}, expected 0000"):
        fetch(sha256="0" * 64)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("code", [401, 403])
def test_refused(fetch, server, code):
    server.always = code
    with pytest.raises(WeightsError, match=f"HTTP {code}.*accept the licence.*hf auth"):
        fetch()
    assert len(server.requests) == 1  # asking again would not help


def test_not_there(fetch, server):
    server.always = 404
    with pytest.raises(WeightsError, match=r"does not have .*HTTP 404"):
        fetch()
    assert len(server.requests) == 1


def test_no_connection(tmp_path):
    with pytest.raises(WeightsError, match=r"no connection.*fetch the file elsewhere"):
        download_file("http://127.0.0.1:9/x", tmp_path / "x", pause_s=0)


def test_passing_trouble_is_waited_for(fetch, server):
    server.plan = [503, 429, 500]
    assert fetch()[0] == DIGEST


def test_the_token_goes_to_the_hub_and_to_no_file_server(server, tmp_path):
    files = Server()
    try:
        hub_says = {"X-Linked-ETag": f'"{DIGEST}"'}
        server.plan = [("redirect", f"{files.url}/blob", hub_says)]
        target = tmp_path / "w"
        download_file(f"{server.url}/w", target, token="secret", pause_s=0)
        assert target.read_bytes() == BODY
        assert server.requests[0][1]["Authorization"] == "Bearer secret"
        assert "Authorization" not in files.requests[0][1]
    finally:
        files.httpd.shutdown()
        files.httpd.server_close()


def test_the_hash_that_the_hub_states_is_checked(server, tmp_path):
    says = {"X-Linked-ETag": f'"{"1" * 64}"'}
    server.plan = [("redirect", f"{server.url}/blob", says)]
    with pytest.raises(WeightsError, match=f"SHA-256 {DIGEST}, expected 1111"):
        download_file(f"{server.url}/w", tmp_path / "w", pause_s=0)


def test_a_full_disk(fetch, server, monkeypatch):
    def full(response, part, progress):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download_module, "_append", full)
    with pytest.raises(WeightsError, match=r"The disk is full.*goes on from there"):
        fetch()


def test_a_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WeightsError, match="Cannot write"):
        download_file(server.url, tmp_path / "file" / "x", pause_s=0)


def test_two_processes_do_not_write_one_file(fetch, server, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    (tmp_path / "out").mkdir()
    with (tmp_path / "out" / "w.bin.part.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(WeightsError, match="Another process is already fetching"):
            fetch()
    assert fetch()[0] == DIGEST


# --- a named backbone


@pytest.fixture
def tiny(server, monkeypatch, empty_cache, make_vit, tmp_path):
    """A row whose hub is the stand-in server, with real weights."""
    import torch

    path = tmp_path / "tiny.pth"
    torch.save(make_vit("dinov2-reg").state_dict(), path)
    server.body = path.read_bytes()
    common = {"licence": "CC0-1.0", "embed_dim": 64, "depth": 2, "num_heads": 1}
    row = {**common, "title": "t", "repo": "me/tiny", "file": "sub dir/t.pth"}
    row |= {"patch_size": 14, "registers": 4}
    specs = dict(registry_module._rows())
    specs["tiny"] = registry_module._row("tiny", row)
    below = {"title": "d", "kind": "denoised", "base": "tiny", "licence": "MIT"}
    below |= {"repo": "me/dvt", "file": "d.pth"}
    specs["tiny-dvt"] = registry_module._row("tiny-dvt", below)
    monkeypatch.setattr(registry_module, "_rows", lambda: specs)
    monkeypatch.setenv("HF_ENDPOINT", server.url + "/")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "mine")
    monkeypatch.setattr(download_module.time, "sleep", lambda s: None)
    return specs


def test_download_of_a_name(tiny, server):
    assert find_weights("tiny") is None
    path = download_weights("tiny")
    assert path == find_weights("tiny") == cache_path(tiny["tiny"])
    assert server.requests[0][0] == "/me/tiny/resolve/main/sub%20dir/t.pth"
    assert server.requests[0][1]["Authorization"] == "Bearer mine"
    digest = hashlib.sha256(server.body).hexdigest()
    record = json.loads(path.with_name("t.pth.json").read_text())
    assert record == {
        "backbone": "tiny",
        "file": "sub dir/t.pth",
        "source": "the Hugging Face repository 'me/tiny'",
        "sha256": digest,
        "bytes": len(server.body),
        "verified": False,
    }
    backbone = load_backbone("tiny", device="cpu")
    assert backbone.identity["sha256"] == digest
    assert backbone.identity["status"] == "unverified"
    # a second call has nothing to do
    download_weights("tiny")
    assert len(server.requests) == 1
    # the file changed under us
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    for use in (download_weights, require_weights, load_backbone):
        with pytest.raises(WeightsError, match="recorded when it was downloaded"):
            use("tiny")


def test_download_checks_the_published_hash(tiny, server):
    digest = hashlib.sha256(server.body).hexdigest()
    tiny["tiny"] = tiny["tiny"].model_copy(update={"sha256": "0" * 64})
    with pytest.raises(WeightsError, match=r"'tiny': What .* expected 0000"):
        download_weights("tiny")
    assert find_weights("tiny") is None
    tiny["tiny"] = tiny["tiny"].model_copy(update={"sha256": digest})
    download_weights("tiny")
    assert require_weights("tiny").verified is True


def test_download_of_a_denoised_name_fetches_both(tiny, server):
    calls = []
    download_weights("tiny-dvt", progress=lambda done, total: calls.append(done))
    assert [path for path, _ in server.requests] == [
        "/me/tiny/resolve/main/sub%20dir/t.pth",
        "/me/dvt/resolve/main/d.pth",
    ]
    assert calls.count(len(server.body)) == 2


def test_download_of_a_gated_name(tiny, server):
    server.always = 403
    tiny["tiny"] = tiny["tiny"].model_copy(update={"gated": "owner/original"})
    with pytest.raises(WeightsError, match=r"accept the licence.*'owner/original'"):
        download_weights("tiny")
    assert find_weights("tiny") is None


def test_download_of_what_needs_no_weights():
    with pytest.raises(SettingsError, match="needs no weights"):
        download_weights("classical")
    with pytest.raises(SettingsError, match="There is no backbone called"):
        download_weights("nothing-like-it")
