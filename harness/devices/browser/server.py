"""Serve a page and the runtime's files on loopback, and wait for the page to call back."""

from __future__ import annotations

import queue
import secrets
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from harness.devices.browser.web_socket import WebSocket, accept_key

PAGE = Path(__file__).with_name("page")
_TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".wasm": "application/wasm",
}
_ISOLATION = {
    # Threads need it (SharedArrayBuffer), and so does a clock of 5 µs instead of 100.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class PageServer(ThreadingHTTPServer):
    """A server on a free port of this machine alone.

    Everything lies below a path that nobody can guess.

    Attributes:
        sockets: Pages that called back.
    """

    daemon_threads = True

    def __init__(self, runtime: Path) -> None:
        """Begin to serve the page and the runtime's files."""
        self.secret = secrets.token_urlsafe(16)
        self.folders = {"ort": runtime, "": PAGE}
        self.sockets: queue.Queue[WebSocket] = queue.Queue()
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def address(self) -> str:
        """Where the page is, with the slash at its end."""
        return f"http://127.0.0.1:{self.server_port}/{self.secret}/"

    def stop(self) -> None:
        """Serve nothing more, and free the port."""
        self.shutdown()
        self.server_close()

    def file(self, path: str) -> Path | None:
        """Return the file behind a request's path, if there is one."""
        _, secret, *parts = unquote(urlsplit(path).path).split("/")
        if secret != self.secret:
            return None
        top = parts[0] if parts[0] in self.folders else ""
        folder = self.folders[top].resolve()
        found = folder.joinpath(*(parts[1:] if top else parts)).resolve()
        found = found / "index.html" if found == folder else found
        return found if found.is_relative_to(folder) and found.is_file() else None

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - the base class's
        """Say nothing: a killed page breaks its connections."""


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 0

    def do_GET(self) -> None:
        """Send a file, or become a web socket."""
        if self.path == f"/{self.server.secret}/socket":
            self._upgrade()
            return
        found = self.server.file(self.path)
        if found is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        body = found.read_bytes()
        self.send_response(HTTPStatus.OK)
        kind = _TYPES.get(found.suffix, "application/octet-stream")
        for name, value in {
            "Content-Type": kind, "Content-Length": str(len(body)), **_ISOLATION
        }.items():  # fmt: skip
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _upgrade(self) -> None:
        key = self.headers.get("Sec-WebSocket-Key")
        if key is None:
            self.send_error(HTTPStatus.UPGRADE_REQUIRED)
            return
        self.send_response(HTTPStatus.SWITCHING_PROTOCOLS)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", accept_key(key))
        self.end_headers()
        self.close_connection = True
        found = WebSocket(self.connection, self.rfile)
        self.server.sockets.put(found)
        found.over.wait()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's
        """Say nothing: a page is no visitor."""
