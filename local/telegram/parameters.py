"""The parameters of a Bot API call."""

from __future__ import annotations

import json
import re
from typing import Any

from flask import Request

from local.telegram.errors import ApiError, bad_request
from local.telegram.store import Button, Content

# In units of UTF-16, as Telegram counts.
TEXT_LENGTH = 4096
CAPTION_LENGTH = 1024
CALLBACK_DATA_BYTES = 64
BUTTONS = 100
# No call of the Bot API needs as many levels.
JSON_LEVELS = 20


class Parameters:
    """The values and files of a call. The values may come in the query, in a form, or as JSON."""

    def __init__(self, request: Request) -> None:
        """Raises ApiError where the JSON cannot be read."""
        body: object = {}
        if request.is_json and request.get_data():
            body = parse_json(request.get_data(), "the request's")
        if not isinstance(body, dict):
            raise cannot_parse("the request's")
        self.values: dict[str, Any] = {**request.args, **request.form, **body}
        self.files = request.files

    def text(self, name: str) -> str:
        value = self.values.get(name)
        if value is None:
            return ""
        text = str(value)
        try:
            text.encode()
        except UnicodeEncodeError:  # JSON may have half of a character
            raise bad_request("strings must be encoded in UTF-8") from None
        return text

    def number(self, name: str, default: int = 0) -> int:
        """Return the integer. What is no integer reads as 0, as it does at Telegram."""
        return to_number(self.text(name) or default)

    def json(self, name: str) -> Any:  # noqa: ANN401 - JSON
        """Return an object or a list, which in a form is JSON. Raises ApiError."""
        value = self.values.get(name)
        if not isinstance(value, str) or not value:
            return value
        return parse_json(value, name)

    def text_content(self) -> Content:
        """Return the content of a text message. Raises ApiError."""
        text = self.text("text").strip()
        if not text:
            raise bad_request("message text is empty")
        if length(text) > TEXT_LENGTH:
            raise bad_request("message is too long")
        return Content(text=text, keyboard=self.keyboard())

    def caption_content(self) -> Content:
        """Return the content of a message with a file, without the file. Raises ApiError."""
        caption = self.text("caption").strip()
        if length(caption) > CAPTION_LENGTH:
            raise bad_request("message caption is too long")
        return Content(caption=caption, keyboard=self.keyboard())

    def keyboard(self) -> list[list[Button]]:
        """Return the rows of buttons in reply_markup. Raises ApiError."""
        try:
            markup = self.json("reply_markup") or {}
            rows: list[list[Button]] = markup.get("inline_keyboard") or []
            buttons = [button for row in rows for button in row]
            texts = [button["text"].strip() for button in buttons]
            sizes = [len(button["callback_data"].encode()) for button in buttons]
        except (AttributeError, KeyError, TypeError):
            raise bad_request(
                "can't parse inline keyboard button: text and callback_data are needed here"
            ) from None
        if len(buttons) > BUTTONS:
            raise bad_request("reply markup is too long")
        if not all(texts) or not all(1 <= size <= CALLBACK_DATA_BYTES for size in sizes):
            raise bad_request("BUTTON_DATA_INVALID")
        return rows


def to_number(value: object) -> int:
    """Return the integer that JSON or a text has, or 0."""
    if not re.fullmatch(r"-?[0-9]{1,18}", str(value)):
        return 0
    return int(str(value))


def parse_json(data: str | bytes, name: str) -> Any:  # noqa: ANN401 - JSON
    """Return what the JSON holds. Raises ApiError, also where it is nested too deeply."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise cannot_parse(name) from None
    if is_deeper(value, JSON_LEVELS):
        raise cannot_parse(name)
    return value


def is_deeper(value: object, levels: int) -> bool:
    """Return whether objects and lists are nested in more than so many levels."""
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return False
    return levels == 0 or any(is_deeper(item, levels - 1) for item in value)


def cannot_parse(name: str) -> ApiError:
    return bad_request(f"can't parse {name} JSON object")


def length(text: str) -> int:
    """Return the length in units of UTF-16, of which an emoji has two."""
    return len(text.encode("utf-16-le")) // 2
