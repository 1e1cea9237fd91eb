"""A Telegram chat that sends a photo back as a painting. It may be killed at any moment.

Updates come from Telegram by long polling. Chats and jobs are JSON objects in S3. The models are
asynchronous SageMaker endpoints, which read their inputs from S3 and write their results there.

Four rules make it safe to kill the bot:

1. An update is confirmed to Telegram only after its effect is stored in S3, or in a rush the update
   itself, at updates/. Handling an update a second time changes nothing more.
2. A job is named after its update, and jobs/<job>/job.json is written before the chat that owns
   the job.
3. A job that its chat does not own is thrown away unseen. To cancel a job, the chat gives it up.
4. The bot records that a picture was sent before it removes the job's objects.

Whatever comes from outside is decoded into a type, with msgspec: Telegram's answers in
TelegramClient, the objects in S3 in Store. What does not fit is left out or put aside, and
everything else goes on.

The file reads from top to bottom: configuration, texts, stored types, Telegram, S3, the models, the
conversation (pure functions), errors, updates, jobs, the dispatcher (who is served when), and main.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import logging
import os
import random
import re
import signal
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from enum import Enum
from functools import cached_property, partial
from itertools import count
from typing import Annotated, Any, NamedTuple, TypeVar

import boto3
import imagesize
import msgspec
import requests
from botocore.config import Config as ClientConfig
from botocore.exceptions import BotoCoreError, ClientError
from msgspec import UNSET, Meta, Raw, Struct, UnsetType
from msgspec.structs import replace

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
UPDATES_PREFIX = "updates/"
ADMINS_KEY = "chats/admins.json"
QUARANTINE_PREFIX = "quarantine/"
RESULTS_PREFIX = "chats/results/"
KEPT_FILE = "result.png"  # at chats/results/<job>/, for "As a file"
KEPT_FILM = "film.gif"  # beside it, for "Film"
KEPT_NAMES = (KEPT_FILE, KEPT_FILM)
CATALOG_KEY = "models/catalog.json"
TRAINING_TEMPLATE_KEY = "models/training.json"
LESSONS_PREFIX = "training/lessons/"
PAINTER_PATTERN = r"[a-z0-9][a-z0-9_-]{0,31}"  # the name of a painter that is trained
INVOCATION_SECONDS = 900  # the longest time that a model may work on one request
# The alarms of an endpoint that the admins are told of: "<endpoint>-<kind>"
ALARM_KINDS = ("idle", "failing", "backlog")
# The metric by which an alarm knows that the bot is alive, for each value of DEPLOYMENT_DIMENSION
METRICS_NAMESPACE = "stylebot"
HEARTBEAT_METRIC = "Heartbeat"
DEPLOYMENT_DIMENSION = "Deployment"

# What we accept from users. getFile delivers at most 20 MB.
MAX_FILE_BYTES = 20 * 2**20
MAX_PIXELS = 40_000_000
MIN_SIDE = 16  # pixels
MAX_FILE_NAME_LENGTH = 60  # of which we tell
STEM_LENGTH = 40  # of a file's name, for the name of the result
NAMES_KNOWN = 1000  # names of files; with an older one, or after a start, it is "photo"

# The head of a file tells what it is, and nearly always how large its picture is.
HEAD_BYTES = 256 * 1024
# JPEG, PNG, GIF, WebP, BMP, TIFF, and the family of AVIF and HEIC
IMAGE_SIGNATURES = rb"\xff\xd8\xff|\x89PNG|GIF8|RIFF....WEBP|BM|II\*\0|MM\0\*|....ftyp"

# What Telegram accepts as a photo: https://core.telegram.org/bots/api#sendphoto
PHOTO_MAX_BYTES = 10 * 2**20
PHOTO_MAX_SIDES = 10_000  # width + height
PHOTO_MAX_RATIO = 20
CAPTION_MAX_LENGTH = 1000
CALLBACK_MAX_LENGTH = 64  # of a button's data
PAINTERS_MAX_LENGTH = 500  # of the list in a sentence
SEND_METHODS = {
    "photo": "sendPhoto",
    "document": "sendDocument",
    "animation": "sendAnimation",
}

COMMANDS = ("start", "paint", "settings", "cancel", "help", "stats", "teach")
# They are answered with help
GREETINGS = (
    *("hi", "hello", "hey", "good morning", "good day", "good evening", "start", "help"),
    *("привет", "privet", "здравствуй", "здравствуйте", "доброе утро", "добрый день"),
    *("добрый вечер", "хай", "старт", "помощь"),
)
CAPTION_COMMANDS = ("/teach", "/paint")  # those that may stand under a picture
WEIGHT_PATTERN = r"[0-9]{1,2}([.,][0-9]{1,2})?"  # of a style, under its picture

WORKER_THREADS = 16
PICTURES_IN_MEMORY = 4
HISTORY_LENGTH = 10  # results of a chat whose buttons still work
MAX_STYLES = 8  # pictures whose styles go into one painting
# Without another picture of a style, until the painting begins: in an album, and one by one
ALBUM_SECONDS = 2.0
STYLE_SECONDS = 20.0
JOBS_AT_ONCE = 5  # of a chat: each model works on one of them, the others wait
PHOTOS_KNOWN = 10  # photographs of a chat whose keyboards still work
BATCH_LENGTH = 100  # of getUpdates, which gives no more updates while these are not confirmed
SEEN_UPDATES = BATCH_LENGTH
BACKLOG_LENGTH = 2000  # updates that are confirmed, stored, and wait; then Telegram holds the rest

# Who sends more than this while the bot has not come to it gets one answer to all the rest.
MESSAGES_AT_ONCE = 3
QUIET_SECONDS = 2.0  # without another message, until it is sent
FLOOD_SECONDS = 15.0  # after the first message left out, also without quiet

# What we read into memory at most
MAX_ANSWER_BYTES = 32 * 2**20  # of Telegram: a hundred of the longest messages are a third of it
MAX_DESCRIPTION_LENGTH = 500  # of an error
MAX_RECORD_BYTES = 2**20  # of a JSON object in S3
MAX_PICTURE_BYTES = 64 * 2**20  # of a picture in S3; Telegram takes no file above 50 MB
MAX_MOVES = 10  # of a group to a new number

EDIT_SECONDS = 3  # between two edits of the same status message
GROUP_EDIT_SECONDS = 6  # the same in a group, for all its jobs: Telegram allows 20 a minute
STATUS_UPDATES_PER_SECOND = 12  # over all chats; Telegram allows about 30 messages a second
QUEUE_PACE = 5  # times as long between two edits of the message of a job that waits in line
MEANINGFUL_SHARE = 0.05  # of the work, before which nobody knows how long the rest takes
WAKING_SECONDS = 10  # without progress for this long, we say that the model is waking up
DEADLINE_SECONDS = 3600  # from a job's creation to its failure, including all waiting
BACKOFF_SECONDS = 0.5  # the pause after a failed step; it doubles with each further failure
MAX_BACKOFF_SECONDS = 30.0
REFUSALS = 10  # one after the other, until a token that has worked counts as refused: minutes
MAX_RETRY_AFTER_SECONDS = 300.0  # Telegram asks for seconds or minutes; then we ask again
ANSWER_DAYS = 1  # answers of the models older than this belong to no job
CATALOG_SECONDS = 30  # between two looks at the catalog of styles
MONITOR_SECONDS = 60  # between two heartbeats, and two looks at the alarms
ALIVE_SECONDS = 180  # without an answer of Telegram, until the heart stops
LESSON_SECONDS = 5  # between two looks at a painter's training
LESSON_DEADLINE_SECONDS = 12 * 3600  # from its creation to its failure, with all waiting for Spot
LESSON_START_SECONDS = 300  # a training job may be unknown for so long after its creation
TRAINING_NAME_LENGTH = 63  # SageMaker's limit
TAG_LENGTH = 7  # characters that tell a chat's photographs apart in the data of buttons
CATALOG_STYLES = 100  # Telegram shows no more buttons under a message

S3_ERRORS = (BotoCoreError, ClientError)
Json = Any  # whatever JSON can hold: what we write
T = TypeVar("T")
Record = TypeVar("Record", "JobRecord", "LessonRecord")
log = logging.getLogger("bot")


# ---------------------------------------------------------------- what comes from outside


Id = Annotated[int, Meta(ge=-(2**53), le=2**53)]  # of a chat, a user, a message or an update
Count = Annotated[int, Meta(ge=0, le=2**53)]
Seconds = Annotated[float, Meta(ge=0, le=1e9)]
FileId = Annotated[str, Meta(max_length=1000)]
KeptName = Annotated[
    str, Meta(pattern=r"^(result\.png|film\.gif)\Z")
]  # of an object at chats/results/<job>/


class MisfitError(ValueError):
    """JSON from outside is not what we expect. The message tells where, and nothing of it."""


def decode(data: bytes | Raw, kind: type[T]) -> T:
    """Return the value of `kind` that JSON holds. Members without a field are ignored.

    Raises MisfitError.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        # Its own words may quote the value.
        place = re.search(r"at `([^`]*)`", str(error))
        raise MisfitError(f"{place[1] if place else '$'} does not fit") from None
    except RecursionError:
        raise MisfitError("it is nested too deeply") from None
    except ValueError:
        raise MisfitError("it is no JSON") from None


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
    "DEPLOYMENT": Setting(r"[a-z0-9-]{1,50}| ", " ", "what ./deploy.py up has printed"),
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
    deployment: str = ""  # the prefix of ./deploy.py's names; "": CloudWatch is not used


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
        deployment=values["DEPLOYMENT"].strip(),
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

    Each code has a text in ERROR_TEXTS. The last four are found by the bot itself.
    """

    ACCESS_DENIED = "access_denied"
    BAD_REQUEST = "bad_request"
    BODY_TOO_LARGE = "body_too_large"
    BROKEN = "broken"
    CANCELLED = "cancelled"
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
    NO_RIGHTS = "no_rights"


# What the models say with these codes is about the picture, and written for the person who sent it.
# Their other messages can hold addresses, paths and exceptions.
TELLING_CODES = (
    ErrorCode.IMAGE_TOO_LARGE,
    ErrorCode.IMAGE_TOO_SMALL,
    ErrorCode.IMAGE_UNREADABLE,
)


# The same request would fail again, because of its photo or its style
PICTURE_CODES = (
    *TELLING_CODES,
    ErrorCode.EXPIRED,
    ErrorCode.FILE_TOO_LARGE,
    ErrorCode.UNSUPPORTED_MEDIA_TYPE,
)


class Text(NamedTuple):
    """A sentence in the languages that the bot speaks."""

    en: str
    ru: str


TEXTS = {
    "alarm": Text("Alarm: {what}.", "Тревога: {what}."),
    "alarm_over": Text("Over: {what}.", "Прошло: {what}."),
    "alarm_idle": Text(
        "the endpoint {endpoint} has had an instance without work for hours, which costs money; "
        "see ./deploy.py status",
        "у эндпоинта {endpoint} уже несколько часов работает машина без дела, а она стоит денег; "
        "см. ./deploy.py status",
    ),
    "alarm_failing": Text(
        "the model of the endpoint {endpoint} fails; see ./deploy.py logs",
        "модель эндпоинта {endpoint} работает с ошибками; см. ./deploy.py logs",
    ),
    "alarm_backlog": Text(
        "a picture has waited at the endpoint {endpoint} for half an hour; see ./deploy.py status",
        "картинка ждёт у эндпоинта {endpoint} уже полчаса; см. ./deploy.py status",
    ),
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
    "album": Text("Before and after.", "До и после."),
    "settings": Text(
        "What I shall do with every new picture of yours:",
        "Как мне рисовать каждую вашу новую картину:",
    ),
    "settings_group": Text(
        "What I shall do with every new picture that you ask for in this group:",
        "Как мне рисовать каждую новую картину, о которой вы попросите в этой группе:",
    ),
    "language_0": Text("Language of Telegram", "Язык Telegram"),
    "language_1": Text("English", "Английский"),
    "language_2": Text("Russian", "Русский"),
    "size_0": Text("Usual size", "Обычный размер"),
    "size_1": Text("640 px", "640 точек"),
    "size_2": Text("1024 px", "1024 точки"),
    "size_3": Text("1600 px", "1600 точек"),
    "strength_0": Text("Usual strength", "Обычная сила"),
    "strength_1": Text("Soft", "Мягко"),
    "strength_2": Text("Medium", "Средне"),
    "strength_3": Text("Strong", "Сильно"),
    "preserve_color_0": Text("The style's colours", "Цвета стиля"),
    "preserve_color_1": Text("My colours", "Мои цвета"),
    "as_file_0": Text("As a photo", "Фотографией"),
    "as_file_1": Text("As a file", "Файлом"),
    "ask_paint": Text(
        "Reply to a photo with /paint and a painter, such as /paint monet",
        "Ответьте на фотографию командой /paint и именем художника, например /paint monet",
    ),
    "ask_guest": Text(
        "Reply to a photo with @{bot} and a painter, such as @{bot} monet",
        "Ответьте на фотографию: @{bot} и имя художника, например @{bot} monet",
    ),
    "start_first": Text(
        "Start a chat with me first, then ask me again: the painting comes there too.",
        "Сначала откройте чат со мной, потом попросите ещё раз: картина придёт и туда.",
    ),
    "button_start": Text("Start", "Начать"),
    "guest_caption": Text("Painted: {style}.", "Готово: {style}."),
    "guest_elsewhere": Text("The painting is in our chat.", "Картина в нашем чате."),
    "painters": Text("There are: {painters}.", "Есть: {painters}."),
    "not_yours": Text(
        "These buttons belong to somebody else. Reply to a photo with /paint to get your own.",
        "Это чужие кнопки. Ответьте на фотографию командой /paint, и будут свои.",
    ),
    "help_group": Text(
        "Reply to a photo with /paint monet, or with /paint to choose a painter. "
        "/cancel stops what you asked for. {support}",
        "Ответьте на фотографию командой /paint monet или просто /paint, чтобы выбрать художника. "
        "/cancel остановит то, о чём просили вы. {support}",
    ),
    "ask_style_group": Text(
        "Choose a painter, or answer this message with one or more pictures as the style.",
        "Выберите художника или ответьте на это сообщение образцом, можно несколькими.",
    ),
    "got_content": Text("Got your photo.", "Фотография у меня."),
    "ask_style": Text(
        "Choose a painter, or send one or more pictures as the style.",
        "Выберите художника или пришлите образец, можно несколько.",
    ),
    "got_styles": Text("Pictures as the style: {styles}.", "Образцов: {styles}."),
    "ask_more_styles": Text(
        "Press Paint, or send another picture to mix in its style; a number that you write under "
        "it is its weight. Otherwise I begin in {seconds} s. /cancel starts anew.",
        "Нажмите «Рисовать» или пришлите ещё образец, и стили смешаются; число, написанное под "
        "ним, — его вес. Иначе начну через {seconds} с. /cancel — начать заново.",
    ),
    "ask_more_styles_group": Text(
        "Press Paint, or answer this message with another picture to mix in its style. "
        "Otherwise I begin in {seconds} s.",
        "Нажмите «Рисовать» или ответьте на это сообщение ещё одним образцом, и стили смешаются. "
        "Иначе начну через {seconds} с.",
    ),
    "busy": Text(
        "I am still painting: send me another photo, or stop me with /cancel.",
        "Я ещё рисую: пришлите ещё одну фотографию или остановите меня: /cancel.",
    ),
    "queue_is_full": Text(
        "I have {most} of your paintings to do: please ask again when one of them is finished.",
        "У меня в работе уже столько ваших картин: {most}. Попросите снова, когда одна из них "
        "будет готова.",
    ),
    "cancelled": Text("Cancelled.", "Отменено."),
    "after_cancel": Text(
        "Try it again, choose another style, or send me another photo.",
        "Попробуйте ещё раз, выберите другой стиль или пришлите другую фотографию.",
    ),
    "has_ended": Text("This painting has ended already.", "Эта картина уже закончена."),
    "painting_already": Text("I am painting that already.", "Это я уже рисую."),
    "nothing_to_cancel": Text("There is nothing to cancel.", "Отменять нечего."),
    "not_a_picture": Text("That is not a picture.", "Это не картинка."),
    "not_an_image": Text("{picture} is not an image.", "{picture} — не изображение."),
    "empty_file": Text("{picture} is empty.", "{picture}: файл пуст."),
    "too_many_bytes": Text(
        "{picture} is too large: {megabytes} MB, and I take at most 20.",
        "{picture}: {megabytes} МБ, это слишком много, я беру не больше 20.",
    ),
    "too_many_pixels": Text(
        "{picture} is too large: {width}x{height} are {megapixels} megapixels, "
        "and I take at most 40.",
        "{picture}: {width}x{height}, это {megapixels} мегапикселей, а я беру не больше 40.",
    ),
    "too_few_pixels": Text(
        "{picture} is too small: {width}x{height} pixels, and I need at least 16 on each side.",
        "{picture}: {width}x{height}, это слишком мало, нужно хотя бы 16 пикселей по каждой "
        "стороне.",
    ),
    "this_picture": Text("This picture", "Эта картинка"),
    "this_file": Text("This file", "Этот файл"),
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
    "left_out": Text(
        "That was a lot at once: I took the first ones, and left out the {count} after them.",
        "Слишком много сразу: первые взял, а следующие {count} пропустил.",
    ),
    "update_failed": Text(
        "Something went wrong on my side. Please try again.",
        "У меня что-то сломалось. Попробуйте ещё раз.",
    ),
    "accepted": Text("Painting your photo: {style}.", "Рисую ваше фото: {style}."),
    "queued": Text("Your photo waits: {style}.", "Ваше фото ждёт: {style}."),
    "place": Text("Number {place} in the queue", "Номер {place} в очереди"),
    "starts_in_seconds": Text("starts in about {seconds} s", "начну через {seconds} с"),
    "starts_in_minutes": Text("starts in about {minutes} min", "начну через {minutes} мин"),
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
    "caption_file": Text("As a file: {style}.", "Файлом: {style}."),
    "caption_film": Text("How it was painted: {style}.", "Как это рисовалось: {style}."),
    "failed": Text(
        "Sorry, this painting did not work out.",
        "Простите, эта картина не получилась.",
    ),
    "after_failure": Text(
        "Please try again, or send me another photo.",
        "Попробуйте ещё раз или пришлите другую фотографию.",
    ),
    "choose_another": Text(
        "Please choose another style, or send me another photo.",
        "Выберите другой стиль или пришлите другую фотографию.",
    ),
    "send_another": Text("Please send me another photo.", "Пришлите другую фотографию."),
    "detail_strength": Text("strength {strength}", "сила {strength}"),
    "detail_colours": Text("own colours", "свои цвета"),
    "detail_size": Text("{size} px", "{size} точек"),
    "detail_weights": Text("weights {weights}", "в долях {weights}"),
    "own_style": Text("your picture's style", "стиль вашей картины"),
    "own_styles": Text("the styles of your {count} pictures", "стили ваших картин, их {count}"),
    "style_too_late": Text(
        "This style came too late: the painting has begun without it.",
        "Этот образец опоздал: я уже рисую без него.",
    ),
    "too_many_styles": Text(
        "I take the styles of at most 8 pictures, and left this one out.",
        "Беру не больше 8 образцов, этот пропускаю.",
    ),
    "taking": Text(
        "I stop here: the picture comes as it is now.",
        "Останавливаюсь: картина придёт такой, какая есть.",
    ),
    "button_cancel": Text("Cancel", "Отменить"),
    "button_paint": Text("Paint", "Рисовать"),
    "button_take": Text("Take it now", "Взять сейчас"),
    "button_retry": Text("Try again", "Ещё раз"),
    "button_another": Text("Another style", "Другой стиль"),
    "button_stronger": Text("Stronger", "Сильнее"),
    "button_softer": Text("Softer", "Мягче"),
    "button_smaller": Text("Smaller: {size} px", "Меньше: {size}"),
    "button_larger": Text("Larger: {size} px", "Больше: {size}"),
    "button_album": Text("Before and after", "До и после"),
    "no_film": Text(
        "There is no film of this picture any more.", "Фильма об этой картине больше нет."
    ),
    "button_film": Text("Film", "Фильм"),
    "button_file": Text("As a file", "Файлом"),
    "button_colours": Text("Keep my colours", "Мои цвета"),
    "button_theirs": Text("The style's colours", "Цвета стиля"),
    "command_start": Text("new painting", "новая картина"),
    "command_paint": Text("paint the photo I reply to", "нарисовать фото, на которое отвечаю"),
    "command_settings": Text("language, size, colours", "язык, размер, цвета"),
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
    ErrorCode.CANCELLED: Text("It was cancelled.", "Её отменили."),
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
    ErrorCode.NO_RIGHTS: Text(
        "I may not send pictures here: an administrator of the group can allow it.",
        "Мне здесь нельзя отправлять картинки: это может разрешить администратор группы.",
    ),
}


# What people in groups read instead: there the bot gets only commands, mentions and replies to it.
GROUP_TEXTS = {
    "help": "help_group",
    "ask_content": "ask_paint",
    "ask_style": "ask_style_group",
    "ask_more_styles": "ask_more_styles_group",
    "settings": "settings_group",
}


# What to do after a failure: texts, and the verbs of the buttons below
AFTER_FAILURE = {
    "after_failure": ["retry", "another"],
    "choose_another": ["another"],
    "send_another": [],
}


# What people read in a chat that the bot is no member of: there is one answer, without buttons.
GUEST_TEXTS = {
    "ask_content": "ask_guest",
    "ask_paint": "ask_guest",
    "ask_style": "ask_guest",
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


def monotonic() -> float:
    """Return time.monotonic() of the moment: a default that tests can replace."""
    return time.monotonic()


class ImageRef(Struct, frozen=True, omit_defaults=True):
    """A picture at Telegram. Its link would hold the token, so only the file_id is stored."""

    file_id: FileId
    is_document: bool = msgspec.field(name="document")  # it came as a file, not as a photo
    # In a group, the message that the painting of it answers to; else 0
    message_id: Id = msgspec.field(name="message", default=0)
    has_spoiler: bool = msgspec.field(name="spoiler", default=False)  # it is shown when touched
    weight: Annotated[float, Meta(ge=0.1, le=10.0)] = 1.0  # as one of several styles

    @property
    def tag(self) -> str:
        """Return what names the picture in a button's data, which has at most 64 bytes.

        With the longest name of a painter there are seven left.
        """
        return hashlib.sha256(self.file_id.encode()).hexdigest()[:TAG_LENGTH]


class PaintRequest(Struct, frozen=True):
    """What to paint, and how."""

    content: ImageRef
    style: ImageRef | str  # a picture, or the name of a painter
    # A painter's default is 1.0, a picture's 0.5: the model's own balance
    strength: Annotated[float, Meta(ge=0.1, le=1.0)]
    preserve_color: bool = False
    # The other one is result.png, which is sent as a file only
    result: Annotated[str, Meta(pattern=r"^result\.(jpg|png)\Z")] = "result.jpg"
    size: Annotated[int, Meta(ge=0, le=2048)] = 0  # of the longer side; 0: the model's choice
    more_styles: tuple[ImageRef, ...] = ()  # pictures, after the first one in `style`

    @property
    def style_pictures(self) -> tuple[ImageRef, ...]:
        return () if isinstance(self.style, str) else (self.style, *self.more_styles)

    @property
    def has_weights(self) -> bool:
        """Whether one style counts more than another."""
        return len({picture.weight for picture in self.style_pictures}) > 1

    @property
    def model(self) -> str:
        return "cyclegan" if isinstance(self.style, str) else "nst"

    @property
    def wants_file(self) -> bool:
        return self.result == "result.png"


class Settings(Struct, frozen=True):
    """What a chat wants for every new picture. "" and 0: what the bot and the models choose."""

    language: Annotated[str, Meta(pattern=r"^(|en|ru)\Z")] = ""
    size: Annotated[int, Meta(ge=0, le=2048)] = 0  # of the longer side, in pixels
    strength: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.0
    preserve_color: bool = False
    as_file: bool = False


SIZES = (640, 1024, 1600)  # that people can choose, of the longer side, in pixels

# What /settings offers. The index of a choice stands in its button's data and in its text's key.
CHOICES: dict[str, tuple[str | float, ...]] = {
    "language": ("", "en", "ru"),
    "size": (0, *SIZES),
    "strength": (0.0, 0.3, 0.6, 1.0),
    "preserve_color": (False, True),
    "as_file": (False, True),
}


class Painting(Struct, frozen=True):
    """A job of a chat, and what it paints: one that is pending, or one whose buttons still work."""

    job_id: str = msgspec.field(name="job")
    request: PaintRequest
    kept: tuple[KeptName, ...] = ()  # what chats/results/<job>/ holds for the buttons

    def kept_keys(self) -> set[str]:
        return {kept_key(self.job_id, name) for name in self.kept}


class Chat(Struct, frozen=True):
    """The state of a chat, stored at chats/<chat>.json.

    In a group each member has a state of its own, at chats/<chat>/<user>.json.

    It waits for a photo, or for a style (`content` is set), or for its jobs, or for a picture to
    train a painter with (`lesson_name` is set, whatever else is).
    """

    content: ImageRef | None = None
    jobs: tuple[Painting, ...] = ()  # that are pending, in their order
    history: tuple[Painting, ...] = ()  # finished, failed and cancelled; the newest last
    photos: tuple[ImageRef, ...] = ()  # whose keyboards work; the newest last
    seen: tuple[int, ...] = ()  # the updates handled last. Their ids may restart, so no "<"
    reply: tuple[str, ...] = ()  # keys of the texts that answer the last update of `seen`
    about: str = ""  # the job whose buttons stand under that answer
    styles_job: str = ""  # the newest job of pictures as styles, which may take more of them
    album: str = ""  # the album that they came in
    pressed: str = ""  # the data of the button that was pressed last, until its job ends
    lesson_name: str | None = msgspec.field(name="lesson", default=None)  # the next picture's
    settings: Settings = Settings()
    left_out: Count = 0  # messages, which the same answer tells
    # The record before this one was put aside, and its jobs are not known. Until the next job.
    was_put_aside: bool = msgspec.field(name="put_aside", default=False)
    moved: Id | UnsetType = UNSET  # the group has a new number, and its state is there
    # The one job of a record before version 3: Store.load_chat makes `jobs` of it
    old_job: str | UnsetType | None = msgspec.field(name="job", default=UNSET)
    version: int = 3

    def owns(self, job_id: str) -> bool:
        return any(painting.job_id == job_id for painting in self.jobs)

    def find_painting(self, job_id: str) -> Painting | None:
        for painting in (*self.history, *self.jobs):
            if painting.job_id == job_id:
                return painting
        return None

    def find_photo(self, tag: str) -> ImageRef | None:
        """Return the photograph that a button names, if the chat still knows it."""
        known = [painting.request.content for painting in (*self.history, *self.jobs)]
        for photo in (*known, *self.photos):
            if photo.tag == tag:
                return photo
        return None

    def with_content(self, photo: ImageRef) -> Chat:
        """Let the chat wait for a style of this photograph."""
        others = [known for known in self.photos if known != photo]
        photos = (*others, photo)[-PHOTOS_KNOWN:]
        return replace(self, content=photo, photos=photos)

    def count_styles(self) -> int:
        """Return how many pictures are the styles of `styles_job`."""
        painting = self.find_painting(self.styles_job)
        return len(painting.request.style_pictures) if painting else 0

    def with_history(
        self, job_id: str, request: PaintRequest, kept: Iterable[KeptName] = ()
    ) -> Chat:
        history = (*self.history, Painting(job_id, request, tuple(kept)))
        return replace(self, history=history[-HISTORY_LENGTH:])

    def kept_keys(self) -> set[str]:
        """Return the keys below chats/results/ that the buttons need."""
        return set().union(*(painting.kept_keys() for painting in self.history))

    def without_jobs(self, given_up: Iterable[str]) -> Chat:
        """Give up the jobs with these ids."""
        ended = set(given_up)
        jobs = tuple(painting for painting in self.jobs if painting.job_id not in ended)
        return replace(self, jobs=jobs)

    def with_answer(
        self, update_id: int, reply: Iterable[str], left_out: int = 0, about: str = ""
    ) -> Chat:
        seen = (*self.seen, update_id)[-SEEN_UPDATES:]
        return replace(self, seen=seen, reply=tuple(reply), left_out=left_out, about=about)


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
    """An update that came from Telegram, until it is handled and confirmed."""

    id: int
    chat: int  # 0 where it belongs to no chat
    raw: TelegramUpdate
    left_out: int = 0  # messages of the same sender that the answer to this one tells of
    is_rest: bool = False  # it is the last of those, and does nothing else
    has_replaced: bool = False  # it is a /cancel, and others of the sender were waiting
    key: str = ""  # of the object that holds it too, so that it can be confirmed
    language: str = "en"
    received: float = field(default_factory=monotonic)
    retry: Retry = field(default_factory=Retry)
    error_code: ErrorCode | None = None  # set once it has failed for good
    is_served: bool = False  # a thread works at it; guarded by the dispatcher's lock


class JobRecord(Struct):
    """What is stored of a job, at jobs/<id>/job.json."""

    id: str  # of the update that asked for it
    chat: Id  # positive: a private chat
    user: Id
    thread: Id | None  # the topic of a group
    language: str
    request: PaintRequest
    style_label: str  # the style in the user's words
    step: Step = Step.SUBMIT
    created: float = msgspec.field(default_factory=time.time)  # for people; the clock may jump
    status_message: Id | None = None
    result_keys: ResultKeys | None = None  # set once the model has accepted the request
    sent: list[str] = []  # status, photo, document, reason; see send_once
    guest_query: str = ""  # to be answered, where the painting was asked for elsewhere
    guest_message: str = ""  # the answer, which shows the same: its inline_message_id
    file_id: str = ""  # of the picture, once it was sent
    age: Seconds = 0.0  # since the request until this was stored
    kept_of: str = ""  # the job whose kept file this one sends, or else paints anew
    kept_name: KeptName = KEPT_FILE  # of that file
    open_until: Seconds = 0.0  # the age until which more styles may come; it begins then
    version: int = 2


class PaintJob(JobRecord):
    """A painting that somebody waits for.

    Only the thread that serves the job's chat changes a job. The watcher alone sets `has_progress`
    and `has_answer`.
    """

    # Not stored
    retry: Retry = msgspec.field(default_factory=Retry)
    error_code: ErrorCode | None = None  # why it failed, where the bot found out by itself
    counted_from: float = msgspec.field(default_factory=monotonic)  # when it was `age` old
    last_look: float = msgspec.field(default_factory=monotonic)
    has_progress: bool = False  # the model has written progress.json
    has_answer: bool = False  # the model's answer is in S3
    is_queued: bool = False  # another one of its chat comes first
    is_released: bool = False  # its chat does not own it any more
    seconds_left: float | None = None  # as the model told last
    is_cancelled: bool = False  # the model can see that
    is_taken: bool = False  # its user wants the best picture so far
    status_text: str = ""  # of the status message as it is shown
    preview: bytes = b""  # that was shown last
    is_photo: bool = False  # the status message is one, since a preview was shown
    refusal: str = ""  # what Telegram said when it last refused the picture

    def wait_for_styles(self, album: str) -> None:
        """Let more styles come for a while. album: that the last one came in, or ""."""
        self.open_until = age_of(self) + (ALBUM_SECONDS if album else STYLE_SECONDS)

    @property
    def owner(self) -> str:
        """Return what the data of its buttons ends with."""
        return owner_suffix(self.chat, self.user)

    @property
    def is_answered(self) -> bool:
        """Whether its chat has been sent the picture, or the reason why there is none."""
        return not {*SEND_METHODS, "reason"}.isdisjoint(self.sent)

    def key(self, name: str) -> str:
        return f"{JOBS_PREFIX}{self.id}/{name}"

    @classmethod
    def from_record(cls, record: JobRecord) -> PaintJob:
        return cls(**msgspec.structs.asdict(record))


class ModelAnswer(Struct):
    """What a model says about the picture that it has written."""

    size: tuple[Annotated[int, Meta(ge=1)], Annotated[int, Meta(ge=1)]] | None = None
    seconds: Seconds | None = None
    notes: list[str] | None = None
    styles: list[str] | None = None  # of a new catalog


class Progress(Struct):
    """How far a model is, stored at jobs/<id>/progress.json."""

    steps: Seconds = 0
    step: Seconds = 0
    done: Seconds | None = None  # the share of the work, where it is not that of the steps
    seconds_left: Seconds | None = None
    preview: bytes | None = None  # a JPEG, in base64

    @property
    def share(self) -> float:
        """Return how much of the work is done, 0 to 1, as `seconds_left` counts it."""
        share = self.step / self.steps if self.done is None else self.done
        return min(1.0, share)


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


class LessonRecord(Struct):
    """What is stored of a painter's training, until its end is told: training/lessons/<id>.json."""

    id: str  # of the update that asked for it
    chat: Id
    thread: Id | None
    language: str
    name: Annotated[str, Meta(pattern=rf"^{PAINTER_PATTERN}\Z")]  # of the painter
    picture: ImageRef
    step: LessonStep = LessonStep.SUBMIT
    created: float = msgspec.field(default_factory=time.time)  # for people; the clock may jump
    training_job: str = ""  # its name; "" until it is known
    status_message: Id | None = None
    result_keys: ResultKeys | None = None  # of the request for a new catalog
    age: Seconds = 0.0  # since the request until this was stored
    version: int = 1


