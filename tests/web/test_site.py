"""The page's files, the server of them, and a copy for static hosts. No browser."""

from __future__ import annotations

import http.client
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from web import __main__ as command
from web import site
from web.runtime import GRAPHICS, RUNTIME
from web.server import HEADERS, HOST, POLICY, SiteServer
from web.site import STATIC


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """The site with stand-ins for ONNX Runtime, which is not downloaded."""
    folder = tmp_path_factory.mktemp("runtime")
    runtime = [folder / Path(name).name for name in RUNTIME.files]
    for path in runtime:
        path.write_bytes(b"stand-in")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(site, "fetch", lambda: runtime)
        yield site.site_files()


@pytest.fixture(scope="module")
def server(files: dict[str, Path]) -> Iterator[SiteServer]:
    with SiteServer(files, 0) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def get(server: SiteServer, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(HOST, server.server_address[1], timeout=10)
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    result = response.status, {name.title(): value for name, value in response.getheaders()}, response.read()
    connection.close()
    return result


def test_every_file_is_served_with_its_type_and_the_headers(server: SiteServer) -> None:
    types = {".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".css": "text/css"}
    types |= {".wasm": "application/wasm", ".svg": "image/svg+xml", ".ogg": "audio/ogg", ".onnx": "application/octet-stream"}
    for name, path in server.files.items():
        status, headers, _ = get(server, f"/{name}", "HEAD")
        assert status == 200 and int(headers["Content-Length"]) == path.stat().st_size, name
        assert headers["Content-Type"].partition(";")[0] == types.get(path.suffix, "text/plain"), name
        assert HEADERS.items() <= headers.items()
    assert get(server, "/")[2] == (STATIC / "index.html").read_bytes()


@pytest.mark.parametrize(
    "path", ["/missing.js", "/../server.py", "/%2e%2e/server.py", "//etc/passwd", "/view", "/view/", "/main.js/", "/a%00b"]
)
def test_nothing_else_is_served(server: SiteServer, path: str) -> None:
    assert get(server, path)[0] == 404


def test_what_has_not_changed_is_not_sent_again(server: SiteServer) -> None:
    modified = get(server, "/main.js")[1]["Last-Modified"]
    status, _, content = get(server, "/main.js", **{"If-Modified-Since": modified})
    assert (status, content) == (304, b"")


def test_the_page_itself_has_the_policy_of_the_header() -> None:
    """For hosts that send no such header; frame-ancestors works in a header only."""
    [policy] = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', (STATIC / "index.html").read_text())
    assert policy == POLICY.removesuffix("; frame-ancestors 'none'")


def test_the_service_worker_keeps_every_file_but_licences_and_what_few_people_need(files: dict[str, Path]) -> None:
    listed = re.findall(r'^  "(.+)",$', (STATIC / "service_worker.js").read_text(), re.MULTILINE)
    left_out = {"index.html", "service_worker.js", *(name for name in files if name.startswith("licences/"))}
    left_out |= {f"runtime/{Path(name).name}" for name in GRAPHICS}
    assert set(listed) - {"./"} == set(files) - left_out and len(listed) == len(set(listed))


def test_addresses_in_the_page_are_relative_and_lead_to_files(files: dict[str, Path]) -> None:
    for path in STATIC.rglob("*.*"):
        if path.suffix not in (".html", ".css", ".js"):
            continue
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"""(?:src|href)="(?:/|https?:)|url\(|import\W+["'](?:/|https?:)""", text), path
        for target in re.findall(r'(?:from|import) "(\.[^"]+)"|(?:src|href)="([^"]+)"', text):
            resolved = (path.parent / "".join(target)).resolve().relative_to(STATIC)
            assert resolved.as_posix() in files, f"{path}: {target}"


def test_a_copy_for_static_hosts_is_complete(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], failing_message
) -> None:
    folder = tmp_path / "copy"
    assert command.main(["--output", str(folder)]) == 0
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == set(files)
    assert all((folder / name).read_bytes() == path.read_bytes() for name, path in files.items())
    capsys.readouterr()
    assert str(folder) in failing_message(command.main, "--output", folder)


def test_a_port_that_is_taken_is_one_line(server: SiteServer, failing_message) -> None:
    assert str(server.server_address[1]) in failing_message(command.main, "--port", server.server_address[1])
