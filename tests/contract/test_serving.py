"""The contract of the containers, over HTTP: a real gunicorn with a model that obeys the test."""

import base64
import io
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from containers.serving.worker import (
    END_CONTAINER,
    RELAPSE_SECONDS,
    REPLACE_PROCESS,
    exit_code,
)
from tests.fakes.servers import LOCAL, RecordingStore, Running, gunicorn, wait_until

APPLICATION = "tests.fakes.model:app()"


def jpeg(width: int = 40, height: int = 30, colour: tuple[int, int, int] = (250, 20, 20)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "JPEG")
    return buffer.getvalue()


def picture(answer: requests.Response) -> Image.Image:
    assert answer.status_code == 200, answer.text
    return Image.open(io.BytesIO(answer.content))


def error(answer: requests.Response) -> tuple[int, str]:
    """(status, code); every error is JSON with a message for people and without a stack trace."""
    told = answer.json()["error"]
    assert set(told) == {"code", "message"}
    assert told["message"]
    assert "Traceback" not in answer.text
    return answer.status_code, told["code"]


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """While this file does not exist, requests in the style `hold` go on and on."""
    return tmp_path_factory.mktemp("gate") / "open"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, gate: Path) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("server")
    with gunicorn(APPLICATION, folder, environment=LOCAL, FAKE_GATE=str(gate)) as running:
        yield running


# --- health ---


def test_ping_and_the_plain_pages(server: Running) -> None:
    assert server.ping().status_code == 200
    index = requests.get(server.url, timeout=10)
    assert index.headers["Content-Type"].startswith("text/plain")
    assert "curl" in index.text
    assert "negative" in index.text
    assert len(index.text.splitlines()) <= 40
    parameters = requests.get(f"{server.url}/execution-parameters", timeout=10).json()
    assert parameters == {
        "MaxConcurrentTransforms": 1,
        "BatchStrategy": "SINGLE_RECORD",
        "MaxPayloadInMB": 6,
    }


def test_the_index_describes_the_server_to_programs(server: Running) -> None:
    answer = requests.get(server.url, headers={"Accept": "application/json"}, timeout=10)
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Vary"] == "Accept"
    about = answer.json()
    assert about["name"] == "fake"
    assert about["summary"] == "a negative of a photograph"
    assert about["styles"] == ["negative"]
    assert about["parameters"] == [
        {"name": "style_name", "default": "negative", "range": "text", "meaning": "what to do"},
        {"name": "steps", "default": "0", "range": "0..1000", "meaning": "of 0.1 s each"},
    ]
    assert about["limits"] == {
        "max_body_megabytes": 100,
        "max_json_kilobytes": 256,
        "max_batch_megabytes": 6,
        "max_batch_rows": 1000,
        "max_line_kilobytes": 64,
        "max_field_kilobytes": 8,
        "max_form_parts": 100,
        "max_file_megabytes": 64,
        "max_megapixels": 40,
        "min_side": 16,
        "longest_side": 4096,
        "queue_length": 8,
    }


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "text/plain"),
        ("", "text/plain"),
        ("*/*", "text/plain"),
        ("text/plain", "text/plain"),
        ("text/html, application/xhtml+xml, */*;q=0.8", "text/plain"),
        ("image/png", "text/plain"),
        ("application/json", "application/json"),
        ("Application/JSON", "application/json"),
        ("application/*", "application/json"),
        ("text/html, application/json;q=0.9", "application/json"),
        ("application/json, text/plain;q=0.5", "application/json"),
        ("application/json;q=0.5, text/plain", "text/plain"),
        ("application/json;q=0, */*", "text/plain"),
        ("*/*;q=0.1, application/json", "application/json"),
    ],
)
def test_accept_chooses_between_text_and_json(
    server: Running, accept: str | None, expected: str
) -> None:
    # None removes the header that requests would send
    headers = {"Accept": accept}
    answer = requests.get(server.url, headers=headers, timeout=10)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].partition(";")[0] == expected


