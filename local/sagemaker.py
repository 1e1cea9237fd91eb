"""The SageMaker runtime on one machine: real-time and asynchronous endpoints in front of model servers.

    python -m local.sagemaker --endpoint nst=http://127.0.0.1:8081 --output s3://bucket/async/output
    AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME=http://127.0.0.1:8090 python my_program_that_uses_boto3.py

A model server is anything that answers GET /ping and POST /invocations. S3 is wherever boto3 finds it (set
AWS_ENDPOINT_URL_S3 for one of this machine). An asynchronous request is accepted once it lies in S3, under
sagemaker/queue/, and is removed from there once its output or its failure does: a new start of this program finds what
an old one was killed over, and carries it out again. One process serves a queue. GET /endpoints tells what goes on.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import logging
import re
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from http import HTTPStatus
from itertools import count
from typing import IO, Any, NamedTuple

import boto3
import botocore.session
import requests
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from flask import Flask, Response
from flask import request as http
from urllib3.exceptions import NewConnectionError
from werkzeug.exceptions import HTTPException
from werkzeug.serving import WSGIRequestHandler, make_server

ACCOUNT, VARIANT = "000000000000", "AllTraffic"
PING_SECONDS, CONNECT_SECONDS, REALTIME_SECONDS = 2, 5, 60
TTL_SECONDS, INVOCATION_SECONDS = 21600, 900  # of asynchronous requests that do not say
PAYLOAD_BYTES, HEADER_BYTES = (
    6291456,
    4096,
)  # of real-time calls; of an asynchronous answer's headers
ATTEMPTS = 3  # of an asynchronous request, at whose processing a server died each time
REST_SECONDS = 5  # how long nothing is sent to a server after it was told that none is wanted
QUEUE = "sagemaker/queue/"
FORWARDED = (
    "Content-Type",
    "Accept",
    "X-Amzn-SageMaker-Custom-Attributes",
    "X-Amzn-SageMaker-Inference-Id",
)
Json = Any  # whatever JSON can hold
log = logging.getLogger("sagemaker")


class AwsError(Exception):
    """An error as boto3 reads it: `kind` is the exception's name in botocore's model."""

    def __init__(self, status: int, kind: str, message: str, **more: Json) -> None:
        super().__init__(message)
        self.status, self.kind, self.body = status, kind, {"Message": message[:2048], **more}


class Unreached(Exception):  # noqa: N818
    """The server took no connection, so that it has not seen the request."""


class Broken(Exception):  # noqa: N818
    """The server ended in the middle of a request."""


# ---------------------------------------------------------------- requests, by botocore's own model of the service


def invalid(value: object, name: str, constraint: str) -> AwsError:
    what = f"Value '{value}' at '{name[0].lower()}{name[1:]}' failed to satisfy constraint: Member must {constraint}"
    return AwsError(400, "ValidationError", f"1 validation error detected: {what}")


@cache
def service_model() -> Any:  # noqa: ANN401 - botocore's ServiceModel
    return botocore.session.get_session().get_service_model("sagemaker-runtime")


def read_members(operation: str, endpoint: str, headers: Any, body: bytes) -> dict[str, Json]:  # noqa: ANN401
    """The call's members that were given, by botocore's names. Raises AwsError ValidationError."""
    members: dict[str, Json] = {}
    for name, shape in service_model().operation_model(operation).input_shape.members.items():
        where = shape.serialization
        given = {"uri": endpoint, "header": headers.get(where.get("name"))}
        value = given[where["location"]] if where.get("location") else body or None
        if value is not None:
            members[name] = checked(name, value, shape)
    return members


def checked(name: str, value: Json, shape: Any) -> Json:  # noqa: ANN401 - botocore's Shape
    limits, length = shape.metadata, len(value)
    if shape.type_name == "integer":
        if not re.fullmatch(r"[+-]?\d{1,10}", value):
            raise invalid(value, name, "be an integer")
        value = length = int(value)
    what = "value" if shape.type_name == "integer" else "length"
    shown = "(bytes)" if shape.type_name == "blob" else value
    if length > limits.get("max", length):
        raise invalid(shown, name, f"have {what} less than or equal to {limits['max']}")
    if length < limits.get("min", length):
        raise invalid(shown, name, f"have {what} greater than or equal to {limits['min']}")
    pattern = limits.get(
        "pattern", "(?s:.*)"
    )  # Java's; what Python does not know of it is translated
    for java, python in (
        (r"[\p{Print}]", "[ -~]"),
        (r"\p{ASCII}", r"[\x00-\x7f]"),
        (r"\A", ""),
        (r"\z", ""),
    ):
        pattern = pattern.replace(java, python)
    if isinstance(value, str) and not re.fullmatch(pattern, value):
        raise invalid(value, name, f"satisfy regular expression pattern: {limits['pattern']}")
    return value


# ---------------------------------------------------------------- S3


@dataclass
class Request:
    """An asynchronous request as it lies in the queue; places are s3:// addresses."""

    id: str
    headers: dict[str, str]  # for the model server
    output: str
    failure: str
    ttl: int
    timeout: int
    input: str = ""
    body: str = ""  # base64; where there is no input
    accepted: float = field(default_factory=time.time)
    attempts: int = 0

    def is_late(self) -> bool:
        return time.time() > self.accepted + self.ttl


