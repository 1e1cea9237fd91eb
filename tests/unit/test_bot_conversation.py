"""The conversation as pure functions: what each event does to a chat in each state."""

from __future__ import annotations

import io
import json
import string
from dataclasses import replace as replace_setting

import msgspec
import pillow_heif
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from PIL import Image

import bot
from bot import (
    Button,
    Chat,
    Command,
    Config,
    ImageRef,
    Incoming,
    Paint,
    Painting,
    PaintRequest,
    Rejected,
    Teach,
    Words,
)
from tests.fakes.memory_s3 import MemoryS3

Json = bot.Json
PHOTO = ImageRef("photo", is_document=False)
OTHER = ImageRef("other", is_document=True)
GARDEN = ImageRef("garden", is_document=True)
NIGHT = ImageRef("night", is_document=True)
BY_MONET = PaintRequest(PHOTO, "monet", 1.0)
BY_VANGOGH = PaintRequest(PHOTO, "vangogh", 1.0)
BY_PICTURE = PaintRequest(PHOTO, OTHER, 0.5)
BY_STYLES = replace(BY_PICTURE, more_styles=(NIGHT,))
HISTORY = (Painting("7", BY_MONET), Painting("8", BY_PICTURE))

CONFIG = Config(
    token="42:token",
    bucket="bucket",
    endpoints={"nst": "nst", "cyclegan": "cyclegan"},
    styles={},
    allowed_users=frozenset(),
    admins=frozenset({1}),
    daily_limit=0,
    telegram_api="https://api.telegram.org",
    support="Ask Vincent.",
)
ME = bot.BotUser(7, "Style_Bot")
STYLES = bot.Styles({"monet": "Monet", "vangogh": "Van Gogh"})

IDLE = Chat()
WITH_PHOTO = Chat(content=PHOTO, photos=(PHOTO,))
OPEN = Chat(jobs=(Painting("9", BY_PICTURE),), photos=(PHOTO,), styles_job="9")
JOBS = (Painting("9", BY_VANGOGH),)
BUSY = Chat(jobs=JOBS)
FULL = Chat(
    jobs=tuple(
        Painting(str(number), PaintRequest(OTHER, "monet", number / 10)) for number in range(1, 6)
    )
)
AFTERWARDS = Chat(history=HISTORY)
BUSY_AGAIN = Chat(jobs=JOBS, history=HISTORY)


def under(photo: ImageRef, style: str) -> Button:
    """Return the painter's button under the question about a photograph."""
    return Button("style", f"{style}:{photo.tag}")


def decide(chat: Chat, event: bot.Event, user: int = 5, config: Config = CONFIG) -> bot.Decision:
    return bot.transition(chat, Incoming(user, None, "en", event), config, STYLES)


# ---------------------------------------------------------------- events that only get an answer


@pytest.mark.parametrize(
    ("chat", "event", "reply"),
    [
        (IDLE, Command("start"), ["hello", "ask_content"]),
        (IDLE, Command("help"), ["help"]),
        (IDLE, Command("cancel"), ["nothing_to_cancel", "ask_content"]),
        (IDLE, Command("dance"), ["unknown_command", "ask_content"]),
        (IDLE, Command("stats"), ["unknown_command", "ask_content"]),
        (IDLE, Teach("klimt", PHOTO), ["unknown_command", "ask_content"]),
        (IDLE, Words("Monet"), ["ask_content"]),
        (IDLE, Rejected("not_an_image"), ["not_an_image", "ask_content"]),
        (IDLE, Rejected("too_many_bytes"), ["too_many_bytes", "ask_content"]),
        (IDLE, under(PHOTO, "monet"), ["expired", "ask_content"]),
        (WITH_PHOTO, under(OTHER, "monet"), ["expired", "ask_style"]),
        (WITH_PHOTO, Button("style", "monet"), ["expired", "ask_style"]),  # of an old version
        (IDLE, Button("softer", "7"), ["expired", "ask_content"]),
        (IDLE, Button("cancel", "9"), ["has_ended", "ask_content"]),
        (IDLE, Button("", ""), ["expired", "ask_content"]),
        (IDLE, Button("paint", "9"), ["has_ended", "ask_content"]),
        (BUSY_AGAIN, Button("paint", "8"), ["has_ended", "busy"]),
        (OPEN, OTHER, ["got_styles", "ask_more_styles"]),  # the same picture again
        (replace(FULL, content=PHOTO), NIGHT, ["queue_is_full"]),
        (WITH_PHOTO, Command("dance"), ["unknown_command", "ask_style"]),
        (WITH_PHOTO, Words("Rembrandt"), ["unknown_style", "ask_style"]),
        (WITH_PHOTO, Rejected("not_a_picture"), ["not_a_picture", "ask_style"]),
        (WITH_PHOTO, under(PHOTO, "rembrandt"), ["unknown_style", "ask_style"]),
        (WITH_PHOTO, Button("softer", "7"), ["expired", "ask_style"]),
        (BUSY, Command("start"), ["hello", "busy"]),
        (BUSY, Command("help"), ["help"]),
        (BUSY, Command("dance"), ["unknown_command", "busy"]),
        (BUSY, Words("Monet"), ["busy"]),
        (BUSY, Rejected("not_an_image"), ["not_an_image", "busy"]),
        (BUSY, under(PHOTO, "vangogh"), ["painting_already"]),
        (BUSY, Button("cancel", "8"), ["has_ended", "busy"]),
        (BUSY, Button("take", "8"), ["has_ended", "busy"]),
        (FULL, PHOTO, ["queue_is_full"]),
        (FULL, under(OTHER, "vangogh"), ["queue_is_full"]),
        (FULL, Words("Monet"), ["busy"]),
        (replace(FULL, content=OTHER), Words("Monet"), ["queue_is_full"]),
        (replace(FULL, history=HISTORY), Button("softer", "7"), ["queue_is_full"]),
        (AFTERWARDS, Button("softer", "6"), ["expired", "ask_content"]),
        (AFTERWARDS, Button("cancel", "7"), ["has_ended", "ask_content"]),
        (AFTERWARDS, Button("take", "7"), ["has_ended", "ask_content"]),
    ],
)
def test_an_event_that_only_gets_an_answer(chat: Chat, event: bot.Event, reply: list[str]) -> None:
    decision = decide(chat, event)
    assert list(decision.reply) == reply
    assert decision.request is None
    assert decision.chat == chat


# ---------------------------------------------------------------- events that change the chat


def test_a_photo_is_kept_until_a_style_comes() -> None:
    decision = decide(IDLE, PHOTO)
    assert decision == bot.Decision(WITH_PHOTO, ("got_content", "ask_style"))


def test_start_forgets_the_photo() -> None:
    assert decide(WITH_PHOTO, Command("start")).chat.content is None


def test_cancel_forgets_which_photo_waits() -> None:
    decision = decide(WITH_PHOTO, Command("cancel"))
    assert decision == bot.Decision(Chat(photos=(PHOTO,)), ("cancelled", "ask_content"))


@pytest.mark.parametrize("event", [Command("cancel"), Button("cancel", "9")])
def test_cancel_keeps_photo_and_style_so_that_one_press_tries_again(event: bot.Event) -> None:
    decision = decide(BUSY_AGAIN, event)
    assert decision.reply == ("cancelled", "after_cancel")
    assert decision.about == "9"
    assert decision.chat == Chat(history=(*HISTORY, *JOBS))
    assert decide(decision.chat, Button("retry", "9")).request == BY_VANGOGH
    assert decide(decision.chat, Button("another", "9")).chat.content == PHOTO


