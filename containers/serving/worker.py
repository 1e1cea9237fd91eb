"""gunicorn's worker for event loops, with limits for what a connection may do.

gunicorn waits for a request's head, and for a client to take its answer, as long as the connection
lives, and it reads a quarter of a megabyte at once. With these limits, strangers hold up nobody.

Another process accepts the connections and answers GET /ping: see door.py.

A model that is broken for good, as after a CUDA error, ends its process: gunicorn starts another
one, which gets a CUDA context of its own. If that one breaks soon too, the fault is in the GPU or
in its driver: then gunicorn ends, and with it the container, so that it is replaced.
"""

import asyncio
import contextlib
import os
import resource
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from gunicorn.arbiter import Arbiter
from gunicorn.asgi.protocol import ASGIProtocol
from gunicorn.workers import gasgi

from containers.common import memory
from containers.common.log import write_log

from . import limits
from .decoder import environment
from .front import Client, Front, current_client

ROOT = Path(__file__).parents[2]

# What is read from one connection before it is another one's turn. gunicorn's parser, in Python,
# takes up to a microsecond for each byte of a head or of small chunks.
READ_BYTES = 2 << 10
# The same for a body of known length, which needs no parsing.
READ_BODY_BYTES = 64 << 10
# More connections than that are not held: the oldest idle one has to leave.
MAX_CONNECTIONS = 2048
# Files that the process needs besides its connections.
OTHER_FILES = 256
# In which a client must have taken the rest of its answer once the connection is being closed.
CLOSING_SECONDS = 10
SWEEP_SECONDS = 1.0
# How soon the door learns that /ping has another answer.
HEALTH_SECONDS = 0.1
# Connections that come from the door before it is the turn of those that are here.
CONNECTIONS_A_TURN = 8
# A process that was started after a fault and breaks sooner than this has the same fault.
RELAPSE_SECONDS = 600
# gunicorn replaces a process that exits with this.
REPLACE_PROCESS = 1
# With this gunicorn itself ends.
END_CONTAINER: int = Arbiter.WORKER_BOOT_ERROR
# Python's own value is 0.005.
SWITCH_SECONDS = 0.0005
# After the end of what a client sends: when to look whether it is still there, see `eof_received`.
PROBE_SECONDS = (0.2, 1.0, 5.0)
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Connection(ASGIProtocol, asyncio.BufferedProtocol):  # type: ignore[misc]  # it has no types
    """One connection, in gunicorn's hands, with limits."""

    def __init__(self, worker: "Worker") -> None:
        super().__init__(worker)
        self.client = Client()
        self.opened = worker.loop.time()
        self.closing_since: float | None = None

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - asyncio's transport
        self.client.close = transport.close
        self.client.abort = self.reset
        self.worker.make_room()
        self.worker.connections[self] = None
        # The tasks that gunicorn starts now will see it
        current_client.set(self.client)
        super().connection_made(transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where asyncio writes what it receives next; its size limits a turn's work."""
        exchange = self.client.exchange
        buffer: memoryview = self.worker.read_buffer
        if exchange is not None and exchange.reading_plain_body:
            return buffer
        return buffer[:READ_BYTES]

    def buffer_updated(self, count: int) -> None:
        try:
            self.data_received(bytes(self.worker.read_buffer[:count]))
        except ValueError:  # gunicorn does not expect a Content-Length of thousands of digits
            self.transport.write(BAD_REQUEST)
            self.transport.close()

    def eof_received(self) -> bool:
        """Keep the connection: the client may only have ended its side, to wait for the answer.

        TCP does not tell that from a client that has left. So the client gets an interim answer,
        which HTTP lets it ignore. If it has left, its machine resets the connection, which the
        next write finds out.
        """
        self.look_for_client(0)
        return True

    def look_for_client(self, number: int) -> None:
        delay = PROBE_SECONDS[min(number, len(PROBE_SECONDS) - 1)]
        self.worker.loop.call_later(delay, self.probe, number)

    def probe(self, number: int) -> None:
        if self.client.gone.is_set() or self.transport.is_closing():
            return
        exchange = self.client.exchange
        if exchange is None:
            self.transport.close()
            return
        if not exchange.complete and number > 1:
            # A part of it has never come, and cannot come any more
            self.transport.abort()
            return
        may_probe = exchange.version == "1.1" and exchange.complete and not exchange.answering
        if may_probe and number < len(PROBE_SECONDS):
            self.transport.write(CONTINUE)
        self.look_for_client(number + 1)

    def reset(self) -> None:
        """Close the connection at once, and let the system forget what it has not sent yet."""
        # Another connection may need the place before the transport calls connection_lost()
        self.worker.connections.pop(self, None)
        # The system would go on for minutes to offer the rest to a client that does not take it
        no_lingering = struct.pack("ii", 1, 0)
        with contextlib.suppress(OSError):  # It may be closed already
            connection = self.transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_lingering)
        self.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self.client.gone.set()
        self.worker.connections.pop(self, None)
        super().connection_lost(error)

    def check(self, now: float) -> None:
        """Close the connection if its head does not come, or its client does not take the rest.

        While the server stops, only whole requests are worth waiting for.
        """
        if self.transport.is_closing():
            if self.closing_since is None:
                self.closing_since = now
            elif now - self.closing_since > CLOSING_SECONDS:
                self.reset()
        elif not self.worker.alive and not self.has_whole_request():
            self.transport.close()
        elif self.client.requests == 0 and now - self.opened > limits.HEAD_SECONDS:
            # gunicorn itself ends a connection that waits too long for a further request
            self.transport.close()

    def has_whole_request(self) -> bool:
        exchange = self.client.exchange
        return exchange is not None and exchange.complete


