"""The one fake SageMaker runtime: asynchronous requests, and models that pretend.

`work_on` is what an endpoint does with one request, apart from HTTP. The bot's tests reach it over
HTTP (`Endpoint`), the tests of deploy.py through moto (tests/fakes/aws.py), and those that kill the
bot in their own process by a call.
"""

from __future__ import annotations

import base64
import contextlib
import json
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from tests.fakes.names import BUCKET

if TYPE_CHECKING:
    from tests.fakes.storage import Storage

Request = dict[str, Any]
Answer = dict[str, Any]


class ObjectStorage(Protocol):
    """Objects by their URLs, s3://BUCKET/KEY."""

    def read(self, url: str) -> bytes: ...

    def write(self, url: str, data: bytes) -> None: ...


@dataclass(frozen=True)
class Invocation:
    """One accepted request: where it is, and where its answer or its error goes."""

    input_url: str
    output_url: str
    failure_url: str

    @classmethod
    def numbered(cls, input_url: str, number: object) -> Invocation:
        return cls(
            input_url=input_url,
            output_url=f"s3://{BUCKET}/async/output/{number}.out",
            failure_url=f"s3://{BUCKET}/async/failure/{number}-error.out",
        )

    @property
    def answer(self) -> dict[str, str]:
        """Return what boto3 makes of the headers."""
        return {"OutputLocation": self.output_url, "FailureLocation": self.failure_url}

    @property
    def headers(self) -> dict[str, str]:
        """Return what InvokeEndpointAsync answers in its headers."""
        return {
            "X-Amzn-SageMaker-OutputLocation": self.output_url,
            "X-Amzn-SageMaker-FailureLocation": self.failure_url,
        }


def work_on(
    invocation: Invocation, storage: ObjectStorage, stylize: Callable[[Request], Answer]
) -> None:
    """Answer one request. An answer that has the key "error" goes to the failure location.

    So does SageMaker's own error about a request that is gone.
    """
    try:
        request = json.loads(storage.read(invocation.input_url))
    except ClientError as error:
        storage.write(invocation.failure_url, f"The input cannot be read: {error}".encode())
        return
    answer = stylize(request)
    url = invocation.output_url
    if "error" in answer:
        url = invocation.failure_url
    storage.write(url, json.dumps(answer).encode())


@dataclass(frozen=True)
class Objects:
    """A bucket's objects by their URLs."""

    s3: Any  # boto3's client

    def read(self, url: str) -> bytes:
        bucket, key = url.removeprefix("s3://").split("/", 1)
        data: bytes = self.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        return data

    def write(self, url: str, data: bytes) -> None:
        bucket, key = url.removeprefix("s3://").split("/", 1)
        self.s3.put_object(Bucket=bucket, Key=key, Body=data)


@dataclass(frozen=True)
class Call:
    """One call of InvokeEndpointAsync."""

    endpoint: str
    inference_id: str
    headers: dict[str, str]  # names in lower case
    invocation: Invocation


