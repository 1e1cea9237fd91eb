"""`python -m local.telegram --port PORT --data DIR`: a Bot API server whose users sit at a browser on this machine.

It serves the methods that bot.py calls, as https://core.telegram.org/bots/api describes them, and the page chat.html.
TELEGRAM_TOKEN is the bot's token; CHAT_KEY the key that the page shows with each of its calls, made up if not set.

State is SQLite and files in DIR, written before a call is answered: killed at any moment, nothing is lost that was
answered with ok. A chat is its messages; `n` counts all changes, so "what is new after n" is one query, and an edited
message needs no second row.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import io
import json
import logging
import mimetypes
import os
import re
import secrets
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from flask import Flask, Response, jsonify, request, send_file
from PIL import Image
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.serving import make_server

from containers.serving.errors import RequestError
from containers.serving.images import decode, shrunk

Json = Any  # whatever JSON can hold
Message = dict[str, Json]  # as the Bot API writes it
UPLOAD_BYTES, DOWNLOAD_BYTES, PHOTO_BYTES = 50 * 2**20, 20 * 2**20, 10 * 2**20
SIDES = (90, 320, 800, 1280)  # Telegram's sizes of a photo, by the longer side in pixels
PAGE = Path(__file__).with_name("chat.html")
CONTENT = ("text", "caption", "photo", "document", "reply_markup")  # what an edit replaces
log = logging.getLogger("telegram")
KINDS = {"photo", "document"}
SCHEMA = """
PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS chats (id INTEGER PRIMARY KEY, language TEXT, acted INTEGER, acted_at REAL);
CREATE TABLE IF NOT EXISTS messages (id INTEGER PRIMARY KEY AUTOINCREMENT, chat INTEGER, created INTEGER,
                                     changed INTEGER, body TEXT);  -- body NULL: deleted
