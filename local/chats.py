"""Chats as they are kept: SQLite and files in one folder, written before a call is answered.

Killed at any moment, nothing is lost that was answered with ok. A chat is its messages as the Bot API writes them.
`n` counts all changes, so that "what is new after n" is one query, and an edited message needs no second row.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

Json = Any  # whatever JSON can hold
Message = dict[str, Json]  # as the Bot API writes it
CONTENT = ("text", "caption", "photo", "document", "reply_markup")  # what an edit replaces
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


def file_ids(message: Message) -> set[str]:
    return {
        file["file_id"] for file in [*message.get("photo", ()), message.get("document")] if file
    }


def shown(message: Message) -> Message:
    """A message as the page wants it: of a photo only the largest size."""
    brief = {name: message[name] for name in ("message_id", "date", *CONTENT) if name in message}
    if "photo" in brief:
        brief["photo"] = {"file_name": f"photo{message['message_id']}.jpg", **brief["photo"][-1]}
    for kind in KINDS & brief.keys():
        brief[kind] = {"size": brief[kind]["file_size"], **brief[kind]}
    return brief | {"from": "bot" if message["from"]["is_bot"] else "user"}


class Chats:
    """Its methods go from SQLite, over messages and files, to what users do and what the bot is told."""

    def __init__(self, folder: Path) -> None:
        self.files = folder / "files"
        self.files.mkdir(parents=True, exist_ok=True)
        self.db = sqlite3.connect(folder / "chat.sqlite", check_same_thread=False)
        self.db.executescript(SCHEMA)
        self.changed = threading.Condition()  # held for any use of db
        if self.setting("n", None) is None:
            now = int(time.time())
            with (
                self.change()
            ):  # a new folder: none of the numbers that a bot or a page may remember of an old one
                self.set("n", now)
                self.db.execute(
                    "INSERT INTO sqlite_sequence VALUES ('updates', ?), ('messages', ?)", (now, now)
                )

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
        row = self.db.execute(
            "INSERT INTO messages (chat, created, changed) VALUES (?, ?, ?)", (chat, n, n)
        )
        message = {"message_id": row.lastrowid, "date": int(time.time()), "from": sender}
        message |= {
            "chat": {"id": chat, "type": "private", "first_name": "Guest"},
            **self.with_files(content),
        }
        self.db.execute(
            "UPDATE messages SET body = ? WHERE id = ?", (json.dumps(message), row.lastrowid)
        )
        self.db.execute("UPDATE chats SET acted = 0 WHERE id = ?", (chat,))
        return message

    def with_files(self, content: Message) -> Message:
        """Puts the files of a message to be into the folder, and what Telegram tells about them in their place."""
        kept = dict(content)
        for kind in KINDS & content.keys():
            files = [
                self.add_file(kind, file) if isinstance(file, File) else file
                for file in content[kind]
            ]
            kept[kind] = files if kind == "photo" else files[0]
        return kept

    def add_file(self, kind: str, file: File) -> Json:
        number, digest = secrets.token_hex(16), hashlib.sha256(file.data).hexdigest()
        (self.files / number).write_bytes(file.data)
        about = {
            "file_id": number,
            "file_unique_id": digest[:16],
            "file_size": len(file.data),
            **file.about,
        }
        path = f"{kind}s/{number}" + re.sub(r"[^.a-zA-Z0-9]", "", Path(file.name).suffix)
        self.db.execute("INSERT INTO files VALUES (?, ?, ?)", (number, path, len(file.data)))
        return about

    def replace(self, old: Message, content: Message | None) -> Message:
        """Another content, or none: deleted. Files that no message shows any more go as well."""
        with self.change():
            kept = {name: value for name, value in old.items() if name not in CONTENT}
            new = (
                kept | {"edit_date": int(time.time()), **self.with_files(content)}
                if content
                else {}
            )
            if all(old.get(name) == new.get(name) for name in CONTENT):
                why = "specified new message content and reply markup are exactly the same as a current content"
                raise bad_request(f"message is not modified: {why} and reply markup of the message")
            values = (json.dumps(new) if new else None, self.count(), old["message_id"])
            self.db.execute(
                "UPDATE messages SET body = ?, changed = ? WHERE id = ? AND body NOT NULL", values
            )
            gone = {number for number in file_ids(old) - file_ids(new) if not self.showing(number)}
            self.db.executemany("DELETE FROM files WHERE id = ?", [(number,) for number in gone])
        for number in gone:
            (self.files / number).unlink(missing_ok=True)
        return new

    def showing(self, file_id: str) -> list[Any]:
        """(chat, message) for each that shows the file."""
        found = self.rows(
            "SELECT chat, body FROM messages WHERE instr(body, ?)", json.dumps(file_id)
        )
        return [
            (chat, message)
            for chat, body in found
            if file_id in file_ids(message := json.loads(body))
        ]

    def find(self, chat: int, number: int) -> Message | None:
        found = self.rows(
            "SELECT body FROM messages WHERE id = ? AND chat = ? AND body NOT NULL", number, chat
        )
        return json.loads(found[0][0]) if found else None

    # ------------------------------------------------------------ what users do

    def write(self, user: int, content: Message, language: str) -> Message:
        """The user sends a message."""
        with self.change():
            sender = self.sender(user, language)
            if content.get("text", "").startswith("/"):  # by which many bots tell a command
                command = {
                    "type": "bot_command",
                    "offset": 0,
                    "length": len(content["text"].split()[0]),
                }
                content = content | {"entities": [command]}
            message = self.add_message(user, sender, content)
            self.add_update("message", message)
        return message

    def press(self, user: int, number: int, data: str) -> None:
        """The user presses a button of a message."""
        message = self.find(user, number) or {}
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
        for number, created, n, body in self.rows(
            f"{known} AND (created <= ? OR body NOT NULL)", user, after, after
        ):
            kind = "delete" if body is None else "message" if created > after else "edit"
            message = shown(json.loads(body)) if body else {"message_id": number}
            events.append({"n": n, "kind": kind, "message": message})
        acting = "SELECT acted FROM chats WHERE id = ? AND acted > ? AND acted_at > ?"
        for (n,) in self.rows(acting, user, after, time.time() - 5):
            events.append({"n": n, "kind": "action", "action": "typing"})
        return sorted(events, key=lambda event: event["n"])

    # ------------------------------------------------------------ what the bot is told, and does

    def updates(self, limit: int) -> list[Json]:
        found = self.rows("SELECT id, body FROM updates ORDER BY id LIMIT ?", limit)
        return [{"update_id": number, **json.loads(body)} for number, body in found]

    def confirm(self, offset: int) -> None:
        """Forget the updates below `offset`, or all but the last -offset of them."""
        newest = "SELECT id FROM updates ORDER BY id DESC LIMIT ?"
        below, values = ("id < ?", offset) if offset >= 0 else (f"id NOT IN ({newest})", -offset)
        self.db.execute(f"DELETE FROM updates WHERE {below}", (values,))

    def answer(self, query: str) -> bool:
        """Whether there was such a callback query without an answer."""
        with self.change():
            return self.db.execute("DELETE FROM queries WHERE id = ?", (query,)).rowcount > 0

    def act(self, chat: int) -> None:
        """The bot is typing."""
        with self.change():
            values = (self.count(), time.time(), chat)
            self.db.execute("UPDATE chats SET acted = ?, acted_at = ? WHERE id = ?", values)