@pytest.mark.parametrize(
    "chat",
    [
        AFTERWARDS,
        replace(AFTERWARDS, content=OTHER, photos=(OTHER,)),
    ],
)
def test_another_style_takes_the_old_photo_again(chat: Chat) -> None:
    decision = decide(chat, Button("another", "7"))
    asked = replace(chat, content=PHOTO, photos=(*chat.photos, PHOTO))
    assert decision == bot.Decision(asked, ("ask_style",))


def test_a_keyboard_belongs_to_the_photo_above_it() -> None:
    chat = decide(IDLE, PHOTO).chat
    chat = decide(chat, Command("cancel")).chat
    chat = decide(chat, OTHER).chat
    below_first = decide(chat, under(PHOTO, "monet"))
    assert below_first.request == BY_MONET
    assert below_first.chat == chat  # the other one still waits
    below_second = decide(chat, under(OTHER, "monet"))
    assert below_second.request == PaintRequest(OTHER, "monet", 1.0)
    assert below_second.chat.content is None


def test_a_photo_that_comes_while_one_is_painted_is_asked_for_its_style() -> None:
    asked = decide(BUSY, OTHER)
    assert asked.reply == ("got_content", "ask_style")
    assert asked.chat.jobs == JOBS
    second = decide(asked.chat, Words("Monet"))
    assert second.request == PaintRequest(OTHER, "monet", 1.0)
    assert second.chat.jobs == JOBS
    assert decide(BUSY_AGAIN, Button("softer", "7")).request == replace(BY_MONET, strength=0.8)


def test_the_pictures_of_an_album_are_styles_of_one_painting() -> None:
    def send(chat: Chat, picture: ImageRef) -> bot.Decision:
        return bot.transition(chat, Incoming(5, None, "en", picture, album="7"), CONFIG, STYLES)

    styles = [ImageRef(str(number), is_document=False) for number in range(9)]
    begun = send(WITH_PHOTO, styles[0])
    assert begun.request == PaintRequest(PHOTO, styles[0], 0.5)
    chat = replace(begun.chat, jobs=(Painting("9", begun.request),), album="7", styles_job="9")
    for count in range(2, 9):
        decision = send(chat, styles[count - 1])
        assert decision.change
        assert decision.change.request.style_pictures == tuple(styles[:count])
        assert decision.reply == ()
        chat = decision.chat
        assert chat.jobs == (decision.change,)
    assert send(chat, styles[0]) == bot.Decision(chat)  # the same update again
    assert send(chat, styles[8]) == bot.Decision(chat, ("too_many_styles",))
    words = "the styles of your 8 pictures"
    assert bot.describe_request(chat.jobs[0].request, STYLES, "en") == words
    cancelled = decide(chat, Command("cancel")).chat
    assert send(cancelled, styles[8]).reply == ("style_too_late", "ask_content")


@pytest.mark.parametrize(
    ("caption", "weight"),
    [
        *(("", 1.0), ("2", 2.0), (" 0.5 ", 0.5), ("2,5", 2.5), ("0", 0.1), ("99", 10.0)),
        *(("a photo of 2 cats", 1.0), ("-1", 1.0), ("1e9", 1.0), ("nan", 1.0), ("٣", 1.0)),
    ],
)
def test_the_number_under_a_picture_is_its_weight_as_a_style(caption: str, weight: float) -> None:
    said = message(photo=[{"file_id": "style"}], caption=caption)
    raw = bot.decode(json.dumps({"update_id": 1, "message": said}).encode(), bot.TelegramUpdate)
    incoming = bot.read_update(raw, ME)
    assert incoming
    assert incoming.event == ImageRef("style", is_document=False, weight=weight)
    kept = bot.without_words(raw, STYLES, ME)
    assert bot.read_update(kept, ME) == incoming
    assert b"cats" not in msgspec.json.encode(kept)


def test_a_caption_tells_the_weights_of_the_styles_where_they_differ() -> None:
    styles = [ImageRef(name, is_document=False, weight=2.0) for name in "ab"]
    request = PaintRequest(PHOTO, styles[0], 0.5, more_styles=(styles[1],))
    assert bot.describe_request(request, STYLES, "en") == "the styles of your 2 pictures"
    request = replace(request, more_styles=(replace(styles[1], weight=0.5),))
    words = "the styles of your 2 pictures, weights 2 : 0.5"
    assert bot.describe_request(request, STYLES, "en") == words


def test_pictures_that_come_one_by_one_are_styles_of_one_painting() -> None:
    styles = [ImageRef(str(number), is_document=False) for number in range(8)]
    begun = decide(WITH_PHOTO, styles[0])
    assert begun.request == PaintRequest(PHOTO, styles[0], 0.5)
    assert begun.reply == ("got_styles", "ask_more_styles")
    chat = replace(begun.chat, jobs=(Painting("9", begun.request),), styles_job="9")
    for count in range(2, 9):
        decision = decide(chat, styles[count - 1])
        assert decision.change
        assert decision.change.request.style_pictures == tuple(styles[:count])
        assert decision.reply == ("got_styles", "ask_more_styles")
        chat = decision.chat
        assert chat.count_styles() == count
    assert decide(chat, OTHER) == bot.Decision(chat, ("too_many_styles",))


def test_an_album_is_painted_with_the_style_that_came_before_it() -> None:
    incoming = Incoming(5, None, "en", NIGHT, album="7")
    decision = bot.transition(OPEN, incoming, CONFIG, STYLES)
    assert decision.change == Painting("9", BY_STYLES)
    assert decision.chat.album == "7"
    assert decision.reply == ()


@pytest.mark.parametrize("event", [Button("paint", "9"), Paint("", None)])
def test_who_presses_paint_waits_for_no_more_styles(event: bot.Event) -> None:
    assert decide(OPEN, event) == bot.Decision(OPEN, begin_job="9")


@pytest.mark.parametrize("ended", ["cancel", "another photo"])
def test_a_picture_is_no_style_of_what_has_ended_or_of_another_photo(ended: str) -> None:
    chat = decide(OPEN, Command("cancel")).chat
    if ended == "another photo":
        chat = OPEN.with_content(GARDEN)
    decision = decide(chat, NIGHT)
    assert decision.change is None
    if ended == "another photo":
        assert decision.request == PaintRequest(GARDEN, NIGHT, 0.5)
        return
    assert decision.chat.content == NIGHT


def test_each_job_is_cancelled_by_itself() -> None:
    more = Painting("10", BY_MONET)
    decision = decide(Chat(jobs=(*JOBS, more)), Button("cancel", "9"))
    assert decision == bot.Decision(
        Chat(jobs=(more,), history=JOBS), ("cancelled", "after_cancel"), about="9"
    )
    everything = decide(Chat(jobs=(*JOBS, more)), Command("cancel"))
    assert everything.chat == Chat(history=(*JOBS, more))


@pytest.mark.parametrize("words", ["hi", "Hello!", "Привет", "privet :)", "start"])
def test_a_greeting_is_answered_with_help(words: str) -> None:
    assert decide(IDLE, Words(words.replace(":", ""))).reply == ("hello", "help")
    assert decide(WITH_PHOTO, Words("hi")).chat == WITH_PHOTO


