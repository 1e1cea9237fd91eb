"""The bot is killed after each of its effects on Telegram, S3 and the models, and started again.

Everything runs in this process and without waiting: S3 is a dictionary of objects, a chat one of
messages, and a model answers at once. A kill is an exception that nothing catches; what the killed
bot knew is thrown away with it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.validate import ParamValidator

import bot
from tests.fakes.memory_s3 import MemoryS3
from tests.fakes.names import BUCKET
from tests.fakes.sagemaker import Answer, Invocation, Objects, Request

Json = Any  # whatever JSON can hold
CHAT = 5
CONFIG = bot.Config(
    token="42:token",
    bucket=BUCKET,
    endpoints={"nst": "nst", "cyclegan": "cyclegan"},
    styles={"monet": "Monet"},
    allowed_users=frozenset(),
    admins=frozenset({1}),
    daily_limit=5,
    telegram_api="https://api.telegram.org",
    support="Ask Vincent.",
)


class Killed(BaseException):
    """SIGKILL, as far as the bot's code can tell."""


@dataclass
class Fate:
    """Counts the bot's effects, and kills it after some of them."""

    kills: frozenset[int] = frozenset()  # effects are counted from 0
    effects: list[str] = field(default_factory=list)

    def happened(self, effect: str) -> None:
        self.effects.append(effect)
        if len(self.effects) - 1 in self.kills:
            raise Killed(effect)


@dataclass
class Shown:
    """A message as the chat shows it."""

    kind: str
    text: str
    file: bytes = b""


class Phone(bot.TelegramClient):
    """Telegram with one chat."""

    def __init__(self, fate: Fate) -> None:
        super().__init__("https://api.telegram.org", "42:token")
        self.fate = fate
        self.shown: dict[int, Shown] = {}
        self.guest = ""  # what the answer to a guest says
        self.numbers = itertools.count(100)

    def call(
        self, method: str, files: Json = None, read_timeout: float = 30, **values: Json
    ) -> Json:
        result = self.carry_out(method, files or {}, values)
        self.fate.happened(method)
        return result

    def carry_out(self, method: str, files: dict[str, Json], values: dict[str, Json]) -> Json:
        if method == "answerGuestQuery":
            if self.guest:
                raise bot.TelegramError(method, 400, "Bad Request: query is too old")
            self.guest = values["result"]["input_message_content"]["message_text"]
            return bot.SentGuestMessage("inline")
        if "inline_message_id" in values:
            self.guest = values.get("text") or values["media"]["caption"]
            return True
        number: int = values.get("message_id", 0)
        words = values.get("text") or values.get("caption") or ""
        if method in ("sendMessage", "sendPhoto", "sendDocument", "sendAnimation"):
            number = next(self.numbers)
            kind = method.removeprefix("send").lower()
            _, data = files.get(kind, ("", b""))
            self.shown[number] = Shown(kind, words, data)
            return bot.SentMessage(number, [bot.TelegramFile("sent")] if data else [])
        if number and number not in self.shown:
            raise bot.TelegramError(method, 400, "Bad Request: message not found")
        if method == "deleteMessage":
            del self.shown[number]
        if method == "editMessageText":
            self.shown[number].text = words
        if method == "editMessageMedia":
            _, data = files["file"]
            self.shown[number] = Shown(values["media"]["type"], values["media"]["caption"], data)
        return True

    def download(self, file_id: str) -> bytes:
        return file_id.encode()

    def download_head(self, file_id: str) -> bytes:
        return b"\x89PNG"

    def pictures(self) -> list[bytes]:
        return [message.file for message in self.shown.values() if message.file]

    def texts(self) -> list[str]:
        return [message.text for message in self.shown.values()]


class Bucket:
    """boto3's client of S3, whose changes may be the bot's last."""

    def __init__(self, s3: Json, fate: Fate) -> None:
        self.s3 = s3
        self.fate = fate
        self.exceptions = s3.exceptions
        self.get_object = s3.get_object
        self.head_object = s3.head_object
        self.delete_object = s3.delete_object
        self.list_objects_v2 = s3.list_objects_v2

    def put_object(self, **values: Json) -> Json:
        result = self.s3.put_object(**values)
        self.fate.happened(f"put {values['Key']}")
        return result

    def copy_object(self, **values: Json) -> Json:
        result = self.s3.copy_object(**values)
        self.fate.happened(f"copy to {values['Key']}")
        return result

    def delete_objects(self, **values: Json) -> Json:
        result = self.s3.delete_objects(**values)
        self.fate.happened("delete")
        return result


