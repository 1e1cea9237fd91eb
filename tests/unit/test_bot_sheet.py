"""The question for a style is a photo of all styles, where there is one and Telegram takes it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError
from moto import mock_aws

import bot
from tests.fakes.names import BUCKET

Json = Any  # whatever JSON can hold
CHAT = 5
CONFIG = bot.Config(
    token="42:token",
    bucket=BUCKET,
    endpoints={"nst": "nst", "cyclegan": "cyclegan"},
    styles={},
    allowed_users=frozenset(),
    admins=frozenset(),
    daily_limit=0,
    telegram_api="https://api.telegram.org",
    support="Ask Vincent.",
)
CATALOG = {
    "version": 1,
    "styles": [{"name": "waves"}, {"name": "dabs"}, {"name": "swirls"}],
    "sheet": "catalog.jpg",
}
TAG = bot.ImageRef("garden", is_document=False).tag
ROWS = [[f"style:waves:{TAG}", f"style:dabs:{TAG}"], [f"style:swirls:{TAG}"]]


class Phone(bot.TelegramClient):
    """Telegram, which gives an upload a file_id, and keeps what a chat shows."""

    def __init__(self) -> None:
        super().__init__("https://api.telegram.org", "42:token")
        self.uploads: dict[str, bytes] = {}  # by file_id
        self.shown: list[Json] = []
        self.numbers = itertools.count(1)
        self.photo_error: bot.TelegramError | None = None
        self.photo_calls = 0

    def call(
        self, method: str, files: Json = None, read_timeout: float = 30, **values: Json
    ) -> Json:
        if method != "sendPhoto":
            self.shown.append(values)
            return bot.SentMessage(len(self.shown))
        self.photo_calls += 1
        if self.photo_error:
            raise self.photo_error
        file_id = values.get("photo")
        if files:
            file_id = f"file-{next(self.numbers)}"
            _, self.uploads[file_id] = files["photo"]
        if file_id not in self.uploads:
            raise bot.TelegramError(method, 400, "Bad Request: wrong file identifier")
        self.shown.append(values | {"picture": self.uploads[file_id]})
        sizes = [bot.TelegramFile(f"small {file_id}"), bot.TelegramFile(file_id)]
        return bot.SentMessage(len(self.shown), sizes)


class World:
    def __init__(self, s3: Json) -> None:
        self.phone = Phone()
        self.store = bot.Store(s3, BUCKET)
        self.store.put_json("models/catalog.json", CATALOG)
        self.store.put("models/catalog.jpg", b"the sheet")
        self.updates = itertools.count(1)
        self.bot = bot.Bot(CONFIG, self.phone, s3, None, lambda: None)

    def send_photo(self) -> Json:
        """Send a photo, and return how the bot asks for the style."""
        number = next(self.updates)
        self.store.delete([f"chats/{CHAT}.json"])
        message = bot.Message(
            bot.TelegramChat(CHAT), bot.TelegramUser(1), photo=[bot.TelegramFile("garden")]
        )
        raw = bot.TelegramUpdate(number, message)
        self.bot.handler.handle(bot.Update(number, CHAT, raw), str)
        return self.phone.shown[-1]


@pytest.fixture
def world() -> Iterator[World]:
    with mock_aws():
        s3 = boto3.client("s3", region_name="us-east-1")
        s3.create_bucket(Bucket=BUCKET)
        yield World(s3)


def rows_of(question: Json) -> list[list[str]]:
    rows = question["reply_markup"]["inline_keyboard"]
    return [[button["callback_data"] for button in row] for row in rows]


def test_the_sheet_is_sent_with_the_question_and_its_buttons(world: World) -> None:
    question = world.send_photo()
    assert question["picture"] == b"the sheet"
    assert "Choose a painter" in question["caption"]
    assert rows_of(question) == ROWS


def test_the_sheet_is_uploaded_once_until_it_changes(world: World) -> None:
    for _ in range(3):
        assert world.send_photo()["picture"] == b"the sheet"
    assert len(world.phone.uploads) == 1
    world.store.put("models/catalog.jpg", b"a new sheet")
    for _ in range(2):
        assert world.send_photo()["picture"] == b"a new sheet"
    assert len(world.phone.uploads) == 2


def test_a_file_that_telegram_has_forgotten_is_uploaded_again(world: World) -> None:
    world.send_photo()
    world.phone.uploads.clear()
    assert world.send_photo()["picture"] == b"the sheet"
    assert world.send_photo()["picture"] == b"the sheet"
    assert len(world.phone.uploads) == 1


@pytest.mark.parametrize("code", [400, 413])
def test_a_chat_that_takes_no_photos_is_asked_in_words(world: World, code: int) -> None:
    world.phone.photo_error = bot.TelegramError("sendPhoto", code, "Bad Request: no rights")
    question = world.send_photo()
    assert "Choose a painter" in question["text"]
    assert rows_of(question) == ROWS


@pytest.mark.parametrize("code", [0, 403, 429, 500])
def test_other_errors_are_those_of_any_message(world: World, code: int) -> None:
    world.phone.photo_error = bot.TelegramError("sendPhoto", code, "no")
    with pytest.raises(bot.TelegramError):
        world.send_photo()
    assert world.phone.shown == []


def test_without_a_sheet_the_question_is_asked_in_words(world: World) -> None:
    world.store.delete(["models/catalog.jpg"])
    assert "Choose a painter" in world.send_photo()["text"]
    assert world.phone.photo_calls == 0


def test_while_s3_fails_the_question_is_asked_in_words(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.send_photo()

    def fail(key: str, etag: str) -> None:
        raise EndpointConnectionError(endpoint_url="http://s3")

    monkeypatch.setattr(world.store, "get_if_changed", fail)
    monkeypatch.setattr(world.bot.store, "get_if_changed", fail)
    question = world.send_photo()
    assert "Choose a painter" in question["text"]
    assert rows_of(question) == ROWS
