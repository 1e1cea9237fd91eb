"""One user sends a thousand photos at once: nobody else waits, and nothing is lost."""

from __future__ import annotations

import statistics
from typing import Any

import msgspec
import pytest

import bot
from tests.fakes.names import BUCKET
from tests.fakes.simulation import Simulation, message
from tests.unit.test_bot_kill_points import CONFIG, Endpoint, Fate

Json = Any  # whatever JSON can hold
FLOODER = 7
OTHERS = 20
PHOTOS = 1000


class World(Simulation):
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(monkeypatch, CONFIG, lambda s3: Endpoint(s3, Fate()))
        self.telegram.messages_per_second = 1.0
        self.start_bot()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def median_waits(world: World) -> tuple[float, float]:
    """Return how long the others wait for an answer, and for a picture. Medians, in seconds."""
    users = range(100, 100 + OTHERS)
    start = world.clock.now
    for i, user in enumerate(users):
        world.telegram.photo(user, start + 0.1 * i)
    world.run(start + 20)
    answers = [world.telegram.shown[user][0][0] - 0.1 * i for i, user in enumerate(users)]

    middle = world.clock.now
    for i, user in enumerate(users):
        world.telegram.press(user, middle + 0.1 * i, monet(user))
    world.run(middle + 40)
    pictures = []
    for i, user in enumerate(users):
        [at] = [at for at, method, _ in world.telegram.shown[user] if method == "sendPhoto"]
        pictures.append(at - middle - 0.1 * i)
    return statistics.median(answers) - start, statistics.median(pictures)


def monet(user: int) -> str:
    """Return the data of the painter's button under the user's photo."""
    return f"style:monet:{bot.ImageRef(f'photo of {user}', is_document=False).tag}"


def send_flood(world: World, count: int = PHOTOS) -> None:
    for _ in range(count):
        world.telegram.photo(FLOODER, world.clock.now)


def test_nobody_waits_for_the_thousand_photos_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = median_waits(World(monkeypatch))
    world = World(monkeypatch)
    send_flood(world)
    beside = median_waits(world)
    print(f"seconds for an answer, a picture: alone {alone}, beside a flood {beside}")
    for wait, wait_alone in zip(beside, alone, strict=True):
        assert wait <= 1.5 * wait_alone


def test_without_the_two_rules_everybody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test above is worth: it would fail."""
    monkeypatch.setattr(bot, "MESSAGES_AT_ONCE", 10**6)
    monkeypatch.setattr(bot.Dispatcher, "store_waiting", lambda _: False)
    world = World(monkeypatch)
    send_flood(world)
    world.telegram.photo(100, world.clock.now)
    world.run(100)
    assert world.telegram.said(100) == []


def test_who_floods_gets_one_sentence_and_can_go_on(world: World) -> None:
    send_flood(world)
    world.run(30)
    said = world.telegram.said(FLOODER)
    told = [words for words in said if "left out" in words]
    assert told == [
        f"That was a lot at once: I took the first ones, and left out the {PHOTOS - 3} "
        "after them. I am still painting: send me another photo, or stop me with /cancel."
    ]
    assert len(said) <= 6
    assert world.telegram.queue == {}
    assert [key for key in world.s3.objects if not key.startswith("chats/")] == []
    assert world.most_waiting <= 2 * bot.BATCH_LENGTH
    assert f"left_out={PHOTOS - 4} " in world.dispatcher.health()  # the last one was answered

    world.telegram.press(FLOODER, 30.0, monet(FLOODER))
    world.run(45)
    assert "Painted" in world.telegram.said(FLOODER)[-1]


@pytest.mark.parametrize("is_pressed", [True, False])
def test_a_painting_in_the_style_of_a_picture_begins_at_paint_or_by_itself(
    world: World, is_pressed: bool
) -> None:
    world.telegram.photo(100, 0.0)
    world.telegram.photo(100, 1.0)
    world.run(5.0)
    assert "Otherwise I begin in 20 s" in world.telegram.said(100)[-1]
    if is_pressed:
        [job] = [key.split("/")[1] for key in world.s3.objects if key.endswith("/job.json")]
        world.telegram.press(100, 5.0, f"paint:{job}")
    world.run(15.0)
    assert ("Painted" in world.telegram.said(100)[-1]) == is_pressed
    world.run(40.0)
    assert "Painted" in world.telegram.said(100)[-1]


def test_an_album_counts_as_one_message(world: World) -> None:
    for number in range(10):
        content = message(FLOODER, photo=[{"file_id": f"photo {number}"}], media_group_id="7")
        world.telegram.push(0.0, message=content)
    world.run(30)
    assert not [words for words in world.telegram.said(FLOODER) if "left out" in words]


def test_a_flood_that_does_not_end_is_answered_now_and_then(world: World) -> None:
    for tenth in range(600):
        world.telegram.photo(FLOODER, tenth / 10)
    world.run(70)
    told = [words for words in world.telegram.said(FLOODER) if "left out" in words]
    assert 3 <= len(told) <= 5


@pytest.mark.parametrize("photos", [1, 5, 150, 1000])
def test_cancel_works_at_once_in_a_flood(world: World, photos: int) -> None:
    world.telegram.last_sent[FLOODER] = 0.0
    send_flood(world, photos)
    world.telegram.write(FLOODER, 0.0, "/cancel")
    world.run(1.5)
    chat = world.bot.store.load_chat(FLOODER).chat
    assert (chat.content, chat.jobs) == (None, ())
    world.run(30)
    assert world.telegram.said(FLOODER)[-1].endswith(
        "Cancelled. Please send me the photo to paint."
    )
    assert "sendPhoto" not in [method for _, method, _ in world.telegram.shown[FLOODER]]
    assert world.telegram.queue == {}


def test_killed_in_a_flood_nothing_of_the_others_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever it is killed: what it has confirmed is stored."""
    for tenth in range(1, 16):
        world = World(monkeypatch)
        send_flood(world, 300)
        users = range(100, 100 + OTHERS)
        for user in users:
            world.telegram.write(user, 0.0, "/start")
            world.telegram.photo(user, 0.0)
        for when in (tenth / 10, tenth / 5):
            world.run(when)
            world.start_bot()
        world.run(30)
        for user in users:
            content = world.bot.store.load_chat(user).chat.content
            assert content == bot.ImageRef(f"photo of {user}", is_document=False), when
            assert [words for words in world.telegram.said(user) if "Choose a painter" in words]
        assert [key for key in world.s3.objects if key.startswith(("updates/", "jobs/"))] == []
        told = [words for words in world.telegram.said(FLOODER) if "left out" in words]
        assert 1 <= len(told) <= 3