@pytest.mark.parametrize(
    ("request_", "words", "name"),
    [
        (BY_MONET, "Monet", "photo-monet"),
        (BY_PICTURE, "your picture's style", "photo-style"),
        (
            replace(BY_PICTURE, more_styles=(replace(NIGHT, weight=2),)),
            "the styles of your 2 pictures, weights 1 : 2",
            "photo-styles",
        ),
        (
            replace(BY_PICTURE, strength=0.7, preserve_color=True, size=640),
            "your picture's style, strength 0.7, own colours, 640 px",
            "photo-style-0.7-own-colours-640",
        ),
        (
            PaintRequest(GARDEN, NIGHT, 0.5, result="result.png"),
            "your picture's style",
            "My-garden-1-final-Звёздная-ночь",
        ),
    ],
)
def test_captions_and_files_tell_variants_apart(
    request_: PaintRequest, words: str, name: str
) -> None:
    assert bot.describe_request(request_, STYLES, "en") == words
    names = {
        GARDEN.tag: bot.file_stem("My garden (1).final.JPG"),
        NIGHT.tag: bot.file_stem("Звёздная ночь.png"),
    }
    assert bot.result_name(request_, names) == name


def test_the_name_of_a_file_is_no_path() -> None:
    assert bot.file_stem("../../etc/passwd") == "etc-passwd"
    assert bot.file_stem(".hidden") == "hidden"
    assert bot.file_stem("a" * 90 + ".png") == "a" * 40
    assert bot.file_stem("") == ""


def test_a_painter_that_is_gone_is_asked_for_anew_below_its_photo() -> None:
    decision = decide(AFTERWARDS, under(PHOTO, "rembrandt"))
    assert decision.reply == ("unknown_style", "ask_style")
    assert decision.chat.content == PHOTO


def test_only_the_last_photos_are_known() -> None:
    chat = IDLE
    for number in range(15):
        chat = chat.with_content(ImageRef(f"photo {number % 12}", is_document=False))
    assert len(chat.photos) == bot.PHOTOS_KNOWN == len(set(chat.photos))
    assert chat.photos[-1] == chat.content == ImageRef("photo 2", is_document=False)


@pytest.mark.parametrize("chat", [IDLE, WITH_PHOTO, BUSY_AGAIN, AFTERWARDS])
@pytest.mark.parametrize(
    "button", [under(PHOTO, "monet"), Button("cancel", "9"), Button("retry", "7")]
)
def test_a_second_press_of_a_button_does_nothing(chat: Chat, button: Button) -> None:
    pressed = replace(chat, pressed=button.data)
    assert decide(pressed, button) == bot.Decision(pressed)


def test_the_running_job_can_be_taken_as_it_is() -> None:
    decision = decide(BUSY_AGAIN, Button("take", "9"))
    assert decision == bot.Decision(BUSY_AGAIN, take_job="9")


def test_only_a_picture_that_takes_long_and_has_begun_can_be_taken() -> None:
    job = bot.PaintJob("7", 5, 5, None, "en", BY_PICTURE, "yours")
    begun = bot.Progress(steps=60, step=1)
    assert bot.status_buttons(job, begun) == ["take", "cancel"]
    assert bot.status_buttons(job, bot.Progress()) == ["cancel"]
    job.is_taken = True
    assert bot.status_buttons(job, begun) == ["cancel"]
    by_painter = bot.PaintJob("7", 5, 5, None, "en", BY_MONET, "Monet")
    assert bot.status_buttons(by_painter, begun) == ["cancel"]


# ---------------------------------------------------------------- events that ask for a painting


@pytest.mark.parametrize(
    ("chat", "event", "request_"),
    [
        (WITH_PHOTO, under(PHOTO, "monet"), BY_MONET),
        (WITH_PHOTO, Words("monet"), BY_MONET),
        (WITH_PHOTO, Words("MONET"), BY_MONET),
        (WITH_PHOTO, Words("van gogh"), BY_VANGOGH),
        (OPEN, under(PHOTO, "monet"), BY_MONET),
        (AFTERWARDS, Button("larger", "1024:8"), replace(BY_PICTURE, size=1024)),
        (AFTERWARDS, Button("smaller", "640:7"), replace(BY_MONET, size=640)),
        (AFTERWARDS, under(PHOTO, "vangogh"), BY_VANGOGH),
        (AFTERWARDS, Button("retry", "7"), BY_MONET),
        (AFTERWARDS, Button("softer", "7"), replace(BY_MONET, strength=0.8)),
        (AFTERWARDS, Button("stronger", "8"), replace(BY_PICTURE, strength=0.7)),
        (AFTERWARDS, Button("softer", "8"), replace(BY_PICTURE, strength=0.3)),
        (AFTERWARDS, Button("colours", "8"), replace(BY_PICTURE, preserve_color=True)),
        (AFTERWARDS, Button("theirs", "8"), BY_PICTURE),
        (AFTERWARDS, Button("file", "8"), replace(BY_PICTURE, result="result.png")),
    ],
)
def test_an_event_that_asks_for_a_painting(
    chat: Chat, event: bot.Event, request_: PaintRequest
) -> None:
    decision = decide(chat, event)
    assert decision.request == request_
    assert decision.reply == ()
    assert decision.chat == replace(chat, content=None)


@pytest.mark.parametrize("verb", ["stronger", "softer"])
def test_strength_stays_between_a_tenth_and_one(verb: str) -> None:
    request = BY_PICTURE
    strengths = []
    for _ in range(8):
        request = bot.change_request(request, verb)
        strengths.append(request.strength)
    assert strengths[-1] == (1.0 if verb == "stronger" else 0.1)
    assert all(0.1 <= strength <= 1.0 for strength in strengths)


@pytest.mark.parametrize(
    ("content", "result", "has_album"),
    [(PHOTO, "result.jpg", True), (PHOTO, "result.png", False), (OTHER, "result.jpg", False)],
)
def test_photo_and_painting_are_an_album_where_both_are_photos(
    content: ImageRef, result: str, has_album: bool
) -> None:
    rows = bot.result_buttons(PaintRequest(content, "monet", 1.0, result=result), 800)
    assert ([f"album:{content.tag}"] in rows) == has_album


@pytest.mark.parametrize(
    ("request_", "side", "verbs"),
    [
        (BY_PICTURE, 512, ["larger:640"]),
        (BY_PICTURE, 640, ["larger:1024"]),
        (BY_PICTURE, 800, ["smaller:640", "larger:1024"]),
        (BY_PICTURE, 1600, ["smaller:1024"]),
        (BY_PICTURE, 0, []),  # the model did not tell
        (replace(BY_MONET, size=1024), 900, ["smaller:640"]),  # the photo is not larger
    ],
)
def test_a_result_can_be_had_in_the_next_sizes(
    request_: PaintRequest, side: int, verbs: list[str]
) -> None:
    assert bot.size_buttons(request_, side) == verbs


@pytest.mark.parametrize("argument", ["", ":", "640", "640:6", "7:640", "641:7", "-1:7", "²:7"])
def test_a_size_that_is_not_offered_paints_nothing(argument: str) -> None:
    decision = decide(AFTERWARDS, Button("larger", argument))
    assert decision == bot.Decision(AFTERWARDS, ("expired", "ask_content"))


# ---------------------------------------------------------------- /settings


FOR_FILES = bot.Settings("ru", 1024, 0.3, preserve_color=True, as_file=True)


@pytest.mark.parametrize("chat", [IDLE, WITH_PHOTO, BUSY])
def test_settings_are_changed_by_buttons_at_any_time(chat: Chat) -> None:
    assert decide(chat, Command("settings")) == bot.Decision(chat, ("settings",))
    changed = chat
    for choice in ("language:2", "size:2", "strength:1", "preserve_color:1", "as_file:1"):
        decision = decide(changed, Button("set", choice))
        assert decision.reply == ("settings",)
        changed = decision.chat
    assert changed == replace(chat, settings=FOR_FILES)
    assert bot.decode(msgspec.json.encode(changed), Chat) == changed


