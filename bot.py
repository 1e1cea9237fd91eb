"""A Telegram chat that sends a photo back as a painting, and that may die at any moment and lose nothing.

Telegram comes in by long polling, chats and jobs are JSON objects in S3, models are asynchronous SageMaker
endpoints. Read from top to bottom: texts, settings, state, lanes, Telegram, S3, conversation, jobs, main().

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
import math
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
from typing import Any

import boto3
import requests
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

MAX_BYTES, MAX_PIXELS = 20 * 2**20, 40_000_000  # of a picture sent to us; getFile gives no more than 20 MB
PHOTO_BYTES, PHOTO_SIDES, PHOTO_RATIO = 10 * 2**20, 10_000, 20  # of a photo that Telegram takes from us
WORKERS = 16  # chats served at the same time
GLANCES = 12  # status messages looked after a second, over all chats: Telegram takes some 30 calls a second
EDIT_SECONDS, WAKING_SECONDS, AWAKE_SECONDS = 3.0, 10.0, 300.0
INVOCATION_SECONDS, TIME_BUDGET = 900, 600  # longest run of a model; when NST must give what it has
KEPT, KEPT_DAYS = 10, 30  # results that a chat's buttons work for; days that an unused chat is kept
GRACE_SECONDS = 60  # how long a job without an owner may still be about to get one
UPDATES = ["message", "callback_query"]
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
    "album": ("I took the first two pictures of your album: the photo and the style.",
              "Я взял из альбома две первые картинки: фотографию и стиль."),
    "cancelled": ("Cancelled.", "Отменено."), "nothing": ("There is nothing to cancel.", "Отменять нечего."),
    "help": ("Send me a photo (or /start), then choose a painter or send a picture whose style you like, and "
             "wait for the painting; /cancel stops it. A photo sent as a file comes back as a file. {support}",
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
    "waking": ("The model is waking up, this takes a few minutes. Your painting will come.",
               "Модель просыпается, это займёт несколько минут. Картина обязательно придёт."),
    "in_line": ("Paintings before yours: {ahead}.", "Картин перед вашей: {ahead}."),
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


@dataclass(frozen=True)
class Settings:
    token: str = field(repr=False)
    bucket: str
    endpoints: Mapping[str, str]  # "nst" and "cyclegan" to the endpoints' names
    styles: Mapping[str, str]  # style_name to the words on its button
    api: str
    support: str
    allowed: list[int]  # users; none: everybody
    admins: list[int]
    daily_limit: int  # jobs a user and day; 0: as many as they like
    deadline: int  # seconds that a painting may take, with all the waiting


def read_settings(env: Mapping[str, str]) -> Settings:
    """Raises ValueError with a line for each setting that is missing or cannot be understood."""
    wrong = [f"{name} is not set: set it to {what}" for name, what in REQUIRED.items() if not env.get(name)]

    def numbers(name: str, default: str = "") -> list[int]:
        words = env.get(name, default).replace(",", " ").split()
        if not all(word.isdecimal() for word in words):
            wrong.append(f"{name} is not understood: set it to whole numbers, with commas between them")
        return [int(word) for word in words if word.isdecimal()]

    styles = {}
    for item in filter(None, re.split(r"\s*,\s*", env.get("STYLES", "").strip())):
        name, _, label = item.partition("=")
        styles[name] = label or PAINTERS.get(name) or name.replace("_", " ").title()
        if not re.fullmatch(r"[\w.-]{1,50}", name, re.ASCII):
            wrong.append(
                "STYLES is not understood: set it to names like monet,vangogh or name=Words on its button"
            )
    settings = Settings(
        token=env.get("TELEGRAM_TOKEN", ""),
        bucket=env.get("BUCKET", ""),
        endpoints={"nst": env.get("NST_ENDPOINT", ""), "cyclegan": env.get("CYCLEGAN_ENDPOINT", "")},
        styles=styles or PAINTERS,
        api=env.get("TELEGRAM_API", "https://api.telegram.org").rstrip("/"),
        support=env.get("SUPPORT", "Questions? Please ask the author."),
        allowed=numbers("ALLOWED_USERS"),
        admins=numbers("ADMINS"),
        daily_limit=sum(numbers("DAILY_LIMIT")),
        deadline=min(sum(numbers("DEADLINE", "3600")), 21600),
    )
    if wrong:
        raise ValueError("\n".join(wrong))
    return settings


@dataclass
class Chat:
    """chats/<chat>.json: waits for a photo, for a style (content is set) or for its job (job is set)."""

    content: Json = None  # {"file_id", "document": whether it came as a file}
    job: str | None = None
    kept: dict[str, Json] = field(default_factory=dict)  # recent jobs' work, for the buttons
    seen: list[int] = field(default_factory=list)  # updates handled last; their ids may restart, so no "<"
    reply: list[str] = field(default_factory=list)  # the texts that answer the last of them
    album: str | None = None  # the album of the last picture taken
    told: str | None = None  # the album whose further pictures were last turned away


@dataclass
class Job:
    """jobs/<id>/job.json, which no model sees; from `over` on, what only this process knows."""

    id: str
    step: str = "adopt"  # then announce, stage, wait
    chat: int = 0
    user: int = 0
    thread: int | None = None
    lang: str = "en"
    style: str = ""  # in words
    work: dict[str, Json] = field(
        default_factory=dict
    )  # content, style: picture or name, strength, colours, file
    created: float = field(default_factory=time.time)
    message: int | None = None  # the status message
    output: str = ""  # the keys for SageMaker's answer, of which it will write one
    failure: str = ""
    sent: list[str] = field(default_factory=list)  # what the user has got: "photo", "document"
    over: bool = False  # its chat does not wait for it: only its objects are left
    emptied: bool = False  # and those are gone, but the model may still write some
    verdict: str = ""  # why it failed, where we found out ourselves
    working: bool = False  # a step is in the chat's lane
    after: float = 0.0  # no step before then (monotonic, as all times below)
    tries: int = 0
    invoked: float = 0.0
    glanced: float = field(default_factory=time.monotonic)
    interval: float = EDIT_SECONDS
    progress: str = ""  # ETag of the progress object
    shown: tuple[str, str] = ("", "")  # ETag and words of the status message
    is_photo: bool = False  # the status message has become one

    @property
    def model(self) -> str:
        return "cyclegan" if isinstance(self.work["style"], str) else "nst"

    @property
    def result(self) -> str:
        return f"jobs/{self.id}/result.{'png' if self.work['file'] else 'jpg'}"


@dataclass
class Bot:
    settings: Settings
    web: requests.Session
    s3: Any
    runtime: Any
    name: str = ""
    jobs: dict[str, Job] = field(default_factory=dict)  # all that are pending
    answers: set[str] = field(default_factory=set)  # keys seen under async/
    cursors: dict[str, str] = field(default_factory=dict)  # where the listing of a prefix goes on
    awake: dict[str, float] = field(default_factory=dict)  # when a model last gave a sign of life
    lanes: dict[int | str, deque[Task]] = field(default_factory=dict)  # tasks by chat
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(WORKERS))
    inbox: dict[int, float] = field(default_factory=dict)  # unconfirmed updates: arrival, or 0 when handled
    lock: threading.Condition = field(default_factory=threading.Condition)  # of lanes and inbox
    stirred: threading.Event = field(default_factory=threading.Event)  # the watcher has something to do
    stopping: bool = False
    previews: bool = True  # Telegram's server can turn the status message into a photo
    count: Counter[str] = field(default_factory=Counter)
    lag: float = 0.0
    born: float = field(default_factory=time.monotonic)


# A task returns None when it is done, or the seconds after which it must run again, before all others of its
# lane. Tasks of one chat run in order, chats side by side.
Task = Callable[[], "float | None"]


def put(bot: Bot, lane: int | str, task: Task) -> None:
    with bot.lock:
        queue = bot.lanes.setdefault(lane, deque())
        queue.append(task)
        if len(queue) == 1:
            bot.pool.submit(run_lane, bot, lane)


def run_lane(bot: Bot, lane: int | str) -> None:
    if bot.stopping:
        return
    again = bot.lanes[lane][0]()
    with bot.lock:
        if again is None:
            bot.lanes[lane].popleft()
        if not bot.lanes[lane]:
            del bot.lanes[lane]
        elif not again:
            bot.pool.submit(run_lane, bot, lane)
        else:
            timer = threading.Timer(again, bot.pool.submit, (run_lane, bot, lane))
            timer.daemon = True
            timer.start()


# ---------------------------------------------------------------- Telegram


class TelegramError(Exception):
    """A call that Telegram refused, with Telegram's code; 0 where no whole answer came, or not Telegram's;
    200 where Telegram accepted the call and the rest of its answer was lost."""

    def __init__(self, method: str, code: int, description: str, hints: Mapping[str, Json]) -> None:
        super().__init__(f"{method}: {code} {description}")
        self.code, self.description = code, description
        self.retry_after = float(hints.get("retry_after", 0))
        self.migrate_to: int | None = hints.get("migrate_to_chat_id")


def call(
    bot: Bot, method: str, files: Mapping[str, Json] | None = None, wait: float = 30, **values: Json
) -> Json:
    """One request to the Bot API: its result, or TelegramError. Values that are None are left out."""
    url = f"{bot.settings.api}/bot{bot.settings.token}/{method}"
    values = {key: value for key, value in values.items() if value is not None}
    form = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
    body = {"data": form, "files": files} if files else {"json": values}
    code = 0
    try:
        with bot.web.post(url, timeout=(10, wait), stream=True, **body) as response:  # type: ignore[arg-type]
            accepted = response.status_code == 200 and "json" in response.headers.get("Content-Type", "")
            code = 200 if accepted else 0
            answer = response.json()
        if answer["ok"]:
            return answer["result"]
        refused = int(answer["error_code"]), str(answer["description"]), answer.get("parameters") or {}
    except (
        requests.RequestException,
        ValueError,
        KeyError,
        TypeError,
    ) as error:  # its text may hold the token
        raise TelegramError(method, code, f"no whole answer ({type(error).__name__})", {}) from None
    raise TelegramError(method, *refused)


def say(bot: Bot, chat: int, thread: int | None, method: str, **values: Json) -> dict[str, Json]:
    """Send to a chat, wherever it has moved, and past a topic that is gone. Returns the message."""
    try:
        return dict(call(bot, method, chat_id=chat, message_thread_id=thread, **values))
    except TelegramError as error:
        if error.migrate_to:
            move_chat(bot, chat, error.migrate_to)
            return say(bot, error.migrate_to, thread, method, **values)
        if thread and error.code == 400 and "thread" in error.description:
            return say(bot, chat, None, method, **values)
        if error.code == 200:  # it is in the chat, only its number is not known
            return {}
        raise


def hint(bot: Bot, method: str, **values: Json) -> TelegramError | None:
    """A call that may fail without harm: its error is returned, not raised."""
    try:
        call(bot, method, **values)
    except TelegramError as error:
        return error
    return None


def buttons(job: Job, *rows: list[str]) -> dict[str, Json]:
    """An inline keyboard of what can be done to a job."""
    words = [
        [{"text": text(job.lang, f"b_{verb}"), "callback_data": f"{verb}:{job.id}"} for verb in row]
        for row in rows
    ]
    return {"inline_keyboard": [row for row in words if row]}


def backoff(tries: int) -> float:
    return min(30.0, 0.5 * 2 ** min(tries, 10)) * random.uniform(0.5, 1)


def note(bot: Bot, what: str, error: Exception, tries: int) -> float | None:
    """Log a failed step. Returns the seconds after which to try again, or None where that would not help."""
    again: float | None = None
    if isinstance(error, TelegramError) and (error.code in (0, 429) or (error.code >= 500 and tries < 20)):
        again = error.retry_after or backoff(tries)
    elif isinstance(error, S3_ERRORS):
        again = 0 if "(PreconditionFailed)" in str(error) else backoff(tries)  # 0: another writer was quicker
    weather = isinstance(error, (TelegramError, *S3_ERRORS))
    bot.count["errors"] += 1
    log.warning(
        "%s: %s; again in %s s", what, error if weather else type(error).__name__, again, exc_info=not weather
    )
    return again


# ---------------------------------------------------------------- S3


def get_bytes(bot: Bot, key: str) -> tuple[bytes, str]:
    """The object and its ETag; (b"", "") where there is none."""
    try:
        found = bot.s3.get_object(Bucket=bot.settings.bucket, Key=key)
    except bot.s3.exceptions.NoSuchKey:
        return b"", ""
    return found["Body"].read(), found["ETag"]


def get_json(bot: Bot, key: str) -> tuple[dict[str, Json], str]:
    """The same for JSON; {} for what cannot be read, so that it gets written anew."""
    data, etag = get_bytes(bot, key)
    try:
        return dict(json.loads(data)), etag
    except (ValueError, TypeError):
        return {}, etag


def put_json(bot: Bot, key: str, value: Json, etag: str | None = None) -> None:
    """With `etag` only over that version, "" being none; PreconditionFailed otherwise."""
    condition = {} if etag is None else {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
    bot.s3.put_object(Bucket=bot.settings.bucket, Key=key, Body=json.dumps(value).encode(), **condition)


def listing(bot: Bot, prefix: str) -> Iterator[dict[str, Json]]:
    pages = bot.s3.get_paginator("list_objects_v2").paginate(Bucket=bot.settings.bucket, Prefix=prefix)
    return (item for page in pages for item in page.get("Contents", ()))


def remove(bot: Bot, keys: list[str]) -> None:
    for start in range(0, len(keys), 1000):
        batch = [{"Key": key} for key in keys[start : start + 1000]]
        bot.s3.delete_objects(Bucket=bot.settings.bucket, Delete={"Objects": batch, "Quiet": True})


def load_chat(bot: Bot, number: int) -> tuple[int, Chat, str]:
    """The chat's number (another one where it has moved), its state, and the state's ETag."""
    value, etag = get_json(bot, f"chats/{number}.json")
    if "moved" in value:
        return load_chat(bot, value["moved"])
    return number, Chat(**{f.name: value[f.name] for f in fields(Chat) if f.name in value}), etag


def save_chat(bot: Bot, number: int, chat: Chat, etag: str) -> None:
    put_json(bot, f"chats/{number}.json", asdict(chat), etag)


def move_chat(bot: Bot, number: int, new: int) -> None:
    """Telegram made a group a supergroup, with a new number."""
    put_json(bot, f"chats/{new}.json", asdict(load_chat(bot, number)[1]))
    put_json(bot, f"chats/{number}.json", {"moved": new})


def save_job(bot: Bot, job: Job) -> None:
    lasting = itertools.takewhile(lambda item: item[0] != "over", asdict(job).items())
    put_json(bot, f"jobs/{job.id}/job.json", dict(lasting))


# ---------------------------------------------------------------- the conversation


@dataclass(frozen=True)
class Event:
    """What a user did. `kind` is command, text, button, image (value: what it is) or wrong (value: why)."""

    update: int
    chat: int  # positive: private
    user: int
    lang: str
    thread: int | None
    kind: str
    value: Json
    album: str | None


def parse(bot: Bot, update: Mapping[str, Json]) -> Event | None:
    """None for an update that is not meant for us, such as everybody's talk in a group."""
    query = update.get("callback_query")
    message = (query or update).get("message") or {}
    sender = (query or message).get("from")
    if not sender or not message:
        return None
    number, name = message["chat"]["id"], f"@{bot.name}".lower()
    kind, value = ("button", query.get("data", "")) if query else read_content(message)
    if kind == "command":
        value, _, target = value.partition("@")
        kind = "ignored" if target and f"@{target}" != name else kind
    replied = message.get("reply_to_message", {}).get("from", {}).get("username")
    named = replied == bot.name or name in (message.get("text") or message.get("caption") or "").lower()
    if kind == "ignored" or not (number > 0 or kind in ("command", "button") or named):
        return None
    lang = "ru" if str(sender.get("language_code")).lower().startswith("ru") else "en"
    thread = message.get("message_thread_id") if number > 0 or message.get("is_topic_message") else None
    album = message.get("media_group_id")
    return Event(update["update_id"], number, sender["id"], lang, thread, kind, value, album)


