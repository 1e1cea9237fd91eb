"""Reads requests and writes answers in the event loop, so that no slow client takes a thread.

This is the ASGI application between gunicorn's event loop and Flask, which is a WSGI application.
Flask gets a request only when the whole of it is here; it runs in one of a few threads. GET /ping
is answered in the event loop itself, where door.py has not answered it: it waits for no thread.
"""

import asyncio
import contextlib
import json
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass, field
from http import HTTPStatus
from io import BytesIO
from typing import IO, TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from werkzeug.test import run_wsgi_app

from containers.common.errors import ErrorCode
from containers.common.log import write_log

from .errors import ApiError, ClientGoneError, as_api_error, bad_request, body_too_large
from .limits import (
    BODY_SECONDS,
    MAX_FETCHING,
    MAX_QUEUE,
    MIN_BYTES_PER_SECOND,
    body_limit,
)

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

T = TypeVar("T")

# ASGI's messages, and what describes a request.
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# The name of the request's ClientGone event in its WSGI environment.
GONE = "stylebot.gone"

PING = "/ping"
INVOCATIONS = "/invocations"
PING_SCOPE: Message = {
    "method": "GET",
    "path": PING,
    "query_string": b"",
    "headers": [],
    "http_version": "1.1",
    "scheme": "http",
    "server": None,
    "client": None,
}
# Other requests that begin in one turn of the event loop.
REQUESTS_A_TURN = 8
# Invocations that Flask works on: those that hold a place in the queue, or read images from other
# servers, wait; the others do not.
THREADS = MAX_QUEUE + 1 + MAX_FETCHING + 4
# Larger bodies go to a temporary file.
MEMORY_BYTES = 64 << 10
# Bodies that go to files at the same time. They limit the disk that strangers can fill.
MAX_UPLOADS = 64
WRITE_BYTES = 256 << 10
# How often the speed of an upload is looked at.
WINDOW_SECONDS = 10
# A body in chunks of a byte costs a hundred times as much to read as one in large chunks.
FREE_CHUNKS = 200
MIN_CHUNK_BYTES = 128
# A client that is still sending sees the answer only when it is done.
DISCARD_SECONDS = 5
ANSWER_BYTES = 64 << 10
ANSWER_SECONDS = 30


@dataclass
class Exchange:
    """One request and its answer.

    plain: its body has a Content-Length.
    complete: the whole request is here.
    answering: a part of the answer may have been sent.
    """

    version: str
    plain: bool
    complete: bool = False
    answering: bool = False

    @property
    def reading_plain_body(self) -> bool:
        return self.plain and not self.complete


@dataclass
class Client:
    """The other side of one connection. Only the event loop changes it.

    gone: set when the connection is closed; any thread may wait for it.
    requests: how many have begun.
    exchange: the request that is being read or answered.
    close: closes the connection once the client has taken what was sent.
    abort: closes the connection at once.
    """

    gone: threading.Event = field(default_factory=threading.Event)
    requests: int = 0
    exchange: Exchange | None = None
    close: Callable[[], None] = lambda: None
    abort: Callable[[], None] = lambda: None


# The client whose request the current task answers. The connection sets it before it starts tasks.
current_client: ContextVar[Client | None] = ContextVar("current_client", default=None)


