"""Whole conversations, and what a user sees."""

from __future__ import annotations

import io
import itertools
import json
import time
from typing import Any

import pytest
from PIL import Image

from tests.fakes.names import eventually
from tests.fakes.telegram import Message, User, refusal, times
from tests.fakes.world import QUICK, World, made_of

Json = Any  # whatever JSON can hold
ENGLISH = {
    "photo": "send me the photo",
    "style": "Choose a painter",
    "busy": "still painting",
    "working": "Painting",
    "cancelled": "Cancelled",
    "nothing": "nothing to cancel",
    "stranger": "do not have this painter",
    "not_image": "Secret.png is not an image",
    "wrong": "not a picture",
    "help": "Ask Vincent",
    "command": "do not know this command",
    "own": "your picture's style",
}
RUSSIAN = {
    "photo": "Пришлите фотографию",
    "style": "Выберите художника",
    "busy": "Я ещё рисую",
    "working": "Рисую",
    "cancelled": "Отменено",
    "nothing": "Отменять нечего",
    "stranger": "художника у меня нет",
    "not_image": "Secret.png — не изображение",
    "wrong": "не картинка",
    "help": "Ask Vincent",
    "command": "команды я не знаю",
    "own": "стиль вашей картины",
}


def paint(user: User, painter: str = "Monet", photo: bytes = b"a photo") -> Message:
    """The shortest conversation there is; the painting."""
    user.photo(photo)
    user.press(user.sees("painter"), painter)
    return user.sees(painter, kind="photo")


def ask_for_a_style(user: User) -> None:
    """Ask for a painting of "my garden" in the style of "my style"."""
    user.photo(b"my garden")
    user.sees("Choose a painter")
    user.photo(b"my style")
    user.press(user.sees("as the style: 1.", "Press Paint"), "Paint")


def names_of_objects(world: World) -> set[str]:
    """Return the names of the objects of all jobs."""
    return {key.rpartition("/")[2] for key in world.storage.list_keys("jobs/")}


def is_clean(world: World) -> None:
    eventually(
        lambda: not world.storage.list_keys("jobs/") + world.storage.list_keys("async/"),
        "the job's objects are gone",
    )


@pytest.mark.parametrize(
    ("language", "words"), [("en", ENGLISH), ("ru", RUSSIAN), ("pt-br", ENGLISH)]
)
def test_a_whole_conversation(world: World, language: str, words: dict[str, str]) -> None:
    world.start()
    anna = world.user(language)
    anna.write("/start")
    anna.sees(words["photo"])
    anna.write("Monet")
    anna.sees(words["photo"])
    anna.document(b"text", mime="text/plain")
    anna.sees(words["not_image"], words["photo"])
    anna._message(sticker={"file_id": "x"})
    anna.sees(words["wrong"], words["photo"])
    anna.write("/cancel")
    anna.sees(words["nothing"], words["photo"])
    anna.write("/dance")
    anna.sees(words["command"], words["photo"])
    anna.write("/help")
    anna.sees(words["help"])
    anna.photo(b"my garden")
    anna.sees(words["style"])
    anna.write("Rembrandt")
    anna.sees(words["stranger"], words["style"])
    anna._message(animation={"file_id": "x"}, document={"file_id": "x", "mime_type": "image/gif"})
    anna.sees(words["wrong"], words["style"])
    anna.write("/cancel")
    anna.sees(words["cancelled"], words["photo"])
    anna.photo(b"my garden")
    question = anna.sees(words["style"])
    assert list(question.buttons) == ["Monet", "Van Gogh", "Cezanne", "Ukiyo-e"]
    world.endpoint.seconds = 3
    anna.press(question, "Van Gogh")
    anna.sees(words["working"], "Van Gogh")
    for said in ("/start", "Monet", "hm"):
        anna.write(said)
        anna.sees(words["busy"])
    painting = anna.sees("Van Gogh, 12", kind="photo")
    assert made_of(painting)["content"] == "my garden"
    assert made_of(painting)["style"] == "vangogh"
    is_clean(world)
    eventually(
        lambda: not any(words["working"] in m.text for m in anna.messages()),
        "the status message is gone",
    )


