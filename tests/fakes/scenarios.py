"""Twenty people talk to the bot while all that can fail does: on a simulated clock, from a seed.

Everything is in this process: the bot (two of them for a while), Telegram, S3, SageMaker's queue
and the model behind it. A kill is an exception that nothing catches; what the killed bot knew is
thrown away with it. A person only does what one can do in a chat, and sees what it shows.

`python -m tests.fakes.scenarios --count 200` plays 200 scenarios, and `--first-seed 10` begins with
the tenth.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import logging
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from unittest.mock import patch

import msgspec
from botocore.exceptions import ClientError, EndpointConnectionError

import bot
from tests.fakes.memory_s3 import MemoryS3
from tests.fakes.memory_s3 import error as s3_error
from tests.fakes.names import BUCKET
from tests.fakes.sagemaker import Invocation, Objects
from tests.fakes.simulation import (
    CALL_SECONDS,
    S3_SECONDS,
    Clock,
    Pool,
    Process,
    message,
    no_trainer,
)

Json = Any  # whatever JSON can hold

USERS = 20
FAULT_SECONDS = 600.0  # in which things fail
CALM_SECONDS = 900.0  # after them, until everybody must have what was accepted
LAST_SECONDS = 300.0  # for a last picture for everybody
FAULTS_A_SCENARIO = 10

CONFIG = bot.Config(
    token="42:token",
    bucket=BUCKET,
    endpoints={"nst": "nst", "cyclegan": "cyclegan"},
    styles={"monet": "Monet"},
    allowed_users=frozenset(),
    admins=frozenset(),
    daily_limit=0,
    telegram_api="https://api.telegram.org",
    support="Ask Vincent.",
)

# Keys that hold what no part has written.
POISON = (
    ("chats/-{n}.json", b"{"),
    ("chats/-{n}.json", b'{"moved": -{n}, "version": 3}'),
    ("chats/admins.json", b"[1, 2"),
    ("chats/notes.txt", b"\xff"),
    ("jobs/{n}/job.json", b'{"id": {}, "chat": "me"}'),
    ("jobs/{n}/job.json", b"[" * 5000),
    ("jobs/job.json", b"null"),
    ("async/output/poison.out", b"\x00"),
    ("async/failure/poison-error.out", b"<html>"),
    ("updates/{n}.json", b'{"updates": [7]}'),
    ("updates/{n}", b"\xff\xfe"),
    ("training/lessons/{n}.json", b'"lesson"'),
    ("models/catalog.json", b"{}"),
    ("quarantine/chats/-{n}.json", b"old"),
)
ODD_UPDATES: tuple[Json, ...] = (
    {"message": "a text"},
    {"message": {"chat": {"id": "me"}}},
    {"callback_query": {"id": 7, "data": None}},
    {"edited_message": {}},
    {"message": {"message_id": 1, "chat": {"id": 2**70}}},
)


class Killed(BaseException):
    """SIGKILL, as far as the bot's code can tell."""


class Weather:
    """What fails, and until when: a call that waits in a loop must see the end of it."""

    def __init__(self, clock: Clock, dice: random.Random) -> None:
        self.clock = clock
        self.dice = dice
        self.ends: dict[str, float] = {}
        self.kill_next = False  # the bot that makes one of the next calls

    def begin(self, fault: str, seconds: float) -> None:
        self.ends[fault] = self.clock.now + seconds

    def has(self, fault: str) -> bool:
        return self.clock.now < self.ends.get(fault, 0.0)

    def end_all(self) -> None:
        self.ends.clear()
        self.kill_next = False

    def maybe_kill(self) -> None:
        """Kill the caller, whether its call has had its effect or not."""
        if self.kill_next and self.dice.random() < 0.3:
            self.kill_next = False
            raise Killed

    def loses(self) -> bool:
        """Return whether this answer does not arrive."""
        return self.has("answers are lost") and self.dice.random() < 0.2


