"""Downloads of weights from the dock, against a stand-in server on this computer."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

pytest.importorskip("napari")
from qtpy.QtCore import Qt
from widgets.driver import QUIET, wait_until

from napari_alibi_seg._widgets._feature_flow import _arrived
from napari_alibi_seg.features import _registry, backbone_spec, cache_path, find_weights

pytestmark = [pytest.mark.gui, *(pytest.mark.filterwarnings(q) for q in QUIET)]

LEFT = Qt.MouseButton.LeftButton
MB = 1 << 20


class Server:
    """Sends `head` bytes of a file at once and the rest when it may go on."""

    def __init__(self, body: bytes) -> None:
        self.body, self.head, self.says_size = body, len(body), True
        self.go, self.ranges = threading.Event(), []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *args):
                pass

        self.httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.httpd.server_port}"
        threading.Thread(target=self.httpd.serve_forever, daemon=True).start()

    def answer(self, handler) -> None:
        asked = handler.headers.get("Range")
        self.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        handler.send_response(206 if asked else 200)
        handler.send_header("ETag", '"v1"')
        if self.says_size:
            handler.send_header("Content-Length", str(len(self.body) - start))
        handler.end_headers()
        handler.close_connection = True
        try:
            handler.wfile.write(self.body[start : self.head])
            handler.wfile.flush()
            if self.head < len(self.body):
                self.go.wait(20)
                handler.wfile.write(self.body[max(start, self.head) :])
        except (BrokenPipeError, ConnectionResetError):
            pass  # the dock does not want the rest


@pytest.fixture
def server(monkeypatch):
    """A server of a file, and a backbone "tiny" whose weights that is."""
    made = Server(np.random.default_rng(0).bytes(4 * MB + 7))
    row = {"title": "Tiny", "licence": "CC0-1.0", "repo": "me/tiny"}
    row |= {"file": "tiny.safetensors", "embed_dim": 64, "depth": 2, "num_heads": 1}
    row |= {"patch_size": 14, "registers": 4}
    rows = {**_registry._rows(), "tiny": _registry._row("tiny", row)}
    monkeypatch.setattr(_registry, "_rows", lambda: rows)
    monkeypatch.setenv("HF_ENDPOINT", made.url)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    yield made
    made.go.set()
    made.httpd.shutdown()
    made.httpd.server_close()


@pytest.fixture
def panel(server, driver):
    """The features panel of a dock that wants "tiny"."""
    made = driver.dock.features_panel
    wait_until(lambda: "tiny" in made.backbone.values, "the list of backbones")
    driver.dock.change_settings({"features": "vit", "backbone": "tiny"})
    wait_until(made.download.isVisible, "the download button")
    return made


def leftovers() -> list[str]:
    folder = cache_path(backbone_spec("tiny")).parent
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def test_a_download_makes_the_weights_be_there(qtbot, server, panel) -> None:
    qtbot.mouseClick(panel.download, LEFT)
    assert panel.wait.is_running
    wait_until(lambda: panel.extract.isEnabled(), "the weights")
    assert find_weights("tiny").read_bytes() == server.body
    assert "Its weights are here." in panel.about.text()
    assert panel.wait.note.text() == "The weights of tiny are here."


@pytest.mark.parametrize("says_size", [True, False], ids=["size said", "no size said"])
def test_a_silent_server_is_cancelled_and_nothing_half_is_taken(
    qtbot, server, panel, driver, says_size
) -> None:
    server.head, server.says_size = 2 * MB + 1, says_size
    qtbot.mouseClick(panel.download, LEFT)
    wait_until(lambda: "MB of tiny" in panel.wait.note.text(), "bytes")
    qtbot.mouseClick(panel.cancel, LEFT)
    assert not panel.wait.is_running
    again = "Stopped. What is done is kept: Download goes on from there."
    assert panel.wait.note.text() == again
    # the lane is free while the server is still silent
    wait_until(lambda: driver.dock.features.lanes[1].is_idle, "the lane")
    assert find_weights("tiny") is None
    assert "tiny.safetensors" not in leftovers()
    assert not panel.extract.isEnabled()

    # at once again: it waits for the one that was stopped, and ends
    qtbot.mouseClick(panel.download, LEFT)
    server.go.set()
    wait_until(lambda: panel.extract.isEnabled(), "the weights")
    assert find_weights("tiny").read_bytes() == server.body
    assert leftovers() == ["tiny.safetensors", "tiny.safetensors.json"]
    assert server.ranges == [None, f"bytes={3 * MB}-"]


def test_without_a_size_the_bar_is_empty_and_megabytes_are_told(
    qtbot, server, panel
) -> None:
    server.head, server.says_size = 2 * MB + 1, False
    qtbot.mouseClick(panel.download, LEFT)
    wait_until(lambda: panel.wait.note.text().startswith("2 MB of tiny"), "bytes")
    assert (panel.wait.bar.value(), panel.wait.bar.format()) == (0, "")
    server.go.set()
    wait_until(lambda: panel.extract.isEnabled(), "the weights")


@pytest.mark.parametrize(
    ("done", "total", "shown"),
    [
        (0, 88 * MB, (0, 88, "MB of x")),
        (MB // 2, MB // 2, (1, 1, "MB of x")),
        (5 * MB, 4 * MB, (5, 5, "MB of x")),
        (5 * MB, None, (0, 0, "5 MB of x are here; nobody says how many there are.")),
    ],
    ids=["begun", "less than one", "more than said", "size not said"],
)
def test_what_is_shown_of_a_download(done, total, shown) -> None:
    assert _arrived("x", done, total) == shown
