"""What comes from outside and does not fit: it is put aside or left out, and the rest goes on.

Everything runs in this process: S3 is a dictionary, and Telegram a list of answers.
"""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any
from unittest import mock

import msgspec
import pytest
import requests
from botocore.exceptions import ClientError

import bot
from tests.fakes.memory_s3 import MemoryS3
from tests.fakes.names import BUCKET
from tests.unit.test_bot_kill_points import (
    CHAT,
    CONFIG,
    Endpoint,
    Fate,
    Phone,
    photo,
    press,
    press_monet,
    settle,
    submit_all,
    update,
)

Json = Any  # whatever JSON can hold
DEEP = b"[" * 100_000 + b"]" * 100_000
LARGE = b'{"chat": "' + b"x" * 2**21 + b'"}'
RECORD = f"chats/{CHAT}.json"


def no_trainer() -> Json:
    raise AssertionError("no painter is trained here")


class World:
    """A bot, a chat and a model, none of which is ever killed."""

    def __init__(self) -> None:
        self.s3 = MemoryS3()
        self.phone = Phone(Fate())
        self.endpoint = Endpoint(self.s3, Fate())
        self.bot = self.start_bot()

    def start_bot(self) -> bot.Bot:
        self.bot = bot.Bot(CONFIG, self.phone, self.s3, self.endpoint, no_trainer)
        return self.bot

    def put(self, key: str, data: bytes) -> None:
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=data)

    def keys(self, prefix: str) -> list[str]:
        return sorted(key for key in self.s3.objects if key.startswith(prefix))

    def handle(self, *updates: bot.Update) -> None:
        for one in updates:
            self.bot.handler.handle(one, str)

    def paint(self, number: int) -> None:
        """Ask for a painting as anybody would, and get it."""
        before = len(self.phone.pictures())
        self.handle(photo(number, "garden"), press_monet(number + 1))
        settle(self.bot)
        assert len(self.phone.pictures()) == before + 1


@pytest.fixture
def world() -> World:
    return World()


# ---------------------------------------------------------------- the objects in S3


IMAGE = {"file_id": "x", "document": False}
BAD_CHATS = [
    b"",
    b"{half",
    b"\xff\xfe",
    b"null",
    b"[]",
    b'"text"',
    DEEP,
    LARGE,
    b'{"content": "a photo"}',
    b'{"content": {"file_id": 5, "document": false}}',
    b'{"job": 7}',
    b'{"history": [{"job": "7"}]}',
    b'{"history": {"7": null}}',
    b'{"seen": ["a"]}',
    b'{"seen": 1e400}',
    b'{"reply": [7]}',
    b'{"moved": "itself"}',
    f'{{"moved": {CHAT}}}'.encode(),
    b'{"moved": null}',
    b'{"moved": 99999999999999999999999}',
]