def place(url: str) -> dict[str, str]:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return {"Bucket": bucket, "Key": key}


class Store:
    """The queue and the answers."""

    def __init__(self, output: str, failure: str) -> None:
        self.output, self.failure, self.bucket = (
            output.rstrip("/"),
            failure.rstrip("/"),
            place(output)["Bucket"],
        )
        self.s3 = boto3.client(
            "s3", config=Config(connect_timeout=5, read_timeout=20, max_pool_connections=50)
        )

    def patiently(self, call: Callable[..., Json], **values: Json) -> Json:
        """Until S3 does it: what was accepted is not given up for a fault of the store."""
        for tries in count():
            try:
                return call(**values)
            except NoCredentialsError:
                raise
            except (BotoCoreError, ClientError) as error:
                log.warning("S3: %s; again", error)
                time.sleep(min(10, 0.2 * 2 ** min(tries, 10)))

    def open(self) -> None:
        """Waits for S3, and makes the bucket if there is none."""

        def ensure() -> None:
            if self.bucket not in [bucket["Name"] for bucket in self.s3.list_buckets()["Buckets"]]:
                self.s3.create_bucket(Bucket=self.bucket)

        self.patiently(ensure)

    def key(self, endpoint: str, request_id: str = "") -> str:
        return f"{QUEUE}{endpoint}/{request_id}"

    def enqueue(self, endpoint: str, request: Request) -> None:
        """Raises AwsError ServiceUnavailable where S3 does not take it: then it is not accepted."""
        try:
            data = json.dumps(asdict(request)).encode()
            self.s3.put_object(Bucket=self.bucket, Key=self.key(endpoint, request.id), Body=data)
        except (BotoCoreError, ClientError) as error:
            log.warning("S3: %s; a request was not accepted", error)
            raise AwsError(
                503, "ServiceUnavailable", "The queue cannot be written to. Try again."
            ) from None

    def queued(self, endpoint: str) -> list[Request]:
        """What an earlier process accepted and did not end, first come first."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=self.key(endpoint)
        )
        keys = self.patiently(
            lambda: [item["Key"] for page in pages for item in page.get("Contents", ())]
        )
        unended = []
        for key in keys:
            data = self.patiently(self.s3.get_object, Bucket=self.bucket, Key=key)["Body"].read()
            request = Request(**json.loads(data))
            if self.patiently(self.has_ended, request=request):
                self.patiently(self.s3.delete_object, Bucket=self.bucket, Key=key)
            else:
                unended.append(request)
        return unended

    def has_ended(self, request: Request) -> bool:
        """Whether the answer is there, and is this request's: a Filename may be used twice."""
        for url in (request.output, request.failure):
            try:
                if self.s3.head_object(**place(url))["Metadata"].get("request") == request.id:
                    return True
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] != HTTPStatus.NOT_FOUND:
                    raise
        return False

    def read_input(self, request: Request, into: IO[bytes]) -> str:
        """Why there is none; "" where it is in `into`, which is at its beginning then."""
        into.seek(0)
        into.truncate()
        if not request.input:
            into.write(base64.b64decode(request.body))
        try:
            if request.input:
                self.s3.download_fileobj(**place(request.input), Fileobj=into)
        except ClientError as error:
            if (
                error.response["ResponseMetadata"]["HTTPStatusCode"]
                >= HTTPStatus.INTERNAL_SERVER_ERROR
            ):
                raise
            return f"The input {request.input} could not be read: {error.response['Error'].get('Code')}"
        into.seek(0)
        return ""

    def end(
        self, endpoint: str, request: Request, url: str, body: IO[bytes], content_type: str
    ) -> None:
        """Write the one answer of a request, then take it out of the queue."""

        def write() -> None:
            body.seek(0)
            facts = {"ContentType": content_type, "Metadata": {"request": request.id}}
            self.s3.put_object(**place(url), Body=body, **facts)

        self.patiently(write)
        self.patiently(
            self.s3.delete_object, Bucket=self.bucket, Key=self.key(endpoint, request.id)
        )