def test_ping_is_503_until_the_model_is_loaded_and_tells_so(tmp_path: Path) -> None:
    with gunicorn(APPLICATION, tmp_path, wait=False, FAKE_LOAD_SECONDS="2") as running:
        assert error(running.ping()) == (503, "loading")
        answer = running.post(data=jpeg(), headers={"Content-Type": "image/jpeg"})
        assert error(answer) == (503, "loading")
        wait_until(lambda: running.ping().status_code == 200, 20, "never became healthy")


def test_a_model_that_cannot_load_says_why_for_good(tmp_path: Path) -> None:
    with gunicorn(APPLICATION, tmp_path, wait=False, FAKE_LOAD_FAILS="1") as running:
        wait_until(
            lambda: error(running.ping()) == (503, "broken"), 10, "never said that it is broken"
        )
        assert "the weights are missing" in running.ping().text


def test_a_broken_cuda_context_ends_the_process_and_a_second_one_the_container(
    tmp_path: Path,
) -> None:
    """A new process has a new context. If that breaks soon too, the platform has to help."""
    with gunicorn(APPLICATION, tmp_path) as running:
        assert error(running.post(files={"content": jpeg()}, data={"style": "fatal"}))[0] == 500
        assert running.ping().status_code in (200, 503)
        wait_until(
            lambda: "exited with code 1" in running.log_text(), 30, "the process did not end"
        )
        wait_until(lambda: running.ping().status_code == 200, 30, "no other process came")
        assert running.post(files={"content": jpeg()}).status_code == 200

        assert error(running.post(files={"content": jpeg()}, data={"style": "fatal"}))[0] == 500
        assert running.process.wait(30) == END_CONTAINER


def test_a_fault_cuts_off_no_answer(tmp_path: Path) -> None:
    """A picture that runs then ends with its best state; one that waits is refused."""
    with gunicorn(APPLICATION, tmp_path) as running, ThreadPoolExecutor(3) as pool:
        earlier = pool.submit(running.post, files={"content": jpeg()}, data={"steps": "5"})
        fatal = pool.submit(running.post, files={"content": jpeg()}, data={"style": "fatal"})
        later = pool.submit(running.post, files={"content": jpeg()}, data={"steps": "100"})
        assert fatal.result().status_code == 500
        # In which order they came does not matter
        assert earlier.result().status_code in (200, 503)
        assert later.result().status_code in (200, 503)


def test_a_process_that_worked_for_long_may_be_replaced_again() -> None:
    assert exit_code(age=1, seconds=5) == REPLACE_PROCESS
    assert exit_code(age=2, seconds=5) == END_CONTAINER
    assert exit_code(age=3, seconds=RELAPSE_SECONDS) == REPLACE_PROCESS


def test_a_process_that_cannot_load_after_a_fault_ends_the_container(tmp_path: Path) -> None:
    """The GPU is gone: what was loaded once cannot be loaded again."""
    marker = tmp_path / "gone"
    with gunicorn(APPLICATION, tmp_path, FAKE_GPU_GONE=str(marker)) as running:
        marker.touch()
        assert error(running.post(files={"content": jpeg()}, data={"style": "fatal"}))[0] == 500
        assert running.process.wait(30) == END_CONTAINER


# --- one picture, in every content type ---