def read_content(message: Mapping[str, Json]) -> tuple[str, Json]:
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


def decide(bot: Bot, chat: Chat, event: Event) -> list[str]:
    """The conversation: changes the chat, and returns the keys of the texts to answer with."""
    settings, value = bot.settings, event.value
    if settings.allowed and event.user not in settings.allowed + settings.admins:
        return ["private"]
    if event.kind == "button":
        return on_button(bot, chat, event)
    if event.kind == "image":
        return on_image(bot, chat, event)
    if event.kind == "wrong":
        return expect(chat, event, value)
    if event.kind == "text":
        names = [name for name, label in settings.styles.items() if label.lower() == value.lower()]
        if names and chat.content and not chat.job:
            return begin(bot, chat, event, {"content": chat.content, "style": names[0]})
        return expect(chat, event, "bad_style" if chat.content else "")
    if value == "start":
        chat.content = None
        return expect(chat, event, "hello")
    if value == "cancel":
        had, chat.job, chat.content = chat.job or chat.content, None, None
        return expect(chat, event, "cancelled" if had else "nothing")
    if value == "help" or (value == "stats" and event.user in settings.admins):
        return [value]
    return expect(chat, event, "bad_command")


def expect(chat: Chat, event: Event, reason: str = "") -> list[str]:
    """Say what we are waiting for, after the reason why what came was not it."""
    if chat.job:
        return ["busy"]
    wanted = ["ask_style"] if chat.content else ["ask_content"] + ["in_group"] * (event.chat < 0)
    return [reason, *wanted] if reason else wanted