# ---------------------------------------------------------------- an endpoint


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: IO[bytes]  # at its beginning

    def is_error(self) -> bool:
        return not 200 <= self.status < 300


class Endpoint:
    """A model server, its health, and (with `store`) its queue."""

    def __init__(
        self, name: str, url: str, store: Store | None, workers: int = 1, idle_seconds: float = 0
    ) -> None:
        self.name, self.url, self.store, self.idle_seconds = (
            name,
            url.rstrip("/"),
            store,
            idle_seconds,
        )
        self.waiting = deque(store.queued(name) if store else ())
        self.running, self.in_service = 0, False
        self.changed = threading.Condition()  # guards the lines above
        self.used, self.rests_until = time.monotonic(), 0.0
        tasks = [self.watch, *[self.work] * (workers if store else 0)]
        for task in tasks:
            threading.Thread(target=task, daemon=True).start()
        if self.waiting:
            log.info("%s: %d requests of an earlier run are carried out", name, len(self.waiting))

    def ping(self) -> bool:
        try:
            with session() as web:
                return (
                    web.get(f"{self.url}/ping", timeout=PING_SECONDS).status_code == HTTPStatus.OK
                )
        except requests.RequestException:
            return False

    def watch(self) -> None:
        """Asks the server's health once a second, and ends requests that have waited too long."""
        while True:
            healthy = self.ping() and time.monotonic() > self.rests_until
            with self.changed:
                if healthy != self.in_service:
                    log.info(
                        "%s: %s",
                        self.name,
                        "in service" if healthy else "out of service: /ping fails",
                    )
                self.in_service = healthy
                late = [request for request in self.waiting if request.is_late()]
                for request in late:
                    self.waiting.remove(request)
                self.changed.notify_all()
            for request in late:
                self.fail(
                    request, f"The request expired: it waited for more than {request.ttl} seconds."
                )
            time.sleep(1)

    def comes_up(self, seconds: float) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: self.in_service, seconds)

    def describe(self) -> dict[str, Json]:
        """Where no instance is wanted, its server may be stopped: nothing is sent to it for some seconds."""
        with self.changed:
            backlog = len(self.waiting) + self.running
            idle = self.idle_seconds and time.monotonic() > self.used + self.idle_seconds
            wanted = 1 if backlog or not idle else 0
            if not wanted:
                self.rests_until, self.in_service = time.monotonic() + REST_SECONDS, False
            status = "InService" if self.in_service else "OutOfService"
            return {
                "EndpointStatus": status,
                "DesiredInstanceCount": wanted,
                "ApproximateBacklogSize": backlog,
            }

    def accept(self, request: Request) -> None:
        assert self.store
        self.store.enqueue(self.name, request)
        with self.changed:
            self.waiting.append(request)
            self.used = time.monotonic()
            self.changed.notify_all()

    def work(self) -> None:
        while True:
            with self.changed:
                while not (self.in_service and self.waiting):
                    self.changed.wait()
                request = self.waiting.popleft()
                self.running += 1
            ended = False
            try:
                ended = self.carry_out(request)
            except Exception:  # our own fault must not keep the others waiting
                log.exception("%s: %s", self.name, request.id)
                self.fail(
                    request, "The request could not be carried out because of an internal failure."
                )
                ended = True
            finally:
                with self.changed:
                    self.running -= 1
                    self.used = time.monotonic()
                    if not ended:
                        self.waiting.appendleft(request)
                        self.in_service = False  # until the next ping

    def carry_out(self, request: Request) -> bool:
        """False when it has to be done again, once the server is back."""
        assert self.store
        with tempfile.TemporaryFile() as body:
            problem = self.store.patiently(self.store.read_input, request=request, into=body)
            if problem:
                return self.fail(request, problem)
            started = time.monotonic()
            try:
                answer = self.post(body, request.headers, request.timeout)
            except Unreached:
                return False
            except Broken:
                request.attempts += 1
                log.warning(
                    "%s: the server broke off %s, try %d", self.name, request.id, request.attempts
                )
                return request.attempts >= ATTEMPTS and self.fail(
                    request, f"The server died {ATTEMPTS} times over it."
                )
            except TimeoutError:
                return self.fail(
                    request, f"The model gave no answer within {request.timeout} seconds."
                )
        with answer.body:
            log.info(
                "%s: %s %d in %.1f s",
                self.name,
                request.id,
                answer.status,
                time.monotonic() - started,
            )
            problem = unfit(answer)
            if problem:
                return self.fail(request, problem)
            url = request.failure if answer.is_error() else request.output
            content_type = answer.headers.get("Content-Type", "application/octet-stream")
            self.store.end(self.name, request, url, answer.body, content_type)
        return True

    def fail(self, request: Request, reason: str) -> bool:
        assert self.store
        log.warning("%s: %s: %s", self.name, request.id, reason)
        self.store.end(
            self.name, request, request.failure, io.BytesIO(reason.encode()), "text/plain"
        )
        return True

    def post(self, body: bytes | IO[bytes], headers: Mapping[str, str], seconds: float) -> Answer:
        """The server's answer. Raises Unreached, Broken, or TimeoutError after `seconds`."""
        end, whole = time.monotonic() + seconds, tempfile.TemporaryFile()  # noqa: SIM115 - it is in the answer
        options: Json = {
            "timeout": (CONNECT_SECONDS, seconds),
            "stream": True,
            "allow_redirects": False,
        }
        try:
            with (
                session() as web,
                web.post(f"{self.url}/invocations", body, headers=headers, **options) as answer,
            ):
                for chunk in answer.iter_content(1 << 16):
                    whole.write(chunk)
                    if time.monotonic() > end:
                        raise TimeoutError
        except requests.ReadTimeout:
            raise TimeoutError from None
        except requests.RequestException as error:
            reason = getattr(error.args[0] if error.args else None, "reason", None)
            if "timed out" in str(reason or error) and time.monotonic() > end:
                raise TimeoutError from None
            is_unreached = isinstance(error, requests.ConnectTimeout) or isinstance(
                reason, NewConnectionError
            )
            raise (Unreached if is_unreached else Broken) from None
        whole.seek(0)
        return Answer(answer.status_code, answer.headers, whole)