@pytest.mark.parametrize("argument", ["", "size", "size:", "size:9", "size:-1", "mood:1", "size:²"])
def test_a_setting_that_there_is_not_changes_nothing(argument: str) -> None:
    assert decide(IDLE, Button("set", argument)) == bot.Decision(IDLE, ("settings",))


def test_every_new_picture_is_painted_as_the_settings_say() -> None:
    chat = Chat(content=PHOTO, settings=FOR_FILES)
    by_picture = decide(chat, OTHER).request
    assert by_picture == PaintRequest(
        PHOTO, OTHER, 0.3, preserve_color=True, result="result.png", size=1024
    )
    by_painter = decide(chat, Words("monet")).request
    assert by_painter == PaintRequest(PHOTO, "monet", 0.3, result="result.png", size=1024)


def test_start_and_cancel_keep_the_settings() -> None:
    chat = replace(WITH_PHOTO, settings=FOR_FILES)
    for command in ("start", "cancel"):
        assert decide(chat, Command(command)).chat.settings == FOR_FILES


@pytest.mark.parametrize("language", ["en", "ru"])
def test_what_is_chosen_has_a_mark(language: str) -> None:
    rows = bot.settings_keyboard(FOR_FILES, language, "@7000000000")["inline_keyboard"]
    marked = [button["callback_data"] for row in rows for button in row if "✓" in button["text"]]
    chosen = ["language:2", "size:2", "strength:1", "preserve_color:1", "as_file:1"]
    assert marked == [f"set:{choice}@7000000000" for choice in chosen]


# ---------------------------------------------------------------- who may paint


@pytest.mark.parametrize("event", [Command("start"), Words("hm"), PHOTO, Button("style", "monet")])
def test_a_stranger_is_told_that_the_bot_is_private(event: bot.Event) -> None:
    config = replace_setting(CONFIG, allowed_users=frozenset({6}))
    assert decide(WITH_PHOTO, event, user=5, config=config) == bot.Decision(
        WITH_PHOTO, ("private",)
    )
    assert decide(IDLE, Command("start"), user=6, config=config).reply[0] == "hello"
    assert decide(IDLE, Command("start"), user=1, config=config).reply[0] == "hello"


def test_only_admins_see_the_figures() -> None:
    assert decide(IDLE, Command("stats"), user=1).reply == ("stats",)
    assert decide(IDLE, Command("stats"), user=5).reply[0] == "unknown_command"


# ---------------------------------------------------------------- any event in any state

images = st.builds(ImageRef, st.text(max_size=5), st.booleans())
styles = st.one_of(st.sampled_from(["monet", "vangogh", "gone"]), images)
requests_ = st.builds(
    PaintRequest,
    images,
    styles,
    st.sampled_from([0.1, 0.3, 0.5, 1.0]),
    st.booleans(),
    st.sampled_from(["result.jpg", "result.png"]),
)
ids = st.sampled_from(["6", "7", "8", "9"])
chats = st.builds(
    Chat,
    content=st.none() | images,
    styles_job=ids,
    jobs=st.lists(st.builds(Painting, ids, requests_), max_size=3).map(tuple),
    photos=st.lists(images, max_size=3).map(tuple),
    history=st.lists(st.builds(Painting, ids, requests_), max_size=10).map(tuple),
    seen=st.lists(st.integers(0, 2**31), max_size=5).map(tuple),
    reply=st.lists(st.sampled_from(sorted(bot.TEXTS)), max_size=2).map(tuple),
)
CHANGES = ["stronger", "softer", "file", "colours", "theirs", "smaller", "larger"]
ARGUMENTS = ["monet", "gone", "", f"monet:{PHOTO.tag}", PHOTO.tag, "640:7"]
verbs = st.sampled_from(
    ["style", "paint", "set", "album", "cancel", "take", "retry", "another", *CHANGES]
)
events = st.one_of(
    st.builds(Command, st.sampled_from(["start", "settings", "cancel", "help", "stats", "", "x"])),
    st.builds(Words, st.sampled_from(["Monet", "van gogh", "x", "\N{SNOWMAN}"])),
    images,
    st.builds(Rejected, st.sampled_from(["not_a_picture", "not_an_image", "too_many_pixels"])),
    st.builds(Button, verbs, st.one_of(ids, st.sampled_from(ARGUMENTS))),
)


@given(chats, events)
def test_every_event_is_answered_in_words_or_by_a_painting(chat: Chat, event: bot.Event) -> None:
    decision = decide(chat, event)
    effects = [decision.request, decision.take_job, decision.begin_job]
    effects = [effect for effect in effects if effect]
    assert len(effects) <= 1
    assert effects or decision.reply
    for language in ("en", "ru"):
        words = bot.translate(
            language,
            *decision.reply,
            support="S",
            limit=1,
            most=5,
            styles=1,
            seconds=20,
            user=2,
            health="H",
            style="s",
            **Rejected("").describe(language),
        )
        assert words or effects


@given(chats, events)
def test_a_chat_never_has_too_many_jobs(chat: Chat, event: bot.Event) -> None:
    full = replace(chat, jobs=FULL.jobs)
    assert decide(full, event).request is None


@given(chats, events)
def test_cancel_ends_whatever_went_before(chat: Chat, event: bot.Event) -> None:
    after = decide(decide(chat, event).chat, Command("cancel")).chat
    assert (after.jobs, after.content) == ((), None)
    cancelled = [painting.job_id for painting in after.history]
    assert all(painting.job_id in cancelled for painting in chat.jobs)


@given(chats)
def test_a_chat_is_read_as_it_was_stored(chat: Chat) -> None:
    assert bot.decode(msgspec.json.encode(chat), Chat) == chat


@given(requests_, st.none() | st.tuples(st.text(), st.text()))
def test_a_job_is_read_as_it_was_stored(
    request: PaintRequest, keys: tuple[str, str] | None
) -> None:
    job = bot.PaintJob("7", -5, 5, 3, "ru", request, "Monet", sent=["status", "photo?"])
    job.step = bot.Step.WAIT
    job.result_keys = bot.ResultKeys(*keys) if keys else None
    stored = bot.record_of(job)
    record = bot.decode(msgspec.json.encode(stored), bot.JobRecord)
    assert msgspec.structs.asdict(record) == stored
    assert bot.PaintJob.from_record(record).result_keys == job.result_keys


IMAGE = {"file_id": "photo", "document": False}
WORK = {
    "content": IMAGE,
    "style": {"file_id": "other", "document": True},
    "strength": 0.5,
    "preserve_color": True,
    "result": "result.jpg",
}
# As the version of 2026-11-26 wrote them, with a member of tomorrow
CHAT_RECORD: dict[str, Json] = {
    "version": 2, "content": None, "job": "8", "history": [{"job": "7", "request": WORK}],
    "seen": [7, 8], "reply": [], "mood": "blue",
}  # fmt: skip
JOB_RECORD: dict[str, Json] = {
    "version": 2, "id": "8", "chat": 5, "user": 5, "thread": None, "language": "ru",
    "request": WORK, "style_label": "ваш стиль", "step": "wait", "created": 1.5,
    "status_message": 3, "result_keys": ["async/output/1.out", "async/failure/1.out"],
    "sent": ["status"], "mood": "blue",
}  # fmt: skip