class Front:
    """The ASGI application around a WSGI application."""

    def __init__(self, app: "WSGIApplication") -> None:
        self.app = app
        self.invocations = ThreadPoolExecutor(THREADS, "invocation")
        # The other requests never wait for anything, and may be many
        self.pages = ThreadPoolExecutor(1, "page")
        self.uploads = 0  # bodies that are in files now
        self.beginning = asyncio.Semaphore(REQUESTS_A_TURN)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return  # gunicorn refuses a WebSocket that is not accepted
        client = current_client.get() or Client()
        plain = any(name == b"content-length" for name, _ in scope["headers"])
        exchange = Exchange(scope["http_version"], plain)
        client.exchange = exchange
        client.requests += 1
        try:
            await self.answer(scope, receive, send, client, exchange)
        except ClientGoneError:
            pass  # Nobody is there to be answered
        finally:
            # The next request may have begun already
            if client.exchange is exchange:
                client.exchange = None

    def ping_answer(self) -> bytes:
        """Return what GET /ping is answered with now, for whoever closes the connection then."""
        answer = run_app(self.app, make_environ(PING_SCOPE, 0, Client()), Body(self, 0))
        status = HTTPStatus(answer.status)
        lines = [b"HTTP/1.1 %d %s" % (status, status.phrase.encode())]
        lines += [b"%s: %s" % header for header in answer.headers]
        lines.append(b"Connection: close")
        return b"\r\n".join(lines) + b"\r\n\r\n" + answer.body

    async def answer(
        self, scope: Message, receive: Receive, send: Send, client: Client, exchange: Exchange
    ) -> None:
        if scope["path"] != PING:
            # /ping does not stand in line with hundreds that come at the same time
            async with self.beginning:
                await asyncio.sleep(0)
        body = Body(self, body_limit(content_type(scope)))
        refused = False
        try:
            try:
                await body.read(scope, receive)
                exchange.complete = True
                answer = await self.call_app(scope, body, client)
            except ClientGoneError:
                raise
            except Exception as error:  # Whatever it is, the client gets an answer in words
                refused = True
                answer = refuse(as_api_error(error))
            exchange.answering = True
            await send_answer(answer, send, client)
            if body.worth_discarding:
                await discard(receive)
            if refused:
                client.close()
        finally:
            body.release()

    async def call_app(self, scope: Message, body: "Body", client: Client) -> "Answer":
        environ = make_environ(scope, body.size, client)
        path = environ["PATH_INFO"]
        if path == PING:
            return run_app(self.app, environ, body)
        pool = self.invocations if path == INVOCATIONS else self.pages
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(pool, run_app, self.app, environ, body)


# --- the request ---


class Body:
    """The body of one request: in memory if it is small, otherwise in a temporary file."""

    def __init__(self, front: Front, limit: int) -> None:
        self.front = front
        self.limit = limit
        self.size = 0
        self.chunks = 0
        self.complete = False
        self.worth_discarding = False
        self.pieces: list[bytes] = []  # what is not in the file yet
        self.pieces_size = 0
        self.file: IO[bytes] | None = None
        self.has_place = False  # among the uploads

    async def read(self, scope: Message, receive: Receive) -> None:
        """Read the whole body.

        Raises ApiError: body_too_large, queue_full if too many large bodies are on their way, or
        bad_request if it comes too slowly or in too small pieces. Raises ClientGoneError.
        """
        headers = dict(scope["headers"])
        length = headers.get(b"content-length")
        if length is None and b"transfer-encoding" not in headers:
            return
        try:
            if length is not None and int(length) > self.limit:
                raise body_too_large(self.limit)
            await self.read_in_time(receive)
        except ApiError as error:
            self.worth_discarding = error.code is not ErrorCode.BAD_REQUEST
            raise

    async def read_in_time(self, receive: Receive) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + BODY_SECONDS
        while not self.complete:
            expected = self.size + MIN_BYTES_PER_SECOND * WINDOW_SECONDS
            seconds = min(WINDOW_SECONDS, deadline - loop.time())
            try:
                await asyncio.wait_for(self.read_until(expected, receive), seconds)
            except asyncio.TimeoutError:
                raise bad_request(
                    f"The body came too slowly: at least {MIN_BYTES_PER_SECOND >> 10} KB/s are "
                    f"expected, and all of it in {BODY_SECONDS} s."
                ) from None

    async def read_until(self, size: int, receive: Receive) -> None:
        """Read until the body has `size` bytes or ends."""
        while not self.complete and self.size < size:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            self.complete = not message.get("more_body", False)
            await self.add(message.get("body", b""))

    async def add(self, piece: bytes) -> None:
        self.size += len(piece)
        self.chunks += 1
        if self.size > self.limit:
            raise body_too_large(self.limit)
        if self.chunks > FREE_CHUNKS + self.size // MIN_CHUNK_BYTES:
            raise bad_request(
                "The body comes in too many small chunks. Send it with a Content-Length."
            )
        self.pieces.append(piece)
        self.pieces_size += len(piece)
        if self.file is None and self.pieces_size > MEMORY_BYTES:
            await self.open_file()
        if self.file is not None and self.pieces_size >= WRITE_BYTES:
            await in_thread(self.file.write, self.take_pieces())

    async def open_file(self) -> None:
        if self.front.uploads >= MAX_UPLOADS:
            raise ApiError(
                ErrorCode.QUEUE_FULL,
                f"{MAX_UPLOADS} large requests are being received already. Try again in 10 s.",
                retry_after=10,
            )
        self.front.uploads += 1
        self.has_place = True
        self.file = await in_thread(tempfile.TemporaryFile)

    def take_pieces(self) -> bytes:
        data = b"".join(self.pieces)
        self.pieces.clear()
        self.pieces_size = 0
        return data

    def open(self) -> IO[bytes]:
        """Return the whole body as a file, to be read from its beginning."""
        rest = self.take_pieces()
        if self.file is None:
            return BytesIO(rest)
        self.file.write(rest)
        self.file.seek(0)
        return self.file

    def release(self) -> None:
        """Let another large body come. The file is closed when nobody uses it any more."""
        self.file = None
        if self.has_place:
            self.has_place = False
            self.front.uploads -= 1