def on_image(bot: Bot, chat: Chat, event: Event) -> list[str]:
    if chat.job:  # of an album's further pictures only the first is answered
        told, chat.told = event.album is not None and event.album == chat.told, event.album
        return [] if told else ["album" if event.album and event.album == chat.album else "busy"]
    chat.album = event.album
    if chat.content:
        return begin(bot, chat, event, {"content": chat.content, "style": event.value})
    chat.content = event.value
    return expect(chat, event, "got_content")


def on_button(bot: Bot, chat: Chat, event: Event) -> list[str]:
    """Its data is verb:argument, the argument a painter, or the job under whose result the button stands."""
    verb, _, argument = event.value.partition(":")
    if verb == "cancel" and argument == chat.job:  # an old button must not stop a newer job
        chat.job = None
        return expect(chat, event, "cancelled")
    if chat.job or verb == "cancel":
        return expect(chat, event)
    if verb == "style" and argument in bot.settings.styles:
        last = [work["content"] for work in chat.kept.values()][-1:]
        content = chat.content or (last[0] if last else None)
        return (
            begin(bot, chat, event, {"content": content, "style": argument})
            if content
            else expect(chat, event)
        )
    work = dict(chat.kept.get(argument, {}))
    if not work:
        return expect(chat, event, "expired")
    if verb == "another":
        chat.content = work["content"]
        return expect(chat, event)
    stronger = {"stronger": 0.2, "softer": -0.2}.get(verb, 0)
    work["strength"] = round(min(1.0, max(0.1, work["strength"] + stronger)), 1)
    work["colours"] = (work["colours"] or verb == "colours") and verb != "theirs"
    work["file"] = work["file"] or verb == "file"
    return begin(bot, chat, event, work)


