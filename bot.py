"""A Telegram chat that sends a photo back as a painting. It may be killed at any moment.

Updates come from Telegram by long polling. Chats and jobs are JSON objects in S3. The models are
asynchronous SageMaker endpoints, which read their inputs from S3 and write their results there.

Four rules make it safe to kill the bot:

1. An update is confirmed to Telegram only after its effect is stored in S3. Handling an update a
   second time changes nothing more.
2. A job is named after its update, and jobs/<job>/job.json is written before the chat that owns
   the job.
3. A job that its chat does not own is thrown away unseen. To cancel a job, the chat gives it up.
4. The bot records that a picture was sent before it removes the job's objects.

The file reads from top to bottom: configuration, texts, stored types, Telegram, S3, the models, the
conversation (pure functions), errors, updates, jobs, the dispatcher (who is served when), and main.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import random
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from itertools import count
from typing import Any, NamedTuple

import boto3
import requests
from botocore.config import Config as ClientConfig
from botocore.exceptions import BotoCoreError, ClientError

# Facts that the endpoints, deploy.py and local/ share with the bot. The whole contract is in
# docs/contract.md.
MODELS = ("nst", "cyclegan")
CHATS_PREFIX = "chats/"
JOBS_PREFIX = "jobs/"
ASYNC_PREFIX = "async/"
OUTPUT_PREFIX = "async/output/"
FAILURE_PREFIX = "async/failure/"
MODELS_PREFIX = "models/"
TRAINING_PREFIX = "training/"
CATALOG_KEY = "models/catalog.json"
TRAINING_TEMPLATE_KEY = "models/training.json"
LESSONS_PREFIX = "training/lessons/"
PAINTER_PATTERN = r"[a-z0-9][a-z0-9_-]{0,31}"  # the name of a painter that is trained
INVOCATION_SECONDS = 900  # the longest time that a model may work on one request

# What we accept from users. getFile delivers at most 20 MB.
MAX_FILE_BYTES = 20 * 2**20
MAX_PIXELS = 40_000_000

# What Telegram accepts as a photo: https://core.telegram.org/bots/api#sendphoto
PHOTO_MAX_BYTES = 10 * 2**20
PHOTO_MAX_SIDES = 10_000  # width + height
PHOTO_MAX_RATIO = 20
CAPTION_MAX_LENGTH = 1000
SEND_METHODS = {"photo": "sendPhoto", "document": "sendDocument"}

WORKER_THREADS = 16
PICTURES_IN_MEMORY = 4
HISTORY_LENGTH = 10  # results of a chat whose buttons still work
SEEN_UPDATES = 100  # one unconfirmed batch of getUpdates holds at most 100

EDIT_SECONDS = 3  # between two edits of the same status message
STATUS_UPDATES_PER_SECOND = 12  # over all chats; Telegram allows about 30 messages a second
WAKING_SECONDS = 10  # without progress for this long, we say that the model is waking up
TIME_BUDGET_SECONDS = 600  # what we ask of neural style transfer
DEADLINE_SECONDS = 3600  # from a job's creation to its failure, including all waiting
BACKOFF_SECONDS = 0.5  # the pause after a failed step; it doubles with each further failure
MAX_BACKOFF_SECONDS = 30.0
ANSWER_DAYS = 1  # answers of the models older than this belong to no job
CATALOG_SECONDS = 30  # between two looks at the catalog of styles
LESSON_SECONDS = 5  # between two looks at a painter's training
LESSON_DEADLINE_SECONDS = 12 * 3600  # from its creation to its failure, with all waiting for Spot
LESSON_START_SECONDS = 300  # a training job may be unknown for so long after its creation
TRAINING_NAME_LENGTH = 63  # SageMaker's limit
CATALOG_STYLES = 100  # Telegram shows no more buttons under a message

S3_ERRORS = (BotoCoreError, ClientError)
Json = Any  # whatever JSON can hold; it stays at the edges, where Telegram and S3 hand it over
log = logging.getLogger("bot")


# ---------------------------------------------------------------- configuration


class Setting(NamedTuple):
    """An environment variable: the pattern it must match, its default, and what to set it to."""

    pattern: str
    default: str
    advice: str


STYLES_SHOWN = {"monet": "Monet", "vangogh": "Van Gogh", "cezanne": "Cezanne", "ukiyoe": "Ukiyo-e"}
STYLE_NAME_PATTERN = r"[\w.-]{1,50}"
STYLE_PATTERN = rf"({STYLE_NAME_PATTERN})(?:=([^,]+))?"
STYLES_PATTERN = rf"\s*|\s*{STYLE_PATTERN}(\s*,\s*{STYLE_PATTERN})*\s*"

SETTINGS = {
    "TELEGRAM_TOKEN": Setting(r".+", "", "the token that @BotFather gave you"),
    "BUCKET": Setting(r".+", "", "the name of the S3 bucket for chats and jobs"),
    "NST_ENDPOINT": Setting(
        r".+", "", "the name of the SageMaker endpoint that takes any picture's style"
    ),
    "CYCLEGAN_ENDPOINT": Setting(r".+", "", "the name of the SageMaker endpoint with the painters"),
    "STYLES": Setting(STYLES_PATTERN, " ", "names such as monet,vangogh or monet=Claude"),
    "ALLOWED_USERS": Setting(r"[\d\s,]+", " ", "whole numbers, with commas between them"),
    "ADMINS": Setting(r"[\d\s,]+", " ", "whole numbers, with commas between them"),
    "DAILY_LIMIT": Setting(r"\d+", "0", "a whole number"),
    "TELEGRAM_API": Setting(
        r"https?://.+", "https://api.telegram.org", "the address of a Bot API server"
    ),
    "SUPPORT": Setting(r".+", "Questions? Please ask the author.", "a sentence"),
}


@dataclass(frozen=True)
class Config:
    """The bot's settings. See docs/chat.md for the environment variables they come from."""

    token: str
    bucket: str
    endpoints: dict[str, str]  # by model
    styles: dict[str, str]  # names, and how the keyboard shows them; empty: those of the catalog
    allowed_users: frozenset[int]  # empty: everybody
    admins: frozenset[int]
    daily_limit: int  # 0: no limit
    telegram_api: str  # without a slash at its end
    support: str