class Lesson(LessonRecord):
    """The training of a painter.

    A chat does not own its lessons: it goes on painting beside them. Only the thread that serves
    the chat changes a lesson.
    """

    # Not stored
    retry: Retry = msgspec.field(default_factory=Retry)
    error_code: ErrorCode | None = None
    counted_from: float = msgspec.field(default_factory=monotonic)  # when it was `age` old
    last_look: float = 0.0  # of time.monotonic()
    status_text: str = ""

    @property
    def key(self) -> str:
        return f"{LESSONS_PREFIX}{self.id}.json"

    def training_key(self, name: str) -> str:
        """Return the key of one of the files of its training job."""
        return f"{TRAINING_PREFIX}{self.training_job}/{name}"

    @classmethod
    def from_record(cls, record: LessonRecord) -> Lesson:
        return cls(**msgspec.structs.asdict(record))


def age_of(task: PaintJob | Lesson) -> float:
    """Return how long ago it was asked for, in seconds, whatever the wall clock does."""
    return task.age + time.monotonic() - task.counted_from


def record_of(task: PaintJob | Lesson) -> dict[str, Json]:
    """Return what is stored of a job or a lesson, with its age of now."""
    task.age = age_of(task)
    task.counted_from = time.monotonic()
    kind = JobRecord if isinstance(task, PaintJob) else LessonRecord
    return {name: getattr(task, name) for name in kind.__struct_fields__}


class Admin(Struct, frozen=True):
    """What the bot knows of an admin, in the object at ADMINS_KEY, by the admin's number."""

    language: str = "en"
    alarms: tuple[str, ...] = ()  # the names of those that the admin knows to be on


class TrainingTemplate(Struct):
    """What all training jobs have in common, at models/training.json."""

    version: Annotated[int, Meta(ge=1, le=1)]
    arguments: dict[str, Json]  # of CreateTrainingJob
    name_prefix: str = ""


class CatalogEntry(Struct):
    name: Annotated[str, Meta(pattern=rf"(?a)^{STYLE_NAME_PATTERN}\Z")]
    label: Annotated[str, Meta(max_length=64)] = ""


class Catalog(Struct):
    """The styles on offer, which the cyclegan model writes to models/catalog.json."""

    version: Annotated[int, Meta(ge=1, le=1)]
    styles: Annotated[list[CatalogEntry], Meta(min_length=1, max_length=CATALOG_STYLES)]
    # The path of a picture of all styles, from the catalog's folder and below it
    sheet: Annotated[str, Meta(pattern=r"(?a)^(?!/)(?!.*\.\.)[\w./-]*\Z")] | None = None


@dataclass(frozen=True)
class Styles:
    """The styles on offer."""

    labels: Mapping[str, str]  # names, and how the keyboard shows them, in its order
    sheet: str = ""  # the key of a picture that shows all styles; "": there is none
    etag: str = ""  # of the catalog

    @classmethod
    def from_catalog(cls, catalog: Catalog, etag: str) -> Styles:
        """Return the styles of a catalog. Raises MisfitError where a name is there twice."""
        labels = {}
        for entry in catalog.styles:
            labels[entry.name] = entry.label.strip() or entry.name.title()
        if len(labels) < len(catalog.styles):
            raise MisfitError("a style is there twice")
        return cls(labels, MODELS_PREFIX + catalog.sheet if catalog.sheet else "", etag)