@pytest.mark.parametrize("bad", BAD_CHATS)
def test_a_chat_whose_record_does_not_fit_starts_anew(
    world: World, bad: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    world.put(RECORD, bad)
    world.paint(1)
    [aside] = world.keys("quarantine/")
    assert aside.startswith(f"quarantine/{RECORD}.")
    assert world.s3.objects[aside].data == bad
    assert "put_aside=1" in world.bot.dispatcher.health()
    assert RECORD in caplog.text
    assert "a photo" not in caplog.text
    assert world.keys("jobs/") == []


def test_chats_that_lead_to_each_other_start_anew(world: World) -> None:
    world.put(RECORD, b'{"moved": -1}')
    world.put("chats/-1/1.json", b'{"moved": -2}')
    world.put("chats/-2/1.json", b'{"moved": -1}')
    world.paint(1)
    assert len(world.keys("quarantine/")) == 1
    world.paint(3)


def test_a_long_way_to_a_chat_is_not_gone_for_ever(world: World) -> None:
    for number in range(100):
        world.put(f"chats/{-number}/1.json", json.dumps({"moved": -number - 1}).encode())
    world.put(RECORD, b'{"moved": -1}')
    world.paint(1)


def test_a_group_moves_with_all_its_members(world: World) -> None:
    for user in (1, 2, -9):
        world.put(f"chats/-5/{user}.json", json.dumps({"content": IMAGE}).encode())
    world.put("chats/-5/notes.txt", b"somebody's")
    world.put("chats/-55/1.json", b"{}")
    world.bot.store.move_group(-5, -100)
    assert world.keys("chats/-100/") == [f"chats/-100/{user}.json" for user in (-9, 1, 2)]
    for user in (1, 2, -9):
        stored = world.bot.store.load_chat(-5, user)
        assert (stored.number, stored.chat.content) == (-100, bot.ImageRef("x", is_document=False))
    assert world.keys("chats/-55/") == ["chats/-55/1.json"]


def test_a_group_that_is_told_to_move_to_itself_stays(world: World) -> None:
    parameters = msgspec.Raw(json.dumps({"migrate_to_chat_id": CHAT}).encode())
    moved = bot.TelegramError("sendMessage", 400, "Bad Request: upgraded", parameters)
    with (
        mock.patch.object(world.phone, "call", side_effect=moved),
        pytest.raises(bot.TelegramError),
    ):
        world.handle(update(1, text="/start"))
    world.paint(2)


GOOD_JOB: dict[str, Json] = {
    "version": 2, "id": "2", "chat": CHAT, "user": 1, "thread": None, "language": "en",
    "request": {"content": IMAGE, "style": "monet", "strength": 1.0, "result": "result.jpg"},
    "style_label": "Monet", "step": "start", "created": 1.5, "status_message": None,
    "result_keys": None, "sent": [],
}  # fmt: skip


def job_with(**members: Json) -> bytes:
    return json.dumps(GOOD_JOB | members).encode()


BAD_JOBS = [
    b"",
    b"[]",
    b"{}",
    DEEP,
    LARGE,
    job_with(id=2),
    job_with(id="3"),
    job_with(id="../chats"),
    job_with(chat="5"),
    job_with(chat=None),
    job_with(user=[]),
    job_with(language=None),
    job_with(request=None),
    job_with(request={"content": IMAGE, "style": "monet", "strength": -1}),
    job_with(request={"content": IMAGE, "style": 5, "strength": 1}),
    job_with(request=GOOD_JOB["request"] | {"result": "../../chats/5.json"}),
    job_with(step="dance"),
    job_with(result_keys=["one"]),
    job_with(result_keys="ab"),
    job_with(sent=[5]),
    job_with(sent=None),
    job_with(age=-1),
    job_with(age="old"),
]


@pytest.mark.parametrize("bad", BAD_JOBS)
def test_a_job_whose_record_does_not_fit_ends_and_its_chat_is_told(
    world: World, bad: bytes
) -> None:
    world.handle(photo(1, "garden"), press_monet(2))
    world.put("jobs/2/job.json", bad)
    world.put("jobs/2/content", b"the photo")
    world.start_bot()
    settle(world.bot)
    assert world.keys("jobs/") == []
    [aside] = world.keys("quarantine/")
    assert world.s3.objects[aside].data == bad
    world.handle(update(3, text="hello?"))
    assert "did not work out" in world.phone.texts()[-1]
    assert "send me the photo" in world.phone.texts()[-1]
    world.paint(4)


def test_a_good_record_among_bad_ones_is_found(world: World) -> None:
    world.handle(photo(1, "garden"), press_monet(2))
    for number, bad in enumerate(BAD_JOBS):
        world.put(f"jobs/1{number}/job.json", bad)
    for key in ("jobs/", "jobs/folder/", "jobs/file", "jobs//", "jobs//job.json"):
        world.put(key, b"?")
    settle(world.start_bot())
    assert len(world.phone.pictures()) == 1


@pytest.mark.parametrize("bad", BAD_CHATS[:-4])
def test_a_job_whose_chat_was_put_aside_ends_in_words_and_can_be_tried_again(
    world: World, bad: bytes
) -> None:
    world.handle(photo(1, "garden"), press_monet(2))
    world.put(RECORD, bad)
    settle(world.bot)
    assert [text for text in world.phone.texts() if "did not work out" in text]
    assert world.keys("jobs/") == []
    world.handle(press(3, "retry:2"))
    settle(world.bot)
    assert world.phone.pictures() == [b"painted garden"]


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"{half",
        b"[]",
        DEEP,
        b'{"size": "large"}',
        b'{"size": [0, 0]}',
        b'{"size": [1, 2, 3]}',
        b'{"seconds": "two"}',
        b'{"seconds": -1}',
        b'{"notes": "text"}',
        b'{"notes": [{}]}',
    ],
)
def test_a_picture_arrives_whatever_the_model_says_about_it(world: World, bad: bytes) -> None:
    world.handle(photo(1, "garden"), press_monet(2))
    submit_all(world.bot)
    world.put("async/output/1.out", bad)
    settle(world.bot)
    assert world.phone.pictures() == [b"painted garden"]
    [aside] = world.keys("quarantine/")
    assert aside.startswith("quarantine/async/output/1.out.")


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"[]",
        DEEP,
        LARGE,
        b'{"step": 1, "steps": "ten"}',
        b'{"step": -1, "steps": 10}',
        b'{"step": 1, "steps": 10, "seconds_left": "few"}',
        b'{"step": 1, "steps": 10, "seconds_left": 1e308}',
        b'{"step": 1, "steps": 10, "preview": "no base64"}',
        b'{"step": 1, "steps": 10, "preview": 5}',
    ],
)
def test_a_job_goes_on_without_its_progress(world: World, bad: bytes) -> None:
    world.handle(photo(1, "garden"), press_monet(2))
    submit_all(world.bot)
    world.put("jobs/2/progress.json", bad)
    world.bot.runner.scan_jobs()
    [job] = world.bot.runner.pending()
    world.bot.runner.advance(job)
    assert len(world.keys("quarantine/")) == 1
    settle(world.bot)
    assert world.phone.pictures() == [b"painted garden"]


