"""A short queue in front of one GPU: first come, first served; when it is full, it refuses."""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager, suppress
from typing import TypeVar

from containers.common.errors import ErrorCode

from .errors import ApiError, ClientGoneError

T = TypeVar("T")

# How soon a job whose client has left gives up its place.
SECONDS_BETWEEN_LOOKS = 0.25


class JobQueue:
    """Runs one job at a time in a thread of its own; at most `limit` further requests may wait."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self.admitted = 0  # guarded by lock
        self.worker = ThreadPoolExecutor(
            max_workers=1, thread_name_prefix="model", initializer=lower_priority
        )

    @contextmanager
    def admission(self, seconds_each: float) -> Iterator[None]:
        """Hold a place in the queue, until the picture is stored.

        seconds_each: how long a job takes, for the advice when to come again.
        Raises ApiError queue_full or stopping.
        """
        with self.lock:
            self.refuse_if_full(seconds_each)
            self.admitted += 1
        try:
            yield
        finally:
            with self.lock:
                self.admitted -= 1

    def check(self, seconds_each: float) -> None:
        """Raise ApiError queue_full or stopping if there is no place now."""
        with self.lock:
            self.refuse_if_full(seconds_each)

    def refuse_if_full(self, seconds_each: float) -> None:
        """Raise ApiError queue_full or stopping. The caller holds the lock."""
        if self.stopping.is_set():
            raise stopping_error()
        if self.admitted > self.limit:
            raise self.full_error(seconds_each)

    def full_error(self, seconds_each: float) -> ApiError:
        wait = max(1, round(self.admitted * seconds_each))
        return ApiError(
            ErrorCode.QUEUE_FULL,
            f"{self.admitted} pictures are being made or waiting already. Try again in {wait} s.",
            retry_after=wait,
        )

    def run(self, job: Callable[[], T], gone: threading.Event) -> T:
        """Run `job` in its turn and return its result.

        gone: set when nobody waits for the result any more. A job that still waits for its turn is
        then taken out of the queue. A running job ends in its own way, and its result is dropped.
        Raises ApiError stopping if the server stops before the job's turn, and ClientGoneError.
        """
        try:
            future = self.worker.submit(job)
        except RuntimeError:  # The worker has been shut down
            raise stopping_error() from None
        while not future.done():
            if gone.is_set():
                future.cancel()  # No effect on a running job
            with suppress(CancelledError, FutureTimeoutError):
                future.exception(SECONDS_BETWEEN_LOOKS)
        try:
            result = future.result()
        except CancelledError:
            if gone.is_set():
                raise ClientGoneError from None
            raise stopping_error() from None
        if gone.is_set():
            raise ClientGoneError
        return result

    def stop(self) -> None:
        """Accept no new jobs, cancel those that wait, and let the running one end early.

        A signal handler calls this. It must not wait for a lock that its own thread may hold, so
        another thread shuts the worker down.
        """
        self.stopping.set()
        options = {"wait": False, "cancel_futures": True}
        threading.Thread(target=self.worker.shutdown, kwargs=options, daemon=True).start()


def lower_priority() -> None:
    """Lower this thread's priority, and that of the threads that PyTorch starts for it.

    The threads that answer /ping run first.
    """
    # Only Linux has a priority for each thread
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 5)


def stopping_error() -> ApiError:
    return ApiError(
        ErrorCode.STOPPING, "This server is shutting down. Send the request again.", retry_after=10
    )
