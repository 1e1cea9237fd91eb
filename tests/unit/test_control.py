"""What can be asked of a job that waits or runs, by the object at its control_url."""

import io
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask
from PIL import Image
from werkzeug.test import TestResponse

from containers.common.errors import ErrorCode
from containers.common.parameters import ParameterValues
from containers.serving import control, storage
from containers.serving.app import create_app
from containers.serving.errors import ApiError
from containers.serving.model import Inputs, Picture, Progress, Report, Service
from tests.fakes.servers import wait_until

CONTROL = "s3://bucket/control"
STEPS = 1000


class Patient:
    """A model that makes STEPS steps of 20 ms, unless it is asked to stop."""

    def __init__(self) -> None:
        self.steps_taken: list[int] = []  # of each picture
        self.running = threading.Event()

    def styles(self) -> list[str]:
        return []

    def stylize(
        self,
        inputs: Inputs,
        options: ParameterValues,
        report: Report,
    ) -> Picture:
        self.steps_taken.append(0)
        self.running.set()
        for step in range(1, STEPS + 1):
            self.steps_taken[-1] = step
            if report(Progress(step, STEPS, step / STEPS)):
                break
            time.sleep(0.02)
        return Picture(inputs.content, {"steps": self.steps_taken[-1]})


class Place:
    """A server whose URLs lead to a dictionary, and people who send it requests."""

    def __init__(self, model: Patient, objects: dict[str, bytes]) -> None:
        self.model = model
        self.objects = objects
        self.reads: list[str] = []
        self.app: Flask = create_app(Service("nst", "s", False, (), (), lambda: model))
        self.people = ThreadPoolExecutor(4)
        client = self.app.test_client()
        wait_until(lambda: client.get("/ping").status_code == 200, 30, "the model was not loaded")

    def send(self, name: str, control_url: str = CONTROL) -> Future[TestResponse]:
        body = {
            "content_url": "s3://bucket/photo",
            "result_url": f"s3://bucket/{name}.png",
            "control_url": control_url,
        }
        return self.people.submit(self.app.test_client().post, "/invocations", json=body)

    def ask(self, action: str, url: str = CONTROL) -> None:
        self.objects[url] = json.dumps({"action": action}).encode()


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 24), "red").save(buffer, "PNG")
    place = Place(Patient(), {"s3://bucket/photo": buffer.getvalue()})

    def read(url: str, name: str, seconds: float | None = None) -> bytes:
        place.reads.append(url)
        if url not in place.objects:
            raise ApiError(ErrorCode.OBJECT_NOT_FOUND, f"{name}: there is nothing at {url}.")
        return place.objects[url]

    def write(
        url: str, data: bytes, content_type: str, name: str, seconds: float | None = None
    ) -> None:
        place.objects[url] = data

    monkeypatch.setattr(storage, "read", read)
    monkeypatch.setattr(storage, "write", write)
    monkeypatch.setattr(control, "SECONDS_BETWEEN", 0.05)
    monkeypatch.setattr(control, "FIRST_LOOK_SECONDS", 30)
    yield place
    place.people.shutdown()


def code(answer: TestResponse) -> tuple[int, str]:
    body: Any = answer.get_json()
    return answer.status_code, body["error"]["code"]


def test_a_cancel_ends_a_running_job_and_nothing_is_stored(place: Place) -> None:
    answer = place.send("result")
    assert place.model.running.wait(30)
    place.ask("cancel")
    assert code(answer.result(30)) == (409, "cancelled")
    assert place.model.steps_taken[0] < STEPS
    assert "s3://bucket/result.png" not in place.objects


def test_a_cancel_ends_a_job_that_waits_and_the_others_go_on(place: Place) -> None:
    first = place.send("first", "s3://bucket/first-control")
    assert place.model.running.wait(30)
    waiting = place.send("waiting", "s3://bucket/waiting-control")
    last = place.send("last", "s3://bucket/last-control")
    place.ask("cancel", "s3://bucket/waiting-control")
    assert code(waiting.result(30)) == (409, "cancelled")
    assert not first.done()
    place.ask("take", "s3://bucket/first-control")
    place.ask("take", "s3://bucket/last-control")
    assert first.result(30).status_code == 200
    assert last.result(30).status_code == 200
    assert len(place.model.steps_taken) == 2


def test_of_a_job_that_was_cancelled_before_no_image_is_read(place: Place) -> None:
    place.ask("cancel")
    assert code(place.send("result").result(30)) == (409, "cancelled")
    assert place.reads == [CONTROL]
    assert place.model.steps_taken == []


def test_the_best_picture_so_far_can_be_taken(place: Place) -> None:
    answer = place.send("result")
    assert place.model.running.wait(30)
    place.ask("take")
    facts: Any = answer.result(30).get_json()
    assert facts["size"] == [32, 24]
    assert facts["steps"] == place.model.steps_taken[0] < STEPS
    assert facts["seconds"] > 0
    assert "s3://bucket/result.png" in place.objects


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"action": "dance"}', b'{"action": []}', b"[" * 900, b"\xff"]
)
def test_what_asks_for_nothing_changes_nothing(place: Place, data: bytes) -> None:
    place.objects[CONTROL] = data
    answer = place.send("result")
    wait_until(lambda: place.reads.count(CONTROL) > 2, 30, "it is not looked at any more")
    assert not answer.done()
    place.ask("take")
    assert answer.result(30).status_code == 200


def test_a_cancelled_row_of_a_batch_ends_alone(place: Place) -> None:
    place.ask("cancel", "s3://bucket/control-0")
    place.ask("take", "s3://bucket/control-1")
    rows = []
    for number in range(2):
        row = {
            "content_url": "s3://bucket/photo",
            "result_url": f"s3://bucket/{number}.png",
            "control_url": f"s3://bucket/control-{number}",
        }
        rows.append(json.dumps(row))
    answer = place.app.test_client().post(
        "/invocations", data="\n".join(rows), content_type="application/jsonlines"
    )
    first, second = (json.loads(line) for line in answer.text.splitlines())
    assert first["error"]["code"] == "cancelled"
    assert second["result_url"] == "s3://bucket/1.png"


def test_a_store_that_hangs_or_fails_delays_no_step(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store of the control object says nothing, and then fails, again and again."""
    monkeypatch.setattr(control, "FIRST_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(control, "SECONDS_AFTER_FAILURE", 0.05)
    may_fail = threading.Event()
    read_object = storage.read

    def read(url: str, name: str, seconds: float | None = None) -> bytes:
        if url != CONTROL or "recovered" in place.objects:
            return read_object(url, name, seconds)
        may_fail.wait(30)
        place.reads.append(url)
        raise ApiError(ErrorCode.STORAGE_FAILED, "no")

    monkeypatch.setattr(storage, "read", read)
    answer = place.send("result")
    wait_until(lambda: sum(place.model.steps_taken) > 10, 30, "no step is made")
    may_fail.set()
    wait_until(lambda: place.reads.count(CONTROL) > 2, 30, "it is not looked at any more")
    place.objects["recovered"] = b""
    place.ask("cancel")
    assert code(answer.result(30)) == (409, "cancelled")


def test_who_looks_stops_when_the_job_has_ended(place: Place) -> None:
    place.ask("take")
    assert place.send("result").result(30).status_code == 200
    wait_until(lambda: not is_looking(), 30, "a thread still looks")


def is_looking() -> bool:
    return any(thread.name == "control" for thread in threading.enumerate())
