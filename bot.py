"""A Telegram chat that sends a photo back as a painting, and that may die at any moment and lose nothing.

Telegram comes in by long polling, chats and jobs are JSON in S3, models are asynchronous SageMaker endpoints.
What makes it safe to kill:
1. An update is confirmed to Telegram once what it changed is in S3; handled twice, it changes nothing more.
2. A job is named after its update, and jobs/<job>/job.json is written before the chat that owns the job.
3. A job that its chat does not own is thrown away unseen: to cancel is to let go of it.
4. That a picture was sent is recorded before the job's objects are removed.
"""

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
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import count, takewhile
from typing import Any

import boto3
import requests
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

MAX_BYTES, MAX_PIXELS = (
    20 * 2**20,
    40_000_000,
)  # of a picture sent to us; getFile gives no more than 20 MB
PHOTO_BYTES, PHOTO_SIDES, PHOTO_RATIO = (
    10 * 2**20,
    10_000,
    20,
)  # of a photo that Telegram takes from us
WORKERS, PICTURES, GLANCES, KEPT = (
    16,
    4,
    12,
    10,
)  # chats served, pictures held, glances a second, results for buttons
EDIT_SECONDS, WAKING_SECONDS, TIME_BUDGET, MODEL_SECONDS, DEADLINE = (
    3,
    10,
    600,
    900,
    3600,
)  # the last: with all waiting
S3_ERRORS = (BotoCoreError, ClientError)

# What the models' endpoints, deploy.py and local/ must agree on with the bot; docs/contract.md tells the whole contract.
MODELS = ("nst", "cyclegan")
CHATS_PREFIX = "chats/"
JOBS_PREFIX = "jobs/"
ASYNC_PREFIX = "async/"
OUTPUT_PREFIX = "async/output/"
FAILURE_PREFIX = "async/failure/"
INVOCATION_SECONDS = 900

Json = Any  # whatever JSON can hold
log = logging.getLogger("bot")

TEXTS = {  # English, Russian
    "hello": ("Hello! I turn photos into paintings.", "Здравствуйте! Я превращаю фотографии в картины."),
    "help": ("Send me a photo, then choose a painter or send a style picture. /cancel stops me. {support}",
             "Пришлите фотографию, потом выберите художника или пришлите образец. /cancel остановит меня. {support}"),
    "ask_content": ("Please send me the photo to paint.", "Пришлите фотографию, которую нужно нарисовать."),
    "got_content": ("Got your photo.", "Фотография у меня."), "cancelled": ("Cancelled.", "Отменено."),
    "ask_style": ("Choose a painter, or send a picture as the style.", "Выберите художника или пришлите образец."),
    "busy": ("I am still painting: wait, or stop me with /cancel.", "Я ещё рисую: подождите или нажмите /cancel."),
    "nothing": ("There is nothing to cancel.", "Отменять нечего."), "left": ("about {left} s left", "ещё {left} с"),
    "unknown_style": ("I do not have this painter.", "Такого художника у меня нет."),
    "bad_content": ("That is not a picture.", "Это не картинка."),
    "not_image": ("This file is not an image.", "Этот файл не изображение."),
    "bad_command": ("I do not know this command, see /help.", "Такой команды я не знаю, смотрите /help."),
    "image_too_large": ("Too large: at most 20 MB and 40 megapixels.", "Слишком велика: до 20 МБ и 40 мегапикселей."),
    "expired": ("I no longer have that photo.", "Этой фотографии уже нет."), "b_retry": ("Try again", "Ещё раз"),
    "limit": ("Only {limit} a day: come back after midnight UTC.", "Только {limit} в день: жду после полуночи UTC."),
    "private": ("This bot is private. Your number is {user}. {support}", "Бот закрыт. Ваш номер: {user}. {support}"),
    "oops": ("Something went wrong on my side. Please try again.", "У меня что-то сломалось. Попробуйте ещё раз."),
    "accepted": ("Painting your photo: {style}.", "Рисую ваше фото: {style}."), "b_cancel": ("Cancel", "Отменить"),
    "waking": ("The model is waking up (a few minutes) or busy.", "Модель просыпается (несколько минут) или занята."),
    "caption": ("Painted: {style}, {seconds} s. Change it below, or send me another photo.",
                "Готово: {style}, {seconds} с. Измените картину кнопками или пришлите другую фотографию."),
    "failed": ("Sorry, this painting did not work out.", "Простите, эта картина не получилась."),
    "go_on": ("Please try again, or send me another photo.", "Попробуйте ещё раз или пришлите другую."),
    "endpoint": ("The model is not running. {support}", "Модель не запущена. {support}"),
    "deadline": ("The model did not answer in time.", "Модель не ответила вовремя."),
    "internal": ("Something broke in the model.", "В модели что-то сломалось."),
    "image_unreadable": ("I cannot read this picture.", "Не могу прочитать эту картинку."),
    "image_too_small": ("The picture is too small.", "Картинка слишком мала."),
    "b_stronger": ("Stronger", "Сильнее"), "b_softer": ("Softer", "Мягче"), "b_file": ("As a file", "Файлом"),
    "b_colours": ("Keep my colours", "Мои цвета"), "b_theirs": ("The style's colours", "Цвета стиля"),
    "b_another": ("Another style", "Другой стиль"), "own_style": ("your picture's style", "стиль вашей картины"),
    "c_start": ("new painting", "новая картина"), "c_cancel": ("stop it", "остановить"), "c_help": ("help", "помощь"),
}  # fmt: skip