class FlakyS3:
    """S3 as the bot reaches it."""

    def __init__(self, s3: MemoryS3, clock: Clock, weather: Weather) -> None:
        self.s3 = s3
        self.clock = clock
        self.weather = weather
        self.exceptions = s3.exceptions

    def __getattr__(self, name: str) -> Callable[..., Json]:
        method = getattr(self.s3, name)

        def call(**values: Json) -> Json:
            weather = self.weather
            weather.maybe_kill()
            self.clock.now += 5.0 if weather.has("S3 is slow") else S3_SECONDS
            if weather.has("S3 refuses half") and weather.dice.random() < 0.5:
                raise s3_error(ClientError, "SlowDown", 503, name)
            if weather.has("S3 is full") and name in ("put_object", "copy_object"):
                raise s3_error(ClientError, "InternalError", 500, name)
            result = method(**values)
            weather.maybe_kill()
            if weather.loses():
                raise EndpointConnectionError(endpoint_url="http://storage")
            return result

        return call


@dataclass
class Shown:
    """A message as the chat shows it. at: when it became so."""

    at: float
    text: str
    buttons: list[str]
    file: bytes = b""


class Telegram:
    """Telegram with many chats, for several bots."""

    def __init__(self, clock: Clock, weather: Weather) -> None:
        self.clock = clock
        self.weather = weather
        self.updates: dict[int, tuple[float, bytes]] = {}
        self.numbers = itertools.count(1)
        self.messages = itertools.count(1)
        self.chats: dict[int, dict[int, Shown]] = {}
        self.pollers = 1

    def push(self, **content: Json) -> int:
        number = next(self.numbers)
        update = msgspec.json.encode({"update_id": number, **content})
        self.updates[number] = (self.clock.now, update)
        return number

    def chat(self, number: int) -> dict[int, Shown]:
        return self.chats.setdefault(number, {})

    def call(self, method: str, files: dict[str, Json], values: dict[str, Json]) -> Json:
        """Carry out a call. Raises TelegramError as the client does."""
        self.weather.maybe_kill()
        self.clock.now += CALL_SECONDS
        if self.weather.has("Telegram is cut"):
            raise bot.TelegramError(method, 0, "ConnectTimeout")
        result = self.carry_out(method, files, values)
        self.weather.maybe_kill()
        if self.weather.loses():
            raise bot.TelegramError(method, 0, "ReadTimeout")
        return result

    def carry_out(self, method: str, files: dict[str, Json], values: dict[str, Json]) -> Json:
        if method == "getMe":
            return bot.BotUser(42, username="stylebot")
        if method == "getUpdates":
            return self.get_updates(values.get("offset") or 0, values["limit"])
        if method == "answerCallbackQuery" or "chat_id" not in values:
            return True
        chat = self.chat(values["chat_id"])
        words = values.get("text") or values.get("caption") or ""
        buttons = read_buttons(values.get("reply_markup"))
        if method in bot.SEND_RESULTS:
            number = next(self.messages)
            chat[number] = Shown(self.clock.now, words, buttons, read_file(files))
            return bot.SentMessage(number)
        number = values.get("message_id", 0)
        if not number:
            return True
        if number not in chat:
            raise bot.TelegramError(method, 400, "Bad Request: message not found")
        if method == "deleteMessage":
            del chat[number]
            return True
        if method == "editMessageText" and chat[number].file:
            raise bot.TelegramError(method, 400, "Bad Request: there is no text to edit")
        file = chat[number].file
        if method == "editMessageMedia":
            words = values["media"].get("caption", "")
            file = read_file(files)
        chat[number] = Shown(self.clock.now, words, buttons, file)
        return True

    def get_updates(self, offset: int, limit: int) -> list[msgspec.Raw]:
        if self.pollers > 1 and self.weather.dice.random() < 0.5:
            raise bot.TelegramError("getUpdates", 409, "Conflict: terminated by other getUpdates")
        for number in [number for number in self.updates if number < offset]:
            del self.updates[number]
        there = [raw for at, raw in self.updates.values() if at <= self.clock.now]
        if not there:
            self.clock.now += 0.5
        return [msgspec.Raw(raw) for raw in there[:limit]]