def test_a_chat_that_has_to_wait_holds_up_no_other(world: World) -> None:
    """A hundred messages of others come while Telegram lets one chat wait for minutes."""
    world.telegram.last_sent[FLOODER] = 200.0
    world.telegram.write(FLOODER, 0.0, "/start")
    for user in range(100, 400):
        world.telegram.write(user, 0.0, "/start")
    world.run(20)
    assert all("Hello" in world.telegram.said(user)[0] for user in range(100, 400))
    assert world.telegram.said(FLOODER) == []
    world.run(250)
    assert "Hello" in world.telegram.said(FLOODER)[0]


def test_what_waits_in_s3_holds_no_words(world: World) -> None:
    world.s3.now = lambda: 1e9
    for user in range(100, 200):
        world.telegram.write(user, 0.0, "my private words")
    world.telegram.write(99, 0.0, "Monet")
    written = []
    put = world.s3.put_object

    def spy(**values: Json) -> Json:
        written.append((values["Key"], values["Body"]))
        return put(**values)

    world.s3.put_object = spy  # type: ignore[method-assign]
    world.run(5)
    assert [key for key, _ in written if key.startswith("updates/")]
    assert all(b"private" not in body for _, body in written)
    assert "send me the photo" in world.telegram.said(150)[0]


def test_the_count_of_updates_that_wait_has_a_bound(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bot, "BACKLOG_LENGTH", 300)
    for user in range(100, 2100):
        world.telegram.last_sent[user] = 1.0
        world.telegram.write(user, 0.0, "/start")
    world.run(300)
    assert world.most_waiting <= 500
    assert all("Hello" in world.telegram.said(user)[0] for user in range(100, 2100))


GROUP = -5


def test_a_group_is_not_told_more_than_telegram_allows(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Telegram takes 20 messages a minute in a group, edits among them."""
    world.model.is_slow = True
    told: list[float] = []
    call = world.telegram.call

    def count(method: str, *args: Json, **values: Json) -> Json:
        if values.get("chat_id") == GROUP and method != "sendChatAction":
            told.append(world.clock.now)
        return call(method, *args, **values)

    monkeypatch.setattr(world.telegram, "call", count)
    for user in (1, 2, 3):
        asked = message(user, text="/paint monet", reply_to_message={"photo": [{"file_id": "x"}]})
        asked |= {"chat": {"id": GROUP}, "message_id": user}
        world.telegram.push(world.clock.now, message=asked)
    start = world.clock.now + 10
    for second in range(70):
        for job in world.bot.runner.pending():
            progress = msgspec.json.encode({"step": 10 + second, "steps": 100})
            world.s3.put_object(Bucket=BUCKET, Key=job.key("progress.json"), Body=progress)
        world.run(world.clock.now + 1)
    assert len(world.bot.runner.pending()) == 3
    in_a_minute = [at for at in told if start <= at < start + 60]
    assert 6 <= len(in_a_minute) <= 20
