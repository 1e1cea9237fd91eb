"""A Telegram chat that sends a photo back as a painting, and that may die at any moment and lose nothing.

Telegram comes in by long polling, chats and jobs are JSON objects in S3, models are asynchronous SageMaker
endpoints. Read it from top to bottom: texts, state, single calls, conversation, jobs, watcher, main loop.

What makes it safe to kill:
1. An update is confirmed to Telegram once what it changed is in S3; handled twice, it changes nothing more.
2. A job is named after its update, and jobs/<job>/job.json is written before the chat that owns the job.
3. A job that its chat does not own is thrown away unseen: to cancel is to let go of it.
4. That a picture was sent is recorded before the job's objects are removed.
"""

from __future__ import annotations

import base64
import contextlib
import heapq
import itertools
import json
import logging
import os
import random
import re
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any, NamedTuple

import boto3
import requests
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

MAX_BYTES, MAX_PIXELS = 20 * 2**20, 40_000_000  # of a picture sent to us; getFile gives no more than 20 MB
PHOTO_BYTES, PHOTO_SIDES, PHOTO_RATIO = 10 * 2**20, 10_000, 20  # of a photo that Telegram takes from us
WORKERS, GLANCES = 16, 12  # chats served at a time; status messages looked after a second, over all chats
EDIT_SECONDS, WAKING_SECONDS = 3, 10
TIME_BUDGET, MODEL_SECONDS, DEADLINE = 600, 900, 3600  # seconds for NST, for any model, and with all waiting
GRACE_SECONDS = 60  # how long a job without an owner may still be about to get one
KEPT, KEPT_DAYS = 10, 30  # results that a chat's buttons work for; days that an unused chat is kept
COUNTS = ("updates", "done", "failed", "cancelled", "errors")
S3_ERRORS = (BotoCoreError, ClientError)
Json = Any  # whatever JSON can hold
log = logging.getLogger("bot")

# ---------------------------------------------------------------- texts: English, Russian

TEXTS = {
    "hello": ("Hello! I turn photos into paintings.", "Здравствуйте! Я превращаю фотографии в картины."),
    "ask_content": ("Please send me the photo to paint.", "Пришлите фотографию, которую нужно нарисовать."),
    "in_group": ("In a group, reply to this message with it.", "В группе ответьте ею на это сообщение."),
    "got_content": ("Got your photo.", "Фотография у меня."),
    "ask_style": ("Now choose a painter, or send me a picture whose style you like.",
                  "Теперь выберите художника или пришлите картину, стиль которой вам нравится."),
    "busy": ("I am still painting your last picture: please wait, or stop it with /cancel.",
             "Я ещё рисую вашу прошлую картину: подождите или остановите меня командой /cancel."),
    "cancelled": ("Cancelled.", "Отменено."), "nothing": ("There is nothing to cancel.", "Отменять нечего."),
    "help": ("Send me a photo (or /start), then choose a painter or send a picture whose style you like, and "
             "wait for the painting; /cancel stops it. A photo sent as a file comes back as one. {support}",
             "Пришлите фотографию (или /start), потом выберите художника или пришлите картину, стиль которой "
             "вам нравится, и подождите; /cancel остановит работу. На файл я отвечу и файлом. {support}"),
    "bad_style": ("I do not know this painter.", "Такого художника я не знаю."),
    "bad_content": ("That is not a picture.", "Это не картинка."),
    "not_image": ("This file is not an image.", "Этот файл не изображение."),
    "bad_command": ("I do not know this command, see /help.", "Такой команды я не знаю, смотрите /help."),
    "too_large": ("This picture is too large: at most 20 MB and 40 megapixels, please.",
                  "Эта картинка слишком велика: не больше 20 МБ и 40 мегапикселей, пожалуйста."),
    "expired": ("I no longer have that photo.", "Этой фотографии у меня уже нет."),
    "limit": ("You have had all {limit} of today's pictures; after midnight UTC I will gladly paint more.",
              "Картины на сегодня закончились (их {limit}); после полуночи UTC с радостью нарисую ещё."),
    "private": ("This bot is for invited users. Your number is {user}. {support}",
                "Этот бот для приглашённых. Ваш номер: {user}. {support}"),
    "oops": ("Something went wrong on my side. Please try again, or /start.",
             "У меня что-то сломалось. Попробуйте ещё раз или нажмите /start."),
    "accepted": ("Painting your photo: {style}.", "Рисую вашу фотографию: {style}."),
    "waking": ("Waiting for the model: it is waking up, which takes a few minutes, or painting for others.",
               "Ждём модель: она просыпается, это займёт несколько минут, или рисует для других."),
    "left": ("about {seconds} s left", "осталось примерно {seconds} с"), "stats": ("{stats}", "{stats}"),
    "own_style": ("your picture's style", "стиль вашей картины"),
    "caption": ("Painted: {style}, {seconds} s. Change it below, or send me another photo.",
                "Готово: {style}, {seconds} с. Измените картину кнопками или пришлите другую фотографию."),
    "failed": ("Sorry, this painting did not work out.", "Простите, эта картина не получилась."),
    "go_on": ("Please try again, or send me another photo.", "Попробуйте ещё раз или пришлите другую."),
    "endpoint": ("The model is not running. {support}", "Модель не запущена. {support}"),
    "deadline": ("The model did not answer in time.", "Модель не ответила вовремя."),
    "internal": ("Something broke in the model.", "В модели что-то сломалось."),
    "image_unreadable": ("I cannot read this picture.", "Не могу прочитать эту картинку."),
    "image_too_large": ("The picture is too large.", "Картинка слишком велика."),
    "image_too_small": ("The picture is too small.", "Картинка слишком мала."),
    "unknown_style": ("This painter is away.", "Этого художника сейчас нет."),
    "queue_full": ("Too many paintings are waiting just now.", "Сейчас в очереди слишком много картин."),
    "out_of_memory": ("It did not fit into the model's memory.", "Она не поместилась в память модели."),
    "b_cancel": ("Cancel", "Отменить"), "b_another": ("Another style", "Другой стиль"),
    "b_stronger": ("Stronger", "Сильнее"), "b_softer": ("Softer", "Мягче"), "b_file": ("As a file", "Файлом"),
    "b_colours": ("Keep my colours", "Мои цвета"), "b_theirs": ("The style's colours", "Цвета стиля"),
    "b_retry": ("Try again", "Ещё раз"), "c_start": ("start a new painting", "начать новую картину"),
    "c_cancel": ("stop the painting", "остановить работу"), "c_help": ("how this works", "как это работает"),
}  # fmt: skip