def test_a_form_gives_the_picture(server: Running) -> None:
    answer = server.post(files={"content": ("photo.jpg", jpeg())}, data={"style": "negative"})
    assert answer.headers["Content-Type"] == "image/jpeg"
    assert int(answer.headers["Content-Length"]) == len(answer.content)
    image = picture(answer)
    assert image.size == (40, 30)
    assert image.getpixel((20, 15)) == pytest.approx((5, 235, 235), abs=8)
    told = json.loads(answer.headers["X-Amzn-SageMaker-Custom-Attributes"])
    assert told["size"] == [40, 30]
    assert told["notes"] == ["It is a negative."]


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [("*/*", "image/jpeg"), ("image/png", "image/png"), ("image/webp", "image/webp")],
)
def test_a_picture_comes_with_its_length_and_in_one_piece(
    server: Running, accept: str, content_type: str
) -> None:
    """SageMaker passes the length on, and clients show a progress bar by it."""
    answer = server.post(files={"content": jpeg()}, headers={"Accept": accept})
    assert answer.headers["Content-Type"] == content_type
    assert int(answer.headers["Content-Length"]) == len(answer.content)
    assert "Transfer-Encoding" not in answer.headers


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("image/jpeg", jpeg(), 200),
        ("image/jpeg", b"no picture", 422),
        ("application/jsonlines", b"{}", 200),
        ("application/pdf", b"%PDF", 415),
    ],
)
def test_every_answer_has_a_length_on_the_wire(
    server: Running, content_type: str, body: bytes, status: int
) -> None:
    """Read from the socket, since an HTTP client may add or remove what it likes."""
    host, port = server.url.removeprefix("http://").split(":")
    head = (
        f"POST /invocations HTTP/1.1\r\nHost: {host}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(head.encode() + body)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    answer_head, _, answer_body = received.partition(b"\r\n\r\n")
    status_line, *lines = answer_head.decode().lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    assert status_line.startswith(f"http/1.1 {status} ")
    assert int(headers["content-length"]) == len(answer_body) > 0
    assert "transfer-encoding" not in headers


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("image/png", "PNG"),
        ("image/webp", "WEBP"),
        ("IMAGE/PNG;q=0.9", "PNG"),
        ("*/*", "JPEG"),
        ("application/json", "JPEG"),
        ("", "JPEG"),
    ],
)
def test_accept_chooses_the_kind_of_file(server: Running, accept: str, expected: str) -> None:
    answer = server.post(files={"content": jpeg()}, headers={"Accept": accept})
    assert picture(answer).format == expected
    assert answer.headers["Content-Type"] == f"image/{expected.lower()}"


def test_an_image_body_with_the_style_in_query_or_attributes(server: Running) -> None:
    headers = {"Content-Type": "image/jpeg"}
    assert picture(server.post(data=jpeg(), headers=headers)).size == (40, 30)
    attributes = {**headers, "X-Amzn-SageMaker-Custom-Attributes": "style=nobody"}
    assert error(server.post(data=jpeg(), headers=attributes)) == (404, "unknown_style")
    attributes["X-Amzn-SageMaker-Custom-Attributes"] = "nobody"
    assert error(server.post(data=jpeg(), headers=attributes)) == (404, "unknown_style")
    answer = requests.post(
        f"{server.url}/invocations?style=nobody", data=jpeg(), headers=headers, timeout=10
    )
    assert error(answer) == (404, "unknown_style")
    answer = requests.post(
        f"{server.url}/invocations?style=negative&steps=1", data=jpeg(), headers=headers, timeout=10
    )
    assert picture(answer).size == (40, 30)


def test_json_with_a_result_url_tells_where_the_picture_is(
    server: Running, store: RecordingStore
) -> None:
    store.objects["photo"] = jpeg()
    body = {
        "content_url": store.url("photo"),
        "result_url": store.url("made.png?signature=secret"),
        "steps": 2,
    }
    answer = server.post(json=body)
    told = answer.json()
    assert answer.status_code == 200
    assert told["result_url"] == store.url("made.png")
    assert told["size"] == [40, 30]
    assert told["steps"] == 2
    assert told["seconds"] >= 0.2
    assert Image.open(io.BytesIO(store.objects["made.png"])).format == "PNG"
    assert "secret" not in answer.text
    assert "secret" not in server.log_text()


def test_json_without_a_result_url_gives_the_picture_itself(
    server: Running, store: RecordingStore
) -> None:
    store.objects["photo"] = jpeg()
    answer = server.post(json={"content_url": store.url("photo"), "steps": None})
    assert picture(answer).size == (40, 30)