def text(lang: str, *keys: str, **values: Json) -> str:
    """The texts of `keys` in the user's language, "ru", or else English; a key that has none is a text itself."""
    return " ".join(
        TEXTS[key][lang == "ru"].format(**values) if key in TEXTS else key for key in keys
    )


STYLES_SHOWN = {"monet": "Monet", "vangogh": "Van Gogh", "cezanne": "Cezanne", "ukiyoe": "Ukiyo-e"}
STYLE = r"([\w.-]{1,50})(?:=([^,]+))?"
SETTINGS = {  # of the environment: what each must look like, what it is if not set, and what to set it to
    "TELEGRAM_TOKEN": (r".+", "", "the token that @BotFather gave you"),
    "BUCKET": (r".+", "", "the name of the S3 bucket for chats and jobs"),
    "NST_ENDPOINT": (
        r".+",
        "",
        "the name of the SageMaker endpoint that takes any picture's style",
    ),
    "CYCLEGAN_ENDPOINT": (r".+", "", "the name of the SageMaker endpoint with the painters"),
    "STYLES": (
        rf"\s*{STYLE}(\s*,\s*{STYLE})*\s*",
        ",".join(STYLES_SHOWN),
        "names such as monet,vangogh or monet=Claude",
    ),
    "ALLOWED_USERS": (r"[\d\s,]+", " ", "whole numbers, with commas between them"),
    "ADMINS": (r"[\d\s,]+", " ", "whole numbers, with commas between them"),
    "DAILY_LIMIT": (r"\d+", "0", "a whole number"),
    "TELEGRAM_API": (r"https?://.+", "https://api.telegram.org", "the address of a Bot API server"),
    "SUPPORT": (r".+", "Questions? Please ask the author.", "a sentence"),
}


@dataclass
class Chat:
    """chats/<chat>.json: waits for a photo, for a style (content is set) or for its job (job is set)."""

    content: Json = None  # {"file_id", "document": whether it came as a file}
    job: str | None = None
    kept: dict[str, Json] = field(default_factory=dict)  # recent jobs' work, for the buttons
    seen: list[int] = field(
        default_factory=list
    )  # updates handled last; their ids may restart, so no "<"
    reply: list[str] = field(default_factory=list)  # the texts that answer the last of them


@dataclass
class Job:
    """An update, and the painting that it may lead to: jobs/<id>/job.json, without what stands from `after` on."""

    id: str
    chat: int = 0  # positive: private
    user: int = 0
    thread: int | None = None
    lang: str = "en"
    step: str = "leftover"  # of an update: answer; of a painting: start, wait
    work: dict[str, Json] = field(default_factory=dict)  # what to make of what, see begin()
    style: str = ""  # in words
    model: str = ""  # nst or cyclegan
    created: float = field(default_factory=time.time)
    message: int | None = None  # the status message
    places: list[str] = field(
        default_factory=list
    )  # the keys for SageMaker's answer: output, failure
    sent: list[str] = field(
        default_factory=list
    )  # what the user has got: status, photo, document, reason
    after: float = 0.0  # no step before then (monotonic)
    tries: int = 0
    verdict: str = ""  # why it failed, where we found out ourselves
    glanced: float = field(default_factory=time.monotonic)
    progress: bool = False  # the model has told some
    shown: str = ""  # the words of the status message
    update: Json = None

    def key(self, name: str) -> str:
        return f"jobs/{self.id}/{name}"

    def buttons(self, *rows: list[str]) -> Json:
        return keyboard(
            [[(text(self.lang, f"b_{verb}"), f"{verb}:{self.id}") for verb in row] for row in rows]
        )


class TelegramError(Exception):
    """A refusal with Telegram's code; 0: no whole answer, or not Telegram's."""

    def __init__(self, method: str, code: int, description: str, hints: Mapping[str, Json]) -> None:
        super().__init__(f"{method}: {code} {description}")
        self.method, self.code, self.description = method, code, description
        self.retry_after, self.moved = (
            float(hints.get("retry_after", 0)),
            hints.get("migrate_to_chat_id"),
        )


def judge(error: Exception, tries: int) -> str:
    """What to tell the user about an error that will not pass; nothing about one that may."""
    if isinstance(error, TelegramError):
        reason = (
            "internal"
            if error.method != "getFile"
            else "image_too_large"
            if "big" in str(error)
            else "expired"
        )
        return (
            ""
            if error.moved or error.code in (0, 429) or (error.code >= 500 and tries < 20)
            else reason
        )
    if isinstance(error, ClientError) and error.operation_name == "InvokeEndpointAsync":
        may_pass = error.response["ResponseMetadata"]["HTTPStatusCode"] >= 429 or "Throttl" in str(
            error
        )
        return "" if may_pass else "endpoint"
    return "" if isinstance(error, S3_ERRORS) else "internal"