def unfit(answer: Answer) -> str:
    """Why asynchronous inference cannot use the answer, if so. An error is handed on in the model's own words."""
    if answer.is_error():
        return "" if answer.headers.get("Content-Length") != "0" else model_error(answer.status, "")
    if "Content-Length" not in answer.headers:
        return (
            "The response from container primary did not specify the required Content-Length header"
        )
    if sum(len(name) + len(value) + 4 for name, value in answer.headers.items()) > HEADER_BYTES:
        return f"The response from container primary has more than {HEADER_BYTES} bytes of headers"
    return ""


def model_error(status: int, message: str) -> str:
    side = "client" if 400 <= status < 500 else "server"
    return f'Received {side} error ({status}) from primary with message "{message}". See the log of the model server.'


def session() -> requests.Session:
    """For one call: sessions are not made to be shared between threads."""
    web = requests.Session()
    web.trust_env = False  # no proxy, no .netrc
    web.headers = {"Accept-Encoding": "identity"}  # type: ignore[assignment]
    return web


# ---------------------------------------------------------------- HTTP


def create_app(endpoints: Mapping[str, Endpoint]) -> Flask:
    app = Flask("sagemaker")
    app.config["MAX_CONTENT_LENGTH"] = PAYLOAD_BYTES

    def find(name: str, operation: str) -> tuple[Endpoint, dict[str, Json]]:
        members = read_members(operation, name, http.headers, http.get_data())
        found = endpoints.get(name)
        if not found:
            raise AwsError(
                400, "ValidationError", f"Endpoint {name} of account {ACCOUNT} not found."
            )
        if (found.store is None) != (operation == "InvokeEndpoint"):
            kind, call = ("real-time", "") if found.store is None else ("asynchronous", "Async")
            message = f"Endpoint {name} of account {ACCOUNT} is {kind}: call InvokeEndpoint{call}."
            raise AwsError(400, "ValidationError", message)
        return found, members

    @app.post("/endpoints/<name>/invocations")
    def invoke(name: str) -> Response:
        endpoint, _ = find(name, "InvokeEndpoint")
        if not endpoint.comes_up(PING_SECONDS):
            raise AwsError(
                503,
                "ServiceUnavailable",
                f"Endpoint {name} has no instance in service: /ping fails.",
            )
        headers = {name: value for name in FORWARDED if (value := http.headers.get(name))}
        return realtime(endpoint, http.get_data(), headers)

    @app.post("/endpoints/<name>/async-invocations")
    def invoke_async(name: str) -> tuple[Json, int, dict[str, str]]:
        endpoint, members = find(name, "InvokeEndpointAsync")
        request = make_request(endpoint, members)
        endpoint.accept(request)
        places = {"OutputLocation": request.output, "FailureLocation": request.failure}
        inference_id = request.headers["X-Amzn-SageMaker-Inference-Id"]
        return (
            {"InferenceId": inference_id},
            202,
            {f"X-Amzn-SageMaker-{key}": url for key, url in places.items()},
        )

    @app.get("/endpoints")
    def describe() -> dict[str, Json]:
        return {name: endpoint.describe() for name, endpoint in endpoints.items()}

    @app.before_request
    def keep_out_the_web() -> None:
        if "Origin" in http.headers:
            raise AwsError(403, "AccessDeniedException", "Pages of the web may not call this.")

    @app.after_request
    def number(response: Response) -> Response:
        response.headers["x-amzn-RequestId"] = str(uuid.uuid4())
        return response

    @app.errorhandler(Exception)
    def tell(error: Exception) -> Response:
        if isinstance(error, HTTPException) and error.code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            error = invalid("(bytes)", "Body", f"have length less than or equal to {PAYLOAD_BYTES}")
        elif isinstance(error, HTTPException):
            status = error.code or 500
            error = AwsError(
                status, "UnknownOperationException", f"There is no {http.method} {http.path} here."
            )
        elif not isinstance(error, AwsError):
            log.exception("%s %s", http.method, http.path)
            error = AwsError(
                500, "InternalFailure", "This is a fault of local/sagemaker.py; its log tells more."
            )
        response = Response(json.dumps(error.body), error.status, content_type="application/json")
        response.headers["x-amzn-ErrorType"] = error.kind
        return response

    return app