OFFICIAL_STYLES = Styles(STYLES_SHOWN)


# ---------------------------------------------------------------- Telegram


class TelegramUser(Struct, omit_defaults=True):
    id: Id
    language_code: str | None = None
    is_bot: bool = False


class TelegramChat(Struct):
    id: Id  # positive: a private chat; negative: a group or a channel


class TelegramFile(Struct, omit_defaults=True):
    """A document, or one size of a photo."""

    file_id: FileId
    width: Count = 0
    height: Count = 0
    file_size: Count | None = None
    mime_type: str | None = None
    file_name: str = ""


class Attachments(Struct, omit_defaults=True, kw_only=True):
    """The files of a message."""

    photo: list[TelegramFile] = []
    document: TelegramFile | None = None
    animation: Json = UNSET
    has_media_spoiler: bool = False


class RepliedMessage(Attachments, omit_defaults=True, kw_only=True):
    """The message that another one replies to."""

    message_id: Id = 0
    sender: TelegramUser | None = msgspec.field(name="from", default=None)


class Message(Attachments, omit_defaults=True):
    """A message that somebody wrote, or under which a button stands."""

    chat: TelegramChat
    sender: TelegramUser | None = msgspec.field(name="from", default=None)
    message_id: Id = 0
    # Who writes in the name of a group or a channel. `sender` is then a bot that stands for it.
    sender_chat: TelegramChat | None = None
    is_automatic_forward: bool = False  # a channel's post, in the group where it is discussed
    message_thread_id: Id | None = None
    is_topic_message: bool = False
    media_group_id: str = ""  # all pictures of an album have the same
    text: str = ""
    caption: str = ""
    reply_to_message: RepliedMessage | None = None
    external_reply: Attachments | None = None  # it replies to a message of another chat or topic
    guest_query_id: str = ""  # of a guest's message; answers it, once
    # What Telegram itself tells in a private chat: nobody has said anything
    pinned_message: Json = UNSET
    message_auto_delete_timer_changed: Json = UNSET
    write_access_allowed: Json = UNSET
    chat_background_set: Json = UNSET
    forum_topic_created: Json = UNSET
    forum_topic_edited: Json = UNSET
    forum_topic_closed: Json = UNSET
    forum_topic_reopened: Json = UNSET

    @property
    def is_service(self) -> bool:
        told = (
            self.pinned_message,
            self.message_auto_delete_timer_changed,
            self.write_access_allowed,
            self.chat_background_set,
            self.forum_topic_created,
            self.forum_topic_edited,
            self.forum_topic_closed,
            self.forum_topic_reopened,
        )
        return any(fact is not UNSET for fact in told)


class CallbackQuery(Struct, omit_defaults=True):
    """A button that was pressed."""

    id: str
    sender: TelegramUser = msgspec.field(name="from")
    message: Message | None = None
    data: str = ""


class UpdateId(Struct):
    update_id: Annotated[int, Meta(ge=1, le=2**53)]


class TelegramUpdate(UpdateId, omit_defaults=True):
    message: Message | None = None
    callback_query: CallbackQuery | None = None
    # A mention of the bot in a chat that it is no member of: https://core.telegram.org/bots/api
    guest_message: Message | None = None


class StoredUpdate(TelegramUpdate, omit_defaults=True):
    """An update that waits in S3, in a list at updates/<number>.json."""

    left_out: Count = 0


class BotUser(Struct):
    """The result of getMe."""

    id: Id = 0
    username: str = ""
    supports_guest_queries: bool = False


class FilePath(Struct):
    """The result of getFile."""

    file_path: str


class SentMessage(Struct):
    """The result of a method that sends something."""

    message_id: Id | None = None
    photo: list[TelegramFile] = []
    document: TelegramFile | None = None

    @property
    def file_id(self) -> str:
        """Return what stands for its picture, or "" where it has none."""
        if self.photo:
            return self.photo[-1].file_id
        return self.document.file_id if self.document else ""


class SentGuestMessage(Struct):
    """The result of answerGuestQuery."""

    inline_message_id: str


class ResponseParameters(Struct):
    retry_after: Annotated[float, Meta(ge=0)] = 0.0
    migrate_to_chat_id: Id | None = None


class Answer(Struct):
    """What every call of the Bot API answers."""

    ok: bool
    result: Raw = Raw(b"null")
    error_code: int = 0
    description: str = ""
    parameters: Raw = Raw(b"{}")


# The results that somebody reads. A message is sent even if what Telegram says about it is odd.
RESULTS: dict[str, Any] = {
    "answerGuestQuery": SentGuestMessage,
    "getMe": BotUser,
    "getFile": FilePath,
    "getUpdates": list[Raw],
}
SEND_RESULTS = ("sendMessage", *SEND_METHODS.values())


def read_result(method: str, result: Raw) -> Json:
    """Return the result of a method as a type of ours; None where nobody reads it.

    Raises MisfitError.
    """
    if method in RESULTS:
        return decode(result, RESULTS[method])
    if method not in SEND_RESULTS:
        return None
    try:
        return decode(result, SentMessage)
    except MisfitError as error:
        log.warning("%s: its result is odd: %s", method, error)
        return SentMessage()


class TelegramError(Exception):
    """Telegram refused a call, with its error code.

    Code 0: no complete answer came, or none of Telegram's.
    """

    def __init__(
        self, method: str, code: int, description: str, parameters: Raw | None = None
    ) -> None:
        super().__init__(f"{method}: {code} {description}")
        self.method = method
        self.code = code
        self.description = description
        known = ResponseParameters()
        with contextlib.suppress(MisfitError):
            known = decode(parameters or b"{}", ResponseParameters)
        self.retry_after = min(known.retry_after, MAX_RETRY_AFTER_SECONDS)
        self.new_chat = known.migrate_to_chat_id


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
            with self._session().post(
                url, timeout=(10, read_timeout), stream=True, **body
            ) as response:
                answer = decode(read_body(response, MAX_ANSWER_BYTES), Answer)
            if answer.ok:
                return read_result(method, answer.result)
        except (requests.RequestException, MisfitError) as error:
            # The words of requests' errors may show the token.
            detail = error if isinstance(error, MisfitError) else type(error).__name__
            raise TelegramError(method, 0, f"no whole answer ({detail})") from None
        description = answer.description[:MAX_DESCRIPTION_LENGTH]
        raise TelegramError(method, answer.error_code, description, answer.parameters)

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
            if error.new_chat == chat:
                error.new_chat = None
            topic_is_gone = thread and error.code == 400 and "thread" in error.description
            if not topic_is_gone:
                raise
        return self.call(method, chat_id=chat, **values)

    def download(self, file_id: str) -> bytes:
        """Return a file of at most MAX_FILE_BYTES. Raises TelegramError."""
        return self._download(file_id, lambda response: read_body(response, MAX_FILE_BYTES))

    def download_head(self, file_id: str) -> bytes:
        """Return the first HEAD_BYTES of a file, or a little more. Raises TelegramError."""
        return self._download(file_id, read_head)

    def _download(self, file_id: str, read: Callable[[requests.Response], bytes]) -> bytes:
        path = self.call("getFile", file_id=file_id).file_path
        try:
            url = f"{self._files}/{path}"
            with self._session().get(url, timeout=(10, 30), stream=True) as response:
                response.raise_for_status()
                return read(response)
        except MisfitError:
            raise TelegramError("getFile", 400, "the file is too big") from None
        except requests.RequestException as error:
            raise TelegramError("download", 0, type(error).__name__) from None


def read_body(response: requests.Response, limit: int) -> bytes:
    """Return the body of a response, of at most `limit` bytes. Raises MisfitError."""
    data = b""
    for chunk in response.iter_content(2**20):
        data += chunk
        if len(data) > limit:
            raise MisfitError("it is too large")
    return data


def read_head(response: requests.Response) -> bytes:
    data = b""
    for chunk in response.iter_content(2**16):
        data += chunk
        if len(data) >= HEAD_BYTES:
            break
    return data