def keyboard(rows: list[list[tuple[str, str]]]) -> Json:
    return {
        "inline_keyboard": [
            [{"text": w, "callback_data": d} for w, d in row] for row in rows if row
        ]
    }


def read_content(message: Mapping[str, Json]) -> tuple[str, Json]:
    """Kind and value of a message: command or text, an image and what it is, or wrong and why."""
    if words := message.get("text", "").strip():
        return (
            ("command", words[1:].split(" ")[0].lower())
            if words.startswith("/")
            else ("text", words)
        )
    file = message["photo"][-1] if message.get("photo") else message.get("document")
    if not file or "animation" in message:  # which comes with a document too
        return "wrong", "bad_content"
    if "photo" not in message and not str(file.get("mime_type")).startswith("image/"):
        return "wrong", "not_image"
    if (
        file.get("file_size", 0) > MAX_BYTES
        or file.get("width", 0) * file.get("height", 0) > MAX_PIXELS
    ):
        return "wrong", "image_too_large"
    return "image", {"file_id": file["file_id"], "document": "photo" not in message}


def expect(chat: Chat, reason: str = "") -> list[str]:
    """Say what the chat waits for, after the reason why what came was not it."""
    wanted = "busy" if chat.job else "ask_style" if chat.content else "ask_content"
    return [reason, wanted] if reason and not chat.job else [wanted]