@pytest.mark.parametrize("bad", [b"", b"[]", DEEP, b'{"2026-11-26": 5}', b'{"2026-11-26": [5]}'])
def test_a_count_of_paintings_that_does_not_fit_starts_anew(world: World, bad: bytes) -> None:
    world.put("chats/user-1.json", bad)
    world.paint(1)
    [aside] = world.keys("quarantine/")
    assert aside.startswith("quarantine/chats/user-1.json.")
    assert list(json.loads(world.s3.objects["chats/user-1.json"].data).values()) == [["2"]]


LESSON: dict[str, Json] = {
    "version": 1, "id": "7", "chat": CHAT, "thread": None, "language": "en", "name": "klimt",
    "picture": IMAGE, "step": "start", "created": 1.5, "training_job": "", "status_message": None,
    "result_keys": None,
}  # fmt: skip


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"[]",
        b"{}",
        DEEP,
        *[
            json.dumps(LESSON | member).encode()
            for member in ({"id": "8"}, {"name": "../x"}, {"step": "rest"}, {"picture": "x"})
        ],
    ],
)
def test_a_lesson_whose_record_does_not_fit_concerns_no_other(world: World, bad: bytes) -> None:
    world.put("training/lessons/", b"")
    world.put("training/lessons/7.json", bad)
    world.put("training/lessons/9.json", json.dumps(LESSON | {"id": "9"}).encode())
    world.bot.lessons.scan()
    assert [lesson.id for lesson in world.bot.lessons.pending()] == ["9"]
    [aside] = world.keys("quarantine/")
    assert aside.startswith("quarantine/training/lessons/7.json.")


