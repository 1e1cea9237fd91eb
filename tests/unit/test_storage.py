"""Reading and writing by address: S3, https, and what must never be reached or told."""

import contextlib
import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from botocore.exceptions import NoCredentialsError

from containers.serving import storage
from containers.serving.errors import ApiError
from tests.fakes.storage import moto_bucket

SECRET = "X-Amz-Signature=very-secret"
Answer = Callable[[BaseHTTPRequestHandler], None]


def refusal(function: Callable[..., Any], *arguments: Any) -> ApiError:  # noqa: ANN401
    with pytest.raises(ApiError) as caught:
        function(*arguments)
    assert "very-secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    return caught.value


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    storage.s3.cache_clear()
    with moto_bucket(monkeypatch, "eu-west-1") as client:
        yield client
    storage.s3.cache_clear()


def test_s3_reads_what_was_written_and_names_what_is_missing(s3: Any) -> None:  # noqa: ANN401
    storage.write("s3://bucket/jobs/1/a b.jpg", b"picture", "image/jpeg", "result_url")
    assert storage.read("s3://bucket/jobs/1/a b.jpg", "content_url") == b"picture"
    assert s3.head_object(Bucket="bucket", Key="jobs/1/a b.jpg")["ContentType"] == "image/jpeg"
    missing = refusal(storage.read, "s3://bucket/none", "content_url")
    assert (missing.status, missing.code) == (404, "object_not_found")
    assert "content_url" in missing.message
    assert refusal(storage.read, "s3://no-such-bucket/none", "style_url").status == 404
    unwritten = refusal(storage.write, "s3://no-such-bucket/none", b"", "image/jpeg", "result_url")
    assert unwritten.status == 404


def test_an_s3_object_above_the_limit_is_not_read(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    monkeypatch.setattr(storage, "MAX_FILE_MEGABYTES", 1)
    s3.put_object(Bucket="bucket", Key="large", Body=b"\0" * ((1 << 20) + 1))
    assert refusal(storage.read, "s3://bucket/large", "content_url").status == 413


def test_s3_that_cannot_be_reached_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    storage.s3.cache_clear()
    error = refusal(storage.read, "s3://bucket/a", "content_url")
    storage.s3.cache_clear()
    assert (error.status, error.code) == (400, "storage_failed")


# --- over HTTP, from a server that misbehaves ---


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Answer], str]]:
    """Starts a server that answers every request by a function; gives its address."""
    monkeypatch.setenv("ALLOW_HTTP", "1")
    monkeypatch.setenv("ALLOW_PRIVATE_HOSTS", "1")
    servers: list[ThreadingHTTPServer] = []

    def start(answer: Answer) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer(self)

            do_PUT = do_GET  # noqa: N815 - the base class's own

            def log_message(self, *_: Any) -> None:  # noqa: ANN401
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def reply(status: int, body: bytes = b"", **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def test_http_reads_and_follows_redirects(serve: Callable[[Answer], str]) -> None:
    target = serve(reply(200, b"picture"))
    assert storage.read(f"{target}/a?{SECRET}", "content_url") == b"picture"
    hop = serve(reply(302, Location=f"{target}/a"))
    assert storage.read(f"{hop}/b", "content_url") == b"picture"


def test_the_body_of_a_redirect_is_not_read(serve: Callable[[Answer], str]) -> None:
    target = serve(reply(200, b"picture"))
    sent: list[int] = []

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", target)
        handler.end_headers()
        with contextlib.suppress(OSError):
            while len(sent) < 512:
                handler.wfile.write(b"x" * (1 << 20))
                sent.append(1)

    assert storage.read(serve(endless), "content_url") == b"picture"
    assert len(sent) < 64, f"{len(sent)} MB were read"


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (404, {}, (404, "object_not_found")),
        (403, {}, (400, "storage_failed")),
        (500, {}, (400, "storage_failed")),
        (302, {"Location": "/again"}, (400, "bad_request")),
        (302, {"Location": "file:///etc/passwd"}, (400, "bad_request")),
        (302, {"Location": "s3://bucket/key"}, (400, "bad_request")),
    ],
)
def test_http_failures(
    serve: Callable[[Answer], str], status: int, headers: dict[str, str], expected: tuple[int, str]
) -> None:
    address = serve(reply(status, b"", **headers))
    error = refusal(storage.read, f"{address}/a?{SECRET}", "content_url")
    assert (error.status, error.code) == expected


