"""An HTTP server that says whatever a test wants, byte by byte, right or wrong."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator

# What a source without an end stops at, so that a test that fails does end.
ENDLESS_BYTES = 192 << 20
ENDLESS_SECONDS = 20.0


class Peer:
    """One connection to the server, for the script that answers it."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.sent = 0
        self.received = 0

    def close(self) -> None:
        self.connection.close()

    def read_request(self) -> bytes:
        """Return the request up to its blank line, or to what came before the client left."""
        request = b""
        while b"\r\n\r\n" not in request:
            piece = self.connection.recv(65536)
            if not piece:
                break
            request += piece
        self.received += len(request)
        return request

    def read_slowly(self, size: int, pause: float) -> None:
        while piece := self.connection.recv(size):
            self.received += len(piece)
            time.sleep(pause)

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)
        self.sent += len(data)

    def send_forever(self, data: bytes, pause: float = 0.0) -> None:
        """Send `data` again and again, until the client has left."""
        end = time.monotonic() + ENDLESS_SECONDS
        while self.sent < ENDLESS_BYTES and time.monotonic() < end:
            self.send(data)
            time.sleep(pause)

    def wait_until_left(self) -> None:
        """Say nothing until the client has left."""
        self.connection.settimeout(ENDLESS_SECONDS)
        while self.connection.recv(65536):
            pass


Script = Callable[[Peer], None]


class HostileServer:
    """Runs `script` for each connection, in a thread of its own, and closes it afterwards.

    tls: what https:// needs.
    """

    def __init__(self, script: Script, tls: ssl.SSLContext | None = None) -> None:
        self.script = script
        self.tls = tls
        self.peers: list[Peer] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def sent(self) -> int:
        """The bytes that went to clients, or into the system's buffers on the way to them."""
        return sum(peer.sent for peer in self.peers)

    def close(self) -> None:
        # Only shutdown ends an accept() that waits
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for peer in self.peers:
            with contextlib.suppress(OSError):
                peer.connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                peer = Peer(connection)
                self.peers.append(peer)
                threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: Peer) -> None:
        with contextlib.suppress(OSError), contextlib.closing(peer):
            peer.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
            if self.tls is not None:
                peer.connection = self.tls.wrap_socket(peer.connection, server_side=True)
            self.script(peer)


@contextlib.contextmanager
def hostile_servers(
    tls: ssl.SSLContext | None = None,
) -> Iterator[Callable[[Script], HostileServer]]:
    """Yield a function that starts a server, and close them all at the end."""
    servers: list[HostileServer] = []

    def start(script: Script) -> HostileServer:
        servers.append(HostileServer(script, tls))
        return servers[-1]

    try:
        yield start
    finally:
        for server in servers:
            server.close()


def replying(*pieces: bytes) -> Script:
    """Return a script that reads the request, sends the pieces, and closes the connection."""

    def script(peer: Peer) -> None:
        peer.read_request()
        for piece in pieces:
            peer.send(piece)

    return script


def flooding(head: bytes, piece: bytes, pause: float = 0.0) -> Script:
    """Return a script that sends `head`, and then `piece` without end."""

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(head)
        peer.send_forever(piece, pause)

    return script
