"""The methods of the Bot API that bot.py calls."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from local.telegram.errors import ApiError, bad_request
from local.telegram.parameters import Parameters, to_number
from local.telegram.store import (
    FILE_KINDS,
    Content,
    FileInfo,
    Message,
    Store,
    Update,
    Upload,
    User,
)
from local.telegram.uploads import prepare_animation, prepare_document, prepare_photo

# The largest file that a bot may download.
DOWNLOAD_BYTES = 20 * 2**20
POLL_SECONDS = 50
UPDATES = 100
COMMANDS = 100
LEAST_IN_ALBUM = 2
MOST_IN_ALBUM = 10


class BotMethods:
    """Each method takes the call's parameters, and returns the "result" or raises ApiError."""

    def __init__(self, store: Store, token: str) -> None:
        self.store = store
        # Identifies the newest call of getUpdates.
        self.poll = object()  # guarded by store.changed
        self.me: User = {
            "id": int(token.partition(":")[0]),
            "is_bot": True,
            "first_name": "stylebot",
            "username": "stylebot_bot",
        }
        # Names of methods are not case-sensitive.
        self.by_name: dict[str, Callable[[Parameters], Any]] = {
            "getme": self.get_me,
            "deletewebhook": self.delete_webhook,
            "setmycommands": self.set_my_commands,
            "getupdates": self.get_updates,
            "answercallbackquery": self.answer_callback_query,
            "sendmessage": self.send_message,
            "sendphoto": self.send_photo,
            "senddocument": self.send_document,
            "sendanimation": self.send_animation,
            "sendmediagroup": self.send_media_group,
            "sendchataction": self.send_chat_action,
            "editmessagetext": self.edit_message_text,
            "editmessagecaption": self.edit_message_caption,
            "editmessagemedia": self.edit_message_media,
            "deletemessage": self.delete_message,
            "getfile": self.get_file,
        }

    def find(self, name: str) -> Callable[[Parameters], Any]:
        method = self.by_name.get(name.lower())
        if not method:
            raise ApiError(HTTPStatus.NOT_FOUND, "Not Found: method not found")
        return method

    # ------------------------------------------------------------ the bot and its updates

    def get_me(self, parameters: Parameters) -> User:
        return self.me

    def delete_webhook(self, parameters: Parameters) -> bool:
        return True

    def set_my_commands(self, parameters: Parameters) -> bool:
        commands = parameters.json("commands")
        if not isinstance(commands, list) or len(commands) > COMMANDS:
            raise bad_request("can't parse commands")
        with self.store.change():
            self.store.set_setting(f"commands:{parameters.text('language_code')}", commands)
        return True

    def get_updates(self, parameters: Parameters) -> list[Update]:
        limit = min(UPDATES, max(1, parameters.number("limit", UPDATES)))
        seconds = min(POLL_SECONDS, max(0, parameters.number("timeout")))
        allowed = parameters.json("allowed_updates")
        this_poll = object()
        # The change wakes the poll before this one, which then ends with an error.
        with self.store.change():
            self.poll = this_poll
            self.store.confirm_updates(parameters.number("offset"))
            if isinstance(allowed, list):
                self.store.set_setting("allowed_updates", allowed)

        def look() -> list[Update]:
            if self.poll is not this_poll:
                raise ApiError(
                    HTTPStatus.CONFLICT,
                    "Conflict: terminated by other getUpdates request; "
                    "make sure that only one bot instance is running",
                )
            return self.store.pending_updates(limit)

        return self.store.wait_for(look, seconds)

    def answer_callback_query(self, parameters: Parameters) -> bool:
        if not self.store.answer_query(parameters.text("callback_query_id")):
            raise bad_request(
                "query is too old and response timeout expired or query ID is invalid"
            )
        return True

    # ------------------------------------------------------------ new messages

    def send_message(self, parameters: Parameters) -> Message:
        chat = self.find_chat(parameters)
        return self.send(chat, parameters.text_content(), parameters)

    def send_photo(self, parameters: Parameters) -> Message:
        return self.send_file("photo", parameters)

    def send_document(self, parameters: Parameters) -> Message:
        return self.send_file("document", parameters)

    def send_animation(self, parameters: Parameters) -> Message:
        return self.send_file("animation", parameters)

    def send_file(self, kind: str, parameters: Parameters) -> Message:
        """Send an upload in the call's part `kind`, or the file whose file_id `kind` is."""
        chat = self.find_chat(parameters)
        content = parameters.caption_content()
        content.kind = kind
        source = parameters.text(kind)
        if kind in parameters.files:
            source = kind
        content.files = self.read_files(kind, source, parameters)
        return self.send(chat, content, parameters)

    def send(self, chat: int, content: Content, parameters: Parameters) -> Message:
        content.replied = self.find_replied(chat, parameters)
        with self.store.change():
            return self.store.add_message(chat, self.me, content)

    def send_media_group(self, parameters: Parameters) -> list[Message]:
        """Send an album: all of its messages, or none."""
        chat = self.find_chat(parameters)
        replied = self.find_replied(chat, parameters)
        album = secrets.token_hex(8)
        contents = [self.read_media(media, parameters) for media in read_album(parameters)]
        for content in contents:
            content.album = album
            content.replied = replied
        with self.store.change():
            return [self.store.add_message(chat, self.me, content) for content in contents]

    def send_chat_action(self, parameters: Parameters) -> bool:
        if not parameters.text("action"):
            raise bad_request("wrong parameter action in request")
        self.store.set_typing(self.find_chat(parameters))
        return True

    # ------------------------------------------------------------ messages that are there

    def edit_message_text(self, parameters: Parameters) -> Message:
        old = self.find_own_message(parameters)
        if "text" not in old:
            raise bad_request("there is no text in the message to edit")
        return self.store.edit(old, parameters.text_content())

    def edit_message_caption(self, parameters: Parameters) -> Message:
        old = self.find_own_message(parameters)
        if "text" in old:
            raise bad_request("there is no caption in the message to edit")
        content = parameters.caption_content()
        content.kind = kind_of(old)
        content.files = files_of_kind(old, content.kind)
        return self.store.edit(old, content)

    def edit_message_media(self, parameters: Parameters) -> Message:
        old = self.find_own_message(parameters)
        media = parameters.json("media")
        if not isinstance(media, dict) or media.get("type") not in FILE_KINDS:
            raise bad_request(f"can't parse media: only {', '.join(FILE_KINDS)} are known here")
        return self.store.edit(old, self.read_media(media, parameters))

    def delete_message(self, parameters: Parameters) -> bool:
        self.store.delete(self.find_message(parameters, "delete"))
        return True

    def get_file(self, parameters: Parameters) -> dict[str, Any]:
        file = self.store.find_file(parameters.text("file_id"))
        if not file:
            raise bad_request("wrong file_id or the file is temporarily unavailable")
        if file.size > DOWNLOAD_BYTES:
            raise bad_request("file is too big")
        return {
            "file_id": file.file_id,
            "file_unique_id": file.file_id[:16],
            "file_size": file.size,
            "file_path": file.path,
        }

    # ------------------------------------------------------------ what a call is about

    def find_chat(self, parameters: Parameters) -> int:
        if not parameters.text("chat_id"):
            raise bad_request("chat_id is empty")
        chat = parameters.number("chat_id")
        if not self.store.has_chat(chat):
            raise bad_request("chat not found")
        return chat

    def find_message(self, parameters: Parameters, action: str) -> Message:
        chat = self.find_chat(parameters)
        message = self.store.find_message(chat, parameters.number("message_id"))
        if not message:
            raise bad_request(f"message to {action} not found")
        return message

    def find_replied(self, chat: int, parameters: Parameters) -> Message | None:
        """Return the message to reply to, or None for no reply."""
        reply = parameters.json("reply_parameters")
        if not isinstance(reply, dict):
            return None
        message = self.store.find_message(chat, to_number(reply.get("message_id")))
        if not message and not reply.get("allow_sending_without_reply"):
            raise bad_request("message to be replied not found")
        return message

    def find_own_message(self, parameters: Parameters) -> Message:
        """Return the message to edit, which must be the bot's own."""
        message = self.find_message(parameters, "edit")
        if not message["from"]["is_bot"]:
            raise bad_request("message can't be edited")
        return message

    def read_media(self, media: dict[str, Any], parameters: Parameters) -> Content:
        """Return the content of an InputMedia: its caption and its file."""
        for name in ("caption", "width", "height", "duration"):
            parameters.values[name] = media.get(name)
        content = parameters.caption_content()
        content.kind = media["type"]
        content.files = self.read_files(content.kind, str(media.get("media")), parameters)
        return content

    def read_files(self, kind: str, source: str, parameters: Parameters) -> list[Upload | FileInfo]:
        """Return the files of a photo, an animation or a document.

        `source` is the name of a part of this call, with or without attach:// before it, or a
        file_id.
        """
        upload = parameters.files.get(source.removeprefix("attach://"))
        if upload and kind == "photo":
            return list(prepare_photo(upload, from_bot=True))
        if upload and kind == "animation":
            told = {name: parameters.number(name) for name in ("width", "height", "duration")}
            return list(prepare_animation(upload, told))
        if upload:
            return list(prepare_document(upload))
        for message in self.store.messages_with_file(source):
            if kind in message:
                return files_of_kind(message, kind)
        raise bad_request("wrong remote file identifier specified or no file in the request")


