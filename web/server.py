"""A server of the page for this machine alone."""

from __future__ import annotations

import urllib.parse
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from models.errors import UserError

HOST = "127.0.0.1"
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; style-src 'self'; "
    "img-src 'self' data:; media-src 'self' blob:; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",  # with the next one: the page may measure its own memory
    "Cross-Origin-Embedder-Policy": "require-corp",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # browsers ask whether a file has changed
}


class SiteServer(ThreadingHTTPServer):
    """Serves files at their paths, and nothing else; browsers of this machine alone reach it."""

    daemon_threads = True

    def __init__(self, files: dict[str, Path], port: int) -> None:
        """`files` of `site.site_files`; port 0 is a free one. Raises `UserError` where the port is taken."""
        self.files = files
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise UserError(f"port {port} of this machine cannot be used ({error.strerror}); choose another with --port") from error

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_address[1]}/"


class _Handler(SimpleHTTPRequestHandler):
    server: SiteServer
    protocol_version = "HTTP/1.1"
    extensions_map = {
        ".html": "text/html; charset=utf-8",
        ".css": "text/css; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".mjs": "text/javascript; charset=utf-8",
        ".wasm": "application/wasm",
        ".svg": "image/svg+xml",
        ".ogg": "audio/ogg",
        ".md": "text/plain; charset=utf-8",
        ".txt": "text/plain; charset=utf-8",
        ".onnx": "application/octet-stream",
        "": "text/plain; charset=utf-8",  # LICENSE
    }

    def translate_path(self, path: str) -> str:
        """Return the file at a path, by its exact name in the list; a name that is not there is no file."""
        name = urllib.parse.unquote(path.partition("?")[0]).lstrip("/") or "index.html"
        return str(self.server.files.get(name, f"{__file__}/missing"))

    def end_headers(self) -> None:
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not printed."""