def test_records_of_the_last_version_and_of_the_next_are_read() -> None:
    request = replace(BY_PICTURE, preserve_color=True)
    chat = bot.decode(json.dumps(CHAT_RECORD).encode(), Chat)
    assert chat.history == (Painting("7", request),)
    assert (chat.old_job, chat.seen) == ("8", (7, 8))
    job = bot.decode(json.dumps(JOB_RECORD).encode(), bot.JobRecord)
    assert (job.language, job.step, job.status_message) == ("ru", bot.Step.WAIT, 3)
    assert job.request == request
    assert job.result_keys == ("async/output/1.out", "async/failure/1.out")


def test_a_chat_of_the_first_version_keeps_its_photo_and_its_job() -> None:
    chat = bot.decode(
        json.dumps({"content": IMAGE, "job": "8", "kept": {"7": WORK}, "seen": [7, 8]}).encode(),
        Chat,
    )
    assert (chat.content, chat.old_job, chat.seen) == (PHOTO, "8", (7, 8))


def test_the_job_of_a_record_before_version_3_goes_on() -> None:
    s3 = MemoryS3()
    store = bot.Store(s3, "bucket")
    store.put_json("chats/5.json", CHAT_RECORD | {"content": IMAGE})
    store.put_json("jobs/8/job.json", JOB_RECORD)
    chat = store.load_chat(5).chat
    job = store.load_job("8")
    assert job
    assert chat.jobs == (Painting("8", job.request),)
    assert chat.photos == (PHOTO,)
    store.save_chat(store.load_chat(5), chat)
    assert store.load_chat(5).chat == chat


def test_the_jobs_of_a_state_that_a_group_shared_go_to_those_who_asked_for_them() -> None:
    s3 = MemoryS3()
    store = bot.Store(s3, "bucket")
    by_picture = Painting("8", replace(BY_PICTURE, preserve_color=True))
    shared = Chat(PHOTO, jobs=(by_picture, *JOBS), history=HISTORY, photos=(PHOTO,), seen=(8, 9))
    store.put_json("chats/-5.json", shared)
    store.put_json("jobs/8/job.json", JOB_RECORD | {"chat": -5, "user": 1})
    job = bot.PaintJob("9", -5, 2, None, "en", BY_VANGOGH, "Van Gogh")
    store.save_job(job)

    common = Chat(history=HISTORY, photos=(PHOTO,), seen=(8, 9))
    assert store.load_chat(-5, 1).chat == replace(common, jobs=(by_picture,))
    assert store.load_chat(-5, 2).chat == replace(common, jobs=JOBS)
    assert store.load_chat(-5, 3).chat == common
    store.release_job(-5, 2, "9", keep=BY_VANGOGH)
    assert store.load_chat(-5, 2).chat == replace(common, history=(*HISTORY, *JOBS))
    assert store.load_chat(-5, 1).chat.jobs == (by_picture,)


def test_the_one_job_of_a_groups_first_record_goes_on() -> None:
    s3 = MemoryS3()
    store = bot.Store(s3, "bucket")
    store.put_json("chats/-5.json", CHAT_RECORD)
    store.put_json("jobs/8/job.json", JOB_RECORD | {"chat": -5, "user": 1})
    assert store.load_chat(-5, 1).chat.owns("8")
    assert not store.load_chat(-5, 2).chat.owns("8")


def test_only_the_last_results_and_updates_are_kept() -> None:
    chat = Chat()
    for number in range(150):
        chat = chat.with_history(str(number), BY_MONET).with_answer(number, ["busy"])
    assert [entry.job_id for entry in chat.history] == [str(n) for n in range(140, 150)]
    assert chat.seen == tuple(range(50, 150))


# ---------------------------------------------------------------- updates, as Telegram writes them


def message(**content: Json) -> dict[str, Json]:
    sender = {"id": 5, "language_code": "en"}
    return {"message_id": 1, "chat": {"id": 5, "type": "private"}, "from": sender, **content}


def read_raw(raw: dict[str, Json]) -> bot.Incoming | None:
    data = json.dumps({"update_id": 1, **raw}).encode()
    return bot.read_update(bot.decode(data, bot.TelegramUpdate), ME)


def read(**content: Json) -> bot.Incoming | None:
    return read_raw({"message": message(**content)})


@pytest.mark.parametrize(
    ("content", "event"),
    [
        ({"text": "/start"}, Command("start")),
        ({"text": " /START now"}, Command("start")),
        ({"text": "/start@style_bot"}, Command("start")),
        ({"text": "/"}, Command("")),
        ({"text": "  Van Gogh "}, Words("Van Gogh")),
        ({"text": ""}, Rejected("not_a_picture")),
        ({"sticker": {"file_id": "s"}}, Rejected("not_a_picture")),
        ({"photo": []}, Rejected("not_a_picture")),
        ({"photo": [{"file_id": "a"}, {"file_id": "b"}]}, ImageRef("b", False)),
        ({"document": {"file_id": "d", "mime_type": "image/png"}}, ImageRef("d", True)),
        ({"document": {"file_id": "d", "mime_type": "text/x"}}, Rejected("not_an_image")),
        ({"document": {"file_id": "d"}}, Rejected("not_an_image")),
        (
            {"animation": {}, "document": {"file_id": "d", "mime_type": "image/gif"}},
            Rejected("not_a_picture"),
        ),
        (
            {"document": {"file_id": "d", "mime_type": "image/png", "file_size": 21 << 20}},
            Rejected("too_many_bytes", byte_count=21 << 20),
        ),
        (
            {
                "document": {
                    "file_id": "d",
                    "mime_type": "image/png",
                    "file_size": 0,
                    "file_name": " my\n" + 70 * "x",
                }
            },
            Rejected("empty_file", "my " + 57 * "x"),
        ),
        (
            {"photo": [{"file_id": "a", "width": 8000, "height": 8000}]},
            Rejected("too_many_pixels", width=8000, height=8000),
        ),
        (
            {"photo": [{"file_id": "a", "width": 900, "height": 8, "file_size": 300}]},
            Rejected("too_few_pixels", width=900, height=8, byte_count=300),
        ),
    ],
)
def test_what_a_message_says(content: dict[str, Json], event: bot.Event) -> None:
    incoming = read(**content)
    assert incoming
    assert incoming.event == event


def image_file(form: str, width: int, height: int) -> bytes:
    data = io.BytesIO()
    Image.new("L", (width, height)).save(data, form)
    return data.getvalue()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF"])
def test_the_head_of_a_file_tells_how_large_its_picture_is(form: str) -> None:
    assert bot.inspect_head(image_file(form, 17, 16)) is None
    too_small = bot.inspect_head(image_file(form, 20, 8))
    assert too_small == Rejected("too_few_pixels", width=20, height=8)


def test_heic_is_taken_as_the_model_takes_it() -> None:
    pillow_heif.register_heif_opener()
    assert bot.inspect_head(image_file("HEIF", 64, 64)) is None


def test_what_the_head_of_a_file_refuses() -> None:
    assert bot.inspect_head(b"") == Rejected("empty_file")
    for data in (b"text", b"<svg width='9' height='9'/>", b"%PDF-1.7", b"PK\3\4"):
        assert bot.inspect_head(data) == Rejected("not_an_image")
    large = image_file("PNG", 8200, 5000)
    assert bot.inspect_head(large) == Rejected("too_many_pixels", width=8200, height=5000)
    assert bot.inspect_head(large[:20]) is None  # the model tells what is wrong


def test_a_refusal_names_the_picture_and_the_reason() -> None:
    large = Rejected("too_many_pixels", "IMG_1.jpg", 8200, 5000, 9 << 20)
    assert bot.translate("en", large.reason, **large.describe("en")) == (
        "IMG_1.jpg is too large: 8200x5000 are 41 megapixels, and I take at most 40."
    )
    small = Rejected("too_few_pixels", width=8, height=8)
    assert bot.translate("ru", small.reason, **small.describe("ru")).startswith(
        "Эта картинка: 8x8, это слишком мало"
    )