def read_album(parameters: Parameters) -> list[dict[str, Any]]:
    """Return the photos or the documents of an album, 2 to 10. Raises ApiError."""
    album = parameters.json("media")
    if not isinstance(album, list) or not album:
        raise bad_request("there are no messages to send")
    if len(album) > MOST_IN_ALBUM:
        raise bad_request("too many messages to send as an album")
    if len(album) < LEAST_IN_ALBUM:
        raise bad_request(f"an album has {LEAST_IN_ALBUM} to {MOST_IN_ALBUM} messages")
    kinds = {str(media.get("type")) if isinstance(media, dict) else "" for media in album}
    for kind in kinds - {"photo", "document"}:
        raise bad_request(
            f"can't parse InputMedia: type \"{kind}\" can't be used in sendMediaGroup"
        )
    if len(kinds) > 1:
        raise bad_request("document can't be mixed with other media types")
    return album


def files_of_kind(message: Message, kind: str) -> list[Upload | FileInfo]:
    """Return the files of the message's photo, animation or document."""
    if kind == "photo":
        return list(message["photo"])
    return [message[kind]]


def kind_of(message: Message) -> str:
    """Return which kind of file the message shows, or ""."""
    for kind in FILE_KINDS:
        if kind in message:
            return kind
    return ""