def begin(bot: Bot, chat: Chat, event: Event, work: dict[str, Json]) -> list[str]:
    """Give the chat a job, named after the update so that handling it twice makes one."""
    style = work["style"]
    painter = isinstance(style, str)
    words = bot.settings.styles.get(style, style) if painter else text(event.lang, "own_style")
    work = {"strength": 1.0 if painter else 0.5, "colours": False, "file": False} | work  # 0.5: NST's balance
    job = Job(str(event.update), "announce", event.chat, event.user, event.thread, event.lang, words, work)
    if not count_today(bot, job):
        return ["limit"]
    save_job(bot, job)
    watch(bot, job)  # it takes no step before this one is done: they share the chat's lane
    chat.job, chat.content, chat.told = job.id, None, None
    return []


def count_today(bot: Bot, job: Job, failed: bool = False) -> bool:
    """Whether the user may have this job today. One that failed is given back."""
    if not bot.settings.daily_limit:
        return True
    key, today = f"chats/user-{job.user}.json", datetime.now(timezone.utc).date().isoformat()
    value, etag = get_json(bot, key)
    others = [other for other in value.get("jobs", ()) if other != job.id and value["day"] == today]
    if not failed and len(others) >= bot.settings.daily_limit:
        return False
    put_json(bot, key, {"day": today, "jobs": others if failed else [*others, job.id]}, etag)
    return True


def answer(bot: Bot, event: Event) -> None:
    """Handle one event. Safe to repeat from any point: what is in S3 says what is still to be done."""
    number, chat, etag = load_chat(bot, event.chat)
    if event.update not in chat.seen:
        old = chat.job
        chat.reply = decide(bot, chat, event)
        chat.seen = [*chat.seen, event.update][-100:]  # as many as one unconfirmed batch can hold
        save_chat(bot, number, chat, etag)
        if old and old != chat.job:
            watch(bot, Job(old)).over = True
            bot.count["cancelled"] += 1
    if chat.job:  # perhaps begun by another process
        watch(bot, Job(chat.job))
    if chat.reply and chat.seen[-1] == event.update:
        reply(bot, number, event, chat.reply)


def reply(bot: Bot, number: int, event: Event, keys: list[str]) -> None:
    known = {"support": bot.settings.support, "limit": bot.settings.daily_limit, "user": event.user}
    words = text(event.lang, *keys, stats=health(bot) if "stats" in keys else "", **known)
    styles = [
        {"text": label, "callback_data": f"style:{name}"} for name, label in bot.settings.styles.items()
    ]
    rows = {"inline_keyboard": [styles[i : i + 2] for i in range(0, len(styles), 2)]}
    try:
        say(
            bot,
            number,
            event.thread,
            "sendMessage",
            text=words,
            reply_markup=rows if "ask_style" in keys else None,
        )
    except TelegramError as error:
        if error.code != 403:
            raise
        let_go(bot, number)