def test_a_picture_of_ones_own_as_the_style(world: World) -> None:
    world.start()
    anna = world.user()
    ask_for_a_style(anna)
    painting = anna.sees("your picture's style, 12 s", kind="photo")
    made = made_of(painting)
    assert (made["endpoint"], made["content"], made["style"]) == ("nst", "my garden", "my style")
    request = world.endpoint.requests[0]
    assert request["strength"] == 0.5
    assert request["preserve_color"] is False
    assert {key for key in request if key.endswith("_url")} == {
        "content_url",
        "control_url",
        "style_url",
        "result_url",
        "film_url",
        "lossless_url",
        "progress_url",
    }
    headers = world.endpoint.calls[0].headers
    assert int(headers["x-amzn-sagemaker-requestttlseconds"]) >= 60
    assert int(headers["x-amzn-sagemaker-invocationtimeoutseconds"]) <= 3600
    assert headers["x-amzn-sagemaker-content-type"] == "application/json"


def test_pictures_sent_one_by_one_are_mixed_by_their_weights(world: World) -> None:
    world.start()
    anna = world.user()
    anna.photo(b"my garden")
    anna.sees("Choose a painter")
    anna.photo(b"waves")
    anna.sees("as the style: 1.", "Press Paint")
    anna.photo(b"swirls", caption="3")
    anna.press(anna.sees("as the style: 2.", "Press Paint"), "Paint")
    painting = anna.sees("the styles of your 2 pictures, weights 1 : 3, 12 s", kind="photo")
    assert made_of(painting)["style"] == "waves, swirls"
    assert world.endpoint.requests[0]["style_weights"] == [1, 3]
    anna.press(painting, "Larger: 1024 px")
    anna.sees("weights 1 : 3, 1024 px", kind="photo")
    assert world.endpoint.requests[1]["size"] == 1024
    anna.press(painting, "Film")
    film = anna.sees("How it was painted: the styles of your 2 pictures", kind="animation")
    assert film.file


def test_a_painter_by_name_in_any_case(world: World) -> None:
    world.start(STYLES=" vintage , monet=Claude")
    anna = world.user()
    anna.photo()
    assert list(anna.sees().buttons) == ["Vintage", "Claude"]
    anna.write("  vintage ")
    assert made_of(anna.sees("Vintage", kind="photo"))["style"] == "vintage"


def test_a_file_comes_back_as_a_file_too(world: World) -> None:
    world.start()
    anna = world.user()
    anna.document(b"BM my garden", mime="image/jpeg")
    anna.press(anna.sees("Choose"), "Monet")
    photo, document = anna.sees(kind="photo"), anna.sees(kind="document")
    assert photo.file == document.file
    assert "Monet" in photo.text


@pytest.mark.parametrize(
    ("answer", "padding"), [({"size": [10000, 300]}, 0), ({"size": [900, 40]}, 0), ({}, 11 * 2**20)]
)
def test_what_is_too_large_for_a_photo_comes_as_a_file(
    world: World, answer: dict[str, object], padding: int
) -> None:
    world.endpoint.answer.update(answer)
    world.endpoint.padding = padding
    world.start()
    anna = world.user()
    anna.photo()
    anna.press(anna.sees(), "Monet")
    document = anna.sees("Monet", kind="document")
    assert "Another style" in document.buttons
    assert not [m for m in anna.messages() if m.kind == "photo"]


def test_notes_of_the_model_are_told(world: World) -> None:
    world.endpoint.answer["notes"] = ["Made smaller because memory was short."]
    world.start()
    assert "Made smaller because memory was short." in paint(world.user()).text


def test_too_large_to_fetch(world: World) -> None:
    world.start()
    anna = world.user()
    anna.document(size=21 * 2**20)
    anna.sees("Secret.png is too large: 21 MB", "at most 20", "send me the photo")
    file = {"file_id": "x", "file_unique_id": "x", "width": 9000, "height": 9000}
    anna._message(photo=[file])
    anna.sees("This picture is too large: 9000x9000", "at most 40")
    anna.document(b"\x89PNG" + b"x" * (21 * 2**20), size=1000)  # larger than announced
    anna.press(anna.sees("Choose"), "Monet")
    failure = anna.sees("did not work out", "Too large", "another photo")
    assert failure.buttons == {}  # nothing else than another photo helps
    is_clean(world)