class Worker(gasgi.ASGIWorker):  # type: ignore[misc]  # it has no types
    """Runs a Flask application of `create_app` behind gunicorn's event loop.

    door: the process that accepts connections; door_channel: the socket between it and this one.
    told: what it answers to GET /ping.
    """

    door: subprocess.Popen[bytes]
    door_channel: socket.socket
    told: bytes

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - gunicorn's own
        super().__init__(*args, **kwargs)
        # From the oldest to the newest
        self.connections: dict[Connection, None] = {}
        self.read_buffer = memoryview(bytearray(READ_BODY_BYTES))
        self.max_connections = MAX_CONNECTIONS

    def init_process(self) -> None:
        """Prepare this process, then serve until it has to stop."""
        # The event loop waits for the interpreter at most that long, for each thread that has work
        sys.setswitchinterval(SWITCH_SECONDS)
        self.max_connections = min(MAX_CONNECTIONS, raise_file_limit() - OTHER_FILES)
        # Before the threads that read requests, whose arenas would keep what they have freed
        memory.keep_freed()
        # gunicorn has no setting for it
        gasgi.ASGIProtocol = Connection
        super().init_process()

    def load_wsgi(self) -> None:
        """Load the application. It is a WSGI application, unlike gunicorn's worker expects."""
        self.wsgi = self.app.wsgi()
        self.asgi = Front(self.wsgi)

    def run(self) -> None:
        started = time.monotonic()
        self.sweeper = self.loop.create_task(self.sweep())
        super().run()
        if self.is_broken():
            # Python's own end could wait for the broken CUDA context
            os._exit(exit_code(self.age, time.monotonic() - started))

    def is_broken(self) -> bool:
        """Return whether the model needs a new process.

        A model that could not be loaded by the first process stays, to tell why.
        """
        server = self.wsgi.extensions["stylebot"]
        return server.fault is not None and (server.model is not None or self.age > 1)

    async def _serve(self) -> None:
        """Take connections from the door until the server has to stop.

        gunicorn's own would accept them here.
        """
        self.open_door()
        checked = self.loop.time()
        while self.alive and self.ppid == os.getppid():
            self.notify()
            self.tell_health()
            await asyncio.sleep(HEALTH_SECONDS)
            if self.loop.time() - checked > SWEEP_SECONDS:
                self.check_door()
                checked = self.loop.time()
        self.close_door()
        # Clients learn at once that nobody accepts them any more
        for listener in self.sockets:
            listener.close()
        await self._shutdown()

    async def sweep(self) -> None:
        """Look at the model and at every connection once a second."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            if self.alive and self.is_broken():
                # It gives the answers that are due, and ends
                self.handle_exit_signal()
            now = self.loop.time()
            for connection in list(self.connections):
                connection.check(now)

    # --- the door ---

    def open_door(self) -> None:
        """Start the process that accepts connections."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        descriptors = [theirs.fileno()] + [listener.sock.fileno() for listener in self.sockets]
        command = [sys.executable, "-m", "containers.serving.door"]
        command += [str(descriptor) for descriptor in descriptors]
        with theirs:
            self.door = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment(),
                stdin=subprocess.DEVNULL,
                pass_fds=descriptors,
            )
        ours.setblocking(False)
        self.door_channel = ours
        self.told = b""
        # Before the door has a request, so that /ping never goes back from 200 to 503
        self.tell_health()
        self.loop.add_reader(ours, self.take_connections)

    def tell_health(self) -> None:
        """Tell the door what to answer to GET /ping."""
        answer = self.asgi.ping_answer()
        if answer == self.told:
            return
        # An answer that the door does not take now is told again soon
        with contextlib.suppress(OSError):
            self.door_channel.send(answer)
            self.told = answer

    def take_connections(self) -> None:
        """Take a few connections from the door."""
        for _ in range(CONNECTIONS_A_TURN):
            if not self.take_connection():
                return

    def take_connection(self) -> bool:
        """Take a connection from the door. Return whether there was one."""
        try:
            message, descriptors, _, _ = socket.recv_fds(self.door_channel, 1, 1)
        except BlockingIOError:
            return False
        except OSError:
            message = b""
        if not message:
            # It has ended, which check_door() will see
            self.loop.remove_reader(self.door_channel)
            return False
        for descriptor in descriptors:
            connection = socket.socket(fileno=descriptor)
            connection.setblocking(False)
            self.loop.create_task(self.serve(connection))
        return True

    async def serve(self, connection: socket.socket) -> None:
        """Let gunicorn read what comes through a connection."""
        with contextlib.suppress(OSError):  # The client may have left already
            await self.loop.connect_accepted_socket(lambda: Connection(self), connection)

    def check_door(self) -> None:
        """Start another door if it was killed."""
        code = self.door.poll()
        if code is None:
            return
        write_log("door ended", exit_code=code)
        self.close_door()
        self.open_door()

    def close_door(self) -> None:
        """End the door, after what it has handed over."""
        while self.take_connection():
            pass
        self.loop.remove_reader(self.door_channel)
        self.door_channel.close()
        self.door.wait()

    # --- connections ---

    def make_room(self) -> None:
        """Close the oldest idle connection if there are too many.

        If none is idle, the oldest one whose request has not arrived yet has to leave.
        """
        if len(self.connections) < self.max_connections:
            return
        for is_free in (is_idle, is_incomplete):
            for connection in self.connections:
                if is_free(connection):
                    connection.reset()
                    return

    def handle_exit_signal(self) -> None:
        """On SIGTERM ask the running job for its best picture, and finish what is here."""
        self.wsgi.extensions["stylebot"].queue.stop()
        super().handle_exit_signal()


def exit_code(age: int, seconds: float) -> int:
    """Return how a process with a broken model ends. age: the how manieth process it is, from 1."""
    if age > 1 and seconds < RELAPSE_SECONDS:
        return END_CONTAINER
    return REPLACE_PROCESS


def is_idle(connection: Connection) -> bool:
    return connection.client.exchange is None


def is_incomplete(connection: Connection) -> bool:
    return not connection.has_whole_request()


def raise_file_limit() -> int:
    """Let this process open more files if it may, and return how many it can open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return wanted if soft == resource.RLIM_INFINITY else soft
