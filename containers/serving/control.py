"""What is asked of a job while it waits or runs: a small JSON object at its control_url.

It is {"action": "cancel"} or {"action": "take"}. A thread of its own looks for it, so that a slow
store delays neither the model nor the answer.
"""

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

from containers.common.errors import ErrorCode, StylizeError

from . import storage
from .errors import ApiError, ClientGoneError

SECONDS_BETWEEN = 1.0
# After a look that failed, such as one at a store that is down.
SECONDS_AFTER_FAILURE = 5.0
# For one look.
READ_SECONDS = 5.0
# For the first look, which is before the images are read. A slow store delays a job by no more.
FIRST_LOOK_SECONDS = 1.0
MAX_BYTES = 1 << 10


class Action(str, Enum):
    """CANCEL: nobody wants the picture any more. TAKE: the best picture so far is wanted, now."""

    CANCEL = "cancel"
    TAKE = "take"


class Abandonment(threading.Event):
    """Set when nobody waits for a job's picture: it was cancelled, or its client has left.

    Only `is_set` knows of the client; nobody waits for this event.
    """

    def __init__(self, client_gone: threading.Event) -> None:
        super().__init__()
        self.client_gone = client_gone

    def is_set(self) -> bool:
        return super().is_set() or self.client_gone.is_set()


class Control:
    """What has been asked of one job so far.

    gone: set when nobody waits for the picture. taken: set when the best picture so far is wanted.
    """

    def __init__(self, client_gone: threading.Event) -> None:
        self.gone = Abandonment(client_gone)
        self.taken = threading.Event()
        self.cancelled = threading.Event()
        self.has_looked = threading.Event()
        self.has_ended = threading.Event()

    def follow(self, url: str) -> None:
        """Look at `url` again and again, until the job has ended or was cancelled."""
        pause = 0.0
        while not self.has_ended.wait(pause) and not self.cancelled.is_set():
            pause = SECONDS_BETWEEN
            try:
                self.obey(read_action(url))
            except ApiError as error:
                logging.getLogger(__name__).warning("control_url not read: %s", error.code.value)
                pause = SECONDS_AFTER_FAILURE
            self.has_looked.set()

    def obey(self, action: Action | None) -> None:
        if action is Action.CANCEL:
            self.cancelled.set()
            self.gone.set()
        if action is Action.TAKE:
            self.taken.set()


@contextmanager
def watch(url: str | None, client_gone: threading.Event) -> Iterator[Control]:
    """Give the control of a job, which the block works on.

    Raises ApiError cancelled, from within the block or before it, if the job was cancelled.
    """
    control = Control(client_gone)
    if url is None:
        yield control
        return

    threading.Thread(target=control.follow, args=(url,), name="control", daemon=True).start()
    try:
        control.has_looked.wait(FIRST_LOOK_SECONDS)
        if control.cancelled.is_set():
            raise cancelled_error()
        yield control
    except (ClientGoneError, StylizeError):
        # Whoever cancels a job may delete its images too
        if control.cancelled.is_set():
            raise cancelled_error() from None
        raise
    finally:
        control.has_ended.set()


def read_action(url: str) -> Action | None:
    """Return what the object at `url` asks for; None if there is none, or no such action.

    Raises ApiError, as storage.read does.
    """
    try:
        data = storage.read(url, "control_url", READ_SECONDS)
    except ApiError as error:
        if error.code is ErrorCode.OBJECT_NOT_FOUND:
            return None
        raise
    try:
        return Action(json.loads(data[:MAX_BYTES])["action"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def cancelled_error() -> ApiError:
    return ApiError(ErrorCode.CANCELLED, "This picture was cancelled.")