def content_type(scope: Message) -> str:
    """Return the content type of a request without its parameters, in lower case."""
    header: bytes = dict(scope["headers"]).get(b"content-type", b"")
    value = header.decode("latin-1")
    return value.partition(";")[0].strip().lower()


async def in_thread(function: Callable[..., T], *arguments: object) -> T:
    """Call a function in a thread, as a disk may be slow."""
    return await asyncio.get_running_loop().run_in_executor(None, function, *arguments)


async def discard(receive: Receive) -> None:
    """Read the rest of a body for a while: many clients look for an answer only after it."""

    async def discard_all() -> None:
        while (await receive()).get("more_body", False):
            pass

    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(discard_all(), DISCARD_SECONDS)


def path_of(scope: Message) -> str:
    """Return the path of a request. Raises ApiError bad_request."""
    path: str = scope["path"]
    if path.startswith("/"):
        return path
    # A proxy's way to name a path: GET http://host/path
    try:
        return urlsplit(path).path
    except ValueError:
        raise bad_request("The first line of the request has no valid address.") from None


def make_environ(scope: Message, size: int, client: Client) -> "WSGIEnvironment":
    """Return the WSGI environment of a request, except for its body, which has `size` bytes."""
    host, port = scope["server"] or ("localhost", 80)
    environ: WSGIEnvironment = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": path_of(scope).encode().decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": host,
        "SERVER_PORT": str(port),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "REMOTE_ADDR": (scope["client"] or ("",))[0],
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        GONE: client.gone,
    }
    for raw_name, raw_value in scope["headers"]:
        name = "HTTP_" + raw_name.decode("latin-1").upper().replace("-", "_")
        value = raw_value.decode("latin-1")
        environ[name] = f"{environ[name]},{value}" if name in environ else value
    environ["CONTENT_TYPE"] = environ.pop("HTTP_CONTENT_TYPE", "")
    # Chunks have been put together
    environ.pop("HTTP_TRANSFER_ENCODING", None)
    environ.pop("HTTP_CONTENT_LENGTH", None)
    environ["CONTENT_LENGTH"] = str(size)
    return environ


# --- the answer ---


@dataclass(frozen=True)
class Answer:
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


def run_app(app: "WSGIApplication", environ: "WSGIEnvironment", body: Body) -> Answer:
    with body.open() as environ["wsgi.input"]:
        pieces, status, headers = run_wsgi_app(app, environ, buffered=True)
    encoded = encode_headers(headers.items())
    return Answer(int(status.split()[0]), encoded, b"".join(pieces))


def refuse(error: ApiError) -> Answer:
    """Return the answer to a request that Flask never sees. The connection cannot go on."""
    write_log("request refused", status=error.status, error=error.code)
    body = json.dumps(error.body()).encode() + b"\n"
    headers = [
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
    ]
    if error.retry_after is not None:
        headers.append(("Retry-After", str(error.retry_after)))
    return Answer(error.status, encode_headers(headers), body)


def encode_headers(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


async def send_answer(answer: Answer, send: Send, client: Client) -> None:
    """Send it all. A client that does not read it in time loses its connection."""
    seconds = ANSWER_SECONDS + len(answer.body) / MIN_BYTES_PER_SECOND
    try:
        await asyncio.wait_for(send_all(answer, send), seconds)
    except asyncio.TimeoutError:
        client.abort()
        # gunicorn hears of it now, and does not complain about half an answer
        await asyncio.sleep(0)


async def send_all(answer: Answer, send: Send) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": answer.status,
            "headers": answer.headers,
        }
    )
    # In pieces, so that the event loop copies little at a time
    for start in range(0, max(1, len(answer.body)), ANSWER_BYTES):
        end = start + ANSWER_BYTES
        message = {
            "type": "http.response.body",
            "body": answer.body[start:end],
            "more_body": end < len(answer.body),
        }
        await send(message)
