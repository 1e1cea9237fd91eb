"""The Bot API emulator with a memory of what the chats show, faults to switch on, and users."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from lo_bot_api_emulator import ApiRefusal, LoBotApiEmulator, updates

from bot import SEND_RESULTS
from local.processes import free_port
from tests.fakes.names import TOKEN, Json, eventually


@dataclass
class Message:
    """One message as the chat shows it now."""

    chat: int
    id: int
    text: str
    kind: str = "text"
    file: bytes = b""
    file_id: str = ""
    buttons: dict[str, str] = field(default_factory=dict)  # words to callback data
    texts: list[str] = field(default_factory=list)  # as it was shown over time
    previews: list[bytes] = field(default_factory=list)
    thread: int | None = None
    reply_to: int = 0  # the number of the message that it answers
    has_spoiler: bool = False
    deleted: bool = False


BOT = 7  # the bot's own number
# Of Bot API 10.0, which is later than the emulator
updates.KINDS = {*updates.KINDS, "guest_message"}
updates.ALLOWED_UPDATE_TYPES = {*updates.ALLOWED_UPDATE_TYPES, "guest_message"}

Fault = Callable[[str, dict[str, Any]], "web.StreamResponse | str | None"]
BREAK = web.RequestKey("break", str)  # how the answer to a request is to end


class Instead(Exception):  # noqa: N818
    """A response to give instead of the emulator's."""

    def __init__(self, response: web.StreamResponse) -> None:
        self.response = response


