"""Anything in any order: messages, kills, lost answers, odd answers, poison in S3, clock jumps.

Hypothesis chooses the steps and repeats them with every run. In the end the faults stop, and then:
no request that was accepted is lost, no picture came after its user was told that it is cancelled,
every chat can be used, and nothing is left in S3.

BOT_STATES=100 takes a hundred times as many steps, other ones with each run.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

import bot
from tests.fakes.memory_s3 import MemoryS3
from tests.fakes.names import BUCKET
from tests.fakes.sagemaker import Answer, Invocation, Objects, Request, work_on
from tests.fakes.simulation import BOT, Bucket, Simulation, Telegram, message
from tests.unit.test_bot_doors import BAD_CHATS, BAD_JOBS, BAD_UPDATES
from tests.unit.test_bot_kill_points import CHAT, CONFIG, Killed

Json = Any  # whatever JSON can hold
MORE = int(os.environ.get("BOT_STATES", "0"))
EXAMPLES, STEPS = 60 * (MORE or 1), 50
USERS = (1, 2, 3)
GROUP = -5
CHATS = (*USERS, GROUP)
CONVERSATIONS = (*((user, user) for user in USERS), *((GROUP, user) for user in USERS))

chats = st.sampled_from(CHATS)
users = st.sampled_from(USERS)
PREFIXES = ("chats/", "jobs/", "async/", "updates/", "models/", "training/lessons/", "quarantine/")
# An object that leads to another chat fits, and so does one without any member that the bot knows.
POISON = [data for data in BAD_CHATS if data != b'{"moved": %d}' % CHAT]
JOB_POISON = [*POISON, *BAD_JOBS]
ODD_UPDATES = [b"null", b"7", b"{}", *BAD_UPDATES]


@dataclass
class Faults:
    """What goes wrong next. Counted in calls."""

    kill_in: int = 0  # 0: not
    lost_in: int = 0
    refusals: list[int] = field(default_factory=list)  # error codes of the next calls
    is_s3_down: bool = False

    def count_down(self) -> bool:
        """Note an effect. Returns whether its answer is lost. Raises Killed."""
        if self.kill_in:
            self.kill_in -= 1
            if not self.kill_in:
                raise Killed
        if self.lost_in:
            self.lost_in -= 1
            return not self.lost_in
        return False


def conversation(chat: int, user: int) -> int:
    """Return a number that stands for a chat, or for a member of the group."""
    return GROUP * 10 - user if chat == GROUP else chat


class FaultyBucket(Bucket):
    faults: Faults

    def _answer(self, **values: Json) -> Json:
        answer = super()._answer(**values)
        if self.faults.is_s3_down or self.faults.count_down():
            raise EndpointConnectionError(endpoint_url="http://s3")
        return answer


class FaultyTelegram(Telegram):
    """Remembers what was accepted, what was told, and which job each picture belongs to."""

    faults: Faults
    s3: MemoryS3
    poll_seconds = 1.0

    def start_log(self) -> None:
        self.accepted: dict[str, int] = {}  # jobs, and their chats
        self.ended: set[str] = set()  # jobs whose chat was told that they are cancelled or failed
        self.cancelled: set[str] = set()
        self.pictures: Counter[str] = Counter()  # by job
        self.late: list[str] = []
        self.failures: Counter[int] = Counter()  # told without a button that names the job

    def call(
        self, method: str, files: Json = None, read_timeout: float = 30, **values: Json
    ) -> Json:
        if method == "getUpdates":
            return super().call(method, files, read_timeout, **values)
        if self.faults.refusals:
            code = self.faults.refusals.pop()
            raise bot.TelegramError(method, code, "odd")
        result = super().call(method, files, read_timeout, **values)
        self.note(method, values)
        if self.faults.count_down():
            raise bot.TelegramError(method, 0, "the answer is lost")
        return result

    def note(self, method: str, values: dict[str, Json]) -> None:
        chat = values.get("chat_id", 0)
        if chat == GROUP and values.get("reply_parameters"):
            chat = conversation(chat, values["reply_parameters"]["message_id"])
        caption = values.get("caption") or values.get("media", {}).get("caption")
        words = values.get("text") or caption or ""
        rows = (values.get("reply_markup") or {}).get("inline_keyboard", [])
        data = [
            button["callback_data"].partition("@")[0].split(":", 1)
            for row in rows
            for button in row
        ]
        jobs = {argument for verb, argument in data if verb in ("cancel", "another")}
        begins = ("Painting your photo", "Your photo waits")
        if method == "sendMessage" and words.startswith(begins):
            self.accepted.update(dict.fromkeys(jobs, chat))
        if "did not work out" in words or "Something went wrong" in words:
            self.ended.update(jobs or self.given_up(chat))
            if words.endswith("Please send me another photo."):  # which job it was is not said
                self.failures[chat] += 1
        if method == "sendMessage" and "Cancelled." in words:
            self.cancelled.update(self.given_up(chat) - self.ended)
            self.ended.update(self.given_up(chat))
        if words.startswith("Painted"):  # sent, or shown in the status message
            self.pictures.update(jobs)
            self.late.extend(jobs & self.cancelled)

    def given_up(self, chat: int) -> set[str]:
        """Return the accepted jobs without a picture that the chat does not own any more."""
        key = f"chats/{chat}.json"
        if chat < GROUP:
            key = f"chats/{GROUP}/{GROUP * 10 - chat}.json"
        owned = []
        with contextlib.suppress(KeyError, bot.MisfitError):
            owned = [job.job_id for job in bot.decode(self.s3.objects[key].data, bot.Chat).jobs]
        return self.jobs_of(chat) - set(owned)

    def jobs_of(self, chat: int) -> set[str]:
        """Return the accepted jobs of a chat that have no picture yet."""
        return {job for job, owner in self.accepted.items() if owner == chat} - set(self.pictures)


class Model:
    """Accepts requests, and works on them when it is told to."""

    def __init__(self, s3: MemoryS3) -> None:
        self.s3 = s3
        self.objects = Objects(s3)
        self.held: list[Invocation] = []
        self.calls = 0

    def invoke_endpoint_async(self, **values: Json) -> Json:
        self.calls += 1
        invocation = Invocation.numbered(values["InputLocation"], self.calls)
        self.held.append(invocation)
        return invocation.answer

    def work(self, code: str = "") -> None:
        """Answer all that is held, with a picture or with an error."""
        while self.held:
            invocation = self.held.pop()
            try:
                work_on(invocation, self.objects, lambda request: self.stylize(request, code))
            except (ClientError, ValueError, KeyError, TypeError):
                # Its request is gone, or no longer one.
                error = {"error": {"code": "bad_request", "message": "s3://secret"}}
                self.objects.write(invocation.failure_url, msgspec.json.encode(error))

    def stylize(self, request: Request, code: str) -> Answer:
        if code:
            return {"error": {"code": code, "message": "s3://secret"}}
        content = self.objects.read(request["content_url"])
        self.objects.write(request["result_url"], b"painted " + content)
        if "lossless_url" in request:
            self.objects.write(request["lossless_url"], b"painted " + content)
        if "film_url" in request:
            self.objects.write(request["film_url"], b"painted " + content)
        return {"size": [800, 600], "seconds": 2.0}

    def tell_progress(self, data: bytes) -> None:
        for invocation in self.held:
            job = invocation.input_url.split("/")[-2]
            self.objects.write(f"s3://{BUCKET}/jobs/{job}/progress.json", data)


class World(Simulation):
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(monkeypatch, replace(CONFIG, daily_limit=1000), Model)
        self.faults = Faults()
        self.s3: FaultyBucket = FaultyBucket(self.clock)
        self.s3.faults = self.faults
        self.model: Model = Model(self.s3)
        self.telegram: FaultyTelegram = FaultyTelegram(self.clock)
        self.telegram.faults = self.faults
        self.telegram.s3 = self.s3
        self.telegram.start_log()
        self.start_bot()

    def run_for(self, seconds: float) -> None:
        """Let time pass. A bot that is killed is started again."""
        until = self.clock.now + seconds
        while True:
            try:
                return self.run(until)
            except Killed:
                self.start_bot()

    def be_calm(self) -> None:
        """End all faults."""
        self.faults.kill_in = self.faults.lost_in = 0
        self.faults.refusals.clear()
        self.faults.is_s3_down = False


class Machine(RuleBasedStateMachine):
    """The steps that Hypothesis chooses from."""

    @initialize()
    def begin(self) -> None:
        self.patch = pytest.MonkeyPatch()
        self.world = World(self.patch)

    # What people do

    def sender(self, chat: int, user: int) -> int:
        return user if chat == GROUP else chat

    def say(self, chat: int, user: int, **content: Json) -> None:
        said = message(self.sender(chat, user), **content) | {"chat": {"id": chat}}
        if chat == GROUP:
            said["message_id"] = user  # what answers to it is then about this user
            said["reply_to_message"] = {"message_id": 99, "from": {"id": BOT, "is_bot": True}}
        self.world.telegram.push(self.world.clock.now, message=said)

    @rule(chat=chats, seconds=st.sampled_from([0.0, 0.1, 0.4, 1.0, 3.0]))
    def ask_for_a_painting(self, chat: int, seconds: float) -> None:
        self.say(chat, 1, photo=[{"file_id": f"photo of {chat}"}])
        self.say(chat, 1, text="Monet")
        self.world.run_for(seconds)

    @rule(chat=chats, seconds=st.sampled_from([0.0, 0.1, 1.0]))
    def paint(self, chat: int, seconds: float) -> None:
        """Ask for a painting, and let the model make it; it is not always sent yet."""
        self.ask_for_a_painting(chat, 2.0)
        self.let_the_model_answer("")
        self.world.run_for(seconds)

    @rule(chat=chats, seconds=st.sampled_from([0.1, 1.0]))
    def cancel(self, chat: int, seconds: float) -> None:
        self.say(chat, 1, text="/cancel")
        self.world.run_for(seconds)

    @rule(chat=chats, user=users, count=st.sampled_from([1, 1, 1, 2, 2, 5, 150]))
    def send_photos(self, chat: int, user: int, count: int) -> None:
        for _ in range(count):
            self.say(chat, user, photo=[{"file_id": f"photo of {chat}"}])

    @rule(
        chat=chats,
        user=users,
        words=st.sampled_from(["/cancel", "/start", "Monet", "/help", "hm", "/stats"]),
    )
    def write(self, chat: int, user: int, words: str) -> None:
        self.say(chat, user, text=words)

    @rule(
        chat=chats,
        user=users,
        verb=st.sampled_from(
            ["style", "paint", "cancel", "take", "film", "retry", "another", "softer", "file"]
        ),
        back=st.integers(0, 3),
    )
    def press(self, chat: int, user: int, verb: str, back: int) -> None:
        """Press a button under one of the last messages."""
        owner = 1 + back % 2 if chat == GROUP else chat  # not always the one who presses
        accepted = self.world.telegram.accepted.items()
        jobs = [job for job, owned in accepted if owned == conversation(chat, owner)]
        argument = jobs[-1 - back] if back < len(jobs) else "0"
        if verb == "style":
            photo = bot.ImageRef(f"photo of {chat}", is_document=False)
            argument = f"monet:{photo.tag}"
        at = message(chat) | {"chat": {"id": chat}, "message_id": owner}
        if chat == GROUP:
            argument += f"@{owner}"
        sender = {"id": self.sender(chat, user)}
        query = {"id": "1", "from": sender, "message": at, "data": f"{verb}:{argument}"}
        self.world.telegram.push(self.world.clock.now, callback_query=query)

    # What goes on

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.0, 2.0, 4.0]))
    def pass_time(self, seconds: float) -> None:
        self.world.run_for(seconds)

    @rule(code=st.sampled_from(["", "", "", "internal", "image_unreadable", "of_tomorrow"]))
    def let_the_model_answer(self, code: str) -> None:
        self.calmly(lambda: self.world.model.work(code))

    @rule(steps=st.integers(0, 10))
    def let_the_model_tell_progress(self, steps: int) -> None:
        data = msgspec.json.encode({"step": steps, "steps": 10, "preview": "aGk="})
        self.calmly(lambda: self.world.model.tell_progress(data))

    def calmly(self, act: Any) -> None:  # noqa: ANN401 - any callable
        """Do what the bot does not do: the faults are its own."""
        faults = self.world.faults
        self.world.s3.faults = Faults()
        act()
        self.world.s3.faults = faults

    # What goes wrong

    @rule()
    def kill(self) -> None:
        self.world.start_bot()

    @rule(effects=st.integers(1, 12), seconds=st.sampled_from([0.5, 2.0]))
    def kill_after(self, effects: int, seconds: float) -> None:
        self.world.faults.kill_in = effects
        self.world.run_for(seconds)

    @rule(effects=st.integers(1, 12))
    def lose_an_answer(self, effects: int) -> None:
        self.world.faults.lost_in = effects

    @rule(codes=st.lists(st.sampled_from([0, 429, 500, 502]), min_size=1, max_size=3))
    def refuse_calls(self, codes: list[int]) -> None:
        self.world.faults.refusals.extend(codes)

    @rule(seconds=st.sampled_from([0.1, 3.0]))
    def cut_s3(self, seconds: float) -> None:
        self.world.faults.is_s3_down = True
        self.world.run_for(seconds)
        self.world.faults.is_s3_down = False

    @rule(seconds=st.sampled_from([-7200.0, 7200.0, 86400.0]))
    def set_the_clock(self, seconds: float) -> None:
        self.world.clock.offset += seconds

    @rule(
        prefix=st.sampled_from([*PREFIXES, "jobs/", "jobs/", "chats/"]),
        which=st.integers(0, 10),
        poison=st.integers(0, len(JOB_POISON) - 1),
        is_new=st.sampled_from([False, False, False, True]),
    )
    def poison(self, prefix: str, which: int, poison: int, is_new: bool) -> None:
        """Overwrite an object, or write one that nobody asked for."""
        keys = [key for key in sorted(self.world.s3.objects) if key.startswith(prefix)]
        pictures = ("content", "style", "request.json", "control.json", "result.jpg", "result.png")
        keys = [key for key in keys if not key.endswith(pictures)]
        key = f"{prefix}{which}/x.json" if which % 2 else f"{prefix}{which}.json"
        if keys and not is_new:
            key = keys[which % len(keys)]
        data = POISON[poison % len(POISON)]
        if key.endswith("job.json"):
            data = JOB_POISON[poison]
        self.calmly(lambda: self.world.s3.put_object(Bucket=BUCKET, Key=key, Body=data))

    @rule(which=st.integers(0, len(ODD_UPDATES) - 1))
    def send_an_odd_update(self, which: int) -> None:
        telegram = self.world.telegram
        number = next(telegram.numbers)
        raw = ODD_UPDATES[which].replace(b'"update_id": 7,', f'"update_id": {number},'.encode())
        telegram.queue[number] = (self.world.clock.now, raw)

    # The end

    def teardown(self) -> None:
        try:
            self.check_the_end()
        finally:
            self.patch.undo()

    def check_the_end(self) -> None:
        world = self.world
        telegram = world.telegram
        world.be_calm()
        world.start_bot()
        world.run_for(40)  # longer than any pause
        world.model.work()
        for chat, user in CONVERSATIONS:
            self.say(chat, user, text="/help")  # who has lost a job is told now
        for _ in range(bot.JOBS_AT_ONCE):
            world.run_for(5)
            world.model.work()
        world.run_for(10)

        lost: Counter[int] = Counter()
        for job, chat in telegram.accepted.items():
            if job not in telegram.pictures and job not in telegram.ended:
                lost[chat] += 1
        lost -= telegram.failures
        assert not lost, [telegram.shown[max(chat, GROUP)] for chat in lost]
        assert telegram.late == []
        self.check_chats()
        left = [key for key in world.s3.objects if key.startswith(("jobs/", "updates/"))]
        left = [key for key in left if key.count("/") > 1 or key.startswith("updates/")]
        assert left == []
        assert world.dispatcher.waiting() == []
        self.check_results()

    def check_results(self) -> None:
        """Nothing is kept that no button needs. What a lost record has named expires."""
        objects = self.world.s3.objects
        if any(key.startswith("quarantine/chats/") for key in objects):
            return
        kept = {key for key in objects if key.startswith(bot.RESULTS_PREFIX)}
        kept = {key for key in kept if key.endswith(bot.KEPT_NAMES)}  # not what was poisoned
        named = set()
        for key in set(objects) - kept:
            if key.startswith("chats/"):
                with contextlib.suppress(bot.MisfitError):
                    named |= bot.decode(objects[key].data, bot.Chat).kept_keys()
        assert kept <= named

    def check_chats(self) -> None:
        """Every chat does what it should, from /cancel to a painting."""
        world = self.world
        start = world.clock.now
        for content in ({"text": "/cancel"}, {"photo": [{"file_id": "garden"}]}, {"text": "Monet"}):
            for chat, user in CONVERSATIONS:
                self.say(chat, user, **content)
            world.run_for(4)
        world.model.work()
        world.run_for(5)
        for chat in CHATS:
            shown = [words for at, _, words in world.telegram.shown[chat] if at > start]
            assert [words for words in shown if "Choose a painter" in words], shown
            assert shown[-1].startswith("Painted: Monet"), shown
        for chat, user in CONVERSATIONS:
            assert world.bot.store.load_chat(chat, user).chat.jobs == ()


TestStates = Machine.TestCase
TestStates.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    derandomize=not MORE,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
