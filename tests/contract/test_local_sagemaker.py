"""sagemaker_local as boto3 sees it: before bad containers, and killed again and again."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
from botocore.config import Config
from botocore.exceptions import ClientError, EndpointConnectionError

from local.processes import PYTHON_PATH, free_port
from sagemaker_local.app import create_app
from sagemaker_local.clock import boot_id, seconds_since_boot
from sagemaker_local.container import (
    PING_SECONDS,
    Container,
    DisconnectedError,
    UnreachableError,
)
from sagemaker_local.endpoint import (
    AsyncEndpoint,
    AsyncSettings,
    Endpoint,
    RealtimeEndpoint,
    Variant,
)
from sagemaker_local.instances import Instance
from sagemaker_local.notifications import Notifier
from sagemaker_local.queue import AsyncRequest, RequestQueue
from sagemaker_local.s3 import retry_forever
from sagemaker_local.server import Server as HttpServer
from tests.fakes.container import FakeContainer
from tests.fakes.servers import ROOT, wait_until
from tests.fakes.storage import running_storage

Json = Any  # whatever JSON can hold, and what boto3 makes at run time
BUCKET = "tests"
SEED = 20261122
KILLS = 12
# Requests that are accepted while programs are killed.
REQUESTS = 100
IMAGE = b"\xff\xd8 not really \x00\x80"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Run a SeaweedFS. Return the environment of a process that finds it as S3."""
    with running_storage(tmp_path_factory.mktemp("s3")) as found:
        yield found


def is_up(url: str) -> bool:
    try:
        return requests.get(url, timeout=2).ok
    except requests.RequestException:
        return False


def client(service: str, environment: dict[str, str], url: str, validates: bool = True) -> Json:
    config = Config(
        retries={"total_max_attempts": 1},
        read_timeout=70,
        max_pool_connections=50,
        parameter_validation=validates,
    )
    return boto3.client(
        service,
        endpoint_url=url,
        region_name="us-east-1",
        config=config,
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
    )


