"""A short queue in front of one GPU: first come, first served, and a plain no beyond its length."""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from .errors import RequestError

T = TypeVar("T")


class Turns:
    """One job at a time; at most `limit` more are admitted to wait."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.stopping = threading.Event()
        self.admitted = 0
        self.lock = threading.Lock()
        self.worker = ThreadPoolExecutor(1, thread_name_prefix="model", initializer=stand_back)

    @contextmanager
    def admission(self, seconds_each: float) -> Iterator[None]:
        """A place, from reading the inputs to storing the picture. Raises RequestError 503 when all are taken."""
        with self.lock:
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
            with self.lock:
                self.admitted -= 1

    def run(self, job: Callable[[], T]) -> T:
        """`job`'s result, when it is its turn. Raises RequestError 503 when the server stops before."""
        try:
            future = self.worker.submit(job)
        except RuntimeError:  # it has been shut down
            raise stopping_error() from None
        try:
            return future.result()
        except CancelledError:
            raise stopping_error() from None

    def stop(self) -> None:
        """No new jobs; those that wait are sent away; the one that runs is asked for its best picture.

        Called from a signal handler, which must not wait for a lock that its own thread may hold.
        """
        self.stopping.set()
        options = {"wait": False, "cancel_futures": True}
        threading.Thread(target=self.worker.shutdown, kwargs=options, daemon=True).start()


def stand_back() -> None:
    """Lowers the model's thread, and those that PyTorch starts for it, below the ones that answer /ping."""
    if sys.platform == "linux":  # where a priority belongs to a thread
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 5)


def stopping_error() -> RequestError:
    return RequestError(
        503, "stopping", "This server is shutting down. Send the request again.", retry_after=10
    )
