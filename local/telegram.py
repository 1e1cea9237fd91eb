"""`python -m local.telegram --port PORT --data DIR`: a Bot API server whose users sit at a browser on this machine.

It serves the methods that bot.py calls, as https://core.chats.org/bots/api describes them, and the page chat.html.
TELEGRAM_TOKEN is the bot's token; CHAT_KEY the key that the page shows with each of its calls, made up if not set.
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
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from flask import Flask, Response, jsonify, request, send_file
from PIL import Image
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.serving import make_server

from containers.serving.errors import ApiError
from containers.serving.images import decode, open_image, shrink
from local.chats import KINDS, Chats, File, Json, Message, Refusal, bad_request, shown

UPLOAD_BYTES, DOWNLOAD_BYTES, PHOTO_BYTES = 50 * 2**20, 20 * 2**20, 10 * 2**20
SIDES = (90, 320, 800, 1280)  # Telegram's sizes of a photo, by the longer side in pixels
PAGE = Path(__file__).with_name("chat.html")
log = logging.getLogger("telegram")


class Call:
    """The parameters of a Bot API call, which may come in the query, a form or JSON."""

    def __init__(self) -> None:
        body = request.get_json(silent=True) if request.is_json and request.get_data() else {}
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
            raise bad_request(
                "message is too long" if part == "text" else "message caption is too long"
            )
        return ({part: words} if words else {}) | self.buttons()

    def buttons(self) -> Message:
        try:
            rows = (self.structure("reply_markup") or {}).get("inline_keyboard") or []
            sizes = [
                len(button["callback_data"].encode())
                for row in rows
                for button in row
                if button["text"]
            ]
            whole = len(sizes) == sum(map(len, rows))
        except (AttributeError, KeyError, TypeError):
            raise bad_request(
                "can't parse inline keyboard button: text and callback_data are needed here"
            ) from None
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
        return [
            File(
                data,
                name,
                {
                    "file_name": name,
                    "mime_type": kinds[0] or kinds[1] or "application/octet-stream",
                },
            )
        ]
    if limited and len(data) > PHOTO_BYTES:
        raise bad_request(f"file of size {len(data)} bytes is too big for a photo")
    try:
        width, height = open_image(data, "photo").size
        if limited and (width + height > 10_000 or max(width, height) > 20 * min(width, height)):
            raise bad_request("PHOTO_INVALID_DIMENSIONS")
        full = decode(data, SIDES[-1], "photo")
    except ApiError as error:
        raise bad_request(f"IMAGE_PROCESS_FAILED. {error.message}") from None
    images = [shrink(full, side) for side in SIDES if side < max(full.size)] + [full]
    return [File(as_jpeg(i), "photo.jpg", {"width": i.width, "height": i.height}) for i in images]


def as_jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=87)
    return buffer.getvalue()


class BotApi:
    """What bots call; `methods` by their names in lower case."""

    def __init__(self, chats: Chats, token: str) -> None:
        self.chats = chats
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

    def get_updates(self, call: Call) -> Json:
        limit, seconds = (
            min(100, max(1, call.number("limit", 100))),
            min(50, max(0, call.number("timeout"))),
        )
        allowed, mine = call.structure("allowed_updates"), object()
        with self.chats.change():
            self.poller = mine
            self.chats.confirm(call.number("offset"))
            if isinstance(allowed, list):
                self.chats.set("allowed_updates", allowed)

        def look() -> Json:
            if self.poller is not mine:
                why = "terminated by other getUpdates request; make sure that only one bot instance is running"
                raise Refusal(409, f"Conflict: {why}")
            return self.chats.updates(limit)

        return self.chats.wait(look, seconds)

    def set_commands(self, call: Call) -> bool:
        commands = call.structure("commands")
        if not isinstance(commands, list) or len(commands) > 100:
            raise bad_request("can't parse commands")
        with self.chats.change():
            self.chats.set(f"commands:{call.text('language_code')}", commands)
        return True

    def answer_query(self, call: Call) -> bool:
        if not self.chats.answer(call.text("callback_query_id")):
            raise bad_request(
                "query is too old and response timeout expired or query ID is invalid"
            )
        return True

    def chat_of(self, call: Call) -> int:
        if not call.text("chat_id"):
            raise bad_request("chat_id is empty")
        chat = call.number("chat_id")
        if not self.chats.rows("SELECT 1 FROM chats WHERE id = ?", chat):
            raise bad_request("chat not found")
        return chat

    def media(self, call: Call, kind: str, source: str) -> list[Json]:
        """Files, uploaded in this call or known by file_id."""
        upload = request.files.get(source.removeprefix("attach://"))
        if upload:
            return prepare(kind, upload)
        known = [message[kind] for _, message in self.chats.showing(source) if kind in message]
        if not known:
            raise bad_request("wrong remote file identifier specified or no file in the request")
        return known[0] if kind == "photo" else [known[0]]

    def send(self, part: str, call: Call) -> Message:
        chat, content = self.chat_of(call), call.content("text" if part == "text" else "caption")
        if part != "text":
            content[part] = self.media(
                call, part, part if part in request.files else call.text(part)
            )
        with self.chats.change():
            return self.chats.add_message(chat, self.me, content)

    def send_action(self, call: Call) -> bool:
        if not call.text("action"):
            raise bad_request("wrong parameter action in request")
        self.chats.act(self.chat_of(call))
        return True

    def message_of(self, call: Call, action: str) -> Message:
        message = self.chats.find(self.chat_of(call), call.number("message_id"))
        if not message:
            raise bad_request(f"message to {action} not found")
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
            return self.chats.replace(
                old,
                call.content("caption") | {kind: self.media(call, kind, str(media.get("media")))},
            )
        files = {kind: old[kind] if kind == "photo" else [old[kind]] for kind in KINDS & old.keys()}
        return self.chats.replace(old, call.content(part) | files)

    def delete(self, call: Call) -> bool:
        self.chats.replace(self.message_of(call, "delete"), None)
        return True

    def get_file(self, call: Call) -> Json:
        found = self.chats.rows("SELECT path, size FROM files WHERE id = ?", call.text("file_id"))
        if not found:
            raise bad_request("wrong file_id or the file is temporarily unavailable")
        path, size = found[0]
        if size > DOWNLOAD_BYTES:
            raise bad_request("file is too big")
        number = call.text("file_id")
        return {
            "file_id": number,
            "file_unique_id": number[:16],
            "file_size": size,
            "file_path": path,
        }


# ---------------------------------------------------------------- HTTP


def create_app(chats: Chats, token: str, key: str, port: int) -> Flask:
    app, methods = Flask(__name__, static_folder=None), BotApi(chats, token).methods
    app.config.update(MAX_CONTENT_LENGTH=UPLOAD_BYTES + 2**20, MAX_FORM_MEMORY_SIZE=2**20)
    page, policy = PAGE.read_text(), content_security_policy(PAGE.read_text())
    hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}

    @app.before_request
    def guard() -> None:
        """No page of another site may come in: by a name that leads here, by a form or a picture, or by script."""
        if (
            request.host not in hosts
            or request.headers.get("Origin", request.host_url[:-1]) != request.host_url[:-1]
        ):
            raise Refusal(403, "Forbidden: this server talks to its own page only")
        if request.path != "/" and request.headers.get("Sec-Fetch-Site", "same-origin") not in (
            "same-origin",
            "none",
        ):
            raise Refusal(403, "Forbidden: this server talks to its own page only")
        if request.path.startswith("/chat/") and not same(
            request.headers.get("X-Chat-Key", ""), key
        ):
            raise Refusal(
                401, "Unauthorized: open the address that the program shows when it starts"
            )

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
        elif not isinstance(
            error, Refusal
        ):  # a trace could show the token, which is in every address
            log.error("%s: %s", request.endpoint, type(error).__name__)
            error = Refusal(500, "Internal Server Error")
        return {"ok": False, "error_code": error.code, "description": error.description}, error.code

    @app.get("/")
    def show_page() -> Response:
        return Response(page, mimetype="text/html")

    @app.route("/bot<given>/<method>", methods=["GET", "POST"])
    def call_method(given: str, method: str) -> Json:
        check_token(given)
        if method.lower() not in methods:
            raise Refusal(404, "Not Found: method not found")
        return {"ok": True, "result": methods[method.lower()](Call())}

    @app.get("/file/bot<given>/<path:path>")
    def download(given: str, path: str) -> Response:
        check_token(given)
        found = chats.rows("SELECT id FROM files WHERE path = ?", path)
        return send(found[0][0] if found else "")

    def check_token(given: str) -> None:
        if not same(given, token):
            raise Refusal(401, "Unauthorized")

    def send(number: str) -> Response:
        if not number:
            raise Refusal(404, "Not Found")
        return send_file(chats.files / number, mimetype="application/octet-stream")

    @app.post("/chat/<int(min=1,max=4503599627370495):user>/message")
    def write(user: int) -> Json:
        language = request.form.get("language_code", "")[:10]
        for kind in KINDS & request.files.keys():
            files = prepare(kind, request.files[kind], limited=False)
            content = Call().content("caption") | {kind: files}
            return shown(chats.write(user, content, language))
        return shown(chats.write(user, Call().content("text"), language))

    @app.post("/chat/<int(min=1,max=4503599627370495):user>/press")
    def press(user: int) -> Json:
        call = Call()
        chats.press(user, call.number("message_id"), call.text("data"))
        return {"ok": True}

    @app.get("/chat/<int(min=1,max=4503599627370495):user>/events")
    def events(user: int) -> Json:
        call = Call()
        seconds = min(50, max(0, call.number("timeout")))
        return jsonify(chats.wait(lambda: chats.events(user, call.number("after")), seconds))

    @app.get("/chat/<int(min=1,max=4503599627370495):user>/commands")
    def commands(user: int) -> Json:
        default = chats.setting("commands:", [])
        return jsonify(
            chats.setting(f"commands:{request.args.get('language_code', '')[:2]}", default)
        )

    @app.get("/chat/<int(min=1,max=4503599627370495):user>/file/<number>")
    def show_file(user: int, number: str) -> Response:
        return send(number if user in [chat for chat, _ in chats.showing(number)] else "")

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
        digests = [
            base64.b64encode(hashlib.sha256(block.encode()).digest()).decode() for block in blocks
        ]
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
    parser = argparse.ArgumentParser(
        prog="python -m local.telegram", description=(__doc__ or "").partition("\n\n")[0]
    )
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="where chats and files are kept"
    )
    arguments = parser.parse_args()
    token, key = (
        os.environ.get("TELEGRAM_TOKEN", ""),
        os.environ.get("CHAT_KEY") or secrets.token_urlsafe(24),
    )
    if not re.fullmatch(r"[0-9]{1,15}:[\w-]+", token, re.ASCII):
        print(
            "Set TELEGRAM_TOKEN to what the bot uses: a number, a colon, and letters, as 42:secret",
            file=sys.stderr,
        )
        return 2
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("werkzeug").setLevel(
        logging.ERROR
    )  # below, it writes each address, and so the token
    app = create_app(Chats(arguments.data), token, key, arguments.port)
    server = make_server(
        "127.0.0.1", arguments.port, app, threaded=True
    )  # exits with a message if it cannot
    if "CHAT_KEY" not in os.environ:
        print(f"The chat: http://127.0.0.1:{arguments.port}/#{key}", flush=True)
    with suppress(KeyboardInterrupt):
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