@pytest.mark.parametrize(
    "bad", [b"", b"[]", DEEP, b'{"version": 2, "arguments": {}}', b'{"version": 1, "arguments": 5}']
)
def test_a_template_that_does_not_fit_is_none(world: World, bad: bytes) -> None:
    world.put("models/training.json", bad)
    world.handle(update(1, photo=[bot.TelegramFile("x")], caption="/teach klimt"))
    assert world.phone.texts() == ["Painters cannot be trained here: ./deploy.py up sets that up."]
    assert world.s3.objects["models/training.json"].data == bad  # it is not the bot's


def test_what_has_changed_in_between_is_not_put_aside(world: World) -> None:
    world.put(RECORD, b"[]")
    _, etag = world.bot.store.get(RECORD)
    world.put(RECORD, b"{}")
    with pytest.raises(ClientError):
        world.bot.store.put_aside(RECORD, etag, "why")
    assert world.s3.objects[RECORD].data == b"{}"


# ---------------------------------------------------------------- Telegram's answers


class Wire:
    """Answers HTTP requests of a TelegramClient with bodies of the test."""

    def __init__(self) -> None:
        self.body = b""

    def post(self, url: str, **values: Json) -> requests.Response:
        response = requests.Response()
        response.status_code = 200
        response.raw = io.BytesIO(self.body)
        return response

    get = post


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = Wire()
    with (
        mock.patch("requests.Session.post", side_effect=wire.post),
        mock.patch("requests.Session.get", side_effect=wire.get),
    ):
        yield wire


CLIENT = bot.TelegramClient("https://api.telegram.org", "42:secret")
NO_ANSWERS = [
    b"",
    b"<html>502 Bad Gateway</html>",
    b"null",
    b"[]",
    b"7",
    b"\xff",
    DEEP,
    b'{"ok": true, "result": ' + DEEP + b"}",
    b"{}",
    b'{"ok": false}',
    b'{"ok": "yes"}',
    b'{"ok": null, "result": []}',
    b'{"ok": false, "error_code": "many", "description": "x"}',
    b'{"ok": false, "error_code": 0, "description": ["x"]}',
    b'{"ok": true',
]


@pytest.mark.parametrize("method", ["getUpdates", "getMe", "getFile", "sendMessage"])
@pytest.mark.parametrize("body", NO_ANSWERS)
def test_what_is_no_answer_is_an_error_that_may_pass(wire: Wire, method: str, body: bytes) -> None:
    wire.body = body
    with pytest.raises(bot.TelegramError) as caught:
        CLIENT.call(method)
    assert caught.value.code == 0
    assert "secret" not in str(caught.value)
    assert bot.classify_error(caught.value, 1) is None


@pytest.mark.parametrize(
    ("method", "result"),
    [
        ("getUpdates", "null"),
        ("getUpdates", "{}"),
        ("getUpdates", "true"),
        ("getUpdates", '"none"'),
        ("getMe", "[]"),
        ("getMe", '{"username": 5}'),
        ("getFile", "{}"),
        ("getFile", '{"file_path": null}'),
    ],
)
def test_a_result_that_does_not_fit_is_an_error_that_may_pass(
    wire: Wire, method: str, result: str
) -> None:
    wire.body = f'{{"ok": true, "result": {result}}}'.encode()
    with pytest.raises(bot.TelegramError) as caught:
        CLIENT.call(method)
    assert caught.value.code == 0


@pytest.mark.parametrize("result", ["null", "true", "[]", "{}", '{"message_id": "seven"}'])
def test_a_message_is_sent_once_whatever_the_result_says(wire: Wire, result: str) -> None:
    wire.body = f'{{"ok": true, "result": {result}}}'.encode()
    assert CLIENT.call("sendMessage") == bot.SentMessage()


