"""Faults of Telegram, S3, the endpoint and the process, and what a user sees of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

import pytest
from aiohttp import web

from tests.fakes.names import ROOT, TOKEN, eventually
from tests.fakes.telegram import User, html, refusal, times
from tests.fakes.world import QUICK, World, made_of
from tests.system.test_bot_conversation import is_clean, paint


def begin(user: User, painter: str = "Monet") -> None:
    """Until the bot has told the user that it is at work."""
    user.photo()
    user.press(user.sees(), painter)
    user.sees("Painting")


# ---------------------------------------------------------------- Telegram


@pytest.mark.parametrize(
    "method", ["getUpdates", "sendMessage", "sendPhoto", "getFile", "answerCallbackQuery", "getMe"]
)
def test_telegram_falters(world: World, method: str) -> None:
    for respond in (
        lambda: html(502),
        lambda: refusal(500, "Internal Server Error"),
        lambda: html(200),
        lambda: refusal(429, "Too Many Requests", retry_after=1),
    ):
        world.telegram.faults.append(times(1, method, respond))
    world.start(QUICK)
    anna = world.user()
    paint(anna)
    assert len([m for m in anna.messages() if m.kind == "photo"]) == 1


@pytest.mark.parametrize("how", ["half", "drop"])
def test_half_an_answer(world: World, how: str) -> None:
    """Telegram may have accepted a call whose answer broke off: then a picture may come twice."""
    for method in ("getMe", "getUpdates", "sendMessage", "sendPhoto", "getFile"):
        world.telegram.faults.append(times(1, method, lambda: how))
    world.start(QUICK)
    anna = world.user()
    anna.photo()
    anna.press(anna.sees("Choose"), "Monet")
    anna.sees(kind="photo")
    is_clean(world)
    photos = [m for m in anna.messages() if m.kind == "photo"]
    assert len(photos) in (1, 2)


def test_429_holds_up_only_its_own_chat(world: World) -> None:
    world.start()
    anna, boris = world.user(), world.user()
    boris.write("/start")
    boris.sees("Hello")  # the bot is up
    world.telegram.faults.append(
        times(1, "sendMessage", lambda: refusal(429, "wait", retry_after=6), anna.chat)
    )
    began = time.monotonic()
    anna.write("/start")
    boris.write("/start")
    boris.sees("Hello")
    assert time.monotonic() - began < 4
    anna.sees("Hello")
    assert time.monotonic() - began >= 6


def test_429_on_edits_makes_them_fewer(world: World) -> None:
    world.endpoint.seconds, world.endpoint.steps = 8, 16
    world.start(QUICK)
    anna = world.user()
    world.telegram.faults.append(
        times(1, "editMessageText", lambda: refusal(429, "wait", retry_after=4))
    )
    began = time.monotonic()
    begin(anna)
    anna.sees(kind="photo", seconds=40)
    edits = [at - began for at, method, _ in world.telegram.calls if method == "editMessageText"]
    assert edits
    assert all(at > 4 for at in edits)


def test_telegram_is_gone_for_a_while(world: World) -> None:
    world.endpoint.mode = "asleep"
    world.start(QUICK)
    anna = world.user()
    begin(anna)
    eventually(lambda: world.endpoint.calls, "the model is called")
    world.to_telegram.cut()
    world.endpoint.wake()
    time.sleep(6)
    assert world.process
    assert world.process.poll() is None
    anna.write("hello?")
    world.to_telegram.mend()
    anna.cursor = 0
    anna.sees("Painted", kind="photo", seconds=60)
    assert len([m for m in anna.messages() if m.kind == "photo"]) == 1
    paint(anna)


def test_a_webhook_is_removed(world: World) -> None:
    world.telegram.faults.append(
        times(
            2,
            "getUpdates",
            lambda: refusal(409, "Conflict: can't use getUpdates method while webhook is active"),
        )
    )
    world.start(QUICK)
    paint(world.user())
    removals = [call for call in world.telegram.calls if call[1] == "deleteWebhook"]
    assert len(removals) == 3  # one at the start, and one for each refusal
    assert "webhook is active" in world.logged()


def odd(body: str) -> web.Response:
    """An answer of HTTP status 200."""
    return web.Response(text=body, content_type="application/json")


ODD_ANSWERS = [
    "",
    "null",
    "[]",
    "{half",
    '{"ok": false}',
    '{"ok": true}',
    '{"ok": true, "result": null}',
    '{"ok": true, "result": {}}',
    '{"ok": true, "result": [null, 7, "text", [], {}]}',
    '{"ok": true, "result": [{"update_id": "seven"}]}',
    '{"ok": true, "result": [{"update_id": 1, "message": "text"}]}',
    '{"ok": true, "result": [{"update_id": 1, "message": {"chat": {"id": "x"}}}]}',
    '{"ok": true, "result": ' + "[" * 100_000 + "]" * 100_000 + "}",
    '{"ok": true, "result": [], "padding": "' + "x" * 40 * 2**20 + '"}',
    '{"ok": false, "error_code": "many", "description": "x"}',
    '{"ok": false, "error_code": 429, "description": "x", "parameters": {"retry_after": "abc"}}',
    '{"ok": false, "error_code": 429, "description": "x", "parameters": {"retry_after": -1}}',
    '{"ok": false, "error_code": 409, "description": null}',
    '{"ok": false, "error_code": 409, "description": "Conflict", "parameters": 5}',
    "<html>The proxy is tired</html>",
]


def test_odd_answers_do_not_end_the_bot(world: World) -> None:
    """Each comes twice in the midst of a conversation, as the answer to getUpdates."""
    world.start(f"{QUICK}; bot.MAX_BACKOFF_SECONDS = 0.2")
    anna = world.user()
    begin(anna)
    for body in ODD_ANSWERS:
        world.telegram.faults.append(times(2, "getUpdates", lambda body=body: odd(body)))  # type: ignore[misc]
    anna.sees(kind="photo", seconds=60)
    paint(anna)
    assert world.process
    assert world.process.poll() is None


@pytest.mark.parametrize("method", ["sendMessage", "sendPhoto", "getFile", "editMessageText"])
def test_odd_results_of_other_methods_do_not_end_a_chat(world: World, method: str) -> None:
    for result in ("null", "[]", '{"message_id": "seven"}', '{"file_path": 7}'):
        body = f'{{"ok": true, "result": {result}}}'
        world.telegram.faults.append(times(1, method, lambda body=body: odd(body)))  # type: ignore[misc]
    world.endpoint.seconds, world.endpoint.steps = 3, 6
    world.start(f"{QUICK}; bot.MAX_BACKOFF_SECONDS = 0.2")
    anna = world.user()
    anna.photo()
    anna.photo()
    time.sleep(3)
    world.telegram.faults.clear()
    anna.write("/cancel")
    anna.sees("Cancelled")
    paint(anna)


def test_another_poller_is_told_apart(world: World) -> None:
    world.telegram.faults.append(
        times(
            2,
            "getUpdates",
            lambda: refusal(409, "Conflict: terminated by other getUpdates request"),
        )
    )
    world.start(QUICK)
    paint(world.user())
    assert len([c for c in world.telegram.calls if c[1] == "deleteWebhook"]) == 1
    assert "terminated by other getUpdates" in world.logged()


@pytest.mark.parametrize(("code", "words"), [(401, "Unauthorized"), (404, "Not Found")])
def test_a_refused_token_ends_the_program(world: World, code: int, words: str) -> None:
    world.telegram.faults.append(times(1, "getUpdates", lambda: refusal(code, words)))
    world.start()
    assert world.process
    assert world.process.wait(20) == 2
    assert "TELEGRAM_TOKEN is refused: set it to" in world.logged()


@pytest.mark.parametrize("code", [401, 404, 409])
def test_a_refusal_now_and_then_does_not_end_the_program(world: World, code: int) -> None:
    world.start(f"{QUICK}; bot.MAX_BACKOFF_SECONDS = 0.2")
    anna = world.user()
    paint(anna)
    world.telegram.faults.append(times(5, "getUpdates", lambda: refusal(code, "odd")))
    paint(anna)
    assert "odd" in world.logged()


def test_a_token_that_is_withdrawn_ends_the_program(world: World) -> None:
    world.start(f"{QUICK}; bot.MAX_BACKOFF_SECONDS = 0.2")
    anna = world.user()
    paint(anna)
    world.telegram.faults.append(times(100, "getUpdates", lambda: refusal(401, "Unauthorized")))
    anna.write("hello?")  # ends the long poll
    assert world.process
    assert world.process.wait(60) == 2
    assert "TELEGRAM_TOKEN is refused: set it to" in world.logged()


def pace(world: World) -> None:
    """Let Telegram take a message a second and chat, as it does."""
    last: dict[int, float] = {}

    def fault(method: str, fields: dict[str, Any]) -> web.StreamResponse | str | None:
        if method not in ("sendMessage", "sendPhoto", "sendDocument"):
            return None
        chat = int(fields["chat_id"])
        if time.monotonic() < last.get(chat, 0.0) + 1:
            return refusal(429, "Too Many Requests", retry_after=1)
        last[chat] = time.monotonic()
        return None

    world.telegram.faults.append(fault)


def test_the_photos_of_one_user_hold_up_nobody_else(world: World) -> None:
    """By itself Telegram would take five minutes for 300 answers."""
    pace(world)
    crowd, anna = world.user(), world.user()
    for _ in range(300):
        crowd.photo()
    anna.photo()
    world.start()
    anna.press(anna.sees("Choose", seconds=60), "Monet")
    anna.sees("Monet", kind="photo", seconds=60)
    crowd.cursor = 0
    crowd.sees("I took the first ones, and left out the", seconds=60)
    painting = crowd.sees(kind="photo", seconds=60)
    assert "the styles of your 2 pictures" in painting.text
    is_clean(world)
    eventually(lambda: not world.storage.list_keys("updates/"), "nothing waits in S3")


@pytest.mark.parametrize("method", ["sendMessage", "sendPhoto"])
def test_a_user_who_blocks_the_bot_loses_the_job(world: World, method: str) -> None:
    world.endpoint.mode = "asleep"
    world.start()
    anna = world.user()
    begin(anna)
    eventually(lambda: world.endpoint.calls, "the model is called")
    blocked = times(10**6, method, lambda: refusal(403, "Forbidden: bot was blocked by the user"))
    world.telegram.faults.append(blocked)
    if method == "sendMessage":
        anna.write("hm")
        eventually(lambda: "control.json" in "".join(world.storage.list_keys("jobs/")), "it stops")
    world.endpoint.wake()
    is_clean(world)
    world.telegram.faults.clear()
    anna.sees_nothing(kind="photo")
    paint(anna)


def test_a_group_that_becomes_a_supergroup(world: World) -> None:
    world.start()
    anna = world.user(group=-500)
    anna.photo(caption="/paint monet")
    anna.sees("Painting")
    moved = lambda: refusal(400, "Bad Request: group chat was upgraded", migrate_to_chat_id=-100777)  # noqa: E731
    for method in ("sendMessage", "sendPhoto"):
        world.telegram.faults.append(times(10**6, method, moved, -500))
    new = User(world.telegram, anna.number, group=-100777)
    painting = new.sees("Monet", kind="photo")
    new.press(painting, "Softer")
    new.sees("Monet", kind="photo")
    assert world.storage.json(f"chats/-500/{anna.number}.json") == {"moved": -100777}


# ---------------------------------------------------------------- S3


def test_s3_fails_for_a_while(world: World) -> None:
    """Nothing is confirmed to Telegram that is not in S3, and nothing is lost."""
    world.start(QUICK)
    anna, boris = world.user(), world.user()
    paint(boris)
    world.to_s3.cut()
    anna.photo(b"my garden")
    anna.sees_nothing(4)
    assert world.telegram.unconfirmed(), "an update was confirmed that is not in S3"
    world.to_s3.mend()
    anna.press(anna.sees("Choose", seconds=60), "Monet")
    assert made_of(anna.sees(kind="photo", seconds=60))["content"] == "my garden"
    paint(boris)


def test_s3_fails_while_the_model_works(world: World) -> None:
    world.endpoint.seconds = 2
    world.start(QUICK)
    anna = world.user()
    begin(anna)
    eventually(lambda: world.endpoint.requests, "the model works")
    world.to_s3.cut()
    time.sleep(5)
    world.to_s3.mend()
    anna.sees(kind="photo", seconds=60)
    is_clean(world)
    assert len([m for m in anna.messages() if m.kind == "photo"]) == 1


def test_s3_is_gone_at_the_start(world: World) -> None:
    world.to_s3.cut()
    world.start(QUICK)
    anna = world.user()
    anna.write("/start")
    anna.sees_nothing(3)
    world.to_s3.mend()
    anna.sees("Hello", seconds=60)


# ---------------------------------------------------------------- the endpoint


REASON = {"error": {"code": "image_too_small", "message": "Too small."}}


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (json.dumps(REASON), "Too small."),
        (f"Received server error (422) from model: {json.dumps(REASON)}", "Too small."),
        (json.dumps({"Message": f"model said {json.dumps(json.dumps(REASON))}"}), "Too small."),
        ("<html>nonsense", "Something broke in the model"),
        ("", "Something broke in the model"),
    ],
)
def test_the_model_says_why(world: World, error: str, words: str) -> None:
    world.endpoint.mode = "failing"
    world.endpoint.error = error
    world.start()
    anna = world.user()
    begin(anna)
    failure = anna.sees("did not work out", words, "another photo")
    is_clean(world)
    world.endpoint.mode = "ok"
    if "Something broke" in words:
        anna.press(failure, "Try again")
    else:
        assert failure.buttons == {}  # the same photo would fail again
        begin(anna)
    anna.sees("Monet", kind="photo")


def test_the_model_says_why_in_russian(world: World) -> None:
    world.endpoint.mode = "failing"
    world.start()
    anna = world.user("ru")
    anna.photo()
    anna.press(anna.sees(), "Monet")
    assert anna.sees("не получилась", "Не могу прочитать").buttons == {}
    world.endpoint.error = ""
    anna.photo()
    anna.press(anna.sees("художника"), "Monet")
    failure = anna.sees("не получилась", "сломалось")
    assert set(failure.buttons) == {"Ещё раз", "Другой стиль"}


def test_an_endpoint_that_is_not_there(world: World) -> None:
    world.endpoint.mode = "missing"
    world.start()
    anna = world.user()
    begin(anna)
    failure = anna.sees("not running", "Ask Vincent")
    world.endpoint.mode = "ok"
    anna.press(failure, "Try again")
    anna.sees("Monet", kind="photo")


@pytest.mark.parametrize("mode", ["throttled", "broken"])
def test_an_endpoint_that_falters(world: World, mode: str) -> None:
    world.endpoint.mode = mode
    world.start(QUICK)
    anna = world.user()
    begin(anna)
    time.sleep(3)
    world.endpoint.mode = "ok"
    anna.sees("Monet", kind="photo", seconds=40)


def test_an_endpoint_that_is_silent_past_the_deadline(world: World) -> None:
    world.endpoint.mode = "asleep"
    world.start(f"{QUICK}; bot.DEADLINE_SECONDS = 4")
    anna = world.user()
    begin(anna)
    failure = anna.sees("did not answer in time", "try again", seconds=30)
    is_clean(world)
    world.endpoint.mode = "ok"
    anna.press(failure, "Try again")
    anna.sees("Monet", kind="photo")


def test_a_model_that_answers_without_a_picture(world: World) -> None:
    world.start()
    anna = world.user()
    world.endpoint.mode = "asleep"
    begin(anna)
    eventually(lambda: world.endpoint.calls, "the model is called")
    call = world.endpoint.calls[0]
    answer = b'{"result_url": "s3://nowhere"}'
    world.endpoint.objects.write(call.invocation.output_url, answer)
    anna.sees("did not work out")


# ---------------------------------------------------------------- the process


def test_updates_lose_no_message_and_paint_nothing_twice(world: World) -> None:
    """As ECS updates a service: SIGTERM, no bot for a while, then the new one."""

    def update() -> None:
        assert world.terminate() < 10
        world.start()

    world.endpoint.seconds = 1
    world.start()
    users = [world.user() for _ in range(6)]
    for number in range(3):
        name = f"photo {number}"
        for user in users[:3]:
            user.photo(name.encode())
        assert world.terminate() < 10
        for user in users[3:]:
            user.photo(name.encode())
        world.start()
        for user in users:
            user.press(user.sees("Choose a painter", seconds=60), "Monet")
        update()
        for user in users:
            painting = user.sees("Monet", kind="photo", seconds=90)
            assert made_of(painting)["content"] == name

    for user in users:
        paintings = [message for message in user.messages() if message.kind == "photo"]
        assert len(paintings) == 3
    is_clean(world)


@pytest.mark.parametrize("at_work", [False, True])
def test_sigterm(world: World, at_work: bool) -> None:
    world.start()
    users = [world.user() for _ in range(10)]
    users[0].write("/start")
    users[0].sees("Hello")
    if at_work:
        for user in users:
            user.photo()
    assert world.terminate() < 10
    assert world.process
    assert world.process.returncode == 0
    world.start()
    for user in users:
        if at_work:
            user.cursor = 0
            user.press(user.sees("Choose"), "Monet")
            user.sees("Monet", kind="photo")
        else:
            paint(user)
    assert "stopped" in world.logged()


def test_killed_while_the_model_works(world: World) -> None:
    world.endpoint.seconds = 3
    world.start()
    anna = world.user()
    begin(anna)
    record = world.storage.list_keys("jobs/")[0].rsplit("/", 1)[0] + "/job.json"
    eventually(lambda: b'"wait"' in world.storage.read(record), "the call of the model is recorded")
    world.kill()
    world.start()
    anna.sees("Monet", kind="photo")
    is_clean(world)
    assert len([m for m in anna.messages() if m.kind == "photo"]) == 1
    assert len(world.endpoint.calls) == 1
    eventually(
        lambda: not [m for m in anna.messages() if "Painting" in m.text],
        "the status message is gone",
    )


def test_an_update_that_comes_twice_makes_one_job(world: World) -> None:
    world.start()
    anna = world.user()
    paint(anna)
    is_clean(world)
    world.kill()
    world.telegram.repeat_updates()
    world.start()
    eventually(
        lambda: "updates=2" in world.logged() or not world.telegram.unconfirmed(),
        "the updates are taken",
    )
    time.sleep(3)
    assert len(world.endpoint.calls) == 1
    assert len([m for m in anna.messages() if m.kind == "photo"]) == 1


def test_a_handover_between_two_processes(world: World) -> None:
    """The new one starts before the old one is killed: a picture comes twice at most."""
    world.endpoint.seconds = 3
    world.start()
    anna = world.user()
    begin(anna)
    eventually(lambda: world.endpoint.requests, "the model works")
    old, world.process = world.process, None
    world.start()
    time.sleep(1)
    assert old
    old.kill()
    old.wait()
    anna.sees("Monet", kind="photo")
    is_clean(world)
    assert len([m for m in anna.messages() if m.kind == "photo"]) in (1, 2)
    paint(anna)


@pytest.mark.parametrize(
    "missing", ["AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY"]
)
def test_aws_that_is_not_set_up_is_named(world: World, missing: str) -> None:
    env = world.environment(AWS_EC2_METADATA_DISABLED="true", HOME="/nowhere")
    for name in missing.split():
        env.pop(name)
    done = subprocess.run(
        [sys.executable, ROOT / "bot.py"], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "set AWS_DEFAULT_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["TELEGRAM_TOKEN", "BUCKET", "NST_ENDPOINT", "CYCLEGAN_ENDPOINT"])
def test_a_missing_setting_is_named(name: str) -> None:
    names = ("TELEGRAM_TOKEN", "BUCKET", "NST_ENDPOINT", "CYCLEGAN_ENDPOINT")
    env = {"PATH": os.environ["PATH"]} | {other: "x" for other in names if other != name}
    done = subprocess.run(
        [sys.executable, ROOT / "bot.py"], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert f"{name} is not set: set it to" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "value"), [("ALLOWED_USERS", "anna"), ("DAILY_LIMIT", "-1"), ("STYLES", "a b")]
)
def test_an_unclear_setting_is_named(name: str, value: str) -> None:
    names = ("TELEGRAM_TOKEN", "BUCKET", "NST_ENDPOINT", "CYCLEGAN_ENDPOINT")
    env = {"PATH": os.environ["PATH"], name: value} | dict.fromkeys(names, "x")
    done = subprocess.run(
        [sys.executable, ROOT / "bot.py"], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert f"{name} is unclear" in done.stderr


def test_check(world: World) -> None:
    def check() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "bot.py"), "--check"]
        return subprocess.run(
            command, env=world.environment(), capture_output=True, text=True, check=False
        )

    good = check()
    assert (good.returncode, good.stdout.count(": ok")) == (0, 4)
    world.endpoint.mode = "missing"
    bad = check()
    assert bad.returncode == 1
    assert "NST_ENDPOINT: " in bad.stdout
    assert "not found" in bad.stdout
    world.telegram.faults.append(times(1, "getMe", lambda: refusal(401, "Unauthorized")))
    assert "TELEGRAM_TOKEN: getMe: 401 Unauthorized. What to do: set it to" in check().stdout
    world.to_s3.cut()
    assert "What to do: set it to the name of the S3 bucket" in check().stdout
    assert TOKEN not in bad.stdout + bad.stderr


def test_a_line_of_health(world: World) -> None:
    world.start()
    eventually(lambda: "updates=0 done=0" in world.logged(), "the log has a line of health")
