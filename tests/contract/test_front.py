"""What the model servers do with connections: odd HTTP, slow clients, and clients that leave."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.contract.test_serving import error, jpeg, picture
from tests.fakes.hostile import flooding, hostile_servers
from tests.fakes.picture_flood import processes_of, worker_of
from tests.fakes.servers import LOCAL, RecordingStore, Running, gunicorn, wait_until

PING = b"GET /ping HTTP/1.1\r\nHost: server\r\n\r\n"
IMAGE = b"POST /invocations%s HTTP/1.1\r\nHost: server\r\nContent-Type: image/jpeg\r\n"


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """While this file does not exist, requests in the style `hold` go on and on."""
    return tmp_path_factory.mktemp("gate") / "open"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, gate: Path) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("server")
    with gunicorn("tests.fakes.model:app()", folder, environment=LOCAL, FAKE_GATE=str(gate)) as run:
        yield run


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that gives a client a second where others get a quarter of a minute or more."""
    folder = tmp_path_factory.mktemp("impatient")
    with gunicorn("tests.fakes.model:impatient()", folder, environment=LOCAL) as running:
        yield running


def connect(server: Running) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def exchange(server: Running, data: bytes) -> bytes:
    """Send `data` and return everything that comes until the server closes the connection."""
    with connect(server) as connection:
        connection.sendall(data)
        return receive_all(connection)


def receive_all(connection: socket.socket) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            received += piece
    return received


def breaks(connection: socket.socket, data: bytes) -> bool:
    """Send data and return whether the connection turns out to be broken."""
    try:
        connection.sendall(data)
    except TimeoutError:
        return False
    except OSError:
        return True
    return False


def statuses(received: bytes) -> list[int]:
    """Return the statuses of all answers; their bodies have no line that looks like one."""
    lines = received.split(b"\r\n")
    return [int(line.split()[1]) for line in lines if line.startswith(b"HTTP/1.1 ")]


def image_request(body: bytes, query: bytes = b"", more: bytes = b"") -> bytes:
    return IMAGE % query + b"Content-Length: %d\r\n%s\r\n" % (len(body), more) + body


def log_lines(server: Running) -> list[dict[str, Any]]:
    lines = server.log_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def events_with(server: Running, inference_id: str) -> list[dict[str, Any]]:
    return [line for line in log_lines(server) if line.get("inference_id") == inference_id]


# --- HTTP ---


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 5\r\nContent-Length: 5\r\n",
        b"Content-Length: 5\r\nContent-Length: 50\r\n",
        b"Content-Length: 5, 5\r\n",
        b"Content-Length: +5\r\n",
        b"Content-Length: -5\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding: gzip\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b" Content-Length: 5\r\n",
        b"Content-Length: 5\nX: y\r\n",
    ],
)
def test_a_body_whose_end_is_not_certain_is_refused_and_nothing_after_it_is_read(
    server: Running, framing: bytes
) -> None:
    head = b"POST /invocations HTTP/1.1\r\nHost: server\r\nContent-Type: image/jpeg\r\n"
    received = exchange(server, head + framing + b"\r\n0\r\n\r\n" + PING)
    [status] = statuses(received)
    assert status in (400, 501)


@pytest.mark.parametrize(
    "chunks",
    [b"5\nhello\r\n", b"0x5\r\nhello\r\n", b"-5\r\nhello\r\n", b"5\r\nhelloo\r\n", b"g\r\n"],
)
def test_odd_chunks_end_the_connection(server: Running, chunks: bytes) -> None:
    head = IMAGE % b"" + b"Transfer-Encoding: chunked\r\n\r\n"
    received = exchange(server, head + chunks + b"0\r\n\r\n" + PING)
    assert statuses(received) in ([400], [400, 400])


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /ping HTTP/9.9\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"GET http://[::1/ping HTTP/1.1\r\nHost: server\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
        (b"GET /%s HTTP/1.1\r\n\r\n" % (b"x" * 10_000), 414),
        (b"GET / HTTP/1.1\r\nX: %s\r\n\r\n" % (b"x" * 10_000), 431),
        (b"GET / HTTP/1.1\r\n" + b"X: x\r\n" * 200 + b"\r\n", 431),
    ],
)
def test_an_odd_head_is_refused(server: Running, data: bytes, status: int) -> None:
    assert statuses(exchange(server, data)) == [status]