def read_buttons(markup: Json) -> list[str]:
    rows = (markup or {}).get("inline_keyboard", [])
    return [button["callback_data"] for row in rows for button in row]


def read_file(files: dict[str, Json]) -> bytes:
    for value in files.values():
        data: bytes = value[1] if isinstance(value, tuple) else value
        return data
    return b""


class Client(bot.TelegramClient):
    """The bot's client, without HTTP."""

    def __init__(self, telegram: Telegram) -> None:
        super().__init__("https://api.telegram.org", "42:token")
        self.telegram = telegram

    def call(
        self, method: str, files: Json = None, read_timeout: float = 30, **values: Json
    ) -> Json:
        return self.telegram.call(method, files or {}, values)

    def download(self, file_id: str) -> bytes:
        self.telegram.call("getFile", {}, {})
        return file_id.encode()

    def download_head(self, file_id: str) -> bytes:
        return b"\x89PNG"


class Runtime:
    """SageMaker's queue, which outlives everything, and one model that works it off."""

    def __init__(self, s3: MemoryS3, clock: Clock, weather: Weather) -> None:
        self.objects = Objects(s3)
        self.clock = clock
        self.weather = weather
        self.numbers = itertools.count(1)
        self.queue: list[tuple[float, int, Invocation]] = []  # when the model is done with it

    def invoke_endpoint_async(self, **values: Json) -> Json:
        self.weather.maybe_kill()
        if self.weather.has("the runtime is down"):
            raise EndpointConnectionError(endpoint_url="http://sagemaker")
        number = next(self.numbers)
        invocation = Invocation.numbered(values["InputLocation"], number)
        done = self.clock.now + self.weather.dice.uniform(1, 20)
        heapq.heappush(self.queue, (done, number, invocation))
        self.weather.maybe_kill()
        if self.weather.loses():
            raise EndpointConnectionError(endpoint_url="http://sagemaker")
        return invocation.answer

    def work(self) -> None:
        """Answer what is due."""
        while self.queue and self.queue[0][0] <= self.clock.now:
            _, _, invocation = heapq.heappop(self.queue)
            try:
                self.paint(invocation)
            except ClientError:  # a cancelled job: its objects are gone
                error = {"error": {"code": "object_not_found", "message": "It is gone."}}
                self.objects.write(invocation.failure_url, json.dumps(error).encode())

    def paint(self, invocation: Invocation) -> None:
        request = json.loads(self.objects.read(invocation.input_url))
        content = self.objects.read(request["content_url"])
        self.objects.write(request["result_url"], b"painted " + content)
        answer = {"size": [800, 600], "seconds": 2.0}
        self.objects.write(invocation.output_url, json.dumps(answer).encode())

    def kill_model(self) -> None:
        """Let what the model works on begin anew."""
        later = [(at + 30.0, number, invocation) for at, number, invocation in self.queue]
        self.queue = later
        heapq.heapify(self.queue)


@dataclass
class Accepted:
    """A request of which the chat said that it is being painted. photo: what it paints."""

    user: int
    job_id: str
    photo: str
    at: float
    cancelled_at: float | None = None  # when the chat said so
    told_failure: bool = False


