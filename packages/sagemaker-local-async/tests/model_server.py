"""A model server that does what its requests say: `python model_server.py PORT [JOURNAL]`.

A request is JSON, and every member may be left out:

    seconds   how long the model works
    status    the status of its answer, 200 by default
    size      bytes to add to the answer
    chunked   answer without Content-Length
    headers   headers to add to the answer
    half      close the connection in the middle of the answer
    stamp     add a number to the answer that no other answer has

The answer is the request itself, with its stamp. With JOURNAL, a file, the server writes a line
"n stamp" to it before each answer with a stamp; `n` is another member of the request.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class ModelServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int = 0, journal: Path | None = None) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.journal = journal
        self.healthy = True
        self.ping_seconds = 0.0
        self.lock = threading.Lock()
        # The headers, with their names in lower case, and the bodies of all requests.
        self.requests: list[tuple[dict[str, str], bytes]] = []  # guarded by lock
        # The number of requests at work, and the most that there ever were.
        self.running = 0  # guarded by lock
        self.most = 0  # guarded by lock

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Print nothing about a caller that was killed."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def headers_of(self, body: bytes) -> dict[str, str]:
        """Return the headers that came with this body."""
        with self.lock:
            return next(headers for headers, got in self.requests if got == body)

    def count(self, body: bytes) -> int:
        """Return how many requests had this body."""
        with self.lock:
            return sum(got == body for _, got in self.requests)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: ModelServer

    def do_GET(self) -> None:
        time.sleep(self.server.ping_seconds)
        status = 503
        if self.server.healthy:
            status = 200
        self.answer(status, b"", {})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        wish = read_wish(body)
        with self.at_work(body):
            time.sleep(wish.get("seconds", 0))
        data = body
        if wish.get("stamp"):
            data = self.stamp(wish)
        data += b" " * wish.get("size", 0)
        self.answer(wish.get("status", 200), data, wish)

    @contextlib.contextmanager
    def at_work(self, body: bytes) -> Iterator[None]:
        server = self.server
        headers = {name.lower(): value for name, value in self.headers.items()}
        with server.lock:
            server.requests.append((headers, body))
            server.running += 1
            server.most = max(server.most, server.running)
        yield
        with server.lock:
            server.running -= 1

    def stamp(self, wish: dict[str, Any]) -> bytes:
        stamped = wish | {"stamp": uuid.uuid4().hex}
        if self.server.journal:
            with open(self.server.journal, "a") as journal:
                journal.write(f"{wish.get('n')} {stamped['stamp']}\n")
        return json.dumps(stamped).encode()

    def answer(self, status: int, data: bytes, wish: Mapping[str, Any]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        for name, value in wish.get("headers", {}).items():
            self.send_header(name, value)
        if wish.get("chunked"):
            self.send_header("Transfer-Encoding", "chunked")
            data = b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data)
        else:
            self.send_header("Content-Length", str(len(data)))
        if wish.get("half"):
            data = data[: len(data) // 2]
            self.close_connection = True
        # The caller may have given up, or have been killed.
        with contextlib.suppress(OSError):
            self.end_headers()
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


def read_wish(body: bytes) -> dict[str, Any]:
    """Return the members of the request, and none for a body that is no JSON object."""
    try:
        wish = json.loads(body)
    except ValueError:
        return {}
    if not isinstance(wish, dict):
        return {}
    return wish


@contextlib.contextmanager
def running_model_server() -> Iterator[ModelServer]:
    """Run a model server in a thread of this process."""
    with ModelServer() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def main() -> None:
    journal = None
    if len(sys.argv) > 2:
        journal = Path(sys.argv[2])
    ModelServer(int(sys.argv[1]), journal).serve_forever()


if __name__ == "__main__":
    main()