@pytest.mark.parametrize(
    ("code", "request_", "verbs"),
    [
        ("internal", BY_MONET, ["retry", "another"]),
        ("image_unreadable", BY_MONET, []),  # it is the photo
        ("image_unreadable", BY_PICTURE, ["another"]),  # it may be the style
        ("unknown_style", BY_MONET, ["another"]),
    ],
)
def test_what_to_do_after_a_failure_leads_somewhere(
    code: str, request_: PaintRequest, verbs: list[str]
) -> None:
    assert bot.AFTER_FAILURE[bot.after_failure(bot.ErrorCode(code), request_)] == verbs


@pytest.mark.parametrize(
    "fact",
    [
        "pinned_message",
        "message_auto_delete_timer_changed",
        "write_access_allowed",
        "chat_background_set",
        "forum_topic_created",
        "forum_topic_edited",
        "forum_topic_closed",
        "forum_topic_reopened",
    ],
)
def test_what_telegram_itself_tells_is_not_answered(fact: str) -> None:
    assert read(**{fact: {"text": "x"}}) is None


def test_a_spoiler_is_kept() -> None:
    incoming = read(photo=[{"file_id": "photo"}], has_media_spoiler=True)
    assert incoming
    assert incoming.event == replace(PHOTO, has_spoiler=True)


def test_a_command_for_another_bot_is_not_for_us() -> None:
    assert read(text="/start@other_bot") is None


# ---------------------------------------------------------------- groups


GROUP = {"id": -5, "type": "supergroup"}
SHOWN = {"message_id": 41, "from": {"id": 6}, "photo": [{"file_id": "photo"}]}
IN_GROUP = ImageRef("photo", is_document=False, message_id=41)
BY_US = {"message_id": 42, "from": {"id": 7, "is_bot": True}, "text": "Choose a painter"}


def read_in_group(**content: Json) -> bot.Incoming | None:
    return read(**{"message_id": 50, "chat": GROUP, **content})


@pytest.mark.parametrize(
    ("content", "event"),
    [
        ({"text": "/paint monet", "reply_to_message": SHOWN}, Paint("monet", IN_GROUP)),
        ({"text": "/paint@style_bot", "reply_to_message": SHOWN}, Paint("", IN_GROUP)),
        ({"text": "@Style_Bot Van Gogh", "reply_to_message": SHOWN}, Paint("Van Gogh", IN_GROUP)),
        ({"text": "monet @style_bot", "reply_to_message": SHOWN}, Paint("monet", IN_GROUP)),
        ({"text": "/paint monet"}, Paint("monet", None)),
        ({"text": "/paint", "reply_to_message": {"text": "hi"}}, Paint("", None)),
        (
            {"text": "/paint", "reply_to_message": {"document": {"file_id": "d"}}},
            Paint("", Rejected("not_an_image")),
        ),
        (
            {"photo": [{"file_id": "photo"}], "caption": "/paint monet"},
            Paint("monet", replace(IN_GROUP, message_id=50)),
        ),
        (
            {"photo": [{"file_id": "photo"}], "caption": "monet, @style_bot"},
            Paint("monet", replace(IN_GROUP, message_id=50)),
        ),
        (
            {"text": "/paint", "external_reply": {"photo": [{"file_id": "photo"}]}},
            Paint("", replace(IN_GROUP, message_id=50)),
        ),
        ({"text": "/start"}, Command("start")),
        ({"text": "/dance@style_bot"}, Command("dance")),
        ({"text": "monet", "reply_to_message": BY_US}, Words("monet")),
        (
            {"photo": [{"file_id": "photo"}], "reply_to_message": BY_US},
            replace(IN_GROUP, message_id=50),
        ),
    ],
)
def test_what_is_said_to_the_bot_in_a_group(content: dict[str, Json], event: bot.Event) -> None:
    incoming = read_in_group(**content)
    assert incoming
    assert incoming.event == event
    assert incoming.group_message == 50


@pytest.mark.parametrize(
    "content",
    [
        {"text": "monet"},
        {"text": "hello", "reply_to_message": SHOWN},
        {"photo": [{"file_id": "photo"}]},
        {"photo": [{"file_id": "photo"}], "caption": "by monet"},
        {"text": "/paint@other_bot monet", "reply_to_message": SHOWN},
        {"text": "@other_style_bot monet", "reply_to_message": SHOWN},
        {"text": "mail@style_bot.example", "reply_to_message": SHOWN},
        {"text": "@style_bots", "reply_to_message": SHOWN},
        {"text": "/dance"},
        {"sticker": {"file_id": "s"}, "reply_to_message": BY_US},
        {
            "sticker": {"file_id": "s"},
            "reply_to_message": BY_US | {"photo": [{"file_id": "by us"}]},
        },
        {"animation": {}, "document": {"file_id": "d"}, "reply_to_message": BY_US},
        {"migrate_to_chat_id": -100},
        {"text": "/paint", "from": {"id": 8, "is_bot": True}},
        {"photo": [], "is_automatic_forward": True, "sender_chat": {"id": -9}, "caption": "/paint"},
    ],
)
def test_what_people_say_to_each_other_in_a_group_is_not_for_us(content: dict[str, Json]) -> None:
    assert read_in_group(**content) is None


def test_a_reply_with_paint_works_in_a_private_chat_too() -> None:
    incoming = read(text="/paint monet", reply_to_message=SHOWN)
    assert incoming == Incoming(5, None, "en", Paint("monet", PHOTO))


def test_who_writes_in_the_name_of_a_group_or_of_a_channel() -> None:
    fake = {"id": 1087968824, "is_bot": True}
    for number in (-5, -1009):
        incoming = read_in_group(text="/paint", **{"from": fake, "sender_chat": {"id": number}})
        assert incoming
        assert incoming.user == number


def test_a_comment_under_a_channels_post_is_answered_under_the_post() -> None:
    post = SHOWN | {"sender_chat": {"id": -1009}, "is_automatic_forward": True}
    incoming = read_in_group(text="/paint", message_thread_id=41, reply_to_message=post)
    assert incoming
    assert incoming.event == Paint("", IN_GROUP)
    assert incoming.thread is None  # no topic: the reply leads there


@pytest.mark.parametrize(
    ("owner", "user"),
    [("", 5), ("@5", 5), ("@6", None), ("@-5", -5), ("@x", 5), ("@99999999999999999999", 5)],
)
def test_a_button_belongs_to_who_asked(owner: str, user: int | None) -> None:
    query = {"id": "1", "from": {"id": 5}, "data": f"cancel:9{owner}"}
    under = message() | {"chat": GROUP, "message_id": 50}
    incoming = read_raw({"callback_query": query | {"message": under}})
    assert (incoming.user if incoming else None) == user
    if incoming:
        assert incoming.event == Button("cancel", "9")


@pytest.mark.parametrize("name", ["monet", "x" * 50])
def test_the_data_of_a_painters_button_is_short_enough(name: str) -> None:
    keyboard = bot.style_keyboard({name: "X"}, PHOTO, bot.owner_suffix(-5, 7_000_000_000))
    [[button]] = keyboard["inline_keyboard"]
    assert len(button["callback_data"]) <= 64
    assert button["callback_data"].startswith(f"style:{name}:{PHOTO.tag}")


