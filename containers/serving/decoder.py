"""Decoding of strangers' pictures, in processes of their own: see decoder_process.py.

A picture can crash a decoder, hold the interpreter's lock for seconds, take gigabytes or minutes,
or be an attack on it. Here it can only end its own process.
"""

import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from PIL import Image

from containers.common.errors import ErrorCode
from containers.common.log import write_log

from .decoder_process import LENGTH, NO_CHILD, READY, TOO_COSTLY
from .errors import ApiError, ClientGoneError
from .images import too_costly, unreadable

# Pictures at a time. Each takes a core, and up to 1 GB.
DECODERS = 2
# Until one of them is free. With the next limit, nobody waits longer than 9 s for an answer.
WAIT_SECONDS = 3.0
# For one picture. A photo takes 0.1 s; what decoder_sandbox.py allows of processor time is less.
DECODE_SECONDS = 6.0
# For a process to start, which takes 0.3 s where nothing else runs.
START_SECONDS = 30.0
# Whether the client is still there is looked at this often.
LOOK_SECONDS = 0.05

ROOT = Path(__file__).parents[2]
# Of the environment. The rest may hold credentials, which a decoder does not need.
PASSED_ON = (
    "PATH",
    "PYTHONPATH",
    "PYTHONHOME",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "COVERAGE_PROCESS_CONFIG",
)
# What a decoder may say about a picture.
ERROR_CODES = (ErrorCode.IMAGE_UNREADABLE, ErrorCode.IMAGE_TOO_SMALL, ErrorCode.IMAGE_TOO_LARGE)
MAX_ANSWER_BYTES = 4096


def decode(
    data: bytes, longest: int, what: str, gone: threading.Event | None = None
) -> Image.Image:
    """Return the picture as `images.decode` does, decoded in another process.

    gone: set when nobody waits for the picture any more; decoding ends within 0.1 s then.
    Raises ApiError: image_unreadable, also if it takes too long; image_too_small, image_too_large;
    queue_full if too many pictures are being decoded; loading if no decoder could be started.
    Raises ClientGoneError.
    """
    return pool().decode(data, longest, what, gone)


def start() -> None:
    """Start the processes, so that the first picture does not wait for them."""
    pool().start()


@cache
def pool() -> "DecoderPool":
    return DecoderPool(DECODERS)


class ClosedError(Exception):
    """A decoder has ended, or does not keep to its protocol."""


def busy_error() -> ApiError:
    return ApiError(
        ErrorCode.QUEUE_FULL,
        f"{DECODERS} pictures are being decoded, and more wait already. Try again in a few "
        "seconds.",
        retry_after=5,
    )


def start_error() -> ApiError:
    return ApiError(
        ErrorCode.LOADING,
        "The decoder of pictures could not be started. Try again in a few seconds.",
        retry_after=5,
    )


class DecoderPool:
    """Some decoders, and the requests that wait for one: first come, first served."""

    def __init__(self, size: int) -> None:
        self.decoders = [Decoder() for _ in range(size)]
        self.changed = threading.Condition()
        self.idle = list(self.decoders)  # guarded by changed
        self.waiting: deque[object] = deque()  # guarded by changed

    def start(self) -> None:
        """Start the processes of all decoders that are idle."""
        with self.changed:
            for decoder in self.idle:
                decoder.start()

    def stop(self) -> None:
        """End the processes of all decoders that are idle."""
        with self.changed:
            for decoder in self.idle:
                decoder.stop()

    def decode(
        self, data: bytes, longest: int, what: str, gone: threading.Event | None
    ) -> Image.Image:
        """See the function of this name."""
        with self.borrow(gone) as decoder:
            return decoder.decode(data, longest, what, gone)

    @contextmanager
    def borrow(self, gone: threading.Event | None) -> Iterator["Decoder"]:
        """Wait for a decoder in turn. Raises ApiError queue_full, and ClientGoneError."""
        decoder = self.take(gone)
        try:
            yield decoder
        finally:
            with self.changed:
                self.idle.append(decoder)
                self.changed.notify_all()

    def take(self, gone: threading.Event | None) -> "Decoder":
        deadline = time.monotonic() + WAIT_SECONDS
        ticket = object()
        with self.changed:
            self.waiting.append(ticket)
            try:
                while not self.idle or self.waiting[0] is not ticket:
                    if gone and gone.is_set():
                        raise ClientGoneError
                    if not all(decoder.has_been_ready for decoder in self.decoders):
                        # They start with the server, which is no reason to send anybody away
                        deadline = time.monotonic() + WAIT_SECONDS
                    if time.monotonic() > deadline:
                        raise busy_error()
                    self.changed.wait(LOOK_SECONDS)
                return self.idle.pop()
            finally:
                self.waiting.remove(ticket)
                self.changed.notify_all()