class Telegram(LoBotApiEmulator):  # type: ignore[misc] # the package has no types
    """The emulator, with a memory of what the chats show, and with faults.

    A fault is asked before each call. It may return a response to give instead, "half" to have the
    call carried out and half of the answer sent, or "drop" to have it carried out and the
    connection closed.
    """

    def __init__(self) -> None:
        super().__init__(max_assets=100_000, max_history=10, max_updates=100_000, asset_bytes=2**31)
        self.messages: dict[tuple[int, int], Message] = {}
        self.chats: defaultdict[int, list[Message]] = defaultdict(list)
        self.calls: list[tuple[float, str, dict[str, Any]]] = []
        self.faults: list[Fault] = []
        self.pushed: list[dict[str, Any]] = []
        self.numbers = itertools.count(1_000_000)  # of what users write
        self.has_guest_mode = False  # whether getMe says supports_guest_queries
        self.guest_queries: set[str] = set()  # that can be answered, once
        self.inline: dict[str, Message] = {}  # what the bot has said where it is no member
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
        done = asyncio.run_coroutine_threadsafe(
            self.enqueue_update({kind: content}, token=TOKEN), self.loop
        )
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
        if method == "answerGuestQuery":
            return self._answer_guest(fields)
        if "inline_message_id" in fields:
            return self._edit_inline(method, fields, uploads)
        thread = int(fields.pop("message_thread_id", None) or 0) if self.threads else None
        has_spoiler = bool(fields.pop("has_spoiler", None))
        if method == "editMessageMedia" and self.media_edits:
            media = self.decoded(fields["media"])
            message = self.messages[int(fields["chat_id"]), int(fields["message_id"])]
            message.kind = media["type"]
            message.file = uploads[media["media"].removeprefix("attach://")]["data"]
            message.previews.append(message.file)
            result: Any = {
                "message_id": message.id,
                "chat": {"id": message.chat, "type": "private"},
            }
            self._change(message, media["caption"], fields)
            return result
        if (
            method == "editMessageText"
            and self.messages[int(fields["chat_id"]), int(fields["message_id"])].kind != "text"
        ):
            raise ApiRefusal("Bad Request: there is no text in the message to edit")
        if method == "sendAnimation":  # the emulator does not know it
            result = super().validate("sendDocument", fields, {"document": uploads["animation"]})
        else:
            result = super().validate(method, fields, uploads)
        if method == "getMe":
            result |= {"username": "style_bot", "supports_guest_queries": self.has_guest_mode}
        self._remember(method, fields, uploads, result, thread)
        if has_spoiler:
            self.messages[int(fields["chat_id"]), result["message_id"]].has_spoiler = True
        return result

    def _remember(
        self,
        method: str,
        fields: dict[str, Any],
        uploads: dict[str, Any],
        result: Json,
        thread: Json,
    ) -> None:
        if method not in ("getUpdates",):
            self.calls.append((time.monotonic(), method, dict(fields)))
        if method == "sendMediaGroup":
            self._remember_album(fields, result)
        elif method in SEND_RESULTS:
            kind = "text" if method == "sendMessage" else method[4:].lower()
            words = fields.get("text", fields.get("caption", ""))
            message = Message(
                int(fields["chat_id"]), result["message_id"], words, kind, thread=thread
            )
            message.file = uploads[kind]["data"] if kind in uploads else b""
            answered = self.decoded(fields.get("reply_parameters") or {})
            message.reply_to = answered.get("message_id", 0)
            if kind == "photo":
                message.file_id = result["photo"][-1]["file_id"]
            with self.lock:
                self.messages[message.chat, message.id] = message
                self.chats[message.chat].append(message)
            self._change(message, words, fields)
        elif method in ("editMessageText", "editMessageCaption"):
            message = self.messages[int(fields["chat_id"]), int(fields["message_id"])]
            self._change(message, fields.get("text", fields.get("caption", "")), fields)
        elif method == "deleteMessage":
            self.messages[int(fields["chat_id"]), int(fields["message_id"])].deleted = True

    def _answer_guest(self, fields: dict[str, Any]) -> Json:
        """As https://core.telegram.org/bots/api#answerguestquery describes it."""
        self.calls.append((time.monotonic(), "answerGuestQuery", dict(fields)))
        number = fields["guest_query_id"]
        result = self.decoded(fields["result"])
        words = result["input_message_content"]["message_text"]
        if result["type"] != "article" or not 0 < len(result["id"]) <= 64 or not result["title"]:
            raise ApiRefusal("Bad Request: can't parse inline query result")
        if not words.strip() or len(words) > 4096:
            raise ApiRefusal("Bad Request: message text is empty")
        if number not in self.guest_queries:
            raise ApiRefusal(
                "Bad Request: query is too old and response timeout expired or query ID is invalid"
            )
        self.guest_queries.remove(number)
        self.inline[f"inline-{number}"] = Message(0, 0, words, texts=[words])
        return {"inline_message_id": f"inline-{number}"}

    def _edit_inline(self, method: str, fields: dict[str, Any], uploads: dict[str, Any]) -> Json:
        """Edit a message of a guest: its new media is a file_id, since nothing can be uploaded."""
        self.calls.append((time.monotonic(), method, dict(fields)))
        message = self.inline.get(fields["inline_message_id"])
        if message is None:
            raise ApiRefusal("Bad Request: MESSAGE_ID_INVALID")
        if method == "editMessageText":
            if message.kind != "text":
                raise ApiRefusal("Bad Request: there is no text in the message to edit")
            self._change(message, fields["text"], fields)
            return True
        media = self.decoded(fields["media"])
        if method != "editMessageMedia" or uploads or media["media"] not in self.assets:
            raise ApiRefusal("Bad Request: wrong file identifier/HTTP URL specified")
        message.kind = media["type"]
        message.file = self.assets[media["media"]]["data"]
        self._change(message, media["caption"], fields)
        return True

    def _remember_album(self, fields: dict[str, Any], result: Json) -> None:
        chat = int(fields["chat_id"])
        for item, sent in zip(self.decoded(fields["media"]), result, strict=True):
            message = Message(chat, sent["message_id"], item.get("caption", ""), "album")
            message.file_id = item["media"]
            message.file = self.assets[message.file_id]["data"]
            with self.lock:
                self.chats[chat].append(message)

    def _change(self, message: Message, words: str, fields: dict[str, Any]) -> None:
        message.text = words
        message.texts.append(words)
        markup = self.decoded(fields.get("reply_markup") or {})
        message.buttons = {
            b["text"]: b["callback_data"] for row in markup.get("inline_keyboard", ()) for b in row
        }

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
    return web.json_response(
        body | ({"parameters": parameters} if parameters else {}), status=status
    )


def html(status: int) -> web.Response:
    return web.Response(
        status=status, text="<html>502 Bad Gateway</html>", content_type="text/html"
    )


def times(
    n: int, method: str, respond: Callable[[], web.StreamResponse | str], chat: int | None = None
) -> Fault:
    """A fault that hits the first n calls of a method (of one chat)."""
    left = [n]

    def fault(called: str, fields: dict[str, Any]) -> web.StreamResponse | str | None:
        if (
            called != method
            or left[0] <= 0
            or str(chat) not in ("None", str(fields.get("chat_id")))
        ):
            return None
        left[0] -= 1
        return respond()

    return fault


