"""When progress is written, and what: the clock is the test's own."""

import base64
import io
import json
import time

import pytest
from PIL import Image

from containers.common.errors import ErrorCode
from containers.serving import progress, storage
from containers.serving.errors import ApiError
from containers.serving.model import Progress
from containers.serving.progress import ProgressWriter, progress_state
from tests.fakes.hostile import HostileServer, Peer


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The `done` of each state that was written."""
    done: list[float] = []

    def write(url: str, data: bytes, content_type: str, name: str, seconds: float) -> None:
        done.append(json.loads(data)["done"])

    monkeypatch.setattr(storage, "write", write)
    return done


def update(writer: ProgressWriter, done: float) -> None:
    writer.update(Progress(int(100 * done), 100, done))
    writer.finish()


def test_progress_is_written_at_once_and_then_every_two_seconds(
    clock: Clock, written: list[float]
) -> None:
    writer = ProgressWriter("https://example.com/progress", clock)
    for step in range(10):
        update(writer, step / 10)
        clock.seconds += 0.7
    # At 0.0, 2.1, 4.2 and 6.3 seconds
    assert written == [0.0, 0.3, 0.6, 0.9]


def test_without_a_url_nothing_is_written(clock: Clock, written: list[float]) -> None:
    update(ProgressWriter(None, clock), 0.5)
    assert written == []


def test_after_a_failure_the_store_is_left_alone(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = []

    def fail(url: str, data: bytes, content_type: str, name: str, seconds: float) -> None:
        attempts.append(url)
        raise ApiError(ErrorCode.ACCESS_DENIED, "no")

    monkeypatch.setattr(storage, "write", fail)
    writer = ProgressWriter("s3://bucket/progress", clock)
    for _ in range(3):
        update(writer, 0.5)
        clock.seconds += 10
    assert attempts == ["s3://bucket/progress"]


def test_a_store_that_hangs_delays_answers_for_a_short_time_only(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """The store takes the connection and says nothing."""
    monkeypatch.setenv("ALLOW_HTTP", "1")
    monkeypatch.setenv("ALLOW_PRIVATE_HOSTS", "1")
    monkeypatch.setattr(progress, "WRITE_SECONDS", 1.0)
    store = HostileServer(Peer.wait_until_left)
    writers = [ProgressWriter(f"{store.url}/progress", clock) for _ in range(5)]
    started = time.monotonic()
    for writer in writers:
        writer.update(Progress(1, 100, 0.01))
    for writer in reversed(writers):
        writer.finish()
    assert time.monotonic() - started < 15
    store.close()
    assert writers[-1].pending is not None
    assert writers[-1].pending.cancelled()


def test_the_state_tells_the_seconds_that_are_left() -> None:
    state = progress_state(Progress(30, 120, 0.25, loss=3.5), seconds=10.04, preview=None)
    assert state == {
        "step": 30,
        "steps": 120,
        "done": 0.25,
        "loss": 3.5,
        "seconds": 10.0,
        "seconds_left": 30.1,
    }
    assert progress_state(Progress(0, 120, 0.0), 1.0, None)["seconds_left"] is None


def test_the_preview_is_a_small_jpeg() -> None:
    large = Image.new("RGB", (1000, 500), (200, 30, 30))
    state = progress_state(Progress(1, 2, 0.5), 1.0, large)
    preview = Image.open(io.BytesIO(base64.b64decode(state["preview"])))
    assert (preview.format, preview.size) == ("JPEG", (384, 192))