@pytest.mark.parametrize(
    ("chat", "event", "reply"),
    [
        (AFTERWARDS, Button("album", "7"), ["album"]),
        (BUSY_AGAIN, Button("album", f"{PHOTO.tag}:7"), ["album"]),
        (AFTERWARDS, Button("album", "6"), ["expired", "ask_content"]),
        (IDLE, Paint("monet", None), ["ask_paint"]),
        (IDLE, Paint("", Rejected("not_an_image")), ["not_an_image", "ask_paint"]),
        (FULL, Paint("monet", PHOTO), ["queue_is_full"]),
        (IDLE, Words("lovely"), []),
        (AFTERWARDS, Words("lovely"), []),
    ],
)
def test_what_only_gets_an_answer_in_a_group(
    chat: Chat, event: bot.Event, reply: list[str]
) -> None:
    incoming = Incoming(5, None, "en", event, group_message=50)
    assert bot.transition(chat, incoming, CONFIG, STYLES) == bot.Decision(chat, tuple(reply))


@pytest.mark.parametrize(
    ("chat", "event", "decision"),
    [
        (IDLE, Paint("Monet", PHOTO), bot.Decision(IDLE, request=BY_MONET)),
        (
            WITH_PHOTO,
            Paint("monet", None),
            bot.Decision(replace(WITH_PHOTO, content=None), request=BY_MONET),
        ),
        (
            replace(WITH_PHOTO, content=OTHER),
            Paint("van gogh", PHOTO),
            bot.Decision(replace(WITH_PHOTO, content=OTHER), request=BY_VANGOGH),
        ),
        (IDLE, Paint("", PHOTO), bot.Decision(WITH_PHOTO, ("ask_style",))),
        (
            IDLE,
            Paint("rembrandt", PHOTO),
            bot.Decision(WITH_PHOTO, ("unknown_style", "painters", "ask_style")),
        ),
    ],
)
def test_paint_there_and_then(chat: Chat, event: bot.Event, decision: bot.Decision) -> None:
    assert decide(chat, event) == decision


def test_only_an_admin_stops_a_training() -> None:
    assert decide(IDLE, Button("unteach", "3"), user=1).stop_lesson == "3"
    assert decide(IDLE, Button("unteach", "3"), user=5) == bot.Decision(IDLE, ("ask_content",))


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("/paint van gogh", "/paint vangogh"),
        ("@style_bot my secret", "/paint -"),
        ("/paint", "/paint "),
    ],
)
def test_what_is_stored_of_a_mention_says_the_same(text: str, stored: str) -> None:
    said = {"message": message(text=text, chat=GROUP, message_id=50, reply_to_message=SHOWN)}
    raw = bot.decode(json.dumps({"update_id": 1, **said}).encode(), bot.TelegramUpdate)
    kept = bot.without_words(raw, STYLES, ME)
    assert kept.message
    assert kept.message.text == stored
    before, after = bot.read_update(raw, ME), bot.read_update(kept, ME)
    assert before
    assert after
    assert bot.transition(IDLE, before, CONFIG, STYLES) == bot.transition(
        IDLE, after, CONFIG, STYLES
    )


# ---------------------------------------------------------------- guest mode


def read_guest(**content: Json) -> bot.Incoming | None:
    said = {"chat": {"id": -9}, "message_id": 50, "message_thread_id": 7, "guest_query_id": "q"}
    return read_raw({"guest_message": message() | said | content})


@pytest.mark.parametrize(
    ("content", "event"),
    [
        ({"text": "@style_bot Monet", "reply_to_message": SHOWN}, Paint("Monet", PHOTO)),
        ({"text": "@one @style_bot", "reply_to_message": SHOWN}, Paint("", PHOTO)),
        ({"caption": "@style_bot monet!", "photo": [{"file_id": "photo"}]}, Paint("monet", PHOTO)),
        ({"text": "@style_bot monet", "chat": {"id": 6}}, Paint("monet", None)),
    ],
)
def test_a_mention_in_a_chat_that_the_bot_is_no_member_of(
    content: dict[str, Json], event: bot.Event
) -> None:
    assert read_guest(**content) == Incoming(5, None, "en", event, guest_query="q")


def test_a_guest_belongs_to_a_private_chat() -> None:
    raw = {"update_id": 1, "guest_message": message(text="@style_bot", chat={"id": -9})}
    update = bot.decode(json.dumps(raw).encode(), bot.TelegramUpdate)
    assert bot.sender_of(update) == (5, 5)
    assert read_guest(sender_chat={"id": -9}) is None


@pytest.mark.parametrize("text", ["@style_bot van gogh", "@style_bot my secret", "@style_bot"])
def test_what_is_stored_of_a_guests_mention_says_the_same(text: str) -> None:
    said = message(text=text, reply_to_message=SHOWN, guest_query_id="q")
    raw = bot.decode(
        json.dumps({"update_id": 1, "guest_message": said}).encode(), bot.TelegramUpdate
    )
    kept = bot.without_words(raw, STYLES, ME)
    assert b"secret" not in msgspec.json.encode(kept)
    before, after = bot.read_update(raw, ME), bot.read_update(kept, ME)
    assert before
    assert after
    assert bot.transition(IDLE, before, CONFIG, STYLES) == bot.transition(
        IDLE, after, CONFIG, STYLES
    )


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"message": None},
        {"edited_message": message(text="x")},
        {"message": {"chat": {"id": 5}, "text": "a channel's post has no sender"}},
        {"callback_query": {"id": "1", "from": {"id": 5}, "data": "cancel:7"}},
    ],
)
def test_an_update_without_chat_or_sender_is_not_for_us(raw: dict[str, Json]) -> None:
    assert read_raw(raw) is None


def test_a_button() -> None:
    query = {"id": "1", "from": {"id": 5, "language_code": "ru-RU"}, "data": "style:monet"}
    incoming = read_raw({"callback_query": query | {"message": message()}})
    assert incoming == Incoming(5, None, "ru", Button("style", "monet"), pressed_message=1)


@pytest.mark.parametrize(
    ("chat", "fields", "thread"),
    [
        (5, {"message_thread_id": 77}, 77),
        (-5, {"message_thread_id": 77}, None),  # a thread of replies, not a topic
        (-5, {"message_thread_id": 77, "is_topic_message": True}, 77),
        (-5, {}, None),
    ],
)
def test_the_topic_is_echoed(chat: int, fields: dict[str, Json], thread: int | None) -> None:
    incoming = read(text="/paint", chat={"id": chat}, **fields)
    assert incoming
    assert incoming.thread == thread


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["message", "chat", "id", "callback_query"]), inner)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["update_id", "message", "callback_query"]), junk))
def test_a_broken_update_does_not_fit_or_is_read(raw: dict[str, Json]) -> None:
    try:
        update = bot.decode(json.dumps(raw).encode(), bot.TelegramUpdate)
    except bot.MisfitError:
        return
    assert isinstance(bot.chat_of(update), int)
    bot.read_update(update, ME)


# ---------------------------------------------------------------- texts


PLACEHOLDERS = {
    "support",
    "limit",
    "styles",
    "weights",
    "user",
    "health",
    "style",
    "seconds",
    "name",
    "reason",
    "minutes",
    "count",
    "strength",
    "size",
    "painters",
    "endpoint",
    "bot",
    "what",
    "most",
    "place",
    *Rejected("").describe("en"),
}


@pytest.mark.parametrize("key", [*bot.TEXTS, *(code.value for code in bot.ErrorCode)])
def test_every_key_has_a_text_in_both_languages(key: str) -> None:
    text = bot.find_text(key)
    fields = [{name for _, name, _, _ in string.Formatter().parse(words) if name} for words in text]
    assert fields[0] == fields[1]
    assert fields[0] <= PLACEHOLDERS
    assert all(words.strip() for words in text)
    if key != "stats":
        assert any("а" <= letter <= "я" for letter in text.ru.lower()), "the Russian text is not"


