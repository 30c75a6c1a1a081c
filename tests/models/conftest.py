"""What the tests of `models/` share: tiny checkpoints and a release server that can misbehave."""

from __future__ import annotations

import contextlib
import http.server
import io
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from models.config import Arch
from models.network import MobileNetV3


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@dataclass
class Release:
    """A folder of assets behind HTTP. What the first answers do wrong is queued in `faults`, one entry a request.

    A fault is an int (close the connection after so many bytes of the body), "stall" (send half, then nothing more) or
    None. `always` is the fault of every request once the queue is empty.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True  # whether a Range header is honoured
    status: int = 200
    faults: list[int | str | None] = field(default_factory=list)
    always: int | str | None = None
    announced: bool = True  # whether an answer says how long it is
    success: int | None = None  # status instead of 200 and 206
    redirect: str | None = None  # where the first request is sent
    shift: int = 0  # of the parts that are sent, in bytes
    paths: list[str] = field(default_factory=list)  # as requested, still quoted
    range_headers: list[str | None] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)


class _Handler(http.server.BaseHTTPRequestHandler):
    release: Release

    def do_GET(self) -> None:
        release = self.release
        release.paths.append(self.path)
        release.range_headers.append(self.headers.get("Range"))
        fault = release.faults.pop(0) if release.faults else release.always
        body = release.files.get(urllib.parse.unquote(self.path).removeprefix("/release/"))
        if release.redirect is not None:
            self.send_response(302)
            self.send_header("Location", release.redirect)
            self.end_headers()
            release.redirect = None
            return
        if fault == "drip headers":
            self.drip(b"HTTP/1.0 200 OK\r\n" + b"X: y\r\n" * 1000)
            return
        if release.status != 200 or body is None:
            self.send_error(404 if release.status == 200 else release.status)
            return
        start = 0
        if release.ranges and self.headers.get("Range"):
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-")) + release.shift
        self.send_response(release.success or (206 if start else 200))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if release.announced:
            self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        body = body[start:]
        if fault is None:
            self.wfile.write(body)
        elif fault == "drip":
            self.drip(body)
        elif fault == "stall":
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            release.released.wait(20)
        else:
            self.wfile.write(body[:fault])
        self.close_connection = True

    def drip(self, body: bytes) -> None:
        for byte in body:
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            if self.release.released.wait(0.05):
                return

    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # the other side has seen enough
            super().handle()


@pytest.fixture
def resources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The download folder of this test, not made yet; no proxy stands between the test and 127.0.0.1."""
    folder = tmp_path / "nested" / "resources"
    monkeypatch.setenv("EFFICIENTAT_RESOURCES", str(folder))
    monkeypatch.setenv("no_proxy", "*")
    return folder


@pytest.fixture
def release(resources: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Release]:
    state = Release()
    handler = type("Handler", (_Handler,), {"release": state})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}/release/"
    monkeypatch.setenv("EFFICIENTAT_RELEASE_URL", state.url)
    yield state
    state.released.set()
    server.shutdown()
    server.server_close()
    thread.join(5)


def _random_state(arch: Arch) -> dict[str, torch.Tensor]:
    state = MobileNetV3(arch).state_dict()
    for tensor in state.values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape) + 0.5)
        else:
            tensor.fill_(3)
    return state


def _pickled(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def random_state() -> Callable[[Arch], dict[str, torch.Tensor]]:
    """A function: architecture -> a state dict in which no tensor has its initial value."""
    return _random_state


@pytest.fixture(scope="session")
def pickled() -> Callable[[object], bytes]:
    """A function: anything -> the bytes that `torch.save` writes."""
    return _pickled


@pytest.fixture(scope="session")
def left_in() -> Callable[[Path], list[str]]:
    """A function: folder -> every file below it, hidden ones too."""
    return lambda folder: sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="session")
def mn01_state() -> dict[str, torch.Tensor]:
    """Weights as of mn01_as; tests must not change them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(101)
        return _random_state(Arch(527, 0.1))


@pytest.fixture(scope="session")
def mn01_bytes(mn01_state: dict[str, torch.Tensor]) -> bytes:
    return _pickled(mn01_state)
