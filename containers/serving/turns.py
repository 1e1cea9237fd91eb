"""A short queue in front of one GPU: first come, first served, and a plain no beyond its length."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import RequestError


class Turns:
    """One job at a time; at most `limit` more are admitted to wait."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.stopping = threading.Event()
        self.admitted = 0
        self.waiting: deque[object] = deque()
        self.changed = threading.Condition()

    @contextmanager
    def admission(self, seconds_each: float) -> Iterator[None]:
        """A place, from reading the inputs to storing the picture. Raises RequestError 503 when all are taken."""
        with self.changed:
            if self.stopping.is_set():
                raise stopping_error()
            if self.admitted > self.limit:
                wait = max(1, round(self.admitted * seconds_each))
                raise RequestError(
                    503,
                    "queue_full",
                    f"{self.admitted} pictures are being made or waiting already. Try again in {wait} s.",
                    retry_after=wait,
                )
            self.admitted += 1
        try:
            yield
        finally:
            with self.changed:
                self.admitted -= 1

    @contextmanager
    def turn(self) -> Iterator[None]:
        """The model, for oneself. Raises RequestError 503 when the server stops before it is one's turn."""
        ticket = object()
        with self.changed:
            self.waiting.append(ticket)
            self.changed.wait_for(lambda: self.waiting[0] is ticket or self.stopping.is_set())
            if self.stopping.is_set() and self.waiting[0] is not ticket:
                self.waiting.remove(ticket)
                raise stopping_error()
        try:
            yield
        finally:
            with self.changed:
                self.waiting.remove(ticket)
                self.changed.notify_all()

    def stop(self) -> None:
        """No new jobs; those that wait are sent away; the one that runs is asked for its best picture.

        Called from a signal handler, which must not wait for a lock that its own thread may hold.
        """
        self.stopping.set()
        threading.Thread(target=self.wake, daemon=True).start()

    def wake(self) -> None:
        with self.changed:
            self.changed.notify_all()


def stopping_error() -> RequestError:
    return RequestError(503, "stopping", "This server is shutting down. Send the request again.", retry_after=10)
