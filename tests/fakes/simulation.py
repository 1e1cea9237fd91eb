"""The whole bot in one process on a simulated clock: nothing waits, and every run is the same.

Each call of Telegram and S3 moves the clock. Threads are simulated: a task begins when it is handed
out, and what it takes passes for itself alone.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

import bot
from tests.fakes.memory_s3 import MemoryS3

Json = Any  # whatever JSON can hold
BOT = 7  # the bot's own number
CALL_SECONDS = 0.05  # of Telegram
S3_SECONDS = 0.01


class Clock:
    """Stands in for the module time in bot.py."""

    strftime = staticmethod(time.strftime)
    gmtime = staticmethod(time.gmtime)

    def __init__(self) -> None:
        self.now = 0.0
        self.offset = 1e9  # of the wall clock, which anybody may set

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now + self.offset

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Lock(threading.Condition):
    """The dispatcher's lock, whose waiting moves the clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def wait_for(self, predicate: Callable[[], Json], timeout: float | None = None) -> Json:
        if not predicate():
            self.clock.now += timeout or 0.0
        return True


class Bucket(MemoryS3):
    """S3 that takes its time."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(lambda: 1e9 + clock.now)
        self.clock = clock

    def _answer(self, **values: Json) -> Json:
        self.clock.now += S3_SECONDS
        return super()._answer(**values)


class Telegram(bot.TelegramClient):
    """Telegram with many chats."""

    messages_per_second = math.inf  # of a chat
    poll_seconds = 0.0  # until a call of getUpdates sees that something came

    def __init__(self, clock: Clock) -> None:
        super().__init__("https://api.telegram.org", "42:token")
        self.clock = clock
        self.queue: dict[int, tuple[float, bytes]] = {}  # updates, and when they were sent
        self.numbers = itertools.count(1)
        self.shown: defaultdict[int, list[tuple[float, str, str]]] = defaultdict(list)
        self.last_sent: dict[int, float] = {}

    def push(self, at: float, **content: Json) -> int:
        number = next(self.numbers)
        update = {"update_id": number, **content}
        self.queue[number] = (at, msgspec.json.encode(update))
        return number

    def photo(self, user: int, at: float) -> int:
        return self.push(at, message=message(user, photo=[{"file_id": f"photo of {user}"}]))

    def write(self, user: int, at: float, text: str) -> int:
        return self.push(at, message=message(user, text=text))

    def press(self, user: int, at: float, data: str) -> int:
        query = {"id": "1", "from": {"id": user}, "message": message(user), "data": data}
        return self.push(at, callback_query=query)

    def call(
        self, method: str, files: Json = None, read_timeout: float = 30, **values: Json
    ) -> Json:
        self.clock.now += CALL_SECONDS
        if method == "getUpdates":
            return self.updates(values.get("offset") or 0, values["limit"])
        if method not in bot.SEND_RESULTS:
            return None
        chat = values["chat_id"]
        wait = self.last_sent.get(chat, -1.0) + 1.0 / self.messages_per_second - self.clock.now
        if wait > 0:
            parameters = msgspec.Raw(msgspec.json.encode({"retry_after": math.ceil(wait)}))
            raise bot.TelegramError(method, 429, "Too Many Requests", parameters)
        self.last_sent[chat] = self.clock.now
        words = values.get("text") or values.get("caption") or ""
        self.shown[chat].append((self.clock.now, method, words))
        return bot.SentMessage(len(self.shown[chat]))

    def updates(self, offset: int, limit: int) -> list[msgspec.Raw]:
        for number in [number for number in self.queue if number < offset]:
            del self.queue[number]
        there = [raw for at, raw in self.queue.values() if at <= self.clock.now]
        if not there:
            self.clock.now += self.poll_seconds
        return [msgspec.Raw(raw) for raw in there[:limit]]

    def download(self, file_id: str) -> bytes:
        self.clock.now += CALL_SECONDS
        return file_id.encode()

    def said(self, chat: int) -> list[str]:
        return [words for _, _, words in self.shown[chat]]


def message(user: int, **content: Json) -> Json:
    return {"message_id": 1, "chat": {"id": user}, "from": {"id": user}, **content}


class Pool:
    """Sixteen threads, each of which has its own time."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.tasks: list[tuple[float, int, Callable[[], None]]] = []
        self.numbers = itertools.count()

    def submit(self, task: Callable[..., None], *values: Json) -> None:
        self.at(self.clock.now, lambda: task(*values))

    def at(self, when: float, task: Callable[[], None]) -> None:
        heapq.heappush(self.tasks, (when, next(self.numbers), task))


def no_trainer() -> Json:
    raise AssertionError("no painter is trained here")


class Process:
    """One running bot: what it does at which moment of the clock."""

    def __init__(self, running: bot.Bot, clock: Clock) -> None:
        self.clock = clock
        self.pool = Pool(clock)
        self.bot = running
        self.dispatcher = running.dispatcher
        self.dispatcher._pool = self.pool  # type: ignore[assignment]
        self.dispatcher._lock = Lock(clock)
        self.most_waiting = 0
        self.seconds = itertools.count()
        self.pool.submit(self.begin)

    def begin(self) -> None:
        if not self.dispatcher.load_stored():
            self.pool.submit(self.begin)
            return
        self.pool.submit(self.poll)
        self.pool.submit(self.watch)

    def poll(self) -> None:
        self.dispatcher.poll()
        waiting = len(self.dispatcher._backlog) + len(self.dispatcher._inbox)
        self.most_waiting = max(self.most_waiting, waiting)
        self.pool.at(self.clock.now, self.poll)

    def watch(self) -> None:
        self.dispatcher.look(next(self.seconds))
        self.pool.at(self.clock.now + 1, self.watch)


class Simulation:
    """What outlives the bot, and the bot. `start_bot` starts it, also after a kill."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        config: bot.Config,
        make_model: Callable[[MemoryS3], Json],
    ) -> None:
        self.clock = Clock()
        monkeypatch.setattr(bot, "time", self.clock)
        self.config = config
        self.s3 = Bucket(self.clock)
        self.telegram = Telegram(self.clock)
        self.model = make_model(self.s3)
        self.processes: list[Process] = []

    def start_bot(self) -> None:
        """Start the bot; if one runs, it was killed just now."""
        self.bot = bot.Bot(self.config, self.telegram, self.s3, self.model, no_trainer)
        self.bot.handler.me = bot.BotUser(BOT, "style_bot")
        self.dispatcher = self.bot.dispatcher
        self.processes.append(Process(self.bot, self.clock))

    @property
    def most_waiting(self) -> int:
        """Return how many updates have waited in a bot's memory at most."""
        return max(process.most_waiting for process in self.processes)

    def run(self, until: float) -> None:
        tasks = self.processes[-1].pool.tasks
        while tasks[0][0] < until:
            self.clock.now, _, task = heapq.heappop(tasks)
            task()
        self.clock.now = until