def encode_form_value(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def owner_suffix(chat: int, user: int) -> str:
    """Return what the data of a user's buttons ends with; "" in a private chat. See owner_of."""
    return f"@{user}" if chat < 0 else ""


def keyboard(rows: list[list[tuple[str, str]]], owner: str = "") -> Json:
    """Return an inline keyboard of buttons, each a label and its callback data.

    Empty rows are left out.
    """
    buttons = []
    for row in rows:
        if row:
            buttons.append([make_button(label, data, owner) for label, data in row])
    return {"inline_keyboard": buttons}


def make_button(label: str, data: str, owner: str) -> Json:
    """Return a button. Where the name of a painter leaves no room for its owner, it has none."""
    if len(data) + len(owner) > CALLBACK_MAX_LENGTH:
        owner = ""
    return {"text": label, "callback_data": data + owner}


# ---------------------------------------------------------------- S3


class StoredChat(NamedTuple):
    """A chat as it was read."""

    number: int  # another one than was asked for where a group has moved
    chat: Chat
    etag: str  # "" where there is no object yet
    user: int = 0  # whose state it is, in a group


PUT_ASIDE = Chat(was_put_aside=True)


class Store:
    """The bot's objects in S3. Every method may raise one of S3_ERRORS."""

    def __init__(self, s3: Any, bucket: str, metrics: Metrics | None = None) -> None:  # noqa: ANN401 - boto3 makes its clients' classes at run time
        self._s3 = s3
        self.bucket = bucket
        self._metrics = metrics or Metrics()

    def url(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"

    def get(self, key: str, limit: int = MAX_PICTURE_BYTES) -> tuple[bytes, str]:
        """Return at most `limit` bytes of an object, and its ETag. No object: (b"", "")."""
        try:
            found = self._s3.get_object(Bucket=self.bucket, Key=key)
        except self._s3.exceptions.NoSuchKey:
            return b"", ""
        return found["Body"].read(limit), found["ETag"]

    def read(self, key: str, kind: type[T], instead: T | None = None) -> tuple[T | None, str]:
        """Return the value of a JSON object and its ETag, or (None, "") where there is none.

        What does not fit is put aside, and `instead` takes its place.
        """
        data, etag = self.get(key, MAX_RECORD_BYTES)
        if not etag:
            return None, ""
        try:
            return decode(data, kind), etag
        except MisfitError as error:
            return instead, self.put_aside(key, etag, error, instead)

    def put_aside(self, key: str, etag: str, reason: object, instead: Json = None) -> str:
        """Move an object to quarantine/, unless it has changed.

        `instead` takes its place; returns its ETag, or "".
        """
        aside = f"{QUARANTINE_PREFIX}{key}.{etag.strip(chr(34))}"
        source = {"Bucket": self.bucket, "Key": key}
        self._s3.copy_object(
            Bucket=self.bucket, Key=aside, CopySource=source, CopySourceIfMatch=etag
        )
        log.warning("%s is put aside as %s: %s", key, aside, reason)
        self._metrics.add("put_aside")
        if instead is not None:
            return self.replace_json(key, instead, etag)
        self._s3.delete_object(Bucket=self.bucket, Key=key, IfMatch=etag)
        return ""

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
        return found["Body"].read(MAX_PICTURE_BYTES), found["ETag"]

    def put(self, key: str, data: bytes) -> None:
        self._s3.put_object(Bucket=self.bucket, Key=key, Body=data)

    def put_json(self, key: str, value: Json) -> None:
        self.put(key, msgspec.json.encode(value))

    def replace_json(self, key: str, value: Json, etag: str) -> str:
        """Replace the version with this ETag ("": create the object). Returns the new one's.

        Raises ClientError PreconditionFailed.
        """
        condition = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
        body = msgspec.json.encode(value)
        answer = self._s3.put_object(Bucket=self.bucket, Key=key, Body=body, **condition)
        new_etag: str = answer["ETag"]
        return new_etag

    def list_page(
        self, prefix: str, start_after: str = ""
    ) -> tuple[list[dict[str, Json]], str, datetime]:
        """Return up to 1000 objects, the key after which the next page begins ("": none), and when.

        The time is S3's own: the clock of this machine may jump.
        """
        page = self._s3.list_objects_v2(Bucket=self.bucket, Prefix=prefix, StartAfter=start_after)
        items = page.get("Contents", [])
        return items, items[-1]["Key"] if page["IsTruncated"] else "", time_of(page)

    def delete(self, keys: Iterable[str]) -> None:
        objects = [{"Key": key} for key in keys]
        if objects:
            self._s3.delete_objects(Bucket=self.bucket, Delete={"Objects": objects, "Quiet": True})

    def load_chat(self, number: int, user: int = 0) -> StoredChat:
        """Return the chat's state; in a group, that of its member `user`.

        A group that has moved is followed to its new number.
        """
        passed = {number}
        chat, etag = self.read_chat(number, user)
        while chat and chat.moved is not UNSET:
            if chat.moved in passed or len(passed) > MAX_MOVES:
                key = chat_key(number, user)
                etag = self.put_aside(key, etag, "it leads to no chat", PUT_ASIDE)
                return StoredChat(number, PUT_ASIDE, etag, user)
            number = chat.moved
            passed.add(number)
            chat, etag = self.read_chat(number, user)
        return StoredChat(number, self.upgrade(chat or Chat()), etag, user)

    def read_chat(self, number: int, user: int) -> tuple[Chat | None, str]:
        """Return what is stored of a chat or of a group's member, and its ETag ("": nothing)."""
        chat, etag = self.read(chat_key(number, user), Chat, PUT_ASIDE)
        if chat is None and number < 0:
            chat = self.read_shared_chat(number, user)
        return chat, etag

    def read_shared_chat(self, group: int, user: int) -> Chat | None:
        """Return what a member takes over from the one state that a group had before.

        Everybody takes over the buttons, and each member the jobs that they asked for.
        """
        shared, _ = self.read(f"{CHATS_PREFIX}{group}.json", Chat)
        if shared is None or shared.moved is not UNSET:
            return shared
        shared = self.upgrade(shared)
        jobs = []
        for painting in shared.jobs:
            job = self.load_job(painting.job_id)
            if job and job.user == user:
                jobs.append(painting)
        return Chat(
            jobs=tuple(jobs), history=shared.history, photos=shared.photos, seen=shared.seen
        )

    def upgrade(self, chat: Chat) -> Chat:
        """Return the chat of a record before version 3 as one of today."""
        if chat.old_job is UNSET:
            return chat
        job = self.load_job(chat.old_job) if chat.old_job else None
        jobs = (Painting(job.id, job.request),) if job else ()
        photos = (chat.content,) if chat.content else ()
        return replace(chat, jobs=jobs, photos=photos, old_job=UNSET, version=3)

    def save_chat(self, stored: StoredChat, chat: Chat) -> None:
        """Replace the state that was read.

        What was kept for the buttons of a result goes before the result itself: so nothing is left
        behind, and without it the button paints anew.
        Raises ClientError PreconditionFailed if it has changed since.
        """
        self.delete(sorted(stored.chat.kept_keys() - chat.kept_keys()))
        self.replace_json(chat_key(stored.number, stored.user), chat, stored.etag)

    def move_group(self, old: int, new: int) -> None:
        """Take the states of a group's members along to its new number."""
        prefix = f"{CHATS_PREFIX}{old}/"
        cursor = prefix
        while cursor:
            items, cursor, _ = self.list_page(prefix, cursor)
            for item in items:
                user = item["Key"].removeprefix(prefix).removesuffix(".json")
                if re.fullmatch(r"-?[0-9]+", user):  # else somebody else has put it there
                    self.move_member(old, new, int(user))

    def move_member(self, old: int, new: int, user: int) -> None:
        self.put_json(chat_key(new, user), self.load_chat(old, user).chat)
        self.put_json(chat_key(old, user), {"moved": new})

    def release_job(
        self,
        number: int,
        user: int,
        job_id: str | None,
        keep: PaintRequest | None,
        kept: Iterable[KeptName] = (),
    ) -> None:
        """Let the chat give up this job (None: all that it has).

        `keep` goes into its history, for the buttons, with the names of what is kept for them.
        """
        stored = self.load_chat(number, user)
        owned = [painting.job_id for painting in stored.chat.jobs]
        if job_id is not None:
            owned = [job_id] if job_id in owned else []
        if not owned:
            return
        # Whoever presses the same button now wants it once more.
        chat = replace(stored.chat.without_jobs(owned), pressed="")
        if keep:
            chat = chat.with_history(owned[0], keep, kept)
        self.save_chat(stored, chat)

    def load_job(self, job_id: str) -> PaintJob | None:
        """Return the job, or None where its record is missing or cannot be read."""
        record = self.load_record(f"{JOBS_PREFIX}{job_id}/job.json", job_id, JobRecord)
        return PaintJob.from_record(record) if record else None

    def load_record(self, key: str, task_id: str, kind: type[Record]) -> Record | None:
        """Return the record of a job or a lesson, with its age of now.

        None: it is missing, or cannot be read.
        """
        record, etag = self.read(key, kind)
        if record is None:
            return None
        if record.id != task_id:
            self.put_aside(key, etag, "it has the id of another one")
            return None
        record.age += self.seconds_since_write(key)
        return record

    def seconds_since_write(self, key: str) -> float:
        """Return how long ago an object was written, by S3's own clock."""
        answer = self._s3.head_object(Bucket=self.bucket, Key=key)
        seconds: float = (time_of(answer) - answer["LastModified"]).total_seconds()
        return max(0.0, seconds)

    def save_job(self, job: PaintJob) -> None:
        self.put_json(job.key("job.json"), record_of(job))

    def load_lesson(self, lesson_id: str) -> Lesson | None:
        """Return the lesson, or None where its record is missing or cannot be read."""
        record = self.load_record(f"{LESSONS_PREFIX}{lesson_id}.json", lesson_id, LessonRecord)
        return Lesson.from_record(record) if record else None

    def save_lesson(self, lesson: Lesson) -> None:
        self.put_json(lesson.key, record_of(lesson))

    def delete_job_objects(self, job_id: str, *more: str, keep: Iterable[str] = ()) -> None:
        """Delete all objects of a job, except those with the names of `keep`, and `more` keys."""
        folder = f"{JOBS_PREFIX}{job_id}/"
        kept = {folder + name for name in keep}
        items, _, _ = self.list_page(folder)
        keys = {item["Key"] for item in items} - kept
        self.delete([*sorted(keys), *more])

    def keep_results(self, job_id: str) -> list[KeptName]:
        """Copy what the buttons need from the job to chats/results/. Returns the names.

        It is all right to do it again. Where the bot may not write there, nothing is kept.
        """
        folder = f"{JOBS_PREFIX}{job_id}/"
        items, _, _ = self.list_page(folder)
        names = {item["Key"].removeprefix(folder) for item in items}
        found = [name for name in KEPT_NAMES if name in names]
        for name in found:
            source = {"Bucket": self.bucket, "Key": folder + name}
            key = kept_key(job_id, name)
            try:
                self._s3.copy_object(Bucket=self.bucket, Key=key, CopySource=source)
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] != 403:
                    raise
                log.warning("%s is not kept: %s", key, error)
                return []
        return found

    def count_today(self, user: int) -> int:
        """Return how many paintings the user has had today (UTC)."""
        days, _ = self.read(user_key(user), dict[str, list[str]])
        return len((days or {}).get(today(), []))

    def count_painting(self, user: int, job_id: str) -> None:
        """Count the job among the user's paintings of today, once."""
        days, etag = self.read(user_key(user), dict[str, list[str]])
        jobs = (days or {}).get(today(), [])
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
            self._catalog = Styles.from_catalog(decode(data, Catalog), self._etag)
        except MisfitError as error:
            log.warning("%s is ignored: %s; the styles stay as they are", CATALOG_KEY, error)


def kept_key(job_id: str, name: KeptName) -> str:
    return f"{RESULTS_PREFIX}{job_id}/{name}"


def chat_key(number: int, user: int) -> str:
    """Return where the state of a chat is kept. In a group each member has one of its own."""
    if number < 0:
        return f"{CHATS_PREFIX}{number}/{user}.json"
    return f"{CHATS_PREFIX}{number}.json"


def user_key(user: int) -> str:
    return f"{CHATS_PREFIX}user-{user}.json"


def today() -> str:
    return time.strftime("%Y-%m-%d", time.gmtime())


def time_of(answer: Mapping[str, Json]) -> datetime:
    """Return when S3 gave this answer, by its own clock."""
    date = answer["ResponseMetadata"].get("HTTPHeaders", {}).get("date")
    return parsedate_to_datetime(date) if date else datetime.now(timezone.utc)


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
        items, self._cursor, now = self._store.list_page(ASYNC_PREFIX, self._cursor)
        with self._lock:
            self._answers.update(item["Key"] for item in items)
        oldest = now - timedelta(days=ANSWER_DAYS)
        self._store.delete(item["Key"] for item in items if item["LastModified"] < oldest)

    def has_answered(self, keys: ResultKeys | None) -> bool:
        with self._lock:
            return keys is not None and not self._answers.isdisjoint(keys)

    def has_output(self, keys: ResultKeys) -> bool:
        with self._lock:
            return keys.output in self._answers

    def forget(self, keys: ResultKeys | None) -> None:
        with self._lock:
            self._answers.difference_update(keys or ())

    def read_output(self, keys: ResultKeys) -> ModelAnswer:
        """Return what the model says about its picture."""
        answer, _ = self._store.read(keys.output, ModelAnswer)
        return answer or ModelAnswer()

    def read_failure(self, keys: ResultKeys) -> Failure:
        """Return why the model failed. SageMaker may have quoted the model's JSON, once or more."""
        data, _ = self._store.get(keys.failure, MAX_RECORD_BYTES)
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

    def read_template(self) -> TrainingTemplate | None:
        """Return the template, or None where no painter can be trained. Raises S3_ERRORS."""
        data, etag = self._store.get(TRAINING_TEMPLATE_KEY, MAX_RECORD_BYTES)
        if not etag:
            return None
        try:
            return decode(data, TrainingTemplate)
        except MisfitError as error:
            log.warning("%s is ignored: %s", TRAINING_TEMPLATE_KEY, error)
        return None

    def create(self, lesson: Lesson, template: TrainingTemplate) -> None:
        """Start the lesson's training job, unless it has been started. Raises S3_ERRORS."""
        own = training_arguments(
            self._store.bucket,
            lesson.training_job,
            lesson.training_key(""),
            lesson.name,
            ["style"],
        )
        arguments = {**template.arguments, **own}
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


def training_arguments(
    bucket: str, job: str, folder: str, painter: str, channels: Iterable[str]
) -> dict[str, Json]:
    """Return the arguments of CreateTrainingJob that depend on the painter.

    `folder` in the bucket has the inputs, a folder for each channel, and gets checkpoints and
    progress. It ends with a slash.
    """
    url = f"s3://{bucket}/{folder}"
    inputs = []
    for channel in channels:
        source = {
            "S3DataType": "S3Prefix",
            "S3Uri": f"{url}{channel}/",
            "S3DataDistributionType": "FullyReplicated",
        }
        inputs.append({"ChannelName": channel, "DataSource": {"S3DataSource": source}})
    return {
        "TrainingJobName": job,
        "HyperParameters": {
            "name": painter,
            "models_url": f"s3://{bucket}/{MODELS_PREFIX}",
            "progress_url": f"{url}progress.json",
        },
        "InputDataConfig": inputs,
        "OutputDataConfig": {"S3OutputPath": f"s3://{bucket}/{TRAINING_PREFIX}"},
        "CheckpointConfig": {"S3Uri": f"{url}checkpoints/"},
    }


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


class Paint(NamedTuple):
    """The command /paint, or a mention of the bot: to paint a picture there and then."""

    painter: str  # in the user's words; "": the user is asked
    picture: ImageRef | Rejected | None


class Words(NamedTuple):
    """Text that is no command."""

    words: str

    @property
    def is_greeting(self) -> bool:
        return self.words.lower().strip(" !.,)") in GREETINGS


class Rejected(NamedTuple):
    """Content that cannot be painted, and what we know of it."""

    reason: str  # the key of a text
    file_name: str = ""
    width: int = 0
    height: int = 0
    byte_count: int = 0

    def describe(self, language: str) -> dict[str, str | int]:
        """Return the values for the text of the reason."""
        name = translate(language, "this_file" if self.byte_count else "this_picture")
        return {
            "picture": self.file_name or name,
            "width": self.width,
            "height": self.height,
            "megapixels": round(self.width * self.height / 1_000_000),
            "megabytes": round(self.byte_count / 2**20),
        }


class Button(NamedTuple):
    """A button pressed. Its callback data is "verb:argument"."""

    verb: str
    # "style" and "photograph" joined by a colon, or the id of the job under whose message it stands
    argument: str

    @property
    def data(self) -> str:
        return f"{self.verb}:{self.argument}"


Event = Command | Teach | Paint | Words | ImageRef | Rejected | Button


@dataclass(frozen=True)
class Incoming:
    """What an update says, and who says it."""

    user: int  # in a group, a negative number stands for a group or a channel that writes
    thread: int | None
    language: str
    event: Event
    group_message: int = 0  # in a group, the number of the message to answer to
    album: str = ""  # which the picture is from
    pressed_message: int = 0  # the number of the message whose button was pressed
    pressed_photo: str = ""  # the file_id of the photo in it
    guest_query: str = ""  # answers a mention in a chat that the bot is no member of

    @property
    def is_group(self) -> bool:
        return self.group_message != 0


@dataclass(frozen=True)
class Decision:
    """A chat's new state, the keys of the texts to answer with, and what to paint or to train."""

    chat: Chat
    reply: tuple[str, ...] = ()
    request: PaintRequest | None = None
    lesson: LessonRequest | None = None
    stop_lesson: str = ""  # the id of a lesson to stop
    about: str = ""  # the id of the job whose buttons stand under the answer
    change: Painting | None = None  # a job that has not begun, and what it shall paint instead
    kept_of: str = ""  # the job whose kept file is sent instead of `request`, if it is there
    kept_name: KeptName = KEPT_FILE  # of that file
    take_job: str = ""  # the id of a job that shall end with its best picture so far
    begin_job: str = ""  # the id of a job that shall wait for no more styles


def chat_of(raw: TelegramUpdate) -> int:
    """Return the number of the chat that an update belongs to, or 0."""
    if raw.guest_message:  # what a guest asks for is done in a private chat
        return max(0, author_of(raw.guest_message))
    message = raw.callback_query.message if raw.callback_query else raw.message
    return message.chat.id if message else 0


def sender_of(raw: TelegramUpdate) -> tuple[int, int]:
    """Return the numbers of the chat and of the user; 0 for one that there is not."""
    if raw.callback_query:
        return chat_of(raw), raw.callback_query.sender.id
    message = raw.message or raw.guest_message
    return chat_of(raw), author_of(message) if message else 0


def author_of(message: Message) -> int:
    """Return the number of who wrote a message: of a user, a group or a channel; 0: of nobody.

    A bot that writes in its own name is nobody, so that no two bots answer each other for ever.
    """
    if message.is_automatic_forward:
        return 0
    if message.sender_chat:
        return message.sender_chat.id
    if message.sender is None or message.sender.is_bot:
        return 0
    return message.sender.id


def language_of(user: TelegramUser) -> str:
    return "ru" if (user.language_code or "").lower().startswith("ru") else "en"


def owner_of(query: CallbackQuery) -> int:
    """Return the number of the one whose button was pressed; 0: of nobody who may press it.

    What a group or a channel has asked for anybody may press: the one who presses is a user.
    """
    _, _, owner = query.data.partition("@")
    if not re.fullmatch(r"-?[0-9]{1,16}", owner):
        return query.sender.id
    is_foreign = int(owner) > 0 and int(owner) != query.sender.id
    return 0 if is_foreign else int(owner)


def without_words(raw: TelegramUpdate, styles: Styles, me: BotUser) -> TelegramUpdate:
    """Return an update to be stored: the text is a command, a painter or a greeting, or else gone.

    To handle it is the same.
    """
    if raw.guest_message:
        message = without_names(raw.guest_message)
        incoming = read_guest_message(message)
        painter = find_painter(incoming.event, styles) if incoming else ""
        return replace(raw, guest_message=replace(message, text=painter, caption=""))
    query = raw.callback_query
    if query and query.message:
        return replace(raw, callback_query=replace(query, message=without_names(query.message)))
    if raw.message is None:
        return raw
    message = without_names(raw.message)
    event = read_message(message, me)
    if isinstance(event, Paint):
        text = f"/paint {find_painter(event, styles)}"
        return replace(raw, message=replace(message, text=text, caption=""))
    words = message.text.strip()
    labels = {label.lower() for label in styles.labels.values()}
    if words.lower() not in labels and not Words(words).is_greeting:
        words = first_words(words) or ("..." if words else "")
    caption = message.caption.strip()
    if read_weight(caption) is None:
        caption = first_words(caption)
    message = replace(message, text=words, caption=caption)
    return replace(raw, message=message)


def without_names(message: Message) -> Message:
    """Return a message without the names of its files and of those that it replies to."""
    reply = message.reply_to_message
    if reply:
        reply = replace(reply, document=without_name(reply.document))
    external = message.external_reply
    if external:
        external = replace(external, document=without_name(external.document))
    document = without_name(message.document)
    return replace(message, document=document, reply_to_message=reply, external_reply=external)


def without_name(document: TelegramFile | None) -> TelegramFile | None:
    return replace(document, file_name="") if document else None


def find_painter(event: Event, styles: Styles) -> str:
    """Return the name of the painter, "" for none, "-" for one that there is not."""
    if not isinstance(event, Paint) or not event.painter:
        return ""
    return find_style(event.painter, styles) or "-"


def first_words(text: str) -> str:
    """Return a command and its argument, or "" for other text."""
    return " ".join(text.split()[:2]) if text.startswith("/") else ""


def album_of(update: Update) -> str:
    """Return what the pictures of an album have in common, or "" for all other updates."""
    message = update.raw.message
    return message.media_group_id if message else ""


def count_sendings(updates: Iterable[Update], latest: Update) -> int:
    """Return how often somebody has sent something. An album counts once, that of `latest` not."""
    sendings = {album_of(update) or str(update.id) for update in updates}
    return len(sendings - {album_of(latest)})


def is_cancel(incoming: Incoming | None) -> bool:
    event = incoming.event if incoming else None
    return event == Command("cancel") or (isinstance(event, Button) and event.verb == "cancel")


def read_update(raw: TelegramUpdate, me: BotUser) -> Incoming | None:
    """Return what an update says, or None if it is not meant for this bot."""
    if raw.guest_message:
        return read_guest_message(raw.guest_message)
    if raw.callback_query:
        return read_press(raw.callback_query)
    if raw.message:
        return read_sent(raw.message, me)
    return None


def read_press(query: CallbackQuery) -> Incoming | None:
    """Return what the press of a button says, or None if it is somebody else's button."""
    message = query.message
    user = owner_of(query)
    if message is None or not user:
        return None
    data, _, _ = query.data.partition("@")
    verb, _, argument = data.partition(":")
    return Incoming(
        user=user,
        thread=thread_of(message),
        language=language_of(query.sender),
        event=Button(verb, argument),
        group_message=group_message_of(message),
        pressed_message=message.message_id,
        pressed_photo=message.photo[-1].file_id if message.photo else "",
    )


def read_sent(message: Message, me: BotUser) -> Incoming | None:
    """Return what a message says, or None where it is nobody's, or not said to this bot."""
    user = author_of(message)
    if not user or message.sender is None:
        return None
    event = read_message(message, me)
    if event is None:
        return None
    return Incoming(
        user=user,
        thread=thread_of(message),
        language=language_of(message.sender),
        event=event,
        group_message=group_message_of(message),
        album=message.media_group_id,
    )


def thread_of(message: Message) -> int | None:
    """Return the topic of a message. In groups without topics the number means something else."""
    if message.chat.id < 0 and not message.is_topic_message:
        return None
    return message.message_thread_id


def group_message_of(message: Message) -> int:
    """Return the number of the message to answer to: in a group its own, else 0."""
    return message.message_id if message.chat.id < 0 else 0


def read_guest_message(message: Message) -> Incoming | None:
    """Return what a mention says in a chat that the bot is no member of.

    None: it is written in the name of a group or a channel, which has no private chat with the bot.
    """
    user = author_of(message)
    if message.sender is None or user <= 0:
        return None
    sender = message.sender
    painter = re.sub(r"@\w+", "", message.text or message.caption).strip(" \n,.:;!?")
    message = replace(message, chat=TelegramChat(user))
    return Incoming(
        user=user,
        thread=None,
        language=language_of(sender),
        event=Paint(painter, find_picture(message)),
        guest_query=message.guest_query_id,
    )


def language_in(chat: Chat, incoming: Incoming) -> Incoming:
    """Return the update in the language that the chat's settings name, else in Telegram's."""
    language = chat.settings.language or incoming.language
    return dataclasses.replace(incoming, language=language)


def read_message(message: Message, me: BotUser) -> Event | None:
    """Return what a message says, or None where it is not said to this bot."""
    if message.is_service:
        return None
    caption = message.caption.strip()
    words = message.text.strip()
    if words.startswith("/") or caption.startswith(CAPTION_COMMANDS):
        return read_command(message, words or caption, me)
    mention = rf"(?i)(?<!\w)@{re.escape(me.username)}\b"
    if me.username and re.search(mention, words or caption):
        painter = re.sub(mention, "", words or caption).strip(" \n,.:;!?")
        return Paint(painter, find_picture(message))
    if message.chat.id < 0:
        return read_group_reply(message, me)
    return Words(words) if words else read_picture(message)


def read_command(message: Message, words: str, me: BotUser) -> Event | None:
    command, *arguments = re.split(r"\s+", words[1:].lower())
    name, _, addressee = command.partition("@")
    if addressee not in ("", me.username.lower()):
        return None
    if name == "teach":
        return Teach(" ".join(arguments), find_picture(message))
    if name == "paint":
        return Paint(" ".join(arguments), find_picture(message))
    is_for_anybody = message.chat.id < 0 and not addressee
    if is_for_anybody and name not in COMMANDS:  # another bot of the group may know it
        return None
    return Command(name)


def read_group_reply(message: Message, me: BotUser) -> Event | None:
    """Return the picture or the words that answer a message of the bot, or None for other talk.

    Where the bot is an administrator, or has no privacy mode, it gets all that is said in a group.
    """
    answered = message.reply_to_message
    if not (answered and answered.sender and answered.sender.id == me.id):
        return None
    if message.text:
        return Words(message.text.strip())
    picture = read_picture(message)
    if isinstance(picture, ImageRef):
        return replace(picture, message_id=message.message_id)
    is_picture = picture.reason not in ("not_a_picture", "not_an_image")
    return picture if is_picture else None


def find_picture(message: Message) -> ImageRef | Rejected | None:
    """Return the picture of a command: its message's own, or that of the message it replies to."""
    answered = message.reply_to_message
    for source in (message, answered, message.external_reply):
        if not source or not (source.photo or source.document):
            continue
        picture = read_file(source)
        if message.chat.id > 0 or isinstance(picture, Rejected):
            return picture
        number = message.message_id
        if answered and source is answered:
            number = answered.message_id
        return replace(picture, message_id=number)
    return None


def picture_of(event: Event) -> Event | None:
    """Return the picture that comes with a command, or else the event, which may be a picture."""
    return event.picture if isinstance(event, (Paint, Teach)) else event


def find_document(raw: TelegramUpdate, picture: ImageRef) -> TelegramFile:
    """Return the file of a picture: that of the message, or of the one that it replies to."""
    message = raw.message or raw.guest_message
    if message:
        for source in (message, message.reply_to_message, message.external_reply):
            if source and source.document and source.document.file_id == picture.file_id:
                return source.document
    return TelegramFile(picture.file_id)


def read_picture(message: Message) -> ImageRef | Rejected:
    """Return the picture that somebody sends, with its weight, or why there is none."""
    picture = read_file(message)
    if isinstance(picture, Rejected):
        return picture
    weight = read_weight(message.caption.strip())
    return replace(picture, weight=weight or 1.0)


def read_weight(caption: str) -> float | None:
    """Return how much a picture counts as a style, 0.1 to 10: the number under it, if it is one."""
    if not re.fullmatch(WEIGHT_PATTERN, caption):
        return None
    return min(10.0, max(0.1, float(caption.replace(",", "."))))


def read_file(message: Attachments) -> ImageRef | Rejected:
    """Return the picture in a message, or why there is none."""
    file = message.photo[-1] if message.photo else message.document
    if file is None or message.animation is not UNSET:  # it comes with a document too
        return Rejected("not_a_picture")
    reason = find_fault(file.width, file.height, file.file_size)
    if not message.photo and not (file.mime_type or "").startswith("image/"):
        reason = "not_an_image"
    if reason:
        name = short_name(file.file_name)
        return Rejected(reason, name, file.width, file.height, file.file_size or 0)
    return ImageRef(
        file.file_id,
        is_document=not message.photo,
        has_spoiler=bool(message.photo) and message.has_media_spoiler,
    )


def find_fault(width: int, height: int, byte_count: int | None) -> str:
    """Return the key of a text that says why a picture cannot be painted, or "".

    width, height: in pixels; 0 or less where they are not known. byte_count: None if not known.
    """
    if byte_count == 0:
        return "empty_file"
    if byte_count and byte_count > MAX_FILE_BYTES:
        return "too_many_bytes"
    if min(width, height) <= 0:
        return ""
    if width * height > MAX_PIXELS:
        return "too_many_pixels"
    if min(width, height) < MIN_SIDE:
        return "too_few_pixels"
    return ""


def file_stem(file_name: str) -> str:
    """Return a file's name without its ending, of letters, digits, "_" and "-" alone."""
    stem = re.sub(r"\.\w{1,5}\Z", "", file_name)
    return re.sub(r"[^\w-]+", "-", stem).strip("-")[:STEM_LENGTH].strip("-")


def short_name(file_name: str) -> str:
    """Return a file's name for one line of a message."""
    return " ".join(file_name.split())[:MAX_FILE_NAME_LENGTH]


def inspect_head(head: bytes) -> Rejected | None:
    """Return why the picture that begins with `head` cannot be painted, or None."""
    if not head:
        return Rejected("empty_file")
    if not re.match(IMAGE_SIGNATURES, head, re.DOTALL):
        return Rejected("not_an_image")
    width, height = imagesize.get(io.BytesIO(head))
    reason = find_fault(width, height, None)
    return Rejected(reason, width=width, height=height) if reason else None


def is_allowed(user: int, config: Config) -> bool:
    return not config.allowed_users or user in config.allowed_users or user in config.admins


def transition(chat: Chat, incoming: Incoming, config: Config, styles: Styles) -> Decision:
    """Return what an event does to a chat."""
    event = incoming.event
    is_admin = incoming.user in config.admins
    if not is_allowed(incoming.user, config):
        return Decision(chat, ("private",))
    if isinstance(event, Button):
        if event.verb == "unteach" and not is_admin:
            return ask(chat)
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
    if incoming.is_group and isinstance(event, Words) and not chat.content:
        return Decision(chat)  # somebody talks about a painting
    if isinstance(event, ImageRef):
        return take_picture(chat, event, incoming.album)
    if isinstance(event, Paint):
        return paint(chat, event, styles)
    return take_words(chat, event, styles)


def ask(chat: Chat, reason: str = "") -> Decision:
    """Say what the chat waits for, after the reason why what came was something else."""
    wanted = "ask_content"
    if chat.lesson_name:
        wanted = "ask_lesson"
    elif chat.content:
        wanted = "ask_style"
    elif chat.jobs:
        wanted = "busy"
    if reason:
        return Decision(chat, (reason, wanted))
    return Decision(chat, (wanted,))


def run_command(chat: Chat, command: Command, is_admin: bool) -> Decision:
    if command.name == "help":
        return Decision(chat, ("help", "help_admin") if is_admin else ("help",))
    if command.name == "stats" and is_admin:
        return Decision(chat, ("stats",))
    if command.name == "settings":
        return Decision(chat, ("settings",))
    if command.name == "start":
        return ask(replace(chat, content=None, lesson_name=None), "hello")
    if command.name == "cancel":
        idle = replace(chat, content=None, lesson_name=None)
        if chat.jobs:
            return cancel_jobs(idle, chat.jobs)
        return ask(idle, "nothing_to_cancel" if idle == chat else "cancelled")
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


def take_picture(chat: Chat, image: ImageRef, album: str = "") -> Decision:
    """Take a picture as the photo, or as a style if there is a photo already.

    More pictures that follow a style are styles of the same painting, until it begins.
    """
    if album and album == chat.album:
        return add_style(chat, image, album)
    if chat.content:
        return start_with_style(chat, default_request(chat, chat.content, image), album)
    if chat.owns(chat.styles_job):
        return add_style(chat, image, album)
    if len(chat.jobs) >= JOBS_AT_ONCE:
        return Decision(chat, ("queue_is_full",))
    return ask(chat.with_content(image), "got_content")


def start_with_style(chat: Chat, request: PaintRequest, album: str) -> Decision:
    """Start a painting that may get more styles. An album tells by itself that more will come."""
    decision = start_painting(chat, request)
    if decision.request and not album:
        return dataclasses.replace(decision, reply=("got_styles", "ask_more_styles"))
    return decision


def add_style(chat: Chat, image: ImageRef, album: str) -> Decision:
    """Add another style to the newest job of pictures as styles."""
    request = None
    for painting in chat.jobs:
        if painting.job_id == chat.styles_job:
            request = painting.request
    if request is None:
        return ask(chat, "style_too_late")
    reply = () if album else ("got_styles", "ask_more_styles")
    if image in request.style_pictures:
        return Decision(chat, reply)
    if len(request.style_pictures) >= MAX_STYLES:
        return Decision(chat, ("too_many_styles",))
    more = replace(request, more_styles=(*request.more_styles, image))
    change = Painting(chat.styles_job, more)
    jobs = [change if painting.job_id == change.job_id else painting for painting in chat.jobs]
    return Decision(replace(chat, jobs=tuple(jobs), album=album), reply, change=change)


def take_words(chat: Chat, words: Words, styles: Styles) -> Decision:
    """Take words as the name of a painter, in any case, and answer a greeting with help."""
    name = find_style(words.words, styles)
    if name is None and words.is_greeting:
        return Decision(chat, ("hello", "help"))
    if not chat.content:
        return ask(chat)
    if name is None:
        return ask(chat, ErrorCode.UNKNOWN_STYLE.value)
    return start_painting(chat, default_request(chat, chat.content, name))


def find_style(words: str, styles: Styles) -> str | None:
    """Return the painter with this name or label, in any case."""
    for name, label in styles.labels.items():
        if words.lower() in (name.lower(), label.lower()):
            return name
    return None


def paint(chat: Chat, command: Paint, styles: Styles) -> Decision:
    """Paint the picture of the command, or else the one that waits for a style."""
    picture = command.picture or chat.content
    if picture is None and not command.painter and chat.owns(chat.styles_job):
        return Decision(chat, begin_job=chat.styles_job)
    if picture is None:
        return Decision(chat, ("ask_paint",))
    if isinstance(picture, Rejected):
        return Decision(chat, (picture.reason, "ask_paint"))
    if not command.painter:
        return ask(chat.with_content(picture))
    name = find_style(command.painter, styles)
    if name is None:
        reply = (ErrorCode.UNKNOWN_STYLE.value, "painters", "ask_style")
        return Decision(chat.with_content(picture), reply)
    return start_painting(chat, default_request(chat, picture, name))


def press_button(chat: Chat, button: Button, styles: Styles) -> Decision:
    if button.data == chat.pressed:  # a double press comes as two
        return Decision(chat)
    if button.verb == "unteach":
        return Decision(chat, stop_lesson=button.argument)
    if button.verb == "set":
        return press_setting(chat, button.argument)
    if button.verb == "cancel":
        return press_cancel(chat, button.argument)
    if button.verb == "take":
        return press_take(chat, button.argument)
    if button.verb == "paint":
        return press_paint(chat, button.argument)
    if button.verb in ("smaller", "larger"):
        return press_size(chat, button.argument)
    if button.verb == "album" and chat.find_painting(job_of_album(button.argument)):
        return Decision(chat, ("album",))
    painting = chat.find_painting(button.argument)
    if button.verb == "file" and painting and KEPT_FILE in painting.kept:
        return send_kept_file(chat, painting)
    if button.verb == "film" and painting:
        return send_film(chat, painting)
    if button.verb == "style":
        return press_style(chat, button.argument, styles)

    if painting is None:
        return ask(chat, ErrorCode.EXPIRED.value)
    if button.verb == "another":
        return ask(chat.with_content(painting.request.content))
    return start_painting(chat, change_request(painting.request, button.verb))


def job_of_album(argument: str) -> str:
    """Return the id of the job in the data of "Before and after": it follows the photo's tag."""
    return argument.rpartition(":")[2]


def send_kept_file(chat: Chat, painting: Painting) -> Decision:
    """Send the file of a result, at once, also while another picture is painted."""
    request = change_request(painting.request, "file")
    return Decision(chat, request=request, kept_of=painting.job_id)


def send_film(chat: Chat, painting: Painting) -> Decision:
    """Send the film of a result, at once. It is never made later."""
    if KEPT_FILM not in painting.kept:
        return Decision(chat, ("no_film",))
    return Decision(chat, request=painting.request, kept_of=painting.job_id, kept_name=KEPT_FILM)


def press_setting(chat: Chat, argument: str) -> Decision:
    """Change a setting; `argument` is its name and the index of the choice, with a colon."""
    name, _, index = argument.partition(":")
    choices = CHOICES.get(name, ())
    if re.fullmatch("[0-9]", index) and int(index) < len(choices):
        settings = replace(chat.settings, **{name: choices[int(index)]})
        chat = replace(chat, settings=settings)
    return Decision(chat, ("settings",))


def press_cancel(chat: Chat, job_id: str) -> Decision:
    cancelled = [painting for painting in chat.jobs if painting.job_id == job_id]
    if not cancelled:
        return ask(chat, "has_ended")
    return cancel_jobs(chat, cancelled)


def press_take(chat: Chat, job_id: str) -> Decision:
    """End a job with its best picture so far."""
    if not chat.owns(job_id):
        return ask(chat, "has_ended")
    return Decision(chat, take_job=job_id)


def cancel_jobs(chat: Chat, cancelled: Sequence[Painting]) -> Decision:
    """Give jobs up. Their photographs and styles are kept, so that one press tries again."""
    job_ids = [painting.job_id for painting in cancelled]
    after = chat.without_jobs(job_ids)
    for painting in cancelled:
        after = after.with_history(painting.job_id, painting.request)
    return Decision(after, ("cancelled", "after_cancel"), about=job_ids[-1])


def press_style(chat: Chat, argument: str, styles: Styles) -> Decision:
    """Paint the photograph above a painter's button, whichever one waits for its style now."""
    style, _, tag = argument.partition(":")
    photo = chat.find_photo(tag)
    if photo is None:
        return ask(chat, ErrorCode.EXPIRED.value)
    if style not in styles.labels:  # it was, when the question was asked
        return ask(chat.with_content(photo), ErrorCode.UNKNOWN_STYLE.value)
    return start_painting(chat, default_request(chat, photo, style))


def press_paint(chat: Chat, job_id: str) -> Decision:
    """Let a job wait for no more styles. It may have begun by itself meanwhile."""
    if chat.owns(job_id):
        return Decision(chat, begin_job=job_id)
    return ask(chat, "has_ended")


def press_size(chat: Chat, argument: str) -> Decision:
    """Paint a result in another size; `argument` is the size and the job, with a colon."""
    size, _, job_id = argument.partition(":")
    painting = chat.find_painting(job_id)
    if painting is None or size not in map(str, SIZES):
        return ask(chat, ErrorCode.EXPIRED.value)
    return start_painting(chat, replace(painting.request, size=int(size)))


def default_request(chat: Chat, content: ImageRef, style: ImageRef | str) -> PaintRequest:
    """Return the request for a new picture, as the chat's settings want it."""
    settings = chat.settings
    return PaintRequest(
        content,
        style,
        strength=settings.strength or usual_strength(style),
        preserve_color=settings.preserve_color and not isinstance(style, str),
        result="result.png" if settings.as_file else "result.jpg",
        size=settings.size,
    )


def usual_strength(style: ImageRef | str) -> float:
    """Return the strength of a painter, or of a picture as the style, that nobody has changed."""
    return 1.0 if isinstance(style, str) else 0.5


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
    """The chat does not own the job yet: it gets it once the job is stored."""
    if any(painting.request == request for painting in chat.jobs):
        return Decision(chat, ("painting_already",))
    if len(chat.jobs) >= JOBS_AT_ONCE:
        return Decision(chat, ("queue_is_full",))
    if chat.content == request.content:
        chat = replace(chat, content=None)
    return Decision(chat, request=request)


def after_failure(code: ErrorCode, request: PaintRequest) -> str:
    """Return the key of the text that says what to do now. AFTER_FAILURE has its buttons."""
    if code is ErrorCode.UNKNOWN_STYLE:
        return "choose_another"
    if code not in PICTURE_CODES:
        return "after_failure"
    # The fault may be that of the style
    return "send_another" if isinstance(request.style, str) else "choose_another"


def describe_request(request: PaintRequest, styles: Styles, language: str) -> str:
    """Return the style, and what tells this request from the usual one with that style."""
    words = [translate(language, "own_style")]
    if isinstance(request.style, str):
        words = [styles.labels.get(request.style, request.style)]
    elif request.more_styles:
        words = [translate(language, "own_styles", count=len(request.style_pictures))]
    if request.has_weights:
        weights = " : ".join(f"{picture.weight:g}" for picture in request.style_pictures)
        words.append(translate(language, "detail_weights", weights=weights))
    if request.strength != usual_strength(request.style):
        words.append(translate(language, "detail_strength", strength=f"{request.strength:g}"))
    if request.preserve_color:
        words.append(translate(language, "detail_colours"))
    if request.size:
        words.append(translate(language, "detail_size", size=request.size))
    return ", ".join(words)


def result_name(request: PaintRequest, names: Mapping[str, str]) -> str:
    """Return the name of the result's file without its ending, after the photograph and the style.

    names: those of the files that people have sent, as far as they are known, by tag.
    """
    style = request.style
    style_name = style if isinstance(style, str) else names.get(style.tag, "style")
    if request.more_styles:
        style_name = "styles"
    parts = [names.get(request.content.tag, "photo"), style_name]
    if request.strength != usual_strength(request.style):
        parts.append(f"{request.strength:g}")
    if request.preserve_color:
        parts.append("own-colours")
    if request.size:
        parts.append(str(request.size))
    return "-".join(parts)


def result_buttons(request: PaintRequest, side: int) -> list[list[str]]:
    """Return the verbs of the buttons under a result, at most two in a row, for their words.

    side: the longer side of the result, in pixels; 0: not known.
    """
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

    views = []
    if request.model == "nst" and not request.wants_file:
        views.append("film")
    if can_be_album(request):
        views.append(f"album:{request.content.tag}")  # by which local/telegram knows the photo
    return [["another"], strength, size_buttons(request, side), more, views]


def size_buttons(request: PaintRequest, side: int) -> list[str]:
    """Return the verbs that paint a result smaller or larger. See result_buttons."""
    verbs = []
    smaller = [size for size in SIZES if size < side]
    if smaller:
        verbs.append(f"smaller:{smaller[-1]}")
    larger = [size for size in SIZES if size > side]
    # A painter's result is never larger than the photograph.
    if side and larger and side >= request.size:
        verbs.append(f"larger:{larger[0]}")
    return verbs


def can_be_album(request: PaintRequest) -> bool:
    """Whether photo and painting can be shown side by side: Telegram has both as photos."""
    return not (request.content.is_document or request.wants_file)


def status_buttons(job: PaintJob, progress: Progress) -> list[str]:
    """Return the verbs of the buttons under a picture that is being painted.

    A painter is done in a moment, so there is nothing to take before.
    """
    if job.request.model == "nst" and progress.step and not job.is_taken:
        return ["take", "cancel"]
    return ["cancel"]


def job_buttons(language: str, job_id: str, rows: list[list[str]], owner: str = "") -> Json:
    """Return a keyboard of verbs that act on this job.

    A verb may have an argument of its own, before the job's id: "larger:1024".
    """
    buttons = []
    for row in rows:
        buttons.append([(button_label(language, verb), f"{verb}:{job_id}") for verb in row])
    return keyboard(buttons, owner)


def button_label(language: str, verb: str) -> str:
    name, _, size = verb.partition(":")
    return translate(language, f"button_{name}", size=size)


def answer_buttons(chat: Chat, language: str, owner: str) -> Json:
    """Return the keyboard under an answer; None where it has none."""
    if chat.about:
        return job_buttons(language, chat.about, [["retry", "another"]], owner)
    if "ask_more_styles" in chat.reply:
        return job_buttons(language, chat.styles_job, [["paint"]], owner)
    return None


def style_keyboard(styles: Mapping[str, str], photo: ImageRef, owner: str = "") -> Json:
    """Return the painters of this photograph, two in a row."""
    buttons = [(label, f"style:{name}:{photo.tag}") for name, label in styles.items()]
    return keyboard([buttons[i : i + 2] for i in range(0, len(buttons), 2)], owner)


def reply_to(message_id: int) -> Json:
    """Return the reply_parameters of an answer to a message; None for 0, which answers to none."""
    if not message_id:
        return None
    return {"message_id": message_id, "allow_sending_without_reply": True}


def settings_keyboard(settings: Settings, language: str, owner: str) -> Json:
    """Return a row for each setting; what is chosen has a mark."""
    rows = []
    for name, choices in CHOICES.items():
        row = []
        for index, choice in enumerate(choices):
            mark = "✓ " if getattr(settings, name) == choice else ""
            row.append((mark + translate(language, f"{name}_{index}"), f"set:{name}:{index}"))
        rows.append(row)
    return keyboard(rows, owner)


def fits_photo(size: tuple[int, int], byte_count: int) -> bool:
    """Whether Telegram takes a picture as a photo. If not, it goes out as a file.

    size: width and height in pixels; 0 where they are not known.
    """
    return (
        sum(size) <= PHOTO_MAX_SIDES
        and max(size) <= PHOTO_MAX_RATIO * min(size)
        and byte_count <= PHOTO_MAX_BYTES
    )


def progress_line(language: str, progress: Progress) -> str:
    """Return a bar of ten blocks, the share done, and the time left where the model tells it."""
    bar = "▓" * int(10 * progress.share)
    line = f"{bar:░<10} {progress.share:.0%}"
    if progress.seconds_left is None or progress.share < MEANINGFUL_SHARE:
        return line
    return f"{line}, {time_words(language, 'seconds_left', 'minutes_left', progress.seconds_left)}"


def place_line(language: str, place: int, seconds: float | None) -> str:
    """Return the place in the queue, and when the painting starts where that is known."""
    line = translate(language, "place", place=place)
    if seconds is None:
        return line
    return f"{line}, {time_words(language, 'starts_in_seconds', 'starts_in_minutes', seconds)}"


def time_words(language: str, in_seconds: str, in_minutes: str, seconds: float) -> str:
    """Return the text of the one key or of the other, by how long it is."""
    if seconds < 100:
        return translate(language, in_seconds, seconds=round(seconds))
    return translate(language, in_minutes, minutes=round(seconds / 60))


# ---------------------------------------------------------------- errors


class Metrics:
    """What the bot has done since its start."""

    NAMES = ("updates", "done", "failed", "cancelled", "errors", "put_aside", "left_out")

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
            if error.code == 403 and chat > 0:  # the user has blocked the bot
                self.store.release_job(chat, 0, None, keep=None)
            if error.new_chat:
                self.store.move_group(chat, error.new_chat)
            raise

    def answer_guest(self, query: str, words: str, buttons: Json = None) -> str:
        """Answer in a chat that the bot is no member of. It can be done once, and soon.

        Returns the inline_message_id of the answer, or "" where it is too late.
        """
        result = {
            "type": "article",
            "id": "1",
            "title": "stylebot",
            "input_message_content": {"message_text": words},
        }
        if buttons:
            result["reply_markup"] = buttons
        try:
            sent = self.telegram.call("answerGuestQuery", guest_query_id=query, result=result)
        except TelegramError as error:
            if not is_refusal(error):
                raise
            log.warning("%s; a guest is not answered", error)
            return ""
        message_id: str = sent.inline_message_id
        return message_id

    def show_status(
        self,
        chat: int,
        message_id: int,
        words: str,
        preview: bytes,
        buttons: Json,
        is_photo: bool = False,
    ) -> bool:
        """Let a message say something else, with a new picture where there is one.

        is_photo: whether it is known to be a photo. Returns whether it is one now.
        """
        if preview and self.show_picture(chat, message_id, "photo", preview, words, buttons):
            return True
        message = {"chat_id": chat, "message_id": message_id, "reply_markup": buttons}
        try:
            if is_photo:
                self.telegram.call("editMessageCaption", caption=words, **message)
            else:
                self.telegram.call("editMessageText", text=words, **message)
        except TelegramError as error:
            if error.code != 400:
                raise
            if "no text" in error.description:  # a preview of an earlier process
                self.telegram.call("editMessageCaption", caption=words, **message)
                return True
            if "not modified" not in error.description:
                raise
        return is_photo

    def show_picture(
        self,
        chat: int,
        message_id: int,
        kind: str,
        file: bytes | tuple[str, bytes],
        caption: str,
        buttons: Json,
        has_spoiler: bool = False,
    ) -> bool:
        """Turn a message into a picture. False where the server cannot do that."""
        media: Json = {"type": kind, "media": "attach://file", "caption": caption}
        if has_spoiler and kind == "photo":
            media["has_spoiler"] = True
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
        if message and message.photo:
            with self._lock:
                self._uploaded = UploadedSheet(key, etag, message.photo[-1].file_id)
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
    me: BotUser = field(default_factory=BotUser)  # set before the first update
    languages: dict[int, str] = field(default_factory=dict)  # of the admins who have written

    def handle(self, update: Update, health: Callable[[], str]) -> None:
        """Handle an update; `health` returns the answer to /stats.

        Raises TelegramError and S3_ERRORS.
        """
        if update.error_code:
            self.say_sorry(update)
            return
        incoming = read_update(update.raw, self.me)
        query = update.raw.callback_query
        if query:
            self.answer_press(query)
        if incoming is None:
            return
        if not update.is_rest and is_allowed(incoming.user, self.config):
            incoming = self.inspect(update, incoming)

        update.language = incoming.language
        stored = self.store.load_chat(update.chat, incoming.user)
        chat = stored.chat
        update.language = language_in(chat, incoming).language
        if incoming.user in self.config.admins:
            self.languages[incoming.user] = update.language
        if update.id not in chat.seen:
            chat = self.change_chat(update, language_in(chat, incoming), stored)
        if chat.reply and chat.seen[-1] == update.id:
            self.answer(stored.number, chat, language_in(chat, incoming), health)

    def answer_press(self, query: CallbackQuery) -> None:
        """Tell Telegram that a button has been pressed, and a user that it is somebody else's."""
        words = None
        if not owner_of(query):
            words = translate(language_of(query.sender), "not_yours")
        self.telegram.try_call("answerCallbackQuery", callback_query_id=query.id, text=words)

    def inspect(self, update: Update, incoming: Incoming) -> Incoming:
        """Return the update, with its picture refused where the head of its file says why.

        Telegram tells the size of a photo, but of a file neither that nor what it really is. A file
        that cannot be read now is taken; its job tries again.
        """
        event = incoming.event
        picture = picture_of(event)
        if not isinstance(picture, ImageRef) or not picture.is_document:
            return incoming
        document = find_document(update.raw, picture)
        self.runner.remember_name(picture, document.file_name)
        try:
            rejected = inspect_head(self.telegram.download_head(picture.file_id))
        except TelegramError as error:
            log.warning("update %s: its file is not looked at: %s", update.id, error)
            return incoming
        if rejected is None:
            return incoming
        rejected = rejected._replace(
            file_name=short_name(document.file_name), byte_count=document.file_size or 0
        )
        if isinstance(event, (Paint, Teach)):
            return dataclasses.replace(incoming, event=event._replace(picture=rejected))
        return dataclasses.replace(incoming, event=rejected)

    def say_sorry(self, update: Update) -> None:
        """Tell the user that the update failed for good."""
        words = translate(update.language, "update_failed")
        self.telegram.try_call("sendMessage", chat_id=update.chat, text=words)

    def change_chat(self, update: Update, incoming: Incoming, stored: StoredChat) -> Chat:
        """Store what the update changes, and return the chat's new state."""
        before = stored.chat
        lost = [job.job_id for job in before.jobs if self.runner.find(job.job_id) is None]
        if lost:  # their records were put aside: a job is stored before its chat owns it
            before = replace(before.without_jobs(lost), pressed="")
        decision = self.decide(update, before, incoming)
        decision = self.check_decision(update, before, decision, incoming)
        after = self.carry_out(update, decision, incoming)
        reply = decision.reply
        if lost:
            reply = ("failed", *reply)
        elif before.was_put_aside and not before.seen and reply:
            reply = ("update_failed", *reply)
        after = replace(after, pressed=self.find_pressed(before, after, incoming))
        after = after.with_answer(update.id, reply, update.left_out, decision.about)
        self.store.save_chat(stored, after)
        given_up = [painting for painting in before.jobs if not after.owns(painting.job_id)]
        for _ in given_up:
            self.metrics.add("cancelled")
        if given_up:
            self.runner.wake(update.chat)
        return after

    def check_decision(
        self, update: Update, before: Chat, decision: Decision, incoming: Incoming
    ) -> Decision:
        """Return the decision, or another one where something outside the chat forbids it."""
        is_new = decision.request and not decision.kept_of
        if is_new and self.limit_is_reached(incoming.user, before):
            decision = Decision(before, ("daily_limit",))
        if incoming.guest_query:
            decision = self.decide_for_guest(before, decision, incoming)
        if decision.lesson:
            problem = self.lessons.find_problem(decision.lesson, str(update.id))
            if problem:
                return Decision(before, (problem,))
        if decision.change and not self.runner.change(decision.change, incoming.album):
            return self.decide(update, replace(before, styles_job=""), incoming)
        return decision

    def carry_out(self, update: Update, decision: Decision, incoming: Incoming) -> Chat:
        """Begin, change or end what the decision names. Returns the chat, with its new job."""
        if decision.lesson:
            self.lessons.create(update, incoming, decision.lesson)
        if decision.stop_lesson:
            self.lessons.stop(decision.stop_lesson, update.chat)
        if decision.take_job:
            self.runner.take(decision.take_job)
        if decision.begin_job:
            self.runner.begin(decision.begin_job)
        if not decision.request:
            return decision.chat

        job = self.create_job(update, incoming, decision)
        jobs = (*decision.chat.jobs, Painting(job.id, job.request))
        chat = replace(decision.chat, jobs=jobs, was_put_aside=False)
        if job.open_until:
            chat = replace(chat, album=incoming.album, styles_job=job.id)
        return chat

    def find_pressed(self, before: Chat, after: Chat, incoming: Incoming) -> str:
        """Return the data of the button that was pressed last, if it did something."""
        if not isinstance(incoming.event, Button):
            return ""
        data = incoming.event.data
        has_effect = after != before or data == before.pressed
        return data if has_effect else ""

    def decide(self, update: Update, chat: Chat, incoming: Incoming) -> Decision:
        """Return what the update does. One that stands for others left out only gets an answer."""
        decision = transition(chat, incoming, self.config, self.catalog.styles())
        if update.has_replaced and "nothing_to_cancel" in decision.reply:
            decision = ask(decision.chat, "cancelled")
        if not update.left_out or decision.reply == ("private",):
            return decision
        if update.is_rest:
            decision = ask(chat)
        return Decision(decision.chat, ("left_out", *decision.reply), about=decision.about)

    def limit_is_reached(self, user: int, chat: Chat) -> bool:
        """Whether the user has had all of today's paintings, or has asked for them in this chat."""
        limit = self.config.daily_limit
        if not limit:
            return False
        asked = 0
        for painting in chat.jobs:
            job = self.runner.find(painting.job_id)
            if job and job.user == user:
                asked += 1
        return self.store.count_today(user) + asked >= limit

    def create_job(self, update: Update, incoming: Incoming, decision: Decision) -> PaintJob:
        """Store a job named after the update, so that handling the update twice makes one job."""
        request = decision.request
        assert request
        label = describe_request(request, self.catalog.styles(), incoming.language)
        job = PaintJob(
            id=str(update.id),
            chat=update.chat,
            user=incoming.user,
            thread=incoming.thread,
            language=incoming.language,
            request=request,
            style_label=label,
            kept_of=decision.kept_of,
            kept_name=decision.kept_name,
            guest_query=incoming.guest_query,
        )
        if isinstance(incoming.event, ImageRef):
            job.wait_for_styles(incoming.album)
        self.store.save_job(job)
        # Its first step waits until this update is done: a chat is served by one thread at a time.
        self.runner.add(job)
        return job

    def decide_for_guest(self, chat: Chat, decision: Decision, incoming: Incoming) -> Decision:
        """Return the decision for one who asks elsewhere: it is a painting, or only an answer.

        The picture has to be uploaded to a private chat, since a message elsewhere takes none.
        """
        if not decision.request:
            return Decision(chat, decision.reply)
        try:
            self.telegram.call("sendChatAction", chat_id=incoming.user, action="upload_photo")
        except TelegramError as error:
            if not is_refusal(error):
                raise
            return Decision(chat, ("start_first",))
        return decision

    def answer(
        self, number: int, chat: Chat, incoming: Incoming, health: Callable[[], str]
    ) -> None:
        """Answer the last update of the chat, as its state says."""
        words = self.answer_words(chat, incoming, health)
        if incoming.guest_query:
            buttons = self.guest_buttons(chat, incoming)
            self.messenger.answer_guest(incoming.guest_query, words, buttons)
        elif "album" in chat.reply:
            self.send_album(number, chat, incoming, words)
        elif "settings" in chat.reply:
            self.show_settings(number, chat, incoming, words)
        elif "ask_style" in chat.reply and chat.content:
            self.ask_style(number, incoming, words, chat.content)
        else:
            owner = owner_suffix(number, incoming.user)
            self.reply(number, incoming, words, answer_buttons(chat, incoming.language, owner))

    def answer_words(self, chat: Chat, incoming: Incoming, health: Callable[[], str]) -> str:
        refused = picture_of(incoming.event)
        rejected = refused if isinstance(refused, Rejected) else Rejected("")
        keys = chat.reply
        if incoming.is_group:
            keys = tuple(GROUP_TEXTS.get(key, key) for key in keys)
        if incoming.guest_query:
            keys = tuple(GUEST_TEXTS.get(key, key) for key in keys)
        labels = self.catalog.styles().labels.values()
        return translate(
            incoming.language,
            *keys,
            **rejected.describe(incoming.language),
            support=self.config.support,
            limit=self.config.daily_limit,
            user=incoming.user,
            count=chat.left_out,
            most=JOBS_AT_ONCE,
            styles=chat.count_styles(),
            seconds=round(STYLE_SECONDS),
            health=health() if "stats" in chat.reply else "",
            bot=self.me.username,
            painters=textwrap.shorten(", ".join(labels), PAINTERS_MAX_LENGTH, placeholder=" ..."),
        )

    def reply(self, number: int, incoming: Incoming, words: str, buttons: Json = None) -> None:
        """Send words, in a group as an answer to the message."""
        self.messenger.send(
            number,
            incoming.thread,
            "sendMessage",
            text=words,
            reply_markup=buttons,
            reply_parameters=reply_to(incoming.group_message),
        )

    def guest_buttons(self, chat: Chat, incoming: Incoming) -> Json:
        """Return a link to the private chat where the answer asks for one, or None."""
        if "start_first" not in chat.reply:
            return None
        label = translate(incoming.language, "button_start")
        link = f"https://t.me/{self.me.username}?start=guest"
        return {"inline_keyboard": [[{"text": label, "url": link}]]}

    def send_album(self, number: int, chat: Chat, incoming: Incoming, words: str) -> None:
        """Send the photo and its painting side by side. Telegram has both already."""
        event = incoming.event
        job_id = job_of_album(event.argument) if isinstance(event, Button) else ""
        painting = chat.find_painting(job_id)
        if painting is None:
            return
        photo = painting.request.content
        before: Json = {"type": "photo", "media": photo.file_id, "caption": words}
        after: Json = {"type": "photo", "media": incoming.pressed_photo}
        if photo.has_spoiler:
            before["has_spoiler"] = True
            after["has_spoiler"] = True
        try:
            self.messenger.send(
                number,
                incoming.thread,
                "sendMediaGroup",
                media=[before, after],
                reply_parameters=reply_to(incoming.group_message),
            )
        except TelegramError as error:
            if not is_refusal(error):
                raise
            log.warning("%s; the photo and its painting are not sent side by side", error)
            self.reply(number, incoming, translate(incoming.language, ErrorCode.EXPIRED.value))

    def show_settings(self, number: int, chat: Chat, incoming: Incoming, words: str) -> None:
        """Show the settings, where one was changed in the message whose button was pressed."""
        owner = owner_suffix(number, incoming.user)
        buttons = settings_keyboard(chat.settings, incoming.language, owner)
        if incoming.pressed_message:
            message_id = incoming.pressed_message
            self.messenger.show_status(number, message_id, words, b"", buttons)
            return
        self.reply(number, incoming, words, buttons)

    def ask_style(self, chat: int, incoming: Incoming, words: str, photo: ImageRef) -> None:
        """Ask with a button for each style, below a picture of them all where there is one."""
        styles = self.catalog.styles()
        owner = owner_suffix(chat, incoming.user)
        buttons = style_keyboard(styles.labels, photo, owner)
        if styles.sheet and self.sheet.send(
            chat,
            incoming.thread,
            styles.sheet,
            caption=words,
            reply_markup=buttons,
            reply_parameters=reply_to(incoming.group_message),
        ):
            return
        self.reply(chat, incoming, words, buttons)


# ---------------------------------------------------------------- jobs


class JobRunner:
    """Takes the pending jobs from step to step.

    Each step may be repeated after a kill at any point.

    wait_in_line, while the chat has an earlier job of the same model
      ^
      |      submit               the model answers, or the deadline passes
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
        # What people's files are called, by tag. It is never stored. Guarded by _lock
        self._names: dict[str, str] = {}
        self._usual: dict[str, float] = {}  # a picture's seconds, by model; guarded by _lock

    def remember_name(self, image: ImageRef, file_name: str) -> None:
        """Keep in mind what a file is called, for the name of its result."""
        stem = file_stem(file_name)
        if not stem:
            return
        with self._lock:
            self._names[image.tag] = stem
            while len(self._names) > NAMES_KNOWN:
                del self._names[next(iter(self._names))]

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
        items, self._cursor, _ = self.store.list_page(JOBS_PREFIX, self._cursor)
        names_of_jobs: dict[str, set[str]] = {}
        for item in items:
            job_id, _, name = item["Key"].removeprefix(JOBS_PREFIX).partition("/")
            if name:  # a folder that somebody made has none
                names_of_jobs.setdefault(job_id, set()).add(name)
        for job_id, names in names_of_jobs.items():
            try:
                self.take_up(job_id, names)
            except S3_ERRORS as error:  # the others go on
                log_and_back_off(self.metrics, f"job {job_id}", error, 1)

    def take_up(self, job_id: str, names: set[str]) -> None:
        """Take up a job, of which there are objects with these names."""
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
        is_late = age_of(job) > DEADLINE_SECONDS
        return is_late or self.models.has_answered(job.result_keys)

    def is_due(self, job: PaintJob, now: float, pace: float) -> bool:
        """Whether a job can take a step.

        now: of time.monotonic(). pace: the seconds between two looks at a job that waits.
        """
        if now < job.retry.not_before:
            return False
        if job.step is Step.SUBMIT and age_of(job) < job.open_until:
            return False
        if job.has_answer or (job.step is Step.SUBMIT and not job.is_queued):
            return True
        return now >= job.last_look + (QUEUE_PACE * pace if job.is_queued else pace)

    def change(self, wanted: Painting, album: str) -> bool:
        """Let a job paint in more styles. False where it takes no more.

        album: that the style came in. One of the same album is taken until the job is submitted.
        """
        job = self.find(wanted.job_id)
        if job is None:
            return False
        if job.request == wanted.request:  # the update comes again
            return True
        is_open = album or age_of(job) < job.open_until
        if job.step is not Step.SUBMIT or not is_open:
            return False
        job.request = wanted.request
        job.style_label = describe_request(wanted.request, OFFICIAL_STYLES, job.language)
        job.wait_for_styles(album)
        self.store.save_job(job)
        return True

    def begin(self, job_id: str) -> None:
        """Let a job wait for no more styles."""
        job = self.find(job_id)
        if job and job.step is Step.SUBMIT:
            job.open_until = 0.0
            self.store.save_job(job)

    def wake(self, chat: int) -> None:
        """Let all jobs of a chat take a step, as one of them is done."""
        for job in self.pending():
            if job.chat == chat:
                job.last_look = 0.0

    # The steps

    def advance(self, job: PaintJob) -> None:
        """Take the next step.

        Raises TelegramError and S3_ERRORS, after which the step is repeated.
        """
        try:
            self.take_step(job)
        except TelegramError as error:
            if error.code == 403:  # the user has blocked the bot, or the group has removed it
                self.store.release_job(job.chat, job.user, job.id, keep=None)
            raise

    def take_step(self, job: PaintJob) -> None:
        served_chat = job.chat
        stored = self.store.load_chat(job.chat, job.user)
        job.chat = stored.number
        if not stored.chat.owns(job.id):
            if stored.chat.was_put_aside:
                self.apologize(job, stored)
            return self.clean_up(job, stored.chat)
        if job.chat != served_chat:  # the group has moved: another thread may serve its new number
            return None
        if job.guest_query:
            self.answer_guest(job)
        has_failed = job.error_code or self.has_ended(job)
        if job.kept_of and not has_failed and self.send_kept_file(job):
            return None
        earlier = earlier_jobs(stored.chat, job)
        if job.step is Step.SUBMIT and earlier:
            return self.wait_in_line(job, earlier)
        job.is_queued = False
        if has_failed:
            return self.finish(job)
        if job.step is Step.WAIT:
            return self.update_status(job)
        return self.submit(job)

    def wait_in_line(self, job: PaintJob, earlier: Sequence[str]) -> None:
        """Tell the user the job's place and time. earlier: ids of its chat's jobs before it."""
        job.is_queued = True
        job.last_look = time.monotonic()
        job.age = 0.0  # the deadline counts from its turn
        job.counted_from = time.monotonic()
        words = translate(job.language, "queued", style=job.style_label)
        words += "\n" + self.describe_place(job, self.jobs_ahead(job, earlier))
        self.send_or_show_status(job, words)
        job.status_text = words

    def send_or_show_status(self, job: PaintJob, words: str) -> bool:
        """Send the status message, or change it. False where Telegram refuses it for good.

        Its chat gives up the job then.
        """
        buttons = job_buttons(job.language, job.id, [["cancel"]], job.owner)
        if "status" in job.sent:
            self.show(job, words, buttons)
            return True
        if self.send_once(job, "status", "sendMessage", text=words, reply_markup=buttons):
            return True
        self.store.release_job(job.chat, job.user, job.id, keep=None)
        return False

    def show(self, job: PaintJob, words: str, buttons: Json) -> None:
        """Let the status message say something else, unless its user has deleted it."""
        if not job.status_message or words == job.status_text:
            return
        try:
            self.messenger.show_status(job.chat, job.status_message, words, b"", buttons)
        except TelegramError as error:
            if error.code != 400:
                raise

    def describe_place(self, job: PaintJob, ahead: Sequence[PaintJob]) -> str:
        with self._lock:
            usual = self._usual.get(job.request.model)
        seconds: float | None = 0.0
        for other in ahead:
            left = usual if other.seconds_left is None else other.seconds_left
            seconds = None if left is None or seconds is None else seconds + left
        return place_line(job.language, len(ahead) + 1, seconds)

    def jobs_ahead(self, job: PaintJob, earlier: Sequence[str] = ()) -> list[PaintJob]:
        """Return the jobs of all chats that the model comes to before this one."""
        ahead = []
        for other in self.pending():
            if other is job and job.step is Step.WAIT:
                break  # those after it were handed to the model later
            is_at_model = other.step is Step.WAIT and not other.is_released
            is_of_model = other.request.model == job.request.model
            if other.id in earlier or (is_at_model and is_of_model):
                ahead.append(other)
        return ahead

    def submit(self, job: PaintJob) -> None:
        """Tell the user that we begin, copy the pictures to S3, and call the model."""
        words = translate(job.language, "accepted", style=job.style_label)
        # There is one if it said the job's place in the queue, or if this step was tried before.
        if not self.send_or_show_status(job, words):
            return

        request = job.request
        self.copy_to_s3(request.content, job.key("content"))
        body = {
            "content_url": self.store.url(job.key("content")),
            "control_url": self.store.url(job.key("control.json")),
            "progress_url": self.store.url(job.key("progress.json")),
            "result_url": self.store.url(job.key(request.result)),
            "strength": request.strength,
        }
        if request.size:
            body["size"] = request.size
        if not request.wants_file:
            body["lossless_url"] = self.store.url(job.key(KEPT_FILE))
        if not request.wants_file and request.model == "nst":
            body["film_url"] = self.store.url(job.key(KEPT_FILM))
        if isinstance(request.style, str):
            body["style_name"] = request.style
        else:
            urls = self.copy_styles(job)
            body["style_url"] = urls if request.more_styles else urls[0]
            if request.has_weights:
                body["style_weights"] = [picture.weight for picture in request.style_pictures]
            body["preserve_color"] = request.preserve_color
        self.store.put_json(job.key("request.json"), body)

        job.result_keys = self.models.invoke(request.model, job.key("request.json"), job.id)
        job.step = Step.WAIT
        job.status_text = words
        self.store.save_job(job)

    def send_kept_file(self, job: PaintJob) -> bool:
        """Send a file that is kept at chats/results/, and end the job.

        False where it is gone: then the job paints it anew. A film is not made anew.
        """
        data, _ = self.store.get(kept_key(job.kept_of, job.kept_name))
        is_film = job.kept_name == KEPT_FILM
        if not data and not is_film:
            job.kept_of = ""
            return False
        if not data:
            words = translate(job.language, "no_film")
            self.send_once(job, "reason", "sendMessage", text=words)
        else:
            kind = "animation" if is_film else "document"
            text = "caption_film" if is_film else "caption_file"
            caption = translate(job.language, text, style=job.style_label)
            file = (self.file_name(job, job.kept_name), data)
            self.send_picture(job, kind, file, caption[:CAPTION_MAX_LENGTH])
        self.store.release_job(job.chat, job.user, job.id, keep=None)
        return True

    def copy_styles(self, job: PaintJob) -> list[str]:
        """Copy the pictures of the styles to S3, and return their URLs."""
        urls = []
        for index, picture in enumerate(job.request.style_pictures):
            key = job.key(f"style-{index + 1}" if index else "style")
            self.copy_to_s3(picture, key)
            urls.append(self.store.url(key))
        return urls

    def copy_to_s3(self, image: ImageRef, key: str) -> None:
        with self._pictures:
            self.store.put(key, self.telegram.download(image.file_id))

    def update_status(self, job: PaintJob) -> None:
        """Show in the status message how far the model is."""
        job.last_look = time.monotonic()
        progress = Progress()
        if job.has_progress:
            stored, _ = self.store.read(job.key("progress.json"), Progress)
            progress = stored or progress

        words = translate(job.language, "accepted", style=job.style_label)
        if job.is_taken:
            words += "\n" + translate(job.language, "taking")
        elif progress.steps:
            words += "\n" + progress_line(job.language, progress)
        elif age_of(job) > WAKING_SECONDS:
            ahead = self.jobs_ahead(job)
            is_awake = any(other.has_progress for other in ahead)
            waiting = translate(job.language, "waking")
            if is_awake:
                waiting = self.describe_place(job, ahead)
            words += "\n" + waiting
        self.note_seconds(job, progress)

        self.telegram.try_call(
            "sendChatAction", chat_id=job.chat, message_thread_id=job.thread, action="typing"
        )
        if job.status_message and words != job.status_text:
            has_spoiler = job.request.content.has_spoiler
            preview = b"" if has_spoiler else progress.preview or b""
            rows = [status_buttons(job, progress)]
            buttons = job_buttons(job.language, job.id, rows, job.owner)
            new_preview = b"" if preview == job.preview else preview
            job.is_photo = self.messenger.show_status(
                job.chat, job.status_message, words, new_preview, buttons, job.is_photo
            )
            job.preview = preview
            self.show_guest(job, words)
        job.status_text = words

    def note_seconds(self, job: PaintJob, progress: Progress) -> None:
        """Keep in mind how long pictures take, for those that wait in line."""
        if not progress.steps or progress.seconds_left is None:
            return
        if not MEANINGFUL_SHARE <= progress.share < 1.0:
            return
        job.seconds_left = progress.seconds_left
        whole = progress.seconds_left / (1.0 - progress.share)
        with self._lock:
            self._usual[job.request.model] = whole

    def answer_guest(self, job: PaintJob) -> None:
        """Let a message that shows the same as the status message appear elsewhere."""
        words = translate(job.language, "accepted", style=job.style_label)
        job.guest_message = self.messenger.answer_guest(job.guest_query, words)
        job.guest_query = ""
        self.store.save_job(job)

    def show_guest(self, job: PaintJob, words: str) -> None:
        """Let the message elsewhere say something else. The painting does not depend on it."""
        if job.guest_message:
            self.telegram.try_call(
                "editMessageText", inline_message_id=job.guest_message, text=words
            )

    def show_guest_picture(self, job: PaintJob) -> None:
        """Turn the message elsewhere into the picture, which Telegram has from the private chat."""
        if not job.guest_message:
            return
        if not job.file_id:  # it went into the status message, after a kill
            self.show_guest(job, translate(job.language, "guest_elsewhere"))
            return
        caption = translate(job.language, "guest_caption", style=job.style_label)
        kind = "photo" if "photo" in job.sent else "document"
        media: Json = {"type": kind, "media": job.file_id, "caption": caption}
        if kind == "photo" and job.request.content.has_spoiler:
            media["has_spoiler"] = True
        try:
            self.telegram.call("editMessageMedia", inline_message_id=job.guest_message, media=media)
        except TelegramError as error:
            if not is_refusal(error):
                raise
            log.warning("job %s: %s; a guest sees no picture", job.id, error)
            self.show_guest(job, translate(job.language, "guest_elsewhere"))

    def finish(self, job: PaintJob) -> None:
        """Send the picture, or say why there is none. The chat then gives up the job."""
        failure = self.find_failure(job) or self.deliver(job)
        kept: list[KeptName] = []
        if failure:
            self.send_reason(job, failure)
            self.metrics.add("failed")
        else:
            self.show_guest_picture(job)
            if self.config.daily_limit:
                self.store.count_painting(job.user, job.id)
            self.metrics.add("done")
            if not job.request.wants_file:
                kept = self.store.keep_results(job.id)

        if job.status_message is None:
            # The picture may be in it: a new process must not delete it as an old status. S3 may
            # have refused the record of that before.
            self.store.save_job(job)
        self.store.release_job(job.chat, job.user, job.id, job.request, kept)
        job.is_released = True
        self.wake(job.chat)

    def apologize(self, job: PaintJob, stored: StoredChat) -> None:
        """Tell that a job ends because its chat's record was put aside. It can be tried again."""
        if job.is_answered:
            return
        if not stored.chat.find_painting(job.id):
            self.store.save_chat(stored, stored.chat.with_history(job.id, job.request))
        self.send_reason(job, Failure(ErrorCode.INTERNAL))

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
        reason = translate(job.language, failure.code.value, support=support)
        if failure.message and failure.code in TELLING_CODES and job.language == "en":
            reason = failure.message
        before = translate(job.language, "failed")
        advice = after_failure(failure.code, job.request)
        after = translate(job.language, advice)
        self.show_guest(job, f"{before} {reason}")
        self.send_once(
            job,
            "reason",
            "sendMessage",
            text=f"{before} {reason} {after}",
            reply_markup=job_buttons(job.language, job.id, [AFTER_FAILURE[advice]], job.owner),
        )

    def deliver(self, job: PaintJob) -> Failure | None:
        """Send the picture as a photo, and as a file where the user or Telegram wants that."""
        assert job.result_keys
        answer = self.models.read_output(job.result_keys)
        request = job.request
        picture, _ = self.store.get(job.key(request.result))
        if not picture:
            return Failure(ErrorCode.INTERNAL)

        file = (self.file_name(job, request.result), picture)
        caption = self.caption(job, answer)
        width, height = answer.size or (0, 0)
        rows = result_buttons(request, max(width, height))
        buttons = job_buttons(job.language, job.id, rows, job.owner)
        is_shown = False
        if not request.wants_file and fits_photo((width, height), len(picture)):
            is_shown = self.send_picture(job, "photo", file, caption, buttons)
        if is_shown and request.content.is_document:
            self.send_picture(job, "document", file)
        if not is_shown:
            is_shown = self.send_picture(job, "document", file, caption, buttons)
        if is_shown:
            return None
        has_no_rights = re.search("rights|FORBIDDEN|RESTRICTED", job.refusal)
        return Failure(ErrorCode.NO_RIGHTS if has_no_rights else ErrorCode.INTERNAL)

    def file_name(self, job: PaintJob, object_name: str) -> str:
        """Return what a file of a result is called, with the ending of its object."""
        _, _, ending = object_name.rpartition(".")
        with self._lock:
            return f"{result_name(job.request, self._names)}.{ending}"

    def caption(self, job: PaintJob, answer: ModelAnswer) -> str:
        """Return the style, the seconds and the model's notes."""
        if answer.seconds is not None:
            with self._lock:
                self._usual[job.request.model] = answer.seconds
        seconds = round(answer.seconds or age_of(job))
        caption = translate(job.language, "caption", style=job.style_label, seconds=seconds)
        return "\n".join([caption, *(answer.notes or [])])[:CAPTION_MAX_LENGTH]

    def clean_up(self, job: PaintJob, chat: Chat) -> None:
        """Remove all of a job that its chat does not own, except what `chat` keeps for its buttons.

        Its model may still write, until it has answered. So it is told to stop first, and what
        tells that, to the model and to a new process of the bot, goes last.
        """
        if job.status_message and self.is_ours_to_delete(job):
            self.telegram.try_call("deleteMessage", chat_id=job.chat, message_id=job.status_message)
        if not job.is_answered and not job.is_cancelled:
            self.show_guest(job, translate(job.language, "cancelled"))
        job.status_message = None
        job.is_released = True
        job.last_look = time.monotonic()
        if job.result_keys and not self.has_ended(job):
            self.cancel(job)
            self.store.delete_job_objects(job.id, keep=("job.json", "control.json"))
            return
        results = {kept_key(job.id, name) for name in KEPT_NAMES} - chat.kept_keys()
        self.store.delete_job_objects(job.id, *(job.result_keys or ()), *sorted(results))
        with self._lock:
            self._jobs.pop(job.id, None)
        self.models.forget(job.result_keys)

    def is_ours_to_delete(self, job: PaintJob) -> bool:
        """Return whether the status message is still one: a second bot may have ended the job.

        It may have made the message the picture itself.
        """
        stored = self.store.load_job(job.id)
        return stored is not None and stored.status_message == job.status_message

    def take(self, job_id: str) -> None:
        """Ask the model for its best picture so far. The job goes on to its end as usual."""
        job = self.find(job_id)
        if job:
            self.store.put_json(job.key("control.json"), {"action": "take"})
            job.is_taken = True
            job.last_look = 0.0

    def cancel(self, job: PaintJob) -> None:
        """Tell the model, once, that nobody waits for the picture."""
        if not job.is_cancelled:
            self.store.put_json(job.key("control.json"), {"action": "cancel"})
            job.is_cancelled = True

    # Messages that are sent once

    def send_once(self, job: PaintJob, part: str, method: str, **values: Json) -> bool:
        """Send a part of the answer and record that. False where Telegram refuses it for good."""
        if part in job.sent:
            return True
        try:
            message = self.messenger.send(
                job.chat,
                job.thread,
                method,
                reply_parameters=reply_to(job.request.content.message_id),
                **values,
            )
        except TelegramError as error:
            if is_refusal(error):
                return False
            raise
        if part == "status":
            job.status_message = message.message_id
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
        has_spoiler = job.request.content.has_spoiler
        if attempt not in job.sent:
            self.record_sent(job, attempt)
        elif job.status_message and self.messenger.show_picture(
            job.chat, job.status_message, kind, file, caption, buttons, has_spoiler
        ):
            job.status_message = None  # it holds the picture now, and must stay
            return self.record_sent(job, kind)
        try:
            message = self.messenger.send(
                job.chat,
                job.thread,
                SEND_METHODS[kind],
                files={kind: file},
                caption=caption or None,
                reply_markup=buttons,
                reply_parameters=reply_to(job.request.content.message_id),
                has_spoiler=True if has_spoiler and kind == "photo" else None,
            )
        except TelegramError as error:
            if error.code:  # an answer came, so nothing was sent
                job.sent.remove(attempt)
            if is_refusal(error):
                job.refusal = error.description
                return False
            raise
        job.file_id = job.file_id or message.file_id
        return self.record_sent(job, kind)

    def record_sent(self, job: PaintJob, part: str) -> bool:
        job.sent.append(part)
        self.store.save_job(job)
        return True


def earlier_jobs(chat: Chat, job: PaintJob) -> list[str]:
    """Return the ids of the chat's jobs of the same model that come before this one."""
    earlier = []
    for painting in chat.jobs:
        if painting.job_id == job.id:
            break
        if painting.request.model == job.request.model:
            earlier.append(painting.job_id)
    return earlier


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
        items, _, _ = self.store.list_page(LESSONS_PREFIX)
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
        if age_of(lesson) > LESSON_DEADLINE_SECONDS:
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
            lesson.training_job = training_job_name(template.name_prefix, lesson.name, lesson.id)
            self.store.save_lesson(lesson)
        if not lesson.status_message:
            message = self.messenger.send(
                lesson.chat,
                lesson.thread,
                "sendMessage",
                text=self.status(lesson, "lesson_waits"),
                reply_markup=lesson_buttons(lesson),
            )
            lesson.status_message = message.message_id
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
            if age_of(lesson) < LESSON_START_SECONDS:
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
        data, _ = self.store.get(lesson.training_key("progress.json"), MAX_RECORD_BYTES)
        progress = Progress()
        with contextlib.suppress(MisfitError):
            progress = decode(data, Progress)
        words = self.status(lesson, "lesson_waits")
        if progress.steps:
            words = f"{self.status(lesson)}\n{progress_line(lesson.language, progress)}"
        self.show(lesson, words, progress.preview or b"")

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
        if lesson.name not in (self.models.read_output(keys).styles or []):
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
    # Whose button it is is not named: any admin may stop a training.
    return keyboard([[(label, f"unteach:{lesson.id}")]])


# ---------------------------------------------------------------- who is served when


class Dispatcher:
    """Polls Telegram, watches S3, and has whatever can go on take a step.

    Of each chat one thing is done at a time, and its updates in order: an update that waits to be
    tried again holds up the later ones of its chat. A job that waits holds up nothing.

    Telegram hands out a hundred updates until they are confirmed, those of all chats together. So
    that nobody's messages hold up those of others, a full batch is stored, and confirmed before it
    is handled; and of a user who sends many at once the bot handles the first ones, and answers
    the rest in one sentence. A /cancel takes the place of all that its sender has waiting.
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
        self._has_polled = False  # Telegram has taken the token in this process
        self._polled_at: float = -ALIVE_SECONDS  # when Telegram answered last
        self._lock = threading.Condition()  # notified when an update has been handled
        self._inbox: dict[int, Update | None] = {}  # not confirmed; None: handled; guarded by _lock
        self._backlog: dict[int, Update] = {}  # confirmed, stored, not handled; guarded by _lock
        self._stored: set[str] = set()  # keys of what is stored of the two; guarded by _lock
        self._serving: set[int] = set()  # chats for which a thread works; guarded by _lock

    def dispatch(self) -> None:
        """Hand every update and job that can take a step to a thread."""
        if self._stopping.is_set():
            return
        with self._lock:
            taken = set(self._serving)
            for update in self.waiting():
                is_due = time.monotonic() >= update.retry.not_before
                if is_due and update.chat not in taken:
                    update.is_served = True
                    self._serving.add(update.chat)
                    self._pool.submit(self.take_update, update)
                if is_due or not update.is_rest:  # else it waits for the end of a flood
                    taken.add(update.chat)

            # The more jobs are pending, the less often each one is looked at.
            jobs = self.runner.pending()
            pace = max(EDIT_SECONDS, len(jobs) / STATUS_UPDATES_PER_SECOND)
            now = time.monotonic()
            group_jobs = Counter(job.chat for job in jobs if job.chat < 0)
            for job in jobs:
                job_pace = max(pace, GROUP_EDIT_SECONDS * group_jobs[job.chat])
                if job.chat not in taken and self.runner.is_due(job, now, job_pace):
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
            with self._lock:
                update.is_served = False
        else:
            with self._lock:
                self.mark_handled(update)
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
            is_submitted = job.step is Step.SUBMIT and not job.is_queued
            if is_submitted or self.runner.has_ended(job):
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
            self.look(second)
            if second % 60 == 0:
                log.info(self.health())
            time.sleep(1)

    def look(self, second: int) -> None:
        """Look into S3, and hand out what can go on."""
        try:
            is_time = second < 120 or second % 600 == 0
            if is_time:
                self.lessons.scan()
            if is_time or self.runner.pending() or self.lessons.pending():
                self.models.scan_answers()
                self.runner.scan_jobs()
                self.runner.mark_answered()
            self.delete_handled()
        except Exception as error:  # the watcher must not die
            log_and_back_off(self.metrics, "watcher", error, 1)
        self.dispatch()

    def health(self) -> str:
        """Return figures: what was done, what is pending, how long the oldest update waits."""
        with self._lock:
            received = [update.received for update in self.waiting()]
        lag = time.monotonic() - min(received, default=time.monotonic())
        jobs = len(self.runner.pending())
        return f"{self.metrics} jobs={jobs} waiting={len(received)} lag={lag:.1f}s"

    def is_alive(self) -> bool:
        """Return whether Telegram has answered lately."""
        return time.monotonic() - self._polled_at < ALIVE_SECONDS

    def waiting(self) -> list[Update]:
        """Return the updates that are not handled, in order. The caller holds _lock."""
        return [*self._backlog.values(), *filter(None, self._inbox.values())]

    def mark_handled(self, update: Update) -> None:
        """Forget an update. The caller holds _lock."""
        self._backlog.pop(update.id, None)
        if update.id in self._inbox:
            self._inbox[update.id] = None

    def confirmed_offset(self) -> int | None:
        """Return the offset that confirms all updates below the first one that needs Telegram.

        None: there is nothing to confirm.
        """
        with self._lock:
            needed = [number for number, u in self._inbox.items() if u and not u.key]
            first = min(needed, default=max(self._inbox, default=-1) + 1)
            confirmed = {number: u for number, u in self._inbox.items() if number < first}
            for number, update in confirmed.items():
                if update:
                    self._backlog[number] = update
                del self._inbox[number]
        return first or None

    def has_unhandled(self) -> bool:
        """Whether an update can soon be confirmed.

        The caller holds _lock, or can bear a late answer.
        """
        return any(update and not update.key for update in self._inbox.values())

    # What waits in S3

    def store_waiting(self) -> bool:
        """Store all updates that are not handled, so that they can be confirmed.

        False where that is not possible.
        """
        styles = self.handler.catalog.styles()
        with self._lock:
            updates = [u for u in self._inbox.values() if u and not u.key]
            if not updates:
                return True
            if len(self._backlog) > BACKLOG_LENGTH:
                return False
            stored = []
            for update in updates:
                raw = without_words(update.raw, styles, self.handler.me)
                stored.append(
                    StoredUpdate(
                        update.id,
                        raw.message,
                        raw.callback_query,
                        raw.guest_message,
                        update.left_out,
                    )
                )
        key = f"{UPDATES_PREFIX}{updates[0].id}.json"
        try:
            self.handler.store.put_json(key, stored)
        except S3_ERRORS as error:
            log_and_back_off(self.metrics, key, error, 1)
            return False
        with self._lock:
            self._stored.add(key)
            for update in updates:
                update.key = key
        return True

    def load_stored(self) -> bool:
        """Take up what an earlier process has confirmed and not handled.

        False where S3 fails: try again, before any later update is handled.
        """
        try:
            items, _, _ = self.handler.store.list_page(UPDATES_PREFIX)
            for item in items:
                self.load_updates(item["Key"])
        except S3_ERRORS as error:
            time.sleep(log_and_back_off(self.metrics, UPDATES_PREFIX, error, 3))
            return False
        with self._lock:
            self._backlog = dict(sorted(self._backlog.items()))
        return True

    def load_updates(self, key: str) -> None:
        stored, _ = self.handler.store.read(key, list[StoredUpdate])
        with self._lock:
            self._stored.add(key)
            for raw in stored or []:
                number = raw.update_id
                update = Update(number, chat_of(raw), raw, raw.left_out, key=key)
                incoming = read_update(raw, self.handler.me)
                update.is_rest = update.left_out > 0 and not is_cancel(incoming)
                self._backlog[number] = update

    def delete_handled(self) -> None:
        """Delete the objects at updates/ of which all is handled."""
        with self._lock:
            handled = self._stored.difference(update.key for update in self.waiting())
        if handled:
            self.handler.store.delete(handled)
            with self._lock:
                self._stored -= handled

    def call_until_answered(self, method: str, **values: Json) -> Json:
        """Call Telegram until it answers. Raises ValueError where it refuses the token.

        Of a token that has worked it must say so several times: a proxy may say it once.
        """
        attempts = 0
        while True:
            try:
                return self.telegram.call(method, **values)
            except TelegramError as error:
                attempts += 1
                is_refused = error.code in (401, 404)
                if is_refused and (not self._has_polled or attempts >= REFUSALS):
                    advice = SETTINGS["TELEGRAM_TOKEN"].advice
                    raise ValueError(f"TELEGRAM_TOKEN is refused: set it to {advice}") from None
                if error.code == 409 and "webhook" in error.description:
                    self.telegram.try_call("deleteWebhook")
                time.sleep(log_and_back_off(self.metrics, method, error, attempts))

    def introduce(self) -> None:
        """Learn the bot's name, and tell Telegram the commands in both languages."""
        self.handler.me = self.call_until_answered("getMe")
        self.telegram.try_call("deleteWebhook")
        for language, code in (("en", None), ("ru", "ru")):
            commands = [
                {"command": name, "description": translate(language, f"command_{name}")}
                for name in ("start", "paint", "settings", "cancel", "help")
            ]
            self.telegram.try_call("setMyCommands", commands=commands, language_code=code)

    def run(self) -> None:
        """Take updates in, for ever. Telegram repeats those that are not confirmed."""
        self.introduce()
        while not self.load_stored():
            continue
        threading.Thread(target=self.watch, name="watcher", daemon=True).start()
        while True:
            self.poll()

    def poll(self) -> None:
        """Confirm what is handled or stored, and take in what comes then."""
        offset = self.confirmed_offset()
        updates = self.call_until_answered(
            "getUpdates",
            read_timeout=60,
            timeout=0 if self.has_unhandled() else 50,
            limit=BATCH_LENGTH,
            allowed_updates=self.update_kinds(),
            offset=offset,
        )
        self._has_polled = True
        self._polled_at = time.monotonic()
        self.take_in(updates)
        self.dispatch()
        if len(updates) >= BATCH_LENGTH and self.store_waiting():
            return  # there are more
        if updates and not self._inbox:  # none has a number, so they come again and again
            time.sleep(1)
        # A short wait lets the next call confirm what is handled by then.
        with self._lock:
            self._lock.wait_for(lambda: not self.has_unhandled(), 0.3)

    def update_kinds(self) -> list[str]:
        kinds = ["message", "callback_query"]
        if self.handler.me.supports_guest_queries:
            kinds.append("guest_message")
        return kinds

    def take_in(self, updates: Iterable[Raw]) -> None:
        """Put new updates into the inbox. What does not fit is left out, and so confirmed."""
        with self._lock:
            for raw in updates:
                update = self.read_or_leave_out(raw)
                if update is None or update.update_id in self._inbox:
                    continue
                number = update.update_id
                if number in self._backlog:  # a process was killed before it confirmed it
                    self._inbox[number] = None
                    continue
                # Not marked as handled for a moment: SIGTERM may interrupt any line of this thread,
                # and what is handled is confirmed then.
                self.take_turn(Update(number, chat_of(update), update))
                self.metrics.add("updates")

    def take_turn(self, update: Update) -> None:
        """Put an update into the inbox, in place of others if its sender has too many waiting.

        The caller holds _lock.
        """
        incoming = read_update(update.raw, self.handler.me)
        if incoming is None and not update.raw.callback_query:  # what people say to each other
            self._inbox[update.id] = None
            return
        self._inbox[update.id] = update
        sender = sender_of(update.raw)
        earlier = [u for u in self.waiting() if sender_of(u.raw) == sender and u is not update]
        floods = [u for u in earlier if u.is_rest and not u.is_served]
        is_too_much = bool(floods) or count_sendings(earlier, update) >= MESSAGES_AT_ONCE
        replaced: list[Update] = []
        if is_cancel(incoming):
            # A button may be that of an older job, and then cancels nothing.
            if is_too_much or (incoming and isinstance(incoming.event, Command)):
                replaced = [u for u in earlier if not u.is_served]
            update.has_replaced = bool(replaced)
        elif is_too_much:
            replaced = floods
            now = time.monotonic()
            update.is_rest = True
            update.left_out = 1
            update.received = min(u.received for u in [update, *floods])
            update.retry.not_before = min(now + QUIET_SECONDS, update.received + FLOOD_SECONDS)
        for other in replaced:
            update.left_out += other.left_out
            self.mark_handled(other)
            self.metrics.add("left_out")

    def read_or_leave_out(self, raw: Raw) -> TelegramUpdate | None:
        """Return an update, or None for one that does not fit. The caller holds _lock.

        It is not stored: it may hold a person's words.
        """
        try:
            return decode(raw, TelegramUpdate)
        except MisfitError as error:
            reason = error
        number = 0
        with contextlib.suppress(MisfitError):
            number = decode(raw, UpdateId).update_id
        if number not in self._inbox:
            self.metrics.add("put_aside")
            log.warning("update %s is left out: %s", number or "without a number", reason)
        if number:
            self._inbox.setdefault(number, None)
        return None

    def shut_down(self) -> None:
        """Let the running steps end, and confirm what is handled. Takes at most 8 s."""
        self._stopping.set()
        end = time.monotonic() + 6
        while self._serving and time.monotonic() < end:
            time.sleep(0.05)
        offset = self.confirmed_offset()
        self.telegram.try_call("getUpdates", read_timeout=2, offset=offset, limit=1, timeout=0)
        log.info("stopped: %s", self.health())


# ---------------------------------------------------------------- the deployment


class Monitor:
    """Tells CloudWatch that the bot is alive, and the admins which alarms go off.

    Whether an admin knows of an alarm is stored after the message was sent: a kill between the two
    can only repeat it.
    """

    def __init__(
        self,
        config: Config,
        telegram: TelegramClient,
        store: Store,
        connect_cloudwatch: Callable[[], Any],
        languages: Mapping[int, str],
        metrics: Metrics,
    ) -> None:
        self.config = config
        self.telegram = telegram
        self.store = store
        self._connect_cloudwatch = connect_cloudwatch
        self.languages = languages  # of the admins who have written to this process
        self.metrics = metrics

    @cached_property
    def cloudwatch(self) -> Any:  # noqa: ANN401 - boto3's client
        return self._connect_cloudwatch()

    def start(self, is_alive: Callable[[], bool]) -> None:
        """Look once a minute, in a thread of its own."""
        threading.Thread(target=self.run, args=(is_alive,), name="monitor", daemon=True).start()

    def run(self, is_alive: Callable[[], bool]) -> None:
        while True:
            self.look(is_alive())
            time.sleep(MONITOR_SECONDS)

    def look(self, is_alive: bool) -> None:
        """Do what is due. Where one thing fails, the other goes on."""
        if is_alive:
            self.attempt("heartbeat", self.beat)
        if self.config.admins:
            self.attempt("alarms", lambda: self.tell_admins(self.find_alarms()))

    def attempt(self, what: str, call: Callable[[], None]) -> bool:
        """Return whether it was done. A failure is logged: the monitor must not die."""
        try:
            call()
        except Exception as error:
            log_and_back_off(self.metrics, what, error, 1)
            return False
        return True

    def beat(self) -> None:
        """Write the metric whose absence is an alarm. Raises one of S3_ERRORS."""
        dimension = {"Name": DEPLOYMENT_DIMENSION, "Value": self.config.deployment}
        beat = {"MetricName": HEARTBEAT_METRIC, "Dimensions": [dimension], "Value": 1.0}
        self.cloudwatch.put_metric_data(Namespace=METRICS_NAMESPACE, MetricData=[beat])

    def alarm_texts(self) -> dict[str, tuple[str, str]]:
        """Return the key of the text and the endpoint of each alarm, by the alarm's name."""
        texts = {}
        for endpoint in self.config.endpoints.values():
            for kind in ALARM_KINDS:
                texts[f"{endpoint}-{kind}"] = (f"alarm_{kind}", endpoint)
        return texts

    def find_alarms(self) -> list[str]:
        """Return the names of the alarms that are on. Raises one of S3_ERRORS."""
        names = list(self.alarm_texts())
        alarms = self.cloudwatch.describe_alarms(AlarmNames=names)["MetricAlarms"]
        return sorted(alarm["AlarmName"] for alarm in alarms if alarm["StateValue"] == "ALARM")

    def tell_admins(self, alarms: list[str]) -> None:
        """Tell each admin what has changed since the last message. Raises one of S3_ERRORS.

        Who cannot be told now is told later.
        """
        stored, etag = self.store.read(ADMINS_KEY, dict[str, Admin], {})
        admins = dict(stored or {})
        for number in sorted(self.config.admins):
            before = admins.get(str(number), Admin())
            language = self.languages.get(number, before.language)
            words = self.describe_change(before.alarms, alarms, language)
            if words and not self.attempt(f"admin {number}", partial(self.send, number, words)):
                continue
            after = Admin(language, tuple(alarms))
            if after != before:
                admins[str(number)] = after
                etag = self.store.replace_json(ADMINS_KEY, admins, etag)

    def describe_change(self, before: Iterable[str], after: Iterable[str], language: str) -> str:
        """Return a line for each alarm that went off, and for each that is over."""
        texts = self.alarm_texts()
        changes = [("alarm", set(after) - set(before)), ("alarm_over", set(before) - set(after))]
        lines = []
        for kind, names in changes:
            for name in sorted(names.intersection(texts)):
                key, endpoint = texts[name]
                what = translate(language, key, endpoint=endpoint)
                lines.append(translate(language, kind, what=what))
        return "\n".join(lines)

    def send(self, admin: int, words: str) -> None:
        """Send to an admin. Raises TelegramError.

        One who has never written to the bot, or blocks it, is left out.
        """
        try:
            self.telegram.send(admin, None, "sendMessage", text=words)
        except TelegramError as error:
            if error.code not in (400, 403):
                raise
            log.warning("admin %d cannot be told of an alarm: %s", admin, error)


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
        connect_cloudwatch: Callable[[], Any] | None = None,
    ) -> None:
        metrics = Metrics()
        self.config = config
        self.telegram = telegram
        self.store = Store(s3, config.bucket, metrics)
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
        self.monitor: Monitor | None = None
        if config.deployment and connect_cloudwatch:
            languages = self.handler.languages
            self.monitor = Monitor(
                config, telegram, self.store, connect_cloudwatch, languages, metrics
            )

    def run(self) -> None:
        """Serve until SIGTERM or Ctrl-C; end within 10 s of it.

        Raises ValueError for a refused token.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, raise_stop_signal)
        if self.monitor:
            self.monitor.start(self.dispatcher.is_alive)
        try:
            self.dispatcher.run()
        except StopSignal:
            self.dispatcher.shut_down()
        os._exit(0)  # without waiting for threads that hang in a slow network

    def check(self) -> int:
        """Try the token, the bucket, both endpoints and CloudWatch, and print what is wrong.

        Returns the exit code.
        """
        checks: dict[str, Callable[[], None]] = {
            "TELEGRAM_TOKEN": self.check_token,
            "BUCKET": self.check_bucket,
            "NST_ENDPOINT": lambda: self.check_endpoint("nst"),
            "CYCLEGAN_ENDPOINT": lambda: self.check_endpoint("cyclegan"),
        }
        if self.monitor:
            checks["DEPLOYMENT"] = self.check_deployment
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

    def check_deployment(self) -> None:
        assert self.monitor is not None
        self.monitor.beat()
        self.monitor.find_alarms()


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
        connect_cloudwatch=lambda: session.client("cloudwatch", config=limits),
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
