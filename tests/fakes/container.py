"""A container that obeys its requests: `python -m tests.fakes.container PORT`, or within a test.

A request is JSON: "seconds" to work, "status" to answer with, "size" in bytes to add to the answer,
"chunked" for an answer without Content-Length, "headers" to add, "half" to break off in the middle.
The request itself comes back.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeContainer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int = 0, path: str = "") -> None:
        """Listen at the port, or at the Unix socket `path`."""
        if path:
            self.address_family = socket.AF_UNIX
        super().__init__(("127.0.0.1", port), Handler, bind_and_activate=False)
        if path:
            self.socket.bind(path)
        else:
            self.server_bind()
        self.server_activate()
        self.lock = threading.Lock()
        self.healthy = True
        self.ping_seconds = 0.0
        # The next three are guarded by lock
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.running = 0
        self.most = 0
        self.url = f"unix:{path}"
        if not path:
            self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeContainer

    def do_GET(self) -> None:
        time.sleep(self.server.ping_seconds)
        self.answer(200 if self.server.healthy else 503, b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        server = self.server
        with server.lock:
            headers = {key.lower(): value for key, value in self.headers.items()}
            server.requests.append((headers, body))
            server.running += 1
            server.most = max(server.most, server.running)
        try:
            wish: dict[str, Any] = json.loads(body)
        except ValueError:
            wish = {}
        time.sleep(wish.get("seconds", 0))
        with server.lock:
            server.running -= 1
        data = body + b" " * wish.get("size", 0)
        self.answer(
            wish.get("status", 200),
            data,
            wish.get("headers"),
            chunked=bool(wish.get("chunked")),
            half=bool(wish.get("half")),
        )

    def answer(
        self,
        status: int,
        data: bytes,
        headers: dict[str, str] | None = None,
        chunked: bool = False,
        half: bool = False,
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
            data = b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data)
        else:
            self.send_header("Content-Length", str(len(data)))
        if half:
            data = data[: len(data) // 2]
        # The other side may have given up, or be dead
        with contextlib.suppress(OSError):
            self.end_headers()
            self.wfile.write(data)
        self.close_connection = half

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    FakeContainer(int(sys.argv[1])).serve_forever()