def test_a_file_that_is_no_picture_is_refused_when_it_arrives(world: World) -> None:
    world.start()
    anna = world.user()
    anna.document(b"just text", mime="image/png")
    anna.sees("Secret.png is not an image", "send me the photo")
    anna.document(b"", mime="image/png")
    anna.sees("Secret.png is empty")
    small = io.BytesIO()
    Image.new("RGB", (8, 8)).save(small, "PNG")
    anna.document(small.getvalue())
    anna.sees("Secret.png is too small: 8x8 pixels")
    anna.photo(b"my garden")
    anna.sees("Choose a painter")
    anna.document(small.getvalue())  # as the style
    anna.sees("Secret.png is too small: 8x8 pixels", "Choose a painter")
    assert b"Secret" not in b"".join(map(world.storage.read, world.storage.list_keys()))


def test_a_file_that_paint_answers_to_is_refused_at_once(world: World) -> None:
    world.start()
    anna = world.user()
    shown = anna.sent(anna.document(b"just text", mime="image/png"))
    anna.sees("Secret.png is not an image")
    anna.write("/paint monet", reply_to_message=shown)
    anna.sees("Secret.png is not an image", "/paint monet")
    assert world.endpoint.calls == []


def test_two_photos_in_an_album_are_content_and_style(world: World) -> None:
    world.start()
    anna = world.user()
    for name, caption in ((b"content", "my garden"), (b"style", ""), (b"third", "2")):
        anna.photo(name, media_group_id="album 1", caption=caption)
    anna.cursor = 0
    made = made_of(anna.sees("the styles of your 2 pictures, weights 1 : 2", kind="photo"))
    assert world.endpoint.requests[0]["style_weights"] == [1.0, 2.0]
    [url, more] = world.endpoint.requests[0]["style_url"]
    assert (url.rpartition("/")[2], more.rpartition("/")[2]) == ("style", "style-2")
    assert (made["content"], made["style"]) == ("content", "style, third")


def test_photos_that_come_meanwhile_wait_in_a_queue_that_tells(world: World) -> None:
    world.endpoint.seconds = 4
    world.start()
    anna = world.user()
    statuses = []
    for name in (b"garden", b"house", b"street"):
        anna.photo(name)
        anna.press(anna.sees("Choose"), "Monet")
        statuses.append(anna.sees(": Monet."))
    assert "Number 2 in the queue" in statuses[1].text
    assert "Number 3 in the queue" in statuses[2].text
    anna.press(statuses[1], "Cancel")
    anna.sees("Cancelled")
    anna.cursor = 0
    eventually(
        lambda: len([m for m in anna.messages() if m.kind == "photo"]) == 2, "two pictures", 40
    )
    pictures = [made_of(m)["content"] for m in anna.messages() if m.kind == "photo"]
    assert pictures == ["garden", "street"]
    is_clean(world)
    assert not [m.text for m in anna.messages() if m.text.startswith(("Painting", "Your photo"))]


def test_cancel_during_a_job(world: World) -> None:
    world.endpoint.mode = "asleep"
    world.start()
    anna = world.user()
    anna.photo()
    anna.press(anna.sees(), "Monet")
    status = anna.sees("Painting")
    eventually(lambda: world.endpoint.calls, "the model is called")
    began = time.monotonic()
    anna.write("/cancel")
    cancelled = anna.sees("Cancelled", "send me another photo")
    assert time.monotonic() - began < 3
    eventually(lambda: names_of_objects(world) == {"control.json", "job.json"}, "pictures are gone")
    eventually(lambda: status.deleted, "the status message is gone")
    world.endpoint.wake()
    is_clean(world)
    anna.sees_nothing(kind="photo")
    anna.press(cancelled, "Try again")
    anna.sees("Monet", kind="photo")


def test_a_result_that_comes_after_cancel_is_thrown_away(world: World) -> None:
    world.endpoint.seconds = 3
    world.start()
    anna = world.user()
    anna.photo()
    anna.press(anna.sees(), "Monet")
    status = anna.sees("Painting")
    eventually(lambda: world.endpoint.requests, "the model works")
    anna.press(status, "Cancel")
    anna.sees("Cancelled")
    painting = paint(anna, "Cezanne")
    assert made_of(painting)["style"] == "cezanne"
    is_clean(world)
    assert len([m for m in anna.messages() if m.kind == "photo"]) == 1


