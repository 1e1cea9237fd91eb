"""The Bot API as https://core.telegram.org/bots/api describes it, and as Telegram answers."""

import io
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from local.telegram.button_pictures import picture_path
from tests.fakes.chat import KEY, TOKEN, Chat, Guest, running_chat
from tests.fakes.servers import ROOT

PHOTO = (ROOT / "examples/photos/coffee.jpg").read_bytes()  # 600x400
NAMES = iter(range(1000, 10_000))
JSON = {"Content-Type": "application/json"}
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
    """Return all unconfirmed updates, and confirm them."""
    found: list[Any] = chat.call("getUpdates", **values)
    if found:
        chat.call("getUpdates", offset=found[-1]["update_id"] + 1)
    return found


def refused(reason: str) -> tuple[int, str]:
    return 400, f"Bad Request: {reason}"


def picture(width: int, height: int, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(buffer, kind)
    return buffer.getvalue()


def test_a_message_and_what_the_bot_is_told(chat: Chat) -> None:
    guest = Guest(chat, next(NAMES))
    assert chat.call("sendMessage", chat_id=guest.number, text="hi") == refused("chat not found")
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
    url = f"{chat.url}/bot{TOKEN}/sendMessage"
    values = {"chat_id": str(anna.number), "text": "hi"}
    for answer in (
        requests.post(url, params=values),
        requests.post(url, data=values),
        requests.post(url, json=values),
        requests.post(url, data=values, files={"x": b"1"}),
    ):
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
    assert chat.call("sendMessage", text="x") == refused("chat_id is empty")
    assert chat.call("sendMessage", **here, text="  ") == refused("message text is empty")
    assert chat.call("sendMessage", **here, text="x" * 4097) == refused("message is too long")
    long = {"inline_keyboard": [[{"text": "x", "callback_data": "x" * 65}]]}
    too_long = chat.call("sendMessage", **here, text="x", reply_markup=long)
    assert too_long == refused("BUTTON_DATA_INVALID")
    no_json = chat.call("sendMessage", **here, text="x", reply_markup="{")
    assert no_json[0] == 400
    no_button = {"inline_keyboard": [["x"]]}
    assert chat.call("sendMessage", **here, text="x", reply_markup=no_button)[0] == 400
    assert chat.call("sendPhoto", **here)[0] == 400
    caption = {"caption": "x" * 1025, "files": {"photo": PHOTO}}
    assert chat.call("sendPhoto", **here, **caption) == refused("message caption is too long")
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


def test_what_is_too_long_or_too_deep_is_refused_in_telegrams_words(
    chat: Chat, anna: Guest
) -> None:
    here = {"chat_id": anna.number}
    # Telegram counts in UTF-16, where an emoji has two units.
    assert chat.call("sendMessage", **here, text="😀" * 2048)["text"] == "😀" * 2048
    assert chat.call("sendMessage", **here, text="😀" * 2049) == refused("message is too long")
    caption = {"caption": "😀" * 513, "files": {"photo": PHOTO}}
    assert chat.call("sendPhoto", **here, **caption) == refused("message caption is too long")
    many = {"inline_keyboard": [[{"text": "x", "callback_data": "x"}]] * 101}
    told = chat.call("sendMessage", **here, text="x", reply_markup=many)
    assert told == refused("reply markup is too long")

    url = f"{chat.url}/bot{TOKEN}/sendMessage"
    for form in (
        {"data": {**here, "text": "x" * 2_000_000}},
        {"json": {**here, "text": "x" * 2_000_000}},
        {"files": {"chat_id": (None, str(anna.number)), "text": (None, "x" * 2_000_000)}},
    ):
        assert description(url, **form) == refused("message is too long")

    deep = "[" * 50_000 + "]" * 50_000
    unreadable = refused("can't parse the request's JSON object")
    for body in (deep, f'{{"chat_id": 1, "text": {deep}}}', b'{"text": "\xff"}', "9" * 5000):
        assert description(url, data=body, headers=JSON) == unreadable
    markup = refused("can't parse reply_markup JSON object")
    assert description(url, data={**here, "text": "x", "reply_markup": deep}) == markup
    half = json.dumps({**here, "text": "\ud83d"})
    told = description(url, data=half, headers=JSON)
    assert told == refused("strings must be encoded in UTF-8")


def test_a_form_that_is_too_large_is_answered_and_hangs_nothing(chat: Chat, anna: Guest) -> None:
    parts = {f"part{number}": (None, "x") for number in range(2000)}
    long_text = {"text": (None, "x" * 10_000_000)}
    told = refused("a form may have 100 parts, and 4194304 bytes of text")
    own = {"headers": {"X-Chat-Key": KEY}}
    for form in (parts, long_text):
        assert description(f"{chat.url}/bot{TOKEN}/sendMessage", files=form) == told
        assert description(f"{chat.url}/chat/{anna.number}/message", files=form, **own) == told
    anna.write("still here")
    assert updates(chat)[-1]["message"]["text"] == "still here"


def description(url: str, **options: Any) -> tuple[int, str]:  # noqa: ANN401 - of requests
    answer = requests.post(url, timeout=20, **options).json()
    return answer["error_code"], answer["description"]


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
    assert chat.call("getFile", file_id=file["file_id"]) == refused("file is too big")


def gif(*colors: str) -> bytes:
    frames = [Image.new("RGB", (64, 48), color) for color in colors]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=100)
    return buffer.getvalue()


