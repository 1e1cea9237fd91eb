"""HTTP to a model server, which SageMaker calls a container: GET /ping, POST /invocations."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import IO

import requests
from urllib3.exceptions import HTTPError, NewConnectionError

from sagemaker_local import http_client

PING_SECONDS = 2.0
CONNECT_SECONDS = 5.0
# So much is read of the answer of a server that is not healthy.
PING_BYTES = 512
CHUNK_BYTES = 2**16
# The limit of all headers of an asynchronous answer.
HEADER_BYTES = 4096


class UnreachableError(Exception):
    """The server took no connection, so it has not seen the request."""


class DisconnectedError(Exception):
    """The server ended, or closed the connection, before its answer was complete."""


@dataclass
class ContainerResponse:
    status: int
    headers: Mapping[str, str]
    # A file at its beginning, which the receiver of the response has to close.
    body: IO[bytes]

    def is_error(self) -> bool:
        return not 200 <= self.status < 300


class Container:
    """A model server at `url`, http://HOST:PORT or unix:PATH.

    Used by many threads: each call has a session of its own.
    """

    def __init__(self, url: str, ping_seconds: float = PING_SECONDS) -> None:
        self.server = url
        self.url = http_client.base_url(url)
        self.ping_seconds = ping_seconds

    def find_ping_problem(self) -> str:
        """Return "" where the server says in time that it is healthy, and else what is wrong."""
        try:
            with self.open_session() as session:
                answer = session.get(
                    f"{self.url}/ping",
                    timeout=self.ping_seconds,
                    stream=True,
                    allow_redirects=False,
                )
                if answer.status_code == HTTPStatus.OK:
                    return ""
                said = answer.raw.read(PING_BYTES).decode(errors="replace").strip()
        except (requests.RequestException, HTTPError, OSError):
            return f"GET /ping had no answer within {self.ping_seconds:g} s"
        return f"GET /ping answered {answer.status_code}: {said}"

    def invoke(
        self, body: bytes | IO[bytes], headers: Mapping[str, str], seconds: float
    ) -> ContainerResponse:
        """Return the server's answer, whatever its status.

        Raises UnreachableError, DisconnectedError, or TimeoutError where it takes more than
        `seconds`.
        """
        deadline = time.monotonic() + seconds
        try:
            with (
                self.open_session() as session,
                session.post(
                    f"{self.url}/invocations",
                    body,
                    headers=headers,
                    timeout=(CONNECT_SECONDS, seconds),
                    stream=True,
                    allow_redirects=False,
                ) as answer,
            ):
                return ContainerResponse(
                    answer.status_code, answer.headers, read_body(answer, deadline)
                )
        except requests.ReadTimeout:
            raise TimeoutError from None
        except requests.RequestException as error:
            raise translate(error, deadline) from None

    def open_session(self) -> requests.Session:
        session = http_client.open_session(self.server)
        session.headers.clear()
        session.headers["Accept-Encoding"] = "identity"
        return session


def read_body(answer: requests.Response, deadline: float) -> IO[bytes]:
    """Return the whole body in a temporary file. Raises TimeoutError after the deadline."""
    body = tempfile.TemporaryFile()  # noqa: SIM115 - it is a part of the response
    try:
        for chunk in answer.iter_content(CHUNK_BYTES):
            body.write(chunk)
            if time.monotonic() > deadline:
                raise TimeoutError
    except BaseException:
        body.close()
        raise
    body.seek(0)
    return body


def translate(error: requests.RequestException, deadline: float) -> Exception:
    """Return the error that says whether the server saw the request, and whether time was left."""
    # requests wraps the error of urllib3, which has the reason.
    reason = None
    if error.args:
        reason = getattr(error.args[0], "reason", None)

    # A read that times out in the middle of the body is no ReadTimeout.
    if "timed out" in str(reason or error) and time.monotonic() > deadline:
        return TimeoutError()
    if isinstance(error, requests.ConnectTimeout) or isinstance(reason, NewConnectionError):
        return UnreachableError()
    return DisconnectedError()


def find_problem(response: ContainerResponse) -> str:
    """Return why asynchronous inference cannot use the answer, and "" where it can.

    A model's error is handed on in the model's own words, unless it has none.
    """
    if response.is_error():
        if response.headers.get("Content-Length") == "0":
            return describe_error(response.status, "")
        return ""
    if "Content-Length" not in response.headers:
        return (
            "The response from container primary did not specify the required Content-Length header"
        )
    # Each header is "Name: value" and a line end.
    size = sum(len(name) + len(value) + 4 for name, value in response.headers.items())
    if size > HEADER_BYTES:
        return f"The response from container primary has more than {HEADER_BYTES} bytes of headers"
    return ""


def describe_error(status: int, message: str) -> str:
    """Return SageMaker's words for an error of the model, to the caller who waits for it."""
    return (
        f'Received {side_of(status)} error ({status}) from primary with message "{message}". '
        "See the log of the model server."
    )


def describe_model_error(status: int) -> str:
    """Return SageMaker's words for an error of the model, in a notification."""
    return (
        f"ClientError: Received {side_of(status)} error ({status}) from model. "
        "See the log of the model server."
    )


def side_of(status: int) -> str:
    if 400 <= status < 500:
        return "client"
    return "server"
