"""The chats, stored in SQLite, and the files of their messages, stored in a folder.

Each change is on disk before its call is answered: a kill at any moment loses nothing that was
answered with ok. A message is stored as the JSON object that the Bot API tells of it. All changes
are numbered by one counter, so that "what is new after change n" is one query.
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from local.telegram.errors import bad_request

SCHEMA = """
PRAGMA journal_mode = WAL;

-- A private chat has the id of its user.
-- acted, acted_at: number and time of the change with which the bot began to type.
CREATE TABLE IF NOT EXISTS chats (
    id INTEGER PRIMARY KEY,
    language TEXT,
    acted INTEGER,
    acted_at REAL
);

-- created, changed: numbers of changes.
-- body: the message as JSON; NULL once it is deleted.
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    chat INTEGER,
    created INTEGER,
    changed INTEGER,
    body TEXT
);
CREATE INDEX IF NOT EXISTS changes ON messages (chat, changed);

CREATE TABLE IF NOT EXISTS files (
    id TEXT PRIMARY KEY,
    path TEXT UNIQUE,
    size INTEGER
);

-- Updates that the bot has not confirmed.
CREATE TABLE IF NOT EXISTS updates (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    body TEXT
);

-- Callback queries that the bot has not answered.
CREATE TABLE IF NOT EXISTS queries (
    id TEXT PRIMARY KEY
);