@pytest.mark.parametrize(
    ("parameters", "seconds"),
    [
        ({"retry_after": 7}, 7.0),
        ({"retry_after": 1.5}, 1.5),
        ({"retry_after": "abc"}, 0.0),
        ({"retry_after": -5}, 0.0),
        ({"retry_after": 10**18}, bot.MAX_RETRY_AFTER_SECONDS),
        ({"retry_after": None}, 0.0),
        ({"retry_after": True}, 0.0),
        (None, 0.0),
        ([], 0.0),
        ("soon", 0.0),
    ],
)
def test_only_a_sensible_wish_to_wait_is_granted(
    wire: Wire, parameters: Json, seconds: float
) -> None:
    refusal = {"ok": False, "error_code": 429, "description": "wait", "parameters": parameters}
    wire.body = json.dumps(refusal).encode()
    with pytest.raises(bot.TelegramError) as caught:
        CLIENT.call("sendMessage")
    assert (caught.value.code, caught.value.retry_after) == (429, seconds)
    assert bot.log_and_back_off(bot.Metrics(), "x", caught.value, 1) >= 0


def test_an_answer_of_many_megabytes_is_not_read(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bot, "MAX_ANSWER_BYTES", 2**20)
    wire.body = b'{"ok": true, "result": "' + b"x" * 2**21 + b'"}'
    with pytest.raises(bot.TelegramError, match="too large"):
        CLIENT.call("getUpdates")


def test_a_long_description_does_not_fill_the_log(wire: Wire) -> None:
    wire.body = json.dumps({"ok": False, "error_code": 400, "description": "x" * 10**6}).encode()
    with pytest.raises(bot.TelegramError) as caught:
        CLIENT.call("sendMessage")
    assert len(str(caught.value)) < 1000


# ---------------------------------------------------------------- updates


def text(number: Json, **members: Json) -> bytes:
    message = {"chat": {"id": CHAT}, "from": {"id": 1}, "text": "my private words"}
    return json.dumps({"update_id": number, "message": message | members}).encode()


BAD_UPDATES = [
    text(7, chat={"id": "five"}),
    text(7, chat=5),
    text(7, chat=None),
    text(7, text=5),
    text(7, photo="none"),
    text(7, photo=[{"file_id": 5}]),
    text(7, photo=[{"file_id": "x", "width": "wide"}]),
    text(7, photo=[{"file_id": "x", "file_size": -1}]),
    text(7, document=[]),
    text(7, **{"from": {"id": 2**60}}),
    text(7, message_thread_id="one"),
    b'{"update_id": 7, "message": 5}',
    b'{"update_id": 7, "callback_query": {"id": 5}}',
    b'{"update_id": 7, "callback_query": []}',
]


