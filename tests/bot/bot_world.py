"""A world for bot.py: the Bot API emulator, SeaweedFS and an endpoint, each with faults to switch on.

The emulator and the endpoint run in this process, SeaweedFS and the bot in their own. Users are objects that
send things to the emulator and look at what a chat would show.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
from aiohttp import web
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from lo_bot_api_emulator import ApiRefusal, LoBotApiEmulator

from local.stack import free_port, remove_sockets, storage_command
from tests.servers import wait_until

Json = Any  # whatever JSON can hold
ROOT = Path(__file__).parents[2]
TOKEN = "42:secret-of-the-tests"
BUCKET = "stylebot-test"
os.environ.update(AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY="secret", AWS_DEFAULT_REGION="eu-west-1")


def eventually(check: Callable[[], Any], what: str, seconds: float = 20) -> Json:
    """The first true value of check(); AssertionError naming `what` if there is none in time."""
    return wait_until(check, seconds, f"not within {seconds} s: {what}")


# ---------------------------------------------------------------- a wire that can be cut


class Wire:
    """A TCP port that leads to another one, until it is cut."""

    def __init__(self, target: int) -> None:
        self.target, self.is_cut = target, False
        self.ends: set[socket.socket] = set()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self.is_cut = True
        for end in list(self.ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self.is_cut = False

    def close(self) -> None:
        self.cut()
        self.listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                if self.is_cut:
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self.target))
                for one, other in ((near, far), (far, near)):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self.ends.add(one)
                    threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _pump(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self.ends.discard(one)
        one.close()


# ---------------------------------------------------------------- S3


class Storage:
    """A SeaweedFS of its own, in a temporary folder."""

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="stylebot-test-")
        config = Path(self.folder) / "s3.json"
        credentials = [{"accessKey": "key", "secretKey": "secret"}]
        actions = ["Admin", "Read", "Write", "List"]
        config.write_text(json.dumps({"identities": [{"name": "t", "credentials": credentials, "actions": actions}]}))
        self.port = free_port()
        self.command = command = storage_command(Path(self.folder), config, self.port)
        with (Path(self.folder) / "log").open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self.client = s3_client(self.port)
        eventually(self._make_bucket, "SeaweedFS is up", 60)

    def _make_bucket(self) -> bool:
        with contextlib.suppress(ClientError, BotoCoreError):
            self.client.create_bucket(Bucket=BUCKET)
            return True
        return False

    def list_keys(self, prefix: str = "") -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", ())]

    def read(self, key: str) -> bytes:
        data: bytes = self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return data

    def json(self, key: str) -> Json:
        return json.loads(self.read(key))

    def empty(self) -> None:
        for key in self.list_keys():
            self.client.delete_object(Bucket=BUCKET, Key=key)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        remove_sockets(self.command)
        shutil.rmtree(self.folder, ignore_errors=True)


def s3_client(port: int) -> Json:
    config = Config(retries={"total_max_attempts": 1}, max_pool_connections=50, connect_timeout=5, read_timeout=20)
    return boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", config=config)


# ---------------------------------------------------------------- Telegram


@dataclass
class Message:
    """One message as the chat shows it now."""

    chat: int
    id: int
    text: str
    kind: str = "text"
    file: bytes = b""
    buttons: dict[str, str] = field(default_factory=dict)  # words to callback data
    texts: list[str] = field(default_factory=list)  # as it was shown over time
    previews: list[bytes] = field(default_factory=list)
    thread: int | None = None
    deleted: bool = False


Fault = Callable[[str, dict[str, Any]], "web.StreamResponse | str | None"]
BREAK = web.RequestKey("break", str)  # how the answer to a request is to end


class Instead(Exception):  # noqa: N818
    """A response to give instead of the emulator's."""

    def __init__(self, response: web.StreamResponse) -> None:
        self.response = response