-- value: JSON. The setting "n" is the number of the last change.
CREATE TABLE IF NOT EXISTS settings (
    name TEXT PRIMARY KEY,
    value TEXT
);
"""

# The members of a message that an edit replaces.
CONTENT_MEMBERS = ("text", "caption", "animation", "photo", "document", "reply_markup")
# The kinds of files. A photo is several files, one for each size. A message with an animation shows
# the same file as its document too, for bots that know of no animations.
FILE_KINDS = ("animation", "photo", "document")
TYPING_SECONDS = 5
BUTTON_PICTURES = "button-pictures"

# A Message, Update or User of the Bot API, as JSON.
Message = dict[str, Any]
Update = dict[str, Any]
User = dict[str, Any]
T = TypeVar("T")


class FileInfo(TypedDict, total=False):
    """A PhotoSize, an Animation or a Document of the Bot API."""

    file_id: str
    file_unique_id: str
    file_size: int
    width: int
    height: int
    duration: int
    file_name: str
    mime_type: str


@dataclass
class Upload:
    """A file that is not stored yet. `info` is what the Bot API tells of it beside ids and size."""

    data: bytes
    name: str
    info: FileInfo


@dataclass
class StoredFile:
    file_id: str
    # The file_path that getFile answers.
    path: str
    size: int


class Button(TypedDict):
    text: str
    callback_data: str


@dataclass
class Content:
    """What a message shows: text, or a file of `kind` with a caption; and rows of buttons."""

    text: str = ""
    caption: str = ""
    kind: str = ""
    files: list[Upload | FileInfo] = field(default_factory=list)
    keyboard: list[list[Button]] = field(default_factory=list)
    # The messages of an album have one media_group_id.
    album: str = ""
    # The message that this one replies to.
    replied: Message | None = None


class Event(TypedDict, total=False):
    """A change of a chat, as the page reads it."""

    # The number of the change.
    n: int
    # "message", "edit", "delete" or "action".
    kind: str
    message: Message
    action: str


class Store:
    """The chats of all users. Used by many threads."""

    def __init__(self, folder: Path) -> None:
        self.files = folder / "files"
        self.files.mkdir(parents=True, exist_ok=True)
        # Another program may put pictures for buttons here; see button_pictures.py.
        self.button_pictures = folder / BUTTON_PICTURES
        # Notified after each change of the database. A thread that holds it may take it again.
        self.changed = threading.Condition()
        path = folder / "chat.sqlite"
        self.db = sqlite3.connect(path, check_same_thread=False)  # guarded by changed
        self.db.executescript(SCHEMA)
        if self.setting("n", None) is None:
            self.begin_numbering()

    def begin_numbering(self) -> None:
        """Begin above all numbers that a bot or a page may remember of a former folder."""
        now = int(time.time())
        with self.change():
            self.set_setting("n", now)
            self.db.execute(
                "INSERT INTO sqlite_sequence VALUES ('updates', ?), ('messages', ?)", (now, now)
            )

    # ------------------------------------------------------------ the database

    def rows(self, sql: str, *values: object) -> list[Any]:
        with self.changed:
            return self.db.execute(sql, values).fetchall()

    @contextmanager
    def change(self) -> Iterator[None]:
        """Make all changes of the block, or none if it raises. Then wake whoever waits."""
        with self.changed:
            with self.db:
                yield
            self.changed.notify_all()

    def wait_for(self, look: Callable[[], list[T]], seconds: float) -> list[T]:
        """Return what `look` finds, as soon as it finds something; [] after `seconds`."""
        deadline = time.monotonic() + seconds
        with self.changed:
            while True:
                found = look()
                left = deadline - time.monotonic()
                if found or left <= 0:
                    return found
                self.changed.wait(left)

    def setting(self, name: str, default: Any) -> Any:  # noqa: ANN401 - JSON
        found = self.rows("SELECT value FROM settings WHERE name = ?", name)
        if not found:
            return default
        return json.loads(found[0][0])

    def set_setting(self, name: str, value: object) -> None:
        """To be called within change()."""
        self.db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, json.dumps(value)))

    def next_number(self) -> int:
        """Return the number of a new change. To be called within change()."""
        number: int = self.setting("n", 0) + 1
        self.set_setting("n", number)
        return number

    # ------------------------------------------------------------ messages and files

    def add_message(self, chat: int, sender: User, content: Content) -> Message:
        """Store a new message and return it. To be called within change()."""
        n = self.next_number()
        row = self.db.execute(
            "INSERT INTO messages (chat, created, changed) VALUES (?, ?, ?)", (chat, n, n)
        )
        message = {
            "message_id": row.lastrowid,
            "date": int(time.time()),
            "from": sender,
            "chat": {"id": chat, "type": "private", "first_name": "Guest"},
            **self.content_members(content),
        }
        if content.album:
            message["media_group_id"] = content.album
        if content.replied:
            message["reply_to_message"] = without_reply(content.replied)
        if sender["is_bot"] is False and content.text.startswith("/"):
            message["entities"] = [command_entity(content.text)]
        self.db.execute(
            "UPDATE messages SET body = ? WHERE id = ?", (json.dumps(message), row.lastrowid)
        )
        # A new message ends "typing".
        self.db.execute("UPDATE chats SET acted = 0 WHERE id = ?", (chat,))
        return message

    def content_members(self, content: Content) -> Message:
        """Return the content as members of a message, after storing its uploads."""
        members: Message = {}
        if content.text:
            members["text"] = content.text
        if content.caption:
            members["caption"] = content.caption
        if content.kind:
            infos = [self.add_file(content.kind, file) for file in content.files]
            members[content.kind] = infos[0]
            if content.kind == "photo":
                members["photo"] = infos
            if content.kind == "animation":
                members["document"] = infos[0]
        if content.keyboard:
            members["reply_markup"] = {"inline_keyboard": content.keyboard}
        return members

    def add_file(self, kind: str, file: Upload | FileInfo) -> FileInfo:
        """Store the file if it is an upload. Return what the Bot API tells of it."""
        if not isinstance(file, Upload):
            return file
        file_id = secrets.token_hex(16)
        (self.files / file_id).write_bytes(file.data)
        suffix = re.sub(r"[^.a-zA-Z0-9]", "", Path(file.name).suffix)
        values = (file_id, f"{kind}s/{file_id}{suffix}", len(file.data))
        self.db.execute("INSERT INTO files VALUES (?, ?, ?)", values)
        info: FileInfo = {
            "file_id": file_id,
            "file_unique_id": hashlib.sha256(file.data).hexdigest()[:16],
            "file_size": len(file.data),
        }
        info.update(file.info)
        return info

    def edit(self, old: Message, content: Content) -> Message:
        """Replace the content, and return the message. Raises ApiError where nothing differs."""
        with self.change():
            new = {name: value for name, value in old.items() if name not in CONTENT_MEMBERS}
            new["edit_date"] = int(time.time())
            new.update(self.content_members(content))
            if all(old.get(name) == new.get(name) for name in CONTENT_MEMBERS):
                raise bad_request(
                    "message is not modified: specified new message content and reply markup are "
                    "exactly the same as a current content and reply markup of the message"
                )
            unused = self.replace(old, new)
        self.remove_files(unused)
        return new

    def delete(self, old: Message) -> None:
        with self.change():
            unused = self.replace(old, None)
        self.remove_files(unused)

    def replace(self, old: Message, new: Message | None) -> set[str]:
        """Store `new`, or a deletion, in the place of `old`.

        Return the file_ids that no message shows any more. To be called within change().
        """
        body = None
        file_ids_left: set[str] = set()
        if new is not None:
            body = json.dumps(new)
            file_ids_left = file_ids(new)
        self.db.execute(
            "UPDATE messages SET body = ?, changed = ? WHERE id = ? AND body NOT NULL",
            (body, self.next_number(), old["message_id"]),
        )
        dropped = file_ids(old) - file_ids_left
        unused = {file_id for file_id in dropped if not self.messages_with_file(file_id)}
        for file_id in unused:
            self.db.execute("DELETE FROM files WHERE id = ?", (file_id,))
        return unused

    def remove_files(self, ids: set[str]) -> None:
        for file_id in ids:
            (self.files / file_id).unlink(missing_ok=True)

    def messages_with_file(self, file_id: str) -> list[Message]:
        """Return the messages that show the file."""
        rows = self.rows("SELECT body FROM messages WHERE instr(body, ?)", json.dumps(file_id))
        messages = [json.loads(body) for (body,) in rows]
        return [message for message in messages if file_id in file_ids(message)]

    def find_message(self, chat: int, message_id: int) -> Message | None:
        found = self.rows(
            "SELECT body FROM messages WHERE id = ? AND chat = ? AND body NOT NULL",
            message_id,
            chat,
        )
        if not found:
            return None
        message: Message = json.loads(found[0][0])
        return message

    def find_file(self, file_id: str) -> StoredFile | None:
        found = self.rows("SELECT id, path, size FROM files WHERE id = ?", file_id)
        if not found:
            return None
        return StoredFile(*found[0])

    def find_file_by_path(self, path: str) -> StoredFile | None:
        found = self.rows("SELECT id, path, size FROM files WHERE path = ?", path)
        if not found:
            return None
        return StoredFile(*found[0])

    def has_chat(self, chat: int) -> bool:
        return bool(self.rows("SELECT 1 FROM chats WHERE id = ?", chat))

    # ------------------------------------------------------------ what users do

    def send_as_user(self, user: int, content: Content, language: str) -> Message:
        """Store a message of the user, and an update for the bot. Return the message."""
        with self.change():
            message = self.add_message(user, self.save_user(user, language), content)
            self.add_update("message", message)
        return message

    def press_button(self, user: int, message_id: int, data: str) -> None:
        """Store an update for the bot. Raises ApiError where the message has no such button."""
        message = self.find_message(user, message_id)
        if not message or data not in callback_data(message):
            raise bad_request("this button is gone")
        query_id = secrets.token_hex(8)
        with self.change():
            self.db.execute("INSERT INTO queries VALUES (?)", (query_id,))
            query = {
                "id": query_id,
                "from": self.save_user(user, ""),
                "chat_instance": str(user),
                "message": message,
                "data": data,
            }
            self.add_update("callback_query", query)

    def save_user(self, user: int, language: str) -> User:
        """Store the user, and the language if it is given. Return the User.

        To be called within change().
        """
        self.db.execute("INSERT OR IGNORE INTO chats VALUES (?, 'en', 0, 0)", (user,))
        if language:
            self.db.execute("UPDATE chats SET language = ? WHERE id = ?", (language, user))
        language = self.rows("SELECT language FROM chats WHERE id = ?", user)[0][0]
        return {"id": user, "is_bot": False, "first_name": "Guest", "language_code": language}

    def add_update(self, kind: str, content: Message) -> None:
        """Store an update, unless the bot does not want this kind. To be called within change()."""
        allowed = self.setting("allowed_updates", [])
        if allowed and kind not in allowed:
            return
        self.db.execute("INSERT INTO updates (body) VALUES (?)", (json.dumps({kind: content}),))

    def events(self, user: int, after: int) -> list[Event]:
        """Return the changes of the user's chat since change number `after`, in their order."""
        events = self.message_events(user, after) + self.typing_events(user, after)
        return sorted(events, key=lambda event: event["n"])

    def message_events(self, user: int, after: int) -> list[Event]:
        # A message that was both sent and deleted since then is left out.
        rows = self.rows(
            "SELECT id, created, changed, body FROM messages "
            "WHERE chat = ? AND changed > ? AND (created <= ? OR body NOT NULL)",
            user,
            after,
            after,
        )
        events: list[Event] = []
        for message_id, created, changed, body in rows:
            if body is None:
                events.append(
                    {"n": changed, "kind": "delete", "message": {"message_id": message_id}}
                )
                continue
            kind = "edit"
            if created > after:
                kind = "message"
            message = brief_message(json.loads(body))
            events.append({"n": changed, "kind": kind, "message": message})
        return events

    def typing_events(self, user: int, after: int) -> list[Event]:
        rows = self.rows(
            "SELECT acted FROM chats WHERE id = ? AND acted > ? AND acted_at > ?",
            user,
            after,
            time.time() - TYPING_SECONDS,
        )
        return [{"n": n, "kind": "action", "action": "typing"} for (n,) in rows]

    # ------------------------------------------------------------ what the bot reads and does

    def pending_updates(self, limit: int) -> list[Update]:
        """Return the oldest updates that are not confirmed."""
        rows = self.rows("SELECT id, body FROM updates ORDER BY id LIMIT ?", limit)
        return [{"update_id": update_id, **json.loads(body)} for update_id, body in rows]

    def confirm_updates(self, offset: int) -> None:
        """Forget the updates below `offset`; where it is negative, all but the last -offset.

        To be called within change().
        """
        if offset >= 0:
            self.db.execute("DELETE FROM updates WHERE id < ?", (offset,))
            return
        newest = "SELECT id FROM updates ORDER BY id DESC LIMIT ?"
        self.db.execute(f"DELETE FROM updates WHERE id NOT IN ({newest})", (-offset,))

    def answer_query(self, query_id: str) -> bool:
        """Return whether there was such a callback query that had no answer."""
        with self.change():
            row = self.db.execute("DELETE FROM queries WHERE id = ?", (query_id,))
            return row.rowcount > 0

    def set_typing(self, chat: int) -> None:
        """Show for five seconds that the bot is typing."""
        with self.change():
            values = (self.next_number(), time.time(), chat)
            self.db.execute("UPDATE chats SET acted = ?, acted_at = ? WHERE id = ?", values)


