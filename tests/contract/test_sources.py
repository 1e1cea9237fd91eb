"""Sources of strangers against a real server: slow ones, and ones that keep to no rule."""

import io
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from PIL import Image

from containers.serving.limits import MAX_FETCHING
from containers.serving.storage import START_SECONDS
from tests.fakes.hostile import HostileServer, Script, flooding, hostile_servers, replying
from tests.fakes.servers import LOCAL, Running, gunicorn, wait_until

OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("server")
    with gunicorn("tests.fakes.model:app()", folder, environment=LOCAL) as running:
        yield running


@pytest.fixture
def hostile() -> Iterator[Callable[[Script], HostileServer]]:
    with hostile_servers() as start:
        yield start


def code(answer: requests.Response) -> tuple[int, str]:
    assert "secret" not in answer.text
    return answer.status_code, answer.json()["error"]["code"]


def test_sources_that_trickle_headers_delay_no_other_request(
    server: Running, hostile: Callable[[Script], HostileServer]
) -> None:
    """As many as are read at a time. Further ones are sent away, and uploads are served."""
    slow = hostile(flooding(OK, b"X: y\r\n", pause=0.5))
    job = {"content_url": f"{slow.url}/?secret"}
    photo = io.BytesIO()
    Image.new("RGB", (40, 30)).save(photo, "PNG")
    started = time.monotonic()
    with ThreadPoolExecutor(MAX_FETCHING) as pool:
        posts = [pool.submit(server.post, json=job) for _ in range(MAX_FETCHING)]
        wait_until(lambda: len(slow.peers) == MAX_FETCHING, 10, "not all sources are being read")
        assert server.ping().status_code == 200
        refused = server.post(json=job)
        assert (*code(refused), refused.headers["Retry-After"]) == (503, "queue_full", "5")
        assert server.post(files={"content": photo.getvalue()}).status_code == 200
        assert not any(post.done() for post in posts)
        answers = [post.result() for post in posts]
    seconds = time.monotonic() - started
    assert {code(answer) for answer in answers} == {(400, "storage_failed")}
    # Each header alone came in time
    assert START_SECONDS - 1 < seconds < 3 * START_SECONDS


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (OK + b"Content-Length: abc\r\n\r\nhello", "storage_failed"),
        (OK + b"Content-Length: 5, 5\r\n\r\nhello", "storage_failed"),
        (OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\nhello", "storage_failed"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nfive\r\nhello", "storage_failed"),
        (OK + b"Content-Encoding: gzip\r\n\r\nhello", "storage_failed"),
        (b"HTTP/1.1 999 Denied\r\n\r\n", "storage_failed"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://[zz]/\r\n\r\n", "bad_request"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://user:secret@host/\r\n\r\n", "bad_request"),
        (b"HTTP/1.1 302 Found\r\nLocation: \xff\xfe\r\n\r\n", "bad_request"),
    ],
)
def test_a_source_that_keeps_to_no_rule_is_not_a_fault_of_ours(
    server: Running, hostile: Callable[[Script], HostileServer], answer: bytes, expected: str
) -> None:
    source = hostile(replying(answer))
    told = server.post(json={"content_url": f"{source.url}/a?secret"})
    assert code(told) == (400, expected)
    assert "secret" not in server.log_text()
    assert "Traceback" not in server.log_text()