class User:
    """Somebody at a telephone."""

    def __init__(
        self, telegram: Telegram, number: int, language: str = "en", group: int | None = None
    ) -> None:
        self.telegram, self.number, self.language = telegram, number, language
        self.chat = group or number
        self.extra: dict[str, Any] = {}  # fields of each message, such as message_thread_id
        self.cursor = 0
        self.last_file = ""  # the file_id of what was sent last

    def _message(self, **content: Json) -> int:
        kind = "private" if self.chat > 0 else "supergroup"
        sender = {
            "id": self.number,
            "is_bot": False,
            "first_name": "Secret Name",
            "language_code": self.language,
        }
        common = {
            "message_id": next(self.telegram.numbers),
            "date": int(time.time()),
            "chat": {"id": self.chat, "type": kind},
            "from": sender,
        }
        self.here()
        return self.telegram.push("message", common | self.extra | content)

    def here(self) -> None:
        """What is in the chat by now is no longer new."""
        self.cursor = max([m.id for m in self.messages()], default=0)

    def write(self, text: str, **content: Json) -> int:
        return self._message(text=text, **content)

    def sent(self, update: int) -> Json:
        """Return the message of an update, as another one replies to it."""
        [message] = [u["message"] for u in self.telegram.pushed if u["update_id"] == update]
        return message

    def said_by_bot(self, message: Message) -> Json:
        """Return a message of the bot, as another one replies to it."""
        return {"message_id": message.id, "date": 1, "from": {"id": BOT, "is_bot": True}}

    def _asset(self, data: bytes) -> str:
        name = f"file-{self.number}-{len(self.telegram.assets)}-{time.monotonic_ns()}"
        self.telegram.assets[name] = {"data": data, "size": len(data)}
        self.last_file = name
        return name

    def photo(self, data: bytes = b"a photo", **content: Json) -> int:
        file = {"file_id": self._asset(data), "file_unique_id": "u", "width": 1280, "height": 960}
        small = {"file_id": "thumbnail", "file_unique_id": "t", "width": 90, "height": 67}
        return self._message(photo=[small, file | {"file_size": len(data)}], **content)

    def document(
        self,
        data: bytes = b"a file",
        mime: str = "image/png",
        size: int | None = None,
        **content: Json,
    ) -> int:
        file = {
            "file_id": self._asset(data),
            "file_unique_id": "u",
            "file_name": "Secret.png",
            "mime_type": mime,
        }
        return self._message(
            document=file | {"file_size": len(data) if size is None else size}, **content
        )

    def mention(self, text: str, chat: int, **content: Json) -> str:
        """Mention the bot in a chat that it is no member of. Returns the id of its answer."""
        number = f"query-{next(self.telegram.numbers)}"
        self.telegram.guest_queries.add(number)
        sender = {"id": self.number, "is_bot": False, "first_name": "Secret Name"}
        message = {
            "message_id": next(self.telegram.numbers),
            "date": int(time.time()),
            "chat": {"id": chat, "type": "private" if chat > 0 else "supergroup"},
            "from": sender | {"language_code": self.language},
            "text": text,
            "guest_query_id": number,
        }
        self.here()
        self.telegram.push("guest_message", message | content)
        return f"inline-{number}"

    def sees_elsewhere(self, answer: str, *words: str, kind: str = "text") -> Message:
        """Wait until the bot's answer in a chat that it is no member of shows these words."""

        def found() -> Message | None:
            message = self.telegram.inline.get(answer)
            if message and message.kind == kind and all(word in message.text for word in words):
                return message
            return None

        message: Message = eventually(found, f"{answer} shows a {kind} with {words}")
        return message

    def press(self, message: Message, words: str) -> int:
        sender = {
            "id": self.number,
            "is_bot": False,
            "first_name": "Secret Name",
            "language_code": self.language,
        }
        chat = {"id": self.chat, "type": "private" if self.chat > 0 else "supergroup"}
        at = {"message_id": message.id, "date": 1, "chat": chat, **self.extra}
        if message.kind == "photo":
            at["photo"] = [{"file_id": message.file_id, "file_unique_id": "u"}]
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
                if (
                    m.id > self.cursor
                    and (kind is None or m.kind == kind)
                    and all(w in m.text for w in words)
                ):
                    return m
            return None

        try:
            message: Message = eventually(
                found, f"chat {self.chat} shows {kind or 'a message'} with {words}", seconds
            )
        except AssertionError as error:
            raise AssertionError(f"{error}; it shows {[m.text for m in self.messages()]}") from None
        return message

    def sees_nothing(self, seconds: float = 1.5, kind: str | None = None) -> None:
        time.sleep(seconds)
        new = [m.text for m in self.messages() if m.id > self.cursor and kind in (None, m.kind)]
        assert not new, f"chat {self.chat} should show nothing new, but shows {new}"