def text(lang: str, *keys: str, **values: Json) -> str:
    """The texts of `keys`, one after the other, in the user's language: "ru", or English for all others."""
    return " ".join(TEXTS[key][lang == "ru"] for key in keys).format(**values)


# ---------------------------------------------------------------- settings and state

PAINTERS = {"monet": "Monet", "vangogh": "Van Gogh", "cezanne": "Cezanne", "ukiyoe": "Ukiyo-e"}
REQUIRED = {
    "TELEGRAM_TOKEN": "the token that @BotFather gave you",
    "BUCKET": "the name of the S3 bucket for chats and jobs",
    "NST_ENDPOINT": "the name of the SageMaker endpoint that takes any picture's style",
    "CYCLEGAN_ENDPOINT": "the name of the SageMaker endpoint with the painters",
}


class Settings:
    """What the environment says. Raises ValueError with a line for each name that is missing or unclear."""

    def __init__(self, env: Mapping[str, str]) -> None:
        wrong = [f"{name} is not set: set it to {it}" for name, it in REQUIRED.items() if not env.get(name)]
        numbers = {name: env.get(name, "") for name in ("ALLOWED_USERS", "ADMINS", "DAILY_LIMIT")}
        bad = [name for name, words in numbers.items() if re.search(r"[^\d\s,]", words)]
        wrong += [f"{name} is unclear: set it to whole numbers, with commas between them" for name in bad]
        items = [item.strip().partition("=") for item in (env.get("STYLES") or ",".join(PAINTERS)).split(",")]
        if not all(re.fullmatch(r"[\w.-]{1,50}", name, re.ASCII) for name, _, _ in items):
            wrong.append("STYLES is unclear: set it to names like monet,vangogh or name=Words on its button")
        if wrong:
            raise ValueError("\n".join(wrong))
        self.token, self.bucket = env["TELEGRAM_TOKEN"], env["BUCKET"]
        self.endpoints = {"nst": env["NST_ENDPOINT"], "cyclegan": env["CYCLEGAN_ENDPOINT"]}
        self.styles = {name: words or PAINTERS.get(name) or name.title() for name, _, words in items}
        self.api = env.get("TELEGRAM_API", "https://api.telegram.org").rstrip("/")
        self.support = env.get("SUPPORT", "Questions? Please ask the author.")
        users, admins, limit = ({int(n) for n in re.findall(r"\d+", words)} for words in numbers.values())
        self.allowed, self.admins = users and users | admins, admins  # nobody allowed: everybody is
        self.daily_limit = max(limit, default=0)  # paintings a user and day; 0: no limit


@dataclass
class Chat:
    """chats/<chat>.json: waits for a photo, for a style (content is set) or for its job (job is set)."""

    content: Json = None  # {"file_id", "document": whether it came as a file}
    job: str | None = None
    kept: dict[str, Json] = field(default_factory=dict)  # recent jobs' work, for the buttons
    seen: list[int] = field(default_factory=list)  # updates handled last; their ids may restart, so no "<"
    reply: list[str] = field(default_factory=list)  # the texts that answer the last of them


@dataclass
class Job:
    """jobs/<id>/job.json, which no model sees; from `over` on, what only this process knows."""

    id: str
    step: str = "adopt"  # then announce, stage, wait
    style: str = ""  # in words
    model: str = ""  # nst or cyclegan
    result: str = ""  # the picture's name in the job's folder
    chat: int = 0
    user: int = 0
    thread: int | None = None
    lang: str = "en"
    work: dict[str, Json] = field(default_factory=dict)  # see begin()
    created: float = field(default_factory=time.time)
    message: int | None = None  # the status message
    output: str = ""  # the keys for SageMaker's answer, of which it will write one
    failure: str = ""
    sent: list[str] = field(default_factory=list)  # what the user has got: status, photo, document, reason
    over: bool = False  # its chat does not wait for it: only its objects are left
    emptied: bool = False  # and those are gone, but the model may still write some
    verdict: str = ""  # why it failed, where we found out ourselves
    working: bool = False  # a step is in the chat's lane
    after: float = 0.0  # no step before then (monotonic)
    tries: int = 0
    glanced: float = field(default_factory=time.monotonic)
    progress: str = ""  # ETag of the progress object
    shown: tuple[str, str] = ("", "")  # ETag and words of the status message

    def key(self, name: str) -> str:
        return f"jobs/{self.id}/{name}"


class Event(NamedTuple):
    """What a user did. `kind` is command, text, button, image (value: what it is) or wrong (value: why)."""

    update: int
    chat: int  # positive: private
    user: int
    lang: str
    thread: int | None
    kind: str
    value: Json


class TelegramError(Exception):
    """`code`: Telegram's for a refusal; 0 for no whole answer, or not Telegram's; 200 for what Telegram
    accepted although the rest of its answer was lost."""

    def __init__(self, method: str, code: int, description: str, hints: Mapping[str, Json]) -> None:
        super().__init__(f"{method}: {code} {description}")
        self.code, self.description = code, description
        self.retry_after = float(hints.get("retry_after", 0))
        self.migrate_to: int | None = hints.get("migrate_to_chat_id")


