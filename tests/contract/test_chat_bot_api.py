"""The Bot API as https://core.telegram.org/bots/api tells it, and as Telegram answers."""

import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from tests.fakes.chat import TOKEN, Chat, Guest, running_chat
from tests.fakes.servers import ROOT

PHOTO = (ROOT / "examples/photos/coffee.jpg").read_bytes()  # 600x400
NAMES = iter(range(1000, 10_000))
KEYS = {"inline_keyboard": [[{"text": "Monet", "callback_data": "style:monet"}]]}


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chat]:
    with running_chat(tmp_path_factory.mktemp("chat") / "data") as chat:
        yield chat


@pytest.fixture
def anna(chat: Chat) -> Guest:
    """A user who has started the bot, whose updates the bot has all confirmed."""
    anna = Guest(chat, next(NAMES))
    anna.write("/start", language_code="en")
    updates(chat)
    return anna


def updates(chat: Chat, **values: object) -> list[Any]:
    """All unconfirmed updates, which are confirmed."""
    found: list[Any] = chat.call("getUpdates", **values)
    if found:
        chat.call("getUpdates", offset=found[-1]["update_id"] + 1)
    return found


def picture(width: int, height: int, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(buffer, kind)
    return buffer.getvalue()


def test_a_message_and_what_the_bot_is_told(chat: Chat) -> None:
    guest = Guest(chat, next(NAMES))
    assert chat.call("sendMessage", chat_id=guest.number, text="hi") == (
        400,
        "Bad Request: chat not found",
    )
    guest.write("Привет", language_code="ru-RU")
    message = updates(chat)[-1]["message"]
    assert message["text"] == "Привет"
    assert message["chat"] == {"id": guest.number, "type": "private", "first_name": "Guest"}
    assert message["from"]["id"] == guest.number
    assert message["from"]["language_code"] == "ru-RU"
    assert not message["from"]["is_bot"]
    assert abs(message["date"] - time.time()) < 60
    assert chat.call("getMe") | {"id": 42, "is_bot": True} == chat.call("getMe")
    guest.write("/start now")
    assert updates(chat)[-1]["message"]["entities"] == [
        {"type": "bot_command", "offset": 0, "length": 6}
    ]
    empty = requests.get(
        f"{chat.url}/bot{TOKEN}/getMe", headers={"Content-Type": "application/json"}
    )
    assert empty.json()["ok"]


def test_parameters_come_in_every_form(chat: Chat, anna: Guest) -> None:
    url, values = f"{chat.url}/bot{TOKEN}/sendMessage", {"chat_id": str(anna.number), "text": "hi"}
    for how in (
        {"params": values},
        {"data": values},
        {"json": values},
        {"data": values, "files": {"x": b"1"}},
    ):
        answer = requests.post(url, **how)  # type: ignore[arg-type]
        assert answer.json()["result"]["text"] == "hi"
    assert requests.get(url, params=values).json()["ok"]
    assert requests.get(url.replace("sendMessage", "SENDMESSAGE"), params=values).json()["ok"]
    assert [e["message"]["text"] for e in anna.news()] == ["/start", *["hi"] * 6]
    broken = requests.post(url, data=b"{", headers={"Content-Type": "application/json"})
    assert broken.status_code == 400


def test_what_is_refused(chat: Chat, anna: Guest) -> None:
    here = {"chat_id": anna.number}
    assert requests.get(f"{chat.url}/bot43:other/getMe").json() == {
        "ok": False,
        "error_code": 401,
        "description": "Unauthorized",
    }
    assert chat.call("sendDice", **here) == (404, "Not Found: method not found")
    assert chat.call("sendMessage", text="x") == (400, "Bad Request: chat_id is empty")
    assert chat.call("sendMessage", **here, text="  ") == (
        400,
        "Bad Request: message text is empty",
    )
    assert chat.call("sendMessage", **here, text="x" * 4097) == (
        400,
        "Bad Request: message is too long",
    )
    long = {"inline_keyboard": [[{"text": "x", "callback_data": "x" * 65}]]}
    assert chat.call("sendMessage", **here, text="x", reply_markup=long) == (
        400,
        "Bad Request: BUTTON_DATA_INVALID",
    )
    assert chat.call("sendMessage", **here, text="x", reply_markup="{")[0] == 400
    assert (
        chat.call("sendMessage", **here, text="x", reply_markup={"inline_keyboard": [["x"]]})[0]
        == 400
    )
    assert chat.call("sendPhoto", **here)[0] == 400
    caption = {"caption": "x" * 1025, "files": {"photo": PHOTO}}
    assert chat.call("sendPhoto", **here, **caption) == (
        400,
        "Bad Request: message caption is too long",
    )
    for data, why in [
        (b"text", "IMAGE_PROCESS_FAILED"),
        (b"", "non-empty"),
        (PHOTO + b"x" * 2**20 * 11, "too big for a photo"),
        (picture(9990, 20), "PHOTO_INVALID_DIMENSIONS"),
        (picture(900, 40), "PHOTO_INVALID_DIMENSIONS"),
    ]:
        code, description = chat.call("sendPhoto", **here, files={"photo": ("a.jpg", data)})
        assert (code, why in description) == (400, True), description
    big = chat.call("sendDocument", **here, files={"document": ("a.bin", b"x" * 2**20 * 60)})
    assert big == (413, "Request Entity Too Large")
    assert [event["message"]["text"] for event in anna.news()] == ["/start"]


def test_updates_stay_until_they_are_confirmed(chat: Chat, anna: Guest) -> None:
    for word in "abc":
        anna.write(word)
    first = chat.call("getUpdates", limit=2)
    assert [u["message"]["text"] for u in first] == ["a", "b"]
    assert chat.call("getUpdates", limit=2) == first
    rest = chat.call("getUpdates", offset=first[-1]["update_id"])
    assert [u["message"]["text"] for u in rest] == ["b", "c"]
    anna.write("d")
    assert [u["message"]["text"] for u in chat.call("getUpdates", offset=-1)] == ["d"]
    last = chat.call("getUpdates")[0]["update_id"]
    assert chat.call("getUpdates", offset=last + 1) == []
    anna.write("e")
    assert chat.call("getUpdates")[0]["update_id"] == last + 1
    updates(chat)


def test_a_poll_waits_and_a_second_one_ends_it(chat: Chat, anna: Guest) -> None:
    answers: list[Any] = []
    one = threading.Thread(target=lambda: answers.append(chat.call("getUpdates", timeout=50)))
    one.start()
    time.sleep(0.3)
    two = threading.Thread(target=lambda: answers.append(chat.call("getUpdates", timeout=50)))
    two.start()
    one.join(10)
    assert answers[0][0] == 409
    assert answers[0][1].startswith("Conflict: terminated by other getUpdates request")
    anna.write("wake up")
    two.join(10)
    assert answers[1][0]["message"]["text"] == "wake up"
    updates(chat)
    assert chat.call("getUpdates", timeout=1) == []


def test_unwanted_kinds_of_updates_are_not_kept(chat: Chat, anna: Guest) -> None:
    chat.call("getUpdates", allowed_updates=["callback_query"])
    anna.write("unheard")
    assert chat.call("getUpdates") == []
    chat.call("getUpdates", allowed_updates=[])
    anna.write("heard")
    assert [u["message"]["text"] for u in updates(chat)] == ["heard"]


def test_a_photo_is_scaled_and_a_document_is_not(chat: Chat, anna: Guest) -> None:
    anna.send("photo", "big.png", picture(2000, 1000, "PNG"), caption="look")
    anna.send("document", "scan.heic", b"any bytes")
    photo, document = (update["message"] for update in updates(chat))
    sizes = [(size["width"], size["height"]) for size in photo["photo"]]
    assert sizes == [(90, 45), (320, 160), (800, 400), (1280, 640)]
    assert photo["caption"] == "look"
    assert document["document"]["file_name"] == "scan.heic"
    assert document["document"]["mime_type"] == "image/heic"
    assert document["document"]["file_size"] == 9
    for size in photo["photo"]:
        data = download(chat, size["file_id"])
        assert len(data) == size["file_size"]
        image = Image.open(io.BytesIO(data))
        assert (image.format, image.size) == ("JPEG", (size["width"], size["height"]))
    assert download(chat, document["document"]["file_id"]) == b"any bytes"
    assert chat.call("getFile", file_id="../chat.sqlite")[0] == 400
    assert anna.send("photo", "a.jpg", b"no picture")["error_code"] == 400


def download(chat: Chat, file_id: str) -> bytes:
    path = chat.call("getFile", file_id=file_id)["file_path"]
    return requests.get(f"{chat.url}/file/bot{TOKEN}/{path}").content


def test_a_file_over_20_mb_cannot_be_downloaded(chat: Chat, anna: Guest) -> None:
    anna.send("document", "a.tif", b"x" * (20 * 2**20 + 1))
    file = updates(chat)[0]["message"]["document"]
    assert file["file_size"] == 20 * 2**20 + 1
    assert chat.call("getFile", file_id=file["file_id"]) == (400, "Bad Request: file is too big")


def test_editing(chat: Chat, anna: Guest) -> None:
    here = {"chat_id": anna.number}
    mine = anna.write("mine")["message_id"]
    number = chat.call("sendMessage", **here, text="one", reply_markup=KEYS)["message_id"]
    at = {**here, "message_id": number}
    assert chat.call("editMessageText", **here, message_id=mine, text="x") == (
        400,
        "Bad Request: message can't be edited",
    )
    gone = {**here, "message_id": 10**9}
    assert chat.call("editMessageText", **gone, text="x") == (
        400,
        "Bad Request: message to edit not found",
    )
    assert chat.call("deleteMessage", **gone) == (400, "Bad Request: message to delete not found")
    same = chat.call("editMessageText", **at, text="one", reply_markup=KEYS)
    assert same[0] == 400
    assert same[1].startswith("Bad Request: message is not modified")
    assert "reply_markup" not in chat.call(
        "editMessageText", **at, text="one"
    )  # buttons that are not given go
    assert chat.call("editMessageCaption", **at, caption="x") == (
        400,
        "Bad Request: there is no caption in the message to edit",
    )
    media = '{"type": "photo", "media": "attach://preview", "caption": "half"}'
    edited = chat.call("editMessageMedia", **at, media=media, files={"preview": PHOTO})
    assert (edited["message_id"], edited["caption"]) == (number, "half")
    assert "text" not in edited
    assert chat.call("editMessageText", **at, text="x") == (
        400,
        "Bad Request: there is no text in the message to edit",
    )
    assert chat.call("editMessageCaption", **at, caption="all")["photo"] == edited["photo"]
    assert chat.call("deleteMessage", **at) is True
    assert chat.call("getFile", file_id=edited["photo"][0]["file_id"])[0] == 400
    anna.news()
    assert [event["message"]["message_id"] for event in Guest(chat, anna.number).news()] == [
        1 + mine - 2,
        mine,
    ]


def test_a_button_is_pressed_and_answered_once(chat: Chat, anna: Guest) -> None:
    number = chat.call("sendMessage", chat_id=anna.number, text="Who?", reply_markup=KEYS)[
        "message_id"
    ]
    assert anna.press(number, "style:dali").status_code == 400
    assert anna.press(number + 1, "style:monet").status_code == 400
    assert Guest(chat, next(NAMES)).press(number, "style:monet").status_code == 400
    assert anna.press(number, "style:monet").ok
    (update,) = updates(chat)
    query = update["callback_query"]
    assert (query["data"], query["message"]["message_id"], query["from"]["id"]) == (
        "style:monet",
        number,
        anna.number,
    )
    assert chat.call("answerCallbackQuery", callback_query_id=query["id"]) is True
    again = chat.call("answerCallbackQuery", callback_query_id=query["id"])
    assert again[0] == 400
    assert again[1].startswith("Bad Request: query is too old")


def test_what_the_page_hears(chat: Chat, anna: Guest) -> None:
    anna.news()
    sent = chat.call(
        "sendPhoto", chat_id=anna.number, caption="done", reply_markup=KEYS, files={"photo": PHOTO}
    )
    (event,) = anna.news(timeout=5)
    assert event["kind"] == "message"
    message = event["message"]
    assert (message["from"], message["caption"], message["reply_markup"]) == ("bot", "done", KEYS)
    photo = message["photo"]
    assert (photo["width"], photo["height"], photo["size"]) == (600, 400, photo["file_size"])
    assert len(anna.ask("GET", f"file/{photo['file_id']}").content) == photo["size"]
    assert Guest(chat, next(NAMES)).ask("GET", f"file/{photo['file_id']}").status_code == 404
    began = time.monotonic()
    threading.Timer(
        0.5, chat.call, ["sendChatAction"], {"chat_id": anna.number, "action": "typing"}
    ).start()
    assert [event["kind"] for event in anna.news(timeout=20)] == ["action"]
    assert time.monotonic() - began < 10
    chat.call(
        "editMessageCaption", chat_id=anna.number, message_id=sent["message_id"], caption="new"
    )
    chat.call("sendMessage", chat_id=anna.number, text="short-lived")
    assert [(e["kind"], e["message"].get("caption")) for e in anna.news()] == [
        ("edit", "new"),
        ("message", None),
    ]
    chat.call("deleteMessage", chat_id=anna.number, message_id=sent["message_id"])
    assert [(e["kind"], e["message"]["message_id"]) for e in anna.news()] == [
        ("delete", sent["message_id"])
    ]
    assert anna.news() == []


def test_commands_by_language(chat: Chat, anna: Guest) -> None:
    chat.call("setMyCommands", commands=[{"command": "start", "description": "begin"}])
    chat.call(
        "setMyCommands",
        commands=[{"command": "start", "description": "начать"}],
        language_code="ru",
    )
    said = [
        anna.ask("GET", f"commands?language_code={lang}").json()[0]["description"]
        for lang in ("ru", "en")
    ]
    assert said == ["начать", "begin"]


def test_killed_it_loses_nothing(tmp_path: Path) -> None:
    with running_chat(tmp_path / "data") as chat:
        anna = Guest(chat, 7)
        anna.write("before")
        seen = chat.call("getUpdates")[0]["update_id"]
        answered: list[int] = []

        def write() -> None:
            try:
                for number in range(10_000):
                    message = Guest(chat, 8).send("photo", "a.jpg", PHOTO, caption=str(number))
                    answered.append(message["message_id"])
            except requests.RequestException:
                pass

        thread = threading.Thread(target=write)
        thread.start()
        while len(answered) < 5:
            time.sleep(0.01)
        chat.kill()
        thread.join()
        chat.start()
        assert [event["message"]["text"] for event in Guest(chat, 7).news()] == ["before"]
        shown = [event["message"]["message_id"] for event in Guest(chat, 8).news()]
        pending = chat.call("getUpdates")
        assert set(answered) <= set(shown)
        assert [seen + step for step in range(len(pending))] == [
            update["update_id"] for update in pending
        ]
        assert [update["message"]["message_id"] for update in pending[1:]] == shown
        for update in pending[1:]:
            assert download(chat, update["message"]["photo"][-1]["file_id"])