def handle(bot: Bot, update: Mapping[str, Json], tries: int) -> float | None:
    """One of the two catch-alls. None when the update may be confirmed, or seconds to try again after."""
    event = None
    try:
        if "callback_query" in update:
            hint(bot, "answerCallbackQuery", callback_query_id=update["callback_query"]["id"])
        event = parse(bot, update)
        if event:
            answer(bot, event)
    except Exception as error:
        again = note(bot, "update", error, tries)
        if again is None and event:
            hint(bot, "sendMessage", chat_id=event.chat, text=text(event.lang, "oops"))
        return again
    return None


# ---------------------------------------------------------------- jobs


def watch(bot: Bot, job: Job) -> Job:
    """Have the watcher take care of a job, unless it does already. Returns the one it takes care of."""
    bot.stirred.set()
    return bot.jobs.setdefault(job.id, job)


def let_go(bot: Bot, number: int, job: Job | None = None, keep: bool = False) -> None:
    """The chat's job (`job`, or whichever it has) is its job no longer; `keep` its work for the buttons."""
    number, chat, etag = load_chat(bot, number)
    if not chat.job or (job and chat.job != job.id):
        return
    if job and keep:
        chat.kept = dict([*chat.kept.items(), (job.id, job.work)][-KEPT:])
    old, chat.job = chat.job, None
    save_chat(bot, number, chat, etag)
    watch(bot, Job(old)).over = True


def is_owned(bot: Bot, job: Job) -> bool:
    """Whether the chat waits for this job. If not, its objects go, after a grace for a job just being born."""
    if load_chat(bot, job.chat)[1].job == job.id:
        return True
    job.after = time.monotonic() + 5
    job.over |= time.time() > job.created + GRACE_SECONDS
    return False


def adopt(bot: Bot, job: Job) -> None:
    """Take over what another run of this program began; without a job.json only leftovers are there."""
    value, _ = get_json(bot, f"jobs/{job.id}/job.json")
    for name in value:
        setattr(job, name, value[name])
    job.over |= not value


def announce(bot: Bot, job: Job) -> None:
    """The status message, which tells the user that the request is accepted."""
    if not is_owned(bot, job):
        return
    words = text(job.lang, "accepted", style=job.style)
    try:
        sent = say(
            bot, job.chat, job.thread, "sendMessage", text=words, reply_markup=buttons(job, ["cancel"])
        )
    except TelegramError as error:
        if error.code in (400, 403):  # nobody is there
            return let_go(bot, job.chat, job)
        raise
    job.message, job.shown, job.step = sent.get("message_id"), ("", words), "stage"
    save_job(bot, job)


def stage(bot: Bot, job: Job) -> None:
    """Carry the pictures from Telegram to S3, write the request, and hand it to the model."""
    if not is_owned(bot, job):
        return
    style, folder = job.work["style"], f"s3://{bot.settings.bucket}/jobs/{job.id}"
    request: dict[str, Json] = {"result_url": f"s3://{bot.settings.bucket}/{job.result}"}
    request |= {"progress_url": f"{folder}/progress.json", "strength": job.work["strength"]}
    if job.model == "cyclegan":
        request |= {"style_name": style}
    else:
        request |= {"preserve_color": job.work["colours"], "time_budget": TIME_BUDGET}
    for name in ("content", "style") if job.model == "nst" else ("content",):
        job.verdict = job.verdict or carry(bot, job.work[name], f"jobs/{job.id}/{name}")
        request[f"{name}_url"] = f"{folder}/{name}"
    if not job.verdict:
        put_json(bot, f"jobs/{job.id}/request.json", request)
        invoke(bot, job, f"{folder}/request.json")


def carry(bot: Bot, picture: Mapping[str, Json], key: str) -> str:
    """Copy a picture to S3, or say why not. Its link at Telegram holds the token, and stays in here."""
    try:
        path = call(bot, "getFile", file_id=picture["file_id"])["file_path"]
        url = f"{bot.settings.api}/file/bot{bot.settings.token}/{path}"
        with bot.web.get(url, timeout=(10, 30), stream=True) as response:
            response.raise_for_status()
            if int(response.headers.get("Content-Length", 0)) > MAX_BYTES:
                return "too_large"
            bot.s3.put_object(Bucket=bot.settings.bucket, Key=key, Body=response.content)
    except requests.RequestException as error:
        raise TelegramError("download", 0, type(error).__name__, {}) from None
    except TelegramError as error:
        if error.code != 400:
            raise
        return "too_large" if "too big" in error.description else "expired"
    return ""


def invoke(bot: Bot, job: Job, location: str) -> None:
    """Raises ClientError for what may pass, such as throttling; other refusals are the job's verdict."""
    try:
        places = bot.runtime.invoke_endpoint_async(
            EndpointName=bot.settings.endpoints[job.model],
            InputLocation=location,
            ContentType="application/json",
            InferenceId=job.id,
            InvocationTimeoutSeconds=INVOCATION_SECONDS,
            RequestTTLSeconds=max(60, bot.settings.deadline),
        )
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] >= 429 or "Throttl" in str(error):
            raise
        log.error("the endpoint %s refuses requests: %s", bot.settings.endpoints[job.model], error)
        job.verdict = "endpoint"
        return
    job.output, job.failure = (
        places[name].split("/", 3)[3] for name in ("OutputLocation", "FailureLocation")
    )
    job.step, job.invoked = "wait", time.monotonic()
    save_job(bot, job)


