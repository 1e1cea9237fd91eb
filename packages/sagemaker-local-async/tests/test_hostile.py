"""What strangers, web pages and broken clients may send: it is refused, and the rest goes on."""

from __future__ import annotations

import contextlib
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from botocore.exceptions import ClientError

from front_door import FrontDoor, client, running, running_with_both, wait_until
from model_server import ModelServer

JSON_TYPE = "application/x-amz-json-1.1"
# A body this long may take so much more memory.
BODY_MEGABYTES = 96
MEMORY_BYTES = 48 * 2**20
SLOW_CLIENTS = 100


@pytest.fixture(scope="module")
def door(
    model_server: ModelServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FrontDoor]:
    with running_with_both(tmp_path_factory.mktemp("door"), model_server.url) as found:
        yield found


@pytest.fixture(autouse=True)
def still_serves(door: FrontDoor) -> Iterator[None]:
    """Check after each test that the program works, and has logged no error of its own."""
    yield
    answer = door.runtime.invoke_endpoint(EndpointName="live", Body=b"{}")
    assert answer["Body"].read() == b"{}"
    assert "Traceback" not in door.log.read_text()


CALLS = (
    ("POST", "/endpoints/live/invocations"),
    ("POST", "/endpoints/queued/async-invocations"),
    ("POST", "/"),
    ("GET", "/endpoints"),
    ("GET", "/"),
    ("OPTIONS", "/endpoints/live/invocations"),
)


@pytest.mark.parametrize(("method", "path"), CALLS)
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "localhost@evil.example"},
        {"Host": "[::ffff:7f00:1].evil.example"},
    ],
)
def test_no_web_page_gets_an_answer(
    door: FrontDoor, method: str, path: str, headers: dict[str, str]
) -> None:
    answer = requests.request(method, f"{door.url}{path}", headers=headers, timeout=10)
    assert 400 <= answer.status_code < 500, answer.text
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert "queued" not in answer.text


def test_only_this_machine_reaches_it(door: FrontDoor) -> None:
    """A server of all addresses would answer at each address of the loopback device."""
    for url in (door.url, door.s3_url):
        port = int(url.rpartition(":")[2])
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.2", port), timeout=5)


def test_the_storage_gives_nothing_to_strangers(door: FrontDoor) -> None:
    accepted = door.ask("queued", {"secret": True})
    door.answer(accepted)
    path = accepted["OutputLocation"].removeprefix("s3://")
    for place in (path, path.partition("/")[0], ""):
        assert requests.get(f"{door.s3_url}/{place}", timeout=10).status_code == 403
    stranger = client("s3", door.s3_url)
    with pytest.raises(ClientError, match=r"InvalidAccessKeyId|AccessDenied|Signature"):
        stranger.list_buckets()


# ------------------------------------------------------------ bodies


def send(door: FrontDoor, head: str, body: bytes = b"", seconds: float = 10) -> bytes:
    """Return the answer to what is written on a new connection, as far as it came."""
    with socket.create_connection(("127.0.0.1", door.port), timeout=seconds) as connection:
        # It may have closed the connection.
        with contextlib.suppress(OSError):
            connection.sendall(head.replace("\n", "\r\n").encode("latin-1") + body)
            connection.shutdown(socket.SHUT_WR)
        return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(65536):
            data += part
    return data


def head_of(path: str, *headers: str) -> str:
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", *headers]
    return "\n".join(lines) + "\n\n"


BAD_HEADERS = {
    "no number": "Content-Length: many",
    "negative": "Content-Length: -1",
    "5,000 digits": f"Content-Length: {'9' * 5000}",
    "twice": "Content-Length: 2\nContent-Length: 300",
    "ten gigabytes": "Content-Length: 10000000000",
    "unknown coding": "Transfer-Encoding: gzip",
    "both": "Transfer-Encoding: chunked\nContent-Length: 2",
}


@pytest.mark.parametrize("path", ["/endpoints/live/invocations", "/"])
@pytest.mark.parametrize("name", BAD_HEADERS)
def test_a_length_that_is_none_is_refused_or_the_connection_is_closed(
    door: FrontDoor, path: str, name: str
) -> None:
    answer = send(door, head_of(path, BAD_HEADERS[name]), b"{}")
    # What follows the head may be taken for the body, as far as it came, and be no request.
    assert not answer or re.match(rb"HTTP/1\.[01] (4\d\d|200|501)", answer), answer[:500]


BAD_CHUNKS = {
    "no size": b"zz\r\n{}\r\n0\r\n\r\n",
    "negative": b"-2\r\n{}\r\n0\r\n\r\n",
    "cut off": b"ff\r\n{}",
    "endless size": b"f" * 100_000,
    "too large": b"ffffffffffffffff\r\n{}",
}