def test_a_cancel_ends_the_models_work(world: World) -> None:
    """The model would work for a minute, and the next painting wait for it."""
    world.endpoint.seconds = 60
    world.endpoint.steps = 600
    world.start()
    anna = world.user()
    anna.photo()
    anna.press(anna.sees(), "Monet")
    status = anna.sees("Painting")
    eventually(lambda: "progress.json" in names_of_objects(world), "the model works")
    anna.press(status, "Cancel")
    anna.sees("Cancelled")
    is_clean(world)
    anna.sees_nothing(kind="photo")


def test_a_picture_can_be_taken_as_it_is(world: World) -> None:
    world.endpoint.seconds = 60
    world.endpoint.steps = 600
    world.start(QUICK)
    anna = world.user()
    ask_for_a_style(anna)
    status = anna.sees("Painting")
    eventually(lambda: "Take it now" in status.buttons, "it can be taken")
    anna.press(status, "Take it now")
    assert made_of(anna.sees("Painted", kind="photo"))["content"] == "my garden"
    is_clean(world)


def test_the_buttons_under_a_result(world: World) -> None:
    world.start()
    anna = world.user()
    ask_for_a_style(anna)
    painting = anna.sees(kind="photo")
    assert set(painting.buttons) == {
        "Another style",
        "Stronger",
        "Softer",
        "Smaller: 640 px",
        "Larger: 1024 px",
        "Keep my colours",
        "As a file",
        "Film",
        "Before and after",
    }
    for words, expected in [("Stronger", {"strength": 0.7}), ("Softer", {"strength": 0.3})]:
        anna.press(painting, words)
        anna.sees(kind="photo")
        assert world.endpoint.requests[-1].items() >= {**expected, "preserve_color": False}.items()
    anna.press(painting, "Keep my colours")
    recoloured = anna.sees(kind="photo")
    assert world.endpoint.requests[-1]["preserve_color"] is True
    anna.press(recoloured, "The style's colours")
    anna.sees(kind="photo")
    assert world.endpoint.requests[-1]["preserve_color"] is False
    anna.press(painting, "As a file")
    document = anna.sees("your picture's style", kind="document")
    assert len(world.endpoint.requests) == 5  # it was kept, not painted anew
    assert made_of(document)["content"] == "my garden"
    anna.press(painting, "Another style")
    anna.press(anna.sees("Choose a painter"), "Cezanne")
    painted = anna.sees("Cezanne", kind="photo")
    assert set(painted.buttons) == {
        "Another style",
        "Softer",
        "Smaller: 640 px",
        "Larger: 1024 px",
        "As a file",
        "Before and after",
    }
    anna.press(painted, "Softer")
    anna.sees(kind="photo")
    assert world.endpoint.requests[-1]["strength"] == 0.8


def test_a_file_comes_at_once_while_another_picture_is_painted(world: World) -> None:
    world.start()
    anna = world.user()
    painting = paint(anna, photo=b"my garden")
    is_clean(world)
    world.endpoint.mode = "asleep"
    anna.press(painting, "Softer")
    anna.sees("Painting")
    anna.press(painting, "As a file")
    assert made_of(anna.sees(kind="document"))["content"] == "my garden"
    assert len(world.endpoint.calls) == 2


def test_buttons_of_a_result_that_is_no_longer_kept(world: World) -> None:
    world.start()
    anna = world.user()
    painting = paint(anna)
    is_clean(world)
    world.storage.client.delete_object(Bucket="stylebot-test", Key=f"chats/{anna.chat}.json")
    anna.press(painting, "Softer")
    anna.sees("no longer have that photo", "send me the photo")
    painting = paint(anna)
    world.telegram.assets.clear()
    anna.press(painting, "Softer")
    anna.sees("no longer have that photo", "another photo")
    paint(anna)