class Bot:
    """All that is shared. Raises ValueError with a line for each setting that is missing or unclear."""

    def __init__(self, env: Mapping[str, str]) -> None:
        aws, known = (
            boto3.Session(),
            {name: env.get(name) or default for name, (_, default, _) in SETTINGS.items()},
        )
        wrong = [
            n
            for n, (form, _, _) in SETTINGS.items()
            if not re.fullmatch(form, known[n], re.ASCII | re.S)
        ]
        lines = [
            f"{n} is {'unclear' if known[n] else 'not set'}: set it to {SETTINGS[n][2]}"
            for n in wrong
        ]
        if not (aws.region_name and aws.get_credentials()):
            lines.append(
                "AWS is not set up: set AWS_DEFAULT_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        if lines:
            raise ValueError("\n".join(lines))
        self.token, self.bucket, self.support = (
            known["TELEGRAM_TOKEN"],
            known["BUCKET"],
            known["SUPPORT"],
        )
        self.api, self.name, self.daily_limit = (
            known["TELEGRAM_API"].rstrip("/"),
            "",
            int(known["DAILY_LIMIT"]),
        )
        self.endpoints = {"nst": known["NST_ENDPOINT"], "cyclegan": known["CYCLEGAN_ENDPOINT"]}
        styles = re.findall(STYLE, known["STYLES"])
        self.styles = {name: words or STYLES_SHOWN.get(name) or name.title() for name, words in styles}
        self.admins = {int(number) for number in re.findall(r"\d+", known["ADMINS"])}
        self.allowed = {int(number) for number in re.findall(r"\d+", known["ALLOWED_USERS"])}
        self.web, self.pool = requests.Session(), ThreadPoolExecutor(WORKERS)
        self.pictures = threading.Semaphore(PICTURES)
        self.web.mount("http", requests.adapters.HTTPAdapter(pool_maxsize=WORKERS + 2))
        limits = {"connect_timeout": 5, "read_timeout": 20, "max_pool_connections": WORKERS + 2}
        once = Config(
            **limits, retries={"total_max_attempts": 1}
        )  # a repeated call would paint twice
        self.s3, self.runtime = (
            aws.client("s3", config=Config(**limits)),
            aws.client("sagemaker-runtime", config=once),
        )
        self.inbox: dict[int, Job | None] = {}  # updates that are not confirmed; None: handled
        self.jobs: dict[str, Job] = {}  # all paintings that are pending
        self.busy: set[int | str] = set()  # chats for which something is being done
        self.lock = threading.Condition()  # of the inbox, and of who is busy
        self.answers: set[str] = set()  # keys seen under async/
        self.cursors = {"async/": "", "jobs/": ""}  # where the listing of a prefix goes on
        self.count = {"updates": 0, "done": 0, "failed": 0, "cancelled": 0, "errors": 0}

    # ------------------------------------------------------------ single calls of Telegram and S3
    def call(self, method: str, files: Json = None, wait: float = 30, **values: Json) -> Json:
        """One request to the Bot API: its result, or TelegramError. Values that are None are left out."""
        values = {key: value for key, value in values.items() if value is not None}
        form = {
            key: value if isinstance(value, str) else json.dumps(value)
            for key, value in values.items()
        }
        body: Json = {"data": form, "files": files} if files else {"json": values}
        try:
            answer = self.web.post(
                f"{self.api}/bot{self.token}/{method}", timeout=(10, wait), **body
            ).json()
            if answer["ok"]:
                return answer["result"]
            refused = (
                int(answer["error_code"]),
                str(answer["description"]),
                answer.get("parameters") or {},
            )
        except (
            requests.RequestException,
            ValueError,
            KeyError,
            TypeError,
        ) as error:  # it may show the token
            raise TelegramError(
                method, 0, f"no whole answer ({type(error).__name__})", {}
            ) from None
        raise TelegramError(method, *refused)

    def say(self, chat: int, thread: int | None, method: str, **values: Json) -> Json:
        """Send to a chat, past a topic that is gone. A chat that has moved takes its state along: try again then."""
        try:
            return self.call(method, chat_id=chat, message_thread_id=thread, **values)
        except TelegramError as error:
            if thread and error.code == 400 and "thread" in error.description:
                return self.say(chat, None, method, **values)
            if error.code == 403:  # nobody is there
                self.let_go(chat)
            if error.moved:
                self.put_json(f"chats/{error.moved}.json", asdict(self.load_chat(chat)[1]))
                self.put_json(f"chats/{chat}.json", {"moved": error.moved})
            raise

    def hint(self, method: str, **values: Json) -> None:
        with contextlib.suppress(TelegramError):
            self.call(method, **values)

    def note(self, what: str, error: Exception, tries: int) -> float:
        """Log a failed step, with its trace if the fault is ours. Returns the seconds to wait before the next one."""
        wait = max(
            getattr(error, "retry_after", 0),
            min(30.0, 0.5 * 2 ** min(tries, 10)) * random.uniform(0.5, 1),
        )
        self.count["errors"] += 1
        ours = not isinstance(error, (TelegramError, *S3_ERRORS))
        log.warning("%s: %s; wait %.1f s", what, error, wait, exc_info=ours)
        return wait

    def get(self, key: str) -> tuple[bytes, str]:
        """The object and its ETag; (b"", "") where there is none."""
        try:
            found = self.s3.get_object(Bucket=self.bucket, Key=key)
        except self.s3.exceptions.NoSuchKey:
            return b"", ""
        return found["Body"].read(), found["ETag"]

    def get_json(self, key: str) -> tuple[dict[str, Json], str]:
        """The same; {} for what is no JSON object, so that it gets written anew."""
        data, etag = self.get(key)
        with contextlib.suppress(ValueError, TypeError):
            return dict(json.loads(data)), etag
        return {}, etag

    def put_json(self, key: str, value: Json, etag: str | None = None) -> None:
        """With `etag` only over that version, "" being none; ClientError PreconditionFailed otherwise."""
        condition = {} if etag is None else {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
        self.s3.put_object(
            Bucket=self.bucket, Key=key, Body=json.dumps(value).encode(), **condition
        )

    def page(self, prefix: str, after: str = "") -> tuple[list[dict[str, Json]], str]:
        """Up to 1000 objects, and the key after which to go on; "" at the end."""
        page = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=prefix, StartAfter=after)
        items = page.get("Contents", [])
        return items, items[-1]["Key"] if page["IsTruncated"] else ""

    def remove(self, *keys: str) -> None:
        if found := [{"Key": key} for key in keys if key]:
            self.s3.delete_objects(Bucket=self.bucket, Delete={"Objects": found, "Quiet": True})

    def load_chat(self, number: int) -> tuple[int, Chat, str]:
        """The chat's number (another one where it has moved), its state, and the state's ETag."""
        value, etag = self.get_json(f"chats/{number}.json")
        if "moved" in value:
            return self.load_chat(value["moved"])
        return (
            number,
            Chat(**{f.name: value[f.name] for f in fields(Chat) if f.name in value}),
            etag,
        )

    def save_job(self, job: Job) -> None:
        self.put_json(
            job.key("job.json"), dict(takewhile(lambda item: item[0] != "after", vars(job).items()))
        )

    # ------------------------------------------------------------ the conversation
    def answer(self, job: Job) -> None:
        """Handle an update. Safe to repeat from any point: what is in S3 says what is still to be done."""
        if job.verdict:
            self.hint("sendMessage", chat_id=job.chat, text=text(job.lang, "oops"))
        elif (event := self.parse(job))[0]:
            self.converse(job, *event)
        with self.lock:
            self.inbox[int(job.id)] = None
            self.lock.notify_all()

    def parse(self, job: Job) -> tuple[str, Json]:
        """Kind and value of an update, which are empty if it is not meant for us."""
        query = job.update.get("callback_query")
        event = query or job.update.get("message") or {}
        message = event.get("message", event)
        if "chat" not in message or "from" not in event:
            return "", None
        if query:
            self.hint("answerCallbackQuery", callback_query_id=query["id"])
        kind, value = ("button", query.get("data", "")) if query else read_content(message)
        value, _, target = value.partition("@") if kind == "command" else (value, "", "")
        job.lang = (
            "ru" if str(event["from"].get("language_code")).lower().startswith("ru") else "en"
        )
        job.user, is_topic = event["from"]["id"], job.chat > 0 or message.get("is_topic_message")
        job.thread = message.get("message_thread_id") if is_topic else None
        return kind if target in ("", self.name.lower()) else "", value

    def converse(self, job: Job, kind: str, value: Json) -> None:
        number, chat, etag = self.load_chat(job.chat)
        if int(job.id) not in chat.seen:
            old, chat.reply = chat.job, self.decide(chat, job, kind, value)
            chat.seen = [*chat.seen, int(job.id)][
                -100:
            ]  # as many as one unconfirmed batch can hold
            self.put_json(f"chats/{number}.json", asdict(chat), etag)
            self.count["cancelled"] += bool(old and old != chat.job)
        if chat.reply and chat.seen[-1] == int(job.id):
            words = text(
                job.lang, *chat.reply, support=self.support, limit=self.daily_limit, user=job.user
            )
            styles = [(label, f"style:{name}") for name, label in self.styles.items()]
            pairs = (
                [styles[i : i + 2] for i in range(0, len(styles), 2)]
                if "ask_style" in chat.reply
                else []
            )
            self.say(
                number,
                job.thread,
                "sendMessage",
                text=words,
                reply_markup=keyboard(pairs) if pairs else None,
            )

    def decide(self, chat: Chat, job: Job, kind: str, value: Json) -> list[str]:
        """The state machine of a chat: changes it, and returns the keys of the texts to answer with."""
        if self.allowed and job.user not in self.allowed | self.admins:
            return ["private"]
        if kind == "button":
            return self.press(chat, job, *value.partition(":")[::2])
        if kind == "command" and (
            value == "help" or (value == "stats" and job.user in self.admins)
        ):
            return ["help" if value == "help" else self.health()]
        if kind == "command" and value in ("start", "cancel"):
            had, chat.content = chat.job or chat.content, None
            chat.job = chat.job if value == "start" else None
            return expect(chat, "hello" if value == "start" else "cancelled" if had else "nothing")
        if kind == "image" and not chat.job and not chat.content:
            chat.content = value
            return expect(chat, "got_content")
        if kind in ("command", "wrong") or chat.job or not chat.content:
            return expect(
                chat, value if kind == "wrong" else "bad_command" if kind == "command" else ""
            )
        style = (
            value
            if kind == "image"
            else {w.lower(): name for name, w in self.styles.items()}.get(value.lower())
        )
        return (
            self.begin(chat, job, chat.content, style) if style else expect(chat, "unknown_style")
        )

    def press(self, chat: Chat, job: Job, verb: str, argument: str) -> list[str]:
        """A button, of a painter or (`argument` being its job) under a status message or a result."""
        if verb == "cancel" and argument == chat.job:  # an old button must not stop a newer job
            chat.job = None
            return expect(chat, "cancelled")
        if chat.job or verb == "cancel":
            return expect(chat)
        content = chat.content or next(
            (work["content"] for work in reversed(chat.kept.values())), None
        )
        if verb == "style" and argument in self.styles and content:
            return self.begin(chat, job, content, argument)
        if argument not in chat.kept:
            return expect(chat, "" if verb == "style" else "expired")
        work = dict(chat.kept[argument])
        if verb == "another":
            chat.content = work["content"]
            return expect(chat)
        change = {"stronger": 0.2, "softer": -0.2}.get(verb, 0)
        work["strength"] = round(min(1.0, max(0.1, work["strength"] + change)), 1)
        work["result"] = "result.png" if verb == "file" else work["result"]
        work["colours"] = {"colours": True, "theirs": False}.get(verb, work["colours"])
        return self.begin(chat, job, **work)

    def begin(self, chat: Chat, job: Job, content: Json, style: Json, **more: Json) -> list[str]:
        """Give the chat a job, named after the update so that handling it twice makes one."""
        if self.daily_limit and self.count_today(job.user) >= self.daily_limit:
            return ["limit"]
        # 1.0: all of a painter; 0.5: NST's own balance; colours: keep the photo's; a PNG is sent as a file only
        strength, model = (1.0, "cyclegan") if isinstance(style, str) else (0.5, "nst")
        work = {
            "content": content,
            "style": style,
            "strength": strength,
            "colours": False,
            "result": "result.jpg",
        }
        words = (
            text(job.lang, "own_style") if model == "nst" else self.styles.get(style, str(style))
        )
        job = replace(job, step="start", work=work | more, style=words, model=model)
        self.save_job(job)
        self.jobs.setdefault(
            job.id, job
        )  # it waits for us to be done here: a chat is served by one at a time
        chat.job, chat.content = job.id, None
        return []

    def count_today(self, user: int, job: str = "") -> int:
        """How many paintings the user has had today (UTC); `job` makes it one more, once."""
        key, today = f"chats/user-{user}.json", time.strftime("%Y-%m-%d", time.gmtime())
        value, etag = self.get_json(key)
        jobs = value.get(today, [])
        if job and job not in jobs:
            self.put_json(key, {today: [*jobs, job]}, etag)
        return len(jobs)

    def let_go(self, number: int, job: str = "", work: Json = None) -> None:
        """The chat's job (`job`, or whichever it has) is its job no longer; its `work` is kept for the buttons."""
        number, chat, etag = self.load_chat(number)
        if chat.job and (not job or job == chat.job):
            chat.kept = dict([*chat.kept.items(), (job, work)][-KEPT:]) if work else chat.kept
            self.jobs.get(chat.job, Job("")).glanced, chat.job = 0.0, None  # 0: look at it at once
            self.put_json(f"chats/{number}.json", asdict(chat), etag)

    def has_ended(self, job: Job) -> bool:
        return time.time() > job.created + DEADLINE or not self.answers.isdisjoint(job.places)

    def advance(self, job: Job) -> None:
        """The state machine of a job: one step on from wherever this process or an earlier one left it."""
        lane, (job.chat, chat, _) = job.chat, self.load_chat(job.chat)
        if chat.job != job.id:
            self.discard(job)
        elif lane == job.chat:  # or it has moved, and may be served under its new number just now
            ends = job.verdict or self.has_ended(job)
            (self.finish if ends else self.glance if job.step == "wait" else self.start)(job)

    def start(self, job: Job) -> None:
        """Tell the user that the request is accepted, carry the pictures to S3, and hand it all to the model."""
        words, home, work = (
            text(job.lang, "accepted", style=job.style),
            f"s3://{self.bucket}/",
            job.work,
        )
        if not self.send(
            job, "status", "sendMessage", text=words, reply_markup=job.buttons(["cancel"])
        ):
            return self.let_go(job.chat, job.id)
        own = {"preserve_color": work["colours"], "time_budget": TIME_BUDGET}
        more = own if job.model == "nst" else {"style_name": work["style"]}
        inputs = ["content", "style"] if job.model == "nst" else ["content"]
        for name in inputs:
            self.carry(work[name]["file_id"], job.key(name))
        names = [*inputs, "progress.json", work["result"]]
        urls = {f"{name.split('.')[0]}_url": home + job.key(name) for name in names}
        self.put_json(job.key("request.json"), {"strength": work["strength"], **more, **urls})
        job.places, job.step, job.shown = (
            self.invoke(job.model, job.key("request.json"), job.id),
            "wait",
            words,
        )
        self.save_job(job)

    def invoke(self, model: str, key: str, job: str) -> list[str]:
        """Hand a request to a model. Returns the keys for its answer and for its failure; one will come."""
        limits = {"InvocationTimeoutSeconds": MODEL_SECONDS, "RequestTTLSeconds": max(60, DEADLINE)}
        request = {
            "InputLocation": f"s3://{self.bucket}/{key}",
            "InferenceId": job,
            "ContentType": "application/json",
        }
        said = self.runtime.invoke_endpoint_async(
            EndpointName=self.endpoints[model], **request, **limits
        )
        return [said[f"{place}Location"].split("/", 3)[3] for place in ("Output", "Failure")]

    def carry(self, file: str, key: str) -> None:
        """Copy a picture to S3. Its link at Telegram, and errors that may show it, hold the token and stay in here."""
        url, data = (
            f"{self.api}/file/bot{self.token}/{self.call('getFile', file_id=file)['file_path']}",
            b"",
        )
        try:
            with self.pictures, self.web.get(url, timeout=(10, 30), stream=True) as response:
                response.raise_for_status()
                for piece in response.iter_content(2**20):
                    data += piece
                    if len(data) > MAX_BYTES:
                        raise TelegramError("getFile", 400, "the file is too big", {})
                self.s3.put_object(Bucket=self.bucket, Key=key, Body=data)
        except requests.RequestException as error:
            raise TelegramError("download", 0, type(error).__name__, {}) from None

    def send(self, job: Job, part: str, method: str, **values: Json) -> bool:
        """Send a part of the answer, once, and record that. False where Telegram does not take it. A picture that may
        have come before (killed, or no answer) goes into the status message: then there are never more than two."""
        doubt = f"{part}?"
        if part in job.sent:
            return True
        try:
            if doubt in job.sent and job.message and self.show(job, **values):
                job.message = None  # it must stay
            else:
                if "files" in values and doubt not in job.sent:
                    job.sent.append(doubt)
                    self.save_job(job)
                sent = self.say(job.chat, job.thread, method, **values)
                job.message = sent.get("message_id") if part == "status" else job.message
        except TelegramError as error:
            job.sent = [done for done in job.sent if done != doubt or not error.code]
            if error.code not in (400, 403) or error.moved:
                raise
            return False
        job.sent.append(part)
        self.save_job(job)
        return True

    def show(self, job: Job, files: Json, caption: str, reply_markup: Json) -> bool:
        """Turn the status message into a picture, as often as need be. False where Telegram's server cannot do that."""
        [(kind, file)] = files.items()
        media = {"type": kind, "media": "attach://file", "caption": caption}
        to = {"chat_id": job.chat, "message_id": job.message, "reply_markup": reply_markup}
        try:
            self.call("editMessageMedia", files={"file": file}, media=media, **to)
        except TelegramError as error:
            if error.code not in (400, 404, 501):
                raise
            return "not modified" in error.description
        return True

    def glance(self, job: Job) -> None:
        progress = self.get_json(job.key("progress.json"))[0] if job.progress else {}
        words, job.glanced = text(job.lang, "accepted", style=job.style), time.monotonic()
        if progress.get("steps"):
            done, left = (
                min(1.0, progress.get("step", 0) / progress["steps"]),
                progress.get("seconds_left"),
            )
            words += f"\n{'▓' * int(10 * done):░<10} {done:.0%}"
            words += "" if left is None else ", " + text(job.lang, "left", left=round(left))
        elif time.time() > job.created + WAKING_SECONDS:
            words += "\n" + text(job.lang, "waking")
        self.call("sendChatAction", chat_id=job.chat, message_thread_id=job.thread, action="typing")
        if words != job.shown and job.message:
            rows, preview = job.buttons(["cancel"]), base64.b64decode(progress.get("preview") or "")
            if not preview or not self.show(job, {"photo": preview}, words, rows):
                self.call(
                    "editMessageText",
                    chat_id=job.chat,
                    message_id=job.message,
                    text=words,
                    reply_markup=rows,
                )
        job.shown = words

    def finish(self, job: Job) -> None:
        """Send the picture, or say why there is none; then record that by letting go of the job."""
        reason = job.verdict or self.read_failure(job) or self.deliver(job)
        if reason:
            words = text(job.lang, "failed", reason, "go_on", support=self.support)
            self.send(
                job,
                "reason",
                "sendMessage",
                text=words,
                reply_markup=job.buttons(["retry", "another"]),
            )
        elif self.daily_limit:
            self.count_today(job.user, job.id)
        self.let_go(
            job.chat, job.id, None if reason in ("expired", "image_too_large") else job.work
        )
        self.count["failed" if reason else "done"] += 1

    def read_failure(self, job: Job) -> str:
        """Why the model failed: a text's key, or words for the user. Nothing if there is a picture."""
        if self.answers.isdisjoint(job.places) or job.places[0] in self.answers:
            return "deadline" if self.answers.isdisjoint(job.places) else ""
        error = (
            self.get(job.places[1])[0].decode(errors="replace").replace("\\", "")
        )  # it may be quoted
        found = (
            re.search(rf'"{name}"\s*:\s*"([^"]{{1,500}})"', error) for name in ("code", "message")
        )
        code, message = (match[1] if match else "" for match in found)
        log.warning("job %s failed in the model: %s", job.id, code or "no code")
        return message if message and job.lang == "en" else code if code in TEXTS else "internal"

    def deliver(self, job: Job) -> str:
        said, picture, work = (
            self.get_json(job.places[0])[0],
            self.get(job.key(job.work["result"]))[0],
            job.work,
        )
        seconds = round(float(said.get("seconds") or time.time() - job.created))
        words = [
            text(job.lang, "caption", style=job.style, seconds=seconds),
            *map(str, said.get("notes") or ()),
        ]
        is_file, sides, shown = work["result"] == "result.png", said.get("size") or (1, 1), 0
        strength = ["stronger"] * (work["strength"] < 1) + ["softer"] * (work["strength"] > 0.1)
        last = ["theirs" if work["colours"] else "colours"] * (
            job.model == "nst"
        )  # not a painter's
        rows = job.buttons(["another"], strength, last + ["file"] * (not is_file))
        told = {"caption": "\n".join(words)[:1000], "reply_markup": rows}
        fits = (
            sum(sides) <= PHOTO_SIDES
            and max(sides) <= PHOTO_RATIO * min(sides)
            and len(picture) <= PHOTO_BYTES
        )
        for way in ["photo"] * (fits and not is_file) + ["document"]:
            if picture and (not shown or work["content"]["document"]):
                files = {way: (work["result"], picture)}
                shown += self.send(
                    job, way, f"send{way.title()}", files=files, **({} if shown else told)
                )
        return "" if shown else "internal"

    def discard(self, job: Job) -> None:
        """Remove all of a job that its chat does not wait for; again and again, until its model has answered."""
        if job.message:
            self.hint("deleteMessage", chat_id=job.chat, message_id=job.message)
        self.remove(*[item["Key"] for item in self.page(job.key(""))[0]], *job.places)
        job.message, job.glanced = None, time.monotonic()
        if not job.places or self.has_ended(job):
            self.jobs.pop(job.id, None)
            self.answers.difference_update(job.places)

    # ------------------------------------------------------------ who is served when, and the main loop
    def dispatch(self) -> None:
        """Have whatever can go on take a step: of each chat one thing at a time, and its updates in order."""
        with self.lock:
            now, taken, pace = (
                time.monotonic(),
                set(self.busy),
                max(EDIT_SECONDS, len(self.jobs) / GLANCES),
            )
            for job in [*filter(None, self.inbox.values()), *self.jobs.values()]:
                due = job.step != "wait" or now >= job.glanced + pace or self.has_ended(job)
                ready, lane = due and now >= job.after, job.chat or job.id
                if ready and lane not in taken:
                    self.busy.add(lane)
                    self.pool.submit(self.take_step, job, lane)
                if ready or job.step == "answer":
                    taken.add(lane)

    def take_step(self, job: Job, lane: int | str) -> None:
        try:
            self.answer(job) if job.step == "answer" else self.advance(job)
            job.tries = 0
        except Exception as error:  # the one place for whatever goes wrong with an update or a job
            job.tries += 1
            job.after = time.monotonic() + self.note(f"{job.step} {job.id}", error, job.tries)
            job.verdict = (
                judge(error, job.tries) if job.step != "wait" or self.has_ended(job) else ""
            )
        with self.lock:
            self.busy.discard(lane)
        self.dispatch()

    def watch_jobs(self) -> None:
        """Two lists of S3 a second while something is pending, else in ten minutes; a line of health a minute."""
        for second in count():
            try:
                if self.jobs or second < 120 or second % 600 == 0:
                    self.look()
            except Exception as error:
                self.note("watcher", error, 1)
            self.dispatch()
            if second % 60 == 0:
                log.info(self.health())
            time.sleep(1)

    def look(self) -> None:
        """A page of the answers and a page of the jobs, each going on where the last one ended."""
        items, self.cursors["async/"] = self.page("async/", self.cursors["async/"])
        self.answers.update(item["Key"] for item in items)
        self.remove(
            *[
                item["Key"]
                for item in items
                if time.time() > item["LastModified"].timestamp() + 86400
            ]
        )
        items, self.cursors["jobs/"] = self.page("jobs/", self.cursors["jobs/"])
        for path in (item["Key"].split("/") for item in items if item["Key"].count("/") == 2):
            job = self.jobs.get(path[1]) or Job(
                path[1], glanced=time.monotonic() + len(self.jobs) / GLANCES
            )  # in turn
            if path[1] not in self.jobs:  # another process began it, or only files are left of it
                vars(job).update(self.get_json(job.key("job.json"))[0])
            self.jobs.setdefault(path[1], job).progress |= path[2] == "progress.json"

    def health(self) -> str:
        waiting = [time.time() - job.created for job in list(self.inbox.values()) if job]
        counts = " ".join(f"{name}={number}" for name, number in self.count.items())
        return f"{counts} jobs={len(self.jobs)} waiting={len(waiting)} lag={max(waiting, default=0):.1f}s"

    def offset(self) -> int | None:
        """Confirms all updates below the first that is not handled; None when there is nothing to confirm."""
        with self.lock:
            first = min(
                (number for number, job in self.inbox.items() if job),
                default=max(self.inbox, default=-1) + 1,
            )
            self.inbox = {number: job for number, job in self.inbox.items() if number >= first}
        return first or None

    def patiently(self, method: str, **values: Json) -> Json:
        """Call until Telegram answers, whatever the weather. A refused token ends the program."""
        for tries in count(1):
            try:
                return self.call(method, **values)
            except TelegramError as error:
                if error.code in (401, 404):
                    raise ValueError(
                        f"TELEGRAM_TOKEN is refused: set it to {SETTINGS['TELEGRAM_TOKEN'][2]}"
                    ) from None
                if (
                    error.code == 409 and "webhook" in error.description
                ):  # or another program polls: the log says it
                    self.hint("deleteWebhook")
                time.sleep(self.note(method, error, tries))

    def run(self) -> int:
        """Take updates in, once. Those that are not handled yet Telegram gives again."""
        self.name = self.patiently("getMe").get("username", "")
        self.hint("deleteWebhook")
        for lang, code in (("en", None), ("ru", "ru")):
            commands = [
                {"command": c, "description": text(lang, f"c_{c}")}
                for c in ("start", "cancel", "help")
            ]
            self.hint("setMyCommands", commands=commands, language_code=code)
        threading.Thread(target=self.watch_jobs, daemon=True).start()
        while True:
            values = {"allowed_updates": ["message", "callback_query"], "offset": self.offset()}
            for update in self.patiently(
                "getUpdates", wait=60, timeout=0 if self.inbox else 50, **values
            ):
                number, event = update["update_id"], update.get("callback_query") or update
                chat = ((event.get("message") or {}).get("chat") or {}).get("id", 0)
                with self.lock:
                    self.count["updates"] += number not in self.inbox
                    self.inbox.setdefault(
                        number, Job(str(number), chat, step="answer", update=update)
                    )
            self.dispatch()
            with self.lock:
                self.lock.wait_for(lambda: not any(self.inbox.values()), 0.3)

    def stop(self, *_: Json) -> None:
        """Within 10 s: let what runs come to its end, and confirm what is handled."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self.dispatch, end = lambda: None, time.monotonic() + 6  # type: ignore[method-assign]
        while self.busy and time.monotonic() < end:
            time.sleep(0.05)
        self.hint("getUpdates", wait=2, offset=self.offset(), limit=1, timeout=0)
        log.info("stopped: %s", self.health())
        os._exit(0)  # without waiting for threads that are caught in a slow network

    def check(self) -> int:
        key, failed = f"jobs/check-{time.time_ns()}/request.json", 0
        calls: dict[str, list[Json]] = {
            "TELEGRAM_TOKEN": [(self.call, "getMe")],
            "BUCKET": [
                (self.put_json, key, {}),
                (self.get, key),
                (self.page, key),
                (self.remove, key),
            ],
            "NST_ENDPOINT": [(self.invoke, "nst", key, "check")],
            "CYCLEGAN_ENDPOINT": [(self.invoke, "cyclegan", key, "check")],
        }
        for name in calls:
            try:
                for call, *values in calls[name]:
                    call(*values)
                print(f"{name}: ok")
            except (TelegramError, *S3_ERRORS) as error:
                failed = 1
                print(
                    f"{name}: {error}. What to do: set it to {SETTINGS[name][2]}, one that you have access to"
                )
        return failed


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("urllib3").propagate = False  # its warnings can show the token
    try:
        bot = Bot(os.environ)
        if sys.argv[1:] == ["--check"]:
            return bot.check()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, bot.stop)
        return bot.run()
    except (ValueError, BotoCoreError) as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