class Endpoint:
    """A model that has painted before the bot learns that its request was accepted."""

    def __init__(self, s3: Json, fate: Fate) -> None:
        self.objects = Objects(s3)
        self.fate = fate
        self.calls = 0
        self.error: dict[str, Json] = {}
        self.is_slow = False  # what it accepts waits for work()
        self.accepted: list[tuple[Invocation, Request]] = []  # and not answered
        self.cancelled = 0
        self.taken = 0
        self.styles = ["klimt", "monet"]
        self.requests: list[Request] = []

    def invoke_endpoint_async(self, **values: Json) -> Json:
        self.calls += 1
        invocation = Invocation.numbered(values["InputLocation"], self.calls)
        request = json.loads(self.objects.read(invocation.input_url))
        self.accepted.append((invocation, request))
        if not self.is_slow:
            self.work()
        self.fate.happened("invoke")
        return invocation.answer

    def work(self) -> None:
        """Answer what was accepted."""
        while self.accepted:
            invocation, request = self.accepted.pop()
            answer = self.stylize(request)
            url = invocation.failure_url if "error" in answer else invocation.output_url
            self.objects.write(url, json.dumps(answer).encode())

    def stylize(self, request: Request) -> Answer:
        self.requests.append(request)
        if self.error:
            return {"error": self.error}
        if "catalog_url" in request:
            return {"styles": self.styles}
        if self.read_action(request) == "cancel":
            self.cancelled += 1
            return {"error": {"code": "cancelled", "message": "This picture was cancelled."}}
        if self.read_action(request) == "take":
            self.taken += 1
        content = self.objects.read(request["content_url"])
        self.objects.write(request["result_url"], b"painted " + content)
        if "lossless_url" in request:
            self.objects.write(request["lossless_url"], b"painted " + content)
        if "film_url" in request:
            self.objects.write(request["film_url"], b"painted " + content)
        return {"size": [800, 600], "seconds": 2.0}

    def read_action(self, request: Request) -> str:
        with contextlib.suppress(ClientError):
            return str(json.loads(self.objects.read(request["control_url"]))["action"])
        return ""


class Trainer:
    """boto3's client of SageMaker. A job has ended when it is described the third time."""

    def __init__(self, s3: Json, fate: Fate) -> None:
        self.s3 = s3
        self.fate = fate
        self.real = boto3.client("sagemaker", region_name="us-east-1")
        self.exceptions = self.real.exceptions
        self.jobs: dict[str, Json] = {}
        self.descriptions = 0
        self.end = {"TrainingJobStatus": "Completed"}
        self.refusal: ClientError | None = None

    def create_training_job(self, **values: Json) -> Json:
        name = values["TrainingJobName"]
        shape = self.real.meta.service_model.operation_model("CreateTrainingJob").input_shape
        report = ParamValidator().validate(values, shape)
        assert not report.has_errors(), report.generate_report()
        if self.refusal:
            raise self.refusal
        if name in self.jobs:
            about = {"Code": "ResourceInUse", "Message": "Training job names must be unique"}
            raise self.exceptions.ResourceInUse({"Error": about}, "CreateTrainingJob")
        source = values["InputDataConfig"][0]["DataSource"]["S3DataSource"]["S3Uri"]
        prefix = source.removeprefix(f"s3://{BUCKET}/")
        listed = self.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix)["Contents"]
        assert [item["Key"] for item in listed] == [f"{prefix}picture.jpg"]
        self.jobs[name] = values
        self.fate.happened("create training job")

    def describe_training_job(self, TrainingJobName: str) -> Json:  # noqa: N803
        if TrainingJobName not in self.jobs:
            about = {"Code": "ValidationException", "Message": "Requested resource not found."}
            raise ClientError({"Error": about}, "DescribeTrainingJob")
        self.descriptions += 1
        progress = {"step": 40 * self.descriptions, "steps": 100, "seconds_left": 600}
        key = f"training/{TrainingJobName}/progress.json"
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=json.dumps(progress).encode())
        return self.end if self.descriptions > 2 else {"TrainingJobStatus": "InProgress"}

    def stop_training_job(self, TrainingJobName: str) -> Json:  # noqa: N803
        if TrainingJobName not in self.jobs:
            about = {"Code": "ValidationException", "Message": "Requested resource not found."}
            raise ClientError({"Error": about}, "StopTrainingJob")
        del self.jobs[TrainingJobName]
        self.fate.happened("stop training job")


@dataclass
class World:
    """What outlives the bot."""

    s3: Json
    fate: Fate

    def __post_init__(self) -> None:
        self.phone = Phone(self.fate)
        self.endpoint = Endpoint(self.s3, self.fate)
        self.trainer = Trainer(self.s3, self.fate)

    def start_bot(self) -> bot.Bot:
        bucket = Bucket(self.s3, self.fate)
        return bot.Bot(CONFIG, self.phone, bucket, self.endpoint, lambda: self.trainer)

    def keys(self, prefix: str) -> list[str]:
        page = self.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix)
        return [item["Key"] for item in page.get("Contents", [])]

    def live_through(self, updates: list[bot.Update]) -> None:
        """Give the bot one update after the other, and start it again whenever it is killed."""
        unconfirmed = list(updates)
        while True:
            try:
                self.live(self.start_bot(), unconfirmed)
                return
            except Killed:
                continue

    def live(self, running: bot.Bot, unconfirmed: list[bot.Update]) -> None:
        """One life: first what was going on, then each update and all that comes of it."""
        settle(running, more_styles_come=True)
        while unconfirmed:
            running.handler.handle(unconfirmed[0], str)
            settle(running, more_styles_come=True)
            del unconfirmed[0]
        settle(running)