def backoff(tries: int) -> float:
    return min(30.0, 0.5 * 2 ** min(tries, 10)) * random.uniform(0.5, 1)


def keyboard(rows: list[list[tuple[str, str]]]) -> dict[str, Json]:
    """Inline buttons of (words, data)."""
    return {"inline_keyboard": [[{"text": w, "callback_data": d} for w, d in row] for row in rows if row]}


def buttons(job: Job, *rows: list[str]) -> dict[str, Json]:
    """Inline buttons of what can be done to a job."""
    return keyboard([[(text(job.lang, f"b_{verb}"), f"{verb}:{job.id}") for verb in row] for row in rows])


def read_content(message: Mapping[str, Json]) -> tuple[str, Json]:
    """Kind and value of a message."""
    words = message.get("text", "").strip()
    if words:
        return ("command", words[1:].split(" ")[0].lower()) if words.startswith("/") else ("text", words)
    file = message["photo"][-1] if message.get("photo") else message.get("document")
    if not file or "animation" in message:  # which comes with a document too
        return "wrong", "bad_content"
    if "photo" not in message and not str(file.get("mime_type")).startswith("image/"):
        return "wrong", "not_image"
    if file.get("file_size", 0) > MAX_BYTES or file.get("width", 0) * file.get("height", 0) > MAX_PIXELS:
        return "wrong", "too_large"
    return "image", {"file_id": file["file_id"], "document": "photo" not in message}


def expect(chat: Chat, event: Event, reason: str = "") -> list[str]:
    """Say what the chat waits for, after the reason why what came was not it."""
    if chat.job:
        return ["busy"]
    wanted = ["ask_style"] if chat.content else ["ask_content"] + ["in_group"] * (event.chat < 0)
    return [reason, *wanted] if reason else wanted


