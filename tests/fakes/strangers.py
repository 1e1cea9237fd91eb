"""Clients that a server has to survive: `python -m tests.fakes.strangers HOST:PORT KIND COUNT`.

They run in a process of their own, until it is killed, so that they do not slow down whoever
measures the server.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.fakes.servers import ROOT

Address = tuple[str, int]

BOUNDARY = b"x"
MULTIPART = b"multipart/form-data; boundary=" + BOUNDARY
MEGABYTE = 1 << 20


def head(content_type: bytes, length: int | None, path: bytes = b"/invocations") -> bytes:
    """Return the head of a POST; length: of the body, None for a chunked one."""
    framing = b"Transfer-Encoding: chunked" if length is None else b"Content-Length: %d" % length
    lines = [
        b"POST %s HTTP/1.1" % path,
        b"Host: server",
        b"Content-Type: " + content_type,
        framing,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def request(content_type: bytes, body: bytes) -> bytes:
    return head(content_type, len(body)) + body


def part(name: bytes, value: bytes) -> bytes:
    disposition = b'Content-Disposition: form-data; name="%s"' % name
    return b"--%s\r\n%s\r\n\r\n%s\r\n" % (BOUNDARY, disposition, value)


# What is sent at once by clients that stay connected, and then a byte a second.
SLOW = {
    "silent": (b"", b""),
    "half heads": (b"POST /invocations HTTP/1.1\r\nHost: server\r\nX-Half: ", b""),
    "trickled heads": (b"POST /invocations HTTP/1.1\r\nHost: server\r\nX-Slow: ", b"x"),
    "trickled bodies": (head(b"image/jpeg", 10 * MEGABYTE), b"x"),
    "half bodies": (head(b"image/jpeg", 10 * MEGABYTE) + bytes(100_000), b""),
    "trickled chunks": (head(b"image/jpeg", None), b"1\r\nx\r\n"),
    "answers never read": (b"GET / HTTP/1.1\r\nHost: server\r\n\r\n" * 400, b""),
}


# Whole requests that are expensive to read, made when they are needed.
FLOODS: dict[str, Callable[[], bytes]] = {
    "newlines as CSV": lambda: request(b"text/csv", b"\n" * (20 * MEGABYTE)),
    "newlines as JSON lines": lambda: request(b"application/jsonlines", b"\n" * (6 * MEGABYTE - 1)),
    "commas as CSV": lambda: request(b"text/csv", b"," * (6 * MEGABYTE - 1)),
    "rows of CSV": lambda: request(b"text/csv", b"a,b,c\n" * (MEGABYTE - 1)),
    "quotes as CSV": lambda: request(b"text/csv", b'"a\n' * (2 * MEGABYTE - 1)),
    "lists as JSON": lambda: request(b"application/json", b"[" + b"[]," * (31 * MEGABYTE) + b"[]]"),
    "small lists as JSON": lambda: request(b"application/json", b"[" + b"[]," * 87_000 + b"[]]"),
    "levels of JSON": lambda: request(b"application/json", b"[" * 50_000 + b"]" * 50_000),
    "form parts": lambda: request(MULTIPART, part(b"size", b"1") * 200_000 + b"--x--\r\n"),
    "newlines in a form": lambda: request(MULTIPART, part(b"content", b"\r\n" * (10 * MEGABYTE))),
    "heads in a form": lambda: request(MULTIPART, b"--x\r\n" + b"a: b\r\n" * (3 * MEGABYTE)),
    "small chunks": lambda: head(b"image/jpeg", None) + b"1\r\nx\r\n" * 200_000 + b"0\r\n\r\n",
    "long heads": lambda: b"GET / HTTP/1.1\r\n" + b"X: %s\r\n" % (b"x" * 8000) * 90 + b"\r\n",
    "many requests": lambda: b"GET /nothing HTTP/1.1\r\nHost: server\r\n\r\n" * 2000,
    "whole bodies": lambda: request(b"image/jpeg", bytes(20 * MEGABYTE)),
}

# Whole requests of many clients at the same moment, each in a connection of its own. True: the
# connections are new ones.
BURSTS = {"requests at once": False, "clients at once": True}
BURST_SECONDS = 1.0

KINDS = (*SLOW, *BURSTS, "connections", *FLOODS)


def stay_connected(address: Address, count: int, first: bytes, more: bytes) -> None:
    """Open `count` connections, and again those that the server closes."""
    connections: dict[int, socket.socket] = {}
    rounds = 0
    while True:
        started = time.monotonic()
        for number in range(count):
            try:
                if number not in connections:
                    connections[number] = connect(address, first)
                elif is_closed(connections[number]):
                    connections.pop(number).close()
                elif more:
                    connections[number].send(more)
            except OSError:
                if number in connections:
                    connections.pop(number).close()
        if rounds == 0:
            tell_that_it_began()
        rounds += 1
        time.sleep(max(0.0, 1 - (time.monotonic() - started)))


def connect(address: Address, first: bytes) -> socket.socket:
    connection = socket.socket()
    # So that an answer which nobody reads does not fit
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(5)
    connection.connect(address)
    connection.setblocking(False)
    if first:
        with contextlib.suppress(BlockingIOError):
            connection.send(first)
    return connection


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False


def connect_and_leave(address: Address) -> None:
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection(address, timeout=5).close()
        time.sleep(0.001)


def send_at_once(address: Address, count: int, are_new: bool) -> None:
    """Send a request through each of `count` connections, read the answers, and begin again."""
    data = request(b"application/json", b"{}")
    connections: list[socket.socket] = []
    if not are_new:
        connections = [connect(address, b"") for _ in range(count)]
    tell_that_it_began()
    while True:
        if are_new:
            connections = [begin_to_connect(address) for _ in range(count)]
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.send(data)
        deadline = time.monotonic() + BURST_SECONDS
        for connection in connections:
            wait_for_answer(connection, deadline)
            if are_new:
                connection.close()


def begin_to_connect(address: Address) -> socket.socket:
    connection = socket.socket()
    connection.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        connection.connect(address)
    return connection


def wait_for_answer(connection: socket.socket, deadline: float) -> None:
    connection.settimeout(max(0.001, deadline - time.monotonic()))
    with contextlib.suppress(OSError):
        connection.recv(65536)


def flood(address: Address, data: bytes) -> None:
    """Send `data` again and again, each time in a new connection, and read an answer."""
    while True:
        with contextlib.suppress(OSError), socket.create_connection(address, 60) as connection:
            connection.sendall(data)
            connection.recv(65536)


def attack(address: Address, kind: str, count: int) -> None:
    """Attack until this process is killed. count: of connections at a time."""
    if kind in SLOW:
        first, more = SLOW[kind]
        stay_connected(address, count, first, more)
        return
    if kind in BURSTS:
        send_at_once(address, count, BURSTS[kind])
        return
    if kind == "connections":
        targets: list[Callable[[], None]] = [lambda: connect_and_leave(address)] * count
    else:
        data = FLOODS[kind]()
        targets = [lambda: flood(address, data)] * count
    threads = [threading.Thread(target=target, daemon=True) for target in targets]
    for thread in threads:
        thread.start()
    tell_that_it_began()
    for thread in threads:
        thread.join()


def tell_that_it_began() -> None:
    print("attacking", flush=True)


@contextmanager
def strangers(url: str, kind: str, count: int) -> Iterator[None]:
    """Let strangers of a kind attack the server at `url`. The attack has begun when this yields."""
    command = [sys.executable, "-m", "tests.fakes.strangers"]
    command += [url.removeprefix("http://"), kind, str(count)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout
    try:
        process.stdout.readline()
        yield
    finally:
        assert process.poll() is None, f"the strangers themselves failed: {kind}"
        process.kill()
        process.wait()
        process.stdout.close()


if __name__ == "__main__":
    host, port = sys.argv[1].split(":")
    attack((host, int(port)), sys.argv[2], int(sys.argv[3]))