def test_a_film_is_an_animation_and_for_old_bots_a_document(chat: Chat, anna: Guest) -> None:
    here = {"chat_id": anna.number}
    film = gif("red", "green")
    sent = chat.call(
        "sendAnimation",
        **here,
        caption="how",
        duration=2,
        reply_markup=KEYS,
        files={"animation": ("film.gif", film)},
    )
    animation = sent["animation"]
    assert (animation["width"], animation["height"], animation["duration"]) == (64, 48, 2)
    assert (animation["mime_type"], animation["file_size"]) == ("image/gif", len(film))
    assert sent["document"]["file_id"] == animation["file_id"]
    assert download(chat, animation["file_id"]) == film
    again = chat.call("sendAnimation", **here, animation=animation["file_id"])
    assert again["animation"] == animation

    at = {**here, "message_id": sent["message_id"]}
    captioned = chat.call("editMessageCaption", **at, caption="that is how")
    assert (captioned["animation"], captioned["caption"]) == (animation, "that is how")
    video = {"type": "animation", "media": "attach://v", "width": 320, "height": 240}
    files = {"v": ("film.mp4", b"a video")}
    edited = chat.call("editMessageMedia", **at, media=video, files=files)
    assert (edited["animation"]["width"], edited["animation"]["mime_type"]) == (320, "video/mp4")
    shown = [event["message"] for event in anna.news() if "animation" in event["message"]]
    assert [message["animation"]["mime_type"] for message in shown] == ["image/gif", "video/mp4"]
    assert not any("document" in message for message in shown), "the page would show it twice"
    assert chat.call("sendAnimation", **here, files={"animation": ("a.gif", b"")})[0] == 400


def test_an_album_is_sent_as_a_whole_or_not_at_all(chat: Chat, anna: Guest) -> None:
    here = {"chat_id": anna.number}
    old = chat.call("sendPhoto", **here, files={"photo": PHOTO})["photo"][-1]["file_id"]
    photo = {"type": "photo", "media": old}
    new = {"type": "photo", "media": "attach://new", "caption": "after"}
    sent = chat.call("sendMediaGroup", **here, media=[photo, new], files={"new": PHOTO})
    assert [message.get("caption") for message in sent] == [None, "after"]
    assert len({message["media_group_id"] for message in sent}) == 1
    assert all(len(message["photo"]) == 3 for message in sent)
    told = [event["message"].get("media_group_id") for event in anna.news()]
    assert told == [None, None, *[sent[0]["media_group_id"]] * 2]

    document = {"type": "document", "media": "attach://new"}
    for album, why in (
        ([], "there are no messages to send"),
        ([photo], "an album has 2 to 10 messages"),
        ([photo] * 11, "too many messages to send as an album"),
        ([photo, document], "document can't be mixed with other media types"),
        ([photo, photo | {"media": "?"}], "wrong remote file identifier specified or no file in"),
        (
            [photo, photo | {"type": "animation"}],
            "can't parse InputMedia: type \"animation\" can't be used in sendMediaGroup",
        ),
        (["photo", "photo"], "can't parse InputMedia: type \"\" can't be used in sendMediaGroup"),
    ):
        code, said = chat.call("sendMediaGroup", **here, media=album, files={"new": PHOTO})
        assert (code, said.startswith(f"Bad Request: {why}")) == (400, True), said
    assert anna.news() == []
    files = {"one": ("1.txt", b"1"), "two": ("2.txt", b"2")}
    two = [{"type": "document", "media": f"attach://{name}"} for name in files]
    names = [
        message["document"]["file_name"]
        for message in chat.call("sendMediaGroup", **here, media=two, files=files)
    ]
    assert names == ["1.txt", "2.txt"]