def test_progress_is_written_at_most_every_two_seconds_with_a_preview(
    server: Running, store: RecordingStore
) -> None:
    store.objects["photo"] = jpeg(400, 300)
    body = {"content_url": store.url("photo"), "progress_url": store.url("progress"), "steps": 30}
    body["result_url"] = store.url("made.jpg")
    started = time.monotonic()
    assert server.post(json=body).status_code == 200
    seconds = time.monotonic() - started
    states = [json.loads(data) for key, data in store.puts if key == "progress"]
    assert 1 <= len(states) <= 1 + seconds / 2
    last = states[-1]
    assert (last["steps"], last["step"]) == (30, pytest.approx(30 * last["done"], abs=1))
    whole = last["seconds"] / last["done"]
    assert last["seconds"] + last["seconds_left"] == pytest.approx(whole, abs=0.2 / last["done"])
    assert last["seconds"] <= seconds
    preview = Image.open(io.BytesIO(base64.b64decode(last["preview"])))
    assert max(preview.size) == 384
    assert [key for key, _ in store.puts][-1] == "made.jpg"


def test_a_progress_that_cannot_be_written_costs_nothing_else(
    server: Running, store: RecordingStore
) -> None:
    store.objects["photo"] = jpeg()
    body = {"content_url": store.url("photo"), "progress_url": store.url("forbidden"), "steps": 3}
    assert picture(server.post(json=body)).size == (40, 30)


# --- batches ---


def test_a_csv_batch_answers_row_by_row(server: Running, store: RecordingStore) -> None:
    store.objects["photo"] = jpeg()
    rows = [
        f"{store.url('photo')},negative,{store.url('one.jpg')}",
        f"{store.url('missing')},negative,{store.url('two.jpg')}",
        f"{store.url('photo')},,{store.url('three.jpg')},",
        f"{store.url('photo')},negative,{store.url('four.jpg')},abc",
        f"{store.url('photo')},negative,",
        f"{store.url('photo')},negative,{store.url('six.jpg')},1,2,3,4",
    ]
    answer = server.post(
        data="\r\n".join(rows), headers={"Content-Type": "text/csv; charset=utf-8"}
    )
    assert answer.headers["Content-Type"] == "application/jsonlines"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line.get("result_url") or line["error"]["code"] for line in lines] == [
        store.url("one.jpg"),
        "object_not_found",
        store.url("three.jpg"),
        "bad_request",
        "bad_request",
        "bad_request",
    ]
    assert "one.jpg" in store.objects
    assert "two.jpg" not in store.objects


def test_a_json_lines_batch_survives_its_bad_rows(server: Running, store: RecordingStore) -> None:
    store.objects["photo"] = jpeg()
    good = {
        "content_url": store.url("photo"),
        "style_name": "negative",
        "result_url": store.url("a.jpg"),
    }
    crash = json.dumps({**good, "style_name": "crash"})
    rows = [json.dumps(good), "{", crash, "", json.dumps(good)]
    answer = server.post(data="\n".join(rows), headers={"Content-Type": "application/jsonlines"})
    lines = [json.loads(line) for line in answer.text.splitlines()]
    codes = [line.get("error", {}).get("code") for line in lines]
    assert codes == [None, "bad_request", "internal", None]
    assert "a secret detail" not in answer.text


@pytest.mark.parametrize("content_type", ["text/csv", "application/jsonlines"])
def test_a_batch_without_rows_is_an_error(server: Running, content_type: str) -> None:
    answer = server.post(data="\n\n", headers={"Content-Type": content_type})
    assert error(answer) == (400, "bad_request")