def test_a_connection_is_used_again(server: Running) -> None:
    with requests.Session() as session:
        for _ in range(3):
            answer = session.post(
                f"{server.url}/invocations", data=jpeg(), headers={"Content-Type": "image/jpeg"}
            )
            picture(answer)
            assert session.get(f"{server.url}/ping").status_code == 200
    with connect(server) as connection:
        # Requests that come before the answers are answered one after the other
        connection.sendall(PING * 2 + PING.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert statuses(receive_all(connection)) == [200, 200, 200]


def test_a_proxy_may_name_the_host_in_the_request_line(server: Running) -> None:
    data = b"GET http://server/ping HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n"
    assert statuses(exchange(server, data)) == [200]


def test_head_has_the_length_but_no_body(server: Running) -> None:
    data = b"HEAD / HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n"
    head, _, body = exchange(server, data).partition(b"\r\n\r\n")
    assert b"Content-Length: " in head
    assert body == b""


def test_http_1_0_gets_an_answer_and_the_end(server: Running) -> None:
    received = exchange(server, b"GET /ping HTTP/1.0\r\n\r\n")
    assert received.split()[1] == b"200"


def test_a_body_in_chunks_is_put_together(server: Running) -> None:
    data = jpeg(400, 300)
    pieces = (data[start : start + 700] for start in range(0, len(data), 700))
    answer = server.post(data=pieces, headers={"Content-Type": "image/jpeg"})
    assert picture(answer).size == (400, 300)


def test_a_client_that_asks_first_is_told_to_go_on(server: Running) -> None:
    body = jpeg()
    head = image_request(body, more=b"Expect: 100-continue\r\nConnection: close\r\n")
    with connect(server) as connection:
        connection.sendall(head.removesuffix(body))
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert statuses(receive_all(connection)) == [200]


def test_a_client_that_asks_first_is_told_at_once_that_its_body_is_too_large(
    server: Running,
) -> None:
    head = IMAGE % b"" + b"Content-Length: 200000000\r\nExpect: 100-continue\r\n\r\n"
    with connect(server) as connection:
        connection.sendall(head)
        assert connection.recv(10_000).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("content_type", "size"),
    [
        ("application/json", (256 << 10) + 1),
        ("text/csv", (6 << 20) + 1),
        ("application/jsonlines; charset=utf-8", (6 << 20) + 1),
        ("image/jpeg", (100 << 20) + 1),
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_above_the_limit_of_its_type_is_refused(
    server: Running, content_type: str, size: int, chunked: bool
) -> None:
    data = b"\n" * size
    body: bytes | Iterator[bytes] = data
    if chunked:
        body = (data[start : start + (1 << 20)] for start in range(0, size, 1 << 20))
    answer = server.post(data=body, headers={"Content-Type": content_type})
    assert error(answer) == (413, "body_too_large")
    assert "limit for its content type" in answer.text
    assert server.ping().status_code == 200


def test_a_body_in_very_small_chunks_is_refused(server: Running) -> None:
    head = IMAGE % b"" + b"Transfer-Encoding: chunked\r\n\r\n"
    received = exchange(server, head + b"1\r\nx\r\n" * 3000)
    assert statuses(received) == [400]
    assert b"small chunks" in received


def test_a_large_form_arrives_whole(server: Running) -> None:
    noise = jpeg() + bytes(30 << 20)
    answer = server.post(files={"content": noise}, data={"steps": "1"})
    assert picture(answer).size == (40, 30)


def test_a_websocket_is_refused(server: Running) -> None:
    data = (
        b"GET / HTTP/1.1\r\nHost: server\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
    )
    assert b"101" not in exchange(server, data).partition(b"\r\n")[0]
    assert server.ping().status_code == 200


# --- the door ---


def door_of(worker: int) -> int:
    [door] = processes_of(worker, "containers.serving.door")
    return door


def test_ping_is_answered_while_the_worker_stands_still(server: Running) -> None:
    worker = worker_of(server)
    os.kill(worker, signal.SIGSTOP)
    try:
        assert server.ping().status_code == 200
    finally:
        os.kill(worker, signal.SIGCONT)


def test_a_request_may_come_in_pieces(server: Running) -> None:
    with connect(server) as connection:
        for piece in (b"G", b"ET /pi", b"ng HTTP/1.1\r\nHos", b"t: server\r\n\r\n"):
            time.sleep(0.05)
            connection.sendall(piece)
        assert statuses(receive_all(connection)) == [200]
    with connect(server) as connection:
        for piece in (b"GET /p", b"age HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n"):
            time.sleep(0.05)
            connection.sendall(piece)
        assert statuses(receive_all(connection)) == [404]


def test_ping_with_a_body_is_read_to_its_end(server: Running) -> None:
    head = b"GET /ping HTTP/1.1\r\nHost: server\r\nConnection: close\r\ncontent-length: 20\r\n\r\n"
    assert statuses(exchange(server, head + b"GET /page HTTP/1.1\r\n")) == [200]


def test_a_request_that_pauses_after_its_first_bytes_is_answered(server: Running) -> None:
    with connect(server) as connection:
        connection.sendall(b"GET /ping HT")
        # The door does not wait as long as that
        time.sleep(1.7)
        connection.sendall(b"TP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n")
        assert statuses(receive_all(connection)) == [200]


def test_a_door_that_is_killed_is_replaced(server: Running) -> None:
    worker = worker_of(server)
    os.kill(door_of(worker), signal.SIGKILL)
    assert server.ping().status_code == 200
    picture(server.post(files={"content": jpeg()}))
    assert worker_of(server) == worker


def test_the_door_ends_with_its_worker(tmp_path: Path) -> None:
    with gunicorn("tests.fakes.model:app()", tmp_path) as running:
        worker = worker_of(running)
        door = door_of(worker)
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: not Path(f"/proc/{door}").exists(), 10, "the door is still there")
        wait_until(lambda: running.ping().status_code == 200, 30, "no other worker came")


# --- slow clients ---


@pytest.mark.parametrize(
    "data",
    [b"", b"GET /ping HTTP/1.1\r\nHost: ", b"POST /invocations HTTP/1.1\r\nContent-Length: 9\r\n"],
)
def test_a_connection_whose_head_does_not_come_is_closed(impatient: Running, data: bytes) -> None:
    assert exchange(impatient, data) == b""


def test_a_head_that_trickles_is_not_waited_for(impatient: Running) -> None:
    with connect(impatient) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX: ")
        wait_until(lambda: breaks(connection, b"x"), 20, "it is still waited for")


@pytest.mark.parametrize("framing", [b"Content-Length: 9000000", b"Transfer-Encoding: chunked"])
def test_a_body_that_comes_too_slowly_is_told_so(impatient: Running, framing: bytes) -> None:
    received = exchange(impatient, IMAGE % b"" + framing + b"\r\n\r\n10\r\n")
    assert statuses(received) == [400]
    assert b"too slowly" in received
    assert impatient.ping().status_code == 200


def test_a_client_that_never_reads_loses_its_connection(impatient: Running) -> None:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        host, port = impatient.url.removeprefix("http://").split(":")
        connection.connect((host, int(port)))
        request = b"GET / HTTP/1.1\r\nHost: server\r\n\r\n"
        connection.settimeout(0.1)
        # More and more, until nothing is taken, and then until the connection breaks
        wait_until(lambda: breaks(connection, request * 1000), 120, "it is still held")


def test_a_picture_that_is_taken_slowly_arrives_whole(impatient: Running) -> None:
    data = jpeg(1200, 1200)
    more = b"Accept: image/png\r\nConnection: close\r\n"
    with connect(impatient) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(image_request(data, more=more))
        received = connection.recv(10)
        time.sleep(0.8)
        received += receive_all(connection)
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"Content-Length: %d\r\n" % len(body) in head + b"\r\n"


def test_only_so_many_large_bodies_come_at_a_time(impatient: Running) -> None:

    def is_refused() -> bool:
        with contextlib.ExitStack() as uploads:
            for _ in range(2):
                head = IMAGE % b"" + b"Content-Length: 1000000\r\n\r\n"
                uploads.enter_context(connect(impatient)).sendall(head + bytes(200_000))
            answer = impatient.post(data=bytes(200_000), headers={"Content-Type": "image/jpeg"})
            return answer.status_code == 503 and error(answer)[1] == "queue_full"

    wait_until(is_refused, 60, "all were taken")
    # A small one needs no place
    picture(impatient.post(data=jpeg(), headers={"Content-Type": "image/jpeg"}))


# --- clients that leave ---


def hold(server: Running, inference_id: str) -> socket.socket:
    """Ask for a picture that does not end, and return the connection."""
    connection = connect(server)
    more = b"X-Amzn-SageMaker-Inference-Id: %s\r\n" % inference_id.encode()
    connection.sendall(image_request(jpeg(), b"?style=hold", more))
    return connection


def test_the_job_of_a_client_that_leaves_ends_and_the_next_one_begins(
    server: Running, gate: Path
) -> None:
    began = server.log_text().count("holding")
    running = hold(server, "runs")
    wait_until(lambda: server.log_text().count("holding") == began + 1, 30, "it did not begin")
    waiting = hold(server, "waits")
    with ThreadPoolExecutor(1) as pool:
        # Behind both; it comes only if both end
        patient = pool.submit(server.post, files={"content": jpeg()})
        time.sleep(0.5)
        assert not patient.done()
        waiting.close()
        [left] = wait_until(lambda: events_with(server, "waits"), 30, "it still waits")
        assert left["error"] == "client_gone"
        assert not patient.done()
        running.close()
        picture(patient.result(30))
    assert server.log_text().count("holding") == began + 1, "the one that left began"
    [ended] = events_with(server, "runs")
    assert ended["error"] == "client_gone"


def test_clients_that_leave_give_up_their_places_in_the_queue(server: Running, gate: Path) -> None:
    connections = [hold(server, f"place {number}") for number in range(9)]

    def is_full() -> bool:
        # It may get the last place itself. Then it leaves after two seconds, and gives it back.
        with contextlib.suppress(requests.Timeout):
            return server.post(timeout=2, files={"content": jpeg()}).status_code == 503
        return False

    wait_until(is_full, 30, "it is never full")
    for connection in connections:
        connection.close()

    def is_taken() -> bool:
        return server.post(files={"content": jpeg()}).status_code == 200

    wait_until(is_taken, 30, "the places were not given back")


def test_a_batch_whose_client_leaves_ends(server: Running, store: RecordingStore) -> None:
    store.objects["photo"] = jpeg()
    row = {"content_url": store.url("photo"), "result_url": store.url("made.jpg"), "steps": 600}
    body = json.dumps(row).encode() + b"\n"
    more = b"X-Amzn-SageMaker-Inference-Id: batch\r\n"
    head = b"POST /invocations HTTP/1.1\r\nHost: server\r\nContent-Type: application/jsonlines\r\n"
    with connect(server) as connection:
        connection.sendall(head + more + b"Content-Length: %d\r\n\r\n" % (3 * len(body)) + body * 3)
        time.sleep(0.5)
    [left] = wait_until(lambda: events_with(server, "batch"), 30, "the batch goes on")
    assert left["error"] == "client_gone"
    assert store.puts == []


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_client_that_only_ends_its_own_side_gets_its_picture(
    server: Running, version: bytes
) -> None:
    request = image_request(jpeg(), b"?steps=15", b"Connection: close\r\n")
    with connect(server) as connection:
        connection.sendall(request.replace(b"HTTP/1.1", b"HTTP/" + version))
        connection.shutdown(socket.SHUT_WR)
        received = receive_all(connection)
    answers = received.split(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert answers[-1].split()[1] == b"200"
    assert answers[-1].endswith(b"\xff\xd9")
    if version == b"1.0":
        assert len(answers) == 1, "it does not know interim answers"


def test_a_client_that_ends_its_side_within_a_body_is_let_go(server: Running) -> None:
    with connect(server) as connection:
        connection.sendall(image_request(jpeg())[:-10])
        connection.shutdown(socket.SHUT_WR)
        assert receive_all(connection) == b""


# --- the end ---


def test_a_server_that_finishes_its_last_request_refuses_others(tmp_path: Path) -> None:
    with (
        gunicorn("tests.fakes.model:app()", tmp_path, environment=LOCAL) as running,
        hostile_servers() as start,
        ThreadPoolExecutor(1) as pool,
    ):
        source = start(flooding(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", pause=0.2))
        last = pool.submit(running.post, json={"content_url": source.url})
        wait_until(lambda: source.peers, 30, "the source is not read")
        running.terminate()

        def is_refused() -> bool:
            try:
                connect(running).close()
            except ConnectionRefusedError:
                return True
            return False

        wait_until(is_refused, 10, "others are still accepted")
        assert not last.done()
        source.close()
        # Its source broke off
        assert last.result(30).status_code in (400, 422)


def test_idle_connections_do_not_hold_up_the_end(tmp_path: Path) -> None:
    with gunicorn("tests.fakes.model:app()", tmp_path) as running, contextlib.ExitStack() as stack:
        for data in (b"", b"GET /ping HTTP/1.1\r\nX", PING, image_request(jpeg())[:-10]):
            stack.enter_context(connect(running)).sendall(data)
        running.terminate()
        assert running.process.wait(15) == 0