@dataclass
class User:
    """A person, who sends photos, presses painters, cancels now and then, and waits."""

    world: World
    number: int
    sent: int = 0
    state: str = "idle"
    since: float = 0.0
    cancelling: str = ""
    accepted: dict[str, Accepted] = field(default_factory=dict)
    is_last: bool = False  # nothing new is begun any more

    @property
    def photo(self) -> str:
        return f"photo {self.number} {self.sent}"

    def chat(self) -> list[Shown]:
        return list(self.world.telegram.chat(self.number).values())

    def enter(self, state: str) -> None:
        self.state = state
        self.since = self.world.clock.now

    def look(self) -> None:
        """Look at the chat, and do the next thing."""
        self.note()
        waited = self.world.clock.now - self.since
        if self.state == "idle":
            if not self.is_last:
                self.send_photo()
        elif self.state == "asked":
            if self.press_style():
                return
            patience = 120
            if self.find_paint():  # it was taken as a style of the photo before it
                patience = 30
            if waited > patience:
                self.send_photo()
        elif self.state == "styles sent":
            if not self.press_paint() and waited > 120:
                self.send_photo()
        elif self.state == "waiting":
            if self.has_picture() or self.is_cancelled():
                self.enter("idle")
            elif waited > 900:
                self.send_photo()
            else:
                self.maybe_cancel()

    def send_photo(self) -> None:
        self.sent += 1
        self.world.telegram.push(message=message(self.number, photo=[{"file_id": self.photo}]))
        self.enter("asked")

    def write(self, text: str) -> None:
        self.world.telegram.push(message=message(self.number, text=text))

    def press_style(self) -> bool:
        """Press a painter's button of the newest question, or send pictures of styles."""
        questions = [
            (shown, data)
            for shown in self.chat()
            for data in shown.buttons
            if data.startswith("style:") and shown.at >= self.since
        ]
        if not questions:
            return False
        _, data = questions[-1]
        dice = self.world.dice
        if dice.random() < 0.2:
            for number in range(dice.randint(1, 3)):
                self.send_style(number)
            self.enter("styles sent")
            return True
        for _ in range(2 if dice.random() < 0.1 else 1):
            self.press(data)
        self.enter("waiting")
        return True

    def send_style(self, number: int) -> None:
        style = f"style {self.number} {self.sent} {number}"
        self.world.telegram.push(message=message(self.number, photo=[{"file_id": style}]))

    def find_paint(self) -> str:
        """Return the button Paint under what the bot has said about the styles, or ""."""
        for shown in reversed(self.chat()):
            for data in shown.buttons:
                if data.startswith("paint:") and shown.at >= self.since:
                    return data
        return ""

    def press_paint(self) -> bool:
        """Press Paint, or wait until the painting begins by itself."""
        data = self.find_paint()
        if not data:
            return False
        if self.world.dice.random() < 0.7:
            self.press(data)
        self.enter("waiting")
        return True

    def press(self, data: str) -> None:
        user = {"id": self.number}
        query = {"id": "1", "from": user, "message": message(self.number), "data": data}
        self.world.telegram.push(callback_query=query)

    def maybe_cancel(self) -> None:
        if self.is_last or self.cancelling or self.world.dice.random() > 0.05:
            return
        for shown in reversed(self.chat()):
            for data in shown.buttons:
                if data.startswith("cancel:"):
                    self.cancelling = data.removeprefix("cancel:")
                    self.press(data)
                    return

    def note(self) -> None:
        """Remember what the chat says about jobs."""
        cancelled = bot.translate("en", "cancelled")
        failed = bot.translate("en", "failed")
        for shown in self.chat():
            for data in shown.buttons:
                job_id = data.partition(":")[2]
                if data.startswith("cancel:") and job_id not in self.accepted:
                    self.accept(job_id, shown.at)
            if self.cancelling in self.accepted and cancelled in shown.text:
                job = self.accepted[self.cancelling]
                if shown.at >= job.at and job.cancelled_at is None:
                    job.cancelled_at = shown.at
                    self.cancelling = ""
            if shown.text.startswith(failed):
                for job in self.accepted.values():
                    job.told_failure |= shown.at >= job.at

    def accept(self, job_id: str, at: float) -> None:
        entry = self.world.s3.objects.get(f"jobs/{job_id}/job.json")
        # The first picture in it. One that was sent as a style may have become the photograph.
        found = re.search(rb"(photo|style) \d+ \d+", entry.data) if entry else None
        if found:  # else it has ended already
            self.accepted[job_id] = Accepted(self.number, job_id, found.group().decode(), at)

    def has_picture(self) -> bool:
        return bool(self.pictures(self.photo))

    def pictures(self, photo: str) -> list[Shown]:
        wanted = b"painted " + photo.encode()
        return [shown for shown in self.chat() if shown.file == wanted]

    def pictures_of(self, job_id: str) -> list[Shown]:
        """Return the results of a job: their buttons name it."""
        return [
            shown
            for shown in self.chat()
            if shown.file.startswith(b"painted")
            and any(data.partition(":")[2] == job_id for data in shown.buttons)
        ]

    def is_cancelled(self) -> bool:
        jobs = [job for job in self.accepted.values() if job.photo == self.photo]
        return bool(jobs) and all(job.cancelled_at is not None for job in jobs)