def command_entity(text: str) -> dict[str, Any]:
    """Return the MessageEntity by which many bots recognize a command."""
    return {"type": "bot_command", "offset": 0, "length": len(text.split()[0])}


def callback_data(message: Message) -> list[str]:
    """Return the callback data of the message's buttons."""
    rows = message.get("reply_markup", {}).get("inline_keyboard", [])
    return [button["callback_data"] for row in rows for button in row]


def without_reply(message: Message) -> Message:
    """Return a message as it is shown in a reply to it. Replies are not nested."""
    return {name: value for name, value in message.items() if name != "reply_to_message"}


def files_of(message: Message) -> list[FileInfo]:
    files = list(message.get("photo", ()))
    if "document" in message:
        files.append(message["document"])
    return files


def file_ids(message: Message) -> set[str]:
    return {file["file_id"] for file in files_of(message)}


def brief_message(message: Message) -> Message:
    """Return the message as the page reads it: each file once, of a photo only the largest size.

    `reply_to` is the id of the message that it replies to.
    """
    names = ("message_id", "date", "media_group_id", *CONTENT_MEMBERS)
    brief = {name: message[name] for name in names if name in message}
    if "photo" in message:
        file_name = f"photo{message['message_id']}.jpg"
        brief["photo"] = {"file_name": file_name, **message["photo"][-1]}
    if "animation" in brief:
        del brief["document"]
    if "reply_to_message" in message:
        brief["reply_to"] = message["reply_to_message"]["message_id"]
    for kind in FILE_KINDS:
        if kind in brief:
            brief[kind] = {"size": brief[kind]["file_size"], **brief[kind]}
    brief["from"] = "user"
    if message["from"]["is_bot"]:
        brief["from"] = "bot"
    return brief