class Endpoint:
    """SageMaker's runtime over HTTP, as boto3 speaks it, with a pretended model behind.

    A "painting" is JSON that says what it was made of. `mode` is one of:
    ok; asleep (accepts requests and does nothing); missing, throttled or broken (HTTP 500), which
    refuse requests; failing (writes `error` to the failure location).
    """

    def __init__(self, storage: Storage) -> None:
        self.objects = Objects(storage.client)
        self.mode = "ok"
        self.seconds = 0.0  # that a painting takes
        self.steps = 0  # in which it tells its progress
        reason = {"code": "image_unreadable", "message": "This is no picture."}
        self.error: str = json.dumps({"error": reason})
        self.answer: Answer = {"size": [800, 600], "seconds": 12.3, "notes": []}
        self.preview = base64.b64encode(b"\xff\xd8 preview").decode()
        self.padding = 0  # bytes added to a painting
        self.calls: list[Call] = []
        self.requests: list[Request] = []  # the JSON objects that the calls named
        self.held: queue.Queue[Call] = queue.Queue()  # accepted while asleep
        self.closing = threading.Event()
        self.workers: list[threading.Thread] = []  # one for each call that was started
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, body, headers = endpoint.accept(self.path, dict(self.headers.items()))
                self.send_response(status)
                data = json.dumps(body).encode()
                for name, value in {**headers, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port: int = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def accept(
        self, path: str, headers: dict[str, str]
    ) -> tuple[int, dict[str, Any], dict[str, str]]:
        """Return the status, the body and the headers that answer InvokeEndpointAsync."""
        name = path.split("/")[2]
        refusals = {
            "missing": (400, "ValidationError", f"Endpoint {name} of account 123 not found."),
            "throttled": (400, "ThrottlingException", "Rate exceeded"),
            "broken": (500, "InternalFailure", "Internal failure"),
        }
        if self.mode in refusals:
            status, kind, message = refusals[self.mode]
            return status, {"message": message}, {"x-amzn-ErrorType": kind}

        headers = {key.lower(): value for key, value in headers.items()}
        number = f"{len(self.calls)}-{time.monotonic_ns()}"
        invocation = Invocation.numbered(headers["x-amzn-sagemaker-inputlocation"], number)
        inference_id = headers.get("x-amzn-sagemaker-inference-id", "")
        call = Call(name, inference_id, headers, invocation)
        self.calls.append(call)
        if self.mode == "asleep":
            self.held.put(call)
        else:
            self.start(call)
        return 202, {"InferenceId": inference_id}, invocation.headers

    def wake(self) -> None:
        """The endpoint wakes, and takes up what has waited for it."""
        self.mode = "ok"
        while not self.held.empty():
            self.start(self.held.get())

    def start(self, call: Call) -> None:
        worker = threading.Thread(target=self.work, args=(call,), daemon=True)
        self.workers.append(worker)
        worker.start()

    def work(self, call: Call) -> None:
        # At the end of a test the storage may be gone.
        with contextlib.suppress(ClientError, BotoCoreError):
            if self.mode == "failing":
                self.objects.write(call.invocation.failure_url, self.error.encode())
                return
            work_on(call.invocation, self.objects, lambda request: self.stylize(call, request))

    def read_pictures(self, urls: str | list[str]) -> str:
        """Return what is in a picture, or in several. Raises ClientError."""
        several = [urls] if isinstance(urls, str) else urls
        texts = [self.objects.read(url).decode(errors="replace")[:200] for url in several]
        return ", ".join(texts)

    def stylize(self, call: Call, request: Request) -> Answer:
        """Write a painting to the request's result_url; an error if its pictures are gone."""
        self.requests.append(request)
        made = {
            "job": call.inference_id,
            "endpoint": call.endpoint,
            "style": request.get("style_name"),
        }
        try:
            for name in ("content", "style"):
                if f"{name}_url" in request:
                    made[name] = self.read_pictures(request[f"{name}_url"])
        except ClientError as error:
            message = f"An object is gone: {type(error).__name__}"
            return {"error": {"code": "object_not_found", "message": message}}

        if self.take_time(request) == "cancel":
            return {"error": {"code": "cancelled", "message": "This picture was cancelled."}}
        picture = json.dumps(made).encode() + b" " * self.padding
        self.objects.write(request["result_url"], picture)
        if "lossless_url" in request:
            self.objects.write(request["lossless_url"], picture)
        if "film_url" in request:
            self.objects.write(request["film_url"], picture)
        return {"result_url": request["result_url"], **self.answer}

    def take_time(self, request: Request) -> str:
        """Wait for as long as a painting takes, and tell the progress.

        Return the action of the control object that ended it, or "".
        """
        for step in range(self.steps):
            action = self.read_action(request)
            if action:
                return action
            progress = {
                "step": step,
                "steps": self.steps,
                "seconds": 1.0,
                "seconds_left": self.seconds * (1 - step / self.steps),
                "preview": self.preview,
            }
            self.objects.write(request["progress_url"], json.dumps(progress).encode())
            self.closing.wait(self.seconds / self.steps)
        if not self.steps:
            self.closing.wait(self.seconds)
        return ""

    def read_action(self, request: Request) -> str:
        """Return the action that the request's control object asks for; "" where there is none."""
        with contextlib.suppress(ClientError):
            control = json.loads(self.objects.read(request["control_url"]))
            return str(control["action"])
        return ""

    def close(self) -> None:
        """Stop, and let each painting end: none may be written into the next test's bucket."""
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()
        for worker in list(self.workers):
            worker.join(10)