def realtime(endpoint: Endpoint, body: bytes, headers: Mapping[str, str]) -> Response:
    """Raises AwsError ModelError for all that the model does wrong."""
    try:
        answer = endpoint.post(body, headers, REALTIME_SECONDS)
    except Unreached:
        raise AwsError(
            503, "ServiceUnavailable", f"Endpoint {endpoint.name} takes no connections."
        ) from None
    except TimeoutError:
        status, said = (
            0,
            "Your invocation timed out while waiting for a response from container primary.",
        )
    except Broken:
        status, said = 0, "The container broke off before its response was complete."
    else:
        with answer.body as file:
            status, data = answer.status, file.read(PAYLOAD_BYTES + 1)
        said = data[:1800].decode(errors="replace")
        if not answer.is_error() and len(data) > PAYLOAD_BYTES:
            status, said = 0, f"The response has more than {PAYLOAD_BYTES} bytes."
        elif not answer.is_error():
            kept = ("Content-Type", "X-Amzn-SageMaker-Custom-Attributes")
            told = {name: answer.headers[name] for name in kept if name in answer.headers}
            return Response(data, headers={**told, "x-Amzn-Invoked-Production-Variant": VARIANT})
    group = f"arn:aws:logs:local:{ACCOUNT}:log-group:/aws/sagemaker/Endpoints/{endpoint.name}"
    more = {"OriginalStatusCode": status, "OriginalMessage": said, "LogStreamArn": group}
    raise AwsError(424, "ModelError", model_error(status, said), **more)