class Runtime:
    """The program under test, which can be killed, and its two clients."""

    def __init__(self, environment: dict[str, str], log: Path, *arguments: str) -> None:
        self.port = free_port()
        self.environment = environment
        self.log = log
        self.url = f"http://127.0.0.1:{self.port}"
        self.command = [sys.executable, "-m", "sagemaker_local", f"--port={self.port}"]
        self.command += [f"--output=s3://{BUCKET}/async/output", *arguments]
        self.s3 = client("s3", environment, environment["AWS_ENDPOINT_URL_S3"])
        self.runtime = client("sagemaker-runtime", environment, self.url)

    def start(self) -> None:
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=ROOT, env=self.environment, stdout=log, stderr=log
            )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def is_serving(self, name: str) -> bool:
        try:
            told = requests.get(f"{self.url}/endpoints", timeout=5).json()
        except requests.RequestException:
            return False
        return bool(told[name]["EndpointStatus"] == "InService")

    def comes_up(self, name: str) -> None:
        wait_until(
            lambda: self.is_serving(name), 60, f"{name} is not in service: {self.log.read_text()}"
        )

    def put(self, key: str, **wish: object) -> str:
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=json.dumps(wish).encode())
        return f"s3://{BUCKET}/{key}"

    def ask(self, name: str, wish: Json = None, **options: Json) -> dict[str, Any]:
        """Send an asynchronous request with `wish` as JSON, or with what `options` say."""
        if wish is not None:
            options["Body"] = json.dumps(wish).encode()
        answer: dict[str, Any] = self.runtime.invoke_endpoint_async(EndpointName=name, **options)
        return answer

    def read(self, url: str) -> bytes | None:
        bucket, _, key = url.removeprefix("s3://").partition("/")
        try:
            data: bytes = self.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
            return data
        except self.s3.exceptions.NoSuchKey:
            return None

    def outcome(self, places: dict[str, Any], seconds: float = 30) -> tuple[str, bytes]:
        """("output" or "failure", what it says)."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for kind in ("output", "failure"):
                data = self.read(places[f"{kind.title()}Location"])
                if data is not None:
                    return kind, data
            time.sleep(0.05)
        raise AssertionError(f"neither an output nor a failure; the log: {self.log.read_text()}")

    def queue(self) -> list[str]:
        found = self.s3.list_objects_v2(Bucket=BUCKET, Prefix="sagemaker/queue/")
        return [item["Key"] for item in found.get("Contents", ())]


@contextmanager
def running(environment: dict[str, str], folder: Path, *arguments: str) -> Iterator[Runtime]:
    runtime = Runtime(environment, folder / "sagemaker.log", *arguments)
    runtime.start()
    try:
        yield runtime
    finally:
        runtime.kill()


@pytest.fixture(scope="module")
def container() -> Iterator[FakeContainer]:
    with FakeContainer() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def world(
    environment: dict[str, str], container: FakeContainer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Runtime]:
    arguments = [
        f"--endpoint=queued={container.url}",
        f"--realtime=live={container.url}",
        "--max-concurrent=2",
    ]
    with running(environment, tmp_path_factory.mktemp("runtime"), *arguments) as runtime:
        runtime.comes_up("queued")
        runtime.comes_up("live")
        yield runtime


def headers_of(container: FakeContainer, body: bytes) -> dict[str, str]:
    return next(headers for headers, got in container.requests if got == body)


def error_of(call: Json, **options: Json) -> dict[str, Any]:
    with pytest.raises(ClientError) as caught:
        call(**options)
    response: dict[str, Any] = caught.value.response
    return response


# ---------------------------------------------------------------- real-time


def test_a_real_time_call_goes_to_the_container_and_back(
    world: Runtime, container: FakeContainer
) -> None:
    attributes = {
        "CustomAttributes": "style=monet",
        "InferenceId": "photo 7",
        "Accept": "image/png",
    }
    answer = world.runtime.invoke_endpoint(
        EndpointName="live", Body=IMAGE, ContentType="image/jpeg", **attributes
    )
    assert answer["Body"].read() == IMAGE
    assert (answer["ContentType"], answer["InvokedProductionVariant"]) == (
        "application/json",
        "AllTraffic",
    )
    got = headers_of(container, IMAGE)
    assert (got["content-type"], got["accept"]) == ("image/jpeg", "image/png")
    assert got["x-amzn-sagemaker-custom-attributes"] == "style=monet"
    assert got["x-amzn-sagemaker-inference-id"] == "photo 7"
    assert "authorization" not in got


def test_the_models_custom_attributes_come_back(world: Runtime) -> None:
    wish = {"headers": {"X-Amzn-SageMaker-Custom-Attributes": "seconds=3"}}
    answer = world.runtime.invoke_endpoint(EndpointName="live", Body=json.dumps(wish).encode())
    assert answer["CustomAttributes"] == "seconds=3"


@pytest.mark.parametrize(
    ("status", "side"), [(400, "client"), (500, "server"), (503, "server"), (302, "server")]
)
def test_a_models_error_is_told_with_its_own_words(world: Runtime, status: int, side: str) -> None:
    wish = json.dumps({"status": status, "why": "Ünlucky"}).encode()
    error = error_of(world.runtime.invoke_endpoint, EndpointName="live", Body=wish)
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert error["Error"]["Code"] == "ModelError"
    assert (error["OriginalStatusCode"], error["OriginalMessage"]) == (status, wish.decode())
    assert f"Received {side} error ({status}) from primary" in error["Error"]["Message"]
    assert error["LogStreamArn"].endswith("/live")


def test_a_container_that_breaks_off_is_a_models_error(world: Runtime) -> None:
    error = error_of(world.runtime.invoke_endpoint, EndpointName="live", Body=b'{"half": true}')
    assert (error["Error"]["Code"], error["OriginalStatusCode"]) == ("ModelError", 0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"EndpointName": "nobody"}, "Endpoint nobody of account 000000000000 not found."),
        ({"EndpointName": "queued"}, "asynchronous"),
        (
            {"InferenceId": "x" * 65},
            "'inferenceId' failed to satisfy constraint: Member must have length less than",
        ),
        (
            {"CustomAttributes": "é"},
            "'customAttributes' failed to satisfy constraint: Member must satisfy regular",
        ),
        ({"Body": b"x" * 6291457}, "Member must have length less than or equal to 6291456"),
    ],
)
def test_a_real_time_call_that_is_wrong(world: Runtime, options: dict[str, Any], said: str) -> None:
    call = {"EndpointName": "live", "Body": b"{}"} | options
    error = error_of(world.runtime.invoke_endpoint, **call)
    assert (error["Error"]["Code"], error["ResponseMetadata"]["HTTPStatusCode"]) == (
        "ValidationError",
        400,
    )
    assert said in error["Error"]["Message"]


def test_other_operations_and_pages_of_the_web_are_refused(world: Runtime) -> None:
    unknown = requests.post(f"{world.url}/endpoints/live/dance", timeout=10)
    assert (unknown.status_code, unknown.headers["x-amzn-ErrorType"]) == (
        404,
        "UnknownOperationException",
    )
    page = requests.post(
        f"{world.url}/endpoints/live/invocations", headers={"Origin": "http://evil"}, timeout=10
    )
    assert (page.status_code, page.headers["x-amzn-ErrorType"]) == (403, "AccessDeniedException")


def test_only_its_own_names_lead_to_it(world: Runtime) -> None:
    for name in ("127.0.0.1", "localhost"):
        own = {"Host": f"{name}:{world.port}"}
        assert requests.get(f"{world.url}/endpoints", headers=own, timeout=10).ok
    # A page of this site, whose name was made to lead to this machine, could read the answer.
    foreign = {"Host": f"evil.example:{world.port}"}
    answer = requests.get(f"{world.url}/endpoints", headers=foreign, timeout=10)
    assert answer.status_code == 421
    assert answer.json()["Message"] == ("This server is not called evil.example: use 127.0.0.1.")


def test_with_signed_it_serves_the_owner_of_its_credentials_only(
    environment: dict[str, str], container: FakeContainer, tmp_path: Path
) -> None:
    arguments = (f"--realtime=live={container.url}", f"--endpoint=later={container.url}")
    with running(environment, tmp_path, *arguments, "--signed") as runtime:
        owner = client("sagemaker", environment, runtime.url)

        def is_up() -> bool:
            with suppress(EndpointConnectionError):
                return bool(owner.list_endpoints()["Endpoints"])
            return False

        wait_until(is_up, 30, "it does not know its own signature")
        answer = runtime.runtime.invoke_endpoint(EndpointName="live", Body=IMAGE)
        assert answer["Body"].read() == IMAGE
        asked = runtime.ask("later", wish={"signed": True}, CustomAttributes="a  b=c;d")
        assert runtime.outcome(asked) == ("output", b'{"signed": true}')

        thieves = {
            "no signature": {},
            "another secret": {"AWS_SECRET_ACCESS_KEY": "guessed"},
            "another key": {"AWS_ACCESS_KEY_ID": "guessed"},
        }
        assert requests.get(f"{runtime.url}/endpoints", timeout=10).status_code == 403
        for name, changes in thieves.items():
            thief = client("sagemaker-runtime", environment | changes, runtime.url)
            if not changes:
                thief.meta.events.register("before-send", drop_signature)
            error = error_of(thief.invoke_endpoint, EndpointName="live", Body=b"{}")
            assert error["Error"]["Code"] == "InvalidSignatureException", name
            assert error["ResponseMetadata"]["HTTPStatusCode"] == 403


def drop_signature(request: Json, **_: object) -> None:
    del request.headers["Authorization"]


# ---------------------------------------------------------------- asynchronous


def test_an_asynchronous_request_ends_in_its_output(
    world: Runtime, container: FakeContainer
) -> None:
    place = world.put("jobs/1/request.json", photo="one")
    options = {
        "ContentType": "application/json",
        "Accept": "text/x",
        "CustomAttributes": "a=b",
        "InferenceId": "j1",
    }
    answer = world.ask("queued", InputLocation=place, **options)
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert answer["InferenceId"] == "j1"
    assert answer["OutputLocation"].startswith(f"s3://{BUCKET}/async/output/")
    assert answer["OutputLocation"].endswith(".out")
    assert answer["FailureLocation"].startswith(f"s3://{BUCKET}/async/failure/")
    assert world.outcome(answer) == ("output", b'{"photo": "one"}')
    got = headers_of(container, b'{"photo": "one"}')
    assert (got["content-type"], got["accept"]) == ("application/json", "text/x")
    assert (got["x-amzn-sagemaker-custom-attributes"], got["x-amzn-sagemaker-inference-id"]) == (
        "a=b",
        "j1",
    )


def test_an_inline_body_and_a_name_of_ones_own(world: Runtime) -> None:
    answer = world.ask(
        "queued", wish={"inline": 1}, S3OutputPathExtension="mine/today", Filename="result.json"
    )
    assert answer["OutputLocation"] == f"s3://{BUCKET}/async/output/mine/today/result.json"
    assert answer["InferenceId"]
    assert world.outcome(answer) == ("output", b'{"inline": 1}')


@pytest.mark.parametrize(
    ("wish", "options", "said"),
    [
        ({"status": 400, "error": "too dark"}, {}, b"too dark"),
        ({"status": 500, "error": "a fault"}, {}, b"a fault"),
        ({"chunked": True}, {}, b"Content-Length"),
        ({"headers": {"X-Long": "x" * 4096}}, {}, b"bytes of headers"),
        ({"seconds": 3}, {"InvocationTimeoutSeconds": 1}, b"no answer within 1 seconds"),
        ({"half": True}, {}, b"died 3 times"),
        (None, {"InputLocation": f"s3://{BUCKET}/nothing/here"}, b"could not be read: "),
        (None, {"InputLocation": "s3://no-such-bucket/x"}, b"could not be read: "),
    ],
)
def test_what_goes_wrong_ends_in_the_failure(
    world: Runtime, wish: Json, options: dict[str, Any], said: bytes
) -> None:
    kind, words = world.outcome(world.ask("queued", wish=wish, **options))
    assert kind == "failure"
    assert said in words


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("nobody", {"Body": b"{}"}, "not found"),
        ("live", {"Body": b"{}"}, "real-time"),
        ("queued", {}, "exactly one of InputLocation and Body"),
        (
            "queued",
            {"Body": b"{}", "InputLocation": "s3://b/k"},
            "exactly one of InputLocation and Body",
        ),
        ("queued", {"Body": b"x" * 128001}, "less than or equal to 128000"),
        ("queued", {"InputLocation": "ftp://b/k"}, "'inputLocation' failed to satisfy constraint"),
        (
            "queued",
            {"InputLocation": "https://b/k"},
            "'inputLocation' failed to satisfy constraint",
        ),
        ("queued", {"Body": b"{}", "RequestTTLSeconds": 59}, "'requestTTLSeconds'"),
        ("queued", {"Body": b"{}", "InvocationTimeoutSeconds": 3601}, "less than or equal to 3600"),
        (
            "queued",
            {"Body": b"{}", "S3OutputPathExtension": "a/../../b"},
            "'s3OutputPathExtension'",
        ),
    ],
)
def test_an_asynchronous_call_that_is_wrong(
    world: Runtime, name: str, options: dict[str, Any], said: str
) -> None:
    error = error_of(unchecked(world).invoke_endpoint_async, EndpointName=name, **options)
    assert (error["Error"]["Code"], error["ResponseMetadata"]["HTTPStatusCode"]) == (
        "ValidationError",
        400,
    )
    assert said in error["Error"]["Message"]


def unchecked(world: Runtime) -> Json:
    """Return a client that sends even what botocore knows to be wrong."""
    return client("sagemaker-runtime", world.environment, world.url, validates=False)


def test_no_more_than_two_at_a_time_and_all_in_the_end(
    world: Runtime, container: FakeContainer
) -> None:
    wait_until(lambda: container.running == 0, 10, "a request that timed out still runs")
    container.most = 0
    asked = [world.ask("queued", wish={"seconds": 0.1, "n": n}) for n in range(12)]
    assert [world.outcome(places)[0] for places in asked] == ["output"] * 12
    assert container.most == 2
    wait_until(lambda: not world.queue(), 10, "the queue does not empty")


class InProcess(Runtime):
    """The same program in this process, with short intervals."""

    def __init__(self, environment: dict[str, str], log: Path, container_url: str) -> None:
        super().__init__(environment, log)
        instance = Instance(container_url)
        instance.container = Container(container_url, ping_seconds=0.3)
        queue = RequestQueue(self.s3, BUCKET)
        queue.wait_for_bucket()
        notifier = Notifier(self.s3, BUCKET, {})
        folder = f"s3://{BUCKET}/async"
        settings = AsyncSettings(f"{folder}/output", f"{folder}/failure")
        self.live = RealtimeEndpoint("live", [Variant("v", instance)], ping_interval=0.05)
        self.queued = AsyncEndpoint(
            "patient", Variant("v", instance), queue, notifier, settings, ping_interval=0.05
        )
        self.endpoints: dict[str, Endpoint] = {"live": self.live, "patient": self.queued}
        self.server = HttpServer("127.0.0.1", self.port, create_app(self.endpoints, {}))
        log.write_text("")

    def start(self) -> None:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        for endpoint in self.endpoints.values():
            endpoint.start()

    def kill(self) -> None:
        self.server.shutdown()


@pytest.fixture
def quick(
    environment: dict[str, str], container: FakeContainer, tmp_path: Path
) -> Iterator[InProcess]:
    """Not started."""
    runtime = InProcess(environment, tmp_path / "log", container.url)
    yield runtime
    runtime.server.server_close()


def test_an_endpoint_whose_ping_fails_is_taken_out_and_comes_back(
    quick: InProcess, container: FakeContainer
) -> None:
    quick.start()
    quick.comes_up("live")
    container.healthy = False
    wait_until(lambda: not quick.is_serving("live"), 10, "it stayed in service")
    error = error_of(quick.runtime.invoke_endpoint, EndpointName="live", Body=b"{}")
    assert error["Error"]["Code"] == "ServiceUnavailable"
    wait_until(lambda: not quick.is_serving("patient"), 10, "it stayed in service")
    asked = quick.ask("patient", wish={"patience": 1})
    time.sleep(0.3)
    assert quick.queue(), "it was not kept"
    container.healthy = True
    container.ping_seconds = 1.0
    time.sleep(1.5)
    assert not quick.is_serving("live"), "a ping that takes too long is no good one"
    container.ping_seconds = 0
    assert quick.outcome(asked) == ("output", b'{"patience": 1}')
    quick.kill()


def test_a_container_may_listen_at_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "Model 1.sock"
    container = Container(f"unix:{path}")
    assert container.find_ping_problem()
    with pytest.raises(UnreachableError):
        container.invoke(b"{}", {}, 10)
    with FakeContainer(path=str(path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert not container.find_ping_problem()
        answer = container.invoke(IMAGE, {"Content-Type": "image/jpeg"}, 10)
        assert (answer.status, answer.body.read()) == (200, IMAGE)
        assert headers_of(server, IMAGE)["content-type"] == "image/jpeg"
        with pytest.raises(DisconnectedError):
            container.invoke(b'{"half": true}', {}, 10)
        server.shutdown()
    with pytest.raises(UnreachableError):
        container.invoke(b"{}", {}, 10)


def test_a_ping_may_take_2_seconds_as_at_sagemaker(container: FakeContainer) -> None:
    assert Container(container.url).ping_seconds == PING_SECONDS == 2


def test_a_request_that_has_waited_too_long_ends_in_the_failure(quick: InProcess) -> None:
    places = {
        "OutputLocation": f"s3://{BUCKET}/async/output/late.out",
        "FailureLocation": f"s3://{BUCKET}/async/failure/late-error.out",
    }
    late = AsyncRequest(
        "late",
        {},
        output=places["OutputLocation"],
        failure=places["FailureLocation"],
        ttl=3599,
        timeout=900,
        accepted_since_boot=seconds_since_boot() - 3600,
    )
    quick.queued.accept(late)
    quick.queued.end_expired_requests()
    kind, words = quick.outcome(places)
    assert (kind, words) == (
        "failure",
        b"The request expired: it waited for more than 3599 seconds.",
    )
    assert quick.queue() == []
    assert quick.queued.describe()["ApproximateBacklogSize"] == 0


def test_a_wall_clock_that_is_set_ends_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = RequestQueue(None, BUCKET)
    key = queue.key("nst", "1")
    now = time.time()
    for hours in (2, -2):
        request = AsyncRequest.from_json(stored_request("1"))
        monkeypatch.setattr(time, "time", lambda: now + hours * 3600)  # noqa: B023 - called below
        assert not request.has_expired()
        # A restart of the program changes nothing.
        again = queue.parse_request("nst", [BUCKET], key, request.to_json())
        assert not again.has_expired()
        monkeypatch.setattr(time, "time", lambda: now)


@pytest.mark.parametrize(("ago", "expires"), [(7200, True), (60, False), (-7200, False)])
def test_after_a_boot_the_wall_clock_says_how_long_a_request_has_waited(
    ago: float, expires: bool
) -> None:
    queue = RequestQueue(None, BUCKET)
    # The clock of another boot tells nothing.
    for since_boot in (0.0, 10.0**9):
        data = stored_request(
            "1", boot="another", accepted_since_boot=since_boot, accepted=time.time() - ago
        )
        request = queue.parse_request("nst", [BUCKET], queue.key("nst", "1"), data)
        assert request.boot == boot_id()
        assert request.has_expired() is expires


def test_a_request_is_the_same_after_it_was_stored() -> None:
    request = AsyncRequest("1", {"Accept": "*/*"}, "s3://b/o", "s3://b/f", 60, 900, body="e30=")
    assert AsyncRequest.from_json(request.to_json()) == request


def deep(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


def stored_request(number: str, **changes: Json) -> bytes:
    request = {
        "id": number,
        "headers": {},
        "output": f"s3://{BUCKET}/async/output/{number}.out",
        "failure": f"s3://{BUCKET}/async/failure/{number}-error.out",
        "ttl": 3600,
        "timeout": 900,
        "body": "e30=",
    }
    return json.dumps(request | changes).encode()


POISON = {
    "empty": b"",
    "no-json": b"garbage",
    "no-utf8": b'{"id": "\xff"}',
    "list": b"[]",
    "null": b"null",
    "nothing": b"{}",
    "deep": deep(100_000),
    "deep-inside": b'{"id": "deep-inside", "more": ' + deep(100_000) + b"}",
    "huge": stored_request("huge", body="A" * 10_000_000),
    "types": stored_request("types", ttl="3600"),
    "no-dictionary": stored_request("no-dictionary", headers=[]),
    "header-of-a-number": stored_request("header-of-a-number", headers={"Accept": 1}),
    "infinite": stored_request("infinite").replace(b"3600", b"1e999"),
    "long-number": stored_request("long-number", timeout=10**300),
    "later-version": stored_request("later-version", version=2),
    # The same request twice, of which one could not be removed.
    "duplicate": stored_request("good"),
    "odd key \n \u2028 ?#%2F+ü": b"garbage",
    "no-bucket": stored_request("no-bucket", output="s3://A b/x"),
    "no-url": stored_request("no-url", failure="file:///etc/passwd"),
    "foreign-bucket": stored_request("foreign-bucket", output="s3://another/x"),
    "long-url": stored_request("long-url", output=f"s3://{BUCKET}/{'x' * 2000}"),
}


def test_what_is_unreadable_in_the_queue_is_moved_aside_and_the_rest_goes_on(
    environment: dict[str, str], container: FakeContainer, tmp_path: Path
) -> None:
    with running(environment, tmp_path, f"--endpoint=other={container.url}") as runtime:
        runtime.comes_up("other")
        for name, data in POISON.items():
            key = f"sagemaker/queue/poisoned/{name}"
            runtime.s3.put_object(Bucket=BUCKET, Key=key, Body=data)
        good = stored_request("good")
        runtime.s3.put_object(Bucket=BUCKET, Key="sagemaker/queue/poisoned/good", Body=good)

    with running(environment, tmp_path, f"--endpoint=poisoned={container.url}") as runtime:
        runtime.comes_up("poisoned")
        places = {
            "OutputLocation": f"s3://{BUCKET}/async/output/good.out",
            "FailureLocation": f"s3://{BUCKET}/async/failure/good-error.out",
        }
        assert runtime.outcome(places) == ("output", b"{}")
        asked = runtime.ask("poisoned", wish={"still": "working"})
        assert runtime.outcome(asked)[0] == "output"
        wait_until(lambda: not runtime.queue(), 10, "the queue does not empty")

        for name, data in POISON.items():
            place = f"s3://{BUCKET}/quarantine/sagemaker/queue/poisoned/{name}"
            assert runtime.read(place) == data, f"{name} is lost"
        log = runtime.log.read_text()
        assert "poisoned/types' cannot be read: Expected `int`, got `str` - at `$.ttl`" in log
        assert f"{len(POISON)} unreadable objects below s3://{BUCKET}/sagemaker/queue/" in log
        assert "Traceback" not in log


def test_an_input_that_no_bucket_can_have_is_a_failure_and_stops_nothing(world: Runtime) -> None:
    asked = world.ask("queued", InputLocation="s3://A b?/x")
    kind, words = world.outcome(asked)
    assert (kind, b"there can be no such bucket" in words) == ("failure", True)


def test_a_fault_of_s3_is_waited_out_with_longer_and_longer_pauses() -> None:
    error = ClientError({"Error": {"Code": "InternalError"}}, "PutObject")
    answers: list[Exception | str] = [error] * 8 + ["done"]
    pauses: list[float] = []

    def call() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert retry_forever(call, pauses.append) == "done"
    assert pauses == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]


# ---------------------------------------------------------------- sleep and death


def test_an_idle_endpoint_wants_no_server_until_the_next_request(
    environment: dict[str, str], container: FakeContainer, tmp_path: Path
) -> None:
    with running(
        environment, tmp_path, f"--endpoint=lazy={container.url}", "--idle-minutes=0.03"
    ) as runtime:

        def wanted() -> int:
            told = requests.get(f"{runtime.url}/endpoints", timeout=5).json()["lazy"]
            return int(told["DesiredInstanceCount"])

        runtime.comes_up("lazy")
        assert wanted() == 1
        wait_until(lambda: wanted() == 0, 10, "it stays awake")
        asked = runtime.ask("lazy", wish={"good": "morning"})
        assert wanted() == 1
        assert runtime.outcome(asked) == ("output", b'{"good": "morning"}')


class Server:
    """A container in a process of its own, which can be killed."""

    def __init__(self) -> None:
        self.port = free_port()
        self.arguments = [f"--endpoint=mortal=http://127.0.0.1:{self.port}", "--max-concurrent=3"]

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.container", str(self.port)], cwd=ROOT
        )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def test_what_was_accepted_ends_in_an_output_or_a_failure_whoever_is_killed(
    environment: dict[str, str], tmp_path: Path
) -> None:
    dice = random.Random(SEED)
    accepted: dict[int, tuple[int, dict[str, Any]]] = {}
    stop = threading.Event()
    with Server() as server, running(environment, tmp_path, *server.arguments) as runtime:

        def ask() -> None:
            own_dice = random.Random(SEED)
            number = 0
            while not stop.wait(own_dice.uniform(0, 0.1)):
                number += 1
                status = own_dice.choice([200, 200, 200, 400])
                wish = {"n": number, "seconds": own_dice.uniform(0, 0.3), "status": status}
                try:
                    places = runtime.ask("mortal", wish=wish)
                except Exception:
                    continue  # not accepted: it is being killed
                accepted[number] = (status, places)

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            for _ in range(KILLS):
                time.sleep(dice.uniform(0.1, 2.0))
                for victim in dice.choice(victims(runtime, server)):
                    victim.kill()
                    victim.start()
            wait_until(lambda: len(accepted) >= REQUESTS, 120, "it accepts no requests")
        finally:
            stop.set()
            asking.join()
        wait_until(lambda: not runtime.queue(), 120, "the queue does not empty")
        counts = {"output": 0, "failure": 0}
        for number, (status, places) in accepted.items():
            output = runtime.read(places["OutputLocation"])
            failure = runtime.read(places["FailureLocation"])
            assert (output is None) != (failure is None), (
                f"request {number}: {output!r} {failure!r}"
            )
            if output is not None:
                counts["output"] += 1
                assert status == 200, f"request {number}: {output!r}"
            if failure is not None:
                counts["failure"] += 1
                assert status == 400 or b"died" in failure, f"request {number}: {failure!r}"
        print(f"{KILLS} kills, {len(accepted)} accepted requests: {counts}")
        assert counts["output"] > 50


def victims(runtime: Runtime, server: Server) -> list[list[Runtime | Server]]:
    return [[runtime], [server], [server, runtime]]


def test_a_stop_loses_nothing_either(
    environment: dict[str, str], container: FakeContainer, tmp_path: Path
) -> None:
    with running(environment, tmp_path, f"--endpoint=stopped={container.url}") as runtime:
        runtime.comes_up("stopped")
        asked = [runtime.ask("stopped", wish={"seconds": 0.5, "n": n}) for n in range(4)]
        runtime.process.send_signal(signal.SIGTERM)
        assert runtime.process.wait(10) == 0
        runtime.start()
        assert [runtime.outcome(places)[0] for places in asked] == ["output"] * 4


def test_a_wrong_command_is_told_in_words(environment: dict[str, str]) -> None:
    for arguments in (
        ["--endpoint=x"],
        ["--max-concurrent=0"],
        ["--topic=done"],
        ["--port=70000"],
        ["--endpoint=a=http://h:1", "--realtime=a=http://h:1"],
        ["--output=/tmp"],
    ):
        command = [sys.executable, "-m", "sagemaker_local", *arguments]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": PYTHON_PATH},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
