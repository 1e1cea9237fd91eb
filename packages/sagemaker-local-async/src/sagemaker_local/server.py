"""The HTTP server: werkzeug's, with limits on connections and on how long a request may take."""

from __future__ import annotations

import io
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

# There are no more connections at the same time; the next ones wait until one ends.
CONNECTIONS = 256
# A connection without a request is closed after so long.
IDLE_SECONDS = 20.0
# From its first byte on, a request has to arrive within this time.
REQUEST_SECONDS = 60.0
# An answer has to be taken within this time.
ANSWER_SECONDS = 60.0


class RequestReader(io.RawIOBase):
    """What a client sends, for one request.

    A timeout of the socket alone begins anew with each byte, so that a client could take any time.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        # time.monotonic() by which the request must be here; 0: it has not begun.
        self.deadline = 0.0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - any buffer
        """Raises TimeoutError."""
        seconds = IDLE_SECONDS
        if self.deadline:
            seconds = self.deadline - time.monotonic()
        if seconds <= 0:
            raise TimeoutError
        self.connection.settimeout(seconds)
        count = self.connection.recv_into(buffer)
        if not self.deadline:
            self.deadline = time.monotonic() + REQUEST_SECONDS
        self.connection.settimeout(ANSWER_SECONDS)
        return count


class RequestHandler(WSGIRequestHandler):
    """Handles one request of a connection, and logs no line for it."""

    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.rfile = io.BufferedReader(RequestReader(self.connection))

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


class Server(ThreadedWSGIServer):
    """One thread for each connection, and no more than CONNECTIONS of them."""

    request_queue_size = 128

    def __init__(self, host: str, port: int, app: WSGIApplication) -> None:
        super().__init__(host, port, app, RequestHandler)
        self.free = threading.BoundedSemaphore(CONNECTIONS)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        self.free.acquire()
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.free.release()