def test_an_old_keyboard_paints_the_photo_above_it(world: World) -> None:
    world.start()
    anna = world.user()
    anna.photo(b"my garden")
    question = anna.sees()
    anna.press(question, "Monet")
    anna.sees("Monet", kind="photo")
    anna.press(question, "Cezanne")
    assert made_of(anna.sees("Cezanne", kind="photo"))["content"] == "my garden"
    anna.photo(b"my house")
    house = anna.sees("Choose")
    anna.write("/cancel")
    anna.sees("Cancelled")
    anna.photo(b"my street")
    street = anna.sees("Choose")
    anna.press(house, "Monet")
    assert made_of(anna.sees("Monet", kind="photo"))["content"] == "my house"
    anna.press(question, "Monet")
    assert made_of(anna.sees("Monet", kind="photo"))["content"] == "my garden"
    anna.press(street, "Monet")
    assert made_of(anna.sees("Monet", kind="photo"))["content"] == "my street"


def test_a_second_press_does_nothing(world: World) -> None:
    world.endpoint.seconds = 3
    world.start()
    anna = world.user()
    anna.photo(b"my garden")
    question = anna.sees("Choose")
    for _ in range(2):
        anna.press(question, "Monet")
    anna.cursor = question.id
    status = anna.sees("Painting")
    eventually(lambda: not world.telegram.unconfirmed(), "both are handled")
    for _ in range(2):
        anna.press(status, "Cancel")
    anna.cursor = question.id
    anna.sees("Cancelled")
    is_clean(world)
    texts = [m.text for m in anna.messages() if m.id > question.id]
    assert len(texts) == 1, texts
    answered = [c for c in world.telegram.calls if c[1] == "answerCallbackQuery"]
    assert len(answered) == 4


def test_waking_progress_and_previews(world: World) -> None:
    world.telegram.media_edits = True
    world.endpoint.mode = "asleep"
    world.start("bot.WAKING_SECONDS = 3")
    anna = world.user()
    anna.photo()
    anna.press(anna.sees(), "Monet")
    status = anna.sees("Painting")
    eventually(lambda: "waking up" in status.text, "the bot says that the model wakes up", 30)
    eventually(
        lambda: [c for c in world.telegram.calls if c[1] == "sendChatAction"], "typing is shown"
    )
    world.endpoint.seconds, world.endpoint.steps = 9, 9
    world.endpoint.wake()
    eventually(
        lambda: "%" in status.text and "s left" in status.text, "there is a progress bar", 30
    )
    eventually(
        lambda: status.kind == "photo" and status.previews[-1].endswith(b"preview"),
        "there is a preview",
    )
    anna.sees("Monet", kind="photo", seconds=30)
    assert len(status.texts) == len(set(status.texts)), "an edit that changed nothing was sent"
    edits = [t for t, method, _ in world.telegram.calls if method.startswith("editMessage")]
    assert all(later - earlier > 2.5 for earlier, later in itertools.pairwise(edits))


def test_progress_without_media_edits_is_text(world: World) -> None:
    world.endpoint.seconds, world.endpoint.steps = 4, 8
    world.start(QUICK)
    anna = world.user()
    anna.photo()
    anna.press(anna.sees(), "Monet")
    status = anna.sees("Painting")
    eventually(lambda: "▓" in status.text, "there is a progress bar", 30)
    anna.sees("Monet", kind="photo")
    eventually(lambda: status.deleted, "the status message is gone")


def test_a_photo_under_a_spoiler_is_painted_under_one(world: World) -> None:
    world.start()
    anna = world.user()
    anna.photo(has_media_spoiler=True)
    anna.press(anna.sees("painter"), "Monet")
    assert anna.sees("Monet", kind="photo").has_spoiler
    assert not paint(anna).has_spoiler


def test_before_and_after_side_by_side(world: World) -> None:
    world.start()
    anna = world.user()
    painting = paint(anna, photo=b"my garden")
    anna.press(painting, "Before and after")
    album = anna.sees("Before and after", kind="album")
    shown = [m.file for m in anna.messages() if m.kind == "album"]
    assert shown == [b"my garden", painting.file]
    assert album.file_id == anna.sent(anna.telegram.pushed[0]["update_id"])["photo"][-1]["file_id"]
    uploads = [m for m in anna.messages() if m.kind == "photo"]
    assert len(uploads) == 1, "no bytes are moved"
    gone = refusal(400, "Bad Request: wrong file identifier/HTTP URL specified")
    world.telegram.faults.append(times(1, "sendMediaGroup", lambda: gone))
    anna.press(painting, "Before and after")
    anna.sees("no longer have that photo")