class Telegram(LoBotApiEmulator):
    """The emulator, with a memory of what the chats show, and with faults.

    A fault is asked before each call. It may return a response to give instead, "half" to have the call
    carried out and half of the answer sent, or "drop" to have it carried out and the connection closed.
    """

    def __init__(self) -> None:
        super().__init__(max_assets=100_000, max_history=10, max_updates=100_000, asset_bytes=2**31)
        self.messages: dict[tuple[int, int], Message] = {}
        self.chats: defaultdict[int, list[Message]] = defaultdict(list)
        self.calls: list[tuple[float, str, dict[str, Any]]] = []
        self.faults: list[Fault] = []
        self.pushed: list[dict[str, Any]] = []
        self.media_edits = False  # whether editMessageMedia works, as it does in Telegram
        self.threads = False  # whether message_thread_id is taken, as it is in Telegram
        self.lock = threading.Lock()
        self.loop = asyncio.new_event_loop()
        self.port = free_port()
        ready = threading.Event()
        threading.Thread(target=self._run, args=(ready,), daemon=True).start()
        assert ready.wait(20)

    def _run(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self.loop)
        self.runner = web.AppRunner(self.app(), access_log=None)
        self.loop.run_until_complete(self.runner.setup())
        self.loop.run_until_complete(web.TCPSite(self.runner, "127.0.0.1", self.port).start())
        ready.set()
        self.loop.run_forever()

    def close(self) -> None:
        async def end() -> None:
            await self.runner.cleanup()
            self.loop.stop()

        asyncio.run_coroutine_threadsafe(end(), self.loop)

    def push(self, kind: str, content: dict[str, Any]) -> int:
        done = asyncio.run_coroutine_threadsafe(self.enqueue_update({kind: content}, token=TOKEN), self.loop)
        number: int = done.result(20)
        self.pushed.append({"update_id": number, kind: content})
        return number

    def unconfirmed(self) -> Json:
        """The updates that the bot has not confirmed."""
        return self._update_queues._state(TOKEN).updates

    def repeat_updates(self) -> None:
        """Forget what was confirmed, as if the bot had been killed just before."""
        self.unconfirmed().clear()
        self.unconfirmed().extend(json.loads(json.dumps(self.pushed)))

    def validate(self, method: str, fields: dict[str, Any], uploads: dict[str, Any]) -> Json:
        thread = int(fields.pop("message_thread_id", None) or 0) if self.threads else None
        if method == "editMessageMedia" and self.media_edits:
            media = self.decoded(fields["media"])
            message = self.messages[int(fields["chat_id"]), int(fields["message_id"])]
            message.kind = media["type"]
            message.file = uploads[media["media"].removeprefix("attach://")]["data"]
            message.previews.append(message.file)
            result: Any = {"message_id": message.id, "chat": {"id": message.chat, "type": "private"}}
            self._change(message, media["caption"], fields)
            return result
        if (
            method == "editMessageText"
            and self.messages[int(fields["chat_id"]), int(fields["message_id"])].kind != "text"
        ):
            raise ApiRefusal("Bad Request: there is no text in the message to edit")
        result = super().validate(method, fields, uploads)
        if method == "getMe":
            result |= {"username": "style_bot"}
        self._remember(method, fields, uploads, result, thread)
        return result

    def _remember(
        self, method: str, fields: dict[str, Any], uploads: dict[str, Any], result: Json, thread: Json
    ) -> None:
        if method not in ("getUpdates",):
            self.calls.append((time.monotonic(), method, dict(fields)))
        if method in ("sendMessage", "sendPhoto", "sendDocument"):
            kind = "text" if method == "sendMessage" else method[4:].lower()
            words = fields.get("text", fields.get("caption", ""))
            message = Message(int(fields["chat_id"]), result["message_id"], words, kind, thread=thread)
            message.file = uploads[kind]["data"] if kind in uploads else b""
            with self.lock:
                self.messages[message.chat, message.id] = message
                self.chats[message.chat].append(message)
            self._change(message, words, fields)
        elif method in ("editMessageText", "editMessageCaption"):
            message = self.messages[int(fields["chat_id"]), int(fields["message_id"])]
            self._change(message, fields.get("text", fields.get("caption", "")), fields)
        elif method == "deleteMessage":
            self.messages[int(fields["chat_id"]), int(fields["message_id"])].deleted = True

    def _change(self, message: Message, words: str, fields: dict[str, Any]) -> None:
        message.text = words
        message.texts.append(words)
        markup = self.decoded(fields.get("reply_markup") or {})
        message.buttons = {b["text"]: b["callback_data"] for row in markup.get("inline_keyboard", ()) for b in row}

    async def read_request(self, request: web.Request) -> tuple[dict[str, Any], dict[str, Any]]:
        fields, uploads = await super().read_request(request)
        for fault in list(self.faults):
            action = fault(request.match_info["method"], fields)
            if isinstance(action, web.StreamResponse):
                raise Instead(action)
            request[BREAK] = action or request.get(BREAK, "")
        return fields, uploads

    async def handle(self, request: web.Request) -> web.StreamResponse:
        try:
            answer: web.StreamResponse = await super().handle(request)
        except Instead as instead:
            return instead.response
        action = request.get(BREAK)
        return await self._break(request, answer, action) if action else answer

    async def _break(self, request: web.Request, whole: Json, action: str) -> web.StreamResponse:
        if action == "half":
            half = web.StreamResponse(
                headers={"Content-Type": "application/json", "Content-Length": str(len(whole.body))}
            )
            await half.prepare(request)
            await half.write(whole.body[: len(whole.body) // 2])
            assert request.transport
            request.transport.close()
            return half
        assert request.transport
        request.transport.close()
        return web.Response()


def refusal(status: int, description: str, **parameters: Json) -> web.Response:
    body: dict[str, Any] = {"ok": False, "error_code": status, "description": description}
    return web.json_response(body | ({"parameters": parameters} if parameters else {}), status=status)


def html(status: int) -> web.Response:
    return web.Response(status=status, text="<html>502 Bad Gateway</html>", content_type="text/html")


def times(n: int, method: str, respond: Callable[[], web.StreamResponse | str], chat: int | None = None) -> Fault:
    """A fault that hits the first n calls of a method (of one chat)."""
    left = [n]

    def fault(called: str, fields: dict[str, Any]) -> web.StreamResponse | str | None:
        if called != method or left[0] <= 0 or str(chat) not in ("None", str(fields.get("chat_id"))):
            return None
        left[0] -= 1
        return respond()

    return fault


class User:
    """Somebody at a telephone."""

    def __init__(self, telegram: Telegram, number: int, language: str = "en", group: int | None = None) -> None:
        self.telegram, self.number, self.language = telegram, number, language
        self.chat = group or number
        self.extra: dict[str, Any] = {}  # fields of each message, such as message_thread_id
        self.cursor = 0

    def _message(self, **content: Json) -> int:
        kind = "private" if self.chat > 0 else "supergroup"
        sender = {
            "id": self.number,
            "is_bot": False,
            "first_name": "Secret Name",
            "language_code": self.language,
        }
        common = {
            "message_id": 1,
            "date": int(time.time()),
            "chat": {"id": self.chat, "type": kind},
            "from": sender,
        }
        self.here()
        return self.telegram.push("message", common | self.extra | content)

    def here(self) -> None:
        """What is in the chat by now is no longer new."""
        self.cursor = max([m.id for m in self.messages()], default=0)

    def write(self, text: str) -> int:
        return self._message(text=text)

    def _asset(self, data: bytes) -> str:
        name = f"file-{self.number}-{len(self.telegram.assets)}-{time.monotonic_ns()}"
        self.telegram.assets[name] = {"data": data, "size": len(data)}
        return name

    def photo(self, data: bytes = b"a photo", **content: Json) -> int:
        file = {"file_id": self._asset(data), "file_unique_id": "u", "width": 1280, "height": 960}
        small = {"file_id": "thumbnail", "file_unique_id": "t", "width": 90, "height": 67}
        return self._message(photo=[small, file | {"file_size": len(data)}], **content)

    def document(
        self, data: bytes = b"a file", mime: str = "image/png", size: int | None = None, **content: Json
    ) -> int:
        file = {
            "file_id": self._asset(data),
            "file_unique_id": "u",
            "file_name": "Secret.png",
            "mime_type": mime,
        }
        return self._message(document=file | {"file_size": len(data) if size is None else size}, **content)

    def press(self, message: Message, words: str) -> int:
        sender = {
            "id": self.number,
            "is_bot": False,
            "first_name": "Secret Name",
            "language_code": self.language,
        }
        chat = {"id": self.chat, "type": "private" if self.chat > 0 else "supergroup"}
        at = {"message_id": message.id, "date": 1, "chat": chat, **self.extra}
        self.here()
        query = {
            "id": str(time.monotonic_ns()),
            "from": sender,
            "message": at,
            "data": message.buttons[words],
        }
        return self.telegram.push("callback_query", query | {"chat_instance": "1"})

    def messages(self) -> list[Message]:
        """All that is in the chat, old to new."""
        with self.telegram.lock:
            return [m for m in self.telegram.chats[self.chat] if not m.deleted]

    def sees(self, *words: str, kind: str | None = None, seconds: float = 20) -> Message:
        """Wait for a new message that has all these words in it, and return it."""

        def found() -> Message | None:
            for m in self.messages():
                if m.id > self.cursor and (kind is None or m.kind == kind) and all(w in m.text for w in words):
                    return m
            return None

        try:
            message: Message = eventually(found, f"chat {self.chat} shows {kind or 'a message'} with {words}", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; it shows {[m.text for m in self.messages()]}") from None
        return message

    def sees_nothing(self, seconds: float = 1.5, kind: str | None = None) -> None:
        time.sleep(seconds)
        new = [m.text for m in self.messages() if m.id > self.cursor and kind in (None, m.kind)]
        assert not new, f"chat {self.chat} should show nothing new, but shows {new}"


# ---------------------------------------------------------------- the endpoint


class Endpoint:
    """SageMaker's runtime for the tests: InvokeEndpointAsync as boto3 speaks it, and models that pretend.

    A "painting" is JSON that says what it was made of. `mode` is ok, asleep (accepts and does nothing),
    missing, throttled, broken (HTTP 500) or failing (writes `error` to the failure location).
    """

    def __init__(self, storage: Storage) -> None:
        self.storage, self.mode, self.seconds, self.steps = storage, "ok", 0.0, 0
        self.error: str = json.dumps({"error": {"code": "image_unreadable", "message": "This is no picture."}})
        self.answer: dict[str, Any] = {"size": [800, 600], "seconds": 12.3, "notes": []}
        self.preview = base64.b64encode(b"\xff\xd8 preview").decode()
        self.padding = 0
        self.invocations: list[dict[str, Any]] = []
        self.requests: list[dict[str, Any]] = []
        self.held: queue.Queue[dict[str, Any]] = queue.Queue()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, body, headers = endpoint.accept(self.path, dict(self.headers.items()))
                self.send_response(status)
                data = json.dumps(body).encode()
                for name, value in {**headers, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port: int = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def accept(self, path: str, headers: dict[str, str]) -> tuple[int, dict[str, Any], dict[str, str]]:
        name = path.split("/")[2]
        refusals = {
            "missing": (400, "ValidationError", f"Endpoint {name} of account 123 not found."),
            "throttled": (400, "ThrottlingException", "Rate exceeded"),
            "broken": (500, "InternalFailure", "Internal failure"),
        }
        if self.mode in refusals:
            status, kind, message = refusals[self.mode]
            return status, {"message": message}, {"x-amzn-ErrorType": kind}
        headers = {key.lower(): value for key, value in headers.items()}
        number = f"{len(self.invocations)}-{time.monotonic_ns()}"
        call = {
            "endpoint": name,
            "input": headers["x-amzn-sagemaker-inputlocation"],
            "id": headers.get("x-amzn-sagemaker-inference-id", ""),
            "headers": headers,
            "output": f"async/output/{number}.out",
            "failure": f"async/failure/{number}-error.out",
        }
        self.invocations.append(call)
        if self.mode == "asleep":
            self.held.put(call)
        else:
            threading.Thread(target=self.work, args=(call,), daemon=True).start()
        places = {f"X-Amzn-SageMaker-{n.title()}Location": f"s3://{BUCKET}/{call[n]}" for n in ("output", "failure")}
        return 202, {"InferenceId": call["id"]}, places

    def wake(self) -> None:
        """The endpoint wakes, and takes up what has waited for it."""
        self.mode = "ok"
        while not self.held.empty():
            threading.Thread(target=self.work, args=(self.held.get(),), daemon=True).start()

    def work(self, call: dict[str, Any]) -> None:
        try:
            self._paint(call)
        except (ClientError, BotoCoreError) as error:
            said = {"error": {"code": "object_not_found", "message": f"An object is gone: {type(error).__name__}"}}
            with contextlib.suppress(ClientError, BotoCoreError):  # the storage is gone, at the end of the tests
                self._write(call["failure"], json.dumps(said).encode())

    def _paint(self, call: dict[str, Any]) -> None:
        if self.mode == "failing":
            self._write(call["failure"], self.error.encode())
            return
        request = json.loads(self._read(call["input"]))
        self.requests.append(request)
        made = {"job": call["id"], "endpoint": call["endpoint"], "style": request.get("style_name")}
        for name in ("content", "style"):
            if f"{name}_url" in request:
                made[name] = self._read(request[f"{name}_url"]).decode(errors="replace")[:200]
        for step in range(self.steps):
            left = self.seconds * (1 - step / self.steps)
            progress = {
                "step": step,
                "steps": self.steps,
                "seconds": 1.0,
                "seconds_left": left,
                "preview": self.preview,
            }
            self._write(request["progress_url"].split("/", 3)[3], json.dumps(progress).encode())
            time.sleep(self.seconds / self.steps)
        if not self.steps:
            time.sleep(self.seconds)
        picture = json.dumps(made).encode() + b" " * self.padding
        self._write(request["result_url"].split("/", 3)[3], picture)
        self._write(call["output"], json.dumps({"result_url": request["result_url"], **self.answer}).encode())

    def _read(self, url: str) -> bytes:
        return self.storage.read(url.split("/", 3)[3])

    def _write(self, key: str, data: bytes) -> None:
        self.storage.client.put_object(Bucket=BUCKET, Key=key, Body=data)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


# ---------------------------------------------------------------- all of it


class World:
    """Everything around one bot, which is started and killed by the test."""

    def __init__(self, storage: Storage) -> None:
        self.storage, self.telegram, self.endpoint = storage, Telegram(), Endpoint(storage)
        self.to_s3, self.to_telegram = Wire(storage.port), Wire(self.telegram.port)
        self.process: subprocess.Popen[bytes] | None = None
        self.log = tempfile.NamedTemporaryFile(prefix="stylebot-bot-", suffix=".log")  # noqa: SIM115
        self.users = 1000

    def environment(self, **more: str) -> dict[str, str]:
        return os.environ | {
            "TELEGRAM_TOKEN": TOKEN,
            "TELEGRAM_API": f"http://127.0.0.1:{self.to_telegram.port}",
            "BUCKET": BUCKET,
            "NST_ENDPOINT": "nst",
            "CYCLEGAN_ENDPOINT": "cyclegan",
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{self.to_s3.port}",
            "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": self.endpoint.url,
            "SUPPORT": "Ask Vincent.",
            **more,
        }  # fmt: skip

    def start(self, constants: str = "", **more: str) -> None:
        """Start the bot; `constants` is Python that changes some of its own, such as bot.DEADLINE = 6."""
        environment = self.environment(PYTHONPATH=str(ROOT), **more)
        code = f"import bot; {constants}; raise SystemExit(bot.main())"
        command = [sys.executable, *(["-c", code] if constants else [str(ROOT / "bot.py")])]
        self.process = subprocess.Popen(command, env=environment, stderr=self.log)

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()

    def terminate(self) -> float:
        """SIGTERM; the seconds it took."""
        assert self.process
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)
        return time.monotonic() - began

    def user(self, language: str = "en", group: int | None = None) -> User:
        self.users += 1
        return User(self.telegram, self.users, language, group)

    def logged(self) -> str:
        return Path(self.log.name).read_text()

    def close(self) -> None:
        self.kill()
        for part in (self.to_s3, self.to_telegram, self.telegram, self.endpoint, self.log):
            part.close()
        self.storage.empty()


def made_of(message: Message) -> dict[str, Any]:
    """What a painting of the pretended model says about itself."""
    made: dict[str, Any] = json.loads(message.file)
    return made


@contextlib.contextmanager
def worlds() -> Iterator[Callable[[], World]]:
    """For programs: a maker of worlds that are closed at the end."""
    storage, made = Storage(), list[World]()

    def make() -> World:
        made.append(World(storage))
        return made[-1]

    try:
        yield make
    finally:
        for world in made:
            world.close()
        storage.close()