def read_config(environment: Mapping[str, str]) -> Config:
    """Return the settings.

    Raises ValueError with a line for each setting that is missing or unclear.
    """
    problems = []
    values = {}
    for name, setting in SETTINGS.items():
        value = environment.get(name) or setting.default
        values[name] = value
        if re.fullmatch(setting.pattern, value, re.ASCII | re.DOTALL):
            continue
        problem = "unclear" if value else "not set"
        problems.append(f"{name} is {problem}: set it to {setting.advice}")

    session = boto3.Session()
    if not (session.region_name and session.get_credentials()):
        problems.append(
            "AWS is not set up: set AWS_DEFAULT_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if problems:
        raise ValueError("\n".join(problems))

    return Config(
        token=values["TELEGRAM_TOKEN"],
        bucket=values["BUCKET"],
        endpoints={"nst": values["NST_ENDPOINT"], "cyclegan": values["CYCLEGAN_ENDPOINT"]},
        styles=read_styles(values["STYLES"]),
        allowed_users=read_numbers(values["ALLOWED_USERS"]),
        admins=read_numbers(values["ADMINS"]),
        daily_limit=int(values["DAILY_LIMIT"]),
        telegram_api=values["TELEGRAM_API"].rstrip("/"),
        support=values["SUPPORT"],
    )


def read_styles(value: str) -> dict[str, str]:
    """Return the styles of a list such as "monet=Claude, vintage": names and how they are shown."""
    styles = {}
    for name, label in re.findall(STYLE_PATTERN, value):
        styles[name] = label or STYLES_SHOWN.get(name) or name.title()
    return styles


def read_numbers(value: str) -> frozenset[int]:
    return frozenset(int(number) for number in re.findall(r"\d+", value))


# ---------------------------------------------------------------- texts


class ErrorCode(str, Enum):
    """Why a painting failed. The value is the code that the models put into their answers.

    Each code has a text in ERROR_TEXTS. The last three are found by the bot itself.
    """

    ACCESS_DENIED = "access_denied"
    BAD_REQUEST = "bad_request"
    BODY_TOO_LARGE = "body_too_large"
    BROKEN = "broken"
    DIVERGED = "diverged"
    FILE_TOO_LARGE = "file_too_large"
    IMAGE_TOO_LARGE = "image_too_large"
    IMAGE_TOO_SMALL = "image_too_small"
    IMAGE_UNREADABLE = "image_unreadable"
    INTERNAL = "internal"
    LOADING = "loading"
    OBJECT_NOT_FOUND = "object_not_found"
    OUT_OF_MEMORY = "out_of_memory"
    PRIVATE_ADDRESS = "private_address"
    QUEUE_FULL = "queue_full"
    STOPPING = "stopping"
    STORAGE_FAILED = "storage_failed"
    UNKNOWN_STYLE = "unknown_style"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"

    DEADLINE = "deadline"
    ENDPOINT = "endpoint"
    EXPIRED = "expired"


class Text(NamedTuple):
    """A sentence in the languages that the bot speaks."""

    en: str
    ru: str


TEXTS = {
    "hello": Text(
        "Hello! I turn photos into paintings.",
        "Здравствуйте! Я превращаю фотографии в картины.",
    ),
    "help": Text(
        "Send me a photo, then choose a painter or send a style picture. "
        "/cancel stops me. {support}",
        "Пришлите фотографию, потом выберите художника или пришлите образец. "
        "/cancel остановит меня. {support}",
    ),
    "ask_content": Text(
        "Please send me the photo to paint.",
        "Пришлите фотографию, которую нужно нарисовать.",
    ),
    "got_content": Text("Got your photo.", "Фотография у меня."),
    "ask_style": Text(
        "Choose a painter, or send a picture as the style.",
        "Выберите художника или пришлите образец.",
    ),
    "busy": Text(
        "I am still painting: wait, or stop me with /cancel.",
        "Я ещё рисую: подождите или нажмите /cancel.",
    ),
    "cancelled": Text("Cancelled.", "Отменено."),
    "nothing_to_cancel": Text("There is nothing to cancel.", "Отменять нечего."),
    "not_a_picture": Text("That is not a picture.", "Это не картинка."),
    "not_an_image": Text("This file is not an image.", "Этот файл не изображение."),
    "unknown_command": Text(
        "I do not know this command, see /help.",
        "Такой команды я не знаю, смотрите /help.",
    ),
    "daily_limit": Text(
        "Only {limit} a day: come back after midnight UTC.",
        "Только {limit} в день: жду после полуночи UTC.",
    ),
    "private": Text(
        "This bot is private. Your number is {user}. {support}",
        "Бот закрыт. Ваш номер: {user}. {support}",
    ),
    "stats": Text("{health}", "{health}"),
    "help_admin": Text(
        "/teach NAME, written under a picture, trains a new painter. /stats tells figures.",
        "/teach ИМЯ под картинкой обучает нового художника. /stats покажет цифры.",
    ),
    "ask_lesson": Text(
        "Send me the picture that the new painter shall learn from.",
        "Пришлите картинку, по которой будет учиться новый художник.",
    ),
    "painter_name": Text(
        "Give the painter a name of small letters, digits, _ and -, such as /teach klimt",
        "Назовите художника строчными латинскими буквами, цифрами, _ и -, например /teach klimt",
    ),
    "painter_exists": Text(
        "There is a painter of this name already: choose another name.",
        "Художник с таким именем уже есть: выберите другое имя.",
    ),
    "no_training": Text(
        "Painters cannot be trained here: ./deploy.py up sets that up.",
        "Здесь нельзя обучать художников: это настраивает ./deploy.py up.",
    ),
    "lesson_started": Text("Training the painter {name}.", "Обучаю художника {name}."),
    "lesson_waits": Text("Waiting for a machine.", "Жду машину."),
    "lesson_catalog": Text(
        "It is trained. Now it paints its sample, which takes a few minutes if the model sleeps.",
        "Он обучен. Теперь он рисует образец; если модель спит, это займёт несколько минут.",
    ),
    "lesson_done": Text(
        "{name} is ready. Send me a photo and choose {name}.",
        "{name} готов. Пришлите фотографию и выберите {name}.",
    ),
    "lesson_stopped": Text(
        "The training of {name} has been stopped.", "Обучение художника {name} остановлено."
    ),
    "lesson_failed": Text(
        "The training of {name} has failed: {reason} You can try again with /teach {name}",
        "Обучение художника {name} не удалось: {reason} Попробуйте ещё раз: /teach {name}",
    ),
    "lesson_unusable": Text(
        "the model cannot use what was trained; its log tells why.",
        "модель не может использовать то, что обучено; причина в её журнале.",
    ),
    "lesson_lost": Text("SageMaker does not know it any more.", "SageMaker больше не знает о нём."),
    "update_failed": Text(
        "Something went wrong on my side. Please try again.",
        "У меня что-то сломалось. Попробуйте ещё раз.",
    ),
    "accepted": Text("Painting your photo: {style}.", "Рисую ваше фото: {style}."),
    "seconds_left": Text("about {seconds} s left", "ещё {seconds} с"),
    "minutes_left": Text("about {minutes} min left", "ещё {minutes} мин"),
    "waking": Text(
        "The model is waking up (a few minutes) or busy.",
        "Модель просыпается (несколько минут) или занята.",
    ),
    "caption": Text(
        "Painted: {style}, {seconds} s. Change it below, or send me another photo.",
        "Готово: {style}, {seconds} с. Измените картину кнопками или пришлите другую фотографию.",
    ),
    "failed": Text(
        "Sorry, this painting did not work out.",
        "Простите, эта картина не получилась.",
    ),
    "after_failure": Text(
        "Please try again, or send me another photo.",
        "Попробуйте ещё раз или пришлите другую.",
    ),
    "own_style": Text("your picture's style", "стиль вашей картины"),
    "button_cancel": Text("Cancel", "Отменить"),
    "button_retry": Text("Try again", "Ещё раз"),
    "button_another": Text("Another style", "Другой стиль"),
    "button_stronger": Text("Stronger", "Сильнее"),
    "button_softer": Text("Softer", "Мягче"),
    "button_file": Text("As a file", "Файлом"),
    "button_colours": Text("Keep my colours", "Мои цвета"),
    "button_theirs": Text("The style's colours", "Цвета стиля"),
    "command_start": Text("new painting", "новая картина"),
    "command_cancel": Text("stop it", "остановить"),
    "command_help": Text("help", "помощь"),
}

ERROR_TEXTS = {
    ErrorCode.ACCESS_DENIED: Text(
        "The model may not read or store the pictures. {support}",
        "У модели нет доступа к картинкам. {support}",
    ),
    ErrorCode.BAD_REQUEST: Text(
        "The model did not understand the request.",
        "Модель не поняла запрос.",
    ),
    ErrorCode.BODY_TOO_LARGE: Text("The request is too large.", "Запрос слишком велик."),
    ErrorCode.BROKEN: Text(
        "The model is broken and is being replaced.",
        "Модель сломалась, её заменяют.",
    ),
    ErrorCode.DIVERGED: Text(
        "No picture came out of these settings.",
        "С такими настройками картина не получается.",
    ),
    ErrorCode.FILE_TOO_LARGE: Text("The file is too large.", "Файл слишком велик."),
    ErrorCode.IMAGE_TOO_LARGE: Text(
        "Too large: at most 20 MB and 40 megapixels.",
        "Слишком велика: до 20 МБ и 40 мегапикселей.",
    ),
    ErrorCode.IMAGE_TOO_SMALL: Text("The picture is too small.", "Картинка слишком мала."),
    ErrorCode.IMAGE_UNREADABLE: Text(
        "I cannot read this picture.",
        "Не могу прочитать эту картинку.",
    ),
    ErrorCode.INTERNAL: Text("Something broke in the model.", "В модели что-то сломалось."),
    ErrorCode.LOADING: Text("The model is still starting.", "Модель ещё запускается."),
    ErrorCode.OBJECT_NOT_FOUND: Text(
        "The picture is no longer in the storage.",
        "Картинки больше нет в хранилище.",
    ),
    ErrorCode.OUT_OF_MEMORY: Text(
        "The model ran out of memory.",
        "Модели не хватило памяти.",
    ),
    ErrorCode.PRIVATE_ADDRESS: Text(
        "The picture's address is not allowed.",
        "Адрес картинки запрещён.",
    ),
    ErrorCode.QUEUE_FULL: Text(
        "Too many pictures are waiting.",
        "Слишком много картин в очереди.",
    ),
    ErrorCode.STOPPING: Text("The model is being restarted.", "Модель перезапускается."),
    ErrorCode.STORAGE_FAILED: Text(
        "The pictures could not be read or stored.",
        "Не удалось прочитать или сохранить картинки.",
    ),
    ErrorCode.UNKNOWN_STYLE: Text("I do not have this painter.", "Такого художника у меня нет."),
    ErrorCode.UNSUPPORTED_MEDIA_TYPE: Text(
        "The model does not take this kind of file.",
        "Модель не принимает такие файлы.",
    ),
    ErrorCode.DEADLINE: Text(
        "The model did not answer in time.",
        "Модель не ответила вовремя.",
    ),
    ErrorCode.ENDPOINT: Text(
        "The model is not running. {support}",
        "Модель не запущена. {support}",
    ),
    ErrorCode.EXPIRED: Text("I no longer have that photo.", "Этой фотографии уже нет."),
}


def find_text(key: str) -> Text:
    """Return the text of a key of TEXTS, or of the value of an error code."""
    if key in TEXTS:
        return TEXTS[key]
    return ERROR_TEXTS[ErrorCode(key)]


def translate(language: str, *keys: str, **values: str | int) -> str:
    """Return the texts of `keys` in Russian ("ru") or else in English, with spaces between them."""
    sentences = []
    for key in keys:
        text = find_text(key)
        sentence = text.ru if language == "ru" else text.en
        sentences.append(sentence.format(**values))
    return " ".join(sentences)


# ---------------------------------------------------------------- stored types


@dataclass(frozen=True)
class ImageRef:
    """A picture at Telegram. Its link would hold the token, so only the file_id is stored."""

    file_id: str
    is_document: bool  # it came as a file, not as a photo

    def to_json(self) -> dict[str, Json]:
        return {"file_id": self.file_id, "document": self.is_document}

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> ImageRef:
        return cls(value["file_id"], value["document"])


@dataclass(frozen=True)
class PaintRequest:
    """What to paint, and how."""

    content: ImageRef
    style: ImageRef | str  # a picture, or the name of a painter
    strength: (
        float  # 0.1 to 1.0. A painter's default is 1.0, a picture's 0.5: the model's own balance
    )
    preserve_color: bool = False
    result: str = "result.jpg"  # or result.png, which is sent as a file only

    @property
    def model(self) -> str:
        return "cyclegan" if isinstance(self.style, str) else "nst"

    @property
    def wants_file(self) -> bool:
        return self.result == "result.png"

    def to_json(self) -> dict[str, Json]:
        style = self.style if isinstance(self.style, str) else self.style.to_json()
        return {
            "content": self.content.to_json(),
            "style": style,
            "strength": self.strength,
            "preserve_color": self.preserve_color,
            "result": self.result,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> PaintRequest:
        style = value["style"]
        if not isinstance(style, str):
            style = ImageRef.from_json(style)
        return cls(
            content=ImageRef.from_json(value["content"]),
            style=style,
            strength=value["strength"],
            preserve_color=value.get("preserve_color", value.get("colours", False)),
            result=value["result"],
        )


class Finished(NamedTuple):
    """A job whose buttons still work."""

    job_id: str
    request: PaintRequest


@dataclass(frozen=True)
class Chat:
    """The state of a chat, stored at chats/<chat>.json.

    It waits for a photo, or for a style (`content` is set), or for its job (`job_id` is set), or
    for a picture to train a painter with (`lesson_name` is set, whatever else is).

    Schema, version 2: {"version", "content": null or an image, "job": null or an id,
    "history": [{"job", "request"}], "seen": [update ids], "reply": [keys of texts],
    "lesson": null or a painter's name}. "lesson" may be missing.
    Version 1 had no "version", and "kept": {job: request} for the history.
    """

    content: ImageRef | None = None
    job_id: str | None = None
    history: tuple[Finished, ...] = ()  # the newest last
    seen: tuple[int, ...] = ()  # the updates handled last. Their ids may restart, so no "<"
    reply: tuple[str, ...] = ()  # keys of the texts that answer the last update of `seen`
    lesson_name: str | None = None  # of the painter that the next picture is for

    def find_request(self, job_id: str) -> PaintRequest | None:
        for finished in self.history:
            if finished.job_id == job_id:
                return finished.request
        return None

    def with_history(self, job_id: str, request: PaintRequest) -> Chat:
        history = (*self.history, Finished(job_id, request))
        return replace(self, history=history[-HISTORY_LENGTH:])

    def with_answer(self, update_id: int, reply: Iterable[str]) -> Chat:
        seen = (*self.seen, update_id)
        return replace(self, seen=seen[-SEEN_UPDATES:], reply=tuple(reply))

    def to_json(self) -> dict[str, Json]:
        history = [{"job": job_id, "request": r.to_json()} for job_id, r in self.history]
        return {
            "version": 2,
            "content": self.content.to_json() if self.content else None,
            "job": self.job_id,
            "history": history,
            "seen": list(self.seen),
            "reply": list(self.reply),
            "lesson": self.lesson_name,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> Chat:
        history = value.get("history")
        if history is None:
            kept = value.get("kept", {})
            history = [{"job": job_id, "request": request} for job_id, request in kept.items()]
        content = value.get("content")
        return cls(
            content=ImageRef.from_json(content) if content else None,
            job_id=value.get("job"),
            history=tuple(
                Finished(entry["job"], PaintRequest.from_json(entry["request"]))
                for entry in history
            ),
            seen=tuple(value.get("seen", ())),
            reply=tuple(value.get("reply", ())),
            lesson_name=value.get("lesson"),
        )


class ResultKeys(NamedTuple):
    """The S3 keys to which SageMaker writes a request's answer: the one or the other."""

    output: str
    failure: str


class Step(str, Enum):
    """The step that a job takes next. The state diagram is at JobRunner."""

    SUBMIT = "start"
    WAIT = "wait"


@dataclass
class Retry:
    """When a step that failed is tried again. It is not stored: a new process tries at once."""

    attempts: int = 0
    not_before: float = 0.0  # of time.monotonic()


@dataclass
class Update:
    """An update that came from Telegram, until it is handled and confirmed. It is not stored."""

    id: int
    chat: int  # 0 where it belongs to no chat
    raw: Mapping[str, Json]
    language: str = "en"
    received: float = field(default_factory=time.time)
    retry: Retry = field(default_factory=Retry)
    error_code: ErrorCode | None = None  # set once it has failed for good


@dataclass
class PaintJob:
    """A painting that somebody waits for, stored at jobs/<id>/job.json.

    Only the thread that serves the job's chat changes a job. The watcher alone sets `has_progress`
    and `has_answer`.

    Schema, version 2: the fields down to `sent`, with "version"; "step" is "start" or "wait".
    Version 1 had no "version", and the names of VERSION_1_NAMES.
    """

    id: str  # of the update that asked for it
    chat: int  # positive: a private chat
    user: int
    thread: int | None  # the topic of a group
    language: str
    request: PaintRequest
    style_label: str  # the style in the user's words
    step: Step = Step.SUBMIT
    created: float = field(default_factory=time.time)
    status_message: int | None = None
    result_keys: ResultKeys | None = None  # set once the model has accepted the request
    sent: list[str] = field(default_factory=list)  # status, photo, document, reason; see send_once

    # Not stored
    retry: Retry = field(default_factory=Retry)
    error_code: ErrorCode | None = None  # why it failed, where the bot found out by itself
    last_look: float = field(default_factory=time.monotonic)
    has_progress: bool = False  # the model has written progress.json
    has_answer: bool = False  # the model's answer is in S3
    status_text: str = ""  # of the status message as it is shown

    VERSION_1_NAMES = {  # noqa: RUF012 - a constant, not a field
        "lang": "language",
        "work": "request",
        "style": "style_label",
        "message": "status_message",
        "places": "result_keys",
    }

    def key(self, name: str) -> str:
        return f"{JOBS_PREFIX}{self.id}/{name}"

    def to_json(self) -> dict[str, Json]:
        return {
            "version": 2,
            "id": self.id,
            "chat": self.chat,
            "user": self.user,
            "thread": self.thread,
            "language": self.language,
            "request": self.request.to_json(),
            "style_label": self.style_label,
            "step": self.step.value,
            "created": self.created,
            "status_message": self.status_message,
            "result_keys": list(self.result_keys) if self.result_keys else None,
            "sent": self.sent,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> PaintJob:
        if "version" not in value:
            value = {cls.VERSION_1_NAMES.get(name, name): item for name, item in value.items()}
        keys = value["result_keys"]
        return cls(
            id=value["id"],
            chat=value["chat"],
            user=value["user"],
            thread=value["thread"],
            language=value["language"],
            request=PaintRequest.from_json(value["request"]),
            style_label=value["style_label"],
            step=Step(value["step"]),
            created=value["created"],
            status_message=value["status_message"],
            result_keys=ResultKeys(*keys) if keys else None,
            sent=value["sent"],
        )


class LessonRequest(NamedTuple):
    """A painter to train: its name, and the picture that it learns from."""

    name: str
    picture: ImageRef


class LessonStep(str, Enum):
    """The step that a lesson takes next. The state diagram is at Lessons."""

    SUBMIT = "start"
    TRAIN = "train"
    CATALOG = "catalog"
    STOP = "stop"


@dataclass
class Lesson:
    """The training of a painter, stored at training/lessons/<id>.json until its end is told.

    A chat does not own its lessons: it goes on painting beside them. Only the thread that serves
    the chat changes a lesson.

    Schema, version 1: the fields down to `result_keys`, with "version".
    """

    id: str  # of the update that asked for it
    chat: int
    thread: int | None
    language: str
    name: str  # of the painter
    picture: ImageRef
    step: LessonStep = LessonStep.SUBMIT
    created: float = field(default_factory=time.time)
    training_job: str = ""  # its name; "" until it is known
    status_message: int | None = None
    result_keys: ResultKeys | None = None  # of the request for a new catalog

    # Not stored
    retry: Retry = field(default_factory=Retry)
    error_code: ErrorCode | None = None
    last_look: float = 0.0  # of time.monotonic()
    status_text: str = ""

    @property
    def key(self) -> str:
        return f"{LESSONS_PREFIX}{self.id}.json"

    def training_key(self, name: str) -> str:
        """Return the key of one of the files of its training job."""
        return f"{TRAINING_PREFIX}{self.training_job}/{name}"

    def to_json(self) -> dict[str, Json]:
        return {
            "version": 1,
            "id": self.id,
            "chat": self.chat,
            "thread": self.thread,
            "language": self.language,
            "name": self.name,
            "picture": self.picture.to_json(),
            "step": self.step.value,
            "created": self.created,
            "training_job": self.training_job,
            "status_message": self.status_message,
            "result_keys": list(self.result_keys) if self.result_keys else None,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> Lesson:
        keys = value["result_keys"]
        return cls(
            id=value["id"],
            chat=value["chat"],
            thread=value["thread"],
            language=value["language"],
            name=value["name"],
            picture=ImageRef.from_json(value["picture"]),
            step=LessonStep(value["step"]),
            created=value["created"],
            training_job=value["training_job"],
            status_message=value["status_message"],
            result_keys=ResultKeys(*keys) if keys else None,
        )


class CatalogError(ValueError):
    """An object is no catalog of styles. The message says why."""


@dataclass(frozen=True)
class Styles:
    """The styles on offer.

    The cyclegan model writes them to models/catalog.json. Schema, version 1: {"version",
    "styles": [{"name", "label", ...}], "sheet": the path of a picture, from the catalog's folder}.
    "sheet" may be missing; other members are ignored.
    """

    labels: Mapping[str, str]  # names, and how the keyboard shows them, in its order
    sheet: str = ""  # the key of a picture that shows all styles; "": there is none
    etag: str = ""  # of the catalog

    @classmethod
    def from_json(cls, value: Json, etag: str) -> Styles:
        """Return the styles of a catalog. Raises CatalogError."""
        if not isinstance(value, dict) or value.get("version") != 1:
            raise CatalogError("it is no JSON object with version 1")
        entries = value.get("styles")
        if not isinstance(entries, list) or not 1 <= len(entries) <= CATALOG_STYLES:
            raise CatalogError(f"styles is no list of 1 to {CATALOG_STYLES}")
        labels: dict[str, str] = {}
        for entry in entries:
            name, label = read_catalog_entry(entry)
            if name in labels:
                raise CatalogError(f"the style {name} is there twice")
            labels[name] = label

        sheet = value.get("sheet") or ""
        if not isinstance(sheet, str) or not re.fullmatch(r"[\w./-]*", sheet, re.ASCII):
            raise CatalogError("sheet is no path")
        if ".." in sheet or sheet.startswith("/"):
            raise CatalogError("sheet is outside of the catalog's folder")
        return cls(labels, MODELS_PREFIX + sheet if sheet else "", etag)


def read_catalog_entry(entry: Json) -> tuple[str, str]:
    """Return the name and the label of a style in a catalog. Raises CatalogError."""
    if not isinstance(entry, dict):
        raise CatalogError("a style is no JSON object")
    name = entry.get("name")
    if not isinstance(name, str) or not re.fullmatch(STYLE_NAME_PATTERN, name, re.ASCII):
        raise CatalogError(f"{name!r:.60} is no name of a style")
    label = entry.get("label", "")
    if not isinstance(label, str) or len(label) > 64:
        raise CatalogError(f"the label of {name} is no text of at most 64 characters")
    return name, label.strip() or name.title()


OFFICIAL_STYLES = Styles(STYLES_SHOWN)


# ---------------------------------------------------------------- Telegram


class TelegramError(Exception):
    """Telegram refused a call, with its error code.

    Code 0: no complete answer came, or none of Telegram's.
    """

    def __init__(
        self, method: str, code: int, description: str, parameters: Mapping[str, Json] | None = None
    ) -> None:
        super().__init__(f"{method}: {code} {description}")
        parameters = parameters or {}
        self.method = method
        self.code = code
        self.description = description
        self.retry_after = float(parameters.get("retry_after", 0))
        self.new_chat: int | None = parameters.get("migrate_to_chat_id")


class TelegramClient:
    """Telegram's Bot API. No exception and no log line of this class shows the token."""

    def __init__(self, api: str, token: str) -> None:
        self._methods = f"{api}/bot{token}"
        self._files = f"{api}/file/bot{token}"
        self._threads = threading.local()  # a requests.Session must not be shared by threads

    def _session(self) -> requests.Session:
        if not hasattr(self._threads, "session"):
            self._threads.session = requests.Session()
        session: requests.Session = self._threads.session
        return session

    def call(
        self, method: str, files: Json = None, read_timeout: float = 30, **values: Json
    ) -> Json:
        """Call a method and return its result. Raises TelegramError.

        `values` are the method's parameters; those that are None are left out. `files` are uploads
        by the name of their form field, each bytes or (file name, bytes).
        """
        values = {name: value for name, value in values.items() if value is not None}
        body: dict[str, Json] = {"json": values}
        if files:
            form = {name: encode_form_value(value) for name, value in values.items()}
            body = {"data": form, "files": files}
        try:
            url = f"{self._methods}/{method}"
            answer = self._session().post(url, timeout=(10, read_timeout), **body).json()
            if answer["ok"]:
                return answer["result"]
            code = int(answer["error_code"])
            description = str(answer["description"])
            parameters = answer.get("parameters")
        except (requests.RequestException, ValueError, KeyError, TypeError) as error:
            # The error's own words may show the token.
            reason = f"no whole answer ({type(error).__name__})"
            raise TelegramError(method, 0, reason) from None
        raise TelegramError(method, code, description, parameters)

    def try_call(self, method: str, **values: Json) -> None:
        """Call a method whose failure does not matter."""
        with contextlib.suppress(TelegramError):
            self.call(method, **values)

    def send(self, chat: int, thread: int | None, method: str, **values: Json) -> Json:
        """Send to a topic of a chat, or to the chat itself where the topic is gone.

        Raises TelegramError.
        """
        try:
            return self.call(method, chat_id=chat, message_thread_id=thread, **values)
        except TelegramError as error:
            topic_is_gone = thread and error.code == 400 and "thread" in error.description
            if not topic_is_gone:
                raise
        return self.call(method, chat_id=chat, **values)

    def download(self, file_id: str) -> bytes:
        """Return a file of at most MAX_FILE_BYTES. Raises TelegramError."""
        path = self.call("getFile", file_id=file_id)["file_path"]
        data = b""
        try:
            url = f"{self._files}/{path}"
            with self._session().get(url, timeout=(10, 30), stream=True) as response:
                response.raise_for_status()
                for chunk in response.iter_content(2**20):
                    data += chunk
                    if len(data) > MAX_FILE_BYTES:
                        raise TelegramError("getFile", 400, "the file is too big")
        except requests.RequestException as error:
            raise TelegramError("download", 0, type(error).__name__) from None
        return data


def encode_form_value(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def keyboard(rows: list[list[tuple[str, str]]]) -> Json:
    """Return an inline keyboard of buttons, each a label and its callback data.

    Empty rows are left out.
    """
    buttons = []
    for row in rows:
        if row:
            buttons.append([{"text": label, "callback_data": data} for label, data in row])
    return {"inline_keyboard": buttons}


# ---------------------------------------------------------------- S3


class StoredChat(NamedTuple):
    """A chat as it was read."""

    number: int  # another one than was asked for where a group has moved
    chat: Chat
    etag: str  # "" where there is no object yet


class Store:
    """The bot's objects in S3. Every method may raise one of S3_ERRORS."""

    def __init__(self, s3: Any, bucket: str) -> None:  # noqa: ANN401 - boto3 makes its clients' classes at run time
        self._s3 = s3
        self.bucket = bucket

    def url(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"

    def get(self, key: str) -> tuple[bytes, str]:
        """Return an object and its ETag, or (b"", "") where there is none."""
        try:
            found = self._s3.get_object(Bucket=self.bucket, Key=key)
        except self._s3.exceptions.NoSuchKey:
            return b"", ""
        return found["Body"].read(), found["ETag"]

    def get_json(self, key: str) -> tuple[dict[str, Json], str]:
        """Return a JSON object and its ETag.

        Whatever is no JSON object reads as {}, and is written anew later.
        """
        data, etag = self.get(key)
        with contextlib.suppress(ValueError, TypeError):
            return dict(json.loads(data)), etag
        return {}, etag

    def get_if_changed(self, key: str, etag: str) -> tuple[bytes, str] | None:
        """Return an object and its ETag as get does, or None if it is still the one of `etag`."""
        if not etag:
            return self.get(key)
        try:
            found = self._s3.get_object(Bucket=self.bucket, Key=key, IfNoneMatch=etag)
        except self._s3.exceptions.NoSuchKey:
            return b"", ""
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 304:
                return None
            raise
        return found["Body"].read(), found["ETag"]

    def put(self, key: str, data: bytes) -> None:
        self._s3.put_object(Bucket=self.bucket, Key=key, Body=data)

    def put_json(self, key: str, value: Json) -> None:
        self.put(key, json.dumps(value).encode())

    def replace_json(self, key: str, value: Json, etag: str) -> None:
        """Replace the version with this ETag ("": create the object).

        Raises ClientError PreconditionFailed.
        """
        condition = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
        body = json.dumps(value).encode()
        self._s3.put_object(Bucket=self.bucket, Key=key, Body=body, **condition)

    def list_page(self, prefix: str, start_after: str = "") -> tuple[list[dict[str, Json]], str]:
        """Return up to 1000 objects, and the key after which the next page begins, or ""."""
        page = self._s3.list_objects_v2(Bucket=self.bucket, Prefix=prefix, StartAfter=start_after)
        items = page.get("Contents", [])
        return items, items[-1]["Key"] if page["IsTruncated"] else ""

    def delete(self, keys: Iterable[str]) -> None:
        objects = [{"Key": key} for key in keys]
        if objects:
            self._s3.delete_objects(Bucket=self.bucket, Delete={"Objects": objects, "Quiet": True})

    def load_chat(self, number: int) -> StoredChat:
        """Return the chat's state. A group that has moved is followed to its new number."""
        value, etag = self.get_json(chat_key(number))
        if "moved" in value:
            return self.load_chat(value["moved"])
        return StoredChat(number, Chat.from_json(value), etag)

    def save_chat(self, stored: StoredChat, chat: Chat) -> None:
        """Replace the state that was read.

        Raises ClientError PreconditionFailed if it has changed since.
        """
        self.replace_json(chat_key(stored.number), chat.to_json(), stored.etag)

    def move_chat(self, old: int, new: int) -> None:
        """Take a group's state along to its new number."""
        self.put_json(chat_key(new), self.load_chat(old).chat.to_json())
        self.put_json(chat_key(old), {"moved": new})

    def release_job(self, number: int, job_id: str | None, keep: PaintRequest | None) -> None:
        """Let the chat give up this job (None: whichever it has).

        `keep` goes into its history, for the buttons.
        """
        stored = self.load_chat(number)
        owned = stored.chat.job_id
        if not owned or job_id not in (None, owned):
            return
        chat = replace(stored.chat, job_id=None)
        if keep:
            chat = chat.with_history(owned, keep)
        self.save_chat(stored, chat)

    def load_job(self, job_id: str) -> PaintJob | None:
        """Return the job, or None where its record is missing or cannot be read."""
        value, _ = self.get_json(f"{JOBS_PREFIX}{job_id}/job.json")
        if not value:
            return None
        return PaintJob.from_json(value)

    def save_job(self, job: PaintJob) -> None:
        self.put_json(job.key("job.json"), job.to_json())

    def load_lesson(self, lesson_id: str) -> Lesson | None:
        value, _ = self.get_json(f"{LESSONS_PREFIX}{lesson_id}.json")
        return Lesson.from_json(value) if value else None

    def save_lesson(self, lesson: Lesson) -> None:
        self.put_json(lesson.key, lesson.to_json())

    def delete_job_objects(self, job_id: str, *more: str) -> None:
        items, _ = self.list_page(f"{JOBS_PREFIX}{job_id}/")
        self.delete([*(item["Key"] for item in items), *more])

    def count_today(self, user: int) -> int:
        """Return how many paintings the user has had today (UTC)."""
        value, _ = self.get_json(user_key(user))
        return len(value.get(today(), []))

    def count_painting(self, user: int, job_id: str) -> None:
        """Count the job among the user's paintings of today, once."""
        value, etag = self.get_json(user_key(user))
        jobs = value.get(today(), [])
        if job_id not in jobs:
            self.replace_json(user_key(user), {today(): [*jobs, job_id]}, etag)


class StyleCatalog:
    """The styles on offer: those of the setting STYLES, else of the catalog, else the official."""

    def __init__(self, store: Store, override: Mapping[str, str]) -> None:
        self._store = store
        self._override = override
        self._lock = threading.Lock()
        self._catalog = OFFICIAL_STYLES  # the last good one; guarded by _lock
        self._etag = ""  # of the object that was read last, good or not; guarded by _lock
        self._next_look = 0.0  # of time.monotonic(); guarded by _lock

    def styles(self) -> Styles:
        """Return the styles on offer; the catalog's are at most CATALOG_SECONDS old.

        Raises nothing: without S3 they stay the last ones.
        """
        if self._override:
            return Styles(self._override)
        with self._lock:
            if time.monotonic() >= self._next_look:
                self._next_look = time.monotonic() + CATALOG_SECONDS
                self._look()
            return self._catalog

    def look_again(self) -> None:
        """Read the catalog when the styles are asked for next, since it has changed."""
        with self._lock:
            self._next_look = 0.0

    def _look(self) -> None:
        """Read the catalog if it has changed. The caller holds _lock."""
        try:
            found = self._store.get_if_changed(CATALOG_KEY, self._etag)
        except S3_ERRORS as error:
            log.warning("%s: %s; the styles stay as they are", CATALOG_KEY, error)
            return
        if found is None:
            return
        data, self._etag = found
        if not self._etag:
            self._catalog = OFFICIAL_STYLES
            return
        try:
            self._catalog = Styles.from_json(json.loads(data), self._etag)
        except (ValueError, RecursionError) as error:
            log.warning("%s is ignored: %s; the styles stay as they are", CATALOG_KEY, error)


def chat_key(number: int) -> str:
    return f"{CHATS_PREFIX}{number}.json"


def user_key(user: int) -> str:
    return f"{CHATS_PREFIX}user-{user}.json"


def today() -> str:
    return time.strftime("%Y-%m-%d", time.gmtime())


# ---------------------------------------------------------------- the models


class Failure(NamedTuple):
    """Why a painting failed."""

    code: ErrorCode
    message: str = ""  # the model's own words, in English


class Models:
    """The SageMaker endpoints: calls InvokeEndpointAsync, and finds the answers under async/."""

    def __init__(self, runtime: Any, store: Store, endpoints: Mapping[str, str]) -> None:  # noqa: ANN401 - boto3's client
        self._runtime = runtime
        self._store = store
        self._endpoints = endpoints
        self._cursor = ""  # the watcher's alone: where the listing of async/ goes on
        self._lock = threading.Lock()
        self._answers: set[str] = set()  # keys seen under async/; guarded by _lock

    def invoke(self, model: str, request_key: str, job_id: str) -> ResultKeys:
        """Hand a request to a model. Returns the keys of its answers; one of them will appear."""
        answer = self._runtime.invoke_endpoint_async(
            EndpointName=self._endpoints[model],
            InputLocation=self._store.url(request_key),
            InferenceId=job_id,
            ContentType="application/json",
            InvocationTimeoutSeconds=INVOCATION_SECONDS,
            RequestTTLSeconds=max(60, DEADLINE_SECONDS),
        )
        return ResultKeys(key_of(answer["OutputLocation"]), key_of(answer["FailureLocation"]))

    def scan_answers(self) -> None:
        """Take note of the next page of answers, and delete those that no job waits for."""
        items, self._cursor = self._store.list_page(ASYNC_PREFIX, self._cursor)
        with self._lock:
            self._answers.update(item["Key"] for item in items)
        oldest = time.time() - ANSWER_DAYS * 86400
        self._store.delete(
            item["Key"] for item in items if item["LastModified"].timestamp() < oldest
        )

    def has_answered(self, keys: ResultKeys | None) -> bool:
        with self._lock:
            return keys is not None and not self._answers.isdisjoint(keys)

    def has_output(self, keys: ResultKeys) -> bool:
        with self._lock:
            return keys.output in self._answers

    def forget(self, keys: ResultKeys | None) -> None:
        with self._lock:
            self._answers.difference_update(keys or ())

    def read_output(self, keys: ResultKeys) -> dict[str, Json]:
        """Return the model's answer: size, seconds and notes of the picture."""
        return self._store.get_json(keys.output)[0]

    def read_failure(self, keys: ResultKeys) -> Failure:
        """Return why the model failed. SageMaker may have quoted the model's JSON, once or more."""
        data, _ = self._store.get(keys.failure)
        return parse_failure(data.decode(errors="replace"))


class Trainer:
    """SageMaker's training jobs, one for each painter.

    models/training.json holds the arguments of CreateTrainingJob that do not depend on the painter:
    {"version": 1, "name_prefix", "arguments"}. `./deploy.py up` and `./local.sh` write it.
    """

    def __init__(self, connect: Callable[[], Any], store: Store) -> None:
        self._connect = connect
        self._store = store

    @cached_property
    def _sagemaker(self) -> Any:  # noqa: ANN401 - boto3's client
        """boto3's client takes 17 MB, which a bot that trains no painters can do without."""
        return self._connect()

    def read_template(self) -> dict[str, Json] | None:
        """Return the template, or None where no painter can be trained. Raises S3_ERRORS."""
        template, _ = self._store.get_json(TRAINING_TEMPLATE_KEY)
        is_whole = isinstance(template.get("arguments"), dict)
        if template.get("version") != 1 or not is_whole:
            return None
        return template

    def create(self, lesson: Lesson, template: Mapping[str, Json]) -> None:
        """Start the lesson's training job, unless it has been started. Raises S3_ERRORS."""
        url = self._store.url(lesson.training_key(""))
        channel = {
            "ChannelName": "style",
            "DataSource": {
                "S3DataSource": {
                    "S3DataType": "S3Prefix",
                    "S3Uri": f"{url}style/",
                    "S3DataDistributionType": "FullyReplicated",
                }
            },
        }
        arguments = {
            **template["arguments"],
            "TrainingJobName": lesson.training_job,
            "HyperParameters": {
                "name": lesson.name,
                "models_url": self._store.url(MODELS_PREFIX),
                "progress_url": f"{url}progress.json",
            },
            "InputDataConfig": [channel],
            "OutputDataConfig": {"S3OutputPath": self._store.url(TRAINING_PREFIX)},
            "CheckpointConfig": {"S3Uri": f"{url}checkpoints/"},
        }
        try:
            self._sagemaker.create_training_job(**arguments)
        except self._sagemaker.exceptions.ResourceInUse:
            log.info("the training job %s exists", lesson.training_job)

    def describe(self, name: str) -> dict[str, Json] | None:
        """Return a training job, or None where SageMaker knows none of this name."""
        try:
            job: dict[str, Json] = self._sagemaker.describe_training_job(TrainingJobName=name)
        except ClientError as error:
            if is_unknown_job(error):
                return None
            raise
        return job

    def stop(self, name: str) -> None:
        """Ask a training job to stop. It is all right if there is none, or none that runs."""
        try:
            self._sagemaker.stop_training_job(TrainingJobName=name)
        except ClientError as error:
            if error.response["Error"]["Code"] != "ValidationException":
                raise
            log.info("the training job %s is not stopped: %s", name, error)


def is_unknown_job(error: ClientError) -> bool:
    """Whether SageMaker says that there is no such training job, in one of its two ways."""
    about = error.response["Error"]
    is_not_found = "not found" in about.get("Message", "")
    return about["Code"] == "ResourceNotFound" or is_not_found


def training_job_name(prefix: str, painter: str, lesson_id: str) -> str:
    """Return PREFIX + PAINTER + "-" + ID. SageMaker allows 63 characters, and no underscore."""
    ending = f"-{lesson_id}"
    room = TRAINING_NAME_LENGTH - len(prefix) - len(ending)
    return prefix + painter.replace("_", "-")[:room].strip("-") + ending


def key_of(location: str) -> str:
    """Return the key of an address such as s3://bucket/async/output/1.out."""
    return location.split("/", 3)[3]


def parse_failure(text: str) -> Failure:
    """Return the error in a model's answer. What names no known code is ErrorCode.INTERNAL."""
    unquoted = text.replace("\\", "")
    code = re.search(r'"code"\s*:\s*"([^"]{1,500})"', unquoted)
    message = re.search(r'"message"\s*:\s*"([^"]{1,500})"', unquoted)
    words = message[1] if message else ""
    try:
        return Failure(ErrorCode(code[1] if code else ""), words)
    except ValueError:
        return Failure(ErrorCode.INTERNAL, words)


# ---------------------------------------------------------------- the conversation: pure functions


class Command(NamedTuple):
    name: str  # without the slash, in lower case


class Teach(NamedTuple):
    """The command /teach NAME, with the picture above it or in the message that it replies to."""

    name: str  # in lower case; not checked
    picture: ImageRef | Rejected | None


class Words(NamedTuple):
    """Text that is no command."""

    words: str


class Rejected(NamedTuple):
    """Content that cannot be painted."""

    reason: str  # the key of a text


class Button(NamedTuple):
    """A button pressed. Its callback data is "verb:argument"."""

    verb: str
    argument: str  # a style's name, or the id of the job under whose message the button stands


Event = Command | Teach | Words | ImageRef | Rejected | Button


@dataclass(frozen=True)
class Incoming:
    """What an update says, and who says it."""

    user: int
    thread: int | None
    language: str
    event: Event


@dataclass(frozen=True)
class Decision:
    """A chat's new state, the keys of the texts to answer with, and what to paint or to train."""

    chat: Chat
    reply: tuple[str, ...] = ()
    request: PaintRequest | None = None
    lesson: LessonRequest | None = None
    stop_lesson: str = ""  # the id of a lesson to stop


def chat_of(raw: Mapping[str, Json]) -> int:
    """Return the number of the chat that an update belongs to, or 0."""
    source = raw.get("callback_query") or raw
    try:
        return int(source["message"]["chat"]["id"])
    except (KeyError, TypeError, ValueError):
        return 0


def read_update(raw: Mapping[str, Json], bot_name: str) -> Incoming | None:
    """Return what an update says, or None if it is not meant for this bot."""
    query = raw.get("callback_query")
    source = query or raw.get("message") or {}
    message = query.get("message") if query else source
    sender = source.get("from")
    if not message or "chat" not in message or not sender:
        return None

    event: Event | None
    if query:
        verb, _, argument = query.get("data", "").partition(":")
        event = Button(verb, argument)
    else:
        event = read_message(message, bot_name)
    if event is None:
        return None

    is_private = message["chat"]["id"] > 0
    has_topic = is_private or message.get("is_topic_message")
    is_russian = str(sender.get("language_code")).lower().startswith("ru")
    return Incoming(
        user=sender["id"],
        thread=message.get("message_thread_id") if has_topic else None,
        language="ru" if is_russian else "en",
        event=event,
    )


def read_message(message: Mapping[str, Json], bot_name: str) -> Event | None:
    """Return what a message says, or None for another bot's command."""
    words = message.get("text", "").strip()
    caption = message.get("caption", "").strip()
    if not words and not caption.startswith("/teach"):
        return read_file(message)
    if words and not words.startswith("/"):
        return Words(words)
    command, *arguments = re.split(r"\s+", (words or caption)[1:].lower())
    name, _, addressee = command.partition("@")
    if addressee not in ("", bot_name.lower()):
        return None
    if name == "teach":
        return Teach(" ".join(arguments), find_picture(message))
    return Command(name)


def find_picture(message: Mapping[str, Json]) -> ImageRef | Rejected | None:
    """Return the picture of a command: its message's own, or that of the message it replies to."""
    for source in (message, message.get("reply_to_message") or {}):
        if "photo" in source or "document" in source:
            return read_file(source)
    return None


def read_file(message: Mapping[str, Json]) -> ImageRef | Rejected:
    """Return the picture in a message, or why there is none."""
    photo_sizes = message.get("photo")
    file = photo_sizes[-1] if photo_sizes else message.get("document")
    if not file or "animation" in message:  # an animation comes with a document too
        return Rejected("not_a_picture")
    if not photo_sizes and not str(file.get("mime_type")).startswith("image/"):
        return Rejected("not_an_image")
    pixels = file.get("width", 0) * file.get("height", 0)
    if file.get("file_size", 0) > MAX_FILE_BYTES or pixels > MAX_PIXELS:
        return Rejected(ErrorCode.IMAGE_TOO_LARGE.value)
    return ImageRef(file["file_id"], is_document=not photo_sizes)


def transition(chat: Chat, incoming: Incoming, config: Config, styles: Styles) -> Decision:
    """Return what an event does to a chat."""
    event = incoming.event
    is_admin = incoming.user in config.admins
    is_allowed = is_admin or not config.allowed_users or incoming.user in config.allowed_users
    if not is_allowed:
        return Decision(chat, ("private",))
    if isinstance(event, Button):
        return press_button(chat, event, styles)
    if isinstance(event, Teach) and not is_admin:
        event = Command("teach")
    if isinstance(event, Command):
        return run_command(chat, event, is_admin)
    if isinstance(event, Teach):
        return teach(chat, event, styles)
    if isinstance(event, Rejected):
        return ask(chat, event.reason)
    if chat.lesson_name and isinstance(event, ImageRef):
        return start_lesson(chat, chat.lesson_name, event)
    if chat.job_id:
        return ask(chat)
    if isinstance(event, ImageRef):
        return take_picture(chat, event)
    return take_words(chat, event, styles)


def ask(chat: Chat, reason: str = "") -> Decision:
    """Say what the chat waits for, after the reason why what came was something else."""
    if chat.job_id and not chat.lesson_name:
        return Decision(chat, ("busy",))
    wanted = "ask_style" if chat.content else "ask_content"
    if chat.lesson_name:
        wanted = "ask_lesson"
    if reason:
        return Decision(chat, (reason, wanted))
    return Decision(chat, (wanted,))


def run_command(chat: Chat, command: Command, is_admin: bool) -> Decision:
    if command.name == "help":
        return Decision(chat, ("help", "help_admin") if is_admin else ("help",))
    if command.name == "stats" and is_admin:
        return Decision(chat, ("stats",))
    if command.name == "start":
        return ask(replace(chat, content=None, lesson_name=None), "hello")
    if command.name == "cancel":
        had_something = chat.job_id or chat.content or chat.lesson_name
        idle = replace(chat, content=None, job_id=None, lesson_name=None)
        return ask(idle, "cancelled" if had_something else "nothing_to_cancel")
    return ask(chat, "unknown_command")


def teach(chat: Chat, command: Teach, styles: Styles) -> Decision:
    """Train a painter with the picture of the command, or else with the next one."""
    if not re.fullmatch(PAINTER_PATTERN, command.name):
        return Decision(chat, ("painter_name",))
    if command.name in styles.labels:
        return Decision(chat, ("painter_exists",))
    if isinstance(command.picture, ImageRef):
        return start_lesson(chat, command.name, command.picture)
    waiting = replace(chat, lesson_name=command.name)
    return ask(waiting, command.picture.reason if command.picture else "")


def start_lesson(chat: Chat, name: str, picture: ImageRef) -> Decision:
    return Decision(replace(chat, lesson_name=None), lesson=LessonRequest(name, picture))


def take_picture(chat: Chat, image: ImageRef) -> Decision:
    """Take a picture as the photo, or as the style if there is a photo already."""
    if chat.content:
        return start_painting(chat, default_request(chat.content, image))
    return ask(replace(chat, content=image), "got_content")


def take_words(chat: Chat, words: Words, styles: Styles) -> Decision:
    """Take words as the name of a painter, in any case."""
    if not chat.content:
        return ask(chat)
    for name, label in styles.labels.items():
        if label.lower() == words.words.lower():
            return start_painting(chat, default_request(chat.content, name))
    return ask(chat, ErrorCode.UNKNOWN_STYLE.value)


def press_button(chat: Chat, button: Button, styles: Styles) -> Decision:
    if button.verb == "unteach":
        return Decision(chat, stop_lesson=button.argument)
    if button.verb == "cancel" and button.argument == chat.job_id:  # not an older job's button
        return ask(replace(chat, job_id=None), "cancelled")
    if chat.job_id or button.verb == "cancel":
        return ask(chat)
    if button.verb == "style":
        return press_style(chat, button.argument, styles)

    request = chat.find_request(button.argument)
    if request is None:
        return ask(chat, ErrorCode.EXPIRED.value)
    if button.verb == "another":
        return ask(replace(chat, content=request.content))
    return start_painting(chat, change_request(request, button.verb))


def press_style(chat: Chat, style: str, styles: Styles) -> Decision:
    """Paint with a painter's button. Under an old question it paints the last photo again."""
    content = chat.content
    if content is None and chat.history:
        content = chat.history[-1].request.content
    if content is None:
        return ask(chat)
    if style not in styles.labels:  # it was, when the question was asked
        return ask(chat, ErrorCode.UNKNOWN_STYLE.value)
    return start_painting(chat, default_request(content, style))


def default_request(content: ImageRef, style: ImageRef | str) -> PaintRequest:
    strength = 1.0 if isinstance(style, str) else 0.5
    return PaintRequest(content, style, strength)


def change_request(request: PaintRequest, verb: str) -> PaintRequest:
    """Return the request as the button under a result changes it. "retry" changes nothing."""
    if verb == "stronger":
        return replace(request, strength=min(1.0, round(request.strength + 0.2, 1)))
    if verb == "softer":
        return replace(request, strength=max(0.1, round(request.strength - 0.2, 1)))
    if verb == "file":
        return replace(request, result="result.png")
    if verb == "colours":
        return replace(request, preserve_color=True)
    if verb == "theirs":
        return replace(request, preserve_color=False)
    return request


def start_painting(chat: Chat, request: PaintRequest) -> Decision:
    """The chat owns no job yet: it gets one once the job is stored."""
    return Decision(replace(chat, content=None), request=request)


def result_buttons(request: PaintRequest) -> list[list[str]]:
    """Return the verbs of the buttons under a result, row by row."""
    strength = []
    if request.strength < 1.0:
        strength.append("stronger")
    if request.strength > 0.1:
        strength.append("softer")

    more = []
    if request.model == "nst":  # a painter knows only its own colours
        more.append("theirs" if request.preserve_color else "colours")
    if not request.wants_file:
        more.append("file")
    return [["another"], strength, more]


def job_buttons(job: PaintJob, rows: list[list[str]]) -> Json:
    """Return a keyboard of verbs that act on this job."""
    return keyboard(
        [
            [(translate(job.language, f"button_{verb}"), f"{verb}:{job.id}") for verb in row]
            for row in rows
        ]
    )


def style_keyboard(styles: Mapping[str, str]) -> Json:
    """Return the painters, two in a row."""
    buttons = [(label, f"style:{name}") for name, label in styles.items()]
    return keyboard([buttons[i : i + 2] for i in range(0, len(buttons), 2)])


def fits_photo(size: tuple[int, int], byte_count: int) -> bool:
    """Whether Telegram takes a picture as a photo. If not, it goes out as a file."""
    return (
        sum(size) <= PHOTO_MAX_SIDES
        and max(size) <= PHOTO_MAX_RATIO * min(size)
        and byte_count <= PHOTO_MAX_BYTES
    )


def progress_line(language: str, progress: Mapping[str, Json]) -> str:
    """Return a bar of ten blocks, the share done, and the time left where the model tells it."""
    done = min(1.0, progress.get("step", 0) / progress["steps"])
    bar = "▓" * int(10 * done)
    line = f"{bar:░<10} {done:.0%}"
    seconds = progress.get("seconds_left")
    if seconds is None:
        return line
    if seconds < 100:
        return f"{line}, {translate(language, 'seconds_left', seconds=round(seconds))}"
    return f"{line}, {translate(language, 'minutes_left', minutes=round(seconds / 60))}"


# ---------------------------------------------------------------- errors


class Metrics:
    """What the bot has done since its start."""

    NAMES = ("updates", "done", "failed", "cancelled", "errors")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()  # guarded by _lock

    def add(self, name: str) -> None:
        with self._lock:
            self._counts[name] += 1

    def __str__(self) -> str:
        with self._lock:
            return " ".join(f"{name}={self._counts[name]}" for name in self.NAMES)


def classify_error(error: Exception, attempts: int) -> ErrorCode | None:
    """Return what to tell the user about a lasting error, or None for one that may pass."""
    if isinstance(error, TelegramError):
        return classify_telegram_error(error, attempts)
    if isinstance(error, ClientError) and error.operation_name == "InvokeEndpointAsync":
        return None if may_pass(error) else ErrorCode.ENDPOINT
    if isinstance(error, S3_ERRORS):
        return None
    return ErrorCode.INTERNAL


def may_pass(error: ClientError) -> bool:
    """Whether AWS may answer the same call otherwise later."""
    status = error.response["ResponseMetadata"]["HTTPStatusCode"]
    return int(status) >= 429 or "Throttl" in str(error)


def classify_telegram_error(error: TelegramError, attempts: int) -> ErrorCode | None:
    if error.new_chat or error.code in (0, 429):
        return None
    if error.code >= 500 and attempts < 20:
        return None
    if error.method != "getFile":
        return ErrorCode.INTERNAL
    return ErrorCode.IMAGE_TOO_LARGE if "big" in error.description else ErrorCode.EXPIRED


def log_and_back_off(metrics: Metrics, what: str, error: Exception, attempts: int) -> float:
    """Log a failed step, with its traceback if the fault is ours.

    Returns the seconds to wait: 0.25 to 30.
    """
    backoff = min(MAX_BACKOFF_SECONDS, BACKOFF_SECONDS * 2.0 ** min(attempts, 10))
    retry_after = error.retry_after if isinstance(error, TelegramError) else 0.0
    seconds = max(retry_after, backoff * random.uniform(0.5, 1))
    is_expected = isinstance(error, (TelegramError, *S3_ERRORS))
    log.warning("%s: %s; wait %.1f s", what, error, seconds, exc_info=not is_expected)
    metrics.add("errors")
    return seconds


# ---------------------------------------------------------------- updates


class Messenger:
    """Sends to chats, and updates the stored chat when Telegram says that it moved or is closed."""

    def __init__(self, telegram: TelegramClient, store: Store) -> None:
        self.telegram = telegram
        self.store = store

    def send(self, chat: int, thread: int | None, method: str, **values: Json) -> Json:
        """Return the message that was sent.

        Raises TelegramError; with `new_chat` set, try again there.
        """
        try:
            return self.telegram.send(chat, thread, method, **values)
        except TelegramError as error:
            if error.code == 403:  # the user has blocked the bot, or the group has removed it
                self.store.release_job(chat, None, keep=None)
            if error.new_chat:
                self.store.move_chat(chat, error.new_chat)
            raise

    def show_status(
        self, chat: int, message_id: int, words: str, preview: bytes, buttons: Json
    ) -> None:
        """Let a message say something else, with a picture where there is one."""
        if preview and self.show_picture(chat, message_id, "photo", preview, words, buttons):
            return
        message = {"chat_id": chat, "message_id": message_id, "reply_markup": buttons}
        try:
            self.telegram.call("editMessageText", text=words, **message)
        except TelegramError as error:
            if error.code != 400:
                raise
            if "no text" in error.description:  # an earlier preview has made it a photo
                self.telegram.call("editMessageCaption", caption=words, **message)
            elif "not modified" not in error.description:
                raise

    def show_picture(
        self,
        chat: int,
        message_id: int,
        kind: str,
        file: bytes | tuple[str, bytes],
        caption: str,
        buttons: Json,
    ) -> bool:
        """Turn a message into a picture. False where the server cannot do that."""
        media = {"type": kind, "media": "attach://file", "caption": caption}
        try:
            self.telegram.call(
                "editMessageMedia",
                files={"file": file},
                chat_id=chat,
                message_id=message_id,
                media=media,
                reply_markup=buttons,
            )
        except TelegramError as error:
            if error.code not in (400, 404, 501):
                raise
            return "not modified" in error.description
        return True


class UploadedSheet(NamedTuple):
    """The sheet as Telegram has it."""

    key: str = ""  # the object that was uploaded
    etag: str = ""
    file_id: str = ""


class SheetSender:
    """Sends the picture that shows all styles. It is uploaded once, and then sent by its file_id.

    After a start, or when the object has changed, it is uploaded again.
    """

    def __init__(self, messenger: Messenger, store: Store) -> None:
        self.messenger = messenger
        self.store = store
        self._lock = threading.Lock()
        self._uploaded = UploadedSheet()  # guarded by _lock

    def send(self, chat: int, thread: int | None, key: str, **values: Json) -> bool:
        """Send the sheet at `key`. False where there is none, or Telegram refuses it as a photo.

        `values` are the other parameters of sendPhoto. Raises TelegramError.
        """
        with self._lock:
            uploaded = self._uploaded
        if uploaded.key != key:
            uploaded = UploadedSheet()
        try:
            changed = self.store.get_if_changed(key, uploaded.etag)
            if changed is None:
                if self._try_photo(chat, thread, photo=uploaded.file_id, **values):
                    return True
                changed = self.store.get(key)  # Telegram no longer has it
        except S3_ERRORS as error:
            log.warning("%s: %s; the question is sent as text", key, error)
            return False

        data, etag = changed
        if not etag:
            return False
        message = self._try_photo(chat, thread, files={"photo": ("styles.jpg", data)}, **values)
        sizes = message.get("photo") if message else None
        if sizes:
            with self._lock:
                self._uploaded = UploadedSheet(key, etag, sizes[-1]["file_id"])
        return message is not None

    def _try_photo(self, chat: int, thread: int | None, **values: Json) -> Json:
        """Return the message, or None where Telegram takes no such photo in this chat."""
        try:
            return self.messenger.send(chat, thread, "sendPhoto", **values)
        except TelegramError as error:
            if error.code not in (400, 413) or error.new_chat:
                raise
            log.warning("%s; the sheet of the styles is not sent like this", error)
        return None


@dataclass(eq=False)
class UpdateHandler:
    """Carries out what the conversation decides.

    `handle` may be repeated after a kill at any point.
    """

    config: Config
    telegram: TelegramClient
    messenger: Messenger
    store: Store
    catalog: StyleCatalog
    sheet: SheetSender
    runner: JobRunner
    lessons: Lessons
    metrics: Metrics
    bot_name: str = ""  # set before the first update

    def handle(self, update: Update, health: Callable[[], str]) -> None:
        """Handle an update; `health` returns the answer to /stats.

        Raises TelegramError and S3_ERRORS.
        """
        if update.error_code:
            self.say_sorry(update)
            return
        query = update.raw.get("callback_query")
        if query:
            self.telegram.try_call("answerCallbackQuery", callback_query_id=query["id"])
        incoming = read_update(update.raw, self.bot_name)
        if incoming is None:
            return

        update.language = incoming.language
        stored = self.store.load_chat(update.chat)
        chat = stored.chat
        if update.id not in chat.seen:
            chat = self.change_chat(update, incoming, stored)
        if chat.reply and chat.seen[-1] == update.id:
            self.answer(stored.number, chat.reply, incoming, health)

    def say_sorry(self, update: Update) -> None:
        """Tell the user that the update failed for good."""
        words = translate(update.language, "update_failed")
        self.telegram.try_call("sendMessage", chat_id=update.chat, text=words)

    def change_chat(self, update: Update, incoming: Incoming, stored: StoredChat) -> Chat:
        """Store what the update changes, and return the chat's new state."""
        before = stored.chat
        decision = transition(before, incoming, self.config, self.catalog.styles())
        if decision.request and self.limit_is_reached(incoming.user):
            decision = Decision(before, ("daily_limit",))
        if decision.lesson:
            problem = self.lessons.find_problem(decision.lesson, str(update.id))
            if problem:
                decision = Decision(before, (problem,))
        after = decision.chat
        if decision.request:
            job = self.create_job(update, incoming, decision.request)
            after = replace(after, job_id=job.id)
        if decision.lesson:
            self.lessons.create(update, incoming, decision.lesson)
        if decision.stop_lesson:
            self.lessons.stop(decision.stop_lesson, update.chat)
        after = after.with_answer(update.id, decision.reply)
        self.store.save_chat(stored, after)
        if before.job_id and before.job_id != after.job_id:
            self.metrics.add("cancelled")
        return after

    def limit_is_reached(self, user: int) -> bool:
        limit = self.config.daily_limit
        return limit > 0 and self.store.count_today(user) >= limit

    def create_job(self, update: Update, incoming: Incoming, request: PaintRequest) -> PaintJob:
        """Store a job named after the update, so that handling the update twice makes one job."""
        label = translate(incoming.language, "own_style")
        if isinstance(request.style, str):
            label = self.catalog.styles().labels.get(request.style, request.style)
        job = PaintJob(
            id=str(update.id),
            chat=update.chat,
            user=incoming.user,
            thread=incoming.thread,
            language=incoming.language,
            request=request,
            style_label=label,
        )
        self.store.save_job(job)
        # Its first step waits until this update is done: a chat is served by one thread at a time.
        self.runner.add(job)
        return job

    def answer(
        self, chat: int, reply: Iterable[str], incoming: Incoming, health: Callable[[], str]
    ) -> None:
        words = translate(
            incoming.language,
            *reply,
            support=self.config.support,
            limit=self.config.daily_limit,
            user=incoming.user,
            health=health() if "stats" in reply else "",
        )
        if "ask_style" in reply:
            self.ask_style(chat, incoming.thread, words)
        else:
            self.messenger.send(chat, incoming.thread, "sendMessage", text=words)

    def ask_style(self, chat: int, thread: int | None, words: str) -> None:
        """Ask with a button for each style, below a picture of them all where there is one."""
        styles = self.catalog.styles()
        buttons = style_keyboard(styles.labels)
        if styles.sheet and self.sheet.send(
            chat, thread, styles.sheet, caption=words, reply_markup=buttons
        ):
            return
        self.messenger.send(chat, thread, "sendMessage", text=words, reply_markup=buttons)


# ---------------------------------------------------------------- jobs


class JobRunner:
    """Takes the pending jobs from step to step.

    Each step may be repeated after a kill at any point.

             submit               the model answers, or the deadline passes
    SUBMIT ----------> WAIT ------------------------------------> finish: picture or reason
      |                 |  update_status every few seconds           |
      |                 |                                            | the chat gives up the job
      +-----------------+--------------------------------------------+
                        | the chat does not own the job: cancelled, finished, or never its own
                        v
                     clean_up, again and again until the model has answered
    """

    def __init__(
        self,
        config: Config,
        telegram: TelegramClient,
        messenger: Messenger,
        store: Store,
        models: Models,
        metrics: Metrics,
    ) -> None:
        self.config = config
        self.telegram = telegram
        self.messenger = messenger
        self.store = store
        self.models = models
        self.metrics = metrics
        self._pictures = threading.Semaphore(PICTURES_IN_MEMORY)  # bounds the memory of downloads
        self._cursor = ""  # the watcher's alone: where the listing of jobs/ goes on
        self._lock = threading.Lock()
        self._jobs: dict[str, PaintJob] = {}  # all that are pending, by id; guarded by _lock

    # The jobs that are pending

    def pending(self) -> list[PaintJob]:
        with self._lock:
            return list(self._jobs.values())

    def add(self, job: PaintJob) -> PaintJob:
        """Add a job, unless it is pending already. Returns the one that is pending."""
        with self._lock:
            return self._jobs.setdefault(job.id, job)

    def scan_jobs(self) -> None:
        """Take up the next page of jobs/: an earlier process may have left jobs or their files."""
        items, self._cursor = self.store.list_page(JOBS_PREFIX, self._cursor)
        names_of_jobs: dict[str, set[str]] = {}
        for item in items:
            _, job_id, name = item["Key"].split("/", 2)
            names_of_jobs.setdefault(job_id, set()).add(name)
        for job_id, names in names_of_jobs.items():
            job = self.find(job_id)
            if job is None:
                self.store.delete_job_objects(job_id)
            elif "progress.json" in names:
                job.has_progress = True

    def mark_answered(self) -> None:
        """Mark the jobs whose answers have been listed: they take a step at once."""
        for job in self.pending():
            job.has_answer = self.models.has_answered(job.result_keys)

    def find(self, job_id: str) -> PaintJob | None:
        """Return a pending job, from S3 where this process does not know it.

        None: only files are left of it.
        """
        with self._lock:
            job = self._jobs.get(job_id)
            pending = len(self._jobs)
        if job:
            return job
        job = self.store.load_job(job_id)
        if job is None:
            return None
        # Many jobs that are found at once take turns.
        job.last_look += pending / STATUS_UPDATES_PER_SECOND
        return self.add(job)

    # What is due

    def has_ended(self, job: PaintJob) -> bool:
        is_late = time.time() > job.created + DEADLINE_SECONDS
        return is_late or self.models.has_answered(job.result_keys)

    def is_due(self, job: PaintJob, now: float, pace: float) -> bool:
        """Whether a job can take a step.

        now: of time.monotonic(). pace: the seconds between two looks at a job that waits.
        """
        if now < job.retry.not_before:
            return False
        return job.step is not Step.WAIT or job.has_answer or now >= job.last_look + pace

    # The steps

    def advance(self, job: PaintJob) -> None:
        """Take the next step.

        Raises TelegramError and S3_ERRORS, after which the step is repeated.
        """
        served_chat = job.chat
        stored = self.store.load_chat(job.chat)
        job.chat = stored.number
        if stored.chat.job_id != job.id:
            return self.clean_up(job)
        if job.chat != served_chat:  # the group has moved: another thread may serve its new number
            return None
        if job.error_code or self.has_ended(job):
            return self.finish(job)
        if job.step is Step.WAIT:
            return self.update_status(job)
        return self.submit(job)

    def submit(self, job: PaintJob) -> None:
        """Tell the user that we begin, copy the pictures to S3, and call the model."""
        words = translate(job.language, "accepted", style=job.style_label)
        buttons = job_buttons(job, [["cancel"]])
        if not self.send_once(job, "status", "sendMessage", text=words, reply_markup=buttons):
            self.store.release_job(job.chat, job.id, keep=None)
            return

        request = job.request
        self.copy_to_s3(request.content, job.key("content"))
        body = {
            "content_url": self.store.url(job.key("content")),
            "progress_url": self.store.url(job.key("progress.json")),
            "result_url": self.store.url(job.key(request.result)),
            "strength": request.strength,
        }
        if isinstance(request.style, str):
            body["style_name"] = request.style
        else:
            self.copy_to_s3(request.style, job.key("style"))
            body["style_url"] = self.store.url(job.key("style"))
            body["preserve_color"] = request.preserve_color
            body["time_budget"] = TIME_BUDGET_SECONDS
        self.store.put_json(job.key("request.json"), body)

        job.result_keys = self.models.invoke(request.model, job.key("request.json"), job.id)
        job.step = Step.WAIT
        job.status_text = words
        self.store.save_job(job)

    def copy_to_s3(self, image: ImageRef, key: str) -> None:
        with self._pictures:
            self.store.put(key, self.telegram.download(image.file_id))

    def update_status(self, job: PaintJob) -> None:
        """Show in the status message how far the model is."""
        job.last_look = time.monotonic()
        progress: dict[str, Json] = {}
        if job.has_progress:
            progress, _ = self.store.get_json(job.key("progress.json"))

        words = translate(job.language, "accepted", style=job.style_label)
        if progress.get("steps"):
            words += "\n" + progress_line(job.language, progress)
        elif time.time() > job.created + WAKING_SECONDS:
            words += "\n" + translate(job.language, "waking")

        self.telegram.call(
            "sendChatAction", chat_id=job.chat, message_thread_id=job.thread, action="typing"
        )
        if job.status_message and words != job.status_text:
            preview = base64.b64decode(progress.get("preview") or "")
            buttons = job_buttons(job, [["cancel"]])
            self.messenger.show_status(job.chat, job.status_message, words, preview, buttons)
        job.status_text = words

    def finish(self, job: PaintJob) -> None:
        """Send the picture, or say why there is none. The chat then gives up the job."""
        failure = self.find_failure(job) or self.deliver(job)
        if failure:
            self.send_reason(job, failure)
            self.metrics.add("failed")
        else:
            if self.config.daily_limit:
                self.store.count_painting(job.user, job.id)
            self.metrics.add("done")

        # There is nothing to try again with a photo that we cannot get.
        is_lost = job.error_code in (ErrorCode.EXPIRED, ErrorCode.IMAGE_TOO_LARGE)
        self.store.release_job(job.chat, job.id, keep=None if is_lost else job.request)

    def find_failure(self, job: PaintJob) -> Failure | None:
        """Return why there is no picture, or None if the model has written one."""
        if job.error_code:
            return Failure(job.error_code)
        if not job.result_keys or not self.models.has_answered(job.result_keys):
            return Failure(ErrorCode.DEADLINE)
        if self.models.has_output(job.result_keys):
            return None
        failure = self.models.read_failure(job.result_keys)
        log.warning("job %s failed in the model: %s", job.id, failure.code.value)
        return failure

    def send_reason(self, job: PaintJob, failure: Failure) -> None:
        support = self.config.support
        reason = failure.message
        if not reason or job.language != "en":
            reason = translate(job.language, failure.code.value, support=support)
        before = translate(job.language, "failed")
        after = translate(job.language, "after_failure")
        self.send_once(
            job,
            "reason",
            "sendMessage",
            text=f"{before} {reason} {after}",
            reply_markup=job_buttons(job, [["retry", "another"]]),
        )

    def deliver(self, job: PaintJob) -> Failure | None:
        """Send the picture as a photo, and as a file where the user or Telegram wants that."""
        assert job.result_keys
        answer = self.models.read_output(job.result_keys)
        request = job.request
        picture, _ = self.store.get(job.key(request.result))
        if not picture:
            return Failure(ErrorCode.INTERNAL)

        file = (request.result, picture)
        caption = self.caption(job, answer)
        buttons = job_buttons(job, result_buttons(request))
        width, height = answer.get("size") or (1, 1)
        is_shown = False
        if not request.wants_file and fits_photo((width, height), len(picture)):
            is_shown = self.send_picture(job, "photo", file, caption, buttons)
        if is_shown and request.content.is_document:
            self.send_picture(job, "document", file)
        if not is_shown:
            is_shown = self.send_picture(job, "document", file, caption, buttons)
        return None if is_shown else Failure(ErrorCode.INTERNAL)

    def caption(self, job: PaintJob, answer: Mapping[str, Json]) -> str:
        """Return the style, the seconds and the model's notes."""
        seconds = round(float(answer.get("seconds") or time.time() - job.created))
        caption = translate(job.language, "caption", style=job.style_label, seconds=seconds)
        notes = [str(note) for note in answer.get("notes") or ()]
        return "\n".join([caption, *notes])[:CAPTION_MAX_LENGTH]

    def clean_up(self, job: PaintJob) -> None:
        """Remove all of a job that its chat does not own.

        Its model may still write, until it has answered.
        """
        if job.status_message:
            self.telegram.try_call("deleteMessage", chat_id=job.chat, message_id=job.status_message)
        self.store.delete_job_objects(job.id, *(job.result_keys or ()))
        job.status_message = None
        job.last_look = time.monotonic()
        if job.result_keys and not self.has_ended(job):
            return
        with self._lock:
            self._jobs.pop(job.id, None)
        self.models.forget(job.result_keys)

    # Messages that are sent once

    def send_once(self, job: PaintJob, part: str, method: str, **values: Json) -> bool:
        """Send a part of the answer and record that. False where Telegram refuses it for good."""
        if part in job.sent:
            return True
        try:
            message = self.messenger.send(job.chat, job.thread, method, **values)
        except TelegramError as error:
            if is_refusal(error):
                return False
            raise
        if part == "status":
            job.status_message = message.get("message_id")
        return self.record_sent(job, part)

    def send_picture(
        self,
        job: PaintJob,
        kind: str,
        file: tuple[str, bytes],
        caption: str = "",
        buttons: Json = None,
    ) -> bool:
        """Send a "photo" or a "document" once. False where Telegram refuses it for good.

        Telegram cannot be asked whether it took a message. So the attempt is recorded first, as
        "photo?". A picture that may have arrived before a kill goes into the status message: an
        edit can be repeated, and nobody gets more than two.
        """
        if kind in job.sent:
            return True
        attempt = f"{kind}?"
        if attempt not in job.sent:
            self.record_sent(job, attempt)
        elif job.status_message and self.messenger.show_picture(
            job.chat, job.status_message, kind, file, caption, buttons
        ):
            job.status_message = None  # it holds the picture now, and must stay
            return self.record_sent(job, kind)
        try:
            self.messenger.send(
                job.chat,
                job.thread,
                SEND_METHODS[kind],
                files={kind: file},
                caption=caption or None,
                reply_markup=buttons,
            )
        except TelegramError as error:
            if error.code:  # an answer came, so nothing was sent
                job.sent.remove(attempt)
            if is_refusal(error):
                return False
            raise
        return self.record_sent(job, kind)

    def record_sent(self, job: PaintJob, part: str) -> bool:
        job.sent.append(part)
        self.store.save_job(job)
        return True


def is_refusal(error: TelegramError) -> bool:
    """Whether Telegram would refuse the same message again."""
    return error.code in (400, 403) and not error.new_chat


# ---------------------------------------------------------------- painters that are trained


class Lessons:
    """Takes the pending lessons from step to step. Each step may be repeated after a kill.

             a job trains            it is completed            the model has a new catalog
    SUBMIT ---------------> TRAIN ------------------> CATALOG ------------------------------> end
                              |                          |
                              +--- the button Cancel ----+--> STOP ---------------------------> end

    At the end the chat is told how it went, and the lesson's record is deleted.
    """

    def __init__(
        self,
        telegram: TelegramClient,
        messenger: Messenger,
        store: Store,
        models: Models,
        trainer: Trainer,
        catalog: StyleCatalog,
    ) -> None:
        self.telegram = telegram
        self.messenger = messenger
        self.store = store
        self.models = models
        self.trainer = trainer
        self.catalog = catalog
        self._lock = threading.Lock()
        self._lessons: dict[str, Lesson] = {}  # all that are pending, by id; guarded by _lock

    # The lessons that are pending

    def pending(self) -> list[Lesson]:
        with self._lock:
            return list(self._lessons.values())

    def scan(self) -> None:
        """Take up the lessons that an earlier process has left."""
        items, _ = self.store.list_page(LESSONS_PREFIX)
        for item in items:
            lesson_id = item["Key"].removeprefix(LESSONS_PREFIX).removesuffix(".json")
            with self._lock:
                is_known = lesson_id in self._lessons
            if not is_known:
                self.add(self.store.load_lesson(lesson_id))

    def add(self, lesson: Lesson | None) -> None:
        with self._lock:
            if lesson:
                self._lessons.setdefault(lesson.id, lesson)

    def find_problem(self, request: LessonRequest, lesson_id: str) -> str:
        """Return the key of a text that says why a painter cannot be trained, or ""."""
        others = [lesson for lesson in self.pending() if lesson.id != lesson_id]
        if request.name in [lesson.name for lesson in others]:
            return "painter_exists"
        if self.trainer.read_template() is None:
            return "no_training"
        return ""

    def create(self, update: Update, incoming: Incoming, request: LessonRequest) -> None:
        """Store a lesson named after the update, unless an earlier try has stored it."""
        lesson = self.store.load_lesson(str(update.id))
        if lesson is None:
            lesson = Lesson(
                id=str(update.id),
                chat=update.chat,
                thread=incoming.thread,
                language=incoming.language,
                name=request.name,
                picture=request.picture,
            )
            self.store.save_lesson(lesson)
        self.add(lesson)

    def stop(self, lesson_id: str, chat: int) -> None:
        """Let a lesson of this chat stop with its next step."""
        with self._lock:
            lesson = self._lessons.get(lesson_id)
        if lesson is None or lesson.chat != chat:
            return
        lesson.step = LessonStep.STOP
        lesson.error_code = None
        lesson.last_look = 0.0
        self.store.save_lesson(lesson)

    def is_due(self, lesson: Lesson, now: float) -> bool:
        """Whether a lesson can take a step. now: of time.monotonic()."""
        return now >= lesson.retry.not_before and now >= lesson.last_look + LESSON_SECONDS

    # The steps

    def advance(self, lesson: Lesson) -> None:
        """Take the next step.

        Raises TelegramError and S3_ERRORS, after which the step is repeated.
        """
        lesson.last_look = time.monotonic()
        if lesson.error_code:
            return self.fail(
                lesson, translate(lesson.language, lesson.error_code.value, support="")
            )
        if lesson.step is LessonStep.STOP:
            return self.stop_training(lesson)
        if time.time() > lesson.created + LESSON_DEADLINE_SECONDS:
            return self.fail(lesson, translate(lesson.language, ErrorCode.DEADLINE.value))
        if lesson.step is LessonStep.SUBMIT:
            return self.submit(lesson)
        if lesson.step is LessonStep.TRAIN:
            return self.follow(lesson)
        return self.look_for_catalog(lesson)

    def submit(self, lesson: Lesson) -> None:
        """Tell that we begin, copy the picture to S3, and start the training job."""
        template = self.trainer.read_template()
        if template is None:
            return self.fail(lesson, translate(lesson.language, "no_training"))
        if not lesson.training_job:
            prefix = str(template.get("name_prefix", ""))
            lesson.training_job = training_job_name(prefix, lesson.name, lesson.id)
            self.store.save_lesson(lesson)
        if not lesson.status_message:
            message = self.messenger.send(
                lesson.chat,
                lesson.thread,
                "sendMessage",
                text=self.status(lesson, "lesson_waits"),
                reply_markup=lesson_buttons(lesson),
            )
            lesson.status_message = message.get("message_id")
            self.store.save_lesson(lesson)

        picture = self.telegram.download(lesson.picture.file_id)
        self.store.put(lesson.training_key("style/picture.jpg"), picture)
        try:
            self.trainer.create(lesson, template)
        except ClientError as error:
            if may_pass(error):
                raise
            return self.fail(lesson, f"{error.response['Error']['Message'].rstrip('.')}.")
        lesson.step = LessonStep.TRAIN
        self.store.save_lesson(lesson)

    def follow(self, lesson: Lesson) -> None:
        """Show how far the training is; at its end ask the model for a new catalog."""
        job = self.trainer.describe(lesson.training_job)
        if job is None:
            if time.time() < lesson.created + LESSON_START_SECONDS:
                return
            return self.fail(lesson, translate(lesson.language, "lesson_lost"))
        status = job["TrainingJobStatus"]
        if status == "Completed":
            return self.request_catalog(lesson)
        if status == "Failed":
            reason = str(job.get("FailureReason", "")).removeprefix("AlgorithmError: ")
            return self.fail(lesson, f"{reason[:500].rstrip('.')}.")
        if status == "Stopped":
            return self.end(lesson, translate(lesson.language, "lesson_stopped", name=lesson.name))
        self.show_progress(lesson)

    def show_progress(self, lesson: Lesson) -> None:
        progress, _ = self.store.get_json(lesson.training_key("progress.json"))
        words = self.status(lesson, "lesson_waits")
        if progress.get("steps"):
            words = f"{self.status(lesson)}\n{progress_line(lesson.language, progress)}"
        self.show(lesson, words, base64.b64decode(progress.get("preview") or ""))

    def status(self, lesson: Lesson, *more: str) -> str:
        """Return the words of the status message."""
        begun = translate(lesson.language, "lesson_started", name=lesson.name)
        return "\n".join([begun, *(translate(lesson.language, key) for key in more)])

    def show(self, lesson: Lesson, words: str, preview: bytes = b"") -> None:
        """Let the status message say something else. The training does not depend on it."""
        if not lesson.status_message or words == lesson.status_text:
            return
        buttons = lesson_buttons(lesson)
        with contextlib.suppress(TelegramError):
            self.messenger.show_status(lesson.chat, lesson.status_message, words, preview, buttons)
            lesson.status_text = words

    def request_catalog(self, lesson: Lesson) -> None:
        """Let the model look for the new painter, and write what the bot offers."""
        request_key = lesson.training_key("request.json")
        self.store.put_json(request_key, {"catalog_url": self.store.url(CATALOG_KEY)})
        lesson.result_keys = self.models.invoke("cyclegan", request_key, f"lesson-{lesson.id}")
        lesson.step = LessonStep.CATALOG
        self.store.save_lesson(lesson)
        self.show(lesson, self.status(lesson, "lesson_catalog"))

    def look_for_catalog(self, lesson: Lesson) -> None:
        keys = lesson.result_keys
        assert keys
        if not self.models.has_answered(keys):
            return
        if not self.models.has_output(keys):
            failure = self.models.read_failure(keys)
            return self.fail(lesson, translate(lesson.language, failure.code.value, support=""))
        if lesson.name not in self.models.read_output(keys).get("styles", ()):
            return self.fail(lesson, translate(lesson.language, "lesson_unusable"))
        self.catalog.look_again()
        self.end(lesson, translate(lesson.language, "lesson_done", name=lesson.name))

    def stop_training(self, lesson: Lesson) -> None:
        if lesson.training_job:
            self.trainer.stop(lesson.training_job)
        self.end(lesson, translate(lesson.language, "lesson_stopped", name=lesson.name))

    def fail(self, lesson: Lesson, reason: str) -> None:
        log.warning("lesson %s: %s", lesson.id, reason)
        words = translate(lesson.language, "lesson_failed", name=lesson.name, reason=reason)
        self.end(lesson, words)

    def end(self, lesson: Lesson, words: str) -> None:
        """Tell how it went, take the button away, and forget the lesson."""
        try:
            self.messenger.send(lesson.chat, lesson.thread, "sendMessage", text=words)
        except TelegramError as error:
            if not is_refusal(error):
                raise
        if lesson.status_message:
            self.telegram.try_call(
                "editMessageReplyMarkup", chat_id=lesson.chat, message_id=lesson.status_message
            )
        self.store.delete([lesson.key, *(lesson.result_keys or ())])
        self.models.forget(lesson.result_keys)
        with self._lock:
            self._lessons.pop(lesson.id, None)


def lesson_buttons(lesson: Lesson) -> Json:
    label = translate(lesson.language, "button_cancel")
    return keyboard([[(label, f"unteach:{lesson.id}")]])


# ---------------------------------------------------------------- who is served when


class Dispatcher:
    """Polls Telegram, watches S3, and has whatever can go on take a step.

    Of each chat one thing is done at a time, and its updates in order: an update that waits to be
    tried again holds up the later ones of its chat. A job that waits holds up nothing.
    """

    def __init__(
        self,
        telegram: TelegramClient,
        handler: UpdateHandler,
        runner: JobRunner,
        lessons: Lessons,
        models: Models,
        metrics: Metrics,
    ) -> None:
        self.telegram = telegram
        self.handler = handler
        self.runner = runner
        self.lessons = lessons
        self.models = models
        self.metrics = metrics
        self._pool = ThreadPoolExecutor(WORKER_THREADS)
        self._stopping = threading.Event()
        self._lock = threading.Condition()  # notified when an update has been handled
        self._inbox: dict[int, Update | None] = {}  # not confirmed; None: handled; guarded by _lock
        self._serving: set[int] = set()  # chats for which a thread works; guarded by _lock

    def dispatch(self) -> None:
        """Hand every update and job that can take a step to a thread."""
        if self._stopping.is_set():
            return
        with self._lock:
            taken = set(self._serving)
            for update in self._inbox.values():
                if update is None:
                    continue
                is_due = time.monotonic() >= update.retry.not_before
                if is_due and update.chat not in taken:
                    self._serving.add(update.chat)
                    self._pool.submit(self.take_update, update)
                taken.add(update.chat)

            # The more jobs are pending, the less often each one is looked at.
            jobs = self.runner.pending()
            pace = max(EDIT_SECONDS, len(jobs) / STATUS_UPDATES_PER_SECOND)
            now = time.monotonic()
            for job in jobs:
                if job.chat not in taken and self.runner.is_due(job, now, pace):
                    self._serving.add(job.chat)
                    taken.add(job.chat)
                    self._pool.submit(self.take_step, job)
            for lesson in self.lessons.pending():
                if lesson.chat not in taken and self.lessons.is_due(lesson, now):
                    self._serving.add(lesson.chat)
                    taken.add(lesson.chat)
                    self._pool.submit(self.take_lesson_step, lesson)

    def take_update(self, update: Update) -> None:
        """Handle an update. This and the next two are where all errors of a chat end."""
        try:
            self.handler.handle(update, self.health)
        except Exception as error:
            self.plan_retry(update.retry, f"update {update.id}", error)
            update.error_code = classify_error(error, update.retry.attempts)
        else:
            with self._lock:
                self._inbox[update.id] = None
                self._lock.notify_all()
        self.done_with(update.chat)

    def take_step(self, job: PaintJob) -> None:
        chat = job.chat  # a step may change it
        try:
            self.runner.advance(job)
            job.retry.attempts = 0
        except Exception as error:
            self.plan_retry(job.retry, f"{job.step.value} {job.id}", error)
            job.error_code = None
            if job.step is Step.SUBMIT or self.runner.has_ended(job):
                job.error_code = classify_error(error, job.retry.attempts)
        self.done_with(chat)

    def take_lesson_step(self, lesson: Lesson) -> None:
        chat = lesson.chat
        try:
            self.lessons.advance(lesson)
            lesson.retry.attempts = 0
        except Exception as error:
            if isinstance(error, TelegramError) and error.new_chat:
                lesson.chat = error.new_chat
            self.plan_retry(lesson.retry, f"lesson {lesson.id}", error)
            lesson.error_code = classify_error(error, lesson.retry.attempts)
        self.done_with(chat)

    def plan_retry(self, retry: Retry, what: str, error: Exception) -> None:
        retry.attempts += 1
        seconds = log_and_back_off(self.metrics, what, error, retry.attempts)
        retry.not_before = time.monotonic() + seconds

    def done_with(self, chat: int) -> None:
        with self._lock:
            self._serving.discard(chat)
        self.dispatch()

    def watch(self) -> None:
        """Look into S3 once a second while something is pending, else in ten minutes.

        Runs in its own thread.
        """
        for second in count():
            try:
                is_time = second < 120 or second % 600 == 0
                if is_time:
                    self.lessons.scan()
                if is_time or self.runner.pending() or self.lessons.pending():
                    self.models.scan_answers()
                    self.runner.scan_jobs()
                    self.runner.mark_answered()
            except Exception as error:  # the watcher must not die
                log_and_back_off(self.metrics, "watcher", error, 1)
            self.dispatch()
            if second % 60 == 0:
                log.info(self.health())
            time.sleep(1)

    def health(self) -> str:
        """Return figures: what was done, what is pending, how long the oldest update waits."""
        with self._lock:
            received = [update.received for update in self._inbox.values() if update]
        lag = time.time() - min(received, default=time.time())
        jobs = len(self.runner.pending())
        return f"{self.metrics} jobs={jobs} waiting={len(received)} lag={lag:.1f}s"

    def confirmed_offset(self) -> int | None:
        """Return the offset that confirms all updates below the first unhandled one, or None."""
        with self._lock:
            unhandled = [number for number, update in self._inbox.items() if update]
            first = min(unhandled, default=max(self._inbox, default=-1) + 1)
            self._inbox = {number: u for number, u in self._inbox.items() if number >= first}
        return first or None

    def has_unhandled(self) -> bool:
        """Whether an update is not handled yet.

        The caller holds _lock, or can bear a late answer.
        """
        return any(self._inbox.values())

    def call_until_answered(self, method: str, **values: Json) -> Json:
        """Call Telegram until it answers. Raises ValueError where it refuses the token."""
        attempts = 0
        while True:
            try:
                return self.telegram.call(method, **values)
            except TelegramError as error:
                attempts += 1
                if error.code in (401, 404):
                    advice = SETTINGS["TELEGRAM_TOKEN"].advice
                    raise ValueError(f"TELEGRAM_TOKEN is refused: set it to {advice}") from None
                if error.code == 409 and "webhook" in error.description:
                    self.telegram.try_call("deleteWebhook")
                time.sleep(log_and_back_off(self.metrics, method, error, attempts))

    def introduce(self) -> None:
        """Learn the bot's name, and tell Telegram the commands in both languages."""
        self.handler.bot_name = self.call_until_answered("getMe").get("username", "")
        self.telegram.try_call("deleteWebhook")
        for language, code in (("en", None), ("ru", "ru")):
            commands = [
                {"command": name, "description": translate(language, f"command_{name}")}
                for name in ("start", "cancel", "help")
            ]
            self.telegram.try_call("setMyCommands", commands=commands, language_code=code)

    def run(self) -> None:
        """Take updates in, for ever. Telegram repeats those that are not confirmed."""
        self.introduce()
        threading.Thread(target=self.watch, name="watcher", daemon=True).start()
        while True:
            offset = self.confirmed_offset()
            updates = self.call_until_answered(
                "getUpdates",
                read_timeout=60,
                timeout=0 if self.has_unhandled() else 50,
                allowed_updates=["message", "callback_query"],
                offset=offset,
            )
            self.take_in(updates)
            self.dispatch()
            # A short wait lets the next call confirm what is handled by then.
            with self._lock:
                self._lock.wait_for(lambda: not self.has_unhandled(), 0.3)

    def take_in(self, updates: Iterable[Mapping[str, Json]]) -> None:
        with self._lock:
            for raw in updates:
                number = raw["update_id"]
                if number not in self._inbox:
                    self._inbox[number] = Update(number, chat_of(raw), raw)
                    self.metrics.add("updates")

    def shut_down(self) -> None:
        """Let the running steps end, and confirm what is handled. Takes at most 8 s."""
        self._stopping.set()
        end = time.monotonic() + 6
        while self._serving and time.monotonic() < end:
            time.sleep(0.05)
        offset = self.confirmed_offset()
        self.telegram.try_call("getUpdates", read_timeout=2, offset=offset, limit=1, timeout=0)
        log.info("stopped: %s", self.health())


# ---------------------------------------------------------------- main


class StopSignal(BaseException):
    """SIGTERM or Ctrl-C. No `except Exception` on the way may swallow it."""


def raise_stop_signal(*_: object) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    raise StopSignal


class Bot:
    """All parts, wired together."""

    def __init__(
        self,
        config: Config,
        telegram: TelegramClient,
        s3: Any,  # noqa: ANN401 - boto3's clients
        runtime: Any,  # noqa: ANN401
        connect_sagemaker: Callable[[], Any],
    ) -> None:
        metrics = Metrics()
        self.telegram = telegram
        self.store = Store(s3, config.bucket)
        self.models = Models(runtime, self.store, config.endpoints)
        messenger = Messenger(telegram, self.store)
        self.runner = JobRunner(config, telegram, messenger, self.store, self.models, metrics)
        catalog = StyleCatalog(self.store, config.styles)
        trainer = Trainer(connect_sagemaker, self.store)
        self.lessons = Lessons(telegram, messenger, self.store, self.models, trainer, catalog)
        self.handler = UpdateHandler(
            config,
            telegram,
            messenger,
            self.store,
            catalog,
            SheetSender(messenger, self.store),
            self.runner,
            self.lessons,
            metrics,
        )
        self.dispatcher = Dispatcher(
            telegram, self.handler, self.runner, self.lessons, self.models, metrics
        )

    def run(self) -> None:
        """Serve until SIGTERM or Ctrl-C; end within 10 s of it.

        Raises ValueError for a refused token.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, raise_stop_signal)
        try:
            self.dispatcher.run()
        except StopSignal:
            self.dispatcher.shut_down()
        os._exit(0)  # without waiting for threads that hang in a slow network

    def check(self) -> int:
        """Try the token, the bucket and both endpoints, and print what is wrong.

        Returns the exit code.
        """
        checks: dict[str, Callable[[], None]] = {
            "TELEGRAM_TOKEN": self.check_token,
            "BUCKET": self.check_bucket,
            "NST_ENDPOINT": lambda: self.check_endpoint("nst"),
            "CYCLEGAN_ENDPOINT": lambda: self.check_endpoint("cyclegan"),
        }
        exit_code = 0
        for name, check in checks.items():
            try:
                check()
            except (TelegramError, *S3_ERRORS) as error:
                exit_code = 1
                advice = f"set it to {SETTINGS[name].advice}, one that you have access to"
                print(f"{name}: {error}. What to do: {advice}")
            else:
                print(f"{name}: ok")
        return exit_code

    def check_token(self) -> None:
        self.telegram.call("getMe")

    def check_bucket(self) -> None:
        key = f"{JOBS_PREFIX}check-{time.time_ns()}/request.json"
        self.store.put_json(key, {})
        self.store.get(key)
        self.store.list_page(key)
        self.store.delete([key])

    def check_endpoint(self, model: str) -> None:
        """Send a request whose input does not exist: the endpoint accepts it, and fails later."""
        self.models.invoke(model, f"{JOBS_PREFIX}check-{time.time_ns()}/request.json", "check")


def connect(config: Config) -> Bot:
    """Return the bot with clients for Telegram and AWS."""
    session = boto3.Session()
    limits = ClientConfig(
        connect_timeout=5, read_timeout=20, max_pool_connections=WORKER_THREADS + 2
    )
    once = ClientConfig(retries={"total_max_attempts": 1})  # a repeated call could paint twice
    return Bot(
        config,
        telegram=TelegramClient(config.telegram_api, config.token),
        s3=session.client("s3", config=limits),
        runtime=session.client("sagemaker-runtime", config=limits.merge(once)),
        connect_sagemaker=lambda: session.client("sagemaker", config=limits),
    )


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("urllib3").propagate = False  # its warnings can show the token
    try:
        bot = connect(read_config(os.environ))
        if sys.argv[1:] == ["--check"]:
            return bot.check()
        bot.run()
    except (ValueError, BotoCoreError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