CREATE INDEX IF NOT EXISTS changes ON messages (chat, changed);
CREATE TABLE IF NOT EXISTS files (id TEXT PRIMARY KEY, path TEXT UNIQUE, size INTEGER);
CREATE TABLE IF NOT EXISTS updates (id INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT);
CREATE TABLE IF NOT EXISTS queries (id TEXT PRIMARY KEY);  -- callback queries without an answer
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT);
"""


class Refusal(Exception):  # noqa: N818 - Telegram's answer, not a fault
    """What Telegram would refuse, with its HTTP status and words."""

    def __init__(self, code: int, description: str) -> None:
        super().__init__(description)
        self.code, self.description = code, description


def bad_request(why: str) -> Refusal:
    return Refusal(400, f"Bad Request: {why}")


class File(NamedTuple):
    """One that came in; `about` is what Telegram tells of it beside its id and size."""

    data: bytes
    name: str
    about: dict[str, Json]


class Call:
    """The parameters of a Bot API call, which may come in the query, a form or JSON."""

    def __init__(self) -> None:
        body = request.get_json(silent=True) if request.is_json else {}
        if not isinstance(body, dict):
            raise bad_request("can't parse the request's JSON object")
        self.values: dict[str, Json] = {**request.args, **request.form, **body}

    def text(self, name: str) -> str:
        value = self.values.get(name)
        return "" if value is None else str(value)

    def number(self, name: str, default: int = 0) -> int:
        """Telegram, too, reads as 0 what is no number."""
        value = self.text(name) or str(default)
        return int(value) if re.fullmatch(r"-?[0-9]{1,18}", value) else 0

    def structure(self, name: str) -> Json:
        """An object or a list, which a form holds as JSON."""
        value = self.values.get(name)
        try:
            return json.loads(value) if isinstance(value, str) and value else value
        except ValueError:
            raise bad_request(f"can't parse {name} JSON object") from None

    def content(self, part: str) -> Message:
        """The words of a message, as its text or its caption, and its buttons."""
        words, longest = self.text(part).strip(), 4096 if part == "text" else 1024
        if part == "text" and not words:
            raise bad_request("message text is empty")
        if len(words) > longest:
            raise bad_request("message is too long" if part == "text" else "message caption is too long")
        return ({part: words} if words else {}) | self.buttons()

    def buttons(self) -> Message:
        try:
            rows = (self.structure("reply_markup") or {}).get("inline_keyboard") or []
            sizes = [len(button["callback_data"].encode()) for row in rows for button in row if button["text"]]
            whole = len(sizes) == sum(map(len, rows))
        except (AttributeError, KeyError, TypeError):
            raise bad_request("can't parse inline keyboard button: text and callback_data are needed here") from None
        if not whole or not all(1 <= size <= 64 for size in sizes):
            raise bad_request("BUTTON_DATA_INVALID")
        return {"reply_markup": {"inline_keyboard": rows}} if rows else {}


def prepare(kind: str, upload: FileStorage, limited: bool = True) -> list[File]:
    """An upload as the files that Telegram makes of it: a photo becomes JPEGs from small to large, a document stays.

    limited: by what a bot may send as a photo; a telephone scales it first. Raises Refusal.
    """
    data, name = upload.read(), Path(upload.filename or "file").name
    if not data:
        raise bad_request("file must be non-empty")
    if kind == "document":
        kinds = mimetypes.guess_type(name)[0], upload.mimetype
        return [File(data, name, {"file_name": name, "mime_type": kinds[0] or kinds[1] or "application/octet-stream"})]
    if limited and len(data) > PHOTO_BYTES:
        raise bad_request(f"file of size {len(data)} bytes is too big for a photo")
    try:
        width, height = Image.open(io.BytesIO(data)).size
        if limited and (width + height > 10_000 or max(width, height) > 20 * min(width, height)):
            raise bad_request("PHOTO_INVALID_DIMENSIONS")
        full = decode(data, SIDES[-1], "photo")
    except OSError:
        raise bad_request("IMAGE_PROCESS_FAILED") from None
    except RequestError as error:
        raise bad_request(f"IMAGE_PROCESS_FAILED. {error.message}") from None
    images = [shrunk(full, side) for side in SIDES if side < max(full.size)] + [full]
    return [File(as_jpeg(i), "photo.jpg", {"width": i.width, "height": i.height}) for i in images]


def as_jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=87)
    return buffer.getvalue()


def file_ids(message: Message) -> set[str]:
    return {file["file_id"] for file in [*message.get("photo", ()), message.get("document")] if file}


def shown(message: Message) -> Message:
    """A message as the page wants it: of a photo only the largest size."""
    brief = {name: message[name] for name in ("message_id", "date", *CONTENT) if name in message}
    if "photo" in brief:
        brief["photo"] = {"file_name": f"photo{message['message_id']}.jpg", **brief["photo"][-1]}
    for kind in KINDS & brief.keys():
        brief[kind] = {"size": brief[kind]["file_size"], **brief[kind]}
    return brief | {"from": "bot" if message["from"]["is_bot"] else "user"}


class Telegram:
    """Its methods go from state, over what bots call, to what the page calls."""

    def __init__(self, folder: Path, token: str) -> None:
        self.files = folder / "files"
        self.files.mkdir(parents=True, exist_ok=True)
        self.db = sqlite3.connect(folder / "chat.sqlite", check_same_thread=False)
        self.db.executescript(SCHEMA)
        self.changed = threading.Condition()  # held for any use of db
        self.poller = object()  # whose getUpdates is the newest
        self.me = {"id": int(token.partition(":")[0]), "is_bot": True, "first_name": "stylebot"}
        self.me["username"] = "stylebot_bot"
        self.methods: dict[str, Callable[[Call], Json]] = {
            "getme": lambda call: self.me,
            "deletewebhook": lambda call: True,
            "setmycommands": self.set_commands,
            "getupdates": self.get_updates,
            "answercallbackquery": self.answer_query,
            "sendmessage": partial(self.send, "text"),
            "sendphoto": partial(self.send, "photo"),
            "senddocument": partial(self.send, "document"),
            "sendchataction": self.send_action,
            "editmessagetext": partial(self.edit, "text"),
            "editmessagecaption": partial(self.edit, "caption"),
            "editmessagemedia": partial(self.edit, "media"),
            "deletemessage": self.delete,
            "getfile": self.get_file,
        }
        if not self.rows("SELECT 1 FROM sqlite_sequence WHERE name = 'updates'"):
            with self.change():  # in a new folder: none of the numbers that the bot may remember of an old one
                self.db.execute("INSERT INTO sqlite_sequence VALUES ('updates', ?)", (int(time.time()),))

    def rows(self, sql: str, *values: Json) -> list[Any]:
        with self.changed:
            return self.db.execute(sql, values).fetchall()

    @contextmanager
    def change(self) -> Iterator[None]:
        """All that is done inside, or nothing of it; whoever waits looks again."""
        with self.changed:
            with self.db:
                yield
            self.changed.notify_all()

    def wait(self, look: Callable[[], Json], seconds: float) -> Json:
        """What look() finds, which may be nothing when the time is over."""
        end = time.monotonic() + seconds
        with self.changed:
            while not (found := look()) and (left := end - time.monotonic()) > 0:
                self.changed.wait(left)
        return found

    def setting(self, name: str, default: Json) -> Json:
        found = self.rows("SELECT value FROM settings WHERE name = ?", name)
        return json.loads(found[0][0]) if found else default

    def set(self, name: str, value: Json) -> None:
        self.db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, json.dumps(value)))

    def count(self) -> int:
        number: int = self.setting("n", 0) + 1
        self.set("n", number)
        return number

    def add_message(self, chat: int, sender: Json, content: Message) -> Message:
        n = self.count()
        row = self.db.execute("INSERT INTO messages (chat, created, changed) VALUES (?, ?, ?)", (chat, n, n))
        message = {"message_id": row.lastrowid, "date": int(time.time()), "from": sender}
        message |= {"chat": {"id": chat, "type": "private", "first_name": "Guest"}, **self.with_files(content)}
        self.db.execute("UPDATE messages SET body = ? WHERE id = ?", (json.dumps(message), row.lastrowid))
        self.db.execute("UPDATE chats SET acted = 0 WHERE id = ?", (chat,))
        return message

    def with_files(self, content: Message) -> Message:
        """Puts the files of a message to be into the folder, and what Telegram tells about them in their place."""
        kept = dict(content)
        for kind in KINDS & content.keys():
            files = [self.add_file(kind, file) if isinstance(file, File) else file for file in content[kind]]
            kept[kind] = files if kind == "photo" else files[0]
        return kept

    def add_file(self, kind: str, file: File) -> Json:
        number, digest = secrets.token_hex(16), hashlib.sha256(file.data).hexdigest()
        (self.files / number).write_bytes(file.data)
        about = {"file_id": number, "file_unique_id": digest[:16], "file_size": len(file.data), **file.about}
        path = f"{kind}s/{number}" + re.sub(r"[^.a-zA-Z0-9]", "", Path(file.name).suffix)
        self.db.execute("INSERT INTO files VALUES (?, ?, ?)", (number, path, len(file.data)))
        return about

    def replace(self, old: Message, content: Message | None) -> Message:
        """Another content, or none: deleted. Files that no message shows any more go as well."""
        with self.change():
            kept = {name: value for name, value in old.items() if name not in CONTENT}
            new = kept | {"edit_date": int(time.time()), **self.with_files(content)} if content else {}
            if all(old.get(name) == new.get(name) for name in CONTENT):
                why = "specified new message content and reply markup are exactly the same as a current content"
                raise bad_request(f"message is not modified: {why} and reply markup of the message")
            values = (json.dumps(new) if new else None, self.count(), old["message_id"])
            self.db.execute("UPDATE messages SET body = ?, changed = ? WHERE id = ?", values)
            gone = {number for number in file_ids(old) - file_ids(new) if not self.showing(number)}
            self.db.executemany("DELETE FROM files WHERE id = ?", [(number,) for number in gone])
        for number in gone:
            (self.files / number).unlink(missing_ok=True)
        return new

    def showing(self, file_id: str) -> list[Any]:
        """(chat, message) for each that shows the file."""
        found = self.rows("SELECT chat, body FROM messages WHERE instr(body, ?)", json.dumps(file_id))
        return [(chat, message) for chat, body in found if file_id in file_ids(message := json.loads(body))]

    # ------------------------------------------------------------ what bots call

    def get_updates(self, call: Call) -> Json:
        offset, limit = call.number("offset"), min(100, max(1, call.number("limit", 100)))
        allowed, mine = call.structure("allowed_updates"), object()
        with self.change():
            self.poller = mine
            if isinstance(allowed, list):
                self.set("allowed_updates", allowed)
            if offset < 0:  # counted from the end
                newest = "SELECT id FROM updates ORDER BY id DESC LIMIT ?"
                self.db.execute(f"DELETE FROM updates WHERE id NOT IN ({newest})", (-offset,))
            self.db.execute("DELETE FROM updates WHERE id < ?", (offset,))

        def look() -> Json:
            if self.poller is not mine:
                why = "terminated by other getUpdates request; make sure that only one bot instance is running"
                raise Refusal(409, f"Conflict: {why}")
            return self.rows("SELECT id, body FROM updates ORDER BY id LIMIT ?", limit)

        found = self.wait(look, min(50, max(0, call.number("timeout"))))
        return [{"update_id": number, **json.loads(body)} for number, body in found]

    def set_commands(self, call: Call) -> bool:
        commands = call.structure("commands")
        if not isinstance(commands, list) or len(commands) > 100:
            raise bad_request("can't parse commands")
        with self.change():
            self.set(f"commands:{call.text('language_code')}", commands)
        return True

    def answer_query(self, call: Call) -> bool:
        with self.change():
            row = self.db.execute("DELETE FROM queries WHERE id = ?", (call.text("callback_query_id"),))
        if not row.rowcount:
            raise bad_request("query is too old and response timeout expired or query ID is invalid")
        return True

    def chat_of(self, call: Call) -> int:
        if not call.text("chat_id"):
            raise bad_request("chat_id is empty")
        chat = call.number("chat_id")
        if not self.rows("SELECT 1 FROM chats WHERE id = ?", chat):
            raise bad_request("chat not found")
        return chat

    def media(self, call: Call, kind: str, source: str) -> list[Json]:
        """Files, uploaded in this call or known by file_id."""
        upload = request.files.get(source.removeprefix("attach://"))
        if upload:
            return prepare(kind, upload)
        known = [message[kind] for _, message in self.showing(source) if kind in message]
        if not known:
            raise bad_request("wrong remote file identifier specified or no file in the request")
        return known[0] if kind == "photo" else [known[0]]

    def send(self, part: str, call: Call) -> Message:
        chat, content = self.chat_of(call), call.content("text" if part == "text" else "caption")
        if part != "text":
            content[part] = self.media(call, part, part if part in request.files else call.text(part))
        with self.change():
            return self.add_message(chat, self.me, content)

    def send_action(self, call: Call) -> bool:
        if not call.text("action"):
            raise bad_request("wrong parameter action in request")
        with self.change():
            values = (self.count(), time.time(), self.chat_of(call))
            self.db.execute("UPDATE chats SET acted = ?, acted_at = ? WHERE id = ?", values)
        return True

    def message_of(self, call: Call, action: str) -> Message:
        chat, number = self.chat_of(call), call.number("message_id")
        found = self.rows("SELECT body FROM messages WHERE id = ? AND chat = ? AND body IS NOT NULL", number, chat)
        if not found:
            raise bad_request(f"message to {action} not found")
        message: Message = json.loads(found[0][0])
        return message

    def edit(self, part: str, call: Call) -> Message:
        old = self.message_of(call, "edit")
        if not old["from"]["is_bot"]:
            raise bad_request("message can't be edited")
        if part != "media" and ("text" in old) != (part == "text"):
            raise bad_request(f"there is no {part} in the message to edit")
        if part == "media":
            media = call.structure("media")
            if not isinstance(media, dict) or media.get("type") not in KINDS:
                raise bad_request("can't parse media: only photo and document are known here")
            kind, call.values["caption"] = media["type"], media.get("caption")
            return self.replace(old, call.content("caption") | {kind: self.media(call, kind, str(media.get("media")))})
        files = {kind: old[kind] if kind == "photo" else [old[kind]] for kind in KINDS & old.keys()}
        return self.replace(old, call.content(part) | files)

    def delete(self, call: Call) -> bool:
        self.replace(self.message_of(call, "delete"), None)
        return True

    def get_file(self, call: Call) -> Json:
        found = self.rows("SELECT path, size FROM files WHERE id = ?", call.text("file_id"))
        if not found:
            raise bad_request("wrong file_id or the file is temporarily unavailable")
        path, size = found[0]
        if size > DOWNLOAD_BYTES:
            raise bad_request("file is too big")
        number = call.text("file_id")
        return {"file_id": number, "file_unique_id": number[:16], "file_size": size, "file_path": path}

    # ------------------------------------------------------------ what the page calls

    def write(self, user: int, content: Message, language: str) -> Message:
        """The user sends a message."""
        with self.change():
            sender = self.sender(user, language)
            message = self.add_message(user, sender, content)
            self.add_update("message", message)
        return message

    def press(self, user: int, number: int, data: str) -> None:
        """The user presses a button of a message."""
        found = self.rows("SELECT body FROM messages WHERE id = ? AND chat = ? AND body IS NOT NULL", number, user)
        message = json.loads(found[0][0]) if found else {}
        rows = message.get("reply_markup", {}).get("inline_keyboard", [])
        if data not in [button["callback_data"] for row in rows for button in row]:
            raise bad_request("this button is gone")
        query = secrets.token_hex(8)
        with self.change():
            self.db.execute("INSERT INTO queries VALUES (?)", (query,))
            about = {"id": query, "from": self.sender(user, ""), "chat_instance": str(user)}
            self.add_update("callback_query", about | {"message": message, "data": data})

    def sender(self, user: int, language: str) -> Json:
        """Who the bot is told it is, in the language that was told last."""
        self.db.execute("INSERT OR IGNORE INTO chats VALUES (?, 'en', 0, 0)", (user,))
        if language:
            self.db.execute("UPDATE chats SET language = ? WHERE id = ?", (language, user))
        language = self.rows("SELECT language FROM chats WHERE id = ?", user)[0][0]
        return {"id": user, "is_bot": False, "first_name": "Guest", "language_code": language}

    def add_update(self, kind: str, content: Json) -> None:
        if kind in (self.setting("allowed_updates", []) or [kind]):
            self.db.execute("INSERT INTO updates (body) VALUES (?)", (json.dumps({kind: content}),))

    def events(self, user: int, after: int) -> list[Json]:
        """What has changed in the user's chat since change number `after`."""
        known = "SELECT id, created, changed, body FROM messages WHERE chat = ? AND changed > ?"
        events = []
        for number, created, n, body in self.rows(f"{known} AND (created <= ? OR body NOT NULL)", user, after, after):
            kind = "delete" if body is None else "message" if created > after else "edit"
            message = shown(json.loads(body)) if body else {"message_id": number}
            events.append({"n": n, "kind": kind, "message": message})
        acting = "SELECT acted FROM chats WHERE id = ? AND acted > ? AND acted_at > ?"
        for (n,) in self.rows(acting, user, after, time.time() - 5):
            events.append({"n": n, "kind": "action", "action": "typing"})
        return sorted(events, key=lambda event: event["n"])