# --- mistakes ---


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"data": b"{", "headers": {"Content-Type": "application/json"}}, (400, "bad_request")),
        (
            {"data": b"\xff\xfe", "headers": {"Content-Type": "application/json"}},
            (400, "bad_request"),
        ),
        (
            {"data": b"[" * 100_000, "headers": {"Content-Type": "application/json"}},
            (400, "bad_request"),
        ),
        ({"json": {}}, (400, "bad_request")),
        ({"json": {"content_url": 7}}, (400, "bad_request")),
        ({"json": {"content_url": "ftp://host/a"}}, (400, "bad_request")),
        ({"json": {"content_url": "https:///a"}}, (400, "bad_request")),
        ({"json": {"content_url": "https://user:password@host/a"}}, (400, "bad_request")),
        ({"json": {"content_url": "https://host:port/a"}}, (400, "bad_request")),
        ({"json": {"content_url": "s3://bucket"}}, (400, "bad_request")),
        ({"json": {"content_url": "http://no-such-host.invalid/a"}}, (400, "storage_failed")),
        ({"files": {"content": b"no picture"}}, (422, "image_unreadable")),
        ({"files": {"content": jpeg(8, 400)}}, (422, "image_too_small")),
        ({"files": {"content": jpeg(), "contents": jpeg()}}, (400, "bad_request")),
        ({"files": {"photo": jpeg()}}, (400, "bad_request")),
        ({"files": {"content": jpeg()}, "data": {"stepps": "3"}}, (400, "bad_request")),
        ({"files": {"content": jpeg()}, "data": {"steps": "1e999"}}, (400, "bad_request")),
        ({"files": {"content": jpeg()}, "data": {"style": "nobody"}}, (404, "unknown_style")),
        ({"files": {"content": jpeg()}, "data": {"style": "crash"}}, (500, "internal")),
        ({"data": b"x", "headers": {"Content-Type": "multipart/form-data"}}, (400, "bad_request")),
        (
            {"data": b"x", "headers": {"Content-Type": "application/pdf"}},
            (415, "unsupported_media_type"),
        ),
        ({"data": b"x"}, (415, "unsupported_media_type")),
    ],
)
def test_each_mistake_has_its_answer(
    server: Running, request_: dict[str, Any], expected: tuple[int, str]
) -> None:
    assert error(server.post(**request_)) == expected
    assert server.ping().status_code == 200


def test_other_paths_and_methods_are_told_in_json(server: Running) -> None:
    assert error(requests.get(f"{server.url}/nothing", timeout=10)) == (404, "not_found")
    answer = requests.get(f"{server.url}/invocations", timeout=10)
    assert error(answer) == (405, "method_not_allowed")


def test_a_body_above_the_limit_is_refused(server: Running) -> None:
    answer = server.post(data=b"\0" * (101 << 20), headers={"Content-Type": "image/jpeg"})
    assert error(answer) == (413, "body_too_large")


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    body=st.binary(max_size=300),
    content_type=st.sampled_from(
        [
            "application/json",
            "text/csv",
            "application/jsonlines",
            "image/png",
            "multipart/form-data; boundary=x",
            "a/b",
        ]
    )
    | st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20),
)
def test_no_body_of_any_type_is_our_fault(server: Running, body: bytes, content_type: str) -> None:
    answer = server.post(data=body, headers={"Content-Type": content_type})
    if answer.status_code == 200:  # a batch, whose errors are in its rows
        assert all("error" in json.loads(line) for line in answer.text.splitlines())
    else:
        assert 400 <= error(answer)[0] < 500


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
        ),
        max_leaves=6,
    ),
    st.sampled_from(
        ["content_url", "style_name", "result_url", "progress_url", "steps", "style_url"]
    ),
)
def test_no_json_is_our_fault(server: Running, value: object, name: str) -> None:
    body = {"content_url": "https://no-such-host.invalid/a", name: value}
    headers = {"Content-Type": "application/json"}
    status, _ = error(server.post(data=json.dumps(body), headers=headers))
    assert 400 <= status < 500


# --- many at once, and the end ---


def test_jobs_run_one_at_a_time_in_order_and_ping_answers_meanwhile(server: Running) -> None:
    ended: list[int] = []

    def job(number: int) -> None:
        picture(server.post(files={"content": jpeg()}, data={"steps": "5"}))
        ended.append(number)

    with ThreadPoolExecutor(4) as pool:
        started = time.monotonic()
        for number in range(4):
            pool.submit(job, number)
            time.sleep(0.1)
            assert server.ping().status_code == 200
    assert ended == [0, 1, 2, 3]
    assert time.monotonic() - started >= 2.0


def count_done(futures: list[Future[requests.Response]]) -> int:
    return sum(future.done() for future in futures)