def test_a_reply_tells_what_it_replies_to(chat: Chat, anna: Guest) -> None:
    here = {"chat_id": anna.number, "text": "yes"}
    question = anna.write("Really?")["message_id"]
    reply = chat.call("sendMessage", **here, reply_parameters={"message_id": question})
    assert reply["reply_to_message"]["text"] == "Really?"
    number = reply["message_id"]
    nested = chat.call("sendMessage", **here, reply_parameters={"message_id": number})
    assert "reply_to_message" not in nested["reply_to_message"]
    shown = [event["message"].get("reply_to") for event in anna.news()]
    assert shown == [None, None, question, number]

    gone = {"message_id": 10**9}
    told = chat.call("sendMessage", **here, reply_parameters=gone)
    assert told == refused("message to be replied not found")
    gone["allow_sending_without_reply"] = True
    assert "reply_to_message" not in chat.call("sendMessage", **here, reply_parameters=gone)


def test_editing(chat: Chat, anna: Guest) -> None:
    here = {"chat_id": anna.number}
    mine = anna.write("mine")["message_id"]
    number = chat.call("sendMessage", **here, text="one", reply_markup=KEYS)["message_id"]
    at = {**here, "message_id": number}
    not_its_own = chat.call("editMessageText", **here, message_id=mine, text="x")
    assert not_its_own == refused("message can't be edited")
    gone = {**here, "message_id": 10**9}
    assert chat.call("editMessageText", **gone, text="x") == refused("message to edit not found")
    assert chat.call("deleteMessage", **gone) == refused("message to delete not found")
    same = chat.call("editMessageText", **at, text="one", reply_markup=KEYS)
    assert same[0] == 400
    assert same[1].startswith("Bad Request: message is not modified")
    # Buttons that are not given are removed.
    assert "reply_markup" not in chat.call("editMessageText", **at, text="one")
    no_caption = chat.call("editMessageCaption", **at, caption="x")
    assert no_caption == refused("there is no caption in the message to edit")
    media = '{"type": "photo", "media": "attach://preview", "caption": "half"}'
    edited = chat.call("editMessageMedia", **at, media=media, files={"preview": PHOTO})
    assert (edited["message_id"], edited["caption"]) == (number, "half")
    assert "text" not in edited
    no_text = chat.call("editMessageText", **at, text="x")
    assert no_text == refused("there is no text in the message to edit")
    assert chat.call("editMessageCaption", **at, caption="all")["photo"] == edited["photo"]
    assert chat.call("deleteMessage", **at) is True
    assert chat.call("getFile", file_id=edited["photo"][0]["file_id"])[0] == 400
    start = mine - 1
    shown = [event["message"]["message_id"] for event in Guest(chat, anna.number).news()]
    assert shown == [start, mine]