class Bot:
    """All that is shared. Its methods go from single calls, over conversation and jobs, to the main loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.web, self.name = settings, requests.Session(), ""
        self.web.mount("http", requests.adapters.HTTPAdapter(pool_maxsize=WORKERS + 1))
        limits = {"connect_timeout": 5, "read_timeout": 20, "max_pool_connections": WORKERS + 1}
        once = Config(**limits, retries={"total_max_attempts": 1})  # a repeated call would paint twice
        self.s3 = boto3.client("s3", config=Config(**limits))
        self.runtime = boto3.client("sagemaker-runtime", config=once)
        self.pool = ThreadPoolExecutor(WORKERS)
        self.lanes: dict[int | str, deque[Callable[[], float | None]]] = {}  # tasks, by chat
        self.inbox: dict[int, float] = {}  # unconfirmed updates: arrival, or 0 when handled
        self.lock = threading.Condition()  # of the two above
        self.jobs: dict[str, Job] = {}  # all that are pending
        self.stirred = threading.Event()  # the watcher has something to do
        self.answers: set[str] = set()  # keys seen under async/
        self.cursors = {"async/": "", "jobs/": ""}  # where the listing of a prefix goes on
        self.previews = True  # Telegram's server can turn the status message into a photo
        self.count: Counter[str] = Counter()
        self.stopping, self.lag, self.born = False, 0.0, time.monotonic()

    # ------------------------------------------------------------ a chat's tasks in order, chats side by side

    def put(self, lane: int | str, task: Callable[[], float | None]) -> None:
        """A task returns None when done, or the seconds after which to run it again, before all others."""
        with self.lock:
            queue = self.lanes.setdefault(lane, deque())
            queue.append(task)
            if len(queue) == 1:
                self.pool.submit(self.run_lane, lane)

    def run_lane(self, lane: int | str) -> None:
        again = None if self.stopping else self.lanes[lane][0]()
        if again:
            timer = threading.Timer(again, self.pool.submit, (self.run_lane, lane))
            timer.daemon = True
            return timer.start()
        with self.lock:
            self.lanes[lane].popleft()
            if self.lanes[lane]:
                self.pool.submit(self.run_lane, lane)
            else:
                del self.lanes[lane]

    # ------------------------------------------------------------ Telegram

    def call(self, method: str, files: Json = None, wait: float = 30, **values: Json) -> Json:
        """One request to the Bot API: its result, or TelegramError. Values that are None are left out."""
        url, code = f"{self.settings.api}/bot{self.settings.token}/{method}", 0
        values = {key: value for key, value in values.items() if value is not None}
        form = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
        body: Json = {"data": form, "files": files} if files else {"json": values}
        try:
            with self.web.post(url, timeout=(10, wait), stream=True, **body) as response:
                if response.status_code == 200 and "json" in response.headers.get("Content-Type", ""):
                    code = 200
                answer = response.json()
            if answer["ok"]:
                return answer["result"]
            refused = int(answer["error_code"]), str(answer["description"]), answer.get("parameters") or {}
        except (requests.RequestException, ValueError, KeyError, TypeError) as error:  # it may show the token
            raise TelegramError(method, code, f"no whole answer ({type(error).__name__})", {}) from None
        raise TelegramError(method, *refused)

    def say(self, chat: int, thread: int | None, method: str, **values: Json) -> Json:
        """Send to a chat, wherever it has moved, and past a topic that is gone. Returns the message."""
        try:
            return self.call(method, chat_id=chat, message_thread_id=thread, **values)
        except TelegramError as error:
            if error.migrate_to:
                self.put_json(f"chats/{error.migrate_to}.json", asdict(self.load_chat(chat)[1]))
                self.put_json(f"chats/{chat}.json", {"moved": error.migrate_to})
                return self.say(error.migrate_to, thread, method, **values)
            if thread and error.code == 400 and "thread" in error.description:
                return self.say(chat, None, method, **values)
            if error.code == 200:  # it is in the chat, only its number is not known
                return {}
            raise

    def hint(self, method: str, **values: Json) -> TelegramError | None:
        """A call that may fail without harm: its error is returned, not raised."""
        try:
            self.call(method, **values)
        except TelegramError as error:
            return error
        return None

    def note(self, what: str, error: Exception, tries: int) -> float | None:
        """Log a failed step. Returns the seconds after which to try again, None where that would not help."""
        passing = isinstance(error, S3_ERRORS)
        if isinstance(error, TelegramError):
            passing = error.code in (0, 200, 429) or (error.code >= 500 and tries < 20)
        trace = not isinstance(error, (TelegramError, *S3_ERRORS))  # our own fault
        again = getattr(error, "retry_after", 0) or backoff(tries) if passing else None
        self.count["errors"] += 1
        log.warning("%s: %s; again in %s s", what, type(error) if trace else error, again, exc_info=trace)
        return again

    # ------------------------------------------------------------ S3

    def get(self, key: str) -> tuple[bytes, str]:
        """The object and its ETag; (b"", "") where there is none."""
        try:
            found = self.s3.get_object(Bucket=self.settings.bucket, Key=key)
        except self.s3.exceptions.NoSuchKey:
            return b"", ""
        return found["Body"].read(), found["ETag"]

    def get_json(self, key: str) -> tuple[dict[str, Json], str]:
        """The same; {} for what cannot be read, so that it gets written anew."""
        data, etag = self.get(key)
        with contextlib.suppress(ValueError, TypeError):
            return dict(json.loads(data)), etag
        return {}, etag

    def put_json(self, key: str, value: Json, etag: str | None = None) -> None:
        """With `etag` only over that version, "" being none; ClientError PreconditionFailed otherwise."""
        condition = {} if etag is None else {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
        self.s3.put_object(Bucket=self.settings.bucket, Key=key, Body=json.dumps(value).encode(), **condition)

    def page(self, prefix: str, after: str = "") -> tuple[list[dict[str, Json]], str]:
        """Up to 1000 objects, and the key after which to go on; "" at the end."""
        page = self.s3.list_objects_v2(Bucket=self.settings.bucket, Prefix=prefix, StartAfter=after)
        items = page.get("Contents", [])
        return items, items[-1]["Key"] if page["IsTruncated"] else ""

    def remove(self, *keys: str) -> None:
        batch = {"Objects": [{"Key": key} for key in keys if key], "Quiet": True}
        if batch["Objects"]:
            self.s3.delete_objects(Bucket=self.settings.bucket, Delete=batch)

    def load_chat(self, number: int) -> tuple[int, Chat, str]:
        """The chat's number (another one where it has moved), its state, and the state's ETag."""
        value, etag = self.get_json(f"chats/{number}.json")
        if "moved" in value:
            return self.load_chat(value["moved"])
        return number, Chat(**{f.name: value[f.name] for f in fields(Chat) if f.name in value}), etag

    def save_job(self, job: Job) -> None:
        lasting = itertools.takewhile(lambda item: item[0] != "over", asdict(job).items())
        self.put_json(job.key("job.json"), dict(lasting))

    # ------------------------------------------------------------ the conversation

    def handle(self, update: Mapping[str, Json], tries: Iterator[int]) -> float | None:
        """One of the two catch-alls. None when the update may be confirmed, or seconds to try again after."""
        event, again = None, None
        try:
            event = self.parse(update)
            if event:
                self.answer(event)
        except Exception as error:
            again = self.note("update", error, next(tries))
            if again is None and event:
                self.hint("sendMessage", chat_id=event.chat, text=text(event.lang, "oops"))
        if again is None:
            with self.lock:
                self.lag = max(self.lag, time.monotonic() - self.inbox[update["update_id"]])
                self.inbox[update["update_id"]] = 0.0
                self.lock.notify_all()
        return again

    def parse(self, update: Mapping[str, Json]) -> Event | None:
        """None for an update that is not meant for us."""
        query = update.get("callback_query")
        message = (query or update).get("message")
        if not message or "from" not in (query or message):
            return None
        if query:
            self.hint("answerCallbackQuery", callback_query_id=query["id"])
        chat, sender = message["chat"]["id"], (query or message)["from"]
        kind, value = ("button", query.get("data", "")) if query else read_content(message)
        if kind == "command":
            value, _, target = value.partition("@")
            if target not in ("", self.name.lower()):
                return None
        lang = "ru" if str(sender.get("language_code")).lower().startswith("ru") else "en"
        thread = message.get("message_thread_id") if chat > 0 or message.get("is_topic_message") else None
        return Event(update["update_id"], chat, sender["id"], lang, thread, kind, value)

    def answer(self, event: Event) -> None:
        """Handle one event. Safe to repeat from any point: what is in S3 says what is still to be done."""
        number, chat, etag = self.load_chat(event.chat)
        if event.update not in chat.seen:
            old, chat.reply = chat.job, self.decide(chat, event)
            chat.seen = [*chat.seen, event.update][-100:]  # as many as one unconfirmed batch can hold
            self.put_json(f"chats/{number}.json", asdict(chat), etag)
            if old and old != chat.job:
                self.watch(Job(old)).over = True
                self.count["cancelled"] += 1
        if chat.job:  # perhaps begun by another process
            self.watch(Job(chat.job))
        if chat.reply and chat.seen[-1] == event.update:
            self.reply(number, event, chat.reply)

    def reply(self, number: int, event: Event, keys: list[str]) -> None:
        known = {"support": self.settings.support, "limit": self.settings.daily_limit, "user": event.user}
        words = text(event.lang, *keys, **known, stats=self.health() if "stats" in keys else "")
        styles = [(label, f"style:{name}") for name, label in self.settings.styles.items()]
        pairs = [styles[i : i + 2] for i in range(0, len(styles), 2)]
        rows = keyboard(pairs) if "ask_style" in keys else None
        try:
            self.say(number, event.thread, "sendMessage", text=words, reply_markup=rows)
        except TelegramError as error:
            if error.code != 403:
                raise
            self.let_go(number)

    def decide(self, chat: Chat, event: Event) -> list[str]:
        """The state machine of a chat: changes it, and returns the keys of the texts to answer with."""
        if self.settings.allowed and event.user not in self.settings.allowed:
            return ["private"]
        match event.kind, event.value:
            case "command", "start":
                chat.content = None
                return expect(chat, event, "hello")
            case "command", "cancel":
                had, chat.job, chat.content = chat.job or chat.content, None, None
                return expect(chat, event, "cancelled" if had else "nothing")
            case "command", "help":
                return ["help"]
            case "command", "stats" if event.user in self.settings.admins:
                return ["stats"]
            case "button", data:
                return self.press(chat, event, *data.partition(":")[::2])
            case "text", words if chat.content and not chat.job:
                labels = self.settings.styles.items()
                names = [name for name, label in labels if words.lower() == label.lower()]
                if names:
                    return self.begin(chat, event, chat.content, names[0])
                return expect(chat, event, "bad_style")
            case "image", picture if not chat.job:
                if chat.content:
                    return self.begin(chat, event, chat.content, picture)
                chat.content = picture
                return expect(chat, event, "got_content")
        return expect(chat, event, {"wrong": event.value, "command": "bad_command"}.get(event.kind, ""))

    def press(self, chat: Chat, event: Event, verb: str, argument: str) -> list[str]:
        """A button, of a painter or (`argument` being its job) under a status message or a result."""
        if verb == "cancel" and argument == chat.job:  # an old button must not stop a newer job
            chat.job = None
            return expect(chat, event, "cancelled")
        if chat.job or verb == "cancel":
            return expect(chat, event)
        content = chat.content or next((work["content"] for work in reversed(chat.kept.values())), None)
        if verb == "style" and argument in self.settings.styles and content:
            return self.begin(chat, event, content, argument)
        if argument not in chat.kept:
            return expect(chat, event, "" if verb == "style" else "expired")
        work = dict(chat.kept[argument])
        if verb == "another":
            chat.content = work["content"]
            return expect(chat, event)
        strength = work["strength"] + {"stronger": 0.2, "softer": -0.2}.get(verb, 0)
        work["strength"] = round(min(1.0, max(0.1, strength)), 1)
        work["colours"] = (work["colours"] or verb == "colours") and verb != "theirs"
        work["file"] = work["file"] or verb == "file"
        return self.begin(chat, event, **work)

    def begin(self, chat: Chat, event: Event, content: Json, style: Json, **more: Json) -> list[str]:
        """Give the chat a job, named after the update so that handling it twice makes one."""
        if self.settings.daily_limit and self.count_today(event.user) >= self.settings.daily_limit:
            return ["limit"]
        # 1.0: all of a painter; 0.5: NST's own balance; colours: keep the photo's; file: send it as one
        work = {"content": content, "style": style, "strength": 1.0 if isinstance(style, str) else 0.5}
        work |= {"colours": False, "file": False, **more}
        job = Job(str(event.update), "announce", lang=event.lang, style=text(event.lang, "own_style"), model="nst")
        job.chat, job.user, job.thread, job.work = event.chat, event.user, event.thread, work
        if isinstance(style, str):
            job.style, job.model = self.settings.styles.get(style, style), "cyclegan"
        job.result = "result.png" if work["file"] else "result.jpg"
        self.save_job(job)
        self.watch(job)  # it takes no step before we are done here: they share the chat's lane
        chat.job, chat.content = job.id, None
        return []

    def count_today(self, user: int, job: str = "") -> int:
        """How many paintings the user has had today (UTC); `job` makes it one more, once."""
        key, today = f"chats/user-{user}.json", datetime.now(timezone.utc).date().isoformat()
        value, etag = self.get_json(key)
        jobs = value.get(today, [])
        if job and job not in jobs:
            self.put_json(key, {today: [*jobs, job]}, etag)
        return len(jobs)

    # ------------------------------------------------------------ jobs

    def watch(self, job: Job) -> Job:
        """Have the watcher take care of a job, unless it does already. Returns the one it takes care of."""
        self.stirred.set()
        return self.jobs.setdefault(job.id, job)

    def let_go(self, number: int, job: Job | None = None, keep: bool = False) -> None:
        """The chat's job (`job`, or whichever it has) is its job no longer; `keep` its work for buttons."""
        number, chat, etag = self.load_chat(number)
        if chat.job and chat.job == (job.id if job else chat.job):
            if job and keep:
                chat.kept = dict([*chat.kept.items(), (job.id, job.work)][-KEPT:])
            old, chat.job = chat.job, None
            self.put_json(f"chats/{number}.json", asdict(chat), etag)
            self.watch(Job(old)).over = True

    def is_owned(self, job: Job) -> bool:
        """Whether the chat waits for the job. If not, its objects go, after a grace for one being born."""
        owned = self.load_chat(job.chat)[1].job == job.id
        if not owned:
            job.after = time.monotonic() + 5
            job.over |= bool(job.sent) or time.time() > job.created + GRACE_SECONDS
        return owned

    def next_step(self, job: Job) -> Callable[[Job], None] | None:
        """The state machine of a job."""
        if job.over:
            return None if job.emptied and not self.has_ended(job) else self.discard
        if job.step == "adopt":
            return self.adopt
        if job.verdict or self.has_ended(job):
            return self.finish
        return {"announce": self.announce, "stage": self.stage, "wait": self.glance}[job.step]

    def has_ended(self, job: Job) -> bool:
        late = time.time() > job.created + DEADLINE
        return late or job.output in self.answers or job.failure in self.answers

    def take_step(self, job: Job, step: Callable[[Job], None]) -> None:
        """The other catch-all."""
        try:
            step(job)
            job.tries = 0
        except Exception as error:
            job.tries += 1
            again = self.note(f"job {job.id}", error, job.tries)
            job.after = time.monotonic() + (again or backoff(job.tries))
            if again is None and step in (self.announce, self.stage):
                job.verdict = "internal"
        job.working = False
        self.stirred.set()

    def adopt(self, job: Job) -> None:
        """Take over what another run of this program began; without a job.json only leftovers are there."""
        value, _ = self.get_json(job.key("job.json"))
        for name in value:
            setattr(job, name, value[name])
        job.over |= not value

    def announce(self, job: Job) -> None:
        """The status message, which tells the user that the request is accepted."""
        if not self.is_owned(job):
            return
        words = text(job.lang, "accepted", style=job.style)
        sent = self.send(job, "status", "sendMessage", text=words, reply_markup=buttons(job, ["cancel"]))
        if sent is None:  # nobody is there
            return self.let_go(job.chat, job)
        job.message, job.shown, job.step = sent.get("message_id"), ("", words), "stage"
        self.save_job(job)

    def send(self, job: Job, part: str, method: str, **values: Json) -> Json:
        """Send a part of the answer, once, and record that. None where Telegram does not take it.

        A picture that may have come before (killed, or no answer) goes into the status message: unlike a new
        message, an edit can be repeated, so that there are never more than two.
        """
        if part in job.sent:
            return {}
        doubt = f"{part}?"
        try:
            if doubt in job.sent and job.message and self.put_into_status(job, part, values):
                job.message, sent = None, {}  # it must stay
            else:
                if "files" in values and doubt not in job.sent:
                    job.sent.append(doubt)
                    self.save_job(job)
                sent = self.say(job.chat, job.thread, method, **values)
        except TelegramError as error:
            if error.code and doubt in job.sent:
                job.sent.remove(doubt)
            if error.code not in (400, 403):
                raise
            return None
        job.sent.append(part)
        self.save_job(job)
        return sent

    def put_into_status(self, job: Job, part: str, values: dict[str, Json]) -> bool:
        """False where Telegram's server cannot do that."""
        media = {"type": part, "media": "attach://file", "caption": values.get("caption", "")}
        to = {"chat_id": job.chat, "message_id": job.message, "reply_markup": values.get("reply_markup")}
        error = self.hint("editMessageMedia", files={"file": values["files"][part]}, media=media, **to)
        if error and error.code not in (400, 404, 501):
            raise error
        return not error or "not modified" in error.description

    def stage(self, job: Job) -> None:
        """Carry the pictures from Telegram to S3, write the request, and hand it to the model."""
        if not self.is_owned(job):
            return
        work, names = job.work, ["content", "progress.json", job.result]
        request = {"strength": work["strength"], "style_name": work["style"]}
        if job.model == "nst":
            names.append("style")
            request = {"strength": work["strength"], "preserve_color": work["colours"]}
            request["time_budget"] = TIME_BUDGET
        for name in names:
            request[name.split(".")[0] + "_url"] = f"s3://{self.settings.bucket}/{job.key(name)}"
            if name in ("content", "style") and not job.verdict:
                job.verdict = self.carry(work[name]["file_id"], job.key(name))
        if not job.verdict:
            self.put_json(job.key("request.json"), request)
            self.invoke(job)

    def carry(self, file: str, key: str) -> str:
        """Copy a picture to S3, or say why not. Its link at Telegram holds the token, and stays in here."""
        try:
            path = self.call("getFile", file_id=file)["file_path"]
            url = f"{self.settings.api}/file/bot{self.settings.token}/{path}"
            with self.web.get(url, timeout=(10, 30), stream=True) as response:
                response.raise_for_status()
                if int(response.headers.get("Content-Length", 0)) > MAX_BYTES:
                    return "too_large"
                self.s3.put_object(Bucket=self.settings.bucket, Key=key, Body=response.content)
        except requests.RequestException as error:
            raise TelegramError("download", 0, type(error).__name__, {}) from None
        except TelegramError as error:
            if error.code != 400:
                raise
            return "too_large" if "too big" in error.description else "expired"
        return ""

    def invoke(self, job: Job) -> None:
        """Raises ClientError for what may pass, such as throttling; other refusals are the job's verdict."""
        name = self.settings.endpoints[job.model]
        place = f"s3://{self.settings.bucket}/{job.key('request.json')}"
        limits = {"InvocationTimeoutSeconds": MODEL_SECONDS, "RequestTTLSeconds": max(60, DEADLINE)}
        request = {"EndpointName": name, "InputLocation": place, "InferenceId": job.id, **limits}
        try:
            places = self.runtime.invoke_endpoint_async(ContentType="application/json", **request)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] >= 429 or "Throttl" in str(error):
                raise
            log.error("the endpoint %s refuses requests: %s", name, error)
            job.verdict = "endpoint"
            return
        job.output, job.failure = (places[f"{p}Location"].split("/", 3)[3] for p in ("Output", "Failure"))
        job.step = "wait"
        self.save_job(job)

    def glance(self, job: Job) -> None:
        """Keep the status message true while the model works."""
        progress = self.get_json(job.key("progress.json"))[0] if job.progress != job.shown[0] else {}
        words, job.glanced = text(job.lang, "accepted", style=job.style), time.monotonic()
        if progress.get("steps"):
            done, left = min(1.0, progress.get("step", 0) / progress["steps"]), progress.get("seconds_left")
            words += f"\n{'▓' * int(10 * done):░<10} {done:.0%}"
            words += "" if left is None else ", " + text(job.lang, "left", seconds=round(left))
        elif job.progress:
            words = job.shown[1] or words
        elif time.time() > job.created + WAKING_SECONDS:
            words += "\n" + text(job.lang, "waking")
        error = self.hint("sendChatAction", chat_id=job.chat, message_thread_id=job.thread, action="typing")
        if words != job.shown[1] and job.message and not (error and error.code == 429):
            error = self.redraw(job, words, progress.get("preview"))
        job.shown = job.progress, words
        job.after = job.glanced + error.retry_after if error else 0.0

    def redraw(self, job: Job, words: str, preview: str | None) -> TelegramError | None:
        """Edit the status message: with a preview into a photo, where Telegram's server can do that."""
        to = {"chat_id": job.chat, "message_id": job.message, "reply_markup": buttons(job, ["cancel"])}
        if preview and self.previews:
            media = {"type": "photo", "media": "attach://preview", "caption": words}
            files = {"preview": base64.b64decode(preview)}
            error = self.hint("editMessageMedia", files=files, media=media, **to)
            self.previews = not error or error.code not in (404, 501)
            if self.previews:
                return error
        error = self.hint("editMessageText", text=words, **to)
        is_photo = error and "no text in the message" in error.description
        return self.hint("editMessageCaption", caption=words, **to) if is_photo else error

    def finish(self, job: Job) -> None:
        """Send the picture, or say why there is none; then record that by letting go of the job."""
        if not self.is_owned(job):
            return
        reason = job.verdict or self.read_failure(job) or self.deliver(job)
        if reason:
            why = text(job.lang, reason, support=self.settings.support) if reason in TEXTS else reason
            words = " ".join([text(job.lang, "failed"), why, text(job.lang, "go_on")])
            rows = buttons(job, ["retry", "another"])
            self.send(job, "reason", "sendMessage", text=words, reply_markup=rows)
        elif self.settings.daily_limit:
            self.count_today(job.user, job.id)
        self.let_go(job.chat, job, keep=reason not in ("expired", "too_large"))
        self.count["failed" if reason else "done"] += 1
        job.over = True

    def read_failure(self, job: Job) -> str:
        """Why the model failed: a text's key, or words for the user. Nothing if there is a picture."""
        if job.output in self.answers:
            return ""
        if job.failure not in self.answers:
            return "deadline"
        error = self.get(job.failure)[0].decode(errors="replace").replace("\\", "")  # it may be quoted
        pattern = r'"%s"\s*:\s*"([^"]{1,500})"'
        code, message = (re.search(pattern % name, error) for name in ("code", "message"))
        log.warning("job %s failed in the model: %s", job.id, code[1] if code else "no code")
        if message and job.lang == "en":
            return message[1]
        return code[1] if code and code[1] in TEXTS else "internal"

    def deliver(self, job: Job) -> str:
        """Send the picture, or say why it cannot be had."""
        name, said = job.result, self.get_json(job.output)[0]
        picture, _ = self.get(job.key(name))
        seconds = round(float(said.get("seconds") or time.time() - job.created))
        words = text(job.lang, "caption", style=job.style, seconds=seconds)
        strength = ["stronger"] * (job.work["strength"] < 1) + ["softer"] * (job.work["strength"] > 0.1)
        last = ["theirs" if job.work["colours"] else "colours"] * (job.model == "nst")  # not a painter's
        offers = buttons(job, ["another"], strength, last + ["file"] * (not job.work["file"]))
        words = "\n".join([words, *map(str, said.get("notes") or ())])[:1000]
        caption = {"caption": words, "reply_markup": offers}
        width, height = said.get("size") or (1, 1)
        fits = len(picture) <= PHOTO_BYTES and width + height <= PHOTO_SIDES and not job.work["file"]
        fits = fits and max(width, height) <= PHOTO_RATIO * min(width, height) and bool(picture)
        files = {"photo": (name, picture)}
        shown = fits and self.send(job, "photo", "sendPhoto", files=files, **caption) is not None
        if not picture or (shown and not job.work["content"]["document"]):
            return "" if shown else "internal"
        files, more = {"document": (name, picture)}, {} if shown else caption
        sent = self.send(job, "document", "sendDocument", files=files, **more) is not None
        return "" if sent or shown else "internal"

    def discard(self, job: Job) -> None:
        """Remove all of a job that its chat does not wait for, now and again when the model has answered."""
        if job.step == "adopt":
            self.adopt(job)
        if job.message:
            self.hint("deleteMessage", chat_id=job.chat, message_id=job.message)
        self.remove(*[item["Key"] for item in self.page(job.key(""))[0]], job.output, job.failure)
        job.emptied, job.message = True, None
        if job.step != "wait" or self.has_ended(job):
            self.jobs.pop(job.id, None)
        self.answers -= {job.output, job.failure}

    # ------------------------------------------------------------ the watcher: at most two lists a second

    def watch_jobs(self) -> None:
        looked = beat = swept = float("-inf")
        while not self.stopping:
            self.stirred.wait(1)
            self.stirred.clear()
            now, glances = time.monotonic(), 0
            try:
                if now >= looked + 1 and (self.jobs or now < self.born + 2 * GRACE_SECONDS):
                    looked, glances = now, GLANCES
                    self.look()
                if now >= swept + 86400:
                    self.sweep()
                    swept = now
            except S3_ERRORS as error:
                self.note("watcher", error, 1)
            self.dispatch(now, glances)
            if now >= beat + 60:
                log.info(self.health())
                beat = now

    def look(self) -> None:
        """A page of the answers and a page of the jobs, each going on where the last one ended."""
        items, self.cursors["async/"] = self.page("async/", self.cursors["async/"])
        self.answers.update(item["Key"] for item in items)
        items, self.cursors["jobs/"] = self.page("jobs/", self.cursors["jobs/"])
        for item in items:
            number, _, name = item["Key"].removeprefix("jobs/").partition("/")
            job = self.jobs.get(number) or (self.watch(Job(number)) if name else Job(""))
            job.progress = item["ETag"] if name == "progress.json" else job.progress

    def dispatch(self, now: float, glances: int) -> None:
        """Put the next step of each job that can go on into its chat's lane; of glances, the most overdue."""
        free = [job for job in list(self.jobs.values()) if not job.working and now >= job.after]
        steps = [(job, step) for job in free if (step := self.next_step(job))]
        due = [job for job, step in steps if step == self.glance and now >= job.glanced + EDIT_SECONDS]
        chosen = {job.id for job in heapq.nsmallest(glances, due, key=lambda job: job.glanced)}
        for job, step in steps:
            if step != self.glance or job.id in chosen:
                job.working = True
                self.put(job.chat or job.id, partial(self.take_step, job, step))

    def sweep(self) -> None:
        """Once a day: chats without use, and answers that nobody waits for."""
        for prefix, days in (("chats/", KEPT_DAYS), ("async/", 1)):
            old, after = datetime.now(timezone.utc) - timedelta(days=days), None
            while after != "":
                items, after = self.page(prefix, after or "")
                self.remove(*[item["Key"] for item in items if item["LastModified"] < old])

    def health(self) -> str:
        with self.lock:
            waiting = [time.monotonic() - since for since in self.inbox.values() if since]
        lag, self.lag = max([self.lag, *waiting]), 0.0
        counts = [f"{name}={self.count[name]}" for name in COUNTS]
        return f"{' '.join(counts)} jobs={len(self.jobs)} waiting={len(waiting)} lag={lag:.1f}s"

    # ------------------------------------------------------------ the main loop

    def take(self, update: Mapping[str, Json]) -> None:
        """Put an update into its chat's lane, once."""
        with self.lock:
            if update["update_id"] in self.inbox:
                return
            self.inbox[update["update_id"]] = time.monotonic()
            self.count["updates"] += 1
        message = (update.get("callback_query") or update).get("message") or {"chat": {"id": 0}}
        self.put(message["chat"]["id"], partial(self.handle, update, itertools.count(1)))

    def offset(self) -> int | None:
        """Confirms all updates below the first that is not handled; None when there is nothing to confirm."""
        with self.lock:
            end = max(self.inbox, default=-1) + 1
            first = min((number for number, since in self.inbox.items() if since), default=end)
            self.inbox = {number: since for number, since in self.inbox.items() if number >= first}
        return first or None

    def poll(self) -> None:
        """Take updates. While some are unhandled Telegram gives them again: then ask more rarely."""
        quiet = 0.0
        while True:
            before, offset = self.count["updates"], self.offset()
            values = {"timeout": 0 if self.inbox else 50, "allowed_updates": ["message", "callback_query"]}
            for update in self.patiently("getUpdates", wait=60, offset=offset, **values):
                self.take(update)
            quiet = 0.02 if self.count["updates"] > before else min(1.0, 2 * quiet + 0.02)
            with self.lock:
                self.lock.wait_for(lambda: not any(self.inbox.values()), quiet)

    def patiently(self, method: str, **values: Json) -> Json:
        """Call until Telegram answers, whatever the weather. A refused token ends the program."""
        for tries in itertools.count(1):
            try:
                return self.call(method, **values)
            except TelegramError as error:
                if error.code in (401, 404):
                    log.error("Telegram refuses the token: set TELEGRAM_TOKEN to what @BotFather gave you")
                    sys.exit(2)
                if error.code == 409 and "webhook" in error.description:
                    log.warning("a webhook is set for this bot, and is removed now: this program polls")
                    self.hint("deleteWebhook")
                elif error.code == 409:
                    log.warning("another program polls with this token: stop one of the two")
                self.note(method, error, tries)
                time.sleep(error.retry_after or backoff(tries))

    def run(self) -> None:
        self.name = self.patiently("getMe").get("username", "")
        self.hint("deleteWebhook")
        for lang, code in (("en", None), ("ru", "ru")):
            names = ("start", "cancel", "help")
            commands = [{"command": name, "description": text(lang, f"c_{name}")} for name in names]
            self.hint("setMyCommands", commands=commands, language_code=code)
        threading.Thread(target=self.watch_jobs, daemon=True).start()
        self.poll()

    def stop(self) -> None:
        """Within 10 s: let what runs come to its end, and confirm what is handled."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self.stopping, home = True, threading.Barrier(WORKERS + 1)
        for _ in range(WORKERS):
            self.pool.submit(home.wait)
        with contextlib.suppress(threading.BrokenBarrierError):
            home.wait(6)
        self.hint("getUpdates", wait=2, offset=self.offset(), limit=1, timeout=0)
        log.info("stopped: %s", self.health())

    def check(self) -> int:
        """Try all that the environment names, and say what is wrong and what to do."""
        key, failed = f"jobs/check-{time.time_ns()}/request.json", 0
        probe = {"InputLocation": f"s3://{self.settings.bucket}/{key}", "RequestTTLSeconds": 60}
        use_s3: list[Callable[[], Json]] = [partial(self.put_json, key, {}), partial(self.get, key)]
        use_s3 += [self.look, partial(self.remove, key)]
        advice = "set BUCKET to one that these credentials may read, write, list and delete in"
        tests = [("bucket", advice, use_s3)]
        tests += [("token", "set TELEGRAM_TOKEN to what @BotFather gave you", [partial(self.call, "getMe")])]
        for name in self.settings.endpoints.values():
            ask = partial(self.runtime.invoke_endpoint_async, EndpointName=name, **probe)
            tests += [(f"endpoint {name}", "deploy it, or set its variable to one in service", [ask])]
        for what, advice, steps in tests:
            try:
                for step in steps:
                    step()
                print(f"{what}: ok")
            except (TelegramError, *S3_ERRORS) as error:
                print(f"{what}: {error}. What to do: {advice}")
                failed = 1
        return failed


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for library in ("urllib3", "botocore"):  # warnings of the first can show the token
        logging.getLogger(library).propagate = False
    try:
        bot = Bot(Settings(os.environ))
    except (ValueError, BotoCoreError) as error:
        print(error, file=sys.stderr)
        return 2
    if sys.argv[1:] == ["--check"]:
        return bot.check()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        bot.run()
    except KeyboardInterrupt:
        bot.stop()
    logging.shutdown()
    os._exit(0)  # without waiting for threads that are caught in a slow network


if __name__ == "__main__":
    sys.exit(main())