def make_request(endpoint: Endpoint, members: Mapping[str, Json]) -> Request:
    """Raises AwsError ValidationError."""
    assert endpoint.store
    if ("InputLocation" in members) == ("Body" in members):
        raise AwsError(400, "ValidationError", "Provide exactly one of InputLocation and Body.")
    location = members.get("InputLocation", "")
    if location and not (location.startswith("s3://") and place(location)["Key"]):
        raise invalid(
            location, "InputLocation", "be the address of an object in S3, such as s3://bucket/key"
        )
    number = str(uuid.uuid4())
    folder = "".join(
        f"/{part}" for part in members.get("S3OutputPathExtension", "").split("/") if part
    )
    if re.search(r"/\.\.?(/|$)", folder):
        raise invalid(folder, "S3OutputPathExtension", "not have . or .. as a part")
    name = members.get("Filename", f"{number}.out")
    headers = {
        "Content-Type": members.get("ContentType", "application/octet-stream"),
        "Accept": members.get("Accept", "*/*"),
        "X-Amzn-SageMaker-Inference-Id": members.get("InferenceId", number),
        "X-Amzn-SageMaker-Custom-Attributes": members.get("CustomAttributes", ""),
    }
    return Request(
        id=f"{time.time_ns():020}-{number}",  # sorts by time
        headers={key: value for key, value in headers.items() if value},
        output=f"{endpoint.store.output}{folder}/{name}",
        failure=f"{endpoint.store.failure}{folder}/{name.removesuffix('.out')}-error.out",
        ttl=members.get("RequestTTLSeconds", TTL_SECONDS),
        timeout=members.get("InvocationTimeoutSeconds", INVOCATION_SECONDS),
        input=location,
        body=base64.b64encode(members.get("Body", b"")).decode(),
    )


class QuietHandler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, *_: object) -> None:
        pass


def endpoint_option(words: str) -> tuple[str, str]:
    name, _, url = words.partition("=")
    if not re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}", name) or not re.match(
        r"https?://[^/]", url
    ):
        raise argparse.ArgumentTypeError(
            f"{words!r} is not NAME=URL, such as nst=http://127.0.0.1:8081"
        )
    return name, url


def s3_option(words: str) -> str:
    if not re.match(r"s3://[^/]+/.", words):
        raise argparse.ArgumentTypeError(f"{words!r} is not s3://BUCKET/PREFIX")
    return words


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m local.sagemaker",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--endpoint",
        action="append",
        default=[],
        type=endpoint_option,
        metavar="NAME=URL",
        help="asynchronous",
    )
    parser.add_argument(
        "--realtime", action="append", default=[], type=endpoint_option, metavar="NAME=URL"
    )
    parser.add_argument(
        "--output", type=s3_option, default="s3://sagemaker/async/output", help="(%(default)s)"
    )
    parser.add_argument(
        "--failure", type=s3_option, help="(beside --output: failure for its last part)"
    )
    parser.add_argument(
        "--max-concurrent", type=int, default=1, metavar="N", help="asynchronous invocations (1)"
    )
    parser.add_argument(
        "--idle-minutes",
        type=float,
        default=0,
        metavar="N",
        help="then no instance is wanted (never)",
    )
    parser.add_argument(
        "--port", type=int, default=8090, help="on 127.0.0.1; 0: a free one (%(default)s)"
    )
    given = parser.parse_args()
    names = [name for name, _ in given.endpoint + given.realtime]
    if not names or len(set(names)) < len(names):
        parser.error("name at least one endpoint, and each once")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("botocore").setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        store = Store(
            given.output, given.failure or f"{given.output.rstrip('/').rpartition('/')[0]}/failure"
        )
        limits = {"workers": max(1, given.max_concurrent), "idle_seconds": 60 * given.idle_minutes}
        endpoints: dict[str, Endpoint] = {}
        app = create_app(
            endpoints
        )  # its port first: a second start by mistake must not touch the queue
        server = make_server(
            "127.0.0.1", given.port, app, threaded=True, request_handler=QuietHandler
        )
        if given.endpoint:
            store.open()
        endpoints |= {name: Endpoint(name, url, store, **limits) for name, url in given.endpoint}
        endpoints |= {name: Endpoint(name, url, None) for name, url in given.realtime}
        print(
            f"SageMaker runtime at http://127.0.0.1:{server.port}: {', '.join(names)}", flush=True
        )
        server.serve_forever()
    except (OSError, BotoCoreError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        log.info("stopped; what is in the queue waits for the next start")
    return 0


if __name__ == "__main__":
    sys.exit(main())
