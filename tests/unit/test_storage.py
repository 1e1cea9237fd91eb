"""Reading and writing by address: S3, https, and what must never be reached or told."""

import contextlib
import ipaddress
import socket
import ssl
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import NoCredentialsError

from containers.common.errors import ErrorCode
from containers.serving import storage
from containers.serving.errors import ApiError
from tests.fakes.hostile import HostileServer, Peer, Script, flooding, hostile_servers, replying
from tests.fakes.registry import write_certificate
from tests.fakes.storage import moto_bucket

SECRET = "X-Amz-Signature=very-secret"
Answer = Callable[[BaseHTTPRequestHandler], None]


def refusal(function: Callable[..., Any], *arguments: Any) -> ApiError:  # noqa: ANN401
    with pytest.raises(ApiError) as caught:
        function(*arguments)
    assert "very-secret" not in str(caught.value)
    assert caught.value.status < 500
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
    monkeypatch.setattr(storage, "TRANSFER_SECONDS", 1.0)
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


# --- over S3, which fails for a while ---


@pytest.fixture
def failing_s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Script], HostileServer]]:
    """Starts a server in the place of S3. The pauses before the next attempt are short."""
    monkeypatch.setattr(storage, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(storage, "LAST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(storage, "TRANSFER_SECONDS", 20.0)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    storage.s3.cache_clear()
    with hostile_servers() as start:

        def start_s3(script: Script) -> HostileServer:
            server = start(script)
            monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
            return server

        yield start_s3
        storage.s3.cache_clear()


def s3_error_answer(status: int, code: str) -> bytes:
    body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body


def object_answer(data: bytes, etag: str) -> bytes:
    head = f'HTTP/1.1 200 OK\r\nETag: "{etag}"\r\nContent-Length: {len(data)}\r\n\r\n'
    return head.encode() + data


def one_after_the_other(*answers: bytes) -> Script:
    """Return a script that gives each connection the next answer, and the last one ever after."""
    left = list(answers)

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(left.pop(0) if len(left) > 1 else left[0])

    return script


WHOLE = object_answer(b"a whole picture", "2")
S3_FAULTS = {
    "half a body": WHOLE[:-8],
    "no body": WHOLE[:-15],
    "half of its headers": WHOLE[:30],
    "no answer": b"",
    "no HTTP": b"220 smtp ready\r\n",
    "SlowDown": s3_error_answer(503, "SlowDown"),
    "InternalError": s3_error_answer(500, "InternalError"),
    "RequestTimeout": s3_error_answer(400, "RequestTimeout"),
    "a 502 of a proxy": b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
    "a wrong checksum": WHOLE.replace(b"ETag", b"x-amz-checksum-crc32: AAAAAA==\r\nETag"),
    "half of what was there before": object_answer(b"another picture", "1")[:-8],
}


@pytest.mark.parametrize("fault", S3_FAULTS)
def test_a_fault_of_s3_that_passes_costs_only_time(
    failing_s3: Callable[[Script], HostileServer], fault: str
) -> None:
    """What is read is one object as it was at one moment, not halves of two."""
    server = failing_s3(one_after_the_other(*[S3_FAULTS[fault]] * 6, WHOLE))
    assert storage.read("s3://bucket/a", "content_url") == b"a whole picture"
    assert len(server.peers) == 7


def test_s3_that_stops_in_a_body_is_asked_again(
    failing_s3: Callable[[Script], HostileServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "READ_SECONDS", 0.3)
    calls: list[int] = []

    def script(peer: Peer) -> None:
        peer.read_request()
        calls.append(1)
        peer.send(WHOLE[: -8 if len(calls) < 3 else None])
        if len(calls) < 3:
            peer.wait_until_left()

    failing_s3(script)
    assert storage.read("s3://bucket/a", "content_url") == b"a whole picture"
    assert len(calls) == 3


def test_s3_that_recovers_gets_the_result(
    failing_s3: Callable[[Script], HostileServer],
) -> None:
    answers = [b"", s3_error_answer(503, "SlowDown"), b"HTTP/1.1 200 OK\r\n\r\n"]
    bodies: list[bytes] = []

    def script(peer: Peer) -> None:
        request = peer.read_request()
        if b"100-continue" in request:
            peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        _, _, body = request.partition(b"\r\n\r\n")
        if b"the result" not in body:
            body += peer.connection.recv(65536)
        bodies.append(body)
        peer.send(answers[len(bodies) - 1])

    failing_s3(script)
    storage.write("s3://bucket/a", b"the result", "image/png", "result_url")
    assert len(bodies) == 3
    assert all(b"the result" in body for body in bodies)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (s3_error_answer(404, "NoSuchKey"), "object_not_found"),
        (s3_error_answer(403, "AccessDenied"), "access_denied"),
        (s3_error_answer(400, "InvalidRequest"), "storage_failed"),
    ],
)
def test_an_answer_of_s3_that_stays_is_told_at_once(
    failing_s3: Callable[[Script], HostileServer], answer: bytes, code: str
) -> None:
    server = failing_s3(replying(answer))
    assert refusal(storage.read, "s3://bucket/a", "content_url").code == code
    assert len(server.peers) == 1


@pytest.mark.parametrize(
    "script",
    [
        replying(s3_error_answer(503, "SlowDown")),
        replying(WHOLE[:-8]),
        flooding(WHOLE[:-8], b"", 0.1),
        flooding(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"x", 0.1),
        Peer.wait_until_left,
    ],
    ids=["SlowDown", "half a body", "a body that stops", "a trickle", "silence"],
)
def test_s3_that_stays_broken_is_given_up_at_the_deadline(
    failing_s3: Callable[[Script], HostileServer],
    monkeypatch: pytest.MonkeyPatch,
    script: Script,
) -> None:
    monkeypatch.setattr(storage, "TRANSFER_SECONDS", 1.0)
    failing_s3(script)
    started = time.monotonic()
    assert refusal(storage.read, "s3://bucket/a", "content_url").code == "storage_failed"
    with contextlib.suppress(ApiError):
        storage.write("s3://bucket/a", b"", "image/png", "result_url")
    assert time.monotonic() - started < 10


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


# --- over HTTP, from a server that keeps to no rule ---

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
# Of zeros: a gigabyte and more for each megabyte
GZIP_HEAD = b"Content-Encoding: gzip\r\n\r\n"
MEGABYTES_OF_BUFFERS = 24
SLOW = 0.1


def gzip_bomb() -> bytes:
    """Return 1.2 MB that a decoder turns into 1.2 GB."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    megabyte = b"\0" * (1 << 20)
    return b"".join(compressor.compress(megabyte) for _ in range(1200)) + compressor.flush()


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Script], HostileServer]]:
    """Starts servers that run a script; 1.5 s for a transfer."""
    monkeypatch.setenv("ALLOW_HTTP", "1")
    monkeypatch.setenv("ALLOW_PRIVATE_HOSTS", "1")
    monkeypatch.setattr(storage, "TRANSFER_SECONDS", 1.5)
    with hostile_servers() as start:
        yield start


def peak_memory_of(function: Callable[[], object]) -> float:
    """Return the peak of what Python and zlib allocate in this process meanwhile, in MB."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1] / (1 << 20)
    finally:
        tracemalloc.stop()


ENDLESS = {
    "a redirect's body": flooding(b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", b"x" * 65536),
    "a missing file's body": flooding(b"HTTP/1.1 404 Not Found\r\n\r\n", b"x" * 65536),
    "an error's body": flooding(b"HTTP/1.1 500 Oops\r\n\r\n", b"x" * 65536),
    "an error's chunks": flooding(
        b"HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 9999
    ),
    "the status line": flooding(b"HTTP/1.1 200 ", b"x" * 65536),
    "a header": flooding(OK + b"X: ", b"x" * 65536),
    "headers": flooding(OK, b"X: y\r\n" * 9999),
    "a hundred long headers": flooding(OK, b"X: " + b"y" * 65000 + b"\r\n"),
    "100 Continue": flooding(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 999),
    "headers of 100 Continue": flooding(b"HTTP/1.1 100 Continue\r\n", b"X: y\r\n" * 9999),
    "a chunk's extension": flooding(CHUNKED + b"5;", b"x" * 65536),
    "chunks of one byte with extensions": flooding(CHUNKED, (b"1;" + b"x" * 60000 + b"\r\nx\r\n")),
    "a chunk's size": flooding(CHUNKED, b"0" * 65536),
    "a trailer": flooding(CHUNKED + b"5\r\nhello\r\n0\r\n", b"x" * 65536),
    "trailers": flooding(CHUNKED + b"5\r\nhello\r\n0\r\n", b"X: y\r\n" * 9999),
    "a chunk of negative size": flooding(CHUNKED + b"-1\r\n", b"x" * 65536),
    "a gzipped body": flooding(OK + GZIP_HEAD, gzip_bomb()),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_what_has_no_end_is_given_up(
    hostile: Callable[[Script], HostileServer], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Neither bytes nor seconds nor memory are spent on it, in a read and in a write."""
    monkeypatch.setattr(storage, "MAX_FILE_MEGABYTES", 8)
    source = hostile(ENDLESS[what])
    url = f"{source.url}/a?{SECRET}"
    started = time.monotonic()
    peak = peak_memory_of(lambda: refusal(storage.read, url, "content_url"))
    assert time.monotonic() - started < 10
    assert peak < 64, f"{peak:.0f} MB of memory"
    hops = len(source.peers)
    assert source.sent < hops * (MEGABYTES_OF_BUFFERS << 20), f"{source.sent >> 20} MB, {hops} hops"

    sink = hostile(ENDLESS[what])
    with contextlib.suppress(ApiError):
        storage.write(f"{sink.url}/a?{SECRET}", b"picture", "image/png", "result_url")
    assert sink.sent < MEGABYTES_OF_BUFFERS << 20


def trickling(head: bytes, rest: bytes = b"x") -> Script:
    return flooding(head, rest, SLOW)


def half_a_body(peer: Peer) -> None:
    replying(OK + b"Content-Length: 9\r\n\r\nhalf")(peer)
    peer.wait_until_left()


def trickling_tls(peer: Peer) -> None:
    # The head of a record of the handshake, and its beginning
    peer.send(b"\x16\x03\x03\x40\x00\x02\x00\x3f\x00")
    peer.send_forever(b"\x00", SLOW)


SLOW_SOURCES = {
    "http that says nothing": Peer.wait_until_left,
    "http that trickles its status line": trickling(b"HTTP/1.1 200 "),
    "http that trickles headers": trickling(OK, b"X: y\r\n"),
    "http that trickles one header": trickling(OK + b"X: "),
    "http that trickles 100 Continue": trickling(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "http that trickles its body": trickling(OK + b"Content-Length: 1000\r\n\r\n"),
    "http that trickles a body without a length": trickling(OK + b"\r\n"),
    "http that trickles chunks": trickling(CHUNKED, b"1\r\nx\r\n"),
    "http that trickles the size of a chunk": trickling(CHUNKED, b"0"),
    "http that trickles an extension": trickling(CHUNKED + b"5;"),
    "http that trickles trailers": trickling(CHUNKED + b"0\r\n", b"X: y\r\n"),
    "http that stops in its body": half_a_body,
    "https that says nothing": Peer.wait_until_left,
    "https that trickles its handshake": trickling_tls,
}


@pytest.mark.parametrize("what", SLOW_SOURCES)
def test_a_slow_source_has_one_deadline(
    hostile: Callable[[Script], HostileServer], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Though each of its single waits is short."""
    monkeypatch.setattr(storage, "TRANSFER_SECONDS", 0.8)
    source = hostile(SLOW_SOURCES[what])
    scheme = what.partition(" ")[0]
    url = f"{source.url.replace('http', scheme)}/a?{SECRET}"
    started = time.monotonic()
    assert refusal(storage.read, url, "content_url").code == "storage_failed"
    with contextlib.suppress(ApiError):
        storage.write(url, b"", "image/png", "result_url")
    assert time.monotonic() - started < 8


@pytest.fixture
def https(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Script], HostileServer]]:
    """Starts servers at https://localhost, whose certificate is trusted."""
    certificate = write_certificate(tmp_path, "localhost")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, tmp_path / "key.pem")
    monkeypatch.setenv("ALLOW_PRIVATE_HOSTS", "1")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    storage.tls_context.cache_clear()
    with hostile_servers(tls) as start:

        def start_https(script: Script) -> HostileServer:
            server = start(script)
            server.url = f"https://localhost:{server.port}"
            return server

        yield start_https
        storage.tls_context.cache_clear()


def test_https_reads_and_writes_and_trusts_only_its_authorities(
    https: Callable[[Script], HostileServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = b"x" * (1 << 20)
    source = https(replying(OK + b"Content-Length: 1048576\r\n\r\n", picture))
    assert storage.read(f"{source.url}/a?{SECRET}", "content_url") == picture

    def accept(peer: Peer) -> None:
        while peer.received < len(picture):
            peer.received += len(peer.connection.recv(65536))
        peer.send(OK + b"Content-Length: 0\r\n\r\n")

    sink = https(accept)
    storage.write(f"{sink.url}/a?{SECRET}", picture, "image/png", "result_url")
    (peer,) = sink.peers
    assert peer.received >= len(picture)

    another_name = source.url.replace("localhost", "127.0.0.1")
    assert refusal(storage.read, another_name, "content_url").code == "storage_failed"
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    storage.tls_context.cache_clear()
    assert refusal(storage.read, source.url, "content_url").code == "storage_failed"


def test_https_has_the_same_deadline(
    https: Callable[[Script], HostileServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "TRANSFER_SECONDS", 1.5)
    for script in (
        trickling(OK, b"X: y\r\n"),
        trickling(CHUNKED, b"1\r\nx\r\n"),
        lambda peer: peer.read_slowly(1000, SLOW),
    ):
        server = https(script)
        started = time.monotonic()
        assert refusal(storage.read, server.url, "content_url").code == "storage_failed"
        with contextlib.suppress(ApiError):
            storage.write(server.url, b"x" * (16 << 20), "image/png", "result_url")
        assert time.monotonic() - started < 10


def test_all_redirects_share_one_deadline(
    hostile: Callable[[Script], HostileServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "TRANSFER_SECONDS", 1.0)

    def slow_hop(peer: Peer) -> None:
        peer.read_request()
        time.sleep(0.7)
        peer.send(b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n")

    source = hostile(slow_hop)
    started = time.monotonic()
    assert refusal(storage.read, source.url, "content_url").code == "storage_failed"
    assert time.monotonic() - started < 6
    assert len(source.peers) == 2


def test_a_source_slower_than_the_least_rate_is_given_up_early(
    hostile: Callable[[Script], HostileServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "TRANSFER_SECONDS", 60.0)
    monkeypatch.setattr(storage, "START_SECONDS", 1.0)
    source = hostile(trickling(OK + b"Content-Length: 100000\r\n\r\n"))
    started = time.monotonic()
    assert refusal(storage.read, source.url, "content_url").code == "storage_failed"
    assert time.monotonic() - started < 6


def test_a_store_that_takes_a_picture_slowly_is_given_up(
    hostile: Callable[[Script], HostileServer],
) -> None:
    sink = hostile(lambda peer: peer.read_slowly(1000, SLOW))
    started = time.monotonic()
    picture = b"x" * (16 << 20)
    error = refusal(storage.write, f"{sink.url}/?{SECRET}", picture, "image/png", "result_url")
    assert error.code == "storage_failed"
    assert time.monotonic() - started < 8


def test_a_store_that_answers_before_it_has_read_all_is_heard(
    hostile: Callable[[Script], HostileServer],
) -> None:
    def refuse(peer: Peer) -> None:
        peer.read_request()
        peer.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        peer.connection.shutdown(socket.SHUT_WR)
        peer.read_slowly(1 << 20, 0)

    sink = hostile(refuse)
    picture = b"x" * (1 << 20)
    error = refusal(storage.write, sink.url, picture, "image/png", "result_url")
    assert error.code == "object_not_found"


def test_a_name_that_does_not_resolve_in_time_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "TRANSFER_SECONDS", 0.5)
    hung = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: hung.wait(8))
    started = time.monotonic()
    error = refusal(storage.read, "https://hung.example/a", "content_url")
    elapsed = time.monotonic() - started
    hung.set()
    assert error.code == "storage_failed"
    assert elapsed < 6


def test_addresses_that_do_not_answer_share_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLOW_PRIVATE_HOSTS", "1")
    monkeypatch.setattr(storage, "TRANSFER_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        # A listener whose backlog is full answers no further connection
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        (address,) = socket.getaddrinfo("127.0.0.1", port, type=socket.SOCK_STREAM)
        real = socket.getaddrinfo

        def many(host: str, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401
            if host == "many.example":
                return [address] * 50
            return real(host, *arguments, **options)

        monkeypatch.setattr(socket, "getaddrinfo", many)
        started = time.monotonic()
        error = refusal(storage.read, f"https://many.example:{port}/a", "content_url")
        assert time.monotonic() - started < 6
        for each in waiting:
            each.close()
    assert error.code == "storage_failed"


LONG_NUMBER = b"9" * 5000
WRONG_ANSWERS = {
    "nothing": b"",
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "HTTP/0.9": b"<html>",
    "another version": b"HTTP/3.0 200 OK\r\n\r\n",
    "no status": b"HTTP/1.1\r\n\r\n",
    "a status in words": b"HTTP/1.1 OK OK\r\n\r\n",
    "a negative status": b"HTTP/1.1 -200 OK\r\n\r\n",
    "a status of four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "a status of 5,000 digits": b"HTTP/1.1 " + LONG_NUMBER + b" OK\r\n\r\n",
    "status 999": b"HTTP/1.1 999 Denied\r\n\r\n",
    "status 101": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "status 103": b"HTTP/1.1 103 Early Hints\r\n\r\n",
    "status 204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "status 206": b"HTTP/1.1 206 Partial Content\r\nContent-Length: 5\r\n\r\nhello",
    "status 300": b"HTTP/1.1 300 Multiple Choices\r\nContent-Length: 0\r\n\r\n",
    "status 304": b"HTTP/1.1 304 Not Modified\r\n\r\n",
    "a redirect to nowhere": b"HTTP/1.1 302 Found\r\n\r\n",
    "101 headers": OK + b"X: y\r\n" * 101 + b"Content-Length: 5\r\n\r\nhello",
    "a length in words": OK + b"Content-Length: abc\r\n\r\nhello",
    "a length twice in one": OK + b"Content-Length: 5, 5\r\n\r\nhello",
    "two lengths": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "a length with an exponent": OK + b"Content-Length: 1e3\r\n\r\nhello",
    "a length with an underscore": OK + b"Content-Length: 0_5\r\n\r\nhello",
    "a length in other digits": OK + "Content-Length: ٥\r\n\r\n".encode() + b"hello",
    "a negative length": OK + b"Content-Length: -5\r\n\r\nhello",
    "a length of 5,000 digits": OK + b"Content-Length: " + LONG_NUMBER + b"\r\n\r\nhello",
    "a body that breaks off": OK + b"Content-Length: 9\r\n\r\nhello",
    "a body without its beginning": OK + b"Content-Length: 9\r\n\r\n",
    "a chunk that breaks off": CHUNKED + b"9\r\nhello",
    "chunks without the last one": CHUNKED + b"5\r\nhello\r\n",
    "a chunk without a size": CHUNKED + b"\r\nhello\r\n",
    "a chunk's size in words": CHUNKED + b"five\r\nhello\r\n0\r\n\r\n",
    "a negative chunk": CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n",
    "no chunks": CHUNKED,
    "an unknown encoding of the transfer": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\nhello",
    "gzip": OK + b"Content-Encoding: gzip\r\n\r\n" + zlib.compress(b"hello", wbits=31),
    "damaged gzip": OK + b"Content-Encoding: gzip\r\n\r\nhello",
    "deflate": OK + b"Content-Encoding: deflate\r\n\r\n" + zlib.compress(b"hello"),
    "br": OK + b"Content-Encoding: br\r\n\r\nhello",
    "zstd": OK + b"Content-Encoding: zstd\r\n\r\nhello",
    "gzip in gzip": OK + b"Content-Encoding: gzip, gzip\r\n\r\nhello",
}


@pytest.mark.parametrize("what", WRONG_ANSWERS)
def test_a_wrong_answer_is_the_sources_fault(
    hostile: Callable[[Script], HostileServer], what: str
) -> None:
    source = hostile(replying(WRONG_ANSWERS[what]))
    error = refusal(storage.read, f"{source.url}/a?{SECRET}", "content_url")
    assert (error.status, error.code) == (400, "storage_failed")
    assert error.message.startswith("content_url")


HARMLESS_ANSWERS = {
    "no length": OK + b"\r\nhello",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\nhello",
    "more than its length": OK + b"Content-Length: 5\r\n\r\nhello, world",
    "the same length twice": OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "chunks": CHUNKED + b"2\r\nhe\r\n3;name=value\r\nllo\r\n0\r\nX: y\r\n\r\n",
    "both a length and chunks": OK
    + b"Content-Length: 99\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "identity": OK + b"Content-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello",
    "100 Continue before it": b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"\r\nhello",
    "headers that are not UTF-8": OK + b"X: \xff\xfe\r\nContent-Length: 5\r\n\r\nhello",
}


@pytest.mark.parametrize("what", HARMLESS_ANSWERS)
def test_an_unusual_answer_is_understood(
    hostile: Callable[[Script], HostileServer], what: str
) -> None:
    source = hostile(replying(HARMLESS_ANSWERS[what]))
    assert storage.read(source.url, "content_url") == b"hello"


BAD_REDIRECTS = {
    "not UTF-8": b"http://127.0.0.1/\xff\xfe",
    "control characters": b"http://127.0.0.1/\x00\x07",
    "no host": b"http:///a",
    "an unclosed bracket": b"http://[::1/a",
    "no IPv6 address": b"http://[zz]/a",
    "a host that NFKC changes": "http://127.0.0.1\uff03@example.com/".encode(),
    "an empty label": b"http://a..b/",
    "a label that is too long": b"http://" + b"a" * 64 + b".example/",
    "a port in words": b"http://127.0.0.1:http/",
    "a port that is too large": b"http://127.0.0.1:99999/",
    "a port of 5,000 digits": b"http://127.0.0.1:" + LONG_NUMBER + b"/",
    "a user and a password": b"http://user:very-secret@127.0.0.1/",
    "a user behind a backslash": b"http://user\\@127.0.0.1/",
    "a file": b"file:///etc/passwd",
    "S3": b"s3://bucket/key",
    "ftp": b"ftp://127.0.0.1/",
    "javascript": b"javascript:alert(1)",
    "data": b"data:image/png;base64,AAAA",
    "itself": b"",
    "60 KB": b"/" + b"a" * 60000,
}


@pytest.mark.parametrize("where", BAD_REDIRECTS)
def test_a_redirect_to_what_is_no_address_is_refused(
    hostile: Callable[[Script], HostileServer], where: str
) -> None:
    head = b"HTTP/1.1 302 Found\r\nLocation: " + BAD_REDIRECTS[where] + b"\r\n\r\n"
    source = hostile(replying(head))
    error = refusal(storage.read, f"{source.url}/a?{SECRET}", "content_url")
    assert error.status == 400
    assert error.code in ("bad_request", "storage_failed")
    assert "content_url" in error.message


@pytest.mark.parametrize("location", [b"b.jpg", b"/b.jpg", b"?b", b"//HOST/b", "/bäume".encode()])
def test_a_relative_redirect_is_followed(
    hostile: Callable[[Script], HostileServer], location: bytes
) -> None:
    def script(peer: Peer) -> None:
        if peer.read_request().startswith(b"GET /a "):
            target = location.replace(b"HOST", b"127.0.0.1:%d" % source.port)
            peer.send(b"HTTP/1.1 307 Temporary\r\nLocation: " + target + b"\r\n\r\n")
        else:
            peer.send(OK + b"Content-Length: 5\r\n\r\nhello")

    source = hostile(script)
    assert storage.read(f"{source.url}/a", "content_url") == b"hello"
    assert len(source.peers) == 2


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


def test_a_name_is_resolved_once_and_only_what_was_checked_is_connected_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The name would resolve to this machine the second time."""
    answers = iter(["93.184.215.14"])
    real = socket.getaddrinfo
    connected: list[str] = []

    def rebinding(host: str, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        if host == "rebinding.example":
            host = next(answers, "127.0.0.1")
        return real(host, *arguments, **options)

    def connect(address: tuple[str, int], seconds: float) -> socket.socket:
        connected.append(address[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    monkeypatch.setattr(socket, "create_connection", connect)
    error = refusal(storage.read, "https://rebinding.example/", "content_url")
    assert error.code == "storage_failed"
    assert connected == ["93.184.215.14"]


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


FORBIDDEN = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "0.1.2.3",
    "10.1.2.3",
    "100.64.0.1",
    "169.254.169.254",
    "169.254.170.2",
    "172.31.255.255",
    "192.168.0.1",
    "192.0.0.192",
    "198.18.0.1",
    "224.0.0.1",
    "255.255.255.255",
]


def spellings(address: str) -> set[str]:
    """Return the ways to write an IPv4 address in a URL that some program understands."""
    number = int(ipaddress.IPv4Address(address))
    parts = [number >> 24, number >> 16 & 255, number >> 8 & 255, number & 255]
    high, low = number >> 16, number & 0xFFFF
    a, b, c, d = parts
    return {
        address,
        f"{address}.",
        str(number),
        hex(number),
        f"{number:#X}",
        f"0{number:o}",
        str(number + (1 << 32)),
        f"{a}.{number & 0xFFFFFF}",
        f"{a}.{b}.{low}",
        f"0x{a:x}.0x{b:x}.0x{c:x}.0x{d:x}",
        f"0{a:o}.0{b:o}.0{c:o}.0{d:o}",
        f"0x{a:02X}.0{b:o}.{low}",
        f"000{a:o}.{b}.{c}.{d}",
        # Digits of other scripts, and full stops, which IDNA makes ordinary ones
        address.translate({ord("0") + digit: 0xFF10 + digit for digit in range(10)}),
        address.replace(".", "\u3002"),
        address.replace("1", "\u2460"),
        "".join(f"%{ord(character):02x}" for character in address),
        f"[::ffff:{address}]",
        f"[::ffff:{high:x}:{low:x}]",
        f"[0:0:0:0:0:FFFF:{high:X}:{low:X}]",
        f"[::{address}]",
        f"[::ffff:0:{high:x}:{low:x}]",
        f"[64:ff9b::{high:x}:{low:x}]",
        f"[64:ff9b:1::{high:x}:{low:x}]",
        f"[2002:{high:x}:{low:x}::1]",
        f"[2001:0:4136:e378:8000:63bf:{high ^ 0xFFFF:x}:{low ^ 0xFFFF:x}]",
        f"[::ffff:{address}%25lo]",
    }


HOSTS = {spelling for address in FORBIDDEN for spelling in spellings(address)} | {
    "localhost",
    "LOCALHOST",
    "localhost.",
    "[::1]",
    "[::]",
    "[0:0:0:0:0:0:0:1]",
    "[::1%25lo]",
    "[fe80::1]",
    "[fe80::1%25lo]",
    "[fec0::1]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[ff02::1]",
    "[100::1]",
    "[2001:db8::1]",
    "[4000::1]",
}


def test_no_spelling_of_a_private_address_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLOW_HTTP", "1")
    monkeypatch.delenv("ALLOW_PRIVATE_HOSTS", raising=False)
    connected: list[object] = []
    real = socket.getaddrinfo

    def connect(address: tuple[str, int], seconds: float) -> socket.socket:
        connected.append(address)
        raise ConnectionRefusedError

    def without_dns(host: str, port: int, **options: Any) -> Any:  # noqa: ANN401
        if not host.lower().startswith("localhost"):
            options["flags"] = socket.AI_NUMERICHOST
        return real(host.removesuffix("."), port, **options)

    monkeypatch.setattr(socket, "create_connection", connect)
    monkeypatch.setattr(socket, "getaddrinfo", without_dns)
    assert len(HOSTS) > 229
    codes = []
    for host in sorted(HOSTS):
        url = f"http://{host}/latest/meta-data?{SECRET}"

        def read(url: str = url) -> bytes:
            return storage.read(storage.check_url(url, "content_url"), "content_url")

        codes.append(refusal(read).code)
        assert not connected, host
    # The rest is no name or number that the system's resolver knows
    assert codes.count(ErrorCode.PRIVATE_ADDRESS) > 229


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