def glance(bot: Bot, job: Job) -> None:
    """Keep the status message true while the model works."""
    progress = get_json(bot, f"jobs/{job.id}/progress.json")[0] if job.progress != job.shown[0] else {}
    words = status(bot, job, progress)
    error = hint(bot, "sendChatAction", chat_id=job.chat, message_thread_id=job.thread, action="typing")
    if words != job.shown[1] and job.message and not (error and error.code == 429):
        error = redraw(bot, job, words, progress.get("preview"))
    job.shown, job.glanced = (job.progress, words), time.monotonic()
    if error and error.code == 429:
        job.interval, job.after = min(60.0, job.interval * 2), job.glanced + error.retry_after


def status(bot: Bot, job: Job, progress: Mapping[str, Json]) -> str:
    now, style = time.monotonic(), text(job.lang, "accepted", style=job.style)
    if progress.get("steps"):
        bot.awake[job.model] = now
        done, left = min(1.0, progress.get("step", 0) / progress["steps"]), progress.get("seconds_left")
        bar = f"{style}\n{'▓' * int(10 * done):░<10} {done:.0%}"
        return bar if left is None else f"{bar}, {text(job.lang, 'left', seconds=round(left))}"
    if job.progress:
        return job.shown[1] or style
    if now - bot.awake.get(job.model, -AWAKE_SECONDS) > AWAKE_SECONDS:
        return f"{style}\n{text(job.lang, 'waking')}" if now - job.invoked > WAKING_SECONDS else style
    others = [other for other in list(bot.jobs.values()) if other.step == "wait" and not other.over]
    ahead = sum(other.model == job.model and other.invoked < job.invoked for other in others)
    return f"{style}\n{text(job.lang, 'in_line', ahead=ahead)}" if ahead else style


def redraw(bot: Bot, job: Job, words: str, preview: str | None) -> TelegramError | None:
    """Edit the status message: with a preview into a photo, where Telegram's server can do that."""
    to = {"chat_id": job.chat, "message_id": job.message, "reply_markup": buttons(job, ["cancel"])}
    if preview and bot.previews:
        media = {"type": "photo", "media": "attach://preview", "caption": words}
        error = hint(bot, "editMessageMedia", files={"preview": base64.b64decode(preview)}, media=media, **to)
        job.is_photo |= not error
        bot.previews = not error or error.code not in (404, 501)
        if bot.previews:
            return error
    method, name = ("editMessageCaption", "caption") if job.is_photo else ("editMessageText", "text")
    error = hint(bot, method, **{name: words}, **to)
    job.is_photo |= bool(error and "no text" in error.description)  # it was drawn before a restart
    return error


def finish(bot: Bot, job: Job) -> None:
    """Send the picture, or say why there is none; then record that by letting go of the job."""
    if not is_owned(bot, job):
        return
    reason = job.verdict or read_failure(bot, job) or deliver(bot, job)
    if reason and "reason" not in job.sent:
        why = text(job.lang, reason, support=bot.settings.support) if reason in TEXTS else reason
        words = " ".join([text(job.lang, "failed"), why, text(job.lang, "go_on")])
        send(bot, job, "sendMessage", "reason", text=words, reply_markup=buttons(job, ["retry", "another"]))
        count_today(bot, job, failed=True)
    bot.count["failed" if reason else "done"] += 1
    let_go(bot, job.chat, job, keep=reason not in ("expired", "too_large"))
    job.over = True


def send(bot: Bot, job: Job, method: str, part: str, **values: Json) -> bool:
    """Send a part of the answer and record that. False where Telegram does not take it."""
    try:
        say(bot, job.chat, job.thread, method, **values)
    except TelegramError as error:
        if error.code not in (400, 403):
            raise
        return error.code == 403
    job.sent.append(part)
    save_job(bot, job)
    return True


def read_failure(bot: Bot, job: Job) -> str:
    """Why the model failed: a text's key, or words for the user. Nothing if there is a picture."""
    if job.output in bot.answers:
        return ""
    if job.failure not in bot.answers:
        return "deadline"
    error = get_bytes(bot, job.failure)[0].decode(errors="replace").replace('\\"', '"')  # it may be quoted
    code, message = (re.search(rf'"{name}"\s*:\s*"([^"]{{1,500}})"', error) for name in ("code", "message"))
    log.warning("job %s failed in the model: %s", job.id, code[1] if code else "no code")
    if message and job.lang == "en":
        return message[1]
    return code[1] if code and code[1] in TEXTS else "internal"


def deliver(bot: Bot, job: Job) -> str:
    """Send the picture, or say why it cannot be had. What was sent before is not sent again."""
    said, picture = get_json(bot, job.output)[0], get_bytes(bot, job.result)[0]
    if not picture:
        return "internal"
    bot.awake[job.model] = time.monotonic()
    seconds = round(float(said.get("seconds") or time.time() - job.created))
    lines = [text(job.lang, "caption", style=job.style, seconds=seconds), *map(str, said.get("notes") or ())]
    values: dict[str, Json] = {"caption": "\n".join(lines)[:1000], "reply_markup": offers(job)}
    width, height = said.get("size") or (1, 1)
    narrow = max(width, height) > PHOTO_RATIO * min(width, height)
    photo = not (job.work["file"] or narrow or len(picture) > PHOTO_BYTES or width + height > PHOTO_SIDES)
    name = "painting" + job.result[-4:]
    if photo and "photo" not in job.sent:
        photo = send(bot, job, "sendPhoto", "photo", files={"photo": (name, picture)}, **values)
    if "document" not in job.sent and (not photo or job.work["content"]["document"]):
        values = {} if photo else values
        return (
            ""
            if send(bot, job, "sendDocument", "document", files={"document": (name, picture)}, **values)
            else "internal"
        )
    return ""