OTHERS = -100999  # a group that the bot is no member of


def shown_to(user: User, data: bytes = b"a photo") -> Json:
    """Return a photo that somebody else has shown, as a message that replies to it has it."""
    file = {"file_id": user._asset(data), "file_unique_id": "u", "width": 1280, "height": 960}
    return {"message_id": 5, "date": 1, "photo": [file]}


@pytest.mark.parametrize("chat", [OTHERS, 4711])
def test_a_mention_where_the_bot_is_no_member_becomes_the_painting(world: World, chat: int) -> None:
    world.telegram.has_guest_mode = True
    world.endpoint.mode = "asleep"
    world.start(QUICK)
    anna = world.user()
    shown = shown_to(anna, b"a garden")
    answer = anna.mention("@style_bot monet", chat, reply_to_message=shown, message_thread_id=5)
    anna.sees_elsewhere(answer, "Painting your photo: Monet")
    anna.sees("Painting your photo: Monet")
    world.endpoint.wake()
    painting = anna.sees("Monet", kind="photo")
    elsewhere = anna.sees_elsewhere(answer, "Painted: Monet.", kind="photo")
    assert made_of(elsewhere)["content"] == "a garden"
    assert elsewhere.file == painting.file
    assert {m.chat for m in world.telegram.messages.values()} == {anna.number}
    is_clean(world)


def test_what_a_guest_is_told(world: World) -> None:
    world.telegram.has_guest_mode = True
    world.endpoint.mode = "failing"
    world.start()
    anna = world.user("ru")
    answer = anna.mention("@style_bot", OTHERS)
    anna.sees_elsewhere(answer, "Ответьте на фотографию: @style_bot")
    anna = world.user()
    answer = anna.mention("@style_bot Rembrandt", OTHERS, reply_to_message=shown_to(anna))
    anna.sees_elsewhere(answer, "do not have this painter", "Monet, Van Gogh", "@style_bot monet")
    answer = anna.mention("monet @style_bot", OTHERS, reply_to_message=shown_to(anna))
    anna.sees_elsewhere(answer, "did not work out")
    anna.sees("did not work out")
    never_met = refusal(403, "Forbidden: bot can't initiate conversation with a user")
    world.telegram.faults.append(times(1, "sendChatAction", lambda: never_met))
    answer = anna.mention("@style_bot monet", OTHERS, reply_to_message=shown_to(anna))
    anna.sees_elsewhere(answer, "Start a chat with me first")
    anna.sees_nothing()


def test_a_guest_who_cancels_and_one_who_is_answered_too_late(world: World) -> None:
    world.telegram.has_guest_mode = True
    world.endpoint.mode = "asleep"
    world.start()
    anna, boris = world.user(), world.user()
    answer = anna.mention("@style_bot monet", OTHERS, reply_to_message=shown_to(anna))
    anna.press(anna.sees("Painting"), "Cancel")
    anna.sees_elsewhere(answer, "Cancelled")
    late = "Bad Request: query is too old and response timeout expired or query ID is invalid"
    world.telegram.faults.append(times(1, "answerGuestQuery", lambda: refusal(400, late)))
    boris.mention("@style_bot monet", OTHERS, reply_to_message=shown_to(boris))
    boris.sees("Painting")
    world.endpoint.wake()
    boris.sees("Monet", kind="photo")
    is_clean(world)


def test_a_guest_whose_message_takes_no_picture_is_told_where_it_is(world: World) -> None:
    world.telegram.has_guest_mode = True
    world.start()
    anna = world.user()
    refused = "Bad Request: MEDIA_INVALID"
    world.telegram.faults.append(times(9, "editMessageMedia", lambda: refusal(400, refused)))
    answer = anna.mention("@style_bot monet", OTHERS, reply_to_message=shown_to(anna))
    anna.sees("Painted: Monet", kind="photo")
    anna.sees_elsewhere(answer, "The painting is in our chat.")
    is_clean(world)