def test_every_button_has_a_label() -> None:
    for request in (BY_MONET, BY_PICTURE, replace(BY_PICTURE, preserve_color=True, strength=0.1)):
        keyboard = bot.job_buttons("en", "7", bot.result_buttons(request, 800), "@7000000000")
        for row in keyboard["inline_keyboard"]:
            assert len(row) <= 2
            for button in row:
                assert 0 < len(button["text"]) <= 20  # two of them fit a telephone
                assert len(button["callback_data"].encode()) <= 64  # Telegram's limit


def test_the_data_of_a_painters_button_fits_whatever_its_name_is() -> None:
    [[button]] = bot.style_keyboard({"x" * 50: "X"}, PHOTO)["inline_keyboard"]
    assert len(button["callback_data"].encode()) == 64


# ---------------------------------------------------------------- answers of the models


REASON = {"error": {"code": "image_too_small", "message": "Too small."}}


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        (json.dumps(REASON), "image_too_small", "Too small."),
        (f"Received server error (422): {json.dumps(REASON)}", "image_too_small", "Too small."),
        (json.dumps(json.dumps(json.dumps(REASON))), "image_too_small", "Too small."),
        ('{"error": {"code": "of_tomorrow", "message": "New."}}', "internal", "New."),
        ('{"error": {"code": "hello"}}', "internal", ""),
        ("<html>nonsense", "internal", ""),
        ("", "internal", ""),
    ],
)
def test_the_reason_of_a_failure(text: str, code: str, words: str) -> None:
    assert bot.parse_failure(text) == bot.Failure(bot.ErrorCode(code), words)


@pytest.mark.parametrize(
    ("progress", "line"),
    [
        ({"step": 0, "steps": 10}, "░░░░░░░░░░ 0%"),
        ({"step": 5, "steps": 10, "seconds_left": 4.6}, "▓▓▓▓▓░░░░░ 50%, about 5 s left"),
        ({"step": 12, "steps": 10, "seconds_left": 0}, "▓▓▓▓▓▓▓▓▓▓ 100%, about 0 s left"),
        # Both are from the share of the work, which is not that of the steps
        (
            {"step": 6, "steps": 10, "done": 0.41, "seconds_left": 79},
            "▓▓▓▓░░░░░░ 41%, about 79 s left",
        ),
        ({"step": 1, "steps": 50, "done": 0.02, "seconds_left": 900}, "░░░░░░░░░░ 2%"),
    ],
)
def test_the_progress_bar(progress: dict[str, float], line: str) -> None:
    assert bot.progress_line("en", msgspec.convert(progress, bot.Progress)) == line


@pytest.mark.parametrize(
    ("size", "byte_count", "fits"),
    [
        ((800, 600), 10 << 20, True),
        ((800, 600), (10 << 20) + 1, False),
        ((5000, 5000), 1, True),
        ((5001, 5000), 1, False),
        ((2000, 100), 1, True),
        ((2001, 100), 1, False),
    ],
)
def test_what_telegram_takes_as_a_photo(size: tuple[int, int], byte_count: int, fits: bool) -> None:
    assert bot.fits_photo(size, byte_count) == fits


# ---------------------------------------------------------------- settings


def test_styles_are_read_with_and_without_labels() -> None:
    styles = bot.read_styles(" vintage , monet=Claude,ukiyoe ")
    assert styles == {"vintage": "Vintage", "monet": "Claude", "ukiyoe": "Ukiyo-e"}


# ---------------------------------------------------------------- /teach, which only admins may

WAITS_FOR_LESSON = Chat(content=PHOTO, lesson_name="klimt")


def test_a_lesson_takes_the_picture_of_the_command() -> None:
    for chat in (IDLE, WITH_PHOTO, BUSY):
        decision = decide(chat, Teach("klimt", OTHER), user=1)
        assert decision == bot.Decision(chat, lesson=bot.LessonRequest("klimt", OTHER))


def test_a_lesson_without_a_picture_takes_the_next_one() -> None:
    for chat in (IDLE, WITH_PHOTO, BUSY):
        waiting = replace(chat, lesson_name="klimt")
        asked = decide(chat, Teach("klimt", None), user=1)
        assert asked == bot.Decision(waiting, ("ask_lesson",))
        assert bot.decode(msgspec.json.encode(waiting), Chat) == waiting
        started = decide(waiting, OTHER, user=1)
        assert started == bot.Decision(chat, lesson=bot.LessonRequest("klimt", OTHER))


@pytest.mark.parametrize(
    ("event", "reply"),
    [
        (Words("Monet"), ["ask_lesson"]),
        (Rejected("not_an_image"), ["not_an_image", "ask_lesson"]),
        (Command("dance"), ["unknown_command", "ask_lesson"]),
        (Teach("klimt", Rejected("not_an_image")), ["not_an_image", "ask_lesson"]),
    ],
)
def test_what_is_no_picture_for_a_lesson(event: bot.Event, reply: list[str]) -> None:
    decision = decide(Chat(lesson_name="klimt"), event, user=1)
    assert decision == bot.Decision(Chat(lesson_name="klimt"), tuple(reply))


def test_cancel_and_start_forget_the_lesson() -> None:
    cancelled = decide(WAITS_FOR_LESSON, Command("cancel"), user=1)
    assert cancelled == bot.Decision(IDLE, ("cancelled", "ask_content"))
    assert decide(WAITS_FOR_LESSON, Command("start"), user=1).chat == IDLE


def test_an_admins_help_has_more() -> None:
    assert decide(IDLE, Command("help"), user=1).reply == ("help", "help_admin")


@pytest.mark.parametrize(
    ("message", "event"),
    [
        ({"photo": [{"file_id": "photo"}], "caption": "/teach Klimt"}, Teach("klimt", PHOTO)),
        ({"text": "/teach  klimt \n now"}, Teach("klimt now", None)),
        ({"text": "/teach@our_bot klimt"}, Teach("klimt", None)),
        (
            {"text": "/teach klimt", "reply_to_message": {"photo": [{"file_id": "photo"}]}},
            Teach("klimt", PHOTO),
        ),
        ({"text": "/teach klimt", "reply_to_message": {"text": "hi"}}, Teach("klimt", None)),
        ({"photo": [{"file_id": "photo"}], "caption": "/start"}, PHOTO),
        ({"text": "/"}, Command("")),
        ({"text": "/teach@another_bot klimt"}, None),
    ],
)
def test_messages_that_are_commands(message: Json, event: bot.Event | None) -> None:
    data = json.dumps({"chat": {"id": 5}, **message}).encode()
    assert bot.read_message(bot.decode(data, bot.Message), bot.BotUser(7, "our_bot")) == event


def test_what_is_stored_of_an_update_has_no_names_of_files() -> None:
    document = {"file_id": "d", "file_name": "Secret.png", "mime_type": "image/png"}
    replied = {"message_id": 1, "document": document}
    said = message(document=document, reply_to_message=replied, external_reply=replied)
    for raw in (
        {"message": said},
        {"message": said | {"text": "/paint monet"}},
        {"callback_query": {"id": "1", "from": {"id": 5}, "data": "x", "message": said}},
    ):
        update = bot.decode(json.dumps({"update_id": 1, **raw}).encode(), bot.TelegramUpdate)
        stored = msgspec.json.encode(bot.without_words(update, STYLES, bot.BotUser()))
        assert b"Secret" not in stored
        assert b'"d"' in stored