def test_a_full_queue_says_when_to_come_again(server: Running, gate: Path) -> None:
    """One is worked on, eight wait, and five more are refused, all while the first goes on."""

    def hold() -> requests.Response:
        return server.post(files={"content": jpeg()}, data={"style": "hold"})

    with ThreadPoolExecutor(14) as pool:
        futures = [pool.submit(hold) for _ in range(14)]
        try:
            wait_until(lambda: count_done(futures) >= 5, 30, "too few were refused")
        finally:
            gate.touch()
        answers = [future.result() for future in futures]
    gate.unlink()
    refused = [answer for answer in answers if answer.status_code != 200]
    assert len(refused) == 5
    for answer in refused:
        assert error(answer) == (503, "queue_full")
        assert int(answer.headers["Retry-After"]) >= 1


def test_batches_leave_places_in_the_queue_to_others(
    server: Running, store: RecordingStore, gate: Path
) -> None:
    store.objects["photo"] = jpeg()
    row = {"content_url": store.url("photo"), "style": "hold", "result_url": store.url("a.jpg")}
    body = json.dumps(row).encode()

    def send() -> requests.Response:
        return server.post(data=body, headers={"Content-Type": "application/jsonlines"})

    with ThreadPoolExecutor(9) as pool:
        futures = [pool.submit(send) for _ in range(9)]
        try:
            wait_until(lambda: count_done(futures) == 7, 30, "not so many were refused")
            picture_of_another = pool.submit(server.post, files={"content": jpeg()})
            time.sleep(0.2)
            assert not picture_of_another.done(), "it does not wait for its turn"
        finally:
            gate.touch()
        picture(picture_of_another.result())
        answers = [future.result() for future in futures]
    gate.unlink()
    refused = [answer for answer in answers if answer.status_code != 200]
    assert {error(answer) for answer in refused} == {(503, "queue_full")}
    assert {answer.headers["Retry-After"] for answer in refused} == {"60"}
    assert len(refused) == 7


def test_on_sigterm_the_running_job_gives_its_best_and_the_others_are_sent_away(
    tmp_path: Path,
) -> None:
    """One of ten requests is refused at once: the sign that one is worked on and eight wait."""
    gate = str(tmp_path / "never")
    with gunicorn(APPLICATION, tmp_path, FAKE_GATE=gate) as running, ThreadPoolExecutor(10) as pool:
        hold = {"style": "hold", "steps": "600"}
        futures = [pool.submit(running.post, files={"content": jpeg()}, data=hold)]
        wait_until(lambda: "holding" in running.log_text(), 30, "it does not begin")
        futures += [
            pool.submit(running.post, files={"content": jpeg()}, data=hold) for _ in range(9)
        ]
        wait_until(lambda: count_done(futures) == 1, 30, "none was refused")
        running.terminate()
        answers = [future.result(60) for future in futures]
        [answer] = [answer for answer in answers if answer.status_code == 200]
        assert picture(answer).size == (40, 30)
        assert json.loads(answer.headers["X-Amzn-SageMaker-Custom-Attributes"])["steps"] < 600
        refused = [error(answer) for answer in answers if answer.status_code != 200]
        assert sorted(refused) == [(503, "queue_full")] + [(503, "stopping")] * 8
        assert running.process.wait(20) == 0


def test_the_log_has_one_json_line_for_each_request_and_no_secret(
    server: Running, store: RecordingStore
) -> None:
    store.objects["photo"] = jpeg()
    url = store.url("photo?X-Amz-Signature=abcdef")
    server.post(json={"content_url": url}, headers={"X-Amzn-SageMaker-Inference-Id": "job-17"})
    server.post(
        json={"content_url": url.replace("photo", "gone")},
        headers={"X-Amzn-SageMaker-Inference-Id": "job-18"},
    )
    lines = [json.loads(line) for line in server.log_text().splitlines() if line.startswith("{")]
    by_id = {line["inference_id"]: line for line in lines if line.get("inference_id")}
    assert by_id["job-17"]["status"] == 200
    assert by_id["job-17"]["size"] == [40, 30]
    assert by_id["job-17"]["memory_mb"] > 0
    assert by_id["job-18"]["error"] == "object_not_found"
    assert "abcdef" not in server.log_text()