# ---------------------------------------------------------------- HTTP


def create_app(telegram: Telegram, token: str, key: str, port: int) -> Flask:
    app = Flask(__name__, static_folder=None)
    app.config.update(MAX_CONTENT_LENGTH=UPLOAD_BYTES + 2**20, MAX_FORM_MEMORY_SIZE=2**20)
    page, policy = PAGE.read_text(), content_security_policy(PAGE.read_text())
    hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}

    @app.before_request
    def guard() -> None:
        """No page of another site may come in: by a name that leads here, by a form or a picture, or by script."""
        if request.host not in hosts or request.headers.get("Origin", request.host_url[:-1]) != request.host_url[:-1]:
            raise Refusal(403, "Forbidden: this server talks to its own page only")
        if request.path != "/" and request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
            raise Refusal(403, "Forbidden: this server talks to its own page only")
        if request.path.startswith("/chat/") and not same(request.headers.get("X-Chat-Key", ""), key):
            raise Refusal(401, "Unauthorized: open the address that the program shows when it starts")

    @app.after_request
    def seal(response: Response) -> Response:
        response.headers.update(policy)
        return response

    @app.errorhandler(Exception)
    def refuse(error: Exception) -> tuple[Json, int]:
        if isinstance(error, RequestEntityTooLarge):
            drain()
        if isinstance(error, HTTPException):
            error = Refusal(error.code or 500, error.name)
        elif not isinstance(error, Refusal):  # a trace could show the token, which is in every address
            log.error("%s: %s", request.endpoint, type(error).__name__)
            error = Refusal(500, "Internal Server Error")
        return {"ok": False, "error_code": error.code, "description": error.description}, error.code

    @app.get("/")
    def show_page() -> Response:
        return Response(page, mimetype="text/html")

    @app.route("/bot<given>/<method>", methods=["GET", "POST"])
    def call_method(given: str, method: str) -> Json:
        check_token(given)
        if method.lower() not in telegram.methods:
            raise Refusal(404, "Not Found: method not found")
        return {"ok": True, "result": telegram.methods[method.lower()](Call())}

    @app.get("/file/bot<given>/<path:path>")
    def download(given: str, path: str) -> Response:
        check_token(given)
        found = telegram.rows("SELECT id FROM files WHERE path = ?", path)
        return send(found[0][0] if found else "")

    def check_token(given: str) -> None:
        if not same(given, token):
            raise Refusal(401, "Unauthorized")

    def send(number: str) -> Response:
        if not number:
            raise Refusal(404, "Not Found")
        return send_file(telegram.files / number, mimetype="application/octet-stream")

    @app.post("/chat/<int:user>/message")
    def write(user: int) -> Json:
        language = request.form.get("language_code", "")[:10]
        for kind in KINDS & request.files.keys():
            files = prepare(kind, request.files[kind], limited=False)
            content = Call().content("caption") | {kind: files}
            return shown(telegram.write(user, content, language))
        return shown(telegram.write(user, Call().content("text"), language))

    @app.post("/chat/<int:user>/press")
    def press(user: int) -> Json:
        call = Call()
        telegram.press(user, call.number("message_id"), call.text("data"))
        return {"ok": True}

    @app.get("/chat/<int:user>/events")
    def events(user: int) -> Json:
        call = Call()
        seconds = min(50, max(0, call.number("timeout")))
        return jsonify(telegram.wait(lambda: telegram.events(user, call.number("after")), seconds))

    @app.get("/chat/<int:user>/commands")
    def commands(user: int) -> Json:
        default = telegram.setting("commands:", [])
        return jsonify(telegram.setting(f"commands:{request.args.get('language_code', '')[:2]}", default))

    @app.get("/chat/<int:user>/file/<number>")
    def show_file(user: int, number: str) -> Response:
        return send(number if user in [chat for chat, _ in telegram.showing(number)] else "")

    return app