def test_without_guest_mode_mentions_elsewhere_are_not_asked_for(world: World) -> None:
    world.start()
    polls = world.telegram._update_queues._state("42:secret-of-the-tests")
    eventually(lambda: polls.allowed == ["message", "callback_query"], "it asks for these")


def test_settings_hold_for_every_new_picture(world: World) -> None:
    world.start()
    anna = world.user()
    anna.write("/settings")
    settings = anna.sees("every new picture")
    for label in ("640 px", "As a file", "Russian"):
        anna.press(settings, label)
    eventually(lambda: "✓ Русский" in settings.buttons, "the message shows what is chosen")
    assert {"✓ 640 точек", "✓ Файлом"} < set(settings.buttons)
    anna.photo()
    anna.press(anna.sees("Выберите художника"), "Monet")
    anna.sees("Готово", kind="document")
    assert world.endpoint.requests[-1]["size"] == 640


def test_in_a_group(world: World) -> None:
    world.start()
    anna = world.user(group=-100500)
    anna.write("/start@other_bot")
    anna.sees_nothing()
    anna.write("/start@Style_Bot")
    anna.sees("Hello", "Reply to a photo with /paint")
    shown = anna.sent(anna.photo(b"ours"))
    anna.write("lovely!")
    anna.sees_nothing()
    anna.write("/paint MONET", reply_to_message=shown)
    painting = anna.sees("Monet", kind="photo")
    assert made_of(painting)["content"] == "ours"
    assert painting.reply_to == shown["message_id"]
    anna.write("lovely!", reply_to_message=anna.said_by_bot(painting))
    anna.sees_nothing()


def test_pictures_that_answer_in_a_group_are_the_styles(world: World) -> None:
    world.start()
    anna = world.user(group=-100500)
    shown = anna.sent(anna.photo(b"ours"))
    anna.write("/paint", reply_to_message=shown)
    question = anna.sees("answer this message with one or more pictures")
    anna.photo(b"waves", reply_to_message=anna.said_by_bot(question))
    answer = anna.sees("as the style: 1.", "answer this message with another picture")
    anna.photo(b"swirls", caption="2", reply_to_message=anna.said_by_bot(answer))
    anna.press(anna.sees("as the style: 2."), "Paint")
    painting = anna.sees("weights 1 : 2", kind="photo")
    assert made_of(painting)["style"] == "waves, swirls"
    assert painting.reply_to == shown["message_id"]


def test_members_of_a_group_do_not_disturb_each_other(world: World) -> None:
    world.endpoint.mode = "asleep"
    world.start()
    anna, boris = world.user(group=-100500), world.user(group=-100500)
    for user, file in ((anna, b"by anna"), (boris, b"by boris")):
        user.write("/paint", reply_to_message=user.sent(user.photo(file)))
        question = user.sees("Choose a painter")
        user.write("Monet", reply_to_message=user.said_by_bot(question))
        user.sees("Painting your photo: Monet")
    statuses = [m for m in boris.messages() if m.text.startswith("Painting")]
    boris.press(statuses[0], "Cancel")  # of anna's
    eventually(
        lambda: any("belong to somebody else" in f.get("text", "") for _, _, f in calls_of(world)),
        "boris is told that it is not his",
    )
    boris.press(statuses[1], "Cancel")
    boris.sees("Cancelled")
    world.endpoint.wake()
    assert made_of(anna.sees("Monet", kind="photo"))["content"] == "by anna"
    is_clean(world)
    assert len([m for m in anna.messages() if m.kind == "photo"]) == 1


def calls_of(world: World) -> list[tuple[float, str, dict[str, Any]]]:
    return [call for call in world.telegram.calls if call[1] == "answerCallbackQuery"]


def test_a_group_where_the_bot_may_not_send_pictures(world: World) -> None:
    world.start()
    anna = world.user(group=-100500)
    refused = lambda: refusal(400, "Bad Request: not enough rights to send photos to the chat")  # noqa: E731
    for method in ("sendPhoto", "sendDocument"):
        world.telegram.faults.append(times(10**6, method, refused))
    anna.write("/paint monet", reply_to_message=anna.sent(anna.photo()))
    anna.sees("may not send pictures here")
    is_clean(world)