@pytest.mark.parametrize("path", ["/endpoints/live/invocations", "/"])
@pytest.mark.parametrize("name", BAD_CHUNKS)
def test_broken_chunks_are_refused_or_the_connection_is_closed(
    door: FrontDoor, path: str, name: str
) -> None:
    answer = send(door, head_of(path, "Transfer-Encoding: chunked"), BAD_CHUNKS[name])
    assert not answer or re.match(rb"HTTP/1\.[01] (4\d\d|501)", answer), answer[:500]


def memory(door: FrontDoor) -> int:
    """Return the bytes of memory that the program has used at most so far."""
    status = Path(f"/proc/{door.process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found
    return 1024 * int(found[1])


@pytest.mark.parametrize(
    "path", ["/endpoints/live/invocations", "/endpoints/queued/async-invocations", "/"]
)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_huge_body_is_refused_and_not_read_into_memory(
    door: FrontDoor, path: str, chunked: bool
) -> None:
    before = memory(door)

    def body() -> Iterator[bytes]:
        for _ in range(BODY_MEGABYTES):
            yield b"x" * 2**20

    # requests sends a generator in chunks unless the length is given.
    headers = {}
    if not chunked:
        headers = {"Content-Length": str(BODY_MEGABYTES * 2**20)}
    try:
        answer = requests.post(f"{door.url}{path}", data=body(), headers=headers, timeout=20)
        assert 400 <= answer.status_code < 500, answer.text
    except requests.ConnectionError as error:
        # It may close the connection, but not stop reading and leave it open.
        if "timed out" in str(error):
            raise
    assert memory(door) - before < MEMORY_BYTES


def test_long_heads_are_refused(door: FrontDoor) -> None:
    for head in (
        f"GET /{'x' * 10**6} HTTP/1.1\nHost: 127.0.0.1\n\n",
        f"GET / HTTP/1.1\nHost: 127.0.0.1\nLong: {'x' * 10**6}\n\n",
        "GET / HTTP/1.1\nHost: 127.0.0.1\n" + "A: b\n" * 10_000 + "\n",
    ):
        answer = send(door, head)
        assert not answer or re.match(rb"HTTP/1\.[01] 4\d\d", answer), answer[:500]


def test_what_is_no_http_is_refused(door: FrontDoor) -> None:
    for data in (
        b"\x16\x03\x01\x02\x00",
        b"\x00" * 1000,
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
    ):
        answer = send(door, "", data)
        assert b" 200 " not in answer[:20], answer[:500]


def test_slow_clients_hold_up_nobody(door: FrontDoor) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(SLOW_CLIENTS):
            connection = socket.create_connection(("127.0.0.1", door.port), timeout=10)
            stack.enter_context(connection)
            connection.sendall(b"POST /endpoints/live/invocations HTTP/1.1\r\nHost: 127")
        # They are still there.
        answer = door.runtime.invoke_endpoint(EndpointName="live", Body=b"[]")
        assert answer["Body"].read() == b"[]"


# ------------------------------------------------------------ JSON


DEEP = b"[" * 100_000
BAD_JSON = {
    "empty": b"",
    "no JSON": b"ModelName=model",
    "no UTF-8": b'{"ModelName": "\xff\xfe"}',
    "half a surrogate": b'{"ModelName": "\\ud800"}',
    "null": b"null",
    "a list": b"[]",
    "a number": b"7",
    "deep": DEEP + b"]" * 100_000,
    "deep inside": b'{"ModelName": "m", "Tags": ' + DEEP,
    "a long number": b'{"ModelName": ' + b"9" * 10_000 + b"}",
    "no number": b'{"ModelName": NaN}',
    "infinite": b'{"ModelName": 1e999}',
    "a path": b'{"ModelName": "../../etc/passwd"}',
    "a line end": b'{"ModelName": "model\\n"}',
    "a NUL": b'{"ModelName": "mo\\u0000del"}',
}


@pytest.mark.parametrize("operation", ["CreateModel", "DescribeModel", "DeleteModel"])
def test_bad_json_is_refused(door: FrontDoor, operation: str) -> None:
    for name, body in BAD_JSON.items():
        answer = call(door, operation, body)
        assert answer.status_code == 400, (name, answer.text)
        assert answer.json()["__type"] in ("ValidationException", "SerializationException"), name


def test_bad_numbers_are_refused_and_long_ones_do_no_harm(door: FrontDoor) -> None:
    for value in ("NaN", "Infinity", "true", '"1"', "[]"):
        answer = list_models_after(door, value)
        assert answer.status_code == 400, (value, answer.text)
    for value in ("-1e400", "1e400", "9" * 400):
        answer = list_models_after(door, value)
        assert answer.status_code in (200, 400), (value, answer.text)


def list_models_after(door: FrontDoor, value: str) -> requests.Response:
    return call(door, "ListModels", f'{{"CreationTimeAfter": {value}}}'.encode())


def test_operations_that_are_none_are_refused(door: FrontDoor) -> None:
    for operation in ("", "Nonsense", "__class__", "CreateModel.", "x" * 10_000):
        answer = call(door, operation, b"{}")
        assert answer.status_code == 400, operation
        assert answer.json()["__type"] == "UnknownOperationException"


def call(door: FrontDoor, operation: str, body: bytes) -> requests.Response:
    headers = {"X-Amz-Target": f"SageMaker.{operation}", "Content-Type": JSON_TYPE}
    return requests.post(door.url, body, headers=headers, timeout=30)


# ------------------------------------------------------------ storage


POISON: dict[str, bytes] = {
    "empty": b"",
    "no-json": b"garbage",
    "no-utf8": b'{"id": "\xff"}',
    "list": b"[]",
    "nothing": b"{}",
    "deep": b"[" * 100_000,
    "infinite": b'{"id": 1e999}',
    "huge": b'{"id": "' + b"x" * 3_000_000 + b'"}',
}


def test_what_is_unreadable_in_the_storage_is_put_aside_and_the_rest_goes_on(
    model_server: ModelServer, tmp_path: Path
) -> None:
    with running(tmp_path, f"--endpoint=queued={model_server.url}") as door:
        door.wait_until_serving("queued")
        create_endpoint(door, model_server)
        spoil_storage(door)

    with running(tmp_path, f"--endpoint=queued={model_server.url}") as door:
        door.wait_until_serving("queued")
        wait_until(lambda: door.is_serving("created"), 30, "the endpoint that was created is gone")
        for name in ("queued", "created"):
            accepted = door.ask(name, {"still": "working"})
            assert door.answer(accepted) == ("output", b'{"still": "working"}')
        kept = keys(door, "quarantine/")
        for name in POISON:
            assert any(key.endswith(f"/{name}") for key in kept), f"{name} is lost: {kept}"
        assert "Traceback" not in door.log.read_text()


def create_endpoint(door: FrontDoor, model_server: ModelServer) -> None:
    door.control.create_model(
        ModelName="created",
        PrimaryContainer={"Image": model_server.url},
        ExecutionRoleArn="arn:aws:iam::000000000000:role/name",
    )
    door.control.create_endpoint_config(
        EndpointConfigName="created",
        ProductionVariants=[
            {
                "VariantName": "only",
                "ModelName": "created",
                "InitialInstanceCount": 1,
                "InstanceType": "ml.m5.large",
            }
        ],
        AsyncInferenceConfig={
            "OutputConfig": {"S3OutputPath": "s3://sagemaker-local/created/output"}
        },
    )
    door.control.create_endpoint(EndpointName="created", EndpointConfigName="created")
    door.wait_until_serving("created")


def spoil_storage(door: FrontDoor) -> None:
    """Put unreadable objects into each folder that the program keeps its own objects in."""
    # One request in the queue, so that its folder is there.
    door.ask("queued", {"seconds": 1})
    folders = {key.rpartition("/")[0] for key in keys(door, "sagemaker/")}
    assert folders
    for folder in folders:
        for name, data in POISON.items():
            door.s3.put_object(Bucket="sagemaker-local", Key=f"{folder}/{name}", Body=data)


def keys(door: FrontDoor, prefix: str) -> list[str]:
    pages = door.s3.get_paginator("list_objects_v2")
    found: list[str] = []
    for page in pages.paginate(Bucket="sagemaker-local", Prefix=prefix):
        found += [item["Key"] for item in page.get("Contents", ())]
    return found


def test_input_that_cannot_be_read_is_a_failure(door: FrontDoor) -> None:
    for location in ("s3://sagemaker-local/nothing/here", "s3://no-such-bucket/x", "s3://A b?/x"):
        accepted = door.runtime.invoke_endpoint_async(EndpointName="queued", InputLocation=location)
        kind, words = door.answer(accepted)
        assert (kind, b"could not be read" in words) == ("failure", True), words


def test_a_body_that_is_not_utf8_comes_back_unchanged(door: FrontDoor) -> None:
    body = bytes(range(256)) * 100
    accepted: dict[str, Any] = door.ask("queued", Body=body)
    assert door.answer(accepted) == ("output", body)


def test_json_is_not_changed_on_its_way(door: FrontDoor) -> None:
    body = json.dumps({"é": "\u2028", "n": 2**70}).encode()
    assert door.answer(door.ask("queued", Body=body)) == ("output", body)