def handle_all(
    running: bot.Bot, unconfirmed: list[bot.Update], submit_after: Collection[int] = ()
) -> None:
    """Take up the jobs, then handle each update; after those with these ids, submit the jobs."""
    running.runner.scan_jobs()
    while unconfirmed:
        running.handler.handle(unconfirmed[0], str)
        if unconfirmed[0].id in submit_after:
            submit_all(running)
        del unconfirmed[0]


def settle(running: bot.Bot, more_styles_come: bool = False) -> None:
    """Let every job take its steps until none is pending.

    more_styles_come: those that still take styles do nothing yet.
    """
    for _ in range(20):
        running.models.scan_answers()
        running.runner.scan_jobs()
        running.lessons.scan()
        jobs = running.runner.pending()
        if more_styles_come:
            jobs = [job for job in jobs if bot.age_of(job) >= job.open_until]
        lessons = running.lessons.pending()
        if not jobs and not lessons:
            return
        for job in jobs:
            running.runner.advance(job)
        for lesson in lessons:
            running.lessons.advance(lesson)
    raise AssertionError("jobs are pending for ever")


def submit_all(running: bot.Bot) -> None:
    for job in running.runner.pending():
        if job.step == bot.Step.SUBMIT:
            running.runner.advance(job)


# ---------------------------------------------------------------- what people do


def update(number: int, **content: Json) -> bot.Update:
    message = bot.Message(bot.TelegramChat(CHAT), bot.TelegramUser(1), **content)
    return bot.Update(number, CHAT, bot.TelegramUpdate(number, message))


def photo(number: int, file_id: str) -> bot.Update:
    return update(number, photo=[bot.TelegramFile(file_id)])


def document(number: int, file_id: str) -> bot.Update:
    return update(number, document=bot.TelegramFile(file_id, mime_type="image/png"))


def mention(number: int, file_id: str) -> bot.Update:
    """A mention of the bot under a photo in a chat that it is no member of."""
    message = bot.Message(
        bot.TelegramChat(-9),
        bot.TelegramUser(CHAT),
        text="@style_bot monet",
        reply_to_message=bot.RepliedMessage(photo=[bot.TelegramFile(file_id)]),
        guest_query_id="query",
    )
    return bot.Update(number, CHAT, bot.TelegramUpdate(number, guest_message=message))


def press(number: int, data: str) -> bot.Update:
    message = bot.Message(bot.TelegramChat(CHAT))
    query = bot.CallbackQuery("1", bot.TelegramUser(1), message, data)
    return bot.Update(number, CHAT, bot.TelegramUpdate(number, callback_query=query))


def press_monet(number: int, photo: str = "garden") -> bot.Update:
    """Press the painter's button under the question about a photograph."""
    return press(number, f"style:monet:{bot.ImageRef(photo, is_document=False).tag}")


def press_paint(number: int, job: int) -> bot.Update:
    """Press Paint under what is said about the styles of a job."""
    return press(number, f"paint:{job}")


def styled() -> list[bot.Update]:
    """Return the updates that ask for job 2, a painting in the style of a picture."""
    return [photo(1, "garden"), photo(2, "style"), press_paint(3, job=2)]


SCENARIOS: dict[str, Callable[[], list[bot.Update]]] = {
    "a painter": lambda: [photo(1, "garden"), press_monet(2)],
    "a picture's style": styled,
    "several styles": lambda: [
        photo(1, "garden"),
        photo(2, "a"),
        photo(3, "b"),
        press_paint(4, job=2),
    ],
    "a file": lambda: [document(1, "garden"), press_monet(2)],
    "a change": lambda: [*styled(), press(4, "softer:2")],
    "a film": lambda: [*styled(), press(4, "film:2")],
    "as a file": lambda: [*styled(), press(4, "file:2")],
}
PICTURES = {
    "a painter": 1,
    "a picture's style": 1,
    "several styles": 1,
    "a file": 2,
    "a change": 2,
    "as a file": 2,
    "a film": 2,
}


@pytest.fixture
def make_world() -> Callable[[Fate], World]:
    return lambda fate: World(MemoryS3(), fate)


def effects_of(world: World, scenario: str) -> list[str]:
    """Live through a scenario in peace, and return the effects in order."""
    world.live_through(SCENARIOS[scenario]())
    return world.fate.effects