def same(given: str, secret: str) -> bool:
    return hmac.compare_digest(given.encode(), secret.encode())


def drain() -> None:
    """Reads an upload that is too large: cut off while it still sends, the other side would not see the answer."""
    left = min(request.content_length or 0, 2**30)
    while left > 0 and (chunk := request.environ["wsgi.input"].read(min(left, 2**20))):
        left -= len(chunk)


def content_security_policy(page: str) -> dict[str, str]:
    """Only the page's own script and style, known by their hashes, and only this server to talk to."""
    rules = "default-src 'none'; img-src blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    rules += "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    for kind in ("script", "style"):
        blocks = re.findall(f"<{kind}>(.*?)</{kind}>", page, re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(block.encode()).digest()).decode() for block in blocks]
        rules += f"; {kind}-src " + " ".join(f"'sha256-{digest}'" for digest in digests)
    return {
        "Content-Security-Policy": rules,
        "Cache-Control": "no-store",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m local.telegram", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="where chats and files are kept")
    arguments = parser.parse_args()
    token, key = os.environ.get("TELEGRAM_TOKEN", ""), os.environ.get("CHAT_KEY") or secrets.token_urlsafe(24)
    if not re.fullmatch(r"[0-9]{1,15}:[\w-]+", token, re.ASCII):
        print("Set TELEGRAM_TOKEN to what the bot uses: a number, a colon, and letters, as 42:secret", file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # below, it writes each address, and so the token
    app = create_app(Telegram(arguments.data, token), token, key, arguments.port)
    try:
        server = make_server("127.0.0.1", arguments.port, app, threaded=True)
    except OSError as error:
        print(f"Port {arguments.port} cannot be used: {error.strerror}. Choose another.", file=sys.stderr)
        return 2
    if "CHAT_KEY" not in os.environ:
        print(f"The chat: http://127.0.0.1:{arguments.port}/#{key}", flush=True)
    with suppress(KeyboardInterrupt):
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