@pytest.mark.parametrize("bad", BAD_UPDATES)
def test_an_update_that_does_not_fit_is_confirmed_and_the_others_are_handled(
    world: World, bad: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    dispatcher = world.bot.dispatcher
    for _ in range(2):
        dispatcher.take_in([msgspec.Raw(bad), msgspec.Raw(text(8))])
    assert [u.id for u in dispatcher._inbox.values() if u] == [8]
    assert dispatcher.confirmed_offset() == 8
    assert "put_aside=1 " in dispatcher.health() + " "
    assert "update 7 is left out" in caplog.text
    assert "private" not in caplog.text


@pytest.mark.parametrize(
    "bad",
    [
        b"null",
        b"7",
        b'"text"',
        b"[]",
        b"{}",
        text("7"),
        text(None),
        text(-1),
        text(1.5),
        text(2**70),
    ],
)
def test_an_update_without_a_number_does_not_hold_up_the_others(world: World, bad: bytes) -> None:
    dispatcher = world.bot.dispatcher
    dispatcher.take_in([msgspec.Raw(bad), msgspec.Raw(text(8)), msgspec.Raw(bad)])
    assert [u.id for u in dispatcher._inbox.values() if u] == [8]


def stop_at_line(number: int, function: Callable[[], object]) -> bool:
    """Call a function, and stop it before that line of the inbox's methods, as SIGTERM may.

    Return whether it had so many lines.
    """
    codes = {bot.Dispatcher.take_in.__code__, bot.Dispatcher.take_turn.__code__}
    lines = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:  # noqa: ANN401 - sys.settrace's own
        nonlocal lines
        if frame.f_code not in codes:
            return None
        if event == "line":
            lines += 1
            if lines == number:
                raise bot.StopSignal
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    except bot.StopSignal:
        return True
    finally:
        sys.settrace(before)
    return False


def test_sigterm_at_any_line_confirms_no_update_that_is_not_handled(world: World) -> None:
    dispatcher = world.bot.dispatcher
    number = 1
    while stop_at_line(number, lambda: dispatcher.take_in([msgspec.Raw(text(8))])):
        assert dispatcher.confirmed_offset() in (None, 8), f"stopped before line {number}"
        dispatcher._inbox.clear()
        number += 1
    assert number > 10
    assert dispatcher.confirmed_offset() == 8


# ---------------------------------------------------------------- the clock


def test_a_clock_that_jumps_ends_no_job(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.handle(photo(1, "garden"), press_monet(2))
    honest = time.time
    monkeypatch.setattr(time, "time", lambda: honest() + 7200)
    [job] = world.bot.runner.pending()
    assert not world.bot.runner.has_ended(job)
    settle(world.bot)
    assert world.phone.pictures() == [b"painted garden"]


@pytest.mark.parametrize("jump", [-7200, 7200, 10**6])
def test_a_clock_that_jumps_between_two_processes_ends_no_job(
    world: World, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    world.s3.now = time.monotonic  # S3 has a clock of its own
    world.handle(photo(1, "garden"), press_monet(2))
    honest = time.time
    monkeypatch.setattr(time, "time", lambda: honest() + jump)
    settle(world.start_bot())
    assert world.phone.pictures() == [b"painted garden"]


def test_an_hour_is_an_hour_also_across_restarts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = [time.monotonic()]
    world.s3.now = lambda: seconds[0]
    monkeypatch.setattr(time, "monotonic", lambda: seconds[0])
    world.handle(photo(1, "garden"), press_monet(2))
    [job] = world.bot.runner.pending()
    job.counted_from = seconds[0]
    for _ in range(3):
        seconds[0] += 1000  # the bot works
        world.bot.store.save_job(job)
        seconds[0] += 180  # the bot is away
        world.start_bot().runner.scan_jobs()
        [job] = world.bot.runner.pending()
        job.counted_from = seconds[0]
        assert not world.bot.runner.has_ended(job)
    assert bot.age_of(job) == pytest.approx(3540, abs=10)
    seconds[0] += 71
    assert world.bot.runner.has_ended(job)
    settle(world.bot)
    assert [words for words in world.phone.texts() if "did not answer in time" in words]


# ---------------------------------------------------------------- what is told to people


@pytest.mark.parametrize("language", ["en", "ru"])
@pytest.mark.parametrize("code", list(bot.ErrorCode))
def test_only_words_about_the_picture_are_told(
    world: World, code: bot.ErrorCode, language: str
) -> None:
    world.endpoint.error = {"code": code.value, "message": "KeyError at s3://secret/path"}
    asked = [photo(1, "garden"), press_monet(2)]
    for one in asked:
        one.raw = with_language(one.raw, language)
    world.handle(*asked)
    settle(world.bot)
    told = "\n".join(world.phone.texts())
    assert bot.translate(language, code.value, support=CONFIG.support) in told or "KeyError" in told
    if language == "ru" or code not in bot.TELLING_CODES:
        assert "KeyError" not in told


def with_language(raw: bot.TelegramUpdate, language: str) -> bot.TelegramUpdate:
    sender = bot.TelegramUser(1, language)
    if raw.callback_query:
        raw.callback_query.sender = sender
    if raw.message:
        raw.message.sender = sender
    return raw