def check_end(world: World, scenario: str, killed_after: str) -> None:
    """Check that every picture arrived, that nothing is left, and that the chat waits for a photo.

    A status message whose number the killed bot never learnt cannot be removed.
    """
    pictures = world.phone.pictures()
    assert PICTURES[scenario] <= len(pictures) <= 2 * PICTURES[scenario]
    assert set(pictures) == {b"painted garden"}
    left = [text for text in world.phone.texts() if text.startswith("Painting")]
    assert len(left) <= (1 if killed_after == "sendMessage" else 0)
    assert world.keys("jobs/") == []
    chat = bot.Store(world.s3, BUCKET).load_chat(CHAT).chat
    assert set(world.keys("chats/results/")) == chat.kept_keys()
    assert (chat.content, chat.jobs) == (None, ())


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_killed_once_at_any_point(make_world: Callable[[Fate], World], scenario: str) -> None:
    peaceful = make_world(Fate())
    effects = effects_of(peaceful, scenario)
    assert len(peaceful.phone.pictures()) == PICTURES[scenario]
    for point, effect in enumerate(effects):
        world = make_world(Fate(frozenset({point})))
        world.live_through(SCENARIOS[scenario]())
        try:
            check_end(world, scenario, effect)
        except AssertionError as error:
            raise AssertionError(f"killed after effect {point}, {effect}: {error}") from None
        extra = len(world.phone.pictures()) - PICTURES[scenario]
        assert extra <= 1, f"{extra} pictures too many after {effect}"


def test_a_file_that_is_kept_is_sent_without_the_model(
    make_world: Callable[[Fate], World],
) -> None:
    world = make_world(Fate())
    world.live_through(SCENARIOS["as a file"]())
    assert world.endpoint.calls == 1
    assert [message.kind for message in world.phone.shown.values() if message.file] == [
        "photo",
        "document",
    ]


def test_a_film_that_is_gone_is_told(make_world: Callable[[Fate], World]) -> None:
    world = make_world(Fate())
    *before, last = SCENARIOS["a film"]()
    world.live_through(before)
    for key in world.keys("chats/results/"):
        world.s3.delete_object(Bucket=BUCKET, Key=key)
    world.live_through([last])
    assert world.endpoint.calls == 1
    assert world.phone.texts()[-1] == "There is no film of this picture any more."


def test_a_file_that_is_gone_is_painted_anew(make_world: Callable[[Fate], World]) -> None:
    world = make_world(Fate())
    *before, last = SCENARIOS["as a file"]()
    world.live_through(before)
    for key in world.keys("chats/results/"):
        world.s3.delete_object(Bucket=BUCKET, Key=key)
    world.live_through([last])
    assert world.endpoint.calls == 2
    assert world.phone.pictures() == [b"painted garden"] * 2