def offers(job: Job) -> dict[str, Json]:
    """Buttons for what can be had: nothing is stronger than all, and painters know only their own colours."""
    strength = ["stronger"] * (job.work["strength"] < 1) + ["softer"] * (job.work["strength"] > 0.1)
    colours = ["theirs" if job.work["colours"] else "colours"] * (job.model == "nst")
    return buttons(job, ["another"], strength, colours + ["file"] * (not job.work["file"]))


def discard(bot: Bot, job: Job) -> None:
    """Remove all of a job that its chat does not wait for, now and again when the model has answered."""
    if job.step == "adopt":
        adopt(bot, job)
    if job.message:
        hint(bot, "deleteMessage", chat_id=job.chat, message_id=job.message)
    keys = [item["Key"] for item in listing(bot, f"jobs/{job.id}/")]
    remove(bot, keys + [key for key in (job.output, job.failure) if key])
    job.emptied, job.message = True, None
    if job.step != "wait" or has_ended(bot, job):
        bot.jobs.pop(job.id, None)
    bot.answers -= {job.output, job.failure}


def has_ended(bot: Bot, job: Job) -> bool:
    answered = job.output in bot.answers or job.failure in bot.answers
    return answered or time.time() > job.created + bot.settings.deadline


def next_step(bot: Bot, job: Job) -> Callable[[Bot, Job], None] | None:
    """The state machine of a job."""
    if job.over:
        return None if job.emptied and not has_ended(bot, job) else discard
    if job.step == "adopt":
        return adopt
    if job.verdict or has_ended(bot, job):
        return finish
    return {"announce": announce, "stage": stage, "wait": glance}[job.step]


def take_step(bot: Bot, job: Job, step: Callable[[Bot, Job], None]) -> None:
    """The other catch-all."""
    try:
        step(bot, job)
        job.tries = 0
    except Exception as error:
        job.tries += 1
        again = note(bot, step.__name__, error, job.tries)
        job.after = time.monotonic() + (backoff(job.tries) if again is None else again)
        if again is None and step in (announce, stage):
            job.verdict = "internal"
    job.working = False
    bot.stirred.set()


# ---------------------------------------------------------------- the watcher: two list calls a second


def watch_jobs(bot: Bot) -> None:
    looked = beat = swept = -math.inf
    while not bot.stopping:
        bot.stirred.wait(1)
        bot.stirred.clear()
        now, glances = time.monotonic(), 0
        try:
            if now >= looked + 1 and (bot.jobs or now < bot.born + 2 * GRACE_SECONDS):
                looked, glances = now, GLANCES
                look(bot)
            if now >= swept + 86400:
                sweep(bot)
                swept = now
        except S3_ERRORS as error:
            note(bot, "listing", error, 1)
        dispatch(bot, glances)
        if now >= beat + 60:
            log.info(health(bot))
            beat = now


def look(bot: Bot) -> None:
    """A page of the answers and a page of the jobs, each going on where the last one ended."""
    for prefix in ("async/", "jobs/"):
        after = bot.cursors.get(prefix, "")
        page = bot.s3.list_objects_v2(Bucket=bot.settings.bucket, Prefix=prefix, StartAfter=after)
        items = page.get("Contents", [])
        bot.cursors[prefix] = items[-1]["Key"] if page["IsTruncated"] else ""
        if prefix == "async/":
            bot.answers |= {item["Key"] for item in items}
            continue
        for item in items:
            _, number, name = item["Key"].split("/", 2)
            job = bot.jobs.get(number) or watch(bot, Job(number))
            job.progress = item["ETag"] if name == "progress.json" else job.progress


def dispatch(bot: Bot, glances: int) -> None:
    """Put the next step of each job that can go on into its chat's lane."""
    now = time.monotonic()
    ready = [job for job in list(bot.jobs.values()) if not job.working and now >= job.after]
    steps = [(job, step) for job in ready if (step := next_step(bot, job))]
    looks = [job for job, step in steps if step is glance and now >= job.glanced + job.interval]
    chosen = heapq.nsmallest(glances, looks, key=lambda job: job.glanced)
    for job, step in [(job, step) for job, step in steps if step is not glance] + [
        (job, glance) for job in chosen
    ]:
        job.working = True
        put(bot, job.chat or job.id, partial(take_step, bot, job, step))


def sweep(bot: Bot) -> None:
    """Once a day: chats without use, answers that nobody waits for, jobs that were overlooked."""
    now = datetime.now(timezone.utc)
    for prefix, days in (("chats/", KEPT_DAYS), ("async/", 1)):
        old = (
            item["Key"] for item in listing(bot, prefix) if item["LastModified"] < now - timedelta(days=days)
        )
        remove(bot, list(old))
    for item in listing(bot, "jobs/"):
        watch(bot, Job(item["Key"].split("/")[1]))


def health(bot: Bot) -> str:
    with bot.lock:
        waiting = [time.monotonic() - since for since in bot.inbox.values() if since]
    lag, bot.lag = max([bot.lag, *waiting]), 0.0
    counts = " ".join(
        f"{name}={bot.count[name]}" for name in ("updates", "done", "failed", "cancelled", "errors")
    )
    return f"{counts} jobs={len(bot.jobs)} waiting={len(waiting)} lag={lag:.1f}s"


# ---------------------------------------------------------------- main