def test_a_button_is_pressed_and_answered_once(chat: Chat, anna: Guest) -> None:
    sent = chat.call("sendMessage", chat_id=anna.number, text="Who?", reply_markup=KEYS)
    number = sent["message_id"]
    assert anna.press(number, "style:dali").status_code == 400
    assert anna.press(number + 1, "style:monet").status_code == 400
    assert Guest(chat, next(NAMES)).press(number, "style:monet").status_code == 400
    assert anna.press(number, "style:monet").ok
    (update,) = updates(chat)
    query = update["callback_query"]
    assert query["data"] == "style:monet"
    assert query["message"]["message_id"] == number
    assert query["from"]["id"] == anna.number
    assert chat.call("answerCallbackQuery", callback_query_id=query["id"]) is True
    again = chat.call("answerCallbackQuery", callback_query_id=query["id"])
    assert again[0] == 400
    assert again[1].startswith("Bad Request: query is too old")


def test_what_the_page_hears(chat: Chat, anna: Guest) -> None:
    anna.news()
    here = {"chat_id": anna.number}
    files = {"photo": PHOTO}
    sent = chat.call("sendPhoto", **here, caption="done", reply_markup=KEYS, files=files)
    (event,) = anna.news(timeout=5)
    assert event["kind"] == "message"
    message = event["message"]
    assert (message["from"], message["caption"], message["reply_markup"]) == ("bot", "done", KEYS)
    photo = message["photo"]
    assert (photo["width"], photo["height"], photo["size"]) == (600, 400, photo["file_size"])
    assert len(anna.ask("GET", f"file/{photo['file_id']}").content) == photo["size"]
    assert Guest(chat, next(NAMES)).ask("GET", f"file/{photo['file_id']}").status_code == 404
    began = time.monotonic()
    action = {**here, "action": "typing"}
    threading.Timer(0.5, chat.call, ["sendChatAction"], action).start()
    assert [event["kind"] for event in anna.news(timeout=20)] == ["action"]
    assert time.monotonic() - began < 10
    at = {**here, "message_id": sent["message_id"]}
    chat.call("editMessageCaption", **at, caption="new")
    chat.call("sendMessage", **here, text="short-lived")
    changes = [(event["kind"], event["message"].get("caption")) for event in anna.news()]
    assert changes == [("edit", "new"), ("message", None)]
    chat.call("deleteMessage", **at)
    changes = [(event["kind"], event["message"]["message_id"]) for event in anna.news()]
    assert changes == [("delete", sent["message_id"])]
    assert anna.news() == []


def test_commands_by_language(chat: Chat, anna: Guest) -> None:
    english = [{"command": "start", "description": "begin"}]
    russian = [{"command": "start", "description": "начать"}]
    chat.call("setMyCommands", commands=english)
    chat.call("setMyCommands", commands=russian, language_code="ru")
    assert anna.ask("GET", "commands?language_code=ru").json() == russian
    assert anna.ask("GET", "commands?language_code=en").json() == english


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


@pytest.mark.parametrize("data", ["style:monet", "style:monet:1f", "a/../b", "..", "буква %"])
def test_a_button_shows_the_picture_in_the_folder(chat: Chat, anna: Guest, data: str) -> None:
    buttons = [{"text": "It", "callback_data": data}, {"text": "No", "callback_data": "none"}]
    keys = {"inline_keyboard": [buttons]}
    sent = chat.call("sendMessage", chat_id=anna.number, text="Choose", reply_markup=keys)
    assert read_pictures(anna) == [None, None]
    assert anna.ask("GET", "button-picture", params={"data": data}).status_code == 404

    folder = chat.folder / "button-pictures"
    folder.mkdir(exist_ok=True)
    path = picture_path(folder, data)
    assert path.parent == folder
    path.write_bytes(b"one")
    version, nothing = read_pictures(anna)
    assert version
    assert nothing is None
    assert anna.ask("GET", "button-picture", params={"data": data}).content == b"one"
    path.write_bytes(b"another")
    assert read_pictures(anna)[0] not in (None, version)
    path.unlink()
    assert sent["reply_markup"] == keys, "a bot is told what Telegram tells"


def read_pictures(guest: Guest) -> list[str | None]:
    """Return the pictures of the buttons of the newest message, as a page that opens reads them."""
    guest.after = 0
    rows = guest.news()[-1]["message"]["reply_markup"]["inline_keyboard"]
    return [button.get("picture") for row in rows for button in row]
