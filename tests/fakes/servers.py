"""Real servers for tests that talk HTTP: gunicorn around any WSGI application, and a store."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TypeVar

import requests

from local.processes import free_port

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
GUNICORN_CONFIG = ROOT / "containers" / "serving" / "gunicorn.conf.py"

# Lets a server reach a store on this machine.
LOCAL = {"ALLOW_HTTP": "1", "ALLOW_PRIVATE_HOSTS": "1"}


class Store(ThreadingHTTPServer):
    """Stands in for S3, over HTTP: models read images there and put results and progress."""

    def __init__(self, handler: type[BaseHTTPRequestHandler] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), handler or StoreHandler)
        self.objects: dict[str, bytes] = {}
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def url(self, key: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{key}"


class StoreHandler(BaseHTTPRequestHandler):
    server: Store

    def do_GET(self) -> None:
        data = self.server.objects.get(self.key())
        self.answer(404 if data is None else 200, data or b"")

    def do_PUT(self) -> None:
        self.server.objects[self.key()] = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200)

    def key(self) -> str:
        return self.path[1:].partition("?")[0]

    def answer(self, status: int, data: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


class RecordingStore(Store):
    """Keeps what is PUT, remembers every PUT in order, and refuses the key "forbidden"."""

    def __init__(self) -> None:
        self.puts: list[tuple[str, bytes]] = []
        super().__init__(RecordingHandler)


class RecordingHandler(StoreHandler):
    server: RecordingStore

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if self.key() == "forbidden":
            self.answer(403)
            return
        self.server.objects[self.key()] = data
        # Before the answer, which lets the next PUT begin
        self.server.puts.append((self.key(), data))
        self.answer(200)


@dataclass
class Running:
    url: str
    process: subprocess.Popen[str] | subprocess.Popen[bytes]
    log: Path

    def post(self, **options: object) -> requests.Response:
        options.setdefault("timeout", 300)
        return requests.post(f"{self.url}/invocations", **options)  # type: ignore[arg-type]

    def ping(self) -> requests.Response:
        return requests.get(f"{self.url}/ping", timeout=10)

    def log_text(self) -> str:
        return self.log.read_text()

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)


@contextmanager
def gunicorn(
    application: str,
    folder: Path,
    wait: bool = True,
    environment: Mapping[str, str] | None = None,
    **more_environment: str,
) -> Iterator[Running]:
    """Run an application such as "containers.nst.service:app()" and stop it in the end.

    wait: until /ping answers 200, otherwise until it answers at all. Its log goes to `folder`.
    """
    log = folder / "server.log"
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "gunicorn", "--config", str(GUNICORN_CONFIG)]
    command += ["--bind", address, application]
    with open(log, "w") as sink:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **(environment or {}), **more_environment},
            stdout=sink,
            stderr=subprocess.STDOUT,
            text=True,
        )
    running = Running(f"http://{address}", process, log)
    try:
        try:
            wait_until(lambda: answers(running, wait), 60, "the server did not come up")
        except AssertionError as error:
            raise AssertionError(f"{error}; its log:\n{log.read_text()}") from None
        yield running
    finally:
        process.terminate()
        try:
            process.wait(40)
        finally:
            process.kill()


def answers(running: Running, healthy: bool) -> bool:
    try:
        return running.ping().status_code == 200 or not healthy
    except requests.RequestException:
        return False


def wait_until(check: Callable[[], T], seconds: float, otherwise: str) -> T:
    """Return the first true value of check(). Raises AssertionError(otherwise) after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := check():
            return value
        time.sleep(0.05)
    raise AssertionError(otherwise)