class World:
    """One scenario. `live` plays it; `verdict` says what became of the requests."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.dice = random.Random(seed)
        self.clock = Clock()
        self.weather = Weather(self.clock, self.dice)
        self.s3 = MemoryS3(lambda: 1e9 + self.clock.now)
        self.telegram = Telegram(self.clock, self.weather)
        self.runtime = Runtime(self.s3, self.clock, self.weather)
        self.processes: list[Process] = []
        self.own = Pool(self.clock)
        self.users = [User(self, 1000 + number) for number in range(USERS)]
        self.happened: Counter[str] = Counter()
        self.numbers = itertools.count(10**12)

    # --- time ---

    def run(self, until: float) -> None:
        while True:
            pools = [self.own, *(process.pool for process in self.processes)]
            pool = min((p for p in pools if p.tasks), key=lambda p: p.tasks[0][0])
            if pool.tasks[0][0] >= until:
                break
            self.clock.now, _, task = heapq.heappop(pool.tasks)
            try:
                task()
            except Killed:
                self.bury(pool)
        self.clock.now = until

    def bury(self, pool: Pool) -> None:
        self.processes = [process for process in self.processes if process.pool is not pool]
        self.telegram.pollers = len(self.processes)
        self.happened["kill"] += 1
        self.own.at(self.clock.now + self.dice.uniform(0.5, 5), self.start_if_none)

    def start_if_none(self) -> None:
        if not self.processes:
            self.start_bot()

    def start_bot(self) -> None:
        s3 = FlakyS3(self.s3, self.clock, self.weather)
        started = bot.Bot(CONFIG, Client(self.telegram), s3, self.runtime, no_trainer)
        self.processes.append(Process(started, self.clock))
        self.telegram.pollers = len(self.processes)

    # --- the scenario ---

    def live(self) -> None:
        self.start_bot()
        self.own.at(0.5, self.work)
        for user in self.users:
            self.own.at(self.dice.uniform(0, 60), partial(self.visit, user))
        faults = list(FAULTS)
        for _ in range(FAULTS_A_SCENARIO):
            fault = self.dice.choice(faults)
            at = self.dice.uniform(10, FAULT_SECONDS)
            self.own.at(at, partial(self.strike, fault))
        self.run(FAULT_SECONDS)
        self.end_faults()
        for user in self.users:
            user.is_last = True
        self.run(FAULT_SECONDS + CALM_SECONDS)
        for user in self.users:
            user.note()
            user.send_photo()
        self.run(FAULT_SECONDS + CALM_SECONDS + LAST_SECONDS)

    def visit(self, user: User) -> None:
        user.look()
        self.own.at(self.clock.now + self.dice.uniform(3, 15), partial(self.visit, user))

    def work(self) -> None:
        self.runtime.work()
        self.own.at(self.clock.now + 0.5, self.work)

    def strike(self, fault: str) -> None:
        self.happened[fault] += 1
        FAULTS[fault](self)

    def end_faults(self) -> None:
        self.weather.end_all()
        del self.processes[1:]
        self.telegram.pollers = len(self.processes)

    def poison(self) -> None:
        for key, data in self.dice.sample(POISON, 4):
            number = str(next(self.numbers)).encode()
            key = key.replace("{n}", number.decode())
            self.s3.put_object(Bucket=BUCKET, Key=key, Body=data.replace(b"{n}", number))
        self.telegram.push(**self.dice.choice(ODD_UPDATES))

    def jump(self) -> None:
        self.clock.offset += self.dice.choice([-86400.0, -7200.0, 7200.0, 30 * 86400.0])

    def stop_second(self, process: Process) -> None:
        if process in self.processes and len(self.processes) > 1:
            self.processes.remove(process)
            self.telegram.pollers = len(self.processes)

    def start_second(self) -> None:
        if len(self.processes) != 1:
            return
        self.start_bot()
        second = self.processes[-1]
        end = self.clock.now + self.dice.uniform(20, 120)
        self.own.at(end, lambda: self.stop_second(second))

    def kill(self) -> None:
        self.weather.kill_next = True


def lasting(fault: str, least: float, most: float) -> Callable[[World], None]:
    """Return what begins a fault of the weather; least, most: its seconds."""
    return lambda world: world.weather.begin(fault, world.dice.uniform(least, most))


FAULTS: dict[str, Callable[[World], None]] = {
    "kill the bot": World.kill,
    "kill it again": World.kill,
    "S3 refuses half": lasting("S3 refuses half", 20, 120),
    "S3 is slow": lasting("S3 is slow", 20, 90),
    "S3 is full": lasting("S3 is full", 20, 90),
    "Telegram is cut": lasting("Telegram is cut", 30, 300),
    "answers are lost": lasting("answers are lost", 20, 90),
    "the runtime is down": lasting("the runtime is down", 10, 60),
    "kill the model": lambda world: world.runtime.kill_model(),
    "the clock jumps": World.jump,
    "two bots": World.start_second,
    "poison": World.poison,
}


@dataclass
class Verdict:
    """What became of requests. What must not be is in lists, with the scenario's number.

    failed, lost, delivered_after_cancel: jobs. stuck: people whose last photograph was not painted.
    """

    accepted: int = 0
    once: int = 0
    twice: int = 0
    cancelled: int = 0
    failed: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    delivered_after_cancel: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)

    def broken(self) -> bool:
        return bool(self.failed or self.lost or self.delivered_after_cancel or self.stuck)

    def add(self, other: Verdict) -> None:
        self.accepted += other.accepted
        self.once += other.once
        self.twice += other.twice
        self.cancelled += other.cancelled
        self.failed += other.failed
        self.lost += other.lost
        self.delivered_after_cancel += other.delivered_after_cancel
        self.stuck += other.stuck


def judge(world: World) -> Verdict:
    verdict = Verdict()
    for user in world.users:
        user.note()
        if not user.has_picture():
            verdict.stuck.append(f"{world.seed}: {user.number}")
        for job in user.accepted.values():
            verdict.accepted += 1
            name = f"{world.seed}: {job.job_id}"
            shown = user.pictures_of(job.job_id)
            if job.cancelled_at is not None:
                verdict.cancelled += 1
                if any(picture.at > job.cancelled_at for picture in shown):
                    verdict.delivered_after_cancel.append(name)
            elif len(shown) > 1:
                verdict.twice += 1
            elif shown:
                verdict.once += 1
            elif job.told_failure:
                verdict.failed.append(name)
            else:
                verdict.lost.append(name)
    return verdict


@contextmanager
def simulated_time(world: World) -> Iterator[None]:
    """Let bot.py take the time and its chance from this world."""
    chance = random.getstate()
    random.seed(world.seed)
    try:
        with patch.object(bot, "time", world.clock):
            yield
    finally:
        random.setstate(chance)


def play(seed: int) -> tuple[World, Verdict]:
    """Play one scenario to its end."""
    world = World(seed)
    with simulated_time(world):
        world.live()
    return world, judge(world)


def play_all(seeds: Iterable[int]) -> Verdict:
    """Play scenarios, print what became of each, and return what became of all."""
    everything = Verdict()
    for seed in seeds:
        world, verdict = play(seed)
        print(f"seed {seed}: {verdict} {dict(world.happened)}", flush=True)
        everything.add(verdict)
    return everything


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fakes.scenarios")
    parser.add_argument("--count", type=int, default=200, help="how many scenarios to play")
    parser.add_argument("--first-seed", type=int, default=1, help="the number of the first one")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    first: int = arguments.first_seed
    verdict = play_all(range(first, first + arguments.count))
    print(f"all: {verdict}")
    return int(verdict.broken())


if __name__ == "__main__":
    raise SystemExit(main())