def test_a_bot_that_is_removed_from_a_group_gives_up(world: World) -> None:
    world.endpoint.mode = "asleep"
    world.start(QUICK)
    anna = world.user(group=-100500)
    anna.write("/paint monet", reply_to_message=anna.sent(anna.photo()))
    anna.sees("Painting")
    eventually(lambda: world.endpoint.calls, "the model is called")
    kicked = lambda: refusal(403, "Forbidden: bot was kicked from the supergroup chat")  # noqa: E731
    for method in ("sendMessage", "editMessageText", "sendPhoto"):
        world.telegram.faults.append(times(10**6, method, kicked))
    eventually(lambda: "control.json" in "".join(world.storage.list_keys("jobs/")), "it stops", 40)
    before = len(world.telegram.calls)
    time.sleep(3)
    assert len(world.telegram.calls) - before < 3


def test_topics_are_echoed(world: World) -> None:
    world.telegram.threads = True
    world.start()
    anna = world.user()
    anna.extra = {"message_thread_id": 77, "is_topic_message": True}
    painting = paint(anna)
    assert {m.thread for m in anna.messages()} == {77}
    assert painting.thread == 77


def test_a_topic_that_is_gone_is_answered_in_the_chat(world: World) -> None:
    world.start()  # the emulator refuses message_thread_id
    anna = world.user()
    anna.extra = {"message_thread_id": 77, "is_topic_message": True}
    assert paint(anna).thread is None


def test_commands_are_registered_in_both_languages(world: World) -> None:
    world.start()
    eventually(
        lambda: len([c for c in world.telegram.calls if c[1] == "setMyCommands"]) == 2,
        "commands are registered",
    )
    calls = [fields for _, method, fields in world.telegram.calls if method == "setMyCommands"]
    assert [fields.get("language_code") for fields in calls] == [None, "ru"]
    assert [[c["command"] for c in fields["commands"]] for fields in calls] == [
        ["start", "paint", "settings", "cancel", "help"]
    ] * 2
    polls = world.telegram._update_queues._state("42:secret-of-the-tests")
    eventually(
        lambda: polls.allowed == ["message", "callback_query"], "edited messages are not asked for"
    )


def test_allowed_users_and_admins(world: World) -> None:
    anna, boris, clara = world.user(), world.user(), world.user("ru")
    world.start(ALLOWED_USERS=f"{anna.number}", ADMINS=f"{boris.number}")
    boris.write("/stats")
    boris.sees("updates=")
    anna.write("/stats")
    anna.sees("do not know this command")
    clara.write("/start")
    clara.sees("закрыт", str(clara.number), "Ask Vincent")
    clara.photo()
    clara.sees("закрыт")
    paint(anna)


def test_daily_limit(world: World) -> None:
    world.start(DAILY_LIMIT="2")
    anna, boris = world.user(), world.user()
    paint(anna)
    world.endpoint.mode = "failing"
    world.endpoint.error = ""
    anna.photo()
    anna.press(anna.sees("Choose"), "Monet")
    failure = anna.sees("did not work out")
    world.endpoint.mode = "ok"
    anna.press(failure, "Try again")  # what failed is not counted
    painting = anna.sees("Monet", kind="photo")
    anna.press(painting, "Softer")
    anna.sees("Only 2 a day")
    paint(boris)


def test_state_that_cannot_be_read_is_no_dead_end(world: World) -> None:
    world.start()
    anna = world.user()
    world.storage.client.put_object(
        Bucket="stylebot-test", Key=f"chats/{anna.chat}.json", Body=b"{half"
    )
    paint(anna)


def test_chats_hold_no_text_and_no_url(world: World) -> None:
    world.start()
    anna = world.user()
    anna.write("my private words")
    anna.sees("send me")
    paint(anna)
    is_clean(world)
    kept = b"".join(world.storage.read(key) for key in world.storage.list_keys())
    assert b"private words" not in kept
    assert b"http" not in kept
    members = {
        "version",
        "content",
        "jobs",
        "photos",
        "history",
        "seen",
        "reply",
        "lesson",
    }
    members |= {"lesson", "put_aside", "left_out", "about", "pressed", "settings"}
    members |= {"album", "styles_job"}
    [chat] = [key for key in world.storage.list_keys() if not key.startswith("chats/results/")]
    assert set(json.loads(world.storage.read(chat))) == members