def take(bot: Bot, update: Mapping[str, Json]) -> None:
    """Put an update into its chat's lane, once."""
    number, tries = update["update_id"], itertools.count(1)
    message = (update.get("callback_query") or update).get("message") or {}

    def task() -> float | None:
        again = handle(bot, update, next(tries))
        if again is None:
            with bot.lock:
                bot.lag = max(bot.lag, time.monotonic() - bot.inbox[number])
                bot.inbox[number] = 0.0
                bot.lock.notify_all()
        return again

    with bot.lock:
        if number in bot.inbox:
            return
        bot.inbox[number] = time.monotonic()
        bot.count["updates"] += 1
    put(bot, message.get("chat", {}).get("id", 0), task)


def offset(bot: Bot) -> int | None:
    """Confirms all updates below the first that is not handled; None when there is nothing to confirm."""
    with bot.lock:
        first = min((n for n, since in bot.inbox.items() if since), default=max(bot.inbox, default=-1) + 1)
        bot.inbox = {number: since for number, since in bot.inbox.items() if number >= first}
    return first or None


def poll(bot: Bot) -> None:
    """Take updates. While some are unhandled Telegram gives them again and again: then ask more rarely."""
    quiet = 0.0
    while True:
        before, confirm = bot.count["updates"], offset(bot)
        timeout = 0 if bot.inbox else 50
        for update in patiently(
            bot, "getUpdates", wait=60, offset=confirm, timeout=timeout, allowed_updates=UPDATES
        ):
            take(bot, update)
        quiet = 0.02 if bot.count["updates"] > before else min(1.0, 2 * quiet + 0.02)
        with bot.lock:
            bot.lock.wait_for(lambda: not any(bot.inbox.values()), quiet)


def patiently(bot: Bot, method: str, **values: Json) -> Json:
    """Call until Telegram answers, whatever the weather. A refused token ends the program."""
    for tries in itertools.count(1):
        try:
            return call(bot, method, **values)
        except TelegramError as error:
            if error.code in (401, 404):
                log.error("Telegram does not know this token: set TELEGRAM_TOKEN to what @BotFather gave you")
                sys.exit(2)
            if error.code == 409 and "webhook" in error.description:
                log.warning("a webhook is set for this bot, and is removed now: this program polls")
                hint(bot, "deleteWebhook")
            elif error.code == 409:
                log.warning("another program polls with this token: stop one of the two")
            note(bot, method, error, tries)
            time.sleep(error.retry_after or backoff(tries))


def check(bot: Bot) -> int:
    """Try all that the environment names, and say what is wrong and what to do."""
    key, failed = f"jobs/check-{time.time_ns()}/request.json", 0
    probe = {"InputLocation": f"s3://{bot.settings.bucket}/{key}", "RequestTTLSeconds": 60}
    attempts: list[tuple[str, Callable[[], Json], str]] = [
        ("token", lambda: call(bot, "getMe"), "set TELEGRAM_TOKEN to what @BotFather gave you"),
        ("bucket", lambda: (put_json(bot, key, {}), list(listing(bot, key)), remove(bot, [key])),
         "set BUCKET to one that these AWS credentials may read, write and list"),
    ]  # fmt: skip
    for name in bot.settings.endpoints.values():
        ask = partial(bot.runtime.invoke_endpoint_async, EndpointName=name, **probe)
        attempts.append((f"endpoint {name}", ask, "deploy it, or set its variable to one that is in service"))
    for what, attempt, advice in attempts:
        try:
            attempt()
            print(f"{what}: ok")
        except (TelegramError, *S3_ERRORS) as error:
            print(f"{what}: {error}. What to do: {advice}")
            failed = 1
    return failed


def start(bot: Bot) -> None:
    bot.name = patiently(bot, "getMe").get("username", "")
    hint(bot, "deleteWebhook")
    for lang, code in (("en", None), ("ru", "ru")):
        commands = [
            {"command": name, "description": text(lang, f"c_{name}")} for name in ("start", "cancel", "help")
        ]
        hint(bot, "setMyCommands", commands=commands, language_code=code)
    threading.Thread(target=watch_jobs, args=(bot,), daemon=True).start()


def stop(bot: Bot) -> None:
    """Within 10 s: let what runs come to its end, and confirm what is handled."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    bot.stopping, home = True, threading.Barrier(WORKERS + 1)
    for _ in range(WORKERS):
        bot.pool.submit(home.wait)
    with contextlib.suppress(threading.BrokenBarrierError):
        home.wait(6)
    hint(bot, "getUpdates", wait=2, offset=offset(bot), limit=1, timeout=0)
    log.info("stopped: %s", health(bot))


class Redacted(logging.Formatter):
    token = ""

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).replace(self.token, "<token>")


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    try:
        settings = read_settings(os.environ)
        web, once = requests.Session(), {"total_max_attempts": 1}
        web.mount("http", requests.adapters.HTTPAdapter(pool_maxsize=WORKERS + 1))
        s3 = boto3.client(
            "s3", config=Config(connect_timeout=5, read_timeout=20, max_pool_connections=WORKERS + 1)
        )
        runtime = boto3.client(
            "sagemaker-runtime", config=Config(connect_timeout=5, read_timeout=20, retries=once)
        )
    except (ValueError, BotoCoreError) as error:
        print(error, file=sys.stderr)
        return 2
    handler = logging.StreamHandler()
    handler.setFormatter(Redacted("%(asctime)s %(levelname)s %(message)s"))
    Redacted.token = settings.token
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    bot = Bot(settings, web, s3, runtime)
    if sys.argv[1:] == ["--check"]:
        return check(bot)
    signal.signal(signal.SIGTERM, interrupt)
    try:
        start(bot)
        poll(bot)
    except KeyboardInterrupt:
        stop(bot)
    logging.shutdown()
    os._exit(0)  # without waiting for threads that are caught in a slow network


if __name__ == "__main__":
    sys.exit(main())