def test_a_file_above_the_limit_is_given_up_however_it_comes(
    serve: Callable[[Answer], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "MAX_FILE_MEGABYTES", 1)
    announced = serve(reply(200, b"", **{"X-Size": "large"}))
    assert storage.read(announced, "content_url") == b""

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            for _ in range(1000):
                handler.wfile.write(b"\0" * 65536)
        except OSError:
            pass

    assert refusal(storage.read, serve(endless), "content_url").status == 413


def test_a_trickle_ends_at_the_time_limit(
    serve: Callable[[Answer], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "TRANSFER_SECONDS", 1)

    def trickle(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        try:
            for _ in range(100):
                handler.wfile.write(b"\0")
                handler.wfile.flush()
                time.sleep(0.1)
        except OSError:
            pass

    started = time.monotonic()
    assert refusal(storage.read, serve(trickle), "content_url").code == "storage_failed"
    assert time.monotonic() - started < 5


def test_a_body_that_breaks_off_is_told(serve: Callable[[Answer], str]) -> None:
    def half(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"half")

    assert refusal(storage.read, f"{serve(half)}/?{SECRET}", "content_url").code == "storage_failed"


def test_http_writes_and_tells_a_refusal(serve: Callable[[Answer], str]) -> None:
    seen = []

    def keep(handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        seen.append((handler.headers["Content-Type"], body))
        reply(200)(handler)

    storage.write(serve(keep), b"picture", "image/png", "result_url")
    assert seen == [("image/png", b"picture")]
    error = refusal(storage.write, f"{serve(reply(403))}/?{SECRET}", b"", "image/png", "result_url")
    assert (error.status, error.code) == (400, "storage_failed")


# --- where nothing may lead ---


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "169.254.169.254",
        "10.1.2.3",
        "192.168.0.1",
        "172.16.0.1",
        "100.64.0.1",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[fe80::1]",
        "[fd00::1]",
        "[::ffff:169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:a9fe:a9fe::1]",
        "2852039166",
        "0x7f.1",
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_private_addresses_are_refused(
    monkeypatch: pytest.MonkeyPatch, scheme: str, host: str
) -> None:
    monkeypatch.setenv("ALLOW_HTTP", "1")
    for function, arguments in ((storage.read, ()), (storage.write, (b"", "image/jpeg"))):
        error = refusal(
            function, f"{scheme}://{host}/latest/meta-data?{SECRET}", *arguments, "content_url"
        )
        assert (error.status, error.code) == (400, "private_address")


def test_a_redirect_to_a_private_address_is_refused(
    serve: Callable[[Answer], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    address = serve(reply(302, Location="http://169.254.169.254/latest/meta-data"))
    real = storage.check_address
    # Only the first hop may be local
    monkeypatch.setattr(
        storage, "check_address", lambda ip: None if ip == "127.0.0.1" else real(ip)
    )
    monkeypatch.delenv("ALLOW_PRIVATE_HOSTS")
    assert refusal(storage.read, address, "content_url").code == "private_address"


def test_a_name_that_resolves_anew_to_a_private_address_is_refused(
    serve: Callable[[Answer], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name resolves to a public address for the check, and then to this machine."""
    reached: list[str] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        reached.append(handler.path)
        reply(200, b"secret")(handler)

    address = serve(answer)
    port = int(address.rpartition(":")[2])
    monkeypatch.delenv("ALLOW_PRIVATE_HOSTS")
    answers = iter(["93.184.215.14"])
    real = socket.getaddrinfo

    def rebinding(host: str, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        if host == "rebinding.example":
            host = next(answers, "127.0.0.1")
        return real(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    error = refusal(storage.read, f"http://rebinding.example:{port}/", "content_url")
    assert error.code == "private_address"
    assert not reached


def test_plain_http_needs_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALLOW_HTTP", raising=False)
    assert refusal(storage.check_url, "http://example.com/a", "content_url").status == 400
    monkeypatch.setenv("ALLOW_HTTP", "1")
    assert storage.check_url("http://example.com/a", "content_url")


def test_s3_that_denies_access_or_fails_is_told_apart() -> None:
    denied = storage.s3_error("AccessDenied", "s3://bucket/a", "content_url")
    assert (denied.status, denied.code) == (400, "access_denied")
    assert "the model's role needs permission" in denied.message
    failed = storage.s3_error("SlowDown", "s3://bucket/a", "content_url")
    assert (failed.status, failed.code) == (400, "storage_failed")
    assert "SlowDown" in failed.message


def test_without_credentials_the_user_is_told_to_send_the_file() -> None:
    def read() -> None:
        with storage.s3_errors("s3://bucket/a", "content_url"):
            raise NoCredentialsError

    error = refusal(read)
    assert (error.status, error.code) == (400, "access_denied")
    assert "Send the file itself" in error.message


@pytest.mark.parametrize(
    ("address", "ipv4"),
    [
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2002:a00:1::1", "10.0.0.1"),
        ("2001:0:4136:e378:8000:63bf:f5ff:fffe", "10.0.0.1"),
        ("64:ff9b::a00:1", "10.0.0.1"),
        ("2606:4700:4700::1111", None),
    ],
)
def test_an_ipv4_address_inside_an_ipv6_address_is_found(address: str, ipv4: str | None) -> None:
    embedded = storage.embedded_ipv4(ipaddress.IPv6Address(address))
    assert embedded == (ipaddress.IPv4Address(ipv4) if ipv4 else None)