class Decoder:
    """One process, which decodes one picture at a time. One thread at a time uses it."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.is_ready = False
        self.has_been_ready = False

    def start(self) -> None:
        """Start the process, if there is none. If that is not possible, `decode` tries again."""
        if self.process:
            return
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "containers.serving.decoder_process", str(theirs.fileno())]
        try:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )
        except OSError as error:
            ours.close()
            write_log("decoder not started", reason=error.strerror)
            return
        finally:
            theirs.close()
        ours.setblocking(False)
        self.connection = ours
        self.is_ready = False

    def stop(self) -> int | None:
        """End the process by closing the connection. Return its exit code; None if it had none."""
        if self.process is None:
            return None
        self.connection.close()
        try:
            code = self.process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self.process = None
        return code

    def decode(
        self, data: bytes, longest: int, what: str, gone: threading.Event | None
    ) -> Image.Image:
        """Decode one picture. If that ends the process, the next one is started at once."""
        self.wait_until_ready(gone)
        try:
            return self.exchange(data, longest, what, gone)
        except TimeoutError:
            self.replace("time", data)
            raise too_costly(what) from None
        except ClosedError as error:
            code = self.replace(str(error), data)
            if code == NO_CHILD:
                raise start_error() from None
            if code == TOO_COSTLY:
                raise too_costly(what) from None
            raise unreadable(what) from None
        except ClientGoneError:
            self.replace("the client left", data)
            raise

    def replace(self, reason: str, data: bytes) -> int | None:
        """Start another process in the place of this one. Return this one's exit code."""
        code = self.stop()
        write_log("decoder ended", reason=reason, exit_code=code, bytes=len(data))
        self.start()
        return code

    def wait_until_ready(self, gone: threading.Event | None) -> None:
        """Raises ApiError loading if there is no process that could decode."""
        if self.process and self.process.poll() is not None:
            # It was killed while it had nothing to do
            self.stop()
        self.start()
        if self.is_ready:
            return
        if self.process is None:
            raise start_error()
        try:
            self.receive(len(READY), time.monotonic() + START_SECONDS, gone)
        except (ClosedError, TimeoutError):
            code = self.stop()
            write_log("decoder not started", exit_code=code)
            raise start_error() from None
        self.is_ready = True
        self.has_been_ready = True

    # --- the protocol ---

    def exchange(
        self, data: bytes, longest: int, what: str, gone: threading.Event | None
    ) -> Image.Image:
        """Send a picture and return what comes back, checked.

        Raises ApiError with what the decoder says about the picture, ClosedError, TimeoutError and
        ClientGoneError.
        """
        deadline = time.monotonic() + DECODE_SECONDS
        request = json.dumps({"longest": longest, "what": what, "bytes": len(data)}).encode()
        self.send(LENGTH.pack(len(request)) + request, deadline, gone)
        self.send(data, deadline, gone)

        [length] = LENGTH.unpack(self.receive(LENGTH.size, deadline, gone))
        if length > MAX_ANSWER_BYTES:
            raise ClosedError("protocol")
        answer = parse(self.receive(length, deadline, gone))
        if "error" in answer:
            raise checked_error(answer)
        width, height = checked_size(answer, longest)
        pixels = self.receive(width * height * 3, deadline, gone)
        return Image.frombytes("RGB", (width, height), pixels)

    def send(self, data: bytes, deadline: float, gone: threading.Event | None) -> None:
        left = memoryview(data)
        while left:
            self.wait_for(select.POLLOUT, deadline, gone)
            try:
                left = left[self.connection.send(left) :]
            except BlockingIOError:
                continue
            except OSError:
                raise ClosedError("end") from None

    def receive(self, size: int, deadline: float, gone: threading.Event | None) -> bytearray:
        data = bytearray(size)
        left = memoryview(data)
        while left:
            self.wait_for(select.POLLIN, deadline, gone)
            try:
                count = self.connection.recv_into(left)
            except BlockingIOError:
                continue
            except OSError:
                count = 0
            if count == 0:
                raise ClosedError("end")
            left = left[count:]
        return data

    def wait_for(self, event: int, deadline: float, gone: threading.Event | None) -> None:
        """Wait until the connection is ready. Raises TimeoutError and ClientGoneError."""
        poll = select.poll()
        poll.register(self.connection, event)
        while True:
            if gone and gone.is_set():
                raise ClientGoneError
            if time.monotonic() > deadline:
                raise TimeoutError
            if poll.poll(LOOK_SECONDS * 1000):
                return


def environment() -> dict[str, str]:
    """Return the environment of a decoder: numpy needs no threads there, which fork forbids."""
    passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {**passed_on, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def parse(text: bytes | bytearray) -> dict[str, object]:
    """Return a decoder's answer, which may be anything."""
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        raise ClosedError("protocol") from None
    if not isinstance(answer, dict):
        raise ClosedError("protocol")
    return answer


def checked_size(answer: dict[str, object], longest: int) -> tuple[int, int]:
    """Return the picture's width and height. Raises ClosedError if they cannot be."""
    match answer.get("size"):
        case [int(width), int(height)] if 1 <= width <= longest and 1 <= height <= longest:
            return width, height
    raise ClosedError("protocol")


def checked_error(answer: dict[str, object]) -> ApiError:
    """Return what the decoder says about the picture. Raises ClosedError if it is nonsense."""
    code = answer.get("error")
    message = answer.get("message")
    if code not in ERROR_CODES or not isinstance(message, str):
        raise ClosedError("protocol")
    return ApiError(ErrorCode(code), message)
