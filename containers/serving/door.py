"""The process that accepts connections: `python -m containers.serving.door CHANNEL LISTENER...`.

It answers GET /ping itself and hands every other connection to the worker. It does nothing else and
waits for nobody. So neither a model that keeps Python busy nor a thousand requests at the same
moment hold up GET /ping.

CHANNEL and LISTENER are file descriptors: of a socket between the worker and this process, and of
the sockets that listen. The worker sends the answer to GET /ping whenever it changes, and gets
connections, one with each message. When the worker closes the channel, or ends in whatever way,
this process ends.
"""

import contextlib
import re
import resource
import select
import signal
import socket
import sys
import time
from collections import deque

# After this, a connection without a whole request goes to the worker, which has its own limits.
WAIT_SECONDS = 1.0
# The longest head that is read. That of a platform's GET /ping is shorter.
HEAD_BYTES = 4096
# So many connections are accepted before the others get their turn.
ACCEPTS_A_TURN = 64
# Connections that wait for their first bytes, or for the worker.
MAX_HELD = 2048
# The open files that this process needs besides those connections.
OTHER_FILES = 32
# The longest answer to GET /ping.
MAX_ANSWER_BYTES = 32 << 10

PING_START = b"GET /ping HTTP/1."
# All of a request, with nothing behind it. Names of fields have no colon.
PING = re.compile(rb"GET /ping HTTP/1\.[01]\r\n(?:[!-9;-~]+:[\t -~]*\r\n)*\r\n")
# A request with one of these may have a body.
FRAMING = re.compile(rb"\r\n(?:content-length|transfer-encoding):", re.IGNORECASE)


class Door:
    """Connections on their way to the worker.

    waiting: connections that have not sent enough to tell what they want, by their descriptor, with
        the time.monotonic() of their arrival. The oldest comes first.
    leaving: connections for the worker, which it has not taken yet.
    answer: the answer to GET /ping. While it is empty, the worker answers.
    """

    def __init__(self, channel: socket.socket, listeners: list[socket.socket]) -> None:
        self.channel = channel
        self.listeners = {listener.fileno(): listener for listener in listeners}
        self.waiting: dict[int, tuple[socket.socket, float]] = {}
        self.leaving: deque[socket.socket] = deque()
        self.answer = b""
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.max_held = min(MAX_HELD, files - OTHER_FILES)
        self.poll = select.epoll()
        for listener in listeners:
            self.poll.register(listener, select.EPOLLIN)
        self.poll.register(channel, select.EPOLLIN)

    def run(self) -> None:
        """Accept connections until the worker closes the channel."""
        while True:
            events = dict(self.poll.poll(WAIT_SECONDS / 2))
            # First, so that GET /ping is not answered by an older state
            channel_event = events.pop(self.channel.fileno(), 0)
            if channel_event & ~select.EPOLLOUT and not self.read_answer():
                return
            for descriptor in events:
                if descriptor in self.listeners:
                    self.accept(self.listeners[descriptor])
                elif descriptor in self.waiting:
                    connection, _ = self.waiting[descriptor]
                    self.look_at(connection)
            self.stop_waiting()
            self.hand_over()

    def read_answer(self) -> bool:
        """Read the newest answer to GET /ping. Return whether the worker is still there."""
        while True:
            try:
                answer = self.channel.recv(MAX_ANSWER_BYTES)
            except BlockingIOError:
                return True
            if not answer:
                return False
            self.answer = answer

    def accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS_A_TURN):
            if len(self.waiting) + len(self.leaving) >= self.max_held:
                self.make_room()
            try:
                connection, _ = listener.accept()
            except OSError:
                # There is none any more, or it has gone already
                return
            connection.setblocking(False)
            self.look_at(connection)

    def make_room(self) -> None:
        """Close the oldest connection."""
        if self.leaving:
            self.leaving.popleft().close()
            return
        oldest, _ = next(iter(self.waiting.values()))
        self.forget(oldest)
        oldest.close()

    def look_at(self, connection: socket.socket) -> None:
        """Answer GET /ping, or decide where the connection goes."""
        try:
            head = connection.recv(HEAD_BYTES, socket.MSG_PEEK)
        except BlockingIOError:
            self.wait_for(connection)
            return
        except OSError:
            head = b""

        if not head:
            self.forget(connection)
            connection.close()
        elif self.answer and is_ping(head):
            self.forget(connection)
            self.answer_ping(connection, len(head))
        elif self.answer and may_become_ping(head):
            self.wait_for(connection)
        else:
            self.forget(connection)
            self.leaving.append(connection)

    def wait_for(self, connection: socket.socket) -> None:
        descriptor = connection.fileno()
        if descriptor in self.waiting:
            return
        self.waiting[descriptor] = (connection, time.monotonic())
        # Only when more comes, as what has come stays unread
        self.poll.register(descriptor, select.EPOLLIN | select.EPOLLET)

    def forget(self, connection: socket.socket) -> None:
        if self.waiting.pop(connection.fileno(), None):
            self.poll.unregister(connection)

    def answer_ping(self, connection: socket.socket, size: int) -> None:
        with contextlib.suppress(OSError), connection:
            # With unread bytes the system would reset the connection, and the answer could be lost
            connection.recv(size)
            connection.send(self.answer)

    def stop_waiting(self) -> None:
        """Let the worker wait for those that have not sent enough in time."""
        begin = time.monotonic() - WAIT_SECONDS
        for connection, since in list(self.waiting.values()):
            if since > begin:
                return
            self.forget(connection)
            self.leaving.append(connection)

    def hand_over(self) -> None:
        """Send connections to the worker, as many as the channel takes."""
        while self.leaving:
            try:
                socket.send_fds(self.channel, [b"c"], [self.leaving[0].fileno()])
            except BlockingIOError:
                self.poll.modify(self.channel, select.EPOLLIN | select.EPOLLOUT)
                return
            except OSError:
                # The worker has ended, or too many are on their way: this one cannot reach it
                pass
            self.leaving.popleft().close()
        self.poll.modify(self.channel, select.EPOLLIN)


def is_ping(head: bytes) -> bool:
    """Return whether these bytes are one request for GET /ping, and nothing else."""
    return PING.fullmatch(head) is not None and FRAMING.search(head) is None


def may_become_ping(head: bytes) -> bool:
    """Return whether these bytes may be the beginning of such a request."""
    if len(head) < len(PING_START):
        return PING_START.startswith(head)
    return head.startswith(PING_START) and b"\r\n\r\n" not in head and len(head) < HEAD_BYTES


def main() -> None:
    # The worker decides when this process ends, also if a signal goes to all processes
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    channel, *listeners = [socket.socket(fileno=int(number)) for number in sys.argv[1:]]
    channel.setblocking(False)
    Door(channel, listeners).run()


if __name__ == "__main__":
    main()