def test_a_file_is_kept_for_as_long_as_its_buttons(
    make_world: Callable[[Fate], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each further result pushes the oldest one out, whatever point the bot is killed at."""

    def live(fate: Fate) -> World:
        world = make_world(fate)
        world.live_through([*styled(), press(4, "softer:2"), press(5, "softer:4")])
        return world

    monkeypatch.setattr(bot, "HISTORY_LENGTH", 2)
    peaceful = live(Fate())
    names = sorted(bot.KEPT_NAMES)
    assert peaceful.keys("chats/results/") == [
        f"chats/results/{job}/{name}" for job in (4, 5) for name in names
    ]
    for point in range(len(peaceful.fate.effects)):
        world = live(Fate(frozenset({point})))
        chat = bot.Store(world.s3, BUCKET).load_chat(CHAT).chat
        assert set(world.keys("chats/results/")) == chat.kept_keys(), f"killed after effect {point}"


def test_a_picture_that_is_cancelled_while_it_is_kept_leaves_nothing(
    make_world: Callable[[Fate], World],
) -> None:
    peaceful = make_world(Fate())
    effects = effects_of(peaceful, "a painter")
    world = make_world(Fate(frozenset({effects.index("copy to chats/results/2/result.png")})))
    running = world.start_bot()
    for given in SCENARIOS["a painter"]():
        running.handler.handle(given, str)
    with pytest.raises(Killed):
        settle(running)
    assert world.keys("chats/results/") == ["chats/results/2/result.png"]
    running = world.start_bot()
    running.handler.handle(update(3, text="/cancel"), str)
    settle(running)
    assert world.keys("chats/results/") + world.keys("jobs/") == []


def test_killed_while_a_guest_is_served(make_world: Callable[[Fate], World]) -> None:
    """The picture always comes to the private chat, and the message elsewhere tells of it."""

    def live(fate: Fate) -> World:
        world = make_world(fate)
        world.live_through([mention(1, "garden")])
        return world

    peaceful = live(Fate())
    assert peaceful.phone.pictures() == [b"painted garden"]
    assert peaceful.phone.guest == "Painted: Monet."
    for point, effect in enumerate(peaceful.fate.effects):
        world = live(Fate(frozenset({point})))
        assert len(world.phone.pictures()) in (1, 2), f"killed after effect {point}, {effect}"
        assert world.keys("jobs/") == []
        told = {"Painted: Monet.", "The painting is in our chat."}
        if effect == "answerGuestQuery":  # Telegram tells the message's id once
            told = {"Painting your photo: Monet."}
        assert world.phone.guest in told, f"killed after effect {point}, {effect}"


def test_killed_while_a_failure_is_told(make_world: Callable[[Fate], World]) -> None:
    def live(fate: Fate) -> World:
        world = make_world(fate)
        world.endpoint.error = {"code": "image_too_small", "message": "Too small."}
        world.live_through(SCENARIOS["a painter"]())
        return world

    for point in range(len(live(Fate()).fate.effects)):
        world = live(Fate(frozenset({point})))
        told = [text for text in world.phone.texts() if "did not work out. Too small." in text]
        assert len(told) in (1, 2), f"killed after effect {point}"
        assert world.keys("jobs/") == []


def test_killed_while_a_job_is_cancelled(make_world: Callable[[Fate], World]) -> None:
    """No picture comes after the user was told that the job is cancelled."""

    def live(fate: Fate) -> World:
        world = make_world(fate)
        unconfirmed = [photo(1, "garden"), press_monet(2), update(3, text="/cancel")]
        while unconfirmed:
            try:
                running = world.start_bot()
                handle_all(running, unconfirmed, submit_after={2})
                settle(running)
            except Killed:
                continue
        world.live_through([])
        return world

    peaceful = live(Fate())
    assert peaceful.phone.pictures() == []
    for point in range(len(peaceful.fate.effects)):
        world = live(Fate(frozenset({point})))
        assert world.phone.pictures() == [], f"killed after effect {point}"
        assert world.keys("jobs/") == []
        assert any("Cancelled" in text for text in world.phone.texts())


def test_killed_while_a_cancel_reaches_a_model_at_work(
    make_world: Callable[[Fate], World],
) -> None:
    """The model learns of it whenever it looks, until it has answered. Then nothing is left."""

    def live(fate: Fate) -> World:
        world = make_world(fate)
        world.endpoint.is_slow = True
        unconfirmed = [photo(1, "garden"), press_monet(2), update(3, text="/cancel")]
        has_answered = False
        while not has_answered or unconfirmed:
            try:
                running = world.start_bot()
                handle_all(running, unconfirmed, submit_after={2})
                for job in running.runner.pending():
                    running.runner.advance(job)
                world.endpoint.work()
                has_answered = True
                settle(running)
            except Killed:
                continue
        world.live_through([])
        return world

    peaceful = live(Fate())
    assert peaceful.endpoint.cancelled == peaceful.endpoint.calls == 1
    for point, effect in enumerate(peaceful.fate.effects):
        world = live(Fate(frozenset({point})))
        assert world.endpoint.cancelled == world.endpoint.calls, f"killed after {effect}"
        assert world.phone.pictures() == []
        assert world.keys("jobs/") == [], f"killed after {effect}"
        # An answer whose place the killed bot never learnt expires.
        assert effect == "invoke" or world.keys("async/") == [], f"killed after {effect}"


def test_killed_while_photos_wait_in_line(make_world: Callable[[Fate], World]) -> None:
    """Each of them is painted, one after the other, and the one that is cancelled is not."""

    def live(fate: Fate) -> World:
        world = make_world(fate)
        unconfirmed = []
        for number, name in enumerate(["garden", "house", "street"]):
            unconfirmed += [photo(10 * number, name), press_monet(10 * number + 1, name)]
        unconfirmed.append(press(30, "cancel:11"))
        numbers = {waiting.id for waiting in unconfirmed}
        running = world.start_bot()
        while True:
            try:
                handle_all(running, unconfirmed, submit_after=numbers)
                settle(running)
                return world
            except Killed:
                running = world.start_bot()

    peaceful = live(Fate())
    assert peaceful.phone.pictures() == [b"painted garden", b"painted street"]
    assert len(peaceful.fate.effects) > 30
    for point, effect in enumerate(peaceful.fate.effects):
        world = live(Fate(frozenset({point})))
        pictures = world.phone.pictures()
        assert set(pictures) == {b"painted garden", b"painted street"}, f"killed after {effect}"
        assert len(pictures) <= 3, f"killed after {effect}"
        assert world.keys("jobs/") == []
        chat = bot.Store(world.s3, BUCKET).load_chat(CHAT).chat
        assert (chat.content, chat.jobs) == (None, ())


def test_a_group_that_shared_one_state_gets_its_picture(
    make_world: Callable[[Fate], World],
) -> None:
    """Its job began before each member had a state."""

    def live(fate: Fate) -> World:
        world = make_world(fate)
        request = bot.PaintRequest(bot.ImageRef("garden", is_document=False), "monet", 1.0)
        before = bot.Store(world.s3, BUCKET)
        before.save_job(bot.PaintJob("8", -5, 1, None, "en", request, "Monet"))
        before.put_json("chats/-5.json", bot.Chat(jobs=(bot.Painting("8", request),)))
        world.live_through([])
        return world

    effects = live(Fate()).fate.effects
    assert effects
    for point, effect in enumerate(effects):
        world = live(Fate(frozenset({point})))
        assert set(world.phone.pictures()) == {b"painted garden"}, f"killed after {effect}"
        assert world.keys("jobs/") == [], f"killed after {effect}"
        member = bot.Store(world.s3, BUCKET).load_chat(-5, 1).chat
        assert (member.jobs, member.history[-1].job_id) == ((), "8"), f"killed after {effect}"


@pytest.mark.parametrize("album", ["7", ""])
def test_killed_while_several_styles_come_in_an_album_or_one_by_one(
    make_world: Callable[[Fate], World], album: str
) -> None:
    """The first picture is painted once, in the styles of all the others."""

    def live(fate: Fate) -> World:
        world = make_world(fate)
        unconfirmed = []
        for number, name in enumerate(["garden", "one", "two", "three"]):
            picture = [bot.TelegramFile(name)]
            unconfirmed.append(update(number + 1, photo=picture, media_group_id=album))
        running = world.start_bot()
        while True:
            try:
                handle_all(running, unconfirmed)
                settle(running)
                return world
            except Killed:
                running = world.start_bot()

    effects = live(Fate()).fate.effects
    for point, effect in enumerate(effects):
        world = live(Fate(frozenset({point})))
        assert set(world.phone.pictures()) == {b"painted garden"}, f"killed after {effect}"
        for request in world.endpoint.requests:
            urls = [f"s3://{BUCKET}/jobs/2/{name}" for name in ("style", "style-2", "style-3")]
            assert request["style_url"] == urls, f"killed after {effect}"
        assert any("the styles of your 3 pictures" in text for text in world.phone.texts())
        assert world.keys("jobs/") == []


def test_a_style_that_comes_after_the_start_is_told(
    make_world: Callable[[Fate], World],
) -> None:
    world = make_world(Fate())
    running = world.start_bot()
    for number, name in enumerate(["garden", "one", "two"]):
        picture = [bot.TelegramFile(name)]
        running.handler.handle(update(number + 1, photo=picture, media_group_id="7"), str)
        submit_all(running)
    assert "This style came too late" in world.phone.texts()[-1]
    settle(running)
    assert world.phone.pictures() == [b"painted garden"]


def test_those_that_wait_are_told_their_place_and_time(
    make_world: Callable[[Fate], World],
) -> None:
    world = make_world(Fate())
    world.endpoint.is_slow = True
    running = world.start_bot()
    for number, name in enumerate(["garden", "house", "street"]):
        running.handler.handle(photo(10 * number, name), str)
        running.handler.handle(press_monet(10 * number + 1, name), str)
    for job in running.runner.pending():
        running.runner.advance(job)
    assert world.endpoint.calls == 1  # the others wait
    places = [text for text in world.phone.texts() if "Number" in text]
    assert places == [
        "Your photo waits: Monet.\nNumber 2 in the queue",
        "Your photo waits: Monet.\nNumber 3 in the queue",
    ]
    progress = {"step": 40, "steps": 100, "seconds_left": 60}
    running.store.put_json("jobs/1/progress.json", progress)
    for _ in range(2):
        running.runner.scan_jobs()
        for job in running.runner.pending():
            running.runner.advance(job)
    places = [text.split("\n")[1] for text in world.phone.texts() if "Number" in text]
    assert places == [
        "Number 2 in the queue, starts in about 60 s",
        "Number 3 in the queue, starts in about 3 min",  # 60 s, and 100 s of a whole picture
    ]
    world.endpoint.work()
    running.models.scan_answers()
    running.runner.mark_answered()
    for job in running.runner.pending():
        running.runner.advance(job)
    texts = world.phone.texts()
    assert "Painting your photo: Monet." in texts  # the second one
    assert [text for text in texts if "Number" in text and "Number 2" not in text] == []


def test_a_second_bot_leaves_the_picture_that_the_first_has_made_of_the_status_message(
    make_world: Callable[[Fate], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two bots run with one token for a while; found by tests/soak/test_scenarios.py, seed 10."""
    world = make_world(Fate())
    world.endpoint.is_slow = True
    first, second = world.start_bot(), world.start_bot()
    first.handler.handle(photo(1, "garden"), str)
    first.handler.handle(press_monet(2), str)
    submit_all(first)
    second.runner.scan_jobs()
    world.endpoint.work()

    [job] = first.runner.pending()
    with monkeypatch.context() as without_network:
        without_network.setattr(world.phone, "call", refuse_to_connect)
        with pytest.raises(bot.TelegramError):
            finish(first, job)
    finish(first, job)
    [job] = second.runner.pending()
    finish(second, job)
    assert world.phone.pictures() == [b"painted garden"]


def test_a_picture_in_the_status_message_outlives_a_full_bucket_and_a_kill(
    make_world: Callable[[Fate], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by tests/soak/test_scenarios.py, seed 141."""
    world = make_world(Fate())
    world.endpoint.is_slow = True
    running = world.start_bot()
    running.handler.handle(photo(1, "garden"), str)
    running.handler.handle(press_monet(2), str)
    submit_all(running)
    world.endpoint.work()

    [job] = running.runner.pending()
    with monkeypatch.context() as without_network:
        without_network.setattr(world.phone, "call", refuse_to_connect)
        with pytest.raises(bot.TelegramError):
            finish(running, job)
    with monkeypatch.context() as full:
        full.setattr(running.store, "save_job", refuse_to_store)
        with pytest.raises(ClientError):
            finish(running, job)
    finish(running, job)
    settle(world.start_bot())  # the other one was killed
    assert world.phone.pictures() == [b"painted garden"]


def refuse_to_store(job: bot.PaintJob) -> None:
    error: Json = {"Error": {"Code": "InternalError", "Message": "The disk is full"}}
    raise ClientError(error | {"ResponseMetadata": {"HTTPStatusCode": 500}}, "PutObject")


def refuse_to_connect(method: str, **values: Json) -> Json:
    raise bot.TelegramError(method, 0, "ConnectTimeout")


def finish(running: bot.Bot, job: bot.PaintJob) -> None:
    running.models.scan_answers()
    running.runner.advance(job)


def test_a_second_press_makes_no_second_job(make_world: Callable[[Fate], World]) -> None:
    world = make_world(Fate())
    running = world.start_bot()
    for number, given in enumerate([photo(1, "garden"), press_monet(2), press_monet(3)]):
        running.handler.handle(given, str)
        assert len(running.runner.pending()) == (1 if number else 0)
    submit_all(running)
    for number in (4, 5):
        running.handler.handle(press(number, "cancel:2"), str)
    settle(running)
    assert world.phone.pictures() == []
    assert [text for text in world.phone.texts() if "Cancelled" in text] == world.phone.texts()[1:]
    running.handler.handle(press(6, "retry:2"), str)
    settle(running)
    running.handler.handle(press(7, "softer:6"), str)
    settle(running)
    running.handler.handle(press(8, "softer:6"), str)  # its job has ended: once more
    settle(running)
    assert len(world.phone.pictures()) == 3


def test_killed_while_the_best_picture_so_far_is_taken(
    make_world: Callable[[Fate], World],
) -> None:
    def live(fate: Fate) -> World:
        world = make_world(fate)
        world.endpoint.is_slow = True
        unconfirmed = [*styled(), press(4, "take:2")]
        while unconfirmed:
            try:
                running = world.start_bot()
                handle_all(running, unconfirmed, submit_after={3})
            except Killed:
                continue
        world.endpoint.work()
        world.live_through([])
        return world

    effects = live(Fate()).fate.effects
    assert "put jobs/2/control.json" in effects
    for point, effect in enumerate(effects):
        world = live(Fate(frozenset({point})))
        assert world.endpoint.taken == world.endpoint.calls, f"killed after {effect}"
        assert set(world.phone.pictures()) == {b"painted garden"}, f"killed after {effect}"
        assert world.keys("jobs/") == [], f"killed after {effect}"


# ---------------------------------------------------------------- painters that are trained

TEMPLATE = {
    "version": 1,
    "name_prefix": "stylebot-train-",
    "arguments": {
        "AlgorithmSpecification": {"TrainingImage": "image", "TrainingInputMode": "File"},
        "RoleArn": "arn:aws:iam::000000000000:role/stylebot",
        "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
        "ResourceConfig": {
            "InstanceType": "ml.g4dn.xlarge",
            "InstanceCount": 1,
            "VolumeSizeInGB": 30,
        },
    },
}


def put_template(world: World) -> None:
    bot.Store(world.s3, BUCKET).put_json("models/training.json", TEMPLATE)


def lesson(number: int, words: str = "/teach klimt") -> bot.Update:
    return update(number, photo=[bot.TelegramFile("the kiss")], caption=words)


def test_a_lesson_killed_once_at_any_point(make_world: Callable[[Fate], World]) -> None:
    def live(fate: Fate) -> World:
        world = make_world(fate)
        put_template(world)
        world.live_through([lesson(7)])
        return world

    peaceful = live(Fate())
    assert peaceful.phone.texts()[-1].startswith("klimt is ready.")
    for point, effect in enumerate(peaceful.fate.effects):
        world = live(Fate(frozenset({point})))
        assert list(world.trainer.jobs) == ["stylebot-train-klimt-7"]
        told = [text for text in world.phone.texts() if text.startswith("klimt is ready.")]
        assert len(told) in (1, 2), f"killed after effect {point}, {effect}"
        assert world.keys(bot.LESSONS_PREFIX) == []
        # An answer that the killed bot never learnt of expires
        assert len(world.keys("async/")) == (1 if effect == "invoke" else 0)


def test_a_lesson_shows_its_progress(make_world: Callable[[Fate], World]) -> None:
    world = make_world(Fate())
    put_template(world)
    running = world.start_bot()
    running.handler.handle(lesson(7), str)
    told = []
    while lessons := running.lessons.pending():
        running.models.scan_answers()
        running.lessons.advance(lessons[0])
        told.append(world.phone.shown[100].text)
    assert told[0].endswith("Waiting for a machine.")
    assert told[1].endswith("▓▓▓▓░░░░░░ 40%, about 10 min left")
    assert "sample" in told[-1]


def test_a_lesson_that_is_cancelled_stops_its_job(make_world: Callable[[Fate], World]) -> None:
    def live(fate: Fate) -> World:
        world = make_world(fate)
        put_template(world)
        unconfirmed = [lesson(7), press(8, "unteach:7")]
        running = world.start_bot()
        while unconfirmed:
            try:
                running.lessons.scan()
                running.handler.handle(unconfirmed[0], str)
                for pending in running.lessons.pending():
                    running.lessons.advance(pending)
                del unconfirmed[0]
            except Killed:
                running = world.start_bot()
        settle(running)
        return world

    effects = live(Fate()).fate.effects
    assert "stop training job" in effects
    for point in range(len(effects)):
        world = live(Fate(frozenset({point})))
        assert world.trainer.jobs == {}, f"killed after effect {point}, {effects[point]}"
        assert any("klimt has been stopped" in text for text in world.phone.texts())
        assert world.keys(bot.LESSONS_PREFIX) == []


def test_another_chat_cannot_stop_a_lesson(make_world: Callable[[Fate], World]) -> None:
    world = make_world(Fate())
    put_template(world)
    running = world.start_bot()
    running.handler.handle(lesson(7), str)
    running.lessons.stop("7", CHAT + 1)
    settle(running)
    assert world.phone.texts()[-1].startswith("klimt is ready.")


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (
            {"TrainingJobStatus": "Failed", "FailureReason": "AlgorithmError: The disk is full."},
            "The training of klimt has failed: The disk is full. You can",
        ),
        ({"TrainingJobStatus": "Stopped"}, "The training of klimt has been stopped."),
    ],
)
def test_a_training_that_fails_is_told(
    make_world: Callable[[Fate], World], end: Json, words: str
) -> None:
    world = make_world(Fate())
    put_template(world)
    world.trainer.end = end
    world.live_through([lesson(7)])
    assert world.phone.texts()[-1].startswith(words)
    assert world.endpoint.calls == 0


def test_a_training_that_aws_refuses_is_told_in_its_words(
    make_world: Callable[[Fate], World],
) -> None:
    world = make_world(Fate())
    put_template(world)
    about = {"Code": "ResourceLimitExceeded", "Message": "The limit is 0 Instances"}
    answer: Json = {"Error": about, "ResponseMetadata": {"HTTPStatusCode": 400}}
    world.trainer.refusal = ClientError(answer, "CreateTrainingJob")
    world.live_through([lesson(7)])
    assert "has failed: The limit is 0 Instances. You can" in world.phone.texts()[-1]


def test_a_painter_that_the_model_does_not_list_is_told(
    make_world: Callable[[Fate], World],
) -> None:
    world = make_world(Fate())
    put_template(world)
    world.endpoint.styles = ["monet"]
    world.live_through([lesson(7)])
    assert "the model cannot use what was trained" in world.phone.texts()[-1]


def test_a_job_that_sagemaker_has_lost_is_told(
    make_world: Callable[[Fate], World],
) -> None:
    world = make_world(Fate())
    put_template(world)
    running = world.start_bot()
    running.handler.handle(lesson(7), str)
    running.lessons.advance(running.lessons.pending()[0])
    world.trainer.jobs.clear()
    running.lessons.advance(running.lessons.pending()[0])  # just created: not known yet
    running.lessons.pending()[0].age += bot.LESSON_START_SECONDS
    settle(running)
    assert "SageMaker does not know it any more" in world.phone.texts()[-1]


@pytest.mark.parametrize(
    ("updates", "words"),
    [
        ([lesson(7), lesson(8)], "There is a painter of this name already"),
        ([lesson(7, "/teach monet")], "There is a painter of this name already"),
        ([lesson(7, "/teach Van Gogh")], "Give the painter a name"),
        ([lesson(7, "/teach")], "Give the painter a name"),
    ],
)
def test_a_name_that_cannot_be_is_refused(
    make_world: Callable[[Fate], World], updates: list[bot.Update], words: str
) -> None:
    world = make_world(Fate())
    put_template(world)
    running = world.start_bot()
    for given in updates:
        running.handler.handle(given, str)
    assert world.phone.texts()[-1].startswith(words)
    assert len(running.lessons.pending()) == len(updates) - 1


def test_without_a_template_nothing_is_trained(make_world: Callable[[Fate], World]) -> None:
    world = make_world(Fate())
    world.live_through([lesson(7)])
    assert world.phone.texts() == ["Painters cannot be trained here: ./deploy.py up sets that up."]


def test_names_of_training_jobs() -> None:
    name = bot.training_job_name
    assert name("stylebot-train-", "my_klimt", "7") == "stylebot-train-my-klimt-7"
    long = name("a" * 40 + "-train-", "b" * 32, "123456789")
    assert len(long) == 63
    assert long.endswith("-123456789")
